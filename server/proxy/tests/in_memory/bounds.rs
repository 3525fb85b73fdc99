//! What the cache takes at most.

use crate::world::{World, get, ok};

const HOUR: &str = "Cache-Control: max-age=3600";

#[test]
fn the_bounds_hold_under_a_scan_and_what_is_used_stays() {
    let mut world = World::new("bytes_max = 1048576\nentries_max = 128\nobject_bytes_max = 65536");
    let popular: Vec<_> = (0..20)
        .map(|at| get(&format!("/popular/{at}"), &[]))
        .collect();
    for request in popular.iter().chain(&popular) {
        let client = world.client(request);
        if let Some((origin, _)) = world.asked().pop() {
            world.say(origin, &ok(&[HOUR], &"p".repeat(1000)));
        }
        assert!(world.got(client, false).is_some());
    }
    let mut state = 7u64;
    for at in 0..5_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let len = (state >> 33) as usize % 40_000;
        world.forward(&get(&format!("/scan/{at}"), &[]), |_, _| {
            ok(&[HOUR], &"s".repeat(len))
        });
        let (bytes, entries) = (world.count("bytes"), world.count("entries"));
        assert!(
            bytes <= 1_048_576 && entries <= 128,
            "{bytes} bytes, {entries} entries"
        );
        if at % 10 == 0 {
            world.client(&popular[at / 10 % 20]);
            for (origin, _) in world.asked() {
                world.say(origin, &ok(&[HOUR], &"p".repeat(1000)));
            }
        }
    }
    let before = world.count("hits");
    for request in &popular {
        world.client(request);
        for (origin, _) in world.asked() {
            world.say(origin, &ok(&[HOUR], "p"));
        }
    }
    assert!(
        world.count("hits") - before >= 15,
        "the scan has removed what was used"
    );
    assert!(world.count("evicted") > 4_000);
}

#[test]
fn small_responses_are_bounded_in_number() {
    let mut world = World::new("bytes_max = 1048576\nentries_max = 16\nobject_bytes_max = 65536");
    for at in 0..100 {
        world.forward(&get(&format!("/{at}"), &[]), |_, _| ok(&[HOUR], "x"));
        assert!(world.count("entries") <= 16);
    }
    // Those of one resource, too.
    for at in 0..100 {
        let accept = format!("Accept: {at}");
        world.forward(&get("/v", &[&accept]), |_, _| {
            ok(&[HOUR, "Vary: Accept"], "x")
        });
        assert!(world.count("bytes") <= 1_048_576);
    }
}

#[test]
fn variants_of_a_resource_are_bounded_and_the_oldest_goes_first() {
    let mut world = World::new("variants_max = 3");
    let asks = |at: usize| get("/", &[&format!("Accept: {at}")]);
    for at in 0..5 {
        world.forward(&asks(at), |_, _| {
            ok(&[HOUR, "Vary: Accept"], &at.to_string())
        });
    }
    for at in 2..5 {
        assert_eq!(world.hit(&asks(at)).body, at.to_string());
    }
    world.forward(&asks(1), |_, _| ok(&[HOUR], "x"));
}

#[test]
fn a_response_that_is_evicted_while_it_is_sent_is_sent_whole() {
    let mut world = World::new("bytes_max = 262144\nentries_max = 4\nobject_bytes_max = 131072");
    let body = "b".repeat(100_000);
    world.forward(&get("/a", &[]), |_, _| ok(&[HOUR], &body));
    let client = world.client(&get("/a", &[]));
    for at in 0..20 {
        world.forward(&get(&format!("/{at}"), &[]), |_, _| ok(&[HOUR], "x"));
    }
    assert_eq!(world.got(client, false).unwrap().body, body);
}

#[test]
fn a_purge_removes_what_it_names_and_what_is_on_its_way() {
    let mut world = World::new("");
    for path in ["/a", "/a?b", "/b/1", "/b/2", "/c"] {
        world.forward(&get(path, &[]), |_, _| ok(&[HOUR], "x"));
    }
    assert_eq!(world.purge("example.org/a"), 1);
    assert_eq!(world.purge("example.org/b/*"), 2);
    assert_eq!(world.purge("other.org/*"), 0);
    world.hit(&get("/a?b", &[]));
    world.hit(&get("/c", &[]));

    let client = world.client(&get("/a", &[]));
    let (origin, _) = world.asked_once();
    assert_eq!(world.purge("*"), 2);
    world.say(origin, &ok(&[HOUR], "old"));
    assert_eq!(world.got(client, false).unwrap().body, "old");
    world.forward(&get("/a", &[]), |_, _| ok(&[HOUR], "new"));
    assert_eq!(world.count("purged"), 5);
}
