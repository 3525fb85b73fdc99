//! The client without I/O: what to ask next, and how to read the answer.
//!
//! A [`Client`] is a [`Service`], like the server's responder: a transport shows it the bytes that
//! arrived and gives it room to write. What is a reply there is a request here. A client speaks
//! first, so a transport *opens* a connection by calling [`Service::on_input`] with no input, and
//! wakes an idle one in the same way when the schedule says so:
//!
//! ```text
//!                 ┌──────────────── a transport (epoll, AF_XDP, a test) ───────────────┐
//!   connected ──▶ │ no input          ──▶ Client::on_input ──▶ first requests          │
//!   bytes     ──▶ │ Input             ──▶ Client::on_input ──▶ the next requests       │
//!   due_ns()  ──▶ │ no input, if idle ──▶ Client::on_input ──▶ a request that is due   │
//!   broken    ──▶ │ Client::on_lost: what was asked is booked as unanswered            │
//!                 └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A connection whose answers are all read and that has nothing to ask waits for
//! [`Expect::Message`] (idle); one that has asked waits for [`Expect::Head`] or [`Expect::Body`].
//! In a closed loop a pipeline is asked in one piece, when the previous one is answered in full.

mod clock;
mod exchange;
mod http2;

use std::sync::Arc;

use barewire_http::received::ResponseError;
use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};

use super::pace::{Churn, Drawer, Pace, Ramp};
use super::receipts::Receipts;
use super::request::{REQUEST_BYTES_MAX, Request};
use super::response::Heads;
use super::tally::{Failure, Tally};
use super::window::{Span, Window};
use exchange::{Asked, BodyPlace, First};
use http2::{Event, Http2, LITERAL_BYTES};

pub use clock::{Clock, Monotonic};
pub use exchange::Exchange;

/// The client of one thread.
#[derive(Debug)]
pub struct Client<C> {
    clock: C,
    request: Arc<Request>,
    pipeline: usize,
    pace: Pace,
    /// How many connections may ask for the first time at once, in a closed loop.
    ramp: Ramp,
    window: Window,
    span: Span,
    /// Each connection asks one request.
    churn: Option<Churn>,
    /// The body that every answer must have.
    body: Option<Arc<[u8]>>,
    drawer: Drawer,
    heads: Heads,
    /// Where fields of HTTP/2 are decoded.
    literal: Box<[u8]>,
    /// Before that nothing is asked, whatever a server says.
    is_started: bool,
    tally: Tally,
    /// Answers since the start, and when the last one came.
    answered: u64,
    answered_last_ns: u64,
}

impl<C: Clock> Client<C> {
    /// A client that asks `request`, up to `pipeline` times before it waits for answers.
    pub fn new(
        clock: C,
        request: &Arc<Request>,
        pipeline: usize,
        pace: Pace,
        drawer: Drawer,
    ) -> Self {
        Client {
            clock,
            request: Arc::clone(request),
            pipeline,
            pace,
            ramp: Ramp::none(),
            window: Window::default(),
            span: Span::default(),
            churn: None,
            body: None,
            drawer,
            heads: Heads::default(),
            literal: match request.is_http2() {
                true => vec![0; LITERAL_BYTES].into(),
                false => Box::default(),
            },
            is_started: false,
            tally: Tally::new(request.events().map(Receipts::new)),
            answered: 0,
            answered_last_ns: 0,
        }
    }

    /// Lets every connection ask one request, and open when `churn` says.
    pub fn churning(mut self, churn: Option<Churn>) -> Self {
        self.churn = churn;
        self
    }

    /// Lets connections of a closed loop begin to ask as `ramp` says.
    pub fn ramping(mut self, ramp: Ramp) -> Self {
        self.ramp = ramp;
        self
    }

