//! Parses the header fields of a request, and what they mean: its body, its connection, its
//! expectations. They are not stored; a handler that wants one looks for it.

use std::ops::Range;

use super::refusal::Refusal;
use super::scan::{is_token_byte, text_end, usual_name_end};
use super::target::is_authority;

/// The minor version of HTTP/1 that a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    /// 1.1, and any later 1.x, which has to be understood as 1.1 (RFC 9110, section 2.5).
    Http11,
}

/// How the body of a request is delimited (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Neither Content-Length nor Transfer-Encoding: there is no body.
    Absent,
    /// Content-Length, of any size.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

impl Framing {
    /// Whether bytes of a body follow the head.
    pub(super) fn has_body(self) -> bool {
        !matches!(self, Framing::Absent | Framing::Length(0))
    }
}

/// `Expect` (RFC 9110, section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expectation {
    None,
    /// The client waits for `100 Continue` before it sends the body.
    Continue,
    /// Something else, which cannot be met.
    Unknown,
}

/// Whether the connection is open after a response, and how it has to be said (RFC 9112, section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Persistence {
    /// HTTP/1.1: open unless one side says otherwise.
    #[default]
    Open,
    /// HTTP/1.0 with `keep-alive`: open, and said so.
    OpenSaid,
    /// Closed after this response.
    Close,
}

/// The meaning of the fields that matter to the responder itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meaning {
    pub(super) framing: Framing,
    pub(super) persistence: Persistence,
    pub(super) expectation: Expectation,
    pub(super) version: Version,
    /// The body is in a content coding (RFC 9110, section 8.4).
    pub(super) is_content_coded: bool,
}

/// Parses the field lines from `from` on, and the empty line behind them. Returns where the head ends
/// and what the fields mean.
///
/// A head that is incomplete is refused like one that is malformed: the caller knows which it is.
#[inline(always)]
pub(super) fn parse(
    bytes: &[u8],
    from: usize,
    version: Version,
    headers_max: usize,
) -> Result<(usize, Meaning), Refusal> {
    let mut seen = Seen::default();
    let mut at = from;
    let mut count = 0;
    loop {
        let name_end = usual_name_end(bytes, at);
        let name_end = match bytes.get(name_end) {
            Some(b':') if name_end > at => name_end,
            _ => match line_or_end(bytes, at)? {
                Line::End { head_len } => return Ok((head_len, seen.meaning(version)?)),
                Line::Field { name_end } => name_end,
            },
        };
        if count == headers_max {
            return Err(Refusal::TooManyFields);
        }
        count += 1;
        let value_end = text_end(bytes, name_end + 1);
        match bytes.get(value_end..value_end + 2) {
            Some(b"\r\n") => {}
            _ if bytes.get(value_end) == Some(&b'\n') => return Err(Refusal::BareLf),
            _ => return Err(Refusal::Field),
        }
        seen.field(&bytes[at..name_end], &bytes[name_end + 1..value_end])?;
        at = value_end + 2;
    }
}

/// A line that does not begin with a usual name and a colon.
enum Line {
    End { head_len: usize },
    Field { name_end: usize },
}

/// The end of the head, or a field whose name has unusual characters.
#[inline]
fn line_or_end(bytes: &[u8], at: usize) -> Result<Line, Refusal> {
    match bytes.get(at..at + 2) {
        Some(b"\r\n") => Ok(Line::End { head_len: at + 2 }),
        _ if bytes.get(at) == Some(&b'\n') => Err(Refusal::BareLf),
        _ => unusual_name(bytes, at),
    }
}

#[cold]
fn unusual_name(bytes: &[u8], at: usize) -> Result<Line, Refusal> {
    let len = bytes[at..].iter().position(|byte| !is_token_byte(*byte));
    match len {
        Some(len) if len > 0 && bytes[at + len] == b':' => Ok(Line::Field { name_end: at + len }),
        _ => Err(Refusal::Field),
    }
}

/// Iterates over the lines of a valid field section: names and values without white space around them.
pub(super) fn lines<'a>(section: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
    let mut rest = section;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            let line = line.strip_prefix(b"\n").unwrap_or(line);
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                return Some((&line[..colon], trim(&line[colon + 1..])));
            }
        }
        None
    })
}

/// What was seen so far, field line by field line.
struct Seen {
    host: bool,
    close: bool,
    keep_alive: bool,
    content_length: Option<u64>,
    transfer_encoding: Option<Codings>,
    expectation: Expectation,
    content_coded: bool,
}

/// The transfer codings of all Transfer-Encoding lines, which form one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codings {
    /// Nothing but `chunked`.
    Chunked,
    /// Others, then `chunked`.
    OthersThenChunked,
    /// Anything that does not end with `chunked`.
    Undelimited,
}

impl Default for Seen {
    fn default() -> Self {
        Seen {
            host: false,
            close: false,
            keep_alive: false,
            content_length: None,
            transfer_encoding: None,
            expectation: Expectation::None,
            content_coded: false,
        }
    }
}

