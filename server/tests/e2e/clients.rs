//! The clients that people have: curl, ab, h2load, a browser. wrk has tests of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::{env, fs};

use barewire::site::byte_at;

use crate::kernel_stacks::STACKS;
use crate::server::Server;

/// Runs a command where the clients are and returns what it printed.
type Run<'a> = &'a dyn Fn(&[&str]) -> String;

/// What the site's routes and those of tests have.
const METHODS: &str = "GET, HEAD, POST, PUT, OPTIONS";

#[test]
fn every_client_gets_along_with_the_kernel_stacks() {
    for stack in STACKS {
        let server = Server::on_loopback(stack, &["--test-routes"]);
        check_on_loopback(server.addresses[0], METHODS);
        server.terminate().served();
    }
}

/// Runs every client against a server, which answers `OPTIONS *` with these methods.
pub fn check_on_loopback(address: SocketAddr, methods: &str) {
    check(&format!("http://{address}"), methods, &|command| {
        let output = Command::new(command[0])
            .args(&command[1..])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    });
}

#[cfg(feature = "xdp")]
#[test]
fn every_client_gets_along_with_the_bypass() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let server = crate::bypass::serve(&lab, &["--test-routes"]);
    for address in &server.addresses {
        check(&format!("http://{address}"), METHODS, &|command| {
            lab.client_runs(command)
        });
    }
    server.terminate().served();
}

fn check(base: &str, methods: &str, run: Run<'_>) {
    let files = Files::new();
    curl_asks_in_every_way(base, methods, run);
    curl_downloads_and_uploads_byte_for_byte(base, run, &files.0);
    ab_and_h2load_count_no_failure(base, run, &files.0);
    clients_with_prior_knowledge_speak_http2(base, run, &files.0);
    a_browser_shows_what_it_gets(base, run, &files.0);
}

fn curl(run: Run<'_>, arguments: &[&str]) -> String {
    run(&[
        &[
            "curl",
            "--silent",
            "--show-error",
            "--globoff",
            "--max-time",
            "60",
        ],
        arguments,
    ]
    .concat())
}

fn curl_asks_in_every_way(base: &str, methods: &str, run: Run<'_>) {
    let plaintext = format!("{base}/plaintext");
    let head = curl(run, &["--head", &plaintext]);
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Length: 13\r\n"),
        "{head}"
    );
    let options = curl(
        run,
        &[
            "--include",
            "--request",
            "OPTIONS",
            "--request-target",
            "*",
            base,
        ],
    );
    assert!(
        options.contains(&format!("\r\nAllow: {methods}\r\n")),
        "{options}"
    );
    assert_eq!(curl(run, &["--http1.0", &plaintext]), "Hello, World!");
    assert_eq!(
        curl(run, &["--proxy", base, "http://example.org/plaintext"]),
        "Hello, World!"
    );
    assert_eq!(
        curl(run, &[&format!("{base}/%70laintext?a=b"), &plaintext]),
        "Hello, World!".repeat(2)
    );

    let body = format!("{base}/test/body");
    let data = ["--data-binary", "hello"];
    assert_eq!(curl(run, &[&data[..], &[&body]].concat()), "hello");
    let continued = curl(
        run,
        &[
            &data[..],
            &["--include", "--header", "Expect: 100-continue", &body],
        ]
        .concat(),
    );
    assert!(
        continued.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
            && continued.ends_with("\r\n\r\nhello"),
        "{continued}"
    );
    let chunked = curl(
        run,
        &[
            &data[..],
            &["--header", "Transfer-Encoding: chunked", &body],
        ]
        .concat(),
    );
    assert_eq!(chunked, "hello");
}

fn curl_downloads_and_uploads_byte_for_byte(base: &str, run: Run<'_>, directory: &Path) {
    const LENGTH: u64 = 5_000_000;
    let (download, upload) = (directory.join("download"), directory.join("upload"));
    let (download, upload) = (download.to_str().unwrap(), upload.to_str().unwrap());
    let expected: Vec<u8> = (0..LENGTH).map(|offset| byte_at(5, offset)).collect();
    curl(
        run,
        &[
            "--output",
            download,
            &format!("{base}/test/stream?bytes={LENGTH}&seed=5"),
        ],
    );
    assert!(fs::read(download).unwrap() == expected);

    fs::write(upload, &expected).unwrap();
    let echo = format!("{base}/test/echo");
    for framing in [
        &[][..],
        &["--header", "Transfer-Encoding: chunked"],
        &["--header", "Expect:"],
    ] {
        curl(
            run,
            &[
                &["--output", download, "--upload-file", upload, &echo],
                framing,
            ]
            .concat(),
        );
        assert!(fs::read(download).unwrap() == expected, "{framing:?}");
    }

    // One that no route takes is refused while it is still being sent, and curl can read why.
    let refused = curl(
        run,
        &[
            "--include",
            "--header",
            "Expect:",
            "--data-binary",
            &format!("@{upload}"),
            &format!("{base}/test/body"),
        ],
    );
    assert!(
        refused.starts_with("HTTP/1.1 413 Content Too Large\r\n"),
        "{refused}"
    );
}

