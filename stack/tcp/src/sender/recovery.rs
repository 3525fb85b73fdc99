//! What is lost, and how fast it is repaired: by time (RFC 8985), without SACK by duplicate ACKs (RFC 6582), at a
//! rate that falls with what arrives (RFC 6937).

use super::chunks::Chunks;
use super::rack::DUP_THRESHOLD;
use super::{Config, NEVER, Phase, Prr, Sender, initial_window};
use crate::guard::is_before;
use barewire_service::time::{Duration, Instant};

impl Sender {
    /// Marks what is lost; sets the reordering timer for what may be soon.
    pub(super) fn find_losses(&mut self, chunks: &mut Chunks, bytes: u32, now: Instant) {
        self.reorder_at = NEVER;
        if self.has_sack {
            if self.kept.sacked > 0 || self.kept.lost > 0 {
                self.find_losses_by_time(chunks, now);
            }
            return;
        }
        let Some(head) = self.kept.first_sent() else {
            return;
        };
        let is_third = self.phase == Phase::Open
            && self.dup_acks >= DUP_THRESHOLD
            && is_before(self.recover, self.kept.una);
        let is_partial =
            self.phase == Phase::Recovery && bytes > 0 && is_before(self.kept.una, self.recover);
        let chunk = chunks.get(head);
        if is_third || (is_partial && !chunk.is_lost) {
            self.kept.mark_lost(chunks, head);
        }
    }

    fn find_losses_by_time(&mut self, chunks: &mut Chunks, now: Instant) {
        let is_certain = self.phase != Phase::Open || self.kept.sacked_segs >= DUP_THRESHOLD;
        let window = self.rack.reordering_window(&self.rtt, is_certain);
        let mut at = self.kept.first_sent();
        let mut wait: Option<Duration> = None;
        while let Some(handle) = at {
            let chunk = chunks.get(handle);
            if !chunk.is_sacked && (!chunk.is_lost || chunk.is_resent) {
                match self.rack.lost_in(chunk.sent_at(), chunk.end(), window, now) {
                    Some(Duration::ZERO) => self.kept.mark_lost(chunks, handle),
                    Some(left) => wait = Some(wait.map_or(left, |wait| wait.max(left))),
                    None => {}
                }
            }
            at = self.kept.next_sent(chunks, handle);
        }
        if let Some(wait) = wait {
            self.reorder_at = now + wait;
        }
    }

    /// Enters and leaves recovery, and sets the congestion window.
    #[inline]
    pub(super) fn change_phase(
        &mut self,
        chunks: &Chunks,
        config: &Config,
        bytes: u32,
        delivered: u32,
        is_limited: bool,
        now: Instant,
    ) {
        let mss = u32::from(self.mss);
        if self.phase != Phase::Open && !is_before(self.kept.una, self.recover) {
            if self.phase == Phase::Recovery {
                self.cubic.on_recovered(u32::from(self.mss));
                self.rack.on_recovered();
            }
            self.phase = Phase::Open;
            self.dup_acks = 0;
            if self.kept.lost == 0 {
                return;
            }
        } else if self.phase == Phase::Recovery {
            // A partial acknowledgment sends the next one that is missing at once (RFC 6582, section 3.2).
            let is_partial = !self.has_sack && bytes > 0;
            self.reduce_rate(delivered, if is_partial { mss } else { 0 });
            return;
        }
        if self.phase == Phase::Open && self.kept.lost > 0 {
            chunks.counters.recoveries.increment();
            self.cubic.on_loss(mss);
            self.phase = Phase::Recovery;
            self.recover = self.kept.nxt;
            self.probe_at = NEVER;
            self.prr = Prr {
                delivered: 0,
                sent: 0,
                flight: self.kept.flight(),
            };
            // The first retransmission leaves at once.
            self.reduce_rate(delivered, mss);
        } else if bytes > 0 && is_limited {
            self.grow(config, bytes, now);
        }
    }

    /// Grows the congestion window by `bytes` that were acknowledged, as it was what kept more from being sent.
    #[inline(never)]
    pub(super) fn grow(&mut self, config: &Config, bytes: u32, now: Instant) {
        let srtt = self.rtt.smoothed().unwrap_or(config.rto_initial);
        // More would only fill queues.
        let cwnd_max = config.queue_bytes_max.max(initial_window(self.mss));
        (self.cubic).on_ack(bytes, u32::from(self.mss), srtt, cwnd_max, now);
    }

    /// Proportional rate reduction: in recovery, the window is what is in the network and what may be
    /// added for the `delivered` bytes, at least `least` (RFC 6937, section 3.1).
    fn reduce_rate(&mut self, delivered: u32, least: u32) {
        let mss = u32::from(self.mss);
        let ssthresh = self.cubic.threshold().unwrap_or(mss);
        let prr = &mut self.prr;
        prr.delivered = prr.delivered.saturating_add(delivered);
        let arrived = u32::from(self.dup_acks) * mss;
        let pipe = self.kept.pipe(arrived);
        let allowed = if pipe > ssthresh {
            let share = u64::from(prr.delivered) * u64::from(ssthresh);
            let share = share.div_ceil(u64::from(prr.flight.max(1)));
            u32::try_from(share)
                .unwrap_or(u32::MAX)
                .saturating_sub(prr.sent)
        } else {
            let behind = prr.delivered.saturating_sub(prr.sent);
            (ssthresh - pipe).min(behind.max(delivered).saturating_add(mss))
        };
        self.cubic.set_window(pipe + allowed.max(least));
    }
}
