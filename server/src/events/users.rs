//! Which users were seen, exactly, by all cores together.
//!
//! A user is known by a 128-bit hash of the `userId`: SipHash-2-4 with a random key per process, so
//! that clients cannot choose colliding names. Among n users there are n²/2 pairs, each of which is taken
//! for one user with a chance of 2^-128: n²/2^129 in all, 1.5·10^-25 for ten million users. (Words
//! that are zero are replaced by one, which makes it more by one part in 2^62.)
//!
//! [`UserTable`] is one open-addressing array of such hashes, two words a slot, both zero when free.
//! Words are written once and never change until the whole table is cleared:
//!
//! ```text
//!   (0, 0) ── CAS high ──▶ (high, 0) ── CAS low ──▶ (high, low)
//!    free                  half taken               taken: this CAS is what counts the user
//! ```
//!
//! A core that finds a slot half taken by its own `high` does not wait for the other core: it puts
//! its own `low` there if it can. If both had the same user, one of them wins and it is counted
//! once; if they had not, the loser goes on to the next slot. A core passes a slot only when its
//! words are final and differ from what it brings, so no two slots can hold the same user.

use barewire_memory::OutOfMemory;
use siphasher::sip128::SipHasher24;
use zerocopy::FromZeros;

use super::sync::{AtomicU64, Ordering, PairTable};

/// The secret that turns users into hashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserKey {
    words: [u64; 2],
}

impl UserKey {
    /// A key from two secret random words.
    pub fn new(words: [u64; 2]) -> Self {
        UserKey { words }
    }

    /// A key that nobody knows.
    ///
    /// # Errors
    ///
    /// If the operating system gives no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let words = [getrandom::u64()?, getrandom::u64()?];
        Ok(UserKey { words })
    }

    /// The secret words, to make the same key again.
    pub fn words(&self) -> [u64; 2] {
        self.words
    }

    /// The hash of a user.
    #[inline]
    pub fn hash(&self, user_id: &[u8]) -> UserHash {
        let hasher = SipHasher24::new_with_keys(self.words[0], self.words[1]);
        let hash = hasher.hash(user_id);
        UserHash {
            high: hash.h1.max(1),
            low: hash.h2.max(1),
        }
    }
}

/// A user, as far as counting needs to know it. Neither word is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromZeros)]
#[repr(C, align(16))]
pub struct UserHash {
    /// The first word; it also says where the user's slots begin.
    pub high: u64,
    /// The second word.
    pub low: u64,
}

impl UserHash {
    /// Both words, little-endian, the first one first.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.low) << 64 | u128::from(self.high)).to_le_bytes()
    }

    /// What [`UserHash::to_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(bytes);
        UserHash {
            high: both as u64,
            low: (both >> 64) as u64,
        }
    }
}

/// What [`UserTable::offer`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// The user was unknown and is known from here on: the caller must count it.
    New,
    /// The user was known.
    Known,
    /// The user is unknown and there is no place left.
    Full,
}

/// The users known to all cores. Lock-free: no core ever waits for another.
#[derive(Debug)]
pub struct UserTable {
    /// In each the two words of a user.
    slots: PairTable,
    users_max: u64,
    /// Places taken or about to be. On a cache line pair of its own, since every new user changes it.
    taken: Aligned<AtomicU64>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Aligned<T>(T);

impl UserTable {
    /// A table for `users_max` users. Takes its address space; memory is provided as users come.
    ///
    /// # Errors
    ///
    /// If there is no memory for so many.
    pub fn new(users_max: usize) -> Result<Self, OutOfMemory> {
        Ok(UserTable {
            slots: PairTable::new(Self::slots(users_max))?,
            users_max: users_max as u64,
            taken: Aligned(AtomicU64::new(0)),
        })
    }

    /// Bytes that a table for `users_max` users takes: 24 for each user.
    pub fn bytes(users_max: usize) -> usize {
        Self::slots(users_max).saturating_mul(size_of::<[AtomicU64; 2]>())
    }

