//! What clients and origins get to see of the cache: validation, conditions, methods, failures, what it says of itself.

use crate::world::{World, get, message, ok};

const MINUTE: &str = "Cache-Control: max-age=60";
const ETAG: &str = "ETag: \"a\"";

#[test]
fn a_hit_is_the_response_with_its_age_and_what_the_cache_did() {
    let mut world = World::new("");
    let fields = [
        MINUTE,
        "Content-Type: text/x",
        "Age: 5",
        "Connection: x-hop",
        "X-Hop: 1",
    ];
    let (_, miss) = world.forward(&get("/a", &[]), |_, _| ok(&fields, "body"));
    assert_eq!(
        miss.field("Cache-Status"),
        Some("barewire; fwd=uri-miss; stored; ttl=55")
    );
    assert_eq!(miss.field("Age"), Some("5"));

    world.pass_s(10);
    let hit = world.hit(&get("/a", &[]));
    assert_eq!((hit.status, &*hit.body), (200, "body"));
    assert_eq!(hit.field("Age"), Some("15"));
    assert_eq!(hit.field("Cache-Status"), Some("barewire; hit; ttl=45"));
    assert_eq!(hit.field("Content-Type"), Some("text/x"));
    assert_eq!(hit.field("Date"), Some(&*world.date(-10)));
    assert_eq!(hit.field("X-Hop"), None);
    assert_eq!(hit.head.matches("Age:").count(), 1);
    assert_eq!(
        (
            world.count("hits"),
            world.count("misses"),
            world.count("stored")
        ),
        (1, 1, 1)
    );
}

#[test]
fn a_chunked_response_is_stored_whole() {
    let mut world = World::new("");
    let chunked = format!(
        "HTTP/1.1 200 OK\r\n{MINUTE}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    );
    let (_, miss) = world.forward(&get("/a", &[]), |_, _| chunked.clone());
    assert_eq!(miss.body, "abcde");
    let hit = world.hit(&get("/a", &[]));
    assert_eq!(
        (hit.field("Content-Length"), &*hit.body),
        (Some("5"), "abcde")
    );
}

#[test]
fn head_is_answered_by_what_get_has_stored() {
    let mut world = World::new("");
    world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "body"));
    let head = world.hit("HEAD /a HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert_eq!(
        (head.status, head.field("Content-Length")),
        (200, Some("4"))
    );
    let mut world = World::new("");
    let head = "HEAD /a HTTP/1.1\r\nHost: example.org\r\n\r\n";
    world.forward(head, |_, _| {
        message("HTTP/1.1 200 OK\r\nContent-Length: 4", &[MINUTE], "")
    });
    world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "body"));
}

#[test]
fn a_304_makes_what_is_stored_fresh_again() {
    let mut world = World::new("");
    world.forward(&get("/a", &[]), |_, _| {
        ok(&[MINUTE, ETAG, "X: old", "Content-Type: text/x"], "body")
    });
    world.pass_s(100);
    let (request, response) = world.forward(&get("/a", &[]), |_, _| {
        message(
            "HTTP/1.1 304 Not Modified",
            &["Cache-Control: max-age=30", "X: new", "Content-Type: no"],
            "",
        )
    });
    assert!(
        request.contains("\r\nIf-None-Match: \"a\"\r\n"),
        "{request}"
    );
    assert_eq!((response.status, &*response.body), (200, "body"));
    assert_eq!(response.field("X"), Some("new"));
    assert_eq!(response.field("Content-Type"), Some("text/x"));
    assert_eq!(
        response.field("Cache-Status"),
        Some("barewire; fwd=stale; fwd-status=304; ttl=30")
    );
    world.pass_s(29);
    assert_eq!(world.hit(&get("/a", &[])).field("X"), Some("new"));
    world.pass_s(1);
    world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "other"));
    assert_eq!(world.hit(&get("/a", &[])).body, "other");
    assert_eq!(world.count("revalidated"), 1);
}

