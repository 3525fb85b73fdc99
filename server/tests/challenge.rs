//! The 1-million-request challenge from end to end: whatever way an event comes, it counts once.
//!
//! Every test runs on each of the kernel's stacks, on all cores, over loopback, and asks for
//! `/stats` on connections of their own, so that other cores than the one that counted may answer.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use barewire::events::{Events, EventsConfig};
use barewire::http::{HttpCounters, Limits};
use barewire::load::{self, Report};
use barewire::site::{self, Site};
use barewire::stacks::kernel::KernelConfig;
use barewire::stacks::{Running, Stack};
use barewire_stack::lifecycle::{Lifecycle, Phase};
use clap::Parser;
use rustix::net::sockopt::set_socket_linger;

macro_rules! on_each_stack {
    ($($(#[$attribute:meta])* $test:ident)+) => {
        #[cfg(feature = "epoll")]
        mod epoll {
            $(
                #[test]
                $(#[$attribute])*
                fn $test() {
                    let start = |config| barewire::stacks::epoll::Epoll { config };
                    super::$test(&super::Server::start(start));
                }
            )+
        }
    };
}

on_each_stack! {
    runs_are_exact_one_after_the_other
    #[ignore = "takes a minute; meant for a release build"]
    a_million_is_exact_one_after_the_other
    an_event_counts_once_however_it_is_framed_and_split
    curl_delivers_events
    what_is_no_event_does_not_count
    an_event_that_was_cut_off_does_not_count
    an_event_whose_answer_is_lost_counts_once
}

fn runs_are_exact_one_after_the_other(server: &Server) {
    server.load("--requests 100000 --concurrency 300 --unique-users 75000");
    server.load("--requests 50000 --concurrency 300 --values integer --unique-users 75000");
    server.load("--requests 50000 --concurrency 30 --pipeline 16 --unique-users 75000");
    assert_eq!(server.stats().total, 200_000);
}

fn a_million_is_exact_one_after_the_other(server: &Server) {
    for values in ["official", "integer", "official", "integer"] {
        server.load(&format!("--values {values} --unique-users 75000"));
    }
    let sum = 2.0 * (500_000_000.0 + 499_500_000.0);
    let expected = Stats {
        total: 4_000_000,
        users: 75_000,
        sum,
        avg: sum / 4e6,
    };
    assert_eq!(server.stats(), expected);
}

fn an_event_counts_once_however_it_is_framed_and_split(server: &Server) {
    let mut expected = server.stats();
    for framing in [
        Framing::Length,
        Framing::Chunked { chunk_bytes: 1000 },
        Framing::Chunked { chunk_bytes: 1 },
    ] {
        for (pieces_of, pipelined) in [(usize::MAX, 1), (1, 1), (7, 3), (usize::MAX, 20), (100, 20)]
        {
            let mut connection = server.connect();
            let user = format!("{framing:?} {pieces_of} {pipelined}");
            let events = framing.frame(&event(&user, 0.1)).repeat(pipelined);
            for piece in events.chunks(pieces_of) {
                connection.write_all(piece).unwrap();
            }
            for _ in 0..pipelined {
                let (status, body) = read_response(&mut connection);
                assert_eq!(status, 200, "{user}: {}", body.escape_ascii());
            }
            // The product is what the exact sum of as many tenths is when it is rounded once.
            expected.total += pipelined as u64;
            expected.users += 1;
            expected.sum = expected.total as f64 * 0.1;
            let stats = server.stats();
            assert_eq!(
                (stats.total, stats.users),
                (expected.total, expected.users),
                "{user}"
            );
            assert_eq!(stats.sum, expected.sum, "{user}");
        }
    }
}

fn curl_delivers_events(server: &Server) {
    let url = format!("http://{}/event", server.address());
    let curl = |options: &[&str], events: usize| {
        let before = server.stats().total;
        let body = event("curl", 0.5);
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--data-binary", &body])
            .args(options)
            .args(std::iter::repeat_n(&url, events))
            .stdin(Stdio::null())
            .output()
            .expect("curl is needed for this test");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "curl {options:?}: {message}");
        assert_eq!(server.stats().total - before, events as u64, "{options:?}");
    };
    curl(&[], 1);
    curl(&[], 5);
    curl(&["--header", "Transfer-Encoding: chunked"], 3);
    curl(&["--header", "Expect: 100-continue"], 1);
    curl(&["--header", "Connection: close"], 2);
    curl(&["--http1.0"], 2);
    assert_eq!(
        server.stats(),
        Stats {
            total: 14,
            users: 1,
            sum: 7.0,
            avg: 0.5
        }
    );
}

fn what_is_no_event_does_not_count(server: &Server) {
    let mut connection = server.connect();
    for body in [
        "",
        "{}",
        "[]",
        r#"{"userId":"a","value":"1"}"#,
        r#"{"userId":"a","value":1}x"#,
    ] {
        connection.write_all(&Framing::Length.frame(body)).unwrap();
        assert_eq!(read_status(&mut connection), 400, "{body}");
    }
    assert_eq!(server.stats().total, 0);
}

/// The client dies in the middle of a request, at every byte of it, with an event counted before.
fn an_event_that_was_cut_off_does_not_count(server: &Server) {
    let mut acknowledged = 0;
    for framing in [Framing::Length, Framing::Chunked { chunk_bytes: 9 }] {
        let request = framing.frame(&event("mortal", 1.0));
        for sent in 0..request.len() {
            let mut connection = server.connect();
            connection
                .write_all(&[&request, &request[..sent]].concat())
                .unwrap();
            assert_eq!(read_status(&mut connection), 200);
            acknowledged += 1;
            if sent % 2 == 0 {
                set_socket_linger(&connection, Some(Duration::ZERO)).unwrap();
            }
            drop(connection);
        }
    }
    assert_eq!(server.stats().total, acknowledged);
    // The half events must not spoil the next whole one either.
    server.load("--requests 1000 --concurrency 10");
    assert_eq!(server.stats().total, acknowledged + 1000);
}

/// The server cannot know that nobody reads its answer: what it received counts, and once.
fn an_event_whose_answer_is_lost_counts_once(server: &Server) {
    for total in 1..=50 {
        let mut connection = server.connect();
        connection
            .write_all(&Framing::Length.frame(&event("absent", 1.0)))
            .unwrap();
        while server.stats().total < total {
            std::thread::yield_now();
        }
        set_socket_linger(&connection, Some(Duration::ZERO)).unwrap();
        drop(connection);
        assert_eq!(server.stats().total, total);
    }
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    Chunked { chunk_bytes: usize },
}

impl Framing {
    fn frame(self, body: &str) -> Vec<u8> {
        let mut request = b"POST /event HTTP/1.1\r\nHost: test\r\n".to_vec();
        match self {
            Framing::Length => {
                write!(request, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
            Framing::Chunked { chunk_bytes } => {
                write!(request, "Transfer-Encoding: chunked\r\n\r\n").unwrap();
                for chunk in body.as_bytes().chunks(chunk_bytes) {
                    write!(request, "{:x}\r\n", chunk.len()).unwrap();
                    request.extend_from_slice(chunk);
                    request.extend_from_slice(b"\r\n");
                }
                request.extend_from_slice(b"0\r\n\r\n");
            }
        }
        request
    }
}

fn event(user: &str, value: f64) -> String {
    format!(r#"{{"userId":"{user}","value":{value:?}}}"#)
}

/// Reads one response that has a length; its status.
fn read_status(connection: &mut TcpStream) -> u16 {
    read_response(connection).0
}

/// Reads one response that has a length, and no byte more.
fn read_response(connection: &mut TcpStream) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match connection.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => panic!("{other:?} behind {}", head.escape_ascii()),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), body)
}

#[derive(Debug, PartialEq)]
struct Stats {
    total: u64,
    users: u64,
    sum: f64,
    avg: f64,
}

/// A server on all cores for the length of a test.
struct Server {
    running: Running,
    lifecycle: Lifecycle,
}

impl Server {
    fn start<St: Stack>(stack: impl FnOnce(KernelConfig) -> St) -> Self {
        let cores = available_parallelism().unwrap().get();
        let events = Events::new(EventsConfig::new(cores)).unwrap();
        let routes = site::routes(false);
        let counters = Arc::new(HttpCounters::new(&routes));
        let make_service = move |core| {
            let site = Site {
                events: events.shard(core),
            };
            site::responder(&routes, site, Limits::default(), Arc::clone(&counters))
        };
        let lifecycle = Lifecycle::new();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let running = stack(KernelConfig::new(listen)).start(make_service, &lifecycle);
        Server {
            running: running.unwrap(),
            lifecycle,
        }
    }

    fn address(&self) -> SocketAddr {
        self.running.addresses[0]
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address()).unwrap();
        connection.set_nodelay(true).unwrap();
        connection
    }

    fn stats(&self) -> Stats {
        let mut connection = self.connect();
        connection
            .write_all(b"GET /stats HTTP/1.1\r\nHost: test\r\n\r\n")
            .unwrap();
        let (status, body) = read_response(&mut connection);
        assert_eq!(status, 200);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        Stats {
            total: json["totalRequests"].as_u64().unwrap(),
            users: json["uniqueUsers"].as_u64().unwrap(),
            sum: json["sum"].as_f64().unwrap(),
            avg: json["avg"].as_f64().unwrap(),
        }
    }

    /// Runs `barewire load`, which must find nothing wrong.
    fn load(&self, options: &str) -> Report {
        let target = format!("http://{}", self.address());
        let mut words = vec!["load", "--target", &target, "--timeout-ms", "60000"];
        words.extend(options.split_whitespace());
        let report = load::measure(load::Args::try_parse_from(words).unwrap()).unwrap();
        assert!(report.is_good(), "{report}");
        report
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stop);
        for core in self.running.cores.drain(..) {
            let ended = core.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}
