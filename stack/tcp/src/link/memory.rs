//! A wire in RAM.
//!
//! Tests, simulations and benchmarks stand at the far end of this link: they push frames in and read
//! what was sent. All frames are allocated when it is made, so that a benchmark measures the shard
//! and a counting allocator sees only the shard.
//!
//! ```text
//!   push, inject ──▶ [ inbox ]  ──receive──▶ shard
//!   sent, take   ◀── [ outbox ] ◀──flush──── shard
//! ```

use std::os::fd::RawFd;

use super::{Link, Received, Transmit};
use crate::link::LinkCounters;
use barewire_service::time::Instant;

/// One end of a wire: what was pushed in is received, what was sent can be read.
#[derive(Debug)]
pub struct MemoryLink {
    inbox: Inbox,
    outbox: Outbox,
    counters: LinkCounters,
}

/// The sizes of a [`MemoryLink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLinkConfig {
    /// Frames that can wait in each direction.
    pub frames: usize,
    /// Bytes that each frame can hold: the MTU and the link-layer header.
    pub frame_bytes: usize,
    /// Frames received in one batch at most.
    pub batch_frames: usize,
}

impl Default for MemoryLinkConfig {
    fn default() -> Self {
        MemoryLinkConfig {
            frames: 1024,
            frame_bytes: 2048,
            batch_frames: 64,
        }
    }
}

impl MemoryLink {
    /// A silent wire.
    ///
    /// # Panics
    ///
    /// If one of the sizes is zero.
    pub fn new(config: MemoryLinkConfig) -> MemoryLink {
        assert!(config.batch_frames > 0, "a batch holds at least one frame");
        MemoryLink {
            inbox: Inbox {
                queue: FrameQueue::new(config.frames, config.frame_bytes),
                batch: 0,
                batch_frames: config.batch_frames,
            },
            outbox: Outbox {
                queue: FrameQueue::new(config.frames, config.frame_bytes),
                committed: 0,
                offered: false,
            },
            counters: LinkCounters::default(),
        }
    }

    /// Puts `frame` on the wire towards the stack. Returns false, and loses it, if it does not fit.
    pub fn push(&mut self, frame: &[u8]) -> bool {
        match self.inject(frame.len()) {
            Some(space) => {
                space.copy_from_slice(frame);
                true
            }
            None => false,
        }
    }

    /// Puts a frame of `len` bytes on the wire towards the stack, to be written in place; its
    /// content is undefined. `None` if it does not fit.
    pub fn inject(&mut self, len: usize) -> Option<&mut [u8]> {
        let queue = &mut self.inbox.queue;
        if len > queue.frame_bytes || queue.is_full() {
            return None;
        }
        queue.grow(len);
        Some(queue.frame_mut(queue.len - 1))
    }

    /// The frames that the stack has flushed and nobody has taken yet, oldest first.
    pub fn sent(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let queue = &self.outbox.queue;
        (0..queue.len - self.outbox.committed).map(|index| queue.frame(index))
    }

    /// Hands the oldest flushed frame to `read` and frees its slot.
    pub fn take<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if self.outbox.flushed() == 0 {
            return None;
        }
        let result = read(self.outbox.queue.frame(0));
        self.outbox.queue.shrink(1);
        Some(result)
    }

    /// Frees the slots of all flushed frames.
    pub fn clear_sent(&mut self) {
        self.outbox.queue.shrink(self.outbox.flushed());
    }

    /// Moves all that each end has sent to the other, as far as it has room; the rest is lost, as
    /// on a real wire. Returns whether anything moved.
    pub fn exchange(&mut self, other: &mut MemoryLink) -> bool {
        let moved = self.sent().len() + other.sent().len();
        while self.take(|frame| other.push(frame)).is_some() {}
        while other.take(|frame| self.push(frame)).is_some() {}
        moved > 0
    }

    /// Frames that wait to be received, the current batch included.
    pub fn waiting(&self) -> usize {
        self.inbox.queue.len
    }
}

impl Link for MemoryLink {
    type Received = Inbox;
    type Transmit = Outbox;

    fn receive(&mut self, _now: Instant) -> (&Inbox, &mut Outbox) {
        let inbox = &mut self.inbox;
        inbox.queue.shrink(inbox.batch);
        inbox.batch = inbox.queue.len.min(inbox.batch_frames);
        if inbox.batch > 0 {
            let bytes: usize = (0..inbox.batch).map(|i| inbox.queue.frame(i).len()).sum();
            self.counters.rx_batches.increment();
            self.counters.rx_frames.add(inbox.batch as u64);
            self.counters.rx_bytes.add(bytes as u64);
        }
        (&self.inbox, &mut self.outbox)
    }

    fn transmit(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn flush(&mut self, _now: Instant) -> bool {
        let outbox = &mut self.outbox;
        let flushed = outbox.flushed();
        for index in flushed..outbox.queue.len {
            self.counters.tx_frames.increment();
            self.counters
                .tx_bytes
                .add(outbox.queue.frame(index).len() as u64);
        }
        outbox.committed = 0;
        false
    }

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }

    fn counters(&self) -> &LinkCounters {
        &self.counters
    }
}

/// The receiving half: frames that were pushed in.
#[derive(Debug)]
pub struct Inbox {
    queue: FrameQueue,
    /// How many frames at the queue's front are the current batch.
    batch: usize,
    batch_frames: usize,
}

impl Received for Inbox {
    #[inline]
    fn len(&self) -> usize {
        self.batch
    }

    #[inline]
    fn frame(&self, index: usize) -> &[u8] {
        assert!(index < self.batch, "no such frame in the batch");
        self.queue.frame(index)
    }
}

