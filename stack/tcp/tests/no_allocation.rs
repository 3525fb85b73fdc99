//! After start-up a shard allocates nothing: not per request, not per connection, not for errors.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr};

use allocation_counter::measure;
use barewire_service::time::{Duration, Instant};
use barewire_tcp::config::{DirectPath, StackConfig, WhenFull};
use barewire_tcp::guard::Secrets;
use barewire_tcp::link::memory::{MemoryLink, MemoryLinkConfig};
use barewire_tcp::packet::{Flags, Local};
use barewire_tcp::shard::Shard;
use barewire_tcp_testing::frame::{TcpFrame, TcpView};
use barewire_tcp_testing::service::{Command, CommandService};

const CONNECTIONS: u16 = 2_000;
const ROUNDS: u16 = 4;
const REQUESTS: usize = 3;
const SERVER: &str = "10.77.0.2:8080";

/// Where one client is in its streams.
#[derive(Clone, Copy, Default)]
struct Peer {
    snd_nxt: u32,
    rcv_nxt: u32,
}

struct World<'a> {
    shard: Shard<'a, MemoryLink, CommandService>,
    peers: Vec<Peer>,
    server: SocketAddr,
    first_port: u16,
    now: Instant,
    replies: usize,
}

impl World<'_> {
    /// Sends a segment from each client and takes what the shard answers.
    fn each_sends(&mut self, segment: impl Fn(usize, Peer) -> Option<TcpFrame<'static>>) {
        for index in 0..self.peers.len() {
            let Some(frame) = segment(index, self.peers[index]) else {
                continue;
            };
            self.send(&TcpFrame {
                source: self.source(index),
                destination: self.server,
                ..frame
            });
            if frame.flags == Flags::SYN {
                self.peers[index].snd_nxt = frame.seq;
            }
            if !frame.flags.contains(Flags::RST) {
                let len = frame.payload.len() as u32
                    + u32::from(frame.flags.intersects(Flags::SYN | Flags::FIN));
                self.peers[index].snd_nxt = self.peers[index].snd_nxt.wrapping_add(len);
            }
        }
        self.poll();
    }

    fn send(&mut self, frame: &TcpFrame<'_>) {
        loop {
            if let Some(space) = self.shard.links_mut()[0].inject(frame.len()) {
                frame.write(space);
                return;
            }
            self.poll();
        }
    }

    fn source(&self, index: usize) -> SocketAddr {
        (Ipv4Addr::new(10, 77, 0, 1), self.first_port + index as u16).into()
    }

    fn poll(&mut self) {
        loop {
            self.now += Duration::from_micros(7);
            let activity = self.shard.poll(self.now);
            self.take_replies();
            if activity.frames == 0 && !activity.is_sending {
                return;
            }
        }
    }

    fn take_replies(&mut self) {
        let World {
            shard,
            peers,
            first_port,
            replies,
            ..
        } = self;
        while let Some(()) = shard.links_mut()[0].take(|frame| {
            let segment = TcpView::read(frame).unwrap();
            let index = segment.destination.port().wrapping_sub(*first_port);
            if let Some(peer) = peers.get_mut(usize::from(index)) {
                peer.rcv_nxt = segment.seq.wrapping_add(segment.sequence_len());
            }
            *replies += usize::from(!segment.payload.is_empty());
        }) {}
    }
}

#[test]
fn nothing_is_allocated_after_the_start() {
    for direct_path in [DirectPath::Never, DirectPath::Always, DirectPath::Random(1)] {
        nothing_is_allocated(direct_path);
    }
}

