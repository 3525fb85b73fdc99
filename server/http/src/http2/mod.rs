//! HTTP/2 (RFC 9113): frames and field compression of our own, and the same answers as HTTP/1.
//!
//! A connection that begins with the preface is one of HTTP/2, on any port: by prior knowledge, or because TLS
//! agreed on it.
//!
//! ```text
//!   frames ─▶ turn ─▶ hpack, head ─▶ Request ─▶ routes, middleware, handler ─▶ Response ─▶ encode ─▶ frames
//!              │ ▲                                                               │
//!              ▼ │  stream: bodies that come in pieces, responses that wait for a window
//! ```
//!
//! A request that is complete when it is shown, as nearly every one is, and whose response fits in the send
//! space and the client's windows, needs no record of its stream: it costs the decoding of its fields and the
//! writing of two frames. Everything else is a `Stream`.
//!
//! **Nothing a client sends makes a queue grow.** A frame is read only when there is room for all that may
//! have to be said to it, so that a client that does not read is not heard either. What is kept has limits
//! ([`Http2Limits`]), each with a counter ([`Http2Counters`]); frames that bring nothing forward, and resets by
//! either side, are paid from budgets. A connection is lent by a pool of its core and given back with its
//! buffers; nothing is allocated for a request.

mod budget;
mod connection;
mod counters;
mod encode;
pub mod frame;
mod head;
pub mod hpack;
mod limits;
mod pool;
mod priority;
mod send;
mod serve;
mod stream;
mod turn;

use std::rc::Rc;

pub use counters::Http2Counters;
pub(super) use encode::{Frames, Outlet};
pub use limits::Http2Limits;
pub(super) use pool::Lease;
pub(super) use turn::{dismiss, time_out};

use super::limits::Limits;

/// What the HTTP/2 connections of a core share.
#[derive(Debug)]
pub(super) struct Http2 {
    pub(super) limits: Http2Limits,
    pool: Rc<pool::Pool>,
    /// What a head may have, which clients are told.
    head_bytes_max: usize,
    /// Where the head of a request is put together, and a field of it.
    space: head::Space,
    literal: Vec<u8>,
}

impl Http2 {
    pub(super) fn new(limits: Http2Limits, requests: &Limits) -> Self {
        Http2 {
            limits,
            pool: pool::Pool::new(limits),
            head_bytes_max: requests.head_bytes_max,
            space: head::Space::new(requests),
            // A string of n bytes is at most 8/5 n long when it is decoded.
            literal: vec![0; 2 * requests.head_bytes_max + 64],
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preface {
    /// The preface of HTTP/2 (RFC 9113, section 3.4), and perhaps more.
    Whole,
    /// The beginning of it, and more than the beginning of a method.
    Part,
    /// Something else, or not enough to tell.
    Other,
}

/// Looks for the preface at the front of `bytes`.
pub(super) fn preface(bytes: &[u8]) -> Preface {
    match bytes {
        _ if bytes.starts_with(frame::PREFACE) => Preface::Whole,
        [b'P', b'R', b'I', ..] if frame::PREFACE.starts_with(bytes) => Preface::Part,
        _ => Preface::Other,
    }
}
