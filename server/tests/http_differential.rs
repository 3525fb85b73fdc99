//! The responder against hyper: which requests reach the application, and with which fields and body.
//!
//! Each [`Quirk`] bends a request in one way. Where the two disagree about it, the RFC decides, and the
//! table says what it says. Everything else, in any combination, must be understood alike.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use barewire_conformance::driver::{Driver, Memory};
use barewire_http::{Answer, Request, Responder, Response, Route, Routes};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// A request in the making.
#[derive(Debug, Clone)]
struct Draft {
    line: String,
    fields: Vec<String>,
    body: String,
}

/// One way to bend a request.
struct Quirk {
    name: &'static str,
    base: Base,
    bend: fn(&mut Draft),
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// Any of the others.
    Any,
    Get,
    Length,
    Chunked,
}

/// What the two servers make of a quirk, and what the RFC says where they disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Both understand the same, or both refuse.
    Alike,
    /// Only the responder refuses, and may or must, by this section.
    OnlyHyperAccepts(&'static str),
    /// Only hyper refuses; the responder may or must accept, by this section.
    OnlyHyperRefuses(&'static str),
}

use Base::{Any, Chunked, Get, Length};
use Verdict::{Alike, OnlyHyperAccepts, OnlyHyperRefuses};

#[rustfmt::skip]
const QUIRKS: &[Quirk] = &[
    quirk("nothing", Get, |_| {}, Alike),
    quirk("nothing, with a length", Length, |_| {}, Alike),
    quirk("nothing, with chunks", Chunked, |_| {}, Alike),
    // The request line.
    quirk("HTTP/1.0", Get, |draft| draft.line = "GET /a HTTP/1.0\r\n".into(), Alike),
    quirk("HTTP/2.0", Get, |draft| draft.line = "GET /a HTTP/2.0\r\n".into(), Alike),
    quirk("HTTP/1.2", Get, |draft| draft.line = "GET /a HTTP/1.2\r\n".into(), OnlyHyperRefuses("RFC 9110, 2.5: to be understood as 1.1")),
    quirk("HTTP/0.9", Get, |draft| draft.line = "GET /a\r\n".into(), Alike),
    quirk("a query", Get, |draft| draft.line = "GET /a?b=c&d HTTP/1.1\r\n".into(), Alike),
    quirk("an absolute target", Get, |draft| draft.line = "GET http://h/a HTTP/1.1\r\n".into(), Alike),
    quirk("another scheme", Get, |draft| draft.line = "GET https://h/a HTTP/1.1\r\n".into(), OnlyHyperAccepts("RFC 9110, 7.4: not over a connection without TLS")),
    quirk("user information", Get, |draft| draft.line = "GET http://u@h/a HTTP/1.1\r\n".into(), OnlyHyperAccepts("RFC 9110, 4.2.4: to be treated as an error")),
    quirk("a fragment", Get, |draft| draft.line = "GET /a#b HTTP/1.1\r\n".into(), OnlyHyperAccepts("3.2: not part of a request target")),
    quirk("a quote in the query", Get, |draft| draft.line = "GET /a?\" HTTP/1.1\r\n".into(), Alike),
    quirk("a brace in the query", Get, |draft| draft.line = "GET /a?{} HTTP/1.1\r\n".into(), Alike),
    quirk("a control character in the target", Get, |draft| draft.line = "GET /a\x01 HTTP/1.1\r\n".into(), Alike),
    quirk("two spaces", Get, |draft| draft.line = "GET  /a HTTP/1.1\r\n".into(), Alike),
    quirk("a tab", Get, |draft| draft.line = "GET\t/a HTTP/1.1\r\n".into(), Alike),
    quirk("a space at the end of the line", Get, |draft| draft.line = "GET /a HTTP/1.1 \r\n".into(), Alike),
    quirk("LF after the line", Get, |draft| draft.line = "GET /a HTTP/1.1\n".into(), OnlyHyperAccepts("2.2: a recipient MAY recognize it")),
    quirk("an empty line before the line", Get, |draft| draft.line.insert_str(0, "\r\n"), Alike),
    quirk("three empty lines before the line", Get, |draft| draft.line.insert_str(0, "\r\n\r\n\r\n"), OnlyHyperAccepts("2.2: at least one is to be ignored")),
    quirk("LF before the line", Get, |draft| draft.line.insert(0, '\n'), OnlyHyperAccepts("2.2: an empty line ends in CRLF")),
    quirk("a space before the line", Get, |draft| draft.line.insert(0, ' '), Alike),
    // Host.
    quirk("no Host", Get, |draft| draft.fields.clear(), OnlyHyperAccepts("3.2: MUST be answered with 400")),
    quirk("two Hosts", Get, |draft| draft.field("Host: b\r\n"), OnlyHyperAccepts("3.2: MUST be answered with 400")),
    quirk("an empty Host", Get, |draft| draft.fields = vec!["Host:\r\n".into()], Alike),
    quirk("an invalid Host", Get, |draft| draft.fields = vec!["Host: a b\r\n".into()], OnlyHyperAccepts("3.2: MUST be answered with 400")),
    // Fields.
    quirk("a field", Any, |draft| draft.field("X: y\r\n"), Alike),
    quirk("a field without white space", Any, |draft| draft.field("X:y\r\n"), Alike),
    quirk("a field with much white space", Any, |draft| draft.field("X:\t y z \t\r\n"), Alike),
    quirk("an empty field", Any, |draft| draft.field("X:\r\n"), Alike),
    quirk("obs-text", Any, |draft| draft.field("X: \u{e9}\r\n"), Alike),
    quirk("a strange name", Any, |draft| draft.field("x!#$%&'*+-.^_`|~9: y\r\n"), Alike),
    quirk("a space before the colon", Any, |draft| draft.field("X : y\r\n"), Alike),
    quirk("a space in the name", Any, |draft| draft.field("X Y: z\r\n"), Alike),
    quirk("no colon", Any, |draft| draft.field("X\r\n"), Alike),
    quirk("no name", Any, |draft| draft.field(": y\r\n"), Alike),
    quirk("a folded line", Any, |draft| draft.field("X: y\r\n z\r\n"), Alike),
    quirk("LF after a field", Any, |draft| draft.field("X: y\n"), OnlyHyperAccepts("2.2: a recipient MAY recognize it")),
    quirk("CR in a value", Any, |draft| draft.field("X: y\rz\r\n"), Alike),
    quirk("NUL in a value", Any, |draft| draft.field("X: y\0z\r\n"), Alike),
    quirk("DEL in a value", Any, |draft| draft.field("X: \x7f\r\n"), Alike),
    quirk("an escape character in a value", Any, |draft| draft.field("X: \x1b\r\n"), Alike),
    quirk("close", Any, |draft| draft.field("Connection: close\r\n"), Alike),
    quirk("close in a list", Any, |draft| draft.field("Connection: x, CLOSE\r\n"), Alike),
    quirk("keep-alive", Any, |draft| draft.field("Connection: keep-alive\r\n"), Alike),
    quirk("an expectation", Length, |draft| draft.field("Expect: 100-continue\r\n"), Alike),
    quirk("another expectation", Length, |draft| draft.field("Expect: x\r\n"), OnlyHyperAccepts("RFC 9110, 10.1.1: MAY be answered with 417")),
    // Content-Length.
    quirk("the same length twice", Length, |draft| draft.field("Content-Length: 5\r\n"), OnlyHyperAccepts("6.3: may be refused")),
    quirk("the same length in a list", Length, |draft| draft.length("5, 5"), Alike),
    quirk("two lengths", Length, |draft| draft.field("Content-Length: 6\r\n"), Alike),
    quirk("a signed length", Length, |draft| draft.length("+5"), Alike),
    quirk("a negative length", Length, |draft| draft.length("-5"), Alike),
    quirk("an empty length", Length, |draft| draft.length(""), Alike),
    quirk("a hexadecimal length", Length, |draft| draft.length("0x5"), Alike),
    quirk("a length of more than 64 bits", Length, |draft| draft.length("18446744073709551621"), Alike),
    quirk("a length with zeros in front", Length, |draft| draft.length("005"), Alike),
    quirk("a body without a length", Length, |draft| draft.fields.truncate(1), OnlyHyperAccepts("RFC 9110, 15.5.12: 411, since the route needs a body")),
    // Transfer-Encoding.
    quirk("CHUNKED", Chunked, |draft| draft.coding("CHUNKED"), Alike),
    quirk("chunked with a length", Chunked, |draft| draft.field("Content-Length: 15\r\n"), OnlyHyperAccepts("6.1: may be refused, to be on the safe side")),
    quirk("a coding before chunked", Chunked, |draft| draft.coding("gzip, chunked"), OnlyHyperAccepts("6.1: a coding that is not understood SHOULD get 501")),
    quirk("a coding after chunked", Chunked, |draft| draft.coding("chunked, gzip"), Alike),
    quirk("no chunked", Chunked, |draft| draft.coding("gzip"), Alike),
    quirk("identity", Chunked, |draft| draft.coding("identity"), Alike),
    quirk("nearly chunked", Chunked, |draft| draft.coding("xchunked"), Alike),
    quirk("chunked twice", Chunked, |draft| draft.coding("chunked, chunked"), OnlyHyperAccepts("6.1: MUST NOT be applied more than once")),
    quirk("chunked in HTTP/1.0", Chunked, |draft| draft.line = "POST /b HTTP/1.0\r\n".into(), Alike),
    // Chunks.
    quirk("two chunks", Chunked, |draft| draft.body.insert_str(0, "2\r\nab\r\n"), Alike),
    quirk("zeros in front", Chunked, |draft| draft.body.insert_str(0, "000"), Alike),
    quirk("an extension", Chunked, |draft| draft.bend("5\r\n", "5;a=b\r\n"), Alike),
    quirk("an extension without a name", Chunked, |draft| draft.bend("5\r\n", "5;\r\n"), OnlyHyperAccepts("7.1.1: an extension has a name")),
    quirk("a space after the size", Chunked, |draft| draft.bend("5\r\n", "5 \r\n"), OnlyHyperAccepts("7.1.1: white space only before an extension")),
    quirk("a space before the size", Chunked, |draft| draft.body.insert(0, ' '), Alike),
    quirk("a signed size", Chunked, |draft| draft.body.insert(0, '+'), Alike),
    quirk("a prefixed size", Chunked, |draft| draft.body.insert_str(0, "0x"), Alike),
    quirk("LF after the size", Chunked, |draft| draft.bend("5\r\n", "5\n"), Alike),
    quirk("LF in an extension", Chunked, |draft| draft.bend("5\r\n", "5;a\nb\r\n"), Alike),
    quirk("CR in an extension", Chunked, |draft| draft.bend("5\r\n", "5;a\rb\r\n"), Alike),
    quirk("LF after the data", Chunked, |draft| draft.bend("hello\r\n", "hello\n"), Alike),
    quirk("too much data", Chunked, |draft| draft.bend("hello", "hello!"), Alike),
    quirk("a trailer", Chunked, |draft| draft.bend("0\r\n", "0\r\nX: y\r\n"), Alike),
    quirk("a malformed trailer", Chunked, |draft| draft.bend("0\r\n", "0\r\nX : y\r\n"), Alike),
    quirk("LF at the end", Chunked, |draft| draft.bend("0\r\n\r\n", "0\r\n\n"), OnlyHyperAccepts("7.1: the trailer section ends in CRLF")),
];

const fn quirk(name: &'static str, base: Base, bend: fn(&mut Draft), verdict: Verdict) -> Quirk {
    Quirk {
        name,
        base,
        bend,
        verdict,
    }
}

impl Draft {
    fn new(base: Base) -> Self {
        let (line, framing, body) = match base {
            Any | Get => ("GET /a HTTP/1.1\r\n", None, ""),
            Length => (
                "POST /b HTTP/1.1\r\n",
                Some("Content-Length: 5\r\n"),
                "hello",
            ),
            Chunked => (
                "POST /b HTTP/1.1\r\n",
                Some("Transfer-Encoding: chunked\r\n"),
                "5\r\nhello\r\n0\r\n\r\n",
            ),
        };
        let fields = ["Host: a\r\n"]
            .into_iter()
            .chain(framing)
            .map(str::to_owned)
            .collect();
        Draft {
            line: line.into(),
            fields,
            body: body.into(),
        }
    }

    fn field(&mut self, line: &str) {
        self.fields.push(line.into());
    }

    fn length(&mut self, value: &str) {
        self.replace("Content-Length", value);
    }

    fn coding(&mut self, value: &str) {
        self.replace("Transfer-Encoding", value);
    }

    fn replace(&mut self, name: &str, value: &str) {
        if let Some(line) = self.fields.iter_mut().find(|line| line.starts_with(name)) {
            *line = format!("{name}: {value}\r\n");
        }
    }

    fn bend(&mut self, from: &str, to: &str) {
        self.body = self.body.replacen(from, to, 1);
    }

    fn bytes(&self) -> Vec<u8> {
        format!("{}{}\r\n{}", self.line, self.fields.concat(), self.body).into_bytes()
    }
}

/// A request as an application gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The query and the values of `X`.
    Get(Option<Vec<u8>>, Vec<Vec<u8>>),
    /// The body.
    Post(Vec<u8>),
}

