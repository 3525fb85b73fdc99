//! One pass over a received frame.
//!
//! Everything that arrives is hostile until [`parse`] has looked at it, and [`parse`] looks once:
//! lengths, addresses and checksums are checked here and nowhere else. What passes is a
//! [`Segment`]: a flow key for the table, the numbers a guard wants to see, and offsets into the
//! frame, which stays where the link put it.
//!
//! ```text
//!   0            ip               tcp              payload              end
//!   ┌────────────┬────────────────┬────────────────┬────────────────────┬─────────┐
//!   │ Ethernet   │ IPv4 + options │ TCP + options  │ payload            │ padding │
//!   │ (802.1Q)   │ or IPv6        │                │                    │         │
//!   └────────────┴────────────────┴────────────────┴────────────────────┴─────────┘
//! ```
//!
//! Whatever does not pass has exactly one reason, a [`Discard`], and each reason its own counter.
//! The XDP program passes most of what is not ours to the kernel before it gets here; the checks
//! are complete all the same, because a link need not have such a program in front of it.

pub mod icmp;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{BitOr, RangeInclusive};

use smoltcp::wire::checksum;
use thiserror::Error;

/// Finds the TCP segment in an Ethernet `frame` (without FCS) that is meant for `local`.
///
/// Ethernet with at most one 802.1Q tag; IPv4 with any options except source routes, unfragmented;
/// IPv6 with TCP as the direct next header. Trailing Ethernet padding is ignored.
///
/// # Errors
///
/// The reason why the frame must be dropped without an answer.
#[inline]
pub fn parse(frame: &[u8], local: &Local, checksums: ChecksumPolicy) -> Result<Segment, Discard> {
    let (network, ip) = parse_ethernet(frame, local)?;
    let packet = match network {
        Network::Ipv4 => parse_ipv4(frame, ip, local, checksums)?,
        Network::Ipv6 => parse_ipv6(frame, ip, local)?,
    };
    parse_tcp(frame, ip, &packet, local, checksums)
}

/// Whether somebody else has verified the checksums already.
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

/// A TCP segment that was found to be well-formed and meant for us: where its parts are in the
/// frame, and what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Who talks to which of our sockets.
    pub flow: FlowKey,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK; without meaning unless [`Flags::ACK`] is set.
    pub ack: u32,
    /// SEG.WND as it is on the wire, not scaled.
    pub window: u16,
    /// Control bits.
    pub flags: Flags,
    /// The sender left its checksum to a device ([`ChecksumPolicy::VerifyOrPartial`]).
    pub is_partial: bool,
    ip: u8,
    tcp: u8,
    payload: u8,
    end: u32,
}

impl Segment {
    /// The link-layer header: Ethernet, with its 802.1Q tag if it has one.
    ///
    /// This and the other accessors panic if `frame` is not the one that was parsed, and shorter.
    #[inline]
    pub fn l2<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        &frame[..usize::from(self.ip)]
    }

    /// The IP packet without link-layer header and padding.
    #[inline]
    pub fn ip_packet<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        &frame[usize::from(self.ip)..self.end()]
    }

    /// The bytes the segment carries.
    #[inline]
    pub fn payload<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        &frame[usize::from(self.payload)..self.end()]
    }

    /// The TCP options in the order of the wire.
    #[inline]
    pub fn tcp_options<'f>(&self, frame: &'f [u8]) -> TcpOptions<'f> {
        TcpOptions {
            rest: &frame[usize::from(self.tcp) + TCP_HEADER_BYTES..usize::from(self.payload)],
        }
    }

    /// What is left of the segment if only its acknowledgment counts, as if it had come with `seq`.
    pub fn as_bare_ack(&self, seq: u32) -> Segment {
        Segment {
            seq,
            flags: Flags::ACK,
            end: u32::from(self.payload),
            ..*self
        }
    }

    /// Number of bytes the segment carries.
    #[inline]
    pub fn payload_len(&self) -> usize {
        self.end() - usize::from(self.payload)
    }

    /// SEG.LEN: what the segment occupies in sequence space, SYN and FIN included.
    #[inline]
    pub fn sequence_len(&self) -> u32 {
        self.end - u32::from(self.payload)
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }

    /// Offset of the IP header, which is also the length of the link-layer header: 14 or 18.
    #[inline]
    pub fn ip_offset(&self) -> usize {
        usize::from(self.ip)
    }

    /// Offset of the TCP header.
    #[inline]
    pub fn tcp_offset(&self) -> usize {
        usize::from(self.tcp)
    }

    /// Offset of the payload.
    #[inline]
    pub fn payload_offset(&self) -> usize {
        usize::from(self.payload)
    }

    /// Offset behind the last byte of the IP packet.
    #[inline]
    pub fn end(&self) -> usize {
        self.end as usize
    }
}

