//! The pass over a frame: Ethernet, IP, TCP.

use std::net::{IpAddr, Ipv4Addr};

use super::flow_key::Words;
use super::local::{can_be_a_peer, ipv4_can_be_a_peer};
use super::{Discard, Flags, FlowKey, Local, Segment};
use crate::sender::checksum::{fold, unfolded};

/// Finds the TCP segment in an Ethernet `frame` (without FCS) that is meant for `local`.
///
/// Ethernet with at most one 802.1Q tag; IPv4 with any options except source routes, unfragmented;
/// IPv6 with TCP as the direct next header. Trailing Ethernet padding is ignored.
///
/// # Errors
///
/// The reason why the frame must be dropped without an answer.
// Always, so that the segment is not returned in memory: a processor waits when what was stored in small pieces is
// loaded in larger ones.
#[inline(always)]
pub fn parse(frame: &[u8], local: &Local, checksums: ChecksumPolicy) -> Result<Segment, Discard> {
    let (network, ip) = parse_ethernet(frame, local)?;
    let packet = match network {
        Network::Ipv4 => parse_ipv4(frame, ip, local, checksums)?,
        Network::Ipv6 => parse_ipv6(frame, ip, local)?,
    };
    parse_tcp(frame, ip, &packet, local, checksums)
}

/// Which checksums of received frames are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumPolicy {
    /// Verify the IPv4 header checksum and the TCP checksum of every frame.
    #[default]
    Verify,
    /// As `Verify`, but take a TCP checksum that is exactly the sum of the pseudo-header: what a sender on the same
    /// machine leaves in a frame whose checksum is its device's to complete, and no device on the way does. Such a frame
    /// never was on a wire.
    VerifyOrPartial,
    /// Trust both: the NIC verifies them, or the frames never leave this machine's memory.
    Trust,
}

const ETHERNET_HEADER_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
pub(super) const IPV4_HEADER_BYTES: usize = 20;
pub(super) const IPV6_HEADER_BYTES: usize = 40;
pub(super) const TCP_HEADER_BYTES: usize = 20;
pub(super) const PROTOCOL_TCP: u8 = 6;

pub(super) enum Network {
    Ipv4,
    Ipv6,
}

/// What the network layer says about the segment inside.
struct Packet {
    /// Offset of the TCP header.
    tcp: usize,
    /// Offset behind the last byte of the packet.
    end: usize,
    remote: Words,
    local_index: u8,
    /// Source and destination address, added up.
    addresses: u64,
}

/// Returns what the frame carries, and at which offset.
#[inline]
pub(super) fn parse_ethernet(frame: &[u8], local: &Local) -> Result<(Network, usize), Discard> {
    const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
    const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
    const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
    const GROUP_BIT: u8 = 1;

    let header: &[u8; ETHERNET_HEADER_BYTES] = frame.first_chunk().ok_or(Discard::Truncated)?;
    if (header[0] | header[6]) & GROUP_BIT != 0 {
        return Err(Discard::GroupMac);
    }
    if local.mac.is_some_and(|mac| header[..6] != mac) {
        return Err(Discard::ForeignMac);
    }
    let mut ethertype = [header[12], header[13]];
    let mut ip = ETHERNET_HEADER_BYTES;
    if ethertype == ETHERTYPE_VLAN {
        let tag: &[u8; VLAN_TAG_BYTES] = frame[ip..].first_chunk().ok_or(Discard::Truncated)?;
        ethertype = [tag[2], tag[3]];
        ip += VLAN_TAG_BYTES;
    }
    match ethertype {
        ETHERTYPE_IPV4 => Ok((Network::Ipv4, ip)),
        ETHERTYPE_IPV6 => Ok((Network::Ipv6, ip)),
        _ => Err(Discard::NotIp),
    }
}

#[inline]
fn parse_ipv4(
    frame: &[u8],
    ip: usize,
    local: &Local,
    checksums: ChecksumPolicy,
) -> Result<Packet, Discard> {
    const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;

    let header: &[u8; IPV4_HEADER_BYTES] = frame[ip..].first_chunk().ok_or(Discard::Truncated)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER_BYTES || total_len < header_len {
        return Err(Discard::IpHeader);
    }
    let packet = frame[ip..].get(..total_len).ok_or(Discard::Truncated)?;
    let (words, _) = header.as_chunks::<4>();
    let [a, b, c, source, destination] =
        std::array::from_fn(|at| u64::from(u32::from_ne_bytes(words[at])));
    let addresses = source + destination;
    let options = &packet[IPV4_HEADER_BYTES..header_len];
    let is_intact = || fold(a + b + c + addresses + unfolded(options)) == 0xffff;
    if checksums != ChecksumPolicy::Trust && !is_intact() {
        return Err(Discard::IpChecksum);
    }
    if u16::from_be_bytes([header[6], header[7]]) & MORE_FRAGMENTS_OR_OFFSET != 0 {
        return Err(Discard::Fragment);
    }
    if header[9] != PROTOCOL_TCP {
        return Err(Discard::NotTcp);
    }
    let [.., a, b, c, d] = *header;
    let local_index = local
        .index_of_words(Words::from_ipv4([a, b, c, d]))
        .ok_or(Discard::NotLocalAddress)?;
    let source = [header[12], header[13], header[14], header[15]];
    let remote = Words::from_ipv4(source);
    if !ipv4_can_be_a_peer(Ipv4Addr::from(source)) || local.index_of_words(remote).is_some() {
        return Err(Discard::MartianSource);
    }
    if header_len > IPV4_HEADER_BYTES {
        check_ipv4_options(&packet[IPV4_HEADER_BYTES..header_len])?;
    }
    Ok(Packet {
        tcp: ip + header_len,
        end: ip + total_len,
        remote,
        local_index,
        addresses,
    })
}

