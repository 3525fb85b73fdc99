//! The server of one core, and the state machine of its HTTP/1.1 connections: from bytes to requests to
//! responses. That of HTTP/2 is in [`http2`](super::http2).

use std::sync::Arc;

use barewire_service::service::{End, Expect, Input, Next, Progress, Reply, Service};

use super::body::Body;
use super::chunked::Found;
use super::connection::{Collect, Connection, Exchange, Http1, Phase, Speaks, Then, Turn};
use super::content::{LAST_CHUNK, Sent, put_chunk};
use super::counters::HttpCounters;
use super::date::{InvalidServer, ServerAndDate};
use super::durations::Stopwatch;
use super::encode::{ROOM_MIN, put};
use super::fields::{Expectation, Framing, Meaning, Persistence, Version};
use super::head::{self, Head, Search};
use super::http2::{self, Http2, Http2Limits};
use super::limits::Limits;
use super::method::Method;
use super::middleware::Middleware;
use super::origin::Origin;
use super::refusal::Refusal;
use super::request::Request;
use super::response::Response;
use super::response_fields::ResponseFields;
use super::routes::{Handler, Routes};

/// One core's HTTP server: the routes, what their handlers share, and what all connections share.
///
/// `S` is the state of the handlers, `M` what is done around each of them; see
/// [`middleware`](super::middleware).
#[derive(Debug)]
pub struct Responder<S: 'static, M = ()> {
    pub(super) routes: Routes<S>,
    pub(super) origin: Origin<S, M>,
    /// Where a chunked body is put together, and a path decoded.
    pub(super) scratch: Vec<u8>,
    /// What the HTTP/2 connections of this core share; `None`: HTTP/2 is off.
    pub(super) http2: Option<Http2>,
}

impl<S> Responder<S> {
    /// A responder for one core, with the default limits and counters of its own.
    pub fn new(routes: &Routes<S>, state: S) -> Self {
        let limits = Limits::default();
        Responder {
            routes: routes.clone(),
            origin: Origin {
                state,
                middleware: (),
                limits,
                counters: Arc::new(HttpCounters::new(routes)),
                stopwatch: Stopwatch::new(routes.len() + 1),
                server_and_date: ServerAndDate::new(),
                fields: ResponseFields::new(limits.response_fields_bytes_max),
                draining: false,
            },
            scratch: scratch(&limits),
            http2: Some(Http2::new(Http2Limits::default(), &limits)),
        }
    }
}

impl<S, M: Middleware<S>> Responder<S, M> {
    /// With other limits.
    ///
    /// # Panics
    ///
    /// If a limit does not fit in 32 bits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        let bytes_max = limits.head_bytes_max.max(limits.body_bytes_max);
        assert!(u32::try_from(bytes_max).is_ok(), "{limits:?}");
        self.origin.fields = ResponseFields::new(limits.response_fields_bytes_max);
        self.origin.limits = limits;
        self.scratch = scratch(&limits);
        let http2 = self.http2.take();
        self.http2 = http2.map(|http2| Http2::new(http2.limits, &limits));
        self
    }

    /// With other limits of HTTP/2, or without HTTP/2.
    #[must_use]
    pub fn with_http2(mut self, limits: Option<Http2Limits>) -> Self {
        self.http2 = limits.map(|limits| Http2::new(limits, &self.origin.limits));
        self
    }

    /// Counts in `counters`, which another thread reads.
    ///
    /// # Panics
    ///
    /// If they were not made for the same routes.
    #[must_use]
    pub fn with_counters(mut self, counters: Arc<HttpCounters>) -> Self {
        assert_eq!(
            counters.routes().len(),
            self.routes.len() + 1,
            "counters of other routes"
        );
        self.origin.counters = counters;
        self
    }

    /// Sets the value of the field `Server`; an empty one leaves the field out.
    ///
    /// # Errors
    ///
    /// If it is longer than 57 bytes, or not printable ASCII.
    pub fn with_server(mut self, server: &str) -> Result<Self, InvalidServer> {
        self.origin.server_and_date.set_server(server)?;
        Ok(self)
    }

    /// Puts `middleware` around every handler and around the middleware that is there already.
    pub fn with_middleware<N: Middleware<S>>(self, middleware: N) -> Responder<S, (N, M)> {
        let Origin {
            state,
            middleware: inner,
            limits,
            counters,
            stopwatch,
            server_and_date,
            fields,
            draining,
        } = self.origin;
        Responder {
            routes: self.routes,
            origin: Origin {
                state,
                middleware: (middleware, inner),
                limits,
                counters,
                stopwatch,
                server_and_date,
                fields,
                draining,
            },
            scratch: self.scratch,
            http2: self.http2,
        }
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<HttpCounters> {
        &self.origin.counters
    }

    /// What its handlers share.
    pub fn state(&self) -> &S {
        &self.origin.state
    }

    /// Ends the responder and returns what its handlers shared.
    pub fn into_state(self) -> S {
        self.origin.state
    }

    /// What its handlers share, to be changed between two calls of theirs.
    pub fn state_mut(&mut self) -> &mut S {
        &mut self.origin.state
    }
}

