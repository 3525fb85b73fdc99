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

/// Most records in a row without application data; RFC 8446, sections 4.6.3 and 5.1, sets no limit.
const IDLE_RECORDS_MAX: u8 = 32;
/// Room for an alert and a KeyUpdate beside a record of content, in bytes.
const SIGNAL_BYTES: usize = 2 * (OVERHEAD_BYTES_MAX + KEY_UPDATE.len());
/// A KeyUpdate that asks for none in return (RFC 8446, section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Least room of a reply around `S`, in contiguous bytes.
pub(crate) const fn reply_bytes_min<S: Service>() -> usize {
    S::REPLY_BYTES_MIN + OVERHEAD_BYTES_MAX + SIGNAL_BYTES
}

/// The buffers and counters that the connections of a core share.
pub(crate) struct Records {
    /// Most plain text that a service is shown at once, in bytes.
    input_bytes: usize,
    /// For plain text: a record fits behind what the service may be shown.
    plain: Pool,
    /// For beginnings of records.
    partial: Pool,
    pub(crate) counters: Arc<TlsCounters>,
}

impl Records {
    /// For `connections` at once, whose service is shown `input_bytes` at once.
    pub(crate) fn new(connections: u32, input_bytes: usize, counters: Arc<TlsCounters>) -> Self {
        Records {
            input_bytes,
            // One more for the connection that is being served.
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
    /// Derives the next keys.
    keys: KernelConnection<D>,
    /// What the service has asked for when it was last called.
    next: Next,
    /// Plain text that it has not taken.
    plain: Kept,
    /// The beginning of a record.
    partial: Kept,
    /// The peer sends no more; the service has been told, or will be.
    ended: bool,
    /// The service has to be called: it has not seen all plain text, or may have been woken.
    is_news: bool,
    /// The key of this side is to be replaced by a KeyUpdate.
    key_update_due: bool,
    /// Records in a row without application data.
    idle_records: u8,
    /// The alert by which the peer ended the connection.
    alert: Option<u8>,
}

/// The used front of a buffer.
#[derive(Default)]
struct Kept {
    buffer: Option<Buffer>,
    len: usize,
}

/// The effect of a record.
enum Brought {
    /// The service has to be called.
    News,
    /// The service need not know.
    Nothing,
    /// The record is incomplete.
    Half,
    /// The peer has ended the connection by an alert.
    Fatal,
}

/// Why the content of a record ends here.
enum Pause {
    /// The service needs new room.
    Room,
    /// The stack has to do this first.
    Next(Next),
    /// The connection ends with this alert.
    Alert(Alert),
}

impl<D: Side> Session<D> {
    /// A connection whose service waits for `next`.
    ///
    /// # Errors
    ///
    /// If the record layer does not have the suite.
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
            alert: None,
        })
    }

    /// The alert by which the peer ended the connection, if it did.
    pub(crate) fn alert(&self) -> Option<u8> {
        self.alert
    }

    /// Makes the next [`Self::serve`] call the service, with or without new input.
    pub(crate) fn call(&mut self) {
        self.is_news = true;
    }

    /// Opens the records in `input` from `consumed` on, calls the service with their content, and seals its replies.
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
        // A call without input may be a wake-up; it cannot be told from an incomplete record.
        self.is_news |= matches!(
            self.next,
            Next::Wait | Next::Receive(Expect::Anything | Expect::Body | Expect::MoreBody)
        );
        let Some(buffer) = self.plain.buffer.take().or_else(|| core.plain.take()) else {
            return self.end_with(Alert::InternalError, input, reply);
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
                    // TLS 1.2 has no KeyUpdate.
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
        // An empty buffer goes back to the pool.
        self.plain.buffer = (self.plain.len > 0).then_some(buffer);
        let next = match pause {
            Pause::Alert(alert) => {
                core.counters.records_refused.increment();
                return self.end_with(alert, input, reply);
            }
            Pause::Room => Next::Send,
            Pause::Next(next) => next,
        };
        match next {
            Next::Close => {
                self.send_alert(Alert::CloseNotify, reply);
                consumed = input.bytes.len();
            }
            // An incomplete record has the deadline of a head.
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

    /// Calls the service until the content of one record is written, or until it waits.
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
                        // An empty record may have room enough.
                        return match before {
                            0 => Pause::Next(Next::Send),
                            _ => Pause::Room,
                        };
                    }
                    Next::Send => continue,
                    // The next record is opened when the service wants more.
                    Next::Wait | Next::Close | Next::Abort => return Pause::Next(progress.next),
                    Next::Receive(_) if self.ended => return Pause::Next(Next::Close),
                    // The service waits for more than it may be shown.
                    Next::Receive(_) if is_stuck => return Pause::Next(Next::Abort),
                    Next::Receive(_) => {}
                }
            }
            match self.next_record(core, buffer, &mut turn) {
                Ok(Brought::News) => self.is_news = true,
                Ok(Brought::Nothing) => {}
                Ok(Brought::Half) if turn.input.ended && !self.ended => {
                    core.counters.truncated.increment();
                    if D::CALLS {
                        // RFC 9112, section 9.8: what ends with the stream would look complete.
                        return Pause::Next(Next::Abort);
                    }
                    self.ended = true;
                    self.is_news = true;
                }
                Ok(Brought::Half) => return Pause::Next(self.next),
                Ok(Brought::Fatal) => return Pause::Next(Next::Close),
                Err(alert) => return Pause::Alert(alert),
            }
        }
    }

    /// Opens the next record behind the plain text that is kept, and handles what is not application data.
    fn next_record(
        &mut self,
        core: &mut Records,
        buffer: &Buffer,
        turn: &mut Turn<'_>,
    ) -> Result<Brought, Alert> {
        if self.ended {
            // RFC 8446, section 6.1: what follows close_notify is ignored.
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
            (ContentType::Alert, &[_, alert]) => {
                self.alert = Some(alert);
                Ok(Brought::Fatal)
            }
            (ContentType::Alert, _) => Err(Alert::DecodeError),
            (ContentType::Handshake, &[24, 0, 0, 1, asks @ 0..=1]) if self.is_tls13() => {
                self.key_update_due |= asks == 1;
                self.replace_their_key(core)?;
                Ok(Brought::Nothing)
            }
            // NewSessionTicket; and HelloRequest, which a client may ignore (RFC 5246, section 7.4.1.1).
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

    /// Takes a new key for the records of the peer that follow.
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

    /// Sends a KeyUpdate, and takes a new key for the records of this side that follow.
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

    /// Sends what the service writes in `write`, and close_notify.
    pub(crate) fn send_last<S: Service>(
        &mut self,
        (service, inner): (&mut S, &mut S::Connection),
        core: &Records,
        write: impl FnOnce(&mut S, &mut S::Connection, &mut Reply<'_>),
        reply: &mut Reply<'_>,
    ) {
        if reply.remaining() < reply_bytes_min::<S>() {
            return;
        }
        let (front, room) = self.room(reply);
        let mut content = Reply::new(&mut reply.spare()[front..][..room]);
        write(service, inner, &mut content);
        let written = content.len();
        if written > 0
            && self
                .seal(ContentType::ApplicationData, written, reply)
                .is_ok()
        {
            core.counters.records_out.increment();
        }
        self.send_alert(Alert::CloseNotify, reply);
    }

    /// Sends an alert and ends the connection.
    fn end_with(&mut self, alert: Alert, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        self.send_alert(alert, reply);
        self.next = Next::Close;
        ending(input, Next::Close)
    }

    /// Where the content of a record begins in the free part of `reply`, and how long it may be, in bytes. The reply
    /// has room for at least [`reply_bytes_min`].
    fn room(&self, reply: &Reply<'_>) -> (usize, usize) {
        let (front, back) = (self.sealer.front_bytes(), self.sealer.back_bytes());
        let room = reply.remaining() - SIGNAL_BYTES - front - back;
        (front, room.min(CONTENT_BYTES_MAX))
    }

    /// Writes an alert if there is room: the reply may have been full before.
    pub(crate) fn send_alert(&mut self, alert: Alert, reply: &mut Reply<'_>) {
        let level = match alert {
            Alert::CloseNotify => 1,
            _ => 2,
        };
        // Without room, the connection ends without it.
        let _ = self.signal(ContentType::Alert, &[level, alert as u8], reply);
    }

    /// Writes a record that is not of application data.
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

    /// Seals the content that has been written behind the place of the header.
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

/// The input of one call, and how much of it has been used.
struct Turn<'a> {
    input: Input<'a>,
    consumed: &'a mut usize,
    messages: &'a mut u32,
}

impl Kept {
    /// Copies input up to the end of a record. Returns how many bytes it took, and whether the record is whole.
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

/// How many records a key may protect.
fn records_max<D>(keys: &KernelConnection<D>) -> u64 {
    match keys.negotiated_cipher_suite() {
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    }
}

/// Whether a record consists of whole messages that a client may ignore.
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

/// Discards all input.
pub(crate) fn ending(input: Input<'_>, next: Next) -> Progress {
    Progress {
        consumed: input.bytes.len(),
        messages: 0,
        next,
    }
}
