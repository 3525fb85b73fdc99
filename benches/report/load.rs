//! wrk, on one or more machines, or `barewire load`: checked for being there, run, and read.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::command::{barewire, output};
use crate::interrupt;
use crate::matrix::{LoadName, Route};
use crate::site::{LOAD_INTERFACE, LoadMachine, Site};

const SCRIPT: &str = include_str!("wrk.lua");
const SCRIPT_PATH: &str = "/tmp/barewire-report-wrk.lua";

/// What all load machines saw in one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// What made it.
    #[serde(default)]
    pub by: LoadName,
    /// Requests answered.
    pub requests: u64,
    /// Requests per second, added up over the load machines.
    pub requests_per_s: f64,
    /// Bytes received per second, added up over the load machines.
    pub bytes_per_s: f64,
    /// Latency; of several load machines, the worst of each figure. `None` where the load cannot say: wrk
    /// spreads its "corrected" samples over the time of one request, which is wrong by the depth of a pipeline.
    pub latency_us: Option<Latency>,
    /// Errors, added up.
    pub errors: Errors,
}

/// Latency as the load saw it, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Errors by kind, as wrk counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Connections that could not be opened.
    pub connect: u64,
    /// Failed reads.
    pub read: u64,
    /// Failed writes.
    pub write: u64,
    /// Answers whose status was not 2xx or 3xx.
    pub status: u64,
    /// Requests that took longer than wrk waits.
    pub timeout: u64,
}

/// What one wrk prints; see wrk.lua.
#[derive(Debug, Deserialize)]
struct Summary {
    requests: u64,
    duration_us: f64,
    bytes: u64,
    latency_us: Latency,
    errors: Errors,
}

/// Fails unless every load machine has wrk and curl; leaves the script there.
pub fn prepare(site: &Site, loads: &[LoadName]) -> Result<()> {
    ensure!(
        !loads.contains(&LoadName::Barewire) || site.record.kind == "lab",
        "the load \"barewire\" takes an interface of the lab's; measure a network with wrk"
    );
    for machine in &site.load_machines {
        for tool in ["wrk", "curl"] {
            let words = ["sh", "-c", &format!("command -v {tool}")].map(str::to_owned);
            output(machine.command(&words)?).with_context(|| {
                format!(
                    "`{tool}` is not installed on {}, or it cannot be reached: apt-get install {tool}",
                    machine.name()
                )
            })?;
        }
        let words = ["sh", "-c", &format!("cat > {SCRIPT_PATH}")].map(str::to_owned);
        let mut child = machine
            .command(&words)?
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be reached", machine.name()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(SCRIPT.as_bytes())?;
        }
        ensure!(
            child.wait()?.success(),
            "{SCRIPT_PATH} cannot be written on {}",
            machine.name()
        );
    }
    Ok(())
}

/// The processes of one load that is running; dropping it kills them.
pub struct Loading {
    by: LoadName,
    children: Vec<(String, Child)>,
    pipeline: u32,
}

/// Starts the load of one run on all machines.
pub fn start(
    site: &Site,
    by: LoadName,
    route: &Route,
    connections: u32,
    seconds: u32,
    rate_per_s: Option<f64>,
) -> Result<Loading> {
    let mut loading = Loading {
        by,
        children: Vec::new(),
        pipeline: route.pipeline,
    };
    for (machine, connections) in shares(site, connections) {
        let words = match by {
            LoadName::Wrk => words(site, route, machine, connections, seconds),
            LoadName::Barewire => barewire_words(site, route, connections, seconds, rate_per_s),
        };
        let mut command = machine.command(&words)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be started on {}", by.words(), machine.name()))?;
        loading.children.push((machine.name(), child));
    }
    if by == LoadName::Barewire {
        site.settle_load()?;
    }
    Ok(loading)
}

/// The command line of the load, for the record.
pub fn command_line(site: &Site, route: &Route, connections: u32, seconds: u32) -> String {
    shares(site, connections)
        .map(|(machine, connections)| {
            let words = words(site, route, machine, connections, seconds);
            shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
        })
        .collect::<Vec<_>>()
        .join(" & ")
}

impl Loading {
    /// Waits for the end and adds up what the machines saw. The raw output goes to `raw`.
    pub fn finish(mut self, limit: Duration, raw: &Path) -> Result<Load> {
        let deadline = Instant::now() + limit;
        let mut total: Option<Load> = None;
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(raw)
            .with_context(|| format!("cannot write {}", raw.display()))?;
        for (machine, child) in &mut self.children {
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                interrupt::check()?;
                ensure!(
                    Instant::now() < deadline,
                    "{} on {machine} did not end in time",
                    self.by.words()
                );
                sleep(Duration::from_millis(5));
            };
            let (stdout, stderr) = (read(child.stdout.take())?, read(child.stderr.take())?);
            log.write_all(stdout.as_bytes())
                .and_then(|()| log.write_all(stderr.as_bytes()))
                .with_context(|| format!("cannot write {}", raw.display()))?;
            ensure!(
                status.success(),
                "{} on {machine} ended with {status}: {}",
                self.by.words(),
                stderr.trim()
            );
            let load = match self.by {
                LoadName::Wrk => parse(&stdout, self.pipeline),
                LoadName::Barewire => parse_barewire(&stdout),
            };
            let load = load.with_context(|| format!("{} on {machine}", self.by.words()))?;
            total = Some(match total {
                None => load,
                Some(total) => total.merge(&load),
            });
        }
        total.context("there is no load machine")
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            if !matches!(child.try_wait(), Ok(None)) {
                continue;
            }
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
        }
    }
}

