//! Every conformance case, every client and every request that hides another one, through `barewire proxy`, by HTTP/1.1 and
//! by teleport, in front of our own server and of nginx.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use barewire::site::byte_at;
use barewire_conformance::cases;
use barewire_conformance::driver::{Driver as _, Tcp};
use barewire_conformance::proxied::{check_through_proxy, smuggling};

use crate::clients;
use crate::http::Client;
use crate::kernel_stacks::{STACKS, anonymous_kib};
use crate::nginx::Nginx;
use crate::server::{BAREWIRE, Server, wait_until};

pub const PROTOCOLS: &[&str] = &["http", "teleport"];

/// A proxy whose only pool is these origins. `pool` is what the pool has beside, as lines of TOML.
pub fn edge(stack: &str, origins: &[SocketAddr], pool: &str, more: &[&str]) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let routes = directory.path().join("routes.toml");
    let origins: Vec<_> = origins.iter().map(SocketAddr::to_string).collect();
    let text = format!("[pool.app]\norigins = {origins:?}\n{pool}\n[[route]]\npool = \"app\"\n");
    fs::write(&routes, text).unwrap();
    let mut command = Command::new(BAREWIRE);
    command.args(["proxy", "--stack", stack, "--listen", "127.0.0.1:0"]);
    command.args(["--cores", "0", "--routes"]).arg(&routes);
    Server::start(command.args(more))
}

/// Our own server, and a proxy in front of it.
fn chain(stack: &str, protocol: &str) -> (Server, Server) {
    let listen = ["--teleport-listen", "127.0.0.1:0"];
    let origin = Server::on_loopback(stack, &[&["--test-routes"], &listen[..]].concat());
    let address = origin.addresses[usize::from(protocol == "teleport")];
    // As many as streams of all clients together.
    let pool = format!(
        "protocol = {protocol:?}\nconnections_max = 4096\n[limits]\nconnections_max = 4096"
    );
    let edge = edge(stack, &[address], &pool, &[]);
    (origin, edge)
}

#[test]
fn every_case_is_answered_through_a_proxy_as_by_the_server_itself() {
    for (stack, protocol) in on_all() {
        let (origin, edge) = chain(stack, protocol);
        let (_, requests_max) =
            check_through_proxy(edge.addresses[0]).unwrap_or_else(|differences| {
                panic!("{stack}, {protocol}:\n{}", differences.join("\n"))
            });
        let requests_max = requests_max + hide(edge.addresses[0]);
        let forwarded: u64 = edge.terminate().counters("proxy", "begun").iter().sum();
        let served = origin.terminate().served();
        assert!(
            served <= forwarded && forwarded <= requests_max,
            "{stack}, {protocol}: {served} of {forwarded} of {requests_max}"
        );
    }
}

