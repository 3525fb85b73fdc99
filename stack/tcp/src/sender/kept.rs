//! The bytes of one connection that are not acknowledged: a list of chunks, and sums over it.
//!
//! The sums say what is where without a walk over the list: `sacked` bytes have arrived, `lost` ones
//! have not, `resent` ones are on their way once more. What is left of the flight, [`Kept::pipe`], is
//! what the network holds (RFC 6675, section 4, with the losses of RACK).

use super::chunks::{Chunk, Chunks, Handle};
use barewire_service::time::Instant;

/// What is kept for one connection, in the order of the stream.
#[derive(Debug)]
pub(super) struct Kept {
    head: Handle,
    /// The last chunk that was sent; those behind it are queued.
    last_sent: Handle,
    tail: Handle,
    /// Sequence number of the first byte that is not acknowledged.
    pub una: u32,
    /// Sequence number of the first byte that was never sent.
    pub nxt: u32,
    /// Bytes that were never sent.
    pub queued: u32,
    /// Bytes that were selectively acknowledged.
    pub sacked: u32,
    /// Chunks that were.
    pub sacked_segs: u16,
    /// Bytes that are taken for lost.
    pub lost: u32,
    /// Bytes that are on their way again.
    resent: u32,
    /// There may be a lost chunk that was not sent again.
    may_resend: bool,
}

impl Kept {
    pub fn new(nxt: u32) -> Kept {
        Kept {
            head: Handle::NONE,
            last_sent: Handle::NONE,
            tail: Handle::NONE,
            una: nxt,
            nxt,
            queued: 0,
            sacked: 0,
            sacked_segs: 0,
            lost: 0,
            resent: 0,
            may_resend: false,
        }
    }

    /// Bytes sent and not acknowledged.
    #[inline]
    pub fn flight(&self) -> u32 {
        self.nxt.wrapping_sub(self.una)
    }

    /// Bytes that are in the network, of which `arrived` are known to have left it beside the SACKed ones.
    #[inline]
    pub fn pipe(&self, arrived: u32) -> u32 {
        let gone = self.sacked + self.lost + arrived;
        self.flight().saturating_sub(gone) + self.resent
    }

    /// The oldest chunk.
    pub fn first(&self) -> Option<Handle> {
        self.head.is_some().then_some(self.head)
    }

    /// The newest chunk, unless it is the oldest one as well.
    pub fn last(&self) -> Option<Handle> {
        (self.tail != self.head).then_some(self.tail)
    }

    /// The oldest chunk that was sent.
    #[inline]
    pub fn first_sent(&self) -> Option<Handle> {
        self.last_sent.is_some().then_some(self.head)
    }

    /// The newest chunk that was sent.
    #[inline]
    pub fn last_sent(&self) -> Option<Handle> {
        self.last_sent.is_some().then_some(self.last_sent)
    }

    /// The first chunk that waits to be sent.
    #[inline]
    pub fn first_queued(&self, chunks: &Chunks) -> Option<Handle> {
        let handle = if self.last_sent.is_some() {
            chunks.get(self.last_sent).next
        } else {
            self.head
        };
        handle.is_some().then_some(handle)
    }

    /// The last chunk, if it was not sent yet.
    pub fn last_queued(&self) -> Option<Handle> {
        (self.tail != self.last_sent).then_some(self.tail)
    }

    /// Notes that `count` bytes were added to the last chunk, which is queued.
    pub fn note_appended(&mut self, count: usize) {
        self.queued += count as u32;
    }

    /// Queues `bytes` in a chunk of their own; returns their sum.
    #[inline]
    pub fn push(&mut self, chunks: &mut Chunks, bytes: &[u8]) -> Option<u16> {
        let seq = self.nxt.wrapping_add(self.queued);
        let sum = self.append(chunks, seq, bytes)?;
        self.queued += bytes.len() as u32;
        Some(sum)
    }

    /// Keeps `bytes`, which are being sent, in a chunk of their own; returns their sum. Nothing may be queued.
    #[inline]
    pub fn push_sent(&mut self, chunks: &mut Chunks, bytes: &[u8], now: Instant) -> Option<u16> {
        debug_assert!(self.queued == 0, "something would be overtaken");
        let sum = self.append(chunks, self.nxt, bytes)?;
        chunks.get_mut(self.tail).set_sent_at(now);
        self.last_sent = self.tail;
        self.nxt = self.nxt.wrapping_add(bytes.len() as u32);
        Some(sum)
    }

    #[inline]
    fn append(&mut self, chunks: &mut Chunks, seq: u32, bytes: &[u8]) -> Option<u16> {
        let (handle, sum) = chunks.keep(seq, bytes)?;
        if self.tail.is_some() {
            chunks.get_mut(self.tail).next = handle;
        } else {
            self.head = handle;
        }
        self.tail = handle;
        Some(sum)
    }

    /// The first queued chunk is being sent.
    #[inline]
    pub fn mark_sent(&mut self, chunks: &mut Chunks, handle: Handle, now: Instant) {
        let chunk = chunks.get_mut(handle);
        chunk.set_sent_at(now);
        let len = u32::from(chunk.len);
        self.last_sent = handle;
        self.nxt = self.nxt.wrapping_add(len);
        self.queued -= len;
    }

    /// A chunk is being sent again.
    pub fn mark_resent(&mut self, chunks: &mut Chunks, handle: Handle, now: Instant) {
        let chunk = chunks.get_mut(handle);
        chunk.set_sent_at(now);
        chunk.was_resent = true;
        if !chunk.is_resent {
            chunk.is_resent = true;
            self.resent += u32::from(chunk.len);
        }
    }

