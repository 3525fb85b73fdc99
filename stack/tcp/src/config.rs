//! Every limit of a shard, with its default and what it costs.

use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::connection::{self, CONNECTION_BYTES, SOCKET_BYTES};
use crate::flow::FlowTable;
use crate::guard::time_wait::TimeWaits;
use crate::neighbours::Neighbours;
use crate::packet::ChecksumPolicy;
use crate::sender::chunks::Chunks;
use crate::sender::lent::Senders;
use crate::states::States;
use barewire_memory::OutOfMemory;
use barewire_service::deadline::Deadlines;
use barewire_service::seats::Seats;
use barewire_service::service::Service;
use barewire_service::timer::TimerWheel;

/// The size of a shard, its limits and its deadlines.
///
/// All memory follows from these numbers and is taken when the shard is made; see
/// [`StackConfig::memory_bytes`].
#[derive(Debug, Clone, PartialEq)]
pub struct StackConfig {
    /// Connections that can exist at once, half-open ones included. [`StackConfig::when_full`] says what happens
    /// beyond.
    pub connections: u32,
    /// How many of them may be half-open (SYN-RECEIVED). Past it SYNs are answered with cookies, which
    /// take no memory; zero means cookies for all, [`StackConfig::connections`] or more for none.
    pub half_open: u32,
    /// smoltcp sockets, each with its buffers. With the direct path a connection needs one only if something
    /// unusual happens to it, and there may be fewer than [`StackConfig::connections`]; without, and for a shard that
    /// calls, there are as many. When all are in use, the connection that has waited longest with one is ended
    /// (`socket_evictions`).
    pub sockets: u32,
    /// What happens to a new connection when there are as many as can be.
    pub when_full: WhenFull,
    /// Established connections that one source can have, at all shards that [share](crate::shared::Shared) what
    /// they have; zero means any number. SYNs past it are dropped and counted (`source_overflows`).
    pub source_connections: u32,
    /// A limit for the connections of all shards: while all seats are taken, SYNs are dropped and counted
    /// (`seat_overflows`). The service takes the seats.
    pub seats: Option<Arc<Seats>>,
    /// The prefix length that makes a source of an IPv4 address.
    pub source_prefix_ipv4_bits: u32,
    /// The prefix length that makes a source of an IPv6 address: a subscriber's network has 64.
    pub source_prefix_ipv6_bits: u32,
    /// The smallest MSS that is accepted of a peer; a smaller one is raised to this. One of 48 would cost a
    /// packet for each 8 bytes of data (CVE-2019-11479).
    pub mss_min: u16,
    /// Connections that can be in TIME-WAIT, besides [`StackConfig::connections`]. Beyond it the one that
    /// has waited longest is ended. Zero means that connections end without TIME-WAIT.
    pub time_wait: u32,
    /// How long TIME-WAIT lasts: two maximum segment lifetimes (RFC 9293, section 3.4.2).
    pub time_wait_ms: u32,
    /// Receive buffer of each connection, and with it the largest window it offers, at most
    /// [`StackConfig::RECEIVE_BUFFER_BYTES_MAX`]. The longest message a service can see at once.
    pub receive_buffer_bytes: usize,
    /// The largest window that the direct path offers, to peers that scale windows (RFC 7323); others get 65,535 bytes
    /// at most. A window takes no memory but for what lies behind a gap.
    pub receive_window_bytes_max: usize,
    /// Send buffer of each socket, and how much the direct path queues for a connection until the windows allow to
    /// send it. At least twice the service's `REPLY_BYTES_MIN`, or a reply has to wait for the one before it.
    pub send_buffer_bytes: usize,
    /// How much the direct path keeps for one connection, in flight and queued, as far as its share of the chunks goes:
    /// what can be on its way in a round trip. Never less than [`StackConfig::send_buffer_bytes`].
    pub send_queue_bytes_max: usize,
    /// The longest IP packet in bytes that the links carry: the smallest MTU of them. The MSS that
    /// peers are told and held to follows from it.
    pub mtu: usize,
    /// Whether checksums of received segments are verified. Those of sent ones are always made.
    pub checksums: ChecksumPolicy,
    /// The deadlines of connections.
    pub deadlines: Deadlines,
    /// The longest that retransmissions of a connection are apart, and zero-window probes, as Linux's
    /// `tcp_rto_max_ms`. RFC 6298, section 2.5, wants a minute, and keeps a timeout that was backed off
    /// until a segment is acknowledged that was sent only once: on a wire that loses one of five, that
    /// hardly happens, and the connection almost stops. One segment in this time does not congest a path.
    pub rto_max_ms: u32,
    /// The shortest retransmission timeout of the direct path. RFC 6298 wants a second, Linux has 200 ms.
    pub rto_min_ms: u32,
    /// Whether peers that offer timestamps (RFC 7323) get them: 12 bytes of each segment, in both directions.
    pub timestamps: bool,
    /// Which established connections are served directly. All by default.
    pub direct_path: DirectPath,
    /// Whether a segment that belongs to no connection is answered with an RST.
    pub unknown_flow: UnknownFlow,
    /// RSTs per second for segments that belong to no connection, or to one that is not yet
    /// established.
    pub resets_per_second: u32,
    /// Challenge ACKs per second (RFC 5961, section 7). A single connection gets no more than one in
    /// half a second.
    pub challenge_acks_per_second: u32,
    /// ACKs per second in TIME-WAIT.
    pub time_wait_acks_per_second: u32,
}

