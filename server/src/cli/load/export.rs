//! Results for other programs: percentiles as HdrHistogram writes them, seconds as CSV.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use hdrhistogram::Histogram;

use barewire_load::window::SecondReport;

/// Steps per halving of the distance to 100 %, as HdrHistogram's own tools have them.
const TICKS_PER_HALF: u32 = 5;

/// Writes a file with what `fill` says.
pub fn write(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let written = File::create(path).map(BufWriter::new).and_then(|mut out| {
        fill(&mut out)?;
        out.flush()
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The percentile distribution of `latency_ns`, in microseconds: what HdrHistogram's `outputPercentileDistribution`
/// writes and its plotter reads.
pub fn percentiles(latency_ns: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for value in latency_ns.iter_quantiles(TICKS_PER_HALF) {
        count += value.count_since_last_iteration();
        let us = value.value_iterated_to() as f64 / 1e3;
        let quantile = value.quantile_iterated_to();
        write!(out, "{us:>12.3} {quantile:>14.12} {count:>10}")?;
        match quantile < 1.0 {
            true => writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?,
            false => writeln!(out)?,
        }
    }
    let us = |ns: f64| ns / 1e3;
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        us(latency_ns.mean()),
        us(latency_ns.stdev())
    )?;
    writeln!(
        out,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        us(latency_ns.max() as f64),
        latency_ns.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
        latency_ns.buckets(),
        latency_ns.distinct_values() / usize::from(latency_ns.buckets()).max(1)
    )
}

/// A line for each second.
pub fn seconds(seconds: &[SecondReport], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "second,responses,failures,p50_us,p99_us,max_us")?;
    for second in seconds {
        writeln!(
            out,
            "{},{},{},{:.3},{:.3},{:.3}",
            second.second,
            second.responses,
            second.failures,
            second.p50_us,
            second.p99_us,
            second.max_us
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_end_with_the_whole() {
        let mut latency_ns = Histogram::<u64>::new(3).unwrap();
        for us in 1..=1000 {
            latency_ns.record(us * 1000).unwrap();
        }
        let mut text = Vec::new();
        percentiles(&latency_ns, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let rows = text.lines().skip(2).filter(|line| !line.starts_with('#'));
        let rows: Vec<Vec<f64>> = rows
            .map(|row| {
                row.split_whitespace()
                    .map(|it| it.parse().unwrap())
                    .collect()
            })
            .collect();
        assert!(
            rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] < b[1] && a[2] <= b[2]),
            "{text}"
        );
        let half = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert!((half[0] - 500.0).abs() < 1.0 && half[3] == 2.0, "{text}");
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 1000.0, 3), "{text}");
        assert!(text.contains("Total count    =         1000"), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = write(Path::new("/dev/full"), |out| seconds(&[], out)).unwrap_err();
        assert!(format!("{error:#}").contains("/dev/full"), "{error:#}");
    }
}
