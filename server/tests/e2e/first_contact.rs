//! What a new user of the bypass meets: in a container, beside other servers, at an interface of
//! any name and with any addresses.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use barewire_lab::{CLIENT_DEVICE, Lab, SERVER_DEVICE, SERVER_V4, SERVER_V6};

use crate::bypass::{lab, serve};
use crate::http::Client;
use crate::server::{BAREWIRE, Server};
use crate::wrong_use::{FAILURE, USAGE, expect_refusal};

const PLAINTEXT: &str = "http://10.77.0.2:8080/plaintext";

/// What curl gets, or the number of its error.
fn curl(lab: &Lab, arguments: &[&str]) -> Result<String, i32> {
    let mut command = lab.client_command();
    command.args(["curl", "--silent", "--globoff", "--max-time", "10"]);
    let output = command.args(arguments).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(output.status.code().unwrap()),
    }
}

const CURL_TIMED_OUT: i32 = 28;

fn here(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.server_command();
    command.args([BAREWIRE, "serve", "--interface", SERVER_DEVICE]);
    command.args(arguments);
    command
}

fn hello() -> Result<String, i32> {
    Ok("Hello, World!".to_owned())
}

/// A container's end of a veth completes no checksums: nothing between it and the server needs them.
#[test]
fn a_peer_that_leaves_checksums_to_its_device_is_served() {
    let Some(lab) = lab() else { return };
    lab.client_runs(&["ethtool", "-K", CLIENT_DEVICE, "tx", "on"]);
    for mode in ["native", "generic"] {
        let server = serve(&lab, &["--mode", mode]);
        let said = server.report.join("\n");
        assert!(said.contains("leave to their devices are taken"), "{said}");
        assert_eq!(curl(&lab, &[PLAINTEXT]), hello());
        assert_eq!(curl(&lab, &["http://[fd77::2]:8080/plaintext"]), hello());
        let ended = server.terminate();
        assert_eq!(ended.served(), 2);
        let partial: u64 = ended.counters("tcp", "in_csum_partial").iter().sum();
        let all: u64 = ended.counters("tcp", "in_segs").iter().sum();
        assert!(partial > 0 && partial == all, "{partial} of {all}");
    }
}

#[test]
fn who_insists_on_checksums_is_told_whom_that_refuses() {
    let Some(lab) = lab() else { return };
    lab.client_runs(&["ethtool", "-K", CLIENT_DEVICE, "tx", "on"]);
    let server = serve(&lab, &["--checksums", "verify"]);
    let refused = curl(&lab, &["--max-time", "2", PLAINTEXT]);
    assert_eq!(refused, Err(CURL_TIMED_OUT));
    server.logs("`ethtool -K IFACE tx off`");
    lab.client_runs(&["ethtool", "-K", CLIENT_DEVICE, "tx", "off"]);
    assert_eq!(curl(&lab, &[PLAINTEXT]), hello());
    let ended = server.terminate();
    let refused = ended.counters("discards", "discard_tcp_checksum_partial");
    assert!(refused.iter().sum::<u64>() > 0, "{}", ended.stderr);
    assert_eq!(
        ended.stderr.matches("tx off`").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn a_port_that_the_kernel_serves_is_not_taken_in_silence() {
    let Some(lab) = lab() else { return };
    for wildcard in ["0.0.0.0:8080", "[::]:8080", "10.77.0.2:8080"] {
        let kernel_server = lab.server(|| TcpListener::bind(wildcard)).unwrap();
        let pid = format!("(pid {})", std::process::id());
        let parts = ["is served by", &pid, "--steal-port"];
        expect_refusal(&mut here(&lab, &[]), FAILURE, &parts);
        // Who is there goes on.
        let _client = lab.client(|| Client::connect("10.77.0.2:8080".parse().unwrap()));
        kernel_server.accept().unwrap();

        let server = serve(&lab, &["--steal-port"]);
        let said = server.report.join("\n");
        assert!(
            said.contains("is taken from") && said.contains(&pid),
            "{said}"
        );
        assert_eq!(curl(&lab, &[PLAINTEXT]), hello());
        assert_eq!(server.terminate().served(), 1);
    }
}

#[test]
fn the_served_port_is_in_use_for_everybody_else() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &[]);
    for taken in [
        "0.0.0.0:8080",
        "[::]:8080",
        "10.77.0.2:8080",
        "[fd77::2]:8080",
    ] {
        let error = lab.server(|| TcpListener::bind(taken)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{taken}");
    }
    lab.server(|| TcpListener::bind("127.0.0.1:8080")).unwrap();
    let listeners = lab.server_runs(&["ss", "-Hltnp"]);
    assert!(listeners.contains("barewire"), "{listeners}");
    server.terminate();
    lab.server(|| TcpListener::bind("10.77.0.2:8080")).unwrap();
}

/// The kernel would answer with RST, which ends connections of the server's.
#[test]
fn what_reaches_the_kernel_all_the_same_is_not_answered() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &["--queues", "0"]);
    // Some of them arrive on the queue that is left out.
    for _ in 0..6 {
        let result = curl(&lab, &["--max-time", "1", PLAINTEXT]);
        assert!(
            result == hello() || result == Err(CURL_TIMED_OUT),
            "{result:?}"
        );
    }
    server.terminate();
}

