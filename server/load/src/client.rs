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

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};

use super::pace::{Churn, Drawer, Pace, Ramp};
use super::receipts::Receipts;
use super::request::{REQUEST_BYTES_MAX, Request};
use super::response::{Heads, ParseError, Response};
use super::tally::{Failure, Tally};
use super::window::{Span, Window};

/// Tells the time, in nanoseconds from a point that all threads of a run share.
pub trait Clock {
    /// Now.
    fn now_ns(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic(pub Instant);

impl Clock for Monotonic {
    #[inline]
    fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// One thread's side of the conversation.
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
    tally: Tally,
    /// Answers since the start, and when the last one came.
    answered: u64,
    answered_last_ns: u64,
}

/// A connection's state: what was asked on it and not yet answered, and the answer that is coming.
#[derive(Debug, Default)]
pub struct Exchange {
    asked: VecDeque<Asked>,
    /// What this connection was opened to ask, and has not asked yet.
    ticket: Option<u64>,
    /// Where in the body the answer is that is coming, and whether it has differed.
    body: BodyPlace,
    /// There was no room for all of a pipeline.
    is_asking: bool,
    first: First,
    response: Response,
}

/// Where a connection of a closed loop is with its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum First {
    #[default]
    ToAsk,
    Asked,
    Answered,
}

#[derive(Debug, Clone, Copy, Default)]
struct BodyPlace {
    at: usize,
    differs: bool,
}

impl BodyPlace {
    #[inline]
    fn compare(&mut self, expected: &[u8], piece: &[u8]) {
        let end = self.at + piece.len();
        self.differs |= expected.get(self.at..end) != Some(piece);
        self.at = end;
    }
}

impl Exchange {
    /// What a connection begins with that was opened for one request.
    pub fn for_ticket(ticket: u64) -> Self {
        Exchange {
            ticket: Some(ticket),
            ..Exchange::default()
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    due_ns: u64,
    ticket: u64,
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

    /// The connection could not be begun, for no fault of the server's; it stays due.
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
            if !self.book_answer(exchange, complete.status, now_ns) {
                return self.refuse(exchange, consumed, "an answer that nobody asked for".into());
            }
            messages += 1;
            close = complete.close;
        }
        if messages > 0 {
            self.answered_last_ns = now_ns;
        }

        if close && self.churn.is_some() && !input.ended {
            // Whoever closes first keeps the port: that is for the server, as it has said.
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
            return self.refuse(exchange, consumed, ParseError::HeadTooLong.to_string());
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

    /// Books what was asked as unanswered.
    fn abandon(&mut self, exchange: &mut Exchange) {
        if exchange.first == First::Asked {
            exchange.first = First::ToAsk;
            self.ramp.give_up();
        }
        for asked in exchange.asked.drain(..) {
            self.tally.unanswered += 1;
            if let Some(receipts) = &mut self.tally.receipts {
                receipts.lose(asked.ticket);
            }
        }
    }

    /// Books one answer. Returns false if nothing was asked.
    #[inline]
    fn book_answer(&mut self, exchange: &mut Exchange, status: u16, now_ns: u64) -> bool {
        let Some(asked) = exchange.asked.pop_front() else {
            return false;
        };
        self.answered += 1;
        if exchange.first == First::Asked {
            exchange.first = First::Answered;
            self.ramp.answer();
        }
        if let Some(body) = &self.body {
            let place = std::mem::take(&mut exchange.body);
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
        true
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
        if let Some(churn) = &self.churn {
            if let Some(ticket) = exchange.ticket.take() {
                let due_ns = churn.due_ns(ticket);
                let fits = self.request.write(ticket, reply);
                debug_assert!(fits, "a request is never longer than REQUEST_BYTES_MAX");
                exchange.asked.push_back(Asked { due_ns, ticket });
            }
            return true;
        }
        let is_answered = exchange.asked.is_empty() || exchange.is_asking;
        if matches!(self.pace, Pace::ClosedLoop) && !is_answered {
            return true;
        }
        if matches!(self.pace, Pace::ClosedLoop)
            && exchange.first == First::ToAsk
            && !self.ramp.may_begin()
        {
            return true;
        }
        exchange.is_asking = false;
        while exchange.asked.len() < self.pipeline {
            let due_ns = self.pace.due_ns().unwrap_or(now_ns);
            if due_ns > now_ns {
                break;
            }
            if reply.remaining() < REQUEST_BYTES_MAX {
                exchange.is_asking = true;
                return false;
            }
            let Some(ticket) = self.drawer.draw() else {
                break;
            };
            self.pace.advance();
            if exchange.first == First::ToAsk {
                exchange.first = First::Asked;
                self.ramp.begin();
            }
            let fits = self.request.write(ticket, reply);
            debug_assert!(fits, "a request is never longer than REQUEST_BYTES_MAX");
            exchange.asked.push_back(Asked { due_ns, ticket });
        }
        true
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
        let progress = self.converse(exchange, input, reply, now_ns);
        if self.span.holds(now_ns) {
            self.tally.in_window.bytes_read += progress.consumed as u64;
            self.tally.in_window.bytes_written += (reply.len() - written_before) as u64;
        }
        progress
    }

    fn on_timeout(&mut self, exchange: &mut Exchange, _reply: &mut Reply<'_>) {
        if self.churn.is_some() && exchange.asked.is_empty() {
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
fn describe(error: ParseError, bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(32)];
    format!("{error}, at \"{}\"", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Tickets;
    use crate::request::Values;
    use crate::tally::Failures;
    use http::Method;
    use std::cell::Cell;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const ASKED: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    impl Clock for &Cell<u64> {
        fn now_ns(&self) -> u64 {
            self.get()
        }
    }

    fn get() -> Arc<Request> {
        Arc::new(Request::fixed(&Method::GET, "/", &[], b"").unwrap())
    }

    fn tickets(count: u64) -> Arc<Tickets> {
        Arc::new(Tickets::new(count, 1))
    }

    /// A client and what one connection of it did.
    struct Wire<'a> {
        client: Client<&'a Cell<u64>>,
        exchange: Exchange,
        space: Vec<u8>,
    }

    impl<'a> Wire<'a> {
        fn new(
            now: &'a Cell<u64>,
            request: &Arc<Request>,
            pipeline: usize,
            pace: Pace,
            tickets: &Arc<Tickets>,
        ) -> Self {
            let mut client = Client::new(now, request, pipeline, pace, Drawer::new(tickets));
            client.start();
            Wire {
                client,
                exchange: Exchange::default(),
                space: vec![0; 4 * REQUEST_BYTES_MAX],
            }
        }

        /// Shows `bytes`; what was written, and what is next.
        fn show(&mut self, bytes: &[u8], ended: bool) -> (Vec<u8>, Progress) {
            let mut reply = Reply::new(&mut self.space);
            let input = Input {
                bytes,
                full: false,
                ended,
            };
            let progress = self.client.on_input(&mut self.exchange, input, &mut reply);
            (reply.written().to_vec(), progress)
        }

        fn failures(&mut self) -> (Failures, u64) {
            (self.client.tally().failures, self.client.tally().unanswered)
        }
    }

    #[test]
    fn rates_count_what_comes_in_the_window_and_latencies_what_is_due_in_it() {
        let now = Cell::new(0);
        let mut wire = Wire::new(&now, &get(), 1, Pace::ClosedLoop, &tickets(100));
        wire.client = wire.client.within(Window {
            warm_up: std::time::Duration::from_nanos(100),
            length: Some(std::time::Duration::from_nanos(1_000)),
        });
        wire.client.start();
        wire.show(b"", false);
        // Asked and answered before it; asked before; in it; asked in it and answered after; after.
        for at_ns in [50, 150, 500, 1_500, 1_600] {
            now.set(at_ns);
            wire.show(OK, false);
        }
        let tally = wire.client.take_tally();
        assert_eq!(tally.responses(), 5);
        assert_eq!(tally.in_window.responses, 2);
        assert_eq!(tally.in_window.bytes_read, 2 * OK.len() as u64);
        assert_eq!(tally.in_window.bytes_written, 2 * ASKED.len() as u64);
        assert_eq!((tally.latency_ns.len(), tally.latency_ns.max()), (2, 1_000));
    }

    #[test]
    fn connections_of_a_closed_loop_begin_one_after_the_other() {
        let now = Cell::new(0);
        let mut wire = Wire::new(&now, &get(), 1, Pace::ClosedLoop, &tickets(100));
        wire.client = wire.client.ramping(Ramp::new(3, 1));
        let mut others = [Exchange::default(), Exchange::default()];
        assert_eq!(wire.show(b"", false).0, ASKED);
        // The first one has no answer yet: the next one stays idle.
        std::mem::swap(&mut wire.exchange, &mut others[0]);
        let (written, progress) = wire.show(b"", false);
        assert!(written.is_empty() && progress.next == Next::Receive(Expect::Message));
        assert_eq!(wire.client.due_ns(), None);
        // Its answer makes room, and the first one goes on as it likes.
        std::mem::swap(&mut wire.exchange, &mut others[0]);
        assert_eq!(wire.show(OK, false).0, ASKED);
        assert_eq!(wire.client.due_ns(), Some(0));
        std::mem::swap(&mut wire.exchange, &mut others[0]);
        assert_eq!(wire.show(b"", false).0, ASKED);
        assert_eq!(wire.client.due_ns(), None);
        // A connection that breaks makes room, too.
        let reason = || "reset".to_owned();
        (wire.client).on_lost(&mut wire.exchange, Failure::Reset, reason);
        assert_eq!(wire.client.due_ns(), Some(0));
        std::mem::swap(&mut wire.exchange, &mut others[1]);
        assert_eq!(wire.show(b"", false).0, ASKED);
    }

    #[test]
    fn a_closed_loop_asks_again_when_it_has_its_answer() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(2));
        let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
        let (asked, progress) = wire.show(b"", false);
        assert_eq!(
            (asked.as_slice(), progress.next),
            (ASKED, Next::Receive(Expect::Head))
        );

        now.set(1000);
        let (asked, progress) = wire.show(&OK[..10], false);
        assert_eq!((asked.as_slice(), progress.consumed), (b"".as_slice(), 0));
        let (asked, progress) = wire.show(&OK[..OK.len() - 1], false);
        assert_eq!(
            (asked.as_slice(), progress.consumed),
            (b"".as_slice(), OK.len() - 1)
        );
        assert_eq!(progress.next, Next::Receive(Expect::Body));
        let (asked, progress) = wire.show(b"k", false);
        assert_eq!((asked.as_slice(), progress.messages), (ASKED, 1));

        now.set(3000);
        let (asked, progress) = wire.show(OK, false);
        assert_eq!(
            (asked.as_slice(), progress.messages, progress.next),
            (b"".as_slice(), 1, Next::Close)
        );
        let tally = wire.client.take_tally();
        assert_eq!((tally.responses(), tally.statuses[200]), (2, 2));
        assert_eq!(
            (tally.latency_ns.min(), tally.latency_ns.max() / 2),
            (1000, 1000)
        );
    }

    #[test]
    fn a_pipeline_is_asked_in_one_piece_and_again_when_all_is_answered() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(100));
        let mut wire = Wire::new(&now, &request, 3, Pace::ClosedLoop, &tickets);
        assert_eq!(wire.show(b"", false).0, ASKED.repeat(3));
        let two_and_a_bit = [OK, OK, &OK[..30]].concat();
        let (asked, progress) = wire.show(&two_and_a_bit, false);
        assert_eq!(
            (asked.len(), progress.messages, progress.consumed),
            (0, 2, 2 * OK.len())
        );
        assert_eq!(wire.show(OK, false).0, ASKED.repeat(3));
    }

    #[test]
    fn a_stalled_server_cannot_hide_its_stall_from_an_open_loop() {
        // One connection, a request due every microsecond, a server that stalls for ten.
        let (now, request, tickets) = (Cell::new(0), get(), tickets(11));
        let mut wire = Wire::new(&now, &request, 1, Pace::open_loop(1e6, 0, 1), &tickets);
        assert_eq!(wire.show(b"", false).0, ASKED);
        now.set(10_000);
        for _ in 0..11 {
            wire.show(OK, false);
        }
        let latency = wire.client.take_tally().latency_ns;
        let latencies: Vec<u64> = latency
            .iter_recorded()
            .map(|value| value.value_iterated_to() / 1000)
            .collect();
        // The last was due when the stall ended: nothing, recorded as one nanosecond.
        assert_eq!(latencies, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn an_open_loop_lets_a_connection_idle_until_a_request_is_due() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(2));
        let mut wire = Wire::new(&now, &request, 1, Pace::open_loop(1000.0, 0, 1), &tickets);
        wire.show(b"", false);
        let (asked, progress) = wire.show(OK, false);
        assert_eq!(
            (asked.len(), progress.next),
            (0, Next::Receive(Expect::Message))
        );
        assert_eq!(wire.client.due_ns(), Some(1_000_000));
        now.set(1_000_700);
        assert_eq!(wire.show(b"", false).0, ASKED);
        assert_eq!(wire.client.tally().lateness_ns.max(), 700);
        assert_eq!(wire.show(OK, false).1.next, Next::Close);
    }

    #[test]
    fn answers_that_do_not_come_are_booked_as_unanswered() {
        let (now, tickets) = (Cell::new(0), tickets(u64::MAX));
        let event = Arc::new(Request::event(Values::Integer, &[]).unwrap());
        let mut wire = Wire::new(&now, &event, 4, Pace::ClosedLoop, &tickets);

        wire.show(b"", false);
        let (_, progress) = wire.show(OK, true);
        assert_eq!(progress.next, Next::Close);
        assert_eq!(
            wire.failures(),
            (
                Failures {
                    closed: 1,
                    ..Failures::default()
                },
                3
            )
        );

        wire.show(b"", false);
        wire.client
            .on_timeout(&mut wire.exchange, &mut Reply::new(&mut []));
        assert_eq!(
            wire.failures(),
            (
                Failures {
                    closed: 1,
                    timeout: 1,
                    ..Failures::default()
                },
                7
            )
        );

        wire.show(b"", false);
        let refusal = b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(wire.show(refusal, false).1.next, Next::Close);

        let tally = wire.client.take_tally();
        let receipts = tally.receipts.unwrap();
        assert_eq!(
            (receipts.acknowledged.count, receipts.unknown.count),
            (1, 3 + 4 + 3)
        );
        assert_eq!((tally.statuses[200], tally.statuses[507]), (1, 1));
    }

    #[test]
    fn an_orderly_end_between_two_answers_is_no_failure() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(9));
        let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
        wire.show(b"", false);
        let last = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        let (asked, progress) = wire.show(last, false);
        assert_eq!((asked.len(), progress.next), (0, Next::Close));
        assert_eq!(wire.failures(), (Failures::default(), 0));

