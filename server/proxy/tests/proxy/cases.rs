//! What a proxy promises to clients and origins.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use crate::edge::{Origin, Start, pool_of, read_head, read_message};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub fn a_request_is_made_anew_and_its_response_too(start: Start) {
    let origin = Origin::answering(
        "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nX-Kept: 2\r\n\r\nhello",
    );
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = edge.connect();
    client.send(
        "GET /a?b=c HTTP/1.1\r\nHost: Example.org\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\
         X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nVia: 1.0 first\r\nTE: trailers\r\n\
         Upgrade: h2c\r\nAccept: text/plain\r\n\r\n",
    );
    let response = client.read();
    assert_eq!(response.first_line, "HTTP/1.1 200 OK");
    assert_eq!(response.content, b"hello");
    assert_eq!(response.field("x-kept"), Some("2"));
    assert_eq!(response.field("via"), Some("1.1 barewire"));
    assert!(
        response.field("date").is_some(),
        "added, since the origin has none"
    );
    for hop in ["x-hop", "keep-alive", "connection"] {
        assert_eq!(response.field(hop), None);
    }
    let asked = origin.asked.recv().unwrap();
    assert_eq!(asked.first_line, "GET /a?b=c HTTP/1.1");
    assert_eq!(asked.field("host"), Some("Example.org"));
    assert_eq!(asked.field("accept"), Some("text/plain"));
    assert_eq!(asked.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.field("x-forwarded-proto"), Some("http"));
    assert_eq!(asked.field("x-forwarded-host"), Some("Example.org"));
    let forwarded = "for=127.0.0.1;proto=http;host=\"Example.org\"";
    assert_eq!(asked.field("forwarded"), Some(forwarded));
    let via: Vec<_> = (asked.fields.iter())
        .filter(|(name, _)| name == "Via")
        .map(|(_, value)| &**value)
        .collect();
    assert_eq!(via, ["1.0 first", "1.1 barewire"]);
    for hop in ["connection", "x-mine", "te", "upgrade", "content-length"] {
        assert_eq!(asked.field(hop), None, "{hop}");
    }
}

pub fn connections_to_an_origin_are_kept_and_reused(start: Start) {
    let origin = Origin::answering(OK);
    let edge = start(&pool_of(&[origin.address], ""));
    for _ in 0..3 {
        let mut client = edge.connect();
        for _ in 0..5 {
            assert_eq!(client.get("/").content, b"ok");
        }
    }
    assert_eq!((edge.count("opened"), edge.count("reused")), (1, 14));
}

