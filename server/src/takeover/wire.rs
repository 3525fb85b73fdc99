//! Messages between predecessor and successor: bytes, and descriptors beside them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use barewire_kernel::handover::{BATCH_MAX, Idle};
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors of one message (SCM_MAX_FD of the kernel).
const DESCRIPTORS_MAX: usize = 253;
/// Kind, nothing, number of descriptors, length.
const HEAD_BYTES: usize = 8;

/// What a message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The successor has read the answer at the control socket.
    Begin = 1,
    /// The listeners, by address, each with one for each core; up to [`DESCRIPTORS_MAX`] in a message.
    Listeners,
    /// The control socket, then the admin listener, then the locked file of the counts: as the [`super::Estate`] says.
    Endpoints,
    /// Users so far, as the bytes of a state.
    Users,
    /// The successor has all that it needs to serve.
    Prepared,
    /// Connections that the successor goes on with.
    Connections,
    /// The counts, as the bytes of a state: nothing more is counted.
    Counts,
    /// The successor has all of it.
    Taken,
    /// The successor serves from here on.
    Yours,
    /// An event: a user's hash and a value. Answered by one byte.
    Event,
    /// What `GET /stats` says. Answered in JSON.
    Stats,
    /// `POST /reset`. Answered by one byte.
    Reset,
    /// An answer.
    Answer,
    /// The keys of TLS tickets, if there are some.
    TicketKeys,
    /// The attachment of the XDP program and what reserves the ports, with the keys of sequence numbers and cookies.
    Interface,
}

const KINDS: [Kind; 15] = [
    Kind::Begin,
    Kind::Listeners,
    Kind::Endpoints,
    Kind::Users,
    Kind::Prepared,
    Kind::Connections,
    Kind::Counts,
    Kind::Taken,
    Kind::Yours,
    Kind::Event,
    Kind::Stats,
    Kind::Reset,
    Kind::Answer,
    Kind::TicketKeys,
    Kind::Interface,
];

/// A message that has arrived.
#[derive(Debug)]
pub struct Message {
    pub kind: Kind,
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// One end.
#[derive(Debug)]
pub struct Line {
    stream: UnixStream,
    /// Descriptors of messages that were not read to their end yet.
    arrived: VecDeque<OwnedFd>,
}

impl Line {
    pub fn new(stream: UnixStream) -> Self {
        Line {
            stream,
            arrived: VecDeque::new(),
        }
    }

    /// How long a message may take either way; for ever without.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)?;
        self.stream.set_write_timeout(timeout)
    }

    pub fn send(
        &mut self,
        kind: Kind,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        if descriptors.len() > DESCRIPTORS_MAX {
            return Err(ErrorKind::InvalidInput.into());
        }
        let len = u32::try_from(bytes.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let mut head = [0; HEAD_BYTES];
        head[0] = kind as u8;
        head[2..4].copy_from_slice(&(descriptors.len() as u16).to_le_bytes());
        head[4..].copy_from_slice(&len.to_le_bytes());

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let parts = [IoSlice::new(&head), IoSlice::new(bytes)];
        let sent =
            retry_on_intr(|| sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL))?;
        // The descriptors went with the first byte.
        let rest_of_head = head.get(sent..).unwrap_or_default();
        self.stream.write_all(rest_of_head)?;
        self.stream
            .write_all(&bytes[sent.saturating_sub(HEAD_BYTES)..])
    }

    /// The next message; an error of [`ErrorKind::UnexpectedEof`] if the other end is gone.
    pub fn receive(&mut self) -> io::Result<Message> {
        let mut head = [0; HEAD_BYTES];
        self.fill(&mut head)?;
        let kind = KINDS.into_iter().find(|&kind| kind as u8 == head[0]);
        let kind = kind.ok_or(ErrorKind::InvalidData)?;
        let count = u16::from_le_bytes([head[2], head[3]]);
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        // They came with the first byte at the latest.
        let count = usize::from(count);
        if self.arrived.len() < count {
            return Err(ErrorKind::InvalidData.into());
        }
        let descriptors = self.arrived.drain(..count).collect();
        Ok(Message {
            kind,
            bytes,
            descriptors,
        })
    }

