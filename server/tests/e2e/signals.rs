//! Every signal that would end a process, sent to a server that counts.

use std::fs;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Server};

const EVENT: &str = "POST /event HTTP/1.1\r\nHost: test\r\nContent-Length: 26\r\n\r\n{\"userId\":\"a\",\"value\":1.5}";

/// Sends any signal, also those that rustix has no names for.
fn signal(server: &Server, number: i32) {
    let pid = server.pid().as_raw_nonzero().to_string();
    let number = format!("-{number}");
    let kill = Command::new("kill").args([&*number, &*pid]).status();
    assert!(kill.unwrap().success(), "kill {number}");
}

#[test]
fn what_ends_a_server_drains_it_and_keeps_its_counts() {
    for stack in STACKS {
        for number in [libc::SIGHUP, libc::SIGQUIT, libc::SIGPWR, libc::SIGXCPU] {
            let directory = tempfile::tempdir().unwrap();
            let state = directory.path().join("counts");
            let server = Server::on_loopback(stack, &["--state", state.to_str().unwrap()]);
            let mut busy = Client::connect(server.addresses[0]);
            // In one piece, so that the second has begun when the first is answered.
            let (head, rest) = EVENT.split_at(60);
            busy.send([EVENT, head].concat());
            assert_eq!(busy.receive(false).status, 200);
            signal(&server, number);
            // The shell sends a second SIGHUP when the terminal closes; that must not end the drain.
            if number == libc::SIGHUP {
                signal(&server, number);
            }
            busy.send(rest);
            assert_eq!(busy.receive(false).status, 200, "{stack}, signal {number}");
            drop(busy);
            let ended = server.wait();
            assert_eq!(ended.served(), 2, "{stack}, signal {number}");
            assert!(ended.stderr.contains(": draining"), "{}", ended.stderr);
            let events = &fs::read(&state).unwrap()[36..44];
            assert_eq!(events, 2_u64.to_le_bytes(), "{stack}, signal {number}");
        }
    }
}

#[test]
fn what_means_nothing_changes_nothing() {
    for stack in STACKS {
        let server = Server::on_loopback(stack, &[]);
        let mut client = Client::connect(server.addresses[0]);
        for number in [
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGVTALRM,
            libc::SIGPROF,
            libc::SIGIO,
            libc::SIGSTKFLT,
            libc::SIGPIPE,
            libc::SIGXFSZ,
            libc::SIGTTOU,
            libc::SIGRTMIN(),
            libc::SIGRTMAX(),
        ] {
            signal(&server, number);
            assert_eq!(
                client.get("/plaintext").status,
                200,
                "{stack}, signal {number}"
            );
        }
        drop(client);
        let ended = server.terminate();
        assert_eq!(ended.served(), 12, "{stack}");
        assert!(
            ended.stderr.contains("SIGUSR1: ignored"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn nohup_is_respected() {
    let script = format!(
        "trap '' HUP; exec {BAREWIRE} serve --stack {} --listen 127.0.0.1:0 --cores 0",
        STACKS[0]
    );
    let server = Server::start(Command::new("sh").args(["-c", &script]));
    kill_process(server.pid(), Signal::HUP).unwrap();
    assert_eq!(
        Client::connect(server.addresses[0]).get("/health").status,
        200
    );
    let ended = server.terminate();
    assert_eq!(ended.served(), 1);
    assert!(!ended.stderr.contains("SIGHUP"), "{}", ended.stderr);
}
