//! A teleport connection to an origin: many calls at once, each with a message in both directions (docs/teleport.md).
//!
//! What one turn brings is taken first, and told to clients; then every call that has something to send sends a part, in
//! turns, and all of that is one batch. A call whose client does not take its response keeps what has arrived, which its
//! credit bounds, and holds back nobody else.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use barewire_http::Refusal;
use barewire_service::service::{Expect, Input, Next, Progress, Reply};
use barewire_teleport::{
    CallId, Endpoint, Event, Fault, Limits, Reason, ServiceLimits, Side, TeleportCounters,
};

use crate::call::Call;
use crate::config::PoolConfig;
use crate::forward::{Forwarder, MS};
use crate::origin_connection::Read;

/// Bytes of a call in a row, when others have something to send, too.
const QUANTUM_BYTES: usize = 8 * 1024;

/// What is kept of a teleport connection beside what every connection has.
#[derive(Debug)]
pub struct Shared {
    /// Taken out while it is in use.
    endpoint: Option<Box<Endpoint>>,
    /// Calls that were begun, by slot.
    begun: Vec<Option<(usize, CallId)>>,
    /// Those of them whose slots other calls have: all of their responses has arrived, and waits for their clients.
    arrived: Vec<usize>,
    /// Calls that were not.
    waiting: VecDeque<usize>,
    /// Calls that were begun and may have something to do, each once.
    busy: VecDeque<usize>,
    /// Calls that nobody waits for any more.
    given_up: Vec<CallId>,
    /// Calls on it, begun or waiting.
    pub load: usize,
    /// The other end has said hello.
    pub is_ready: bool,
    /// When something last arrived.
    pub heard_ns: u64,
    ping: Ping,
    /// When what its calls have to send is sent; 0 if none has said that it has something.
    send_at_ns: u64,
    completed: u32,
}

/// Whether the other end was asked if it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ping {
    Unasked,
    /// It is to be asked.
    Due,
    /// It was, at this time.
    Asked(u64),
}

/// What becomes of a connection on which nothing arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It is looked at again then.
    Until(u64),
    /// It is to be called, and will ask.
    Asks,
    /// The other end does not answer.
    Dead,
}

impl Shared {
    pub fn new(config: &PoolConfig, credit_bytes: usize, counters: Arc<TeleportCounters>) -> Self {
        let limits = Limits {
            compression: config.compression.into(),
            call_credit_bytes: u32::try_from(credit_bytes).unwrap_or(u32::MAX),
            window_bytes: config.window_bytes,
            ..ServiceLimits::default().connection
        };
        Shared {
            endpoint: Some(Box::new(Endpoint::new(Side::Client, limits, counters))),
            begun: Vec::new(),
            arrived: Vec::new(),
            waiting: VecDeque::new(),
            busy: VecDeque::new(),
            given_up: Vec::new(),
            load: 0,
            is_ready: false,
            heard_ns: 0,
            ping: Ping::Unasked,
            send_at_ns: 0,
            completed: 0,
        }
    }

    /// Calls have something to send. Says when that is done, unless it is known already.
    pub fn delay(&mut self, now_ns: u64, delay_ns: u64) -> Option<u64> {
        let is_news = self.send_at_ns == 0;
        if is_news {
            self.send_at_ns = now_ns + delay_ns;
        }
        is_news.then_some(self.send_at_ns)
    }

    /// When calls that have something to send do so.
    pub fn sends_at_ns(&self) -> Option<u64> {
        Some(self.send_at_ns).filter(|&at_ns| at_ns > 0)
    }

    /// Whether it is time to send; then it is not any more.
    fn takes_turn(&mut self, now_ns: u64) -> bool {
        let is_due = self.send_at_ns <= now_ns;
        if is_due {
            self.send_at_ns = 0;
        }
        is_due
    }

    /// Looks whether something has arrived within `interval_ns`, and else whether that was asked for as long ago.
    pub fn silence(&mut self, now_ns: u64, interval_ns: u64) -> Silence {
        let quiet_at_ns = self.heard_ns + interval_ns;
        if !self.is_ready || now_ns < quiet_at_ns {
            return Silence::Until(quiet_at_ns.max(now_ns + 1));
        }
        match self.ping {
            Ping::Asked(at_ns) if now_ns >= at_ns + interval_ns => Silence::Dead,
            Ping::Asked(at_ns) => Silence::Until(at_ns + interval_ns),
            Ping::Unasked | Ping::Due => {
                self.ping = Ping::Due;
                Silence::Asks
            }
        }
    }

    /// A further call, to be begun in the next turn.
    pub fn add(&mut self, call: usize) {
        self.waiting.push_back(call);
        self.load += 1;
    }

