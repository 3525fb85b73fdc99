//! What has arrived and the service has not taken: bytes that wait for it, and bytes that lie behind a gap.
//!
//! ```text
//!          start            RCV.NXT            a gap
//!   head ──▶ [chunk] ─▶ [chunk] │ ············ [chunk] ─▶ [chunk] ◀── tail
//!             `ready` bytes: the service's next      told to the peer in SACK blocks
//! ```
//!
//! Nearly always it is empty: what arrives in order is served in the received frame. The chunks are those of what was
//! sent, from the same slab: a connection gets a share of what is free, and a segment that gets none is as good as
//! lost, which its sender repairs.

use crate::guard::is_before;
use crate::sender::chunks::{Chunks, Handle, LARGE_BYTES};
use crate::sender::sack::Block;

/// Blocks that a segment tells the peer at most: what leaves room for other options (RFC 2018, section 3).
pub(crate) const BLOCKS_TOLD_MAX: usize = 3;

/// Of the free chunks, one connection may fill this part with what it has received.
const SHARE_OF_FREE_BYTES: usize = 4;

/// What one connection has received and its service has not taken.
#[derive(Debug)]
pub(crate) struct Inbox {
    head: Handle,
    tail: Handle,
    /// Bytes before the first gap.
    ready: u32,
    /// Bytes of all chunks.
    bytes: u32,
    /// Chunks.
    count: u32,
    /// Where the segment began that came last.
    newest: u32,
}

