//! Points in time and spans of it, in whole microseconds.
//!
//! Nothing below a stack's threads reads a clock: the caller of a protocol passes the time, so
//! that a simulation runs as fast as it can and a test says exactly when. The standard library's
//! `Instant` cannot be made from a number, and its `Duration` is twice as large as it has to be here.

use std::fmt;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

/// A point in time: microseconds since a moment that all of a machine's cores agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant {
    micros: i64,
}

/// A span of time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration {
    micros: u64,
}

impl Instant {
    /// The moment that all others are counted from.
    pub const ZERO: Instant = Instant::from_micros(0);

    /// `micros` microseconds after [`Instant::ZERO`].
    pub const fn from_micros(micros: i64) -> Instant {
        Instant { micros }
    }

    /// `millis` milliseconds after [`Instant::ZERO`].
    pub const fn from_millis(millis: i64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    /// `secs` seconds after [`Instant::ZERO`].
    pub const fn from_secs(secs: i64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    /// Microseconds since [`Instant::ZERO`].
    pub const fn total_micros(self) -> i64 {
        self.micros
    }

    /// Whole milliseconds since [`Instant::ZERO`].
    pub const fn total_millis(self) -> i64 {
        self.micros / 1_000
    }

    /// Whole seconds since [`Instant::ZERO`].
    pub const fn secs(self) -> i64 {
        self.micros / 1_000_000
    }
}

impl Duration {
    /// No time at all.
    pub const ZERO: Duration = Duration::from_micros(0);
    /// Longer than anything that is waited for.
    pub const MAX: Duration = Duration::from_micros(u64::MAX);

    /// `micros` microseconds.
    pub const fn from_micros(micros: u64) -> Duration {
        Duration { micros }
    }

    /// `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Duration {
        Duration::from_micros(millis * 1_000)
    }

    /// `secs` seconds.
    pub const fn from_secs(secs: u64) -> Duration {
        Duration::from_micros(secs * 1_000_000)
    }

    /// All of it in microseconds.
    pub const fn total_micros(self) -> u64 {
        self.micros
    }

    /// All of it in whole milliseconds.
    pub const fn total_millis(self) -> u64 {
        self.micros / 1_000
    }

    /// Its whole seconds.
    pub const fn secs(self) -> u64 {
        self.micros / 1_000_000
    }

    /// The microseconds beyond its whole seconds.
    pub const fn subsec_micros(self) -> u64 {
        self.micros % 1_000_000
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} s", self.micros as f64 / 1e6)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} s", self.micros as f64 / 1e6)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, span: Duration) -> Instant {
        Instant::from_micros(self.micros + span.micros as i64)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, span: Duration) -> Instant {
        Instant::from_micros(self.micros - span.micros as i64)
    }
}

/// The time between two points, whichever came first.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, other: Instant) -> Duration {
        Duration::from_micros(self.micros.abs_diff(other.micros))
    }
}

impl Add for Duration {
    type Output = Duration;

    fn add(self, other: Duration) -> Duration {
        Duration::from_micros(self.micros + other.micros)
    }
}

impl AddAssign for Duration {
    fn add_assign(&mut self, other: Duration) {
        *self = *self + other;
    }
}

/// # Panics
///
/// If `other` is longer.
impl Sub for Duration {
    type Output = Duration;

    fn sub(self, other: Duration) -> Duration {
        assert!(other <= self, "a span of time cannot be negative");
        Duration::from_micros(self.micros - other.micros)
    }
}

impl Mul<u32> for Duration {
    type Output = Duration;

    fn mul(self, factor: u32) -> Duration {
        Duration::from_micros(self.micros * u64::from(factor))
    }
}

impl Div<u32> for Duration {
    type Output = Duration;

    fn div(self, divisor: u32) -> Duration {
        Duration::from_micros(self.micros / u64::from(divisor))
    }
}