fn seen_by_responder(requests: &[u8]) -> Vec<Seen> {
    const ROUTES: &[Route<Vec<Seen>>] = &[Route::new("/a").get(get), Route::new("/b").post(post)];

    fn get(seen: &mut Vec<Seen>, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
        let x = request
            .fields()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"x"));
        seen.push(Seen::Get(
            request.query().map(<[u8]>::to_vec),
            x.map(|(_, value)| value.to_vec()).collect(),
        ));
        response.text("")
    }

    fn post(
        seen: &mut Vec<Seen>,
        _: &Request<'_>,
        body: &[u8],
        response: Response<'_, '_>,
    ) -> Answer {
        seen.push(Seen::Post(body.to_vec()));
        response.text("")
    }

    let routes = Routes::new(ROUTES).unwrap();
    let mut memory = Memory::new(Responder::new(&routes, Vec::new()));
    memory.exchange(&[requests]).unwrap();
    memory.service.into_state()
}

fn seen_by_hyper(requests: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            seen.borrow_mut()
                .push(match (head.method, head.uri.path()) {
                    (hyper::Method::GET, "/a") => Seen::Get(
                        head.uri.query().map(|query| query.as_bytes().to_vec()),
                        head.headers
                            .get_all("x")
                            .iter()
                            .map(|value| value.as_bytes().to_vec())
                            .collect(),
                    ),
                    (hyper::Method::POST, "/b") => Seen::Post(body),
                    // The responder closes the connection after a method it does not know.
                    _ => return Err("unknown".into()),
                });
            Ok::<_, Box<dyn Error + Send + Sync>>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let wire = Wire {
        requests: requests.to_vec(),
        read: 0,
    };
    let mut connection = pin!(
        http1::Builder::new()
            .half_close(true)
            .serve_connection(wire, service)
    );
    // Nothing on this wire is ever pending, so that being polled again is all it waits for.
    for _ in 0..1000 {
        if connection
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            return seen.take();
        }
    }
    panic!("hyper hangs on \"{}\"", requests.escape_ascii());
}

