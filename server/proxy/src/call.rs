//! A request on its way, and the response on its way back.

use std::ops::Range;
use std::rc::Rc;

use barewire_http::Refusal;
use barewire_http::received::{Framing, ResponseHead};
use barewire_service::service::Id;
use barewire_teleport::CallId;

use crate::cache::{Fetch, Stored};

/// What a call is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// The client of this connection.
    Client(Id),
    /// A check of an origin.
    Check,
    /// The cache, whose clients have their answers or wait for it.
    Cache,
}

/// A call in progress. It takes the buffers of an earlier call, so that most calls allocate nothing.
#[derive(Debug)]
pub struct Call {
    pub by: For,
    /// `usize::MAX` if it is none of the table.
    pub route: usize,
    pub pool: usize,
    pub origin: usize,
    /// The connection to the origin that it uses.
    pub connection: Option<usize>,
    /// The hash by which an origin is chosen.
    pub key: u64,
    pub to_head: bool,
    pub is_idempotent: bool,
    pub retries: u8,

    /// The request as it is sent to the origin.
    pub request: Vec<u8>,
    /// Bytes at its front that were sent.
    pub sent: usize,
    /// The request is in `request` from its first byte on.
    pub is_whole: bool,
    /// The client has sent all of it.
    pub is_uploaded: bool,
    pub is_chunked: bool,
    /// Where the fields with credentials are in `request`, if it goes by teleport.
    pub secret: Range<usize>,
    /// What a teleport connection calls it, once it was begun there.
    pub remote: Option<CallId>,
    pub has_sent_end: bool,
    /// It is in the list of those that have something to do.
    pub is_busy: bool,

    /// What arrived by teleport, and was not read.
    pub arrived: Vec<u8>,
    /// Nothing follows that.
    pub has_arrived: bool,
    /// Interim responses before the one that is final.
    pub interims: u8,
    /// The content that is being received; `None`: a head is next.
    pub content: Option<Framing>,
    /// Field lines, then content, that the client has not taken.
    pub response: Vec<u8>,
    pub taken: usize,
    /// Length of the field lines, until the client has taken the head.
    pub lines_bytes: usize,
    pub head: Option<ResponseHead>,
    pub is_head_taken: bool,
    /// The response is in `response` to its last byte.
    pub is_complete: bool,
    pub failure: Option<Refusal>,
    /// The wake of its client was already asked for.
    pub is_woken: bool,
    /// The connection to the origin waits for space in `response`.
    pub is_connection_held: bool,

    /// What it does for the cache, if its route has one.
    pub fetch: Option<Box<Fetch>>,
    /// The response, if it is a stored one: `response` has its field lines only.
    pub stored: Option<Rc<Stored>>,
    /// The part of its body that the client gets.
    pub part: Range<usize>,
    /// `response` keeps what its client has taken, for the cache.
    pub is_filling: bool,
    /// It has no client, and is to be ended.
    pub is_over: bool,

    pub began_ns: u64,
    /// Bytes of content that the client has taken.
    pub content_bytes: u64,
    pub response_by_ns: u64,
    pub total_by_ns: u64,
}

/// The buffers of a call, for the next one.
#[derive(Debug, Default)]
pub struct Buffers {
    request: Vec<u8>,
    response: Vec<u8>,
    arrived: Vec<u8>,
}

impl Call {
    /// A call with these buffers, which are emptied.
    pub fn new(by: For, buffers: Buffers) -> Self {
        let Buffers {
            mut request,
            mut response,
            mut arrived,
        } = buffers;
        for buffer in [&mut request, &mut response, &mut arrived] {
            buffer.clear();
        }
        Call {
            by,
            route: usize::MAX,
            pool: 0,
            origin: 0,
            connection: None,
            key: 0,
            to_head: false,
            is_idempotent: false,
            retries: 0,
            request,
            sent: 0,
            is_whole: true,
            is_uploaded: false,
            is_chunked: false,
            secret: 0..0,
            remote: None,
            has_sent_end: false,
            is_busy: false,
            arrived,
            has_arrived: false,
            interims: 0,
            content: None,
            response,
            taken: 0,
            lines_bytes: 0,
            head: None,
            is_head_taken: false,
            is_complete: false,
            failure: None,
            is_woken: false,
            is_connection_held: false,
            fetch: None,
            stored: None,
            part: 0..0,
            is_filling: false,
            is_over: false,
            began_ns: 0,
            content_bytes: 0,
            response_by_ns: 0,
            total_by_ns: 0,
        }
    }

    /// What it leaves for the next one: buffers of at most twice this size, as they are without a cache.
    pub fn into_buffers(mut self, response_bytes_max: usize) -> Buffers {
        if self.response.capacity() > 2 * response_bytes_max {
            self.response = Vec::new();
        }
        Buffers {
            request: self.request,
            response: self.response,
            arrived: self.arrived,
        }
    }

    /// As it was before it was sent anywhere.
    pub fn begin_anew(&mut self) {
        self.sent = 0;
        self.has_sent_end = false;
        self.arrived.clear();
        self.has_arrived = false;
        self.interims = 0;
        self.content = None;
    }

    /// Whether any of it was sent, also if that has given way to more.
    pub fn was_sent(&self) -> bool {
        self.sent > 0 || !self.is_whole
    }

    /// Bytes of the request that wait for the origin.
    pub fn unsent(&self) -> usize {
        self.request.len() - self.sent
    }

    /// Space for bytes of the body in a buffer of `bytes_max`. Removes what was sent when space is short.
    pub fn upload_room(&mut self, bytes_max: usize) -> usize {
        /// The size and the line ends of a chunk, and the last chunk.
        const OVERHEAD: usize = 32;
        let room = bytes_max.saturating_sub(self.request.len());
        if room < bytes_max / 4 && self.sent > 0 {
            self.request.drain(..self.sent);
            let moved = |at: usize| at.saturating_sub(self.sent);
            self.secret = moved(self.secret.start)..moved(self.secret.end);
            self.sent = 0;
            self.is_whole = false;
        }
        let room = bytes_max.saturating_sub(self.request.len());
        room.saturating_sub(OVERHEAD)
    }

    /// Takes bytes of the body.
    pub fn upload(&mut self, data: &[u8]) {
        use std::io::Write as _;
        if data.is_empty() {
            return;
        }
        if self.is_chunked {
            // Writing to a vector does not fail.
            let _ = write!(self.request, "{:x}\r\n", data.len());
        }
        self.request.extend_from_slice(data);
        if self.is_chunked {
            self.request.extend_from_slice(b"\r\n");
        }
    }

    /// Bytes of the response that wait for the client.
    pub fn untaken(&self) -> usize {
        self.response.len() - self.taken
    }

    /// The request line, if it is still there.
    pub fn request_line(&self) -> &str {
        let end = memchr::memchr(b'\r', &self.request).filter(|_| self.is_whole);
        let line = end.and_then(|end| std::str::from_utf8(&self.request[..end]).ok());
        line.unwrap_or("-")
    }

    /// When it is given up.
    pub fn deadline_ns(&self) -> u64 {
        match self.head {
            Some(_) => self.total_by_ns,
            None => self.total_by_ns.min(self.response_by_ns),
        }
    }
}
