//! What deadlines cost: per segment, and when they are reached.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;

use barewire_service::time::{Duration, Instant};
use barewire_service::timer::TimerWheel;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [u32; 3] = [100, 10_000, 1_000_000];

/// What nearly every segment does: move a deadline that is pending and early enough.
fn schedule_later(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer/schedule pending");
    for size in SIZES {
        let now = Instant::from_secs(1);
        let mut wheel = TimerWheel::new(size as usize, now);
        (0..size).for_each(|index| wheel.schedule(index, now + Duration::from_secs(1)));
        let mut index = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                index = (index + 7_368_787) % size;
                wheel.schedule(black_box(index), now + Duration::from_secs(75));
            });
        });
    }
    group.finish();
}

/// What an expired entry costs: be found, and be scheduled again.
fn expire(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer/expire and schedule");
    for size in SIZES {
        let mut now = Instant::from_secs(1);
        let mut wheel = TimerWheel::new(size as usize, now);
        (0..size).for_each(|index| {
            wheel.schedule(index, now + Duration::from_millis(u64::from(index % 1000)));
        });
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                now += Duration::from_secs(1);
                while let Some(index) = wheel.pop_expired(now) {
                    let ms = 1 + u64::from(index % 1000);
                    wheel.schedule(index, now + Duration::from_millis(ms));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, schedule_later, expire);
criterion_main!(benches);
