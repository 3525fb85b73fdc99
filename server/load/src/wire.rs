//! What lies between a transport and the client: nothing, or TLS.

use barewire_service::service::{Input, Progress, Reply, Service};
use barewire_tls::{ClientConnection, ClientIdentity, Shaken, TlsClient};

use super::client::{Client, Clock, Exchange};

/// Bytes of plain text that the client is shown at once: longer than the head of any response, and than any frame.
const INPUT_BYTES: usize = 32 << 10;

/// The wire of one thread's connections.
pub struct Wire {
    tls: Option<(TlsClient, ClientIdentity)>,
    is_http2: bool,
}

/// How far a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The server has to say something first.
    Receive,
    /// There is more to send than fitted.
    Send,
    /// Requests can be sent.
    Ready,
    /// It is of no use. What was written tells the server.
    Failed(String),
}

impl Wire {
    /// TLS if there is an identity for it.
    pub fn new(secure: Option<&ClientIdentity>, connections: usize, is_http2: bool) -> Self {
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        let tls = |identity: &ClientIdentity| {
            let client = TlsClient::new(connections, INPUT_BYTES);
            (client, identity.clone())
        };
        Wire {
            tls: secure.map(tls),
            is_http2,
        }
    }

    /// The state of a connection that is about to be opened.
    pub fn connection(&self) -> ClientConnection {
        let identity = self.tls.as_ref().map(|(_, identity)| identity);
        identity.map_or_else(ClientConnection::default, ClientConnection::new)
    }

    /// Whether a connection has to shake hands before it is ready.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Goes on with the handshake, or begins it. Returns how much of the input was consumed.
    pub fn shake_hands(
        &mut self,
        connection: &mut ClientConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> (usize, Readiness) {
        let Some((tls, _)) = &mut self.tls else {
            return (0, Readiness::Ready);
        };
        let (consumed, shaken) = tls.shake_hands(connection, input, reply);
        let readiness = match shaken {
            Shaken::Receive => Readiness::Receive,
            Shaken::Send => Readiness::Send,
            Shaken::Complete(alpn) if self.is_http2 && alpn.as_deref() != Some(b"h2") => {
                Readiness::Failed("the server does not offer HTTP/2 (ALPN)".to_owned())
            }
            Shaken::Complete(_) => Readiness::Ready,
            Shaken::Failed(error) => Readiness::Failed(format!("TLS handshake: {error}")),
        };
        (consumed, readiness)
    }

    /// Shows the client what has arrived, and writes what it asks.
    #[inline]
    pub fn on_input<C: Clock>(
        &mut self,
        client: &mut Client<C>,
        connection: &mut ClientConnection,
        exchange: &mut Exchange,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        match &mut self.tls {
            None => client.on_input(exchange, input, reply),
            Some((tls, _)) => tls.on_input(connection, (client, exchange), input, reply),
        }
    }
}
