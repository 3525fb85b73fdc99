//! A shard and its clients over a bad wire, in simulated time.
//!
//! Everything follows from one seed: how bad the wire is, how small the buffers are, who connects when
//! and asks for what. Two kinds of clients take part, a [`Client`] that checks every segment and a
//! [`Peer`] with windows and congestion control of its own; some of the former vanish without a word.
//! At the end every byte has arrived as it was sent, and nothing is left in the shard.
//!
//! ```text
//!   Client ─┐                  ┌───────────── Shard ─────────────┐
//!   Client ─┼─▶ MemoryLink ──▶ │ FaultyLink ─▶ … CommandService  │
//!   Peer   ─┘ ◀──────────────  └─────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::client::{Client, ClientConfig, Offence};
use super::frame::{TcpFrame, TcpView};
use super::peer::{Peer, PeerConfig};
use super::service::{Command, CommandService, pattern};
use barewire_service::counters::{Sample, Samples};
use barewire_service::deadline::Deadlines;
use barewire_service::time::{Duration, Instant};
use barewire_tcp::config::{DirectPath, StackConfig};
use barewire_tcp::guard::Secrets;
use barewire_tcp::link::Link;
use barewire_tcp::link::Transmit;
use barewire_tcp::link::faulty::{Faults, FaultyLink};
use barewire_tcp::link::memory::{MemoryLink, MemoryLinkConfig};
use barewire_tcp::packet::{Flags, Local};
use barewire_tcp::random::Random;
use barewire_tcp::shard::Shard;

/// What a simulation went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Connections that were opened, and are all at their end.
    pub connections: usize,
    /// Peers among them that were not served to the end; see [`peer`](super::peer) for why.
    pub given_up: usize,
    /// Bytes that clients expected and, but for those that gave up, received.
    pub bytes: usize,
    /// Segments that the shard sent again.
    pub retransmissions: u64,
    /// Simulated time until the last connection was forgotten.
    pub duration: Duration,
}

/// What went wrong; the seed reproduces it.
#[derive(Debug, Error)]
#[error("seed {seed}: {reason} (after {after}, {scenario}, counters {counters})")]
pub struct Failure {
    /// The simulation's seed.
    pub seed: u64,
    /// What went wrong.
    pub reason: FailureReason,
    /// Simulated time since the beginning.
    pub after: Duration,
    /// How the simulation was set up.
    pub scenario: String,
    /// The shard's counters and gauges that are not zero.
    pub counters: String,
}

