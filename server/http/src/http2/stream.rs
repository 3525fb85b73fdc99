//! A stream whose body is incomplete, or whose response waits for room.

use crate::content::Sending;
use crate::method::Method;

use super::pool::Pool;
use super::priority::Priority;
use super::relay::Relaying;

/// The state of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// The index under which its request is counted.
    pub(super) route: u16,
    pub(super) method: Method,
    pub(super) body: Body,
    /// Bytes of the body that have arrived, and `content-length` if the client has sent it.
    pub(super) received: u64,
    pub(super) content_length: Option<u64>,
    /// Bytes of DATA that the client may still send, and those consumed for which no WINDOW_UPDATE was sent yet.
    pub(super) receive_window: i64,
    pub(super) credit: u32,
    /// Bytes of DATA that the client's window has room for.
    pub(super) send_window: i64,
    pub(super) sending: Sending,
    /// Bytes in `sending` that were copied.
    pub(super) copied: usize,
    /// Of a request whose body is collected: target, field lines, body. Of an echo: what is to be sent, from
    /// `echoed` on. Of a request that is relayed: what the relay has no room for.
    pub(super) buffer: Option<Vec<u8>>,
    pub(super) target_len: usize,
    pub(super) lines_len: usize,
    pub(super) echoed: usize,
    pub(super) priority: Priority,
    pub(super) began_ns: u64,
    /// When its deadline began anew, and the bytes sent since.
    pub(super) moved_ns: u64,
    pub(super) moved_bytes: usize,
    /// The response has been begun, and has not ended.
    pub(super) responds: bool,
    /// The call that answers it.
    pub(super) relaying: Option<Relaying>,
}

/// How the body of a request is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// It is collected for a handler.
    Collect,
    /// It is sent back.
    Echo,
    /// It is handed on.
    Relay,
    /// It is discarded, up to so many bytes.
    Discard { allowance: u64 },
    /// It has arrived.
    Done,
}

impl Stream {
    pub(super) fn new(id: u32, route: usize, method: Method, now_ns: u64) -> Self {
        Stream {
            id,
            route: route as u16,
            method,
            body: Body::Done,
            received: 0,
            content_length: None,
            receive_window: 0,
            credit: 0,
            send_window: 0,
            sending: Sending::default(),
            copied: 0,
            buffer: None,
            target_len: 0,
            lines_len: 0,
            echoed: 0,
            priority: Priority::default(),
            began_ns: now_ns,
            moved_ns: now_ns,
            moved_bytes: 0,
            responds: false,
            relaying: None,
        }
    }

    /// Whether there is nothing left to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.body == Body::Done && !self.responds
    }

    /// Whether a frame of its response can be sent if its window allows.
    pub(super) fn has_data(&self) -> bool {
        if let Some(relaying) = &self.relaying {
            return relaying.may_send();
        }
        self.sending.is_pending()
            || self.responds
                && self
                    .buffer
                    .as_ref()
                    .is_some_and(|buffer| self.echoed < buffer.len() || self.body == Body::Done)
    }

    /// Returns its buffer to the pool.
    pub(super) fn end(&mut self, pool: &Pool) {
        if let Some(buffer) = self.buffer.take() {
            pool.take_back_buffer(buffer);
        }
    }
}
