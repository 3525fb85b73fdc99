//! Which segments of a connection reach smoltcp (RFC 9293, section 3.10.7.4, hardened by RFC 5961).
//!
//! The order of the tests is the RFC's; what smoltcp does well itself, trimming, reassembly, the ACK
//! for an old duplicate, is left to it.

use crate::guard::is_before;
use crate::packet::{Flags, Segment};

/// The part of a transmission control block that tells good segments from bad: RFC 9293's names.
///
/// `rcv_nxt` and `rcv_wnd` are what was last told to the peer, which is all it can know.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tcb {
    pub snd_una: u32,
    /// Behind the highest sequence number that was ever sent.
    pub snd_nxt: u32,
    pub rcv_nxt: u32,
    /// Our window in bytes, of which the peer may have been told a little less: its field is scaled.
    pub rcv_wnd: u32,
    /// The last window field of the peer, as on the wire.
    pub snd_wnd: u16,
    /// SEG.SEQ of the segment that it came with (SND.WL1).
    pub snd_wl1: u32,
    /// The largest window field of the peer (MAX.SND.WND).
    pub snd_wnd_max: u16,
    pub scales: Scales,
    pub state: State,
    /// The peer has sent its FIN, and all before it has arrived.
    pub fin_received: bool,
    /// We have sent ours, which is then the last before SND.NXT.
    pub fin_sent: bool,
}

/// By how many bits the window fields of a connection are shifted (RFC 7323, section 2), in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Scales(u8);

impl Scales {
    /// The shift of the peer's fields, and that of ours, neither of them larger than 14.
    pub fn new(snd: u8, rcv: u8) -> Scales {
        debug_assert!(snd <= 14 && rcv <= 14);
        Scales(snd << 4 | rcv)
    }

    /// The shift of the peer's window fields.
    #[inline]
    pub fn snd(self) -> u8 {
        self.0 >> 4
    }

    /// The shift of our window fields.
    #[inline]
    pub fn rcv(self) -> u8 {
        self.0 & 0xf
    }
}

/// Which rules hold for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// No connection.
    #[default]
    Free,
    /// SYN-SENT: we have called.
    SynSent,
    /// SYN-RECEIVED.
    SynReceived,
    /// ESTABLISHED and CLOSE-WAIT: the service runs.
    Open,
    /// We have closed: FIN-WAIT-1 and -2, CLOSING, LAST-ACK.
    Closing,
}

/// What to do with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Give it to smoltcp.
    Pass,
    /// Give it to smoltcp with SND.UNA for its acknowledgment and our last known window: both were
    /// overtaken by newer ones.
    PassOvertaken,
    /// The window is closed to what it carries, but not to what it acknowledges: give smoltcp a bare
    /// ACK of it, and tell the peer where we are.
    PassAckOnly,
    /// A valid RST: forget the connection.
    Reset,
    /// The answer to our SYN: the connection is established.
    Connect,
    /// The first SYN again: send the SYN|ACK again.
    RepeatSynAck,
    /// Send what we know as an ACK, rate limited, and drop it (RFC 5961).
    Challenge(Reason),
    /// Refuse it with an RST and drop it (SYN-SENT and SYN-RECEIVED only).
    Refuse,
    /// Drop it.
    Drop(Reason),
}

/// Why a segment does not reach smoltcp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// An RST outside the window.
    RstOutOfWindow,
    /// An RST in the window, but not at RCV.NXT.
    RstInWindow,
    /// A SYN on a synchronised connection.
    Syn,
    /// An acknowledgment of what was never sent.
    AckAboveSndNxt,
    /// An acknowledgment of what was acknowledged long ago.
    AckTooOld,
    /// Begins behind the right edge of the window.
    BeyondWindow,
    /// Its FIN lies behind the right edge of the window.
    FinBeyondWindow,
    /// Carries data behind the peer's FIN.
    DataAfterFin,
    /// An ACK that repeats what is known, and that smoltcp must not count.
    NothingNew,
    /// It does not answer our SYN.
    NoAnswer,
}

