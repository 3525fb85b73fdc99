//! Requests to a node, on one connection or on many.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::server::{PATIENCE, Server, wait_until};

/// Requests that are under way at once.
const BATCH: usize = 200;

/// An event of the test: the user's number, and the value in quarters, so that sums can be checked in integers.
pub type Event = (u64, i64);

/// What the events of all nodes together come to.
#[derive(Debug, Default, Clone)]
pub struct Expected {
    events: u64,
    users: std::collections::BTreeSet<u64>,
    quarters: i128,
}

impl Expected {
    pub fn add(&mut self, events: &[Event]) {
        for &(user, quarters) in events {
            self.events += 1;
            self.users.insert(user);
            self.quarters += i128::from(quarters);
        }
    }

    fn is(&self, stats: &Value) -> bool {
        stats["totalRequests"].as_u64() == Some(self.events)
            && stats["uniqueUsers"].as_u64() == Some(self.users.len() as u64)
            && stats["sum"].as_f64() == Some(self.quarters as f64 / 4.0)
    }

    /// Waits until the fleet's counts are these, as `node` knows them.
    #[track_caller]
    pub fn wait_at(&self, node: SocketAddr) {
        let mut last = Value::Null;
        let started = std::time::Instant::now();
        while !self.is(&last) {
            assert!(
                started.elapsed() < PATIENCE,
                "{last} instead of {} events, {} users, sum {}",
                self.events,
                self.users.len(),
                self.quarters as f64 / 4.0
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
            last = fleet_stats(node);
        }
    }
}

/// Sends events and asserts that each is acknowledged.
pub fn send(node: SocketAddr, events: &[Event]) {
    let mut stream = connect(node);
    for batch in events.chunks(BATCH) {
        let mut requests = String::new();
        for (user, quarters) in batch {
            let value = *quarters as f64 / 4.0;
            let body = format!(r#"{{"userId":"user_{user}","value":{value}}}"#);
            requests += &format!(
                "POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        stream.write_all(requests.as_bytes()).unwrap();
        let (mut received, mut answers) = (Vec::new(), 0);
        while answers < batch.len() {
            let mut bytes = [0; 65536];
            let length = stream.read(&mut bytes).unwrap();
            assert!(length > 0, "the node closed the connection");
            received.extend_from_slice(&bytes[..length]);
            answers = received.windows(4).filter(|end| end == b"\r\n\r\n").count();
        }
        let text = String::from_utf8(received).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 ").count(), batch.len(), "{text}");
    }
}

/// The answer's status and content.
pub fn request(node: SocketAddr, method: &str, target: &str) -> (u16, String) {
    let mut stream = connect(node);
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// `GET /stats?scope=fleet`; null as long as the node knows nothing.
pub fn fleet_stats(node: SocketAddr) -> Value {
    match request(node, "GET", "/stats?scope=fleet") {
        (200, body) => serde_json::from_str(&body).unwrap(),
        (503, _) => Value::Null,
        other => panic!("{other:?}"),
    }
}

/// A counter of the part `fleet`, from the metrics of a node started with `--admin-listen 0`.
pub fn metric(server: &Server, name: &str) -> f64 {
    let url = server
        .report
        .iter()
        .find_map(|line| line.strip_prefix("metrics: "));
    let address = url.unwrap().strip_prefix("http://").unwrap();
    let (address, path) = address.split_once('/').unwrap();
    let (_, body) = request(address.parse().unwrap(), "GET", &format!("/{path}"));
    let line = body
        .lines()
        .find_map(|line| line.strip_prefix(&format!("barewire_fleet_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {body}"))
        .parse()
        .unwrap()
}

/// Waits until the engine has everything that `server` counted.
pub fn wait_until_published(server: &Server) {
    wait_until("everything is published", || {
        metric(server, "engine_answers") == 1.0
            && metric(server, "events_unpublished") == 0.0
            && metric(server, "users_waiting") == 0.0
    });
}

fn connect(node: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(node).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
