//! The bypass from end to end: curl and wrk on the other end of a cable.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::thread;

use barewire_lab::{Lab, SERVER_DEVICE, SERVER_V4, SERVER_V6};
use rustix::process::Signal;

use crate::http::Client;
use crate::server::{BAREWIRE, Server, wait_until};

const V4: &str = "http://10.77.0.2:8080";
const V6: &str = "http://[fd77::2]:8080";
const QUEUES: usize = 2;

pub fn lab() -> Option<Lab> {
    Lab::up(&["--queues", &QUEUES.to_string()])
}

pub fn serve(lab: &Lab, arguments: &[&str]) -> Server {
    let mut command = lab.server_command();
    command.args([BAREWIRE, "serve", "--interface", SERVER_DEVICE]);
    Server::start(command.args(arguments))
}

fn curl(lab: &Lab, url: &str) -> String {
    lab.client_runs(&[
        "curl",
        "--silent",
        "--show-error",
        "--globoff",
        "--fail",
        "--max-time",
        "10",
        url,
    ])
}

/// What wrk reports once it has ended, without an error.
pub fn report_without_errors(wrk: Child) -> String {
    let output = wrk.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report}");
    assert_no_errors(&report);
    report
}

/// Whether a report of wrk's has no error in it.
#[track_caller]
pub fn assert_no_errors(report: &str) {
    assert!(
        !report.contains("Socket errors") && !report.contains("Non-2xx"),
        "{report}"
    );
}

/// Whether a program is attached to the server's interface.
pub fn is_attached(lab: &Lab) -> bool {
    lab.server_runs(&["ip", "link", "show", "dev", SERVER_DEVICE])
        .contains("xdp")
}

/// A number from `/proc/net/snmp` of the server's kernel.
pub fn kernel_tcp(lab: &Lab, name: &str) -> u64 {
    let text = lab.server_runs(&["cat", "/proc/net/snmp"]);
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names
        .split(' ')
        .position(|candidate| candidate == name)
        .unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// 9,001 is what clouds set. A frame holds less, so packets are spread over three.
#[test]
fn a_jumbo_mtu_needs_no_care() {
    let Some(lab) = Lab::up(&["--queues", "1", "--mtu", "9001"]) else {
        return;
    };
    for mode in ["native", "generic"] {
        let server = serve(&lab, &["--mode", mode, "--test-routes"]);
        let report = server.report.join("\n");
        assert!(report.contains(&format!("{mode} mode")), "{report}");
        assert!(report.contains("up to 3 for a packet"), "{report}");
        for base in [V4, V6] {
            let stream = format!("{base}/test/stream?bytes=300000");
            let downloaded = lab.client_runs(&[
                "curl",
                "--silent",
                "--globoff",
                "--fail",
                "--max-time",
                "10",
                "--output",
                "/dev/null",
                "--write-out",
                "%{size_download}",
                &stream,
            ]);
            assert_eq!(downloaded, "300000");
        }
        let upload = lab.client_runs(&[
            "sh",
            "-c",
            &format!(
                "head -c 60000 /dev/zero | tr '\\0' x | \
                 curl --silent --show-error --fail --max-time 10 --data-binary @- {V4}/test/echo | wc -c"
            ),
        ]);
        assert_eq!(upload.trim(), "60000");
        server.terminate();
    }
}

#[test]
fn curl_gets_both_routes_over_ipv4_and_ipv6() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &[]);
    let mut addresses: Vec<_> = server.addresses.iter().map(SocketAddr::to_string).collect();
    addresses.sort();
    assert_eq!(
        addresses,
        [format!("{SERVER_V4}:8080"), format!("[{SERVER_V6}]:8080")]
    );
    for base in [V4, V6] {
        assert_eq!(curl(&lab, &format!("{base}/plaintext")), "Hello, World!");
        assert_eq!(
            curl(&lab, &format!("{base}/json")),
            r#"{"message":"Hello, World!"}"#
        );
    }
    assert_eq!(
        kernel_tcp(&lab, "PassiveOpens"),
        0,
        "the kernel's TCP saw a connection"
    );
    assert_eq!(server.terminate().served(), 4);
}

