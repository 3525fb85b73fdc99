//! A bad wire around any link.
//!
//! Every frame passes through the faults on its way in and on its way out: it may be lost, alone or
//! in a burst, be corrupted or cut short, arrive twice, late or out of order. All of it follows from
//! the seed and from the frames and times that the link sees, so a failure can be run again.
//!
//! ```text
//!   inner.receive ──▶ faults ──▶ held until due ──▶ batch ──▶ shard
//!   inner.flush   ◀── held until due ◀── faults ◀── slots ◀── shard
//! ```
//!
//! This is for tests: frames are copied and memory is allocated.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::{Link, Received, Transmit};
use crate::link::LinkCounters;
use crate::random::Random;
use barewire_service::time::{Duration, Instant};

/// How bad the wire is, in each direction. The default is a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Frames lost, of 1,000.
    pub loss_permille: u32,
    /// Frames with which a burst of losses begins, of 1,000.
    pub burst_permille: u32,
    /// Frames lost in one burst.
    pub burst_frames: u32,
    /// Frames delivered twice, of 1,000.
    pub duplicate_permille: u32,
    /// Frames damaged, of 1,000: one bit flipped, or the tail cut off.
    pub corrupt_permille: u32,
    /// Frames that others overtake, of 1,000.
    pub reorder_permille: u32,
    /// How much later a frame arrives that others overtake, at most.
    pub reorder_delay_us: u32,
    /// How long every frame is under way.
    pub delay_us: u32,
    /// How much longer a frame is under way than others, at most; order is kept.
    pub jitter_us: u32,
}

barewire_service::counters! {
    /// What a faulty link did to frames, both directions together.
    pub struct FaultCounters {
        /// Frames lost, alone or in a burst.
        lost: Loss,
        /// Frames delivered twice.
        duplicated: Counter,
        /// Frames damaged.
        corrupted: Loss,
        /// Frames that others could overtake.
        reordered: Counter,
        /// Frames lost because too many were under way.
        overrun: Loss,
    }
}

/// A link whose frames suffer [`Faults`] in both directions.
#[derive(Debug)]
pub struct FaultyLink<L> {
    inner: L,
    rx: Wire,
    tx: Wire,
    batch: Batch,
    staged: Staged,
    counters: Arc<FaultCounters>,
}

impl<L: Link> FaultyLink<L> {
    /// Puts faults around `inner`; `seed` decides which frames they hit.
    pub fn new(inner: L, faults: Faults, seed: u64) -> FaultyLink<L> {
        FaultyLink {
            inner,
            rx: Wire::new(faults, seed ^ 0x7278),
            tx: Wire::new(faults, seed ^ 0x7478_0000),
            batch: Batch(Vec::new()),
            staged: Staged::default(),
            counters: Arc::default(),
        }
    }

    /// The link inside.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    /// The link inside.
    pub fn inner_mut(&mut self) -> &mut L {
        &mut self.inner
    }

    /// What was done to frames so far; shared with whoever reports it.
    pub fn fault_counters(&self) -> &Arc<FaultCounters> {
        &self.counters
    }

    /// Frames under way, in both directions.
    pub fn under_way(&self) -> usize {
        self.rx.held.len() + self.tx.held.len()
    }

    /// When the next frame under way arrives.
    pub fn next_at(&self) -> Option<Instant> {
        let first = |wire: &Wire| wire.held.peek().map(|Reverse(frame)| frame.at);
        first(&self.rx).into_iter().chain(first(&self.tx)).min()
    }
}

/// Frames in one batch at most.
const BATCH_FRAMES: usize = 64;
/// Frames that the sender can commit before it must flush.
const STAGED_FRAMES: usize = 256;
/// Frames under way in one direction at most.
const HELD_FRAMES: usize = 1 << 16;
/// Room for a frame of the largest MTU that AF_XDP can carry.
const SLOT_BYTES: usize = 4096;

impl<L: Link> Link for FaultyLink<L> {
    type Received = Batch;
    type Transmit = Staged;

    fn receive(&mut self, now: Instant) -> (&Batch, &mut Staged) {
        let (received, _) = self.inner.receive(now);
        for index in 0..received.len() {
            self.rx.carry(now, received.frame(index), &self.counters);
        }
        self.batch.0.clear();
        while self.batch.0.len() < BATCH_FRAMES {
            match self.rx.pop_due(now) {
                Some(frame) => self.batch.0.push(frame),
                None => break,
            }
        }
        (&self.batch, &mut self.staged)
    }

