//! What handlers can do with requests and responses, driven in memory.
#![allow(clippy::unwrap_used)]

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use barewire_conformance::driver::{Driver, Memory};
use barewire_http::middleware::{RateLimit, RequestId};
use barewire_http::{
    Answer, Content, ContentType, Handler, Limits, Method, Middleware, Produce, Refusal, Request,
    Responder, Response, Route, Routes, Served, Status,
};
use barewire_service::service::{Next, Service};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What the handlers of this file share.
#[derive(Debug, Default)]
struct State {
    shared: Bytes,
    served: Vec<(Option<String>, u16)>,
}

type Reply<'r, 's> = Response<'r, 's>;

const ROUTES: &[Route<State>] = &[
    Route::new("/both").put(both),
    Route::new("/users/{id}/{*rest}").get(params),
    Route::new("/json").post(json),
    Route::new("/fields").get(fields),
    Route::new("/static").get(stay),
    Route::new("/shared").get(shared),
    Route::new("/owned").on(Method::Post, Handler::Head(owned)),
    Route::new("/list").get(list),
    Route::new("/pieces").get(pieces),
    Route::new("/nothing").get(nothing),
    Route::new("/redirect").get(redirect),
    Route::new("/bye").get(bye),
];

fn both(_: &mut State, request: &Request<'_>, body: &[u8], response: Reply<'_, '_>) -> Answer {
    let name = request.field("X-Name").unwrap_or(b"nobody");
    response.body(
        ContentType::BYTES,
        &[request.path(), b" ", name, b" ", body].concat(),
    )
}

fn params(_: &mut State, request: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    let (id, rest) = (request.param("id"), request.param("rest"));
    response.text(&format!("{id:?} {rest:?} {:?}", request.param("other")))
}

#[derive(Debug, Serialize, Deserialize)]
struct Point<'a> {
    name: &'a str,
    x: i32,
}

fn json(_: &mut State, request: &Request<'_>, body: &[u8], response: Reply<'_, '_>) -> Answer {
    match request.json::<Point<'_>>(body) {
        Ok(point) => response.status(Status::Created).json(&Point {
            x: point.x + 1,
            ..point
        }),
        Err(error) => response.refuse(error),
    }
}

/// Adds the field that the query names.
fn fields(_: &mut State, request: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    let size = request.query_value("size").unwrap_or(b"1");
    let size = std::str::from_utf8(size).unwrap().parse().unwrap();
    let name = std::str::from_utf8(request.query_value("name").unwrap()).unwrap();
    let response = response.field(name, "x".repeat(size));
    match request.query_value("value") {
        // What a careless handler might do: a line end from the query, decoded.
        Some(b"split") => response.field("B", "c\r\nSet-Cookie: d=e").text("hello"),
        Some(b"empty") => response.field("B", "").empty(),
        Some(b"json") => response.json(&[1, 2, 3]),
        Some(b"send") => response.send(ContentType::TEXT, "hello"),
        _ => response.text("hello"),
    }
}

fn stay(_: &mut State, _: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    static LONG: [u8; 100_000] = [b's'; 100_000];
    response.send(ContentType::BYTES, &LONG[..])
}

fn shared(state: &mut State, _: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    response.send(ContentType::BYTES, state.shared.slice(1000..))
}

/// Does not look at the body, which is read while the response is sent.
fn owned(_: &mut State, _: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    response.send(ContentType::HTML, "ö".repeat(50_000))
}

fn list(_: &mut State, _: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    response.json(&(0..30_000).collect::<Vec<_>>())
}

/// Pieces of 1 to 300 bytes.
struct Pieces {
    left: usize,
    breaks_at: usize,
}

impl Produce for Pieces {
    fn produce(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.left == self.breaks_at {
            return Err(io::Error::other("broken"));
        }
        let len = space.len().min(self.left).min(1 + self.left * 7 % 300);
        let len = len.min(self.left.wrapping_sub(self.breaks_at));
        space[..len].fill(b'p');
        self.left -= len;
        Ok(len)
    }
}

