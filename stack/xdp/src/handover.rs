//! A server on its way to the process that goes on in its place.
//!
//! The kernel gives a queue to one AF_XDP socket only, and takes some milliseconds to let go of it. So connections travel
//! before the queues do: the successor goes on with them by a packet socket, until it has the queues.
//!
//! ```text
//!   predecessor                                            successor
//!   serves                                                 has started: `HandOver::inheriting`. Its links are bridges,
//!                                                          which nothing arrives at; its cores wait
//!   HandOver::leave: what cannot travel is drained
//!   HandOver::freeze
//!     Redirect::pause ─ what arrives from here on: XDP_PASS ────▶ waits in the packet sockets
//!     each core serves what is in its rings, then stops
//!     Shard::depart ─ Courier ─── connections ──────────▶  HandOver::admit: Shard::arrive
//!   Frozen::hand_over ── the cores end, the sockets close  HandOver::begin ─ the cores serve, by the bridges
//!                                                            Redirect::replace: its own program
//!                          the kernel lets go of a queue ─▶  Transfer::bind, Redirect::set_socket, the bridge ends
//! ```
//!
//! Until [`Frozen::hand_over`] nothing has changed: dropped, it has the program redirect again and the cores go on. What
//! had arrived in between is lost, and repeated by its senders.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use barewire_service::handover::{self, Posts};
use barewire_tcp::guard::Secrets;

use crate::XdpError;
use crate::redirect::{Mode, Redirect};
use crate::xsk::Transfer;

/// Takes connections to the successor.
pub trait Courier: Send + Sync {
    /// Takes what `core` has written there.
    ///
    /// # Errors
    ///
    /// If the successor is gone; then they stay.
    fn carry(&self, core: usize, connections: &[u8]) -> io::Result<()>;
}

/// What a core is told.
pub(crate) type Order = handover::Order<Task, dyn Courier>;
/// A core's side of a freeze.
pub(crate) type Freeze = handover::Freeze<dyn Courier>;

/// What a core is to do beside serving.
pub(crate) enum Task {
    /// Go on with these connections. The count is one less when that is done.
    GoOn(Vec<u8>, Arc<AtomicUsize>),
    /// End what cannot travel, and say when nothing is left that cannot.
    Leave(Sender<()>),
    /// There is no successor after all.
    Stay,
}

/// What a server has that another process starts with.
pub struct Inheritance {
    /// The attachment of the XDP program.
    pub link: OwnedFd,
    /// What reserves the ports.
    pub reserved: Vec<OwnedFd>,
    /// Keys of sequence numbers, of cookies, and of tables.
    pub secrets: Secrets,
    /// Where the program runs.
    pub mode: Mode,
}

/// A stack's end of a hand-over, for either side. Cheap to clone.
#[derive(Clone, Default)]
pub struct HandOver(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inherited: Mutex<Option<Inheritance>>,
    /// Of a stack that has started.
    running: OnceLock<Running>,
    /// Queues that are the predecessor's yet.
    transfers: Mutex<Vec<Transfer>>,
    /// Cores that have connections to go on with, and do not yet.
    arriving: Arc<AtomicUsize>,
    /// Cores that have served all that has arrived before a freeze.
    have_served: AtomicUsize,
    posts: Posts<Task, dyn Courier>,
}

struct Running {
    redirect: Weak<Redirect>,
    secrets: Secrets,
    place: Place,
}

/// Where a stack serves.
#[derive(Debug, Clone)]
pub struct Place {
    /// The interface.
    pub interface: String,
    /// The queues of each core.
    pub queues: Vec<Vec<u32>>,
    /// Where the program runs.
    pub mode: Mode,
}

/// Cores that have stopped, for as long as this is there.
pub struct Frozen {
    cores: Option<handover::Frozen>,
    redirect: Arc<Redirect>,
}

impl Frozen {
    /// The successor serves: the cores end.
    pub fn hand_over(mut self) {
        // The one that watches the interface finds nothing to attach again.
        self.redirect.give_up();
        if let Some(cores) = self.cores.take() {
            cores.hand_over();
        }
    }

    /// How many connections were carried.
    pub fn connections(&self) -> usize {
        self.cores.as_ref().map_or(0, |cores| cores.connections)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Before the cores go on, which they do when theirs is dropped.
        if self.cores.is_some()
            && let Err(error) = self.redirect.go_on()
        {
            tracing::error!("{error}; restart the server");
        }
    }
}

/// How long cores may take to go on with connections.
const ARRIVE_MAX: Duration = Duration::from_secs(5);

/// How long a frame may be on its way from the program to a packet socket.
const UNDER_WAY_MAX: Duration = Duration::from_millis(20);

impl HandOver {
    /// For a stack that goes on in the place of another process. Its cores wait for [`HandOver::begin`].
    pub fn inheriting(inheritance: Inheritance) -> Self {
        let hand_over = HandOver::default();
        *hand_over.inherited() = Some(inheritance);
        hand_over
    }

    /// What a successor starts with.
    ///
    /// # Errors
    ///
    /// If the stack does not run, or the process is out of descriptors.
    pub fn inheritance(&self) -> io::Result<Inheritance> {
        let gone = || io::Error::other("the cores have ended");
        let running = self.0.running.get().ok_or_else(gone)?;
        let redirect = running.redirect.upgrade().ok_or_else(gone)?;
        let (link, reserved) = redirect.duplicate()?;
        Ok(Inheritance {
            link,
            reserved,
            secrets: running.secrets.clone(),
            mode: running.place.mode,
        })
    }