/// The control bits of a TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// Whether all of `bits` are set.
    #[inline]
    pub fn contains(self, bits: Flags) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// Whether any of `bits` is set.
    #[inline]
    pub fn intersects(self, bits: Flags) -> bool {
        self.0 & bits.0 != 0
    }

    /// Whether a conforming peer can send this combination: at least one of SYN, RST and ACK, and
    /// at most one of SYN, FIN and RST.
    #[inline]
    fn are_possible(self) -> bool {
        const POSSIBLE: u32 = {
            let mut possible = 0;
            let mut bits = 0u8;
            while bits < 32 {
                let exclusive = (bits & 7).count_ones() <= 1;
                let purposeful = bits & 0x16 != 0;
                if exclusive && purposeful {
                    possible |= 1 << bits;
                }
                bits += 1;
            }
            possible
        };
        POSSIBLE >> (self.0 & 31) & 1 != 0
    }
}

impl BitOr for Flags {
    type Output = Flags;

    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in "FSRPAUEC".chars().enumerate() {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{letter}")?;
            }
        }
        if self.0 == 0 {
            f.write_str(".")
        } else {
            Ok(())
        }
    }
}

/// The TCP options of one segment; see [`Segment::tcp_options`].
///
/// A malformed option is reported once and ends the iteration: nothing behind it can be trusted.
#[derive(Debug, Clone)]
pub struct TcpOptions<'f> {
    rest: &'f [u8],
}

/// One TCP option that a server has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpOption {
    /// Maximum segment size, in bytes (RFC 9293, section 3.7.1).
    MaximumSegmentSize(u16),
    /// Window scale, as a shift count that is not clamped (RFC 7323, section 2).
    WindowScale(u8),
    /// Selective acknowledgments are understood (RFC 2018, section 2).
    SackPermitted,
    /// Timestamps (RFC 7323, section 3).
    Timestamps {
        /// TSval.
        value: u32,
        /// TSecr.
        echo: u32,
    },
    /// Anything else, skipped by its length.
    Other(u8),
}

/// An option whose length is impossible for its kind, or reaches beyond the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("TCP option of kind {kind} has an impossible length")]
pub struct MalformedOption {
    /// The option's kind byte.
    pub kind: u8,
}

impl Iterator for TcpOptions<'_> {
    type Item = Result<TcpOption, MalformedOption>;

    fn next(&mut self) -> Option<Self::Item> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;

        while let [NO_OPERATION, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let (&kind, _) = self.rest.split_first()?;
        if kind == END {
            self.rest = &[];
            return None;
        }
        let option = self
            .rest
            .get(1)
            .filter(|&&len| len >= 2)
            .and_then(|&len| self.rest.split_at_checked(usize::from(len)));
        let Some((option, rest)) = option else {
            self.rest = &[];
            return Some(Err(MalformedOption { kind }));
        };
        self.rest = rest;
        let parsed = match (kind, &option[2..]) {
            (2, &[a, b]) => TcpOption::MaximumSegmentSize(u16::from_be_bytes([a, b])),
            (3, &[shift]) => TcpOption::WindowScale(shift),
            (4, []) => TcpOption::SackPermitted,
            (8, &[a, b, c, d, e, f, g, h]) => TcpOption::Timestamps {
                value: u32::from_be_bytes([a, b, c, d]),
                echo: u32::from_be_bytes([e, f, g, h]),
            },
            (2 | 3 | 4 | 8, _) => {
                self.rest = &[];
                return Some(Err(MalformedOption { kind }));
            }
            _ => TcpOption::Other(kind),
        };
        Some(Ok(parsed))
    }
}