fn pieces(_: &mut State, request: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    let number = |name| {
        let digits = std::str::from_utf8(request.query_value(name)?).ok()?;
        digits.parse::<usize>().ok()
    };
    let pieces = Pieces {
        left: number("bytes").unwrap(),
        breaks_at: number("breaks").unwrap_or(usize::MAX),
    };
    let length = number("length").map(|length| length as u64);
    response.send(ContentType::BYTES, Content::produced(length, pieces))
}

fn nothing(_: &mut State, _: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    response.status(Status::NoContent).text("never sent")
}

fn redirect(_: &mut State, request: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    response.redirect(std::str::from_utf8(request.query().unwrap_or_default()).unwrap())
}

fn bye(_: &mut State, _: &Request<'_>, response: Reply<'_, '_>) -> Answer {
    response.close().text("bye")
}

fn responder() -> Responder<State> {
    let state = State {
        shared: (0..200_000).map(|n| (n / 7) as u8).collect(),
        ..State::default()
    };
    Responder::new(&Routes::new(ROUTES).unwrap(), state)
}

fn memory() -> Memory<Responder<State>> {
    Memory::new(responder())
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn post(target: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{fields}\r\n{body}")
}

/// The head of the first answer to `requests` and what follows it.
fn exchange<S: Service>(memory: &mut Memory<S>, requests: &str) -> (String, Vec<u8>) {
    let answer = memory.exchange(&[requests.as_bytes()]).unwrap();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap()
        + 4;
    (
        String::from_utf8(answer[..end].to_vec()).unwrap(),
        answer[end..].to_vec(),
    )
}

/// The data of the chunked body at the front of `bytes`, and what follows it.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut data = Vec::new();
    loop {
        let line = bytes
            .windows(2)
            .position(|window| window == b"\r\n")
            .unwrap();
        let digits = std::str::from_utf8(&bytes[..line]).unwrap();
        assert!(digits == "0" || !digits.starts_with('0'), "{digits}");
        let size = usize::from_str_radix(digits, 16).unwrap();
        data.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        assert_eq!(&bytes[line + 2 + size..line + 4 + size], b"\r\n");
        bytes = &bytes[line + 4 + size..];
        if size == 0 {
            return (data, bytes);
        }
    }
}

const BYE: &str = "GET /bye HTTP/1.1\r\nHost: a\r\n\r\n";

/// Checks that `rest` is the answer to [`BYE`].
fn assert_bye(rest: &[u8]) {
    let rest = std::str::from_utf8(rest).unwrap();
    assert!(
        rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\nbye"),
        "{rest}"
    );
    assert!(rest.contains("\r\nConnection: close\r\n"), "{rest}");
}

#[test]
fn a_handler_sees_the_head_with_the_body_however_both_arrive() {
    let mut memory = memory();
    let whole = "PUT /both?q HTTP/1.1\r\nHost: a\r\nX-Name: me\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "PUT /both HTTP/1.1\r\nHost: a\r\nX-Name: me\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    for request in [whole, chunked] {
        let requests = format!("{request}{BYE}");
        for at in 0..requests.len() {
            let (first, second) = requests.as_bytes().split_at(at);
            let answer = memory.exchange(&[first, second]).unwrap();
            let answer = String::from_utf8(answer).unwrap();
            assert!(
                answer.contains("\r\n\r\n/both me helloHTTP/1.1 200"),
                "{at}: {answer}"
            );
            assert!(answer.ends_with("bye"));
        }
    }
}

#[test]
fn head_and_body_share_the_receive_buffer() {
    let mut memory = memory();
    let head = "PUT /both HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n";
    memory.receive_bytes = head.len() + 20_000;
    let request = head.to_owned() + &"x".repeat(20_000);
    assert!(
        exchange(&mut memory, &request)
            .0
            .starts_with("HTTP/1.1 200")
    );
    memory.receive_bytes -= 1;
    assert!(
        exchange(&mut memory, &request)
            .0
            .starts_with("HTTP/1.1 413")
    );
}

