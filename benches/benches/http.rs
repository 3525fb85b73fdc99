//! What a request costs the responder: parse, route, answer. Aims for HTTP/1: 45 ns for a minimal request, 200 ns
//! for one of a browser, with about 600 bytes of header fields; for HTTP/2: 100 ns with the fields of h2load, 450 ns
//! with a browser's.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::sync::Arc;

use barewire::events::{Events, EventsConfig, Stats};
use barewire::site::{self, Site, SiteResponder};
use barewire_http::files::{Directory, DirectoryConfig};
use barewire_http::{
    Answer, Connection, HttpCounters, Limits, Request, Responder, Response, Route, Routes,
};
use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::Serialize;

const MINIMAL: &str = "GET /plaintext HTTP/1.1\r\nHost: server\r\n\r\n";

/// What wrk sends with TechEmpower's script.
const TECHEMPOWER: &str = "GET /json HTTP/1.1\r\nHost: tfb-server:8080\r\nAccept: application/json,text/html;q=0.9,application/xhtml+xml;q=0.9,application/xml;q=0.8,*/*;q=0.7\r\nConnection: keep-alive\r\n\r\n";

/// What a desktop browser sends: 13 fields.
const BROWSER: &str = "GET /plaintext HTTP/1.1\r\n\
    Host: www.example.org:8080\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: none\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

const EVENT: &str = "POST /event HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n{\"userId\":\"user_12345\",\"value\":123.5}";

const CHUNKED_EVENT: &str = "POST /event HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n25\r\n{\"userId\":\"user_12345\",\"value\":123.5}\r\n0\r\n\r\n";

const MALFORMED: &str = "GET /plaintext HTTP/1.1\r\nHost : server\r\n\r\n";

fn responder() -> SiteResponder {
    let routes = site::routes(true).expect("the table is consistent");
    let events = Events::new(EventsConfig::new(1)).expect("one core can count");
    let counters = Arc::new(HttpCounters::new(&routes));
    let mut responder = site::responder(
        &routes,
        Site::new(events.shard(0)),
        Limits::default(),
        counters,
    );
    responder.on_clock(784_111_777);
    responder
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http");
    let mut bench = |name: &str, request: &str, depth: usize| {
        let bytes = request.repeat(depth).into_bytes();
        let mut responder = responder();
        let mut space = vec![0; 64 * 1024];
        group.throughput(Throughput::Elements(depth as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut reply = Reply::new(&mut space);
                let progress = respond(&mut responder, &bytes, &mut reply);
                (progress, reply.len())
            });
        });
    };
    bench("minimal", MINIMAL, 1);
    bench("minimal/16", MINIMAL, 16);
    bench("techempower_json", TECHEMPOWER, 1);
    bench("browser", BROWSER, 1);
    bench("browser/16", BROWSER, 16);
    bench("event", EVENT, 1);
    bench("event_chunked", CHUNKED_EVENT, 1);
    bench("malformed", MALFORMED, 1);
    group.finish();

    // The floor under every request: what httparse alone takes for the same bytes.
    let mut group = criterion.benchmark_group("httparse");
    for (name, request) in [
        ("minimal", MINIMAL),
        ("techempower_json", TECHEMPOWER),
        ("browser", BROWSER),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut fields = [const { std::mem::MaybeUninit::uninit() }; 16];
                let mut parsed = httparse::Request::new(&mut []);
                let status =
                    parsed.parse_with_uninit_headers(black_box(request.as_bytes()), &mut fields);
                black_box((status, parsed.headers.len()))
            });
        });
    }
    group.finish();
}

/// What a responder makes of the requests in `bytes`, which are the first ones of a connection.
#[inline(always)]
fn respond<S: Service>(responder: &mut S, bytes: &[u8], reply: &mut Reply<'_>) -> Progress {
    let input = Input {
        bytes: black_box(bytes),
        full: false,
        ended: false,
    };
    black_box(responder.on_input(&mut S::Connection::default(), input, reply))
}

