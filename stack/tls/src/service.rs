//! TLS around a service, as a service.
//!
//! ```text
//!   stack ──▶ Tls ──▶ Plain ───────────────────────────────▶ inner service      a listener without TLS
//!                ├──▶ Handshaking (rustls) ──▶ alert, or keys ─┐
//!                └──▶ Open ◀───────────────────────────────────┘
//!                       records ──▶ Opener ──▶ plain text ──▶ inner service ──▶ Reply ──▶ Sealer, in place
//! ```
//!
//! Input is consumed at once, also the beginning of a record: the receive buffer of the stack may be shorter than a
//! record. Plain text that the inner service does not consume is kept. When the service has been shown as much as it
//! may be, no further record is opened: the rest stays with the stack, whose receive window closes.

use std::sync::Arc;

use barewire_service::service::{
    Agreed, Arrival, End, Expect, Id, Input, Next, Progress, Reply, Service, Want,
};
use barewire_service::time::Instant;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};

use crate::counters::TlsCounters;
use crate::handshake::{Handshake, Places, Step};
use crate::identity::{Follower, Identity};
use crate::record::CONTENT_BYTES_MAX;
use crate::session::{Records, Session, ending, reply_bytes_min};

/// The limits of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsLimits {
    /// Most connections of the stack.
    pub connections: u32,
    /// Most plain text that the inner service is shown at once, in bytes. A message that it takes whole has to fit.
    pub input_bytes: usize,
    /// Most handshakes in progress at once; further connections are refused.
    pub handshakes_max: u32,
    /// Most handshakes that begin within a second; further connections are refused. It leaves the core time for
    /// requests.
    pub handshakes_per_second: u32,
}

impl Default for TlsLimits {
    fn default() -> Self {
        TlsLimits {
            connections: 8192,
            input_bytes: 16 * 1024,
            handshakes_max: 1024,
            handshakes_per_second: 5000,
        }
    }
}

/// TLS around `S` on some of the stack's listeners.
pub struct Tls<S> {
    inner: S,
    core: Core,
}

/// What does not depend on the service.
struct Core {
    /// Listeners with a lower index have no TLS, but for the special one.
    first_listener: usize,
    identity: Follower,
    /// A listener with an identity of its own.
    special: Option<(usize, Follower)>,
    limits: TlsLimits,
    places: Places,
    /// Handshakes that may still begin in this second.
    handshakes_left: u32,
    second_began_ns: u64,
    records: Records,
}

/// The state of a connection.
pub struct Connection<C>(State<C>);

enum State<C> {
    Plain(C),
    /// To be reset without an answer.
    Refused,
    Handshaking {
        arrival: Arrival<'static>,
        handshake: Box<Handshake<ServerConnectionData>>,
    },
    Open(Box<Open<C>>),
    /// Ended by a failed handshake.
    Over,
}

impl<C: Default> Default for Connection<C> {
    fn default() -> Self {
        Connection(State::Plain(C::default()))
    }
}

/// A connection with keys.
struct Open<C> {
    inner: C,
    session: Session<ServerConnectionData>,
}

impl<S: Service> Tls<S> {
    /// TLS around `inner` on the listeners from `first_listener` on; on the others `inner` serves without TLS.
    pub fn new(
        inner: S,
        first_listener: usize,
        identity: &Arc<Identity>,
        limits: TlsLimits,
        counters: Arc<TlsCounters>,
    ) -> Self {
        const {
            assert!(
                S::REPLY_BYTES_MIN <= CONTENT_BYTES_MAX,
                "a reply's least has to fit into a record"
            )
        };
        counters
            .handshaking_max
            .set(u64::from(limits.handshakes_max));
        Tls {
            inner,
            core: Core {
                first_listener,
                identity: Follower::new(identity),
                special: None,
                places: Places::new(limits.handshakes_max),
                handshakes_left: limits.handshakes_per_second,
                second_began_ns: 0,
                records: Records::new(limits.connections, limits.input_bytes, counters),
                limits,
            },
        }
    }
}