/// See [`Failure`].
#[derive(Debug, Error)]
pub enum FailureReason {
    /// The server did to a client what it must not do.
    #[error(transparent)]
    Offence(#[from] Offence),
    /// The clients did not come to an end.
    #[error("these clients are not done: {0:?}")]
    NotDone(Vec<SocketAddr>),
    /// Somebody always had something to do at once.
    #[error("simulated time does not advance")]
    Spinning,
    /// Something was left when all was over.
    #[error("{count} {what} left")]
    Left {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
}

/// Runs the simulation of `seed` to its end.
///
/// # Errors
///
/// If a byte was wrong, a connection did not end, or something was left in the shard.
pub fn run(seed: u64) -> Result<Outcome, Box<Failure>> {
    run_observed(seed, |_, _| {})
}

/// As [`run`], and shows every segment that clients send and receive to `observe`, with the time since
/// the beginning.
///
/// # Errors
///
/// As [`run`].
pub fn run_observed(
    seed: u64,
    mut observe: impl FnMut(Duration, &TcpView<'_>),
) -> Result<Outcome, Box<Failure>> {
    let scenario = Scenario::new(seed);
    let summary = format!("{scenario:?}");
    let mut buffers = vec![0; scenario.config.arena_bytes()];
    let mut world = World::new(seed, &scenario, &mut buffers);
    let result = world.run(&mut observe);
    let after = world.now - START;
    match result {
        Ok(()) => Ok(Outcome {
            connections: world.members.len(),
            given_up: world
                .members
                .iter()
                .filter(|member| member.has_given_up())
                .count(),
            bytes: world
                .members
                .iter()
                .map(|member| member.expected_bytes)
                .sum(),
            retransmissions: world.shard.counters().retrans_segs.get(),
            duration: after,
        }),
        Err(reason) => Err(Box::new(Failure {
            seed,
            reason,
            after,
            scenario: summary,
            counters: counted(&world.shard.counters().samples()),
        })),
    }
}

/// Deadlines of two hours: a connection may have to survive a long series of losses.
pub fn patient() -> Deadlines {
    const MS: u32 = 7_200_000;
    Deadlines {
        half_open_ms: MS,
        handshake_ms: MS,
        idle_ms: MS,
        head_ms: MS,
        body_ms: MS,
        send_ms: MS,
        close_ms: MS,
        user_timeout_ms: MS,
        ..Deadlines::default()
    }
}

fn counted(samples: &[Sample]) -> String {
    let counted = samples.iter().filter(|sample| sample.value > 0);
    let pairs: Vec<String> = counted
        .map(|sample| format!("{} {}", sample.name, sample.value))
        .collect();
    pairs.join(", ")
}

const START: Instant = Instant::from_micros(1_000_000);
/// Longer than any number of retransmissions and deadlines takes.
const END: Instant = Instant::from_micros(24 * 3600 * 1_000_000);
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const SERVER_PORT: u16 = 8080;
/// Many times what any simulation takes.
const STEPS_MAX: u64 = 2_000_000;
const WIRE_FRAMES: usize = 512;

/// How a simulation is set up.
#[derive(Debug)]
struct Scenario {
    faults: Faults,
    config: StackConfig,
    clients: usize,
    /// Random segments from the clients' addresses, of 1,000 steps.
    noise_permille: u32,
}

impl Scenario {
    fn new(seed: u64) -> Scenario {
        let mut random = Random::new(seed);
        let permille = |random: &mut Random, max: u64| match random.hits(400) {
            true => 0,
            false => random.below(max + 1) as u32,
        };
        let faults = Faults {
            loss_permille: permille(&mut random, 200),
            burst_permille: permille(&mut random, 5),
            burst_frames: random.below(12) as u32,
            duplicate_permille: permille(&mut random, 100),
            corrupt_permille: permille(&mut random, 50),
            reorder_permille: permille(&mut random, 200),
            reorder_delay_us: random.below(100_000) as u32,
            delay_us: random.choose(&[0, 50, 1_000, 40_000]),
            jitter_us: random.choose(&[0, 10, 1_000, 20_000]),
        };
        let clients = 1 + random.below(24) as usize;
        // A connection whose SYN cookie comes back to a full server is lost, so cookies are for the others.
        let connections = random.choose(&[4, 32, 64]);
        let half_open = random.choose(match connections {
            4 => &[4],
            _ => &[0, 2, 32],
        });
        let mut config = StackConfig {
            connections,
            half_open,
            time_wait: 64,
            time_wait_ms: random.choose(&[30_000, 60_000]),
            receive_buffer_bytes: random.choose(&[512, 1_000, 4_096, 8_192, 65_535]),
            send_buffer_bytes: random.choose(&[512, 1_000, 4_096, 16_384, 100_000]),
            receive_window_bytes_max: random.choose(&[65_535, 200_000, 4_000_000]),
            send_queue_bytes_max: random.choose(&[0, 30_000, 4 << 20]),
            mtu: random.choose(&[1_280, 1_500]),
            deadlines: patient(),
            mss_min: 48,
            rto_max_ms: random.choose(&[1_000, 4_000, 60_000]),
            direct_path: super::direct_path().unwrap_or(match seed % 3 {
                0 => DirectPath::Never,
                1 => DirectPath::Always,
                _ => DirectPath::Random(seed),
            }),
            ..StackConfig::default()
        };
        let noise_permille = permille(&mut random, 100);
        config.timestamps = random.hits(300);
        Scenario {
            faults,
            config,
            clients,
            noise_permille,
        }
    }
}

type Observe<'o> = dyn FnMut(Duration, &TcpView<'_>) + 'o;

struct World<'a> {
    random: Random,
    now: Instant,
    steps: u64,
    shard: Shard<'a, FaultyLink<MemoryLink>, CommandService>,
    members: Vec<Member>,
    by_address: HashMap<SocketAddr, usize>,
    noise_permille: u32,
}

/// One client and its fate.
struct Member {
    kind: Kind,
    source: SocketAddr,
    destination: SocketAddr,
    expected_bytes: usize,
    begins_at: Instant,
    vanishes_at: Option<Instant>,
}

enum Kind {
    Client(Box<Client>),
    Peer(Box<Peer>),
}

impl<'a> World<'a> {
    fn new(seed: u64, scenario: &Scenario, buffers: &'a mut [u8]) -> World<'a> {
        let mut random = Random::new(seed ^ 0x776f_726c_6400);
        let addresses = [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)];
        let local = Local::new(&addresses, &[SERVER_PORT]).expect("two addresses and a port");
        let memory = MemoryLink::new(MemoryLinkConfig {
            frames: WIRE_FRAMES,
            ..MemoryLinkConfig::default()
        });
        let shard = Shard::new(
            scenario.config.clone(),
            local,
            &Secrets::from_seed(seed),
            vec![FaultyLink::new(memory, scenario.faults, seed)],
            CommandService::default(),
            buffers,
            START,
        )
        .expect("a scenario is a valid configuration");
        let members: Vec<Member> = (0..scenario.clients)
            .map(|number| Member::new(number, &mut random))
            .collect();
        World {
            random,
            now: START,
            steps: 0,
            shard,
            by_address: (0..)
                .zip(&members)
                .map(|(index, member)| (member.source, index))
                .collect(),
            members,
            noise_permille: scenario.noise_permille,
        }
    }

