//! The client by HTTP/2, against frames that a test writes.

use super::*;
use barewire_http::http2::frame::{HEADER_BYTES, Header, PREFACE, flag, kind, of_number, setting};

/// `:status: 200`.
const STATUS_200: &[u8] = b"\x88";

fn get2() -> Arc<Request> {
    let get = Request::fixed(&Method::GET, "/path", &[], b"").unwrap();
    Arc::new(get.over_http2(true).unwrap())
}

fn wire<'a>(now: &'a Cell<u64>, streams: usize, count: u64) -> Wire<'a> {
    Wire::new(now, &get2(), streams, Pace::ClosedLoop, &tickets(count))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        len: payload.len(),
        kind,
        flags,
        stream,
    };
    [&header.bytes(), payload].concat()
}

fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let list = list
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(kind::SETTINGS, 0, 0, &list.collect::<Vec<u8>>())
}

/// HEADERS with a status, and DATA.
fn ok(stream: u32, body: &[u8]) -> Vec<u8> {
    let headers = frame(kind::HEADERS, flag::END_HEADERS, stream, STATUS_200);
    [headers, frame(kind::DATA, flag::END_STREAM, stream, body)].concat()
}

/// The frames in `bytes`: type, flags, stream, length.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, usize)> {
    let mut frames = Vec::new();
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let Some(header) = Header::parse(bytes) {
        frames.push((header.kind, header.flags, header.stream, header.len));
        bytes = &bytes[HEADER_BYTES + header.len..];
    }
    assert!(bytes.is_empty());
    frames
}

/// The streams of the requests in `bytes`.
fn asked(bytes: &[u8]) -> Vec<u32> {
    let frames = frames(bytes).into_iter();
    frames
        .filter(|frame| frame.0 == kind::HEADERS)
        .map(|frame| frame.2)
        .collect()
}

#[test]
fn it_greets_and_asks_as_many_as_it_may() {
    let now = Cell::new(0);
    let mut wire = wire(&now, 3, 100);
    let (said, progress) = wire.show(b"", false);
    assert!(said.starts_with(PREFACE));
    let kinds: Vec<u8> = frames(&said).iter().map(|frame| frame.0).collect();
    assert_eq!(kinds[..2], [kind::SETTINGS, kind::WINDOW_UPDATE]);
    assert_eq!(asked(&said), [1, 3, 5]);
    assert_eq!(progress.next, Next::Receive(Expect::Head));
}

#[test]
fn it_asks_nothing_before_the_run_begins() {
    let now = Cell::new(0);
    let mut wire = wire(&now, 3, 100);
    wire.client = Client::new(&now, &get2(), 3, Pace::ClosedLoop, Drawer::new(&tickets(9)));
    let (said, progress) = wire.show(&settings(&[]), false);
    assert_eq!(asked(&said), [0; 0]);
    assert!(frames(&said).contains(&(kind::SETTINGS, flag::ACK, 0, 0)));
    assert_eq!(progress.next, Next::Receive(Expect::Message));
    wire.client.start();
    assert_eq!(asked(&wire.show(b"", false).0), [1, 3, 5]);
}

#[test]
fn answers_come_in_any_order_and_each_makes_room() {
    let now = Cell::new(0);
    let mut wire = wire(&now, 3, 100);
    wire.show(b"", false);
    now.set(1000);
    let answers = [settings(&[]), ok(5, b"x"), ok(1, b"")].concat();
    let (said, progress) = wire.show(&answers, false);
    assert_eq!((asked(&said), progress.messages), (vec![7, 9], 2));
    assert_eq!(progress.consumed, answers.len());
    // Its own frames have their answers, too.
    let ping = frame(kind::PING, 0, 0, b"12345678");
    assert_eq!(
        frames(&wire.show(&ping, false).0),
        [(kind::PING, flag::ACK, 0, 8)]
    );
    assert_eq!(wire.client.take_tally().responses(), 2);
}

