//! What the header fields of a request mean: its body, its connection, its expectations.

use httparse::Header;

use super::refusal::Refusal;
use super::response::Persistence;
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

/// The meaning of the fields that matter to the responder itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meaning {
    pub(super) framing: Framing,
    pub(super) persistence: Persistence,
    pub(super) expectation: Expectation,
}

/// Reads the fields of one head.
#[inline]
pub(super) fn interpret(fields: &[Header<'_>], version: Version) -> Result<Meaning, Refusal> {
    let mut seen = Seen::default();
    for field in fields {
        let name = field.name.as_bytes();
        // Most fields are none of ours: their length says so before their name is looked at.
        match name.len() {
            4 if is(name, b"host") => seen.host(field.value)?,
            6 if is(name, b"expect") => seen.expect(field.value),
            10 if is(name, b"connection") => seen.connection(field.value),
            14 if is(name, b"content-length") => seen.content_length(field.value)?,
            17 if is(name, b"transfer-encoding") => seen.transfer_encoding(field.value)?,
            _ => {}
        }
    }
    Ok(Meaning {
        framing: seen.framing(version)?,
        persistence: seen.persistence(version),
        expectation: match version {
            // RFC 9110, section 10.1.1: from HTTP/1.0 it must be ignored.
            Version::Http10 => Expectation::None,
            Version::Http11 if !seen.host => return Err(Refusal::HostMissing),
            Version::Http11 => seen.expectation,
        },
    })
}

#[inline]
fn is(name: &[u8], lower: &[u8]) -> bool {
    name.eq_ignore_ascii_case(lower)
}

/// What was seen so far, field line by field line.
struct Seen {
    host: bool,
    close: bool,
    keep_alive: bool,
    content_length: Option<u64>,
    transfer_encoding: Option<Codings>,
    expectation: Expectation,
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
        }
    }
}

impl Seen {
    /// RFC 9112, section 3.2: exactly once, and valid.
    #[inline]
    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.host || !is_authority(value) {
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

    #[cold]
    fn expect(&mut self, value: &[u8]) {
        for expectation in list(value) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                self.expectation = Expectation::Unknown;
            } else if self.expectation == Expectation::None {
                self.expectation = Expectation::Continue;
            }
        }
    }

    /// RFC 9110, section 8.6. A list of equal numbers may be accepted; it is not.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some()
            || value.is_empty()
            || !value.iter().all(u8::is_ascii_digit)
        {
            return Err(Refusal::ContentLength);
        }
        // A number beyond u64 is a valid one, of a body that is too large for anybody.
        let length = value.iter().fold(0u64, |length, digit| {
            length
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        });
        self.content_length = Some(length);
        Ok(())
    }

    /// RFC 9112, section 6.1.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for coding in list(value) {
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.transfer_encoding = Some(match (self.transfer_encoding, is_chunked) {
                (None, true) => Codings::Chunked,
                (Some(Codings::Undelimited), true) => Codings::OthersThenChunked,
                (None | Some(Codings::Undelimited), false) => Codings::Undelimited,
                // chunked must be the last coding, and must not be applied twice.
                (Some(Codings::Chunked | Codings::OthersThenChunked), _) => {
                    return Err(Refusal::TransferEncoding);
                }
            });
        }
        // An empty list delimits nothing.
        self.transfer_encoding.get_or_insert(Codings::Undelimited);
        Ok(())
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

/// The members of a comma-separated list without white space; empty ones do not count (RFC 9110, section 5.6.1).
#[inline]
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// Without optional white space, which is SP and HTAB only (RFC 9110, section 5.6.3).
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
