//! Start-up: one pinned thread per core, all of them ready before the first one serves.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use barewire_service::cores::{CoreError, PinError, Starting, choose_cpus};
use barewire_service::lifecycle::{Lifecycle, Member};
use barewire_service::stack::{AddedAddresses, CounterGroup, Notice, Running};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::config::KernelConfig;
use super::counters::KernelCounters;
use super::error::StartError;
use super::handover::{HandOver, Order};
use super::listener::Listener;

/// What a core has before it makes its connections' memory.
#[derive(Debug)]
pub struct Core {
    /// Its index, counted from zero in the order of the configured cores.
    pub index: usize,
    /// Its listeners, one for each address, to which the kernel steers the connections of its CPU.
    pub listeners: Vec<Listener>,
    /// What it is told about a hand-over.
    pub orders: Option<Receiver<Order>>,
    /// It must not accept before it is told to.
    pub is_dormant: bool,
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
    fn run(self) -> Result<(), CoreError>;
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
    E: From<StartError> + From<PinError> + Send + 'static,
    F: Fn(Core) -> Result<W, E> + Clone + Send + 'static,
{
    let cpus = choose_cpus(&config.cores).map_err(StartError::from)?;
    allow_open_files(cpus.len(), config.connections_max())?;
    let mut addresses = Vec::with_capacity(1 + config.listen_also.len());
    let mut listeners: Vec<Vec<Listener>> = cpus.iter().map(|_| Vec::new()).collect();
    let groups = open_listeners(config, &cpus)?;
    if let Some(hand_over) = &config.hand_over {
        hand_over.keep(&groups).map_err(failure(0, "dup"))?;
    }
    for group in groups {
        let address = group[0].address();
        addresses.push(address.map_err(failure(0, "getsockname"))?);
        for (of_core, listener) in listeners.iter_mut().zip(group) {
            of_core.push(listener);
        }
    }

    let mut starting = Vec::with_capacity(cpus.len());
    let mut counters = Vec::with_capacity(cpus.len());
    for ((index, &cpu), listeners) in cpus.iter().enumerate().zip(listeners) {
        let member = lifecycle.enrol().map_err(failure(index, "eventfd"))?;
        let hand_over = config.hand_over.as_ref();
        let core = Core {
            index,
            listeners,
            orders: hand_over.map(|hand_over| hand_over.enrol(member.waker())),
            is_dormant: hand_over.is_some_and(HandOver::shares_listeners),
            member,
            counters: Arc::default(),
        };
        counters.push(CounterGroup {
            core: Some(index),
            queue: None,
            part: "connections",
            counters: core.counters.clone(),
        });
        let pinned_to = config.pin.then_some(cpu);
        let make_worker = make_worker.clone();
        let thread = Starting::<_, _, E>::spawn(format!("{name}/{cpu}"), pinned_to, move |gate| {
            let worker = make_worker(core)?;
            Ok(match gate.ready(worker.report()) {
                Some(()) => worker.run(),
                None => Ok(()),
            })
        });
        starting.push(thread.map_err(failure(index, "thread"))?);
    }
    let mut notices = Vec::with_capacity(cpus.len());
    for (core, starting) in starting.iter().enumerate() {
        let report = starting.wait().map_err(failure(core, "start"))??;
        let text = format!("core {core} (CPU {}): {report}", cpus[core]);
        notices.push(Notice::Fact(text));
    }
    Ok(Running {
        watch: None,
        addresses,
        added: AddedAddresses::default(),
        cpus,
        notices,
        counters,
        taps: Vec::new(),
        cores: starting
            .into_iter()
            .filter_map(|starting| starting.go(()))
            .collect(),
    })
}

/// The listeners of all addresses, for each core: new ones, or those of the process that this one takes over from.
fn open_listeners(config: &KernelConfig, cpus: &[usize]) -> Result<Vec<Vec<Listener>>, StartError> {
    let addresses = 1 + config.listen_also.len();
    let inherited = config.hand_over.as_ref().and_then(HandOver::take_inherited);
    let Some(inherited) = inherited else {
        let addresses = [config.listen]
            .into_iter()
            .chain(config.listen_also.clone());
        let groups = addresses.map(|address| Listener::open_group(address, config, cpus));
        return Ok(groups.collect::<Result<_, _>>()?);
    };
    let size = |addresses, cores| format!("{addresses} addresses on {cores} cores");
    let cores = inherited.iter().map(Vec::len).min().unwrap_or(0);
    if inherited.len() != addresses || inherited.iter().any(|group| group.len() != cpus.len()) {
        return Err(StartError::Inherited {
            inherited: size(inherited.len(), cores),
            wanted: size(addresses, cpus.len()),
        });
    }
    let inherit = |socket| Listener::inherited(socket, config);
    let groups = inherited.into_iter();
    Ok(groups
        .map(|group| group.into_iter().map(inherit).collect())
        .collect())
}

/// What ends a core that serves: `call` failed.
pub fn ended<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> CoreError {
    move |source| CoreError {
        call,
        source: source.into(),
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
