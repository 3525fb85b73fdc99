//! The sending half of a connection: what it keeps, when it sends, how it repairs.
//!
//! A [`Sender`] exists while a connection has something in flight or queued. It does no I/O and reads
//! no clock: its owner says what was acknowledged and what time it is, and asks what to send.
//!
//! ```text
//!   a reply, written into a transmit frame ──▶ push_sent ──┐
//!   bytes that cannot leave yet ─────────────▶ queue ──────┤        ┌──▶ next_segment ──▶ transmit slots
//!                                                          ▼        │
//!   ACK, window, SACK blocks ────────────────▶ on_ack ──▶ Sender ───┼──▶ deadline ──▶ a timer
//!   the timer ───────────────────────────────▶ on_deadline ▲        └──▶ is_quiet ──▶ remember
//!                                                          │
//!                                         Kept: [una, nxt) and the queue, in Chunks
//! ```
//!
//! | concept | where | source |
//! |---|---|---|
//! | memory for what is not acknowledged | [`chunks`], `kept` | |
//! | round-trip time, timeout | [`rtt`] | RFC 6298 |
//! | what is lost, tail loss probe | [`rack`], here | RFC 8985 |
//! | loss without SACK | here | RFC 6582, RFC 3042 |
//! | options | [`sack`] | RFC 2018, RFC 2883, RFC 7323 |
//! | congestion window | [`cubic`] | RFC 9438, RFC 5681, RFC 6928 |
//! | how much to send in recovery | here | RFC 6937 |
//! | silly windows, closed windows | here | RFC 9293, 3.8.6 |
//!
//! Nothing is allocated. What one ACK costs is bounded by the chunks of its connection, at most
//! [`Config::queue_bytes_max`]; an ACK without SACK blocks that finds nothing lost walks only over what it
//! acknowledges.

pub mod checksum;
pub mod chunks;
pub mod counters;
pub mod cubic;
mod kept;
pub mod rack;
pub mod rtt;
pub mod sack;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use thiserror::Error;

use self::chunks::{Chunk, Chunks, Handle, LARGE_BYTES};
use self::cubic::Cubic;
use self::kept::Kept;
use self::rack::{DUP_THRESHOLD, Rack};
use self::rtt::{Rtt, since};
use self::sack::Block;
use crate::guard::is_before;
use barewire_service::time::{Duration, Instant};

/// What all connections of a shard have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The least retransmission timeout. RFC 6298 wants one second; Linux takes 200 ms.
    pub rto_min: Duration,
    /// The greatest one.
    pub rto_max: Duration,
    /// The timeout before a round-trip time is known (RFC 6298, section 2.1).
    pub rto_initial: Duration,
    /// How long a peer is expected to delay the ACK of a single segment (RFC 8985, section 7.2).
    pub ack_delay_max: Duration,
    /// Bytes that one connection may keep, sent and queued together.
    pub queue_bytes_max: u32,
    /// The slowest that a peer may take what is sent, in microseconds per byte; see [`Sender::is_starved`].
    pub drain_us_per_byte: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(4),
            rto_initial: Duration::from_secs(1),
            ack_delay_max: Duration::from_millis(40),
            queue_bytes_max: 1 << 20,
            // 64 bytes per second.
            drain_us_per_byte: 15_625,
        }
    }
}

/// The state that a [`Sender`] begins with.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// SND.NXT, and SND.UNA: nothing is in flight.
    pub nxt: u32,
    /// SND.WND, scaled.
    pub window: u32,
    /// SND.WL1, the sequence number of the last segment that changed the window.
    pub window_seq: u32,
    /// The largest payload of a segment, options taken off.
    pub mss: u16,
    /// SACK was agreed on.
    pub has_sack: bool,
    /// What an earlier [`Sender`] of this connection has learnt.
    pub remembered: Remembered,
}

/// What outlives a [`Sender`], 16 bytes; all zero for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    /// SRTT in microseconds, 0 if unknown.
    pub srtt_us: u32,
    /// RTTVAR in microseconds.
    pub rttvar_us: u32,
    /// Congestion window in bytes, 0 for the initial one.
    pub cwnd: u32,
    /// Slow start threshold in bytes, 0 if there is none.
    pub ssthresh: u32,
}

/// What a segment says to the sender.
#[derive(Debug, Clone, Copy)]
pub struct Ack<'a> {
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// SEG.WND, scaled.
    pub window: u32,
    /// It carries payload, or a FIN: then it is no duplicate ACK.
    pub has_payload: bool,
    /// Its SACK blocks.
    pub sack: &'a [Block],
    /// The round-trip time that its timestamp shows, if it echoes one.
    pub rtt: Option<Duration>,
}

