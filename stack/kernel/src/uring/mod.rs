//! The kernel's TCP, driven by io_uring.
//!
//! Each core has a ring of its own. Connections are direct descriptors, so that no operation looks
//! up a file; accepting and receiving go on by themselves once asked for; replies are sent with the
//! same system call that waits for the next batch of completions.
//!
//! ```text
//!   submit and wait ─▶ [completions] ─┬─▶ received ─▶ Session ─▶ send ──┐
//!       ▲                             ├─▶ sent     ─▶ what has waited ──┤ submissions
//!       └── timers, accept, phase ◀───┴─────────────────────────────────┘
//! ```
//!
//! It needs Linux 6.1, and uses what came later where it is there. [`supported`] says beforehand
//! whether it can run, so that a caller can fall back to epoll, which every kernel has.

mod connection;
#[allow(unsafe_code)]
mod ring;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use barewire_service::cores::{CoreError, PinError};
use barewire_service::lifecycle::{Lifecycle, Member, Phase};
use barewire_service::service::{Arrival, End, Id, Service};
use barewire_service::time::Duration;
use barewire_service::timer::TimerWheel;
use rustix::net::getpeername;

use self::connection::{Connection, Outcome};
use self::ring::{Completion, Ring};
use crate::cores::{self, Core, Worker, ended, failure};
use crate::handover::{self, Courier, Freeze, Idle, Order};
use crate::{Acceptor, Action, KernelConfig, Listener, Pool, StartError, Workbench, socket_to};
use barewire_service::stack::{Running, Stack};

/// The io_uring stack.
#[derive(Debug, Clone)]
pub struct Uring {
    /// Where, on which cores and within which limits it serves.
    pub config: KernelConfig,
    /// Let a kernel thread look for submissions, which sleeps after so many idle milliseconds
    /// (SQPOLL). It wants a core of its own. Off: `None`.
    pub sqpoll_idle_ms: Option<u32>,
    /// Send replies of at least so many bytes without copying them; the next reply then waits until
    /// the peer has acknowledged them. Off: `None`.
    pub zero_copy_bytes_min: Option<usize>,
    /// Buffers into which the kernel receives, shared by a core's connections: a power of two, at
    /// most 32,768. They are needed only until a batch of completions has been worked on.
    pub ring_buffers: u16,
    /// Length of each of them, in bytes.
    pub ring_buffer_bytes: usize,
}

impl Uring {
    /// Everything beside the configuration at its default.
    pub fn new(config: KernelConfig) -> Self {
        Uring {
            config,
            sqpoll_idle_ms: None,
            zero_copy_bytes_min: None,
            ring_buffers: 512,
            ring_buffer_bytes: 4096,
        }
    }
}

/// Why the io_uring stack cannot start.
#[derive(thiserror::Error)]
pub enum UringError {
    /// The same as with any other kernel stack.
    #[error(transparent)]
    Start(#[from] StartError),
    /// This kernel, or its configuration, does not let us.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// The same text as `Display`, with cause and cure: it is what `main` prints of an error that it returns.
impl fmt::Debug for UringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PinError> for UringError {
    fn from(error: PinError) -> Self {
        UringError::Start(error.into())
    }
}

/// Why there is no io_uring for us.
#[derive(Debug, thiserror::Error)]
pub enum Unsupported {
    /// The system call is missing.
    #[error("this kernel has no io_uring: run Linux 6.1 or newer, built with CONFIG_IO_URING")]
    Missing,
    /// The system call is forbidden.
    #[error(
        "io_uring is forbidden: allow it with `sysctl kernel.io_uring_disabled=0`, or in the \
         container's seccomp profile"
    )]
    Forbidden,
    /// Something that is needed came later than this kernel.
    #[error("this kernel's io_uring is too old: run Linux 6.1 or newer")]
    TooOld,
    /// The ring's memory is locked, and there is a limit to that.
    #[error("no memory for io_uring: raise the limit of locked memory (`ulimit -l`)")]
    Memory,
    /// Anything else.
    #[error("io_uring cannot be set up: {0}")]
    Other(io::Error),
}

