//! Which field lines never share a compression window.
//!
//! Who sees how long compressed blocks are, and can have texts of his own compressed with them, finds out secrets byte
//! by byte (CRIME, BREACH). So the lines that carry credentials are moved to the end of their head, and sent in a block
//! that is not compressed. The order of lines with different names means nothing (RFC 9110, section 5.3); that of lines
//! with the same name is kept.

use memchr::memchr;

/// Fields that carry credentials, whatever is configured.
const NAMES: [&str; 5] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "authentication-info",
];

/// The names of fields that are kept apart.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Beside those that always are.
    others: Vec<String>,
    /// The lines that are moved.
    scratch: Vec<u8>,
}

impl Secrets {
    /// Those with credentials, and `others`, in any case.
    pub fn with(others: impl IntoIterator<Item = String>) -> Self {
        Secrets {
            others: others.into_iter().collect(),
            scratch: Vec::new(),
        }
    }

    fn is_secret(&self, name: &[u8]) -> bool {
        let is = |each: &str| name.eq_ignore_ascii_case(each.as_bytes());
        let may_be = matches!(
            name.first(),
            Some(b'a' | b'A' | b'c' | b'C' | b'p' | b'P' | b's' | b'S')
        );
        may_be && NAMES.iter().any(|each| is(each)) || self.others.iter().any(|each| is(each))
    }

    /// Moves the secret lines of `head` in front of the empty line that ends it. `head` is all of a head, with its empty
    /// line. Returns where the secret part begins; if there is none, that is the end.
    pub fn move_back(&mut self, head: &mut [u8]) -> usize {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let (mut read, mut write) = (0, 0);
        while let Some(len) = memchr(b'\n', &head[read..]) {
            let line = read..read + len + 1;
            read = line.end;
            let colon = memchr(b':', &head[line.clone()]);
            let is_secret = colon.is_some_and(|colon| {
                line.start > 0 && self.is_secret(&head[line.start..line.start + colon])
            });
            if is_secret {
                scratch.extend_from_slice(&head[line]);
            } else if read == head.len() && !scratch.is_empty() {
                // The empty line goes behind them.
                let end = head.len() - line.len();
                head.copy_within(line, head.len() - (read - end));
            } else {
                let len = line.len();
                if write < line.start {
                    head.copy_within(line, write);
                }
                write += len;
            }
        }
        if !scratch.is_empty() {
            head[write..write + scratch.len()].copy_from_slice(&scratch);
        }
        self.scratch = scratch;
        write
    }
}

/// Where the head at the front of `bytes` ends; `None` if it is not whole.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(head: &str, others: &[&str]) -> (String, String) {
        let mut secrets = Secrets::with(others.iter().map(|name| (*name).to_owned()));
        let mut bytes = head.as_bytes().to_vec();
        let at = secrets.move_back(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        (text[..at].to_owned(), text[at..].to_owned())
    }

    #[test]
    fn credentials_are_moved_back_in_their_order() {
        let head = "GET / HTTP/1.1\r\nCookie: a=1\r\nHost: x\r\nAUTHORIZATION: Basic Zg==\r\ncookie: b=2\r\nAccept: */*\r\n\r\n";
        let (open, secret) = moved(head, &[]);
        assert_eq!(open, "GET / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n");
        assert_eq!(
            secret,
            "Cookie: a=1\r\nAUTHORIZATION: Basic Zg==\r\ncookie: b=2\r\n\r\n"
        );
    }

    #[test]
    fn a_head_without_any_stays_as_it_is() {
        let head = "GET /cookie:a HTTP/1.1\r\nHost: x\r\nCookies: no\r\n\r\n";
        assert_eq!(moved(head, &[]), (head.to_owned(), String::new()));
        let (open, secret) = moved(head, &["cookies"]);
        assert_eq!(open, "GET /cookie:a HTTP/1.1\r\nHost: x\r\n");
        assert_eq!(secret, "Cookies: no\r\n\r\n");
    }

    #[test]
    fn the_end_of_a_head_is_found() {
        assert_eq!(head_end(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"), Some(25));
        assert_eq!(head_end(b"HTTP/1.1 200 OK\r\nA: b\r\n"), None);
    }
}
