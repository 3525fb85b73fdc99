//! Where the CPU time of one run went.
//!
//! Two looks at /proc, before and after, and their difference: what each core did, what the
//! server's processes did, and what belonged to neither side.
//! The resolution is the kernel's tick (10 ms on most machines), which is 0.25 % of a 4 s run.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use procfs::process::{Process, all_processes};
use procfs::{CurrentSI, KernelStats};
use serde::{Deserialize, Serialize};

/// What one run cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Usage {
    /// Each core of the server and of the load that is on this machine.
    pub cores: Vec<Core>,
    /// The server's processes, all threads.
    pub server: ProcessUsage,
    /// CPU seconds on these cores that belonged to processes of neither side.
    pub foreign_s: f64,
    /// Those of them that used the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<Foreign>,
}

/// A process of neither side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foreign {
    /// What the kernel calls it.
    pub name: String,
    /// Its number.
    pub pid: i32,
    /// CPU seconds that it used.
    pub cpu_s: f64,
}

/// Most foreign processes that are named.
const FOREIGN_MAX: usize = 3;

/// What one core did, in seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Core {
    /// Its number.
    pub core: usize,
    /// Whose it is.
    pub side: Side,
    /// User code, niced or not.
    pub user_s: f64,
    /// Kernel code on behalf of a process.
    pub system_s: f64,
    /// Interrupts and soft interrupts.
    pub softirq_s: f64,
    /// Nothing, or waiting for a disk.
    pub idle_s: f64,
    /// Taken by the hypervisor.
    pub steal_s: f64,
}

/// Whose core it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Side {
    Server,
    Client,
}

/// What the processes of one side did.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// CPU seconds in user code.
    pub user_s: f64,
    /// CPU seconds in the kernel.
    pub system_s: f64,
    /// Voluntary context switches: it waited.
    pub switches_voluntary: u64,
    /// Involuntary context switches: another thread got the core.
    pub switches_involuntary: u64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
}

impl Core {
    /// Seconds in which it did anything.
    pub fn busy_s(&self) -> f64 {
        self.user_s + self.system_s + self.softirq_s
    }

    /// The share of its time in which it did anything, or would have if the hypervisor had let it.
    pub fn busy_share(&self) -> f64 {
        let wanted_s = self.busy_s() + self.steal_s;
        wanted_s / (wanted_s + self.idle_s).max(f64::EPSILON)
    }
}

impl Usage {
    /// The cores of one side.
    pub fn side(&self, side: Side) -> impl Iterator<Item = &Core> {
        self.cores.iter().filter(move |core| core.side == side)
    }

    /// Mean share of busy time over the cores of one side; `None` if it has none here.
    pub fn busy_share(&self, side: Side) -> Option<f64> {
        let shares: Vec<f64> = self.side(side).map(Core::busy_share).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// Who else used the cores: `cc1 (pid 17) 0.81 s, sh (pid 4) 0.20 s`.
    pub fn who(&self) -> String {
        let named = self.foreign.iter().map(|foreign| {
            let Foreign { name, pid, cpu_s } = foreign;
            format!("{name} (pid {pid}) {cpu_s:.2} s")
        });
        named.collect::<Vec<_>>().join(", ")
    }

    /// Busy seconds over the cores of one side.
    pub fn busy_s(&self, side: Side) -> f64 {
        self.side(side).map(Core::busy_s).sum()
    }
}

/// One look at /proc.
pub struct Look {
    cores: Vec<(usize, Side, [f64; 5])>,
    processes: HashMap<i32, Seen>,
}

struct Seen {
    name: String,
    parent: i32,
    is_kernel: bool,
    last_core: Option<usize>,
    user: u64,
    system: u64,
    switches: (u64, u64),
    resident_bytes: u64,
}

impl Look {
    /// Looks at the given cores and at every process.
    pub fn take(server_cores: &[usize], client_cores: &[usize]) -> Result<Look> {
        let stat = KernelStats::current().context("/proc/stat cannot be read")?;
        let sides = (server_cores.iter().map(|&core| (core, Side::Server)))
            .chain(client_cores.iter().map(|&core| (core, Side::Client)));
        let cores = sides
            .map(|(core, side)| {
                let time = stat
                    .cpu_time
                    .get(core)
                    .with_context(|| format!("core {core} is not online"))?;
                let ticks = [
                    time.user + time.nice,
                    time.system,
                    time.irq.unwrap_or(0) + time.softirq.unwrap_or(0),
                    time.idle + time.iowait.unwrap_or(0),
                    time.steal.unwrap_or(0),
                ];
                Ok((core, side, ticks.map(seconds)))
            })
            .collect::<Result<_>>()?;
        let processes = all_processes()
            .context("/proc cannot be read")?
            .filter_map(|process| {
                let process = process.ok()?;
                // It may have ended in between.
                Some((process.pid, Seen::read(&process).ok()?))
            })
            .collect();
        Ok(Look { cores, processes })
    }