/// What an ACK did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acked {
    /// Bytes that it acknowledged.
    pub bytes: u32,
    /// It acknowledges what was never sent: answer with an ACK, and take nothing else of the segment (RFC
    /// 9293, section 3.10.7.4).
    pub is_of_unsent: bool,
}

/// A segment that has to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its sequence number.
    pub seq: u32,
    /// Where its payload is; `None` if it has none, and is only there to be answered.
    pub chunk: Option<Handle>,
    /// Bytes of payload.
    pub len: u16,
    /// Nothing is queued behind it: PSH.
    pub is_last: bool,
    /// It was sent before.
    pub is_resent: bool,
}

/// The payload of a segment that a [`Sender`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptSegment<'c> {
    /// It was sent, and is not acknowledged.
    Sent(&'c [u8]),
    /// It was not sent yet.
    Queued(&'c [u8]),
}

/// Which deadline was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// None: the timer was early.
    None,
    /// What might have been reordered is lost.
    Reordering,
    /// A tail loss probe is due.
    Probe,
    /// The retransmission timeout.
    Retransmission {
        /// How many there have been since something was acknowledged.
        count: u8,
        /// Bytes of payload of the segment that is not answered. If twice in a row a large one gets
        /// no answer, the path may drop what is large (RFC 4821, section 7.2).
        len: u16,
    },
    /// A closed window is to be probed.
    Window,
}

/// No chunk was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("all chunks of this core are in use")]
pub struct Exhausted;

/// The sending half of one connection.
#[derive(Debug)]
pub struct Sender {
    kept: Kept,
    rtt: Rtt,
    rack: Rack,
    cubic: Cubic,
    /// SND.WND.
    window: u32,
    /// The largest window the peer ever told.
    window_max: u32,
    /// SND.WL1 and SND.WL2.
    window_seq: u32,
    window_ack: u32,
    mss: u16,
    phase: Phase,
    /// SND.NXT when the last loss was noticed: what is acknowledged beyond it was sent after that.
    recover: u32,
    prr: Prr,
    /// Duplicate ACKs in a row, without SACK.
    dup_acks: u16,
    probe: Option<Probe>,
    probe_is_due: bool,
    window_probe_is_due: bool,
    /// The window is small for too long: send into it all the same.
    ignores_silly_window: bool,
    /// The congestion window kept something from being sent.
    is_cwnd_limited: bool,
    has_sack: bool,
    /// When the retransmission timer expires; the persist timer, when nothing is in flight.
    rto_at: Instant,
    probe_at: Instant,
    reorder_at: Instant,
    last_sent_at: Instant,
    /// See [`Sender::is_starved`].
    drained_until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery: a loss was noticed by ACKs.
    Recovery,
    /// A retransmission timeout passed, and not all that was sent before is acknowledged.
    Loss,
}

/// Proportional rate reduction (RFC 6937).
#[derive(Debug, Default)]
struct Prr {
    /// Bytes delivered since recovery began.
    delivered: u32,
    /// Bytes sent since.
    sent: u32,
    /// Bytes in flight when it began.
    flight: u32,
}

/// A tail loss probe that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// SND.NXT when it was sent.
    end: u32,
    /// It carried what was sent before.
    was_resent: bool,
}

/// What one ACK has shown to be delivered.
#[derive(Default)]
struct Delivery {
    /// Bytes, without those that were SACKed before.
    bytes: u32,
    /// When the newest segment was sent that was sent only once.
    newest: Option<Instant>,
    /// Something was sent more than once: no round-trip time can be told.
    is_ambiguous: bool,
}

/// A point in time that does not come.
const NEVER: Instant = Instant::from_micros(i64::MAX);
/// The initial window (RFC 6928).
const INITIAL_WINDOW_SEGMENTS: u32 = 10;
/// The least time to a tail loss probe: what a peer's scheduling takes.
const PROBE_AFTER_MIN: Duration = Duration::from_millis(2);
/// Of the free chunks, one connection may take this part.
const SHARE_OF_FREE_BYTES: usize = 4;