/// What tells one flow from every other: the peer's address and port, and which of our addresses
/// and ports it talks to. 24 bytes, compared and hashed as three words.
///
/// IPv4 addresses are held as IPv4-mapped IPv6 addresses, which are not valid on the wire, so that
/// the two families cannot be confused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowKey([u64; 3]);

impl FlowKey {
    /// The flow from `remote_address` and `remote_port` to `local_port` of the served address with
    /// index `local_index` in [`Local`].
    #[inline]
    pub fn new(
        remote_address: IpAddr,
        remote_port: u16,
        local_index: u8,
        local_port: u16,
    ) -> FlowKey {
        FlowKey::from_words(
            Words::from_address(remote_address),
            remote_port,
            local_index,
            local_port,
        )
    }

    #[inline]
    fn from_words(remote: Words, remote_port: u16, local_index: u8, local_port: u16) -> FlowKey {
        let rest =
            u64::from(remote_port) | u64::from(local_port) << 16 | u64::from(local_index) << 32;
        FlowKey([remote.0[0], remote.0[1], rest])
    }

    /// The peer's address.
    pub fn remote_address(&self) -> IpAddr {
        Words([self.0[0], self.0[1]]).to_address()
    }

    /// The peer's port.
    #[inline]
    pub fn remote_port(&self) -> u16 {
        self.0[2] as u16
    }

    /// Our port.
    #[inline]
    pub fn local_port(&self) -> u16 {
        (self.0[2] >> 16) as u16
    }

    /// Our address, as its index in [`Local`].
    #[inline]
    pub fn local_index(&self) -> u8 {
        (self.0[2] >> 32) as u8
    }

    /// Whether the flow runs over IPv6.
    #[inline]
    pub fn is_ipv6(&self) -> bool {
        !Words([self.0[0], self.0[1]]).is_mapped()
    }

    /// The peer's address as 32 bits; `None` over IPv6.
    #[inline]
    pub(crate) fn remote_ipv4(&self) -> Option<u32> {
        Words([self.0[0], self.0[1]]).to_ipv4()
    }

    /// All of it as bytes, for a keyed hash.
    #[inline]
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = std::net::SocketAddr::new(self.remote_address(), self.remote_port());
        write!(
            f,
            "{remote} > #{}:{}",
            self.local_index(),
            self.local_port()
        )
    }
}

/// The addresses and ports that are served. Few, so that looking one up is a handful of compares.
#[derive(Debug, Clone)]
pub struct Local {
    addresses: [Words; Local::ADDRESSES_MAX],
    address_count: u8,
    port_count: u8,
    ports: [u16; Local::PORTS_MAX],
    /// Served besides `ports`: so many from the first one on.
    range: (u16, u16),
    /// Frames to another hardware address are not for us.
    mac: Option<[u8; 6]>,
}

impl Local {
    /// How many addresses can be served.
    pub const ADDRESSES_MAX: usize = 128;
    /// How many ports can be served.
    pub const PORTS_MAX: usize = 16;

    /// Serves every one of `ports` on every one of `addresses`.
    ///
    /// # Errors
    ///
    /// If there are none or too many of either, if one is given twice, or if one can never be the
    /// destination of a connection.
    pub fn new(addresses: &[IpAddr], ports: &[u16]) -> Result<Local, LocalError> {
        if ports.is_empty() {
            return Err(LocalError::Nothing);
        }
        if ports.len() > Self::PORTS_MAX {
            return Err(LocalError::TooManyPorts(ports.len()));
        }
        let mut local = Self::with_addresses(addresses)?;
        for &port in ports {
            if port == 0 {
                return Err(LocalError::PortZero);
            }
            if local.has_port(port) {
                return Err(LocalError::Twice(format!("port {port}")));
            }
            local.ports[usize::from(local.port_count)] = port;
            local.port_count += 1;
        }
        Ok(local)
    }

