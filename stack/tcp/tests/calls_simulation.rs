//! Shards that call a shard that serves, over a bad wire, in simulated time.
//!
//! Every byte must arrive, whichever of the calling shards the wire brings an answer to, and nothing must
//! be left at either side.
//!
//! ```text
//!   Shard (calls) ──▶ MemoryLink ─┐   port decides    ┌─────────── Shard ──────────┐
//!   Shard (calls) ──▶ MemoryLink ─┴◀────────────────▶ │ FaultyLink … CommandService │
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use barewire_service::service::{End, Expect, Id, Input, Next, Progress, Reply, Service, Want};
use barewire_service::time::{Duration, Instant};
use barewire_tcp::config::{DirectPath, StackConfig, UnknownFlow};
use barewire_tcp::guard::Secrets;
use barewire_tcp::link::faulty::{Faults, FaultyLink};
use barewire_tcp::link::memory::{MemoryLink, MemoryLinkConfig};
use barewire_tcp::outbound::Outbound;
use barewire_tcp::packet::Local;
use barewire_tcp::random::Random;
use barewire_tcp::shard::Shard;
use barewire_tcp::source_ports::SourcePorts;
use barewire_tcp_testing::direct_path;
use barewire_tcp_testing::frame::TcpView;
use barewire_tcp_testing::service::{Command, CommandService, pattern};
use barewire_tcp_testing::simulation::patient;

const OURS: [u8; 4] = [10, 77, 0, 1];
const THEIRS: [u8; 4] = [10, 77, 0, 2];
const PORT: u16 = 8080;
const CALLS: u64 = 40;
/// Many times what any simulation takes.
const STEPS_MAX: u64 = 2_000_000;

/// Says all of a dialogue and hears all of its answers, once for each token.
struct Caller {
    to_open: Vec<u64>,
    open_max: usize,
    open: usize,
    ended: Vec<End>,
    /// How often each dialogue was brought to its end.
    completed: HashMap<u64, u32>,
}

#[derive(Default)]
struct Call {
    token: u64,
    said: usize,
    heard: usize,
    is_complete: bool,
}

/// What is said for a token, and what must be heard.
fn dialogue(token: u64) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random::new(token);
    let (mut say, mut hear) = (Vec::new(), Vec::new());
    for _ in 0..1 + random.below(4) {
        let len = random.choose(&[1, 40, 1_500, 20_000]);
        let len = 1 + random.below(len) as u32;
        let data: Vec<u8> = (0..len).map(pattern).collect();
        let command = match random.hits(500) {
            true => Command::Echo { len },
            false => Command::Stream { len },
        };
        say.extend(command.encode());
        if let Command::Echo { .. } = command {
            say.extend(&data);
        }
        hear.extend(&data);
    }
    (say, hear)
}

impl Service for Caller {
    type Connection = Call;
    const REPLY_BYTES_MIN: usize = 64;

    fn on_input(&mut self, call: &mut Call, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let (say, hear) = dialogue(call.token);
        let end = call.heard + input.bytes.len();
        assert_eq!(
            hear.get(call.heard..end),
            Some(input.bytes),
            "call {}",
            call.token
        );
        call.heard = end;
        let len = reply.remaining().min(say.len() - call.said);
        assert!(reply.put(&say[call.said..call.said + len]));
        call.said += len;
        assert!(!input.ended, "call {} was closed by the server", call.token);
        let next = if call.said < say.len() {
            Next::Send
        } else if call.heard < hear.len() {
            Next::Receive(Expect::Body)
        } else {
            call.is_complete = true;
            *self.completed.entry(call.token).or_default() += 1;
            Next::Close
        };
        Progress {
            consumed: input.bytes.len(),
            messages: 0,
            next,
        }
    }

    fn wants(&mut self, _: Instant) -> Want {
        if self.open >= self.open_max {
            return Want::Nothing { until: None };
        }
        self.to_open
            .pop()
            .map_or(Want::Nothing { until: None }, Want::Open)
    }

    fn on_open(&mut self, token: u64, _: Id) -> Call {
        self.open += 1;
        Call {
            token,
            ..Call::default()
        }
    }

    fn on_end(&mut self, call: &mut Call, end: End) {
        self.open -= 1;
        match end {
            End::HandedOver => assert_eq!((call.said, call.heard), (0, 0)),
            End::NoPort | End::NoConnection => self.to_open.push(call.token),
            End::Closed if call.is_complete => {}
            other => self.ended.push(other),
        }
    }
}

