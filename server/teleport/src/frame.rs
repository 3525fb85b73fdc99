//! Frames: what blocks are made of.

use crate::fault::{Fault, Reason};

/// Bytes in front of the payload of a frame: kind, flags, length, call.
pub const HEADER_BYTES: usize = 8;

mod kind {
    pub const DATA: u8 = 1;
    pub const CREDIT: u8 = 2;
    pub const RESET: u8 = 3;
    pub const PING: u8 = 4;
    pub const GO_AWAY: u8 = 5;
}

/// The last of a call's DATA in this direction; the answer to a PING.
const FLAG: u8 = 1;

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Bytes of a message.
    Data {
        call: u32,
        bytes: &'a [u8],
        ends: bool,
    },
    /// So many more bytes may be sent: of a call, or, for call 0, so many bytes of blocks were read.
    Credit { call: u32, bytes: u32 },
    /// The call is given up.
    Reset { call: u32, reason: Reason },
    /// A question whether the other end is there, or the answer.
    Ping { payload: [u8; 8], is_answer: bool },
    /// Calls with a higher number were and will be ignored.
    GoAway { last_call: u32 },
}

impl<'a> Frame<'a> {
    /// The frame at the front of `content`, and how long it is.
    pub fn parse(content: &'a [u8]) -> Result<(Self, usize), Fault> {
        let [kind, flags, l1, l2, c1, c2, c3, c4, ..] = *content else {
            return Err(Fault::Frame);
        };
        let len = HEADER_BYTES + usize::from(u16::from_be_bytes([l1, l2]));
        let call = u32::from_be_bytes([c1, c2, c3, c4]);
        let payload = content.get(HEADER_BYTES..len).ok_or(Fault::Frame)?;
        let is_flagged = match (flags, kind) {
            (0, _) => false,
            (FLAG, kind::DATA | kind::PING) => true,
            _ => return Err(Fault::Frame),
        };
        let frame = match (kind, payload) {
            (kind::DATA, bytes) if call != 0 && (is_flagged || !bytes.is_empty()) => Frame::Data {
                call,
                bytes,
                ends: is_flagged,
            },
            (kind::CREDIT, &[a, b, c, d]) => Frame::Credit {
                call,
                bytes: u32::from_be_bytes([a, b, c, d]),
            },
            (kind::RESET, &[reason]) if call != 0 => Frame::Reset {
                call,
                reason: Reason::of_number(reason),
            },
            (kind::PING, _) if call == 0 => Frame::Ping {
                payload: payload.try_into().map_err(|_| Fault::Frame)?,
                is_answer: is_flagged,
            },
            (kind::GO_AWAY, []) => Frame::GoAway { last_call: call },
            _ => return Err(Fault::Frame),
        };
        Ok((frame, len))
    }

    /// Bytes that it takes.
    pub fn len(&self) -> usize {
        HEADER_BYTES
            + match self {
                Frame::Data { bytes, .. } => bytes.len(),
                Frame::Credit { .. } => 4,
                Frame::Reset { .. } => 1,
                Frame::Ping { .. } => 8,
                Frame::GoAway { .. } => 0,
            }
    }

    /// Appends it to `out`.
    pub fn put(&self, out: &mut Vec<u8>) {
        let len = self.len() - HEADER_BYTES;
        let mut header = |kind: u8, is_flagged: bool, call: u32| {
            let [l1, l2] = (len as u16).to_be_bytes();
            let [c1, c2, c3, c4] = call.to_be_bytes();
            out.extend_from_slice(&[kind, u8::from(is_flagged), l1, l2, c1, c2, c3, c4]);
        };
        match *self {
            Frame::Data { call, bytes, ends } => {
                header(kind::DATA, ends, call);
                out.extend_from_slice(bytes);
            }
            Frame::Credit { call, bytes } => {
                header(kind::CREDIT, false, call);
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Frame::Reset { call, reason } => {
                header(kind::RESET, false, call);
                out.push(reason as u8);
            }
            Frame::Ping { payload, is_answer } => {
                header(kind::PING, is_answer, 0);
                out.extend_from_slice(&payload);
            }
            Frame::GoAway { last_call } => header(kind::GO_AWAY, false, last_call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = (u8, u32, Vec<u8>, bool)> {
        (
            0u8..5,
            1u32..,
            proptest::collection::vec(any::<u8>(), 1..300),
            any::<bool>(),
        )
    }

    fn frame(of: &(u8, u32, Vec<u8>, bool)) -> Frame<'_> {
        let (which, call, ref bytes, flag) = *of;
        match which {
            0 => Frame::Data {
                call,
                bytes,
                ends: flag,
            },
            1 => Frame::Credit {
                call,
                bytes: bytes.len() as u32,
            },
            2 => Frame::Reset {
                call,
                reason: Reason::of_number(bytes[0] % 5),
            },
            3 => Frame::Ping {
                payload: [bytes[0]; 8],
                is_answer: flag,
            },
            _ => Frame::GoAway { last_call: call },
        }
    }

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_written(of in frames()) {
            let frame = frame(&of);
            let mut bytes = Vec::new();
            frame.put(&mut bytes);
            prop_assert_eq!(bytes.len(), frame.len());
            prop_assert_eq!(Frame::parse(&bytes), Ok((frame, bytes.len())));
            prop_assert_eq!(Frame::parse(&bytes[..bytes.len() - 1]), Err(Fault::Frame));
        }
    }

    #[test]
    fn what_is_not_specified_is_refused() {
        for bytes in [
            &[9, 0, 0, 0, 0, 0, 0, 1][..],
            &[kind::DATA, 0, 0, 0, 0, 0, 0, 1],
            &[kind::DATA, 1, 0, 0, 0, 0, 0, 0],
            &[kind::DATA, 2, 0, 1, 0, 0, 0, 1, 0],
            &[kind::CREDIT, 1, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1],
            &[kind::RESET, 0, 0, 1, 0, 0, 0, 0, 2],
            &[kind::PING, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Frame::parse(bytes), Err(Fault::Frame), "{bytes:?}");
        }
    }
}
