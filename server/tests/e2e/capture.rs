//! `barewire capture` shows what passed, to the byte, and costs the server nothing but time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use std::time::Duration;

use barewire_lab::{Lab, SERVER_DEVICE};
use etherparse::{SlicedPacket, TransportSlice};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::bypass::lab;
use crate::server::{BAREWIRE, PATIENCE, Server, wait_until};
use crate::wrong_use::{FAILURE, USAGE, expect_refusal};

/// A server that can be captured, which has given up all its rights, and a place for files.
struct Scene {
    server: Server,
    directory: TempDir,
}

impl Scene {
    fn in_lab(lab: &Lab) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let mut command = lab.server_command();
        command.args([
            BAREWIRE,
            "serve",
            "--interface",
            SERVER_DEVICE,
            "--user",
            "nobody",
        ]);
        command
            .arg("--control")
            .arg(directory.path().join("control"));
        Scene {
            server: Server::start(&mut command),
            directory,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses[0]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("capture.pcapng")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BAREWIRE);
        command
            .args(["capture", "--control"])
            .arg(self.directory.path().join("control"));
        command.arg("-w").arg(self.file()).args(arguments);
        command
    }

    /// Waits until no connection is left, and so no frame on its way.
    fn comes_to_rest(&self) {
        let mut status = Command::new(BAREWIRE);
        status.args(["status", "--json", "--interval-ms", "0", "--control"]);
        status.arg(self.directory.path().join("control"));
        wait_until("no connection is left", || {
            let status = status.output().unwrap();
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
            status["connections"]["total"] == 0
        });
    }

    /// A capture that has begun.
    fn capture(&self, arguments: &[&str]) -> Capture {
        let mut child = self
            .command(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert!(line.starts_with("capturing"), "{line}");
        Capture { child, says }
    }
}

struct Capture {
    child: Child,
    says: BufReader<std::process::ChildStderr>,
}

impl Capture {
    /// Ends it, and returns what it said.
    fn interrupt(self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.wait()
    }

    fn wait(mut self) -> String {
        let mut text = String::new();
        self.says.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        text
    }
}

/// `(captured, filtered out, lost)` of what a capture said at its end.
fn counts(said: &str) -> (u64, u64, u64) {
    let numbers = said.split_whitespace().filter_map(|word| word.parse().ok());
    match numbers.collect::<Vec<u64>>()[..] {
        [captured, filtered_out, lost] => (captured, filtered_out, lost),
        _ => panic!("{said}"),
    }
}

/// What the client sent and received on one connection, as it saw it.
fn exchange(lab: &Lab, address: SocketAddr) -> (Vec<u8>, Vec<u8>) {
    let request = b"GET /plaintext HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".to_vec();
    let mut stream = lab.client(|| TcpStream::connect(address)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&request).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    (request, response)
}

/// The bytes of each direction (1 in, 2 out) by sequence number, and the flags that were seen.
fn reassemble(path: &PathBuf) -> BTreeMap<u32, (Vec<u8>, String)> {
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let mut segments: BTreeMap<u32, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
    let mut flags: BTreeMap<u32, String> = BTreeMap::new();
    let mut last = Duration::ZERO;
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap() else {
            continue;
        };
        assert!(packet.timestamp >= last, "in the order of time");
        last = packet.timestamp;
        let EnhancedPacketOption::Flags(direction) = packet.options[0] else {
            panic!("no direction")
        };
        let parsed = SlicedPacket::from_ethernet(&packet.data).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = parsed.transport else {
            continue;
        };
        let seen = flags.entry(direction).or_default();
        if tcp.syn() {
            seen.push('S');
        }
        if tcp.fin() {
            seen.push('F');
        }
        let bytes = tcp.payload().to_vec();
        if !bytes.is_empty() {
            segments
                .entry(direction)
                .or_default()
                .insert(tcp.sequence_number(), bytes);
        }
    }
    let stream = |(direction, flags): (u32, String)| {
        let bytes = segments
            .get(&direction)
            .map(|parts| parts.values().flatten().copied().collect());
        (direction, (bytes.unwrap_or_default(), flags))
    };
    flags.into_iter().map(stream).collect()
}

