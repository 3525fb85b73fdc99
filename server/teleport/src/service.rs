//! The serving end as a service: to the service inside, each call is a connection of its own.
//!
//! ```text
//!   stack ──▶ Teleport ──▶ Plain ────────────────────────────────▶ inner service     a listener without teleport
//!                  └─────▶ Open ─▶ Endpoint ─▶ Call ─▶ on_input ─▶ inner service
//!                            ▲                   └──◀── Reply ◀──────────┘
//!                            └── write ◀── batch ◀── send, a part of each call in turn
//! ```
//!
//! The service inside says by its own means where a message ends ([`Progress::messages`]), so that requests are parsed,
//! limited, counted and logged as those of any other connection. A call whose peer does not take its response waits by
//! itself: its output is not filled again, and nobody else waits for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use barewire_service::service::{
    Arrival, End, Expect, Id, Input, Next, Progress, Reply, Service, Want,
};
use barewire_service::time::{Duration, Instant};
use slab::Slab;

use crate::calls::CallId;
use crate::counters::TeleportCounters;
use crate::endpoint::{Endpoint, Event, Side};
use crate::fault::{Fault, Reason};
use crate::limits::Limits;
use crate::secrets::{Secrets, head_end};

/// The limits of a core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Of each connection.
    pub connection: Limits,
    /// Connections that may be open at once; one beyond is reset. Each takes 200 KiB, with zstd 1.7 MiB.
    pub connections_max: usize,
    /// How long a call may wait for the other end to send, or to take, more of it, in milliseconds.
    pub call_timeout_ms: u32,
    /// Fields that are kept out of the compressor, beside those with credentials.
    pub secret_fields: Vec<String>,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        ServiceLimits {
            connection: Limits::default(),
            connections_max: 64,
            call_timeout_ms: 30_000,
            secret_fields: Vec::new(),
        }
    }
}

/// Teleport on one of the stack's listeners, in front of `S`.
pub struct Teleport<S: Service> {
    inner: S,
    /// The others are `S`'s as they are.
    listener: usize,
    core: Core,
    connections: Slab<Box<Open<S::Connection>>>,
}

/// What the connections of a core share.
struct Core {
    limits: ServiceLimits,
    counters: Arc<TeleportCounters>,
    secrets: Secrets,
    /// Inputs and outputs of calls that are over. Outputs are as long as they were.
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    calls_open: usize,
    /// Connections that are to be called.
    to_wake: VecDeque<Id>,
    /// Tells calls that have the same place after one another apart.
    generation: u32,
    output_bytes: usize,
    now_ns: u64,
    sweep_at_ns: u64,
    is_draining: bool,
}

/// The state of a connection.
#[derive(Debug)]
pub struct Connection<C>(State<C>);

#[derive(Debug)]
enum State<C> {
    Plain(C),
    /// To be reset.
    Refused,
    /// The place of an [`Open`].
    Open(usize),
}

impl<C: Default> Default for Connection<C> {
    fn default() -> Self {
        Connection(State::Plain(C::default()))
    }
}

/// A connection that speaks teleport.
struct Open<C> {
    id: Id,
    peer: Option<SocketAddr>,
    listener: usize,
    endpoint: Endpoint,
    /// By slot.
    calls: Vec<Option<Call<C>>>,
    count: usize,
    /// Calls that may have something to do, each once.
    ready: VecDeque<u32>,
    is_woken: bool,
}

/// A call, as a connection of the service inside.
struct Call<C> {
    id: CallId,
    generation: u32,
    inner: C,
    /// What has arrived, and how much of it was consumed.
    input: Vec<u8>,
    consumed: usize,
    has_ended: bool,
    /// The service inside is to be called.
    is_due: bool,
    output: Vec<u8>,
    output_len: usize,
    sent: usize,
    /// What is secret of the output.
    secret: Range<usize>,
    at: At,
    next: Next,
    messages: u32,
    is_complete: bool,
    is_ready: bool,
    moved_ns: u64,
}

/// What comes next in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The head of a response.
    Head,
    /// The rest of one.
    RestOfHead,
    Content,
}

