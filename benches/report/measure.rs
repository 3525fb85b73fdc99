//! The rounds: servers take turns, cell by cell, so that what changes on the machine changes for all.
//!
//! ```text
//!             ┌── others use the cores: wait, longer each time ──┐
//!   turn ─▶ attempt ──▶ a round ──▶ kept at once ──▶ next turn   │
//!             └── it failed: noted, tried again; then missing ◀──┘ at last: kept, and marked
//! ```
//!
//! Nothing that was measured is ever thrown away because something later failed.

use std::fmt;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt::{self, Interrupted};
use crate::load::{self, Loading};
use crate::matrix::{LoadName, Matrix, Route, Server};
use crate::probe;
use crate::results::{FixedRate, Results, Round, raw_name};
use crate::server::Running;
use crate::site::Site;
use crate::usage::Look;

/// How often a round is repeated because others use the cores, before it is taken as it is.
const BUSY_MAX: u32 = 5;
/// How often a round may fail before it is given up.
const FAILURES_MAX: u32 = 3;
/// How often a server may fail to start before a round is given up, and with it all like it.
const STARTS_MAX: u32 = 2;

/// Where a report is measured, and how patiently.
pub struct Bench<'a> {
    /// The machine, or the lab.
    pub site: &'a Site,
    /// Where raw output goes.
    pub logs: &'a Path,
    /// Takes rounds as they are also when others use the cores.
    pub allow_busy: bool,
}

/// Measures what `results` lacks. After each round `keep` is told, so that nothing is lost.
///
/// # Errors
///
/// If a signal asked to stop, or results cannot be written. A round that fails is in `results.failed`.
pub fn measure(
    bench: &Bench<'_>,
    results: &mut Results,
    keep: &dyn Fn(&Results) -> Result<()>,
) -> Result<()> {
    let matrix = results.matrix.clone();
    let progress = Progress::new(&matrix);
    for (route, connections, servers) in matrix.cells() {
        let closed = turns(&matrix, route, connections, &servers, &Pace::Closed);
        take_all(bench, &closed, results, &progress, keep)?;
        if connections != matrix.connections[0] || !route.is_always_the_same() {
            continue;
        }
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        let Some(limit) = results.common_limit(&names, &route.name, connections) else {
            continue;
        };
        for &share in &matrix.fixed_rates {
            let per_s = (share * limit).round().max(1.0);
            let pace = Pace::Fixed(FixedRate { share, per_s });
            let open = turns(&matrix, route, connections, &servers, &pace);
            take_all(bench, &open, results, &progress, keep)?;
        }
    }
    progress.0.finish_and_clear();
    Ok(())
}

/// The closed loop, or an open one.
enum Pace {
    Closed,
    Fixed(FixedRate),
}

struct Progress(ProgressBar);

impl Progress {
    fn new(matrix: &Matrix) -> Self {
        let turns = matrix.cells().map(|(route, connections, servers)| {
            let has_rates = connections == matrix.connections[0] && route.is_always_the_same();
            let rates = if has_rates {
                matrix.fixed_rates.len()
            } else {
                0
            };
            servers.len() * (matrix.loads(route).count() + rates)
        });
        let turns = turns.sum::<usize>() as u64 * u64::from(matrix.rounds);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left");
        Progress(
            ProgressBar::new(turns)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
        )
    }

    fn show(&self, turn: &Turn<'_>) {
        let (bar, name) = (&self.0, turn.name());
        if bar.is_hidden() {
            eprintln!(
                "[{}/{}] {name}",
                bar.position() + 1,
                bar.length().unwrap_or_default()
            );
        }
        bar.set_message(name);
    }

    fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("report: {line}"));
    }
}

fn turns<'a>(
    matrix: &'a Matrix,
    route: &'a Route,
    connections: u32,
    servers: &[&'a Server],
    pace: &Pace,
) -> Vec<Turn<'a>> {
    let mut turns = Vec::new();
    for round in 1..=matrix.rounds {
        for &server in servers {
            let turn = |load, rate| Turn {
                matrix,
                server,
                load,
                route,
                connections,
                round,
                rate,
            };
            match pace {
                Pace::Closed => turns.extend(matrix.loads(route).map(|load| turn(load, None))),
                Pace::Fixed(rate) => turns.push(turn(LoadName::Barewire, Some(*rate))),
            }
        }
    }
    turns
}

fn take_all(
    bench: &Bench<'_>,
    turns: &[Turn<'_>],
    results: &mut Results,
    progress: &Progress,
    keep: &dyn Fn(&Results) -> Result<()>,
) -> Result<()> {
    let mut hopeless: Vec<&str> = Vec::new();
    for turn in turns {
        let is_done = results.rounds.iter().any(|round| turn.is(round));
        if !is_done && !hopeless.contains(&turn.server.name.as_str()) {
            progress.show(turn);
            match turn.take(bench, results, progress)? {
                Taken::Round(round) => results.rounds.push(*round),
                Taken::Failed => {}
                Taken::NotStarted => hopeless.push(&turn.server.name),
            }
            keep(results)?;
        }
        progress.0.inc(1);
    }
    Ok(())
}

/// The server was not ready to be measured.
#[derive(Debug)]
struct NotStarted;

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was not ready to be measured")
    }
}

