//! The counts of all cores: who may write what, how they are added up, how they begin anew.
//!
//! ```text
//!   core 0 ──▶ ledger 0 ─┐                    each written by its core, read by all
//!   core 1 ──▶ ledger 1 ─┼──▶ totals()
//!   core n ──▶ ledger n ─┘
//!      └─ a user that this core has not met ──▶ users of this generation, shared
//! ```
//!
//! An event of a user that has not been counted yet is counted like this: the core opens a change of its
//! ledger, offers the user to the shared table, and counts event, value and user in the same change.
//! Another core that finds this user in the table may be done with its own event before that change
//! ends, but no reader can be done: it waits for the end of the change, which began before the user
//! was to be found. So a client that has the reply to an event finds its user in the totals.
//!
//! # Reset
//!
//! Counts belong to a *generation*. A reset clears the table of the next generation and then
//! increments the number; a core that notices, at its next event, empties its ledger and goes on in
//! the new generation; a reader ignores ledgers of earlier ones. The tables of two generations take
//! turns. To clear the one that is not in use, no core may still be about to put a user in it: that
//! happens only inside a change, after the core has made sure that the generation is still the one
//! it knows, so it suffices to wait for the end of each core's change, if it is in one.

use std::sync::OnceLock;

use barewire_memory::OutOfMemory;

use super::ledger::{Ledger, Totals};
use super::seen::SeenUsers;
use super::sync::{AtomicU64, Mutex, Ordering, PoisonError, fence};
use super::users::{Offer, UserHash, UserTable};

/// How often [`Counts::snapshot`] tries, if cores are counting meanwhile.
const SNAPSHOT_ATTEMPTS: u32 = 100;

/// What all cores counted.
#[derive(Debug)]
pub struct Counts {
    /// Number of resets so far.
    generation: AtomicU64,
    ledgers: Box<[Ledger]>,
    /// What an earlier process counted; part of the first generation.
    restored: Totals,
    /// Instead of `restored`, if it had more to say later.
    replaced: OnceLock<Totals>,
    /// The users of even and of odd generations; of all, if there is never a reset.
    tables: Box<[UserTable]>,
    resetting: Mutex<()>,
}

/// The user of an event is new and there is no place for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsersFull;

/// What is to be restored has a user twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserTwice;

/// A reset was not foreseen when the counts were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotResettable;

impl Counts {
    /// Counts for `cores` cores and at most `users_max` users.
    ///
    /// # Errors
    ///
    /// If there is no memory for so many users.
    pub fn new(cores: usize, users_max: usize, resettable: bool) -> Result<Self, OutOfMemory> {
        let tables = if resettable { 2 } else { 1 };
        Ok(Counts {
            generation: AtomicU64::new(0),
            ledgers: (0..cores).map(|_| Ledger::default()).collect(),
            restored: Totals::ZERO,
            replaced: OnceLock::new(),
            tables: (0..tables)
                .map(|_| UserTable::new(users_max))
                .collect::<Result<_, _>>()?,
            resetting: Mutex::new(()),
        })
    }

    /// Begins with what [`Counts::snapshot`] of an earlier process gave.
    ///
    /// # Errors
    ///
    /// If a user is there twice, or there is no room for all.
    pub fn restore(&mut self, totals: Totals, users: &[UserHash]) -> Result<(), UserTwice> {
        let table = self.table(0);
        if users.iter().any(|&user| table.offer(user) != Offer::New) {
            return Err(UserTwice);
        }
        self.restored = totals;
        Ok(())
    }

    /// Begins with these instead, of which users may be known already. Nothing may have been counted yet.
    ///
    /// # Errors
    ///
    /// If others are known, too, or there is no room for all, or it was done before.
    pub fn replace(&self, totals: &Totals, users: &[UserHash]) -> Result<(), UserTwice> {
        let table = self.table(0);
        let is_full = users.iter().any(|&user| table.offer(user) == Offer::Full);
        if is_full || table.known() != users.len() {
            return Err(UserTwice);
        }
        self.replaced.set(totals.clone()).map_err(|_| UserTwice)
    }

    /// Users of this generation, all that were known before the call.
    pub fn users(&self) -> Vec<UserHash> {
        let generation = self.generation.load(Ordering::Acquire);
        self.table(generation).users().collect()
    }

    /// Up to `count` of the users that were restored. Nothing may have been counted yet.
    pub fn known_users(&self, count: usize) -> Vec<UserHash> {
        let table = self.table(0);
        table.users().take(count.min(table.known())).collect()
    }

