//! Frames (RFC 9113, sections 4 and 6).
//!
//! ```text
//!   length 24 │ type 8 │ flags 8 │ R │ stream 31 │ payload
//!   └──────────── 9 bytes ───────────────────────┘
//! ```

/// The connection preface of a client (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 9;

/// The longest payload that this server accepts, in bytes: the least value of SETTINGS_MAX_FRAME_SIZE.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;

/// The initial window of a connection, and the default one of streams, in bytes (RFC 9113, section 6.9.2).
pub const WINDOW_BYTES: i64 = 65_535;
/// The largest window in bytes (RFC 9113, section 6.9.1).
pub const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;

/// Types of frames (RFC 9113, section 6).
#[allow(missing_docs, reason = "they are the names of the RFC")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    /// RFC 9218, section 7.1.
    pub const PRIORITY_UPDATE: u8 = 16;
}

/// Flags of frames.
#[allow(missing_docs, reason = "they are the names of the RFC")]
pub mod flag {
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 32;
}

/// Parameters of SETTINGS (RFC 9113, section 6.5.2).
#[allow(missing_docs, reason = "they are the names of the RFC")]
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// RFC 9218, section 2.1.
    pub const NO_RFC7540_PRIORITIES: u16 = 9;
}

/// Error codes (RFC 9113, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the names of the RFC")]
pub enum ErrorCode {
    No = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
    Http11Required = 13,
}

/// The header of a frame (RFC 9113, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the payload in bytes.
    pub len: usize,
    /// One of [`kind`], or an unknown type.
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
}

impl Header {
    /// The header at the front of `bytes`; `None` if that is shorter.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let [a, b, c, kind, flags, stream @ ..] = bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Header {
            len: u32::from_be_bytes([0, *a, *b, *c]) as usize,
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes(*stream) & 0x7fff_ffff,
        })
    }

    /// The header as it is sent.
    #[inline]
    pub fn bytes(self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = (self.len as u32).to_be_bytes();
        let [s, t, u, v] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, s, t, u, v]
    }

    /// Whether `flag` is set.
    #[inline]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The number in the first four bytes of a payload, without the reserved bit.
pub fn number(payload: &[u8]) -> u32 {
    payload
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

/// A frame whose payload is one number.
pub fn of_number(kind: u8, stream: u32, number: u32) -> [u8; HEADER_BYTES + 4] {
    let header = Header {
        len: 4,
        kind,
        flags: 0,
        stream,
    };
    let mut frame = [0; HEADER_BYTES + 4];
    frame[..HEADER_BYTES].copy_from_slice(&header.bytes());
    frame[HEADER_BYTES..].copy_from_slice(&number.to_be_bytes());
    frame
}
