//! What is kept of a connection between two calls.

use barewire_service::service::{Expect, Next, Reply};

use super::body::Body;
use super::chunked::Found;
use super::content::Sending;
use super::durations::Stopwatch;
use super::encode::{Way, Wire};
use super::fields::{Framing, Persistence, Version};
use super::head::Search;
use super::http2::Lease;
use super::limits::Limits;
use super::refusal::Refusal;
use super::relay::Relaying;
use super::response::Answer;

/// What is kept of a connection between two calls.
///
/// Of HTTP/1, no bytes of requests are; of responses, what a handler gave away as
/// [`Content`](super::Content), until it is sent. An HTTP/2 connection is lent by a pool of its core.
#[derive(Debug, Default)]
pub struct Connection(pub(super) Speaks);

/// The protocol of a connection. Each begins as one of HTTP/1.
#[derive(Debug)]
pub(super) enum Speaks {
    Http1(Http1),
    Http2(Lease),
}

impl Default for Speaks {
    fn default() -> Self {
        Speaks::Http1(Http1::default())
    }
}

impl Connection {
    /// See [`Service::rest`](barewire_service::service::Service::rest): an HTTP/1 connection that waits for a
    /// request. The byte says whether it has had one.
    #[inline]
    pub(super) fn rest(&self) -> Option<u8> {
        match &self.0 {
            Speaks::Http1(http1) => http1.rest(),
            Speaks::Http2(_) => None,
        }
    }

    /// See [`Service::departs`](barewire_service::service::Service::departs): also one that waits for the rest of a
    /// request, which is in the input until it is whole.
    pub(super) fn departs(&self) -> Option<u8> {
        match &self.0 {
            Speaks::Http1(http1) => http1.departs(),
            Speaks::Http2(_) => None,
        }
    }

    #[inline]
    pub(super) fn resume(&mut self, rest: u8) {
        let search = match rest {
            0 => Search::default(),
            _ => Search::of_later_request(),
        };
        let Speaks::Http1(http1) = &mut self.0 else {
            debug_assert!(false, "HTTP/2 is never at rest");
            return;
        };
        http1.phase = Phase::Head(search);
        http1.persistence = Persistence::default();
    }
}

/// What is kept of an HTTP/1 connection.
#[derive(Debug, Default)]
pub(super) struct Http1 {
    pub(super) phase: Phase,
    /// Whether the connection goes on after the response to the current request.
    pub(super) persistence: Persistence,
    /// When the request that could not be answered at once began; 0 if there is none.
    pub(super) began_ns: u64,
    /// The rest of a response. It goes before everything else.
    pub(super) sending: Sending,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// The next thing to arrive is a head.
    Head(Search),
    /// A handler wants the whole body.
    Collect(Collect),
    /// The response is written; the body is discarded. At most `allowance` bytes of it may follow.
    Discard { body: Body, allowance: u64 },
    /// The body is sent back.
    Echo(Body),
    /// A relay answers.
    Relay(Relaying),
    /// The connection is being closed; input is ignored.
    Closed,
}

impl Default for Phase {
    fn default() -> Self {
        Phase::Head(Search::default())
    }
}

/// A body on its way to a handler. It stays in the input, behind its head, until it is complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Collect {
    pub(super) route: u16,
    pub(super) head_len: u32,
    body: Body,
    /// Bytes of the body that were looked at, and the data in them. Only used if it is chunked.
    scanned: u32,
    decoded: u32,
}

impl Collect {
    pub(super) fn new(route: usize, head_len: usize, framing: Framing) -> Self {
        Collect {
            route: route as u16,
            head_len: head_len as u32,
            body: Body::new(framing),
            scanned: 0,
            decoded: 0,
        }
    }

    /// The body at the front of `bytes` and the bytes that it takes, once it is complete. A chunked one
    /// is put together in `scratch`.
    #[inline]
    pub(super) fn complete<'b>(
        &mut self,
        bytes: &'b [u8],
        body_bytes_max: usize,
        scratch: &'b mut Vec<u8>,
    ) -> Result<Option<(usize, &'b [u8])>, Refusal> {
        match self.body {
            Body::Length(length) => {
                let body = usize::try_from(length)
                    .ok()
                    .and_then(|length| bytes.get(..length));
                Ok(body.map(|body| (body.len(), body)))
            }
            Body::Chunked(_) => {
                let is_complete = self.scan(bytes, body_bytes_max)?;
                let len = self.scanned as usize;
                Ok(is_complete.then(|| (len, join_chunks(&bytes[..len], scratch))))
            }
        }
    }

    /// Looks at the bytes of a chunked body that were not looked at before. Returns whether it is complete.
    fn scan(&mut self, bytes: &[u8], body_bytes_max: usize) -> Result<bool, Refusal> {
        loop {
            let (n, found) = self
                .body
                .advance(&bytes[self.scanned as usize..], usize::MAX)?;
            self.scanned += n as u32;
            match found {
                Found::More => return Ok(false),
                Found::End => return Ok(true),
                Found::Data(len) => {
                    self.decoded = self.decoded.saturating_add(len as u32);
                    if self.decoded as usize > body_bytes_max {
                        return Err(Refusal::BodyTooLarge);
                    }
                }
            }
        }
    }
}

