//! `barewire load` past the kernel, against every stack, against nginx, and against what it cannot ask.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use barewire_lab::{CLIENT_DEVICE, Lab, SERVER_DEVICE, SERVER_V4};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::nginx::Nginx;
use crate::server::{BAREWIRE, Ended, Server, wait_until};
use crate::wrong_use::{FAILURE, expect_refusal};

fn lab() -> Option<Lab> {
    Lab::up(&["--queues", "2"])
}

fn serve(lab: &Lab, stack: &str) -> Server {
    let mut command = lab.server_command();
    command.args([BAREWIRE, "serve", "--stack", stack, "--cores", "0,1"]);
    match stack {
        "xdp" => command.args(["--interface", SERVER_DEVICE]),
        _ => command.args(["--listen", "10.77.0.2:8080"]),
    };
    Server::start(&mut command)
}

/// `barewire load` on the lab's interface, with two cores.
fn load(lab: &Lab, arguments: &str) -> Command {
    let mut command = lab.client_command();
    command
        .args([
            BAREWIRE,
            "load",
            "--interface",
            CLIENT_DEVICE,
            "--threads",
            "2",
        ])
        .args(arguments.split_whitespace());
    command
}

/// Runs a load that has to succeed, however slow the machine is; what it says as JSON.
fn succeed(lab: &Lab, arguments: &str) -> Value {
    let ended = Server::fail(load(lab, arguments).args(["--timeout-ms", "60000", "--json"]));
    assert_eq!(ended.code, Some(0), "{arguments}\n{}", said(&ended));
    expect_no_program(lab);
    serde_json::from_str(&ended.stdout.join("\n")).unwrap()
}

/// Runs a load that has to find something wrong with the server; what it says about it.
fn find_fault(lab: &Lab, arguments: &str) -> Value {
    let ended = Server::fail(load(lab, arguments).arg("--json"));
    assert_eq!(ended.code, Some(FAILURE), "{arguments}\n{}", said(&ended));
    expect_no_program(lab);
    serde_json::from_str(&ended.stdout.join("\n")).unwrap()
}

fn said(ended: &Ended) -> String {
    format!("{}\n{}", ended.stdout.join("\n"), ended.stderr)
}

/// The interface is as it was.
fn expect_no_program(lab: &Lab) {
    let link = lab.client_runs(&["ip", "link", "show", "dev", CLIENT_DEVICE]);
    assert!(!link.contains("xdp"), "{link}");
}

pub fn number(report: &Value, name: &str) -> u64 {
    report[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} in {report}"))
}

/// Every check of the challenge's totals is right, and only one value would have been.
pub fn expect_exact_totals(report: &Value) {
    let checks = report["events"]["verification"]["checks"]
        .as_array()
        .unwrap();
    assert_eq!(checks.len(), 4);
    for check in checks {
        assert_eq!(
            (&check["ok"], &check["exact"]),
            (&Value::Bool(true), &Value::Bool(true)),
            "{check}"
        );
    }
}

#[test]
fn every_stack_counts_what_the_bypass_asks() {
    let Some(lab) = lab() else { return };
    for stack in ["xdp", "epoll", "uring"] {
        let server = serve(&lab, stack);
        let target = "--target http://10.77.0.2:8080";
        let mut asked = 0;

        let events = succeed(
            &lab,
            &format!("{target} --requests 20000 --concurrency 200"),
        );
        assert_eq!(number(&events, "responses"), 20_000, "{stack}");
        assert_eq!(number(&events, "connections_opened"), 200, "{stack}");
        expect_exact_totals(&events);
        // And /stats before and after.
        asked += 20_000 + 2;

        for (options, responses) in [
            ("--requests 20000 --pipeline 16", 20_000),
            ("--requests 4000 --rate 8000", 4_000),
            ("--requests 1000 --connections-per-second 2000", 1_000),
        ] {
            let options = format!("{target} --path /plaintext {options}");
            let report = succeed(&lab, &options);
            assert_eq!(number(&report, "responses"), responses, "{stack} {options}");
            asked += responses;
        }
        assert_eq!(server.terminate().served(), asked, "{stack}");
    }
}