pub fn pipelined_requests_are_answered_in_order(start: Start) {
    let origin = Origin::start(|stream, _| {
        while let Some(request) = read_message(stream, true) {
            let path = request.first_line.split(' ').nth(1).unwrap().to_owned();
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            );
            stream.get_ref().write_all(response.as_bytes()).unwrap();
        }
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = edge.connect();
    let requests: String = (0..100)
        .map(|at| format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.send(requests);
    for at in 0..100 {
        assert_eq!(client.read().content, format!("/{at}").as_bytes());
    }
}

pub fn bodies_of_any_length_go_both_ways(start: Start) {
    let origin = Origin::start(|stream, _| {
        while let Some(request) = read_message(stream, true) {
            let mut response = match request.field("x-chunked") {
                Some(_) => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                None => {
                    let len = request.content.len();
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes()
                }
            };
            match request.field("x-chunked") {
                None => response.extend_from_slice(&request.content),
                Some(_) => {
                    for chunk in request.content.chunks(10_000) {
                        response.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
                        response.extend_from_slice(chunk);
                        response.extend_from_slice(b"\r\n");
                    }
                    response.extend_from_slice(b"0\r\nTrailer: 1\r\n\r\n");
                }
            }
            stream.get_ref().write_all(&response).unwrap();
        }
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let body: Vec<u8> = (0..5_000_000u32).map(|at| (at ^ at >> 8) as u8).collect();
    let mut client = edge.connect();
    for chunked in ["", "X-Chunked: 1\r\n"] {
        let sender = client.0.get_ref().try_clone().unwrap();
        let echoed = std::thread::scope(|scope| {
            let body = &body;
            scope.spawn(move || {
                let len = body.len();
                let head =
                    format!("POST / HTTP/1.1\r\nHost: a\r\n{chunked}Content-Length: {len}\r\n\r\n");
                (&sender).write_all(head.as_bytes()).unwrap();
                (&sender).write_all(body).unwrap();
            });
            client.read()
        });
        assert!(echoed.content == body, "{chunked}");
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.send("4\r\ndefg\r\n0\r\n\r\n");
    assert_eq!(client.read().content, b"abcdefg");
    assert_eq!(edge.count("opened"), 1);
}

pub fn a_client_that_does_not_read_holds_its_origin_back(start: Start) {
    let (tell, stuck) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::start(move |stream, _| {
        read_message(stream, true);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut to = stream.get_ref();
        to.write_all(head.as_bytes()).unwrap();
        to.set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
        let mut sent = 0;
        // Without back-pressure this would not end before the proxy's memory does.
        let at = loop {
            match to.write(&chunk.as_bytes()[sent % chunk.len()..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break sent,
                Err(error) => panic!("{error}"),
            }
        };
        tell.lock().unwrap().send(()).unwrap();
        to.set_write_timeout(None).unwrap();
        to.write_all(&chunk.as_bytes()[at % chunk.len()..]).unwrap();
        to.write_all(b"0\r\n\r\n").unwrap();
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    stuck.recv().unwrap();
    // Others are served meanwhile: by the proxy itself, here.
    assert_eq!(edge.connect().get("/a/../b").status(), "400");
    let response = client.read();
    assert!(response.content.len().is_multiple_of(4096));
    assert!(response.content.iter().all(|&byte| byte == b'x'));
}

pub fn an_origin_that_does_not_read_holds_its_client_back(start: Start) {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |stream, _| {
        let _ = wait.lock().unwrap().recv();
        read_message(stream, true);
        stream.get_ref().write_all(OK.as_bytes()).unwrap();
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = edge.connect();
    let len = 64 << 20;
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n"
    ));
    let to = client.0.get_ref().try_clone().unwrap();
    to.set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let block = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while sent < len {
        match (&to).write(&block[..block.len().min(len - sent)]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < len, "nobody has room for all of it");
    to.set_write_timeout(None).unwrap();
    go_on.send(()).unwrap();
    while sent < len {
        sent += (&to).write(&block[..block.len().min(len - sent)]).unwrap();
    }
    assert_eq!(client.read().content, b"ok");
}

pub fn what_could_be_read_in_two_ways_reaches_no_origin(start: Start) {
    let origin = Origin::answering(OK);
    let edge = start(&pool_of(&[origin.address], ""));
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
            "400",
        ),
        ("GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ] {
        let mut client = edge.connect();
        client.send(request);
        assert_eq!(client.read().status(), status, "{request:?}");
    }
    assert!(origin.asked.try_recv().is_err());
    // A body that is malformed on the way is never completed at the origin.
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX");
    assert_eq!(client.read().status(), "400");
    edge.wait_for("connections", 0);
}

pub fn an_origin_that_is_not_there_or_says_nothing_valid_is_a_bad_gateway(start: Start) {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut edges = vec![start(&pool_of(&[nobody], ""))];
    let mut origins = Vec::new();
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    for response in [
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        &long,
    ] {
        let origin = Origin::answering(response);
        edges.push(start(&pool_of(&[origin.address], "")));
        origins.push(origin);
    }
    for edge in &edges {
        let mut client = edge.connect();
        for _ in 0..2 {
            // The client's connection goes on.
            assert_eq!(client.get("/").status(), "502");
        }
    }
}

pub fn an_origin_that_hangs_is_a_gateway_timeout(start: Start) {
    let origin = Origin::start(|stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let edge = start(&pool_of(&[origin.address], "response_timeout_ms = 50"));
    let mut client = edge.connect();
    assert_eq!(client.get("/").status(), "504");
    assert_eq!((edge.count("failed_late"), edge.count("retried")), (1, 0));
    edge.wait_for("connections", 0);
}

pub fn an_origin_that_promises_more_than_it_sends_ends_the_connection(start: Start) {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ] {
        let origin = Origin::start(move |stream, _| {
            read_message(stream, true);
            stream.get_ref().write_all(response.as_bytes()).unwrap();
        });
        let edge = start(&pool_of(&[origin.address], ""));
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        // It must not look complete, however much of it arrives; if nothing was sent on yet, it is refused.
        let mut all = Vec::new();
        let ended = client.0.read_to_end(&mut all);
        let is_refused = all.starts_with(b"HTTP/1.1 502 ");
        assert!(
            ended.is_err() || is_refused,
            "{:?}",
            String::from_utf8_lossy(&all)
        );
        edge.wait_for("failed_ended", 1);
    }
}

pub fn what_is_idempotent_is_tried_elsewhere_and_nothing_else(start: Start) {
    let bad = Origin::start(|stream, tell| {
        if let Some(request) = read_message(stream, true) {
            tell(request);
        }
    });
    let good = Origin::answering(OK);
    let config = pool_of(&[bad.address, good.address], "eject_failures = 1000000");
    let edge = start(&config);
    let mut client = edge.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), "200");
    }
    let retried = edge.count("retried");
    assert_eq!(retried, bad.asked.try_iter().count() as u64);
    assert!(retried > 0);
    let mut refused = 0;
    for _ in 0..20 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        let status = client.read().status().to_owned();
        refused += u64::from(status == "502");
        assert!(status == "502" || status == "200");
    }
    assert_eq!(refused, bad.asked.try_iter().count() as u64);
    assert!(refused > 0);
    assert_eq!(edge.count("retried"), retried);
}

pub fn an_origin_that_fails_in_a_row_is_ejected(start: Start) {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let edge = start(&pool_of(&[nobody], "eject_failures = 3\nretries_max = 0"));
    let mut client = edge.connect();
    let statuses: Vec<_> = (0..5)
        .map(|_| client.get("/").status().to_owned())
        .collect();
    assert_eq!(statuses, ["502", "502", "502", "503", "503"]);
    assert_eq!((edge.count("ejected"), edge.count("usable")), (1, 0));
}

pub fn an_origin_whose_check_fails_gets_nothing(start: Start) {
    let down = Origin::answering("HTTP/1.1 500 Down\r\nContent-Length: 0\r\n\r\n");
    let up = Origin::answering(OK);
    let check = "[pool.app.check]\npath = \"/health\"\ninterval_ms = 10\ntimeout_ms = 5000";
    let edge = start(&pool_of(&[down.address, up.address], check));
    edge.wait_for("usable", 1);
    let mut client = edge.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), "200");
    }
    let asked = down
        .asked
        .try_iter()
        .all(|asked| asked.first_line == "GET /health HTTP/1.1");
    assert!(asked);
}

