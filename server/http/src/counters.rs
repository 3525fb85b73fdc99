//! What one core's responder counted.

use barewire_service::counters::{Counter, Kind, Sample, Samples};

use super::durations::Durations;
use super::http2::Http2Counters;
use super::refusal::Refusal;
use super::routes::Routes;
use super::status::Status;

/// Responses by route and status, how long they took, refusals by reason. Written by one core.
///
/// The number of requests answered is the sum of all responses.
#[derive(Debug)]
#[repr(align(64))]
pub struct HttpCounters {
    refusals: [Counter; Refusal::ALL.len()],
    /// Interim responses: 100 Continue.
    pub(super) continues: Counter,
    /// Connections closed because a body that was discarded was malformed, too large or too slow.
    pub(super) bodies_abandoned: Counter,
    /// Connections reset because the content of a response ended too early.
    pub(super) contents_broken: Counter,
    /// Of HTTP/2.
    pub http2: Http2Counters,
    /// In the order of the routes, and one more for requests that have none.
    routes: Box<[RouteCounters]>,
}

/// The answers of one route.
#[derive(Debug)]
#[repr(align(64))]
pub struct RouteCounters {
    /// `None`: the request matched no route, or was refused before that was known.
    path: Option<Box<str>>,
    responses: [Counter; Status::ALL.len()],
    durations: Durations,
}

impl HttpCounters {
    /// Counters for a responder with these routes.
    pub fn new<S>(routes: &Routes<S>) -> Self {
        let paths = routes.paths().map(|path| Some(path.into()));
        HttpCounters {
            refusals: std::array::from_fn(|_| Counter::default()),
            continues: Counter::default(),
            bodies_abandoned: Counter::default(),
            contents_broken: Counter::default(),
            http2: Http2Counters::default(),
            routes: paths
                .chain([None])
                .map(|path| RouteCounters {
                    path,
                    responses: std::array::from_fn(|_| Counter::default()),
                    durations: Durations::default(),
                })
                .collect(),
        }
    }

    /// Which of its routes this is.
    #[inline]
    pub(super) fn path(&self, route: usize) -> Option<&str> {
        self.routes[route].path()
    }

    #[inline]
    pub(super) fn count_response(&self, route: usize, status: Status) {
        self.routes[route].responses[status as usize].increment();
    }

    pub(super) fn count_refusal(&self, refusal: Refusal) {
        self.refusals[refusal as usize].increment();
    }

    pub(super) fn record(&self, route: usize, duration_ns: u64, requests: u64) {
        self.routes[route].durations.record(duration_ns, requests);
    }

    /// Responses sent with `status`.
    pub fn responses(&self, status: Status) -> u64 {
        let routes = self.routes.iter();
        routes.map(|route| route.responses(status)).sum()
    }

    /// Requests refused for this reason.
    pub fn refusals(&self, reason: Refusal) -> u64 {
        self.refusals[reason as usize].get()
    }

    /// Every route, and last what matched none.
    pub fn routes(&self) -> &[RouteCounters] {
        &self.routes
    }

    /// Each route's path and the requests answered whose path was that, with any method.
    pub fn requests_by_route(&self) -> impl Iterator<Item = (&str, u64)> {
        self.routes.iter().filter_map(|route| {
            let statuses = Status::ALL.iter();
            let requests = statuses.map(|status| route.responses(*status)).sum();
            Some((route.path()?, requests))
        })
    }

    /// Every counter but those by route, with its help text.
    pub fn samples(&self) -> Vec<Sample> {
        let counter = |kind, name, help, value| Sample {
            name,
            help,
            kind,
            value,
        };
        let responses = Status::ALL.iter().map(|status| {
            counter(
                Kind::Counter,
                status.counter_name(),
                status.counter_help(),
                self.responses(*status),
            )
        });
        let refusals = Refusal::ALL.iter().map(|reason| {
            counter(
                Kind::Loss,
                reason.counter_name(),
                reason.counter_help(),
                self.refusals(*reason),
            )
        });
        let others = [
            counter(
                Kind::Counter,
                "continues",
                "Interim responses: 100 Continue.",
                self.continues.get(),
            ),
            counter(
                Kind::Loss,
                "bodies_abandoned",
                "Connections closed because a body that was discarded was malformed, too large or too slow.",
                self.bodies_abandoned.get(),
            ),
            counter(
                Kind::Loss,
                "contents_broken",
                "Connections reset because the content of a response ended too early.",
                self.contents_broken.get(),
            ),
        ];
        let http2 = self.http2.samples();
        responses
            .chain(refusals)
            .chain(others)
            .chain(http2)
            .collect()
    }
}

impl RouteCounters {
    /// Its path; `None`: the request matched no route, or was refused before that was known.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Responses sent with `status`.
    pub fn responses(&self, status: Status) -> u64 {
        self.responses[status as usize].get()
    }

    /// How long its requests took.
    pub fn durations(&self) -> &Durations {
        &self.durations
    }
}
