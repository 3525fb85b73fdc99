//! How the cores of a stack stop between two batches for another process to go on in their place, or for none to.
//!
//! ```text
//!   Posts::freeze ─▶ each core: Order::Freeze ─▶ gives what can travel to the courier ─▶ Freeze::wait
//!        │                                                                                  │
//!        └─ Frozen ── Frozen::hand_over: another process serves, the core ends ─────────────┤
//!                 └── dropped: nothing has happened, the core goes on ─────────────────────▶┘
//! ```

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// What a core is told. `A` is what it goes on with, `K` takes along what it gives away.
pub enum Order<A, K: ?Sized> {
    /// Serve: the predecessor has stopped.
    Begin,
    /// Go on with this.
    Admit(A),
    /// Stop, until there is a verdict.
    Freeze(Freeze<K>),
}

impl<A, K: ?Sized> fmt::Debug for Order<A, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Order::Begin => "Begin",
            Order::Admit(_) => "Admit",
            Order::Freeze(_) => "Freeze",
        })
    }
}

/// A core's side of a freeze.
pub struct Freeze<K: ?Sized> {
    /// Takes connections to the successor.
    pub courier: Arc<K>,
    frozen: Sender<io::Result<usize>>,
    verdict: Receiver<()>,
}

impl<K: ?Sized> Freeze<K> {
    /// This core cannot hand over; nothing changes.
    pub fn refuse(self) {
        let _ = (self.frozen).send(Err(io::Error::other("a core does not serve")));
        let _ = self.verdict.recv();
    }

    /// Says how many connections were carried, and waits. `None`: go on as before.
    pub fn wait(self, carried: Result<usize, &io::Error>) -> Option<Arc<K>> {
        let carried = carried.map_err(|error| io::Error::new(error.kind(), error.to_string()));
        let _ = self.frozen.send(carried);
        self.verdict.recv().ok().map(|()| self.courier)
    }
}

/// Cores that have stopped, for as long as this is there.
#[derive(Debug)]
pub struct Frozen {
    verdicts: Vec<Sender<()>>,
    /// Connections that were carried.
    pub connections: usize,
}

impl Frozen {
    /// The successor serves: the cores end once they have served what they keep.
    pub fn hand_over(self) {
        for verdict in &self.verdicts {
            // A core that is gone has nothing left.
            let _ = verdict.send(());
        }
    }
}

/// How the cores of a stack are told something.
pub struct Posts<A, K: ?Sized>(Mutex<Vec<Post<A, K>>>);

struct Post<A, K: ?Sized> {
    orders: Sender<Order<A, K>>,
    waker: Waker,
}

impl<A, K: ?Sized> Default for Posts<A, K> {
    fn default() -> Self {
        Posts(Mutex::default())
    }
}

impl<A, K: ?Sized> fmt::Debug for Posts<A, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Posts({})", self.lock().len())
    }
}

impl<A, K: ?Sized> Posts<A, K> {
    /// What another core will be told.
    pub fn enrol(&self, waker: Waker) -> Receiver<Order<A, K>> {
        let (orders, receiver) = channel();
        self.lock().push(Post { orders, waker });
        receiver
    }

    /// How many cores have enrolled.
    pub fn cores(&self) -> usize {
        self.lock().len()
    }

    /// Lets all cores serve.
    pub fn begin(&self) {
        self.lock().iter().for_each(|post| post.give(Order::Begin));
    }

    /// Lets `core` go on with something. Without that core it is dropped.
    pub fn admit(&self, core: usize, what: A) {
        if let Some(post) = self.lock().get(core) {
            post.give(Order::Admit(what));
        }
    }

    /// Stops all cores, and lets `courier` have what can travel.
    ///
    /// # Errors
    ///
    /// If one cannot stop within `timeout`, or what it gave could not be carried; all go on then.
    pub fn freeze(&self, courier: &Arc<K>, timeout: Duration) -> io::Result<Frozen> {
        let until = Instant::now() + timeout;
        let (frozen_out, frozen) = channel();
        let mut all = Frozen {
            verdicts: Vec::new(),
            connections: 0,
        };
        for post in self.lock().iter() {
            let (verdict_out, verdict) = channel();
            all.verdicts.push(verdict_out);
            post.give(Order::Freeze(Freeze {
                courier: Arc::clone(courier),
                frozen: frozen_out.clone(),
                verdict,
            }));
        }
        drop(frozen_out);
        for _ in 0..all.verdicts.len() {
            let left = until.saturating_duration_since(Instant::now());
            match frozen.recv_timeout(left) {
                Ok(carried) => all.connections += carried?,
                Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a core has ended"));
                }
            }
        }
        Ok(all)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Post<A, K>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A, K: ?Sized> Post<A, K> {
    fn give(&self, order: Order<A, K>) {
        // A core that has ended follows no order; dropping it closes what it holds.
        let _ = self.orders.send(order);
        self.waker.wake_by_ref();
    }
}
