//! Frames, read: what passes, and the one reason why something does not.

use barewire_tcp::packet::{
    ChecksumPolicy, Discard, Flags, FlowKey, Local, Segment, TcpOption, parse,
};
use barewire_tcp_testing::frame::TcpFrame;
use proptest::prelude::*;
use std::net::SocketAddr;

const CLIENT: &str = "10.77.0.1:40000";
const SERVER: &str = "10.77.0.2:8080";
const CLIENT_V6: &str = "[fd77::1]:40000";
const SERVER_V6: &str = "[fd77::2]:8080";

fn local() -> Local {
    let addresses = ["10.77.0.2", "fd77::2"].map(|address| address.parse().unwrap());
    Local::new(&addresses, &[80, 8080]).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn request() -> TcpFrame<'static> {
    TcpFrame {
        seq: 0x0102_0304,
        ack: 0x0506_0708,
        flags: Flags::ACK | Flags::PSH,
        window: 1234,
        payload: b"GET / HTTP/1.1\r\n\r\n",
        ..TcpFrame::new(address(CLIENT), address(SERVER))
    }
}

fn request_v6() -> TcpFrame<'static> {
    TcpFrame {
        source: address(CLIENT_V6),
        destination: address(SERVER_V6),
        ..request()
    }
}

fn parse_verified(frame: &[u8]) -> Result<Segment, Discard> {
    parse(frame, &local(), ChecksumPolicy::Verify)
}

/// What becomes of a frame of which `change` has changed bytes and nobody corrected checksums.
fn changed(frame: &TcpFrame<'_>, change: impl FnOnce(&mut Vec<u8>)) -> Result<Segment, Discard> {
    let mut bytes = frame.to_vec();
    change(&mut bytes);
    parse(&bytes, &local(), ChecksumPolicy::Trust)
}

#[test]
fn a_segment_is_small() {
    assert_eq!(size_of::<FlowKey>(), 24);
    assert!(size_of::<Segment>() <= 48);
}

#[test]
fn finds_the_parts_of_a_segment() {
    for vlan in [None, Some(0x6042)] {
        for ip_options in [&[][..], &[7, 7, 4, 0, 0, 0, 0, 0], &[1, 1, 0, 9]] {
            for mut frame in [request(), request_v6()] {
                frame.vlan = vlan;
                if frame.source.is_ipv4() {
                    frame.ip_options = ip_options;
                }
                frame.options = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
                let bytes = frame.to_vec();
                let segment = parse_verified(&bytes).unwrap();
                assert_eq!(segment.payload(&bytes), frame.payload);
                assert_eq!(
                    segment.l2(&bytes).len(),
                    if vlan.is_some() { 18 } else { 14 }
                );
                assert_eq!(segment.ip_packet(&bytes), &bytes[segment.ip_offset()..]);
                assert_eq!((segment.seq, segment.ack), (frame.seq, frame.ack));
                assert_eq!((segment.flags, segment.window), (frame.flags, frame.window));
                assert_eq!(segment.sequence_len(), 18);
                let stamps = TcpOption::Timestamps { value: 1, echo: 2 };
                assert!(segment.tcp_options(&bytes).eq([Ok(stamps)]));
                let flow = segment.flow;
                assert_eq!(flow.remote_address(), frame.source.ip());
                assert_eq!(flow.remote_port(), frame.source.port());
                assert_eq!(local().address(flow.local_index()), frame.destination.ip());
                assert_eq!(flow.local_port(), frame.destination.port());
                assert_eq!(flow.is_ipv6(), frame.source.is_ipv6());
            }
        }
    }
}

#[test]
fn a_flow_key_is_the_same_however_it_is_made() {
    for frame in [request(), request_v6()] {
        let segment = parse_verified(&frame.to_vec()).unwrap();
        let index = local().index_of(frame.destination.ip()).unwrap();
        let made = FlowKey::new(frame.source.ip(), 40000, index, 8080);
        assert_eq!(segment.flow, made);
        assert_eq!(segment.flow.to_bytes(), made.to_bytes());
    }
}

#[test]
fn ethernet_padding_is_not_payload() {
    let mut frame = request();
    frame.payload = b"";
    let mut bytes = frame.to_vec();
    bytes.resize(60, 0xff);
    let segment = parse_verified(&bytes).unwrap();
    assert_eq!(segment.payload(&bytes), b"");
    assert_eq!(segment.end(), 54);
}

#[test]
fn syn_and_fin_occupy_sequence_space() {
    let mut frame = request();
    frame.flags = Flags::SYN;
    assert_eq!(parse_verified(&frame.to_vec()).unwrap().sequence_len(), 19);
    frame.flags = Flags::FIN | Flags::ACK;
    assert_eq!(parse_verified(&frame.to_vec()).unwrap().sequence_len(), 19);
}