fn ab_and_h2load_count_no_failure(base: &str, run: Run<'_>, directory: &Path) {
    let plaintext = format!("{base}/plaintext");
    for options in [&["-k"][..], &[]] {
        let said = run(&[
            &["ab", "-q", "-n", "2000", "-c", "16"],
            options,
            &[&plaintext],
        ]
        .concat());
        for line in [
            "Complete requests:      2000\n",
            "Failed requests:        0\n",
        ] {
            assert!(said.contains(line), "{said}");
        }
        assert!(!said.contains("Non-2xx"), "{said}");
    }

    let event = directory.join("event");
    fs::write(&event, r#"{"userId":"ab","value":1}"#).unwrap();
    let posted = run(&[
        "ab",
        "-q",
        "-k",
        "-n",
        "2000",
        "-c",
        "16",
        "-p",
        event.to_str().unwrap(),
        "-T",
        "application/json",
        &format!("{base}/event"),
    ]);
    assert!(
        posted.contains("Failed requests:        0\n") && !posted.contains("Non-2xx"),
        "{posted}"
    );
    assert!(curl(run, &[&format!("{base}/stats")]).contains(r#""uniqueUsers":1,"#));

    if base.contains('[') {
        // h2load writes an IPv6 address into Host without its brackets, which has to be refused.
        return;
    }
    let said = run(&[
        "h2load", "--h1", "-n", "2000", "-c", "16", "-m", "8", &plaintext,
    ]);
    assert!(
        said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{said}"
    );
    assert!(
        said.contains("status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx"),
        "{said}"
    );
}

fn clients_with_prior_knowledge_speak_http2(base: &str, run: Run<'_>, directory: &Path) {
    const LENGTH: u64 = 5_000_000;
    let curl = |arguments: &[&str]| curl(run, &[&["--http2-prior-knowledge"], arguments].concat());
    let plaintext = format!("{base}/plaintext");
    let head = curl(&["--head", &plaintext]);
    assert!(
        head.starts_with("HTTP/2 200 \r\n") && head.contains("\r\ncontent-length: 13\r\n"),
        "{head}"
    );
    // One request for each connection: curl 7.88 sends its preface again on one that it uses again.
    assert_eq!(curl(&[&plaintext]), "Hello, World!");
    let body = format!("{base}/test/body");
    assert_eq!(curl(&["--data-binary", "hello", &body]), "hello");

    let (download, upload) = (directory.join("download"), directory.join("upload"));
    let (download, upload) = (download.to_str().unwrap(), upload.to_str().unwrap());
    let expected: Vec<u8> = (0..LENGTH).map(|offset| byte_at(5, offset)).collect();
    let stream = format!("{base}/test/stream?bytes={LENGTH}&seed=5");
    curl(&["--output", download, &stream]);
    assert!(fs::read(download).unwrap() == expected);
    fs::write(upload, &expected).unwrap();
    let echo = format!("{base}/test/echo");
    // Not by curl 7.88.1: of one upload in 200 it sends up to a window twice, and more than its Content-Length in all,
    // which has to be refused (RFC 9113, section 8.1.1).
    let nghttp = format!("nghttp --data='{upload}' '{echo}' > '{download}'");
    run(&["sh", "-c", &nghttp]);
    assert!(fs::read(download).unwrap() == expected);
    // Refused in the middle of the upload, with NO_ERROR (RFC 9113, section 8.1), which curl 7.88 takes for an error.
    let refused = run(&["nghttp", "--verbose", "--data", upload, &body]);
    assert!(refused.contains(":status: 413"), "{refused}");

    let said = run(&[
        "nghttp",
        "--verbose",
        "--multiply=50",
        "--null-out",
        &plaintext,
    ]);
    assert_eq!(said.matches(":status: 200").count(), 50, "{said}");

    if base.contains('[') {
        // h2load writes an IPv6 address without its brackets, which has to be refused.
        return;
    }
    for path in ["/plaintext", "/test/stream?bytes=100000"] {
        let url = format!("{base}{path}");
        let said = run(&["h2load", "-n", "2000", "-c", "16", "-m", "100", &url]);
        assert!(
            said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout")
                && said.contains("status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx"),
            "{said}"
        );
    }
}

fn a_browser_shows_what_it_gets(base: &str, run: Run<'_>, directory: &Path) {
    let profile = format!("--user-data-dir={}", directory.display());
    for (path, shown) in [
        ("/plaintext", "Hello, World!"),
        ("/json", r#"{"message":"Hello, World!"}"#),
    ] {
        let url = format!("{base}{path}");
        let page = run(&[
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            &profile,
            "--dump-dom",
            &url,
        ]);
        assert!(page.contains(shown), "{page}");
    }
}

/// A directory of this test, gone with it.
pub struct Files(PathBuf);

impl Files {
    pub fn new() -> Self {
        let path = env::temp_dir().join(format!(
            "barewire-clients-{}-{:?}",
            id(),
            std::thread::current().id()
        ));
        fs::create_dir_all(&path).unwrap();
        Files(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