    fn transmit(&mut self) -> &mut Staged {
        &mut self.staged
    }

    fn flush(&mut self, now: Instant) -> bool {
        for frame in self.staged.frames.drain(..) {
            self.tx.carry(now, &frame, &self.counters);
        }
        let transmit = self.inner.transmit();
        while transmit.free_slots() > 0 {
            let (Some(frame), Some(slot)) = (self.tx.pop_due(now), transmit.slot()) else {
                break;
            };
            slot[..frame.len()].copy_from_slice(&frame);
            transmit.commit(frame.len());
        }
        let busy = self.inner.flush(now);
        busy || self.under_way() > 0
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }

    fn is_provisional(&self) -> bool {
        self.inner.is_provisional()
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn counters(&self) -> &LinkCounters {
        self.inner.counters()
    }
}

/// The receiving half: frames that made it.
#[derive(Debug)]
pub struct Batch(Vec<Vec<u8>>);

impl Received for Batch {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn frame(&self, index: usize) -> &[u8] {
        &self.0[index]
    }
}

/// The sending half: frames that the faults have not seen yet.
#[derive(Debug, Default)]
pub struct Staged {
    frames: Vec<Vec<u8>>,
    /// The slot last offered, until it is committed.
    slot: Option<Vec<u8>>,
}

impl Transmit for Staged {
    fn free_slots(&self) -> usize {
        STAGED_FRAMES - self.frames.len()
    }

    fn slot(&mut self) -> Option<&mut [u8]> {
        if self.free_slots() == 0 {
            return None;
        }
        Some(self.slot.get_or_insert_with(|| vec![0; SLOT_BYTES]))
    }

    fn commit(&mut self, len: usize) {
        let slot = self.slot.take();
        assert!(slot.is_some(), "commit without a slot");
        self.frames.extend(slot.map(|mut frame| {
            assert!(len <= frame.len(), "frame longer than its slot");
            frame.truncate(len);
            frame
        }));
    }
}

/// One direction.
#[derive(Debug)]
struct Wire {
    faults: Faults,
    random: Random,
    /// Frames of the current burst that are still to be lost.
    burst_left: u32,
    /// When the last frame that kept its place arrives.
    last_at: Instant,
    /// Numbers frames, so that those that arrive at the same time keep their order.
    carried: u64,
    held: BinaryHeap<Reverse<Held>>,
}

/// A frame under way; ordered by arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    at: Instant,
    number: u64,
    frame: Vec<u8>,
}

impl Wire {
    fn new(faults: Faults, seed: u64) -> Wire {
        Wire {
            faults,
            random: Random::new(seed),
            burst_left: 0,
            last_at: Instant::ZERO,
            carried: 0,
            held: BinaryHeap::new(),
        }
    }

    fn carry(&mut self, now: Instant, frame: &[u8], counters: &FaultCounters) {
        let faults = self.faults;
        if self.random.hits(faults.burst_permille) {
            self.burst_left = faults.burst_frames;
        }
        if self.burst_left > 0 || self.random.hits(faults.loss_permille) {
            self.burst_left = self.burst_left.saturating_sub(1);
            counters.lost.increment();
            return;
        }
        if self.random.hits(faults.duplicate_permille) {
            counters.duplicated.increment();
            self.hold(now, frame.to_vec(), counters);
        }
        let mut frame = frame.to_vec();
        if self.random.hits(faults.corrupt_permille) {
            counters.corrupted.increment();
            damage(&mut frame, &mut self.random);
        }
        self.hold(now, frame, counters);
    }

    fn hold(&mut self, now: Instant, frame: Vec<u8>, counters: &FaultCounters) {
        if self.held.len() >= HELD_FRAMES {
            counters.overrun.increment();
            return;
        }
        let faults = self.faults;
        let delay_us =
            u64::from(faults.delay_us) + self.random.below(u64::from(faults.jitter_us) + 1);
        let mut at = (now + Duration::from_micros(delay_us)).max(self.last_at);
        if self.random.hits(faults.reorder_permille) {
            counters.reordered.increment();
            at += Duration::from_micros(self.random.below(u64::from(faults.reorder_delay_us) + 1));
        } else {
            self.last_at = at;
        }
        self.carried += 1;
        self.held.push(Reverse(Held {
            at,
            number: self.carried,
            frame,
        }));
    }

    fn pop_due(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.held.peek()?.0.at > now {
            return None;
        }
        self.held.pop().map(|Reverse(held)| held.frame)
    }
}

