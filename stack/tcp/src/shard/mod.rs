//! One core: its links, its connections, its service.
//!
//! A shard does no I/O and reads no clock: [`Shard::poll`] is told what time it is, takes what the
//! links have received, and leaves them what is to be sent. Given the same frames at the same times
//! it does the same, so tests and simulations run it as fast as they can.
//!
//! ```text
//!   poll ──▶ for each link: receive a batch
//!               ├─ parse and look up all of it ─▶ prefetch the connections
//!               └─ for each segment: direct path ──────▶ service ────────────▶ transmit slots
//!                     or, if unusual: guard ─▶ smoltcp ─▶ service ─▶ smoltcp ─▶ transmit slots
//!        ──▶ those that had to wait for a slot
//!        ──▶ those whose timer expired
//!        ──▶ what the service wants opened
//!        ──▶ for each link: flush
//! ```
//!
//! Nothing is allocated after [`Shard::new`]. What a segment costs does not depend on the number of
//! connections. One connection gets at most [`EGRESS_SEGMENTS_MAX`] segments per turn; the rest of the
//! batch comes first. A turn has a bound for everything else as well: so many timers, so many connections that
//! wait for a slot, so many that are told of a drain; the rest is the next turn's.
//!
//! When the machine was paused, deadlines have passed although the peers have met them: what they sent waits in the
//! links. So after a pause all of that is processed before a timer expires, and deadlines are extended a little.

mod accept;
mod connect;
mod counters;
mod direct;
mod egress;
mod evict;
mod forwarded;
mod ingress;
mod path;
mod serve;
mod timers;
mod travel;
mod wire;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;

use smoltcp::iface::{Config, Interface};
use smoltcp::socket::tcp;
use smoltcp::wire::HardwareAddress;

use crate::addresses::Learner;
use crate::config::{ConfigError, StackConfig};
use crate::connection::{Cold, Hot, Sockets};
use crate::control::L2Header;
use crate::flow::{FlowHash, FlowTable};
use crate::forward::Forwarding;
use crate::guard::Secrets;
use crate::guard::cookie::{CookieUse, SynCookies};
use crate::guard::isn::IsnGenerator;
use crate::guard::rate_limit::RateLimit;
use crate::guard::segment::{State, Tcb};
use crate::guard::time_wait::{Ending, Left, TimeWaits};
use crate::guard::timestamps::TimestampClock;
use crate::link::{Link, Received};
use crate::neighbours::Neighbours;
use crate::outbound::Outbound;
use crate::packet::{DiscardCounters, FlowKey, Local, Segment};
use crate::sender::chunks::Chunks;
use crate::sender::counters::SenderCounters;
use crate::sender::lent::Senders;
use crate::shared::Shared;
use crate::sources::Sources;
use crate::states::States;
use barewire_memory::table;
use barewire_service::deadline::{Wait, Watch};
use barewire_service::service::{End, Service};
use barewire_service::time::{Duration, Instant};
use barewire_service::timer::TimerWheel;

use connect::Caller;
use direct::Direct;
use evict::LastSegment;
use path::KnownPaths;
use wire::{Nowhere, Wire};

pub use counters::TcpCounters;
pub use travel::Departure;

/// One core's links, connections and service.
pub struct Shard<'a, L, S: Service> {
    links: Vec<L>,
    core: Core<'a, S>,
}

/// What one [`Shard::poll`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Frames received, of whatever kind.
    pub frames: usize,
    /// Frames are on their way, or wait for a slot: poll again soon, whatever else there is to do.
    pub is_sending: bool,
}

