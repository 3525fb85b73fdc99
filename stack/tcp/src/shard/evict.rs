//! Who gives way when all connections are in use.
//!
//! A peer that holds a connection and does nothing with it costs as much as one that works. When a new peer comes,
//! has shown that it can receive at its address, and no connection is left, the one ends that has waited longest
//! for its peer, among some that are looked at:
//!
//! ```text
//!   connections  [ .. │ .. │ 9 s │ 2 ms │ 75 s │ 1 s │ .. │ .. ]      the hand goes on by SAMPLE each time
//!                           └────── SAMPLE ──────┘
//!                             hand ─▶    ▲ ends
//! ```
//!
//! So it is with sockets, of which there may be fewer than connections: who has waited longest with one gives it up.
//!
//! That is not the idlest of all, which would take a list to keep for each segment, but close to it: whoever holds
//! most of the connections has most of each sample, and a client that asks again and again is never the idlest of
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

    /// Since when a connection waits for its peer; `None` if it is not yet established.
    fn waits_since(&self, index: usize) -> Option<Instant> {
        let tcb = &self.hot[index].tcb;
        if !matches!(tcb.state, State::Open | State::Closing) {
            return None;
        }
        let began_at = self.cold[index].watch.began_at(&self.config.deadlines);
        Some(began_at.unwrap_or(self.now))
    }

    /// Ends a connection now. A peer that owes nothing will hear that it was closed in order, any other that it was
    /// reset.
    fn evict(&mut self, index: usize) {
        let hot = &self.hot[index];
        let is_quiet = hot.tcb.state == State::Open
            && hot.tcb.snd_una == hot.tcb.snd_nxt
            && !hot.tcb.fin_received
            && self.cold[index].watch.wait() == Wait::Message;
        if !is_quiet {
            self.counters.out_rsts.increment();
        }
        if self.farewells.len() < self.farewells.capacity() {
            self.farewells.push(Farewell {
                flow: hot.flow,
                l2: self.cold[index].l2,
                link: hot.link,
                control: Control {
                    kind: if is_quiet { Kind::Fin } else { Kind::Reset },
                    seq: hot.tcb.acceptable_seq(),
                    ack: Some(hot.tcb.rcv_nxt),
                    window: hot.tcb.rcv_wnd,
                },
            });
        }
        self.end(index, End::Closed);
    }

    /// Tells those that gave way in this turn, as far as there are slots for it. Who is not told hears of it with its
    /// next segment.
    #[inline]
    pub(super) fn say_farewell<L: Link>(&mut self, links: &mut [L]) {
        while let Some(farewell) = self.farewells.pop() {
            let Farewell {
                flow,
                l2,
                link,
                control,
            } = farewell;
            self.send_control(&flow, &l2, &control, &mut Port::of(links, link));
        }
    }
}

/// What a peer is told whose connection is over.
pub(super) struct Farewell {
    flow: FlowKey,
    l2: L2Header,
    link: u8,
    control: Control,
}

impl Farewell {
    /// Peers that are told in one turn at most.
    pub const PER_TURN: usize = 256;
}