    /// The last transmission of a chunk is taken for lost.
    pub fn mark_lost(&mut self, chunks: &mut Chunks, handle: Handle) {
        let chunk = chunks.get_mut(handle);
        let len = u32::from(chunk.len);
        if std::mem::take(&mut chunk.is_resent) {
            self.resent -= len;
        }
        if !std::mem::replace(&mut chunk.is_lost, true) {
            self.lost += len;
        }
        self.may_resend = true;
        chunks.counters.lost_segs.increment();
    }

    /// The peer has a chunk.
    pub fn mark_sacked(&mut self, chunks: &mut Chunks, handle: Handle) {
        let chunk = chunks.get_mut(handle);
        self.subtract(chunk, u32::from(chunk.len));
        chunk.is_lost = false;
        chunk.is_resent = false;
        chunk.is_sacked = true;
        self.sacked += u32::from(chunk.len);
        self.sacked_segs += 1;
    }

    /// Forgets all selective acknowledgments: the peer has thrown away what it had (RFC 2018, section 8).
    pub fn forget_sacked(&mut self, chunks: &mut Chunks) {
        let mut at = self.first_sent();
        while let Some(handle) = at {
            chunks.get_mut(handle).is_sacked = false;
            at = self.next_sent(chunks, handle);
        }
        self.sacked = 0;
        self.sacked_segs = 0;
    }

    /// The chunk behind `handle`, if it was sent.
    #[inline]
    pub fn next_sent(&self, chunks: &Chunks, handle: Handle) -> Option<Handle> {
        (handle != self.last_sent).then(|| chunks.get(handle).next)
    }

    /// The first chunk that is lost and was not sent again.
    pub fn first_lost(&mut self, chunks: &Chunks) -> Option<Handle> {
        if !self.may_resend {
            return None;
        }
        let mut at = self.first_sent();
        while let Some(handle) = at {
            let chunk = chunks.get(handle);
            if chunk.is_lost && !chunk.is_resent {
                return Some(handle);
            }
            at = self.next_sent(chunks, handle);
        }
        self.may_resend = false;
        None
    }

    /// Gives back all chunks below `ack`, which is at most `nxt`; `on_delivered` sees each that is
    /// acknowledged as a whole and was not SACKed.
    #[inline]
    pub fn release(&mut self, chunks: &mut Chunks, ack: u32, mut on_delivered: impl FnMut(&Chunk)) {
        let mut count = ack.wrapping_sub(self.una);
        self.una = ack;
        while count > 0 {
            let handle = self.head;
            let chunk = chunks.get(handle);
            let len = u32::from(chunk.len);
            if count < len {
                self.subtract(chunk, count);
                chunks.trim(handle, count);
                return;
            }
            self.subtract(chunk, len);
            if chunk.is_sacked {
                self.sacked_segs -= 1;
            } else {
                on_delivered(chunk);
            }
            let next = chunk.next;
            chunks.free(handle);
            if handle == self.last_sent {
                self.last_sent = Handle::NONE;
            }
            if handle == self.tail {
                self.tail = Handle::NONE;
            }
            self.head = next;
            count -= len;
        }
    }

    /// Gives back the only chunk, of which all was sent and is now acknowledged.
    #[inline]
    pub fn release_single(&mut self, chunks: &mut Chunks, handle: Handle) {
        self.una = self.nxt;
        chunks.free(handle);
        self.head = Handle::NONE;
        self.last_sent = Handle::NONE;
        self.tail = Handle::NONE;
    }

    /// Splits a chunk behind its first `at` bytes; `false` if there was no free chunk.
    pub fn split(&mut self, chunks: &mut Chunks, handle: Handle, at: usize) -> bool {
        let Some(new) = chunks.split(handle, at) else {
            return false;
        };
        self.sacked_segs += u16::from(chunks.get(new).is_sacked);
        if handle == self.tail {
            self.tail = new;
        }
        if handle == self.last_sent {
            self.last_sent = new;
        }
        true
    }

    /// Gives back everything.
    pub fn discard(&mut self, chunks: &mut Chunks) {
        let mut at = self.head;
        while at.is_some() {
            let next = chunks.get(at).next;
            chunks.free(at);
            at = next;
        }
        *self = Kept::new(self.nxt);
    }

    /// Takes `count` bytes of a chunk off the sums.
    #[inline]
    fn subtract(&mut self, chunk: &Chunk, count: u32) {
        if chunk.is_sacked {
            self.sacked -= count;
        }
        if chunk.is_lost {
            self.lost -= count;
        }
        if chunk.is_resent {
            self.resent -= count;
        }
    }

    /// Whether list and sums agree, and [una, nxt) and the queue are exactly the chunks.
    pub fn is_consistent(&self, chunks: &Chunks) -> bool {
        let (mut sent, mut queued, mut sacked, mut lost, mut resent) = (0, 0, 0, 0, 0);
        let mut sacked_segs = 0;
        let mut seq = self.una;
        let mut at = self.head;
        let mut last = Handle::NONE;
        let mut is_sent = self.last_sent.is_some();
        while at.is_some() {
            let chunk = chunks.get(at);
            if chunk.seq != seq || chunk.len == 0 {
                return false;
            }
            seq = chunk.end();
            let len = u32::from(chunk.len);
            *(if is_sent { &mut sent } else { &mut queued }) += len;
            sacked += if chunk.is_sacked { len } else { 0 };
            sacked_segs += u16::from(chunk.is_sacked);
            lost += if chunk.is_lost { len } else { 0 };
            resent += if chunk.is_resent { len } else { 0 };
            is_sent &= at != self.last_sent;
            last = at;
            at = chunk.next;
        }
        !is_sent
            && last == self.tail
            && (sent, queued) == (self.flight(), self.queued)
            && (sacked, lost, resent) == (self.sacked, self.lost, self.resent)
            && sacked_segs == self.sacked_segs
    }
}
