//! An engine that does not do what it should: serving goes on, and nothing is lost.

use std::process::Command;

use rustix::process::Signal;

use crate::client::{Event, Expected, fleet_stats, metric, request, send};
use crate::engine::{Engine, node};
use crate::server::{BAREWIRE, wait_until};

fn events(from: u64) -> Vec<Event> {
    (from..from + 2_000)
        .map(|number| (number, number as i64))
        .collect()
}

#[test]
fn an_engine_that_stops_answering_stops_nobody() {
    let engine = Engine::start(&[]);
    let a = node(&engine.url(), &["--counts-timeout-ms", "200"]);
    let mut expected = Expected::default();
    let first = events(0);
    send(a.addresses[0], &first);
    expected.add(&first);
    expected.wait_at(a.addresses[0]);

    engine.signal(Signal::STOP);
    let second = events(1_000);
    send(a.addresses[0], &second);
    expected.add(&second);
    wait_until("the metrics say so", || {
        metric(&a, "engine_answers") == 0.0
            && metric(&a, "failed_timeout_total") >= 1.0
            && metric(&a, "events_unpublished") == 2_000.0
    });
    assert_eq!(fleet_stats(a.addresses[0])["totalRequests"], 2_000);
    a.logs("does not answer within 200 ms");

    engine.signal(Signal::CONT);
    expected.wait_at(a.addresses[0]);
    a.logs("answers again");
}

#[test]
fn a_full_engine_is_named_and_waited_for() {
    let engine = Engine::start(&["--maxmemory-policy", "noeviction"]);
    let a = node(&engine.url(), &[]);
    assert!(
        engine
            .ask(&["CONFIG", "SET", "maxmemory", "1"])
            .starts_with("+OK")
    );
    let counted = events(0);
    send(a.addresses[0], &counted);
    a.logs("the engine is full");
    wait_until("it is counted", || metric(&a, "failed_full_total") >= 1.0);
    assert!(
        engine
            .ask(&["CONFIG", "SET", "maxmemory", "0"])
            .starts_with("+OK")
    );
    let mut expected = Expected::default();
    expected.add(&counted);
    expected.wait_at(a.addresses[0]);
}

#[test]
fn a_node_that_is_gone_is_silent_and_counted() {
    let engine = Engine::start(&[]);
    let a = node(
        &engine.url(),
        &["--node", "a", "--counts-silent-ms", "1500"],
    );
    let b = node(&engine.url(), &["--node", "b"]);
    let mut expected = Expected::default();
    let counted = events(0);
    send(b.addresses[0], &counted);
    expected.add(&counted);
    expected.wait_at(a.addresses[0]);
    b.kill();
    wait_until("b is silent", || {
        let stats = fleet_stats(a.addresses[0]);
        stats["silent"] == 1 && stats["silentNodes"][0] == "b"
    });
    expected.wait_at(a.addresses[0]);
    assert_eq!(metric(&a, "nodes_silent"), 1.0);
}

/// TLS, a user of the engine's own with no more rights than it needs, another database and another prefix.
#[test]
fn tls_and_a_user_with_few_rights() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        directory
            .path()
            .join(name)
            .into_os_string()
            .into_string()
            .unwrap()
    };
    let certificate = Command::new(BAREWIRE)
        .args([
            "certificate",
            "--self-signed",
            "--name",
            "localhost",
            "--directory",
        ])
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(certificate.status.success(), "{certificate:?}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let engine = Engine::start(&[
        "--tls-port",
        &port,
        "--bind",
        "127.0.0.1",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ]);
    let rights = "+eval +get +set +setnx +hget +hset +hgetall +hvals +sadd +scard +unlink +type +time +select";
    let mut user = vec!["ACL", "SETUSER", "counter", "on", ">se:cret", "~{shop}:*"];
    user.extend(rights.split(' '));
    assert_eq!(engine.ask(&user), "+OK\r\n");

    let url = format!("rediss://counter:se%3Acret@localhost:{port}/1");
    let a = node(
        &url,
        &[
            "--counts-ca",
            &certificate,
            "--counts-prefix",
            "shop",
            "--stats-scope",
            "fleet",
        ],
    );
    let mut expected = Expected::default();
    let counted = events(0);
    send(a.addresses[0], &counted);
    expected.add(&counted);
    expected.wait_at(a.addresses[0]);
    let (_, by_default) = request(a.addresses[0], "GET", "/stats");
    assert!(by_default.contains("ageMs"), "{by_default}");
    let (_, own) = request(a.addresses[0], "GET", "/stats?scope=server");
    assert!(!own.contains("ageMs"), "{own}");
    assert_eq!(request(a.addresses[0], "GET", "/stats?scope=galaxy").0, 400);

    // A connection that is lost is made again, although the server may do little by now.
    engine.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    let more = events(5_000);
    send(a.addresses[0], &more);
    expected.add(&more);
    expected.wait_at(a.addresses[0]);
}
