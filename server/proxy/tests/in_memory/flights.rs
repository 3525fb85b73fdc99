//! Many requests for the same thing at once.

use crate::world::{World, get, message, ok};

const MINUTE: &str = "Cache-Control: max-age=60";

#[test]
fn a_thousand_simultaneous_misses_make_one_call() {
    let mut world = World::new("");
    let clients: Vec<_> = (0..1000).map(|_| world.client(&get("/a", &[]))).collect();
    let (origin, _) = world.asked_once();
    world.say(
        origin,
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nbo",
    );
    assert_eq!(world.asked(), []);
    world.say(origin, "dy");
    for (at, client) in clients.into_iter().enumerate() {
        let response = world.got(client, false).unwrap();
        assert_eq!((response.status, &*response.body), (200, "body"));
        let status = response.field("Cache-Status").unwrap();
        match at {
            0 => assert_eq!(status, "barewire; fwd=uri-miss; stored; ttl=60"),
            _ => assert_eq!(status, "barewire; fwd=uri-miss; collapsed; ttl=60"),
        }
    }
    assert_eq!(
        (
            world.count("misses"),
            world.count("collapsed"),
            world.count("stored")
        ),
        (1000, 999, 1)
    );
}

#[test]
fn a_response_that_is_not_for_others_sends_each_request_out_at_once() {
    for cache_control in ["private", "no-store", "max-age=0", "no-cache"] {
        let mut world = World::new("");
        let clients: Vec<_> = (0..50)
            .map(|at| world.client(&get("/a", &[&format!("X: {at}")])))
            .collect();
        let (origin, request) = world.asked_once();
        assert!(request.contains("X: 0\r\n"));
        // The head of the first one is enough: its content is still on its way.
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: {cache_control}\r\nContent-Length: 2\r\n\r\n"
        );
        world.say(origin, &head);
        let asked = world.asked();
        assert_eq!(asked.len(), 49, "{cache_control}");
        for (origin, request) in asked.into_iter().rev() {
            let x = request
                .split_once("X: ")
                .unwrap()
                .1
                .split_once('\r')
                .unwrap()
                .0;
            world.say(origin, &format!("{head}{x:0>2}"));
        }
        world.say(origin, "00");
        for (at, client) in clients.into_iter().enumerate() {
            let response = world.got(client, false).unwrap();
            assert_eq!(response.body, format!("{at:0>2}"), "{cache_control}");
        }
        // From here on they do not even wait for a head.
        for _ in 0..5 {
            world.client(&get("/a", &[]));
        }
        assert_eq!(world.asked().len(), 5, "{cache_control}");
    }
}

#[test]
fn what_can_be_stored_but_not_shared_is_validated_for_each() {
    let mut world = World::new("");
    let fields = ["Cache-Control: no-cache", "ETag: \"a\""];
    let clients: Vec<_> = (0..3).map(|_| world.client(&get("/a", &[]))).collect();
    let (origin, _) = world.asked_once();
    world.say(origin, &ok(&fields, "body"));
    let asked = world.asked();
    assert_eq!(asked.len(), 2);
    for (origin, request) in asked {
        assert!(request.contains("If-None-Match: \"a\""));
        world.say(origin, &message("HTTP/1.1 304 X", &fields, ""));
    }
    for client in clients {
        assert_eq!(world.got(client, false).unwrap().body, "body");
    }
}

#[test]
fn requests_for_other_variants_are_not_mixed_up() {
    let mut world = World::new("");
    let asks = |language: &str| get("/a", &[&format!("Accept-Language: {language}")]);
    let answers = |world: &mut World| {
        let asked = world.asked();
        let count = asked.len();
        for (origin, request) in asked {
            let language = request
                .split_once("Accept-Language: ")
                .unwrap()
                .1
                .get(..2)
                .unwrap();
            world.say(
                origin,
                &ok(
                    &["Cache-Control: max-age=1", "Vary: Accept-Language"],
                    language,
                ),
            );
        }
        count
    };
    let clients: Vec<_> = (0..30)
        .map(|at| (at, world.client(&asks(["de", "en", "fr"][at % 3]))))
        .collect();
    // It is not known yet that there are variants: one call, then one for each of the others.
    assert_eq!(
        [
            answers(&mut world),
            answers(&mut world),
            answers(&mut world)
        ],
        [1, 2, 0]
    );
    for (at, client) in clients {
        assert_eq!(
            world.got(client, false).unwrap().body,
            ["de", "en", "fr"][at % 3]
        );
    }
    world.pass_s(5);
    let clients: Vec<_> = (0..30)
        .map(|at| (at, world.client(&asks(["de", "en", "fr"][at % 3]))))
        .collect();
    assert_eq!([answers(&mut world), answers(&mut world)], [3, 0]);
    for (at, client) in clients {
        assert_eq!(
            world.got(client, false).unwrap().body,
            ["de", "en", "fr"][at % 3]
        );
    }
}