#[test]
fn validation_uses_last_modified_where_there_is_no_tag() {
    let mut world = World::new("");
    let date = world.date(-1000);
    let changed = format!("Last-Modified: {date}");
    world.forward(&get("/a", &[]), |_, _| {
        ok(&["Cache-Control: max-age=1", &changed], "body")
    });
    world.pass_s(5);
    let (request, response) =
        world.forward(&get("/a", &[]), |_, _| message("HTTP/1.1 304 X", &[], ""));
    assert!(
        request.contains(&format!("\r\nIf-Modified-Since: {date}\r\n")),
        "{request}"
    );
    assert_eq!(response.body, "body");
}

#[test]
fn a_304_about_another_state_is_an_error_and_forgets_what_was_stored() {
    let mut world = World::new("");
    world.forward(&get("/a", &[]), |_, _| {
        ok(&["Cache-Control: max-age=1", ETAG], "body")
    });
    world.pass_s(5);
    let (_, response) = world.forward(&get("/a", &[]), |_, _| {
        message("HTTP/1.1 304 X", &["ETag: \"b\""], "")
    });
    assert_eq!(response.status, 502);
    let (request, _) = world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "body"));
    assert!(!request.contains("If-None-Match"));
}

#[test]
fn conditions_of_clients_are_weighed_with_what_is_stored() {
    let mut world = World::new("");
    let changed = format!("Last-Modified: {}", world.date(-1000));
    world.forward(&get("/a", &[]), |_, _| {
        ok(
            &[MINUTE, ETAG, &changed, "Content-Type: text/x", "Vary: X"],
            "body",
        )
    });
    let same_date = format!("If-Modified-Since: {}", world.date(-1000));
    let older = format!("If-Modified-Since: {}", world.date(-1001));
    for (fields, status) in [
        (vec!["If-None-Match: \"a\""], 304),
        (vec!["If-None-Match: W/\"a\""], 304),
        (vec!["If-None-Match: \"x\", \"a\""], 304),
        (vec!["If-None-Match: \"x\"", "If-None-Match: \"a\""], 304),
        (vec!["If-None-Match: *"], 304),
        (vec!["If-None-Match: \"x\""], 200),
        (vec!["If-None-Match: \"x\"", &same_date], 200),
        (vec![&same_date], 304),
        (vec![&older], 200),
        (vec!["If-Modified-Since: yesterday"], 200),
    ] {
        let response = world.hit(&get("/a", &fields));
        assert_eq!(response.status, status, "{fields:?}");
        if status == 304 {
            assert_eq!(response.field("Content-Type"), None);
            assert_eq!(response.field("Content-Length"), None);
            assert_eq!(response.field("ETag"), Some("\"a\""));
            assert_eq!(response.field("Vary"), Some("X"));
        }
    }
}

#[test]
fn conditions_of_clients_do_not_keep_a_response_from_being_stored() {
    let mut world = World::new("");
    let (request, response) = world
        .forward(&get("/a", &["If-None-Match: \"a\"", "X: 1"]), |_, _| {
            ok(&[MINUTE, ETAG], "body")
        });
    assert!(
        !request.contains("If-None-Match") && request.contains("\r\nX: 1\r\n"),
        "{request}"
    );
    assert_eq!(response.body, "body");
    assert_eq!(world.hit(&get("/a", &["If-None-Match: \"a\""])).status, 304);

    // Validated for a client that has the state before: it gets the new one.
    world.pass_s(100);
    let (request, response) = world.forward(&get("/a", &["If-None-Match: \"old\""]), |_, _| {
        message("HTTP/1.1 304 X", &[MINUTE], "")
    });
    assert!(
        request.contains("If-None-Match: \"a\"") && !request.contains("old"),
        "{request}"
    );
    assert_eq!((response.status, &*response.body), (200, "body"));
}

#[test]
fn where_responses_are_not_stored_conditions_reach_the_origin() {
    let mut world = World::new("");
    world.forward(&get("/a", &[]), |_, _| {
        ok(&["Cache-Control: no-store", ETAG], "body")
    });
    let (request, response) = world.forward(&get("/a", &["If-None-Match: \"a\""]), |_, _| {
        message("HTTP/1.1 304 X", &[ETAG], "")
    });
    assert!(request.contains("If-None-Match: \"a\""), "{request}");
    assert_eq!(response.status, 304);
}

