//! Segments for a served port that the XDP program leaves to the kernel: in fragments, and behind extension headers.
//!
//! The kernel puts them together, finds no connection, and must not answer: its RST would end one that it does not know.

use std::net::SocketAddr;

use barewire_lab::{Lab, SERVER_DEVICE};
use barewire_tcp::packet::Flags;
use barewire_tcp_testing::frame::TcpFrame;

use crate::bypass::{kernel_tcp, lab, serve};
use crate::http::Client;
use crate::raw::{Wire, mac};
use crate::server::wait_until;

const IP: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP: u8 = 6;
/// Bytes of the segment that are in the first fragment: the TCP header and a little, a multiple of eight.
const FIRST_BYTES: usize = 24;

#[test]
fn fragments_and_extension_headers_are_not_answered_by_the_kernel() {
    let Some(lab) = lab() else { return };
    let server = serve(&lab, &[]);
    let mac = mac(&lab.server_runs(&["cat", &format!("/sys/class/net/{SERVER_DEVICE}/address")]));
    let wire = lab.client(Wire::open);
    for &address in &server.addresses {
        let mut client = lab.client(|| Client::connect(address));
        assert_eq!(client.get("/plaintext").status, 200);
        let segments = strays(client.source(), address, mac);
        let heard = kernel_tcp(&lab, "InSegs");
        for frame in segments.iter().flatten() {
            wire.send(frame);
        }
        wait_for_segments(&lab, heard + segments.len() as u64);
        assert_eq!(kernel_tcp(&lab, "OutRsts"), 0, "{address}");
        assert_eq!(client.get("/plaintext").status, 200, "{address}");
    }
    let ended = server.terminate();
    assert_eq!(ended.served(), 4);
    let count = |name| ended.counters("redirect", name).iter().sum::<u64>();
    assert_eq!(count("passed_fragment"), 4, "{}", ended.stderr);
    // The client's kernel has some of its own, for multicast.
    assert!(count("passed_extension_header") >= 3, "{}", ended.stderr);
}

/// Waits until the server's kernel has heard so many segments.
fn wait_for_segments(lab: &Lab, count: u64) {
    wait_until("the kernel has heard them", || {
        kernel_tcp(lab, "InSegs") >= count
    });
}

/// Segments of the connection from `source` to `destination`, each in one frame or more.
fn strays(source: SocketAddr, destination: SocketAddr, mac: [u8; 6]) -> Vec<Vec<Vec<u8>>> {
    let segment = TcpFrame {
        destination_mac: mac,
        flags: Flags::ACK | Flags::PSH,
        payload: &[b'x'; 40],
        ..TcpFrame::new(source, destination)
    };
    let whole = segment.to_vec();
    if source.is_ipv4() {
        return vec![ipv4_fragments(&whole)];
    }
    let (first, rest) = whole[IP + IPV6_BYTES..].split_at(FIRST_BYTES);
    // An offset in units of eight bytes, above three bits of which the last says that more follow (RFC 8200, section 4.5).
    let offset = (FIRST_BYTES as u16).to_be_bytes();
    let fragment = |[high, low]: [u8; 2], bytes| {
        let header = [TCP, 0, high, low, 0, 0, 0, 7];
        with_extension(&whole, 44, header, bytes)
    };
    let all = &whole[IP + IPV6_BYTES..];
    let behind = |kind, header| vec![with_extension(&whole, kind, header, all)];
    // Six bytes of padding; a routing header with no segment left.
    let padding = [TCP, 0, 1, 4, 0, 0, 0, 0];
    vec![
        vec![fragment([0, 1], first), fragment(offset, rest)],
        behind(0, padding),
        behind(60, padding),
        behind(43, [TCP, 0, 0, 0, 0, 0, 0, 0]),
    ]
}

/// An IPv4 packet in two fragments.
fn ipv4_fragments(whole: &[u8]) -> Vec<Vec<u8>> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    let (first, rest) = whole[IP + IPV4_BYTES..].split_at(FIRST_BYTES);
    let fragment = |offset: u16, bytes: &[u8]| {
        let mut frame = whole[..IP + IPV4_BYTES].to_vec();
        let header = &mut frame[IP..];
        header[2..4].copy_from_slice(&((IPV4_BYTES + bytes.len()) as u16).to_be_bytes());
        header[4..6].copy_from_slice(&7u16.to_be_bytes());
        header[6..8].copy_from_slice(&offset.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(bytes);
        frame
    };
    vec![
        fragment(MORE_FRAGMENTS, first),
        fragment(FIRST_BYTES as u16 / 8, rest),
    ]
}

/// The IPv6 packet of `whole` with an extension header of this kind in front of `bytes`.
fn with_extension(whole: &[u8], kind: u8, extension: [u8; 8], bytes: &[u8]) -> Vec<u8> {
    let mut frame = whole[..IP + IPV6_BYTES].to_vec();
    let len = (extension.len() + bytes.len()) as u16;
    frame[IP + 4..IP + 6].copy_from_slice(&len.to_be_bytes());
    frame[IP + 6] = kind;
    frame.extend(extension);
    frame.extend(bytes);
    frame
}

/// Of an IPv4 header whose checksum field is zero (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|&word| u32::from(u16::from_be_bytes(word)))
        .sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
