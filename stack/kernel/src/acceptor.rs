//! Where the connections of a core come from, and when to try again after accepting failed.

use std::io;

use barewire_service::time::{Duration, Instant};

use super::complaint::Complaint;
use super::counters::KernelCounters;

/// How long to leave the queues alone when accepting failed for lack of file descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);

/// The listeners of a core.
#[derive(Debug)]
pub struct Acceptor<L> {
    /// None once the core drains.
    pub listeners: Vec<L>,
    /// When to try again after a failure, at the latest: a connection that closes is a reason, too.
    pub retry_at: Option<Instant>,
    failure: Complaint,
}

impl<L> Acceptor<L> {
    /// One that accepts.
    pub fn new(listeners: Vec<L>) -> Self {
        Acceptor {
            listeners,
            retry_at: None,
            failure: Complaint::default(),
        }
    }

    /// Counts and logs that accepting failed, which may happen ten times in a second, and sets when to try again.
    pub fn failed(&mut self, error: &io::Error, now: Instant, counters: &KernelCounters) {
        counters.accept_failed.increment();
        self.retry_at = Some(now + RETRY);
        if let Some(suppressed) = self.failure.due(now) {
            tracing::warn!(suppressed, "accept: {error}; trying again in {RETRY}");
        }
    }
}
