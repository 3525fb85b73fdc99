//! Parts of what is stored (RFC 9110, section 14).

use crate::world::{Response, World, get, message, ok};

const ETAG: &str = "ETag: \"a\"";
const MINUTE: &str = "Cache-Control: max-age=60";

/// Ten digits are stored, of a type, with a tag, and changed so many seconds ago.
fn stored(changed_s: i64) -> World {
    let mut world = World::new("");
    world.forward(&get("/a", &[]), |world, _| {
        let date = format!("Date: {}", world.date(0));
        let changed = format!("Last-Modified: {}", world.date(-changed_s));
        let fields = [MINUTE, ETAG, "Content-Type: text/plain", &date, &changed];
        ok(&fields, "0123456789")
    });
    world
}

fn content_range(response: &Response) -> Option<&str> {
    response.field("Content-Range")
}

#[test]
fn a_part_is_answered_from_what_is_stored() {
    let mut world = stored(60);
    for (range, part, body) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-1", "bytes 9-9/10", "9"),
        ("bytes=5-99", "bytes 5-9/10", "56789"),
        ("bytes=1-2,3-4", "bytes 1-4/10", "1234"),
    ] {
        let response = world.hit(&get("/a", &[&format!("Range: {range}")]));
        assert_eq!((response.status, &*response.body), (206, body), "{range}");
        assert_eq!(content_range(&response), Some(part));
        // Section 15.3.7.
        for name in ["Date", "ETag", "Cache-Control", "Content-Type", "Age"] {
            assert!(response.field(name).is_some(), "{name}");
        }
        assert!(response.field("Cache-Status").unwrap().contains("hit"));
    }
    assert_eq!(world.count("hits"), 5);
    assert_eq!(world.hit(&get("/a", &[])).body, "0123456789");
}

#[test]
fn what_is_not_there_is_not_satisfiable_and_what_is_malformed_is_ignored() {
    let mut world = stored(60);
    let response = world.hit(&get("/a", &["Range: bytes=10-"]));
    assert_eq!((response.status, &*response.body), (416, ""));
    assert_eq!(content_range(&response), Some("bytes */10"));
    assert_eq!(response.field("Content-Type"), None);
    for range in ["lines=1-2", "bytes=4-2"] {
        let response = world.hit(&get("/a", &[&format!("Range: {range}")]));
        assert_eq!((response.status, &*response.body), (200, "0123456789"));
    }
}

#[test]
fn a_part_is_of_the_state_that_the_client_has_or_it_gets_the_whole() {
    for (changed_s, validator, status) in [
        (60, "\"a\"".to_owned(), 206),
        (60, "\"b\"".to_owned(), 200),
        (60, "W/\"a\"".to_owned(), 200),
        (60, "DATE".to_owned(), 206),
        (60, "EARLIER".to_owned(), 200),
        // It may have been changed again within this second (section 8.8.2.2).
        (0, "DATE".to_owned(), 200),
    ] {
        let mut world = stored(changed_s);
        let date = world.date(-changed_s);
        let earlier = world.date(-changed_s - 1);
        let validator = validator
            .replace("DATE", &date)
            .replace("EARLIER", &earlier);
        let if_range = format!("If-Range: {validator}");
        let response = world.hit(&get("/a", &["Range: bytes=0-1", &if_range]));
        assert_eq!(response.status, status, "{if_range}, {changed_s}");
    }
}

#[test]
fn other_conditions_go_before_it() {
    let mut world = stored(60);
    let known = get("/a", &["Range: bytes=0-1", "If-None-Match: \"a\""]);
    let response = world.hit(&known);
    assert_eq!((response.status, content_range(&response)), (304, None));
    let unknown = get("/a", &["Range: bytes=0-1", "If-None-Match: \"b\""]);
    assert_eq!(world.hit(&unknown).status, 206);
}

#[test]
fn of_what_is_stale_or_no_success_the_origin_answers_the_part() {
    let mut world = stored(60);
    world.pass_s(61);
    let part = message(
        "HTTP/1.1 206 X\r\nContent-Length: 2",
        &["Content-Range: bytes 0-1/10", MINUTE],
        "01",
    );
    let (_, response) = world.forward(&get("/a", &["Range: bytes=0-1"]), |_, _| part.clone());
    assert_eq!((response.status, &*response.body), (206, "01"));

    world.forward(&get("/gone", &[]), |_, _| {
        message("HTTP/1.1 404 X\r\nContent-Length: 4", &[MINUTE], "gone")
    });
    let response = world.hit(&get("/gone", &["Range: bytes=0-1"]));
    assert_eq!((response.status, &*response.body), (404, "gone"));
}
