//! What every stack guarantees about events. Each test begins with a server that has counted nothing.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::event::{Framing, event};
use crate::go_client::GoClient;
use crate::server::{Server, Stats, read_response};

pub fn runs_are_exact_one_after_the_other(server: &Server) {
    server.load("--requests 100000 --concurrency 300 --unique-users 75000");
    server.load("--requests 50000 --concurrency 300 --values integer --unique-users 75000");
    server.load("--requests 50000 --concurrency 30 --pipeline 16 --unique-users 75000");
    assert_eq!(server.stats().total, 200_000);
}

pub fn a_million_is_exact_one_after_the_other(server: &Server) {
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

pub fn an_event_counts_once_however_it_is_framed_and_split(server: &Server) {
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

pub fn curl_delivers_events(server: &Server) {
    let url = format!("http://{}/event", server.address);
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

/// At most twice as many connections as requests at a time, or nothing is left of keeping them alive: the
/// challenge's client, scaled down tenfold in its pool and further in its requests.
pub fn clients_that_leave_answers_unread_keep_their_connections(server: &Server) {
    let client = GoClient {
        requests: 20_000,
        concurrency: 100,
        idle_max: 100,
        unique_users: 1_500,
    };
    let opened = client.run(server);
    assert!(opened <= 200, "{opened} connections");
    let stats = server.stats();
    assert_eq!((stats.total, stats.users), (20_000, 1_500));
}

pub fn what_is_no_event_does_not_count(server: &Server) {
    let mut connection = server.connect();
    for body in [
        "",
        "{}",
        "[]",
        r#"{"userId":"","value":1}"#,
        r#"{"userId":"a","value":"1"}"#,
        r#"{"userId":"a","value":1}x"#,
    ] {
        connection.write_all(&Framing::Length.frame(body)).unwrap();
        assert_eq!(read_response(&mut connection).0, 400, "{body}");
    }
    assert_eq!(server.stats().total, 0);
}

/// The client ends in the middle of a request, at every byte of it, with an event counted before.
pub fn an_event_that_was_cut_off_does_not_count(server: &Server) {
    let mut acknowledged = 0;
    for framing in [Framing::Length, Framing::Chunked { chunk_bytes: 9 }] {
        let request = framing.frame(&event("mortal", 1.0));
        for sent in 0..request.len() {
            let mut connection = server.connect();
            connection
                .write_all(&[&request, &request[..sent]].concat())
                .unwrap();
            assert_eq!(read_response(&mut connection).0, 200);
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

/// The server cannot know that its answer is not read: what it received counts, and once.
pub fn an_event_whose_answer_is_lost_counts_once(server: &Server) {
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
