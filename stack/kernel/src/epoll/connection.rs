//! One connection on an edge-triggered epoll.
//!
//! Edges: a `recv` that returned less than it was offered has emptied the socket, and the next byte
//! raises a new edge, so there is no second call to hear EAGAIN. The one exception is the end of the
//! stream, whose edge may come together with that of the last bytes: EPOLLRDHUP says so, and then
//! the socket is read to its end. A connection is registered once, for everything, and modified only
//! to be queued behind the others when it has used up its turn.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use barewire_service::service::{Arrival, Expect, Id, Next, Reply, Service};
use barewire_service::time::Instant;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

use crate::handover::Idle;
use crate::{Buffer, End, Input, Session, Workbench, why_not};

/// What a connection is registered for, once and for all.
pub const EVENTS: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Steps (receive, serve, send) of one connection between two looks at the others.
const STEPS_MAX: usize = 32;

/// A socket, what it told us, and what could not be finished yet.
pub struct Connection<C> {
    socket: OwnedFd,
    session: Session<C>,
    input: Input,
    unsent: Option<Unsent>,
    /// The socket may hold bytes, an end or an error.
    readable: bool,
    /// The socket may take bytes.
    writable: bool,
    /// The peer has ended its stream, or it broke: no further edge will come.
    hangup: bool,
    /// It broke, or both sides have ended it: nothing that is sent would arrive.
    dead: bool,
    state: State,
}

/// What has happened to the connection as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The kernel connects it.
    Opening,
    Open,
    /// We ended our side, and discard what arrives until the peer ends its own: closing with
    /// unread bytes would send a reset, which can destroy the reply on its way (RFC 9112, 9.6).
    Lingering,
    Ended(End),
}

/// Bytes that were written and not sent, the reply to `messages`.
struct Unsent {
    buffer: Buffer,
    start: usize,
    end: usize,
    messages: u32,
}

/// What a connection needs from its core after being worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The next event, or its deadline.
    Wait,
    /// To go on when the other connections of the batch have their replies as well.
    Reply,
    /// Another turn, after the others.
    Yield,
    /// To go on in another process.
    Depart,
    /// To be removed and [closed](Connection::close).
    End,
}

impl<C: Default> Connection<C> {
    /// A connection that was just accepted.
    pub fn accepted<S: Service<Connection = C>>(
        socket: OwnedFd,
        arrival: Arrival<'_>,
        bench: &mut Workbench<S>,
    ) -> Self {
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let session = Session::accepted(&mut bench.service, arrival, now, deadlines);
        Connection {
            writable: true,
            ..Connection::new(socket, session, State::Open)
        }
    }

    /// A connection that another process accepted.
    pub fn taken_over<S: Service<Connection = C>>(
        socket: OwnedFd,
        arrival: Arrival<'_>,
        idle: &Idle,
        bench: &mut Workbench<S>,
    ) -> Self {
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let session = Session::taken_over(&mut bench.service, arrival, idle, now, deadlines);
        Connection {
            writable: true,
            ..Connection::new(socket, session, State::Open)
        }
    }

    /// What another process has to know to go on with it, if one can.
    pub fn departs<S: Service<Connection = C>>(&self, bench: &Workbench<S>) -> Option<Idle> {
        let is_at_rest = self.state == State::Open
            && self.unsent.is_none()
            && self.input.is_empty()
            && !(self.hangup || self.dead);
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let departs = || self.session.departs::<S>(now, deadlines);
        is_at_rest.then(departs).flatten()
    }

    /// It goes on in another process.
    pub fn depart(&mut self) {
        self.state = State::Ended(End::HandedOver);
    }

    /// A connection that the kernel is opening.
    pub fn opening<S: Service<Connection = C>>(
        socket: OwnedFd,
        token: u64,
        id: Id,
        bench: &mut Workbench<S>,
    ) -> Self {
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let session = Session::opened(&mut bench.service, token, id, now, deadlines);
        Connection::new(socket, session, State::Opening)
    }

    fn new(socket: OwnedFd, session: Session<C>, state: State) -> Self {
        Connection {
            socket,
            session,
            input: Input::default(),
            unsent: None,
            readable: false,
            writable: false,
            hangup: false,
            dead: false,
            state,
        }
    }

    /// By what the service names it.
    pub fn id(&self) -> Id {
        self.session.id()
    }

    /// Whether the service had it opened.
    pub fn is_outbound(&self) -> bool {
        self.session.is_outbound()
    }

