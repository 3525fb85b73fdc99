//! Control segments that need no socket: SYN|ACK, ACK and RST.
//!
//! A guard answers on behalf of a connection, of a TIME-WAIT record, or of nothing at all, so these
//! are written from what is at hand: the addresses of the flow, the link-layer header of the segment
//! that is answered, and the numbers TCP asks for.

use crate::guard::timestamps::Timestamps;
use crate::header::{self, Header};
use crate::packet::{Flags, FlowKey, Local, MalformedOption, Segment, TcpOption};
use crate::sender::checksum::copy_and_sum;

/// The options of a SYN that matter for the whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynOptions {
    /// The longest segment the sender of the SYN accepts, in bytes without TCP header.
    pub mss: u16,
    /// Its window scale as a shift count, at most 14; `None` if it does not scale.
    pub window_scale: Option<u8>,
    /// Whether it understands selective acknowledgments.
    pub sack_permitted: bool,
    /// Whether it has timestamps (RFC 7323).
    pub timestamps: bool,
}

impl SynOptions {
    /// What the options of a received SYN say.
    ///
    /// # Errors
    ///
    /// If one of them is malformed: the segment must be dropped.
    pub fn of_segment(segment: &Segment, frame: &[u8]) -> Result<SynOptions, MalformedOption> {
        let mut options = SynOptions::default();
        for option in segment.tcp_options(frame) {
            match option? {
                // A size of zero is not valid.
                TcpOption::MaximumSegmentSize(mss) if mss != 0 => options.mss = mss,
                // RFC 7323, section 2.3: a larger shift is taken as 14.
                TcpOption::WindowScale(shift) => options.window_scale = Some(shift.min(14)),
                TcpOption::SackPermitted => options.sack_permitted = true,
                TcpOption::Timestamps { .. } => options.timestamps = true,
                _ => {}
            }
        }
        Ok(options)
    }

    /// What they take at most.
    const BYTES_MAX: usize = 12;

    /// Bytes of options that each segment of an established connection has.
    #[inline]
    pub(crate) fn bytes_per_segment(&self) -> usize {
        if self.timestamps {
            Timestamps::BYTES
        } else {
            0
        }
    }

    /// Writes them, but for timestamps, to the front of `bytes`, which are zeroes: the end of the list. Returns how many
    /// are used.
    fn write(&self, bytes: &mut [u8; Self::BYTES_MAX]) -> usize {
        let [high, low] = self.mss.to_be_bytes();
        bytes[..4].copy_from_slice(&[2, 4, high, low]);
        let mut len = 4;
        if let Some(shift) = self.window_scale {
            bytes[len..len + 3].copy_from_slice(&[3, 3, shift]);
            len += 3;
        }
        if self.sack_permitted {
            bytes[len..len + 2].copy_from_slice(&[4, 2]);
            len += 2;
        }
        let end = len.next_multiple_of(4);
        if self.timestamps {
            // Something follows.
            const NO_OPERATION: u8 = 1;
            bytes[len..end].fill(NO_OPERATION);
        }
        end
    }
}

impl Default for SynOptions {
    /// What a SYN without options means (RFC 9293, section 3.7.1).
    fn default() -> Self {
        SynOptions {
            mss: 536,
            window_scale: None,
            sack_permitted: false,
            timestamps: false,
        }
    }
}

/// An Ethernet header as it is written on frames to a peer: mostly the peer's own, reflected.
///
/// Numbers, because it is made, compared or written for nearly every segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct L2Header {
    /// Bytes 0 to 7, 8 to 15 and 16 to 17, little-endian; zero behind `len`.
    first: u64,
    second: u64,
    last: u16,
    len: u8,
}

impl L2Header {
    /// Two MAC addresses, one VLAN tag, the type.
    pub const BYTES_MAX: usize = 18;

