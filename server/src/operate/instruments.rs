//! From live counters to a [`Status`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use barewire_service::counters::{Kind, Sample};
use barewire_service::lifecycle::{Lifecycle, Phase};
use procfs::process::Process;

use super::status::{
    Connections, Counters, Drops, Memory, Pool, Requests, SCHEMA, Server, State, Status,
};
use crate::events::Events;
use barewire_http::HttpCounters;
use barewire_service::stack::{AddedAddresses, CounterGroup, Running};

/// Everything that can be read of a running server.
#[derive(Debug, Clone)]
pub struct Instruments {
    stack: &'static str,
    addresses: Vec<SocketAddr>,
    added: AddedAddresses,
    cpus: Vec<usize>,
    started: Instant,
    groups: Vec<CounterGroup>,
    live: LiveGroups,
    http: Arc<[Arc<HttpCounters>]>,
    events: Arc<Events>,
    lifecycle: Lifecycle,
}

/// Groups of counters that may be others later. Every clone is the same.
#[derive(Debug, Clone, Default)]
pub struct LiveGroups(Arc<Mutex<Vec<CounterGroup>>>);

impl LiveGroups {
    /// Those of now.
    pub fn get(&self) -> Vec<CounterGroup> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Others from here on.
    pub fn set(&self, groups: Vec<CounterGroup>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = groups;
    }
}

/// The counters of one part at one moment.
pub(super) struct Reading {
    pub core: Option<usize>,
    pub queue: Option<u32>,
    pub part: &'static str,
    pub samples: Vec<Sample>,
}

impl Instruments {
    /// Those of a server that was `started` and is `running` on `stack`.
    pub fn new(
        stack: &'static str,
        started: Instant,
        running: &Running,
        http: Arc<[Arc<HttpCounters>]>,
        events: Arc<Events>,
        lifecycle: Lifecycle,
    ) -> Self {
        Instruments {
            stack,
            addresses: running.addresses.clone(),
            added: running.added.clone(),
            cpus: running.cpus.clone(),
            started,
            groups: running.counters.clone(),
            live: LiveGroups::default(),
            http,
            events,
            lifecycle,
        }
    }

    /// With groups that change while it runs.
    #[must_use]
    pub fn with_live(self, live: LiveGroups) -> Self {
        Instruments { live, ..self }
    }

    /// The server now. Each number is exact; two of them may be a moment apart.
    pub fn read(&self) -> Status {
        let readings = self.readings();
        let uptime = self.started.elapsed();
        Status {
            schema: SCHEMA,
            server: Server {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                state: match self.lifecycle.phase() {
                    Phase::Serve => State::Serving,
                    Phase::Drain => State::Draining,
                    Phase::Stop => State::Stopping,
                },
                stack: self.stack.to_owned(),
                addresses: self.addresses().collect(),
                cpus: self.cpus.clone(),
                started_unix_s: unix_time_s(SystemTime::now(), uptime),
                uptime_s: uptime.as_secs_f64(),
            },
            requests: self.requests(),
            connections: connections(&readings),
            stats: self.events.stats(),
            memory: memory(),
            pools: readings.iter().flat_map(pools).collect(),
            drops: drops(&readings),
            counters: readings.iter().map(Counters::from).collect(),
            rates: None,
        }
    }

    fn addresses(&self) -> impl Iterator<Item = String> {
        let added = self.added.get();
        let all = self.addresses.clone().into_iter().chain(added);
        all.map(|address| address.to_string())
    }

    /// What was dropped or refused so far.
    pub(super) fn drops(&self) -> Vec<Drops> {
        drops(&self.readings())
    }

    /// Every counter there is, in groups.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let live = self.live.get();
        let stack = self.groups.iter().chain(&live).map(|group| Reading {
            core: group.core,
            queue: group.queue,
            part: group.part,
            samples: group.counters.samples(),
        });
        let of_core = |part| {
            move |(core, samples): (usize, Vec<Sample>)| Reading {
                core: Some(core),
                queue: None,
                part,
                samples,
            }
        };
        // There may be fewer cores than were prepared for: a queue each, say.
        let cores = self.cpus.len();
        let http = self.http().map(HttpCounters::samples);
        let events = self.events.counters().iter();
        let events = events.map(|core| barewire_service::counters::Samples::samples(&**core));
        // What a queue counts that is not there yet is nothing.
        let stack = stack.filter(|reading| !reading.samples.is_empty());
        stack
            .chain(http.enumerate().map(of_core("http")))
            .chain(events.take(cores).enumerate().map(of_core("events")))
            .collect()
    }

    /// What the responder of each core counts.
    pub(super) fn http(&self) -> impl Iterator<Item = &HttpCounters> {
        self.http.iter().take(self.cpus.len()).map(|core| &**core)
    }

    fn requests(&self) -> Requests {
        let mut requests = Requests::default();
        for core in self.http() {
            for &status in barewire_http::Status::ALL {
                let count = core.responses(status);
                requests.total += count;
                if count > 0 {
                    let code = status.code().to_string();
                    *requests.by_status.entry(code).or_default() += count;
                }
            }
            for (path, count) in core.requests_by_route() {
                *requests.by_route.entry(path.to_owned()).or_default() += count;
            }
        }
        requests
    }
}

