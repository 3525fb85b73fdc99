//! What runs on the bytes of a connection.
//!
//! A [`Service`] is a protocol without I/O: it reads what arrived, writes what shall be sent, and
//! says what it waits for. It never sees a socket, a frame, a thread or a clock, so the same value
//! runs on AF_XDP, on the kernel's own stack, in a fuzz target and in a benchmark.
//!
//! ```text
//!                    ┌────────────── a stack (shard, epoll, io_uring, a test) ─────────────┐
//!   bytes arrive ──▶ │ Input { bytes, full, ended } ──▶ Service::on_input ──▶ Progress     │
//!   room to send ──▶ │                     Reply  ◀───────────┘        │                   │
//!   a deadline   ──▶ │                                    consumed, messages, next         │
//!                    └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The contract between the two:
//!
//! * The stack calls [`Service::on_accept`] once for a connection that a peer opened, before anything else.
//! * The stack calls [`Service::on_input`] when bytes were added, when the peer ended its stream, or
//!   when the service asked for room ([`Next::Send`]) and at least [`Service::REPLY_BYTES_MIN`] are free.
//! * Bytes that the service did not consume are shown again, in front of newer ones, at the next
//!   call. `bytes` is always one slice.
//! * Whatever was written to [`Reply`] is sent, in order, also when the service then closes.
//! * The stack, not the service, keeps the deadlines ([`Expect`]), and closes a connection whose
//!   peer ended its stream as soon as the service wants nothing but more input.
//!
//! A service can also call, and answer later than it was asked. In every turn it is asked what it
//! [`wants`](Service::wants), after everything that has arrived was shown to it:
//!
//! ```text
//!   in every turn ──▶ Service::wants ──▶ Connect     ──▶ Service::on_open ──▶ SYN …
//!                                        Wake(id)    ──▶ on_input, with what was not consumed, in the same turn
//!                                        Abort(id)   ──▶ RST, on_end
//!                                        Call        ──▶ on_input without input, on an idle connection
//!   established   ──▶ Service::on_input, without input: the service speaks first
//!   over          ──▶ Service::on_end, once for each on_accept and on_open
//! ```
//!
//! Every connection has an [`Id`], which its service may keep: one that is over is never meant by it
//! again. So one connection can go on with what another one brought, and hold the other back:
//!
//! ```text
//!   client ─▶ on_input: a request; Next::Wait ──────── kept, Wake(origin) ────────▶ on_input: to the origin
//!   client ◀─ on_input: the response ◀─ Wake(client) ── kept ◀─ on_input: the response, Next::Wait when full
//! ```
//!
//! The kernel stacks do all of it, as far as their configuration says. `barewire-tcp` does less so far: a shard
//! that was given an `Outbound` accepts nothing, and all that it opens leads to one place ([`Want::Open`]); no
//! connection is woken there, so that one which waits for it ([`Next::Wait`]) is reset; all have the same
//! [`Id`]; and [`Service::on_end`] tells of those only that were opened.

use std::io;
use std::net::SocketAddr;

use crate::time::Instant;

/// What a core runs on top of its connections. One value per core: `&mut self`, no locks.
pub trait Service {
    /// Protocol state of one connection; small, dropped when the connection is over.
    type Connection: Default;

    /// Contiguous room, in bytes, that a [`Reply`] has at least whenever the service is called.
    ///
    /// Large enough for the longest thing that must not be split (a response's head, an error).
    const REPLY_BYTES_MIN: usize;

    /// Consumes messages from the front of `input` and appends replies to `reply`.
    ///
    /// Called again with the rest of the input as long as it makes progress possible; see the
    /// module documentation for when.
    fn on_input(
        &mut self,
        connection: &mut Self::Connection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress;

    /// The state of a connection that a peer has opened, and what is waited for first.
    fn on_accept(&mut self, arrival: Arrival<'_>) -> (Self::Connection, Expect) {
        let _ = arrival;
        (Self::Connection::default(), Expect::Message)
    }

    /// The deadline of what the service expected has passed: the last chance to say so to the peer.
    ///
    /// The stack sends what was written and closes the connection.
    fn on_timeout(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        let _ = (connection, reply);
    }

    /// The server drains, and of this connection nothing but another message was expected: the last chance to say so.
    ///
    /// The stack sends what was written and closes the connection.
    fn on_dismiss(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        let _ = (connection, reply);
    }

    /// Tells the time, before the first input and at least once in every second with traffic.
    ///
    /// `unix_time_s` counts seconds since 1970 without leap seconds.
    fn on_clock(&mut self, unix_time_s: u64) {
        let _ = unix_time_s;
    }

    /// Passes on the time that the stack has read: before the inputs of a batch, and again
    /// when all that was written is on its way.
    ///
    /// `now_ns` counts nanoseconds from some moment in the past, and never goes back.
    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        let _ = now_ns;
    }