/// Room for the longest body, or path, that has to be decoded.
fn scratch(limits: &Limits) -> Vec<u8> {
    Vec::with_capacity(limits.body_bytes_max.max(limits.target_bytes_max))
}

impl<S, M: Middleware<S>> Service for Responder<S, M> {
    type Connection = Connection;

    const REPLY_BYTES_MIN: usize = ROOM_MIN;

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
        let is_http1 = match &mut connection.0 {
            Speaks::Http1(http1) => self.http1(http1, input, reply, &mut progress),
            Speaks::Http2(_) => false,
        };
        if !is_http1 {
            progress = self.http2(connection, input, reply);
        }
        progress
    }

    fn on_timeout(&mut self, connection: &mut Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            Speaks::Http1(http1) => self.time_out(http1, reply),
            Speaks::Http2(http2) => http2::time_out(http2, &self.origin.counters, reply),
        }
    }

    fn on_dismiss(&mut self, connection: &mut Connection, reply: &mut Reply<'_>) {
        if let Speaks::Http2(http2) = &mut connection.0 {
            http2::dismiss(http2, &self.origin.counters, reply);
        }
    }

    #[inline]
    fn rest(connection: &Connection) -> Option<u8> {
        connection.rest()
    }

    #[inline]
    fn resume(connection: &mut Connection, rest: u8) {
        connection.resume(rest);
    }

    fn departs(connection: &Connection) -> Option<u8> {
        connection.departs()
    }

    fn on_end(&mut self, connection: &mut Connection, _: End) {
        match &mut connection.0 {
            Speaks::Http1(http1) => self.end_call(http1),
            Speaks::Http2(http2) => {
                http2::end_calls(http2, &self.routes, &mut self.origin.state);
            }
        }
    }

    fn on_clock(&mut self, unix_time_s: u64) {
        self.origin.server_and_date.set(unix_time_s);
    }

    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        let Origin {
            stopwatch,
            counters,
            middleware,
            ..
        } = &mut self.origin;
        stopwatch.on_time(now_ns, |route, ns, requests| {
            counters.record(route, ns, requests);
        });
        middleware.on_time(now_ns);
    }

    fn on_drain(&mut self) {
        self.origin.draining = true;
    }

    fn on_stay(&mut self) {
        self.origin.draining = false;
    }
}

