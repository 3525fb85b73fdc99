//! What a run brought: answers, latencies, failures.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::receipts::Receipts;
use super::window::Counted;

/// Longest latency that is told apart from longer ones, in nanoseconds: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Digits to which latencies are kept apart.
const LATENCY_DIGITS: u8 = 3;
/// Status codes have three digits.
const STATUS_CODES: usize = 1000;

/// One thread's or one run's results.
#[derive(Debug, Clone)]
pub struct Tally {
    /// From when a request was due to when its answer was read, in nanoseconds, of every answer to a request
    /// that was due in the [window](super::window).
    ///
    /// In a closed loop a request is due when it is written. In an open loop it is due when the
    /// schedule says, also when no connection was free to ask then: a server that stalls cannot
    /// hide the requests that it kept from being sent (coordinated omission).
    pub latency_ns: Histogram<u64>,
    /// How late requests of an open loop were written although a connection was free, in
    /// nanoseconds: what this program, not the server, added to the latency.
    pub lateness_ns: Histogram<u64>,
    /// Answers by status code.
    pub statuses: Box<[u64]>,
    /// Failures by kind.
    pub failures: Failures,
    /// Answers whose body was not the expected one.
    pub wrong_bodies: u64,
    /// Requests that were asked and never answered.
    pub unanswered: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that the server closed in order while nothing was asked, and were opened again.
    pub reconnects: u64,
    /// Answers and bytes that came in the window.
    pub in_window: Counted,
    /// What the server owes, if the requests were events.
    pub receipts: Option<Receipts>,
    /// The first failure, in words.
    pub first_failure: Option<String>,
}

/// Failures by kind. Each is one connection that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Failures {
    /// A connection could not be opened.
    pub connect: u64,
    /// No answer within the timeout.
    pub timeout: u64,
    /// The server reset the connection.
    pub reset: u64,
    /// The server closed the connection in order with an answer owed, or in the middle of it.
    pub closed: u64,
    /// What came was not an HTTP/1.1 response, or not asked for.
    pub parse: u64,
}

/// What broke a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// See [`Failures::connect`].
    Connect,
    /// See [`Failures::timeout`].
    Timeout,
    /// See [`Failures::reset`].
    Reset,
    /// See [`Failures::closed`].
    Closed,
    /// See [`Failures::parse`].
    Parse,
}

impl Tally {
    /// Nothing yet.
    pub fn new(receipts: Option<Receipts>) -> Self {
        Tally {
            latency_ns: new_histogram(),
            lateness_ns: new_histogram(),
            statuses: vec![0; STATUS_CODES].into(),
            failures: Failures::default(),
            wrong_bodies: 0,
            unanswered: 0,
            connections: 0,
            reconnects: 0,
            in_window: Counted::default(),
            receipts,
            first_failure: None,
        }
    }

    /// Counts a connection that broke; `describe` is asked only for the first.
    pub fn fail(&mut self, failure: Failure, describe: impl FnOnce() -> String) {
        *self.failures.of(failure) += 1;
        self.first_failure.get_or_insert_with(describe);
    }

    /// Adds another thread's results.
    pub fn merge(&mut self, other: Tally) {
        // Histograms of the same range always fit into each other.
        let added = self.latency_ns.add(&other.latency_ns).is_ok()
            && self.lateness_ns.add(&other.lateness_ns).is_ok();
        assert!(added, "histograms of different ranges");
        for (mine, others) in self.statuses.iter_mut().zip(&other.statuses) {
            *mine += others;
        }
        self.failures.connect += other.failures.connect;
        self.failures.timeout += other.failures.timeout;
        self.failures.reset += other.failures.reset;
        self.failures.closed += other.failures.closed;
        self.failures.parse += other.failures.parse;
        self.wrong_bodies += other.wrong_bodies;
        self.unanswered += other.unanswered;
        self.connections += other.connections;
        self.reconnects += other.reconnects;
        self.in_window.merge(other.in_window);
        match (&mut self.receipts, &other.receipts) {
            (Some(mine), Some(others)) => mine.merge(others),
            (mine, _) => *mine = mine.take().or(other.receipts),
        }
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    /// Number of answers, whatever their status.
    pub fn responses(&self) -> u64 {
        self.statuses.iter().sum()
    }
}

impl Failures {
    /// The kinds of which there were any, and how many.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Failures {
            connect,
            timeout,
            reset,
            closed,
            parse,
        } = *self;
        let kinds = [
            ("connect", connect),
            ("timeout", timeout),
            ("reset", reset),
            ("closed", closed),
            ("parse", parse),
        ];
        kinds.into_iter().filter(|&(_, count)| count > 0)
    }

    fn of(&mut self, failure: Failure) -> &mut u64 {
        match failure {
            Failure::Connect => &mut self.connect,
            Failure::Timeout => &mut self.timeout,
            Failure::Reset => &mut self.reset,
            Failure::Closed => &mut self.closed,
            Failure::Parse => &mut self.parse,
        }
    }
}

/// An empty histogram of latencies in nanoseconds.
fn new_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("constant bounds are valid: {error:?}"),
    }
}