    /// Takes a call off.
    pub fn remove(&mut self, at: usize, call: &mut Call) {
        self.load -= 1;
        match call.remote.take() {
            None => self.waiting.retain(|&waiting| waiting != at),
            Some(id) => {
                let place = &mut self.begun[id.slot as usize];
                match *place == Some((at, id)) {
                    true => *place = None,
                    false => self.arrived.retain(|&arrived| arrived != at),
                }
                self.given_up.push(id);
            }
        }
        if std::mem::take(&mut call.is_busy) {
            self.busy.retain(|&busy| busy != at);
        }
    }

    /// The call may have something to send or to take.
    pub fn nudge(&mut self, at: usize, call: &mut Call) {
        if call.remote.is_some() && !call.is_busy {
            call.is_busy = true;
            self.busy.push_back(at);
        }
    }

    /// All calls on it.
    pub fn calls(&self) -> Vec<usize> {
        let begun = self.begun.iter().flatten().map(|(call, _)| call);
        let all = begun.chain(&self.arrived).chain(&self.waiting);
        all.copied().collect()
    }

    fn find(&self, id: CallId) -> Option<usize> {
        let (call, of) = (*self.begun.get(id.slot as usize)?)?;
        (of == id).then_some(call)
    }
}

impl Forwarder {
    /// Something has arrived on a teleport connection, or it was woken.
    pub fn on_shared(&mut self, at: usize, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let Some(mut endpoint) = self.shared(at).and_then(|shared| shared.endpoint.take()) else {
            return ending(input, Next::Abort);
        };
        let next = self.shared_turn(at, &mut endpoint, input, reply);
        let next = next.unwrap_or_else(|fault| {
            endpoint.fail(fault);
            let origin = self.connections[at].origin;
            self.origins[origin].counters.failed_malformed.increment();
            self.blame(origin);
            self.connections[at].closes = true;
            Next::Abort
        });
        let mut messages = 0;
        if let Some(shared) = self.shared(at) {
            shared.endpoint = Some(endpoint);
            messages = std::mem::take(&mut shared.completed);
        }
        self.publish_teleport();
        Progress {
            consumed: input.bytes.len(),
            messages,
            next,
        }
    }

    fn shared(&mut self, at: usize) -> Option<&mut Shared> {
        self.connections[at].shared.as_mut()
    }