/// Requests that have all arrived; responses are taken and forgotten.
struct Wire {
    requests: Vec<u8>,
    read: usize,
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut space: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.requests[self.read..];
        let count = rest.len().min(space.remaining());
        space.put_slice(&rest[..count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn each_quirk_is_understood_as_recorded() {
    let mut wrong = Vec::new();
    for Quirk {
        name,
        base,
        bend,
        verdict,
    } in QUIRKS
    {
        let mut draft = Draft::new(*base);
        bend(&mut draft);
        // What is behind it shows whether the two agree about its end.
        let mut requests = draft.bytes();
        requests.extend(Draft::new(Get).bytes());
        let (ours, hypers) = (seen_by_responder(&requests), seen_by_hyper(&requests));
        let is_right = match verdict {
            Alike => ours == hypers,
            OnlyHyperAccepts(_) => ours.is_empty() && !hypers.is_empty(),
            OnlyHyperRefuses(_) => !ours.is_empty() && hypers.is_empty(),
        };
        if !is_right {
            wrong.push(format!(
                "{name}: {verdict:?}, but responder {ours:?}, hyper {hypers:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A request with up to three quirks.
fn bent(among: fn(&Quirk) -> bool) -> impl Strategy<Value = Draft> {
    let base = prop::sample::select(vec![Get, Length, Chunked]);
    let picks = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (base, picks).prop_map(move |(base, picks)| {
        let fits = |quirk: &&Quirk| (quirk.base == base || quirk.base == Any) && among(quirk);
        let fitting: Vec<_> = QUIRKS.iter().filter(fits).collect();
        let mut draft = Draft::new(base);
        for pick in picks {
            (pick.get(&fitting).bend)(&mut draft);
        }
        draft
    })
}

fn pipeline(among: fn(&Quirk) -> bool) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(bent(among), 1..5)
        .prop_map(|drafts| drafts.iter().flat_map(Draft::bytes).collect())
}

/// The same requests in every run.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(9112),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn what_is_not_recorded_is_understood_alike(requests in pipeline(|quirk| quirk.verdict == Alike)) {
        prop_assert_eq!(seen_by_responder(&requests), seen_by_hyper(&requests), "{}", requests.escape_ascii());
    }

    #[test]
    fn nothing_is_seen_that_hyper_does_not_see(requests in pipeline(|quirk| !matches!(quirk.verdict, OnlyHyperRefuses(_)))) {
        let (ours, hypers) = (seen_by_responder(&requests), seen_by_hyper(&requests));
        prop_assert!(hypers.starts_with(&ours), "{}: {:?} {:?}", requests.escape_ascii(), ours, hypers);
    }
}
