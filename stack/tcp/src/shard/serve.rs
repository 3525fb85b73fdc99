//! Between a connection's bytes and its service.

use smoltcp::socket::tcp;

use crate::connection::Cold;
use crate::control::{Control, Kind};
use crate::guard::segment::State;
use crate::link::Transmit;
use barewire_service::service::{End, Input, Next, Progress, Reply, Service};

use super::{Core, Port};

/// How a service wants its connection to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Continue,
    Close,
    Abort,
}

impl<S: Service> Core<'_, S> {
    /// Lets the service take what arrived, and closes the connection if it says so.
    ///
    /// `fresh` is the payload of the segment that was just received, if any.
    pub(super) fn serve_turn<T: Transmit>(
        &mut self,
        index: usize,
        fresh: &[u8],
        port: &mut Port<'_, T>,
    ) {
        if self.hot[index].tcb.state != State::Open {
            return;
        }
        match self.serve(index, fresh) {
            Outcome::Continue => self.note_idle(index),
            Outcome::Close => self.close(index),
            Outcome::Abort => {
                self.counters.aborts.increment();
                self.abort(index, End::Closed, port);
            }
        }
    }

    /// Calls the service for as long as there is something new for it and room for its replies.
    fn serve(&mut self, index: usize, mut fresh: &[u8]) -> Outcome {
        let Cold {
            socket,
            watch,
            end_seen,
            wants_room,
            state,
            ..
        } = &mut self.cold[index];
        let (socket, seen) = self.sockets.slot(*socket).socket_and_seen();
        let has_ended = socket.state() == tcp::State::CloseWait;
        loop {
            let queued = socket.recv_queue();
            let is_news = queued != *seen || has_ended != *end_seen || *wants_room;
            let room = socket.send_capacity() - socket.send_queue();
            if !is_news {
                return Outcome::Continue;
            }
            if room < S::REPLY_BYTES_MIN {
                *wants_room = true;
                return Outcome::Continue;
            }
            // In order, and into an empty ring: the frame still holds all there is, in one piece.
            let is_all_fresh = fresh.len() == queued;
            let bytes = match is_all_fresh {
                true => fresh,
                false => linearise(socket, &mut self.scratch.input),
            };
            let input = Input {
                bytes,
                full: queued == socket.recv_capacity(),
                ended: has_ended,
            };
            let reply = &mut self.scratch.reply;
            let connection = self.states.get::<S>(*state);
            let (progress, written) = call(&mut self.service, connection, input, socket, reply);
            self.states.settle::<S>(state);
            assert!(
                progress.consumed <= queued,
                "a service consumed more than there was"
            );
            consume(socket, progress.consumed);
            fresh = match is_all_fresh {
                true => &fresh[progress.consumed..],
                // The bytes that are left may have the same length by chance.
                false => &[],
            };
            *seen = queued - progress.consumed;
            *end_seen = has_ended;
            *wants_room = progress.next == Next::Send;
            watch.on_progress(self.now, &progress, &self.config.deadlines);
            match progress.next {
                Next::Abort => return Outcome::Abort,
                Next::Close => return Outcome::Close,
                // No service is woken here.
                Next::Wait => return Outcome::Abort,
                // It waits for input that will not come.
                Next::Receive(_) if has_ended => return Outcome::Close,
                Next::Receive(_) => return Outcome::Continue,
                Next::Send if progress.consumed == 0 && written == 0 => return Outcome::Continue,
                Next::Send => {}
            }
        }
    }

    /// Tells the service that its peer took too long.
    pub(super) fn tell_timeout(&mut self, index: usize) {
        self.ask_final_reply(index, S::on_timeout);
    }

    /// Ends a connection that waits for nothing but another message.
    pub(super) fn dismiss(&mut self, index: usize) {
        self.ask_final_reply(index, S::on_dismiss);
        self.close(index);
    }

    /// Lets the service say something before its connection is closed.
    fn ask_final_reply(
        &mut self,
        index: usize,
        say: impl FnOnce(&mut S, &mut S::Connection, &mut Reply<'_>),
    ) {
        if self.cold[index].is_direct {
            return self.say_directly(index, say);
        }
        let Cold { socket, state, .. } = &mut self.cold[index];
        let socket = self.sockets.slot(*socket).socket();
        if socket.send_capacity() - socket.send_queue() >= S::REPLY_BYTES_MIN {
            let Core {
                service, scratch, ..
            } = self;
            let connection = self.states.get::<S>(*state);
            with_room(socket, S::REPLY_BYTES_MIN, &mut scratch.reply, |reply| {
                say(service, connection, reply);
            });
            self.states.settle::<S>(state);
        }
    }

    /// Ends our side in order: what was written is sent, then a FIN. What still arrives is
    /// acknowledged and discarded, so that the peer reads the reply before its data is answered with an
    /// RST.
    pub(super) fn close(&mut self, index: usize) {
        let cold = &mut self.cold[index];
        let nothing_more = Progress {
            consumed: 0,
            messages: 0,
            next: Next::Close,
        };
        cold.watch
            .on_progress(self.now, &nothing_more, &self.config.deadlines);
        if cold.is_direct {
            self.close_directly(index);
        } else {
            cold.close_pending = true;
            self.change_state(index, State::Closing);
            self.close_if_there_is_room(index);
        }
    }

    /// Ends our side, if that was to be done, as soon as the peer can take all that is before the FIN.
    ///
    /// In LAST-ACK smoltcp processes only acknowledgments of something new: it would ignore an ACK that only opens
    /// a closed window, and never send the rest.
    pub(super) fn close_if_there_is_room(&mut self, index: usize) {
        let cold = &mut self.cold[index];
        if !cold.close_pending {
            return;
        }
        let window = self.hot[index].tcb.snd_wnd_bytes() as usize;
        let socket = self.sockets.slot(cold.socket).socket();
        if socket.state() != tcp::State::CloseWait || socket.send_queue() <= window {
            socket.close();
            cold.close_pending = false;
        }
    }

    /// Ends both sides at once with an RST.
    pub(super) fn abort<T: Transmit>(&mut self, index: usize, end: End, port: &mut Port<'_, T>) {
        let hot = &self.hot[index];
        let reset = Control {
            kind: Kind::Reset,
            seq: hot.tcb.acceptable_seq(),
            ack: Some(hot.tcb.rcv_nxt),
            window: 0,
            timestamps: None,
        };
        let (flow, l2) = (hot.flow, *self.neighbours.get(self.cold[index].neighbour));
        self.counters.out_rsts.increment();
        self.send_control(&flow, &l2, &reset, port);
        self.end(index, end);
    }

    /// Discards what arrives after we have closed.
    pub(super) fn discard_input(&mut self, index: usize) {
        let socket = self.socket(index);
        let queued = socket.recv_queue();
        consume(socket, queued);
    }
}

