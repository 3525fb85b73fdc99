//! Compresses blocks, and decompresses them within bounds.
//!
//! zstd keeps one context for each direction of a connection, as long as that lives: a block is a part of one endless
//! zstd frame, flushed at its end, so that what calls have in common is said once. lz4 compresses each block by itself.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into};
use zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_flush;
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use crate::block::CONTENT_BYTES_MAX;
use crate::fault::Fault;

/// How blocks are compressed, from the fastest to the densest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// Each block by itself, as an LZ4 block.
    Lz4,
    /// All blocks of a direction as one zstd frame.
    #[default]
    Zstd,
}

/// A window of 128 KiB: as far back as zstd looks, and what the other end keeps for it.
const WINDOW_LOG: u32 = 17;

impl Compression {
    const ALL: [Compression; 3] = [Compression::Zstd, Compression::Lz4, Compression::None];

    /// Its bit in a hello.
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The bits of this one and of all that are faster.
    pub(crate) fn and_below(self) -> u8 {
        (self.bit() << 1) - 1
    }

    /// The densest of those whose bits are set.
    pub(crate) fn best(bits: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|each| bits & each.bit() != 0)
    }
}

/// The compressing side of one direction.
pub struct Packer(Pack);

enum Pack {
    None,
    Lz4(CompressTable),
    Zstd(CCtx<'static>),
}

impl Packer {
    pub fn new(compression: Compression, zstd_level: i32) -> Result<Self, Fault> {
        Ok(Packer(match compression {
            Compression::None => Pack::None,
            Compression::Lz4 => Pack::Lz4(CompressTable::large()),
            Compression::Zstd => {
                let failed = |_| Fault::Compressor;
                let mut context = CCtx::try_create().ok_or(Fault::Compressor)?;
                for parameter in [
                    CParameter::CompressionLevel(zstd_level),
                    CParameter::WindowLog(WINDOW_LOG),
                    CParameter::ContentSizeFlag(false),
                    CParameter::ChecksumFlag(false),
                ] {
                    context.set_parameter(parameter).map_err(failed)?;
                }
                Pack::Zstd(context)
            }
        }))
    }

