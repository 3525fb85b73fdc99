//! One connection on an io_uring.
//!
//! Receiving is asked for once and goes on by itself, but never for more bytes than the connection
//! has room for: a client that sends and does not read is held back by its own window. While a
//! reply is on its way, what arrives is kept and served when the reply has been taken.

use barewire_service::service::{self, Arrival, Expect, Id, Next, Reply, Service};
use barewire_service::time::Instant;
use rustix::io::Errno;

use super::ring::{Provided, Received, Ring};
use crate::handover::Idle;
use crate::{Buffer, End, Input, Session, Workbench, why_not};

/// A direct descriptor's connection, and what could not be finished yet.
pub struct Connection<C> {
    index: u32,
    session: Session<C>,
    input: Input,
    /// The service has not seen all of the input, or not its end.
    unseen: bool,
    /// The kernel receives for us.
    receiving: bool,
    /// It was told to stop that.
    cancelling: bool,
    /// It waits for a descriptor to be sent to another process with.
    departing: bool,
    /// The kernel is opening it.
    connecting: bool,
    /// The kernel is ending our side of the stream.
    shutting_down: bool,
    /// Messages that the reply on its way answers.
    messages: u32,
    state: State,
}

/// What has happened to the connection as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The kernel connects it.
    Opening,
    Open,
    /// We ended our side, and discard what arrives until the peer ends its own (RFC 9112, 9.6).
    Lingering,
    /// To be closed once the kernel has let go of it.
    Ending {
        how: End,
        begun: bool,
    },
}

/// What a connection needs from its core after being worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The next completion, or its deadline.
    Wait,
    /// To go on in another process.
    Depart,
    /// To be removed and [closed](Connection::close).
    End,
}

impl<C: Default> Connection<C> {
    /// A connection that was accepted.
    pub fn accepted<S: Service<Connection = C>>(
        arrival: Arrival<'_>,
        bench: &mut Workbench<S>,
    ) -> Self {
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let session = Session::accepted(&mut bench.service, arrival, now, deadlines);
        Connection::new(session, State::Open)
    }

    /// A connection that another process accepted.
    pub fn taken_over<S: Service<Connection = C>>(
        arrival: Arrival<'_>,
        idle: &Idle,
        bench: &mut Workbench<S>,
    ) -> Self {
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let session = Session::taken_over(&mut bench.service, arrival, idle, now, deadlines);
        Connection::new(session, State::Open)
    }

    /// What another process has to know to go on with it, if one can. It may still be receiving.
    pub fn departs<S: Service<Connection = C>>(
        &self,
        bench: &Workbench<S>,
        ring: &Ring,
    ) -> Option<Idle> {
        let is_at_rest = self.state == State::Open
            && self.input.is_empty()
            && !self.unseen
            && !ring.is_sending(self.index);
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let departs = || self.session.departs::<S>(now, deadlines);
        is_at_rest.then(departs).flatten()
    }

    /// Whether the kernel may still move bytes of it.
    pub fn is_moving(&self, ring: &Ring) -> bool {
        self.receiving || ring.is_sending(self.index)
    }

    /// The kernel is to receive no more.
    pub fn stop_receiving(&mut self, ring: &mut Ring) {
        if self.receiving && !std::mem::replace(&mut self.cancelling, true) {
            ring.cancel_receive(self.index);
        }
    }

    /// It goes on in another process.
    pub fn depart(&mut self) {
        let begun = true;
        let how = End::HandedOver;
        self.state = State::Ending { how, begun };
    }