#[test]
fn a_port_below_1024_takes_its_capability() {
    let Some(lab) = lab() else { return };
    let mut command = lab.server_command();
    command.args([
        "setpriv",
        "--bounding-set=-net_bind_service",
        BAREWIRE,
        "serve",
    ]);
    let parts = ["port 80", "1024", "CAP_NET_BIND_SERVICE"];
    expect_refusal(
        command.args(["--interface", SERVER_DEVICE, "--port", "80"]),
        FAILURE,
        &parts,
    );
    let server = serve(&lab, &["--port", "80"]);
    assert_eq!(curl(&lab, &["http://10.77.0.2/plaintext"]), hello());
    server.terminate();
}

#[test]
fn what_the_bypass_cannot_serve_says_what_can() {
    let Some(lab) = lab() else { return };
    let mut command = lab.server_command();
    command.args([BAREWIRE, "serve", "--interface", "lo"]);
    let parts = [
        "lo is the loopback",
        "--stack epoll --listen 127.0.0.1:8080",
    ];
    expect_refusal(&mut command, FAILURE, &parts);

    lab.server_runs(&["ip", "tuntap", "add", "bw-tun", "mode", "tun"]);
    lab.server_runs(&["ip", "address", "add", "10.99.0.1/24", "dev", "bw-tun"]);
    lab.server_runs(&["ip", "link", "set", "bw-tun", "up"]);
    let mut command = lab.server_command();
    command.args([BAREWIRE, "serve", "--interface", "bw-tun"]);
    let parts = ["without Ethernet", "--stack epoll --listen 10.99.0.1:8080"];
    expect_refusal(&mut command, FAILURE, &parts);
}

#[test]
fn an_interface_goes_by_all_its_names() {
    let Some(lab) = lab() else { return };
    let long = "an-alternative-name-that-is-longer-than-any-name";
    for name in ["alt", long] {
        lab.server_runs(&[
            "ip",
            "link",
            "property",
            "add",
            "dev",
            SERVER_DEVICE,
            "altname",
            name,
        ]);
        let mut command = lab.server_command();
        let server = Server::start(command.args([BAREWIRE, "serve", "--interface", name]));
        assert_eq!(curl(&lab, &[PLAINTEXT]), hello());
        assert_eq!(server.terminate().served(), 1);
    }
}

#[test]
fn a_link_local_address_is_served_if_it_is_named() {
    let Some(lab) = lab() else { return };
    let addresses = lab.server_runs(&[
        "ip",
        "-6",
        "address",
        "add",
        "fe80::77/64",
        "dev",
        SERVER_DEVICE,
        "nodad",
    ]);
    assert_eq!(addresses, "");
    let server = serve(&lab, &[]);
    assert!(
        server
            .addresses
            .iter()
            .all(|address| !address.to_string().contains("fe80"))
    );
    server.terminate();
    let server = serve(&lab, &["--address", "fe80::77"]);
    let url = format!("http://[fe80::77%25{CLIENT_DEVICE}]:8080/plaintext");
    assert_eq!(curl(&lab, &[&url]), hello());
    assert_eq!(server.terminate().served(), 1);
}

