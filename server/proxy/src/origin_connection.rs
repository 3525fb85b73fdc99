//! A connection to an origin: requests out, responses in, one at a time. [`shared`](crate::shared) has those that carry
//! many at once.

use barewire_http::received::{Found, Framing, ResponseError};
use barewire_http::{REQUEST_LOG, Refusal};
use barewire_service::service::{End, Expect, Id, Input, Next, Progress, Reply};
use barewire_tls::ClientConnection;

use crate::forward::Forwarder;
use crate::response::parse;
use crate::shared::Shared;

/// Stands for a connection that is not opened yet.
pub const NO_ID: Id = Id {
    index: u32::MAX,
    generation: u32::MAX,
};

/// Most interim responses before a final one.
const INTERIMS_MAX: u8 = 16;

/// The state of a connection to an origin.
#[derive(Debug)]
pub struct OriginConnection {
    pub origin: usize,
    pub id: Id,
    pub call: Option<usize>,
    pub is_open: bool,
    pub is_woken: bool,
    is_idle: bool,
    /// Responses received on it.
    served: u32,
    /// It is closed after this response: the origin says so, or it cannot be used again.
    pub closes: bool,
    /// What it is beside that, if it speaks teleport.
    pub shared: Option<Shared>,
    /// What TLS keeps of it, if it is encrypted. Taken out while it is in use.
    pub tls: Option<Box<ClientConnection>>,
}

impl OriginConnection {
    pub fn new(origin: usize, shared: Option<Shared>, tls: Option<ClientConnection>) -> Self {
        OriginConnection {
            origin,
            id: NO_ID,
            call: None,
            is_open: false,
            is_woken: false,
            is_idle: false,
            served: 0,
            closes: false,
            shared,
            tls: tls.map(Box::new),
        }
    }

    /// Whether others share it, and it is not open or has brought nothing since `ns`.
    pub fn is_silent_since(&self, ns: u64) -> bool {
        let shared = self.shared.as_ref();
        shared.is_some_and(|shared| !self.is_open || shared.heard_ns < ns)
    }
}

/// The outcome of reading.
pub enum Read {
    /// More bytes are needed.
    Wait,
    /// The client has to take bytes first.
    Held,
    /// The response is complete.
    Complete,
}

impl Forwarder {
    /// The connection is being opened.
    pub fn connection_opens(&mut self, at: usize, id: Id) {
        self.connections[at].id = id;
    }

    /// Bytes have arrived on a connection to an origin, or it was woken.
    pub fn on_connection(
        &mut self,
        at: usize,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let Some(mut tls) = self.connections[at].tls.take() else {
            return self.on_plain(at, input, reply);
        };
        let progress = self.on_secure(at, &mut tls, input, reply);
        self.connections[at].tls = Some(tls);
        progress
    }

    /// The same for what is within TLS, if that is spoken.
    pub fn on_plain(&mut self, at: usize, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let connection = &mut self.connections[at];
        connection.is_woken = false;
        if !connection.is_open {
            self.connection_is_open(at);
        }
        if self.connections[at].shared.is_some() {
            return self.on_shared(at, input, reply);
        }
        let Some(call) = self.connections[at].call else {
            return self.keep(at, input);
        };
        let connection = &mut self.connections[at];
        connection.is_idle = false;
        let has_input = input.ended || !input.bytes.is_empty();
        if connection.served > 0 && !self.calls[call].was_sent() && has_input {
            // The origin closed it before the request was sent.
            return turn(input.bytes.len(), Next::Abort);
        }
        self.send(call, reply);
        let mut consumed = 0;
        match self.read(at, call, input, &mut consumed) {
            Err(error) => {
                self.refuse_response(at, call, error);
                turn(input.bytes.len(), Next::Abort)
            }
            Ok(Read::Complete) => self.complete(at, call, input, consumed),
            Ok(_) if self.calls[call].unsent() > 0 => turn(consumed, Next::Send),
            Ok(Read::Held) => {
                self.calls[call].is_connection_held = true;
                turn(consumed, Next::Wait)
            }
            Ok(Read::Wait) => turn(consumed, Next::Receive(Expect::Anything)),
        }
    }

