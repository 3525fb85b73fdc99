//! What the cache does with what comes of an origin.

use std::rc::Rc;

use barewire_http::Refusal;

use super::conditions::Validators;
use super::fields::{fields, lines, of_request};
use super::key::Purge;
use super::policy::{self, Said, Times, Unstorable};
use super::serve::{Portion, answer, knows};
use super::status::{self, Done};
use super::store::Stored;
use super::{Role, vary};
use crate::call::For;
use crate::forward::Forwarder;
use crate::head::line;

impl Forwarder {
    /// The final head of a response has arrived, for a call that the cache knows. The field lines are in its buffer.
    pub(crate) fn cache_takes_head(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let (Some(fetch), Some(head)) = (&mut call.fetch, call.head) else {
            return;
        };
        fetch.lines_bytes = call.response.len();
        let (role, status) = (fetch.role, head.status);
        match role {
            Role::Invalidates if status < 400 => self.invalidate(at),
            Role::Leads | Role::Fills if status == 304 && fetch.validates => {
                return self.refresh(at);
            }
            Role::Leads | Role::Fills => {
                if policy::is_error(status) && self.answer_stale(at, Some(status)) {
                    let followers = self.end_flight(at);
                    return self.fail_followers(followers, Refusal::OriginFailed);
                }
                self.begin_fill(at);
            }
            _ => {}
        }
        let call = &mut self.calls[at];
        let Some(fetch) = &call.fetch else {
            return;
        };
        let done = Done::Fetched {
            why: fetch.why,
            is_stored: call.is_filling,
        };
        let ttl_s = fetch.freshness.map(|it| it.ttl_s(self.now_ns));
        status::put(done, ttl_s.filter(|_| call.is_filling), &mut call.response);
        call.lines_bytes = call.response.len();
    }

    fn times(&self, at: usize) -> Times {
        Times {
            asked_ns: self.calls[at].began_ns,
            arrived_ns: self.now_ns,
            arrived_unix_s: self.unix_s,
        }
    }

    /// Begins to keep a response for the store, if it may be stored.
    fn begin_fill(&mut self, at: usize) {
        let (now_ns, times) = (self.now_ns, self.times(at));
        let (Some(cache), call) = (&mut self.cache, &mut self.calls[at]) else {
            return;
        };
        let (Some(fetch), Some(head)) = (&mut call.fetch, call.head) else {
            return;
        };
        let said = Said::of(fields(&call.response));
        let heuristic_max_s = cache.config.heuristic_max_s;
        let judged = policy::judge(head.status, &fetch.asked, &said, heuristic_max_s, times);
        let length = head.content_length.unwrap_or(0);
        let bytes = length.saturating_add(call.response.len() as u64);
        let is_too_large = bytes > cache.config.object_bytes_max as u64;
        match judged {
            Ok(freshness) if !is_too_large && !fetch.is_void => {
                fetch.freshness = Some(freshness);
                call.response.reserve_exact(length as usize);
                call.is_filling = true;
                return;
            }
            Ok(_) if is_too_large => cache.counters.unstorable_too_large.increment(),
            Ok(_) => cache.counters.unstorable_void.increment(),
            Err(why) => cache.count_unstorable(why),
        }
        // What this request, or this moment, is to blame for says nothing about the next one.
        let is_lasting = match judged {
            Ok(_) => is_too_large,
            Err(Unstorable::Authorization) => false,
            Err(_) => !policy::is_error(head.status) && head.status != 304,
        };
        if is_lasting {
            cache.unstorable.add(fetch.hash, now_ns);
        }
        self.give_up_fill(at);
    }

    /// The response will not be stored.
    fn give_up_fill(&mut self, at: usize) {
        let followers = self.end_flight(at);
        self.disperse(followers);
        let call = &mut self.calls[at];
        call.is_filling = false;
        if let Some(fetch) = &mut call.fetch {
            fetch.role = Role::Passes;
        }
        if call.by == For::Cache {
            self.is_over(at);
        }
    }

    /// A response that is being stored has become too long.
    pub(crate) fn fill_is_too_large(&mut self, at: usize) {
        if let (Some(cache), Some(fetch)) = (&mut self.cache, &self.calls[at].fetch) {
            cache.counters.unstorable_too_large.increment();
            cache.unstorable.add(fetch.hash, self.now_ns);
        }
        self.give_up_fill(at);
    }

