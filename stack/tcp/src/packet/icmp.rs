//! The one ICMP message about our own packets that is processed: "too big", from a router on the path.
//!
//! ```text
//!   Ethernet │ IP, to us │ type, code │ checksum │ next hop's MTU │ IP, from us │ TCP: ports, seq │ …
//!                          └────────────── ICMP ────────────────┘ └───────── what was too big ─────┘
//! ```
//!
//! ICMP destination unreachable, fragmentation needed (RFC 792, RFC 1191) and ICMPv6 packet too big
//! (RFC 4443). Anybody can send one: [`parse_too_big`] says that it is well-formed and about a flow that
//! could be ours; the connection's sequence numbers show whether we sent what it quotes (RFC 5927, section 4.1).

use smoltcp::wire::checksum;

use super::flow_key::Words;
use super::parse::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, Network, PROTOCOL_TCP, parse_ethernet};
use super::{ChecksumPolicy, Discard, FlowKey, Local};

/// A router's message that a packet was too big for the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooBig {
    /// The flow of the packet that was too big, as we see it.
    pub flow: FlowKey,
    /// Its sequence number.
    pub seq: u32,
    /// The longest IP packet that the next hop takes, in bytes, at most what is less than the packet's own
    /// length; `TooBig::plateau` where the router does not say.
    pub mtu: u16,
}

/// Why an ICMP message is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTooBig {
    /// It is something else: another protocol, or another ICMP message.
    Other,
    /// It is cut short, its checksum is wrong, or its numbers are impossible.
    Malformed,
    /// What it quotes was not sent from here.
    Foreign,
}

/// Reads a "too big" message in an Ethernet `frame` to `local`.
///
/// # Errors
///
/// Why it is ignored.
#[cold]
pub fn parse_too_big(
    frame: &[u8],
    local: &Local,
    checksums: ChecksumPolicy,
) -> Result<TooBig, NotTooBig> {
    let (network, ip) = parse_ethernet(frame, local).map_err(|reason| match reason {
        Discard::Truncated => NotTooBig::Malformed,
        _ => NotTooBig::Other,
    })?;
    match network {
        Network::Ipv4 => parse_ipv4(&frame[ip..], local, checksums),
        Network::Ipv6 => parse_ipv6(&frame[ip..], local, checksums),
    }
}

impl TooBig {
    /// What to assume of a router that does not say the next hop's MTU: the next size below `len` that
    /// networks are known to have (RFC 1191, section 7).
    fn plateau(len: u16) -> u16 {
        const PLATEAUS: [u16; 9] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296];
        let below = |plateau: &&u16| **plateau < len;
        PLATEAUS.iter().find(below).copied().unwrap_or(68)
    }
}

const ICMP_HEADER_BYTES: usize = 8;