pub fn a_client_that_goes_away_takes_its_call_along(start: Start) {
    let origin = Origin::start(|stream, tell| {
        if let Some(request) = read_message(stream, true) {
            tell(request);
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.asked.recv().unwrap();
    let reset = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(client.0.get_ref(), reset).unwrap();
    drop(client);
    edge.wait_for("abandoned", 1);
    edge.wait_for("connections", 0);
    edge.wait_for("calls", 0);
}

pub fn what_no_route_has_is_not_found(start: Start) {
    let origin = Origin::answering(OK);
    let config = format!(
        "[pool.app]\norigins = [\"{}\"]\n[[route]]\nhost = \"edge.test\"\nprefix = \"/api\"\npool = \"app\"\n",
        origin.address
    );
    let edge = start(&config);
    let mut client = edge.connect();
    for (path, status) in [
        ("/api/x", "200"),
        ("/apix", "404"),
        ("/", "404"),
        ("/api", "200"),
    ] {
        assert_eq!(client.get(path).status(), status, "{path}");
    }
    client.send("GET /api HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(client.read().status(), "404");
}

pub fn beyond_the_limit_of_calls_requests_are_refused(start: Start) {
    let origin = Origin::start(|stream, tell| {
        if let Some(request) = read_message(stream, true) {
            tell(request);
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let config = format!(
        "[limits]\ncalls_max = 1\n{}",
        pool_of(&[origin.address], "")
    );
    let edge = start(&config);
    let first = edge.connect();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.asked.recv().unwrap();
    assert_eq!(edge.connect().get("/").status(), "503");
    assert_eq!(edge.count("refused_calls"), 1);
}

pub fn responses_without_content_have_none(start: Start) {
    let origin = Origin::start(|stream, _| {
        while let Some(request) = read_message(stream, true) {
            let response = match request.first_line.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
                _ => "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            };
            stream.get_ref().write_all(response.as_bytes()).unwrap();
        }
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = edge.connect();
    assert_eq!(client.get("/204").field("content-length"), None);
    assert_eq!(client.get("/304").field("content-length"), Some("7"));
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = read_head(&mut client.0).unwrap();
    assert_eq!(
        (response.status(), response.field("content-length")),
        ("200", Some("9"))
    );
    assert_eq!(client.get("/204").status(), "204");
    assert_eq!(edge.count("opened"), 1);
}

pub fn a_response_without_length_ends_with_its_stream(start: Start) {
    let origin = Origin::start(|stream, _| {
        read_message(stream, true);
        let to = stream.get_ref();
        (&*to)
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
            .unwrap();
        to.shutdown(Shutdown::Write).unwrap();
    });
    let edge = start(&pool_of(&[origin.address], ""));
    let mut client = edge.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.field("transfer-encoding"), Some("chunked"));
        assert_eq!(response.content, b"until the end");
    }
    // Who knows no chunks gets the same.
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.read();
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(response.content, b"until the end");
}

pub fn drain_finishes_the_calls_in_progress(start: Start) {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |stream, tell| {
        while let Some(request) = read_message(stream, true) {
            tell(request);
            let _ = wait.lock().unwrap().recv();
            stream.get_ref().write_all(OK.as_bytes()).unwrap();
        }
    });
    let mut edge = start(&pool_of(&[origin.address], ""));
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.asked.recv().unwrap();
    edge.drain();
    go_on.send(()).unwrap();
    let response = client.read();
    assert_eq!(response.content, b"ok");
    drop(client);
    edge.join();
}