    /// It stays.
    pub fn stay<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        self.departing = false;
        self.advance(bench, ring)
    }

    /// A connection that the kernel is opening.
    pub fn opening<S: Service<Connection = C>>(
        token: u64,
        id: Id,
        bench: &mut Workbench<S>,
    ) -> Self {
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let session = Session::opened(&mut bench.service, token, id, now, deadlines);
        Connection {
            connecting: true,
            ..Connection::new(session, State::Opening)
        }
    }

    fn new(session: Session<C>, state: State) -> Self {
        Connection {
            index: session.id().index,
            session,
            input: Input::default(),
            unseen: false,
            receiving: false,
            cancelling: false,
            departing: false,
            connecting: false,
            shutting_down: false,
            messages: 0,
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

    /// The kernel has connected it, or failed to.
    pub fn on_connected<S: Service<Connection = C>>(
        &mut self,
        result: std::io::Result<u32>,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        self.connecting = false;
        match result {
            _ if self.state != State::Opening => {}
            Ok(_) => {
                bench.counters.connected.increment();
                self.state = State::Open;
                let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
                self.session.on_established(now, deadlines);
            }
            Err(error) => {
                let why = Errno::from_io_error(&error).map_or(service::End::Unanswered, why_not);
                self.end(End::Failed(why));
            }
        }
        self.advance(bench, ring)
    }

    /// Calls the service, and goes on until the connection has to wait.
    pub fn wake<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        if self.state == State::Open {
            bench.counters.wakes.increment();
            self.session.wake();
        }
        self.advance(bench, ring)
    }

    /// Resets it, whatever it waits for.
    pub fn abort<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        self.end(End::Aborted);
        self.advance(bench, ring)
    }

    /// Bytes or their end have arrived.
    #[inline]
    pub fn on_received<S: Service<Connection = C>>(
        &mut self,
        received: Received,
        more: bool,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        self.receiving = more;
        self.cancelling &= more;
        match received {
            Received::Bytes(provided) => self.on_bytes(provided, bench, ring),
            Received::End if self.state == State::Lingering => self.end(End::Orderly),
            Received::End => {
                self.session.on_end();
                self.unseen = true;
            }
            Received::Again | Received::Cancelled => {}
            Received::Error => self.end(End::Broken),
        }
        self.advance(bench, ring)
    }

    /// The kernel took bytes of the reply, or failed to.
    #[inline]
    pub fn on_sent<S: Service<Connection = C>>(
        &mut self,
        sent: std::io::Result<usize>,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        let unsent = ring.unsent(self.index);
        match sent {
            Ok(count) => bench.counters.sent_bytes.add(count as u64),
            Err(_) => self.end(End::Broken),
        }
        if unsent == 0 || self.is_ending() {
            if let Some(buffer) = ring.take_back(self.index) {
                bench.send.release(buffer);
            }
            self.session.on_all_sent(self.messages, now, deadlines);
        } else {
            bench.counters.send_blocked.increment();
            self.session
                .on_blocked(sent.unwrap_or(0), unsent, now, deadlines);
            ring.send_rest(self.index, &bench.send, self.more_follows());
        }
        self.advance(bench, ring)
    }

    /// Our side of the stream was ended.
    pub fn on_shut_down<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        self.shutting_down = false;
        self.advance(bench, ring)
    }

    /// Its deadline may have passed.
    pub fn on_timer<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        let Some(wait) = self
            .session
            .due(bench.clock.now())
            .filter(|_| !self.departing)
        else {
            return Outcome::Wait;
        };
        if self.is_ending() {
            return self.advance(bench, ring);
        }
        bench.counters.timed_out(wait);
        if wait.is_for_input() {
            self.final_reply(S::on_timeout, bench, ring);
        } else {
            self.end(End::TimedOut);
        }
        self.advance(bench, ring)
    }

    /// Serves and asks the kernel for what the connection needs next.
    #[inline]
    pub fn advance<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) -> Outcome {
        if self.departing {
            return Outcome::Wait;
        }
        while self.state == State::Open && !ring.is_sending(self.index) {
            match self.session.next() {
                Next::Receive(_) | Next::Wait if self.session.is_woken() => {
                    self.serve_input(bench, ring);
                }
                Next::Receive(_) if self.unseen => self.serve_input(bench, ring),
                Next::Receive(Expect::Message)
                    if bench.leaving.is_some() && self.input.is_empty() =>
                {
                    if !ring.can_install() || self.departs(bench, ring).is_none() {
                        // It hears of it with the reply to its next message.
                        break;
                    }
                    if !self.receiving {
                        self.departing = true;
                        return Outcome::Depart;
                    }
                    self.stop_receiving(ring);
                    return Outcome::Wait;
                }
                Next::Receive(Expect::Message) if bench.draining && self.input.is_empty() => {
                    self.final_reply(S::on_dismiss, bench, ring);
                }
                Next::Receive(_) | Next::Wait => break,
                Next::Send => self.serve_input(bench, ring),
                Next::Close => self.finish(bench, ring),
                Next::Abort => self.end(End::Aborted),
            }
        }
        match &mut self.state {
            State::Ending { how, begun } => {
                let busy = self.receiving
                    || self.connecting
                    || self.shutting_down
                    || ring.is_sending(self.index);
                if !std::mem::replace(begun, true) {
                    // What is not connected yet has nobody to be told.
                    if *how != End::Orderly && !self.connecting {
                        ring.reset(self.index);
                    }
                    if busy {
                        ring.cancel(self.index);
                    }
                }
                if !busy {
                    return Outcome::End;
                }
            }
            State::Opening => {}
            State::Open | State::Lingering => {
                let capacity = bench.config.receive_buffer_bytes;
                let room = capacity.saturating_sub(self.input.len());
                let may_receive = !self.receiving && !self.session.has_ended() && !bench.quiet;
                if may_receive && room > 0 {
                    self.receiving = true;
                    ring.receive(self.index, room);
                }
            }
        }
        Outcome::Wait
    }

    /// When to call [`Connection::on_timer`].
    #[inline]
    pub fn next_at(&self) -> Option<Instant> {
        self.session.next_at()
    }

    /// Gives everything back. The kernel does nothing for the connection any more.
    pub fn close<S: Service<Connection = C>>(mut self, bench: &mut Workbench<S>, ring: &mut Ring) {
        self.input.clear(&mut bench.receive);
        let how = match self.state {
            State::Ending { how, .. } => how,
            State::Opening | State::Open | State::Lingering => End::Orderly,
        };
        bench.end(&mut self.session, how);
        ring.close(self.index);
    }

    /// Lets the service say something before the connection ends. Input is waited for only when everything was sent.
    fn final_reply<S: Service<Connection = C>>(
        &mut self,
        say: impl FnOnce(&mut S, &mut C, &mut Reply<'_>),
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) {
        let (reply, written) = bench.final_reply(&mut self.session, say);
        self.send(reply, written, 0, bench, ring);
    }

    /// Serves bytes where they arrived, if nothing is in front of them.
    fn on_bytes<S: Service<Connection = C>>(
        &mut self,
        provided: Provided,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) {
        let bytes = ring.bytes(&provided);
        bench.counters.received_bytes.add(bytes.len() as u64);
        if self.state != State::Open {
            return ring.give_back(provided);
        }
        let waits = self.session.next() == Next::Wait;
        if waits || !self.input.is_empty() || ring.is_sending(self.index) {
            // There is room: what was asked for, and a buffer of the ring more.
            let kept = self.input.append(bytes, &mut bench.receive);
            assert!(kept, "received more than there is room for");
            self.unseen = true;
            return ring.give_back(provided);
        }
        let reply = bench.send.take();
        let turn = self.session.on_input(
            &mut bench.service,
            bytes,
            bench.config.receive_buffer_bytes,
            bench.send.bytes_mut(&reply),
        );
        let rest = &bytes[turn.consumed..];
        if !rest.is_empty() {
            let kept = self.input.append(rest, &mut bench.receive);
            assert!(kept, "received more than there is room for");
        }
        ring.give_back(provided);
        bench.counters.messages.add(u64::from(turn.messages));
        self.send(reply, turn.written, turn.messages, bench, ring);
    }

    fn serve_input<S: Service<Connection = C>>(
        &mut self,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) {
        self.unseen = false;
        let (reply, turn) = bench.serve(&mut self.session, &mut self.input);
        self.send(reply, turn.written, turn.messages, bench, ring);
    }

    #[inline]
    fn send<S: Service<Connection = C>>(
        &mut self,
        reply: Buffer,
        len: usize,
        messages: u32,
        bench: &mut Workbench<S>,
        ring: &mut Ring,
    ) {
        let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
        if len == 0 {
            bench.send.release(reply);
            self.session.on_all_sent(messages, now, deadlines);
        } else {
            self.messages = messages;
            self.session.on_blocked(0, len, now, deadlines);
            ring.send(self.index, reply, len, &bench.send, self.more_follows());
        }
    }

    /// Whether more bytes, or the FIN, follow what is being sent at once.
    fn more_follows(&self) -> bool {
        matches!(self.session.next(), Next::Send | Next::Close)
    }

    /// Everything was sent: ends our side of the stream.
    fn finish<S: Service<Connection = C>>(&mut self, bench: &mut Workbench<S>, ring: &mut Ring) {
        self.input.clear(&mut bench.receive);
        if self.session.has_ended() {
            self.end(End::Orderly);
        } else {
            ring.shut_down(self.index);
            self.shutting_down = true;
            let (now, deadlines) = (bench.clock.now(), &bench.config.deadlines);
            self.session.on_close(now, deadlines);
            self.state = State::Lingering;
        }
    }

    /// The first reason to end counts.
    fn end(&mut self, how: End) {
        if !self.is_ending() {
            let begun = false;
            self.state = State::Ending { how, begun };
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. })
    }
}
