//! What was lost: RACK (RFC 8985, section 6), from times instead of counts.
//!
//! If a segment that was sent later has arrived, one that was sent earlier should have arrived as
//! well, unless the path reorders. So a segment is lost when the newest delivery was sent after it, and
//! a round trip plus the reordering window have gone by since it was sent. That finds lost
//! retransmissions and lost tails, too, and tolerates any amount of reordering that is short in time.

use crate::guard::is_before;
use barewire_service::time::{Duration, Instant};

use super::rtt::{Rtt, since};

/// What the newest delivery implies for all others.
#[derive(Debug, Clone)]
pub struct Rack {
    /// When the segment was sent that was delivered and sent last.
    newest_at: Instant,
    /// The end of that segment.
    newest_end: u32,
    /// Its round-trip time.
    rtt: Duration,
    /// The end of the highest range that was delivered.
    highest_end: u32,
    /// Until this is acknowledged, another DSACK does not widen the reordering window.
    dsack_round_end: Option<u32>,
    /// The reordering window in quarters of the shortest round trip.
    window_quarters: u8,
    /// Recoveries until the reordering window shrinks again.
    persists: u8,
    /// Segments were delivered out of the order in which they were sent.
    has_reordered: bool,
}

/// Recoveries for which a wider reordering window lasts (RFC 8985, section 6.2, step 4).
const PERSISTS: u8 = 16;
/// SACKed segments that show a loss at once where nothing was ever reordered (RFC 5681).
pub(super) const DUP_THRESHOLD: u16 = 3;

impl Rack {
    /// Nothing was delivered yet beyond `una`.
    pub fn new(una: u32) -> Rack {
        Rack {
            newest_at: Instant::from_micros(i64::MIN / 2),
            newest_end: una,
            rtt: Duration::ZERO,
            highest_end: una,
            dsack_round_end: None,
            window_quarters: 1,
            persists: PERSISTS,
            has_reordered: false,
        }
    }

    /// A segment was delivered that was last sent at `sent_at` (step 2 and 3).
    #[inline]
    pub fn on_delivered(
        &mut self,
        sent_at: Instant,
        seq: u32,
        end: u32,
        was_resent: bool,
        min_rtt: Option<Duration>,
        now: Instant,
    ) {
        let rtt = since(sent_at, now);
        if is_before(self.highest_end, end) {
            self.highest_end = end;
        } else if is_before(seq, self.highest_end) && !was_resent {
            self.has_reordered = true;
        }
        // It may be the earlier transmission that arrived.
        if was_resent && min_rtt.is_some_and(|min| rtt < min) {
            return;
        }
        if is_after((sent_at, end), (self.newest_at, self.newest_end)) {
            self.newest_at = sent_at;
            self.newest_end = end;
            self.rtt = rtt;
        }
    }

    /// The peer got a segment twice: a retransmission was not needed (step 4). Widens the reordering
    /// window once in a round trip; `nxt` ends it.
    pub fn on_dsack(&mut self, una: u32, nxt: u32) {
        if self.dsack_round_end.is_some_and(|end| is_before(una, end)) {
            return;
        }
        self.dsack_round_end = Some(nxt);
        self.window_quarters = self.window_quarters.saturating_add(1);
        self.persists = PERSISTS;
    }

    /// A recovery is over: a wide reordering window is given up after sixteen without a DSACK.
    pub fn on_recovered(&mut self) {
        self.persists = self.persists.saturating_sub(1);
        if self.persists == 0 {
            self.window_quarters = 1;
        }
    }

    /// How long reordered segments are waited for (step 4). `is_certain`: in recovery, or three segments
    /// beyond were SACKed.
    #[inline]
    pub fn reordering_window(&self, rtt: &Rtt, is_certain: bool) -> Duration {
        if !self.has_reordered && is_certain {
            return Duration::ZERO;
        }
        let min = rtt.min().unwrap_or(self.rtt);
        let window_us = min.total_micros() / 4 * u64::from(self.window_quarters);
        Duration::from_micros(window_us).min(rtt.smoothed().unwrap_or(self.rtt))
    }

