//! Segments that follow the size which the path takes.

use super::chunks::Chunks;
use super::{Phase, Sender, usable_mss};

impl Sender {
    /// Follows a change of the path MTU: from now on no segment has more than `mss` bytes. What is
    /// in flight and larger is taken for lost, which says nothing about congestion (RFC 1191, section 6.3).
    pub fn set_mss(&mut self, chunks: &mut Chunks, mss: u16) {
        let mss = usable_mss(mss);
        let is_smaller = mss < self.mss;
        self.mss = mss;
        self.cubic
            .set_window(self.cubic.window().max(u32::from(mss)));
        if !is_smaller {
            return;
        }
        let mut at = self.kept.first_sent();
        while let Some(handle) = at {
            let chunk = chunks.get(handle);
            if chunk.len > mss && !chunk.is_sacked {
                self.kept.mark_lost(chunks, handle);
            }
            at = self.kept.next_sent(chunks, handle);
        }
        if self.kept.lost > 0 && self.phase == Phase::Open {
            // Repair without a reduction: the window stays, slow start continues.
            self.phase = Phase::Loss;
            self.recover = self.kept.nxt;
        }
    }
}
