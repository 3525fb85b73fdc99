//! What is asked and answered on one connection.

use std::collections::VecDeque;

use super::http2::Http2;
use crate::response::Response;

/// A connection's state: what was asked on it and not yet answered, and the answer that is coming.
#[derive(Debug, Default)]
pub struct Exchange {
    pub(super) asked: VecDeque<Asked>,
    /// What this connection was opened to ask, and has not asked yet.
    pub(super) ticket: Option<u64>,
    /// Where in the body the answer is that is coming, and whether it has differed.
    pub(super) body: BodyPlace,
    /// There was no room for all of a pipeline.
    pub(super) is_asking: bool,
    pub(super) first: First,
    pub(super) response: Response,
    /// What HTTP/2 keeps of it, if it is spoken.
    pub(super) http2: Option<Box<Http2>>,
}

/// Where a connection of a closed loop is with its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum First {
    #[default]
    ToAsk,
    Asked,
    Answered,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct BodyPlace {
    pub(super) at: usize,
    pub(super) differs: bool,
}

impl BodyPlace {
    #[inline]
    pub(super) fn compare(&mut self, expected: &[u8], piece: &[u8]) {
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

    /// Nothing that was asked waits for an answer.
    pub(super) fn is_answered(&self) -> bool {
        self.asked.is_empty() && self.http2.as_ref().is_none_or(|http2| http2.is_answered())
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub(super) due_ns: u64,
    pub(super) ticket: u64,
}