    /// Measures within `window`; without, from the first request to the last answer.
    pub fn within(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Compares the body of every answer.
    pub fn expecting(mut self, body: Option<Arc<[u8]>>) -> Self {
        self.body = body;
        self
    }

    /// The clock that latencies are measured with.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Lets the schedule begin, and returns when that was.
    pub fn start(&mut self) -> u64 {
        self.is_started = true;
        self.answered_last_ns = self.clock.now_ns();
        self.span = self.window.starting_at(self.answered_last_ns);
        self.pace.start(self.answered_last_ns);
        if let Some(churn) = &mut self.churn {
            churn.start(self.answered_last_ns);
        }
        self.answered_last_ns
    }

    /// Whether requests are due by the clock.
    pub fn has_schedule(&self) -> bool {
        matches!(self.pace, Pace::OpenLoop(_)) || self.churn.is_some()
    }

    /// Whether connections are opened when [`Client::take_call`] says, and at no other time.
    pub fn is_churning(&self) -> bool {
        self.churn.is_some()
    }

    /// When the next connection is due; `None` if none is.
    pub fn next_call_ns(&mut self) -> Option<u64> {
        let churn = self.churn.as_mut()?;
        let ticket = churn.next(&mut self.drawer)?;
        Some(churn.due_ns(ticket))
    }

    /// The number of a connection that is due: open it with [`Exchange::for_ticket`].
    #[inline]
    pub fn take_call(&mut self, now_ns: u64) -> Option<u64> {
        self.churn.as_mut()?.take_due(&mut self.drawer, now_ns)
    }

    /// The connection could not be opened for a reason on this side; it stays due.
    #[cfg(feature = "xdp")]
    pub fn put_back(&mut self, exchange: &mut Exchange) {
        if let (Some(churn), Some(ticket)) = (&mut self.churn, exchange.ticket.take()) {
            churn.put_back(ticket);
        }
    }

    /// When an idle connection is wanted; `None` when nothing is left to ask, or when too many have asked for
    /// the first time and have no answer yet.
    #[inline]
    pub fn due_ns(&self) -> Option<u64> {
        if self.is_finished() {
            return None;
        }
        (self.pace.due_ns()).or_else(|| self.ramp.may_begin().then_some(0))
    }

    /// Whether nothing is left to ask. Answers may still be on their way.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.drawer.is_exhausted() && !self.churn.as_ref().is_some_and(Churn::holds_one)
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// When the last answer came, or the start if none has.
    pub fn answered_last_ns(&self) -> u64 {
        self.answered_last_ns
    }

    /// The results, for what the transport itself sees: bytes, reconnects.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// The results, of which nothing is left here.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::replace(&mut self.tally, Tally::new(None))
    }

    /// The connection is gone, for a reason that only the transport knows.
    pub fn on_lost(
        &mut self,
        exchange: &mut Exchange,
        failure: Failure,
        why: impl FnOnce() -> String,
    ) {
        self.fail(failure, why);
        self.abandon(exchange);
    }

    fn fail(&mut self, failure: Failure, why: impl FnOnce() -> String) {
        self.tally.fail(failure, why);
        let now_ns = self.clock.now_ns();
        if self.span.holds(now_ns) {
            self.tally.in_window.failure(now_ns - self.span.from_ns);
        }
    }

    /// Reads the answers in `input` and asks what may be asked then.
    #[inline]
    fn converse(
        &mut self,
        exchange: &mut Exchange,
        input: Input<'_>,
        reply: &mut Reply<'_>,
        now_ns: u64,
    ) -> Progress {
        let (mut consumed, mut messages) = (0, 0);
        let mut close = false;
        while !close && (consumed < input.bytes.len() || exchange.response.is_in_body()) {
            let bytes = &input.bytes[consumed..];
            let is_head = self.request.is_head();
            let (expected, place) = (self.body.as_deref(), &mut exchange.body);
            let sink = |piece: &[u8]| {
                if let Some(expected) = expected {
                    place.compare(expected, piece);
                }
            };
            let read = exchange
                .response
                .read(bytes, input.ended, is_head, &mut self.heads, sink);
            let complete = match read {
                Ok(read) => {
                    consumed += read.consumed;
                    read.complete
                }
                Err(error) => {
                    let why = describe(error, bytes);
                    return self.refuse(exchange, consumed, why);
                }
            };
            let Some(complete) = complete else {
                break;
            };
            let Some(asked) = exchange.asked.pop_front() else {
                return self.refuse(exchange, consumed, "an answer that nobody asked for".into());
            };
            let place = std::mem::take(&mut exchange.body);
            self.book_answer(exchange, asked, place, complete.status, now_ns);
            messages += 1;
            close = complete.close;
        }
        if messages > 0 {
            self.answered_last_ns = now_ns;
        }

        if close && self.churn.is_some() && !input.ended {
            // The side that closes first keeps the port in TIME-WAIT: the server does, as it has announced.
            return Progress {
                consumed,
                messages,
                next: Next::Receive(Expect::Body),
            };
        }
        if close || input.ended {
            // An orderly end between two answers is the server's right (RFC 9112, section 9.8).
            if !exchange.asked.is_empty() || !exchange.response.is_between() {
                let why = || "the server closed the connection instead of answering".to_owned();
                self.on_lost(exchange, Failure::Closed, why);
            }
            return Progress {
                consumed,
                messages,
                next: Next::Close,
            };
        }
        if input.full && messages == 0 && consumed == 0 {
            return self.refuse(exchange, consumed, ResponseError::HeadTooLong.to_string());
        }

        if messages == 0 && exchange.asked.is_empty() {
            self.book_lateness(now_ns);
        }
        let had_room = self.ask(exchange, reply, now_ns);
        let next = if !had_room {
            Next::Send
        } else if exchange.response.is_in_body() {
            Next::Receive(Expect::Body)
        } else if !exchange.asked.is_empty() {
            Next::Receive(Expect::Head)
        } else if self.is_finished() || self.churn.is_some() {
            Next::Close
        } else {
            Next::Receive(Expect::Message)
        };
        Progress {
            consumed,
            messages,
            next,
        }
    }

