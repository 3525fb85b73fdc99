//! `barewire proxy` to origins by TLS, with certificates of both ends: HTTP/1.1 and teleport.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Server, wait_until};
use crate::teleport::{answers, requests};
use crate::through_proxy::{PROTOCOLS, edge};

/// A directory with an authority for origins and one for edges, a certificate and key of both, and of a stranger's edge.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let all = Certificates(tempfile::tempdir().unwrap());
        for (authority, name, host) in [
            ("origins-ca", "origin", "127.0.0.1"),
            ("edges-ca", "edge", "edge.internal"),
            ("others-ca", "other", "127.0.0.1"),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new([]).unwrap();
            params
                .distinguished_name
                .push(DnType::CommonName, authority);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            all.write(
                &format!("{authority}.pem"),
                &params.self_signed(&key).unwrap().pem(),
            );
            all.issue(&Issuer::new(params, key), name, host);
        }
        all
    }

    fn issue(&self, issuer: &Issuer<'_, KeyPair>, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.into_os_string().into_string().unwrap()
    }

    /// What a pool says of TLS: with whom, and as whom.
    fn pool(&self, protocol: &str, ca: &str, name: Option<&str>) -> String {
        let ca = self.path(ca);
        let mut text = format!("protocol = {protocol:?}\ntls = true\nca = {ca:?}\n");
        if let Some(name) = name {
            let [certificate, key] =
                ["pem", "key"].map(|kind| self.path(&format!("{name}.{kind}")));
            text += &format!("certificate = {certificate:?}\nkey = {key:?}\n");
        }
        text
    }

    /// A server that asks for certificates by both protocols, and where it serves each.
    fn origin(&self, stack: &str) -> (Server, impl Fn(&str) -> SocketAddr + use<>) {
        let [pem, key] = ["pem", "key"].map(|kind| self.path(&format!("origin.{kind}")));
        let edges = self.path("edges-ca.pem");
        let server = Server::on_loopback(
            stack,
            &[
                "--test-routes",
                "--teleport-listen",
                "127.0.0.1:0",
                "--teleport-certificate",
                &pem,
                "--teleport-key",
                &key,
                "--teleport-client-ca",
                &edges,
                "--tls-listen",
                "127.0.0.1:0",
                "--tls-certificate",
                &pem,
                "--tls-key",
                &key,
                "--tls-client-ca",
                &edges,
            ],
        );
        let addresses = server.addresses.clone();
        let by = move |protocol: &str| addresses[if protocol == "teleport" { 1 } else { 2 }];
        (server, by)
    }
}

#[test]
fn every_route_answers_by_tls_as_it_does_without() {
    let certificates = Certificates::new();
    for stack in STACKS {
        let (origin, by) = certificates.origin(stack);
        let itself = answers(origin.addresses[0]);
        for protocol in PROTOCOLS {
            let pool = certificates.pool(protocol, "origins-ca.pem", Some("edge"));
            let edge = edge(stack, &[by(protocol)], &pool, &[]);
            for _ in 0..2 {
                let through = answers(edge.addresses[0]);
                for ((request, through), itself) in requests().iter().zip(through).zip(&itself) {
                    let line = request.lines().next().unwrap();
                    // Events were counted in between.
                    let is_same = through == *itself || line.contains("/stats");
                    assert!(is_same && through.0 != 502, "{stack}, {protocol}: {line}");
                }
            }
            let ended = edge.terminate();
            assert_eq!(ended.served(), 2 * requests().len() as u64);
        }
        let ended = origin.terminate();
        let sum = |name| ended.counters("tls", name).iter().sum::<u64>();
        assert!(sum("handshakes_tls13") >= 2, "{}", ended.stderr);
        // A connection that is not needed any more says so.
        assert_eq!(sum("truncated"), 0, "{}", ended.stderr);
    }
}

