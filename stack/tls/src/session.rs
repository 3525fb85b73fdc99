//! A connection with keys: records on one side, a service's plain text on the other.
//!
//! ```text
//!   records ──▶ Opener ──▶ plain text ──▶ service ──▶ Reply ──▶ Sealer, in place
//! ```
//!
//! It is the same for both sides of a connection, but for the few messages that only one of them may send.

use std::sync::Arc;

use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use rustls::kernel::KernelConnection;
use rustls::{Error, ExtractedSecrets, ProtocolVersion};

use crate::buffers::{Buffer, Pool};
use crate::counters::TlsCounters;
use crate::handshake::Side;
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

/// Contiguous room that a reply around `S` has at least.
pub(crate) const fn reply_bytes_min<S: Service>() -> usize {
    S::REPLY_BYTES_MIN + OVERHEAD_BYTES_MAX + SIGNAL_BYTES
}

/// What a core lends to its connections with keys.
pub(crate) struct Records {
    /// Plain text that a service is shown at once.
    input_bytes: usize,
    /// Plain text; more than a record fits behind what the service may be shown.
    plain: Pool,
    /// Beginnings of records.
    partial: Pool,
    pub(crate) counters: Arc<TlsCounters>,
}

impl Records {
    /// For so many connections.
    pub(crate) fn new(connections: u32, input_bytes: usize, counters: Arc<TlsCounters>) -> Self {
        Records {
            input_bytes,
            // One more, for the connection that is being served.
            plain: Pool::new(connections + 1, input_bytes + BODY_BYTES_MAX),
            partial: Pool::new(connections + 1, RECORD_BYTES_MAX),
            counters,
        }
    }
}

/// A connection with keys.
pub(crate) struct Session<D> {
    opener: Opener,
    sealer: Sealer,
    /// Where the next keys come from.
    keys: KernelConnection<D>,
    /// What the service has waited for since it was last called.
    next: Next,
    /// Plain text that it has not taken.
    plain: Kept,
    /// The beginning of a record.
    partial: Kept,
    /// It was told, or is to be, that the peer will send no more.
    ended: bool,
    /// It has not seen all there is, or is to be called anyway.
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

impl<D: Side> Session<D> {
    /// A connection whose service waits for `next`.
    ///
    /// # Errors
    ///
    /// If the suite is not one of the record layer's.
    pub(crate) fn new(
        secrets: ExtractedSecrets,
        keys: KernelConnection<D>,
        next: Next,
    ) -> Result<Self, Error> {
        let version = keys.protocol_version();
        let unknown = || Error::General("a suite without a record layer".into());
        Ok(Session {
            opener: Opener::new(version, secrets.rx).ok_or_else(unknown)?,
            sealer: Sealer::new(version, secrets.tx, records_max(&keys)).ok_or_else(unknown)?,
            keys,
            next,
            plain: Kept::default(),
            partial: Kept::default(),
            ended: false,
            is_news: false,
            key_update_due: false,
            idle_records: 0,
        })
    }

    /// Has the service called at the next [`Self::serve`], whether or not there is anything new.
    pub(crate) fn call(&mut self) {
        self.is_news = true;
    }

    /// Opens what has arrived, from `consumed` on, lets the service work on it, and seals its replies.
    pub(crate) fn serve<S: Service>(
        &mut self,
        service: &mut S,
        inner: &mut S::Connection,
        core: &mut Records,
        input: Input<'_>,
        mut consumed: usize,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let mut messages = 0;
        // Called without news, it was woken; that cannot be told from a record which is not whole.
        self.is_news |= matches!(
            self.next,
            Next::Wait | Next::Receive(Expect::Anything | Expect::Body | Expect::MoreBody)
        );
        let Some(buffer) = self.plain.buffer.take().or_else(|| core.plain.take()) else {
            return self.give_up(Alert::InternalError, input, reply);
        };
        let pause = loop {
            if reply.remaining() < reply_bytes_min::<S>() {
                break Pause::Next(Next::Send);
            }
            let (front, room) = self.room(reply);
            let mut content = Reply::new(&mut reply.spare()[front..][..room]);
            let turn = Turn {
                input,
                consumed: &mut consumed,
                messages: &mut messages,
            };
            let pause = self.fill((service, inner), core, &buffer, turn, &mut content);
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
    fn fill<S: Service>(
        &mut self,
        (service, inner): (&mut S, &mut S::Connection),
        core: &mut Records,
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
                    full: self.plain.len >= core.input_bytes,
                    ended: self.ended,
                };
                let progress = service.on_input(inner, shown, content);
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
                    // What follows is not opened before it wants more.
                    Next::Wait | Next::Close | Next::Abort => return Pause::Next(progress.next),
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
        core: &mut Records,
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
            // NewSessionTicket, and HelloRequest, which wants a second handshake and does not get it.
            (ContentType::Handshake, _) if D::CALLS && may_be_ignored(message) => {
                Ok(Brought::Nothing)
            }
            // ClientHello
            (ContentType::Handshake, [1, ..]) if !D::CALLS && !self.is_tls13() => {
                Err(Alert::NoRenegotiation)
            }
            (ContentType::Handshake | ContentType::ChangeCipherSpec, _) => {
                Err(Alert::UnexpectedMessage)
            }
        }
    }

    fn is_tls13(&self) -> bool {
        self.keys.protocol_version() == ProtocolVersion::TLSv1_3
    }

    /// The peer's key is new from the next record on.
    fn replace_their_key(&mut self, core: &Records) -> Result<(), Alert> {
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
    fn replace_our_key(&mut self, core: &Records, reply: &mut Reply<'_>) -> Result<(), Alert> {
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
    pub(crate) fn last_word<S: Service>(
        &mut self,
        (service, inner): (&mut S, &mut S::Connection),
        core: &Records,
        say: impl FnOnce(&mut S, &mut S::Connection, &mut Reply<'_>),
        reply: &mut Reply<'_>,
    ) {
        if reply.remaining() < reply_bytes_min::<S>() {
            return;
        }
        let (front, room) = self.room(reply);
        let mut content = Reply::new(&mut reply.spare()[front..][..room]);
        say(service, inner, &mut content);
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
    pub(crate) fn say(&mut self, alert: Alert, reply: &mut Reply<'_>) {
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
fn records_max<D>(keys: &KernelConnection<D>) -> u64 {
    match keys.negotiated_cipher_suite() {
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    }
}

/// Whether a record of a server's has nothing but whole messages that a client may leave unread.
fn may_be_ignored(mut messages: &[u8]) -> bool {
    const HELLO_REQUEST: u8 = 0;
    const NEW_SESSION_TICKET: u8 = 4;
    while let [HELLO_REQUEST | NEW_SESSION_TICKET, a, b, c, rest @ ..] = messages {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        match rest.get(len..) {
            Some(next) => messages = next,
            None => return false,
        }
    }
    messages.is_empty()
}

/// All input is of no use any more.
pub(crate) fn ending(input: Input<'_>, next: Next) -> Progress {
    Progress {
        consumed: input.bytes.len(),
        messages: 0,
        next,
    }
}
