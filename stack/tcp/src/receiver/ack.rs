//! When to acknowledge what has arrived.
//!
//! A reply carries the ACK, so a server that answers at once has nothing to decide. An upload does not
//! answer until its end: there every second full segment is acknowledged, and a single one after a
//! delay, unless something is missing or out of order, which the peer has to hear of at once.

use barewire_service::time::{Duration, Instant};

/// How long an ACK may wait: what Linux takes at least. RFC 9293 allows 500 ms.
pub const DELAY_MAX: Duration = Duration::from_millis(40);

/// Bytes that arrived and were not acknowledged, for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DelayedAck {
    bytes: u32,
    due: Option<Instant>,
}

impl DelayedAck {
    /// `len` bytes of the stream arrived in order. Returns whether they have to be acknowledged now, where
    /// a full segment of the peer's has `peer_mss` bytes.
    ///
    /// Ask once for all segments of a batch, or send one ACK for all that asked for one in it.
    #[inline]
    pub fn on_segment(&mut self, len: u32, peer_mss: u16, now: Instant) -> bool {
        self.bytes = self.bytes.saturating_add(len);
        if self.due.is_none() && len > 0 {
            self.due = Some(now + DELAY_MAX);
        }
        self.bytes >= 2 * u32::from(peer_mss)
    }

    /// A segment that carries an ACK was sent.
    #[inline]
    pub fn on_sent(&mut self) {
        *self = DelayedAck::default();
    }

    /// When an ACK has to be sent at the latest.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether an ACK has to be sent now.
    #[inline]
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(1_000_000);

    #[test]
    fn every_second_full_segment_is_acknowledged() {
        let mut ack = DelayedAck::default();
        for _ in 0..3 {
            assert!(!ack.on_segment(1460, 1460, NOW));
            assert!(ack.on_segment(1460, 1460, NOW));
            ack.on_sent();
            assert_eq!(ack.deadline(), None);
        }
    }

    #[test]
    fn a_single_one_is_after_the_delay_which_nothing_prolongs() {
        let mut ack = DelayedAck::default();
        assert!(!ack.on_segment(10, 1460, NOW));
        let later = NOW + Duration::from_millis(30);
        assert!(!ack.on_segment(10, 1460, later));
        assert!(!ack.is_due(later));
        assert_eq!(ack.deadline(), Some(NOW + DELAY_MAX));
        assert!(ack.is_due(NOW + DELAY_MAX));
    }

    #[test]
    fn a_segment_without_payload_asks_for_nothing() {
        let mut ack = DelayedAck::default();
        assert!(!ack.on_segment(0, 1460, NOW));
        assert_eq!(ack.deadline(), None);
    }
}
