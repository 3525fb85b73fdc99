//! The responder, driven in memory by the contract of a `Service`.
#![allow(clippy::unwrap_used)]

mod site;

use barewire::site::{SiteResponder, byte_at};
use barewire_conformance::driver::{Connection, Driver, Memory};
use barewire_conformance::{cases, property};
use barewire_http::{Limits, Refusal, Status};
use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use self::site::responder;

const GET: &str = "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n";

fn memory() -> Memory<SiteResponder> {
    Memory::new(responder(Limits::default()).0)
}

/// What comes back for `requests`, sent whole.
fn answer(memory: &mut Memory<SiteResponder>, requests: &[u8]) -> String {
    let answer = memory.exchange(&[requests]).unwrap();
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or("none")
}

fn sent(connection: &mut Connection<SiteResponder>) -> String {
    String::from_utf8(std::mem::take(&mut connection.sent)).unwrap()
}

#[test]
fn every_case_is_answered_as_the_rfc_demands_however_it_is_split() {
    let mut memory = memory();
    let failures: Vec<_> = cases()
        .iter()
        .filter_map(|case| case.check_all_splits(&mut memory).err())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_case_is_answered_with_the_least_room_for_replies() {
    let mut memory = memory();
    memory.reply_bytes = SiteResponder::REPLY_BYTES_MIN;
    for case in cases() {
        case.check(&mut memory, &[&case.requests]).unwrap();
    }
}

#[test]
fn what_is_awaited_is_said() {
    let mut memory = memory();
    let mut connection = memory.connect();
    for (segment, expect) in [
        ("\r", Expect::Message),
        ("\n", Expect::Message),
        ("P", Expect::Head),
        (
            "OST /test/body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r",
            Expect::Head,
        ),
        ("\n", Expect::Body),
        ("a", Expect::Body),
        ("b", Expect::Message),
    ] {
        memory.send(&mut connection, segment.as_bytes());
        assert_eq!(
            connection.next,
            Some(Next::Receive(expect)),
            "after {segment:?}"
        );
    }
    assert_eq!((connection.messages, connection.pending()), (1, 0));
}

#[test]
fn a_request_that_does_not_arrive_in_time_gets_408() {
    let mut memory = memory();
    for begun in [
        "GET",
        "GET /plaintext HTTP/1.1\r\nHost: a\r\n",
        "POST /test/body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na",
    ] {
        let mut connection = memory.connect();
        memory.send(&mut connection, begun.as_bytes());
        memory.time_out(&mut connection);
        let answer = sent(&mut connection);
        assert_eq!(status(&answer), "408", "{begun:?}");
        assert!(
            answer.contains("Connection: close\r\n")
                && answer.ends_with("The request did not arrive in time.\n")
        );
    }
}

#[test]
fn an_idle_connection_ends_without_a_word() {
    let mut memory = memory();
    let mut connection = memory.connect();
    memory.send(&mut connection, b"\r\n");
    memory.time_out(&mut connection);
    assert_eq!(sent(&mut connection), "");

    let mut connection = memory.connect();
    memory.send(&mut connection, GET.as_bytes());
    let response = sent(&mut connection);
    assert_eq!(status(&response), "200");
    memory.time_out(&mut connection);
    assert_eq!(sent(&mut connection), "");
}

#[test]
fn an_answered_request_whose_body_is_late_gets_no_second_answer() {
    let (responder, counters) = responder(Limits::default());
    let mut memory = Memory::new(responder);
    let mut connection = memory.connect();
    memory.send(
        &mut connection,
        b"GET /plaintext HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na",
    );
    assert_eq!(status(&sent(&mut connection)), "200");
    memory.time_out(&mut connection);
    assert_eq!(sent(&mut connection), "");
    let abandoned = counters
        .samples()
        .into_iter()
        .find(|sample| sample.name == "bodies_abandoned");
    assert_eq!(abandoned.unwrap().value, 1);
}

#[test]
fn draining_ends_each_connection_with_its_next_response() {
    let mut memory = memory();
    let mut before = memory.connect();
    memory.send(&mut before, GET.as_bytes());
    assert!(!sent(&mut before).contains("Connection"));
    let mut uploading = memory.connect();
    memory.send(
        &mut uploading,
        b"POST /test/body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na",
    );

    memory.service.on_drain();
    memory.send(&mut before, GET.repeat(2).as_bytes());
    let answer = sent(&mut before);
    assert!(answer.contains("Connection: close\r\n") && before.is_closed());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1);
    memory.send(&mut uploading, b"b");
    let answer = sent(&mut uploading);
    assert!(
        answer.contains("Connection: close\r\n")
            && answer.ends_with("\r\n\r\nab")
            && uploading.is_closed()
    );
}

