//! How connections that are served directly end (RFC 9293, section 3.6): without a socket.
//!
//! ```text
//!            close ─▶ FIN-WAIT-1 ── ACK of our FIN ──▶ FIN-WAIT-2 ── the peer's FIN ─▶ TIME-WAIT, a record
//!                         └─ the peer's FIN ─▶ CLOSING ── ACK of our FIN ──────────────▲
//!   the peer's FIN ─▶ CLOSE-WAIT ── close ─▶ LAST-ACK ── ACK of our FIN ──────────────▶ gone
//! ```
//!
//! The sender sends the FIN behind all that is queued, and repairs its loss. What the peer still sends is acknowledged and
//! discarded; what it sends out of order is not kept, and comes again. From the first FIN of either side on a connection
//! is not handed over: a socket could not be brought into its state.

use crate::guard::segment::State;
use crate::link::Transmit;
use barewire_service::service::{End, Service};

use super::turn::Turn;
use crate::shard::{Core, Port};

impl<S: Service> Core<'_, S> {
    /// Ends our side behind what is queued.
    #[inline(never)]
    pub(in crate::shard) fn close_directly(&mut self, index: usize) {
        self.lend_sender(index);
        let cold = &mut self.cold[index];
        cold.end_seen = self.hot[index].tcb.fin_received;
        cold.wants_room = false;
        if let Some(slot) = self.direct.slot(cold.sender) {
            slot.inbox.discard(slot.chunks);
            slot.sender.finish();
        }
        self.change_state(index, State::Closing);
    }

    /// A turn of a connection that we have closed.
    #[inline(never)]
    pub(super) fn closing_turn<T: Transmit>(
        &mut self,
        index: usize,
        acknowledged: u32,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) {
        turn.input = &[];
        self.send_kept(index, turn, port);
        if turn.owes_ack {
            self.acknowledge(index, turn, port);
        }
        let (tcb, cold) = (&self.hot[index].tcb, &mut self.cold[index]);
        let is_acknowledged = tcb.fin_sent && tcb.snd_una == tcb.snd_nxt;
        if is_acknowledged && tcb.fin_received {
            return match cold.end_seen {
                true => self.end(index, End::Closed),
                false => self.enter_time_wait(index),
            };
        }
        let kept = (self.direct.senders.get(cold.sender)).map_or(0, |busy| busy.sender.kept());
        if kept == 0 {
            cold.watch.on_close(self.now, &self.config.deadlines);
        }
        self.note_direct_progress(index, acknowledged);
    }
}
