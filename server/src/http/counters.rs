//! What one core's responder counted.

use barewire_stack::counters::{Counter, Kind, Sample};

use super::refusal::Refusal;
use super::routes::Route;
use super::status::Status;

/// Requests by route, responses by status, refusals by reason. Written by one core.
///
/// The number of requests answered is the sum of all responses.
#[derive(Debug)]
#[repr(align(64))]
pub struct HttpCounters {
    responses: [Counter; Status::ALL.len()],
    refusals: [Counter; Refusal::ALL.len()],
    /// Interim responses: 100 Continue.
    pub(super) continues: Counter,
    /// Connections closed because a body that nobody wanted was malformed, too large or too slow.
    pub(super) bodies_abandoned: Counter,
    routes: Box<[(&'static str, Counter)]>,
}

impl HttpCounters {
    /// Counters for a responder with these routes.
    pub fn new<S>(routes: &[&'static Route<S>]) -> Self {
        HttpCounters {
            responses: Default::default(),
            refusals: Default::default(),
            continues: Counter::default(),
            bodies_abandoned: Counter::default(),
            routes: routes
                .iter()
                .map(|route| (route.path, Counter::default()))
                .collect(),
        }
    }

    #[inline]
    pub(super) fn count_response(&self, status: Status) {
        self.responses[status as usize].increment();
    }

    pub(super) fn count_refusal(&self, refusal: Refusal) {
        self.refusals[refusal as usize].increment();
    }

    #[inline]
    pub(super) fn count_route(&self, index: usize) {
        self.routes[index].1.increment();
    }

    /// Responses sent with `status`.
    pub fn responses(&self, status: Status) -> u64 {
        self.responses[status as usize].get()
    }

    /// Requests refused for this reason.
    pub fn refusals(&self, reason: Refusal) -> u64 {
        self.refusals[reason as usize].get()
    }

    /// Each route's path and the requests whose path was that, with any method.
    pub fn requests_by_route(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.routes.iter().map(|(path, count)| (*path, count.get()))
    }

    /// Every counter but those by route, with its help text.
    pub fn samples(&self) -> Vec<Sample> {
        let responses = Status::ALL.iter().map(|status| Sample {
            name: status.counter_name(),
            help: status.counter_help(),
            kind: Kind::Counter,
            value: self.responses(*status),
        });
        let refusals = Refusal::ALL.iter().map(|reason| Sample {
            name: reason.counter_name(),
            help: reason.counter_help(),
            kind: Kind::Counter,
            value: self.refusals(*reason),
        });
        let others = [
            Sample {
                name: "continues",
                help: "Interim responses: 100 Continue.",
                kind: Kind::Counter,
                value: self.continues.get(),
            },
            Sample {
                name: "bodies_abandoned",
                help: "Connections closed because a body that nobody wanted was malformed, too large or too slow.",
                kind: Kind::Counter,
                value: self.bodies_abandoned.get(),
            },
        ];
        responses.chain(refusals).chain(others).collect()
    }
}
