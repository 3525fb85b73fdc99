//! What both ends say first: versions, compressions, and how much they take.

use crate::compression::Compression;
use crate::fault::Fault;
use crate::limits::Limits;

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// The first byte is no ASCII, so that a server of HTTP refuses it at once.
const MAGIC: [u8; 4] = [0xf5, b'T', b'L', b'P'];
/// Bytes of a hello of version 1.
pub const HELLO_BYTES: usize = 20;

/// A hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    pub highest: u8,
    pub lowest: u8,
    /// A bit for each, see [`Compression::bit`].
    pub compressions: u8,
    /// Calls that the other end may have open.
    pub calls_max: u16,
    /// Bytes of each call that the other end may send before it is granted more.
    pub call_credit_bytes: u32,
    /// Bytes of blocks that the other end shall have in flight.
    pub window_bytes: u32,
}

impl Hello {
    /// What an end with these limits says.
    pub fn new(limits: &Limits) -> Self {
        Hello {
            highest: VERSION,
            lowest: VERSION,
            compressions: limits.compression.and_below(),
            calls_max: limits.calls_max,
            call_credit_bytes: limits.call_credit_bytes,
            window_bytes: limits.window_bytes,
        }
    }

    pub fn bytes(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = HELLO_BYTES as u8;
        bytes[5] = self.highest;
        bytes[6] = self.lowest;
        bytes[7] = self.compressions;
        bytes[8..10].copy_from_slice(&self.calls_max.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.call_credit_bytes.to_be_bytes());
        bytes[16..].copy_from_slice(&self.window_bytes.to_be_bytes());
        bytes
    }

    /// Parses the hello at the front of `bytes`; `None` if it is not whole. A longer one is of a later version: what
    /// follows is skipped. Returns how long it is.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Hello, usize)>, Fault> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(Fault::NotTeleport);
        }
        let Some(&len) = bytes.get(4) else {
            return Ok(None);
        };
        let len = usize::from(len);
        if len < HELLO_BYTES {
            return Err(Fault::Hello);
        }
        let Some(bytes) = bytes.get(..len) else {
            return Ok(None);
        };
        let u32_at = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let hello = Hello {
            highest: bytes[5],
            lowest: bytes[6],
            compressions: bytes[7],
            calls_max: u16::from_be_bytes([bytes[8], bytes[9]]),
            call_credit_bytes: u32_at(12),
            window_bytes: u32_at(16),
        };
        Ok(Some((hello, len)))
    }

    /// The compression that both ends use, given what the other one says.
    pub fn agree(&self, other: &Hello) -> Result<Compression, Fault> {
        let version = self.highest.min(other.highest);
        if version < self.lowest.max(other.lowest) {
            return Err(Fault::Version {
                lowest: other.lowest,
                highest: other.highest,
            });
        }
        if other.window_bytes == 0 || other.call_credit_bytes == 0 {
            return Err(Fault::Hello);
        }
        Compression::best(self.compressions & other.compressions).ok_or(Fault::Hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_as_it_was_written_and_only_when_it_is_whole() {
        let hello = Hello::new(&Limits::default());
        let bytes = hello.bytes();
        for len in 0..HELLO_BYTES {
            assert_eq!(Hello::parse(&bytes[..len]), Ok(None));
        }
        assert_eq!(Hello::parse(&bytes), Ok(Some((hello, HELLO_BYTES))));
        assert_eq!(Hello::parse(b"GET / HTTP/1.1\r\n"), Err(Fault::NotTeleport));
    }

    #[test]
    fn a_longer_hello_of_a_later_version_is_understood() {
        let later = Hello {
            highest: 3,
            ..Hello::new(&Limits::default())
        };
        let mut bytes = later.bytes().to_vec();
        bytes[4] += 2;
        bytes.extend([7, 7]);
        assert_eq!(Hello::parse(&bytes), Ok(Some((later, HELLO_BYTES + 2))));
        let ours = Hello::new(&Limits::default());
        assert_eq!(ours.agree(&later), Ok(Compression::Zstd));
    }

    #[test]
    fn ends_without_a_common_version_or_compression_part() {
        let ours = Hello::new(&Limits::default());
        let newer = Hello {
            highest: 9,
            lowest: 8,
            ..ours
        };
        let fault = Fault::Version {
            lowest: 8,
            highest: 9,
        };
        assert_eq!(ours.agree(&newer), Err(fault));
        let mute = Hello {
            compressions: 0,
            ..ours
        };
        assert_eq!(ours.agree(&mute), Err(Fault::Hello));
        let modest = Hello {
            compressions: Compression::Lz4.and_below(),
            ..ours
        };
        assert_eq!(ours.agree(&modest), Ok(Compression::Lz4));
    }
}
