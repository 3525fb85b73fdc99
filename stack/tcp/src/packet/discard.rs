//! Why a frame is dropped without an answer.

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
    /// A TCP checksum that its sender left to a device ([`ChecksumPolicy::VerifyOrPartial`](super::ChecksumPolicy::VerifyOrPartial) takes them).
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

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_service::counters::Samples;

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
}
