//! A model check of what cores share when they count events: loom runs each test once for every
//! order in which the threads' memory accesses can take effect (with up to two or three preemptions).
//!
//! The files under test are compiled a second time, with loom's atomics for `sync`.

#![allow(
    dead_code,
    missing_docs,
    reason = "files of the library, of which the model needs a part"
)]

mod sync {
    pub use loom::hint::spin_loop;
    pub use loom::sync::Mutex;
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
    pub use loom::thread::yield_now;
    pub use std::sync::PoisonError;

    /// Stands for the mapping that the library uses.
    #[derive(Debug)]
    pub struct PairTable(Vec<[AtomicU64; 2]>);

    impl PairTable {
        pub fn new(len: usize) -> Result<Self, barewire_memory::OutOfMemory> {
            let zeroes = || [AtomicU64::new(0), AtomicU64::new(0)];
            Ok(PairTable((0..len).map(|_| zeroes()).collect()))
        }
    }

    impl std::ops::Deref for PairTable {
        type Target = [[AtomicU64; 2]];

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    pub fn load_own(word: &AtomicU64) -> u64 {
        // SAFETY: loom panics if another thread writes the word; otherwise this is a plain load.
        unsafe { word.unsync_load() }
    }
}

#[path = "../src/events/counts.rs"]
mod counts;
#[path = "../src/events/ledger.rs"]
mod ledger;
#[path = "../src/events/seen.rs"]
mod seen;
#[path = "../src/events/sum.rs"]
mod sum;
#[path = "../src/events/users.rs"]
mod users;

use loom::sync::Arc;
use loom::thread;

use counts::{Counts, UsersFull};
use ledger::{Ledger, Totals};
use seen::SeenUsers;
use users::{Offer, UserHash, UserTable};

fn check(preemptions_max: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions_max);
    builder.check(model);
}

/// Users that begin at the same slot, two of them with the same first word.
const USERS: [UserHash; 3] = [
    UserHash { high: 1, low: 1 },
    UserHash { high: 1, low: 2 },
    UserHash { high: 2, low: 1 },
];

#[test]
fn two_cores_bring_the_same_user() {
    check(3, || {
        let table = Arc::new(UserTable::new(2).unwrap());
        let other = {
            let table = Arc::clone(&table);
            thread::spawn(move || table.offer(USERS[0]))
        };
        let mine = table.offer(USERS[0]);
        let theirs = other.join().unwrap();
        assert!(matches!(
            (mine, theirs),
            (Offer::New, Offer::Known) | (Offer::Known, Offer::New)
        ));
        assert!(table.contains(USERS[0]));
        // Exactly one place is taken.
        assert_eq!(table.offer(USERS[1]), Offer::New);
        assert_eq!(table.offer(USERS[2]), Offer::Full);
    });
}

#[test]
fn two_cores_bring_users_that_collide() {
    for others in [
        [USERS[1], USERS[0]],
        [USERS[1], USERS[2]],
        [USERS[2], USERS[0]],
    ] {
        check(3, move || {
            let table = Arc::new(UserTable::new(4).unwrap());
            let other = {
                let table = Arc::clone(&table);
                thread::spawn(move || others.map(|user| table.offer(user)))
            };
            let mine = [USERS[0], USERS[1]].map(|user| table.offer(user));
            let theirs = other.join().unwrap();

            let new = mine
                .iter()
                .chain(&theirs)
                .filter(|&&offer| offer == Offer::New);
            let different = 2 + usize::from(others.contains(&USERS[2]));
            assert_eq!(new.count(), different);
            assert!(
                !mine
                    .iter()
                    .chain(&theirs)
                    .any(|&offer| offer == Offer::Full)
            );
            assert!(
                [USERS[0], USERS[1]]
                    .iter()
                    .chain(&others)
                    .all(|&user| table.contains(user))
            );
        });
    }
}

#[test]
fn two_cores_bring_the_last_user() {
    check(3, || {
        let table = Arc::new(UserTable::new(1).unwrap());
        let other = {
            let table = Arc::clone(&table);
            thread::spawn(move || table.offer(USERS[1]))
        };
        let mine = table.offer(USERS[0]);
        let theirs = other.join().unwrap();
        assert!(matches!(
            (mine, theirs),
            (Offer::New, Offer::Full) | (Offer::Full, Offer::New)
        ));
    });
}

#[test]
fn a_reader_sees_no_event_in_parts() {
    check(2, || {
        let ledger = Arc::new(Ledger::default());
        let owner = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                ledger.change().count(1.0, true);
                ledger.change().count(1.0, false);
            })
        };
        let mut totals = Totals::ZERO;
        ledger.add_to(&mut totals, 0).unwrap();
        assert_eq!(totals.sum.to_f64(), totals.events as f64);
        assert_eq!(totals.users, totals.events.min(1));
        owner.join().unwrap();
    });
}

/// A core that has counted an event finds it and its user, even if the other core brought that user and
/// is not done.
#[test]
fn a_reader_finds_its_event_and_its_user() {
    check(3, || {
        let counts = Arc::new(Counts::new(2, 2, false).unwrap());
        let other = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || counts.record(0, &mut SeenUsers::new(1).unwrap(), USERS[0], 1.0))
        };
        counts
            .record(1, &mut SeenUsers::new(1).unwrap(), USERS[0], 1.0)
            .unwrap();
        let totals = counts.totals();
        assert_eq!(totals.users, 1);
        assert!((1..=2).contains(&totals.events));
        assert_eq!(totals.sum.to_f64(), totals.events as f64);

        other.join().unwrap().unwrap();
        assert_eq!(counts.totals().events, 2);
        assert_eq!(counts.totals().users, 1);
    });
}

/// One core resets twice, so that the table of the first generation is used again, while another
/// brings a user: its event is in one generation, whole.
#[test]
fn a_reset_meets_an_event() {
    check(2, || {
        let counts = Arc::new(Counts::new(1, 1, true).unwrap());
        let core = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || {
                let mut seen = SeenUsers::new(1).unwrap();
                counts.record(0, &mut seen, USERS[0], 1.0).unwrap();
                seen
            })
        };
        counts.reset().unwrap();
        counts.reset().unwrap();

        let mut seen = core.join().unwrap();
        let after = counts.totals();
        assert!(after.events <= 1);
        assert_eq!(
            (after.users, after.sum.to_f64()),
            (after.events, after.events as f64)
        );

        // The table holds the user if and only if the event is counted in this generation.
        let next = counts.record(0, &mut seen, USERS[1], 1.0);
        let expected = if after.events == 1 {
            Err(UsersFull)
        } else {
            Ok(Some(2))
        };
        assert_eq!(next, expected);
        assert_eq!(counts.totals().users, 1);
    });
}
