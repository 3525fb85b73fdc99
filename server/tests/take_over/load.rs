//! Take-overs while clients ask.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::clients::{Begun, Client, get, stats};
use crate::server::{BAREWIRE, Server, wait_until};
use crate::{Place, STACKS, state_option};

const BUSY: usize = 6;
const IDLE: usize = 20;
const TAKE_OVERS: usize = 5;

#[derive(Default)]
struct Tally {
    counted: u64,
    sum: f64,
    users: HashSet<String>,
    faults: Vec<String>,
}

/// Sends events until it shall end, with a pause after each.
fn client(
    number: usize,
    address: SocketAddr,
    pause: Duration,
    ends: &AtomicBool,
    tally: &Mutex<Tally>,
) {
    let mut client = Client::connect(address).unwrap();
    for count in 0_u32.. {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let user = format!("user{number}-{}", count % 20);
        let value = count % 1000;
        let response = client.event(&user, value);
        let mut tally = tally.lock().unwrap();
        match response {
            Ok(response) if response.status == 200 || response.status == 204 => {
                tally.counted += 1;
                tally.sum += f64::from(value);
                tally.users.insert(user);
                if response.closes {
                    client = Client::connect(address).unwrap();
                }
            }
            Ok(response) => tally.faults.push(format!("status {}", response.status)),
            Err(error) => {
                tally.faults.push(format!("client {number}: {error}"));
                return;
            }
        }
        drop(tally);
        thread::sleep(pause);
    }
}

#[test]
fn no_request_fails_and_every_event_is_counted() {
    for (stack, ip) in [
        ("epoll", "127.0.0.1"),
        ("epoll", "[::1]"),
        ("uring", "127.0.0.1"),
        ("uring", "[::1]"),
    ] {
        take_over_under_load(&mut Place::new(stack, ip, &[]), 0);
    }
}

/// The clients ask at this one of the server's addresses.
pub fn take_over_under_load(place: &mut Place, address: usize) {
    let stack = place.stack;
    place.options.extend(state_option(&place.state()));
    let mut server = place.start();
    let address = server.addresses[address];
    let (ends, tally) = (
        Arc::new(AtomicBool::new(false)),
        Arc::<Mutex<Tally>>::default(),
    );
    let clients: Vec<_> = (0..BUSY + IDLE)
        .map(|number| {
            let (ends, tally) = (Arc::clone(&ends), Arc::clone(&tally));
            let pause = Duration::from_millis(if number < BUSY { 0 } else { 1000 });
            thread::spawn(move || client(number, address, pause, &ends, &tally))
        })
        .collect();
    let counted = || tally.lock().unwrap().counted;
    for _ in 0..TAKE_OVERS {
        let before = counted();
        wait_until("clients go on", || counted() > before + 500);
        let successor = place.take_over();
        let ended = server.wait();
        assert_eq!(ended.code, Some(0), "{stack}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("handed over, with"),
            "{}",
            ended.stderr
        );
        server = successor;
    }
    ends.store(true, Ordering::Relaxed);
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    let tally = tally.lock().unwrap();
    assert_eq!(tally.faults, [""; 0], "{stack} at {address}");
    let expected = (tally.counted, tally.users.len() as u64, tally.sum);
    assert_eq!(stats(address), expected, "{stack} at {address}");
    // The last one keeps all of it.
    assert_eq!(server.terminate().code, Some(0));
    let again = place.start();
    assert_eq!(stats(address), expected);
    assert_eq!(again.terminate().code, Some(0));
}

/// What is busy stays where it is until it is done, and is counted where all is.
#[test]
fn a_request_that_has_begun_is_answered_where_it_began_and_counted_by_the_successor() {
    for stack in STACKS {
        let mut place = Place::new(stack, "127.0.0.1", &[]);
        let first = place.start();
        let address = first.addresses[0];
        let mut idle = Client::connect(address).unwrap();
        assert_eq!(idle.event("a", 1).unwrap().status, 200);
        let mut begun = Begun::at(address);
        // Both have arrived once a later request is answered on a connection of either core.
        wait_until("two connections are busy", || {
            get(address, "/health");
            open_connections(&place, 3)
        });
        let second = place.take_over();
        // The one that was idle goes on at the successor, and is not told of anything.
        let response = idle.event("b", 3).unwrap();
        assert!(response.status == 200 && !response.closes);
        let response = begun.end_event();
        assert!(response.status == 200 && response.closes, "{stack}");
        assert_eq!(stats(address), (3, 3, 6.0), "{stack}");
        let response = begun.end_stats();
        assert!(
            response.says("\"totalRequests\":3,") && response.closes,
            "{stack}"
        );
        drop(begun);
        let ended = first.wait();
        assert_eq!(ended.code, Some(0), "{stack}");
        // It sleeps while it waits for those that stayed.
        let waits: u64 = ended.counters("connections", "waits").iter().sum();
        assert!(waits < 10_000, "{stack}: {}", ended.stderr);
        second.logs("has ended");
        drop(idle);
        assert_eq!(second.terminate().code, Some(0));
    }
}

/// Whether the server has so many connections.
fn open_connections(place: &Place, count: u64) -> bool {
    let mut command = std::process::Command::new(BAREWIRE);
    command.args(["status", "--json", "--interval-ms", "0", "--control"]);
    let output = command.arg(&place.control).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["connections"]["total"].as_u64() == Some(count)
}

#[test]
fn the_operator_finds_the_successor_where_the_predecessor_was() {
    for stack in STACKS {
        let mut place = Place::new(stack, "127.0.0.1", &["--admin-listen", "127.0.0.1:0"]);
        let first = place.start();
        let metrics = |server: &Server| {
            let url = server
                .report
                .iter()
                .find_map(|line| line.strip_prefix("metrics: http://"));
            url.unwrap()
                .split('/')
                .next()
                .unwrap()
                .parse::<SocketAddr>()
                .unwrap()
        };
        let address = metrics(&first);
        assert_eq!(get(address, "/metrics").status, 200);
        let second = place.take_over();
        assert_eq!(metrics(&second), address);
        assert_eq!(first.wait().code, Some(0));
        assert_eq!(get(address, "/metrics").status, 200);
        assert!(place.control.exists());
        let mut stop = std::process::Command::new(BAREWIRE);
        let stopped = stop
            .args(["stop", "--control"])
            .arg(&place.control)
            .output()
            .unwrap();
        assert!(stopped.status.success());
        assert_eq!(second.wait().code, Some(0), "{stack}");
        assert!(!place.control.exists());
    }
}
