//! `barewire status`, `top`, `stop`, `purge` and `capture`: what to ask a running server, and how to show it.

mod capture;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

pub use self::capture::{CaptureArgs, run as capture};
pub use self::top::{TopArgs, run as top};
use crate::console;
use crate::operate::control::Connection;
use crate::operate::locate;
use crate::operate::overview::Overview;
use crate::operate::{Rates, Status};

/// What the fields of the JSON mean, for `--help`.
const ABOUT_JSON: &str = "\
The fields of --json, which keep name and meaning for as long as \"schema\" stays 1 (new ones may come):
  server       version, pid, state (serving, draining, stopping), stack, addresses, cpus (of each core),
               started_unix_s, uptime_s
  requests     answered: total, by_status {code: n}, by_route {path: n}
  connections  open: total, by_state {state: n}; records in TIME-WAIT are not in the total
  stats        as GET /stats: totalRequests, uniqueUsers, sum, avg
  memory       resident_bytes (without huge pages), huge_page_bytes, locked_bytes
  pools        [part, name, core, queue, used, max]: every limited supply
  drops        [part, name, count, help]: all that was dropped or refused, and why
  counters     [part, core, queue, values {name: n}]: everything that is counted
  rates        interval_s, all and cores [core, cpu, requests_per_s, ...]; null with --interval-ms 0";

/// Which server.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Control socket of the server [default: the only one there is]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// Port of the server, where several run
    #[arg(long, conflicts_with = "control")]
    port: Option<u16>,
}

/// Arguments of `barewire status`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = ABOUT_JSON)]
pub struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// Print all there is as one JSON object
    #[arg(long)]
    json: bool,

    /// How long to watch for the rates; 0 leaves them out
    #[arg(long, value_name = "MS", default_value_t = 500)]
    interval_ms: u64,
}

/// Arguments of `barewire stop`.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// How long to wait for its end [default: until it has ended]
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
}

/// Arguments of `barewire purge`.
#[derive(Debug, Clone, Args)]
pub struct PurgeArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// Resource: host, path and query, as in example.org/a?b. With * at the end: all that begin so; * alone: everything
    #[arg(value_name = "WHAT")]
    what: String,
}

impl ServerArgs {
    /// A connection to the server, and where to find it again.
    fn connect(&self) -> anyhow::Result<(PathBuf, Connection)> {
        Ok(locate::connect(self.control.as_deref(), self.port)?)
    }
}

/// Prints how a server is.
///
/// # Errors
///
/// If there is none, or it does not answer.
pub fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let (path, connection) = args.server.connect()?;
    let mut status = connection.status()?;
    if args.interval_ms > 0 {
        thread::sleep(Duration::from_millis(args.interval_ms));
        status = rated(&status, Connection::open(&path)?.status()?);
    }
    match args.json {
        true => console::print(serde_json::to_string_pretty(&status)? + "\n")?,
        false => console::print(Overview(&status))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `after`, with the rates since `before`.
fn rated(before: &Status, after: Status) -> Status {
    Status {
        rates: Rates::between(before, &after),
        ..after
    }
}

/// Removes responses from the cache of a proxy.
///
/// # Errors
///
/// If there is none, or it does not answer.
pub fn purge(args: &PurgeArgs) -> anyhow::Result<ExitCode> {
    let (_, connection) = args.server.connect()?;
    let responses = connection.purge(args.what.clone())?;
    console::print(format_args!("{responses} stored responses removed\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Tells a server to drain and waits for its end.
///
/// # Errors
///
/// If there is none, or it does not answer.
pub fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    let (path, connection) = args.server.connect()?;
    let started = Instant::now();
    let (pid, ending) = connection.stop()?;
    let timeout = args.timeout_ms.map(|ms| Duration::from_millis(ms.max(1)));
    if !ending.wait(timeout) {
        anyhow::bail!(
            "process {pid} still drains: wait longer, or `barewire stop --control {}` again to end it at once",
            path.display()
        );
    }
    console::print(format_args!(
        "process {pid} has ended after {:.1} s\n",
        started.elapsed().as_secs_f64()
    ))?;
    Ok(ExitCode::SUCCESS)
}
