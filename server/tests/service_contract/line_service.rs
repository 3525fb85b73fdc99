//! A service small enough to be beyond doubt: one command per line, one reply per command.
//!
//! | command | reply |
//! |---|---|
//! | `echo TEXT` | `TEXT` and a line feed, whatever the room |
//! | `fill N` | N bytes of [`pattern`], whatever the room |
//! | `body N`, then N bytes | `got N` |
//! | `flow` | bytes without end, until the line `stop` comes: then `stopped` |
//! | `time` | whether the clock was told, `yes` or `no` |
//! | `close` | `bye`, then the connection ends |
//! | `abort` | none: the connection is reset |
//! | `park` | `woken`, once another connection says `wake`; until then nothing more is read |
//! | `wake` | how many were parked: they are woken |
//! | `drop` | how many were parked: they are reset |
//! | `over` | how many connections are over, as far as the service was told |
//! | `peer` | the address of the client, if that was told |
//! | `dial PORT TEXT` | the line with which a server on this machine answers the line `TEXT`, or why not |

use std::collections::VecDeque;
use std::net::SocketAddr;

use barewire_service::service::{
    Arrival, End, Expect, Id, Input, Next, Progress, Reply, Service, Want,
};
use barewire_service::time::Instant;

#[derive(Debug, Default)]
pub struct LineService {
    unix_time_s: u64,
    draining: bool,
    parked: Vec<Id>,
    wants: VecDeque<Want>,
    over: u64,
    /// What is dialled: who asked, and the answer once it is there.
    dialled: Vec<Dialled>,
}

#[derive(Debug)]
struct Dialled {
    by: Id,
    text: String,
    answer: Option<String>,
}

#[derive(Debug, Default)]
pub struct Connection {
    /// What of an `echo` is still to be said.
    echo: VecDeque<u8>,
    fill: usize,
    is_flowing: bool,
    body: Option<Body>,
    id: Id,
    peer: Option<SocketAddr>,
    waits_for: Option<WaitsFor>,
    /// Its place in the list, if the service opened it.
    dialled: Option<usize>,
    spoken: bool,
}

#[derive(Debug, Clone, Copy)]
enum WaitsFor {
    Wake,
    Answer(usize),
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
        if let Some(dialled) = connection.dialled {
            return self.converse(connection, dialled, input, reply);
        }
        if connection.is_flowing {
            return flow(connection, input, reply);
        }
        let mut bytes = input.bytes;
        let mut messages = 0;
        let next = loop {
            match connection.waits_for.take() {
                None => {}
                Some(WaitsFor::Wake) if self.parked.contains(&connection.id) => {
                    connection.waits_for = Some(WaitsFor::Wake);
                    break Next::Wait;
                }
                Some(WaitsFor::Wake) => assert!(reply.put(b"woken\n")),
                Some(WaitsFor::Answer(at)) => match &self.dialled[at].answer {
                    Some(answer) => assert!(reply.put(answer.as_bytes())),
                    None => {
                        connection.waits_for = Some(WaitsFor::Answer(at));
                        break Next::Wait;
                    }
                },
            }
            if !echo(connection, reply)
                || !fill(connection, reply)
                || reply.remaining() < Self::REPLY_BYTES_MIN
            {
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
                        connection.echo.extend(text.bytes().chain([b'\n']));
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
                    ("park", _) => {
                        self.parked.push(connection.id);
                        connection.waits_for = Some(WaitsFor::Wake);
                    }
                    (word @ ("wake" | "drop"), _) => {
                        let count = format!("{}\n", self.parked.len());
                        assert!(reply.put(count.as_bytes()));
                        let want = if word == "wake" {
                            Want::Wake
                        } else {
                            Want::Abort
                        };
                        self.wants.extend(self.parked.drain(..).map(want));
                    }
                    ("over", _) => assert!(reply.put(format!("{}\n", self.over).as_bytes())),
                    ("peer", _) => {
                        let peer = connection.peer.map(|peer| peer.to_string());
                        let told = format!("{}\n", peer.unwrap_or_default());
                        assert!(reply.put(told.as_bytes()));
                    }
                    ("dial", call) => {
                        let (port, text) = call.split_once(' ').unwrap();
                        connection.waits_for = Some(WaitsFor::Answer(self.dialled.len()));
                        self.wants.push_back(Want::Connect {
                            to: SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())),
                            token: self.dialled.len() as u64,
                        });
                        self.dialled.push(Dialled {
                            by: connection.id,
                            text: text.to_owned(),
                            answer: None,
                        });
                    }
                    other => panic!("no such command: {other:?}"),
                }
            }
            messages += 1;
            if self.draining && connection.fill == 0 && echo(connection, reply) {
                break Next::Close;
            }
        };
        Progress {
            consumed: input.bytes.len() - bytes.len(),
            messages,
            next,
        }
    }

    fn on_accept(&mut self, arrival: Arrival<'_>) -> (Connection, Expect) {
        let connection = Connection {
            id: arrival.id,
            peer: arrival.peer,
            ..Connection::default()
        };
        (connection, Expect::Message)
    }

    fn wants(&mut self, _: Instant) -> Want {
        self.wants
            .pop_front()
            .unwrap_or(Want::Nothing { until: None })
    }

    fn on_open(&mut self, token: u64, id: Id) -> Connection {
        Connection {
            id,
            dialled: Some(token as usize),
            ..Connection::default()
        }
    }

    fn on_end(&mut self, connection: &mut Connection, end: End) {
        self.over += 1;
        self.parked.retain(|parked| *parked != connection.id);
        if let Some(at) = connection.dialled {
            self.answer(at, format!("{end:?}\n"));
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

impl LineService {
    /// The part of who calls.
    fn converse(
        &mut self,
        connection: &mut Connection,
        at: usize,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        if !std::mem::replace(&mut connection.spoken, true) {
            assert!(input.bytes.is_empty(), "the service speaks first");
            assert!(reply.put(format!("{}\n", self.dialled[at].text).as_bytes()));
        }
        let line = input.bytes.split_inclusive(|&byte| byte == b'\n').next();
        let line = line.filter(|line| line.ends_with(b"\n"));
        let next = match line {
            Some(line) => {
                self.answer(at, String::from_utf8(line.to_vec()).unwrap());
                Next::Close
            }
            None => Next::Receive(Expect::Anything),
        };
        Progress {
            consumed: input.bytes.len(),
            messages: u32::from(next == Next::Close),
            next,
        }
    }

    fn answer(&mut self, at: usize, answer: String) {
        let dialled = &mut self.dialled[at];
        if dialled.answer.is_none() {
            dialled.answer = Some(answer);
            self.wants.push_back(Want::Wake(dialled.by));
        }
    }
}

/// Writes what fits of an `echo`; whether it is complete.
fn echo(connection: &mut Connection, reply: &mut Reply<'_>) -> bool {
    let count = connection.echo.len().min(reply.remaining());
    for (space, byte) in reply.spare().iter_mut().zip(connection.echo.drain(..count)) {
        *space = byte;
    }
    reply.advance(count);
    connection.echo.is_empty()
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
