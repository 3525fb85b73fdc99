//! HTTP/2, driven in memory by the contract of a `Service`: the conformance table, the crate `h2` as a client,
//! and the attacks that are known.
#![allow(clippy::unwrap_used)]

mod site;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use barewire::site::{SiteResponder, byte_at};
use barewire_conformance::driver::{Connection, Memory};
use barewire_conformance::http2::{
    PREFACE, cancel, cases, data, flag, frame, get, headers, request, settings, texts,
    window_update,
};
use barewire_http::{Http2Limits, HttpCounters, Limits};
use barewire_service::service::{Expect, Input, Next, Reply, Service};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::site::responder;

fn memory_within(limits: Http2Limits) -> (Memory<SiteResponder>, Arc<HttpCounters>) {
    let (responder, counters) = responder(Limits::default());
    (Memory::new(responder.with_http2(Some(limits))), counters)
}

/// A connection that has been greeted.
fn connect(memory: &mut Memory<SiteResponder>) -> Connection<SiteResponder> {
    let mut connection = memory.connect();
    memory.send(&mut connection, &[&PREFACE[..], &settings(&[])].concat());
    assert_eq!(connection.sent[3], 4, "SETTINGS come first");
    connection.sent.clear();
    connection
}

/// What comes back for `frames`.
fn answer(
    memory: &mut Memory<SiteResponder>,
    connection: &mut Connection<SiteResponder>,
    frames: &[u8],
) -> Vec<String> {
    memory.send(connection, frames);
    texts(&std::mem::take(&mut connection.sent))
}