    /// Compresses `content` to the front of `space`, and returns how long it is; `None` if it is to be sent as it is.
    pub fn pack(&mut self, content: &[u8], space: &mut [u8]) -> Result<Option<usize>, Fault> {
        match &mut self.0 {
            Pack::None => Ok(None),
            Pack::Lz4(table) => {
                // Without room for it, nothing would be saved.
                let len = compress_into_with_table(content, space, table);
                Ok(len.ok().filter(|&len| len < content.len()))
            }
            Pack::Zstd(context) => {
                let mut output = OutBuffer::around(space);
                let mut input = InBuffer::around(content);
                loop {
                    let left = context
                        .compress_stream2(&mut output, &mut input, ZSTD_e_flush)
                        .map_err(|_| Fault::Compressor)?;
                    match left {
                        0 => return Ok(Some(output.pos())),
                        _ if output.pos() == output.capacity() => return Err(Fault::Compressor),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The decompressing side of one direction.
pub struct Unpacker(Unpack);

enum Unpack {
    None,
    Lz4,
    Zstd(DCtx<'static>),
}

impl Unpacker {
    pub fn new(compression: Compression) -> Result<Self, Fault> {
        Ok(Unpacker(match compression {
            Compression::None => Unpack::None,
            Compression::Lz4 => Unpack::Lz4,
            Compression::Zstd => {
                let mut context = DCtx::try_create().ok_or(Fault::Compressor)?;
                context
                    .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
                    .map_err(|_| Fault::Compressor)?;
                Unpack::Zstd(context)
            }
        }))
    }

    /// Decompresses `packed` to the front of `space`, which has room for a byte more than a block may have.
    pub fn unpack(&mut self, packed: &[u8], space: &mut [u8]) -> Result<usize, Fault> {
        let failed = |_| Fault::Compressed;
        let len = match &mut self.0 {
            Unpack::None => return Err(Fault::Block),
            Unpack::Lz4 => decompress_into(packed, space).map_err(|_| Fault::Compressed)?,
            Unpack::Zstd(context) => {
                let mut output = OutBuffer::around(space);
                let mut input = InBuffer::around(packed);
                while input.pos() < packed.len() {
                    let before = (input.pos(), output.pos());
                    let left = context
                        .decompress_stream(&mut output, &mut input)
                        .map_err(failed)?;
                    // The frame never ends; a second one would have no context.
                    if left == 0 || before == (input.pos(), output.pos()) {
                        return Err(Fault::Compressed);
                    }
                }
                output.pos()
            }
        };
        match len > CONTENT_BYTES_MAX {
            true => Err(Fault::Compressed),
            false => Ok(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(compression: Compression) -> (Packer, Unpacker) {
        let packer = Packer::new(compression, 1).unwrap();
        (packer, Unpacker::new(compression).unwrap())
    }

    #[test]
    fn a_context_remembers_the_blocks_before() {
        let (mut packer, mut unpacker) = both(Compression::Zstd);
        let (mut packed, mut content) = ([0; 4096], vec![0; CONTENT_BYTES_MAX + 1]);
        let text =
            b"GET /a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: something long enough\r\n\r\n";
        let mut lens = [0; 2];
        for len in &mut lens {
            *len = packer.pack(text, &mut packed).unwrap().unwrap();
            let n = unpacker.unpack(&packed[..*len], &mut content).unwrap();
            assert_eq!(&content[..n], text);
        }
        assert!(lens[1] < lens[0] / 3, "{lens:?}");
    }

    #[test]
    fn what_becomes_longer_than_a_block_is_refused() {
        for compression in [Compression::Lz4, Compression::Zstd] {
            let (mut packer, mut unpacker) = both(compression);
            let zeros = vec![0; 2 * CONTENT_BYTES_MAX];
            let mut packed = vec![0; 4 * CONTENT_BYTES_MAX];
            let mut content = vec![0; CONTENT_BYTES_MAX + 1];
            let len = packer.pack(&zeros, &mut packed).unwrap().unwrap();
            let unpacked = unpacker.unpack(&packed[..len], &mut content);
            assert_eq!(unpacked, Err(Fault::Compressed), "{compression:?}");
        }
    }

    #[test]
    fn both_contexts_take_as_much_as_the_documentation_says() {
        let (mut packer, mut unpacker) = both(Compression::Zstd);
        let content: Vec<u8> = (0..CONTENT_BYTES_MAX)
            .map(|at| ((at * at) >> 7) as u8)
            .collect();
        let mut packed = vec![0; 2 * CONTENT_BYTES_MAX];
        let mut space = vec![0; CONTENT_BYTES_MAX + 1];
        for _ in 0..10 {
            let len = packer.pack(&content, &mut packed).unwrap().unwrap();
            unpacker.unpack(&packed[..len], &mut space).unwrap();
        }
        let (Pack::Zstd(packer), Unpack::Zstd(unpacker)) = (&packer.0, &unpacker.0) else {
            panic!("not zstd");
        };
        let bytes = packer.sizeof() + unpacker.sizeof();
        assert!((1_400_000..1_650_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn garbage_is_refused_or_is_at_most_a_block() {
        let mut state = 1u32;
        for compression in [Compression::Lz4, Compression::Zstd] {
            for len in 1..200 {
                let (_, mut unpacker) = both(compression);
                let mut content = vec![0; CONTENT_BYTES_MAX + 1];
                let garbage: Vec<u8> = (0..len)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    })
                    .collect();
                let len = unpacker.unpack(&garbage, &mut content);
                assert!(len.is_err() || len.is_ok_and(|len| len <= CONTENT_BYTES_MAX));
            }
        }
    }
}
