//! No event allocates, whether it is counted or refused, and neither does an answer to `/stats`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

use barewire::events::{Events, EventsConfig};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to `System` as it is; counting touches no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn events_do_not_allocate() {
    let escaped = r"\u00e9\n".repeat(80);
    let nested = "[{\"x\":".repeat(30) + "0" + &"}]".repeat(30);
    let long_number = format!("0.{}1e5", "123456789".repeat(100));
    let bodies: Vec<Vec<u8>> = [
        r#"{"userId":"user_1","value":1.5}"#.to_owned(),
        r#"{"value":-1e300,"other":"\"","user\u0049d":"user_1"}"#.to_owned(),
        format!(r#"{{"userId":"{escaped}","value":{long_number}}}"#),
        format!(r#"{{"x":{nested},"userId":"a","value":{long_number},"y":"{escaped}"}}"#),
        // Refused, each for another reason.
        "{".to_owned(),
        "[]".to_owned(),
        "[".repeat(1_000),
        r#"{"userId":"a","value":1}x"#.to_owned(),
        r#"{"userId":"a"}"#.to_owned(),
        r#"{"userId":7,"value":1}"#.to_owned(),
        r#"{"userId":"\ud800","value":1}"#.to_owned(),
        format!(r#"{{"userId":"{escaped}{escaped}{escaped}","value":1}}"#),
        r#"{"userId":"a","value":"1"}"#.to_owned(),
        r#"{"userId":"a","value":1e999}"#.to_owned(),
        r#"{"userId":"new, and there is no place","value":1}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .into_iter()
    .chain([b"\xff".to_vec()])
    .collect();

    let config = EventsConfig {
        users_max: 3,
        reset_allowed: true,
        ..EventsConfig::new(1)
    };
    let events = Events::new(config).expect("events");
    let mut shard = events.shard(0);
    let mut reply = [0u8; 256];

    for round in 0..3 {
        let mut counted = 0;
        let used = allocations(|| {
            for body in &bodies {
                counted += u64::from(shard.record(body).is_ok());
            }
            let mut space = &mut reply[..];
            serde_json::to_writer(&mut space, &shard.stats()).expect("room");
            space.flush().expect("a slice");
        });
        assert_eq!(used, 0, "round {round}");
        assert_eq!(counted, 4);
        assert_eq!(shard.stats().unique_users, 3);
        assert_eq!(allocations(|| shard.reset().expect("allowed")), 0);
    }
    // The counting counts.
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}
