//! The page: one file, no script, no request to anywhere.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::{self, Chart};
use super::{
    BOTH_CORES, Figure, LATENCIES, RATE, SERVER_CORE, SEVERAL_LOADS, busiest, day, number, plot,
    ratio_of,
};
use crate::matrix::{LoadName, Route};
use crate::results::{Bound, Results, Round, Spread};
use crate::usage::Side;

const CSS: &str = include_str!("report.css");
/// Marks figures that other processes have disturbed.
const BUSY: &str = "§";

/// The whole of `report.html`.
pub fn report(results: &Results) -> Result<String> {
    let sections: Vec<Markup> = (results.measured_routes())
        .map(|route| section(results, route))
        .collect::<Result<_>>()?;
    let words = &results.words;
    let title = (words.title.clone())
        .unwrap_or_else(|| format!("barewire on {}, {}", results.host, day(&results.started)));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(author) = &words.author { meta name="author" content=(author); }
                title { (title) }
                style { (PreEscaped(plot::css())) (PreEscaped(CSS)) }
            }
            body {
                header {
                    h1 { (title) }
                    @if let Some(author) = &words.author { p.author { (author) ", " (day(&results.started)) } }
                    p.lead { (summary(results)) }
                    p.note { (build(results)) " · data: "
                        a href="results.json" { "every round" } ", "
                        a href="raw/" { "the loads' own words" } ", "
                        a href="report.md" { "as Markdown" }
                    }
                    (partial(results))
                    @for paragraph in words.notes.iter().flat_map(|notes| notes.split("\n\n")) {
                        p { (paragraph.trim()) }
                    }
                    (headline(results))
                }
                main {
                    @for section in &sections { (section) }
                    (not_tuned(results))
                    (machine(results))
                    (method(results))
                }
            }
        }
    };
    Ok(page.into_string())
}

/// What is missing, and which rounds others have disturbed.
fn partial(results: &Results) -> Markup {
    html! {
        @if results.interrupted {
            p.warning { "This run was interrupted: it holds what was measured until then." }
        }
        @if !results.failed.is_empty() {
            div.warning {
                "This report is partial. Rounds that failed again and again are missing:"
                ul { @for line in &results.failed { li { (line) } } }
            }
        }
        @if results.rounds.iter().any(|round| round.busy_with.is_some()) {
            p.warning { (BUSY) " marks what was measured while other processes used its cores." }
        }
    }
}