/// Handshake, request, response and end, with the bytes that the client saw; tcpdump finds no fault.
#[test]
fn a_request_is_captured_as_the_client_saw_it() {
    let Some(lab) = lab() else { return };
    let scene = Scene::in_lab(&lab);
    for address in scene.server.addresses.clone() {
        let capture = scene.capture(&[]);
        let (request, response) = exchange(&lab, address);
        scene.comes_to_rest();
        let (captured, filtered_out, lost) = counts(&capture.interrupt());
        assert!(captured >= 7, "{captured}");
        assert_eq!((filtered_out, lost), (0, 0));

        let streams = reassemble(&scene.file());
        assert_eq!(streams[&1], (request, "SF".to_owned()));
        assert_eq!(streams[&2], (response, "SF".to_owned()));

        match Command::new("tcpdump")
            .args(["-nn", "-vv", "-A", "-r"])
            .arg(scene.file())
            .output()
        {
            Err(error) => eprintln!("SKIPPED: tcpdump: {error}"),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{output:?}");
                assert!(
                    !text.contains("incorrect") && !text.contains("bad cksum"),
                    "{text}"
                );
                assert_eq!(text.matches("(correct)").count() as u64, captured, "{text}");
                for part in [
                    "Flags [S]",
                    "Flags [S.]",
                    "GET /plaintext",
                    "200 OK",
                    "Flags [F.]",
                ] {
                    assert!(text.contains(part), "{part}: {text}");
                }
            }
        }
    }
    scene.server.terminate().served();
}

/// Under load each frame is captured or counted as lost, and the server answers every request.
#[test]
fn what_a_capture_loses_it_counts_and_the_server_loses_nothing() {
    let Some(lab) = lab() else { return };
    let scene = Scene::in_lab(&lab);
    let capture = scene.capture(&["--snap-bytes", "64"]);
    let url = format!("http://{}", scene.address());
    let load = [
        "load",
        "--target",
        &url,
        "--requests",
        "50000",
        "--concurrency",
        "64",
        "--timeout-ms",
        "60000",
    ];
    lab.client_runs(&[&[BAREWIRE], &load[..]].concat());
    scene.comes_to_rest();
    let (captured, _, lost) = counts(&capture.interrupt());
    let ended = scene.server.terminate();
    let frames = |name| ended.counters("link", name).iter().sum::<u64>();
    assert_eq!(captured + lost, frames("rx_frames") + frames("tx_frames"));
    assert!(captured > 1000, "{captured}");
    assert!(ended.served() >= 50_000);
}

#[test]
fn a_filter_keeps_what_matches_and_a_count_ends_it() {
    let Some(lab) = lab() else { return };
    let scene = Scene::in_lab(&lab);
    let capture = scene.capture(&["--filter", "sent and syn and src port 8080", "--count", "2"]);
    for _ in 0..2 {
        exchange(&lab, scene.address());
    }
    let (captured, filtered_out, _) = counts(&capture.wait());
    assert_eq!(captured, 2);
    assert!(filtered_out >= 2, "{filtered_out}");
    let streams = reassemble(&scene.file());
    assert_eq!(streams.keys().collect::<Vec<_>>(), [&2]);
    assert_eq!(streams[&2].1, "SS");

    // One at a time; and the next one can begin when it has ended.
    let first = scene.capture(&[]);
    expect_refusal(&mut scene.command(&[]), FAILURE, &["another capture"]);
    first.interrupt();
    let last = scene.capture(&[]);
    exchange(&lab, scene.address());
    // The server does not wait for a capture when it ends.
    let file = scene.file();
    wait_until("the response is captured", || {
        let captured = fs::read(&file).unwrap();
        captured.windows(6).any(|bytes| bytes == b"200 OK")
    });
    assert_eq!(scene.server.terminate().served(), 3);
    assert!(last.wait().contains("the server has ended"));
    assert!(reassemble(&file)[&2].0.starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn wrong_use_is_refused() {
    let filter = ["capture", "-w", "-", "--filter", "port http"];
    expect_refusal(
        Command::new(BAREWIRE).args(filter),
        USAGE,
        &["http", "a port"],
    );
    if cfg!(feature = "epoll") {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("control");
        let control = control.to_str().unwrap();
        let server = Server::on_loopback("epoll", &["--control", control]);
        let mut command = Command::new(BAREWIRE);
        command.args(["capture", "-w", "-", "--control", control]);
        expect_refusal(&mut command, FAILURE, &["tcpdump"]);
        server.terminate().served();
    }
}
