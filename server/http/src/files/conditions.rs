//! The conditions of a request (RFC 9110, section 13).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::date::imf_fixdate;
use crate::request::Request;

/// The validators of a file: what tells one state of it from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// An entity tag, strong, with its quotes.
    etag: Text<64>,
    /// When it was changed last, as `Last-Modified`.
    last_modified: Text<29>,
    modified_unix_s: u64,
}

/// A short text without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

/// The fields of a request that matter for a file, found in one pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    if_match: bool,
    if_none_match: bool,
    if_modified_since: Option<&'a [u8]>,
    if_unmodified_since: Option<&'a [u8]>,
    if_range: Option<&'a [u8]>,
    pub(super) range: Option<&'a [u8]>,
}

impl<'a> Asked<'a> {
    pub(super) fn by(request: &Request<'a>) -> Self {
        let mut asked = Asked::default();
        for (name, value) in request.fields() {
            let is = |lower: &[u8]| name.eq_ignore_ascii_case(lower);
            match name.len() {
                5 if is(b"range") => asked.range = Some(value),
                8 if is(b"if-match") => asked.if_match = true,
                8 if is(b"if-range") => asked.if_range = Some(value),
                13 if is(b"if-none-match") => asked.if_none_match = true,
                17 if is(b"if-modified-since") => asked.if_modified_since = Some(value),
                19 if is(b"if-unmodified-since") => asked.if_unmodified_since = Some(value),
                _ => {}
            }
        }
        asked
    }
}

/// The outcome of the conditions of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They hold; `Range` counts if there is one.
    Send,
    /// They hold, but the client has parts of another state: the whole is to be sent.
    SendWhole,
    /// 304: the client has it.
    NotModified,
    /// 412: the file is not in the state that the client requires.
    PreconditionFailed,
}

impl Validators {
    /// Those of a file with this inode, size and time of change.
    pub(super) fn new(inode: u64, size: u64, modified_s: i64, modified_ns: u64) -> Self {
        use std::io::Write;

        let mut etag = [0; 64];
        let mut space = &mut etag[..];
        // Four numbers of at most 16 digits, and the characters around them.
        let _ = write!(
            space,
            "\"{inode:x}-{size:x}-{modified_s:x}{modified_ns:08x}\""
        );
        let len = 64 - space.len();
        let modified_unix_s = u64::try_from(modified_s).unwrap_or(0);
        let mut last_modified = [0; 29];
        imf_fixdate(modified_unix_s, &mut last_modified);
        Validators {
            etag: Text { bytes: etag, len },
            last_modified: Text {
                bytes: last_modified,
                len: 29,
            },
            modified_unix_s,
        }
    }

    pub(super) fn etag(&self) -> &[u8] {
        &self.etag.bytes[..self.etag.len]
    }

    pub(super) fn last_modified(&self) -> &[u8] {
        &self.last_modified.bytes[..self.last_modified.len]
    }

    /// Evaluates the conditions of a GET or HEAD in the order of RFC 9110, section 13.2.2.
    pub(super) fn weigh(
        &self,
        asked: &Asked<'_>,
        request: &Request<'_>,
        now_unix_s: impl FnOnce() -> u64,
    ) -> Verdict {
        if asked.if_match {
            if !self.is_in(request, "If-Match", Comparison::Strong) {
                return Verdict::PreconditionFailed;
            }
        } else if let Some(date) = asked.if_unmodified_since.and_then(parse_date)
            && self.modified_unix_s > date
        {
            return Verdict::PreconditionFailed;
        }
        if asked.if_none_match {
            if self.is_in(request, "If-None-Match", Comparison::Weak) {
                return Verdict::NotModified;
            }
        } else if let Some(date) = asked.if_modified_since.and_then(parse_date)
            && self.modified_unix_s <= date
        {
            return Verdict::NotModified;
        }
        match asked.if_range {
            Some(validator) if !self.is_range_of(validator, now_unix_s) => Verdict::SendWhole,
            _ => Verdict::Send,
        }
    }

    /// Whether a list of entity tags has ours, or is `*`. Lines with the same name are one list.
    fn is_in(&self, request: &Request<'_>, name: &str, comparison: Comparison) -> bool {
        let lines = request
            .fields()
            .filter(|(each, _)| each.eq_ignore_ascii_case(name.as_bytes()));
        lines.into_iter().any(|(_, value)| {
            value == b"*" || entity_tags(value).any(|tag| self.is(tag, comparison))
        })
    }

    fn is(&self, tag: &[u8], comparison: Comparison) -> bool {
        match (tag.strip_prefix(b"W/"), comparison) {
            (None, _) => tag == self.etag(),
            (Some(opaque), Comparison::Weak) => opaque == self.etag(),
            (Some(_), Comparison::Strong) => false,
        }
    }