    /// Calls from every port of `ports` on every one of `addresses`, and serves nothing.
    ///
    /// # Errors
    ///
    /// As [`Local::new`].
    pub fn calling(addresses: &[IpAddr], ports: RangeInclusive<u16>) -> Result<Local, LocalError> {
        let (&first, &last) = (ports.start(), ports.end());
        match (first, last.checked_sub(first)) {
            (0, _) => Err(LocalError::PortZero),
            (_, None) => Err(LocalError::Nothing),
            (_, Some(more)) => Ok(Local {
                range: (first, more + 1),
                ..Self::with_addresses(addresses)?
            }),
        }
    }

    fn with_addresses(addresses: &[IpAddr]) -> Result<Local, LocalError> {
        if addresses.is_empty() {
            return Err(LocalError::Nothing);
        }
        if addresses.len() > Self::ADDRESSES_MAX {
            return Err(LocalError::TooManyAddresses(addresses.len()));
        }
        let mut local = Local {
            addresses: [Words::default(); Self::ADDRESSES_MAX],
            address_count: 0,
            port_count: 0,
            ports: [0; Self::PORTS_MAX],
            range: (0, 0),
            mac: None,
        };
        for &address in addresses {
            local.add_address(address)?;
        }
        Ok(local)
    }

    /// Serves `address` as well. Those that are served keep their indices.
    ///
    /// # Errors
    ///
    /// If it is served already, can never be the destination of a connection, or there is no room for it.
    pub fn add_address(&mut self, address: IpAddr) -> Result<(), LocalError> {
        if !can_be_a_peer(address) {
            return Err(LocalError::NotUnicast(address));
        }
        if self.index_of(address).is_some() {
            return Err(LocalError::Twice(address.to_string()));
        }
        let count = usize::from(self.address_count);
        let slot = self.addresses.get_mut(count);
        *slot.ok_or(LocalError::TooManyAddresses(count + 1))? = Words::from_address(address);
        self.address_count += 1;
        Ok(())
    }

    /// Takes no frames but those to the hardware address `mac`. Without this all frames are taken: a switch
    /// floods frames to others, and an interface in promiscuous mode receives them.
    #[must_use]
    pub fn at_mac(self, mac: [u8; 6]) -> Local {
        Local {
            mac: Some(mac),
            ..self
        }
    }

    /// The served address with this index.
    ///
    /// # Panics
    ///
    /// If there is none; the index of a parsed [`FlowKey`] always has one.
    pub fn address(&self, index: u8) -> IpAddr {
        self.words()[usize::from(index)].to_address()
    }

    /// The served IPv4 address with this index as 32 bits; 0 if it has none.
    #[inline]
    pub(crate) fn ipv4(&self, index: u8) -> u32 {
        let words = self.addresses.get(usize::from(index));
        words.and_then(|words| words.to_ipv4()).unwrap_or(0)
    }

    /// The served addresses, in the order of their indices.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.words().iter().map(|words| words.to_address())
    }

    /// The served ports; none if only calls are made.
    pub fn ports(&self) -> &[u16] {
        &self.ports[..usize::from(self.port_count)]
    }

    /// The index of a served address.
    pub fn index_of(&self, address: IpAddr) -> Option<u8> {
        self.index_of_words(Words::from_address(address))
    }

    /// Whether `port` is served.
    #[inline]
    pub fn has_port(&self, port: u16) -> bool {
        let (first, count) = self.range;
        self.ports().contains(&port) || port.wrapping_sub(first) < count
    }

    #[inline]
    fn index_of_words(&self, address: Words) -> Option<u8> {
        let index = self.words().iter().position(|&served| served == address)?;
        Some(index as u8)
    }

    #[inline]
    fn words(&self) -> &[Words] {
        &self.addresses[..usize::from(self.address_count)]
    }
}

