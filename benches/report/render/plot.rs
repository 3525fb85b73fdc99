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

/// How large a picture is, in CSS pixels. A page shows the one or the other, so that text is never scaled down.
#[derive(Clone, Copy)]
struct Shape {
    width: u32,
    height: u32,
    /// Left of the y axis.
    margin: u32,
    text: f64,
}

const WIDE: Shape = Shape {
    width: 600,
    height: 300,
    margin: 78,
    text: 15.0,
};
const NARROW: Shape = Shape {
    width: 340,
    height: 280,
    margin: 66,
    text: 13.0,
};

/// Up to so many numbers of connections are bars side by side; a line needs more points.
const BARS_MAX: usize = 3;

/// Colours of ink, of faint lines and of the series, on light and on dark paper.
const LIGHT: [&str; 2 + SERIES_COUNT] = [
    "#1b1f24", "#d5dae1", "#0b6bcb", "#d1621b", "#1a8f5a", "#8a4fc9", "#b8336a", "#6f7d12",
    "#4d6b7c", "#a07800",
];
const DARK: [&str; 2 + SERIES_COUNT] = [
    "#e4e8ee", "#3a424d", "#5aa9f5", "#f2955a", "#4fcf95", "#b98af0", "#ef7aa9", "#b5c452",
    "#90b2c6", "#e0b93f",
];

/// The CSS variable of each of those colours.
fn variables() -> impl Iterator<Item = String> {
    let series = (0..SERIES_COUNT).map(|i| format!("--s{i}"));
    ["--ink", "--faint"]
        .map(str::to_owned)
        .into_iter()
        .chain(series)
}

/// The CSS that gives the variables their colours.
pub fn css() -> String {
    let set = |colors: [&str; 2 + SERIES_COUNT]| {
        let set = variables()
            .zip(colors)
            .map(|(name, color)| format!("{name}:{color};"));
        set.collect::<String>()
    };
    format!(
        ":root{{{}}} @media (prefers-color-scheme: dark){{:root{{{}}}}} \
         @media print{{:root{{--ink:#000;--faint:#ccc;}}}}",
        set(LIGHT),
        set(DARK)
    )
}

/// A picture and what its colours mean.
pub struct Plot {
    /// The SVG element, for wide and for narrow pages.
    pub wide: String,
    /// The same for a page as narrow as a telephone.
    pub narrow: String,
    /// The name of each series, in the order of the CSS variables `--s0`, `--s1`, …
    pub legend: Vec<String>,
    /// What is drawn, as CSV.
    pub csv: String,
}

impl Plot {
    fn new(
        legend: Vec<String>,
        csv: String,
        paint: impl Fn(&Root<'_>, Shape) -> Painted,
    ) -> Result<Plot> {
        Ok(Plot {
            wide: draw(WIDE, &paint)?,
            narrow: draw(NARROW, &paint)?,
            legend,
            csv,
        })
    }

    /// A file of its own: on white, with its colours and its legend.
    pub fn file(&self, title: &str) -> String {
        const LINE: u32 = 22;
        let (width, height) = (WIDE.width, WIDE.height + 3 * LINE);
        let mut legend = String::new();
        let mut x = 16;
        for (i, name) in self.legend.iter().enumerate() {
            let y = WIDE.height + LINE + 14;
            let name = name.replace('&', "&amp;").replace('<', "&lt;");
            legend += &format!(
                "<rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\" fill=\"var(--s{})\"/>\
                 <text x=\"{}\" y=\"{y}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"var(--ink)\">{name}</text>",
                y - 10,
                i % SERIES_COUNT,
                x + 16
            );
            x += 30 + 7 * name.chars().count() as u32;
        }
        let title = title.replace('&', "&amp;").replace('<', "&lt;");
        let inner = self.wide.replacen(
            "<svg ",
            &format!(
                "<svg y=\"{LINE}\" width=\"{width}\" height=\"{}\" ",
                WIDE.height
            ),
            1,
        );
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
             <text x=\"16\" y=\"20\" font-family=\"sans-serif\" font-size=\"15\" font-weight=\"bold\" \
             fill=\"var(--ink)\">{title}</text>{inner}{legend}</svg>"
        );
        variables().zip(LIGHT).fold(svg, |svg, (name, color)| {
            svg.replace(&format!("var({name})"), color)
        })
    }
}

/// Rows of CSV below `header`; names have neither commas nor quotes.
fn csv(header: &str, rows: impl IntoIterator<Item = String>) -> String {
    let rows: Vec<String> = rows.into_iter().collect();
    format!("{header}\n{}\n", rows.join("\n"))
}

