//! Code around every handler, composed when the program is compiled.
//!
//! ```text
//!   request ─▶ A::before ─▶ B::before ─▶ handler ─▶ response ─▶ B::after ─▶ A::after
//!                  └────────────┴── answered already ──┘
//! ```
//!
//! A [`Middleware`] is a value of each core, like the state of the handlers: it needs no locks, since only this core
//! calls it. `(A, B)` is A around B; `()` is none, and costs nothing.
//!
//! ```
//! # use barewire_http::middleware::{RateLimit, RequestId, RequestLog};
//! # use barewire_http::{Responder, Routes};
//! # let routes = Routes::<()>::new([]).unwrap();
//! let responder = Responder::new(&routes, ())
//!     .with_middleware((RequestLog, (RequestId::new(7), RateLimit::new(10_000, 100))));
//! ```

use std::ops::ControlFlow;

use super::protocol::Protocol;
use super::refusal::Refusal;
use super::request::Request;
use super::response::{Answer, Response};
use super::status::Status;

/// Something that is done around every handler.
pub trait Middleware<S> {
    /// The clock was read: `now_ns` counts from some moment in the past and never goes back.
    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        let _ = now_ns;
    }

    /// Before the handler: goes on with `response`, to which it may add fields, or answers itself.
    ///
    /// It is called once for each request that a route has a handler for, when the handler is about to
    /// be called: where that takes a body, the body has arrived.
    #[inline]
    fn before<'r, 's>(
        &mut self,
        state: &mut S,
        request: &Request<'_>,
        response: Response<'r, 's>,
    ) -> ControlFlow<Answer, Response<'r, 's>> {
        let _ = (state, request);
        ControlFlow::Continue(response)
    }

    /// After each response, also to what reached no handler.
    #[inline]
    fn after(&mut self, state: &mut S, served: &Served<'_>) {
        let _ = (state, served);
    }
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// Its head; `None` if that could not be understood, or did not arrive in time.
    pub request: Option<&'a Request<'a>>,
    /// The path of its route, as that was declared, if it has one.
    pub route: Option<&'a str>,
    /// What it was answered with.
    pub status: Status,
    /// The version of HTTP that it came in.
    pub protocol: Protocol,
}

impl<S> Middleware<S> for () {}

impl<S, A: Middleware<S>, B: Middleware<S>> Middleware<S> for (A, B) {
    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        self.0.on_time(now_ns);
        self.1.on_time(now_ns);
    }

    #[inline]
    fn before<'r, 's>(
        &mut self,
        state: &mut S,
        request: &Request<'_>,
        response: Response<'r, 's>,
    ) -> ControlFlow<Answer, Response<'r, 's>> {
        let response = self.0.before(state, request, response)?;
        self.1.before(state, request, response)
    }

    #[inline]
    fn after(&mut self, state: &mut S, served: &Served<'_>) {
        self.1.after(state, served);
        self.0.after(state, served);
    }
}

/// Where [`RequestLog`] logs each response, at level debug.
pub const REQUEST_LOG: &str = "barewire::request";

/// Logs each response.
///
/// Off, it costs each response a comparison. On, the core itself writes the line and waits for
/// the log: it is for diagnosis, not for load.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestLog;

impl<S> Middleware<S> for RequestLog {
    #[inline]
    fn after(&mut self, _: &mut S, served: &Served<'_>) {
        tracing::debug!(
            target: REQUEST_LOG,
            protocol = served.protocol.as_str(),
            route = served.route.unwrap_or("none"),
            status = served.status.code(),
            "answered"
        );
    }
}

/// Gives each response an `X-Request-Id` that no other response of this core has.
#[derive(Debug, Clone)]
pub struct RequestId {
    next: u64,
}

impl RequestId {
    /// Counts from `first` on. Each core, and each start of a server, needs a range of its own: begin at a random number,
    /// say.
    pub fn new(first: u64) -> Self {
        RequestId { next: first }
    }
}

impl<S> Middleware<S> for RequestId {
    fn before<'r, 's>(
        &mut self,
        _: &mut S,
        _: &Request<'_>,
        response: Response<'r, 's>,
    ) -> ControlFlow<Answer, Response<'r, 's>> {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let digits: [u8; 16] =
            std::array::from_fn(|at| b"0123456789abcdef"[(id >> (60 - 4 * at)) as usize & 15]);
        ControlFlow::Continue(response.field("X-Request-Id", digits))
    }
}

/// Answers 429 to requests beyond a rate (a token bucket for each core).
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// Nanoseconds that each request pays.
    cost_ns: u64,
    /// The most that can accumulate.
    burst_ns: u64,
    saved_ns: u64,
    now_ns: Option<u64>,
}

impl RateLimit {
    /// Lets `per_second` requests through in each second, and `burst` at once after a pause. Both are at
    /// least 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let cost_ns = 1_000_000_000 / u64::from(per_second.max(1));
        let burst_ns = cost_ns * u64::from(burst.max(1));
        RateLimit {
            cost_ns,
            burst_ns,
            saved_ns: burst_ns,
            now_ns: None,
        }
    }
}

impl<S> Middleware<S> for RateLimit {
    fn on_time(&mut self, now_ns: u64) {
        let passed_ns = self
            .now_ns
            .map_or(0, |before| now_ns.saturating_sub(before));
        self.saved_ns = self.burst_ns.min(self.saved_ns.saturating_add(passed_ns));
        self.now_ns = Some(now_ns);
    }

    fn before<'r, 's>(
        &mut self,
        _: &mut S,
        _: &Request<'_>,
        response: Response<'r, 's>,
    ) -> ControlFlow<Answer, Response<'r, 's>> {
        match self.saved_ns.checked_sub(self.cost_ns) {
            Some(left_ns) => {
                self.saved_ns = left_ns;
                ControlFlow::Continue(response)
            }
            None => ControlFlow::Break(
                response
                    .field("Retry-After", "1")
                    .refuse(Refusal::RateLimit),
            ),
        }
    }
}
