//! Stored responses, bounded in bytes and in number.
//!
//! A resource has one stored response for each way in which its requests differ (`Vary`), the newest last. What is not
//! used again is evicted first (quick_cache: CLOCK-Pro, with keys of what was evicted lately), so that one pass over many
//! resources does not remove those that are asked for all the time.
//!
//! Each response weighs its bytes, but at least `bytes_max / entries_max`: so the sum of the weights bounds both.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use barewire_http::received::ResponseHead;
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::conditions::Validators;
use super::fields::fields;
use super::key::{AsIs, Key, Wanted};
use super::policy::Freshness;
use super::vary;
use crate::config::CacheConfig;

/// What a stored response takes beside its bytes: this structure, its allocations, its place in the table.
const OVERHEAD_BYTES: usize = 320;

/// A response that can be used again.
#[derive(Debug)]
pub struct Stored {
    pub head: ResponseHead,
    /// Its field lines, with `Date`, without `Age`.
    pub lines: Box<[u8]>,
    pub body: Rc<[u8]>,
    pub freshness: Freshness,
    /// Names of the fields by which it was selected, and what they said, as [`vary`] writes them.
    pub vary: Box<[u8]>,
    pub selecting: Box<[u8]>,
}

impl Stored {
    pub fn validators(&self) -> Validators<'_> {
        Validators::of(fields(&self.lines))
    }

    fn bytes(&self) -> usize {
        let names = self.vary.len() + self.selecting.len();
        OVERHEAD_BYTES + self.lines.len() + self.body.len() + names
    }
}

/// The stored responses of a resource.
#[derive(Debug, Default)]
struct Variants(Vec<Rc<Stored>>);

/// The stored responses of a core.
pub struct Store {
    cache: Cache<Key, Variants, Weight, AsIs, Evictions>,
    weight: Weight,
    evictions: Evictions,
    variants_max: usize,
    bytes_max: u64,
    /// Where the fields of a request are put together.
    selecting: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Weight {
    least: u64,
}

impl Weight {
    fn of(&self, stored: &Stored) -> u64 {
        self.least.max(stored.bytes() as u64)
    }
}

impl Weighter<Key, Variants> for Weight {
    fn weight(&self, key: &Key, variants: &Variants) -> u64 {
        let first = variants.0.first().map_or(0, |stored| stored.bytes());
        let first = self.least.max((first + key.text.len()) as u64);
        let others = variants.0.iter().skip(1).map(|stored| self.of(stored));
        first + others.sum::<u64>()
    }
}

/// Counts the responses that were evicted.
#[derive(Debug, Clone, Default)]
struct Evictions(Rc<Cell<u64>>);

impl Lifecycle<Key, Variants> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Key, variants: Variants) {
        self.0.set(self.0.get() + variants.0.len() as u64);
    }
}

impl Store {
    /// An empty one. Its table is allocated here, responses when they are stored.
    pub fn new(config: &CacheConfig) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(config.entries_max)
            .weight_capacity(config.bytes_max)
            .build();
        let options = options.expect("both are given");
        let weight = Weight {
            least: (config.bytes_max / config.entries_max.max(1) as u64).max(1),
        };
        let evictions = Evictions::default();
        let (weighter, lifecycle) = (weight.clone(), evictions.clone());
        Store {
            cache: Cache::with_options(options, weighter, AsIs::default(), lifecycle),
            weight,
            evictions,
            variants_max: config.variants_max,
            bytes_max: config.bytes_max,
            selecting: Vec::with_capacity(1024),
        }
    }

    /// The response that was stored for a request like this one.
    pub fn get<'a, I>(&mut self, key: Wanted<'_>, request: impl Fn() -> I) -> Option<&Rc<Stored>>
    where
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let Store {
            cache, selecting, ..
        } = self;
        cache.get(&key)?.0.iter().rev().find(|stored| {
            if stored.vary.is_empty() {
                return true;
            }
            selecting.clear();
            vary::put_selecting(&stored.vary, &request, selecting);
            **selecting == *stored.selecting
        })
    }

    /// What the fields say by which responses of this resource are selected; nothing if it is not stored or has only one.
    pub fn selecting<'a, I>(&mut self, key: Wanted<'_>, request: impl Fn() -> I) -> &[u8]
    where
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        self.selecting.clear();
        if let Some(newest) = self.cache.peek(&key).and_then(|found| found.0.last()) {
            vary::put_selecting(&newest.vary, request, &mut self.selecting);
        }
        &self.selecting
    }

    pub fn has(&self, key: Wanted<'_>) -> bool {
        self.cache.contains_key(&key)
    }

    /// Stores a response in place of the one that was selected in the same way. Returns whether there is space for it.
    pub fn put(&mut self, key: Wanted<'_>, stored: Rc<Stored>) -> bool {
        let before = self.cache.peek(&key);
        let mut variants = before.map_or_else(Vec::new, |variants| variants.0.clone());
        variants
            .retain(|other| (&other.vary, &other.selecting) != (&stored.vary, &stored.selecting));
        variants.push(stored);
        // A resource takes at most half, and gives up its oldest responses for that.
        let sum = |of: &[Rc<Stored>]| of.iter().map(|each| self.weight.of(each)).sum::<u64>();
        let mut excess = variants.len().saturating_sub(self.variants_max);
        while excess < variants.len() && sum(&variants[excess..]) > self.bytes_max / 2 {
            excess += 1;
        }
        variants.drain(..excess);
        if variants.is_empty() {
            self.cache.remove(&key);
            return false;
        }
        let key = Key {
            hash: key.hash,
            text: key.text.into(),
        };
        self.cache.insert(key, Variants(variants));
        true
    }

    /// Removes a resource. Returns how many responses it had.
    pub fn remove(&mut self, key: Wanted<'_>) -> usize {
        let removed = self.cache.remove(&key);
        removed.map_or(0, |(_, variants)| variants.0.len())
    }

    /// Removes resources. Returns how many responses they had.
    pub fn remove_all(&mut self, is_meant: impl Fn(&[u8]) -> bool) -> usize {
        let removed = Cell::new(0);
        self.cache.retain(|key, variants| {
            let goes = is_meant(&key.text);
            if goes {
                removed.set(removed.get() + variants.0.len());
            }
            !goes
        });
        removed.get()
    }

    /// Resources that are stored, and what they weigh.
    pub fn size(&self) -> (usize, u64) {
        (self.cache.len(), self.cache.weight())
    }

    /// Responses that were evicted since this was last asked.
    pub fn take_evicted(&mut self) -> u64 {
        self.evictions.0.take()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, bytes) = self.size();
        formatter
            .debug_struct("Store")
            .field("entries", &entries)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}