impl<S, M: Middleware<S>> Responder<S, M> {
    /// Goes on with an HTTP/1 connection, and notes its progress; false if it turns out to be one of HTTP/2.
    // What is stored in parts and returned as a whole makes the processor wait.
    #[inline]
    fn http1(
        &mut self,
        connection: &mut Http1,
        input: Input<'_>,
        reply: &mut Reply<'_>,
        progress: &mut Progress,
    ) -> bool {
        loop {
            if connection.sending.is_pending() {
                match connection.sending.go_on(reply) {
                    Sent::All => {}
                    Sent::Part => {
                        progress.next = Next::Send;
                        return true;
                    }
                    Sent::Broken => {
                        self.origin.counters.contents_broken.increment();
                        connection.phase = Phase::Closed;
                        progress.next = Next::Abort;
                        return true;
                    }
                }
            }
            let bytes = &input.bytes[progress.consumed..];
            let full = input.full && progress.consumed == 0;
            let turn = match connection.phase {
                Phase::Head(search) => self.head(connection, search, bytes, full, reply),
                Phase::Collect(collect) => self.collect(connection, collect, bytes, full, reply),
                Phase::Discard { body, allowance } => {
                    self.discard(connection, body, allowance, bytes)
                }
                Phase::Echo(body) => self.echo(connection, body, bytes, reply),
                Phase::Relay(relaying) => self.relay(connection, relaying, bytes, reply),
                Phase::Closed => Turn::wait_after(bytes.len(), Next::Close),
            };
            progress.consumed += turn.consumed;
            match turn.then {
                Then::GoOn => {}
                Then::EndMessage => progress.messages += 1,
                Then::Wait(next) => {
                    progress.next = next;
                    return true;
                }
                Then::Http2 => return false,
            }
        }
    }

    fn time_out(&mut self, connection: &mut Http1, reply: &mut Reply<'_>) {
        let has_room = reply.remaining() >= ROOM_MIN && !connection.sending.is_pending();
        match connection.phase {
            Phase::Head(search) if search.has_begun() && has_room => {
                let refusal = (Refusal::Timeout, self.no_route());
                self.refuse(connection, refusal, false, reply);
            }
            Phase::Collect(collect) if has_room => {
                let refusal = (Refusal::Timeout, collect.route.into());
                self.refuse(connection, refusal, false, reply);
            }
            Phase::Discard { .. } => self.origin.counters.bodies_abandoned.increment(),
            Phase::Relay(_) => {
                self.origin.counters.bodies_abandoned.increment();
                self.end_call(connection);
            }
            _ => {}
        }
        connection.phase = Phase::Closed;
    }

    /// Takes a request's head and answers it, or prepares for its body.
    #[inline]
    fn head(
        &mut self,
        connection: &mut Http1,
        search: Search,
        bytes: &[u8],
        full: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        if bytes.is_empty() {
            return Turn::wait(Next::Receive(Expect::Message));
        }
        if reply.remaining() < ROOM_MIN {
            connection.suspend(&self.origin.stopwatch);
            return Turn::wait(Next::Send);
        }
        let usual = match search.has_begun() {
            false => head::find_usual(bytes, &self.origin.limits),
            true => Err(None),
        };
        match usual {
            Ok(head) => self.serve(connection, head, bytes, full, reply),
            Err(refusal) => self.unusual_head(connection, search, refusal, bytes, full, reply),
        }
    }

    /// The same for a head that is not whole, or not like nearly every other one. `refusal` is what is
    /// wrong with its fields if they were looked at.
    #[cold]
    fn unusual_head(
        &mut self,
        connection: &mut Http1,
        mut search: Search,
        refusal: Option<Refusal>,
        bytes: &[u8],
        full: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        // A refusal says that the request line is one of HTTP/1.
        if refusal.is_none() && self.http2.is_some() && search.may_be_preface() {
            match http2::preface(bytes) {
                http2::Preface::Whole => {
                    return Turn {
                        consumed: 0,
                        then: Then::Http2,
                    };
                }
                http2::Preface::Part if !full => {
                    return Turn::wait(Next::Receive(Expect::Head));
                }
                _ => {}
            }
        }
        let limits = &self.origin.limits;
        let found = match refusal {
            Some(refusal) => head::refuse_or_wait(bytes, full, &mut search, limits, refusal),
            None => head::find(bytes, full, &mut search, limits),
        };
        match found {
            Ok(Some(head)) => self.serve(connection, head, bytes, full, reply),
            Ok(None) => {
                connection.phase = Phase::Head(search);
                let expect = if search.has_begun() {
                    connection.suspend(&self.origin.stopwatch);
                    Expect::Head
                } else {
                    Expect::Message
                };
                Turn::wait(Next::Receive(expect))
            }
            Err(refusal) => self.refuse_head(connection, refusal, bytes, reply),
        }
    }

