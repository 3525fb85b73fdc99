//! A server that a test talks to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use barewire::cli::load;
use barewire::events::{Events, EventsConfig};
use barewire::site::{self, Site, SiteResponder};
use barewire_http::{HttpCounters, Limits};
use barewire_service::lifecycle::{Lifecycle, Phase};
use barewire_service::stack::{Running, Stack};
use clap::Parser;

/// Where it is. Connections are made from the network namespace of the calling thread.
pub struct Server {
    pub address: SocketAddr,
}

/// What `/stats` says.
#[derive(Debug, PartialEq)]
pub struct Stats {
    pub total: u64,
    pub users: u64,
    pub sum: f64,
    pub avg: f64,
}

impl Server {
    pub fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).unwrap();
        connection.set_nodelay(true).unwrap();
        connection
    }

    /// Asks for `/stats` on a connection of its own: another core than the one that counted may answer.
    pub fn stats(&self) -> Stats {
        let mut connection = self.connect();
        connection
            .write_all(b"GET /stats HTTP/1.1\r\nHost: test\r\n\r\n")
            .unwrap();
        let (status, body) = read_response(&mut connection);
        assert_eq!(status, 200);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        Stats {
            total: json["totalRequests"].as_u64().unwrap(),
            users: json["uniqueUsers"].as_u64().unwrap(),
            sum: json["sum"].as_f64().unwrap(),
            avg: json["avg"].as_f64().unwrap(),
        }
    }

    /// Runs `barewire load`, which must find nothing wrong.
    pub fn load(&self, options: &str) {
        let target = format!("http://{}", self.address);
        let mut words = vec!["load", "--target", &target, "--timeout-ms", "60000"];
        words.extend(options.split_whitespace());
        let report = load::measure(load::Args::try_parse_from(words).unwrap()).unwrap();
        assert!(report.is_good(), "{report:?}");
    }
}

/// Reads one response that has a length, and no byte more.
pub fn read_response(connection: &mut TcpStream) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match connection.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => panic!("{other:?} behind {}", head.escape_ascii()),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), body)
}

/// What a core of the site under test runs; `events` has shards for at least as many cores.
pub fn responder(events: &Arc<Events>, core: usize) -> SiteResponder {
    let routes = site::routes(false).expect("the table is consistent");
    let counters = Arc::new(HttpCounters::new(&routes));
    let site = Site::new(events.shard(core));
    site::responder(&routes, site, Limits::default(), counters)
}

/// A stack that carries the site for the length of a test.
pub struct Carrier {
    running: Running,
    lifecycle: Lifecycle,
}

impl Carrier {
    /// Starts `stack` with at most `cores` cores.
    pub fn start<St: Stack>(stack: St, cores: usize) -> Self {
        let events = Events::new(EventsConfig::new(cores)).unwrap();
        let lifecycle = Lifecycle::new();
        let running = stack.start(move |core| responder(&events, core), &lifecycle);
        Carrier {
            running: running.unwrap(),
            lifecycle,
        }
    }

    pub fn server(&self) -> Server {
        Server {
            address: self.running.addresses[0],
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stop);
        for core in self.running.cores.drain(..) {
            let ended = core.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}
