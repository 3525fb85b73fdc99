//! The part of a run that its figures are about.
//!
//! ```text
//!   first request           window                          last answer
//!        ├── warm-up ──┼──────────── length ────────────┼── late ──┤
//!                      from                            until
//! ```
//!
//! A rate counts the answers that *came* in the window and divides by its length, as wrk does. Answers that come
//! later are waited for, since they must be right, but they are in no rate. Latencies are those of the requests
//! that were *due* in the window, whenever they were answered: leaving out the late ones would leave out the worst.
//! Without a length the window ends with the last answer.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest run whose seconds are told apart, in seconds: the rest is counted with the last one.
const SECONDS_MAX: usize = 3_600;
/// Longest latency in a second that is told apart from longer ones, in nanoseconds.
const SECOND_LATENCY_NS_MAX: u64 = 60_000_000_000;

/// When the window begins and ends, from the first request on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// How long to ask before anything is measured.
    pub warm_up: Duration,
    /// How long it is; `None`: until the last answer.
    pub length: Option<Duration>,
}

impl Window {
    /// From the first request to when no more is asked; `None`: until all is asked.
    pub fn asking(&self) -> Option<Duration> {
        Some(self.warm_up + self.length?)
    }

    /// What of it there was in a run of `lasted`, that ended before all of it was over.
    pub fn cut(&self, lasted: Duration) -> Duration {
        let measured = lasted.saturating_sub(self.warm_up);
        self.length.map_or(measured, |length| length.min(measured))
    }

    /// The same in nanoseconds of a clock, for a run that begins at `started_ns`.
    pub fn starting_at(&self, started_ns: u64) -> Span {
        let from_ns = started_ns + self.warm_up.as_nanos() as u64;
        let length_ns = self.length.map(|length| length.as_nanos() as u64);
        Span {
            from_ns,
            until_ns: length_ns.map_or(u64::MAX, |length_ns| from_ns + length_ns),
        }
    }
}

/// A window in nanoseconds of the client's clock: `from_ns <= t < until_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the type says it")]
pub struct Span {
    pub from_ns: u64,
    pub until_ns: u64,
}

impl Default for Span {
    fn default() -> Self {
        Window::default().starting_at(0)
    }
}

impl Span {
    /// Whether `at_ns` is in it.
    #[inline]
    pub fn holds(&self, at_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&at_ns)
    }
}

/// What came in the window, of one thread or of all.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// Answers, whatever their status.
    pub responses: u64,
    /// Bytes of answers.
    pub bytes_read: u64,
    /// Bytes of requests.
    pub bytes_written: u64,
    /// The same, second by second from the window's begin.
    pub seconds: Vec<Second>,
}

/// What came in one second.
#[derive(Debug, Clone)]
pub struct Second {
    /// Connections that broke.
    pub failures: u64,
    /// Latencies of the answers, in nanoseconds, to two digits.
    latency_ns: Histogram<u32>,
}

/// One second for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct SecondReport {
    /// Its number, from 0.
    pub second: usize,
    /// Answers that came in it.
    pub responses: u64,
    /// Connections that broke in it.
    pub failures: u64,
    /// Half of its answers took no longer.
    pub p50_us: f64,
    /// 99 % of its answers took no longer.
    pub p99_us: f64,
    /// Its longest latency.
    pub max_us: f64,
}

impl Counted {
    /// An answer came `offset_ns` after the window's begin.
    #[inline]
    pub fn answer(&mut self, offset_ns: u64, latency_ns: u64) {
        self.responses += 1;
        let second = self.second(offset_ns);
        second.latency_ns.saturating_record(latency_ns.max(1));
    }

    /// A connection broke `offset_ns` after the window's begin.
    pub fn failure(&mut self, offset_ns: u64) {
        self.second(offset_ns).failures += 1;
    }

    #[inline]
    fn second(&mut self, offset_ns: u64) -> &mut Second {
        let index = usize::try_from(offset_ns / 1_000_000_000).unwrap_or(usize::MAX);
        let index = index.min(SECONDS_MAX - 1);
        // At most once a second.
        while self.seconds.len() <= index {
            self.seconds.push(Second::new());
        }
        &mut self.seconds[index]
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Counted) {
        self.responses += other.responses;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        let common = self.seconds.len().min(other.seconds.len());
        for (mine, others) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.failures += others.failures;
            let added = mine.latency_ns.add(&others.latency_ns);
            assert!(added.is_ok(), "histograms of different ranges");
        }
        self.seconds.extend(other.seconds.into_iter().skip(common));
    }

    /// Second by second.
    pub fn series(&self) -> Vec<SecondReport> {
        let seconds = self.seconds.iter().enumerate();
        seconds
            .map(|(second, counted)| {
                let latency = &counted.latency_ns;
                let us = |ns: u64| ns as f64 / 1e3;
                SecondReport {
                    second,
                    responses: latency.len(),
                    failures: counted.failures,
                    p50_us: us(latency.value_at_quantile(0.5)),
                    p99_us: us(latency.value_at_quantile(0.99)),
                    max_us: us(latency.max()),
                }
            })
            .collect()
    }
}

impl Second {
    fn new() -> Self {
        match Histogram::new_with_bounds(1, SECOND_LATENCY_NS_MAX, 2) {
            Ok(latency_ns) => Second {
                failures: 0,
                latency_ns,
            },
            Err(error) => unreachable!("constant bounds are valid: {error:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_after_the_warm_up_and_ends_with_its_length() {
        let window = Window {
            warm_up: Duration::from_secs(1),
            length: Some(Duration::from_secs(3)),
        };
        let span = window.starting_at(500);
        let at = |seconds: u64| 500 + seconds * 1_000_000_000;
        assert_eq!(
            [at(1) - 1, at(1), at(4) - 1, at(4)].map(|at_ns| span.holds(at_ns)),
            [false, true, true, false]
        );
        assert_eq!(window.asking(), Some(Duration::from_secs(4)));
        let cut_s = |lasted_s| window.cut(Duration::from_secs(lasted_s)).as_secs();
        assert_eq!([0, 1, 3, 4, 9].map(cut_s), [0, 0, 2, 3, 3]);
        assert!(Window::default().starting_at(5).holds(u64::MAX - 1));
    }

    #[test]
    fn seconds_of_several_threads_add_up() {
        let (mut one, mut other) = (Counted::default(), Counted::default());
        one.answer(0, 1_000);
        one.failure(10);
        other.answer(999_999_999, 3_000);
        other.answer(2_500_000_000, 2_000);
        one.merge(other);
        let series = one.series();
        let counts: Vec<_> = (series.iter())
            .map(|second| (second.second, second.responses, second.failures))
            .collect();
        assert_eq!(counts, [(0, 2, 1), (1, 0, 0), (2, 1, 0)]);
        assert_eq!(one.responses, 3);
        assert!((series[0].max_us - 3.0).abs() < 0.05 && series[1].max_us == 0.0);
    }

    #[test]
    fn an_endless_run_has_a_limited_number_of_seconds() {
        let mut counted = Counted::default();
        counted.answer(u64::MAX, 1);
        assert_eq!(counted.seconds.len(), SECONDS_MAX);
    }
}
