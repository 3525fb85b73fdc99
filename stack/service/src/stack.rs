//! What a stack is: a way to carry bytes between the network and a [`Service`].
//!
//! A stack owns sockets or queues, threads and connections; a [`Service`] owns the protocol. Neither
//! knows which other one it works with.
//!
//! ```text
//!   main ── start ──▶ Stack ── one thread per core ──▶ S = make_service(core index)
//!     ▲                 │
//!     └── Running ◀─────┘  ready: every core has its sockets and its memory
//! ```

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::cores::CoreError;
use crate::counters::{Sample, Samples};
use crate::lifecycle::Lifecycle;
use crate::service::Service;
use crate::tap::Tap;

/// A way to carry bytes between the network and a [`Service`].
pub trait Stack {
    /// What can go wrong before the first byte is served, with cause and cure in its message.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Takes all memory and sockets, starts one pinned thread per core, and returns once every core
    /// can serve.
    ///
    /// `make_service` is called once on each core's own thread with the core's index, counted from
    /// zero in the order of the configured cores, so that what it allocates is local to that core;
    /// and not before the thread has everything that takes privileges, so that it can give them up.
    /// The threads follow `lifecycle`: they drain and end in order, or stop at once.
    ///
    /// # Errors
    ///
    /// If anything that was asked for cannot be had. Nothing stays open, attached or running then.
    /// Printed with `{}` it names cause and cure; the stacks of this project print the same with `{:?}`, as `main` does
    /// with an error that it returns.
    fn start<S, F>(self, make_service: F, lifecycle: &Lifecycle) -> Result<Running, Self::Error>
    where
        S: Service + 'static,
        F: Fn(usize) -> S + Clone + Send + 'static;
}

/// A stack whose cores serve.
#[derive(Debug)]
pub struct Running {
    /// Where clients reach it.
    pub addresses: Vec<SocketAddr>,
    /// Where clients reach it besides, since it runs.
    pub added: AddedAddresses,
    /// The CPU of each core.
    pub cpus: Vec<usize>,
    /// What it got and what it took, for the operator.
    pub notices: Vec<Notice>,
    /// What the cores count, in groups that each belong to one part of one core.
    pub counters: Vec<CounterGroup>,
    /// Where to watch the frames of each queue; empty where the kernel has them, and tcpdump sees them.
    pub taps: Vec<QueueTap>,
    /// What can break beside the cores.
    pub watch: Option<Watch>,
    /// The cores' threads. They end after [`Lifecycle`] says so; an error is what broke a core.
    pub cores: Vec<JoinHandle<Result<(), CoreError>>>,
}

impl Running {
    /// Waits until all cores have ended.
    ///
    /// # Errors
    ///
    /// What broke the first one that did not end in order.
    pub fn wait(self) -> Result<(), CoreError> {
        let mut outcome = Ok(());
        for core in self.cores {
            let ended = core
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

/// Addresses that a stack began to serve after its start. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AddedAddresses(Arc<Mutex<Vec<SocketAddr>>>);

impl AddedAddresses {
    /// Clients reach the server at `address`, too.
    pub fn add(&self, address: SocketAddr) {
        self.lock().push(address);
    }

    /// All of them up to now.
    pub fn get(&self) -> Vec<SocketAddr> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks until something breaks that no core notices, and returns what. It is not called on a core's thread, and
/// holds nothing that keeps the stack from ending.
pub struct Watch(pub Box<dyn FnOnce() -> Box<dyn Error + Send + Sync> + Send + Sync>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// What a stack has to say about its start, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// What it got, or what it took.
    Fact(String),
    /// Something that costs connections, speed or a core, with a cure.
    Warning(String),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Fact(text) => f.write_str(text),
            Notice::Warning(text) => write!(f, "warning: {text}"),
        }
    }
}

/// Where to watch the frames of a queue.
#[derive(Debug, Clone)]
pub struct QueueTap {
    /// The NIC queue.
    pub queue: u32,
    /// Its tap.
    pub tap: Arc<Tap>,
    /// Whether the queue is served already.
    pub is_there: IsThere,
}

/// Whether a queue is served: some appear only later.
#[derive(Debug, Clone, Default)]
pub struct IsThere(Arc<AtomicBool>);

impl IsThere {
    /// Of a queue that is there from the start.
    pub fn from_the_start() -> Self {
        let is_there = Self::default();
        is_there.appear();
        is_there
    }

    /// From here on it is.
    pub fn appear(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it is.
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Counters of something that may not be there yet; as long as it is not, there are none.
#[derive(Debug)]
pub struct OnceThere<S> {
    /// Whether it is there.
    pub is_there: IsThere,
    /// What it counts.
    pub samples: Arc<S>,
}

impl<S: Samples> Samples for OnceThere<S> {
    fn samples(&self) -> Vec<Sample> {
        match self.is_there.get() {
            true => self.samples.samples(),
            false => Vec::new(),
        }
    }
}

/// The counters of one part of a stack.
#[derive(Debug, Clone)]
pub struct CounterGroup {
    /// The index of the core they belong to, as [`Stack::start`] counts them; `None`: to all together.
    pub core: Option<usize>,
    /// The NIC queue they belong to, where a core has several of the same part.
    pub queue: Option<u32>,
    /// What the counters belong to, in snake case: `connection`, `link`, ...
    pub part: &'static str,
    /// The counters themselves, live.
    pub counters: Arc<dyn Samples>,
}