impl Tcb {
    /// A connection whose SYN, numbered `isn`, is on its way.
    pub fn syn_sent(isn: u32) -> Tcb {
        Tcb {
            snd_una: isn,
            snd_nxt: isn.wrapping_add(1),
            state: State::SynSent,
            ..Tcb::default()
        }
    }

    /// The peer has answered our SYN.
    pub fn connect(&mut self, syn_ack: &Segment, window_scale: Option<u8>) {
        self.snd_una = syn_ack.ack;
        self.rcv_nxt = syn_ack.seq.wrapping_add(1);
        self.snd_wl1 = syn_ack.seq;
        self.scales = Scales::new(window_scale.unwrap_or(0), 0);
        // RFC 7323, section 2.2: the window of a SYN is not scaled, all later ones are.
        self.snd_wnd = syn_ack.window >> self.scales.snd();
        self.snd_wnd_max = syn_ack.window.div_ceil(1 << self.scales.snd());
    }

    /// What to do with `segment`, on a path whose packets have at most `mtu` bytes.
    #[inline]
    pub fn judge(&self, segment: &Segment, mtu: usize) -> Verdict {
        const UNUSUAL: Flags = Flags(Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0);
        let is_expected = self.state == State::Open
            && !segment.flags.intersects(UNUSUAL)
            && segment.seq == self.rcv_nxt
            && segment.payload_len() <= self.rcv_wnd as usize
            && segment.ack.wrapping_sub(self.snd_una) <= self.snd_nxt.wrapping_sub(self.snd_una)
            && !self.fin_received
            && !self.would_overrun(segment, mtu)
            && !self.has_stale_window(segment);
        if is_expected {
            return Verdict::Pass;
        }
        self.judge_unexpected(segment, mtu)
    }

    fn judge_unexpected(&self, segment: &Segment, mtu: usize) -> Verdict {
        if self.state == State::SynSent {
            return self.judge_answer(segment);
        }
        if segment.flags.contains(Flags::RST) {
            return self.judge_rst(segment);
        }
        if segment.flags.contains(Flags::SYN) {
            let is_first_again = self.state == State::SynReceived
                && !segment.flags.contains(Flags::ACK)
                && segment.seq.wrapping_add(1) == self.rcv_nxt;
            return match is_first_again {
                true => Verdict::RepeatSynAck,
                false => Verdict::Challenge(Reason::Syn),
            };
        }
        if self.is_closed_to(segment) || self.is_old_with_news(segment) {
            return match self.judge_ack(&segment.as_bare_ack(self.rcv_nxt), mtu) {
                Verdict::Pass => Verdict::PassAckOnly,
                Verdict::Drop(Reason::NothingNew) => Verdict::Challenge(Reason::BeyondWindow),
                other => other,
            };
        }
        self.judge_sequence(segment)
            .unwrap_or_else(|| self.judge_ack(segment, mtu))
    }

    /// SYN-SENT: RFC 9293, section 3.10.7.3, except that a simultaneous open is refused: a shard that opens connections
    /// does not accept any.
    fn judge_answer(&self, segment: &Segment) -> Verdict {
        let has = |flags| segment.flags.contains(flags);
        let is_ours =
            has(Flags::ACK) && segment.ack == self.snd_nxt && self.snd_una != self.snd_nxt;
        match (has(Flags::RST), has(Flags::SYN)) {
            (true, _) if is_ours => Verdict::Reset,
            (true, _) => Verdict::Drop(Reason::NoAnswer),
            (false, true) if is_ours => Verdict::Connect,
            // It belongs to another connection, which the peer still has: the RST ends that.
            (false, _) if !is_ours => Verdict::Refuse,
            (false, _) => Verdict::Drop(Reason::NoAnswer),
        }
    }

    /// Whether `segment` is a duplicate ACK of a peer with little room.
    ///
    /// smoltcp answers the third one with a whole segment whatever the window is, and never sends again
    /// what then lies behind it. The retransmission timer keeps to the window, and it is still there.
    #[inline]
    fn would_overrun(&self, segment: &Segment, mtu: usize) -> bool {
        segment.sequence_len() == 0
            && segment.ack == self.snd_una
            && self.snd_una != self.snd_nxt
            && segment.window == self.snd_wnd
            && (self.snd_wnd_bytes() as usize) < mtu
    }

