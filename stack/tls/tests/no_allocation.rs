//! A connection allocates while it shakes hands, and never again: not for records, messages, alerts or errors.
//! What AWS-LC allocates in C is not counted.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;

use allocation_counter::measure;
use barewire_service::service::{Arrival, Expect, Input, Next, Progress, Reply, Service};
use barewire_tls::{Identity, IdentityConfig, Tls, TlsCounters, TlsLimits};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Answers each line with as many bytes.
struct Echo;

impl Service for Echo {
    type Connection = ();
    const REPLY_BYTES_MIN: usize = 1024;

    fn on_input(&mut self, (): &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let end = input.bytes.iter().rposition(|&byte| byte == b'\n');
        let consumed = end.map_or(0, |end| end + 1).min(reply.remaining());
        assert!(reply.put(&input.bytes[..consumed]));
        Progress {
            consumed,
            messages: u32::from(consumed > 0),
            next: Next::Receive(match input.bytes.len() - consumed {
                0 => Expect::Message,
                _ => Expect::Head,
            }),
        }
    }
}

#[test]
fn nothing_is_allocated_after_the_handshake() {
    let dir = std::env::temp_dir().join(format!("barewire-tls-alloc-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.join("a.pem"), dir.join("a.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let identity = Identity::load(IdentityConfig {
        pairs: vec![(certificate.clone(), key)],
        protocols: vec![],
        client_authorities: None,
    })
    .unwrap();
    let limits = TlsLimits {
        connections: 4,
        ..TlsLimits::default()
    };
    let mut space = vec![0; 32 * 1024];
    for version in rustls::ALL_VERSIONS {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&certificate).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client =
            ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
        let counters = std::sync::Arc::new(TlsCounters::default());
        let mut tls = Tls::new(Echo, 0, &identity, limits, counters);
        let (mut connection, _) = tls.on_accept(Arrival::default());
        let mut serve = |bytes: &[u8], mut client: Option<&mut ClientConnection>| {
            let mut reply = Reply::new(&mut space);
            let input = Input {
                bytes,
                full: false,
                ended: false,
            };
            let mut progress = None;
            let allocated = measure(|| {
                progress = Some(tls.on_input(&mut connection, input, &mut reply));
            });
            let progress = progress.unwrap();
            assert_eq!(progress.consumed, bytes.len());
            let mut out = reply.written();
            while let Some(client) = client.as_deref_mut().filter(|_| !out.is_empty()) {
                client.read_tls(&mut out).unwrap();
                client.process_new_packets().unwrap();
                let mut text = [0; 8192];
                while std::io::Read::read(&mut client.reader(), &mut text).is_ok_and(|len| len > 0)
                {
                }
            }
            (progress, allocated.count_total)
        };
        let say = |client: &mut ClientConnection| {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            bytes
        };
        while client.is_handshaking() || client.wants_write() {
            let bytes = say(&mut client);
            serve(&bytes, Some(&mut client));
        }
        for round in 0..100_usize {
            for len in [1, 150, 5_000] {
                let line = vec![b'q'; len];
                client.writer().write_all(&line).unwrap();
                client.writer().write_all(b"\n").unwrap();
            }
            let bytes = say(&mut client);
            // Half a record, and half a line, wait.
            let (front, back) = bytes.split_at(round * 50 % bytes.len());
            assert_eq!(serve(front, Some(&mut client)).1, 0, "{version:?}");
            assert_eq!(serve(back, Some(&mut client)).1, 0, "{version:?}");
        }
        let (progress, allocations) = serve(&[23, 3, 3, 0, 20].repeat(5), None);
        assert_eq!((progress.next, allocations), (Next::Close, 0));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
