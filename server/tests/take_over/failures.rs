//! A successor that does not get to the end: the predecessor serves on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::clients::{Client, stats};
use crate::server::{Server, assert_says, wait_until};
use crate::{Place, STACKS};

/// The numbers of messages, as `server/src/takeover/wire.rs` has them.
const BEGIN: u8 = 1;
const USERS: u8 = 4;
const PREPARED: u8 = 5;
const COUNTS: u8 = 7;

/// A successor that this test plays.
struct Impostor(UnixStream);

impl Impostor {
    /// Asks, and returns the answer as well.
    fn ask(place: &Place, protocol: u32) -> (Self, String) {
        let mut stream = UnixStream::connect(&place.control).unwrap();
        let question = format!("{{\"ask\":\"take_over\",\"protocol\":{protocol}}}\n");
        stream.write_all(question.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::with_capacity(1, &stream)
            .read_line(&mut answer)
            .unwrap();
        (Impostor(stream), answer)
    }

    fn say(&mut self, kind: u8) {
        self.0.write_all(&[kind, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    }

    /// Reads messages until one is of `kind`.
    fn hear(&mut self, kind: u8) {
        loop {
            let mut head = [0; 8];
            self.0.read_exact(&mut head).unwrap();
            let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            let mut bytes = vec![0; len as usize];
            self.0.read_exact(&mut bytes).unwrap();
            if head[0] == kind {
                return;
            }
        }
    }
}

#[test]
fn a_successor_that_ends_at_any_step_leaves_the_predecessor_as_it_was() {
    for stack in STACKS {
        fail_at_any_step(&mut Place::new(stack, "127.0.0.1", &[]));
    }
}

pub fn fail_at_any_step(place: &mut Place) {
    let stack = place.stack;
    let first = place.start();
    let address = first.addresses[0];
    let mut client = Client::connect(address).unwrap();
    let steps: [&[(u8, u8)]; 4] = [
        &[],
        &[(BEGIN, USERS)],
        &[(BEGIN, USERS), (PREPARED, COUNTS)],
        // What comes instead of "taken" is no message at all.
        &[(BEGIN, USERS), (PREPARED, COUNTS), (200, 0)],
    ];
    for (counted, steps) in (1..).zip(steps) {
        let mut impostor = None;
        wait_until("the one before is given up", || {
            let (asking, answer) = Impostor::ask(place, 2);
            impostor = answer.contains("handing_over").then_some(asking);
            impostor.is_some()
        });
        let mut impostor = impostor.unwrap();
        for &(say, hear) in steps {
            impostor.say(say);
            if hear > 0 {
                impostor.hear(hear);
            }
        }
        drop(impostor);
        let response = client.event("a", 1).unwrap();
        assert!(response.status == 200 && !response.closes, "{stack}");
        assert_eq!(stats(address), (counted, 1, counted as f64), "{stack}");
    }
    first.logs("so this server serves on: it has given up");
    let second = place.take_over();
    assert_eq!(first.wait().code, Some(0));
    assert_eq!(client.event("b", 1).unwrap().status, 200);
    assert_eq!(stats(address), (5, 2, 5.0));
    assert_eq!(second.terminate().code, Some(0));
}

#[test]
fn a_successor_that_cannot_start_says_why_and_the_predecessor_serves_on() {
    let mut place = Place::new("epoll", "127.0.0.1", &[]);
    let first = place.start();
    let nowhere = ["--take-over", "--directory", "/nowhere/at/all"];
    let failed = Server::fail(&mut place.command(&nowhere));
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("/nowhere/at/all"),
        "{}",
        failed.stderr
    );
    assert_eq!(stats(first.addresses[0]).0, 0);
    let second = place.take_over();
    assert_eq!(first.wait().code, Some(0));
    assert_eq!(second.terminate().code, Some(0));
}

#[test]
fn only_one_successor_at_a_time() {
    let mut place = Place::new("epoll", "127.0.0.1", &[]);
    let first = place.start();
    let (impostor, _) = Impostor::ask(&place, 2);
    let failed = Server::fail(&mut place.command(&["--take-over"]));
    assert_eq!(failed.code, Some(1));
    let said = "another successor is taking over already";
    assert!(failed.stderr.contains(said), "{}", failed.stderr);
    drop(impostor);
    first.logs("serves on: it has given up");
    let second = place.take_over();
    assert_eq!(first.wait().code, Some(0));
    assert_eq!(second.terminate().code, Some(0));
}

#[test]
fn a_successor_of_another_protocol_is_told_so() {
    tell_another_protocol(&mut Place::new("epoll", "127.0.0.1", &[]));
}

pub fn tell_another_protocol(place: &mut Place) {
    let first = place.start();
    let (_, answer) = Impostor::ask(place, 99);
    assert_says(
        &answer,
        "it speaks version 2 of the hand-over, and not 99: stop it, and start the other release without --take-over",
    );
    assert_eq!(first.terminate().code, Some(0));
}
