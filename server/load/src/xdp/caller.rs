//! The service of one core: it wraps the client, says when connections are to be opened and idle ones to be used,
//! and when all is done.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};

use barewire_service::service::{End, Expect, Id, Input, Next, Progress, Reply, Service, Want};
use barewire_service::time::{Duration, Instant};
use rustix::thread::set_current_timer_slack;

use crate::client::{Client, Clock, Exchange, Monotonic};
use crate::tally::{Failure, Tally};
use crate::transport::{Part, RETRY_NS, SPIN_NS, beginning_max, thread_cpu_ns};
use crate::wire::{Readiness, Wire};
use crate::{Setup, ThreadCounters, share};
use barewire_tls::{ClientConnection, TlsClient};

/// How often deadlines are looked at.
const TICK_NS: u64 = 20_000_000;
/// How long after the end may be asked what was due before it.
const GRACE_NS: u64 = 20_000_000;
/// How soon a core that waits for the others looks again.
const READY_NS: u64 = 50_000;

/// What the cores have in common.
#[derive(Debug)]
pub struct Shared {
    /// Cores that have tried every connection.
    pub ready: AtomicUsize,
    /// Cores that have nothing left to ask.
    pub finished: AtomicUsize,
    /// Connections that are of use, of all cores.
    pub in_use: AtomicUsize,
    pub threads: usize,
    pub stop: Arc<AtomicBool>,
    /// There was no port to call from.
    pub broken: OnceLock<()>,
}

/// What all cores are told.
#[derive(Clone)]
pub struct Limits {
    pub connections: usize,
    pub timeout_ns: u64,
    pub duration_ns: Option<u64>,
    pub cores: Vec<usize>,
}

/// The service of one core.
pub struct Caller {
    core: usize,
    cpu: Option<usize>,
    client: Client<Monotonic>,
    wire: Wire,
    answered: Arc<[ThreadCounters]>,
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
pub struct Line {
    exchange: Exchange,
    layer: ClientConnection,
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
    pub fn new(
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
            // One core may get all of them.
            wire: setup.wire(limits.connections),
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

    /// Nothing is left to ask: waits for the answers. Idle connections are closed by the drain that follows, no more of
    /// them at once than there are sockets.
    fn finish(&mut self, now: Instant, now_ns: u64) -> Want {
        (self.to_open, self.end_ns) = (0, u64::MAX);
        self.to_retry.clear();
        // A connection that is opened for one request still has that to ask, and may come from another
        // core. Others that are still being opened have nothing to ask any more.
        let is_awaited = match self.client.is_churning() {
            true => {
                self.shared.finished.load(Ordering::Acquire) < self.shared.threads
                    || self.shared.in_use.load(Ordering::Acquire) > 0
            }
            false => self.in_use > self.opening + self.idle,
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
        // The receiver is gone only if another core has failed.
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

    const REPLY_BYTES_MIN: usize = TlsClient::reply_bytes_min::<Client<Monotonic>>();

    #[inline]
    fn on_input(
        &mut self,
        line: &mut Line,
        mut input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let mut shaken = 0;
        if line.stage == Stage::Opening {
            let readiness;
            (shaken, readiness) = self.wire.shake_hands(&mut line.layer, input, reply);
            let next = match readiness {
                Readiness::Receive => Some(Next::Receive(Expect::Handshake)),
                Readiness::Send => Some(Next::Send),
                Readiness::Ready => None,
                Readiness::Failed(why) => {
                    self.lose(line, Failure::Connect, &why);
                    Some(Next::Close)
                }
            };
            if let Some(next) = next {
                return Progress {
                    consumed: shaken,
                    messages: 0,
                    next,
                };
            }
            input.bytes = &input.bytes[shaken..];
            self.client.tally().connections += 1;
        }
        self.leave(line);
        let is_early = matches!(self.phase, Phase::Connecting | Phase::Ready);
        if is_early && input.bytes.is_empty() && !input.ended {
            line.stage = Stage::Idle;
            self.idle += 1;
            return Progress {
                consumed: shaken,
                messages: 0,
                next: Next::Receive(Expect::Message),
            };
        }
        let (layer, exchange) = (&mut line.layer, &mut line.exchange);
        let mut progress = self
            .wire
            .on_input(&mut self.client, layer, exchange, input, reply);
        progress.consumed += shaken;
        match progress.next {
            Next::Receive(Expect::Message) => {
                line.stage = Stage::Idle;
                self.idle += 1;
            }
            Next::Receive(_) | Next::Wait | Next::Send => {}
            Next::Close => self.give_up(line, progress.messages > 0 || !reply.is_empty()),
            Next::Abort => self.give_up(line, false),
        }
        progress
    }

    fn on_timeout(&mut self, line: &mut Line, reply: &mut Reply<'_>) {
        match line.stage {
            Stage::Opening => {
                let why = || "TLS handshake: no answer".to_owned();
                (self.client).on_lost(&mut line.exchange, Failure::Connect, why);
            }
            _ => self.client.on_timeout(&mut line.exchange, reply),
        }
    }

    fn on_dismiss(&mut self, line: &mut Line, reply: &mut Reply<'_>) {
        line.layer.send_close_notify(reply);
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

    fn on_open(&mut self, token: u64, _: Id) -> Line {
        self.opening += 1;
        self.in_use += 1;
        self.shared.in_use.fetch_add(1, Ordering::AcqRel);
        Line {
            exchange: match self.client.is_churning() {
                true => Exchange::for_ticket(token),
                false => Exchange::default(),
            },
            layer: self.wire.connection(),
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
                // All cores stop: no other core can open what this one cannot.
                let _ = self.shared.broken.set(());
                self.shared.stop.store(true, Ordering::Relaxed);
                self.give_up(line, false);
            }
            End::NoConnection => {
                self.client.put_back(&mut line.exchange);
                self.give_up(line, false);
            }
            End::Unanswered => self.lose(line, Failure::Connect, "connect: no answer"),
            End::NoRoute => self.lose(line, Failure::Connect, "connect: no route"),
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
