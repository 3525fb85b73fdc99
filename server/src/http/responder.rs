//! The state machine of a connection: from bytes to requests to responses.

use std::sync::Arc;

use barewire_stack::service::{Expect, Input, Next, Progress, Reply, Service};

use super::body::Body;
use super::chunked::Found;
use super::counters::HttpCounters;
use super::date::ServerAndDate;
use super::durations::Stopwatch;
use super::fields::{Expectation, Framing};
use super::head::{self, Head, Limits, Search};
use super::refusal::Refusal;
use super::request::{Method, Request};
use super::response::{
    Answer, BODY_BYTES_MAX, ContentType, Envelope, HEAD_BYTES_MAX, Persistence, Piece, Response,
    put,
};
use super::routes::{Handler, Route, Routes, Stream, allow};
use super::status::Status;

/// Where each response is logged, at level debug.
///
/// Off, it costs a response the look at one number. On, the core itself writes the line and waits for
/// the log: this is for looking, not for load.
pub const REQUEST_LOG: &str = "barewire::request";

/// One core's HTTP server: the routes, what their handlers share, and what all connections share.
#[derive(Debug)]
pub struct Responder<S: 'static> {
    routes: Routes<S>,
    state: S,
    limits: Limits,
    counters: Arc<HttpCounters>,
    stopwatch: Stopwatch,
    /// The index under which requests are counted that match no route.
    no_route: usize,
    server_and_date: ServerAndDate,
    /// The `Allow` field of `OPTIONS *`.
    allow: Piece<64>,
    draining: bool,
    /// Where a chunked body is put together for its handler.
    decoded: Vec<u8>,
}

/// What is kept of a connection between two calls. No bytes of requests or responses are.
#[derive(Debug, Default)]
pub struct Connection {
    phase: Phase,
    /// What happens after the response to the request that is being handled.
    persistence: Persistence,
    /// When the request began that could not be answered at once; 0: there is none.
    began_ns: u64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The next thing to arrive is a head.
    Head(Search),
    /// A handler wants the whole body.
    Collect(Collect),
    /// The response is written; nobody wants the body, at most `allowance` bytes of which may follow.
    Discard { body: Body, allowance: u64 },
    /// The body is sent back.
    Echo(Body),
    /// A body is generated.
    Stream { stream: Stream, offset: u64 },
    /// Nothing matters any more.
    Closed,
}

/// A body on its way to a handler. It stays in the input until it is complete.
#[derive(Debug, Clone, Copy)]
struct Collect {
    route: u16,
    method: u8,
    head_only: bool,
    body: Body,
    /// Bytes of the input that were looked at, and the data in them. Only used if it is chunked.
    scanned: u32,
    decoded: u32,
}

impl Default for Phase {
    fn default() -> Self {
        Phase::Head(Search::default())
    }
}

/// What one turn of the state machine did.
struct Turn {
    consumed: usize,
    /// A request's last byte was consumed.
    ends_message: bool,
    /// What to wait for, or another turn.
    next: Option<Next>,
}

impl Turn {
    fn go_on(consumed: usize) -> Self {
        Turn {
            consumed,
            ends_message: false,
            next: None,
        }
    }

    fn wait(next: Next) -> Self {
        Turn {
            consumed: 0,
            ends_message: false,
            next: Some(next),
        }
    }
}

impl<S> Responder<S> {
    /// A responder for one core. `counters` must have been made for the same `routes`.
    ///
    /// # Panics
    ///
    /// If a limit does not fit in 32 bits.
    pub fn new(
        routes: &[&'static Route<S>],
        state: S,
        limits: Limits,
        counters: Arc<HttpCounters>,
    ) -> Self {
        let bytes_max = limits.head_bytes_max.max(limits.body_bytes_max);
        assert!(u32::try_from(bytes_max).is_ok(), "{limits:?}");
        let methods = [
            Method::Get,
            Method::Post,
            Method::Put,
            Method::Patch,
            Method::Delete,
        ];
        Responder {
            allow: allow(methods.into_iter().filter(|method| {
                routes
                    .iter()
                    .any(|route| route.methods.iter().any(|(each, _)| each == method))
            })),
            routes: Routes::new(routes),
            stopwatch: Stopwatch::new(routes.len() + 1),
            no_route: routes.len(),
            state,
            limits,
            counters,
            server_and_date: ServerAndDate::new(),
            draining: false,
            decoded: Vec::with_capacity(limits.body_bytes_max),
        }
    }

    /// Ends the responder and returns what its handlers shared.
    pub fn into_state(self) -> S {
        self.state
    }
}

impl<S> Service for Responder<S> {
    type Connection = Connection;