    /// Answers the request with this head, or prepares for its body.
    #[inline]
    fn serve(
        &mut self,
        connection: &mut Http1,
        head: Head<'_>,
        bytes: &[u8],
        full: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        let meaning = head.meaning;
        if meaning.expectation == Expectation::Unknown {
            return self.refuse_head(connection, Refusal::Expectation, bytes, reply);
        }
        let mut exchange = Exchange {
            route: self.no_route(),
            head_len: head.len,
            head_only: head.request.method == Method::Head,
            version: meaning.version,
            framing: meaning.framing,
            expects_continue: meaning.expectation == Expectation::Continue
                && meaning.framing.has_body(),
        };
        connection.persistence = if self.origin.draining {
            Persistence::Close
        } else {
            meaning.persistence
        };

        let target = &head.request.target;
        let route = match self.routes.find(target, &mut self.scratch) {
            Ok(Some(route)) => route,
            Ok(None) => {
                return self.serve_unrouted(connection, &head.request, exchange, bytes, reply);
            }
            Err(refusal) => return self.refuse_head(connection, refusal, bytes, reply),
        };
        exchange.route = route;
        let Some(handler) = self.routes.entry(route).handler(head.request.method) else {
            return self.serve_other_method(connection, &head.request, exchange, reply);
        };
        let request = &Request {
            route: self.routes.entry(route).path(),
            ..head.request
        };
        match handler {
            Handler::Head(handler) => {
                settle(connection, &exchange, &self.origin.limits);
                let way = connection.way(&exchange, reply);
                let answer = self.origin.answer(request, route, way, |state, response| {
                    handler(state, request, response)
                });
                connection.on_answer(answer);
                skip_body(connection, exchange, &self.origin.limits)
            }
            Handler::Body(handler) => {
                if let Some(refusal) = refuses_body(&exchange, &meaning, &self.origin.limits) {
                    let refusal = (refusal, exchange.route);
                    return self.refuse(connection, refusal, exchange.head_only, reply);
                }
                let mut collect = Collect::new(route, head.len, exchange.framing);
                if exchange.expects_continue {
                    self.invite_body(reply);
                    connection.phase = Phase::Collect(collect);
                    return Turn::go_on(0);
                }
                let bytes = &bytes[head.len..];
                let body_bytes_max = self.origin.limits.body_bytes_max;
                match collect.complete(bytes, body_bytes_max, &mut self.scratch) {
                    Ok(Some((len, body))) => {
                        let way = connection.way(&exchange, reply);
                        let answer = self.origin.answer(request, route, way, |state, response| {
                            handler(state, request, body, response)
                        });
                        connection.on_answer(answer);
                        connection.end_message(exchange.head_len + len)
                    }
                    Ok(None) => self.await_body(connection, collect, full, reply),
                    Err(refusal) => {
                        let refusal = (refusal, exchange.route);
                        self.refuse(connection, refusal, exchange.head_only, reply)
                    }
                }
            }
            Handler::Relay(relay) => {
                self.begin_relay(connection, relay, &head.request, exchange, reply)
            }
            Handler::Echo => {
                if exchange.expects_continue {
                    self.invite_body(reply);
                }
                let length = match exchange.framing {
                    Framing::Absent => Some(0),
                    Framing::Length(length) => Some(length),
                    Framing::Chunked => None,
                };
                let begin = |_: &mut S, response: Response<'_, '_>| response.echo(length);
                let way = connection.way(&exchange, reply);
                let answer = self.origin.answer(request, route, way, begin);
                connection.on_answer(answer);
                let body = Body::new(exchange.framing);
                connection.phase = match exchange.head_only || answer.refusal.is_some() {
                    true => Phase::Discard {
                        body,
                        allowance: u64::MAX,
                    },
                    false => Phase::Echo(body),
                };
                Turn::go_on(exchange.head_len)
            }
        }
    }

