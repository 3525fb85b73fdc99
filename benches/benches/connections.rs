//! What a connection costs that does nothing: its memory, and what it takes from those that work.
//!
//! Each stack serves on one core while a few connections ask as fast as they get answers, in turns
//! with 10,000 idle keep-alive connections beside them and without. Real sockets: the kernel stacks on
//! the loopback interface, ours in a lab, for which root is needed. Printed is the server's CPU time
//! per request, with the least and the most of all turns (the polls that found something to do, for
//! ours, which also spins), and the memory that an idle connection takes: of the process, and of the
//! kernel for both ends of it. Both are differences of the whole process's or machine's figures, good
//! to some 10 and 100 bytes. What our stack takes when it starts, sockets and frames, is printed below: it does not
//! depend on how many connections there are.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use barewire::events::{Events, EventsConfig};
use barewire::site::{self, Site, SiteResponder};
use barewire_http::{HttpCounters, Limits};
use barewire_kernel::KernelConfig;
use barewire_kernel::epoll::Epoll;
use barewire_kernel::uring::Uring;
use barewire_lab::{Lab, SERVER_DEVICE};
use barewire_service::deadline::Deadlines;
use barewire_service::lifecycle::{Lifecycle, Phase};
use barewire_service::stack::{Running, Stack};
use barewire_xdp::XdpConfig;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const IDLE: usize = 10_000;
const LOADED: usize = 16;
const TURNS: usize = 5;
const REQUESTS_PER_TURN: usize = 20_000;
const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: server\r\n\r\n";

fn main() {
    let idle = IDLE.min(connections_max());
    println!("{LOADED} loaded connections beside {idle} idle ones; CPU time per request in ns");
    println!(
        "{:6} {:>22} {:>22} {:>6} {:>24} {:>24}",
        "stack", "without", "with", "ratio", "process, bytes per idle", "kernel, bytes per idle"
    );
    let mut config = KernelConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.cores = vec![0];
    config.connections = idle + 2 * LOADED;
    config.deadlines = deadlines();
    let epoll = Epoll {
        config: config.clone(),
    };
    print("epoll", &compare(&Server::start(epoll, None), idle));
    print(
        "uring",
        &compare(&Server::start(Uring::new(config), None), idle),
    );

    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    let mut config = XdpConfig::new(SERVER_DEVICE, 8080);
    config.cores = vec![0];
    config.stack.connections = (idle + 2 * LOADED) as u32;
    config.stack.deadlines = deadlines();
    let arithmetic = config.stack.connection_bytes::<SiteResponder>();
    let before = process_bytes();
    let server = Server::start(config, Some(lab));
    let taken = process_bytes() - before;
    print("xdp", &compare(&server, idle));
    println!(
        "xdp by arithmetic: {arithmetic} bytes per idle; at the start {:.1} MiB",
        taken / f64::from(1 << 20)
    );
}

/// None of them shall end an idle connection.
fn deadlines() -> Deadlines {
    Deadlines {
        idle_ms: 3_600_000,
        ..Deadlines::default()
    }
}

/// How many connections the process can have both ends of.
fn connections_max() -> usize {
    let needed = 2 * IDLE as u64 + 1_000;
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(needed);
    let (current, maximum) = (Some(needed.max(limit)), Some(needed.max(limit)));
    // Root may raise it.
    if setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_ok() {
        return IDLE;
    }
    let (current, maximum) = (Some(limit), Some(limit));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    (limit as usize - 1_000) / 2
}

/// What was found with one stack.
struct Comparison {
    without_ns: Vec<f64>,
    with_ns: Vec<f64>,
    process_bytes: f64,
    kernel_bytes: f64,
}

fn compare(server: &Server, idle: usize) -> Comparison {
    let mut loaded = server.connect(LOADED);
    let mut ns_per_request = || {
        let before = server.cpu_ns();
        for _ in 0..REQUESTS_PER_TURN / LOADED {
            ask_all(&mut loaded);
        }
        (server.cpu_ns() - before) as f64 / REQUESTS_PER_TURN as f64
    };
    // Everything that is done only once.
    ns_per_request();

    let (mut without_ns, mut with_ns) = (Vec::new(), Vec::new());
    let mut memory = None;
    for _ in 0..TURNS {
        without_ns.push(ns_per_request());
        let before = (process_bytes(), kernel_bytes());
        let mut others = server.connect(idle);
        for some in others.chunks_mut(100) {
            ask_all(some);
        }
        let after = (process_bytes(), kernel_bytes());
        // Later turns find memory of earlier ones.
        let per_idle = |after, before| (after - before) / idle as f64;
        memory.get_or_insert((per_idle(after.0, before.0), per_idle(after.1, before.1)));
        with_ns.push(ns_per_request());
        drop(others);
        server.wait_for(LOADED);
    }
    let (process_bytes, kernel_bytes) = memory.unwrap();
    Comparison {
        without_ns,
        with_ns,
        process_bytes,
        kernel_bytes,
    }
}

