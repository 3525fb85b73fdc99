//! Our FIN (RFC 9293, section 3.6): it takes a sequence number behind all that is kept, and no chunk.
//!
//! It leaves with the last segment if it is queued in time, and then shares that one's repair. By itself it is sent again
//! after a retransmission timeout: nobody waits for it but the connection's memory.

use super::chunks::Chunks;
use super::{Ack, Acked, Config, Fin, NEVER, Segment, Sender, Timeout};
use barewire_service::time::Instant;

impl Sender {
    /// Ends the stream behind what is queued. Nothing may be queued after that.
    pub fn finish(&mut self) {
        if self.fin == Fin::None {
            self.fin = Fin::Queued;
        }
    }

    /// The last of what was queued is being sent, and the FIN with it, if there is one: returns whether.
    #[inline]
    pub(super) fn sends_fin(&mut self) -> bool {
        let is_fin = self.fin == Fin::Queued && self.kept.queued == 0;
        if is_fin {
            self.fin = Fin::Sent;
        }
        is_fin
    }

    /// Whether what ends at `end` has the FIN behind it, if it is sent again.
    #[inline]
    pub(super) fn has_fin_at(&self, end: u32) -> bool {
        self.fin == Fin::Sent && end == self.kept.nxt
    }

    /// The FIN as a segment of its own, if it is to be sent now, and nothing is queued before it.
    #[inline]
    pub(super) fn fin_alone(&mut self, config: &Config, now: Instant) -> Option<Segment> {
        let is_resent = std::mem::take(&mut self.fin_is_due) && self.fin == Fin::Sent;
        if !is_resent && !self.sends_fin() {
            return None;
        }
        if self.kept.flight() == 0 {
            self.rto_at = now + self.rtt.timeout(config);
        }
        Some(Segment {
            seq: self.kept.nxt,
            chunk: None,
            len: 0,
            is_last: true,
            is_fin: true,
            is_resent,
        })
    }

    /// An ACK of all that was sent and of the FIN.
    #[cold]
    pub(super) fn on_fin_ack(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        ack: &Ack<'_>,
        now: Instant,
    ) -> Acked {
        self.fin = Fin::None;
        let data = Ack {
            ack: self.kept.nxt,
            ..*ack
        };
        let acked = self.on_any_ack(chunks, config, &data, now);
        (self.kept.una, self.kept.nxt) = (ack.ack, ack.ack);
        self.fin_is_due = false;
        Acked {
            bytes: acked.bytes + 1,
            ..acked
        }
    }

    /// The timer of a FIN, behind which nothing is, and before which all is acknowledged.
    #[cold]
    pub(super) fn on_fin_timeout(
        &mut self,
        chunks: &Chunks,
        config: &Config,
        now: Instant,
    ) -> Timeout {
        if self.rto_at > now {
            return Timeout::None;
        }
        chunks.counters.timeouts.increment();
        self.rtt.back_off();
        self.fin_is_due = true;
        self.rto_at = now + self.rtt.timeout(config);
        Timeout::Retransmission {
            count: self.rtt.backoff(),
            len: 0,
        }
    }

    /// All data is acknowledged: waits for the acknowledgment of the FIN, if it was sent.
    #[inline]
    pub(super) fn arm_fin(&mut self, config: &Config, now: Instant) {
        if self.fin == Fin::Sent {
            debug_assert!(self.kept.flight() == 0 && self.rto_at == NEVER);
            self.rto_at = now + self.rtt.timeout(config);
        }
    }
}
