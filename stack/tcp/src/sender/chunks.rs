//! Memory for what was sent and not acknowledged yet.
//!
//! A shard owns one slab of buffers in two sizes, and 24 bytes beside each buffer that say which
//! bytes of the stream it holds and what became of them. A chunk is one segment as it was sent. The
//! chunks of a connection form a list in the order of the stream:
//!
//! ```text
//!            una                     nxt              nxt + queued
//!   head ──▶ [chunk] ─▶ [chunk] ─▶ … │ [chunk] ─▶ … ─▶ [chunk] ◀── tail
//!            sent, kept until acknowledged │ queued, not sent yet
//! ```
//!
//! A chunk is named by a [`Handle`], an index: 4 bytes, and a mistake is a wrong chunk but never a wild
//! pointer. That all buffers are in use is an ordinary result, and counted. The slab takes address
//! space when it is made, and memory as it is first used.

use zerocopy::FromZeros;

use super::checksum::copy_and_sum;
use super::counters::SenderCounters;
use barewire_memory::OutOfMemory;
use barewire_memory::Zeroed;
use barewire_memory::prefetch;
use barewire_service::time::Instant;

/// Bytes that a small chunk holds.
pub const SMALL_BYTES: usize = 256;
/// Bytes that a large chunk holds: no segment is larger, whatever the interface's MTU.
pub const LARGE_BYTES: usize = 1536;

/// Bytes of a small buffer that are asked for ahead: a short reply. A large one has a whole segment.
const PREFETCH_BYTES: usize = 192;

/// One in so many large chunks is added in reserve.
const RESERVE_SHARE: u32 = 64;

/// All chunks of one shard.
#[derive(Debug)]
pub struct Chunks {
    /// The small ones, then the large ones.
    meta: Zeroed<Chunk>,
    small: Zeroed<Buffer<SMALL_BYTES>>,
    large: Zeroed<Buffer<LARGE_BYTES>>,
    small_supply: Supply,
    large_supply: Supply,
    /// Large chunks that only a split may take, and what was received and acknowledged. What has to be split to be sent
    /// holds memory itself, so without them connections could wait for each other for ever.
    reserve: u32,
    /// What was counted; its owner shares it with readers.
    pub counters: std::sync::Arc<SenderCounters>,
}

/// Names a chunk that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromZeros)]
#[repr(transparent)]
pub struct Handle(u32);

impl Handle {
    /// Names no chunk.
    pub const NONE: Handle = Handle(u32::MAX);

    /// Whether it names a chunk.
    #[inline]
    pub fn is_some(self) -> bool {
        self != Handle::NONE
    }
}

/// What is known of the bytes in a chunk.
#[derive(Debug, FromZeros)]
#[repr(C)]
pub struct Chunk {
    sent_at_us: i64,
    pub(crate) next: Handle,
    /// Sequence number of the first byte.
    pub(crate) seq: u32,
    /// Where in the buffer the first byte is: bytes before it are acknowledged.
    offset: u16,
    pub(crate) len: u16,
    /// The peer has it, but not all before it.
    pub(super) is_sacked: bool,
    /// It is taken for lost.
    pub(super) is_lost: bool,
    /// It was sent again, and this last transmission is on its way.
    pub(super) is_resent: bool,
    /// It was sent more than once: what acknowledges it gives no round-trip time (Karn).
    pub(super) was_resent: bool,
}

impl Chunk {
    /// When it was last sent.
    #[inline]
    pub(crate) fn sent_at(&self) -> Instant {
        Instant::from_micros(self.sent_at_us)
    }

    #[inline]
    pub(crate) fn set_sent_at(&mut self, at: Instant) {
        self.sent_at_us = at.total_micros();
    }

    /// Nothing is known of it but that it was sent, once.
    #[inline]
    pub(super) fn is_untouched(&self) -> bool {
        let marks = [
            self.is_sacked,
            self.is_lost,
            self.is_resent,
            self.was_resent,
        ];
        marks == [false; 4]
    }

    /// Sequence number behind the last byte.
    #[inline]
    pub(crate) fn end(&self) -> u32 {
        self.seq.wrapping_add(u32::from(self.len))
    }
}

