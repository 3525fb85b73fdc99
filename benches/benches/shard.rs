//! What a request costs one core, without a NIC: frames in, HTTP, frames out, with checksums verified
//! and made, by number of connections and pipelining depth. Aims: 1.35 times the floor at depth 1, and 1.15
//! times at depth 16.
//!
//! Only [`Shard::poll`] is timed; the client's side is done between polls. `floor` is the same work
//! with nothing of TCP in it but arithmetic: the parser, the flow table, the same responder, checksums.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant as Clock;

use barewire::events::{Events, EventsConfig};
use barewire::site::{self, Site, SiteResponder};
use barewire_http::{HttpCounters, Limits};
use barewire_memory::Arena;
use barewire_service::service::{Input, Reply, Service};
use barewire_service::time::{Duration, Instant};
use barewire_tcp::config::StackConfig;
use barewire_tcp::flow::FlowTable;
use barewire_tcp::guard::Secrets;
use barewire_tcp::link::memory::{MemoryLink, MemoryLinkConfig};
use barewire_tcp::link::{Link, Received, Transmit};
use barewire_tcp::packet::{self, ChecksumPolicy, Flags, FlowKey, Local, Segment};
use barewire_tcp::shard::Shard;
use barewire_tcp_testing::direct_path;
use barewire_tcp_testing::frame::{TcpFrame, TcpView};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: server\r\n\r\n";
const CONNECTIONS: [usize; 4] = [1, 100, 1_000, 10_000];
const DEPTHS: [usize; 2] = [1, 16];
/// Frames received at once.
const BATCH: usize = 64;
const START: Instant = Instant::from_micros(1_000_000_000);

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard/request");
    for depth in DEPTHS {
        for connections in CONNECTIONS {
            group.throughput(Throughput::Elements(depth as u64));
            let id = format!("{connections} connections/depth {depth}");
            let payload = REQUEST.repeat(depth);

            let config = config(connections);
            let mut arena = Arena::new(config.arena_bytes()).unwrap();
            let mut shard = ShardUnderTest::new(config, &mut arena);
            let mut clients = Clients::connected(connections, &mut shard);
            group.bench_function(BenchmarkId::new("barewire", &id), |bencher| {
                bencher.iter_custom(|iterations| clients.ask(&mut shard, &payload, iterations));
            });

            let mut floor = Floor::new(connections);
            let mut clients = Clients::connected(connections, &mut floor);
            group.bench_function(BenchmarkId::new("floor", &id), |bencher| {
                bencher.iter_custom(|iterations| clients.ask(&mut floor, &payload, iterations));
            });
        }
    }
    group.finish();
}

/// Whole connections: handshake, one request, close by the client.
fn churn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard/connection");
    for connections in [100, 10_000] {
        let config = config(connections);
        let mut arena = Arena::new(config.arena_bytes()).unwrap();
        let mut shard = ShardUnderTest::new(config, &mut arena);
        let mut clients = Clients::new(connections);
        group.bench_function(BenchmarkId::from_parameter(connections), |bencher| {
            bencher.iter_custom(|iterations| clients.come_and_go(&mut shard, iterations));
        });
    }
    group.finish();
}

fn config(connections: usize) -> StackConfig {
    StackConfig {
        connections: connections as u32 + 1,
        half_open: connections as u32 + 1,
        direct_path: direct_path().unwrap_or(StackConfig::default().direct_path),
        ..StackConfig::default()
    }
}

fn server() -> SocketAddr {
    (Ipv4Addr::new(10, 77, 0, 2), 8080).into()
}

fn local() -> Local {
    Local::new(&[server().ip()], &[server().port()]).unwrap()
}

fn responder() -> SiteResponder {
    let routes = site::routes(false).expect("the table is consistent");
    let events = Events::new(EventsConfig::new(1)).unwrap();
    let counters = Arc::new(HttpCounters::new(&routes));
    let site = Site::new(events.shard(0));
    let mut responder = site::responder(&routes, site, Limits::default(), counters);
    responder.on_clock(784_111_777);
    responder
}

/// What is timed.
trait Server {
    fn link(&mut self) -> &mut MemoryLink;
    fn poll(&mut self, now: Instant);
}

struct ShardUnderTest<'a>(Shard<'a, MemoryLink, SiteResponder>);