impl<S> Tls<S> {
    /// Uses `identity` on this listener, whatever there is on the others.
    #[must_use]
    pub fn with_listener(mut self, listener: usize, identity: &Arc<Identity>) -> Self {
        self.core.special = Some((listener, Follower::new(identity)));
        self
    }

    /// The service inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Service> Service for Tls<S> {
    type Connection = Connection<S::Connection>;

    const REPLY_BYTES_MIN: usize = reply_bytes_min::<S>();

    fn on_accept(&mut self, arrival: Arrival<'_>) -> (Self::Connection, Expect) {
        if !self.core.is_secure(arrival.listener) {
            let (connection, expect) = self.inner.on_accept(arrival);
            return (Connection(State::Plain(connection)), expect);
        }
        let arrival = Arrival {
            tls: None,
            ..arrival
        };
        let state = self.core.begin(arrival);
        (Connection(state), Expect::Handshake)
    }

    fn on_input(
        &mut self,
        connection: &mut Self::Connection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let Tls { inner, core } = self;
        match &mut connection.0 {
            State::Plain(plain) => inner.on_input(plain, input, reply),
            State::Open(open) => {
                let Open {
                    inner: state,
                    session,
                } = &mut **open;
                session.serve(inner, state, &mut core.records, input, 0, reply)
            }
            State::Handshaking { .. } => self.shake_hands(connection, input, reply),
            State::Refused => ending(input, Next::Abort),
            State::Over => ending(input, Next::Close),
        }
    }

    fn on_timeout(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            State::Plain(plain) => self.inner.on_timeout(plain, reply),
            State::Handshaking { .. } => {
                self.core.records.counters.failed_timeout.increment();
                connection.0 = State::Over;
            }
            State::Open(open) => {
                let Open { inner, session } = &mut **open;
                let service = (&mut self.inner, inner);
                session.send_last(service, &self.core.records, S::on_timeout, reply);
            }
            State::Refused | State::Over => {}
        }
    }

    fn on_dismiss(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            State::Plain(plain) => self.inner.on_dismiss(plain, reply),
            State::Open(open) => {
                let Open { inner, session } = &mut **open;
                let service = (&mut self.inner, inner);
                session.send_last(service, &self.core.records, S::on_dismiss, reply);
            }
            State::Refused | State::Handshaking { .. } | State::Over => {}
        }
    }

    fn on_clock(&mut self, unix_time_s: u64) {
        self.inner.on_clock(unix_time_s);
    }

    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        self.core.on_time(now_ns);
        self.inner.on_time(now_ns);
    }

    fn on_drain(&mut self) {
        self.inner.on_drain();
    }

    fn on_stay(&mut self) {
        self.inner.on_stay();
    }

    fn wants(&mut self, now: Instant) -> Want {
        self.inner.wants(now)
    }

    fn on_open(&mut self, token: u64, id: Id) -> Self::Connection {
        Connection(State::Plain(self.inner.on_open(token, id)))
    }

    #[inline]
    fn rest(connection: &Self::Connection) -> Option<u8> {
        match &connection.0 {
            State::Plain(plain) => S::rest(plain),
            State::Open(_) | State::Refused | State::Handshaking { .. } | State::Over => None,
        }
    }

    #[inline]
    fn resume(connection: &mut Self::Connection, rest: u8) {
        if let State::Plain(plain) = &mut connection.0 {
            S::resume(plain, rest);
        }
    }

    fn departs(connection: &Self::Connection) -> Option<u8> {
        match &connection.0 {
            State::Plain(plain) => S::departs(plain),
            State::Open(_) | State::Refused | State::Handshaking { .. } | State::Over => None,
        }
    }

    fn on_end(&mut self, connection: &mut Self::Connection, end: End) {
        match &mut connection.0 {
            State::Plain(plain) => self.inner.on_end(plain, end),
            State::Open(open) => self.inner.on_end(&mut open.inner, end),
            State::Refused | State::Handshaking { .. } | State::Over => {}
        }
    }
}

