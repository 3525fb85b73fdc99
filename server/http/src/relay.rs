//! Requests that are answered from elsewhere, later and piece by piece: the client side of a proxy.
//!
//! ```text
//!   head ──▶ Relay::begin ──▶ a call           the service wakes the connection (`Want::Wake`)
//!   body ──▶ Relay::upload, as far as there is room      │
//!   reply ◀── head, fields made anew here ◀── Relay::reply ◀── whoever answers
//!         ◀── content, framed anew here   ◀──┘
//! ```
//!
//! This module frames both messages of HTTP/1, and `http2::relay` those of HTTP/2: a [`Relay`] gets and gives content
//! without chunks or lengths, so that no framing is passed on. While there is no space to upload, the client is not read
//! from; while there is none to reply, the relay is not called.

use std::ops::ControlFlow;

use barewire_service::service::{Expect, Next, Reply};
use bytes::Bytes;

use super::body::Body;
use super::chunked::Found;
use super::connection::{Exchange, Http1, Phase, Turn};
use super::content::{Content, LAST_CHUNK, put_chunk};
use super::encode::{ROOM_MIN, put};
use super::fields::{Framing, Persistence, Version};
use super::middleware::Middleware;
use super::refusal::Refusal;
use super::request::Request;
use super::responder::Responder;
use super::status::Status;

/// Answers requests later. `S` is the state that the handlers of a core share.
///
/// A call is begun once, and ended once: after its last content was consumed, or when its client is
/// gone. The relay has to wake its client's connection whenever it makes progress.
pub trait Relay<S>: Sync {
    /// Accepts a request, whose body is uploaded afterwards. `version` is that of HTTP in which it arrived, as in
    /// `Via` (RFC 9110, section 7.6.3). Returns the number of the call.
    ///
    /// # Errors
    ///
    /// Why it is not accepted.
    fn begin(
        &self,
        state: &mut S,
        request: &Request<'_>,
        version: &'static str,
        body: Upload,
    ) -> Result<u32, Refusal>;

    /// How many bytes of the body it can take now.
    fn upload_room(&self, state: &mut S, call: u32) -> usize;

    /// Takes bytes of the body, no more than there is room for; `is_last`: nothing follows.
    fn upload(&self, state: &mut S, call: u32, data: &[u8], is_last: bool);

    /// What there is of the response.
    fn reply<'s>(&self, state: &'s mut S, call: u32) -> Relayed<'s>;

    /// The head was taken, or so many bytes of the content.
    fn consume(&self, state: &mut S, call: u32, what: Consumed);

    /// The call is over, complete or not.
    fn end(&self, state: &mut S, call: u32);
}

/// The body of a request that is relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// There is none.
    Absent,
    /// So many bytes.
    Length(u64),
    /// As many as there are.
    Chunked,
}

/// What there is of a response.
#[derive(Debug)]
pub enum Relayed<'s> {
    /// Nothing yet; the connection is woken when there is.
    Pending,
    /// The head, until it is consumed.
    Head(RelayedHead<'s>),
    /// The next bytes of the content.
    Content {
        /// Perhaps none.
        bytes: &'s [u8],
        /// Nothing follows them.
        is_last: bool,
    },
    /// There will be no response, and nothing of one was sent to the client.
    Refused(Refusal),
    /// The rest will never come.
    Broken,
}

/// The head of a response.
#[derive(Debug, Clone, Copy)]
pub struct RelayedHead<'s> {
    /// 200 to 999.
    pub status: u16,
    /// Field lines, each with its CR LF, without any that frames the message or is for one connection only.
    pub lines: &'s [u8],
    /// `Date` is among them.
    pub has_date: bool,
    /// The length of the content, or what it would be; `None` if it is not known.
    pub length: Option<u64>,
    /// Content follows.
    pub has_content: bool,
}

/// The part of a response that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumed {
    /// Its head.
    Head,
    /// So many bytes of its content.
    Content(usize),
}

