//! The request target: which forms it may have, and which path it names (RFC 9112, section 3.2).

use std::ops::Range;

use super::method::Method;
use super::refusal::Refusal;
use super::scan::usual_host_end;

/// A valid request target of an implemented method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// The absolute path, or `*` for the whole server.
    pub(super) path: &'a [u8],
    /// What follows the first `?`.
    pub(super) query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Splits a target that consists of [`is_target_byte`]s.
    #[inline]
    pub(super) fn parse(target: &'a [u8], method: Method) -> Result<Self, Refusal> {
        if target.first() == Some(&b'/') {
            Ok(Self::origin_form(target))
        } else {
            Self::other_form(target, method)
        }
    }

    /// `/path?query`
    #[inline]
    fn origin_form(target: &'a [u8]) -> Self {
        match target.iter().position(|byte| *byte == b'?') {
            Some(mark) => Target {
                path: &target[..mark],
                query: Some(&target[mark + 1..]),
            },
            None => Target {
                path: target,
                query: None,
            },
        }
    }

    /// `*`, for OPTIONS, or `http://authority/path?query`.
    #[cold]
    fn other_form(target: &'a [u8], method: Method) -> Result<Self, Refusal> {
        const SERVER: Target<'_> = Target {
            path: b"*",
            query: None,
        };
        if target == b"*" {
            return if method == Method::Options {
                Ok(SERVER)
            } else {
                Err(Refusal::Target)
            };
        }
        let colon = memchr::memmem::find(target, b"://").ok_or(Refusal::Target)?;
        let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (authority, path_and_query) = rest.split_at(end);
        if !is_scheme(scheme)
            || !is_authority(authority, 0..authority.len())
            || authority.starts_with(b":")
            || authority.is_empty()
        {
            return Err(Refusal::Target);
        }
        if !scheme.eq_ignore_ascii_case(b"http") {
            return Err(Refusal::Scheme);
        }
        Ok(match path_and_query.first() {
            // RFC 9112, section 3.2.4: what a proxy would have sent on as `*`.
            None if method == Method::Options => SERVER,
            None => Target {
                path: b"/",
                query: None,
            },
            Some(b'?') => Target {
                path: b"/",
                query: Some(&path_and_query[1..]),
            },
            Some(_) => Self::origin_form(path_and_query),
        })
    }

    /// Whether the path is well-formed: `pchar`s and slashes (RFC 3986, section 3.3).
    pub(super) fn has_valid_path(&self) -> bool {
        let mut rest = self.path;
        loop {
            match rest {
                [] => return true,
                [b'%', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                    rest = tail
                }
                [byte, tail @ ..] if is_path_byte(*byte) => rest = tail,
                _ => return false,
            }
        }
    }

    /// Writes the path to `normalised` with its unreserved characters decoded, which may be encoded or not
    /// (RFC 3986, section 6.2.2.2). `%2F` is data, not a slash.
    pub(super) fn normalise(&self, normalised: &mut Vec<u8>) {
        normalised.clear();
        let mut rest = self.path;
        while let [byte, tail @ ..] = rest {
            let encoded = match rest {
                [b'%', high, low, ..] => {
                    hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low)
                }
                _ => None,
            };
            let (byte, tail) = match encoded {
                Some(decoded) if is_unreserved(decoded) => (decoded, &rest[3..]),
                _ => (*byte, tail),
            };
            normalised.push(byte);
            rest = tail;
        }
    }
}

/// Whether `bytes[range]` is `uri-host [ ":" port ]` (RFC 9110, section 7.2); an empty one is, too.
#[inline]
pub(super) fn is_authority(bytes: &[u8], range: Range<usize>) -> bool {
    // Letters, digits, hyphens and dots, then perhaps a port: nearly every one.
    let host_end = usual_host_end(bytes, range.start);
    if host_end >= range.end {
        return true;
    }
    match &bytes[host_end..range.end] {
        [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => true,
        _ => is_unusual_authority(&bytes[range]),
    }
}

#[cold]
fn is_unusual_authority(text: &[u8]) -> bool {
    let host_len = match text.first() {
        Some(b'[') => text
            .iter()
            .position(|byte| *byte == b']')
            .map(|end| end + 1),
        _ => text.iter().position(|byte| *byte == b':'),
    };
    let (host, port) = text.split_at(host_len.unwrap_or(text.len()));
    let is_host = match host {
        [b'[', address @ .., b']'] => is_ip_literal(address),
        name => is_reg_name(name),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_host && is_port
}

/// `reg-name`: unreserved, sub-delims and percent-encoded bytes.
fn is_reg_name(mut rest: &[u8]) -> bool {
    loop {
        match rest {
            [] => return true,
            [b'%', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                rest = tail
            }
            [byte, tail @ ..] if CLASSES[*byte as usize] & HOST != 0 => rest = tail,
            _ => return false,
        }
    }
}

/// What may stand between the brackets: an IPv6 address. No `IPvFuture` is defined.
fn is_ip_literal(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn is_path_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & PATH != 0
}

fn is_unreserved(byte: u8) -> bool {
    CLASSES[byte as usize] & UNRESERVED != 0
}

pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

const PATH: u8 = 1;
const HOST: u8 = 2;
const UNRESERVED: u8 = 4;

/// The character classes of RFC 3986 that a byte belongs to.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let unreserved = matches!(byte as u8, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~');
        let sub_delim = matches!(
            byte as u8,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        if unreserved || sub_delim || matches!(byte as u8, b':' | b'@' | b'/') {
            classes[byte] |= PATH;
        }
        if unreserved || sub_delim {
            classes[byte] |= HOST;
        }
        if unreserved {
            classes[byte] |= UNRESERVED;
        }
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for valid in [
            "",
            "a",
            "example.org",
            "10.77.0.2:8080",
            "a:",
            ":80",
            "[::1]",
            "[fd77::2]:8080",
            "a%20b",
            "a%20b:1",
            "a,b;c=d!",
        ] {
            assert!(is_authority(valid.as_bytes(), 0..valid.len()), "{valid}");
        }
        for invalid in [
            "a b",
            "a:b",
            "a:1:2",
            "user@host",
            "[::1",
            "[::g]",
            "[]",
            "::1",
            "a/b",
            "a%2",
            "a%zz",
            "é",
            "a:+1",
            "[::1]x",
            "a[::1]",
            "a\tb",
        ] {
            assert!(
                !is_authority(invalid.as_bytes(), 0..invalid.len()),
                "{invalid}"
            );
        }
    }

    #[test]
    fn only_unreserved_characters_are_decoded() {
        for (path, expected) in [
            ("/plain", "/plain"),
            ("/%70%6c%61%69%6E", "/plain"),
            ("/a%2Fb%2f%25%00", "/a%2Fb%2f%25%00"),
            ("/%7", "/%7"),
            ("/%", "/%"),
            ("/%zz%7Eb", "/%zz~b"),
        ] {
            let mut normalised = b"old".to_vec();
            let path = path.as_bytes();
            Target { path, query: None }.normalise(&mut normalised);
            assert_eq!(normalised, expected.as_bytes());
        }
    }
}
