//! The responder allocates nothing once it exists: every case of the conformance table, whole, in pieces
//! and timed out, costs not one allocation.

mod site;

use allocation_counter::measure;
use barewire_conformance::cases;
use barewire_http::{Connection, Limits};
use barewire_service::service::{Input, Next, Reply, Service};

#[test]
fn the_counter_counts() {
    let allocated = measure(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!(allocated.count_total, 1);
}

#[test]
fn no_request_allocates_whatever_it_is() {
    let (mut responder, _) = site::responder(Limits::default());
    let mut space = vec![0; 32 * 1024];
    let mut requests: Vec<_> = cases().into_iter().map(|case| case.requests).collect();
    for (body, length) in [
        (r#"{"userId":"\u0061","value":1e3}"#, 31),
        ("[]", 2),
        (r#"{"userId":1}"#, 12),
    ] {
        let event =
            format!("POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
        requests.push((event + "GET /stats HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes());
    }
    requests.push(b"GET /test/stream?bytes=100000 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());

    let mut replies = 0;
    let allocated = measure(|| {
        for requests in &requests {
            for segment_bytes in [usize::MAX, 100, 1] {
                responder.on_clock(replies as u64);
                let mut connection = Connection::default();
                let (mut from, mut to) = (0, 0);
                'connection: while to < requests.len() {
                    to = requests
                        .len()
                        .min(to.saturating_add(segment_bytes))
                        .min(from + 24 * 1024);
                    loop {
                        let input = Input {
                            bytes: &requests[from..to],
                            full: to - from == 24 * 1024,
                            ended: to == requests.len(),
                        };
                        let mut reply = Reply::new(&mut space);
                        let progress = responder.on_input(&mut connection, input, &mut reply);
                        replies += reply.len();
                        from += progress.consumed;
                        match progress.next {
                            Next::Receive(_) | Next::Wait => break,
                            Next::Send => {}
                            Next::Close | Next::Abort => break 'connection,
                        }
                    }
                }
                let mut reply = Reply::new(&mut space);
                responder.on_timeout(&mut connection, &mut reply);
                replies += reply.len();
            }
        }
    });
    assert_eq!(allocated.count_total, 0);
    assert!(replies > 100_000, "{replies} bytes of replies");
}

#[test]
fn no_request_for_a_file_in_memory_allocates() {
    use barewire_http::files::{Directory, DirectoryConfig};
    use barewire_http::{Answer, Request, Responder, Response, Route, Routes};

    const ROUTES: &[Route<Directory>] = &[Route::new("/{*path}").get(file)];

    fn file(files: &mut Directory, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
        files.answer(request, request.param("path").unwrap_or(""), response)
    }

    let directory = tempfile::tempdir().expect("there is room for a file");
    std::fs::write(directory.path().join("a b"), [b'x'; 50_000]).expect("there is room for a file");
    let files = Directory::open(directory.path(), DirectoryConfig::default());
    let routes = Routes::new(ROUTES).expect("the table is consistent");
    let mut responder = Responder::new(&routes, files.expect("it is a directory"));
    let mut space = vec![0; 4096];
    // Once a second a request looks whether the file has changed: the round of that request may allocate.
    let rounds = (0..10).map(|_| {
        let allocated = measure(|| {
            for fields in [
                "",
                "Range: bytes=1000-\r\n",
                "If-None-Match: \"other\"\r\n",
                "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                "Range: bytes=50000-\r\n",
            ] {
                let mut request = [0; 256];
                let mut rest = &mut request[..];
                let written = std::io::Write::write_fmt(
                    &mut rest,
                    format_args!("GET /a%20b HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
                );
                assert!(written.is_ok());
                let len = 256 - rest.len();
                let mut connection = Connection::default();
                let mut bytes = &request[..len];
                loop {
                    let input = Input {
                        bytes,
                        full: false,
                        ended: false,
                    };
                    let mut reply = Reply::new(&mut space);
                    let progress = responder.on_input(&mut connection, input, &mut reply);
                    bytes = &bytes[progress.consumed..];
                    if progress.next != Next::Send {
                        break;
                    }
                }
            }
        });
        allocated.count_total
    });
    let rounds: Vec<_> = rounds.collect();
    assert!(rounds[0] > 0, "the first request reads the file");
    assert!(
        rounds.iter().filter(|count| **count == 0).count() >= 8,
        "{rounds:?}"
    );
}

/// Requests without a body and with one that is there at once or in pieces, and a response that waits for a
/// window: once each was seen, none of them allocates again.
#[test]
fn no_request_of_http2_allocates() {
    use barewire_conformance::http2::{
        PREFACE, data, flag, get, headers, request, settings, window_update,
    };

    let (mut responder, _) = site::responder(Limits::default());
    let mut space = vec![0; 32 * 1024];
    let round = |round: u32| {
        let stream = |number: u32| 2 * (8 * round + number) + 1;
        let post = headers(stream(4), 0, &request("POST", "/test/body"));
        let end = flag::END_STREAM;
        [
            get(stream(0), "/plaintext"),
            get(stream(1), "/json"),
            get(stream(2), "/nothing"),
            headers(stream(3), 0, &request("POST", "/event")),
            data(stream(3), end, br#"{"userId":"a","value":1}"#),
            post,
            data(stream(4), 0, b"abc"),
            data(stream(4), end, b"def"),
            get(stream(5), "/test/stream?bytes=100000"),
            window_update(stream(5), 50_000),
            window_update(0, 200_000),
        ]
        .concat()
    };
    let rounds: Vec<_> = (0..20).map(round).collect();
    let mut connection = Connection::default();
    let mut replies = 0;
    let mut serve = |bytes: &[u8]| {
        let mut from = 0;
        loop {
            let input = Input {
                bytes: &bytes[from..],
                full: false,
                ended: false,
            };
            let mut reply = Reply::new(&mut space);
            let progress = responder.on_input(&mut connection, input, &mut reply);
            replies += reply.len();
            from += progress.consumed;
            match progress.next {
                Next::Send => {}
                Next::Receive(_) => return,
                next => panic!("{next:?}"),
            }
        }
    };
    serve(&[&PREFACE[..], &settings(&[])].concat());
    serve(&rounds[0]);
    let allocated = measure(|| rounds[1..].iter().for_each(|round| serve(round)));
    assert_eq!(allocated.count_total, 0);
    assert!(replies > 20 * 100_000, "{replies} bytes of replies");
}
