//! How much may be in flight: CUBIC (RFC 9438) in integers.
//!
//! Windows are bytes, times milliseconds. Below the slow start threshold the window grows by what is
//! acknowledged (RFC 5681, section 3.1); above it, it follows the cubic function of the time since the
//! last reduction, or the line that Reno would take where that is higher:
//!
//! ```text
//!   cwnd │                             ╱       W_cubic(t) = 0.4 (t - K)³ + W_max   [segments, s]
//!   W_max├ ─ ─ ─╮─ ─ ─ ─ ─ ___───‾‾‾ ─         K          = ∛((W_max - cwnd₀) / 0.4)
//!        │      │     __─‾‾
//!        │      ╰─ ╱‾     reduced to 0.7 of it
//!        └──────┴──────────────┴──────────▶ t
//!               0              K
//! ```

use barewire_service::time::{Duration, Instant};

/// Congestion window and slow start threshold of one connection.
#[derive(Debug, Clone)]
pub struct Cubic {
    /// The congestion window.
    cwnd: u32,
    ssthresh: u32,
    /// The window before the last reduction, less after two reductions in a row (fast convergence).
    w_max: u32,
    /// The window when the last reduction came.
    cwnd_prior: u32,
    /// When the window was first increased in congestion avoidance since.
    epoch: Option<Instant>,
    /// K in milliseconds.
    k_ms: u32,
    /// W_est, Reno's window, in 1/1024 bytes.
    w_est: u64,
    /// Bytes acknowledged times bytes of increase for a whole window, of which too little has come for
    /// an increase by one byte.
    credit: u64,
}

/// Nothing sets a threshold yet.
const SSTHRESH_MAX: u32 = u32::MAX;
/// More than this the cubic function is not followed at once.
const EPOCH_MS_MAX: u64 = 1 << 20;

impl Cubic {
    /// Begins with a window of `cwnd` bytes; without a threshold if `ssthresh` is `None`.
    pub fn new(cwnd: u32, ssthresh: Option<u32>) -> Cubic {
        Cubic {
            cwnd,
            ssthresh: ssthresh.unwrap_or(SSTHRESH_MAX),
            w_max: 0,
            cwnd_prior: 0,
            epoch: None,
            k_ms: 0,
            w_est: 0,
            credit: 0,
        }
    }

    /// The congestion window in bytes.
    #[inline]
    pub fn window(&self) -> u32 {
        self.cwnd
    }

    /// The slow start threshold in bytes, if any.
    #[inline]
    pub fn threshold(&self) -> Option<u32> {
        (self.ssthresh != SSTHRESH_MAX).then_some(self.ssthresh)
    }

    /// Whether the window is below the threshold.
    #[inline]
    pub fn is_in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Sets the window, as proportional rate reduction wants it.
    #[inline]
    pub fn set_window(&mut self, cwnd: u32) {
        self.cwnd = cwnd;
    }

    /// Grows the window: `acked` bytes were acknowledged, and the window was what kept more from
    /// being sent.
    #[inline]
    pub fn on_ack(&mut self, acked: u32, mss: u32, srtt: Duration, cwnd_max: u32, now: Instant) {
        if self.is_in_slow_start() {
            // RFC 5681 wants at most one segment for each ACK; with ACKs that cover many (RFC 3465,
            // and receivers with segmentation offload) L = 2 would starve a long path.
            self.cwnd = self.cwnd.saturating_add(acked).min(cwnd_max);
        } else {
            self.avoid_congestion(acked, mss, srtt, now);
            self.cwnd = self.cwnd.min(cwnd_max);
        }
    }

    /// Reduces the threshold for a loss. The window follows during recovery.
    ///
    /// It is the window that is reduced, not what is in flight: a service that answers one request after
    /// the other has little in flight, and the window does not grow meanwhile (section 4.6 allows it then).
    pub fn on_loss(&mut self, mss: u32) {
        self.epoch = None;
        self.cwnd_prior = self.cwnd;
        // Fast convergence, section 4.7: leave room for a newcomer.
        self.w_max = if self.cwnd < self.w_max {
            (u64::from(self.cwnd) * 17 / 20) as u32
        } else {
            self.cwnd
        };
        self.ssthresh = (u64::from(self.cwnd) * 7 / 10).max(u64::from(mss) * 2) as u32;
    }