enum Taken {
    Round(Box<Round>),
    Failed,
    NotStarted,
}

struct Turn<'a> {
    matrix: &'a Matrix,
    server: &'a Server,
    load: LoadName,
    route: &'a Route,
    connections: u32,
    round: u32,
    rate: Option<FixedRate>,
}

impl Turn<'_> {
    fn name(&self) -> String {
        let rate = self
            .rate
            .map(|rate| format!(" · {} requests/s", rate.per_s));
        format!(
            "{} · {} · {} connections · round {} · {}{}",
            self.server.name,
            self.route.name,
            self.connections,
            self.round,
            self.load.words(),
            rate.unwrap_or_default()
        )
    }

    /// Whether `round` is what this turn is to measure.
    fn is(&self, round: &Round) -> bool {
        let share = |rate: Option<FixedRate>| rate.map(|rate| rate.share);
        round.server == self.server.name
            && round.route == self.route.name
            && round.connections == self.connections
            && round.round == self.round
            && round.load.by == self.load
            && share(round.rate) == share(self.rate)
    }

    fn take(&self, bench: &Bench<'_>, results: &mut Results, progress: &Progress) -> Result<Taken> {
        let allowed_s = self.matrix.foreign_share_max * f64::from(self.matrix.measure_s);
        let (mut busy, mut failures) = (0, 0);
        loop {
            match self.attempt(bench) {
                Ok(round) if round.usage.foreign_s <= allowed_s => {
                    return Ok(Taken::Round(Box::new(round)));
                }
                Ok(mut round) => {
                    let who = round.usage.who();
                    let name = self.name();
                    if bench.allow_busy || busy == BUSY_MAX {
                        progress.say(&format!(
                            "{name}: kept and marked, as others used its cores: {who}"
                        ));
                        round.busy_with = Some(who);
                        return Ok(Taken::Round(Box::new(round)));
                    }
                    busy += 1;
                    let wait_s = 1u64 << busy;
                    let line = format!("{name}: others used its cores: {who}");
                    progress.say(&format!("{line}; trying again in {wait_s} s"));
                    results.repeated.push(line);
                    wait(Duration::from_secs(wait_s))?;
                }
                Err(error) if must_end(&error) => return Err(error.context(self.name())),
                Err(error) => {
                    failures += 1;
                    let line = format!("{}: {error:#}", self.name());
                    progress.say(&line);
                    let is_start = error.is::<NotStarted>();
                    let attempts_max = match is_start {
                        // Most likely a mistake in the matrix.
                        true if results.rounds.is_empty() => 1,
                        true => STARTS_MAX,
                        false => FAILURES_MAX,
                    };
                    if failures >= attempts_max {
                        results.failed.push(line);
                        return Ok(if is_start {
                            Taken::NotStarted
                        } else {
                            Taken::Failed
                        });
                    }
                    results.repeated.push(line);
                }
            }
        }
    }

    fn attempt(&self, bench: &Bench<'_>) -> Result<Round> {
        let Bench { site, logs, .. } = *bench;
        let (record, measure_s) = (&site.record, self.matrix.measure_s);
        let mut server = Running::start(self.server, self.route, site, logs).context(NotStarted)?;
        if self.matrix.warm_up_s > 0 {
            self.run_load(site, self.matrix.warm_up_s, &logs.join("warm-up.txt"))?;
        }
        let raw = logs.join(raw_name(
            &self.server.name,
            &self.route.name,
            self.connections,
            self.round,
            self.load,
            self.rate,
        ));
        let before = Look::take(&record.server_cores, &record.client_cores)?;
        let load = self
            .start_load(site, measure_s)?
            .finish(limit(measure_s), &raw)
            .and_then(|load| load.ensure_clean().map(|()| load));
        let after = Look::take(&record.server_cores, &record.client_cores)?;
        // A dead server explains errors of the load better than the load does.
        server.ensure_alive()?;
        let load = load?;
        for machine in &site.load_machines {
            probe::check(machine, self.route, &site.url(self.route)).context("after the load")?;
        }
        let usage = after.since(&before, server.pid());
        Ok(Round {
            server: self.server.name.clone(),
            route: self.route.name.clone(),
            connections: self.connections,
            round: self.round,
            load,
            usage,
            counted: server.stop()?,
            rate: self.rate,
            busy_with: None,
        })
    }

    fn start_load(&self, site: &Site, seconds: u32) -> Result<Loading> {
        let rate_per_s = self.rate.map(|rate| rate.per_s);
        load::start(
            site,
            self.load,
            self.route,
            self.connections,
            seconds,
            rate_per_s,
        )
    }

    fn run_load(&self, site: &Site, seconds: u32, raw: &Path) -> Result<()> {
        interrupt::check()?;
        self.start_load(site, seconds)?
            .finish(limit(seconds), raw)?
            .ensure_clean()
            .context("while warming up")
    }
}

/// Whether trying again is of no use.
fn must_end(error: &Error) -> bool {
    error.chain().any(|cause| {
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        cause.is::<Interrupted>() || cause.downcast_ref().is_some_and(is_full)
    })
}

/// Waits, unless a signal asks to stop.
fn wait(time: Duration) -> Result<(), Interrupted> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        interrupt::check()?;
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn limit(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds) + 15)
}