    /// A response that was to be stored is complete.
    pub(crate) fn fill_is_complete(&mut self, at: usize) {
        let call = &mut self.calls[at];
        call.is_filling = false;
        let (Some(fetch), Some(head)) = (&mut call.fetch, call.head) else {
            return;
        };
        fetch.role = Role::Passes;
        if let (Some(freshness), false) = (fetch.freshness, fetch.is_void) {
            let mut kept = Vec::with_capacity(fetch.lines_bytes + 40);
            for (at, name, _) in lines(&call.response[..fetch.lines_bytes]) {
                if !name.eq_ignore_ascii_case(b"age") {
                    kept.extend_from_slice(&call.response[at]);
                }
            }
            if !head.has_date {
                line(&mut kept, "Date", date_of(self.unix_s).as_bytes());
            }
            let body = Rc::from(&call.response[call.lines_bytes..]);
            let vary = vary::names(fields(&kept));
            let mut selecting = Vec::new();
            vary::put_selecting(&vary, || of_request(&call.request), &mut selecting);
            let stored = Stored {
                head,
                lines: kept.into(),
                body,
                freshness,
                vary,
                selecting: selecting.into(),
            };
            self.store(at, Rc::new(stored));
        }
        let followers = self.end_flight(at);
        self.land(followers);
    }

    /// Stores what a call has fetched.
    fn store(&mut self, at: usize, stored: Rc<Stored>) {
        let (Some(cache), Some(fetch)) = (&mut self.cache, &self.calls[at].fetch) else {
            return;
        };
        let is_for_others = stored.freshness.is_fresh(self.now_ns);
        let is_stored = cache.store.put(fetch.wanted(), stored);
        cache.counters.stored.add(is_stored.into());
        if !(is_stored && is_for_others) {
            // Else those that wait for it would ask for it one after the other.
            cache.unstorable.add(fetch.hash, self.now_ns);
        }
        cache.publish();
    }

    /// An origin says that a stored response is still the current one (RFC 9111, section 4.3.4).
    fn refresh(&mut self, at: usize) {
        let (now_ns, times) = (self.now_ns, self.times(at));
        let (Some(cache), call) = (&mut self.cache, &mut self.calls[at]) else {
            return;
        };
        let Some(fetch) = &mut call.fetch else {
            return;
        };
        let Some(stale) = fetch.stale.take() else {
            return;
        };
        if call.head.is_some_and(|head| !head.has_date) {
            line(&mut call.response, "Date", date_of(self.unix_s).as_bytes());
        }
        let news = &call.response;
        if !stale.validators().may_be(Validators::of(fields(news))) {
            // It speaks of a state that nobody has: the next request gets it as a whole.
            cache.store.remove(fetch.wanted());
            cache.publish();
            return self.fail(at, Refusal::OriginMalformed);
        }
        fetch.role = Role::Passes;
        let lines = merge(&stale.lines, news);
        let mut said = Said::of(fields(&lines));
        said.set_age_of(&Said::of(fields(news)));
        let status = stale.head.status;
        let heuristic_max_s = cache.config.heuristic_max_s;
        let judged = policy::judge(status, &fetch.asked, &said, heuristic_max_s, times);
        let (freshness, is_storable) = match judged {
            Ok(freshness) => (freshness, !fetch.is_void),
            Err(why) => {
                cache.count_unstorable(why);
                (stale.freshness, false)
            }
        };
        cache.counters.revalidated.increment();
        let stored = Rc::new(Stored {
            head: stale.head,
            lines,
            body: Rc::clone(&stale.body),
            freshness,
            vary: stale.vary.clone(),
            selecting: stale.selecting.clone(),
        });
        let is_known = fetch.asked.is_conditional && knows(&stored, fields(&fetch.conditions));
        let done = Done::Forwarded {
            why: fetch.why,
            status: 304,
        };
        match is_storable {
            true => self.store(at, Rc::clone(&stored)),
            false => {
                cache.store.remove(fetch.wanted());
                cache.unstorable.add(fetch.hash, now_ns);
                cache.publish();
            }
        }
        let portion = Portion::known(is_known);
        answer(&mut self.calls[at], stored, portion, done, now_ns);
        let followers = self.end_flight(at);
        self.land(followers);
    }

    /// Answers a call with what is stored because its origin has failed, if that is allowed (RFC 5861, section 4).
    pub(super) fn answer_stale(&mut self, at: usize, status: Option<u16>) -> bool {
        let now_ns = self.now_ns;
        let (Some(cache), call) = (&mut self.cache, &mut self.calls[at]) else {
            return false;
        };
        let (Some(fetch), For::Client(_)) = (&mut call.fetch, call.by) else {
            return false;
        };
        if call.is_head_taken {
            return false;
        }
        let asked = &fetch.asked.directives;
        let usable = |stale: &&mut Rc<Stored>| stale.freshness.is_usable_on_error(asked, now_ns);
        let Some(stale) = fetch.stale.as_mut().filter(usable) else {
            return false;
        };
        let stale = Rc::clone(stale);
        cache.counters.hits_on_error.increment();
        let is_known = fetch.asked.is_conditional && knows(&stale, fields(&fetch.conditions));
        let done = match status {
            Some(status) => Done::Forwarded {
                why: fetch.why,
                status,
            },
            None => Done::Hit,
        };
        answer(call, stale, Portion::known(is_known), done, now_ns);
        self.wake_client(at);
        true
    }