    /// The same by HTTP/2, where answers come in any order and each makes room for another request.
    fn converse_http2(
        &mut self,
        exchange: &mut Exchange,
        input: Input<'_>,
        reply: &mut Reply<'_>,
        now_ns: u64,
    ) -> Progress {
        let mut http2: Box<Http2> = exchange.http2.take().unwrap_or_default();
        let (mut consumed, mut messages) = (0, 0);
        http2.begin(reply);
        let is_full = loop {
            let bytes = &input.bytes[consumed..];
            let expected = self.body.as_deref();
            match http2.read(bytes, &self.request, expected, &mut self.literal, reply) {
                Ok((taken, event)) => {
                    consumed += taken;
                    match event {
                        Event::More => break false,
                        Event::Full => break true,
                        Event::Nothing => {}
                        Event::Answer {
                            asked,
                            status,
                            body,
                        } => {
                            messages += 1;
                            self.book_answer(exchange, asked, body, status, now_ns);
                        }
                        Event::Lost(asked, code) => {
                            let why = || format!("the server reset a stream: error {code}");
                            self.fail(Failure::Reset, why);
                            self.give_up(exchange, asked);
                        }
                    }
                }
                Err(fault) => {
                    exchange.http2 = Some(http2);
                    return self.refuse(exchange, consumed, fault.to_string());
                }
            }
        };
        if messages > 0 {
            self.answered_last_ns = now_ns;
        }
        let is_answered = http2.is_answered();
        let is_over = input.ended || http2.is_over() && is_answered;
        if is_over || input.full && consumed == 0 {
            exchange.http2 = Some(http2);
            if !is_answered {
                let why = || "the server closed the connection instead of answering".to_owned();
                self.on_lost(exchange, Failure::Closed, why);
            }
            return Progress {
                consumed,
                messages,
                next: Next::Close,
            };
        }
        if messages == 0 && is_answered {
            self.book_lateness(now_ns);
        }
        let had_room = !is_full && self.ask_http2(&mut http2, exchange, reply, now_ns);
        let next = if !had_room {
            Next::Send
        } else if !http2.is_answered() {
            Next::Receive(Expect::Head)
        } else if self.is_finished() || self.churn.is_some() && self.is_started {
            Next::Close
        } else {
            Next::Receive(Expect::Message)
        };
        exchange.http2 = Some(http2);
        Progress {
            consumed,
            messages,
            next,
        }
    }

    /// Books what was asked as unanswered.
    fn abandon(&mut self, exchange: &mut Exchange) {
        while let Some(asked) = exchange.asked.pop_front() {
            self.give_up(exchange, asked);
        }
        if let Some(mut http2) = exchange.http2.take() {
            for asked in http2.abandon() {
                self.give_up(exchange, asked);
            }
        }
    }

    /// Books one request as unanswered.
    fn give_up(&mut self, exchange: &mut Exchange, asked: Asked) {
        if exchange.first == First::Asked {
            exchange.first = First::ToAsk;
            self.ramp.give_up();
        }
        self.tally.unanswered += 1;
        if let Some(receipts) = &mut self.tally.receipts {
            receipts.lose(asked.ticket);
        }
    }

    /// Books one answer.
    #[inline]
    fn book_answer(
        &mut self,
        exchange: &mut Exchange,
        asked: Asked,
        place: BodyPlace,
        status: u16,
        now_ns: u64,
    ) {
        self.answered += 1;
        if exchange.first == First::Asked {
            exchange.first = First::Answered;
            self.ramp.answer();
        }
        if let Some(body) = &self.body {
            self.tally.wrong_bodies += u64::from(place.differs || place.at != body.len());
        }
        let latency_ns = now_ns.saturating_sub(asked.due_ns).max(1);
        if self.span.holds(asked.due_ns) {
            self.tally.latency_ns.saturating_record(latency_ns);
        }
        if self.span.holds(now_ns) {
            let offset_ns = now_ns - self.span.from_ns;
            self.tally.in_window.answer(offset_ns, latency_ns);
        }
        if let Some(count) = self.tally.statuses.get_mut(usize::from(status)) {
            *count += 1;
        }
        if let Some(receipts) = &mut self.tally.receipts
            && (200..300).contains(&status)
        {
            receipts.acknowledge(asked.ticket);
        }
    }

