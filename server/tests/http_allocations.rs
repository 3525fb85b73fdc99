//! The responder allocates nothing once it exists: every case of the conformance table, whole, in pieces
//! and timed out, costs not one allocation. The same holds for HTTP/2, and for both in TLS.

mod site;

use std::fs;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use allocation_counter::measure;
use barewire::site::SiteResponder;
use barewire_conformance::cases;
use barewire_conformance::http2::{
    PREFACE, data, flag, get, headers, request, settings, window_update,
};
use barewire_http::{Connection, Limits};
use barewire_service::service::{Arrival, Input, Next, Reply, Service};
use barewire_tls::{Identity, IdentityConfig, Tls, TlsLimits};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

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
    let (mut responder, _) = site::responder(Limits::default());
    let mut connection = Connection::default();
    let mut replies = Vec::with_capacity(REPLIES_BYTES_MAX);
    let mut serve = |bytes: &[u8]| exchange(&mut responder, &mut connection, bytes, &mut replies);
    serve(&http2_greeting());
    serve(&http2_round(0));
    let rounds: Vec<_> = (1..ROUNDS).map(http2_round).collect();
    let allocated = measure(|| rounds.iter().for_each(|round| serve(round)));
    assert_eq!(allocated.count_total, 0);
    assert!(
        replies.len() > 20 * 100_000,
        "{} bytes of replies",
        replies.len()
    );
}

/// The same in TLS: what a handshake takes is all that a connection allocates. What AWS-LC allocates in C is not counted.
#[test]
fn no_request_in_tls_allocates() {
    let secure = Secure::new();
    for version in rustls::ALL_VERSIONS {
        for (protocol, greeting, round) in [
            ("http/1.1", Vec::new(), http1_round as fn(u32) -> Vec<u8>),
            ("h2", http2_greeting(), http2_round),
        ] {
            let (mut tls, mut connection, mut client) = secure.shake_hands(version, protocol);
            let mut sealed = |text: &[u8]| {
                client.writer().write_all(text).expect("it has room");
                said(&mut client)
            };
            let first = sealed(&[greeting, round(0)].concat());
            let rounds: Vec<_> = (1..ROUNDS).map(|number| sealed(&round(number))).collect();
            let mut records = Vec::with_capacity(REPLIES_BYTES_MAX);
            exchange(&mut tls, &mut connection, &first, &mut records);
            let allocated = measure(|| {
                for round in &rounds {
                    // Half a record waits for its rest.
                    let (front, back) = round.split_at(round.len() / 2);
                    exchange(&mut tls, &mut connection, front, &mut records);
                    exchange(&mut tls, &mut connection, back, &mut records);
                }
            });
            assert_eq!(allocated.count_total, 0, "{version:?} {protocol}");
            let replies = heard(&mut client, &records);
            let hellos = replies.windows(13).filter(|text| text == b"Hello, World!");
            // `/plaintext` and `/json`
            assert_eq!(
                hellos.count(),
                2 * ROUNDS as usize,
                "{version:?} {protocol}"
            );
            assert!(replies.len() > 20 * 100_000, "{version:?} {protocol}");
        }
    }
}

const ROUNDS: u32 = 20;
const REPLIES_BYTES_MAX: usize = 4 << 20;

fn http1_round(_: u32) -> Vec<u8> {
    [
        "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /json HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: 24\r\n\r\n{\"userId\":\"a\",\"value\":1}",
        "POST /test/body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
        "GET /test/stream?bytes=100000 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .concat()
    .into_bytes()
}

fn http2_greeting() -> Vec<u8> {
    [&PREFACE[..], &settings(&[])].concat()
}

fn http2_round(round: u32) -> Vec<u8> {
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
}

/// Shows `service` all of `bytes`, and keeps its replies until it waits for more.
fn exchange<S: Service>(
    service: &mut S,
    connection: &mut S::Connection,
    mut bytes: &[u8],
    replies: &mut Vec<u8>,
) {
    loop {
        let input = Input {
            bytes,
            full: false,
            ended: false,
        };
        let mut space = [0; 32 * 1024];
        let mut reply = Reply::new(&mut space);
        let progress = service.on_input(connection, input, &mut reply);
        let has_room = replies.capacity() - replies.len() >= reply.len();
        assert!(has_room, "the replies are longer than was thought");
        replies.extend_from_slice(reply.written());
        bytes = &bytes[progress.consumed..];
        match progress.next {
            Next::Send => {}
            Next::Receive(_) => return,
            next => panic!("{next:?}"),
        }
    }
}

type SecureResponder = Tls<SiteResponder>;

/// An identity, and a file with the certificate that clients trust.
struct Secure {
    identity: Arc<Identity>,
    roots: Arc<RootCertStore>,
}

impl Secure {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is room for files");
        let (certificate, key) = (
            directory.path().join("a.pem"),
            directory.path().join("a.key"),
        );
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("a certificate can be made");
        fs::write(&certificate, made.cert.pem()).expect("there is room for files");
        fs::write(&key, made.signing_key.serialize_pem()).expect("there is room for files");
        let identity = Identity::load(IdentityConfig {
            pairs: vec![(certificate, key)],
            protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            client_authorities: None,
        });
        let mut roots = RootCertStore::empty();
        let added = roots.add(made.cert.der().clone());
        added.expect("it is a certificate");
        Secure {
            identity: identity.expect("it is an identity"),
            roots: Arc::new(roots),
        }
    }

    /// A connection of this version of TLS whose ends have agreed on `protocol`.
    fn shake_hands(
        &self,
        version: &'static SupportedProtocolVersion,
        protocol: &str,
    ) -> (
        SecureResponder,
        <SecureResponder as Service>::Connection,
        ClientConnection,
    ) {
        let mut config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let host = "localhost".try_into().expect("it is a name");
        let mut client = ClientConnection::new(config.into(), host).expect("it can be configured");
        client.set_buffer_limit(None);
        let limits = TlsLimits {
            connections: 1,
            ..TlsLimits::default()
        };
        let (responder, _) = site::responder(Limits::default());
        let mut tls = Tls::new(responder, 0, &self.identity, limits, Arc::default());
        let (mut connection, _) = tls.on_accept(Arrival::default());
        while client.is_handshaking() || client.wants_write() {
            let mut records = Vec::with_capacity(REPLIES_BYTES_MAX);
            exchange(&mut tls, &mut connection, &said(&mut client), &mut records);
            heard(&mut client, &records);
        }
        (tls, connection, client)
    }
}

/// The records that a client has to send.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while client.wants_write() {
        let written = client.write_tls(&mut records);
        written.expect("a vector takes everything");
    }
    records
}

/// The plain text of the records that a client gets.
fn heard(client: &mut ClientConnection, mut records: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while !records.is_empty() {
        let read = client.read_tls(&mut records);
        read.expect("there is something to read");
        client.process_new_packets().expect("these are records");
        // Without an end of the stream, it would block behind what there is.
        let _ = client.reader().read_to_end(&mut text);
    }
    text
}