impl<'a, L: Link, S: Service> Shard<'a, L, S> {
    /// A shard that serves `local` with `service` over `links`.
    ///
    /// `buffers` are [`StackConfig::arena_bytes`] for the connections; what they hold does not matter.
    /// `secrets` are the same for all shards of a server.
    ///
    /// # Errors
    ///
    /// If a number in `config` is out of bounds, or `buffers` are too small.
    ///
    /// # Panics
    ///
    /// If there are no links, or more than 256.
    pub fn new(
        config: StackConfig,
        local: Local,
        secrets: &Secrets,
        links: Vec<L>,
        service: S,
        buffers: &'a mut [u8],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        assert!(
            (1..=256).contains(&links.len()),
            "a shard has 1 to 256 links"
        );
        let core = Core::new(config, local, secrets, service, buffers, now)?;
        Ok(Shard { links, core })
    }

    /// Makes this shard one that calls: it accepts no connections, and opens those that its service
    /// wants. Its [`Local`] must be one that calls, from the addresses and ports of `outbound`.
    ///
    /// # Panics
    ///
    /// If `outbound.shard` is not one of those that its ports were made for.
    #[must_use]
    pub fn calling(mut self, outbound: Outbound, secrets: &Secrets) -> Self {
        let connections = self.core.config.connections as usize;
        self.core.caller = Some(Caller::new(outbound, secrets, connections));
        self
    }

    /// Makes this shard number `shard` of those that tell each other what is in `shared`: it must be new.
    ///
    /// # Panics
    ///
    /// If `shared` was made for fewer shards.
    #[must_use]
    pub fn sharing(mut self, shared: Shared, shard: usize) -> Self {
        self.core.paths.share(shared.paths, shard);
        self.core.flows.share(shared.flows, shard);
        self.core.forwarding = Some(shared.forwarding);
        self.core.shard = shard;
        self.core.sources = shared.sources;
        self.core.cookie_use = shared.cookies;
        self.core.new_addresses.from = shared.addresses;
        self
    }

    /// Takes one more link, which is empty. This allocates.
    ///
    /// # Panics
    ///
    /// If there are 256 already.
    pub fn add_link(&mut self, link: L) {
        assert!(self.links.len() < 256, "a shard has 1 to 256 links");
        self.links.push(link);
    }

    /// Sets how other shards wake this one: a segment of one of its connections may arrive there. A driver that sleeps
    /// until [`Shard::next_deadline`] needs it.
    pub fn woken_by(&mut self, waker: Waker) {
        if let Some(forwarding) = &self.core.forwarding {
            forwarding.set_waker(self.core.shard, waker);
        }
    }

    /// Processes what has arrived and what is due, and sends what follows from it.
    ///
    /// `now` must not go back.
    pub fn poll(&mut self, now: Instant) -> Activity {
        let Shard { links, core } = self;
        core.begin_turn(now);
        let mut frames = 0;
        for (number, link) in links.iter_mut().enumerate() {
            let (received, transmit) = link.receive(now);
            if !received.is_empty() {
                frames += received.len();
                core.new_addresses.learn(&mut core.local);
                core.batch_arrives(received, number as u8, transmit);
            }
        }
        core.hear_other_shards(links);
        core.take_forwarded(links);
        core.resume_waiting(links);
        if core.has_heard_all(frames) {
            core.expire(links);
        }
        core.drain_some(links);
        core.follow_service(links);
        core.send_last_segments(links);
        core.publish_levels();
        let mut is_sending = !core.waiting.is_empty();
        for link in links.iter_mut() {
            is_sending |= link.flush(now);
        }
        self.core.asked_for = self.next_deadline(now);
        Activity { frames, is_sending }
    }

    /// When [`Shard::poll`] must be called again even if nothing arrives; `None` if there is no such
    /// time.
    pub fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let Shard { links, core } = self;
        let is_closing = core.is_draining && core.drained < core.hot.len();
        if core.turns_to_hear > 0 || is_closing {
            return Some(now);
        }
        let forwarding = core.forwarding.as_ref();
        if forwarding.is_some_and(|forwarding| !forwarding.may_sleep(core.shard)) {
            return Some(now);
        }
        let waiting = match (core.waiting.is_empty(), core.is_stalled(links)) {
            (true, _) => None,
            (false, false) => return Some(now),
            (false, true) => Some(now + LINK_RETRY),
        };
        let time_wait = core.time_waits.next_at(now);
        let wanted = core.caller.as_ref().and_then(|caller| caller.until);
        [waiting, core.timers.next_at(), time_wait, wanted]
            .into_iter()
            .flatten()
            .min()
    }

    /// Tells the service the time of day. Call it before the first [`Shard::poll`], and then at least
    /// once a second with traffic.
    pub fn set_unix_time(&mut self, unix_time_s: u64) {
        if self.core.unix_time_s != Some(unix_time_s) {
            self.core.unix_time_s = Some(unix_time_s);
            self.core.service.on_clock(unix_time_s);
        }
    }

    /// Accepts nothing new from here on, closes the connections that wait for a message, and lets the
    /// others end after the message they are in.
    pub fn drain(&mut self, now: Instant) {
        let Shard { links, core } = self;
        core.set_now(now);
        core.is_draining = true;
        core.service.on_drain();
        core.drain_some(links);
        core.publish_levels();
        for link in links {
            link.flush(now);
        }
    }

    /// Number of connections, half-open ones included and those in TIME-WAIT not. A shard that drains
    /// has drained when there are none.
    pub fn connections(&self) -> usize {
        self.core.hot.len() - self.core.unused.len()
    }

    /// Number of connections in TIME-WAIT.
    pub fn time_waits(&self) -> usize {
        self.core.time_waits.len()
    }

    /// Number of flows in the flow table: one for each connection and each TIME-WAIT.
    pub fn flows(&self) -> usize {
        self.core.flows.len()
    }

    /// Number of connections with a timer.
    pub fn timers(&self) -> usize {
        self.core.timers.len()
    }

    /// The descriptors that become readable when frames arrive; `None` if a link cannot wake anybody,
    /// and the shard must not be waited for.
    pub fn wake_fds(&self) -> Option<Vec<RawFd>> {
        self.links.iter().map(Link::wake_fd).collect()
    }

    /// The links.
    pub fn links(&self) -> &[L] {
        &self.links
    }

    /// The links, for what a driver does with them beside [`Shard::poll`].
    pub fn links_mut(&mut self) -> &mut [L] {
        &mut self.links
    }

    /// Gives up the links. The shard must not be polled any more.
    pub fn take_links(&mut self) -> Vec<L> {
        std::mem::take(&mut self.links)
    }

    /// The service.
    pub fn service(&self) -> &S {
        &self.core.service
    }

    /// The service, for what its owner does with it between polls.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.core.service
    }

    /// What was counted of connections and guards; shared with whoever reports it.
    pub fn counters(&self) -> &Arc<TcpCounters> {
        &self.core.counters
    }

    /// What was counted of sending on the direct path; shared with whoever reports it.
    pub fn sender_counters(&self) -> &Arc<SenderCounters> {
        &self.core.direct.chunks.counters
    }

    /// What was dropped before it was a segment; shared with whoever reports it.
    pub fn discards(&self) -> &Arc<DiscardCounters> {
        &self.core.discards
    }
}

