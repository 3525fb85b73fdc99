//! From a flow key to a connection index, at a cost that does not depend on how many there are.
//!
//! Open addressing with linear probing. An entry is 8 bytes, a tag of the hash and the index, so
//! that eight of them share a cache line and a probe rarely leaves the first one; the key itself
//! stays with the connection, whose line is needed anyway. At most half of the entries are in use.
//!
//! ```text
//!   hash ──▶ low bits ──▶ ┌─────────────┬─────────────┬─────────────┬───────┐
//!                         │ tag   index │ tag   index │ tag   index │ empty │ ──▶ unknown flow
//!                         └─────────────┴──────┬──────┴─────────────┴───────┘
//!                       tags equal, and the connection says that the key is its own
//! ```
//!
//! The hash is keyed (SipHash-1-3): a peer chooses its port and often its address, and must not be
//! able to choose in which entry it lands. Deletion shifts the entries behind it back, so there are
//! no tombstones, and the cost after a million connections is the cost after one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use siphasher::sip::SipHasher13;
use thiserror::Error;
use zerocopy::FromZeros;

use crate::packet::FlowKey;
use barewire_memory::OutOfMemory;
use barewire_memory::Zeroed;
use barewire_memory::prefetch;

/// A bounded table from flows to connection indices. Takes its address space when it is made, and memory as it is used.
#[derive(Debug)]
pub struct FlowTable {
    entries: Zeroed<Entry>,
    mask: u32,
    len: usize,
    capacity: usize,
    hasher: SipHasher13,
    /// What this table and the others have in common.
    live: Option<(Arc<LiveFlows>, u8)>,
}

/// The keyed hash of a [`FlowKey`], as one table computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowHash(u32);

impl FlowHash {
    /// The hash of something else than a flow, for a table of such.
    pub(crate) fn of_bytes(hasher: &SipHasher13, bytes: &[u8]) -> FlowHash {
        FlowHash(hasher.hash(bytes) as u32)
    }
}

/// The table holds as many flows as it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the flow table is full")]
pub struct FlowTableFull;

/// The tag is all of the hash, so that it also says where the entry belongs.
#[derive(Debug, Clone, Copy, FromZeros)]
#[repr(C, align(8))]
struct Entry {
    tag: u32,
    /// The index plus one; zero if the entry is empty.
    place: u32,
}

const EMPTY: Entry = Entry { tag: 0, place: 0 };

impl FlowTable {
    /// How many flows a table can be made for.
    pub const CAPACITY_MAX: usize = 1 << 30;

    /// A table for at most `capacity` flows, hashed with `key`, which must be random and secret.
    ///
    /// It takes 16 to 32 bytes per flow.
    ///
    /// # Errors
    ///
    /// If there is not that much address space.
    ///
    /// # Panics
    ///
    /// If `capacity` is more than [`FlowTable::CAPACITY_MAX`].
    pub fn new(capacity: usize, key: [u64; 2]) -> Result<FlowTable, OutOfMemory> {
        assert!(capacity <= Self::CAPACITY_MAX, "flow table too large");
        let entries = (capacity * 2).next_power_of_two().max(8);
        Ok(FlowTable {
            entries: Zeroed::new(entries)?,
            mask: (entries - 1) as u32,
            len: 0,
            capacity,
            hasher: SipHasher13::new_with_keys(key[0], key[1]),
            live: None,
        })
    }

    /// Makes an empty table number `number` of those whose flows `live` knows. All of them have the same key.
    pub fn share(&mut self, live: Arc<LiveFlows>, number: usize) {
        debug_assert!(self.is_empty());
        self.live = Some((live, number as u8));
    }

    /// In which tables, by their numbers modulo 256, a flow with this hash may be, which is not in this one; `None`
    /// if it is in none that shares [`LiveFlows`] with it.
    pub fn elsewhere(&self, hash: FlowHash) -> Option<[u8; 2]> {
        self.live.as_ref()?.0.owners_of(hash)
    }

