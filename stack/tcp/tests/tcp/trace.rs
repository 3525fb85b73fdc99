//! The notation of the traces, and what runs them.
//!
//! ```text
//! > [S] seq 0 win 64000 <mss 1460,wscale 7,sackOK>   a segment from the peer
//! < [S.] seq 0 ack 1 <mss 1460,wscale 0,sackOK>      the answer; what is not named is not compared
//! > [P.] seq 1 ack 1 <ts 7:0> "hello"                TSval and TSecr; ours relative to our first
//! > [P.] seq 1 ack 1 "hello"                          flags as in tcpdump, `.` is ACK
//! < [P.] seq 1 ack 6 "hello"
//! > [.] seq 6 ack 6 len 1000                          1,000 bytes of a pattern that depends on seq
//! 2> [S] seq 0                                         from another port of the peer
//! +1500ms                                              time passes; what is sent meanwhile follows
//! @ 1                                                  from here on by the shard's second link
//! ? challenge_acks 1                                   a counter or gauge of the shard
//! # a remark
//! ```
//!
//! In a trace of a shard that calls, the digit is that of our port, and the peer has but one.
//!
//! Sequence numbers are relative, as tcpdump shows them: to the peer's SYN, and to our last SYN or SYN|ACK.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use barewire_service::counters::Samples;
use barewire_service::service::{End, Expect, Input, Next, Progress, Reply, Service, Want};
use barewire_service::time::{Duration, Instant};
use barewire_tcp::config::{DirectPath, StackConfig};
use barewire_tcp::guard::Secrets;
use barewire_tcp::link::memory::{MemoryLink, MemoryLinkConfig};
use barewire_tcp::outbound::Outbound;
use barewire_tcp::packet::{self, ChecksumPolicy, Flags, Local, TcpOption};
use barewire_tcp::shard::Shard;
use barewire_tcp::shared::Shared;
use barewire_tcp::source_ports::SourcePorts;
use barewire_tcp_testing::direct_path;
use barewire_tcp_testing::frame::{TcpFrame, TcpView};

/// A shard, and the peer at the other end of its link, or links.
pub struct Trace {
    shard: Shard<'static, MemoryLink, TestService>,
    /// The link by which the peer sends and receives.
    link: usize,
    pub now: Instant,
    pub peer: IpAddr,
    pub server: IpAddr,
    /// The shard calls.
    calls: bool,
    pub vlan: Option<u16>,
    pub ip_options: &'static [u8],
    /// The peer's initial sequence number.
    pub peer_isn: u32,
    /// Of each port of the peer, the shard's initial sequence number.
    isns: HashMap<u16, u32>,
    /// The shard's first TSval.
    ts_base: Option<u32>,
    transcript: String,
}

const SERVER_PORT: u16 = 80;
const PEER_PORT: u16 = 40_000;
/// The first port that a shard calls from, less one.
pub const OUR_PORT: u16 = 50_000;
const SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x05];
const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0c];

/// The defaults, with the direct path that the environment names, and windows that are not scaled, so that traces show
/// them in bytes.
fn default_config() -> StackConfig {
    let config = StackConfig::default();
    StackConfig {
        receive_window_bytes_max: usize::from(u16::MAX),
        direct_path: direct_path().unwrap_or(config.direct_path),
        ..config
    }
}

/// Leaves all connections to smoltcp, for traces of its own timers, windows and segments.
pub fn on_sockets(config: &mut StackConfig) {
    config.direct_path = DirectPath::Never;
}

impl Trace {
    /// A peer of a service that sends back what it receives.
    pub fn echo() -> Trace {
        Trace::with(Mode::Echo, |_| {})
    }

    /// A peer of a service that answers lines; see [`TestService`].
    pub fn lines() -> Trace {
        Trace::with(Mode::Lines, |_| {})
    }

    pub fn echo_with(change: impl FnOnce(&mut StackConfig)) -> Trace {
        Trace::with(Mode::Echo, change)
    }

    pub fn lines_with(change: impl FnOnce(&mut StackConfig)) -> Trace {
        Trace::with(Mode::Lines, change)
    }

