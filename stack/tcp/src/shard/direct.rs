//! The direct path: established connections that are served in place.
//!
//! A connection with nothing unusual does not need a socket. Its [`Tcb`] says what is expected next, and its
//! [`Sender`] keeps what was sent until it is acknowledged, and repairs what is lost:
//!
//! ```text
//!   received frame ─▶ takes ─▶ Sender::on_ack ─▶ Service ─▶ transmit slot ─▶ Sender::push_sent ─▶ headers
//!                       │                           ▲           no slot, no window: Sender::queue
//!                       │ anything else             └── payload in the received frame, or what waited for it in the
//!                       │                               inbox; reply in the slot
//!                       ▼
//!                   hand_over ─▶ a new smoltcp socket ─▶ quiet again ─▶ take_directly
//! ```
//!
//! The socket that takes over is new. A handshake is replayed to it, with SND.UNA - 1 and RCV.NXT - 1 as initial
//! sequence numbers, then what the peer sent and the service has not consumed, then what is in flight. What it
//! sends meanwhile is dropped. So no sequence number has to be translated, and nothing depends on smoltcp's internal
//! state.
//!
//! What makes this safe:
//!
//! * A connection has one of two forms: [`Cold::is_direct`](crate::connection::Cold::is_direct), or the socket has
//!   its state. [`Tcb`] holds what was sent to and received from the peer in both cases, and the guards read
//!   nothing else.
//! * What a socket's buffers do not hold cannot be handed over, nor can a connection of which one side has ended its
//!   stream ([`closing`](super::closing)). Such a connection stays where it is: of what only smoltcp understands, urgent
//!   data say, it takes the acknowledgment, and the peer sends it again (`hand_overs_postponed`). What lies behind a gap
//!   is kept here, in the [`Inbox`].
//! * A service's call cannot be undone, so there is a chunk for its reply before it is called.

use crate::config::{DirectPath, StackConfig};
use crate::connection::Hot;
use crate::control::Direction;
use crate::guard::is_before;
use crate::guard::segment::{State, Tcb};
use crate::header::{self, Header};
use crate::link::Transmit;
use crate::packet::{Flags, Local, Segment};
use crate::random::Random;
use crate::receiver::inbox::{BLOCKS_TOLD_MAX, Inbox};
use crate::receiver::window::GrowingWindow;
use crate::sender::checksum::copy_and_sum;
use crate::sender::chunks::{Chunks, LARGE_BYTES};
use crate::sender::lent::{Busy, NO_SENDER, Senders};
use crate::sender::sack::{self, Block, Options};
use crate::sender::{self, Ack, Sender, Start, Timeout};
use barewire_service::service::{End, Input, Next, Reply, Service};
use barewire_service::time::Duration;

use smoltcp::socket::tcp::{self, CongestionControl};

use super::serve::Outcome;
use super::wire::Nowhere;
use super::{Core, EGRESS_SEGMENTS_MAX, Port};

/// What a shard needs for its direct path.
pub(super) struct Direct {
    mode: DirectPath,
    random: Random,
    pub chunks: Chunks,
    pub senders: Senders,
    config: sender::Config,
}

/// The progress of a connection in one turn.
pub(super) struct Turn<'f> {
    /// What the peer sent and the service has not consumed.
    pub input: &'f [u8],
    /// `input` is a copy of what is in the inbox.
    is_in_inbox: bool,
    /// There is something in the inbox that the service has not seen.
    has_unseen: bool,
    /// Something arrived that no segment has acknowledged yet.
    pub owes_ack: bool,
    /// It is to be acknowledged at once.
    is_ack_urgent: bool,
    /// Segments that may still be sent.
    budget: usize,
}

impl<'f> Turn<'f> {
    fn new() -> Turn<'f> {
        Turn {
            input: &[],
            is_in_inbox: false,
            has_unseen: false,
            owes_ack: false,
            is_ack_urgent: false,
            budget: EGRESS_SEGMENTS_MAX,
        }
    }

    /// The service has consumed `count` bytes of the input.
    #[inline]
    fn consume(&mut self, count: usize, inbox: &mut Inbox, chunks: &mut Chunks) {
        assert!(
            count <= self.input.len(),
            "a service consumed more than there was"
        );
        if self.is_in_inbox {
            inbox.consume(chunks, count);
        }
        self.input = &self.input[count..];
    }

    /// Tells the window of a connection whose service has not taken what is in `inbox` and in the received frame.
    #[inline]
    fn tell_window(&self, tcb: &mut Tcb, window: &GrowingWindow, inbox: &Inbox, mss: u16) {
        tcb.tell_window(window.to_tell(self.held(inbox), tcb.rcv_wnd, mss));
    }

    /// Bytes that wait for the service, in `inbox` and in the received frame.
    #[inline]
    fn held(&self, inbox: &Inbox) -> usize {
        let in_frame = if self.is_in_inbox {
            0
        } else {
            self.input.len()
        };
        inbox.ready() + in_frame
    }
}

/// Where a segment lies that the direct path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// RCV.NXT is in it or where it begins, and all behind that is in the window.
    Next,
    /// Behind a gap, and in the window.
    Behind,
    /// All of it before RCV.NXT: a copy, or an ACK that was overtaken, or a keep-alive.
    Before,
}

/// The round trip that is assumed before one was measured.
const RTT_UNKNOWN: Duration = Duration::from_millis(1);

/// A window grows up to this part of the free chunks.
const SHARE_OF_FREE_BYTES: usize = 4;

