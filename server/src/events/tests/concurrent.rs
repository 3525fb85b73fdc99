//! Several cores at once. What they share is small here, so that they meet often.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::events::users::{Offer, UserHash, UserTable};
use crate::events::{EventShard, Events, EventsConfig, Refusal};

const CORES: usize = 4;

fn record(shard: &mut EventShard, user: usize, value: &str) -> Result<(), Refusal> {
    shard.record(format!(r#"{{"userId":"{user}","value":{value}}}"#).as_bytes())
}

/// Runs one thread per core, all at once, and a reader until they are done.
fn run(
    events: &Arc<Events>,
    core: impl Fn(usize, EventShard) + Sync,
    mut reader: impl FnMut() + Send,
) {
    let start = Barrier::new(CORES + 1);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let cores: Vec<_> = (0..CORES)
            .map(|index| {
                let (start, core) = (&start, &core);
                scope.spawn(move || {
                    let shard = events.shard(index);
                    start.wait();
                    core(index, shard);
                })
            })
            .collect();
        let (start, done) = (&start, &done);
        scope.spawn(move || {
            start.wait();
            while !done.load(Ordering::Relaxed) {
                reader();
            }
        });
        for core in cores {
            core.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nothing_is_lost_and_nothing_is_counted_twice() {
    const ROUNDS: usize = 20_000;
    const USERS: usize = 1_000;
    let config = EventsConfig {
        users_seen_max: 64,
        ..EventsConfig::new(CORES)
    };
    let events = Events::new(config).unwrap();
    let mut last = events.stats();
    run(
        &events,
        |core, mut shard| {
            for round in 0..ROUNDS {
                // Each value makes the sum grow by exactly one per event, over limbs far apart.
                let value = ["1e30", "-1e30", "1e-30", "-1e-30"][round % 4];
                record(&mut shard, round * (core + 1) % USERS, value).unwrap();
                record(&mut shard, round % USERS, "2").unwrap();
            }
        },
        || {
            let stats = events.stats();
            assert!(stats.unique_users <= stats.total_requests);
            assert!(stats.total_requests >= last.total_requests);
            assert!(stats.unique_users >= last.unique_users);
            last = stats;
        },
    );
    let stats = events.stats();
    assert_eq!(stats.total_requests, 2 * (ROUNDS * CORES) as u64);
    assert_eq!(stats.unique_users, USERS as u64);
    assert_eq!(stats.sum, 2.0 * (ROUNDS * CORES) as f64);
    assert_eq!(stats.avg, 1.0);
}

/// Count and sum are read as of one moment: with values of one they are always equal.
#[test]
fn no_event_is_seen_in_parts() {
    let events = Events::new(EventsConfig::new(CORES)).unwrap();
    run(
        &events,
        |core, mut shard| {
            for round in 0..50_000 {
                record(&mut shard, round % 100 + core, "1").unwrap();
            }
        },
        || {
            let stats = events.stats();
            assert_eq!(stats.sum, stats.total_requests as f64);
        },
    );
}

/// A client that has the reply finds the event, on any core: here, every core asks after each event.
#[test]
fn an_event_is_in_the_next_stats() {
    let events = Events::new(EventsConfig::new(CORES)).unwrap();
    let acknowledged = AtomicU64::new(0);
    run(
        &events,
        |_, mut shard| {
            for user in 0..5_000 {
                // Every user is new, to all cores at about the same time.
                record(&mut shard, user, "1").unwrap();
                let acknowledged = acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
                let stats = shard.stats();
                assert!(stats.total_requests >= acknowledged);
                assert!(stats.unique_users > user as u64);
            }
        },
        || {},
    );
}

#[test]
fn users_are_bounded_exactly() {
    const USERS_MAX: usize = 500;
    for _ in 0..20 {
        let table = UserTable::new(USERS_MAX).unwrap();
        let new = AtomicU64::new(0);
        let start = Barrier::new(CORES);
        thread::scope(|scope| {
            for _ in 0..CORES {
                scope.spawn(|| {
                    start.wait();
                    for n in 1..=2 * USERS_MAX as u64 {
                        let user = UserHash {
                            high: n << 50 | 1,
                            low: n,
                        };
                        match table.offer(user) {
                            Offer::New => _ = new.fetch_add(1, Ordering::Relaxed),
                            Offer::Known => assert!(table.contains(user)),
                            Offer::Full => {}
                        }
                    }
                });
            }
        });
        let found = (1..=2 * USERS_MAX as u64)
            .filter(|&n| {
                table.contains(UserHash {
                    high: n << 50 | 1,
                    low: n,
                })
            })
            .count();
        assert_eq!(new.into_inner(), USERS_MAX as u64);
        assert_eq!(found, USERS_MAX);
    }
}

/// With resets going on, a core finds at least what it counted since the last one it asked for, and
/// never anything of an earlier generation.
#[test]
fn resets_leave_whole_events() {
    let config = EventsConfig {
        users_max: 5_000,
        reset_allowed: true,
        // One more, which counts when the others are done.
        ..EventsConfig::new(CORES + 1)
    };
    let events = Events::new(config).unwrap();
    run(
        &events,
        |core, mut shard| {
            for round in 0..2_000 {
                record(&mut shard, round, "1").unwrap();
                record(&mut shard, CORES * 10_000 + core, "1").unwrap();
                if round % 50 == core {
                    shard.reset().unwrap();
                }
            }
        },
        || {
            let stats = events.stats();
            assert_eq!(stats.sum, stats.total_requests as f64);
            assert!(stats.unique_users <= stats.total_requests);
        },
    );
    events.reset().unwrap();
    assert_eq!(events.stats().total_requests, 0);

    let mut shard = events.shard(CORES);
    for user in 0..5_000 {
        record(&mut shard, user, "1").unwrap();
    }
    assert_eq!(record(&mut shard, 5_000, "1"), Err(Refusal::UsersFull));
    assert_eq!(events.stats().unique_users, 5_000);
}
