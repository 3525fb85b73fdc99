//! One timing wheel for all connections of a core.
//!
//! A connection's next deadline moves with nearly every segment, and is nearly never reached. So the
//! wheel is lazy: it holds at most one entry per connection, and an entry that is early enough stays
//! where it is. When it expires, its owner looks at the connection and schedules what is really
//! next. Per segment this costs one comparison.
//!
//! ```text
//!   cursor ─▶ ┌────┬────┬────┬────┬────┬── … ──┬────┐   SLOTS slots of TICK each, and for each
//!             │    │ ●  │    │ ●  │    │       │ ●  │   a circular list through `nodes`:
//!             └────┴─┼──┴────┴─┼──┴────┴───────┴─┼──┘
//!                    ▼         ▼                 ▼
//!                   17 ⇄ 4     9            parked: due beyond the horizon, filed again there
//! ```
//!
//! A deadline is never reported early and at most one [`TimerWheel::TICK`] late.

use crate::time::{Duration, Instant};

/// A bounded set of deadlines, at most one for each index.
///
/// Takes its address space when it is made and memory as higher indices are used; every operation is O(1).
#[derive(Debug)]
pub struct TimerWheel {
    /// One list head per slot, then the head of what is due, then one node per index, up to the highest that was
    /// ever scheduled.
    nodes: Vec<Node>,
    occupied: Occupied,
    /// The first tick whose slot was not emptied yet.
    cursor: u64,
    /// The last tick that had passed when the owner last asked.
    now: u64,
    indices: u32,
    len: usize,
}

/// An element of a circular list; alone in it when it is not scheduled.
#[derive(Debug, Clone, Copy)]
struct Node {
    next: u32,
    previous: u32,
    tick: u64,
}

impl Node {
    fn alone(at: u32) -> Node {
        Node {
            next: at,
            previous: at,
            tick: IDLE,
        }
    }
}

/// The tick of an index that is not scheduled.
const IDLE: u64 = u64::MAX;

/// The head of what is due, behind those of the slots.
const DUE_HEAD: u32 = TimerWheel::SLOTS;

/// How many nodes are heads.
const HEADS: u32 = DUE_HEAD + 1;

impl TimerWheel {
    /// The wheel's resolution.
    pub const TICK: Duration = Duration::from_micros(1 << Self::TICK_SHIFT);
    const TICK_SHIFT: u32 = 12;
    const SLOTS: u32 = 4096;

    /// A wheel for the indices below `indices`, with nothing scheduled.
    ///
    /// It takes 16 bytes per index and 64 KiB.
    ///
    /// # Panics
    ///
    /// If `indices` is 2^31 or more.
    pub fn new(indices: usize, now: Instant) -> TimerWheel {
        assert!(indices < 1 << 31, "timer wheel too large");
        let mut nodes = Vec::with_capacity(HEADS as usize + indices);
        nodes.extend((0..HEADS).map(Node::alone));
        let now = passed_ticks(now);
        TimerWheel {
            nodes,
            occupied: Occupied::default(),
            cursor: now + 1,
            now,
            indices: indices as u32,
            len: 0,
        }
    }

    /// Makes sure that `index` expires no later than `at`.
    ///
    /// Does nothing if it already expires earlier. A point in the past counts as the next tick, so
    /// an owner that schedules what has just expired cannot be caught in a loop.
    ///
    /// # Panics
    ///
    /// If `index` is not below the number of indices.
    #[inline]
    pub fn schedule(&mut self, index: u32, at: Instant) {
        let tick = due_tick(at).max(self.now + 1);
        match self.nodes.get(HEADS as usize + index as usize) {
            Some(known) if known.tick <= tick => return,
            Some(_) => self.cancel(index),
            None => self.grow(index),
        }
        self.file(HEADS + index, tick);
        self.len += 1;
    }

    /// Forgets the deadline of `index`, if it has one.
    ///
    /// # Panics
    ///
    /// If `index` is not below the number of indices.
    pub fn cancel(&mut self, index: u32) {
        assert!(index < self.indices, "no such timer");
        if self.is_scheduled(index) {
            self.unlink(HEADS + index);
            self.len -= 1;
        }
    }