    /// What happened since `before`, to the cores and to the processes below `server`.
    ///
    /// The load has come and gone between the two looks, so whatever else is still there is foreign.
    pub fn since(&self, before: &Look, server: u32) -> Usage {
        let cores: Vec<Core> = (self.cores.iter().zip(&before.cores))
            .map(|(&(core, side, now), (_, _, then))| {
                let [user_s, system_s, softirq_s, idle_s, steal_s] =
                    std::array::from_fn(|i| (now[i] - then[i]).max(0.0));
                Core {
                    core,
                    side,
                    user_s,
                    system_s,
                    softirq_s,
                    idle_s,
                    steal_s,
                }
            })
            .collect();
        let server = self.below(before, server);
        let report = std::process::id() as i32;
        let numbers: HashSet<usize> = cores.iter().map(|core| core.core).collect();
        let mut foreign: Vec<Foreign> = (self.processes.iter())
            .filter(|(pid, seen)| {
                !seen.is_kernel
                    && !server.contains(pid)
                    && **pid != report
                    && seen.last_core.is_some_and(|core| numbers.contains(&core))
            })
            .map(|(&pid, seen)| Foreign {
                name: seen.name.clone(),
                pid,
                cpu_s: seen.cpu_s_since(before.processes.get(&pid)),
            })
            .filter(|foreign| foreign.cpu_s > 0.0)
            .collect();
        let foreign_s = foreign.iter().map(|foreign| foreign.cpu_s).sum();
        foreign.sort_by(|a, b| b.cpu_s.total_cmp(&a.cpu_s));
        foreign.truncate(FOREIGN_MAX);
        Usage {
            server: self.sum(before, &server),
            cores,
            foreign_s,
            foreign,
        }
    }

    /// `root` and all processes that descend from it, now or before.
    fn below(&self, before: &Look, root: u32) -> HashSet<i32> {
        let mut family = HashSet::from([root as i32]);
        loop {
            let children: Vec<i32> = (self.processes.iter().chain(&before.processes))
                .filter(|(pid, seen)| family.contains(&seen.parent) && !family.contains(pid))
                .map(|(&pid, _)| pid)
                .collect();
            if children.is_empty() {
                return family;
            }
            family.extend(children);
        }
    }

    fn sum(&self, before: &Look, family: &HashSet<i32>) -> ProcessUsage {
        let mut total = ProcessUsage::default();
        for pid in family {
            let Some(seen) = self.processes.get(pid) else {
                continue;
            };
            let then = before.processes.get(pid);
            total.user_s += seconds(seen.user - then.map_or(0, |then| then.user).min(seen.user));
            total.system_s +=
                seconds(seen.system - then.map_or(0, |then| then.system).min(seen.system));
            let switches = then.map_or((0, 0), |then| then.switches);
            total.switches_voluntary += seen.switches.0.saturating_sub(switches.0);
            total.switches_involuntary += seen.switches.1.saturating_sub(switches.1);
            total.resident_bytes += seen.resident_bytes;
        }
        total
    }
}

impl Seen {
    fn read(process: &Process) -> Result<Seen> {
        const KTHREADD: i32 = 2;
        let stat = process.stat()?;
        let is_kernel = stat.ppid == KTHREADD || stat.pid == KTHREADD;
        let mut switches = (0, 0);
        if !is_kernel {
            for task in process.tasks()?.flatten() {
                if let Ok(status) = task.status() {
                    switches.0 += status.voluntary_ctxt_switches.unwrap_or(0);
                    switches.1 += status.nonvoluntary_ctxt_switches.unwrap_or(0);
                }
            }
        }
        Ok(Seen {
            name: stat.comm.clone(),
            parent: stat.ppid,
            is_kernel,
            last_core: stat.processor.and_then(|core| usize::try_from(core).ok()),
            user: stat.utime,
            system: stat.stime,
            switches,
            resident_bytes: stat.rss * procfs::page_size(),
        })
    }

    fn cpu_s_since(&self, before: Option<&Seen>) -> f64 {
        let then = before.map_or(0, |then| then.user + then.system);
        seconds((self.user + self.system).saturating_sub(then))
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_is_neither_lost_nor_foreign() {
        let before = Look::take(&[0], &[]).unwrap();
        let started = std::time::Instant::now();
        while started.elapsed().as_millis() < 100 {
            std::hint::black_box(0);
        }
        let usage = Look::take(&[0], &[])
            .unwrap()
            .since(&before, std::process::id());
        assert!(usage.server.user_s + usage.server.system_s > 0.0);
        assert!(usage.server.resident_bytes > 0);
        assert_eq!(usage.cores.len(), 1);
        assert!(Look::take(&[100_000], &[]).is_err());
    }
}