#[test]
fn timestamps_are_agreed_on_where_they_are_wanted() {
    let Some(lab) = lab() else { return };
    for arguments in [&["--timestamps", "--test-routes"][..], &["--test-routes"]] {
        let server = serve(&lab, arguments);
        for &address in &server.addresses {
            let mut client = lab.client(|| Client::connect(address));
            // Segments of full size, and a few round trips.
            let stream = client.get("/test/stream?bytes=300000");
            assert_eq!(stream.body.len(), 300_000);
            assert_eq!(client.get("/plaintext").status, 200);
            let sockets = lab.client_runs(&["ss", "--tcp", "--info", "--options", "--no-header"]);
            let has_timestamps = sockets.contains(" ts sack ");
            assert_eq!(has_timestamps, arguments.len() == 2, "{sockets}");
        }
        server.terminate();
    }
}

#[test]
fn the_bypass_answers_like_every_other_stack() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &["--test-routes"]);
    for &address in &server.addresses {
        lab.client(|| barewire_conformance::check_over_tcp(address))
            .unwrap_or_else(|differences| panic!("{address}:\n{}", differences.join("\n")));
    }
    server.terminate().served();
}

/// wrk with many connections and deep pipelines, while the kernel goes on doing the rest.
#[test]
fn wrk_sees_no_error_and_the_kernel_keeps_everything_else() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &[]);
    let kernel_server = lab.server(|| TcpListener::bind((SERVER_V4, 9000))).unwrap();
    let neighbour = kernel_server.local_addr().unwrap();
    thread::spawn(move || {
        for connection in kernel_server.incoming().map_while(Result::ok) {
            let mut buffer = [0; 16];
            while let Ok(received @ 1..) = (&connection).read(&mut buffer) {
                let _ = (&connection).write_all(&buffer[..received]);
            }
        }
    });

    let mut asked = 0;
    let pipelined = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/pipeline.lua");
    for (connections, base, script) in [
        ("64", V4, &[][..]),
        ("64", V6, &[]),
        ("512", V4, &[]),
        ("4096", V4, &[]),
        ("64", V4, &["--script", pipelined]),
    ] {
        let url = format!("{base}/plaintext");
        let mut wrk = lab.client_command();
        wrk.args([
            "wrk",
            "--threads",
            "2",
            "--duration",
            "2s",
            "--timeout",
            "20s",
            "--connections",
            connections,
        ]);
        let wrk = wrk
            .args(script)
            .arg(&url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();

        lab.client_runs(&["ping", "-c", "2", "-i", "0.2", "-W", "5", SERVER_V4]);
        lab.client_runs(&["ping", "-c", "2", "-i", "0.2", "-W", "5", SERVER_V6]);
        let mut echo = lab.client(|| Client::connect(neighbour));
        echo.send("still here");
        echo.finish();
        assert_eq!(echo.rest(), b"still here");
        let listeners =
            lab.server_runs(&["ss", "--no-header", "--listening", "--tcp", "--numeric"]);
        assert!(listeners.contains(":9000"), "{listeners}");

        let report = report_without_errors(wrk);
        let requests = report
            .lines()
            .find_map(|line| line.trim().split_once(" requests in"));
        asked += requests.unwrap().0.parse::<u64>().unwrap();
    }
    assert_eq!(
        kernel_tcp(&lab, "PassiveOpens"),
        5,
        "only the neighbour's connections"
    );
    let ended = server.terminate();
    // wrk does not count what was on its way when it stopped.
    assert!(
        ended.served() >= asked,
        "{asked}: {}",
        ended.stdout.join("\n")
    );
    let received = ended.counters("link", "rx_frames");
    assert!(
        received.len() == QUEUES && received.iter().all(|&frames| frames > 1000),
        "{received:?}"
    );
    let opened = ended.counters("tcp", "passive_opens");
    assert!(
        opened.len() == QUEUES && opened.iter().all(|&connections| connections > 100),
        "{opened:?}"
    );
    let refused = ended.counters("redirect", "passed_other_port");
    assert!(
        refused.iter().sum::<u64>() > 5,
        "the neighbour's segments: {refused:?}"
    );
}