    fn shared_turn(
        &mut self,
        at: usize,
        endpoint: &mut Endpoint,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Fault> {
        self.tell_given_up(at, endpoint);
        let mut bytes = input.bytes;
        if !bytes.is_empty() {
            let now_ns = self.now_ns;
            if let Some(shared) = self.shared(at) {
                shared.heard_ns = now_ns;
                shared.ping = Ping::Unasked;
            }
        }
        while !bytes.is_empty() {
            let taken = endpoint.receive(bytes)?;
            bytes = &bytes[taken..];
            self.take_events(at, endpoint)?;
        }
        let now_ns = self.now_ns;
        if let Some(shared) = self.shared(at)
            && shared.ping == Ping::Due
        {
            shared.ping = Ping::Asked(now_ns);
            endpoint.ping(now_ns.to_be_bytes());
        }
        let is_due = self.may_send(at);
        let can_go_on = loop {
            let has_begun = is_due && self.begin_waiting(at, endpoint);
            let has_sent = is_due && self.send_busy(at, endpoint);
            self.tell_given_up(at, endpoint);
            let len = endpoint.write(reply.spare())?;
            reply.advance(len);
            if len == 0 && !has_begun && !has_sent {
                break false;
            }
            if reply.remaining() == 0 {
                break true;
            }
        };
        self.connections[at].closes |= endpoint.is_nearly_used_up();
        let is_over = self.draining || self.connections[at].closes;
        let Some(shared) = self.shared(at) else {
            return Ok(Next::Abort);
        };
        Ok(match shared.load {
            _ if input.ended => Next::Close,
            _ if can_go_on || endpoint.has_output() => Next::Send,
            0 if is_over => Next::Close,
            0 => Next::Receive(Expect::Message),
            _ => Next::Receive(Expect::Anything),
        })
    }

    /// Whether calls may send in this turn: not if others are waited for, to share their batch.
    fn may_send(&mut self, at: usize) -> bool {
        let now_ns = self.now_ns;
        let has_delay = self.batch_delay_ns(at) > 0;
        let Some(shared) = self.shared(at).filter(|_| has_delay) else {
            return true;
        };
        let has_calls = !shared.waiting.is_empty() || !shared.busy.is_empty();
        if has_calls && shared.send_at_ns == 0 {
            // What did not fit before.
            self.delay_batch(at);
            return false;
        }
        shared.takes_turn(now_ns)
    }

    /// Tells the other end which calls nobody waits for.
    fn tell_given_up(&mut self, at: usize, endpoint: &mut Endpoint) {
        if let Some(shared) = self.shared(at) {
            for id in shared.given_up.drain(..) {
                endpoint.reset(id, Reason::Cancelled);
            }
        }
    }

    fn take_events(&mut self, at: usize, endpoint: &mut Endpoint) -> Result<(), Fault> {
        loop {
            match endpoint.next_event()? {
                None => return Ok(()),
                Some(Event::Data {
                    call: id,
                    bytes,
                    is_last,
                }) => {
                    if let Some(call) = self.call_of(at, id) {
                        let count = self.take_response(at, (call, id), bytes, is_last);
                        endpoint.grant(id, count);
                    }
                }
                Some(Event::Credit(id)) => {
                    if let Some(call) = self.call_of(at, id) {
                        self.nudge(call);
                    }
                }
                Some(Event::Reset(id, reason)) => {
                    if let Some(call) = self.call_of(at, id) {
                        self.refused_by_origin(at, call, reason);
                    }
                }
                Some(Event::GoAway(last_call)) => self.goes_away(at, last_call),
                Some(Event::Ready) => {
                    if let Some(shared) = self.shared(at) {
                        shared.is_ready = true;
                    }
                    self.next_ping_ns = self.next_ping_ns.min(self.now_ns + MS);
                }
                Some(Event::Pong) => {}
            }
        }
    }

    /// Takes bytes of a response, and keeps what its client has no room for. Returns how many more may come.
    fn take_response(
        &mut self,
        at: usize,
        (call, id): (usize, CallId),
        bytes: &[u8],
        is_last: bool,
    ) -> usize {
        let it = &mut self.calls[call];
        it.has_arrived = is_last;
        if !it.arrived.is_empty() {
            it.arrived.extend_from_slice(bytes);
            return self.read_arrived(at, (call, id));
        }
        let consumed = self.read_shared(at, call, bytes);
        if let Some(it) = self.call_on(call, id) {
            it.arrived.extend_from_slice(&bytes[consumed..]);
        }
        consumed
    }

    /// Goes on with what was kept of a response.
    fn read_arrived(&mut self, at: usize, (call, id): (usize, CallId)) -> usize {
        let mut arrived = std::mem::take(&mut self.calls[call].arrived);
        let consumed = self.read_shared(at, call, &arrived);
        if let Some(it) = self.call_on(call, id) {
            arrived.drain(..consumed);
            it.arrived = arrived;
        }
        consumed
    }

    /// The call that a connection carries as `id`, unless it is over.
    fn call_of(&mut self, at: usize, id: CallId) -> Option<usize> {
        self.shared(at)?.find(id)
    }

    /// The call, if it is still the one that was begun as `id`.
    fn call_on(&mut self, call: usize, id: CallId) -> Option<&mut Call> {
        let call = self.calls.get_mut(call)?;
        (call.remote == Some(id)).then_some(call)
    }

    /// Reads a response as far as its client has room. The call may be over behind this.
    fn read_shared(&mut self, at: usize, call: usize, bytes: &[u8]) -> usize {
        let it = &self.calls[call];
        let input = Input {
            bytes,
            full: bytes.len() >= self.table.limits.response_buffer_bytes,
            ended: it.has_arrived,
        };
        let mut consumed = 0;
        match self.read(at, call, input, &mut consumed) {
            Err(error) => {
                self.refuse_response(at, call, error);
            }
            Ok(Read::Complete) => {
                self.calls[call].is_complete = true;
                if let Some(shared) = self.shared(at) {
                    shared.completed += 1;
                }
                self.leave_connection(call);
                self.wake_client(call);
            }
            Ok(Read::Held) => self.calls[call].is_connection_held = true,
            Ok(Read::Wait) if input.ended => self.broken_by_origin(at, call),
            Ok(Read::Wait) => {}
        }
        consumed
    }

    /// The response will not become whole.
    fn broken_by_origin(&mut self, at: usize, call: usize) {
        let origin = self.connections[at].origin;
        self.origins[origin].counters.failed_ended.increment();
        self.blame(origin);
        self.leave_connection(call);
        self.retry_or_fail(call, Refusal::OriginFailed);
    }

    fn refused_by_origin(&mut self, at: usize, call: usize, reason: Reason) {
        if reason != Reason::Refused {
            return self.broken_by_origin(at, call);
        }
        self.leave_connection(call);
        self.was_not_taken(call);
    }

    /// The origin will answer calls up to this one, and no other.
    fn goes_away(&mut self, at: usize, last_call: u32) {
        self.connections[at].closes = true;
        let Some(shared) = self.shared(at) else {
            return;
        };
        let begun = shared.begun.iter().flatten();
        let mut ignored: Vec<_> = begun
            .filter(|(_, id)| id.number > last_call)
            .map(|(call, _)| *call)
            .collect();
        ignored.extend(&shared.waiting);
        for call in ignored {
            self.leave_connection(call);
            self.was_not_taken(call);
        }
    }

    /// The origin has done nothing for the call, so that it may be repeated.
    fn was_not_taken(&mut self, call: usize) {
        let it = &mut self.calls[call];
        if it.is_whole {
            it.sent = 0;
        }
        self.retry_or_fail(call, Refusal::OriginFailed);
    }

    /// Begins calls, as many as the other end takes.
    fn begin_waiting(&mut self, at: usize, endpoint: &mut Endpoint) -> bool {
        let mut has_begun = false;
        while let Some(shared) = self.connections[at].shared.as_mut() {
            let Some(&call) = shared.waiting.front() else {
                break;
            };
            let it = &mut self.calls[call];
            let (range, _) = it.next_part(QUANTUM_BYTES);
            let ends = it.is_uploaded && range.end == it.request.len();
            let bytes = &it.request[range];
            let Some((id, count)) = endpoint.open_call(bytes, ends) else {
                break;
            };
            has_begun = true;
            it.has_sent_end = ends && count == bytes.len();
            it.sent += count;
            it.remote = Some(id);
            let slot = id.slot as usize;
            if shared.begun.len() <= slot {
                shared.begun.resize(slot + 1, None);
            }
            if let Some((before, _)) = shared.begun[slot].replace((call, id)) {
                shared.arrived.push(before);
            }
            shared.waiting.pop_front();
            shared.nudge(call, it);
            if !it.is_uploaded {
                self.wake_client(call);
            }
        }
        has_begun
    }

    /// Lets each call that has something to do go on, once.
    fn send_busy(&mut self, at: usize, endpoint: &mut Endpoint) -> bool {
        let mut has_moved = false;
        let count = self.shared(at).map_or(0, |shared| shared.busy.len());
        for _ in 0..count {
            let Some(call) = self.shared(at).and_then(|shared| shared.busy.pop_front()) else {
                break;
            };
            let it = &mut self.calls[call];
            it.is_busy = false;
            let Some(id) = it.remote else {
                continue;
            };
            if !it.is_connection_held && (it.has_arrived || !it.arrived.is_empty()) {
                let consumed = self.read_arrived(at, (call, id));
                endpoint.grant(id, consumed);
            }
            let Some(it) = self.call_on(call, id) else {
                continue;
            };
            let has_sent = send(it, id, endpoint);
            has_moved |= has_sent;
            let (is_pending, is_uploaded) = (it.has_unsaid(), it.is_uploaded);
            if is_pending {
                self.nudge(call);
            }
            if has_sent && !is_uploaded {
                self.wake_client(call);
            }
        }
        has_moved
    }
}

/// Sends a part of a request. Returns whether it could.
fn send(it: &mut Call, id: CallId, endpoint: &mut Endpoint) -> bool {
    let mut quantum = QUANTUM_BYTES;
    let mut has_sent = false;
    while it.has_unsaid() && quantum > 0 {
        let (range, is_secret) = it.next_part(quantum);
        let ends = it.is_uploaded && range.end == it.request.len();
        let bytes = &it.request[range];
        let Some(count) = endpoint.send(id, bytes, is_secret, ends) else {
            break;
        };
        has_sent = true;
        it.has_sent_end = ends && count == bytes.len();
        it.sent += count;
        quantum -= count.min(quantum);
        if bytes.is_empty() {
            break;
        }
    }
    has_sent
}

impl Call {
    /// Whether a part of the request, or its end, was not sent.
    fn has_unsaid(&self) -> bool {
        self.unsent() > 0 || self.is_uploaded && !self.has_sent_end
    }

    /// What is to be sent next, and whether that is secret: at most `bytes_max` of the same kind.
    fn next_part(&self, bytes_max: usize) -> (Range<usize>, bool) {
        let (from, end) = (self.sent, self.request.len());
        let is_secret = self.secret.contains(&from);
        let end = match is_secret {
            true => self.secret.end,
            false if self.secret.start > from => self.secret.start.min(end),
            false => end,
        };
        (from..end.min(from + bytes_max), is_secret)
    }
}

fn ending(input: Input<'_>, next: Next) -> Progress {
    Progress {
        consumed: input.bytes.len(),
        messages: 0,
        next,
    }
}
