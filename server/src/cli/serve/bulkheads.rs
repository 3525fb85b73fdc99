//! The limit for all connections together, around the service of each core.

use std::sync::Arc;

use barewire_http::{Bulkhead, BulkheadCounters, Surplus};
use barewire_service::seats::Seats;
use barewire_service::service::Service;
use barewire_service::stack::CounterGroup;

/// What the bulkheads of all cores share, and what each counts.
#[derive(Clone)]
pub struct Bulkheads {
    seats: Option<Arc<Seats>>,
    surplus: Surplus,
    counters: Arc<[Arc<BulkheadCounters>]>,
}

impl Bulkheads {
    /// For at most so many cores. Without `seats` there is no limit.
    pub fn new(seats: Option<Arc<Seats>>, surplus: Surplus, cores_max: usize) -> Self {
        Bulkheads {
            seats,
            surplus,
            counters: (0..cores_max).map(|_| Arc::default()).collect(),
        }
    }

    /// The service of a core, within the limit.
    pub fn around<S: Service>(&self, core: usize, service: S) -> Bulkhead<S> {
        let counters = Arc::clone(&self.counters[core]);
        Bulkhead::new(service, self.seats.clone(), self.surplus, counters)
    }

    /// What the first `cores` count.
    pub fn counters(&self, cores: usize) -> impl Iterator<Item = CounterGroup> + '_ {
        let counters = self.counters.iter().take(cores).enumerate();
        counters.map(|(core, counters)| CounterGroup {
            core: Some(core),
            queue: None,
            part: "bulkhead",
            counters: counters.clone(),
        })
    }
}