/// How many frames are looked up before the first of them is processed.
const BATCH_FRAMES: usize = 64;

/// How many segments one connection may send before the next one's turn.
pub const EGRESS_SEGMENTS_MAX: usize = 16;

/// How many of the connections that wait for a slot get a turn of the shard's.
const RESUMED_PER_TURN: usize = 64;

/// How many timers expire in one turn, and how many TIME-WAITs end.
const EXPIRED_PER_TURN: usize = 256;

/// How many connections are told in one turn that the shard drains.
const DRAINED_PER_TURN: usize = 256;

/// How many segments are taken in one turn that arrived at other shards.
const FORWARDED_PER_TURN: usize = 64;

/// When to look again at links that are full.
const LINK_RETRY: Duration = Duration::from_millis(1);

/// A shard that is called so much later than it asked for was paused. A shorter delay is that of a busy machine, and
/// extends the deadlines.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// How many turns may pass after a pause before timers expire, to process what arrived meanwhile: 64 batches of a link.
const TURNS_TO_HEAR_MAX: u32 = 64;

/// The shortest retransmission timeout (RFC 6298, section 2.4), which smoltcp keeps to.
const RTO_MIN_MS: u32 = 1_000;

/// A connection gets at most one challenge ACK in this time, as on Linux.
const CHALLENGE_INTERVAL_MS: u32 = 500;

