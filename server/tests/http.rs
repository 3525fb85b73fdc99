//! The responder, driven in memory.

use std::sync::Arc;

use barewire::events::{Events, EventsConfig};
use barewire::http::{HttpCounters, Limits, Responder};
use barewire::site::{self, Site};
use barewire_conformance::driver::{Driver, Memory};
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
fn two_requests_in_one_segment_get_two_responses() {
    let mut memory = Memory::new(responder());
    let requests =
        b"GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\nGET /json HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(
        String::from_utf8(memory.exchange(&[requests]).unwrap()).unwrap(),
        "HTTP/1.1 200 OK\r\nServer: barewire\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!\
         HTTP/1.1 200 OK\r\nServer: barewire\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"message\":\"Hello, World!\"}"
    );
}
