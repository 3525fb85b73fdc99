//! Processes an ACK: bytes that arrived, a window, a round-trip time, the answer to a probe.

use super::chunks::{Chunk, Chunks, Handle};
use super::rtt::since;
use super::{Ack, Acked, Config, Delivery, Fin, NEVER, Phase, Sender, scoreboard};
use crate::guard::is_before;
use barewire_service::time::{Duration, Instant};

impl Sender {
    /// Takes a segment's acknowledgment. Then ask [`Sender::next_segment`].
    #[inline]
    pub fn on_ack(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        ack: &Ack<'_>,
        now: Instant,
    ) -> Acked {
        match self.single_in_flight(chunks, ack) {
            Some(chunk) => self.on_single_ack(chunks, config, ack, chunk, now),
            None => self.on_any_ack(chunks, config, ack, now),
        }
    }

    /// The chunk that is all there is, if `ack` acknowledges the whole of it, and nothing else is to be made of that: what
    /// nearly every request brings of the reply before it.
    #[inline]
    fn single_in_flight(&self, chunks: &Chunks, ack: &Ack<'_>) -> Option<Handle> {
        let is_usual = self.phase == Phase::Open
            && self.fin == Fin::None
            && self.probe.is_none()
            && self.kept.queued == 0
            && ack.sack.is_empty();
        let handle = self.kept.first_sent().filter(|_| is_usual)?;
        let chunk = chunks.get(handle);
        let flight = self.kept.flight();
        let is_single = u32::from(chunk.len) == flight
            && ack.ack.wrapping_sub(self.kept.una) == flight
            && chunk.is_untouched();
        is_single.then_some(handle)
    }

    /// [`Sender::on_any_ack`] for what is [single](Sender::single_in_flight).
    #[inline]
    fn on_single_ack(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        ack: &Ack<'_>,
        handle: Handle,
        now: Instant,
    ) -> Acked {
        self.take_window(ack);
        let bytes = self.kept.flight();
        let is_limited = self.take_is_limited(bytes);
        let (sent_at, min) = (chunks.get(handle).sent_at(), self.rtt.min());
        self.rack
            .on_delivered(sent_at, self.kept.una, ack.ack, false, min, now);
        self.kept.release_single(chunks, handle);
        self.rtt.on_sample(since(sent_at, now));
        if is_limited {
            self.grow(config, bytes, now);
        }
        self.dup_acks = 0;
        self.probe_is_due = false;
        self.window_probe_is_due = false;
        self.rto_at = NEVER;
        self.probe_at = NEVER;
        self.reorder_at = NEVER;
        Acked {
            bytes,
            is_of_unsent: false,
        }
    }

    /// Takes any acknowledgment.
    #[inline(never)]
    pub(super) fn on_any_ack(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        ack: &Ack<'_>,
        now: Instant,
    ) -> Acked {
        let flight = self.kept.flight();
        let bytes = ack.ack.wrapping_sub(self.kept.una);
        if bytes > flight {
            if self.fin == Fin::Sent && bytes == flight + 1 {
                return self.on_fin_ack(chunks, config, ack, now);
            }
            return self.on_useless_ack(chunks, ack);
        }
        let is_window_changed = self.take_window(ack);
        let has_dsack = self.has_sack && self.read_dsack(chunks, ack);
        let is_unchanged = bytes == 0 && !ack.has_payload && !is_window_changed;
        let is_repeated = is_unchanged && !is_before(ack.seq, self.window_seq);
        self.answer_probe(
            chunks,
            ack.ack,
            is_repeated && ack.sack.is_empty(),
            has_dsack,
        );
        if flight == 0 {
            self.arm_persist(chunks, config, now);
            return Acked::default();
        }
        let is_limited = self.take_is_limited(flight);
        let delivery = self.release(chunks, ack, has_dsack, now);
        if is_repeated {
            chunks.counters.dup_acks.increment();
        }
        let delivered = if self.has_sack {
            delivery.bytes
        } else {
            self.count_dup_acks(bytes, is_repeated)
        };
        self.take_rtt(&delivery, bytes, ack.rtt, now);
        self.find_losses(chunks, bytes, now);
        self.change_phase(chunks, config, bytes, delivered, is_limited, now);
        self.restart_timers(chunks, config, bytes, delivery.bytes, now);
        Acked {
            bytes,
            is_of_unsent: false,
        }
    }

    /// An ACK below or above what is in flight.
    #[cold]
    fn on_useless_ack(&mut self, chunks: &Chunks, ack: &Ack<'_>) -> Acked {
        let is_of_unsent = is_before(self.kept.nxt, ack.ack);
        if is_of_unsent {
            chunks.counters.acks_unsent.increment();
        } else {
            chunks.counters.old_acks.increment();
        }
        Acked {
            bytes: 0,
            is_of_unsent,
        }
    }

    /// Takes the peer's window, unless a newer segment has told it already (RFC 9293, section
    /// 3.10.7.4). Returns whether it changed.
    #[inline]
    fn take_window(&mut self, ack: &Ack<'_>) -> bool {
        let is_newer = is_before(self.window_seq, ack.seq)
            || (self.window_seq == ack.seq && !is_before(ack.ack, self.window_ack));
        if !is_newer {
            return false;
        }
        self.window_seq = ack.seq;
        self.window_ack = ack.ack;
        let old = std::mem::replace(&mut self.window, ack.window);
        self.window_max = self.window_max.max(ack.window);
        old != ack.window
    }

