//! `barewire status`, `top` and `stop` against servers that run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use barewire::operate::Status;
use barewire::operate::status::State;
use openmetrics_parser::prometheus::parse_prometheus;
use openmetrics_parser::{PrometheusType, PrometheusValue};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, PATIENCE, Server, wait_until};
use crate::wrong_use::{FAILURE, expect_refusal};

const REQUESTS: u64 = 20_000;

/// A server and its control socket.
pub struct Operated {
    pub server: Server,
    directory: TempDir,
}

impl Operated {
    pub fn on(stack: &str, arguments: &[&str]) -> Operated {
        Operated::start(|control| {
            let operated = ["--control", control, "--admin-listen", "0"];
            Server::on_loopback(stack, &[&operated, arguments].concat())
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

    pub fn admin(&self) -> SocketAddr {
        let mut lines = self.server.report.iter();
        let url = lines.find_map(|line| line.strip_prefix("metrics: http://"));
        url.unwrap()
            .strip_suffix("/metrics")
            .unwrap()
            .parse()
            .unwrap()
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
            thread::sleep(Duration::from_millis(5));
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
        "--timeout-ms",
        "60000",
        "--json",
    ]);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["responses"], REQUESTS);

    let status = operated.status_where(|status| status.connections.total == 0);
    // The client reads the totals before and after.
    assert_eq!(status.requests.total, REQUESTS + 2);
    assert_eq!(
        status.requests.by_status,
        [("200".to_owned(), REQUESTS + 2)].into()
    );
    assert_eq!(status.requests.by_route["/event"], REQUESTS);
    assert_eq!(status.requests.by_route["/stats"], 2);
    assert_eq!(status.sum("events", "counted", None), REQUESTS);
    let after = &report["events"]["after"];
    assert_eq!(after["totalRequests"], status.stats.total_requests);
    assert_eq!(after["uniqueUsers"], status.stats.unique_users);
    assert_eq!(after["sum"], status.stats.sum);
    let opened =
        status.sum("tcp", "passive_opens", None) + status.sum("connections", "accepted", None);
    // One to see whether the server answers, and one for each look at the totals.
    assert_eq!(opened, 50 + 3);

    let in_use = |pool: &&barewire::operate::status::Pool| {
        // What the kernel has not taken yet of its own ring, and what a connection leaves behind.
        pool.used > 0 && !["rx_frames_held", "time_wait", "flows"].contains(&&*pool.name)
    };
    assert_eq!(status.pools.iter().find(in_use), None, "something leaked");
    assert!(status.pools.iter().all(|pool| pool.used <= pool.max));
}

/// What the admin address answers to `request`.
pub fn answer(admin: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Scrapes a server on which nothing happens any more, and compares with its status.
fn metrics_agree_with_status(status: &Status, scrape: &dyn Fn() -> String) {
    let mut answer = String::new();
    wait_until("a scrape is newer than the last request", || {
        answer = scrape();
        let counts = answer
            .lines()
            .filter(|line| line.starts_with("barewire_http_requests_total{"))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        counts.sum::<f64>() as u64 == status.requests.total
    });
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    let metrics = parse_prometheus(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for (name, family) in &metrics.families {
        assert!(
            name.starts_with("barewire_") && !family.help.is_empty(),
            "{name}"
        );
        let is_total = name.ends_with("_total");
        assert_eq!(
            is_total,
            family.family_type == PrometheusType::Counter,
            "{name}"
        );
    }
    let sum = |name: &str, matches: &[(&str, &str)]| -> u64 {
        let family = &metrics.families[&format!("barewire_{name}")];
        let is_meant = |sample: &&openmetrics_parser::Sample<_>| {
            let labels = sample.get_labelset().unwrap();
            matches.iter().all(|wanted| {
                let mut labels = labels.iter();
                labels.any(|(name, value)| (&**name, &**value) == *wanted)
            })
        };
        let samples = family.iter_samples().filter(is_meant);
        samples
            .map(|sample| match &sample.value {
                PrometheusValue::Counter(counter) => counter.value.as_f64() as u64,
                PrometheusValue::Gauge(level) => level.as_f64() as u64,
                PrometheusValue::Histogram(histogram) => histogram.count.unwrap(),
                other => panic!("{name}: {other:?}"),
            })
            .sum()
    };
    let requests = &status.requests;
    assert_eq!(sum("http_requests_total", &[]), requests.total);
    assert_eq!(
        sum("http_requests_total", &[("code", "200")]),
        requests.by_status["200"]
    );
    assert_eq!(sum("http_request_duration_seconds", &[]), requests.total);
    for (path, count) in &requests.by_route {
        let route = [("route", &**path)];
        assert_eq!(sum("http_requests_total", &route), *count, "{path}");
        assert_eq!(
            sum("http_request_duration_seconds", &route),
            *count,
            "{path}"
        );
    }
    for core in 0..status.server.cpus.len() {
        let of_core = [("core", &*core.to_string())];
        let counted = status.sum("events", "counted", Some(core));
        assert_eq!(sum("events_counted_total", &of_core), counted);
    }
    assert_eq!(sum("events_unique_users", &[]), status.stats.unique_users);
    for pool in status.pools.iter().filter(|pool| pool.queue.is_none()) {
        let name = format!("{}_{}", pool.part, pool.name);
        let core = pool.core.unwrap().to_string();
        let labels = [("pool", &*name), ("core", &*core)];
        assert_eq!(sum("pool_max", &labels), pool.max, "{name}");
    }
    if let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
    {
        let mut stdin = promtool.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        let said = promtool.wait_with_output().unwrap();
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
    }
}

pub const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n";

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
        metrics_agree_with_status(&status, &|| answer(operated.admin(), SCRAPE));
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
    let operated = Operated::start(|control| {
        let operated = ["--control", control, "--admin-listen", "0"];
        crate::bypass::serve(&lab, &operated)
    });
    status_agrees_with_load(&operated, &|command| {
        lab.client_command().args(command).output().unwrap()
    });
    let status = operated.status();
    let admin = operated.admin();
    metrics_agree_with_status(&status, &|| lab.server(|| answer(admin, SCRAPE)));
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
fn a_hostile_scraper_gets_nothing_and_keeps_nobody_from_being_served() {
    let operated = Operated::on(STACKS[0], &[]);
    let admin = operated.admin();
    for (request, status) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "404",
        ),
        (
            "POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "405",
        ),
        ("GET /metrics HTTP/1.1\r\n\r\n", "400"),
        ("\x01\r\n", "400"),
        (
            &format!("GET /metrics HTTP/1.1\r\nA: {}", "a".repeat(8192 - 26)),
            "431",
        ),
    ] {
        let said = answer(admin, request);
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {said}"
        );
    }
    // Neither do those who say nothing keep others from scraping.
    let silent: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(admin).unwrap())
        .collect();
    let scraped = answer(admin, SCRAPE);
    assert!(scraped.starts_with("HTTP/1.1 200 "), "{scraped}");
    let mut client = Client::connect(operated.server.addresses[0]);
    assert_eq!(client.get("/plaintext").status, 200);
    assert_eq!(operated.status().requests.total, 1);
    drop(silent);
    assert!(answer(admin, SCRAPE).starts_with("HTTP/1.1 200 "));
    let taken = admin.to_string();
    let mut second = Command::new(BAREWIRE);
    second.args(["serve", "--listen", "127.0.0.1:0", "--stack", STACKS[0]]);
    second.args(["--control", "off", "--admin-listen", &taken]);
    expect_refusal(&mut second, FAILURE, &["--admin-listen", &taken]);
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