    /// Books how late a connection that was free is used.
    #[inline]
    fn book_lateness(&mut self, now_ns: u64) {
        let due_ns = self.pace.due_ns();
        if let Some(due_ns) = due_ns.filter(|&due_ns| due_ns <= now_ns && self.span.holds(due_ns)) {
            self.tally
                .lateness_ns
                .saturating_record((now_ns - due_ns).max(1));
        }
    }

    /// Writes what may be asked now. Returns false if there was not enough room for it.
    #[inline]
    fn ask(&mut self, exchange: &mut Exchange, reply: &mut Reply<'_>, now_ns: u64) -> bool {
        let is_closed_loop = matches!(self.pace, Pace::ClosedLoop) && self.churn.is_none();
        let is_answered = exchange.asked.is_empty() || exchange.is_asking;
        if is_closed_loop && !is_answered || !self.may_begin(exchange) {
            return true;
        }
        exchange.is_asking = false;
        while exchange.asked.len() < self.pipeline {
            if reply.remaining() < REQUEST_BYTES_MAX {
                exchange.is_asking = true;
                return false;
            }
            let Some(asked) = self.draw(exchange, now_ns) else {
                break;
            };
            let fits = self.request.write(asked.ticket, reply);
            debug_assert!(fits, "a request is never longer than REQUEST_BYTES_MAX");
            exchange.asked.push_back(asked);
        }
        true
    }

    /// The same by HTTP/2.
    #[inline]
    fn ask_http2(
        &mut self,
        http2: &mut Http2,
        exchange: &mut Exchange,
        reply: &mut Reply<'_>,
        now_ns: u64,
    ) -> bool {
        if !self.may_begin(exchange) {
            return true;
        }
        while http2.may_ask(&self.request, self.pipeline) {
            if reply.remaining() < REQUEST_BYTES_MAX {
                return false;
            }
            let Some(asked) = self.draw(exchange, now_ns) else {
                break;
            };
            http2.ask(&self.request, asked, reply);
        }
        true
    }

    /// Whether a connection may ask at all yet.
    #[inline]
    fn may_begin(&self, exchange: &Exchange) -> bool {
        let is_ramped = matches!(self.pace, Pace::ClosedLoop) && self.churn.is_none();
        self.is_started && !(is_ramped && exchange.first == First::ToAsk && !self.ramp.may_begin())
    }

    /// The next request of a connection, if one is due.
    #[inline]
    fn draw(&mut self, exchange: &mut Exchange, now_ns: u64) -> Option<Asked> {
        if let Some(churn) = &self.churn {
            let ticket = exchange.ticket.take()?;
            let due_ns = churn.due_ns(ticket);
            return Some(Asked { due_ns, ticket });
        }
        let due_ns = self.pace.due_ns().unwrap_or(now_ns);
        if due_ns > now_ns {
            return None;
        }
        let ticket = self.drawer.draw()?;
        self.pace.advance();
        if exchange.first == First::ToAsk {
            exchange.first = First::Asked;
            self.ramp.begin();
        }
        Some(Asked { due_ns, ticket })
    }

    /// The connection is of no use any more: what came was not an answer.
    #[cold]
    fn refuse(&mut self, exchange: &mut Exchange, consumed: usize, why: String) -> Progress {
        self.fail(Failure::Parse, || why);
        self.abandon(exchange);
        Progress {
            consumed,
            messages: 0,
            next: Next::Abort,
        }
    }
}

impl<C: Clock> Service for Client<C> {
    type Connection = Exchange;

    const REPLY_BYTES_MIN: usize = REQUEST_BYTES_MAX;

    #[inline]
    fn on_input(
        &mut self,
        exchange: &mut Exchange,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let now_ns = self.clock.now_ns();
        let written_before = reply.len();
        let progress = match self.request.is_http2() {
            false => self.converse(exchange, input, reply, now_ns),
            true => self.converse_http2(exchange, input, reply, now_ns),
        };
        if self.span.holds(now_ns) {
            self.tally.in_window.bytes_read += progress.consumed as u64;
            self.tally.in_window.bytes_written += (reply.len() - written_before) as u64;
        }
        progress
    }

    fn on_timeout(&mut self, exchange: &mut Exchange, _reply: &mut Reply<'_>) {
        if self.churn.is_some() && exchange.is_answered() && exchange.ticket.is_none() {
            // It was answered, only the server's end of the connection is missing.
            return;
        }
        self.on_lost(exchange, Failure::Timeout, || {
            "no answer within the timeout".to_owned()
        });
    }

    /// Asks nothing more.
    fn on_drain(&mut self) {
        self.drawer.stop();
        if let Some(churn) = &mut self.churn {
            churn.stop();
        }
    }
}

/// An error with the bytes that caused it, for people.
fn describe(error: ResponseError, bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(32)];
    format!("{error}, at \"{}\"", start.escape_ascii())
}

#[cfg(test)]
mod tests;
