//! One server under test: started, found correct, measured, stopped, and gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::command::{barewire, join, output};
use crate::interrupt;
use crate::matrix::{Route, Server};
use crate::probe;
use crate::site::Site;

const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(10);

/// A running server. Dropping it kills it.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    log_start: u64,
}

impl Running {
    /// Starts `server` and waits until it answers `route` correctly.
    pub fn start(server: &Server, route: &Route, site: &Site, logs: &Path) -> Result<Running> {
        site.ensure_no_xdp()?;
        let work = logs.join(format!("{}.work", server.name));
        let fill = |text: &str| fill(text, site, &work);
        fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        if route.tls {
            make_certificate(&work, &site.record.address)?;
        }
        for (name, text) in &server.files {
            let path = work.join(name);
            fs::write(&path, fill(text))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let log = logs.join(format!("{}.log", server.name));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = file.metadata()?.len();
        let words: Vec<String> = server.command.iter().map(|word| fill(word)).collect();
        let child = site
            .server_command(&words)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C is for the report, which stops its servers in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("server `{}` cannot be started", server.name))?;
        let mut running = Running {
            name: server.name.clone(),
            child,
            log,
            log_start,
        };
        running.wait_until_right(route, site)?;
        site.settle()?;
        Ok(running)
    }

    /// The process that the command became.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the server has ended by itself.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{}", self.obituary(status)),
        }
    }

    /// Asks the server to end, and makes it end if it does not; returns what it counted of itself.
    pub fn stop(mut self) -> Result<Counted> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(Counted::read(&self.logged()));
            }
            sleep(Duration::from_millis(10));
        }
        bail!(
            "server `{}` did not end within {} s of SIGTERM and was killed",
            self.name,
            STOP_MAX.as_secs()
        );
    }

    fn wait_until_right(&mut self, route: &Route, site: &Site) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            interrupt::check()?;
            self.ensure_alive()?;
            let answers = site
                .load_machines
                .iter()
                .try_for_each(|machine| probe::check(machine, route, &site.url(route)));
            let Err(error) = answers else {
                return Ok(());
            };
            ensure!(
                Instant::now() < deadline,
                "server `{}` gives no right answer to {} {}: {error:#}{}",
                self.name,
                route.method,
                route.path,
                self.last_words()
            );
            sleep(Duration::from_millis(20));
        }
    }

    fn obituary(&self, status: ExitStatus) -> String {
        format!(
            "server `{}` ended with {status}{}",
            self.name,
            self.last_words()
        )
    }

    /// The end of what it logged since it was started.
    fn last_words(&self) -> String {
        let text = self.logged();
        if text.trim().is_empty() {
            return format!("; it logged nothing to {}", self.log.display());
        }
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
        format!("; the end of its log:\n  {last}")
    }

    /// What it logged since it was started; empty if that cannot be read.
    fn logged(&self) -> String {
        let mut text = String::new();
        let read = File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.log_start))?;
            log.read_to_string(&mut text)
        });
        read.map_or_else(|_| String::new(), |_| text)
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // ESRCH: it has ended already.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// What a barewire says of itself when it ends: its counters, added up over cores and queues, from
/// its start to its end, the warm-up included. Empty for other servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Requests answered.
    pub served: Option<u64>,
    /// Counters as `part.name`.
    pub counters: BTreeMap<String, u64>,
}

impl Counted {
    /// Reads the lines `… counted by PART: NAME=VALUE …` and `served N requests …` of a log.
    fn read(log: &str) -> Counted {
        let mut counters = BTreeMap::new();
        let lines = log.lines().filter_map(|line| {
            let (_, rest) = line.split_once("counted by ")?;
            rest.split_once(": ")
        });
        for (part, list) in lines {
            for counter in list.split(' ') {
                let Some((name, value)) = counter.split_once('=') else {
                    continue;
                };
                if let Ok(value) = value.parse::<u64>() {
                    *counters.entry(format!("{part}.{name}")).or_default() += value;
                }
            }
        }
        let served = log.lines().find_map(|line| {
            let count = line.strip_prefix("served ")?.split(' ').next()?;
            count.parse().ok()
        });
        Counted { served, counters }
    }

    /// The sum of all counters called `name`, of whatever part; `None` if there is none.
    pub fn sum(&self, name: &str) -> Option<u64> {
        let mut values = self
            .counters
            .iter()
            .filter(|(key, _)| key.rsplit('.').next() == Some(name))
            .map(|(_, value)| *value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The share of a polling server's polls, by time, that found nothing to do.
    pub fn idle_share(&self) -> Option<f64> {
        let (busy, idle) = (self.sum("busy_ns")?, self.sum("idle_ns").unwrap_or(0));
        Some(idle as f64 / (busy + idle).max(1) as f64)
    }
}

/// The command line of `server` for the record: as it is run, without the paths of this machine.
pub fn command_line(server: &Server, site: &Site) -> String {
    let of_record = |word: &String| {
        let word = word.replace("{barewire}", "barewire");
        fill(&word, site, Path::new("WORK"))
    };
    let words: Vec<String> = server.command.iter().map(of_record).collect();
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

fn fill(text: &str, site: &Site, work: &Path) -> String {
    let record = &site.record;
    text.replace("{barewire}", &barewire().display().to_string())
        .replace("{interface}", &record.interface)
        .replace("{address}", &record.address)
        .replace("{port}", &record.port.to_string())
        .replace("{tls_port}", &site.tls_port().to_string())
        .replace("{certificate}", &pem(work, "certificate"))
        .replace("{key}", &pem(work, "key"))
        .replace("{cores}", &join(&record.server_cores))
        .replace("{core_count}", &record.server_cores.len().to_string())
        .replace("{work}", &work.display().to_string())
}

/// Where a server finds its certificate or key.
fn pem(work: &Path, name: &str) -> String {
    work.join(format!("{name}.pem")).display().to_string()
}

/// A certificate for TLS in `work`, if there is none.
fn make_certificate(work: &Path, address: &str) -> Result<()> {
    if work.join("certificate.pem").exists() {
        return Ok(());
    }
    let mut command = Command::new(barewire());
    command.args([
        "certificate",
        "--self-signed",
        "--name",
        address,
        "--directory",
    ]);
    command.arg(work);
    output(command).context("no certificate for TLS")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_over_cores_and_queues() {
        let log = "10:00 INFO counted by link: tx_wakeups=3 rx_frames=10 core=0 queue=0\n\
                   10:00 INFO counted by link: tx_wakeups=4 core=0 queue=1\n\
                   10:00 INFO counted by worker: busy_ns=900 idle_ns=100 core=0\n\
                   served 5 requests\n";
        let counted = Counted::read(log);
        assert_eq!(counted.sum("tx_wakeups"), Some(7));
        assert_eq!(counted.sum("tx_no_slot"), None);
        assert_eq!(counted.idle_share(), Some(0.1));
        assert_eq!(counted.served, Some(5));
        assert_eq!(Counted::read("").idle_share(), None);
    }
}
