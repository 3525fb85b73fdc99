//! HTTP/1.1 and HTTP/2 for any stack: a [`Service`](barewire_service::service::Service) without I/O that answers requests.
//!
//! # A server
//!
//! A table of routes says which handler answers what. A handler gets the state of its core, the request
//! and a [`Response`], which it turns into an [`Answer`]. A [`Responder`] is the server of one core; a
//! stack makes one on each, and calls it with the bytes that arrive. Each core has a state of its own, which needs no
//! lock; what all cores have to see, as the words here, is in an `Arc` that their states share:
//!
//! ```
//! use std::sync::{Arc, Mutex, PoisonError};
//!
//! use barewire_http::{Answer, Request, Responder, Response, Route, Routes, Status};
//!
//! #[derive(Default)]
//! struct State {
//!     words: Arc<Mutex<Vec<String>>>,
//!     words_added: u64,
//! }
//!
//! const ROUTES: &[Route<State>] = &[
//!     Route::new("/words").get(list).post(add),
//!     Route::new("/words/{number}").get(word),
//! ];
//!
//! fn list(state: &mut State, _: &Request<'_>, response: Response<'_, '_>) -> Answer {
//!     response.json(&*state.words.lock().unwrap_or_else(PoisonError::into_inner))
//! }
//!
//! fn add(state: &mut State, request: &Request<'_>, body: &[u8], response: Response<'_, '_>) -> Answer {
//!     let word: String = match request.json(body) {
//!         Ok(word) => word,
//!         Err(error) => return response.refuse(error),
//!     };
//!     state.words_added += 1;
//!     let mut words = state.words.lock().unwrap_or_else(PoisonError::into_inner);
//!     let location = format!("/words/{}", words.len());
//!     words.push(word);
//!     response.status(Status::Created).field("Location", location).empty()
//! }
//!
//! fn word(state: &mut State, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
//!     let number = request.param("number").and_then(|number| number.parse().ok());
//!     let words = state.words.lock().unwrap_or_else(PoisonError::into_inner);
//!     match number.and_then(|number: usize| words.get(number)) {
//!         Some(word) => response.text(word),
//!         None => response.status(Status::NotFound).text("There is no such word.\n"),
//!     }
//! }
//!
//! let words = Arc::default();
//! let routes = Routes::new(ROUTES)?;
//! let make_responder = move |_core: usize| {
//!     let words = Arc::clone(&words);
//!     Responder::new(&routes, State { words, words_added: 0 })
//! };
//! // let running = Epoll::new(KernelConfig::new(address)).start(make_responder, &Lifecycle::new())?;
//! # use barewire_service::service::{Input, Reply, Service};
//! # let mut responder = make_responder(0);
//! # let mut answer = |request: &str| {
//! #     let mut space = [0; 4096];
//! #     let mut reply = Reply::new(&mut space);
//! #     let input = Input { bytes: request.as_bytes(), full: false, ended: false };
//! #     responder.on_input(&mut Default::default(), input, &mut reply);
//! #     String::from_utf8(reply.written().to_vec()).unwrap()
//! # };
//! # let created = answer("POST /words HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n\"word\"");
//! # assert!(created.starts_with("HTTP/1.1 201 Created\r\n") && created.contains("Location: /words/0\r\n"), "{created}");
//! # assert!(answer("GET /words/0 HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("\r\n\r\nword"));
//! # Ok::<(), barewire_http::RouteError>(())
//! ```
//!
//! # What there is
//!
//! | to | there is |
//! |---|---|
//! | say which handler answers what | [`Route`], [`Routes`]; path parameters with [`Request::param`] |
//! | read a request | [`Request`]; typed JSON with [`Request::json`] |
//! | answer | [`Response`]: status, fields, content lent ([`Response::body`], [`Response::json`]) or given away ([`Response::send`]) |
//! | send what is long, or made as it is sent | [`Content`], [`Produce`] |
//! | do something around every handler | [`middleware`] |
//! | serve files | [`files`] |
//! | answer later, from elsewhere | [`Relay`], [`Handler::Relay`] |
//! | read the responses of other servers | [`received`] |
//! | limit what a request may cost | [`Limits`]; for HTTP/2 connections [`Http2Limits`] |
//! | see what happens | [`HttpCounters`], [`Http2Counters`], [`middleware::RequestLog`] |
//!
//! The responder itself handles HEAD, OPTIONS, 404, 405, 408, 413, `Expect`, keep-alive, pipelining and drain.
//!
//! Handlers run on the threads that serve: they must not block for long, and should not allocate.
//!
//! # How it works
//!
//! ```text
//!  bytes ─▶ head ──▶ Request ──▶ routes ──▶ middleware ─▶ handler ──▶ Response ─▶ encode ─▶ reply
//!            │ target, fields,      │ path, method            ▲           ▲ date      │
//!            │ framing              ▼                         │           │           └▶ content:
//!            └─▶ body, chunked ─▶ collected, echoed, discarded┘           │              the rest
//!            └─▶ Refusal ─────────────────────────────────────────────────┘
//! ```
//!
//! `origin` and `response` decide an answer and know no protocol; `responder`, `head` and `encode` speak
//! HTTP/1. A connection that begins with the preface of HTTP/2 is handed to `http2`, which finds the same
//! routes and handlers. The grammar is that of RFC 9112 and RFC 9110 to the letter: attackers use every deviation that a
//! server tolerates to make two parties read the same bytes differently. Each limit has a status of its own and a
//! counter.
//!
//! Nothing is allocated after a [`Responder`] was made, unless a handler does: heads are parsed in place,
//! responses are written straight into the send space, and between two calls a connection keeps a few words
//! of state. A body stays in the receive buffer, behind its head, until it is complete. Content that is
//! longer than the send space is kept as a reference to it.
//!
//! Deliberately not supported: TLS, upgrades, server push, content codings, request bodies that are longer than
//! the receive buffer (but [`Handler::Echo`]).

#![deny(unsafe_code)]

mod body;
mod bulkhead;
mod chunked;
mod connection;
mod content;
mod content_type;
mod counters;
mod date;
mod durations;
mod encode;
mod fields;
#[cfg(feature = "files")]
pub mod files;
mod head;
pub mod http2;
mod json;
mod limits;
mod method;
pub mod middleware;
mod origin;
mod paths;
mod pattern;
mod piece;
mod protocol;
pub mod range;
pub mod received;
mod refusal;
mod relay;
mod request;
mod responder;
mod response;
mod response_fields;
mod routes;
mod scan;
mod status;
mod target;

pub use bulkhead::{Bulkhead, BulkheadCounters, Seated, Surplus};
pub use connection::Connection;
pub use content::{Content, Produce};
pub use content_type::{ContentType, InvalidContentType};
pub use counters::{HttpCounters, RouteCounters};
pub use date::InvalidServer;
pub use durations::{BOUNDS_NS, Durations, DurationsReading};
pub use http2::{Http2Counters, Http2Limits};
pub use json::JsonError;
pub use limits::Limits;
pub use method::Method;
pub use middleware::{Middleware, REQUEST_LOG, Served};
pub use pattern::PatternError;
pub use protocol::Protocol;
pub use refusal::Refusal;
pub use relay::{Consumed, Relay, Relayed, RelayedHead, Upload};
pub use request::Request;
pub use responder::Responder;
pub use response::{Answer, Rejection, Response};
pub use routes::{BodyHandler, Handler, HeadHandler, Route, RouteError, Routes};
pub use status::Status;
