//! Copies of the frames that a link receives and sends, for `barewire capture`: tcpdump cannot see them.
//!
//! ```text
//!   core:     TapEnd::begin_batch ── one relaxed load: is there a watcher?
//!                  │ yes
//!                  └─▶ record(frame) ─▶ [ ring of bytes ] ─▶ Watch::next      watcher's thread
//!                           no room: counted and dropped
//! ```
//!
//! The core never waits: it copies a frame into a bounded ring, or counts it as lost. A watcher that
//! begins makes the ring and puts its writing half into a slot, from which the core takes it with its next
//! batch; a watcher that ends empties the slot. The core takes a lock only then, and only if it is free.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::counters::Counter;

/// Where a link can be watched; shared between its core and a watcher.
#[derive(Debug, Default)]
pub struct Tap {
    /// Odd while there is a watcher.
    generation: AtomicU32,
    /// What the core goes on with once it sees another generation.
    slot: Mutex<Option<Writer>>,
    /// Frames for which the ring had no room, ever.
    lost: Counter,
}

/// The core's end of a [`Tap`].
#[derive(Debug)]
pub struct TapEnd {
    tap: Arc<Tap>,
    generation: u32,
    writer: Option<Writer>,
}

/// The watcher's end of a [`Tap`]. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    tap: Arc<Tap>,
    ring: Consumer<u8>,
    lost_before: u64,
}

/// A frame as it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When its batch was received or sent, in nanoseconds since 1970.
    pub unix_time_ns: u64,
    /// Which way it went.
    pub direction: Direction,
    /// How long the frame was, in bytes; what was recorded of it may be shorter.
    pub frame_bytes: u32,
}

/// Which way a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// In.
    Received,
    /// Out.
    Sent,
}

#[derive(Debug)]
struct Writer {
    ring: Producer<u8>,
    snap_bytes: usize,
    /// Of the current batch.
    unix_time_ns: u64,
}

/// In front of each frame in the ring: time, length of the frame, length of what follows, direction.
const HEADER_BYTES: usize = 8 + 4 + 4 + 1;

impl Tap {
    /// Watches from the core's next batch on: the first `snap_bytes` of each frame, through a ring of
    /// `ring_bytes`. `None` if there is a watcher already.
    pub fn watch(self: &Arc<Self>, ring_bytes: usize, snap_bytes: usize) -> Option<Watch> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Relaxed);
        if generation % 2 == 1 {
            return None;
        }
        let (writer, reader) = RingBuffer::new(ring_bytes);
        *slot = Some(Writer {
            ring: writer,
            snap_bytes,
            unix_time_ns: 0,
        });
        self.generation.store(generation.wrapping_add(1), Release);
        Some(Watch {
            tap: Arc::clone(self),
            ring: reader,
            lost_before: self.lost.get(),
        })
    }
}

impl TapEnd {
    /// The core's end of a new tap.
    pub fn new() -> Self {
        TapEnd {
            tap: Arc::default(),
            generation: 0,
            writer: None,
        }
    }

    /// The tap, to be watched.
    pub fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    /// Looks whether there is a watcher; to be called once per batch, before it is recorded.
    #[inline]
    pub fn begin_batch(&mut self) -> bool {
        let generation = self.tap.generation.load(Relaxed);
        if generation != self.generation {
            self.change();
        }
        match &mut self.writer {
            None => false,
            Some(writer) => {
                writer.unix_time_ns = unix_time_ns();
                true
            }
        }
    }

    /// Whether there was a watcher when the last batch began.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.writer.is_some()
    }

    /// Copies a frame for the watcher, if there is one and there is room.
    pub fn record(&mut self, direction: Direction, frame: &[u8]) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let kept = &frame[..frame.len().min(writer.snap_bytes)];
        if writer.ring.slots() < HEADER_BYTES + kept.len() {
            self.tap.lost.increment();
            return;
        }
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&writer.unix_time_ns.to_ne_bytes());
        header[8..12].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        header[12..16].copy_from_slice(&(kept.len() as u32).to_ne_bytes());
        header[16] = u8::from(direction == Direction::Sent);
        // There is room for both: only this thread takes any.
        let _ = writer.ring.push_entire_slice(&header);
        let _ = writer.ring.push_entire_slice(kept);
    }

    #[cold]
    fn change(&mut self) {
        // Held only while a watcher begins or ends: the next batch will do.
        let Ok(mut slot) = self.tap.slot.try_lock() else {
            return;
        };
        // What was written to so far is left in the slot, so that it is not freed here.
        std::mem::swap(&mut *slot, &mut self.writer);
        // It changes only while the lock is held, so it is the one that belongs to the slot.
        self.generation = self.tap.generation.load(Relaxed);
    }
}