    /// As [`Trace::lines`], over a wire that holds only so many frames in each direction.
    pub fn lines_over(wire_frames: usize) -> Trace {
        Trace::new(Mode::Lines, default_config(), &[wire_frames])
    }

    /// As [`Trace::lines`], over links that hold only so many frames each in each direction.
    pub fn lines_over_links(
        wires_frames: &[usize],
        change: impl FnOnce(&mut StackConfig),
    ) -> Trace {
        let mut config = default_config();
        change(&mut config);
        Trace::new(Mode::Lines, config, wires_frames)
    }

    /// A shard whose service calls from the first ports; see [`Mode::Calls`].
    pub fn calling(ports: u16) -> Trace {
        Trace::calling_with(ports, |_| {})
    }

    pub fn calling_with(ports: u16, change: impl FnOnce(&mut StackConfig)) -> Trace {
        let ports = Arc::new(SourcePorts::new(1, OUR_PORT + 1..=OUR_PORT + ports, 1));
        Trace::calling_from(&ports, 0, false, change)
    }

    /// One of several shards that call from the same ports.
    pub fn calling_from(
        ports: &Arc<SourcePorts>,
        shard: usize,
        over_ipv6: bool,
        change: impl FnOnce(&mut StackConfig),
    ) -> Trace {
        let mut config = default_config();
        change(&mut config);
        let mode = Mode::Calls { over_ipv6 };
        let mut trace = Trace::new(mode, config, &[MemoryLinkConfig::default().frames]);
        if over_ipv6 {
            trace = trace.over_ipv6();
        }
        let outbound = Outbound {
            destination: SocketAddr::new(trace.peer, SERVER_PORT),
            source_mac: SERVER_MAC,
            next_hop_mac: PEER_MAC,
            ports: Arc::clone(ports),
            shard,
        };
        trace.calls = true;
        trace.shard = trace.shard.calling(outbound, &Secrets::from_seed(1));
        trace
    }

    /// Lets the service want one more connection. What is then sent is expected by the next
    /// [`Trace::run`].
    pub fn call(&mut self) -> &mut Trace {
        self.shard.service_mut().to_open += 1;
        self.shard.poll(self.now);
        self
    }

    /// Lets the service want to be called on an idle connection.
    pub fn call_idle(&mut self) -> &mut Trace {
        self.shard.service_mut().to_call += 1;
        self.shard.poll(self.now);
        self
    }

    /// How connections have ended since this was last asked.
    pub fn ends(&mut self) -> Vec<End> {
        std::mem::take(&mut self.shard.service_mut().ends)
    }

    fn with(mode: Mode, change: impl FnOnce(&mut StackConfig)) -> Trace {
        let mut config = default_config();
        change(&mut config);
        Trace::new(mode, config, &[MemoryLinkConfig::default().frames])
    }

    /// Begins at the time when the first port's connection gets the initial sequence number `isn`.
    pub fn with_isn(self, isn: u32) -> Trace {
        let mut probe = Trace::echo();
        probe.run("> [S] seq 0\n< [S.] ack 1");
        // RFC 6528: the clock ticks every 4 us.
        let ticks = isn.wrapping_sub(probe.isn());
        let now = self.now + Duration::from_micros(4 * u64::from(ticks));
        Trace { now, ..self }
    }