#[test]
fn each_variant_is_stored_and_each_has_its_own() {
    let mut world = World::new("");
    for language in ["de", "en", "fr"] {
        let accept = format!("Accept-Language: {language}");
        world.forward(&get("/a", &[&accept]), |_, _| {
            ok(&[MINUTE, "Vary: Accept-Language"], language)
        });
    }
    for language in ["fr", "de", "en"] {
        let accept = format!("accept-language: {language}");
        assert_eq!(world.hit(&get("/a", &[&accept])).body, language);
    }
    let (_, other) = world.forward(&get("/a", &[]), |_, _| {
        ok(&[MINUTE, "Vary: Accept-Language"], "x")
    });
    assert_eq!(
        other.field("Cache-Status"),
        Some("barewire; fwd=vary-miss; stored; ttl=60")
    );
}

#[test]
fn host_query_and_path_tell_resources_apart() {
    let mut world = World::new("");
    world.forward(&get("/a?x=1", &[]), |_, _| ok(&[MINUTE], "body"));
    world.hit("GET /a?x=1 HTTP/1.1\r\nHost: EXAMPLE.org\r\n\r\n");
    for request in [
        get("/a", &[]),
        get("/a?x=2", &[]),
        get("/A?x=1", &[]),
        "GET /a?x=1 HTTP/1.1\r\nHost: b\r\n\r\n".into(),
    ] {
        world.forward(&request, |_, _| ok(&["Cache-Control: no-store"], ""));
    }
}

#[test]
fn a_request_that_changes_the_resource_removes_it() {
    let mut world = World::new("");
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "body"));
        let change =
            format!("{method} /a HTTP/1.1\r\nHost: example.org\r\nContent-Length: 0\r\n\r\n");
        world.forward(&change, |_, _| {
            message("HTTP/1.1 500 X\r\nContent-Length: 0", &[], "")
        });
        world.hit(&get("/a", &[]));
        let (_, response) = world.forward(&change, |_, _| message("HTTP/1.1 204 X", &[], ""));
        assert_eq!(response.field("Cache-Status"), Some("barewire; fwd=method"));
    }
    world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "body"));
    world.forward(
        "OPTIONS /a HTTP/1.1\r\nHost: example.org\r\n\r\n",
        |_, _| message("HTTP/1.1 204 X", &[], ""),
    );
    world.hit(&get("/a", &[]));
}

#[test]
fn what_was_asked_for_before_a_change_is_not_stored_after_it() {
    let mut world = World::new("");
    let reader = world.client(&get("/a", &[]));
    let (slow, _) = world.asked_once();
    let change = "DELETE /a HTTP/1.1\r\nHost: example.org\r\n\r\n";
    world.forward(change, |_, _| message("HTTP/1.1 204 X", &[], ""));
    // One that comes behind the change does not wait for what was asked for before it.
    let later = world.client(&get("/a", &[]));
    let (fast, _) = world.asked_once();
    world.say(slow, &ok(&[MINUTE], "old"));
    assert_eq!(world.got(reader, false).unwrap().body, "old");
    world.say(fast, &ok(&[MINUTE], "new"));
    assert_eq!(world.got(later, false).unwrap().body, "new");
    assert_eq!(world.hit(&get("/a", &[])).body, "new");
    assert_eq!(world.count("unstorable_void"), 1);
}

#[test]
fn a_stale_response_is_served_while_it_is_validated_once() {
    let mut world = World::new("");
    let fields = ["Cache-Control: max-age=60, stale-while-revalidate=60", ETAG];
    world.forward(&get("/a", &[]), |_, _| ok(&fields, "old"));
    world.pass_s(90);
    let clients = [(); 3].map(|()| world.client(&get("/a", &[])));
    for client in clients {
        let response = world.got(client, false).unwrap();
        assert_eq!(response.body, "old");
        assert_eq!(
            response.field("Cache-Status"),
            Some("barewire; hit; ttl=-30")
        );
    }
    let (origin, request) = world.asked_once();
    assert!(request.contains("If-None-Match: \"a\""));
    world.say(origin, &ok(&fields, "new"));
    assert_eq!(world.hit(&get("/a", &[])).body, "new");
    assert_eq!(world.count("hits_stale"), 3);
}