    /// How long until a segment is lost that was sent at `sent_at` and ends at `end`: zero if it is now,
    /// `None` if nothing sent after it was delivered (step 5).
    #[inline]
    pub fn lost_in(
        &self,
        sent_at: Instant,
        end: u32,
        window: Duration,
        now: Instant,
    ) -> Option<Duration> {
        if !is_after((self.newest_at, self.newest_end), (sent_at, end)) {
            return None;
        }
        let allowed_us = (self.rtt + window).total_micros();
        let elapsed_us = since(sent_at, now).total_micros();
        Some(Duration::from_micros(allowed_us.saturating_sub(elapsed_us)))
    }

    /// Whether at a timeout a segment that was sent at `sent_at` is taken for lost (section 6.3).
    pub fn is_overdue(&self, sent_at: Instant, window: Duration, now: Instant) -> bool {
        since(sent_at, now) >= self.rtt + window
    }
}

/// Whether the one was sent after the other; of two sent at once, the later bytes count as later.
#[inline]
fn is_after(one: (Instant, u32), other: (Instant, u32)) -> bool {
    one.0 > other.0 || (one.0 == other.0 && is_before(other.1, one.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn rtt_of(ms: u64) -> Rtt {
        let mut rtt = Rtt::new(0, 0);
        rtt.on_sample(MS(ms));
        rtt
    }

    /// Segments of 100 bytes were sent at 0, 1, 2 ms; the third was delivered at 42 ms.
    fn third_was_delivered() -> Rack {
        let mut rack = Rack::new(0);
        rack.on_delivered(at(2), 200, 300, false, None, at(42));
        rack
    }

    #[test]
    fn what_was_sent_before_the_newest_delivery_is_lost_after_the_reordering_window() {
        let rack = third_was_delivered();
        let window = rack.reordering_window(&rtt_of(40), false);
        assert_eq!(window, MS(10));
        assert_eq!(rack.lost_in(at(0), 100, window, at(42)), Some(MS(8)));
        assert_eq!(rack.lost_in(at(0), 100, window, at(50)), Some(MS(0)));
        assert_eq!(rack.lost_in(at(2), 400, window, at(90)), None);
    }

    #[test]
    fn without_reordering_three_segments_are_proof_enough() {
        let rack = third_was_delivered();
        assert_eq!(rack.reordering_window(&rtt_of(40), true), MS(0));
    }

    #[test]
    fn reordering_once_seen_is_waited_for() {
        let mut rack = third_was_delivered();
        rack.on_delivered(at(0), 0, 100, false, None, at(43));
        assert_eq!(rack.reordering_window(&rtt_of(40), true), MS(10));
    }

    #[test]
    fn needless_retransmissions_widen_the_window_once_a_round_trip() {
        let mut rack = third_was_delivered();
        let rtt = rtt_of(40);
        rack.on_dsack(0, 1000);
        rack.on_dsack(500, 1000);
        assert_eq!(rack.reordering_window(&rtt, false), MS(20));
        rack.on_dsack(1000, 2000);
        assert_eq!(rack.reordering_window(&rtt, false), MS(30));
        for round in 2..60 {
            rack.on_dsack(round * 1000, (round + 1) * 1000);
        }
        assert_eq!(rack.reordering_window(&rtt, false), MS(40));
        for _ in 0..PERSISTS {
            rack.on_recovered();
        }
        assert_eq!(rack.reordering_window(&rtt, false), MS(10));
    }

    #[test]
    fn an_ack_too_soon_for_a_retransmission_is_of_the_original() {
        let mut rack = Rack::new(0);
        rack.on_delivered(at(50), 0, 100, true, Some(MS(40)), at(55));
        assert_eq!(rack.lost_in(at(49), 200, MS(0), at(200)), None);
        rack.on_delivered(at(50), 0, 100, true, Some(MS(40)), at(95));
        assert!(rack.lost_in(at(49), 200, MS(0), at(200)).is_some());
    }
}
