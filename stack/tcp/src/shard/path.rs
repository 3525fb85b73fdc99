//! What a shard does when the path MTU to a peer turns out to be small; [`crate::path`] keeps what it learns.
//!
//! smoltcp fixes the peer's segment size at the handshake, and cuts segments by the smaller of that and the
//! interface's MTU. An interface holds nothing but that MTU here, so a connection with a narrow path is sent
//! through another one. What was in flight is sent again by letting smoltcp's retransmission timer expire:
//! it starts over at SND.UNA, and cuts anew.

use smoltcp::iface::Interface;

use crate::connection::NEVER;
use crate::guard::Secrets;
use crate::guard::rate_limit::RateLimit;
use crate::guard::segment::State;
use crate::link::{Link, Transmit};
use crate::packet::FlowKey;
use crate::packet::icmp::{self, NotTooBig, TooBig};
use crate::path::{IPV4_MIN, IPV6_MIN, Path, Paths};
use barewire_service::service::Service;
use barewire_service::time::{Duration, Instant};

use super::{Core, Found, Port, RTO_MIN_MS, new_interface};
use crate::smoltcp_time;

/// Messages of routers that a shard processes per second: each costs a look-up, and one for another shard
/// costs a look-up there.
const MESSAGES_PER_SECOND: u32 = 1_000;

/// Messages that one batch of frames can bring.
const HEARD_MAX: usize = 16;

/// What a shard knows of paths, and by which interface smoltcp sends on them.
pub(super) struct KnownPaths {
    shared: Paths,
    shard: usize,
    /// Messages that came with the batch that is being processed.
    heard: Vec<TooBig>,
    messages: RateLimit,
    /// smoltcp's interface for packets of at most so many bytes: what the last narrow path needed.
    narrow: (usize, Interface),
}

impl KnownPaths {
    pub fn new(secrets: &Secrets, mtu: usize, now: Instant) -> KnownPaths {
        KnownPaths {
            shared: Paths::new(secrets, 1),
            shard: 0,
            heard: Vec::with_capacity(HEARD_MAX),
            messages: RateLimit::new(MESSAGES_PER_SECOND, &secrets.rate_limit),
            narrow: (mtu, new_interface(0, mtu, now)),
        }
    }

    pub fn share(&mut self, paths: Paths, shard: usize) {
        assert!(paths.has_shard(shard), "no such shard");
        (self.shared, self.shard) = (paths, shard);
    }

    /// smoltcp's interface for packets of at most `size` bytes.
    pub fn interface(&mut self, size: usize, now: Instant) -> &mut Interface {
        if self.narrow.0 != size {
            self.narrow = (size, new_interface(0, size, now));
        }
        &mut self.narrow.1
    }

    /// Packets of `size` bytes were seen to reach the peer of `flow`, and longer ones not.
    #[cold]
    pub fn confirm(&self, flow: &FlowKey, size: usize, now: Instant) {
        self.shared.table().set(flow.remote_address(), size, now);
    }

    /// The next message that the batch has brought.
    #[inline]
    pub fn next_heard(&mut self) -> Option<TooBig> {
        self.heard.pop()
    }
}

