//! Take-overs past the kernel: connections travel as records, and frames take a detour until the queues are free.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use barewire_conformance::http2;
use barewire_lab::{Lab, SERVER_DEVICE};
use rustls::HandshakeKind;

use crate::clients::{Begun, Client, post, stats};
use crate::failures::{fail_at_any_step, tell_another_protocol};
use crate::load::take_over_under_load;
use crate::server::{PATIENCE, Server, assert_says, wait_until};
use crate::{Place, state_option, tls};

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
        let mut idle = Client::connect(address).unwrap();
        assert_eq!(idle.event("a", 1).unwrap().status, 200);
        let mut begun = Begun::at(address);
        let second = place.take_over();
        assert_eq!(first.wait().code, Some(0));
        let response = begun.end_event();
        assert!(response.status == 200 && !response.closes);
        let response = begun.end_stats();
        assert!(response.says("\"totalRequests\":2,") && !response.closes);
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
    let Some(lab) = Lab::up(&["--queues", "3"]).map(Arc::new) else {
        return;
    };
    let address = "ip address add 10.99.0.2/24 dev bw-x0".split(' ');
    for command in [
        "ip link add bw-x0 type veth peer name bw-x1"
            .split(' ')
            .collect(),
        address.collect::<Vec<_>>(),
        "ip link set bw-x0 up".split(' ').collect(),
    ] {
        lab.server_runs(&command);
    }
    let mut place = Place::on_interface(&lab, &["--mode", "native"]);
    place.options.extend(state_option(&place.state()));
    lab.client(|| {
        let first = place.start();
        let says = |place: &Place, more: &[&str], expected: &str| {
            let said = place.refusal(more);
            assert_says(&said, &format!("has {expected}"));
            assert_says(&said, "take over with the same, or stop it first");
        };
        says(
            &place,
            &["--queues", "0,1"],
            "the queues of its cores [[0, 2], [1]], and this one would have [[0], [1]]",
        );
        let fewer = "--cores [0, 1], and this one would have ";
        says(&place, &["--queues", "0"], &format!("{fewer}[0]"));
        says(&place, &["--port", "8081"], "the addresses [10.77.0.2:8080");
        says(&place, &["--address", "10.77.0.2"], "the addresses [");
        says(&place, &["--connections", "7"], "--connections");
        place.cores = "1";
        says(&place, &[], &format!("{fewer}[1]"));
        place.cores = "0,1";
        place.interface = "bw-x0";
        let interface = format!("--interface {SERVER_DEVICE:?}, and this one would have \"bw-x0\"");
        says(&place, &[], &interface);
        place.interface = SERVER_DEVICE;
        place.options[1] = "generic".into();
        says(
            &place,
            &[],
            "--mode \"native\", and this one would have \"generic\"",
        );
        assert_eq!(stats(first.addresses[0]).0, 0);
        assert_eq!(first.terminate().code, Some(0));
    });
}

/// HTTPS and HTTP/2 do not travel: what has begun is answered, what is idle ends in order, and clients resume.
#[test]
fn connections_of_https_and_http2_are_drained_before() {
    let Some(lab) = lab() else { return };
    let mut place = Place::on_interface(&lab, &["--tls-port", "8443"]);
    let config = tls::serve(&mut place);
    lab.client(|| {
        let first = place.start();
        let at = |port| {
            let mut addresses = first.addresses.iter().copied();
            let is_there = |address: &SocketAddr| address.is_ipv4() && address.port() == port;
            addresses.find(is_there).unwrap()
        };
        let (plain, https) = (at(8080), at(8443));
        let mut kept = Client::connect(plain).unwrap();
        assert_eq!(kept.event("kept", 1).unwrap().status, 200);
        let [mut idle, mut slow] = [0; 2].map(|_| tls::connect(https, &config));
        assert!(!tls::ask(&mut idle, "idle").contains("connection: close"));
        let request = post("slow", 1);
        let (half, rest) = request.split_at(request.len() - 5);
        slow.write_all(half).unwrap();

        let mut multiplexed = TcpStream::connect(plain).unwrap();
        multiplexed.set_read_timeout(Some(PATIENCE)).unwrap();
        let event = |stream: u32, user: &str| {
            let content = format!("{{\"userId\":\"{user}\",\"value\":1}}");
            let fields = http2::request("POST", "/event");
            let content = http2::data(stream, http2::flag::END_STREAM, content.as_bytes());
            (http2::headers(stream, 0, &fields), content)
        };
        let (head, content) = event(1, "first");
        let greeting = [&http2::PREFACE[..], &http2::settings(&[])].concat();
        multiplexed
            .write_all(&[greeting, head, content].concat())
            .unwrap();
        let mut answers = Vec::new();
        let mut hear_until = |multiplexed: &mut TcpStream, what: &str| {
            while !http2::texts(&answers)
                .iter()
                .any(|text| text.starts_with(what))
            {
                let mut space = [0; 4096];
                let len = multiplexed.read(&mut space).unwrap();
                assert!(len > 0, "{what} in {:?}", http2::texts(&answers));
                answers.extend(&space[..len]);
            }
        };
        hear_until(&mut multiplexed, "HEADERS 1 200");
        let (head, content) = event(3, "second");
        multiplexed.write_all(&head).unwrap();

        let second = std::thread::scope(|scope| {
            let taking_over = scope.spawn(|| place.take_over());
            first.logs("draining what cannot travel");
            multiplexed.write_all(&content).unwrap();
            hear_until(&mut multiplexed, "HEADERS 3 200");
            hear_until(&mut multiplexed, "GOAWAY 3 NO_ERROR");
            assert_eq!(multiplexed.read_to_end(&mut Vec::new()).unwrap(), 0);
            slow.write_all(rest).unwrap();
            let head = tls::head(&mut slow);
            assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"));
            // The end of the session, then that of the connection.
            assert_eq!(idle.read(&mut [0]).unwrap(), 0);
            taking_over.join().unwrap()
        });
        assert_eq!(first.wait().code, Some(0));
        let response = kept.event("kept", 1).unwrap();
        assert!(response.status == 200 && !response.closes);
        let mut again = tls::connect(https, &config);
        assert!(tls::ask(&mut again, "idle").starts_with("http/1.1 200"));
        let kind = again.conn.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed));
        assert_eq!(stats(plain), (7, 5, 7.0));
        drop(again);
        let ended = second.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    });
}

#[test]
fn a_successor_of_another_protocol_is_told_so() {
    let Some(lab) = lab() else { return };
    let mut place = Place::on_interface(&lab, &[]);
    lab.client(|| tell_another_protocol(&mut place));
}

#[test]
fn a_server_that_waits_for_its_interface_does_not_take_over() {
    let Some(lab) = lab() else { return };
    let place = Place::on_interface(&lab, &["--wait-for-interface"]);
    assert_says(&place.refusal(&[]), "does not take over");
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
            let link = lab.server_runs(&["ip", "link", "show", "dev", SERVER_DEVICE]);
            !link.contains("xdp")
        });
        let again: Server = place.start();
        assert_eq!(stats(again.addresses[0]).0, 0);
        assert_eq!(again.terminate().code, Some(0));
    });
}
