//! `Cache-Control` of requests and responses (RFC 9111, section 5.2; RFC 5861).

/// What the lines of `Cache-Control` say together. Of a directive that comes twice, the more restrictive one counts.
///
/// `private` and `no-cache` with field names count as without: that stores less than it could.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub only_if_cached: bool,
    /// In seconds, as all of them. What is not a number is 0.
    pub max_age: Option<u32>,
    pub s_maxage: Option<u32>,
    /// The greatest number if it is said without one.
    pub max_stale: Option<u32>,
    pub min_fresh: Option<u32>,
    pub stale_while_revalidate: Option<u32>,
    pub stale_if_error: Option<u32>,
}

impl Directives {
    /// Adds those of a line.
    pub fn add(&mut self, line: &[u8]) {
        for member in members(line) {
            let (name, argument) = match memchr::memchr(b'=', member) {
                Some(at) => (
                    member[..at].trim_ascii(),
                    Some(member[at + 1..].trim_ascii()),
                ),
                None => (member, None),
            };
            let seconds = argument.map(|argument| seconds(argument).unwrap_or(0));
            let least = |old: Option<u32>| {
                let new = seconds.unwrap_or(0);
                Some(old.map_or(new, |old| old.min(new)))
            };
            let is = |lower: &[u8]| name.eq_ignore_ascii_case(lower);
            match name.len() {
                6 if is(b"public") => self.public = true,
                7 if is(b"private") => self.private = true,
                7 if is(b"max-age") => self.max_age = least(self.max_age),
                8 if is(b"no-store") => self.no_store = true,
                8 if is(b"no-cache") => self.no_cache = true,
                8 if is(b"s-maxage") => self.s_maxage = least(self.s_maxage),
                9 if is(b"max-stale") => self.max_stale = seconds.or(Some(u32::MAX)),
                9 if is(b"min-fresh") => self.min_fresh = seconds,
                14 if is(b"stale-if-error") => self.stale_if_error = least(self.stale_if_error),
                14 if is(b"only-if-cached") => self.only_if_cached = true,
                15 if is(b"must-revalidate") => self.must_revalidate = true,
                15 if is(b"must-understand") => self.must_understand = true,
                16 if is(b"proxy-revalidate") => self.proxy_revalidate = true,
                22 if is(b"stale-while-revalidate") => {
                    self.stale_while_revalidate = least(self.stale_while_revalidate);
                }
                _ => {}
            }
        }
    }
}

/// The members of a list, without empty ones. A comma within quotation marks separates nothing.
pub fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let members = list.split(move |&byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' => return !is_quoted,
            _ => {}
        }
        false
    });
    members
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// A number of seconds (RFC 9111, section 1.2.2), perhaps in quotation marks. One that is too large is the greatest.
pub fn seconds(text: &[u8]) -> Option<u32> {
    let bare = text
        .strip_prefix(b"\"")
        .and_then(|text| text.strip_suffix(b"\""));
    let digits = bare.unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        Some(number.saturating_mul(10).saturating_add(digit.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Directives {
        let mut directives = Directives::default();
        lines
            .iter()
            .for_each(|line| directives.add(line.as_bytes()));
        directives
    }

    #[test]
    fn lines_are_one_list_in_any_case() {
        let found = of(&[
            "Public , MAX-age=60",
            ", s-maxage=\"10\", x=\"a, no-store\"",
        ]);
        let wanted = Directives {
            public: true,
            max_age: Some(60),
            s_maxage: Some(10),
            ..Directives::default()
        };
        assert_eq!(found, wanted);
        assert!(of(&["private=\"set-cookie, x\""]).private);
    }

    #[test]
    fn what_is_malformed_or_comes_twice_is_stale_sooner() {
        assert_eq!(of(&["max-age=60, max-age=5"]).max_age, Some(5));
        assert_eq!(of(&["max-age=1.5"]).max_age, Some(0));
        assert_eq!(of(&["max-age=-1"]).max_age, Some(0));
        assert_eq!(of(&["max-age"]).max_age, Some(0));
        assert_eq!(of(&["max-age=99999999999"]).max_age, Some(u32::MAX));
        assert_eq!(of(&["max-stale"]).max_stale, Some(u32::MAX));
    }
}