impl<'a> ShardUnderTest<'a> {
    fn new(config: StackConfig, arena: &'a mut Arena) -> Self {
        let (secrets, links) = (Secrets::from_seed(1), vec![link()]);
        let shard = Shard::new(config, local(), &secrets, links, responder(), arena, START);
        ShardUnderTest(shard.unwrap())
    }
}

impl Server for ShardUnderTest<'_> {
    fn link(&mut self) -> &mut MemoryLink {
        &mut self.0.links_mut()[0]
    }

    fn poll(&mut self, now: Instant) {
        black_box(self.0.poll(now));
    }
}

fn link() -> MemoryLink {
    MemoryLink::new(MemoryLinkConfig {
        batch_frames: BATCH,
        ..MemoryLinkConfig::default()
    })
}

/// Lets the responder answer whatever comes.
struct Floor {
    link: MemoryLink,
    local: Local,
    flows: FlowTable,
    connections: Vec<FloorConnection>,
    responder: SiteResponder,
    replies: Box<[u8]>,
}

struct FloorConnection {
    flow: FlowKey,
    snd_nxt: u32,
    service: <SiteResponder as Service>::Connection,
}

impl Floor {
    const MSS: usize = 1460;

    fn new(connections: usize) -> Floor {
        Floor {
            link: link(),
            local: local(),
            flows: FlowTable::new(connections, [1, 2]).unwrap(),
            connections: Vec::with_capacity(connections),
            responder: responder(),
            replies: vec![0; 16_384].into_boxed_slice(),
        }
    }
}

impl Server for Floor {
    fn link(&mut self) -> &mut MemoryLink {
        &mut self.link
    }

    fn poll(&mut self, now: Instant) {
        let Floor {
            link,
            local,
            flows,
            connections,
            responder,
            replies,
        } = self;
        let (received, transmit) = link.receive(now);
        for index in 0..received.len() {
            let frame = received.frame(index);
            let Ok(segment) = packet::parse(frame, local, ChecksumPolicy::Verify) else {
                continue;
            };
            let hash = flows.hash(&segment.flow);
            let found = flows.get(hash, |index| {
                connections[index as usize].flow == segment.flow
            });
            let Some(index) = found else {
                flows.insert(hash, connections.len() as u32).unwrap();
                connections.push(FloorConnection {
                    flow: segment.flow,
                    snd_nxt: 1,
                    service: Default::default(),
                });
                reply(&segment, transmit, 0, Flags::SYN | Flags::ACK, &[]);
                continue;
            };
            if segment.payload_len() > 0 {
                let connection = &mut connections[index as usize];
                let input = Input {
                    bytes: segment.payload(frame),
                    full: false,
                    ended: false,
                };
                let mut written = Reply::new(replies);
                responder.on_input(&mut connection.service, input, &mut written);
                let seq = &mut connection.snd_nxt;
                for payload in written.written().chunks(Self::MSS) {
                    reply(&segment, transmit, *seq, Flags::ACK | Flags::PSH, payload);
                    *seq = seq.wrapping_add(payload.len() as u32);
                }
            }
        }
        link.flush(now);
    }
}

fn reply(to: &Segment, transmit: &mut impl Transmit, seq: u32, flags: Flags, payload: &[u8]) {
    let peer = SocketAddr::new(to.flow.remote_address(), to.flow.remote_port());
    let frame = TcpFrame {
        seq,
        ack: to.seq.wrapping_add(to.sequence_len()),
        flags,
        payload,
        ..TcpFrame::new(server(), peer)
    };
    let len = frame.write(transmit.slot().unwrap());
    transmit.commit(len);
}

/// The clients of one server, each with one connection.
struct Clients {
    clients: Vec<Client>,
    next: usize,
    now: Instant,
}

#[derive(Clone, Copy)]
struct Client {
    source: SocketAddr,
    snd_nxt: u32,
    rcv_nxt: u32,
}

/// What the SYN of a Linux client says: segments of 1,460 bytes, SACK, a window that is not scaled.
const SYN_OPTIONS: &[u8] = &[2, 4, 0x05, 0xb4, 1, 1, 4, 2, 1, 3, 3, 0];

/// Clients behind one address.
const PORTS: usize = 1_000;

