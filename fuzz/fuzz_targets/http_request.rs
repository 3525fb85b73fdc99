//! Any bytes, cut anywhere, get the same replies, of bounded length, and never a panic.
#![no_main]

use std::sync::Arc;

use barewire::events::{Events, EventsConfig};
use barewire_http::{HttpCounters, Limits, Route, Routes};
use barewire::site::{self, ROUTES, Site, SiteResponder, TEST_ROUTES};
use barewire_conformance::driver::Memory;
use barewire_conformance::property::same_replies_however_split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|requests: &[u8]| {
    same_replies_however_split(server, requests, cuts(requests));
});

/// Small limits, so that short inputs reach them.
const LIMITS: Limits = Limits {
    head_bytes_max: 512,
    target_bytes_max: 100,
    headers_max: 10,
    body_bytes_max: 64,
    response_fields_bytes_max: 64,
    copied_bytes_max: 64,
};

fn server() -> Memory<SiteResponder> {
    let config = EventsConfig {
        users_max: 4,
        users_seen_max: 2,
        user_id_bytes_max: 8,
        ..EventsConfig::new(1)
    };
    let events = Events::new(config).expect("one core can count");
    let routes = ROUTES.iter().chain(TEST_ROUTES);
    let routes = Routes::new(routes.filter(is_finite_and_the_same)).expect("the table is consistent");
    let counters = Arc::new(HttpCounters::new(&routes));
    let site = Site::new(events.shard(0));
    let mut memory = Memory::new(site::responder(&routes, site, LIMITS, counters));
    memory.receive_bytes = 768;
    memory
}

/// A stream may be endless, and an echo is cut into chunks as its body arrived.
fn is_finite_and_the_same(route: &&Route<Site>) -> bool {
    !matches!(route.path(), "/test/stream" | "/test/echo")
}

/// A few places that depend on nothing but the input.
fn cuts(requests: &[u8]) -> Vec<usize> {
    let mut random = requests
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % (requests.len() + 1)
    };
    (0..4).map(|_| next()).collect()
}