    fn run(&mut self, observe: &mut Observe<'_>) -> Result<(), FailureReason> {
        while !self.members.iter().all(|member| member.is_over(self.now)) {
            if self.now >= END {
                return Err(self.not_done());
            }
            self.step(observe)?;
            self.make_noise();
        }
        let end = self.now + (END - START);
        while self.now < end && (self.shard.connections() > 0 || self.shard.time_waits() > 0) {
            self.step(observe)?;
        }
        self.check_that_nothing_is_left()
    }

    /// Lets everybody do what there is to do, and moves on to when there is more.
    fn step(&mut self, observe: &mut Observe<'_>) -> Result<(), FailureReason> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(FailureReason::Spinning);
        }
        let now = self.now;
        let wire = self.shard.links_mut()[0].inner_mut();
        for member in &mut self.members {
            member.send(now, |frame| {
                if let Some(segment) = TcpView::read(frame) {
                    observe(now - START, &segment);
                }
                wire.push(frame);
            })?;
        }
        let activity = self.shard.poll(now);
        let mut is_busy = activity.frames > 0;
        let wire = self.shard.links_mut()[0].inner_mut();
        while let Some(frame) = wire.take(<[u8]>::to_vec) {
            is_busy = true;
            let Some(segment) = TcpView::read(&frame) else {
                continue;
            };
            observe(now - START, &segment);
            if let Some(&index) = self.by_address.get(&segment.destination) {
                self.members[index].receive(now, &frame, &segment)?;
            }
        }
        let soon = now + Duration::from_micros(1 + self.random.below(20));
        let next = match is_busy {
            true => Some(soon),
            false => self.next_at(),
        };
        self.now = next.map_or(END, |next| next.max(soon));
        Ok(())
    }

    fn not_done(&self) -> FailureReason {
        let waiting = self
            .members
            .iter()
            .filter(|member| !member.is_over(self.now));
        FailureReason::NotDone(waiting.map(|member| member.source).collect())
    }