    const REPLY_BYTES_MIN: usize = HEAD_BYTES_MAX + BODY_BYTES_MAX;

    #[inline]
    fn on_input(
        &mut self,
        connection: &mut Connection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let mut progress = Progress {
            consumed: 0,
            messages: 0,
            next: Next::Close,
        };
        loop {
            let bytes = &input.bytes[progress.consumed..];
            let full = input.full && progress.consumed == 0;
            let turn = match connection.phase {
                Phase::Head(search) => self.head(connection, search, bytes, full, reply),
                Phase::Collect(collect) => self.collect(connection, collect, bytes, full, reply),
                Phase::Discard { body, allowance } => {
                    self.discard(connection, body, allowance, bytes)
                }
                Phase::Echo(body) => self.echo(connection, body, bytes, reply),
                Phase::Stream { stream, offset } => stream_on(connection, stream, offset, reply),
                Phase::Closed => Turn {
                    consumed: bytes.len(),
                    ends_message: false,
                    next: Some(Next::Close),
                },
            };
            progress.consumed += turn.consumed;
            progress.messages += u32::from(turn.ends_message);
            if let Some(next) = turn.next {
                progress.next = next;
                return progress;
            }
        }
    }

    fn on_timeout(&mut self, connection: &mut Connection, reply: &mut Reply<'_>) {
        match connection.phase {
            Phase::Head(search) if !search.has_begun() => {}
            Phase::Head(_) if reply.remaining() >= Self::REPLY_BYTES_MIN => {
                let refusal = (Refusal::Timeout, self.no_route);
                self.refuse(connection, refusal, false, reply);
            }
            Phase::Collect(collect) if reply.remaining() >= Self::REPLY_BYTES_MIN => {
                let refusal = (Refusal::Timeout, collect.route.into());
                self.refuse(connection, refusal, false, reply);
            }
            Phase::Discard { .. } => self.counters.bodies_abandoned.increment(),
            _ => {}
        }
        connection.phase = Phase::Closed;
    }

    fn on_clock(&mut self, unix_time_s: u64) {
        self.server_and_date.set(unix_time_s);
    }

    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        self.stopwatch.on_time(now_ns, |route, ns, requests| {
            self.counters.record(route, ns, requests);
        });
    }

    fn on_drain(&mut self) {
        self.draining = true;
    }
}

impl<S> Responder<S> {
    /// Takes a request's head and answers it, or prepares for its body.
    #[inline]
    fn head(
        &mut self,
        connection: &mut Connection,
        mut search: Search,
        bytes: &[u8],
        full: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        if bytes.is_empty() {
            return Turn::wait(Next::Receive(Expect::Message));
        }
        if reply.remaining() < Self::REPLY_BYTES_MIN {
            self.suspend(connection);
            return Turn::wait(Next::Send);
        }
        let served = match head::find(bytes, full, &mut search, &self.limits) {
            Ok(Some(head)) => self.serve(connection, &head, reply),
            Ok(None) => {
                connection.phase = Phase::Head(search);
                let expect = if search.has_begun() {
                    self.suspend(connection);
                    Expect::Head
                } else {
                    Expect::Message
                };
                return Turn::wait(Next::Receive(expect));
            }
            Err(refusal) => Err(refusal),
        };
        served.unwrap_or_else(|refusal| self.refuse_head(connection, refusal, bytes, reply))
    }