impl Default for TapEnd {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// The next frame: appends what was recorded of it to `bytes`. `None` if there is none yet.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> Option<Record> {
        let mut header = [0; HEADER_BYTES];
        {
            let chunk = self.ring.read_chunk(HEADER_BYTES).ok()?;
            let (first, second) = chunk.as_slices();
            header[..first.len()].copy_from_slice(first);
            header[first.len()..].copy_from_slice(second);
        }
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| header[at + i]));
        let kept = word(12) as usize;
        // The header stays until all that belongs to it is there.
        let chunk = self.ring.read_chunk(HEADER_BYTES + kept).ok()?;
        let (first, second) = chunk.as_slices();
        let skipped = HEADER_BYTES.min(first.len());
        bytes.extend_from_slice(&first[skipped..]);
        bytes.extend_from_slice(&second[HEADER_BYTES - skipped..]);
        chunk.commit_all();
        Some(Record {
            unix_time_ns: u64::from_ne_bytes(std::array::from_fn(|i| header[i])),
            direction: match header[16] {
                0 => Direction::Received,
                _ => Direction::Sent,
            },
            frame_bytes: word(8),
        })
    }

    /// Frames that the core could not record since the watch began.
    pub fn lost(&self) -> u64 {
        self.tap.lost.get().wrapping_sub(self.lost_before)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut slot = self.tap.slot.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = None;
        let generation = self.tap.generation.load(Relaxed);
        self.tap
            .generation
            .store(generation.wrapping_add(1), Release);
    }
}

fn unix_time_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(watch: &mut Watch) -> Vec<(Direction, u32, Vec<u8>)> {
        let next = || {
            let mut bytes = Vec::new();
            let record = watch.next(&mut bytes)?;
            assert!(record.unix_time_ns > 1_600_000_000_000_000_000);
            Some((record.direction, record.frame_bytes, bytes))
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_watch_sees_the_batches_that_begin_while_it_lasts() {
        let mut end = TapEnd::new();
        assert!(!end.begin_batch());
        end.record(Direction::Received, b"before");

        let mut watch = end.tap().watch(1000, 4).unwrap();
        assert!(!end.is_watched(), "not in the middle of a batch");
        assert!(end.begin_batch());
        end.record(Direction::Received, b"ping");
        end.record(Direction::Sent, b"longer");
        assert_eq!(
            all(&mut watch),
            [
                (Direction::Received, 4, b"ping".to_vec()),
                (Direction::Sent, 6, b"long".to_vec())
            ]
        );
        drop(watch);
        assert!(!end.begin_batch());
    }

    #[test]
    fn only_one_watches_at_a_time() {
        let mut end = TapEnd::new();
        let first = end.tap().watch(1000, 100).unwrap();
        assert!(end.tap().watch(1000, 100).is_none());
        drop(first);
        // The core has not looked meanwhile, and still writes for the second.
        let mut second = end.tap().watch(1000, 100).unwrap();
        assert!(end.begin_batch());
        end.record(Direction::Sent, b"two");
        assert_eq!(all(&mut second).len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_disturbs_nothing() {
        let mut end = TapEnd::new();
        let mut watch = end.tap().watch(2 * (HEADER_BYTES + 10), 100).unwrap();
        end.begin_batch();
        for frame in [[1; 10], [2; 10], [3; 10], [4; 10]] {
            end.record(Direction::Received, &frame);
        }
        assert_eq!(watch.lost(), 2);
        assert_eq!(all(&mut watch).len(), 2);
        end.record(Direction::Received, &[5; 10]);
        assert_eq!(all(&mut watch)[0].2, [5; 10]);
        drop(watch);
        // Each watch counts its own.
        assert_eq!(end.tap().watch(100, 100).unwrap().lost(), 0);
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_wherever_the_ring_wraps(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..60)
        ) {
            let mut end = TapEnd::new();
            let mut watch = end.tap().watch(3 * (HEADER_BYTES + 40), 40).unwrap();
            end.begin_batch();
            for pair in frames.chunks(2) {
                for frame in pair {
                    end.record(Direction::Sent, frame);
                }
                let seen: Vec<_> = all(&mut watch).into_iter().map(|(.., bytes)| bytes).collect();
                prop_assert_eq!(&seen[..], pair);
            }
            prop_assert_eq!(watch.lost(), 0);
        }
    }

    #[test]
    fn a_watcher_on_another_thread_gets_each_frame_once_or_sees_it_counted() {
        const FRAMES: u32 = 20_000;
        let mut end = TapEnd::new();
        let mut watch = end.tap().watch(4096, 100).unwrap();
        end.begin_batch();
        let core = std::thread::spawn(move || {
            for number in 0..FRAMES {
                end.record(Direction::Received, &number.to_ne_bytes());
            }
        });
        let mut seen = Vec::new();
        loop {
            let has_ended = core.is_finished();
            seen.extend(
                all(&mut watch)
                    .into_iter()
                    .map(|(.., bytes)| u32::from_ne_bytes(bytes.try_into().unwrap())),
            );
            if has_ended {
                break;
            }
        }
        core.join().unwrap();
        assert!(seen.is_sorted_by(|a, b| a < b));
        assert_eq!(seen.len() as u64 + watch.lost(), u64::from(FRAMES));
    }
}