#[test]
fn fields_are_said_once_to_be_remembered_and_then_by_their_numbers() {
    let now = Cell::new(0);
    let mut wire = wire(&now, 1, 100);
    let lengths = |said: &[u8]| -> Vec<usize> {
        let frames = frames(said).into_iter();
        frames
            .filter(|frame| frame.0 == kind::HEADERS)
            .map(|frame| frame.3)
            .collect()
    };
    // :method, :scheme, and :path with its name.
    let literal = lengths(&wire.show(b"", false).0);
    assert_eq!(literal, [2 + 1 + 1 + 5 + 1 + 5]);
    let (to_learn, _) = wire.show(&[settings(&[]), ok(1, b"")].concat(), false);
    assert!(lengths(&to_learn)[0] > 3);
    assert_eq!(lengths(&wire.show(&ok(3, b""), false).0), [3]);
    // A server that remembers nothing any more hears that we know.
    let none = settings(&[(setting::HEADER_TABLE_SIZE, 0)]);
    let (said, _) = wire.show(&[none, ok(5, b"")].concat(), false);
    assert_eq!(lengths(&said), [1 + literal[0]]);
    assert_eq!(lengths(&wire.show(&ok(7, b""), false).0), literal);
}

#[test]
fn what_the_server_allows_is_obeyed() {
    let now = Cell::new(0);
    let one = settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]);
    let mut few = wire(&now, 2, 100);
    few.show(b"", false);
    assert_eq!(
        asked(&few.show(&[one, ok(1, b"")].concat(), false).0),
        [0; 0]
    );
    assert_eq!(asked(&few.show(&ok(3, b""), false).0), [5]);

    // Events have bodies, for which there has to be a window.
    let event = Request::event(Values::Official, &[]).unwrap();
    let event = Arc::new(event.over_http2(false).unwrap());
    let mut narrow = Wire::new(&now, &event, 1, Pace::ClosedLoop, &tickets(100));
    narrow.show(b"", false);
    let none = settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    assert_eq!(
        asked(&narrow.show(&[none, ok(1, b"")].concat(), false).0),
        [0; 0]
    );
    let wide = settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]);
    assert_eq!(asked(&narrow.show(&wide, false).0), [3]);
}

#[test]
fn a_window_of_the_connection_is_used_up_and_opened_again() {
    let now = Cell::new(0);
    let event = Request::event(Values::Official, &[]).unwrap();
    let event = Arc::new(event.over_http2(false).unwrap());
    let mut wire = Wire::new(&now, &event, 1, Pace::ClosedLoop, &tickets(10_000));
    let (mut said, _) = wire.show(&settings(&[]), false);
    let (mut stream, mut sent) = (1, 0);
    while !asked(&said).is_empty() {
        let data = frames(&said)
            .into_iter()
            .filter(|frame| frame.0 == kind::DATA);
        sent += data.map(|frame| frame.3).sum::<usize>();
        said = wire.show(&ok(stream, b""), false).0;
        stream += 2;
    }
    assert!((65_535 - 128..=65_535).contains(&sent), "{sent}");
    let more = of_number(kind::WINDOW_UPDATE, 0, 65_535);
    assert_eq!(asked(&wire.show(&more, false).0), [stream]);
}

#[test]
fn a_server_that_goes_away_answers_what_it_has_taken() {
    let now = Cell::new(0);
    let mut wire = wire(&now, 3, 100);
    wire.show(b"", false);
    let goaway = frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    let (said, progress) = wire.show(&[settings(&[]), goaway, ok(1, b"")].concat(), false);
    assert_eq!(
        (asked(&said), progress.next),
        (vec![], Next::Receive(Expect::Head))
    );
    let (_, progress) = wire.show(&ok(3, b""), false);
    assert_eq!((progress.messages, progress.next), (1, Next::Close));
    let failures = Failures {
        reset: 1,
        ..Failures::default()
    };
    assert_eq!(wire.failures(), (failures, 1));
}

#[test]
fn a_stream_that_is_reset_is_a_failure_and_the_connection_goes_on() {
    let now = Cell::new(0);
    let mut wire = wire(&now, 2, 100);
    wire.show(&settings(&[]), false);
    let (said, _) = wire.show(&of_number(kind::RST_STREAM, 3, 7), false);
    assert_eq!(asked(&said), [5]);
    assert_eq!((wire.failures().0.reset, wire.failures().1), (1, 1));
}