    /// Whether `If-Range` names the current state. A date does so only if it is exactly the same, and the file
    /// cannot have been changed again within the same second (RFC 9110, section 13.1.5).
    fn is_range_of(&self, validator: &[u8], now_unix_s: impl FnOnce() -> u64) -> bool {
        if validator.starts_with(b"\"") || validator.starts_with(b"W/") {
            return self.is(validator, Comparison::Strong);
        }
        parse_date(validator) == Some(self.modified_unix_s) && self.modified_unix_s < now_unix_s()
    }
}

/// RFC 9110, section 8.8.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// The entity tags of a list, up to what is malformed. A tag may have commas in it.
fn entity_tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let start = if list.starts_with(b"W/\"") { 3 } else { 1 };
        if start == 1 && !list.starts_with(b"\"") {
            return None;
        }
        let end = start + memchr::memchr(b'"', &list[start..])? + 1;
        let tag = &list[..end];
        list = &list[end..];
        Some(tag)
    })
}

/// A date in any of the three formats (RFC 9110, section 5.6.7), in seconds since 1970. `None` if it is not a date, which
/// is to be ignored.
fn parse_date(text: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

/// The time of the system's clock.
pub(super) fn now_unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::find_usual;
    use crate::limits::Limits;

    const MODIFIED: i64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn verdict(fields: &str) -> Verdict {
        let validators = Validators::new(0x12, 0x345, MODIFIED, 0x67);
        assert_eq!(validators.etag(), b"\"12-345-2ebc98a100000067\"");
        assert_eq!(validators.last_modified(), DATE.as_bytes());
        let fields = fields.replace("TAG", "\"12-345-2ebc98a100000067\"");
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let head = find_usual(text.as_bytes(), &Limits::default()).unwrap();
        let asked = Asked::by(&head.request);
        validators.weigh(&asked, &head.request, || MODIFIED as u64 + 1)
    }

    #[test]
    fn conditions_are_weighed_in_order() {
        use Verdict::{NotModified, PreconditionFailed, Send, SendWhole};
        for (fields, expected) in [
            (String::new(), Send),
            ("If-Match: TAG\r\n".into(), Send),
            ("If-Match: *\r\n".into(), Send),
            ("If-Match: \"a\", TAG\r\n".into(), Send),
            ("If-Match: \"a\"\r\nIf-Match: TAG\r\n".into(), Send),
            ("If-Match: \"a\"\r\n".into(), PreconditionFailed),
            ("If-Match: W/TAG\r\n".into(), PreconditionFailed),
            ("If-Match: nonsense\r\n".into(), PreconditionFailed),
            (format!("If-Unmodified-Since: {DATE}\r\n"), Send),
            (
                format!("If-Unmodified-Since: {BEFORE}\r\n"),
                PreconditionFailed,
            ),
            ("If-Unmodified-Since: yesterday\r\n".into(), Send),
            (
                format!("If-Match: TAG\r\nIf-Unmodified-Since: {BEFORE}\r\n"),
                Send,
            ),
            ("If-None-Match: TAG\r\n".into(), NotModified),
            ("If-None-Match: W/TAG\r\n".into(), NotModified),
            ("If-None-Match: \"a,b\" , ,TAG\r\n".into(), NotModified),
            ("If-None-Match: *\r\n".into(), NotModified),
            ("If-None-Match: \"a\"\r\n".into(), Send),
            (format!("If-Modified-Since: {DATE}\r\n"), NotModified),
            (format!("If-Modified-Since: {BEFORE}\r\n"), Send),
            (
                "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n".into(),
                NotModified,
            ),
            (
                "If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n".into(),
                NotModified,
            ),
            (
                format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {DATE}\r\n"),
                Send,
            ),
            (
                "If-Match: \"a\"\r\nIf-None-Match: TAG\r\n".into(),
                PreconditionFailed,
            ),
            ("If-Range: TAG\r\n".into(), Send),
            ("If-Range: W/TAG\r\n".into(), SendWhole),
            ("If-Range: \"a\"\r\n".into(), SendWhole),
            (format!("If-Range: {DATE}\r\n"), Send),
            (format!("If-Range: {BEFORE}\r\n"), SendWhole),
            ("If-Range: nonsense\r\n".into(), SendWhole),
        ] {
            assert_eq!(verdict(&fields), expected, "{fields}");
        }
    }

    #[test]
    fn a_date_is_no_strong_validator_within_its_second() {
        let validators = Validators::new(1, 1, MODIFIED, 0);
        assert!(!validators.is_range_of(DATE.as_bytes(), || MODIFIED as u64));
        assert!(validators.is_range_of(DATE.as_bytes(), || MODIFIED as u64 + 1));
    }
}
