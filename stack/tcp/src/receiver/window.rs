//! How much the peer may send.
//!
//! The right edge that was told never moves back (RFC 9293, section 3.8.6), and moves forward only by a
//! whole segment or half of the buffer (MUST-39), so that no peer is led to send silly segments. What a
//! header can say is a multiple of 2^scale: the window is rounded so that the edge it means is exactly the
//! edge that is kept.
//!
//! The buffer grows as fast as the service reads: once the service has taken a whole buffer within a round
//! trip, the window and not the path is what limits the peer, and the buffer doubles.

use crate::guard::is_before;
use barewire_service::time::{Duration, Instant};

/// The receive window of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveWindow {
    /// The right edge that was told: RCV.NXT + RCV.WND at that time.
    edge: u32,
    /// Bytes that may be kept for the service.
    buffer: u32,
    /// Shift count that the SYN has offered.
    scale: u8,
    /// When the present measurement began, and what the service has taken since.
    measured_from: Instant,
    taken: u32,
}

impl ReceiveWindow {
    /// The window of a connection that has told `edge`, with a buffer of `buffer` bytes.
    pub fn new(edge: u32, buffer: u32, scale: u8, now: Instant) -> ReceiveWindow {
        ReceiveWindow {
            edge,
            buffer,
            scale: scale.min(14),
            measured_from: now,
            taken: 0,
        }
    }

    /// The window field to send with an ACK of `rcv_nxt` while `held` bytes wait for the service. Moves the
    /// edge as far as it is worth it; `mss` is a full segment of the peer's.
    #[inline]
    pub fn tell(&mut self, rcv_nxt: u32, held: u32, mss: u16) -> u16 {
        let unit = 1_u32 << self.scale;
        let told = self.left(rcv_nxt);
        let free = self.buffer.saturating_sub(held);
        // Rounded down: what is told is never more than there is.
        let free = (free & !(unit - 1)).min(u32::from(u16::MAX) << self.scale);
        let worth_it = u32::from(mss).min(self.buffer / 2).max(unit);
        if free >= told.saturating_add(worth_it) {
            self.edge = rcv_nxt.wrapping_add(free);
            return (free >> self.scale) as u16;
        }
        // Rounded up, the edge would move by less than a unit that may not be there; rounded down, it would
        // move back by less than a unit. The latter only says less: the old edge stays acceptable.
        (told >> self.scale).min(u32::from(u16::MAX)) as u16
    }

    /// Whether [`ReceiveWindow::tell`] would open the window by so much that it is worth a segment of its own:
    /// the service has read, and the peer may be waiting for it.
    #[inline]
    pub fn is_update_due(&self, rcv_nxt: u32, held: u32, mss: u16) -> bool {
        let free = self.buffer.saturating_sub(held);
        let worth_it = (2 * u32::from(mss)).min(self.buffer / 2);
        free >= self
            .left(rcv_nxt)
            .saturating_add(worth_it.max(1 << self.scale))
    }

    /// Bytes from `rcv_nxt` to the edge: what the peer may send.
    #[inline]
    pub fn left(&self, rcv_nxt: u32) -> u32 {
        if is_before(rcv_nxt, self.edge) {
            self.edge.wrapping_sub(rcv_nxt)
        } else {
            0
        }
    }

    /// The service has taken `bytes`; doubles the buffer, to at most `buffer_max`, if that was a whole one
    /// within `rtt`. Returns by how much it grew.
    pub fn on_taken(&mut self, bytes: u32, rtt: Duration, buffer_max: u32, now: Instant) -> u32 {
        self.taken = self.taken.saturating_add(bytes);
        let is_over = now >= self.measured_from + rtt;
        let is_limiting = self.taken >= self.buffer;
        if !is_over && !is_limiting {
            return 0;
        }
        self.measured_from = now;
        self.taken = 0;
        let grown = self.buffer.saturating_mul(2).min(buffer_max);
        if !is_limiting || grown <= self.buffer {
            return 0;
        }
        let by = grown - self.buffer;
        self.buffer = grown;
        by
    }

