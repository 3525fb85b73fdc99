//! What it costs to find the connection a segment belongs to, by number of connections.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::net::Ipv4Addr;

use barewire_tcp::flow::FlowTable;
use barewire_tcp::packet::FlowKey;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Lookups per iteration, as many as a batch of frames has.
const BATCH: usize = 64;

/// Distinct flows, a few hundred from each address.
fn flow(number: usize) -> FlowKey {
    let address = Ipv4Addr::from_bits(0x0a00_0000 + (number / 300) as u32);
    FlowKey::new(address.into(), 1024 + (number % 300) as u16 * 7, 0, 8080)
}

/// A table with `size` flows, and their keys where a connection would keep them.
fn table(size: usize) -> (FlowTable, Vec<FlowKey>) {
    let keys: Vec<FlowKey> = (0..size).map(flow).collect();
    let mut table = FlowTable::new(size, [0x0123_4567_89ab_cdef, 42]).unwrap();
    for (index, key) in keys.iter().enumerate() {
        table.insert(table.hash(key), index as u32).unwrap();
    }
    (table, keys)
}

/// Walks through all flows in an order that no prefetcher guesses.
fn next(position: &mut usize, size: usize) -> usize {
    *position = (*position + 7_368_787) % size;
    *position
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow/lookup");
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in SIZES {
        let (table, keys) = table(size);
        let mut position = 0;
        group.bench_function(BenchmarkId::new("one by one", size), |b| {
            b.iter(|| {
                for _ in 0..BATCH {
                    let key = flow(next(&mut position, size));
                    let found = table.get(table.hash(&key), |index| keys[index as usize] == key);
                    black_box(found);
                }
            });
        });
        group.bench_function(BenchmarkId::new("prefetched", size), |b| {
            b.iter(|| {
                let batch: [_; BATCH] = std::array::from_fn(|_| {
                    let key = flow(next(&mut position, size));
                    let hash = table.hash(&key);
                    table.prefetch(hash);
                    (key, hash)
                });
                for (key, hash) in batch {
                    black_box(table.get(hash, |index| keys[index as usize] == key));
                }
            });
        });
        group.bench_function(BenchmarkId::new("unknown", size), |b| {
            b.iter(|| {
                for _ in 0..BATCH {
                    let key = flow(size + next(&mut position, size));
                    let found = table.get(table.hash(&key), |index| keys[index as usize] == key);
                    black_box(found);
                }
            });
        });
    }
    group.finish();
}

fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow/remove and insert");
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in SIZES {
        let (mut table, keys) = table(size);
        let mut position = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_batched(
                || -> [usize; BATCH] { std::array::from_fn(|_| next(&mut position, size)) },
                |indices| {
                    for index in indices {
                        let hash = table.hash(&keys[index]);
                        table.remove(hash, index as u32);
                        black_box(table.insert(hash, index as u32)).unwrap();
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, churn);
criterion_main!(benches);
