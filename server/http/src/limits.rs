//! Limits of a request and its response.

/// Limits of a request and its response. A request beyond them is refused and counted.
///
/// A stack's receive buffer limits head and body together, too: what does not fit it is refused likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Request line, header fields and empty line: 431 beyond.
    pub head_bytes_max: usize,
    /// The request target: 414 beyond. RFC 9112, section 3, wants 8,000 octets for a request line.
    pub target_bytes_max: usize,
    /// Header fields: 431 beyond.
    pub headers_max: usize,
    /// The body, decoded, where it is not streamed: 413 beyond.
    pub body_bytes_max: usize,
    /// All fields that handlers and middleware add to a response: 500 beyond.
    pub response_fields_bytes_max: usize,
    /// Content that a handler lends, where it does not fit in the send space and has to be copied: 500
    /// beyond. [`Content`](super::Content) that a handler gives away may have any length.
    pub copied_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes_max: 16 * 1024,
            target_bytes_max: 8000,
            headers_max: 100,
            body_bytes_max: 64 * 1024,
            response_fields_bytes_max: 4096,
            copied_bytes_max: 1024 * 1024,
        }
    }
}