/// Puts the data of a complete chunked body together.
fn join_chunks<'s>(mut chunks: &[u8], joined: &'s mut Vec<u8>) -> &'s [u8] {
    joined.clear();
    let mut body = Body::new(Framing::Chunked);
    while let Ok((n, Found::Data(len))) = body.advance(chunks, usize::MAX) {
        joined.extend_from_slice(&chunks[n - len..n]);
        chunks = &chunks[n..];
    }
    joined
}

/// What the responder knows of a request beyond what its handler sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange {
    /// The index under which it is counted.
    pub(super) route: usize,
    pub(super) head_len: usize,
    /// The response has no content because the request is HEAD.
    pub(super) head_only: bool,
    pub(super) version: Version,
    pub(super) framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

impl Exchange {
    /// Whether a body that is not wanted is not even read: it is too large, or may never be sent, since
    /// the client expects `100 Continue`. The place where the next request begins is then unknown.
    #[inline]
    pub(super) fn leaves_body(&self, limits: &Limits) -> bool {
        match self.framing {
            Framing::Absent => false,
            Framing::Length(length) => {
                self.expects_continue || length > limits.body_bytes_max as u64
            }
            Framing::Chunked => self.expects_continue,
        }
    }
}

/// The outcome of one turn of the state machine. It fits in two registers: it is returned for every request, and a copy
/// through memory that is read in other pieces than it was written costs 4 ns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) consumed: usize,
    pub(super) then: Then,
}

/// What follows on a [`Turn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Another turn.
    GoOn,
    /// Another turn, and a request's last byte was consumed.
    EndMessage,
    /// Something has to happen.
    Wait(Next),
    /// The connection begins with the preface of HTTP/2.
    Http2,
}

impl Turn {
    #[inline]
    pub(super) fn go_on(consumed: usize) -> Self {
        Turn {
            consumed,
            then: Then::GoOn,
        }
    }

    #[inline]
    pub(super) fn wait(next: Next) -> Self {
        Self::wait_after(0, next)
    }

    #[inline]
    pub(super) fn wait_after(consumed: usize, next: Next) -> Self {
        Turn {
            consumed,
            then: Then::Wait(next),
        }
    }

    pub(super) fn wait_for_body(consumed: usize) -> Self {
        Self::wait_after(consumed, Next::Receive(Expect::Body))
    }
}

impl Http1 {
    #[inline]
    fn rest(&self) -> Option<u8> {
        match self.phase {
            Phase::Head(search)
                if !search.has_begun() && self.began_ns == 0 && !self.sending.is_pending() =>
            {
                Some(u8::from(search.is_of_later_request()))
            }
            _ => None,
        }
    }

    fn departs(&self) -> Option<u8> {
        match self.phase {
            _ if self.sending.is_pending() => None,
            Phase::Head(search) => Some(search.is_of_later_request().into()),
            // Its head is no preface of HTTP/2.
            Phase::Collect(_) => Some(1),
            Phase::Discard { .. } | Phase::Echo(_) | Phase::Relay(_) | Phase::Closed => None,
        }
    }

    /// Where the response to a request goes.
    #[inline]
    pub(super) fn way<'r, 's>(
        &'r mut self,
        exchange: &Exchange,
        reply: &'r mut Reply<'s>,
    ) -> Way<'r, 's> {
        Way {
            wire: Wire::Http1 {
                persistence: self.persistence,
                version: exchange.version,
            },
            head_only: exchange.head_only,
            reply,
            sending: &mut self.sending,
            began_ns: std::mem::take(&mut self.began_ns),
        }
    }

    /// A response was written, or begun.
    #[inline]
    pub(super) fn on_answer(&mut self, answer: Answer) {
        if answer.closes {
            self.persistence = Persistence::Close;
        }
    }

    /// The request cannot be answered yet: keeps the time at which it began.
    pub(super) fn suspend(&mut self, stopwatch: &Stopwatch) {
        if self.began_ns == 0 {
            self.began_ns = stopwatch.now_ns();
        }
    }

    /// Everything that still arrives is ignored.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    /// The last byte of a request was consumed, and its response is begun.
    #[inline]
    pub(super) fn end_message(&mut self, consumed: usize) -> Turn {
        self.phase = match self.persistence {
            Persistence::Close => Phase::Closed,
            Persistence::Open | Persistence::OpenSaid => Phase::Head(Search::of_later_request()),
        };
        Turn {
            consumed,
            then: Then::EndMessage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one for each connection, however idle.
    #[test]
    fn a_connection_is_small() {
        assert!(
            size_of::<Connection>() <= 104,
            "{}",
            size_of::<Connection>()
        );
    }
}
