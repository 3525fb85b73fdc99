//! Whole runs over loopback, against a server that keeps to the challenge or misbehaves.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clap::Parser;
use rustix::net::sockopt::set_socket_linger;

use super::{Args, Printed, measure};
use barewire_load::report::Report;
use barewire_load::tally::Failures;

/// What a [`Server`] does about a request.
enum Act {
    /// Answers with this status and counts an event so many times.
    Answer { status: u16, count: u32 },
    /// Writes these pieces, each in a segment of its own.
    Write(Vec<&'static [u8]>),
    /// Writes this, then closes in order.
    Close(&'static [u8]),
    /// Resets the connection.
    Reset,
    /// Answers after this time.
    Delay(Duration),
    /// Says nothing.
    Ignore,
    /// Resets, and accepts no more connections.
    Die,
}

const HONEST: Act = Act::Answer {
    status: 200,
    count: 1,
};

/// A server of the challenge with a thread for each connection.
struct Server {
    port: u16,
}

/// Twice the value of every event, by user.
type Events = Vec<(String, u64)>;

impl Server {
    /// Does to request number `n`, counted from 0 without those for `/stats`, what `act` says.
    fn start(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new((Mutex::new((0, Events::new())), act));
        thread::spawn(move || {
            let listener = Arc::new(Mutex::new(Some(listener)));
            loop {
                let Some(socket) = listener
                    .lock()
                    .unwrap()
                    .as_ref()
                    .map(|l| l.try_clone().unwrap())
                else {
                    return;
                };
                let (stream, _) = socket.accept().unwrap();
                let (state, listener) = (Arc::clone(&state), Arc::clone(&listener));
                thread::spawn(move || {
                    let (state, act) = &*state;
                    if serve(stream, state, act).is_none() {
                        // Wakes the accepting thread up and lets it find nothing to accept from.
                        listener.lock().unwrap().take();
                        let _ = TcpStream::connect(("127.0.0.1", port));
                    }
                });
            }
        });
        Server { port }
    }

    fn load(&self, options: &str) -> anyhow::Result<Report> {
        let target = format!("http://127.0.0.1:{}", self.port);
        let mut words = vec!["load", "--target", &target, "--threads", "2"];
        words.extend(options.split_whitespace());
        if !words.contains(&"--timeout-ms") {
            words.extend(["--timeout-ms", "20000"]);
        }
        measure(Args::try_parse_from(words).unwrap())
    }
}

/// Serves one connection; `None` when the server is to die.
fn serve(
    mut stream: TcpStream,
    state: &Mutex<(usize, Events)>,
    act: &impl Fn(usize) -> Act,
) -> Option<()> {
    stream.set_nodelay(true).unwrap();
    let mut held = Vec::new();
    while let Some((head, body)) = read_request(&mut stream, &mut held) {
        if head.starts_with("GET /stats ") {
            let body = stats(&state.lock().unwrap().1);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
            continue;
        }
        let mut counted = state.lock().unwrap();
        let number = counted.0;
        counted.0 += 1;
        let act = act(number);
        if let Act::Answer { count, .. } = act {
            let event = parse_event(&body);
            counted.1.extend((0..count).filter_map(|_| event.clone()));
        }
        drop(counted);
        match act {
            Act::Answer { status, .. } => {
                let reply = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
                let _ = stream.write_all(reply.as_bytes());
            }
            Act::Write(pieces) => {
                for piece in pieces {
                    let _ = stream.write_all(piece);
                    thread::yield_now();
                }
            }
            Act::Close(bytes) => {
                let _ = stream.write_all(bytes);
                return Some(());
            }
            Act::Reset | Act::Die => {
                set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                return matches!(act, Act::Reset).then_some(());
            }
            Act::Delay(time) => {
                thread::sleep(time);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            Act::Ignore => {}
        }
    }
    Some(())
}

/// The next head and body; `None` when the client is gone.
fn read_request(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        let text = String::from_utf8(held.clone()).unwrap();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            if let Some(body) = rest.get(..length) {
                held.drain(..head.len() + 4 + length);
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(count) => held.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn parse_event(body: &str) -> Option<(String, u64)> {
    let event: serde_json::Value = serde_json::from_str(body).ok()?;
    let halves = event["value"].as_f64()? * 2.0;
    Some((event["userId"].as_str()?.to_owned(), halves as u64))
}

fn stats(events: &Events) -> String {
    let users: std::collections::HashSet<_> = events.iter().map(|(user, _)| user).collect();
    let sum = events.iter().map(|(_, halves)| halves).sum::<u64>() as f64 / 2.0;
    let avg = sum / events.len().max(1) as f64;
    let (total, users) = (events.len(), users.len());
    format!(r#"{{"totalRequests":{total},"uniqueUsers":{users},"sum":{sum},"avg":{avg}}}"#)
}

fn printed(report: &Report) -> String {
    let latency = false;
    Printed { report, latency }.to_string()
}

fn wrong(report: &Report) -> Vec<&'static str> {
    let events = report.events.as_ref().unwrap();
    let verification = events.verification.as_ref().unwrap();
    verification.wrong().map(|check| check.name).collect()
}

#[test]
fn the_challenge_is_exact_run_after_run() {
    let server = Server::start(|_| HONEST);
    for (options, users) in [
        ("--requests 3000 --concurrency 20", 3000),
        (
            "--requests 3000 --concurrency 7 --values integer --unique-users 3000",
            3000,
        ),
        ("--requests 4000 --concurrency 20 --pipeline 8", 4000),
        (
            "--requests 4000 --concurrency 3 --values integer --rate 20000",
            4000,
        ),
        ("--requests 3 --concurrency 20", 4000),
    ] {
        let report = server.load(options).unwrap();
        assert!(report.is_good(), "{report:?}");
        assert_eq!(report.events.unwrap().after.unwrap().unique_users, users);
    }
}

#[test]
fn every_connection_of_a_churn_asks_one_request_and_none_is_lost() {
    let server = Server::start(|_| HONEST);
    let options = "--requests 500 --concurrency 20 --connections-per-second 2000";
    let report = server.load(options).unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.responses, report.connections_opened), (500, 500));
    assert_eq!(report.events.unwrap().after.unwrap().unique_users, 500);
    // Also when the connections are far fewer than are due.
    let report = server.load("--requests 300 --concurrency 2 --connections-per-second 1e9");
    assert_eq!(report.unwrap().responses, 300);
}

#[test]
fn an_answer_with_another_body_is_found() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const OTHER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhallo";
    let server = Server::start(|number| match number {
        70 => Act::Write(vec![OTHER]),
        71 => Act::Write(vec![&OK[..20], &OK[20..40], &OK[40..]]),
        _ => Act::Write(vec![OK]),
    });
    let report = server.load("--path /x --requests 200 --concurrency 4 --verify body");
    let report = report.unwrap();
    assert_eq!((report.responses, report.wrong_bodies), (200, 1));
    assert!(!report.is_good() && printed(&report).contains("another body: 1"));
    let report = server
        .load("--path /x --requests 200 --verify body")
        .unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn a_lost_and_a_doubled_event_are_found() {
    for (count, sign) in [
        (0, "+2999, must be +3000: 1 lost"),
        (2, "+3001, must be +3000: 1 too many"),
    ] {
        let server = Server::start(move |number| match number {
            1234 => Act::Answer { status: 200, count },
            _ => HONEST,
        });
        let report = server.load("--requests 3000 --concurrency 10").unwrap();
        assert!(!report.is_good());
        assert!(wrong(&report).starts_with(&["totalRequests"]), "{report:?}");
        assert!(wrong(&report).contains(&"sum"), "{report:?}");
        assert!(printed(&report).contains(sign), "{report:?}");
        assert_eq!(report.failures, Failures::default());
    }
}

#[test]
fn a_refused_event_must_not_be_counted() {
    for (count, is_right) in [(0, true), (1, false)] {
        let server = Server::start(move |number| match number {
            100 => Act::Answer { status: 507, count },
            _ => HONEST,
        });
        let report = server.load("--requests 1000 --concurrency 10").unwrap();
        assert!(!report.is_good());
        assert_eq!(report.statuses[&507], 1);
        assert_eq!(wrong(&report).is_empty(), is_right, "{report:?}");
    }
}

#[test]
fn resets_are_counted_and_their_events_may_be_counted_or_not() {
    let server = Server::start(|number| {
        if number % 100 == 50 {
            Act::Reset
        } else {
            HONEST
        }
    });
    let report = server.load("--requests 1000 --concurrency 10").unwrap();
    assert!(!report.is_good());
    assert_eq!(
        (report.failures.reset, report.unanswered),
        (10, 10),
        "{report:?}"
    );
    assert_eq!(report.responses, 990);
    assert!(wrong(&report).is_empty(), "{report:?}");
}

#[test]
fn closing_without_an_answer_is_a_failure() {
    let server = Server::start(|number| {
        if number == 5 {
            Act::Close(b"HTTP/1.1 200")
        } else {
            HONEST
        }
    });
    let report = server
        .load("--path /x --requests 100 --concurrency 4")
        .unwrap();
    assert_eq!(
        (report.failures.closed, report.unanswered, report.responses),
        (1, 1, 99),
        "{report:?}"
    );
    assert!(!report.is_good());
}

#[test]
fn a_server_may_close_after_every_answer() {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let server = Server::start(|_| Act::Close(answer));
    let report = server
        .load("--path /x --requests 100 --concurrency 4")
        .unwrap();
    assert!(report.is_good(), "{report:?}");
    assert!(report.reconnects >= 96, "{report:?}");

    let server = Server::start(|_| Act::Close(b"HTTP/1.0 200 OK\r\n\r\nuntil the end"));
    let report = server
        .load("--path /x --requests 100 --concurrency 4")
        .unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn answers_may_come_in_pieces() {
    let server = Server::start(|_| {
        Act::Write(vec![
            b"HTTP/1.1 200 OK\r\nTransfer-En",
            b"coding: chunked\r\n\r\n5\r\nhel",
            b"lo\r",
            b"\n0\r\n",
            b"\r\n",
        ])
    });
    let report = server
        .load("--path /x --requests 200 --concurrency 4 --pipeline 4")
        .unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!(report.statuses[&200], 200);
}

#[test]
fn garbage_is_a_parse_error_with_an_example() {
    let server = Server::start(|number| match number {
        7 => Act::Write(vec![b"SSH-2.0-OpenSSH\r\n"]),
        _ => HONEST,
    });
    let report = server
        .load("--path /x --requests 100 --concurrency 4")
        .unwrap();
    assert_eq!(
        (report.failures.parse, report.unanswered, report.responses),
        (1, 1, 99),
        "{report:?}"
    );
    assert!(report.first_failure.unwrap().contains("SSH-2.0"));
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let server = Server::start(|_| Act::Ignore);
    let report = server
        .load("--path /x --requests 100000 --concurrency 4 --timeout-ms 100")
        .unwrap();
    assert!(report.gave_up && !report.is_good(), "{report:?}");
    assert!(
        report.failures.timeout >= 4 && report.responses == 0,
        "{report:?}"
    );
    assert_eq!(report.failures.timeout, report.unanswered);
}

#[test]
fn a_server_that_dies_is_given_up_and_its_totals_are_unverifiable() {
    let server = Server::start(|number| if number >= 500 { Act::Die } else { HONEST });
    let report = server
        .load("--requests 100000 --concurrency 4 --timeout-ms 200")
        .unwrap();
    assert!(report.gave_up && !report.is_good(), "{report:?}");
    assert_eq!(report.responses, 500, "{report:?}");
    assert!(report.failures.connect > 0, "{report:?}");
    assert!(
        report.events.as_ref().unwrap().unverifiable.is_some(),
        "{report:?}"
    );
}

#[test]
fn statuses_are_counted() {
    let server = Server::start(|number| {
        let status = [200, 304, 404, 503][number % 4];
        match status {
            304 => Act::Write(vec![b"HTTP/1.1 304 Not Modified\r\n\r\n"]),
            status => Act::Answer { status, count: 0 },
        }
    });
    let report = server
        .load("--path /x --requests 400 --concurrency 4")
        .unwrap();
    assert!(!report.is_good());
    assert_eq!(
        report.statuses.into_iter().collect::<Vec<_>>(),
        [(200, 100), (304, 100), (404, 100), (503, 100)]
    );
}

#[test]
fn a_run_can_end_by_time() {
    let server = Server::start(|_| HONEST);
    let report = server.load("--duration 200ms --concurrency 4").unwrap();
    assert!(report.is_good() && !report.gave_up, "{report:?}");
    let report = server
        .load("--path /x --duration 200ms --rate 500 --concurrency 4")
        .unwrap();
    assert!(report.is_good() && report.responses <= 100, "{report:?}");
}

#[test]
fn a_late_answer_neither_counts_nor_makes_the_window_longer() {
    let server = Server::start(|number| match number {
        0 => Act::Delay(Duration::from_millis(700)),
        _ => HONEST,
    });
    let report = server.load("--path /x --duration 200ms --concurrency 4");
    let report = report.unwrap();
    assert!(report.is_good(), "{report:?}");
    let window = &report.window;
    assert_eq!(window.length_s, 0.2);
    assert_eq!(window.responses_per_s, window.responses as f64 / 0.2);
    assert!(window.responses < report.responses && report.lasted_s >= 0.7);
    let counted: u64 = window.seconds.iter().map(|second| second.responses).sum();
    assert_eq!(counted, window.responses);
    assert!(
        report.latency.max_us >= 700e3,
        "the late answer is left out of the latency"
    );
    assert!(
        printed(&report).contains("more came outside of this window"),
        "{report:?}"
    );
}

#[test]
fn an_open_loop_that_ends_in_time_is_as_long_as_its_schedule() {
    let server = Server::start(|_| HONEST);
    let options = "--path /x --requests 20 --rate 100 --duration 10s --concurrency 4";
    let report = server.load(options).unwrap();
    assert!(report.is_good(), "{report:?}");
    assert!((0.2..10.0).contains(&report.window.length_s), "{report:?}");
    assert_eq!(report.window.responses, 20);
}

#[test]
fn a_rate_that_is_not_reached_is_remarked() {
    // Two connections, each 5 ms busy: at most 400 requests a second.
    let server = Server::start(|_| Act::Delay(Duration::from_millis(5)));
    let options = "--path /x --duration 500ms --warm-up 100ms --rate 10000 --concurrency 2";
    let report = server.load(options).unwrap();
    assert!(report.reached.unwrap() < 0.05, "{report:?}");
    assert!(
        printed(&report).contains("was not reached"),
        "{}",
        printed(&report)
    );
    assert_eq!(report.window.warm_up_s, 0.1);
    let report = server.load("--path /x --requests 5 --rate 5 --concurrency 2");
    assert_eq!(report.unwrap().reached, None);
}

#[test]
fn whatever_is_wrong_is_said_in_one_line() {
    let server = Server::start(|number| match number {
        5 => Act::Reset,
        9 => Act::Answer {
            status: 503,
            count: 0,
        },
        _ => HONEST,
    });
    let report = server.load("--path /x --requests 100 --concurrency 4");
    let complaint = report.unwrap().complaint().unwrap();
    for part in ["reset 1", "1 requests unanswered", "503: 1"] {
        assert!(complaint.contains(part), "{complaint}");
    }
    assert!(!complaint.contains('\n'), "{complaint}");
    let report = server.load("--path /x --requests 100 --concurrency 4");
    assert_eq!(report.unwrap().complaint(), None);
}

#[test]
fn a_target_that_does_not_take_part_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for (answer, message) in [
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "does not take part in the challenge",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "something else than the challenge's totals",
        ),
        (
            "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
            "answered 500",
        ),
        ("hello\r\n", "not HTTP"),
        ("", "closed the connection instead of answering"),
    ] {
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                // The first connection only checks that the server answers.
                let _ = listener.accept().unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                read_request(&mut stream, &mut Vec::new()).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            measure(Args::try_parse_from(["load", "--target", &url]).unwrap()).unwrap_err()
        });
        assert!(format!("{error:#}").contains(message), "{error:#}");
    }
}

#[test]
fn a_target_that_never_answers_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let words = ["load", "--target", &url, "--timeout-ms", "50"];
    let error = measure(Args::try_parse_from(words).unwrap()).unwrap_err();
    assert!(
        format!("{error:#}").contains("no answer comes"),
        "{error:#}"
    );
}
