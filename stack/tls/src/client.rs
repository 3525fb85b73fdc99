//! The client side, for a load generator or a proxy whose service sends first.
//!
//! Unlike [`Tls`](crate::Tls) it is not a service: who opens a connection has to know when the handshake is complete,
//! and uses more of the service inside than [`Service`] has:
//!
//! ```text
//!   connected ──▶ TlsClient::shake_hands, until it says Complete
//!   then      ──▶ TlsClient::on_input ⇄ the service, in records
//! ```

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, KeyLogFile, RootCertStore,
    SignatureScheme, StreamOwned,
};
use thiserror::Error as ThisError;

use crate::counters::TlsCounters;
use crate::handshake::{Handshake, Step};
use crate::identity::{IdentityError, Offer, certificates};
use crate::record::Alert;
use crate::session::{Records, Session, ending, reply_bytes_min};

/// Which servers a client accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Servers with a certificate of one of the authorities in a PEM file, for the name that is asked for.
    Authorities(PathBuf),
    /// All servers: certificates are not verified.
    Anybody,
}

/// The name that a client asks for, how it verifies the server, and what it shows of itself.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Why an identity of a client cannot be made.
#[derive(Debug, ThisError)]
pub enum ClientError {
    /// The server's name is neither a DNS name nor an address.
    #[error("\"{0}\" is no name that a certificate could be for")]
    Name(String),
    /// Authorities, or a certificate of the client, cannot be used.
    #[error(transparent)]
    File(#[from] IdentityError),
    /// A file has no certificate of an authority.
    #[error("{} holds no certificate of an authority", .0.display())]
    NoAuthority(PathBuf),
    /// rustls refuses the configuration.
    #[error(transparent)]
    Config(#[from] Error),
}

impl ClientIdentity {
    /// A client of `name` that accepts the servers of `trust` and offers `protocols` by ALPN, the preferred one first.
    ///
    /// Sessions are not resumed: each connection costs the server a full handshake.
    ///
    /// # Errors
    ///
    /// If authorities cannot be read, or if `name` is no name of a server.
    pub fn new(name: &str, trust: &Trust, protocols: &[&[u8]]) -> Result<Self, ClientError> {
        Self::open(name, trust, None, protocols)
    }

    /// The same, with the certificate in a PEM file, its chain behind it, and its key in another one, for servers that ask
    /// for them.
    ///
    /// # Errors
    ///
    /// As [`ClientIdentity::new`], and if the certificate or its key cannot be used.
    pub fn with_certificate(
        name: &str,
        trust: &Trust,
        (certificate, key): (&Path, &Path),
        protocols: &[&[u8]],
    ) -> Result<Self, ClientError> {
        Self::open(name, trust, Some((certificate, key)), protocols)
    }

    /// The same for a server of another name.
    ///
    /// # Errors
    ///
    /// If `name` is no name of a server.
    pub fn named(&self, name: &str) -> Result<Self, ClientError> {
        Ok(ClientIdentity {
            config: Arc::clone(&self.config),
            name: server_name(name)?,
        })
    }

    fn open(
        name: &str,
        trust: &Trust,
        certificate: Option<(&Path, &Path)>,
        protocols: &[&[u8]],
    ) -> Result<Self, ClientError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match trust {
            Trust::Authorities(path) => builder.with_root_certificates(authorities(path)?),
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(&provider)))),
        };
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let offer = Offer::load(certificate, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(offer))
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.enable_secret_extraction = true;
        config.resumption = Resumption::disabled();
        config.key_log = Arc::new(KeyLogFile::new());
        Ok(ClientIdentity {
            config: Arc::new(config),
            name: server_name(name)?,
        })
    }

    /// TLS around a blocking stream, by rustls alone: for requests that are not measured. Dropping it sends close_notify.
    ///
    /// # Errors
    ///
    /// If rustls refuses the configuration.
    pub fn around<T: Read + Write>(
        &self,
        stream: T,
    ) -> Result<impl Read + Write + use<T>, ClientError> {
        let connection = rustls::ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        Ok(Around(StreamOwned::new(connection?, stream)))
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, ClientError> {
    let unfit = |_| ClientError::Name(name.to_owned());
    ServerName::try_from(name.to_owned()).map_err(unfit)
}

/// TLS around a blocking stream.
struct Around<T: Read + Write>(StreamOwned<rustls::ClientConnection, T>);

impl<T: Read + Write> Read for Around<T> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.0.read(space)
    }
}

impl<T: Read + Write> Write for Around<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<T: Read + Write> Drop for Around<T> {
    fn drop(&mut self) {
        let StreamOwned { conn, sock } = &mut self.0;
        if !conn.is_handshaking() {
            conn.send_close_notify();
            // The stream may be broken.
            let _ = conn.write_tls(sock);
        }
    }
}

/// The authorities in a file. Certificates that cannot be parsed are skipped: lists of systems have some.
fn authorities(path: &Path) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    match added {
        0 => Err(ClientError::NoAuthority(path.to_owned())),
        _ => Ok(roots),
    }
}

/// Accepts every certificate, and verifies signatures, so that a handshake costs what it costs other clients.
struct Anybody(Arc<CryptoProvider>);