/// The sending half: frames to be flushed, behind those that were.
#[derive(Debug)]
pub struct Outbox {
    queue: FrameQueue,
    /// How many frames at the queue's back are not flushed yet.
    committed: usize,
    /// Whether a slot was asked for since the last commit.
    offered: bool,
}

impl Outbox {
    fn flushed(&self) -> usize {
        self.queue.len - self.committed
    }
}

impl Transmit for Outbox {
    #[inline]
    fn free_slots(&self) -> usize {
        self.queue.capacity() - self.queue.len
    }

    #[inline]
    fn slot(&mut self) -> Option<&mut [u8]> {
        if self.queue.is_full() {
            return None;
        }
        self.offered = true;
        Some(self.queue.next_slot())
    }

    #[inline]
    fn commit(&mut self, len: usize) {
        assert!(self.offered, "commit without a slot");
        self.offered = false;
        self.queue.grow(len);
        self.committed += 1;
    }
}

/// A bounded queue of frames, each in a slot of its own.
#[derive(Debug)]
struct FrameQueue {
    bytes: Box<[u8]>,
    lens: Box<[usize]>,
    frame_bytes: usize,
    head: usize,
    len: usize,
}

impl FrameQueue {
    fn new(frames: usize, frame_bytes: usize) -> FrameQueue {
        assert!(frames > 0 && frame_bytes > 0, "a link needs frames");
        FrameQueue {
            bytes: vec![0; frames * frame_bytes].into_boxed_slice(),
            lens: vec![0; frames].into_boxed_slice(),
            frame_bytes,
            head: 0,
            len: 0,
        }
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.lens.len()
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.len == self.capacity()
    }

    /// Where the slot of the frame at `index` is, counted from the oldest.
    #[inline]
    fn slot_of(&self, index: usize) -> usize {
        let slot = self.head + index;
        if slot < self.capacity() {
            slot
        } else {
            slot - self.capacity()
        }
    }

    #[inline]
    fn frame(&self, index: usize) -> &[u8] {
        let slot = self.slot_of(index);
        &self.bytes[slot * self.frame_bytes..][..self.lens[slot]]
    }

    fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        let slot = self.slot_of(index);
        &mut self.bytes[slot * self.frame_bytes..][..self.lens[slot]]
    }

    /// The slot behind the newest frame. The queue must not be full.
    #[inline]
    fn next_slot(&mut self) -> &mut [u8] {
        let slot = self.slot_of(self.len);
        &mut self.bytes[slot * self.frame_bytes..][..self.frame_bytes]
    }

    /// Makes the first `len` bytes of the next slot the newest frame.
    #[inline]
    fn grow(&mut self, len: usize) {
        assert!(len <= self.frame_bytes, "frame longer than its slot");
        assert!(!self.is_full(), "no free slot");
        let slot = self.slot_of(self.len);
        self.lens[slot] = len;
        self.len += 1;
    }

    /// Drops the oldest `count` frames.
    #[inline]
    fn shrink(&mut self, count: usize) {
        self.head = self.slot_of(count);
        self.len -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn link(frames: usize) -> MemoryLink {
        MemoryLink::new(MemoryLinkConfig {
            frames,
            frame_bytes: 64,
            batch_frames: 2,
        })
    }

    fn send(link: &mut MemoryLink, frame: &[u8]) {
        link.transmit().slot().unwrap()[..frame.len()].copy_from_slice(frame);
        link.transmit().commit(frame.len());
    }

    #[test]
    fn frames_are_received_in_batches_and_in_order() {
        let mut link = link(3);
        for frame in [b"one", b"two", b"six"] {
            assert!(link.push(frame));
        }
        assert!(!link.push(b"full"));

        let (batch, _) = link.receive(NOW);
        assert_eq!((batch.frame(0), batch.frame(1)), (&b"one"[..], &b"two"[..]));
        // The batch's slots are taken until the next one.
        assert!(!link.push(b"full"));
        let (batch, _) = link.receive(NOW);
        assert_eq!((batch.len(), batch.frame(0)), (1, &b"six"[..]));
        assert!(link.push(b"ten"));
        let (batch, _) = link.receive(NOW);
        assert_eq!((batch.len(), batch.frame(0)), (1, &b"ten"[..]));
        assert_eq!(link.counters().rx_frames.get(), 4);
    }

    #[test]
    fn frames_are_sent_when_flushed_and_free_when_taken() {
        let mut link = link(2);
        send(&mut link, b"one");
        assert_eq!(link.sent().len(), 0);
        assert!(!link.flush(NOW));
        assert!(link.sent().eq([&b"one"[..]]));

        send(&mut link, b"two");
        assert_eq!(link.transmit().free_slots(), 0);
        assert!(link.transmit().slot().is_none());
        assert_eq!(link.take(<[u8]>::to_vec), Some(b"one".to_vec()));
        assert_eq!(link.take(<[u8]>::to_vec), None);
        link.flush(NOW);
        link.clear_sent();
        assert_eq!(link.transmit().free_slots(), 2);
        assert_eq!(link.counters().tx_bytes.get(), 6);
    }

    #[test]
    fn two_ends_exchange_what_they_sent() {
        let (mut left, mut right) = (link(2), link(2));
        send(&mut left, b"to the right");
        send(&mut right, b"to the left");
        left.flush(NOW);
        right.flush(NOW);
        assert!(left.exchange(&mut right));
        assert!(!left.exchange(&mut right));
        assert_eq!(left.receive(NOW).0.frame(0), b"to the left");
        assert_eq!(right.receive(NOW).0.frame(0), b"to the right");
    }

    #[test]
    #[should_panic(expected = "commit without a slot")]
    fn a_frame_that_was_never_written_cannot_be_sent() {
        link(2).transmit().commit(1);
    }
}
