//! The events of the 1-million-request challenge: `POST /event` and `GET /stats`, exact on all cores.
//!
//! ```text
//!   body ──▶ parse ──▶ userId ──▶ UserKey::hash ──▶ SeenUsers ──▶ UserTable     shared, new users only
//!                  └─▶ value ─────────────────────▶ Ledger                      one per core
//!                                                     │ read by all
//!                                 Stats ◀── Totals ◀──┘
//! ```
//!
//! Each core counts in a [`ledger`] of its own and is its only writer. `/stats` reads the ledgers of
//! all cores and stops none. An event of a user that the core knows touches no memory that another
//! core writes; nothing is locked and nothing is allocated per event. (Only a body that is not JSON
//! costs a few errors of serde_json's, which are freed at once: see [`parse`].)
//!
//! # Guarantees
//!
//! * An event whose reply was written is in every answer to a `/stats` that is asked for later, on
//!   whichever core: it is counted before its reply exists.
//! * An event is counted at most once, and only if its body was received completely and accepted.
//!   One whose reply was lost (the client reset the connection, say) is counted all the same: the
//!   server cannot know.
//! * While no events are sent, the four numbers are exact. The sum does not depend on the order of
//!   the events or on how many cores counted them.
//! * While events are being counted, an answer has each of them with its value or not at all, and
//!   each user with the event that brought it; `uniqueUsers <= totalRequests` always. It is not the
//!   state of one instant: between two cores, an event can be in it and an older one not, as long as
//!   neither's reply was written when the request arrived.
//! * After a reset ([`Events::reset`]) the same holds for the events since.
//! * Counts that were saved and restored ([`state`]) go on exactly, on however many cores.

pub mod counts;
pub mod ledger;
pub mod membership;
pub mod newcomers;
pub mod parse;
pub mod refusal;
pub mod seen;
mod shard;
pub mod state;
mod stats;
pub mod sum;
mod sync;
mod unescape;
pub mod users;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use barewire_memory::OutOfMemory;

use self::counts::Counts;
use self::ledger::{Ledger, Totals};
use self::membership::Membership;
use self::newcomers::{NewcomerSender, Newcomers};
use self::seen::SeenUsers;
use self::state::{State, StateError};
use self::users::{UserHash, UserKey, UserTable};

pub use self::refusal::{EventCounters, Refusal};
pub use self::shard::EventShard;
pub use self::stats::Stats;

/// What the events may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsConfig {
    /// Cores that count, at most [`sum::MERGE_MAX`].
    pub cores: usize,
    /// Different users that can be counted. Each takes 24 bytes, twice that with `reset_allowed` or `newcomers_max`.
    pub users_max: usize,
    /// Users that each core keeps in its own cache, at most. Each takes 32 to 64 bytes per core.
    pub users_seen_max: usize,
    /// Longest user ID, in bytes of UTF-8.
    pub user_id_bytes_max: usize,
    /// Whether clients may reset.
    pub reset_allowed: bool,
    /// New users of each core that may wait to be published; 0: nobody publishes them. Each takes 24 bytes.
    pub newcomers_max: usize,
    /// Whether there is one more [`EventShard`], behind those of the cores, for events that an earlier process passes on.
    pub relays: bool,
}

impl EventsConfig {
    /// What fits the challenge, and ten times as many users.
    pub fn new(cores: usize) -> Self {
        EventsConfig {
            cores,
            users_max: 1_000_000,
            users_seen_max: 100_000,
            user_id_bytes_max: 256,
            reset_allowed: false,
            newcomers_max: 0,
            relays: false,
        }
    }

    fn users_seen(&self) -> usize {
        self.users_seen_max.min(self.users_max)
    }

    fn shards(&self) -> usize {
        self.cores + usize::from(self.relays)
    }

    fn tables(&self) -> usize {
        if self.is_resettable() { 2 } else { 1 }
    }

    /// Whoever publishes may have to follow a reset of the fleet.
    fn is_resettable(&self) -> bool {
        self.reset_allowed || self.newcomers_max > 0
    }
}

/// What all cores counted. Each core writes through an [`EventShard`] of its own.
#[derive(Debug)]
pub struct Events {
    config: EventsConfig,
    key: UserKey,
    counts: Counts,
    counters: Box<[Arc<EventCounters>]>,
    /// What the [`EventShard`]s of the cores that have none yet will take.
    seen: Box<[Mutex<Option<SeenUsers>>]>,
    /// Likewise, if somebody publishes users.
    senders: Mutex<Vec<Option<NewcomerSender>>>,
    /// What [`Events::newcomers`] will take.
    newcomers: Mutex<Option<Newcomers>>,
    /// The place in a fleet that a state was read with.
    membership: Option<Membership>,
    /// Who counts from here on.
    heir: OnceLock<Box<dyn Heir>>,
}

