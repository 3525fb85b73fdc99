//! What a segment brings to a connection that is served directly: where it lies, its data, its FIN, its acknowledgment.

use crate::guard::is_before;
use crate::guard::segment::Tcb;
use crate::packet::{Flags, Segment};
use crate::sender::Ack;
use crate::sender::lent::Busy;
use crate::sender::sack::Options;
use barewire_service::service::Service;

use super::Slot;
use super::turn::Turn;
use crate::shard::Core;

/// Where a segment lies that the direct path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// RCV.NXT is in it or where it begins, and all behind that is in the window.
    Next,
    /// Behind a gap, and in the window.
    Behind,
    /// All of it before RCV.NXT: a copy, or an ACK that was overtaken, or a keep-alive.
    Before,
}

/// Where `segment` lies, if it is one of those that the direct path takes: nothing but data, an acknowledgment and a
/// FIN that is not behind a gap, none of them out of bounds.
#[inline]
pub(super) fn place(tcb: &Tcb, segment: &Segment) -> Option<Place> {
    const UNUSUAL: Flags = Flags(Flags::SYN.0 | Flags::RST.0 | Flags::URG.0);
    if segment.flags.intersects(UNUSUAL) || !segment.flags.contains(Flags::ACK) {
        return None;
    }
    // RFC 5961, section 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT.
    let in_flight = tcb.snd_nxt.wrapping_sub(tcb.snd_una);
    if tcb.snd_nxt.wrapping_sub(segment.ack) > in_flight.saturating_add(tcb.snd_wnd_max_bytes()) {
        return None;
    }
    let start = segment.seq.wrapping_sub(tcb.rcv_nxt) as i32;
    let end = i64::from(start) + segment.payload_len() as i64;
    let is_in_window = end <= i64::from(tcb.rcv_wnd);
    let has_fin = segment.flags.contains(Flags::FIN);
    let end_with_fin = end + i64::from(has_fin);
    // Nothing follows a FIN.
    if tcb.fin_received && end_with_fin > 0 {
        return None;
    }
    match start {
        0 => is_in_window.then_some(Place::Next),
        1.. => (is_in_window && end > i64::from(start) && !has_fin).then_some(Place::Behind),
        ..0 if end_with_fin <= 0 => tcb.is_recent(start).then_some(Place::Before),
        ..0 => is_in_window.then_some(Place::Next),
    }
}

