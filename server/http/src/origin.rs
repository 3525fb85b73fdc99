//! Decides the answers of one core for every version of HTTP, and counts them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::counters::HttpCounters;
use super::date::ServerAndDate;
use super::durations::Stopwatch;
use super::encode::{Encoder, Way};
use super::limits::Limits;
use super::middleware::{Middleware, Served};
use super::protocol::Protocol;
use super::refusal::Refusal;
use super::request::Request;
use super::response::{Answer, Response};
use super::response_fields::ResponseFields;
use super::status::Status;

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
    /// Answers `request`, which belongs to `route`, by `handler`.
    #[inline]
    pub(super) fn answer(
        &mut self,
        request: &Request<'_>,
        route: usize,
        way: Way<'_, '_>,
        handler: impl FnOnce(&mut S, Response<'_, '_>) -> Answer,
    ) -> Answer {
        let Origin {
            state,
            middleware,
            limits,
            server_and_date,
            fields,
            ..
        } = self;
        let began_ns = way.began_ns;
        let encoder = Encoder {
            way,
            server_and_date,
            allow: None,
            fields,
        };
        let response = Response::new(limits.copied_bytes_max, encoder);
        let answer = match middleware.before(state, request, response) {
            ControlFlow::Continue(response) => handler(state, response),
            ControlFlow::Break(answer) => answer,
        };
        self.count(Some(request), route, answer, began_ns);
        answer
    }

    /// Answers a request for which there is no handler.
    #[cold]
    pub(super) fn answer_without_handler(
        &mut self,
        request: &Request<'_>,
        route: usize,
        way: Way<'_, '_>,
        answer: impl FnOnce(Response<'_, '_>) -> Answer,
    ) -> Answer {
        let began_ns = way.began_ns;
        let answer = answer(self.response(way));
        self.count(Some(request), route, answer, began_ns);
        answer
    }

    /// Refuses a request of a route.
    #[cold]
    pub(super) fn refuse(&mut self, refusal: Refusal, route: usize, way: Way<'_, '_>) -> Answer {
        let began_ns = way.began_ns;
        let response = self.response(way);
        let response = match refusal {
            // RFC 9110, section 12.5.3: so that the client knows what to send instead.
            Refusal::ContentCoding => response.field("Accept-Encoding", "identity"),
            _ => response,
        };
        let answer = response.refuse_saying(refusal, refusal.detail());
        self.count(None, route, answer, began_ns);
        answer
    }

    #[inline]
    fn response<'r, 's>(&'r mut self, way: Way<'r, 's>) -> Response<'r, 's> {
        let encoder = Encoder {
            way,
            server_and_date: &self.server_and_date,
            allow: None,
            fields: &mut self.fields,
        };
        Response::new(self.limits.copied_bytes_max, encoder)
    }

    /// The head of a relayed response was written.
    pub(super) fn count_relayed(&mut self, status: Status, route: usize, began_ns: u64) {
        let answer = Answer {
            status,
            refusal: None,
            closes: false,
            protocol: Protocol::Http11,
        };
        self.count(None, route, answer, began_ns);
    }

    /// A response was written, or begun.
    #[inline]
    fn count(
        &mut self,
        request: Option<&Request<'_>>,
        route: usize,
        answer: Answer,
        began_ns: u64,
    ) {
        self.counters.count_response(route, answer.status);
        if let Some(refusal) = answer.refusal {
            self.counters.count_refusal(refusal);
        }
        let served = Served {
            request,
            route: self.counters.path(route),
            status: answer.status,
            protocol: answer.protocol,
        };
        self.middleware.after(&mut self.state, &served);
        if let Some(ns) = self.stopwatch.on_answer(route, began_ns) {
            self.counters.record(route, ns, 1);
        }
    }
}
