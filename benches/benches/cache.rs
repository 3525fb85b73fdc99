//! What a hit in the cache of a proxy costs, beside a static route of a server with the same answer: parse, look up, answer.
//! Aims for 100 ns more than the route.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::sync::Arc;

use barewire_http::{Answer, Limits, Request, Responder, Response, Route, Routes};
use barewire_proxy::{Proxy, Table};
use barewire_service::service::{Arrival, Id, Input, Reply, Service, Want};
use barewire_service::time::Instant;
use criterion::{Criterion, criterion_group, criterion_main};

const MINIMAL: &str = "GET /plaintext HTTP/1.1\r\nHost: server\r\n\r\n";

/// What a desktop browser sends, without the `Cache-Control` of a reload, to which nothing stored is an answer: 12 fields.
const BROWSER: &str = "GET /plaintext HTTP/1.1\r\n\
    Host: www.example.org:8080\r\n\
    Connection: keep-alive\r\n\
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

const BODY: &str = "Hello, World!";

fn hello(_: &mut (), _: &Request<'_>, response: Response<'_, '_>) -> Answer {
    response.text(BODY)
}

/// A server with one route.
fn server() -> Responder<()> {
    const ROUTES: &[Route<()>] = &[Route::new("/plaintext").get(hello)];
    let routes = Routes::new(ROUTES).unwrap();
    let mut server = Responder::new(&routes, ());
    server.on_clock(784_111_777);
    server
}

/// A proxy that has stored the answers to these requests.
fn proxy(requests: &[&str]) -> Proxy {
    let routes = "[cache]\n[pool.app]\norigins = [\"10.0.0.1:80\"]\n[[route]]\npool = \"app\"\n";
    let table = Table::new(toml::from_str(routes).unwrap()).unwrap();
    let mut proxy = Proxy::new(
        &table,
        Limits::default(),
        None,
        Arc::default(),
        table.counters(),
        7,
    );
    proxy.on_clock(784_111_777);
    proxy.on_time(1);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n\
         Cache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut space = vec![0; 64 * 1024];
    let mut origin = None;
    for request in requests {
        let mut client = accept(&mut proxy);
        respond(&mut proxy, &mut client, request.as_bytes(), &mut space);
        loop {
            match proxy.wants(Instant::ZERO) {
                Want::Connect { token, .. } => {
                    let id = Id {
                        index: 1,
                        generation: 0,
                    };
                    let mut state = proxy.on_open(token, id);
                    respond(&mut proxy, &mut state, b"", &mut space);
                    respond(&mut proxy, &mut state, answer.as_bytes(), &mut space);
                    origin = Some(state);
                }
                Want::Wake(Id { index: 0, .. }) => {
                    respond(&mut proxy, &mut client, b"", &mut space);
                }
                Want::Wake(_) => {
                    if let Some(state) = &mut origin {
                        respond(&mut proxy, state, b"", &mut space);
                        respond(&mut proxy, state, answer.as_bytes(), &mut space);
                    }
                }
                Want::Nothing { .. } => break,
                _ => {}
            }
        }
    }
    proxy
}

fn accept<S: Service>(service: &mut S) -> S::Connection {
    service.on_accept(Arrival::default()).0
}

/// What a service makes of the bytes. Returns the length of its answer.
fn respond<S: Service>(
    service: &mut S,
    connection: &mut S::Connection,
    bytes: &[u8],
    space: &mut [u8],
) -> usize {
    let mut reply = Reply::new(space);
    let input = Input {
        bytes: black_box(bytes),
        full: false,
        ended: false,
    };
    black_box(service.on_input(connection, input, &mut reply));
    reply.len()
}

fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache");
    let (mut server, mut proxy) = (server(), proxy(&[MINIMAL, BROWSER]));
    let mut space = vec![0; 64 * 1024];
    for (name, request) in [("minimal", MINIMAL), ("browser", BROWSER)] {
        let mut connection = accept(&mut server);
        group.bench_function(format!("{name}/static"), |bencher| {
            bencher.iter(|| respond(&mut server, &mut connection, request.as_bytes(), &mut space));
        });
        let mut connection = accept(&mut proxy);
        group.bench_function(format!("{name}/hit"), |bencher| {
            bencher.iter(|| {
                let len = respond(&mut proxy, &mut connection, request.as_bytes(), &mut space);
                assert!(len > 200, "it is answered at once");
                len
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hits);
criterion_main!(benches);
