//! The machine around the interface.

use std::fs;
use std::path::Path;

use procfs::{Current as _, KernelVersion, Meminfo};
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use super::bypass::Bound;
use super::finding::Report;
use barewire_xdp::Prepared;

pub(super) fn kernel(report: &mut Report) {
    let Ok(version) = KernelVersion::current() else {
        return;
    };
    // Whether it is new enough to start at all, the program's loader knows.
    let found = format!(
        "Linux {}.{}.{}",
        version.major, version.minor, version.patch
    );
    let missing: Vec<_> = [
        ((6, 3), "says what drivers can"),
        (
            (6, 17),
            "sends more than 32 frames for one wake-up in copy mode",
        ),
    ]
    .into_iter()
    .filter(|((major, minor), _)| (version.major, version.minor) < (*major, *minor))
    .map(|((major, minor), what)| format!("{major}.{minor} {what}"))
    .collect();
    match missing.is_empty() {
        true => report.ok("kernel", found),
        false => report.warn("kernel", found, &missing.join("; "), None),
    }
}

/// Huge pages and locked memory, for all queues and cores together.
pub(super) fn memory(bound: &Bound, report: &mut Report) {
    let cores = bound.prepared.plan.cores.len();
    let queues: usize = bound
        .prepared
        .plan
        .cores
        .iter()
        .map(|core| core.queues.len())
        .sum();
    let arena_bytes = bound.prepared.stack.arena_bytes();
    let frames_bytes = bound.queue.map_or(0, |queue| {
        queue.frames as usize * queue.frame_bytes as usize
    });

    if let Ok(memory) = Meminfo::current()
        && let (Some(free), Some(page_bytes)) = (memory.hugepages_free, memory.hugepagesize)
        && page_bytes > 0
    {
        let pages = |bytes: usize| (bytes as u64).div_ceil(page_bytes);
        let needed = cores as u64 * pages(arena_bytes) + queues as u64 * pages(frames_bytes);
        let found = format!("{free} free, {needed} needed of {} KiB", page_bytes >> 10);
        let total = memory.hugepages_total.unwrap_or(0) + needed.saturating_sub(free);
        match free >= needed {
            true => report.ok("huge pages", found),
            false => report.warn(
                "huge pages",
                found,
                "TLB misses, with many connections at every request",
                format!("sysctl vm.nr_hugepages={total}"),
            ),
        }
    }

    if bound.queue.is_none() {
        return;
    }
    let needed = queues * frames_bytes;
    let may_lock = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let limit = getrlimit(Resource::Memlock).current;
    let limit_text = limit.map_or("unlimited".into(), |bytes| format!("{bytes} bytes"));
    if may_lock {
        report.ok("locked memory", "CAP_IPC_LOCK: no limit");
    } else if limit.is_none_or(|limit| limit >= needed as u64) {
        report.ok(
            "locked memory",
            format!("{needed} bytes needed, {limit_text} allowed"),
        );
    } else {
        report.error(
            "locked memory",
            format!(
                "RLIMIT_MEMLOCK ({limit_text}) does not allow the {needed} bytes of all queues: `ulimit -l unlimited`, \
                 LimitMEMLOCK=infinity in a systemd unit, or the capability CAP_IPC_LOCK; or use smaller rings"
            ),
        );
    }
}

pub(super) fn processors(prepared: &Prepared, report: &mut Report) {
    let cpus: Vec<_> = prepared.plan.cores.iter().map(|core| core.cpu).collect();
    governor(&prepared.interface.name, &cpus, report);
    numa(prepared, &cpus, report);
    irqbalance(report);
    mitigations(report);
}

fn governor(interface: &str, cpus: &[usize], report: &mut Report) {
    let governor = |cpu: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        line(path).map(|governor| (*cpu, governor))
    };
    let slow: Vec<_> = cpus
        .iter()
        .filter_map(governor)
        .filter(|(_, governor)| governor != "performance")
        .collect();
    match slow.first() {
        None => report.ok("governor", "none slows the cores"),
        Some((cpu, governor)) => report.warn(
            "governor",
            format!("{governor} on CPU {cpu}"),
            "a slow clock after every pause, and time to leave it",
            format!("scripts/tune apply --only governor --interface {interface}"),
        ),
    }
}

/// Whether the cores are on the node that the NIC is plugged into.
fn numa(prepared: &Prepared, cpus: &[usize], report: &mut Report) {
    let name = &prepared.interface.name;
    let node = line(format!("/sys/class/net/{name}/device/numa_node"));
    let Some(node) = node.and_then(|node| node.parse::<usize>().ok()) else {
        return report.ok("NUMA", "the interface belongs to no node");
    };
    let is_local =
        |cpu: &usize| Path::new(&format!("/sys/devices/system/node/node{node}/cpu{cpu}")).exists();
    let far: Vec<_> = cpus
        .iter()
        .filter(|cpu| !is_local(cpu))
        .map(usize::to_string)
        .collect();
    let local = line(format!("/sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
    match far.is_empty() {
        true => report.ok(
            "NUMA",
            format!("all cores are on node {node}, as the interface is"),
        ),
        false => report.warn(
            "NUMA",
            format!(
                "CPU {} is not on node {node} of the interface",
                far.join(", ")
            ),
            "memory of another node for every frame",
            format!("serve with --cores {local}"),
        ),
    }
}

fn irqbalance(report: &mut Report) {
    let is_irqbalance = |process: &procfs::process::Process| {
        process.stat().is_ok_and(|stat| stat.comm == "irqbalance")
    };
    let mut processes = procfs::process::all_processes()
        .into_iter()
        .flatten()
        .flatten();
    match processes.any(|process| is_irqbalance(&process)) {
        false => report.ok("irqbalance", "does not run"),
        true => report.warn(
            "irqbalance",
            "runs",
            "interrupts that move away from their queue's core",
            "systemctl stop irqbalance".to_owned(),
        ),
    }
}

/// Not a warning: only who knows what else runs on the machine can say whether it may do without.
fn mitigations(report: &mut Report) {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let states = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| line(entry.path()));
    let active = states
        .filter(|state| state.starts_with("Mitigation"))
        .count();
    report.ok(
        "mitigations",
        match active {
            0 => "none is active".to_owned(),
            _ => format!(
                "{active} active: they cost time at every system call, the kernel stacks most of all; only a machine \
                 that runs nothing but trusted programs may do without (mitigations=off)"
            ),
        },
    );
}

/// The first line of a file, if it can be read.
fn line(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
