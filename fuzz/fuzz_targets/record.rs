//! A conversation of rustls with our record layer: what one side says the other one hears, however it is cut, whenever
//! keys are replaced; and what was changed on its way is heard by nobody.
#![no_main]

use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use barewire_service::service::{Arrival, Expect, Input, Next, Progress, Reply, Service};
use barewire_tls::{Connection, Identity, IdentityConfig, Tls, TlsLimits};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

/// Says what it hears.
struct Echo;

impl Service for Echo {
    type Connection = ();
    const REPLY_BYTES_MIN: usize = 64;

    fn on_input(&mut self, (): &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let consumed = input.bytes.len().min(reply.remaining());
        assert!(reply.put(&input.bytes[..consumed]));
        let next = match consumed == input.bytes.len() {
            true => Next::Receive(Expect::Message),
            false => Next::Send,
        };
        Progress {
            consumed,
            messages: 1,
            next,
        }
    }
}

/// What all conversations have in common.
struct World {
    identity: Arc<Identity>,
    clients: [Arc<ClientConfig>; 2],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("barewire-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let (certificate, key_file) = (directory.join("a.pem"), directory.join("a.key"));
    std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&certificate).unwrap())
        .unwrap();
    let roots = Arc::new(roots);
    let client = |version: &'static SupportedProtocolVersion| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap();
        let roots = Arc::clone(&roots);
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    let identity = Identity::load(IdentityConfig {
        pairs: vec![(certificate, key_file)],
        protocols: Vec::new(),
        client_authorities: None,
    })
    .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    World {
        identity,
        clients: [
            client(&rustls::version::TLS13),
            client(&rustls::version::TLS12),
        ],
    }
});

struct Conversation {
    tls: Tls<Echo>,
    connection: Connection<()>,
    client: ClientConnection,
    /// On their way to the server, and those that it was shown and did not consume.
    outbound: Vec<u8>,
    shown: Vec<u8>,
    /// Room that the server has to answer in.
    space: Vec<u8>,
    said: Vec<u8>,
    heard: Vec<u8>,
    is_over: bool,
    is_spoilt: bool,
}

impl Conversation {
    fn new(version: usize, room: usize) -> Self {
        let limits = TlsLimits {
            connections: 1,
            input_bytes: 4096,
            ..TlsLimits::default()
        };
        let mut tls = Tls::new(Echo, 0, &WORLD.identity, limits, Arc::default());
        let (connection, _) = tls.on_accept(Arrival::default());
        let config = Arc::clone(&WORLD.clients[version]);
        let mut client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        client.set_buffer_limit(None);
        let mut conversation = Conversation {
            tls,
            connection,
            client,
            outbound: Vec::new(),
            shown: Vec::new(),
            space: vec![0; Tls::<Echo>::REPLY_BYTES_MIN + room],
            said: Vec::new(),
            heard: Vec::new(),
            is_over: false,
            is_spoilt: false,
        };
        while conversation.client.is_handshaking() {
            conversation.deliver(usize::MAX);
        }
        conversation
    }

    fn collect(&mut self) {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.outbound).unwrap();
        }
    }

    /// Shows the server up to `count` bytes more, and the client what it answers.
    fn deliver(&mut self, count: usize) {
        self.collect();
        let count = count.min(self.outbound.len());
        self.shown.extend(self.outbound.drain(..count));
        while !self.is_over {
            let mut reply = Reply::new(&mut self.space);
            let input = Input {
                bytes: &self.shown,
                full: false,
                ended: false,
            };
            let progress = self.tls.on_input(&mut self.connection, input, &mut reply);
            let written = reply.written().to_vec();
            self.shown.drain(..progress.consumed);
            self.is_over = matches!(progress.next, Next::Close | Next::Abort);
            self.hear(&written);
            if progress.next != Next::Send {
                break;
            }
        }
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            match self.client.process_new_packets() {
                Ok(_) => {}
                // An alert, because of what was changed.
                Err(error) => assert!(self.is_spoilt, "{error}"),
            }
            // At its end it has no more to say.
            let _ = self.client.reader().read_to_end(&mut self.heard);
            if self.is_spoilt && self.is_over {
                break;
            }
        }
        assert!(
            self.said.starts_with(&self.heard),
            "the echo is another one"
        );
    }
}

/// KeyUpdates in a row that the server takes for no attack, with room for the client's close_notify.
const KEY_UPDATES_MAX: u32 = 31;

fuzz_target!(|data: &[u8]| {
    let Some((&[version, room], actions)) = data.split_first_chunk() else {
        return;
    };
    let mut conversation = Conversation::new(usize::from(version % 2), usize::from(room) * 64);
    let (mut has_ended, mut key_updates) = (false, 0);
    for &[action, size] in actions.as_chunks().0.iter().take(256) {
        let size = usize::from(size);
        match action % 8 {
            0..=2 if !has_ended => {
                let count = size << (action % 8 * 4);
                if count > 0 {
                    key_updates = 0;
                }
                let text: Vec<u8> = (0..count).map(|index| (index * 7 % 251) as u8).collect();
                match conversation.client.writer().write_all(&text) {
                    Ok(()) => conversation.said.extend(text),
                    // The server has refused what was changed.
                    Err(error) => assert!(conversation.is_spoilt, "{error}"),
                }
            }
            3 => conversation.deliver(size + 1),
            4 => conversation.deliver(usize::MAX),
            5 if version % 2 == 0 && !has_ended && key_updates < KEY_UPDATES_MAX => {
                key_updates += 1;
                let refreshed = conversation.client.refresh_traffic_keys();
                assert!(refreshed.is_ok() || conversation.is_spoilt, "{refreshed:?}");
            }
            6 => {
                conversation.collect();
                let len = conversation.outbound.len();
                if len > 0 {
                    conversation.outbound[size * 31 % len] ^= action | 1;
                    conversation.is_spoilt = true;
                }
            }
            7 if size > 250 => {
                conversation.client.send_close_notify();
                has_ended = true;
            }
            _ => {}
        }
    }
    conversation.deliver(usize::MAX);
    if !conversation.is_spoilt && !conversation.is_over {
        assert_eq!(conversation.heard.len(), conversation.said.len());
    }
});
