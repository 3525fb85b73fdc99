//! Connections that come and go while others stay: whatever a server takes for them it gets back.
//!
//! `scripts/soak` runs this for as long as one likes; among the other tests it is short.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use barewire::operate::Status;
use barewire_lab::{Lab, SERVER_DEVICE};
use rustix::net::sockopt::set_socket_linger;

use crate::bypass::report_without_errors;
use crate::operate::Operated;
use crate::server::{BAREWIRE, PATIENCE, Server};

/// A round ends without clients, and a look at what is left.
const ROUND: Duration = Duration::from_secs(20);
const QUICK_ROUND: Duration = Duration::from_secs(3);

/// What the process may have more of than after the first round.
const RESIDENT_GROWTH_MAX: u64 = 2 << 20;

#[test]
fn nothing_is_left_of_connections_that_are_gone() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let minutes = env::var("BAREWIRE_SOAK_MINUTES");
    let (round, duration) = match minutes.map(|minutes| minutes.parse::<f64>()) {
        Ok(minutes) => (ROUND, Duration::from_secs_f64(60.0 * minutes.unwrap())),
        Err(_) => (QUICK_ROUND, QUICK_ROUND * 2),
    };
    let server = serve(&lab);
    let started = Instant::now();
    let mut first = None;
    while first.is_none() || started.elapsed() < duration {
        let before = server.status();
        let churn = load(&lab, &server, round);
        let after = server.status_where(is_empty);
        let first = first.get_or_insert_with(|| after.clone());
        println!(
            "{:>6.0} s: {} requests, {} connections, {} rude ones; {} KiB resident",
            started.elapsed().as_secs_f64(),
            after.requests.total - before.requests.total,
            opened(&after) - opened(&before),
            churn,
            after.memory.resident_bytes.unwrap() >> 10,
        );
        assert_eq!(levels(first), levels(&after));
        let resident = [&*first, &after].map(|status| status.memory.resident_bytes.unwrap());
        assert!(
            resident[1] <= resident[0] + RESIDENT_GROWTH_MAX,
            "{resident:?} bytes of memory"
        );
        assert!(opened(&after) > opened(&before) + churn / 2, "no churn");
    }
    assert_eq!(server.server.terminate().code, Some(0));
}

/// A server on one core with two queues: a veth, unlike a NIC, sends an RST for a socket that is gone to
/// any queue, and on another core it would belong to no connection.
fn serve(lab: &Lab) -> Operated {
    let binary = env::var("BAREWIRE_SOAK_BINARY").unwrap_or_else(|_| BAREWIRE.into());
    Operated::start(|control| {
        let mut command = lab.server_command();
        command.args([
            &binary,
            "serve",
            "--interface",
            SERVER_DEVICE,
            "--cores",
            "0",
        ]);
        command.args(["--control", control, "--connections", "4096"]);
        command.args(["--time-wait-ms", "1000", "--half-open-timeout-ms", "1000"]);
        command.args(["--head-timeout-ms", "1000", "--close-timeout-ms", "1000"]);
        Server::start(&mut command)
    })
}

/// Serves patient clients, clients with a connection for each request, and clients that break off; returns how many
/// of the last there were.
fn load(lab: &Lab, server: &Operated, duration: Duration) -> u64 {
    let addresses = &server.server.addresses;
    let keep_alive = wrk(lab, addresses[0], duration, "Connection: keep-alive");
    let close = wrk(lab, addresses[1], duration, "Connection: close");
    let is_over = AtomicBool::new(false);
    let rude = thread::scope(|scope| {
        let rude = scope.spawn(|| {
            lab.client(|| {
                let goes_on = || !is_over.load(Ordering::Relaxed);
                (0..)
                    .take_while(|_| goes_on())
                    .map(|n| behave_rudely(addresses, n))
                    .count()
            })
        });
        for wrk in [keep_alive, close] {
            report_without_errors(wrk);
        }
        is_over.store(true, Ordering::Relaxed);
        rude.join().unwrap()
    });
    rude as u64
}

fn wrk(lab: &Lab, address: SocketAddr, duration: Duration, header: &str) -> Child {
    let mut wrk = lab.client_command();
    wrk.args(["wrk", "--threads", "1", "--connections", "64"])
        .args(["--timeout", "20s", "--header", header, "--duration"])
        .arg(format!("{}s", duration.as_secs()))
        .arg(format!("http://{address}/plaintext"))
        .stdout(Stdio::piped());
    wrk.spawn().unwrap()
}

/// A client that leaves at a bad time, in one of several ways.
fn behave_rudely(addresses: &[SocketAddr], number: usize) {
    let address = addresses[number % addresses.len()];
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    let request = b"GET /plaintext HTTP/1.1\r\nHost: test\r\n\r\n";
    let sent = [0, 1, request.len() - 1, request.len()][number / 2 % 4];
    // The server may have been faster.
    let _ = stream.write_all(&request[..sent]);
    if (number / 8).is_multiple_of(2) {
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
}

/// Nothing of any connection is left.
fn is_empty(status: &Status) -> bool {
    let levels = levels(status);
    let of_tcp = levels.iter().filter(|((part, _), _)| part == "tcp");
    status.connections.total == 0 && of_tcp.map(|(_, level)| level).sum::<u64>() == 0
}

/// How much of each limited supply is in use, and how many connections have a timer.
fn levels(status: &Status) -> BTreeMap<(String, String), u64> {
    let mut levels = BTreeMap::new();
    for pool in &status.pools {
        let level = levels.entry((pool.part.clone(), pool.name.clone()));
        *level.or_default() += pool.used;
    }
    for group in status.counters.iter().filter(|group| group.part == "tcp") {
        for name in ["timers", "deferred"] {
            let level = levels.entry((group.part.clone(), name.to_owned()));
            *level.or_default() += group.values[name];
        }
    }
    levels
}

fn opened(status: &Status) -> u64 {
    let of_tcp = status.counters.iter().filter(|group| group.part == "tcp");
    of_tcp.map(|group| group.values["passive_opens"]).sum()
}
