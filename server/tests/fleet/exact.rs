//! The fleet's counts are exact, whatever happens to nodes, engine and publications.

use std::env;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Event, Expected, fleet_stats, metric, request, send, wait_until_published};
use crate::engine::{Engine, node};
use crate::proxy::Proxy;
use crate::server::wait_until;

/// Events of `node`, in the `part` of the whole: users that the nodes share, and values that lose digits in any sum of
/// floating-point numbers.
fn events(node: u64, part: u64, count: u64) -> Vec<Event> {
    let value = |number: u64| match number % 4 {
        0 => 1 << 54,
        1 => 1,
        2 => -(1 << 54),
        _ => (number % 1_000) as i64,
    };
    (0..count)
        .map(|number| ((number * 7 + node * 3 + part) % 20_011, value(number)))
        .collect()
}

#[test]
fn three_nodes_an_engine_that_is_killed_and_a_node_that_is() {
    let all: u64 =
        env::var("BAREWIRE_TEST_FLEET_EVENTS").map_or(100_000, |count| count.parse().unwrap());
    let each = all / 3 / 4;
    let mut engine = Engine::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(directory.path().join("proxy.sock"), engine.socket());
    let url = proxy.url();
    let state = directory.path().join("state");
    let with_state = ["--node", "b", "--state", state.to_str().unwrap()];
    let a = node(&url, &["--node", "a"]);
    let b = node(&url, &with_state);
    let c = node(&url, &["--node", "c"]);
    let mut expected = Expected::default();
    let mut part = 0;
    let mut count = |servers: [&crate::server::Server; 3]| {
        part += 1;
        thread::scope(|scope| {
            for (number, server) in servers.iter().enumerate() {
                let events = events(number as u64, part, each);
                expected.add(&events);
                let address = server.addresses[0];
                scope.spawn(move || send(address, &events));
            }
        });
        expected.clone()
    };

    count([&a, &b, &c]).wait_at(a.addresses[0]);

    // The engine dies while they count; what it had not written to its file comes back from the nodes.
    engine.kill();
    let so_far = count([&a, &b, &c]);
    wait_until("the node sees that nobody answers", || {
        metric(&a, "engine_answers") == 0.0
    });
    engine.restart(false);
    so_far.wait_at(b.addresses[0]);

    // It dies and everything is gone.
    engine.kill();
    engine.restart(true);
    for server in [&a, &b, &c] {
        wait_until("the node sees that all is gone", || {
            metric(server, "engine_losses_total") >= 1.0
        });
    }
    so_far.wait_at(c.addresses[0]);

    // A node dies, after its counts were published, and goes on with an old state as another incarnation.
    wait_until_published(&b);
    b.kill();
    let b = node(&url, &with_state);
    count([&a, &b, &c]).wait_at(b.addresses[0]);

    // It stops in order and goes on with the same.
    assert_eq!(b.terminate().code, Some(0));
    let b = node(&url, &with_state);
    let all = count([&a, &b, &c]);
    for server in [&a, &b, &c] {
        all.wait_at(server.addresses[0]);
    }
    assert!(proxy.repeated() > 0);
    let stats = fleet_stats(a.addresses[0]);
    assert_eq!(
        (&stats["nodes"], &stats["silent"]),
        (&Value::from(3), &Value::from(0)),
        "{stats}"
    );
}

/// Most are met by one node only, some by two.
#[test]
fn distinct_users_are_counted_once_each() {
    let all = env::var("BAREWIRE_TEST_FLEET_USERS").map_or(30_000, |all| all.parse().unwrap());
    let engine = Engine::start(&[]);
    let nodes = ["a", "b", "c"].map(|name| node(&engine.url(), &["--node", name]));
    let each = all / 3;
    let mut expected = Expected::default();
    thread::scope(|scope| {
        for (part, node) in (0..).zip(&nodes) {
            let of_next = (part + 1) % 3 * each;
            let users = (part * each..(part + 1) * each).chain(of_next..of_next + each / 10);
            let events: Vec<Event> = users.map(|user| (user, 1)).collect();
            expected.add(&events);
            let address = node.addresses[0];
            scope.spawn(move || send(address, &events));
        }
    });
    for node in &nodes {
        expected.wait_at(node.addresses[0]);
    }
}

#[test]
fn a_reset_reaches_all_nodes_and_forgets_nothing_that_comes_later() {
    let engine = Engine::start(&[]);
    let a = node(&engine.url(), &["--node", "a", "--allow-reset"]);
    let b = node(&engine.url(), &["--node", "b"]);
    let mut expected = Expected::default();
    for (number, server) in [&a, &b].into_iter().enumerate() {
        let events = events(number as u64, 0, 500);
        send(server.addresses[0], &events);
        expected.add(&events);
    }
    expected.wait_at(a.addresses[0]);
    assert_eq!(request(b.addresses[0], "POST", "/reset").0, 403);
    assert_eq!(request(a.addresses[0], "POST", "/reset").0, 202);
    wait_until("all have begun anew", || {
        let stats = fleet_stats(a.addresses[0]);
        stats["totalRequests"] == 0 && stats["resetPending"] == 0
    });
    let mut expected = Expected::default();
    for (number, server) in [&a, &b].into_iter().enumerate() {
        let events = events(number as u64, 1, 300);
        send(server.addresses[0], &events);
        expected.add(&events);
    }
    for server in [&a, &b] {
        expected.wait_at(server.addresses[0]);
    }
}

/// A state of a server that counted alone is counted in the fleet, once, also if its file is put back.
#[test]
fn a_state_that_is_put_back_is_not_counted_twice() {
    let engine = Engine::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let (state, copy) = (
        directory.path().join("state"),
        directory.path().join("copy"),
    );
    let options = ["--state", state.to_str().unwrap()];
    let alone = crate::server::Server::on_loopback(
        "epoll",
        &[&options[..], &["--control", "off"]].concat(),
    );
    let mut expected = Expected::default();
    let first = events(0, 0, 400);
    send(alone.addresses[0], &first);
    assert_eq!(alone.terminate().code, Some(0));
    expected.add(&first);

    // Only this engine's key fits it from here on: the first node brings it.
    let a = node(&engine.url(), &options);
    expected.wait_at(a.addresses[0]);
    assert_eq!(a.terminate().code, Some(0));
    std::fs::copy(&state, &copy).unwrap();
    let a = node(&engine.url(), &options);
    let second = events(1, 1, 400);
    send(a.addresses[0], &second);
    expected.add(&second);
    expected.wait_at(a.addresses[0]);
    assert_eq!(a.terminate().code, Some(0));

    std::fs::copy(&copy, &state).unwrap();
    let a = node(&engine.url(), &options);
    let third = events(2, 2, 400);
    send(a.addresses[0], &third);
    expected.add(&third);
    expected.wait_at(a.addresses[0]);
    a.signal(Signal::TERM);
}
