//! Blocks: what a connection is made of behind the hellos.

use crate::fault::Fault;

/// Most bytes of frames in a block, before compression.
pub const CONTENT_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of a block on the wire: what cannot be compressed becomes a little longer.
pub const PACKED_BYTES_MAX: usize = CONTENT_BYTES_MAX + 512;
/// Bytes in front of a block.
pub const HEADER_BYTES: usize = 4;

/// What is in front of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub is_packed: bool,
    /// Bytes that follow.
    pub len: usize,
}

impl Header {
    pub fn bytes(self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = (self.len as u32).to_be_bytes();
        [u8::from(self.is_packed), a, b, c]
    }

    /// The header at the front of `bytes`; `None` if it is not whole.
    pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Fault> {
        let [kind, a, b, c, ..] = *bytes else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        let (is_packed, len_max) = match kind {
            0 => (false, CONTENT_BYTES_MAX),
            1 => (true, PACKED_BYTES_MAX),
            _ => return Err(Fault::Block),
        };
        match len {
            0 => Err(Fault::Block),
            _ if len > len_max => Err(Fault::Block),
            _ => Ok(Some(Header { is_packed, len })),
        }
    }
}
