//! What a report is made of, and what follows from it: `results.json` and its summaries.
//!
//! The file holds every round as it was measured. Whatever is shown (medians, ratios, what bounds
//! a figure) is computed from the rounds, here and nowhere else, so that anybody can recompute it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::load::{Latency, Load};
use crate::machine::{self, Machine};
use crate::matrix::{LoadName, Matrix, Route};
use crate::server::Counted;
use crate::site::SiteRecord;
use crate::usage::{Core, Side, Usage};

/// The version of this schema; it grows when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// The whole of `results.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When the first round began, RFC 3339, UTC.
    pub started: String,
    /// The server's host name.
    pub host: String,
    /// Whether it was stopped before all rounds were measured.
    pub interrupted: bool,
    /// What was asked for.
    pub matrix: Matrix,
    /// Where it was measured.
    pub site: SiteRecord,
    /// What the machine was.
    pub machine: Machine,
    /// The command line of each server, by name.
    pub commands: Vec<(String, String)>,
    /// The command line of one load, as an example.
    pub load_command: String,
    /// What was not tuned, a sentence each.
    pub not_tuned: Vec<String>,
    /// Every round that counts, in the order of measuring.
    pub rounds: Vec<Round>,
    /// Rounds that were thrown away and repeated, and why.
    pub repeated: Vec<String>,
    /// Rounds that are missing because they failed again and again, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// What the publisher calls it, who that is, and what he wants to say about it.
    #[serde(default)]
    pub words: Words,
}

/// A publisher's words on a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// Instead of the host's name and the date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who has measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Paragraphs, apart by an empty line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

/// One measurement of one server on one route with one number of connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// The server's name.
    pub server: String,
    /// The route's name.
    pub route: String,
    /// Open connections.
    pub connections: u32,
    /// Its number, from 1; rounds of the same number were measured one after the other.
    pub round: u32,
    /// What the load saw.
    pub load: Load,
    /// What it cost.
    pub usage: Usage,
    /// What the server counted of itself.
    pub counted: Counted,
    /// The rate at which an open loop asked; `None` for a closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<FixedRate>,
    /// Who else used the cores, if that was more than is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_with: Option<String>,
}

/// The rate of an open loop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FixedRate {
    /// Part of the rate that the slowest server reached in a closed loop.
    pub share: f64,
    /// Requests per second.
    pub per_s: f64,
}

/// Median, least and greatest of a figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// What kept a figure from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The server's cores were full and the load's were not: the figure is the server's limit.
    Server,
    /// The load's cores were full: the server could have done more.
    Client,
    /// Neither was full, or it cannot be told.
    Unknown,
}

impl Results {
    /// Reads `results.json` from a report's directory.
    pub fn read(directory: &Path) -> Result<Results> {
        let path = directory.join("results.json");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut results: Results = serde_json::from_str(&text)
            .with_context(|| format!("{} is no report", path.display()))?;
        // Reports of before hold all of it.
        let mut facts = results.machine.facts.iter_mut();
        if let Some(fact) = facts.find(|fact| fact.name == machine::COMMAND_LINE) {
            fact.value = machine::known_switches(&fact.value);
        }
        ensure!(
            results.schema == SCHEMA,
            "{} has schema {}, and this program reads {SCHEMA}",
            path.display(),
            results.schema
        );
        Ok(results)
    }

