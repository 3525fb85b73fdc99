//! Queues that appear while a server runs, which has given up its privileges by then.

use barewire_lab::{CLIENT_DEVICE, Lab, SERVER_DEVICE};

use crate::bypass::{lab, serve};
use crate::server::Server;

/// Sets how many queues the server receives by, and the client, which chooses among them, sends by.
fn set_queues(lab: &Lab, count: u32) {
    let server = || lab.server_runs(&["ethtool", "-L", SERVER_DEVICE, "rx", &count.to_string()]);
    let client = || lab.client_runs(&["ethtool", "-L", CLIENT_DEVICE, "tx", &count.to_string()]);
    // A veth never lets a peer send by more queues than there are at this end.
    match count {
        1 => (client(), server()),
        _ => (server(), client()),
    };
}

fn serve_one_queue(lab: &Lab, arguments: &[&str]) -> Server {
    set_queues(lab, 1);
    let server = serve(lab, arguments);
    assert_eq!(
        server
            .report
            .iter()
            .filter(|line| line.contains(": queue "))
            .count(),
        1
    );
    server
}

/// Requests, each on a connection of its own, so that they spread over the queues.
fn requests(lab: &Lab, count: u32) {
    let url = format!("http://10.77.0.2:8080/plaintext?[1-{count}]");
    let close = ["--header", "connection: close"];
    let curl = [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "20",
    ];
    let answered = lab.client_runs(&[&curl[..], &close, &[&url]].concat());
    assert_eq!(answered, "Hello, World!".repeat(count as usize));
}

#[test]
fn a_queue_that_appears_is_served_like_the_others() {
    let Some(lab) = lab() else { return };
    let server = serve_one_queue(&lab, &[]);
    requests(&lab, 5);
    set_queues(&lab, 2);
    server.logs("has got queue 1; core 0 serves it");
    server.logs("has 2 receive queues, and all of them are served");
    requests(&lab, 60);
    let ended = server.terminate();
    assert_eq!(ended.served(), 65);
    let received = ended.counters("link", "rx_frames");
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|&frames| frames > 0), "{received:?}");
    assert_eq!(ended.counters("redirect", "passed_no_socket"), [0]);
}

#[test]
fn a_queue_that_was_not_prepared_for_is_an_alarm() {
    let Some(lab) = lab() else { return };
    let server = serve_one_queue(&lab, &["--spare-queues", "0"]);
    set_queues(&lab, 2);
    server.logs("of which 1 are served");
    server.logs("--spare-queues prepared for no more");
    server.terminate();
}
