//! What one end takes, and what it costs.

use crate::compression::Compression;

/// The limits of one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls that the other end may have open at once, at most 4096. A client accepts none.
    pub calls_max: u16,
    /// Bytes of each call that may wait here, in bytes. So a connection holds at most `calls_max` times as many.
    pub call_credit_bytes: u32,
    /// Bytes of blocks that the other end shall have in flight. So many have to fit in the kernel's buffers, or two ends
    /// that both have much to send would wait for each other; more of them carry more on a long way.
    pub window_bytes: u32,
    /// The best compression that is offered; those below it are offered, too.
    pub compression: Compression,
    /// The level of zstd, from 1 (fast) to 19.
    pub zstd_level: i32,
}

impl Limits {
    /// Most calls that a connection can have.
    pub const CALLS_MAX: u16 = 4096;
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            calls_max: 256,
            call_credit_bytes: 64 * 1024,
            window_bytes: 64 * 1024,
            compression: Compression::Zstd,
            zstd_level: 1,
        }
    }
}
