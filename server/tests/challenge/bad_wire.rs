//! Events over a wire that loses, doubles, damages and reorders frames, from a seed.
//!
//! Two shards share the count, each behind a wire of its own, as on two cores. Every client checks
//! every byte of its replies, so it has its acknowledgements, and TCP's retransmissions must not make
//! the server count anything twice.

use std::net::SocketAddr;
use std::sync::Arc;

use barewire::events::{Events, EventsConfig};
use barewire::site::SiteResponder;
use barewire_conformance::driver::{Driver, Memory};
use barewire_service::deadline::Deadlines;
use barewire_service::service::Service;
use barewire_service::time::{Duration, Instant};
use barewire_tcp::config::StackConfig;
use barewire_tcp::guard::Secrets;
use barewire_tcp::link::faulty::{Faults, FaultyLink};
use barewire_tcp::link::memory::{MemoryLink, MemoryLinkConfig};
use barewire_tcp::packet::{Flags, Local};
use barewire_tcp::shard::Shard;
use barewire_tcp_testing::client::{Client, ClientConfig};
use barewire_tcp_testing::frame::TcpView;

use crate::event::{Framing, event};
use crate::server::responder;

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 8080);
/// Clients of each core.
const CLIENTS: u16 = 8;
/// Events of each client.
const EVENTS: usize = 40;
/// Constant, so that `Date` is.
const UNIX_TIME_S: u64 = 784_111_777;

const BAD: Faults = Faults {
    loss_permille: 100,
    burst_permille: 5,
    burst_frames: 4,
    duplicate_permille: 100,
    corrupt_permille: 30,
    reorder_permille: 100,
    reorder_delay_us: 3_000,
    delay_us: 500,
    jitter_us: 500,
};

#[test]
fn what_was_acknowledged_is_counted_once() {
    for seed in 0..20 {
        let events = Events::new(EventsConfig::new(2)).unwrap();
        for core in 0..2 {
            let mut wire = Wire::new(&events, core, seed);
            wire.run_until(|peers| peers.iter().all(|peer| peer.client.is_done()));
            assert_ne!(wire.lost(), 0, "seed {seed}");
        }
        let stats = events.stats();
        let count = 2 * usize::from(CLIENTS) * EVENTS;
        assert_eq!(stats.total_requests, count as u64, "seed {seed}");
        assert_eq!(stats.unique_users, 2 * u64::from(CLIENTS), "seed {seed}");
        // As many tenths, rounded once.
        assert_eq!(stats.sum, count as f64 * 0.1, "seed {seed}");
    }
}

#[test]
fn of_clients_that_vanish_counts_what_was_acknowledged_and_no_more_than_was_sent() {
    for seed in 0..20 {
        let events = Events::new(EventsConfig::new(1)).unwrap();
        let mut wire = Wire::new(&events, 0, seed);
        let enough = 1 + 15 * seed;
        wire.run_until(|peers| peers.iter().map(Peer::acknowledged).sum::<u64>() >= enough);
        let peers = std::mem::take(&mut wire.peers);
        wire.pass(Duration::from_secs(1));

        let acknowledged: u64 = peers.iter().map(Peer::acknowledged).sum();
        let sent: u64 = peers.iter().map(Peer::sent).sum();
        let counted = events.stats().total_requests;
        assert!(
            (acknowledged..=sent).contains(&counted),
            "seed {seed}: {counted} counted, {acknowledged} acknowledged, {sent} sent"
        );
    }
}

/// A core of the server, and clients at the other end of its bad wire.
struct Wire {
    shard: Shard<'static, FaultyLink<MemoryLink>, SiteResponder>,
    peers: Vec<Peer>,
    now: Instant,
}

/// A client, and how far it got.
struct Peer {
    client: Client,
    address: SocketAddr,
    iss: u32,
    /// The server's first sequence number, once known.
    irs: Option<u32>,
    sent_bytes: u32,
    received_bytes: u32,
    request_bytes: usize,
    reply_bytes: usize,
}

impl Wire {
    fn new(events: &Arc<Events>, core: usize, seed: u64) -> Self {
        let now = Instant::from_secs(1_000);
        let config = StackConfig {
            connections: 64,
            half_open: 32,
            time_wait: 64,
            // On such a wire, retransmissions back off for longer than a server should wait by default.
            deadlines: Deadlines {
                send_ms: 300_000,
                close_ms: 300_000,
                user_timeout_ms: 300_000,
                ..Deadlines::default()
            },
            ..StackConfig::default()
        };
        let server = SocketAddr::from(SERVER);
        let local = Local::new(&[server.ip()], &[server.port()]).unwrap();
        let link = MemoryLink::new(MemoryLinkConfig {
            frame_bytes: config.mtu + 18,
            ..MemoryLinkConfig::default()
        });
        let links = vec![FaultyLink::new(link, BAD, seed)];
        let secrets = Secrets::from_seed(seed);
        let buffers = vec![0; config.arena_bytes()].leak();
        let service = responder(events, core);
        let mut shard = Shard::new(config, local, &secrets, links, service, buffers, now).unwrap();
        shard.set_unix_time(UNIX_TIME_S);
        let peers = (0..CLIENTS)
            .map(|number| Peer::new(core, number, now))
            .collect();
        Wire { shard, peers, now }
    }