/// What has become of a call that was looked at.
enum Step {
    /// Something has to arrive, or somebody to wake it.
    Idle,
    /// It has more to send.
    Pending,
    /// The response is complete.
    Done,
    Failed(Reason),
}

/// Bytes of a call in a row, when others have something to send, too.
const QUANTUM_BYTES: usize = 8 * 1024;
/// The mark of an id that means a call. Behind it are the place of its connection and its slot.
const CALL: u32 = 1 << 31;
const SLOT_BITS: u32 = 12;
const SWEEP_NS: u64 = 1_000_000_000;

impl<S: Service> Teleport<S> {
    /// Teleport in front of `inner` for those who come in at `listener`.
    pub fn new(
        inner: S,
        listener: usize,
        limits: ServiceLimits,
        counters: Arc<TeleportCounters>,
    ) -> Self {
        /// What a service may write at once, if it needs no more.
        const OUTPUT_BYTES: usize = 16 * 1024;
        let connections_max = limits.connections_max.min(1 << (31 - SLOT_BITS));
        Teleport {
            inner,
            listener,
            connections: Slab::with_capacity(connections_max),
            core: Core {
                secrets: Secrets::with(limits.secret_fields.iter().cloned()),
                limits,
                counters,
                inputs: Vec::new(),
                outputs: Vec::new(),
                calls_open: 0,
                to_wake: VecDeque::new(),
                generation: 0,
                output_bytes: OUTPUT_BYTES.max(S::REPLY_BYTES_MIN),
                now_ns: 0,
                sweep_at_ns: 0,
                is_draining: false,
            },
        }
    }

    /// The service inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The same, to be changed between two calls of it.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: Service> Service for Teleport<S> {
    type Connection = Connection<S::Connection>;

    const REPLY_BYTES_MIN: usize = S::REPLY_BYTES_MIN;

    fn on_accept(&mut self, arrival: Arrival<'_>) -> (Self::Connection, Expect) {
        if arrival.listener != self.listener {
            let (connection, expect) = self.inner.on_accept(arrival);
            return (Connection(State::Plain(connection)), expect);
        }
        if self.connections.len() >= self.core.limits.connections_max {
            self.core.counters.refused_connections.increment();
            return (Connection(State::Refused), Expect::Handshake);
        }
        let counters = Arc::clone(&self.core.counters);
        let key = self.connections.insert(Box::new(Open {
            id: arrival.id,
            peer: arrival.peer,
            listener: arrival.listener,
            endpoint: Endpoint::new(Side::Server, self.core.limits.connection, counters),
            calls: Vec::new(),
            count: 0,
            ready: VecDeque::new(),
            is_woken: false,
        }));
        self.publish();
        (Connection(State::Open(key)), Expect::Handshake)
    }

    fn on_input(
        &mut self,
        connection: &mut Self::Connection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let key = match &mut connection.0 {
            State::Plain(plain) => return self.inner.on_input(plain, input, reply),
            State::Refused => return ending(input, Next::Abort),
            State::Open(key) => *key,
        };
        let Self {
            inner,
            core,
            connections,
            ..
        } = self;
        let Some(open) = connections.get_mut(key) else {
            return ending(input, Next::Abort);
        };
        let progress = open.turn(key, inner, core, input, reply);
        let progress = progress.unwrap_or_else(|fault| {
            open.endpoint.fail(fault);
            if let Ok(len) = open.endpoint.write(reply.spare()) {
                reply.advance(len);
            }
            ending(input, Next::Close)
        });
        self.publish();
        progress
    }