#[test]
fn every_case_is_answered_as_the_rfc_demands_however_it_is_split() {
    let failures: Vec<_> = cases()
        .iter()
        .filter_map(|case| {
            let (mut memory, _) = memory_within(Http2Limits::default());
            case.check(&mut memory, &[usize::MAX, 1, 7, 100]).err()
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn without_http2_its_preface_is_a_version_that_is_not_supported() {
    let (memory, _) = memory_within(Http2Limits::default());
    let mut memory = Memory::new(memory.service.with_http2(None));
    let mut connection = memory.connect();
    memory.send(&mut connection, PREFACE);
    assert!(
        connection.sent.starts_with(b"HTTP/1.1 505 "),
        "{connection:?}"
    );
}

#[test]
fn only_a_connection_begins_with_the_preface() {
    let (mut memory, _) = memory_within(Http2Limits::default());
    let mut connection = memory.connect();
    memory.send(
        &mut connection,
        b"GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    connection.sent.clear();
    memory.send(&mut connection, PREFACE);
    assert!(
        connection.sent.starts_with(b"HTTP/1.1 505 "),
        "{connection:?}"
    );
}

#[test]
fn a_client_that_does_not_greet_is_told_so() {
    let (mut memory, _) = memory_within(Http2Limits::default());
    let mut connection = memory.connect();
    memory.send(
        &mut connection,
        &[&PREFACE[..], &get(1, "/plaintext")].concat(),
    );
    assert!(connection.is_closed());
    assert_eq!(
        texts(&connection.sent).last().unwrap(),
        "GOAWAY 0 PROTOCOL_ERROR"
    );
}

#[test]
fn a_body_that_is_collected_leaves_the_window_as_it_was() {
    let (mut memory, _) = memory_within(Http2Limits::default());
    let mut connection = memory.connect();
    let exactly = settings(&[(4, 13)]);
    memory.send(&mut connection, &[&PREFACE[..], &exactly].concat());
    connection.sent.clear();
    assert_eq!(
        answer(&mut memory, &mut connection, &get(1, "/plaintext")),
        ["HEADERS 1 200", "DATA 1 END Hello, World!"]
    );
    let post = headers(3, 0, &request("POST", "/test/body"));
    assert_eq!(answer(&mut memory, &mut connection, &post), [""; 0]);
    let end = data(3, flag::END_STREAM, b"Hello, World!");
    assert_eq!(
        answer(&mut memory, &mut connection, &end),
        ["HEADERS 3 200", "DATA 3 END Hello, World!"]
    );
}

#[test]
fn a_drain_lets_what_has_begun_finish() {
    let (mut memory, _) = memory_within(Http2Limits::default());
    let mut connection = connect(&mut memory);
    let post = headers(1, 0, &request("POST", "/test/body"));
    assert_eq!(answer(&mut memory, &mut connection, &post), [""; 0]);
    memory.service.on_drain();
    let more = [data(1, 0, b"a"), get(3, "/plaintext")].concat();
    assert_eq!(
        answer(&mut memory, &mut connection, &more),
        [
            "HEADERS 3 200",
            "DATA 3 END Hello, World!",
            "GOAWAY 3 NO_ERROR"
        ]
    );
    assert_eq!(
        answer(&mut memory, &mut connection, &get(5, "/plaintext")),
        ["RST_STREAM 5 REFUSED_STREAM"]
    );
    let end = data(1, flag::END_STREAM, b"b");
    assert_eq!(
        answer(&mut memory, &mut connection, &end),
        ["HEADERS 1 200", "DATA 1 END ab"]
    );
    assert!(connection.is_closed());
}

#[test]
fn an_idle_connection_is_dismissed_in_order() {
    let (mut memory, counters) = memory_within(Http2Limits::default());
    let mut space = [0; 16_384];
    let mut reply = Reply::new(&mut space);
    let mut connection = <SiteResponder as Service>::Connection::default();
    let input = Input {
        bytes: &[&PREFACE[..], &settings(&[]), &get(1, "/plaintext")].concat(),
        full: false,
        ended: false,
    };
    let progress = memory.service.on_input(&mut connection, input, &mut reply);
    assert_eq!(progress.next, Next::Receive(Expect::Message));
    let before = reply.len();
    memory.service.on_dismiss(&mut connection, &mut reply);
    assert_eq!(texts(&reply.written()[before..]), ["GOAWAY 1 NO_ERROR"]);
    assert_eq!(counters.http2.http2_goaways.get(), 1);
}

#[test]
fn what_a_connection_waits_for_decides_its_deadline() {
    let (mut memory, counters) = memory_within(Http2Limits::default());
    let mut connection = connect(&mut memory);
    let waits = |connection: &Connection<SiteResponder>, expect| {
        assert_eq!(connection.next, Some(Next::Receive(expect)));
    };
    waits(&connection, Expect::Message);
    memory.send(&mut connection, &get(1, "/plaintext")[..12]);
    waits(&connection, Expect::Head);
    memory.send(&mut connection, &get(1, "/plaintext")[12..]);
    waits(&connection, Expect::Message);
    memory.send(
        &mut connection,
        &headers(3, 0, &request("POST", "/test/body")),
    );
    waits(&connection, Expect::Body);
    connection.sent.clear();
    memory.time_out(&mut connection);
    assert_eq!(texts(&connection.sent), ["GOAWAY 3 NO_ERROR"]);
    assert_eq!(counters.http2.http2_streams_timed_out.get(), 1);
}

#[test]
fn a_stream_that_stalls_is_ended_and_its_connection_goes_on() {
    let (mut memory, counters) = memory_within(Http2Limits {
        stream_ms: 1000,
        ..Http2Limits::default()
    });
    let at_ms = |memory: &mut Memory<SiteResponder>, ms: u64| {
        memory.service.on_time(ms * 1_000_000);
    };
    at_ms(&mut memory, 1);
    let mut connection = connect(&mut memory);
    // One waits for the rest of its body, one for a window.
    let stalled = [
        headers(1, 0, &request("POST", "/test/body")),
        settings(&[(4, 0)]),
        get(3, "/plaintext"),
    ]
    .concat();
    assert_eq!(
        answer(&mut memory, &mut connection, &stalled),
        ["SETTINGS ACK", "HEADERS 3 200"]
    );
    at_ms(&mut memory, 1001);
    assert_eq!(
        answer(&mut memory, &mut connection, &window_update(0, 1)),
        [""; 0]
    );
    at_ms(&mut memory, 1500);
    assert_eq!(
        answer(&mut memory, &mut connection, &settings(&[(4, 100)])),
        [
            "HEADERS 1 408",
            "RST_STREAM 3 CANCEL",
            "SETTINGS ACK",
            r"DATA 1 END The request did not arrive in time.\n",
            "RST_STREAM 1 NO_ERROR",
        ]
    );
    assert_eq!(counters.http2.http2_streams_timed_out.get(), 2);
    let last = answer(&mut memory, &mut connection, &get(5, "/plaintext"));
    assert_eq!(last, ["HEADERS 5 200", "DATA 5 END Hello, World!"]);
}

#[test]
fn a_connection_on_which_nothing_is_requested_ends() {
    let (mut memory, counters) = memory_within(Http2Limits {
        idle_ms: 1000,
        ..Http2Limits::default()
    });
    memory.service.on_time(1_000_000);
    let mut connection = connect(&mut memory);
    memory.service.on_time(2_000_000_000);
    let ping = frame(6, 0, 0, b"12345678");
    assert_eq!(
        answer(&mut memory, &mut connection, &ping),
        ["GOAWAY 0 NO_ERROR"]
    );
    assert!(connection.is_closed());
    assert_eq!(counters.http2.http2_connections_idle.get(), 1);
}

#[test]
fn the_more_urgent_response_goes_first() {
    let (mut memory, _) = memory_within(Http2Limits::default());
    let mut connection = connect(&mut memory);
    let with = |stream, priority| {
        let mut fields = request("GET", "/test/stream?bytes=9");
        fields.extend([("priority", priority)]);
        headers(stream, flag::END_STREAM, &fields)
    };
    let frames = [
        settings(&[(4, 0)]),
        with(1, "u=5"),
        with(3, "u=1"),
        with(5, "u=3, i"),
        with(7, "u=3, i"),
        // RFC 9218, section 7.1.
        frame(16, 0, 0, b"\0\0\0\x01u=0"),
    ];
    memory.send(&mut connection, &frames.concat());
    connection.sent.clear();
    let order = |texts: Vec<String>| -> Vec<String> {
        let data = texts.iter().filter_map(|text| text.strip_prefix("DATA "));
        data.map(|text| text.split(' ').next().unwrap().to_owned())
            .collect()
    };
    // Three bytes of window for each.
    let opened = answer(&mut memory, &mut connection, &settings(&[(4, 3)]));
    assert_eq!(order(opened), ["1", "3", "5", "7"]);
    let opened = answer(&mut memory, &mut connection, &settings(&[(4, 9)]));
    assert_eq!(order(opened), ["1", "3", "5", "7"]);
}

mod attacks {
    use super::*;

    /// What ends a connection that repeats `frames`, and after how many repetitions.
    fn ends_after(
        limits: Http2Limits,
        mut frames: impl FnMut(u32) -> Vec<u8>,
    ) -> (String, u32, Arc<HttpCounters>) {
        let (mut memory, counters) = memory_within(limits);
        memory.service.on_time(1);
        let mut connection = connect(&mut memory);
        for round in 0..1_000 {
            memory.send(&mut connection, &frames(round));
            if connection.is_closed() {
                let last = texts(&connection.sent).pop().unwrap();
                return (last, round, counters);
            }
            connection.sent.clear();
        }
        panic!("nothing ends it");
    }

    fn narrow() -> Http2Limits {
        Http2Limits {
            resets_max: 50,
            control_frames_max: 50,
            ..Http2Limits::default()
        }
    }

    #[test]
    fn rapid_reset() {
        let (last, rounds, counters) = ends_after(narrow(), |round| {
            [get(2 * round + 1, "/plaintext"), cancel(2 * round + 1)].concat()
        });
        assert_eq!(
            (last.as_str(), rounds),
            ("GOAWAY 101 ENHANCE_YOUR_CALM", 50)
        );
        assert_eq!(counters.http2.http2_floods_reset.get(), 1);
    }

    #[test]
    fn made_you_reset() {
        let (last, rounds, counters) = ends_after(narrow(), |round| {
            let stream = 2 * round + 1;
            [
                headers(stream, 0, &request("POST", "/test/body")),
                window_update(stream, 0),
            ]
            .concat()
        });
        assert_eq!(
            (last.as_str(), rounds),
            ("GOAWAY 101 ENHANCE_YOUR_CALM", 50)
        );
        assert_eq!(counters.http2.http2_floods_reset.get(), 1);
    }

    #[test]
    fn frames_that_bring_nothing_forward() {
        for (name, frame) in [
            ("SETTINGS", settings(&[])),
            ("PING", frame(6, 0, 0, &[0; 8])),
            ("PRIORITY", frame(2, 0, 1, &[0; 5])),
            ("WINDOW_UPDATE", window_update(0, 1)),
            ("unknown", frame(0xee, 0, 0, &[])),
            ("PRIORITY_UPDATE", frame(16, 0, 0, b"\0\0\0\x01u=0")),
        ] {
            let (last, rounds, counters) = ends_after(narrow(), |_| frame.clone());
            // The SETTINGS of the greeting were the first one.
            assert_eq!(
                (last.as_str(), rounds),
                ("GOAWAY 0 ENHANCE_YOUR_CALM", 49),
                "{name}"
            );
            assert_eq!(counters.http2.http2_floods_control.get(), 1, "{name}");
        }
    }

    #[test]
    fn empty_data() {
        let mut begun = false;
        let (last, _, counters) =
            ends_after(narrow(), |_| match std::mem::replace(&mut begun, true) {
                false => headers(1, 0, &request("POST", "/test/body")),
                true => data(1, 0, b""),
            });
        assert_eq!(last, "GOAWAY 1 ENHANCE_YOUR_CALM");
        assert_eq!(counters.http2.http2_floods_control.get(), 1);
    }

    #[test]
    fn hpack_bomb() {
        let (mut memory, _) = memory_within(Http2Limits::default());
        let mut connection = connect(&mut memory);
        // An entry of 4,000 bytes, then 10,000 references to it.
        let bomb = [
            &b"\x40\x01a\x7f\xa1\x1e"[..],
            &[b'x'; 4000],
            &[0xbe; 10_000],
        ]
        .concat();
        let head = barewire_conformance::http2::block(&request("GET", "/plaintext"));
        let bomb = frame(1, 5, 1, &[head, bomb].concat());
        assert_eq!(
            answer(&mut memory, &mut connection, &bomb),
            [
                "HEADERS 1 431",
                r"DATA 1 END The header section is too large.\n"
            ]
        );
        let good = answer(&mut memory, &mut connection, &get(3, "/plaintext"));
        assert_eq!(good, ["HEADERS 3 200", "DATA 3 END Hello, World!"]);
    }

    #[test]
    fn windows_of_zero() {
        let (mut memory, counters) = memory_within(Http2Limits::default());
        let mut connection = connect(&mut memory);
        memory.send(&mut connection, &settings(&[(4, 0)]));
        for stream in 0..150u32 {
            memory.send(&mut connection, &get(2 * stream + 1, "/plaintext"));
        }
        assert_eq!(counters.http2.http2_streams_refused.get(), 50);
        assert!(!connection.is_closed());
    }

    #[test]
    fn connections_and_buffers_are_not_endless() {
        let limits = Http2Limits {
            connections_max: 2,
            buffers_max: 1,
            ..Http2Limits::default()
        };
        let (mut memory, counters) = memory_within(limits);
        let mut first = connect(&mut memory);
        let mut second = connect(&mut memory);
        let mut third = memory.connect();
        memory.send(&mut third, PREFACE);
        assert!(third.is_closed());
        assert_eq!(
            texts(&third.sent).last().unwrap(),
            "GOAWAY 0 ENHANCE_YOUR_CALM"
        );
        assert_eq!(counters.http2.http2_connections_refused.get(), 1);

        let post = headers(1, 0, &request("POST", "/test/body"));
        assert_eq!(answer(&mut memory, &mut first, &post), [""; 0]);
        assert_eq!(
            answer(&mut memory, &mut second, &post),
            ["RST_STREAM 1 REFUSED_STREAM"]
        );
        // What a connection borrowed comes back with it.
        drop(first);
        let mut fourth = connect(&mut memory);
        assert_eq!(answer(&mut memory, &mut fourth, &post), [""; 0]);
    }
}

/// What is on its way between the crate `h2` and the server.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Ends>>);

#[derive(Default)]
struct Ends {
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let to_client = &mut self.0.borrow_mut().to_client;
        let len = space.remaining().min(to_client.len());
        if len == 0 {
            return Poll::Pending;
        }
        space.put_slice(&to_client[..len]);
        to_client.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().to_server.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A request of a generated conversation.
#[derive(Debug, Clone)]
enum Asked {
    Get,
    Json,
    Nothing,
    Download(usize),
    Echo(usize),
    Collect(usize),
}

impl Asked {
    fn path(&self) -> String {
        match self {
            Asked::Get => "/plaintext".into(),
            Asked::Json => "/json".into(),
            Asked::Nothing => "/nothing?a=b".into(),
            Asked::Download(len) => format!("/test/stream?bytes={len}&seed=7"),
            Asked::Echo(_) => "/test/echo".into(),
            Asked::Collect(_) => "/test/body".into(),
        }
    }

    fn body(&self) -> Option<Vec<u8>> {
        match self {
            Asked::Echo(len) | Asked::Collect(len) => Some(bytes(*len)),
            _ => None,
        }
    }

    fn expected(&self) -> (u16, Vec<u8>) {
        match self {
            Asked::Get => (200, b"Hello, World!".to_vec()),
            Asked::Json => (200, br#"{"message":"Hello, World!"}"#.to_vec()),
            Asked::Nothing => (404, b"There is nothing at this path.\n".to_vec()),
            Asked::Download(len) | Asked::Echo(len) | Asked::Collect(len) => (200, bytes(*len)),
        }
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|offset| byte_at(7, offset)).collect()
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        Just(Asked::Get),
        Just(Asked::Json),
        Just(Asked::Nothing),
        (0usize..300_000).prop_map(Asked::Download),
        (0usize..200_000).prop_map(Asked::Echo),
        (0usize..60_000).prop_map(Asked::Collect),
    ]
}

/// Has the crate `h2` ask for everything at once, and checks what it gets.
fn converse(asked: &[Asked], stream_window: u32, connection_window: u32, segment: usize) {
    let (mut memory, _) = memory_within(Http2Limits::default());
    let mut connection = memory.connect();
    let wire = Wire::default();
    let context = &mut Context::from_waker(Waker::noop());
    let handshake = h2::client::Builder::new()
        .initial_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .handshake::<_, Bytes>(wire.clone());
    let mut handshake = Box::pin(handshake);
    let Poll::Ready(Ok((mut sender, driver))) = handshake.as_mut().poll(context) else {
        panic!("the handshake waits for nobody");
    };
    let mut driver = Box::pin(driver);

    struct Exchange {
        response: Pin<Box<h2::client::ResponseFuture>>,
        upload: Option<(h2::SendStream<Bytes>, Vec<u8>)>,
        status: Option<u16>,
        body: Option<h2::RecvStream>,
        received: Vec<u8>,
        done: bool,
    }
    let mut exchanges = Vec::new();
    for asked in asked {
        let body = asked.body();
        let request = http::Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(format!("http://a{}", asked.path()))
            .header("cookie", "a=b")
            .body(())
            .unwrap();
        let (response, mut stream) = sender.send_request(request, body.is_none()).unwrap();
        let upload = body.map(|body| {
            stream.reserve_capacity(body.len());
            (stream, body)
        });
        exchanges.push(Exchange {
            response: Box::pin(response),
            upload,
            status: None,
            body: None,
            received: Vec::new(),
            done: false,
        });
    }
    for _ in 0..100_000 {
        for exchange in &mut exchanges {
            if let Some((stream, left)) = &mut exchange.upload {
                while let Poll::Ready(Some(granted)) = stream.poll_capacity(context) {
                    let piece: Vec<u8> = left.drain(..granted.unwrap().min(left.len())).collect();
                    if piece.is_empty() {
                        break;
                    }
                    stream.send_data(piece.into(), false).unwrap();
                    stream.reserve_capacity(left.len());
                }
                if left.is_empty() {
                    stream.send_data(Bytes::new(), true).unwrap();
                    exchange.upload = None;
                }
            }
            if exchange.status.is_none()
                && let Poll::Ready(response) = exchange.response.as_mut().poll(context)
            {
                let response = response.unwrap();
                exchange.status = Some(response.status().as_u16());
                assert_eq!(response.headers()["server"], "barewire");
                assert_eq!(response.headers()["date"], "Sun, 06 Nov 1994 08:49:37 GMT");
                exchange.body = Some(response.into_body());
            }
            if let Some(body) = &mut exchange.body {
                while let Poll::Ready(data) = body.poll_data(context) {
                    let Some(data) = data else {
                        exchange.done = true;
                        break;
                    };
                    let data = data.unwrap();
                    exchange.received.extend_from_slice(&data);
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
            }
        }
        if let Poll::Ready(ended) = driver.as_mut().poll(context) {
            panic!("the connection ended: {ended:?}");
        }
        let to_server = std::mem::take(&mut wire.0.borrow_mut().to_server);
        for segment in to_server.chunks(segment) {
            assert!(memory.send(&mut connection, segment), "the server hangs up");
        }
        let mut ends = wire.0.borrow_mut();
        ends.to_client.append(&mut connection.sent);
        if exchanges.iter().all(|exchange| exchange.done) {
            break;
        }
    }
    for (exchange, asked) in exchanges.iter().zip(asked) {
        assert!(
            exchange.done,
            "{asked:?}: {} bytes",
            exchange.received.len()
        );
        let (status, body) = asked.expected();
        assert_eq!(exchange.status, Some(status), "{asked:?}");
        assert!(exchange.received == body, "{asked:?}: another body");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        rng_seed: RngSeed::Fixed(9113),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_crate_h2_gets_what_it_asks_for(
        asked in prop::collection::vec(asked(), 1..12),
        stream_window in prop_oneof![Just(65_535u32), 1u32..2000, 1_000_000u32..2_000_000],
        connection_window in prop_oneof![Just(65_535u32), 1_000_000u32..2_000_000],
        segment in prop_oneof![Just(1460usize), 300usize..1000, Just(20_000)],
    ) {
        converse(&asked, stream_window.max(100), connection_window, segment);
    }

    /// Whatever arrives, in whatever pieces, the server does not panic, and says nothing endless.
    #[test]
    fn any_frames(
        frames in prop::collection::vec(
            (0u8..12, any::<u8>(), 0u32..8, prop::collection::vec(any::<u8>(), 0..40)),
            0..40,
        ),
        segment in 1usize..100,
    ) {
        let (mut memory, _) = memory_within(Http2Limits::default());
        let mut connection = connect(&mut memory);
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload))
            .collect();
        for segment in bytes.chunks(segment) {
            if !memory.send(&mut connection, segment) {
                break;
            }
        }
        memory.end(&mut connection);
        prop_assert!(connection.sent.len() < 100_000);
    }
}
