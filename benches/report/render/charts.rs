//! The charts of a report: which there are, and each as files of its own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use resvg::{tiny_skia, usvg};

use super::plot::{self, Plot};
use super::{busiest, write_whole};
use crate::matrix::Route;
use crate::results::Results;

/// The directory beside the page that charts are written to.
pub const DIRECTORY: &str = "charts";
/// Pixels of a PNG for each of a page's.
const SCALE: f32 = 2.0;

/// One chart of a route.
pub struct Chart {
    /// The name of its files, without what follows the dot, and of its place in the page.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What a reader has to know about it.
    pub caption: String,
    /// The picture.
    pub plot: Plot,
}

/// All charts of a route that have something to show.
pub fn of(results: &Results, route: &Route) -> Result<Vec<Chart>> {
    let connections = busiest(results);
    let name = &route.name;
    let mut charts = vec![
        chart(
            route,
            "throughput",
            "Throughput by connections",
            "Median of the rounds; bars from the least to the greatest.",
            plot::throughput(results, name)?,
        ),
        chart(
            route,
            "latency",
            &format!("Latency, closed loop, {connections} connections"),
            "Median of the rounds, as the load saw it while it asked as fast as it could. wrk \"corrects\" its \
             percentiles by its own mean.",
            plot::latency(results, name, connections)?,
        ),
    ];
    for &share in &results.matrix.fixed_rates {
        charts.push(chart(
            route,
            &format!("latency-{:.0}", share * 100.0),
            &format!("Latency at {:.0} % of the common limit", share * 100.0),
            "Median of the rounds; an open loop, the same rate for every server. Latency counts from when a request \
             was due, whether or not a connection was free.",
            plot::latency_at_rate(results, name, share)?,
        ));
    }
    charts.push(chart(
        route,
        "cpu",
        "CPU time per request",
        "All cores of both sides, so that nothing can be hidden on the other one. A server that polls keeps its cores \
         busy whether there is work or not.",
        plot::cpu(results, name, connections)?,
    ));
    charts.push(chart(
        route,
        "balance",
        "Balance",
        "How busy each of the server's cores was.",
        plot::balance(results, name, connections)?,
    ));
    charts.retain(|chart| !chart.plot.legend.is_empty());
    Ok(charts)
}

fn chart(route: &Route, name: &str, title: &str, caption: &str, plot: Plot) -> Chart {
    Chart {
        name: format!("{}-{name}", route.name),
        title: title.to_owned(),
        caption: caption.to_owned(),
        plot,
    }
}

/// Writes every chart as SVG, PNG and CSV below `directory`.
pub fn write(results: &Results, directory: &Path) -> Result<()> {
    let charts = directory.join(DIRECTORY);
    fs::create_dir_all(&charts).with_context(|| format!("cannot make {}", charts.display()))?;
    let options = with_fonts();
    for route in results.measured_routes() {
        for chart in of(results, route)? {
            let svg = chart.plot.file(&format!("{}: {}", route.name, chart.title));
            let png = raster(&svg, &options)
                .with_context(|| format!("{} cannot be drawn", chart.name))?;
            let path = |kind: &str| charts.join(format!("{}.{kind}", chart.name));
            write_whole(&path("svg"), svg.as_bytes())?;
            write_whole(&path("png"), &png)?;
            write_whole(&path("csv"), chart.plot.csv.as_bytes())?;
        }
    }
    Ok(())
}

/// With a font of this machine as sans-serif; without any, a PNG has no text.
fn with_fonts() -> usvg::Options<'static> {
    let mut options = usvg::Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_system_fonts();
    let families = || {
        fonts
            .faces()
            .flat_map(|face| &face.families)
            .map(|(name, _)| name)
    };
    let plain = |name: &&String| name.contains("Sans") && !name.contains("Mono");
    let chosen = families()
        .find(plain)
        .or_else(|| families().next())
        .cloned();
    if let Some(name) = chosen {
        fonts.set_sans_serif_family(name);
    }
    options
}

fn raster(svg: &str, options: &usvg::Options<'_>) -> Result<Vec<u8>> {
    let tree = usvg::Tree::from_str(svg, options)?;
    let size = tree.size();
    let (width, height) = (size.width() * SCALE, size.height() * SCALE);
    let mut pixels = tiny_skia::Pixmap::new(width as u32, height as u32)
        .ok_or_else(|| anyhow!("a picture of no size"))?;
    let scale = tiny_skia::Transform::from_scale(SCALE, SCALE);
    resvg::render(&tree, scale, &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}