    fn new(mode: Mode, config: StackConfig, wires_frames: &[usize]) -> Trace {
        let config = StackConfig {
            connections: match config.connections == StackConfig::default().connections {
                true => 64,
                false => config.connections,
            },
            half_open: match config.half_open == StackConfig::default().half_open {
                true => 32,
                false => config.half_open,
            },
            time_wait: config.time_wait.min(64),
            ..config
        };
        let now = Instant::from_secs(1_000);
        let server: IpAddr = [10, 0, 0, 2].into();
        let server6: IpAddr = "fd00::2".parse().unwrap();
        let local = match mode {
            Mode::Calls { over_ipv6 } => {
                let from = if over_ipv6 { server6 } else { server };
                Local::calling(&[from], OUR_PORT..=OUR_PORT + 9)
            }
            Mode::Echo | Mode::Lines => Local::new(&[server, server6], &[SERVER_PORT]),
        };
        let local = local.unwrap().at_mac(SERVER_MAC);
        let buffers = vec![0xee; config.arena_bytes()].leak();
        let frame_bytes = config.mtu + 18;
        let link = |&frames| {
            MemoryLink::new(MemoryLinkConfig {
                frames,
                frame_bytes,
                ..MemoryLinkConfig::default()
            })
        };
        let links = wires_frames.iter().map(link).collect();
        let service = TestService {
            mode,
            unix_time_s: 0,
            is_draining: false,
            to_open: 0,
            to_call: 0,
            ends: Vec::new(),
        };
        let secrets = Secrets::from_seed(1);
        let shard = Shard::new(config, local, &secrets, links, service, buffers, now).unwrap();
        Trace {
            shard,
            link: 0,
            now,
            peer: [10, 0, 0, 1].into(),
            server,
            calls: false,
            vlan: None,
            ip_options: &[],
            peer_isn: 0x1000_0000,
            isns: HashMap::new(),
            ts_base: None,
            transcript: String::new(),
        }
    }

    /// Shards that tell each other what they have, each made by `make`.
    pub fn sharing<const N: usize>(make: impl Fn() -> Trace) -> [Trace; N] {
        Trace::sharing_with(|_| {}, make)
    }

    /// As [`Trace::sharing`], where it matters how the shards are configured.
    pub fn sharing_with<const N: usize>(
        change: impl FnOnce(&mut StackConfig),
        make: impl Fn() -> Trace,
    ) -> [Trace; N] {
        let mut config = default_config();
        change(&mut config);
        let secrets = Secrets::from_seed(1);
        let shared = Shared::new(&config, &secrets, N).unwrap();
        std::array::from_fn(|number| {
            let trace = make();
            let shard = trace.shard.sharing(shared.clone(), number);
            Trace { shard, ..trace }
        })
    }

    /// Lets everything happen over IPv6.
    pub fn over_ipv6(mut self) -> Trace {
        self.peer = "fd00::1".parse().unwrap();
        self.server = "fd00::2".parse().unwrap();
        self
    }

    /// Opens a connection from the peer's first port, with an open window and all options.
    pub fn established(mut self) -> Trace {
        self.run(
            "> [S] seq 0 win 64000 <mss 1460,wscale 7,sackOK>
             < [S.] seq 0 ack 1
             > [.] seq 1 ack 1 win 500",
        );
        self
    }

    /// Lets the shard of `successor` go on with all connections that can travel; this one is not used any more.
    pub fn taken_over_by(&mut self, mut successor: Trace) -> Trace {
        let departure = self.shard.depart();
        successor.shard.rehearse();
        let taken = successor.shard.arrive(&departure.bytes, self.now);
        assert_eq!(taken, Ok(departure.connections));
        successor.now = self.now;
        successor.isns.clone_from(&self.isns);
        successor.ts_base = self.ts_base;
        successor
    }

    /// Takes sequence numbers of the first connection relative to the SYN that `other` has sent.
    pub fn know_isn_of(&mut self, other: &Trace) {
        self.isns.clone_from(&other.isns);
    }

    /// The shard's initial sequence number for the peer's first port.
    pub fn isn(&self) -> u32 {
        self.isns[&1]
    }

    fn our_isn(&self, peer: u16) -> u32 {
        self.isns.get(&peer).copied().unwrap_or(0)
    }