impl Seen {
    /// Takes one field line. Most have no meaning here; the length of the name tells.
    #[inline(always)]
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let is = |lower: &[u8]| name.eq_ignore_ascii_case(lower);
        match name.len() {
            4 if is(b"host") => self.host(value)?,
            6 if is(b"expect") => self.expectation = expectation(self.expectation, value),
            10 if is(b"connection") => self.connection(value),
            14 if is(b"content-length") && self.content_length.is_none() => {
                self.content_length = Some(content_length(trim(value))?)
            }
            14 if is(b"content-length") => return Err(Refusal::ContentLength),
            16 if is(b"content-encoding") => self.content_coded |= is_content_coded(value),
            17 if is(b"transfer-encoding") => {
                self.transfer_encoding = Some(transfer_encoding(self.transfer_encoding, value)?)
            }
            _ => {}
        }
        Ok(())
    }

    #[inline]
    fn meaning(&self, version: Version) -> Result<Meaning, Refusal> {
        Ok(Meaning {
            framing: self.framing(version)?,
            persistence: self.persistence(version),
            expectation: match version {
                // RFC 9110, section 10.1.1: from HTTP/1.0 it must be ignored.
                Version::Http10 => Expectation::None,
                Version::Http11 if !self.host => return Err(Refusal::HostMissing),
                Version::Http11 => self.expectation,
            },
            version,
            is_content_coded: self.content_coded,
        })
    }

    /// RFC 9112, section 3.2: exactly once, and valid.
    #[inline]
    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.host || !is_authority(value, trimmed(value, 0..value.len())) {
            return Err(Refusal::Host);
        }
        self.host = true;
        Ok(())
    }

    /// RFC 9112, section 9.3.
    #[inline]
    fn connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112, section 6.3.
    #[inline]
    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(Framing::Absent),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(_), Some(_)) => Err(Refusal::FramingConflict),
            (Some(_), None) if version == Version::Http10 => Err(Refusal::TransferEncoding),
            (Some(Codings::Chunked), None) => Ok(Framing::Chunked),
            (Some(Codings::OthersThenChunked), None) => Err(Refusal::TransferCoding),
            (Some(Codings::Undelimited), None) => Err(Refusal::TransferEncoding),
        }
    }

    #[inline]
    fn persistence(&self, version: Version) -> Persistence {
        match (self.close, version, self.keep_alive) {
            (true, ..) | (false, Version::Http10, false) => Persistence::Close,
            (false, Version::Http10, true) => Persistence::OpenSaid,
            (false, Version::Http11, _) => Persistence::Open,
        }
    }
}

// The meaning of a field together with the earlier ones of its name. These are functions and not methods of `Seen`, because
// what a function that is not inlined borrows has to stay in memory.

#[cold]
pub(super) fn expectation(before: Expectation, value: &[u8]) -> Expectation {
    list(value).fold(before, |before, expectation| {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            Expectation::Unknown
        } else if before == Expectation::None {
            Expectation::Continue
        } else {
            before
        }
    })
}

/// RFC 9110, section 8.4. `identity` is none.
#[cold]
pub(super) fn is_content_coded(value: &[u8]) -> bool {
    list(value).any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// RFC 9110, section 8.6. A list of equal numbers may be accepted; it is not.
#[inline]
pub(super) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLength);
    }
    // A number beyond u64 is valid; the body is too large in any case.
    Ok(value.iter().fold(0u64, |length, digit| {
        length
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

/// RFC 9112, section 6.1.
#[inline(never)]
fn transfer_encoding(mut before: Option<Codings>, value: &[u8]) -> Result<Codings, Refusal> {
    for coding in list(value) {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        before = Some(match (before, is_chunked) {
            (None, true) => Codings::Chunked,
            (Some(Codings::Undelimited), true) => Codings::OthersThenChunked,
            (None | Some(Codings::Undelimited), false) => Codings::Undelimited,
            // chunked must be the last coding, and must not be applied twice.
            (Some(Codings::Chunked | Codings::OthersThenChunked), _) => {
                return Err(Refusal::TransferEncoding);
            }
        });
    }
    // An empty list does not delimit the body.
    Ok(before.unwrap_or(Codings::Undelimited))
}

/// The members of a comma-separated list without white space; empty ones do not count (RFC 9110, section 5.6.1).
#[inline]
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// Without optional white space, which is SP and HTAB only (RFC 9110, section 5.6.3).
#[inline]
fn trim(text: &[u8]) -> &[u8] {
    &text[trimmed(text, 0..text.len())]
}

#[inline]
fn trimmed(bytes: &[u8], mut range: Range<usize>) -> Range<usize> {
    while !range.is_empty() && matches!(bytes[range.start], b' ' | b'\t') {
        range.start += 1;
    }
    while !range.is_empty() && matches!(bytes[range.end - 1], b' ' | b'\t') {
        range.end -= 1;
    }
    range
}
