//! A sender against a model of a receiver, over a link that loses, reorders and duplicates.
//!
//! After every step: [una, nxt) and the queue are exactly the chunks, nothing lies beyond the right edge
//! that the peer ever told, and the congestion window is at least a segment, outside recovery. In the end every byte has
//! arrived once and in order, all chunks are back, and no timer is left.

use proptest::prelude::*;

use super::chunks::Chunks;
use super::sack::{BLOCKS_MAX, Block};
use super::*;
use crate::guard::is_before;

/// What one run is made of.
#[derive(Debug, Clone)]
struct Scenario {
    seed: u64,
    bytes: usize,
    mss: u16,
    has_sack: bool,
    /// Chances in 256, each way.
    loss: u8,
    duplication: u8,
    /// One-way delay, and how much more it may be.
    delay_us: u64,
    jitter_us: u64,
    /// The peer's receive buffer.
    buffer: u32,
    /// The largest piece that is written at once.
    write_max: usize,
    /// The MSS is reduced half-way.
    shrinks: bool,
    large_chunks: u32,
    /// The stream is ended.
    ends: bool,
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let traffic = (any::<u64>(), 1_usize..60_000, 50_u16..1600, any::<bool>());
    let path = (0_u8..64, 0_u8..32, 10_u64..100_000, 0_u64..50_000);
    let ends = (100_u32..200_000, 1_usize..20_000, any::<bool>(), 8_u32..200);
    (traffic, path, ends).prop_map(|(traffic, path, ends)| Scenario {
        seed: traffic.0,
        bytes: traffic.1,
        mss: traffic.2,
        has_sack: traffic.3,
        loss: path.0,
        duplication: path.1,
        delay_us: path.2,
        jitter_us: path.3,
        buffer: ends.0,
        write_max: ends.1,
        shrinks: ends.2,
        large_chunks: ends.3,
        ends: traffic.0 % 2 == 0,
    })
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn happens(&mut self, of_256: u8) -> bool {
        self.below(256) < u64::from(of_256)
    }
}

enum Event {
    /// To the receiver: offset in the stream (as a sequence number), payload, and whether a FIN is behind it.
    Data(u32, Vec<u8>, bool),
    /// To the sender.
    Answer {
        ack: u32,
        window: u32,
        blocks: Vec<Block>,
    },
    /// The receiving application reads.
    Read,
}

/// A receiver that acknowledges every segment at once, keeps all that is in its window and reads slowly.
struct Receiver {
    start: u32,
    /// One cell for each byte of the stream.
    cells: Vec<Option<u8>>,
    in_order: usize,
    read: usize,
    buffer: usize,
    /// The right edge told, which never moves back.
    edge: usize,
    latest: Vec<Block>,
    /// The FIN has arrived.
    fin: bool,
}

impl Receiver {
    fn take(&mut self, seq: u32, payload: &[u8], is_fin: bool, has_sack: bool) -> Event {
        let offset = seq.wrapping_sub(self.start) as i32;
        let mut blocks = Vec::new();
        let mut is_new = false;
        for (index, &byte) in payload.iter().enumerate() {
            let at = offset + index as i32;
            assert!(
                at < self.edge as i32,
                "byte {at} lies beyond the window's edge {}",
                self.edge
            );
            let Ok(at) = usize::try_from(at) else {
                continue;
            };
            match &mut self.cells[at] {
                Some(known) => assert_eq!(*known, byte, "byte {at} changed"),
                cell => {
                    is_new = true;
                    *cell = Some(byte);
                }
            }
        }
        let end = seq.wrapping_add(payload.len() as u32);
        if is_fin {
            assert_eq!(end, self.seq_of(self.cells.len()), "the FIN is elsewhere");
            self.fin = true;
        }
        if !payload.is_empty() && !is_new {
            blocks.push(Block { start: seq, end });
        }
        while self.cells.get(self.in_order).is_some_and(Option::is_some) {
            self.in_order += 1;
        }
        if is_new && offset > self.in_order as i32 {
            let block = self.island(offset as usize);
            self.latest
                .retain(|known| !block.covers(known.start, known.end));
            self.latest.insert(0, block);
        }
        let rcv_nxt = self.seq_of(self.in_order);
        self.latest.retain(|block| is_before(rcv_nxt, block.start));
        self.latest.truncate(BLOCKS_MAX);
        blocks.extend(&self.latest);
        blocks.truncate(BLOCKS_MAX);
        self.answer(if has_sack { blocks } else { Vec::new() })
    }