    /// Answers the request with this head, or prepares for its body. Nothing happened if it fails.
    #[inline]
    fn serve(
        &mut self,
        connection: &mut Connection,
        head: &Head<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Turn, Refusal> {
        let Head {
            request, meaning, ..
        } = head;
        if meaning.expectation == Expectation::Unknown {
            return Err(Refusal::Expectation);
        }
        let mut exchange = Exchange {
            route: self.no_route,
            head_len: head.len,
            head_only: request.method == Method::Head,
            framing: meaning.framing,
            expects_continue: meaning.expectation == Expectation::Continue
                && meaning.framing.has_body(),
        };
        connection.persistence = if self.draining {
            Persistence::Close
        } else {
            meaning.persistence
        };

        let Some(route) = self.routes.find(&request.target) else {
            return self.serve_unrouted(connection, request, exchange, reply);
        };
        exchange.route = route;
        let Some((method, handler)) = self.routes.entry(route).find(request.method) else {
            return Ok(self.serve_other_method(connection, request, exchange, reply));
        };
        match handler {
            Handler::Head(handler) => {
                let envelope = self.settle(connection, &exchange);
                let answer = handler(
                    &mut self.state,
                    request,
                    Response::new(envelope, &self.server_and_date, reply),
                );
                Ok(self.skip_body(connection, exchange, answer))
            }
            Handler::Body(_) => Ok(self.begin_collecting(connection, exchange, method, reply)),
            Handler::Stream(handler) => {
                let stream = handler(&mut self.state, request);
                Ok(self.begin_stream(connection, exchange, stream, reply))
            }
            Handler::Echo => Ok(self.begin_echo(connection, exchange, reply)),
        }
    }

    /// No route has the path: `OPTIONS *`, or 404.
    #[cold]
    fn serve_unrouted(
        &mut self,
        connection: &mut Connection,
        request: &Request<'_>,
        exchange: Exchange,
        reply: &mut Reply<'_>,
    ) -> Result<Turn, Refusal> {
        let is_server = request.target.path == b"*";
        if !is_server && !request.target.has_valid_path() {
            return Err(Refusal::Target);
        }
        let envelope = self.settle(connection, &exchange);
        let response = Response::new(envelope, &self.server_and_date, reply);
        let answer = if is_server {
            response.allow(&self.allow).empty()
        } else {
            response.refuse(Refusal::NotFound)
        };
        Ok(self.skip_body(connection, exchange, answer))
    }

    /// The route has no handler for the method: OPTIONS, or 405.
    #[cold]
    fn serve_other_method(
        &mut self,
        connection: &mut Connection,
        request: &Request<'_>,
        exchange: Exchange,
        reply: &mut Reply<'_>,
    ) -> Turn {
        let envelope = self.settle(connection, &exchange);
        let response = Response::new(envelope, &self.server_and_date, reply)
            .allow(&self.routes.entry(exchange.route).allow);
        let answer = if request.method == Method::Options {
            response.empty()
        } else {
            response.refuse(Refusal::MethodNotAllowed)
        };
        self.skip_body(connection, exchange, answer)
    }

    /// Decides what a response that does not wait for the body says about the connection.
    #[inline]
    fn settle(&self, connection: &mut Connection, exchange: &Exchange) -> Envelope {
        if exchange.leaves_body(&self.limits) {
            connection.persistence = Persistence::Close;
        }
        Envelope {
            persistence: connection.persistence,
            head_only: exchange.head_only,
        }
    }

    /// Goes on after a response that did not wait for the body.
    #[inline]
    fn skip_body(
        &mut self,
        connection: &mut Connection,
        exchange: Exchange,
        answer: Answer,
    ) -> Turn {
        self.count(connection, exchange.route, answer);
        if !exchange.framing.has_body() {
            return end_message(connection, exchange.head_len);
        }
        connection.phase = if exchange.leaves_body(&self.limits) {
            Phase::Closed
        } else {
            Phase::Discard {
                body: Body::new(exchange.framing),
                allowance: self.limits.body_bytes_max as u64,
            }
        };
        Turn::go_on(exchange.head_len)
    }

    /// Reads a body that nobody wants.
    #[inline(never)]
    fn discard(
        &mut self,
        connection: &mut Connection,
        mut body: Body,
        mut allowance: u64,
        bytes: &[u8],
    ) -> Turn {
        let mut consumed = 0;
        loop {
            match body.advance(&bytes[consumed..], usize::MAX) {
                Ok((n, Found::End)) => return end_message(connection, consumed + n),
                Ok((n, Found::More)) => {
                    connection.phase = Phase::Discard { body, allowance };
                    return Turn {
                        consumed: consumed + n,
                        ends_message: false,
                        next: Some(Next::Receive(Expect::Body)),
                    };
                }
                Ok((n, Found::Data(len))) if len as u64 <= allowance => {
                    consumed += n;
                    allowance -= len as u64;
                }
                Ok(_) | Err(_) => {
                    // The response is on its way; there is nobody left to be told.
                    self.counters.bodies_abandoned.increment();
                    connection.phase = Phase::Closed;
                    return Turn::go_on(consumed);
                }
            }
        }
    }

    /// Prepares for a body that a handler wants as a whole.
    #[inline]
    fn begin_collecting(
        &mut self,
        connection: &mut Connection,
        exchange: Exchange,
        method: usize,
        reply: &mut Reply<'_>,
    ) -> Turn {
        let refusal = match exchange.framing {
            Framing::Absent => Some(Refusal::LengthRequired),
            Framing::Length(length) if length > self.limits.body_bytes_max as u64 => {
                Some(Refusal::BodyTooLarge)
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            let refusal = (refusal, exchange.route);
            return self.refuse(connection, refusal, exchange.head_only, reply);
        }
        if exchange.expects_continue {
            self.invite_body(reply);
        }
        connection.phase = Phase::Collect(Collect {
            route: exchange.route as u16,
            method: method as u8,
            head_only: exchange.head_only,
            body: Body::new(exchange.framing),
            scanned: 0,
            decoded: 0,
        });
        Turn::go_on(exchange.head_len)
    }

    /// Hands a body to its handler once it is complete.
    #[inline]
    fn collect(
        &mut self,
        connection: &mut Connection,
        mut collect: Collect,
        bytes: &[u8],
        full: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        if reply.remaining() < Self::REPLY_BYTES_MIN {
            self.suspend(connection);
            return Turn::wait(Next::Send);
        }
        let (consumed, body) = match collect.body {
            Body::Length(length) => match usize::try_from(length)
                .ok()
                .and_then(|length| bytes.get(..length))
            {
                Some(body) => (body.len(), body),
                None => return self.await_body(connection, collect, full, reply),
            },
            Body::Chunked(_) => match collect.scan(bytes, self.limits.body_bytes_max) {
                Ok(true) => {
                    join_chunks(&bytes[..collect.scanned as usize], &mut self.decoded);
                    (collect.scanned as usize, &self.decoded[..])
                }
                Ok(false) => return self.await_body(connection, collect, full, reply),
                Err(refusal) => {
                    let refusal = (refusal, collect.route.into());
                    return self.refuse(connection, refusal, collect.head_only, reply);
                }
            },
        };
        let Handler::Body(handler) = self
            .routes
            .entry(collect.route.into())
            .handler(collect.method.into())
        else {
            unreachable!("only a handler of bodies is collected for");
        };
        if self.draining {
            connection.persistence = Persistence::Close;
        }
        let envelope = Envelope {
            persistence: connection.persistence,
            head_only: collect.head_only,
        };
        let answer = handler(
            &mut self.state,
            body,
            Response::new(envelope, &self.server_and_date, reply),
        );
        self.count(connection, collect.route.into(), answer);
        end_message(connection, consumed)
    }

    fn await_body(
        &mut self,
        connection: &mut Connection,
        collect: Collect,
        full: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        if full {
            let refusal = (Refusal::BodyTooLarge, collect.route.into());
            return self.refuse(connection, refusal, collect.head_only, reply);
        }
        self.suspend(connection);
        connection.phase = Phase::Collect(collect);
        Turn::wait(Next::Receive(Expect::Body))
    }

    /// Begins a response whose body is generated.
    fn begin_stream(
        &mut self,
        connection: &mut Connection,
        exchange: Exchange,
        stream: Stream,
        reply: &mut Reply<'_>,
    ) -> Turn {
        if exchange.framing.has_body() {
            // Two bodies at once would need two states. Nobody sends one with a GET.
            connection.persistence = Persistence::Close;
        }
        let envelope = Envelope {
            persistence: connection.persistence,
            head_only: exchange.head_only,
        };
        Response::new(envelope, &self.server_and_date, reply)
            .head(stream.content_type, stream.length);
        self.count_status(connection, exchange.route, Status::Ok);
        if exchange.head_only {
            return end_message(connection, exchange.head_len);
        }
        connection.phase = Phase::Stream { stream, offset: 0 };
        Turn {
            consumed: exchange.head_len,
            ends_message: !exchange.framing.has_body(),
            next: None,
        }
    }

    /// Begins a response that is the request's body.
    fn begin_echo(
        &mut self,
        connection: &mut Connection,
        exchange: Exchange,
        reply: &mut Reply<'_>,
    ) -> Turn {
        if exchange.expects_continue {
            self.invite_body(reply);
        }
        let envelope = Envelope {
            persistence: connection.persistence,
            head_only: exchange.head_only,
        };
        let response = Response::new(envelope, &self.server_and_date, reply);
        match exchange.framing {
            Framing::Absent => response.head(ContentType::Bytes, 0),
            Framing::Length(length) => response.head(ContentType::Bytes, length),
            Framing::Chunked => response.chunked_head(ContentType::Bytes),
        }
        self.count_status(connection, exchange.route, Status::Ok);
        let body = Body::new(exchange.framing);
        connection.phase = match exchange.head_only {
            true => Phase::Discard {
                body,
                allowance: u64::MAX,
            },
            false => Phase::Echo(body),
        };
        Turn::go_on(exchange.head_len)
    }

    /// Sends back what has arrived of a body, as far as there is room.
    #[inline(never)]
    fn echo(
        &mut self,
        connection: &mut Connection,
        mut body: Body,
        bytes: &[u8],
        reply: &mut Reply<'_>,
    ) -> Turn {
        /// A chunk's size and line ends, and the last chunk.
        const CHUNK_OVERHEAD: usize = 32;

        let is_chunked = matches!(body, Body::Chunked(_));
        let mut consumed = 0;
        loop {
            let room = reply.remaining().saturating_sub(CHUNK_OVERHEAD);
            let wait = |next| Turn {
                consumed,
                ends_message: false,
                next: Some(next),
            };
            if room == 0 {
                connection.phase = Phase::Echo(body);
                return wait(Next::Send);
            }
            match body.advance(&bytes[consumed..], room) {
                Ok((n, Found::Data(len))) => {
                    consumed += n;
                    let data = &bytes[consumed - len..consumed];
                    if is_chunked {
                        put_chunk(reply, data)
                    } else {
                        put(reply, data)
                    }
                }
                Ok((n, Found::More)) => {
                    consumed += n;
                    connection.phase = Phase::Echo(body);
                    return Turn {
                        consumed,
                        ends_message: false,
                        next: Some(Next::Receive(Expect::Body)),
                    };
                }
                Ok((n, Found::End)) => {
                    if is_chunked {
                        put(reply, b"0\r\n\r\n")
                    }
                    return end_message(connection, consumed + n);
                }
                Err(_) => {
                    // A chunked response without its end says that something went wrong.
                    self.counters.bodies_abandoned.increment();
                    connection.phase = Phase::Closed;
                    return Turn::go_on(consumed);
                }
            }
        }
    }

    /// `100 Continue`: go on and send the body (RFC 9110, section 10.1.1).
    #[cold]
    fn invite_body(&self, reply: &mut Reply<'_>) {
        put(reply, b"HTTP/1.1 100 Continue\r\n\r\n");
        self.counters.continues.increment();
    }

    /// Refuses the head at the front of `bytes`, of which perhaps nothing could be understood.
    #[cold]
    fn refuse_head(
        &mut self,
        connection: &mut Connection,
        refusal: Refusal,
        bytes: &[u8],
        reply: &mut Reply<'_>,
    ) -> Turn {
        let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let refusal = (refusal, self.no_route);
        self.refuse(connection, refusal, line.starts_with(b"HEAD "), reply)
    }

    /// Refuses a request of a route, after which the connection cannot go on.
    #[cold]
    fn refuse(
        &mut self,
        connection: &mut Connection,
        (refusal, route): (Refusal, usize),
        head_only: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        let envelope = Envelope {
            persistence: Persistence::Close,
            head_only,
        };
        let answer = Response::new(envelope, &self.server_and_date, reply).refuse(refusal);
        self.count(connection, route, answer);
        connection.phase = Phase::Closed;
        Turn::go_on(0)
    }

    /// The request cannot be answered before something else happens: remembers when it began.
    fn suspend(&self, connection: &mut Connection) {
        if connection.began_ns == 0 {
            connection.began_ns = self.stopwatch.now_ns();
        }
    }

    #[inline]
    fn count(&mut self, connection: &mut Connection, route: usize, answer: Answer) {
        self.count_status(connection, route, answer.status);
        if let Some(refusal) = answer.refusal {
            self.counters.count_refusal(refusal);
        }
    }

    /// A response was written.
    #[inline]
    fn count_status(&mut self, connection: &mut Connection, route: usize, status: Status) {
        self.counters.count_response(route, status);
        tracing::debug!(
            target: REQUEST_LOG,
            route = self.counters.path(route).unwrap_or("none"),
            status = status.code(),
            "answered"
        );
        let began_ns = std::mem::take(&mut connection.began_ns);
        if let Some(ns) = self.stopwatch.on_answer(route, began_ns) {
            self.counters.record(route, ns, 1);
        }
    }
}

/// What is known of a request once its head is consumed.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    /// The index under which it is counted.
    route: usize,
    head_len: usize,
    /// The response has no body because the request is HEAD.
    head_only: bool,
    framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
}

impl Exchange {
    /// Whether a body that nobody wants is not even read: it is too large, or may never be sent, since
    /// the client asked first. Nobody can tell then where the next request begins.
    #[inline]
    fn leaves_body(&self, limits: &Limits) -> bool {
        match self.framing {
            Framing::Absent => false,
            Framing::Length(length) => {
                self.expects_continue || length > limits.body_bytes_max as u64
            }
            Framing::Chunked => self.expects_continue,
        }
    }
}

impl Collect {
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
fn join_chunks(mut chunks: &[u8], joined: &mut Vec<u8>) {
    joined.clear();
    let mut body = Body::new(Framing::Chunked);
    while let Ok((n, Found::Data(len))) = body.advance(chunks, usize::MAX) {
        joined.extend_from_slice(&chunks[n - len..n]);
        chunks = &chunks[n..];
    }
}

/// The last byte of a request was consumed, and its response is written.
#[inline]
fn end_message(connection: &mut Connection, consumed: usize) -> Turn {
    connection.phase = match connection.persistence {
        Persistence::Close => Phase::Closed,
        Persistence::Open | Persistence::OpenSaid => Phase::Head(Search::default()),
    };
    Turn {
        consumed,
        ends_message: true,
        next: None,
    }
}

/// Goes on with a generated body.
#[inline(never)]
fn stream_on(
    connection: &mut Connection,
    stream: Stream,
    offset: u64,
    reply: &mut Reply<'_>,
) -> Turn {
    let rest = usize::try_from(stream.length - offset).unwrap_or(usize::MAX);
    let len = rest.min(reply.remaining());
    (stream.fill)(stream.seed, offset, &mut reply.spare()[..len]);
    reply.advance(len);
    if len == rest {
        return Turn {
            ends_message: false,
            ..end_message(connection, 0)
        };
    }
    connection.phase = Phase::Stream {
        stream,
        offset: offset + len as u64,
    };
    Turn::wait(Next::Send)
}

/// Writes one chunk; there is room.
fn put_chunk(reply: &mut Reply<'_>, data: &[u8]) {
    let mut size = [0; 16];
    let mut at = size.len();
    let mut rest = data.len();
    while rest > 0 {
        at -= 1;
        size[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    put(reply, &size[at..]);
    put(reply, b"\r\n");
    put(reply, data);
    put(reply, b"\r\n");
}
