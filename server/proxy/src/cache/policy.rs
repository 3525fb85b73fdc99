//! What may be stored, how long it is fresh, and when it may be used (RFC 9111, sections 3 and 4). Functions of what
//! was said, and of the time; nothing else.

use std::time::UNIX_EPOCH;

use super::directives::{Directives, seconds};

const NS: i64 = 1_000_000_000;

/// What the fields of a request say to a cache, found in one pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    pub directives: Directives,
    has_cache_control: bool,
    pub has_authorization: bool,
    pub has_cookie: bool,
    /// `If-None-Match` or `If-Modified-Since`.
    pub is_conditional: bool,
    /// `Range`, or `If-Range`.
    pub is_ranged: bool,
    /// Only the origin can tell: `If-Match`, `If-Unmodified-Since`.
    pub is_for_origin: bool,
}

impl Asked {
    pub fn of<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut asked = Asked::default();
        let mut is_pragma_no_cache = false;
        for (name, value) in fields {
            let is = |lower: &[u8]| name.eq_ignore_ascii_case(lower);
            match name.len() {
                5 if is(b"range") => asked.is_ranged = true,
                6 if is(b"cookie") => asked.has_cookie = true,
                6 if is(b"pragma") => {
                    is_pragma_no_cache |= value.eq_ignore_ascii_case(b"no-cache");
                }
                8 if is(b"if-match") => asked.is_for_origin = true,
                8 if is(b"if-range") => asked.is_ranged = true,
                13 if is(b"cache-control") => {
                    asked.directives.add(value);
                    asked.has_cache_control = true;
                }
                13 if is(b"if-none-match") => asked.is_conditional = true,
                13 if is(b"authorization") => asked.has_authorization = true,
                17 if is(b"if-modified-since") => asked.is_conditional = true,
                19 if is(b"if-unmodified-since") => asked.is_for_origin = true,
                _ => {}
            }
        }
        // Section 5.4.
        asked.directives.no_cache |= is_pragma_no_cache && !asked.has_cache_control;
        asked
    }

    /// Whether what somebody else has just asked for is good enough.
    pub fn may_share(&self) -> bool {
        let said = &self.directives;
        !(self.has_authorization || said.no_store || said.no_cache || said.max_age == Some(0))
    }
}

/// What the fields of a response say to a cache, found in one pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said {
    pub directives: Directives,
    date_s: Option<u64>,
    /// 0 if it is not a date, which is in the past (section 5.3).
    expires_s: Option<u64>,
    last_modified_s: Option<u64>,
    age_s: u32,
    has_etag: bool,
    has_set_cookie: bool,
    /// `Vary` names what no later request can be compared by.
    pub varies_by_all: bool,
}

impl Said {
    pub fn of<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut said = Said::default();
        for (name, value) in fields {
            let is = |lower: &[u8]| name.eq_ignore_ascii_case(lower);
            match name.len() {
                3 if is(b"age") => said.age_s = seconds(value).unwrap_or(said.age_s),
                4 if is(b"date") => said.date_s = date_s(value),
                4 if is(b"etag") => said.has_etag = true,
                4 if is(b"vary") => said.varies_by_all |= super::vary::is_by_all(value),
                7 if is(b"expires") => {
                    let new = date_s(value).unwrap_or(0);
                    said.expires_s = Some(said.expires_s.map_or(new, |old| old.min(new)));
                }
                10 if is(b"set-cookie") => said.has_set_cookie = true,
                13 if is(b"cache-control") => said.directives.add(value),
                13 if is(b"last-modified") => said.last_modified_s = date_s(value),
                _ => {}
            }
        }
        said
    }

    /// `Age` is that of another head.
    pub fn set_age_of(&mut self, other: &Said) {
        self.age_s = other.age_s;
    }

    fn has_validator(&self) -> bool {
        self.has_etag || self.last_modified_s.is_some()
    }
}

/// When a response was asked for and when its head arrived, by the core's clock; and the time of day at that moment.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub asked_ns: u64,
    pub arrived_ns: u64,
    pub arrived_unix_s: u64,
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstorable {
    /// Its status is one that is not stored, or not without explicit freshness.
    Status,
    NoStore,
    Private,
    Authorization,
    SetCookie,
    Vary,
    /// It is stale at once, and there is nothing to validate it by.
    Useless,
}

/// How long a stored response can be used, decided when it was stored. Times are those of the core's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// When its age was 0, which may be before the clock began.
    born_ns: i64,
    fresh_until_ns: i64,
    while_revalidate_ns: i64,
    if_error_ns: i64,
    /// It must not be used once it is stale.
    is_strict: bool,
    /// It must not be used without having been validated.
    is_validated_always: bool,
}

/// Whether a stored response answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It is fresh.
    Fresh,
    /// It is stale, which the request accepts.
    Stale,
    /// It is stale, and may be used while it is validated.
    WhileRevalidated,
    /// It has to be validated before.
    Validate,
}

