//! Clients in other languages, and those who look for what is wrong with a server's TLS. Who is not installed is
//! skipped, and says so.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::server::Server;
use crate::tls::Certificate;

/// What a program prints that has to succeed; `None` if it is not there.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .env("GOCACHE", directory.path())
        .env("GO111MODULE", "off")
        .current_dir(directory.path())
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: {program} is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("No module named") {
        eprintln!("SKIPPED: {program}: {complaint}");
        return None;
    }
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {said}{complaint}"
    );
    Some(said)
}

fn source(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/tls_clients");
    path.join(name).display().to_string()
}

/// A server on each stack that a client without a lab can reach.
fn on_each_stack(check: impl Fn(SocketAddr, &str)) {
    let certificate = Certificate::new(&["localhost", "127.0.0.1"]);
    let options = certificate.options();
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    arguments.extend(["--tls-listen", "127.0.0.1:0", "--test-routes"]);
    for stack in ["epoll", "uring"] {
        let server = Server::on_loopback(stack, &arguments);
        check(server.addresses[1], &certificate.pem());
        let ended = server.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

#[test]
fn go_gets_along() {
    on_each_stack(|address, pem| {
        let base = format!("https://{address}");
        if let Some(said) = output("go", &["run", &source("client.go"), &base, pem]) {
            assert_eq!(said, "HTTP/1.1 200 true\nHTTP/2.0 200 true\n");
        }
    });
}

#[test]
fn java_gets_along() {
    on_each_stack(|address, pem| {
        let base = format!("https://{address}");
        if let Some(said) = output("java", &[&source("Client.java"), &base, pem]) {
            assert_eq!(said, "HTTP_1_1 200 true\nHTTP_2 200 true\n");
        }
    });
}

#[test]
fn python_gets_along() {
    on_each_stack(|address, pem| {
        let base = format!("https://{address}");
        // Debian's packages python3-httpx and python3-h2.
        if let Some(said) = output("/usr/bin/python3", &[&source("client.py"), &base, pem]) {
            assert_eq!(said, "HTTP/1.1 200 True\nHTTP/2 200 True\n");
        }
    });
}

/// testssl.sh rates what it finds; a certificate that signs itself is no fault of the server's.
#[test]
fn testssl_finds_nothing_worth_mentioning() {
    let certificate = Certificate::new(&["localhost", "127.0.0.1"]);
    let options = certificate.options();
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    arguments.extend(["--tls-listen", "127.0.0.1:0"]);
    let server = Server::on_loopback("epoll", &arguments);
    let url = format!("https://{}", server.addresses[1]);
    let ask = [
        "--quiet",
        "--color",
        "0",
        "--warnings",
        "off",
        "--severity",
        "MEDIUM",
        "--protocols",
        "--vulnerable",
        "--std",
        "--fs",
        "--server-preference",
        "--csvfile",
        "found.csv",
        &url,
    ];
    let directory = tempfile::tempdir().unwrap();
    let ran = Command::new("testssl")
        .args(ask)
        .current_dir(directory.path())
        .output();
    if ran.is_err() {
        eprintln!("SKIPPED: testssl is not installed (Debian's package testssl.sh)");
        return;
    }
    let found = std::fs::read_to_string(directory.path().join("found.csv")).unwrap();
    let (header, findings) = found.split_once('\n').unwrap();
    assert!(header.starts_with("\"id\""), "{found}{ran:?}");
    // What is wrong with its own tools is only a warning.
    let is_bad = |finding: &&str| {
        ["MEDIUM", "HIGH", "CRITICAL"]
            .iter()
            .any(|bad| finding.contains(bad))
    };
    let bad: Vec<&str> = findings.lines().filter(is_bad).collect();
    assert_eq!(bad, [""; 0]);
    assert_eq!(server.terminate().code, Some(0));
}