    /// A call has failed. Returns whether what is stored answers it.
    pub(crate) fn cache_takes_failure(&mut self, at: usize, refusal: Refusal) -> bool {
        let role = self.calls[at].fetch.as_ref().map(|fetch| fetch.role);
        if !matches!(role, Some(Role::Leads | Role::Fills)) {
            return false;
        }
        self.calls[at].is_filling = false;
        let followers = self.end_flight(at);
        if let Some(fetch) = &mut self.calls[at].fetch {
            fetch.role = Role::Passes;
        }
        let is_answered = self.answer_stale(at, None);
        self.fail_followers(followers, refusal);
        is_answered
    }

    /// A call that fetches for nobody but the cache has made progress.
    pub(crate) fn fetch_goes_on(&mut self, at: usize) {
        let call = &self.calls[at];
        if call.failure.is_some() || call.is_complete {
            self.is_over(at);
        }
    }

    /// A call without a client has nothing to do any more. It is ended in the next turn: whoever found out is still at it.
    fn is_over(&mut self, at: usize) {
        if let Some(cache) = &mut self.cache
            && !std::mem::replace(&mut self.calls[at].is_over, true)
        {
            cache.over.push(at);
        }
    }

    /// The next call that is to be ended.
    pub(crate) fn pop_over(&mut self) -> Option<usize> {
        let over = &mut self.cache.as_mut()?.over;
        loop {
            let at = over.pop()?;
            if self.calls.get(at).is_some_and(|call| call.is_over) {
                return Some(at);
            }
        }
    }

    /// What is stored for the key of a call is not the current state any more (RFC 9111, section 4.4).
    fn invalidate(&mut self, at: usize) {
        let Some(fetch) = self.calls[at].fetch.take() else {
            return;
        };
        if let Some(cache) = &mut self.cache {
            let removed = cache.store.remove(fetch.wanted());
            cache.counters.invalidated.add(removed as u64);
            cache.publish();
        }
        self.void(|key| key == &*fetch.key);
        self.calls[at].fetch = Some(fetch);
    }

    /// Removes what an operator names. Returns how many responses were removed.
    pub(crate) fn purge(&mut self, purge: &Purge) -> usize {
        self.void(|key| purge.means(key));
        self.cache.as_mut().map_or(0, |cache| cache.purge(purge))
    }

    /// What is on its way for these keys is not stored, and nobody else will wait for it.
    fn void(&mut self, is_meant: impl Fn(&[u8]) -> bool) {
        let Some(cache) = &mut self.cache else {
            return;
        };
        for (_, &at) in &cache.fills {
            if let Some(fetch) = &mut self.calls[at].fetch
                && is_meant(&fetch.key)
            {
                fetch.is_void = true;
                if cache.flights.get(&fetch.flight) == Some(&at) {
                    cache.flights.remove(&fetch.flight);
                }
            }
        }
    }

    /// Ends what a call does for the cache.
    pub(crate) fn forget_fetch(&mut self, at: usize) {
        let (Some(cache), Some(mut fetch)) = (&mut self.cache, self.calls[at].fetch.take()) else {
            return;
        };
        cache.unregister(at, fetch.flight, fetch.fill.take());
        debug_assert!(fetch.followers.is_empty(), "they would wait for ever");
        fetch.clear();
        cache.spare.push(fetch);
    }
}

/// The lines of a stored response with those of a newer head in place of theirs (RFC 9111, section 3.2).
fn merge(old: &[u8], new: &[u8]) -> Box<[u8]> {
    /// What belongs to the content that is stored.
    const OF_CONTENT: [&[u8]; 4] = [
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"content-md5",
    ];
    let is_of_content = |name: &[u8]| {
        let mut names = OF_CONTENT.iter();
        names.any(|each| name.eq_ignore_ascii_case(each))
    };
    let is_replaced = |name: &[u8]| {
        let mut names = fields(new).map(|(name, _)| name);
        names.any(|each| each.eq_ignore_ascii_case(name)) && !is_of_content(name)
    };
    let mut merged = Vec::with_capacity(old.len() + new.len());
    for (at, name, _) in lines(old) {
        if !is_replaced(name) {
            merged.extend_from_slice(&old[at]);
        }
    }
    for (at, name, _) in lines(new) {
        if !is_of_content(name) && !name.eq_ignore_ascii_case(b"age") {
            merged.extend_from_slice(&new[at]);
        }
    }
    merged.into()
}

/// As `Date`.
fn date_of(unix_s: u64) -> String {
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_s))
}
