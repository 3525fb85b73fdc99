//! Responses as a client or a proxy receives them (RFC 9112, sections 4, 6 and 7).
//!
//! ```text
//!  bytes ─▶ ResponseHead::parse ─▶ status, fields ─▶ ResponseHead::content ─▶ Framing
//!                                                                               │ advance: as bytes arrive
//!                                                     content, piece by piece ◀─┘
//! ```
//!
//! Nothing is copied and nothing is allocated. A head is parsed only when it is whole.
//!
//! ```
//! use barewire_http::received::{Fields, Found, ResponseHead};
//!
//! let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello";
//! let mut fields = Fields::default();
//! let (head, len) = ResponseHead::parse(bytes, &mut fields)?.expect("the head is whole");
//! assert_eq!(head.status, 200);
//! assert!(fields.iter().any(|field| field == (b"Server", b"x")));
//!
//! let mut content = head.content(false);
//! assert_eq!(content.advance(&bytes[len..], usize::MAX, false)?, (5, Found::Data(5)));
//! assert_eq!(content.advance(b"", usize::MAX, false)?, (0, Found::End));
//! # Ok::<(), barewire_http::received::ResponseError>(())
//! ```

use thiserror::Error;

pub use super::chunked::{Chunked, Found};

/// Most header fields of a response that are accepted.
pub const FIELDS_MAX: usize = 128;

/// What the head of a response says about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code: 100, or 102 to 999.
    pub status: u16,
    /// Whether there is a field `Date`.
    pub has_date: bool,
    /// What `Content-Length` says, also where no content follows. Not of a 204, which must not have it (RFC 9110,
    /// section 8.6).
    pub content_length: Option<u64>,
    /// Whether two recipients could take it for different lengths: it has a `Transfer-Encoding` beside `Content-Length`, in
    /// HTTP/1.0, or of other codings than `chunked`. Who forwards it has to refuse it (RFC 9112, section 6.3).
    pub is_ambiguous: bool,
    coding: Coding,
    closes: bool,
}

/// The last transfer coding, which says where the content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    Other,
}

/// The header fields of one response.
#[derive(Debug)]
pub struct Fields<'b> {
    fields: [httparse::Header<'b>; FIELDS_MAX],
    count: usize,
}

/// Where content ends, and how much of it is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// Where its last chunk says.
    Chunked(Chunked),
    /// Where the server ends its stream.
    UntilClose,
}

/// Why bytes are not a response that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// It does not begin with a status line.
    #[error("not an HTTP/1.1 response")]
    StatusLine,
    /// A line of the head is not a header field.
    #[error("a malformed header field")]
    Field,
    /// There are more than [`FIELDS_MAX`].
    #[error("more than {FIELDS_MAX} header fields")]
    TooManyFields,
    /// It is longer than the recipient can take.
    #[error("a response head that is too long")]
    HeadTooLong,
    /// More interim responses (1xx) than the recipient takes.
    #[error("too many interim responses")]
    TooManyInterims,
    /// A status code below 100.
    #[error("an invalid status code")]
    Status,
    /// 101, which was not asked for.
    #[error("101 Switching Protocols without having been asked")]
    SwitchedProtocols,
    /// `Content-Length` is not a number, or there are several that differ.
    #[error("an invalid Content-Length")]
    ContentLength,
    /// See [`ResponseHead::is_ambiguous`].
    #[error("a Transfer-Encoding that recipients take for different lengths")]
    Ambiguous,
    /// A chunk's size line, its end or a trailer is malformed, or they are too long.
    #[error("a malformed chunked body")]
    Chunk,
}

impl ResponseHead {
    /// Parses the head at the front of `bytes`. Returns it with its length; `None` while its end is missing.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be a response.
    pub fn parse<'b>(
        bytes: &'b [u8],
        fields: &mut Fields<'b>,
    ) -> Result<Option<(ResponseHead, usize)>, ResponseError> {
        let mut parsed = httparse::Response::new(&mut fields.fields);
        let httparse::Status::Complete(len) = parsed.parse(bytes)? else {
            return Ok(None);
        };
        let (version, status) = (parsed.version, parsed.code.unwrap_or_default());
        fields.count = parsed.headers.len();
        let head = ResponseHead::of(version == Some(1), status, fields)?;
        Ok(Some((head, len)))
    }

    /// RFC 9112, sections 6.3 and 9.3.
    fn of(is_http11: bool, status: u16, fields: &Fields<'_>) -> Result<Self, ResponseError> {
        match status {
            0..=99 => return Err(ResponseError::Status),
            101 => return Err(ResponseError::SwitchedProtocols),
            _ => {}
        }
        let mut head = ResponseHead {
            status,
            has_date: false,
            content_length: None,
            is_ambiguous: false,
            coding: Coding::None,
            closes: !is_http11,
        };
        for (name, value) in fields.iter() {
            let is = |lower: &str| name.eq_ignore_ascii_case(lower.as_bytes());
            if is("content-length") {
                let length = decimal(value).ok_or(ResponseError::ContentLength)?;
                if head.content_length.is_some_and(|other| other != length) {
                    return Err(ResponseError::ContentLength);
                }
                head.content_length = Some(length);
            } else if is("transfer-encoding") {
                head.is_ambiguous |= head.coding != Coding::None || !is_http11;
                for coding in list(value) {
                    head.is_ambiguous |= head.coding != Coding::None;
                    head.coding = match coding.eq_ignore_ascii_case(b"chunked") {
                        true => Coding::Chunked,
                        false => Coding::Other,
                    };
                }
                head.is_ambiguous |= head.coding != Coding::Chunked;
            } else if is("connection") {
                for option in list(value) {
                    head.closes |= option.eq_ignore_ascii_case(b"close");
                    head.closes &= is_http11 || !option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if is("date") {
                head.has_date = true;
            }
        }
        head.is_ambiguous |= head.coding != Coding::None && head.content_length.is_some();
        if status == 204 {
            head.content_length = None;
        }
        Ok(head)
    }

    /// Whether another response follows to the same request (RFC 9110, section 15.2).
    #[inline]
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Where the content ends. `to_head`: the request was `HEAD`, to which there is none.
    #[inline]
    pub fn content(&self, to_head: bool) -> Framing {
        let has_none = to_head || self.is_interim() || matches!(self.status, 204 | 304);
        match (self.coding, self.content_length) {
            _ if has_none => Framing::Length(0),
            (Coding::Chunked, _) => Framing::Chunked(Chunked::new()),
            (Coding::None, Some(length)) => Framing::Length(length),
            (Coding::None, None) | (Coding::Other, _) => Framing::UntilClose,
        }
    }

    /// Whether the server closes the connection after the response, for a request that was `HEAD` or not.
    #[inline]
    pub fn closes(&self, to_head: bool) -> bool {
        self.closes || self.content(to_head) == Framing::UntilClose
    }
}

impl Fields<'_> {
    /// Names and values in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let fields = self.fields[..self.count].iter();
        fields.map(|field| (field.name.as_bytes(), field.value))
    }
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Fields {
            fields: [httparse::EMPTY_HEADER; FIELDS_MAX],
            count: 0,
        }
    }
}