    fn next_at(&mut self) -> Option<Instant> {
        let now = self.now;
        let members = self
            .members
            .iter_mut()
            .filter_map(|member| member.next_at(now));
        let shard = self.shard.next_deadline(now);
        let wire = self.shard.links()[0].next_at();
        members.chain(shard).chain(wire).min()
    }

    /// A segment with somebody else's addresses and random numbers.
    fn make_noise(&mut self) {
        let random = &mut self.random;
        if !random.hits(self.noise_permille) {
            return;
        }
        let member = &self.members[random.below(self.members.len() as u64) as usize];
        let payload = [0x55; 32];
        let frame = TcpFrame {
            seq: random.next_u64() as u32,
            ack: random.next_u64() as u32,
            flags: random.choose(&[
                Flags::RST,
                Flags::RST | Flags::ACK,
                Flags::ACK,
                Flags::ACK | Flags::FIN,
                Flags::SYN | Flags::ACK,
            ]),
            window: random.next_u64() as u16,
            payload: &payload[..random.below(33) as usize],
            ..TcpFrame::new(member.source, member.destination)
        };
        self.shard.links_mut()[0].inner_mut().push(&frame.to_vec());
    }

    fn check_that_nothing_is_left(&mut self) -> Result<(), FailureReason> {
        let wire = self.shard.links_mut()[0].inner_mut();
        let frames_lost = WIRE_FRAMES - wire.transmit().free_slots();
        let counters = self.shard.counters();
        let levels = [
            &counters.syn_received,
            &counters.established,
            &counters.closing,
        ];
        for (what, count) in [
            ("connections", self.shard.connections()),
            ("TIME-WAIT records", self.shard.time_waits()),
            ("flows", self.shard.flows()),
            ("timers", self.shard.timers()),
            ("frames not in the pool", frames_lost),
            (
                "connections by the gauges",
                levels.map(|level| level.get() as usize).iter().sum(),
            ),
        ] {
            if count != 0 {
                return Err(FailureReason::Left { what, count });
            }
        }
        Ok(())
    }
}

impl Member {
    fn new(number: usize, random: &mut Random) -> Member {
        let port = 40_000 + number as u16;
        let (source, destination): (IpAddr, IpAddr) = match random.hits(300) {
            true => (
                Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into(),
                SERVER_V6.into(),
            ),
            false => (Ipv4Addr::new(10, 77, 0, 1).into(), SERVER_V4.into()),
        };
        let source = SocketAddr::new(source, port);
        let destination = SocketAddr::new(destination, SERVER_PORT);
        let begins_at = START + Duration::from_micros(random.below(3_000_000));
        let is_client = random.hits(600);
        let dialogue = Dialogue::new(random, is_client);
        let expected_bytes = dialogue.expect.len();
        let mut vanishes_at = None;
        let kind = if is_client {
            if random.hits(100) {
                vanishes_at = Some(begins_at + Duration::from_micros(random.below(5_000_000)));
            }
            let config = ClientConfig {
                source,
                destination,
                vlan: random.hits(200).then_some(0x6042),
                iss: random.choose(&[random.clone().next_u64() as u32, u32::MAX - 1_000]),
                mss: random.choose(&[100, 536, 1_220, 1_460]),
                window: random.choose(&[1_000, 8_000, 65_535]),
                in_flight: random.choose(&[200, 1_500, 10_000, 60_000]),
                send: dialogue.send,
                expect: dialogue.expect,
                expect_reset: dialogue.ends_with_reset,
            };
            Kind::Client(Box::new(Client::new(config, begins_at)))
        } else {
            let config = PeerConfig {
                source,
                destination,
                seed: random.next_u64(),
                receive_bytes: random.choose(&[600, 2_000, 16_000, 65_535]),
                send_bytes: random.choose(&[600, 5_000, 60_000]),
                rest: Duration::from_micros(random.choose(&[0, 100, 100_000, 1_500_000])),
                send: dialogue.send,
                expect: dialogue.expect,
            };
            Kind::Peer(Box::new(Peer::new(config, begins_at)))
        };
        Member {
            kind,
            source,
            destination,
            expected_bytes,
            begins_at,
            vanishes_at,
        }
    }

