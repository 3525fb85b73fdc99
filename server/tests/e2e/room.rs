//! Room for many connections costs nothing before they come.

use std::net::TcpStream;

use barewire_lab::{Lab, SERVER_DEVICE};

use crate::operate::Operated;
use crate::server::{BAREWIRE, Server};

const CONNECTIONS: usize = 500;

#[test]
fn room_for_ten_million_connections_is_taken_as_they_come() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    let server = Operated::start(|control| {
        let mut command = lab.server_command();
        command.args([BAREWIRE, "serve", "--control", control, "--cores", "0"]);
        command.args(["--interface", SERVER_DEVICE, "--stack", "xdp"]);
        command.args(["--direct-path", "always", "--connections", "10000000"]);
        command.args(["--drain-timeout-ms", "500"]);
        Server::start(&mut command)
    });
    let report = server.server.report.join("\n");
    assert!(
        report.contains("for an idle connection") && report.contains("10000000 with as much"),
        "{report}"
    );
    let resident = || {
        let status = server.status_where(|_| true);
        status.memory.resident_bytes.unwrap()
    };
    let before = resident();
    assert!(before < 400 << 20, "{before} bytes at the start");
    let address = server.server.addresses[0];
    let held: Vec<_> = lab.client(|| {
        let connect = |_| TcpStream::connect(address).unwrap();
        (0..CONNECTIONS).map(connect).collect()
    });
    server.status_where(|status| status.connections.total == CONNECTIONS as u64);
    // The tables that are found by a hash come in huge pages here and there: all of them, and no more.
    let after = resident();
    println!("{before} bytes with no connection, {after} with {CONNECTIONS} of ten million");
    assert!(after < before + (700 << 20), "{before} then {after} bytes");
    drop(held);
    let ended = server.server.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