    /// Calls the service, and goes on until the connection has to wait.
    pub fn wake<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) -> Outcome {
        if self.state != State::Open {
            return Outcome::Wait;
        }
        bench.counters.wakes.increment();
        self.session.wake();
        self.advance(bench)
    }

    /// Resets it, whatever it waits for.
    pub fn abort<S: Service<Connection = C>>(&mut self, _: &mut Workbench<S>) -> Outcome {
        self.state = State::Ended(End::Aborted);
        Outcome::End
    }

    /// Takes note of what epoll has seen.
    #[inline]
    pub fn on_event(&mut self, flags: EventFlags) {
        let hangup = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.hangup |= flags.intersects(hangup);
        self.dead |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
        self.readable |= flags.intersects(EventFlags::IN) || self.hangup;
        self.writable |= flags.intersects(EventFlags::OUT) || self.hangup;
    }

    /// Receives and serves until there is something to send, or the connection has to wait.
    #[inline]
    pub fn advance_to_reply<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
    ) -> Outcome {
        self.step(bench, true)
    }

    /// Receives, serves and sends until the connection has to wait.
    #[inline]
    pub fn advance<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) -> Outcome {
        self.step(bench, false)
    }

    #[inline]
    fn step<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        stop_at_reply: bool,
    ) -> Outcome {
        for _ in 0..STEPS_MAX {
            match self.state {
                State::Open => {}
                State::Opening if self.writable => {
                    self.establish(bench);
                    continue;
                }
                State::Opening => return Outcome::Wait,
                State::Lingering if self.readable => {
                    self.discard(bench);
                    continue;
                }
                State::Lingering => return Outcome::Wait,
                _ => return Outcome::End,
            }
            if self.unsent.is_some() {
                if !self.writable {
                    return Outcome::Wait;
                }
                if stop_at_reply {
                    return Outcome::Reply;
                }
                self.send(bench);
                continue;
            }
            match self.session.next() {
                Next::Receive(_) | Next::Wait if self.session.is_woken() => self.serve(bench),
                // Nobody reads what would find that out.
                Next::Wait if self.dead => self.state = State::Ended(End::Broken),
                Next::Wait => return Outcome::Wait,
                Next::Receive(expect) => {
                    if self.readable {
                        self.receive(bench);
                    } else if bench.draining && expect == Expect::Message && self.input.is_empty() {
                        if bench.leaving.is_some() {
                            // What cannot follow hears of it with the reply to its next message.
                            let departs = self.departs(bench).is_some();
                            return if departs {
                                Outcome::Depart
                            } else {
                                Outcome::Wait
                            };
                        }
                        self.final_reply(bench, S::on_dismiss);
                    } else {
                        return Outcome::Wait;
                    }
                }
                // The peer may have something to say about what it is sent: windows and resets of HTTP/2.
                Next::Send if self.readable && self.has_input_room(bench) => self.receive(bench),
                Next::Send => self.serve(bench),
                Next::Close => self.finish(bench),
                Next::Abort => self.state = State::Ended(End::Aborted),
            }
        }
        if self.session.next() == Next::Send {
            // The socket may not be writable any more, without having refused a byte.
            self.session
                .on_blocked(0, 1, bench.clock.now(), &bench.config.deadlines);
        }
        Outcome::Yield
    }

    /// Its deadline may have passed.
    pub fn on_timer<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) -> Outcome {
        let Some(wait) = self.session.due(bench.clock.now()) else {
            return Outcome::Wait;
        };
        bench.counters.timed_out(wait);
        if !wait.is_for_input() {
            self.state = State::Ended(End::TimedOut);
            return Outcome::End;
        }
        self.final_reply(bench, S::on_timeout);
        self.advance(bench)
    }

    /// When to call [`Connection::on_timer`].
    #[inline]
    pub fn next_at(&self) -> Option<Instant> {
        self.session.next_at()
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The kernel has connected it, or failed to.
    fn establish<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) {
        match sockopt::socket_error(&self.socket) {
            Ok(Ok(())) => {
                bench.counters.connected.increment();
                self.state = State::Open;
                let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
                self.session.on_established(now, deadlines);
            }
            Ok(Err(error)) | Err(error) => self.state = State::Ended(End::Failed(why_not(error))),
        }
    }

    /// Gives everything back.
    pub fn close<S: Service<Connection = C>>(mut self, bench: &mut Workbench<S>) {
        let how = match self.state {
            State::Ended(how) => how,
            State::Opening | State::Open | State::Lingering => End::Orderly,
        };
        bench.end(&mut self.session, how);
        if matches!(how, End::Aborted | End::TimedOut) {
            // Closing then sends a reset; if this fails, an orderly end is as good.
            let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
        self.input.clear(&mut bench.receive);
        if let Some(unsent) = self.unsent {
            bench.send.release(unsent.buffer);
        }
    }

    fn has_input_room<S: Service<Connection = C>>(&self, bench: &Workbench<S>) -> bool {
        self.input.bytes(&bench.receive).len() < bench.config.receive_buffer_bytes
    }

    fn receive<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) {
        // There is room: a session does not ask for more when its input is full.
        let mut input = std::mem::take(&mut self.input);
        let received = self.read(input.space(&mut bench.receive));
        input.grow(received.unwrap_or(0));
        self.input = input;
        match received {
            Some(0) => self.session.on_end(),
            Some(count) => bench.counters.received_bytes.add(count as u64),
            None => return self.input.consume(0, &mut bench.receive),
        }
        self.serve(bench);
    }

    /// Reads once; `None` if there was nothing to read or the connection is broken.
    #[inline]
    fn read(&mut self, space: &mut [u8]) -> Option<usize> {
        let room = space.len();
        match recv(&self.socket, space, RecvFlags::empty()) {
            Ok((_, count)) => {
                self.readable = count > 0 && (count == room || self.hangup);
                Some(count)
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                None
            }
            Err(Errno::INTR) => None,
            Err(_) => {
                self.state = State::Ended(End::Broken);
                None
            }
        }
    }

    fn serve<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) {
        let (reply, turn) = bench.serve(&mut self.session, &mut self.input);
        self.put(reply, turn.written, turn.messages, bench);
    }

    /// Lets the service say something before the connection ends. Input is waited for only when everything was sent.
    fn final_reply<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        say: impl FnOnce(&mut S, &mut C, &mut Reply<'_>),
    ) {
        let (reply, written) = bench.final_reply(&mut self.session, say);
        self.put(reply, written, 0, bench);
    }

    /// Takes a reply of so many bytes to be sent.
    fn put<S: Service<Connection = C>>(
        &mut self,
        buffer: Buffer,
        end: usize,
        messages: u32,
        bench: &mut Workbench<S>,
    ) {
        if end == 0 {
            bench.send.release(buffer);
            let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
            return self.session.on_all_sent(messages, now, deadlines);
        }
        self.unsent = Some(Unsent {
            buffer,
            start: 0,
            end,
            messages,
        });
    }

    /// Sends what is unsent.
    fn send<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) {
        let Some(unsent) = self.unsent.take() else {
            return;
        };
        let Unsent {
            buffer,
            start,
            end,
            messages,
        } = unsent;
        // More bytes, or the FIN, follow at once and shall share the last segment.
        let flags = match self.session.next() {
            Next::Send | Next::Close => SendFlags::NOSIGNAL | SendFlags::MORE,
            Next::Receive(_) | Next::Wait | Next::Abort => SendFlags::NOSIGNAL,
        };
        let sent = send(&self.socket, &bench.send.bytes(&buffer)[start..end], flags);
        let count = match sent {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                self.state = State::Ended(End::Broken);
                0
            }
        };
        bench.counters.sent_bytes.add(count as u64);
        let start = start + count;
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        if start == end {
            bench.send.release(buffer);
            self.session.on_all_sent(messages, now, deadlines);
        } else {
            bench.counters.send_blocked.increment();
            self.writable = sent == Err(Errno::INTR);
            self.session.on_blocked(count, end - start, now, deadlines);
            self.unsent = Some(Unsent {
                buffer,
                start,
                end,
                messages,
            });
        }
    }

    /// Everything was sent: ends our side of the stream.
    fn finish<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) {
        self.input.clear(&mut bench.receive);
        self.state = if self.session.has_ended() {
            State::Ended(End::Orderly)
        } else if shutdown(&self.socket, Shutdown::Write).is_err() {
            State::Ended(End::Broken)
        } else {
            let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
            self.session.on_close(now, deadlines);
            State::Lingering
        };
    }

    /// Reads for the peer's end of the stream, and for nothing else.
    fn discard<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>) {
        let buffer = bench.receive.take();
        if self.read(bench.receive.bytes_mut(&buffer)) == Some(0) {
            self.state = State::Ended(End::Orderly);
        }
        bench.receive.release(buffer);
    }
}
