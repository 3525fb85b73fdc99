//! An HTTP/1.1 origin server without I/O: the `Service` that every stack runs.
//!
//! ```text
//!  bytes ─▶ head ──▶ Request ──▶ routes ──▶ middleware ─▶ handler ──▶ Response ─▶ encode ─▶ reply
//!            │ target, fields,      │ path, method            ▲           ▲ date      │
//!            │ framing              ▼                         │           │           └▶ content:
//!            └─▶ body, chunked ─▶ collected, echoed, discarded┘           │              the rest
//!            └─▶ Refusal ─────────────────────────────────────────────────┘
//! ```
//!
//! The grammar is RFC 9112 and RFC 9110 to the letter, because whatever a server forgives, somebody
//! uses to make two parties read the same bytes differently. What a request may cost is limited by
//! [`Limits`]; each limit has a status of its own and a counter. Nothing is allocated after a
//! [`Responder`] was made, unless a handler does: heads are parsed in place, responses are written
//! straight into the send space, and between two calls a connection keeps a few words of state. Content
//! that is longer than the send space is kept as a reference to it; see [`Content`].
//!
//! What a server answers is not decided here but in its table of [`Route`]s. `origin` and `response`
//! decide an answer and know no protocol; `responder`, `head` and `encode` speak HTTP/1.
//!
//! Deliberately not supported: TLS, HTTP/2, upgrades, content codings.

mod body;
mod chunked;
mod connection;
mod content;
mod content_type;
mod counters;
mod date;
mod durations;
mod encode;
mod fields;
pub mod files;
mod head;
mod json;
mod limits;
mod method;
pub mod middleware;
mod origin;
mod paths;
mod pattern;
mod piece;
mod refusal;
mod request;
mod responder;
mod response;
mod response_fields;
mod routes;
mod scan;
mod status;
mod target;

pub use connection::Connection;
pub use content::{Content, Produce};
pub use content_type::{ContentType, InvalidContentType};
pub use counters::{HttpCounters, RouteCounters};
pub use date::InvalidServer;
pub use durations::{BOUNDS_NS, Durations, DurationsReading};
pub use json::JsonError;
pub use limits::Limits;
pub use method::Method;
pub use middleware::{Middleware, REQUEST_LOG, Served};
pub use pattern::PatternError;
pub use refusal::Refusal;
pub use request::Request;
pub use responder::Responder;
pub use response::{Answer, Rejection, Response};
pub use routes::{BodyHandler, Handler, HeadHandler, Route, RouteError, Routes};
pub use status::Status;
