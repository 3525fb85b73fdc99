//! `barewire load` in TLS and by HTTP/2, over both transports, against every stack and against nginx.

use std::fs;
use std::process::{Command, Stdio};

use barewire_lab::{CLIENT_DEVICE, Lab, SERVER_DEVICE};
use rustix::process::Signal;
use serde_json::Value;

use crate::load::{expect_exact_totals, nginx_that_counts, number, requests_of_nginx};
use crate::server::{BAREWIRE, Ended, Server};
use crate::tls::Certificate;
use crate::wrong_use::FAILURE;

fn lab() -> Option<Lab> {
    Lab::up(&["--queues", "2"])
}

fn serve(lab: &Lab, stack: &str, certificate: &Certificate, more: &[&str]) -> Server {
    let mut command = lab.server_command();
    command.args([BAREWIRE, "serve", "--stack", stack, "--cores", "0,1"]);
    command.args(certificate.options()).args(more);
    match stack {
        "xdp" => command.args(["--interface", SERVER_DEVICE]),
        _ => command.args([
            "--listen",
            "10.77.0.2:8080",
            "--tls-listen",
            "10.77.0.2:8443",
        ]),
    };
    Server::start(&mut command)
}

/// Runs a load, over the kernel's sockets or past them.
fn load(lab: &Lab, transport: &str, arguments: &str) -> (Ended, Value) {
    let mut command = lab.client_command();
    command.args([BAREWIRE, "load", "--threads", "2", "--json"]);
    if transport == "xdp" {
        command.args(["--interface", CLIENT_DEVICE]);
    }
    let ended = Server::fail(command.args(arguments.split_whitespace()));
    let report = serde_json::from_str(&ended.stdout.join("\n")).unwrap_or_default();
    (ended, report)
}

/// Runs one that has to succeed, however slow the machine is; what it says.
fn succeed(lab: &Lab, transport: &str, arguments: &str) -> Value {
    let arguments = format!("{arguments} --timeout-ms 60000");
    let (ended, report) = load(lab, transport, &arguments);
    let said = format!("{}\n{}", ended.stdout.join("\n"), ended.stderr);
    assert_eq!(ended.code, Some(0), "{transport} {arguments}\n{said}");
    report
}

#[test]
fn every_stack_counts_what_is_asked_in_tls_and_by_http2() {
    let Some(lab) = lab() else { return };
    let certificate = Certificate::new(&["localhost", "10.77.0.2"]);
    let secure = format!("https://10.77.0.2:8443 --tls-ca {}", certificate.pem());
    for stack in ["xdp", "epoll", "uring"] {
        let server = serve(&lab, stack, &certificate, &[]);
        let mut asked = 0;
        for transport in ["kernel", "xdp"] {
            for (target, protocol) in [
                (&secure[..], "--pipeline 4"),
                (&secure, "--http2 --streams 16"),
                ("http://10.77.0.2:8080", "--http2 --streams 16"),
            ] {
                let events = format!(
                    "{target} {protocol} --unique-users 10000 --requests 10000 --concurrency 40"
                );
                let report = succeed(&lab, transport, &events);
                assert_eq!(number(&report, "responses"), 10_000, "{stack} {events}");
                assert_eq!(
                    number(&report, "connections_opened"),
                    40,
                    "{stack} {events}"
                );
                expect_exact_totals(&report);
                let path = "--path /json --verify body --requests 5000 --concurrency 20";
                let report = succeed(&lab, transport, &format!("{target} {protocol} {path}"));
                assert_eq!(number(&report, "responses"), 5_000, "{stack} {protocol}");
                // And /stats before and after, and a body to compare with.
                asked += 10_000 + 2 + 5_000 + 1;
            }
            // Each connection is a handshake.
            let churn = "--path /json --requests 500 --connections-per-second 500";
            for protocol in ["", "--http2"] {
                let churn = format!("{secure} {churn} {protocol}");
                let report = succeed(&lab, transport, &churn);
                assert_eq!(number(&report, "responses"), 500, "{stack} {churn}");
                asked += 500;
            }
        }
        let ended = server.terminate();
        assert_eq!(ended.served(), asked, "{stack}");
        // Every connection was ended by close_notify.
        assert!(!ended.stderr.contains("truncated="), "{}", ended.stderr);
    }
}