impl From<io::Error> for Unsupported {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Unsupported::Missing,
            Some(libc::EPERM | libc::EACCES) => Unsupported::Forbidden,
            Some(libc::EINVAL) => Unsupported::TooOld,
            Some(libc::ENOMEM) => Unsupported::Memory,
            _ => Unsupported::Other(error),
        }
    }
}

/// Whether the calling process can have the ring that `config` asks for.
///
/// # Errors
///
/// Why it cannot.
pub fn supported(config: &Uring) -> Result<(), Unsupported> {
    let nothing_to_send = Pool::new(1, 1)?;
    Ring::new(config, 1, &nothing_to_send)?;
    Ok(())
}

impl Stack for Uring {
    type Error = UringError;

    fn start<S, F>(self, make_service: F, lifecycle: &Lifecycle) -> Result<Running, UringError>
    where
        S: Service + 'static,
        F: Fn(usize) -> S + Clone + Send + 'static,
    {
        self.config.check(S::REPLY_BYTES_MIN)?;
        let config = self.config.clone();
        cores::start(&config, "uring", lifecycle, move |core| {
            UringCore::new(make_service(core.index), &self, core)
        })
    }
}

/// One core: its ring, its connections, and what they are worked on with.
struct UringCore<S: Service> {
    /// Declared, and so dropped, before the buffers of `bench` that the kernel may be reading.
    ring: Ring,
    index: usize,
    member: Member,
    orders: Option<Receiver<Order>>,
    /// It was told something, perhaps an order.
    is_told: bool,
    /// The listeners are those of another process as well, and not ours to accept from yet.
    is_dormant: bool,
    /// Connections of the process before, on their way into the ring.
    arriving: VecDeque<Vec<(Idle, Option<SocketAddr>)>>,
    /// Connections that can be sent to the process after.
    installed: Vec<(u32, io::Result<OwnedFd>)>,
    acceptor: Acceptor<Listening>,
    /// A connection's index is that of its direct descriptor.
    connections: Vec<Option<Connection<S::Connection>>>,
    open: usize,
    /// How many of them the service had opened.
    outbound: usize,
    /// Descriptors for those that are in use by none.
    unused_outbound: Vec<u32>,
    /// Accepted, in that order, when every connection was in use: their descriptors wait here
    /// instead of in the kernel's queue, each with its listener and its peer.
    parked: VecDeque<(u32, u32, Option<SocketAddr>)>,
    timers: TimerWheel,
    bench: Workbench<S>,
}

/// A listener, and what the kernel was asked to accept from it.
struct Listening {
    listener: Listener,
    accepting: Accepting,
}

/// What the kernel was asked to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Nothing,
    /// All that come.
    Many,
    /// All that come, and then to stop that.
    Stopping,
}

/// How long what is on its way may take to get there when the core stops for a hand-over, and how often that is looked at.
const QUIESCE_MAX: std::time::Duration = std::time::Duration::from_millis(20);
const QUIESCE_LOOK: Duration = Duration::from_millis(1);

impl<S: Service> UringCore<S> {
    fn new(service: S, config: &Uring, core: Core) -> Result<Self, UringError> {
        let overshoot_bytes = config.ring_buffer_bytes;
        let limits = config.config.clone();
        let bench = Workbench::new(service, limits, core.counters, overshoot_bytes)?;
        // When the kernel accepts all that wait at once, they have to find descriptors.
        let backlog = usize::try_from(config.config.backlog).unwrap_or(0);
        let descriptors = config.config.connections.saturating_add(backlog);
        let descriptors = descriptors.min(cores::open_files_max());
        let all_descriptors = descriptors + config.config.outbound;
        let mut ring = Ring::new(config, descriptors, &bench.send).map_err(Unsupported::from)?;
        for listener in &core.listeners {
            listener
                .set_blocking()
                .map_err(failure(core.index, "FIONBIO"))?;
        }
        let listeners = core.listeners.into_iter().map(|listener| Listening {
            listener,
            accepting: Accepting::Nothing,
        });
        ring.watch_phase(&core.member);
        Ok(UringCore {
            ring,
            index: core.index,
            member: core.member,
            orders: core.orders,
            is_told: false,
            is_dormant: core.is_dormant,
            arriving: VecDeque::new(),
            installed: Vec::new(),
            acceptor: Acceptor::new(listeners.collect()),
            connections: Vec::with_capacity(all_descriptors),
            open: 0,
            outbound: 0,
            unused_outbound: (descriptors as u32..all_descriptors as u32).rev().collect(),
            parked: VecDeque::with_capacity(descriptors),
            timers: TimerWheel::new(all_descriptors, bench.clock.now()),
            bench,
        })
    }