#[derive(Debug, FromZeros)]
#[repr(C, align(64))]
struct Buffer<const N: usize>([u8; N]);

/// The free chunks of one size.
#[derive(Debug)]
struct Supply {
    /// The first chunk that was used and given back.
    returned: Handle,
    /// The first chunk that was never used.
    fresh: u32,
    end: u32,
    free: u32,
}

impl Supply {
    fn new(start: u32, end: u32) -> Supply {
        Supply {
            returned: Handle::NONE,
            fresh: start,
            end,
            free: end - start,
        }
    }

    #[inline]
    fn take(&mut self, meta: &[Chunk]) -> Option<Handle> {
        let handle = if self.returned.is_some() {
            let handle = self.returned;
            self.returned = meta[handle.0 as usize].next;
            handle
        } else if self.fresh < self.end {
            self.fresh += 1;
            Handle(self.fresh - 1)
        } else {
            return None;
        };
        self.free -= 1;
        Some(handle)
    }
}

impl Chunks {
    /// A slab of `small` chunks of 256 bytes and `large` ones of 1,536 bytes, at least one of each, and a
    /// few more to split with.
    ///
    /// # Errors
    ///
    /// If there is not that much address space.
    pub fn new(small: u32, large: u32) -> Result<Chunks, OutOfMemory> {
        let (small, large) = (small.max(1), large.max(1));
        let reserve = large / RESERVE_SHARE + 1;
        let too_many = OutOfMemory { bytes: usize::MAX };
        let all = small
            .checked_add(large)
            .and_then(|all| all.checked_add(reserve))
            .filter(|&all| all < Handle::NONE.0)
            .ok_or(too_many)?;
        let chunks = Chunks {
            meta: Zeroed::new(all as usize)?,
            small: Zeroed::new(small as usize)?,
            large: Zeroed::new((large + reserve) as usize)?,
            small_supply: Supply::new(0, small),
            large_supply: Supply::new(small, all),
            reserve,
            counters: std::sync::Arc::default(),
        };
        let counters = &chunks.counters;
        counters.small_chunks_max.set(u64::from(small));
        counters.large_chunks_max.set(u64::from(large + reserve));
        Ok(chunks)
    }

    /// Bytes of address space of a slab with `small` and `large` chunks.
    pub fn memory_bytes(small: u32, large: u32) -> usize {
        let of = |count: u32, bytes| count as usize * (bytes + size_of::<Chunk>());
        of(small, SMALL_BYTES) + of(large + large / RESERVE_SHARE + 1, LARGE_BYTES)
    }

    /// Whether a chunk for a segment with `len` bytes is free. It stays free until this shard takes one.
    #[inline]
    pub fn has_room(&self, len: usize) -> bool {
        self.large_supply.free > self.reserve || (len <= SMALL_BYTES && self.small_supply.free > 0)
    }

    /// Bytes that the free large chunks hold.
    #[inline]
    pub fn free_bytes(&self) -> usize {
        self.large_supply.free.saturating_sub(self.reserve) as usize * LARGE_BYTES
    }

    /// Chunks in use.
    pub fn used(&self) -> u32 {
        self.small_used() + self.large_used()
    }

    /// The bytes that a chunk holds.
    #[inline]
    pub fn payload(&self, handle: Handle) -> &[u8] {
        let chunk = &self.meta[handle.0 as usize];
        let from = usize::from(chunk.offset);
        &self.buffer(handle)[from..from + usize::from(chunk.len)]
    }

    /// Copies what a chunk holds to the beginning of `to`. Returns how many bytes, and their sum
    /// ([`copy_and_sum`]).
    ///
    /// # Panics
    ///
    /// If `to` is too short.
    #[inline]
    pub fn copy_to(&self, handle: Handle, to: &mut [u8]) -> (usize, u16) {
        let payload = self.payload(handle);
        (payload.len(), copy_and_sum(to, payload))
    }

