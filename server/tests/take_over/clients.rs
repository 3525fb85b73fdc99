//! A client on a kept connection, which repeats nothing.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::server::PATIENCE;

pub struct Client {
    stream: TcpStream,
    /// Received and not looked at yet.
    rest: Vec<u8>,
}

pub struct Response {
    pub status: u16,
    pub closes: bool,
    pub content: Vec<u8>,
}

impl Response {
    pub fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.content).contains(text)
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            rest: Vec::new(),
        })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn response(&mut self) -> io::Result<Response> {
        let end = loop {
            let found = self.rest.windows(4).position(|part| part == b"\r\n\r\n");
            match found {
                Some(at) => break at + 4,
                None => self.receive()?,
            }
        };
        let head = String::from_utf8_lossy(&self.rest[..end]).to_ascii_lowercase();
        let field = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let mut values = lines.filter(|(found, _)| *found == name);
            values.next().map(|(_, value)| value.to_owned())
        };
        let length = field("content-length").map_or(0, |value| value.parse().unwrap());
        while self.rest.len() < end + length {
            self.receive()?;
        }
        let content = self.rest[end..end + length].to_vec();
        let response = Response {
            status: head[9..12].parse().unwrap(),
            closes: field("connection").is_some_and(|value| value == "close"),
            content,
        };
        self.rest.drain(..end + length);
        Ok(response)
    }

    pub fn event(&mut self, user: &str, value: u32) -> io::Result<Response> {
        self.send(&post(user, value))?;
        self.response()
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut space = [0; 4096];
        match self.stream.read(&mut space)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.rest.extend(&space[..count]);
                Ok(())
            }
        }
    }
}

/// A request for an event.
pub fn post(user: &str, value: u32) -> Vec<u8> {
    let body = format!("{{\"userId\":\"{user}\",\"value\":{value}}}");
    let length = body.len();
    format!("POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Two requests that have begun: an event, and a question for the counts.
pub struct Begun {
    event: Client,
    stats: Client,
}

impl Begun {
    pub fn at(address: SocketAddr) -> Self {
        let [mut event, mut stats] = [0; 2].map(|_| Client::connect(address).unwrap());
        let request = post("slow", 2);
        event.send(&request[..request.len() - REST]).unwrap();
        stats.send(b"GET /stats HTTP/1.1\r\nHo").unwrap();
        Begun { event, stats }
    }

    /// Completes the event.
    pub fn end_event(&mut self) -> Response {
        let request = post("slow", 2);
        self.event.send(&request[request.len() - REST..]).unwrap();
        self.event.response().unwrap()
    }

    /// Completes the question.
    pub fn end_stats(&mut self) -> Response {
        self.stats.send(b"st: a\r\n\r\n").unwrap();
        self.stats.response().unwrap()
    }
}

/// So many bytes of the event come later.
const REST: usize = 5;

/// What `GET path` answers, on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Response {
    let mut client = Client::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.send(request.as_bytes()).unwrap();
    client.response().unwrap()
}

/// `totalRequests`, `uniqueUsers` and `sum` of `GET /stats`.
pub fn stats(address: SocketAddr) -> (u64, u64, f64) {
    let response = get(address, "/stats");
    let stats: serde_json::Value = serde_json::from_slice(&response.content).unwrap();
    let count = |name: &str| stats[name].as_u64().unwrap();
    let sum = stats["sum"].as_f64().unwrap();
    (count("totalRequests"), count("uniqueUsers"), sum)
}
