//! The plots, as inline SVG.
//!
//! plotters writes colours as numbers; each of ours stands for a CSS variable and is replaced by it
//! at the end, so that one picture is right in a dark and in a light page.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::results::{Results, Round, Spread};
use crate::usage::{Core, Side};

const INK: RGBColor = RGBColor(1, 1, 1);
const FAINT: RGBColor = RGBColor(2, 2, 2);
/// How many series have a colour of their own.
pub const SERIES_COUNT: usize = 8;
/// One colour a series, told apart also by people who see few colours.
const SERIES: [RGBColor; SERIES_COUNT] = [
    RGBColor(3, 0, 0),
    RGBColor(3, 0, 1),
    RGBColor(3, 0, 2),
    RGBColor(3, 0, 3),
    RGBColor(3, 0, 4),
    RGBColor(3, 0, 5),
    RGBColor(3, 0, 6),
    RGBColor(3, 0, 7),
];

const WIDTH: u32 = 600;
const HEIGHT: u32 = 300;

/// The CSS that gives the variables their colours.
pub const CSS: &str = "
:root { --ink: #1b1f24; --faint: #d5dae1;
  --s0: #0b6bcb; --s1: #d1621b; --s2: #1a8f5a; --s3: #8a4fc9; --s4: #b8336a; --s5: #6f7d12; --s6: #4d6b7c; --s7: #a07800; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --faint: #3a424d;
  --s0: #5aa9f5; --s1: #f2955a; --s2: #4fcf95; --s3: #b98af0; --s4: #ef7aa9; --s5: #b5c452; --s6: #90b2c6; --s7: #e0b93f; } }
@media print { :root { --ink: #000; --faint: #ccc; } }
";

/// A picture and what its colours mean.
pub struct Plot {
    /// The SVG element.
    pub svg: String,
    /// The name of each series, in the order of the CSS variables `--s0`, `--s1`, …
    pub legend: Vec<String>,
}

/// Requests per second against connections, a line each server, bars from least to greatest.
pub fn throughput(results: &Results, route: &str) -> Result<Plot> {
    let connections = results.connections();
    let lines: Vec<(String, Vec<(f64, Spread)>)> = servers(results, route)
        .into_iter()
        .map(|server| {
            let points = connections
                .iter()
                .enumerate()
                .filter_map(|(i, &connections)| {
                    let spread = results.spread(&server, route, connections, Round::rate)?;
                    Some((i as f64, spread))
                })
                .collect();
            (server, points)
        })
        .collect();
    let top = lines
        .iter()
        .flat_map(|(_, points)| points)
        .fold(1.0, |top, (_, spread)| f64::max(top, spread.max));
    let svg = draw(|root| {
        let last = (connections.len() - 1) as f64;
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(78)
            .build_cartesian_2d(-0.5..last + 0.5, 0.0..top * 1.08)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(text())
            .x_labels(connections.len() * 2 + 1)
            .x_label_formatter(&|x: &f64| label_at(*x, &connections))
            .y_label_formatter(&|y: &f64| thousands(*y))
            .x_desc("connections")
            .y_desc("requests/s")
            .draw()?;
        for (i, (_, points)) in lines.iter().enumerate() {
            let color = SERIES[i % SERIES.len()];
            chart.draw_series(LineSeries::new(
                points.iter().map(|(x, spread)| (*x, spread.median)),
                color.stroke_width(3),
            ))?;
            chart.draw_series(points.iter().map(|(x, spread)| {
                ErrorBar::new_vertical(*x, spread.min, spread.median, spread.max, color.filled(), 9)
            }))?;
        }
        Ok(())
    })?;
    let legend = lines.into_iter().map(|(name, _)| name).collect();
    Ok(Plot { svg, legend })
}

/// Latency percentiles, on a logarithmic scale, a line each server.
pub fn latency(results: &Results, route: &str, connections: u32) -> Result<Plot> {
    let lines: Vec<(String, Vec<f64>)> = servers(results, route)
        .into_iter()
        .filter_map(|server| {
            let values = super::LATENCIES
                .iter()
                .map(|figure| {
                    let spread = results.spread(&server, route, connections, figure.of)?;
                    Some(spread.median.max(1.0))
                })
                .collect::<Option<_>>()?;
            Some((server, values))
        })
        .collect();
    let percentiles = super::LATENCIES.map(|figure| figure.name);
    let values = || lines.iter().flat_map(|(_, values)| values.iter().copied());
    let (bottom, top) = (
        values().fold(f64::MAX, f64::min) * 0.7,
        values().fold(1.0, f64::max) * 1.4,
    );
    let svg = draw(|root| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(78)
            .build_cartesian_2d(-0.3..4.3, (bottom.min(top / 2.0)..top).log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(text())
            .x_labels(10)
            .x_label_formatter(&|x: &f64| label_at(*x, &percentiles))
            .y_label_formatter(&|y: &f64| microseconds(*y))
            .y_desc("latency")
            .draw()?;
        for (i, (_, values)) in lines.iter().enumerate() {
            let color = SERIES[i % SERIES.len()];
            let points = || values.iter().enumerate().map(|(x, &y)| (x as f64, y));
            chart.draw_series(LineSeries::new(points(), color.stroke_width(3)))?;
            chart.draw_series(points().map(|point| Circle::new(point, 4, color.filled())))?;
        }
        Ok(())
    })?;
    let legend = lines.into_iter().map(|(name, _)| name).collect();
    Ok(Plot { svg, legend })
}

/// Where the time of the server's cores and of the load's cores went, per request, stacked.
pub fn cpu(results: &Results, route: &str, connections: u32) -> Result<Plot> {
    type Part = (&'static str, fn(&Core) -> f64, Side);
    const PARTS: [Part; 6] = [
        ("server user", |core| core.user_s, Side::Server),
        ("server system", |core| core.system_s, Side::Server),
        ("server softirq", |core| core.softirq_s, Side::Server),
        ("client user", |core| core.user_s, Side::Client),
        ("client system", |core| core.system_s, Side::Client),
        ("client softirq", |core| core.softirq_s, Side::Client),
    ];
    let servers = servers(results, route);
    let stacks: Vec<Vec<f64>> = servers
        .iter()
        .map(|server| {
            PARTS
                .iter()
                .map(|(_, seconds, side)| {
                    let per_request = |round: &Round| {
                        let sum: f64 = round.usage.side(*side).map(seconds).sum();
                        sum * 1e6 / round.load.requests as f64
                    };
                    let spread = results.spread(server, route, connections, per_request);
                    spread.map_or(0.0, |spread| spread.median)
                })
                .collect()
        })
        .collect();
    let names: Vec<&str> = PARTS.iter().map(|(name, ..)| *name).collect();
    stacked(&servers, &names, &stacks, "µs per request")
}

/// How busy each core of the server was.
pub fn balance(results: &Results, route: &str, connections: u32) -> Result<Plot> {
    let servers = servers(results, route);
    let cores = &results.site.server_cores;
    let names: Vec<String> = cores.iter().map(|core| format!("core {core}")).collect();
    let shares: Vec<Vec<f64>> = servers
        .iter()
        .map(|server| {
            cores
                .iter()
                .map(|&number| {
                    let share = |round: &Round| {
                        let core = round.usage.cores.iter().find(|core| core.core == number);
                        core.map_or(0.0, Core::busy_share) * 100.0
                    };
                    let spread = results.spread(server, route, connections, share);
                    spread.map_or(0.0, |spread| spread.median)
                })
                .collect()
        })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stacked(&servers, &names, &shares, "busy, % of one core")
}

fn stacked(servers: &[String], parts: &[&str], stacks: &[Vec<f64>], unit: &str) -> Result<Plot> {
    const HALF_BAR: f64 = 0.3;
    let top = stacks
        .iter()
        .map(|stack| stack.iter().sum())
        .fold(0.01, f64::max);
    let svg = draw(|root| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(78)
            .build_cartesian_2d(-0.5..servers.len() as f64 - 0.5, 0.0..top * 1.08)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(text())
            .x_labels(servers.len() * 2 + 1)
            .x_label_formatter(&|x: &f64| label_at(*x, servers))
            .y_label_formatter(&|y: &f64| super::number(*y, usize::from(top < 10.0)))
            .y_desc(unit)
            .draw()?;
        for part in 0..parts.len() {
            let color = SERIES[part % SERIES.len()];
            chart.draw_series(stacks.iter().enumerate().map(|(server, stack)| {
                let (x, below) = (server as f64, stack[..part].iter().sum::<f64>());
                let corners = [(x - HALF_BAR, below), (x + HALF_BAR, below + stack[part])];
                Rectangle::new(corners, color.filled())
            }))?;
        }
        Ok(())
    })?;
    let legend = parts.iter().map(|&part| part.to_owned()).collect();
    Ok(Plot { svg, legend })
}

/// The servers that were measured on a route, in the order of the matrix.
fn servers(results: &Results, route: &str) -> Vec<String> {
    results
        .matrix
        .servers
        .iter()
        .map(|server| server.name.clone())
        .filter(|name| {
            let mut rounds = results.rounds.iter();
            rounds.any(|round| round.server == *name && round.route == route)
        })
        .collect()
}

type Root<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(
    paint: impl FnOnce(&Root<'_>) -> std::result::Result<(), Box<dyn std::error::Error>>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        paint(&root).map_err(|error| anyhow!("a plot cannot be drawn: {error}"))?;
        root.present()
            .map_err(|error| anyhow!("a plot cannot be drawn: {error}"))?;
    }
    Ok(themed(&svg))
}

/// Colours become variables, and the size becomes the page's.
fn themed(svg: &str) -> String {
    let mut svg = svg.to_owned();
    let variables = SERIES
        .iter()
        .enumerate()
        .map(|(i, color)| (*color, format!("var(--s{i})")));
    let ink = [
        (INK, "var(--ink)".to_owned()),
        (FAINT, "var(--faint)".to_owned()),
    ];
    for (RGBColor(red, green, blue), variable) in variables.chain(ink) {
        svg = svg.replace(&format!("#{red:02X}{green:02X}{blue:02X}"), &variable);
    }
    let size = format!("width=\"{WIDTH}\" height=\"{HEIGHT}\" ");
    svg.replacen(&size, "role=\"img\" ", 1)
}

fn text() -> TextStyle<'static> {
    ("sans-serif", 15).into_font().color(&INK)
}

/// The category that stands at `x`, if one does.
fn label_at<T: ToString>(x: f64, categories: &[T]) -> String {
    let is_whole = (x - x.round()).abs() < 1e-6 && x > -0.5;
    let category = is_whole.then(|| categories.get(x.round() as usize));
    category.flatten().map_or(String::new(), T::to_string)
}

fn thousands(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.1} M", value / 1e6)
    } else if value >= 1e3 {
        format!("{:.0} k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

/// Of each decade of a logarithmic axis only 1, 2 and 5 are named.
fn microseconds(value: f64) -> String {
    let leading = value / 10f64.powf(value.log10().floor());
    if ![1.0, 2.0, 5.0]
        .iter()
        .any(|named| (leading - named).abs() < 1e-6)
    {
        return String::new();
    }
    if value >= 1e3 {
        format!("{} ms", value / 1e3)
    } else {
        format!("{value} µs")
    }
}
