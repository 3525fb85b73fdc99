//! The source and the sink of a shard's frames.
//!
//! A [`Link`] moves *batches*: a core pays for the rings, the wake-up and the memory barriers once
//! per batch, not once per frame. Frames never leave the link as handles that could be lost
//! or used twice; the shard sees slices that are valid until the next batch, and slots to write in:
//!
//! ```text
//!   receive() ──▶ Received: frame(0) frame(1) … frame(len-1)      read in place
//!            └──▶ Transmit: slot() → write → commit(len)  ×n      written in place
//!   flush()   ──▶ what was committed goes to the wire, what completed comes back
//! ```
//!
//! The two halves are disjoint, so a frame can be read while its answer is written.

mod counters;
pub mod faulty;
pub mod memory;

use std::os::fd::RawFd;

use barewire_service::time::Instant;

pub use counters::LinkCounters;

/// A source and sink of Ethernet frames: one queue of a NIC, or what stands for it in a test.
pub trait Link {
    /// The current batch of received frames.
    type Received: Received;
    /// Free space to write frames to send.
    type Transmit: Transmit;

    /// Gives the previous batch's frames back and takes the next batch, which may be empty.
    ///
    /// `now` is for links that model time (delay, rate); a NIC ignores it.
    fn receive(&mut self, now: Instant) -> (&Self::Received, &mut Self::Transmit);

    /// The transmit half alone, for segments that are not sent in answer to a frame: timers.
    fn transmit(&mut self) -> &mut Self::Transmit;

    /// Hands all committed frames to the wire and takes back the ones that were sent.
    ///
    /// Returns true while frames are on their way, in which case it must be called again soon: the
    /// kernel's copy mode sends about 32 frames for one wake-up.
    fn flush(&mut self, now: Instant) -> bool;

    /// The descriptor that becomes readable when frames arrive, for a core that wants to sleep.
    ///
    /// `None` means that the link cannot wake a core and must be polled.
    fn wake_fd(&self) -> Option<RawFd>;

    /// Whether [`Link::wake_fd`] will say something else later.
    fn is_provisional(&self) -> bool {
        false
    }

    /// Asks the driver to look at its receive ring now, where it wants to be asked (need_wakeup,
    /// busy polling). Called by a core that spins and found nothing.
    fn kick(&mut self) {}

    /// What the link received, sent and dropped since it was opened.
    fn counters(&self) -> &LinkCounters;
}

/// A batch of received frames, each a whole Ethernet frame without its FCS.
pub trait Received {
    /// Number of frames in the batch.
    fn len(&self) -> usize;

    /// Whether nothing was received.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of frame `index`.
    ///
    /// # Panics
    ///
    /// If `index >= len()`.
    fn frame(&self, index: usize) -> &[u8];
}

/// Space for frames to send.
pub trait Transmit {
    /// How many more frames can be committed before [`Link::flush`] makes room.
    fn free_slots(&self) -> usize;

    /// The next free slot, at least one whole frame of the link's MTU long, with undefined content;
    /// `None` when there is none. Asking again without a commit returns the same slot.
    fn slot(&mut self) -> Option<&mut [u8]>;

    /// Sends the first `len` bytes of the slot last returned with the next flush.
    ///
    /// # Panics
    ///
    /// If no slot was asked for since the last commit, or `len` is longer than the slot.
    fn commit(&mut self, len: usize);
}
