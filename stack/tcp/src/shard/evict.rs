//! Which connection is ended when all are in use and a new one comes.
//!
//! An idle connection takes as much memory as a busy one. When a new peer has shown that it can receive at its address
//! and no connection is left, the one that has waited longest for its peer is ended, among some that are looked at:
//!
//! ```text
//!   connections  [ .. │ .. │ 9 s │ 2 ms │ 75 s │ 1 s │ .. │ .. ]      the hand goes on by SAMPLE each time
//!                           └────── SAMPLE ──────┘
//!                             hand ─▶    ▲ ends
//! ```
//!
//! The same holds for sockets, of which there may be fewer than connections.
//!
//! That is not the idlest of all, which would take a list that changes with each segment, but close to it: a source that
//! holds most of the connections has most of each sample, and a client that keeps sending requests is never the idlest of
//! sixteen.

use crate::connection::{NEVER, NO_SOCKET};
use crate::control::{Control, Kind, L2Header};
use crate::guard::segment::State;
use crate::link::Link;
use crate::packet::FlowKey;
use barewire_service::deadline::Wait;
use barewire_service::service::{End, Service};
use barewire_service::time::Instant;

use super::{Core, Port};
use crate::config::WhenFull;

/// Connections that are looked at to find one that gives way.
const SAMPLE: usize = 16;

impl<S: Service> Core<'_, S> {
    /// Makes sure that a connection is unused, at the expense of another if it has to be. Returns false if it
    /// cannot be.
    pub(super) fn make_room(&mut self) -> bool {
        // A socket is to be had in any case.
        if !self.has_all_connections() {
            return true;
        }
        if self.config.when_full == WhenFull::Refuse {
            return false;
        }
        let all = self.hot.len();
        let start = self.evict_hand;
        self.evict_hand = (start + SAMPLE) % all;
        let sample = (start..start + SAMPLE.min(all)).map(|at| at % all);
        let idlest = sample
            .filter_map(|index| Some((self.waits_since(index)?, index)))
            .min();
        let Some((_, index)) = idlest else {
            return false;
        };
        self.counters.evictions.increment();
        self.evict(index);
        true
    }

    /// Gives a connection that has none a new socket, at the expense of another if it has to be.
    pub(super) fn take_socket(&mut self, index: usize) {
        if self.sockets.are_used_up() {
            self.give_up_socket();
        }
        let socket = self.sockets.take(index);
        debug_assert!(socket.is_some(), "a connection gave its socket up");
        self.cold[index].socket = socket.unwrap_or(NO_SOCKET);
    }

    /// Ends a connection that has a socket.
    #[cold]
    fn give_up_socket(&mut self) {
        let all = self.sockets.len();
        let start = self.socket_hand;
        self.socket_hand = (start + SAMPLE) % all;
        let sample = (start..start + SAMPLE.min(all)).map(|at| at % all);
        let holders = sample.filter_map(|socket| self.sockets.connection_of(socket));
        // One that is not yet established comes last.
        let idlest = holders.min_by_key(|&index| self.waits_since(index).unwrap_or(NEVER));
        if let Some(index) = idlest {
            self.counters.socket_evictions.increment();
            self.evict(index);
        }
    }

    /// The time since which a connection waits for its peer; `None` if it is not yet established.
    fn waits_since(&self, index: usize) -> Option<Instant> {
        let tcb = &self.hot[index].tcb;
        if !matches!(tcb.state, State::Open | State::Closing) {
            return None;
        }
        let began_at = self.cold[index].watch.began_at(&self.config.deadlines);
        Some(began_at.unwrap_or(self.now))
    }

    /// Ends a connection now. A peer that is not in the middle of a message gets a FIN, any other an RST.
    fn evict(&mut self, index: usize) {
        let hot = &self.hot[index];
        let is_quiet = hot.tcb.state == State::Open
            && hot.tcb.snd_una == hot.tcb.snd_nxt
            && !hot.tcb.fin_received
            && self.cold[index].watch.wait() == Wait::Message;
        if !is_quiet {
            self.counters.out_rsts.increment();
        }
        if self.last_segments.len() < self.last_segments.capacity() {
            self.last_segments.push(LastSegment {
                flow: hot.flow,
                l2: *self.neighbours.get(self.cold[index].neighbour),
                link: hot.link,
                control: Control {
                    kind: if is_quiet { Kind::Fin } else { Kind::Reset },
                    seq: hot.tcb.acceptable_seq(),
                    ack: Some(hot.tcb.rcv_nxt),
                    window: hot.tcb.rcv_wnd_field(),
                    timestamps: self.cold[index].timestamps(self.timestamps, self.now),
                },
            });
        }
        self.end(index, End::Closed);
    }

    /// Sends a FIN or an RST to those that were ended in this turn, as far as there are slots. A peer that gets none is
    /// answered with an RST when it sends its next segment.
    #[inline]
    pub(super) fn send_last_segments<L: Link>(&mut self, links: &mut [L]) {
        while let Some(last) = self.last_segments.pop() {
            let LastSegment {
                flow,
                l2,
                link,
                control,
            } = last;
            self.send_control(&flow, &l2, &control, &mut Port::of(links, link));
        }
    }
}

/// The last segment to a peer whose connection was ended.
pub(super) struct LastSegment {
    flow: FlowKey,
    l2: L2Header,
    link: u8,
    control: Control,
}

impl LastSegment {
    /// Most of them in one turn.
    pub const PER_TURN: usize = 256;
}
