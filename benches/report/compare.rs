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
    let apart = apart(&before, &after);
    if !apart.is_empty() {
        let _ = writeln!(
            text,
            "These reports are of different machines ({}), so that their figures are not comparable: a change may be \
             the machine's.\n",
            apart.join("; ")
        );
    }
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

/// What makes the machines, or the places on them, different ones.
fn apart(before: &Results, after: &Results) -> Vec<String> {
    let facts = ["model", "cores online", "driver", "virtual machine"];
    let facts = facts.map(|name| {
        let of = |results: &Results| results.machine.fact(name).unwrap_or("unknown").to_owned();
        (name, of(before), of(after))
    });
    let cores = |results: &Results| {
        let site = &results.site;
        format!(
            "{} of the server, {} of the load",
            site.server_cores.len(),
            site.client_cores.len()
        )
    };
    let host = ("host", before.host.clone(), after.host.clone());
    let cores = ("cores", cores(before), cores(after));
    let all = [host, cores].into_iter().chain(facts);
    all.filter(|(_, old, new)| old != new)
        .map(|(name, old, new)| format!("{name}: {old} and {new}"))
        .collect()
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