/// Which barewire it was.
fn build(results: &Results) -> String {
    let of = |name| results.machine.fact(name);
    let revision = of("revision").map(|revision| format!("revision {revision}"));
    let build = of("build").map(|build| format!("{build} build"));
    let parts = [of("barewire").map(str::to_owned), revision, build];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn summary(results: &Results) -> String {
    let machine = &results.machine;
    let of = |name| machine.fact(name).unwrap_or("unknown");
    let cores = results.site.server_cores.len();
    let place = if results.site.kind == "lab" {
        "two network namespaces of one machine joined by a veth pair"
    } else {
        "a network"
    };
    format!(
        "{} · Linux {} · {} driver · {cores} server core{} · {} rounds over {place}",
        of("model"),
        of("kernel"),
        of("driver"),
        if cores == 1 { "" } else { "s" },
        results.matrix.rounds,
    )
}

/// The summary: each server against the baseline, route by route.
fn headline(results: &Results) -> Markup {
    let connections = busiest(results);
    html! {
        div.scroll tabindex="0" role="region" aria-label="requests per second" { table {
            caption {
                "Requests per second at " (connections) " connections: median, and, where neither of the two was bound by \
                 the client, the ratio to " b { (results.matrix.baseline) } " round by round."
            }
            thead { tr {
                th { "server" }
                @for route in &results.matrix.routes { th.number { (route.name) } }
            } }
            tbody {
                @for server in &results.matrix.servers {
                    tr {
                        th { (server.name) }
                        @for route in &results.matrix.routes {
                            @let rate = results.spread(&server.name, &route.name, connections, RATE.of);
                            @let bound = results.bound(&server.name, &route.name, connections);
                            td.number {
                                @if let Some(rate) = rate {
                                    @if bound == Bound::Client { "≥ " }
                                    b { (number(rate.median, 0)) }
                                    @if results.is_comparable(&server.name, &route.name, connections)
                                        && let Some(ratio) = results.ratio(&server.name, &route.name, connections, RATE.of) {
                                        " × " (number(ratio.median, 2))
                                    }
                                    @if bound == Bound::Client { abbr title=(bound.words()) { " †" } }
                                    @if results.is_busy(&server.name, &route.name, connections) { " " (BUSY) }
                                    @if results.load_of(&server.name, &route.name, connections) == LoadName::Barewire {
                                        abbr title=(LoadName::Barewire.words()) { " ‡" }
                                    }
                                } @else { "–" }
                            }
                        }
                    }
                }
            }
        } }
        p.note { "† " (Bound::Client.words()) ": the load's cores were full, the server could have done more." }
        @if results.has_several_loads() {
            p.note { "‡ measured with " (LoadName::Barewire.words()) ". " (SEVERAL_LOADS) }
        }
    }
}

fn section(results: &Results, route: &Route) -> Result<Markup> {
    let charts = charts::of(results, route)?;
    Ok(html! {
        section id=(route.name) {
            h2 { (route.name) }
            p.note {
                code { (route.method) " " (route.path) }
                @if route.pipeline > 1 { ", " (route.pipeline) " requests in flight on each connection" }
                @if let Some(body) = &route.body { ", body " code { (body) } }
            }
            div.figures { @for chart in &charts { (figure(route, chart)) } }
            (fixed_rates(results, route))
            (details(results, route))
        }
    })
}

fn figure(route: &Route, chart: &Chart) -> Markup {
    let file = |kind: &str| format!("{}/{}.{kind}", charts::DIRECTORY, chart.name);
    html! {
        figure id=(chart.name) {
            figcaption { b { (chart.title) } " " (chart.caption) }
            div.wide { (PreEscaped(&chart.plot.wide)) }
            div.narrow { (PreEscaped(&chart.plot.narrow)) }
            ul.legend {
                @for (i, name) in chart.plot.legend.iter().enumerate() {
                    li style=(format!("--series: var(--s{})", i % plot::SERIES_COUNT)) { (name) }
                }
            }
            p.files {
                a href=(format!("#{}-table", route.name)) { "table" }
                @for kind in ["csv", "png", "svg"] { " · " a href=(file(kind)) { (kind.to_uppercase()) } }
            }
        }
    }
}

/// What a request takes at a rate that every server reaches, beside what it takes at each one's own limit.
fn fixed_rates(results: &Results, route: &Route) -> Markup {
    let shares = &results.matrix.fixed_rates;
    let has_any = results
        .rounds
        .iter()
        .any(|round| round.route == route.name && round.rate.is_some());
    let connections = results.matrix.connections[0];
    let latencies = [0, 2, 3, 4].map(|index| &LATENCIES[index]);
    html! {
        @if has_any {
            h3 id=(format!("{}-fixed", route.name)) { "At a fixed rate, " (connections) " connections" }
            p.note {
                "An open loop by barewire load: parts of the rate that the slowest of these servers reaches in the closed \
                 loop, the same for all, so that latencies can be compared. In the closed loop each server is asked as \
                 fast as it answers, and waits are those of its own queue."
            }
            div.scroll.wide-table tabindex="0" role="region" aria-label="latency at fixed rates" { table {
                thead { tr {
                    th { "server" } th { "loop" } th.number { "asked/s" } th.number { "answered/s" }
                    @for figure in latencies { th.number { (figure.name) br; (figure.unit) } }
                } }
                tbody { @for server in &results.matrix.servers {
                    @for &share in shares {
                        @let rounds: Vec<&Round> = results.at_rate(&server.name, &route.name, share).collect();
                        @if let Some(rate) = rounds.first().and_then(|round| round.rate) {
                            (latency_row(&server.name, &format!("open, {:.0} %", share * 100.0), Some(rate.per_s), &rounds, &latencies))
                        }
                    }
                    @let rounds = results.cell(&server.name, &route.name, connections);
                    @if !rounds.is_empty() {
                        (latency_row(&server.name, "closed", None, &rounds, &latencies))
                    }
                } }
            } }
        }
    }
}

fn latency_row(
    server: &str,
    name: &str,
    asked: Option<f64>,
    rounds: &[&Round],
    latencies: &[&Figure],
) -> Markup {
    let at = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(|round| of(round)));
    html! {
        tr {
            th { (server) }
            td { (name) }
            td.number { (asked.map_or("as fast as it can".to_owned(), |rate| number(rate, 0))) }
            td.number { (median(at(Round::rate))) }
            @for figure in latencies { td.number { (figure.show(at(figure.of))) } }
        }
    }
}

