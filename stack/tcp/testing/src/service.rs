//! A service that does what its peer asks for, so that a test knows every byte in advance.
//!
//! A connection carries commands, one behind the other: a kind and a length, 5 bytes, and for
//! [`Command::Echo`] that many bytes of data.

use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};

/// What a peer can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Send back the `len` bytes that follow.
    Echo {
        /// Number of bytes.
        len: u32,
    },
    /// Send the first `len` bytes of the [`pattern`].
    Stream {
        /// Number of bytes.
        len: u32,
    },
    /// Close in order.
    Close,
    /// Reset.
    Abort,
}

impl Command {
    /// Length of an encoded command, without the data of an echo.
    pub const BYTES: usize = 5;

    /// The command as it is sent.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let (kind, len) = match self {
            Command::Echo { len } => (b'e', len),
            Command::Stream { len } => (b's', len),
            Command::Close => (b'c', 0),
            Command::Abort => (b'a', 0),
        };
        let [a, b, c, d] = len.to_be_bytes();
        [kind, a, b, c, d]
    }

    /// The command at the front of `bytes`; anything unknown is taken for [`Command::Abort`].
    fn decode(bytes: &[u8]) -> Option<Command> {
        let &[kind, a, b, c, d] = bytes.first_chunk()?;
        let len = u32::from_be_bytes([a, b, c, d]);
        Some(match kind {
            b'e' => Command::Echo { len },
            b's' => Command::Stream { len },
            b'c' => Command::Close,
            _ => Command::Abort,
        })
    }
}

/// Byte `offset` of what [`Command::Stream`] sends; its period is longer than any sequence number
/// confusion would go unnoticed for.
pub fn pattern(offset: u32) -> u8 {
    (offset.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// Obeys [`Command`]s.
#[derive(Debug, Default)]
pub struct CommandService {
    /// Commands completed on all connections.
    pub commands: u64,
    /// Calls to [`Service::on_timeout`].
    pub timeouts: u64,
}

/// Where one connection is in its commands.
#[derive(Debug, Default)]
pub struct CommandState {
    under_way: Option<Transfer>,
}

#[derive(Debug, Clone, Copy)]
struct Transfer {
    is_echo: bool,
    done: u32,
    len: u32,
}

impl Service for CommandService {
    type Connection = CommandState;

    const REPLY_BYTES_MIN: usize = 256;

    fn on_input(
        &mut self,
        connection: &mut CommandState,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let mut progress = Progress {
            consumed: 0,
            messages: 0,
            next: Next::Receive(Expect::Message),
        };
        loop {
            let bytes = &input.bytes[progress.consumed..];
            let Some(transfer) = &mut connection.under_way else {
                let Some(command) = Command::decode(bytes) else {
                    if !bytes.is_empty() {
                        progress.next = Next::Receive(Expect::Head);
                    }
                    return progress;
                };
                progress.consumed += Command::BYTES;
                let (is_echo, len) = match command {
                    Command::Echo { len } => (true, len),
                    Command::Stream { len } => (false, len),
                    Command::Close | Command::Abort => {
                        self.commands += 1;
                        progress.messages += 1;
                        progress.next = match command {
                            Command::Close => Next::Close,
                            _ => Next::Abort,
                        };
                        return progress;
                    }
                };
                connection.under_way = Some(Transfer {
                    is_echo,
                    done: 0,
                    len,
                });
                continue;
            };
            let left = (transfer.len - transfer.done) as usize;
            let mut count = left.min(reply.remaining());
            if transfer.is_echo {
                count = count.min(bytes.len());
                reply.spare()[..count].copy_from_slice(&bytes[..count]);
                progress.consumed += count;
            } else {
                for (offset, byte) in (transfer.done..).zip(&mut reply.spare()[..count]) {
                    *byte = pattern(offset);
                }
            }
            reply.advance(count);
            transfer.done += count as u32;
            if transfer.done == transfer.len {
                connection.under_way = None;
                self.commands += 1;
                progress.messages += 1;
            } else {
                progress.next = match transfer.is_echo && reply.remaining() > 0 {
                    true => Next::Receive(Expect::Body),
                    false => Next::Send,
                };
                return progress;
            }
        }
    }

    fn on_timeout(&mut self, _: &mut CommandState, _: &mut Reply<'_>) {
        self.timeouts += 1;
    }

    fn rest(connection: &CommandState) -> Option<u8> {
        connection.under_way.is_none().then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(service: &mut CommandService, input: &[u8], room: usize) -> (Vec<u8>, Progress) {
        let mut state = CommandState::default();
        let mut output = Vec::new();
        let mut consumed = 0;
        loop {
            let mut space = vec![0; room];
            let mut reply = Reply::new(&mut space);
            let input = Input {
                bytes: &input[consumed..],
                full: false,
                ended: false,
            };
            let progress = service.on_input(&mut state, input, &mut reply);
            output.extend_from_slice(reply.written());
            consumed += progress.consumed;
            if progress.next != Next::Send {
                return (
                    output,
                    Progress {
                        consumed,
                        ..progress
                    },
                );
            }
        }
    }

    #[test]
    fn obeys_one_command_behind_the_other_whatever_room_there_is() {
        let mut commands = Command::Echo { len: 300 }.encode().to_vec();
        commands.extend([7; 300]);
        commands.extend(Command::Stream { len: 1000 }.encode());
        commands.extend(Command::Close.encode());
        let mut expected = vec![7; 300];
        expected.extend((0..1000).map(pattern));
        for room in [256, 301, 5000] {
            let (output, progress) = run(&mut CommandService::default(), &commands, room);
            assert_eq!(output, expected);
            assert_eq!(progress.consumed, commands.len());
            assert_eq!(progress.next, Next::Close);
        }
    }
}
