//! What a call costs in memory on a teleport connection: framing and compression of both messages, at both ends.
//!
//! A round is a batch of requests of many clients, and as many responses, through two [`Endpoint`]s: sent, sealed, opened,
//! read. Divide by the elements for the time of a call. The bytes on the wire, against those of the messages, are printed
//! first.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::fmt::Write as _;
use std::sync::Arc;

use barewire_teleport::{CallId, Compression, Endpoint, Event, Limits, Side, TeleportCounters};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// What clients ask.
#[derive(Debug, Clone, Copy)]
enum Traffic {
    /// `POST /event` with a user and a value.
    Event,
    /// A bid request of 1.2 KB and its answer.
    Bid,
    /// `GET` with a browser's fields.
    Browser,
}

/// Numbers that differ: xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

type Message = (Vec<u8>, Vec<u8>);

fn message(traffic: Traffic, random: &mut Random) -> Message {
    let mut r = |end| random.below(end);
    let (request, fields, body, answer) = match traffic {
        Traffic::Event => (
            "POST /event".to_owned(),
            "Host: localhost:8080\r\nContent-Type: application/json\r\n".to_owned(),
            format!(
                "{{\"userId\":\"user_{}\",\"value\":{}.{}}}",
                r(75_000),
                r(1_000),
                r(10)
            ),
            String::new(),
        ),
        Traffic::Bid => {
            let mut body = format!(
                "{{\"id\":\"{:016x}{:016x}\",\"imp\":[{{\"id\":\"1\",",
                r(u64::MAX),
                r(u64::MAX)
            );
            let _ = write!(
                body,
                "\"banner\":{{\"w\":{},\"h\":{},\"pos\":{},\"battr\":[1,3,5,8,9]}},\"bidfloor\":0.{:02},\"bidfloorcur\":\"USD\",\"secure\":1}}],",
                300 + 20 * r(4),
                50 * (1 + r(4)),
                r(8),
                r(100)
            );
            let site = r(5_000);
            let _ = write!(
                body,
                "\"site\":{{\"id\":\"{site}\",\"domain\":\"news{}.example.com\",\"cat\":[\"IAB{}\",\"IAB{}-{}\"],\"page\":\"https://news{}.example.com/a/{:x}\",\"publisher\":{{\"id\":\"{}\"}}}},",
                r(300),
                r(26),
                r(26),
                r(30),
                r(300),
                r(1 << 40),
                r(900)
            );
            let _ = write!(
                body,
                "\"device\":{{\"ua\":\"Mozilla/5.0 (iPhone; CPU iPhone OS {}_{} like Mac OS X) AppleWebKit/605.1.15\",\"ip\":\"{}.{}.{}.{}\",\"geo\":{{\"country\":\"DEU\",\"lat\":{}.{},\"lon\":{}.{}}},\"language\":\"en\",\"os\":\"iOS\",\"devicetype\":4}},\"user\":{{\"id\":\"{:016x}\"}},\"at\":2,\"tmax\":120,\"cur\":[\"USD\"]}}",
                12 + r(14),
                r(7),
                r(224),
                r(256),
                r(256),
                r(256),
                r(60),
                r(10_000),
                r(120),
                r(10_000),
                r(u64::MAX)
            );
            let answer = format!(
                "{{\"id\":\"{:016x}\",\"seatbid\":[{{\"bid\":[{{\"id\":\"{:x}\",\"impid\":\"1\",\"price\":{}.{:02},\"adid\":\"{}\",\"nurl\":\"https://win.example.net/n?p=${{AUCTION_PRICE}}&i={:x}\",\"adomain\":[\"brand{}.example\"],\"crid\":\"{}\",\"w\":320,\"h\":50}}],\"seat\":\"{}\"}}],\"cur\":\"USD\"}}",
                r(u64::MAX),
                r(u64::MAX),
                r(9),
                r(100),
                r(9_999),
                r(u64::MAX),
                r(500),
                r(99_999),
                r(90)
            );
            (
                "POST /openrtb2/bid".to_owned(),
                "Host: bidder.example.net\r\nUser-Agent: exchange/4.2\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\nX-Openrtb-Version: 2.5\r\nContent-Type: application/json\r\n".to_owned(),
                body,
                answer,
            )
        }
        Traffic::Browser => (
            format!("GET /api/v1/items/{}?lang=en&page={}", r(99_999), r(20)),
            format!(
                "Host: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:{}.0) Gecko/20100101\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.example.com/list?page={}\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\nPriority: u=4\r\n",
                100 + r(40),
                r(50)
            ),
            String::new(),
            format!(
                "{{\"id\":{},\"name\":\"item {}\",\"price\":{}.{:02},\"stock\":{},\"tags\":[\"a{}\",\"b{}\"]}}",
                r(9_999),
                r(9_999),
                r(90),
                r(100),
                r(50),
                r(9),
                r(9)
            ),
        ),
    };
    let request = match body.is_empty() {
        true => format!("{request} HTTP/1.1\r\n{fields}\r\n"),
        false => format!(
            "{request} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    let response = format!(
        "HTTP/1.1 200 OK\r\nServer: barewire\r\nDate: Thu, 26 Nov 2026 01:40:00 GMT\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    (request.into_bytes(), response.into_bytes())
}

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
                let mut random = Random(88_172_645_463_325_252);
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