    pub fn shard(&mut self) -> &mut Shard<'static, MemoryLink, TestService> {
        &mut self.shard
    }

    /// Lets the shard begin to drain; what it then sends is expected by the next [`Trace::run`].
    pub fn drain(&mut self) {
        self.shard.drain(self.now);
    }

    /// Lets the peer send frames at once, in one batch.
    pub fn push<'f>(&mut self, frames: impl IntoIterator<Item = &'f [u8]>) {
        for frame in frames {
            assert!(self.shard.links_mut()[self.link].push(frame));
        }
        self.shard.poll(self.now);
    }

    /// A segment of an established connection of the peer's port number `peer`.
    pub fn segment(&self, peer: u16, seq: u32, ack: u32, payload: &'static [u8]) -> Vec<u8> {
        let isn = self.isns[&peer];
        let segment = TcpFrame {
            seq: self.peer_isn.wrapping_add(seq),
            ack: isn.wrapping_add(ack),
            flags: Flags::ACK | Flags::PSH,
            payload,
            ..self.frame(peer)
        };
        segment.to_vec()
    }

    /// A frame from the peer's port number `peer`, to be changed.
    pub fn frame(&self, peer: u16) -> TcpFrame<'static> {
        TcpFrame {
            source_mac: PEER_MAC,
            destination_mac: SERVER_MAC,
            vlan: self.vlan,
            ip_options: self.ip_options,
            ..match self.calls {
                false => TcpFrame::new(
                    SocketAddr::new(self.peer, PEER_PORT + peer),
                    SocketAddr::new(self.server, SERVER_PORT),
                ),
                true => TcpFrame::new(
                    SocketAddr::new(self.peer, SERVER_PORT),
                    SocketAddr::new(self.server, OUR_PORT + peer),
                ),
            }
        }
    }

    /// Runs a trace, and panics with all that happened so far where it differs.
    pub fn run(&mut self, trace: &str) -> &mut Trace {
        for line in trace.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some((peer, segment)) = side(line, '>') {
                self.expect_silence(line);
                self.send(peer, segment);
                let _ = writeln!(self.transcript, "{line}");
            } else if let Some((peer, segment)) = side(line, '<') {
                self.expect(peer, segment, line);
            } else if let Some(span) = line.strip_prefix('+') {
                self.expect_silence(line);
                let _ = writeln!(self.transcript, "{line}");
                self.pass(duration(span));
            } else if let Some(link) = line.strip_prefix('@') {
                let _ = writeln!(self.transcript, "{line}");
                self.link = link.trim().parse().unwrap();
            } else if let Some(counter) = line.strip_prefix('?') {
                self.expect_silence(line);
                self.expect_counter(counter.trim(), line);
            } else {
                panic!("cannot read {line:?}");
            }
        }
        self.expect_silence("the end");
        self
    }

    /// Time passes, and the shard is called whenever it asked to be, and at the end.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(next) = self
            .shard
            .next_deadline(self.now)
            .filter(|&next| next < end)
        {
            self.now = next.max(self.now + Duration::from_micros(1));
            self.shard.poll(self.now);
        }
        self.now = end;
        self.shard.poll(end);
    }

    /// Segments from the peer's first port that arrive in one batch.
    pub fn send_together(&mut self, segments: &[&str]) -> &mut Trace {
        for segment in segments {
            self.put_on_wire(1, segment);
        }
        self.shard.poll(self.now);
        self
    }

    /// A segment from the peer's port number `peer`, without a look at what follows.
    pub fn send(&mut self, peer: u16, text: &str) {
        self.put_on_wire(peer, text);
        self.shard.poll(self.now);
    }

    fn put_on_wire(&mut self, peer: u16, text: &str) {
        let segment = Text::parse(text);
        let our_isn = self.our_isn(peer);
        let options = segment.option_bytes(our_isn, self.ts_base.unwrap_or(0));
        let seq = segment.seq.expect("a segment sent needs a seq");
        let frame = TcpFrame {
            seq: self.peer_isn.wrapping_add(seq),
            ack: segment.ack.map_or(0, |ack| our_isn.wrapping_add(ack)),
            flags: segment.flags,
            window: segment.window.unwrap_or(64_000),
            options: &options,
            payload: &segment.payload_at(seq),
            ..self.frame(peer)
        };
        assert!(
            self.shard.links_mut()[self.link].push(&frame.to_vec()),
            "the wire is full"
        );
    }

    /// The shard may take several polls until all that fits has left.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let next = self.shard.next_deadline(self.now);
            if next.is_none_or(|next| next > self.now) {
                return;
            }
            self.shard.poll(self.now);
        }
        panic!("the shard never has enough");
    }

    /// Time passes in which the shard is not called.
    pub fn pause(&mut self, span: Duration) -> &mut Trace {
        self.now += span;
        self
    }

    /// Time passes, and nobody looks at what the shard sends.
    pub fn ignore(&mut self, span: Duration) -> &mut Trace {
        self.pass(span);
        self.settle();
        for link in self.shard.links_mut() {
            link.clear_sent();
        }
        self
    }

    fn expect(&mut self, peer: u16, text: &str, line: &str) {
        self.settle();
        let Some(frame) = self.shard.links_mut()[self.link].take(<[u8]>::to_vec) else {
            self.fail(line, "nothing");
        };
        let (to, actual) = self.read(&frame);
        let expected = Text::parse(text);
        if peer != to || !expected.matches(&actual) {
            self.fail(line, &actual.to_string());
        }
        let _ = writeln!(self.transcript, "{}< {actual}", prefix(to));
    }

    fn expect_silence(&mut self, line: &str) {
        self.settle();
        for link in 0..self.shard.links().len() {
            if let Some(frame) = self.shard.links_mut()[link].take(<[u8]>::to_vec) {
                let (_, actual) = self.read(&frame);
                self.fail(line, &format!("{actual} by link {link}"));
            }
        }
    }

    fn expect_counter(&mut self, text: &str, line: &str) {
        let (name, expected) = text.split_once(' ').expect("? name value");
        let value = self.counter(name);
        if value != expected.trim().parse().unwrap() {
            self.fail(line, &format!("{name} {value}"));
        }
    }

    pub fn counter(&self, name: &str) -> u64 {
        let mut samples = self.shard.counters().samples();
        samples.extend(self.shard.discards().samples());
        let sample = samples.iter().find(|sample| sample.name == name);
        sample.unwrap_or_else(|| panic!("no counter {name}")).value
    }

    /// Reads a frame as the peer would, checksums, MAC addresses and VLAN tag included.
    fn read(&mut self, frame: &[u8]) -> (u16, Text) {
        let port = match self.calls {
            false => TcpView::read(frame).unwrap().destination.port(),
            true => SERVER_PORT,
        };
        let local = Local::new(&[self.peer], &[port]).unwrap();
        let segment = packet::parse(frame, &local, ChecksumPolicy::Verify).unwrap();
        assert_eq!(segment.flow.remote_address(), self.server);
        assert_eq!(
            (&frame[..6], &frame[6..12]),
            (&PEER_MAC[..], &SERVER_MAC[..])
        );
        assert_eq!(
            segment.ip_offset(),
            if self.vlan.is_some() { 18 } else { 14 }
        );
        let peer = match self.calls {
            false => segment.flow.local_port() - PEER_PORT,
            true => segment.flow.remote_port() - OUR_PORT,
        };

        if segment.flags.contains(Flags::SYN) {
            self.isns.insert(peer, segment.seq);
        }
        let our_isn = self.our_isn(peer);
        let options: Vec<_> = segment.tcp_options(frame).map(Result::unwrap).collect();
        for option in &options {
            if let TcpOption::Timestamps { value, .. } = option {
                self.ts_base.get_or_insert(*value);
            }
        }
        let ts_base = self.ts_base.unwrap_or(0);
        let text = Text {
            flags: segment.flags,
            seq: Some(segment.seq.wrapping_sub(our_isn)),
            ack: segment
                .flags
                .contains(Flags::ACK)
                .then(|| segment.ack.wrapping_sub(self.peer_isn)),
            window: Some(segment.window),
            options: Some(
                (options.iter())
                    .map(|option| option_text(option, ts_base))
                    .collect(),
            ),
            payload: (0, segment.payload(frame).to_vec()),
        };
        (peer, text)
    }

    fn fail(&self, expected: &str, actual: &str) -> ! {
        panic!(
            "\n{}--- expected\n{expected}\n--- but there was\n< {actual}\n",
            self.transcript
        );
    }
}

