//! No event allocates, whether it is counted or refused, and neither does an answer to `/stats`.
//!
//! Only what is not JSON, or nested too deeply, costs small allocations, which are freed at once.

use std::io::Write;

use allocation_counter::measure;
use barewire::events::parse::DEPTH_MAX;
use barewire::events::{EventShard, Events, EventsConfig};

/// Allocations while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

/// A shard that has room for three users.
fn shard() -> EventShard {
    let config = EventsConfig {
        users_max: 3,
        reset_allowed: true,
        ..EventsConfig::new(1)
    };
    Events::new(config).expect("events").shard(0)
}

#[test]
fn events_do_not_allocate() {
    let escaped = r"\u00e9\n".repeat(80);
    let nested = "[{\"x\":".repeat(30) + "0" + &"}]".repeat(30);
    let long_number = format!("0.{}1e5", "123456789".repeat(100));
    let counted = [
        r#"{"userId":"user_1","value":1.5}"#.to_owned(),
        r#"{"value":-1e300,"other":"\"","user\u0049d":"user_1"}"#.to_owned(),
        format!(r#"{{"userId":"{escaped}","value":{long_number}}}"#),
        format!(r#"{{"x":{nested},"userId":"a","value":{long_number},"y":"{escaped}"}}"#),
        format!(r#"{{"{escaped}":[{nested},"{escaped}"],"userId":"a","value":1}}"#),
    ];
    // Each for another reason.
    let refused = [
        "[]".to_owned(),
        format!("[{nested}, {long_number}]"),
        r#"{"userId":"a"}"#.to_owned(),
        r#"{"userId":7,"value":1}"#.to_owned(),
        format!(r#"{{"userId":{nested},"value":{nested}}}"#),
        format!(r#"{{"userId":"a","value":1,"value":{nested},"userId":"{escaped}"}}"#),
        r#"{"userId":"\ud800","value":1}"#.to_owned(),
        format!(r#"{{"userId":"{escaped}{escaped}{escaped}","value":1}}"#),
        r#"{"userId":"a","value":"1"}"#.to_owned(),
        r#"{"userId":"a","value":1e999}"#.to_owned(),
        r#"{"userId":"new, and there is no place","value":1}"#.to_owned(),
    ];
    let refused: Vec<Vec<u8>> = refused
        .map(String::into_bytes)
        .into_iter()
        .chain([b"\xff".to_vec()])
        .collect();

    let mut shard = shard();
    let mut reply = [0u8; 256];
    for round in 0..3 {
        let used = allocations(|| {
            for body in &counted {
                shard.record(body.as_bytes()).expect("an event");
            }
            for body in &refused {
                shard.record(body).expect_err("not an event");
            }
            let mut space = &mut reply[..];
            serde_json::to_writer(&mut space, &shard.stats()).expect("room");
            space.flush().expect("a slice");
        });
        assert_eq!(used, 0, "round {round}");
        assert_eq!(shard.stats().total_requests, counted.len() as u64);
        assert_eq!(shard.stats().unique_users, 3);
        assert_eq!(allocations(|| shard.reset().expect("allowed")), 0);
    }
    // The counting counts.
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

/// serde_json has its errors on the heap: two at most for the fault, and one for each open container.
#[test]
fn what_is_not_json_allocates_little_and_keeps_nothing() {
    let mut shard = shard();
    for (body, open) in [
        ("", 0),
        ("{", 1),
        ("nul", 0),
        (r#"{"userId":"a","value":1}x"#, 0),
        (r#"{"userId":"a","value":01}"#, 1),
        (r#"{"userId":"\x","value":1}"#, 1),
        (r#"{"x":[[[1}"#, 4),
        (&"[".repeat(100_000), DEPTH_MAX.into()),
        (&r#"{"x":"#.repeat(100_000), DEPTH_MAX.into()),
    ] {
        let beginning = &body[..body.len().min(20)];
        let used = measure(|| {
            shard.record(body.as_bytes()).expect_err("not JSON");
        });
        assert!(used.count_total <= 2 + open, "{beginning}: {used:?}");
        assert_eq!(used.bytes_current, 0, "{beginning}");
        assert!(used.bytes_max <= 128, "{beginning}: {used:?}");
    }
}
