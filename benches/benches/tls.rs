//! What TLS costs in memory: a pair of records, a handshake.
//!
//! `tls/pair of records` is a request of 150 B opened, given to a service, answered with 150 B and sealed; the client's
//! records are made beforehand. `tls/handshake` is the server's side alone; the client's is timed and left out.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use barewire_service::service::{Arrival, Expect, Input, Next, Progress, Reply, Service};
use barewire_tls::{Connection, Identity, IdentityConfig, Tls, TlsLimits};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CipherSuite, ClientConfig, ClientConnection, NamedGroup, RootCertStore};

const MESSAGE_BYTES: usize = 150;

/// Answers each message with as many bytes.
struct Echo;

impl Service for Echo {
    type Connection = ();
    const REPLY_BYTES_MIN: usize = 1024;

    #[inline]
    fn on_input(&mut self, (): &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let consumed = input.bytes.len().min(reply.remaining());
        assert!(reply.put(&input.bytes[..consumed]));
        Progress {
            consumed,
            messages: 1,
            next: Next::Receive(Expect::Message),
        }
    }
}

/// A server's core, and what its clients trust.
struct World {
    tls: Tls<Echo>,
    roots: Arc<RootCertStore>,
    space: Vec<u8>,
    out: Vec<u8>,
}

impl World {
    fn new(is_rsa: bool) -> Self {
        let directory = std::env::temp_dir().join(format!("barewire-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let key = match is_rsa {
            false => rcgen::KeyPair::generate(),
            true => {
                rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            }
        };
        let key = key.unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let (certificate, key_file) = (directory.join("a.pem"), directory.join("a.key"));
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let identity = Identity::load(IdentityConfig {
            pairs: vec![(certificate.clone(), key_file)],
            protocols: vec![b"http/1.1".to_vec()],
            client_authorities: None,
        })
        .unwrap();
        let mut roots = RootCertStore::empty();
        let trusted = CertificateDer::from_pem_file(&certificate).unwrap();
        roots.add(trusted).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let limits = TlsLimits {
            handshakes_per_second: u32::MAX,
            ..TlsLimits::default()
        };
        World {
            tls: Tls::new(Echo, 0, &identity, limits, Arc::default()),
            roots: Arc::new(roots),
            space: vec![0; 64 * 1024],
            out: Vec::with_capacity(64 * 1024),
        }
    }

    fn client_config(
        &self,
        suite: CipherSuite,
        group: NamedGroup,
        resumes: bool,
    ) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .retain(|offered| offered.suite() == suite);
        provider.kx_groups.retain(|offered| offered.name() == group);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        if !resumes {
            config.resumption = rustls::client::Resumption::disabled();
        }
        Arc::new(config)
    }

    /// Shows the server `bytes`, and keeps what it writes.
    fn serve(&mut self, connection: &mut Connection<()>, bytes: &[u8]) {
        let mut consumed = 0;
        while consumed < bytes.len() {
            let mut reply = Reply::new(&mut self.space);
            let input = Input {
                bytes: &bytes[consumed..],
                full: false,
                ended: false,
            };
            let progress = self.tls.on_input(connection, input, &mut reply);
            consumed += progress.consumed;
            self.out.extend_from_slice(reply.written());
        }
    }

    /// A whole handshake: how long the server worked on it.
    fn shake_hands(
        &mut self,
        config: &Arc<ClientConfig>,
    ) -> (Connection<()>, ClientConnection, Duration) {
        let host = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::clone(config), host).unwrap();
        let begun = Instant::now();
        let (mut connection, _) = self.tls.on_accept(Arrival::default());
        let mut worked = begun.elapsed();
        while client.wants_write() || client.is_handshaking() {
            let bytes = said(&mut client);
            let begun = Instant::now();
            self.serve(&mut connection, &bytes);
            worked += begun.elapsed();
            self.hear(&mut client);
        }
        (connection, client, worked)
    }

    fn hear(&mut self, client: &mut ClientConnection) {
        let mut left = &self.out[..];
        while !left.is_empty() {
            client.read_tls(&mut left).unwrap();
            client.process_new_packets().unwrap();
            let _ = client.reader().read_to_end(&mut Vec::new());
        }
        self.out.clear();
    }
}

fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn records(c: &mut Criterion) {
    /// Records that are made at once.
    const BATCH: u64 = 256;

    let mut group = c.benchmark_group("tls/pair of records");
    group.throughput(Throughput::Elements(1));
    for (name, suite) in [
        ("AES-128-GCM", CipherSuite::TLS13_AES_128_GCM_SHA256),
        ("AES-256-GCM", CipherSuite::TLS13_AES_256_GCM_SHA384),
        (
            "ChaCha20-Poly1305",
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ),
    ] {
        let mut world = World::new(false);
        let config = world.client_config(suite, NamedGroup::X25519, false);
        let (mut connection, mut client, _) = world.shake_hands(&config);
        client.set_buffer_limit(None);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_custom(|count| {
                let mut worked = Duration::ZERO;
                let mut left = count;
                while left > 0 {
                    let batch = left.min(BATCH);
                    let records: Vec<_> = (0..batch)
                        .map(|_| {
                            client.writer().write_all(&[b'q'; MESSAGE_BYTES]).unwrap();
                            said(&mut client)
                        })
                        .collect();
                    let begun = Instant::now();
                    for record in &records {
                        world.serve(&mut connection, record);
                    }
                    worked += begun.elapsed();
                    world.hear(&mut client);
                    left -= batch;
                }
                worked
            });
        });
    }
    group.finish();
}

fn handshakes(c: &mut Criterion) {
    let mut group = c.benchmark_group("tls/handshake");
    group.throughput(Throughput::Elements(1));
    for (name, group_name, is_rsa, resumes) in [
        (
            "X25519MLKEM768, ECDSA",
            NamedGroup::X25519MLKEM768,
            false,
            false,
        ),
        ("X25519, ECDSA", NamedGroup::X25519, false, false),
        ("X25519, RSA", NamedGroup::X25519, true, false),
        ("X25519, resumed", NamedGroup::X25519, false, true),
    ] {
        let mut world = World::new(is_rsa);
        let suite = CipherSuite::TLS13_AES_128_GCM_SHA256;
        let config = world.client_config(suite, group_name, resumes);
        world.shake_hands(&config);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_custom(|count| (0..count).map(|_| world.shake_hands(&config).2).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, records, handshakes);
criterion_main!(benches);