#[test]
fn a_stale_response_stands_for_an_error_if_it_may() {
    for (cache_control, asked, after_s, is_served) in [
        ("max-age=60, stale-if-error=90", "X: 1", 80, true),
        ("max-age=60, stale-if-error=90", "X: 1", 151, false),
        ("max-age=60", "Cache-Control: stale-if-error=90", 80, true),
        ("max-age=60", "X: 1", 80, false),
        (
            "max-age=60, must-revalidate, stale-if-error=90",
            "X: 1",
            90,
            false,
        ),
    ] {
        // An error, an end of the connection, garbage, silence.
        for answer in [
            "HTTP/1.1 503 X\r\nContent-Length: 2\r\n\r\nno",
            "",
            "x\r\n\r\n",
            "late",
        ] {
            let mut world = World::new("");
            let cache_control = format!("Cache-Control: {cache_control}");
            world.forward(&get("/a", &[]), |_, _| ok(&[&cache_control], "old"));
            world.pass_s(after_s);
            let client = world.client(&get("/a", &[asked]));
            let (origin, _) = world.asked_once();
            match answer {
                "" => {
                    world.hang_up(origin);
                    if let [(again, _)] = &*world.asked() {
                        world.hang_up(*again);
                    }
                }
                "late" => world.pass_s(31),
                _ => world.say(origin, answer),
            }
            let response = world.got(client, false).unwrap();
            let what = format!("{cache_control}, {asked}, {answer:?}: {response:?}");
            match is_served {
                true => assert_eq!((response.status, &*response.body), (200, "old"), "{what}"),
                false => assert!(response.status >= 500, "{what}"),
            }
        }
    }
}

#[test]
fn a_connection_goes_on_to_be_used_behind_an_error_that_was_not_passed_on() {
    let mut world = World::new("");
    world.forward(&get("/a", &[]), |_, _| {
        ok(&["Cache-Control: max-age=1, stale-if-error=60"], "old")
    });
    world.pass_s(5);
    let (_, response) = world.forward(&get("/a", &[]), |_, _| {
        "HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno".into()
    });
    assert_eq!(
        response.field("Cache-Status"),
        Some("barewire; fwd=stale; fwd-status=500; ttl=-4")
    );
    world.forward(&get("/b", &[]), |_, _| ok(&[], "b"));
    assert_eq!(world.of_origins[0].opened.get(), 1);
}

#[test]
fn ranges_and_conditions_for_the_origin_are_forwarded_as_they_are() {
    let mut world = World::new("");
    world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE, ETAG], "body"));
    world.pass_s(61);
    let (request, response) = world.forward(
        &get("/a", &["Range: bytes=0-1", "If-None-Match: \"b\""]),
        |_, _| {
            message(
                "HTTP/1.1 206 X\r\nContent-Length: 2",
                &["Content-Range: bytes 0-1/4", MINUTE],
                "bo",
            )
        },
    );
    assert!(request.contains("Range: bytes=0-1") && request.contains("If-None-Match: \"b\""));
    assert_eq!((response.status, &*response.body), (206, "bo"));
}

#[test]
fn a_route_without_a_cache_has_none() {
    let mut world = World::with_routes(
        "[cache]\n[pool.app]\norigins = [\"10.0.0.1:80\"]\n[[route]]\npool = \"app\"\ncache = false\n\
         [[route]]\nprefix = \"/c\"\npool = \"app\"",
    );
    for _ in 0..2 {
        let (_, response) = world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "x"));
        assert_eq!(response.field("Cache-Status"), None);
    }
    world.forward(&get("/c", &[]), |_, _| ok(&[MINUTE], "x"));
    world.hit(&get("/c", &[]));
}

#[test]
fn what_a_trusted_proxy_says_tells_resources_apart() {
    let mut world = World::with_routes(
        "[pool.app]\norigins = [\"10.0.0.1:80\"]\n[[route]]\npool = \"app\"\ncache = true\ntrust_forwarded = true",
    );
    let asks = |proto: &str| get("/a", &[&format!("X-Forwarded-Proto: {proto}")]);
    world.forward(&asks("http"), |_, _| {
        message(
            "HTTP/1.1 301 X\r\nContent-Length: 0",
            &[MINUTE, "Location: https://example.org/a"],
            "",
        )
    });
    world.forward(&asks("https"), |_, _| ok(&[MINUTE], "secure"));
    assert_eq!(world.hit(&asks("http")).status, 301);
    assert_eq!(world.hit(&asks("https")).body, "secure");
}
