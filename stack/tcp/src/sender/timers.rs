//! The timers: retransmission (RFC 6298), tail loss probe and reordering (RFC 8985), closed windows (RFC 9293).

use super::chunks::Chunks;
use super::{Config, Fin, NEVER, PROBE_AFTER_MIN, Phase, Sender, Timeout};
use crate::guard::is_before;
use barewire_service::time::Instant;

impl Sender {
    /// When to call [`Sender::on_deadline`] at the latest.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        let at = self.rto_at.min(self.probe_at).min(self.reorder_at);
        (at != NEVER).then_some(at)
    }

    /// Does what is due. Then ask [`Sender::next_segment`].
    pub fn on_deadline(&mut self, chunks: &mut Chunks, config: &Config, now: Instant) -> Timeout {
        if self.kept.flight() == 0 {
            if self.fin == Fin::Sent {
                return self.on_fin_timeout(chunks, config, now);
            }
            return self.on_persist(chunks, config, now);
        }
        if self.reorder_at <= now {
            self.reorder_at = NEVER;
            self.find_losses(chunks, 0, now);
            self.change_phase(chunks, config, 0, 0, false, now);
            return Timeout::Reordering;
        }
        // A probe goes before a timeout, even where both are overdue because the machine has paused.
        if self.probe_at <= now {
            self.probe_at = NEVER;
            self.probe_is_due = true;
            self.rto_at = now + self.rtt.timeout(config);
            return Timeout::Probe;
        }
        if self.rto_at <= now {
            return self.on_retransmission_timeout(chunks, config, now);
        }
        Timeout::None
    }

    #[inline]
    pub(super) fn restart_timers(
        &mut self,
        chunks: &Chunks,
        config: &Config,
        bytes: u32,
        delivered: u32,
        now: Instant,
    ) {
        if self.kept.flight() == 0 {
            self.rto_at = NEVER;
            self.probe_at = NEVER;
            self.reorder_at = NEVER;
            self.probe_is_due = false;
            self.dup_acks = 0;
            self.arm_persist(chunks, config, now);
            self.arm_fin(config, now);
        } else if bytes > 0 || delivered > 0 {
            self.rto_at = now + self.rtt.timeout(config);
            self.probe_is_due = false;
            self.arm_probe(config, now);
        }
    }

    /// Sets the time of the next tail loss probe (RFC 8985, section 7.2).
    #[inline]
    pub(super) fn arm_probe(&mut self, config: &Config, now: Instant) {
        self.probe_at = NEVER;
        let is_unanswered = self
            .probe
            .is_some_and(|probe| is_before(self.kept.una, probe.end));
        if self.phase != Phase::Open || self.kept.sacked > 0 || is_unanswered {
            return;
        }
        let Some(srtt) = self.rtt.smoothed() else {
            return;
        };
        let is_single = self.kept.first_sent() == self.kept.last_sent();
        let mut after = (srtt + srtt).max(PROBE_AFTER_MIN);
        if is_single {
            after += config.ack_delay_max;
        }
        let at = now + after;
        if at < self.rto_at {
            self.probe_at = at;
        }
    }

    /// Nothing is in flight: sets the timer if the peer's window has to open first.
    #[inline]
    pub(super) fn arm_persist(&mut self, chunks: &Chunks, config: &Config, now: Instant) {
        if self.kept.flight() > 0 || self.fin == Fin::Sent {
            return;
        }
        let is_blocked = self
            .kept
            .first_queued(chunks)
            .is_some_and(|handle| self.window_allows(chunks.get(handle).len).is_none());
        if !is_blocked {
            if self.rto_at != NEVER {
                self.rtt.end_back_off();
            }
            self.rto_at = NEVER;
            self.window_probe_is_due = false;
        } else if self.rto_at == NEVER {
            self.rtt.end_back_off();
            self.rto_at = now + self.rtt.timeout(config);
        }
    }

    /// The window was closed, or too small, for a whole timeout (RFC 9293, section 3.8.6.1).
    fn on_persist(&mut self, chunks: &Chunks, config: &Config, now: Instant) -> Timeout {
        if self.rto_at > now {
            return Timeout::None;
        }
        self.rtt.back_off();
        self.rto_at = NEVER;
        if self.kept.first_queued(chunks).is_none() {
            return Timeout::None;
        }
        self.rto_at = now + self.rtt.timeout(config);
        if self.window == 0 {
            self.window_probe_is_due = true;
        } else {
            self.ignores_silly_window = true;
        }
        Timeout::Window
    }

    fn on_retransmission_timeout(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        now: Instant,
    ) -> Timeout {
        let Some(head) = self.kept.first_sent() else {
            return Timeout::None;
        };
        chunks.counters.timeouts.increment();
        let is_first = self.rtt.backoff() == 0;
        let is_new_loss = match self.phase {
            Phase::Open => true,
            Phase::Recovery => false,
            Phase::Loss => is_first,
        };
        if is_new_loss {
            self.cubic.on_loss(u32::from(self.mss));
        }
        if chunks.get(head).is_sacked {
            self.kept.forget_sacked(chunks);
        }
        self.dup_acks = 0;
        let window = self.rack.reordering_window(&self.rtt, true);
        let mut at = Some(head);
        while let Some(handle) = at {
            let chunk = chunks.get(handle);
            let is_overdue = self.rack.is_overdue(chunk.sent_at(), window, now);
            let is_outstanding = !chunk.is_sacked && (!chunk.is_lost || chunk.is_resent);
            if is_outstanding && (handle == head || !self.has_sack || is_overdue) {
                self.kept.mark_lost(chunks, handle);
            }
            at = self.kept.next_sent(chunks, handle);
        }
        self.phase = Phase::Loss;
        self.recover = self.kept.nxt;
        self.cubic.set_window(self.pipe() + u32::from(self.mss));
        self.rtt.back_off();
        self.rto_at = now + self.rtt.timeout(config);
        self.probe_at = NEVER;
        self.reorder_at = NEVER;
        self.probe_is_due = false;
        self.probe = None;
        Timeout::Retransmission {
            count: self.rtt.backoff(),
            len: chunks.get(head).len,
        }
    }
}