    /// The received bytes around `at`, which follow a gap.
    fn island(&self, at: usize) -> Block {
        let from = self.cells[..at].iter().rposition(Option::is_none);
        let len = self.cells[at..].iter().position(Option::is_none);
        Block {
            start: self.seq_of(from.map_or(0, |gap| gap + 1)),
            end: match len {
                Some(len) => self.seq_of(at + len),
                None => self
                    .seq_of(self.cells.len())
                    .wrapping_add(u32::from(self.fin)),
            },
        }
    }

    fn has_all(&self) -> bool {
        self.fin && self.in_order == self.cells.len()
    }

    fn seq_of(&self, offset: usize) -> u32 {
        self.start.wrapping_add(offset as u32)
    }

    fn answer(&mut self, blocks: Vec<Block>) -> Event {
        self.edge = self.edge.max(self.read + self.buffer);
        Event::Answer {
            ack: self
                .seq_of(self.in_order)
                .wrapping_add(u32::from(self.has_all())),
            window: (self.edge - self.in_order) as u32,
            blocks,
        }
    }
}

/// Runs to the end, or panics.
fn run(scenario: &Scenario) {
    let mut random = Random(scenario.seed);
    let config = Config::default();
    let stream: Vec<u8> = (0..scenario.bytes).map(|_| random.next() as u8).collect();
    let start = random.next() as u32;
    let mut chunks = Chunks::new(16, scenario.large_chunks).unwrap();
    let mut now = Instant::from_secs(1);
    let mut sender = Sender::new(
        &Start {
            nxt: start,
            window: scenario.buffer,
            window_seq: 0,
            mss: scenario.mss,
            has_sack: scenario.has_sack,
            remembered: Remembered::default(),
        },
        now,
    );
    let mut receiver = Receiver {
        start,
        cells: vec![None; scenario.bytes],
        in_order: 0,
        read: 0,
        buffer: scenario.buffer as usize,
        edge: scenario.buffer as usize,
        latest: Vec::new(),
        fin: false,
    };
    let mut written = 0;
    let mut events: Vec<(Instant, Event)> = Vec::new();
    let mut steps = 0;
    let mut is_ended = false;
    let mut may_shrink = scenario.shrinks;
    loop {
        steps += 1;
        assert!(steps < 400_000, "does not end: {sender:?}");
        // Write.
        if written < stream.len() {
            let len = 1 + random.below(scenario.write_max as u64) as usize;
            let piece = &stream[written..stream.len().min(written + len)];
            let room = sender.room_now();
            if piece.len() <= room && chunks.has_room(piece.len()) {
                let seq = sender.nxt();
                let sum = sender.push_sent(&mut chunks, &config, piece, now).unwrap();
                assert_eq!(sum, smoltcp::wire::checksum::data(piece));
                written += piece.len();
                transmit(
                    scenario,
                    &mut random,
                    &mut events,
                    now,
                    Event::Data(seq, piece.to_vec(), false),
                );
            } else {
                written += sender.queue(&mut chunks, &config, piece, now);
            }
        }
        if may_shrink && written > stream.len() / 2 {
            may_shrink = false;
            sender.set_mss(&mut chunks, scenario.mss / 2);
        }
        if written == stream.len() && scenario.ends && !is_ended {
            sender.finish();
            is_ended = true;
        }
        // Send.
        while let Some(segment) = sender.next_segment(&mut chunks, &config, now) {
            check(&sender, &chunks);
            assert!(segment.len <= sender.mss());
            let payload = match segment.chunk {
                Some(chunk) => chunks.payload(chunk).to_vec(),
                None => Vec::new(),
            };
            assert_eq!(payload.len(), usize::from(segment.len));
            let data = Event::Data(segment.seq, payload, segment.is_fin);
            transmit(scenario, &mut random, &mut events, now, data);
        }
        check(&sender, &chunks);
        if written == stream.len() && sender.is_quiet() {
            break;
        }
        // Wait for what comes first.
        let first = (0..events.len()).min_by_key(|&index| events[index].0);
        let at = first.map(|index| events[index].0);
        let deadline = sender.deadline();
        let is_event = at.is_some_and(|at| deadline.is_none_or(|deadline| at <= deadline));
        if is_event && let Some(first) = first {
            let (at, event) = events.swap_remove(first);
            now = now.max(at);
            match event {
                Event::Data(seq, payload, is_fin) => {
                    let answer = receiver.take(seq, &payload, is_fin, scenario.has_sack);
                    transmit(scenario, &mut random, &mut events, now, answer);
                    let later = Duration::from_micros(random.below(20_000));
                    events.push((now + later, Event::Read));
                }
                Event::Read => {
                    receiver.read = receiver.in_order;
                    // The window is told again once it is worth it, as MUST-39 wants; this may be lost.
                    if receiver.read + receiver.buffer > receiver.edge {
                        let answer = receiver.answer(Vec::new());
                        transmit(scenario, &mut random, &mut events, now, answer);
                    }
                }
                Event::Answer {
                    ack,
                    window,
                    blocks,
                } => {
                    sender.on_ack(
                        &mut chunks,
                        &config,
                        &Ack {
                            seq: 0,
                            ack,
                            window,
                            has_payload: false,
                            sack: &blocks,
                            rtt: None,
                        },
                        now,
                    );
                }
            }
        } else {
            now = deadline.expect("something is in flight and nothing will happen");
            sender.on_deadline(&mut chunks, &config, now);
        }
        check(&sender, &chunks);
    }
    assert_eq!(receiver.in_order, stream.len());
    assert_eq!(receiver.has_all(), scenario.ends);
    assert_eq!(
        sender.una(),
        receiver
            .seq_of(stream.len())
            .wrapping_add(u32::from(scenario.ends))
    );
    let received: Vec<u8> = receiver.cells.into_iter().flatten().collect();
    assert!(received == stream);
    assert_eq!(chunks.used(), 0);
    assert_eq!(sender.deadline(), None);
}