/// Requests per second by connections: a line each server, or bars where that would be a line of few points; from
/// least to greatest.
pub fn throughput(results: &Results, route: &str) -> Result<Plot> {
    const GROUP: f64 = 0.8;
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
    let is_bars = connections.len() <= BARS_MAX;
    let bar = GROUP / lines.len().max(1) as f64;
    let paint = |root: &Root<'_>, shape: Shape| {
        let last = (connections.len() - 1) as f64;
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(shape.margin)
            .build_cartesian_2d(-0.5..last + 0.5, 0.0..top * 1.08)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(text(shape))
            .x_labels(connections.len() * 2 + 1)
            .x_label_formatter(&|x: &f64| label_at(*x, &connections))
            .y_label_formatter(&|y: &f64| thousands(*y))
            .x_desc("connections")
            .y_desc("requests/s")
            .draw()?;
        for (i, (_, points)) in lines.iter().enumerate() {
            let color = SERIES[i % SERIES.len()];
            let place = |x: f64| match is_bars {
                true => x - GROUP / 2.0 + (i as f64 + 0.5) * bar,
                false => x,
            };
            let ink = match is_bars {
                true => {
                    chart.draw_series(points.iter().map(|(x, spread)| {
                        let (from, to) = (place(*x) - 0.45 * bar, place(*x) + 0.45 * bar);
                        Rectangle::new([(from, 0.0), (to, spread.median)], color.filled())
                    }))?;
                    INK
                }
                false => {
                    chart.draw_series(LineSeries::new(
                        points.iter().map(|(x, spread)| (*x, spread.median)),
                        color.stroke_width(3),
                    ))?;
                    color
                }
            };
            chart.draw_series(points.iter().map(|(x, spread)| {
                let Spread { min, median, max } = *spread;
                ErrorBar::new_vertical(place(*x), min, median, max, ink.filled(), 7)
            }))?;
        }
        Ok(())
    };
    let mut rows = Vec::new();
    for (server, points) in &lines {
        for (i, spread) in points {
            let (connections, Spread { min, median, max }) = (connections[*i as usize], spread);
            rows.push(format!(
                "{server},{connections},{median:.1},{min:.1},{max:.1}"
            ));
        }
    }
    let table = csv(
        "server,connections,median_per_s,least_per_s,greatest_per_s",
        rows,
    );
    let legend = lines.iter().map(|(name, _)| name.clone()).collect();
    Plot::new(legend, table, paint)
}

/// Latency percentiles in the closed loop, on a logarithmic scale, a line each server.
pub fn latency(results: &Results, route: &str, connections: u32) -> Result<Plot> {
    percentiles(servers(results, route).into_iter().filter_map(|server| {
        let of = |figure: &super::Figure| results.spread(&server, route, connections, figure.of);
        Some((server.clone(), medians(of)?))
    }))
}

/// The same in an open loop, at `share` of the rate that all servers reach.
pub fn latency_at_rate(results: &Results, route: &str, share: f64) -> Result<Plot> {
    percentiles(servers(results, route).into_iter().filter_map(|server| {
        let of = |figure: &super::Figure| {
            Spread::of(results.at_rate(&server, route, share).map(figure.of))
        };
        Some((server.clone(), medians(of)?))
    }))
}

/// The median of each percentile, in microseconds; `None` if one was not measured.
fn medians(of: impl Fn(&super::Figure) -> Option<Spread>) -> Option<Vec<f64>> {
    let medians = super::LATENCIES
        .iter()
        .map(|figure| Some(of(figure)?.median.max(1.0)));
    medians.collect()
}

fn percentiles(lines: impl Iterator<Item = (String, Vec<f64>)>) -> Result<Plot> {
    let lines: Vec<(String, Vec<f64>)> = lines.collect();
    let percentiles = super::LATENCIES.map(|figure| figure.name);
    let values = || lines.iter().flat_map(|(_, values)| values.iter().copied());
    let (bottom, top) = (
        values().fold(f64::MAX, f64::min) * 0.7,
        values().fold(1.0, f64::max) * 1.4,
    );
    let paint = |root: &Root<'_>, shape: Shape| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(shape.margin)
            .build_cartesian_2d(-0.3..4.3, (bottom.min(top / 2.0)..top).log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(text(shape))
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
    };
    let rows = lines.iter().map(|(server, values)| {
        let values = values.iter().map(|value| format!(",{value:.1}"));
        format!("{server}{}", values.collect::<String>())
    });
    let header = percentiles.map(|name| format!(",{name}_us")).concat();
    let table = csv(&format!("server{header}"), rows);
    let legend = lines.iter().map(|(name, _)| name.clone()).collect();
    Plot::new(legend, table, paint)
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
    let paint = |root: &Root<'_>, shape: Shape| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(shape.margin)
            .build_cartesian_2d(-0.5..servers.len() as f64 - 0.5, 0.0..top * 1.08)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(text(shape))
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
    };
    let rows = servers.iter().zip(stacks).map(|(server, stack)| {
        let values = stack.iter().map(|value| format!(",{value:.4}"));
        format!("{server}{}", values.collect::<String>())
    });
    let header: String = parts
        .iter()
        .map(|part| format!(",{}", part.replace(' ', "_")))
        .collect();
    let table = csv(&format!("server{header}"), rows);
    let legend = match servers.is_empty() {
        true => Vec::new(),
        false => parts.iter().map(|&part| part.to_owned()).collect(),
    };
    Plot::new(legend, table, paint)
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
type Painted = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(shape: Shape, paint: impl Fn(&Root<'_>, Shape) -> Painted) -> Result<String> {
    let mut svg = String::new();
    {
        let size = (shape.width, shape.height);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&root, shape).map_err(|error| anyhow!("a plot cannot be drawn: {error}"))?;
        root.present()
            .map_err(|error| anyhow!("a plot cannot be drawn: {error}"))?;
    }
    Ok(themed(&svg, shape))
}

/// Colours become variables, and the size becomes the page's.
fn themed(svg: &str, shape: Shape) -> String {
    let ours = [INK, FAINT].into_iter().chain(SERIES);
    let svg = ours
        .zip(variables())
        .fold(svg.to_owned(), |svg, (color, variable)| {
            let RGBColor(red, green, blue) = color;
            svg.replace(
                &format!("#{red:02X}{green:02X}{blue:02X}"),
                &format!("var({variable})"),
            )
        });
    let size = format!("width=\"{}\" height=\"{}\" ", shape.width, shape.height);
    svg.replacen(&size, "role=\"img\" ", 1)
}

fn text(shape: Shape) -> TextStyle<'static> {
    ("sans-serif", shape.text).into_font().color(&INK)
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
