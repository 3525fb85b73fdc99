//! What the fuzz targets run, and short property tests with them.
//!
//! Both give a small shard what nobody in their right mind would send. It must not panic, must send
//! nothing but well-formed segments, and must have forgotten everything once its deadlines have passed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arbitrary::{Arbitrary, Unstructured};

use super::frame::{TcpFrame, TcpView};
use super::icmp::too_big;
use super::service::{Command, CommandService};
use barewire_service::time::{Duration, Instant};
use barewire_tcp::config::{DirectPath, StackConfig, UnknownFlow};
use barewire_tcp::guard::Secrets;
use barewire_tcp::link::memory::{MemoryLink, MemoryLinkConfig};
use barewire_tcp::packet::{ChecksumPolicy, Flags, Local};
use barewire_tcp::shard::Shard;

/// Arbitrary frames into a shard: one byte of settings, then frames, each behind a byte for the time
/// that passes before it and two for its length.
pub fn packet(data: &[u8]) {
    let Some((&settings, mut rest)) = data.split_first() else {
        return;
    };
    let settings = Settings {
        trusts_checksums: settings & 1 != 0,
        half_open: u32::from(settings >> 1 & 3),
        ignores_unknown: settings & 8 != 0,
        is_ipv6: false,
    };
    let mut buffers = settings.buffers();
    let mut bench = Bench::new(&settings, &mut buffers);
    while let Some((&[wait, high, low], frames)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(frames.len());
        let (frame, frames) = frames.split_at(len);
        rest = frames;
        bench.wait(u32::from(wait) * 10);
        bench.send(frame);
    }
    bench.wind_down();
}

/// Well-formed segments, with numbers near those that matter, into a live connection.
pub fn segments(data: &[u8]) {
    let mut source = Unstructured::new(data);
    let Ok(settings) = Settings::arbitrary(&mut source) else {
        return;
    };
    let mut buffers = settings.buffers();
    let mut bench = Bench::new(&settings, &mut buffers);
    bench.open();
    while !source.is_empty() {
        match Step::arbitrary(&mut source) {
            Ok(Step::Segment(segment)) => bench.send_segment(&segment),
            Ok(Step::Wait { ms }) => bench.wait(ms % 100_000),
            Ok(Step::Open) => bench.open(),
            Err(_) => break,
        }
    }
    bench.wind_down();
}

#[derive(Debug, Arbitrary)]
struct Settings {
    trusts_checksums: bool,
    half_open: u32,
    ignores_unknown: bool,
    is_ipv6: bool,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Segment(ArbitrarySegment),
    Wait { ms: u32 },
    Open,
}

#[derive(Debug, Arbitrary)]
struct ArbitrarySegment {
    port: u8,
    /// From where the peer is in its stream.
    seq: i16,
    /// From what the peer has received.
    ack: i16,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: Payload,
}

#[derive(Debug, Arbitrary)]
enum Payload {
    Nothing,
    Echo(u8),
    Stream(u16),
    Close,
    Abort,
    Zeros(u16),
}

/// A shard and what its peer knows.
struct Bench<'a> {
    shard: Shard<'a, MemoryLink, CommandService>,
    now: Instant,
    is_ipv6: bool,
    /// Of each port, where the peer is.
    peers: [Peer; PORTS],
}

#[derive(Clone, Copy, Default)]
struct Peer {
    snd_nxt: u32,
    rcv_nxt: u32,
}

const PORTS: usize = 3;
const FIRST_PORT: u16 = 40_000;
const SERVER_PORT: u16 = 8080;
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

impl Settings {
    fn config(&self) -> StackConfig {
        StackConfig {
            connections: 4,
            half_open: self.half_open % 4,
            // With the direct path, fewer than may be wanted.
            sockets: 2,
            source_connections: 3,
            time_wait: 2,
            receive_buffer_bytes: 2_000,
            send_buffer_bytes: 2_000,
            checksums: match self.trusts_checksums {
                true => ChecksumPolicy::Trust,
                false => ChecksumPolicy::Verify,
            },
            unknown_flow: match self.ignores_unknown {
                true => UnknownFlow::Ignore,
                false => UnknownFlow::Reset,
            },
            direct_path: super::direct_path().unwrap_or(DirectPath::Always),
            ..StackConfig::default()
        }
    }

