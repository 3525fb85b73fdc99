//! Finds and parses the head of a request.
//!
//! A head that has arrived as a whole, which is nearly every one, is parsed in one pass. One that
//! arrives in pieces is not parsed again with each piece: the connection remembers how far it has
//! looked for the head's end, so that a head sent byte by byte costs its length once, not squared.
//!
//! Whether and how a head is refused depends on its bytes, never on how they were split:
//!
//! 1. the first byte cannot begin a method: at once;
//! 2. the request line is malformed: as soon as it is complete, or too long;
//! 3. a field is malformed: as soon as the head is complete, or too large.

use super::fields::{self, Meaning, Version};
use super::limits::Limits;
use super::method::Method;
use super::refusal::Refusal;
use super::request::Request;
use super::scan::{is_target_byte, is_token_byte, path_end, target_end};
use super::target::Target;

/// How far the search for the end of a head has come. Kept between calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Search {
    /// Bytes in which the head does not end.
    scanned: u32,
    /// The request line is complete, and valid.
    line_checked: bool,
    /// The connection has had a request before this one.
    is_later: bool,
}

impl Search {
    /// For any request but the first one of a connection.
    #[inline]
    pub(super) fn of_later_request() -> Self {
        Search {
            is_later: true,
            ..Search::default()
        }
    }

    /// Whether this may still become the preface of HTTP/2, which only a connection begins with.
    pub(super) fn may_be_preface(self) -> bool {
        !self.is_later && !self.line_checked
    }

    /// Whether the connection has had a request before this one.
    #[inline]
    pub(super) fn is_of_later_request(self) -> bool {
        self.is_later
    }

    /// Whether something of a request has arrived.
    #[inline]
    pub(super) fn has_begun(self) -> bool {
        self.scanned > 0
    }
}

/// A head that follows the grammar, and where it ends.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) request: Request<'a>,
    pub(super) meaning: Meaning,
    /// Bytes up to and with the empty line.
    pub(super) len: usize,
}

/// The head at the front of `bytes`, if it is a whole and valid one of the usual kind. What all others
/// are is said by [`find`], or by [`refuse_or_wait`] if the request line is usual and its fields are not.
#[inline(always)]
pub(super) fn find_usual<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<Head<'a>, Option<Refusal>> {
    let line = usual_line(bytes, limits).ok_or(None)?;
    let (len, meaning) = fields::parse(bytes, line.len, line.version, limits.headers_max)?;
    if len > limits.head_bytes_max {
        return Err(Some(Refusal::HeadTooLarge));
    }
    Ok(Head {
        request: Request {
            method: line.method,
            target: line.target,
            fields: &bytes[line.len..len],
            route: "",
        },
        meaning,
        len,
    })
}

/// Looks for a head at the front of `bytes`; `full` says that no more bytes can come.
///
/// `Ok(None)` means that more bytes are needed.
pub(super) fn find<'a>(
    bytes: &'a [u8],
    full: bool,
    search: &mut Search,
    limits: &Limits,
) -> Result<Option<Head<'a>>, Refusal> {
    // RFC 9112, section 2.2: at least one empty line before a request line should be ignored. One is.
    let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let bytes = &bytes[skipped..];
    if search.has_begun() && !resume(bytes, full, search, limits)? {
        return Ok(None);
    }
    let line = match usual_line(bytes, limits) {
        Some(line) => Some(line),
        None => parse_line(bytes, full, search, limits)?,
    };
    let Some(line) = line else {
        return Ok(None);
    };
    match fields::parse(bytes, line.len, line.version, limits.headers_max) {
        Ok((len, meaning)) if len <= limits.head_bytes_max => {
            let request = Request {
                method: line.method,
                target: line.target,
                fields: &bytes[line.len..len],
                route: "",
            };
            Ok(Some(Head {
                request,
                meaning,
                len: skipped + len,
            }))
        }
        Ok(_) => Err(Refusal::HeadTooLarge),
        Err(refusal) => refuse_or_wait(bytes, full, search, limits, refusal),
    }
}

/// Fields could not be parsed: because they are malformed, or because they are incomplete.
#[cold]
pub(super) fn refuse_or_wait<T>(
    bytes: &[u8],
    full: bool,
    search: &mut Search,
    limits: &Limits,
    refusal: Refusal,
) -> Result<Option<T>, Refusal> {
    // Nearly always nothing follows a head.
    if bytes.len() <= limits.head_bytes_max && bytes.ends_with(b"\r\n\r\n") {
        return Err(refusal);
    }
    search.line_checked = true;
    match find_end(bytes, 0) {
        None => go_on_searching(bytes, full, search, limits),
        Some(end) if end > limits.head_bytes_max => Err(Refusal::HeadTooLarge),
        Some(_) => Err(refusal),
    }
}

/// Whether a head of which parts were seen before is complete, by looking at its new bytes only.
#[cold]
fn resume(bytes: &[u8], full: bool, search: &mut Search, limits: &Limits) -> Result<bool, Refusal> {
    if !search.line_checked && parse_line(bytes, full, search, limits)?.is_none() {
        return Ok(false);
    }
    search.line_checked = true;
    match find_end(bytes, search.scanned as usize) {
        Some(_) => Ok(true),
        None => go_on_searching(bytes, full, search, limits).map(|_: Option<()>| false),
    }
}

