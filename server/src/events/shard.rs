//! One core's part of the events: reads them, counts them, answers for all.

use std::sync::Arc;

use super::parse::parse;
use super::refusal::{EventCounters, Refusal};
use super::seen::SeenUsers;
use super::stats::Stats;
use super::{Events, ResetError};

/// The only writer of one core's counts. Made by [`Events::shard`], once.
#[derive(Debug)]
pub struct EventShard {
    events: Arc<Events>,
    core: usize,
    seen: SeenUsers,
    /// Room for a user ID whose escapes are resolved.
    scratch: Box<[u8]>,
}

impl EventShard {
    pub(super) fn new(events: Arc<Events>, core: usize, seen: SeenUsers) -> Self {
        let scratch = vec![0; events.config.user_id_bytes_max].into();
        EventShard {
            events,
            core,
            seen,
            scratch,
        }
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
        let counters = &self.events.counters[self.core];
        let recorded = parse(body, &mut self.scratch).and_then(|event| {
            let user = self.events.key.hash(event.user_id);
            self.events
                .counts
                .record(self.core, &mut self.seen, user, event.value)
                .map_err(|_| Refusal::UsersFull)
        });
        match recorded {
            Ok(()) => counters.counted.increment(),
            Err(refusal) => counters.refuse(refusal),
        }
        recorded
    }

    /// What all cores counted since the last reset. See [`Events::stats`].
    pub fn stats(&self) -> Stats {
        self.events.stats()
    }

    /// Begins anew on all cores. See [`Events::reset`].
    ///
    /// # Errors
    ///
    /// If it is not allowed.
    pub fn reset(&self) -> Result<(), ResetError> {
        self.events.reset()
    }

    /// What this core did with the events it got.
    pub fn counters(&self) -> &EventCounters {
        &self.events.counters[self.core]
    }
}