    fn wait(&mut self) -> io::Result<()> {
        let deadlines = [self.timers.next_at(), self.acceptor.retry_at];
        let timeout = self.bench.begin_wait(deadlines);
        self.ring.wait(timeout)
    }

    /// Lets the connection at `index` go on, and does what comes of it.
    #[inline]
    fn work_on(
        &mut self,
        index: u32,
        work: impl FnOnce(&mut Connection<S::Connection>, &mut Workbench<S>, &mut Ring) -> Outcome,
    ) {
        let Some(Some(connection)) = self.connections.get_mut(index as usize) else {
            return;
        };
        match work(connection, &mut self.bench, &mut self.ring) {
            Outcome::Wait => {
                if let Some(at) = connection.next_at() {
                    self.timers.schedule(index, at);
                }
            }
            Outcome::Depart => self.ring.install(index),
            Outcome::End => self.remove(index),
        }
    }

    fn remove(&mut self, index: u32) {
        let removed = self.connections.get_mut(index as usize);
        if let Some(connection) = removed.and_then(Option::take) {
            let is_outbound = connection.is_outbound();
            connection.close(&mut self.bench, &mut self.ring);
            self.timers.cancel(index);
            self.open -= 1;
            self.outbound -= usize::from(is_outbound);
            self.publish_open();
            self.acceptor.retry_at = None;
            if is_outbound {
                return;
            }
            if let Some((index, listener, peer)) = self.parked.pop_front() {
                self.admit(index, listener, peer);
            }
        }
    }

