//! The time, read once per batch.

use rustix::time::{ClockId, clock_gettime};

use crate::time::Instant;

/// A core's clock: monotonic for deadlines, and the wall clock's seconds for the service.
///
/// All clocks of a machine agree: they count from its start. Readings are answered by the vDSO,
/// without a system call.
#[derive(Debug)]
pub struct Clock {
    now_ns: u64,
    /// When the wall clock's next second begins.
    next_second_ns: u64,
}

impl Clock {
    /// Reads the time.
    pub fn new() -> Self {
        let now_ns = monotonic_ns();
        Clock {
            now_ns,
            next_second_ns: now_ns,
        }
    }

    /// The reading of the last [`Clock::tick`].
    #[inline]
    pub fn now(&self) -> Instant {
        Instant::from_micros((self.now_ns / 1_000) as i64)
    }

    /// The same reading in nanoseconds, to measure with.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Reads the time; returns the seconds since 1970 when a new one has begun, and the first time.
    #[inline]
    pub fn tick(&mut self) -> Option<u64> {
        self.now_ns = monotonic_ns();
        (self.now_ns >= self.next_second_ns).then(|| self.read_wall_clock())
    }

    /// Read again in every second, so that a step of the wall clock is followed within one.
    #[cold]
    fn read_wall_clock(&mut self) -> u64 {
        let wall = clock_gettime(ClockId::Realtime);
        self.next_second_ns = self.now_ns + 1_000_000_000 - wall.tv_nsec as u64;
        u64::try_from(wall.tv_sec).unwrap_or(0)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