    /// An untagged header.
    pub fn new(destination: [u8; 6], source: [u8; 6], is_ipv6: bool) -> L2Header {
        let ethertype = match is_ipv6 {
            true => [0x86, 0xdd],
            false => [0x08, 0x00],
        };
        let mut received = [0; UNTAGGED_BYTES];
        received[..6].copy_from_slice(&source);
        received[6..12].copy_from_slice(&destination);
        received[12..].copy_from_slice(&ethertype);
        L2Header::reflect(&received)
    }

    /// The header that these bytes are, if they can be one.
    pub fn of_bytes(bytes: &[u8]) -> Option<L2Header> {
        if ![UNTAGGED_BYTES, Self::BYTES_MAX].contains(&bytes.len()) {
            return None;
        }
        let mut padded = [0; Self::BYTES_MAX];
        padded[..bytes.len()].copy_from_slice(bytes);
        Some(L2Header {
            first: word(&padded, 0),
            second: word(&padded, 8),
            last: u16::from_le_bytes([padded[16], padded[17]]),
            len: bytes.len() as u8,
        })
    }

    /// The header of the way back: MAC addresses swapped, VLAN tag and type kept.
    ///
    /// # Panics
    ///
    /// If `received` is not the header of a parsed frame: 14 or 18 bytes long.
    #[inline]
    pub fn reflect(received: &[u8]) -> L2Header {
        const ADDRESS: u64 = (1 << 48) - 1;
        let (first, second) = (word(received, 0), word(received, 6));
        let (destination, source, ethertype) = (first & ADDRESS, second & ADDRESS, second >> 48);
        // Behind a tag's identifier, where otherwise the type is.
        let tagged = match received.len() > UNTAGGED_BYTES {
            true => word(received, Self::BYTES_MAX - 8) >> 32,
            false => 0,
        };
        L2Header {
            first: source | destination << 48,
            second: destination >> 16 | ethertype << 32 | tagged << 48,
            last: (tagged >> 16) as u16,
            len: received.len() as u8,
        }
    }

    /// Whether it is what [`L2Header::reflect`] makes of `received`.
    ///
    /// # Panics
    ///
    /// As [`L2Header::reflect`].
    #[inline]
    pub fn is_way_back_of(&self, received: &[u8]) -> bool {
        // Nearly all of them: a header whose length is known takes half as long.
        match <&[u8; UNTAGGED_BYTES]>::try_from(received) {
            Ok(untagged) => *self == L2Header::reflect(untagged),
            Err(_) => *self == L2Header::reflect(received),
        }
    }

    /// All of it, to be hashed.
    #[inline]
    pub fn key(&self) -> [u8; Self::BYTES_MAX] {
        let mut bytes = [0; Self::BYTES_MAX];
        self.write_to(&mut bytes);
        bytes
    }

    /// Writes the header to the front of `slot`, and returns the space for the IP packet behind it;
    /// `None` if there is none.
    #[inline]
    pub fn write<'s>(&self, slot: &'s mut [u8]) -> Option<&'s mut [u8]> {
        // A copy of known length is three instructions; the packet overwrites what was too much.
        self.write_to(slot.first_chunk_mut()?);
        slot.get_mut(self.len()..)
    }

    #[inline]
    fn write_to(&self, bytes: &mut [u8; Self::BYTES_MAX]) {
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.second.to_le_bytes());
        bytes[16..].copy_from_slice(&self.last.to_le_bytes());
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }
}

/// The eight bytes from `at` on, little-endian.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

const UNTAGGED_BYTES: usize = 14;

/// A segment without payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control {
    pub kind: Kind,
    pub seq: u32,
    pub ack: Option<u32>,
    pub window: u16,
    pub timestamps: Option<Timestamps>,
}

/// What a control segment is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Ack,
    /// A FIN that acknowledges.
    Fin,
    Reset,
    /// A SYN (if nothing is acknowledged) or SYN|ACK with these options.
    Syn(SynOptions),
}

impl Control {
    /// The RST for a segment that belongs to no connection (RFC 9293, section 3.10.7.1).
    pub fn reset_for(segment: &Segment) -> Control {
        let (seq, ack) = match segment.flags.contains(Flags::ACK) {
            true => (segment.ack, None),
            false => (0, Some(segment.seq.wrapping_add(segment.sequence_len()))),
        };
        Control {
            kind: Kind::Reset,
            seq,
            ack,
            window: 0,
            timestamps: None,
        }
    }
}

