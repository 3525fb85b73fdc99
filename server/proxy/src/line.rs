//! A connection to an origin: requests out, responses in, one at a time.

use barewire_http::received::{Found, Framing, ResponseError};
use barewire_http::{REQUEST_LOG, Refusal};
use barewire_service::service::{End, Expect, Id, Input, Next, Progress, Reply};

use crate::forward::Forwarder;
use crate::response::parse;

/// Stands for a connection that is not opened yet.
pub const NO_ID: Id = Id {
    index: u32::MAX,
    generation: u32::MAX,
};

/// Most interim responses before a final one.
const INTERIMS_MAX: u8 = 16;

/// The state of a connection to an origin.
#[derive(Debug)]
pub struct Line {
    pub origin: usize,
    pub id: Id,
    pub call: Option<usize>,
    pub is_open: bool,
    pub is_woken: bool,
    is_idle: bool,
    /// Responses received on it.
    served: u32,
    interims: u8,
    /// It is closed after this response: the origin says so, or it cannot be used again.
    pub closes: bool,
    /// The content that is being received; `None`: a head is next.
    content: Option<Framing>,
}

impl Line {
    pub fn new(origin: usize) -> Self {
        Line {
            origin,
            id: NO_ID,
            call: None,
            is_open: false,
            is_woken: false,
            is_idle: false,
            served: 0,
            interims: 0,
            closes: false,
            content: None,
        }
    }
}

/// The outcome of reading.
enum Read {
    /// More bytes are needed.
    Wait,
    /// The client has to take bytes first.
    Held,
    /// The response is complete.
    Complete,
}

impl Forwarder {
    /// The connection is being opened.
    pub fn line_opens(&mut self, at: usize, id: Id) {
        self.lines[at].id = id;
    }

    /// Bytes have arrived on a connection to an origin, or it was woken.
    pub fn on_line(&mut self, at: usize, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let line = &mut self.lines[at];
        line.is_woken = false;
        if !line.is_open {
            self.line_is_open(at);
        }
        let Some(call) = self.lines[at].call else {
            return self.keep(at, input);
        };
        let line = &mut self.lines[at];
        line.is_idle = false;
        if line.served > 0 && self.calls[call].sent == 0 && (input.ended || !input.bytes.is_empty())
        {
            // The origin closed it before the request was sent.
            return turn(input.bytes.len(), Next::Abort);
        }
        self.send(call, reply);
        let mut consumed = 0;
        match self.read(at, call, input, &mut consumed) {
            Err(error) => {
                let origin = self.lines[at].origin;
                let address = self.origins[origin].address;
                tracing::debug!(target: REQUEST_LOG, origin = %address, "the response is refused: {error}");
                self.origins[origin].counters.failed_malformed.increment();
                self.blame(origin);
                self.leave_line(call);
                self.fail(call, Refusal::OriginMalformed);
                turn(input.bytes.len(), Next::Abort)
            }
            Ok(Read::Complete) => self.complete(at, call, input, consumed),
            Ok(_) if self.calls[call].unsent() > 0 => turn(consumed, Next::Send),
            Ok(Read::Held) => {
                self.calls[call].is_line_held = true;
                turn(consumed, Next::Wait)
            }
            Ok(Read::Wait) => turn(consumed, Next::Receive(Expect::Anything)),
        }
    }

    fn line_is_open(&mut self, at: usize) {
        let line = &mut self.lines[at];
        line.is_open = true;
        self.origins[line.origin].counters.opened.increment();
        if let Some(call) = line.call {
            let timeout_ns = u64::from(self.pool(call).response_timeout_ms) * 1_000_000;
            self.calls[call].response_by_ns = self.now_ns + timeout_ns;
        }
    }

    /// No request is on the connection: keeps it for the next one, unless the origin has sent something.
    fn keep(&mut self, at: usize, input: Input<'_>) -> Progress {
        let line = &mut self.lines[at];
        if self.draining || line.closes || input.ended || !input.bytes.is_empty() {
            self.unlist(at);
            return turn(input.bytes.len(), Next::Close);
        }
        if !line.is_idle {
            line.is_idle = true;
            self.origins[line.origin].idle.push(at);
        }
        turn(0, Next::Receive(Expect::Message))
    }

    /// Removes it from those that can be used.
    fn unlist(&mut self, at: usize) {
        let line = &mut self.lines[at];
        line.is_idle = false;
        self.origins[line.origin].idle.retain(|&idle| idle != at);
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

    fn read(
        &mut self,
        at: usize,
        call: usize,
        input: Input<'_>,
        consumed: &mut usize,
    ) -> Result<Read, ResponseError> {
        let response_bytes_max = self.table.limits.response_buffer_bytes;
        let mut is_news = false;
        let read = loop {
            let bytes = &input.bytes[*consumed..];
            let (line, it) = (&mut self.lines[at], &mut self.calls[call]);
            let Some(content) = &mut line.content else {
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
                    line.interims += 1;
                    if line.interims > INTERIMS_MAX {
                        return Err(ResponseError::TooManyInterims);
                    }
                    continue;
                }
                it.lines_bytes = it.response.len();
                if it.lines_bytes > response_bytes_max {
                    return Err(ResponseError::HeadTooLong);
                }
                it.head = Some(head);
                line.interims = 0;
                line.closes |= head.closes(it.to_head);
                line.content = Some(head.content(it.to_head));
                is_news = true;
                let origin = &mut self.origins[line.origin];
                let is_5xx = head.status >= 500;
                origin.counters.responses_5xx.add(u64::from(is_5xx));
                origin.succeeded();
                continue;
            };
            let room = response_bytes_max.saturating_sub(it.untaken());
            if room == 0 && !matches!(content, Framing::Length(0)) {
                break Read::Held;
            }
            let (count, found) = content.advance(bytes, room, input.ended)?;
            *consumed += count;
            match found {
                Found::More => break Read::Wait,
                Found::End => break Read::Complete,
                Found::Data(len) => {
                    if it.is_head_taken && it.taken >= it.response.len() / 2 {
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
        self.leave_line(call);
        self.wake_client(call);
        let line = &mut self.lines[at];
        line.content = None;
        line.served += 1;
        line.closes |= !is_over;
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
    pub fn line_ends(&mut self, at: usize, end: End) {
        self.unlist(at);
        let line = self.lines.remove(at);
        let origin = &mut self.origins[line.origin];
        origin.lines -= 1;
        origin.counters.connections.set(origin.lines.into());
        let Some(call) = line.call else {
            return;
        };
        self.calls[call].line = None;
        origin.outstanding -= 1;
        origin.counters.outstanding.set(origin.outstanding.into());
        let is_ours = matches!(end, End::NoConnection | End::NoPort);
        // A connection that was kept may end at any time; this is not a failure of the origin.
        let was_stale = line.served > 0 && self.calls[call].head.is_none();
        match line.is_open {
            _ if is_ours => return self.fail(call, Refusal::OriginsBusy),
            _ if was_stale => {}
            true => {
                origin.counters.failed_ended.increment();
                self.blame(line.origin);
            }
            false => {
                origin.counters.failed_connect.increment();
                self.blame(line.origin);
            }
        }
        self.retry_or_fail(call, Refusal::OriginFailed);
    }
}

fn turn(consumed: usize, next: Next) -> Progress {
    Progress {
        consumed,
        messages: 0,
        next,
    }
}
