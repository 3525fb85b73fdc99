//! Clients that begin a handshake and do not go on, more than may shake hands at once, while others are served.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use barewire_tls::{ClientIdentity, Trust};

use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, PATIENCE, Server, wait_until};
use crate::tls::Certificate;

const HANDSHAKES_MAX: u64 = 16;
const LIMITS: [&str; 6] = [
    "--cores",
    "0",
    "--tls-handshakes-max",
    "16",
    "--tls-handshake-timeout-ms",
    "3000",
];
/// Of each kind of attacker.
const ATTACKERS: usize = 100;

#[test]
fn clients_are_served_while_others_do_not_complete_their_handshakes() {
    let certificate = Certificate::new(&["localhost", "127.0.0.1"]);
    let options = certificate.options();
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    arguments.extend(LIMITS);
    for stack in STACKS {
        let mut command = Command::new(BAREWIRE);
        command.args(["serve", "--stack", stack, "--listen", "127.0.0.1:0"]);
        command.args(["--tls-listen", "127.0.0.1:0"]);
        let server = Server::start(command.args(&arguments));
        attack(server.addresses[1], &certificate);
        expect_limits(stack, server);
    }
    #[cfg(feature = "xdp")]
    if let Some(lab) = crate::bypass::lab() {
        let certificate = Certificate::new(&["10.77.0.2"]);
        let options = certificate.options();
        let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
        arguments.extend(LIMITS);
        let server = crate::bypass::serve(&lab, &arguments);
        lab.client(|| attack(server.addresses[1], &certificate));
        expect_limits("xdp", server);
    }
}

fn attack(address: SocketAddr, certificate: &Certificate) {
    let mut served = Client::connect(address, certificate).expect("it is the first");
    served.ask().unwrap();

    let hello = hello(certificate);
    let _silent: Vec<TcpStream> = (0..ATTACKERS)
        .map(|_| {
            let mut silent = TcpStream::connect(address).unwrap();
            // It may have been refused already.
            let _ = silent.write_all(&hello);
            silent
        })
        .collect();
    let mut slow: Vec<TcpStream> = (0..ATTACKERS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for byte in &hello[..50] {
        for client in &mut slow {
            let _ = client.write_all(&[*byte]);
        }
        served.ask().expect("a connection with keys is served");
    }
    // Their places become free, however slowly they go on.
    let mut rest = hello[50..].iter().cycle();
    wait_until("another client is served", || {
        for client in &mut slow {
            let _ = client.write_all(&[*rest.next().unwrap()]);
        }
        let newcomer = Client::connect(address, certificate);
        newcomer.and_then(|mut client| client.ask()).is_ok()
    });
    served.ask().unwrap();
}

fn expect_limits(stack: &str, server: Server) {
    let ended = server.terminate();
    assert_eq!(ended.code, Some(0), "{stack}: {}", ended.stderr);
    let sum = |name| ended.counters("tls", name).iter().sum::<u64>();
    assert!(sum("refused_handshaking") > 0, "{stack}: {}", ended.stderr);
    assert!(sum("failed_timeout") > 0, "{stack}: {}", ended.stderr);
    // Of those that were not refused, none stayed.
    let attackers = 2 * ATTACKERS as u64;
    assert!(sum("failed_timeout") <= attackers, "{}", ended.stderr);
    let handshaking = ended.counters("tls", "handshaking");
    assert!(
        handshaking.iter().all(|&count| count <= HANDSHAKES_MAX),
        "{stack}: {handshaking:?}"
    );
}

/// The first thing that a client says.
fn hello(certificate: &Certificate) -> Vec<u8> {
    struct Wire(Vec<u8>);

    impl Read for Wire {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Ok(0)
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut wire = Wire(Vec::new());
    let mut client = identity(certificate, "localhost")
        .around(&mut wire)
        .unwrap();
    // Nobody answers.
    client.flush().unwrap_err();
    drop(client);
    wire.0
}

fn identity(certificate: &Certificate, name: &str) -> ClientIdentity {
    let trust = Trust::Authorities(certificate.pem().into());
    ClientIdentity::new(name, &trust, &[b"http/1.1"]).unwrap()
}

/// A client that behaves.
struct Client<T>(BufReader<T>);

impl Client<()> {
    fn connect(
        address: SocketAddr,
        certificate: &Certificate,
    ) -> std::io::Result<Client<impl Read + Write>> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let identity = identity(certificate, &address.ip().to_string());
        Ok(Client(BufReader::new(identity.around(stream).unwrap())))
    }
}

impl<T: Read + Write> Client<T> {
    fn ask(&mut self) -> std::io::Result<()> {
        let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        self.0.get_mut().write_all(request)?;
        let mut line = String::new();
        while line != "ok\n" {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}
