//! The response of an origin: its head, of which the fields for one connection are left out, and its content without
//! framing (RFC 9112, section 6.3).
//!
//! An origin is trusted with its answers, not with where they end: a head that two readers could take for different
//! lengths is refused as a whole, and the connection given up.

use barewire_http::chunked::{Chunked, Found};

use crate::head::{is_named, is_of_connection};

/// Most fields of a response.
const FIELDS_MAX: usize = 128;

/// What a head says about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub has_date: bool,
    /// What `Content-Length` says, also where no content follows.
    pub length: Option<u64>,
    pub content: Framing,
    /// The origin closes the connection behind it.
    pub closes: bool,
}

/// Where content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    Chunked(Chunked),
    /// Where the origin ends its stream.
    UntilClose,
}

/// It is no response that can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What stands at the front of what has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing that is whole.
    Part,
    /// An interim response of this length (1xx), which is not forwarded.
    Interim(usize),
    /// The head of a response, and its length.
    Final(Head, usize),
}

/// Parses the head at the front of `bytes`, and appends the field lines that are forwarded to `lines`.
pub fn parse(bytes: &[u8], to_head: bool, lines: &mut Vec<u8>) -> Result<Parsed, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let len = match parsed.parse(bytes).map_err(|_| Malformed)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(Parsed::Part),
    };
    let status = parsed.code.ok_or(Malformed)?;
    match status {
        // RFC 9110, section 7.8: an upgrade that nobody asked for.
        ..100 | 101 => return Err(Malformed),
        100..200 => return Ok(Parsed::Interim(len)),
        _ => {}
    }
    let is_http11 = parsed.version == Some(1);
    let mut head = Head {
        status,
        has_date: false,
        length: None,
        content: Framing::UntilClose,
        closes: !is_http11,
    };
    let mut is_chunked = false;
    let mut names_any = false;
    for field in parsed.headers.iter() {
        let is = |lower: &str| field.name.eq_ignore_ascii_case(lower);
        if is("content-length") {
            let value = decimal(field.value).ok_or(Malformed)?;
            if head
                .length
                .replace(value)
                .is_some_and(|other| other != value)
            {
                return Err(Malformed);
            }
        } else if is("transfer-encoding") {
            // RFC 9112, section 6.1: we asked for nothing but chunked.
            if is_chunked || !is_http11 || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed);
            }
            is_chunked = true;
        } else if is("connection") {
            for option in field.value.split(|byte| *byte == b',') {
                let option = option.trim_ascii();
                head.closes |= option.eq_ignore_ascii_case(b"close");
                head.closes &= is_http11 || !option.eq_ignore_ascii_case(b"keep-alive");
                names_any = true;
            }
        } else if is("date") {
            head.has_date = true;
        }
    }
    if is_chunked && head.length.is_some() {
        return Err(Malformed);
    }
    let has_none = to_head || matches!(status, 204 | 304);
    head.content = match head.length {
        _ if has_none => Framing::Length(0),
        Some(length) => Framing::Length(length),
        None if is_chunked => Framing::Chunked(Chunked::new()),
        None => Framing::UntilClose,
    };
    if status == 204 {
        // RFC 9110, section 8.6: a server must not send it.
        head.length = None;
    }
    head.closes |= head.content == Framing::UntilClose;
    let all = || {
        parsed
            .headers
            .iter()
            .map(|field| (field.name.as_bytes(), field.value))
    };
    for (name, value) in all() {
        if is_of_connection(name) || names_any && is_named(all(), name) {
            continue;
        }
        lines.extend_from_slice(name);
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value);
        lines.extend_from_slice(b"\r\n");
    }
    lines.extend_from_slice(b"Via: 1.1 barewire\r\n");
    Ok(Parsed::Final(head, len))
}

impl Framing {
    /// Reads on, to the end of `bytes`, of `room` bytes of content, or of the content; `ended`: nothing follows.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        room: usize,
        ended: bool,
    ) -> Result<(usize, Found), Malformed> {
        match self {
            Framing::Chunked(chunked) => chunked.advance(bytes, room).map_err(|_| Malformed),
            Framing::Length(0) => Ok((0, Found::End)),
            Framing::UntilClose if bytes.is_empty() && ended => Ok((0, Found::End)),
            _ if bytes.is_empty() => Ok((0, Found::More)),
            Framing::UntilClose => {
                let len = bytes.len().min(room);
                Ok((len, Found::Data(len)))
            }
            Framing::Length(left) => {
                let len = bytes.len().min(room);
                let len = len.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                Ok((len, Found::Data(len)))
            }
        }
    }
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

    fn head(text: &str) -> Result<(Head, String), Malformed> {
        let mut lines = Vec::new();
        match parse(text.as_bytes(), false, &mut lines)? {
            Parsed::Final(head, len) => {
                assert_eq!(len, text.len());
                Ok((head, String::from_utf8(lines).unwrap()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_of_the_connection_are_left_out_and_what_is_named_too() {
        let (head, lines) = head(
            "HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
             Content-Length: 3\r\nDate: now\r\n\r\n",
        )
        .unwrap();
        assert_eq!(lines, "Server: x\r\nDate: now\r\nVia: 1.1 barewire\r\n");
        assert_eq!(head.content, Framing::Length(3));
        assert!(head.closes && head.has_date);
    }

    #[test]
    fn what_two_readers_could_take_for_different_lengths_is_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Content-Length : 1\r\n",
            "Content-Length: 18446744073709551616\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(head(&text), Err(Malformed), "{fields}");
        }
        let text = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(head(text), Err(Malformed));
    }

    #[test]
    fn the_end_of_the_stream_is_the_end_only_where_nothing_else_is() {
        let (old, _) = head("HTTP/1.0 200 OK\r\n\r\n").unwrap();
        assert_eq!((old.content, old.closes), (Framing::UntilClose, true));
        let (kept, _) =
            head("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(!kept.closes);
        let mut lines = Vec::new();
        let text = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n";
        let Ok(Parsed::Final(head, _)) = parse(text, false, &mut lines) else {
            panic!("{lines:?}");
        };
        assert_eq!((head.content, head.length), (Framing::Length(0), Some(9)));
    }
}