    /// The rounds of one cell, by the load that [makes its figures](Self::load_of).
    pub fn cell<'a>(&'a self, server: &str, route: &str, connections: u32) -> Vec<&'a Round> {
        let load = self.load_of(server, route, connections);
        self.cell_by(load, server, route, connections)
    }

    /// The load that makes the figures of a cell: wrk, the usual one, unless it was the
    /// bottleneck and another load was measured as well.
    pub fn load_of(&self, server: &str, route: &str, connections: u32) -> LoadName {
        let by = |load| self.cell_by(load, server, route, connections);
        let (wrk, ours) = (by(LoadName::Wrk), by(LoadName::Barewire));
        let is_wrk_enough = !wrk.is_empty() && self.bound_of(server, &wrk) != Bound::Client;
        match is_wrk_enough || ours.is_empty() {
            true => LoadName::Wrk,
            false => LoadName::Barewire,
        }
    }

    /// Whether figures of several loads stand side by side.
    pub fn has_several_loads(&self) -> bool {
        self.matrix.loads.len() > 1
    }

    fn cell_by(&self, load: LoadName, server: &str, route: &str, connections: u32) -> Vec<&Round> {
        let is_of_cell = |round: &&Round| {
            (
                round.server.as_str(),
                round.route.as_str(),
                round.connections,
            ) == (server, route, connections)
                && round.load.by == load
                && round.rate.is_none()
        };
        self.rounds.iter().filter(is_of_cell).collect()
    }

    /// The routes that have rounds.
    pub fn measured_routes(&self) -> impl Iterator<Item = &Route> {
        let routes = self.matrix.routes.iter();
        routes.filter(|route| self.rounds.iter().any(|round| round.route == route.name))
    }

    /// Whether a cell was measured while others used its cores.
    pub fn is_busy(&self, server: &str, route: &str, connections: u32) -> bool {
        let cell = self.cell(server, route, connections);
        cell.iter().any(|round| round.busy_with.is_some())
    }

    /// Whether neither a cell nor its baseline was bound by the client, so that their ratio says something about
    /// the servers.
    pub fn is_comparable(&self, server: &str, route: &str, connections: u32) -> bool {
        let servers = [server, &self.matrix.baseline];
        let mut bounds = servers
            .map(|server| self.bound(server, route, connections))
            .into_iter();
        bounds.all(|bound| bound != Bound::Client)
    }

    /// The rounds at a fixed rate of one server on one route.
    pub fn at_rate<'a>(
        &'a self,
        server: &'a str,
        route: &'a str,
        share: f64,
    ) -> impl Iterator<Item = &'a Round> {
        self.rounds.iter().filter(move |round| {
            round.server == server
                && round.route == route
                && round.rate.is_some_and(|rate| rate.share == share)
        })
    }

    /// The highest rate that all of the `servers` reach in a closed loop, by medians; `None` if one has no figure.
    pub fn common_limit(&self, servers: &[&str], route: &str, connections: u32) -> Option<f64> {
        let limit = |server: &&str| {
            let by = |load| {
                let rounds = self.cell_by(load, server, route, connections);
                Spread::of(rounds.into_iter().map(Round::rate)).map(|rate| rate.median)
            };
            [LoadName::Wrk, LoadName::Barewire]
                .into_iter()
                .filter_map(by)
                .reduce(f64::max)
        };
        let limits: Option<Vec<f64>> = servers.iter().map(limit).collect();
        limits?.into_iter().reduce(f64::min)
    }

    /// What a reader must not take for granted, what the hypervisor did included.
    pub fn caveats(&self) -> Vec<String> {
        let cores = || self.rounds.iter().flat_map(|round| &round.usage.cores);
        let stolen_s: f64 = cores().map(|core| core.steal_s).sum();
        let all_s: f64 = cores()
            .map(|core| core.busy_s() + core.idle_s + core.steal_s)
            .sum();
        let percent = 100.0 * stolen_s / all_s.max(f64::EPSILON);
        let theft = (percent >= 1.0).then(|| {
            format!(
                "The hypervisor took {percent:.0} % of the cores' time away. That is in no figure of CPU time, but it \
                 lowers rates and raises latencies, unevenly from round to round."
            )
        });
        self.not_tuned.iter().cloned().chain(theft).collect()
    }

    /// A figure of one cell over its rounds; `None` if it was not measured.
    pub fn spread(
        &self,
        server: &str,
        route: &str,
        connections: u32,
        figure: impl Fn(&Round) -> f64,
    ) -> Option<Spread> {
        Spread::of(
            self.cell(server, route, connections)
                .into_iter()
                .map(figure),
        )
    }

    /// How `server` compares with the baseline in a figure: the quotient of each pair of rounds.
    pub fn ratio(
        &self,
        server: &str,
        route: &str,
        connections: u32,
        figure: impl Fn(&Round) -> f64,
    ) -> Option<Spread> {
        let ours = self.cell(server, route, connections);
        let baseline = self.cell(&self.matrix.baseline, route, connections);
        Spread::of(ours.iter().filter_map(|round| {
            let pair = baseline.iter().find(|pair| pair.round == round.round)?;
            let ratio = figure(round) / figure(pair);
            ratio.is_finite().then_some(ratio)
        }))
    }

    /// What kept a cell from being faster, by most of its rounds.
    pub fn bound(&self, server: &str, route: &str, connections: u32) -> Bound {
        self.bound_of(server, &self.cell(server, route, connections))
    }

    fn bound_of(&self, server: &str, rounds: &[&Round]) -> Bound {
        let polls = self
            .matrix
            .servers
            .iter()
            .any(|described| described.name == server && described.polls);
        let share = |bound| {
            let same = rounds.iter().filter(|round| round.bound(polls) == bound);
            same.count() * 2 > rounds.len()
        };
        [Bound::Client, Bound::Server]
            .into_iter()
            .find(|&bound| share(bound))
            .unwrap_or(Bound::Unknown)
    }

    /// The connections of the matrix, ascending.
    pub fn connections(&self) -> Vec<u32> {
        let mut connections = self.matrix.connections.clone();
        connections.sort_unstable();
        connections.dedup();
        connections
    }
}