fn parse_ipv4(
    packet: &[u8],
    local: &Local,
    checksums: ChecksumPolicy,
) -> Result<TooBig, NotTooBig> {
    const PROTOCOL_ICMP: u8 = 1;
    const DESTINATION_UNREACHABLE: u8 = 3;
    const FRAGMENTATION_NEEDED: u8 = 4;
    /// Ports and sequence number: what RFC 792 has routers quote behind the IP header.
    const QUOTED_TCP_BYTES: usize = 8;

    let header: &[u8; IPV4_HEADER_BYTES] = packet.first_chunk().ok_or(NotTooBig::Malformed)?;
    if header[0] >> 4 != 4 || header[9] != PROTOCOL_ICMP || be16(header, 6) & 0x3fff != 0 {
        return Err(NotTooBig::Other);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let message = packet
        .get(..usize::from(be16(header, 2)))
        .and_then(|packet| packet.split_at_checked(header_len.max(IPV4_HEADER_BYTES)));
    let (header, message) = message.ok_or(NotTooBig::Malformed)?;
    let Some(&icmp) = message.first_chunk::<ICMP_HEADER_BYTES>() else {
        return Err(NotTooBig::Malformed);
    };
    if icmp[..2] != [DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED] {
        return Err(NotTooBig::Other);
    }
    let is_intact = checksum::data(header) == 0xffff && checksum::data(message) == 0xffff;
    if checksums != ChecksumPolicy::Trust && !is_intact {
        return Err(NotTooBig::Malformed);
    }
    let quoted: &[u8; IPV4_HEADER_BYTES + QUOTED_TCP_BYTES] = message[ICMP_HEADER_BYTES..]
        .first_chunk()
        .ok_or(NotTooBig::Malformed)?;
    let address = |at: usize| {
        let octets = [quoted[at], quoted[at + 1], quoted[at + 2], quoted[at + 3]];
        Words::from_ipv4(octets)
    };
    // Our packets have no options, and are never fragments.
    if quoted[0] != 0x45 || quoted[9] != PROTOCOL_TCP || be16(quoted, 6) & 0x3fff != 0 {
        return Err(NotTooBig::Foreign);
    }
    let len = be16(quoted, 2);
    let mtu = match be16(&icmp, 6) {
        0 => TooBig::plateau(len),
        mtu => mtu,
    };
    let tcp = &quoted[IPV4_HEADER_BYTES..];
    too_big(
        local,
        (&header[16..20], &quoted[12..16]),
        address(12),
        address(16),
        tcp,
        (mtu, len),
    )
}

fn parse_ipv6(
    packet: &[u8],
    local: &Local,
    checksums: ChecksumPolicy,
) -> Result<TooBig, NotTooBig> {
    const PROTOCOL_ICMPV6: u8 = 58;
    const PACKET_TOO_BIG: u8 = 2;
    const QUOTED_TCP_BYTES: usize = 8;

    let header: &[u8; IPV6_HEADER_BYTES] = packet.first_chunk().ok_or(NotTooBig::Malformed)?;
    if header[0] >> 4 != 6 || header[6] != PROTOCOL_ICMPV6 {
        return Err(NotTooBig::Other);
    }
    let message = packet[IPV6_HEADER_BYTES..]
        .get(..usize::from(be16(header, 4)))
        .ok_or(NotTooBig::Malformed)?;
    let Some(&icmp) = message.first_chunk::<ICMP_HEADER_BYTES>() else {
        return Err(NotTooBig::Malformed);
    };
    if icmp[0] != PACKET_TOO_BIG {
        return Err(NotTooBig::Other);
    }
    let sum = checksum::combine(&[
        checksum::data(&header[8..40]),
        u16::from(PROTOCOL_ICMPV6),
        message.len() as u16,
        checksum::data(message),
    ]);
    if checksums != ChecksumPolicy::Trust && sum != 0xffff {
        return Err(NotTooBig::Malformed);
    }
    let quoted: &[u8; IPV6_HEADER_BYTES + QUOTED_TCP_BYTES] = message[ICMP_HEADER_BYTES..]
        .first_chunk()
        .ok_or(NotTooBig::Malformed)?;
    if quoted[0] >> 4 != 6 || quoted[6] != PROTOCOL_TCP {
        return Err(NotTooBig::Foreign);
    }
    let quoted_header: &[u8; IPV6_HEADER_BYTES] =
        quoted.first_chunk().ok_or(NotTooBig::Malformed)?;
    let address = |at| Words::from_ipv6_header(quoted_header, at);
    let len = be16(quoted, 4).saturating_add(IPV6_HEADER_BYTES as u16);
    let mtu = u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]);
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    let tcp = &quoted[IPV6_HEADER_BYTES..];
    too_big(
        local,
        (&header[24..40], &quoted[8..24]),
        address(8),
        address(24),
        tcp,
        (mtu, len),
    )
}

/// The message about a packet from `source` to `remote` that began with the bytes `tcp` behind its IP header.
/// It came to the first of `to_and_about`, and quotes the second as the packet's source.
fn too_big(
    local: &Local,
    to_and_about: (&[u8], &[u8]),
    source: Words,
    remote: Words,
    tcp: &[u8],
    (mtu, len): (u16, u16),
) -> Result<TooBig, NotTooBig> {
    let (to, about) = to_and_about;
    let local_index = local.index_of_words(source).ok_or(NotTooBig::Foreign)?;
    let (local_port, remote_port) = (be16(tcp, 0), be16(tcp, 2));
    if to != about || !local.has_port(local_port) {
        return Err(NotTooBig::Foreign);
    }
    // What fits into the next hop was not too big for it.
    if mtu >= len {
        return Err(NotTooBig::Malformed);
    }
    Ok(TooBig {
        flow: FlowKey::from_words(remote, remote_port, local_index, local_port),
        seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        mtu,
    })
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_old_routers_are_those_of_known_networks() {
        for (len, expected) in [
            (1_500, 1_492),
            (1_492, 1_006),
            (9_000, 8_166),
            (300, 296),
            (296, 68),
        ] {
            assert_eq!(TooBig::plateau(len), expected, "{len}");
        }
    }
}
