//! TLS around a service, as a service.
//!
//! ```text
//!   stack ──▶ Tls ──▶ Plain ───────────────────────────────▶ inner service      a listener without TLS
//!                ├──▶ Handshaking (rustls) ──▶ alert, or keys ─┐
//!                └──▶ Open ◀───────────────────────────────────┘
//!                       records ──▶ Opener ──▶ plain text ──▶ inner service ──▶ Reply ──▶ Sealer, in place
//! ```
//!
//! What arrives is consumed at once, a beginning of a record included: the stack's receive buffer may be shorter than a
//! record. Plain text that the inner service does not take is kept, and no more than it may be shown at once is opened;
//! then the rest waits with the stack, and the peer meets a closed window.

use std::sync::Arc;

use barewire_service::service::{
    Agreed, Arrival, End, Expect, Input, Next, Progress, Reply, Service, Want,
};
use barewire_service::time::Instant;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{Error, ProtocolVersion};

use crate::buffers::{Buffer, Pool};
use crate::counters::TlsCounters;
use crate::handshake::{Handshake, Keys, Places, Step};
use crate::identity::{Follower, Identity};
use crate::record::{
    Alert, BODY_BYTES_MAX, CONTENT_BYTES_MAX, ContentType, HEADER_BYTES, OVERHEAD_BYTES_MAX,
    Opener, RECORD_BYTES_MAX, Sealer, record_bytes,
};

/// Records in a row that bring the service nothing (RFC 8446, section 5.1 and 4.6.3, allows them, for ever).
const IDLE_RECORDS_MAX: u8 = 32;
/// Room for an alert and a KeyUpdate beside a record of content.
const SIGNAL_BYTES: usize = 2 * (OVERHEAD_BYTES_MAX + KEY_UPDATE.len());
/// A KeyUpdate that asks for none in return (RFC 8446, section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// The limits of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsLimits {
    /// Connections that the stack holds at most.
    pub connections: u32,
    /// Plain text that the inner service is shown at once, in bytes; a message that it takes as a whole has to fit.
    pub input_bytes: usize,
    /// Handshakes that may go on at once; a connection beyond is refused.
    pub handshakes_max: u32,
    /// Handshakes that may begin within a second, so that they leave the core time for requests; a connection beyond is
    /// refused.
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

/// What a core has for its connections, whatever the service.
struct Core {
    /// Listeners with a lower index are without TLS.
    first_listener: usize,
    identity: Follower,
    limits: TlsLimits,
    counters: Arc<TlsCounters>,
    places: Places,
    /// Handshakes that may still begin in this second.
    handshakes_left: u32,
    second_began_ns: u64,
    /// Plain text; more than a record fits behind what the service may be shown.
    plain: Pool,
    /// Beginnings of records.
    partial: Pool,
}

/// The state of a connection.
pub struct Connection<C>(State<C>);

enum State<C> {
    Plain(C),
    /// To be ended before anything was said.
    Refused,
    Handshaking {
        listener: usize,
        handshake: Box<Handshake>,
    },
    Open(Box<Open<C>>),
    /// Nothing is expected of it any more.
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
    opener: Opener,
    sealer: Sealer,
    /// Where the next keys come from.
    keys: KernelConnection<ServerConnectionData>,
    /// What the inner service has waited for since it was last called.
    next: Next,
    /// Plain text that it has not taken.
    plain: Kept,
    /// The beginning of a record.
    partial: Kept,
    /// It was told, or is to be, that the peer will send no more.
    ended: bool,
    /// It has not seen all there is.
    is_news: bool,
    /// Our key is to be replaced, with a word to the peer.
    key_update_due: bool,
    /// Records in a row that brought nothing.
    idle_records: u8,
}

/// The front of a buffer.
#[derive(Default)]
struct Kept {
    buffer: Option<Buffer>,
    len: usize,
}

/// What a record brought.
enum Brought {
    /// Something for the service.
    News,
    /// Something for nobody else.
    Nothing,
    /// It is not whole yet.
    Half,
    /// The peer has given up.
    Fatal,
}

/// Why a record is to be sealed.
enum Pause {
    /// The service is to be called again, with new room.
    Room,
    /// The service, or the peer, has to do something first.
    Next(Next),
    /// The peer broke a rule, or we did.
    Alert(Alert),
}

