//! The responder, driven in memory.

use std::sync::Arc;

use barewire::events::{Events, EventsConfig};
use barewire::http::{HttpCounters, Limits, Responder};
use barewire::site::{self, Site};
use barewire_conformance::driver::Memory;
use barewire_stack::service::Service;

/// The example of RFC 9110, section 5.6.7.
const UNIX_TIME_S: u64 = 784_111_777;

fn responder() -> Responder<Site> {
    let routes = site::routes(true);
    let events = Events::new(EventsConfig::new(1)).expect("one core can count");
    let counters = Arc::new(HttpCounters::new(&routes));
    let site = Site {
        events: events.shard(0),
    };
    let mut responder = site::responder(&routes, site, Limits::default(), counters);
    responder.on_clock(UNIX_TIME_S);
    responder
}

#[test]
fn every_case_is_answered_as_the_rfc_demands_however_it_is_split() {
    let mut memory = Memory::new(responder());
    let failures: Vec<_> = barewire_conformance::cases()
        .iter()
        .filter_map(|case| case.check_all_splits(&mut memory).err())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
