//! The thread that publishes what a server counts and reads what all count.
//!
//! In each turn it publishes until nothing new is left, at most [`TURN_MAX`] times, and reads. Whatever fails is tried
//! again in the next turn, with the counts of then; only users that the engine has not confirmed are kept for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Engine, EngineError};
use super::join::{HEARTBEAT, Joined, random_u128};
use super::scripts::{Keys, Publication, Reading, Receipt, USERS_MAX};
use super::view::View;
use super::{FleetConfig, Shared};
use crate::events::Events;
use crate::events::ledger::Totals;
use crate::events::membership::{Entry, Membership};
use crate::events::newcomers::Newcomers;
use crate::events::sum::ExactSum;
use crate::events::users::{UserHash, UserKey};

/// Publications in one turn, so that the counts of others are read in between.
const TURN_MAX: usize = 64;
/// The shortest time between two attempts to reach an engine that does not answer.
const RETRY: Duration = Duration::from_millis(250);
/// How long publishing the rest may take at the end.
const END_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Publisher {
    engine: Engine,
    keys: Keys,
    key: UserKey,
    process: String,
    interval: Duration,
    read_interval: Duration,
    silent: Duration,
    events: Arc<Events>,
    newcomers: Option<Newcomers>,
    shared: Arc<Shared>,
    member: Membership,
    /// What the server began with.
    begun_with: Totals,
    /// Resets of `events` that belong to `member.epoch`.
    generation: u64,
    /// Taken from the queues or the table, and not confirmed.
    unconfirmed: Vec<UserHash>,
    /// Where in the table of all users to go on, if it is to be read.
    scan: Option<usize>,
    confirmed: Option<Confirmed>,
    /// What the engine said of itself last.
    life: Option<String>,
    read_at: Option<Instant>,
    /// Whether the last turn failed: a log has the first failure of each kind, and the end of all.
    failing: Option<std::mem::Discriminant<EngineError>>,
    is_name_taken: bool,
}

/// What the engine took last of the own incarnation.
#[derive(Debug, Clone, Copy)]
struct Confirmed {
    events: u64,
    version: u64,
    at: Instant,
}

impl Publisher {
    pub fn new(
        joined: Joined,
        config: &FleetConfig,
        events: Arc<Events>,
        shared: Arc<Shared>,
    ) -> Self {
        let (generation, _) = events.totals();
        Publisher {
            engine: joined.engine,
            keys: joined.keys,
            key: joined.key,
            process: joined.process,
            interval: config.interval,
            read_interval: config.read_interval,
            silent: config.silent,
            newcomers: events.newcomers(),
            events,
            shared,
            member: joined.member,
            begun_with: joined.totals,
            generation,
            unconfirmed: Vec::new(),
            scan: Some(0),
            confirmed: None,
            life: None,
            read_at: None,
            failing: None,
            is_name_taken: false,
        }
    }

    /// Publishes until the server ends, and then the rest.
    pub fn run(mut self) -> Membership {
        while !self.shared.ending.load(Ordering::Acquire) {
            let pause = super::lock(&self.shared.pause).take();
            if let Some(pause) = pause {
                let _ = pause.paused.send(self.member.clone().closed());
                if pause.ends.recv().is_ok() {
                    // Another process publishes the rest.
                    return self.member.closed();
                }
            }
            let started = Instant::now();
            let outcome = self.turn();
            let interval = match &outcome {
                Ok(()) => self.interval,
                Err(_) => self.interval.max(RETRY),
            };
            self.note(outcome.err());
            // Whoever ends it wakes it.
            thread::park_timeout(interval.saturating_sub(started.elapsed()));
        }
        // A connection that broke since it was last used is no reason to give up.
        let until = Instant::now() + END_MAX;
        if self.leave(until).or_else(|_| self.leave(until)).is_err() {
            let left = self.shared.counters.events_unpublished.get();
            tracing::warn!(
                "{left} events are not published; the next server with this --state publishes them"
            );
        }
        self.member.closed()
    }

    fn turn(&mut self) -> Result<(), EngineError> {
        if self.shared.reset.load(Ordering::Acquire) {
            // An engine that lost its epoch learns it from us first.
            self.publish(false)?;
            let epoch = self.call_reset()?;
            self.shared.reset.store(false, Ordering::Release);
            if epoch > self.member.epoch {
                self.follow(epoch);
            }
        }
        for _ in 0..TURN_MAX {
            if !self.publish(false)? {
                break;
            }
        }
        if self
            .read_at
            .is_none_or(|at| at.elapsed() >= self.read_interval)
        {
            self.read()?;
        }
        Ok(())
    }

