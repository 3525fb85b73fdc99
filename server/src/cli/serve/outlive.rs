//! `--wait-for-interface`: a server that outlives its interface.
//!
//! A server gives up its privileges before it serves, so it could not take an interface a second time. Therefore this
//! process keeps its own, serves nothing, and starts the server as a child, again and again:
//!
//! ```text
//!   wait until the interface has an address ─▶ child: barewire serve ─▶ the interface is gone ─▶ wait ...
//!            │ SIGTERM, ...                       │ SIGTERM, ...: passed on
//!            ▼                                    ▼ any other end
//!         exit code 0                          its exit code
//! ```
//!
//! What the child counted ends with it, unless it has a file for that (`--state`). The child drains if this
//! process ends: it reads its standard input, which then ends.

use std::env;
use std::error::Error;
use std::io::{self, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::console::Console;
use anyhow::Context as _;
use barewire_xdp::interface::Interface;
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};

use super::supervise::{self, Cause, Remote};
use barewire_xdp::XdpError;

/// The exit code by which a child says that its interface is gone: EX_TEMPFAIL of sysexits.h.
const GONE: u8 = 75;

/// The process that waits, told to its child. Not among the variables of the configuration.
const PARENT: &str = "BAREWIRE_PARENT_PID";

const LOOK_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug)]
enum Event {
    /// This signal came, which is to end the server.
    Signal(i32),
    /// The child is to read its certificates again.
    Reload,
    /// The child has ended.
    Ended(io::Result<ExitStatus>),
}

/// Serves on the interface called `name` with the arguments of this process whenever it is there. With
/// `needs_address`, it must have one to be there. If `hangup_reloads`, SIGHUP does not end the server.
///
/// # Errors
///
/// If the process is out of threads or descriptors.
pub fn run(name: &str, needs_address: bool, hangup_reloads: bool) -> anyhow::Result<ExitCode> {
    if let Some(console) = Console::of_process() {
        console.start(|| {}).context("no threads for the log")?;
    }
    let (to, events) = mpsc::channel();
    let signal_to = to.clone();
    supervise::catch_signals(move |signal| match signal {
        libc::SIGHUP if hangup_reloads => signal_to.send(Event::Reload).is_ok(),
        _ if supervise::is_ending(signal) => signal_to.send(Event::Signal(signal)).is_ok(),
        _ => {
            tracing::info!("{}: ignored", Cause::Signal(signal));
            true
        }
    })
    .context("cannot catch signals")?;
    loop {
        if let Some(signal) = wait_for(name, needs_address, &events) {
            tracing::info!("{} while waiting for {name}", Cause::Signal(signal));
            return Ok(ExitCode::SUCCESS);
        }
        let (status, is_told_to_end) = serve(&to, &events)?;
        match (status.code(), status.signal()) {
            (Some(code), _) if code == i32::from(GONE) && is_told_to_end => {
                return Ok(ExitCode::SUCCESS);
            }
            (Some(code), _) if code == i32::from(GONE) => {}
            (Some(code), _) => return Ok(ExitCode::from(code as u8)),
            // As a shell reports it.
            (None, signal) => return Ok(ExitCode::from(128 + signal.unwrap_or(0) as u8)),
        }
    }
}

/// Whether this process is the child of one that waits.
pub fn is_child() -> bool {
    let parent = env::var(PARENT).ok().and_then(|pid| pid.parse().ok());
    parent.is_some() && parent == getppid().map(Pid::as_raw_pid)
}

/// Drains when the parent of this process is gone.
///
/// # Errors
///
/// If the process is out of threads.
pub fn end_with_parent(remote: Remote) -> io::Result<()> {
    let wait = move || {
        // The parent never writes.
        let _ = io::stdin().read(&mut [0]);
        remote.stop();
    };
    thread::Builder::new().name("parent".into()).spawn(wait)?;
    Ok(())
}

/// The exit code for the parent, if `outcome` is that the interface is gone.
pub fn exit_code(outcome: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match outcome {
        Err(error) if is_gone(&error) => {
            tracing::warn!("{error:#}");
            Ok(ExitCode::from(GONE))
        }
        outcome => outcome,
    }
}

/// Waits until the interface can be served; the signal that came instead, if one did.
fn wait_for(name: &str, needs_address: bool, events: &Receiver<Event>) -> Option<i32> {
    let mut is_said = false;
    loop {
        let missing = match Interface::named(name) {
            Ok(found) if !needs_address || found.routable_addresses().next().is_some() => {
                return None;
            }
            Ok(_) => "to have an address",
            Err(_) => "to be there",
        };
        if !std::mem::replace(&mut is_said, true) {
            tracing::info!("waiting for {name} {missing}");
        }
        match events.recv_timeout(LOOK_INTERVAL) {
            Ok(Event::Signal(signal)) => return Some(signal),
            Ok(Event::Ended(_) | Event::Reload) | Err(RecvTimeoutError::Timeout) => {}
            // The thread that catches signals holds a sender.
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Runs a child to its end, and passes signals on to it; says whether there was one.
fn serve(to: &Sender<Event>, events: &Receiver<Event>) -> anyhow::Result<(ExitStatus, bool)> {
    let mut child = start().context("cannot start the server")?;
    // Dropped when the child has ended, or this process: then the child reads the end of its input.
    let _lifeline = child.stdin.take();
    let pid = Pid::from_child(&child);
    // Opened before the child is waited for, so it names this one and no later process.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the server")?;
    let ended = to.clone();
    thread::Builder::new()
        .name("child".into())
        .spawn(move || ended.send(Event::Ended(child.wait())))
        .context("no thread to wait for the server")?;
    let mut is_told_to_end = false;
    loop {
        match events.recv().context("nobody catches signals")? {
            Event::Ended(status) => {
                let status = status.context("cannot wait for the server")?;
                return Ok((status, is_told_to_end));
            }
            Event::Signal(signal) => {
                is_told_to_end = true;
                if let Some(signal) = Signal::from_named_raw(signal) {
                    // It may just have ended.
                    let _ = pidfd_send_signal(&pidfd, signal);
                }
            }
            Event::Reload => {
                let _ = pidfd_send_signal(&pidfd, Signal::HUP);
            }
        }
    }
}

/// The same command, in a process group of its own: what the terminal interrupts is this process, which tells it.
fn start() -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .args(env::args_os().skip(1))
        .env(PARENT, std::process::id().to_string())
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// Whether the server ended because its interface is gone. What watches it gives a boxed error.
fn is_gone(error: &anyhow::Error) -> bool {
    let boxed = error.downcast_ref::<Box<dyn Error + Send + Sync>>();
    let error = boxed.and_then(|error| error.downcast_ref());
    matches!(error, Some(XdpError::Gone(_)))
}
