//! Which chunks the peer has, by the SACK blocks of its ACKs (RFC 2018).

use super::chunks::{Chunk, Chunks};
use super::kept::Kept;
use super::sack::{self, Block};
use crate::guard::is_before;

/// Marks the chunks that the blocks of an ACK name, and returns how many bytes are in them. One walk, to
/// the end of the highest block. They end at `nxt` at most: a FIN has no chunk.
pub(super) fn mark_sacked(
    kept: &mut Kept,
    chunks: &mut Chunks,
    blocks: &[Block],
    nxt: u32,
    note: &mut impl FnMut(&Chunk),
) -> u32 {
    let mut valid = [Block::default(); sack::BLOCKS_MAX];
    let mut count = 0;
    let mut highest = kept.una;
    for block in blocks.iter().take(sack::BLOCKS_MAX) {
        let is_in_flight =
            block.is_valid() && is_before(kept.una, block.start) && !is_before(nxt, block.end);
        if is_in_flight {
            valid[count] = *block;
            count += 1;
            if is_before(highest, block.end) {
                highest = block.end;
            }
        } else {
            chunks.counters.sack_discards.increment();
        }
    }
    let valid = &valid[..count];
    let mut bytes = 0;
    let mut at = kept.first_sent();
    while let Some(handle) = at {
        let chunk = chunks.get(handle);
        if !is_before(chunk.seq, highest) {
            break;
        }
        let (seq, end) = (chunk.seq, chunk.end());
        if !chunk.is_sacked && valid.iter().any(|block| block.covers(seq, end)) {
            bytes += u32::from(chunk.len);
            note(chunk);
            kept.mark_sacked(chunks, handle);
        }
        at = kept.next_sent(chunks, handle);
    }
    bytes
}
