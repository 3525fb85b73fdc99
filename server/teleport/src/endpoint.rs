//! One end of a connection: a state machine without I/O, for the end that calls and the one that answers.

use std::sync::Arc;

use crate::batch::{Batch, Outbox};
use crate::block::{CONTENT_BYTES_MAX, HEADER_BYTES, Header, PACKED_BYTES_MAX};
use crate::calls::{CallId, Calls};
use crate::compression::{Compression, Packer, Unpacker};
use crate::counters::TeleportCounters;
use crate::fault::{Fault, Reason};
use crate::frame::Frame;
use crate::hello::Hello;
use crate::limits::Limits;

/// Which end it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It opened the connection, and opens calls.
    Client,
    /// It answers them.
    Server,
}

/// What the other end said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Its hello: from now on, calls can be opened.
    Ready,
    /// Bytes of a message.
    Data {
        /// Of which call; at a server perhaps a new one.
        call: CallId,
        /// The next bytes, perhaps none.
        bytes: &'a [u8],
        /// Nothing follows them.
        is_last: bool,
    },
    /// More of a call can be sent than before.
    Credit(CallId),
    /// It gives the call up, which is over.
    Reset(CallId, Reason),
    /// It ignores, and has ignored, calls with a number higher than this; others can still be answered.
    GoAway(u32),
    /// It answered a ping.
    Pong,
}

/// One end of a connection.
///
/// Whoever has it shows it what arrives ([`receive`](Endpoint::receive)), takes what that says
/// ([`next_event`](Endpoint::next_event)), says something ([`send`](Endpoint::send)) and, at the end of a turn, has it all
/// written ([`write`](Endpoint::write)).
pub struct Endpoint {
    side: Side,
    limits: Limits,
    counters: Arc<TeleportCounters>,
    /// What the other end said first, and how blocks are compressed.
    agreed: Option<Agreed>,
    /// A beginning of a block.
    inbox: Vec<u8>,
    /// The block that is being read, from `read` on.
    content: Box<[u8]>,
    read: usize,
    end: usize,
    is_ready_told: bool,
    calls: Calls,
    batch: Batch,
    outbox: Outbox,
    /// The highest number that was opened.
    last_call: u32,
    /// Bytes of blocks that were sealed and not acknowledged.
    in_flight: u64,
    /// Bytes of blocks that were read and not acknowledged.
    unacknowledged: u32,
    ping: Option<[u8; 8]>,
    is_ping_unanswered: bool,
    pong: Option<[u8; 8]>,
    goes_away: Going,
    /// The last call that the other end answers.
    peer_goes_away: Option<u32>,
}

struct Agreed {
    hello: Hello,
    packer: Packer,
    unpacker: Unpacker,
}

/// What a frame says, with the place of its bytes.
enum Said {
    Data {
        call: CallId,
        at: usize,
        count: usize,
        is_last: bool,
    },
    Other(Event<'static>),
}

/// Whether calls are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    No,
    /// From now on, which is still to be said.
    Unsaid,
    Said,
}

impl Endpoint {
    /// One end of a connection that has just been opened. A client says hello at once, a server when it was said to it.
    pub fn new(side: Side, limits: Limits, counters: Arc<TeleportCounters>) -> Self {
        let calls_max = limits.calls_max.min(Limits::CALLS_MAX);
        let limits = Limits {
            calls_max: match side {
                Side::Client => 0,
                Side::Server => calls_max,
            },
            ..limits
        };
        let mut outbox = Outbox::new();
        if side == Side::Client {
            outbox.put(&Hello::new(&limits).bytes());
        }
        Endpoint {
            side,
            limits,
            counters,
            agreed: None,
            inbox: Vec::with_capacity(HEADER_BYTES + PACKED_BYTES_MAX),
            content: vec![0; CONTENT_BYTES_MAX + 1].into(),
            read: 0,
            end: 0,
            is_ready_told: false,
            calls: Calls::new(usize::from(Limits::CALLS_MAX.min(calls_max.max(1)))),
            batch: Batch::new(),
            outbox,
            last_call: 0,
            in_flight: 0,
            unacknowledged: 0,
            ping: None,
            is_ping_unanswered: false,
            pong: None,
            goes_away: Going::No,
            peer_goes_away: None,
        }
    }

