//! The fields that handlers and middleware add to a response.

use super::scan::{is_text_byte, is_token_byte};

/// The field lines of the response that is being made, in memory that all responses of a core share.
///
/// A line that is added is either valid or makes the whole response fail: nothing that came
/// from a client can end a line and begin another.
#[derive(Debug)]
pub(super) struct ResponseFields {
    lines: Vec<u8>,
    bytes_max: usize,
    /// Something was added, or could not be.
    is_touched: bool,
    is_spoilt: bool,
}

/// The fields that say where a message ends, what it contains and who sent it: the responder's own.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "server",
    "transfer-encoding",
    "upgrade",
];

impl ResponseFields {
    /// Has room for lines of `bytes_max` bytes together.
    pub(super) fn new(bytes_max: usize) -> Self {
        ResponseFields {
            lines: Vec::with_capacity(bytes_max),
            bytes_max,
            is_touched: false,
            is_spoilt: false,
        }
    }

    /// Adds a line, or makes the response fail.
    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        self.is_touched = true;
        let len = name.len() + 2 + value.len() + 2;
        if !is_valid_name(name) || !is_valid_value(value) || len > self.bytes_max - self.lines.len()
        {
            self.is_spoilt = true;
            return;
        }
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
    }

    /// Whether there is anything to look at: lines, or the end of the response.
    #[inline]
    pub(super) fn is_touched(&self) -> bool {
        self.is_touched
    }

    pub(super) fn is_spoilt(&self) -> bool {
        self.is_spoilt
    }

    pub(super) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Forgets everything: the response is written.
    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.is_touched = false;
        self.is_spoilt = false;
    }
}

fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(is_token_byte)
        && !RESERVED
            .iter()
            .any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// RFC 9110, section 5.5: no CR, LF or NUL, and no white space around it.
fn is_valid_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    value.iter().all(|byte| is_text_byte(*byte))
        && !is_space(value.first())
        && !is_space(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_a_line_or_spoils_the_response() {
        let mut fields = ResponseFields::new(16);
        fields.push("ETag", b"\"1\"");
        assert_eq!(
            (fields.lines(), fields.is_spoilt()),
            (&b"ETag: \"1\"\r\n"[..], false)
        );
        fields.push("A", b"b");
        assert_eq!((fields.lines().len(), fields.is_spoilt()), (11, true));
        fields.clear();
        assert!(!fields.is_touched() && fields.lines().is_empty());

        for (name, value) in [
            ("", "a"),
            ("a b", "c"),
            ("a:", "c"),
            ("a\r\n", "c"),
            ("a", "b\r\nc: d"),
            ("a", "b\nc"),
            ("a", "b\r"),
            ("a", "\0"),
            ("a", " b"),
            ("a", "b\t"),
            ("CONTENT-LENGTH", "1"),
            ("transfer-encoding", "chunked"),
            ("Connection", "close"),
        ] {
            fields.push(name, value.as_bytes());
            assert!(
                fields.is_spoilt() && fields.lines().is_empty(),
                "{name:?}: {value:?}"
            );
            fields.clear();
        }
    }
}