#[test]
fn those_that_wait_fail_with_the_one_that_asked() {
    let mut world = World::new("");
    let clients: Vec<_> = (0..100).map(|_| world.client(&get("/a", &[]))).collect();
    let (origin, _) = world.asked_once();
    world.say(origin, "garbage\r\n\r\n");
    assert_eq!(world.asked(), []);
    for client in clients {
        assert_eq!(world.got(client, false).unwrap().status, 502);
    }
    world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "body"));
}

#[test]
fn those_that_wait_get_what_is_stale_if_the_origin_fails() {
    let mut world = World::new("");
    world.forward(&get("/a", &[]), |_, _| {
        ok(&["Cache-Control: max-age=1, stale-if-error=60"], "old")
    });
    world.pass_s(5);
    let clients: Vec<_> = (0..100).map(|_| world.client(&get("/a", &[]))).collect();
    let (origin, _) = world.asked_once();
    world.say(origin, "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n");
    for client in clients {
        assert_eq!(world.got(client, false).unwrap().body, "old");
    }
    assert_eq!(world.count("hits_on_error"), 100);
}

#[test]
fn a_client_that_goes_away_or_does_not_read_holds_back_nobody() {
    let mut world = World::new("bytes_max = 16000000\nobject_bytes_max = 1000000");
    let clients: Vec<_> = (0..10).map(|_| world.client(&get("/a", &[]))).collect();
    let (origin, _) = world.asked_once();
    let body = "0123456789".repeat(50_000);
    world.say(
        origin,
        &format!(
            "HTTP/1.1 200 OK\r\n{MINUTE}\r\nContent-Length: {}\r\n\r\n{}",
            body.len(),
            &body[..100]
        ),
    );
    world.hang_up(clients[0]);
    world.hang_up(clients[3]);
    for part in body.as_bytes()[100..].chunks(16 * 1024) {
        world.say(origin, std::str::from_utf8(part).unwrap());
    }
    for at in [1, 2, 4, 9] {
        assert_eq!(world.got(clients[at], false).unwrap().body, body);
    }
    assert_eq!(world.hit(&get("/a", &[])).body, body);
    // Its call is over, too: nothing is left of it.
    world.pass_s(100);
    world.forward(&get("/a", &[]), |_, _| ok(&[MINUTE], "body"));
}

#[test]
fn a_call_without_client_and_without_use_is_ended() {
    let mut world = World::new("");
    let [first, second] = [(); 2].map(|()| world.client(&get("/a", &[])));
    world.hang_up(first);
    let (origin, _) = world.asked_once();
    world.say(
        origin,
        "HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 1000000\r\n\r\nx",
    );
    assert_eq!(world.asked().len(), 1);
    world.hang_up(second);
    assert_eq!(world.of_origins[0].outstanding.get(), 0);
}

#[test]
fn one_that_waits_does_so_no_longer_than_for_an_origin() {
    let mut world = World::new("");
    let first = world.client(&get("/a", &[]));
    let (origin, _) = world.asked_once();
    // The head comes in time, the rest does not.
    world.say(
        origin,
        &format!("HTTP/1.1 200 OK\r\n{MINUTE}\r\nContent-Length: 2\r\n\r\nx"),
    );
    let second = world.client(&get("/a", &[]));
    world.pass_s(33);
    assert_eq!(world.got(second, false).unwrap().status, 504);
    world.say(origin, "y");
    assert_eq!(world.got(first, false).unwrap().body, "xy");
}

#[test]
fn a_response_that_turns_out_too_long_is_not_shared() {
    let mut world = World::new("object_bytes_max = 1000");
    let clients = [(); 2].map(|()| world.client(&get("/a", &[])));
    let (origin, _) = world.asked_once();
    let chunk = format!("190\r\n{}\r\n", "x".repeat(400));
    let head = format!("HTTP/1.1 200 OK\r\n{MINUTE}\r\nTransfer-Encoding: chunked\r\n\r\n");
    world.say(origin, &format!("{head}{chunk}"));
    assert_eq!(world.asked(), []);
    world.say(origin, &chunk.repeat(2));
    let (other, _) = world.asked_once();
    world.say(other, &format!("{head}{}0\r\n\r\n", chunk.repeat(3)));
    world.say(origin, "0\r\n\r\n");
    for client in clients {
        assert_eq!(world.got(client, false).unwrap().body.len(), 1200);
    }
    assert_eq!(
        (world.count("stored"), world.count("unstorable_too_large")),
        (0, 2)
    );
}

#[test]
fn a_response_that_breaks_off_is_not_stored() {
    let mut world = World::new("");
    let clients = [(); 2].map(|()| world.client(&get("/a", &[])));
    let (origin, _) = world.asked_once();
    world.say(
        origin,
        &format!("HTTP/1.1 200 OK\r\n{MINUTE}\r\nContent-Length: 2\r\n\r\nx"),
    );
    world.hang_up(origin);
    assert_eq!(world.got(clients[1], false).unwrap().status, 502);
    assert_eq!(world.got(clients[0], false), None);
    assert_eq!(world.count("stored"), 0);
}