#[test]
fn a_json_log_has_one_object_per_line_and_says_what_was_refused() {
    let operated = Operated::on(STACKS[0], &["--log-format", "json", "--log-drops-s", "1"]);
    Client::connect(operated.server.addresses[0]).get("/nowhere");
    // The line comes at the end of the interval that the request is in.
    operated.server.logs("http.refused_not_found=1");
    let ended = operated.server.terminate();
    let lines: Vec<Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let messages = lines
        .iter()
        .map(|line| line["fields"]["message"].as_str().unwrap());
    let refused = messages.filter(|message| message.contains("in 1 s: http.refused_not_found=1"));
    assert_eq!(refused.count(), 1, "{}", ended.stderr);
}

#[test]
fn responses_are_logged_only_if_that_is_asked_for() {
    for (arguments, expected) in [
        (&["--log-format", "json"][..], vec![]),
        (
            &["--log-format", "json", "--log-requests"],
            vec![("/plaintext", 200), ("none", 404)],
        ),
    ] {
        let operated = Operated::on(STACKS[0], arguments);
        for path in ["/plaintext", "/nowhere"] {
            Client::connect(operated.server.addresses[0]).get(path);
        }
        let ended = operated.server.terminate();
        let lines: Vec<Value> = ended
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let responses: Vec<(&str, u64)> = lines
            .iter()
            .filter(|line| line["target"] == barewire_http::REQUEST_LOG)
            .map(|line| &line["fields"])
            .map(|fields| {
                let status = fields["status"].as_u64().unwrap();
                (fields["route"].as_str().unwrap(), status)
            })
            .collect();
        assert_eq!(responses, expected, "{}", ended.stderr);
    }
}