/// A shard without its links, so that a link can lend its halves while this works.
struct Core<'a, S: Service> {
    config: StackConfig,
    local: Local,
    new_addresses: Learner,
    service: S,
    unix_time_s: Option<u64>,
    is_draining: bool,
    /// What can travel does not drain.
    is_leaving: bool,
    /// Connections that were told of the drain: all before this one.
    drained: usize,
    /// What time it is in this poll.
    now: Instant,
    /// The same in milliseconds, which nearly every segment needs.
    now_ms: u32,
    /// When the last poll asked for this one.
    asked_for: Option<Instant>,
    /// After a pause: turns that are left to process what arrived meanwhile.
    turns_to_hear: u32,
    /// After a pause: until when no peer is too late.
    pardon_until: Instant,
    /// The last segments to the peers whose connections were ended in this turn.
    last_segments: Vec<LastSegment>,
    /// The connection that is looked at next when one has to be ended.
    evict_hand: usize,

    /// All connections that were ever in use: up to [`StackConfig::connections`], and so with `cold`.
    hot: Vec<Hot>,
    cold: Vec<Cold>,
    states: States<S::Connection>,
    neighbours: Neighbours,
    /// Those that are not in use any more.
    unused: Vec<u32>,
    sockets: Sockets<'a>,
    /// The socket that is looked at next when one has to be given up.
    socket_hand: usize,
    levels: Levels,
    /// Connections by index, then TIME-WAIT records by index + number of connections.
    flows: FlowTable,
    timers: TimerWheel,
    /// The shortest time after which a connection with something in flight can need its timer.
    timer_min: Duration,
    time_waits: TimeWaits,
    /// Connections with more to send than they were given slots for.
    waiting: VecDeque<u32>,
    /// What it takes to open connections; a shard that has it accepts none.
    caller: Option<Caller>,

    direct: Direct,
    interface: Interface,
    paths: KnownPaths,
    isns: IsnGenerator,
    timestamps: TimestampClock,
    cookies: SynCookies,
    cookie_use: CookieUse,
    sources: Option<Arc<Sources>>,
    forwarding: Option<Forwarding>,
    /// The number of this shard among those that it shares something with.
    shard: usize,
    resets: RateLimit,
    challenge_acks: RateLimit,
    time_wait_acks: RateLimit,

    batch: Vec<Arrival>,
    /// The connection whose segment is being processed, and the hash of its flow; [`NO_CONNECTION`] if there is none.
    arriving: (u32, FlowHash),
    /// Connections that may have to acknowledge something when the batch is over.
    owing: Vec<u32>,
    scratch: Scratch,
    counters: Arc<TcpCounters>,
    discards: Arc<DiscardCounters>,
}

/// How many connections are in which state.
#[derive(Debug, Default)]
struct Levels {
    syn_sent: u32,
    syn_received: u32,
    open: u32,
    closing: u32,
}

/// A segment between its look-up and its turn.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    segment: Segment,
    frame: u32,
    hash: FlowHash,
    /// What seems to be its connection, if any; it may not be, and something earlier in the batch may have
    /// changed that.
    connection: u32,
}

const NO_CONNECTION: u32 = u32::MAX;

/// Buffers that are used within one call.
struct Scratch {
    /// Received bytes, one behind the other, when the ring has them in two pieces.
    input: Box<[u8]>,
    /// A reply whose place in the ring is in two pieces.
    reply: Box<[u8]>,
    /// A received packet that had to be changed, or was made up.
    packet: Box<[u8]>,
    /// A packet for which there was no slot after all.
    spare: Box<[u8]>,
    /// A frame that is not sent.
    unseen: Box<[u8]>,
}

