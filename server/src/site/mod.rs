//! What this server answers: its routes, in one table, and their handlers.
//!
//! To add a route, write a handler and a line in [`ROUTES`]. The handler of a GET answers from the
//! request's head, that of a POST from its body, too; [`Handler`] has all ways. HEAD, OPTIONS, 404, 405 and
//! 413 are taken care of. Handlers run on every core at once, each core with a [`Site`] of its own; they
//! must not block and should not allocate.

mod test_routes;

use std::sync::Arc;

use serde::Serialize;

use crate::events::{self, EventShard, Reset};
use crate::fleet::FleetHandle;
use barewire_http::files::Directory;
use barewire_http::middleware::RequestLog;
use barewire_http::{
    Answer, Handler, HttpCounters, Limits, Method, Refusal, Request, Responder, Response, Route,
    RouteError, Routes, Status,
};

pub use test_routes::{TEST_ROUTES, byte_at};

/// Every path of this server.
pub const ROUTES: &[Route<Site>] = &[
    Route::new("/plaintext").get(plaintext),
    Route::new("/json").get(json),
    Route::new("/health").get(health),
    Route::new("/event").post(event),
    Route::new("/stats").get(stats),
    Route::new("/reset").on(Method::Post, Handler::Head(reset)),
];

/// What the handlers of one core share.
#[derive(Debug)]
pub struct Site {
    /// Where this core counts its events.
    pub events: EventShard,
    /// The directory that is served, if one is.
    pub files: Option<Directory>,
    /// The fleet that the server belongs to, if it does.
    pub fleet: Option<FleetHandle>,
    /// Whether `GET /stats` is about the fleet where the request does not say.
    pub fleet_by_default: bool,
}

impl Site {
    /// What counts events, serves no files, and is alone.
    pub fn new(events: EventShard) -> Self {
        Site {
            events,
            files: None,
            fleet: None,
            fleet_by_default: false,
        }
    }
}

/// The routes of a server, with those of [`TEST_ROUTES`] or without.
///
/// # Errors
///
/// If two of them are for the same path.
pub fn routes(with_test_routes: bool) -> Result<Routes<Site>, RouteError> {
    routes_with_files(with_test_routes, None)
}

/// The same, and all files of a [`Directory`] below `prefix`, if there is one.
///
/// # Errors
///
/// If two of them are for the same path, or `prefix` is none.
pub fn routes_with_files(
    with_test_routes: bool,
    prefix: Option<&str>,
) -> Result<Routes<Site>, RouteError> {
    let test_routes = if with_test_routes { TEST_ROUTES } else { &[] };
    let file_routes = prefix.map_or(Vec::new(), file_routes);
    Routes::new(ROUTES.iter().chain(test_routes).chain(&file_routes))
}

/// The directory itself, with its slash or without, and everything in it.
fn file_routes(prefix: &str) -> Vec<Route<Site>> {
    let prefix = prefix.trim_end_matches('/');
    let mut routes = vec![
        Route::with_path(format!("{prefix}/")).get(file),
        Route::with_path(format!("{prefix}/{{*path}}")).get(file),
    ];
    if !prefix.is_empty() {
        routes.push(Route::with_path(prefix.to_owned()).get(to_directory));
    }
    routes
}

/// What serves one core.
pub type SiteResponder = Responder<Site, (RequestLog, ())>;

/// The responder of one core, with counters made for the same routes.
pub fn responder(
    routes: &Routes<Site>,
    site: Site,
    limits: Limits,
    counters: Arc<HttpCounters>,
) -> SiteResponder {
    Responder::new(routes, site)
        .with_limits(limits)
        .with_counters(counters)
        .with_middleware(RequestLog)
}

/// TechEmpower's plaintext test.
fn plaintext(_: &mut Site, _: &Request<'_>, response: Response<'_, '_>) -> Answer {
    response.text("Hello, World!")
}

