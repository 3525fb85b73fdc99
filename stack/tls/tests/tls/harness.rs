//! A server and a client with a stack between them that does no more than the contract of `Service` says.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barewire_service::service::{Arrival, Expect, Input, Next, Progress, Reply, Service};
use barewire_tls::{Connection, Identity, IdentityConfig, Tls, TlsCounters, TlsLimits};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

/// Upper-cases lines. `big N` is answered with N bytes, `bye` ends the connection after its answer, `abort` at once.
#[derive(Default)]
pub struct Lines {
    pub drained: bool,
}

/// The state of a connection of [`Lines`].
#[derive(Default)]
pub struct LinesConnection {
    /// Bytes of a big answer that are left.
    left: usize,
    is_over: bool,
    /// What ALPN said.
    alpn: Option<Vec<u8>>,
    is_secure: bool,
}

/// Shorter than a line is refused by closing.
pub const LINE_BYTES_MAX: usize = 40 * 1024;

impl Service for Lines {
    type Connection = LinesConnection;
    const REPLY_BYTES_MIN: usize = 64;

    fn on_accept(&mut self, arrival: Arrival<'_>) -> (LinesConnection, Expect) {
        let alpn = arrival.tls.and_then(|agreed| agreed.alpn);
        let connection = LinesConnection {
            alpn: alpn.map(<[u8]>::to_vec),
            is_secure: arrival.tls.is_some(),
            ..LinesConnection::default()
        };
        (connection, Expect::Message)
    }

    fn on_input(
        &mut self,
        connection: &mut LinesConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let (mut consumed, mut messages) = (0, 0);
        let next = loop {
            if connection.left > 0 {
                let count = connection.left.min(reply.remaining());
                for byte in &mut reply.spare()[..count] {
                    *byte = b'x';
                }
                reply.advance(count);
                connection.left -= count;
                if connection.left > 0 {
                    break Next::Send;
                }
            }
            if connection.is_over {
                break Next::Close;
            }
            let rest = &input.bytes[consumed..];
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                break match rest {
                    [] => Next::Receive(Expect::Message),
                    _ if input.full => Next::Close,
                    _ => Next::Receive(Expect::Head),
                };
            };
            let line = std::str::from_utf8(&rest[..end]).unwrap_or("?");
            if line == "abort" {
                break Next::Abort;
            }
            let answer = match line.split_once(' ') {
                Some(("big", len)) => {
                    connection.left = len.parse().unwrap_or(0);
                    String::new()
                }
                _ if line == "alpn" => format!(
                    "{} {}\n",
                    connection.is_secure,
                    String::from_utf8_lossy(connection.alpn.as_deref().unwrap_or(b"-"))
                ),
                _ => line.to_ascii_uppercase() + "\n",
            };
            // An answer of any length goes out in pieces, as a big one does.
            if answer.len() > reply.remaining() {
                if !reply.is_empty() {
                    break Next::Send;
                }
                connection.left = answer.len() - reply.remaining();
                assert!(reply.remaining() >= Self::REPLY_BYTES_MIN);
                let fits = reply.remaining();
                assert!(reply.put(&answer.as_bytes()[..fits]));
            } else {
                assert!(reply.put(answer.as_bytes()));
            }
            connection.is_over = line == "bye";
            consumed += end + 1;
            messages += 1;
        };
        Progress {
            consumed,
            messages,
            next,
        }
    }

    fn on_timeout(&mut self, _: &mut LinesConnection, reply: &mut Reply<'_>) {
        assert!(reply.put(b"late\n"));
    }

    fn on_drain(&mut self) {
        self.drained = true;
    }
}

/// A directory with the files of a test, removed at its end.
pub struct Files(PathBuf);

impl Files {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("barewire-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Files(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A certificate for `names` with its key, written to `name.pem` and `name.key`.
    pub fn pair(&self, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        self.pair_of(name, names, &KeyPair::generate().unwrap(), |_| {})
    }

    pub fn rsa_pair(&self, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key =
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        self.pair_of(name, names, &key, |_| {})
    }

    pub fn pair_of(
        &self,
        name: &str,
        names: &[&str],
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.self_signed(key).unwrap();
        (
            self.write(&format!("{name}.pem"), &certificate.pem()),
            self.write(&format!("{name}.key"), &key.serialize_pem()),
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The identity of `pairs`, without client certificates.
pub fn identity(pairs: &[(PathBuf, PathBuf)]) -> Arc<Identity> {
    Identity::load(config(pairs)).unwrap()
}

pub fn config(pairs: &[(PathBuf, PathBuf)]) -> IdentityConfig {
    IdentityConfig {
        pairs: pairs.to_vec(),
        protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        client_authorities: None,
    }
}

/// One version only.
pub const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
pub const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// What a client trusts and offers.
pub struct ClientSetup {
    pub trusts: PathBuf,
    pub versions: &'static [&'static SupportedProtocolVersion],
    pub suites: Option<rustls::CipherSuite>,
    pub protocols: Vec<Vec<u8>>,
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl ClientSetup {
    pub fn trusting(certificate: &Path) -> Self {
        ClientSetup {
            trusts: certificate.to_owned(),
            versions: rustls::ALL_VERSIONS,
            suites: None,
            protocols: Vec::new(),
            certificate: None,
        }
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Some(only) = self.suites {
            provider.cipher_suites.retain(|suite| suite.suite() == only);
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.trusts).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(certificate).unwrap()],
                    PrivateKeyDer::from_pem_file(key).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = self.protocols.clone();
        Arc::new(config)
    }
}

/// Clients of each version that trust `certificate`.
pub fn of_each_version(certificate: &Path) -> [ClientSetup; 2] {
    [TLS13, TLS12].map(|versions| ClientSetup {
        versions,
        ..ClientSetup::trusting(certificate)
    })
}

/// A client that wants to talk to `host`.
pub fn client(config: &Arc<ClientConfig>, host: &str) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), host.to_owned().try_into().unwrap()).unwrap()
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Closed,
    Aborted,
}