/// Sends a request on each of the connections, and reads all answers.
fn ask_all(connections: &mut [TcpStream]) {
    for connection in connections.iter_mut() {
        connection.write_all(REQUEST).unwrap();
    }
    for connection in connections {
        let mut answer = [0; 512];
        let mut len = 0;
        while !answer[..len].ends_with(b"Hello, World!") {
            len += connection.read(&mut answer[len..]).unwrap();
        }
    }
}

fn print(stack: &str, found: &Comparison) {
    let text = |all: &[f64]| {
        let (least, most) = (min(all), max(all));
        format!("{:.0} ({least:.0}..{most:.0})", median(all))
    };
    println!(
        "{stack:6} {:>22} {:>22} {:>6.2} {:>24.0} {:>24.0}",
        text(&found.without_ns),
        text(&found.with_ns),
        median(&found.with_ns) / median(&found.without_ns),
        found.process_bytes,
        found.kernel_bytes,
    );
}

fn min(all: &[f64]) -> f64 {
    all.iter().copied().fold(f64::INFINITY, f64::min)
}

fn max(all: &[f64]) -> f64 {
    all.iter().copied().fold(0.0, f64::max)
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Memory of this process, page tables included.
fn process_bytes() -> f64 {
    1024.0 * (kib("/proc/self/status", "VmRSS:") + kib("/proc/self/status", "VmPTE:"))
}

/// The kernel's objects: sockets, files, timers. Not what it copied into pages.
fn kernel_bytes() -> f64 {
    1024.0 * kib("/proc/meminfo", "Slab:")
}

fn kib(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.unwrap().trim().strip_suffix(" kB").unwrap();
    value.parse().unwrap()
}

/// A stack that serves the site. Stops when it is dropped.
struct Server {
    running: Running,
    lifecycle: Lifecycle,
    /// Where it serves, if that is not the loopback interface.
    lab: Option<Lab>,
}

impl Server {
    fn start<St: Stack + Send>(stack: St, lab: Option<Lab>) -> Server {
        let lifecycle = Lifecycle::new();
        let start = || stack.start(responder, &lifecycle).unwrap();
        let running = match &lab {
            Some(lab) => lab.server(start),
            None => start(),
        };
        Server {
            running,
            lifecycle,
            lab,
        }
    }

    fn connect(&self, count: usize) -> Vec<TcpStream> {
        let connect_one = |_| TcpStream::connect(self.running.addresses[0]).unwrap();
        let connect = || (0..count).map(connect_one).collect();
        match &self.lab {
            Some(lab) => lab.client(connect),
            None => connect(),
        }
    }

    /// Time that the core has spent on its connections.
    fn cpu_ns(&self) -> u64 {
        if self.lab.is_some() {
            return self.counter("busy_ns");
        }
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let of_cores = tasks.filter_map(|task| {
            let task = task.unwrap().path();
            let name = fs::read_to_string(task.join("comm")).unwrap();
            let is_core = name.starts_with("epoll/") || name.starts_with("uring/");
            is_core.then(|| fs::read_to_string(task.join("schedstat")).unwrap())
        });
        let on_cpu =
            |schedstat: String| schedstat.split(' ').next().unwrap().parse::<u64>().unwrap();
        of_cores.map(on_cpu).sum()
    }

    /// Waits until only `connections` are left.
    fn wait_for(&self, connections: usize) {
        let open = match self.lab {
            Some(_) => "connections",
            None => "open",
        };
        while self.counter(open) > connections as u64 {
            std::thread::yield_now();
        }
    }

    fn counter(&self, name: &str) -> u64 {
        let groups = self.running.counters.iter();
        let samples = groups.flat_map(|group| group.counters.samples());
        let named = samples.filter(|sample| sample.name == name);
        named.map(|sample| sample.value).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stop);
        for core in self.running.cores.drain(..) {
            core.join().unwrap().unwrap();
        }
    }
}

fn responder(_core: usize) -> SiteResponder {
    let routes = site::routes(false).expect("the table is consistent");
    let events = Events::new(EventsConfig::new(1)).unwrap();
    let site = Site::new(events.shard(0));
    let counters = Arc::new(HttpCounters::new(&routes));
    site::responder(&routes, site, Limits::default(), counters)
}
