//! The kernel-stack twins, over the loopback interface.

use rustix::process::Signal;

use crate::http::Client;
use crate::server::Server;

pub const STACKS: &[&str] = &[
    #[cfg(feature = "epoll")]
    "epoll",
    #[cfg(feature = "uring")]
    "uring",
];

#[test]
fn every_stack_answers_alike() {
    for stack in STACKS {
        let server = Server::on_loopback(stack, &["--test-routes"]);
        let cases = barewire_conformance::check_over_tcp(server.addresses[0])
            .unwrap_or_else(|differences| panic!("{stack}:\n{}", differences.join("\n")));
        let ended = server.terminate();
        let accepted: u64 = ended.counters("connections", "accepted").iter().sum();
        assert_eq!(accepted, 2 * cases as u64, "{stack}: {}", ended.stderr);
        assert!(ended.served() > 0, "{stack}");
    }
}

#[test]
fn a_signal_lets_requests_in_flight_finish() {
    for (stack, signal) in STACKS
        .iter()
        .flat_map(|stack| [(stack, Signal::TERM), (stack, Signal::INT)])
    {
        let server = Server::on_loopback(stack, &[]);
        let mut busy = Client::connect(server.addresses[0]);
        busy.get("/plaintext");
        busy.send("GET /plaintext HTTP/1.1\r\nHost: te");
        busy.is_read();
        let mut idle = Client::connect(server.addresses[0]);
        idle.get("/plaintext");
        server.signal(signal);

        // An idle connection ends at once; from then on the server drains, on whichever core.
        assert_eq!(idle.rest(), b"", "{stack}");
        busy.send("st\r\n\r\n");
        let last = busy.receive(false);
        assert_eq!(
            (last.status, last.field("connection")),
            (200, Some("close")),
            "{stack}"
        );
        drop(busy);
        assert_eq!(server.wait().served(), 3, "{stack}");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    for stack in STACKS {
        let server = Server::on_loopback(stack, &["--drain-timeout-ms", "3600000"]);
        let mut busy = Client::connect(server.addresses[0]);
        busy.send("GET /plaintext HTTP/1.1\r\n");
        busy.is_read();
        let mut idle = Client::connect(server.addresses[0]);
        idle.get("/plaintext");
        server.signal(Signal::TERM);
        assert_eq!(idle.rest(), b"", "{stack}");
        server.signal(Signal::INT);
        assert_eq!(server.wait().code, Some(128 + 2), "{stack}");
        busy.rest();
    }
}

#[test]
fn the_drain_deadline_ends_what_does_not_end_by_itself() {
    for stack in STACKS {
        let server = Server::on_loopback(stack, &["--drain-timeout-ms", "100"]);
        let mut busy = Client::connect(server.addresses[0]);
        busy.send("GET /plaintext HTTP/1.1\r\n");
        busy.is_read();
        Client::connect(server.addresses[0]).get("/plaintext");
        let ended = server.terminate();
        assert_eq!(ended.served(), 1, "{stack}");
        assert!(
            ended.stderr.contains("drain deadline passed"),
            "{stack}: {}",
            ended.stderr
        );
    }
}

/// Sends a body of `bytes`; the status, and how much of it came back.
pub fn echoed(address: std::net::SocketAddr, bytes: usize) -> (u16, usize) {
    let mut client = Client::connect(address);
    client.send(format!(
        "POST /test/body HTTP/1.1\r\nHost: test\r\nContent-Length: {bytes}\r\n\r\n"
    ));
    client.send("x".repeat(bytes));
    let response = client.receive(false);
    (response.status, response.body.len())
}

#[test]
fn a_body_limit_that_is_asked_for_can_be_had() {
    for (stack, max) in STACKS
        .iter()
        .flat_map(|stack| [1_000, 65_536, 1_000_000].map(|max| (stack, max)))
    {
        let limit = max.to_string();
        let server = Server::on_loopback(stack, &["--test-routes", "--body-bytes-max", &limit]);
        let address = server.addresses[0];
        assert_eq!(echoed(address, max), (200, max), "{stack}, {max}");
        // Refused by its length alone, before it is sent.
        let mut client = Client::connect(address);
        client.send(format!(
            "POST /test/body HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            max + 1
        ));
        assert_eq!(client.receive(false).status, 413, "{stack}, {max}");
    }
}

/// Tables for a million users and buffers for thousands of connections cost nothing until they are used.
#[test]
fn an_idle_server_takes_little_memory() {
    for stack in STACKS {
        let server = Server::on_loopback(stack, &[]);
        let mut client = Client::connect(server.addresses[0]);
        client.get("/plaintext");
        let idle = anonymous_kib(&server);
        // What is mapped from the binary depends on how it was built, and is not counted here.
        assert!(idle <= 4 * 1024, "{stack}: {idle} KiB");

        let body = r#"{"userId":"somebody","value":1}"#;
        let head = format!("Host: test\r\nContent-Length: {}", body.len());
        client.send(format!("POST /event HTTP/1.1\r\n{head}\r\n\r\n{body}"));
        assert_eq!(client.receive(false).status, 200);
        // A first user costs a huge page in each of two tables, at most.
        let used = anonymous_kib(&server);
        assert!(
            used <= idle + 5 * 1024,
            "{stack}: {idle} KiB, then {used} KiB"
        );
        drop(client);
        server.terminate().served();
    }
}

/// Memory that the process has of its own, in KiB.
pub fn anonymous_kib(server: &Server) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid())).unwrap();
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let amount = line.unwrap().trim().strip_suffix(" kB").unwrap();
    amount.parse().unwrap()
}