impl Load {
    /// Fails if anything went wrong: a figure beside errors is no figure.
    pub fn ensure_clean(&self) -> Result<()> {
        let Errors {
            connect,
            read,
            write,
            status,
            timeout,
        } = self.errors;
        if self.errors != Errors::default() {
            bail!(
                "the load had errors, so its figures mean nothing: {connect} connect, {read} read, {write} write, \
                 {status} wrong status, {timeout} timed out"
            );
        }
        ensure!(self.requests > 0, "not one request was answered");
        Ok(())
    }

    fn merge(&self, other: &Load) -> Load {
        Load {
            by: self.by,
            requests: self.requests + other.requests,
            requests_per_s: self.requests_per_s + other.requests_per_s,
            bytes_per_s: self.bytes_per_s + other.bytes_per_s,
            latency_us: self.latency_us.zip(other.latency_us).map(|(a, b)| Latency {
                p50: a.p50.max(b.p50),
                p90: a.p90.max(b.p90),
                p99: a.p99.max(b.p99),
                p99_9: a.p99_9.max(b.p99_9),
                max: a.max.max(b.max),
            }),
            errors: Errors {
                connect: self.errors.connect + other.errors.connect,
                read: self.errors.read + other.errors.read,
                write: self.errors.write + other.errors.write,
                status: self.errors.status + other.errors.status,
                timeout: self.errors.timeout + other.errors.timeout,
            },
        }
    }
}

/// Each machine with its share of the connections; machines without a share are left out.
fn shares(site: &Site, connections: u32) -> impl Iterator<Item = (&LoadMachine, u32)> {
    let machines = site.load_machines.len() as u32;
    site.load_machines
        .iter()
        .enumerate()
        .map(move |(index, machine)| {
            let extra = u32::from((index as u32) < connections % machines);
            (machine, connections / machines + extra)
        })
        .filter(|&(_, share)| share > 0)
}

fn words(
    site: &Site,
    route: &Route,
    machine: &LoadMachine,
    connections: u32,
    seconds: u32,
) -> Vec<String> {
    let mut words = vec![
        "wrk".to_owned(),
        format!("-t{}", machine.threads.min(connections)),
        format!("-c{connections}"),
        format!("-d{seconds}s"),
        "--timeout".to_owned(),
        "5s".to_owned(),
        "-s".to_owned(),
        SCRIPT_PATH.to_owned(),
        format!("{}{}", site.url(route), route.path),
        "--".to_owned(),
        route.method.clone(),
        route.pipeline.to_string(),
    ];
    words.extend(route.body.clone());
    words
}

/// From the last cores, as the lab gives the first ones to the threads that receive for them. Without
/// spinning: a core that sleeps when it has nothing to do can be seen not to be full, and
/// leaves itself to the kernel's threads that receive for it.
fn barewire_words(
    site: &Site,
    route: &Route,
    connections: u32,
    seconds: u32,
    rate_per_s: Option<f64>,
) -> Vec<String> {
    let cores = site.record.client_cores.iter().rev();
    let cores: Vec<String> = cores.map(usize::to_string).collect();
    let url = format!("{}{}", site.url(route), route.path);
    let depth = if route.http2 {
        "--streams"
    } else {
        "--pipeline"
    };
    let mut words: Vec<String> = [
        &barewire().display().to_string(),
        "load",
        "--interface",
        LOAD_INTERFACE,
        "--cores",
        &cores.join(","),
        "--spin-us",
        "0",
        "--method",
        &route.method,
        "--concurrency",
        &connections.to_string(),
        depth,
        &route.pipeline.to_string(),
        "--duration",
        &format!("{seconds}s"),
        "--json",
    ]
    .map(str::to_owned)
    .into();
    words.extend(route.tls.then(|| "--tls-insecure".to_owned()));
    words.extend(route.http2.then(|| "--http2".to_owned()));
    if let Some(rate) = rate_per_s {
        words.extend(["--rate".to_owned(), rate.to_string()]);
    }
    words.push(url);
    words
}