impl<S: Service> Tls<S> {
    /// TLS around `inner` on the listeners from `first_listener` on; the others are `inner`'s as they are.
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
        let plain_bytes = limits.input_bytes + BODY_BYTES_MAX;
        Tls {
            inner,
            core: Core {
                first_listener,
                identity: Follower::new(identity),
                places: Places::new(limits.handshakes_max),
                handshakes_left: limits.handshakes_per_second,
                second_began_ns: 0,
                // One more, for the connection that is being served.
                plain: Pool::new(limits.connections + 1, plain_bytes),
                partial: Pool::new(limits.connections + 1, RECORD_BYTES_MAX),
                limits,
                counters,
            },
        }
    }
}

impl<S> Tls<S> {
    /// The service inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Service> Service for Tls<S> {
    type Connection = Connection<S::Connection>;

    const REPLY_BYTES_MIN: usize = S::REPLY_BYTES_MIN + OVERHEAD_BYTES_MAX + SIGNAL_BYTES;

    fn on_accept(&mut self, arrival: Arrival<'_>) -> (Self::Connection, Expect) {
        if arrival.listener < self.core.first_listener {
            let (connection, expect) = self.inner.on_accept(arrival);
            return (Connection(State::Plain(connection)), expect);
        }
        let state = self.core.begin(arrival.listener);
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
            State::Open(open) => open.serve(inner, core, input, 0, reply),
            State::Handshaking { .. } => self.shake_hands(connection, input, reply),
            State::Refused => ending(input, Next::Abort),
            State::Over => ending(input, Next::Close),
        }
    }

    fn on_timeout(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            State::Plain(plain) => self.inner.on_timeout(plain, reply),
            State::Handshaking { .. } => {
                self.core.counters.failed_timeout.increment();
                connection.0 = State::Over;
            }
            State::Open(open) => open.last_word(&mut self.inner, &self.core, S::on_timeout, reply),
            State::Refused | State::Over => {}
        }
    }

    fn on_dismiss(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            State::Plain(plain) => self.inner.on_dismiss(plain, reply),
            State::Open(open) => open.last_word(&mut self.inner, &self.core, S::on_dismiss, reply),
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

    fn wants(&mut self, now: Instant) -> Want {
        self.inner.wants(now)
    }

    fn on_open(&mut self, token: u64) -> Self::Connection {
        Connection(State::Plain(self.inner.on_open(token)))
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
    /// Goes on with the handshake, and with what follows when that is complete.
    fn shake_hands(
        &mut self,
        connection: &mut Connection<S::Connection>,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let core = &mut self.core;
        let State::Handshaking {
            listener,
            handshake,
        } = &mut connection.0
        else {
            return ending(input, Next::Abort);
        };
        let listener = *listener;
        let (consumed, step) = handshake.advance(input.bytes, reply);
        let next = match step {
            Step::Receive if !input.ended => Next::Receive(Expect::Handshake),
            Step::Receive => {
                core.counters.failed_ended.increment();
                Next::Close
            }
            Step::Send => Next::Send,
            Step::Complete => {
                return self.open(connection, listener, input, consumed, reply);
            }
            Step::Failed(error) => {
                core.counters.failed(&error);
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

    /// The handshake is complete: the inner service takes the connection.
    fn open(
        &mut self,
        connection: &mut Connection<S::Connection>,
        listener: usize,
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
            let accept = |agreed: Agreed<'_>| {
                inner.on_accept(Arrival {
                    listener,
                    tls: Some(agreed),
                })
            };
            Open::new(keys, accept, &core.counters)
        });
        core.publish();
        match opened {
            Ok(mut open) => {
                // It may have room for less than the service's least: then it is called again.
                let progress = open.serve(inner, core, input, consumed, reply);
                connection.0 = State::Open(Box::new(open));
                progress
            }
            Err(error) => {
                core.counters.failed(&error);
                ending(input, Next::Abort)
            }
        }
    }
}

impl Core {
    /// A connection that shakes hands, if it may.
    fn begin<C>(&mut self, listener: usize) -> State<C> {
        let Some(left) = self.handshakes_left.checked_sub(1) else {
            self.counters.refused_rate.increment();
            return State::Refused;
        };
        let Some(place) = self.places.take() else {
            self.counters.refused_handshaking.increment();
            return State::Refused;
        };
        self.handshakes_left = left;
        self.publish();
        match Handshake::new(self.identity.current(), place) {
            Ok(handshake) => State::Handshaking {
                listener,
                handshake: Box::new(handshake),
            },
            Err(error) => {
                self.counters.failed(&error);
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
            // Peers that went away in the middle of one.
            self.publish();
        }
    }

    fn publish(&self) {
        self.counters
            .handshaking
            .set(u64::from(self.places.taken()));
    }
}

/// All input is of no use any more.
fn ending(input: Input<'_>, next: Next) -> Progress {
    Progress {
        consumed: input.bytes.len(),
        messages: 0,
        next,
    }
}

impl<C: Default> Open<C> {
    fn new(
        keys: Keys,
        accept: impl FnOnce(Agreed<'_>) -> (C, Expect),
        counters: &TlsCounters,
    ) -> Result<Self, Error> {
        let Keys {
            secrets,
            connection,
            alpn,
            is_resumed,
        } = keys;
        let version = connection.protocol_version();
        let suite = connection.negotiated_cipher_suite();
        let unknown = || Error::General("a suite without a record layer".into());
        let alpn = alpn.as_deref();
        counters.completed(version, suite.suite(), is_resumed, alpn);
        let (inner, expect) = accept(Agreed { alpn });
        Ok(Open {
            inner,
            opener: Opener::new(version, secrets.rx).ok_or_else(unknown)?,
            sealer: Sealer::new(version, secrets.tx, records_max(&connection))
                .ok_or_else(unknown)?,
            keys: connection,
            next: Next::Receive(expect),
            plain: Kept::default(),
            partial: Kept::default(),
            ended: false,
            is_news: false,
            key_update_due: false,
            idle_records: 0,
        })
    }

    /// Opens what has arrived, from `consumed` on, lets the service work on it, and seals its replies.
    fn serve<S: Service<Connection = C>>(
        &mut self,
        service: &mut S,
        core: &mut Core,
        input: Input<'_>,
        mut consumed: usize,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let mut messages = 0;
        let Some(buffer) = self.plain.buffer.take().or_else(|| core.plain.take()) else {
            return self.give_up(Alert::InternalError, input, reply);
        };
        let pause = loop {
            if reply.remaining() < <Tls<S> as Service>::REPLY_BYTES_MIN {
                break Pause::Next(Next::Send);
            }
            let (front, room) = self.room(reply);
            let mut content = Reply::new(&mut reply.spare()[front..][..room]);
            let turn = Turn {
                input,
                consumed: &mut consumed,
                messages: &mut messages,
            };
            let pause = self.fill(service, core, &buffer, turn, &mut content);
            let written = content.len();
            if matches!(pause, Pause::Next(Next::Abort)) {
                break pause;
            }
            if written > 0 {
                if let Err(alert) = self.seal(ContentType::ApplicationData, written, reply) {
                    break Pause::Alert(alert);
                }
                core.counters.records_out.increment();
            }
            if self.sealer.is_spent() && !self.key_update_due {
                if !self.is_tls13() {
                    // No other key can be had.
                    break Pause::Next(Next::Close);
                }
                self.key_update_due = true;
            }
            if self.key_update_due
                && let Err(alert) = self.replace_our_key(core, reply)
            {
                break Pause::Alert(alert);
            }
            match pause {
                Pause::Room => {}
                _ => break pause,
            }
        };
        // A buffer is kept only for what is in it.
        self.plain.buffer = (self.plain.len > 0).then_some(buffer);
        let next = match pause {
            Pause::Alert(alert) => {
                core.counters.records_refused.increment();
                return self.give_up(alert, input, reply);
            }
            Pause::Room => Next::Send,
            Pause::Next(next) => next,
        };
        match next {
            Next::Close => {
                self.say(Alert::CloseNotify, reply);
                consumed = input.bytes.len();
            }
            // What has begun has to be finished in time.
            Next::Receive(Expect::Message) if self.partial.len > 0 => {
                return Progress {
                    consumed,
                    messages,
                    next: Next::Receive(Expect::Head),
                };
            }
            _ => {}
        }
        Progress {
            consumed,
            messages,
            next,
        }
    }

    /// Lets the service write one record's content.
    fn fill<S: Service<Connection = C>>(
        &mut self,
        service: &mut S,
        core: &mut Core,
        buffer: &Buffer,
        mut turn: Turn<'_>,
        content: &mut Reply<'_>,
    ) -> Pause {
        loop {
            if self.is_news || self.next == Next::Send {
                if content.remaining() < S::REPLY_BYTES_MIN {
                    return Pause::Room;
                }
                let before = content.len();
                let plain = core.plain.bytes(buffer);
                let shown = Input {
                    bytes: &plain[..self.plain.len],
                    full: self.plain.len >= core.limits.input_bytes,
                    ended: self.ended,
                };
                let progress = service.on_input(&mut self.inner, shown, content);
                let taken = progress.consumed;
                let is_stuck = shown.full && taken == 0;
                assert!(
                    taken <= self.plain.len,
                    "service consumed bytes it was not shown"
                );
                plain.copy_within(taken..self.plain.len, 0);
                self.plain.len -= taken;
                *turn.messages += progress.messages;
                self.next = progress.next;
                self.is_news = false;
                match progress.next {
                    Next::Send if taken == 0 && content.len() == before => {
                        // With a record of its own it may have room enough.
                        return match before {
                            0 => Pause::Next(Next::Send),
                            _ => Pause::Room,
                        };
                    }
                    Next::Send => continue,
                    Next::Close | Next::Abort => return Pause::Next(progress.next),
                    Next::Receive(_) if self.ended => return Pause::Next(Next::Close),
                    // No byte can be added: it would wait for ever.
                    Next::Receive(_) if is_stuck => return Pause::Next(Next::Abort),
                    Next::Receive(_) => {}
                }
            }
            match self.next_record(core, buffer, &mut turn) {
                Ok(Brought::News) => self.is_news = true,
                Ok(Brought::Nothing) => {}
                Ok(Brought::Half) if turn.input.ended && !self.ended => {
                    core.counters.truncated.increment();
                    self.ended = true;
                    self.is_news = true;
                }
                Ok(Brought::Half) => return Pause::Next(self.next),
                Ok(Brought::Fatal) => return Pause::Next(Next::Close),
                Err(alert) => return Pause::Alert(alert),
            }
        }
    }

    /// Opens the next record behind the plain text that is kept, and does what it asks for itself.
    fn next_record(
        &mut self,
        core: &mut Core,
        buffer: &Buffer,
        turn: &mut Turn<'_>,
    ) -> Result<Brought, Alert> {
        if self.ended {
            // What follows an end means nothing.
            *turn.consumed = turn.input.bytes.len();
            return Ok(Brought::Half);
        }
        let space = &mut core.plain.bytes(buffer)[self.plain.len..];
        let rest = &turn.input.bytes[*turn.consumed..];
        let whole = match self.partial.len {
            0 => record_bytes(rest)?.filter(|&len| len <= rest.len()),
            _ => None,
        };
        let (kind, content) = if let Some(len) = whole {
            *turn.consumed += len;
            self.opener.open(&rest[..len], space)?
        } else {
            let (taken, is_whole) = self.partial.take_record(rest, &mut core.partial)?;
            *turn.consumed += taken;
            let buffer = match self.partial.buffer.take() {
                Some(buffer) if is_whole => buffer,
                kept => {
                    self.partial.buffer = kept;
                    return Ok(Brought::Half);
                }
            };
            let record = &core.partial.bytes(&buffer)[..self.partial.len];
            self.partial.len = 0;
            self.opener.open(record, space)?
        };
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS_MAX {
            return Err(Alert::UnexpectedMessage);
        }
        let message = &space[..content];
        match (kind, message) {
            (ContentType::ApplicationData, []) => Ok(Brought::Nothing),
            (ContentType::ApplicationData, _) => {
                core.counters.records_in.increment();
                self.idle_records = 0;
                self.plain.len += content;
                Ok(Brought::News)
            }
            (ContentType::Alert, [_, 0]) => {
                self.ended = true;
                Ok(Brought::News)
            }
            // user_canceled, and warnings of TLS 1.2.
            (ContentType::Alert, [_, 90]) => Ok(Brought::Nothing),
            (ContentType::Alert, [1, _]) if !self.is_tls13() => Ok(Brought::Nothing),
            (ContentType::Alert, [_, _]) => Ok(Brought::Fatal),
            (ContentType::Alert, _) => Err(Alert::DecodeError),
            (ContentType::Handshake, &[24, 0, 0, 1, asks @ 0..=1]) if self.is_tls13() => {
                self.key_update_due |= asks == 1;
                self.replace_their_key(core)?;
                Ok(Brought::Nothing)
            }
            // ClientHello
            (ContentType::Handshake, [1, ..]) if !self.is_tls13() => Err(Alert::NoRenegotiation),
            (ContentType::Handshake | ContentType::ChangeCipherSpec, _) => {
                Err(Alert::UnexpectedMessage)
            }
        }
    }

    fn is_tls13(&self) -> bool {
        self.keys.protocol_version() == ProtocolVersion::TLSv1_3
    }

    /// The peer's key is new from the next record on.
    fn replace_their_key(&mut self, core: &Core) -> Result<(), Alert> {
        let secrets = self
            .keys
            .update_rx_secret()
            .map_err(|_| Alert::InternalError)?;
        let opener = Opener::new(self.keys.protocol_version(), secrets);
        self.opener = opener.ok_or(Alert::InternalError)?;
        core.counters.key_updates.increment();
        Ok(())
    }

    /// Says that our key is new from the next record on, and makes it so.
    fn replace_our_key(&mut self, core: &Core, reply: &mut Reply<'_>) -> Result<(), Alert> {
        self.key_update_due = false;
        self.signal(ContentType::Handshake, &KEY_UPDATE, reply)?;
        let secrets = self
            .keys
            .update_tx_secret()
            .map_err(|_| Alert::InternalError)?;
        let records = records_max(&self.keys);
        let sealer = Sealer::new(self.keys.protocol_version(), secrets, records);
        self.sealer = sealer.ok_or(Alert::InternalError)?;
        core.counters.key_updates.increment();
        Ok(())
    }

    /// What the service has to say by `say` is sent, and that this is the end.
    fn last_word<S: Service<Connection = C>>(
        &mut self,
        service: &mut S,
        core: &Core,
        say: impl FnOnce(&mut S, &mut C, &mut Reply<'_>),
        reply: &mut Reply<'_>,
    ) {
        if reply.remaining() < <Tls<S> as Service>::REPLY_BYTES_MIN {
            return;
        }
        let (front, room) = self.room(reply);
        let mut content = Reply::new(&mut reply.spare()[front..][..room]);
        say(service, &mut self.inner, &mut content);
        let written = content.len();
        if written > 0
            && self
                .seal(ContentType::ApplicationData, written, reply)
                .is_ok()
        {
            core.counters.records_out.increment();
        }
        self.say(Alert::CloseNotify, reply);
    }

    /// Ends the connection with an alert.
    fn give_up(&mut self, alert: Alert, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        self.say(alert, reply);
        self.next = Next::Close;
        ending(input, Next::Close)
    }

    /// Where a record's content begins in `reply`, which has room for the least, and how long it may be.
    fn room(&self, reply: &Reply<'_>) -> (usize, usize) {
        let (front, back) = (self.sealer.front_bytes(), self.sealer.back_bytes());
        let room = reply.remaining() - SIGNAL_BYTES - front - back;
        (front, room.min(CONTENT_BYTES_MAX))
    }

    /// Writes an alert if there is room, which there is unless the reply was full before.
    fn say(&mut self, alert: Alert, reply: &mut Reply<'_>) {
        let level = match alert {
            Alert::CloseNotify => 1,
            _ => 2,
        };
        // The connection ends in any case.
        let _ = self.signal(ContentType::Alert, &[level, alert as u8], reply);
    }

    /// Writes a record of our own.
    fn signal(
        &mut self,
        kind: ContentType,
        message: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Alert> {
        let front = self.sealer.front_bytes();
        let space = reply.spare().get_mut(front..front + message.len());
        space.ok_or(Alert::InternalError)?.copy_from_slice(message);
        self.seal(kind, message.len(), reply)
    }

    /// Makes a record of what is behind the place of its header.
    fn seal(
        &mut self,
        kind: ContentType,
        content_bytes: usize,
        reply: &mut Reply<'_>,
    ) -> Result<(), Alert> {
        let len = self.sealer.seal(reply.spare(), kind, content_bytes)?;
        reply.advance(len);
        Ok(())
    }
}

/// What one call of a service is about.
struct Turn<'a> {
    input: Input<'a>,
    consumed: &'a mut usize,
    messages: &'a mut u32,
}

impl Kept {
    /// Takes what `input` has of the record that is begun here. Returns how many bytes that were, and whether the
    /// record is whole.
    fn take_record(&mut self, input: &[u8], pool: &mut Pool) -> Result<(usize, bool), Alert> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            if self.buffer.is_none() {
                if rest.is_empty() {
                    return Ok((taken, false));
                }
                self.buffer = pool.take();
            }
            let Some(buffer) = &self.buffer else {
                return Err(Alert::InternalError);
            };
            let space = pool.bytes(buffer);
            let missing = match record_bytes(&space[..self.len])? {
                Some(whole) if whole == self.len => return Ok((taken, true)),
                Some(whole) => whole - self.len,
                None => HEADER_BYTES - self.len,
            };
            if rest.is_empty() {
                return Ok((taken, false));
            }
            let part = &rest[..missing.min(rest.len())];
            space[self.len..][..part.len()].copy_from_slice(part);
            self.len += part.len();
            taken += part.len();
        }
    }
}

/// How many records a key may be used for.
fn records_max(keys: &KernelConnection<ServerConnectionData>) -> u64 {
    match keys.negotiated_cipher_suite() {
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    }
}
