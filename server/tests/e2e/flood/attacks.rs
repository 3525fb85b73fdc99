//! The attacks, one function each.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use barewire_tcp::packet::Flags;
use barewire_tcp::random::Random;
use barewire_tcp_testing::frame::TcpFrame;
use rustix::net::SendFlags;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::Target;
use crate::raw::Wire;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// SYNs from random addresses, each as if it began a connection.
    Syns,
    /// Segments with random flags and numbers; half of them claim to be the witness's.
    Segments,
    /// RSTs with random numbers; half of them claim to be the witness's.
    Resets,
    /// IPv4 fragments of 8 bytes.
    Fragments,
    /// Connections that say nothing.
    Idle,
    /// Connections that send a request a byte at a time.
    Slowloris,
    /// More connections than there can be, kept in all ways in which one can be kept. Those that end come again.
    Exhaustion,
}

impl Attack {
    pub const ALL: [Attack; 6] = [
        Attack::Syns,
        Attack::Segments,
        Attack::Resets,
        Attack::Fragments,
        Attack::Idle,
        Attack::Slowloris,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Attack::Syns => "SYN flood",
            Attack::Segments => "random seg.",
            Attack::Resets => "RST flood",
            Attack::Fragments => "fragments",
            Attack::Idle => "idle conn.",
            Attack::Slowloris => "slowloris",
            Attack::Exhaustion => "exhaustion",
        }
    }

    /// The server's counters that show that the attack arrived, and what became of it.
    pub fn evidence(self) -> &'static [&'static str] {
        match self {
            Attack::Syns => &["syncookies_sent", "half_open_timeouts"],
            Attack::Segments => &[
                "unknown_flow_ignored",
                "unknown_flow_elsewhere",
                "out_rsts",
                "rsts_skipped",
                "discard_tcp_flags",
                "syncookies_failed",
                "syncookies_sent",
                "half_open_timeouts",
                "rst_out_of_window",
                "syn_challenge",
                "ack_unsent",
                "ack_too_old",
                "beyond_window",
                "challenge_acks_skipped",
            ],
            Attack::Resets => &[
                "unknown_flow_ignored",
                "rst_out_of_window",
                "tw_rsts_ignored",
            ],
            Attack::Fragments => &["passed_fragment"],
            Attack::Idle => &["passive_opens"],
            Attack::Slowloris => &["head_timeouts"],
            Attack::Exhaustion => &["evictions", "socket_evictions"],
        }
    }

    /// Runs the attack for as long as the settings say; returns how much of it there was.
    pub fn run(self, target: &Target) -> u64 {
        let random = &mut Random::new(0xf100d);
        let settings = target.settings;
        match self {
            Attack::Syns => send(target, |target| {
                let frame = segment(target, stranger(target, random), random);
                let flags = Flags::SYN;
                TcpFrame { flags, ..frame }.to_vec()
            }),
            Attack::Segments => send(target, |target| {
                let source = anybody(target, random);
                let payload = [0x5a; 200];
                let len = random.below(payload.len() as u64) as usize;
                let frame = segment(target, source, random);
                TcpFrame {
                    flags: Flags(random.below(64) as u8),
                    payload: &payload[..len],
                    ..frame
                }
                .to_vec()
            }),
            Attack::Resets => send(target, |target| {
                let frame = segment(target, anybody(target, random), random);
                let flags = Flags::RST;
                TcpFrame { flags, ..frame }.to_vec()
            }),
            Attack::Fragments => send(target, |target| fragment(target, random)),
            Attack::Idle => hold_connections(target, settings.idle_connections, settings.duration),
            Attack::Slowloris => slowloris(target, 200),
            Attack::Exhaustion => exhaust(target, settings.exhausting_connections),
        }
    }
}

/// Sends frames at the rate of the settings, or as fast as it goes.
fn send(target: &Target, mut make: impl FnMut(&Target) -> Vec<u8>) -> u64 {
    const BURST_FRAMES: u64 = 256;
    let wire = Wire::open();
    let (started, settings) = (Instant::now(), target.settings);
    let mut sent = 0;
    while started.elapsed() < settings.duration {
        let due = started.elapsed().as_secs_f64() * f64::from(settings.frames_per_s);
        let due = (due as u64).min(sent + BURST_FRAMES);
        if sent == due {
            thread::sleep(Duration::from_millis(1));
        }
        while sent < due {
            wire.send(&make(target));
            sent += 1;
        }
    }
    sent
}

/// A segment of `source` with random numbers.
fn segment<'a>(target: &Target, source: SocketAddr, random: &mut Random) -> TcpFrame<'a> {
    let is_same_family = |address: &&SocketAddr| address.is_ipv6() == source.is_ipv6();
    let destination = target.addresses.iter().find(is_same_family).unwrap();
    TcpFrame {
        destination_mac: target.mac,
        seq: random.below(1 << 32) as u32,
        ack: random.below(1 << 32) as u32,
        ..TcpFrame::new(source, *destination)
    }
}