    fn on_timeout(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            State::Plain(plain) => self.inner.on_timeout(plain, reply),
            State::Refused => {}
            State::Open(key) => self.say_go_away(*key, reply),
        }
    }

    fn on_dismiss(&mut self, connection: &mut Self::Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            State::Plain(plain) => self.inner.on_dismiss(plain, reply),
            State::Refused => {}
            State::Open(key) => self.say_go_away(*key, reply),
        }
    }

    fn on_clock(&mut self, unix_time_s: u64) {
        self.inner.on_clock(unix_time_s);
    }

    #[inline]
    fn on_time(&mut self, now_ns: u64) {
        self.core.now_ns = now_ns;
        self.inner.on_time(now_ns);
    }

    fn on_drain(&mut self) {
        self.inner.on_drain();
        self.core.is_draining = true;
        let connections = self.connections.iter().map(|(_, open)| open.id);
        self.core.to_wake.extend(connections);
    }

    fn on_stay(&mut self) {
        self.inner.on_stay();
        self.core.is_draining = false;
    }

    fn wants(&mut self, now: Instant) -> Want {
        loop {
            let sweep_at = self.sweep(now);
            if let Some(id) = self.core.to_wake.pop_front() {
                return Want::Wake(id);
            }
            let woken = match self.inner.wants(now) {
                Want::Wake(id) if id.index & CALL != 0 => self.wake(id, None),
                Want::Abort(id) if id.index & CALL != 0 => self.wake(id, Some(Reason::Failed)),
                Want::Nothing { until } => {
                    let until = until.into_iter().chain(sweep_at).min();
                    return Want::Nothing { until };
                }
                want => return want,
            };
            if let Some(id) = woken {
                return Want::Wake(id);
            }
        }
    }

    fn on_open(&mut self, token: u64, id: Id) -> Self::Connection {
        Connection(State::Plain(self.inner.on_open(token, id)))
    }

    fn departs(connection: &Self::Connection) -> Option<u8> {
        match &connection.0 {
            State::Plain(plain) => S::departs(plain),
            State::Refused | State::Open(_) => None,
        }
    }

    #[inline]
    fn resume(connection: &mut Self::Connection, rest: u8) {
        if let State::Plain(plain) = &mut connection.0 {
            S::resume(plain, rest);
        }
    }

    fn on_end(&mut self, connection: &mut Self::Connection, end: End) {
        match &mut connection.0 {
            State::Plain(plain) => self.inner.on_end(plain, end),
            State::Refused => {}
            State::Open(key) => {
                let Some(mut open) = self.connections.try_remove(*key) else {
                    return;
                };
                for slot in 0..open.calls.len() {
                    open.forget(slot, &mut self.inner, &mut self.core, End::Reset);
                }
                self.publish();
            }
        }
    }
}

impl<S: Service> Teleport<S> {
    fn publish(&self) {
        let counters = &self.core.counters;
        counters.connections.set(self.connections.len() as u64);
        counters.calls_open.set(self.core.calls_open as u64);
    }

    fn say_go_away(&mut self, key: usize, reply: &mut Reply<'_>) {
        if let Some(open) = self.connections.get_mut(key) {
            open.endpoint.go_away();
            if let Ok(len) = open.endpoint.write(reply.spare()) {
                reply.advance(len);
            }
        }
    }

    /// The service inside wants to be called on a call, or not to hear of it again. Returns the connection to be woken,
    /// if that is not to happen already.
    fn wake(&mut self, id: Id, is_over: Option<Reason>) -> Option<Id> {
        let (key, slot) = (
            (id.index & !CALL) >> SLOT_BITS,
            id.index & ((1 << SLOT_BITS) - 1),
        );
        let open = self.connections.get_mut(key as usize)?;
        let call = open.calls.get_mut(slot as usize)?.as_mut()?;
        if call.generation != id.generation {
            return None;
        }
        match is_over {
            None => {
                call.is_due = true;
                open.make_ready(slot);
            }
            Some(reason) => {
                let id = call.id;
                open.endpoint.reset(id, reason);
                open.forget(slot as usize, &mut self.inner, &mut self.core, End::Closed);
            }
        }
        let was_woken = std::mem::replace(&mut open.is_woken, true);
        (!was_woken).then_some(open.id)
    }

    /// Once a second, gives up calls that have not moved for too long. Returns when it is to be done again.
    fn sweep(&mut self, now: Instant) -> Option<Instant> {
        let Self {
            inner,
            core,
            connections,
            ..
        } = self;
        if core.calls_open == 0 {
            return None;
        }
        if core.now_ns >= core.sweep_at_ns {
            core.sweep_at_ns = core.now_ns + SWEEP_NS;
            for (_, open) in connections.iter_mut() {
                if open.sweep(inner, core) && !std::mem::replace(&mut open.is_woken, true) {
                    core.to_wake.push_back(open.id);
                }
            }
        }
        // The two clocks need not count from the same moment.
        let left_ns = core.sweep_at_ns.saturating_sub(core.now_ns);
        Some(now + Duration::from_micros(left_ns.div_ceil(1_000)))
    }
}