    fn connection_is_open(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        connection.is_open = true;
        self.origins[connection.origin].counters.opened.increment();
        let waiting = connection.shared.as_ref().map(Shared::calls);
        for call in waiting.into_iter().flatten().chain(connection.call) {
            let timeout_ns = u64::from(self.pool(call).response_timeout_ms) * 1_000_000;
            self.calls[call].response_by_ns = self.now_ns + timeout_ns;
        }
    }

    /// No request is on the connection: keeps it for the next one, unless the origin has sent something.
    fn keep(&mut self, at: usize, input: Input<'_>) -> Progress {
        let connection = &mut self.connections[at];
        if self.draining || connection.closes || input.ended || !input.bytes.is_empty() {
            self.unlist(at);
            return turn(input.bytes.len(), Next::Close);
        }
        if !connection.is_idle {
            connection.is_idle = true;
            self.origins[connection.origin].idle.push(at);
        }
        turn(0, Next::Receive(Expect::Message))
    }

    /// A response is not one that can be passed on: blames its origin, and answers the client.
    pub fn refuse_response(&mut self, at: usize, call: usize, error: ResponseError) {
        let origin = self.connections[at].origin;
        let address = self.origins[origin].address;
        tracing::debug!(target: REQUEST_LOG, origin = %address, "the response is refused: {error}");
        self.origins[origin].counters.failed_malformed.increment();
        self.blame(origin);
        self.leave_connection(call);
        self.fail(call, Refusal::OriginMalformed);
    }

    /// Removes it from those that can be used.
    fn unlist(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        connection.is_idle = false;
        let origin = &mut self.origins[connection.origin];
        origin.idle.retain(|&idle| idle != at);
        origin.shared.retain(|&shared| shared != at);
    }

    /// Writes as much of the request as fits.
    fn send(&mut self, call: usize, reply: &mut Reply<'_>) {
        let it = &mut self.calls[call];
        let count = it.unsent().min(reply.remaining());
        if count == 0 {
            return;
        }
        let fits = reply.put(&it.request[it.sent..it.sent + count]);
        debug_assert!(fits);
        it.sent += count;
        if !it.is_uploaded {
            self.wake_client(call);
        }
    }