impl Round {
    /// The file below `raw/` that holds the load's own words.
    pub fn raw_name(&self) -> String {
        let (by, rate) = (self.load.by, self.rate);
        raw_name(
            &self.server,
            &self.route,
            self.connections,
            self.round,
            by,
            rate,
        )
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.load.requests_per_s
    }

    /// One figure of the latency, in microseconds; not a number where the load could not say.
    pub fn latency(&self, of: impl Fn(&Latency) -> f64) -> f64 {
        self.load.latency_us.as_ref().map_or(f64::NAN, of)
    }

    /// Busy time of all of the server's cores per request, in microseconds.
    pub fn server_core_us(&self) -> f64 {
        self.usage.busy_s(Side::Server) * 1e6 / self.load.requests as f64
    }

    /// System calls that a bypass made to start transmission or reception, per 1,000 requests; not a
    /// number for others.
    pub fn wakeups_per_1000(&self) -> f64 {
        let counters = ["tx_wakeups", "rx_wakeups", "sleeps"];
        let calls = counters.iter().filter_map(|name| self.counted.sum(name));
        let frames = self.counted.sum("rx_frames");
        match (frames, self.counted.served) {
            (Some(_), Some(served)) => calls.sum::<u64>() as f64 * 1e3 / served as f64,
            _ => f64::NAN,
        }
    }

    /// Frames that a bypass lost for want of space, in its rings or in the kernel's.
    pub fn link_drops(&self) -> f64 {
        let counters = ["rx_dropped", "rx_ring_full", "tx_no_slot"];
        let frames = self.counted.sum("rx_frames");
        frames.map_or(f64::NAN, |_| {
            let drops = counters.iter().filter_map(|name| self.counted.sum(name));
            drops.sum::<u64>() as f64
        })
    }

    /// Busy time of the cores of both sides per request, in microseconds: it cannot be shifted
    /// from one side to the other.
    pub fn both_cores_us(&self) -> f64 {
        (self.usage.busy_s(Side::Server) + self.usage.busy_s(Side::Client)) * 1e6
            / self.load.requests as f64
    }

    /// What kept it from being faster. A core that polls is always busy, so a server that does must
    /// also have found something to do in nearly all of its polls.
    pub fn bound(&self, polls: bool) -> Bound {
        const FULL: f64 = 0.97;
        const NOT_FULL: f64 = 0.95;
        const IDLE_MAX: f64 = 0.10;
        let polled_in_vain = polls && self.counted.idle_share().is_none_or(|idle| idle > IDLE_MAX);
        let client = match self.load.by {
            LoadName::Wrk => self.usage.busy_share(Side::Client),
            // One core asks and another receives: either can be full alone.
            LoadName::Barewire => (self.usage.side(Side::Client))
                .map(Core::busy_share)
                .reduce(f64::max),
        };
        let server = self.usage.busy_share(Side::Server);
        match (server, client) {
            (_, Some(client)) if client >= NOT_FULL => Bound::Client,
            (Some(server), Some(_)) if server >= FULL && !polled_in_vain => Bound::Server,
            _ => Bound::Unknown,
        }
    }
}

/// The file below `raw/` that holds the load's own words in one round.
pub fn raw_name(
    server: &str,
    route: &str,
    connections: u32,
    round: u32,
    by: LoadName,
    rate: Option<FixedRate>,
) -> String {
    let by = match by {
        LoadName::Wrk => "",
        LoadName::Barewire => "-barewire",
    };
    let rate = rate.map(|rate| format!("-{:.0}percent", rate.share * 100.0));
    let rate = rate.unwrap_or_default();
    format!("{server}-{route}-{connections}-{round}{by}{rate}.txt")
}