    /// Gives back what is acknowledged, and marks what is SACKed.
    #[inline]
    fn release(
        &mut self,
        chunks: &mut Chunks,
        ack: &Ack<'_>,
        has_dsack: bool,
        now: Instant,
    ) -> Delivery {
        let mut delivery = Delivery::default();
        let min = self.rtt.min();
        let sacked_before = self.kept.sacked;
        let (una, nxt) = (self.kept.una, self.nxt());
        let rack = &mut self.rack;
        let mut note = |chunk: &Chunk| {
            let sent_at = chunk.sent_at();
            delivery.is_ambiguous |= chunk.was_resent;
            if !chunk.was_resent {
                delivery.newest = delivery.newest.max(Some(sent_at));
            }
            rack.on_delivered(sent_at, chunk.seq, chunk.end(), chunk.was_resent, min, now);
        };
        self.kept.release(chunks, ack.ack, &mut note);
        let sacked_and_acked = sacked_before - self.kept.sacked;
        let mut bytes = ack.ack.wrapping_sub(una) - sacked_and_acked;
        let blocks = &ack.sack[usize::from(has_dsack)..];
        if self.has_sack && !blocks.is_empty() {
            bytes += scoreboard::mark_sacked(&mut self.kept, chunks, blocks, nxt, &mut note);
        }
        delivery.bytes = bytes;
        delivery
    }

    /// Whether the first SACK block says that something arrived twice (RFC 2883, section 4).
    fn read_dsack(&mut self, chunks: &Chunks, ack: &Ack<'_>) -> bool {
        let Some(first) = ack.sack.first().filter(|block| block.is_valid()) else {
            return false;
        };
        let is_below = !is_before(ack.ack, first.end);
        let is_inside = ack
            .sack
            .get(1)
            .is_some_and(|second| second.is_valid() && second.covers(first.start, first.end));
        // Data that old cannot have been in flight together with the current data.
        let is_recent = self.kept.una.wrapping_sub(first.start) as i32 <= self.window_max as i32;
        let is_dsack = (is_below || is_inside) && is_recent;
        if is_dsack {
            chunks.counters.dsack_recv.increment();
            self.rack.on_dsack(self.kept.una, self.kept.nxt);
        }
        is_dsack
    }

    /// Without SACK: counts duplicate ACKs (RFC 5681, section 3.2), and returns how many bytes left the
    /// network.
    fn count_dup_acks(&mut self, bytes: u32, is_duplicate: bool) -> u32 {
        let mss = u32::from(self.mss);
        let segments_max = (self.kept.flight() / mss).min(u32::from(u16::MAX)) as u16;
        if bytes == 0 {
            if !is_duplicate || self.phase == Phase::Loss {
                return 0;
            }
            // One segment at least is missing.
            let count = self.dup_acks.saturating_add(1).min(segments_max.max(3));
            let is_new = count > self.dup_acks;
            self.dup_acks = count;
            return if is_new { mss } else { 0 };
        }
        let before = self.dup_acks;
        if self.phase == Phase::Recovery {
            // Of what is acknowledged, all but the segment that was missing had been counted.
            let counted = (bytes / mss).saturating_sub(1).min(u32::from(before)) as u16;
            self.dup_acks = (before - counted).min(segments_max);
        } else {
            self.dup_acks = 0;
        }
        let counted = u32::from(before - self.dup_acks) * mss;
        bytes.saturating_sub(counted)
    }

    #[inline]
    fn take_rtt(
        &mut self,
        delivery: &Delivery,
        bytes: u32,
        echoed: Option<Duration>,
        now: Instant,
    ) {
        let measured = delivery
            .newest
            .filter(|_| !delivery.is_ambiguous)
            .map(|sent_at| since(sent_at, now));
        if let Some(sample) = measured.or(echoed.filter(|_| bytes > 0)) {
            self.rtt.on_sample(sample);
        } else if bytes > 0 {
            self.rtt.end_back_off();
        }
    }

    /// Whether the windows, rather than the service, limit what is in flight: only then does the
    /// congestion window grow (RFC 9438, section 4.2).
    #[inline]
    fn take_is_limited(&mut self, flight: u32) -> bool {
        let cwnd = self.cubic.window();
        let is_limited = std::mem::take(&mut self.is_cwnd_limited)
            || flight + u32::from(self.mss) > cwnd
            || (self.cubic.is_in_slow_start() && flight >= cwnd / 2);
        is_limited || self.phase == Phase::Loss
    }

    /// Evaluates a tail loss probe (RFC 8985, section 7.4). Only the acknowledgment of something later shows that it
    /// repaired a loss: until then a DSACK may still come.
    fn answer_probe(
        &mut self,
        chunks: &Chunks,
        ack: u32,
        is_plain_duplicate: bool,
        has_dsack: bool,
    ) {
        let Some(probe) = self.probe else { return };
        if is_before(ack, probe.end) {
            return;
        }
        let is_over = if !probe.was_resent || has_dsack {
            true
        } else if is_before(probe.end, ack) {
            // The probe was received and the original was not, or a DSACK would say so.
            if self.has_sack {
                chunks.counters.loss_probe_recoveries.increment();
                self.cubic.on_loss(u32::from(self.mss));
                self.cubic.on_recovered(u32::from(self.mss));
            }
            true
        } else {
            is_plain_duplicate
        };
        if is_over {
            self.probe = None;
        }
    }
}