/// Why a set of addresses and ports cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocalError {
    /// No address or no port.
    #[error("nothing to serve: give at least one address and one port")]
    Nothing,
    /// More addresses than [`Local::ADDRESSES_MAX`].
    #[error(
        "{0} addresses are more than the {max} that can be served: name the ones to serve",
        max = Local::ADDRESSES_MAX
    )]
    TooManyAddresses(usize),
    /// More ports than [`Local::PORTS_MAX`].
    #[error("{0} ports are more than the {max} that can be served", max = Local::PORTS_MAX)]
    TooManyPorts(usize),
    /// An address that no peer could ever connect to over a network.
    #[error("{0} cannot be served: give a unicast address of the interface")]
    NotUnicast(IpAddr),
    /// Port 0.
    #[error("port 0 cannot be served: give a port between 1 and 65535")]
    PortZero,
    /// An address or port was given more than once.
    #[error("{0} is given twice: name it once")]
    Twice(String),
}

/// Why a frame is dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Discard {
    /// Shorter than its headers, or than the lengths in them, say.
    Truncated,
    /// Sent to or from a broadcast or multicast MAC address.
    GroupMac,
    /// Sent to another host's MAC address.
    ForeignMac,
    /// Neither IPv4 nor IPv6 under at most one 802.1Q tag.
    NotIp,
    /// An impossible version, header length or total length, or malformed options.
    IpHeader,
    /// An IPv4 source route option (RFC 7126, section 4.3).
    SourceRoute,
    /// A fragment, of either IP version.
    Fragment,
    /// Another protocol than TCP, or IPv6 extension headers in front of it.
    NotTcp,
    /// A destination address that is not served.
    NotLocalAddress,
    /// A destination port that is not served.
    NotLocalPort,
    /// A source address that can never be a peer: unspecified, loopback, multicast, broadcast,
    /// reserved, IPv4-mapped, or our own (a "land" attack).
    MartianSource,
    /// A wrong IPv4 header checksum.
    IpChecksum,
    /// A wrong TCP checksum.
    TcpChecksum,
    /// A TCP checksum that its sender left to a device ([`ChecksumPolicy::VerifyOrPartial`] takes them).
    TcpChecksumPartial,
    /// A TCP header length that is impossible, or source port 0.
    TcpHeader,
    /// Control bits that contradict each other, or say nothing.
    TcpFlags,
}

impl Discard {
    /// Every reason.
    pub const ALL: [Discard; 16] = [
        Discard::Truncated,
        Discard::GroupMac,
        Discard::ForeignMac,
        Discard::NotIp,
        Discard::IpHeader,
        Discard::SourceRoute,
        Discard::Fragment,
        Discard::NotTcp,
        Discard::NotLocalAddress,
        Discard::NotLocalPort,
        Discard::MartianSource,
        Discard::IpChecksum,
        Discard::TcpChecksum,
        Discard::TcpChecksumPartial,
        Discard::TcpHeader,
        Discard::TcpFlags,
    ];
}

barewire_service::counters! {
    /// Received frames that were dropped without an answer, one counter for each [`Discard`].
    pub struct DiscardCounters {
        /// Frames shorter than their headers, or than the lengths in them, say.
        discard_truncated: Loss,
        /// Frames to or from a broadcast or multicast MAC address.
        discard_group_mac: Loss,
        /// Frames to another host's MAC address.
        discard_foreign_mac: Loss,
        /// Frames that held neither IPv4 nor IPv6 under at most one VLAN tag.
        discard_not_ip: Loss,
        /// IP headers with an impossible version, length or option.
        discard_ip_header: Loss,
        /// IPv4 packets with a source route.
        discard_source_route: Loss,
        /// IP fragments.
        discard_fragment: Loss,
        /// IP packets whose next header was not TCP.
        discard_not_tcp: Loss,
        /// Segments to an address that is not served.
        discard_not_local_address: Loss,
        /// Segments to a port that is not served.
        discard_not_local_port: Loss,
        /// Packets from a source address that can never be a peer, our own included.
        discard_martian_source: Loss,
        /// Wrong IPv4 header checksums.
        discard_ip_checksum: Loss,
        /// Wrong TCP checksums.
        discard_tcp_checksum: Loss,
        /// TCP checksums that a sender on the same machine left to its device.
        discard_tcp_checksum_partial: Loss,
        /// TCP headers with an impossible length, or source port 0.
        discard_tcp_header: Loss,
        /// TCP segments whose control bits contradict each other, or say nothing.
        discard_tcp_flags: Loss,
    }
}