fn connections(readings: &[Reading]) -> Connections {
    let mut connections = Connections::default();
    for sample in readings.iter().flat_map(|reading| &reading.samples) {
        if !is_state(sample.kind) {
            continue;
        }
        if sample.kind == Kind::State {
            connections.total += sample.value;
        }
        let count = connections.by_state.entry(sample.name.to_owned());
        *count.or_default() += sample.value;
    }
    connections
}

/// Whether samples of this kind say how many connections are in a state, TIME-WAIT included.
pub(super) fn is_state(kind: Kind) -> bool {
    matches!(kind, Kind::State | Kind::Record)
}

/// Each gauge that has a limit.
fn pools(reading: &Reading) -> Vec<Pool> {
    let pool = |max: &Sample| {
        let name = max.limited()?;
        Some(Pool {
            part: reading.part.to_owned(),
            name: name.to_owned(),
            core: reading.core,
            queue: reading.queue,
            used: reading.value(name),
            max: max.value,
        })
    };
    reading.samples.iter().filter_map(pool).collect()
}

/// What was dropped or refused, of all cores and queues together.
fn drops(readings: &[Reading]) -> Vec<Drops> {
    let mut drops: Vec<Drops> = Vec::new();
    for reading in readings {
        for sample in &reading.samples {
            if sample.kind != Kind::Loss {
                continue;
            }
            let known = drops
                .iter_mut()
                .find(|drop| drop.part == reading.part && drop.name == sample.name);
            match known {
                Some(drop) => drop.count += sample.value,
                None => drops.push(Drops {
                    part: reading.part.to_owned(),
                    name: sample.name.to_owned(),
                    count: sample.value,
                    help: sample.help.to_owned(),
                }),
            }
        }
    }
    drops
}

impl Reading {
    /// Whether the gauge `name` is how much of a limited supply is in use.
    pub(super) fn has_limit(&self, name: &str) -> bool {
        let mut limits = self.samples.iter();
        limits.any(|sample| sample.limited() == Some(name))
    }

    fn value(&self, name: &str) -> u64 {
        let mut named = self.samples.iter().filter(|sample| sample.name == name);
        named.next().map_or(0, |sample| sample.value)
    }
}

impl From<&Reading> for Counters {
    fn from(reading: &Reading) -> Self {
        let values = reading.samples.iter();
        Counters {
            part: reading.part.to_owned(),
            core: reading.core,
            queue: reading.queue,
            values: values
                .map(|sample| (sample.name.to_owned(), sample.value))
                .collect::<BTreeMap<_, _>>(),
        }
    }
}

fn memory() -> Memory {
    let Ok(status) = Process::myself().and_then(|process| process.status()) else {
        return Memory::default();
    };
    let bytes = |kib: Option<u64>| kib.map(|kib| kib * 1024);
    Memory {
        resident_bytes: bytes(status.vmrss),
        huge_page_bytes: bytes(status.hugetlbpages),
        locked_bytes: bytes(status.vmlck),
    }
}

fn unix_time_s(now: SystemTime, uptime: Duration) -> u64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().saturating_sub(uptime).as_secs()
}

#[cfg(test)]
mod tests {
    use barewire_service::counters::Samples;
    use barewire_tcp::link::LinkCounters;
    use barewire_tcp::shard::TcpCounters;

    use super::*;

    fn reading(part: &'static str, core: usize, counters: &dyn Samples) -> Reading {
        Reading {
            core: Some(core),
            queue: None,
            part,
            samples: counters.samples(),
        }
    }

    #[test]
    fn every_limit_has_a_gauge_that_it_limits() {
        let mut parts = vec![
            reading("link", 0, &LinkCounters::default()),
            reading("tcp", 0, &TcpCounters::default()),
        ];
        #[cfg(any(feature = "epoll", feature = "uring"))]
        parts.push(reading(
            "connections",
            0,
            &barewire_kernel::KernelCounters::default(),
        ));
        for reading in &parts {
            let limits = reading
                .samples
                .iter()
                .filter(|sample| sample.kind == Kind::Limit);
            for limit in limits {
                let mut others = reading.samples.iter();
                let has_gauge = others.any(|other| Some(other.name) == limit.limited());
                assert!(has_gauge, "{}.{}", reading.part, limit.name);
            }
        }
    }

    #[test]
    fn levels_of_several_cores_add_up() {
        let cores = [TcpCounters::default(), TcpCounters::default()];
        for (core, open) in cores.iter().zip([3, 4]) {
            core.established.set(open);
            core.time_wait.set(100);
            core.connections.set(open);
            core.connections_max.set(10);
            core.listen_overflows.add(open);
        }
        let readings: Vec<_> = (0..2)
            .map(|core| reading("tcp", core, &cores[core]))
            .collect();
        let connections = connections(&readings);
        assert_eq!(
            (connections.total, connections.by_state["established"]),
            (7, 7)
        );
        assert_eq!(connections.by_state["time_wait"], 200);
        let pools: Vec<_> = readings.iter().flat_map(pools).collect();
        let used = pools.iter().filter(|pool| pool.name == "connections");
        let used: Vec<_> = used.map(|pool| (pool.core, pool.used, pool.max)).collect();
        assert_eq!(used, [(Some(0), 3, 10), (Some(1), 4, 10)]);
        let drops = drops(&readings);
        let overflows = drops.iter().find(|drop| drop.name == "listen_overflows");
        assert_eq!(overflows.map(|drop| drop.count), Some(7));
    }
}