impl Inbox {
    /// One that holds nothing.
    pub fn new() -> Inbox {
        Inbox {
            head: Handle::NONE,
            tail: Handle::NONE,
            ready: 0,
            bytes: 0,
            count: 0,
            newest: 0,
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait for the service.
    #[inline]
    pub fn ready(&self) -> usize {
        self.ready as usize
    }

    /// Bytes that lie behind a gap.
    #[inline]
    pub fn behind_a_gap(&self) -> usize {
        (self.bytes - self.ready) as usize
    }

    /// Keeps `payload`, which begins at `seq`. What is `ready` ends at `next`, and nothing of `payload` may lie before
    /// it. Returns where what is ready then ends, and whether there was a chunk for all of it. With `is_owed` it may
    /// take the chunks that are in reserve.
    pub fn insert(
        &mut self,
        chunks: &mut Chunks,
        next: u32,
        seq: u32,
        payload: &[u8],
        is_owed: bool,
    ) -> (u32, bool) {
        debug_assert!(!is_before(seq, next), "it has arrived before");
        let share = chunks.free_bytes() / SHARE_OF_FREE_BYTES;
        if !is_owed && self.count > 0 && self.count as usize * LARGE_BYTES > share {
            return (next, false);
        }
        self.newest = seq;
        let is_kept = self.fill_gaps(chunks, seq, payload, is_owed);
        let end = self.ready_end(chunks, next);
        self.ready += end.wrapping_sub(next);
        (end, is_kept)
    }

    /// Keeps what of `payload` is not there yet.
    fn fill_gaps(
        &mut self,
        chunks: &mut Chunks,
        mut seq: u32,
        mut payload: &[u8],
        is_owed: bool,
    ) -> bool {
        let is_last = !self.tail.is_some() || !is_before(seq, chunks.get(self.tail).end());
        let (mut before, mut at) = match is_last {
            true => (self.tail, Handle::NONE),
            false => (Handle::NONE, self.head),
        };
        while !payload.is_empty() {
            let mut len = payload.len();
            if at.is_some() {
                let chunk = chunks.get(at);
                if is_before(seq, chunk.seq) {
                    len = len.min(chunk.seq.wrapping_sub(seq) as usize);
                } else {
                    let covered = chunk.end().wrapping_sub(seq) as i32;
                    let skipped = covered.clamp(0, len as i32) as usize;
                    payload = &payload[skipped..];
                    seq = seq.wrapping_add(skipped as u32);
                    (before, at) = (at, chunk.next);
                    continue;
                }
            }
            let appended = match before.is_some() && chunks.get(before).end() == seq {
                true => chunks.append(before, &payload[..len], LARGE_BYTES),
                false => 0,
            };
            let taken = match appended {
                0 => {
                    let part = &payload[..len.min(LARGE_BYTES)];
                    let Some(handle) = chunks.keep_received(seq, part, is_owed) else {
                        return false;
                    };
                    chunks.get_mut(handle).next = at;
                    match before.is_some() {
                        true => chunks.get_mut(before).next = handle,
                        false => self.head = handle,
                    }
                    if !at.is_some() {
                        self.tail = handle;
                    }
                    self.count += 1;
                    before = handle;
                    part.len()
                }
                appended => appended,
            };
            self.bytes += taken as u32;
            payload = &payload[taken..];
            seq = seq.wrapping_add(taken as u32);
        }
        true
    }

    /// The end of what follows `next` without a gap.
    fn ready_end(&self, chunks: &Chunks, next: u32) -> u32 {
        if !self.head.is_some() {
            return next;
        }
        let (head, tail) = (chunks.get(self.head), chunks.get(self.tail));
        let start = next.wrapping_sub(self.ready);
        if head.seq == start && tail.end().wrapping_sub(start) == self.bytes {
            return tail.end();
        }
        let mut end = start;
        let mut at = self.head;
        while at.is_some() {
            let chunk = chunks.get(at);
            if chunk.seq != end {
                break;
            }
            end = chunk.end();
            at = chunk.next;
        }
        end
    }

    /// Copies what is ready to `to`, as far as it fits. Returns how many bytes.
    pub fn copy_ready(&self, chunks: &Chunks, to: &mut [u8]) -> usize {
        let len = self.ready().min(to.len());
        let (mut at, mut copied) = (self.head, 0);
        while copied < len {
            let payload = chunks.payload(at);
            let part = &payload[..payload.len().min(len - copied)];
            to[copied..copied + part.len()].copy_from_slice(part);
            copied += part.len();
            at = chunks.get(at).next;
        }
        len
    }

    /// The service has taken `count` of the bytes that are ready.
    pub fn consume(&mut self, chunks: &mut Chunks, count: usize) {
        let mut left = count as u32;
        debug_assert!(left <= self.ready, "it was not there");
        self.ready -= left;
        self.bytes -= left;
        while left > 0 {
            let chunk = chunks.get(self.head);
            let (len, next) = (u32::from(chunk.len), chunk.next);
            if left < len {
                return chunks.trim(self.head, left);
            }
            left -= len;
            self.count -= 1;
            chunks.free(self.head);
            self.head = next;
        }
        if !self.head.is_some() {
            self.tail = Handle::NONE;
        }
    }

    /// What lies behind a gap, in the order of the stream: where it begins, and its bytes.
    pub fn pieces<'c>(
        &self,
        chunks: &'c Chunks,
        next: u32,
    ) -> impl Iterator<Item = (u32, &'c [u8])> + use<'c> {
        let mut at = self.head;
        let all = std::iter::from_fn(move || {
            let handle = at.is_some().then_some(at)?;
            let chunk = chunks.get(handle);
            at = chunk.next;
            Some((chunk.seq, chunks.payload(handle)))
        });
        all.filter(move |&(seq, _)| !is_before(seq, next))
    }

    /// What lies behind a gap as ranges: the one with the segment that came last comes first (RFC 2018, section 4).
    /// Returns how many there are.
    pub fn blocks(&self, chunks: &Chunks, next: u32, to: &mut [Block; BLOCKS_TOLD_MAX]) -> usize {
        let mut count = 0;
        let mut range: Option<Block> = None;
        let mut note = |block: Block| {
            if block.covers(self.newest, self.newest) && block.end != self.newest {
                to.rotate_right(1);
                to[0] = block;
                count += 1;
            } else if count < BLOCKS_TOLD_MAX {
                to[count] = block;
                count += 1;
            }
        };
        for (seq, payload) in self.pieces(chunks, next) {
            let end = seq.wrapping_add(payload.len() as u32);
            match &mut range {
                Some(range) if range.end == seq => range.end = end,
                _ => {
                    if let Some(range) = range.replace(Block { start: seq, end }) {
                        note(range);
                    }
                }
            }
        }
        if let Some(range) = range {
            note(range);
        }
        count.min(BLOCKS_TOLD_MAX)
    }

    /// Gives all chunks back.
    pub fn discard(&mut self, chunks: &mut Chunks) {
        let mut at = self.head;
        while at.is_some() {
            let next = chunks.get(at).next;
            chunks.free(at);
            at = next;
        }
        *self = Inbox::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ready(inbox: &Inbox, chunks: &Chunks) -> Vec<u8> {
        let mut bytes = vec![0; inbox.ready()];
        assert_eq!(inbox.copy_ready(chunks, &mut bytes), inbox.ready());
        bytes
    }

    fn blocks(inbox: &Inbox, chunks: &Chunks, next: u32) -> Vec<(u32, u32)> {
        let mut blocks = [Block::default(); BLOCKS_TOLD_MAX];
        let count = inbox.blocks(chunks, next, &mut blocks);
        blocks[..count].iter().map(|b| (b.start, b.end)).collect()
    }

    #[test]
    fn what_lies_behind_a_gap_is_ready_once_the_gap_is_filled() {
        let mut chunks = Chunks::new(8, 8).unwrap();
        let mut inbox = Inbox::new();
        assert_eq!(inbox.insert(&mut chunks, 10, 13, b"def", false), (10, true));
        assert_eq!(inbox.insert(&mut chunks, 10, 19, b"jkl", false), (10, true));
        assert_eq!(blocks(&inbox, &chunks, 10), [(19, 22), (13, 16)]);
        assert_eq!((inbox.ready(), inbox.behind_a_gap()), (0, 6));
        assert_eq!(
            inbox.insert(&mut chunks, 10, 10, b"abcd", false),
            (16, true)
        );
        assert_eq!(ready(&inbox, &chunks), b"abcdef");
        inbox.consume(&mut chunks, 4);
        assert_eq!(ready(&inbox, &chunks), b"ef");
        assert_eq!(inbox.insert(&mut chunks, 16, 16, b"ghi", false), (22, true));
        assert_eq!(ready(&inbox, &chunks), b"efghijkl");
        inbox.consume(&mut chunks, 8);
        assert!(inbox.is_empty());
        assert_eq!(chunks.used(), 0);
    }

    #[test]
    fn the_last_three_ranges_are_told_the_newest_first() {
        let mut chunks = Chunks::new(8, 64).unwrap();
        let mut inbox = Inbox::new();
        for seq in [20, 40, 60, 80] {
            inbox.insert(&mut chunks, 10, seq, b"x", false);
        }
        assert_eq!(blocks(&inbox, &chunks, 10)[0], (80, 81));
        inbox.insert(&mut chunks, 10, 41, b"y", false);
        assert_eq!(blocks(&inbox, &chunks, 10)[0], (40, 42));
        assert_eq!(blocks(&inbox, &chunks, 10).len(), 3);
        inbox.discard(&mut chunks);
        assert_eq!(chunks.used(), 0);
    }

    #[test]
    fn a_connection_gets_a_share_of_the_chunks_and_what_is_owed_also_the_reserve() {
        let mut chunks = Chunks::new(1, 8).unwrap();
        let mut inbox = Inbox::new();
        let segment = [0; 1460];
        let kept = (0..8).take_while(|at| {
            let seq = 10 + 2_000 * at;
            inbox.insert(&mut chunks, 0, seq, &segment, false).1
        });
        assert_eq!(kept.count(), 2);
        while chunks.has_room(LARGE_BYTES) {
            assert!(chunks.keep_received(0, &segment, false).is_some());
        }
        assert!(chunks.keep_received(0, &segment, false).is_none());
        assert!(chunks.keep_received(0, &segment, true).is_some());
    }

    proptest! {
        /// Segments in any order, whole and in parts, once and again, come out as the stream that they are of.
        #[test]
        fn any_order_gives_the_stream(
            start in any::<u32>(),
            segments in proptest::collection::vec((0_usize..6_000, 1_usize..3_000, 0_usize..5_000), 1..60),
        ) {
            let stream: Vec<u8> = (0..9_000_u32).map(|at| (at * 7 % 251) as u8).collect();
            let mut chunks = Chunks::new(16, 1_024).unwrap();
            let mut inbox = Inbox::new();
            let (mut next, mut taken) = (0_usize, 0_usize);
            let mut arrived = vec![false; stream.len()];
            for (at, len, consumed) in segments {
                let from = at.max(next);
                let to = (at + len).min(stream.len());
                if from < to {
                    arrived[from..to].fill(true);
                    let seq = |offset: usize| start.wrapping_add(offset as u32);
                    let end = inbox.insert(&mut chunks, seq(next), seq(from), &stream[from..to], false);
                    next = arrived.iter().position(|&has| !has).unwrap_or(stream.len());
                    prop_assert_eq!(end, (seq(next), true));
                }
                prop_assert_eq!(inbox.ready(), next - taken);
                prop_assert_eq!(inbox.behind_a_gap(), arrived[next..].iter().filter(|&&has| has).count());
                prop_assert_eq!(ready(&inbox, &chunks), &stream[taken..next]);
                let consumed = consumed.min(inbox.ready());
                inbox.consume(&mut chunks, consumed);
                taken += consumed;
            }
            inbox.discard(&mut chunks);
            prop_assert_eq!(chunks.used(), 0);
        }
    }
}