fn side(line: &str, sign: char) -> Option<(u16, &str)> {
    let (peer, segment) = line.split_once(sign)?;
    match peer {
        "" => Some((1, segment.trim())),
        number => Some((number.parse().ok()?, segment.trim())),
    }
}

fn prefix(peer: u16) -> String {
    match peer {
        1 => String::new(),
        peer => peer.to_string(),
    }
}

fn duration(text: &str) -> Duration {
    if let Some(millis) = text.strip_suffix("ms") {
        Duration::from_millis(millis.parse().unwrap())
    } else {
        Duration::from_secs(
            text.strip_suffix('s')
                .expect("a time in s or ms")
                .parse()
                .unwrap(),
        )
    }
}

/// A segment in words.
struct Text {
    flags: Flags,
    seq: Option<u32>,
    ack: Option<u32>,
    window: Option<u16>,
    options: Option<Vec<String>>,
    /// So many bytes of the pattern, and then these.
    payload: (usize, Vec<u8>),
}

/// The byte at a relative sequence number of a stream that is nothing but pattern.
pub fn pattern(seq: u32) -> u8 {
    (seq ^ seq >> 8).wrapping_mul(31) as u8
}

impl Text {
    fn parse(text: &str) -> Text {
        let (text, options) = match text.split_once('<') {
            Some((front, rest)) => {
                let (options, behind) = rest.split_once('>').expect("options end with >");
                let options = options
                    .split(',')
                    .map(str::trim)
                    .filter(|option| !option.is_empty());
                (
                    format!("{front} {behind}"),
                    Some(options.map(str::to_string).collect()),
                )
            }
            None => (text.to_string(), None),
        };
        let (text, quoted) = match text.split_once('"') {
            Some((front, rest)) => {
                let quoted = rest.strip_suffix('"').expect("a text ends with \"");
                (
                    front.to_string(),
                    Some(quoted.replace("\\n", "\n").into_bytes()),
                )
            }
            None => (text, None),
        };
        let mut words = text.split_whitespace();
        let flags = words.next().expect("flags");
        let flags = flags
            .strip_prefix('[')
            .and_then(|flags| flags.strip_suffix(']'));
        let mut segment = Text {
            flags: flags
                .expect("flags in brackets")
                .chars()
                .fold(Flags(0), |flags, letter| {
                    flags
                        | match letter {
                            'S' => Flags::SYN,
                            'F' => Flags::FIN,
                            'R' => Flags::RST,
                            'P' => Flags::PSH,
                            '.' => Flags::ACK,
                            'U' => Flags::URG,
                            'E' => Flags::ECE,
                            'W' => Flags::CWR,
                            _ => panic!("unknown flag {letter}"),
                        }
                }),
            seq: None,
            ack: None,
            window: None,
            options,
            payload: (0, quoted.unwrap_or_default()),
        };
        while let Some(word) = words.next() {
            let number: i64 = words.next().expect("a number").parse().expect("a number");
            match word {
                "seq" => segment.seq = Some(number as u32),
                "ack" => segment.ack = Some(number as u32),
                "win" => segment.window = Some(number as u16),
                "len" => segment.payload.0 = number as usize,
                _ => panic!("unknown word {word}"),
            }
        }
        segment
    }

