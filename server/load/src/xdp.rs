//! The transport past the kernel: a shard per core, which opens connections over AF_XDP.
//!
//! The stack is the one that serves, and a [`Caller`] is its service: it wraps the client, says when
//! connections are to be opened and idle ones to be used, and when all is done.
//!
//! ```text
//!   start: neighbour ─▶ XDP program for our source ports ─▶ shards
//!            each core:  Connecting ─▶ Ready (all cores are) ─▶ Asking ─▶ Done ─▶ its Part
//!   end:   every core is done ─▶ drain ─▶ program detached
//! ```
//!
//! Which core an answer arrives at is for the NIC to say ([`barewire_tcp::source_ports`]), so the
//! cores together have as many connections as were asked for, and each the share that the NIC gives it.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};

use barewire_service::cores::allowed_cpus;
use barewire_service::deadline::Deadlines;
use barewire_service::lifecycle::{Lifecycle, Phase as LifecyclePhase};
use barewire_service::service::{End, Expect, Input, Next, Progress, Reply, Service, Want};
use barewire_service::stack::Notice;
use barewire_service::time::{Duration, Instant};
use barewire_tcp::config::StackConfig;
use barewire_tcp::packet::ChecksumPolicy;
use barewire_xdp::interface::Interface;
use barewire_xdp::redirect::ModeChoice;
use barewire_xdp::worker::Wait;
use rustix::thread::set_current_timer_slack;

use super::client::{Client, Clock, Exchange, Monotonic};
use super::error::LoadError;
use super::limits::LimitError;
use super::plan::{BypassPlan, Mode, Plan};
use super::report::Network;
use super::request::REQUEST_BYTES_MAX;
use super::tally::{Failure, Tally};
use super::transport::{
    Part, RETRY_NS, SPIN_NS, TransportError, beginning_max, busy_share, thread_cpu_ns,
};
use super::{Asked, PROGRESS_INTERVAL, Setup, share};
use barewire_service::stack::{CounterGroup, Running, Stack};
use barewire_xdp::{Calls, XdpConfig};

/// How often deadlines are looked at.
const TICK_NS: u64 = 20_000_000;
/// How long after the end may be asked what was due before it.
const GRACE_NS: u64 = 20_000_000;
/// How soon a core that waits for the others looks again.
const READY_NS: u64 = 50_000;
/// How long connections may take to close when all is asked and answered, in milliseconds.
const DRAIN_MS: u32 = 1_000;
/// How long a port rests that we closed first. Far less than RFC 9293 asks for: a load generator has few
/// ports, and segments do not live for minutes on the networks that it is for.
const TIME_WAIT_MS: u32 = 1_000;
/// The ports above those that Linux gives to its own connections by default.
const SOURCE_PORTS: RangeInclusive<u16> = 61_000..=65_535;
/// Receive buffer of a connection, and the smallest send buffer: the longest head of a response, twice the
/// longest request.
const BUFFER_BYTES: usize = 16 << 10;
/// Longer than any run.
const NEVER_MS: u32 = 30 * 24 * 3_600 * 1_000;

/// The CPUs for a run of so many threads: the last ones, as servers tend to take the first.
pub fn cores(plan: &BypassPlan, threads: usize) -> Result<Vec<usize>, LoadError> {
    let interface = Interface::named(&plan.interface).map_err(bypass)?;
    let mut cores = plan.cores.clone();
    if cores.is_empty() {
        let allowed = allowed_cpus();
        cores = allowed[allowed.len().saturating_sub(threads)..].to_vec();
    }
    cores.truncate(interface.rx_queues as usize);
    Ok(cores)
}

