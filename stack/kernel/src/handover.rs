//! Listeners and connections on their way to the process that goes on in a server's place.
//!
//! A process gives another one its sockets by SCM_RIGHTS (unix(7)). A listener that both have keeps its queue, so no client
//! notices that somebody else accepts from it. A connection travels when it is idle: then the peer has nothing of us to
//! wait for, and what the service knows of it is a byte ([`Service::departs`](barewire_service::service::Service::departs)).
//!
//! ```text
//!   predecessor                                             successor
//!   cores serve                                             cores have started and wait: `HandOver::inheriting`
//!   HandOver::freeze ─▶ each core stops between two batches
//!                       and gives its idle connections to the
//!                       Courier ─────── sockets ──────────▶ HandOver::admit
//!   Frozen::hand_over ─▶ cores keep what is busy            HandOver::begin ─▶ cores accept and serve
//!                        └─ idle by now ─ Courier ────────▶ HandOver::admit
//! ```
//!
//! Until [`Frozen::hand_over`] nothing has changed: cores whose [`Frozen`] is dropped go on as if nothing had happened.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use barewire_service::handover::{self, Posts};

use crate::Listener;

/// Connections that a [`Courier`] is given at once: unix(7) lets a message have 253 descriptors.
pub const BATCH_MAX: usize = 128;

/// What there is to know of an idle connection, beside its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// The listener that it came in by: a place in the list of addresses.
    pub listener: u16,
    /// What its service says of it.
    pub rest: u8,
    /// How long it has been waiting for a message, in microseconds.
    pub idle_us: u64,
}

/// Takes connections to the successor.
pub trait Courier: Send + Sync {
    /// Takes connections of `core` there, at most [`BATCH_MAX`]. The sockets are closed here afterwards.
    ///
    /// # Errors
    ///
    /// If the successor is gone; then they stay.
    fn carry(&self, core: usize, idle: &[Idle], sockets: &[BorrowedFd<'_>]) -> io::Result<()>;
}

/// A stack's end of a hand-over, for either side. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct HandOver(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Listeners to start with, for each address one for each core.
    inherited: Mutex<Option<Vec<Vec<OwnedFd>>>>,
    /// The same of a stack that has started.
    listeners: OnceLock<Vec<Vec<OwnedFd>>>,
    posts: Posts<Vec<(Idle, OwnedFd)>, dyn Courier>,
    /// Another process has the listeners as well: closing ours must not end them.
    shares_listeners: AtomicBool,
}

/// What a core is told. It goes on with connections.
pub(crate) type Order = handover::Order<Vec<(Idle, OwnedFd)>, dyn Courier>;
/// A core's side of a freeze.
pub(crate) type Freeze = handover::Freeze<dyn Courier>;

/// Cores that have stopped, for as long as this is there.
#[derive(Debug)]
pub struct Frozen {
    shared: Arc<Shared>,
    cores: handover::Frozen,
}

impl Frozen {
    /// The successor serves: what was carried is closed here, and the cores end once they have served the rest.
    pub fn hand_over(self) {
        self.shared.shares_listeners.store(true, Ordering::Release);
        self.cores.hand_over();
    }

    /// How many connections were carried.
    pub fn connections(&self) -> usize {
        self.cores.connections
    }
}

impl HandOver {
    /// For a stack that starts with listeners of another process: for each address one for each core, in their order.
    /// Its cores wait for [`HandOver::begin`].
    pub fn inheriting(listeners: Vec<Vec<OwnedFd>>) -> Self {
        let hand_over = HandOver::default();
        *hand_over.inherited() = Some(listeners);
        hand_over.0.shares_listeners.store(true, Ordering::Release);
        hand_over
    }

    /// The listeners of the stack that has started, for each address one for each core.
    pub fn listeners(&self) -> &[Vec<OwnedFd>] {
        self.0.listeners.get().map_or(&[], Vec::as_slice)
    }

    /// How many cores the stack has.
    pub fn cores(&self) -> usize {
        self.0.posts.cores()
    }

    /// Closing the listeners must not end them from here on: another process has them.
    pub fn leave_listeners_open(&self) {
        self.0.shares_listeners.store(true, Ordering::Release);
    }

    /// The predecessor has ended its part: the cores accept.
    pub fn begin(&self) {
        self.0.shares_listeners.store(false, Ordering::Release);
        self.0.posts.begin();
    }

    /// Lets `core` go on with connections of the predecessor. Without that core they are closed.
    pub fn admit(&self, core: usize, connections: Vec<(Idle, OwnedFd)>) {
        self.0.posts.admit(core, connections);
    }

    /// Stops all cores, and lets `courier` have their idle connections.
    ///
    /// # Errors
    ///
    /// If one cannot stop within `timeout`, or its connections could not be carried; all go on then.
    pub fn freeze(&self, courier: &Arc<dyn Courier>, timeout: Duration) -> io::Result<Frozen> {
        Ok(Frozen {
            shared: Arc::clone(&self.0),
            cores: self.0.posts.freeze(courier, timeout)?,
        })
    }

    /// The listeners to start with, if they come from another process.
    pub(crate) fn take_inherited(&self) -> Option<Vec<Vec<OwnedFd>>> {
        self.inherited().take()
    }

    /// Keeps a descriptor of each listener for a successor.
    pub(crate) fn keep(&self, listeners: &[Vec<Listener>]) -> io::Result<()> {
        let keep = |of_address: &Vec<Listener>| -> io::Result<Vec<OwnedFd>> {
            let of_address = of_address.iter();
            of_address
                .map(|listener| listener.as_fd().try_clone_to_owned())
                .collect()
        };
        let kept = listeners.iter().map(keep).collect::<io::Result<_>>()?;
        // A stack starts once.
        let _ = self.0.listeners.set(kept);
        Ok(())
    }

    /// What another core will be told.
    pub(crate) fn enrol(&self, waker: Waker) -> Receiver<Order> {
        self.0.posts.enrol(waker)
    }

    /// Whether a listener is to be left open behind us.
    pub(crate) fn shares_listeners(&self) -> bool {
        self.0.shares_listeners.load(Ordering::Acquire)
    }

    fn inherited(&self) -> std::sync::MutexGuard<'_, Option<Vec<Vec<OwnedFd>>>> {
        let inherited = self.0.inherited.lock();
        inherited.unwrap_or_else(PoisonError::into_inner)
    }
}
