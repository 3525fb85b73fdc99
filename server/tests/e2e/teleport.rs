//! `barewire proxy` in front of `barewire serve --teleport-listen`: the answers are those of the server itself.

use std::net::SocketAddr;

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::Server;
use crate::through_proxy;

/// A server with its test routes that also unpacks teleport: plain text first, teleport second.
fn origin(stack: &str) -> Server {
    let server = Server::on_loopback(
        stack,
        &["--test-routes", "--teleport-listen", "127.0.0.1:0"],
    );
    assert_eq!(server.addresses.len(), 2);
    server
}

/// An edge whose only pool is these origins, by teleport.
fn edge(stack: &str, origins: &[SocketAddr]) -> Server {
    through_proxy::edge(stack, origins, "protocol = \"teleport\"", &[])
}

/// Requests, of which each route has one, and what is left of a response when what a proxy changes is taken out.
pub fn requests() -> Vec<String> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = |path: &str, body: &str| {
        let len = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}")
    };
    vec![
        get("/plaintext"),
        get("/json"),
        get("/health"),
        get("/stats"),
        get("/test/stream?bytes=3000000&seed=7"),
        get("/nothing"),
        "DELETE /plaintext HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        post("/test/body", "some body"),
        post("/test/echo", &"0123456789".repeat(200_000)),
        "POST /test/body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            .to_owned(),
        post("/event", "{\"userId\":\"u\",\"value\":1.5}"),
        post("/event", "no JSON"),
    ]
}

pub fn answers(address: SocketAddr) -> Vec<(u16, Option<String>, Vec<u8>)> {
    requests()
        .iter()
        .map(|request| {
            let mut client = Client::connect(address);
            let mut writer = client.same();
            // What echoes while it reads must be read while it is written to.
            let response = std::thread::scope(|scope| {
                scope.spawn(move || writer.send(request));
                client.receive(false)
            });
            let kind = response.field("content-type").map(str::to_owned);
            (response.status, kind, response.body)
        })
        .collect()
}

#[test]
fn every_route_answers_through_an_edge_as_it_does_itself() {
    for stack in STACKS {
        let origin = origin(stack);
        let edge = edge(stack, &[origin.addresses[1]]);
        let (through, itself) = (answers(edge.addresses[0]), answers(origin.addresses[0]));
        for ((request, through), itself) in requests().iter().zip(through).zip(itself) {
            // An event was counted in between.
            if !request.starts_with("GET /stats") {
                let line = request.lines().next().unwrap();
                assert!(through == itself, "{stack}: {line}");
            }
            assert_ne!(through.0, 502);
        }
        let edge = edge.terminate();
        assert_eq!(edge.served(), requests().len() as u64);
        let sum = |name| edge.counters("teleport_out", name).iter().sum::<u64>();
        assert_eq!(
            sum("calls"),
            requests().len() as u64,
            "{stack}: {}",
            edge.stderr
        );
        assert!(sum("wire_bytes_received") < sum("content_bytes_received"));
        let origin = origin.terminate();
        let unpacked: u64 = origin.counters("teleport", "calls").iter().sum();
        assert_eq!(
            unpacked,
            requests().len() as u64,
            "{stack}: {}",
            origin.stderr
        );
        // Every call was answered by a route, and counted as any other request.
        assert_eq!(origin.served(), 2 * requests().len() as u64);
    }
}

#[test]
fn an_origin_that_is_killed_is_replaced_by_the_other() {
    for stack in STACKS {
        let (first, second) = (origin(stack), origin(stack));
        let edge = edge(stack, &[first.addresses[1], second.addresses[1]]);
        let mut client = Client::connect(edge.addresses[0]);
        for _ in 0..50 {
            assert_eq!(client.get("/plaintext").status, 200, "{stack}");
        }
        first.kill();
        for _ in 0..50 {
            assert_eq!(client.get("/plaintext").status, 200, "{stack}");
        }
    }
}
