//! The round-trip time and the retransmission timeout (RFC 6298).

use barewire_service::time::{Duration, Instant};

use super::Config;

/// Smoothed round-trip time of one connection, and the retransmission timeout that follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtt {
    /// SRTT in microseconds, 0 before the first sample.
    srtt_us: u32,
    /// RTTVAR in microseconds.
    rttvar_us: u32,
    /// The least sample.
    min_us: u32,
    /// How often the timeout was doubled.
    backoff: u8,
}

/// Resolution of the clock that serves the timeouts, G in RFC 6298: the timer wheel's tick.
const GRANULARITY_US: u32 = 4_096;
/// No sample is longer: RFC 6298 timeouts above it are cut to [`Config::rto_max`] in any case.
const SAMPLE_US_MAX: u64 = 120_000_000;

impl Rtt {
    /// Continues with a smoothed round-trip time and its variation; with none, if `srtt_us` is 0.
    pub fn new(srtt_us: u32, rttvar_us: u32) -> Rtt {
        Rtt {
            srtt_us,
            rttvar_us,
            min_us: u32::MAX,
            backoff: 0,
        }
    }

    /// Takes the time between a segment, sent once, and its acknowledgment (RFC 6298, section 2).
    ///
    /// It also ends the back-off (section 5.7).
    #[inline]
    pub fn on_sample(&mut self, sample: Duration) {
        let sample_us = sample.total_micros().clamp(1, SAMPLE_US_MAX) as u32;
        self.min_us = self.min_us.min(sample_us);
        if self.srtt_us == 0 {
            self.srtt_us = sample_us;
            self.rttvar_us = sample_us / 2;
        } else {
            let difference = self.srtt_us.abs_diff(sample_us);
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + difference / 4;
            self.srtt_us = (self.srtt_us - self.srtt_us / 8 + sample_us / 8).max(1);
        }
        self.backoff = 0;
    }

    /// SRTT, if anything was measured yet.
    #[inline]
    pub fn smoothed(&self) -> Option<Duration> {
        (self.srtt_us != 0).then(|| Duration::from_micros(u64::from(self.srtt_us)))
    }

    /// SRTT and RTTVAR in microseconds, as [`Rtt::new`] takes them.
    #[inline]
    pub fn parts_us(&self) -> (u32, u32) {
        (self.srtt_us, self.rttvar_us)
    }

    /// The shortest round trip measured, if any.
    #[inline]
    pub fn min(&self) -> Option<Duration> {
        (self.min_us != u32::MAX).then(|| Duration::from_micros(u64::from(self.min_us)))
    }

    /// RTO, doubled as often as it was backed off.
    #[inline]
    pub fn timeout(&self, config: &Config) -> Duration {
        let rto = match self.smoothed() {
            None => config.rto_initial,
            Some(srtt) => {
                let variation_us = u64::from(self.rttvar_us) * 4;
                srtt + Duration::from_micros(variation_us.max(u64::from(GRANULARITY_US)))
            }
        };
        let rto = rto.max(config.rto_min);
        let doubled = rto.total_micros() << self.backoff.min(16);
        Duration::from_micros(doubled).min(config.rto_max)
    }

    /// How often the timeout was doubled since the last sample.
    #[inline]
    pub fn backoff(&self) -> u8 {
        self.backoff
    }

    /// Doubles the timeout (RFC 6298, section 5.5).
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// Takes back the doubling: something new was acknowledged, so the path works. Without it, a
    /// connection whose every segment is sent again would keep its longest timeout, as none gives a sample.
    #[inline]
    pub fn end_back_off(&mut self) {
        self.backoff = 0;
    }
}

/// Microseconds from `earlier` to `later`, 0 if it is the other way round.
#[inline]
pub(super) fn since(earlier: Instant, later: Instant) -> Duration {
    Duration::from_micros((later.total_micros() - earlier.total_micros()).max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn begins_with_one_second() {
        let config = Config::default();
        assert_eq!(Rtt::new(0, 0).timeout(&config), MS(1000));
    }

    #[test]
    fn first_sample_gives_three_times_itself() {
        let mut rtt = Rtt::new(0, 0);
        rtt.on_sample(MS(100));
        assert_eq!(rtt.smoothed(), Some(MS(100)));
        assert_eq!(rtt.timeout(&Config::default()), MS(300));
    }

    #[test]
    fn later_samples_count_an_eighth_and_a_quarter() {
        let mut rtt = Rtt::new(0, 0);
        rtt.on_sample(MS(80));
        rtt.on_sample(MS(160));
        assert_eq!(rtt.parts_us(), (90_000, 50_000));
    }

    #[test]
    fn is_never_below_the_least_nor_above_the_greatest() {
        let config = Config::default();
        let mut rtt = Rtt::new(0, 0);
        rtt.on_sample(Duration::from_micros(50));
        assert_eq!(rtt.timeout(&config), config.rto_min);
        for _ in 0..300 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(&config), config.rto_max);
    }

    #[test]
    fn doubles_until_a_sample_comes() {
        let config = Config::default();
        let mut rtt = Rtt::new(0, 0);
        rtt.on_sample(MS(10));
        rtt.back_off();
        assert_eq!(rtt.timeout(&config), MS(400));
        rtt.back_off();
        assert_eq!(rtt.timeout(&config), MS(800));
        rtt.on_sample(MS(10));
        assert_eq!(rtt.timeout(&config), MS(200));
    }

    #[test]
    fn a_sample_of_any_size_is_taken() {
        let mut rtt = Rtt::new(0, 0);
        rtt.on_sample(Duration::from_micros(u64::MAX));
        rtt.on_sample(Duration::ZERO);
        assert!(rtt.timeout(&Config::default()) <= Config::default().rto_max);
    }
}
