//! The direct path: established connections that are served in place.
//!
//! A connection with nothing unusual does not need a socket. Its [`Tcb`] says what is expected next, and its
//! [`Sender`] keeps what was sent until it is acknowledged, and repairs what is lost:
//!
//! ```text
//!   received frame ─▶ takes ─▶ Sender::on_ack ─▶ Service ─▶ transmit slot ─▶ Sender::push_sent ─▶ headers
//!                       │                           ▲           no slot, no window: Sender::queue
//!                       │ anything else             └── payload in the received frame, or what waited for it in the
//!                       │                               inbox; reply in the slot, or copied to several slots where
//!                       ▼                               one segment brings many requests
//!                   hand_over ─▶ a new smoltcp socket ─▶ quiet again ─▶ take_directly
//! ```
//!
//! The socket that takes over is new. A handshake is replayed to it, with SND.UNA - 1 and RCV.NXT - 1 as initial
//! sequence numbers, then what the peer sent and the service has not consumed, then what is in flight. What it
//! sends meanwhile is dropped. So no sequence number has to be translated, and nothing depends on smoltcp's internal
//! state.
//!
//! | module | what it has |
//! |---|---|
//! | `input` | what a segment brings, and where it lies |
//! | `turn` | from what has arrived over the service to its reply |
//! | `output` | what is kept and sent, and ACKs |
//! | `lend` | which connections have a sender |
//! | `closing` | FINs, until the connection is over |
//! | `handover` | to smoltcp and back |
//!
//! What makes this safe:
//!
//! * A connection has one of two forms: [`Cold::is_direct`](crate::connection::Cold::is_direct), or the socket has
//!   its state. [`Tcb`] holds what was sent to and received from the peer in both cases, and the guards read
//!   nothing else.
//! * What a socket's buffers do not hold cannot be handed over, nor can a connection of which one side has ended its
//!   stream ([`closing`]). Such a connection stays where it is: of what only smoltcp understands, urgent
//!   data say, it takes the acknowledgment, and the peer sends it again (`hand_overs_postponed`). What lies behind a gap
//!   is kept here, in the [`Inbox`].
//! * A service's call cannot be undone, so there is a chunk for its reply before it is called.

mod closing;
mod handover;
mod input;
mod lend;
mod output;
mod turn;

use crate::config::{DirectPath, StackConfig};
use crate::guard::segment::State;
use crate::header;
use crate::link::Transmit;
use crate::packet::Segment;
use crate::random::Random;
use crate::receiver::inbox::Inbox;
use crate::receiver::window::GrowingWindow;
use crate::sender::chunks::{Chunks, LARGE_BYTES};
use crate::sender::lent::{Busy, Senders};
use crate::sender::{self, Sender, Timeout};
use barewire_service::service::{End, Service};
use barewire_service::time::Duration;

use super::{Core, Port};
use input::{Place, place};
use turn::Turn;

/// What a shard needs for its direct path.
pub(super) struct Direct {
    mode: DirectPath,
    random: Random,
    pub chunks: Chunks,
    pub senders: Senders,
    config: sender::Config,
}

/// What a busy connection has, and where its chunks come from.
pub(super) struct Slot<'d> {
    pub sender: &'d mut Sender,
    pub window: &'d mut GrowingWindow,
    pub inbox: &'d mut Inbox,
    pub chunks: &'d mut Chunks,
    pub config: &'d sender::Config,
}

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

    /// What a connection has while it is busy; `None` if it has no sender.
    #[inline]
    pub fn slot(&mut self, handle: u32) -> Option<Slot<'_>> {
        let busy = self.senders.get_mut(handle)?;
        Some(Slot {
            sender: &mut busy.sender,
            window: &mut busy.window,
            inbox: &mut busy.inbox,
            chunks: &mut self.chunks,
            config: &self.config,
        })
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

/// Peers that want smaller segments are left to smoltcp.
const MSS_MIN: usize = 512;

/// A segment with so much payload is probably followed by others.
const BULK_BYTES: usize = 1_024;

impl<S: Service> Core<'_, S> {
    /// Lets a connection that is served directly take a segment. Returns false, and nothing has happened, if the
    /// guards and smoltcp have to see it.
    #[inline]
    pub(in crate::shard) fn direct_receives<T: Transmit>(
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
        turn.is_bulk =
            segment.payload_len() >= BULK_BYTES && self.owing.len() < self.owing.capacity();
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
        self.direct_turn(index, acknowledged, &mut turn, port);
        true
    }

    /// Goes on with a connection that had to wait, or whose timer has expired.
    pub(in crate::shard) fn resume_directly<T: Transmit>(
        &mut self,
        index: usize,
        port: &mut Port<'_, T>,
    ) {
        if self.hot[index].tcb.state == State::SynReceived {
            return;
        }
        if self.cold[index].wants_room {
            self.lend_sender(index);
        }
        self.direct_turn(index, 0, &mut Turn::new(), port);
    }

    /// Keeps the deadlines of a connection of which `acknowledged` bytes more were acknowledged.
    #[inline]
    pub(in crate::shard) fn note_direct_progress(&mut self, index: usize, acknowledged: u32) {
        self.note_acknowledged(index, acknowledged);
        let (hot, cold) = (&self.hot[index], &mut self.cold[index]);
        let never = crate::connection::NEVER;
        let (kept, sending_at) = match self.direct.senders.get(cold.sender) {
            Some(Busy { sender, .. }) => (sender.kept(), sender.deadline().unwrap_or(never)),
            None if cold.is_direct => (0, never),
            None => return,
        };
        let deadlines = &self.config.deadlines;
        (cold.watch).on_sent(self.now, acknowledged as usize, kept, deadlines);
        let timer_at = cold.timer_at;
        let mut at = sending_at.min(cold.watch.next_at().unwrap_or(never));
        if kept > 0 || hot.tcb.snd_una != hot.tcb.snd_nxt {
            at = at.min(self.user_timeout_of(hot).unwrap_or(never));
        }
        if at < timer_at {
            self.call_at(index, at);
        }
    }

    /// The timer of a connection that is served directly has expired, and no deadline has passed.
    pub(in crate::shard) fn direct_timer_expires<T: Transmit>(
        &mut self,
        index: usize,
        port: &mut Port<'_, T>,
    ) {
        let (hot, cold) = (&self.hot[index], &mut self.cold[index]);
        if hot.tcb.state == State::SynReceived {
            self.counters.retrans_segs.increment();
            return self.answer_syn(index, port);
        }
        let timeout = match self.direct.slot(cold.sender) {
            Some(Slot {
                sender,
                chunks,
                config,
                ..
            }) => sender.on_deadline(chunks, config, self.now),
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
    pub(in crate::shard) fn follow_path(&mut self, index: usize) {
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
        let options = &self.cold[index].options;
        // RFC 6691: an MSS does not know of options.
        let mss = usize::from(options.mss).min(path) - options.bytes_per_segment();
        mss.min(LARGE_BYTES) as u16
    }

    /// Whether the direct path is for connections like this one.
    pub(in crate::shard) fn is_for_direct_path(&mut self, index: usize) -> bool {
        self.direct.mode != DirectPath::Never && usize::from(self.mss(index)) >= MSS_MIN
    }

    /// The ACK that completes a handshake has arrived. Returns false if nothing is left to do.
    #[inline(never)]
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
}
