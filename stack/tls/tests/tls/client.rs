//! Our side that calls with our side that serves: both record layers are ours, both handshakes rustls's.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use barewire_tls::{
    ClientConnection, ClientIdentity, Identity, IdentityConfig, Shaken, TlsClient, Trust,
};
use rustls::AlertDescription;

use crate::harness::{Ended, Files, Served, config, identity};

/// Says lines one after the other, each when the one before is answered.
struct Asker {
    lines: Vec<&'static str>,
    heard: String,
}

impl Service for Asker {
    type Connection = usize;
    const REPLY_BYTES_MIN: usize = 64;

    fn on_input(&mut self, said: &mut usize, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        self.heard += std::str::from_utf8(input.bytes).unwrap();
        let answered = self.heard.matches('\n').count();
        let next = if *said > answered {
            Next::Receive(Expect::Head)
        } else if let Some(line) = self.lines.get(*said) {
            assert!(reply.put(line.as_bytes()));
            *said += 1;
            Next::Receive(Expect::Head)
        } else {
            Next::Close
        };
        Progress {
            consumed: input.bytes.len(),
            messages: 0,
            next,
        }
    }
}

/// A client and where its conversation is.
struct Calling {
    tls: TlsClient,
    connection: ClientConnection,
    shaken: Shaken,
    asker: Asker,
    said: usize,
    next: Next,
    out: Vec<u8>,
}