    fn buffers(&self) -> Vec<u8> {
        vec![0; self.config().arena_bytes()]
    }
}

impl<'a> Bench<'a> {
    fn new(settings: &Settings, buffers: &'a mut [u8]) -> Bench<'a> {
        let now = Instant::from_secs(1_000);
        let addresses = [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)];
        let local = Local::new(&addresses, &[SERVER_PORT]).expect("two addresses and a port");
        let link = MemoryLink::new(MemoryLinkConfig {
            frames: 32,
            ..MemoryLinkConfig::default()
        });
        let shard = Shard::new(
            settings.config(),
            local,
            &Secrets::from_seed(1),
            vec![link],
            CommandService::default(),
            buffers,
            now,
        )
        .expect("the configuration is valid");
        Bench {
            shard,
            now,
            is_ipv6: settings.is_ipv6,
            peers: [Peer::default(); PORTS],
        }
    }

    fn wait(&mut self, ms: u32) {
        self.now += Duration::from_millis(u64::from(ms));
        self.poll();
    }

    fn send(&mut self, frame: &[u8]) {
        self.shard.links_mut()[0].push(frame);
        self.now += Duration::from_micros(10);
        self.poll();
    }

    /// Lets the peer of each port in turn connect.
    fn open(&mut self) {
        for port in 0..PORTS {
            let isn = 0xffff_ff00u32.wrapping_add(port as u32);
            let syn = TcpFrame {
                seq: isn,
                flags: Flags::SYN,
                options: &[2, 4, 5, 0xb4, 1, 3, 3, 2],
                ..self.frame(port)
            };
            self.send(&syn.to_vec());
            self.peers[port].snd_nxt = isn.wrapping_add(1);
            let ack = TcpFrame {
                seq: self.peers[port].snd_nxt,
                ack: self.peers[port].rcv_nxt,
                ..self.frame(port)
            };
            self.send(&ack.to_vec());
        }
    }

    fn send_segment(&mut self, segment: &ArbitrarySegment) {
        let payload = segment.payload.bytes();
        let port = usize::from(segment.port) % PORTS;
        let peer = self.peers[port];
        let mut options = segment.options.clone();
        options.resize(options.len().min(40).next_multiple_of(4), 0);
        let seq = peer.snd_nxt.wrapping_add_signed(segment.seq.into());
        let frame = TcpFrame {
            seq,
            ack: peer.rcv_nxt.wrapping_add_signed(segment.ack.into()),
            flags: Flags(segment.flags),
            window: segment.window,
            options: &options,
            payload: &payload,
            ..self.frame(port)
        };
        if segment.seq == 0 {
            self.peers[port].snd_nxt = seq.wrapping_add(payload.len() as u32);
        }
        self.send(&frame.to_vec());
    }

