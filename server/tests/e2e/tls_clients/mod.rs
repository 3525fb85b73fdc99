//! HTTPS with the clients that people have, on every stack, and with those who look for what is wrong with a server's
//! TLS. Who is not installed is skipped, and says so.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use barewire::site::byte_at;
use barewire_lab::Lab;
use tempfile::TempDir;

use crate::server::Server;
use crate::tls::Certificate;

/// Of the bodies that clients send and get which are not slowed down by a language.
const LONG: u64 = 100_000_000;

/// A server, and where its clients are.
struct Place<'a> {
    stack: &'a str,
    base: String,
    pem: String,
    lab: Option<&'a Lab>,
    directory: TempDir,
}

/// A server on each stack, asked by `check`: loopback for the kernel's, a lab for the bypass.
fn on_each_stack(check: impl Fn(&Place<'_>)) {
    let certificate = Certificate::new(&["localhost", "127.0.0.1", "10.77.0.2"]);
    let options = certificate.options();
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    arguments.push("--test-routes");
    let visit = |stack, server: Server, lab| {
        check(&Place {
            stack,
            base: format!("https://{}", server.addresses[1]),
            pem: certificate.pem(),
            lab,
            directory: tempfile::tempdir().unwrap(),
        });
        let ended = server.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    };
    let on_loopback = [&arguments[..], &["--tls-listen", "127.0.0.1:0"]].concat();
    for stack in crate::kernel_stacks::STACKS {
        visit(stack, Server::on_loopback(stack, &on_loopback), None);
    }
    #[cfg(feature = "xdp")]
    if let Some(lab) = crate::bypass::lab() {
        visit("xdp", crate::bypass::serve(&lab, &arguments), Some(&lab));
    }
}

impl Place<'_> {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What a program prints that has to succeed; `None` if it is not there.
    fn output(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("GOCACHE", self.directory.path())
            .env("GO111MODULE", "off")
            .current_dir(self.directory.path());
        let output = match self.lab {
            None => command.output(),
            // A child of a thread lives in the namespace of that.
            Some(lab) => lab.client(|| command.output()),
        };
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
        let stack = self.stack;
        assert!(
            output.status.success(),
            "{stack}: {program} {arguments:?}: {said}{complaint}"
        );
        Some(said)
    }

    fn curl(&self, arguments: &[&str]) -> String {
        let options = "--silent --show-error --fail --max-time 300 --cacert";
        let mut all: Vec<&str> = options.split(' ').collect();
        all.push(&self.pem);
        all.extend(arguments);
        self.output("curl", &all).expect("curl is installed")
    }
}

fn source(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/tls_clients");
    path.join(name).display().to_string()
}

#[test]
fn curl_moves_long_bodies_both_ways() {
    let expected: Vec<u8> = (0..LONG).map(|offset| byte_at(5, offset)).collect();
    on_each_stack(|place| {
        let upload = place.directory.path().join("upload");
        let download = place.directory.path().join("download");
        fs::write(&upload, &expected).unwrap();
        let (upload, downloaded) = (upload.to_str().unwrap(), download.to_str().unwrap());
        for (version, option) in [("1.1", "--http1.1"), ("2", "--http2")] {
            let asked = [
                "--write-out",
                "%{http_version}",
                option,
                "--output",
                downloaded,
            ];
            let stream = place.url(&format!("/test/stream?bytes={LONG}&seed=5"));
            assert_eq!(place.curl(&[&asked[..], &[&stream]].concat()), version);
            let is_same = fs::read(&download).unwrap() == expected;
            assert!(is_same, "{}: download, {version}", place.stack);

            let echo = place.url("/test/echo");
            let sent = place.curl(&[&asked[..], &["--upload-file", upload, &echo]].concat());
            assert_eq!(sent, version);
            let is_same = fs::read(&download).unwrap() == expected;
            assert!(is_same, "{}: echo, {version}", place.stack);
        }
    });
}

#[test]
fn nghttp_and_h2load_have_a_hundred_streams_at_once() {
    on_each_stack(|place| {
        let plaintext = place.url("/plaintext");
        let multiplied = ["--verbose", "--multiply=100", "--null-out", &plaintext];
        if let Some(said) = place.output("nghttp", &multiplied) {
            assert_eq!(said.matches(":status: 200").count(), 100, "{said}");
        }
        for (path, options) in [
            ("/plaintext", "-n 4000 -c 16 -m 100"),
            ("/test/stream?bytes=100000", "-n 1000 -c 4 -m 100"),
            ("/plaintext", "--h1 -n 4000 -c 16 -m 8"),
        ] {
            let url = place.url(path);
            let arguments: Vec<&str> = options.split(' ').chain([&*url]).collect();
            let Some(said) = place.output("h2load", &arguments) else {
                return;
            };
            let count = arguments[arguments.iter().position(|&word| word == "-n").unwrap() + 1];
            for line in [
                format!("{count} succeeded, 0 failed, 0 errored, 0 timeout"),
                format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx"),
            ] {
                assert!(said.contains(&line), "{}: {said}", place.stack);
            }
        }
    });
}

#[test]
fn a_browser_shows_what_it_gets() {
    on_each_stack(|place| {
        let profile = format!("--user-data-dir={}", place.directory.path().display());
        let url = place.url("/json");
        // It has authorities of its own.
        let options =
            "--headless --no-sandbox --disable-gpu --ignore-certificate-errors --dump-dom";
        let arguments: Vec<&str> = options.split(' ').chain([&*profile, &*url]).collect();
        if let Some(page) = place.output("chromium", &arguments) {
            let greeting = r#"{"message":"Hello, World!"}"#;
            assert!(page.contains(greeting), "{}: {page}", place.stack);
        }
    });
}

#[test]
fn go_gets_along() {
    on_each_stack(|place| {
        let arguments = ["run", &source("client.go"), &place.base, &place.pem];
        if let Some(said) = place.output("go", &arguments) {
            assert_eq!(said, "HTTP/1.1 200 true\nHTTP/2.0 200 true\n");
        }
    });
}

#[test]
fn java_gets_along() {
    on_each_stack(|place| {
        let arguments = [&source("Client.java"), &place.base, &place.pem];
        if let Some(said) = place.output("java", &arguments.map(|argument| &**argument)) {
            assert_eq!(said, "HTTP_1_1 200 true\nHTTP_2 200 true\n");
        }
    });
}

#[test]
fn python_gets_along() {
    on_each_stack(|place| {
        // Debian's packages python3-httpx and python3-h2.
        let arguments = [&source("client.py"), &place.base, &place.pem];
        let said = place.output("/usr/bin/python3", &arguments.map(|argument| &**argument));
        if let Some(said) = said {
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