/// Another process that counts in this one's place.
pub trait Heir: std::fmt::Debug + Send + Sync {
    /// Counts an event, before this returns.
    ///
    /// # Errors
    ///
    /// If it cannot.
    fn count(&self, user: UserHash, value: f64) -> Result<(), Refusal>;

    /// What it has counted; `None` if it does not answer.
    fn stats(&self) -> Option<Stats>;

    /// Begins anew, or says why not; `None` if it does not answer.
    fn reset(&self) -> Option<Reset>;
}

/// What comes of a client's wish to begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reset {
    /// It is done.
    Done,
    /// The whole fleet does, soon.
    OfFleet,
    /// It is not allowed.
    NotAllowed,
}

/// Why the events cannot be counted as asked.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// No core, or more than sums can be merged of.
    #[error("{0} cores cannot count events: use 1 to {max}", max = sum::MERGE_MAX)]
    Cores(usize),
    /// The operating system has no room for the users' tables.
    #[error(
        "there is no memory for {0} users: lower --users-max (24 bytes each) or --users-seen-max"
    )]
    Users(usize),
    /// The counts to go on with have more users than may be counted.
    #[error(
        "there are {saved} users already, more than --users-max {users_max}: raise it to at least that"
    )]
    UsersSaved {
        /// Users of the saved counts.
        saved: usize,
        /// Users that may be counted.
        users_max: usize,
    },
    /// The counts to go on with cannot be.
    #[error(transparent)]
    State(#[from] StateError),
    /// The operating system gave no random numbers.
    #[error("no random key for hashing users: the operating system gave none")]
    Random(#[source] getrandom::Error),
}

/// Why a reset was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResetError {
    /// [`EventsConfig::reset_allowed`] is false, and nobody publishes.
    #[error("resetting is not allowed: start with --allow-reset")]
    NotAllowed,
}

impl Events {
    /// Takes all that events will ever take: as address space, of which the kernel provides the pages
    /// when users come (see [`barewire_memory::Zeroed`]).
    ///
    /// # Errors
    ///
    /// If the configuration cannot be had.
    pub fn new(config: EventsConfig) -> Result<Arc<Self>, EventsError> {
        let key = UserKey::random().map_err(EventsError::Random)?;
        Events::with_key(config, key).map(Arc::new)
    }

    /// Goes on with what [`Events::save`] gave, whatever the configuration was then.
    ///
    /// # Errors
    ///
    /// If the configuration cannot be had, has no room for the users, or the state contradicts itself.
    pub fn restore(config: EventsConfig, state: State) -> Result<Arc<Self>, EventsError> {
        let (saved, users_max) = (state.users.len(), config.users_max);
        if saved > users_max {
            return Err(EventsError::UsersSaved { saved, users_max });
        }
        let mut events = Events::with_key(config, state.key)?;
        events
            .counts
            .restore(state.totals, &state.users)
            .map_err(|_| StateError::Contradiction)?;
        events.membership = state.membership;
        Ok(Arc::new(events))
    }

    /// The same as [`Events::new`], where the key is not for this process to choose.
    ///
    /// # Errors
    ///
    /// If the configuration cannot be had.
    pub fn with_key(config: EventsConfig, key: UserKey) -> Result<Self, EventsError> {
        if !(1..=sum::MERGE_MAX).contains(&config.shards()) {
            return Err(EventsError::Cores(config.cores));
        }
        let out_of_memory = |_: OutOfMemory| EventsError::Users(config.users_max);
        let counts = Counts::new(config.shards(), config.users_max, config.is_resettable());
        let (senders, newcomers) = Newcomers::new(config.shards(), config.newcomers_max);
        let seen = (0..config.shards())
            .map(|_| Ok(Mutex::new(Some(SeenUsers::new(config.users_seen())?))))
            .collect::<Result<_, _>>();
        Ok(Events {
            config,
            key,
            counts: counts.map_err(out_of_memory)?,
            counters: (0..config.cores).map(|_| Arc::default()).collect(),
            seen: seen.map_err(out_of_memory)?,
            senders: Mutex::new(senders.into_iter().map(Some).collect()),
            newcomers: Mutex::new(Some(newcomers)),
            membership: None,
            heir: OnceLock::new(),
        })
    }

