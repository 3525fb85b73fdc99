//! The state of a server at one moment, as `barewire status --json` prints it.
//!
//! One JSON object. A field keeps its name, type and meaning for as long as `schema` stays the same;
//! new fields and new names inside the maps may come at any time.
//!
//! | field | what it is |
//! |---|---|
//! | `schema` | [`SCHEMA`] |
//! | `server` | `version`, `pid`, `state` (`serving`, `draining`, `stopping`), `stack`, `addresses`, `cpus` (of each core), `started_unix_s`, `uptime_s` |
//! | `requests` | answered requests: `total`, `by_status` (code → count), `by_route` (path → count) |
//! | `connections` | open now: `total`, `by_state` (state → count; TIME-WAIT records are not in `total`) |
//! | `stats` | what `GET /stats` says |
//! | `memory` | of the process: `resident_bytes` without huge pages, `huge_page_bytes`, `locked_bytes`, each null if the kernel does not tell |
//! | `pools` | each limited supply of each core: `part`, `name`, `core`, `queue`, `used`, `max` |
//! | `drops` | why something was dropped or refused, over all cores: `part`, `name`, `count`, `help` |
//! | `counters` | everything that is counted: `part`, `core`, `queue`, and `values` (name → number) |
//! | `rates` | null, or what happened per second: see [`Rates`] |
//!
//! `core` counts from zero in the order of `--cores` and is null for what belongs to all of them;
//! `queue` is null where there is only one. Names and meanings of counters are those of the exit
//! summary and, with another prefix, of the metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::events::Stats;

/// The version of this layout.
pub const SCHEMA: u32 = 1;

/// A server at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which server this is, and what it does.
    pub server: Server,
    /// Requests that were answered.
    pub requests: Requests,
    /// Connections that are open.
    pub connections: Connections,
    /// What `GET /stats` says.
    pub stats: Stats,
    /// Memory of the process.
    pub memory: Memory,
    /// Limited supplies and how much of them is in use.
    pub pools: Vec<Pool>,
    /// What was dropped or refused, and why.
    pub drops: Vec<Drops>,
    /// Everything that is counted.
    pub counters: Vec<Counters>,
    /// What happened per second, if that was measured.
    pub rates: Option<Rates>,
}

/// Which server, since when, and what it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Version of barewire.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// What it does.
    pub state: State,
    /// `xdp`, `epoll` or `uring`.
    pub stack: String,
    /// Where clients reach it.
    pub addresses: Vec<String>,
    /// The CPU of each core.
    pub cpus: Vec<usize>,
    /// When it started, in seconds since 1970.
    pub started_unix_s: u64,
    /// How long it has run, by the monotonic clock.
    pub uptime_s: f64,
}

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It accepts and serves.
    Serving,
    /// It finishes what is in flight.
    Draining,
    /// It resets what is left.
    Stopping,
}

/// Answered requests, over all cores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// All of them.
    pub total: u64,
    /// By the code of the response; those that were used.
    pub by_status: BTreeMap<String, u64>,
    /// By the path of the route, whatever the method; what matches no route is in none.
    pub by_route: BTreeMap<String, u64>,
}

/// Open connections, over all cores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// All but those in TIME-WAIT.
    pub total: u64,
    /// By state.
    pub by_state: BTreeMap<String, u64>,
}

/// Memory of the process, in bytes; `None` if the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In RAM, without huge pages.
    pub resident_bytes: Option<u64>,
    /// Huge pages.
    pub huge_page_bytes: Option<u64>,
    /// Locked in RAM by the process itself.
    pub locked_bytes: Option<u64>,
}

/// A limited supply of one core or queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The part of the stack it belongs to.
    pub part: String,
    /// What it is a supply of.
    pub name: String,
    /// Its core.
    pub core: Option<usize>,
    /// Its queue.
    pub queue: Option<u32>,
    /// How much of it is in use.
    pub used: u64,
    /// How much of it there is.
    pub max: u64,
}

/// One reason to drop or refuse something, over all cores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Which part of the server did it.
    pub part: String,
    /// The counter's name.
    pub name: String,
    /// How often.
    pub count: u64,
    /// What it means.
    pub help: String,
}

/// Everything that one part of one core or queue counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The part.
    pub part: String,
    /// Its core.
    pub core: Option<usize>,
    /// Its queue.
    pub queue: Option<u32>,
    /// Counters and levels by name.
    pub values: BTreeMap<String, u64>,
}