impl Sender {
    /// A sender with nothing in flight.
    pub fn new(start: &Start, now: Instant) -> Sender {
        let remembered = &start.remembered;
        let mss = usable_mss(start.mss);
        let cwnd = match remembered.cwnd {
            0 => initial_window(mss),
            cwnd => cwnd,
        };
        let ssthresh = (remembered.ssthresh != 0).then_some(remembered.ssthresh);
        Sender {
            kept: Kept::new(start.nxt),
            rtt: Rtt::new(remembered.srtt_us, remembered.rttvar_us),
            rack: Rack::new(start.nxt),
            cubic: Cubic::new(cwnd.max(u32::from(mss)), ssthresh),
            window: start.window,
            window_max: start.window,
            window_seq: start.window_seq,
            window_ack: start.nxt,
            mss,
            phase: Phase::Open,
            recover: start.nxt.wrapping_sub(1),
            prr: Prr::default(),
            dup_acks: 0,
            probe: None,
            probe_is_due: false,
            window_probe_is_due: false,
            ignores_silly_window: false,
            is_cwnd_limited: false,
            has_sack: start.has_sack,
            rto_at: NEVER,
            probe_at: NEVER,
            reorder_at: NEVER,
            last_sent_at: now,
            drained_until: now,
        }
    }

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
    /// ([`checksum::copy_and_sum`]).
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
        self.note_busy(now);
        if self.kept.flight() == 0 {
            self.restart_if_idle(chunks, config, now);
        }
        let sum = self.kept.push(chunks, payload).ok_or(Exhausted)?;
        if let Some(handle) = self.kept.first_queued(chunks) {
            self.send_queued(chunks, config, handle, now);
        }
        Ok(sum)
    }

    /// Bytes that [`Sender::queue`] would take now, if there is a free chunk for each.
    ///
    /// A connection may have a quarter of what is free, and two segments in any case: one that is alone
    /// gets much, many share (dynamic thresholds, Choudhury and Hahne 1998).
    #[inline]
    pub fn room_to_queue(&self, chunks: &Chunks, config: &Config) -> usize {
        let share = chunks.free_bytes() / SHARE_OF_FREE_BYTES;
        let limit = share.max(2 * usize::from(self.mss));
        let limit = limit.min(config.queue_bytes_max as usize);
        limit.saturating_sub((self.kept.flight() + self.kept.queued) as usize)
    }

    /// Queues as many of `bytes` as there is room for, and returns how many.
    pub fn queue(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        bytes: &[u8],
        now: Instant,
    ) -> usize {
        let room = self.room_to_queue(chunks, config).min(bytes.len());
        if room == 0 {
            return 0;
        }
        self.note_busy(now);
        let mut rest = &bytes[..room];
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
        room - rest.len()
    }

    /// Takes a segment's acknowledgment. Then ask [`Sender::next_segment`].
    #[inline]
    pub fn on_ack(
        &mut self,
        chunks: &mut Chunks,
        config: &Config,
        ack: &Ack<'_>,
        now: Instant,
    ) -> Acked {
        let flight = self.kept.flight();
        let bytes = ack.ack.wrapping_sub(self.kept.una);
        if bytes > flight {
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
        if bytes > 0 {
            self.note_drained(config, bytes, now);
        }
        Acked {
            bytes,
            is_of_unsent: false,
        }
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
        let handle = self.kept.first_queued(chunks)?;
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

    /// When to call [`Sender::on_deadline`] at the latest.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        let at = self.rto_at.min(self.probe_at).min(self.reorder_at);
        (at != NEVER).then_some(at)
    }

    /// Does what is due. Then ask [`Sender::next_segment`].
    pub fn on_deadline(&mut self, chunks: &mut Chunks, config: &Config, now: Instant) -> Timeout {
        if self.kept.flight() == 0 {
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

    /// Follows a change of the path MTU: from now on no segment has more than `mss` bytes. What is
    /// in flight and larger is taken for lost, which says nothing about congestion (RFC 1191, section 6.3).
    pub fn set_mss(&mut self, chunks: &mut Chunks, mss: u16) {
        let mss = usable_mss(mss);
        let is_smaller = mss < self.mss;
        self.mss = mss;
        self.cubic
            .set_window(self.cubic.window().max(u32::from(mss)));
        if !is_smaller {
            return;
        }
        let mut at = self.kept.first_sent();
        while let Some(handle) = at {
            let chunk = chunks.get(handle);
            if chunk.len > mss && !chunk.is_sacked {
                self.kept.mark_lost(chunks, handle);
            }
            at = self.kept.next_sent(chunks, handle);
        }
        if self.kept.lost > 0 && self.phase == Phase::Open {
            // Repair without a reduction: the window stays, slow start continues.
            self.phase = Phase::Loss;
            self.recover = self.kept.nxt;
        }
    }

    /// Nothing is in flight and nothing queued: the sender can go, and its chunks have gone.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.kept.flight() == 0 && self.kept.queued == 0
    }

    /// What a later sender of this connection should know.
    #[inline]
    pub fn remember(&self) -> Remembered {
        let (srtt_us, rttvar_us) = self.rtt.parts_us();
        Remembered {
            srtt_us,
            rttvar_us,
            cwnd: self.cubic.window(),
            ssthresh: self.cubic.threshold().unwrap_or(0),
        }
    }

    /// Gives all chunks back; the connection is at its end.
    pub fn discard(&mut self, chunks: &mut Chunks) {
        self.kept.discard(chunks);
        self.rto_at = NEVER;
        self.probe_at = NEVER;
        self.reorder_at = NEVER;
    }

    /// Whether the peer has been slower than [`Config::drain_us_per_byte`] for so long that it is
    /// `patience` behind.
    ///
    /// Each byte that is acknowledged buys its share of a second, and no credit is kept: neither one ACK
    /// each 29 s nor a fast beginning keeps a connection that takes nothing.
    #[inline]
    pub fn is_starved(&self, patience: Duration, now: Instant) -> bool {
        !self.is_quiet() && since(self.drained_until, now) > patience
    }

    /// When [`Sender::is_starved`] will be true unless something is acknowledged.
    #[inline]
    pub fn starves_at(&self, patience: Duration) -> Instant {
        if self.is_quiet() {
            NEVER
        } else {
            self.drained_until + patience
        }
    }

    /// Asks for the memory that the next acknowledgment will touch, and a reply to what comes with it.
    #[inline]
    pub(crate) fn prefetch(&self, chunks: &Chunks) {
        if let Some(handle) = self.kept.first() {
            chunks.prefetch(handle);
        }
    }

    /// Whether [`Sender::next_segment`] may have a repair or a probe to send.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.kept.lost > 0 || self.probe_is_due || self.window_probe_is_due
    }

    /// All that is kept, in the order of the stream.
    pub fn kept_segments<'c>(
        &self,
        chunks: &'c Chunks,
    ) -> impl Iterator<Item = KeptSegment<'c>> + use<'c> {
        let mut queued = self.kept.first_queued(chunks);
        let mut at = self.kept.first();
        std::iter::from_fn(move || {
            let handle = at?;
            let next = chunks.get(handle).next;
            at = next.is_some().then_some(next);
            let payload = chunks.payload(handle);
            if queued == Some(handle) {
                queued = at;
                return Some(KeptSegment::Queued(payload));
            }
            Some(KeptSegment::Sent(payload))
        })
    }

    /// SND.UNA.
    #[inline]
    pub fn una(&self) -> u32 {
        self.kept.una
    }

    /// SND.NXT.
    #[inline]
    pub fn nxt(&self) -> u32 {
        self.kept.nxt
    }

    /// SND.WND.
    #[inline]
    pub fn window(&self) -> u32 {
        self.window
    }

    /// SND.WL1.
    #[inline]
    pub fn window_seq(&self) -> u32 {
        self.window_seq
    }

    /// Bytes that were not sent yet.
    #[inline]
    pub fn queued(&self) -> u32 {
        self.kept.queued
    }

    /// The largest payload of a segment.
    #[inline]
    pub fn mss(&self) -> u16 {
        self.mss
    }

    /// The congestion window in bytes.
    #[inline]
    pub fn congestion_window(&self) -> u32 {
        self.cubic.window()
    }

    /// The round-trip time and its timeout.
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Whether a loss is being repaired.
    #[inline]
    pub fn is_recovering(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Whether [una, nxt) and the queue are exactly the chunks, and all sums agree with them. For tests:
    /// it walks over everything.
    pub fn is_consistent(&self, chunks: &Chunks) -> bool {
        self.kept.is_consistent(chunks)
    }
}