    /// Goes on with `state` instead of what [`Events::restore`] began with: that had a part of its users. Nothing may have
    /// been counted yet.
    ///
    /// # Errors
    ///
    /// If it has not all of those users, or there is no room for the others.
    pub fn replace(&self, state: &State) -> Result<(), EventsError> {
        let (saved, users_max) = (state.users.len(), self.config.users_max);
        if saved > users_max {
            return Err(EventsError::UsersSaved { saved, users_max });
        }
        if state.key != self.key {
            return Err(StateError::Contradiction.into());
        }
        let replaced = self.counts.replace(&state.totals, &state.users);
        replaced.map_err(|_| StateError::Contradiction.into())
    }

    /// Users that were counted so far, or most of them, as a state that [`Events::restore`] takes.
    pub fn users_so_far(&self) -> State {
        let users = self.counts.users();
        let totals = Totals {
            events: users.len() as u64,
            users: users.len() as u64,
            ..Totals::ZERO
        };
        State {
            key: self.key,
            totals,
            users,
            membership: self.membership.clone(),
        }
    }

    /// Lets another process count from here on. No core may be counting.
    pub fn hand_over(&self, heir: Box<dyn Heir>) {
        // There is one hand-over in the life of a process.
        let _ = self.heir.set(heir);
    }

    /// Who counts in our place, if somebody does.
    #[inline]
    pub fn heir(&self) -> Option<&dyn Heir> {
        self.heir.get().map(|heir| &**heir)
    }

    /// The writing end of `core`, counted from zero.
    ///
    /// # Panics
    ///
    /// If there is no such core, or if its shard was taken already: a second writer would lose counts.
    pub fn shard(self: &Arc<Self>, core: usize) -> EventShard {
        let mut seen = self.seen[core]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let seen = seen.take();
        let seen = seen.unwrap_or_else(|| panic!("core {core} has its event shard already"));
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let newcomers = senders[core]
            .take()
            .filter(|_| self.config.newcomers_max > 0);
        let mut shard = EventShard::new(Arc::clone(self), core, seen, newcomers);
        if core < self.config.cores {
            shard.meet_restored();
        }
        shard
    }

    /// The reading end of the queues of new users; `None` from the second call on.
    pub fn newcomers(&self) -> Option<Newcomers> {
        let mut newcomers = self
            .newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        newcomers.take()
    }

    /// What [`Events::stats`] is made of, and the number of resets before.
    pub fn totals(&self) -> (u64, Totals) {
        self.counts.totals_of_generation()
    }

    /// See [`Counts::users_from`].
    pub fn users_from(
        &self,
        generation: u64,
        from: usize,
        count: usize,
    ) -> (Vec<UserHash>, Option<usize>) {
        self.counts.users_from(generation, from, count)
    }

    /// What all cores counted since the last reset: O(cores), and stops none of them.
    pub fn stats(&self) -> Stats {
        self.counts.totals().into()
    }

    /// Begins anew on all cores, without stopping any.
    ///
    /// Events whose reply was written before the reset was asked for are forgotten, events that are
    /// sent after its reply are counted, and each in between is wholly on one side. Takes as long as
    /// clearing the users' table, about 3 ms for a million users; a second reset waits for the first.
    ///
    /// # Errors
    ///
    /// If it is not allowed.
    pub fn reset(&self) -> Result<(), ResetError> {
        self.counts.reset().map_err(|_| ResetError::NotAllowed)
    }

    /// Begins anew because a client asks for it.
    ///
    /// # Errors
    ///
    /// If that is not allowed.
    pub fn reset_by_request(&self) -> Result<(), ResetError> {
        if !self.config.reset_allowed {
            return Err(ResetError::NotAllowed);
        }
        self.reset()
    }

    /// Whether clients may reset.
    pub fn reset_allowed(&self) -> bool {
        self.config.reset_allowed
    }

    /// Everything that was counted, to go on with it in another process.
    ///
    /// Meant for when the cores have ended. While they count, it may be `None`, and has everything
    /// that was counted before the call.
    pub fn save(&self) -> Option<State> {
        let (totals, users) = self.counts.snapshot()?;
        Some(State {
            key: self.key,
            totals,
            users,
            membership: self.membership.clone(),
        })
    }

    /// What each core did with the events it got.
    pub fn counters(&self) -> &[Arc<EventCounters>] {
        &self.counters
    }

    /// Bytes that are taken at most, once there are as many users as can be counted.
    pub fn memory_bytes(&self) -> usize {
        let config = &self.config;
        let table = UserTable::bytes(config.users_max);
        let per_core = size_of::<Ledger>()
            + size_of::<EventCounters>()
            + SeenUsers::bytes(config.users_seen())
            + config.user_id_bytes_max
            + config.newcomers_max * size_of::<(u64, UserHash)>();
        (table.saturating_mul(config.tables())).saturating_add(config.shards() * per_core)
    }
}
