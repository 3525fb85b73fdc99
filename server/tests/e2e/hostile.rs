//! Frames that no correct peer sends are counted and dropped, and disturb no connection.

use std::net::{Ipv4Addr, SocketAddr};

use barewire_lab::{Lab, SERVER_DEVICE};
use barewire_tcp::packet::Flags;
use barewire_tcp_testing::frame::TcpFrame;

use crate::http::Client;
use crate::raw::{Wire, mac};
use crate::server::{BAREWIRE, Server};

/// Makes a frame.
type Kind<'a> = dyn Fn(&mut SplitMix64) -> Vec<u8> + 'a;

/// Frames of each kind.
const FRAMES: u64 = 2_000;
/// How many are sent at once.
const BATCH: u64 = 200;
const IP_HEADER: usize = 14;
const TCP_HEADER: usize = IP_HEADER + 20;

#[test]
fn random_truncated_and_damaged_frames_are_counted_and_dropped() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    let mut command = lab.server_command();
    let server = Server::start(command.args([
        BAREWIRE,
        "serve",
        "--interface",
        SERVER_DEVICE,
        "--address",
        "10.77.0.2",
    ]));
    let address = server.addresses[0];
    // One connection lives through all of it.
    let mut witness = lab.client(|| Client::connect(address));
    assert_eq!(witness.get("/plaintext").status, 200);

    let mac = mac(&lab.server_runs(&["cat", &format!("/sys/class/net/{SERVER_DEVICE}/address")]));
    let wire = lab.client(Wire::open);
    let mut random = SplitMix64(0x5eed);
    let whole = syn(address, mac).to_vec();
    let kinds: [&Kind; 5] = [
        &|random| noise(random, mac),
        // The IP header promises more than there is.
        &|random| whole[..whole.len() - 1 - random.below(20)].to_vec(),
        // Another time to live, and another TCP checksum: the frames still look like ones for us.
        &|random| damaged(&whole, IP_HEADER + 8, random),
        &|random| damaged(&whole, TCP_HEADER + 16, random),
        &|_| {
            let flags = Flags::SYN | Flags::FIN;
            TcpFrame {
                flags,
                ..syn(address, mac)
            }
            .to_vec()
        },
    ];
    for kind in kinds {
        for _ in 0..FRAMES / BATCH {
            (0..BATCH).for_each(|_| wire.send(&kind(&mut random)));
            // In order behind them: its answer says that they were looked at, so no ring overflows.
            assert_eq!(witness.get("/plaintext").status, 200);
        }
    }

    drop(witness);
    assert_eq!(
        lab.client(|| Client::connect(address)).get("/json").status,
        200
    );
    let ended = server.terminate();
    assert_eq!(ended.served(), 2 + kinds.len() as u64 * FRAMES / BATCH);
    let count = |part, name| ended.counters(part, name).iter().sum::<u64>();
    assert_eq!(
        count("discards", "discard_tcp_checksum"),
        FRAMES,
        "{}",
        ended.stderr
    );
    assert_eq!(
        count("discards", "discard_ip_checksum"),
        FRAMES,
        "{}",
        ended.stderr
    );
    assert_eq!(
        count("discards", "discard_tcp_flags"),
        FRAMES,
        "{}",
        ended.stderr
    );
    // Those are not redirected at all: the program sees that there is nothing to serve.
    let passed = [
        "passed_not_ip",
        "passed_malformed",
        "passed_other_address",
        "passed_not_tcp",
        "passed_fragment",
    ];
    let passed: u64 = passed.iter().map(|name| count("redirect", name)).sum();
    let truncated = count("discards", "discard_truncated");
    assert!(passed + truncated >= 2 * FRAMES, "{}", ended.stderr);
    assert_eq!(count("tcp", "passive_opens"), 2, "{}", ended.stderr);
}

/// A SYN for us, right in every detail.
fn syn(server: SocketAddr, destination_mac: [u8; 6]) -> TcpFrame<'static> {
    let client = SocketAddr::from((Ipv4Addr::new(10, 77, 0, 1), 50_000));
    TcpFrame {
        destination_mac,
        flags: Flags::SYN,
        ..TcpFrame::new(client, server)
    }
}

/// Any bytes behind our MAC address; every other frame claims to be IP.
fn noise(random: &mut SplitMix64, destination_mac: [u8; 6]) -> Vec<u8> {
    let len = 14 + random.below(1487);
    let mut frame: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    frame[..6].copy_from_slice(&destination_mac);
    if random.below(2) == 0 {
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
    }
    frame
}

/// `frame` with another byte at `at`.
fn damaged(frame: &[u8], at: usize, random: &mut SplitMix64) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] ^= 1 + random.below(255) as u8;
    frame
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