#[test]
fn limits_are_configurable() {
    let limits = Limits {
        head_bytes_max: 200,
        target_bytes_max: 20,
        headers_max: 3,
        body_bytes_max: 10,
        ..Limits::default()
    };
    let (responder, counters) = responder(limits);
    let mut memory = Memory::new(responder);
    let post = |body: &str| {
        format!(
            "POST /test/body HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let chunked = |body: &str| {
        format!(
            "POST /test/body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let x_fields = |len: usize| {
        format!(
            "X: {}\r\n",
            "x".repeat(len - get("/plaintext", "X: \r\n").len())
        )
    };
    for (request, expected) in [
        (get("/plaintext?123456789", ""), "200"),
        (get("/plaintext?1234567890", ""), "414"),
        (get("/plaintext", "A: 1\r\nB: 2\r\n"), "200"),
        (get("/plaintext", "A: 1\r\nB: 2\r\nC: 3\r\n"), "431"),
        (get("/plaintext", &x_fields(200)), "200"),
        (get("/plaintext", &x_fields(201)), "431"),
        (post("1234567890"), "200"),
        (post("12345678901"), "413"),
        (chunked("1234567890"), "200"),
        (chunked("12345678901"), "413"),
    ] {
        assert_eq!(
            status(&answer(&mut memory, request.as_bytes())),
            expected,
            "{request:?}"
        );
    }
    for reason in [
        Refusal::TargetTooLong,
        Refusal::TooManyFields,
        Refusal::HeadTooLarge,
    ] {
        assert_eq!(counters.refusals(reason), 1, "{reason:?}");
    }
    assert_eq!(counters.refusals(Refusal::BodyTooLarge), 2);
    // What no route wants is skipped within the same limit.
    let unwanted = chunked("12345678901").replace("POST /test/body", "GET /plaintext") + GET;
    assert_eq!(
        answer(&mut memory, unwanted.as_bytes())
            .matches("200 OK")
            .count(),
        1
    );
}

/// Shows `bytes` to the responder, in the middle of a batch.
fn show(
    responder: &mut SiteResponder,
    connection: &mut <SiteResponder as Service>::Connection,
    bytes: &[u8],
) -> Progress {
    let mut space = [0; 2 * SiteResponder::REPLY_BYTES_MIN];
    let input = Input {
        bytes,
        full: false,
        ended: false,
    };
    responder.on_input(connection, input, &mut Reply::new(&mut space))
}

#[test]
fn a_request_lasts_from_the_batch_of_its_first_byte_to_the_end_of_that_of_its_reply() {
    let (mut responder, counters) = responder(Limits::default());
    let durations = |path| {
        let route = counters.routes().iter().find(|route| route.path() == path);
        let reading = route.unwrap().durations().read();
        (reading.buckets.iter().sum::<u64>(), reading.sum_ns)
    };
    let (mut fast, mut slow) = Default::default();
    responder.on_time(1_000);
    show(&mut responder, &mut fast, GET.repeat(2).as_bytes());
    let (first, _) = GET.as_bytes().split_at(9);
    assert_eq!(show(&mut responder, &mut slow, first).consumed, 0);
    assert_eq!(
        durations(Some("/plaintext")),
        (0, 0),
        "nothing is on its way"
    );
    responder.on_time(1_500);
    assert_eq!(durations(Some("/plaintext")), (2, 2 * 500));

    // The core slept in between; the slow request was not answered.
    responder.on_time(8_000);
    show(&mut responder, &mut slow, GET.as_bytes());
    show(&mut responder, &mut fast, b"nonsense\r\n\r\n");
    responder.on_time(8_100);
    assert_eq!(durations(Some("/plaintext")), (3, 2 * 500 + 7_100));
    assert_eq!(durations(None), (1, 100));

    // The next request on the same connection begins anew.
    show(&mut responder, &mut slow, GET.as_bytes());
    responder.on_time(8_200);
    assert_eq!(durations(Some("/plaintext")), (4, 2 * 500 + 7_100 + 100));
}

#[test]
fn requests_responses_and_refusals_are_counted() {
    let (responder, counters) = responder(Limits::default());
    let mut memory = Memory::new(responder);
    answer(&mut memory, GET.repeat(3).as_bytes());
    answer(
        &mut memory,
        b"DELETE /plaintext HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    answer(&mut memory, b"POST /test/body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab");
    let by_route: Vec<_> = counters
        .requests_by_route()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(by_route, [("/plaintext", 4), ("/test/body", 1)]);
    assert_eq!(
        [Status::Ok, Status::MethodNotAllowed, Status::NotFound]
            .map(|status| counters.responses(status)),
        [4, 1, 1]
    );
    assert_eq!(
        [Refusal::MethodNotAllowed, Refusal::NotFound].map(|reason| counters.refusals(reason)),
        [1, 1]
    );
    let samples = counters.samples();
    let value = |name| {
        samples
            .iter()
            .find(|sample| sample.name == name)
            .map(|sample| sample.value)
    };
    assert_eq!(
        [
            value("responses_200"),
            value("refused_not_found"),
            value("continues")
        ],
        [Some(4), Some(1), Some(1)]
    );
}

#[test]
fn a_stream_is_sent_as_fast_as_there_is_room_and_not_faster() {
    const LENGTH: u64 = 3_000_000;
    let mut memory = memory();
    for reply_bytes in [1024, 1025, 16_384, 65_536] {
        memory.reply_bytes = reply_bytes;
        let request =
            format!("GET /test/stream?bytes={LENGTH}&seed=7 HTTP/1.1\r\nHost: a\r\n\r\n{GET}");
        let answer = memory.exchange(&[request.as_bytes()]).unwrap();
        let head = b"Content-Type: application/octet-stream\r\nContent-Length: 3000000\r\n\r\n";
        let body = answer
            .windows(head.len())
            .position(|window| window == head)
            .unwrap()
            + head.len();
        let (body, next) = answer[body..].split_at(LENGTH as usize);
        assert!(
            body.iter()
                .zip(0..)
                .all(|(byte, offset)| *byte == byte_at(7, offset))
        );
        assert!(next.starts_with(b"HTTP/1.1 200 OK") && next.ends_with(b"Hello, World!"));
    }
}

#[test]
fn an_upload_of_any_length_comes_back() {
    let body: Vec<u8> = (0..1_000_000).map(|offset| byte_at(1, offset)).collect();
    let mut memory = memory();
    let head = format!(
        "PUT /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = memory
        .exchange(&[head.as_bytes(), &body, GET.as_bytes()])
        .unwrap();
    let at = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap()
        + 4;
    assert!(answer[at..].starts_with(&body));
    assert!(answer[at + body.len()..].ends_with(b"Hello, World!"));

    let mut chunked =
        b"PUT /test/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(12_345) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = memory.exchange(&[&chunked]).unwrap();
    let at = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap()
        + 4;
    assert_eq!(unchunk(&answer[at..]), body);
}

/// The data of a chunked body without extensions and trailers.
fn unchunk(mut chunks: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let line = chunks
            .windows(2)
            .position(|window| window == b"\r\n")
            .unwrap();
        let size =
            usize::from_str_radix(std::str::from_utf8(&chunks[..line]).unwrap(), 16).unwrap();
        data.extend_from_slice(&chunks[line + 2..line + 2 + size]);
        assert_eq!(&chunks[line + 2 + size..line + 4 + size], b"\r\n");
        chunks = &chunks[line + 4 + size..];
        if size == 0 {
            assert_eq!(chunks, b"");
            return data;
        }
    }
}

#[test]
fn without_room_nothing_is_consumed() {
    let (mut responder, _) = responder(Limits::default());
    let mut space = vec![0; SiteResponder::REPLY_BYTES_MIN + 100];
    let mut reply = Reply::new(&mut space);
    let mut connection = Default::default();
    let requests = GET.repeat(100);
    let input = Input {
        bytes: requests.as_bytes(),
        full: true,
        ended: false,
    };
    // The first response leaves less than another could need: the second request has to wait.
    let progress = responder.on_input(&mut connection, input, &mut reply);
    assert_eq!(
        progress,
        Progress {
            consumed: GET.len(),
            messages: 1,
            next: Next::Send
        }
    );
    let written = reply.len();
    let rest = Input {
        bytes: &requests.as_bytes()[GET.len()..],
        ..input
    };
    let progress = responder.on_input(&mut connection, rest, &mut reply);
    assert_eq!(
        (progress.consumed, progress.next, reply.len()),
        (0, Next::Send, written)
    );
}

#[test]
fn what_does_not_fit_is_copied_up_to_a_limit() {
    let limits = Limits {
        copied_bytes_max: 2000,
        ..Limits::default()
    };
    let (responder, counters) = responder(limits);
    let mut memory = Memory::new(responder);
    memory.reply_bytes = SiteResponder::REPLY_BYTES_MIN;
    let post = |len: usize| {
        format!(
            "POST /test/body HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{}",
            "x".repeat(len)
        )
    };
    for len in [600, 601, 1024, 2000] {
        let answer = answer(&mut memory, (post(len) + GET).as_bytes());
        let (first, second) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            first.ends_with(&format!("Content-Length: {len}")),
            "{first}"
        );
        assert!(second.starts_with(&("x".repeat(len) + "HTTP/1.1 200")));
    }
    let answer = answer(&mut memory, post(2001).as_bytes());
    assert_eq!(status(&answer), "500");
    assert_eq!(counters.refusals(Refusal::Overflow), 1);
}

#[test]
fn events_are_counted_and_summed() {
    let mut memory = memory();
    let event = |json: &str| {
        format!(
            "POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        )
    };
    let stats = "GET /stats HTTP/1.1\r\nHost: a\r\n\r\n";
    let posted =
        event(r#"{"userId":"a","value":0.1}"#) + &event(r#"{"value":0.2,"userId":"b"}"#) + stats;
    let answer_text = answer(&mut memory, posted.as_bytes());
    assert!(answer_text.ends_with(r#"{"totalRequests":2,"uniqueUsers":2,"sum":0.30000000000000004,"avg":0.15000000000000002}"#), "{answer_text}");
    let refused = answer(&mut memory, event(r#"{"userId":"a"}"#).as_bytes());
    assert!(
        status(&refused) == "400" && refused.ends_with("value is missing"),
        "{refused}"
    );
    for user in 0..98 {
        assert_eq!(
            status(&answer(
                &mut memory,
                event(&format!(r#"{{"userId":"user{user}","value":1}}"#)).as_bytes()
            )),
            "200"
        );
    }
    assert_eq!(
        status(&answer(
            &mut memory,
            event(r#"{"userId":"one too many","value":1}"#).as_bytes()
        )),
        "507"
    );
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
    #![proptest_config(config(512))]

    #[test]
    fn pipelines_are_answered_alike_however_they_are_split(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let cases: Vec<_> = cases().into_iter().filter(|case| case.is_small() && !case.free_chunks).collect();
        let requests: Vec<u8> = picks.iter().flat_map(|pick| pick.get(&cases).requests.clone()).collect();
        check_splits(&requests, &cuts);
    }

    #[test]
    fn any_bytes_are_answered_alike_however_they_are_split(
        pieces in prop::collection::vec(piece(), 0..30),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        check_splits(&pieces.concat(), &cuts);
    }
}

/// Scraps of requests, and noise.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    const SCRAPS: &[&str] = &[
        "GET ",
        "POST ",
        "HEAD ",
        "OPTIONS ",
        "/plaintext",
        "/test/body",
        "*",
        "http://a",
        "?",
        "%",
        "%70",
        " ",
        "\t",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        " HTTP/2.0\r\n",
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        "Host: a\r\n",
        "Host",
        ":",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "hello",
        "5\r\n",
        "0\r\n",
        ";",
        "=",
        "\"",
    ];
    prop_oneof![
        10 => prop::sample::select(SCRAPS).prop_map(|scrap| scrap.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

fn check_splits(requests: &[u8], cuts: &[prop::sample::Index]) {
    let cuts = cuts
        .iter()
        .map(|cut| cut.index(requests.len() + 1))
        .collect();
    property::same_replies_however_split(memory, requests, cuts);
}
