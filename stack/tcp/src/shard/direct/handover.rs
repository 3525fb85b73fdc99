//! How connections change hands between the direct path and smoltcp.

use crate::config::DirectPath;
use crate::connection::Hot;
use crate::control::Direction;
use crate::guard::is_before;
use crate::guard::segment::{State, Tcb};
use crate::header::{self, Header};
use crate::link::Transmit;
use crate::packet::{Flags, Segment};
use crate::receiver::inbox::Inbox;
use crate::sender::checksum::copy_and_sum;
use crate::sender::chunks::{Chunks, LARGE_BYTES};
use crate::sender::lent::Busy;
use crate::sender::{self, Sender};
use barewire_service::service::Service;

use smoltcp::socket::tcp::{self, CongestionControl};

use super::input::{Place, place};
use super::turn::Turn;
use crate::shard::wire::Nowhere;
use crate::shard::{Core, Port};

fn kept_segments<'c>(
    sender: Option<&Sender>,
    chunks: &'c Chunks,
) -> impl Iterator<Item = sender::KeptSegment<'c>> + use<'c> {
    let kept = sender.map(|sender| sender.kept_segments(chunks));
    kept.into_iter().flatten()
}

/// Queues all of `segments` in a socket; false if there was no room for it.
fn queue_all<'c>(socket: &mut tcp::Socket<'_>, segments: impl Iterator<Item = &'c [u8]>) -> bool {
    let mut fits = true;
    for bytes in segments {
        fits &= socket.send_slice(bytes) == Ok(bytes.len());
    }
    fits
}