impl Status {
    /// The counter `name` of `part`, summed over the cores and queues that `core` leaves; zero if there
    /// is no such counter.
    pub fn sum(&self, part: &str, name: &str, core: Option<usize>) -> u64 {
        self.counters
            .iter()
            .filter(|group| group.part == part && (core.is_none() || group.core == core))
            .filter_map(|group| group.values.get(name))
            .sum()
    }
}

/// Per core, and over all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Time between the two readings.
    pub interval_s: f64,
    /// All cores together; `busy` is their mean.
    pub all: CoreRates,
    /// Each core.
    pub cores: Vec<CoreRates>,
}

/// What happened per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CoreRates {
    /// The core; null for all of them.
    pub core: Option<usize>,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Requests answered.
    pub requests_per_s: f64,
    /// Connections opened.
    pub connections_per_s: f64,
    /// Frames received; null on the kernel stacks.
    pub rx_frames_per_s: Option<f64>,
    /// Frames sent; null on the kernel stacks.
    pub tx_frames_per_s: Option<f64>,
    /// Bytes received: of frames, or of their payload on the kernel stacks.
    pub rx_bytes_per_s: f64,
    /// Bytes sent, likewise.
    pub tx_bytes_per_s: f64,
    /// The share of its time in which the core worked, from 0 to 1; null on the kernel stacks.
    pub busy: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            schema: SCHEMA,
            server: Server {
                version: "1.2.3".into(),
                pid: 42,
                state: State::Draining,
                stack: "xdp".into(),
                addresses: vec!["10.0.0.1:80".into()],
                cpus: vec![2],
                started_unix_s: 1_700_000_000,
                uptime_s: 2.5,
            },
            requests: Requests {
                total: 3,
                by_status: [("200".into(), 3)].into(),
                by_route: [("/json".into(), 3)].into(),
            },
            connections: Connections {
                total: 1,
                by_state: [("established".into(), 1)].into(),
            },
            stats: Stats {
                total_requests: 2,
                unique_users: 1,
                sum: 3.0,
                avg: 1.5,
            },
            memory: Memory {
                resident_bytes: Some(4096),
                huge_page_bytes: Some(0),
                locked_bytes: None,
            },
            pools: vec![Pool {
                part: "link".into(),
                name: "tx_frames_used".into(),
                core: Some(0),
                queue: Some(1),
                used: 5,
                max: 2048,
            }],
            drops: vec![Drops {
                part: "redirect".into(),
                name: "passed_no_socket".into(),
                count: 6,
                help: "Why.".into(),
            }],
            counters: vec![Counters {
                part: "redirect".into(),
                core: None,
                queue: None,
                values: [("passed_no_socket".into(), 6)].into(),
            }],
            rates: None,
        }
    }

    /// Scripts read this. A change that breaks it is a change of [`SCHEMA`].
    #[test]
    fn the_json_is_what_was_promised() {
        let expected = r#"{"schema":1,"server":{"version":"1.2.3","pid":42,"state":"draining","stack":"xdp","addresses":["10.0.0.1:80"],"cpus":[2],"started_unix_s":1700000000,"uptime_s":2.5},"requests":{"total":3,"by_status":{"200":3},"by_route":{"/json":3}},"connections":{"total":1,"by_state":{"established":1}},"stats":{"totalRequests":2,"uniqueUsers":1,"sum":3.0,"avg":1.5},"memory":{"resident_bytes":4096,"huge_page_bytes":0,"locked_bytes":null},"pools":[{"part":"link","name":"tx_frames_used","core":0,"queue":1,"used":5,"max":2048}],"drops":[{"part":"redirect","name":"passed_no_socket","count":6,"help":"Why."}],"counters":[{"part":"redirect","core":null,"queue":null,"values":{"passed_no_socket":6}}],"rates":null}"#;
        assert_eq!(serde_json::to_string(&status()).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Status>(expected).unwrap(), status());
    }

    #[test]
    fn rates_are_differences_over_time() {
        let before = status();
        let mut after = status();
        after.server.uptime_s += 2.0;
        after.counters.push(Counters {
            part: "http".into(),
            core: Some(0),
            queue: None,
            values: [("responses_200".into(), 100), ("refused_syntax".into(), 7)].into(),
        });
        let rates = Rates::between(&before, &after).unwrap();
        assert_eq!((rates.interval_s, rates.all.requests_per_s), (2.0, 50.0));
        assert_eq!((rates.cores[0].cpu, rates.cores[0].busy), (Some(2), None));

        assert_eq!(Rates::between(&after, &before), None);
        after.server.pid += 1;
        assert_eq!(Rates::between(&before, &after), None);
    }
}