    /// Recovery is over: the window is the threshold (RFC 6937, section 3).
    pub fn on_recovered(&mut self, mss: u32) {
        self.cwnd = self.ssthresh.max(mss);
    }

    /// The connection has sent nothing for `idle`, longer than `timeout`: the window is halved for each
    /// timeout down to `restart` bytes (RFC 5681, section 4.1, and RFC 2861).
    pub fn on_idle(&mut self, idle: Duration, timeout: Duration, restart: u32) {
        let halvings = idle.total_micros() / timeout.total_micros().max(1);
        let decayed = self.cwnd.checked_shr(halvings as u32).unwrap_or(0);
        let three_quarters = (u64::from(self.cwnd) * 3 / 4) as u32;
        if self.ssthresh != SSTHRESH_MAX {
            self.ssthresh = self.ssthresh.max(three_quarters);
        }
        self.cwnd = decayed.max(restart).min(self.cwnd);
        self.epoch = None;
    }

    fn avoid_congestion(&mut self, acked: u32, mss: u32, srtt: Duration, now: Instant) {
        let cwnd = u64::from(self.cwnd.max(1));
        let epoch = *self.epoch.get_or_insert_with(|| {
            let missing = u64::from(self.w_max.saturating_sub(self.cwnd));
            // K³ = missing / mss / 0.4, in ms³.
            self.k_ms = cube_root(missing.saturating_mul(2_500_000_000) / u64::from(mss)) as u32;
            self.w_max = self.w_max.max(self.cwnd);
            self.w_est = cwnd << 10;
            self.credit = 0;
            now
        });
        let elapsed_ms = super::rtt::since(epoch, now).total_millis() + srtt.total_millis();
        let target = self
            .cubic(elapsed_ms.min(EPOCH_MS_MAX), mss)
            .clamp(cwnd, cwnd + cwnd / 2);
        // Section 4.3: alpha is 3 (1 - 0.7) / (1 + 0.7) until Reno would be back where it was, then 1.
        let alpha = if self.w_est >> 10 < u64::from(self.cwnd_prior) {
            542
        } else {
            1024
        };
        self.w_est += alpha * u64::from(mss) * u64::from(acked) / cwnd;
        self.credit += (target - cwnd) * u64::from(acked);
        let increase = (self.credit / cwnd).min(u64::from(acked));
        self.credit %= cwnd;
        let grown = (cwnd + increase).max((self.w_est >> 10).min(cwnd + u64::from(acked)));
        self.cwnd = u32::try_from(grown).unwrap_or(u32::MAX);
    }

    /// W_cubic in bytes, `elapsed_ms` after the epoch began (section 4.2).
    fn cubic(&self, elapsed_ms: u64, mss: u32) -> u64 {
        let from_plateau = i128::from(elapsed_ms) - i128::from(self.k_ms);
        let above = from_plateau.pow(3) * i128::from(mss) * 4 / 10 / 1_000_000_000;
        let window = i128::from(self.w_max) + above;
        window.clamp(0, i128::from(u32::MAX)) as u64
    }
}

