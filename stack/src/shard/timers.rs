//! What happens because nothing happened.

use crate::connection::NEVER;
use crate::control::{self, Control, Direction, Kind};
use crate::deadline::Wait;
use crate::guard::segment::State;
use crate::link::{Link, Transmit};
use crate::service::{End, Service};
use crate::time::{Duration, Instant};

use super::{Core, Port};

impl<S: Service> Core<'_, S> {
    /// Calls all connections whose timer has expired, and ends the TIME-WAITs that are over.
    pub(super) fn expire<L: Link>(&mut self, links: &mut [L]) {
        while let Some(index) = self.timers.pop_expired(self.now) {
            let index = index as usize;
            let link = self.hot[index].link;
            let transmit = links[usize::from(link)].transmit();
            self.timer_expires(
                index,
                &mut Port {
                    link,
                    transmit,
                    reserve: 0,
                },
            );
        }
        while let Some((record, flow)) = self.time_waits.pop_expired(self.now) {
            self.unlist_time_wait(record, &flow);
        }
    }

    fn timer_expires<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        self.cold[index].timer_at = NEVER;
        if let Some(wait) = self.cold[index].watch.due(self.now) {
            return self.deadline_passes(index, wait, port);
        }
        if self.now >= self.user_timeout_at(index).unwrap_or(NEVER) {
            self.counters.abort_on_timeout.increment();
            return self.abort(index, End::Silent, port);
        }
        self.finish_turn(index, 0, port);
        if self.hot[index].tcb.state == State::Free {
            return;
        }
        self.restart_probes(index, port);
        // What was scheduled on the way here is the earliest that can be; say what it really is.
        self.timers.cancel(index as u32);
        self.cold[index].timer_at = NEVER;
        let set = &self.cold[index].slot.set;
        let candidates = [
            self.interface.poll_at(self.now, set),
            self.cold[index].watch.next_at(),
            self.user_timeout_at(index),
        ];
        if let Some(at) = candidates.into_iter().flatten().min() {
            self.call_at(index, at);
        }
    }

    fn deadline_passes<T: Transmit>(&mut self, index: usize, wait: Wait, port: &mut Port<'_, T>) {
        let counter = match wait {
            Wait::Handshake => &self.counters.half_open_timeouts,
            Wait::Message => &self.counters.idle_timeouts,
            Wait::Head => &self.counters.head_timeouts,
            Wait::Body => &self.counters.body_timeouts,
            Wait::Send => &self.counters.send_timeouts,
            Wait::Close => &self.counters.close_timeouts,
        };
        counter.increment();
        match wait {
            Wait::Message | Wait::Head | Wait::Body => {
                self.tell_timeout(index);
                match self.caller {
                    None => {
                        self.close(index);
                        self.finish_turn(index, 0, port);
                    }
                    // What the peer would still send is of no use any more.
                    Some(_) => self.abort(index, End::Closed, port),
                }
            }
            Wait::Send => self.abort(index, End::Silent, port),
            // Nobody is there who would care for an RST.
            Wait::Handshake if self.hot[index].tcb.state == State::SynSent => {
                self.unanswered(index);
            }
            Wait::Handshake | Wait::Close => self.end(index, End::Closed),
        }
    }

    /// When the peer will have been silent for too long about what is in flight.
    fn user_timeout_at(&self, index: usize) -> Option<Instant> {
        let hot = &self.hot[index];
        // Of a SYN that nobody answers the handshake's deadline decides.
        if hot.tcb.snd_una == hot.tcb.snd_nxt || hot.tcb.state == State::SynSent {
            return None;
        }
        let silent_ms = self.now_ms().wrapping_sub(hot.progress_at_ms);
        let left_ms = self
            .config
            .deadlines
            .user_timeout_ms
            .saturating_sub(silent_ms);
        Some(self.now + Duration::from_millis(u64::from(left_ms)))
    }

    /// When data is in flight and the peer closes its window, smoltcp's retransmission timer expires
    /// without anything it may send, and no timer is left; if the ACK that opens the window again is
    /// lost, both sides wait for ever. Hearing once more that the window is closed makes it probe.
    fn restart_probes<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        let cold = &mut self.cold[index];
        let hot = &self.hot[index];
        let is_stuck = hot.tcb.snd_wnd == 0
            && hot.tcb.state != State::SynReceived
            && cold.slot.socket().send_queue() > 0
            && self.interface.poll_at(self.now, &cold.slot.set).is_none();
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