    /// Where the stack serves, once it has started.
    pub fn place(&self) -> Option<&Place> {
        self.0.running.get().map(|running| &running.place)
    }

    /// Lets all cores end what cannot travel. Returns when nothing is left that cannot, or after `timeout`.
    pub fn leave(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let (out, ready) = channel();
        for core in 0..self.0.posts.cores() {
            self.0.posts.admit(core, Task::Leave(out.clone()));
        }
        drop(out);
        for _ in 0..self.0.posts.cores() {
            let left = until.saturating_duration_since(Instant::now());
            if ready.recv_timeout(left).is_err() {
                tracing::warn!(
                    "not all connections that cannot go on in another process have ended in time"
                );
                return;
            }
        }
    }

    /// There is no successor after all: all go on as before [`HandOver::leave`].
    pub fn stay(&self) {
        for core in 0..self.0.posts.cores() {
            self.0.posts.admit(core, Task::Stay);
        }
    }

    /// Stops all cores, and lets `courier` have their connections.
    ///
    /// # Errors
    ///
    /// If one cannot stop within `timeout`, or its connections could not be carried; all go on then.
    pub fn freeze(&self, courier: &Arc<dyn Courier>, timeout: Duration) -> io::Result<Frozen> {
        let running = self.0.running.get();
        let redirect = running.and_then(|running| running.redirect.upgrade());
        let redirect = redirect.ok_or_else(|| io::Error::other("the cores have ended"))?;
        self.0.have_served.store(0, Ordering::Release);
        let frozen = redirect.pause().map_err(io::Error::other);
        match frozen.and_then(|()| self.0.posts.freeze(courier, timeout)) {
            Ok(cores) => Ok(Frozen {
                cores: Some(cores),
                redirect,
            }),
            Err(error) => {
                redirect.go_on().map_err(io::Error::other)?;
                Err(error)
            }
        }
    }

    /// Lets `core` go on with connections of the predecessor.
    pub fn admit(&self, core: usize, connections: Vec<u8>) {
        let arriving = &self.0.arriving;
        arriving.fetch_add(1, Ordering::AcqRel);
        let task = Task::GoOn(connections, Arc::clone(arriving));
        self.0.posts.admit(core, task);
    }

    /// The predecessor has ended its part: the cores serve, and take the queues as they become free. Returns when they have
    /// them.
    ///
    /// # Errors
    ///
    /// The first queue that cannot be had. All that can be are served by then, and the others by way of the kernel.
    pub fn begin(&self) -> Result<(), XdpError> {
        self.0.posts.begin();
        let running = self.0.running.get();
        let Some(redirect) = running.and_then(|running| running.redirect.upgrade()) else {
            return Ok(());
        };
        redirect.replace()?;
        let mut outcome = Ok(());
        let mut taken = Vec::new();
        for transfer in self.transfers().drain(..) {
            let began = Instant::now();
            let bound = transfer.bind().map_err(XdpError::from);
            let set = bound.and_then(|socket| {
                let set = redirect.set_socket(transfer.queue(), &socket);
                set.map_err(XdpError::from)
            });
            match set {
                Ok(()) => {
                    let took_ms = began.elapsed().as_secs_f64() * 1e3;
                    tracing::info!("queue {} is bound, after {took_ms:.1} ms", transfer.queue());
                    taken.push(transfer);
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        sleep(UNDER_WAY_MAX);
        taken.iter().for_each(Transfer::end);
        outcome
    }

    /// What the stack starts with, if it goes on in the place of another process.
    pub(crate) fn take_inherited(&self) -> Option<Inheritance> {
        self.inherited().take()
    }

    /// The stack has started.
    pub(crate) fn started(&self, redirect: &Arc<Redirect>, secrets: &Secrets, place: Place) {
        // A stack starts once.
        let _ = self.0.running.set(Running {
            redirect: Arc::downgrade(redirect),
            secrets: secrets.clone(),
            place,
        });
    }

    /// Queues that are the predecessor's yet.
    pub(crate) fn will_take(&self, transfers: Vec<Transfer>) {
        self.transfers().extend(transfers);
    }

    /// Waits until all cores go on with what they were given: one that does not know yet what another one has would reset it.
    pub(crate) fn wait_for_arrivals(&self) {
        let until = Instant::now() + ARRIVE_MAX;
        while self.0.arriving.load(Ordering::Acquire) > 0 && Instant::now() < until {
            yield_now();
        }
    }

    /// Another core has served all that has arrived before a freeze. Returns whether all have.
    pub(crate) fn note_served(&self, is_first_time: bool) -> bool {
        let more = usize::from(is_first_time);
        self.0.have_served.fetch_add(more, Ordering::AcqRel) + more >= self.0.posts.cores()
    }

    /// What another core will be told.
    pub(crate) fn enrol(&self, waker: Waker) -> Receiver<Order> {
        self.0.posts.enrol(waker)
    }

    fn inherited(&self) -> MutexGuard<'_, Option<Inheritance>> {
        let inherited = self.0.inherited.lock();
        inherited.unwrap_or_else(PoisonError::into_inner)
    }

    fn transfers(&self) -> MutexGuard<'_, Vec<Transfer>> {
        let transfers = self.0.transfers.lock();
        transfers.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hides the keys.
impl std::fmt::Debug for HandOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandOver(..)")
    }
}