    /// The totals, carried, and their users.
    ///
    /// Meant for when no core counts any more. While cores count, it may be `None`: when the users did
    /// not once stay the same for as long as it takes to read them.
    pub fn snapshot(&self) -> Option<(Totals, Vec<UserHash>)> {
        (0..SNAPSHOT_ATTEMPTS).find_map(|_| {
            let generation = self.generation.load(Ordering::Acquire);
            let mut totals = self.totals();
            let users: Vec<UserHash> = self.table(generation).users().collect();
            totals.sum.carry();
            let same = self.generation.load(Ordering::Acquire) == generation;
            (same && users.len() as u64 == totals.users).then_some((totals, users))
        })
    }

    /// Counts one event. Only `core` itself may call this, always with the same `seen`. If the event's user is new,
    /// the generation in which it is.
    ///
    /// # Errors
    ///
    /// [`UsersFull`]; the event is not counted then.
    #[inline]
    pub fn record(
        &self,
        core: usize,
        seen: &mut SeenUsers,
        user: UserHash,
        value: f64,
    ) -> Result<Option<u64>, UsersFull> {
        let ledger = &self.ledgers[core];
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            if ledger.generation() != generation {
                ledger.change().adopt(generation);
                seen.clear();
            }
            if seen.contains(user) {
                ledger.change().count(value, false);
                return Ok(None);
            }
            if let Some(offer) = self.introduce(ledger, generation, user, value) {
                if offer == Offer::Full {
                    return Err(UsersFull);
                }
                seen.insert(user);
                return Ok((offer == Offer::New).then_some(generation));
            }
        }
    }

    /// Counts an event whose user this core has not met; none if the generation has ended.
    fn introduce(
        &self,
        ledger: &Ledger,
        generation: u64,
        user: UserHash,
        value: f64,
    ) -> Option<Offer> {
        let table = self.table(generation);
        if table.contains(user) {
            ledger.change().count(value, false);
            return Some(Offer::Known);
        }
        let mut change = ledger.change();
        // Either a reset sees that a change is under way, or this sees the generation that the reset
        // before it began: the counterpart is the fence in `reset`.
        fence(Ordering::SeqCst);
        if self.generation.load(Ordering::Relaxed) != generation {
            return None;
        }
        let offer = table.offer(user);
        if offer != Offer::Full {
            change.count(value, offer == Offer::New);
        }
        Some(offer)
    }

    /// What was counted since the last reset.
    ///
    /// Every ledger is read at one moment, but not all at the same. Holds everything whose
    /// [`Counts::record`] had returned before the call, and of every other event either everything
    /// or nothing, except that an event can be in it whose user another core is only just counting.
    pub fn totals(&self) -> Totals {
        self.totals_of_generation().1
    }

    /// The same, and the generation that they are of.
    pub fn totals_of_generation(&self) -> (u64, Totals) {
        'again: loop {
            let generation = self.generation.load(Ordering::Acquire);
            let mut totals = match generation {
                0 => self.replaced.get().unwrap_or(&self.restored).clone(),
                _ => Totals::ZERO,
            };
            for ledger in &self.ledgers {
                if ledger.add_to(&mut totals, generation).is_err() {
                    continue 'again;
                }
            }
            return (generation, totals);
        }
    }

    /// Up to `count` users of `generation` from the slot `from` on, and the slot to go on with unless that was the last.
    /// Meaningless once two resets have followed.
    pub fn users_from(
        &self,
        generation: u64,
        from: usize,
        count: usize,
    ) -> (Vec<UserHash>, Option<usize>) {
        self.table(generation).users_from(from, count)
    }

    /// Begins anew.
    ///
    /// Everything whose [`Counts::record`] had returned before the call is forgotten, everything
    /// whose call begins after it returns is counted, and what comes between is one or the other.
    /// Takes as long as it takes to clear the users' table. No core is stopped.
    ///
    /// # Errors
    ///
    /// [`NotResettable`] if [`Counts::new`] was not told.
    pub fn reset(&self) -> Result<(), NotResettable> {
        if self.tables.len() < 2 {
            return Err(NotResettable);
        }
        let _one_at_a_time = self
            .resetting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = self.generation.load(Ordering::Relaxed) + 1;
        // See `introduce`. What is in the next generation's table belongs to the one before this.
        fence(Ordering::SeqCst);
        for ledger in &self.ledgers {
            ledger.wait_for_change();
        }
        self.table(next).clear();
        self.generation.store(next, Ordering::Release);
        Ok(())
    }

    fn table(&self, generation: u64) -> &UserTable {
        &self.tables[generation as usize % self.tables.len()]
    }
}
