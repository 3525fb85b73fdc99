//! The receive window of a connection that is served directly.
//!
//! What arrives in order is shown to the service in the received frame, so a window costs no memory for as long
//! as the service takes everything at once. It begins with what a socket's receive buffer holds, and doubles
//! whenever the service has taken a whole one within two round trips: then the window, and not the path, is what
//! limits the peer. If a socket then takes over, it holds less than the peer was told; what does not fit is sent
//! again, as after a loss (RFC 9293, section 3.8.6, asks every sender to bear a window that shrinks).

use barewire_service::time::{Duration, Instant};

/// The largest window of one connection, and how fast its service takes what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrowingWindow {
    bytes: u16,
    /// Bytes that the service has taken since `measured_from`.
    taken: u32,
    measured_from: Instant,
}

impl GrowingWindow {
    /// A window of `bytes`.
    pub fn new(bytes: u16, now: Instant) -> GrowingWindow {
        GrowingWindow {
            bytes,
            taken: 0,
            measured_from: now,
        }
    }

    /// The window to announce while nothing waits for the service.
    #[inline]
    pub fn bytes(&self) -> u16 {
        self.bytes
    }

    /// The service has taken `bytes`, over a path with a round-trip time of `rtt`.
    #[inline]
    pub fn on_taken(&mut self, bytes: u32, rtt: Duration, now: Instant) {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken < u32::from(self.bytes) {
            return;
        }
        let is_limiting = now <= self.measured_from + rtt + rtt;
        (self.taken, self.measured_from) = (0, now);
        if is_limiting {
            self.bytes = self.bytes.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_service_that_takes_a_window_in_two_round_trips_gets_a_larger_one() {
        let mut window = GrowingWindow::new(8_000, at(0));
        window.on_taken(4_000, RTT, at(5));
        assert_eq!(window.bytes(), 8_000);
        window.on_taken(4_000, RTT, at(20));
        assert_eq!(window.bytes(), 16_000);
        for ms in 21..30 {
            window.on_taken(60_000, RTT, at(ms));
        }
        assert_eq!(window.bytes(), u16::MAX);
    }

    #[test]
    fn small_requests_now_and_then_do_not_open_it() {
        let mut window = GrowingWindow::new(8_000, at(0));
        for second in 1..1_000 {
            window.on_taken(100, RTT, at(second * 1_000));
        }
        assert_eq!(window.bytes(), 8_000);
    }
}