/// Peers that want smaller segments are left to smoltcp.
const MSS_MIN: usize = 512;

impl Direct {
    pub fn new(
        mode: DirectPath,
        chunks: Chunks,
        senders: Senders,
        config: sender::Config,
    ) -> Direct {
        let seed = match mode {
            DirectPath::Random(seed) => seed,
            DirectPath::Never | DirectPath::Always => 0,
        };
        Direct {
            mode,
            random: Random::new(seed),
            chunks,
            senders,
            config,
        }
    }

    /// Whether a connection that could be served directly is to be.
    #[inline]
    pub fn is_wanted(&mut self) -> bool {
        match self.mode {
            DirectPath::Never => false,
            DirectPath::Always => true,
            DirectPath::Random(_) => self.random.below(2) == 0,
        }
    }
}

/// What all senders of a shard have in common.
pub(super) fn sender_config(config: &StackConfig) -> sender::Config {
    let ms = |ms| Duration::from_millis(u64::from(ms));
    let defaults = sender::Config::default();
    sender::Config {
        rto_min: ms(config.rto_min_ms),
        rto_max: ms(config.rto_max_ms),
        rto_initial: defaults.rto_initial.min(ms(config.rto_max_ms)),
        queue_bytes_max: config.send_queue_bytes_max.max(config.send_buffer_bytes) as u32,
        unsent_bytes_max: config.send_buffer_bytes as u32,
        ..defaults
    }
}

/// Writes the headers of a segment to the peer, which acknowledges what has arrived and tells the window of the
/// connection's [`Tcb`]. `payload_sum` is what the payload adds to the checksum.
fn write_headers(
    packet: &mut [u8],
    local: &Local,
    hot: &Hot,
    seq: u32,
    flags: Flags,
    payload_sum: u16,
) {
    let header = Header {
        seq,
        ack: hot.tcb.rcv_nxt,
        window: hot.tcb.rcv_wnd_field(),
        flags: Flags::ACK | flags,
        options_len: 0,
    };
    header::write(
        packet,
        local,
        &hot.flow,
        Direction::ToPeer,
        &header,
        payload_sum,
    );
}

