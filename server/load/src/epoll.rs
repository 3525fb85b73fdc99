//! The transport over the kernel's sockets: one thread, one epoll, many connections.
//!
//! Descriptors are registered once, edge-triggered, for reading and writing, so an unpipelined
//! request costs one `recv` and one `send`, and its share of one `epoll_wait`. All connections of a
//! thread share one buffer to read into and one to write from; a connection owns bytes only while a
//! response head is split or the socket would not take all of a request.
//!
//! ```text
//!  connect all ──▶ barrier ──▶ ask ──▶ epoll_wait ──▶ recv ──▶ Client::on_input ──▶ send ─┐
//!                                          ▲                                              │
//!                                          └──── idle connections when a request is due ◀─┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use barewire_service::counters::Gauge;
use barewire_service::service::{Expect, Input, Next, Reply, Service};
use barewire_tls::ClientConnection;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::thread::set_current_timer_slack;

use super::client::{Client, Clock, Exchange, Monotonic};
use super::tally::Failure;
use super::transport::{
    Part, RETRY_NS, SPIN_NS, TransportError, busy_share, system, thread_cpu_ns,
};
use super::wire::{Readiness, Wire};

/// What is read from one connection at once, at most; longer than any response head.
const RECEIVE_BYTES: usize = 128 << 10;
/// What is written to one connection at once, at most.
const SEND_BYTES: usize = 64 << 10;
/// Ready connections that are taken from the kernel at once.
const EVENTS: usize = 512;
/// How often deadlines are looked at.
const TICK_NS: u64 = 50_000_000;

/// What every thread of a run works on.
#[derive(Debug)]
pub struct Run {
    /// The server.
    pub address: SocketAddr,
    /// How long an answer, or a connection, may take.
    pub timeout: Duration,
    /// When to stop asking; `None`: when nothing is left to ask.
    pub asking: Option<Duration>,
    /// How many connections a thread opens at the same time.
    pub connecting_max: usize,
    /// All threads begin to ask together.
    pub barrier: Barrier,
    /// Set to end the run early and in order.
    pub stop: Arc<AtomicBool>,
}

/// Runs `client` on `connections` connections until nothing is left to ask, time is up, or
/// `run.stop` is set. `answered` shows how far it is.
///
/// # Errors
///
/// If the machine runs out of something. Failures of the server are results.
pub fn run(
    client: Client<Monotonic>,
    wire: Wire,
    connections: usize,
    run: &Run,
    answered: &Gauge,
) -> Result<Part, TransportError> {
    let connected = Transport::new(client, wire, connections, run).and_then(|mut transport| {
        transport.connect_all()?;
        Ok(transport)
    });
    // Also on an error, or the other threads would wait for ever.
    run.barrier.wait();
    connected
        .and_then(|transport| transport.ask_all(answered))
        .inspect_err(|_| run.stop.store(true, Relaxed))
}

struct Transport<'a> {
    run: &'a Run,
    client: Client<Monotonic>,
    wire: Wire,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    events: Vec<epoll::Event>,
    received: Box<[u8]>,
    to_send: Box<[u8]>,
    /// Connections with nothing asked, in an open loop; some may no longer be idle.
    idle: VecDeque<usize>,
    /// To be opened as soon as may be.
    to_open: VecDeque<usize>,
    /// Free for connections that each ask one request.
    unused: Vec<usize>,
    /// To be opened from a point in time on, in its order.
    to_retry: VecDeque<(u64, usize)>,
    /// Sockets that are being connected, and all of them.
    connecting: usize,
    sockets: usize,
    asking: bool,
    now_ns: u64,
    /// When deadlines are looked at next.
    tick_ns: u64,
    /// When to stop asking.
    end_ns: u64,
}

/// A place for one connection after another.
#[derive(Debug, Default)]
struct Slot {
    socket: Option<OwnedFd>,
    exchange: Exchange,
    /// What TLS keeps of it, if that is spoken.
    layer: ClientConnection,
    /// Requests can be sent: TCP's handshake is complete, and TLS's.
    is_connected: bool,
    is_shaking_hands: bool,
    /// Nothing is awaited from the server.
    is_idle: bool,
    /// It is in the queue of idle connections, rightly or no longer.
    is_queued: bool,
    /// The client has more to write than there was room for.
    wants_room: bool,
    /// Since when the next answer, or the connection, is awaited.
    waiting_since_ns: u64,
    /// Received, and shown to the client again when there is more.
    unread: Vec<u8>,
    /// Written by the client, and not yet taken by the socket.
    unsent: Vec<u8>,
}

