//! `--connections-total`: as many connections as all cores together may have, and not one more.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::server::{Ended, Server, wait_until};

const TOTAL: usize = 25;
const LIMIT: [&str; 2] = ["--connections-total", "25"];

/// The status that a client gets, which stays connected.
fn ask(mut client: &TcpStream) -> u16 {
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(
        status == 503,
        answer.contains("Retry-After: 1\r\n"),
        "{answer}"
    );
    if status == 200 {
        client.read_exact(&mut [0; b"ok\n".len()]).unwrap();
    } else {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"Too many connections; try again later.\r\n");
    }
    status
}

/// Takes all places, is turned away, and takes those that become free. Returns how often it was turned away.
fn expect_limit(connect: impl Fn() -> TcpStream) -> usize {
    let mut turned_away = 0;
    let mut is_served = |client: &TcpStream| {
        let is_served = ask(client) == 200;
        turned_away += usize::from(!is_served);
        is_served
    };
    let mut clients: Vec<TcpStream> = (0..TOTAL + 5).map(|_| connect()).collect();
    clients.retain(&mut is_served);
    assert_eq!(clients.len(), TOTAL);
    // They are still served, and others are not.
    assert!(clients.iter().all(&mut is_served));
    assert!(!is_served(&connect()));

    clients.truncate(TOTAL - 5);
    while clients.len() < TOTAL {
        wait_until("a place is free", || {
            let client = connect();
            let is_served = is_served(&client);
            clients.extend(is_served.then_some(client));
            is_served
        });
    }
    assert!(!is_served(&connect()));
    turned_away
}

/// How many were turned away, by all cores.
fn surplus(ended: &Ended) -> usize {
    let counted = ended.stderr.split("counted by bulkhead: surplus=").skip(1);
    counted
        .map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}

#[test]
fn connections_beyond_the_total_are_told_so_on_the_kernel_stacks() {
    for stack in ["epoll", "uring"] {
        let server = Server::on_loopback(stack, &LIMIT);
        let address = server.addresses[0];
        let turned_away = expect_limit(|| TcpStream::connect(address).unwrap());
        let ended = server.terminate();
        assert_eq!(surplus(&ended), turned_away, "{}", ended.stderr);
    }
}

#[test]
fn a_drop_is_a_reset_on_the_kernel_stacks() {
    for stack in ["epoll", "uring"] {
        let limit = [&LIMIT[..], &["--connections-surplus", "drop"]].concat();
        let server = Server::on_loopback(stack, &limit);
        let connect = || TcpStream::connect(server.addresses[0]).unwrap();
        let clients: Vec<TcpStream> = (0..TOTAL).map(|_| connect()).collect();
        assert!(clients.iter().all(|client| ask(client) == 200));
        let mut refused = connect();
        refused.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert!(refused.read(&mut [0; 100]).is_err());
        assert!(clients.iter().all(|client| ask(client) == 200));
        let ended = server.terminate();
        assert_eq!(surplus(&ended), 1, "{}", ended.stderr);
    }
}

#[test]
fn http2_and_tls_have_the_same_limit() {
    let certificate = crate::tls::Certificate::new(&["localhost", "127.0.0.1"]);
    let options = certificate.options();
    let tls = ["--tls-listen", "127.0.0.1:0"];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Server::on_loopback("epoll", &[&options[..], &tls, &LIMIT].concat());
    let connect = || TcpStream::connect(server.addresses[0]).unwrap();
    let clients: Vec<TcpStream> = (0..TOTAL).map(|_| connect()).collect();
    assert!(clients.iter().all(|client| ask(client) == 200));

    let curl = |arguments: &[&str]| {
        let output = std::process::Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--output",
                "/dev/null",
            ])
            .args([
                "--write-out",
                "%{http_code}",
                "--cacert",
                &certificate.pem(),
            ])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said)
    };
    let secure = format!("https://{}/health", server.addresses[1]);
    assert_eq!(curl(&["--http1.1", &secure]), (true, "503".to_owned()));
    let plain = format!("http://{}/health", server.addresses[0]);
    for refused in [
        &["--http2", &secure][..],
        &["--http2-prior-knowledge", &plain],
    ] {
        let (is_served, status) = curl(refused);
        assert!(!is_served && status == "000", "{refused:?}: {status}");
    }
    drop(clients);
    for served in [
        &["--http2", &secure][..],
        &["--http2-prior-knowledge", &plain],
    ] {
        wait_until("a place is free", || {
            curl(served) == (true, "200".to_owned())
        });
    }
    assert_eq!(server.terminate().code, Some(0));
}

#[cfg(feature = "xdp")]
mod on_the_bypass {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn connections_beyond_the_total_are_told_so() {
        let Some(lab) = crate::bypass::lab() else {
            return;
        };
        let server = crate::bypass::serve(&lab, &LIMIT);
        let connect = || lab.client(|| TcpStream::connect("10.77.0.2:8080").unwrap());
        let turned_away = expect_limit(connect);
        let ended = server.terminate();
        assert_eq!(surplus(&ended), turned_away, "{}", ended.stderr);
    }

    #[test]
    fn a_drop_leaves_the_syn_without_an_answer() {
        let Some(lab) = crate::bypass::lab() else {
            return;
        };
        let limit = ["--connections-total", "25", "--connections-surplus", "drop"];
        let server = crate::bypass::serve(&lab, &limit);
        let address: SocketAddr = "10.77.0.2:8080".parse().unwrap();
        let connect = |timeout| lab.client(|| TcpStream::connect_timeout(&address, timeout));
        let patient = Duration::from_secs(60);
        let mut clients: Vec<TcpStream> = (0..TOTAL).map(|_| connect(patient).unwrap()).collect();
        assert!(clients.iter().all(|client| ask(client) == 200));
        // As long as nobody goes there is no answer, however long one waits.
        let refused = connect(Duration::from_millis(300)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
        clients.pop();
        clients.push(connect(patient).unwrap());
        assert!(clients.iter().all(|client| ask(client) == 200));
        let ended = server.terminate();
        assert!(ended.stderr.contains("seat_overflows="), "{}", ended.stderr);
        assert!(!ended.stderr.contains("surplus="), "{}", ended.stderr);
    }
}
