//! Why a connection cannot go on, and why a call is given up.

/// What the other end did that this one cannot go on with. The connection ends, and all of its calls with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first bytes are not those of a hello.
    #[error("the other end does not speak teleport")]
    NotTeleport,
    /// No version is spoken by both ends.
    #[error("the other end speaks the versions {lowest} to {highest} only")]
    Version {
        /// The lowest one that it speaks.
        lowest: u8,
        /// The highest one.
        highest: u8,
    },
    /// A hello that is too short, or offers nothing that every end has to offer.
    #[error("a malformed hello")]
    Hello,
    /// A block with a header that there is none of, or one that is too long.
    #[error("a malformed block, or one of more than 32 KiB")]
    Block,
    /// A block that cannot be decompressed to at most 32 KiB.
    #[error("a block that cannot be decompressed")]
    Compressed,
    /// A frame that is malformed, or of no kind that there is.
    #[error("a malformed frame")]
    Frame,
    /// A call whose number is not higher than all before it, or that nobody has opened.
    #[error("a frame for a call that was never opened")]
    Call,
    /// More calls than were allowed.
    #[error("more calls at once than allowed")]
    Calls,
    /// More bytes of a call than were allowed, or behind its end.
    #[error("more bytes of a call than allowed")]
    Credit,
    /// A ping before the last one was answered.
    #[error("a ping before the last one was answered")]
    Ping,
    /// The compressor of this end failed.
    #[error("a block could not be compressed")]
    Compressor,
}

/// Why one end gives a call up. The number is what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The response is complete; what is missing of the request is not wanted.
    Done = 0,
    /// Nothing was done for the call: it may be repeated, whatever its method.
    Refused = 1,
    /// Whoever asked does not wait any longer.
    Cancelled = 2,
    /// The message cannot be completed.
    Failed = 3,
    /// What arrived is not one message of HTTP/1.1.
    Malformed = 4,
}

impl Reason {
    /// A number that is not assigned is a failure.
    pub(crate) fn of_number(number: u8) -> Self {
        match number {
            0 => Reason::Done,
            1 => Reason::Refused,
            2 => Reason::Cancelled,
            4 => Reason::Malformed,
            _ => Reason::Failed,
        }
    }
}
