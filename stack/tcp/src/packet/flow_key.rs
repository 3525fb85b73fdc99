//! What tells one flow from every other.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::parse::IPV6_HEADER_BYTES;

/// What tells one flow from every other: the peer's address and port, and which of our addresses
/// and ports it talks to. 24 bytes, compared and hashed as three words.
///
/// IPv4 addresses are held as IPv4-mapped IPv6 addresses, which are not valid on the wire, so that
/// the two families cannot be confused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowKey([u64; 3]);

impl FlowKey {
    /// The flow from `remote_address` and `remote_port` to `local_port` of the served address with
    /// index `local_index` in [`Local`](super::Local).
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
    pub(super) fn from_words(
        remote: Words,
        remote_port: u16,
        local_index: u8,
        local_port: u16,
    ) -> FlowKey {
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

    /// Our address, as its index in [`Local`](super::Local).
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

/// The 16 bytes of an address as two words, IPv4 as IPv4-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Words(pub(super) [u64; 2]);

impl Words {
    #[inline]
    pub(super) fn from_ipv4([a, b, c, d]: [u8; 4]) -> Words {
        Words([0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])])
    }

    #[inline]
    pub(super) fn from_ipv6(octets: [u8; 16]) -> Words {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Words([
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        ])
    }

    #[inline]
    pub(super) fn from_ipv6_header(header: &[u8; IPV6_HEADER_BYTES], at: usize) -> Words {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Words::from_ipv6(octets)
    }

    pub(super) fn from_address(address: IpAddr) -> Words {
        match address {
            IpAddr::V4(address) => Words::from_ipv4(address.octets()),
            IpAddr::V6(address) => Words::from_ipv6(address.octets()),
        }
    }

    #[inline]
    pub(super) fn is_mapped(self) -> bool {
        self.0[0] == 0 && self.0[1].to_ne_bytes()[..4] == [0, 0, 0xff, 0xff]
    }

    #[inline]
    pub(super) fn to_ipv4(self) -> Option<u32> {
        let [_, _, _, _, a, b, c, d] = self.0[1].to_ne_bytes();
        self.is_mapped().then_some(u32::from_be_bytes([a, b, c, d]))
    }

    #[inline]
    pub(super) fn to_ipv6(self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.0[0].to_ne_bytes());
        octets[8..].copy_from_slice(&self.0[1].to_ne_bytes());
        Ipv6Addr::from(octets)
    }

    pub(super) fn to_address(self) -> IpAddr {
        self.to_ipv6().to_canonical()
    }
}
