//! What one core counted: written by that core alone, readable by all as of one moment.
//!
//! The owner never waits and executes no locked instruction. It brackets each change by two
//! increments of a version; a reader copies what it needs and starts again if the version was odd
//! or has changed (a sequence lock with one writer; Boehm, "Can seqlocks get along with programming
//! language memory models?", MSPC 2012). So a reader gets the number of events, the number of users
//! and every limb of the sum of the same moment, or tries again.
//!
//! ```text
//!  cache line 0       version  generation  events  users  touched
//!  cache lines 1..=9  the sum's limbs, eight to a line; `touched` has a bit for each line in use
//! ```
//!
//! Practically all values share one line of limbs (see [`super::sum`]), so an event writes two lines
//! of its own core and a reader fetches two per core.

use std::array;
use std::cmp::Ordering as Order;

use super::sum::{CARRY_PERIOD, ExactSum, LIMBS, Pieces};
use super::sync::{AtomicU64, Ordering, fence, load_own, spin_loop, yield_now};

const LINE_LIMBS: usize = 8;
const LINES: usize = LIMBS / LINE_LIMBS;

/// Failed attempts after which a reader yields its core: the owner may have been preempted.
const ATTEMPTS_MAX: u32 = 64;

/// One core's counts. Two cache lines apart from the next, because processors fetch them in pairs.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Ledger {
    /// Odd while the owner changes something.
    version: AtomicU64,
    /// What [`super::counts::Counts`] counted resets by when the owner last looked.
    generation: AtomicU64,
    events: AtomicU64,
    /// Users that this core was the first to see.
    users: AtomicU64,
    /// Which of `lines` are not zero.
    touched: AtomicU64,
    lines: [Line; LINES],
}

#[derive(Debug)]
#[repr(align(64))]
struct Line([AtomicU64; LINE_LIMBS]);

/// The sum of ledgers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Number of events.
    pub events: u64,
    /// Number of different users.
    pub users: u64,
    /// Sum of the events' values.
    pub sum: ExactSum,
}

impl Totals {
    /// Nothing was counted.
    pub const ZERO: Self = Totals {
        events: 0,
        users: 0,
        sum: ExactSum::ZERO,
    };
}

impl Default for Ledger {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Ledger {
            version: zero(0),
            generation: zero(0),
            events: zero(0),
            users: zero(0),
            touched: zero(0),
            lines: array::from_fn(|_| Line(array::from_fn(zero))),
        }
    }
}

impl Ledger {
    /// Begins a change, which ends when the guard is dropped. Only the owner may call this.
    #[inline]
    pub fn change(&self) -> Change<'_> {
        let version = load_own(&self.version);
        self.version.store(version + 1, Ordering::Relaxed);
        // No reader sees what follows without seeing the odd version.
        fence(Ordering::Release);
        Change {
            ledger: self,
            version,
        }
    }

    /// The generation whose events are counted here. Only the owner may call this.
    #[inline]
    pub fn generation(&self) -> u64 {
        load_own(&self.generation)
    }

    /// Adds what was counted at one moment to `totals`, if it belongs to `generation`.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if the ledger is already in a later generation.
    #[inline]
    pub fn add_to(&self, totals: &mut Totals, generation: u64) -> Result<(), Outdated> {
        let mut lines = [[0; LINE_LIMBS]; LINES];
        let mut attempts = 0;
        loop {
            let version = self.version.load(Ordering::Acquire);
            if version.is_multiple_of(2) {
                let found = self.generation.load(Ordering::Relaxed).cmp(&generation);
                let events = self.events.load(Ordering::Relaxed);
                let users = self.users.load(Ordering::Relaxed);
                let touched = self.touched.load(Ordering::Relaxed);
                for line in bits(touched) {
                    for (copy, limb) in lines[line].iter_mut().zip(&self.lines[line].0) {
                        *copy = limb.load(Ordering::Relaxed) as i64;
                    }
                }
                // What was read is not newer than the version read next.
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == version {
                    return match found {
                        Order::Greater => Err(Outdated),
                        // Its owner has not looked since the last reset: nothing of this generation.
                        Order::Less => Ok(()),
                        Order::Equal => {
                            totals.events += events;
                            totals.users += users;
                            for line in bits(touched) {
                                totals.sum.merge(line * LINE_LIMBS, &lines[line]);
                            }
                            Ok(())
                        }
                    };
                }
            }
            pause(&mut attempts);
        }
    }

    /// Waits until a change that the owner may be in has ended.
    pub fn wait_for_change(&self) {
        let version = self.version.load(Ordering::Acquire);
        let mut attempts = 0;
        while !version.is_multiple_of(2) && self.version.load(Ordering::Acquire) == version {
            pause(&mut attempts);
        }
    }
}

