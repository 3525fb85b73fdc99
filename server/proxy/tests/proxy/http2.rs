//! What a proxy promises to clients that speak HTTP/2.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc;

use barewire_conformance::http2::{
    PREFACE, cancel, data, flag, frame, get, headers, request, settings, texts, window_update,
};

use crate::edge::{Edge, Origin, Start, pool_of, read_message};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;

/// A client that has greeted, and sees one frame after the other.
struct Client(BufReader<TcpStream>);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Client {
    fn connect(edge: &Edge, parameters: &[(u16, u32)]) -> Client {
        let stream = TcpStream::connect(edge.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let client = Client(BufReader::new(stream));
        client.send(&[&PREFACE[..], &settings(parameters)].concat());
        client
    }

    fn send(&self, frames: &[u8]) {
        self.0.get_ref().write_all(frames).unwrap();
    }

    fn next(&mut self) -> Frame {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).unwrap();
        let mut payload =
            vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        self.0.read_exact(&mut payload).unwrap();
        Frame {
            kind: header[3],
            flags: header[4],
            stream: u32::from_be_bytes([header[5], header[6], header[7], header[8]]),
            payload,
        }
    }

    /// The frames of responses, as texts, up to the end of that on `stream`.
    fn read(&mut self, stream: u32) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let next = self.next();
            if !matches!(next.kind, DATA | HEADERS | RST_STREAM) {
                continue;
            }
            all.extend(frame(next.kind, next.flags, next.stream, &next.payload));
            let is_end = next.kind == RST_STREAM || next.flags & flag::END_STREAM != 0;
            if next.stream == stream && is_end {
                return texts(&all);
            }
        }
    }
}

/// The fields of a block that consists of literals, as the head of a response of an origin does.
fn fields(mut block: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let take = |block: &mut &[u8]| {
        let (len, rest) = block.split_first().unwrap();
        let (text, rest) = rest.split_at(usize::from(*len));
        *block = rest;
        String::from_utf8(text.to_vec()).unwrap()
    };
    while let Some((first, rest)) = block.split_first() {
        block = rest;
        let name = match first {
            0x08 => ":status".to_owned(),
            // The name at 28.
            0x0f => {
                block = &block[1..];
                "content-length".to_owned()
            }
            0 => take(&mut block),
            other => panic!("{other:#x} is not a literal"),
        };
        fields.push((name, take(&mut block)));
    }
    fields
}

/// One that answers `GET /slow` when it is told to, and all else at once.
fn origin_with_a_slow_path() -> (Origin, mpsc::Sender<()>) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |stream, tell| {
        while let Some(request) = read_message(stream, true) {
            let is_slow = request.first_line.contains("/slow");
            tell(request);
            let body = match is_slow {
                true => {
                    let _ = wait.lock().unwrap().recv();
                    "slow"
                }
                false => "fast",
            };
            let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}");
            if stream.get_ref().write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    });
    (origin, go_on)
}

pub fn a_request_is_made_anew_and_its_response_too(start: Start) {
    let origin = Origin::answering(
        "HTTP/1.1 207 Fine\r\nContent-Length: 5\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nX-Kept: 2\r\n\r\nhello",
    );
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = Client::connect(&edge, &[]);
    let mut asking = request("GET", "/a?b=c");
    asking.extend([("via", "1.0 first"), ("cookie", "a=1"), ("cookie", "b=2")]);
    client.send(&headers(1, flag::END_STREAM, &asking));
    let head = loop {
        let frame = client.next();
        if frame.kind == HEADERS {
            break frame;
        }
    };
    let head = fields(&head.payload);
    let field = |name: &str| {
        let found = head.iter().find(|(each, _)| each == name);
        found.map(|(_, value)| &**value)
    };
    assert_eq!(field(":status"), Some("207"));
    assert_eq!(field("content-length"), Some("5"));
    assert_eq!(field("x-kept"), Some("2"));
    assert!(field("date").is_some(), "added, since the origin has none");
    for hop in ["x-hop", "keep-alive", "connection", "transfer-encoding"] {
        assert_eq!(field(hop), None);
    }
    let (mut content, mut is_over) = (Vec::new(), false);
    while !is_over {
        let frame = client.next();
        assert_eq!(frame.kind, DATA);
        content.extend(frame.payload);
        is_over = frame.flags & flag::END_STREAM != 0;
    }
    assert_eq!(content, b"hello");
    let asked = origin.asked.recv().unwrap();
    assert_eq!(asked.first_line, "GET /a?b=c HTTP/1.1");
    assert_eq!(asked.field("host"), Some("a"));
    assert_eq!(asked.field("cookie"), Some("a=1; b=2"));
    assert_eq!(asked.field("x-forwarded-host"), Some("a"));
    let via = asked
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("via"));
    let via: Vec<_> = via.map(|(_, value)| &**value).collect();
    assert_eq!(via, ["1.0 first", "2.0 barewire"]);
}

