//! One turn of a connection that is served directly: from what has arrived over its service to what it answers.

use crate::connection::{Cold, Hot};
use crate::guard::segment::{State, Tcb};
use crate::header;
use crate::link::Transmit;
use crate::packet::Flags;
use crate::receiver::inbox::Inbox;
use crate::receiver::window::GrowingWindow;
use crate::sender::Sender;
use crate::sender::chunks::Chunks;
use crate::sender::lent::Busy;
use barewire_service::service::{End, Input, Next, Reply, Service};
use barewire_service::time::Duration;

use super::Slot;
use super::output::{Around, send_at_once, write_headers};
use crate::shard::serve::Outcome;
use crate::shard::{Core, EGRESS_SEGMENTS_MAX, Port};

/// The progress of a connection in one turn.
pub(super) struct Turn<'f> {
    /// What the peer sent and the service has not consumed.
    pub input: &'f [u8],
    /// `input` is a copy of what is in the inbox.
    pub is_in_inbox: bool,
    /// There is something in the inbox that the service has not seen.
    pub has_unseen: bool,
    /// Something arrived that no segment has acknowledged yet.
    pub owes_ack: bool,
    /// It is to be acknowledged at once.
    pub is_ack_urgent: bool,
    /// What arrived is one of many segments, as of an upload, and so may the reply be: the end of one reply waits for the
    /// next one of the batch, to leave in whole segments.
    pub is_bulk: bool,
    /// Segments that may still be sent.
    pub budget: usize,
}

impl<'f> Turn<'f> {
    pub fn new() -> Turn<'f> {
        Turn {
            input: &[],
            is_in_inbox: false,
            has_unseen: false,
            owes_ack: false,
            is_ack_urgent: false,
            is_bulk: false,
            budget: EGRESS_SEGMENTS_MAX,
        }
    }

    /// The service has consumed `count` bytes of the input.
    #[inline]
    fn consume(&mut self, count: usize, inbox: &mut Inbox, chunks: &mut Chunks) {
        assert!(
            count <= self.input.len(),
            "a service consumed more than there was"
        );
        if self.is_in_inbox {
            inbox.consume(chunks, count);
        }
        self.input = &self.input[count..];
    }

    /// A packet of so many bytes leaves, which acknowledges all that has arrived.
    #[inline]
    pub fn note_sent(&mut self, hot: &Hot, cold: &mut Cold, bytes: usize) {
        cold.path.note_sent(bytes);
        cold.told = hot.tcb.rcv_nxt;
        self.owes_ack = false;
        self.budget -= 1;
    }

    /// Tells the window of a connection whose service has not taken what is in `inbox` and in the received frame.
    #[inline]
    pub fn tell_window(&self, tcb: &mut Tcb, window: &GrowingWindow, inbox: &Inbox, mss: u16) {
        tcb.tell_window(window.to_tell(self.held(inbox), tcb.rcv_wnd, mss));
    }

    /// Bytes that wait for the service, in `inbox` and in the received frame.
    #[inline]
    fn held(&self, inbox: &Inbox) -> usize {
        let in_frame = if self.is_in_inbox {
            0
        } else {
            self.input.len()
        };
        inbox.ready() + in_frame
    }
}

/// The round trip that is assumed before one was measured.
const RTT_UNKNOWN: Duration = Duration::from_millis(1);

/// Input up to this length is answered in the frame that leaves. More may be many requests, whose replies take more than
/// one segment: the service is called once for all of them.
const INPUT_OF_ONE_SEGMENT_MAX: usize = 256;

/// A window grows up to this part of the free chunks.
const SHARE_OF_FREE_BYTES: usize = 4;

/// Whether a connection is closed whose service wants `next`: it may wait for input that will not come.
#[inline]
fn is_close(next: Next, has_ended: bool) -> bool {
    next == Next::Close || has_ended && matches!(next, Next::Receive(_))
}