#[test]
fn every_truncation_is_noticed() {
    for frame in [request(), request_v6()] {
        let bytes = frame.to_vec();
        for len in 0..bytes.len() {
            assert_eq!(
                parse_verified(&bytes[..len]),
                Err(Discard::Truncated),
                "{len}"
            );
        }
    }
}

#[test]
fn every_flipped_bit_behind_the_link_layer_is_noticed() {
    let bytes = request().to_vec();
    for bit in 14 * 8..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(parse_verified(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn checksums_are_trusted_if_asked_for() {
    assert_eq!(
        changed(&request(), |bytes| bytes[24] ^= 1).map(|s| s.seq),
        Ok(0x0102_0304)
    );
    let mut bytes = request().to_vec();
    bytes[24] ^= 1;
    assert_eq!(parse_verified(&bytes), Err(Discard::IpChecksum));
    let mut bytes = request_v6().to_vec();
    bytes[70] ^= 1;
    assert_eq!(parse_verified(&bytes), Err(Discard::TcpChecksum));
}

/// What a Linux sender leaves in a segment whose checksum its device shall complete.
fn left_to_a_device(frame: &TcpFrame<'_>) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let segment = parse_verified(&bytes).unwrap();
    let (ip, tcp) = (segment.ip_offset(), segment.tcp_offset());
    let addresses = if frame.source.is_ipv4() {
        12..20
    } else {
        8..40
    };
    const PROTOCOL_TCP: u32 = 6;
    let mut sum = PROTOCOL_TCP + (bytes.len() - tcp) as u32;
    for word in bytes[ip..][addresses].chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[tcp + 16..tcp + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    bytes
}

#[test]
fn checksums_left_to_a_device_are_taken_if_asked_for_and_no_other_wrong_one() {
    for frame in [request(), request_v6()] {
        let bytes = left_to_a_device(&frame);
        let parse_as = |bytes: &[u8], policy| parse(bytes, &local(), policy).map(|s| s.is_partial);
        let or_partial = ChecksumPolicy::VerifyOrPartial;
        assert_eq!(parse_as(&bytes, or_partial), Ok(true));
        assert_eq!(parse_as(&frame.to_vec(), or_partial), Ok(false));
        assert_eq!(parse_as(&bytes, ChecksumPolicy::Trust), Ok(false));
        assert_eq!(
            parse_as(&bytes, ChecksumPolicy::Verify),
            Err(Discard::TcpChecksumPartial)
        );
        let checksum = parse_verified(&frame.to_vec()).unwrap().tcp_offset() + 16;
        for wrong in 0..=u16::MAX {
            let mut changed = bytes.clone();
            changed[checksum..checksum + 2].copy_from_slice(&wrong.to_be_bytes());
            let is_good = changed == bytes || changed == frame.to_vec();
            assert_eq!(
                parse_as(&changed, or_partial).is_ok(),
                is_good,
                "{wrong:04x}"
            );
        }
    }
}

#[test]
fn only_unicast_ethernet_with_one_tag_at_most() {
    assert_eq!(
        changed(&request(), |bytes| bytes[0] = 0xff),
        Err(Discard::GroupMac)
    );
    assert_eq!(
        changed(&request(), |bytes| bytes[6] |= 1),
        Err(Discard::GroupMac)
    );
    assert_eq!(
        changed(&request(), |bytes| bytes[13] = 6),
        Err(Discard::NotIp)
    );
    let tagged = TcpFrame {
        vlan: Some(5),
        ..request()
    };
    let twice = |bytes: &mut Vec<u8>| {
        bytes.splice(12..12, [0x81, 0x00, 0, 1]);
    };
    assert_eq!(changed(&tagged, twice), Err(Discard::NotIp));
}

#[test]
fn impossible_ip_headers() {
    for first in [0x55, 0x44, 0x40] {
        assert_eq!(
            changed(&request(), |bytes| bytes[14] = first),
            Err(Discard::IpHeader)
        );
    }
    let short = |bytes: &mut Vec<u8>| bytes[16..18].copy_from_slice(&[0, 19]);
    assert_eq!(changed(&request(), short), Err(Discard::IpHeader));
    assert_eq!(
        changed(&request_v6(), |bytes| bytes[14] = 0x45),
        Err(Discard::IpHeader)
    );
    for options in [&[7, 0, 0, 0], &[7, 5, 0, 0], &[1, 1, 1, 7]] {
        let frame = TcpFrame {
            ip_options: options,
            ..request()
        };
        assert_eq!(parse_verified(&frame.to_vec()), Err(Discard::IpHeader));
    }
}

#[test]
fn fragments_source_routes_and_other_protocols() {
    for fragment in [0x2000u16, 0x0001, 0x3fff] {
        let cut = |bytes: &mut Vec<u8>| bytes[20..22].copy_from_slice(&fragment.to_be_bytes());
        assert_eq!(changed(&request(), cut), Err(Discard::Fragment));
    }
    assert_eq!(
        changed(&request_v6(), |bytes| bytes[20] = 44),
        Err(Discard::Fragment)
    );
    for route in [131, 137] {
        let options = &[1, route, 3, 4];
        let frame = TcpFrame {
            ip_options: options,
            ..request()
        };
        assert_eq!(parse_verified(&frame.to_vec()), Err(Discard::SourceRoute));
    }
    assert_eq!(
        changed(&request(), |bytes| bytes[23] = 17),
        Err(Discard::NotTcp)
    );
    assert_eq!(
        changed(&request_v6(), |bytes| bytes[20] = 0),
        Err(Discard::NotTcp)
    );
}

#[test]
fn only_what_is_served() {
    let with = |destination: &str, source: &str| {
        let frame = TcpFrame::new(address(source), address(destination));
        parse_verified(&frame.to_vec()).map(|segment| segment.flow.local_port())
    };
    assert_eq!(with("10.77.0.2:80", CLIENT), Ok(80));
    assert_eq!(with("10.77.0.3:80", CLIENT), Err(Discard::NotLocalAddress));
    assert_eq!(
        with("[fd77::3]:80", CLIENT_V6),
        Err(Discard::NotLocalAddress)
    );
    assert_eq!(with("10.77.0.2:81", CLIENT), Err(Discard::NotLocalPort));
    // An IPv4 address of ours in an IPv6 header.
    assert_eq!(
        with("[::ffff:10.77.0.2]:80", CLIENT_V6),
        Err(Discard::NotLocalAddress)
    );
}

#[test]
fn impossible_sources() {
    for source in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        let frame = TcpFrame::new(address(&format!("{source}:1")), address(SERVER));
        assert_eq!(
            parse_verified(&frame.to_vec()),
            Err(Discard::MartianSource),
            "{source}"
        );
    }
    for source in ["::", "::1", "ff02::1", "::ffff:10.77.0.1"] {
        let frame = TcpFrame::new(address(&format!("[{source}]:1")), address(SERVER_V6));
        assert_eq!(
            parse_verified(&frame.to_vec()),
            Err(Discard::MartianSource),
            "{source}"
        );
    }
    for own in [SERVER, SERVER_V6] {
        let land = TcpFrame::new(address(own), address(own));
        assert_eq!(parse_verified(&land.to_vec()), Err(Discard::MartianSource));
    }
}

#[test]
fn impossible_tcp_headers() {
    assert_eq!(
        changed(&request(), |bytes| bytes[46] = 0x40),
        Err(Discard::TcpHeader)
    );
    assert_eq!(
        changed(&request(), |bytes| bytes[46] = 0xf0),
        Err(Discard::TcpHeader)
    );
    let no_port = TcpFrame::new(address("10.77.0.1:0"), address(SERVER));
    assert_eq!(parse_verified(&no_port.to_vec()), Err(Discard::TcpHeader));
}

#[test]
fn contradicting_control_bits() {
    let (fin, syn, rst, ack) = (Flags::FIN, Flags::SYN, Flags::RST, Flags::ACK);
    for flags in [
        syn,
        syn | ack,
        ack,
        fin | ack,
        rst,
        rst | ack,
        Flags(0xc0) | syn,
    ] {
        let frame = TcpFrame { flags, ..request() };
        assert_eq!(parse_verified(&frame.to_vec()).map(|s| s.flags), Ok(flags));
    }
    for flags in [
        Flags(0),
        fin,
        Flags::PSH,
        syn | fin,
        syn | rst,
        fin | rst,
        syn | fin | ack,
    ] {
        let frame = TcpFrame { flags, ..request() };
        assert_eq!(
            parse_verified(&frame.to_vec()),
            Err(Discard::TcpFlags),
            "{flags:?}"
        );
    }
}

proptest! {
    /// Whatever arrives, all accessors of what was parsed are in bounds.
    #[test]
    fn no_frame_causes_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), v6: bool, vlan: bool,
        patch in prop::collection::vec((0usize..90, any::<u8>()), 0..6),
        whole: bool,
    ) {
        if whole {
            let base = if v6 { request_v6() } else { request() };
            bytes = TcpFrame { vlan: vlan.then_some(1), payload: &bytes, ..base }.to_vec();
        }
        for (at, value) in patch {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(segment) = parse(&bytes, &local(), ChecksumPolicy::Trust) {
            prop_assert!(segment.end() <= bytes.len());
            prop_assert!(segment.l2(&bytes).len() >= 14);
            prop_assert_eq!(segment.payload(&bytes).len(), segment.payload_len());
            prop_assert!(segment.tcp_options(&bytes).count() <= 40);
            prop_assert!(segment.ip_packet(&bytes).len() >= 40);
        }
    }
}
