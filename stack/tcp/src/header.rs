//! The headers of a segment, written in front of a payload whose sum is known.
//!
//! What the direct path sends has always the same shape, so its headers are twenty words, and the payload is not read
//! again for the checksum. Options, which only an ACK without payload has, lie where the payload would be.

use std::net::IpAddr;

use crate::control::Direction;
use crate::packet::{Flags, FlowKey, Local};
use crate::sender::checksum::fold;

/// What differs from one segment of a flow to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub flags: Flags,
    /// Bytes of what follows the headers that are options, a multiple of four.
    pub options_len: u8,
}

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const HOP_LIMIT: u8 = 64;
const PROTOCOL_TCP: u8 = 6;

/// Bytes of the IP and TCP headers of a segment of `flow`, without options: where its payload begins.
#[inline]
pub(crate) fn bytes(flow: &FlowKey) -> usize {
    if flow.is_ipv6() {
        IPV6_BYTES + TCP_BYTES
    } else {
        IPV4_BYTES + TCP_BYTES
    }
}

/// Writes the headers to the front of `packet`, which is the whole IP packet with its options and payload in place.
/// `payload_sum` is that of both, [`copy_and_sum`](crate::sender::checksum::copy_and_sum).
///
/// # Panics
///
/// If `packet` is shorter than its headers, or longer than an IP packet can be, in debug builds.
#[inline]
pub(crate) fn write(
    packet: &mut [u8],
    local: &Local,
    flow: &FlowKey,
    direction: Direction,
    header: &Header,
    payload_sum: u16,
) {
    debug_assert!(packet.len() <= usize::from(u16::MAX));
    let total = packet.len() as u16;
    let (tcp, addresses) = match flow.remote_ipv4() {
        Some(peer) => {
            let ours = local.ipv4(flow.local_index());
            let (source, destination) = match direction {
                Direction::ToPeer => (ours, peer),
                Direction::FromPeer => (peer, ours),
            };
            let (ip, tcp) = packet.split_at_mut(IPV4_BYTES);
            write_ipv4(ip, total, source, destination);
            (tcp, u64::from(source) + u64::from(destination))
        }
        None => {
            let (ours, peer) = (local.address(flow.local_index()), flow.remote_address());
            let (source, destination) = match direction {
                Direction::ToPeer => (ours, peer),
                Direction::FromPeer => (peer, ours),
            };
            let (ip, tcp) = packet.split_at_mut(IPV6_BYTES);
            ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, PROTOCOL_TCP, HOP_LIMIT]);
            ip[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
            ip[8..24].copy_from_slice(&octets(source));
            ip[24..40].copy_from_slice(&octets(destination));
            (tcp, sum(&ip[8..40]))
        }
    };
    let (source_port, destination_port) = match direction {
        Direction::ToPeer => (flow.local_port(), flow.remote_port()),
        Direction::FromPeer => (flow.remote_port(), flow.local_port()),
    };
    debug_assert!(header.options_len.is_multiple_of(4) && header.options_len <= 40);
    let offset_words = (TCP_BYTES as u8 + header.options_len) / 4;
    let offset_and_flags = u16::from_be_bytes([offset_words << 4, header.flags.0]);
    let ports = word(source_port, destination_port);
    let offset_flags_window = word(offset_and_flags, header.window);
    // The checksum is of the numbers, so that nothing is read back.
    let checksum = !fold(
        addresses
            + u64::from(PROTOCOL_TCP)
            + tcp.len() as u64
            + u64::from(ports)
            + u64::from(header.seq)
            + u64::from(header.ack)
            + u64::from(offset_flags_window)
            + u64::from(payload_sum),
    );
    let tcp = &mut tcp[..TCP_BYTES];
    tcp[..8].copy_from_slice(&long(ports, header.seq).to_be_bytes());
    tcp[8..16].copy_from_slice(&long(header.ack, offset_flags_window).to_be_bytes());
    tcp[16..].copy_from_slice(&word(checksum, 0).to_be_bytes());
}

/// Writes an IPv4 header.
#[inline]
fn write_ipv4(ip: &mut [u8], total: u16, source: u32, destination: u32) {
    const VERSION_AND_LENGTH: u16 = 0x4500;
    const DONT_FRAGMENT: u16 = 0x4000;
    const HOPS_AND_PROTOCOL: u16 = u16::from_be_bytes([HOP_LIMIT, PROTOCOL_TCP]);

    let first = word(VERSION_AND_LENGTH, total);
    let fixed = u64::from(DONT_FRAGMENT) + u64::from(HOPS_AND_PROTOCOL);
    let addresses = u64::from(source) + u64::from(destination);
    let checksum = !fold(fixed + u64::from(first) + addresses);
    let third = word(HOPS_AND_PROTOCOL, checksum);
    let ip = &mut ip[..IPV4_BYTES];
    ip[..8].copy_from_slice(&long(first, u32::from(DONT_FRAGMENT)).to_be_bytes());
    ip[8..16].copy_from_slice(&long(third, source).to_be_bytes());
    ip[16..].copy_from_slice(&destination.to_be_bytes());
}

#[inline]
fn word(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

#[inline]
fn long(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Sum of the words of a header, not folded.
#[inline]
fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<2>();
    words
        .iter()
        .map(|&word| u64::from(u16::from_be_bytes(word)))
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{self, ChecksumPolicy};
    use crate::sender::checksum::copy_and_sum;

    proptest! {
        /// The parser, which verifies both checksums, reads what was written.
        #[test]
        fn what_is_written_parses_back(
            over_ipv6 in any::<bool>(),
            seq in any::<u32>(),
            ack in any::<u32>(),
            window in any::<u16>(),
            port in 1_u16..,
            options_words in 0_u8..=10,
            payload in proptest::collection::vec(any::<u8>(), 40..1460),
        ) {
            let ours: IpAddr = if over_ipv6 { "fd00::2".parse().unwrap() } else { [10, 0, 0, 2].into() };
            let remote: IpAddr = if over_ipv6 { "fd00::1".parse().unwrap() } else { [10, 0, 0, 1].into() };
            let local = Local::new(&[ours], &[80]).unwrap();
            let flow = FlowKey::new(remote, port, 0, 80);
            let options_len = options_words * 4;
            let header = Header { seq, ack, window, flags: Flags::ACK | Flags::PSH, options_len };

            let at = 14 + bytes(&flow);
            let mut frame = vec![2; at + payload.len()];
            frame[12..14].copy_from_slice(if over_ipv6 { &[0x86, 0xdd] } else { &[8, 0] });
            let payload_sum = copy_and_sum(&mut frame[at..], &payload);
            write(&mut frame[14..], &local, &flow, Direction::FromPeer, &header, payload_sum);

            let segment = packet::parse(&frame, &local, ChecksumPolicy::Verify).unwrap();
            prop_assert_eq!(
                (segment.flow, segment.seq, segment.ack, segment.window, segment.flags),
                (flow, seq, ack, window, header.flags)
            );
            prop_assert_eq!(segment.payload(&frame), &payload[usize::from(options_len)..]);
        }
    }
}
