//! Requests for the same thing at the same time: one asks the origin, the others wait for what it gets.
//!
//! Those that follow wait until the response is stored, or until its head says that it is not: then they set out at once,
//! each for itself, and for some seconds nobody waits for that resource any more. If the one that leads fails, they fail
//! with it: an origin in trouble is not asked a thousand times. If its client goes away, it goes on without it.

use super::fields::{fields, of_request};
use super::key::Wanted;
use super::policy::Reuse;
use super::serve::{Portion, answer, knows, put_lines, take_conditions};
use super::status::Done;
use super::{Cache, Role};
use crate::call::For;
use crate::forward::Forwarder;
use barewire_http::Refusal;

impl Forwarder {
    /// Sends a new call out, or lets it wait for another one.
    pub(crate) fn set_out(&mut self, at: usize) {
        let now_ns = self.now_ns;
        let (Some(cache), call) = (&mut self.cache, &mut self.calls[at]) else {
            return self.dispatch(at, None);
        };
        let Some(fetch) = call.fetch.as_mut().filter(|it| it.role == Role::Begins) else {
            return self.dispatch(at, None);
        };
        let Cache {
            store,
            secret,
            flights,
            fills,
            unstorable,
            ..
        } = &mut **cache;
        let wanted = Wanted {
            hash: fetch.hash,
            text: &fetch.key,
        };
        let selecting = store.selecting(wanted, || of_request(&call.request));
        fetch.flight = secret.hash(&fetch.key, selecting);
        let leader = flights.get(&fetch.flight).copied();
        fetch.role = match leader {
            _ if unstorable.has(fetch.hash, now_ns) => Role::Fills,
            None => Role::Leads,
            Some(leader) if fetch.asked.may_share() => Role::Follows(leader),
            Some(_) => Role::Fills,
        };
        if let Role::Follows(leader) = fetch.role {
            let key = |at: usize| Some(&self.calls.get(at)?.fetch.as_ref()?.key);
            // Two keys with the same hash are not the same.
            if key(leader) != key(at) {
                return self.become_filler(at);
            }
            if let Some(leader) = &mut self.calls[leader].fetch {
                leader.followers.push(at);
            }
            self.wait_as_follower(at);
        } else {
            if fetch.role == Role::Leads {
                flights.insert(fetch.flight, at);
            }
            fetch.fill = Some(fills.insert(at));
            self.ask_for_it(at);
        }
    }

    fn become_filler(&mut self, at: usize) {
        let Some(cache) = &mut self.cache else {
            return;
        };
        if let Some(fetch) = &mut self.calls[at].fetch {
            fetch.role = Role::Fills;
            fetch.fill = Some(cache.fills.insert(at));
        }
        self.ask_for_it(at);
    }

    /// Adds the conditions with which the origin is asked, and asks it.
    fn ask_for_it(&mut self, at: usize) {
        let call = &mut self.calls[at];
        if let Some(mut fetch) = call.fetch.take() {
            let mut lines = Vec::new();
            if let Some(stale) = &fetch.stale {
                stale.validators().put_conditions(&mut lines);
                fetch.validates = !lines.is_empty();
            }
            if fetch.role == Role::Fills && !fetch.validates {
                lines.extend_from_slice(&fetch.conditions);
            }
            put_lines(call, &lines);
            call.fetch = Some(fetch);
        }
        self.dispatch(at, None);
    }

    fn wait_as_follower(&mut self, at: usize) {
        if let Some(cache) = &self.cache {
            cache.counters.collapsed.increment();
        }
        let config = self.pool(at);
        let timeout_ms =
            u64::from(config.connect_timeout_ms) + u64::from(config.response_timeout_ms);
        self.calls[at].response_by_ns = self.now_ns + timeout_ms * 1_000_000;
        self.schedule_deadline(at);
    }

    /// Whether the call waits for another one.
    pub(crate) fn is_follower(&self, at: usize) -> bool {
        let fetch = self.calls[at].fetch.as_ref();
        fetch.is_some_and(|fetch| matches!(fetch.role, Role::Follows(_)))
    }