    /// No route has the path: `OPTIONS *`, or 404.
    #[cold]
    fn serve_unrouted(
        &mut self,
        connection: &mut Http1,
        request: &Request<'_>,
        exchange: Exchange,
        bytes: &[u8],
        reply: &mut Reply<'_>,
    ) -> Turn {
        let is_server = request.target.path == b"*";
        if !is_server && !request.target.has_valid_path() {
            return self.refuse_head(connection, Refusal::Target, bytes, reply);
        }
        let allow = self.routes.allow();
        settle(connection, &exchange, &self.origin.limits);
        let way = connection.way(&exchange, reply);
        let answer = self
            .origin
            .answer_without_handler(request, exchange.route, way, |response| {
                if is_server {
                    response.allow(allow).empty()
                } else {
                    response.refuse(Refusal::NotFound)
                }
            });
        connection.on_answer(answer);
        skip_body(connection, exchange, &self.origin.limits)
    }

    /// The route has no handler for the method: OPTIONS, or 405.
    #[cold]
    fn serve_other_method(
        &mut self,
        connection: &mut Http1,
        request: &Request<'_>,
        exchange: Exchange,
        reply: &mut Reply<'_>,
    ) -> Turn {
        let allow = &self.routes.entry(exchange.route).allow;
        settle(connection, &exchange, &self.origin.limits);
        let way = connection.way(&exchange, reply);
        let answer = self
            .origin
            .answer_without_handler(request, exchange.route, way, |response| {
                let response = response.allow(allow);
                if request.method == Method::Options {
                    response.empty()
                } else {
                    response.refuse(Refusal::MethodNotAllowed)
                }
            });
        connection.on_answer(answer);
        skip_body(connection, exchange, &self.origin.limits)
    }

    /// Reads and discards a body.
    #[inline(never)]
    fn discard(
        &mut self,
        connection: &mut Http1,
        mut body: Body,
        mut allowance: u64,
        bytes: &[u8],
    ) -> Turn {
        let mut consumed = 0;
        loop {
            match body.advance(&bytes[consumed..], usize::MAX) {
                Ok((n, Found::End)) => return connection.end_message(consumed + n),
                Ok((n, Found::More)) => {
                    connection.phase = Phase::Discard { body, allowance };
                    return Turn::wait_for_body(consumed + n);
                }
                Ok((n, Found::Data(len))) if len as u64 <= allowance => {
                    consumed += n;
                    allowance -= len as u64;
                }
                Ok(_) | Err(_) => {
                    // The response is already sent: the error cannot be reported any more.
                    self.origin.counters.bodies_abandoned.increment();
                    connection.phase = Phase::Closed;
                    return Turn::go_on(consumed);
                }
            }
        }
    }

    /// Hands a body that came in pieces to its handler once it is complete.
    #[inline(never)]
    fn collect(
        &mut self,
        connection: &mut Http1,
        mut collect: Collect,
        bytes: &[u8],
        full: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        if reply.remaining() < ROOM_MIN {
            connection.suspend(&self.origin.stopwatch);
            return Turn::wait(Next::Send);
        }
        let route = usize::from(collect.route);
        let head_len = collect.head_len as usize;
        let Origin { limits, .. } = &self.origin;
        let (len, body) =
            match collect.complete(&bytes[head_len..], limits.body_bytes_max, &mut self.scratch) {
                Ok(Some(complete)) => complete,
                Ok(None) => return self.await_body(connection, collect, full, reply),
                Err(refusal) => return self.refuse(connection, (refusal, route), false, reply),
            };
        // The head was valid when it came, and has not changed since.
        let head = head::find(bytes, full, &mut Search::default(), limits);
        let entry = self.routes.entry(route);
        let Ok(Some(head)) = head else {
            unreachable!("only a valid head is collected for");
        };
        let Some(Handler::Body(handler)) = entry.handler(head.request.method) else {
            unreachable!("only a handler of bodies is collected for");
        };
        if self.origin.draining {
            connection.persistence = Persistence::Close;
        }
        let request = Request {
            route: entry.path(),
            ..head.request
        };
        let exchange = Exchange {
            route,
            head_len,
            head_only: request.method == Method::Head,
            version: head.meaning.version,
            framing: head.meaning.framing,
            expects_continue: false,
        };
        let way = connection.way(&exchange, reply);
        let answer = self.origin.answer(&request, route, way, |state, response| {
            handler(state, &request, body, response)
        });
        connection.on_answer(answer);
        connection.end_message(head_len + len)
    }