pub fn a_fast_call_overtakes_a_slow_one(start: Start) {
    let (origin, go_on) = origin_with_a_slow_path();
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = Client::connect(&edge, &[]);
    client.send(&get(1, "/slow"));
    origin.asked.recv().unwrap();
    client.send(&[get(3, "/fast"), get(5, "/fast")].concat());
    let mut fast = client.read(3);
    // Two calls on two connections to the origin: either may be the first.
    if !fast.contains(&"DATA 5 END fast".to_owned()) {
        fast.extend(client.read(5));
    }
    assert!(!fast.contains(&"HEADERS 1 200".to_owned()), "{fast:?}");
    go_on.send(()).unwrap();
    let slow = client.read(1);
    assert_eq!(slow[..2], ["HEADERS 1 200", "DATA 1 END slow"][..]);
}

pub fn a_hundred_streams_are_answered(start: Start) {
    let (origin, _) = origin_with_a_slow_path();
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = Client::connect(&edge, &[]);
    for round in 0..3 {
        let first = round * 200 + 1;
        let streams = (first..first + 200).step_by(2);
        let requests: Vec<_> = streams.flat_map(|stream| get(stream, "/")).collect();
        client.send(&requests);
        let mut ended = 0;
        while ended < 100 {
            let frame = client.next();
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & flag::END_STREAM != 0 {
                ended += 1;
            }
            assert_ne!(frame.kind, RST_STREAM);
        }
    }
    edge.wait_for("calls", 0);
}