    /// Removes and returns one index whose deadline has passed; call it until there is none.
    ///
    /// The owner may schedule and cancel anything in between. No index is returned twice for the
    /// same `now`. `now` must not go back; if it does, nothing expires.
    #[inline]
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let now = passed_ticks(now);
        if now < self.cursor && self.first(DUE_HEAD).is_none() {
            return None;
        }
        self.now = self.now.max(now);
        self.pop_due()
    }

    /// When [`TimerWheel::pop_expired`] should be called next; possibly earlier than the first
    /// deadline if that is far away, but never later.
    pub fn next_at(&self) -> Option<Instant> {
        let tick = if self.first(DUE_HEAD).is_some() {
            self.now
        } else {
            self.cursor + u64::from(self.occupied.distance_from(self.cursor)?)
        };
        Some(Instant::from_micros((tick << Self::TICK_SHIFT) as i64))
    }

    /// Number of indices that are scheduled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `index` is scheduled.
    pub fn is_scheduled(&self, index: u32) -> bool {
        let node = self.nodes.get((HEADS + index) as usize);
        node.is_some_and(|node| node.tick != IDLE)
    }

    /// Bytes of memory that a wheel for `indices` indices takes.
    pub fn memory_bytes(indices: usize) -> usize {
        (HEADS as usize + indices) * size_of::<Node>()
    }

    fn pop_due(&mut self) -> Option<u32> {
        loop {
            while let Some(node) = self.first(DUE_HEAD) {
                let tick = self.nodes[node as usize].tick;
                self.unlink(node);
                if tick <= self.now {
                    self.len -= 1;
                    return Some(node - HEADS);
                }
                self.file(node, tick);
            }
            let next = self
                .occupied
                .distance_from(self.cursor)
                .map(|distance| self.cursor + u64::from(distance))
                .filter(|&tick| tick <= self.now);
            let Some(tick) = next else {
                self.cursor = self.now + 1;
                return None;
            };
            self.cursor = tick + 1;
            self.take_slot(tick);
        }
    }

    /// Makes the nodes up to the one of `index`.
    #[cold]
    fn grow(&mut self, index: u32) {
        assert!(index < self.indices, "no such timer");
        self.nodes
            .extend((self.nodes.len() as u32..=HEADS + index).map(Node::alone));
    }

    /// Links `node` into the slot of `tick`, or the last one if that is beyond the horizon.
    fn file(&mut self, node: u32, tick: u64) {
        let slot_tick = tick.clamp(self.cursor, self.cursor + u64::from(Self::SLOTS) - 1);
        let head = slot_of(slot_tick);
        let last = self.nodes[head as usize].previous;
        self.nodes[node as usize] = Node {
            next: head,
            previous: last,
            tick,
        };
        self.nodes[last as usize].next = node;
        self.nodes[head as usize].previous = node;
        self.occupied.set(head);
    }

    fn unlink(&mut self, node: u32) {
        let Node { next, previous, .. } = self.nodes[node as usize];
        self.nodes[previous as usize].next = next;
        self.nodes[next as usize].previous = previous;
        self.nodes[node as usize].tick = IDLE;
        if next == previous && next < DUE_HEAD {
            self.occupied.clear(next);
        }
    }

    /// Moves all of a slot's list to the empty list of what is due.
    fn take_slot(&mut self, tick: u64) {
        let (head, due) = (slot_of(tick), DUE_HEAD);
        let Node { next, previous, .. } = self.nodes[head as usize];
        self.nodes[due as usize].next = next;
        self.nodes[due as usize].previous = previous;
        self.nodes[next as usize].previous = due;
        self.nodes[previous as usize].next = due;
        self.nodes[head as usize].next = head;
        self.nodes[head as usize].previous = head;
        self.occupied.clear(head);
    }

    #[inline]
    fn first(&self, head: u32) -> Option<u32> {
        let next = self.nodes[head as usize].next;
        (next != head).then_some(next)
    }
}

/// The first tick that begins at or after `at`.
#[inline]
fn due_tick(at: Instant) -> u64 {
    let us = at.total_micros().max(0) as u64;
    us.div_ceil(1 << TimerWheel::TICK_SHIFT)
}

/// The last tick that begins at or before `now`.
#[inline]
fn passed_ticks(now: Instant) -> u64 {
    now.total_micros().max(0) as u64 >> TimerWheel::TICK_SHIFT
}

#[inline]
fn slot_of(tick: u64) -> u32 {
    tick as u32 % TimerWheel::SLOTS
}

/// Which slots hold something: a bit for each, and a bit for each word of them.
#[derive(Debug)]
struct Occupied {
    words: [u64; 64],
    summary: u64,
}

impl Default for Occupied {
    fn default() -> Self {
        Occupied {
            words: [0; 64],
            summary: 0,
        }
    }
}

impl Occupied {
    fn set(&mut self, slot: u32) {
        self.words[slot as usize / 64] |= 1 << (slot % 64);
        self.summary |= 1 << (slot / 64);
    }

    fn clear(&mut self, slot: u32) {
        let word = &mut self.words[slot as usize / 64];
        *word &= !(1 << (slot % 64));
        if *word == 0 {
            self.summary &= !(1 << (slot / 64));
        }
    }