/// What `barewire load --json` prints, as far as it is of use here.
#[derive(Debug, Deserialize)]
struct BarewireSummary {
    window: BarewireWindow,
    latency: BarewireLatency,
    statuses: std::collections::BTreeMap<u16, u64>,
    failures: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct BarewireWindow {
    length_s: f64,
    responses: u64,
    responses_per_s: f64,
    bytes_read_per_s: f64,
}

#[derive(Debug, Deserialize)]
struct BarewireLatency {
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p99_9_us: f64,
    max_us: f64,
}

fn parse_barewire(stdout: &str) -> Result<Load> {
    let summary: BarewireSummary =
        serde_json::from_str(stdout).context("its summary is malformed")?;
    let window = &summary.window;
    ensure!(window.length_s > 0.0, "it ran for no time at all");
    let failed = |name| summary.failures.get(name).copied().unwrap_or(0);
    let latency = &summary.latency;
    Ok(Load {
        by: LoadName::Barewire,
        requests: window.responses,
        requests_per_s: window.responses_per_s,
        bytes_per_s: window.bytes_read_per_s,
        latency_us: Some(Latency {
            p50: latency.p50_us,
            p90: latency.p90_us,
            p99: latency.p99_us,
            p99_9: latency.p99_9_us,
            max: latency.max_us,
        }),
        errors: Errors {
            connect: failed("connect"),
            read: failed("reset") + failed("closed") + failed("parse"),
            write: 0,
            status: (summary.statuses.iter())
                .filter(|(status, _)| !(200..400).contains(*status))
                .map(|(_, count)| count)
                .sum(),
            timeout: failed("timeout"),
        },
    })
}

fn parse(stdout: &str, pipeline: u32) -> Result<Load> {
    let json = stdout
        .lines()
        .find_map(|line| line.strip_prefix("BAREWIRE "))
        .with_context(|| format!("it printed no summary: {:?}", stdout.trim()))?;
    let summary: Summary = serde_json::from_str(json).context("its summary is malformed")?;
    let seconds = summary.duration_us / 1e6;
    ensure!(seconds > 0.0, "it ran for no time at all");
    Ok(Load {
        by: LoadName::Wrk,
        requests: summary.requests,
        requests_per_s: summary.requests as f64 / seconds,
        bytes_per_s: summary.bytes as f64 / seconds,
        latency_us: (pipeline == 1).then_some(summary.latency_us),
        errors: summary.errors,
    })
}

fn read(pipe: Option<impl Read>) -> Result<String> {
    let mut text = String::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// The version that a load machine's wrk calls itself.
pub fn version(machine: &LoadMachine) -> String {
    let words = ["sh", "-c", "wrk -v 2>&1 | head -1"].map(str::to_owned);
    let version = machine.command(&words).and_then(output);
    version.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"Running 1s test @ http://10.77.0.2:8080/plaintext
  1 threads and 64 connections
Requests/sec: 100000.00
BAREWIRE {"requests":200000,"duration_us":2000000,"bytes":26000000,"latency_us":{"p50":400,"p90":500,"p99":900,"p99_9":1200,"max":3000},"errors":{"connect":0,"read":0,"write":0,"status":0,"timeout":0}}
"#;

    #[test]
    fn a_summary_becomes_rates() {
        let load = parse(PRINTED, 1).unwrap();
        assert_eq!(load.requests_per_s, 100_000.0);
        assert_eq!(load.latency_us.unwrap().p99_9, 1200.0);
        load.ensure_clean().unwrap();
    }

    #[test]
    fn our_own_summary_becomes_rates_and_errors() {
        let printed = r#"{"responses":200064,"lasted_s":2.5,"rate":null,
            "window":{"length_s":2.0,"responses":200000,"responses_per_s":100000.0,"bytes_read_per_s":13000000.0},
            "latency":{"mean_us":1.0,"p50_us":400,"p90_us":500,"p99_us":900,"p99_9_us":1200,"max_us":3000},
            "statuses":{"200":199999,"500":1},
            "failures":{"connect":0,"timeout":2,"reset":1,"closed":0,"parse":1}}"#;
        let load = parse_barewire(printed).unwrap();
        assert_eq!(
            (load.by, load.requests_per_s),
            (LoadName::Barewire, 100_000.0)
        );
        assert_eq!(load.latency_us.unwrap().p99_9, 1200.0);
        assert_eq!(
            (load.errors.read, load.errors.timeout, load.errors.status),
            (2, 2, 1)
        );
        assert!(load.ensure_clean().is_err());
    }

    #[test]
    fn any_error_spoils_the_figures() {
        let load = parse(&PRINTED.replace("\"status\":0", "\"status\":7"), 1).unwrap();
        let complaint = load.ensure_clean().unwrap_err().to_string();
        assert!(complaint.contains("7 wrong status"), "{complaint}");
        assert!(parse("Running 1s test\n", 1).is_err());
    }

    #[test]
    fn several_machines_add_up_and_the_worst_latency_stands() {
        let one = parse(PRINTED, 1).unwrap();
        let other = parse(&PRINTED.replace("\"p99\":900", "\"p99\":1000"), 1).unwrap();
        let both = one.merge(&other);
        assert_eq!(both.requests, 400_000);
        assert_eq!(both.requests_per_s, 200_000.0);
        assert_eq!(both.latency_us.unwrap().p99, 1000.0);
    }
}
