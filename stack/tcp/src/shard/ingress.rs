//! From a batch of frames to the connections they belong to.

use crate::connection::Hot;
use crate::control::{self, Control, Direction, Kind, L2Header};
use crate::guard::is_before;
use crate::guard::segment::{State, Verdict};
use crate::guard::time_wait;
use crate::guard::timestamps::Timestamps;
use crate::link::{Received, Transmit};
use crate::packet::{self, Discard, Flags, Segment};
use barewire_memory::prefetch;
use barewire_service::service::{End, Service};

use smoltcp::socket::tcp;

use super::wire::{Sent, Wire};
use super::{Arrival, BATCH_FRAMES, CHALLENGE_INTERVAL_MS, Core, Found, NO_CONNECTION, Port};
use crate::smoltcp_time;

/// How many segments ahead the memory of a connection is asked for, how many ahead what that points to, and how many
/// ahead what is kept of its replies: of a long one the end is asked for last, so that not all of it is under way at once.
const FAR_AHEAD: usize = 8;
const NEAR_AHEAD: usize = 4;
const KEPT_AHEAD: usize = 2;

/// A connection that was quiet for longer has no TS.Recent: the peer's clock may have wrapped around (RFC 7323, section 5.5).
const TS_RECENT_VALID_MS: u32 = 24 * 86_400_000;