    fn leave(&mut self, until: Instant) -> Result<(), EngineError> {
        while self.publish(true)? && Instant::now() < until {}
        Ok(())
    }

    /// Publishes what there is, at most one chunk of users; says whether there is more.
    fn publish(&mut self, is_leaving: bool) -> Result<bool, EngineError> {
        if let Some(pending) = self.member.pending.last().cloned() {
            let receipt = self.send(&pending, &[], is_leaving)?;
            if receipt.epoch > self.member.epoch {
                self.follow(receipt.epoch);
            } else {
                self.member.pending.pop();
            }
            return Ok(true);
        }
        if self.unconfirmed.is_empty() {
            self.unconfirmed = self.next_users();
        }
        // After the users: it has the events of all of them.
        let (generation, totals) = self.events.totals();
        if generation != self.generation {
            // Somebody else reset the counts; nobody does while there is a fleet.
            self.begin(generation);
            return Ok(true);
        }
        let entry = self.member.entry(&totals);
        self.count_unpublished(&entry);
        let is_due = is_leaving
            || !self.unconfirmed.is_empty()
            || self.confirmed.is_none_or(|confirmed| {
                confirmed.events != entry.events || confirmed.at.elapsed() >= HEARTBEAT
            });
        if !is_due {
            return Ok(false);
        }
        self.member.version += 1;
        let entry = Entry {
            version: self.member.version,
            ..entry
        };
        let users = std::mem::take(&mut self.unconfirmed);
        let sent = self.send(&entry, &users, is_leaving);
        self.unconfirmed = users;
        let receipt = sent?;
        if receipt.epoch > self.member.epoch {
            self.follow(receipt.epoch);
            return Ok(true);
        }
        let counters = &self.shared.counters;
        counters.users_published.add(self.unconfirmed.len() as u64);
        self.unconfirmed.clear();
        // Our own may have arrived twice, the copy first.
        let is_newer = receipt
            .version
            .is_some_and(|version| version >= entry.version);
        if is_newer && receipt.process != self.process {
            self.become_another();
            return Ok(true);
        }
        let expected = self.confirmed.map(|confirmed| confirmed.version);
        let before = self.life.replace(receipt.life);
        let is_another = before.is_some() && before != self.life;
        if is_another || expected.is_some() && receipt.version < expected {
            tracing::warn!(
                "the engine has lost what it had taken: all users are published once more"
            );
            counters.engine_losses.increment();
            self.scan = Some(0);
        }
        self.confirmed = Some(Confirmed {
            events: entry.events,
            version: entry.version,
            at: Instant::now(),
        });
        self.count_unpublished(&entry);
        let waiting = self.newcomers.as_ref().map_or(0, Newcomers::waiting);
        Ok(self.scan.is_some() || waiting > 0)
    }

    /// The next chunk: of the table, as long as it has to be read, then of the queues.
    fn next_users(&mut self) -> Vec<UserHash> {
        if self.newcomers.as_ref().is_some_and(Newcomers::missed) {
            self.scan = Some(0);
        }
        if let Some(from) = self.scan {
            if from == 0 {
                self.shared.counters.user_scans.increment();
            }
            let (users, next) = self.events.users_from(self.generation, from, USERS_MAX);
            self.scan = next;
            return users;
        }
        let generation = self.generation;
        let newcomers = self.newcomers.as_mut();
        newcomers.map_or(Vec::new(), |newcomers| {
            newcomers.take(generation, USERS_MAX)
        })
    }

    fn send(
        &mut self,
        entry: &Entry,
        users: &[UserHash],
        is_leaving: bool,
    ) -> Result<Receipt, EngineError> {
        let publication = Publication {
            epoch: self.member.epoch,
            key: self.key,
            entry,
            node: &self.member.node,
            process: &self.process,
            is_leaving,
            users,
        };
        let answer = self.engine.call(&self.keys.publish(&publication))?;
        let receipt = Receipt::read(answer)?;
        self.shared.counters.publications.increment();
        if receipt.epoch == self.member.epoch && receipt.key != Some(self.key) {
            return Err(EngineError::Refused(
                "it has another key for users than this node: it was emptied, and a new node came first".into(),
            ));
        }
        let is_ours = |process: &str| process == self.process;
        let other = receipt.before.as_ref().filter(|before| before.is_up);
        let is_taken =
            self.confirmed.is_some() && other.is_some_and(|other| !is_ours(&other.process));
        if is_taken {
            self.shared.counters.name_conflicts.increment();
            if !self.is_name_taken {
                tracing::warn!(
                    "another server publishes as node {}: counts stay exact, but nobody sees which of both is silent; \
                     give one of them another --node",
                    self.member.node
                );
            }
        }
        self.is_name_taken |= is_taken;
        Ok(receipt)
    }

