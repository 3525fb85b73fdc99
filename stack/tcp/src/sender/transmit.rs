//! What is sent, and when: repairs first, then what is queued as far as both windows allow.

use super::chunks::{Chunks, Handle, LARGE_BYTES};
use super::rtt::since;
use super::{
    Config, Exhausted, NEVER, Phase, Probe, SHARE_OF_FREE_BYTES, Segment, Sender, initial_window,
};
use barewire_service::time::Instant;

impl Sender {
    /// How many bytes may be sent at once in a segment of its own, at most the MSS; 0 while something is
    /// queued.
    #[inline]
    pub fn room_now(&self) -> usize {
        if self.kept.queued > 0 {
            return 0;
        }
        let pipe = self.pipe();
        let congestion = self.cubic.window().saturating_sub(pipe);
        let room = self.window_left().min(congestion).min(u32::from(self.mss));
        room as usize
    }

    /// Keeps `payload`, which leaves right now with sequence number [`Sender::nxt`], and returns its sum
    /// ([`copy_and_sum`](super::checksum::copy_and_sum)).
    ///
    /// # Errors
    ///
    /// If no chunk is free; then nothing has changed and the segment must not leave. Ask
    /// [`Chunks::has_room`] before what cannot be undone.
    ///
    /// # Panics
    ///
    /// If there is more of it than [`Sender::room_now`] allows, in debug builds.
    #[inline]
    pub fn push_sent(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        payload: &[u8],
        now: Instant,
    ) -> Result<u16, Exhausted> {
        debug_assert!(!payload.is_empty() && payload.len() <= self.room_now());
        if self.kept.flight() == 0 {
            self.restart_if_idle(chunks, config, now);
        }
        self.push_at_once(chunks, config, payload, now)
    }

    #[inline]
    fn push_at_once(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        payload: &[u8],
        now: Instant,
    ) -> Result<u16, Exhausted> {
        let was_idle = self.kept.flight() == 0;
        let sum = self.kept.push_sent(chunks, payload, now).ok_or(Exhausted)?;
        self.note_new(config, payload.len() as u32, was_idle, now);
        Ok(sum)
    }

    /// Goes on where another sender was: `sent` has left from SND.UNA on and is not acknowledged, `queued` has not. All
    /// that is known of it is that it was there; what was lost of it is found out anew.
    ///
    /// # Errors
    ///
    /// If there are not enough chunks.
    ///
    /// # Panics
    ///
    /// In debug builds, if something is kept already.
    pub fn go_on(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        sent: &[u8],
        queued: &[u8],
        now: Instant,
    ) -> Result<(), Exhausted> {
        debug_assert!(self.is_quiet(), "it has something of its own");
        let mss = usize::from(self.mss);
        for payload in sent.chunks(mss) {
            self.push_at_once(chunks, config, payload, now)?;
        }
        for payload in queued.chunks(mss) {
            self.kept.push(chunks, payload).ok_or(Exhausted)?;
        }
        Ok(())
    }

    /// Bytes that [`Sender::queue`] would take now, if there is a free chunk for each.
    ///
    /// A connection may have a quarter of what is free, and three segments in any case: one that is alone
    /// gets much, many share (dynamic thresholds, Choudhury and Hahne 1998). Of that only
    /// [`Config::unsent_bytes_max`] may wait for the windows: the service is asked again as they open.
    #[inline]
    pub fn room_to_queue(&self, chunks: &Chunks, config: &Config) -> usize {
        let limit = self.share(chunks).min(config.queue_bytes_max as usize);
        let unsent = self
            .unsent_max(config)
            .saturating_sub(self.kept.queued as usize);
        limit.saturating_sub(self.kept()).min(unsent)
    }

    /// The same, as far as there are free chunks.
    #[inline(never)]
    pub fn room_in_chunks(&self, chunks: &Chunks, config: &Config) -> usize {
        let free = chunks.free_bytes() / LARGE_BYTES * usize::from(self.mss);
        self.room_to_queue(chunks, config).min(free)
    }

    /// Whether [`Sender::room_to_queue`] is certainly no less than `len`, which is at most [`Sender::room_now`]: nothing
    /// is kept, and any connection may have a segment.
    #[inline]
    pub fn may_keep_at_once(&self, len: usize, config: &Config) -> bool {
        self.kept() == 0 && len <= config.unsent_bytes_max as usize
    }

    /// Bytes that may wait for the windows: whole segments, if it is some, so that none is cut short because the queue
    /// ended there.
    #[inline]
    fn unsent_max(&self, config: &Config) -> usize {
        let (max, mss) = (config.unsent_bytes_max as usize, usize::from(self.mss));
        match max / mss {
            0 | 1 => max,
            count => count * mss,
        }
    }