impl DiscardCounters {
    /// Counts one frame dropped for `reason`.
    #[cold]
    pub fn count(&self, reason: Discard) {
        self.of(reason).increment();
    }

    /// The counter of `reason`.
    pub fn of(&self, reason: Discard) -> &barewire_service::counters::Counter {
        match reason {
            Discard::Truncated => &self.discard_truncated,
            Discard::GroupMac => &self.discard_group_mac,
            Discard::ForeignMac => &self.discard_foreign_mac,
            Discard::NotIp => &self.discard_not_ip,
            Discard::IpHeader => &self.discard_ip_header,
            Discard::SourceRoute => &self.discard_source_route,
            Discard::Fragment => &self.discard_fragment,
            Discard::NotTcp => &self.discard_not_tcp,
            Discard::NotLocalAddress => &self.discard_not_local_address,
            Discard::NotLocalPort => &self.discard_not_local_port,
            Discard::MartianSource => &self.discard_martian_source,
            Discard::IpChecksum => &self.discard_ip_checksum,
            Discard::TcpChecksum => &self.discard_tcp_checksum,
            Discard::TcpChecksumPartial => &self.discard_tcp_checksum_partial,
            Discard::TcpHeader => &self.discard_tcp_header,
            Discard::TcpFlags => &self.discard_tcp_flags,
        }
    }
}

const ETHERNET_HEADER_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const TCP_HEADER_BYTES: usize = 20;
const PROTOCOL_TCP: u8 = 6;

enum Network {
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
    /// Where source and destination address lie in the frame.
    addresses: (usize, usize),
}

/// Returns what the frame carries, and at which offset.
#[inline]
fn parse_ethernet(frame: &[u8], local: &Local) -> Result<(Network, usize), Discard> {
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
    if checksums != ChecksumPolicy::Trust && checksum::data(&packet[..header_len]) != 0xffff {
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
        addresses: (ip + 12, ip + 20),
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
        addresses: (ip + 8, ip + 40),
    })
}

#[inline]
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
        let (from, to) = packet.addresses;
        let pseudo_header = checksum::combine(&[
            checksum::data(&frame[from..to]),
            u16::from(PROTOCOL_TCP),
            segment.len() as u16,
        ]);
        if checksum::combine(&[pseudo_header, checksum::data(segment)]) != 0xffff {
            is_partial = u16::from_be_bytes([header[16], header[17]]) == pseudo_header;
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

/// Whether a packet can come from `address` over a network.
fn can_be_a_peer(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => ipv4_can_be_a_peer(address),
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.to_ipv4_mapped().is_some())
        }
    }
}

