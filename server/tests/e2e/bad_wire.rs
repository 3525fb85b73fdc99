//! Two real TCPs on a bad wire: the kernel's, under real clients, and ours.
//!
//! The faults are injected between our AF_XDP link and the shard. What hits which frame follows from a
//! seed, but when the kernel sends what does not, so a seed repeats the weather and not the day.
//! `BAREWIRE_TEST_SEED` chooses another one.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;

use barewire::site::byte_at;
use barewire_lab::Lab;
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;

use crate::bypass::assert_no_errors;
use crate::clients::Files;
use crate::http::Client;
use crate::server::{BAREWIRE, Ended, PATIENCE, Server};

/// Losses are one thing, everything that goes wrong at once another.
const TROUBLE: &str = "duplicate=20,corrupt=20,reorder=50,reorder_delay_us=2000,jitter_us=500";

#[test]
fn curl_gets_and_sends_every_byte_over_a_bad_wire() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    for (wire, bytes) in [
        (format!("loss=5,burst=1,burst_frames=10,{TROUBLE}"), 150_000),
        (format!("loss=50,{TROUBLE}"), 50_000),
        (format!("loss=100,{TROUBLE}"), 20_000),
        ("loss=200".to_owned(), 6_000),
    ] {
        let server = serve(&lab, &wire);
        let files = Files::new();
        let addresses = server.addresses.clone();
        let failed: Vec<String> = thread::scope(|scope| {
            let transfers: Vec<_> = (0..TRANSFERS)
                .map(|number| {
                    let address = addresses[number as usize % addresses.len()];
                    let (lab, directory) = (&lab, files.path());
                    scope.spawn(move || transfer(lab, address, directory, number, bytes).err())
                })
                .collect();
            let outcomes = transfers.into_iter();
            outcomes
                .filter_map(|transfer| transfer.join().unwrap())
                .collect()
        });
        let ended = server.terminate();
        assert!(failed.is_empty(), "{wire}: {failed:?}\n{}", ended.stderr);
        assert_eq!(ended.served(), TRANSFERS);
        spoilt(&ended);
    }
}

/// Half of them over IPv4, and half of either uploads.
const TRANSFERS: u64 = 8;

/// Downloads a stream, or uploads it to be echoed, and compares.
fn transfer(
    lab: &Lab,
    address: SocketAddr,
    directory: &Path,
    number: u64,
    bytes: u64,
) -> Result<(), String> {
    let (seed, is_upload) = (number, (number / 2).is_multiple_of(2));
    let expected: Vec<u8> = (0..bytes).map(|offset| byte_at(seed, offset)).collect();
    let file = |name| directory.join(format!("{name}-{seed}"));
    let (there, back) = (file("there"), file("back"));
    let mut curl = lab.client_command();
    curl.args(["curl", "--silent", "--show-error", "--globoff", "--fail"])
        .args(["--max-time", "120", "--output"])
        .arg(&back);
    if is_upload {
        std::fs::write(&there, &expected).unwrap();
        curl.args(["--header", "Expect:", "--upload-file"])
            .arg(&there)
            .arg(format!("http://{address}/test/echo"));
    } else {
        curl.arg(format!(
            "http://{address}/test/stream?bytes={bytes}&seed={seed}"
        ));
    }
    let output = curl.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    match std::fs::read(&back).unwrap() == expected {
        true => Ok(()),
        false => Err(format!(
            "what came back is not the stream with the seed {seed}"
        )),
    }
}

#[test]
fn wrk_sees_no_error_over_a_bad_wire() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let server = serve(&lab, &format!("loss=50,{TROUBLE}"));
    for address in &server.addresses {
        let url = format!("http://{address}/plaintext");
        let report = lab.client_runs(&[
            "wrk",
            "--threads",
            "2",
            "--connections",
            "128",
            "--duration",
            "3s",
            "--timeout",
            "60s",
            &url,
        ]);
        assert_no_errors(&report);
    }
    let ended = server.terminate();
    assert!(ended.served() > 1_000, "{}", ended.stdout.join("\n"));
    spoilt(&ended);
}

#[test]
fn every_event_is_counted_once_over_a_bad_wire() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let server = serve(&lab, &format!("loss=100,{TROUBLE}"));
    let target = format!("http://{}", server.addresses[0]);
    // It compares what it sent with what /stats says, and fails if they differ.
    lab.client_runs(&[
        BAREWIRE,
        "load",
        "--target",
        &target,
        "--requests",
        "4000",
        "--concurrency",
        "400",
        "--timeout-ms",
        "60000",
    ]);
    server.terminate().served();
}