impl<S: Service> Core<'_, S> {
    /// Whether a socket's buffers hold all that a connection keeps that is served directly, and no side has ended its
    /// stream.
    #[inline]
    pub(in crate::shard) fn can_be_handed_over(&self, index: usize) -> bool {
        let tcb = &self.hot[index].tcb;
        if self.cold[index].is_direct && (tcb.fin_received || tcb.state == State::Closing) {
            return false;
        }
        match self.direct.senders.get(self.cold[index].sender) {
            Some(Busy { sender, inbox, .. }) => {
                sender.kept() <= self.config.send_buffer_bytes
                    && inbox.ready() <= self.config.receive_buffer_bytes
            }
            None => true,
        }
    }

    /// Takes the acknowledgment of a segment for smoltcp, which could not take the connection over. Returns whether it
    /// still cannot: then what else the segment says has to come again.
    #[cold]
    pub(in crate::shard) fn is_hand_over_postponed<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) -> bool {
        let acknowledged = self.take_ack_directly(index, segment, frame);
        if self.can_be_handed_over(index) {
            self.note_direct_progress(index, acknowledged);
            return false;
        }
        self.counters.hand_overs_postponed.increment();
        let mut turn = Turn {
            owes_ack: segment.sequence_len() > 0,
            is_ack_urgent: true,
            ..Turn::new()
        };
        self.direct_turn(index, acknowledged, &mut turn, port);
        true
    }

    /// Takes a connection from smoltcp if `segment` acknowledges all that was sent and its data is next. A peer that sends a
    /// request as soon as it has its answer would never leave the connection idle.
    #[cold]
    pub(super) fn take_back(&mut self, index: usize, segment: &Segment) -> bool {
        let tcb = &self.hot[index].tcb;
        let is_next = self.direct.mode != DirectPath::Never
            && segment.payload_len() > 0
            && segment.window > 0
            && segment.ack == tcb.snd_nxt
            && place(tcb, segment) == Some(Place::Next);
        if !is_next {
            return false;
        }
        self.take_acknowledged_directly(index, segment.ack);
        self.cold[index].is_direct
    }

    /// Takes a connection from smoltcp that is established and has nothing in flight or out of order.
    #[inline]
    pub(in crate::shard) fn take_directly(&mut self, index: usize) {
        self.take_acknowledged_directly(index, self.hot[index].tcb.snd_una);
    }

    /// The same, once all below `ack` is acknowledged.
    fn take_acknowledged_directly(&mut self, index: usize, ack: u32) {
        if self.direct.mode == DirectPath::Never
            || self.is_draining
            || !self.is_quiet(index, ack)
            || !self.direct.is_wanted()
        {
            return;
        }
        if !self.is_for_direct_path(index) {
            return;
        }
        let (hot, cold) = (&self.hot[index], &mut self.cold[index]);
        cold.is_direct = true;
        let acknowledged = ack.wrapping_sub(hot.tcb.snd_una);
        cold.told = hot.tcb.rcv_nxt;
        self.sockets.give_back(&mut cold.socket);
        self.counters.direct_takes.increment();
        if acknowledged > 0 {
            self.hot[index].tcb.snd_una = ack;
            self.note_direct_progress(index, acknowledged);
        }
    }

    /// Whether a connection's whole state is in its hot line, once all below `ack` is acknowledged.
    pub(in crate::shard) fn is_quiet(&mut self, index: usize, ack: u32) -> bool {
        let (hot, cold) = (&self.hot[index], &mut self.cold[index]);
        let tcb = &hot.tcb;
        let is_told = tcb.state == State::Open
            && ack == tcb.snd_nxt
            && !tcb.fin_received
            && !hot.flags.is_waiting_to_send
            && !cold.is_direct
            // The peer does not wait for more room.
            && tcb.rcv_wnd as usize * 2 >= self.config.receive_buffer_bytes
            // Nothing has arrived behind a gap.
            && tcb.rcv_nxt == cold.highest
            && !cold.wants_room
            && !cold.end_seen
            && !cold.close_pending;
        if !is_told {
            return false;
        }
        let in_flight = tcb.snd_nxt.wrapping_sub(tcb.snd_una);
        let socket = self.sockets.slot(cold.socket).socket();
        socket.state() == tcp::State::Established
            && socket.send_queue() == in_flight as usize
            && socket.recv_queue() == 0
    }

    /// Gives a connection that is served directly to a new smoltcp socket. `unheld` is the end of what the peer has
    /// sent, which the service has seen and not consumed, and which is not in the inbox.
    ///
    /// Does nothing to a connection that smoltcp has.
    ///
    /// # Panics
    ///
    /// In debug builds, unless the connection [can be handed over](Core::can_be_handed_over).
    pub(in crate::shard) fn hand_over(&mut self, index: usize, unheld: &[u8]) {
        debug_assert!(self.can_be_handed_over(index), "no socket holds all that");
        let cold = &mut self.cold[index];
        if !std::mem::take(&mut cold.is_direct) {
            return;
        }
        if self.hot[index].tcb.state == State::SynReceived {
            return self.hand_over_half_open(index);
        }
        let mut busy = self.direct.senders.give_back(&mut cold.sender);
        self.counters.direct_hand_overs.increment();
        let Hot {
            tcb,
            progress_at_ms,
            ..
        } = self.hot[index];
        let (path, told) = (self.cold[index].path, self.cold[index].told);
        let mut input = std::mem::take(&mut self.scratch.input);
        let held = match &busy {
            Some(Busy { inbox, .. }) if !inbox.is_empty() => {
                let len = inbox.copy_ready(&self.direct.chunks, &mut input);
                &input[..len]
            }
            _ => unheld,
        };
        let isn = tcb.snd_una.wrapping_sub(1);
        let irs = tcb.rcv_nxt.wrapping_sub(held.len() as u32 + 1);
        self.hot[index].tcb = Tcb {
            snd_una: isn,
            snd_nxt: isn,
            rcv_nxt: irs.wrapping_add(1),
            state: tcb.state,
            ..Tcb::default()
        };
        self.give_socket(index, isn);
        let options = self.cold[index].options;
        (self.socket(index)).set_congestion_control(CongestionControl::None);
        self.replay_handshake(index, irs, options);

        self.replay(index, &tcb, irs.wrapping_add(1), held);
        let held_len = held.len();
        self.scratch.input = input;
        if let Some(Busy { inbox, .. }) = &mut busy {
            self.replay_inbox(index, &tcb, inbox);
            inbox.discard(&mut self.direct.chunks);
        }
        let sender = busy.as_mut().map(|busy| &mut busy.sender);
        let mut unseen = std::mem::take(&mut self.scratch.unseen);
        let chunks = &self.direct.chunks;
        let socket = self.sockets.slot(self.cold[index].socket).socket();
        let sent = queue_all(
            socket,
            kept_segments(sender.as_deref(), chunks).map(|kept| match kept {
                sender::KeptSegment::Sent(bytes) => bytes,
                sender::KeptSegment::Queued(_) => &[],
            }),
        );
        // The socket's timer runs from when this was really sent.
        let oldest_sent_at = (sender.as_ref())
            .and_then(|sender| sender.oldest_sent_at(&self.direct.chunks))
            .unwrap_or(self.now);
        while let Some(sent) = self.send_next(index, oldest_sent_at, &mut Nowhere(&mut unseen)) {
            if !sent.may_be_followed() {
                break;
            }
        }
        let chunks = &self.direct.chunks;
        let socket = self.sockets.slot(self.cold[index].socket).socket();
        let queued = queue_all(
            socket,
            kept_segments(sender.as_deref(), chunks).map(|kept| match kept {
                sender::KeptSegment::Queued(bytes) => bytes,
                sender::KeptSegment::Sent(_) => &[],
            }),
        );
        debug_assert!(sent && queued, "what was kept fits the send buffer");
        debug_assert_eq!(
            socket.recv_queue(),
            held_len,
            "what was held is there again"
        );
        socket.set_congestion_control(CongestionControl::Reno);
        self.scratch.unseen = unseen;

        let reach = tcb.rcv_nxt.wrapping_add(self.receive_room(held_len) as u32);
        let cold = &mut self.cold[index];
        (cold.path, cold.told) = (path, told);
        if is_before(reach, cold.highest) {
            cold.highest = reach;
        }
        let slot = self.sockets.slot(cold.socket);
        slot.late_at = crate::connection::NEVER;
        slot.seen = held_len;
        if let Some(sender) = sender {
            cold.remembered = sender.remember();
            sender.discard(&mut self.direct.chunks);
        }
        let hot = &mut self.hot[index];
        hot.tcb = tcb;
        hot.progress_at_ms = progress_at_ms;
        debug_assert!(!is_before(tcb.snd_nxt, tcb.snd_una));
    }

    /// Room in the receive buffer of a socket that holds `held` bytes.
    fn receive_room(&self, held: usize) -> usize {
        self.config.receive_buffer_bytes.saturating_sub(held)
    }

    /// Lets a new socket hear `bytes` of the peer's from `seq` on, in a segment or more. The first one completes its
    /// handshake.
    fn replay(&mut self, index: usize, tcb: &Tcb, seq: u32, bytes: &[u8]) {
        let flow = self.hot[index].flow;
        let at = header::bytes(&flow);
        let mut packet = std::mem::take(&mut self.scratch.packet);
        let mut unseen = std::mem::take(&mut self.scratch.unseen);
        let len_max = packet.len() - at;
        let mut rest = bytes;
        loop {
            let (payload, behind) = rest.split_at(rest.len().min(len_max));
            let header = Header {
                seq: seq.wrapping_add((bytes.len() - rest.len()) as u32),
                ack: tcb.snd_una,
                window: tcb.snd_wnd,
                flags: Flags::ACK,
                options_len: 0,
            };
            let packet = &mut packet[..at + payload.len()];
            let sum = copy_and_sum(&mut packet[at..], payload);
            let direction = Direction::FromPeer;
            header::write(packet, &self.local, &flow, direction, &header, sum);
            self.ingress(index, packet, &mut Nowhere(&mut unseen));
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        self.scratch.packet = packet;
        self.scratch.unseen = unseen;
    }

    /// Lets a new socket hear what is behind a gap in `inbox`, as far as its buffer goes. The rest is the peer's to send
    /// again (RFC 2018, section 8).
    fn replay_inbox(&mut self, index: usize, tcb: &Tcb, inbox: &Inbox) {
        let room = self.receive_room(inbox.ready());
        let mut copy = [0; LARGE_BYTES];
        let mut from = tcb.rcv_nxt;
        loop {
            let next = inbox.pieces(&self.direct.chunks, from).next();
            let Some((seq, payload)) = next else {
                return;
            };
            if seq.wrapping_sub(tcb.rcv_nxt) as usize >= room {
                return;
            }
            let len = payload.len();
            copy[..len].copy_from_slice(payload);
            self.replay(index, tcb, seq, &copy[..len]);
            from = seq.wrapping_add(len as u32);
        }
    }
}
