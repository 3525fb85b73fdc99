//! A cache of responses, for one core (RFC 9111: a shared cache).
//!
//! ```text
//!                       ┌─ fresh ─────────────────────────▶ answered from the store: no origin, no allocation
//!   GET ─ Key ─ Store ──┼─ stale ─┐
//!                       └─ none ──┴─ no flight ─▶ leads one: a call ─▶ policy::judge ─▶ stored ──┐
//!                                    a flight  ─▶ follows it ◀───────────────────────────────────┤
//!                                                   └─▶ a call of its own ◀───────── not storable┘
//! ```
//!
//! What may be stored and used is decided in [`policy`], a module of functions that know nothing but what was said, and
//! the time. [`serve`] asks the cache for a request, [`fetch`] takes what comes of an origin, and [`flight`] lets requests
//! wait for what another one has asked for.
//!
//! A response that is being stored stays in the buffer of its call from its first byte on, and is read from its origin
//! whether its client takes it or not; those that follow it get it when it is complete. So a client that does not read,
//! or goes away, holds back nobody. A response that is too long for that (`object_bytes_max`) is from there on one that
//! is not stored.
//!
//! Evicted responses whose clients have not taken all of them live on until they have: at most `calls_max` of
//! `object_bytes_max`.

mod conditions;
mod directives;
mod fetch;
mod fields;
mod flight;
mod key;
mod policy;
mod serve;
mod status;
mod store;
mod vary;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

pub use self::key::Purge;
use self::key::{AsIs, Secret, Wanted};
use self::policy::{Asked, Freshness, Unstorable};
pub use self::serve::Said;
use self::status::Why;
use self::store::Store;
pub use self::store::Stored;
use crate::config::CacheConfig;
use crate::counters::CacheCounters;

/// The cache of a core.
#[derive(Debug)]
pub struct Cache {
    config: CacheConfig,
    pub counters: Arc<CacheCounters>,
    store: Store,
    secret: Secret,
    /// Calls that others follow, by the hash of what they fetch.
    flights: HashMap<u64, usize, AsIs>,
    /// Calls whose responses will be stored if they can be.
    fills: Slab<usize>,
    unstorable: Recent,
    /// Of calls that are over.
    #[expect(clippy::vec_box, reason = "they move between calls as they are")]
    spare: Vec<Box<Fetch>>,
    /// Calls without clients that are over, or that nobody needs any more.
    over: Vec<usize>,
    /// The key of the request that is being looked up.
    key: Vec<u8>,
}

/// What a call to an origin does for the cache.
#[derive(Debug, Default)]
pub struct Fetch {
    role: Role,
    key: Vec<u8>,
    hash: u64,
    /// Of the key and of what selects the variant.
    flight: u64,
    asked: Asked,
    why: Why,
    /// The client's conditions, as field lines, where the request goes without them.
    conditions: Vec<u8>,
    /// The stored response that is validated, and may be used if the origin fails.
    stale: Option<Rc<Stored>>,
    /// The request has the conditions of that.
    validates: bool,
    /// Calls that wait for this one.
    followers: Vec<usize>,
    /// Its place among those that fill the cache.
    fill: Option<usize>,
    /// The resource has changed since it was asked for.
    is_void: bool,
    /// Of the response that is being stored.
    freshness: Option<Freshness>,
    /// Length of the field lines that are the origin's.
    lines_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    /// Its response is not stored.
    #[default]
    Passes,
    /// Its success removes what is stored.
    Invalidates,
    /// Its response may be stored; whether it leads or follows is not decided.
    Begins,
    /// Others may wait for it.
    Leads,
    /// It waits for this call.
    Follows(usize),
    /// Its response may be stored, and nobody waits for it.
    Fills,
}

impl Cache {
    pub fn new(config: CacheConfig, seed: u64) -> Box<Self> {
        Box::new(Cache {
            store: Store::new(&config),
            config,
            counters: Arc::default(),
            secret: Secret(seed, seed.rotate_left(32) ^ 0x6361_6368_6521_2121),
            flights: HashMap::default(),
            fills: Slab::new(),
            unstorable: Recent::new(),
            spare: Vec::new(),
            over: Vec::new(),
            key: Vec::with_capacity(2048),
        })
    }

    /// Counts in `counters` from here on.
    pub fn count_in(&mut self, counters: Arc<CacheCounters>) {
        counters.bytes_max.set(self.config.bytes_max);
        counters.entries_max.set(self.config.entries_max as u64);
        self.counters = counters;
    }

    /// Goes on with other limits, empty unless they are the same.
    pub fn reconfigure(&mut self, config: CacheConfig) {
        if config != self.config {
            self.config = config;
            self.store = Store::new(&config);
            self.count_in(Arc::clone(&self.counters));
            self.publish();
        }
    }

    /// Removes what `purge` means, also of what is on its way. Returns how many responses were removed.
    pub fn purge(&mut self, purge: &Purge) -> usize {
        let removed = self.store.remove_all(|key| purge.means(key));
        self.counters.purged.add(removed as u64);
        self.publish();
        removed
    }

    fn publish(&mut self) {
        let (entries, bytes) = self.store.size();
        self.counters.entries.set(entries as u64);
        self.counters.bytes.set(bytes);
        self.counters.evicted.add(self.store.take_evicted());
    }

    fn count_unstorable(&self, why: Unstorable) {
        let counters = &self.counters;
        match why {
            Unstorable::Status => &counters.unstorable_status,
            Unstorable::NoStore => &counters.unstorable_no_store,
            Unstorable::Private => &counters.unstorable_private,
            Unstorable::Authorization => &counters.unstorable_authorization,
            Unstorable::SetCookie => &counters.unstorable_set_cookie,
            Unstorable::Vary => &counters.unstorable_vary,
            Unstorable::Useless => &counters.unstorable_useless,
        }
        .increment();
    }
}

impl Fetch {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            hash: self.hash,
            text: &self.key,
        }
    }

    /// As a new one, with the allocations of this one.
    fn clear(&mut self) {
        let (mut key, mut conditions) = (
            std::mem::take(&mut self.key),
            std::mem::take(&mut self.conditions),
        );
        let mut followers = std::mem::take(&mut self.followers);
        key.clear();
        conditions.clear();
        followers.clear();
        *self = Fetch {
            key,
            conditions,
            followers,
            ..Fetch::default()
        };
    }
}

/// Resources whose responses could not be stored lately: their requests do not wait for each other. One that is displaced
/// by another only costs that once.
#[derive(Debug)]
struct Recent(Box<[(u64, u64)]>);

impl Recent {
    const SLOTS: usize = 1024;
    const SPAN_NS: u64 = 10_000_000_000;

    fn new() -> Self {
        Recent(vec![(0, 0); Self::SLOTS].into())
    }

    fn add(&mut self, hash: u64, now_ns: u64) {
        self.0[hash as usize % Self::SLOTS] = (hash, now_ns + Self::SPAN_NS);
    }

    fn has(&self, hash: u64, now_ns: u64) -> bool {
        let (known, until_ns) = self.0[hash as usize % Self::SLOTS];
        known == hash && now_ns < until_ns
    }
}
