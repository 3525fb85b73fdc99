//! The device that smoltcp sees: one received packet, and the link's free slots.

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::wire::checksum;

use crate::control::L2Header;
use crate::link::Transmit;
use crate::packet::Flags;

/// A device for one call into smoltcp.
pub(super) struct Wire<'w, T> {
    /// The packet to receive, if any, from its IP header on.
    pub received: Option<&'w [u8]>,
    pub transmit: &'w mut T,
    /// What goes in front of every packet sent.
    pub l2: &'w L2Header,
    /// The sequence number of bare ACKs.
    ///
    /// RFC 9293, section 3.10.7.4, has SND.NXT there. smoltcp writes the sequence number of its retransmission,
    /// which a peer that has received more must drop; two such ends acknowledge each other without progress. And behind
    /// a FIN that has no room in the peer's window it writes one that lies beyond that.
    pub ack_seq: u32,
    /// By how many bits the window fields of what is sent are shifted; a SYN|ACK tells the peer so. smoltcp, whose
    /// windows are no larger than the field, does not shift them.
    pub window_shift: u8,
    /// TS.Recent, if the connection has timestamps: smoltcp echoes whatever a segment says that it answers.
    pub ts_recent: Option<u32>,
    /// A device for packets that have no slot: they are dropped.
    pub spare: &'w mut [u8],
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// What was sent. smoltcp sends at most one segment per call.
    pub sent: Option<Sent>,
}

/// The header fields of a segment that matter later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub seq: u32,
    pub ack: u32,
    pub window_bytes: u32,
    pub flags: Flags,
    pub payload_len: u32,
    /// Length of the IP packet.
    pub packet_len: usize,
}

impl Sent {
    #[inline]
    pub fn of_packet(packet: &[u8]) -> Sent {
        let tcp = &packet[ip_header_len(packet)..];
        let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let tcp_header_len = usize::from(tcp[12] >> 4) * 4;
        Sent {
            seq: word(4),
            ack: word(8),
            window_bytes: u32::from(u16::from_be_bytes([tcp[14], tcp[15]])),
            flags: Flags(tcp[13]),
            payload_len: (tcp.len() - tcp_header_len) as u32,
            packet_len: packet.len(),
        }
    }

    /// The sequence number behind the segment.
    #[inline]
    pub fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.payload_len)
            .wrapping_add(u32::from(self.flags.contains(Flags::SYN)))
            .wrapping_add(u32::from(self.flags.contains(Flags::FIN)))
    }

    #[inline]
    fn is_bare_ack(&self) -> bool {
        self.flags == Flags::ACK && self.payload_len == 0
    }

    /// Whether smoltcp may have more to send at once. It pushes or finishes with the last byte it
    /// has, and sends a bare ACK only when there is nothing else.
    #[inline]
    pub fn may_be_followed(&self) -> bool {
        self.payload_len > 0 && !self.flags.intersects(Flags::PSH | Flags::FIN)
    }
}

/// Length of the IP header of a well-formed packet.
#[inline]
fn ip_header_len(packet: &[u8]) -> usize {
    match packet[0] >> 4 {
        6 => 40,
        _ => usize::from(packet[0] & 0x0f) * 4,
    }
}

/// Writes another sequence number into a finished packet.
#[cold]
fn change_seq(packet: &mut [u8], seq: u32) {
    let tcp_at = ip_header_len(packet);
    let [a, b, c, d] = seq.to_be_bytes();
    change_half(packet, tcp_at + 4, [a, b]);
    change_half(packet, tcp_at + 6, [c, d]);
}

/// Writes a window field that is shifted by so many bits into a finished packet, or into a SYN|ACK what that number is.
/// Returns the window in bytes.
fn shift_window(packet: &mut [u8], flags: Flags, shift: u8) -> u32 {
    let tcp_at = ip_header_len(packet);
    let window = u16::from_be_bytes([packet[tcp_at + 14], packet[tcp_at + 15]]);
    if !flags.contains(Flags::SYN) {
        let shifted = window >> shift;
        change_half(packet, tcp_at + 14, shifted.to_be_bytes());
        return u32::from(shifted) << shift;
    }
    const WINDOW_SCALE: u8 = 3;
    if let Some(value_at) = option_value_at(packet, WINDOW_SCALE) {
        let mut half = [packet[value_at & !1], packet[value_at | 1]];
        half[value_at & 1] = shift;
        change_half(packet, value_at & !1, half);
    }
    u32::from(window)
}

