//! The durations of requests, measured per batch.
//!
//! A stack works in batches: it receives for many connections, lets each be served, and hands all
//! replies on together. Nothing of a reply is on its way before that, so a request lasts from the
//! beginning of the batch in which its first byte was shown to the responder to the end of the batch
//! in which its reply was written:
//!
//! ```text
//!   on_time(t0) ─▶ requests served: counted by route ─▶ replies handed on ─▶ on_time(t1)
//!        └──────────────────────── each of them took t1 - t0 ───────────────────┘
//! ```
//!
//! The stack reads both times anyway. A request costs one increment; the buckets are looked up once per batch and route.
//! Time in a queue of the kernel or the NIC, before or after, is not included. Of a reply that is streamed or echoed, only
//! the head counts.

use barewire_service::counters::Counter;

/// Upper bounds of the buckets, in nanoseconds, inclusive. What takes longer is in one more.
pub const BOUNDS_NS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// The durations of one route on one core. Written by that core.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Counter; BUCKETS],
    sum_ns: Counter,
}

/// What [`Durations`] hold at some recent point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DurationsReading {
    /// Requests in each bucket of [`BOUNDS_NS`], and beyond the last.
    pub buckets: [u64; BUCKETS],
    /// Sum of all durations.
    pub sum_ns: u64,
}

impl Durations {
    pub(super) fn record(&self, duration_ns: u64, requests: u64) {
        let bucket = BOUNDS_NS.partition_point(|&bound| bound < duration_ns);
        self.buckets[bucket].add(requests);
        self.sum_ns.add(duration_ns * requests);
    }

    /// What was recorded so far.
    pub fn read(&self) -> DurationsReading {
        DurationsReading {
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].get()),
            sum_ns: self.sum_ns.get(),
        }
    }
}

/// One core's requests between two readings of the clock.
#[derive(Debug)]
pub(super) struct Stopwatch {
    /// The last reading; 0 before the first.
    now_ns: u64,
    /// Requests that began and were answered since then, by route.
    answered: Box<[u64]>,
    is_any_answered: bool,
    /// Route and beginning of those that began before.
    late: Vec<(usize, u64)>,
}

/// Late requests of one batch beyond which the rest is measured to its beginning, not to its end.
const LATE_MAX: usize = 1024;

impl Stopwatch {
    pub fn new(routes: usize) -> Self {
        Stopwatch {
            now_ns: 0,
            answered: vec![0; routes].into_boxed_slice(),
            is_any_answered: false,
            late: Vec::with_capacity(LATE_MAX),
        }
    }

    /// The last reading of the clock: what a request that begins now remembers if it has to wait.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// A request of `route` was answered that began at `began_ns`; 0: since the last reading.
    ///
    /// Returns how long it took, if that cannot be found out later.
    #[inline]
    #[must_use]
    pub fn on_answer(&mut self, route: usize, began_ns: u64) -> Option<u64> {
        if began_ns == 0 || began_ns == self.now_ns {
            self.answered[route] += 1;
            self.is_any_answered = true;
        } else if self.late.len() < LATE_MAX {
            self.late.push((route, began_ns));
        } else {
            return Some(self.now_ns.saturating_sub(began_ns));
        }
        None
    }

    /// The clock was read again: what was answered since took until now.
    #[inline]
    pub fn on_time(&mut self, now_ns: u64, record: impl FnMut(usize, u64, u64)) {
        if (self.is_any_answered || !self.late.is_empty()) && self.now_ns != 0 {
            self.settle(now_ns, record);
        }
        self.now_ns = now_ns;
    }

    fn settle(&mut self, now_ns: u64, mut record: impl FnMut(usize, u64, u64)) {
        let batch_ns = now_ns.saturating_sub(self.now_ns);
        for (route, answered) in self.answered.iter_mut().enumerate() {
            if *answered > 0 {
                record(route, batch_ns, std::mem::take(answered));
            }
        }
        self.is_any_answered = false;
        for (route, began_ns) in self.late.drain(..) {
            record(route, now_ns.saturating_sub(began_ns), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let durations = Durations::default();
        durations.record(0, 1);
        durations.record(1_000, 1);
        durations.record(1_001, 2);
        durations.record(u64::MAX / 2, 1);
        let reading = durations.read();
        assert_eq!((reading.buckets[0], reading.buckets[1]), (2, 2));
        assert_eq!(reading.buckets[BUCKETS - 1], 1);
    }

    #[test]
    fn requests_take_as_long_as_their_batches() {
        let mut watch = Stopwatch::new(2);
        let mut recorded = Vec::new();
        let mut tick = |watch: &mut Stopwatch, now_ns| {
            recorded.clear();
            watch.on_time(now_ns, |route, ns, requests| {
                recorded.push((route, ns, requests));
            });
            recorded.clone()
        };
        assert_eq!(tick(&mut watch, 100), []);
        for _ in 0..3 {
            assert_eq!(watch.on_answer(1, 0), None);
        }
        assert_eq!(tick(&mut watch, 150), [(1, 50, 3)]);
        // It began in the first batch, another one in this.
        assert_eq!(watch.on_answer(0, 100), None);
        assert_eq!(watch.on_answer(0, 150), None);
        assert_eq!(tick(&mut watch, 170), [(0, 20, 1), (0, 70, 1)]);
        assert_eq!(tick(&mut watch, 180), []);

        for _ in 0..LATE_MAX {
            assert_eq!(watch.on_answer(0, 100), None);
        }
        assert_eq!(watch.on_answer(0, 100), Some(80));
    }
}
