//! TCP segments as they were sent, of what the kernel has made of them on their way to a packet socket.
//!
//! GRO merges segments that follow each other, and says so nowhere in the packet: cut to the size that packets have here,
//! each piece is a segment that the peer may have sent. A checksum that a sender on this machine has left to its device
//! is completed.

use barewire_tcp::sender::checksum::{fold, unfolded};

/// Bytes of an 802.1Q tag.
pub(super) const TAG_BYTES: usize = 4;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;

/// Where the parts of a TCP segment are in its frame.
#[derive(Debug, Clone, Copy)]
struct Layout {
    is_ipv6: bool,
    ip: usize,
    tcp: usize,
    payload: usize,
    end: usize,
}

impl Layout {
    /// Of a whole segment; `None` if it is none, which is for others to find out.
    fn of(frame: &[u8]) -> Option<Layout> {
        let half = |at: usize| {
            let bytes = frame.get(at..at + 2)?;
            Some(u16::from_be_bytes([bytes[0], bytes[1]]))
        };
        let (kind, ip) = match half(12)? {
            0x8100 => (half(16)?, 14 + TAG_BYTES),
            kind => (kind, 14),
        };
        let is_ipv6 = kind == 0x86dd;
        let (tcp, end) = match is_ipv6 {
            true => (ip + 40, ip + 40 + usize::from(half(ip + 4)?)),
            false => {
                let header = usize::from(frame.get(ip)? & 0xf) * 4;
                (ip + header, ip + usize::from(half(ip + 2)?))
            }
        };
        let payload = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
        let is_whole = tcp + 20 <= payload && payload <= end && end <= frame.len();
        is_whole.then_some(Layout {
            is_ipv6,
            ip,
            tcp,
            payload,
            end,
        })
    }
}

/// Shows `each` the segments that `frame` stands for, in packets of at most `packet_bytes_max`. `piece` is space for one.
pub(super) fn cut(
    frame: &[u8],
    packet_bytes_max: usize,
    piece: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) {
    let Some(layout) = Layout::of(frame) else {
        return each(frame);
    };
    let headers = &frame[..layout.payload];
    let len_max = packet_bytes_max.saturating_sub(layout.payload - layout.ip);
    let payload = &frame[layout.payload..layout.end];
    let mut from = 0;
    loop {
        let to = payload.len().min(from + len_max.max(1));
        piece.clear();
        piece.extend_from_slice(headers);
        piece.extend_from_slice(&payload[from..to]);
        complete(piece, &layout, from, to == payload.len());
        each(piece);
        from = to;
        if from == payload.len() {
            return;
        }
    }
}

/// Makes what begins `from` bytes behind the first one a segment of its own.
fn complete(frame: &mut [u8], layout: &Layout, from: usize, is_last: bool) {
    let Layout { ip, tcp, .. } = *layout;
    let put = |frame: &mut [u8], at: usize, value: u16| {
        frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    };
    let ip_len = frame.len() - ip;
    let addresses = match layout.is_ipv6 {
        true => {
            put(frame, ip + 4, (ip_len - 40) as u16);
            ip + 8..ip + 40
        }
        false => {
            put(frame, ip + 2, ip_len as u16);
            put(frame, ip + 10, 0);
            let sum = fold(unfolded(&frame[ip..tcp]));
            put(frame, ip + 10, u16::from_be(!sum));
            ip + 12..ip + 20
        }
    };
    let seq = u32::from_be_bytes([
        frame[tcp + 4],
        frame[tcp + 5],
        frame[tcp + 6],
        frame[tcp + 7],
    ]);
    frame[tcp + 4..tcp + 8].copy_from_slice(&seq.wrapping_add(from as u32).to_be_bytes());
    if !is_last {
        frame[tcp + 13] &= !(FIN | PSH);
    }
    put(frame, tcp + 16, 0);
    let tcp_len = (frame.len() - tcp) as u16;
    let protocol_and_len = [6, tcp_len].map(|word| u64::from(word.to_be()));
    let pseudo_header = unfolded(&frame[addresses]) + protocol_and_len.iter().sum::<u64>();
    let sum = fold(pseudo_header + unfolded(&frame[tcp..]));
    put(frame, tcp + 16, u16::from_be(!sum));
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{IpAddr, SocketAddr};

    use barewire_tcp::packet::{ChecksumPolicy, Flags, Local, parse};
    use barewire_tcp_testing::frame::TcpFrame;

    /// All segments of a frame that is cut, as (sequence number, flags, payload).
    fn segments(
        from: IpAddr,
        to: IpAddr,
        payload: &[u8],
        vlan: Option<u16>,
    ) -> Vec<(u32, Flags, Vec<u8>)> {
        let frame = TcpFrame {
            seq: u32::MAX - 9,
            flags: Flags::ACK | Flags::PSH,
            vlan,
            payload,
            ..TcpFrame::new(SocketAddr::new(from, 40_000), SocketAddr::new(to, 80))
        };
        let mut frame = frame.to_vec();
        // Left to a device.
        let tcp = Layout::of(&frame).unwrap().tcp;
        frame[tcp + 16] ^= 0x55;
        let local = Local::new(&[to], &[80]).unwrap();
        let mut segments = Vec::new();
        cut(&frame, 1_500, &mut Vec::new(), |piece| {
            let segment = parse(piece, &local, ChecksumPolicy::Verify).unwrap();
            segments.push((segment.seq, segment.flags, segment.payload(piece).to_vec()));
        });
        segments
    }

    #[test]
    fn what_was_merged_is_cut_into_segments_with_valid_checksums() {
        let payload: Vec<u8> = (0..4_001_u32).map(|at| (at * 7 % 251) as u8).collect();
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for vlan in [None, Some(9)] {
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                let segments = segments(from, to, &payload, vlan);
                assert_eq!(segments.len(), 3);
                let mut seq = u32::MAX - 9;
                let mut whole = Vec::new();
                for (at, (its, flags, bytes)) in segments.iter().enumerate() {
                    assert_eq!(*its, seq);
                    assert_eq!(flags.contains(Flags::PSH), at == 2);
                    seq = seq.wrapping_add(bytes.len() as u32);
                    whole.extend_from_slice(bytes);
                }
                assert_eq!(whole, payload);
            }
        }
    }

    #[test]
    fn a_segment_without_payload_stays_one() {
        let (from, to) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert_eq!(segments(from, to, b"", None).len(), 1);
    }

    #[test]
    fn what_is_no_segment_is_left_alone() {
        let mut seen = Vec::new();
        for len in 0..60 {
            cut(&vec![0xff; len], 1_500, &mut Vec::new(), |piece| {
                seen.push(piece.len())
            });
        }
        assert_eq!(seen, (0..60).collect::<Vec<_>>());
    }
}
