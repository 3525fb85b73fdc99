//! A directory that is served, on every stack.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::http::{Client, Response};
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Server};

/// A file that no test holds in memory, and no server shall.
const LARGE_BYTES: u64 = 1 << 30;
/// What is written every so often into it; the rest is a hole.
const MARK: &[u8] = b"barewire";
const MARKS_APART_BYTES: u64 = 1 << 20;

/// A directory to serve, and a file beside it that must not be served.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), everybody.clone()).unwrap();
    let served = directory.path().join("served");
    fs::create_dir_all(served.join("sub")).unwrap();
    fs::write(served.join("index.html"), "<!doctype html>index").unwrap();
    fs::write(
        served.join("sub/data"),
        (0..=255).cycle().take(5000).collect::<Vec<u8>>(),
    )
    .unwrap();
    fs::write(directory.path().join("secret"), "secret").unwrap();
    symlink("../secret", served.join("out")).unwrap();
    symlink("sub/data", served.join("in")).unwrap();
    directory
}

fn arguments(directory: &TempDir) -> [String; 2] {
    let served = directory.path().join("served");
    [
        "--directory".to_owned(),
        served.to_str().unwrap().to_owned(),
    ]
}

fn on_loopback(stack: &str, directory: &TempDir) -> Server {
    let arguments = arguments(directory);
    Server::on_loopback(stack, &[&arguments[0], &arguments[1]])
}

fn ask(client: &mut Client, method: &str, target: &str, fields: &str) -> Response {
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"
    ));
    client.receive(method == "HEAD" || fields.starts_with("If-None-Match"))
}

#[test]
fn the_kernel_stacks_serve_files() {
    let directory = directory();
    for stack in STACKS {
        let server = on_loopback(stack, &directory);
        check(&mut Client::connect(server.addresses[0]));
        server.terminate().served();
    }
}

#[cfg(feature = "xdp")]
#[test]
fn the_bypass_serves_files() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let directory = directory();
    let arguments = arguments(&directory);
    let server = crate::bypass::serve(&lab, &[&arguments[0], &arguments[1]]);
    for address in &server.addresses {
        check(&mut lab.client(|| Client::connect(*address)));
    }
    server.terminate().served();
}

fn check(client: &mut Client) {
    let index = ask(client, "GET", "/static/", "");
    assert_eq!(
        (index.status, &index.body[..]),
        (200, &b"<!doctype html>index"[..])
    );
    assert_eq!(
        index.field("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(
        ask(client, "GET", "/static", "").field("location"),
        Some("/static/")
    );
    assert_eq!(
        ask(client, "GET", "/static/sub", "").field("location"),
        Some("/static/sub/")
    );

    let whole = ask(client, "GET", "/static/sub/data", "");
    assert_eq!((whole.status, whole.body.len()), (200, 5000));
    let (etag, date) = (
        whole.field("etag").unwrap(),
        whole.field("last-modified").unwrap(),
    );
    let head = ask(client, "HEAD", "/static/sub/data", "");
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some("5000"))
    );
    assert_eq!(ask(client, "GET", "/static/in", "").body, whole.body);

    for (range, part) in [
        ("0-0", 0..1),
        ("4990-", 4990..5000),
        ("-10", 4990..5000),
        ("9-3000", 9..3001),
    ] {
        let got = ask(
            client,
            "GET",
            "/static/sub/data",
            &format!("Range: bytes={range}\r\n"),
        );
        assert_eq!(
            (got.status, &got.body[..]),
            (206, &whole.body[part.clone()]),
            "{range}"
        );
        let expected = format!("bytes {}-{}/5000", part.start, part.end - 1);
        assert_eq!(got.field("content-range"), Some(&*expected));
    }
    let got = ask(client, "GET", "/static/sub/data", "Range: bytes=5000-\r\n");
    assert_eq!(
        (got.status, got.field("content-range")),
        (416, Some("bytes */5000"))
    );
    let fields = format!("Range: bytes=0-0\r\nIf-Range: {etag}\r\n");
    assert_eq!(ask(client, "GET", "/static/sub/data", &fields).status, 206);
    let fields = "Range: bytes=0-0\r\nIf-Range: \"other\"\r\n";
    assert_eq!(ask(client, "GET", "/static/sub/data", fields).status, 200);

    let fields = format!("If-None-Match: {etag}\r\n");
    assert_eq!(ask(client, "GET", "/static/sub/data", &fields).status, 304);
    let fields = "If-Match: \"other\"\r\n";
    assert_eq!(ask(client, "GET", "/static/sub/data", fields).status, 412);
    let fields = format!("If-Unmodified-Since: {date}\r\n");
    assert_eq!(ask(client, "GET", "/static/sub/data", &fields).status, 200);

    for target in [
        "/static/../secret",
        "/static/%2e%2e/secret",
        "/static/..%2fsecret",
        "/static/sub/../../../secret",
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/out",
        "/static/sub/data%00",
        "/secret",
    ] {
        assert_eq!(ask(client, "GET", target, "").status, 404, "{target}");
    }
    assert_eq!(client.get("/plaintext").body, b"Hello, World!");
}