/// A call as its client's connection knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relaying {
    body: Body,
    call: u32,
    pub(super) route: u16,
    version: Version,
    head_only: bool,
    /// The body is not complete.
    uploads: bool,
    /// The head of the response was written.
    has_begun: bool,
    is_chunked: bool,
}

impl<S, M: Middleware<S>> Responder<S, M> {
    /// Hands a request to its relay, if that accepts it.
    pub(super) fn begin_relay(
        &mut self,
        connection: &mut Http1,
        relay: &'static dyn Relay<S>,
        request: &Request<'_>,
        exchange: Exchange,
        reply: &mut Reply<'_>,
    ) -> Turn {
        let upload = match exchange.framing {
            Framing::Absent => Upload::Absent,
            // It may stand for more, which cannot be said to anybody else.
            Framing::Length(u64::MAX) => {
                return self.refuse_relay(connection, Refusal::BodyTooLarge, exchange, reply);
            }
            Framing::Length(length) => Upload::Length(length),
            Framing::Chunked => Upload::Chunked,
        };
        let version = match exchange.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        };
        let call = match relay.begin(&mut self.origin.state, request, version, upload) {
            Ok(call) => call,
            Err(refusal) => return self.refuse_relay(connection, refusal, exchange, reply),
        };
        if exchange.expects_continue {
            self.invite_body(reply);
        }
        connection.began_ns = self.origin.stopwatch.now_ns();
        connection.phase = Phase::Relay(Relaying {
            body: Body::new(exchange.framing),
            call,
            route: exchange.route as u16,
            version: exchange.version,
            head_only: exchange.head_only,
            uploads: exchange.framing.has_body(),
            has_begun: false,
            is_chunked: false,
        });
        Turn::go_on(exchange.head_len)
    }

    /// Answers why a request is not accepted, and goes on after it.
    #[cold]
    fn refuse_relay(
        &mut self,
        connection: &mut Http1,
        refusal: Refusal,
        exchange: Exchange,
        reply: &mut Reply<'_>,
    ) -> Turn {
        super::responder::settle(connection, &exchange, &self.origin.limits);
        let way = connection.way(&exchange, reply);
        let answer = self.origin.refuse(refusal, exchange.route, way);
        connection.on_answer(answer);
        super::responder::skip_body(connection, exchange, &self.origin.limits)
    }

    /// Moves what can be moved of both bodies.
    #[inline(never)]
    pub(super) fn relay(
        &mut self,
        connection: &mut Http1,
        mut relaying: Relaying,
        bytes: &[u8],
        reply: &mut Reply<'_>,
    ) -> Turn {
        let relay = self.routes.entry(relaying.route.into()).relay();
        let mut consumed = 0;
        match self.upload(relay, &mut relaying, bytes, &mut consumed) {
            Ok(()) => {}
            Err(refusal) => {
                relay.end(&mut self.origin.state, relaying.call);
                if relaying.has_begun {
                    return self.break_off(connection, consumed);
                }
                return self.refuse(connection, (refusal, relaying.route.into()), false, reply);
            }
        }
        loop {
            if reply.remaining() < ROOM_MIN {
                connection.phase = Phase::Relay(relaying);
                return Turn::wait_after(consumed, Next::Send);
            }
            let turn = self.download(relay, connection, &mut relaying, consumed, reply);
            if let ControlFlow::Break(turn) = turn {
                return turn;
            }
            // A long head goes before everything else.
            if connection.sending.is_pending() {
                connection.phase = Phase::Relay(relaying);
                return Turn::go_on(consumed);
            }
        }
    }

    /// Hands on what has arrived of the body, as far as there is room.
    fn upload(
        &mut self,
        relay: &'static dyn Relay<S>,
        relaying: &mut Relaying,
        bytes: &[u8],
        consumed: &mut usize,
    ) -> Result<(), Refusal> {
        let state = &mut self.origin.state;
        while relaying.uploads {
            let room = relay.upload_room(state, relaying.call);
            if room == 0 {
                return Ok(());
            }
            let (n, found) = relaying.body.advance(&bytes[*consumed..], room)?;
            *consumed += n;
            match found {
                Found::More => return Ok(()),
                Found::Data(len) => {
                    let data = &bytes[*consumed - len..*consumed];
                    relay.upload(state, relaying.call, data, false);
                }
                Found::End => {
                    relaying.uploads = false;
                    relay.upload(state, relaying.call, &[], true);
                }
            }
        }
        Ok(())
    }

    /// Writes the next part of the response.
    fn download(
        &mut self,
        relay: &'static dyn Relay<S>,
        connection: &mut Http1,
        relaying: &mut Relaying,
        consumed: usize,
        reply: &mut Reply<'_>,
    ) -> ControlFlow<Turn> {
        /// A chunk's size and line ends, and the last chunk.
        const CHUNK_OVERHEAD: usize = 32;

        let call = relaying.call;
        let refusal = match relay.reply(&mut self.origin.state, call) {
            Relayed::Pending => {
                let has_room =
                    relaying.uploads && relay.upload_room(&mut self.origin.state, call) > 0;
                connection.phase = Phase::Relay(*relaying);
                let next = match (has_room, consumed) {
                    (false, _) => Next::Wait,
                    (true, 0) => Next::Receive(Expect::Body),
                    (true, _) => Next::Receive(Expect::MoreBody),
                };
                return ControlFlow::Break(Turn::wait_after(consumed, next));
            }
            Relayed::Head(head) => {
                if self.origin.draining {
                    connection.persistence = Persistence::Close;
                }
                let has_content = head.has_content && !relaying.head_only;
                let framing = match (head.length, relaying.version) {
                    _ if !has_content && head.length.is_none() => Framing::Absent,
                    (Some(length), _) => Framing::Length(length),
                    (None, Version::Http11) => Framing::Chunked,
                    (None, Version::Http10) => {
                        connection.persistence = Persistence::Close;
                        Framing::Absent
                    }
                };
                relaying.is_chunked = framing == Framing::Chunked;
                relaying.has_begun = true;
                let mut space = [0; 29];
                let date = match head.has_date {
                    true => "",
                    false => self.origin.server_and_date.date(&mut space),
                };
                let status = head.status;
                let rest = put_head(&head, framing, connection.persistence, date, reply);
                if !rest.is_empty() {
                    let nothing = Content::from(Bytes::new());
                    connection.sending.begin(rest, nothing, false);
                }
                relay.consume(&mut self.origin.state, call, Consumed::Head);
                let began_ns = std::mem::take(&mut connection.began_ns);
                let status = Status::counted_as(status);
                let route = relaying.route.into();
                self.origin.count_relayed(status, route, began_ns);
                return ControlFlow::Continue(());
            }
            Relayed::Content { bytes, is_last } => {
                let room = reply.remaining() - CHUNK_OVERHEAD;
                let len = bytes.len().min(room);
                let is_last = is_last && len == bytes.len();
                if !relaying.head_only && len > 0 {
                    match relaying.is_chunked {
                        true => put_chunk(reply, &bytes[..len]),
                        false => put(reply, &bytes[..len]),
                    }
                }
                if is_last && relaying.is_chunked && !relaying.head_only {
                    put(reply, LAST_CHUNK);
                }
                let taken = Consumed::Content(len);
                relay.consume(&mut self.origin.state, call, taken);
                if !is_last {
                    return ControlFlow::Continue(());
                }
                relay.end(&mut self.origin.state, call);
                return ControlFlow::Break(self.end_relay(connection, relaying, consumed));
            }
            Relayed::Broken => {
                relay.end(&mut self.origin.state, call);
                return ControlFlow::Break(self.break_off(connection, consumed));
            }
            Relayed::Refused(refusal) => refusal,
        };
        relay.end(&mut self.origin.state, call);
        let exchange = Exchange {
            route: relaying.route.into(),
            head_len: 0,
            head_only: relaying.head_only,
            version: relaying.version,
            framing: Framing::Absent,
            expects_continue: false,
        };
        if relaying.uploads || self.origin.draining {
            connection.persistence = Persistence::Close;
        }
        let way = connection.way(&exchange, reply);
        let answer = self.origin.refuse(refusal, exchange.route, way);
        connection.on_answer(answer);
        ControlFlow::Break(self.end_relay(connection, relaying, consumed))
    }

    /// The response is complete; the request perhaps is not.
    fn end_relay(&self, connection: &mut Http1, relaying: &Relaying, consumed: usize) -> Turn {
        if !relaying.uploads {
            return connection.end_message(consumed);
        }
        connection.phase = match connection.persistence {
            Persistence::Close => Phase::Closed,
            Persistence::Open | Persistence::OpenSaid => Phase::Discard {
                body: relaying.body,
                allowance: self.origin.limits.body_bytes_max as u64,
            },
        };
        Turn::go_on(consumed)
    }

    /// A reset, so that the client does not take the part for the whole.
    #[cold]
    fn break_off(&self, connection: &mut Http1, consumed: usize) -> Turn {
        self.origin.counters.contents_broken.increment();
        connection.phase = Phase::Closed;
        Turn::wait_after(consumed, Next::Abort)
    }

    /// The rest of a request did not arrive in time, or the connection is over: ends the call.
    pub(super) fn end_call(&mut self, connection: &mut Http1) {
        if let Phase::Relay(relaying) = connection.phase {
            let relay = self.routes.entry(relaying.route.into()).relay();
            relay.end(&mut self.origin.state, relaying.call);
            connection.phase = Phase::Closed;
        }
    }
}