/// Which established connections are served in place, without a smoltcp socket.
///
/// What peers and services see does not depend on it, apart from time and the size of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectPath {
    /// None.
    Never,
    /// All, for as long as nothing unusual happens to them.
    Always,
    /// For tests: connections change between the direct path and smoltcp at random segments, which follow from the seed.
    Random(u64),
}

impl FromStr for DirectPath {
    type Err = UnknownDirectPath;

    /// Reads `never`, `always`, `random` or `random:SEED`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownDirectPath(text.to_owned());
        match text.split_once(':') {
            None if text == "never" => Ok(DirectPath::Never),
            None if text == "always" => Ok(DirectPath::Always),
            None if text == "random" => Ok(DirectPath::Random(0)),
            Some(("random", seed)) => {
                let seed = seed.parse().map_err(|_| unknown())?;
                Ok(DirectPath::Random(seed))
            }
            _ => Err(unknown()),
        }
    }
}

/// A text that names no [`DirectPath`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no direct path: choose never, always, random or random:SEED")]
pub struct UnknownDirectPath(String);

/// What happens to a new connection when there are as many as can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The one that has waited longest for its peer is ended, of some that are looked at (`evictions`).
    ///
    /// Only a peer that can receive at its address has that effect: SYNs are answered with cookies. Where those are
    /// off, as with [`StackConfig::half_open`] not below [`StackConfig::connections`], SYNs are dropped.
    Evict,
    /// It is not opened: SYNs are dropped (`listen_overflows`), established connections do not notice.
    Refuse,
}

impl FromStr for WhenFull {
    type Err = UnknownWhenFull;

    /// Reads `evict` or `refuse`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "evict" => Ok(WhenFull::Evict),
            "refuse" => Ok(WhenFull::Refuse),
            _ => Err(UnknownWhenFull(text.to_owned())),
        }
    }
}

/// A text that names no [`WhenFull`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} says nothing of what to do when all connections are in use: choose evict or refuse")]
pub struct UnknownWhenFull(String);