#[test]
fn the_kernel_stacks_serve_a_gigabyte_without_holding_it() {
    let directory = directory_with_a_large_file();
    for stack in STACKS {
        let server = on_loopback(stack, &directory);
        check_large(&server, Client::connect(server.addresses[0]));
        server.terminate().served();
    }
}

#[cfg(feature = "xdp")]
#[test]
fn the_bypass_serves_a_gigabyte_without_holding_it() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let directory = directory_with_a_large_file();
    let arguments = arguments(&directory);
    let server = crate::bypass::serve(&lab, &[&arguments[0], &arguments[1]]);
    check_large(&server, lab.client(|| Client::connect(server.addresses[0])));
    server.terminate().served();
}

/// With a mark at regular places of its file, which is otherwise a hole.
fn directory_with_a_large_file() -> TempDir {
    let directory = directory();
    let mut file = File::create(directory.path().join("served/large")).unwrap();
    for at in (0..LARGE_BYTES).step_by(MARKS_APART_BYTES as usize) {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(MARK).unwrap();
    }
    file.set_len(LARGE_BYTES).unwrap();
    directory
}

fn check_large(server: &Server, mut client: Client) {
    let before = resident_kib(server);
    client.send("GET /static/large HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.receive(true);
    assert_eq!(
        head.field("content-length"),
        Some(&*LARGE_BYTES.to_string())
    );
    let mut piece = vec![0; MARKS_APART_BYTES as usize];
    let mut grown = 0;
    for at in 0..LARGE_BYTES / MARKS_APART_BYTES {
        client.receive_into(&mut piece);
        assert!(
            piece.starts_with(MARK) && piece[MARK.len()..].iter().all(|byte| *byte == 0),
            "{at}"
        );
        grown = grown.max(resident_kib(server).saturating_sub(before));
    }
    assert!(grown < 16 * 1024, "{grown} KiB more");
    assert_eq!(client.get("/plaintext").body, b"Hello, World!");
}

/// Memory of the process that is in RAM, in KiB.
fn resident_kib(server: &Server) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid())).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.unwrap()
        .trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_directory_that_cannot_be_served_is_refused_at_the_start() {
    let directory = directory();
    let served = directory.path().join("served");
    let fail = |directory: &Path, more: &[&str]| {
        let mut command = Command::new(BAREWIRE);
        let listen = [
            "serve",
            "--stack",
            STACKS[0],
            "--listen",
            "127.0.0.1:0",
            "--directory",
        ];
        Server::refusal(command.args(listen).arg(directory).args(more))
    };
    assert!(fail(&served.join("missing"), &[]).contains("No such file or directory"));
    assert!(fail(&served.join("index.html"), &[]).contains("Not a directory"));
    assert!(fail(&served, &["--directory-prefix", "/plaintext"]).contains("--directory-prefix"));
    assert!(fail(&served, &["--directory-prefix", "static"]).contains("begin with a slash"));
}

#[test]
fn a_directory_can_be_at_the_root() {
    let directory = directory();
    let [option, path] = arguments(&directory);
    let server = Server::on_loopback(STACKS[0], &[&option, &path, "--directory-prefix", "/"]);
    let address: SocketAddr = server.addresses[0];
    let mut client = Client::connect(address);
    assert_eq!(client.get("/").body, b"<!doctype html>index");
    assert_eq!(client.get("/sub/data").body.len(), 5000);
    assert_eq!(client.get("/plaintext").body, b"Hello, World!");
    assert_eq!(client.get("//etc/passwd").status, 404);
    server.terminate().served();
}
