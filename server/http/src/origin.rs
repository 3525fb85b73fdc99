//! Decides the answers of one core, whatever protocol asks, and keeps the books.

use std::ops::ControlFlow;
use std::sync::Arc;

use barewire_service::service::Reply;

use super::connection::{Connection, Exchange};
use super::counters::HttpCounters;
use super::date::ServerAndDate;
use super::durations::Stopwatch;
use super::encode::{Encoder, Envelope};
use super::fields::{Persistence, Version};
use super::limits::Limits;
use super::middleware::{Middleware, Served};
use super::refusal::Refusal;
use super::request::Request;
use super::response::{Answer, Response};
use super::response_fields::ResponseFields;

/// The state of the handlers, what is around them, and what every response takes.
#[derive(Debug)]
pub(super) struct Origin<S, M> {
    pub(super) state: S,
    pub(super) middleware: M,
    pub(super) limits: Limits,
    pub(super) counters: Arc<HttpCounters>,
    pub(super) stopwatch: Stopwatch,
    pub(super) server_and_date: ServerAndDate,
    pub(super) fields: ResponseFields,
    pub(super) draining: bool,
}

impl<S, M: Middleware<S>> Origin<S, M> {
    /// Answers `request` with what `handler` makes of a response. Returns the reason if that was refused.
    #[inline]
    pub(super) fn answer(
        &mut self,
        connection: &mut Connection,
        request: &Request<'_>,
        exchange: &Exchange,
        reply: &mut Reply<'_>,
        handler: impl FnOnce(&mut S, Response<'_, '_>) -> Answer,
    ) -> Option<Refusal> {
        let Origin {
            state,
            middleware,
            limits,
            server_and_date,
            fields,
            ..
        } = self;
        let encoder = Encoder {
            envelope: Envelope {
                persistence: connection.persistence,
                head_only: exchange.head_only,
                version: exchange.version,
            },
            server_and_date,
            allow: None,
            fields,
            reply,
            sending: &mut connection.sending,
        };
        let response = Response::new(limits.copied_bytes_max, encoder);
        let answer = match middleware.before(state, request, response) {
            ControlFlow::Continue(response) => handler(state, response),
            ControlFlow::Break(answer) => answer,
        };
        self.count(connection, Some(request), exchange.route, answer);
        answer.refusal
    }

    /// Answers a request for which there is no handler.
    #[cold]
    pub(super) fn answer_without_handler(
        &mut self,
        connection: &mut Connection,
        request: &Request<'_>,
        exchange: &Exchange,
        reply: &mut Reply<'_>,
        answer: impl FnOnce(Response<'_, '_>) -> Answer,
    ) {
        let envelope = Envelope {
            persistence: connection.persistence,
            head_only: exchange.head_only,
            version: exchange.version,
        };
        let answer = answer(self.response(envelope, connection, reply));
        self.count(connection, Some(request), exchange.route, answer);
    }

    /// Refuses a request of a route, after which the connection cannot go on.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        connection: &mut Connection,
        (refusal, route): (Refusal, usize),
        head_only: bool,
        reply: &mut Reply<'_>,
    ) {
        let envelope = Envelope {
            persistence: Persistence::Close,
            head_only,
            version: Version::Http11,
        };
        let response = self.response(envelope, connection, reply);
        let response = match refusal {
            // RFC 9110, section 12.5.3: so that the client knows what to send instead.
            Refusal::ContentCoding => response.field("Accept-Encoding", "identity"),
            _ => response,
        };
        let answer = response.refuse(refusal);
        self.count(connection, None, route, answer);
    }

    fn response<'r, 's>(
        &'r mut self,
        envelope: Envelope,
        connection: &'r mut Connection,
        reply: &'r mut Reply<'s>,
    ) -> Response<'r, 's> {
        let encoder = Encoder {
            envelope,
            server_and_date: &self.server_and_date,
            allow: None,
            fields: &mut self.fields,
            reply,
            sending: &mut connection.sending,
        };
        Response::new(self.limits.copied_bytes_max, encoder)
    }

    /// A response was written, or begun.
    #[inline]
    fn count(
        &mut self,
        connection: &mut Connection,
        request: Option<&Request<'_>>,
        route: usize,
        answer: Answer,
    ) {
        if answer.closes {
            connection.persistence = Persistence::Close;
        }
        self.counters.count_response(route, answer.status);
        if let Some(refusal) = answer.refusal {
            self.counters.count_refusal(refusal);
        }
        let served = Served {
            request,
            route: self.counters.path(route),
            status: answer.status,
        };
        self.middleware.after(&mut self.state, &served);
        let began_ns = std::mem::take(&mut connection.began_ns);
        if let Some(ns) = self.stopwatch.on_answer(route, began_ns) {
            self.counters.record(route, ns, 1);
        }
    }

    /// The request cannot be answered before something else happens: remembers when it began.
    pub(super) fn suspend(&self, connection: &mut Connection) {
        if connection.began_ns == 0 {
            connection.began_ns = self.stopwatch.now_ns();
        }
    }
}