/// The link that is being served.
struct Port<'p, T> {
    link: u8,
    transmit: &'p mut T,
    /// Slots to leave for the rest of the batch.
    reserve: usize,
}

impl<'p, T> Port<'p, T> {
    /// The link with this number, for a connection whose turn is not part of a batch.
    fn of<L: Link<Transmit = T>>(links: &'p mut [L], link: u8) -> Self {
        Port {
            link,
            transmit: links[usize::from(link)].transmit(),
            reserve: 0,
        }
    }
}

/// What a flow belongs to.
enum Found {
    Connection(usize),
    TimeWait(u32),
    Nothing,
}

impl<'a, S: Service> Core<'a, S> {
    fn new(
        config: StackConfig,
        local: Local,
        secrets: &Secrets,
        service: S,
        buffers: &'a mut [u8],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config.validate(S::REPLY_BYTES_MIN)?;
        if buffers.len() < config.arena_bytes() {
            return Err(ConfigError::ArenaTooSmall {
                sockets: config.sockets(),
                wanted: config.arena_bytes(),
                left: buffers.len(),
            });
        }
        let connections = config.connections as usize;
        let time_wait = config.time_wait as usize;
        let pair_bytes = config.receive_buffer_bytes + config.send_buffer_bytes;
        let pairs = buffers.chunks_exact_mut(pair_bytes);
        let pairs = pairs.map(|pair| pair.split_at_mut(config.receive_buffer_bytes));
        let sockets = Sockets::new(pairs.take(config.sockets() as usize));
        let counters = Arc::new(TcpCounters::default());
        counters.connections_max.set(connections as u64);
        counters.sockets_max.set(sockets.len() as u64);
        counters.time_wait_max.set(time_wait as u64);
        counters.flows_max.set((connections + time_wait) as u64);
        let limit = |per_second| RateLimit::new(per_second, &secrets.rate_limit);
        let bytes = |len: usize| vec![0; len].into_boxed_slice();
        Ok(Core {
            hot: table(connections)?,
            cold: table(connections)?,
            states: States::new(connections)?,
            neighbours: Neighbours::new(connections, words(&secrets.flow))?,
            unused: table(connections)?,
            sockets,
            socket_hand: 0,
            levels: Levels::default(),
            flows: FlowTable::new(connections + time_wait, words(&secrets.flow))?,
            timers: TimerWheel::new(connections, now),
            timer_min: Duration::from_millis(u64::from(
                RTO_MIN_MS.min(config.deadlines.user_timeout_ms),
            )),
            time_waits: TimeWaits::new(
                time_wait,
                Duration::from_millis(u64::from(config.time_wait_ms)),
            )?,
            waiting: VecDeque::with_capacity(connections),
            caller: None,
            direct: Direct::new(
                config.direct_path,
                Chunks::new(config.chunks().0, config.chunks().1)?,
                Senders::new(connections)?,
                direct::sender_config(&config),
            ),
            interface: new_interface(0, config.mtu, now),
            paths: KnownPaths::new(secrets, config.mtu, now),
            isns: IsnGenerator::new(&secrets.isn),
            timestamps: TimestampClock::new(secrets),
            cookies: SynCookies::new(&secrets.cookie),
            cookie_use: CookieUse::default(),
            forwarding: None,
            shard: 0,
            sources: Sources::new(&config, secrets, 1)?.map(Arc::new),
            resets: limit(config.resets_per_second),
            challenge_acks: limit(config.challenge_acks_per_second),
            time_wait_acks: limit(config.time_wait_acks_per_second),
            batch: Vec::with_capacity(BATCH_FRAMES),
            arriving: (NO_CONNECTION, FlowHash::default()),
            owing: Vec::with_capacity(BATCH_FRAMES),
            scratch: Scratch {
                input: bytes(config.receive_buffer_bytes),
                reply: bytes(config.send_buffer_bytes),
                packet: bytes(config.mtu),
                spare: bytes(config.mtu),
                unseen: bytes(L2Header::BYTES_MAX + config.mtu),
            },
            counters,
            discards: Arc::default(),
            unix_time_s: None,
            is_draining: false,
            is_leaving: false,
            drained: 0,
            now,
            now_ms: now.total_millis() as u32,
            asked_for: None,
            turns_to_hear: 0,
            pardon_until: Instant::ZERO,
            last_segments: Vec::with_capacity(LastSegment::PER_TURN),
            evict_hand: 0,
            service,
            local,
            new_addresses: Learner::default(),
            config,
        })
    }

