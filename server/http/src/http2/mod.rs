//! HTTP/2 (RFC 9113, HPACK RFC 7541), with the routes, handlers and limits of HTTP/1.
//!
//! A connection that begins with the preface speaks HTTP/2, on any port: by prior knowledge, or because ALPN has chosen
//! it.
//!
//! ```text
//!   frames ─▶ turn ─▶ hpack, head ─▶ Request ─▶ routes, middleware, handler ─▶ Response ─▶ encode ─▶ frames
//!              │ ▲                                                               │
//!              ▼ │  stream: bodies in pieces, responses that wait for a window
//! ```
//!
//! Nearly every request is complete when the service sees it, and its response fits in the send space and in the
//! client's windows. Such a request needs no record of its stream: it costs the decoding of its fields and the writing
//! of two frames. All others have a `Stream`.
//!
//! **No queue grows with what a client sends.** A frame is read only when there is room for every answer that it may
//! need; where a client does not read, its frames are not read either. What is kept has limits ([`Http2Limits`]), each
//! with a counter ([`Http2Counters`]). Frames without progress, and resets by either side, are limited by budgets. A
//! core has a pool of connections and buffers; nothing is allocated for a request.

mod budget;
mod connection;
mod counters;
mod encode;
pub mod frame;
mod head;
pub mod hpack;
mod indexed;
mod limits;
mod pool;
mod priority;
mod relay;
mod repeat;
mod send;
mod serve;
mod stream;
mod turn;

use std::rc::Rc;

pub use counters::Http2Counters;
pub(super) use encode::{Frames, Outlet};
pub use limits::Http2Limits;
pub(super) use pool::Lease;
pub(super) use relay::end_calls;
pub(super) use turn::{dismiss, time_out};

use super::limits::Limits;

/// What the HTTP/2 connections of a core share.
#[derive(Debug)]
pub(super) struct Http2 {
    pub(super) limits: Http2Limits,
    pool: Rc<pool::Pool>,
    /// The limit of heads (SETTINGS_MAX_HEADER_LIST_SIZE), in bytes.
    head_bytes_max: usize,
    /// Memory for the head of a request, and for one of its fields. There unless a head in it is being served.
    space: Option<Box<head::Space>>,
}

impl Http2 {
    pub(super) fn new(limits: Http2Limits, requests: &Limits) -> Self {
        Http2 {
            limits,
            pool: pool::Pool::new(limits),
            head_bytes_max: requests.head_bytes_max,
            space: Some(Box::new(head::Space::new(requests))),
        }
    }

    /// Memory for a field.
    fn literal(&mut self) -> &mut [u8] {
        match &mut self.space {
            Some(space) => &mut space.literal,
            None => &mut [],
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
