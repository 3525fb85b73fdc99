//! The kernel's TCP, driven by edge-triggered epoll.
//!
//! Each core waits for a batch of events, lets every connection that has one receive and be served,
//! and then sends all the replies. In the common case that is one `recv` and one `send` for all
//! requests of a connection, and both buffers go back to their pools; whatever is left over stays
//! with the connection.
//!
//! ```text
//!   epoll_wait ─▶ [events] ─▶ recv ─▶ Session ─▶ [replies] ─▶ send ─┬─▶ all taken: wait for more
//!       ▲                                                           └─▶ some left: wait for room,
//!       └── timers, accept, phase ◀─────────────────────────────────    and read nothing until then
//! ```

mod connection;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use barewire_service::cores::CoreError;
use barewire_service::lifecycle::{Lifecycle, Member, Phase};
use barewire_service::service::{Arrival, End, Id, Service};
use barewire_service::time::Duration;
use barewire_service::timer::TimerWheel;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::getpeername;
use slab::Slab;

use self::connection::{Connection, Outcome};
use crate::cores::{self, Core, Worker, ended, failure};
use crate::handover::{self, Courier, Freeze, Idle, Order};
use crate::{
    Acceptor, Action, KernelConfig, Listener, StartError, Workbench, begin_to_connect,
    set_epoll_busy_poll,
};
use barewire_service::stack::{Running, Stack};

/// The epoll stack.
#[derive(Debug, Clone)]
pub struct Epoll {
    /// Where, on which cores and within which limits it serves.
    pub config: KernelConfig,
}

impl Epoll {
    /// The epoll stack with this configuration.
    pub fn new(config: KernelConfig) -> Self {
        Epoll { config }
    }
}

impl Stack for Epoll {
    type Error = StartError;

    fn start<S, F>(self, make_service: F, lifecycle: &Lifecycle) -> Result<Running, StartError>
    where
        S: Service + 'static,
        F: Fn(usize) -> S + Clone + Send + 'static,
    {
        let config = self.config.clone();
        self.config.check(S::REPLY_BYTES_MIN)?;
        cores::start(&self.config, "epoll", lifecycle, move |core| {
            EpollCore::new(make_service(core.index), config.clone(), core)
        })
    }
}

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 512;
/// Connections accepted between two looks at the others.
const ACCEPTS_MAX: usize = 64;

/// Event data of what is not a connection; a connection's is its index. A listener's is `LISTENERS` and its index.
const LISTENERS: u64 = 1 << 32;
const PHASE: u64 = u64::MAX;

/// One core: its event queue, its connections, and what they are worked on with.
struct EpollCore<S: Service> {
    index: usize,
    epoll: OwnedFd,
    member: Member,
    orders: Option<Receiver<Order>>,
    /// The listeners are those of another process as well, and not ours to accept from yet.
    is_dormant: bool,
    has_drained: bool,
    acceptor: Acceptor<Listener>,
    /// Whether the listeners' events are heard. Otherwise connections wait in the kernel's queue.
    is_accepting: bool,
    connections: Slab<Connection<S::Connection>>,
    /// How many of them the service had opened.
    outbound: usize,
    /// Connections of the batch that have something to send; each has one event at most.
    replying: Vec<usize>,
    timers: TimerWheel,
    bench: Workbench<S>,
}

impl<S: Service> EpollCore<S> {
    fn new(service: S, config: KernelConfig, core: Core) -> Result<Self, StartError> {
        let failed = |call| failure(core.index, call);
        let epoll = epoll::create(CreateFlags::CLOEXEC);
        let epoll = epoll.map_err(|error| failed("epoll_create1")(error.into()))?;
        if let Some(us) = config.busy_poll_us {
            set_epoll_busy_poll(&epoll, us, config.prefer_busy_poll)
                .map_err(failed("EPIOCSPARAMS"))?;
        }
        let listeners = (LISTENERS..).zip(&core.listeners);
        let listeners = listeners.map(|(data, listener)| (listener.as_fd(), data));
        let listeners = listeners.filter(|_| !core.is_dormant);
        for (fd, data) in listeners.chain([(core.member.as_fd(), PHASE)]) {
            epoll::add(&epoll, fd, EventData::new_u64(data), EventFlags::IN)
                .map_err(|error| failed("epoll_ctl")(error.into()))?;
        }
        let bench = Workbench::new(service, config, core.counters, 0)?;
        Ok(EpollCore {
            index: core.index,
            epoll,
            member: core.member,
            orders: core.orders,
            is_dormant: core.is_dormant,
            has_drained: false,
            acceptor: Acceptor::new(core.listeners),
            is_accepting: true,
            connections: Slab::with_capacity(bench.config.connections_max()),
            outbound: 0,
            replying: Vec::with_capacity(EVENTS_MAX),
            timers: TimerWheel::new(bench.config.connections_max(), bench.clock.now()),
            bench,
        })
    }

