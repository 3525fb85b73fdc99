//! Another table of routes, while requests are in progress.

use crate::world::{World, get, ok};

fn routes(pools: &[(&str, &str)], routes: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, origins) in pools {
        let origins: Vec<_> = origins
            .split(' ')
            .map(|ip| format!("\"{ip}:80\""))
            .collect();
        text += &format!(
            "[pool.{name}]\norigins = [{}]\nconnections_max = 5000\n",
            origins.join(", ")
        );
    }
    for (prefix, pool) in routes {
        text += &format!("[[route]]\nprefix = \"{prefix}\"\npool = \"{pool}\"\n");
    }
    text
}

#[test]
fn a_call_in_progress_goes_on_and_the_next_one_goes_elsewhere() {
    let mut world = World::with_routes(&routes(&[("app", "10.0.0.1")], &[("/", "app")]));
    let client = world.client(&get("/a", &[]));
    let (origin, _) = world.asked_once();
    world.say(origin, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo");

    world
        .reload(&routes(&[("app", "10.0.0.2")], &[("/", "app")]))
        .unwrap();
    let next = world.client(&get("/b", &[]));
    let (new, _) = world.asked_once();
    assert_eq!(world.address(new), "10.0.0.2:80");
    world.say(origin, "dy");
    assert_eq!(world.got(client, false).unwrap().body, "body");
    assert!(!world.is_open(origin), "nobody needs it any more");
    world.say(new, &ok(&[], "new"));
    assert_eq!(world.got(next, false).unwrap().body, "new");
}

#[test]
fn connections_to_an_origin_that_stays_are_kept_and_others_end() {
    let two = routes(
        &[("app", "10.0.0.1"), ("old", "10.0.0.9")],
        &[("/", "app"), ("/old", "old")],
    );
    let mut world = World::with_routes(&two);
    let mut open = Vec::new();
    for path in ["/a", "/old"] {
        world.client(&get(path, &[]));
        let (origin, _) = world.asked_once();
        world.say(origin, &ok(&[], ""));
        open.push(origin);
    }
    // It has other numbers now, and neighbours.
    let one = routes(
        &[("aaa", "10.0.0.7 10.0.0.8"), ("app", "10.0.0.6 10.0.0.1")],
        &[("/", "app"), ("/x", "aaa")],
    );
    world.reload(&one).unwrap();
    assert_eq!(
        [world.is_open(open[0]), world.is_open(open[1])],
        [true, false]
    );
    world
        .reload(&routes(&[("app", "10.0.0.1")], &[("/", "app")]))
        .unwrap();
    world.forward(&get("/a", &[]), |_, _| ok(&[], ""));
    assert_eq!(world.of_origins[0].opened.get(), 1);
    assert_eq!(world.of_origins[0].requests.get(), 2);
}

#[test]
fn a_call_whose_pool_is_gone_is_not_repeated() {
    let mut world = World::with_routes(&routes(&[("app", "10.0.0.1 10.0.0.2")], &[("/", "app")]));
    let client = world.client(&get("/a", &[]));
    let (origin, _) = world.asked_once();
    world
        .reload(&routes(&[("other", "10.0.0.3")], &[("/", "other")]))
        .unwrap();
    world.hang_up(origin);
    assert_eq!(world.got(client, false).unwrap().status, 503);
    world.forward(&get("/a", &[]), |_, _| ok(&[], ""));
}

#[test]
fn limits_cannot_change() {
    let text = routes(&[("app", "10.0.0.1")], &[("/", "app")]);
    let mut world = World::with_routes(&text);
    let error = world
        .reload(&format!("[limits]\ncalls_max = 7\n{text}"))
        .unwrap_err();
    assert!(error.to_string().contains("restart"), "{error}");
}

#[test]
fn what_is_stored_stays_unless_the_path_leads_elsewhere_or_the_cache_has_other_limits() {
    let hour = ["Cache-Control: max-age=3600"];
    let to = |pool: &str, bytes_max: u64| {
        let pools = [("a", "10.0.0.1"), ("b", "10.0.0.2")];
        format!(
            "[cache]\nbytes_max = {bytes_max}\n{}",
            routes(&pools, &[("/", pool)])
        )
    };
    let mut world = World::with_routes(&to("a", 4_000_000));
    world.forward(&get("/", &[]), |_, _| ok(&hour, "a"));
    world.reload(&to("b", 4_000_000)).unwrap();
    world.forward(&get("/", &[]), |_, _| ok(&hour, "b"));
    world.reload(&to("a", 4_000_000)).unwrap();
    assert_eq!(world.hit(&get("/", &[])).body, "a");
    // One that is being fetched is stored in the new one.
    let client = world.client(&get("/x", &[]));
    let (origin, _) = world.asked_once();
    world.reload(&to("a", 5_000_000)).unwrap();
    world.say(origin, &ok(&hour, "x"));
    assert_eq!(world.got(client, false).unwrap().body, "x");
    world.hit(&get("/x", &[]));
    world.forward(&get("/", &[]), |_, _| ok(&hour, "a"));
    let without = to("a", 5_000_000).replace("[cache]\nbytes_max = 5000000\n", "");
    let client = world.client(&get("/y", &[]));
    let (origin, _) = world.asked_once();
    world.reload(&without).unwrap();
    world.say(origin, &ok(&hour, "y"));
    assert_eq!(world.got(client, false).unwrap().body, "y");
    world.forward(&get("/", &[]), |_, _| ok(&hour, "a"));
}

/// Requests, responses, ends and tables in any order: each client gets its own answer, or an error.
#[test]
fn whatever_happens_in_between_every_request_is_answered() {
    for seed in 1..60u64 {
        let mut state = seed;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % below
        };
        let table = |random: &mut dyn FnMut(usize) -> usize| {
            let mut pools = Vec::new();
            for name in ["a", "b", "c", "d"] {
                let origins: Vec<_> = (0..=random(3))
                    .map(|at| format!("10.0.0.{}", at + random(2) + 1))
                    .collect();
                let mut origins = origins;
                origins.dedup();
                pools.push((name, origins.join(" ")));
            }
            let kept: Vec<_> = pools
                .iter()
                .enumerate()
                .filter(|(at, _)| *at == 0 || random(2) == 0)
                .collect();
            let pools: Vec<_> = kept
                .iter()
                .map(|(_, (name, origins))| (*name, &**origins))
                .collect();
            let leads: Vec<_> = ["/", "/1", "/2"]
                .iter()
                .map(|prefix| (*prefix, pools[random(pools.len())].0))
                .collect();
            let cache = ["", "[cache]\n", "[cache]\nbytes_max = 4000000\n"][random(3)];
            format!("{cache}{}", routes(&pools, &leads))
        };
        let mut world = World::with_routes(&table(&mut random));
        let (mut clients, mut waiting) = (Vec::new(), Vec::new());
        for step in 0..300 {
            match random(10) {
                0..4 => {
                    let path = format!("/{}/{}", random(3), random(5));
                    let method = ["GET", "GET", "GET", "POST", "HEAD"][random(5)];
                    let request =
                        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
                    let request = match method {
                        "POST" => request,
                        _ => request.replace("Content-Length: 0\r\n", ""),
                    };
                    clients.push((world.client(&request), path, method == "HEAD"));
                }
                4..8 if !waiting.is_empty() => {
                    let (origin, request): (u32, String) =
                        waiting.swap_remove(random(waiting.len()));
                    let path = request.split(' ').nth(1).unwrap();
                    let fields = [
                        "Cache-Control: max-age=2, stale-while-revalidate=2, stale-if-error=9",
                        "Cache-Control: private",
                        "Cache-Control: no-cache\r\nETag: \"a\"",
                    ][random(3)];
                    let answer = match random(8) {
                        0 => "HTTP/1.1 500 X\r\nContent-Length: 1\r\n\r\nx".to_owned(),
                        _ if request.starts_with("HEAD") => {
                            ok(&[fields], path).replace(&format!("\r\n\r\n{path}"), "\r\n\r\n")
                        }
                        _ => ok(&[fields], path),
                    };
                    match random(8) {
                        0 => world.hang_up(origin),
                        _ => world.say(origin, &answer),
                    }
                }
                8 => world.pass_s(1),
                9 => world.reload(&table(&mut random)).unwrap(),
                _ => {}
            }
            if step % 17 == 0 && !clients.is_empty() {
                let (client, ..) = clients.swap_remove(random(clients.len()));
                world.hang_up_if_open(client);
            }
            waiting.extend(world.asked());
            waiting.retain(|(origin, _)| world.is_open(*origin));
        }
        // Whatever was not answered is late.
        for _ in 0..40 {
            world.pass_s(2);
            world.asked();
        }
        for (client, path, is_head) in clients {
            let Some(response) = world.got(client, is_head) else {
                assert!(
                    !world.is_open(client),
                    "seed {seed}: {path} was not answered"
                );
                continue;
            };
            if response.status == 200 && !is_head {
                assert_eq!(response.body, path, "seed {seed}");
            }
        }
        let in_progress: u64 = world
            .of_origins
            .iter()
            .map(|origin| origin.outstanding.get())
            .sum();
        assert_eq!(in_progress, 0, "seed {seed}");
    }
}
