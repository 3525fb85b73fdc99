//! What a shard does when timers expire.

use crate::connection::{Hot, NEVER};
use crate::control::{self, Control, Direction, Kind};
use crate::guard::segment::State;
use crate::link::{Link, Transmit};
use barewire_service::deadline::{Wait, Watch};
use barewire_service::service::{End, Service};
use barewire_service::time::{Duration, Instant};

use super::egress::unanswered_ms;
use super::{Core, EXPIRED_PER_TURN, Port};
use crate::smoltcp_time;

impl<S: Service> Core<'_, S> {
    /// Calls connections whose timer has expired, and ends TIME-WAITs that are over; what is left of either is the
    /// next turn's.
    pub(super) fn expire<L: Link>(&mut self, links: &mut [L]) {
        for left in (0..EXPIRED_PER_TURN).rev() {
            let Some(index) = self.timers.pop_expired(self.now) else {
                break;
            };
            let index = index as usize;
            let mut port = Port::of(links, self.hot[index].link);
            self.timer_expires(index, &mut port);
            if left == 0 {
                self.counters.timers_deferred.increment();
            }
        }
        for _ in 0..EXPIRED_PER_TURN {
            let Some((record, flow)) = self.time_waits.pop_expired(self.now) else {
                return;
            };
            self.unlist_time_wait(record, &flow);
        }
    }

    fn timer_expires<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        self.cold[index].timer_at = NEVER;
        let due = self.watch_of(index).due(self.now);
        let is_pardoned = self.now < self.pardon_until && due != Some(Wait::Message);
        if let Some(wait) = due.filter(|_| !is_pardoned) {
            return self.deadline_passes(index, wait, port);
        }
        if self.now >= self.user_timeout_at(index).unwrap_or(NEVER) {
            self.counters.abort_on_timeout.increment();
            return self.abort(index, End::Silent, port);
        }
        if self.cold[index].is_direct {
            return self.direct_timer_expires(index, port);
        }
        self.suspect_path(index);
        self.send_what_is_late(index, port);
        self.finish_turn(index, 0, port);
        if self.hot[index].tcb.state == State::Free || self.cold[index].is_direct {
            return;
        }
        self.restart_probes(index, port);
        // What was scheduled on the way here is the earliest that can be; say what it really is.
        self.timers.cancel(index as u32);
        self.cold[index].timer_at = NEVER;
        let candidates = [
            self.next_send_at(index),
            self.watch_of(index).next_at(),
            self.user_timeout_at(index),
        ];
        if let Some(at) = candidates.into_iter().flatten().min() {
            self.call_at(index, at);
        }
    }

    /// What a connection waits for.
    ///
    /// A peer that does not answer a retransmission cannot be distinguished from one that did not get it, or
    /// whose answer was lost; the user timeout covers both.
    fn watch_of(&self, index: usize) -> Watch {
        let tcb = &self.hot[index].tcb;
        let watch = self.cold[index].watch;
        match tcb.snd_wnd > 0 && unanswered_ms(self.silent_ms(index)) > 0 {
            true => watch.without_send(),
            false => watch,
        }
    }

    /// When a connection will send without having been asked, at the latest.
    fn next_send_at(&mut self, index: usize) -> Option<Instant> {
        let cold = &self.cold[index];
        let slot = self.sockets.slot(cold.socket);
        let at = smoltcp_time::poll_at(&mut self.interface, self.now, &slot.set)?;
        let at_most = self.now + Duration::from_millis(u64::from(self.config.rto_max_ms));
        slot.late_at = if at > at_most { at } else { NEVER };
        Some(at.min(at_most))
    }

    /// Makes smoltcp's timer expire if it wants to wait longer than `rto_max_ms`.
    ///
    /// It has backed its timeout off and is still waiting for the same time, so nothing was acknowledged
    /// since; all that it can have in mind is to send again, or to probe.
    fn send_what_is_late<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        let slot = self.sockets.slot(self.cold[index].socket);
        let late_at = std::mem::replace(&mut slot.late_at, NEVER);
        if late_at == NEVER {
            return;
        }
        if smoltcp_time::poll_at(&mut self.interface, self.now, &slot.set) == Some(late_at) {
            self.send_next(index, late_at, port.transmit);
        }
    }

    fn deadline_passes<T: Transmit>(&mut self, index: usize, wait: Wait, port: &mut Port<'_, T>) {
        let counter = match wait {
            Wait::Handshake => &self.counters.half_open_timeouts,
            Wait::UpperHandshake => &self.counters.handshake_timeouts,
            Wait::Message => &self.counters.idle_timeouts,
            Wait::Head => &self.counters.head_timeouts,
            Wait::Body => &self.counters.body_timeouts,
            Wait::Send => &self.counters.send_timeouts,
            Wait::Close => &self.counters.close_timeouts,
            // It has no deadline here.
            Wait::Service => return,
        };
        counter.increment();
        match wait {
            Wait::UpperHandshake | Wait::Message | Wait::Head | Wait::Body => {
                self.tell_timeout(index);
                match self.caller {
                    None => {
                        self.close(index);
                        self.finish_turn(index, 0, port);
                    }
                    // What the peer may still send is not needed.
                    Some(_) => self.abort(index, End::Closed, port),
                }
            }
            Wait::Send => self.abort(index, End::Silent, port),
            // The peer does not answer, so it gets no RST.
            Wait::Handshake if self.hot[index].tcb.state == State::SynSent => {
                self.unanswered(index);
            }
            Wait::Handshake | Wait::Close | Wait::Service => self.end(index, End::Closed),
        }
    }

    /// When the peer will have been silent for too long about what is in flight.
    ///
    /// For a peer that has closed its window, the send deadline applies.
    pub(super) fn user_timeout_at(&self, index: usize) -> Option<Instant> {
        self.user_timeout_of(&self.hot[index])
    }

    #[inline]
    pub(super) fn user_timeout_of(&self, hot: &Hot) -> Option<Instant> {
        let tcb = &hot.tcb;
        let owes_nothing = match tcb.state {
            // For a SYN that is not answered, the handshake's deadline applies.
            State::SynSent => true,
            State::SynReceived => false,
            _ => tcb.snd_wnd == 0,
        };
        if tcb.snd_una == tcb.snd_nxt || owes_nothing {
            return None;
        }
        let timeout_ms = self.config.deadlines.user_timeout_ms;
        let silent_ms = self.now_ms.wrapping_sub(hot.progress_at_ms);
        let left_ms = timeout_ms.saturating_sub(silent_ms);
        let at = self.now + Duration::from_millis(u64::from(left_ms));
        Some(at.max(self.pardon_until))
    }

    /// For how long nothing of what is in flight was acknowledged.
    pub(super) fn silent_ms(&self, index: usize) -> u32 {
        let hot = &self.hot[index];
        match hot.tcb.snd_una == hot.tcb.snd_nxt {
            true => 0,
            false => self.now_ms.wrapping_sub(hot.progress_at_ms),
        }
    }

    /// When data is in flight and the peer closes its window, smoltcp's retransmission timer expires
    /// without anything it may send, and no timer is left; if the ACK that opens the window again is
    /// lost, both sides wait for ever. A repeated announcement of the closed window makes it probe.
    fn restart_probes<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        let hot = &self.hot[index];
        let slot = self.sockets.slot(self.cold[index].socket);
        let is_stuck = hot.tcb.snd_wnd == 0
            && hot.tcb.state != State::SynReceived
            && slot.socket().send_queue() > 0
            && smoltcp_time::poll_at(&mut self.interface, self.now, &slot.set).is_none();
        if !is_stuck {
            return;
        }
        self.counters.probe_restarts.increment();
        let flow = hot.flow;
        let closed = Control {
            kind: Kind::Ack,
            seq: hot.tcb.rcv_nxt,
            ack: Some(hot.tcb.snd_una),
            window: 0,
            timestamps: self.cold[index].timestamps_of_peer(),
        };
        let mut packet = std::mem::take(&mut self.scratch.packet);
        if let Some(len) = control::write_packet(
            &mut packet,
            &self.local,
            &flow,
            Direction::FromPeer,
            &closed,
        ) {
            self.ingress(index, &packet[..len], port.transmit);
        }
        self.scratch.packet = packet;
    }
}