#[test]
fn parameters_are_what_stands_in_their_place() {
    let mut memory = memory();
    for (path, expected) in [
        ("/users/7/a", r#"Some("7") Some("a") None"#),
        (
            "/users/a%2Fb/c/d%20e/",
            r#"Some("a%2Fb") Some("c/d%20e/") None"#,
        ),
        ("/%75sers/7/a?id=8", r#"Some("7") Some("a") None"#),
    ] {
        assert_eq!(
            exchange(&mut memory, &get(path)).1,
            expected.as_bytes(),
            "{path}"
        );
    }
    for (path, status) in [
        ("/users/7", "404"),
        ("/users//a", "404"),
        ("/users/7/%zz", "400"),
    ] {
        let (head, _) = exchange(&mut memory, &get(path));
        assert_eq!(&head[9..12], status, "{path}");
    }
}

#[test]
fn typed_json_comes_in_and_goes_out() {
    let mut memory = memory();
    let mut json = |fields: &str, body: &str| {
        let (head, body) = exchange(&mut memory, &post("/json", fields, body));
        (head[9..12].to_owned(), String::from_utf8(body).unwrap())
    };
    const JSON: &str = "Content-Type: application/json\r\n";
    let (status, body) = json(JSON, r#"{"name":"a","x":1}"#);
    assert_eq!((&*status, &*body), ("201", r#"{"name":"a","x":2}"#));
    let (status, body) = json("", r#"{"name":"a","x":1}"#);
    assert_eq!(
        (&*status, &*body),
        ("415", "The body must be application/json.\n")
    );
    let (status, body) = json(JSON, r#"{"name":"a","x":"1"}"#);
    assert_eq!(status, "400");
    assert!(body.contains("expected i32 at line 1 column"), "{body}");
    assert_eq!(json(JSON, "{").0, "400");
    assert_eq!(json(JSON, &" ".repeat(65_537)).0, "413");
    let counters = memory.service.counters();
    assert_eq!(counters.refusals(Refusal::Json), 2);
    assert_eq!(counters.refusals(Refusal::MediaType), 1);
}

#[test]
fn a_field_is_sent_as_it_is_or_not_at_all() {
    let mut memory = memory();
    let (head, body) = exchange(&mut memory, &get("/fields?name=X-A&size=3"));
    assert!(head.contains("\r\nX-A: xxx\r\nContent-Type: text/plain\r\n") && body == b"hello");
    for (query, lines) in [
        (
            "name=A&value=empty",
            "\r\nA: x\r\nB: \r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "name=A&value=json",
            "\r\nA: x\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n",
        ),
        (
            "name=A&value=send",
            "\r\nA: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n",
        ),
    ] {
        let (head, _) = exchange(&mut memory, &get(&format!("/fields?{query}")));
        assert!(head.ends_with(lines), "{head}");
    }
    for query in [
        "name=a:b",
        "name=",
        "name=content-length",
        "name=A&value=split",
        "name=A&size=4093",
    ] {
        let (head, body) = exchange(&mut memory, &get(&format!("/fields?{query}")));
        assert!(head.starts_with("HTTP/1.1 500 ") && body == b"The response is malformed.\n");
        assert!(
            !head.contains("A: ") && !head.contains("Set-Cookie"),
            "{head}"
        );
    }
    assert_eq!(
        memory.service.counters().refusals(Refusal::ResponseField),
        5
    );
    // The next response knows nothing of it.
    assert!(!exchange(&mut memory, BYE).0.contains("A: "));
}

#[test]
fn fields_that_do_not_fit_in_the_send_space_are_sent_all_the_same() {
    let mut memory = memory();
    for reply_bytes in [1024, 2000, 8192] {
        memory.reply_bytes = reply_bytes;
        for value in ["text", "json", "send", "empty"] {
            let requests = get(&format!("/fields?name=A&size=4000&value={value}")) + BYE;
            let (head, rest) = exchange(&mut memory, &requests);
            assert!(
                head.contains(&format!("\r\nA: {}\r\n", "x".repeat(4000))),
                "{value}"
            );
            let content: &[u8] = match value {
                "json" => b"[1,2,3]",
                "empty" => b"",
                _ => b"hello",
            };
            assert_bye(rest.strip_prefix(content).unwrap());
        }
    }
}

#[test]
fn content_of_any_length_is_sent_as_there_is_room() {
    let mut memory = memory();
    let shared = memory.service.state().shared.slice(1000..);
    for reply_bytes in [1024, 1500, 65_536] {
        memory.reply_bytes = reply_bytes;
        for (request, length, content) in [
            (get("/static"), 100_000, vec![b's'; 100_000]),
            (get("/shared"), 199_000, shared.to_vec()),
            (
                post("/owned", "", "a body that nobody looks at"),
                100_000,
                "ö".repeat(50_000).into(),
            ),
            (
                get("/pieces?bytes=70000&length=70000"),
                70_000,
                vec![b'p'; 70_000],
            ),
            (get("/pieces?bytes=5&length=3"), 3, vec![b'p'; 3]),
            (get("/pieces?bytes=0&length=0"), 0, vec![]),
        ] {
            let (head, rest) = exchange(&mut memory, &(request + BYE));
            assert!(
                head.ends_with(&format!("Content-Length: {length}\r\n\r\n")),
                "{head}"
            );
            assert_bye(rest.strip_prefix(&content[..]).unwrap());
        }
        let (head, rest) = exchange(&mut memory, &(get("/list") + BYE));
        let length = rest.iter().position(|byte| *byte == b']').unwrap() + 1;
        assert!(head.ends_with(&format!("Content-Length: {length}\r\n\r\n")));
        assert_eq!(
            serde_json::from_slice::<Vec<u32>>(&rest[..length])
                .unwrap()
                .len(),
            30_000
        );
        assert_bye(&rest[length..]);
    }
    // A connection keeps a reference, and gives it back.
    drop(memory.service.into_state());
    assert!(shared.is_unique());
}

#[test]
fn content_of_unknown_length_is_chunked_or_ends_the_connection() {
    let mut memory = memory();
    for reply_bytes in [1024, 1027, 65_536, 300_000] {
        memory.reply_bytes = reply_bytes;
        for len in [0, 1, 15, 16, 4095, 4096, 200_000] {
            let target = format!("/pieces?bytes={len}");
            let (head, rest) = exchange(&mut memory, &(get(&target) + BYE));
            assert!(
                head.ends_with("Transfer-Encoding: chunked\r\n\r\n"),
                "{head}"
            );
            let (data, rest) = unchunk(&rest);
            assert_eq!(data, vec![b'p'; len]);
            assert_bye(rest);

            let old = format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n{BYE}");
            let (head, rest) = exchange(&mut memory, &old);
            assert!(
                head.contains("Connection: close\r\n") && !head.contains("Length"),
                "{head}"
            );
            assert_eq!(rest, vec![b'p'; len]);
        }
    }
    let head = "HEAD /pieces?bytes=9 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + BYE;
    assert_bye(&exchange(&mut memory, &head).1);
}

#[test]
fn content_that_breaks_resets_the_connection() {
    let mut memory = memory();
    memory.reply_bytes = 1024;
    for query in [
        "bytes=9000&breaks=100",
        "bytes=9000&breaks=100&length=9000",
        "bytes=9&length=10",
    ] {
        let mut connection = memory.connect();
        memory.send(&mut connection, get(&format!("/pieces?{query}")).as_bytes());
        assert_eq!(connection.next, Some(Next::Abort), "{query}");
        assert!(!connection.sent.ends_with(b"0\r\n\r\n"));
    }
    let samples = memory.service.counters().samples();
    let broken = samples
        .iter()
        .find(|sample| sample.name == "contents_broken");
    assert_eq!(broken.unwrap().value, 3);
}

#[test]
fn a_status_without_content_has_none_and_says_nothing_of_it() {
    let mut memory = memory();
    let (head, rest) = exchange(&mut memory, &(get("/nothing") + BYE));
    assert!(
        head.starts_with("HTTP/1.1 204 No Content\r\n") && !head.contains("Content-"),
        "{head}"
    );
    assert_bye(&rest);
}

#[test]
fn a_redirect_goes_where_a_field_can_say() {
    let mut memory = memory();
    let (head, _) = exchange(&mut memory, &get("/redirect?/elsewhere"));
    assert!(
        head.starts_with("HTTP/1.1 303 See Other\r\n")
            && head.contains("\r\nLocation: /elsewhere\r\n")
    );
}

#[test]
fn copies_are_limited() {
    let limits = Limits {
        copied_bytes_max: 100,
        ..Limits::default()
    };
    let mut memory = Memory::new(responder().with_limits(limits));
    assert!(
        exchange(&mut memory, &get("/list"))
            .0
            .starts_with("HTTP/1.1 500 ")
    );
    assert_eq!(memory.service.counters().refusals(Refusal::Overflow), 1);
}

#[test]
fn a_server_says_its_own_name_or_none() {
    for (server, line) in [
        ("mine/1.0 (x)", "\r\nServer: mine/1.0 (x)\r\nDate: "),
        ("", " OK\r\nDate: "),
    ] {
        let mut memory = Memory::new(responder().with_server(server).unwrap());
        memory.service.on_clock(784_111_777);
        let (head, _) = exchange(&mut memory, BYE);
        assert!(head.contains(line), "{head}");
    }
    assert!(responder().with_server("a\r\nb").is_err());
}

/// Lets in who has the password, and writes down what was answered.
struct Guard;

impl Middleware<State> for Guard {
    fn before<'r, 's>(
        &mut self,
        _: &mut State,
        request: &Request<'_>,
        response: Response<'r, 's>,
    ) -> ControlFlow<Answer, Response<'r, 's>> {
        match request.field("Authorization") {
            Some(b"Basic YTpi") => ControlFlow::Continue(response),
            _ => ControlFlow::Break(
                response
                    .status(Status::Unauthorized)
                    .field("WWW-Authenticate", "Basic realm=\"test\"")
                    .empty(),
            ),
        }
    }

    fn after(&mut self, state: &mut State, served: &Served<'_>) {
        let path = served
            .request
            .map(|request| String::from_utf8_lossy(request.path()).into());
        state.served.push((path, served.status.code()));
    }
}

#[test]
fn middleware_is_around_every_handler() {
    let responder = responder()
        .with_middleware(RequestId::new(0xabc))
        .with_middleware(Guard);
    let mut memory = Memory::new(responder);
    let (head, _) = exchange(&mut memory, &get("/static"));
    assert!(head.starts_with("HTTP/1.1 401 ") && head.contains("\r\nWWW-Authenticate: Basic"));
    assert!(
        !head.contains("X-Request-Id"),
        "what is within was not reached: {head}"
    );
    let authorised = "GET /bye HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n";
    for id in ["0000000000000abc", "0000000000000abd"] {
        let (head, _) = exchange(&mut memory, authorised);
        assert!(
            head.contains(&format!("\r\nX-Request-Id: {id}\r\n")),
            "{head}"
        );
    }
    // One that came in pieces is asked about once.
    let (first, second) = (
        "PUT /both HTTP/1.1\r\nHost: a\r\nContent-Le",
        "ngth: 1\r\n\r\nx",
    );
    memory
        .exchange(&[first.as_bytes(), second.as_bytes()])
        .unwrap();
    exchange(&mut memory, &get("/missing"));
    exchange(&mut memory, "nonsense\r\n\r\n");
    let served = memory.service.into_state().served;
    let some = |path: &str| Some(path.to_owned());
    assert_eq!(
        served,
        [
            (some("/static"), 401),
            (some("/bye"), 200),
            (some("/bye"), 200),
            (some("/both"), 401),
            (some("/missing"), 404),
            (None, 400),
        ]
    );
}

#[test]
fn a_rate_is_kept_within_a_burst() {
    let mut memory = Memory::new(responder().with_middleware(RateLimit::new(10, 3)));
    memory.service.on_time(1);
    let answered = |memory: &mut Memory<_>, requests: usize| {
        let statuses = (0..requests).map(|_| exchange(memory, BYE).0[9..12].to_owned());
        statuses.filter(|status| status == "200").count()
    };
    assert_eq!(answered(&mut memory, 5), 3);
    memory.service.on_time(150_000_001);
    assert_eq!(answered(&mut memory, 5), 1);
    memory.service.on_time(10_000_000_001);
    assert_eq!(answered(&mut memory, 5), 3);
    let counters = Arc::clone(memory.service.counters());
    assert_eq!(counters.refusals(Refusal::RateLimit), 2 + 4 + 2);
}
