//! What a call costs in memory on a teleport connection: framing and compression of both messages, at both ends.
//!
//! A round is a batch of requests of many clients, and as many responses, through two [`Endpoint`]s: sent, sealed, opened,
//! read. Divide by the elements for the time of a call. The bytes on the wire, against those of the messages, are printed
//! first.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::sync::Arc;

use barewire_benches::traffic::{Message, Random, Traffic, message};
use barewire_teleport::{CallId, Compression, Endpoint, Event, Limits, Side, TeleportCounters};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Both ends, and what is between them.
struct World {
    client: Endpoint,
    server: Endpoint,
    wire: Vec<u8>,
    heard: Vec<(CallId, usize)>,
}

impl World {
    fn new(compression: Compression) -> Self {
        let limits = Limits {
            compression,
            window_bytes: 1 << 20,
            ..Limits::default()
        };
        let end = |side| Endpoint::new(side, limits, Arc::<TeleportCounters>::default());
        let mut world = World {
            client: end(Side::Client),
            server: end(Side::Server),
            wire: vec![0; 1 << 20],
            heard: Vec::with_capacity(1024),
        };
        world.go(true);
        world.go(false);
        world
    }

    /// Carries what one end has to write to the other; returns how many bytes that was.
    fn go(&mut self, is_up: bool) -> usize {
        let (from, to) = match is_up {
            true => (&mut self.client, &mut self.server),
            false => (&mut self.server, &mut self.client),
        };
        let len = from.write(&mut self.wire).unwrap();
        let mut bytes = &self.wire[..len];
        while !bytes.is_empty() {
            let taken = to.receive(bytes).unwrap();
            bytes = &bytes[taken..];
            while let Some(event) = to.next_event().unwrap() {
                if let Event::Data { call, bytes, .. } = event {
                    self.heard.push((call, bytes.len()));
                }
            }
        }
        len
    }

    /// A batch of calls. Returns the bytes on the wire.
    fn round(&mut self, messages: &[Message]) -> usize {
        let mut wire_bytes = 0;
        for (request, _) in messages {
            let mut rest = &request[..];
            let (id, count) = loop {
                match self.client.open_call(rest, true) {
                    Some(opened) => break opened,
                    // The batch is full.
                    None => wire_bytes += self.go(true),
                }
            };
            rest = &rest[count..];
            while !rest.is_empty() {
                match self.client.send(id, rest, false, true) {
                    Some(count) => rest = &rest[count..],
                    None => wire_bytes += self.go(true),
                }
            }
        }
        wire_bytes += self.go(true);
        // A request that lies in two blocks is heard in two parts.
        let mut heard = std::mem::take(&mut self.heard);
        heard.dedup_by_key(|part| part.0);
        assert_eq!(heard.len(), messages.len());
        for ((id, _), (_, response)) in heard.iter().zip(messages) {
            let mut rest = &response[..];
            while !rest.is_empty() {
                match self.server.send(*id, rest, false, true) {
                    Some(count) => rest = &rest[count..],
                    None => wire_bytes += self.go(false),
                }
            }
        }
        wire_bytes += self.go(false);
        heard.clear();
        self.heard = heard;
        wire_bytes
    }
}

fn calls(criterion: &mut Criterion) {
    for traffic in [Traffic::Event, Traffic::Bid, Traffic::Browser] {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for calls in [1, 16, 128] {
                let mut random = Random::default();
                // So many different ones that no window holds them all.
                let messages: Vec<_> = (0..4_096).map(|_| message(traffic, &mut random)).collect();
                let mut world = World::new(compression);
                let (mut wire_bytes, mut bytes) = (0, 0);
                for batch in messages.chunks(calls) {
                    wire_bytes += world.round(batch);
                    let lens = batch.iter().map(|(one, other)| one.len() + other.len());
                    bytes += lens.sum::<usize>();
                }
                println!(
                    "{traffic:?}, {compression:?}, {calls} in a batch: {} B of {} B a call, 1/{:.1}",
                    wire_bytes / messages.len(),
                    bytes / messages.len(),
                    bytes as f64 / wire_bytes as f64
                );
                let mut group = criterion.benchmark_group(format!("teleport/{traffic:?}"));
                group.throughput(Throughput::Elements(calls as u64));
                let mut batches = messages.chunks(calls).cycle();
                let id = BenchmarkId::new(format!("{compression:?}"), calls);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| world.round(batches.next().unwrap()));
                });
                group.finish();
            }
        }
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
