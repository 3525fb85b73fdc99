//! The same in words for a README.

use std::fmt::Write;

use super::{
    BOTH_CORES, LATENCIES, RATE, SERVER_CORE, SEVERAL_LOADS, busiest, day, number, ratio_of,
};
use crate::results::{Bound, Results};

/// The whole of `report.md`.
pub fn report(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(results, &mut text);
    text
}

fn write(results: &Results, text: &mut String) -> std::fmt::Result {
    let of = |name| results.machine.fact(name).unwrap_or("unknown");
    let connections = busiest(results);
    let words = &results.words;
    match &words.title {
        Some(title) => writeln!(text, "# {title}\n")?,
        None => writeln!(
            text,
            "# barewire on {}, {}\n",
            results.host,
            day(&results.started)
        )?,
    }
    if let Some(author) = &words.author {
        writeln!(text, "{author}, {}\n", day(&results.started))?;
    }
    writeln!(
        text,
        "{}, Linux {}, {} driver, {} server core(s), {} interleaved rounds of {} s.\n",
        of("model"),
        of("kernel"),
        of("driver"),
        results.site.server_cores.len(),
        results.matrix.rounds,
        results.matrix.measure_s,
    )?;
    if results.interrupted {
        writeln!(
            text,
            "This run was interrupted: it holds what was measured until then.\n"
        )?;
    }
    if !results.failed.is_empty() {
        writeln!(text, "This report is partial. Missing:\n")?;
        for line in &results.failed {
            writeln!(text, "* {line}")?;
        }
        writeln!(text)?;
    }
    if let Some(notes) = &words.notes {
        writeln!(text, "{}\n", notes.trim())?;
    }
    for route in results.measured_routes() {
        writeln!(text, "## {} at {connections} connections\n", route.name)?;
        writeln!(
            text,
            "| server | requests/s | × {} | server cores, µs/request | both sides' cores, µs/request | p50, µs | p99, µs | bound | load |\n\
             |---|---:|---:|---:|---:|---:|---:|---|---|",
            results.matrix.baseline
        )?;
        for server in &results.matrix.servers {
            let at = |figure: &super::Figure| {
                let spread = results.spread(&server.name, &route.name, connections, figure.of)?;
                Some(number(spread.median, figure.digits))
            };
            let Some(rate) = at(&RATE) else { continue };
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
            writeln!(
                text,
                "| {} | {rate} | {} | {} | {} | {} | {} | {} | {} |",
                server.name,
                ratio_of(results, &server.name, &route.name, connections),
                or_dash(at(&SERVER_CORE)),
                or_dash(at(&BOTH_CORES)),
                or_dash(at(&LATENCIES[0])),
                or_dash(at(&LATENCIES[2])),
                results
                    .bound(&server.name, &route.name, connections)
                    .words(),
                results
                    .load_of(&server.name, &route.name, connections)
                    .words(),
            )?;
        }
        writeln!(text)?;
    }
    writeln!(
        text,
        "Medians; the ratio is taken round by round, with its least and greatest. \"{}\" means that the load's \
         cores were full, so that the server could have done more.\n",
        Bound::Client.words()
    )?;
    if results.has_several_loads() {
        writeln!(text, "{SEVERAL_LOADS}\n")?;
    }
    writeln!(text, "What was not tuned:\n")?;
    for sentence in results.caveats() {
        writeln!(text, "* {sentence}")?;
    }
    Ok(())
}