/// A random address of the lab's networks, and a random port.
fn stranger(target: &Target, random: &mut Random) -> SocketAddr {
    let address = random.choose(&target.addresses).ip();
    let address: IpAddr = match address {
        IpAddr::V4(_) => [10, 77, 0, 3 + random.below(252) as u8].into(),
        IpAddr::V6(_) => {
            let host = u128::from(random.below(u64::MAX) | 1 << 63);
            Ipv6Addr::from_bits(0xfd77_u128 << 112 | host).into()
        }
    };
    (address, 1_024 + random.below(64_000) as u16).into()
}

/// The well-behaved client, in half of the cases, or another one.
fn anybody(target: &Target, random: &mut Random) -> SocketAddr {
    match random.hits(500) {
        true => {
            let address: IpAddr = match random.choose(&target.addresses).ip() {
                IpAddr::V4(_) => [10, 77, 0, 1].into(),
                IpAddr::V6(_) => Ipv6Addr::from_bits(0xfd77_u128 << 112 | 1).into(),
            };
            (address, target.witness_port.load(Ordering::Relaxed)).into()
        }
        false => stranger(target, random),
    }
}

/// A fragment in the middle of a packet that never becomes whole.
fn fragment(target: &Target, random: &mut Random) -> Vec<u8> {
    const IP: usize = 14;
    let source = SocketAddr::from(([10, 77, 0, 3 + random.below(252) as u8], 1_024));
    let frame = segment(target, source, random);
    let mut frame = frame.to_vec();
    frame.truncate(IP + 20 + 8);
    frame[IP + 2..IP + 4].copy_from_slice(&28_u16.to_be_bytes());
    let id = random.below(1 << 16) as u16;
    frame[IP + 4..IP + 6].copy_from_slice(&id.to_be_bytes());
    let more_fragments = 0x2000 | random.below(1 << 12) as u16;
    frame[IP + 6..IP + 8].copy_from_slice(&more_fragments.to_be_bytes());
    frame[IP + 10..IP + 12].fill(0);
    let words = frame[IP..IP + 20].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[IP + 10..IP + 12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame
}

/// Opens so many connections, says nothing for a while, and closes them.
pub fn hold_connections(target: &Target, count: usize, pause: Duration) -> u64 {
    let nofile = getrlimit(Resource::Nofile);
    let all = rustix::process::Rlimit {
        current: nofile.maximum,
        ..nofile
    };
    setrlimit(Resource::Nofile, all).unwrap();
    let mut connections = Vec::new();
    for address in target.addresses.iter().cycle().take(count) {
        connections.push(TcpStream::connect(address).unwrap());
    }
    thread::sleep(pause);
    connections.len() as u64
}

/// Keeps so many connections busy with a request that never ends; those that are cut come again.
fn slowloris(target: &Target, count: usize) -> u64 {
    let began = b"GET /plaintext HTTP/1.1\r\nHost: test\r\nX-Slow: ";
    let mut opened = 0;
    let mut connect = |number: usize| {
        let address = target.addresses[number % target.addresses.len()];
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(began).unwrap();
        opened += 1;
        stream
    };
    let mut connections: Vec<_> = (0..count).map(&mut connect).collect();
    let started = Instant::now();
    while started.elapsed() < target.settings.duration {
        for (number, connection) in connections.iter_mut().enumerate() {
            if connection.write_all(b"x").is_err() {
                *connection = connect(number);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    opened
}

/// Keeps so many connections: one of three is silent, one does not end its request and takes a
/// socket, one does not read its answers.
fn exhaust(target: &Target, count: usize) -> u64 {
    /// Connections that come again at most before the others are looked at.
    const AGAIN: usize = 16;
    let requests = b"GET /plaintext HTTP/1.1\r\nHost: test\r\n\r\n".repeat(8_000);
    let mut opened = 0;
    let mut connect = |number: usize| -> Option<TcpStream> {
        let address = target.addresses[number % target.addresses.len()];
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_nonblocking(true).unwrap();
        opened += 1;
        // Whatever becomes of it: who is cut off comes again.
        let _ = match number % 3 {
            0 => Ok(0),
            // Urgent data takes a smoltcp socket.
            1 => {
                let half = b"GET /plaintext HTTP/1.1\r\nHost: test\r\nX-Slow: ";
                rustix::net::send(&stream, half, SendFlags::OOB).map_err(Into::into)
            }
            _ => stream.write(&requests),
        };
        Some(stream)
    };
    let mut connections: Vec<_> = (0..count).map(&mut connect).collect();
    let started = Instant::now();
    while started.elapsed() < target.settings.duration {
        let is_over = |connection: &mut Option<TcpStream>| {
            let mut byte = [0];
            match connection {
                // One of three has much to read, and is not to.
                Some(stream) => match stream.peek(&mut byte) {
                    Ok(0) => true,
                    Ok(_) => false,
                    Err(error) => error.kind() != ErrorKind::WouldBlock,
                },
                None => true,
            }
        };
        let over = connections.iter_mut().enumerate();
        let over: Vec<usize> = over
            .filter_map(|(number, connection)| is_over(connection).then_some(number))
            .take(AGAIN)
            .collect();
        for number in over {
            connections[number] = connect(number);
        }
        thread::sleep(Duration::from_millis(10));
    }
    opened
}
