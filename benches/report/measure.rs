//! The rounds: servers take turns, cell by cell, so that what changes on the machine changes for all.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt;
use crate::load::{self, Loading};
use crate::matrix::{LoadName, Matrix, Route, Server};
use crate::results::Round;
use crate::server::Running;
use crate::site::Site;
use crate::usage::Look;

/// How often a round is repeated for that reason before the report gives up.
const REPEATS_MAX: u32 = 5;

/// What came out so far; complete or not.
#[derive(Default)]
pub struct Measured {
    /// Every round that counts.
    pub rounds: Vec<Round>,
    /// Every round that was repeated, and why.
    pub repeated: Vec<String>,
}

/// Measures the whole matrix into `measured`, which keeps what there is when it fails.
pub fn measure(matrix: &Matrix, site: &Site, logs: &Path, measured: &mut Measured) -> Result<()> {
    let turns: u64 = matrix
        .cells()
        .map(|(route, _, servers)| servers.len() as u64 * matrix.loads(route).count() as u64)
        .sum::<u64>()
        * u64::from(matrix.rounds);
    let progress = ProgressBar::new(turns).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    for (route, connections, servers) in matrix.cells() {
        for round in 1..=matrix.rounds {
            let loads = |&server| matrix.loads(route).map(move |load| (server, load));
            for (server, load) in servers.iter().flat_map(loads) {
                let turn = Turn {
                    server,
                    load,
                    route,
                    connections,
                    round,
                };
                progress.set_message(turn.name());
                if progress.is_hidden() {
                    eprintln!("[{}/{turns}] {}", progress.position() + 1, turn.name());
                }
                let done = turn
                    .run(matrix, site, logs, &mut measured.repeated)
                    .with_context(|| turn.name())?;
                measured.rounds.push(done);
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(())
}

struct Turn<'a> {
    server: &'a Server,
    load: LoadName,
    route: &'a Route,
    connections: u32,
    round: u32,
}

impl Turn<'_> {
    fn name(&self) -> String {
        format!(
            "{} · {} · {} connections · round {} · {}",
            self.server.name,
            self.route.name,
            self.connections,
            self.round,
            self.load.words()
        )
    }

    fn run(
        &self,
        matrix: &Matrix,
        site: &Site,
        logs: &Path,
        repeated: &mut Vec<String>,
    ) -> Result<Round> {
        for _ in 0..REPEATS_MAX {
            let round = self.attempt(matrix, site, logs)?;
            let allowed = matrix.foreign_share_max * f64::from(matrix.measure_s);
            if round.usage.foreign_s <= allowed {
                return Ok(round);
            }
            repeated.push(format!(
                "{}: {:.2} s of CPU time belonged to neither side",
                self.name(),
                round.usage.foreign_s
            ));
        }
        bail!(
            "other processes use the cores of this measurement: {REPEATS_MAX} rounds in a row had more than {:.0} % of \
             a core of foreign work; end them, or choose other cores",
            matrix.foreign_share_max * 100.0
        );
    }

    fn attempt(&self, matrix: &Matrix, site: &Site, logs: &Path) -> Result<Round> {
        let record = &site.record;
        let mut server = Running::start(self.server, self.route, site, logs)?;
        if matrix.warm_up_s > 0 {
            self.run_load(site, matrix.warm_up_s, &logs.join("warm-up.txt"))?;
        }
        let by = match self.load {
            LoadName::Wrk => "",
            LoadName::Barewire => "-barewire",
        };
        let raw = logs.join(format!(
            "{}-{}-{}-{}{by}.txt",
            self.server.name, self.route.name, self.connections, self.round
        ));
        let before = Look::take(&record.server_cores, &record.client_cores)?;
        let load = self
            .start_load(site, matrix.measure_s)?
            .finish(limit(matrix.measure_s), &raw)
            .and_then(|load| load.ensure_clean().map(|()| load));
        let after = Look::take(&record.server_cores, &record.client_cores)?;
        // A dead server explains errors of the load better than the load does.
        server.ensure_alive()?;
        let load = load?;
        for machine in &site.load_machines {
            load::check(machine, self.route, &site.url()).context("after the load")?;
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
        })
    }

    fn start_load(&self, site: &Site, seconds: u32) -> Result<Loading> {
        load::start(site, self.load, self.route, self.connections, seconds)
    }

    fn run_load(&self, site: &Site, seconds: u32, raw: &Path) -> Result<()> {
        interrupt::check()?;
        self.start_load(site, seconds)?
            .finish(limit(seconds), raw)?
            .ensure_clean()
            .context("while warming up")
    }
}

fn limit(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds) + 15)
}
