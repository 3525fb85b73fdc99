//! Wrong use ends with one message, the cause and the cure in it, and an exit code that says whose fault.

use std::net::TcpListener;
use std::process::Command;

use crate::server::{BAREWIRE, Server};

/// The exit code if the command line is wrong.
pub const USAGE: i32 = 2;
/// The exit code if the machine does not give what was asked for.
pub const FAILURE: i32 = 1;

/// Runs `command`, expects `code` and all of `parts` in the message, and nothing that looks like a panic.
#[track_caller]
pub fn expect_refusal(command: &mut Command, code: i32, parts: &[&str]) {
    let ended = Server::fail(command);
    assert_eq!(ended.code, Some(code), "{command:?}\n{}", ended.stderr);
    assert_eq!(
        ended.stderr.matches("error:").count(),
        1,
        "{command:?}\n{}",
        ended.stderr
    );
    assert!(
        !ended.stderr.contains("panicked"),
        "{command:?}\n{}",
        ended.stderr
    );
    for part in parts {
        assert!(
            ended.stderr.contains(part),
            "{command:?}: no {part:?} in\n{}",
            ended.stderr
        );
    }
}

fn serve(arguments: &str) -> Command {
    let mut command = Command::new(BAREWIRE);
    command.arg("serve").args(arguments.split_whitespace());
    command
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for (arguments, parts) in [
        ("--conections 5", &["--conections", "--connections"][..]),
        ("--port 0", &["--port", "1..=65535"]),
        ("--port 65536", &["--port", "1..=65535"]),
        ("--queues x", &["--queues", "0-3"]),
        ("--cores 1,1", &["--cores", "twice"]),
        ("--stack dpdk", &["--stack", "epoll"]),
        ("--stack xdp", &["--interface"]),
        ("--stack epoll --interface lo", &["--interface", "epoll"]),
        ("--queues 0", &["--queues", "epoll"]),
        ("--interface lo --backlog 10", &["--backlog", "xdp"]),
        (
            "--interface lo --listen 127.0.0.1:80",
            &["--interface", "--listen"],
        ),
        ("--address 127.0.0.1", &["--interface"]),
        ("--listen localhost", &["--listen"]),
        ("--headers-max 1000", &["--headers-max", "1..=128"]),
        ("--idle-timeout-ms 0", &["--idle-timeout-ms", "1.."]),
        ("--log-filter =", &["--log-filter"]),
        ("now", &["now"]),
    ] {
        expect_refusal(&mut serve(arguments), USAGE, parts);
    }
}

#[cfg(feature = "epoll")]
#[test]
fn what_the_machine_does_not_have_is_a_failure() {
    let taken = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listener = TcpListener::bind(taken).unwrap();
    for (arguments, parts) in [
        (
            format!("--listen {taken}"),
            &["already in use", "choose another port"][..],
        ),
        (
            "--listen 192.0.2.1:8080".into(),
            &["192.0.2.1", "ip address"],
        ),
        ("--cores 4000".into(), &["CPU 4000", "choose among"]),
        (
            "--connections 1000000000".into(),
            &["open files", "--connections"],
        ),
    ] {
        expect_refusal(&mut serve(&arguments), FAILURE, parts);
    }
    drop(listener);
}

#[cfg(not(feature = "xdp"))]
#[test]
fn a_stack_that_was_left_out_says_how_to_get_it() {
    expect_refusal(
        &mut serve("--interface lo"),
        USAGE,
        &["left out", "--features xdp"],
    );
}