/// Whether a response may be stored, and how long it can be used (sections 3 and 4.2).
///
/// # Errors
///
/// Why it may not.
pub fn judge(
    status: u16,
    asked: &Asked,
    said: &Said,
    heuristic_max_s: u32,
    times: Times,
) -> Result<Freshness, Unstorable> {
    let directives = &said.directives;
    let is_understood = is_understood(status);
    let no_store = match directives.must_understand {
        // Section 5.2.2.3.
        true => !is_understood,
        false => directives.no_store,
    };
    if no_store || asked.directives.no_store {
        return Err(Unstorable::NoStore);
    }
    if directives.private {
        return Err(Unstorable::Private);
    }
    if matches!(status, 206 | 304) || status < 200 {
        return Err(Unstorable::Status);
    }
    // Section 3.5.
    let for_others =
        directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if asked.has_authorization && !for_others {
        return Err(Unstorable::Authorization);
    }
    // Section 7.3 leaves it to the server. What it forgets would show one client's session to another.
    if said.has_set_cookie {
        return Err(Unstorable::SetCookie);
    }
    if said.varies_by_all {
        return Err(Unstorable::Vary);
    }
    let date_s = said.date_s.unwrap_or(times.arrived_unix_s);
    let explicit = directives.s_maxage.or(directives.max_age);
    let explicit = explicit.map(i64::from).or_else(|| {
        let expires_s = said.expires_s?;
        Some(expires_s.saturating_sub(date_s) as i64)
    });
    let lifetime_s = match explicit {
        Some(lifetime_s) => lifetime_s,
        None if !(is_heuristically_cacheable(status) || directives.public) => {
            return Err(Unstorable::Status);
        }
        // What was made for a session says so more often by a cookie than by its fields.
        None if asked.has_cookie => 0,
        None => {
            let unchanged_s = said
                .last_modified_s
                .map_or(0, |changed_s| date_s.saturating_sub(changed_s));
            (unchanged_s / 10).min(heuristic_max_s.into()) as i64
        }
    };
    let always = directives.no_cache;
    if (lifetime_s == 0 || always) && !said.has_validator() {
        return Err(Unstorable::Useless);
    }
    // Section 4.2.3.
    let apparent_age_s = times.arrived_unix_s.saturating_sub(date_s) as i64;
    let delay_ns = times.arrived_ns.saturating_sub(times.asked_ns) as i64;
    let corrected_ns = i64::from(said.age_s) * NS + delay_ns;
    let born_ns = times.arrived_ns as i64 - corrected_ns.max(apparent_age_s.saturating_mul(NS));
    let span_ns = |seconds: Option<u32>| i64::from(seconds.unwrap_or(0)) * NS;
    Ok(Freshness {
        born_ns,
        fresh_until_ns: born_ns.saturating_add(lifetime_s.saturating_mul(NS)),
        while_revalidate_ns: span_ns(directives.stale_while_revalidate),
        if_error_ns: span_ns(directives.stale_if_error),
        // Section 4.2.4; s-maxage includes proxy-revalidate.
        is_strict: directives.must_revalidate
            || directives.proxy_revalidate
            || directives.s_maxage.is_some()
            || always,
        is_validated_always: always,
    })
}

impl Freshness {
    /// Whether it answers a request that says `asked` (sections 4.2 and 5.2.1).
    pub fn reuse(&self, asked: &Directives, now_ns: u64) -> Reuse {
        let ttl_ns = self.ttl_ns(now_ns);
        let age_ns = (now_ns as i64).saturating_sub(self.born_ns);
        let is_too_old = asked
            .max_age
            .is_some_and(|max_s| age_ns > i64::from(max_s) * NS);
        let is_too_short = asked
            .min_fresh
            .is_some_and(|min_s| ttl_ns < i64::from(min_s) * NS);
        if asked.no_cache || self.is_validated_always || is_too_old || is_too_short {
            return Reuse::Validate;
        }
        let stale_ns = ttl_ns.saturating_neg();
        let within = |most_ns: i64| most_ns > 0 && stale_ns <= most_ns;
        match ttl_ns > 0 {
            true => Reuse::Fresh,
            false if self.is_strict => Reuse::Validate,
            false if within(asked.max_stale.map_or(0, |max_s| i64::from(max_s) * NS)) => {
                Reuse::Stale
            }
            false if within(self.while_revalidate_ns) => Reuse::WhileRevalidated,
            false => Reuse::Validate,
        }
    }

    /// Whether it may be used because its origin has failed (RFC 5861, section 4).
    pub fn is_usable_on_error(&self, asked: &Directives, now_ns: u64) -> bool {
        let asked_ns = i64::from(asked.stale_if_error.unwrap_or(0)) * NS;
        let stale_ns = self.ttl_ns(now_ns).saturating_neg();
        !self.is_strict && !asked.no_cache && stale_ns <= self.if_error_ns.max(asked_ns)
    }

    /// Whether it answers requests that say nothing about that.
    pub fn is_fresh(&self, now_ns: u64) -> bool {
        self.reuse(&Directives::default(), now_ns) == Reuse::Fresh
    }

    /// `Age`.
    pub fn age_s(&self, now_ns: u64) -> u64 {
        let age_ns = (now_ns as i64).saturating_sub(self.born_ns);
        age_ns.max(0) as u64 / NS as u64
    }

    /// How long it will be fresh, in seconds; negative: how long it has been stale.
    pub fn ttl_s(&self, now_ns: u64) -> i64 {
        self.ttl_ns(now_ns).div_euclid(NS)
    }

    fn ttl_ns(&self, now_ns: u64) -> i64 {
        self.fresh_until_ns.saturating_sub(now_ns as i64)
    }
}

/// Whether a response is a failure that a stale one may stand for (RFC 5861, section 4).
pub fn is_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// RFC 9110, section 15.1; 206 is left out.
fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Statuses whose caching is known here: all that RFC 9110 defines but 206.
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

/// A date in seconds since 1970. The tag of a zone is not needed, and white space around it does not harm.
pub fn date_s(text: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
