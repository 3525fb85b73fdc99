//! A service small enough to be beyond doubt: one command per line, one reply per command.
//!
//! | command | reply |
//! |---|---|
//! | `echo TEXT` | `TEXT` and a line feed |
//! | `fill N` | N bytes of [`pattern`], whatever the room |
//! | `body N`, then N bytes | `got N` |
//! | `flow` | bytes without end, until the line `stop` comes: then `stopped` |
//! | `time` | whether the clock was told, `yes` or `no` |
//! | `close` | `bye`, then the connection ends |
//! | `abort` | none: the connection is reset |

use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};

#[derive(Debug, Default)]
pub struct LineService {
    unix_time_s: u64,
    draining: bool,
}

#[derive(Debug, Default)]
pub struct Connection {
    fill: usize,
    is_flowing: bool,
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    len: usize,
    missing: usize,
}

/// What `fill` replies with: no two stretches of it look the same for long.
pub fn pattern(index: usize) -> u8 {
    (index % 251) as u8 ^ (index / 251 % 256) as u8
}

impl Service for LineService {
    type Connection = Connection;

    const REPLY_BYTES_MIN: usize = 512;

    fn on_input(
        &mut self,
        connection: &mut Connection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        if connection.is_flowing {
            return flow(connection, input, reply);
        }
        let mut bytes = input.bytes;
        let mut messages = 0;
        let next = loop {
            if !fill(connection, reply) || reply.remaining() < Self::REPLY_BYTES_MIN {
                break Next::Send;
            }
            if let Some(body) = &mut connection.body {
                let taken = body.missing.min(bytes.len());
                bytes = &bytes[taken..];
                body.missing -= taken;
                if body.missing > 0 {
                    break Next::Receive(Expect::Body);
                }
                assert!(reply.put(format_line("got", body.len).as_bytes()));
                connection.body = None;
            } else {
                let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                    if input.full && bytes.len() == input.bytes.len() {
                        assert!(reply.put(b"too long\n"));
                        break Next::Close;
                    }
                    break match bytes {
                        [] => Next::Receive(Expect::Message),
                        _ => Next::Receive(Expect::Head),
                    };
                };
                let line = std::str::from_utf8(&bytes[..end]).unwrap();
                bytes = &bytes[end + 1..];
                match line.split_once(' ').unwrap_or((line, "")) {
                    ("echo", text) => {
                        assert!(reply.put(text.as_bytes()) && reply.put(b"\n"));
                    }
                    ("fill", count) => connection.fill = count.parse().unwrap(),
                    ("body", len) => {
                        let len = len.parse().unwrap();
                        connection.body = Some(Body { len, missing: len });
                        continue;
                    }
                    ("flow", _) => {
                        connection.is_flowing = true;
                        break Next::Send;
                    }
                    ("time", _) => {
                        let told: &[u8] = match self.unix_time_s {
                            0 => b"no\n",
                            _ => b"yes\n",
                        };
                        assert!(reply.put(told));
                    }
                    ("close", _) => {
                        assert!(reply.put(b"bye\n"));
                        break Next::Close;
                    }
                    ("abort", _) => break Next::Abort,
                    other => panic!("no such command: {other:?}"),
                }
            }
            messages += 1;
            if self.draining && connection.fill == 0 {
                break Next::Close;
            }
        };
        Progress {
            consumed: input.bytes.len() - bytes.len(),
            messages,
            next,
        }
    }

    fn on_timeout(&mut self, _: &mut Connection, reply: &mut Reply<'_>) {
        assert!(reply.put(b"timeout\n"));
    }

    fn on_clock(&mut self, unix_time_s: u64) {
        self.unix_time_s = unix_time_s;
    }

    fn on_drain(&mut self) {
        self.draining = true;
    }
}

/// Goes on with a `flow`, or ends it.
fn flow(connection: &mut Connection, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
    const STOP: &[u8] = b"stop\n";
    connection.is_flowing = !input.bytes.starts_with(STOP);
    if connection.is_flowing {
        let count = reply.remaining();
        reply.spare()[..count].fill(b'.');
        reply.advance(count);
        return Progress {
            consumed: 0,
            messages: 0,
            next: Next::Send,
        };
    }
    assert!(reply.put(b"stopped\n"));
    Progress {
        consumed: STOP.len(),
        messages: 1,
        next: Next::Receive(Expect::Message),
    }
}

/// Writes what fits of a `fill`; whether it is complete.
fn fill(connection: &mut Connection, reply: &mut Reply<'_>) -> bool {
    let count = connection.fill.min(reply.remaining());
    // The pattern counts down, so that what was sent before need not be remembered.
    for byte in &mut reply.spare()[..count] {
        connection.fill -= 1;
        *byte = pattern(connection.fill);
    }
    reply.advance(count);
    connection.fill == 0
}

fn format_line(word: &str, number: usize) -> String {
    format!("{word} {number}\n")
}