impl<C: Default> Open<C> {
    /// Takes what has arrived, lets the calls go on, and writes what they have to say.
    fn turn<S: Service<Connection = C>>(
        &mut self,
        key: usize,
        inner: &mut S,
        core: &mut Core,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Progress, Fault> {
        self.is_woken = false;
        let mut consumed = 0;
        while consumed < input.bytes.len() {
            consumed += self.endpoint.receive(&input.bytes[consumed..])?;
            self.take_events(key, inner, core)?;
        }
        let mut messages = 0;
        let can_go_on = loop {
            let mut has_moved = false;
            for _ in 0..self.ready.len() {
                let Some(slot) = self.ready.pop_front() else {
                    break;
                };
                has_moved |= self.go_on(slot, inner, core, &mut messages);
            }
            if core.is_draining {
                self.endpoint.go_away();
            }
            let len = self.endpoint.write(reply.spare())?;
            reply.advance(len);
            if len == 0 && !has_moved {
                break false;
            }
            if reply.remaining() == 0 {
                break true;
            }
        };
        let next = if input.ended {
            Next::Close
        } else if can_go_on || self.endpoint.has_output() {
            Next::Send
        } else if !self.endpoint.is_ready() {
            Next::Receive(Expect::Handshake)
        } else if self.count > 0 {
            Next::Receive(Expect::Anything)
        } else if core.is_draining {
            Next::Close
        } else {
            Next::Receive(Expect::Message)
        };
        Ok(Progress {
            consumed,
            messages,
            next,
        })
    }

    fn take_events<S: Service<Connection = C>>(
        &mut self,
        key: usize,
        inner: &mut S,
        core: &mut Core,
    ) -> Result<(), Fault> {
        loop {
            let slot = match self.endpoint.next_event()? {
                None => return Ok(()),
                Some(Event::Data {
                    call: id,
                    bytes,
                    is_last,
                }) => {
                    let slot = id.slot as usize;
                    if self.calls.len() <= slot {
                        self.calls.resize_with(slot + 1, || None);
                    }
                    let call = match &mut self.calls[slot] {
                        Some(call) => call,
                        vacant => {
                            core.generation = core.generation.wrapping_add(1);
                            let (arrived, _) = inner.on_accept(Arrival {
                                id: Id {
                                    index: CALL | (key as u32) << SLOT_BITS | id.slot,
                                    generation: core.generation,
                                },
                                peer: self.peer,
                                listener: self.listener,
                                tls: None,
                            });
                            self.count += 1;
                            core.calls_open += 1;
                            vacant.insert(Call::new(id, arrived, core))
                        }
                    };
                    call.input.extend_from_slice(bytes);
                    call.has_ended |= is_last;
                    call.is_due = true;
                    call.moved_ns = core.now_ns;
                    id.slot
                }
                Some(Event::Reset(id, _)) => {
                    self.forget(id.slot as usize, inner, core, End::Reset);
                    continue;
                }
                Some(Event::Credit(id)) => id.slot,
                Some(Event::Ready | Event::GoAway(_) | Event::Pong) => continue,
            };
            self.make_ready(slot);
        }
    }

    fn make_ready(&mut self, slot: u32) {
        if let Some(Some(call)) = self.calls.get_mut(slot as usize)
            && !call.is_ready
        {
            call.is_ready = true;
            self.ready.push_back(slot);
        }
    }

    /// Lets a call go on. Returns whether it got any further.
    fn go_on<S: Service<Connection = C>>(
        &mut self,
        slot: u32,
        inner: &mut S,
        core: &mut Core,
        messages: &mut u32,
    ) -> bool {
        let Some(Some(call)) = self.calls.get_mut(slot as usize) else {
            return false;
        };
        call.is_ready = false;
        let before_ns = std::mem::replace(&mut call.moved_ns, u64::MAX);
        let step = call.step(inner, core, &mut self.endpoint);
        let has_moved = call.moved_ns != u64::MAX;
        if !has_moved {
            call.moved_ns = before_ns;
        }
        let id = call.id;
        match step {
            Step::Idle => {}
            Step::Pending => self.make_ready(slot),
            Step::Done => {
                *messages += 1;
                // Nothing happens if the request has ended, too.
                self.endpoint.reset(id, Reason::Done);
                self.forget(slot as usize, inner, core, End::Closed);
            }
            Step::Failed(reason) => {
                if reason == Reason::Malformed {
                    core.counters.malformed_calls.increment();
                }
                self.endpoint.reset(id, reason);
                self.forget(slot as usize, inner, core, End::Closed);
            }
        }
        has_moved
    }

    /// The call in this slot is over.
    fn forget<S: Service<Connection = C>>(
        &mut self,
        slot: usize,
        inner: &mut S,
        core: &mut Core,
        end: End,
    ) {
        let call = self.calls.get_mut(slot).and_then(Option::take);
        if let Some(mut call) = call {
            self.count -= 1;
            core.calls_open -= 1;
            if call.is_ready {
                self.ready.retain(|&ready| ready as usize != slot);
            }
            inner.on_end(&mut call.inner, end);
            core.take_back(call.input, call.output);
        }
    }

    /// Gives up calls whose peer is late. Returns whether there were any.
    fn sweep<S: Service<Connection = C>>(&mut self, inner: &mut S, core: &mut Core) -> bool {
        let timeout_ns = u64::from(core.limits.call_timeout_ms) * 1_000_000;
        let mut is_any = false;
        for slot in 0..self.calls.len() {
            let Some(Some(call)) = self.calls.get(slot) else {
                continue;
            };
            let is_late = call.moved_ns.saturating_add(timeout_ns) <= core.now_ns;
            // Whoever wakes it keeps a deadline of its own.
            let waits_for_peer = call.next != Next::Wait || call.sent < call.output_len;
            if is_late && waits_for_peer {
                core.counters.timed_out_calls.increment();
                self.endpoint.reset(call.id, Reason::Failed);
                self.forget(slot, inner, core, End::Silent);
                is_any = true;
            }
        }
        is_any
    }
}

impl<C> Call<C> {
    fn new(id: CallId, inner: C, core: &mut Core) -> Self {
        let (input, output) = core.lend();
        Call {
            id,
            generation: core.generation,
            inner,
            input,
            consumed: 0,
            has_ended: false,
            is_due: true,
            output,
            output_len: 0,
            sent: 0,
            secret: 0..0,
            at: At::Head,
            next: Next::Receive(Expect::Message),
            messages: 0,
            is_complete: false,
            is_ready: false,
            moved_ns: core.now_ns,
        }
    }