    /// From now on, every connection shall end after the message it is in.
    fn on_drain(&mut self) {}

    /// The drain is called off: the server goes on as before.
    fn on_stay(&mut self) {}

    /// What shall happen of the service's own accord. Asked in every turn, when all that has arrived was
    /// shown, again and again until it is [`Want::Nothing`] or cannot be had.
    fn wants(&mut self, now: Instant) -> Want {
        let _ = now;
        Want::Nothing { until: None }
    }

    /// The state of a connection that is being opened because [`Want::Open`] or [`Want::Connect`] said so,
    /// with its token.
    ///
    /// The answer of the peer may arrive at another core, which then goes on with the connection: its
    /// service is asked for the state anew, with the same token, and this one's is told
    /// [`End::HandedOver`].
    fn on_open(&mut self, token: u64, id: Id) -> Self::Connection {
        let _ = (token, id);
        Self::Connection::default()
    }

    /// All that is worth keeping of a connection that is at rest: between two messages, with nothing half done and
    /// nothing left to say. 0 stands for the default. `None` if there is more to it than a byte.
    ///
    /// A stack with many connections keeps the state of those only that are not at rest, and shows the others a
    /// state that was [resumed](Service::resume).
    #[inline]
    fn rest(connection: &Self::Connection) -> Option<u8> {
        let _ = connection;
        None
    }

    /// Makes of the state of any connection that is at rest, a new one say, that of which [`Service::rest`] said
    /// `rest`.
    #[inline]
    fn resume(connection: &mut Self::Connection, rest: u8) {
        let _ = (connection, rest);
    }

    /// All that another process needs to go on with a connection, beside its socket and what was shown of the input and not
    /// consumed: it tells its service that the connection was accepted, [resumes](Service::resume) it, and shows it that
    /// input again. `None` if there is more to it.
    fn departs(connection: &Self::Connection) -> Option<u8> {
        Self::rest(connection)
    }

    /// A connection is over, whoever opened it. What its peer still has to say is not waited for.
    ///
    /// A stack that is told to stop at once does not say so.
    fn on_end(&mut self, connection: &mut Self::Connection, end: End) {
        let _ = (connection, end);
    }
}

/// Which connection of a core. Another one never has the same, so that a service may keep it longer than
/// the connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Id {
    /// Its place in the stack's table, which others have after it.
    pub index: u32,
    /// Which of those it is.
    pub generation: u32,
}

/// How a connection that a peer opened came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrival<'a> {
    /// By what the service names it.
    pub id: Id,
    /// Who opened it; `None` where the stack was not asked to find out.
    pub peer: Option<SocketAddr>,
    /// Where it came in: a place in the stack's list of ports or addresses that it serves.
    pub listener: usize,
    /// What was agreed on before; `None` where nothing encrypts the connection.
    pub tls: Option<Agreed<'a>>,
}

/// What the handshake of TLS agreed on, for the protocol above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Agreed<'a> {
    /// The protocol (ALPN, RFC 7301), as in `h2` or `http/1.1`; `None` if the client named none.
    pub alpn: Option<&'a [u8]>,
}

