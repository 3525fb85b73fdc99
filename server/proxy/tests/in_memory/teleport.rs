//! Teleport connections, when calls follow one another and when nothing arrives.

use std::sync::Arc;

use barewire_teleport::{Endpoint, Event, Limits, Side};

use crate::world::{World, get, ok};

const ROUTES: &str = r#"
    [pool.app]
    origins = ["10.0.0.1:9100"]
    protocol = "teleport"
    teleport_connections = 1
    ping_interval_ms = 10000
    eject_failures = 1

    [[route]]
    pool = "app"
"#;

/// The origin's end of its only connection, which answers each request with this response.
struct Origin {
    at: u32,
    end: Endpoint,
    response: String,
}

impl Origin {
    /// One that has said hello, and takes so many calls at once. A client has asked before.
    fn accept(world: &mut World, calls_max: u16, response: String) -> Self {
        let (at, hello) = world.written().remove(0);
        let limits = Limits {
            calls_max,
            ..Limits::default()
        };
        let mut origin = Origin {
            at,
            end: Endpoint::new(Side::Server, limits, Arc::default()),
            response,
        };
        origin.hears(world, &hello);
        origin
    }

    /// One that has answered a request, so that its connection is idle.
    fn idle(world: &mut World) -> Self {
        let client = world.client(&get("/", &[]));
        let mut origin = Origin::accept(world, 256, ok(&[], ""));
        origin.answer(world);
        assert_eq!(world.got(client, false).unwrap().status, 200);
        world.written();
        origin
    }

    /// Takes what was written to it, and answers the requests in that.
    fn answer(&mut self, world: &mut World) {
        let (_, bytes) = world.written().remove(0);
        self.hears(world, &bytes);
    }

    fn hears(&mut self, world: &mut World, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.end.receive(bytes).unwrap();
            bytes = &bytes[taken..];
            let mut asked = Vec::new();
            while let Some(event) = self.end.next_event().unwrap() {
                if let Event::Data { call, .. } = event {
                    asked.push(call);
                }
            }
            for call in asked {
                let response = self.response.as_bytes();
                let sent = self.end.send(call, response, false, true);
                assert_eq!(sent, Some(response.len()));
            }
        }
        let mut space = vec![0; 1 << 16];
        let count = self.end.write(&mut space).unwrap();
        if count > 0 {
            world.say_bytes(self.at, &space[..count]);
        }
    }
}

#[test]
fn a_call_begins_where_another_one_has_arrived_and_is_not_taken() {
    const BUFFER_BYTES: usize = 4096;
    // As long as its credit, and longer when its fields are written as they should be.
    let body = "x".repeat(3700);
    let fields = vec!["a:b"; 70];
    let response = ok(&fields, &body);
    assert!(response.len() <= BUFFER_BYTES && response.len() + fields.len() > BUFFER_BYTES + 40);
    let mut world = World::with_routes(&format!(
        "[limits]\nresponse_buffer_bytes = {BUFFER_BYTES}\n{ROUTES}"
    ));
    let clients = [world.client(&get("/a", &[])), world.client(&get("/b", &[]))];
    // It takes one call at a time: the second one gets the slot of the first, whose response does not fit its buffer.
    let mut origin = Origin::accept(&mut world, 1, response);
    for client in clients {
        origin.answer(&mut world);
        let response = world.got(client, false).expect("an answer");
        assert_eq!(response.body, body);
    }
    assert!(world.is_open(origin.at));
}

#[test]
fn requests_wait_for_others_as_long_as_they_may() {
    let delay = "batch_delay_us = 1000\n    protocol =";
    let mut world = World::with_routes(&ROUTES.replace("protocol =", delay));
    let first = world.client(&get("/a", &[]));
    let mut origin = Origin::accept(&mut world, 256, ok(&[], "x"));
    assert_eq!(world.written(), []);
    world.pass_us(600);
    let second = world.client(&get("/b", &[]));
    assert_eq!(world.written(), []);
    world.pass_us(400);
    // Both in one batch. What comes back does not wait.
    origin.answer(&mut world);
    for client in [first, second] {
        assert_eq!(world.got(client, false).unwrap().body, "x");
    }
    let third = world.client(&get("/c", &[]));
    assert_eq!(world.written(), []);
    world.pass_us(1000);
    origin.answer(&mut world);
    assert_eq!(world.got(third, false).unwrap().body, "x");
}

#[test]
fn an_idle_connection_is_asked_and_stays_if_it_answers() {
    let mut world = World::with_routes(ROUTES);
    let mut origin = Origin::idle(&mut world);
    for _ in 0..3 {
        world.pass_s(9);
        assert_eq!(world.written(), [], "something has arrived since");
        world.pass_s(1);
        origin.answer(&mut world);
    }
    assert!(world.is_open(origin.at));
    assert_eq!(world.of_origins[0].failed_silent.get(), 0);
}

#[test]
fn an_idle_connection_that_does_not_answer_is_given_up_and_its_origin_ejected() {
    let mut world = World::with_routes(ROUTES);
    let origin = Origin::idle(&mut world);
    world.pass_s(10);
    assert_eq!(world.written().len(), 1, "it is asked once");
    world.pass_s(9);
    assert!(world.is_open(origin.at) && world.written().is_empty());
    world.pass_s(1);
    assert!(!world.is_open(origin.at));
    let counters = &world.of_origins[0];
    assert_eq!(
        (counters.failed_silent.get(), counters.ejected.get()),
        (1, 1)
    );
}