/// Calls the service with room to write straight into the send ring where that has enough of it in one
/// piece. Returns what it did and how many bytes it wrote.
#[inline]
fn call<S: Service>(
    service: &mut S,
    connection: &mut S::Connection,
    input: Input<'_>,
    socket: &mut tcp::Socket<'_>,
    scratch: &mut [u8],
) -> (Progress, usize) {
    with_room(socket, S::REPLY_BYTES_MIN, scratch, |reply| {
        let progress = service.on_input(connection, input, reply);
        (progress, reply.len())
    })
}

/// Calls `write` with a reply of at least `len_min`, which the send ring must have room for, and
/// queues what it wrote.
#[inline]
fn with_room<R>(
    socket: &mut tcp::Socket<'_>,
    len_min: usize,
    scratch: &mut [u8],
    write: impl FnOnce(&mut Reply<'_>) -> R,
) -> R {
    let room = socket.send_capacity() - socket.send_queue();
    let mut write = Some(write);
    let written = socket.send(|space| {
        if space.len() < len_min {
            return (0, None);
        }
        let mut reply = Reply::new(space);
        let result = write.take().map(|write| write(&mut reply));
        (reply.len(), result)
    });
    match (written, write) {
        (Ok(Some(result)), _) => result,
        (_, Some(write)) => {
            let mut reply = Reply::new(&mut scratch[..room]);
            let result = write(&mut reply);
            let queued = socket.send_slice(reply.written());
            debug_assert_eq!(queued, Ok(reply.len()));
            result
        }
        (_, None) => unreachable!("what was written has a result"),
    }
}

/// Copies all that is queued to the front of `scratch`, which is as long as the receive ring.
fn linearise<'s>(socket: &mut tcp::Socket<'_>, scratch: &'s mut [u8]) -> &'s [u8] {
    let len = socket.peek_slice(scratch).unwrap_or(0);
    &scratch[..len]
}

/// Takes `count` bytes out of the receive ring, which may have them in two pieces.
#[inline]
fn consume(socket: &mut tcp::Socket<'_>, mut count: usize) {
    while count > 0 {
        let taken = socket.recv(|piece| {
            let taken = piece.len().min(count);
            (taken, taken)
        });
        match taken {
            Ok(taken) if taken > 0 => count -= taken,
            _ => return,
        }
    }
}