impl fmt::Debug for Anybody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Anybody")
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS of the connections that a core opens.
pub struct TlsClient {
    records: Records,
}

/// The TLS state of a connection. The default is that of one without TLS, which is never shown.
#[derive(Default)]
pub struct ClientConnection(State);

#[derive(Default)]
enum State {
    New(ClientIdentity),
    Handshaking(Box<Handshake<ClientConnectionData>>),
    Open(Box<Session<ClientConnectionData>>),
    #[default]
    Over,
}

/// What a handshake needs next.
#[derive(Debug, Clone, PartialEq)]
pub enum Shaken {
    /// More bytes from the server.
    Receive,
    /// More room to write.
    Send,
    /// Nothing: it is complete, and the service may send. The protocol is that which ALPN has chosen.
    Complete(Option<Vec<u8>>),
    /// Nothing: it has failed, and the alert has been written.
    Failed(Error),
}

impl TlsClient {
    /// For at most `connections` at once, whose service is shown at most `input_bytes` at once.
    pub fn new(connections: u32, input_bytes: usize) -> Self {
        TlsClient {
            records: Records::new(connections, input_bytes, Arc::<TlsCounters>::default()),
        }
    }

    /// Begins the handshake or goes on with it. Returns how many bytes of the input it consumed.
    pub fn shake_hands(
        &mut self,
        connection: &mut ClientConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> (usize, Shaken) {
        if let State::New(identity) = &connection.0 {
            let ClientIdentity { config, name } = identity.clone();
            connection.0 = match UnbufferedClientConnection::new(config, name) {
                Ok(rustls) => State::Handshaking(Box::new(Handshake::new(rustls, None))),
                Err(error) => return (0, Shaken::Failed(error)),
            };
        }
        let State::Handshaking(handshake) = &mut connection.0 else {
            return (0, Shaken::Failed(Error::HandshakeNotComplete));
        };
        let (consumed, step) = handshake.advance(input.bytes, reply);
        let shaken = match step {
            Step::Receive if input.ended => Shaken::Failed(Error::HandshakeNotComplete),
            Step::Receive => Shaken::Receive,
            Step::Send => Shaken::Send,
            Step::Complete => match connection.open() {
                Ok(alpn) => Shaken::Complete(alpn),
                Err(error) => Shaken::Failed(error),
            },
            Step::Failed(error) => Shaken::Failed(error),
        };
        if matches!(shaken, Shaken::Failed(_)) {
            connection.0 = State::Over;
        }
        (consumed, shaken)
    }

    /// As [`Service::on_input`], for a connection whose handshake is complete. Without input, too, the service is
    /// called, because it sends first.
    #[inline]
    pub fn on_input<S: Service>(
        &mut self,
        connection: &mut ClientConnection,
        (service, inner): (&mut S, &mut S::Connection),
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let State::Open(session) = &mut connection.0 else {
            return ending(input, Next::Abort);
        };
        if input.bytes.is_empty() && !input.ended {
            session.call();
        }
        session.serve(service, inner, &mut self.records, input, 0, reply)
    }

    /// Least room of a reply around `S`, in contiguous bytes.
    pub const fn reply_bytes_min<S: Service>() -> usize {
        reply_bytes_min::<S>()
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TlsClient")
    }
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.0 {
            State::New(_) => "New",
            State::Handshaking(_) => "Handshaking",
            State::Open(_) => "Open",
            State::Over => "Over",
        })
    }
}

impl ClientConnection {
    /// One to the server that `identity` names.
    pub fn new(identity: &ClientIdentity) -> Self {
        ClientConnection(State::New(identity.clone()))
    }

    /// Whether its handshake is complete.
    pub fn is_open(&self) -> bool {
        matches!(self.0, State::Open(_))
    }

    /// Makes the next [`TlsClient::on_input`] call the service, whatever has arrived: it was woken.
    pub fn wake(&mut self) {
        if let State::Open(session) = &mut self.0 {
            session.call();
        }
    }

    /// Why the server has ended the connection, if it said so by an alert: in TLS 1.3 it judges the client's certificate
    /// when the handshake is complete for the client.
    pub fn alert(&self) -> Option<AlertDescription> {
        match &self.0 {
            State::Open(session) => session.alert().map(AlertDescription::from),
            State::New(_) | State::Handshaking(_) | State::Over => None,
        }
    }

    /// Writes close_notify if there is room for it.
    pub fn send_close_notify(&mut self, reply: &mut Reply<'_>) {
        if let State::Open(session) = &mut self.0 {
            session.send_alert(Alert::CloseNotify, reply);
        }
    }

    /// Takes the keys of a complete handshake.
    fn open(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let State::Handshaking(handshake) = std::mem::take(&mut self.0) else {
            return Err(Error::HandshakeNotComplete);
        };
        let keys = handshake.into_keys()?;
        let next = Next::Receive(Expect::Message);
        let mut session = Session::new(keys.secrets, keys.connection, next)?;
        session.call();
        self.0 = State::Open(Box::new(session));
        Ok(keys.alpn)
    }
}