#[test]
fn who_is_not_trusted_gets_no_request_and_the_log_says_why() {
    let certificates = Certificates::new();
    for stack in STACKS {
        let (origin, by) = certificates.origin(stack);
        for protocol in PROTOCOLS {
            let secure = by(protocol);
            let pool = |ca, name| certificates.pool(protocol, ca, name);
            let named = format!(
                "{}server_name = \"elsewhere.internal\"\n",
                pool("origins-ca.pem", Some("edge"))
            );
            for (address, pool, why) in [
                (secure, pool("others-ca.pem", Some("edge")), "UnknownIssuer"),
                (secure, named, "elsewhere.internal"),
                (secure, pool("origins-ca.pem", None), "CertificateRequired"),
                (secure, pool("origins-ca.pem", Some("other")), "it says "),
                (
                    origin.addresses[0],
                    pool("origins-ca.pem", None),
                    "TLS with an origin",
                ),
            ] {
                let edge = edge(stack, &[address], &pool, &[]);
                let mut client = Client::connect(edge.addresses[0]);
                client.send("POST /test/body HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
                assert_eq!(
                    client.receive(false).status,
                    502,
                    "{stack}, {protocol}: {why}"
                );
                edge.logs(why);
                drop(client);
                edge.terminate();
            }
        }
        let ended = origin.terminate();
        let sum = |part, name| ended.counters(part, name).iter().sum::<u64>();
        // What was not sent may be sent again.
        let refused = sum("tls", "failed_client_certificate");
        assert!(refused >= 4, "{}", ended.stderr);
        assert_eq!(sum("teleport", "calls"), 0);
    }
}

#[test]
fn other_certificates_hold_for_connections_from_there_on() {
    let certificates = Certificates::new();
    let (origin, by) = certificates.origin("epoll");
    let routes = certificates.0.path().join("routes.toml");
    let text = format!(
        "[pool.app]\norigins = [\"{}\"]\n{}eject_failures = 1000000\n[[route]]\npool = \"app\"\n",
        by("teleport"),
        certificates.pool("teleport", "trusted.pem", Some("edge"))
    );
    fs::write(&routes, text).unwrap();
    fs::copy(
        certificates.path("others-ca.pem"),
        certificates.path("trusted.pem"),
    )
    .unwrap();
    let mut command = Command::new("env");
    command.args([
        "--default-signal=HUP",
        BAREWIRE,
        "proxy",
        "--stack",
        "epoll",
    ]);
    command
        .args(["--listen", "127.0.0.1:0", "--cores", "0", "--routes"])
        .arg(&routes);
    let edge = Server::start(&mut command);
    let mut client = Client::connect(edge.addresses[0]);
    assert_eq!(client.get("/plaintext").status, 502);
    fs::copy(
        certificates.path("origins-ca.pem"),
        certificates.path("trusted.pem"),
    )
    .unwrap();
    wait_until("the new authority is trusted", || {
        client.get("/plaintext").status == 200
    });
    // Nothing goes on with a file that says nothing.
    fs::write(certificates.path("trusted.pem"), "nothing").unwrap();
    edge.signal(Signal::HUP);
    edge.logs("holds no certificate");
    assert_eq!(client.get("/plaintext").status, 200);
    edge.terminate();
    origin.terminate();
}

#[test]
fn wrong_use_is_told_what_is_right() {
    let certificates = Certificates::new();
    let proxy = |pool: &str| {
        let routes = certificates.0.path().join("wrong.toml");
        let text =
            format!("[pool.app]\norigins = [\"127.0.0.1:9\"]\n{pool}\n[[route]]\npool = \"app\"\n");
        fs::write(&routes, text).unwrap();
        let mut command = Command::new(BAREWIRE);
        command.args([
            "proxy",
            "--stack",
            "epoll",
            "--listen",
            "127.0.0.1:0",
            "--routes",
        ]);
        Server::fail(command.arg(&routes))
    };
    let file = |key: &str, name: &str| format!("{key} = {:?}\n", certificates.path(name));
    let tls = format!("tls = true\n{}", file("ca", "origins-ca.pem"));
    for (pool, answer) in [
        (file("ca", "edge.pem"), "add tls = true"),
        ("server_name = \"a\"".to_owned(), "add tls = true"),
        ("tls = true".to_owned(), "but no ca"),
        (tls.clone() + &file("certificate", "edge.pem"), "but no key"),
        (tls.clone() + &file("key", "edge.key"), "but no certificate"),
        (
            format!("tls = true\n{}", file("ca", "missing.pem")),
            "missing.pem: ",
        ),
        (
            format!("tls = true\n{}", file("ca", "edge.key")),
            "holds no certificate",
        ),
        (
            tls.clone() + &file("certificate", "edge.pem") + &file("key", "origin.key"),
            "does not belong to the certificate",
        ),
        (
            tls.clone() + &file("certificate", "edge.pem") + &file("key", "edge.pem"),
            "holds no private key",
        ),
        (tls + "server_name = \"a b\"", "\"a b\" is no name"),
    ] {
        let ended = proxy(&pool);
        assert_eq!(ended.code, Some(1), "{pool}: {}", ended.stderr);
        assert!(ended.stderr.contains(answer), "{pool}: {}", ended.stderr);
    }
    let [pem, key, ca] =
        ["origin.pem", "origin.key", "edges-ca.pem"].map(|name| certificates.path(name));
    let listen = ["--teleport-listen", "127.0.0.1:0"];
    let pair = ["--teleport-certificate", &pem, "--teleport-key", &key];
    for (arguments, code, answer) in [
        (&pair[..], 2, "--teleport-listen"),
        (&[&listen[..], &pair[..2]].concat()[..], 2, "--teleport-key"),
        (
            &[&listen[..], &pair[2..]].concat(),
            2,
            "--teleport-certificate",
        ),
        (
            &[&listen[..], &["--teleport-client-ca", &ca]].concat(),
            2,
            "--teleport-certificate",
        ),
        (
            &[&listen[..], &pair[..3], &["missing.key"]].concat(),
            1,
            "missing.key",
        ),
    ] {
        let mut command = Command::new(BAREWIRE);
        command.args(["serve", "--stack", "epoll", "--listen", "127.0.0.1:0"]);
        let ended = Server::fail(command.args(arguments));
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(answer),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
}