/// What the README says of events whose client ends: one that was acknowledged is counted, one
/// that did not arrive as a whole is not, and one in between may be, once.
#[test]
fn clients_that_die_leave_no_doubt_but_about_what_they_had_sent_in_full() {
    const CLIENTS: usize = 60;
    const ACKNOWLEDGED: f64 = 1.0;
    const IN_DOUBT: f64 = 1_000.0;
    const CUT: f64 = 1e9;

    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let server = serve(&lab, &format!("loss=100,{TROUBLE}"));
    let address = server.addresses[0];
    let (acknowledged, in_doubt): (u32, u32) = lab.client(|| {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    scope.spawn(move || {
                        let mut client = EventClient::connect(address, number);
                        for _ in 0..3 {
                            client.send(ACKNOWLEDGED, false);
                            client.is_acknowledged();
                        }
                        let is_cut = number % 2 == 0;
                        client.send(if is_cut { CUT } else { IN_DOUBT }, is_cut);
                        client.dies();
                        (3, u32::from(!is_cut))
                    })
                })
                .collect();
            let counts = clients.into_iter().map(|client| client.join().unwrap());
            counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
        })
    });

    let stats = lab.client(|| Client::connect(address)).get("/stats");
    let stats: Value = serde_json::from_slice(&stats.body).unwrap();
    let number = |name: &str| stats[name].as_f64().unwrap();
    let counted_in_doubt = number("totalRequests") - f64::from(acknowledged);
    assert!(
        (0.0..=f64::from(in_doubt)).contains(&counted_in_doubt),
        "{acknowledged} acknowledged, {in_doubt} in doubt: {stats}"
    );
    assert_eq!(
        number("sum"),
        f64::from(acknowledged) * ACKNOWLEDGED + counted_in_doubt * IN_DOUBT,
        "{stats}"
    );
    assert_eq!(number("uniqueUsers"), number("totalRequests"), "{stats}");
    server.terminate().served();
}

/// Sends events, each of a user of its own.
struct EventClient {
    stream: TcpStream,
    number: usize,
    sent: usize,
}

impl EventClient {
    fn connect(address: SocketAddr, number: usize) -> EventClient {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        EventClient {
            stream,
            number,
            sent: 0,
        }
    }

    /// Sends an event, or all of it but the last byte.
    fn send(&mut self, value: f64, is_cut: bool) {
        let body = format!(
            r#"{{"userId":"{}-{}","value":{value}}}"#,
            self.number, self.sent
        );
        self.sent += 1;
        let length = body.len();
        let request =
            format!("POST /event HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}");
        let bytes = &request.as_bytes()[..request.len() - usize::from(is_cut)];
        self.stream.write_all(bytes).unwrap();
    }

    fn is_acknowledged(&mut self) {
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n\r\n") {
            let mut buffer = [0; 256];
            match self.stream.read(&mut buffer) {
                Ok(received @ 1..) => reply.extend_from_slice(&buffer[..received]),
                Ok(_) => panic!("closed after {}", String::from_utf8_lossy(&reply)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(reply.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }

    /// Ends with an RST, whatever is under way.
    fn dies(self) {
        set_socket_linger(&self.stream, Some(std::time::Duration::ZERO)).unwrap();
    }
}

/// A server behind a bad wire, patient with those who suffer from it.
fn serve(lab: &Lab, wire: &str) -> Server {
    let seed = std::env::var("BAREWIRE_TEST_SEED").unwrap_or_else(|_| "1".into());
    let wire = format!("seed={seed},{wire}");
    eprintln!("--test-faults {wire}");
    let patience = [
        "--body-timeout-ms",
        "120000",
        "--head-timeout-ms",
        "120000",
        // For the others: connections of clients that are gone.
        "--drain-timeout-ms",
        "500",
    ];
    let arguments = [&["--test-routes", "--test-faults", &wire], &patience[..]];
    crate::bypass::serve(lab, &arguments.concat())
}

/// The wire was as bad as it should be, and what it spoilt was noticed.
fn spoilt(ended: &Ended) {
    for (part, counter) in [("faults", "lost"), ("tcp", "retrans_segs")] {
        let count: u64 = ended.counters(part, counter).iter().sum();
        assert!(count > 0, "{part} {counter}\n{}", ended.stderr);
    }
}
