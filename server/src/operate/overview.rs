//! A [`Status`] for people: what `barewire status` prints and `barewire top` refreshes.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use super::status::{CoreRates, Pool, State, Status};

/// A server on one page.
#[derive(Debug)]
pub struct Overview<'a>(pub &'a Status);

impl Display for Overview<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        head(f, status)?;
        cores(f, status)?;
        origins(f, status)?;
        routes(f, status)?;
        pools(f, status)?;
        drops(f, status)
    }
}

fn head(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let server = &status.server;
    let state = match server.state {
        State::Serving => "serving",
        State::Draining => "draining",
        State::Stopping => "stopping",
    };
    writeln!(
        f,
        "barewire {} on {}, {state} for {}, process {}",
        server.version,
        server.stack,
        Age(Duration::from_secs_f64(server.uptime_s.max(0.0))),
        server.pid
    )?;
    let urls = server
        .addresses
        .iter()
        .map(|address| format!("http://{address}"));
    line(f, "address", &urls.collect::<Vec<_>>().join("  "))?;
    interface(f, status)?;

    let requests = &status.requests;
    let by_status = requests.by_status.iter();
    let by_status = by_status.map(|(code, count)| format!("{code}: {}", Grouped(*count)));
    counted(f, "requests", requests.total, by_status)?;
    let connections = &status.connections;
    let by_state = connections
        .by_state
        .iter()
        .filter(|(state, _)| *state != "open");
    let by_state = by_state.map(|(state, count)| format!("{state}: {}", Grouped(*count)));
    counted(f, "connections", connections.total, by_state)?;
    let stats = &status.stats;
    if stats.total_requests > 0 {
        let details = [
            format!("users: {}", Grouped(stats.unique_users)),
            format!("sum: {}", stats.sum),
            format!("avg: {}", stats.avg),
        ];
        counted(f, "events", stats.total_requests, details.into_iter())?;
    }
    fleet(f, status)?;
    let memory = [
        ("resident", status.memory.resident_bytes),
        ("huge pages", status.memory.huge_page_bytes),
        ("locked", status.memory.locked_bytes),
    ];
    let memory = memory
        .iter()
        .filter_map(|(name, bytes)| Some(format!("{name}: {}", Bytes((*bytes)?))));
    line(f, "memory", &memory.collect::<Vec<_>>().join("  "))
}

/// The link and its queues; the kernel's stacks have none.
fn interface(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let Some(group) = status
        .counters
        .iter()
        .find(|group| group.part == "interface")
    else {
        return Ok(());
    };
    let value = |name| group.values.get(name).copied().unwrap_or(0);
    let queues = value("rx_queues");
    let link = ["down", "up"][usize::from(value("link_up") > 0)];
    let mode = ["generic", "native"][usize::from(value("native_mode") > 0)];
    let text = format!(
        "{link}, {mode} mode, {} of {queues} queues served, {} of them zero-copy",
        queues.saturating_sub(value("rx_queues_unserved")),
        value("zero_copy_queues"),
    );
    line(f, "interface", &text)
}

/// What is known of the other servers; one that counts alone knows of none.
fn fleet(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let Some(group) = status.counters.iter().find(|group| group.part == "fleet") else {
        return Ok(());
    };
    let value = |name| group.values.get(name).copied().unwrap_or(0);
    let engine =
        ["engine does not answer", "engine answers"][value("engine_answers").min(1) as usize];
    let details = [
        format!("users: {}", Grouped(value("fleet_users"))),
        format!(
            "nodes: {} ({} silent)",
            value("nodes"),
            value("nodes_silent")
        ),
        format!("read: {} ms ago", value("age_ms")),
        format!("unpublished: {}", Grouped(value("events_unpublished"))),
        engine.to_owned(),
    ];
    counted(
        f,
        "fleet events",
        value("fleet_events"),
        details.into_iter(),
    )
}

/// What each core does. Without rates there is nothing to say.
fn cores(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let Some(rates) = &status.rates else {
        return Ok(());
    };
    let mut table = Table::new(&[
        "core",
        "CPU",
        "requests/s",
        "connections/s",
        "rx frames/s",
        "tx frames/s",
        "rx Mbit/s",
        "tx Mbit/s",
        "busy",
    ]);
    let mut row = |name: String, rates: &CoreRates| {
        let optional = |rate: Option<f64>| rate.map_or("-".into(), rate_text);
        table.row(vec![
            name,
            rates.cpu.map_or("-".into(), |cpu| cpu.to_string()),
            rate_text(rates.requests_per_s),
            rate_text(rates.connections_per_s),
            optional(rates.rx_frames_per_s),
            optional(rates.tx_frames_per_s),
            megabits(rates.rx_bytes_per_s),
            megabits(rates.tx_bytes_per_s),
            rates
                .busy
                .map_or("-".into(), |busy| format!("{:.0} %", busy * 100.0)),
        ]);
    };
    for core in &rates.cores {
        row(core.core.unwrap_or_default().to_string(), core);
    }
    if rates.cores.len() > 1 {
        row("all".into(), &rates.all);
    }
    writeln!(f, "\n{table}")
}