    /// How many slots lie between the slot of `tick` and the first occupied one at or after it.
    fn distance_from(&self, tick: u64) -> Option<u32> {
        let start = slot_of(tick);
        let (word, bit) = (start / 64, start % 64);
        let here = self.words[word as usize] >> bit;
        if here != 0 {
            return Some(here.trailing_zeros());
        }
        // The words behind this one, then those before it, then this one's lower bits.
        let rotated = self.summary.rotate_right(word) & !1;
        let slot = if rotated != 0 {
            let found = (word + rotated.trailing_zeros()) % 64;
            found * 64 + self.words[found as usize].trailing_zeros()
        } else if self.words[word as usize] != 0 {
            word * 64 + self.words[word as usize].trailing_zeros()
        } else {
            return None;
        };
        Some(slot.wrapping_sub(start) % TimerWheel::SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn ms(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn expired(wheel: &mut TimerWheel, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop_expired(now)).collect()
    }

    #[test]
    fn a_deadline_expires_within_one_tick() {
        let mut wheel = TimerWheel::new(1, ms(0));
        wheel.schedule(0, ms(100));
        assert_eq!(expired(&mut wheel, Instant::from_micros(99_999)), []);
        assert_eq!(expired(&mut wheel, ms(100) + TimerWheel::TICK), [0]);
        assert!(wheel.is_empty());
        assert_eq!(wheel.next_at(), None);
    }

    #[test]
    fn an_earlier_entry_stays_and_a_later_one_moves() {
        let mut wheel = TimerWheel::new(2, ms(0));
        wheel.schedule(0, ms(50));
        wheel.schedule(0, ms(500));
        wheel.schedule(1, ms(500));
        wheel.schedule(1, ms(50));
        assert_eq!(wheel.len(), 2);
        assert_eq!(expired(&mut wheel, ms(60)), [0, 1]);
    }

    #[test]
    fn a_deadline_beyond_the_horizon_is_parked_and_still_exact() {
        let hour = ms(3_600_000);
        let mut wheel = TimerWheel::new(1, ms(0));
        wheel.schedule(0, hour);
        while let Some(next) = wheel.next_at().filter(|&next| next < hour) {
            assert_eq!(expired(&mut wheel, next), []);
        }
        assert_eq!(expired(&mut wheel, hour + TimerWheel::TICK), [0]);
    }

    #[test]
    fn what_expired_may_be_scheduled_in_the_past_without_end() {
        let mut wheel = TimerWheel::new(3, ms(0));
        (0..3).for_each(|index| wheel.schedule(index, ms(10)));
        let mut seen = 0;
        while let Some(index) = wheel.pop_expired(ms(5_000)) {
            wheel.schedule(index, ms(20));
            seen += 1;
        }
        assert_eq!(seen, 3);
        assert_eq!(expired(&mut wheel, ms(5_000) + TimerWheel::TICK).len(), 3);
    }

    #[test]
    fn what_is_due_can_be_cancelled() {
        let mut wheel = TimerWheel::new(3, ms(0));
        (0..3).for_each(|index| wheel.schedule(index, ms(10)));
        assert_eq!(wheel.pop_expired(ms(50)), Some(0));
        wheel.cancel(1);
        wheel.cancel(1);
        assert_eq!(expired(&mut wheel, ms(50)), [2]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Schedule(u32, i64),
        Cancel(u32),
        Advance(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let span_us = prop_oneof![0i64..100_000, 0i64..40_000_000, 0i64..400_000_000];
        prop_oneof![
            4 => (0u32..12, span_us.clone()).prop_map(|(index, us)| Step::Schedule(index, us)),
            1 => (0u32..12).prop_map(Step::Cancel),
            3 => span_us.prop_map(Step::Advance),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(steps in prop::collection::vec(step(), 0..200)) {
            let mut now = Instant::from_micros(1_000_003);
            let mut wheel = TimerWheel::new(12, now);
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Schedule(index, us) => {
                        let at = now + Duration::from_micros(us as u64);
                        wheel.schedule(index, at);
                        let earliest = model.get(&index).map_or(at, |&pending| pending.min(at));
                        model.insert(index, earliest);
                    }
                    Step::Cancel(index) => {
                        wheel.cancel(index);
                        model.remove(&index);
                    }
                    Step::Advance(us) => {
                        now += Duration::from_micros(us as u64);
                        for index in expired(&mut wheel, now) {
                            let at = model.remove(&index);
                            prop_assert!(at.is_some_and(|at| at <= now), "{index} is early");
                        }
                        for (index, &at) in &model {
                            prop_assert!(at + TimerWheel::TICK * 2 > now, "{index} is late");
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert_eq!(wheel.is_empty(), wheel.next_at().is_none());
                if let (Some(next), Some(first)) = (wheel.next_at(), model.values().min()) {
                    prop_assert!(next <= *first + TimerWheel::TICK * 2, "would sleep too long");
                }
                for index in 0..12 {
                    prop_assert_eq!(wheel.is_scheduled(index), model.contains_key(&index));
                }
            }
        }
    }
}