pub fn bodies_of_any_length_go_both_ways(start: Start) {
    const LEN: usize = 3_000_000;
    let origin = Origin::start(|stream, _| {
        while let Some(request) = read_message(stream, true) {
            assert_eq!(request.field("transfer-encoding"), Some("chunked"));
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.get_ref().write_all(head.as_bytes()).unwrap();
            for piece in request.content.chunks(10_000) {
                let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                stream.get_ref().write_all(&chunk).unwrap();
            }
            stream.get_ref().write_all(b"0\r\n\r\n").unwrap();
        }
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = Client::connect(&edge, &[]);
    let body: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
    client.send(&headers(1, 0, &request("POST", "/")));
    // Both windows begin with 65,535 bytes; that of the connection is raised with the greeting.
    let (mut sent, mut of_stream, mut of_connection) = (0, 65_535, 65_535);
    let mut received = Vec::new();
    loop {
        while sent < LEN && of_stream.min(of_connection) > 0 {
            let len = (LEN - sent).min(of_stream).min(of_connection).min(16_384);
            let end = if sent + len == LEN {
                flag::END_STREAM
            } else {
                0
            };
            client.send(&data(1, end, &body[sent..sent + len]));
            (sent, of_stream, of_connection) = (sent + len, of_stream - len, of_connection - len);
        }
        let frame = client.next();
        match frame.kind {
            WINDOW_UPDATE => {
                let more = u32::from_be_bytes(frame.payload[..4].try_into().unwrap()) as usize;
                match frame.stream {
                    0 => of_connection += more,
                    _ => of_stream += more,
                }
            }
            DATA => {
                let len = frame.payload.len() as u32;
                received.extend(frame.payload);
                if frame.flags & flag::END_STREAM != 0 {
                    break;
                }
                if len > 0 {
                    client.send(&[window_update(0, len), window_update(1, len)].concat());
                }
            }
            RST_STREAM => panic!("reset"),
            _ => {}
        }
    }
    assert!(received == body);
}

pub fn a_client_that_does_not_read_a_stream_stops_only_that(start: Start) {
    let (tell, stuck) = mpsc::channel();
    let tell = Mutex::new(tell);
    let origin = Origin::start(move |stream, _| {
        while let Some(request) = read_message(stream, true) {
            let len = match request.first_line.contains("/large") {
                true => 50_000_000,
                false => 2,
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
            let mut to = stream.get_ref();
            to.write_all(head.as_bytes()).unwrap();
            if len > 2 {
                to.set_write_timeout(Some(std::time::Duration::from_millis(300)))
                    .unwrap();
                // Without back-pressure, the proxy would take all of it.
                assert!(to.write_all(&vec![b'x'; len]).is_err());
                tell.lock().unwrap().send(()).unwrap();
                return;
            }
            to.write_all(b"ok").unwrap();
        }
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = Client::connect(&edge, &[]);
    client.send(&[window_update(0, 1 << 30), get(1, "/large")].concat());
    stuck.recv().unwrap();
    client.send(&get(3, "/"));
    let last = client.read(3).pop();
    assert_eq!(last.as_deref(), Some("DATA 3 END ok"));
    // And what is given up gives up its call.
    client.send(&cancel(1));
    edge.wait_for("calls", 0);
}

pub fn a_stream_that_is_cancelled_takes_its_call_along(start: Start) {
    let (origin, _go_on) = origin_with_a_slow_path();
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = Client::connect(&edge, &[]);
    client.send(&get(1, "/slow"));
    origin.asked.recv().unwrap();
    client.send(&cancel(1));
    edge.wait_for("abandoned", 1);
    client.send(&get(3, "/"));
    assert_eq!(client.read(3).last().unwrap(), "DATA 3 END fast");
    client.send(&get(5, "/slow"));
    origin.asked.recv().unwrap();
    origin.asked.recv().unwrap();
    drop(client);
    edge.wait_for("abandoned", 2);
    edge.wait_for("calls", 0);
}

pub fn an_origin_that_promises_more_than_it_sends_ends_its_stream_only(start: Start) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |stream, _| {
        if read_message(stream, true).is_some() {
            let response = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok";
            stream.get_ref().write_all(response.as_bytes()).unwrap();
            let _ = wait.lock().unwrap().recv();
        }
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = Client::connect(&edge, &[]);
    client.send(&get(1, "/"));
    while client.next().kind != DATA {}
    go_on.send(()).unwrap();
    assert_eq!(client.read(1), ["RST_STREAM 1 INTERNAL_ERROR"]);
    client.send(&get(3, "/"));
    while client.next().kind != HEADERS {}
}

pub fn what_cannot_be_forwarded_is_refused(start: Start) {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let edge = start(&pool_of(&[nobody], ""));
    let mut client = Client::connect(&edge, &[]);
    client.send(&get(1, "/"));
    assert_eq!(client.read(1)[0], "HEADERS 1 502");
    client.send(&get(3, "/a/../b"));
    assert_eq!(client.read(3)[0], "HEADERS 3 400");
    // The rest of a body is not wanted.
    client.send(&headers(5, 0, &request("POST", "/a/../b")));
    assert_eq!(client.read(5)[0], "HEADERS 5 400");
    assert_eq!(client.read(5), ["RST_STREAM 5 NO_ERROR"]);
    client.send(&get(7, "/"));
    assert_eq!(client.read(7)[0], "HEADERS 7 502");
    edge.wait_for("calls", 0);
}

pub fn drain_finishes_the_calls_in_progress(start: Start) {
    let (origin, go_on) = origin_with_a_slow_path();
    let mut edge = start(&pool_of(&[origin.address], ""));
    let mut client = Client::connect(&edge, &[]);
    client.send(&get(1, "/slow"));
    origin.asked.recv().unwrap();
    edge.drain();
    go_on.send(()).unwrap();
    assert!(client.read(1).contains(&"HEADERS 1 200".to_owned()));
    drop(client);
    edge.join();
}
