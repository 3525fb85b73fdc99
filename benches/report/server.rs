//! One server under test: started, found correct, measured, stopped, and gone.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt;
use crate::load;
use crate::matrix::{Route, Server};
use crate::site::{Site, join};

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

    /// Asks the server to end, and makes it end if it does not.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
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
                .try_for_each(|machine| load::check(machine, route, &site.url()));
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
        let mut text = String::new();
        let read = File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.log_start))?;
            log.read_to_string(&mut text)
        });
        if read.is_err() || text.trim().is_empty() {
            return format!("; it logged nothing to {}", self.log.display());
        }
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
        format!("; the end of its log:\n  {last}")
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
        .replace("{cores}", &join(&record.server_cores))
        .replace("{core_count}", &record.server_cores.len().to_string())
        .replace("{work}", &work.display().to_string())
}

/// The `barewire` that was built beside this binary.
pub fn barewire() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|report| Some(report.parent()?.join("barewire")));
    match beside {
        Some(path) if path.exists() => path,
        _ => PathBuf::from("barewire"),
    }
}