    /// Lets clients and server talk until `is_enough`.
    fn run_until(&mut self, is_enough: impl Fn(&[Peer]) -> bool) {
        let end = self.now + Duration::from_secs(600);
        while !is_enough(&self.peers) {
            self.step();
            assert!(self.now < end, "clients and server wait for each other");
        }
    }

    /// Lets the server do what it does without an answer.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    /// Client and server do what is due now; then the clock advances.
    fn step(&mut self) {
        let now = self.now;
        let link = self.shard.links_mut()[0].inner_mut();
        for peer in &mut self.peers {
            peer.send(now, link);
        }
        self.shard.poll(now);
        let link = self.shard.links_mut()[0].inner_mut();
        while let Some(frame) = link.take(<[u8]>::to_vec) {
            // Damaged frames are not read.
            let Some(segment) = TcpView::read(&frame) else {
                continue;
            };
            let to = self
                .peers
                .iter_mut()
                .find(|peer| peer.address == segment.destination);
            if let Some(peer) = to {
                peer.receive(now, &segment);
            }
        }
        self.now += Duration::from_micros(100);
    }

    fn lost(&self) -> u64 {
        self.shard.links()[0].fault_counters().lost.get()
    }
}

impl Peer {
    fn new(core: usize, number: u16, now: Instant) -> Self {
        let address = SocketAddr::from(([10, 0, 0, 1], 40_000 + 100 * core as u16 + number));
        let request = Framing::Length.frame(&event(&address.to_string(), 0.1));
        let mut last = request.clone();
        let behind_line = b"POST /event HTTP/1.1\r\n".len();
        last.splice(behind_line..behind_line, *b"Connection: close\r\n");
        let send = [request.repeat(EVENTS - 1), last].concat();

        // What a wire without faults would bring.
        let scratch = Events::new(EventsConfig::new(1)).unwrap();
        let mut service = responder(&scratch, 0);
        service.on_clock(UNIX_TIME_S);
        let expect = Memory::new(service).exchange(&[&send]).unwrap();
        let last_reply_bytes = expect
            .windows(8)
            .rev()
            .position(|w| w == b"HTTP/1.1")
            .unwrap()
            + 8;
        let reply_bytes = (expect.len() - last_reply_bytes) / (EVENTS - 1);

        let iss = 0x7fff_0000 + u32::from(number) * 0x1_0000;
        let config = ClientConfig {
            source: address,
            destination: SERVER.into(),
            vlan: None,
            iss,
            mss: 600,
            window: 4_000,
            in_flight: 2_000,
            send,
            expect,
            expect_reset: false,
        };
        Peer {
            client: Client::new(config, now),
            address,
            iss,
            irs: None,
            sent_bytes: 0,
            received_bytes: 0,
            request_bytes: request.len(),
            reply_bytes,
        }
    }

    fn send(&mut self, now: Instant, link: &mut MemoryLink) {
        self.client.send(now, |frame| {
            let end = frame.seq.wrapping_add(frame.payload.len() as u32);
            let sent_bytes = end.wrapping_sub(self.iss.wrapping_add(1)) as i32;
            self.sent_bytes = self.sent_bytes.max(sent_bytes.max(0) as u32);
            if let Some(irs) = self.irs {
                self.received_bytes = frame.ack.wrapping_sub(irs.wrapping_add(1));
            }
            // A full wire loses the frame, which is what this wire is for.
            link.push(&frame.to_vec());
        });
    }

    fn receive(&mut self, now: Instant, segment: &TcpView<'_>) {
        if segment.flags.contains(Flags::SYN) {
            self.irs = Some(segment.seq);
        }
        self.client.receive(now, segment).unwrap();
    }

    /// Events that it knows to be counted.
    fn acknowledged(&self) -> u64 {
        (self.received_bytes as usize / self.reply_bytes).min(EVENTS) as u64
    }

    /// Events that it has sent to the end.
    fn sent(&self) -> u64 {
        (self.sent_bytes as usize / self.request_bytes).min(EVENTS) as u64
    }
}