    #[inline]
    pub(crate) fn get(&self, handle: Handle) -> &Chunk {
        &self.meta[handle.0 as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, handle: Handle) -> &mut Chunk {
        &mut self.meta[handle.0 as usize]
    }

    /// Takes a chunk and copies `bytes` into it. Returns it with the sum of the bytes.
    #[inline]
    pub(crate) fn keep(&mut self, seq: u32, bytes: &[u8]) -> Option<(Handle, u16)> {
        let handle = self.take(bytes.len(), self.reserve)?;
        Some((handle, self.fill(handle, seq, bytes)))
    }

    /// Takes a chunk for received bytes; with `is_owed` also one of those in reserve.
    pub(crate) fn keep_received(
        &mut self,
        seq: u32,
        bytes: &[u8],
        is_owed: bool,
    ) -> Option<Handle> {
        let reserve = if is_owed { 0 } else { self.reserve };
        let handle = self.take(bytes.len(), reserve)?;
        self.fill(handle, seq, bytes);
        Some(handle)
    }

    #[inline]
    fn fill(&mut self, handle: Handle, seq: u32, bytes: &[u8]) -> u16 {
        let sum = copy_and_sum(self.buffer_mut(handle), bytes);
        self.meta[handle.0 as usize] = Chunk {
            sent_at_us: 0,
            next: Handle::NONE,
            seq,
            offset: 0,
            len: bytes.len() as u16,
            is_sacked: false,
            is_lost: false,
            is_resent: false,
            was_resent: false,
        };
        sum
    }

    /// Adds to a chunk as many of `bytes` as fit and as keep it at most `len_max` long.
    pub(crate) fn append(&mut self, handle: Handle, bytes: &[u8], len_max: usize) -> usize {
        let chunk = &self.meta[handle.0 as usize];
        let len = usize::from(chunk.len);
        let at = usize::from(chunk.offset) + len;
        let buffer = self.buffer_mut(handle);
        let count = bytes
            .len()
            .min(buffer.len() - at)
            .min(len_max.saturating_sub(len));
        buffer[at..at + count].copy_from_slice(&bytes[..count]);
        self.meta[handle.0 as usize].len += count as u16;
        count
    }

    /// Takes the first `count` bytes off a chunk that has more: they are acknowledged.
    #[inline]
    pub(crate) fn trim(&mut self, handle: Handle, count: u32) {
        let chunk = &mut self.meta[handle.0 as usize];
        chunk.seq = chunk.seq.wrapping_add(count);
        chunk.offset += count as u16;
        chunk.len -= count as u16;
    }

    /// Moves all but the first `at` bytes of a chunk to a new one behind it, and returns that.
    ///
    /// `None`, and nothing changed, if there is no free chunk for them.
    pub(crate) fn split(&mut self, handle: Handle, at: usize) -> Option<Handle> {
        let mut bytes = [0; LARGE_BYTES];
        let rest = &self.payload(handle)[at..];
        let len = rest.len();
        bytes[..len].copy_from_slice(rest);
        let seq = self.get(handle).seq.wrapping_add(at as u32);
        let new = self.take(len, 0)?;
        self.fill(new, seq, &bytes[..len]);
        let old = self.get_mut(handle);
        old.len = at as u16;
        let next = std::mem::replace(&mut old.next, new);
        let (sent_at_us, is_sacked, is_lost) = (old.sent_at_us, old.is_sacked, old.is_lost);
        let (is_resent, was_resent) = (old.is_resent, old.was_resent);
        let chunk = self.get_mut(new);
        *chunk = Chunk {
            sent_at_us,
            next,
            seq,
            offset: 0,
            len: len as u16,
            is_sacked,
            is_lost,
            is_resent,
            was_resent,
        };
        self.counters.chunks_split.increment();
        Some(new)
    }

    /// Gives a chunk back.
    #[inline]
    pub(crate) fn free(&mut self, handle: Handle) {
        let is_small = self.is_small(handle);
        let supply = if is_small {
            &mut self.small_supply
        } else {
            &mut self.large_supply
        };
        self.meta[handle.0 as usize].next = supply.returned;
        supply.returned = handle;
        supply.free += 1;
    }

    /// Takes a chunk for `len` bytes, but none of the last `reserve` large ones.
    #[inline]
    fn take(&mut self, len: usize, reserve: u32) -> Option<Handle> {
        debug_assert!(len <= LARGE_BYTES);
        if len <= SMALL_BYTES
            && let Some(handle) = self.small_supply.take(&self.meta)
        {
            return Some(handle);
        }
        let handle = (self.large_supply.free > reserve)
            .then(|| self.large_supply.take(&self.meta))
            .flatten();
        if handle.is_none() {
            self.counters.chunks_exhausted.increment();
        }
        handle
    }

    /// Publishes the gauges, which are not set where they change.
    #[inline]
    pub fn publish_levels(&self) {
        let counters = &self.counters;
        counters.small_chunks.set(u64::from(self.small_used()));
        counters.large_chunks.set(u64::from(self.large_used()));
    }

    /// Asks for the memory that an acknowledgment of `handle` and the next payload will touch.
    #[inline]
    pub(crate) fn prefetch(&self, handle: Handle) {
        let index = handle.0 as usize;
        if let Some(chunk) = self.meta.get(index) {
            prefetch(chunk);
            match self.small.get(index) {
                Some(buffer) => prefetch(&buffer.0[..PREFETCH_BYTES]),
                None => prefetch(self.buffer(handle)),
            }
        }
    }

    fn small_used(&self) -> u32 {
        self.small.len() as u32 - self.small_supply.free
    }

    fn large_used(&self) -> u32 {
        self.large.len() as u32 - self.large_supply.free
    }

    #[inline]
    fn is_small(&self, handle: Handle) -> bool {
        (handle.0 as usize) < self.small.len()
    }

    #[inline]
    fn buffer(&self, handle: Handle) -> &[u8] {
        let index = handle.0 as usize;
        match self.small.get(index) {
            Some(buffer) => &buffer.0,
            None => &self.large[index - self.small.len()].0,
        }
    }

    #[inline]
    fn buffer_mut(&mut self, handle: Handle) -> &mut [u8] {
        let index = handle.0 as usize;
        let small = self.small.len();
        match self.small.get_mut(index) {
            Some(buffer) => &mut buffer.0,
            None => &mut self.large[index - small].0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_takes_24_bytes() {
        assert_eq!(size_of::<Chunk>(), 24);
    }

    #[test]
    fn small_segments_take_large_chunks_only_when_the_small_ones_are_used() {
        let mut chunks = Chunks::new(1, 1).unwrap();
        let (first, _) = chunks.keep(1, &[1; 256]).unwrap();
        assert!(!chunks.is_sacked_or_large(first));
        let (second, _) = chunks.keep(257, &[2; 10]).unwrap();
        assert!(chunks.is_sacked_or_large(second));
        assert!(!chunks.has_room(1));
        assert!(chunks.keep(267, &[3]).is_none());
        assert_eq!(chunks.counters.chunks_exhausted.get(), 1);
        assert_eq!(chunks.payload(first), [1; 256]);
        assert_eq!(chunks.payload(second), [2; 10]);
        chunks.free(first);
        assert!(chunks.has_room(256) && !chunks.has_room(257));
        chunks.free(second);
        assert_eq!(chunks.used(), 0);
        chunks.publish_levels();
        assert_eq!(chunks.counters.large_chunks.get(), 0);
    }

    impl Chunks {
        fn is_sacked_or_large(&self, handle: Handle) -> bool {
            self.get(handle).is_sacked || !self.is_small(handle)
        }
    }

    #[test]
    fn a_chunk_is_trimmed_extended_and_split() {
        let mut chunks = Chunks::new(4, 4).unwrap();
        let (chunk, _) = chunks.keep(u32::MAX, b"abcdef").unwrap();
        chunks.trim(chunk, 2);
        assert_eq!(chunks.payload(chunk), b"cdef");
        assert_eq!(chunks.get(chunk).seq, 1);
        assert_eq!(chunks.append(chunk, b"ghijkl", 8), 4);
        assert_eq!(chunks.append(chunk, b"ghijkl", 8), 0);
        let rest = chunks.split(chunk, 3).unwrap();
        assert_eq!(chunks.payload(chunk), b"cde");
        assert_eq!(chunks.payload(rest), b"fghij");
        assert_eq!(chunks.get(rest).seq, 4);
        assert_eq!(chunks.get(chunk).next, rest);
        assert_eq!(chunks.get(rest).end(), 9);
    }
}