#[cold]
fn check_ipv4_options(mut options: &[u8]) -> Result<(), Discard> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;

    loop {
        options = match *options {
            [] | [END, ..] => return Ok(()),
            [NO_OPERATION, ref rest @ ..] => rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return Err(Discard::SourceRoute),
            [_, len, ..] if len >= 2 => options.get(usize::from(len)..).ok_or(Discard::IpHeader)?,
            _ => return Err(Discard::IpHeader),
        }
    }
}

#[inline]
fn parse_ipv6(frame: &[u8], ip: usize, local: &Local) -> Result<Packet, Discard> {
    const FRAGMENT_HEADER: u8 = 44;

    let header: &[u8; IPV6_HEADER_BYTES] = frame[ip..].first_chunk().ok_or(Discard::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Discard::IpHeader);
    }
    let tcp = ip + IPV6_HEADER_BYTES;
    let end = tcp + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if frame.len() < end {
        return Err(Discard::Truncated);
    }
    match header[6] {
        PROTOCOL_TCP => {}
        FRAGMENT_HEADER => return Err(Discard::Fragment),
        _ => return Err(Discard::NotTcp),
    }
    let remote = Words::from_ipv6_header(header, 8);
    let destination = Words::from_ipv6_header(header, 24);
    let local_index = Some(destination)
        .filter(|destination| !destination.is_mapped())
        .and_then(|destination| local.index_of_words(destination))
        .ok_or(Discard::NotLocalAddress)?;
    if !can_be_a_peer(IpAddr::V6(remote.to_ipv6())) || local.index_of_words(remote).is_some() {
        return Err(Discard::MartianSource);
    }
    Ok(Packet {
        tcp,
        end,
        remote,
        local_index,
        addresses: unfolded(&header[8..]),
    })
}

#[inline(always)]
fn parse_tcp(
    frame: &[u8],
    ip: usize,
    packet: &Packet,
    local: &Local,
    checksums: ChecksumPolicy,
) -> Result<Segment, Discard> {
    let segment = &frame[packet.tcp..packet.end];
    let header: &[u8; TCP_HEADER_BYTES] = segment.first_chunk().ok_or(Discard::Truncated)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    let remote_port = u16::from_be_bytes([header[0], header[1]]);
    let local_port = u16::from_be_bytes([header[2], header[3]]);
    let flags = Flags(header[13]);
    if header_len < TCP_HEADER_BYTES || segment.len() < header_len || remote_port == 0 {
        return Err(Discard::TcpHeader);
    }
    if !local.has_port(local_port) {
        return Err(Discard::NotLocalPort);
    }
    if !flags.are_possible() {
        return Err(Discard::TcpFlags);
    }
    let mut is_partial = false;
    if checksums != ChecksumPolicy::Trust {
        let pseudo_header = packet.addresses
            + u64::from(u16::from(PROTOCOL_TCP).to_be())
            + u64::from((segment.len() as u16).to_be());
        if fold(pseudo_header + unfolded(segment)) != 0xffff {
            is_partial = u16::from_ne_bytes([header[16], header[17]]) == fold(pseudo_header);
            match (is_partial, checksums) {
                (true, ChecksumPolicy::VerifyOrPartial) => {}
                (true, _) => return Err(Discard::TcpChecksumPartial),
                (false, _) => return Err(Discard::TcpChecksum),
            }
        }
    }
    Ok(Segment {
        flow: FlowKey::from_words(packet.remote, remote_port, packet.local_index, local_port),
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        window: u16::from_be_bytes([header[14], header[15]]),
        flags,
        is_partial,
        // At most 18 + 60 + 60.
        ip: ip as u8,
        tcp: packet.tcp as u8,
        payload: (packet.tcp + header_len) as u8,
        end: packet.end as u32,
    })
}