    /// Takes notice of the time, and of how much later it is than it should be.
    fn begin_turn(&mut self, now: Instant) {
        self.set_now(now);
        if let Some(forwarding) = &self.forwarding {
            forwarding.set_awake(self.shard);
        }
        let Some(asked_for) = self.asked_for else {
            return;
        };
        if now < asked_for + PAUSE_MIN {
            return;
        }
        self.counters.pauses.increment();
        self.turns_to_hear = TURNS_TO_HEAR_MAX;
        // A peer that is alive answers a retransmission in less. A machine that is paused again and again must
        // not keep connections for ever.
        let rto_max = Duration::from_millis(u64::from(self.config.rto_max_ms));
        if now >= self.pardon_until + rto_max {
            self.pardon_until = now + (now - asked_for).min(rto_max);
        }
    }

    /// Whether there is nothing in the links any more that arrived in a pause, if there was one. `frames` is how
    /// many this turn has brought.
    fn has_heard_all(&mut self, frames: usize) -> bool {
        self.turns_to_hear = match frames {
            0 => 0,
            _ => self.turns_to_hear.saturating_sub(1),
        };
        self.turns_to_hear == 0
    }

    fn has_all_connections(&self) -> bool {
        self.unused.is_empty() && self.hot.len() == self.config.connections as usize
    }