impl<S: Service> Core<'_, S> {
    pub(super) fn direct_turn<T: Transmit>(
        &mut self,
        index: usize,
        acknowledged: u32,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) {
        if self.hot[index].tcb.state == State::Closing {
            return self.closing_turn(index, acknowledged, turn, port);
        }
        // Repairs go before what is new.
        self.send_kept(index, turn, port);
        match self.serve_what_waits(index, turn, port) {
            Outcome::Continue => self.note_idle(index),
            Outcome::Close => {
                self.close(index);
                return self.closing_turn(index, acknowledged, turn, port);
            }
            Outcome::Abort => {
                self.counters.aborts.increment();
                if turn.owes_ack {
                    self.hot[index].tcb.rcv_nxt = self.cold[index].told;
                }
                return self.abort(index, End::Closed, port);
            }
        }
        if self.is_turn_over(index, turn) {
            return self.note_direct_progress(index, acknowledged);
        }
        self.send_kept(index, turn, port);
        let held = turn.input;
        let is_held = held.is_empty() || self.hold(index, held);
        if is_held {
            turn.input = &[];
        }
        if !turn.owes_ack && self.has_made_room(index, turn) {
            turn.owes_ack = true;
            turn.is_ack_urgent = true;
        }
        let mut is_left = turn.is_bulk && self.sender(index).is_some_and(|s| s.queued() > 0);
        if turn.owes_ack {
            match turn.is_ack_urgent || !held.is_empty() || self.is_ack_worth_it(index) {
                true => self.acknowledge(index, turn, port),
                false => is_left = true,
            }
        }
        if is_left {
            self.owing.push(index as u32);
        }
        self.note_direct_progress(index, acknowledged);
        if !is_held || self.is_stuck_for_room(index) {
            if !self.can_be_handed_over(index) {
                if is_held {
                    return self.wait_to_send(index);
                }
                self.counters.inbox_aborts.increment();
                return self.abort(index, End::Closed, port);
            }
            self.hand_over(index, if is_held { &[] } else { held });
            self.serve_turn(index, &[], port);
            return self.finish_turn(index, 0, port);
        }
        if self.is_draining && self.is_dismissed(index) {
            self.dismiss(index);
            self.finish_turn(index, 0, port);
        }
    }

    /// Whether nothing is left to be done but to note the progress: the service has taken all, and its reply has left and
    /// acknowledged it. So nearly every turn ends; one look at each place is cheaper than one for each thing to do.
    #[inline]
    fn is_turn_over(&self, index: usize, turn: &Turn<'_>) -> bool {
        let (tcb, cold) = (&self.hot[index].tcb, &self.cold[index]);
        let Some(Busy {
            sender,
            window,
            inbox,
            ..
        }) = self.direct.senders.get(cold.sender)
        else {
            return false;
        };
        !turn.owes_ack
            && turn.input.is_empty()
            && !cold.wants_room
            && !tcb.fin_received
            && !self.is_draining
            && sender.queued() == 0
            && !sender.is_due()
            && !window.is_worth_telling(inbox.ready(), tcb.rcv_wnd, sender.mss())
    }

    /// Lets the service say something on a connection that is served directly, if there is room for it.
    pub(in crate::shard) fn say_directly(
        &mut self,
        index: usize,
        say: impl FnOnce(&mut S, &mut S::Connection, &mut Reply<'_>),
    ) {
        self.lend_sender(index);
        let cold = &mut self.cold[index];
        let Some(Slot {
            sender,
            chunks,
            config,
            ..
        }) = self.direct.slot(cold.sender)
        else {
            return;
        };
        if sender.room_in_chunks(chunks, config) >= S::REPLY_BYTES_MIN {
            let mut reply = Reply::new(&mut self.scratch.reply[..S::REPLY_BYTES_MIN]);
            let state = self.states.get::<S>(cold.state);
            say(&mut self.service, state, &mut reply);
            self.states.settle::<S>(&mut cold.state);
            let queued = sender.queue(chunks, config, reply.written(), self.now);
            debug_assert_eq!(queued, reply.len(), "there was room for it");
        }
    }

    /// Whether the service has taken so much that waited for it that the peer should hear of the room.
    #[inline]
    fn has_made_room(&self, index: usize, turn: &Turn<'_>) -> bool {
        let told = self.hot[index].tcb.rcv_wnd;
        if self.hot[index].tcb.fin_received {
            return false;
        }
        let busy = self.direct.senders.get(self.cold[index].sender);
        busy.is_some_and(
            |Busy {
                 sender,
                 window,
                 inbox,
                 ..
             }| { window.is_worth_telling(turn.held(inbox), told, sender.mss()) },
        )
    }

    /// Whether the service waits for space that no acknowledgment will free.
    fn is_stuck_for_room(&self, index: usize) -> bool {
        let cold = &self.cold[index];
        cold.wants_room
            && !self.hot[index].flags.is_waiting_to_send
            && self.sender(index).is_some_and(Sender::is_quiet)
    }

    /// Lets the service take what has arrived, in the received frame or in the inbox.
    #[inline]
    fn serve_what_waits<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) -> Outcome {
        let cold = &self.cold[index];
        let has_ready = (self.direct.senders.get(cold.sender))
            .is_some_and(|Busy { inbox, .. }| inbox.ready() > 0);
        match has_ready && (turn.has_unseen || cold.wants_room) {
            true => self.serve_inbox(index, turn, port),
            false => self.serve_directly(index, turn, port),
        }
    }

    /// Shows the service what is ready in the inbox, a receive buffer at a time.
    fn serve_inbox<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) -> Outcome {
        let mut buffer = std::mem::take(&mut self.scratch.input);
        let outcome = loop {
            let Some(Slot { inbox, chunks, .. }) = self.direct.slot(self.cold[index].sender) else {
                break Outcome::Continue;
            };
            let len = inbox.copy_ready(chunks, &mut buffer);
            let mut part = Turn {
                input: &buffer[..len],
                is_in_inbox: true,
                ..*turn
            };
            let outcome = self.serve_directly(index, &mut part, port);
            let left = part.input.len();
            (turn.budget, turn.owes_ack) = (part.budget, part.owes_ack);
            // More than a buffer was ready, and the service has not come to a stop within it.
            let may_go_on = left < len && len == buffer.len() && !self.cold[index].wants_room;
            if outcome != Outcome::Continue || !may_go_on {
                break outcome;
            }
        };
        self.scratch.input = buffer;
        outcome
    }

    /// Calls the service for as long as there is something new for it and room for its replies.
    #[inline]
    fn serve_directly<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) -> Outcome {
        let is_end_unseen = self.hot[index].tcb.fin_received && !self.cold[index].end_seen;
        if turn.input.is_empty() && !self.cold[index].wants_room && !is_end_unseen {
            return Outcome::Continue;
        }
        loop {
            let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
            let Some(Slot {
                sender,
                window,
                inbox,
                chunks,
                config,
            }) = self.direct.slot(cold.sender)
            else {
                return Outcome::Continue;
            };
            let at_once = match sender.room_now() {
                now if sender.may_keep_at_once(now, config) => now,
                now => now.min(sender.room_to_queue(chunks, config)),
            };
            // Only the queue cuts long replies into full segments.
            let is_cut = cold.wants_room && at_once < usize::from(sender.mss());
            let has_slot = turn.budget > 0 && port.transmit.free_slots() > port.reserve;
            let in_place = has_slot
                && !is_cut
                && turn.input.len() <= INPUT_OF_ONE_SEGMENT_MAX
                && at_once >= S::REPLY_BYTES_MIN
                && chunks.has_room(at_once);
            let room = match in_place {
                true => at_once,
                false => sender.room_in_chunks(chunks, config),
            };
            if room < S::REPLY_BYTES_MIN {
                sender.count_limit(chunks, config, S::REPLY_BYTES_MIN);
                cold.wants_room = true;
                return Outcome::Continue;
            }
            if !in_place && cold.wants_room && turn.budget == 0 {
                self.wait_to_send(index);
                return Outcome::Continue;
            }
            let shown = if turn.is_in_inbox {
                turn.input.len()
            } else {
                0
            };
            let has_ended = hot.tcb.fin_received && inbox.ready() == shown;
            let input = Input {
                bytes: turn.input,
                full: turn.input.len() == self.config.receive_buffer_bytes,
                ended: has_ended,
            };
            let at = header::bytes(&hot.flow) + cold.options.bytes_per_segment();
            let l2 = self.neighbours.get(cold.neighbour);
            let packet = match in_place {
                true => port.transmit.slot().and_then(|slot| l2.write(slot)),
                false => None,
            };
            let in_slot = packet.and_then(|packet| packet.get_mut(..at + room));
            let was_idle = sender.is_quiet();
            let (progress, written) = match in_slot {
                Some(packet) => {
                    let mut reply = Reply::new(&mut packet[at..]);
                    let state = self.states.get::<S>(cold.state);
                    let progress = (self.service).on_input(state, input, &mut reply);
                    self.states.settle::<S>(&mut cold.state);
                    let written = reply.len();
                    turn.consume(progress.consumed, inbox, chunks);
                    // More output can fill this segment, or a FIN leave with it.
                    let is_end_of_more = turn.is_bulk && turn.budget < EGRESS_SEGMENTS_MAX;
                    let is_followed =
                        (progress.next == Next::Send || is_end_of_more) && written < room;
                    if is_close(progress.next, has_ended) || is_followed {
                        let queued = sender.queue(chunks, config, reply.written(), self.now);
                        debug_assert_eq!(queued, written, "there was a chunk for the reply");
                    } else if written > 0 && progress.next != Next::Abort {
                        let seq = sender.nxt();
                        let payload = &packet[at..at + written];
                        let Ok(sum) = sender.push_sent(chunks, config, payload, self.now) else {
                            debug_assert!(false, "there was a chunk for the reply");
                            return Outcome::Abort;
                        };
                        turn.tell_window(&mut hot.tcb, window, inbox, sender.mss());
                        hot.tcb.snd_nxt = sender.nxt();
                        let is_last = progress.next != Next::Send;
                        let packet = &mut packet[..at + written];
                        let flags = if is_last { Flags::PSH } else { Flags(0) };
                        let timestamps = cold.timestamps(self.timestamps, self.now);
                        write_headers(packet, &self.local, hot, seq, flags, sum, timestamps);
                        turn.note_sent(hot, cold, packet.len());
                        port.transmit.commit(l2.len() + at + written);
                    }
                    (progress, written)
                }
                None => {
                    let room = room.min(self.scratch.reply.len());
                    let mut reply = Reply::new(&mut self.scratch.reply[..room]);
                    let state = self.states.get::<S>(cold.state);
                    let progress = (self.service).on_input(state, input, &mut reply);
                    self.states.settle::<S>(&mut cold.state);
                    let written = reply.len();
                    turn.consume(progress.consumed, inbox, chunks);
                    let next = progress.next;
                    let is_whole =
                        !turn.is_bulk && next != Next::Send && !is_close(next, has_ended);
                    let mut slot = Slot {
                        sender,
                        window,
                        inbox,
                        chunks,
                        config,
                    };
                    let around = Around {
                        local: &self.local,
                        l2,
                        timestamps: self.timestamps,
                        now: self.now,
                    };
                    let sent = match next {
                        Next::Abort => 0,
                        _ => send_at_once(
                            reply.written(),
                            is_whole,
                            (hot, cold),
                            &mut slot,
                            turn,
                            port,
                            &around,
                        ),
                    };
                    let rest = &reply.written()[sent..];
                    if sender.queue_granted(chunks, config, rest, self.now) < rest.len() {
                        debug_assert!(false, "there were chunks for the reply");
                        return Outcome::Abort;
                    }
                    (progress, written)
                }
            };
            if was_idle && written > 0 {
                hot.progress_at_ms = self.now_ms;
            }
            debug_assert!(sender.is_consistent(chunks), "[UNA, NXT) is not the chunks");
            // A socket must be able to take what one segment holds.
            let may_grow = self.config.receive_buffer_bytes >= self.config.mtu;
            if may_grow && window.on_taken(progress.consumed as u32) {
                let rtt = sender.rtt().smoothed().unwrap_or(RTT_UNKNOWN);
                let scaled_max = u32::from(u16::MAX) << hot.tcb.scales.rcv();
                let bytes_max = scaled_max.min(self.config.receive_window_bytes_max as u32);
                // What lies behind a gap takes chunks.
                let share = chunks.free_bytes() / SHARE_OF_FREE_BYTES;
                window.grow(bytes_max.min(share as u32), rtt, self.now);
            }
            cold.wants_room = progress.next == Next::Send;
            cold.end_seen = has_ended;
            let deadlines = &self.config.deadlines;
            cold.watch.on_progress(self.now, &progress, deadlines);
            match progress.next {
                // No service is woken here.
                Next::Abort | Next::Wait => return Outcome::Abort,
                next if is_close(next, has_ended) => return Outcome::Close,
                Next::Close | Next::Receive(_) => return Outcome::Continue,
                Next::Send if progress.consumed == 0 && written == 0 => return Outcome::Continue,
                Next::Send if !in_place => self.send_kept(index, turn, port),
                Next::Send => {}
            }
        }
    }
}