impl Clients {
    fn new(count: usize) -> Clients {
        let source = |index: usize| {
            let address = Ipv4Addr::from_bits(0x0a4d_0100 + (index / PORTS) as u32);
            SocketAddr::from((address, 10_000 + (index % PORTS) as u16))
        };
        let client = |index| Client {
            source: source(index),
            snd_nxt: 0,
            rcv_nxt: 0,
        };
        Clients {
            clients: (0..count).map(client).collect(),
            next: 0,
            now: START,
        }
    }

    fn connected(count: usize, server: &mut impl Server) -> Clients {
        let mut clients = Clients::new(count);
        let all: Vec<usize> = (0..count).collect();
        for batch in all.chunks(BATCH) {
            clients.exchange(server, batch, Flags::SYN, &[]);
            clients.exchange(server, batch, Flags::ACK, &[]);
        }
        clients
    }

    /// Sends at least `segments` segments with `payload`, in batches, and returns the server's time
    /// for `segments` of them.
    fn ask(
        &mut self,
        server: &mut impl Server,
        payload: &[u8],
        segments: u64,
    ) -> std::time::Duration {
        let mut time = std::time::Duration::ZERO;
        let mut sent = 0;
        while sent < segments {
            let batch = self.next_batch();
            let received = |clients: &[Client]| -> Vec<u32> {
                batch.iter().map(|&index| clients[index].rcv_nxt).collect()
            };
            let before = received(&self.clients);
            time += self.exchange(server, &batch, Flags::ACK | Flags::PSH, payload);
            let after = received(&self.clients);
            let answered = before
                .iter()
                .zip(&after)
                .all(|(before, after)| before != after);
            assert!(answered, "what is not answered is cheap");
            sent += batch.len() as u64;
        }
        time.mul_f64(segments as f64 / sent as f64)
    }

    /// Opens, uses and closes at least `connections` connections, in batches.
    fn come_and_go(&mut self, server: &mut impl Server, connections: u64) -> std::time::Duration {
        let mut time = std::time::Duration::ZERO;
        let mut opened = 0;
        while opened < connections {
            let batch = self.next_batch();
            for (flags, payload) in [
                (Flags::SYN, &[][..]),
                (Flags::ACK, &[]),
                (Flags::ACK | Flags::PSH, REQUEST),
                (Flags::ACK | Flags::FIN, &[]),
                (Flags::ACK, &[]),
            ] {
                time += self.exchange(server, &batch, flags, payload);
            }
            opened += batch.len() as u64;
        }
        time.mul_f64(connections as f64 / opened as f64)
    }

    fn next_batch(&mut self) -> Vec<usize> {
        let count = self.clients.len();
        let batch = BATCH.min(count);
        let first = self.next;
        self.next = (first + batch) % count;
        (first..first + batch).map(|index| index % count).collect()
    }

    /// Lets each client of the batch send a segment, times what the server does with all of them, and
    /// reads what it answers.
    fn exchange(
        &mut self,
        server: &mut impl Server,
        batch: &[usize],
        flags: Flags,
        payload: &[u8],
    ) -> std::time::Duration {
        for &index in batch {
            let client = &mut self.clients[index];
            let frame = TcpFrame {
                seq: client.snd_nxt,
                ack: client.rcv_nxt,
                flags,
                options: match flags.contains(Flags::SYN) {
                    true => SYN_OPTIONS,
                    false => &[],
                },
                payload,
                ..TcpFrame::new(client.source, crate::server())
            };
            frame.write(server.link().inject(frame.len()).unwrap());
            let occupied = payload.len() + usize::from(flags.intersects(Flags::SYN | Flags::FIN));
            client.snd_nxt = client.snd_nxt.wrapping_add(occupied as u32);
        }
        self.now += Duration::from_micros(7);
        let started_at = Clock::now();
        server.poll(self.now);
        let time = started_at.elapsed();
        while server.link().take(|frame| self.read(frame)).is_some() {}
        time
    }

    fn read(&mut self, frame: &[u8]) {
        let segment = TcpView::read(frame).unwrap();
        let SocketAddr::V4(to) = segment.destination else {
            panic!("an IPv6 reply")
        };
        let address = (to.ip().to_bits() - 0x0a4d_0100) as usize;
        let client = &mut self.clients[address * PORTS + usize::from(to.port() - 10_000)];
        assert!(!segment.flags.contains(Flags::RST));
        assert!(segment.flags.contains(Flags::SYN) || segment.seq == client.rcv_nxt);
        client.rcv_nxt = segment.seq.wrapping_add(segment.sequence_len());
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = requests, churn
}
criterion_main!(benches);
