//! The conditions of a request, weighed with a stored response (RFC 9110, section 13; RFC 9111, section 4.3.2).

use super::directives::members;
use super::policy::date_s;

/// What tells one state of a response from another: its entity tag, and when it was changed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Validators<'a> {
    pub etag: Option<&'a [u8]>,
    pub last_modified: Option<&'a [u8]>,
}

impl<'a> Validators<'a> {
    pub fn of(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut validators = Validators::default();
        for (name, value) in fields {
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"etag") => validators.etag = Some(value),
                13 if name.eq_ignore_ascii_case(b"last-modified") => {
                    validators.last_modified = Some(value);
                }
                _ => {}
            }
        }
        validators
    }

    /// Whether the client has this state: 304.
    pub fn are_known<'r>(self, request: impl Iterator<Item = (&'r [u8], &'r [u8])>) -> bool {
        let (mut names_tags, mut has_tag, mut since) = (false, false, None);
        for (name, value) in request {
            match name.len() {
                13 if name.eq_ignore_ascii_case(b"if-none-match") => {
                    names_tags = true;
                    has_tag |= value == b"*" || members(value).any(|tag| self.is_tag(tag));
                }
                17 if name.eq_ignore_ascii_case(b"if-modified-since") => since = date_s(value),
                _ => {}
            }
        }
        match names_tags {
            true => has_tag,
            false => {
                let changed_s = self.last_modified.and_then(date_s);
                since.is_some_and(|since| changed_s.is_some_and(|changed| changed <= since))
            }
        }
    }

    /// Whether `If-Range` names this state, which was sent at `date_s` (RFC 9110, section 13.1.5): by a strong tag, or by a
    /// date after which it cannot have been changed within the same second (section 8.8.2.2).
    pub fn are_of_range(self, value: &[u8], sent_s: Option<u64>) -> bool {
        if value.ends_with(b"\"") {
            return !value.starts_with(b"W/") && self.etag == Some(value);
        }
        let changed_s = self.last_modified.and_then(date_s);
        let is_strong = changed_s
            .zip(sent_s)
            .is_some_and(|(changed, sent)| changed < sent);
        is_strong && date_s(value) == changed_s
    }

    /// By the weak comparison (RFC 9110, section 8.8.3.2).
    fn is_tag(self, tag: &[u8]) -> bool {
        let opaque = |tag: &'a [u8]| tag.strip_prefix(b"W/").unwrap_or(tag);
        let theirs = tag.strip_prefix(b"W/").unwrap_or(tag);
        self.etag.is_some_and(|ours| opaque(ours) == theirs)
    }

    /// Whether a 304 with `other` is about this state: a strong tag is the same, or there is none to compare.
    pub fn may_be(self, other: Validators<'_>) -> bool {
        let is_strong = |tag: &&[u8]| !tag.starts_with(b"W/");
        match (self.etag, other.etag.filter(is_strong)) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (None, Some(_)) => false,
            _ => true,
        }
    }

    /// Appends the conditions by which an origin says whether this state is still the current one (section 4.3.1).
    pub fn put_conditions(self, out: &mut Vec<u8>) {
        if let Some(tag) = self.etag {
            crate::head::line(out, "If-None-Match", tag);
        }
        if let Some(date) = self.last_modified {
            crate::head::line(out, "If-Modified-Since", date);
        }
    }
}

/// Whether a field is a condition that a cache can weigh.
pub fn is_condition(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"if-none-match") || name.eq_ignore_ascii_case(b"if-modified-since")
}