    fn frame(&self, port: usize) -> TcpFrame<'static> {
        let (source, destination): (IpAddr, IpAddr) = match self.is_ipv6 {
            true => (PEER_V6.into(), SERVER_V6.into()),
            false => (PEER_V4.into(), SERVER_V4.into()),
        };
        TcpFrame::new(
            SocketAddr::new(source, FIRST_PORT + port as u16),
            SocketAddr::new(destination, SERVER_PORT),
        )
    }

    fn poll(&mut self) {
        self.shard.poll(self.now);
        let Bench { shard, peers, .. } = self;
        while let Some(()) = shard.links_mut()[0].take(|frame| {
            let segment = TcpView::read(frame).expect("the shard sent something malformed");
            assert_eq!(segment.source.port(), SERVER_PORT);
            let port = segment.destination.port().wrapping_sub(FIRST_PORT);
            if let Some(peer) = peers.get_mut(usize::from(port)) {
                peer.rcv_nxt = segment.seq.wrapping_add(segment.sequence_len());
            }
        }) {}
    }

    /// Lets every deadline pass, and looks for what is left.
    fn wind_down(&mut self) {
        /// More than all deadlines of all connections take together.
        const POLLS_MAX: usize = 10_000;

        for _ in 0..POLLS_MAX {
            let Some(next) = self.shard.next_deadline(self.now) else {
                break;
            };
            self.now = next.max(self.now + Duration::from_millis(1));
            self.poll();
        }
        assert_eq!(self.shard.connections(), 0, "connections left");
        assert_eq!(self.shard.time_waits(), 0, "TIME-WAIT records left");
        assert_eq!(self.shard.flows(), 0, "flows left");
        assert_eq!(self.shard.timers(), 0, "timers left");
    }
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        const PAYLOAD_BYTES_MAX: usize = 1_400;

        let command = match *self {
            Payload::Nothing => return Vec::new(),
            Payload::Zeros(len) => return vec![0; usize::from(len) % PAYLOAD_BYTES_MAX],
            Payload::Echo(len) => Command::Echo { len: len.into() },
            Payload::Stream(len) => Command::Stream { len: len.into() },
            Payload::Close => Command::Close,
            Payload::Abort => Command::Abort,
        };
        let mut bytes = command.encode().to_vec();
        if let Command::Echo { len } = command {
            bytes.resize(bytes.len() + len as usize, b'.');
        }
        bytes
    }
}

/// Inputs for [`packet`] from which a fuzzer finds its way: whole conversations.
pub fn packet_corpus() -> Vec<(&'static str, Vec<u8>)> {
    let mut conversations = Vec::new();
    for (name, settings, is_ipv6) in [("ipv4", 9, false), ("cookies", 1, false), ("ipv6", 3, true)]
    {
        let settings_of_frames = Settings {
            trusts_checksums: true,
            half_open: 1,
            ignores_unknown: false,
            is_ipv6,
        };
        let mut buffers = settings_of_frames.buffers();
        let bench = Bench::new(&settings_of_frames, &mut buffers);
        let echo = Payload::Echo(4).bytes();
        let frames = [
            (Flags::SYN, 0, &[][..]),
            (Flags::ACK, 1, &[]),
            (Flags::ACK | Flags::PSH, 1, &echo),
            (Flags::ACK | Flags::FIN, 10, &[]),
            (Flags::RST, 11, &[]),
        ];
        let mut frames: Vec<_> = frames
            .map(|(flags, seq, payload)| TcpFrame {
                vlan: is_ipv6.then_some(7),
                seq,
                flags,
                payload,
                ..bench.frame(0)
            })
            .map(|frame| frame.to_vec())
            .into();
        frames.insert(3, message_of_a_router(&bench.frame(0)));
        let mut input = vec![settings];
        for frame in frames {
            input.push(1);
            input.extend((frame.len() as u16).to_be_bytes());
            input.extend(frame);
        }
        conversations.push((name, input));
    }
    conversations
}

/// That an answer to `frame` was too big.
fn message_of_a_router(frame: &TcpFrame<'_>) -> Vec<u8> {
    let sent = TcpFrame {
        source: frame.destination,
        destination: frame.source,
        payload: &[0; 1_400],
        ..*frame
    };
    let ip_header_len = if frame.source.is_ipv6() { 40 } else { 20 };
    too_big(&sent.to_vec(), frame.source.ip(), 1_300, ip_header_len + 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_corpus_runs() {
        for (_, input) in packet_corpus() {
            packet(&input);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_shard_survives_arbitrary_frames(
            mut input in prop::sample::select(packet_corpus()).prop_map(|(_, input)| input),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
            tail in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            for (at, value) in changes {
                let at = at.index(input.len());
                input[at] = value;
            }
            input.extend(tail);
            packet(&input);
        }

        #[test]
        fn a_connection_survives_arbitrary_segments(
            input in prop::collection::vec(any::<u8>(), 0..2_000),
        ) {
            segments(&input);
        }
    }
}