/// Where `segment` lies, if it is one of those that the direct path takes: nothing but data, an acknowledgment and a
/// FIN that is not behind a gap, none of them out of bounds.
#[inline]
fn place(tcb: &Tcb, segment: &Segment) -> Option<Place> {
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
    /// Lets a connection that is served directly take a segment. Returns false, and nothing has happened, if the
    /// guards and smoltcp have to see it.
    #[inline]
    pub(super) fn direct_receives<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) -> bool {
        if !self.cold[index].is_direct && !self.take_back(index, segment) {
            return false;
        }
        let is_random = matches!(self.direct.mode, DirectPath::Random(_));
        let is_half_open = self.hot[index].tcb.state == State::SynReceived;
        if is_random && !is_half_open && self.can_be_handed_over(index) && !self.direct.is_wanted()
        {
            self.hand_over(index, &[]);
            return false;
        }
        if is_half_open {
            if !self.completes_handshake(index, segment) {
                return false;
            }
            if !self.establish_directly(index, segment, frame, port) {
                return true;
            }
        }
        let tcb = &self.hot[index].tcb;
        let is_open = tcb.state == State::Open;
        let Some(place) = place(tcb, segment) else {
            return false;
        };
        let is_repetition = place == Place::Before && tcb.is_repetition(segment);
        self.lend_sender(index);
        let acknowledged = self.take_ack_directly(index, segment, frame);
        // See `connection_receives`.
        if place == Place::Next || is_repetition {
            self.hot[index].link = port.link;
            self.follow_neighbour(index, segment, frame);
        }
        let mut turn = Turn::new();
        match place {
            Place::Next => self.take_next(index, segment, frame, &mut turn),
            Place::Behind => {
                if is_open {
                    self.keep_behind_gap(index, segment, frame);
                }
                turn.owes_ack = true;
                turn.is_ack_urgent = true;
            }
            // A copy shows that our ACK was lost, and so was the answer with it.
            Place::Before => {
                turn.owes_ack = segment.sequence_len() > 0 || self.is_keep_alive(index, segment);
                turn.is_ack_urgent = true;
            }
        }
        self.direct_turn(index, acknowledged, turn, port);
        true
    }

    /// Takes what a segment brings that is next.
    #[inline]
    fn take_next<'f>(
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
        let Direct {
            chunks, senders, ..
        } = &mut self.direct;
        let end = match senders.get_mut(cold.sender) {
            Some(Busy { inbox, .. }) if !inbox.is_empty() => {
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
    fn keep_behind_gap(&mut self, index: usize, segment: &Segment, frame: &[u8]) {
        let (tcb, cold) = (&self.hot[index].tcb, &mut self.cold[index]);
        let Direct {
            chunks, senders, ..
        } = &mut self.direct;
        let Some(Busy { inbox, .. }) = senders.get_mut(cold.sender) else {
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

    /// Whether a socket's buffers hold all that a connection keeps that is served directly, and no side has ended its
    /// stream.
    #[inline]
    pub(super) fn can_be_handed_over(&self, index: usize) -> bool {
        let tcb = &self.hot[index].tcb;
        if self.cold[index].is_direct && (tcb.fin_received || tcb.state == State::Closing) {
            return false;
        }
        match self.direct.senders.get(self.cold[index].sender) {
            Some(Busy { sender, inbox, .. }) => {
                sender.kept() <= self.config.send_buffer_bytes
                    && inbox.ready() <= self.config.receive_buffer_bytes
            }
            None => true,
        }
    }

    /// Takes the acknowledgment of a segment for smoltcp, which could not take the connection over. Returns whether it
    /// still cannot: then what else the segment says has to come again.
    #[cold]
    pub(super) fn is_hand_over_postponed<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) -> bool {
        let acknowledged = self.take_ack_directly(index, segment, frame);
        if self.can_be_handed_over(index) {
            self.note_direct_progress(index, acknowledged);
            return false;
        }
        self.counters.hand_overs_postponed.increment();
        let turn = Turn {
            owes_ack: segment.sequence_len() > 0,
            is_ack_urgent: true,
            ..Turn::new()
        };
        self.direct_turn(index, acknowledged, turn, port);
        true
    }

    /// The sender of a connection that has one.
    #[inline]
    fn sender(&self, index: usize) -> Option<&Sender> {
        let busy = self.direct.senders.get(self.cold[index].sender)?;
        Some(&busy.sender)
    }

    /// Gives a connection that is served directly a sender, unless it has one.
    #[inline]
    pub(super) fn lend_sender(&mut self, index: usize) {
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
        let quiet_ms = self.now_ms().wrapping_sub(self.hot[index].progress_at_ms);
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

    /// Takes what a segment acknowledges, and returns how many bytes that is.
    #[inline]
    fn take_ack_directly(&mut self, index: usize, segment: &Segment, frame: &[u8]) -> u32 {
        let (hot, cold) = (&mut self.hot[index], &self.cold[index]);
        let Direct {
            chunks,
            config,
            senders,
            ..
        } = &mut self.direct;
        let Some(Busy { sender, .. }) = senders.get_mut(cold.sender) else {
            return 0;
        };
        let option_bytes = &frame[segment.tcp_offset() + 20..segment.payload_offset()];
        let options = match option_bytes {
            [] => Options::default(),
            bytes => Options::parse(bytes),
        };
        let ack = Ack {
            seq: segment.seq,
            ack: segment.ack,
            window: u32::from(segment.window) << hot.tcb.scales.snd(),
            has_payload: segment.payload_len() > 0,
            sack: options.blocks(),
            rtt: None,
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
    fn is_keep_alive(&mut self, index: usize, segment: &Segment) -> bool {
        let now_ms = self.now_ms();
        let is_due = self.is_due_an_ack(index);
        let hot = &mut self.hot[index];
        let is_probe = segment.seq.wrapping_add(1) == hot.tcb.rcv_nxt;
        if is_probe && is_due {
            hot.flags.was_challenged = true;
            hot.challenge_at_ms = now_ms;
        }
        is_probe && is_due
    }

    /// Goes on with a connection that had to wait, or whose timer has expired.
    pub(super) fn resume_directly<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        if self.hot[index].tcb.state == State::SynReceived {
            return;
        }
        if self.cold[index].wants_room {
            self.lend_sender(index);
        }
        self.direct_turn(index, 0, Turn::new(), port);
    }

    fn direct_turn<T: Transmit>(
        &mut self,
        index: usize,
        acknowledged: u32,
        mut turn: Turn<'_>,
        port: &mut Port<'_, T>,
    ) {
        if self.hot[index].tcb.state == State::Closing {
            return self.closing_turn(index, acknowledged, turn, port);
        }
        // Repairs go before what is new.
        self.send_kept(index, &mut turn, port);
        match self.serve_what_waits(index, &mut turn, port) {
            Outcome::Continue => self.note_idle(index),
            Outcome::Close => {
                self.close(index);
                return self.closing_turn(index, acknowledged, turn, port);
            }
            Outcome::Abort => {
                self.counters.aborts.increment();
                if turn.owes_ack {
                    self.hot[index].tcb.rcv_nxt = self.cold[index].told;
                }
                return self.abort(index, End::Closed, port);
            }
        }
        self.send_kept(index, &mut turn, port);
        let held = turn.input;
        let is_held = held.is_empty() || self.hold(index, held);
        if is_held {
            turn.input = &[];
        }
        if !turn.owes_ack && self.has_made_room(index, &turn) {
            turn.owes_ack = true;
            turn.is_ack_urgent = true;
        }
        if turn.owes_ack {
            match turn.is_ack_urgent || !held.is_empty() || self.is_ack_worth_it(index) {
                true => self.acknowledge(index, &turn, port),
                false => self.owing.push(index as u32),
            }
        }
        self.note_direct_progress(index, acknowledged);
        if !is_held || self.is_stuck_for_room(index) {
            if !self.can_be_handed_over(index) {
                if is_held {
                    return self.wait_to_send(index);
                }
                self.counters.inbox_aborts.increment();
                return self.abort(index, End::Closed, port);
            }
            self.hand_over(index, if is_held { &[] } else { held });
            self.serve_turn(index, &[], port);
            return self.finish_turn(index, 0, port);
        }
        if self.is_draining && self.is_idle(index) {
            self.dismiss(index);
            self.finish_turn(index, 0, port);
        }
    }

    /// Keeps the end of what has arrived, which the service has seen and not consumed. Returns false if no chunk is
    /// free.
    fn hold(&mut self, index: usize, input: &[u8]) -> bool {
        let Direct {
            chunks, senders, ..
        } = &mut self.direct;
        let Some(Busy { inbox, .. }) = senders.get_mut(self.cold[index].sender) else {
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

    /// Lets the service say something on a connection that is served directly, if there is room for it.
    pub(super) fn say_directly(
        &mut self,
        index: usize,
        say: impl FnOnce(&mut S, &mut S::Connection, &mut Reply<'_>),
    ) {
        self.lend_sender(index);
        let cold = &mut self.cold[index];
        let Direct {
            chunks,
            config,
            senders,
            ..
        } = &mut self.direct;
        let Some(Busy { sender, .. }) = senders.get_mut(cold.sender) else {
            return;
        };
        let free = chunks.free_bytes() / LARGE_BYTES * usize::from(sender.mss());
        if sender.room_to_queue(chunks, config).min(free) >= S::REPLY_BYTES_MIN {
            let mut reply = Reply::new(&mut self.scratch.reply[..S::REPLY_BYTES_MIN]);
            let state = self.states.get::<S>(cold.state);
            say(&mut self.service, state, &mut reply);
            self.states.settle::<S>(&mut cold.state);
            let queued = sender.queue(chunks, config, reply.written(), self.now);
            debug_assert_eq!(queued, reply.len(), "there was room for it");
        }
    }

    /// Whether the service has taken so much that waited for it that the peer should hear of the room.
    #[inline]
    fn has_made_room(&self, index: usize, turn: &Turn<'_>) -> bool {
        let told = self.hot[index].tcb.rcv_wnd;
        if self.hot[index].tcb.fin_received {
            return false;
        }
        let busy = self.direct.senders.get(self.cold[index].sender);
        busy.is_some_and(
            |Busy {
                 sender,
                 window,
                 inbox,
                 ..
             }| { window.is_worth_telling(turn.held(inbox), told, sender.mss()) },
        )
    }

    /// Whether the service waits for space that no acknowledgment will free.
    fn is_stuck_for_room(&self, index: usize) -> bool {
        let cold = &self.cold[index];
        cold.wants_room
            && !self.hot[index].flags.is_waiting_to_send
            && self.sender(index).is_some_and(Sender::is_quiet)
    }

    /// Lets the service take what has arrived, in the received frame or in the inbox.
    #[inline]
    fn serve_what_waits<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) -> Outcome {
        let cold = &self.cold[index];
        let has_ready = (self.direct.senders.get(cold.sender))
            .is_some_and(|Busy { inbox, .. }| inbox.ready() > 0);
        match has_ready && (turn.has_unseen || cold.wants_room) {
            true => self.serve_inbox(index, turn, port),
            false => self.serve_directly(index, turn, port),
        }
    }

    /// Shows the service what is ready in the inbox, a receive buffer at a time.
    fn serve_inbox<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) -> Outcome {
        let mut buffer = std::mem::take(&mut self.scratch.input);
        let outcome = loop {
            let Direct {
                chunks, senders, ..
            } = &mut self.direct;
            let Some(Busy { inbox, .. }) = senders.get(self.cold[index].sender) else {
                break Outcome::Continue;
            };
            let len = inbox.copy_ready(chunks, &mut buffer);
            let mut part = Turn {
                input: &buffer[..len],
                is_in_inbox: true,
                ..*turn
            };
            let outcome = self.serve_directly(index, &mut part, port);
            let left = part.input.len();
            (turn.budget, turn.owes_ack) = (part.budget, part.owes_ack);
            // More than a buffer was ready, and the service has not come to a stop within it.
            let may_go_on = left < len && len == buffer.len() && !self.cold[index].wants_room;
            if outcome != Outcome::Continue || !may_go_on {
                break outcome;
            }
        };
        self.scratch.input = buffer;
        outcome
    }

    /// Calls the service for as long as there is something new for it and room for its replies.
    #[inline]
    fn serve_directly<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) -> Outcome {
        let is_end_unseen = self.hot[index].tcb.fin_received && !self.cold[index].end_seen;
        if turn.input.is_empty() && !self.cold[index].wants_room && !is_end_unseen {
            return Outcome::Continue;
        }
        loop {
            let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
            let Direct {
                chunks,
                config,
                senders,
                ..
            } = &mut self.direct;
            let Some(Busy {
                sender,
                window,
                inbox,
                ..
            }) = senders.get_mut(cold.sender)
            else {
                return Outcome::Continue;
            };
            let to_keep = sender.room_to_queue(chunks, config);
            let at_once = sender.room_now().min(to_keep);
            // Only the queue cuts long replies into full segments.
            let is_cut = cold.wants_room && at_once < usize::from(sender.mss());
            let has_slot = turn.budget > 0 && port.transmit.free_slots() > port.reserve;
            let in_place =
                has_slot && !is_cut && at_once >= S::REPLY_BYTES_MIN && chunks.has_room(at_once);
            let free = chunks.free_bytes() / LARGE_BYTES * usize::from(sender.mss());
            let room = if in_place { at_once } else { to_keep.min(free) };
            if room < S::REPLY_BYTES_MIN {
                sender.count_limit(chunks, config, S::REPLY_BYTES_MIN);
                cold.wants_room = true;
                return Outcome::Continue;
            }
            if !in_place && cold.wants_room && turn.budget == 0 {
                self.wait_to_send(index);
                return Outcome::Continue;
            }
            let shown = if turn.is_in_inbox {
                turn.input.len()
            } else {
                0
            };
            let has_ended = hot.tcb.fin_received && inbox.ready() == shown;
            let input = Input {
                bytes: turn.input,
                full: turn.input.len() == self.config.receive_buffer_bytes,
                ended: has_ended,
            };
            let at = header::bytes(&hot.flow);
            let l2 = self.neighbours.get(cold.neighbour);
            let packet = match in_place {
                true => port.transmit.slot().and_then(|slot| l2.write(slot)),
                false => None,
            };
            let in_slot = packet.and_then(|packet| packet.get_mut(..at + room));
            let was_idle = sender.is_quiet();
            let (progress, written) = match in_slot {
                Some(packet) => {
                    let mut reply = Reply::new(&mut packet[at..]);
                    let state = self.states.get::<S>(cold.state);
                    let progress = (self.service).on_input(state, input, &mut reply);
                    self.states.settle::<S>(&mut cold.state);
                    let written = reply.len();
                    turn.consume(progress.consumed, inbox, chunks);
                    // More output can fill this segment, or a FIN leave with it.
                    let is_followed = progress.next == Next::Send && written < room;
                    if is_close(progress.next, has_ended) || is_followed {
                        let queued = sender.queue(chunks, config, reply.written(), self.now);
                        debug_assert_eq!(queued, written, "there was a chunk for the reply");
                    } else if written > 0 && progress.next != Next::Abort {
                        let seq = sender.nxt();
                        let payload = &packet[at..at + written];
                        let Ok(sum) = sender.push_sent(chunks, config, payload, self.now) else {
                            debug_assert!(false, "there was a chunk for the reply");
                            return Outcome::Abort;
                        };
                        turn.tell_window(&mut hot.tcb, window, inbox, sender.mss());
                        hot.tcb.snd_nxt = sender.nxt();
                        let is_last = progress.next != Next::Send;
                        let packet = &mut packet[..at + written];
                        let flags = if is_last { Flags::PSH } else { Flags(0) };
                        write_headers(packet, &self.local, hot, seq, flags, sum);
                        cold.path.note_sent(packet.len());
                        port.transmit.commit(l2.len() + at + written);
                        turn.owes_ack = false;
                        cold.told = hot.tcb.rcv_nxt;
                        turn.budget -= 1;
                    }
                    (progress, written)
                }
                None => {
                    let room = room.min(self.scratch.reply.len());
                    let mut reply = Reply::new(&mut self.scratch.reply[..room]);
                    let state = self.states.get::<S>(cold.state);
                    let progress = (self.service).on_input(state, input, &mut reply);
                    self.states.settle::<S>(&mut cold.state);
                    let written = reply.len();
                    turn.consume(progress.consumed, inbox, chunks);
                    if sender.queue(chunks, config, reply.written(), self.now) < written {
                        debug_assert!(false, "there were chunks for the reply");
                        return Outcome::Abort;
                    }
                    (progress, written)
                }
            };
            if was_idle && written > 0 {
                hot.progress_at_ms = self.now.total_millis() as u32;
            }
            debug_assert!(sender.is_consistent(chunks), "[UNA, NXT) is not the chunks");
            // A socket must be able to take what one segment holds.
            let may_grow = self.config.receive_buffer_bytes >= self.config.mtu;
            if may_grow && progress.consumed > 0 {
                let rtt = sender.rtt().smoothed().unwrap_or(RTT_UNKNOWN);
                let scaled_max = u32::from(u16::MAX) << hot.tcb.scales.rcv();
                let bytes_max = scaled_max.min(self.config.receive_window_bytes_max as u32);
                // What lies behind a gap takes chunks.
                let share = chunks.free_bytes() / SHARE_OF_FREE_BYTES;
                let bytes_max = bytes_max.min(share as u32);
                window.on_taken(progress.consumed as u32, bytes_max, rtt, self.now);
            }
            cold.wants_room = progress.next == Next::Send;
            cold.end_seen = has_ended;
            let deadlines = &self.config.deadlines;
            cold.watch.on_progress(self.now, &progress, deadlines);
            match progress.next {
                // No service is woken here.
                Next::Abort | Next::Wait => return Outcome::Abort,
                next if is_close(next, has_ended) => return Outcome::Close,
                Next::Close | Next::Receive(_) => return Outcome::Continue,
                Next::Send if progress.consumed == 0 && written == 0 => return Outcome::Continue,
                Next::Send if !in_place => self.send_kept(index, turn, port),
                Next::Send => {}
            }
        }
    }

    /// Sends what has to be sent again, and what is queued, as far as both windows and the turn allow.
    #[inline]
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

    fn send_what_is_kept<T: Transmit>(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        port: &mut Port<'_, T>,
    ) {
        loop {
            let (hot, cold) = (&mut self.hot[index], &mut self.cold[index]);
            let Direct {
                chunks,
                config,
                senders,
                ..
            } = &mut self.direct;
            let Some(Busy {
                sender,
                window,
                inbox,
                ..
            }) = senders.get_mut(cold.sender)
            else {
                return;
            };
            if turn.budget == 0 || port.transmit.free_slots() <= port.reserve {
                if sender.queued() > 0 || sender.is_due() {
                    self.wait_to_send(index);
                }
                return;
            }
            let Some(slot) = port.transmit.slot() else {
                return;
            };
            let at = header::bytes(&hot.flow);
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
                hot.progress_at_ms = self.now.total_millis() as u32;
            }
            tcb.snd_nxt = sender.nxt();
            tcb.fin_sent |= segment.is_fin;
            turn.tell_window(tcb, window, inbox, sender.mss());
            let flags = match segment.is_last && !cold.wants_room {
                _ if segment.is_fin => Flags::FIN,
                true => Flags::PSH,
                false => Flags(0),
            };
            write_headers(packet, &self.local, hot, segment.seq, flags, sum);
            cold.path.note_sent(packet.len());
            let len = l2.len() + packet.len();
            port.transmit.commit(len);
            debug_assert!(sender.is_consistent(chunks), "[UNA, NXT) is not the chunks");
            if segment.is_resent {
                self.counters.retrans_segs.increment();
            }
            turn.owes_ack = false;
            cold.told = hot.tcb.rcv_nxt;
            turn.budget -= 1;
        }
    }

    /// Whether what has arrived and was not acknowledged is worth a segment of its own before the batch is over:
    /// every second full one (RFC 5681, section 4.2), and before the window is used up.
    #[inline]
    fn is_ack_worth_it(&self, index: usize) -> bool {
        let (hot, cold) = (&self.hot[index], &self.cold[index]);
        let Some(Busy { sender, window, .. }) = self.direct.senders.get(cold.sender) else {
            return true;
        };
        let untold = hot.tcb.rcv_nxt.wrapping_sub(cold.told);
        untold >= 2 * u32::from(sender.mss())
            || hot.tcb.rcv_wnd < window.bytes() / 2
            || self.owing.len() == self.owing.capacity()
    }

    /// Acknowledges what arrived with a batch and was not acknowledged yet: no ACK is delayed beyond the batch, so
    /// that no peer has to wait for it.
    pub(super) fn acknowledge_batch<T: Transmit>(&mut self, port: &mut Port<'_, T>) {
        while let Some(index) = self.owing.pop() {
            let index = index as usize;
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
        let mut options_len = 0;
        if let Some(busy) = self.direct.senders.get(cold.sender) {
            let Busy { sender, inbox, .. } = busy;
            turn.tell_window(tcb, &busy.window, inbox, sender.mss());
            if inbox.behind_a_gap() > 0 && cold.options.sack_permitted {
                let mut blocks = [Block::default(); BLOCKS_TOLD_MAX];
                let count = inbox.blocks(&self.direct.chunks, tcb.rcv_nxt, &mut blocks);
                options_len = sack::write(&mut options, None, &blocks[..count]);
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

    /// Keeps the deadlines of a connection of which `acknowledged` bytes more were acknowledged.
    #[inline]
    pub(super) fn note_direct_progress(&mut self, index: usize, acknowledged: u32) {
        self.note_acknowledged(index, acknowledged);
        let cold = &mut self.cold[index];
        let never = crate::connection::NEVER;
        let (kept, sending_at) = match self.direct.senders.get(cold.sender) {
            Some(Busy { sender, .. }) => (sender.kept(), sender.deadline().unwrap_or(never)),
            None if cold.is_direct => (0, never),
            None => return,
        };
        let deadlines = &self.config.deadlines;
        (cold.watch).on_sent(self.now, acknowledged as usize, kept, deadlines);
        let mut at = sending_at.min(cold.watch.next_at().unwrap_or(never));
        let tcb = &self.hot[index].tcb;
        if kept > 0 || tcb.snd_una != tcb.snd_nxt {
            at = at.min(self.user_timeout_at(index).unwrap_or(never));
        }
        self.call_at(index, at);
    }

    /// The timer of a connection that is served directly has expired, and no deadline has passed.
    pub(super) fn direct_timer_expires<T: Transmit>(
        &mut self,
        index: usize,
        port: &mut Port<'_, T>,
    ) {
        let (hot, cold) = (&self.hot[index], &mut self.cold[index]);
        if hot.tcb.state == State::SynReceived {
            self.counters.retrans_segs.increment();
            return self.answer_syn(index, port);
        }
        let Direct {
            chunks,
            config,
            senders,
            ..
        } = &mut self.direct;
        let timeout = match senders.get_mut(cold.sender) {
            Some(Busy { sender, .. }) => sender.on_deadline(chunks, config, self.now),
            None => Timeout::None,
        };
        let is_silent = matches!(timeout, Timeout::Retransmission { .. });
        let is_black_hole = is_silent && cold.path.on_timeout(hot.flow.is_ipv6(), self.now);
        if is_black_hole {
            self.counters.path_black_holes.increment();
        }
        // What is known of the path may also have expired.
        self.follow_path(index);
        self.resume_directly(index, port);
    }

    /// From here on cuts segments by the current size of the path, which may have changed.
    #[inline]
    pub(super) fn follow_path(&mut self, index: usize) {
        let mss = self.mss(index);
        let handle = self.cold[index].sender;
        if let Some(Busy { sender, .. }) = self.direct.senders.get_mut(handle)
            && sender.mss() != mss
        {
            sender.set_mss(&mut self.direct.chunks, mss);
        }
    }

    /// The largest payload that the peer and the path take.
    fn mss(&mut self, index: usize) -> u16 {
        let header_bytes = header::bytes(&self.hot[index].flow);
        let path = self.packet_bytes_max(index).saturating_sub(header_bytes);
        let mss = usize::from(self.cold[index].options.mss).min(path);
        mss.min(LARGE_BYTES) as u16
    }

    /// Whether the direct path is for connections like this one.
    pub(super) fn is_for_direct_path(&mut self, index: usize) -> bool {
        self.direct.mode != DirectPath::Never && usize::from(self.mss(index)) >= MSS_MIN
    }

    /// The ACK that completes a handshake has arrived. Returns false if nothing is left to do.
    fn establish_directly<T: Transmit>(
        &mut self,
        index: usize,
        segment: &Segment,
        frame: &[u8],
        port: &mut Port<'_, T>,
    ) -> bool {
        self.hot[index].link = port.link;
        self.follow_neighbour(index, segment, frame);
        if self.is_source_full(&segment.flow) {
            self.counters.source_overflows.increment();
            self.abort(index, End::Refused, port);
            return false;
        }
        let tcb = &mut self.hot[index].tcb;
        tcb.take_window(segment);
        tcb.snd_una = segment.ack;
        self.establish(index);
        self.counters.direct_takes.increment();
        if segment.sequence_len() > 0 || self.is_draining {
            return true;
        }
        self.note_direct_progress(index, 1);
        false
    }

    /// Takes a connection from smoltcp if `segment` acknowledges all that was sent and its data is next. A peer that sends a
    /// request as soon as it has its answer would never leave the connection idle.
    #[cold]
    fn take_back(&mut self, index: usize, segment: &Segment) -> bool {
        let tcb = &self.hot[index].tcb;
        let is_next = self.direct.mode != DirectPath::Never
            && segment.payload_len() > 0
            && segment.window > 0
            && segment.ack == tcb.snd_nxt
            && place(tcb, segment) == Some(Place::Next);
        if !is_next {
            return false;
        }
        self.take_acknowledged_directly(index, segment.ack);
        self.cold[index].is_direct
    }

    /// Takes a connection from smoltcp that is established and has nothing in flight or out of order.
    #[inline]
    pub(super) fn take_directly(&mut self, index: usize) {
        self.take_acknowledged_directly(index, self.hot[index].tcb.snd_una);
    }

    /// The same, once all below `ack` is acknowledged.
    fn take_acknowledged_directly(&mut self, index: usize, ack: u32) {
        if self.direct.mode == DirectPath::Never
            || self.is_draining
            || !self.is_quiet(index, ack)
            || !self.direct.is_wanted()
        {
            return;
        }
        if !self.is_for_direct_path(index) {
            return;
        }
        let (hot, cold) = (&self.hot[index], &mut self.cold[index]);
        cold.is_direct = true;
        let acknowledged = ack.wrapping_sub(hot.tcb.snd_una);
        cold.told = hot.tcb.rcv_nxt;
        self.sockets.give_back(&mut cold.socket);
        self.counters.direct_takes.increment();
        if acknowledged > 0 {
            self.hot[index].tcb.snd_una = ack;
            self.note_direct_progress(index, acknowledged);
        }
    }

    /// Whether a connection's whole state is in its hot line, once all below `ack` is acknowledged.
    fn is_quiet(&mut self, index: usize, ack: u32) -> bool {
        let (hot, cold) = (&self.hot[index], &mut self.cold[index]);
        let tcb = &hot.tcb;
        let is_told = tcb.state == State::Open
            && ack == tcb.snd_nxt
            && !tcb.fin_received
            && !hot.flags.is_waiting_to_send
            && !cold.is_direct
            // The peer does not wait for more room.
            && tcb.rcv_wnd as usize * 2 >= self.config.receive_buffer_bytes
            // Nothing has arrived behind a gap.
            && tcb.rcv_nxt == cold.highest
            && !cold.wants_room
            && !cold.end_seen
            && !cold.close_pending;
        if !is_told {
            return false;
        }
        let in_flight = tcb.snd_nxt.wrapping_sub(tcb.snd_una);
        let socket = self.sockets.slot(cold.socket).socket();
        socket.state() == tcp::State::Established
            && socket.send_queue() == in_flight as usize
            && socket.recv_queue() == 0
    }

    /// Gives a connection that is served directly to a new smoltcp socket. `unheld` is the end of what the peer has
    /// sent, which the service has seen and not consumed, and which is not in the inbox.
    ///
    /// Does nothing to a connection that smoltcp has.
    ///
    /// # Panics
    ///
    /// In debug builds, unless the connection [can be handed over](Core::can_be_handed_over).
    pub(super) fn hand_over(&mut self, index: usize, unheld: &[u8]) {
        debug_assert!(self.can_be_handed_over(index), "no socket holds all that");
        let cold = &mut self.cold[index];
        if !std::mem::take(&mut cold.is_direct) {
            return;
        }
        if self.hot[index].tcb.state == State::SynReceived {
            return self.hand_over_half_open(index);
        }
        let mut busy = self.direct.senders.give_back(&mut cold.sender);
        self.counters.direct_hand_overs.increment();
        let Hot {
            tcb,
            progress_at_ms,
            ..
        } = self.hot[index];
        let (path, told) = (self.cold[index].path, self.cold[index].told);
        let mut input = std::mem::take(&mut self.scratch.input);
        let held = match &busy {
            Some(Busy { inbox, .. }) if !inbox.is_empty() => {
                let len = inbox.copy_ready(&self.direct.chunks, &mut input);
                &input[..len]
            }
            _ => unheld,
        };
        let isn = tcb.snd_una.wrapping_sub(1);
        let irs = tcb.rcv_nxt.wrapping_sub(held.len() as u32 + 1);
        self.hot[index].tcb = Tcb {
            snd_una: isn,
            snd_nxt: isn,
            rcv_nxt: irs.wrapping_add(1),
            state: tcb.state,
            ..Tcb::default()
        };
        self.give_socket(index, isn);
        let options = self.cold[index].options;
        (self.socket(index)).set_congestion_control(CongestionControl::None);
        self.replay_handshake(index, irs, options);

        self.replay(index, &tcb, irs.wrapping_add(1), held);
        let held_len = held.len();
        self.scratch.input = input;
        if let Some(Busy { inbox, .. }) = &mut busy {
            self.replay_inbox(index, &tcb, inbox);
            inbox.discard(&mut self.direct.chunks);
        }
        let sender = busy.as_mut().map(|busy| &mut busy.sender);
        let mut unseen = std::mem::take(&mut self.scratch.unseen);
        let chunks = &self.direct.chunks;
        let socket = self.sockets.slot(self.cold[index].socket).socket();
        let sent = queue_all(
            socket,
            kept_segments(sender.as_deref(), chunks).map(|kept| match kept {
                sender::KeptSegment::Sent(bytes) => bytes,
                sender::KeptSegment::Queued(_) => &[],
            }),
        );
        // The socket's timer runs from when this was really sent.
        let oldest_sent_at = (sender.as_ref())
            .and_then(|sender| sender.oldest_sent_at(&self.direct.chunks))
            .unwrap_or(self.now);
        while let Some(sent) = self.send_next(index, oldest_sent_at, &mut Nowhere(&mut unseen)) {
            if !sent.may_be_followed() {
                break;
            }
        }
        let chunks = &self.direct.chunks;
        let socket = self.sockets.slot(self.cold[index].socket).socket();
        let queued = queue_all(
            socket,
            kept_segments(sender.as_deref(), chunks).map(|kept| match kept {
                sender::KeptSegment::Queued(bytes) => bytes,
                sender::KeptSegment::Sent(_) => &[],
            }),
        );
        debug_assert!(sent && queued, "what was kept fits the send buffer");
        debug_assert_eq!(
            socket.recv_queue(),
            held_len,
            "what was held is there again"
        );
        socket.set_congestion_control(CongestionControl::Reno);
        self.scratch.unseen = unseen;

        let reach = tcb.rcv_nxt.wrapping_add(self.receive_room(held_len) as u32);
        let cold = &mut self.cold[index];
        (cold.path, cold.told) = (path, told);
        if is_before(reach, cold.highest) {
            cold.highest = reach;
        }
        let slot = self.sockets.slot(cold.socket);
        slot.late_at = crate::connection::NEVER;
        slot.seen = held_len;
        if let Some(sender) = sender {
            cold.remembered = sender.remember();
            sender.discard(&mut self.direct.chunks);
        }
        let hot = &mut self.hot[index];
        hot.tcb = tcb;
        hot.progress_at_ms = progress_at_ms;
        debug_assert!(!is_before(tcb.snd_nxt, tcb.snd_una));
    }

    /// Room in the receive buffer of a socket that holds `held` bytes.
    fn receive_room(&self, held: usize) -> usize {
        self.config.receive_buffer_bytes.saturating_sub(held)
    }

    /// Lets a new socket hear `bytes` of the peer's from `seq` on, in a segment or more. The first one completes its
    /// handshake.
    fn replay(&mut self, index: usize, tcb: &Tcb, seq: u32, bytes: &[u8]) {
        let flow = self.hot[index].flow;
        let at = header::bytes(&flow);
        let mut packet = std::mem::take(&mut self.scratch.packet);
        let mut unseen = std::mem::take(&mut self.scratch.unseen);
        let len_max = packet.len() - at;
        let mut rest = bytes;
        loop {
            let (payload, behind) = rest.split_at(rest.len().min(len_max));
            let header = Header {
                seq: seq.wrapping_add((bytes.len() - rest.len()) as u32),
                ack: tcb.snd_una,
                window: tcb.snd_wnd,
                flags: Flags::ACK,
                options_len: 0,
            };
            let packet = &mut packet[..at + payload.len()];
            let sum = copy_and_sum(&mut packet[at..], payload);
            let direction = Direction::FromPeer;
            header::write(packet, &self.local, &flow, direction, &header, sum);
            self.ingress(index, packet, &mut Nowhere(&mut unseen));
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        self.scratch.packet = packet;
        self.scratch.unseen = unseen;
    }

    /// Lets a new socket hear what is behind a gap in `inbox`, as far as its buffer goes. The rest is the peer's to send
    /// again (RFC 2018, section 8).
    fn replay_inbox(&mut self, index: usize, tcb: &Tcb, inbox: &Inbox) {
        let room = self.receive_room(inbox.ready());
        let mut copy = [0; LARGE_BYTES];
        let mut from = tcb.rcv_nxt;
        loop {
            let next = inbox.pieces(&self.direct.chunks, from).next();
            let Some((seq, payload)) = next else {
                return;
            };
            if seq.wrapping_sub(tcb.rcv_nxt) as usize >= room {
                return;
            }
            let len = payload.len();
            copy[..len].copy_from_slice(payload);
            self.replay(index, tcb, seq, &copy[..len]);
            from = seq.wrapping_add(len as u32);
        }
    }
}

/// Whether a connection is closed whose service wants `next`: it may wait for input that will not come.
#[inline]
fn is_close(next: Next, has_ended: bool) -> bool {
    next == Next::Close || has_ended && matches!(next, Next::Receive(_))
}

fn kept_segments<'c>(
    sender: Option<&Sender>,
    chunks: &'c Chunks,
) -> impl Iterator<Item = sender::KeptSegment<'c>> + use<'c> {
    let kept = sender.map(|sender| sender.kept_segments(chunks));
    kept.into_iter().flatten()
}

/// Queues all of `segments` in a socket; false if there was no room for it.
fn queue_all<'c>(socket: &mut tcp::Socket<'_>, segments: impl Iterator<Item = &'c [u8]>) -> bool {
    let mut fits = true;
    for bytes in segments {
        fits &= socket.send_slice(bytes) == Ok(bytes.len());
    }
    fits
}