    /// Bytes of the chunks of the core that this connection may have.
    #[inline]
    fn share(&self, chunks: &Chunks) -> usize {
        let share = chunks.free_bytes() / SHARE_OF_FREE_BYTES;
        share.max(3 * usize::from(self.mss))
    }

    /// Counts which limit keeps `len` more bytes from being queued, unless it is the windows.
    pub(crate) fn count_limit(&self, chunks: &Chunks, config: &Config, len: usize) {
        let wanted = self.kept() + len;
        if wanted > config.queue_bytes_max as usize {
            chunks.counters.queues_full.increment();
        } else if wanted > self.share(chunks) {
            chunks.counters.queues_throttled.increment();
        }
    }

    /// Bytes sent and not acknowledged, and bytes queued.
    #[inline]
    pub fn kept(&self) -> usize {
        (self.kept.flight() + self.kept.queued) as usize
    }

    /// Queues as many of `bytes` as there is room for, and returns how many.
    #[inline(never)]
    pub fn queue(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        bytes: &[u8],
        now: Instant,
    ) -> usize {
        let room = self.room_to_queue(chunks, config).min(bytes.len());
        self.queue_granted(chunks, config, &bytes[..room], now)
    }

    /// The same of bytes for which there was room when they were written: of what was written with them some may have left
    /// since, and what is left of the share of this connection would be less.
    pub fn queue_granted(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        bytes: &[u8],
        now: Instant,
    ) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        let mut rest = bytes;
        if let Some(last) = self.kept.last_queued() {
            let count = chunks.append(last, rest, usize::from(self.mss));
            self.kept.note_appended(count);
            rest = &rest[count..];
        }
        while !rest.is_empty() {
            let len = rest.len().min(usize::from(self.mss));
            if self.kept.push(chunks, &rest[..len]).is_none() {
                break;
            }
            rest = &rest[len..];
        }
        self.arm_persist(chunks, config, now);
        bytes.len() - rest.len()
    }

    /// What has to be sent now, or `None`. Repairs come first, then what is queued as far as both windows
    /// allow.
    ///
    /// A segment counts as sent once it is returned: have a transmit slot before the call. `is_last` and
    /// the chunk hold until the next call.
    pub fn next_segment(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        now: Instant,
    ) -> Option<Segment> {
        if std::mem::take(&mut self.window_probe_is_due) {
            chunks.counters.window_probes.increment();
            return Some(self.window_probe());
        }
        if std::mem::take(&mut self.probe_is_due) {
            return self.send_probe(chunks, config, now);
        }
        if let Some(handle) = self.kept.first_lost(chunks) {
            let handle = self.fitting(chunks, handle)?;
            let len = chunks.get(handle).len;
            if !self.congestion_allows(len) {
                self.is_cwnd_limited = true;
                return None;
            }
            return Some(self.resend(chunks, config, handle, now));
        }
        let Some(handle) = self.kept.first_queued(chunks) else {
            return self.fin_alone(config, now);
        };
        if self.kept.flight() == 0 {
            self.restart_if_idle(chunks, config, now);
        }
        let len = self.window_allows(chunks.get(handle).len)?;
        if !self.congestion_allows(len) {
            self.is_cwnd_limited = true;
            return None;
        }
        self.send_new(chunks, config, handle, len, now)
    }

    /// Bytes that the peer's window has left.
    #[inline]
    fn window_left(&self) -> u32 {
        self.window.saturating_sub(self.kept.flight())
    }

    /// How many of `len` queued bytes the peer's window allows to send, with the avoidance of silly
    /// windows (RFC 9293, section 3.8.6.2.1): a whole segment, all there is, or half of the largest window.
    #[inline]
    pub(super) fn window_allows(&self, len: u16) -> Option<u16> {
        let len = len.min(self.mss);
        let left = self.window_left();
        if left >= u32::from(len) {
            return Some(len);
        }
        let is_worth_it = left >= self.window_max.div_ceil(2) || self.ignores_silly_window;
        (left > 0 && is_worth_it).then_some(left as u16)
    }

    #[inline]
    fn congestion_allows(&self, len: u16) -> bool {
        let pipe = self.pipe();
        pipe == 0 || pipe + u32::from(len) <= self.cubic.window()
    }

    fn send_new(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        handle: Handle,
        len: u16,
        now: Instant,
    ) -> Option<Segment> {
        if len < chunks.get(handle).len && !self.kept.split(chunks, handle, usize::from(len)) {
            // Try again later, even if nothing comes in until then.
            if self.kept.flight() == 0 && self.rto_at == NEVER {
                self.rto_at = now + self.rtt.timeout(config);
            }
            return None;
        }
        let seq = self.kept.nxt;
        self.send_queued(chunks, config, handle, now);
        Some(Segment {
            seq,
            chunk: Some(handle),
            len,
            is_last: self.kept.queued == 0,
            is_fin: self.sends_fin(),
            is_resent: false,
        })
    }

    #[inline]
    fn send_queued(&mut self, chunks: &mut Chunks, config: &Config, handle: Handle, now: Instant) {
        let was_idle = self.kept.flight() == 0;
        self.kept.mark_sent(chunks, handle, now);
        self.note_new(config, u32::from(chunks.get(handle).len), was_idle, now);
    }

    /// So many bytes are being sent for the first time.
    #[inline]
    fn note_new(&mut self, config: &Config, len: u32, was_idle: bool, now: Instant) {
        self.ignores_silly_window = false;
        self.note_sent(len, now);
        if was_idle {
            self.rto_at = now + self.rtt.timeout(config);
        }
        self.arm_probe(config, now);
    }

    fn resend(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        handle: Handle,
        now: Instant,
    ) -> Segment {
        self.kept.mark_resent(chunks, handle, now);
        chunks.counters.resent_segs.increment();
        let chunk = chunks.get(handle);
        let (seq, len, end) = (chunk.seq, chunk.len, chunk.end());
        self.note_sent(u32::from(len), now);
        if seq == self.kept.una {
            self.rto_at = now + self.rtt.timeout(config);
        }
        Segment {
            seq,
            chunk: Some(handle),
            len,
            is_last: self.kept.queued == 0 && end == self.kept.nxt,
            is_fin: self.has_fin_at(end),
            is_resent: true,
        }
    }

    /// The chunk, made no longer than the MSS; `None` if that takes a chunk and none is free. Then the
    /// retransmission timer brings the next attempt.
    fn fitting(&mut self, chunks: &mut Chunks, handle: Handle) -> Option<Handle> {
        let mss = self.mss;
        (chunks.get(handle).len <= mss || self.kept.split(chunks, handle, usize::from(mss)))
            .then_some(handle)
    }

    #[inline]
    fn note_sent(&mut self, len: u32, now: Instant) {
        self.last_sent_at = now;
        if self.phase == Phase::Recovery {
            self.prr.sent = self.prr.sent.saturating_add(len);
        }
    }

    /// Sends a tail loss probe: something new if there is and the window allows, else what was sent last.
    /// Without SACK, what was sent first: it may be the one that is missing.
    fn send_probe(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        now: Instant,
    ) -> Option<Segment> {
        let new = self.kept.first_queued(chunks).and_then(|handle| {
            let len = self.window_allows(chunks.get(handle).len)?;
            self.send_new(chunks, config, handle, len, now)
        });
        let segment = match new {
            Some(segment) => segment,
            None => {
                let handle = if self.has_sack {
                    self.kept.last_sent()?
                } else {
                    self.kept.first_sent()?
                };
                let handle = self.fitting(chunks, handle)?;
                self.resend(chunks, config, handle, now)
            }
        };
        chunks.counters.loss_probes.increment();
        self.probe = Some(Probe {
            end: self.kept.nxt,
            was_resent: segment.is_resent,
        });
        self.probe_at = NEVER;
        self.rto_at = now + self.rtt.timeout(config);
        Some(segment)
    }

    /// A segment without payload that the peer has to answer, because it lies before its window.
    fn window_probe(&self) -> Segment {
        Segment {
            seq: self.kept.una.wrapping_sub(1),
            chunk: None,
            len: 0,
            is_last: false,
            is_fin: false,
            is_resent: false,
        }
    }

    /// Takes the congestion window back if the connection was idle for longer than a timeout (RFC 5681,
    /// section 4.1).
    #[inline]
    fn restart_if_idle(&mut self, chunks: &Chunks, config: &Config, now: Instant) {
        let idle = since(self.last_sent_at, now);
        if idle <= config.rto_min || self.cubic.window() <= initial_window(self.mss) {
            return;
        }
        let timeout = self.rtt.timeout(config);
        if idle > timeout {
            let restart = initial_window(self.mss);
            self.cubic.on_idle(idle, timeout, restart);
            self.last_sent_at = now;
            chunks.counters.idle_restarts.increment();
        }
    }
}
