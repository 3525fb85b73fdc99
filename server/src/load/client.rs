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
use std::time::Instant;

use barewire_stack::service::{Expect, Input, Next, Progress, Reply, Service};

use super::ledger::Ledger;
use super::pace::{Drawer, Pace};
use super::request::{REQUEST_BYTES_MAX, Request};
use super::response::{Heads, ParseError, Response};
use super::tally::{Failure, Tally};

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
pub struct Client<'a, C> {
    clock: C,
    request: &'a Request,
    pipeline: usize,
    pace: Pace,
    drawer: Drawer<'a>,
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
    response: Response,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    due_ns: u64,
    ticket: u64,
}

impl<'a, C: Clock> Client<'a, C> {
    /// A client that asks `request`, up to `pipeline` times before it waits for answers.
    pub fn new(
        clock: C,
        request: &'a Request,
        pipeline: usize,
        pace: Pace,
        drawer: Drawer<'a>,
    ) -> Self {
        Client {
            clock,
            request,
            pipeline,
            pace,
            drawer,
            heads: Heads::default(),
            tally: Tally::new(request.events().map(Ledger::new)),
            answered: 0,
            answered_last_ns: 0,
        }
    }

    /// The clock that latencies are measured with.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Lets the schedule begin.
    pub fn start(&mut self) {
        self.answered_last_ns = self.clock.now_ns();
        self.pace.start(self.answered_last_ns);
    }

    /// Whether requests are due by the clock.
    pub fn has_schedule(&self) -> bool {
        matches!(self.pace, Pace::OpenLoop(_))
    }

    /// When an idle connection is wanted; `None` in a closed loop or when nothing is left to ask.
    #[inline]
    pub fn due_ns(&self) -> Option<u64> {
        if self.is_finished() {
            None
        } else {
            self.pace.due_ns()
        }
    }

    /// Whether nothing is left to ask. Answers may still be on their way.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.drawer.is_exhausted()
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

    /// The results.
    pub fn into_tally(self) -> Tally {
        self.tally
    }

    /// The connection is gone, for a reason that only the transport knows.
    pub fn on_lost(
        &mut self,
        exchange: &mut Exchange,
        failure: Failure,
        why: impl FnOnce() -> String,
    ) {
        self.tally.fail(failure, why);
        self.abandon(exchange);
    }

    /// Books what was asked as unanswered.
    fn abandon(&mut self, exchange: &mut Exchange) {
        for asked in exchange.asked.drain(..) {
            self.tally.unanswered += 1;
            if let Some(ledger) = &mut self.tally.ledger {
                ledger.lose(asked.ticket);
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
        self.tally
            .latency_ns
            .saturating_record(now_ns.saturating_sub(asked.due_ns).max(1));
        if let Some(count) = self.tally.statuses.get_mut(usize::from(status)) {
            *count += 1;
        }
        if let Some(ledger) = &mut self.tally.ledger
            && (200..300).contains(&status)
        {
            ledger.acknowledge(asked.ticket);
        }
        true
    }

    /// Books how late a connection that was free is used.
    #[inline]
    fn book_lateness(&mut self, now_ns: u64) {
        if let Some(due_ns) = self.pace.due_ns().filter(|&due_ns| due_ns <= now_ns) {
            self.tally
                .lateness_ns
                .saturating_record((now_ns - due_ns).max(1));
        }
    }

    /// Writes what may be asked now. Returns false if there was not enough room for it.
    #[inline]
    fn ask(&mut self, exchange: &mut Exchange, reply: &mut Reply<'_>, now_ns: u64) -> bool {
        if matches!(self.pace, Pace::ClosedLoop) && !exchange.asked.is_empty() {
            return true;
        }
        while exchange.asked.len() < self.pipeline {
            let due_ns = self.pace.due_ns().unwrap_or(now_ns);
            if due_ns > now_ns {
                break;
            }
            if reply.remaining() < REQUEST_BYTES_MAX {
                return false;
            }
            let Some(ticket) = self.drawer.draw() else {
                break;
            };
            self.pace.advance();
            let fits = self.request.write(ticket, reply);
            debug_assert!(fits, "a request is never longer than REQUEST_BYTES_MAX");
            exchange.asked.push_back(Asked { due_ns, ticket });
        }
        true
    }

    /// The connection is of no use any more: what came was not an answer.
    #[cold]
    fn refuse(&mut self, exchange: &mut Exchange, consumed: usize, why: String) -> Progress {
        self.tally.fail(Failure::Parse, || why);
        self.abandon(exchange);
        Progress {
            consumed,
            messages: 0,
            next: Next::Abort,
        }
    }
}

impl<C: Clock> Service for Client<'_, C> {
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
        let (mut consumed, mut messages) = (0, 0);
        let mut close = false;
        while !close && (consumed < input.bytes.len() || exchange.response.is_in_body()) {
            let bytes = &input.bytes[consumed..];
            let is_head = self.request.is_head();
            let read = exchange
                .response
                .read(bytes, input.ended, is_head, &mut self.heads, |_| {});
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
        } else if self.is_finished() {
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

    fn on_timeout(&mut self, exchange: &mut Exchange, _reply: &mut Reply<'_>) {
        self.on_lost(exchange, Failure::Timeout, || {
            "no answer within the timeout".to_owned()
        });
    }

    /// Asks nothing more.
    fn on_drain(&mut self) {
        self.drawer.stop();
    }
}

/// An error with the bytes that caused it, for people.
fn describe(error: ParseError, bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(32)];
    format!("{error}, at \"{}\"", start.escape_ascii())
}
