//! The headers of a segment, written in front of a payload whose sum is known.
//!
//! What the direct path sends has always the same shape, so its headers are twenty words, and the payload is not read
//! again for the checksum. Options, which only an ACK without payload has, lie where the payload would be.

use std::net::IpAddr;

use crate::control::Direction;
use crate::packet::{Flags, FlowKey, Local};

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
    let (ip, tcp) = packet.split_at_mut(bytes(flow) - TCP_BYTES);
    let tcp_len = tcp.len() as u32;
    let addresses = match flow.remote_ipv4() {
        Some(peer) => {
            let ours = local.ipv4(flow.local_index());
            let (source, destination) = match direction {
                Direction::ToPeer => (ours, peer),
                Direction::FromPeer => (peer, ours),
            };
            write_ipv4(ip, total, source, destination)
        }
        None => {
            let (ours, peer) = (local.address(flow.local_index()), flow.remote_address());
            let (source, destination) = match direction {
                Direction::ToPeer => (ours, peer),
                Direction::FromPeer => (peer, ours),
            };
            ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, PROTOCOL_TCP, HOP_LIMIT]);
            ip[4..6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
            ip[8..24].copy_from_slice(&octets(source));
            ip[24..40].copy_from_slice(&octets(destination));
            sum(&ip[8..40])
        }
    };
    let (source_port, destination_port) = match direction {
        Direction::ToPeer => (flow.local_port(), flow.remote_port()),
        Direction::FromPeer => (flow.remote_port(), flow.local_port()),
    };
    debug_assert!(header.options_len.is_multiple_of(4) && header.options_len <= 40);
    let offset_words = (TCP_BYTES as u8 + header.options_len) / 4;
    let offset_and_flags = u16::from_be_bytes([offset_words << 4, header.flags.0]);
    // The checksum is of the numbers, so that nothing is read back.
    let checksum = !fold(
        addresses
            + u32::from(PROTOCOL_TCP)
            + tcp_len
            + u32::from(source_port)
            + u32::from(destination_port)
            + halves(header.seq)
            + halves(header.ack)
            + u32::from(offset_and_flags)
            + u32::from(header.window)
            + u32::from(payload_sum),
    );
    tcp[..2].copy_from_slice(&source_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&destination_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&header.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&header.ack.to_be_bytes());
    tcp[12..14].copy_from_slice(&offset_and_flags.to_be_bytes());
    tcp[14..16].copy_from_slice(&header.window.to_be_bytes());
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    tcp[18..20].fill(0);
}

/// Writes an IPv4 header, and returns the sum of both addresses.
#[inline]
fn write_ipv4(ip: &mut [u8], total: u16, source: u32, destination: u32) -> u32 {
    const VERSION_AND_LENGTH: u16 = 0x4500;
    const DONT_FRAGMENT: u16 = 0x4000;
    const HOPS_AND_PROTOCOL: u16 = u16::from_be_bytes([HOP_LIMIT, PROTOCOL_TCP]);

    let addresses = halves(source) + halves(destination);
    let fixed = [VERSION_AND_LENGTH, DONT_FRAGMENT, HOPS_AND_PROTOCOL];
    let fixed: u32 = fixed.into_iter().map(u32::from).sum();
    let checksum = !fold(fixed + u32::from(total) + addresses);
    let ip = &mut ip[..IPV4_BYTES];
    ip[..2].copy_from_slice(&VERSION_AND_LENGTH.to_be_bytes());
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[4..6].fill(0);
    ip[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    ip[8..10].copy_from_slice(&HOPS_AND_PROTOCOL.to_be_bytes());
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip[12..16].copy_from_slice(&source.to_be_bytes());
    ip[16..20].copy_from_slice(&destination.to_be_bytes());
    addresses
}

/// Both words of a number.
#[inline]
fn halves(number: u32) -> u32 {
    (number >> 16) + (number & 0xffff)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Sum of the words of a header, not folded.
#[inline]
fn sum(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<2>();
    words
        .iter()
        .map(|&word| u32::from(u16::from_be_bytes(word)))
        .sum()
}

#[inline]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
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