        wire.exchange = Exchange::default();
        wire.show(b"", false);
        assert_eq!(
            wire.show(b"HTTP/1.0 200 OK\r\n\r\nall of it", true).1.next,
            Next::Close
        );
        assert_eq!(wire.failures(), (Failures::default(), 0));
        assert_eq!(wire.client.answered(), 2);
    }

    #[test]
    fn garbage_and_what_nobody_asked_for_break_the_connection() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(u64::MAX));
        for garbage in [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
            &[OK, OK].concat(),
        ] {
            let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
            wire.show(b"", false);
            assert_eq!(wire.show(garbage, false).1.next, Next::Abort);
            assert_eq!(
                wire.failures().0,
                Failures {
                    parse: 1,
                    ..Failures::default()
                }
            );
        }
    }

    #[test]
    fn after_a_drain_nothing_is_asked() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(u64::MAX));
        let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
        wire.show(b"", false);
        wire.client.on_drain();
        let (asked, progress) = wire.show(OK, false);
        assert_eq!(
            (asked.len(), progress.messages, progress.next),
            (0, 1, Next::Close)
        );
        assert!(wire.client.is_finished());
    }

    #[test]
    fn a_pipeline_longer_than_the_room_is_asked_in_several_pieces() {
        let (now, tickets) = (Cell::new(0), tickets(u64::MAX));
        let request = Request::fixed(&Method::POST, "/", &[], &[b'x'; 5000]);
        let request = Arc::new(request.unwrap());
        let mut wire = Wire::new(&now, &request, 10, Pace::ClosedLoop, &tickets);
        let (mut asked, mut calls) = (0, 0);
        loop {
            let (written, progress) = wire.show(b"", false);
            (asked, calls) = (asked + written.len(), calls + 1);
            if progress.next != Next::Send {
                break;
            }
        }
        assert!(calls > 1);
        assert_eq!(asked % 10, 0);
        assert_eq!(wire.exchange.asked.len(), 10);
    }

    const LAST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

    #[test]
    fn a_connection_of_a_churn_asks_once_and_leaves_the_closing_to_the_server() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(2));
        let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
        wire.client = wire.client.churning(Some(Churn::new(1000.0)));
        wire.client.start();
        assert_eq!(wire.client.take_call(0), Some(0));
        assert_eq!(wire.client.take_call(999_999), None);
        assert_eq!(wire.client.next_call_ns(), Some(1_000_000));

        wire.exchange = Exchange::for_ticket(0);
        now.set(500);
        assert_eq!(wire.show(b"", false).0, ASKED);
        now.set(700);
        let (asked, progress) = wire.show(LAST, false);
        assert_eq!(
            (asked.len(), progress.messages, progress.next),
            (0, 1, Next::Receive(Expect::Body))
        );
        assert_eq!(wire.show(b"", true).1.next, Next::Close);
        // From when the connection was due, its handshake included.
        assert_eq!(wire.client.tally().latency_ns.max(), 700);

        assert!(!wire.client.is_finished());
        wire.exchange = Exchange::for_ticket(wire.client.take_call(1_000_000).unwrap());
        assert!(wire.client.is_finished());
        wire.show(b"", false);
        assert_eq!(wire.show(OK, false).1.next, Next::Close);
        assert_eq!(wire.failures(), (Failures::default(), 0));
    }

    #[test]
    fn a_churn_does_not_blame_a_server_that_is_slow_to_close() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(2));
        let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
        wire.client = wire.client.churning(Some(Churn::new(1000.0)));
        wire.exchange = Exchange::for_ticket(0);
        wire.show(b"", false);
        wire.show(LAST, false);
        wire.client
            .on_timeout(&mut wire.exchange, &mut Reply::new(&mut []));
        assert_eq!(wire.failures(), (Failures::default(), 0));
    }

    #[test]
    fn bodies_are_compared_also_when_they_come_in_pieces() {
        let (now, request, tickets) = (Cell::new(0), get(), tickets(u64::MAX));
        let answer = |body: &str| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            (head + body).into_bytes()
        };
        for (body, wrong) in [
            ("hello", 0),
            ("hallo", 1),
            ("hell", 1),
            ("hello!", 1),
            ("", 1),
        ] {
            for cut in 0..answer(body).len() {
                let mut wire = Wire::new(&now, &request, 1, Pace::ClosedLoop, &tickets);
                wire.client = wire.client.expecting(Some(b"hello".as_slice().into()));
                wire.show(b"", false);
                let whole = answer(body);
                let consumed = wire.show(&whole[..cut], false).1.consumed;
                wire.show(&whole[consumed..], false);
                wire.show(&answer("hello"), false);
                let tally = wire.client.take_tally();
                assert_eq!(
                    (tally.responses(), tally.wrong_bodies),
                    (2, wrong),
                    "{body} {cut}"
                );
            }
        }
    }
}
