//! What the cache does for a request when it arrives.

use std::ops::Range;
use std::rc::Rc;

use barewire_http::{Method, Refusal, Request, Upload, range};

use super::conditions::is_condition;
use super::fields::{fields, lines};
use super::key::{self, Parts, Wanted};
use super::policy::{Asked, Reuse, date_s};
use super::status::{self, Done, Why};
use super::store::Stored;
use super::{Cache, Fetch, Role};
use crate::call::Call;
use crate::forward::Forwarder;

/// What the cache says to a request.
#[derive(Debug)]
pub enum Said {
    /// It is answered.
    Answered,
    /// It is answered, and what it was answered with has to be validated behind that.
    AnsweredStale,
    /// It has to be asked of an origin.
    Ask,
    /// It only wanted what is stored, and that is nothing.
    Refused(Refusal),
}

impl Forwarder {
    /// Looks a request up, which the new call `at` is for.
    pub fn ask_cache(
        &mut self,
        at: usize,
        route: usize,
        host: &[u8],
        request: &Request<'_>,
        upload: Upload,
    ) -> Said {
        let now_ns = self.now_ns;
        let Some(cache) = &mut self.cache else {
            return Said::Ask;
        };
        let call = &mut self.calls[at];
        let route = &self.table.routes[route];
        let parts = Parts {
            pool: &self.table.pools[route.pool].name,
            is_tls: self.is_tls,
            host,
            path: request.path(),
            query: request.query(),
        };
        parts.put(&mut cache.key);
        if route.trust_forwarded {
            key::put_trusted(request.fields(), &mut cache.key);
        }
        let hash = cache.secret.hash(&cache.key, &[]);
        let asked = Asked::of(request.fields());
        let is_get = request.method() == Method::Get;
        let is_read = is_get || request.method() == Method::Head;
        if !is_read || asked.is_for_origin || upload != Upload::Absent {
            let (role, why) = match request.method() {
                Method::Get | Method::Head => (Role::Passes, Why::Bypass),
                Method::Options => (Role::Passes, Why::Method),
                _ => (Role::Invalidates, Why::Method),
            };
            cache.counters.bypassed.increment();
            call.fetch = Some(cache.take_fetch(hash, asked, role, why));
            return Said::Ask;
        }
        let wanted = Wanted {
            hash,
            text: &cache.key,
        };
        let found = cache.store.get(wanted, || request.fields()).cloned();
        let reuse = found
            .as_ref()
            .map(|stored| stored.freshness.reuse(&asked.directives, now_ns));
        if asked.is_ranged && !(is_get && matches!(reuse, Some(Reuse::Fresh))) {
            // The part that the origin answers with is not stored.
            cache.counters.bypassed.increment();
            call.fetch = Some(cache.take_fetch(hash, asked, Role::Passes, Why::Bypass));
            return Said::Ask;
        }
        let (why, stale) = match (found, reuse) {
            (Some(stored), Some(Reuse::Validate)) => match stored.freshness.ttl_s(now_ns) > 0 {
                true => (Why::Request, Some(stored)),
                false => (Why::Stale, Some(stored)),
            },
            (Some(stored), Some(reuse)) => {
                match reuse {
                    Reuse::Fresh => cache.counters.hits.increment(),
                    _ => cache.counters.hits_stale.increment(),
                }
                let is_known = asked.is_conditional && knows(&stored, request.fields());
                let portion = match is_known || !asked.is_ranged {
                    true => Portion::known(is_known),
                    false => portion(&stored, request),
                };
                answer(call, stored, portion, Done::Hit, now_ns);
                return match reuse {
                    Reuse::WhileRevalidated => Said::AnsweredStale,
                    _ => Said::Answered,
                };
            }
            _ if cache.store.has(wanted) => (Why::VaryMiss, None),
            _ => (Why::UriMiss, None),
        };
        if asked.directives.only_if_cached {
            return Said::Refused(Refusal::NotCached);
        }
        cache.counters.misses.increment();
        let role = match is_get && !asked.directives.no_store {
            true => Role::Begins,
            false => Role::Passes,
        };
        let mut fetch = cache.take_fetch(hash, asked, role, why);
        fetch.stale = stale.filter(|_| is_get);
        call.fetch = Some(fetch);
        Said::Ask
    }

    /// Whether nobody has asked for what was looked up last.
    pub(crate) fn is_unasked(&mut self, request: &Request<'_>) -> bool {
        self.cache.as_mut().is_some_and(|cache| {
            let (flight, _) = cache.flight_of_key(|| request.fields());
            !cache.flights.contains_key(&flight)
        })
    }

    /// Makes a call that validates what was looked up last, for no client.
    pub(crate) fn begin_validation(&mut self, at: usize, request: &Request<'_>) {
        let Some(cache) = &mut self.cache else {
            return;
        };
        let (_, hash) = cache.flight_of_key(|| request.fields());
        let mut asked = Asked::of(request.fields());
        asked.directives = Default::default();
        let wanted = Wanted {
            hash,
            text: &cache.key,
        };
        let stale = cache.store.get(wanted, || request.fields()).cloned();
        let mut fetch = cache.take_fetch(hash, asked, Role::Begins, Why::Stale);
        fetch.stale = stale;
        self.calls[at].fetch = Some(fetch);
    }
}

impl Cache {
    fn take_fetch(&mut self, hash: u64, asked: Asked, role: Role, why: Why) -> Box<Fetch> {
        let mut fetch = self.spare.pop().unwrap_or_default();
        fetch.key.extend_from_slice(&self.key);
        fetch.hash = hash;
        fetch.asked = asked;
        fetch.role = role;
        fetch.why = why;
        fetch
    }