    fn read(&mut self) -> Result<(), EngineError> {
        let asked_at = Instant::now();
        let answer = self.engine.call(&self.keys.read(self.member.epoch))?;
        let reading = Reading::read(answer)?;
        if let Some(epoch) = reading.epoch.filter(|&epoch| epoch > self.member.epoch) {
            self.follow(epoch);
            return Ok(());
        }
        self.read_at = Some(asked_at);
        self.shared.counters.readings.increment();
        let view = View::new(reading, asked_at, self.silent);
        self.shared.view.store(Some(Arc::new(view)));
        Ok(())
    }

    fn call_reset(&mut self) -> Result<u64, EngineError> {
        let answer = self.engine.call(&self.keys.reset(self.member.epoch))?;
        super::scripts::typed(answer)
    }

    /// The fleet has begun anew: so does this server.
    fn follow(&mut self, epoch: u64) {
        let (_, before) = self.events.totals();
        if self.events.reset().is_err() {
            // It was made for it.
            tracing::error!(
                "the counts cannot begin anew with the fleet; this is a bug in barewire"
            );
            return;
        }
        let counters = &self.shared.counters;
        counters.resets.increment();
        let unpublished = self.member.entry(&before).events;
        let confirmed = self.confirmed.map_or(0, |confirmed| confirmed.events);
        counters
            .events_reset_late
            .add(unpublished.saturating_sub(confirmed));
        self.member.epoch = epoch;
        let (generation, _) = self.events.totals();
        self.begin(generation);
    }

    /// Publishes the counts of `generation` from here on.
    fn begin(&mut self, generation: u64) {
        self.generation = generation;
        self.member.base_events = 0;
        self.member.base_sum = ExactSum::ZERO;
        self.member.pending.clear();
        self.begun_with = Totals::ZERO;
        self.unconfirmed.clear();
        self.scan = None;
        self.confirmed = None;
    }

    /// The engine has a newer entry of this incarnation than we wrote: the state was a copy of an older one. What was
    /// counted since its server started goes to a new incarnation.
    fn become_another(&mut self) {
        let Ok(incarnation) = random_u128() else {
            return;
        };
        tracing::warn!(
            "the state was older than what was published since: counting on as another incarnation"
        );
        self.member.incarnation = incarnation;
        self.member.version = 0;
        self.member.base_events = self.begun_with.events;
        self.member.base_sum = self.begun_with.sum.clone();
        self.member.base_sum.carry();
        self.confirmed = None;
    }

    fn count_unpublished(&self, entry: &Entry) {
        let confirmed = self.confirmed.map_or(0, |confirmed| confirmed.events);
        let counters = &self.shared.counters;
        counters
            .events_unpublished
            .set(entry.events.saturating_sub(confirmed));
        let waiting = self.newcomers.as_ref().map_or(0, Newcomers::waiting);
        counters
            .users_waiting
            .set((waiting + self.unconfirmed.len()) as u64);
    }

    /// Counts what became of a turn, and says so if it is news.
    fn note(&mut self, error: Option<EngineError>) {
        let counters = &self.shared.counters;
        let connects = self.engine.connects() - counters.connects.get();
        counters.connects.add(connects);
        counters.engine_answers.set(error.is_none().into());
        if let Some(view) = &*self.shared.view.load() {
            view.stats().count(counters);
        }
        let kind = error.as_ref().map(std::mem::discriminant);
        match &error {
            None if self.failing.is_some() => {
                tracing::info!("the engine at {} answers again", self.engine)
            }
            None => {}
            Some(error) => {
                match error {
                    EngineError::Timeout { .. } => counters.failed_timeout.increment(),
                    EngineError::Unreachable { .. } => counters.failed_unreachable.increment(),
                    EngineError::Full(_) => counters.failed_full.increment(),
                    _ => counters.failed_refused.increment(),
                }
                if self.failing != kind {
                    tracing::warn!("{error}; counts wait to be published, and serving goes on");
                }
                // What the cores count meanwhile is not published.
                let (generation, totals) = self.events.totals();
                if generation == self.generation {
                    self.count_unpublished(&self.member.entry(&totals));
                }
            }
        }
        self.failing = kind;
    }
}
