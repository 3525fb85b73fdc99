//! "Packet too big", read.

use barewire_tcp::packet::icmp::{NotTooBig, TooBig, parse_too_big};
use barewire_tcp::packet::{ChecksumPolicy, FlowKey, Local};
use barewire_tcp_testing::frame::TcpFrame;
use barewire_tcp_testing::icmp::too_big;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const OURS: [&str; 2] = ["10.77.0.2:80", "[fd77::2]:80"];
const THEIRS: [&str; 2] = ["10.77.0.1:40000", "[fd77::1]:40000"];

fn local() -> Local {
    let addresses = ["10.77.0.2", "fd77::2"].map(|address| address.parse().unwrap());
    Local::new(&addresses, &[80]).unwrap()
}

/// A router's message about a segment of ours of 1,000 bytes, quoted up to its sequence number.
fn message(is_ipv6: bool, mtu: u16) -> Vec<u8> {
    let address = |texts: [&str; 2]| texts[usize::from(is_ipv6)].parse::<SocketAddr>().unwrap();
    let sent = TcpFrame {
        seq: 0x0102_0304,
        payload: &[7; 1_000],
        ..TcpFrame::new(address(OURS), address(THEIRS))
    };
    let (router, header_len): (IpAddr, usize) = match is_ipv6 {
        false => ([192, 0, 2, 1].into(), 20),
        true => ("2001:db8::1".parse().unwrap(), 40),
    };
    too_big(&sent.to_vec(), router, mtu, header_len + 8)
}

fn parse(frame: &[u8]) -> Result<TooBig, NotTooBig> {
    parse_too_big(frame, &local(), ChecksumPolicy::Verify)
}

#[test]
fn says_which_flow_which_segment_and_which_size() {
    for is_ipv6 in [false, true] {
        let remote: SocketAddr = THEIRS[usize::from(is_ipv6)].parse().unwrap();
        let expected = TooBig {
            flow: FlowKey::new(remote.ip(), 40_000, u8::from(is_ipv6), 80),
            seq: 0x0102_0304,
            mtu: 1_000,
        };
        assert_eq!(parse(&message(is_ipv6, 1_000)), Ok(expected));
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    for is_ipv6 in [false, true] {
        let good = message(is_ipv6, 1_000);
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_err(), "{len} bytes");
        }
        // IPv6 has no checksum over its own header: what of it is not in the pseudo-header decides nothing.
        let first = if is_ipv6 { 14 + 8 } else { 14 };
        for bit in first * 8..good.len() * 8 {
            let mut changed = good.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&changed).is_err(), "bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn no_frame_causes_a_panic(
        is_ipv6: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        trusts: bool,
    ) {
        let mut frame = message(is_ipv6, 1_000);
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        let len = cut.index(frame.len() + 1);
        let checksums = if trusts { ChecksumPolicy::Trust } else { ChecksumPolicy::Verify };
        for frame in [&frame[..], &frame[..len]] {
            if let Ok(found) = parse_too_big(frame, &local(), checksums) {
                prop_assert!(local().has_port(found.flow.local_port()));
            }
        }
    }
}