    /// Never more than two thirds full: even then, a known user is found in the second slot and an
    /// unknown one after five, on average.
    fn slots(users_max: usize) -> usize {
        users_max.saturating_add(users_max / 2).saturating_add(1)
    }

    /// Whether the user is known. Only reads.
    #[inline]
    pub fn contains(&self, user: UserHash) -> bool {
        for [high, low] in self.probe(user) {
            match high.load(Ordering::Relaxed) {
                0 => return false,
                // Acquire: a core that finds a user has seen what its first core did before counting it.
                high if high == user.high => match low.load(Ordering::Acquire) {
                    0 => return false,
                    low if low == user.low => return true,
                    _ => {}
                },
                _ => {}
            }
        }
        false
    }

    /// Makes the user known.
    ///
    /// The bound is never exceeded. At the bound, a new user can be refused although one place
    /// becomes free again: while two cores bring the same new user, they hold two places for it.
    pub fn offer(&self, user: UserHash) -> Offer {
        if !self.take_place() {
            // Another core may have made it known with the last place.
            return if self.contains(user) {
                Offer::Known
            } else {
                Offer::Full
            };
        }
        for [high, low] in self.probe(user) {
            let put = put_once(high, user.high);
            if put.is_err_and(|found| found != user.high) {
                continue;
            }
            match put_once(low, user.low) {
                Ok(()) => return Offer::New,
                Err(found) if found == user.low => {
                    self.give_place_back();
                    return Offer::Known;
                }
                Err(_) => {}
            }
        }
        unreachable!("more places than slots");
    }

    /// How many users are known, while none is being made known.
    pub fn known(&self) -> usize {
        self.taken.0.load(Ordering::Relaxed) as usize
    }

    /// All users that are known. A user that is being made known may be among them or not.
    pub fn users(&self) -> impl Iterator<Item = UserHash> {
        self.slots.iter().filter_map(user_in)
    }

    /// Up to `count` of them, from the slot `from` on, and the slot to go on with unless that was the last.
    pub fn users_from(&self, from: usize, count: usize) -> (Vec<UserHash>, Option<usize>) {
        let mut users = Vec::with_capacity(count);
        for (index, slot) in self.slots.iter().enumerate().skip(from) {
            if users.len() == count {
                return (users, Some(index));
            }
            users.extend(user_in(slot));
        }
        (users, None)
    }

    /// Forgets all users. The caller makes sure that no core is in [`UserTable::offer`].
    pub fn clear(&self) {
        for word in self.slots.as_flattened() {
            // A page that is only read is not provided.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
        self.taken.0.store(0, Ordering::Relaxed);
    }

    /// All slots, beginning with the one that the hash says.
    #[inline]
    fn probe(&self, user: UserHash) -> impl Iterator<Item = &[AtomicU64; 2]> {
        // Multiplication maps the hash to the range without a division (Lemire, 2019).
        let home = (u128::from(user.high) * self.slots.len() as u128) >> 64;
        let (before, after) = self.slots.split_at(home as usize);
        after.iter().chain(before)
    }

    fn take_place(&self) -> bool {
        let more = |taken| (taken < self.users_max).then_some(taken + 1);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        self.taken.0.fetch_update(success, failure, more).is_ok()
    }

    fn give_place_back(&self) {
        self.taken.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn user_in([high, low]: &[AtomicU64; 2]) -> Option<UserHash> {
    let user = UserHash {
        low: low.load(Ordering::Acquire),
        high: high.load(Ordering::Acquire),
    };
    (user.low != 0).then_some(user)
}

/// Writes a word that is still zero, or says what is there.
fn put_once(word: &AtomicU64, value: u64) -> Result<(), u64> {
    match word.load(Ordering::Acquire) {
        0 => word
            .compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire)
            .map(drop),
        found => Err(found),
    }
}

impl std::fmt::Debug for UserKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserKey(secret)")
    }
}
