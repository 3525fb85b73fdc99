//! What a run came to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::Plan;
use super::receipts::Receipts;
use super::tally::{Failures, Tally};
use super::verify::{Stats, Verification};
use super::window::{Counted, SecondReport};

/// A thread that was busy for more than this part of the time may have been the limit.
const FULL: f64 = 0.95;
/// The quantiles that are reported, in percent.
const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];

/// The results of a run. Its `Display` is close to what wrk prints.
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
    /// Requests at once on a connection.
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
    /// Some thread gave up.
    pub gave_up: bool,
    /// A signal came.
    pub was_interrupted: bool,
}

impl Report {
    /// The report on a run of `plan`.
    pub fn new(plan: &Plan, tally: &Tally, measured: Measured, events: Option<Events>) -> Self {
        let responses = tally.responses();
        let statuses = (0u16..).zip(tally.statuses.iter().copied());
        Report {
            target: format!("http://{}{}", plan.target.authority, plan.path),
            client: match plan.bypass {
                None => "barewire load (kernel sockets, epoll)",
                Some(_) => "barewire load (AF_XDP)",
            },
            threads: plan.threads,
            connections: plan.connections,
            pipeline: plan.pipeline,
            rate: plan.rate,
            connections_per_s: plan.connections_per_s,
            responses,
            lasted_s: measured.lasted_s,
            window: InWindow::of(plan, &tally.in_window, measured.window_s),
            latency: Latency::of(&tally.latency_ns),
            lateness: plan.rate.map(|_| Latency::of(&tally.lateness_ns)),
            statuses: statuses.filter(|&(_, count)| count > 0).collect(),
            failures: tally.failures,
            first_failure: tally.first_failure.clone(),
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

    /// Answers that were neither 2xx nor 3xx; for events, those that were not 2xx.
    fn unsuccessful(&self) -> impl Iterator<Item = (u16, u64)> {
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

    fn quantiles_us(&self) -> [f64; 6] {
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

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} threads and {} connections @ {}",
            self.threads, self.connections, self.target
        )?;
        if self.network.is_some() {
            writeln!(f, "  Past the kernel: {}", self.client)?;
        }
        if let Some(rate) = self.connections_per_s {
            writeln!(
                f,
                "  {rate} connections/s for one request each; latency counts from when a connection was due"
            )?;
        }
        match self.rate {
            _ if self.connections_per_s.is_some() => {}
            Some(rate) => writeln!(
                f,
                "  Open loop at {rate} requests/s; latency counts from when a request was due"
            )?,
            None if self.pipeline > 1 => {
                writeln!(f, "  Closed loop, {} requests at once", self.pipeline)?
            }
            None => writeln!(f, "  Closed loop")?,
        }
        let latency = &self.latency;
        writeln!(f, "  Thread Stats   Avg      Stdev     Max")?;
        writeln!(
            f,
            "    Latency   {:>8}  {:>8}  {:>8}",
            Micros(latency.mean_us).to_string(),
            Micros(latency.stdev_us).to_string(),
            Micros(latency.max_us).to_string()
        )?;
        writeln!(f, "  Latency Distribution")?;
        for (percent, us) in PERCENTILES.into_iter().zip(latency.quantiles_us()) {
            writeln!(f, "  {percent:>6}%  {:>8}", Micros(us).to_string())?;
        }
        let window = &self.window;
        writeln!(
            f,
            "  {} responses in {:.2}s, {} read",
            window.responses,
            window.length_s,
            Bytes(window.bytes_read as f64)
        )?;
        if self.responses > window.responses {
            writeln!(
                f,
                "  {} more came outside of this window, which began {:.2}s after the first request; \
                 the last after {:.2}s",
                self.responses - window.responses,
                window.warm_up_s,
                self.lasted_s
            )?;
        }
        self.fmt_failures(f)?;
        writeln!(f, "Requests/sec: {:>12.2}", window.responses_per_s)?;
        let bytes_per_s = Bytes(window.bytes_read_per_s).to_string();
        writeln!(f, "Transfer/sec: {bytes_per_s:>12}")?;
        writeln!(
            f,
            "Client CPU:   {:>12} per response, busiest thread {:.0}%",
            Micros(self.cpu.busy_us_per_response).to_string(),
            self.cpu.busiest_thread * 100.0
        )?;
        match &self.lateness {
            Some(lateness) => writeln!(
                f,
                "Sent late by: {:>12} at the 99th percentile, {} at most",
                Micros(lateness.p99_us).to_string(),
                Micros(lateness.max_us)
            )?,
            None if self.cpu.busiest_thread > FULL => writeln!(
                f,
                "  A client thread was full: the server may be able to do more. Give it more --threads and cores."
            )?,
            None => {}
        }
        if self.balance.len() > 1 {
            write!(f, "Per thread:  ")?;
            for thread in &self.balance {
                let share = per(thread.responses as f64, self.responses as f64) * 100.0;
                write!(f, " {share:.1}% ({:.0}% busy)", thread.busy * 100.0)?;
            }
            writeln!(f)?;
        }
        if let Some(network) = &self.network {
            writeln!(
                f,
                "Network:      {} segments sent again, {} frames dropped here, {} malformed, {} strays",
                network.retransmissions, network.link_drops, network.discards, network.strays
            )?;
        }
        let Some(events) = &self.events else {
            return Ok(());
        };
        if let Some(why) = &events.unverifiable {
            writeln!(f, "The totals cannot be verified: {why}")?;
        }
        if let Some(verification) = &events.verification {
            writeln!(f, "Verified against /stats:")?;
            for check in &verification.checks {
                let verdict = match (check.ok, check.exact) {
                    (true, true) => "exact",
                    (true, false) => "consistent",
                    (false, _) => "WRONG",
                };
                writeln!(f, "  {:<14} {verdict:<10} {}", check.name, check.finding)?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn fmt_failures(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Failures {
            connect,
            timeout,
            reset,
            closed,
            parse,
        } = self.failures;
        if self.failures != Failures::default() || self.unanswered > 0 {
            writeln!(
                f,
                "  Errors: connect {connect}, timeout {timeout}, reset {reset}, closed {closed}, parse {parse}; \
                 {} requests unanswered",
                self.unanswered
            )?;
        }
        if let Some(why) = &self.first_failure {
            writeln!(f, "  The first: {why}")?;
        }
        if self.wrong_bodies > 0 {
            writeln!(f, "  Answers with another body: {}", self.wrong_bodies)?;
        }
        let mut unsuccessful = self.unsuccessful().peekable();
        if unsuccessful.peek().is_some() {
            write!(f, "  Unsuccessful responses:")?;
            for (status, count) in unsuccessful {
                write!(f, " {status}: {count}")?;
            }
            writeln!(f)?;
        }
        if self.reconnects > 0 {
            writeln!(
                f,
                "  Connections that the server closed in order: {}",
                self.reconnects
            )?;
        }
        if self.gave_up {
            writeln!(f, "  Gave up: no answer came any more")?;
        }
        if self.was_interrupted {
            writeln!(f, "  Interrupted: not everything was asked")?;
        }
        Ok(())
    }
}

/// A time as wrk prints it.
struct Micros(f64);

impl Display for Micros {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            us if us < 1e3 => write!(f, "{us:.2}us"),
            us if us < 1e6 => write!(f, "{:.2}ms", us / 1e3),
            us => write!(f, "{:.2}s", us / 1e6),
        }
    }
}

/// An amount of data as wrk prints it.
struct Bytes(f64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
        let mut amount = self.0;
        let mut unit = 0;
        while amount >= 1024.0 && unit + 1 < UNITS.len() {
            amount /= 1024.0;
            unit += 1;
        }
        write!(f, "{amount:.2}{}", UNITS[unit])
    }
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        for (us, text) in [
            (0.5, "0.50us"),
            (999.0, "999.00us"),
            (1234.0, "1.23ms"),
            (2.5e6, "2.50s"),
        ] {
            assert_eq!(Micros(us).to_string(), text);
        }
        for (bytes, text) in [
            (10.0, "10.00B"),
            (1536.0, "1.50KB"),
            (5e12, "4.55TB"),
            (5e15, "4547.47TB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
