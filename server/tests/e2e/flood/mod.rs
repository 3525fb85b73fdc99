//! What attackers send, while a well-behaved client is served.
//!
//! `scripts/flood` runs this at length and shows the table; among the other tests it is short.
//!
//! ```text
//!   client's namespace                                server's namespace
//!   attack  ── frames of its own making, AF_PACKET ──┐
//!           ── connections, from the kernel ─────────┼─▶ barewire serve
//!   witness ── one request after the other ──────────┘
//! ```

mod attacks;
mod witness;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use barewire::operate::Status;
use barewire_lab::{Lab, SERVER_DEVICE};

use crate::operate::Operated;
use crate::raw::mac;
use crate::server::{BAREWIRE, Server};

use attacks::Attack;
use witness::Testimony;

/// What an attack is aimed at, and when it ends.
struct Target {
    addresses: Vec<SocketAddr>,
    mac: [u8; 6],
    /// Where the witness's current connection comes from: half of the blind attacks hit it.
    witness_port: AtomicU16,
    is_over: AtomicBool,
    settings: Settings,
}

impl Target {
    fn of(lab: &Lab, server: &Operated) -> Target {
        let device = format!("/sys/class/net/{SERVER_DEVICE}/address");
        Target {
            addresses: server.server.addresses.clone(),
            mac: mac(&lab.server_runs(&["cat", &device])),
            witness_port: AtomicU16::new(0),
            is_over: AtomicBool::new(false),
            settings: Settings::from_environment(),
        }
    }
}

/// How hard and how long.
#[derive(Debug, Clone, Copy)]
struct Settings {
    duration: Duration,
    frames_per_s: u32,
    idle_connections: usize,
    /// More than [`POOLS`] let there be.
    exhausting_connections: usize,
}

impl Settings {
    const QUICK: Settings = Settings {
        duration: Duration::from_secs(2),
        frames_per_s: 20_000,
        idle_connections: 1_000,
        exhausting_connections: 600,
    };

    /// As `scripts/flood` asks for, or quick.
    fn from_environment() -> Settings {
        let number = |name: &str| env::var(name).ok()?.parse().ok();
        match number("BAREWIRE_FLOOD_SECONDS") {
            None => Settings::QUICK,
            Some(seconds) => Settings {
                duration: Duration::from_secs(seconds),
                frames_per_s: number("BAREWIRE_FLOOD_FRAMES_PER_S").unwrap_or(100_000) as u32,
                idle_connections: 10_000,
                exhausting_connections: 600,
            },
        }
    }
}

/// What the server has more of after an attack than it may, once its connections are gone: some huge pages of tables
/// that come as they are used.
const RESIDENT_GROWTH_MAX: u64 = 8 << 20;

#[test]
fn the_well_behaved_are_served_whatever_the_others_do() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let stack = env::var("BAREWIRE_FLOOD_STACK").unwrap_or_else(|_| "xdp".into());
    let pools: &[&str] = match &*stack {
        "xdp" => &["--connections", "8192", "--half-open-max", "256"],
        _ => &["--connections", "8192"],
    };
    let server = serve(&lab, &stack, pools);
    let target = Target::of(&lab, &server);
    let settings = target.settings;
    // Every page that the tables have is there before anything is measured.
    lab.client(|| attacks::hold_connections(&target, settings.idle_connections, Duration::ZERO));
    quiet(&server);

    let mut table = format!("{}\n", Row::HEADER);
    let mut rows = Vec::new();
    for attack in Attack::ALL {
        let row = Row::of(attack, &target, &lab, &server);
        let _ = writeln!(table, "{row}");
        rows.push(row);
    }
    println!("--stack {stack}, {settings:?}\n{table}");
    if stack == "xdp" {
        for row in &rows {
            row.is_as_it_should();
        }
    }
    let ended = server.server.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Pools of a core that a few hundred connections exhaust.
const POOLS: [&str; 8] = [
    "--connections",
    "128",
    "--direct-path",
    "always",
    "--sockets",
    "32",
    "--half-open-max",
    "16",
];

/// How much longer the slowest of a hundred answers may take while the pools are exhausted.
const P99_RATIO_MAX: f64 = 2.0;

