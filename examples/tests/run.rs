//! Every example, run as its first line says, and used as its documentation describes.
//!
//! Those that take queues of an interface need root; without it they are skipped.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// An example that serves. It ends when this is dropped.
struct Server {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Server {
    fn start(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let list = line
            .trim()
            .strip_prefix("ready [")
            .and_then(|line| line.strip_suffix(']'));
        let addresses = list
            .unwrap_or_else(|| panic!("{command:?} said {line:?}"))
            .split(", ");
        Server {
            addresses: addresses.map(|address| address.parse().unwrap()).collect(),
            child,
        }
    }

    fn on_loopback(program: &str, more: &[&str]) -> Server {
        Server::start(Command::new(program).arg("127.0.0.1:0").args(more))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echo(mut stream: TcpStream) {
    let said: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut heard = vec![0; said.len()];
    for (said, heard) in said.chunks(4096).zip(heard.chunks_mut(4096)) {
        stream.write_all(said).unwrap();
        stream.read_exact(heard).unwrap();
    }
    assert!(said == heard);
}

/// The answer to a request whose fields and body are `rest`.
fn ask(server: &Server, line: &str, rest: &str) -> String {
    let mut stream = connect(server.addresses[0]);
    let request = format!("{line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{rest}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_kernel_stacks_echo() {
    for program in [
        env!("CARGO_BIN_EXE_echo_epoll"),
        env!("CARGO_BIN_EXE_echo_uring"),
    ] {
        let server = Server::on_loopback(program, &[]);
        echo(connect(server.addresses[0]));
    }
}

#[cfg(feature = "xdp")]
#[test]
fn the_bypass_echoes_and_calls() {
    use barewire_lab::{CLIENT_DEVICE, Lab, SERVER_DEVICE};

    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    let program = env!("CARGO_BIN_EXE_echo_xdp");
    let server = Server::start(lab.server_command().args([program, SERVER_DEVICE]));
    assert!(!server.addresses.is_empty());
    for address in &server.addresses {
        lab.client(|| echo(connect(*address)));
        let program = env!("CARGO_BIN_EXE_client_xdp");
        let said = lab.client_runs(&[program, CLIENT_DEVICE, &address.to_string()]);
        assert_eq!(said.matches(": Closed").count(), 10, "{said}");
    }
}

#[test]
fn http_has_state_parameters_and_json() {
    let server = Server::on_loopback(env!("CARGO_BIN_EXE_http_server"), &[]);
    let hello = ask(&server, "GET /hello/world", "\r\n");
    assert!(
        hello.starts_with("HTTP/1.1 200 OK\r\n") && hello.contains("\r\nX-Core: "),
        "{hello}"
    );
    assert!(hello.contains("\r\n\r\nHello, world. Core "), "{hello}");
    assert!(ask(&server, "GET /hello", "\r\n").starts_with("HTTP/1.1 404 "));
    let sum = |media_type: &str, body: &str| {
        let length = body.len();
        let fields = format!("Content-Type: {media_type}\r\nContent-Length: {length}\r\n");
        ask(&server, "POST /sum", &format!("{fields}\r\n{body}"))
    };
    let answer = sum("application/json", r#"{"numbers":[1,2,3.5]}"#);
    assert!(answer.ends_with(r#"{"sum":6.5}"#), "{answer}");
    assert!(sum("application/json", "[]").starts_with("HTTP/1.1 400 "));
    assert!(sum("text/plain", r#"{"numbers":[]}"#).starts_with("HTTP/1.1 415 "));
}

#[test]
fn many_calls_go_through_one_connection() {
    let server = Server::on_loopback(env!("CARGO_BIN_EXE_teleport_server"), &[]);
    let paths: Vec<_> = (0..200).map(|at| format!("/hello/{at}")).collect();
    let said = Command::new(env!("CARGO_BIN_EXE_teleport_client"))
        .arg(server.addresses[1].to_string())
        .args(&paths)
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let names = said.lines().filter_map(|line| line.strip_prefix("Hello, "));
    let wanted: Vec<_> = (0..200).map(|at| format!("{at}.")).collect();
    assert_eq!(names.collect::<Vec<_>>(), wanted);
    assert!(ask(&server, "GET /hello/you", "\r\n").ends_with("Hello, you.\n"));
}

#[test]
fn middleware_asks_for_the_password() {
    let program = env!("CARGO_BIN_EXE_middleware");
    let server = Server::on_loopback(program, &["dXNlcjpwYXNzd29yZA=="]);
    let answer = |secret: &str| {
        ask(
            &server,
            "GET /",
            &format!("Authorization: Basic {secret}\r\n\r\n"),
        )
    };
    let welcome = answer("dXNlcjpwYXNzd29yZA==");
    assert!(
        welcome.ends_with("\r\n\r\nWelcome.\n") && welcome.contains("\r\nX-Request-Id: "),
        "{welcome}"
    );
    for wrong in [
        "",
        "dXNlcjpwYXNzd29yZ",
        "dXNlcjpwYXNzd29yZA=",
        "dXNlcjpwYXNzd29yZA===",
        "dXNlcjpQYXNzd29yZA==",
    ] {
        let refused = answer(wrong);
        assert!(
            refused.starts_with("HTTP/1.1 401 ") && refused.contains("\r\nWWW-Authenticate: Basic"),
            "{refused}"
        );
    }
}

/// They are read at once, and to change the stack is to change a line.
#[test]
fn examples_are_short_and_alike() {
    let directory = env!("CARGO_MANIFEST_DIR");
    let read = |name: &str| fs::read_to_string(format!("{directory}/{name}.rs")).unwrap();
    for name in [
        "echo_xdp",
        "echo_epoll",
        "echo_uring",
        "http_server",
        "middleware",
        "teleport_server",
        "teleport_client",
        "client_xdp",
    ] {
        let lines = read(name).lines().count();
        assert!(lines <= 60, "{name}: {lines} lines");
    }
    let code = |name: &str| -> Vec<String> {
        let text = read(name);
        let is_code = |line: &&str| {
            !line.starts_with("//!") && !line.starts_with("use ") && !line.contains("usage:")
        };
        text.lines().filter(is_code).map(str::to_owned).collect()
    };
    let epoll = code("echo_epoll");
    for other in [code("echo_xdp"), code("echo_uring")] {
        let different: Vec<_> = epoll
            .iter()
            .zip(&other)
            .filter(|(one, other)| one != other)
            .collect();
        assert!(
            matches!(different[..], [(line, _)] if line.starts_with("    let stack = ")),
            "{different:?}"
        );
    }
}
