//! The time, read once per batch of events.

use barewire_stack::time::Instant;
use rustix::time::{ClockId, clock_gettime};

/// A core's clock: monotonic for deadlines, and the wall clock's seconds for the service.
///
/// Both readings are answered by the vDSO, without a system call.
#[derive(Debug)]
pub struct Clock {
    now: Instant,
    /// When the wall clock's next second begins.
    next_second: Instant,
}

impl Clock {
    /// Reads the time.
    pub fn new() -> Self {
        let now = monotonic();
        Clock {
            now,
            next_second: now,
        }
    }

    /// The reading of the last [`Clock::tick`].
    #[inline]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Reads the time; returns the seconds since 1970 when a new one has begun, and the first time.
    #[inline]
    pub fn tick(&mut self) -> Option<u64> {
        self.now = monotonic();
        (self.now >= self.next_second).then(|| self.read_wall_clock())
    }

    /// Read again in every second, so that a step of the wall clock is followed within one.
    #[cold]
    fn read_wall_clock(&mut self) -> u64 {
        let wall = clock_gettime(ClockId::Realtime);
        let us_to_next = 1_000_000 - wall.tv_nsec / 1_000;
        self.next_second = Instant::from_micros(self.now.total_micros() + us_to_next);
        u64::try_from(wall.tv_sec).unwrap_or(0)
    }
}

fn monotonic() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    Instant::from_micros(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000)
}
