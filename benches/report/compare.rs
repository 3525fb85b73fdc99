//! Two reports side by side: what changed by more than the noise.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::results::{Results, Round};

/// What is compared, and whether more of it is better.
type Figure = (&'static str, fn(&Round) -> f64, bool);

const FIGURES: [Figure; 3] = [
    ("requests/s", Round::rate, true),
    ("server cores, µs/request", Round::server_core_us, false),
    (
        "p99, µs",
        |round| round.latency(|latency| latency.p99),
        false,
    ),
];

/// The table that `--compare A B` prints.
pub fn compare(before: &Path, after: &Path) -> Result<String> {
    let (before, after) = (Results::read(before)?, Results::read(after)?);
    let mut text = String::new();
    let mut cells = 0;
    for (name, value) in differences(&before, &after) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}: {value}");
    }
    let _ = writeln!(
        text,
        "{:<14} {:<14} {:>6}  {:<26} {:>12} {:>12} {:>8}  verdict",
        "server", "route", "conns", "figure", "before", "after", "change"
    );
    for (route, connections, servers) in after.matrix.cells() {
        for server in servers {
            for (name, figure, more_is_better) in FIGURES {
                let spread = |results: &Results| {
                    results.spread(&server.name, &route.name, connections, figure)
                };
                let (Some(old), Some(new)) = (spread(&before), spread(&after)) else {
                    continue;
                };
                cells += 1;
                let change = (new.median / old.median - 1.0) * 100.0;
                let verdict = match (new.is_apart_from(&old), (change > 0.0) == more_is_better) {
                    (false, _) => "within the noise",
                    (true, true) => "better",
                    (true, false) => "WORSE",
                };
                let _ = writeln!(
                    text,
                    "{:<14} {:<14} {connections:>6}  {name:<26} {:>12.2} {:>12.2} {change:>+7.1}%  {verdict}",
                    server.name, route.name, old.median, new.median
                );
            }
        }
    }
    ensure!(cells > 0, "the two reports have no cell in common");
    Ok(text)
}

/// Facts of the machines that differ: a change of those explains a change of figures.
fn differences(before: &Results, after: &Results) -> Vec<(String, String)> {
    let facts = after.machine.facts.iter();
    facts
        .filter_map(|fact| {
            let old = before.machine.fact(&fact.name).unwrap_or("–");
            (old != fact.value).then(|| {
                (
                    format!("changed: {}", fact.name),
                    format!("{old} -> {}", fact.value),
                )
            })
        })
        .collect()
}
