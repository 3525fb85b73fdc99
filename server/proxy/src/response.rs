//! The head of an origin's response, without the fields that are for one connection.
//!
//! The content of a response is the origin's affair, its framing is not: a response that two recipients could take for
//! different lengths is refused, and its connection is reset.

use barewire_http::received::{Fields, ResponseError, ResponseHead};

use crate::head::{forwarded, line};

/// Parses the head at the front of `bytes`, and appends the field lines that are forwarded to `lines`: of an interim
/// response none. Returns it with its length; `None` while its end is missing.
pub fn parse(
    bytes: &[u8],
    lines: &mut Vec<u8>,
) -> Result<Option<(ResponseHead, usize)>, ResponseError> {
    let mut fields = Fields::default();
    let parsed = ResponseHead::parse(bytes, &mut fields)?;
    let Some((head, _)) = parsed.filter(|(head, _)| !head.is_interim()) else {
        return Ok(parsed);
    };
    if head.is_ambiguous {
        return Err(ResponseError::Ambiguous);
    }
    for (name, value) in forwarded(|| fields.iter()) {
        line(lines, name, value);
    }
    lines.extend_from_slice(b"Via: 1.1 barewire\r\n");
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<(ResponseHead, String), ResponseError> {
        let mut lines = Vec::new();
        let (head, len) = parse(text.as_bytes(), &mut lines)?.expect("it is whole");
        assert_eq!(len, text.len());
        Ok((head, String::from_utf8(lines).unwrap()))
    }

    #[test]
    fn fields_of_the_connection_are_left_out_and_what_is_named_too() {
        let (head, lines) = head(
            "HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
             Content-Length: 3\r\nDate: now\r\n\r\n",
        )
        .unwrap();
        assert_eq!(lines, "Server: x\r\nDate: now\r\nVia: 1.1 barewire\r\n");
        assert_eq!(head.content_length, Some(3));
        assert!(head.closes(false) && head.has_date);
    }

    #[test]
    fn what_two_recipients_could_take_for_different_lengths_is_refused() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(head(text), Err(ResponseError::Ambiguous));
    }

    #[test]
    fn nothing_is_forwarded_of_an_interim_response() {
        let (head, lines) = head("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").unwrap();
        assert_eq!((head.status, &*lines), (103, ""));
    }
}
