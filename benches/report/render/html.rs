//! The page: one file, no script, no request to anywhere.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{BOTH_CORES, Figure, LATENCIES, RATE, SERVER_CORE, SEVERAL_LOADS, number, plot, ratio};
use crate::matrix::{LoadName, Route};
use crate::results::{Bound, Results};
use crate::usage::Side;

const CSS: &str = include_str!("report.css");

/// The whole of `report.html`.
pub fn report(results: &Results) -> Result<String> {
    let sections: Vec<Markup> = results
        .matrix
        .routes
        .iter()
        .filter(|route| results.rounds.iter().any(|round| round.route == route.name))
        .map(|route| section(results, route))
        .collect::<Result<_>>()?;
    let title = format!("barewire on {}, {}", results.host, day(&results.started));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(plot::CSS)) (PreEscaped(CSS)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.lead { (summary(results)) }
                    @if results.interrupted {
                        p.warning { "This run was interrupted: it holds what was measured until then." }
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

/// The first numbers that anybody wants: each server against the baseline, route by route.
fn headline(results: &Results) -> Markup {
    let connections = busiest(results);
    html! {
        div.scroll { table {
            caption {
                "Requests per second at " (connections) " connections: median, and the ratio to "
                b { (results.matrix.baseline) } " round by round."
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
                                    b { (number(rate.median, 0)) }
                                    @if let Some(ratio) = results.ratio(&server.name, &route.name, connections, RATE.of) {
                                        " × " (number(ratio.median, 2))
                                    }
                                    @if bound == Bound::Client { abbr title=(bound.words()) { " †" } }
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
    let connections = busiest(results);
    let figures = [
        (
            "Throughput by connections",
            "Median of the rounds; bars from the least to the greatest.",
            plot::throughput(results, &route.name)?,
        ),
        (
            "Latency",
            "Median of the rounds, as the load saw it while it asked as fast as it could. wrk \"corrects\" its \
             percentiles by its own mean.",
            plot::latency(results, &route.name, connections)?,
        ),
        (
            "CPU time per request",
            "All cores of both sides, so that nothing can be hidden on the other one. A server that polls \
             keeps its cores busy whether there is work or not.",
            plot::cpu(results, &route.name, connections)?,
        ),
        (
            "Balance",
            "How busy each of the server's cores was.",
            plot::balance(results, &route.name, connections)?,
        ),
    ];
    Ok(html! {
        section id=(route.name) {
            h2 { (route.name) }
            p.note {
                code { (route.method) " " (route.path) }
                @if route.pipeline > 1 { ", " (route.pipeline) " requests in flight on each connection" }
                @if let Some(body) = &route.body { ", body " code { (body) } }
            }
            div.figures {
                @for (title, caption, plot) in figures.iter().filter(|(_, _, plot)| !plot.legend.is_empty()) {
                    figure {
                        figcaption { b { (title) } " " (caption) }
                        (PreEscaped(&plot.svg))
                        ul.legend {
                            @for (i, name) in plot.legend.iter().enumerate() {
                                li style=(format!("--series: var(--s{})", i % plot::SERIES_COUNT)) { (name) }
                            }
                        }
                    }
                }
            }
            (details(results, route))
        }
    })
}

fn details(results: &Results, route: &Route) -> Markup {
    let columns: Vec<&Figure> = [&RATE, &SERVER_CORE, &BOTH_CORES]
        .into_iter()
        .chain(&LATENCIES)
        .collect();
    html! {
        details {
            summary { "All figures: median (least – greatest)" }
            div.scroll { table {
                thead { tr {
                    th { "server" } th.number { "connections" }
                    @for figure in &columns { th.number { (figure.name) @if !figure.unit.is_empty() { br; (figure.unit) } } }
                    th.number { "× " (results.matrix.baseline) }
                    th.number { "server busy" } th.number { "client busy" }
                    th { "bound" }
                    th.number { "switches/s" } th.number { "memory, MB" }
                    th.number { "polls in vain" } th.number { "wake-ups" br; "/1000 requests" } th.number { "link drops" }
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
                                    th { (server.name) } td.number { (connections) }
                                    @for figure in &columns { td.number { (figure.show(at(&figure.of))) } }
                                    td.number { (ratio(results.ratio(&server.name, &route.name, connections, RATE.of))) }
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
            div.scroll { table.facts { tbody {
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
                "A round with a single error, or with CPU time that belonged to neither side, does not count: "
                (results.repeated.len()) " of them were repeated. A figure is called "
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
            p.note { "Every round is in results.json; the load's own words are in the files beside it." }
        }
    }
}

/// The number of connections with the highest median of the baseline, over all routes.
pub fn busiest(results: &Results) -> u32 {
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
pub fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
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
