//! How connections begin: the SYN, the cookie, the ACK that completes the handshake.

use crate::config::{UnknownFlow, WhenFull};
use crate::connection::Hot;
use crate::control::{self, Control, Direction, Kind, L2Header, SynOptions};
use crate::guard::cookie::Redeemed;
use crate::guard::segment::{Scales, State, Tcb};
use crate::guard::timestamps::Timestamps;
use crate::guard::{is_before, isn};
use crate::link::Transmit;
use crate::packet::{Flags, FlowKey, Segment};
use barewire_service::deadline::Watch;
use barewire_service::service::{self, Service};
use barewire_service::time::Duration;

use super::wire::Nowhere;
use super::{Arrival, Core, Port, RTO_MIN_MS, new_interface};
use crate::smoltcp_time;

impl<S: Service> Core<'_, S> {
    /// A segment for which there is neither a connection nor a TIME-WAIT record.
    pub(super) fn unknown_flow_receives<T: Transmit>(
        &mut self,
        arrival: &Arrival,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        if self.caller.is_some() {
            return self.stray_arrives(arrival, frame, port);
        }
        let segment = &arrival.segment;
        let has = |flags| segment.flags.contains(flags);
        if has(Flags::RST) {
            if !self.forward(arrival, frame) {
                self.counters.unknown_flow_ignored.increment();
            }
        } else if has(Flags::SYN) && !has(Flags::ACK) {
            self.syn_arrives(arrival, frame, None, port);
        } else if has(Flags::SYN) || !self.cookie_returns(arrival, frame, port) {
            match self.config.unknown_flow {
                UnknownFlow::Reset if self.forward(arrival, frame) => {}
                _ => self.refuse(segment, frame, port),
            }
        }
    }

    /// Answers a segment that belongs to no connection, if that is wanted.
    pub(super) fn refuse<T: Transmit>(
        &mut self,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        match self.config.unknown_flow {
            UnknownFlow::Reset => self.reset_sender(segment, frame, port),
            UnknownFlow::Ignore => self.counters.unknown_flow_ignored.increment(),
        }
    }

    /// A SYN that may open a connection. If the flow was in TIME-WAIT, `old_snd_nxt` is where its
    /// sequence numbers had got to.
    pub(super) fn syn_arrives<T: Transmit>(
        &mut self,
        arrival: &Arrival,
        frame: &[u8],
        old_snd_nxt: Option<u32>,
        port: &mut Port<'_, T>,
    ) {
        let segment = &arrival.segment;
        if self.is_draining {
            self.counters.listen_drops_draining.increment();
            return;
        }
        if self.is_source_full(&segment.flow) {
            self.counters.source_overflows.increment();
            return;
        }
        if self.are_seats_taken() {
            return;
        }
        // A SYN may have a forged source: no connection is ended for it, only for a cookie that comes back.
        let has_cookies = self.config.half_open < self.config.connections;
        let may_evict = self.config.when_full == WhenFull::Evict && has_cookies;
        if self.has_all_connections() && !may_evict {
            self.counters.listen_overflows.increment();
            return;
        }
        let Ok(announced) = SynOptions::of_segment(segment, frame) else {
            self.counters.listen_drops_malformed.increment();
            return;
        };
        let options = self.bounded(&segment.flow, announced);
        if options.mss > announced.mss {
            self.counters.mss_raised.increment();
        }
        if self.levels.syn_received >= self.config.half_open || self.has_all_connections() {
            self.send_cookie(segment, frame, &options, port);
            return;
        }
        // A copy of this SYN may have been answered with a cookie. Both answers must be the same.
        let isn = match old_snd_nxt {
            None if self.uses_cookies() => self.issue_cookie(segment, &options),
            _ => self.choose_isn(&segment.flow, old_snd_nxt),
        };
        let l2 = L2Header::reflect(segment.l2(frame));
        if let Some(index) = self.open(arrival, frame, isn, &options, &l2, port.link) {
            self.answer_syn(index, port);
        }
    }

    /// The peer's options within bounds: its segments are neither tiny nor longer than what we can send. The
    /// second keeps smoltcp from growing its congestion window by segments that are never sent.
    pub(super) fn bounded(&self, flow: &FlowKey, announced: SynOptions) -> SynOptions {
        SynOptions {
            mss: announced.mss.clamp(self.config.mss_min, self.mss_max(flow)),
            timestamps: announced.timestamps && self.config.timestamps,
            ..announced
        }
    }

    /// The MSS of our own packets.
    fn mss_max(&self, flow: &FlowKey) -> u16 {
        let ip_header_len = if flow.is_ipv6() { 40 } else { 20 };
        (self.config.mtu - ip_header_len - 20) as u16
    }

    /// Both sides scale their windows, or none (RFC 7323, section 2.2).
    fn scales(&self, options: &SynOptions) -> Scales {
        match options.window_scale {
            Some(shift) => Scales::new(shift, self.config.receive_window_shift()),
            None => Scales::default(),
        }
    }

    fn choose_isn(&self, flow: &FlowKey, old_snd_nxt: Option<u32>) -> u32 {
        let isn = self.isns.choose(flow, self.now);
        // RFC 6191, section 2: segments of the new connection must not be taken for the old one's.
        match old_snd_nxt.map(|old| old.wrapping_add(u32::from(u16::MAX) + 2)) {
            Some(beyond) if is_before(isn, beyond) => beyond,
            _ => isn,
        }
    }

    /// Takes a connection for the flow of `arrival`, whose SYN is answered at `isn`. It has no socket.
    fn open(
        &mut self,
        arrival: &Arrival,
        frame: &[u8],
        isn: u32,
        options: &SynOptions,
        l2: &L2Header,
        link: u8,
    ) -> Option<usize> {
        let flow = arrival.segment.flow;
        let irs = match arrival.segment.flags.contains(Flags::SYN) {
            true => arrival.segment.seq,
            false => arrival.segment.seq.wrapping_sub(1),
        };
        let tcb = Tcb {
            snd_una: isn,
            snd_nxt: isn.wrapping_add(1),
            rcv_nxt: irs.wrapping_add(1),
            rcv_wnd: self.config.receive_buffer_bytes as u32,
            snd_wl1: irs,
            scales: self.scales(options),
            state: State::SynReceived,
            ..Tcb::default()
        };
        let index = self.take_connection(flow, arrival.hash, tcb, l2, link)?;
        let cold = &mut self.cold[index];
        cold.is_direct = true;
        cold.options = *options;
        if options.timestamps {
            let timestamps = Timestamps::of_segment(&arrival.segment, frame);
            cold.ts_recent = timestamps.map_or(0, |timestamps| timestamps.value);
        }
        cold.highest = irs.wrapping_add(1);
        cold.told = irs.wrapping_add(1);
        Some(index)
    }

    /// Sends the SYN|ACK of a half-open connection that has no socket. Its timer brings the next one: 1, 3, 7 ... s after
    /// the first (RFC 6298, section 5.5).
    pub(super) fn answer_syn<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        let Hot { flow, tcb, .. } = self.hot[index];
        let cold = &self.cold[index];
        let (options, l2) = (cold.options, *self.neighbours.get(cold.neighbour));
        let timestamps = cold.timestamps(self.timestamps, self.now);
        let numbers = (tcb.snd_una, tcb.rcv_nxt);
        self.send_syn_ack(&flow, &l2, &options, timestamps, numbers, port);
        let wait_ms = (self.silent_ms(index) + RTO_MIN_MS).min(self.config.rto_max_ms);
        let mut at = self.now + Duration::from_millis(u64::from(wait_ms));
        let ends_at = self.cold[index].watch.next_at();
        for end in [ends_at, self.user_timeout_at(index)].into_iter().flatten() {
            at = at.min(end);
        }
        self.call_at(index, at);
    }

    /// Lets a half-open connection that has no socket take the ACK that completes its handshake. Returns false, and
    /// nothing has happened, if smoltcp has to see it: it is another segment, or the connection is not for the direct
    /// path.
    #[inline(never)]
    pub(super) fn completes_handshake(&mut self, index: usize, segment: &Segment) -> bool {
        let tcb = &self.hot[index].tcb;
        let is_last_ack = segment.flags.contains(Flags::ACK)
            && !segment
                .flags
                .intersects(Flags::SYN | Flags::RST | Flags::URG)
            && segment.ack == tcb.snd_nxt
            && segment.seq == tcb.rcv_nxt
            && segment.payload_len() <= tcb.rcv_wnd as usize;
        is_last_ack && self.is_for_direct_path(index) && self.direct.is_wanted()
    }

    /// A new socket for a half-open connection, which hears the SYN and sends a SYN|ACK that the peer has got already.
    pub(super) fn hand_over_half_open(&mut self, index: usize) {
        let Tcb {
            snd_una, rcv_nxt, ..
        } = self.hot[index].tcb;
        let tcb = &mut self.hot[index].tcb;
        (tcb.snd_nxt, tcb.rcv_wnd) = (snd_una, 0);
        self.give_socket(index, snd_una);
        self.replay_handshake(index, rcv_nxt.wrapping_sub(1), self.cold[index].options);
    }

    /// A new socket that listens for the peer of a connection that has none, and whose ISN will be `isn`.
    pub(super) fn give_socket(&mut self, index: usize, isn: u32) {
        self.interface = new_interface(isn::interface_seed(isn), self.config.mtu, self.now);
        self.take_socket(index);
        let port = self.hot[index].flow.local_port();
        if self.cold[index].options.timestamps {
            self.socket(index)
                .set_tsval_generator(Some(smoltcp_time::ts_value));
        }
        let listening = self.socket(index).listen(port);
        debug_assert!(listening.is_ok(), "a new socket can listen");
    }

    /// The handshake is complete.
    pub(super) fn establish(&mut self, index: usize) {
        self.counters.passive_opens.increment();
        self.change_state(index, State::Open);
        let arrival = service::Arrival {
            listener: self.listener_of(self.hot[index].flow.local_port()),
            ..service::Arrival::default()
        };
        let (connection, expect) = self.service.on_accept(arrival);
        let cold = &mut self.cold[index];
        self.states.set::<S>(&mut cold.state, connection);
        cold.watch = Watch::established(self.now, expect, &self.config.deadlines);
    }

    /// The place of a port among those that are served.
    pub(super) fn listener_of(&self, port: u16) -> usize {
        let mut served = self.local.ports().iter();
        served.position(|&of| of == port).unwrap_or(0)
    }

    /// The peer did not get the SYN|ACK, and repeats its SYN.
    pub(super) fn repeat_syn_ack<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        let Ok(options) = SynOptions::of_segment(segment, frame) else {
            return;
        };
        let Tcb {
            snd_una, rcv_nxt, ..
        } = self.hot[index].tcb;
        let l2 = L2Header::reflect(segment.l2(frame));
        let has_timestamps = self.cold[index].options.timestamps;
        let timestamps = self.timestamps_in_answer(segment, frame, has_timestamps);
        let (flow, numbers) = (&segment.flow, (snd_una, rcv_nxt));
        self.send_syn_ack(flow, &l2, &options, timestamps, numbers, port);
    }

    /// The timestamps of a segment that answers `segment`, if there are to be any.
    fn timestamps_in_answer(
        &self,
        segment: &Segment,
        frame: &[u8],
        are_wanted: bool,
    ) -> Option<Timestamps> {
        let of_peer = Timestamps::of_segment(segment, frame).filter(|_| are_wanted)?;
        Some(self.timestamps_now(of_peer.value))
    }

    fn send_cookie<T: Transmit>(
        &mut self,
        segment: &Segment,
        frame: &[u8],
        options: &SynOptions,
        port: &mut Port<'_, T>,
    ) {
        self.counters.syncookies_sent.increment();
        self.cookie_use.note(self.now);
        let isn = self.issue_cookie(segment, options);
        let l2 = L2Header::reflect(segment.l2(frame));
        let numbers = (isn, segment.seq.wrapping_add(1));
        let timestamps = self.timestamps_in_answer(segment, frame, options.timestamps);
        self.send_syn_ack(&segment.flow, &l2, options, timestamps, numbers, port);
    }

    fn send_syn_ack<T: Transmit>(
        &mut self,
        flow: &FlowKey,
        l2: &L2Header,
        options: &SynOptions,
        timestamps: Option<Timestamps>,
        (isn, ack): (u32, u32),
        port: &mut Port<'_, T>,
    ) {
        let syn_ack = Control {
            kind: Kind::Syn(SynOptions {
                mss: self.mss_max(flow),
                window_scale: options
                    .window_scale
                    .map(|_| self.config.receive_window_shift()),
                sack_permitted: options.sack_permitted,
                timestamps: timestamps.is_some(),
            }),
            seq: isn,
            ack: Some(ack),
            window: self.config.receive_buffer_bytes as u16,
            timestamps,
        };
        self.send_control(flow, l2, &syn_ack, port);
    }

    /// Whether a segment of an unknown flow completes a handshake that a cookie began; if so it was
    /// dealt with.
    fn cookie_returns<T: Transmit>(
        &mut self,
        arrival: &Arrival,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) -> bool {
        if !self.uses_cookies() {
            return false;
        }
        let segment = &arrival.segment;
        let irs = segment.seq.wrapping_sub(1);
        let isn = segment.ack.wrapping_sub(1);
        let options = match self.cookies.redeem(&segment.flow, irs, isn, self.now) {
            // Only who has agreed on timestamps sends them (RFC 7323, section 3.2).
            Redeemed::First(options) => self.bounded(
                &segment.flow,
                SynOptions {
                    timestamps: Timestamps::of_segment(segment, frame).is_some(),
                    ..options
                },
            ),
            // It has overtaken the segment that brings the cookie back; the peer sends it again.
            Redeemed::Later => {
                self.counters.syncookies_early.increment();
                return true;
            }
            Redeemed::Foreign => {
                self.counters.syncookies_failed.increment();
                return false;
            }
        };
        if self.is_draining {
            self.counters.listen_drops_draining.increment();
            return true;
        }
        if self.is_source_full(&segment.flow) {
            self.counters.source_overflows.increment();
            return true;
        }
        if self.are_seats_taken() {
            return true;
        }
        let l2 = L2Header::reflect(segment.l2(frame));
        let index = match self.make_room() {
            true => self.open(arrival, frame, isn, &options, &l2, port.link),
            false => None,
        };
        let Some(index) = index else {
            self.counters.syncookies_overflows.increment();
            return true;
        };
        self.counters.syncookies_recv.increment();
        self.connection_receives(index, segment, frame, port);
        true
    }

    /// Whether a connection would have no seat. If so that is counted.
    fn are_seats_taken(&self) -> bool {
        let are_taken = self
            .config
            .seats
            .as_ref()
            .is_some_and(|seats| seats.are_taken());
        if are_taken {
            self.counters.seat_overflows.increment();
        }
        are_taken
    }

    /// Whether there may be peers that hold a cookie of ours.
    pub(super) fn uses_cookies(&self) -> bool {
        self.config.half_open == 0 || self.cookie_use.is_recent(self.now)
    }

    /// Whether a copy of the segment that has completed a connection's handshake would open it again.
    pub(super) fn has_redeemable_cookie(&self, index: usize) -> bool {
        let was_established = matches!(self.hot[index].tcb.state, State::Open | State::Closing);
        was_established
            && self.caller.is_none()
            && !self.time_waits.is_disabled()
            && self.uses_cookies()
    }

    fn issue_cookie(&self, segment: &Segment, options: &SynOptions) -> u32 {
        self.cookies
            .issue(&segment.flow, segment.seq, options, self.now)
    }

    /// Brings a new socket to where it would be if it had seen the SYN and sent the SYN|ACK.
    pub(super) fn replay_handshake(&mut self, index: usize, irs: u32, options: SynOptions) {
        let mut frame = std::mem::take(&mut self.scratch.unseen);
        let transmit = &mut Nowhere(&mut frame);
        self.hear_syn(index, irs, options, 0, transmit);
        self.egress(index, transmit, 0);
        self.scratch.unseen = frame;
    }

    /// Gives a new socket a SYN that we made.
    fn hear_syn<T: Transmit>(
        &mut self,
        index: usize,
        irs: u32,
        options: SynOptions,
        window: u16,
        transmit: &mut T,
    ) {
        let syn = Control {
            kind: Kind::Syn(options),
            seq: irs,
            ack: None,
            window,
            timestamps: self.cold[index].timestamps_of_peer(),
        };
        let flow = self.hot[index].flow;
        let mut packet = std::mem::take(&mut self.scratch.packet);
        let len = control::write_packet(&mut packet, &self.local, &flow, Direction::FromPeer, &syn);
        if let Some(len) = len {
            self.ingress(index, &packet[..len], transmit);
        }
        self.scratch.packet = packet;
    }

    /// Answers a segment that belongs to no connection with an RST, unless there were too many.
    pub(super) fn reset_sender<T: Transmit>(
        &mut self,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) {
        if !self.resets.permit(self.now) {
            self.counters.rsts_skipped.increment();
            return;
        }
        self.counters.out_rsts.increment();
        let l2 = L2Header::reflect(segment.l2(frame));
        self.send_control(&segment.flow, &l2, &Control::reset_for(segment), port);
    }
}