/// Sending.
impl Sender {
    /// Bytes that the peer's window has left.
    #[inline]
    fn window_left(&self) -> u32 {
        self.window.saturating_sub(self.kept.flight())
    }

    /// How many of `len` queued bytes the peer's window allows to send, with the avoidance of silly
    /// windows (RFC 9293, section 3.8.6.2.1): a whole segment, all there is, or half of the largest window.
    #[inline]
    fn window_allows(&self, len: u16) -> Option<u16> {
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

    /// Bytes in the network. Without SACK each duplicate ACK stands for a segment that has left it.
    #[inline]
    fn pipe(&self) -> u32 {
        let arrived = u32::from(self.dup_acks) * u32::from(self.mss);
        self.kept.pipe(arrived)
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
            is_resent: false,
        })
    }

    #[inline]
    fn send_queued(&mut self, chunks: &mut Chunks, config: &Config, handle: Handle, now: Instant) {
        let was_idle = self.kept.flight() == 0;
        self.kept.mark_sent(chunks, handle, now);
        self.ignores_silly_window = false;
        self.note_sent(u32::from(chunks.get(handle).len), now);
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
        let (seq, len) = (chunk.seq, chunk.len);
        self.note_sent(u32::from(len), now);
        if seq == self.kept.una {
            self.rto_at = now + self.rtt.timeout(config);
        }
        Segment {
            seq,
            chunk: Some(handle),
            len,
            is_last: self.kept.queued == 0 && chunk.end() == self.kept.nxt,
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

    /// Something is being queued or sent.
    #[inline]
    fn note_busy(&mut self, now: Instant) {
        if self.is_quiet() {
            self.drained_until = now;
        }
    }

    /// `bytes` were acknowledged.
    #[inline]
    fn note_drained(&mut self, config: &Config, bytes: u32, now: Instant) {
        let bought_us = u64::from(bytes) * u64::from(config.drain_us_per_byte);
        self.drained_until = (self.drained_until + Duration::from_micros(bought_us)).min(now);
    }
}

/// Acknowledgments.
impl Sender {
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
        let una = self.kept.una;
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
            bytes += mark_sacked(&mut self.kept, chunks, blocks, &mut note);
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
        // Nothing that old can have been in flight together with what is now.
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

    /// Looks at what a tail loss probe has brought (RFC 8985, section 7.4). That it repaired a loss
    /// shows only when something later is acknowledged: until then a DSACK may still come.
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

    /// Marks what is lost; sets the reordering timer for what may be soon.
    fn find_losses(&mut self, chunks: &mut Chunks, bytes: u32, now: Instant) {
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
    fn change_phase(
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
            let srtt = self.rtt.smoothed().unwrap_or(config.rto_initial);
            // More would only fill queues.
            let cwnd_max = config.queue_bytes_max.max(initial_window(self.mss));
            self.cubic.on_ack(bytes, mss, srtt, cwnd_max, now);
        }
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

/// Timers.
impl Sender {
    #[inline]
    fn restart_timers(
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
        } else if bytes > 0 || delivered > 0 {
            self.rto_at = now + self.rtt.timeout(config);
            self.probe_is_due = false;
            self.arm_probe(config, now);
        }
    }

    /// Sets the time of the next tail loss probe (RFC 8985, section 7.2).
    #[inline]
    fn arm_probe(&mut self, config: &Config, now: Instant) {
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

    /// Nothing is in flight: has the peer's window to be waited for?
    #[inline]
    fn arm_persist(&mut self, chunks: &Chunks, config: &Config, now: Instant) {
        if self.kept.flight() > 0 {
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

/// Marks the chunks that the blocks of an ACK name, and returns how many bytes are in them. One walk, to
/// the end of the highest block.
fn mark_sacked(
    kept: &mut Kept,
    chunks: &mut Chunks,
    blocks: &[Block],
    note: &mut impl FnMut(&Chunk),
) -> u32 {
    let mut valid = [Block::default(); sack::BLOCKS_MAX];
    let mut count = 0;
    let mut highest = kept.una;
    for block in blocks.iter().take(sack::BLOCKS_MAX) {
        let is_in_flight =
            block.is_valid() && is_before(kept.una, block.start) && !is_before(kept.nxt, block.end);
        if is_in_flight {
            valid[count] = *block;
            count += 1;
            if is_before(highest, block.end) {
                highest = block.end;
            }
        } else {
            chunks.counters.sack_discards.increment();
        }
    }
    let valid = &valid[..count];
    let mut bytes = 0;
    let mut at = kept.first_sent();
    while let Some(handle) = at {
        let chunk = chunks.get(handle);
        if !is_before(chunk.seq, highest) {
            break;
        }
        let (seq, end) = (chunk.seq, chunk.end());
        if !chunk.is_sacked && valid.iter().any(|block| block.covers(seq, end)) {
            bytes += u32::from(chunk.len);
            note(chunk);
            kept.mark_sacked(chunks, handle);
        }
        at = kept.next_sent(chunks, handle);
    }
    bytes
}

fn usable_mss(mss: u16) -> u16 {
    mss.clamp(1, LARGE_BYTES as u16)
}

/// The window of a new connection, and after an idle time, in bytes (RFC 6928, section 2).
fn initial_window(mss: u16) -> u32 {
    let mss = u32::from(mss);
    (INITIAL_WINDOW_SEGMENTS * mss).min((2 * mss).max(14_600))
}