struct World {
    now: Instant,
    server: Shard<'static, FaultyLink<MemoryLink>, CommandService>,
    callers: Vec<Shard<'static, MemoryLink, Caller>>,
    random: Random,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let now = Instant::from_secs(1_000);
        let mut permille = |max: u64| match random.hits(300) {
            true => 0,
            false => random.below(max + 1) as u32,
        };
        let faults = Faults {
            loss_permille: permille(150),
            duplicate_permille: permille(100),
            corrupt_permille: permille(30),
            reorder_permille: permille(150),
            reorder_delay_us: 20_000,
            delay_us: permille(2_000),
            ..Faults::default()
        };
        let count = 1 + random.below(3) as usize;
        let config = StackConfig {
            connections: 64,
            half_open: random.choose(&[0, 2, 64]),
            time_wait: 64,
            time_wait_ms: 10_000,
            receive_buffer_bytes: random.choose(&[1_000, 8_192, 16_384]),
            send_buffer_bytes: random.choose(&[512, 4_096, 16_384]),
            deadlines: patient(),
            direct_path: direct_path().unwrap_or(match seed % 3 {
                0 => DirectPath::Never,
                1 => DirectPath::Always,
                _ => DirectPath::Random(seed),
            }),
            ..StackConfig::default()
        };
        let buffers = |config: &StackConfig| vec![0; config.arena_bytes()].leak();
        let memory = || {
            MemoryLink::new(MemoryLinkConfig {
                frames: 512,
                ..MemoryLinkConfig::default()
            })
        };
        let local = Local::new(&[THEIRS.into()], &[PORT]).unwrap();
        let server = Shard::new(
            config.clone(),
            local,
            &Secrets::from_seed(seed),
            vec![FaultyLink::new(memory(), faults, seed)],
            CommandService::default(),
            buffers(&config),
            now,
        );
        // Hardly more ports than connections: they come back soon.
        let ports = 40_000..=40_015;
        let source_ports = Arc::new(SourcePorts::new(1, ports.clone(), count));
        let callers = (0..count).map(|shard| {
            let service = Caller {
                to_open: (0..CALLS)
                    .filter(|call| *call as usize % count == shard)
                    .collect(),
                open_max: 4,
                open: 0,
                ended: Vec::new(),
                completed: HashMap::new(),
            };
            let config = StackConfig {
                unknown_flow: UnknownFlow::for_shards(count),
                // Room for all that is said, so that nobody waits to be heard before it listens.
                send_buffer_bytes: 100_000,
                ..config.clone()
            };
            let local = Local::calling(&[OURS.into()], ports.clone()).unwrap();
            let secrets = Secrets::from_seed(seed + 1);
            let buffers = buffers(&config);
            let calling = Shard::new(
                config,
                local,
                &secrets,
                vec![memory()],
                service,
                buffers,
                now,
            );
            let outbound = Outbound {
                destination: SocketAddr::new(IpAddr::from(THEIRS), PORT),
                source_mac: [2, 0, 0, 0, 0, 1],
                next_hop_mac: [2, 0, 0, 0, 0, 2],
                ports: Arc::clone(&source_ports),
                shard,
            };
            calling.unwrap().calling(outbound, &secrets)
        });
        World {
            now,
            server: server.unwrap(),
            callers: callers.collect(),
            random,
        }
    }

    fn run(&mut self, seed: u64) {
        for _ in 0..STEPS_MAX {
            let is_busy = self.step();
            if !is_busy && self.is_over() {
                return self.check(seed);
            }
            let soon = self.now + Duration::from_micros(1 + self.random.below(20));
            let next = match is_busy {
                true => soon,
                false => self.next_at().unwrap_or(soon).max(soon),
            };
            self.now = next;
        }
        let done: u32 = self.completed().values().sum();
        panic!("seed {seed}: only {done} of {CALLS} calls were completed");
    }

    /// Lets everybody do what there is to do, and carries the frames.
    fn step(&mut self) -> bool {
        let now = self.now;
        let mut is_busy = self.server.poll(now).frames > 0;
        let count = self.callers.len();
        let wire = self.server.links_mut()[0].inner_mut();
        while let Some(frame) = wire.take(<[u8]>::to_vec) {
            is_busy = true;
            if let Some(segment) = TcpView::read(&frame) {
                // As a NIC does: by the flow, and not by who has called.
                let queue = usize::from(segment.destination.port() / 2) % count;
                self.callers[queue].links_mut()[0].push(&frame);
            }
        }
        for caller in &mut self.callers {
            is_busy |= caller.poll(now).frames > 0;
            while let Some(frame) = caller.links_mut()[0].take(<[u8]>::to_vec) {
                is_busy = true;
                self.server.links_mut()[0].inner_mut().push(&frame);
            }
        }
        is_busy
    }

    fn is_over(&self) -> bool {
        let is_idle = |connections, time_waits| connections == 0 && time_waits == 0;
        is_idle(self.server.connections(), self.server.time_waits())
            && self.callers.iter().all(|caller| {
                is_idle(caller.connections(), caller.time_waits())
                    && caller.service().to_open.is_empty()
            })
    }

    fn next_at(&mut self) -> Option<Instant> {
        let callers = self
            .callers
            .iter_mut()
            .map(|caller| caller.next_deadline(self.now));
        let server = [
            self.server.next_deadline(self.now),
            self.server.links()[0].next_at(),
        ];
        callers.chain(server).flatten().min()
    }

    fn completed(&self) -> HashMap<u64, u32> {
        let mut all = HashMap::new();
        for caller in &self.callers {
            for (&token, &times) in &caller.service().completed {
                *all.entry(token).or_default() += times;
            }
        }
        all
    }

    fn check(&self, seed: u64) {
        for caller in &self.callers {
            assert_eq!(caller.service().ended, [], "seed {seed}");
            assert_eq!(
                (caller.service().open, caller.flows(), caller.timers()),
                (0, 0, 0),
                "seed {seed}"
            );
        }
        assert_eq!(
            (self.server.flows(), self.server.timers()),
            (0, 0),
            "seed {seed}"
        );
    }
}

#[test]
fn all_that_is_said_is_heard_and_nothing_is_left() {
    for seed in 0..40 {
        World::new(seed).run(seed);
    }
}

#[test]
fn connections_move_to_the_shard_that_the_wire_brings_their_answers_to() {
    let handovers: u64 = (0..10)
        .map(|seed| {
            let mut world = World::new(seed);
            world.run(seed);
            let counts = world
                .callers
                .iter()
                .map(|caller| caller.counters().handovers.get());
            counts.sum::<u64>()
        })
        .sum();
    assert!(handovers > 50, "{handovers}");
}
