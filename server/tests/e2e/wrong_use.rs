//! Wrong use ends with one message, the cause and the cure in it, and an exit code that says whose fault.

use std::net::TcpListener;
use std::path::Path;
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
        ("--mode fast", &["--mode", "native, generic"]),
        ("--zero-copy on --stack uring", &["--zero-copy", "uring"]),
        ("--sqpoll-idle-ms 5", &["--sqpoll-idle-ms", "epoll"]),
        (
            "--stack uring --ring-buffers 500",
            &["--ring-buffers", "power of two"],
        ),
        ("--send-buffer-bytes 1", &["send_buffer_bytes"]),
        (
            "--receive-buffer-bytes 10",
            &["--receive-buffer-bytes", "1024.."],
        ),
        ("--head-bytes-max 10", &["--head-bytes-max", "256.."]),
        (
            "--body-bytes-max 65536 --receive-buffer-bytes 65536",
            &["--receive-buffer-bytes 65536", "make it 73728"],
        ),
        (
            "--head-bytes-max 4096 --receive-buffer-bytes 2048",
            &["--head-bytes-max 4096", "make it 4096"],
        ),
        (
            "--interface lo --body-bytes-max 65536",
            &["--body-bytes-max 65536", "at most 65535"],
        ),
        ("--interface lo --backlog 10", &["--backlog", "xdp"]),
        (
            "--interface lo --listen 127.0.0.1:80",
            &["--interface", "--listen"],
        ),
        (
            "--interface lo --teleport-listen 127.0.0.1:81",
            &["--teleport-listen", "xdp"],
        ),
        (
            "--listen 127.0.0.1:80 --teleport-listen 127.0.0.1:80",
            &["teleport and HTTP", "127.0.0.1:80"],
        ),
        ("--address 127.0.0.1", &["--interface"]),
        ("--listen localhost", &["--listen"]),
        ("--headers-max 0", &["--headers-max", "1.."]),
        ("--idle-timeout-ms 0", &["--idle-timeout-ms", "1.."]),
        ("--log-filter barewire=loud", &["--log-filter"]),
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
        (
            "--listen 127.0.0.1:0 --control /nowhere/barewire.sock".into(),
            &["no directory /nowhere", "mkdir"],
        ),
    ] {
        expect_refusal(&mut serve(&arguments), FAILURE, parts);
    }
    assert!(!Path::new("/nowhere").exists());
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

#[cfg(feature = "xdp")]
mod in_the_lab {
    use barewire_lab::{Lab, SERVER_DEVICE};

    use super::{BAREWIRE, FAILURE, Server, expect_refusal};

    /// `barewire serve` on the lab's interface, behind a command that takes something away from it.
    fn expect(lab: &Lab, wrapper: &[&str], arguments: &[&str], parts: &[&str]) {
        let mut command = lab.server_command();
        command
            .args(wrapper)
            .args([BAREWIRE, "serve"])
            .args(arguments);
        expect_refusal(&mut command, FAILURE, parts);
    }

    const HERE: &[&str] = &["--interface", SERVER_DEVICE];

    #[test]
    fn what_an_interface_does_not_have_is_a_failure() {
        let Some(lab) = Lab::up(&["--queues", "2"]) else {
            return;
        };
        let with = |more: &[&'static str]| [HERE, more].concat();
        expect(
            &lab,
            &[],
            &["--interface", "eth77"],
            &["eth77", SERVER_DEVICE],
        );
        expect(
            &lab,
            &[],
            &with(&["--queues", "0,7"]),
            &["no receive queue 7", "it has 2"],
        );
        expect(
            &lab,
            &[],
            &with(&["--cores", "4000"]),
            &["CPU 4000", "choose among"],
        );
        expect(
            &lab,
            &[],
            &with(&["--zero-copy", "on"]),
            &["zero-copy", "another NIC"],
        );
        expect(
            &lab,
            &[],
            &["--interface", "lo", "--mode", "native"],
            &["lo"],
        );
        expect(&lab, &[], &["--interface", "lo"], &["loopback interface"]);
        expect(
            &lab,
            &[],
            &with(&["--rx-ring-frames", "1000"]),
            &["rx_ring_frames", "power of two"],
        );
    }

    #[test]
    fn missing_privileges_are_named() {
        let Some(lab) = Lab::up(&["--queues", "1"]) else {
            return;
        };
        expect(
            &lab,
            &["setpriv", "--bounding-set=-all"],
            HERE,
            &["privileges", "cap_net_admin", "root"],
        );
        let bounded = [
            "setpriv",
            "--bounding-set=-ipc_lock",
            "prlimit",
            "--memlock=65536",
        ];
        expect(&lab, &bounded, HERE, &["RLIMIT_MEMLOCK", "ulimit -l"]);
    }

    #[test]
    fn a_second_server_on_the_same_interface_is_refused_and_harms_nobody() {
        let Some(lab) = Lab::up(&["--queues", "1"]) else {
            return;
        };
        let first = Server::start(lab.server_command().args([BAREWIRE, "serve"]).args(HERE));
        expect(&lab, &[], HERE, &["already has an XDP program", "bpftool"]);
        assert_eq!(
            lab.client_runs(&[
                "curl",
                "--silent",
                "--max-time",
                "10",
                "http://10.77.0.2:8080/plaintext"
            ]),
            "Hello, World!"
        );
        assert_eq!(first.terminate().served(), 1);
    }

    #[test]
    fn packets_longer_than_the_interface_can_send_are_refused() {
        let Some(lab) = Lab::up(&["--queues", "1"]) else {
            return;
        };
        let longer = [HERE, &["--mtu", "1501"]].concat();
        expect(&lab, &[], &longer, &["1501", "MTU of bw-s0", "mtu 1501"]);
    }
}
