//! What a run came to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::Plan;
use super::receipts::Receipts;
use super::tally::{Failures, Tally};
use super::verify::{Stats, Verification};
use super::window::{Counted, SecondReport};

/// A thread that was busy for more than this part of the time may have been the limit.
const FULL: f64 = 0.95;
/// An open loop that missed less than this part of its requests has reached its rate.
const MISSED_MAX: f64 = 0.01;
/// The quantiles that are reported, in percent.
pub const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];

/// The results of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was asked.
    pub target: String,
    /// `barewire load`, its transport.
    pub client: &'static str,
    /// Threads.
    pub threads: usize,
    /// Connections over all threads.
    pub connections: usize,
    /// Whether the connections were encrypted.
    pub tls: bool,
    /// `http/1.1` or `h2`.
    pub protocol: &'static str,
    /// Requests at once on a connection: in a pipeline, or by HTTP/2 in streams.
    pub pipeline: usize,
    /// Requests per second that were asked for, in an open loop.
    pub rate: Option<f64>,
    /// Connections per second that were asked for, if each asked but once.
    pub connections_per_s: Option<f64>,
    /// Answers, whatever their status, also those that came outside of the window.
    pub responses: u64,
    /// From the first request to the last answer.
    pub lasted_s: f64,
    /// What came in the [window](super::window), and all rates.
    pub window: InWindow,
    /// From when a request was due to when its answer was read, of requests that were due in the window.
    pub latency: Latency,
    /// How late requests of an open loop were sent although a connection was free.
    pub lateness: Option<Latency>,
    /// The same in nanoseconds and in full.
    #[serde(skip)]
    pub latency_ns: Histogram<u64>,
    /// Part of the rate that was asked for that came about in the window, 0 to 1, if it was less than it should.
    pub reached: Option<f64>,
    /// What the user should know about how it was measured.
    pub warnings: Vec<String>,
    /// Answers by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that broke, by kind.
    pub failures: Failures,
    /// The first failure in words.
    pub first_failure: Option<String>,
    /// Answers whose body was not the expected one.
    pub wrong_bodies: u64,
    /// Requests that were never answered.
    pub unanswered: u64,
    /// Connections that were opened.
    pub connections_opened: u64,
    /// Connections that the server closed in order and that were opened again.
    pub reconnects: u64,
    /// The run ended before all was asked, because no answers came any more.
    pub gave_up: bool,
    /// A signal ended the run before all was asked.
    pub was_interrupted: bool,
    /// What the client itself took.
    pub cpu: Cpu,
    /// How the work was spread over the threads.
    pub balance: Vec<Thread>,
    /// What went wrong below the connections, if the client saw to that itself.
    pub network: Option<Network>,
    /// The challenge's totals.
    pub events: Option<Events>,
}

/// What came in the window.
#[derive(Debug, Clone, Serialize)]
pub struct InWindow {
    /// How long was asked before it began.
    pub warm_up_s: f64,
    /// How long it was.
    pub length_s: f64,
    /// Answers, whatever their status.
    pub responses: u64,
    /// Answers per second.
    pub responses_per_s: f64,
    /// Bytes received.
    pub bytes_read: u64,
    /// Bytes received per second.
    pub bytes_read_per_s: f64,
    /// Bytes sent.
    pub bytes_written: u64,
    /// Second by second.
    pub seconds: Vec<SecondReport>,
}

/// A distribution of times, in microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Standard deviation.
    pub stdev_us: f64,
    /// Half of all took no longer.
    pub p50_us: f64,
    /// 75 % took no longer.
    pub p75_us: f64,
    /// 90 % took no longer.
    pub p90_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// 99.9 % took no longer.
    pub p99_9_us: f64,
    /// 99.99 % took no longer.
    pub p99_99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Processor time of the client's threads, system calls included.
#[derive(Debug, Serialize)]
pub struct Cpu {
    /// Per answer.
    pub us_per_response: f64,
    /// Per answer, without the time in which a thread that spins had nothing to do.
    pub busy_us_per_response: f64,
    /// Part of the time that the busiest thread had something to do, 0 to 1.
    pub busiest_thread: f64,
}

/// One thread's share of the work.
#[derive(Debug, Clone, Serialize)]
pub struct Thread {
    /// The CPU it was pinned to.
    pub cpu: Option<usize>,
    /// Answers that it got.
    pub responses: u64,
    /// Connections that it had.
    pub connections: u64,
    /// Part of the time that it had something to do, 0 to 1.
    pub busy: f64,
}

