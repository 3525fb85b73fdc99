//! The sending half of a connection: what it keeps, when it sends, how it repairs.
//!
//! A [`Sender`] exists while a connection has something in flight or queued. It does no I/O and reads
//! no clock: its owner passes acknowledgments and the time, and asks what to send.
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
//! | what to send next, silly windows, closed windows | `transmit` | RFC 9293, 3.8.6 |
//! | what an ACK says | `acknowledge`, `scoreboard` | RFC 2018, RFC 2883, RFC 5681 |
//! | options | [`sack`] | RFC 2018, RFC 7323 |
//! | round-trip time, timeout | [`rtt`], `timers` | RFC 6298 |
//! | what is lost, tail loss probe | [`rack`], `recovery`, `timers` | RFC 8985 |
//! | loss without SACK, how much to send in recovery | `recovery` | RFC 6582, RFC 3042, RFC 6937 |
//! | congestion window | [`cubic`] | RFC 9438, RFC 5681, RFC 6928 |
//! | a path that takes less | `path_mtu` | RFC 1191, RFC 4821 |
//! | our FIN | `fin` | RFC 9293, 3.6 |
//! | which connections have a sender | `lent` | |
//!
//! Nothing is allocated. What one ACK costs is bounded by the chunks of its connection, at most
//! [`Config::queue_bytes_max`]; an ACK without SACK blocks that finds nothing lost walks only over what it
//! acknowledges.

mod acknowledge;
pub mod checksum;
pub mod chunks;
pub mod counters;
pub mod cubic;
mod fin;
mod kept;
pub(crate) mod lent;
mod path_mtu;
pub mod rack;
mod recovery;
pub mod rtt;
pub mod sack;
mod scoreboard;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod timers;
mod transmit;

use thiserror::Error;

use self::chunks::{Chunks, Handle, LARGE_BYTES};
use self::cubic::Cubic;
use self::kept::Kept;
use self::rack::Rack;
use self::rtt::Rtt;
use self::sack::Block;
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
    /// Of these, bytes that wait to be sent.
    pub unsent_bytes_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(4),
            rto_initial: Duration::from_secs(1),
            ack_delay_max: Duration::from_millis(40),
            queue_bytes_max: 1 << 20,
            unsent_bytes_max: 1 << 20,
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
    /// Our FIN is behind its payload.
    pub is_fin: bool,
    /// It was sent before.
    pub is_resent: bool,
}

/// The payload of a segment that a [`Sender`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptSegment<'c> {
    /// It was sent, and is not acknowledged.
    Sent(&'c [u8]),
    /// It was not sent yet, or a segment before it or it itself is lost and was not sent again.
    Queued(&'c [u8]),
}

impl<'c> KeptSegment<'c> {
    /// Its payload, in either case.
    pub fn bytes(self) -> &'c [u8] {
        match self {
            KeptSegment::Sent(bytes) | KeptSegment::Queued(bytes) => bytes,
        }
    }
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
    fin: Fin,
    /// The FIN is to be sent again, by itself.
    fin_is_due: bool,
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
}

/// Our FIN, which takes a sequence number and no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    /// There is none, or it is acknowledged.
    None,
    /// It leaves behind all that is queued.
    Queued,
    /// It is the last before SND.NXT.
    Sent,
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
            fin: Fin::None,
            fin_is_due: false,
            ignores_silly_window: false,
            is_cwnd_limited: false,
            has_sack: start.has_sack,
            rto_at: NEVER,
            probe_at: NEVER,
            reorder_at: NEVER,
            last_sent_at: now,
        }
    }

    /// Nothing is in flight and nothing queued: the sender can go, and its chunks have gone.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.kept.flight() == 0 && self.kept.queued == 0 && self.fin == Fin::None
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
        self.fin = Fin::None;
        self.rto_at = NEVER;
        self.probe_at = NEVER;
        self.reorder_at = NEVER;
    }

    /// Asks for the memory that the next acknowledgment will touch, and a reply to what comes with it, which is kept
    /// where the last one was.
    #[inline]
    pub(crate) fn prefetch(&self, chunks: &Chunks) {
        if let Some(handle) = self.kept.first() {
            chunks.prefetch(handle);
        }
    }

    /// The same for a reply of two segments.
    #[inline]
    pub(crate) fn prefetch_last(&self, chunks: &Chunks) {
        if let Some(handle) = self.kept.last() {
            chunks.prefetch(handle);
        }
    }

    /// Whether [`Sender::next_segment`] may have a repair, a probe or a FIN to send.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.kept.lost > 0
            || self.probe_is_due
            || self.window_probe_is_due
            || self.fin_is_due
            || self.fin == Fin::Queued
    }

    /// All that is kept, in the order of the stream.
    pub fn kept_segments<'c>(
        &self,
        chunks: &'c Chunks,
    ) -> impl Iterator<Item = KeptSegment<'c>> + use<'c> {
        let first_queued = self.kept.first_queued(chunks);
        let mut at = self.kept.first();
        let mut is_queued = false;
        std::iter::from_fn(move || {
            let handle = at?;
            let chunk = chunks.get(handle);
            at = chunk.next.is_some().then_some(chunk.next);
            is_queued |= first_queued == Some(handle) || chunk.is_lost && !chunk.is_resent;
            let payload = chunks.payload(handle);
            Some(match is_queued {
                true => KeptSegment::Queued(payload),
                false => KeptSegment::Sent(payload),
            })
        })
    }

    /// When the oldest segment in flight was sent last.
    pub fn oldest_sent_at(&self, chunks: &Chunks) -> Option<Instant> {
        Some(chunks.get(self.kept.first_sent()?).sent_at())
    }

    /// SND.UNA.
    #[inline]
    pub fn una(&self) -> u32 {
        self.kept.una
    }

    /// SND.NXT, which is behind our FIN once that was sent.
    #[inline]
    pub fn nxt(&self) -> u32 {
        self.kept.nxt.wrapping_add(u32::from(self.fin == Fin::Sent))
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
    /// Bytes in the network. Without SACK each duplicate ACK stands for a segment that has left it.
    #[inline]
    fn pipe(&self) -> u32 {
        let arrived = u32::from(self.dup_acks) * u32::from(self.mss);
        self.kept.pipe(arrived)
    }
}

fn usable_mss(mss: u16) -> u16 {
    mss.clamp(1, LARGE_BYTES as u16)
}

/// The window of a new connection, and after an idle time, in bytes (RFC 6928, section 2).
fn initial_window(mss: u16) -> u32 {
    let mss = u32::from(mss);
    (INITIAL_WINDOW_SEGMENTS * mss).min((2 * mss).max(14_600))
}