/// One connection of a server, with the stack under it.
pub struct Served {
    pub tls: Tls<Lines>,
    pub counters: Arc<TlsCounters>,
    pub connection: Connection<LinesConnection>,
    kept: Vec<u8>,
    receive_bytes: usize,
    space: Vec<u8>,
    pub out: Vec<u8>,
    pub next: Next,
    pub ended: Option<Ended>,
    pub messages: u32,
}

impl Served {
    pub fn new(identity: &Arc<Identity>) -> Self {
        Served::with(identity, limits(), 4096, 1024)
    }

    /// A stack with buffers of this size.
    pub fn with(
        identity: &Arc<Identity>,
        limits: TlsLimits,
        receive_bytes: usize,
        reply_bytes: usize,
    ) -> Self {
        let counters = Arc::new(TlsCounters::default());
        let mut tls = Tls::new(Lines::default(), 1, identity, limits, Arc::clone(&counters));
        assert!(reply_bytes >= Tls::<Lines>::REPLY_BYTES_MIN);
        let connection = accept(&mut tls);
        Served {
            tls,
            counters,
            connection,
            kept: Vec::new(),
            receive_bytes,
            space: vec![0; reply_bytes],
            out: Vec::new(),
            next: Next::Receive(Expect::Handshake),
            ended: None,
            messages: 0,
        }
    }

    /// The next connection of the same core.
    pub fn accept(&mut self) {
        self.connection = accept(&mut self.tls);
        self.kept.clear();
        self.out.clear();
        self.next = Next::Receive(Expect::Handshake);
        self.ended = None;
    }

    /// All of `bytes` arrive, as fast as there is room for them.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        loop {
            let room = (self.receive_bytes - self.kept.len()).min(bytes.len());
            let (fits, rest) = bytes.split_at(room);
            self.kept.extend_from_slice(fits);
            bytes = rest;
            self.call(false);
            if bytes.is_empty() || self.ended.is_some() {
                return;
            }
            assert!(self.kept.len() < self.receive_bytes, "it would hang");
        }
    }

    /// The same, cut into parts of at most this length.
    pub fn receive_in_parts(&mut self, bytes: &[u8], part_bytes: usize) {
        for part in bytes.chunks(part_bytes) {
            self.receive(part);
        }
    }

    /// The peer ends its stream.
    pub fn end(&mut self) {
        self.call(true);
    }

    pub fn time_out(&mut self) {
        let mut reply = Reply::new(&mut self.space);
        self.tls.on_timeout(&mut self.connection, &mut reply);
        self.out.extend_from_slice(reply.written());
        self.ended = Some(Ended::Closed);
    }

    fn call(&mut self, ended: bool) {
        while self.ended.is_none() {
            let mut reply = Reply::new(&mut self.space);
            let input = Input {
                bytes: &self.kept,
                full: self.kept.len() == self.receive_bytes,
                ended,
            };
            let progress = self.tls.on_input(&mut self.connection, input, &mut reply);
            let is_progress = progress.consumed > 0 || !reply.is_empty();
            self.out.extend_from_slice(reply.written());
            self.kept.drain(..progress.consumed);
            self.messages += progress.messages;
            self.next = progress.next;
            match progress.next {
                Next::Close => self.ended = Some(Ended::Closed),
                Next::Abort => self.ended = Some(Ended::Aborted),
                Next::Send => assert!(is_progress, "a stack would reset this"),
                Next::Receive(_) if ended => self.ended = Some(Ended::Closed),
                Next::Receive(_) | Next::Wait => return,
            }
        }
    }
}

pub fn limits() -> TlsLimits {
    TlsLimits {
        connections: 16,
        input_bytes: LINE_BYTES_MAX,
        ..TlsLimits::default()
    }
}

fn accept(tls: &mut Tls<Lines>) -> Connection<LinesConnection> {
    let arrival = Arrival {
        listener: 1,
        ..Arrival::default()
    };
    let (connection, expect) = tls.on_accept(arrival);
    assert_eq!(expect, Expect::Handshake);
    connection
}

/// What the client has to say now.
pub fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Gives the client what the server has sent, and returns the plain text that was in it.
pub fn hear(client: &mut ClientConnection, bytes: &mut Vec<u8>) -> Result<Vec<u8>, rustls::Error> {
    let mut left = &bytes[..];
    let mut text = Vec::new();
    while !left.is_empty() {
        client.read_tls(&mut left).unwrap();
        client.process_new_packets()?;
        let _ = client.reader().read_to_end(&mut text);
    }
    bytes.clear();
    Ok(text)
}

/// Lets both talk until nobody has anything to say; returns what the client has read.
pub fn talk(client: &mut ClientConnection, served: &mut Served) -> Result<Vec<u8>, rustls::Error> {
    let mut text = Vec::new();
    loop {
        let bytes = said(client);
        if bytes.is_empty() && served.out.is_empty() {
            return Ok(text);
        }
        served.receive(&bytes);
        text.extend(hear(client, &mut served.out)?);
    }
}

/// Sends `text` and returns what comes back.
pub fn ask(client: &mut ClientConnection, served: &mut Served, text: &str) -> String {
    client.writer().write_all(text.as_bytes()).unwrap();
    String::from_utf8(talk(client, served).unwrap()).unwrap()
}