    /// Whether the window of `segment` is from before the last one, though its acknowledgment is not
    /// (RFC 9293, section 3.10.7.4: SND.WL1).
    ///
    /// smoltcp takes any. A delayed segment with a closed window would then undo the ACK that has
    /// opened it, and the peer would not repeat that.
    #[inline]
    fn has_stale_window(&self, segment: &Segment) -> bool {
        segment.ack == self.snd_una
            && segment.window != self.snd_wnd
            && is_before(segment.seq, self.snd_wl1)
    }

    /// Remembers the window of a segment that was taken, unless a newer one is known.
    #[inline]
    pub fn take_window(&mut self, segment: &Segment) {
        if is_before(self.snd_una, segment.ack) || !is_before(segment.seq, self.snd_wl1) {
            self.snd_wl1 = segment.seq;
        }
        self.snd_wnd = segment.window;
        self.snd_wnd_max = self.snd_wnd_max.max(segment.window);
    }

    /// Whether our window is closed and `segment` lies where the window would be, a probe for example.
    ///
    /// RFC 9293, section 3.10.7.4, makes an exception for the acknowledgment of such segments. smoltcp
    /// does not, and two sides that are both out of room would wait for each other for ever.
    fn is_closed_to(&self, segment: &Segment) -> bool {
        let start = segment.seq.wrapping_sub(self.rcv_nxt) as i32;
        self.rcv_wnd == 0
            && self.state != State::SynReceived
            && start >= 0
            && (start > 0 || segment.sequence_len() > 0)
    }

    /// Whether `segment` lies behind us but acknowledges something new.
    ///
    /// A peer that goes back to what it has sent before, as smoltcp does, puts those old numbers on its
    /// ACKs as well. If we do so too, each side would refuse the acknowledgment that the other needs.
    fn is_old_with_news(&self, segment: &Segment) -> bool {
        let start = segment.seq.wrapping_sub(self.rcv_nxt) as i32;
        let end = start.wrapping_add_unsigned(segment.sequence_len());
        matches!(self.state, State::Open | State::Closing)
            && self.is_recent(start)
            && end <= 0
            && is_before(self.snd_una, segment.ack)
    }

    /// RFC 5961, section 3.2.
    fn judge_rst(&self, segment: &Segment) -> Verdict {
        let offset = segment.seq.wrapping_sub(self.rcv_nxt);
        if offset == 0 {
            Verdict::Reset
        } else if offset < self.rcv_wnd {
            Verdict::Challenge(Reason::RstInWindow)
        } else {
            Verdict::Drop(Reason::RstOutOfWindow)
        }
    }

    fn judge_sequence(&self, segment: &Segment) -> Option<Verdict> {
        let len = segment.payload_len() as u32;
        let start = segment.seq.wrapping_sub(self.rcv_nxt) as i32;
        let end = start.wrapping_add_unsigned(len);
        let window = self.rcv_wnd as i32;

        // Into a closed window the peer may probe with one byte; smoltcp answers that.
        if start >= window.max(1) {
            return Some(Verdict::Challenge(Reason::BeyondWindow));
        }
        if segment.flags.contains(Flags::FIN) && end > window {
            return Some(Verdict::Challenge(Reason::FinBeyondWindow));
        }
        if self.fin_received && end > 0 {
            return Some(Verdict::Drop(Reason::DataAfterFin));
        }
        None
    }

    /// RFC 5961, section 5.2.
    fn judge_ack(&self, segment: &Segment, mtu: usize) -> Verdict {
        if self.state == State::SynReceived {
            return match segment.ack == self.snd_nxt {
                true => Verdict::Pass,
                false => Verdict::Refuse,
            };
        }
        if is_before(self.snd_nxt, segment.ack) {
            return Verdict::Challenge(Reason::AckAboveSndNxt);
        }
        if is_before(segment.ack, self.snd_una) {
            let age = self.snd_una.wrapping_sub(segment.ack);
            return match age <= self.snd_wnd_max_bytes() {
                true => Verdict::PassOvertaken,
                false => Verdict::Challenge(Reason::AckTooOld),
            };
        }
        // smoltcp takes the third of these for a loss of data, finds no data to send again, and stops
        // the timer that would have sent the FIN again.
        let only_fin_is_unacknowledged =
            self.fin_sent && self.snd_una.wrapping_add(1) == self.snd_nxt;
        if only_fin_is_unacknowledged
            && segment.ack == self.snd_una
            && segment.seq == self.rcv_nxt
            && segment.sequence_len() == 0
        {
            return Verdict::Drop(Reason::NothingNew);
        }
        if self.would_overrun(segment, mtu) {
            return Verdict::Drop(Reason::NothingNew);
        }
        match self.has_stale_window(segment) {
            true => Verdict::PassOvertaken,
            false => Verdict::Pass,
        }
    }