/// Writes TSecr into a finished packet that has timestamps and is no SYN: all its options begin at even places.
fn change_echo(packet: &mut [u8], echo: u32) {
    const TIMESTAMPS: u8 = 8;
    if let Some(value_at) = option_value_at(packet, TIMESTAMPS)
        && value_at.is_multiple_of(2)
    {
        let [a, b, c, d] = echo.to_be_bytes();
        change_half(packet, value_at + 4, [a, b]);
        change_half(packet, value_at + 6, [c, d]);
    }
}

/// Where the value of a TCP option begins in a finished packet, if it is there.
fn option_value_at(packet: &[u8], kind: u8) -> Option<usize> {
    const NO_OPERATION: u8 = 1;
    let tcp_at = ip_header_len(packet);
    let end = tcp_at + usize::from(packet[tcp_at + 12] >> 4) * 4;
    let mut at = tcp_at + 20;
    while at + 2 < end {
        match packet[at] {
            NO_OPERATION => at += 1,
            found if found == kind => return Some(at + 2),
            _ => at += usize::from(packet[at + 1]).max(1),
        }
    }
    None
}

/// Writes two bytes at an even place of a finished packet, and keeps its checksum right (RFC 1624).
fn change_half(packet: &mut [u8], at: usize, new: [u8; 2]) {
    let sum_at = ip_header_len(packet) + 16;
    let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let sum = !checksum::combine(&[!half(sum_at), !half(at), u16::from_be_bytes(new)]);
    packet[at..at + 2].copy_from_slice(&new);
    packet[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
}

pub(super) struct Arrival<'t>(&'t [u8]);

pub(super) struct Departure<'t, T> {
    transmit: &'t mut T,
    l2: &'t L2Header,
    ack_seq: u32,
    window_shift: u8,
    ts_recent: Option<u32>,
    spare: &'t mut [u8],
    sent: &'t mut Option<Sent>,
}

impl<T: Transmit> Device for Wire<'_, T> {
    type RxToken<'t>
        = Arrival<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Departure<'t, T>
    where
        Self: 't;

    #[inline]
    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Arrival<'_>, Departure<'_, T>)> {
        let packet = self.received.take()?;
        let departure = Departure {
            transmit: self.transmit,
            l2: self.l2,
            ack_seq: self.ack_seq,
            window_shift: self.window_shift,
            ts_recent: self.ts_recent,
            spare: self.spare,
            sent: &mut self.sent,
        };
        Some((Arrival(packet), departure))
    }

    #[inline]
    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Departure<'_, T>> {
        Some(Departure {
            transmit: self.transmit,
            l2: self.l2,
            ack_seq: self.ack_seq,
            window_shift: self.window_shift,
            ts_recent: self.ts_recent,
            spare: self.spare,
            sent: &mut self.sent,
        })
    }

    #[inline]
    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// What an interface knows of the links: IP packets of at most `mtu`, whose checksums were verified
/// when they were parsed and are to be made when they are sent.
#[inline]
pub(super) fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    capabilities.checksum.ipv4 = Checksum::Tx;
    capabilities.checksum.tcp = Checksum::Tx;
    capabilities
}

impl RxToken for Arrival<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, process: F) -> R {
        process(self.0)
    }
}

impl<T: Transmit> TxToken for Departure<'_, T> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let slot = self.transmit.slot();
        let packet = slot.and_then(|slot| self.l2.write(slot)?.get_mut(..len));
        let Some(packet) = packet else {
            return write(&mut self.spare[..len]);
        };
        let result = write(packet);
        let mut sent = Sent::of_packet(packet);
        if sent.is_bare_ack() && sent.seq != self.ack_seq {
            change_seq(packet, self.ack_seq);
            sent.seq = self.ack_seq;
        }
        if self.window_shift > 0 {
            sent.window_bytes = shift_window(packet, sent.flags, self.window_shift);
        }
        if let Some(echo) = self.ts_recent {
            change_echo(packet, echo);
        }
        *self.sent = Some(sent);
        self.transmit.commit(self.l2.len() + len);
        result
    }
}

/// A device for segments that the peer must not see.
pub(super) struct Nowhere<'s>(pub &'s mut [u8]);

impl Transmit for Nowhere<'_> {
    fn free_slots(&self) -> usize {
        1
    }

    fn slot(&mut self) -> Option<&mut [u8]> {
        Some(self.0)
    }

    fn commit(&mut self, _: usize) {}
}