/// The greatest integer whose cube is not above `value`.
fn cube_root(value: u64) -> u64 {
    let mut root = 0_u64;
    for bit in (0..22).rev() {
        let next = root | 1 << bit;
        if next.checked_pow(3).is_some_and(|cube| cube <= value) {
            root = next;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const RTT: Duration = Duration::from_millis(100);

    /// Acknowledges whole windows for `duration`, and returns the window then.
    fn grow(cubic: &mut Cubic, duration: Duration, start: Instant) -> (u32, Instant) {
        let mut now = start;
        while now < start + duration {
            for _ in 0..cubic.window() / MSS {
                cubic.on_ack(MSS, MSS, RTT, u32::MAX, now);
            }
            now += RTT;
        }
        (cubic.window(), now)
    }

    #[test]
    fn cube_roots_are_exact() {
        for root in [0, 1, 2, 3, 10, 999, 1_000, 2_642_245] {
            assert_eq!(cube_root(root * root * root), root);
            assert_eq!(cube_root(root * root * root + root), root);
        }
        assert_eq!(cube_root(u64::MAX), 2_642_245);
    }

    #[test]
    fn slow_start_doubles_each_round_trip() {
        let mut cubic = Cubic::new(10 * MSS, None);
        for _ in 0..10 {
            cubic.on_ack(MSS, MSS, RTT, u32::MAX, Instant::ZERO);
        }
        assert_eq!(cubic.window(), 20 * MSS);
    }

    #[test]
    fn window_is_reduced_to_seven_tenths_and_is_back_after_k() {
        let mut cubic = Cubic::new(1_000 * MSS, Some(1_000 * MSS));
        cubic.on_loss(MSS);
        assert_eq!(cubic.threshold(), Some(700 * MSS));
        cubic.on_recovered(MSS);
        // K is the cube root of 300 / 0.4: 9.09 s.
        let (early, now) = grow(&mut cubic, Duration::from_secs(4), Instant::ZERO);
        assert!((900 * MSS..970 * MSS).contains(&early), "{early}");
        let (plateau, now) = grow(&mut cubic, Duration::from_millis(5_100), now);
        assert!((985 * MSS..1_010 * MSS).contains(&plateau), "{plateau}");
        let (later, _) = grow(&mut cubic, Duration::from_secs(9), now);
        assert!((1_200 * MSS..1_500 * MSS).contains(&later), "{later}");
    }

    #[test]
    fn on_a_short_path_it_grows_at_least_as_reno() {
        let rtt = Duration::from_millis(10);
        let mut cubic = Cubic::new(20 * MSS, Some(20 * MSS));
        cubic.on_loss(MSS);
        cubic.on_recovered(MSS);
        let mut now = Instant::ZERO;
        for _ in 0..20 {
            for _ in 0..cubic.window() / MSS {
                cubic.on_ack(MSS, MSS, rtt, u32::MAX, now);
            }
            now += rtt;
        }
        // 14 segments, and 0.53 for each of the first ten round trips: then 20, and one for each.
        assert!(cubic.window() > 23 * MSS, "{}", cubic.window());
        assert!(cubic.window() < 40 * MSS, "{}", cubic.window());
    }

    #[test]
    fn two_losses_in_a_row_leave_room_for_others() {
        let mut cubic = Cubic::new(100 * MSS, Some(100 * MSS));
        cubic.on_loss(MSS);
        cubic.on_recovered(MSS);
        cubic.on_loss(MSS);
        assert_eq!(cubic.w_max, 70 * MSS * 17 / 20);
    }

    #[test]
    fn never_reduces_below_two_segments() {
        let mut cubic = Cubic::new(MSS, None);
        cubic.on_loss(MSS);
        assert_eq!(cubic.threshold(), Some(2 * MSS));
    }

    #[test]
    fn idle_time_takes_the_window_back_to_where_connections_begin() {
        let mut cubic = Cubic::new(400 * MSS, None);
        let (timeout, restart) = (Duration::from_millis(200), 10 * MSS);
        cubic.on_idle(Duration::from_millis(400), timeout, restart);
        assert_eq!(cubic.window(), 100 * MSS);
        cubic.on_idle(Duration::from_secs(60), timeout, restart);
        assert_eq!(cubic.window(), restart);
        cubic.on_idle(Duration::from_secs(3_600_000), timeout, 20 * MSS);
        assert_eq!(cubic.window(), restart);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut cubic = Cubic::new(u32::MAX, Some(u32::MAX - 1));
        cubic.on_loss(u32::from(u16::MAX));
        cubic.on_recovered(u32::from(u16::MAX));
        for now in [0, i64::MAX / 2, 5] {
            let now = Instant::from_micros(now);
            cubic.on_ack(u32::MAX, 1, Duration::from_secs(1 << 30), u32::MAX, now);
            cubic.on_ack(u32::MAX, 65_535, Duration::ZERO, u32::MAX, now);
        }
    }
}