    /// Whether smoltcp will look at the acknowledgment of a segment that passed: RFC 9293's test of
    /// acceptability.
    #[inline]
    pub fn is_acceptable(&self, segment: &Segment) -> bool {
        let start = segment.seq.wrapping_sub(self.rcv_nxt) as i32;
        let end = start.wrapping_add_unsigned(segment.payload_len() as u32);
        let window = self.rcv_wnd as i32;
        match segment.payload_len() {
            0 => start == 0 || (0 <= start && start < window),
            _ => (0 <= start && start < window) || (0 < end && end <= window),
        }
    }

    /// Whether `segment` repeats what has arrived, and acknowledges what is expected: whoever sends it knows both
    /// sequence numbers as well as a sender of data does (RFC 5961, section 5.2).
    #[inline]
    pub fn is_repetition(&self, segment: &Segment) -> bool {
        let start = segment.seq.wrapping_sub(self.rcv_nxt) as i32;
        let in_flight = self.snd_nxt.wrapping_sub(self.snd_una);
        self.is_recent(start)
            && self.state != State::SynReceived
            && segment.flags.contains(Flags::ACK)
            && segment.ack.wrapping_sub(self.snd_una) <= in_flight
    }

    /// The sequence number for a segment without data: SND.NXT, unless the peer has closed its window
    /// over that, and would not accept it.
    pub fn acceptable_seq(&self) -> u32 {
        let window_end = self.snd_una.wrapping_add(self.snd_wnd_bytes());
        let has_window = !matches!(self.state, State::SynSent | State::SynReceived);
        match has_window && is_before(window_end, self.snd_nxt) {
            true => window_end,
            false => self.snd_nxt,
        }
    }

    /// The end of the data that has arrived: RCV.NXT without the peer's FIN.
    #[inline]
    pub fn data_end(&self) -> u32 {
        self.rcv_nxt.wrapping_sub(u32::from(self.fin_received))
    }

    /// The peer's window in bytes.
    #[inline]
    pub fn snd_wnd_bytes(&self) -> u32 {
        u32::from(self.snd_wnd) << self.scales.snd()
    }

    /// The largest window that the peer has offered, in bytes.
    #[inline]
    pub fn snd_wnd_max_bytes(&self) -> u32 {
        u32::from(self.snd_wnd_max) << self.scales.snd()
    }

    /// Our window as a segment tells it that is no SYN.
    #[inline]
    pub fn rcv_wnd_field(&self) -> u16 {
        u16::try_from(self.rcv_wnd >> self.scales.rcv()).unwrap_or(u16::MAX)
    }

    /// Tells a window of `bytes` from here on, or what is left of the one that the peer knows, which is not taken back
    /// (RFC 9293, section 3.8.6.2.2), not even by what the scale rounds off (RFC 7323, section 2.4).
    #[inline]
    pub fn tell_window(&mut self, bytes: u32) {
        let unit = (1 << self.scales.rcv()) - 1;
        let max = u32::from(u16::MAX) << self.scales.rcv();
        let rounded = bytes & !unit;
        self.rcv_wnd = match rounded >= self.rcv_wnd {
            true => rounded.min(max),
            false => ((self.rcv_wnd + unit) & !unit).min(max),
        };
    }

    /// Whether what begins so far before RCV.NXT, which is less than zero, may have been sent when our window was there.
    #[inline]
    pub fn is_recent(&self, start: i32) -> bool {
        (-(i32::from(u16::MAX) << self.scales.rcv())..0).contains(&start)
    }
}
