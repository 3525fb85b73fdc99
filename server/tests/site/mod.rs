//! The program's responder on one core, for tests that drive it in memory.

use std::sync::Arc;

use barewire::events::{Events, EventsConfig};
use barewire::site::{self, Site, SiteResponder};
use barewire_http::{HttpCounters, Limits};
use barewire_service::service::Service;

/// The example of RFC 9110, section 5.6.7.
pub const UNIX_TIME_S: u64 = 784_111_777;

/// A responder with all routes and room for 100 users, at [`UNIX_TIME_S`], and what it counts.
pub fn responder(limits: Limits) -> (SiteResponder, Arc<HttpCounters>) {
    let routes = site::routes(true).expect("the table is consistent");
    let config = EventsConfig {
        users_max: 100,
        ..EventsConfig::new(1)
    };
    let events = Events::new(config).expect("one core can count");
    let counters = Arc::new(HttpCounters::new(&routes));
    let site = Site::new(events.shard(0));
    let mut responder = site::responder(&routes, site, limits, Arc::clone(&counters));
    responder.on_clock(UNIX_TIME_S);
    (responder, counters)
}