/// What happens to a segment that belongs to no connection, and opens none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFlow {
    /// It is answered with an RST (RFC 9293, section 3.10.7.1), rate limited, unless another shard seems to
    /// have it. Right for a shard that receives every segment of its addresses and ports, and for those that
    /// [share](crate::shared::Shared) what they have.
    Reset,
    /// It is dropped and counted. Right for shards of the same addresses and ports that know nothing of each
    /// other: a flow can change its
    /// queue, because the sender re-hashed it or the NIC's indirection table was changed, and the RST of
    /// a shard that merely does not know it would kill a connection that lives in the next one.
    Ignore,
}

impl UnknownFlow {
    /// The right choice for each of `shards` that have the same addresses and ports, and nothing
    /// [shared](crate::shared::Shared).
    pub fn for_shards(shards: usize) -> UnknownFlow {
        match shards {
            0 | 1 => UnknownFlow::Reset,
            _ => UnknownFlow::Ignore,
        }
    }
}

impl Default for StackConfig {
    fn default() -> Self {
        StackConfig {
            connections: 8_192,
            half_open: 1_024,
            sockets: 4_096,
            when_full: WhenFull::Evict,
            source_connections: 0,
            seats: None,
            source_prefix_ipv4_bits: 32,
            source_prefix_ipv6_bits: 64,
            mss_min: 216,
            time_wait: 65_536,
            time_wait_ms: 60_000,
            receive_buffer_bytes: 8_192,
            receive_window_bytes_max: 4_000_000,
            send_buffer_bytes: 16_384,
            send_queue_bytes_max: 4 << 20,
            mtu: 1_500,
            checksums: ChecksumPolicy::Verify,
            deadlines: Deadlines::default(),
            rto_max_ms: 4_000,
            rto_min_ms: 200,
            timestamps: false,
            direct_path: DirectPath::Always,
            unknown_flow: UnknownFlow::Reset,
            resets_per_second: 1_000,
            challenge_acks_per_second: 1_000,
            time_wait_acks_per_second: 1_000,
        }
    }
}

impl StackConfig {
    /// The largest receive buffer: what a smoltcp socket can have.
    pub const RECEIVE_BUFFER_BYTES_MAX: usize = connection::RECEIVE_BUFFER_BYTES_MAX;
    /// The smallest receive buffer: one segment of the smallest MTU.
    pub const RECEIVE_BUFFER_BYTES_MIN: usize = 512;
    /// The largest window that can be told (RFC 7323, section 2.3).
    pub const RECEIVE_WINDOW_BYTES_MAX: usize = 1 << 30;
    /// The largest send buffer.
    pub const SEND_BUFFER_BYTES_MAX: usize = 1 << 24;
    /// The most that one connection can keep in flight: the largest window of TCP (RFC 7323, section 2.3).
    pub const SEND_QUEUE_BYTES_MAX: usize = 1 << 30;
    /// The smallest MTU: what IPv6 asks of every link (RFC 8200, section 5).
    pub const MTU_MIN: usize = 1_280;
    /// The largest MTU: a jumbo frame.
    pub const MTU_MAX: usize = 9_216;
    /// The most connections and TIME-WAIT records together.
    pub const FLOWS_MAX: usize = 1 << 26;

