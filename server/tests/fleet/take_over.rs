//! A node whose place another process takes.

use std::process::Command;

use crate::client::{Expected, metric, send};
use crate::engine::{Engine, node};
use crate::server::{BAREWIRE, Server};

#[test]
fn a_node_that_is_taken_over_from_goes_on_under_its_name_and_incarnation() {
    for stack in ["epoll", "uring"] {
        let engine = Engine::start(&[]);
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("control");
        let start = |address: &str, more: &[&str]| {
            let mut command = Command::new(BAREWIRE);
            command
                .args([
                    "serve", "--stack", stack, "--listen", address, "--cores", "0,1",
                ])
                .args(["--counts-through", &engine.url(), "--node", "a"])
                .args(["--admin-listen", "0", "--control"])
                .arg(&control)
                .args(more);
            Server::start(&mut command)
        };
        let other = node(&engine.url(), &["--node", "b"]);
        let mut server = start("127.0.0.1:0", &[]);
        let address = server.addresses[0];
        let mut expected = Expected::default();
        for turn in 0..4 {
            // Half of the users are old ones.
            let events: Vec<_> = (0..1000)
                .map(|n| (turn * 500 + n, (n % 100) as _))
                .collect();
            send(address, &events);
            send(other.addresses[0], &events[..100]);
            expected.add(&events);
            expected.add(&events[..100]);
            let successor = start(&address.to_string(), &["--take-over"]);
            let ended = server.wait();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            server = successor;
        }
        send(address, &[(1, 1)]);
        expected.add(&[(1, 1)]);
        expected.wait_at(address);
        expected.wait_at(other.addresses[0]);
        assert_eq!(engine.ask(&["HLEN", "{barewire}:counts:0"]), ":2\r\n");
        assert_eq!(metric(&server, "name_conflicts_total"), 0.0);
        assert_eq!(server.terminate().code, Some(0));
        assert_eq!(other.terminate().code, Some(0));
    }
}
