//! The side that calls: what a load generator or a proxy has in front of the service that speaks first.
//!
//! Unlike [`Tls`](crate::Tls) it is no service, because whoever opens a connection wants to know when its handshake
//! is over, and has more to do with the service inside than [`Service`] has:
//!
//! ```text
//!   connected ──▶ TlsClient::shake_hands, until it says Complete
//!   then      ──▶ TlsClient::on_input ⇄ the service, in records
//! ```

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, KeyLogFile, RootCertStore, SignatureScheme,
    StreamOwned,
};
use thiserror::Error as ThisError;

use crate::counters::TlsCounters;
use crate::handshake::{Handshake, Step};
use crate::identity::{IdentityError, certificates};
use crate::record::Alert;
use crate::session::{Records, Session, ending, reply_bytes_min};

/// Whom a client believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Servers with a certificate of one of the authorities in a PEM file, for the name that is asked for.
    Authorities(PathBuf),
    /// Whoever answers.
    Anybody,
}

/// What a client needs to shake hands.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Why a client cannot shake hands.
#[derive(Debug, ThisError)]
pub enum ClientError {
    /// A server is called by name or address.
    #[error("\"{0}\" is no name that a certificate could be for")]
    Name(String),
    /// See [`IdentityError`].
    #[error(transparent)]
    Authorities(#[from] IdentityError),
    /// None of the certificates is an authority's.
    #[error("{} holds no certificate of an authority", .0.display())]
    NoAuthority(PathBuf),
    /// What rustls has against it.
    #[error(transparent)]
    Config(#[from] Error),
}

impl ClientIdentity {
    /// Calls `name`, believes whom `trust` says, and offers `protocols` by ALPN, the best first.
    ///
    /// Sessions are not resumed: each connection costs the server a full handshake.
    ///
    /// # Errors
    ///
    /// If authorities cannot be read, or `name` is none.
    pub fn new(name: &str, trust: &Trust, protocols: &[&[u8]]) -> Result<Self, ClientError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let mut config = match trust {
            Trust::Authorities(path) => builder.with_root_certificates(authorities(path)?),
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        }
        .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.enable_secret_extraction = true;
        config.resumption = Resumption::disabled();
        config.key_log = Arc::new(KeyLogFile::new());
        let unfit = |_| ClientError::Name(name.to_owned());
        Ok(ClientIdentity {
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned()).map_err(unfit)?,
        })
    }

    /// TLS around a stream that blocks, all by rustls: for the few requests that nobody measures.
    ///
    /// # Errors
    ///
    /// If rustls refuses the configuration.
    pub fn around<T: Read + Write>(&self, stream: T) -> Result<impl Read + Write, ClientError> {
        let connection = rustls::ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        Ok(StreamOwned::new(connection?, stream))
    }
}

/// The authorities in a file. Some that nobody can read do no harm: a system's list is long.
fn authorities(path: &Path) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    match added {
        0 => Err(ClientError::NoAuthority(path.to_owned())),
        _ => Ok(roots),
    }
}

/// Believes that everybody is who they say they are. Signatures are checked, as a real client would.
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

/// TLS for the connections that a core opens.
pub struct TlsClient {
    identity: ClientIdentity,
    records: Records,
}

/// What TLS keeps of a connection.
#[derive(Default)]
pub struct ClientConnection(State);

#[derive(Default)]
enum State {
    #[default]
    New,
    Handshaking(Box<Handshake<ClientConnectionData>>),
    Open(Box<Session<ClientConnectionData>>),
    Over,
}

/// What has to happen for a handshake to go on.
#[derive(Debug, Clone, PartialEq)]
pub enum Shaken {
    /// More bytes from the server are needed.
    Receive,
    /// There is more to send than fitted.
    Send,
    /// It is complete: the service may speak, by the protocol that was agreed on (ALPN).
    Complete(Option<Vec<u8>>),
    /// It has failed. What was written says so.
    Failed(Error),
}

impl TlsClient {
    /// For at most `connections` at once, whose service is shown `input_bytes` at once.
    pub fn new(identity: ClientIdentity, connections: u32, input_bytes: usize) -> Self {
        TlsClient {
            identity,
            records: Records::new(connections, input_bytes, Arc::<TlsCounters>::default()),
        }
    }

    /// Goes on with the handshake, or begins it. Returns how much of the input was consumed.
    pub fn shake_hands(
        &mut self,
        connection: &mut ClientConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> (usize, Shaken) {
        if matches!(connection.0, State::New) {
            let ClientIdentity { config, name } = self.identity.clone();
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

    /// What [`Service::on_input`] does, in records. Without input the service is called in any case, as it speaks
    /// first; the handshake has to be complete.
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

    /// The room that a reply has to have at least around `S`.
    pub const fn reply_bytes_min<S: Service>() -> usize {
        reply_bytes_min::<S>()
    }
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.0 {
            State::New => "New",
            State::Handshaking(_) => "Handshaking",
            State::Open(_) => "Open",
            State::Over => "Over",
        })
    }
}

impl ClientConnection {
    /// Says that nothing more is sent (close_notify), if there is room for it.
    pub fn say_goodbye(&mut self, reply: &mut Reply<'_>) {
        if let State::Open(session) = &mut self.0 {
            session.say(Alert::CloseNotify, reply);
        }
    }

    /// The handshake is complete.
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