    /// The next message, which has to be of `kind`.
    pub fn expect(&mut self, kind: Kind) -> io::Result<Message> {
        let message = self.receive()?;
        match message.kind == kind {
            true => Ok(message),
            false => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn fill(&mut self, mut space: &mut [u8]) -> io::Result<()> {
        while !space.is_empty() {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut room);
            let parts = &mut [IoSliceMut::new(space)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received =
                retry_on_intr(|| recvmsg(&self.stream, parts, &mut control, flags))?.bytes;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.arrived.extend(descriptors);
                }
            }
            if received == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            space = &mut space[received..];
        }
        Ok(())
    }
}

/// Bytes of an idle connection.
const IDLE_BYTES: usize = 12;

/// Connections of a core as bytes; their sockets go beside them.
pub fn connections_to_bytes(core: usize, idle: &[Idle]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + BATCH_MAX * IDLE_BYTES);
    bytes.extend((core as u16).to_le_bytes());
    for idle in idle {
        bytes.extend(idle.listener.to_le_bytes());
        bytes.extend([idle.rest, 0]);
        bytes.extend(idle.idle_us.to_le_bytes());
    }
    bytes
}

/// What [`connections_to_bytes`] made, with the sockets.
pub fn connections_of(message: Message) -> io::Result<(usize, Vec<(Idle, OwnedFd)>)> {
    let malformed = || io::Error::from(ErrorKind::InvalidData);
    let (core, rest) = message.bytes.split_first_chunk().ok_or_else(malformed)?;
    let (records, &[]) = rest.as_chunks::<IDLE_BYTES>() else {
        return Err(malformed());
    };
    if records.len() != message.descriptors.len() {
        return Err(malformed());
    }
    let idle = |record: &[u8; IDLE_BYTES]| {
        let [l0, l1, rest, _, age @ ..] = *record;
        Idle {
            listener: u16::from_le_bytes([l0, l1]),
            rest,
            idle_us: u64::from_le_bytes(age),
        }
    };
    let connections = records.iter().map(idle).zip(message.descriptors);
    Ok((u16::from_le_bytes(*core).into(), connections.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn descriptors_arrive_with_their_own_message() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut left, mut right) = (Line::new(left), Line::new(right));
        let (socket, _peer) = UnixStream::pair().unwrap();
        let idle = |rest| Idle {
            listener: 1,
            rest,
            idle_us: 1 << 40,
        };
        left.send(Kind::Prepared, &[], &[]).unwrap();
        let two = [socket.as_fd(), socket.as_fd()];
        let bytes = connections_to_bytes(3, &[idle(0), idle(1)]);
        left.send(Kind::Connections, &bytes, &two).unwrap();
        left.send(Kind::Answer, b"ok", &[]).unwrap();
        drop(left);

        assert_eq!(right.receive().unwrap().kind, Kind::Prepared);
        let (core, connections) = connections_of(right.receive().unwrap()).unwrap();
        assert_eq!(core, 3);
        let arrived: Vec<_> = connections.iter().map(|(idle, _)| *idle).collect();
        assert_eq!(arrived, [idle(0), idle(1)]);
        assert_eq!(right.expect(Kind::Answer).unwrap().bytes, b"ok");
        let end = right.receive().unwrap_err();
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_says_nothing_in_time_is_given_up() {
        let (left, _right) = UnixStream::pair().unwrap();
        let mut left = Line::new(left);
        left.set_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = left.receive().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_message_that_lies_about_its_connections_is_refused() {
        let message = Message {
            kind: Kind::Connections,
            bytes: connections_to_bytes(
                0,
                &[Idle {
                    listener: 0,
                    rest: 0,
                    idle_us: 0,
                }],
            ),
            descriptors: Vec::new(),
        };
        assert!(connections_of(message).is_err());
    }
}