/// Which way a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToPeer,
    FromPeer,
}

/// Writes `control` as an IP packet of `flow` to the front of `space` and returns its length, or
/// `None` if it does not fit.
pub(crate) fn write_packet(
    space: &mut [u8],
    local: &Local,
    flow: &FlowKey,
    direction: Direction,
    control: &Control,
) -> Option<usize> {
    let (flags, options) = match control.kind {
        Kind::Ack => (Flags(0), None),
        Kind::Fin => (Flags::FIN, None),
        Kind::Reset => (Flags::RST, None),
        Kind::Syn(options) => (Flags::SYN, Some(options)),
    };
    let mut bytes = [0; SynOptions::BYTES_MAX + Timestamps::BYTES];
    let mut options_len = 0;
    if let Some(options) = options
        && let Some(space) = bytes.first_chunk_mut()
    {
        options_len = options.write(space);
    }
    if let Some(timestamps) = control.timestamps {
        bytes[options_len..options_len + Timestamps::BYTES].copy_from_slice(&timestamps.to_bytes());
        options_len += Timestamps::BYTES;
    }
    let at = header::bytes(flow);
    let packet = space.get_mut(..at + options_len)?;
    let sum = copy_and_sum(&mut packet[at..], &bytes[..options_len]);
    let header = Header {
        seq: control.seq,
        ack: control.ack.unwrap_or(0),
        window: control.window,
        flags: match control.ack {
            Some(_) => flags | Flags::ACK,
            None => flags,
        },
        options_len: options_len as u8,
    };
    header::write(packet, local, flow, direction, &header, sum);
    Some(packet.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, ChecksumPolicy};
    use std::net::IpAddr;

    #[test]
    fn what_is_written_parses_back() {
        let ours: IpAddr = [10, 0, 0, 2].into();
        for remote in [IpAddr::from([10, 0, 0, 1]), "fd00::1".parse().unwrap()] {
            let ours = if remote.is_ipv6() {
                "fd00::2".parse().unwrap()
            } else {
                ours
            };
            let local = Local::new(&[ours], &[80]).unwrap();
            let flow = FlowKey::new(remote, 5000, 0, 80);
            let options = SynOptions {
                mss: 1200,
                window_scale: Some(7),
                sack_permitted: true,
                timestamps: true,
            };
            let timestamps = Some(Timestamps { value: 5, echo: 6 });
            let syn = Control {
                kind: Kind::Syn(options),
                seq: 9,
                ack: None,
                window: 1000,
                timestamps,
            };

            let mut frame = vec![2; 200];
            frame[12..14].copy_from_slice(if remote.is_ipv6() {
                &[0x86, 0xdd]
            } else {
                &[8, 0]
            });
            let len =
                write_packet(&mut frame[14..], &local, &flow, Direction::FromPeer, &syn).unwrap();
            let segment =
                packet::parse(&frame[..14 + len], &local, ChecksumPolicy::Verify).unwrap();
            assert_eq!(
                (segment.flow, segment.seq, segment.flags),
                (flow, 9, Flags::SYN)
            );
            assert_eq!(SynOptions::of_segment(&segment, &frame), Ok(options));
            assert_eq!(Timestamps::of_segment(&segment, &frame), timestamps);
        }
    }

    #[test]
    fn a_header_is_reflected_with_its_tag() {
        let received = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x81, 0, 0x20, 7, 8, 0];
        let expected = [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0x81, 0, 0x20, 7, 8, 0];
        for len in [14, 18] {
            let header = L2Header::reflect(&received[..len]);
            let mut slot = [0; 100];
            assert_eq!(
                header.write(&mut slot).map(|packet| packet.len()),
                Some(100 - len)
            );
            assert_eq!(slot[..len], expected[..len]);
        }
    }
}
