//! The receive window of a connection that is served directly.
//!
//! What arrives in order is shown to the service in the received frame, so a window costs no memory for as long
//! as the service takes everything at once. It begins with what a socket's receive buffer holds, and doubles
//! whenever the service has taken a whole one within two round trips: then the window, and not the path, is what
//! limits the peer. It grows no further than a share of the chunks that are free, since what lies behind a gap is kept
//! in those. If a socket then takes over, it holds less than the peer was told; what does not fit is sent
//! again, as after a loss (RFC 9293, section 3.8.6, asks every sender to bear a window that shrinks).

use barewire_service::time::{Duration, Instant};

/// The largest window of one connection, and how fast its service takes what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrowingWindow {
    bytes: u32,
    /// Bytes that the service has taken since `measured_from`.
    taken: u32,
    measured_from: Instant,
}

impl GrowingWindow {
    /// A window of `bytes`.
    pub fn new(bytes: u32, now: Instant) -> GrowingWindow {
        GrowingWindow {
            bytes,
            taken: 0,
            measured_from: now,
        }
    }

    /// The window to announce while nothing waits for the service.
    #[inline]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// The window to tell while `held` bytes wait for the service and the peer has `told` left of the last one. A small
    /// window is not opened by less than a segment of `mss` or a half of the largest one (RFC 9293, section 3.8.6.2.2).
    #[inline]
    pub fn to_tell(&self, held: usize, told: u32, mss: u16) -> u32 {
        let left = self.bytes.saturating_sub(held as u32);
        let step = self.step(mss);
        match told < step && left < told + step {
            true => told,
            false => left,
        }
    }

    /// Whether the peer has been `told` little, and the service has made so much room that it should hear of it now.
    #[inline]
    pub fn is_worth_telling(&self, held: usize, told: u32, mss: u16) -> bool {
        told < self.bytes / 4 && self.bytes.saturating_sub(held as u32) >= told + self.step(mss)
    }

    fn step(&self, mss: u16) -> u32 {
        (self.bytes / 2).min(u32::from(mss))
    }

    /// The service has taken `bytes`. Returns whether it has taken a whole window, which then may [grow](Self::grow).
    #[inline]
    #[must_use]
    pub fn on_taken(&mut self, bytes: u32) -> bool {
        self.taken = self.taken.saturating_add(bytes);
        self.taken >= self.bytes
    }

    /// A whole window was taken, over a path with a round-trip time of `rtt`. It grows up to `bytes_max`.
    pub fn grow(&mut self, bytes_max: u32, rtt: Duration, now: Instant) {
        let is_limiting = now <= self.measured_from + rtt + rtt;
        (self.taken, self.measured_from) = (0, now);
        if is_limiting && self.bytes < bytes_max {
            self.bytes = self.bytes.saturating_mul(2).min(bytes_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);
    const MAX: u32 = 100_000;

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn take(window: &mut GrowingWindow, bytes: u32, now: Instant) {
        if window.on_taken(bytes) {
            window.grow(MAX, RTT, now);
        }
    }

    #[test]
    fn a_service_that_takes_a_window_in_two_round_trips_gets_a_larger_one() {
        let mut window = GrowingWindow::new(8_000, at(0));
        take(&mut window, 4_000, at(5));
        assert_eq!(window.bytes(), 8_000);
        take(&mut window, 4_000, at(20));
        assert_eq!(window.bytes(), 16_000);
        for ms in 21..30 {
            take(&mut window, 60_000, at(ms));
        }
        assert_eq!(window.bytes(), MAX);
        assert_eq!(window.to_tell(1_000, 50, 1_460), MAX - 1_000);
    }

    #[test]
    fn a_window_that_is_closed_is_not_opened_by_a_few_bytes() {
        let window = GrowingWindow::new(8_000, at(0));
        assert_eq!(window.to_tell(8_000, 0, 1_460), 0);
        assert_eq!(window.to_tell(7_000, 0, 1_460), 0);
        assert!(!window.is_worth_telling(7_000, 0, 1_460));
        assert_eq!(window.to_tell(6_500, 0, 1_460), 1_500);
        assert!(window.is_worth_telling(6_500, 0, 1_460));
        assert_eq!(window.to_tell(10, 7_900, 1_460), 7_990);
    }

    #[test]
    fn small_requests_now_and_then_do_not_open_it() {
        let mut window = GrowingWindow::new(8_000, at(0));
        for second in 1..1_000 {
            take(&mut window, 100, at(second * 1_000));
        }
        assert_eq!(window.bytes(), 8_000);
    }
}
