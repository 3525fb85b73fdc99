//! Any frames behind the preface, cut anywhere: no panic, no endless reply, and the server's frames are well-formed.
#![no_main]

use std::sync::Arc;

use barewire::events::{Events, EventsConfig};
use barewire::site::{self, ROUTES, Site, SiteResponder, TEST_ROUTES};
use barewire_conformance::driver::Memory;
use barewire_conformance::http2::{PREFACE, settings, texts};
use barewire_http::{Http2Limits, HttpCounters, Limits, Routes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (segment, frames) = input;
    let mut memory = server();
    let mut connection = memory.connect();
    memory.send(&mut connection, &[&PREFACE[..], &settings(&[])].concat());
    for segment in frames.chunks(usize::from(segment).max(1)) {
        if !memory.send(&mut connection, segment) {
            break;
        }
    }
    memory.end(&mut connection);
    // A stream may be as long as the client's windows are, which begin with 64 KiB.
    assert!(connection.sent.len() < 400 * 1024 + 600 * frames.len());
    assert!(!texts(&connection.sent).iter().any(|text| text.starts_with("cut")));
});

/// Small limits, so that short inputs reach them.
fn server() -> Memory<SiteResponder> {
    let limits = Limits {
        head_bytes_max: 512,
        target_bytes_max: 100,
        headers_max: 10,
        body_bytes_max: 64,
        response_fields_bytes_max: 64,
        copied_bytes_max: 64,
    };
    let http2 = Http2Limits {
        connections_max: 1,
        streams_max: 4,
        stream_window_bytes: 100,
        header_table_bytes: 256,
        continuations_max: 2,
        buffers_max: 2,
        waiting_bytes_max: 100,
        resets_max: 8,
        control_frames_max: 16,
        ..Http2Limits::default()
    };
    let config = EventsConfig {
        users_max: 4,
        users_seen_max: 2,
        user_id_bytes_max: 8,
        ..EventsConfig::new(1)
    };
    let events = Events::new(config).expect("one core can count");
    let routes = Routes::new(ROUTES.iter().chain(TEST_ROUTES)).expect("the table is consistent");
    let counters = Arc::new(HttpCounters::new(&routes));
    let site = Site::new(events.shard(0));
    let mut memory =
        Memory::new(site::responder(&routes, site, limits, counters).with_http2(Some(http2)));
    memory.receive_bytes = 1024;
    memory.reply_bytes = 2048;
    memory
}