/// Flips one bit, or in one case of four cuts the tail off: damage that lengths and checksums always
/// reveal, as they would not with more of it.
///
/// The MAC addresses are spared. Only the FCS protects them, which a link has checked before we see a
/// frame, and replies go to where frames claim to come from.
fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(frame.len() as u64) as usize;
    if random.hits(250) {
        frame.truncate(at);
    } else if let Some(byte) = frame.get_mut(at.max(MAC_ADDRESSES_BYTES)) {
        *byte ^= 1 << random.below(8);
    }
}

/// Length of the two addresses that an Ethernet frame begins with.
const MAC_ADDRESSES_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::super::memory::{MemoryLink, MemoryLinkConfig};
    use super::*;

    fn at_us(us: i64) -> Instant {
        Instant::from_micros(us)
    }

    /// Sends the numbers below `count`, one per microsecond, and returns what arrives when.
    fn outcome(faults: Faults, seed: u64, count: u32) -> Vec<(i64, Vec<u8>)> {
        let mut link = FaultyLink::new(MemoryLink::new(MemoryLinkConfig::default()), faults, seed);
        let mut arrived = Vec::new();
        for us in 0..i64::from(count) + 10_000 {
            if us < i64::from(count) {
                assert!(link.inner_mut().push(&(us as u32).to_be_bytes()));
            }
            let (batch, _) = link.receive(at_us(us));
            arrived.extend((0..batch.len()).map(|i| (us, batch.frame(i).to_vec())));
        }
        assert_eq!(link.under_way(), 0);
        arrived
    }

    fn numbers(arrived: &[(i64, Vec<u8>)]) -> Vec<u32> {
        arrived
            .iter()
            .filter_map(|(_, frame)| Some(u32::from_be_bytes(*frame.first_chunk()?)))
            .collect()
    }

    #[test]
    fn a_good_wire_changes_nothing() {
        let arrived = outcome(Faults::default(), 1, 100);
        assert_eq!(numbers(&arrived), (0..100).collect::<Vec<_>>());
        assert!(arrived.iter().zip(0..).all(|((us, _), sent)| *us == sent));
    }

    #[test]
    fn the_seed_decides() {
        let faults = Faults {
            loss_permille: 200,
            duplicate_permille: 100,
            corrupt_permille: 100,
            reorder_permille: 100,
            reorder_delay_us: 50,
            delay_us: 10,
            jitter_us: 10,
            ..Faults::default()
        };
        assert_eq!(outcome(faults, 7, 500), outcome(faults, 7, 500));
        assert_ne!(outcome(faults, 7, 500), outcome(faults, 8, 500));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let jitter = Faults {
            delay_us: 20,
            jitter_us: 100,
            ..Faults::default()
        };
        assert!(numbers(&outcome(jitter, 1, 300)).is_sorted());
        let reordering = Faults {
            reorder_permille: 100,
            reorder_delay_us: 100,
            ..Faults::default()
        };
        let mut arrived = numbers(&outcome(reordering, 1, 300));
        assert!(!arrived.is_sorted());
        arrived.sort_unstable();
        assert_eq!(arrived, (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn bursts_lose_neighbours() {
        let faults = Faults {
            burst_permille: 10,
            burst_frames: 8,
            ..Faults::default()
        };
        let arrived = numbers(&outcome(faults, 3, 500));
        let gaps = arrived.windows(2).filter(|pair| pair[1] - pair[0] >= 9);
        assert!(gaps.count() > 0);
    }

    #[test]
    fn damage_spares_the_mac_addresses() {
        let mut random = Random::new(1);
        for _ in 0..1_000 {
            let mut frame = vec![0; 60];
            damage(&mut frame, &mut random);
            assert!(frame != [0; 60]);
            assert!(
                frame
                    .iter()
                    .take(MAC_ADDRESSES_BYTES)
                    .all(|&byte| byte == 0)
            );
        }
    }

    #[test]
    fn losses_and_duplicates_are_counted() {
        let faults = Faults {
            loss_permille: 250,
            duplicate_permille: 250,
            ..Faults::default()
        };
        let mut link = FaultyLink::new(MemoryLink::new(MemoryLinkConfig::default()), faults, 5);
        for _ in 0..200 {
            link.staged.slot().unwrap()[0] = 1;
            link.staged.commit(60);
        }
        link.flush(at_us(0));
        let (lost, twice) = (link.counters.lost.get(), link.counters.duplicated.get());
        assert!(lost > 0 && twice > 0);
        assert_eq!(link.inner().sent().len() as u64, 200 - lost + twice);
    }
}