    /// The hash of `key` that all other methods want.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        FlowHash(self.hasher.hash(&key.to_bytes()) as u32)
    }

    /// Asks for the memory that [`FlowTable::get`] will look at first.
    #[inline]
    pub fn prefetch(&self, hash: FlowHash) {
        prefetch(&self.entries[self.home(hash.0)]);
    }

    /// The index that was inserted with `hash` and of which `is_match` says that it is the one.
    ///
    /// `is_match` is asked only for indices whose hash is the same, which is nearly always the
    /// right one.
    #[inline]
    pub fn get(&self, hash: FlowHash, mut is_match: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash.0);
        loop {
            let entry = self.entries[at];
            let index = entry.place.checked_sub(1)?;
            if entry.tag == hash.0 && is_match(index) {
                return Some(index);
            }
            at = self.after(at);
        }
    }

    /// Adds `index`, which must not be in the table yet and not be `u32::MAX`.
    ///
    /// # Errors
    ///
    /// If the table holds as many flows as it was made for.
    #[inline]
    pub fn insert(&mut self, hash: FlowHash, index: u32) -> Result<(), FlowTableFull> {
        debug_assert_ne!(index, u32::MAX);
        if self.len == self.capacity {
            return Err(FlowTableFull);
        }
        let mut at = self.home(hash.0);
        while self.entries[at].place != EMPTY.place {
            at = self.after(at);
        }
        self.entries[at] = Entry {
            tag: hash.0,
            place: index + 1,
        };
        self.len += 1;
        if let Some((live, number)) = &self.live {
            live.add(hash, *number);
        }
        Ok(())
    }

    /// Removes `index`, which was inserted with `hash`. Returns false if it is not there.
    #[inline]
    pub fn remove(&mut self, hash: FlowHash, index: u32) -> bool {
        let mut at = self.home(hash.0);
        while self.entries[at].place != index.wrapping_add(1) {
            if self.entries[at].place == EMPTY.place {
                return false;
            }
            at = self.after(at);
        }
        self.close_gap(at);
        self.len -= 1;
        if let Some((live, _)) = &self.live {
            live.remove(hash);
        }
        true
    }

    /// Number of flows in the table.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the table holds no flow.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many flows the table was made for.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of memory that a table for `capacity` flows takes.
    pub fn memory_bytes(capacity: usize) -> usize {
        (capacity * 2).next_power_of_two().max(8) * size_of::<Entry>()
    }

    /// Moves every entry behind `gap` that was displaced across it one gap closer to its home.
    fn close_gap(&mut self, mut gap: usize) {
        let mut at = self.after(gap);
        while self.entries[at].place != EMPTY.place {
            let displacement = self.distance(self.home(self.entries[at].tag), at);
            if displacement >= self.distance(gap, at) {
                self.entries[gap] = self.entries[at];
                gap = at;
            }
            at = self.after(at);
        }
        self.entries[gap] = EMPTY;
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        (tag & self.mask) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & self.mask as usize
    }

    /// How many steps lead from `from` to `to`.
    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask as usize
    }
}

/// Which flows are in any of several tables: a Bloom filter that counts, so that flows can leave it.
///
/// A segment of a flow that is in none of them belongs to a connection that no longer exists, and is answered with an
/// RST by the core at which it arrives. One whose flow only seems to be in another table (one of seven if all tables are
/// full, one of 300 if they are an eighth full) is not answered.
///
/// A flow takes two counters, which never overflow: their mean is at most a half, and an attacker without the key cannot
/// choose them. Beside each counter is the number of the table that last took it. If the flow is in another one, then
/// another flow has taken both since, which is as rare.
#[derive(Debug)]
pub struct LiveFlows {
    counts: Zeroed<AtomicU8>,
    owners: Zeroed<AtomicU8>,
    mask: u32,
}