    /// Lets the service inside go on, and sends what it has written, a part of it if there is much.
    fn step<S: Service<Connection = C>>(
        &mut self,
        inner: &mut S,
        core: &mut Core,
        endpoint: &mut Endpoint,
    ) -> Step {
        let mut quantum = QUANTUM_BYTES;
        loop {
            if self.sent == self.output_len && !self.is_complete {
                if !self.is_due {
                    return Step::Idle;
                }
                if let Some(reason) = self.ask(inner, core, endpoint) {
                    return Step::Failed(reason);
                }
                if self.sent == self.output_len && !self.is_complete {
                    continue;
                }
            }
            if quantum == 0 {
                return Step::Pending;
            }
            let rest = self.sent..self.output_len;
            let is_secret = self.secret.contains(&rest.start);
            let end = match (is_secret, self.secret.start) {
                (true, _) => self.secret.end,
                (false, start) if start > rest.start => start.min(rest.end),
                (false, _) => rest.end,
            };
            let end = end.min(rest.start + quantum);
            let ends = self.is_complete && end == self.output_len;
            let bytes = &self.output[rest.start..end];
            let Some(count) = endpoint.send(self.id, bytes, is_secret, ends) else {
                return Step::Pending;
            };
            self.moved_ns = core.now_ns;
            self.sent += count;
            quantum -= count.min(quantum);
            if self.is_complete && self.sent == self.output_len {
                return Step::Done;
            }
        }
    }

