//! From the connections to the transmit slots.

use smoltcp::socket::tcp;

use crate::connection::NEVER;
use crate::control::{self, Control, Direction, L2Header};
use crate::guard::is_before;
use crate::guard::segment::State;
use crate::link::{Link, Transmit};
use crate::packet::{Flags, FlowKey};
use barewire_service::service::{End, Service};
use barewire_service::time::Instant;

use super::wire::{Sent, Wire};
use super::{Core, EGRESS_SEGMENTS_MAX, Port, RESUMED_PER_TURN, RTO_MIN_MS};
use crate::smoltcp_time;

impl<S: Service> Core<'_, S> {
    /// Sends what a connection has to send after it received, and does what its state then asks for.
    pub(super) fn finish_turn<T: Transmit>(
        &mut self,
        index: usize,
        acknowledged: u32,
        port: &mut Port<'_, T>,
    ) {
        if self.hot[index].tcb.state == State::Free {
            return;
        }
        if self.cold[index].is_direct {
            return self.resume_directly(index, port);
        }
        if self.is_dismissed(index) {
            self.dismiss(index);
        }
        if self.hot[index].tcb.state == State::Closing {
            self.close_if_there_is_room(index);
            self.discard_input(index);
        }
        self.egress(index, port.transmit, port.reserve);
        self.settle(index, acknowledged);
        self.take_directly(index);
    }

    /// Sends segments of a connection, but leaves `reserve` slots to others. What has to wait is noted.
    pub(super) fn egress<T: Transmit>(&mut self, index: usize, transmit: &mut T, reserve: usize) {
        for _ in 0..EGRESS_SEGMENTS_MAX {
            if transmit.free_slots() <= reserve {
                self.wait_to_send(index);
                return;
            }
            let Some(sent) = self.send_next(index, self.now, transmit) else {
                return;
            };
            if !sent.may_be_followed() {
                return;
            }
        }
        self.wait_to_send(index);
    }

    /// Lets smoltcp send a segment of a connection, if it has one to send at the time `at`.
    #[inline]
    pub(super) fn send_next<T: Transmit>(
        &mut self,
        index: usize,
        at: Instant,
        transmit: &mut T,
    ) -> Option<Sent> {
        let mtu = self.packet_bytes_max(index);
        let cold = &mut self.cold[index];
        debug_assert!(!cold.is_direct, "the socket is not in use");
        smoltcp_time::set_ts_value(self.timestamps.value(self.now));
        let mut wire = Wire {
            received: None,
            transmit,
            l2: self.neighbours.get(cold.neighbour),
            ack_seq: self.hot[index].tcb.acceptable_seq(),
            window_shift: self.hot[index].tcb.scales.rcv(),
            ts_recent: cold.options.timestamps.then_some(cold.ts_recent),
            spare: &mut self.scratch.spare,
            mtu,
            sent: None,
        };
        let interface = match mtu == self.config.mtu {
            true => &mut self.interface,
            false => self.paths.interface(mtu, self.now),
        };
        let set = &mut self.sockets.slot(cold.socket).set;
        interface.poll_egress(smoltcp_time::at(at), &mut wire, set);
        let sent = wire.sent?;
        self.note_sent(index, &sent);
        Some(sent)
    }

    pub(super) fn wait_to_send(&mut self, index: usize) {
        let flags = &mut self.hot[index].flags;
        if !flags.is_waiting_to_send {
            flags.is_waiting_to_send = true;
            self.counters.tx_deferred.increment();
            self.waiting.push_back(index as u32);
        }
    }

    /// Gives those that had to wait their turn, if their link has room for them.
    pub(super) fn resume_waiting<L: Link>(&mut self, links: &mut [L]) {
        for _ in 0..self.waiting.len().min(RESUMED_PER_TURN) {
            let Some(index) = self.waiting.pop_front() else {
                return;
            };
            let hot = &mut self.hot[index as usize];
            let mut port = Port::of(links, hot.link);
            if hot.tcb.state != State::Free && port.transmit.free_slots() == 0 {
                self.waiting.push_back(index);
                continue;
            }
            hot.flags.is_waiting_to_send = false;
            if hot.tcb.state != State::Free {
                self.finish_turn(index as usize, 0, &mut port);
            }
        }
    }

    /// Whether those that wait, as far as the next turn will look, wait for links that are full.
    pub(super) fn is_stalled<L: Link>(&self, links: &mut [L]) -> bool {
        let next = self.waiting.iter().take(RESUMED_PER_TURN);
        let mut links_of_next = next.map(|&index| self.hot[index as usize].link);
        links_of_next.all(|link| links[usize::from(link)].transmit().free_slots() == 0)
    }

    /// Remembers what a segment told the peer.
    #[inline]
    pub(super) fn note_sent(&mut self, index: usize, sent: &Sent) {
        let now_ms = self.now_ms;
        let hot = &mut self.hot[index];
        let tcb = &mut hot.tcb;
        let end = sent.end();
        if is_before(tcb.snd_nxt, end) {
            if tcb.snd_una == tcb.snd_nxt {
                hot.progress_at_ms = now_ms;
            }
            tcb.snd_nxt = end;
        } else if end != sent.seq {
            self.counters.retrans_segs.increment();
        }
        self.cold[index].path.note_sent(sent.packet_len);
        tcb.fin_sent |= sent.flags.contains(Flags::FIN);
        tcb.rcv_nxt = sent.ack;
        tcb.rcv_wnd = sent.window_bytes;
        self.cold[index].told = sent.ack;
    }

    /// Takes over the state that smoltcp has reached.
    fn settle(&mut self, index: usize, acknowledged: u32) {
        let socket = self.socket(index);
        let queued = socket.send_queue();
        match socket.state() {
            // The last ACK came, or the SYN was not one after all.
            tcp::State::Closed | tcp::State::Listen => return self.end(index, End::Closed),
            // The ACK of the peer's FIN is out.
            tcp::State::TimeWait if !self.hot[index].flags.is_waiting_to_send => {
                return self.enter_time_wait(index);
            }
            _ => {}
        }
        if self.hot[index].tcb.state == State::Closing && queued == 0 {
            self.cold[index]
                .watch
                .on_close(self.now, &self.config.deadlines);
        }
        self.note_progress(index, acknowledged, queued);
    }

    /// Keeps the deadlines of a connection of which `acknowledged` bytes more were acknowledged and
    /// `queued` bytes were not.
    #[inline]
    pub(super) fn note_progress(&mut self, index: usize, acknowledged: u32, queued: usize) {
        self.note_acknowledged(index, acknowledged);
        let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
        cold.watch.on_sent(
            self.now,
            acknowledged as usize,
            queued,
            &self.config.deadlines,
        );
        let is_in_flight = hot.tcb.snd_una != hot.tcb.snd_nxt;
        let mut at = cold.watch.next_at().unwrap_or(NEVER);
        if is_in_flight || queued > 0 {
            at = at.min(self.now + self.timer_min);
        }
        self.call_at(index, at);
    }

    /// Notes that the peer answers, if it has acknowledged something, and that the path carries segments of that size.
    #[inline]
    pub(super) fn note_acknowledged(&mut self, index: usize, acknowledged: u32) {
        if acknowledged == 0 {
            return;
        }
        let now_ms = self.now_ms;
        let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
        let silent_ms = now_ms.wrapping_sub(hot.progress_at_ms);
        cold.watch
            .forgive_ms(unanswered_ms(silent_ms), &self.config.deadlines);
        hot.progress_at_ms = now_ms;
        if let Some(size) = cold.path.on_progress() {
            self.paths.confirm(&hot.flow, size, self.now);
        }
    }

    /// Makes sure that the timer of a connection expires no later than `at`.
    #[inline]
    pub(super) fn call_at(&mut self, index: usize, at: Instant) {
        let timer_at = &mut self.cold[index].timer_at;
        if at < *timer_at {
            *timer_at = at;
            self.timers.schedule(index as u32, at);
        }
    }

    /// Writes a control segment, if there is a slot for it.
    pub(super) fn send_control<T: Transmit>(
        &mut self,
        flow: &FlowKey,
        l2: &L2Header,
        control: &Control,
        port: &mut Port<'_, T>,
    ) {
        let slot = port.transmit.slot();
        let len = slot.and_then(|slot| {
            let packet = l2.write(slot)?;
            control::write_packet(packet, &self.local, flow, Direction::ToPeer, control)
        });
        if let Some(len) = len {
            port.transmit.commit(l2.len() + len);
        }
    }
}

/// The part of a silence that is not the peer's fault: the time after the first timeout, in
/// which we sent again, perhaps in vain.
#[inline]
pub(super) fn unanswered_ms(silent_ms: u32) -> u32 {
    silent_ms.saturating_sub(RTO_MIN_MS)
}