    /// Takes the buffer back to `buffer` bytes, of a connection that is idle or when memory is short. The
    /// edge stays where it is.
    pub fn shrink(&mut self, buffer: u32) {
        self.buffer = self.buffer.min(buffer);
    }

    /// Bytes that may be kept for the service.
    #[inline]
    pub fn buffer(&self) -> u32 {
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MSS: u16 = 1000;

    fn window(buffer: u32, scale: u8) -> ReceiveWindow {
        ReceiveWindow::new(buffer, buffer, scale, Instant::ZERO)
    }

    #[test]
    fn the_edge_moves_by_a_segment_or_not_at_all() {
        let mut window = window(8000, 0);
        // A segment arrived, and the service has taken 999 bytes of it.
        assert_eq!(window.tell(1000, 1, MSS), 7000);
        assert_eq!(window.tell(1000, 0, MSS), 8000);
    }

    #[test]
    fn of_a_small_buffer_half_is_enough() {
        let mut window = window(600, 0);
        assert_eq!(window.tell(600, 301, MSS), 0);
        assert_eq!(window.tell(600, 300, MSS), 300);
    }

    #[test]
    fn a_smaller_buffer_takes_back_nothing() {
        let mut window = window(8000, 0);
        window.shrink(1000);
        assert_eq!(window.tell(1000, 1000, MSS), 7000);
        assert_eq!(window.tell(7400, 0, MSS), 600);
    }

    #[test]
    fn an_update_is_worth_two_segments() {
        let window = window(8000, 0);
        assert!(!window.is_update_due(1999, 0, MSS));
        assert!(window.is_update_due(2000, 0, MSS));
        assert!(!window.is_update_due(2000, 1, MSS));
    }

    #[test]
    fn a_service_that_reads_a_buffer_in_a_round_trip_gets_a_larger_one() {
        let rtt = Duration::from_millis(10);
        let mut window = window(8000, 4);
        let at = |ms| Instant::from_millis(ms);
        assert_eq!(window.on_taken(4000, rtt, 20_000, at(5)), 0);
        assert_eq!(window.on_taken(4000, rtt, 20_000, at(9)), 8000);
        assert_eq!(window.on_taken(16_000, rtt, 20_000, at(15)), 4000);
        assert_eq!(window.on_taken(60_000, rtt, 20_000, at(19)), 0);
        // Slower than the path.
        assert_eq!(window.on_taken(1000, rtt, 60_000, at(30)), 0);
        assert_eq!(window.on_taken(19_500, rtt, 60_000, at(50)), 0);
    }

    proptest! {
        /// What the header means is never more than what is accepted, nor than what there was room for,
        /// and the edge never moves back.
        #[test]
        fn the_edge_never_moves_back(
            buffer in 1_u32..2_000_000,
            scale in 0_u8..15,
            start in any::<u32>(),
            steps in proptest::collection::vec((0_u32..5000, 0_u32..2_000_000), 1..50),
        ) {
            let mut window = ReceiveWindow::new(start, buffer, scale, Instant::ZERO);
            let mut rcv_nxt = start;
            let mut edge = start;
            for (arrived, held) in steps {
                rcv_nxt = rcv_nxt.wrapping_add(arrived.min(window.left(rcv_nxt)));
                let field = window.tell(rcv_nxt, held, MSS);
                let told = u32::from(field) << scale;
                prop_assert!(told <= window.left(rcv_nxt));
                let now = rcv_nxt.wrapping_add(window.left(rcv_nxt));
                prop_assert!(!is_before(now, edge));
                if now != edge {
                    prop_assert!(told <= buffer.saturating_sub(held));
                    prop_assert_eq!(told, window.left(rcv_nxt));
                }
                edge = now;
            }
        }
    }
}
