//! `barewire status`, `top` and `stop` against servers that run.

use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use barewire::operate::Status;
use barewire::operate::status::State;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, PATIENCE, Server};
use crate::wrong_use::{FAILURE, expect_refusal};

const REQUESTS: u64 = 20_000;

/// A server and its control socket.
pub struct Operated {
    pub server: Server,
    directory: TempDir,
}

impl Operated {
    fn on(stack: &str, arguments: &[&str]) -> Operated {
        Operated::start(|control| {
            Server::on_loopback(stack, &[&["--control", control], arguments].concat())
        })
    }

    pub fn start(start: impl FnOnce(&str) -> Server) -> Operated {
        let directory = tempfile::tempdir().unwrap();
        let server = start(directory.path().join("socket").to_str().unwrap());
        Operated { server, directory }
    }

    fn socket(&self) -> String {
        self.directory
            .path()
            .join("socket")
            .to_str()
            .unwrap()
            .into()
    }

    fn runs(&self, arguments: &[&str]) -> Output {
        operate(&self.socket(), arguments).output().unwrap()
    }

    pub fn status(&self) -> Status {
        let output = self.runs(&["status", "--json", "--interval-ms", "0"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The status, once it is as expected.
    pub fn status_where(&self, expected: impl Fn(&Status) -> bool) -> Status {
        let started = Instant::now();
        loop {
            let status = self.status();
            if expected(&status) {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "{status:#?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn operate(socket: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(BAREWIRE);
    command.arg(arguments[0]).args(["--control", socket]);
    command.args(&arguments[1..]);
    command
}

/// Counts events on a server that has served nothing, and compares what both sides say of it.
fn status_agrees_with_load(operated: &Operated, run: &dyn Fn(&[&str]) -> Output) {
    let url = format!("http://{}", operated.server.addresses[0]);
    let requests = REQUESTS.to_string();
    let output = run(&[
        BAREWIRE,
        "load",
        "--target",
        &url,
        "--requests",
        &requests,
        "--concurrency",
        "50",
        "--threads",
        "1",
        "--json",
    ]);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["responses"], REQUESTS);

    let status = operated.status_where(|status| status.connections.total == 0);
    // The client reads the totals before and after.
    assert_eq!(status.requests.total, REQUESTS + 2);
    assert_eq!(status.requests.by_status, [(200, REQUESTS + 2)].into());
    assert_eq!(status.requests.by_route["/event"], REQUESTS);
    assert_eq!(status.requests.by_route["/stats"], 2);
    assert_eq!(status.sum("events", "counted", None), REQUESTS);
    let after = &report["events"]["after"];
    assert_eq!(after["totalRequests"], status.stats.total_requests);
    assert_eq!(after["uniqueUsers"], status.stats.unique_users);
    assert_eq!(after["sum"], status.stats.sum);
    let opened =
        status.sum("tcp", "passive_opens", None) + status.sum("connections", "accepted", None);
    // One to see whether anybody is there, and one for each look at the totals.
    assert_eq!(opened, 50 + 3);

    let in_use = |pool: &&barewire::operate::status::Pool| {
        // What the kernel has not taken yet of its own ring, and what a connection leaves behind.
        pool.used > 0 && !["rx_frames_held", "time_wait", "flows"].contains(&&*pool.name)
    };
    assert_eq!(status.pools.iter().find(in_use), None, "something leaked");
    assert!(status.pools.iter().all(|pool| pool.used <= pool.max));
}

#[test]
fn status_agrees_with_the_load_on_the_kernel_stacks() {
    for stack in STACKS {
        let operated = Operated::on(stack, &[]);
        status_agrees_with_load(&operated, &|command| {
            Command::new(command[0])
                .args(&command[1..])
                .output()
                .unwrap()
        });
        let status = operated.status();
        assert_eq!(
            (
                &*status.server.stack,
                status.server.state,
                &status.server.cpus[..]
            ),
            (*stack, State::Serving, &[0, 1][..])
        );
        assert_eq!(operated.server.terminate().served(), REQUESTS + 2);
    }
}

#[cfg(feature = "xdp")]
#[test]
fn status_agrees_with_the_load_on_the_bypass_and_the_kernels_counts_outlive_their_sockets() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let operated = Operated::start(|control| crate::bypass::serve(&lab, &["--control", control]));
    status_agrees_with_load(&operated, &|command| {
        lab.client_command().args(command).output().unwrap()
    });
    let status = operated.status();
    let connections = status.sum("tcp", "time_wait", None) + status.connections.total;
    assert_eq!(status.sum("tcp", "flows", None), connections);
    let redirected = status.sum("redirect", "redirected", None);
    assert_eq!(status.sum("link", "rx_frames", None), redirected);
    let wakeups = status.sum("xsk", "tx_ring_empty", None);
    assert!(wakeups > 0, "{status:#?}");

    let ended = operated.server.terminate();
    let logged = |part, name| ended.counters(part, name).iter().sum::<u64>();
    assert!(
        logged("xsk", "tx_ring_empty") >= wakeups,
        "{}",
        ended.stderr
    );
    assert!(
        logged("redirect", "redirected") >= redirected,
        "{}",
        ended.stderr
    );
}

#[test]
fn wrk_gets_no_more_than_status_counts() {
    let operated = Operated::on(STACKS[0], &[]);
    let url = format!("http://{}/plaintext", operated.server.addresses[0]);
    let wrk = Command::new("wrk")
        .args([
            "--threads",
            "1",
            "--connections",
            "20",
            "--duration",
            "1s",
            &url,
        ])
        .output()
        .unwrap();
    let report = String::from_utf8(wrk.stdout).unwrap();
    let counted = report
        .lines()
        .find_map(|line| line.trim().split_once(" requests in"))
        .unwrap();
    let counted: u64 = counted.0.parse().unwrap();
    let status = operated.status_where(|status| status.connections.total == 0);
    // wrk does not count what was on its way when it stopped: one request per connection.
    let range = counted..=counted + 20;
    assert!(
        range.contains(&status.requests.total),
        "{report}\n{:?}",
        status.requests
    );
    assert_eq!(
        status.requests.by_route["/plaintext"],
        status.requests.total
    );
}

#[test]
fn status_and_top_are_for_people_too() {
    let operated = Operated::on(STACKS[0], &[]);
    let mut client = Client::connect(operated.server.addresses[0]);
    client.get("/plaintext");
    client.get("/nowhere");
    let output = operated.runs(&["status", "--interval-ms", "10"]);
    let page = String::from_utf8(output.stdout).unwrap();
    for part in [
        &format!("on {}, serving", STACKS[0]),
        "200: 1  404: 1",
        "requests/s",
        "connections.send_buffers",
        "http.refused_not_found",
    ] {
        assert!(page.contains(part), "no {part:?} in\n{page}");
    }
    let output = operated.runs(&["top", "--interval-ms", "50", "--count", "2"]);
    let pages = String::from_utf8(output.stdout).unwrap();
    assert_eq!(pages.matches("requests/s").count(), 2, "{pages}");
}

#[test]
fn stop_drains_and_waits_and_stops_at_once_when_asked_again() {
    for stack in STACKS {
        let operated = Operated::on(stack, &["--drain-timeout-ms", "3600000"]);
        let address = operated.server.addresses[0];
        let (mut busy, mut idle) = (Client::connect(address), Client::connect(address));
        busy.send("GET /plaintext HTTP/1.1\r\n");
        idle.get("/plaintext");
        let still = operated.runs(&["stop", "--timeout-ms", "50"]);
        assert_eq!(still.status.code(), Some(FAILURE), "{still:?}");
        assert_eq!(idle.rest(), b"", "{stack}");
        let status = operated.status();
        assert_eq!(
            (status.server.state, status.connections.total),
            (State::Draining, 1)
        );
        busy.send("Host: test\r\n\r\n");
        assert_eq!(busy.receive(false).status, 200);
        drop(busy);
        let socket = operated.socket();
        assert_eq!(operated.server.wait().served(), 2, "{stack}");
        assert!(!Path::new(&socket).exists());
        expect_refusal(
            &mut operate(&socket, &["stop"]),
            FAILURE,
            &["no server listens", &socket],
        );

        let operated = Operated::on(stack, &["--drain-timeout-ms", "3600000"]);
        let mut busy = Client::connect(operated.server.addresses[0]);
        busy.send("GET /plaintext HTTP/1.1\r\n");
        operated.status_where(|status| status.connections.total == 1);
        operated.runs(&["stop", "--timeout-ms", "1"]);
        let stopped = operated.runs(&["stop"]);
        assert!(stopped.status.success(), "{stopped:?}");
        assert_eq!(operated.server.wait().code, Some(128 + 15), "{stack}");
    }
}

#[test]
fn a_dead_servers_socket_is_taken_over_and_a_live_ones_is_not() {
    let operated = Operated::on(STACKS[0], &[]);
    let socket = operated.socket();
    let mut second = Command::new(BAREWIRE);
    second.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--stack",
        STACKS[0],
        "--control",
        &socket,
    ]);
    expect_refusal(
        &mut second,
        FAILURE,
        &["belongs to a server that runs", "--control"],
    );
    assert_eq!(
        operated.status().requests.total,
        0,
        "the first one lives on"
    );

    let Operated { server, directory } = operated;
    server.kill();
    assert!(Path::new(&socket).exists());
    let server = Server::on_loopback(STACKS[0], &["--control", &socket]);
    let operated = Operated { server, directory };
    assert_eq!(operated.status().server.state, State::Serving);
}

#[test]
fn others_may_not_open_the_socket() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: becoming somebody else needs root");
        return;
    }
    let operated = Operated::on(STACKS[0], &[]);
    let mut command = Command::new("setpriv");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    command
        .args(nobody)
        .args([BAREWIRE, "status", "--control", &operated.socket()]);
    expect_refusal(&mut command, FAILURE, &["not allowed", "sudo"]);
}

#[test]
fn whoever_says_nothing_keeps_nobody_waiting_for_ever() {
    let operated = Operated::on(STACKS[0], &[]);
    let connect = || std::os::unix::net::UnixStream::connect(operated.socket()).unwrap();
    let silent: Vec<_> = (0..4).map(|_| connect()).collect();
    let output = operated.runs(&["status", "--json"]);
    // Whether it was answered in time depends on the order; afterwards it is.
    drop((output, silent));
    assert_eq!(operated.status().server.state, State::Serving);
}
