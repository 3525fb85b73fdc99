//! What happens to the interface while it is served: noticed, said, and served where it was asked for.

use barewire_lab::{CLIENT_DEVICE, Lab, SERVER_DEVICE};

use crate::bypass::{lab, serve};
use crate::http::Client;
use crate::server::{BAREWIRE, Server};

fn ip(lab: &Lab, command: &str) {
    let words = ["ip"].into_iter().chain(command.split(' '));
    lab.server_runs(&words.collect::<Vec<_>>());
}

/// What `barewire status` prints.
fn status(lab: &Lab, control: &str) -> String {
    lab.server_runs(&[
        BAREWIRE,
        "status",
        "--control",
        control,
        "--interval-ms",
        "0",
    ])
}

fn get(lab: &Lab, address: &str) {
    let address = address.parse().unwrap();
    lab.client(|| Client::connect(address)).get("/plaintext");
}

#[test]
fn an_address_that_is_added_is_served_at_once() {
    let Some(lab) = lab() else { return };
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control");
    let control = control.to_str().unwrap();
    let server = serve(&lab, &["--control", control]);
    for (address, url) in [
        ("10.77.0.3/24", "10.77.0.3:8080"),
        ("fd77::3/64", "[fd77::3]:8080"),
    ] {
        ip(&lab, &format!("address add {address} dev {SERVER_DEVICE}"));
        let alone = address.split('/').next().unwrap();
        server.logs(&format!("has {alone} now, which is served from here on"));
        // Enough for every core to get some.
        for _ in 0..8 {
            get(&lab, url);
        }
        let status = status(&lab, control);
        assert!(status.contains(&format!("http://{url}")), "{status}");
        ip(&lab, &format!("address del {address} dev {SERVER_DEVICE}"));
        server.logs(&format!("has lost {alone}"));
        ip(&lab, &format!("address add {address} dev {SERVER_DEVICE}"));
        server.logs(&format!("has {alone} again"));
        get(&lab, url);
    }
    let ended = server.terminate();
    assert_eq!(ended.served(), 18);
    assert_eq!(ended.counters("interface", "addresses_added"), [2]);
}

#[test]
fn where_addresses_are_named_no_other_is_served() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &["--address", "10.77.0.2"]);
    ip(
        &lab,
        &format!("address add 10.77.0.3/24 dev {SERVER_DEVICE}"),
    );
    ip(
        &lab,
        &format!("address del 10.77.0.2/24 dev {SERVER_DEVICE}"),
    );
    server.logs("has lost 10.77.0.2");
    let ended = server.terminate();
    assert!(!ended.stderr.contains("10.77.0.3"), "{}", ended.stderr);
}

#[test]
fn a_link_that_goes_down_and_comes_back_is_mentioned_and_serves_again() {
    let Some(lab) = lab() else { return };
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control");
    let control = control.to_str().unwrap();
    let server = serve(&lab, &["--control", control]);
    let says = |what: &str| {
        let status = status(&lab, control);
        assert!(status.contains(what), "{status}");
    };
    says("up, native mode, 2 of 2 queues served, 0 of them zero-copy");
    get(&lab, "10.77.0.2:8080");
    ip(&lab, &format!("link set {SERVER_DEVICE} down"));
    server.logs("is down");
    says("down, native mode");
    ip(&lab, &format!("link set {SERVER_DEVICE} up"));
    server.logs("is up again");
    get(&lab, "10.77.0.2:8080");
    lab.client_runs(&["ip", "link", "set", CLIENT_DEVICE, "down"]);
    server.logs("has no carrier");
    lab.client_runs(&["ip", "link", "set", CLIENT_DEVICE, "up"]);
    let ended = server.terminate();
    assert_eq!(ended.counters("interface", "link_downs"), [2]);
    assert_eq!(ended.served(), 2);
}

#[test]
fn a_renamed_interface_is_served_on() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &[]);
    ip(&lab, &format!("link set {SERVER_DEVICE} down"));
    ip(&lab, &format!("link set {SERVER_DEVICE} name bw-new"));
    ip(&lab, "link set bw-new up");
    server.logs("is called bw-new now");
    server.logs("bw-new is up again");
    get(&lab, "10.77.0.2:8080");
    let ended = server.terminate();
    assert!(!ended.stderr.contains("receive queues"), "{}", ended.stderr);
}

#[test]
fn an_interface_that_is_moved_away_ends_the_server_with_an_error() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &[]);
    let namespace = format!("bw-client-{}", lab.name());
    ip(&lab, &format!("link set {SERVER_DEVICE} netns {namespace}"));
    let ended = server.wait();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("bw-s0 is gone"), "{}", ended.stderr);
}

#[test]
fn all_of_it_is_in_the_metrics() {
    let Some(lab) = lab() else { return };
    let mut command = lab.server_command();
    command.args([BAREWIRE, "serve", "--interface", SERVER_DEVICE]);
    let server = Server::start(command.args(["--admin-listen", "9100"]));
    let url = "http://127.0.0.1:9100/metrics";
    let metrics = lab.server_runs(&["curl", "--silent", "--fail", "--max-time", "10", url]);
    for line in [
        "barewire_interface_link_up 1",
        "barewire_interface_native_mode 1",
        "barewire_interface_zero_copy_queues 0",
        "barewire_interface_rx_queues 2",
        "barewire_interface_rx_queues_unserved 0",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    server.terminate();
}