/// What the client's own stack saw of the network.
#[derive(Debug, Clone, Serialize)]
pub struct Network {
    /// Segments that it sent again.
    pub retransmissions: u64,
    /// Frames that the interface or the stack dropped for want of room.
    pub link_drops: u64,
    /// Frames that were malformed, or had wrong checksums.
    pub discards: u64,
    /// Segments that arrived for connections that the core did not have.
    pub strays: u64,
    /// Connections whose first answer arrived at another core than the one that had called.
    pub handovers: u64,
}

/// `/stats` before and after, and what came of comparing them.
#[derive(Debug, Serialize)]
pub struct Events {
    /// Before the run.
    pub before: Stats,
    /// After it.
    pub after: Option<Stats>,
    /// The comparison.
    pub verification: Option<Verification>,
    /// Why there is none.
    pub unverifiable: Option<String>,
}

impl Events {
    /// Compares what `/stats` said with the receipts; see [`Verification::of`].
    pub fn verified(before: Stats, after: Stats, receipts: &Receipts, users: Option<u64>) -> Self {
        let verification = Verification::of(&before, &after, receipts, users);
        Events {
            before,
            after: Some(after),
            verification: Some(verification),
            unverifiable: None,
        }
    }

    /// `/stats` did not answer any more.
    pub fn unverifiable(before: Stats, why: String) -> Self {
        Events {
            before,
            after: None,
            verification: None,
            unverifiable: Some(why),
        }
    }

    /// Whether the totals were compared and found right.
    pub fn is_ok(&self) -> bool {
        self.verification.as_ref().is_some_and(Verification::is_ok)
    }
}

/// What was measured besides the tally.
#[derive(Debug, Clone)]
pub struct Measured {
    /// How long the window was.
    pub window_s: f64,
    /// From the first request to the last answer.
    pub lasted_s: f64,
    /// Processor time of all threads.
    pub cpu_s: f64,
    /// That of it in which there was something to do.
    pub busy_s: f64,
    /// What each thread did.
    pub threads: Vec<Thread>,
    /// What the client's own stack saw.
    pub network: Option<Network>,
    /// What it said when it started.
    pub warnings: Vec<String>,
    /// Some thread gave up.
    pub gave_up: bool,
    /// A signal came.
    pub was_interrupted: bool,
}

impl Report {
    /// The report on a run of `plan`.
    pub fn new(plan: &Plan, tally: Tally, measured: Measured, events: Option<Events>) -> Self {
        let responses = tally.responses();
        let statuses = (0u16..).zip(tally.statuses.iter().copied());
        let window = InWindow::of(plan, &tally.in_window, measured.window_s);
        Report {
            target: format!("http://{}{}", plan.target.authority, plan.path),
            client: match plan.bypass {
                None => "barewire load (kernel sockets, epoll)",
                Some(_) => "barewire load (AF_XDP)",
            },
            threads: plan.threads,
            connections: plan.connections,
            tls: plan.secure.is_some(),
            protocol: match plan.request.is_http2() {
                true => "h2",
                false => "http/1.1",
            },
            pipeline: plan.pipeline,
            rate: plan.rate,
            connections_per_s: plan.connections_per_s,
            responses,
            lasted_s: measured.lasted_s,
            reached: window.reached(plan),
            window,
            latency: Latency::of(&tally.latency_ns),
            lateness: plan.rate.map(|_| Latency::of(&tally.lateness_ns)),
            statuses: statuses.filter(|&(_, count)| count > 0).collect(),
            failures: tally.failures,
            first_failure: tally.first_failure,
            latency_ns: tally.latency_ns,
            warnings: measured.warnings,
            wrong_bodies: tally.wrong_bodies,
            unanswered: tally.unanswered,
            connections_opened: tally.connections,
            reconnects: tally.reconnects,
            gave_up: measured.gave_up,
            was_interrupted: measured.was_interrupted,
            cpu: Cpu {
                us_per_response: per(measured.cpu_s * 1e6, responses as f64),
                busy_us_per_response: per(measured.busy_s * 1e6, responses as f64),
                busiest_thread: (measured.threads.iter())
                    .map(|thread| thread.busy)
                    .fold(0.0, f64::max),
            },
            balance: measured.threads,
            network: measured.network,
            events,
        }
    }

