//! Packets that arrive in several frames, put together.
//!
//! ```text
//!   frames of a batch    [0]   [1 ─▶ 2 ─▶ 3]   [4]         ─▶: more follow (XDP_PKT_CONTD)
//!   packets of it         0          1           2
//!                         │          │           │
//!                      in place   copied      in place
//! ```

use std::ops::Range;

/// The option of a descriptor after which the packet goes on: XDP_PKT_CONTD of `linux/if_xdp.h`.
pub(super) const CONTINUED: u32 = 1;

/// Frames taken from the rx ring at once.
pub const BATCH_FRAMES: usize = 64;

/// The most frames of a batch: MAX_SKB_FRAGS more, the rest of a packet that begins with its last one.
pub(super) const FRAMES_MAX: usize = BATCH_FRAMES + 18;

/// The packets of a batch. Takes no memory once it was made.
pub(super) struct Assembly {
    packets: Vec<Packet>,
    /// The packets that were copied, one behind the other.
    copied: Vec<u8>,
    /// Where the packet begins that is not complete.
    begun: Option<usize>,
}

enum Packet {
    /// All of it is in the frame of this index.
    InPlace(usize),
    /// It was copied to this place.
    Copied(Range<usize>),
}

impl Assembly {
    /// For batches of frames that hold so much each.
    pub fn new(piece_bytes: usize) -> Self {
        Assembly {
            packets: Vec::with_capacity(FRAMES_MAX),
            copied: Vec::with_capacity(FRAMES_MAX * piece_bytes),
            begun: None,
        }
    }

    /// Forgets the last batch.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.copied.clear();
        self.begun = None;
    }

    /// Adds the frame of this index, which holds `piece`; the packet goes on with the next one if it `continues`. A packet
    /// whose last frame is never added is none.
    pub fn add<'f>(&mut self, index: usize, continues: bool, piece: impl FnOnce() -> &'f [u8]) {
        let begun = match self.begun.take() {
            None if !continues => return self.packets.push(Packet::InPlace(index)),
            None => self.copied.len(),
            Some(begun) => begun,
        };
        self.copied.extend_from_slice(piece());
        match continues {
            true => self.begun = Some(begun),
            false => self.packets.push(Packet::Copied(begun..self.copied.len())),
        }
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// The packet of this index, where `frame` says what the frame of an index holds.
    pub fn packet<'f>(&'f self, index: usize, frame: impl FnOnce(usize) -> &'f [u8]) -> &'f [u8] {
        match &self.packets[index] {
            Packet::InPlace(index) => frame(*index),
            Packet::Copied(range) => &self.copied[range.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packets of frames that go on, or not.
    fn packets<'f>(assembly: &'f mut Assembly, frames: &'f [(&'f str, bool)]) -> Vec<&'f str> {
        let frame = |index: usize| frames[index].0.as_bytes();
        assembly.clear();
        for (index, (_, continues)) in frames.iter().enumerate() {
            assembly.add(index, *continues, || frame(index));
        }
        let assembly = &*assembly;
        (0..assembly.len())
            .map(|index| std::str::from_utf8(assembly.packet(index, frame)).unwrap())
            .collect()
    }

    #[test]
    fn frames_that_go_on_become_one_packet() {
        let mut assembly = Assembly::new(4);
        let frames = [
            ("a", false),
            ("bbbb", true),
            ("cccc", true),
            ("d", false),
            ("e", false),
        ];
        assert_eq!(packets(&mut assembly, &frames), ["a", "bbbbccccd", "e"]);
        // The next batch starts anew, and what never ends is no packet.
        let frames = [("ffff", true), ("g", false), ("h", false), ("iiii", true)];
        assert_eq!(packets(&mut assembly, &frames), ["ffffg", "h"]);
        assert!(packets(&mut assembly, &[]).is_empty());
    }

    #[test]
    fn the_largest_batch_fits_without_more_memory() {
        let mut assembly = Assembly::new(16);
        let capacity = assembly.copied.capacity();
        let frames = vec![("0123456789abcdef", true); FRAMES_MAX - 1];
        let frames = [&frames[..], &[("0123456789abcdef", false)]].concat();
        assert_eq!(packets(&mut assembly, &frames).len(), 1);
        assert_eq!(assembly.copied.capacity(), capacity);
    }
}