impl<'a> Transport<'a> {
    fn new(
        client: Client<Monotonic>,
        wire: Wire,
        connections: usize,
        run: &'a Run,
    ) -> Result<Self, TransportError> {
        let now_ns = client.clock().now_ns();
        Ok(Transport {
            run,
            to_open: match client.is_churning() {
                true => VecDeque::with_capacity(connections),
                false => (0..connections).collect(),
            },
            unused: match client.is_churning() {
                true => (0..connections).rev().collect(),
                false => Vec::new(),
            },
            client,
            wire,
            epoll: epoll::create(CreateFlags::CLOEXEC).map_err(|e| system("epoll_create", e))?,
            slots: (0..connections).map(|_| Slot::default()).collect(),
            events: Vec::with_capacity(EVENTS),
            received: vec![0; RECEIVE_BYTES].into(),
            to_send: vec![0; SEND_BYTES].into(),
            idle: VecDeque::with_capacity(connections),
            to_retry: VecDeque::with_capacity(connections),
            connecting: 0,
            sockets: 0,
            asking: false,
            now_ns,
            tick_ns: now_ns,
            end_ns: u64::MAX,
        })
    }

    /// Opens every connection, or fails to at least once.
    fn connect_all(&mut self) -> Result<(), TransportError> {
        self.open_waiting()?;
        while (self.connecting > 0 || !self.to_open.is_empty()) && !self.run.stop.load(Relaxed) {
            self.turn()?;
        }
        Ok(())
    }

    /// Asks all there is to ask, and waits for the answers.
    fn ask_all(mut self, answered: &Gauge) -> Result<Part, TransportError> {
        if self.client.has_schedule() {
            // Sleeping until a request is due shall not take 50 us longer than asked for.
            set_current_timer_slack(NonZeroU64::new(1)).map_err(|e| system("prctl", e))?;
        }
        let cpu_before_ns = thread_cpu_ns();
        let started_ns = self.client.start();
        self.now_ns = started_ns;
        self.asking = true;
        if let Some(asking) = self.run.asking {
            self.end_ns = started_ns + asking.as_nanos() as u64;
        }
        let patience_ns = 2 * self.run.timeout.as_nanos() as u64;
        let mut calm_ns = started_ns;
        let mut gave_up = false;
        let mut is_timed_out = false;
        // When it stopped asking, and the processor time until then.
        let mut asked = None;

        for index in 0..self.slots.len() {
            if self.slots[index].is_connected {
                self.wake(index);
            }
        }
        while self.sockets > 0 || !self.client.is_finished() || self.has_calls_to_open() {
            self.turn()?;
            answered.set(self.client.answered());

            let has_idle = self.client.has_schedule() && !self.idle.is_empty();
            if has_idle || self.client.is_churning() && self.sockets == 0 {
                calm_ns = self.now_ns;
            }
            let heard_ns = self.client.answered_last_ns().max(calm_ns);
            let is_stalled = self.now_ns.saturating_sub(heard_ns) > patience_ns;
            if self.now_ns >= self.end_ns || is_stalled || self.run.stop.load(Relaxed) {
                gave_up |= is_stalled && !self.client.is_finished();
                is_timed_out |= self.now_ns >= self.end_ns;
                self.client.on_drain();
                self.end_ns = u64::MAX;
            }
            if self.client.is_finished() {
                asked.get_or_insert_with(|| (self.now_ns, thread_cpu_ns()));
                self.close_unneeded();
            } else {
                self.wake_idle();
            }
        }
        let cpu_ns = thread_cpu_ns() - cpu_before_ns;
        let (asked_ns, cpu_asked_ns) = asked.unwrap_or((self.now_ns, cpu_before_ns + cpu_ns));
        Ok(Part {
            cpu: None,
            started_ns,
            ended_ns: self.client.answered_last_ns().max(self.now_ns),
            is_timed_out,
            cpu_ns,
            busy_ns: cpu_ns,
            busy_share: busy_share(cpu_asked_ns - cpu_before_ns, asked_ns - started_ns),
            gave_up,
            tally: self.client.take_tally(),
        })
    }