    fn has_given_up(&self) -> bool {
        matches!(&self.kind, Kind::Peer(peer) if peer.has_given_up())
    }

    fn is_gone(&self, now: Instant) -> bool {
        self.vanishes_at.is_some_and(|at| at <= now)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.is_gone(now)
            || match &self.kind {
                Kind::Client(client) => client.is_done(),
                Kind::Peer(peer) => peer.is_done() || peer.has_given_up(),
            }
    }

    fn send(&mut self, now: Instant, mut transmit: impl FnMut(&[u8])) -> Result<(), Offence> {
        if now < self.begins_at || self.is_gone(now) {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Client(client) => client.send(now, |frame| transmit(&frame.to_vec())),
            Kind::Peer(peer) => {
                let frame = TcpFrame::new(self.source, self.destination).to_vec();
                peer.poll(now, |packet| transmit(&[&frame[..14], packet].concat()))?;
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        now: Instant,
        frame: &[u8],
        segment: &TcpView<'_>,
    ) -> Result<(), Offence> {
        if now < self.begins_at || self.is_gone(now) {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Client(client) => client.receive(now, segment),
            Kind::Peer(peer) => {
                peer.receive(frame);
                Ok(())
            }
        }
    }

    fn next_at(&mut self, now: Instant) -> Option<Instant> {
        if now < self.begins_at {
            return Some(self.begins_at);
        }
        if self.is_gone(now) {
            return None;
        }
        match &mut self.kind {
            Kind::Client(client) => client.next_at(),
            Kind::Peer(peer) => peer.next_at(now),
        }
    }
}

/// What one client sends and must receive.
struct Dialogue {
    send: Vec<u8>,
    expect: Vec<u8>,
    ends_with_reset: bool,
}

impl Dialogue {
    fn new(random: &mut Random, may_end_early: bool) -> Dialogue {
        let mut dialogue = Dialogue {
            send: Vec::new(),
            expect: Vec::new(),
            ends_with_reset: false,
        };
        for _ in 0..random.below(6) {
            let len = random.choose(&[1, 40, 1_000, 5_000, 30_000]) as u64;
            let len = random.below(len + 1) as u32;
            if random.hits(500) {
                let offset = random.next_u64() as u32;
                let data: Vec<u8> = (0..len)
                    .map(|at| pattern(at.wrapping_add(offset)))
                    .collect();
                dialogue.send.extend(Command::Echo { len }.encode());
                dialogue.send.extend(&data);
                dialogue.expect.extend(data);
            } else {
                dialogue.send.extend(Command::Stream { len }.encode());
                dialogue.expect.extend((0..len).map(pattern));
            }
        }
        if may_end_early && random.hits(200) {
            dialogue.ends_with_reset = random.hits(300);
            let last = match dialogue.ends_with_reset {
                true => Command::Abort,
                false => Command::Close,
            };
            dialogue.send.extend(last.encode());
            // The server throws away what follows.
            dialogue
                .send
                .extend(vec![b'x'; random.below(3_000) as usize]);
        }
        dialogue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let outcomes = [run(1).unwrap(), run(1).unwrap()];
        assert_eq!(outcomes[0], outcomes[1]);
    }

    #[test]
    fn all_bytes_arrive_and_nothing_is_left() {
        for seed in 0..24 {
            match run(seed) {
                Ok(outcome) => assert_eq!(outcome.given_up, 0, "seed {seed}"),
                Err(failure) => panic!("{failure}"),
            }
        }
    }

    #[test]
    fn no_ack_lies_beyond_a_window_that_a_fin_overruns() {
        if let Err(failure) = run(20_504) {
            panic!("{failure}");
        }
    }

    #[test]
    fn a_late_copy_of_the_first_segment_does_not_redeem_its_cookie_again() {
        if let Err(failure) = run(901_463) {
            panic!("{failure}");
        }
    }
}
