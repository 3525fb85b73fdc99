//! HTTPS does not travel, and its clients notice no more than that a connection closes in order.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::clients::{post, stats};
use crate::server::{BAREWIRE, Server};
use crate::{Place, STACKS};

type Stream = StreamOwned<ClientConnection, TcpStream>;

pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(client, TcpStream::connect(address).unwrap())
}

/// Sends an event, and returns the head of the response.
pub fn ask(stream: &mut Stream, user: &str) -> String {
    stream.write_all(&post(user, 1)).unwrap();
    head(stream)
}

/// The head of a response.
pub fn head(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// Has a server there serve HTTPS with a certificate of its own. Returns what its clients need.
pub fn serve(place: &mut Place) -> Arc<ClientConfig> {
    let path = |name: &str| place.directory.path().join(name).display().to_string();
    let mut make = Command::new(BAREWIRE);
    make.args([
        "certificate",
        "--self-signed",
        "--name",
        "localhost",
        "--directory",
    ]);
    let made = Server::fail(make.arg(place.directory.path()));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let pair = [
        "--tls-certificate".to_owned(),
        path("certificate.pem"),
        "--tls-key".to_owned(),
        path("key.pem"),
    ];
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(path("certificate.pem")).unwrap();
    roots.add(certificate).unwrap();
    place.options.extend(pair);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn connections_of_https_end_with_their_next_reply_and_clients_resume_at_the_successor() {
    for stack in STACKS {
        let mut place = Place::new(stack, "127.0.0.1", &["--tls-listen", "127.0.0.1:0"]);
        let config = serve(&mut place);
        let first = place.start();
        let (plain, https) = (first.addresses[0], first.addresses[1]);
        let mut stream = connect(https, &config);
        assert!(
            !ask(&mut stream, "a").contains("connection: close"),
            "{stack}"
        );
        let second = place.take_over();
        assert_eq!(second.addresses, [plain, https]);
        // It stayed, and its event is counted by the successor.
        let head = ask(&mut stream, "b");
        assert!(
            head.starts_with("http/1.1 200") && head.contains("connection: close"),
            "{head}"
        );
        assert_eq!(stats(plain), (2, 2, 2.0), "{stack}");
        drop(stream);
        assert_eq!(first.wait().code, Some(0), "{stack}");

        let mut stream = connect(https, &config);
        assert!(ask(&mut stream, "a").starts_with("http/1.1 200"));
        assert_eq!(
            stream.conn.handshake_kind(),
            Some(HandshakeKind::Resumed),
            "{stack}"
        );
        assert_eq!(stats(plain), (3, 2, 3.0), "{stack}");
        drop(stream);
        assert_eq!(second.terminate().code, Some(0));
    }
}