/// Remembers that the head does not end in `bytes`, if it may still end at all.
#[cold]
fn go_on_searching<T>(
    bytes: &[u8],
    full: bool,
    search: &mut Search,
    limits: &Limits,
) -> Result<Option<T>, Refusal> {
    if full || bytes.len() >= limits.head_bytes_max {
        return Err(Refusal::HeadTooLarge);
    }
    search.scanned = bytes.len() as u32;
    Ok(None)
}

/// The end of a head that does not end before `from`: behind the first empty line, even one that ends
/// in a bare LF.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    // The LF of the line before may already have been looked at, and the CR of the empty one.
    let from = from.saturating_sub(2);
    memchr::memchr_iter(b'\n', &bytes[from..]).find_map(|at| match bytes[from + at + 1..] {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// A valid request line.
#[derive(Debug)]
struct Line<'a> {
    method: Method,
    target: Target<'a>,
    version: Version,
    /// Bytes up to and with its CR LF.
    len: usize,
}

/// The line of nearly every request: an implemented method, an origin-form target, HTTP/1.1.
#[inline(always)]
fn usual_line<'a>(bytes: &'a [u8], limits: &Limits) -> Option<Line<'a>> {
    const VERSION: &[u8; 11] = b" HTTP/1.1\r\n";
    let (method, at) = match bytes {
        [b'G', b'E', b'T', b' ', b'/', ..] => (Method::Get, 4),
        [b'P', b'O', b'S', b'T', b' ', b'/', ..] => (Method::Post, 5),
        _ => return None,
    };
    let path_end = path_end(bytes, at);
    let (target_end, query) = match bytes.get(path_end) {
        Some(b'?') => {
            let target_end = target_end(bytes, path_end);
            (target_end, Some(&bytes[path_end + 1..target_end]))
        }
        _ => (path_end, None),
    };
    let len = target_end + VERSION.len();
    if bytes.get(target_end..len)? != VERSION || target_end - at > limits.target_bytes_max {
        return None;
    }
    let target = Target {
        path: &bytes[at..path_end],
        query,
    };
    Some(Line {
        method,
        target,
        version: Version::Http11,
        len,
    })
}

/// The longest method that is looked at, the version, the white space and CR LF.
const LINE_BYTES_MAX_BESIDE_TARGET: usize = 64;

/// Parses the request line at the front of `bytes`; `Ok(None)` means that more bytes are needed.
fn parse_line<'a>(
    bytes: &'a [u8],
    full: bool,
    search: &mut Search,
    limits: &Limits,
) -> Result<Option<Line<'a>>, Refusal> {
    match bytes {
        [] => return Ok(None),
        // Perhaps an empty line, of which the LF is still to come.
        [b'\r'] => return Ok(None),
        [first, ..] if !is_token_byte(*first) => return Err(Refusal::RequestLine),
        _ => {}
    }
    let line_bytes_max =
        (limits.target_bytes_max + LINE_BYTES_MAX_BESIDE_TARGET).min(limits.head_bytes_max);
    let window = &bytes[..bytes.len().min(line_bytes_max)];
    let from = window.len().min(if search.line_checked {
        0
    } else {
        search.scanned as usize
    });
    let Some(end) = memchr::memchr(b'\n', &window[from..]) else {
        if full || bytes.len() >= line_bytes_max {
            return Err(overlong(window));
        }
        search.scanned = bytes.len() as u32;
        return Ok(None);
    };
    let len = from + end + 1;
    let line = bytes[..len - 1]
        .strip_suffix(b"\r")
        .ok_or(Refusal::BareLf)?;

    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::RequestLine);
    };
    if !method.iter().all(|byte| is_token_byte(*byte)) || target.is_empty() {
        return Err(Refusal::RequestLine);
    }
    let version = parse_version(version)?;
    let method = Method::from_token(method).ok_or(Refusal::Method)?;
    if target.len() > limits.target_bytes_max {
        return Err(Refusal::TargetTooLong);
    }
    if !target.iter().all(|byte| is_target_byte(*byte)) {
        return Err(Refusal::Target);
    }
    let target = Target::parse(target, method)?;
    Ok(Some(Line {
        method,
        target,
        version,
        len,
    }))
}

/// What is wrong with a request line that begins with `window` and does not end there: the part that is too long.
#[cold]
fn overlong(window: &[u8]) -> Refusal {
    let mut parts = window.splitn(3, |byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    if !method.iter().all(|byte| is_token_byte(*byte)) {
        return Refusal::RequestLine;
    }
    match (Method::from_token(method), parts.nth(1)) {
        // RFC 9110, section 15.6.2; RFC 9112, section 3: longer than any that is implemented.
        (None, _) => Refusal::Method,
        (Some(_), Some(_version)) => Refusal::RequestLine,
        (Some(_), None) => Refusal::TargetTooLong,
    }
}

/// `HTTP/` DIGIT `.` DIGIT (RFC 9112, section 2.3).
fn parse_version(version: &[u8]) -> Result<Version, Refusal> {
    match version {
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::Version),
        _ => Err(Refusal::RequestLine),
    }
}