impl<S: Service> Core<'_, S> {
    pub(super) fn batch_arrives<R: Received, T: Transmit>(
        &mut self,
        received: &R,
        link: u8,
        transmit: &mut T,
    ) {
        let frames = received.len();
        for start in (0..frames).step_by(BATCH_FRAMES) {
            self.look_up(received, start..frames.min(start + BATCH_FRAMES));
            let batch = std::mem::take(&mut self.batch);
            for arrival in batch.iter().take(FAR_AHEAD) {
                self.prefetch(arrival);
            }
            for (at, arrival) in batch.iter().enumerate() {
                if let Some(far) = batch.get(at + FAR_AHEAD) {
                    self.prefetch(far);
                }
                if let Some(near) = batch.get(at + NEAR_AHEAD) {
                    self.prefetch_rest(near);
                }
                if let Some(soon) = batch.get(at + KEPT_AHEAD) {
                    self.prefetch_kept(soon);
                }
                if let Some(next) = batch.get(at + 1) {
                    self.prefetch_kept_last(next);
                }
                let left = batch.len() - at - 1;
                let mut port = Port {
                    link,
                    transmit,
                    reserve: left,
                };
                self.segment_arrives(arrival, received.frame(arrival.frame as usize), &mut port);
            }
            self.batch = batch;
            let mut port = Port {
                link,
                transmit,
                reserve: 0,
            };
            self.acknowledge_batch(&mut port);
            while let Some(message) = self.paths.next_heard() {
                let mut port = Port {
                    link,
                    transmit,
                    reserve: 0,
                };
                self.too_big_arrives(&message, true, &mut port);
            }
        }
    }

    #[inline]
    fn prefetch(&self, arrival: &Arrival) {
        if let Some(cold) = self.cold.get(arrival.connection as usize) {
            cold.prefetch();
        }
    }

    #[inline]
    fn prefetch_rest(&self, arrival: &Arrival) {
        if let Some(cold) = self.cold.get(arrival.connection as usize) {
            cold.prefetch_rest(&self.direct.senders, &self.sockets, &self.states);
        }
    }

    #[inline]
    fn prefetch_kept(&self, arrival: &Arrival) {
        if let Some(cold) = self.cold.get(arrival.connection as usize)
            && let Some(busy) = self.direct.senders.get(cold.sender)
        {
            busy.sender.prefetch(&self.direct.chunks);
        }
    }

    #[inline]
    fn prefetch_kept_last(&self, arrival: &Arrival) {
        if let Some(cold) = self.cold.get(arrival.connection as usize)
            && let Some(busy) = self.direct.senders.get(cold.sender)
        {
            busy.sender.prefetch_last(&self.direct.chunks);
        }
    }

    /// Parses frames, and finds what is nearly always their connection: by its tag, before its hot line is
    /// there to tell for certain.
    fn look_up<R: Received>(&mut self, received: &R, frames: std::ops::Range<usize>) {
        self.batch.clear();
        for frame in frames {
            match packet::parse(received.frame(frame), &self.local, self.config.checksums) {
                Ok(segment) => {
                    let hash = self.flows.hash(&segment.flow);
                    self.flows.prefetch(hash);
                    if segment.is_partial {
                        self.counters.in_csum_partial.increment();
                    }
                    self.batch.push(Arrival {
                        segment,
                        frame: frame as u32,
                        hash,
                        connection: NO_CONNECTION,
                    });
                }
                Err(Discard::NotTcp) => self.hear_icmp(received.frame(frame)),
                Err(reason) => self.discards.count(reason),
            }
        }
        self.counters.in_segs.add(self.batch.len() as u64);
        for arrival in &mut self.batch {
            let index = self.flows.get(arrival.hash, |_| true);
            if let Some(hot) = index.and_then(|index| self.hot.get(index as usize)) {
                prefetch(hot);
            }
            arrival.connection = index.unwrap_or(NO_CONNECTION);
        }
    }

    fn segment_arrives<T: Transmit>(
        &mut self,
        arrival: &Arrival,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        let segment = &arrival.segment;
        // smoltcp assumes that it can answer. A pure acknowledgment has no answer, and frees space.
        if port.transmit.free_slots() == 0 && segment.sequence_len() > 0 {
            self.counters.rx_dropped_no_slot.increment();
            return;
        }
        let still_there = self
            .hot
            .get(arrival.connection as usize)
            .is_some_and(|hot| hot.tcb.state != State::Free && hot.flow == segment.flow);
        let found = match still_there {
            true => Found::Connection(arrival.connection as usize),
            false => self.find(&segment.flow, arrival.hash),
        };
        match found {
            Found::Connection(index) => {
                self.arriving = (index as u32, arrival.hash);
                self.connection_receives(index, segment, frame, port);
                // Its place may be another's from here on.
                self.arriving.0 = NO_CONNECTION;
            }
            Found::TimeWait(record) => self.time_wait_receives(record, arrival, frame, port),
            Found::Nothing => self.unknown_flow_receives(arrival, frame, port),
        }
    }

    /// SEGMENT ARRIVES for a connection (RFC 9293, section 3.10.7).
    pub(super) fn connection_receives<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        if self.cold[index].options.timestamps && self.is_past(index, segment, frame, port) {
            return;
        }
        if self.direct_receives(index, segment, frame, port) {
            return;
        }
        // A repeated segment shows the current link-layer address of the peer: the way back may have changed since, and
        // our answers were lost.
        if self.hot[index].tcb.is_repetition(segment) {
            self.hot[index].link = port.link;
            self.follow_neighbour(index, segment, frame);
        }
        let verdict = self.hot[index].tcb.judge(segment, self.config.mtu);
        let is_for_smoltcp = matches!(
            verdict,
            Verdict::Pass | Verdict::PassOvertaken | Verdict::PassAckOnly
        );
        if is_for_smoltcp
            && self.cold[index].is_direct
            && !self.can_be_handed_over(index)
            && self.is_hand_over_postponed(index, segment, frame, port)
        {
            return;
        }
        let hot = &self.hot[index];
        match verdict {
            Verdict::Pass => {
                let packet = segment.ip_packet(frame);
                self.advance(index, segment, frame, packet, port);
            }
            Verdict::PassOvertaken => {
                self.counters.ack_overtaken.increment();
                // It needs the memory for packets that is lent below.
                self.hand_over(index, &[]);
                let hot = &self.hot[index];
                let (ack, window) = (hot.tcb.snd_una, hot.tcb.snd_wnd);
                let mut copy = std::mem::take(&mut self.scratch.packet);
                let packet = segment.ip_packet(frame);
                if let Some(copy) = copy.get_mut(..packet.len()) {
                    copy.copy_from_slice(packet);
                    let tcp = segment.tcp_offset() - segment.ip_offset();
                    copy[tcp + 8..tcp + 12].copy_from_slice(&ack.to_be_bytes());
                    copy[tcp + 14..tcp + 16].copy_from_slice(&window.to_be_bytes());
                    let mut segment = *segment;
                    (segment.ack, segment.window) = (ack, window);
                    self.advance(index, &segment, frame, copy, port);
                }
                self.scratch.packet = copy;
            }
            Verdict::PassAckOnly => {
                self.counters.ack_only.increment();
                self.take_ack_only(index, segment, frame, port);
            }
            Verdict::Reset => {
                let end = match hot.tcb.state {
                    State::SynSent => return self.refused(index),
                    State::SynReceived => {
                        self.counters.embryonic_rsts.increment();
                        End::Refused
                    }
                    _ => {
                        self.counters.estab_resets.increment();
                        End::Reset
                    }
                };
                self.end(index, end);
            }
            Verdict::Connect => self.syn_ack_arrives(index, segment, frame, port),
            Verdict::RepeatSynAck => {
                self.counters.syn_retrans.increment();
                self.repeat_syn_ack(index, segment, frame, port);
            }
            Verdict::Challenge(reason) => {
                self.counters.count(reason);
                self.challenge(index, port);
            }
            Verdict::Refuse => self.reset_sender(segment, frame, port),
            Verdict::Drop(reason) => self.counters.count(reason),
        }
    }

    /// Whether a segment of a connection that has timestamps was sent before others that have arrived (PAWS: RFC 7323,
    /// section 5.3); then it is answered, and must be dropped. If not, its time is noted.
    ///
    /// A segment without timestamps is taken: what strips them on the way must not end connections.
    #[inline(never)]
    fn is_past<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) -> bool {
        let Some(Timestamps { value, .. }) = Timestamps::of_segment(segment, frame) else {
            return false;
        };
        let quiet_ms = self.now_ms.wrapping_sub(self.hot[index].progress_at_ms);
        let (Hot { tcb, .. }, cold) = (&self.hot[index], &mut self.cold[index]);
        if is_before(value, cold.ts_recent) && quiet_ms < TS_RECENT_VALID_MS {
            let is_past = !segment.flags.contains(Flags::RST);
            if is_past {
                self.counters.paws_estab.increment();
                self.challenge(index, port);
            }
            return is_past;
        }
        // Whoever forges a segment must not be able to set the clock.
        let in_flight = tcb.snd_nxt.wrapping_sub(tcb.snd_una);
        let is_ack_valid = segment.flags.contains(Flags::ACK)
            && tcb.snd_nxt.wrapping_sub(segment.ack)
                <= in_flight.saturating_add(tcb.snd_wnd_max_bytes());
        if is_ack_valid && tcb.is_acceptable(segment) && !is_before(cold.told, segment.seq) {
            cold.ts_recent = value;
        }
        false
    }

    /// Lets a connection take a segment that has passed the guard, and do what follows from it.
    ///
    /// `packet` is what smoltcp sees of it.
    fn advance<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        packet: &[u8],
        port: &mut Port<'_, T>,
    ) {
        self.hand_over(index, &[]);
        let hot = &mut self.hot[index];
        let cold = &mut self.cold[index];
        // What the socket has no room for has not arrived.
        let reach = self.config.receive_buffer_bytes.min(
            (segment.seq.wrapping_sub(hot.tcb.rcv_nxt) as i32)
                .saturating_add(segment.payload_len() as i32)
                .max(0) as usize,
        );
        let end = hot.tcb.rcv_nxt.wrapping_add(reach as u32);
        if is_before(cold.highest, end) {
            cold.highest = end;
        }
        let is_acceptable = hot.tcb.is_acceptable(segment);
        let is_next = segment.seq == hot.tcb.rcv_nxt && !hot.flags.is_waiting_to_send;
        let fresh = match is_next && self.socket(index).recv_queue() == 0 {
            true => segment.payload(frame),
            false => &[],
        };
        // A segment that may be forged does not show the peer's link-layer address.
        if is_acceptable {
            self.hot[index].link = port.link;
            self.follow_neighbour(index, segment, frame);
        }
        let state = self.ingress(index, packet, port.transmit);

        let hot = &mut self.hot[index];
        let mut acknowledged = 0;
        if is_acceptable {
            let tcb = &mut hot.tcb;
            tcb.take_window(segment);
            if is_before(tcb.snd_una, segment.ack) {
                acknowledged = segment.ack.wrapping_sub(tcb.snd_una);
                tcb.snd_una = segment.ack;
            }
        }
        use tcp::State::{CloseWait, Closed, Closing, Established, LastAck, TimeWait};
        hot.tcb.fin_received = matches!(state, CloseWait | Closing | LastAck | TimeWait | Closed);
        let is_new = hot.tcb.state == State::SynReceived;
        if is_new && matches!(state, Established | CloseWait) {
            if self.is_source_full(&segment.flow) {
                self.counters.source_overflows.increment();
                return self.abort(index, End::Refused, port);
            }
            self.establish(index);
        }
        let says_nothing_new = segment.sequence_len() == 0
            && state == Established
            && !self.cold[index].wants_room
            && !self.is_draining
            && self.socket(index).send_queue() == 0;
        match says_nothing_new {
            true => {
                self.note_progress(index, acknowledged, 0);
                if !is_new {
                    self.take_directly(index);
                }
            }
            false => {
                self.serve_turn(index, fresh, port);
                self.finish_turn(index, acknowledged, port);
            }
        }
    }

    /// Lets a connection take nothing of a segment but what it acknowledges.
    fn take_ack_only<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        // It needs the memory for packets that is lent below.
        self.hand_over(index, &[]);
        let Hot { flow, tcb, .. } = self.hot[index];
        let segment = segment.as_bare_ack(tcb.rcv_nxt);
        let ack = Control {
            kind: Kind::Ack,
            seq: segment.seq,
            ack: Some(segment.ack),
            window: segment.window,
            timestamps: Timestamps::of_segment(&segment, frame)
                .filter(|_| self.cold[index].options.timestamps),
        };
        let mut packet = std::mem::take(&mut self.scratch.packet);
        let len = control::write_packet(&mut packet, &self.local, &flow, Direction::FromPeer, &ack);
        let free_slots = port.transmit.free_slots();
        if let Some(len) = len {
            self.advance(index, &segment, frame, &packet[..len], port);
        }
        self.scratch.packet = packet;
        let was_told = port.transmit.free_slots() != free_slots;
        if !was_told && self.hot[index].tcb.state != State::Free && self.is_due_an_ack(index) {
            self.send_ack(index, port);
        }
    }

    /// Has what follows sent to where `segment` came from.
    #[inline]
    pub(super) fn follow_neighbour(&mut self, index: usize, segment: &Segment, frame: &[u8]) {
        let neighbour = &mut self.cold[index].neighbour;
        self.neighbours.follow(neighbour, segment.l2(frame));
    }

    /// Hands a packet to smoltcp.
    pub(super) fn ingress<T: Transmit>(
        &mut self,
        index: usize,
        packet: &[u8],
        transmit: &mut T,
    ) -> tcp::State {
        let cold = &mut self.cold[index];
        debug_assert!(!cold.is_direct, "the socket is not in use");
        let tcb = &self.hot[index].tcb;
        // What the peer has shown to have received is not acceptable to it any more.
        let acknowledged = Sent::of_packet(packet).ack;
        let is_news = !is_before(tcb.snd_nxt, acknowledged);
        let ack_seq = match tcb.acceptable_seq() {
            seq if is_news && is_before(seq, acknowledged) => acknowledged,
            seq => seq,
        };
        smoltcp_time::set_ts_value(self.timestamps.value(self.now));
        let mut wire = Wire {
            received: Some(packet),
            transmit,
            l2: self.neighbours.get(cold.neighbour),
            ack_seq,
            window_shift: tcb.scales.rcv(),
            ts_recent: cold.options.timestamps.then_some(cold.ts_recent),
            spare: &mut self.scratch.spare,
            mtu: self.config.mtu,
            sent: None,
        };
        self.interface.poll_ingress_single(
            smoltcp_time::at(self.now),
            &mut wire,
            &mut self.sockets.slot(cold.socket).set,
        );
        let sent = wire.sent;
        let state = self.socket(index).state();
        if let Some(sent) = sent {
            self.note_sent(index, &sent);
        }
        state
    }

    /// The timestamps of a segment that is sent now.
    pub(super) fn timestamps_now(&self, echo: u32) -> Timestamps {
        Timestamps {
            value: self.timestamps.value(self.now),
            echo,
        }
    }

    /// Sends a challenge ACK (RFC 5961), unless there were too many.
    ///
    /// It is sent where the connection's segments are sent, not to the sender of this one: it contains both sequence
    /// numbers, which another host on the link must not learn.
    fn challenge<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        match self.is_due_an_ack(index) && self.challenge_acks.permit(self.now) {
            true => {
                self.counters.challenge_acks.increment();
                self.send_ack(index, port);
            }
            false => self.counters.challenge_acks_skipped.increment(),
        }
    }

    /// Whether a connection has been sent no ACK of ours for a while.
    pub(super) fn is_due_an_ack(&self, index: usize) -> bool {
        let hot = &self.hot[index];
        let age_ms = self.now_ms.wrapping_sub(hot.challenge_at_ms);
        !hot.flags.was_challenged || age_ms >= CHALLENGE_INTERVAL_MS
    }

    /// Acknowledges what was received, and announces the window.
    pub(super) fn send_ack<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        let now_ms = self.now_ms;
        let hot = &mut self.hot[index];
        hot.flags.was_challenged = true;
        hot.challenge_at_ms = now_ms;
        let &mut Hot { flow, tcb, .. } = hot;
        let ack = Control {
            kind: Kind::Ack,
            seq: tcb.acceptable_seq(),
            ack: Some(tcb.rcv_nxt),
            window: tcb.rcv_wnd_field(),
            timestamps: self.cold[index].timestamps(self.timestamps, self.now),
        };
        let l2 = *self.neighbours.get(self.cold[index].neighbour);
        self.cold[index].told = tcb.rcv_nxt;
        self.send_control(&flow, &l2, &ack, port);
    }

    pub(super) fn time_wait_receives<T: Transmit>(
        &mut self,
        record: u32,
        arrival: &Arrival,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        let segment = &arrival.segment;
        let ts_value = Timestamps::of_segment(segment, frame).map(|timestamps| timestamps.value);
        match self.time_waits.judge(record, segment, ts_value) {
            time_wait::Verdict::Recycle if self.caller.is_some() => {
                self.reset_sender(segment, frame, port);
            }
            time_wait::Verdict::Recycle if !self.is_draining => {
                let snd_nxt = self.time_waits.get(record).snd_nxt;
                self.counters.tw_recycled.increment();
                self.time_waits.remove(record);
                self.unlist_time_wait(record, &segment.flow);
                self.syn_arrives(arrival, frame, Some(snd_nxt), port);
            }
            time_wait::Verdict::Acknowledge if self.time_wait_acks.permit(self.now) => {
                self.counters.tw_acks.increment();
                self.time_waits.receive(record, segment);
                if segment.flags.contains(Flags::FIN) {
                    self.time_waits.restart(record, self.now);
                }
                let left = self.time_waits.get(record);
                let ack = Control {
                    kind: Kind::Ack,
                    seq: left.snd_nxt,
                    ack: Some(left.rcv_nxt),
                    window: left.window,
                    timestamps: left.ts_recent().map(|echo| self.timestamps_now(echo)),
                };
                let flow = left.flow;
                self.send_control(&flow, &L2Header::reflect(segment.l2(frame)), &ack, port);
            }
            time_wait::Verdict::Acknowledge => self.counters.tw_acks_skipped.increment(),
            time_wait::Verdict::Refuse => {
                self.counters.syncookies_spent.increment();
                self.refuse(segment, frame, port);
            }
            time_wait::Verdict::Forget => {
                self.time_waits.remove(record);
                self.unlist_time_wait(record, &segment.flow);
            }
            time_wait::Verdict::IgnoreReset => self.counters.tw_rsts_ignored.increment(),
            time_wait::Verdict::Recycle => self.counters.listen_drops_draining.increment(),
            time_wait::Verdict::Ignore => {}
        }
    }
}
