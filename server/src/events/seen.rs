//! The users that one core has met: a cache in front of the shared table.
//!
//! The shared table is as large as the bound on users says and lies in one node's memory; this one
//! is small, dense and local, and spares the events of returning users any access to shared memory.
//! It holds full hashes, so a hit is as exact as one in the shared table, and it may forget: a user
//! who was pushed out is found in the shared table again.

use barewire_memory::OutOfMemory;
use barewire_memory::Zeroed;
use zerocopy::FromZeros;

use super::users::UserHash;

const WAYS: usize = 4;

/// One cache line: users whose hashes select it, in no particular order.
#[derive(Debug, Clone, Copy, FromZeros)]
#[repr(align(64))]
struct Set([UserHash; WAYS]);

/// A four-way set-associative cache of [`UserHash`]es.
#[derive(Debug)]
pub struct SeenUsers {
    sets: Zeroed<Set>,
    mask: u64,
    /// Which way the next newcomer takes.
    victim: usize,
}

/// No user has this hash.
const FREE: UserHash = UserHash { high: 0, low: 0 };

impl SeenUsers {
    /// A cache that keeps practically all of `users` users: twice as many places, so that few sets
    /// are chosen by more users than they have ways.
    ///
    /// Takes its address space; memory is provided near the core that first writes to it.
    ///
    /// # Errors
    ///
    /// If the kernel does not grant that much.
    pub fn new(users: usize) -> Result<Self, OutOfMemory> {
        let count = Self::sets(users);
        Ok(SeenUsers {
            sets: Zeroed::new(count)?,
            mask: count as u64 - 1,
            victim: 0,
        })
    }

    /// Bytes that such a cache takes.
    pub fn bytes(users: usize) -> usize {
        Self::sets(users).saturating_mul(size_of::<Set>())
    }

    fn sets(users: usize) -> usize {
        (users.saturating_mul(2) / WAYS).max(1).next_power_of_two()
    }

    /// Whether the user is remembered.
    #[inline]
    pub fn contains(&self, user: UserHash) -> bool {
        self.sets[self.set(user)].0.contains(&user)
    }

    /// Remembers a user who is not, in place of another if need be.
    #[inline]
    pub fn insert(&mut self, user: UserHash) {
        let index = self.set(user);
        let set = &mut self.sets[index].0;
        let way = set.iter().position(|&way| way == FREE).unwrap_or_else(|| {
            self.victim = (self.victim + 1) % WAYS;
            self.victim
        });
        set[way] = user;
    }

    /// Forgets all users.
    pub fn clear(&mut self) {
        // A page that is only read is not provided.
        for user in self.sets.iter_mut().flat_map(|set| &mut set.0) {
            if *user != FREE {
                *user = FREE;
            }
        }
    }

    #[inline]
    fn set(&self, user: UserHash) -> usize {
        (user.low & self.mask) as usize
    }
}
