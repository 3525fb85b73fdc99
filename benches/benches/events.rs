//! What an event and an answer to `/stats` cost: the challenge's own bodies and users.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use barewire::events::parse::parse;
use barewire::events::sum::ExactSum;
use barewire::events::users::{UserHash, UserKey, UserTable};
use barewire::events::{EventShard, Events, EventsConfig};
use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};

/// Users of the official client.
const USERS: usize = 75_000;
/// Events per iteration.
const BATCH: usize = 64;

/// Bodies of the official client, one after the other in memory.
struct Bodies {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
    position: usize,
}

impl Bodies {
    fn new() -> Self {
        let mut bodies = Bodies {
            bytes: Vec::new(),
            ranges: Vec::new(),
            position: 0,
        };
        for i in 0..USERS {
            let body = format!(r#"{{"userId":"user_{i}","value":{}.5}}"#, i % 1_000);
            let start = bodies.bytes.len();
            bodies.bytes.extend_from_slice(body.as_bytes());
            bodies.ranges.push(start..bodies.bytes.len());
        }
        bodies
    }

    fn next(&mut self) -> &[u8] {
        self.position = (self.position + 1) % USERS;
        &self.bytes[self.ranges[self.position].clone()]
    }
}

fn shards(config: EventsConfig) -> (Arc<Events>, Vec<EventShard>) {
    let events = Events::new(config).unwrap();
    let shards = (0..config.cores).map(|core| events.shard(core)).collect();
    (events, shards)
}

/// Counts every user once.
fn warm_up(shard: &mut EventShard, bodies: &mut Bodies) {
    for _ in 0..USERS {
        shard.record(bodies.next()).unwrap();
    }
}

fn event(c: &mut Criterion) {
    let mut bodies = Bodies::new();
    let mut group = c.benchmark_group("events/event");
    group.throughput(Throughput::Elements(BATCH as u64));

    // How well a core's own cache of users does, and what it saves.
    for (name, users_seen_max) in [("own cache", 100_000), ("shared table", 1)] {
        let config = EventsConfig {
            users_seen_max,
            ..EventsConfig::new(1)
        };
        let (_events, mut shards) = shards(config);
        warm_up(&mut shards[0], &mut bodies);
        group.bench_function(BenchmarkId::new("users known from", name), |b| {
            b.iter(|| {
                for _ in 0..BATCH {
                    shards[0].record(black_box(bodies.next())).unwrap();
                }
            });
        });
    }

    let mut scratch = [0; 256];
    group.bench_function("parse", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                black_box(parse(black_box(bodies.next()), &mut scratch).unwrap());
            }
        });
    });
    let key = UserKey::new([1, 2]);
    group.bench_function("hash", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                let body = bodies.next();
                black_box(key.hash(black_box(&body[11..20])));
            }
        });
    });
    let mut sum = ExactSum::ZERO;
    let mut value = 0.5;
    group.bench_function("sum", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                sum.add(black_box(value));
                value = if value > 999.0 { 0.5 } else { value + 1.0 };
            }
            sum.carry();
        });
    });
    group.finish();
}

fn stats(c: &mut Criterion) {
    let mut group = c.benchmark_group("events/stats");
    for cores in [1, 8, 64] {
        let config = EventsConfig {
            users_seen_max: 1_000,
            ..EventsConfig::new(cores)
        };
        let (events, mut shards) = shards(config);
        let mut bodies = Bodies::new();
        for shard in &mut shards {
            warm_up(shard, &mut bodies);
        }
        group.bench_function(BenchmarkId::from_parameter(cores), |b| {
            b.iter(|| black_box(events.stats()));
        });
    }
    group.finish();
}

/// Users of a table, spread like hashes.
fn user(n: usize) -> UserHash {
    let spread = |n: usize, odd: u64| (n as u64 + 1).wrapping_mul(odd);
    UserHash {
        high: spread(n, 0x9e37_79b9_7f4a_7c15),
        low: spread(n, 0xc2b2_ae3d_27d4_eb4f),
    }
}

fn table(c: &mut Criterion) {
    let mut group = c.benchmark_group("events/table");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.sampling_mode(SamplingMode::Flat);
    for users in [USERS, 10_000_000] {
        let full = UserTable::new(users).unwrap();
        for n in 0..users {
            full.offer(user(n));
        }
        let mut n = 0;
        group.bench_function(BenchmarkId::new("known", users), |b| {
            b.iter(|| {
                for _ in 0..BATCH {
                    // An order that no prefetcher guesses.
                    n = (n + 7_368_787) % users;
                    assert!(full.contains(user(n)));
                }
            });
        });
        let mut n = users;
        group.bench_function(BenchmarkId::new("refused", users), |b| {
            b.iter(|| {
                for _ in 0..BATCH {
                    n += 1;
                    black_box(full.offer(user(n)));
                }
            });
        });
        drop(full);

        let table = UserTable::new(users).unwrap();
        let mut n = 0;
        group.bench_function(BenchmarkId::new("new", users), |b| {
            b.iter_batched(
                || {
                    if n + BATCH > users {
                        table.clear();
                        n = 0;
                    }
                    n += BATCH;
                    n - BATCH
                },
                |first| {
                    for n in first..first + BATCH {
                        black_box(table.offer(user(n)));
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, event, stats, table);
criterion_main!(benches);
