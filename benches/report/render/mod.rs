//! What a report looks like: one page, one table for a README, and the figures themselves.

mod charts;
mod html;
mod markdown;
mod plot;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::results::{Results, Round, Spread};

/// Writes `results.json` into `directory`.
pub fn write_json(results: &Results, directory: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(results)?;
    write_whole(&directory.join("results.json"), json.as_bytes())
}

/// Writes `results.json`, `report.md`, `report.html` and the charts into `directory`.
pub fn write(results: &Results, directory: &Path) -> Result<()> {
    write_json(results, directory)?;
    for (name, text) in [
        ("report.md", markdown::report(results)),
        ("report.html", html::report(results)?),
    ] {
        write_whole(&directory.join(name), text.as_bytes())?;
    }
    charts::write(results, directory)
}

/// Writes a file so that it is there whole or not at all, also when the disk is full.
fn write_whole(path: &Path, text: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Which load made a figure, where there are several.
const SEVERAL_LOADS: &str = "Every cell was measured with wrk and with barewire load, which asks past the kernel. \
     Figures are wrk's where wrk was not the bottleneck, and marked as barewire load's where it was.";

/// A figure that is shown in tables: how it is called, computed and printed.
struct Figure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Round) -> f64,
    digits: usize,
}

const RATE: Figure = Figure {
    name: "requests/s",
    unit: "",
    of: Round::rate,
    digits: 0,
};

const SERVER_CORE: Figure = Figure {
    name: "server cores",
    unit: "µs/request",
    of: Round::server_core_us,
    digits: 2,
};

const BOTH_CORES: Figure = Figure {
    name: "both sides' cores",
    unit: "µs/request",
    of: Round::both_cores_us,
    digits: 2,
};

/// Percentiles in the order of a table.
const LATENCIES: [Figure; 5] = [
    latency("p50", |round| round.latency(|latency| latency.p50)),
    latency("p90", |round| round.latency(|latency| latency.p90)),
    latency("p99", |round| round.latency(|latency| latency.p99)),
    latency("p99.9", |round| round.latency(|latency| latency.p99_9)),
    latency("max", |round| round.latency(|latency| latency.max)),
];

const fn latency(name: &'static str, of: fn(&Round) -> f64) -> Figure {
    Figure {
        name,
        unit: "µs",
        of,
        digits: 0,
    }
}

impl Figure {
    /// `123 456 (120 000 – 130 000)`.
    fn show(&self, spread: Option<Spread>) -> String {
        spread.map_or("–".to_owned(), |spread| {
            format!(
                "{} ({} – {})",
                number(spread.median, self.digits),
                number(spread.min, self.digits),
                number(spread.max, self.digits)
            )
        })
    }
}

/// `1.23 (1.10 – 1.31)`.
fn ratio(spread: Option<Spread>) -> String {
    Figure {
        name: "",
        unit: "",
        of: |_| 0.0,
        digits: 2,
    }
    .show(spread)
}

/// `1.23 (1.10 – 1.31)`, or that the client was the limit, of which no ratio can be made.
fn ratio_of(results: &Results, server: &str, route: &str, connections: u32) -> String {
    match results.is_comparable(server, route, connections) {
        true => ratio(results.ratio(server, route, connections, RATE.of)),
        false => "client-bound".to_owned(),
    }
}

/// Digits in groups of three, apart by a narrow no-break space.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, fraction)| {
            (whole, Some(fraction))
        });
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        let rest = whole.len() - i;
        if i > 0 && rest % 3 == 0 && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{grouped}.{fraction}"),
        None => grouped,
    }
}

/// The number of connections with the highest median of the baseline, over all routes.
fn busiest(results: &Results) -> u32 {
    let best = |connections: &u32| {
        let rates = results.matrix.routes.iter().filter_map(|route| {
            results.spread(&results.matrix.baseline, &route.name, *connections, RATE.of)
        });
        rates.map(|rate| rate.median).sum::<f64>()
    };
    let connections = results.connections();
    let busiest = connections
        .iter()
        .max_by(|a, b| best(a).total_cmp(&best(b)));
    busiest.copied().unwrap_or_default()
}

/// The date of an RFC 3339 time.
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_groups_of_three() {
        assert_eq!(number(1_234_567.0, 0), "1\u{202f}234\u{202f}567");
        assert_eq!(number(999.0, 0), "999");
        assert_eq!(number(1234.5, 2), "1\u{202f}234.50");
        assert_eq!(number(-123_456.0, 0), "-123\u{202f}456");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing_behind() {
        let error = write_whole(Path::new("/dev/full/report.md"), b"text").unwrap_err();
        assert!(format!("{error:#}").contains("/dev/full/report.md"));
    }
}