    /// Whether both ends have said hello.
    pub fn is_ready(&self) -> bool {
        self.agreed.is_some()
    }

    /// Whether no call is open.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether the other end will answer no further call.
    pub fn is_closing(&self) -> bool {
        self.peer_goes_away.is_some()
    }

    /// Calls that are open.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Takes bytes that have arrived, up to the end of a block, and returns how many. The events of that block are to be
    /// taken before the next call.
    ///
    /// # Errors
    ///
    /// If the other end does not speak the protocol: see [`Endpoint::fail`].
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        debug_assert_eq!(self.read, self.end, "the events of a block were not taken");
        if self.agreed.is_none() {
            return self.receive_hello(bytes);
        }
        if self.inbox.is_empty()
            && let Some(header) = Header::parse(bytes)?
            && let Some(body) = bytes.get(HEADER_BYTES..HEADER_BYTES + header.len)
        {
            self.open(header, body)?;
            return Ok(HEADER_BYTES + header.len);
        }
        let mut taken = self.gather(bytes, HEADER_BYTES);
        let Some(header) = Header::parse(&self.inbox)? else {
            return Ok(taken);
        };
        let len = HEADER_BYTES + header.len;
        taken += self.gather(&bytes[taken..], len);
        if self.inbox.len() == len {
            let inbox = std::mem::take(&mut self.inbox);
            let opened = self.open(header, &inbox[HEADER_BYTES..]);
            self.inbox = inbox;
            self.inbox.clear();
            opened?;
        }
        Ok(taken)
    }

    /// Takes as many of `bytes` as are missing for `len` of them.
    fn gather(&mut self, bytes: &[u8], len: usize) -> usize {
        let count = len.saturating_sub(self.inbox.len()).min(bytes.len());
        self.inbox.extend_from_slice(&bytes[..count]);
        count
    }

    fn receive_hello(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let before = self.inbox.len();
        // A hello is at most 255 bytes long.
        self.gather(bytes, 255);
        let Some((theirs, len)) = Hello::parse(&self.inbox)? else {
            return Ok(bytes.len());
        };
        let taken = len - before;
        self.inbox.clear();
        let ours = Hello::new(&self.limits);
        if self.side == Side::Server {
            self.outbox.put(&ours.bytes());
        }
        let compression = ours.agree(&theirs)?;
        self.agreed = Some(Agreed {
            hello: theirs,
            packer: Packer::new(compression, self.limits.zstd_level)?,
            unpacker: Unpacker::new(compression)?,
        });
        if self.side == Side::Client {
            let calls_max = theirs.calls_max.clamp(1, Limits::CALLS_MAX);
            self.calls = Calls::new(calls_max.into());
        }
        Ok(taken)
    }

    fn open(&mut self, header: Header, body: &[u8]) -> Result<(), Fault> {
        let Some(agreed) = &mut self.agreed else {
            return Err(Fault::Block);
        };
        self.end = match header.is_packed {
            true => agreed.unpacker.unpack(body, &mut self.content)?,
            false => {
                self.content[..body.len()].copy_from_slice(body);
                body.len()
            }
        };
        self.read = 0;
        let wire_bytes = HEADER_BYTES + header.len;
        self.unacknowledged = self.unacknowledged.saturating_add(wire_bytes as u32);
        let counters = &self.counters;
        counters.blocks_received.increment();
        counters.wire_bytes_received.add(wire_bytes as u64);
        counters.content_bytes_received.add(self.end as u64);
        Ok(())
    }

    /// What the other end said next, in what has been received; `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// If the other end broke the protocol: see [`Endpoint::fail`].
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Fault> {
        if self.is_ready() && !self.is_ready_told {
            self.is_ready_told = true;
            return Ok(Some(Event::Ready));
        }
        while self.read < self.end {
            match self.read_frame()? {
                None => {}
                Some(Said::Other(event)) => return Ok(Some(event)),
                Some(Said::Data {
                    call,
                    at,
                    count,
                    is_last,
                }) => {
                    let bytes = &self.content[at..at + count];
                    return Ok(Some(Event::Data {
                        call,
                        bytes,
                        is_last,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Reads the next frame of the block; `None` if nobody has to be told.
    fn read_frame(&mut self) -> Result<Option<Said>, Fault> {
        let payload_at = self.read + crate::frame::HEADER_BYTES;
        let (frame, len) = Frame::parse(&self.content[self.read..self.end])?;
        self.read += len;
        Ok(match frame {
            Frame::Data { call, bytes, ends } => {
                let count = bytes.len();
                let call = self.on_data(call, count, ends)?;
                call.map(|call| Said::Data {
                    call,
                    at: payload_at,
                    count,
                    is_last: ends,
                })
            }
            Frame::Credit { call: 0, bytes } => {
                self.in_flight = self.in_flight.saturating_sub(bytes.into());
                None
            }
            Frame::Credit { call, bytes } => {
                let call = self.on_credit(call, bytes)?;
                call.map(|call| Said::Other(Event::Credit(call)))
            }
            Frame::Reset { call, reason } => {
                let call = self.on_reset(call)?;
                call.map(|call| Said::Other(Event::Reset(call, reason)))
            }
            Frame::Ping { payload, is_answer } => {
                self.on_ping(payload, is_answer)?.map(Said::Other)
            }
            Frame::GoAway { last_call } if self.side == Side::Client => {
                self.peer_goes_away = Some(last_call);
                Some(Said::Other(Event::GoAway(last_call)))
            }
            // Nobody calls a client.
            Frame::GoAway { .. } => None,
        })
    }

    /// Bytes of a call, which it may begin. `None` if nobody waits for them any more.
    fn on_data(&mut self, number: u32, count: usize, ends: bool) -> Result<Option<CallId>, Fault> {
        if self.calls.find(number).is_none() {
            if number <= self.last_call {
                return Ok(None);
            }
            match (self.side, self.goes_away) {
                (Side::Client, _) => return Err(Fault::Call),
                (Side::Server, Going::Said) => return Ok(None),
                (Side::Server, _) => self.accept(number)?,
            }
        }
        let Some((id, call)) = self.calls.find(number) else {
            return Ok(None);
        };
        let count = u32::try_from(count).map_err(|_| Fault::Credit)?;
        if call.has_received_end || count > call.receivable {
            return Err(Fault::Credit);
        }
        call.receivable -= count;
        call.has_received_end = ends;
        if call.reset.is_some() {
            return Ok(None);
        }
        if ends && call.has_sent_end {
            self.calls.remove(id);
        }
        Ok(Some(id))
    }

    fn accept(&mut self, number: u32) -> Result<(), Fault> {
        if self.calls.len() >= usize::from(self.limits.calls_max) {
            return Err(Fault::Calls);
        }
        self.last_call = number;
        let sendable = self.peer().map_or(0, |peer| peer.call_credit_bytes);
        let receivable = self.limits.call_credit_bytes;
        self.calls.insert(number, sendable, receivable);
        self.counters.calls.increment();
        Ok(())
    }

    fn on_credit(&mut self, number: u32, bytes: u32) -> Result<Option<CallId>, Fault> {
        if number > self.last_call && self.goes_away != Going::Said {
            return Err(Fault::Call);
        }
        let Some((id, call)) = self.calls.find(number) else {
            return Ok(None);
        };
        call.sendable = call.sendable.checked_add(bytes).ok_or(Fault::Credit)?;
        Ok(call.reset.is_none().then_some(id))
    }

    fn on_reset(&mut self, number: u32) -> Result<Option<CallId>, Fault> {
        if number > self.last_call && self.goes_away != Going::Said {
            return Err(Fault::Call);
        }
        let Some((id, call)) = self.calls.find(number) else {
            return Ok(None);
        };
        let is_news = call.reset.is_none();
        self.counters.resets_received.increment();
        self.calls.remove(id);
        Ok(is_news.then_some(id))
    }

    fn on_ping(
        &mut self,
        payload: [u8; 8],
        is_answer: bool,
    ) -> Result<Option<Event<'static>>, Fault> {
        if is_answer {
            let was_asked = std::mem::take(&mut self.is_ping_unanswered);
            return Ok(was_asked.then_some(Event::Pong));
        }
        match self.pong.replace(payload) {
            None => Ok(None),
            Some(_) => Err(Fault::Ping),
        }
    }

    fn peer(&self) -> Option<&Hello> {
        self.agreed.as_ref().map(|agreed| &agreed.hello)
    }

    /// Opens a call with the first bytes of its request, at least one, as [`Endpoint::send`] takes them. Numbers rise in
    /// the order in which calls are begun, so a call cannot be opened without bytes, and those are not secret: they would
    /// lie behind calls that were opened later. Returns how many were taken; `None` if the other end takes no call now, or
    /// none any more, or nothing can be sent now.
    pub fn open_call(&mut self, bytes: &[u8], ends: bool) -> Option<(CallId, usize)> {
        let peer = self.peer()?;
        let (calls_max, sendable) = (peer.calls_max, peer.call_credit_bytes);
        let is_full = self.calls.len() >= usize::from(calls_max.min(Limits::CALLS_MAX));
        let is_blocked = self.is_blocked() || self.batch.room() <= crate::frame::HEADER_BYTES;
        let is_closed = self.side == Side::Server || self.is_closing() || bytes.is_empty();
        if is_full || is_blocked || is_closed {
            return None;
        }
        self.last_call = self.last_call.checked_add(1)?;
        let receivable = self.limits.call_credit_bytes;
        self.counters.calls.increment();
        let id = self.calls.insert(self.last_call, sendable, receivable);
        let count = self.send(id, bytes, false, ends)?;
        Some((id, count))
    }

    /// Whether as much is on the way as may be.
    fn is_blocked(&self) -> bool {
        let window = self.peer().map_or(0, |peer| peer.window_bytes);
        self.in_flight >= u64::from(window)
    }

    /// Whether few numbers are left: a connection has 2^32 - 1 calls, and it is time for another one.
    pub fn is_nearly_used_up(&self) -> bool {
        const LEFT: u32 = 1 << 16;
        self.last_call > u32::MAX - LEFT
    }

    /// Takes bytes of a message into the batch of this turn, and behind the last of them its end if it `ends`. Those that
    /// are secret go uncompressed.
    ///
    /// Returns how many were taken, with the end if that is all of them; `None` if none can be taken now, because the call
    /// has no credit, the connection no window, or the batch no room. A call that is over takes all and sends nothing.
    pub fn send(&mut self, id: CallId, bytes: &[u8], is_secret: bool, ends: bool) -> Option<usize> {
        let is_blocked = self.is_blocked();
        let Some(call) = self.calls.get(id).filter(|call| !call.has_sent_end) else {
            return Some(bytes.len());
        };
        if is_blocked {
            return None;
        }
        let credit = call.sendable as usize;
        let batch = &mut self.batch;
        let count = batch.put_data(&mut call.place, id.number, bytes, credit, is_secret, ends)?;
        call.sendable -= count as u32;
        if ends && count == bytes.len() {
            call.has_sent_end = true;
            if call.has_received_end {
                self.calls.remove(id);
            }
        }
        Some(count)
    }

    /// So many bytes of the call were taken, and as many more may come.
    pub fn grant(&mut self, id: CallId, count: usize) {
        let worth_saying = self.limits.call_credit_bytes / 2;
        let Some(call) = self.calls.get(id).filter(|call| !call.has_received_end) else {
            return;
        };
        call.owed = call.owed.saturating_add(count as u32);
        if call.owed >= worth_saying {
            self.calls.mark(id.slot);
        }
    }

    /// Gives the call up.
    pub fn reset(&mut self, id: CallId, reason: Reason) {
        if let Some(call) = self.calls.get(id) {
            call.reset = Some(reason);
            self.calls.mark(id.slot);
            self.counters.resets_sent.increment();
        }
    }

    /// Asks the other end whether it is there, unless it has still to answer.
    pub fn ping(&mut self, payload: [u8; 8]) {
        if !self.is_ping_unanswered {
            self.is_ping_unanswered = true;
            self.ping = Some(payload);
        }
    }

    /// Takes no further calls: those that arrive are ignored, and the other end may send them elsewhere.
    pub fn go_away(&mut self) {
        if self.goes_away == Going::No {
            self.goes_away = Going::Unsaid;
        }
    }

    /// The connection is at its end because of `fault`: gives all calls up and says so. What is written after this is the
    /// last.
    pub fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::NotTeleport | Fault::Version { .. } | Fault::Hello => {
                self.counters.failed_hello.increment();
            }
            _ => self.counters.failed_protocol.increment(),
        }
        tracing::debug!("teleport: {fault}");
        (self.read, self.end) = (0, 0);
        self.go_away();
    }

    /// Whether there is something to be written.
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty() || !self.batch.is_empty() || self.has_control()
    }

    fn has_control(&self) -> bool {
        self.is_ready()
            && (self.calls.has_news()
                || self.ping.is_some()
                || self.pong.is_some()
                || self.goes_away == Going::Unsaid
                || self.unacknowledged >= self.limits.window_bytes / 4)
    }

    /// Writes what was said in this turn to the front of `space`, as far as there is room, and returns how much that was.
    ///
    /// # Errors
    ///
    /// If it cannot be compressed.
    pub fn write(&mut self, space: &mut [u8]) -> Result<usize, Fault> {
        let mut written = 0;
        loop {
            written += self.outbox.take(&mut space[written..]);
            if !self.outbox.is_empty() {
                return Ok(written);
            }
            if self.has_control() {
                self.put_control();
            }
            let Some(agreed) = self.agreed.as_mut().filter(|_| !self.batch.is_empty()) else {
                return Ok(written);
            };
            let content_bytes = self.batch.seal(&mut agreed.packer, &mut self.outbox)?;
            self.in_flight += self.outbox.len() as u64;
            let counters = &self.counters;
            counters.batches_sent.increment();
            counters.content_bytes_sent.add(content_bytes as u64);
            counters.wire_bytes_sent.add(self.outbox.len() as u64);
        }
    }

    /// Says what is to be said beside DATA, as far as there is room.
    fn put_control(&mut self) {
        if let Some(payload) = self.pong
            && self.batch.put(&Frame::Ping {
                payload,
                is_answer: true,
            })
        {
            self.pong = None;
        }
        if let Some(payload) = self.ping
            && self.batch.put(&Frame::Ping {
                payload,
                is_answer: false,
            })
        {
            self.ping = None;
        }
        if self.unacknowledged >= self.limits.window_bytes / 4
            && self.batch.put(&Frame::Credit {
                call: 0,
                bytes: self.unacknowledged,
            })
        {
            self.unacknowledged = 0;
        }
        while let Some(news) = self.calls.next_news() {
            if let Some(id) = news
                && !self.put_news(id)
            {
                self.calls.mark(id.slot);
                break;
            }
        }
        let last_call = self.last_call;
        if self.goes_away == Going::Unsaid && self.batch.put(&Frame::GoAway { last_call }) {
            self.goes_away = Going::Said;
        }
    }

    /// Says what there is to say of a call; false if there is no room.
    fn put_news(&mut self, id: CallId) -> bool {
        let CallId { slot, number } = id;
        let Some(call) = self.calls.at(slot) else {
            return true;
        };
        if let Some(reason) = call.reset {
            let fits = self.batch.put(&Frame::Reset {
                call: number,
                reason,
            });
            if fits {
                self.calls.remove(id);
            }
            return fits;
        }
        if call.owed == 0 || call.has_received_end {
            return true;
        }
        let fits = self.batch.put(&Frame::Credit {
            call: number,
            bytes: call.owed,
        });
        if fits {
            call.receivable = call.receivable.saturating_add(call.owed);
            call.owed = 0;
        }
        fits
    }

    /// How blocks are compressed; `None` before the other end has said hello.
    pub fn compression(&self) -> Option<Compression> {
        let theirs = self.peer()?;
        Hello::new(&self.limits).agree(theirs).ok()
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("side", &self.side)
            .field("calls", &self.calls.len())
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