/// Not "this network", loopback, multicast, reserved or broadcast (RFC 6890, section 2.2.2).
#[inline]
fn ipv4_can_be_a_peer(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

/// The 16 bytes of an address as two words, IPv4 as IPv4-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Words([u64; 2]);

impl Words {
    #[inline]
    fn from_ipv4([a, b, c, d]: [u8; 4]) -> Words {
        Words([0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])])
    }

    #[inline]
    fn from_ipv6(octets: [u8; 16]) -> Words {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Words([
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        ])
    }

    #[inline]
    fn from_ipv6_header(header: &[u8; IPV6_HEADER_BYTES], at: usize) -> Words {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Words::from_ipv6(octets)
    }

    fn from_address(address: IpAddr) -> Words {
        match address {
            IpAddr::V4(address) => Words::from_ipv4(address.octets()),
            IpAddr::V6(address) => Words::from_ipv6(address.octets()),
        }
    }

    #[inline]
    fn is_mapped(self) -> bool {
        self.0[0] == 0 && self.0[1].to_ne_bytes()[..4] == [0, 0, 0xff, 0xff]
    }

    #[inline]
    fn to_ipv4(self) -> Option<u32> {
        let [_, _, _, _, a, b, c, d] = self.0[1].to_ne_bytes();
        self.is_mapped().then_some(u32::from_be_bytes([a, b, c, d]))
    }

    #[inline]
    fn to_ipv6(self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.0[0].to_ne_bytes());
        octets[8..].copy_from_slice(&self.0[1].to_ne_bytes());
        Ipv6Addr::from(octets)
    }

    fn to_address(self) -> IpAddr {
        self.to_ipv6().to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::frame::TcpFrame;
    use barewire_service::counters::Samples;
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
    fn changed(
        frame: &TcpFrame<'_>,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Segment, Discard> {
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
        let mut sum = u32::from(PROTOCOL_TCP) + (bytes.len() - tcp) as u32;
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
            let parse_as =
                |bytes: &[u8], policy| parse(bytes, &local(), policy).map(|s| s.is_partial);
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

    #[test]
    fn reads_tcp_options_in_any_order() {
        let options = |bytes: &[u8]| -> Vec<_> { TcpOptions { rest: bytes }.collect() };
        assert_eq!(
            options(&[
                4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 3, 3, 7, 2, 4, 5, 0xb4, 254, 2, 1, 0, 2
            ]),
            [
                Ok(TcpOption::SackPermitted),
                Ok(TcpOption::Timestamps { value: 9, echo: 0 }),
                Ok(TcpOption::WindowScale(7)),
                Ok(TcpOption::MaximumSegmentSize(1460)),
                Ok(TcpOption::Other(254)),
            ]
        );
        assert_eq!(options(&[]), []);
        for (kind, malformed) in [
            (2, &[2, 0, 0, 0][..]),
            (2, &[2, 1, 0, 0]),
            (2, &[2, 3, 0, 4, 2]),
            (3, &[3]),
            (3, &[3, 4, 0, 0]),
            (8, &[8, 10, 0, 0]),
            (99, &[99, 3]),
        ] {
            assert_eq!(options(malformed), [Err(MalformedOption { kind })]);
        }
    }

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let counters = DiscardCounters::default();
        for (expected, reason) in (1..).zip(Discard::ALL) {
            for _ in 0..expected {
                counters.count(reason);
            }
        }
        let values: Vec<u64> = counters
            .samples()
            .iter()
            .map(|sample| sample.value)
            .collect();
        assert_eq!(values, (1..=Discard::ALL.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_served() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(Local::new(&[], &[80]).unwrap_err(), LocalError::Nothing);
        assert_eq!(
            Local::new(&[ip("10.0.0.1")], &[]).unwrap_err(),
            LocalError::Nothing
        );
        assert_eq!(
            Local::new(&[ip("10.0.0.1")], &[0]).unwrap_err(),
            LocalError::PortZero
        );
        for address in ["0.0.0.0", "224.0.0.1", "::", "ff02::1", "::ffff:10.0.0.1"] {
            let error = Local::new(&[ip(address)], &[80]).unwrap_err();
            assert_eq!(error, LocalError::NotUnicast(ip(address)));
        }
        let twice = Local::new(&[ip("10.0.0.1"), ip("10.0.0.1")], &[80]).unwrap_err();
        assert_eq!(twice.to_string(), "10.0.0.1 is given twice: name it once");
        let many: Vec<IpAddr> = (1..=129)
            .map(|n| Ipv4Addr::new(10, 0, 0, n).into())
            .collect();
        let error = Local::new(&many, &[80]).unwrap_err();
        assert_eq!(error, LocalError::TooManyAddresses(129));
        assert!(Local::new(&many[1..], &[80]).is_ok());
        let ports: Vec<u16> = (1..=17).collect();
        assert_eq!(
            Local::new(&many[..1], &ports).unwrap_err(),
            LocalError::TooManyPorts(17)
        );
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
}
