//! What it costs to keep what was sent until it is acknowledged, and to repair a loss.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;

use barewire_service::time::{Duration, Instant};
use barewire_tcp::sender::chunks::Chunks;
use barewire_tcp::sender::sack::Block;
use barewire_tcp::sender::{Ack, Config, Remembered, Sender, Start};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const MSS: u16 = 1460;

fn sender(now: Instant) -> Sender {
    let start = Start {
        nxt: 0,
        window: 1 << 20,
        window_seq: 0,
        mss: MSS,
        has_sack: true,
        remembered: Remembered::default(),
    };
    Sender::new(&start, now)
}

fn ack(ack: u32, sack: &[Block]) -> Ack<'_> {
    Ack {
        seq: 0,
        ack,
        window: 1 << 20,
        has_payload: false,
        sack,
        rtt: None,
    }
}

/// The common case: a reply leaves at once, and is acknowledged with the next request.
fn push_and_acknowledge(c: &mut Criterion) {
    let mut group = c.benchmark_group("sender/push and acknowledge");
    let config = Config::default();
    for len in [150, 1460] {
        let mut now = Instant::from_secs(1);
        let mut chunks = Chunks::new(1024, 1024).unwrap();
        let mut sender = sender(now);
        let payload = vec![7; len];
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| {
                now += Duration::from_micros(50);
                let payload = black_box(&payload);
                let sum = sender
                    .push_sent(&mut chunks, &config, payload, now)
                    .unwrap();
                black_box(sum);
                let ack = ack(sender.nxt(), &[]);
                sender.on_ack(&mut chunks, &config, &ack, now);
            });
        });
    }
    group.finish();
}

/// A sender for one reply only: made, used, and given up with what it has learnt.
fn begin_and_end(c: &mut Criterion) {
    let config = Config::default();
    let now = Instant::from_secs(1);
    let mut chunks = Chunks::new(1024, 1024).unwrap();
    c.bench_function("sender/begin, push, acknowledge, end", |b| {
        b.iter(|| {
            let mut sender = sender(black_box(now));
            let payload = black_box(&[7; 150]);
            let sum = sender
                .push_sent(&mut chunks, &config, payload, now)
                .unwrap();
            black_box(sum);
            let ack = ack(sender.nxt(), &[]);
            sender.on_ack(&mut chunks, &config, &ack, now);
            black_box(sender.remember());
        });
    });
}

/// A megabyte with its first segment lost, an ACK with a SACK block for every second segment: per segment.
fn repair_in_bulk(c: &mut Criterion) {
    let mut group = c.benchmark_group("sender/bulk with a loss");
    let config = Config::default();
    let segments = 512_u32;
    let mss = u32::from(MSS);
    let mut chunks = Chunks::new(16, 4096).unwrap();
    let payload = vec![7; segments as usize * usize::from(MSS)];
    group.throughput(Throughput::Elements(u64::from(segments)));
    group.bench_function(BenchmarkId::from_parameter(segments), |b| {
        b.iter(|| {
            let mut now = Instant::from_secs(1);
            let mut sender = sender(now);
            let mut written = 0;
            let mut acked = 0;
            while !sender.is_quiet() || written < payload.len() {
                written += sender.queue(&mut chunks, &config, &payload[written..], now);
                while let Some(segment) = sender.next_segment(&mut chunks, &config, now) {
                    black_box(segment);
                }
                now += Duration::from_millis(1);
                let nxt = sender.nxt();
                if acked == 0 && nxt > mss {
                    let mut end = 2 * mss;
                    while end < nxt {
                        let block = Block { start: mss, end };
                        sender.on_ack(&mut chunks, &config, &ack(0, &[block]), now);
                        end += 2 * mss;
                    }
                    now += Duration::from_millis(1);
                }
                acked = nxt;
                sender.on_ack(&mut chunks, &config, &ack(nxt, &[]), now);
            }
        });
    });
    group.finish();
    assert_eq!(chunks.used(), 0);
}

criterion_group!(benches, push_and_acknowledge, begin_and_end, repair_in_bulk);
criterion_main!(benches);
