//! What is said in one turn: up to three blocks, so that secrets stay out of the compressor.
//!
//! ```text
//!   first: compressed   plain: as it is           after: compressed
//!   ─ heads, bodies ──▶ ─ secrets of some heads ─▶ ─ bodies behind those heads ─▶
//! ```
//!
//! The frames of a call stay in order: one that has something in `plain` goes on in `after`.

use crate::block::{CONTENT_BYTES_MAX, HEADER_BYTES, Header, PACKED_BYTES_MAX};
use crate::compression::Packer;
use crate::fault::Fault;
use crate::frame::{self, Frame};

/// Frames that were not sealed yet: at most as many bytes as a block has, all three parts together.
pub struct Batch {
    first: Vec<u8>,
    plain: Vec<u8>,
    after: Vec<u8>,
    /// Which one it is.
    number: u64,
}

/// Where the last frame of a call is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    batch: u64,
    part: Part,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    #[default]
    First,
    Plain,
    After,
}

impl Batch {
    pub fn new() -> Self {
        let part = || Vec::with_capacity(CONTENT_BYTES_MAX);
        Batch {
            first: part(),
            plain: part(),
            after: part(),
            number: 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.plain.is_empty() && self.after.is_empty()
    }

    /// Bytes of frames, headers included, that it can still take.
    pub fn room(&self) -> usize {
        CONTENT_BYTES_MAX - self.first.len() - self.plain.len() - self.after.len()
    }

    /// Where the next bytes of a call would go; `None` if only into another batch.
    fn part_for(&self, place: Place, is_secret: bool) -> Option<Part> {
        let last = match place.batch == self.number {
            true => place.part,
            false => Part::First,
        };
        match (last, is_secret) {
            (Part::First, false) => Some(Part::First),
            (Part::First | Part::Plain, true) => Some(Part::Plain),
            (Part::Plain | Part::After, false) => Some(Part::After),
            (Part::After, true) => None,
        }
    }

    /// Takes a part of a call's message: as many of `bytes` as there is room for, at most `bytes_max`, and its end behind
    /// the last of them. `None` if it takes nothing.
    pub fn put_data(
        &mut self,
        place: &mut Place,
        call: u32,
        bytes: &[u8],
        bytes_max: usize,
        is_secret: bool,
        ends: bool,
    ) -> Option<usize> {
        let room = self.room().checked_sub(frame::HEADER_BYTES)?;
        let part = self.part_for(*place, is_secret)?;
        let count = bytes.len().min(room).min(bytes_max);
        let ends = ends && count == bytes.len();
        if count == 0 && !ends {
            return None;
        }
        let bytes = &bytes[..count];
        let out = match part {
            Part::First => &mut self.first,
            Part::Plain => &mut self.plain,
            Part::After => &mut self.after,
        };
        Frame::Data { call, bytes, ends }.put(out);
        *place = Place {
            batch: self.number,
            part,
        };
        Some(count)
    }

    /// Takes a frame that is not DATA, behind all DATA; false if there is no room for it.
    pub fn put(&mut self, frame: &Frame<'_>) -> bool {
        let fits = frame.len() <= self.room();
        if fits {
            match self.plain.is_empty() {
                true => frame.put(&mut self.first),
                false => frame.put(&mut self.after),
            }
        }
        fits
    }

    /// Makes blocks of everything, in `outbox`, which is empty. Returns how many bytes of frames there were.
    pub fn seal(&mut self, packer: &mut Packer, outbox: &mut Outbox) -> Result<usize, Fault> {
        let mut content_bytes = 0;
        for (part, may_be_packed) in [
            (&mut self.first, true),
            (&mut self.plain, false),
            (&mut self.after, true),
        ] {
            if !part.is_empty() {
                content_bytes += part.len();
                outbox.put_block(part, may_be_packed.then_some(&mut *packer))?;
                part.clear();
            }
        }
        self.number += 1;
        Ok(content_bytes)
    }
}

/// Bytes for the wire.
pub struct Outbox {
    space: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Outbox {
    /// Room for a sealed batch, whose three blocks are together as long as one, and for what lz4 wants beside that.
    pub fn new() -> Self {
        Outbox {
            space: vec![0; PACKED_BYTES_MAX + CONTENT_BYTES_MAX / 8 + 3 * HEADER_BYTES].into(),
            start: 0,
            end: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Takes bytes that are no block. There is room: nothing else has been put there.
    pub fn put(&mut self, bytes: &[u8]) {
        self.space[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    fn put_block(&mut self, content: &[u8], packer: Option<&mut Packer>) -> Result<(), Fault> {
        let body = &mut self.space[self.end + HEADER_BYTES..];
        let packed = match packer {
            Some(packer) => packer.pack(content, body)?,
            None => None,
        };
        let len = packed.unwrap_or(content.len());
        if packed.is_none() {
            body[..len].copy_from_slice(content);
        }
        let header = Header {
            is_packed: packed.is_some(),
            len,
        };
        self.space[self.end..self.end + HEADER_BYTES].copy_from_slice(&header.bytes());
        self.end += HEADER_BYTES + len;
        Ok(())
    }

    /// Moves what fits to the front of `space`, and returns how much that was.
    pub fn take(&mut self, space: &mut [u8]) -> usize {
        let count = self.len().min(space.len());
        space[..count].copy_from_slice(&self.space[self.start..self.start + count]);
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::Compression;

    #[test]
    fn secrets_lie_in_a_plain_block_and_each_call_stays_in_order() {
        let mut batch = Batch::new();
        let mut places = [Place::default(); 2];
        let mut put = |call: usize, text: &[u8], is_secret, ends| {
            let place = &mut places[call - 1];
            let taken = batch.put_data(place, call as u32, text, usize::MAX, is_secret, ends);
            assert_eq!(taken, Some(text.len()));
        };
        put(1, b"head of one", false, false);
        put(1, b"cookie", true, false);
        put(2, b"head of two", false, true);
        put(1, b"body of one", false, true);
        let second = batch.put_data(&mut places[0], 1, b"x", 1, true, false);
        assert_eq!(
            second, None,
            "another secret has to wait for the next batch"
        );

        let mut outbox = Outbox::new();
        let mut packer = Packer::new(Compression::None, 1).unwrap();
        batch.seal(&mut packer, &mut outbox).unwrap();
        let mut wire = vec![0; outbox.len()];
        outbox.take(&mut wire);
        let mut rest = &wire[..];
        let mut said = Vec::new();
        while let Some(header) = Header::parse(rest).unwrap() {
            let mut content = &rest[HEADER_BYTES..HEADER_BYTES + header.len];
            rest = &rest[HEADER_BYTES + header.len..];
            let mut block = Vec::new();
            while !content.is_empty() {
                let (frame, len) = Frame::parse(content).unwrap();
                let Frame::Data { call, bytes, ends } = frame else {
                    panic!("{frame:?}");
                };
                block.push((call, String::from_utf8_lossy(bytes).into_owned(), ends));
                content = &content[len..];
            }
            said.push(block);
        }
        let one = |text: &str, ends| (1, text.to_owned(), ends);
        assert_eq!(
            said,
            [
                vec![
                    one("head of one", false),
                    (2, "head of two".to_owned(), true)
                ],
                vec![one("cookie", false)],
                vec![one("body of one", true)],
            ]
        );
    }

    #[test]
    fn a_batch_of_noise_fits_into_the_outbox() {
        let mut state = 7u64;
        let noise: Vec<u8> = (0..CONTENT_BYTES_MAX)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let (mut batch, mut outbox) = (Batch::new(), Outbox::new());
            let mut packer = Packer::new(compression, 1).unwrap();
            for _ in 0..4 {
                let mut place = Place::default();
                let mut rest = &noise[..];
                for is_secret in [false, true, false] {
                    let n = batch.put_data(&mut place, 1, rest, 12_000, is_secret, false);
                    rest = &rest[n.unwrap()..];
                }
                batch.seal(&mut packer, &mut outbox).unwrap();
                outbox.take(&mut vec![0; 2 * CONTENT_BYTES_MAX]);
                assert!(outbox.is_empty());
            }
        }
    }
}
