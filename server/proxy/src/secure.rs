//! TLS with origins: their records on one side, the plain text of a connection on the other.

use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use barewire_tls::{ClientConnection, Shaken, TlsClient};

use crate::forward::Forwarder;

/// Bytes of plain text that a connection is shown at once: longer than the head of any response is in practice.
const INPUT_BYTES: usize = 32 << 10;

/// TLS for at most so many connections of a core.
pub fn client(connections_max: usize) -> Box<TlsClient> {
    let connections = u32::try_from(connections_max).unwrap_or(u32::MAX);
    Box::new(TlsClient::new(connections, INPUT_BYTES))
}

/// Least room of a reply to a connection in TLS.
pub const REPLY_BYTES_MIN: usize = TlsClient::reply_bytes_min::<Plain<'_>>();

/// What is said within TLS.
pub struct Plain<'f>(&'f mut Forwarder);

impl Service for Plain<'_> {
    /// The place of the connection.
    type Connection = usize;

    /// Whatever there is room for is written.
    const REPLY_BYTES_MIN: usize = 1;

    fn on_input(&mut self, at: &mut usize, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        self.0.on_plain(*at, input, reply)
    }
}

impl Forwarder {
    /// Records have arrived on a connection to an origin, or it was woken.
    pub(crate) fn on_secure(
        &mut self,
        at: usize,
        connection: &mut ClientConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let Some(mut tls) = self.tls.take() else {
            return turn(input.bytes.len(), Next::Abort);
        };
        let progress = match connection.is_open() {
            true => self.on_records(at, &mut tls, connection, input, reply),
            false => self.shake_hands(at, &mut tls, connection, input, reply),
        };
        self.tls = Some(tls);
        progress
    }

    /// The connection is about to be closed.
    pub(crate) fn say_close(&mut self, at: usize, reply: &mut Reply<'_>) {
        if let Some(tls) = &mut self.connections[at].tls {
            tls.send_close_notify(reply);
        }
    }

    fn on_records(
        &mut self,
        at: usize,
        tls: &mut TlsClient,
        connection: &mut ClientConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        if std::mem::take(&mut self.connections[at].is_woken) {
            connection.wake();
        }
        let mut plain = at;
        let service = (&mut Plain(self), &mut plain);
        let progress = tls.on_input(connection, service, input, reply);
        if let (Next::Close, Some(alert)) = (progress.next, connection.alert()) {
            self.complain(at, format_args!("it says {alert:?}"));
        }
        progress
    }

    fn shake_hands(
        &mut self,
        at: usize,
        tls: &mut TlsClient,
        connection: &mut ClientConnection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let (consumed, shaken) = tls.shake_hands(connection, input, reply);
        match shaken {
            Shaken::Receive => turn(consumed, Next::Receive(Expect::Anything)),
            Shaken::Send => turn(consumed, Next::Send),
            Shaken::Failed(error) => {
                let origin = self.connections[at].origin;
                self.origins[origin].counters.failed_tls.increment();
                self.complain(at, format_args!("{error}"));
                turn(input.bytes.len(), Next::Close)
            }
            Shaken::Complete(_) => {
                let rest = Input {
                    bytes: &input.bytes[consumed..],
                    ..input
                };
                let progress = self.on_records(at, tls, connection, rest, reply);
                Progress {
                    consumed: consumed + progress.consumed,
                    ..progress
                }
            }
        }
    }

    /// Says why TLS does not come about, once for each time that an origin begins to have this fault.
    fn complain(&mut self, at: usize, why: std::fmt::Arguments<'_>) {
        let origin = &mut self.origins[self.connections[at].origin];
        if !std::mem::replace(&mut origin.is_known_to_refuse_tls, true) {
            let pool = &*self.table.pools[origin.pool].name;
            tracing::warn!(pool, origin = %origin.address, "TLS with an origin: {why}");
        }
    }
}

fn turn(consumed: usize, next: Next) -> Progress {
    Progress {
        consumed,
        messages: 0,
        next,
    }
}