#[test]
fn ipv6_several_addresses_and_generic_mode_are_asked_with_as_well() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, "xdp");
    let v6 = succeed(
        &lab,
        "--target http://[fd77::2]:8080 --path /json --requests 5000 --verify body",
    );
    assert_eq!(number(&v6, "responses"), 5_000);

    // Four ports on each of two addresses are eight connections.
    lab.client_runs(&["ip", "address", "add", "10.77.0.3/24", "dev", CLIENT_DEVICE]);
    let two = succeed(
        &lab,
        "--target http://10.77.0.2:8080 --path /json --requests 5000 --concurrency 8 --source-ports 20000-20003 \
         --source-address 10.77.0.1 --source-address 10.77.0.3",
    );
    assert_eq!(
        (
            number(&two, "responses"),
            number(&two, "connections_opened")
        ),
        (5_000, 8)
    );

    assert_eq!(server.terminate().served(), 2 * 5_000 + 1);

    // All frames arrive by queue 0, whichever core has called; and a veth's other end, if it is a bypass as
    // well, receives from each of our cores by another queue.
    let server = serve(&lab, "uring");
    let generic = succeed(
        &lab,
        "--target http://10.77.0.2:8080 --path /json --requests 5000 --mode generic",
    );
    assert_eq!(number(&generic, "responses"), 5_000);
    assert_eq!(number(&generic["network"], "handovers"), 32);
    assert_eq!(server.terminate().served(), 5_000);
}

#[test]
fn nginx_counts_what_the_bypass_asks() {
    let Some(lab) = lab() else { return };
    let _nginx = nginx_that_counts(&lab, "listen 10.77.0.2:8080 reuseport;");
    let target = "--target http://10.77.0.2:8080/plaintext";
    let before = requests_of_nginx(&lab);
    for options in [
        "--requests 30000 --verify body",
        "--requests 30000 --pipeline 16",
        "--requests 1000 --connections-per-second 2000",
    ] {
        succeed(&lab, &format!("{target} {options}"));
    }
    // One more for the body to compare with, and one for this very question.
    assert_eq!(requests_of_nginx(&lab) - before, 61_000 + 1 + 1);
}

/// An nginx in the server's namespace, which counts its requests at port 8080 of it and listens where `listen` says.
pub fn nginx_that_counts(lab: &Lab, listen: &str) -> Nginx {
    let mut command = lab.server_command();
    command.arg("nginx");
    let http = format!(
        "access_log off; keepalive_requests 1000000000;
        server {{
            {listen}
            location = /plaintext {{ default_type text/plain; return 200 \"Hello, World!\"; }}
            location = /status {{ stub_status; }}
        }}"
    );
    let nginx = Nginx::start(command, &http).unwrap();
    let connect = || TcpStream::connect((SERVER_V4, 8080));
    wait_until("nginx serves", || lab.client(connect).is_ok());
    nginx
}

/// How many requests it has counted, this one included.
pub fn requests_of_nginx(lab: &Lab) -> u64 {
    let status = lab.client_runs(&[
        "curl",
        "--silent",
        "--max-time",
        "10",
        "http://10.77.0.2:8080/status",
    ]);
    let counts = status.lines().nth(2).unwrap();
    counts.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn the_machines_own_connections_go_on_while_it_asks_and_a_signal_ends_it_in_order() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, "xdp");
    let mut running = load(
        &lab,
        "--target http://10.77.0.2:8080/plaintext --duration 60s --json",
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let is_attached = || {
        let link = lab.client_runs(&["ip", "link", "show", "dev", CLIENT_DEVICE]);
        link.contains("xdp")
    };
    wait_until("a program is attached", is_attached);
    for _ in 0..20 {
        let answer = lab.client_runs(&[
            "curl",
            "--silent",
            "--max-time",
            "10",
            "--local-port",
            "30000-40000",
            "http://10.77.0.2:8080/plaintext",
        ]);
        assert_eq!(answer, "Hello, World!");
    }
    lab.client_runs(&["ping", "-c1", "-W5", SERVER_V4]);

    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    let mut text = String::new();
    running
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(FAILURE));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["was_interrupted"], Value::Bool(true));
    assert_eq!(number(&report, "unanswered"), 0);
    expect_no_program(&lab);
    assert_eq!(
        server.terminate().served(),
        number(&report, "responses") + 20
    );
}