impl Calling {
    fn new(identity: ClientIdentity, lines: &[&'static str]) -> Self {
        Calling {
            tls: TlsClient::new(1, 4096),
            connection: ClientConnection::new(&identity),
            shaken: Shaken::Receive,
            asker: Asker {
                lines: lines.to_vec(),
                heard: String::new(),
            },
            said: 0,
            next: Next::Receive(Expect::Handshake),
            out: Vec::new(),
        }
    }

    /// What a transport does with bytes that have arrived.
    fn receive(&mut self, mut bytes: &[u8]) {
        let mut space = [0; 4096];
        let input = |bytes| Input {
            bytes,
            full: false,
            ended: false,
        };
        while matches!(self.shaken, Shaken::Receive | Shaken::Send) {
            let mut reply = Reply::new(&mut space);
            let (connection, tls) = (&mut self.connection, &mut self.tls);
            let (consumed, shaken) = tls.shake_hands(connection, input(bytes), &mut reply);
            self.out.extend_from_slice(reply.written());
            bytes = &bytes[consumed..];
            self.shaken = shaken;
            if self.shaken == Shaken::Receive {
                assert!(bytes.is_empty());
                return;
            }
        }
        if !matches!(self.shaken, Shaken::Complete(_)) {
            return;
        }
        loop {
            let mut reply = Reply::new(&mut space);
            let service = (&mut self.asker, &mut self.said);
            let progress =
                (self.tls).on_input(&mut self.connection, service, input(bytes), &mut reply);
            self.out.extend_from_slice(reply.written());
            bytes = &bytes[progress.consumed..];
            self.next = progress.next;
            if self.next != Next::Send {
                return;
            }
        }
    }

    /// Lets both talk, in pieces of `cut` bytes, until nobody has anything to say.
    fn talk(&mut self, served: &mut Served, cut: usize) {
        self.receive(b"");
        while !self.out.is_empty() || !served.out.is_empty() {
            for piece in std::mem::take(&mut self.out).chunks(cut) {
                served.receive(piece);
            }
            for piece in std::mem::take(&mut served.out).chunks(cut) {
                self.receive(piece);
            }
        }
    }
}

#[test]
fn what_is_said_is_answered_however_it_is_cut() {
    let files = Files::new("client_cut");
    let pair = files.pair("a", &["localhost"]);
    let identity = identity(std::slice::from_ref(&pair));
    let trust = Trust::Authorities(pair.0);
    for cut in (1..200).step_by(7).chain([usize::MAX]) {
        let client = ClientIdentity::new("localhost", &trust, &[b"h2"]).unwrap();
        let mut calling = Calling::new(client, &["first\n", "second\n"]);
        let mut served = Served::new(&identity);
        calling.talk(&mut served, cut);
        assert_eq!(calling.asker.heard, "FIRST\nSECOND\n");
        assert_eq!(
            (calling.next, served.ended),
            (Next::Close, Some(Ended::Closed))
        );
        // It has said that it goes.
        assert_eq!(served.counters.truncated.get(), 0);
        assert_eq!(served.counters.handshakes_tls13.get(), 1);
    }
}

/// A blocking stream to a server.
struct Stream(Served);

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let count = self.0.out.len().min(space.len());
        for (to, from) in space.iter_mut().zip(self.0.out.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.receive(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blocking_stream_ends_with_close_notify() {
    let files = Files::new("client_blocking");
    let pair = files.pair("a", &["localhost"]);
    let mut server = Stream(Served::new(&identity(std::slice::from_ref(&pair))));
    let client = ClientIdentity::new("localhost", &Trust::Authorities(pair.0), &[]).unwrap();
    let mut stream = client.around(&mut server).unwrap();
    stream.write_all(b"hello\n").unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HELLO\n");
    drop(stream);
    assert_eq!(server.0.ended, Some(Ended::Closed));
    assert_eq!(server.0.counters.truncated.get(), 0);
}

#[test]
fn who_is_not_trusted_is_not_spoken_to_unless_nobody_cares() {
    let files = Files::new("client_trust");
    let (pair, other) = (
        files.pair("a", &["localhost"]),
        files.pair("b", &["localhost"]),
    );
    let identity = identity(std::slice::from_ref(&pair));
    let call = |name: &str, trust: &Trust| {
        let client = ClientIdentity::new(name, trust, &[]).unwrap();
        let mut calling = Calling::new(client, &["line\n"]);
        calling.talk(&mut Served::new(&identity), usize::MAX);
        (calling.shaken, calling.asker.heard)
    };
    for (name, trust) in [
        ("localhost", Trust::Authorities(other.0)),
        ("example.com", Trust::Authorities(pair.0.clone())),
    ] {
        let (shaken, heard) = call(name, &trust);
        assert!(
            matches!(shaken, Shaken::Failed(rustls::Error::InvalidCertificate(_))),
            "{shaken:?}"
        );
        assert_eq!(heard, "");
    }
    for (name, trust) in [
        ("localhost", Trust::Authorities(pair.0)),
        ("example.com", Trust::Anybody),
    ] {
        assert_eq!(
            call(name, &trust),
            (Shaken::Complete(None), "LINE\n".to_owned())
        );
    }
}

#[test]
fn authorities_and_names_that_are_none_are_refused() {
    let files = Files::new("client_refused");
    let empty = files.write("empty.pem", "nothing\n");
    let refused = |name: &str, trust: &Trust| ClientIdentity::new(name, trust, &[]).unwrap_err();
    let missing = Trust::Authorities(files.path("missing.pem"));
    for (error, part) in [
        (refused("a b", &Trust::Anybody), "\"a b\" is no name"),
        (refused("a", &missing), "missing.pem"),
        (refused("a", &Trust::Authorities(empty)), "empty.pem"),
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_client_shows_its_certificate_and_hears_why_it_is_refused() {
    let files = Files::new("client_certificate");
    let server = files.pair("server", &["localhost"]);
    let (member, stranger) = (
        files.pair("member", &["edge"]),
        files.pair("stranger", &["edge"]),
    );
    let identity = Identity::load(IdentityConfig {
        client_authorities: Some(member.0.clone()),
        ..config(std::slice::from_ref(&server))
    })
    .unwrap();
    let trust = Trust::Authorities(server.0);
    let call = |pair: Option<&(PathBuf, PathBuf)>| {
        let client = match pair {
            None => ClientIdentity::new("localhost", &trust, &[]),
            Some((certificate, key)) => {
                ClientIdentity::with_certificate("localhost", &trust, (certificate, key), &[])
            }
        };
        let mut calling = Calling::new(client.unwrap(), &["line\n"]);
        calling.talk(&mut Served::new(&identity), usize::MAX);
        (calling.asker.heard, calling.connection.alert())
    };
    assert_eq!(call(Some(&member)), ("LINE\n".to_owned(), None));
    let required = AlertDescription::CertificateRequired;
    assert_eq!(call(None), (String::new(), Some(required)));
    let (heard, alert) = call(Some(&stranger));
    assert!(heard.is_empty() && alert.is_some(), "{alert:?}");

    let mixed = (&*member.0, &*stranger.1);
    let refused = ClientIdentity::with_certificate("localhost", &trust, mixed, &[]).unwrap_err();
    assert!(refused.to_string().contains("does not belong"), "{refused}");
}

#[test]
fn a_stream_that_ends_without_close_notify_is_reset_and_not_taken_for_its_end() {
    let files = Files::new("client_truncated");
    let pair = files.pair("a", &["localhost"]);
    let mut served = Served::new(&identity(std::slice::from_ref(&pair)));
    let client = ClientIdentity::new("localhost", &Trust::Authorities(pair.0), &[]).unwrap();
    let mut calling = Calling::new(client, &["line\n"]);
    calling.receive(b"");
    while !matches!(calling.shaken, Shaken::Complete(_)) {
        served.receive(&std::mem::take(&mut calling.out));
        calling.receive(&std::mem::take(&mut served.out));
    }
    let mut space = [0; 4096];
    let ended = Input {
        bytes: b"",
        full: false,
        ended: true,
    };
    let service = (&mut calling.asker, &mut calling.said);
    let mut reply = Reply::new(&mut space);
    let progress = (calling.tls).on_input(&mut calling.connection, service, ended, &mut reply);
    assert_eq!(progress.next, Next::Abort);
}