/// Requests of an HTTP/2 connection whose table has what they repeat, as h2load and browsers send them.
fn http2(criterion: &mut Criterion) {
    // What a browser does not have remembered, in Huffman coding (RFC 7541, appendix B).
    /// `/plaintext?lang=en&page=2`
    const BROWSER_PATH: &[u8] =
        b"\x62\xba\x06\x6a\x92\x5f\x29\xff\x28\x1d\x53\x40\x5a\xbe\x2b\x1c\xc5\x80\x5f";
    /// `session=0123456789abcdef0123456789abcdef`
    const BROWSER_COOKIE: &[u8] = b"\x41\x50\x83\x1e\xa8\x00\x11\x32\xd3\x6e\x3a\xf3\xe3\x8c\x92\x16\x50\x04\x4c\xb4\xdb\x8e\xbc\xf8\xe3\x24\x85\x97";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }
    fn literal(first: u8, name: u8, huffman: u8, value: &[u8], block: &mut Vec<u8>) {
        let mask = if first == 0x40 { 63 } else { 15 };
        match name < mask {
            true => block.push(first | name),
            false => block.extend([first | mask, name - mask]),
        }
        assert!(value.len() < 127, "one byte is enough");
        block.push(huffman | value.len() as u8);
        block.extend(value);
    }
    fn h2load(first: bool) -> Vec<u8> {
        let mut block = vec![0x82, 0x86];
        if !first {
            block.extend([0xc0, 0xbf, 0xbe]);
            return block;
        }
        literal(0x40, 4, 0, b"/plaintext", &mut block);
        literal(0x40, 1, 0, b"localhost:8080", &mut block);
        literal(0x40, 58, 0, b"nghttp2/h2load", &mut block);
        block
    }
    fn browser(first: bool) -> Vec<u8> {
        const REPEATED: [(u8, &[u8]); 8] = [
            (1, b"www.example.org:8080"),
            (
                58,
                b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            ),
            (
                19,
                b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            ),
            (17, b"en-GB,en;q=0.9,de;q=0.8"),
            (16, b"gzip, deflate, br, zstd"),
            (51, b"https://www.example.org/"),
            (24, b"no-cache"),
            (41, b"\"abc\""),
        ];
        let mut block = vec![0x82, 0x86];
        literal(0, 4, 0x80, BROWSER_PATH, &mut block);
        for (index, (name, value)) in REPEATED.into_iter().enumerate() {
            match first {
                true => literal(0x40, name, 0, value, &mut block),
                false => block.push(0x80 | (62 + 7 - index as u8)),
            }
        }
        literal(0x10, 32, 0x80, BROWSER_COOKIE, &mut block);
        block
    }

    let mut group = criterion.benchmark_group("http2");
    for (name, block, depth) in [
        ("h2load", h2load as fn(bool) -> Vec<u8>, 1),
        ("h2load/32", h2load, 32),
        ("browser", browser, 1),
        ("browser/32", browser, 32),
    ] {
        let mut responder = responder();
        let mut space = vec![0; 64 * 1024];
        let mut connection = Connection::default();
        let mut call = |bytes: &[u8]| {
            let mut reply = Reply::new(&mut space);
            let input = Input {
                bytes: black_box(bytes),
                full: false,
                ended: false,
            };
            let progress = responder.on_input(&mut connection, input, &mut reply);
            (progress, reply.len())
        };
        let mut greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        greeting.extend(frame(4, 0, 0, &[]));
        greeting.extend(frame(1, 5, 1, &block(true)));
        // Room for as many responses as there are streams before the window is opened again.
        let window = frame(8, 0, 0, &(13u32 << 15).to_be_bytes());
        greeting.extend(&window);
        call(&greeting);
        let request = frame(1, 5, 0, &block(false));
        let mut requests = request.repeat(depth);
        let mut stream = 1u32;
        group.throughput(Throughput::Elements(depth as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for each in requests.chunks_exact_mut(request.len()) {
                    stream += 2;
                    each[5..9].copy_from_slice(&stream.to_be_bytes());
                }
                if stream & 0xffff < 2 * depth as u32 {
                    call(&window);
                }
                let (progress, len) = call(&requests);
                // Nothing waits for a window.
                assert_eq!(progress.next, Next::Receive(Expect::Message));
                assert!(len >= 40 * depth, "{progress:?}");
                len
            });
        });
    }
    group.finish();
}