impl<S: Service> Core<'_, S> {
    /// Takes what a segment brings that is next.
    #[inline]
    pub(super) fn take_next<'f>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &'f [u8],
        turn: &mut Turn<'f>,
    ) {
        let tcb = &self.hot[index].tcb;
        let known = tcb.rcv_nxt.wrapping_sub(segment.seq) as usize;
        let input = &segment.payload(frame)[known..];
        if !input.is_empty() {
            self.take_data(index, input, turn);
        }
        if segment.flags.contains(Flags::FIN) {
            self.take_fin(index, segment, turn);
        }
    }

    /// Takes the peer's FIN, unless there was no chunk for what is before it.
    #[inline(never)]
    fn take_fin(&mut self, index: usize, segment: &Segment, turn: &mut Turn<'_>) {
        let (tcb, cold) = (&mut self.hot[index].tcb, &mut self.cold[index]);
        let at = (segment.seq).wrapping_add(segment.payload_len() as u32);
        turn.owes_ack = true;
        turn.is_ack_urgent = true;
        if at != tcb.rcv_nxt {
            return;
        }
        tcb.rcv_nxt = at.wrapping_add(1);
        tcb.fin_received = true;
        cold.highest = tcb.rcv_nxt;
        // The service has to see the end with what it has not consumed.
        turn.has_unseen |= (self.direct.senders.get(cold.sender))
            .is_some_and(|Busy { inbox, .. }| inbox.ready() > 0);
    }

    /// Takes data that is next.
    #[inline]
    fn take_data<'f>(&mut self, index: usize, input: &'f [u8], turn: &mut Turn<'f>) {
        let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
        let tcb = &mut hot.tcb;
        turn.owes_ack = true;
        let end = match self.direct.slot(cold.sender) {
            Some(Slot { inbox, chunks, .. }) if !inbox.is_empty() => {
                turn.is_ack_urgent = true;
                // What fills a gap frees chunks.
                let is_owed = inbox.behind_a_gap() > 0;
                let next = tcb.rcv_nxt;
                let (end, is_kept) = inbox.insert(chunks, next, next, input, is_owed);
                if !is_kept {
                    self.counters.inbox_drops.increment();
                }
                turn.has_unseen = end != next;
                end
            }
            _ => {
                turn.input = input;
                tcb.rcv_nxt.wrapping_add(input.len() as u32)
            }
        };
        tcb.rcv_wnd -= end.wrapping_sub(tcb.rcv_nxt);
        tcb.rcv_nxt = end;
        if is_before(cold.highest, end) {
            cold.highest = end;
        }
    }

    /// Keeps what a segment brings that lies behind a gap.
    #[inline(never)]
    pub(super) fn keep_behind_gap(&mut self, index: usize, segment: &Segment, frame: &[u8]) {
        let (tcb, cold) = (&self.hot[index].tcb, &mut self.cold[index]);
        let Some(Slot { inbox, chunks, .. }) = self.direct.slot(cold.sender) else {
            return;
        };
        let payload = segment.payload(frame);
        let (end, is_kept) = inbox.insert(chunks, tcb.rcv_nxt, segment.seq, payload, false);
        debug_assert_eq!(end, tcb.rcv_nxt, "there is a gap");
        if !is_kept {
            self.counters.inbox_drops.increment();
            return;
        }
        self.counters.inbox_kept.increment();
        let end = segment.seq.wrapping_add(payload.len() as u32);
        if is_before(cold.highest, end) {
            cold.highest = end;
        }
    }

    /// Takes what a segment acknowledges, and returns how many bytes that is.
    #[inline]
    pub(super) fn take_ack_directly(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
    ) -> u32 {
        let (hot, cold) = (&mut self.hot[index], &self.cold[index]);
        let clock = self.timestamps;
        let Some(Slot {
            sender,
            chunks,
            config,
            ..
        }) = self.direct.slot(cold.sender)
        else {
            return 0;
        };
        let option_bytes = &frame[segment.tcp_offset() + 20..segment.payload_offset()];
        let options;
        let (sack, rtt) = match option_bytes {
            [] => (&[][..], None),
            bytes => {
                options = Options::parse(bytes);
                let timestamps = options.timestamps.filter(|_| cold.options.timestamps);
                let rtt = timestamps.and_then(|(_, echo)| clock.since(echo, self.now));
                (options.blocks(), rtt)
            }
        };
        let ack = Ack {
            seq: segment.seq,
            ack: segment.ack,
            window: u32::from(segment.window) << hot.tcb.scales.snd(),
            has_payload: segment.payload_len() > 0,
            sack,
            rtt,
        };
        let acked = sender.on_ack(chunks, config, &ack, self.now);
        let tcb = &mut hot.tcb;
        tcb.snd_una = sender.una();
        tcb.snd_wnd = (sender.window() >> tcb.scales.snd()) as u16;
        tcb.snd_wl1 = sender.window_seq();
        tcb.snd_wnd_max = tcb.snd_wnd_max.max(tcb.snd_wnd);
        debug_assert!(sender.is_consistent(chunks), "[UNA, NXT) is not the chunks");
        acked.bytes
    }

    /// Whether a segment without data wants to be answered (RFC 9293, section 3.8.4), at most twice a second.
    pub(super) fn is_keep_alive(&mut self, index: usize, segment: &Segment) -> bool {
        let now_ms = self.now_ms;
        let is_due = self.is_due_an_ack(index);
        let hot = &mut self.hot[index];
        let is_probe = segment.seq.wrapping_add(1) == hot.tcb.rcv_nxt;
        if is_probe && is_due {
            hot.flags.was_challenged = true;
            hot.challenge_at_ms = now_ms;
        }
        is_probe && is_due
    }

    /// Keeps the end of what has arrived, which the service has seen and not consumed. Returns false if no chunk is
    /// free.
    pub(in crate::shard) fn hold(&mut self, index: usize, input: &[u8]) -> bool {
        let Some(Slot { inbox, chunks, .. }) = self.direct.slot(self.cold[index].sender) else {
            return false;
        };
        let seq = self.hot[index]
            .tcb
            .data_end()
            .wrapping_sub(input.len() as u32);
        let (_, is_kept) = inbox.insert(chunks, seq, seq, input, true);
        if !is_kept {
            inbox.discard(chunks);
        }
        is_kept
    }
}