    fn await_body(
        &mut self,
        connection: &mut Http1,
        collect: Collect,
        full: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        if full {
            let refusal = (Refusal::BodyTooLarge, collect.route.into());
            return self.refuse(connection, refusal, false, reply);
        }
        connection.suspend(&self.origin.stopwatch);
        connection.phase = Phase::Collect(collect);
        Turn::wait_for_body(0)
    }

    /// Sends back what has arrived of a body, as far as there is room.
    #[inline(never)]
    fn echo(
        &mut self,
        connection: &mut Http1,
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
            if room == 0 {
                connection.phase = Phase::Echo(body);
                return Turn::wait_after(consumed, Next::Send);
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
                    connection.phase = Phase::Echo(body);
                    return Turn::wait_for_body(consumed + n);
                }
                Ok((n, Found::End)) => {
                    if is_chunked {
                        put(reply, LAST_CHUNK)
                    }
                    return connection.end_message(consumed + n);
                }
                Err(_) => {
                    // The missing end of the chunked response shows the client that it failed.
                    self.origin.counters.bodies_abandoned.increment();
                    connection.phase = Phase::Closed;
                    return Turn::go_on(consumed);
                }
            }
        }
    }

    /// `100 Continue`: go on and send the body (RFC 9110, section 10.1.1).
    #[cold]
    pub(super) fn invite_body(&self, reply: &mut Reply<'_>) {
        put(reply, b"HTTP/1.1 100 Continue\r\n\r\n");
        self.origin.counters.continues.increment();
    }

    /// Refuses the head at the front of `bytes`, of which perhaps nothing could be understood.
    #[cold]
    fn refuse_head(
        &mut self,
        connection: &mut Http1,
        refusal: Refusal,
        bytes: &[u8],
        reply: &mut Reply<'_>,
    ) -> Turn {
        let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let refusal = (refusal, self.no_route());
        self.refuse(connection, refusal, line.starts_with(b"HEAD "), reply)
    }

    /// Refuses a request of a route, after which the connection cannot go on.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        connection: &mut Http1,
        refusal: (Refusal, usize),
        head_only: bool,
        reply: &mut Reply<'_>,
    ) -> Turn {
        let (refusal, route) = refusal;
        connection.persistence = Persistence::Close;
        let exchange = Exchange {
            route,
            head_len: 0,
            head_only,
            version: Version::Http11,
            framing: Framing::Absent,
            expects_continue: false,
        };
        let way = connection.way(&exchange, reply);
        let _ = self.origin.refuse(refusal, route, way);
        connection.phase = Phase::Closed;
        Turn::go_on(0)
    }

    /// The index under which requests are counted that match no route.
    #[inline]
    pub(super) fn no_route(&self) -> usize {
        self.routes.len()
    }
}

/// Whether the body is refused of a request whose handler wants one.
#[inline]
fn refuses_body(exchange: &Exchange, meaning: &Meaning, limits: &Limits) -> Option<Refusal> {
    if meaning.is_content_coded {
        return Some(Refusal::ContentCoding);
    }
    match exchange.framing {
        Framing::Absent => Some(Refusal::LengthRequired),
        Framing::Length(length) if length > limits.body_bytes_max as u64 => {
            Some(Refusal::BodyTooLarge)
        }
        _ => None,
    }
}

/// Decides what a response that does not wait for the body says about the connection.
#[inline]
pub(super) fn settle(connection: &mut Http1, exchange: &Exchange, limits: &Limits) {
    if exchange.leaves_body(limits) {
        connection.persistence = Persistence::Close;
    }
}

/// Goes on after a response that did not wait for the body.
#[inline]
pub(super) fn skip_body(connection: &mut Http1, exchange: Exchange, limits: &Limits) -> Turn {
    if !exchange.framing.has_body() {
        return connection.end_message(exchange.head_len);
    }
    connection.phase = if exchange.leaves_body(limits) {
        Phase::Closed
    } else {
        Phase::Discard {
            body: Body::new(exchange.framing),
            allowance: limits.body_bytes_max as u64,
        }
    };
    Turn::go_on(exchange.head_len)
}