/// TechEmpower's JSON test: serialised for each request, as its rules demand.
fn json(_: &mut Site, _: &Request<'_>, response: Response<'_, '_>) -> Answer {
    #[derive(Serialize)]
    struct Greeting {
        message: &'static str,
    }

    response.json(&Greeting {
        message: "Hello, World!",
    })
}

/// For load balancers: a core that answers is healthy.
fn health(_: &mut Site, _: &Request<'_>, response: Response<'_, '_>) -> Answer {
    response.text("ok\n")
}

/// Counts an event before it says so.
///
/// The answer has no content: Go's `net/http` keeps a connection only if there is nothing left to read, and
/// the challenge's own client closes the content of every answer unread.
fn event(site: &mut Site, _: &Request<'_>, body: &[u8], response: Response<'_, '_>) -> Answer {
    match site.events.record(body) {
        Ok(()) => response.empty(),
        Err(events::Refusal::UsersFull) => response
            .status(Status::InsufficientStorage)
            .text(events::Refusal::UsersFull.reason()),
        Err(refusal @ events::Refusal::HandedOver) => response
            .status(Status::ServiceUnavailable)
            .text(refusal.reason()),
        Err(refusal) => response.status(Status::BadRequest).text(refusal.reason()),
    }
}

/// What all cores counted, or all servers of the fleet.
fn stats(site: &mut Site, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
    let of_fleet = match request.query_value("scope") {
        Some(b"server") => false,
        Some(b"fleet") => true,
        None => site.fleet_by_default,
        Some(_) => {
            let response = response.status(Status::BadRequest);
            return response.text("scope has to be server or fleet\n");
        }
    };
    if !of_fleet {
        let stats = match site.events.heir() {
            None => Some(site.events.stats()),
            Some(heir) => heir.stats(),
        };
        return match stats {
            Some(stats) => response.json(&stats),
            None => response
                .status(Status::ServiceUnavailable)
                .text(events::Refusal::HandedOver.reason()),
        };
    }
    let Some(fleet) = &site.fleet else {
        let response = response.status(Status::NotFound);
        return response.text("this server counts alone: start it with --counts-through\n");
    };
    match fleet.view() {
        Some(view) => response.json(&view.stats()),
        None => response
            .status(Status::ServiceUnavailable)
            .text("the counts of the fleet have not been read yet: the engine does not answer\n"),
    }
}

/// A file of the directory.
fn file(site: &mut Site, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
    match &mut site.files {
        Some(files) => files.answer(request, request.param("path").unwrap_or(""), response),
        None => response.refuse(Refusal::NotFound),
    }
}

/// Relative links would lead elsewhere without the slash.
fn to_directory(_: &mut Site, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
    let location = format!("{}/", String::from_utf8_lossy(request.path()));
    response
        .status(Status::MovedPermanently)
        .redirect(&location)
}

/// Begins anew, if the operator allows it; in a fleet all servers do, soon.
fn reset(site: &mut Site, _: &Request<'_>, response: Response<'_, '_>) -> Answer {
    let reset = match site.events.heir() {
        None => Some(begin_anew(&site.events, site.fleet.as_ref())),
        Some(heir) => heir.reset(),
    };
    match reset {
        Some(Reset::Done) => response.text("ok\n"),
        Some(Reset::OfFleet) => response
            .status(Status::Accepted)
            .text("done once resetPending is 0 in /stats?scope=fleet\n"),
        Some(Reset::NotAllowed) => response
            .status(Status::Forbidden)
            .text("resetting is not allowed: start with --allow-reset"),
        None => response
            .status(Status::ServiceUnavailable)
            .text(events::Refusal::HandedOver.reason()),
    }
}

/// Begins anew because a client asked for it, here or at a process that this one takes over from.
pub fn begin_anew(events: &EventShard, fleet: Option<&FleetHandle>) -> Reset {
    if let (Some(fleet), true) = (fleet, events.reset_allowed()) {
        fleet.reset();
        return Reset::OfFleet;
    }
    match events.reset() {
        Ok(()) => Reset::Done,
        Err(events::ResetError::NotAllowed) => Reset::NotAllowed,
    }
}