    /// The hashes of the flight and of the resource for the key that was looked up last.
    fn flight_of_key<'a, I>(&mut self, request: impl Fn() -> I) -> (u64, u64)
    where
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let hash = self.secret.hash(&self.key, &[]);
        let wanted = Wanted {
            hash,
            text: &self.key,
        };
        let selecting = self.store.selecting(wanted, request);
        (self.secret.hash(&self.key, selecting), hash)
    }
}

/// What a client gets of a stored response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Portion {
    Whole,
    /// 304: it has it.
    Known,
    /// 206.
    Part(Range<usize>),
    /// 416: none of what it asks for is there.
    Nothing,
}

impl Portion {
    pub fn known(is_known: bool) -> Self {
        match is_known {
            true => Portion::Known,
            false => Portion::Whole,
        }
    }
}

/// What `Range` and `If-Range` of a GET ask for (RFC 9110, section 14.2).
fn portion(stored: &Stored, request: &Request<'_>) -> Portion {
    let Some(range) = request.field("range").filter(|_| stored.head.status == 200) else {
        return Portion::Whole;
    };
    if let Some(validator) = request.field("if-range") {
        let mut fields = fields(&stored.lines);
        let date = fields.find(|(name, _)| name.eq_ignore_ascii_case(b"date"));
        let sent_s = date.and_then(|(_, value)| date_s(value));
        if !stored.validators().are_of_range(validator, sent_s) {
            return Portion::Whole;
        }
    }
    match range::parse(range, stored.body.len() as u64) {
        range::Part::Whole => Portion::Whole,
        range::Part::Some(part) => Portion::Part(part.start as usize..part.end as usize),
        range::Part::Unsatisfiable => Portion::Nothing,
    }
}

/// `Content-Range` of a part, or of none, of so many bytes.
fn put_content_range(part: Option<&Range<usize>>, length: usize, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"Content-Range: bytes ");
    match part {
        None => out.push(b'*'),
        Some(part) => {
            out.extend_from_slice(digits.format(part.start).as_bytes());
            out.push(b'-');
            out.extend_from_slice(digits.format(part.end - 1).as_bytes());
        }
    }
    out.push(b'/');
    out.extend_from_slice(digits.format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Lets a stored response be the answer to a call.
pub(super) fn answer(
    call: &mut Call,
    stored: Rc<Stored>,
    portion: Portion,
    done: Done,
    now_ns: u64,
) {
    let out = &mut call.response;
    out.clear();
    match portion {
        Portion::Whole | Portion::Part(_) => out.extend_from_slice(&stored.lines),
        Portion::Known | Portion::Nothing => {
            // RFC 9110, section 15.4.5.
            for (at, name, _) in lines(&stored.lines) {
                if !is_of_content(name) {
                    out.extend_from_slice(&stored.lines[at]);
                }
            }
        }
    }
    out.extend_from_slice(b"Age: ");
    let age_s = stored.freshness.age_s(now_ns);
    out.extend_from_slice(itoa::Buffer::new().format(age_s).as_bytes());
    out.extend_from_slice(b"\r\n");
    status::put(done, Some(stored.freshness.ttl_s(now_ns)), out);
    let length = stored.body.len();
    match &portion {
        Portion::Whole | Portion::Known => {}
        Portion::Part(part) => put_content_range(Some(part), length, out),
        Portion::Nothing => put_content_range(None, length, out),
    }
    call.lines_bytes = out.len();
    let mut head = stored.head;
    head.has_date = true;
    (head.status, call.part) = match portion {
        Portion::Whole => (head.status, 0..length),
        Portion::Known => (304, 0..0),
        Portion::Part(part) => (206, part),
        Portion::Nothing => (416, 0..0),
    };
    head.content_length = match head.status {
        204 | 304 => None,
        _ => Some(call.part.len() as u64),
    };
    call.head = Some(head);
    call.taken = 0;
    call.is_head_taken = false;
    call.is_complete = true;
    call.is_filling = false;
    call.stored = Some(stored);
}

/// Whether a field describes content, which a 304 does not have.
fn is_of_content(name: &[u8]) -> bool {
    let is_content = name
        .get(..8)
        .is_some_and(|front| front.eq_ignore_ascii_case(b"content-"));
    is_content && !name.eq_ignore_ascii_case(b"content-location")
}

/// Takes the client's conditions out of a request, and keeps them.
pub(super) fn take_conditions(fetch: &mut Fetch, request: &mut Vec<u8>) {
    if !fetch.asked.is_conditional {
        return;
    }
    let from = memchr::memchr(b'\n', request).map_or(request.len(), |end| end + 1);
    let next = |request: &[u8]| {
        let mut lines = lines(&request[from..]);
        let found = lines.find(|(_, name, _)| is_condition(name));
        found.map(|(at, ..)| from + at.start..from + at.end)
    };
    while let Some(at) = next(request) {
        fetch.conditions.extend(request.drain(at));
    }
}

/// Puts field lines into a request whose head is complete.
pub(super) fn put_lines(call: &mut Call, new: &[u8]) {
    let end = call.request.len().saturating_sub(2);
    let at = match call.secret.is_empty() {
        true => end,
        false => call.secret.start,
    };
    call.request.splice(at..at, new.iter().copied());
    if !call.secret.is_empty() {
        call.secret.start += new.len();
        call.secret.end += new.len();
    }
}

/// Whether a client with these conditions has what is stored (RFC 9110, section 13.2.1: of a success only).
pub(super) fn knows<'a>(
    stored: &Stored,
    conditions: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> bool {
    stored.head.status < 300 && stored.validators().are_known(conditions)
}