    /// The socket of a connection that has one.
    #[inline]
    fn socket(&mut self, index: usize) -> &mut tcp::Socket<'a> {
        self.sockets.slot(self.cold[index].socket).socket()
    }

    fn set_now(&mut self, now: Instant) {
        (self.now, self.now_ms) = (now, now.total_millis() as u32);
    }

    /// Publishes the gauges that are not set where they change.
    fn publish_levels(&self) {
        let Levels {
            syn_sent,
            syn_received,
            open,
            closing,
        } = self.levels;
        self.counters.syn_sent.set(u64::from(syn_sent));
        self.counters.syn_received.set(u64::from(syn_received));
        self.counters.established.set(u64::from(open));
        self.counters.closing.set(u64::from(closing));
        let connections = self.hot.len() - self.unused.len();
        self.counters.connections.set(connections as u64);
        self.counters.time_wait.set(self.time_waits.len() as u64);
        self.counters.flows.set(self.flows.len() as u64);
        self.counters.timers.set(self.timers.len() as u64);
        self.counters.deferred.set(self.waiting.len() as u64);
        self.counters.sockets.set(self.sockets.used() as u64);
        self.direct.chunks.publish_levels();
    }

    /// What `flow` belongs to.
    fn find(&self, flow: &FlowKey, hash: FlowHash) -> Found {
        let connections = self.config.connections;
        let index = self
            .flows
            .get(hash, |index| match index.checked_sub(connections) {
                None => self.hot[index as usize].flow == *flow,
                Some(record) => self.time_waits.get(record).flow == *flow,
            });
        match index {
            None => Found::Nothing,
            Some(index) => match index.checked_sub(connections) {
                None => Found::Connection(index as usize),
                Some(record) => Found::TimeWait(record),
            },
        }
    }

    /// Moves a connection from one state to another, and keeps the levels.
    fn change_state(&mut self, index: usize, to: State) {
        let from = std::mem::replace(&mut self.hot[index].tcb.state, to);
        let levels = &mut self.levels;
        let mut add = |state, count: u32| {
            let level = match state {
                State::Free => return,
                State::SynSent => &mut levels.syn_sent,
                State::SynReceived => &mut levels.syn_received,
                State::Open => &mut levels.open,
                State::Closing => &mut levels.closing,
            };
            *level = level.wrapping_add(count);
        };
        add(from, 1u32.wrapping_neg());
        add(to, 1);
        if let Some(sources) = &self.sources {
            let is_counted = |state| matches!(state, State::Open | State::Closing);
            match (is_counted(from), is_counted(to)) {
                (false, true) => sources.add(&self.hot[index].flow),
                (true, false) => sources.remove(&self.hot[index].flow),
                _ => {}
            }
        }
    }

    /// Takes an unused connection for `flow`, which is in no connection's hands. It has no socket, and its L2 header and
    /// its link are those of the first packet to the peer.
    fn take_connection(
        &mut self,
        flow: FlowKey,
        hash: FlowHash,
        tcb: Tcb,
        l2: &L2Header,
        link: u8,
    ) -> Option<usize> {
        let index = match self.unused.pop() {
            Some(index) => index,
            None if self.has_all_connections() => return None,
            None => {
                self.hot.push(Hot::default());
                self.cold.push(Cold::new());
                self.hot.len() as u32 - 1
            }
        };
        let listed = self.flows.insert(hash, index);
        debug_assert!(
            listed.is_ok(),
            "the flow table is smaller than what it lists"
        );
        let index = index as usize;
        let hot = &mut self.hot[index];
        let state = tcb.state;
        *hot = Hot {
            flow,
            tcb: Tcb {
                state: State::Free,
                ..tcb
            },
            progress_at_ms: self.now_ms,
            link,
            flags: hot.flags.of_next_connection(),
            ..Hot::default()
        };
        self.change_state(index, state);
        let watch = Watch::half_open(self.now, &self.config.deadlines);
        let path = self.path_to(&flow);
        let neighbour = self.neighbours.take(l2);
        self.cold[index].renew(neighbour, watch, path);
        Some(index)
    }

    /// Forgets a connection that has come to its end.
    fn end(&mut self, index: usize, end: End) {
        if self.caller.is_some() {
            self.end_call(index, end);
            self.release_port(&self.hot[index].flow);
        }
        let is_remembered = self.has_redeemable_cookie(index);
        self.release(index);
        if is_remembered {
            self.counters.syncookies_remembered.increment();
            self.leave_record(index, Ending::Closed);
        }
    }

    /// Removes a connection without sending anything to the peer.
    fn release(&mut self, index: usize) {
        let was_listed = self.flows.remove(self.hash_of(index), index as u32);
        debug_assert!(was_listed, "a connection was not in the flow table");
        self.release_unlisted(index);
    }

    /// The hash of a connection's flow, which is known if one of its segments is being processed.
    #[inline]
    fn hash_of(&self, index: usize) -> FlowHash {
        match self.arriving {
            (arriving, hash) if arriving as usize == index => hash,
            _ => self.flows.hash(&self.hot[index].flow),
        }
    }

    /// Forgets a connection that is not in the flow table.
    fn release_unlisted(&mut self, index: usize) {
        let cold = &mut self.cold[index];
        cold.is_direct = false;
        if let Some(slot) = self.direct.slot(cold.sender) {
            slot.sender.discard(slot.chunks);
            slot.inbox.discard(slot.chunks);
        }
        self.direct.senders.release(&mut cold.sender);
        // Drops the protocol's state with the connection, keys say.
        self.states.release(&mut cold.state);
        self.neighbours.release(&mut cold.neighbour);
        self.sockets.give_back(&mut cold.socket);
        self.change_state(index, State::Free);
        self.timers.cancel(index as u32);
        self.unused.push(index as u32);
    }

    /// Replaces a connection by a record in TIME-WAIT.
    fn enter_time_wait(&mut self, index: usize) {
        self.counters.tw.increment();
        if self.time_waits.is_disabled() {
            return self.end(index, End::Closed);
        }
        // The record keeps the port.
        self.end_call(index, End::Closed);
        self.release(index);
        self.leave_record(index, Ending::TimeWait);
    }

    /// Lists a record of the connection that was just released.
    fn leave_record(&mut self, index: usize, ending: Ending) {
        let left = self.left_by(index, ending);
        self.list_record(left, self.hash_of(index));
    }

    /// What a connection leaves behind that ends now.
    fn left_by(&self, index: usize, ending: Ending) -> Left {
        let (Hot { flow, tcb, .. }, cold) = (&self.hot[index], &self.cold[index]);
        Left {
            flow: *flow,
            snd_nxt: tcb.snd_nxt,
            rcv_nxt: tcb.rcv_nxt,
            ts_recent: cold.ts_recent,
            window: tcb.rcv_wnd_field(),
            ending: match ending {
                Ending::TimeWait if !tcb.fin_received => Ending::FinWait,
                _ => ending,
            },
            has_timestamps: cold.options.timestamps,
        }
    }

    /// Begins a wait, if need be in the place of the longest one.
    fn list_record(&mut self, left: Left, hash: FlowHash) {
        if self.time_waits.is_full()
            && let Some((oldest, flow)) = self.time_waits.pop_oldest()
        {
            self.counters.time_wait_overflow.increment();
            self.unlist_time_wait(oldest, &flow);
        }
        let record = self.time_waits.insert(left, self.now);
        let listed = (self.flows).insert(hash, self.config.connections + record);
        debug_assert!(
            listed.is_ok(),
            "the flow table is smaller than what it lists"
        );
    }

    /// Takes a TIME-WAIT record that has ended from the flow table.
    fn unlist_time_wait(&mut self, record: u32, flow: &FlowKey) {
        let was_listed = self
            .flows
            .remove(self.flows.hash(flow), self.config.connections + record);
        debug_assert!(was_listed, "a TIME-WAIT record was not in the flow table");
        self.release_port(flow);
    }

    /// Whether the source of `flow` has as many connections as it may have.
    fn is_source_full(&self, flow: &FlowKey) -> bool {
        (self.sources.as_ref()).is_some_and(|sources| sources.is_full(flow))
    }

    /// Closes some of the connections that wait for a message, if the shard drains; in the end all of them.
    fn drain_some<L: Link>(&mut self, links: &mut [L]) {
        if !self.is_draining {
            return;
        }
        let end = self.hot.len().min(self.drained + DRAINED_PER_TURN);
        while self.drained < end {
            let index = self.drained;
            self.drained += 1;
            if self.hot[index].tcb.state == State::SynSent {
                self.hang_up(index);
            } else if self.is_idle(index) {
                let mut port = Port::of(links, self.hot[index].link);
                self.finish_turn(index, 0, &mut port);
            }
        }
    }

    /// Whether a connection waits for nothing but the first byte of a message.
    fn is_idle(&mut self, index: usize) -> bool {
        let cold = &self.cold[index];
        self.hot[index].tcb.state == State::Open
            && cold.watch.wait() == Wait::Message
            && (cold.is_direct || self.socket(index).recv_queue() == 0)
    }
}

fn new_interface(seed: u64, mtu: usize, now: Instant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut device = Wire {
        received: None,
        transmit: &mut Nowhere(&mut []),
        l2: &L2Header::default(),
        ack_seq: 0,
        window_shift: 0,
        ts_recent: None,
        spare: &mut [],
        mtu,
        sent: None,
    };
    let mut interface = Interface::new(config, &mut device, crate::smoltcp_time::at(now));
    // Which addresses are served was decided when the packet was parsed.
    interface.set_any_ip(true);
    interface
}

fn words(key: &[u8; 16]) -> [u64; 2] {
    let key = u128::from_le_bytes(*key);
    [key as u64, (key >> 64) as u64]
}