fn ip_in_server(lab: &Lab, command: &str) {
    let words = ["ip"].into_iter().chain(command.split(' '));
    lab.server_runs(&words.collect::<Vec<_>>());
}

/// `COUNT` of each family, those of the lab among them.
const COUNT: usize = 64;

#[test]
fn sixty_four_addresses_of_each_family_are_served() {
    let Some(lab) = lab() else { return };
    let more: String = (1..COUNT)
        .map(|n| {
            format!(
                "address add 10.77.1.{n}/16 dev {SERVER_DEVICE}\naddress add fd77::1:{n:x}/64 dev {SERVER_DEVICE} nodad\n"
            )
        })
        .collect();
    let batch = format!("printf '{more}' | ip -batch -");
    lab.server_runs(&["sh", "-c", &batch]);
    lab.client_runs(&["ip", "route", "add", "10.77.1.0/24", "dev", CLIENT_DEVICE]);
    let server = serve(&lab, &[]);
    assert_eq!(server.addresses.len(), 2 * COUNT);
    for &address in &server.addresses {
        let mut client = lab.client(|| Client::connect(address));
        client.get("/plaintext");
    }
    assert_eq!(server.terminate().served(), 2 * COUNT as u64);

    lab.server_runs(&[
        "ip",
        "address",
        "add",
        "10.77.1.200/16",
        "dev",
        SERVER_DEVICE,
    ]);
    ip_in_server(&lab, "address del fd77::1:1/64 dev bw-s0");
    let parts = ["more than 64 IPv4 addresses", "--address"];
    expect_refusal(&mut here(&lab, &[]), FAILURE, &parts);
}

#[test]
fn who_is_denied_or_not_allowed_gets_no_answer() {
    let Some(lab) = lab() else { return };
    lab.client_runs(&["ip", "address", "add", "10.77.0.9/24", "dev", CLIENT_DEVICE]);
    let from = |server: &str, source: &str| {
        let url = format!("http://{server}:8080/plaintext");
        curl(&lab, &["--max-time", "1", "--interface", source, &url])
    };
    let v6 = format!("[{SERVER_V6}]");
    let cases: [(&[&str], [bool; 3]); 4] = [
        (&["--deny", "10.77.0.9"], [true, false, true]),
        (
            &["--deny", "10.77.0.0/29", "--deny", "fd77::/64"],
            [false, true, false],
        ),
        (&["--allow", "10.77.0.8/29"], [false, true, false]),
        (
            &[
                "--allow",
                "10.77.0.0/24",
                "--allow",
                "fd77::1",
                "--deny",
                "10.77.0.1",
            ],
            [false, true, true],
        ),
    ];
    for (arguments, expected) in cases {
        let server = serve(&lab, arguments);
        let results = [
            from(SERVER_V4, "10.77.0.1"),
            from(SERVER_V4, "10.77.0.9"),
            from(&v6, "fd77::1"),
        ];
        for (result, is_served) in results.iter().zip(expected) {
            let wanted = if is_served {
                hello()
            } else {
                Err(CURL_TIMED_OUT)
            };
            assert_eq!(*result, wanted, "{arguments:?} {results:?}");
        }
        // Everything else is the kernel's, which has no such lists.
        lab.client_runs(&["ping", "-c1", "-W5", "-I", "10.77.0.9", SERVER_V4]);
        let ended = server.terminate();
        let denied = ended.counters("redirect", "dropped_denied");
        assert!(denied.iter().sum::<u64>() > 0, "{}", ended.stderr);
    }
    let mut wrong = Command::new(BAREWIRE);
    wrong.args(["serve", "--interface", "lo", "--deny", "10.0.0.0/33"]);
    expect_refusal(&mut wrong, USAGE, &["--deny", "192.0.2.0/24"]);
}

#[test]
fn an_address_that_is_not_there_yet_can_be_served() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &["--address", "10.77.0.3"]);
    server.logs("10.77.0.3 is not an address of");
    lab.server_runs(&["ip", "address", "add", "10.77.0.3/24", "dev", SERVER_DEVICE]);
    let address: SocketAddr = "10.77.0.3:8080".parse().unwrap();
    lab.client(|| Client::connect(address)).get("/plaintext");
    assert_eq!(server.terminate().served(), 1);
}