    /// Checks that a shard can be made of these numbers for a service that wants replies of
    /// `reply_bytes_min`.
    ///
    /// # Errors
    ///
    /// The first number that is out of bounds, with its bounds.
    pub fn validate(&self, reply_bytes_min: usize) -> Result<(), ConfigError> {
        use ConfigError::OutOfBounds;
        let check = |name, value: usize, min: usize, max: usize| match (min..=max).contains(&value)
        {
            true => Ok(()),
            false => Err(OutOfBounds {
                name,
                value,
                min,
                max,
            }),
        };
        let send_min = reply_bytes_min.max(Self::RECEIVE_BUFFER_BYTES_MIN);
        check(
            "connections",
            self.connections as usize,
            1,
            Self::FLOWS_MAX / 2,
        )?;
        check("sockets", self.sockets as usize, 2, Self::FLOWS_MAX / 2)?;
        check("time_wait", self.time_wait as usize, 0, Self::FLOWS_MAX / 2)?;
        check("time_wait_ms", self.time_wait_ms as usize, 1, 1 << 30)?;
        check("rto_max_ms", self.rto_max_ms as usize, 1_000, 60_000)?;
        check(
            "rto_min_ms",
            self.rto_min_ms as usize,
            1,
            self.rto_max_ms as usize,
        )?;
        check(
            "receive_buffer_bytes",
            self.receive_buffer_bytes,
            Self::RECEIVE_BUFFER_BYTES_MIN,
            Self::RECEIVE_BUFFER_BYTES_MAX,
        )?;
        check(
            "send_buffer_bytes",
            self.send_buffer_bytes,
            send_min,
            Self::SEND_BUFFER_BYTES_MAX,
        )?;
        check(
            "receive_window_bytes_max",
            self.receive_window_bytes_max,
            0,
            Self::RECEIVE_WINDOW_BYTES_MAX,
        )?;
        check(
            "send_queue_bytes_max",
            self.send_queue_bytes_max,
            0,
            Self::SEND_QUEUE_BYTES_MAX,
        )?;
        let bits = |name, bits: u32, max| check(name, bits as usize, 1, max);
        bits("source_prefix_ipv4_bits", self.source_prefix_ipv4_bits, 32)?;
        bits("source_prefix_ipv6_bits", self.source_prefix_ipv6_bits, 128)?;
        check("mss_min", usize::from(self.mss_min), 48, 536)?;
        check("mtu", self.mtu, Self::MTU_MIN, Self::MTU_MAX)
    }

    /// Sockets that a shard has.
    pub fn sockets(&self) -> u32 {
        match self.direct_path {
            DirectPath::Never => self.connections,
            DirectPath::Always | DirectPath::Random(_) => self.sockets.min(self.connections),
        }
    }

    /// The shift of our window fields: the smallest that lets them tell the largest window.
    pub(crate) fn receive_window_shift(&self) -> u8 {
        let mut shift = 0;
        while usize::from(u16::MAX) << shift < self.receive_window_bytes_max && shift < 14 {
            shift += 1;
        }
        shift
    }

    /// Bytes of the arena that a shard carves its sockets' buffers from.
    pub fn arena_bytes(&self) -> usize {
        self.sockets() as usize * (self.receive_buffer_bytes + self.send_buffer_bytes)
    }

    /// Chunks of 256 and of 1,536 bytes for what the direct path has sent and keeps: a small one for each
    /// connection, and two large ones, of which there are between 1,024 and 131,072. When none is left,
    /// connections go back to their own send buffers.
    pub(crate) fn chunks(&self) -> (u32, u32) {
        match self.direct_path {
            DirectPath::Never => (0, 0),
            DirectPath::Always | DirectPath::Random(_) => {
                let large = self.connections.saturating_mul(3);
                (self.connections, large.clamp(1_024, 131_072))
            }
        }
    }

    /// Bytes that a shard takes at start: the arena, and its sockets.
    pub fn start_bytes(&self) -> usize {
        self.arena_bytes() + self.sockets() as usize * SOCKET_BYTES
    }

    /// Bytes that one connection of a service `S` takes as long as it is idle and has no socket: its line, what is
    /// behind it, its timer, its places in the flow table, which is at most half full, and in the lists, its share of
    /// the senders that are kept, and what the service keeps of it unless it is then [at rest](Service::rest). With few
    /// connections the share of the senders is all of one.
    pub fn connection_bytes<S: Service>(&self) -> usize {
        const TIMER_AND_LISTS_BYTES: usize = 16 + 4 + 4;
        let flows = (self.connections + self.time_wait) as usize;
        let state_bytes = match S::rest(&S::Connection::default()) {
            Some(_) => 0,
            None => States::<S::Connection>::PLACE_BYTES,
        };
        CONNECTION_BYTES
            + state_bytes
            + TIMER_AND_LISTS_BYTES
            + FlowTable::memory_bytes(flows) / flows.max(1)
            + Senders::quiet_bytes(self.connections as usize) / (self.connections as usize).max(1)
    }

