//! Start-up: one pinned thread per core, all of them ready before the first one serves.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use barewire_stack::lifecycle::{Lifecycle, Member};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::config::KernelConfig;
use super::counters::KernelCounters;
use super::listener::{ListenError, Listener};
use crate::stacks::{CounterGroup, Running};

/// What a core has before it makes its connections' memory.
#[derive(Debug)]
pub struct Core {
    /// Its index, counted from zero in the order of the configured cores.
    pub index: usize,
    /// Its listener, to which the kernel steers the connections of its CPU.
    pub listener: Listener,
    /// Its view of the phase.
    pub member: Member,
    /// Its counters.
    pub counters: Arc<KernelCounters>,
}

/// A core that can serve.
pub trait Worker {
    /// What it got and what it took, for the operator.
    fn report(&self) -> String;

    /// Serves until the lifecycle says otherwise.
    fn run(self) -> anyhow::Result<()>;
}

/// Why a kernel stack cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A configured core does not exist or is forbidden.
    #[error("the process may not run on CPU {cpu}: choose among {allowed:?}, or widen its cpuset")]
    NoSuchCore {
        /// The CPU that was asked for.
        cpu: usize,
        /// Those that the process may use.
        allowed: Vec<usize>,
    },
    /// The limit of open files is too low for the connections.
    #[error(
        "{needed} open files are needed and {limit} are allowed: \
         lower --connections, or raise the limit (`ulimit -n {needed}`, LimitNOFILE= in a unit)"
    )]
    TooFewFiles {
        /// What all connections of all cores take.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// A limit of the configuration that no connection could live with.
    #[error("{name} is {value}, but has to be at least {least}: raise it")]
    TooSmall {
        /// The limit's name.
        name: &'static str,
        /// Its value.
        value: usize,
        /// What it needs to be.
        least: usize,
    },
    /// There is no room for the buffers.
    #[error(
        "no memory for {connections} buffers of {buffer_bytes} bytes: {source}; \
         lower --connections, or make the buffers smaller"
    )]
    Memory {
        /// Connections of each core.
        connections: usize,
        /// Length of a buffer of each connection.
        buffer_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused something that every kernel has.
    #[error("core {core}: {call}: {source}")]
    Core {
        /// The core's index.
        core: usize,
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Opens the listeners, starts a thread on each core, and lets them serve once all are ready.
///
/// `make_worker` runs on each core's own thread, so that memory is local to it.
pub fn start<W, E, F>(
    config: &KernelConfig,
    name: &str,
    lifecycle: &Lifecycle,
    make_worker: F,
) -> Result<Running, E>
where
    W: Worker,
    E: From<StartError> + Send + 'static,
    F: Fn(Core) -> Result<W, E> + Clone + Send + 'static,
{
    let cpus = chosen_cpus(&config.cores)?;
    allow_open_files(cpus.len(), config.connections)?;
    let listeners = Listener::open_group(config, &cpus).map_err(StartError::from)?;
    let address = listeners[0].address();
    let address = address.map_err(failure(0, "getsockname"))?;

    let mut starting = Vec::with_capacity(cpus.len());
    for ((index, &cpu), listener) in cpus.iter().enumerate().zip(listeners) {
        let core = Core {
            index,
            listener,
            member: lifecycle.enrol().map_err(failure(index, "eventfd"))?,
            counters: Arc::default(),
        };
        let pinned_to = config.pin.then_some(cpu);
        let thread = spawn(
            pinned_to,
            format!("{name}/{cpu}"),
            core,
            make_worker.clone(),
        );
        starting.push(thread.map_err(failure(index, "thread"))?);
    }
    let mut reports = Vec::with_capacity(cpus.len());
    for (core, starting) in starting.iter().enumerate() {
        let died = |_| failure(core, "start")(io::Error::other("the thread ended early"));
        let report = starting.report.recv().map_err(died)??;
        reports.push(format!("core {core} (CPU {}): {report}", cpus[core]));
    }
    let counters = starting
        .iter()
        .enumerate()
        .map(|(core, starting)| CounterGroup {
            core: Some(core),
            queue: None,
            part: "connections",
            counters: starting.counters.clone(),
        });
    Ok(Running {
        watch: None,
        addresses: vec![address],
        cpus,
        report: reports,
        counters: counters.collect(),
        taps: Vec::new(),
        cores: starting.into_iter().filter_map(Starting::serve).collect(),
    })
}

/// A thread that makes its worker and then waits for the others. Dropped, it ends without serving.
struct Starting<E> {
    report: Receiver<Result<String, E>>,
    counters: Arc<KernelCounters>,
    go: Option<Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl<E> Starting<E> {
    /// Lets the thread serve.
    fn serve(mut self) -> Option<JoinHandle<anyhow::Result<()>>> {
        // A thread that is gone reports why when it is joined.
        let _ = self.go.take()?.send(());
        self.thread.take()
    }
}

impl<E> Drop for Starting<E> {
    fn drop(&mut self) {
        self.go = None;
        if let Some(thread) = self.thread.take() {
            // It has told its error, if it had one, before it ended.
            let _ = thread.join();
        }
    }
}

fn spawn<W, E, F>(
    cpu: Option<usize>,
    name: String,
    core: Core,
    make_worker: F,
) -> io::Result<Starting<E>>
where
    W: Worker,
    E: From<StartError> + Send + 'static,
    F: FnOnce(Core) -> Result<W, E> + Send + 'static,
{
    let (report_out, report) = channel();
    let (go, go_in) = channel();
    let counters = Arc::clone(&core.counters);
    let thread = Builder::new().name(name).spawn(move || {
        let index = core.index;
        let made = cpu
            .map_or(Ok(()), pin)
            .map_err(failure(index, "sched_setaffinity"))
            .map_err(E::from)
            .and_then(|()| make_worker(core));
        let worker = match made {
            Ok(worker) => worker,
            Err(error) => {
                let _ = report_out.send(Err(error));
                return Ok(());
            }
        };
        let _ = report_out.send(Ok(worker.report()));
        match go_in.recv() {
            Ok(()) => worker.run(),
            Err(_) => Ok(()),
        }
    })?;
    Ok(Starting {
        report,
        counters,
        go: Some(go),
        thread: Some(thread),
    })
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(None, &only)?)
}

/// The configured CPUs, or all that the process may use.
fn chosen_cpus(cores: &[usize]) -> Result<Vec<usize>, StartError> {
    let set =
        sched_getaffinity(None).map_err(|error| failure(0, "sched_getaffinity")(error.into()))?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect();
    if cores.is_empty() {
        return Ok(allowed);
    }
    match cores.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(&cpu) => Err(StartError::NoSuchCore { cpu, allowed }),
        None => Ok(cores.to_vec()),
    }
}

/// Raises the limit of open files as far as it goes, and refuses one that connections could run into.
fn allow_open_files(cores: usize, connections: usize) -> Result<(), StartError> {
    /// Standard streams, listeners, event queues, and what a library may open.
    const OTHERS: u64 = 64;
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| failure(0, "setrlimit")(error.into()))?;
    let needed = (cores * (connections + 4)) as u64 + OTHERS;
    match limits.maximum {
        Some(limit) if limit < needed => Err(StartError::TooFewFiles { needed, limit }),
        _ => Ok(()),
    }
}

/// How many files the process may have open.
pub fn open_files_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// An error of `call` on `core`.
pub fn failure(core: usize, call: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Core { core, call, source }
}