/// Asks on all of `cores`; what each of them brought, and what was seen on the way.
pub fn run(
    plan: &Plan,
    how: &BypassPlan,
    address: SocketAddr,
    setup: &Setup,
    progress: impl Fn(),
) -> Result<Asked, LoadError> {
    let threads = setup.threads;
    let shared = Arc::new(Shared {
        ready: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
        in_use: AtomicUsize::new(0),
        threads,
        stop: Arc::clone(&setup.stop),
        broken: OnceLock::new(),
    });
    let (parts_out, parts_in) = channel();
    let interface = Interface::named(&how.interface).map_err(bypass)?;
    let config = config(plan, how, &interface, address)?;
    let lifecycle = Lifecycle::new();
    let make = {
        let (setup, shared) = (setup.clone(), Arc::clone(&shared));
        let limits = Limits {
            connections: plan.connections,
            timeout_ns: plan.timeout.as_nanos() as u64,
            duration_ns: (plan.window.asking()).map(|asking| asking.as_nanos() as u64),
            cores: how.cores.clone(),
        };
        move |core| {
            Caller::new(
                core,
                &setup,
                &limits,
                Arc::clone(&shared),
                parts_out.clone(),
            )
        }
    };
    let running = config.start(make, &lifecycle).map_err(bypass)?;
    let warnings: Vec<String> = (running.notices.iter())
        .filter(|notice| matches!(notice, Notice::Warning(_)))
        .map(ToString::to_string)
        .collect();
    let mut shares = BusyShares::default();
    let parts = wait_for_parts(&parts_in, &running, threads, || {
        progress();
        shares.look(&shared, &running.counters);
    });
    // The kernel's part of it goes with the sockets.
    let network = network(&running.counters);
    let busy_ns: Vec<u64> = busy_ns(&running.counters).collect();
    lifecycle.advance(match parts {
        Ok(_) => LifecyclePhase::Drain,
        Err(_) => LifecyclePhase::Stop,
    });
    for core in running.cores {
        match core.join() {
            Ok(ended) => ended.map_err(bypass)?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    if shared.broken.get().is_some() {
        return Err(TransportError::SourcePorts.into());
    }
    let mut parts = parts?;
    for (core, (part, busy_ns)) in parts.iter_mut().zip(busy_ns).enumerate() {
        let elapsed_ns = part.ended_ns - part.started_ns;
        let share = shares.of(core);
        // What it did to open the connections is in `busy_ns`, but not in the shares.
        part.busy_share = share.unwrap_or(busy_share(busy_ns, elapsed_ns));
        part.busy_ns = (part.busy_share * elapsed_ns as f64) as u64;
    }
    Ok(Asked {
        parts,
        network: Some(network),
        warnings,
    })
}

/// How busy the cores were while all of them asked: between the first and the last look in that time.
#[derive(Default)]
struct BusyShares {
    first: Option<(std::time::Instant, Vec<u64>)>,
    last: Option<(std::time::Instant, Vec<u64>)>,
}

impl BusyShares {
    fn look(&mut self, shared: &Shared, counters: &[CounterGroup]) {
        let are_ready = shared.ready.load(Ordering::Acquire) == shared.threads;
        if are_ready && shared.finished.load(Ordering::Acquire) == 0 {
            let seen = (std::time::Instant::now(), busy_ns(counters).collect());
            match &self.first {
                None => self.first = Some(seen),
                Some(_) => self.last = Some(seen),
            }
        }
    }

    /// `None` for a run that was too short to look twice.
    fn of(&self, core: usize) -> Option<f64> {
        let ((from, busy_before), (until, busy_after)) =
            self.first.as_ref().zip(self.last.as_ref())?;
        let busy_ns = busy_after
            .get(core)?
            .saturating_sub(*busy_before.get(core)?);
        Some(busy_share(busy_ns, (*until - *from).as_nanos() as u64))
    }
}

/// How long each core has had something to do.
fn busy_ns(counters: &[CounterGroup]) -> impl Iterator<Item = u64> {
    per_core(counters, "worker", "busy_ns")
}

/// One part for each core, in their order.
fn wait_for_parts(
    parts_in: &Receiver<(usize, Part)>,
    running: &Running,
    threads: usize,
    mut look: impl FnMut(),
) -> Result<Vec<Part>, LoadError> {
    let mut parts: Vec<(usize, Part)> = Vec::with_capacity(threads);
    while parts.len() < threads {
        look();
        match parts_in.recv_timeout(PROGRESS_INTERVAL) {
            Ok(part) => parts.push(part),
            Err(RecvTimeoutError::Timeout) => {
                if running.cores.iter().any(|core| core.is_finished()) {
                    return Err(LoadError::CoreEnded);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(LoadError::CoreEnded),
        }
    }
    parts.sort_by_key(|&(core, _)| core);
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

fn config(
    plan: &Plan,
    bypass: &BypassPlan,
    interface: &Interface,
    address: SocketAddr,
) -> Result<XdpConfig, LoadError> {
    let source_ports = bypass.source_ports.clone().unwrap_or_else(|| {
        let wanted = u16::try_from(plan.connections * 2).unwrap_or(u16::MAX - 1_024);
        (*SOURCE_PORTS.start()).min(u16::MAX - wanted)..=*SOURCE_PORTS.end()
    });
    let reserved_ports: Vec<u16> = kernel_ports()
        .filter(|port| source_ports.contains(port))
        .collect();
    let ports = (source_ports.len() - reserved_ports.len()) * bypass.source_addresses.len().max(1);
    if ports < plan.connections {
        return Err(LimitError::SourcePorts {
            connections: plan.connections,
            ports,
        }
        .into());
    }
    let calls = Calls {
        destination: address,
        next_hop_mac: bypass.next_hop_mac,
        source_ports,
        reserved_ports,
    };
    let timeout_ms = u32::try_from(plan.timeout.as_millis()).unwrap_or(NEVER_MS);
    let defaults = XdpConfig::calling(&bypass.interface, calls);
    Ok(XdpConfig {
        addresses: bypass.source_addresses.clone(),
        cores: bypass.cores.clone(),
        mode: match bypass.mode {
            Mode::Auto => ModeChoice::Auto,
            Mode::Native => ModeChoice::Native,
            Mode::Generic => ModeChoice::Generic,
        },
        mtu: bypass.mtu.map(usize::from),
        wait: match bypass.spin_us {
            Some(spin_us) => Wait::Adaptive { spin_us },
            None => defaults.wait,
        },
        drain_ms: DRAIN_MS,
        stack: StackConfig {
            // A single core may get all of them, while others have not closed yet.
            connections: (plan.connections + plan.connections / 8 + 64) as u32,
            time_wait_ms: TIME_WAIT_MS,
            // What the kernel sends through a veth has no checksum yet: it never leaves this machine.
            checksums: match interface.driver.as_str() {
                "veth" => ChecksumPolicy::Trust,
                _ => ChecksumPolicy::Verify,
            },
            receive_buffer_bytes: BUFFER_BYTES,
            // With room for one more request when all of a pipeline waits: answers must be read also then, or
            // both sides might wait for each other.
            send_buffer_bytes: (plan.pipeline * plan.request.bytes_max() + REQUEST_BYTES_MAX)
                .max(BUFFER_BYTES),
            deadlines: Deadlines {
                half_open_ms: timeout_ms,
                idle_ms: NEVER_MS,
                head_ms: timeout_ms,
                body_ms: timeout_ms,
                send_ms: timeout_ms,
                close_ms: DRAIN_MS,
                user_timeout_ms: timeout_ms.saturating_mul(2),
                ..defaults.stack.deadlines
            },
            ..defaults.stack.clone()
        },
        ..defaults
    })
}

/// The stack's own error, whatever its type.
fn bypass(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LoadError {
    LoadError::Bypass(error.into())
}

/// The local ports that TCP sockets of the kernel's use in this network namespace.
fn kernel_ports() -> impl Iterator<Item = u16> {
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let tables = tables.map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.into_iter().flat_map(|table| {
        let ports: Vec<u16> = table.lines().skip(1).filter_map(local_port).collect();
        ports
    })
}

/// The port in a line of proc_net_tcp(5): `0: 0100007F:1F90 00000000:0000 0A …`.
fn local_port(line: &str) -> Option<u16> {
    let local = line.split_ascii_whitespace().nth(1)?;
    u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
}

fn network(counters: &[CounterGroup]) -> Network {
    let sum = |part, name| per_core(counters, part, name).sum::<u64>();
    let of_kernel = [
        "rx_dropped",
        "rx_ring_full",
        "rx_invalid_descs",
        "tx_invalid_descs",
    ];
    let kernel: u64 = of_kernel.iter().map(|name| sum("xsk", name)).sum();
    let discards = (counters.iter())
        .filter(|group| group.part == "discards")
        .flat_map(|group| group.counters.samples());
    Network {
        discards: discards.map(|sample| sample.value).sum(),
        retransmissions: sum("tcp", "retrans_segs"),
        link_drops: kernel + sum("tcp", "rx_dropped_no_slot"),
        strays: sum("tcp", "unknown_flow_ignored"),
        handovers: sum("tcp", "handovers"),
    }
}

/// The counter `name` of every group that has it, in the order of the cores.
fn per_core<'a>(
    counters: &'a [CounterGroup],
    part: &'a str,
    name: &'a str,
) -> impl Iterator<Item = u64> + 'a {
    counters
        .iter()
        .filter(move |group| group.part == part)
        .flat_map(|group| group.counters.samples())
        .filter(move |sample| sample.name == name)
        .map(|sample| sample.value)
}

/// What the cores have in common.
#[derive(Debug)]
struct Shared {
    /// Cores that have tried every connection.
    ready: AtomicUsize,
    /// Cores that have nothing left to ask.
    finished: AtomicUsize,
    /// Connections that are of use, of all cores.
    in_use: AtomicUsize,
    threads: usize,
    stop: Arc<AtomicBool>,
    /// There was no port to call from.
    broken: OnceLock<()>,
}

/// What all cores are told.
#[derive(Clone)]
struct Limits {
    connections: usize,
    timeout_ns: u64,
    duration_ns: Option<u64>,
    cores: Vec<usize>,
}

/// The service of one core.
struct Caller {
    core: usize,
    cpu: Option<usize>,
    client: Client<Monotonic>,
    answered: Arc<[super::ThreadCounters]>,
    shared: Arc<Shared>,
    part_out: Sender<(usize, Part)>,
    phase: Phase,
    /// At most so many connections at once, if each asks one request.
    connections_max: usize,
    timeout_ns: u64,
    duration_ns: Option<u64>,
    /// To be opened as soon as may be, and from a point in time on.
    to_open: usize,
    to_retry: VecDeque<u64>,
    /// Connections that are being opened, those that have nothing asked, and all that are of use.
    opening: usize,
    idle: usize,
    in_use: usize,
    started_ns: u64,
    cpu_before_ns: u64,
    /// When to stop asking.
    end_ns: u64,
    /// When it was last seen that there was nothing to wait for.
    calm_ns: u64,
    gave_up: bool,
    is_timed_out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Ready,
    Asking,
    /// Nothing is left to ask, but answers may be to come.
    Finishing,
    Done,
}

/// A connection.
#[derive(Debug, Default)]
struct Line {
    exchange: Exchange,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Opening,
    Idle,
    Busy,
    /// Of no use any more.
    Over,
}

impl Caller {
    fn new(
        core: usize,
        setup: &Setup,
        limits: &Limits,
        shared: Arc<Shared>,
        part_out: Sender<(usize, Part)>,
    ) -> Self {
        let client = setup.client(core);
        let connections = share(limits.connections, core, shared.threads);
        if client.has_schedule() {
            // Sleeping until something is due shall not take 50 us longer than asked for; if the kernel
            // refuses, it does.
            let _ = set_current_timer_slack(NonZeroU64::new(1));
        }
        Caller {
            core,
            cpu: limits.cores.get(core).copied(),
            answered: Arc::clone(&setup.counters),
            shared,
            part_out,
            phase: Phase::Connecting,
            connections_max: connections,
            timeout_ns: limits.timeout_ns,
            duration_ns: limits.duration_ns,
            to_open: if client.is_churning() { 0 } else { connections },
            to_retry: VecDeque::with_capacity(limits.connections),
            client,
            opening: 0,
            idle: 0,
            in_use: 0,
            started_ns: 0,
            cpu_before_ns: 0,
            end_ns: u64::MAX,
            calm_ns: 0,
            gave_up: false,
            is_timed_out: false,
        }
    }

    /// Opens every connection, or fails to at least once.
    fn connect(&mut self, now: Instant, now_ns: u64) -> Want {
        if self.shared.stop.load(Ordering::Relaxed) {
            self.to_open = 0;
        }
        if let Some(open) = self.open_one() {
            return open;
        }
        if self.opening > 0 {
            return until(now, now_ns, now_ns + TICK_NS);
        }
        self.phase = Phase::Ready;
        self.shared.ready.fetch_add(1, Ordering::AcqRel);
        self.start(now, now_ns)
    }

    fn open_one(&mut self) -> Option<Want> {
        if self.to_open == 0 || self.opening >= beginning_max(self.shared.threads) {
            return None;
        }
        self.to_open -= 1;
        Some(Want::Open(0))
    }

    /// Waits for the other cores, so that all begin to ask together.
    fn start(&mut self, now: Instant, now_ns: u64) -> Want {
        if self.shared.ready.load(Ordering::Acquire) < self.shared.threads {
            return until(now, now_ns, now_ns + READY_NS);
        }
        self.cpu_before_ns = thread_cpu_ns();
        self.started_ns = self.client.start();
        self.calm_ns = self.started_ns;
        if let Some(duration_ns) = self.duration_ns {
            let grace_ns = if self.client.has_schedule() {
                GRACE_NS
            } else {
                0
            };
            self.end_ns = self.started_ns + duration_ns + grace_ns;
        }
        self.phase = Phase::Asking;
        self.go_on(now, self.started_ns)
    }

    fn go_on(&mut self, now: Instant, now_ns: u64) -> Want {
        self.answered[self.core]
            .answered
            .set(self.client.answered());
        self.look_at_the_time(now_ns);
        if self.client.is_finished() {
            if self.phase == Phase::Asking {
                self.phase = Phase::Finishing;
                self.shared.finished.fetch_add(1, Ordering::AcqRel);
            }
            return self.finish(now, now_ns);
        }
        while self
            .to_retry
            .front()
            .is_some_and(|&from_ns| from_ns <= now_ns)
        {
            self.to_retry.pop_front();
            self.to_open += 1;
        }
        if let Some(open) = self.open_one() {
            return open;
        }
        let may_call =
            self.in_use < self.connections_max && self.opening < beginning_max(self.shared.threads);
        if may_call && let Some(ticket) = self.client.take_call(now_ns) {
            return Want::Open(ticket);
        }
        let due_ns = (self.client.due_ns()).map(|due_ns| due_ns.max(self.started_ns));
        if self.idle > 0 && due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            return Want::Call;
        }
        let soon = |at_ns: u64| at_ns.saturating_sub(SPIN_NS);
        let mut at_ns = (now_ns + TICK_NS).min(self.end_ns);
        if let Some(due_ns) = due_ns.filter(|_| self.idle > 0) {
            at_ns = at_ns.min(soon(due_ns));
        }
        if may_call && let Some(due_ns) = self.client.next_call_ns() {
            at_ns = at_ns.min(soon(due_ns));
        }
        if let Some(&retry_ns) = self.to_retry.front() {
            at_ns = at_ns.min(retry_ns);
        }
        until(now, now_ns, at_ns)
    }

    /// Asks no more when time is up, when the user says so, or when no answer comes any more.
    fn look_at_the_time(&mut self, now_ns: u64) {
        let has_idle = self.client.has_schedule() && self.idle > 0;
        if has_idle || self.client.is_churning() && self.in_use == 0 {
            self.calm_ns = now_ns;
        }
        let heard_ns = self.client.answered_last_ns().max(self.calm_ns);
        let is_stalled = now_ns.saturating_sub(heard_ns) > 2 * self.timeout_ns;
        let is_told = self.shared.stop.load(Ordering::Relaxed);
        if now_ns >= self.end_ns || is_stalled || is_told {
            self.gave_up |= is_stalled && !self.client.is_finished();
            self.is_timed_out |= now_ns >= self.end_ns;
            self.client.on_drain();
            self.end_ns = u64::MAX;
        }
    }

    /// Nothing is left to ask: waits for the answers.
    fn finish(&mut self, now: Instant, now_ns: u64) -> Want {
        (self.to_open, self.end_ns) = (0, u64::MAX);
        self.to_retry.clear();
        if self.idle > 0 {
            return Want::Call;
        }
        // A connection that is opened for one request still has that to ask, and may come from another
        // core. Others that are still being opened have nothing to ask any more.
        let is_awaited = match self.client.is_churning() {
            true => {
                self.shared.finished.load(Ordering::Acquire) < self.shared.threads
                    || self.shared.in_use.load(Ordering::Acquire) > 0
            }
            false => self.in_use > self.opening,
        };
        if is_awaited {
            return until(now, now_ns, now_ns + READY_NS);
        }
        self.phase = Phase::Done;
        let tally: Tally = self.client.take_tally();
        let part = Part {
            tally,
            cpu: self.cpu,
            started_ns: self.started_ns,
            ended_ns: self.client.answered_last_ns().max(self.started_ns),
            cpu_ns: thread_cpu_ns() - self.cpu_before_ns,
            is_timed_out: self.is_timed_out,
            busy_ns: 0,
            busy_share: 0.0,
            gave_up: self.gave_up,
        };
        // Whoever waits for it is gone only if another core has failed.
        let _ = self.part_out.send((self.core, part));
        Want::Nothing { until: None }
    }

    /// A connection leaves the stage it is in.
    fn leave(&mut self, line: &mut Line) {
        match line.stage {
            Stage::Opening => self.opening -= 1,
            Stage::Idle => self.idle -= 1,
            Stage::Busy | Stage::Over => {}
        }
        line.stage = Stage::Busy;
    }

    fn forget(&mut self, line: &mut Line) {
        self.leave(line);
        line.stage = Stage::Over;
        self.in_use -= 1;
        self.shared.in_use.fetch_sub(1, Ordering::AcqRel);
    }

    /// A connection is of no use any more; another takes its place if there is more to ask.
    fn give_up(&mut self, line: &mut Line, again_at_once: bool) {
        self.forget(line);
        if self.client.is_churning() || self.client.is_finished() {
        } else if again_at_once {
            self.client.tally().reconnects += 1;
            self.to_open += 1;
        } else {
            self.to_retry
                .push_back(self.client.clock().now_ns() + RETRY_NS);
        }
    }

    fn lose(&mut self, line: &mut Line, failure: Failure, why: &str) {
        self.client
            .on_lost(&mut line.exchange, failure, || why.to_owned());
        self.give_up(line, false);
    }
}

/// Nothing until the client's clock says `at_ns`.
fn until(now: Instant, now_ns: u64, at_ns: u64) -> Want {
    let wait = Duration::from_micros(at_ns.saturating_sub(now_ns) / 1_000);
    Want::Nothing {
        until: Some(now + wait),
    }
}

impl Service for Caller {
    type Connection = Line;

    const REPLY_BYTES_MIN: usize = Client::<Monotonic>::REPLY_BYTES_MIN;

    #[inline]
    fn on_input(&mut self, line: &mut Line, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        if line.stage == Stage::Opening {
            self.client.tally().connections += 1;
        }
        self.leave(line);
        let is_early = matches!(self.phase, Phase::Connecting | Phase::Ready);
        if is_early && input.bytes.is_empty() && !input.ended {
            line.stage = Stage::Idle;
            self.idle += 1;
            return Progress {
                consumed: 0,
                messages: 0,
                next: Next::Receive(Expect::Message),
            };
        }
        let progress = self.client.on_input(&mut line.exchange, input, reply);
        match progress.next {
            Next::Receive(Expect::Message) => {
                line.stage = Stage::Idle;
                self.idle += 1;
            }
            Next::Receive(_) | Next::Send => {}
            Next::Close => self.give_up(line, progress.messages > 0 || !reply.is_empty()),
            Next::Abort => self.give_up(line, false),
        }
        progress
    }

    fn on_timeout(&mut self, line: &mut Line, reply: &mut Reply<'_>) {
        self.client.on_timeout(&mut line.exchange, reply);
    }

    fn on_drain(&mut self) {
        self.client.on_drain();
    }

    #[inline]
    fn wants(&mut self, now: Instant) -> Want {
        let now_ns = self.client.clock().now_ns();
        match self.phase {
            Phase::Connecting => self.connect(now, now_ns),
            Phase::Ready => self.start(now, now_ns),
            Phase::Asking | Phase::Finishing => self.go_on(now, now_ns),
            Phase::Done => Want::Nothing { until: None },
        }
    }

    fn on_open(&mut self, token: u64) -> Line {
        self.opening += 1;
        self.in_use += 1;
        self.shared.in_use.fetch_add(1, Ordering::AcqRel);
        Line {
            exchange: match self.client.is_churning() {
                true => Exchange::for_ticket(token),
                false => Exchange::default(),
            },
            stage: Stage::Opening,
        }
    }

    fn on_end(&mut self, line: &mut Line, end: End) {
        if line.stage == Stage::Over {
            return;
        }
        match end {
            End::HandedOver => self.forget(line),
            End::NoPort => {
                // All cores stop: what this one cannot open nobody will.
                let _ = self.shared.broken.set(());
                self.shared.stop.store(true, Ordering::Relaxed);
                self.give_up(line, false);
            }
            End::NoConnection => {
                self.client.put_back(&mut line.exchange);
                self.give_up(line, false);
            }
            End::Unanswered => self.lose(line, Failure::Connect, "connect: no answer"),
            End::Refused => self.lose(line, Failure::Connect, "connect: refused"),
            End::Reset => self.lose(line, Failure::Reset, "the server reset the connection"),
            End::Silent => {
                self.lose(
                    line,
                    Failure::Timeout,
                    "the server acknowledged nothing any more",
                );
            }
            // What there was to say about it the client has said.
            End::Closed => self.give_up(line, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_kernel_are_left_alone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(kernel_ports().any(|used| used == port));
        assert_eq!(
            local_port("   0: 0100007F:1F90 00000000:0000 0A"),
            Some(8080)
        );
        assert_eq!(local_port("sl local_address"), None);
    }
}