    /// The call waits no more for another one, if it did.
    pub(crate) fn leave_flight(&mut self, at: usize) {
        let Some(fetch) = &mut self.calls[at].fetch else {
            return;
        };
        if let Role::Follows(leader) = fetch.role {
            fetch.role = Role::Passes;
            let leader = self
                .calls
                .get_mut(leader)
                .and_then(|call| call.fetch.as_mut());
            if let Some(leader) = leader {
                leader.followers.retain(|&follower| follower != at);
            }
        }
    }

    /// Nobody follows the call from here on, and its response is not stored after that. Returns those that did.
    pub(super) fn end_flight(&mut self, at: usize) -> Vec<usize> {
        let (Some(cache), Some(fetch)) = (&mut self.cache, &mut self.calls[at].fetch) else {
            return Vec::new();
        };
        cache.unregister(at, fetch.flight, fetch.fill.take());
        std::mem::take(&mut fetch.followers)
    }

    /// What was waited for is stored: it answers those that it fits, and the others set out.
    pub(super) fn land(&mut self, followers: Vec<usize>) {
        let now_ns = self.now_ns;
        for at in followers {
            let (Some(cache), call) = (&mut self.cache, &mut self.calls[at]) else {
                return;
            };
            let Some(fetch) = &mut call.fetch else {
                continue;
            };
            fetch.role = Role::Begins;
            let wanted = fetch.wanted();
            let found = cache.store.get(wanted, || of_request(&call.request));
            let found = found.cloned();
            let reuse = found
                .as_ref()
                .map(|stored| stored.freshness.reuse(&fetch.asked.directives, now_ns));
            match (found, reuse) {
                (Some(stored), Some(Reuse::Validate)) => {
                    fetch.stale = Some(stored);
                    self.become_filler(at);
                    continue;
                }
                (Some(stored), _) => {
                    let is_known =
                        fetch.asked.is_conditional && knows(&stored, fields(&fetch.conditions));
                    fetch.role = Role::Passes;
                    let done = Done::Collapsed(fetch.why);
                    answer(call, stored, Portion::known(is_known), done, now_ns);
                    self.wake_client(at);
                    continue;
                }
                _ => {}
            }
            self.set_out(at);
        }
    }

    /// What was waited for is not for others: each sets out for itself.
    pub(super) fn disperse(&mut self, followers: Vec<usize>) {
        for at in followers {
            self.become_filler(at);
        }
    }

    /// What was waited for has failed, and those that waited with it, unless what they have is good enough.
    pub(super) fn fail_followers(&mut self, followers: Vec<usize>, refusal: Refusal) {
        for at in followers {
            if let Some(fetch) = &mut self.calls[at].fetch {
                fetch.role = Role::Passes;
            }
            if !self.answer_stale(at, None) {
                self.refuse(at, refusal);
            }
        }
    }

    /// Lets a call go on without its client, if others wait for it. Returns whether it does.
    pub(crate) fn goes_on_alone(&mut self, at: usize) -> bool {
        let call = &mut self.calls[at];
        let is_wanted = call
            .fetch
            .as_ref()
            .is_some_and(|fetch| !fetch.followers.is_empty());
        if !is_wanted || call.failure.is_some() || call.is_complete {
            return false;
        }
        call.by = For::Cache;
        call.is_head_taken = true;
        true
    }

    /// Moves the client's conditions out of the request of a call that may fetch for others.
    pub(crate) fn keep_conditions(&mut self, at: usize) {
        let call = &mut self.calls[at];
        if let Some(fetch) = call.fetch.as_mut().filter(|it| it.role == Role::Begins) {
            take_conditions(fetch, &mut call.request);
        }
    }
}

impl Cache {
    /// Forgets what a call does for others.
    pub(super) fn unregister(&mut self, at: usize, flight: u64, fill: Option<usize>) {
        if self.flights.get(&flight) == Some(&at) {
            self.flights.remove(&flight);
        }
        if let Some(fill) = fill {
            self.fills.remove(fill);
        }
    }
}