fn check(sender: &Sender, chunks: &Chunks) {
    assert!(sender.is_consistent(chunks), "{sender:?}");
    let cwnd = sender.congestion_window();
    let is_sane = sender.is_recovering() || cwnd >= u32::from(sender.mss());
    assert!(is_sane && cwnd <= 4 << 20, "{sender:?}");
}

/// Loses, delays and duplicates.
fn transmit(
    scenario: &Scenario,
    random: &mut Random,
    events: &mut Vec<(Instant, Event)>,
    now: Instant,
    event: Event,
) {
    let copy = match &event {
        Event::Data(seq, payload, is_fin) if random.happens(scenario.duplication) => {
            Some(Event::Data(*seq, payload.clone(), *is_fin))
        }
        _ => None,
    };
    for event in [Some(event), copy].into_iter().flatten() {
        if !random.happens(scenario.loss) {
            let delay_us = scenario.delay_us + random.below(scenario.jitter_us + 1);
            events.push((now + Duration::from_micros(delay_us), event));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_byte_arrives_once_and_in_order(scenario in scenarios()) {
        run(&scenario);
    }

    /// Whatever a peer acknowledges, in whatever order.
    #[test]
    fn hostile_acks_do_no_harm(
        seed in any::<u64>(),
        has_sack in any::<bool>(),
        mss in 1_u16..1600,
        start in any::<u32>(),
    ) {
        let mut random = Random(seed);
        let config = Config::default();
        let mut chunks = Chunks::new(4, 40).unwrap();
        let mut now = Instant::from_secs(1);
        let mut sender = Sender::new(
            &Start {
                nxt: start,
                window: 20_000,
                window_seq: 7,
                mss,
                has_sack,
                remembered: Remembered::default(),
            },
            now,
        );
        for _ in 0..400 {
            now += Duration::from_micros(random.below(300_000));
            let len = 1 + random.below(5_000) as usize;
            sender.queue(&mut chunks, &config, &vec![0; len], now);
            for _ in 0..random.below(30) {
                if sender.next_segment(&mut chunks, &config, now).is_none() {
                    break;
                }
                check(&sender, &chunks);
            }
            let near = |random: &mut Random, una: u32| match random.below(8) {
                0 => random.next() as u32,
                1 => una,
                _ => una.wrapping_add(random.below(8_000) as u32).wrapping_sub(1_000),
            };
            let blocks: Vec<Block> = (0..random.below(6))
                .map(|_| Block {
                    start: near(&mut random, sender.una()),
                    end: near(&mut random, sender.una()),
                })
                .collect();
            for _ in 0..1 + random.below(4) {
                let ack = Ack {
                    seq: 5 + random.below(6) as u32,
                    ack: near(&mut random, sender.una()),
                    window: [0, 1, 500, 20_000, u32::MAX][random.below(5) as usize],
                    has_payload: random.happens(30),
                    sack: &blocks,
                    rtt: random.happens(30).then(|| Duration::from_micros(random.next())),
                };
                sender.on_ack(&mut chunks, &config, &ack, now);
                check(&sender, &chunks);
            }
            if sender.deadline().is_some_and(|at| at <= now) {
                sender.on_deadline(&mut chunks, &config, now);
                check(&sender, &chunks);
            }
            if random.happens(4) {
                sender.set_mss(&mut chunks, 1 + random.below(1600) as u16);
                check(&sender, &chunks);
            }
        }
        sender.discard(&mut chunks);
        prop_assert_eq!(chunks.used(), 0);
        prop_assert!(sender.is_quiet());
    }
}
