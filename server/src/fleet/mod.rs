//! Event counts of several servers together, through a Redis or Valkey that they share (`--counts-through`).
//!
//! ```text
//!   cores ──▶ Events ──────────────▶ Publisher, a thread ──▶ engine ◀── publishers of other nodes
//!     └─ new users ─▶ Newcomers ──────┘     │ reads
//!                                           ▼
//!   GET /stats?scope=fleet ◀────────────── View
//! ```
//!
//! A node publishes states, never increments: for each incarnation of it a version, the number of events and their exact
//! sum, of which the engine keeps the newest, and users into one set. Both are idempotent, so a publication may be lost,
//! repeated, late or out of order. What is not published yet waits where it is anyway: in the counts and in the table of
//! users. So an engine that is slow, away or full costs no memory and no core anything.
//!
//! | key, behind `{PREFIX}:` | type | content |
//! |---|---|---|
//! | `key` | string | the secret key of the users' hashes, in hexadecimal digits: the same on all nodes |
//! | `epoch` | string | resets so far; the names of the next two end in it |
//! | `life` | string | when the engine got the first of all this: another time says that it has lost the rest |
//! | `counts:EPOCH` | hash | incarnation → `VERSION PROCESS EVENTS LIMB:AMOUNT…`, the limbs of [`ExactSum`](crate::events::sum) that are not zero |
//! | `users:EPOCH` | set | hashes of users, 16 bytes each |
//! | `nodes` | hash | node → `PROCESS TIME_MS EPOCH up` or `left`, by the engine's clock |
//!
//! # What is promised
//!
//! * An event whose reply was written is in the fleet's counts once its node has published and this node has read: two
//!   intervals later, if the engine answers. `ageMs` says when it was last read.
//! * While nobody sends events and all have published, the four numbers are exact, and the same on all nodes.
//! * `uniqueUsers <= totalRequests` always: users are published together with a count that has their events.
//! * A node that ended, in order or not, stays counted.
//! * A reset forgets all events whose reply was written before it was asked for, and no event that is sent after
//!   `resetPending` is zero. What a node counted before it heard of the reset is forgotten.
//!
//! An engine that lost what it had (restarted without a file, or failed over to a replica that was behind) gets it again
//! from the nodes that run: each sees that `life` is another or its last entry is old, and publishes all of its users once
//! more. What nodes had counted that run no more is lost with it.

mod counters;
mod engine;
mod join;
mod publisher;
mod scripts;
mod view;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::confine;
use crate::events::Events;
use crate::events::ledger::Totals;
use crate::events::membership::Membership;

pub use counters::FleetCounters;
pub use engine::{Engine, EngineError};
pub use join::{JoinError, Joined, join};
pub use view::{FleetStats, View};

use publisher::Publisher;

/// How a server takes part in a fleet.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// `redis://`, `rediss://` or `unix://`.
    pub url: String,
    /// The certificates that the engine's leads to, with `rediss://`.
    pub ca: PathBuf,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// The server's name, if it is not to be made up.
    pub node: Option<String>,
    /// Between two publications.
    pub interval: Duration,
    /// Between two readings of the merge.
    pub read_interval: Duration,
    /// How long the engine may take for an answer.
    pub timeout: Duration,
    /// After which time without a publication a node is called silent.
    pub silent: Duration,
    /// Whether to serve although the engine cannot be reached at the start.
    pub serve_without: bool,
}

/// Users of each core that may wait to be published before the table of all has to be read.
pub const NEWCOMERS_MAX: usize = 1 << 16;

/// What the cores and the operator see of a fleet.
#[derive(Debug, Clone)]
pub struct FleetHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    view: ArcSwapOption<View>,
    counters: Arc<FleetCounters>,
    reset: AtomicBool,
    ending: AtomicBool,
    /// Who wants the publisher to pause.
    pause: Mutex<Option<Pause>>,
    publisher: OnceLock<Thread>,
}

/// A wish that the publisher pauses.
#[derive(Debug)]
struct Pause {
    paused: Sender<Membership>,
    ends: Receiver<()>,
}

/// A publisher that publishes nothing, until this is dropped.
#[derive(Debug)]
pub struct Paused {
    /// Where another process goes on.
    pub membership: Membership,
    end: Sender<()>,
}

impl Paused {
    /// Another process publishes in its place.
    pub fn end(self) {
        // Whoever has ended already publishes nothing.
        let _ = self.end.send(());
    }
}

impl FleetHandle {
    /// What was last read of the engine. Never waits.
    pub fn view(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    /// Lets the whole fleet begin anew, as soon as the engine answers.
    pub fn reset(&self) {
        self.shared.reset.store(true, Ordering::Release);
    }

    /// Lets the publisher pause after its turn; `None` if that lasts longer than `timeout`.
    pub fn pause(&self, timeout: Duration) -> Option<Paused> {
        let (paused, membership) = channel();
        let (end, ends) = channel();
        *lock(&self.shared.pause) = Some(Pause { paused, ends });
        self.shared.publisher.get()?.unpark();
        let membership = membership.recv_timeout(timeout).ok()?;
        Some(Paused { membership, end })
    }

    /// What publisher and engine do.
    pub fn counters(&self) -> Arc<FleetCounters> {
        Arc::clone(&self.shared.counters)
    }
}

/// A server that takes part in a fleet.
#[derive(Debug)]
pub struct Fleet {
    handle: FleetHandle,
    thread: JoinHandle<Membership>,
}

impl Fleet {
    /// Publishes what `events` count from here on, or from when `place` says where to go on, with which counts. `enter` is
    /// the first that its thread does.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn start(
        mut joined: Joined,
        config: &FleetConfig,
        events: Arc<Events>,
        place: Option<Receiver<(Membership, Totals)>>,
        enter: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (config, of_thread) = (config.clone(), Arc::clone(&shared));
        let run = move || {
            if let Some(place) = place {
                let Ok((member, totals)) = place.recv() else {
                    return joined.member.closed();
                };
                (joined.member, joined.totals) = (member, totals);
            }
            Publisher::new(joined, &config, events, of_thread).run()
        };
        let thread = confine::spawn("fleet", enter, run)?;
        let _ = shared.publisher.set(thread.thread().clone());
        let handle = FleetHandle { shared };
        Ok(Fleet { handle, thread })
    }

    /// What the cores and the operator see of it.
    pub fn handle(&self) -> FleetHandle {
        self.handle.clone()
    }

    /// Publishes the rest, if the engine takes it in time, and says where the next process goes on.
    pub fn end(self) -> Option<Membership> {
        self.handle.shared.ending.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().ok()
    }
}

fn lock(pause: &Mutex<Option<Pause>>) -> MutexGuard<'_, Option<Pause>> {
    pause.lock().unwrap_or_else(PoisonError::into_inner)
}