fn nothing_is_allocated(direct_path: DirectPath) {
    let config = StackConfig {
        connections: u32::from(CONNECTIONS),
        half_open: u32::from(CONNECTIONS) / 2,
        when_full: WhenFull::Refuse,
        time_wait: 500,
        receive_buffer_bytes: 2_048,
        send_buffer_bytes: 2_048,
        direct_path,
        ..StackConfig::default()
    };
    let server: SocketAddr = SERVER.parse().unwrap();
    let local = Local::new(&[server.ip()], &[server.port()]).unwrap();
    let mut buffers = vec![0; config.arena_bytes()];
    let now = Instant::from_secs(1_000);
    let shard = Shard::new(
        config,
        local,
        &Secrets::from_seed(1),
        vec![MemoryLink::new(MemoryLinkConfig::default())],
        CommandService::default(),
        &mut buffers,
        now,
    )
    .unwrap();
    let mut world = World {
        shard,
        peers: vec![Peer::default(); usize::from(CONNECTIONS) + 100],
        server,
        first_port: 0,
        now,
        replies: 0,
    };
    let mut echo = Command::Echo { len: 100 }.encode().to_vec();
    echo.resize(Command::BYTES + 100, b'.');
    let echo: &'static [u8] = echo.leak();

    let allocated = measure(|| {
        for round in 0..ROUNDS {
            world.first_port = 1_000 + round * 3_000;
            run_round(&mut world, echo);
        }
    });

    let counters = world.shard.counters();
    assert!(
        counters.syncookies_overflows.get() > 0,
        "the shard was never full"
    );
    assert!(counters.syncookies_recv.get() > 0, "no cookie came back");
    assert!(counters.estab_resets.get() > 0 && counters.tw.get() > 0);
    assert!(counters.idle_timeouts.get() > 0 && counters.out_rsts.get() > 0);
    assert!(world.replies >= usize::from(CONNECTIONS * ROUNDS) * REQUESTS);
    assert_eq!(world.shard.connections(), 0);
    assert_eq!(allocated.count_total, 0);
    let allocated = measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(allocated.count_total, 1, "the counter does not count");
}

/// More clients than there is room for connect, ask, send what makes no sense, and leave in four ways.
fn run_round(world: &mut World<'_>, echo: &'static [u8]) {
    let blank = TcpFrame::new(world.server, world.server);
    let ack = |peer: Peer| TcpFrame {
        seq: peer.snd_nxt,
        ack: peer.rcv_nxt,
        ..blank
    };
    world.each_sends(|index, _| {
        Some(TcpFrame {
            seq: (index as u32).wrapping_mul(0x9e37_79b1),
            flags: Flags::SYN,
            options: &[2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7, 1, 1],
            ..blank
        })
    });
    world.each_sends(|_, peer| Some(ack(peer)));
    for _ in 0..REQUESTS {
        world.each_sends(|_, peer| {
            Some(TcpFrame {
                flags: Flags::ACK | Flags::PSH,
                payload: echo,
                ..ack(peer)
            })
        });
    }
    // In the window, beyond it, and impossible.
    world.each_sends(|_, peer| {
        Some(TcpFrame {
            seq: peer.snd_nxt.wrapping_add(50),
            ..ack(peer)
        })
    });
    world.each_sends(|_, peer| {
        Some(TcpFrame {
            seq: peer.snd_nxt.wrapping_add(1_000_000),
            ..ack(peer)
        })
    });
    world.each_sends(|_, peer| {
        Some(TcpFrame {
            flags: Flags::SYN | Flags::RST,
            ..ack(peer)
        })
    });
    // A quarter resets, one closes first, one lets us close first, one falls silent.
    world.each_sends(|index, peer| match index % 4 {
        0 => Some(TcpFrame {
            flags: Flags::RST | Flags::ACK,
            ..ack(peer)
        }),
        1 => Some(TcpFrame {
            flags: Flags::FIN | Flags::ACK,
            ..ack(peer)
        }),
        2 => Some(TcpFrame {
            flags: Flags::ACK | Flags::PSH,
            payload: b"c\0\0\0\0",
            ..ack(peer)
        }),
        _ => None,
    });
    world.each_sends(|index, peer| {
        let flags = match index % 4 {
            2 => Flags::ACK | Flags::FIN,
            _ => Flags::ACK,
        };
        (index % 4 != 3).then_some(TcpFrame { flags, ..ack(peer) })
    });
    while world.shard.connections() > 0 {
        world.now += Duration::from_secs(5);
        world.poll();
    }
}