impl<S: Service> Core<'_, S> {
    /// The path to the peer of `flow`, as far as it is known.
    pub(super) fn path_to(&self, flow: &FlowKey) -> Path {
        let known = self
            .paths
            .shared
            .table()
            .get(flow.remote_address(), self.now);
        let mtu = self.config.mtu;
        Path::new(known.map_or(mtu, |size| size.min(mtu)), self.now)
    }

    /// The longest IP packet that a connection sends. Its SYN is never long, and says what we receive.
    #[inline]
    pub(super) fn packet_bytes_max(&mut self, index: usize) -> usize {
        let mtu = self.config.mtu;
        match self.hot[index].tcb.state {
            State::Open | State::Closing => self.cold[index].path.size(mtu, self.now),
            State::Free | State::SynSent | State::SynReceived => mtu,
        }
    }

    /// A frame that is not TCP: perhaps an ICMP message of a router about a packet of ours.
    #[cold]
    pub(super) fn hear_icmp(&mut self, frame: &[u8]) {
        match icmp::parse_too_big(frame, &self.local, self.config.checksums) {
            Ok(message) => {
                let has_room = self.paths.heard.len() < HEARD_MAX;
                match has_room && self.paths.messages.permit(self.now) {
                    true => self.paths.heard.push(message),
                    false => self.counters.path_too_big_skipped.increment(),
                }
            }
            Err(NotTooBig::Malformed) => self.counters.path_too_big_malformed.increment(),
            Err(NotTooBig::Foreign) => self.counters.path_too_big_foreign.increment(),
            Err(NotTooBig::Other) => self.discards.count(crate::packet::Discard::NotTcp),
        }
    }

    /// Takes messages about connections that may be ours from other shards.
    #[inline]
    pub(super) fn hear_other_shards<L: Link>(&mut self, links: &mut [L]) {
        while let Some(message) = self.paths.shared.next_message(self.paths.shard) {
            let hash = self.flows.hash(&message.flow);
            let link = match self.find(&message.flow, hash) {
                Found::Connection(index) => self.hot[index].link,
                Found::TimeWait(_) | Found::Nothing => 0,
            };
            self.too_big_arrives(&message, false, &mut Port::of(links, link));
        }
    }

    /// A router says that a packet was too big for it. If the connection is another shard's and the message
    /// `is_first_hand`, that one is told.
    #[cold]
    pub(super) fn too_big_arrives<T: Transmit>(
        &mut self,
        message: &TooBig,
        is_first_hand: bool,
        port: &mut Port<'_, T>,
    ) {
        let hash = self.flows.hash(&message.flow);
        let Found::Connection(index) = self.find(&message.flow, hash) else {
            let KnownPaths { shared, shard, .. } = &self.paths;
            let counter = match is_first_hand && shared.are_shared() {
                false => &self.counters.path_too_big_unknown_flow,
                true if shared.tell_others(*shard, *message) => {
                    &self.counters.path_too_big_forwarded
                }
                true => &self.counters.path_too_big_skipped,
            };
            counter.increment();
            return;
        };
        // RFC 5927, section 4.1: an attacker who is not on the path has to guess this.
        let tcb = &self.hot[index].tcb;
        let in_flight = tcb.snd_nxt.wrapping_sub(tcb.snd_una);
        let is_ours = matches!(tcb.state, State::Open | State::Closing)
            && message.seq.wrapping_sub(tcb.snd_una) < in_flight;
        if !is_ours {
            self.counters.path_too_big_out_of_window.increment();
            return;
        }
        let size = match message.flow.is_ipv6() {
            // RFC 8201, section 4: it must be discarded.
            true if usize::from(message.mtu) < IPV6_MIN => usize::MAX,
            true => usize::from(message.mtu),
            false => usize::from(message.mtu).max(IPV4_MIN),
        };
        if !self.cold[index].path.narrow(size, self.now) {
            self.counters.path_too_big_no_news.increment();
            return;
        }
        self.counters.path_too_big.increment();
        self.paths.confirm(&message.flow, size, self.now);
        self.send_again(index, port);
    }

    /// Before a connection whose timer has expired sends: if it will send again because nothing was
    /// acknowledged, the length of its segments may be the reason.
    pub(super) fn suspect_path(&mut self, index: usize) {
        let hot = &self.hot[index];
        let is_silent = matches!(hot.tcb.state, State::Open | State::Closing)
            && hot.tcb.snd_una != hot.tcb.snd_nxt
            && hot.tcb.snd_wnd > 0
            && !hot.flags.is_waiting_to_send
            && self.silent_ms(index) >= RTO_MIN_MS;
        if !is_silent || !self.is_retransmission_due(index) {
            return;
        }
        let is_ipv6 = self.hot[index].flow.is_ipv6();
        if self.cold[index].path.on_timeout(is_ipv6, self.now) {
            self.counters.path_black_holes.increment();
        }
    }

    fn is_retransmission_due(&mut self, index: usize) -> bool {
        let slot = self.sockets.slot(self.cold[index].socket);
        let at = smoltcp_time::poll_at(&mut self.interface, self.now, &slot.set);
        slot.late_at != NEVER || at.is_some_and(|at| at <= self.now)
    }

    /// Sends all that is in flight again, in segments as long as they may be now.
    fn send_again<T: Transmit>(&mut self, index: usize, port: &mut Port<'_, T>) {
        if self.cold[index].is_direct {
            self.follow_path(index);
            return self.resume_directly(index, port);
        }
        let set = &self.sockets.slot(self.cold[index].socket).set;
        let expires_at = smoltcp_time::poll_at(&mut self.interface, self.now, set);
        let at = expires_at.unwrap_or(self.now).max(self.now);
        // A timer that was backed off may expire much later, and smoltcp counts from its expiry.
        if at <= self.now + Duration::from_millis(u64::from(self.config.rto_max_ms)) {
            self.send_next(index, at, port.transmit);
            self.finish_turn(index, 0, port);
        }
    }
}