    /// All bytes that a shard with a service `S` takes at most: what it has at start, and the tables and what waits for
    /// its acknowledgment, which come as they are used.
    pub fn memory_bytes<S: Service>(&self) -> usize {
        let connections = self.connections as usize;
        let time_wait = self.time_wait as usize;
        self.start_bytes()
            + connections * (CONNECTION_BYTES + States::<S::Connection>::PLACE_BYTES)
            + TimeWaits::memory_bytes(time_wait)
            + FlowTable::memory_bytes(connections + time_wait)
            + TimerWheel::memory_bytes(connections)
            + Senders::memory_bytes(connections)
            + Neighbours::memory_bytes(connections)
            + Chunks::memory_bytes(self.chunks().0, self.chunks().1)
    }
}

/// Why a shard cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A number outside its bounds.
    #[error("{name} is {value}, which is impossible: choose a value from {min} to {max}")]
    OutOfBounds {
        /// The field of [`StackConfig`].
        name: &'static str,
        /// Its value.
        value: usize,
        /// The smallest value that is possible.
        min: usize,
        /// The largest value that is possible.
        max: usize,
    },
    /// There is no address space for the tables.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The arena is smaller than [`StackConfig::arena_bytes`].
    #[error(
        "the buffers of {sockets} sockets need {wanted} bytes, of which the arena has {left}: make it that large"
    )]
    ArenaTooSmall {
        /// [`StackConfig::sockets()`].
        sockets: u32,
        /// [`StackConfig::arena_bytes`].
        wanted: usize,
        /// What was left in the arena.
        left: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_service::service::{Input, Progress, Reply};

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(StackConfig::default().validate(1024), Ok(()));
    }

    #[test]
    fn ten_million_idle_connections_have_room_in_a_server() {
        let config = StackConfig {
            connections: 10_000_000,
            direct_path: DirectPath::Always,
            ..StackConfig::default()
        };
        let (start, each) = (
            config.start_bytes(),
            config.connection_bytes::<Measured<true>>(),
        );
        println!(
            "{start} bytes at start, {each} for an idle connection, hot and cold {CONNECTION_BYTES}"
        );
        assert_eq!(config.validate(1_024), Ok(()));
        assert!(start < 128 << 20 && each <= 256, "{start} {each}");
        assert_eq!(config.connection_bytes::<Measured<false>>(), each + 104 + 4);
    }

    /// A service with 104 bytes for a connection that is not at rest, which it always is or never.
    struct Measured<const RESTS: bool>;

    impl<const RESTS: bool> Service for Measured<RESTS> {
        type Connection = [u64; 13];
        const REPLY_BYTES_MIN: usize = 1;

        fn on_input(&mut self, _: &mut [u64; 13], _: Input<'_>, _: &mut Reply<'_>) -> Progress {
            unreachable!("it is only measured")
        }

        fn rest(_: &[u64; 13]) -> Option<u8> {
            RESTS.then_some(0)
        }
    }

    #[test]
    fn a_receive_buffer_that_would_let_a_peer_crash_us_is_refused() {
        let mut config = StackConfig {
            receive_buffer_bytes: 65_535,
            ..StackConfig::default()
        };
        assert_eq!(config.validate(1024), Ok(()));
        config.receive_buffer_bytes = 65_536;
        let error = config.validate(1024).unwrap_err().to_string();
        assert!(
            error.contains("receive_buffer_bytes is 65536") && error.contains("65535"),
            "{error}"
        );
    }

    #[test]
    fn a_send_buffer_has_room_for_the_longest_reply() {
        let config = StackConfig {
            send_buffer_bytes: 1000,
            ..StackConfig::default()
        };
        assert_eq!(config.validate(1000), Ok(()));
        assert!(config.validate(1001).is_err());
    }
}