impl<S: Service> Tls<S> {
    /// Goes on with the handshake; when it is complete, serves what follows.
    fn shake_hands(
        &mut self,
        connection: &mut Connection<S::Connection>,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let core = &mut self.core;
        let State::Handshaking { arrival, handshake } = &mut connection.0 else {
            return ending(input, Next::Abort);
        };
        let arrival = *arrival;
        let (consumed, step) = handshake.advance(input.bytes, reply);
        let next = match step {
            Step::Receive if !input.ended => Next::Receive(Expect::Handshake),
            Step::Receive => {
                core.records.counters.failed_ended.increment();
                Next::Close
            }
            Step::Send => Next::Send,
            Step::Complete => {
                return self.open(connection, arrival, input, consumed, reply);
            }
            Step::Failed(error) => {
                core.records.counters.failed(&error);
                tracing::debug!("TLS handshake: {error}");
                Next::Close
            }
        };
        if next == Next::Close {
            connection.0 = State::Over;
            core.publish();
            return ending(input, Next::Close);
        }
        Progress {
            consumed,
            messages: 0,
            next,
        }
    }

    /// Gives a connection whose handshake is complete to the inner service.
    fn open(
        &mut self,
        connection: &mut Connection<S::Connection>,
        arrival: Arrival<'static>,
        input: Input<'_>,
        consumed: usize,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let Tls { inner, core } = self;
        let State::Handshaking { handshake, .. } =
            std::mem::replace(&mut connection.0, State::Over)
        else {
            return ending(input, Next::Abort);
        };
        let opened = handshake.into_keys().and_then(|keys| {
            let version = keys.connection.protocol_version();
            let suite = keys.connection.negotiated_cipher_suite().suite();
            let alpn = keys.alpn.as_deref();
            core.records
                .counters
                .completed(version, suite, keys.is_resumed, alpn);
            let (state, expect) = inner.on_accept(Arrival {
                tls: Some(Agreed { alpn }),
                ..arrival
            });
            let session = Session::new(keys.secrets, keys.connection, Next::Receive(expect))?;
            Ok(Box::new(Open {
                inner: state,
                session,
            }))
        });
        core.publish();
        match opened {
            Ok(mut open) => {
                // The reply may have less room than the service needs; then the stack calls again.
                let Open {
                    inner: state,
                    session,
                } = &mut *open;
                let records = &mut core.records;
                let progress = session.serve(inner, state, records, input, consumed, reply);
                connection.0 = State::Open(open);
                progress
            }
            Err(error) => {
                core.records.counters.failed(&error);
                ending(input, Next::Abort)
            }
        }
    }
}

impl Core {
    #[inline]
    fn is_secure(&self, listener: usize) -> bool {
        let special = self.special.as_ref();
        listener >= self.first_listener || special.is_some_and(|(special, _)| *special == listener)
    }

    /// Begins a handshake if the limits allow one more.
    fn begin<C>(&mut self, arrival: Arrival<'static>) -> State<C> {
        let Some(left) = self.handshakes_left.checked_sub(1) else {
            self.records.counters.refused_rate.increment();
            return State::Refused;
        };
        let Some(place) = self.places.take() else {
            self.records.counters.refused_handshaking.increment();
            return State::Refused;
        };
        self.handshakes_left = left;
        self.publish();
        let identity = match &mut self.special {
            Some((listener, special)) if *listener == arrival.listener => special,
            _ => &mut self.identity,
        };
        let rustls = UnbufferedServerConnection::new(identity.current());
        match rustls {
            Ok(rustls) => State::Handshaking {
                arrival,
                handshake: Box::new(Handshake::new(rustls, Some(place))),
            },
            Err(error) => {
                self.records.counters.failed(&error);
                State::Refused
            }
        }
    }

    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        const SECOND_NS: u64 = 1_000_000_000;
        if now_ns.wrapping_sub(self.second_began_ns) >= SECOND_NS {
            self.second_began_ns = now_ns;
            self.handshakes_left = self.limits.handshakes_per_second;
            // Handshakes of connections that the stack has dropped.
            self.publish();
        }
    }

    fn publish(&self) {
        self.records
            .counters
            .handshaking
            .set(u64::from(self.places.taken()));
    }
}