#[test]
fn signals_drain_and_nothing_stays_attached() {
    let Some(lab) = lab() else { return };
    for signal in [Signal::TERM, Signal::INT] {
        let server = serve(&lab, &[]);
        assert!(is_attached(&lab));
        let address = server.addresses[0];
        let (mut idle, mut busy) =
            lab.client(|| (Client::connect(address), Client::connect(address)));
        idle.get("/plaintext");
        busy.get("/plaintext");
        busy.send("GET /plaintext HTTP/1.1\r\nHost: te");
        busy.is_read();
        server.signal(signal);

        assert_eq!(idle.rest(), b"");
        busy.send("st\r\n\r\n");
        let last = busy.receive(false);
        assert_eq!(
            (last.status, last.field("connection")),
            (200, Some("close"))
        );
        drop(busy);
        assert_eq!(server.wait().served(), 3);
        assert!(!is_attached(&lab));
    }
}

#[test]
fn after_a_kill_the_interface_is_the_kernels_and_a_new_server_starts_at_once() {
    let Some(lab) = lab() else { return };
    for _ in 0..3 {
        let server = serve(&lab, &[]);
        assert_eq!(curl(&lab, &format!("{V4}/plaintext")), "Hello, World!");
        server.kill();
    }
    wait_until("the program is detached", || !is_attached(&lab));
    let kernel_server = lab.server(|| TcpListener::bind((SERVER_V4, 8080))).unwrap();
    let _client = lab.client(|| Client::connect(kernel_server.local_addr().unwrap()));
    kernel_server.accept().unwrap();
}

#[test]
fn a_second_signal_stops_at_once() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &["--drain-timeout-ms", "3600000"]);
    let address = server.addresses[0];
    let (mut idle, mut busy) = lab.client(|| (Client::connect(address), Client::connect(address)));
    idle.get("/plaintext");
    busy.send("GET /plaintext HTTP/1.1\r\n");
    busy.is_read();
    server.signal(Signal::INT);
    assert_eq!(idle.rest(), b"");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code, Some(128 + 15));
    assert!(!is_attached(&lab));
}

#[test]
fn the_drain_deadline_ends_what_does_not_end_by_itself() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &["--drain-timeout-ms", "100"]);
    let address = server.addresses[0];
    let (mut idle, mut busy) = lab.client(|| (Client::connect(address), Client::connect(address)));
    idle.get("/plaintext");
    busy.send("GET /plaintext HTTP/1.1\r\n");
    busy.is_read();
    let ended = server.terminate();
    assert_eq!(ended.served(), 1);
    assert!(
        ended.stderr.contains("drain deadline passed"),
        "{}",
        ended.stderr
    );
    assert!(!is_attached(&lab));
}

/// After a restart no core knows the old connections: the core that receives a segment of one answers with RST.
#[test]
fn connections_of_a_server_that_was_killed_are_reset_by_the_next() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &[]);
    // Enough for every core to have some.
    let addresses = server.addresses.iter().cycle().take(16);
    let mut connections: Vec<Client> = addresses
        .map(|&address| lab.client(|| Client::connect(address)))
        .collect();
    for client in &mut connections {
        client.get("/plaintext");
    }
    server.kill();
    let server = serve(&lab, &[]);
    for mut client in connections {
        client.send("GET /plaintext HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.rest(), b"");
    }
    let ended = server.terminate();
    let resets: u64 = ended.counters("tcp", "out_rsts").iter().sum();
    assert_eq!(resets, 16, "{}", ended.stderr);
}

#[test]
fn a_body_limit_that_is_asked_for_can_be_had() {
    let Some(lab) = lab() else { return };
    for max in [1_000, 57_343] {
        let limit = max.to_string();
        let arguments = [
            "--test-routes",
            "--connections",
            "64",
            "--body-bytes-max",
            &limit,
        ];
        let server = serve(&lab, &arguments);
        let address = server.addresses[0];
        let echoed = lab.client(|| crate::kernel_stacks::echoed(address, max));
        assert_eq!(echoed, (200, max));
        server.terminate();
    }
}
