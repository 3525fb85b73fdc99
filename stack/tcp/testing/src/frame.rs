//! TCP segments as a peer would put them on the wire, right or wrong in any detail.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, checksum};

use barewire_tcp::packet::Flags;

/// A segment to be written as an Ethernet frame; change what shall be different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpFrame<'a> {
    /// The sender's MAC address.
    pub source_mac: [u8; 6],
    /// The receiver's MAC address.
    pub destination_mac: [u8; 6],
    /// The content of an 802.1Q tag, if there is one.
    pub vlan: Option<u16>,
    /// The sender.
    pub source: SocketAddr,
    /// The receiver; of the same family.
    pub destination: SocketAddr,
    /// IPv4 options, a multiple of 4 bytes.
    pub ip_options: &'a [u8],
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as on the wire.
    pub window: u16,
    /// TCP options, a multiple of 4 bytes.
    pub options: &'a [u8],
    /// What the segment carries.
    pub payload: &'a [u8],
}

impl<'a> TcpFrame<'a> {
    /// An empty ACK with an open window.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> TcpFrame<'a> {
        TcpFrame {
            source_mac: [0x02, 0, 0, 0, 0, 0x0c],
            destination_mac: [0x02, 0, 0, 0, 0, 0x05],
            vlan: None,
            source,
            destination,
            ip_options: &[],
            seq: 0,
            ack: 0,
            flags: Flags::ACK,
            window: 64_000,
            options: &[],
            payload: &[],
        }
    }

    /// Number of bytes that [`TcpFrame::write`] writes.
    pub fn len(&self) -> usize {
        self.l2_len() + self.ip_header_len() + self.tcp_len()
    }

    /// Never: a frame has headers.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The frame, with correct lengths and checksums.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut frame = vec![0; self.len()];
        self.write(&mut frame);
        frame
    }

    /// Writes the frame, with correct lengths and checksums, to the front of `space` and returns its
    /// length.
    ///
    /// # Panics
    ///
    /// If `space` is too short, the families differ, or options are not a multiple of 4 bytes.
    pub fn write(&self, space: &mut [u8]) -> usize {
        let frame = &mut space[..self.len()];
        let (l2, packet) = frame.split_at_mut(self.l2_len());
        l2[..6].copy_from_slice(&self.destination_mac);
        l2[6..12].copy_from_slice(&self.source_mac);
        let end = l2.len() - 2;
        if let Some(tag) = self.vlan {
            l2[12..14].copy_from_slice(&[0x81, 0x00]);
            l2[14..16].copy_from_slice(&tag.to_be_bytes());
        }
        let (ethertype, pseudo_header) = self.write_ip(packet);
        l2[end..].copy_from_slice(&ethertype);
        self.write_tcp(&mut packet[self.ip_header_len()..], pseudo_header);
        self.len()
    }

    /// Returns the Ethertype and the sum of the pseudo-header.
    fn write_ip(&self, packet: &mut [u8]) -> ([u8; 2], u16) {
        const PROTOCOL_TCP: u8 = 6;

        let tcp_len = self.tcp_len() as u16;
        let (ethertype, addresses) = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = self.ip_header_len();
                assert!(header_len <= 60 && header_len.is_multiple_of(4));
                packet[..20].fill(0);
                packet[0] = 0x40 | (header_len / 4) as u8;
                packet[2..4].copy_from_slice(&(header_len as u16 + tcp_len).to_be_bytes());
                packet[6] = 0x40; // don't fragment
                packet[8] = 64;
                packet[9] = PROTOCOL_TCP;
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
                packet[20..header_len].copy_from_slice(self.ip_options);
                let sum = !checksum::data(&packet[..header_len]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                ([0x08, 0x00], checksum::data(&packet[12..20]))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
                packet[4..6].copy_from_slice(&tcp_len.to_be_bytes());
                packet[6] = PROTOCOL_TCP;
                packet[7] = 64;
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
                ([0x86, 0xdd], checksum::data(&packet[8..40]))
            }
            _ => panic!("source and destination are of different families"),
        };
        let pseudo_header = checksum::combine(&[addresses, u16::from(PROTOCOL_TCP), tcp_len]);
        (ethertype, pseudo_header)
    }

    fn write_tcp(&self, segment: &mut [u8], pseudo_header: u16) {
        let header_len = 20 + self.options.len();
        assert!(header_len <= 60 && header_len.is_multiple_of(4));
        segment[..2].copy_from_slice(&self.source.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&self.ack.to_be_bytes());
        segment[12] = ((header_len / 4) << 4) as u8;
        segment[13] = self.flags.0;
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        segment[16..20].fill(0);
        segment[20..header_len].copy_from_slice(self.options);
        segment[header_len..].copy_from_slice(self.payload);
        let sum = !checksum::combine(&[pseudo_header, checksum::data(segment)]);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
    }

    fn l2_len(&self) -> usize {
        14 + if self.vlan.is_some() { 4 } else { 0 }
    }

    fn ip_header_len(&self) -> usize {
        match self.source {
            SocketAddr::V4(_) => 20 + self.ip_options.len(),
            SocketAddr::V6(_) => 40,
        }
    }

    fn tcp_len(&self) -> usize {
        20 + self.options.len() + self.payload.len()
    }
}

/// A TCP segment that was received by a peer, with correct lengths and checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpView<'f> {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as on the wire.
    pub window: u16,
    /// TCP options.
    pub options: &'f [u8],
    /// What the segment carries.
    pub payload: &'f [u8],
}

impl<'f> TcpView<'f> {
    /// Reads an Ethernet frame with smoltcp's parsers, so that nothing here can share a mistake with
    /// [`barewire_tcp::packet`]. `None` if it is not a TCP segment or damaged.
    pub fn read(frame: &'f [u8]) -> Option<TcpView<'f>> {
        let (source, destination, segment) = read_ip(strip_l2(frame)?)?;
        let tcp = TcpPacket::new_checked(segment).ok()?;
        if !tcp.verify_checksum(&source.into(), &destination.into()) {
            return None;
        }
        Some(TcpView {
            source: SocketAddr::new(source, tcp.src_port()),
            destination: SocketAddr::new(destination, tcp.dst_port()),
            seq: tcp.seq_number().0 as u32,
            ack: tcp.ack_number().0 as u32,
            flags: Flags(segment[13]),
            window: tcp.window_len(),
            options: &segment[20..usize::from(tcp.header_len())],
            payload: &segment[usize::from(tcp.header_len())..],
        })
    }

    /// SEG.LEN.
    pub fn sequence_len(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }
}

/// The IP packet in an Ethernet frame with at most one 802.1Q tag.
pub fn strip_l2(frame: &[u8]) -> Option<&[u8]> {
    match frame.get(12..14)? {
        [0x81, 0x00] => frame.get(18..),
        _ => frame.get(14..),
    }
}

fn read_ip(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let (header_len, end) = (usize::from(ip.header_len()), usize::from(ip.total_len()));
            (ip.verify_checksum() && ip.next_header() == IpProtocol::Tcp).then(|| {
                let (source, destination) = (ip.src_addr(), ip.dst_addr());
                (source.into(), destination.into(), &packet[header_len..end])
            })
        }
        6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            (ip.next_header() == IpProtocol::Tcp).then(|| {
                let (source, destination) = (ip.src_addr(), ip.dst_addr());
                (
                    source.into(),
                    destination.into(),
                    &packet[40..ip.total_len()],
                )
            })
        }
        _ => None,
    }
}
