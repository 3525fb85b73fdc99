//! The threads of a stack: one pinned to each core, all of them ready before the first one serves.
//!
//! ```text
//!   Starting::spawn ─▶ thread: pin ─▶ prepare ─▶ Gate::ready(R) ── waits ──▶ serve ─▶ ends
//!                                        │            │               ▲
//!   Starting::wait  ◀──── error or R ────┴────────────┘               │
//!   Starting::go(G) ──────────────────────────────────────────────────┘
//! ```
//!
//! A stack that fails half-way drops its [`Starting`] values: threads that are ready end without
//! having served, and are joined.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use thiserror::Error;

/// What ended a core that served.
#[derive(Debug, Error)]
#[error("{call}: {source}")]
pub struct CoreError {
    /// The system call that failed.
    pub call: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

/// A thread cannot run where it shall.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the process may not run on CPU {cpu}: choose among {allowed:?}, or widen its cpuset")]
pub struct PinError {
    /// The CPU that was asked for.
    pub cpu: usize,
    /// Those that the process may use.
    pub allowed: Vec<usize>,
}

/// The CPUs that the process may use.
pub fn allowed_cpus() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.into_iter().map(|core| core.id).collect()
}

/// Those of `cpus`, or all that the process may use if there are none.
///
/// # Errors
///
/// If the process may not use one of them.
pub fn choose_cpus(cpus: &[usize]) -> Result<Vec<usize>, PinError> {
    let allowed = allowed_cpus();
    match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(&cpu) => Err(PinError { cpu, allowed }),
        None if cpus.is_empty() => Ok(allowed),
        None => Ok(cpus.to_vec()),
    }
}

/// Pins the current thread to a CPU. Do it before taking memory, which is then local to it.
///
/// # Errors
///
/// If the process may not use that CPU.
pub fn pin_to(cpu: usize) -> Result<(), PinError> {
    let allowed = allowed_cpus();
    // What is not allowed is not asked for: a number beyond the kernel's set would be a panic.
    let id = core_affinity::CoreId { id: cpu };
    match allowed.contains(&cpu) && core_affinity::set_for_current(id) {
        true => Ok(()),
        false => Err(PinError { cpu, allowed }),
    }
}

/// A thread that prepares itself, then waits for the others. Dropped, it ends without serving.
///
/// It reports `R` or `E` when it is prepared, and gets `G` when it shall serve.
#[derive(Debug)]
pub struct Starting<R, G, E> {
    ready: Receiver<Result<R, E>>,
    go: Option<Sender<G>>,
    thread: Option<JoinHandle<Result<(), CoreError>>>,
}

/// Where a core's thread waits until all others are ready.
#[derive(Debug)]
pub struct Gate<R, G, E> {
    ready: Sender<Result<R, E>>,
    go: Receiver<G>,
}

impl<R, G, E> Starting<R, G, E>
where
    R: Send + 'static,
    G: Send + 'static,
    E: From<PinError> + Send + 'static,
{
    /// Starts a thread on `cpu`, or wherever the scheduler puts it. `prepare_and_serve` gets everything that can fail, passes the gate,
    /// and serves; its outer error is what kept it from starting, the inner one what ended it later.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn spawn<F>(name: String, cpu: Option<usize>, prepare_and_serve: F) -> io::Result<Self>
    where
        F: FnOnce(&Gate<R, G, E>) -> Result<Result<(), CoreError>, E> + Send + 'static,
    {
        let (ready_out, ready) = channel();
        let (go, go_in) = channel();
        let gate = Gate {
            ready: ready_out,
            go: go_in,
        };
        let thread = Builder::new().name(name).spawn(move || {
            // First of all: what is allocated from here on is local to the core.
            let pinned = cpu.map_or(Ok(()), pin_to).map_err(E::from);
            pinned
                .and_then(|()| prepare_and_serve(&gate))
                .unwrap_or_else(|error| {
                    let _ = gate.ready.send(Err(error));
                    Ok(())
                })
        })?;
        Ok(Starting {
            ready,
            go: Some(go),
            thread: Some(thread),
        })
    }
}

impl<R, G, E> Starting<R, G, E> {
    /// Waits until the thread is ready, or cannot be.
    ///
    /// # Errors
    ///
    /// If it ended without saying why.
    pub fn wait(&self) -> io::Result<Result<R, E>> {
        let ready = self.ready.recv();
        ready.map_err(|_| io::Error::other("its thread ended early"))
    }

    /// Lets the thread serve.
    pub fn go(mut self, with: G) -> Option<JoinHandle<Result<(), CoreError>>> {
        // A thread that is gone reports why when it is joined.
        let _ = self.go.take()?.send(with);
        self.thread.take()
    }
}

impl<R, G, E> Drop for Starting<R, G, E> {
    fn drop(&mut self) {
        self.go = None;
        if let Some(thread) = self.thread.take() {
            // It has told its error, if it had one, before it ended.
            let _ = thread.join();
        }
    }
}

impl<R, G, E> Gate<R, G, E> {
    /// Says that the core is ready, and waits. `None`: another one could not be, so do not serve.
    pub fn ready(&self, report: R) -> Option<G> {
        let _ = self.ready.send(Ok(report));
        self.go.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Test = Starting<usize, &'static str, PinError>;

    #[test]
    fn serves_when_it_is_told_to_and_not_otherwise() {
        let cpu = allowed_cpus()[0];
        let spawn = || {
            Test::spawn("test".into(), Some(cpu), |gate| match gate.ready(7) {
                Some("go") => Ok(Err(CoreError {
                    call: "served",
                    source: io::ErrorKind::Other.into(),
                })),
                _ => Ok(Ok(())),
            })
        };
        let starting = spawn().unwrap();
        assert_eq!(starting.wait().unwrap(), Ok(7));
        let ended = starting.go("go").unwrap().join().unwrap();
        assert_eq!(ended.unwrap_err().call, "served");

        let dropped = spawn().unwrap();
        assert_eq!(dropped.wait().unwrap(), Ok(7));
        drop(dropped);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named_with_those_that_are() {
        let starting = Test::spawn("test".into(), Some(99_999), |_| Ok(Ok(()))).unwrap();
        let error = starting.wait().unwrap().unwrap_err();
        assert_eq!(error.cpu, 99_999);
        assert_eq!(choose_cpus(&[99_999]), Err(error.clone()));
        assert_eq!(choose_cpus(&[]), Ok(error.allowed));
    }
}