impl Spread {
    /// The spread of those figures that are numbers; `None` if there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut figures: Vec<f64> = figures.into_iter().filter(|it| it.is_finite()).collect();
        figures.sort_by(f64::total_cmp);
        let (&min, &max) = (figures.first()?, figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            (figures[middle - 1] + figures[middle]) / 2.0
        };
        Some(Spread { median, min, max })
    }

    /// Whether two spreads do not overlap, so that their difference is more than noise.
    pub fn is_apart_from(&self, other: &Spread) -> bool {
        self.min > other.max || other.min > self.max
    }
}

impl Bound {
    /// How a reader is told.
    pub fn words(self) -> &'static str {
        match self {
            Bound::Server => "the server's limit",
            Bound::Client => "bound by the client",
            Bound::Unknown => "limit not proven",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of `epoll`, asked by `load` with the client's core so busy.
    fn round(load: &str, client_busy_s: f64, rate: f64) -> serde_json::Value {
        let core = |core: u32, side: &str, busy_s: f64| {
            serde_json::json!({ "core": core, "side": side, "user_s": busy_s, "system_s": 0.0, "softirq_s": 0.0,
                "idle_s": 1.0 - busy_s, "steal_s": 0.0 })
        };
        serde_json::json!({
            "server": "epoll", "route": "plaintext", "connections": 64, "round": 1,
            "load": { "by": load, "requests": 1000, "requests_per_s": rate, "bytes_per_s": 1.0,
                "latency_us": null,
                "errors": { "connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0 } },
            "usage": { "cores": [core(0, "server", 0.99), core(1, "client", client_busy_s)],
                "server": { "user_s": 0.0, "system_s": 0.0, "switches_voluntary": 0,
                    "switches_involuntary": 0, "resident_bytes": 0 },
                "foreign_s": 0.0 },
            "counted": { "served": 1000, "counters": {} },
        })
    }

    fn results(rounds: &[serde_json::Value]) -> Results {
        let matrix = "rounds = 1\nwarm_up_s = 0\nmeasure_s = 1\nconnections = [64]\nbaseline = \"epoll\"\n\
             loads = [\"wrk\", \"barewire\"]\n[[server]]\nname = \"epoll\"\ncommand = [\"x\"]\n\
             [[route]]\nname = \"plaintext\"\npath = \"/\"\n";
        let rounds: Vec<Round> = rounds
            .iter()
            .map(|round| serde_json::from_value(round.clone()).unwrap())
            .collect();
        Results {
            schema: SCHEMA,
            started: String::new(),
            host: String::new(),
            interrupted: false,
            matrix: toml::from_str(matrix).unwrap(),
            site: SiteRecord {
                kind: "lab".into(),
                interface: String::new(),
                address: String::new(),
                port: 1,
                server_cores: vec![0],
                client_cores: vec![1],
                load_machines: vec![],
            },
            machine: Machine {
                facts: vec![],
                details: Default::default(),
            },
            commands: vec![],
            load_command: String::new(),
            not_tuned: vec![],
            rounds,
            repeated: vec![],
            failed: vec![],
            words: Words::default(),
        }
    }

    #[test]
    fn figures_are_wrks_unless_wrk_was_the_bottleneck() {
        let ours = round("barewire", 0.5, 200.0);
        let chosen = |rounds: &[serde_json::Value]| {
            let results = results(rounds);
            let rate = results
                .spread("epoll", "plaintext", 64, Round::rate)
                .unwrap();
            let load = results.load_of("epoll", "plaintext", 64);
            (load, rate.median, results.bound("epoll", "plaintext", 64))
        };
        let idle_wrk = [round("wrk", 0.8, 100.0), ours.clone()];
        assert_eq!(chosen(&idle_wrk), (LoadName::Wrk, 100.0, Bound::Server));
        let full_wrk = [round("wrk", 0.99, 100.0), ours];
        assert_eq!(
            chosen(&full_wrk),
            (LoadName::Barewire, 200.0, Bound::Server)
        );
        assert_eq!(
            chosen(&full_wrk[..1]),
            (LoadName::Wrk, 100.0, Bound::Client)
        );
    }

    #[test]
    fn spreads() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        let even = Spread::of([4.0, 5.0, 9.0, 6.0]).unwrap();
        assert_eq!(even.median, 5.5);
        assert!(odd.is_apart_from(&even));
        assert!(!even.is_apart_from(&Spread::of([9.0]).unwrap()));
    }
}