#[test]
fn every_client_gets_along_with_a_proxy() {
    for (stack, protocol) in on_all() {
        let (origin, edge) = chain(stack, protocol);
        clients::check_on_loopback(
            edge.addresses[0],
            "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        );
        edge.terminate().served();
        origin.terminate().served();
    }
}

#[test]
fn nginx_gets_no_request_that_was_not_forwarded() {
    for (stack, protocol) in on_all() {
        let Some((nginx, address)) = nginx_that_notes() else {
            eprintln!("skipped: nginx is not installed (scripts/setup test)");
            return;
        };
        let sidecar = (protocol == "teleport")
            .then(|| edge(stack, &[address], "", &["--teleport-listen", "127.0.0.1:0"]));
        let address = sidecar
            .as_ref()
            .map_or(address, |sidecar| sidecar.addresses[1]);
        let edge = edge(stack, &[address], &format!("protocol = {protocol:?}"), &[]);
        let mut requests_max = 0;
        let mut tcp = Tcp::new(edge.addresses[0]);
        for case in cases() {
            tcp.exchange(&[&case.requests]).unwrap();
            requests_max += case.requests_max() as u64;
        }
        requests_max += hide(edge.addresses[0]);
        let edge = edge.terminate();
        drop(sidecar);
        let forwarded: u64 = edge.counters("proxy", "begun").iter().sum();
        let asked = noted(nginx);
        let count = asked.len() as u64;
        assert!(
            0 < count && count <= forwarded && forwarded <= requests_max,
            "{stack}, {protocol}: {count} of {forwarded} of {requests_max}"
        );
        let hidden = asked.iter().find(|line| line.contains("smuggled"));
        assert_eq!(hidden, None, "{stack}, {protocol}");
    }
}

/// `BODY_MB=1024` makes it a gigabyte.
#[test]
fn long_bodies_go_both_ways_and_take_no_memory() {
    /// What buffers grow by that a call takes.
    const GROWTH_KIB_MAX: u64 = 4 * 1024;

    let megabytes = std::env::var("BODY_MB").map_or(64, |text| text.parse().unwrap());
    let length: u64 = megabytes << 20;
    for (stack, protocol) in on_all() {
        let (origin, edge) = chain(stack, protocol);
        let mut client = Client::connect(edge.addresses[0]);
        let mut writer = client.same();
        let (mut before, mut most) = (0, 0);
        let mut receives = |client: &mut Client, length: u64, seed| {
            let head = client.receive(true);
            let said = head.field("content-length").map(str::to_owned);
            assert_eq!((head.status, said), (200, Some(length.to_string())));
            let mut space = vec![0; 1 << 16];
            for offset in (0..length).step_by(1 << 16) {
                let space = &mut space[..(length - offset).min(1 << 16) as usize];
                client.receive_into(space);
                let is_right = |(at, byte): (u64, &u8)| *byte == byte_at(seed, offset + at);
                assert!(
                    (0..).zip(&*space).all(is_right),
                    "{stack}, {protocol}: {offset}"
                );
                if offset % (1 << 22) == 0 {
                    most = most.max(anonymous_kib(&edge));
                }
            }
            std::mem::take(&mut most)
        };
        // What a first call takes anyway is there then.
        for (length, is_first) in [(1 << 20, true), (length, false)] {
            client.send(format!(
                "GET /test/stream?bytes={length}&seed=3 HTTP/1.1\r\nHost: a\r\n\r\n"
            ));
            let down = receives(&mut client, length, 3);
            client.send(format!(
                "PUT /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
            ));
            let echoed = std::thread::scope(|scope| {
                scope.spawn(|| {
                    for offset in (0..length).step_by(1 << 16) {
                        let end = length.min(offset + (1 << 16));
                        let bytes: Vec<_> =
                            (offset..end).map(|offset| byte_at(5, offset)).collect();
                        writer.send(bytes);
                    }
                });
                receives(&mut client, length, 5)
            });
            let used = down.max(echoed);
            match is_first {
                true => before = used,
                false => assert!(
                    used <= before + GROWTH_KIB_MAX,
                    "{stack}, {protocol}: {before} KiB, then {used}"
                ),
            }
        }
        edge.terminate().served();
        origin.terminate().served();
    }
}

fn on_all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let each = |stack: &&'static str| {
        PROTOCOLS.iter().map({
            let stack = *stack;
            move |protocol| (stack, *protocol)
        })
    };
    STACKS.iter().flat_map(each)
}

/// Sends requests that hide others. Returns how many of them may reach the origin at most.
fn hide(edge: SocketAddr) -> u64 {
    let mut tcp = Tcp::new(edge);
    let mut requests_max = 0;
    for (name, requests, forwarded_max) in smuggling() {
        let answer = tcp.exchange(&[requests.as_bytes()]).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let answers = answer.matches("HTTP/1.1 ").count() as u64;
        // What is refused is answered, too; and nothing is answered twice.
        assert!(answers <= 1, "{name}: {answer}");
        assert!(
            forwarded_max > 0
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.1 501 "),
            "{name}: {answer}"
        );
        requests_max += forwarded_max;
    }
    requests_max
}

/// An nginx on an address of this process's own, which answers everything and writes down what it was asked. `None` where
/// it is not installed.
fn nginx_that_notes() -> Option<(Nginx, SocketAddr)> {
    let pid = std::process::id();
    let address = SocketAddr::from(([127, 100, (pid >> 8) as u8, pid as u8], 8090));
    let http = format!(
        "log_format asked '$request'; access_log asked.log asked;
        server {{
            listen {address};
            location / {{ default_type text/plain; return 200 \"Hello, World!\"; }}
        }}"
    );
    let nginx = match Nginx::start(Command::new("nginx"), &http) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        nginx => nginx.unwrap(),
    };
    wait_until("nginx serves", || TcpStream::connect(address).is_ok());
    Some((nginx, address))
}

/// Lets it finish. Returns the request lines that it has read.
fn noted(mut nginx: Nginx) -> Vec<String> {
    nginx.end();
    let asked = fs::read_to_string(nginx.directory().join("asked.log")).unwrap();
    asked.lines().map(str::to_owned).collect()
}