#[test]
fn a_load_that_is_killed_leaves_nothing_behind() {
    let Some(lab) = lab() else { return };
    let _server = serve(&lab, "xdp");
    let mut running = load(
        &lab,
        "--target http://10.77.0.2:8080/plaintext --duration 60s",
    )
    .stdout(Stdio::null())
    .spawn()
    .unwrap();
    let attached = |lab: &Lab| {
        lab.client_runs(&["ip", "link", "show", "dev", CLIENT_DEVICE])
            .contains("xdp")
    };
    wait_until("a program is attached", || attached(&lab));
    running.kill().unwrap();
    running.wait().unwrap();
    wait_until("the program is detached", || !attached(&lab));
    // What the killed one had open does not stand in the way of the next.
    succeed(
        &lab,
        "--target http://10.77.0.2:8080/plaintext --requests 1000",
    );
}

#[test]
fn what_cannot_be_reached_is_said_before_anything_is_taken() {
    let Some(lab) = lab() else { return };
    let expect = |arguments: &str, parts: &[&str]| {
        expect_refusal(&mut load(&lab, arguments), FAILURE, parts);
        expect_no_program(&lab);
    };
    let at = |address: &str| format!("--target http://{address}/plaintext --timeout-ms 8000");
    expect(&at("192.0.2.1:8080"), &["192.0.2.1", "no route"]);
    expect(&at("10.77.0.99:8080"), &["10.77.0.99", "neighbour"]);
    expect(&at("10.77.0.2:9"), &["refused", "is the server started"]);

    let server = serve(&lab, "epoll");
    let ask = "--target http://10.77.0.2:8080/plaintext";
    expect_refusal(
        lab.client_command()
            .args([BAREWIRE, "load", "--interface", "lo"])
            .args(ask.split(' ')),
        FAILURE,
        &["does not lead through lo", "ip route get"],
    );
    expect_refusal(
        lab.client_command()
            .args([BAREWIRE, "load", "--interface", "eth77"])
            .args(ask.split(' ')),
        FAILURE,
        &["eth77", CLIENT_DEVICE],
    );
    expect(&format!("{ask} --source-address fd77::1"), &["same family"]);
    expect(
        &format!("{ask} --source-ports 20000-20009 --concurrency 64"),
        &["64 connections", "only 10", "--source-ports"],
    );
    // No interface has that hardware address: the SYNs are lost.
    let deaf = find_fault(
        &lab,
        &format!("{ask} --next-hop-mac 02:00:00:00:00:99 --timeout-ms 300 --duration 1s"),
    );
    assert!(deaf["failures"]["connect"].as_u64() > Some(0), "{deaf}");
    assert_eq!(deaf["first_failure"], "connect: no answer");
    assert_eq!(server.terminate().served(), 0);
}

#[test]
fn too_few_ports_for_the_rate_end_the_run() {
    let Some(lab) = lab() else { return };
    let _server = serve(&lab, "epoll");
    // Each connection is closed by us, because the server was asked not to, and its port rests.
    expect_refusal(
        &mut load(
            &lab,
            "--target http://10.77.0.2:8080/plaintext --connections-per-second 2000 --duration 10s --concurrency 16 \
             --source-ports 20000-20063 --header Connection:keep-alive",
        ),
        FAILURE,
        &[
            "no source port is left",
            "--source-ports",
            "--source-address",
        ],
    );
    expect_no_program(&lab);
}

#[test]
fn servers_that_do_not_answer_or_answer_garbage_are_found_out() {
    let Some(lab) = lab() else { return };
    let answers: [(u16, &[u8]); 3] = [
        (9001, b""),
        (9002, b"\x15\x03\x01\x00\x02\x02\x46"),
        (9003, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
    ];
    for (port, answer) in answers {
        let listener = lab.server(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || reply(stream, answer));
            }
        });
    }
    let ask = |port: u16| {
        format!(
            "--target http://10.77.0.2:{port}/x --requests 40 --concurrency 8 --timeout-ms 500 --duration 3s"
        )
    };
    let silent = find_fault(&lab, &ask(9001));
    assert!(
        silent["failures"]["timeout"].as_u64() >= Some(8),
        "{silent}"
    );
    assert_eq!(
        (number(&silent, "responses"), &silent["first_failure"]),
        (0, &Value::from("no answer within the timeout"))
    );
    let garbage = find_fault(&lab, &ask(9002));
    assert_eq!(garbage["failures"]["parse"].as_u64(), Some(40), "{garbage}");
    let refusing = find_fault(&lab, &ask(9003));
    assert_eq!(refusing["statuses"]["500"].as_u64(), Some(40), "{refusing}");
}

/// Answers every request with the same bytes.
fn reply(mut stream: TcpStream, answer: &[u8]) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}
