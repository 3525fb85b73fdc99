//! `--wait-for-interface`: interfaces that come and go.

use std::thread;
use std::time::{Duration, Instant};

use barewire_lab::Lab;
use rustix::process::Signal;

use crate::bypass::lab;
use crate::server::{BAREWIRE, PATIENCE, Server};

/// An interface of the server's namespace that is not there yet, and its address.
const LATE: &str = "bw-late";
const ADDRESS: &str = "10.88.0.1";

fn make(lab: &Lab) {
    for command in [
        "ip link add bw-late type veth peer name bw-peer",
        "ip address add 10.88.0.1/24 dev bw-late",
        "ip link set bw-peer up",
        "ip link set bw-late up",
    ] {
        lab.server_runs(&command.split(' ').collect::<Vec<_>>());
    }
}

fn wait_until_served(lab: &Lab, is_served: bool) {
    let start = Instant::now();
    let link = || lab.server_runs(&["ip", "link", "show"]);
    while link().contains("prog/xdp") != is_served {
        assert!(start.elapsed() < PATIENCE, "{}", link());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Starts it before the interface is made, or at the same time.
fn serve(lab: &Lab) -> Server {
    thread::scope(|scope| {
        scope.spawn(|| make(lab));
        let mut command = lab.server_command();
        command.args([
            BAREWIRE,
            "serve",
            "--interface",
            LATE,
            "--wait-for-interface",
        ]);
        Server::start(command.args(["--cores", "0"]))
    })
}

#[test]
fn a_server_waits_for_its_interface_and_outlives_it() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab);
    assert_eq!(server.addresses[0].ip().to_string(), ADDRESS);
    for _ in 0..2 {
        lab.server_runs(&["ip", "link", "delete", LATE]);
        wait_until_served(&lab, false);
        make(&lab);
        server.wait_until_ready_again();
        wait_until_served(&lab, true);
    }
    let ended = server.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("bw-late is gone").count(), 2);
    assert!(
        ended.stderr.contains("waiting for bw-late"),
        "{}",
        ended.stderr
    );
    wait_until_served(&lab, false);
}

#[test]
fn a_signal_ends_the_waiting() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab);
    lab.server_runs(&["ip", "link", "delete", LATE]);
    wait_until_served(&lab, false);
    server.signal(Signal::USR1);
    server.logs("SIGUSR1: ignored");
    assert_eq!(server.terminate().code, Some(0));
}

#[test]
fn the_server_does_not_outlive_the_process_that_waits() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab);
    wait_until_served(&lab, true);
    server.kill();
    wait_until_served(&lab, false);
}

#[test]
fn a_server_that_ends_for_another_reason_is_not_started_again() {
    let Some(lab) = lab() else { return };
    make(&lab);
    let mut command = lab.server_command();
    command.args([
        BAREWIRE,
        "serve",
        "--interface",
        LATE,
        "--wait-for-interface",
    ]);
    let ended = Server::fail(command.args(["--queues", "99"]));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("no receive queue 99"),
        "{}",
        ended.stderr
    );
}
