//! The body of a request, however it is delimited.

use super::chunked::{Chunked, Found};
use super::fields::Framing;
use super::refusal::Refusal;

/// What is still to come of a body. Kept between calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Absent => Body::Length(0),
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunked::new()),
        }
    }

    /// Reads on, to the end of `bytes`, of a piece of at most `data_max` bytes of data, or of the body.
    /// Returns how many bytes were consumed and what was found.
    pub(super) fn advance(
        &mut self,
        bytes: &[u8],
        data_max: usize,
    ) -> Result<(usize, Found), Refusal> {
        match self {
            Body::Chunked(chunked) => chunked.advance(bytes, data_max),
            Body::Length(0) => Ok((0, Found::End)),
            Body::Length(_) if bytes.is_empty() => Ok((0, Found::More)),
            Body::Length(remaining) => {
                let available = bytes.len().min(data_max);
                let len = available.min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= len as u64;
                Ok((len, Found::Data(len)))
            }
        }
    }
}