    /// Reads on in the response of a call, as far as its client has room for it.
    pub fn read(
        &mut self,
        at: usize,
        call: usize,
        input: Input<'_>,
        consumed: &mut usize,
    ) -> Result<Read, ResponseError> {
        let response_bytes_max = self.table.limits.response_buffer_bytes;
        let object_bytes_max = self.table.cache.map_or(0, |cache| cache.object_bytes_max);
        let mut is_news = false;
        let read = loop {
            let bytes = &input.bytes[*consumed..];
            let (connection, it) = (&mut self.connections[at], &mut self.calls[call]);
            let room = match it.is_filling {
                true => object_bytes_max.saturating_sub(it.response.len()),
                // What a stored response stands for is thrown away.
                false if it.stored.is_some() => usize::MAX,
                false => response_bytes_max.saturating_sub(it.untaken()),
            };
            let Some(content) = &mut it.content else {
                if bytes.is_empty() {
                    break Read::Wait;
                }
                let Some((head, len)) = parse(bytes, &mut it.response)? else {
                    match input.full && *consumed == 0 {
                        true => return Err(ResponseError::HeadTooLong),
                        false => break Read::Wait,
                    }
                };
                *consumed += len;
                if head.is_interim() {
                    it.interims += 1;
                    if it.interims > INTERIMS_MAX {
                        return Err(ResponseError::TooManyInterims);
                    }
                    continue;
                }
                it.lines_bytes = it.response.len();
                if it.lines_bytes > response_bytes_max {
                    return Err(ResponseError::HeadTooLong);
                }
                it.head = Some(head);
                // It says nothing about a connection that others share.
                connection.closes |= head.closes(it.to_head) && connection.shared.is_none();
                it.content = Some(head.content(it.to_head));
                is_news = true;
                let origin = &mut self.origins[connection.origin];
                let is_5xx = head.status >= 500;
                origin.counters.responses_5xx.add(u64::from(is_5xx));
                origin.succeeded();
                if it.fetch.is_some() {
                    self.cache_takes_head(call);
                }
                continue;
            };
            if room == 0 && !matches!(content, Framing::Length(0)) {
                if it.is_filling {
                    self.fill_is_too_large(call);
                    continue;
                }
                break Read::Held;
            }
            let (count, found) = content.advance(bytes, room, input.ended)?;
            *consumed += count;
            match found {
                Found::More => break Read::Wait,
                Found::End => break Read::Complete,
                Found::Data(_) if it.stored.is_some() => {}
                Found::Data(len) => {
                    if it.is_head_taken && it.taken >= it.response.len() / 2 && !it.is_filling {
                        it.response.drain(..it.taken);
                        it.taken = 0;
                    }
                    let end = *consumed;
                    it.response.extend_from_slice(&input.bytes[end - len..end]);
                    is_news = true;
                }
            }
        };
        match read {
            // The client is woken when the response is complete.
            Read::Complete if self.calls[call].is_filling => self.fill_is_complete(call),
            Read::Complete => {}
            _ if is_news => self.wake_client(call),
            _ => {}
        }
        Ok(read)
    }

    fn complete(&mut self, at: usize, call: usize, input: Input<'_>, consumed: usize) -> Progress {
        let it = &mut self.calls[call];
        it.is_complete = true;
        let is_over = it.is_uploaded && it.unsent() == 0;
        self.leave_connection(call);
        self.wake_client(call);
        let connection = &mut self.connections[at];
        connection.served += 1;
        connection.closes |= !is_over;
        let rest = Input {
            bytes: &input.bytes[consumed..],
            ..input
        };
        let kept = self.keep(at, rest);
        Progress {
            consumed: consumed + kept.consumed,
            messages: 1,
            next: kept.next,
        }
    }

    /// A connection to an origin is over.
    pub fn connection_ends(&mut self, at: usize, end: End) {
        self.unlist(at);
        let calls: Vec<_> = match &self.connections[at].shared {
            Some(shared) => shared.calls(),
            None => self.connections[at].call.into_iter().collect(),
        };
        for &call in &calls {
            self.leave_connection(call);
        }
        let connection = self.connections.remove(at);
        let origin = &mut self.origins[connection.origin];
        origin.connections -= 1;
        origin.counters.connections.set(origin.connections.into());
        if connection.shared.is_some() {
            self.publish_teleport();
        }
        let is_ours = matches!(end, End::NoConnection | End::NoPort);
        if let (false, Some(&call)) = (is_ours, calls.first())
            && !self.was_stale(&connection, call)
        {
            let counters = &self.origins[connection.origin].counters;
            match connection.is_open {
                true => counters.failed_ended.increment(),
                false => counters.failed_connect.increment(),
            }
            self.blame(connection.origin);
        }
        for call in calls {
            match is_ours {
                true => self.fail(call, Refusal::OriginsBusy),
                false => self.retry_or_fail(call, Refusal::OriginFailed),
            }
        }
    }

    /// A connection that was kept may end at any time; this is not a failure of the origin. One that this end closes has
    /// been counted as one, if it is.
    fn was_stale(&self, connection: &OriginConnection, call: usize) -> bool {
        let call = &self.calls[call];
        match &connection.shared {
            None => connection.served > 0 && call.head.is_none(),
            Some(shared) => connection.closes || shared.is_ready && !call.was_sent(),
        }
    }
}

fn turn(consumed: usize, next: Next) -> Progress {
    Progress {
        consumed,
        messages: 0,
        next,
    }
}