    fn wait(&mut self, events: &mut [Event]) -> io::Result<usize> {
        let deadlines = [self.timers.next_at(), self.acceptor.retry_at];
        let timeout = self.bench.begin_wait(deadlines).map(timespec);
        match epoll::wait(&self.epoll, events, timeout.as_ref()) {
            Err(Errno::INTR) => Ok(0),
            result => Ok(result?),
        }
    }

    fn on_event(&mut self, index: usize, flags: EventFlags) {
        // A connection that was closed earlier in the same batch has no entry any more.
        if let Some(connection) = self.connections.get_mut(index) {
            connection.on_event(flags);
            self.work_on(index, Connection::advance_to_reply);
        }
    }

    /// Sends all replies of a batch in one go: the packets reach the device closer together, and the
    /// peer is woken up less often, than if each were sent between two receives.
    fn send_replies(&mut self) {
        for at in 0..self.replying.len() {
            self.work_on(self.replying[at], Connection::advance);
        }
        self.replying.clear();
    }

    fn expire_timers(&mut self) {
        let now = self.bench.clock.now();
        while let Some(index) = self.timers.pop_expired(now) {
            self.work_on(index as usize, Connection::on_timer);
        }
    }

    /// Lets the connection at `index` go on, and does what comes of it.
    #[inline]
    fn work_on(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut Connection<S::Connection>, &mut Workbench<S>) -> Outcome,
    ) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        let outcome = work(connection, &mut self.bench);
        match outcome {
            Outcome::End => return self.remove(index),
            Outcome::Depart => return self.let_depart(index),
            Outcome::Wait | Outcome::Reply | Outcome::Yield => {}
        }
        if let Some(at) = connection.next_at() {
            self.timers.schedule(index as u32, at);
        }
        if outcome == Outcome::Reply {
            self.replying.push(index);
        }
        if outcome == Outcome::Yield {
            // Modifying an entry looks at the socket again, and queues it behind the others.
            let data = EventData::new_u64(index as u64);
            if epoll::modify(&self.epoll, connection.socket(), data, connection::EVENTS).is_err() {
                self.remove(index);
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let connection = self.connections.remove(index);
        self.outbound -= usize::from(connection.is_outbound());
        connection.close(&mut self.bench);
        self.timers.cancel(index as u32);
        self.publish_open();
        if !self.is_accepting {
            self.start_accepting();
        }
    }

    /// Takes connections from the kernel's queues, as long as there is room for them.
    fn accept(&mut self) {
        for index in 0..self.acceptor.listeners.len() {
            self.accept_from(index);
        }
    }

    fn accept_from(&mut self, index: usize) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.acceptor.listeners.get(index) else {
                return;
            };
            if self.connections.len() - self.outbound == self.bench.config.connections {
                self.bench.counters.accept_paused.increment();
                self.stop_accepting();
                return;
            }
            match listener.accept() {
                Ok(Some((socket, peer))) => self.admit(socket, index, peer),
                Ok(None) => return,
                Err(error) => {
                    let (now, counters) = (self.bench.clock.now(), &self.bench.counters);
                    self.acceptor.failed(&error, now, counters);
                    self.stop_accepting();
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd, listener: usize, peer: Option<SocketAddr>) {
        let is_admitted = self.insert(socket, |socket, id, bench| {
            let arrival = Arrival {
                id,
                peer,
                listener,
                tls: None,
            };
            Connection::accepted(socket, arrival, bench)
        });
        match is_admitted {
            true => self.bench.counters.accepted.increment(),
            false => self.bench.counters.accept_failed.increment(),
        }
    }

    /// Listens for the events of `socket`, and keeps the connection that `make` makes of it. Returns whether that worked.
    fn insert(
        &mut self,
        socket: OwnedFd,
        make: impl FnOnce(OwnedFd, Id, &mut Workbench<S>) -> Connection<S::Connection>,
    ) -> bool {
        let entry = self.connections.vacant_entry();
        let index = entry.key() as u32;
        let data = EventData::new_u64(index.into());
        if epoll::add(&self.epoll, &socket, data, connection::EVENTS).is_err() {
            return false;
        }
        let id = self.bench.name(index);
        let connection = entry.insert(make(socket, id, &mut self.bench));
        self.outbound += usize::from(connection.is_outbound());
        if let Some(at) = connection.next_at() {
            self.timers.schedule(index, at);
        }
        self.publish_open();
        true
    }

    fn publish_open(&self) {
        self.bench
            .publish_open(self.connections.len(), self.outbound);
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
        work: impl FnOnce(&mut Connection<S::Connection>, &mut Workbench<S>) -> Outcome,
    ) {
        let index = id.index as usize;
        let connection = self.connections.get(index);
        if connection.is_some_and(|connection| connection.id() == id) {
            self.work_on(index, work);
        }
    }

    /// Begins to open a connection.
    fn connect(&mut self, to: SocketAddr, token: u64) {
        if self.outbound == self.bench.config.outbound {
            return self.bench.not_opened(token, End::NoConnection);
        }
        let socket = match begin_to_connect(to, &self.bench.config) {
            Ok(socket) => socket,
            Err(end) => return self.bench.not_opened(token, end),
        };
        let is_begun = self.insert(socket, |socket, id, bench| {
            Connection::opening(socket, token, id, bench)
        });
        if !is_begun {
            self.bench.not_opened(token, End::NoConnection);
        }
    }

    fn start_accepting(&mut self) {
        self.acceptor.retry_at = None;
        self.is_accepting = self.listen_for(EventFlags::IN);
    }

    /// Until a connection closes, or it is time to try again.
    fn stop_accepting(&mut self) {
        self.is_accepting = !self.listen_for(EventFlags::empty());
    }

    /// Changes which of the listeners' events are heard; returns whether that worked.
    fn listen_for(&self, flags: EventFlags) -> bool {
        let mut listeners = (LISTENERS..).zip(&self.acceptor.listeners);
        listeners.all(|(data, listener)| {
            epoll::modify(&self.epoll, listener, EventData::new_u64(data), flags).is_ok()
        })
    }

    /// Does what a hand-over asks for.
    fn follow_orders(&mut self) -> io::Result<()> {
        while let Some(Ok(order)) = self.orders.as_ref().map(Receiver::try_recv) {
            match order {
                Order::Begin => self.begin()?,
                Order::Admit(connections) => {
                    for (idle, socket) in connections {
                        self.take_over(&idle, socket);
                    }
                }
                Order::Freeze(freeze) => self.hand_over(freeze),
            }
        }
        Ok(())
    }

    /// Accepts from the listeners that were another process's.
    fn begin(&mut self) -> io::Result<()> {
        self.is_dormant = false;
        for (data, listener) in (LISTENERS..).zip(&self.acceptor.listeners) {
            epoll::add(
                &self.epoll,
                listener,
                EventData::new_u64(data),
                EventFlags::IN,
            )?;
        }
        Ok(())
    }

    /// Goes on with a connection of the process before.
    fn take_over(&mut self, idle: &Idle, socket: OwnedFd) {
        let counters = Arc::clone(&self.bench.counters);
        if self.connections.len() - self.outbound == self.bench.config.connections {
            return counters.accept_failed.increment();
        }
        let peer = getpeername(&socket).ok().flatten();
        let is_admitted = self.insert(socket, |socket, id, bench| {
            let arrival = Arrival {
                id,
                peer: peer.and_then(|peer| peer.try_into().ok()),
                listener: idle.listener.into(),
                tls: None,
            };
            Connection::taken_over(socket, arrival, idle, bench)
        });
        match is_admitted {
            true => counters.taken_over.increment(),
            false => counters.accept_failed.increment(),
        }
    }

    /// Gives another process what is idle, and the rest when it is, if that process takes over.
    fn hand_over(&mut self, freeze: Freeze) {
        if self.is_dormant || self.bench.draining {
            return freeze.refuse();
        }
        let carried = self.carry_idle(&*freeze.courier);
        let Some(courier) = freeze.wait(carried.as_ref().map(Vec::len)) else {
            return;
        };
        // What is closed here goes on there, so it would stay in this queue of events.
        for listener in self.acceptor.listeners.drain(..) {
            let _ = epoll::delete(&self.epoll, &listener);
        }
        for index in carried.unwrap_or_default() {
            self.depart(index);
        }
        self.bench.leave(courier);
    }

    fn carry_idle(&self, courier: &dyn Courier) -> io::Result<Vec<usize>> {
        let connections = self.connections.iter();
        let idle = connections
            .filter_map(|(index, connection)| Some((index, connection.departs(&self.bench)?)));
        let idle: Vec<_> = idle.collect();
        for batch in idle.chunks(handover::BATCH_MAX) {
            let socket = |&(index, _): &(usize, Idle)| self.connections[index].socket();
            let sockets: Vec<_> = batch.iter().map(socket).collect();
            let idle: Vec<_> = batch.iter().map(|&(_, idle)| idle).collect();
            courier.carry(self.index, &idle, &sockets)?;
        }
        Ok(idle.into_iter().map(|(index, _)| index).collect())
    }

    /// A connection is idle at last: another process goes on with it.
    fn let_depart(&mut self, index: usize) {
        let connection = &self.connections[index];
        let (courier, idle) = (&self.bench.leaving, connection.departs(&self.bench));
        let (Some(courier), Some(idle)) = (courier, idle) else {
            return;
        };
        match courier.carry(self.index, &[idle], &[connection.socket()]) {
            Ok(()) => self.depart(index),
            Err(error) => {
                tracing::warn!("the successor is gone: {error}");
                self.bench.leaving = None;
                self.work_on(index, Connection::advance);
            }
        }
    }

    /// It goes on elsewhere: nothing is said to the peer.
    fn depart(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let _ = epoll::delete(&self.epoll, connection.socket());
        connection.depart();
        self.remove(index);
    }

    /// Accepts the connections that wait already, closes the listeners, and ends idle connections.
    fn drain(&mut self) {
        if std::mem::replace(&mut self.has_drained, true) {
            return;
        }
        if std::mem::replace(&mut self.is_dormant, false) {
            self.acceptor.listeners.clear();
        }
        self.bench.leaving = None;
        self.bench.follow(Phase::Drain);
        let mut accepted_before = None;
        while accepted_before != Some(self.bench.counters.accepted.get()) {
            accepted_before = Some(self.bench.counters.accepted.get());
            self.accept();
        }
        for listener in self.acceptor.listeners.drain(..) {
            // Its descriptor for a successor keeps it in the queue of events otherwise.
            let _ = epoll::delete(&self.epoll, &listener);
        }
        for index in 0..self.connections.capacity() {
            if let Some(connection) = self.connections.get_mut(index) {
                // A request may have come in since the last event.
                connection.on_event(EventFlags::IN);
                self.work_on(index, Connection::advance);
            }
        }
    }
}

impl<S: Service> Worker for EpollCore<S> {
    fn report(&self) -> String {
        self.bench.report()
    }

    fn run(mut self) -> Result<(), CoreError> {
        let no_event = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [no_event; EVENTS_MAX];
        loop {
            let count = self.wait(&mut events).map_err(ended("epoll_wait"))?;
            self.bench.tick();
            // The event may come from a client that saw another core drain.
            self.bench.follow(self.member.phase());
            let (mut knock, mut phase_changed) = (false, false);
            for event in &events[..count] {
                match event.data.u64() {
                    PHASE => phase_changed = true,
                    LISTENERS.. => knock = true,
                    index => self.on_event(index as usize, event.flags),
                }
            }
            self.send_replies();
            self.expire_timers();
            self.follow_service();
            self.bench.tick();
            self.bench.publish_levels();
            // Accepted last: no event of this batch can mean a connection that takes a freed index.
            if knock {
                self.accept();
            }
            let now = self.bench.clock.now();
            if self.acceptor.retry_at.is_some_and(|at| at <= now) {
                self.start_accepting();
            }
            if phase_changed {
                self.member.acknowledge();
                self.follow_orders().map_err(ended("epoll_ctl"))?;
                match self.member.phase() {
                    Phase::Serve => {}
                    Phase::Drain => self.drain(),
                    Phase::Stop => return Ok(()),
                }
            }
            if self.acceptor.listeners.is_empty() && self.connections.is_empty() {
                return Ok(());
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.secs() as i64,
        tv_nsec: (duration.total_micros() % 1_000_000 * 1_000) as i64,
    }
}