    fn payload_at(&self, seq: u32) -> Vec<u8> {
        let (len, bytes) = &self.payload;
        let pattern = (seq..seq.wrapping_add(*len as u32)).map(pattern);
        pattern.chain(bytes.iter().copied()).collect()
    }

    fn matches(&self, actual: &Text) -> bool {
        let seq = actual.seq.unwrap_or(0);
        self.flags == actual.flags
            && self.seq.is_none_or(|seq| actual.seq == Some(seq))
            && self.ack == actual.ack
            && self
                .window
                .is_none_or(|window| actual.window == Some(window))
            && self
                .options
                .as_ref()
                .is_none_or(|options| actual.options.as_ref() == Some(options))
            && self.payload_at(seq) == actual.payload_at(seq)
    }

    fn option_bytes(&self, our_isn: u32, our_ts: u32) -> Vec<u8> {
        let mut bytes = vec![];
        for option in self.options.iter().flatten() {
            let (name, value) = option.split_once(' ').unwrap_or((option, ""));
            match name {
                "mss" => {
                    bytes.extend([2, 4]);
                    bytes.extend(value.parse::<u16>().unwrap().to_be_bytes());
                }
                "wscale" => bytes.extend([3, 3, value.parse().unwrap()]),
                "sackOK" => bytes.extend([4, 2]),
                "nop" => bytes.push(1),
                "eol" => bytes.push(0),
                "ts" => {
                    let (value, echo) = value.split_once(':').unwrap_or((value, "0"));
                    bytes.extend([1, 1, 8, 10]);
                    bytes.extend(value.parse::<u32>().unwrap().to_be_bytes());
                    let echo = our_ts.wrapping_add(echo.parse().unwrap());
                    bytes.extend(echo.to_be_bytes());
                }
                "sack" => {
                    let (left, right) = value.split_once(':').unwrap();
                    bytes.extend([5, 10]);
                    for edge in [left, right] {
                        let edge = our_isn.wrapping_add(edge.parse().unwrap());
                        bytes.extend(edge.to_be_bytes());
                    }
                }
                "raw" => bytes.extend(
                    value
                        .split(' ')
                        .map(|hex| u8::from_str_radix(hex, 16).unwrap()),
                ),
                _ => panic!("unknown option {option}"),
            }
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

fn option_text(option: &TcpOption, ts_base: u32) -> String {
    match option {
        TcpOption::MaximumSegmentSize(mss) => format!("mss {mss}"),
        TcpOption::WindowScale(shift) => format!("wscale {shift}"),
        TcpOption::SackPermitted => "sackOK".into(),
        TcpOption::Timestamps { value, echo } => {
            format!("ts {}:{echo}", value.wrapping_sub(ts_base))
        }
        TcpOption::Other(5) => "sack".into(),
        TcpOption::Other(kind) => format!("kind {kind}"),
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[")?;
        for (flag, letter) in [
            (Flags::SYN, "S"),
            (Flags::FIN, "F"),
            (Flags::RST, "R"),
            (Flags::PSH, "P"),
            (Flags::ACK, "."),
        ] {
            if self.flags.contains(flag) {
                f.write_str(letter)?;
            }
        }
        write!(f, "] seq {}", self.seq.unwrap_or(0) as i32)?;
        if let Some(ack) = self.ack {
            write!(f, " ack {}", ack as i32)?;
        }
        write!(f, " win {}", self.window.unwrap_or(0))?;
        let payload = self.payload_at(self.seq.unwrap_or(0));
        match std::str::from_utf8(&payload) {
            Ok("") => {}
            Ok(text) if text.len() < 40 => write!(f, " {text:?}")?,
            _ => write!(f, " len {}", payload.len())?,
        }
        match self.options.as_deref() {
            None | Some([]) => Ok(()),
            Some(options) => write!(f, " <{}>", options.join(",")),
        }
    }
}

/// What the shard under test serves.
pub struct TestService {
    mode: Mode,
    pub unix_time_s: u64,
    pub is_draining: bool,
    to_open: u64,
    to_call: u32,
    ends: Vec<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Sends back what it receives, and closes when its peer does.
    Echo,
    /// `close`, `abort` and `refuse` do that; `send N` answers N bytes of the pattern, `body N` takes N
    /// bytes and answers `ok`; any other line is answered by itself. When a line or body takes too long
    /// it answers `late`.
    Lines,
    /// Calls: says `hello` first, and again when the peer says `again`; waits when it says `wait`, and
    /// says `ping` when it is then called; closes when it says `bye`, and aborts at anything else.
    Calls { over_ipv6: bool },
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct TestConnection {
    has_called: bool,
    to_send: usize,
    to_take: usize,
    sent: u32,
}

impl Service for TestService {
    type Connection = TestConnection;
    const REPLY_BYTES_MIN: usize = 128;

    fn on_input(
        &mut self,
        connection: &mut TestConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        match self.mode {
            Mode::Echo => echo(input, reply),
            Mode::Lines => self.lines(connection, input, reply),
            Mode::Calls { .. } => calls(connection, input, reply),
        }
    }

    fn on_timeout(&mut self, _: &mut TestConnection, reply: &mut Reply<'_>) {
        if self.mode == Mode::Lines {
            assert!(reply.put(b"late\n"));
        }
    }

    fn on_clock(&mut self, unix_time_s: u64) {
        self.unix_time_s = unix_time_s;
    }

    fn on_drain(&mut self) {
        self.is_draining = true;
    }

    fn on_stay(&mut self) {
        self.is_draining = false;
    }

    fn wants(&mut self, _: Instant) -> Want {
        if self.to_open > 0 {
            self.to_open -= 1;
            Want::Open(self.to_open)
        } else if self.to_call > 0 {
            self.to_call -= 1;
            Want::Call
        } else {
            Want::Nothing { until: None }
        }
    }

    fn rest(connection: &TestConnection) -> Option<u8> {
        (*connection == TestConnection::default()).then_some(0)
    }

    fn on_end(&mut self, _: &mut TestConnection, end: End) {
        self.ends.push(end);
    }
}

fn calls(connection: &mut TestConnection, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
    if input.ended {
        return Progress {
            consumed: input.bytes.len(),
            messages: 0,
            next: Next::Close,
        };
    }
    let hello: &[u8] = match connection.has_called {
        false => b"hello\n",
        true => b"ping\n",
    };
    let (says, next): (&[u8], Next) = match input.bytes {
        b"" => (hello, Next::Receive(Expect::Head)),
        b"again\n" => (b"hello\n", Next::Receive(Expect::Head)),
        b"wait\n" => (b"", Next::Receive(Expect::Message)),
        b"bye\n" => (b"", Next::Close),
        _ => (b"", Next::Abort),
    };
    connection.has_called = true;
    assert!(reply.put(says));
    Progress {
        consumed: input.bytes.len(),
        messages: u32::from(!input.bytes.is_empty()),
        next,
    }
}

fn echo(input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
    let consumed = input.bytes.len().min(reply.remaining());
    assert!(reply.put(&input.bytes[..consumed]));
    Progress {
        consumed,
        messages: 1,
        next: match consumed < input.bytes.len() {
            true => Next::Send,
            false => Next::Receive(Expect::Message),
        },
    }
}

impl TestService {
    fn lines(
        &mut self,
        connection: &mut TestConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let mut consumed = 0;
        let mut messages = 0;
        let next = loop {
            if connection.to_send > 0 {
                let len = connection.to_send.min(reply.remaining());
                for byte in &mut reply.spare()[..len] {
                    connection.sent += 1;
                    *byte = pattern(connection.sent);
                }
                reply.advance(len);
                connection.to_send -= len;
                if connection.to_send > 0 {
                    break Next::Send;
                }
            }
            let rest = &input.bytes[consumed..];
            if connection.to_take > 0 {
                let len = connection.to_take.min(rest.len());
                consumed += len;
                connection.to_take -= len;
                if connection.to_take > 0 {
                    break Next::Receive(Expect::Body);
                }
                messages += 1;
                connection.put(reply, b"ok\n");
                continue;
            }
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                break match rest.is_empty() {
                    true => Next::Receive(Expect::Message),
                    false if input.full => Next::Close,
                    false => Next::Receive(Expect::Head),
                };
            };
            let line = &rest[..=end];
            if reply.remaining() < Self::REPLY_BYTES_MIN.min(line.len() + 8) {
                break Next::Send;
            }
            consumed += line.len();
            let text = std::str::from_utf8(line).unwrap_or("").trim();
            let (command, number) = text.split_once(' ').unwrap_or((text, ""));
            match command {
                "send" => connection.to_send = number.parse().unwrap(),
                "body" => {
                    connection.to_take = number.parse().unwrap();
                    continue;
                }
                "abort" => break Next::Abort,
                "close" => {
                    connection.put(reply, b"bye\n");
                    messages += 1;
                    break Next::Close;
                }
                _ => connection.put(reply, line),
            }
            messages += 1;
            if self.is_draining {
                break Next::Close;
            }
        };
        Progress {
            consumed,
            messages,
            next,
        }
    }
}

impl TestConnection {
    fn put(&mut self, reply: &mut Reply<'_>, bytes: &[u8]) {
        assert!(reply.put(bytes));
        self.sent += bytes.len() as u32;
    }
}
