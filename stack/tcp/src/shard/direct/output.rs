//! What a connection that is served directly sends: what is kept, and ACKs.

use crate::connection::{Cold, Hot};
use crate::control::{Direction, L2Header};
use crate::guard::segment::State;
use crate::guard::timestamps::{TimestampClock, Timestamps};
use crate::header::{self, Header};
use crate::link::Transmit;
use crate::packet::{Flags, Local};
use crate::receiver::inbox::BLOCKS_TOLD_MAX;
use crate::sender::checksum::{self, copy_and_sum};
use crate::sender::lent::Busy;
use crate::sender::sack::{self, Block};
use barewire_service::service::Service;
use barewire_service::time::Instant;

use super::Slot;
use super::turn::Turn;
use crate::shard::{Core, Port};

/// What a segment needs beside its connection.
pub(super) struct Around<'c> {
    pub local: &'c Local,
    pub l2: &'c L2Header,
    pub timestamps: TimestampClock,
    pub now: Instant,
}

/// Writes the headers of a segment to the peer, which acknowledges what has arrived and tells the window of the
/// connection's [`Tcb`]. `payload_sum` is what the payload adds to the checksum. Timestamps are written behind the headers
/// of others, where there must be room for them.
pub(super) fn write_headers(
    packet: &mut [u8],
    local: &Local,
    hot: &Hot,
    seq: u32,
    flags: Flags,
    payload_sum: u16,
    timestamps: Option<Timestamps>,
) {
    let (mut sum, mut options_len) = (payload_sum, 0);
    if let Some(timestamps) = timestamps {
        let option = timestamps.to_bytes();
        let option_sum = copy_and_sum(&mut packet[header::bytes(&hot.flow)..], &option);
        sum = checksum::add(option_sum, payload_sum);
        options_len = option.len() as u8;
    }
    let header = Header {
        seq,
        ack: hot.tcb.rcv_nxt,
        window: hot.tcb.rcv_wnd_field(),
        flags: Flags::ACK | flags,
        options_len,
    };
    header::write(packet, local, &hot.flow, Direction::ToPeer, &header, sum);
}

/// Sends what may leave at once of a reply of which nothing is kept yet: whole segments and, if it `is_whole`, its end.
/// Returns how much that is.
#[inline(never)]
pub(super) fn send_at_once<T: Transmit>(
    reply: &[u8],
    is_whole: bool,
    (hot, cold): (&mut Hot, &mut Cold),
    slot: &mut Slot<'_>,
    turn: &mut Turn<'_>,
    port: &mut Port<'_, T>,
    around: &Around<'_>,
) -> usize {
    let Slot {
        sender,
        window,
        inbox,
        chunks,
        config,
    } = slot;
    let at = header::bytes(&hot.flow) + cold.options.bytes_per_segment();
    let mss = usize::from(sender.mss());
    let mut rest = reply;
    while turn.budget > 0 && port.transmit.free_slots() > port.reserve {
        let (payload, behind) = rest.split_at(rest.len().min(mss));
        let len = payload.len();
        let may_leave = len == mss || is_whole && len > 0;
        if !may_leave || sender.room_now() < len || !chunks.has_room(len) {
            break;
        }
        let packet = port.transmit.slot().and_then(|slot| around.l2.write(slot));
        let Some(packet) = packet.and_then(|packet| packet.get_mut(..at + len)) else {
            break;
        };
        let seq = sender.nxt();
        let Ok(sum) = sender.push_sent(chunks, config, payload, around.now) else {
            break;
        };
        packet[at..].copy_from_slice(payload);
        let is_last = behind.is_empty() && is_whole;
        let flags = if is_last { Flags::PSH } else { Flags(0) };
        turn.tell_window(&mut hot.tcb, window, inbox, sender.mss());
        hot.tcb.snd_nxt = sender.nxt();
        let timestamps = cold.timestamps(around.timestamps, around.now);
        write_headers(packet, around.local, hot, seq, flags, sum, timestamps);
        turn.note_sent(hot, cold, packet.len());
        port.transmit.commit(around.l2.len() + at + len);
        rest = behind;
    }
    reply.len() - rest.len()
}