/// Writes a head as far as there is room, and returns the rest.
fn put_head(
    head: &RelayedHead<'_>,
    framing: Framing,
    persistence: Persistence,
    date: &str,
    reply: &mut Reply<'_>,
) -> Bytes {
    /// A status line, and the lines that are added.
    const OTHERS_BYTES_MAX: usize = 256;

    if reply.remaining() >= head.lines.len() + OTHERS_BYTES_MAX {
        compose(head, framing, persistence, date, reply);
        return Bytes::new();
    }
    let mut space = vec![0; head.lines.len() + OTHERS_BYTES_MAX];
    let mut elsewhere = Reply::new(&mut space);
    compose(head, framing, persistence, date, &mut elsewhere);
    let len = elsewhere.len();
    space.truncate(len);
    Bytes::from(space)
}

fn compose(
    head: &RelayedHead<'_>,
    framing: Framing,
    persistence: Persistence,
    date: &str,
    reply: &mut Reply<'_>,
) {
    put(reply, b"HTTP/1.1 ");
    put(reply, itoa::Buffer::new().format(head.status).as_bytes());
    put(reply, b" ");
    put(reply, Status::reason(head.status).as_bytes());
    put(reply, b"\r\n");
    put(reply, head.lines);
    if !date.is_empty() {
        put(reply, b"Date: ");
        put(reply, date.as_bytes());
        put(reply, b"\r\n");
    }
    match persistence {
        Persistence::Open => {}
        Persistence::OpenSaid => put(reply, b"Connection: keep-alive\r\n"),
        Persistence::Close => put(reply, b"Connection: close\r\n"),
    }
    match framing {
        Framing::Absent => {}
        Framing::Length(length) => {
            put(reply, b"Content-Length: ");
            put(reply, itoa::Buffer::new().format(length).as_bytes());
            put(reply, b"\r\n");
        }
        Framing::Chunked => put(reply, b"Transfer-Encoding: chunked\r\n"),
    }
    put(reply, b"\r\n");
}