    /// Shows the service inside what has arrived. Returns why the call is to be given up, if it is.
    fn ask<S: Service<Connection = C>>(
        &mut self,
        inner: &mut S,
        core: &mut Core,
        endpoint: &mut Endpoint,
    ) -> Option<Reason> {
        let credit = core.limits.connection.call_credit_bytes as usize;
        let bytes = &self.input[self.consumed..];
        let input = Input {
            bytes,
            full: bytes.len() >= credit,
            ended: self.has_ended,
        };
        let mut reply = Reply::new(&mut self.output);
        let progress = inner.on_input(&mut self.inner, input, &mut reply);
        let (is_full, has_consumed) = (input.full, progress.consumed > 0);
        self.is_due = progress.next == Next::Send;
        self.output_len = reply.len();
        self.sent = 0;
        self.secret = 0..0;
        self.next = progress.next;
        self.messages += progress.messages;
        self.consumed += progress.consumed;
        self.moved_ns = core.now_ns;
        endpoint.grant(self.id, progress.consumed);
        if self.consumed == self.input.len() {
            self.input.clear();
            self.consumed = 0;
        } else if self.consumed > self.input.len() / 2 {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        self.keep_secrets_apart(&mut core.secrets);
        match progress.next {
            Next::Abort => Some(Reason::Failed),
            _ if self.messages > 1 => Some(Reason::Malformed),
            Next::Close => {
                self.is_complete = true;
                None
            }
            Next::Receive(Expect::Message) if self.messages > 0 => {
                self.is_complete = true;
                None
            }
            // Nothing can be added: the service would wait for ever.
            Next::Receive(_) if is_full && !has_consumed => Some(Reason::Failed),
            Next::Receive(_) if self.has_ended && !self.is_due => Some(Reason::Malformed),
            Next::Receive(_) | Next::Send | Next::Wait => None,
        }
    }

    /// Finds the lines of the response's head that are not to be compressed. Of a head that is longer than the output,
    /// that is all.
    fn keep_secrets_apart(&mut self, secrets: &mut Secrets) {
        let output = &mut self.output[..self.output_len];
        let mut at = 0;
        while self.at != At::Content && at < output.len() {
            let end = head_end(&output[at..]).map(|end| at + end);
            let is_interim = output[at..].starts_with(b"HTTP/1.1 1");
            let from = match (end, self.at) {
                (Some(end), At::Head) => at + secrets.move_back(&mut output[at..end]),
                _ => at,
            };
            let to = end.unwrap_or(output.len());
            if from < to {
                let is_first = self.secret.is_empty();
                self.secret = if is_first { from } else { self.secret.start }..to;
            }
            self.at = match end {
                None => At::RestOfHead,
                Some(_) if is_interim => At::Head,
                Some(_) => At::Content,
            };
            at = to;
        }
    }
}

impl Core {
    fn lend(&mut self) -> (Vec<u8>, Vec<u8>) {
        let output = self.outputs.pop();
        (
            self.inputs.pop().unwrap_or_default(),
            output.unwrap_or_else(|| vec![0; self.output_bytes]),
        )
    }

    fn take_back(&mut self, mut input: Vec<u8>, output: Vec<u8>) {
        /// A longer one was for a body of unusual length.
        const KEPT_BYTES_MAX: usize = 128 * 1024;
        let kept_max = usize::from(self.limits.connection.calls_max);
        if self.outputs.len() < kept_max {
            self.outputs.push(output);
        }
        if self.inputs.len() < kept_max && input.capacity() <= KEPT_BYTES_MAX {
            input.clear();
            self.inputs.push(input);
        }
    }
}

impl<C> std::fmt::Debug for Open<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("id", &self.id)
            .field("endpoint", &self.endpoint)
            .field("calls", &self.count)
            .finish_non_exhaustive()
    }
}

/// Consumes everything, and ends the connection.
fn ending(input: Input<'_>, next: Next) -> Progress {
    Progress {
        consumed: input.bytes.len(),
        messages: 0,
        next,
    }
}
