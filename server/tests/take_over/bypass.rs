//! Take-overs past the kernel: connections travel as records, and frames take a detour until the queues are free.

use std::sync::Arc;

use barewire_lab::Lab;

use crate::clients::{Client, post, stats};
use crate::failures::fail_at_any_step;
use crate::load::take_over_under_load;
use crate::server::{Server, wait_until};
use crate::wrong_use::{assert_says, refusal};
use crate::{Place, state_option};

fn lab() -> Option<Arc<Lab>> {
    Lab::up(&["--queues", "2"]).map(Arc::new)
}

/// IPv4, then IPv6.
#[test]
fn no_request_fails_and_every_event_is_counted() {
    for family in [0, 1] {
        let Some(lab) = lab() else { return };
        let mut place = Place::on_interface(&lab, &[]);
        lab.client(|| take_over_under_load(&mut place, family));
    }
}

#[test]
fn nor_does_one_in_generic_mode() {
    let Some(lab) = lab() else { return };
    let mut place = Place::on_interface(&lab, &["--mode", "generic"]);
    lab.client(|| take_over_under_load(&mut place, 0));
}

#[test]
fn a_successor_that_ends_at_any_step_leaves_the_predecessor_as_it_was() {
    let Some(lab) = lab() else { return };
    let mut place = Place::on_interface(&lab, &[]);
    lab.client(|| fail_at_any_step(&mut place));
}

/// What has arrived of a request goes along, and what a client has not acknowledged.
#[test]
fn a_request_that_has_begun_is_answered_by_the_successor() {
    let Some(lab) = lab() else { return };
    let mut place = Place::on_interface(&lab, &[]);
    lab.client(|| {
        let first = place.start();
        let address = first.addresses[0];
        let [mut slow, mut asks, mut idle] = [0; 3].map(|_| Client::connect(address).unwrap());
        assert_eq!(idle.event("a", 1).unwrap().status, 200);
        let request = post("slow", 2);
        let (half, rest) = request.split_at(request.len() - 5);
        slow.send(half).unwrap();
        asks.send(b"GET /stats HTTP/1.1\r\nHo").unwrap();
        let second = place.take_over();
        assert_eq!(first.wait().code, Some(0));
        slow.send(rest).unwrap();
        let response = slow.response().unwrap();
        assert!(response.status == 200 && !response.closes);
        asks.send(b"st: a\r\n\r\n").unwrap();
        let response = asks.response().unwrap();
        let said = String::from_utf8(response.content).unwrap();
        assert!(said.contains("\"totalRequests\":2,"), "{said}");
        assert_eq!(idle.event("b", 3).unwrap().status, 200);
        assert_eq!(stats(address), (3, 3, 6.0));
        let ended = second.terminate();
        assert_eq!(ended.code, Some(0));
        assert_eq!(ended.counters("tcp", "taken_over").iter().sum::<u64>(), 3);
        assert_eq!(ended.counters("tcp", "out_rsts").iter().sum::<u64>(), 0);
    });
}

/// A body that is sent back is nothing that travels: it is finished where it began, before the cores stop.
#[test]
fn what_cannot_travel_is_finished_first() {
    let Some(lab) = lab() else { return };
    let mut place = Place::on_interface(&lab, &["--test-routes"]);
    lab.client(|| {
        let first = place.start();
        let address = first.addresses[0];
        let [mut echo, mut idle] = [0; 2].map(|_| Client::connect(address).unwrap());
        assert_eq!(idle.event("a", 1).unwrap().status, 200);
        echo.send(b"POST /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
            .unwrap();
        let second = std::thread::scope(|scope| {
            let taking_over = scope.spawn(|| place.take_over());
            first.logs("draining what cannot travel");
            echo.send(b"def").unwrap();
            assert_eq!(echo.response().unwrap().content, b"abcdef");
            taking_over.join().unwrap()
        });
        assert_eq!(first.wait().code, Some(0));
        let response = idle.event("b", 1).unwrap();
        assert!(response.status == 200 && !response.closes);
        assert_eq!(second.terminate().code, Some(0));
    });
}

#[test]
fn a_successor_has_to_have_the_same_part_of_the_interface() {
    let Some(lab) = lab() else { return };
    let mut place = Place::on_interface(&lab, &["--mode", "native"]);
    place.options.extend(state_option(&place.state()));
    lab.client(|| {
        let first = place.start();
        let says = |more: &[&str], expected: &str| assert_says(&refusal(&place, more), expected);
        says(&["--queues", "0"], "--cores");
        says(&["--port", "8081"], "has the addresses [10.77.0.2:8080");
        says(&["--address", "10.77.0.2"], "has the addresses [");
        says(&["--connections", "7"], "has --connections");
        assert_eq!(stats(first.addresses[0]).0, 0);
        assert_eq!(first.terminate().code, Some(0));
    });
}

#[test]
fn a_server_that_waits_for_its_interface_does_not_take_over() {
    let Some(lab) = lab() else { return };
    let place = Place::on_interface(&lab, &["--wait-for-interface"]);
    assert_says(&refusal(&place, &[]), "does not take over");
}

/// The successor of a successor, and a server that is started anew: nothing of those before is in the way.
#[test]
fn the_last_one_leaves_the_interface_as_it_was() {
    let Some(lab) = lab() else { return };
    let mut place = Place::on_interface(&lab, &[]);
    lab.client(|| {
        let mut server = place.start();
        for _ in 0..3 {
            let successor = place.take_over();
            assert_eq!(server.wait().code, Some(0));
            server = successor;
        }
        assert_eq!(server.terminate().code, Some(0));
        wait_until("no program is attached", || {
            let link = lab.server_runs(&["ip", "link", "show", "dev", barewire_lab::SERVER_DEVICE]);
            !link.contains("xdp")
        });
        let again: Server = place.start();
        assert_eq!(stats(again.addresses[0]).0, 0);
        assert_eq!(again.terminate().code, Some(0));
    });
}
