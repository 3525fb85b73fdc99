//! A TCP segment within the frame that it came in.

use std::fmt;
use std::ops::BitOr;

use super::FlowKey;
use super::options::TcpOptions;
use super::parse::TCP_HEADER_BYTES;

/// A TCP segment that was found to be well-formed and meant for us: where its parts are in the
/// frame, and what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The flow that it belongs to.
    pub flow: FlowKey,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK; without meaning unless [`Flags::ACK`] is set.
    pub ack: u32,
    /// SEG.WND as it is on the wire, not scaled.
    pub window: u16,
    /// Control bits.
    pub flags: Flags,
    /// The sender left its checksum to a device ([`ChecksumPolicy::VerifyOrPartial`](super::ChecksumPolicy::VerifyOrPartial)).
    pub is_partial: bool,
    pub(super) ip: u8,
    pub(super) tcp: u8,
    pub(super) payload: u8,
    pub(super) end: u32,
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
    pub(super) fn are_possible(self) -> bool {
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