    /// Whether every request was answered with a success, and the totals are right.
    pub fn is_good(&self) -> bool {
        self.responses > 0
            && !self.gave_up
            && !self.was_interrupted
            && self.failures == Failures::default()
            && self.unanswered == 0
            && self.wrong_bodies == 0
            && self.unsuccessful().next().is_none()
            && self.events.as_ref().is_none_or(Events::is_ok)
    }

    /// Why it is not good, in one line; `None` if it is.
    pub fn complaint(&self) -> Option<String> {
        if self.is_good() {
            return None;
        }
        let mut faults = Vec::new();
        let mut note = |is_so: bool, fault: String| faults.extend(is_so.then_some(fault));
        note(self.responses == 0, "not one request was answered".into());
        note(self.gave_up, "gave up, as no answer came any more".into());
        note(
            self.was_interrupted,
            "interrupted before all was asked".into(),
        );
        let broken: Vec<String> = self
            .failures
            .kinds()
            .map(|(kind, n)| format!("{kind} {n}"))
            .collect();
        note(
            !broken.is_empty(),
            format!("connections broke: {}", broken.join(", ")),
        );
        if let Some(why) = &self.first_failure {
            note(true, format!("the first: {why}"));
        }
        note(
            self.unanswered > 0,
            format!("{} requests unanswered", self.unanswered),
        );
        note(
            self.wrong_bodies > 0,
            format!("{} answers with another body", self.wrong_bodies),
        );
        let mut statuses = String::new();
        for (status, count) in self.unsuccessful() {
            let _ = write!(statuses, " {status}: {count}");
        }
        note(
            !statuses.is_empty(),
            format!("unsuccessful responses:{statuses}"),
        );
        if let Some(events) = &self.events {
            note(
                events.unverifiable.is_some(),
                "the totals cannot be verified".into(),
            );
            for check in events.verification.iter().flat_map(Verification::wrong) {
                note(true, format!("{} is wrong: {}", check.name, check.finding));
            }
        }
        Some(faults.join("; "))
    }

    /// Whether a thread of the client was full, so that the server may be able to do more.
    pub fn is_client_full(&self) -> bool {
        self.cpu.busiest_thread > FULL
    }

    /// Answers that were neither 2xx nor 3xx; for events, those that were not 2xx.
    pub fn unsuccessful(&self) -> impl Iterator<Item = (u16, u64)> {
        let successes = if self.events.is_some() {
            200..300
        } else {
            200..400
        };
        let statuses = self
            .statuses
            .iter()
            .map(|(&status, &count)| (status, count));
        statuses.filter(move |(status, _)| !successes.contains(status))
    }
}

impl InWindow {
    fn of(plan: &Plan, counted: &Counted, length_s: f64) -> Self {
        InWindow {
            warm_up_s: plan.window.warm_up.as_secs_f64(),
            length_s,
            responses: counted.responses,
            responses_per_s: per(counted.responses as f64, length_s),
            bytes_read: counted.bytes_read,
            bytes_read_per_s: per(counted.bytes_read as f64, length_s),
            bytes_written: counted.bytes_written,
            seconds: counted.series(),
        }
    }

    /// See [`Report::reached`]. What can be on its way when the window ends is not missed.
    fn reached(&self, plan: &Plan) -> Option<f64> {
        let due = plan.due_per_s()? * self.length_s;
        let missed = due - self.responses as f64;
        let on_the_way = (plan.connections * plan.pipeline) as f64;
        (missed > on_the_way && missed > due * MISSED_MAX).then(|| per(self.responses as f64, due))
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let [p50_us, p75_us, p90_us, p99_us, p99_9_us, p99_99_us] =
            PERCENTILES.map(|percent| histogram.value_at_percentile(percent) as f64 / 1e3);
        Latency {
            mean_us: histogram.mean() / 1e3,
            stdev_us: histogram.stdev() / 1e3,
            p50_us,
            p75_us,
            p90_us,
            p99_us,
            p99_9_us,
            p99_99_us,
            max_us: histogram.max() as f64 / 1e3,
        }
    }

    /// Those of [`PERCENTILES`].
    pub fn quantiles_us(&self) -> [f64; 6] {
        [
            self.p50_us,
            self.p75_us,
            self.p90_us,
            self.p99_us,
            self.p99_9_us,
            self.p99_99_us,
        ]
    }
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}
