//! What every stack has to answer, checked over real connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::server::PATIENCE;

/// A connection that speaks raw HTTP.
pub struct Client(TcpStream);

/// A response as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Field lines without the status line.
    pub fields: Vec<String>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Tells the server that nothing more will come.
    pub fn finish(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// The next response. Those to HEAD have no body, whatever their fields say.
    pub fn receive(&mut self, is_head: bool) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n").map(str::to_owned);
        let status_line = lines.next().unwrap();
        assert!(status_line.starts_with("HTTP/1.1 "), "{status_line}");
        let mut response = Response {
            status: status_line[9..12].parse().unwrap(),
            fields: lines.collect(),
            body: Vec::new(),
        };
        if !is_head {
            let length: usize = response.field("content-length").unwrap().parse().unwrap();
            response.body.resize(length, 0);
            self.0.read_exact(&mut response.body).unwrap();
        }
        response
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.receive(false)
    }

    pub fn post(&mut self, path: &str, body: &str) -> Response {
        let length = body.len();
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        self.receive(false)
    }

    /// Everything until the server ends the connection.
    pub fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error}"),
        }
        rest
    }
}

/// All of what follows, against one server with empty event counts.
pub fn check_everything(address: SocketAddr) {
    the_techempower_routes_have_the_fields_they_need(address);
    pipelined_requests_are_answered_in_order(address);
    a_request_may_arrive_byte_by_byte(address);
    errors_have_their_status(address);
    a_connection_is_closed_when_asked_and_answered_when_half_closed(address);
    events_are_counted_however_they_arrive(address);
}

fn the_techempower_routes_have_the_fields_they_need(address: SocketAddr) {
    let mut client = Client::connect(address);
    let plaintext = client.get("/plaintext");
    assert_eq!((plaintext.status, plaintext.text()), (200, "Hello, World!"));
    assert!(
        plaintext
            .field("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let json = client.get("/json");
    assert_eq!(
        (json.status, json.text()),
        (200, r#"{"message":"Hello, World!"}"#)
    );
    assert_eq!(json.field("content-type"), Some("application/json"));
    for response in [plaintext, json] {
        assert!(response.field("server").is_some());
        assert!(response.field("date").unwrap().ends_with(" GMT"));
    }

    client.send("HEAD /plaintext HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.receive(true);
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some("13"))
    );
}

fn pipelined_requests_are_answered_in_order(address: SocketAddr) {
    const DEPTH: usize = 64;
    let mut client = Client::connect(address);
    let paths = ["/plaintext", "/json", "/nowhere"];
    let requests: String = (0..DEPTH)
        .map(|index| {
            format!(
                "GET {} HTTP/1.1\r\nHost: test\r\n\r\n",
                paths[index % paths.len()]
            )
        })
        .collect();
    client.send(requests);
    for index in 0..DEPTH {
        let expected = [200, 200, 404][index % paths.len()];
        assert_eq!(client.receive(false).status, expected, "request {index}");
    }
}

fn a_request_may_arrive_byte_by_byte(address: SocketAddr) {
    let mut client = Client::connect(address);
    for byte in b"GET /plaintext HTTP/1.1\r\nHost: test\r\n\r\n" {
        client.send([*byte]);
        thread::yield_now();
    }
    assert_eq!(client.receive(false).text(), "Hello, World!");
}

fn errors_have_their_status(address: SocketAddr) {
    let mut client = Client::connect(address);
    assert_eq!(client.get("/nowhere").status, 404);
    let wrong_method = client.post("/plaintext", "");
    assert_eq!(wrong_method.status, 405);
    assert!(wrong_method.field("allow").unwrap().contains("GET"));

    for (request, status) in [
        ("GET /plaintext HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400),
        (
            format!(
                "GET /plaintext HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n",
                "x".repeat(100_000)
            ),
            431,
        ),
        (
            "GET /plaintext HTTP/3.0\r\nHost: test\r\n\r\n".to_owned(),
            505,
        ),
    ] {
        let mut client = Client::connect(address);
        client.send(&request);
        assert_eq!(
            client.receive(false).status,
            status,
            "{}",
            &request[..30.min(request.len())]
        );
    }
}

fn a_connection_is_closed_when_asked_and_answered_when_half_closed(address: SocketAddr) {
    let mut closing = Client::connect(address);
    closing.send("GET /plaintext HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert_eq!(closing.receive(false).status, 200);
    assert_eq!(closing.rest(), b"");

    let mut half_closed = Client::connect(address);
    half_closed.send("GET /plaintext HTTP/1.1\r\nHost: test\r\n\r\n");
    half_closed.finish();
    assert_eq!(half_closed.receive(false).status, 200);
    assert_eq!(half_closed.rest(), b"");
}

fn events_are_counted_however_they_arrive(address: SocketAddr) {
    let mut client = Client::connect(address);
    for _ in 0..10 {
        assert_eq!(
            client
                .post("/event", r#"{"userId":"ada","value":0.1}"#)
                .status,
            200
        );
    }
    // Chunked, in pieces, and two in one segment.
    client.send("POST /event HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in [
        "10\r\n{\"userId\":\"grace",
        "\r\nc\r\n\",\"value\":2}\r\n",
        "0\r\n\r\n",
    ] {
        client.send(piece);
    }
    assert_eq!(client.receive(false).status, 200);
    let body = r#"{"value":1.5,"userId":"ada"}"#;
    let event = format!(
        "POST /event HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(event.repeat(2));
    assert_eq!(client.receive(false).status, 200);
    assert_eq!(client.receive(false).status, 200);
    assert_eq!(client.post("/event", r#"{"userId":"ada"}"#).status, 400);

    // Another connection, and with luck another core.
    let stats = Client::connect(address).get("/stats");
    assert_eq!(
        stats.text(),
        r#"{"totalRequests":13,"uniqueUsers":2,"sum":6.0,"avg":0.46153846153846156}"#
    );
}
