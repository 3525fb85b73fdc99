//! What a proxy promises whose origins are reached by teleport: through a second one that unpacks it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use barewire_teleport::Reason;

use crate::edge::{Edge, Origin, Start, Then, pool_of, read_head, read_message, teleport_origin};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";

/// The edge, in front of a proxy that unpacks teleport, in front of `origins`.
fn chain(start: Start, origins: &[SocketAddr], more: &str) -> (Edge, Edge) {
    let back = start(&pool_of(origins, ""));
    let front = start(&by_teleport(&[back.teleport_address], more));
    (front, back)
}

fn by_teleport(origins: &[SocketAddr], more: &str) -> String {
    pool_of(origins, &format!("protocol = \"teleport\"\n{more}"))
}

/// Answers with the path, once `wait` lets it.
fn says_its_path(wait: impl Fn(&str) + Send + Sync + 'static) -> Origin {
    Origin::start(move |stream, tell| {
        while let Some(request) = read_message(stream, true) {
            let path = request.first_line.split(' ').nth(1).unwrap().to_owned();
            tell(request);
            wait(&path);
            let len = path.len();
            let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{path}");
            if stream.get_ref().write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    })
}

pub fn requests_and_responses_arrive_as_they_were_in_each_compression(start: Start) {
    let origin = Origin::answering(
        "HTTP/1.1 201 Created\r\nX-Kept: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\n\r\nhello",
    );
    for compression in ["none", "lz4", "zstd"] {
        let more = format!("compression = \"{compression}\"");
        let (front, back) = chain(start, &[origin.address], &more);
        let mut client = front.connect();
        for at in 0..20 {
            client.send(format!(
                "PUT /a?b={at} HTTP/1.1\r\nHost: Example.org\r\nCookie: s=secret\r\nAuthorization: Basic Zg==\r\n\
                 Accept: text/plain\r\nContent-Length: 3\r\n\r\nabc"
            ));
            let response = client.read();
            assert_eq!(response.first_line, "HTTP/1.1 201 Created");
            assert_eq!(response.content, b"hello");
            assert_eq!(response.field("x-kept"), Some("2"));
            let cookies = response
                .fields
                .iter()
                .filter(|field| field.0 == "Set-Cookie");
            let cookies: Vec<_> = cookies.map(|field| &*field.1).collect();
            assert_eq!(cookies, ["a=1", "b=2"]);
            let asked = origin.asked.recv().unwrap();
            assert_eq!(asked.first_line, format!("PUT /a?b={at} HTTP/1.1"));
            assert_eq!(asked.content, b"abc");
            assert_eq!(asked.field("host"), Some("Example.org"));
            assert_eq!(asked.field("cookie"), Some("s=secret"));
            assert_eq!(asked.field("authorization"), Some("Basic Zg=="));
            assert_eq!(asked.field("accept"), Some("text/plain"));
        }
        // Of one client, calls come one after the other: one connection is enough.
        assert_eq!(front.count("opened"), 1);
        assert_eq!(
            (front.packed.calls.get(), back.unpacked.calls.get()),
            (20, 20)
        );
        let (content, wire) = (
            &front.packed.content_bytes_sent,
            &front.packed.wire_bytes_sent,
        );
        match compression {
            "none" => assert!(wire.get() > content.get()),
            _ => assert!(wire.get() < content.get()),
        }
    }
}

pub fn bodies_of_megabytes_go_both_ways_at_once(start: Start) {
    let origin = Origin::start(|stream, _| {
        // Echoes while it reads.
        while read_head(stream).is_some() {
            let mut to = stream.get_ref().try_clone().unwrap();
            to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n")
                .unwrap();
            let mut left = 4_000_000;
            let mut space = vec![0; 50_000];
            while left > 0 {
                let count = stream.read(&mut space).unwrap();
                to.write_all(&space[..count]).unwrap();
                left -= count;
            }
        }
    });
    // What cannot be compressed, and as many connections as there are clients.
    let mut state = 1u64;
    let body: Vec<u8> = (0..4_000_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let (front, _back) = chain(start, &[origin.address], "teleport_connections = 1");
    thread::scope(|scope| {
        for _ in 0..3 {
            let (front, body) = (&front, &body);
            scope.spawn(move || {
                let mut client = front.connect();
                for _ in 0..2 {
                    let to = client.0.get_ref().try_clone().unwrap();
                    thread::scope(|scope| {
                        scope.spawn(move || {
                            let head =
                                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n";
                            (&to).write_all(head.as_bytes()).unwrap();
                            (&to).write_all(body).unwrap();
                        });
                        assert!(client.read().content == *body);
                    });
                }
            });
        }
    });
    assert_eq!(front.count("opened"), 1);
}

pub fn a_hundred_clients_share_two_connections(start: Start) {
    let origin = says_its_path(|_| {});
    let (front, back) = chain(start, &[origin.address], "");
    thread::scope(|scope| {
        for client in 0..50 {
            let front = &front;
            scope.spawn(move || {
                let mut connection = front.connect();
                for at in 0..20 {
                    let path = format!("/{client}/{at}");
                    assert_eq!(connection.get(&path).content, path.as_bytes());
                }
            });
        }
    });
    assert!((1..=2).contains(&front.count("opened")));
    assert_eq!(back.unpacked.calls.get(), 1_000);
    assert_eq!(
        (front.count("failed_ended"), front.count("retried")),
        (0, 0)
    );
}

pub fn a_fast_call_overtakes_a_slow_one(start: Start) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = says_its_path(move |path| {
        if path == "/slow" {
            let _ = wait.lock().unwrap().recv();
        }
    });
    let (front, _back) = chain(start, &[origin.address], "teleport_connections = 1");
    let (mut slow, mut fast) = (front.connect(), front.connect());
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.asked.recv().unwrap();
    for _ in 0..10 {
        assert_eq!(fast.get("/fast").content, b"/fast");
    }
    go_on.send(()).unwrap();
    assert_eq!(slow.read().content, b"/slow");
    assert_eq!(front.count("opened"), 1);
}

pub fn a_client_that_does_not_read_stops_only_its_own_call(start: Start) {
    const LEN: usize = 32 << 20;
    let (tell, stuck) = mpsc::channel();
    let tell = Mutex::new(tell);
    let origin = Origin::start(move |stream, _| {
        while let Some(request) = read_message(stream, true) {
            let mut to = stream.get_ref();
            if !request.first_line.contains("/big") {
                to.write_all(OK.as_bytes()).unwrap();
                continue;
            }
            to.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").as_bytes())
                .unwrap();
            to.set_write_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            let block = vec![b'x'; 1 << 16];
            let mut sent = 0;
            while sent < LEN {
                match to.write(&block[..block.len().min(LEN - sent)]) {
                    Ok(count) => sent += count,
                    Err(_) => break,
                }
            }
            assert!(sent < LEN, "nobody has room for all of it");
            tell.lock().unwrap().send(()).unwrap();
            to.set_write_timeout(None).unwrap();
            to.write_all(&vec![b'x'; LEN - sent]).unwrap();
        }
    });
    let (front, _back) = chain(start, &[origin.address], "teleport_connections = 1");
    let mut slow = front.connect();
    slow.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    stuck.recv().unwrap();
    let mut other = front.connect();
    for _ in 0..20 {
        assert_eq!(other.get("/small").content, b"ok");
    }
    let response = slow.read();
    assert!(response.content.len() == LEN && response.content.iter().all(|&byte| byte == b'x'));
    assert_eq!(front.count("opened"), 1);
}

pub fn a_client_that_goes_away_takes_its_call_along(start: Start) {
    let origin = Origin::start(|stream, tell| {
        if let Some(request) = read_message(stream, true) {
            tell(request);
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (front, back) = chain(start, &[origin.address], "");
    let client = front.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.asked.recv().unwrap();
    let reset = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(client.0.get_ref(), reset).unwrap();
    drop(client);
    front.wait_for("abandoned", 1);
    back.wait_for("abandoned", 1);
    back.wait_for("calls", 0);
    assert_eq!(front.count("connections"), 1, "the connection goes on");
}

pub fn what_an_origin_did_not_take_is_sent_elsewhere_whatever_the_method(start: Start) {
    let refusing = teleport_origin(|end, call, _| {
        end.reset(call, Reason::Refused);
        Then::GoOn
    });
    let leaving = teleport_origin(|end, call, _| {
        // All that has arrived before it says so is answered.
        end.go_away();
        end.send(call, OK.as_bytes(), false, true);
        Then::GoOn
    });
    let good = Origin::answering(OK);
    let back = start(&pool_of(&[good.address], ""));
    for bad in [&refusing, &leaving] {
        let origins = [bad.address, back.teleport_address];
        let front = start(&by_teleport(&origins, "eject_failures = 1000000"));
        let mut client = front.connect();
        for _ in 0..20 {
            client.send(POST);
            assert_eq!(client.read().content, b"ok");
        }
        assert!(bad.asked.try_iter().count() > 0);
    }
}

pub fn what_an_origin_may_have_taken_is_sent_elsewhere_if_it_is_idempotent(start: Start) {
    let dying = teleport_origin(|_, _, _| Then::HangUp);
    let good = Origin::answering(OK);
    let back = start(&pool_of(&[good.address], ""));
    let origins = [dying.address, back.teleport_address];
    let more = "eject_failures = 1000000\nretries_percent = 100";
    let front = start(&by_teleport(&origins, more));
    let mut client = front.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), "200");
    }
    let retried = front.count("retried");
    assert_eq!(retried, dying.asked.try_iter().count() as u64);
    assert!(retried > 0);
    let mut refused = 0;
    for _ in 0..20 {
        client.send(POST);
        let status = client.read().status().to_owned();
        refused += u64::from(status == "502");
        assert!(status == "502" || status == "200");
    }
    assert_eq!(refused, dying.asked.try_iter().count() as u64);
    assert!(refused > 0);
    assert_eq!(front.count("retried"), retried);
}

pub fn an_origin_of_another_version_or_protocol_is_a_bad_gateway(start: Start) {
    let other_version = Origin::start(|stream, _| {
        let mut hello = [0; 20];
        stream.read_exact(&mut hello).unwrap();
        (hello[5], hello[6]) = (9, 8);
        let _ = stream.get_ref().write_all(&hello);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let http = Origin::start(|stream, _| {
        let _ = stream
            .get_ref()
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for origin in [other_version, http] {
        let front = start(&by_teleport(&[origin.address], "eject_failures = 1000000"));
        let mut client = front.connect();
        for _ in 0..2 {
            assert_eq!(client.get("/").status(), "502");
        }
        assert!(front.packed.failed_hello.get() >= 2);
    }
}

pub fn an_origin_that_vanishes_is_a_gateway_timeout_and_its_connection_is_given_up(start: Start) {
    let silent = teleport_origin(|_, _, _| Then::GoOn);
    let front = start(&by_teleport(
        &[silent.address],
        "response_timeout_ms = 50\neject_failures = 1000000",
    ));
    let mut client = front.connect();
    assert_eq!(client.get("/").status(), "504");
    // Its hello has arrived since that was asked.
    assert_eq!(front.count("connections"), 1);
    assert_eq!(client.get("/").status(), "504");
    front.wait_for("connections", 0);
    assert_eq!((front.count("failed_late"), front.count("retried")), (2, 0));
    assert_eq!(client.get("/").status(), "504");
    assert_eq!(front.count("opened"), 2);
}

pub fn garbage_and_frames_that_are_too_long_end_their_connection_only(start: Start) {
    let origin = Origin::answering(OK);
    let (front, back) = chain(start, &[origin.address], "");
    let mut client = front.connect();
    assert_eq!(client.get("/").content, b"ok");
    let hello = {
        let (listener, address) = listen();
        let _edge = start(&by_teleport(&[address], ""));
        let _client = _edge.connect();
        _client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut hello = [0; 20];
        listener.accept().unwrap().0.read_exact(&mut hello).unwrap();
        hello
    };
    let too_many: Vec<u8> = (1..=300u16)
        .flat_map(|call| [1, 0, 0, 1, 0, 0, (call >> 8) as u8, call as u8, b'G'])
        .collect();
    let blocks: [&[u8]; 6] = [
        &[0, 0, 0x80, 1],
        &[1, 0, 0, 4, 1, 2, 3, 4],
        &[0xff; 100],
        &[0, 0, 0, 9, 9, 0, 0, 1, 0, 0, 0, 1, 0],
        &[0, 0, 0, 8, 1, 0, 0xff, 0xff, 0, 0, 0, 1],
        &[&[0, 0, 0x0a, 0x8c], &too_many[..]].concat(),
    ];
    let mut failed = 0;
    for block in blocks {
        let mut stream = TcpStream::connect(back.teleport_address).unwrap();
        stream.write_all(&hello).unwrap();
        stream.write_all(block).unwrap();
        // It says hello, and that it goes away, and ends.
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert_eq!(&said[..4], &hello[..4]);
        failed += 1;
        while back.unpacked.failed_protocol.get() < failed {
            thread::yield_now();
        }
    }
    let mut stream = TcpStream::connect(back.teleport_address).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    while back.unpacked.failed_hello.get() < 1 {
        thread::yield_now();
    }
    assert_eq!(client.get("/").content, b"ok");
    assert_eq!(front.count("opened"), 1);
}

fn listen() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub fn a_check_is_a_call_like_the_others(start: Start) {
    let is_up = Arc::new(AtomicBool::new(false));
    let of_origin = Arc::clone(&is_up);
    let origin = Origin::start(move |stream, _| {
        while let Some(request) = read_message(stream, true) {
            let is_check = request.first_line.contains("/health");
            let response = match is_check && !of_origin.load(Relaxed) {
                true => "HTTP/1.1 500 Down\r\nContent-Length: 0\r\n\r\n",
                false => OK,
            };
            if stream.get_ref().write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    });
    let check = "[pool.app.check]\npath = \"/health\"\ninterval_ms = 10\ntimeout_ms = 5000";
    let (front, _back) = chain(start, &[origin.address], check);
    front.wait_for("usable", 0);
    let mut client = front.connect();
    assert_eq!(client.get("/").status(), "503");
    is_up.store(true, Relaxed);
    front.wait_for("usable", 1);
    assert_eq!(client.get("/").content, b"ok");
    assert!(front.count("opened") <= 2);
}

pub fn drain_finishes_the_calls_in_progress(start: Start) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let origin = says_its_path(move |_| {
        let _ = wait.lock().unwrap().recv();
    });
    let (front, mut back) = chain(start, &[origin.address], "");
    let mut client = front.connect();
    client.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.asked.recv().unwrap();
    back.drain();
    front.wait_for("connections", 1);
    go_on.send(()).unwrap();
    assert_eq!(client.read().content, b"/last");
    back.join();
    front.wait_for("connections", 0);
    // Nobody is there any more.
    assert_eq!(client.get("/").status(), "502");
}
