//! What was last read of a fleet.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::scripts::Reading;
use crate::events::Stats;
use crate::events::ledger::Totals;

/// Silent nodes that an answer names; their number is that of all.
const NAMED_MAX: usize = 8;

/// What was last read of a fleet.
#[derive(Debug, Clone)]
pub struct View {
    read_at: Instant,
    stats: Stats,
    nodes: usize,
    silent: usize,
    silent_names: Vec<String>,
    reset_pending: usize,
}

/// The answer to `GET /stats?scope=fleet`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStats<'a> {
    #[serde(flatten)]
    stats: Stats,
    /// Milliseconds since this was read from the engine.
    age_ms: u64,
    /// Nodes that the fleet has or had.
    nodes: usize,
    /// How many of them have not published for long and did not say that they end.
    silent: usize,
    /// Some of those.
    silent_nodes: &'a [String],
    /// How many have not followed the last reset yet.
    reset_pending: usize,
}

impl View {
    pub(super) fn new(reading: Reading, read_at: Instant, silent_after: Duration) -> Self {
        let up = || reading.nodes.iter().filter(|(_, record)| record.is_up);
        let silent_after_ms = silent_after.as_millis() as u64;
        let is_silent = |at_ms: u64| reading.now_ms.saturating_sub(at_ms) > silent_after_ms;
        let mut silent: Vec<&String> = up()
            .filter(|(_, record)| is_silent(record.at_ms))
            .map(|(name, _)| name)
            .collect();
        silent.sort();
        let epoch = reading.epoch.unwrap_or(0);
        let totals = Totals {
            events: reading.events,
            users: reading.users,
            sum: reading.sum.clone(),
        };
        View {
            read_at,
            stats: totals.into(),
            nodes: reading.nodes.len(),
            silent: silent.len(),
            silent_names: silent.into_iter().take(NAMED_MAX).cloned().collect(),
            reset_pending: up().filter(|(_, record)| record.epoch < epoch).count(),
        }
    }

    /// What is told of it.
    pub fn stats(&self) -> FleetStats<'_> {
        FleetStats {
            stats: self.stats,
            age_ms: self.read_at.elapsed().as_millis() as u64,
            nodes: self.nodes,
            silent: self.silent,
            silent_nodes: &self.silent_names,
            reset_pending: self.reset_pending,
        }
    }
}

impl FleetStats<'_> {
    pub(super) fn count(&self, counters: &super::FleetCounters) {
        counters.age_ms.set(self.age_ms);
        counters.nodes.set(self.nodes as u64);
        counters.nodes_silent.set(self.silent as u64);
        counters.nodes_reset_pending.set(self.reset_pending as u64);
        counters.fleet_events.set(self.stats.total_requests);
        counters.fleet_users.set(self.stats.unique_users);
    }
}