/// A ledger was found in a later generation than its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outdated;

/// A change under way: readers wait until it is dropped.
#[derive(Debug)]
pub struct Change<'a> {
    ledger: &'a Ledger,
    version: u64,
}

impl Change<'_> {
    /// Counts one event, and its user if it was not counted yet.
    #[inline]
    pub fn count(&mut self, value: f64, new_user: bool) {
        let ledger = self.ledger;
        let pieces = Pieces::of(value);
        for (index, piece) in (pieces.first..).zip(pieces.limbs) {
            let limb = &ledger.lines[index / LINE_LIMBS].0[index % LINE_LIMBS];
            add(limb, piece as u64);
        }
        let last = pieces.first + pieces.limbs.len() - 1;
        self.touch(1 << (pieces.first / LINE_LIMBS) | 1 << (last / LINE_LIMBS));

        if new_user {
            add(&ledger.users, 1);
        }
        add(&ledger.events, 1);
        if load_own(&ledger.events).is_multiple_of(CARRY_PERIOD) {
            self.carry();
        }
    }

    /// Forgets everything and counts for `generation` from here on.
    pub fn adopt(&mut self, generation: u64) {
        let ledger = self.ledger;
        for line in bits(load_own(&ledger.touched)) {
            for limb in &ledger.lines[line].0 {
                limb.store(0, Ordering::Relaxed);
            }
        }
        for count in [&ledger.touched, &ledger.users, &ledger.events] {
            count.store(0, Ordering::Relaxed);
        }
        ledger.generation.store(generation, Ordering::Relaxed);
    }

    #[inline]
    fn touch(&mut self, lines: u64) {
        let touched = load_own(&self.ledger.touched);
        if touched | lines != touched {
            self.ledger
                .touched
                .store(touched | lines, Ordering::Relaxed);
        }
    }

    /// Restores the limbs' headroom.
    #[cold]
    fn carry(&mut self) {
        let limb = |index: usize| &self.ledger.lines[index / LINE_LIMBS].0[index % LINE_LIMBS];
        let mut sum = ExactSum::from_limbs(array::from_fn(|index| load_own(limb(index)) as i64));
        sum.carry();
        let mut lines = 0;
        for (index, &amount) in sum.limbs().iter().enumerate() {
            limb(index).store(amount as u64, Ordering::Relaxed);
            lines |= u64::from(amount != 0) << (index / LINE_LIMBS);
        }
        self.touch(lines);
    }
}

impl Drop for Change<'_> {
    #[inline]
    fn drop(&mut self) {
        // A reader that sees this version sees the change.
        self.ledger
            .version
            .store(self.version + 2, Ordering::Release);
    }
}

/// `counter += amount`, by its only writer; wraps like the two's complement of a negative amount.
#[inline]
fn add(counter: &AtomicU64, amount: u64) {
    let value = load_own(counter).wrapping_add(amount);
    counter.store(value, Ordering::Relaxed);
}

fn pause(attempts: &mut u32) {
    *attempts += 1;
    if attempts.is_multiple_of(ATTEMPTS_MAX) {
        yield_now();
    } else {
        spin_loop();
    }
}

/// The positions of the ones in `mask`.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let position = mask.trailing_zeros();
        (mask != 0).then(|| {
            mask &= mask - 1;
            position as usize
        })
    })
}