#[test]
fn the_well_behaved_are_served_when_the_pools_are_exhausted() {
    let stack = env::var("BAREWIRE_FLOOD_STACK").unwrap_or_else(|_| "xdp".into());
    if stack != "xdp" {
        return;
    }
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let server = serve(&lab, &stack, &POOLS);
    let target = Target::of(&lab, &server);
    // With as much company as in the attack, but that is gone when it is done.
    let mut left = 2_000;
    let alone = lab.client(|| {
        witness::asks(&target, || {
            left -= 1;
            left > 0
        })
    });
    let row = Row::of(Attack::Exhaustion, &target, &lab, &server);
    println!("{POOLS:?}, {:?}\n{}\n{row}", target.settings, Row::HEADER);
    let during = &row.during;
    let [alone_ms, during_ms] = [&alone, during].map(|testimony| testimony.percentile_ms(99));
    println!(
        "p99 alone {alone_ms:.2} ms, while the pools are exhausted {during_ms:.2} ms, of {} requests {} failed",
        during.latencies.len() + during.failed.len(),
        during.failed.len(),
    );
    assert!(
        during.failed.len() * 100 <= during.latencies.len(),
        "{:?}",
        during.failed
    );
    assert!(row.after.failed.is_empty(), "{:?}", row.after.failed);
    for pool in ["evictions", "socket_evictions"] {
        assert!(row.rose.contains_key(pool), "no {pool}: {:?}", row.rose);
    }
    // How long it takes is for `scripts/flood` to judge, which has the machine to itself.
    if env::var_os("BAREWIRE_FLOOD_SECONDS").is_some() {
        let ratio = during_ms / alone_ms;
        assert!(ratio <= P99_RATIO_MAX, "p99 is {ratio:.1} times as long");
    }
    let ended = server.server.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// A server with short deadlines.
fn serve(lab: &Lab, stack: &str, pools: &[&str]) -> Operated {
    let binary = env::var("BAREWIRE_FLOOD_BINARY").unwrap_or_else(|_| BAREWIRE.into());
    Operated::start(|control| {
        let mut command = lab.server_command();
        command.args([&binary, "serve", "--control", control, "--cores", "0,1"]);
        command.args(pools).args(["--head-timeout-ms", "1000"]);
        command.args(["--drain-timeout-ms", "500", "--stack", stack]);
        match stack {
            "xdp" => command.args([
                "--interface",
                SERVER_DEVICE,
                "--half-open-timeout-ms",
                "1000",
            ]),
            _ => command.args(["--listen", "10.77.0.2:8080"]),
        };
        Server::start(&mut command)
    })
}

/// The status once all connections are gone.
fn quiet(server: &Operated) -> Status {
    server.status_where(|status| status.connections.total == 0)
}

/// What came of an attack.
struct Row {
    attack: Attack,
    /// Frames or connections of the attack.
    offered: u64,
    elapsed: Duration,
    during: Testimony,
    after: Testimony,
    resident: [u64; 2],
    /// Counters of drops and guards that rose, by how much.
    rose: BTreeMap<String, u64>,
}

impl Row {
    const HEADER: &str = "attack        |  offered/s |   ok | failed |  p50 ms |  p99 ms | RSS before > after MiB | counters that rose";

    fn of(attack: Attack, target: &Target, lab: &Lab, server: &Operated) -> Row {
        let before = quiet(server);
        target.is_over.store(false, Ordering::Relaxed);
        let started = Instant::now();
        let (offered, during) = lab.client(|| {
            thread::scope(|scope| {
                let goes_on = || !target.is_over.load(Ordering::Relaxed);
                let witness = scope.spawn(move || witness::asks(target, goes_on));
                let offered = attack.run(target);
                target.is_over.store(true, Ordering::Relaxed);
                (offered, witness.join().unwrap())
            })
        });
        let elapsed = started.elapsed();
        let mut left = 50;
        let goes_on = || {
            left -= 1;
            left > 0
        };
        let after = lab.client(|| witness::asks(target, goes_on));
        let now = quiet(server);
        let resident = [&before, &now].map(|status| status.memory.resident_bytes.unwrap());
        Row {
            attack,
            offered,
            elapsed,
            during,
            after,
            resident,
            rose: rose(&before, &now),
        }
    }

    /// Only the attacker notices.
    fn is_as_it_should(&self) {
        let Row {
            attack,
            during,
            after,
            resident,
            rose,
            ..
        } = self;
        assert!(during.failed.is_empty(), "{attack:?}: {:?}", during.failed);
        assert!(
            during.latencies.len() > 10,
            "{attack:?}: hardly a request was served"
        );
        assert!(
            after.failed.is_empty(),
            "after {attack:?}: {:?}",
            after.failed
        );
        assert!(
            resident[1] < resident[0] + RESIDENT_GROWTH_MAX,
            "{attack:?}: {resident:?} bytes of memory"
        );
        let evidence = attack.evidence();
        let count: u64 = evidence.iter().filter_map(|name| rose.get(*name)).sum();
        assert!(
            count >= self.offered / 2,
            "{attack:?}: {count} of {} arrived: {rose:?}",
            self.offered
        );
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let mut rose: Vec<_> = self.rose.iter().collect();
        rose.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let rose: Vec<_> = rose
            .iter()
            .take(6)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        write!(
            f,
            "{:<13} | {:>10.0} | {:>4} | {:>6} | {:>7.2} | {:>7.2} | {:>10.1} > {:<9.1} | {}",
            self.attack.name(),
            self.offered as f64 / self.elapsed.as_secs_f64(),
            self.during.latencies.len() + self.after.latencies.len(),
            self.during.failed.len() + self.after.failed.len(),
            self.during.percentile_ms(50),
            self.during.percentile_ms(99),
            mib(self.resident[0]),
            mib(self.resident[1]),
            rose.join(", "),
        )
    }
}

/// Counters of what the server refused, and of what it opened, that rose from one status to the next.
fn rose(before: &Status, now: &Status) -> BTreeMap<String, u64> {
    const PARTS: [&str; 3] = ["tcp", "discards", "redirect"];
    const TRAFFIC: [&str; 3] = ["in_segs", "redirected", "time_wait"];
    let sums = |status: &Status| {
        let mut sums = BTreeMap::<String, u64>::new();
        let groups = status.counters.iter();
        for group in groups.filter(|group| PARTS.contains(&group.part.as_str())) {
            for (name, value) in &group.values {
                *sums.entry(name.clone()).or_default() += value;
            }
        }
        sums
    };
    let before = sums(before);
    let mut rose = sums(now);
    rose.retain(|name, value| {
        *value = value.saturating_sub(before.get(name).copied().unwrap_or(0));
        *value > 0 && !TRAFFIC.contains(&name.as_str())
    });
    rose
}
