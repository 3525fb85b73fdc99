//! The time of a run.

use std::time::Instant;

/// Tells the time, in nanoseconds from a point that all threads of a run share.
pub trait Clock {
    /// Now.
    fn now_ns(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic(pub Instant);

impl Clock for Monotonic {
    #[inline]
    fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}