#[test]
fn an_end_instead_of_answers_is_a_failure() {
    let now = Cell::new(0);
    let mut wire = wire(&now, 2, 100);
    wire.show(&settings(&[]), false);
    assert_eq!(wire.show(b"", true).1.next, Next::Close);
    assert_eq!((wire.failures().0.closed, wire.failures().1), (1, 2));
}

#[test]
fn bodies_are_compared_in_whatever_pieces_they_come() {
    let padded = |flags: u8, body: &[u8]| {
        let payload = [&[3][..], body, &[0; 3]].concat();
        frame(kind::DATA, flags | flag::PADDED, 1, &payload)
    };
    let informational = frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x08\x03103");
    let (status, rest) = b"\x88\x0f\x0d\x012".split_at(2);
    let stream = [
        settings(&[]),
        informational,
        frame(kind::HEADERS, 0, 1, status),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, rest),
        padded(0, b"hel"),
        frame(kind::DATA, 0, 1, b""),
        padded(0, b"lo"),
        frame(
            kind::HEADERS,
            flag::END_HEADERS | flag::END_STREAM,
            1,
            b"\x00\x01a\x01b",
        ),
    ]
    .concat();
    for (expected, wrong) in [
        (&b"hello"[..], 0),
        (b"help!", 1),
        (b"hell", 1),
        (b"hello!", 1),
    ] {
        for size in [1, 2, 7, stream.len()] {
            let now = Cell::new(0);
            let mut wire = wire(&now, 1, 1);
            wire.client = wire.client.expecting(Some(expected.into()));
            wire.show(b"", false);
            let mut held = Vec::new();
            for piece in stream.chunks(size) {
                held.extend_from_slice(piece);
                let (_, progress) = wire.show(&held, false);
                held.drain(..progress.consumed);
            }
            assert!(held.is_empty());
            let tally = wire.client.take_tally();
            assert_eq!((tally.responses(), tally.wrong_bodies), (1, wrong));
            assert_eq!(tally.statuses[200], 1);
        }
    }
}

#[test]
fn what_no_server_may_send_is_found_out() {
    let headers = |block: &[u8]| frame(kind::HEADERS, flag::END_HEADERS, 1, block);
    let cases: &[(&str, Vec<u8>)] = &[
        (
            "begin with SETTINGS",
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        ),
        ("begin with SETTINGS", ok(1, b"")),
        (
            "too long",
            [settings(&[]), vec![0, 64, 1, 4, 0, 0, 0, 0, 0]].concat(),
        ),
        ("nobody waits for", [settings(&[]), ok(9, b"")].concat()),
        (
            "in front of its HEADERS",
            [settings(&[]), frame(kind::DATA, 0, 1, b"x")].concat(),
        ),
        (
            "valid status",
            [settings(&[]), headers(b"\x00\x01a\x01b")].concat(),
        ),
        ("be decoded", [settings(&[]), headers(b"\xff\xff")].concat()),
        (
            "interrupted",
            [
                settings(&[]),
                frame(kind::HEADERS, 0, 1, b""),
                frame(kind::PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            "without HEADERS",
            [settings(&[]), frame(kind::CONTINUATION, 0, 1, b"")].concat(),
        ),
        (
            "not asked for",
            [settings(&[]), frame(kind::PUSH_PROMISE, 0, 1, &[0; 8])].concat(),
        ),
        (
            "more padding",
            [
                settings(&[]),
                frame(kind::HEADERS, flag::PADDED, 1, b"\x05"),
            ]
            .concat(),
        ),
    ];
    for (why, stream) in cases {
        let now = Cell::new(0);
        let mut wire = wire(&now, 1, 100);
        wire.show(b"", false);
        assert_eq!(wire.show(stream, false).1.next, Next::Abort, "{why}");
        let tally = wire.client.take_tally();
        assert_eq!((tally.failures.parse, tally.unanswered), (1, 1), "{why}");
        let first = tally.first_failure.unwrap();
        assert!(
            first.contains("not HTTP/2") && first.contains(why),
            "{first} / {why}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_input_makes_it_panic(stream in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let now = Cell::new(0);
        let mut wire = wire(&now, 2, 100);
        wire.show(b"", false);
        wire.show(&[settings(&[]), stream].concat(), false);
    }
}
