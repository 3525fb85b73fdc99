//! What cannot be taken over is said in a sentence, and the predecessor serves on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;

use crate::clients::stats;
use crate::server::{Server, assert_says};
use crate::{Place, STACKS, state_option};

#[test]
fn a_successor_has_to_serve_the_same() {
    let mut place = Place::new("epoll", "127.0.0.1", &[]);
    place.options.extend(state_option(&place.state()));
    let first = place.start();
    let with = |change: &dyn Fn(&mut Place)| {
        let mut other = Place {
            directory: tempfile::tempdir().unwrap(),
            stack: place.stack,
            address: place.address.clone(),
            cores: place.cores,
            interface: place.interface,
            control: place.control.clone(),
            options: place.options.clone(),
            lab: None,
        };
        change(&mut other);
        let ended = Server::fail(&mut other.command(&["--take-over"]));
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        ended.stderr
    };
    let fewer = with(&|other| other.cores = "1");
    assert_says(&fewer, "has --cores [0, 1], and this one would have [1]");
    let stack = with(&|other| other.stack = "uring");
    assert_says(
        &stack,
        "has --stack \"epoll\", and this one would have \"uring\"",
    );
    let address = with(&|other| other.address = "127.0.0.2:0".into());
    assert_says(&address, "has the addresses [127.0.0.1:");
    let connections = with(&|other| other.options.extend(["--connections".into(), "7".into()]));
    assert_says(
        &connections,
        "has --connections 4096, and this one would have 7",
    );
    let state = with(&|other| other.options.clear());
    assert_says(
        &state,
        "as --state \"a file\", and this one would have \"none\"",
    );
    let elsewhere = with(&|other| {
        let path = place.directory.path().join("another");
        other.options = state_option(&path).into();
    });
    assert_says(&elsewhere, "is not that of the server to take over from");
    assert_eq!(stats(first.addresses[0]).0, 0);
    assert_eq!(first.terminate().code, Some(0));
}

#[test]
fn there_has_to_be_a_predecessor() {
    for stack in STACKS {
        let place = Place::new(stack, "127.0.0.1", &[]);
        let said = place.refusal(&[]);
        assert_says(&said, "nothing to take over from: no server listens at");
    }
    let mut place = Place::new("epoll", "127.0.0.1", &[]);
    place.control = "off".into();
    assert_says(
        &place.refusal(&[]),
        "needs the control socket of the server before",
    );
}

/// As a release before this one answers, and a program that is none of ours.
#[test]
fn a_predecessor_of_another_release_is_named() {
    for (answer, expected) in [
        (
            "{\"answer\":\"refused\",\"content\":{\"reason\":\"unknown variant `take_over`\"}}\n",
            "does not hand over: its release cannot; stop it, and start this one without --take-over",
        ),
        (
            "hello\n",
            "does not answer as this version of barewire does",
        ),
    ] {
        let place = Place::new("epoll", "127.0.0.1", &[]);
        let listener = UnixListener::bind(&place.control).unwrap();
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = String::new();
            BufReader::new(&stream).read_line(&mut question).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            question
        });
        assert_says(&place.refusal(&[]), expected);
        let question = answering.join().unwrap();
        assert_eq!(question, "{\"ask\":\"take_over\",\"protocol\":2}\n");
    }
}