/// A minimal request for the last route of tables of different lengths: the difference is the search.
fn routes(criterion: &mut Criterion) {
    fn answer(_: &mut (), _: &Request<'_>, response: Response<'_, '_>) -> Answer {
        response.text("ok")
    }
    fn parameter(_: &mut (), request: &Request<'_>, response: Response<'_, '_>) -> Answer {
        black_box(request.param("number"));
        response.text("ok")
    }

    let mut group = criterion.benchmark_group("http/routes");
    for (name, count, has_params) in [
        ("1", 1, false),
        ("8", 8, false),
        ("64", 64, false),
        ("8/parameter", 8, true),
        ("64/parameter", 64, true),
    ] {
        let routes: Vec<_> = (0..count)
            .map(|number| match (number, has_params) {
                (0, true) => Route::new("/path/number/{number}").get(parameter),
                _ => Route::with_path(format!("/path/number/{number}")).get(answer),
            })
            .collect();
        let mut responder = Responder::new(&Routes::new(&routes).unwrap(), ());
        responder.on_clock(784_111_777);
        let last = if has_params { count } else { count - 1 };
        let request = format!("GET /path/number/{last} HTTP/1.1\r\nHost: server\r\n\r\n");
        let mut space = vec![0; 64 * 1024];
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let mut reply = Reply::new(&mut space);
                let progress = respond(&mut responder, request.as_bytes(), &mut reply);
                assert!(reply.written().ends_with(b"ok"));
                progress
            });
        });
    }
    group.finish();
}

/// A file of 4,000 bytes from memory, as a browser asks for it: at first, again, and for a part of it.
fn files(criterion: &mut Criterion) {
    fn file(files: &mut Directory, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
        files.answer(request, request.param("path").unwrap_or(""), response)
    }

    let directory = std::env::temp_dir().join(format!("barewire-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("style.css"), [b'x'; 4000]).unwrap();
    let files = Directory::open(&directory, DirectoryConfig::default()).unwrap();
    let routes = Routes::new(&[Route::new("/static/{*path}").get(file)]).unwrap();
    let mut responder = Responder::new(&routes, files);
    let mut space = vec![0; 64 * 1024];

    let mut group = criterion.benchmark_group("http/files");
    for (name, field) in [
        ("whole", "Cache-Control: max-age=0"),
        ("not_modified", "If-None-Match: *"),
        ("part", "Range: bytes=1000-1999"),
    ] {
        let request = BROWSER.replace("/plaintext", "/static/style.css");
        let request = request.replace("Cache-Control: max-age=0", field);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                respond(
                    &mut responder,
                    request.as_bytes(),
                    &mut Reply::new(&mut space),
                )
            });
        });
    }
    group.finish();
    std::fs::remove_dir_all(&directory).unwrap();
}

/// What serde_json takes to write the two bodies there are.
fn json(criterion: &mut Criterion) {
    #[derive(Serialize)]
    struct Greeting {
        message: &'static str,
    }
    let greeting = Greeting {
        message: "Hello, World!",
    };
    let stats = Stats {
        total_requests: 1_000_000,
        unique_users: 75_000,
        sum: 500_000_000.0,
        avg: 500.0,
    };

    let mut group = criterion.benchmark_group("json");
    let mut space = vec![0; 1024];
    group.bench_function("greeting", |bencher| {
        bencher.iter(|| {
            let mut reply = Reply::new(&mut space);
            serde_json::to_writer(&mut reply, black_box(&greeting)).unwrap();
            black_box(reply.len())
        });
    });
    group.bench_function("stats", |bencher| {
        bencher.iter(|| {
            let mut reply = Reply::new(&mut space);
            serde_json::to_writer(&mut reply, black_box(&stats)).unwrap();
            black_box(reply.len())
        });
    });
    group.finish();
}

criterion_group!(benches, requests, http2, routes, files, json);
criterion_main!(benches);
