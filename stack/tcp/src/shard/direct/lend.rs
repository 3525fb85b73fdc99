//! Which connections have a sender: those with something in flight, and some that had.

use crate::config::DirectPath;
use crate::receiver::window::GrowingWindow;
use crate::sender::lent::NO_SENDER;
use crate::sender::{Sender, Start};
use barewire_service::service::Service;
use barewire_service::time::Duration;

use crate::shard::Core;

impl<S: Service> Core<'_, S> {
    /// The sender of a connection that has one.
    #[inline]
    pub(super) fn sender(&self, index: usize) -> Option<&Sender> {
        let busy = self.direct.senders.get(self.cold[index].sender)?;
        Some(&busy.sender)
    }

    /// Gives a connection that is served directly a sender, unless it has one.
    #[inline]
    pub(in crate::shard) fn lend_sender(&mut self, index: usize) {
        if self.cold[index].sender == NO_SENDER {
            self.make_sender(index);
        }
    }

    /// A sender for a connection whose whole state is in its hot line.
    fn make_sender(&mut self, index: usize) {
        let is_random = matches!(self.direct.mode, DirectPath::Random(_));
        if is_random || !self.direct.senders.has_spare() {
            self.reclaim_sender();
        }
        let mss = self.mss(index);
        let quiet_ms = self.now_ms.wrapping_sub(self.hot[index].progress_at_ms);
        let (tcb, cold) = (&self.hot[index].tcb, &mut self.cold[index]);
        let start = Start {
            nxt: tcb.snd_nxt,
            window: tcb.snd_wnd_bytes(),
            window_seq: tcb.snd_wl1,
            mss,
            has_sack: cold.options.sack_permitted,
            remembered: cold.remembered,
        };
        let quiet_since = self.now - Duration::from_millis(u64::from(quiet_ms));
        let sender = Sender::new(&start, quiet_since);
        let buffer_bytes = self.config.receive_buffer_bytes as u32;
        let window = GrowingWindow::new(tcb.rcv_wnd.max(buffer_bytes), self.now);
        cold.sender = self.direct.senders.take(index, sender, window);
    }

    /// Takes the sender of a connection that is quiet, if one is among the next.
    fn reclaim_sender(&mut self) {
        const LOOKED_AT: usize = 4;
        for _ in 0..LOOKED_AT {
            let Some(index) = self.direct.senders.next_user() else {
                continue;
            };
            let is_quiet = self.is_quiet_directly(index);
            let (hot, cold) = (&self.hot[index], &mut self.cold[index]);
            let is_idle =
                cold.told == hot.tcb.rcv_nxt && !cold.wants_room && !hot.flags.is_waiting_to_send;
            if is_quiet
                && is_idle
                && let Some(busy) = self.direct.senders.give_back(&mut cold.sender)
            {
                cold.remembered = busy.sender.remember();
                return;
            }
        }
    }

    /// Whether nothing is in flight, nothing queued, and nothing waits for the service.
    fn is_quiet_directly(&self, index: usize) -> bool {
        let busy = self.direct.senders.get(self.cold[index].sender);
        busy.is_some_and(|busy| busy.sender.is_quiet() && busy.inbox.is_empty())
    }
}