#[test]
fn nginx_counts_what_is_asked_in_tls_and_by_http2() {
    let Some(lab) = lab() else { return };
    let certificate = Certificate::new(&["localhost", "10.77.0.2"]);
    let (pem, key) = (certificate.pem(), certificate.path("key.pem"));
    let listen = format!(
        "listen 10.77.0.2:8080 reuseport; listen 10.77.0.2:8081 http2 reuseport; \
         listen 10.77.0.2:8443 ssl http2 reuseport; ssl_certificate {pem}; ssl_certificate_key {key};"
    );
    let _nginx = nginx_that_counts(&lab, &listen);
    let before = requests_of_nginx(&lab);
    let secure = format!("https://10.77.0.2:8443/plaintext --tls-ca {pem}");
    for transport in ["kernel", "xdp"] {
        for options in [
            format!("{secure} --verify body"),
            format!("{secure} --http2 --streams 32 --verify body"),
            "http://10.77.0.2:8081/plaintext --http2 --streams 32".to_owned(),
        ] {
            let report = succeed(&lab, transport, &format!("{options} --requests 10000"));
            assert_eq!(number(&report, "responses"), 10_000, "{options}");
        }
    }
    // Two more for bodies to compare with, each time, and one for this very question.
    assert_eq!(requests_of_nginx(&lab) - before, 2 * (30_000 + 2) + 1);
}

#[test]
fn certificates_change_under_load_without_a_failed_request() {
    for stack in ["epoll", "uring"] {
        let certificate = Certificate::new(&["127.0.0.1"]);
        let options = certificate.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let listen = ["--tls-listen", "127.0.0.1:0"];
        let server = Server::on_loopback(stack, &[&options[..], &listen].concat());
        let url = format!("https://{}/json", server.addresses[1]);
        // One keeps its connections, each request of the other one is a handshake.
        let loads = [
            "--http2 --streams 4 --concurrency 8 --requests 40000",
            "--connections-per-second 400 --requests 800",
        ]
        .map(|options| {
            let mut command = Command::new(BAREWIRE);
            command.args(["load", &url, "--tls-insecure", "--timeout-ms", "60000"]);
            command.args(options.split(' ')).stdout(Stdio::null());
            command.spawn().unwrap()
        });
        for _ in 0..5 {
            for name in ["certificate.pem", "key.pem"] {
                fs::remove_file(certificate.path(name)).unwrap();
            }
            certificate.renew(&["127.0.0.1"]);
            server.signal(Signal::HUP);
        }
        server.logs("certificates were read again");
        for mut load in loads {
            assert_eq!(load.wait().unwrap().code(), Some(0), "{stack}");
        }
        let ended = server.terminate();
        assert_eq!(ended.served(), 40_800, "{}", ended.stderr);
    }
}

#[test]
fn who_cannot_be_believed_or_speaks_something_else_is_found_out() {
    let Some(lab) = lab() else { return };
    let certificate = Certificate::new(&["localhost", "10.77.0.2"]);
    let other = Certificate::new(&["10.77.0.2"]);
    let server = serve(&lab, "epoll", &certificate, &["--http2", "off"]);
    let (trusted, untrusted) = (certificate.pem(), other.pem());
    let asks = "--requests 100 --concurrency 4 --duration 1s --timeout-ms 5000";
    for transport in ["kernel", "xdp"] {
        for (options, answer) in [
            (
                format!("https://10.77.0.2:8443/json --tls-ca {untrusted}"),
                "invalid peer certificate",
            ),
            (
                format!("https://10.77.0.2:8443/json --tls-ca {trusted} --tls-server-name other"),
                "not valid for name",
            ),
            (
                format!("https://10.77.0.2:8443/json --tls-ca {trusted} --http2"),
                "NoApplicationProtocol",
            ),
            (
                "https://10.77.0.2:8080/json --tls-insecure".to_owned(),
                "TLS handshake",
            ),
            (
                "http://10.77.0.2:8080/json --http2".to_owned(),
                "not HTTP/2",
            ),
        ] {
            let (ended, report) = load(&lab, transport, &format!("{options} {asks}"));
            assert_eq!(ended.code, Some(FAILURE), "{transport} {options}");
            assert_eq!(number(&report, "responses"), 0, "{report}");
            let failure = report["first_failure"].as_str().unwrap_or_default();
            assert!(failure.contains(answer), "{transport} {options}: {failure}");
        }
        // Whoever does not care is served.
        let careless = "https://10.77.0.2:8443/json --tls-insecure --requests 100";
        assert_eq!(
            number(&succeed(&lab, transport, careless), "responses"),
            100
        );
    }
    assert_eq!(server.terminate().code, Some(0));
}