    fn on_accepted(&mut self, listener: u32, result: io::Result<u32>, more: bool) {
        let listening = self.acceptor.listeners.get_mut(listener as usize);
        let mut ended_itself = false;
        if let Some(listening) = listening.filter(|_| !more) {
            ended_itself = listening.accepting == Accepting::Many;
            listening.accepting = Accepting::Nothing;
        }
        match result {
            Ok(index) => {
                let peer = self.ring.peer(listener);
                match self.is_full() {
                    false => self.admit(index, listener, peer),
                    true => self.parked.push_back((index, listener, peer)),
                }
                if ended_itself && self.is_full() {
                    // The next one is not asked for; where one request is for many, it would be cancelled.
                    self.bench.counters.accept_paused.increment();
                }
            }
            // The listener was closed.
            Err(_) if self.acceptor.listeners.is_empty() => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN) => {}
                _ => {
                    let (now, counters) = (self.bench.clock.now(), &self.bench.counters);
                    self.acceptor.failed(&error, now, counters);
                }
            },
        }
    }

    /// Whether as many connections were accepted as may be.
    fn is_full(&self) -> bool {
        self.open - self.outbound >= self.bench.config.connections
    }

    fn admit(&mut self, index: u32, listener: u32, peer: Option<SocketAddr>) {
        let arrival = Arrival {
            id: self.bench.name(index),
            peer,
            listener: listener as usize,
            tls: None,
        };
        let connection = Connection::accepted(arrival, &mut self.bench);
        self.insert(index, connection);
        self.bench.counters.accepted.increment();
        self.work_on(index, Connection::advance);
    }

    fn insert(&mut self, index: u32, connection: Connection<S::Connection>) {
        while self.connections.len() <= index as usize {
            self.connections.push(None);
        }
        self.open += 1;
        self.outbound += usize::from(connection.is_outbound());
        self.connections[index as usize] = Some(connection);
        self.publish_open();
    }

    fn publish_open(&self) {
        self.bench.publish_open(self.open, self.outbound);
    }

    /// Does what the service wants of its own accord.
    #[inline]
    fn follow_service(&mut self) {
        while let Some(action) = self.bench.next_action() {
            match action {
                Action::Connect { to, token } => self.connect(to, token),
                Action::Wake(id) => self.work_on_id(id, Connection::wake),
                Action::Abort(id) => self.work_on_id(id, Connection::abort),
            }
        }
    }

    fn work_on_id(
        &mut self,
        id: Id,
        work: impl FnOnce(&mut Connection<S::Connection>, &mut Workbench<S>, &mut Ring) -> Outcome,
    ) {
        let connection = self.connections.get(id.index as usize);
        if connection.is_some_and(|it| it.as_ref().is_some_and(|it| it.id() == id)) {
            self.work_on(id.index, work);
        }
    }

    /// Begins to open a connection.
    fn connect(&mut self, to: SocketAddr, token: u64) {
        let Some(index) = self.unused_outbound.pop() else {
            return self.bench.not_opened(token, End::NoConnection);
        };
        let begun = socket_to(to, &self.bench.config)
            .and_then(|socket| self.ring.connect(index, socket, to));
        if let Err(end) = begun {
            self.unused_outbound.push(index);
            return self.bench.not_opened(token, end);
        }
        let id = self.bench.name(index);
        let connection = Connection::opening(token, id, &mut self.bench);
        self.insert(index, connection);
        self.work_on(index, Connection::advance);
    }

    /// Asks for connections as long as there is room for one.
    fn accept(&mut self) {
        if self.is_dormant {
            return;
        }
        let full = self.is_full();
        let may_try = self.acceptor.retry_at.is_none();
        for (index, listening) in (0..).zip(&mut self.acceptor.listeners) {
            match listening.accepting {
                Accepting::Many if full => {
                    self.bench.counters.accept_paused.increment();
                    self.ring.cancel_accept(index);
                    listening.accepting = Accepting::Stopping;
                }
                Accepting::Nothing if !full && may_try => {
                    self.ring.accept(index, &listening.listener);
                    listening.accepting = Accepting::Many;
                }
                Accepting::Many | Accepting::Stopping | Accepting::Nothing => {}
            }
        }
    }

    /// Handles every completion there is.
    fn work_off(&mut self) {
        self.bench.tick();
        self.ring.take_batch();
        // After the batch was taken: it may hold what a client sent after it saw another core drain.
        self.bench.follow(self.member.phase());
        while let Some(completion) = self.ring.next_completion() {
            self.on_completion(completion);
        }
    }

    #[inline]
    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Received {
                index,
                result,
                more,
            } => self.work_on(index, |connection, bench, ring| {
                connection.on_received(result, more, bench, ring)
            }),
            Completion::Sent { index, result } => {
                self.work_on(index, |connection, bench, ring| {
                    connection.on_sent(result, bench, ring)
                });
            }
            Completion::Connected { index, result } => {
                self.work_on(index, |connection, bench, ring| {
                    connection.on_connected(result, bench, ring)
                });
            }
            Completion::Closed { index } => self.unused_outbound.push(index),
            Completion::ShutDown { index } => {
                self.work_on(index, Connection::on_shut_down);
            }
            Completion::Accepted {
                listener,
                result,
                more,
            } => self.on_accepted(listener, result, more),
            Completion::Phase => {
                self.member.acknowledge();
                self.ring.watch_phase(&self.member);
                self.is_told = true;
            }
            Completion::Installed { index, result } => self.installed.push((index, result)),
            Completion::Adopted { indices } => self.on_adopted(&indices),
        }
    }

    /// Does what a hand-over asks for.
    fn follow_orders(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_told, false) {
            return Ok(());
        }
        while let Some(Ok(order)) = self.orders.as_ref().map(Receiver::try_recv) {
            match order {
                Order::Begin => self.is_dormant = false,
                Order::Admit(connections) => self.take_over(connections),
                Order::Freeze(freeze) => self.hand_over(freeze)?,
            }
        }
        Ok(())
    }

    /// Goes on with connections of the process before.
    fn take_over(&mut self, connections: Vec<(Idle, OwnedFd)>) {
        let mut sockets = Vec::with_capacity(connections.len());
        let mut arriving = Vec::with_capacity(connections.len());
        for (idle, socket) in connections {
            let peer = getpeername(&socket).ok().flatten();
            arriving.push((idle, peer.and_then(|peer| peer.try_into().ok())));
            sockets.push(socket);
        }
        self.arriving.push_back(arriving);
        self.ring.adopt(sockets);
    }

    fn on_adopted(&mut self, indices: &[u32]) {
        let arriving = self.arriving.pop_front().unwrap_or_default();
        let counters = Arc::clone(&self.bench.counters);
        for (_, _) in arriving.iter().skip(indices.len()) {
            counters.accept_failed.increment();
        }
        for (&index, (idle, peer)) in indices.iter().zip(arriving) {
            if self.is_full() {
                counters.accept_failed.increment();
                self.ring.close(index);
                continue;
            }
            let arrival = Arrival {
                id: self.bench.name(index),
                peer,
                listener: idle.listener.into(),
                tls: None,
            };
            let connection = Connection::taken_over(arrival, &idle, &mut self.bench);
            self.insert(index, connection);
            counters.taken_over.increment();
            self.work_on(index, Connection::advance);
        }
    }

    /// Gives another process what is idle, and the rest when it is, if that process takes over.
    fn hand_over(&mut self, freeze: Freeze) -> io::Result<()> {
        if self.is_dormant || self.bench.draining {
            freeze.refuse();
            return Ok(());
        }
        let carried = match self.quiesce()? {
            true => self.carry_idle(&*freeze.courier)?,
            false => Err(io::ErrorKind::TimedOut.into()),
        };
        let verdict = freeze.wait(carried.as_ref().map(Vec::len));
        self.bench.quiet = false;
        if let Some(courier) = verdict {
            self.acceptor.listeners.clear();
            for index in carried.unwrap_or_default() {
                self.depart(index);
            }
            self.bench.leave(courier);
        }
        // Those that stay are received from again.
        for index in 0..self.connections.len() {
            self.work_on(index as u32, Connection::advance);
        }
        Ok(())
    }

    /// Lets the kernel stop accepting and receiving, and serves what had arrived by then; says whether that worked.
    fn quiesce(&mut self) -> io::Result<bool> {
        self.bench.quiet = true;
        for (index, listening) in (0..).zip(&mut self.acceptor.listeners) {
            if listening.accepting == Accepting::Many {
                self.ring.cancel_accept(index);
                listening.accepting = Accepting::Stopping;
            }
        }
        for connection in self.connections.iter_mut().flatten() {
            connection.stop_receiving(&mut self.ring);
        }
        let until = std::time::Instant::now() + QUIESCE_MAX;
        loop {
            let mut listeners = self.acceptor.listeners.iter();
            let is_accepting = listeners.any(|it| it.accepting != Accepting::Nothing);
            let mut connections = self.connections.iter().flatten();
            if !is_accepting && !connections.any(|connection| connection.is_moving(&self.ring)) {
                return Ok(true);
            }
            if std::time::Instant::now() > until {
                // A peer that does not read keeps its connection busy; it stays here.
                return Ok(!is_accepting);
            }
            self.ring.wait(Some(QUIESCE_LOOK))?;
            self.work_off();
            self.follow_service();
        }
    }

    /// Carries what is idle; the outer error is the ring's.
    fn carry_idle(&mut self, courier: &dyn Courier) -> io::Result<io::Result<Vec<u32>>> {
        let mut carried = Vec::new();
        if !self.ring.can_install() {
            return Ok(Ok(carried));
        }
        let connections = (0..).zip(&self.connections);
        let idle = connections.filter_map(|(index, connection)| {
            let connection = connection.as_ref()?;
            let departs = connection.departs(&self.bench, &self.ring);
            departs.filter(|_| !connection.is_moving(&self.ring))?;
            Some(index)
        });
        let idle: Vec<u32> = idle.collect();
        for batch in idle.chunks(handover::BATCH_MAX) {
            for &index in batch {
                self.ring.install(index);
            }
            while self.installed.len() < batch.len() {
                self.ring.wait(None)?;
                self.work_off();
            }
            let installed = std::mem::take(&mut self.installed);
            let (mut sockets, mut known) = (Vec::new(), Vec::new());
            for (index, socket) in &installed {
                let connection = self
                    .connections
                    .get(*index as usize)
                    .and_then(Option::as_ref);
                let idle = connection.and_then(|it| it.departs(&self.bench, &self.ring));
                // Without a descriptor it stays.
                if let (Ok(socket), Some(idle)) = (socket, idle) {
                    sockets.push(socket.as_fd());
                    known.push(idle);
                    carried.push(*index);
                }
            }
            if let Err(error) = courier.carry(self.index, &known, &sockets) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(carried))
    }

    /// Connections that are idle at last go on in another process.
    fn let_depart(&mut self) {
        while let Some((index, socket)) = self.installed.pop() {
            let connection = self
                .connections
                .get(index as usize)
                .and_then(Option::as_ref);
            let idle = connection.and_then(|it| it.departs(&self.bench, &self.ring));
            let (Some(courier), Some(idle)) = (&self.bench.leaving, idle) else {
                self.work_on(index, Connection::stay);
                continue;
            };
            let carried =
                socket.and_then(|socket| courier.carry(self.index, &[idle], &[socket.as_fd()]));
            match carried {
                Ok(()) => self.depart(index),
                Err(error) => {
                    tracing::warn!("a connection cannot go on in the successor: {error}");
                    self.bench.leaving = None;
                    self.work_on(index, Connection::stay);
                }
            }
        }
    }

    /// It goes on elsewhere: nothing is said to the peer.
    fn depart(&mut self, index: u32) {
        if let Some(Some(connection)) = self.connections.get_mut(index as usize) {
            connection.depart();
        }
        self.remove(index);
    }

    /// Closes the listeners and ends connections that are idle.
    fn drain(&mut self) {
        self.is_dormant = false;
        self.bench.leaving = None;
        for (index, _) in (0..).zip(self.acceptor.listeners.drain(..)) {
            self.ring.cancel_accept(index);
        }
        while let Some((index, ..)) = self.parked.pop_front() {
            self.ring.close(index);
        }
        for index in 0..self.connections.len() {
            self.work_on(index as u32, Connection::advance);
        }
    }
}

impl<S: Service> Worker for UringCore<S> {
    fn report(&self) -> String {
        format!("{}; {}", self.bench.report(), self.ring.report())
    }

    fn run(mut self) -> Result<(), CoreError> {
        let mut drained = false;
        loop {
            self.accept();
            self.wait().map_err(ended("io_uring_enter"))?;
            self.work_off();
            let now = self.bench.clock.now();
            while let Some(index) = self.timers.pop_expired(now) {
                self.work_on(index, Connection::on_timer);
            }
            self.follow_orders().map_err(ended("io_uring_enter"))?;
            self.let_depart();
            self.follow_service();
            self.bench.tick();
            self.bench.publish_levels();
            self.acceptor.retry_at = self.acceptor.retry_at.filter(|&at| at > now);
            match self.member.phase() {
                Phase::Serve if self.bench.draining && self.open == 0 => return Ok(()),
                Phase::Serve => {}
                Phase::Drain => {
                    if !std::mem::replace(&mut drained, true) {
                        // A request may have come in since the batch was taken.
                        self.work_off();
                        self.drain();
                    }
                    if self.open == 0 {
                        return Ok(());
                    }
                }
                Phase::Stop => return Ok(()),
            }
        }
    }
}
