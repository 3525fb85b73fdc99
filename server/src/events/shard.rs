//! One core's part of the events: reads them, counts them, answers for all.

use std::sync::Arc;

use super::newcomers::NewcomerSender;
use super::parse::parse;
use super::refusal::{EventCounters, Refusal};
use super::seen::SeenUsers;
use super::stats::Stats;
use super::users::UserHash;
use super::{Events, Heir, ResetError};

/// The only writer of one core's counts. Made by [`Events::shard`], once.
#[derive(Debug)]
pub struct EventShard {
    events: Arc<Events>,
    core: usize,
    seen: SeenUsers,
    /// Where users go that nobody has counted before, if somebody publishes them.
    newcomers: Option<NewcomerSender>,
    /// Room for a user ID whose escapes are resolved.
    scratch: Box<[u8]>,
}

impl EventShard {
    pub(super) fn new(
        events: Arc<Events>,
        core: usize,
        seen: SeenUsers,
        newcomers: Option<NewcomerSender>,
    ) -> Self {
        let scratch = vec![0; events.config.user_id_bytes_max].into();
        EventShard {
            events,
            core,
            seen,
            newcomers,
            scratch,
        }
    }

    /// Meets the users that were restored, as many as it keeps: they come again, and what remembers them is provided
    /// before the first event.
    pub(super) fn meet_restored(&mut self) {
        let Events { counts, config, .. } = &*self.events;
        let known = counts.known_users(config.users_seen());
        known.into_iter().for_each(|user| self.seen.insert(user));
    }

    /// Reads an event from the body of a request and counts it.
    ///
    /// It is counted completely when this returns: a [`EventShard::stats`] called after that, on
    /// whichever core, includes it. Never waits for another core, and does not
    /// allocate unless the body is not JSON (see [`super::parse`]).
    ///
    /// # Errors
    ///
    /// Why it was not counted. The refusal itself is, in [`EventShard::counters`].
    #[inline]
    pub fn record(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let recorded = parse(body, &mut scratch).and_then(|event| {
            let user = self.events.key.hash(event.user_id);
            match self.events.heir() {
                None => self.count(user, event.value),
                Some(heir) => heir.count(user, event.value),
            }
        });
        self.scratch = scratch;
        let counters = &self.events.counters[self.core];
        match recorded {
            Ok(()) => counters.counted.increment(),
            Err(refusal) => counters.refuse(refusal),
        }
        recorded
    }

    /// Counts an event of `user`, here.
    ///
    /// # Errors
    ///
    /// If the user is new and there is no place for another.
    #[inline]
    pub fn count(&mut self, user: UserHash, value: f64) -> Result<(), Refusal> {
        let new_in = self
            .events
            .counts
            .record(self.core, &mut self.seen, user, value)
            .map_err(|_| Refusal::UsersFull)?;
        if let (Some(generation), Some(newcomers)) = (new_in, &mut self.newcomers) {
            newcomers.send(generation, user);
        }
        Ok(())
    }

    /// What all cores counted since the last reset. See [`Events::stats`].
    pub fn stats(&self) -> Stats {
        self.events.stats()
    }

    /// Who counts in our place, if somebody does.
    pub fn heir(&self) -> Option<&dyn Heir> {
        self.events.heir()
    }

    /// Begins anew on all cores. See [`Events::reset`].
    ///
    /// # Errors
    ///
    /// If it is not allowed.
    pub fn reset(&self) -> Result<(), ResetError> {
        self.events.reset_by_request()
    }

    /// Whether clients may reset.
    pub fn reset_allowed(&self) -> bool {
        self.events.reset_allowed()
    }

    /// What this core did with the events it got.
    pub fn counters(&self) -> &EventCounters {
        &self.events.counters[self.core]
    }
}
