//! A report in words, close to those of wrk.

use std::fmt::{self, Display, Formatter};

use super::export;
use barewire_load::report::{PERCENTILES, Report};
use barewire_load::tally::Failures;

/// A report for people.
pub struct Printed<'a> {
    /// What is printed.
    pub report: &'a Report,
    /// All percentiles of the latency, too.
    pub latency: bool,
}

impl Display for Printed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.report;
        writeln!(
            f,
            "{} threads and {} connections @ {}",
            report.threads, report.connections, report.target
        )?;
        if report.network.is_some() {
            writeln!(f, "  Past the kernel: {}", report.client)?;
        }
        let http2 = report.protocol == "h2";
        if report.tls || http2 {
            let protocol = if http2 { "HTTP/2" } else { "HTTP/1.1" };
            let wire = if report.tls { "TLS" } else { "plain text" };
            writeln!(f, "  {protocol} over {wire}")?;
        }
        if let Some(rate) = report.connections_per_s {
            writeln!(
                f,
                "  {rate} connections/s for one request each; latency counts from when a connection was due"
            )?;
        }
        match report.rate {
            _ if report.connections_per_s.is_some() => {}
            Some(rate) => writeln!(
                f,
                "  Open loop at {rate} requests/s; latency counts from when a request was due"
            )?,
            None if report.pipeline > 1 => {
                writeln!(f, "  Closed loop, {} requests at once", report.pipeline)?
            }
            None => writeln!(f, "  Closed loop")?,
        }
        let latency = &report.latency;
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
        if self.latency {
            writeln!(f, "  Detailed Percentile spectrum, in microseconds:")?;
            let mut table = Vec::new();
            if export::percentiles(&report.latency_ns, &mut table).is_ok() {
                f.write_str(&String::from_utf8_lossy(&table))?;
            }
        }
        let window = &report.window;
        writeln!(
            f,
            "  {} responses in {:.2}s, {} read",
            window.responses,
            window.length_s,
            Bytes(window.bytes_read as f64)
        )?;
        if report.responses > window.responses {
            writeln!(
                f,
                "  {} more came outside of this window, which began {:.2}s after the first request; \
                 the last after {:.2}s",
                report.responses - window.responses,
                window.warm_up_s,
                report.lasted_s
            )?;
        }
        self.fmt_failures(f)?;
        writeln!(f, "Requests/sec: {:>12.2}", window.responses_per_s)?;
        self.fmt_shortfall(f)?;
        let bytes_per_s = Bytes(window.bytes_read_per_s).to_string();
        writeln!(f, "Transfer/sec: {bytes_per_s:>12}")?;
        writeln!(
            f,
            "Client CPU:   {:>12} per response, busiest thread {:.0}%",
            Micros(report.cpu.busy_us_per_response).to_string(),
            report.cpu.busiest_thread * 100.0
        )?;
        match &report.lateness {
            Some(lateness) => writeln!(
                f,
                "Sent late by: {:>12} at the 99th percentile, {} at most",
                Micros(lateness.p99_us).to_string(),
                Micros(lateness.max_us)
            )?,
            None if report.is_client_full() => writeln!(
                f,
                "  A client thread was full: the server may be able to do more. Give it more --threads and cores."
            )?,
            None => {}
        }
        if report.balance.len() > 1 {
            write!(f, "Per thread:  ")?;
            for thread in &report.balance {
                let share = per(thread.responses as f64, report.responses as f64) * 100.0;
                write!(f, " {share:.1}% ({:.0}% busy)", thread.busy * 100.0)?;
            }
            writeln!(f)?;
        }
        if let Some(network) = &report.network {
            writeln!(
                f,
                "Network:      {} segments sent again, {} frames dropped here, {} malformed, {} strays",
                network.retransmissions, network.link_drops, network.discards, network.strays
            )?;
        }
        let Some(events) = &report.events else {
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

impl Printed<'_> {
    /// Says that the rate that was asked for did not come about, and where to look.
    fn fmt_shortfall(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let (Some(reached), Some(rate)) =
            (report.reached, report.rate.or(report.connections_per_s))
        else {
            return Ok(());
        };
        let cause = match report.is_client_full() {
            true => "a client thread was full: give it more --threads and cores",
            false => {
                "all connections were busy: the server cannot do more, or needs more --concurrency to show it"
            }
        };
        writeln!(
            f,
            "  The rate that was asked for was not reached: {:.0} % of {rate}/s; {cause}",
            reached * 100.0
        )
    }

    fn fmt_failures(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let Failures {
            connect,
            timeout,
            reset,
            closed,
            parse,
        } = report.failures;
        if report.failures != Failures::default() || report.unanswered > 0 {
            writeln!(
                f,
                "  Errors: connect {connect}, timeout {timeout}, reset {reset}, closed {closed}, parse {parse}; \
                 {} requests unanswered",
                report.unanswered
            )?;
        }
        if let Some(why) = &report.first_failure {
            writeln!(f, "  The first: {why}")?;
        }
        if report.wrong_bodies > 0 {
            writeln!(f, "  Answers with another body: {}", report.wrong_bodies)?;
        }
        let mut unsuccessful = report.unsuccessful().peekable();
        if unsuccessful.peek().is_some() {
            write!(f, "  Unsuccessful responses:")?;
            for (status, count) in unsuccessful {
                write!(f, " {status}: {count}")?;
            }
            writeln!(f)?;
        }
        if report.reconnects > 0 {
            writeln!(
                f,
                "  Connections that the server closed in order: {}",
                report.reconnects
            )?;
        }
        if report.gave_up {
            writeln!(f, "  Gave up: no answer came any more")?;
        }
        if report.was_interrupted {
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
