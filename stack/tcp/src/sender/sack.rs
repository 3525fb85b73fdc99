//! TCP options of established connections: selective acknowledgments (RFC 2018, RFC 2883) and
//! timestamps (RFC 7323), read and written.

use crate::guard::is_before;

/// A range of the stream, from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Block {
    /// Sequence number of the first byte.
    pub start: u32,
    /// Sequence number behind the last byte.
    pub end: u32,
}

impl Block {
    /// Whether all from `start` to `end` is in it.
    #[inline]
    pub fn covers(&self, start: u32, end: u32) -> bool {
        !is_before(start, self.start) && !is_before(self.end, end)
    }

    /// Whether it holds at least one byte.
    #[inline]
    pub fn is_valid(&self) -> bool {
        is_before(self.start, self.end)
    }
}

/// Most blocks that fit into the options of a segment.
pub const BLOCKS_MAX: usize = 4;

/// The options of a segment of an established connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    blocks: [Block; BLOCKS_MAX],
    block_count: u8,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// An option's length was impossible, and what follows it was not read.
    pub is_malformed: bool,
}

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

impl Options {
    /// Reads the option bytes of a TCP header. Options of other kinds are skipped, more blocks than four
    /// are impossible.
    #[inline]
    pub fn parse(mut rest: &[u8]) -> Options {
        let mut options = Options::default();
        loop {
            match rest {
                [] | [END, ..] => return options,
                [NO_OPERATION, tail @ ..] => rest = tail,
                &[kind, len, ..] if len >= 2 && usize::from(len) <= rest.len() => {
                    let (option, tail) = rest.split_at(usize::from(len));
                    options.read(kind, &option[2..]);
                    rest = tail;
                }
                _ => {
                    options.is_malformed = true;
                    return options;
                }
            }
        }
    }

    /// The SACK blocks, in the order of the segment.
    #[inline]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks[..usize::from(self.block_count)]
    }

    fn read(&mut self, kind: u8, value: &[u8]) {
        match kind {
            TIMESTAMPS => match *value {
                [a, b, c, d, e, f, g, h] => {
                    let value = u32::from_be_bytes([a, b, c, d]);
                    let echo = u32::from_be_bytes([e, f, g, h]);
                    self.timestamps = Some((value, echo));
                }
                _ => self.is_malformed = true,
            },
            SACK => {
                let (blocks, rest) = value.as_chunks::<8>();
                if blocks.len() > BLOCKS_MAX || !rest.is_empty() {
                    self.is_malformed = true;
                    return;
                }
                for (to, &[a, b, c, d, e, f, g, h]) in self.blocks.iter_mut().zip(blocks) {
                    *to = Block {
                        start: u32::from_be_bytes([a, b, c, d]),
                        end: u32::from_be_bytes([e, f, g, h]),
                    };
                }
                self.block_count = blocks.len() as u8;
            }
            _ => {}
        }
    }
}

/// Writes the options of a segment: timestamps if there are any, then as many of `blocks` as fit, the
/// first ones first. Returns how many bytes, a multiple of four.
pub fn write(to: &mut [u8; 40], timestamps: Option<(u32, u32)>, blocks: &[Block]) -> usize {
    let mut len = 0;
    if let Some((value, echo)) = timestamps {
        to[..4].copy_from_slice(&[NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10]);
        to[4..8].copy_from_slice(&value.to_be_bytes());
        to[8..12].copy_from_slice(&echo.to_be_bytes());
        len = 12;
    }
    let count = blocks.len().min((to.len() - len - 4) / 8);
    if count > 0 {
        let option_len = 2 + 8 * count as u8;
        to[len..len + 4].copy_from_slice(&[NO_OPERATION, NO_OPERATION, SACK, option_len]);
        len += 4;
        for block in &blocks[..count] {
            to[len..len + 4].copy_from_slice(&block.start.to_be_bytes());
            to[len + 4..len + 8].copy_from_slice(&block.end.to_be_bytes());
            len += 8;
        }
    }
    len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn four_blocks_fit_and_three_beside_timestamps() {
        let blocks = [1, 2, 3, 4, 5].map(|n| Block {
            start: n * 10,
            end: n * 10 + 5,
        });
        let mut bytes = [0; 40];
        let len = write(&mut bytes, None, &blocks);
        assert_eq!(len, 36);
        assert_eq!(Options::parse(&bytes[..len]).blocks(), &blocks[..4]);
        let len = write(&mut bytes, Some((7, 8)), &blocks);
        assert_eq!(len, 40);
        let options = Options::parse(&bytes[..len]);
        assert_eq!(options.blocks(), &blocks[..3]);
        assert_eq!(options.timestamps, Some((7, 8)));
        assert!(!options.is_malformed);
    }

    #[test]
    fn nothing_to_say_takes_no_bytes() {
        assert_eq!(write(&mut [0; 40], None, &[]), 0);
        assert_eq!(Options::parse(&[]), Options::default());
    }

    #[test]
    fn impossible_lengths_are_noticed() {
        for bytes in [
            &[SACK, 2 + 40][..],
            &[SACK, 1],
            &[SACK, 9, 0, 0, 0, 0, 0, 0, 0],
            &[TIMESTAMPS, 9, 0, 0, 0, 0, 0, 0, 0],
            &[NO_OPERATION, TIMESTAMPS],
        ] {
            assert!(Options::parse(bytes).is_malformed, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..41)) {
            prop_assert!(Options::parse(&bytes).blocks().len() <= BLOCKS_MAX);
        }
    }
}