/// What each pool of origins does, over all cores. A core has its own view of which are usable.
fn origins(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let names = [
        "origins",
        "usable",
        "outstanding",
        "requests",
        "responses_5xx",
        "failed",
        "ejected",
    ];
    summed(f, status, "pool_", "pool of origins", &names)
}

/// What came by each route, over all cores.
fn routes(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let names = [
        "requests",
        "from_cache",
        "responses_4xx",
        "responses_5xx",
        "failed",
        "content_bytes",
    ];
    summed(f, status, "route_", "route", &names)
}

/// A row for each part whose name begins so, with the sums of these counters; `failed` stands for all that begin so.
fn summed(
    f: &mut fmt::Formatter<'_>,
    status: &Status,
    prefix: &str,
    title: &str,
    names: &[&str],
) -> fmt::Result {
    let mut parts: Vec<&str> = Vec::new();
    for group in &status.counters {
        if group.part.starts_with(prefix) && !parts.contains(&&*group.part) {
            parts.push(&group.part);
        }
    }
    if parts.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[&[title], names].concat());
    for part in parts {
        let groups = || status.counters.iter().filter(|group| group.part == part);
        let value = |name: &&str| {
            let values = groups().flat_map(|group| &group.values);
            let is_it =
                |each: &str| each == *name || *name == "failed" && each.starts_with("failed_");
            let sum = values
                .filter(|(each, _)| is_it(each))
                .map(|(_, value)| value)
                .sum();
            Grouped(sum).to_string()
        };
        let mut row = vec![part[prefix.len()..].to_owned()];
        row.extend(names.iter().map(value));
        table.row(row);
    }
    writeln!(f, "\n{table}")
}

/// Supplies, over all cores, with the core that has used most of its own.
fn pools(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let mut table = Table::new(&["pool", "in use", "of", "fullest core"]);
    let mut names: Vec<(&str, &str)> = Vec::new();
    for pool in &status.pools {
        if !names.contains(&(&pool.part, &pool.name)) {
            names.push((&pool.part, &pool.name));
        }
    }
    for (part, name) in names {
        let of_this = || {
            let pools = status.pools.iter();
            pools.filter(|pool| pool.part == part && pool.name == name)
        };
        let share = |pool: &Pool| pool.used as f64 / pool.max.max(1) as f64;
        let fullest = of_this().map(share).fold(0.0, f64::max);
        table.row(vec![
            format!("{part}.{name}"),
            Grouped(of_this().map(|pool| pool.used).sum()).to_string(),
            Grouped(of_this().map(|pool| pool.max).sum()).to_string(),
            format!("{:.1} %", fullest * 100.0),
        ]);
    }
    writeln!(f, "\n{table}")
}

/// What was dropped at all.
fn drops(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let mut dropped: Vec<_> = status.drops.iter().filter(|drop| drop.count > 0).collect();
    if dropped.is_empty() {
        return writeln!(f, "\nnothing was dropped or refused");
    }
    dropped.sort_by_key(|drop| std::cmp::Reverse(drop.count));
    let mut table = Table::new(&["dropped or refused", "times", ""]);
    for drop in dropped {
        table.row(vec![
            format!("{}.{}", drop.part, drop.name),
            Grouped(drop.count).to_string(),
            format!(" {}", drop.help),
        ]);
    }
    write!(f, "\n{table}")
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "{name:<12} {text}")
}

fn counted(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    count: u64,
    details: impl Iterator<Item = String>,
) -> fmt::Result {
    let details = details.collect::<Vec<_>>().join("  ");
    let text = format!("{:<13} {details}", Grouped(count).to_string());
    line(f, name, text.trim_end())
}

fn rate_text(per_s: f64) -> String {
    Grouped(per_s.round() as u64).to_string()
}

fn megabits(bytes_per_s: f64) -> String {
    format!("{:.1}", bytes_per_s * 8.0 / 1e6)
}

/// Columns, the first one to the left, the others to the right, the last text as it is.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(names: &[&str]) -> Self {
        Table {
            rows: vec![names.iter().map(ToString::to_string).collect()],
        }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut lines = Vec::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match (column, cell.starts_with(' ')) {
                    (0, _) => write!(line, "{cell:<width$}")?,
                    (_, true) => line.push_str(cell),
                    (_, false) => write!(line, "  {cell:>width$}")?,
                }
            }
            lines.push(line.trim_end().to_owned());
        }
        f.write_str(&lines.join("\n"))
    }
}

/// `1,234,567`.
struct Grouped(u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.char_indices() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// `1.5 MiB`.
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
        let unit = (self.0.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
        write!(
            f,
            "{:.*} {}",
            usize::from(unit > 0),
            self.0 as f64 / f64::powi(1024.0, unit as i32),
            UNITS[unit]
        )
    }
}

/// `3 d 4 h`, `2 min 5 s`: the two largest units.
struct Age(Duration);

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0.as_secs();
        match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
            (0, 0, 0, s) => write!(f, "{s} s"),
            (0, 0, min, s) => write!(f, "{min} min {s} s"),
            (0, h, min, _) => write!(f, "{h} h {min} min"),
            (d, h, ..) => write!(f, "{d} d {h} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(Grouped(number).to_string(), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (s, text) in [
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(Age(Duration::from_secs(s)).to_string(), text);
        }
    }
}