impl Framing {
    /// Reads on, to the end of `bytes`, of a piece of at most `data_max` bytes of data, or of the content. `ended`: the
    /// server sends no more than these. Returns how many bytes were consumed and what was found.
    ///
    /// # Errors
    ///
    /// If chunks are malformed, or their extensions and trailers are too long.
    #[inline]
    pub fn advance(
        &mut self,
        bytes: &[u8],
        data_max: usize,
        ended: bool,
    ) -> Result<(usize, Found), ResponseError> {
        let most = bytes.len().min(data_max);
        match self {
            Framing::Chunked(chunked) => {
                let advanced = chunked.advance(bytes, data_max);
                advanced.map_err(|_| ResponseError::Chunk)
            }
            Framing::Length(0) => Ok((0, Found::End)),
            Framing::UntilClose if bytes.is_empty() && ended => Ok((0, Found::End)),
            _ if bytes.is_empty() => Ok((0, Found::More)),
            Framing::UntilClose => Ok((most, Found::Data(most))),
            Framing::Length(left) => {
                let len = usize::try_from(*left).map_or(most, |left| left.min(most));
                *left -= len as u64;
                Ok((len, Found::Data(len)))
            }
        }
    }
}

impl From<httparse::Error> for ResponseError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::Status | httparse::Error::Version => ResponseError::StatusLine,
            httparse::Error::TooManyHeaders => ResponseError::TooManyFields,
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Token => ResponseError::Field,
        }
    }
}

/// The elements of a comma-separated list (RFC 9110, section 5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<ResponseHead, ResponseError> {
        let mut fields = Fields::default();
        let parsed = ResponseHead::parse(text.as_bytes(), &mut fields)?;
        let (head, len) = parsed.expect("it is whole");
        assert_eq!(len, text.len());
        Ok(head)
    }

    #[test]
    fn what_two_recipients_could_take_for_different_lengths_is_refused_or_marked() {
        use ResponseError::{ContentLength, Field};
        let with = |fields: &str| {
            let head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            head.map(|head| head.is_ambiguous)
        };
        for (fields, meaning) in [
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Ok(false)),
            ("Transfer-Encoding: chunked\r\n", Ok(false)),
            (
                "Content-Length: 1\r\nContent-Length: 2\r\n",
                Err(ContentLength),
            ),
            ("Content-Length: 1, 1\r\n", Err(ContentLength)),
            ("Content-Length: +1\r\n", Err(ContentLength)),
            ("Content-Length:\r\n", Err(ContentLength)),
            (
                "Content-Length: 18446744073709551616\r\n",
                Err(ContentLength),
            ),
            ("Content-Length : 1\r\n", Err(Field)),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                Ok(true),
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", Ok(true)),
            ("Transfer-Encoding: chunked, chunked\r\n", Ok(true)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Ok(true),
            ),
            ("Transfer-Encoding: identity\r\n", Ok(true)),
            ("Transfer-Encoding:\r\n", Ok(true)),
        ] {
            assert_eq!(with(fields), meaning, "{fields}");
        }
        let old = head("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert!(old.is_ambiguous);
    }

    #[test]
    fn the_end_of_the_stream_is_the_end_only_where_nothing_else_is() {
        let old = head("HTTP/1.0 200 OK\r\n\r\n").unwrap();
        assert_eq!(old.content(false), Framing::UntilClose);
        assert!(old.closes(false));
        let kept =
            head("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(!kept.closes(false));
        let unsized_one = head("HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(unsized_one.closes(false) && !unsized_one.closes(true));
        let unmodified = head("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n").unwrap();
        assert_eq!(unmodified.content(false), Framing::Length(0));
        assert_eq!(unmodified.content_length, Some(9));
        let empty = head("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n").unwrap();
        assert_eq!(empty.content_length, None);
    }

    #[test]
    fn a_head_with_too_many_fields_is_refused() {
        let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(head(&fields(FIELDS_MAX)).is_ok());
        assert_eq!(
            head(&fields(FIELDS_MAX + 1)),
            Err(ResponseError::TooManyFields)
        );
    }
}
