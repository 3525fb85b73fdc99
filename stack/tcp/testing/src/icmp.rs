//! What a router says about a packet that was too big for it.

use std::net::IpAddr;

use smoltcp::wire::checksum;

use super::frame::strip_l2;

/// The "too big" message of `router` about the frame `sent`, naming `mtu`, with correct lengths and checksums.
/// It quotes `quoted` bytes of the packet, and goes back to where it came from.
///
/// # Panics
///
/// If `sent` is not an IP packet in a frame, shorter than `quoted`, or of another family than `router`.
pub fn too_big(sent: &[u8], router: IpAddr, mtu: u16, quoted: usize) -> Vec<u8> {
    let packet = strip_l2(sent).expect("a frame");
    let quote = &packet[..quoted];
    let mut frame = sent[6..12].to_vec();
    frame.extend(&sent[..6]);
    frame.extend(&sent[12..sent.len() - packet.len()]);
    let mut message = vec![0; 8];
    message.extend(quote);
    match router {
        IpAddr::V4(router) => {
            message[..2].copy_from_slice(&[3, 4]);
            message[6..8].copy_from_slice(&mtu.to_be_bytes());
            let sum = !checksum::data(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut header = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
            header[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
            header.extend(router.octets());
            header.extend(&packet[12..16]);
            let sum = !checksum::data(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
        IpAddr::V6(router) => {
            message[0] = 2;
            message[6..8].copy_from_slice(&mtu.to_be_bytes());
            let mut header = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
            header[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
            header.extend(router.octets());
            header.extend(&packet[8..24]);
            let sum = !checksum::combine(&[
                checksum::data(&header[8..40]),
                58,
                message.len() as u16,
                checksum::data(&message),
            ]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
    }
    frame.extend(message);
    frame
}