fn details(results: &Results, route: &Route) -> Markup {
    let columns: Vec<&Figure> = [&RATE, &SERVER_CORE, &BOTH_CORES]
        .into_iter()
        .chain(&LATENCIES)
        .collect();
    html! {
        details {
            summary { "All figures: median (least – greatest)" }
            p.note { "Charts: "
                a href=(format!("#{}-throughput", route.name)) { "throughput" } " · "
                a href=(format!("#{}-latency", route.name)) { "latency" } " · "
                a href=(format!("#{}-cpu", route.name)) { "CPU time" }
            }
            div.scroll.wide-table id=(format!("{}-table", route.name)) tabindex="0" role="region" aria-label="all figures" { table {
                thead { tr {
                    th { "server" } th.number { "connections" }
                    @for figure in &columns { th.number { (figure.name) @if !figure.unit.is_empty() { br; (figure.unit) } } }
                    th.number { "× " (results.matrix.baseline) }
                    th.number { "server busy" } th.number { "client busy" }
                    th { "bound" }
                    th.number { "switches/s" } th.number { "memory, MB" }
                    th.number { "polls in vain" } th.number { "wake-ups" br; "/1000 requests" } th.number { "link drops" }
                    th { "raw" }
                } }
                tbody {
                    @for server in &results.matrix.servers {
                        @for connections in results.connections() {
                            @let cell = results.cell(&server.name, &route.name, connections);
                            @if !cell.is_empty() {
                                @let at = |figure: &dyn Fn(&crate::results::Round) -> f64| {
                                    results.spread(&server.name, &route.name, connections, figure)
                                };
                                tr {
                                    th { (server.name)
                                        @if results.is_busy(&server.name, &route.name, connections) { " " (BUSY) }
                                    }
                                    td.number { (connections) }
                                    @for figure in &columns { td.number { (figure.show(at(&figure.of))) } }
                                    td.number { (ratio_of(results, &server.name, &route.name, connections)) }
                                    @for side in [Side::Server, Side::Client] {
                                        td.number { (percent(at(&|round| {
                                            round.usage.busy_share(side).unwrap_or(f64::NAN)
                                        }).map(|spread| spread.median))) }
                                    }
                                    td { (results.bound(&server.name, &route.name, connections).words()) }
                                    td.number { (median(at(&|round| {
                                        let switches = round.usage.server.switches_voluntary
                                            + round.usage.server.switches_involuntary;
                                        switches as f64 / f64::from(results.matrix.measure_s)
                                    }))) }
                                    td.number { (median(at(&|round| round.usage.server.resident_bytes as f64 / 1e6))) }
                                    td.number { (percent(at(&|round| {
                                        round.counted.idle_share().unwrap_or(f64::NAN)
                                    }).map(|spread| spread.median))) }
                                    td.number { (median(at(&crate::results::Round::wakeups_per_1000))) }
                                    td.number { (median(at(&crate::results::Round::link_drops))) }
                                    td { @for round in &cell {
                                        a href=(format!("raw/{}", round.raw_name())) { (round.round) } " "
                                    } }
                                }
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn not_tuned(results: &Results) -> Markup {
    html! {
        section {
            h2 { "What was not tuned" }
            ul { @for sentence in results.caveats() { li { (sentence) } } }
        }
    }
}

fn machine(results: &Results) -> Markup {
    let groups = ["cpu", "system", "network", "software"];
    html! {
        section {
            h2 { "The machine" }
            div { table.facts { tbody {
                @for group in groups {
                    @for fact in results.machine.facts.iter().filter(|fact| fact.group == group) {
                        tr { th { (fact.name) } td { (fact.value) } }
                    }
                }
            } } }
            @for (command, shown) in &results.machine.details {
                details { summary { code { (command) } } pre { (shown) } }
            }
        }
    }
}

fn method(results: &Results) -> Markup {
    let matrix = &results.matrix;
    html! {
        section {
            h2 { "How it was measured" }
            p {
                "The servers took turns: each of " (matrix.rounds) " rounds measured one after the other for "
                (matrix.measure_s) " s after " (matrix.warm_up_s)
                " s of warm-up, each started anew and checked for right answers before and after. "
                "A round with a single error, or with CPU time that belonged to neither side, does not count, unless it is \
                 marked: " (results.repeated.len()) " of them were repeated. A figure is called "
                (Bound::Server.words()) " when the server's cores were full and the load's were not."
            }
            h3 { "Commands" }
            dl {
                @for (name, command) in &results.commands {
                    dt { (name) } dd { code { (command) } }
                }
                dt { "load" } dd { code { (results.load_command) } }
            }
            @if !results.repeated.is_empty() {
                details { summary { "Repeated rounds" } ul { @for line in &results.repeated { li { (line) } } } }
            }
            p.note { "Every round is in " a href="results.json" { "results.json" } "; the load's own words are in " a href="raw/" { "raw" } "." }
        }
    }
}

fn percent(share: Option<f64>) -> String {
    match share {
        Some(share) if share.is_finite() => format!("{:.0} %", share * 100.0),
        _ => "–".to_owned(),
    }
}

fn median(spread: Option<crate::results::Spread>) -> String {
    match spread {
        Some(spread) if spread.median.is_finite() => number(spread.median, 0),
        _ => "–".to_owned(),
    }
}