    /// Waits for something to happen and handles it.
    fn turn(&mut self) -> Result<(), TransportError> {
        let timeout = self.timeout();
        let mut events = std::mem::take(&mut self.events);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(system("epoll_wait", error)),
        }
        self.now_ns = self.client.clock().now_ns();
        for event in events.drain(..) {
            let index = event.data.u64() as usize;
            let flags = event.flags;
            if self.slots[index].is_connected {
                self.on_ready(index, flags);
            } else if self.slots[index].socket.is_some() {
                self.on_connected(index, flags);
            }
        }
        self.events = events;
        if self.now_ns >= self.tick_ns {
            self.tick_ns = self.now_ns + TICK_NS;
            self.expire();
        }
        self.take_calls();
        self.open_waiting()
    }

    /// How long to wait for the kernel: until the next tick, or until a request is due.
    fn timeout(&mut self) -> Timespec {
        let mut until_ns = self.tick_ns.min(self.end_ns);
        if !self.idle.is_empty()
            && self.asking
            && let Some(due_ns) = self.client.due_ns()
        {
            until_ns = until_ns.min(due_ns.saturating_sub(SPIN_NS));
        }
        if self.asking
            && !self.unused.is_empty()
            && let Some(due_ns) = self.client.next_call_ns()
        {
            until_ns = until_ns.min(due_ns.saturating_sub(SPIN_NS));
        }
        let wait_ns = until_ns.saturating_sub(self.now_ns);
        Timespec {
            tv_sec: (wait_ns / 1_000_000_000) as i64,
            tv_nsec: (wait_ns % 1_000_000_000) as _,
        }
    }

    /// Prepares the connections that are due to be opened for one request each.
    fn take_calls(&mut self) {
        while self.asking && !self.unused.is_empty() {
            let Some(ticket) = self.client.take_call(self.now_ns) else {
                return;
            };
            if let Some(index) = self.unused.pop() {
                self.slots[index].exchange = Exchange::for_ticket(ticket);
                self.to_open.push_back(index);
            }
        }
    }

    /// Whether connections wait to be opened for one request each.
    fn has_calls_to_open(&self) -> bool {
        self.client.is_churning() && !self.to_open.is_empty()
    }

    /// Gives requests that are due to connections that are idle.
    fn wake_idle(&mut self) {
        while self
            .client
            .due_ns()
            .is_some_and(|due_ns| due_ns <= self.now_ns)
        {
            let Some(index) = self.idle.pop_front() else {
                return;
            };
            self.slots[index].is_queued = false;
            if self.slots[index].is_idle && self.slots[index].is_connected {
                self.wake(index);
            }
        }
    }

    fn on_connected(&mut self, index: usize, flags: EventFlags) {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else {
            return;
        };
        if let Err(error) | Ok(Err(error)) = sockopt::socket_error(socket) {
            self.lose(index, Failure::Connect, || {
                format!("connect: {}", io::Error::from(error))
            });
        } else if !flags.contains(EventFlags::OUT) {
        } else if self.wire.is_secure() {
            self.shake_hands(index);
        } else {
            self.begin(index);
        }
    }

    /// Goes on with TLS's handshake, as far as what has arrived leads.
    fn shake_hands(&mut self, index: usize) {
        let mut is_to_speak = !std::mem::replace(&mut self.slots[index].is_shaking_hands, true);
        if !self.slots[index].unsent.is_empty() {
            self.send_rest(index);
        }
        loop {
            let slot = &mut self.slots[index];
            let Some(socket) = &slot.socket else {
                return;
            };
            let room = &mut self.received[..];
            let count = match is_to_speak {
                // The client speaks first, and goes on if there was no room.
                true => None,
                false => {
                    match retry_on_intr(|| net::recv(socket, &mut *room, RecvFlags::empty())) {
                        Ok((count, _)) => Some(count),
                        Err(Errno::AGAIN) => return,
                        Err(error) => {
                            let why = || format!("TLS handshake: {}", io::Error::from(error));
                            return self.lose(index, Failure::Connect, why);
                        }
                    }
                }
            };
            let len = count.unwrap_or_default();
            let input = Input {
                bytes: &self.received[..len],
                full: false,
                ended: count == Some(0),
            };
            let mut reply = Reply::new(&mut self.to_send);
            let (consumed, readiness) = self.wire.shake_hands(&mut slot.layer, input, &mut reply);
            let written = reply.len();
            slot.unread.clear();
            slot.unread.extend_from_slice(&self.received[consumed..len]);
            if written > 0 && !self.send(index, written) {
                return;
            }
            is_to_speak = readiness == Readiness::Send;
            match readiness {
                Readiness::Receive | Readiness::Send => {}
                Readiness::Ready => return self.begin(index),
                Readiness::Failed(why) => return self.lose(index, Failure::Connect, || why),
            }
        }
    }

    /// From here on requests can be sent.
    fn begin(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.is_connected = true;
        slot.is_idle = true;
        self.connecting -= 1;
        self.client.tally().connections += 1;
        if self.asking || !self.slots[index].unread.is_empty() {
            self.wake(index);
            // What has come with the end of the handshake is read, what came since is no new edge.
            if self.wire.is_secure() {
                self.receive(index, false);
            }
        }
    }

    /// Lets the client speak of its own accord.
    fn wake(&mut self, index: usize) {
        let held = self.slots[index].unread.len();
        self.received[..held].copy_from_slice(&self.slots[index].unread);
        self.drive(index, held, false);
    }

    fn on_ready(&mut self, index: usize, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) && !self.slots[index].unsent.is_empty() {
            self.send_rest(index);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            self.receive(index, ends);
        }
    }

    /// Reads what there is. A short read has emptied the socket: what comes later is a new edge.
    fn receive(&mut self, index: usize, ends: bool) {
        loop {
            let slot = &mut self.slots[index];
            let Some(socket) = &slot.socket else {
                return;
            };
            let held = slot.unread.len();
            self.received[..held].copy_from_slice(&slot.unread);
            let room = &mut self.received[held..];
            let room_len = room.len();
            match retry_on_intr(|| net::recv(socket, &mut *room, RecvFlags::empty())) {
                Ok((count, _)) => {
                    self.drive(index, held + count, count == 0);
                    if count == 0 || (count < room_len && !ends) {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    return self.lose(index, Failure::Reset, || io::Error::from(error).to_string());
                }
            }
        }
    }

    /// Shows the client the first `len` received bytes, and sends what it writes.
    fn drive(&mut self, index: usize, len: usize, ended: bool) {
        let mut taken = 0;
        loop {
            let slot = &mut self.slots[index];
            let bytes = &self.received[taken..len];
            let input = Input {
                bytes,
                full: bytes.len() == RECEIVE_BYTES,
                ended,
            };
            let mut reply = Reply::new(&mut self.to_send);
            let progress = self.wire.on_input(
                &mut self.client,
                &mut slot.layer,
                &mut slot.exchange,
                input,
                &mut reply,
            );
            let written = reply.len();
            taken += progress.consumed;
            if progress.messages > 0 || written > 0 {
                slot.waiting_since_ns = self.now_ns;
            }
            slot.is_idle = false;
            slot.wants_room = false;
            if written > 0 && !self.send(index, written) {
                return;
            }
            let slot = &mut self.slots[index];
            match progress.next {
                Next::Receive(Expect::Message) => {
                    slot.is_idle = true;
                    if !slot.is_queued {
                        slot.is_queued = true;
                        self.idle.push_back(index);
                    }
                }
                Next::Receive(_) | Next::Wait => {}
                Next::Send if slot.unsent.is_empty() => continue,
                Next::Send => slot.wants_room = true,
                Next::Close => {
                    let again_at_once = progress.messages > 0 || written > 0;
                    return self.close(index, again_at_once);
                }
                Next::Abort => return self.abort(index),
            }
            slot.unread.clear();
            slot.unread.extend_from_slice(&self.received[taken..len]);
            return;
        }
    }

    /// Sends the first `len` bytes of what the client wrote. Returns false if the connection broke.
    fn send(&mut self, index: usize, len: usize) -> bool {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else {
            return false;
        };
        let mut bytes = &self.to_send[..len];
        while slot.unsent.is_empty() && !bytes.is_empty() {
            match retry_on_intr(|| net::send(socket, bytes, SendFlags::NOSIGNAL)) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    self.lose(index, Failure::Reset, || io::Error::from(error).to_string());
                    return false;
                }
            }
        }
        slot.unsent.extend_from_slice(bytes);
        true
    }

    /// Sends what the socket did not take before, then lets the client write on.
    fn send_rest(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else {
            return;
        };
        match retry_on_intr(|| net::send(socket, &slot.unsent, SendFlags::NOSIGNAL)) {
            Ok(count) => drop(slot.unsent.drain(..count)),
            Err(Errno::AGAIN) => {}
            Err(error) => {
                return self.lose(index, Failure::Reset, || io::Error::from(error).to_string());
            }
        }
        if slot.unsent.is_empty() && slot.wants_room {
            self.wake(index);
        }
    }

    /// Gives up connections whose answer does not come.
    fn expire(&mut self) {
        let timeout_ns = self.run.timeout.as_nanos() as u64;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let waited_ns = self.now_ns.saturating_sub(slot.waiting_since_ns);
            if slot.socket.is_none() || slot.is_idle || waited_ns <= timeout_ns {
                continue;
            }
            if slot.is_connected {
                self.client
                    .on_timeout(&mut slot.exchange, &mut Reply::new(&mut []));
                self.abort(index);
            } else {
                let why = match slot.is_shaking_hands {
                    true => "TLS handshake: no answer",
                    false => "connect: no answer",
                };
                self.lose(index, Failure::Connect, || why.to_owned());
            }
        }
    }

    /// Opens what waits to be opened, a few at a time.
    fn open_waiting(&mut self) -> Result<(), TransportError> {
        while self
            .to_retry
            .front()
            .is_some_and(|&(from_ns, _)| from_ns <= self.now_ns)
        {
            self.to_open
                .extend(self.to_retry.pop_front().map(|(_, index)| index));
        }
        let is_wanted = !self.client.is_finished() || self.client.is_churning();
        while is_wanted && self.connecting < self.run.connecting_max {
            let Some(index) = self.to_open.pop_front() else {
                break;
            };
            self.open(index)?;
        }
        Ok(())
    }

    fn open(&mut self, index: usize) -> Result<(), TransportError> {
        let family = match self.run.address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = match net::socket_with(family, SocketType::STREAM, flags, None) {
            Ok(socket) => socket,
            Err(Errno::MFILE | Errno::NFILE) => return Err(TransportError::Descriptors),
            Err(error) => return Err(system("socket", error)),
        };
        sockopt::set_tcp_nodelay(&socket, true).map_err(|e| system("setsockopt", e))?;
        let connected = net::connect(&socket, &self.run.address);
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(
            &self.epoll,
            &socket,
            EventData::new_u64(index as u64),
            interest,
        )
        .map_err(|e| system("epoll_ctl", e))?;

        let slot = &mut self.slots[index];
        slot.socket = Some(socket);
        slot.layer = self.wire.connection();
        slot.waiting_since_ns = self.now_ns;
        self.sockets += 1;
        self.connecting += 1;
        match connected {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(Errno::ADDRNOTAVAIL) => return Err(TransportError::Ports),
            Err(error) => {
                self.lose(index, Failure::Connect, || {
                    format!("connect: {}", io::Error::from(error))
                });
            }
        }
        Ok(())
    }

    /// Closes idle connections when nothing is left to ask.
    fn close_unneeded(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            // What is opened for one request still has that to ask.
            let is_unneeded = slot.is_idle || !slot.is_connected && !self.client.is_churning();
            if slot.socket.is_some() && is_unneeded {
                let mut reply = Reply::new(&mut self.to_send);
                self.slots[index].layer.send_close_notify(&mut reply);
                let written = reply.len();
                if written == 0 || self.send(index, written) {
                    self.close(index, false);
                }
            }
        }
    }

    /// The connection failed: books it and tries again later.
    fn lose(&mut self, index: usize, failure: Failure, why: impl FnOnce() -> String) {
        self.client
            .on_lost(&mut self.slots[index].exchange, failure, why);
        self.close(index, false);
    }

    /// Resets the connection: what it would still bring is of no use.
    fn abort(&mut self, index: usize) {
        if let Some(socket) = &self.slots[index].socket {
            // If it fails the connection is closed in order instead.
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
        self.close(index, false);
    }

    /// Closes the connection; another takes its place if there is more to ask.
    fn close(&mut self, index: usize, again_at_once: bool) {
        let slot = &mut self.slots[index];
        if slot.socket.take().is_none() {
            return;
        }
        self.sockets -= 1;
        if !slot.is_connected {
            self.connecting -= 1;
        }
        slot.exchange = Exchange::default();
        slot.layer = ClientConnection::default();
        slot.is_shaking_hands = false;
        (slot.is_connected, slot.is_idle, slot.wants_room) = (false, false, false);
        slot.unread.clear();
        slot.unsent.clear();
        if self.client.is_churning() {
            self.unused.push(index);
        } else if self.client.is_finished() {
        } else if again_at_once {
            self.client.tally().reconnects += 1;
            self.to_open.push_back(index);
        } else {
            self.to_retry.push_back((self.now_ns + RETRY_NS, index));
        }
    }
}