impl LiveFlows {
    /// For so many flows in all tables together; it takes 8 to 16 bytes for each, as they come.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub fn new(flows: usize) -> Result<LiveFlows, OutOfMemory> {
        let counts = (flows * 4).next_power_of_two().clamp(1 << 12, 1 << 32);
        Ok(LiveFlows {
            counts: Zeroed::new(counts)?,
            owners: Zeroed::new(counts)?,
            mask: (counts - 1) as u32,
        })
    }

    fn add(&self, hash: FlowHash, owner: u8) {
        for at in self.places_of(hash) {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
            self.owners[at].store(owner, Ordering::Relaxed);
        }
    }

    fn remove(&self, hash: FlowHash) {
        for at in self.places_of(hash) {
            self.counts[at].fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn owners_of(&self, hash: FlowHash) -> Option<[u8; 2]> {
        let places = self.places_of(hash);
        let is_live = places
            .iter()
            .all(|&at| self.counts[at].load(Ordering::Relaxed) > 0);
        is_live.then(|| places.map(|at| self.owners[at].load(Ordering::Relaxed)))
    }

    fn places_of(&self, FlowHash(hash): FlowHash) -> [usize; 2] {
        // The second is as far from the first as another hash of the same bits.
        let other = hash.wrapping_mul(0x9e37_79b1) ^ hash.rotate_left(16);
        [hash, other].map(|at| (at & self.mask) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_one_table_the_others_know() {
        let live = Arc::new(LiveFlows::new(20_000).unwrap());
        let [mut one, mut other] = [0, 1].map(|_| FlowTable::new(10_000, [1, 2]).unwrap());
        one.share(Arc::clone(&live), 0);
        other.share(live, 1);
        let hash = |port: u16| one_hash(port);
        for port in 0..10_000 {
            one.insert(hash(port), port.into()).unwrap();
        }
        assert!((0..10_000).all(|port| other.elsewhere(hash(port)) == Some([0, 0])));
        let strangers = 20_000..50_000;
        let mistaken = strangers.filter(|&port| other.elsewhere(hash(port)).is_some());
        assert!(mistaken.count() < 30_000 / 10);
        for port in 0..10_000 {
            assert!(one.remove(hash(port), port.into()));
        }
        assert!((0..50_000).all(|port| other.elsewhere(hash(port)).is_none()));
    }

    fn one_hash(port: u16) -> FlowHash {
        let key = FlowKey::new([10, 0, 0, 1].into(), port, 0, 80);
        FlowTable::new(0, [1, 2]).unwrap().hash(&key)
    }
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn flow(port: u16) -> FlowKey {
        FlowKey::new(Ipv4Addr::new(10, 77, 0, 1).into(), port, 0, 8080)
    }

    proptest! {
        /// Few distinct hashes, so that runs are long, wrap around the end and overlap.
        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec((any::<bool>(), 0u32..24, 0u32..16), 0..400)
        ) {
            let mut table = FlowTable::new(24, [1, 2]).unwrap();
            let mut model: HashMap<u32, FlowHash> = HashMap::new();
            for (insert, index, hash) in steps {
                let hash = FlowHash(hash | 0xffff_fff0);
                match model.get(&index).copied() {
                    None if insert => {
                        table.insert(hash, index).unwrap();
                        model.insert(index, hash);
                    }
                    Some(hash) if !insert => {
                        prop_assert!(table.remove(hash, index));
                        model.remove(&index);
                    }
                    Some(_) => {}
                    None => prop_assert!(!table.remove(hash, index)),
                }
                prop_assert_eq!(table.len(), model.len());
                for index in 0..24 {
                    for hash in (0..16).map(|low| FlowHash(low | 0xffff_fff0)) {
                        let found = table.get(hash, |candidate| candidate == index);
                        let expected = (model.get(&index) == Some(&hash)).then_some(index);
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn refuses_more_flows_than_it_was_made_for() {
        let mut table = FlowTable::new(100, [3, 4]).unwrap();
        for index in 0..100 {
            let hash = table.hash(&flow(index as u16));
            assert_eq!(table.insert(hash, index), Ok(()));
        }
        let hash = table.hash(&flow(100));
        assert_eq!(table.insert(hash, 100), Err(FlowTableFull));
        assert_eq!(table.get(hash, |index| index == 100), None);

        assert!(table.remove(table.hash(&flow(17)), 17));
        assert_eq!(table.insert(hash, 100), Ok(()));
    }

    #[test]
    fn tells_flows_with_the_same_hash_apart() {
        let mut table = FlowTable::new(2, [0, 0]).unwrap();
        let hash = FlowHash(7);
        table.insert(hash, 0).unwrap();
        table.insert(hash, 1).unwrap();
        assert_eq!(table.get(hash, |index| index == 1), Some(1));
        assert_eq!(table.get(hash, |_| false), None);
    }

    #[test]
    fn the_hash_depends_on_the_key() {
        let [one, two] = [1, 2].map(|key| FlowTable::new(8, [1, key]).unwrap());
        let same = (0..64)
            .filter(|&port| one.hash(&flow(port)) == two.hash(&flow(port)))
            .count();
        assert_eq!(same, 0);
    }

    #[test]
    fn a_table_without_room_finds_nothing() {
        let mut table = FlowTable::new(0, [0, 0]).unwrap();
        assert_eq!(table.get(FlowHash(3), |_| true), None);
        assert_eq!(table.insert(FlowHash(3), 0), Err(FlowTableFull));
    }
}