impl<S: Service> Core<'_, S> {
    /// Sends what has to be sent again, and what is queued, as far as both windows and the turn allow.
    #[inline(always)]
    pub(super) fn send_kept<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) {
        let sender = self.sender(index);
        if sender.is_some_and(|sender| sender.queued() > 0 || sender.is_due()) {
            self.send_what_is_kept(index, turn, port);
        }
    }

    /// Sends what waited for the end of its batch.
    #[inline(never)]
    fn send_rest_of_batch<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        self.send_kept(index, &mut Turn::new(), port);
        self.note_direct_progress(index, 0);
    }

    #[inline(never)]
    fn send_what_is_kept<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) {
        loop {
            let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
            let Some(Slot {
                sender,
                window,
                inbox,
                chunks,
                config,
            }) = self.direct.slot(cold.sender)
            else {
                return;
            };
            if turn.budget == 0 || port.transmit.free_slots() <= port.reserve {
                if sender.queued() > 0 || sender.is_due() {
                    self.wait_to_send(index);
                }
                return;
            }
            let is_short = (1..u32::from(sender.mss())).contains(&sender.queued());
            if turn.is_bulk && is_short && !sender.is_due() {
                return;
            }
            let Some(slot) = port.transmit.slot() else {
                return;
            };
            let at = header::bytes(&hot.flow) + cold.options.bytes_per_segment();
            let Some(segment) = sender.next_segment(chunks, config, self.now) else {
                return;
            };
            let l2 = self.neighbours.get(cold.neighbour);
            let Some(packet) =
                (l2.write(slot)).and_then(|packet| packet.get_mut(..at + usize::from(segment.len)))
            else {
                debug_assert!(false, "a slot holds a whole frame");
                return;
            };
            let sum = match segment.chunk {
                Some(chunk) => chunks.copy_to(chunk, &mut packet[at..]).1,
                None => 0,
            };
            let tcb = &mut hot.tcb;
            if segment.is_fin && tcb.snd_una == tcb.snd_nxt {
                hot.progress_at_ms = self.now_ms;
            }
            tcb.snd_nxt = sender.nxt();
            tcb.fin_sent |= segment.is_fin;
            turn.tell_window(tcb, window, inbox, sender.mss());
            let flags = match segment.is_last && !cold.wants_room {
                _ if segment.is_fin => Flags::FIN,
                true => Flags::PSH,
                false => Flags(0),
            };
            let timestamps = cold.timestamps(self.timestamps, self.now);
            let (local, seq) = (&self.local, segment.seq);
            write_headers(packet, local, hot, seq, flags, sum, timestamps);
            turn.note_sent(hot, cold, packet.len());
            let len = l2.len() + packet.len();
            port.transmit.commit(len);
            debug_assert!(sender.is_consistent(chunks), "[UNA, NXT) is not the chunks");
            if segment.is_resent {
                self.counters.retrans_segs.increment();
            }
        }
    }

    /// Whether what has arrived and was not acknowledged is worth a segment of its own before the batch is over:
    /// every second full one (RFC 5681, section 4.2), and before the window is used up.
    #[inline]
    pub(super) fn is_ack_worth_it(&self, index: usize) -> bool {
        let (hot, cold) = (&self.hot[index], &self.cold[index]);
        let Some(Busy { sender, window, .. }) = self.direct.senders.get(cold.sender) else {
            return true;
        };
        let untold = hot.tcb.rcv_nxt.wrapping_sub(cold.told);
        untold >= 2 * u32::from(sender.mss())
            || hot.tcb.rcv_wnd < window.bytes() / 2
            || self.owing.len() == self.owing.capacity()
    }

    /// Sends the ends of replies that waited for the end of the batch, and acknowledges what arrived with it and was not
    /// acknowledged yet: nothing is delayed beyond the batch, so that no peer has to wait for it.
    pub(in crate::shard) fn acknowledge_batch<T: Transmit>(&mut self, port: &mut Port<'_, T>) {
        while let Some(index) = self.owing.pop() {
            let index = index as usize;
            if self.sender(index).is_some_and(|sender| sender.queued() > 0) {
                self.send_rest_of_batch(index, port);
            }
            let (hot, cold) = (&self.hot[index], &self.cold[index]);
            if hot.tcb.state == State::Free || cold.told == hot.tcb.rcv_nxt {
                continue;
            }
            match cold.is_direct {
                true => self.acknowledge(index, &Turn::new(), port),
                false => self.send_ack(index, port),
            }
        }
    }

    /// Sends an ACK of what has arrived, with what lies behind a gap.
    pub(super) fn acknowledge<T: Transmit>(
        &mut self,
        index: usize,
        turn: &Turn<'_>,
        port: &mut Port<'_, T>,
    ) {
        let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
        let tcb = &mut hot.tcb;
        let mut options = [0; 40];
        let timestamps = cold.timestamps(self.timestamps, self.now);
        let timestamps = timestamps.map(|Timestamps { value, echo }| (value, echo));
        let mut options_len = sack::write(&mut options, timestamps, &[]);
        if let Some(busy) = self.direct.senders.get(cold.sender) {
            let Busy { sender, inbox, .. } = busy;
            turn.tell_window(tcb, &busy.window, inbox, sender.mss());
            if inbox.behind_a_gap() > 0 && cold.options.sack_permitted {
                let mut blocks = [Block::default(); BLOCKS_TOLD_MAX];
                let count = inbox.blocks(&self.direct.chunks, tcb.rcv_nxt, &mut blocks);
                options_len = sack::write(&mut options, timestamps, &blocks[..count]);
            }
        }
        let at = header::bytes(&hot.flow);
        let l2 = self.neighbours.get(cold.neighbour);
        let slot = port.transmit.slot();
        let packet = slot.and_then(|slot| l2.write(slot)?.get_mut(..at + options_len));
        let Some(packet) = packet else {
            return;
        };
        let options_sum = copy_and_sum(&mut packet[at..], &options[..options_len]);
        let header = Header {
            seq: hot.tcb.acceptable_seq(),
            ack: hot.tcb.rcv_nxt,
            window: hot.tcb.rcv_wnd_field(),
            flags: Flags::ACK,
            options_len: options_len as u8,
        };
        let direction = Direction::ToPeer;
        header::write(
            packet,
            &self.local,
            &hot.flow,
            direction,
            &header,
            options_sum,
        );
        let len = l2.len() + packet.len();
        port.transmit.commit(len);
        cold.told = hot.tcb.rcv_nxt;
    }
}