/// What a service that calls wants to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Nothing before `until`, or before something else happens.
    Nothing {
        /// When to ask again at the latest.
        until: Option<Instant>,
    },
    /// A connection to where all connections of this shard lead, and with which token.
    Open(u64),
    /// A connection.
    Connect {
        /// To where.
        to: SocketAddr,
        /// What [`Service::on_open`] is told.
        token: u64,
    },
    /// To be called on this connection, with what it has not consumed, as soon as everything that was
    /// written there has been sent. Nothing happens if it is over or still being opened.
    Wake(Id),
    /// To have this connection reset, whatever it waits for. Nothing happens if it is over.
    Abort(Id),
    /// To be called, without input, on the connection that has waited longest for
    /// [`Expect::Message`]; if none waits, it is asked again later.
    Call,
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was never begun, because this stack does not lead there.
    NoRoute,
    /// It was never begun, because all local ports are in use.
    NoPort,
    /// It was never begun, because all of the shard's connections are in use, those included that
    /// their service is done with.
    NoConnection,
    /// Its SYN was not answered in time.
    Unanswered,
    /// The peer refused it with an RST.
    Refused,
    /// Another core goes on with it.
    HandedOver,
    /// The peer reset it.
    Reset,
    /// The peer acknowledged nothing any more.
    Silent,
    /// It ended in order, or because the service or its deadlines said so.
    Closed,
}

/// What has arrived on a connection and was not consumed yet.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// All unconsumed bytes, oldest first.
    pub bytes: &'a [u8],
    /// No more bytes will be added until some are consumed: the receive buffer is full.
    ///
    /// A service that still cannot go on must refuse the message, or the connection would hang.
    pub full: bool,
    /// The peer will send no more after these.
    pub ended: bool,
}

/// What a call to [`Service::on_input`] did, and what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the front of the input.
    pub consumed: usize,
    /// Messages whose last byte was consumed; restarts the deadlines.
    pub messages: u32,
    /// What has to happen next.
    pub next: Next,
}

/// What a service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More bytes of what is named, within the deadline that the stack has for it.
    Receive(Expect),
    /// Room in the reply: there is more to write than fitted.
    Send,
    /// Nothing of the peer: the service has it woken ([`Want::Wake`]), and keeps the deadline for that itself.
    /// What arrives meanwhile is not shown, and when the receive buffer is full the peer is held back.
    Wait,
    /// Nothing: send what was written, then close in order.
    Close,
    /// Nothing: reset the connection at once and forget what was not sent.
    Abort,
}

/// What a connection is waiting for, which decides how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The first byte of the next message (idle keep-alive).
    Message,
    /// The rest of a message's head. The deadline runs from the message's first byte.
    Head,
    /// The rest of a message's body. The deadline runs from the end of its head.
    Body,
    /// The same, where much of a body has just been moved in either direction: the deadline runs from now.
    MoreBody,
    /// Whatever comes, or a wake; the service keeps the deadline itself.
    Anything,
    /// The rest of a handshake above TCP's, as TLS has one. The deadline runs from the connection's first moment.
    Handshake,
}

/// A contiguous piece of the connection's send space, filled from the front.
///
/// ```
/// use barewire_service::service::Reply;
/// let mut space = [0; 16];
/// let mut reply = Reply::new(&mut space);
/// assert!(reply.put(b"hello"));
/// assert!(!reply.put(b"does not fit any more"));
/// assert_eq!(reply.written(), b"hello");
/// ```
#[derive(Debug)]
pub struct Reply<'a> {
    space: &'a mut [u8],
    len: usize,
}

impl<'a> Reply<'a> {
    /// A reply that writes into `space`, of which nothing is used yet.
    pub fn new(space: &'a mut [u8]) -> Self {
        Reply { space, len: 0 }
    }

    /// Appends all of `bytes`, or nothing and returns false if they do not fit.
    #[inline]
    #[must_use]
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        match self.spare().get_mut(..bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                self.len += bytes.len();
                true
            }
            None => false,
        }
    }

    /// The free space behind what was written.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.space[self.len..]
    }

    /// Declares the first `count` bytes of [`Reply::spare`] written.
    ///
    /// # Panics
    ///
    /// If `count` is longer than the free space.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.space.len() - self.len, "reply overrun");
        self.len += count;
    }

    /// Free bytes.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.space.len() - self.len
    }

    /// Number of bytes written.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What was written.
    #[inline]
    pub fn written(&self) -> &[u8] {
        &self.space[..self.len]
    }

    /// Takes back everything behind the first `len` bytes. Does nothing if there are fewer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// Writes what fits; an error only when nothing does.
impl io::Write for Reply<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.remaining());
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let fits = self.put(&bytes[..count]);
        debug_assert!(fits);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
