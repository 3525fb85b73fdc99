//! Encodes a response as frames: HEADERS, then DATA as far as there is room.
//!
//! ```text
//!   HEADERS │ 88 │ server, date │ [allow] [fields] │ content-type │ content-length │ DATA │ content
//!      └ Status ┘ └── Indexed ─┘                    └─ Indexed ──┘
//! ```
//!
//! What responses have in common is sent once a second and then by index ([`Indexed`]); all else is literals without
//! indexing. Content that exceeds the client's windows is left to [`Sending`], from which the stream sends it later.

use bytes::Bytes;
use serde::Serialize;

use barewire_service::service::Reply;

use crate::content::{Content, Sending};
use crate::content_type::ContentType;
use crate::date::ServerAndDate;
use crate::encode::{Counted, put};
use crate::fields::lines;
use crate::piece::Piece;
use crate::relay::RelayedHead;
use crate::response_fields::ResponseFields;
use crate::status::Status;

use super::frame::{HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, flag, kind};
use super::hpack;
use super::indexed::Indexed;

/// What encoder and connection tell each other about one response.
#[derive(Debug)]
pub(in super::super) struct Outlet {
    pub(super) stream: u32,
    /// Bytes of content that the client has room for.
    pub(super) window: usize,
    /// The client has reduced its table: the next block begins with a size update (RFC 7541, section 4.2).
    pub(super) table_changed: bool,
    /// What the client's table has.
    pub(super) indexed: Indexed,
    /// Bytes of content that were written.
    pub(super) written: usize,
    /// The response is complete.
    pub(super) ended: bool,
    /// Bytes of content that were copied, to be sent later.
    pub(super) copied: usize,
    /// The connection ends after this response.
    pub(in super::super) closes: bool,
    /// Frames for which there was no room. They go before everything else.
    pub(super) overflow: Vec<u8>,
}

impl Outlet {
    pub(super) fn new() -> Self {
        Outlet {
            stream: 0,
            window: 0,
            table_changed: false,
            indexed: Indexed::new(),
            written: 0,
            ended: false,
            copied: 0,
            closes: false,
            overflow: Vec::new(),
        }
    }

    /// Prepares for the response to the request of `stream`.
    #[inline]
    pub(super) fn begin(&mut self, stream: u32, window: usize) {
        self.stream = stream;
        self.window = window;
        self.written = 0;
        self.ended = false;
        self.copied = 0;
    }

    /// Adds the head of a relay's response to what waits for room. Content, or the end of the stream, follows.
    pub(super) fn put_relayed_head(&mut self, stream: u32, head: &RelayedHead<'_>, date: &str) {
        self.stream = stream;
        self.put_block(false, |block| {
            // Without indexing, the name at 8.
            block.extend_from_slice(&[0x08, 3]);
            block.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
            put_lines(head.lines, block);
            if !date.is_empty() {
                hpack::put(b"date", date.as_bytes(), block);
            }
            add_length(head.length, block);
        });
    }

    /// Adds a block, of which `put_fields` writes the fields, to what waits for room, as frames. Returns where they begin.
    fn put_block(&mut self, ends_stream: bool, put_fields: impl FnOnce(&mut Vec<u8>)) -> usize {
        let mut frames = std::mem::take(&mut self.overflow);
        let start = frames.len();
        frames.extend_from_slice(&[0; HEADER_BYTES]);
        if std::mem::take(&mut self.table_changed) {
            frames.push(0x20);
        }
        put_fields(&mut frames);
        self.frame_block(&mut frames, start, ends_stream);
        self.overflow = frames;
        start
    }

    /// Frames the block in `frames` from `start` on, where there is room for the first header: HEADERS, and
    /// CONTINUATION if the block is longer than one payload.
    fn frame_block(&self, frames: &mut Vec<u8>, start: usize, ends_stream: bool) {
        let mut at = start;
        let mut kind = kind::HEADERS;
        let mut flags = if ends_stream { flag::END_STREAM } else { 0 };
        loop {
            let left = frames.len() - at - HEADER_BYTES;
            let len = left.min(PAYLOAD_BYTES_MAX);
            if len == left {
                flags |= flag::END_HEADERS;
            }
            let header = Header {
                len,
                kind,
                flags,
                stream: self.stream,
            };
            frames[at..at + HEADER_BYTES].copy_from_slice(&header.bytes());
            if len == left {
                return;
            }
            at += HEADER_BYTES + len;
            frames.splice(at..at, [0; HEADER_BYTES]);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }
}

/// Room left behind every response for control frames, in bytes: WINDOW_UPDATE, RST_STREAM.
pub(super) const RESERVE: usize = 64;

/// Room in which every head without fields of handlers fits, in bytes.
const HEAD_BYTES_MAX: usize = HEADER_BYTES + 1 + 5 + 96 + 64 + 128 + 32;

/// Writes one response.
#[derive(Debug)]
pub(in super::super) struct Frames<'e, 's> {
    pub(in super::super) outlet: &'e mut Outlet,
    pub(in super::super) head_only: bool,
    pub(in super::super) reply: &'e mut Reply<'s>,
    pub(in super::super) sending: &'e mut Sending,
    pub(in super::super) server_and_date: &'e ServerAndDate,
    pub(in super::super) allow: Option<&'e Piece<64>>,
    pub(in super::super) fields: &'e mut ResponseFields,
}

impl<'s> Frames<'_, 's> {
    /// Whether a head and `content_bytes` fit in the send space.
    #[inline]
    pub(in super::super) fn has_room(&self, content_bytes: usize) -> bool {
        let frames = content_bytes / PAYLOAD_BYTES_MAX + 1;
        HEAD_BYTES_MAX + self.fields_bytes_max() + frames * HEADER_BYTES + content_bytes + RESERVE
            <= self.reply.remaining()
    }

    /// A line has four bytes beside its name and value, a literal three to seven.
    #[inline]
    fn fields_bytes_max(&self) -> usize {
        let lines = self.fields.lines().len();
        lines + lines / 2
    }

    /// Writes a head and `content`. What does not fit is copied elsewhere.
    #[inline]
    pub(in super::super) fn copy(
        &mut self,
        status: Status,
        content_type: &ContentType,
        content: &[u8],
    ) {
        let length = content.len();
        let sent = if self.head_only { 0 } else { length };
        if sent > self.outlet.window || !self.has_room(sent) {
            return self.again().copy_elsewhere(status, content_type, content);
        }
        self.head(status, Some(content_type), Some(length as u64), sent == 0);
        if sent > 0 {
            for (last, data) in pieces(content, PAYLOAD_BYTES_MAX) {
                let flags = if last { flag::END_STREAM } else { 0 };
                put(self.reply, &self.data_header(data.len(), flags));
                put(self.reply, data);
            }
            self.outlet.written = sent;
            self.outlet.ended = true;
        }
    }

    /// The same, to be passed on by its address: only what is unusual has it in memory.
    #[inline(always)]
    fn again(&mut self) -> Frames<'_, 's> {
        Frames {
            outlet: self.outlet,
            head_only: self.head_only,
            reply: self.reply,
            sending: self.sending,
            server_and_date: self.server_and_date,
            allow: self.allow,
            fields: self.fields,
        }
    }

    #[cold]
    fn copy_elsewhere(&mut self, status: Status, content_type: &ContentType, content: &[u8]) {
        let is_empty = self.head_only || content.is_empty();
        self.head(
            status,
            Some(content_type),
            Some(content.len() as u64),
            is_empty,
        );
        if !is_empty {
            self.outlet.copied = content.len();
            let content = Bytes::copy_from_slice(content).into();
            self.sending.begin(Bytes::new(), content, false);
        }
    }

    /// Writes a head and `value` as JSON behind it. Returns false, and leaves nothing behind, if there
    /// is no room for that, or if `value` cannot be serialised.
    #[inline]
    pub(in super::super) fn json<T: Serialize>(&mut self, status: Status, value: &T) -> bool {
        /// What is between the fields so far and the content if its length has two digits.
        const GAP: usize = 3 + 2 + HEADER_BYTES;
        /// And if it has as many as a number of 64 bits can have.
        const GAP_MAX: usize = 3 + 20 + HEADER_BYTES;

        if self.fields.is_touched() || !self.has_room(0) {
            return false;
        }
        let table_changed = self.outlet.table_changed;
        let block_len = self.block(status, Some(ContentType::JSON));
        let space = &mut self.reply.spare()[HEADER_BYTES + block_len..];
        let room = space.len() - GAP_MAX - RESERVE;
        let room = match self.head_only {
            true => room,
            false => room.min(self.outlet.window).min(PAYLOAD_BYTES_MAX),
        };
        let mut content = Counted {
            space: &mut space[GAP..GAP + room],
            len: 0,
        };
        let written = serde_json::to_writer(&mut content, value);
        let len = content.len;
        if written.is_err() || len > room || len == 0 {
            self.outlet.table_changed = table_changed;
            self.outlet.indexed.forget();
            return false;
        }
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(len).as_bytes();
        let gap = 3 + digits.len() + HEADER_BYTES;
        if gap != GAP {
            space.copy_within(GAP..GAP + len, gap);
        }
        let head_len = HEADER_BYTES + block_len + put_length(space, digits);
        self.outlet.ended = true;
        self.end_head(head_len, self.head_only);
        if !self.head_only {
            put(self.reply, &self.data_header(len, flag::END_STREAM));
            self.reply.advance(len);
            self.outlet.written = len;
        }
        true
    }

    /// Writes a head for content that the caller writes, of this length if it is known.
    pub(in super::super) fn open_content(
        &mut self,
        status: Status,
        content_type: &ContentType,
        length: Option<u64>,
    ) {
        let is_empty = self.head_only || length == Some(0);
        self.head(status, Some(content_type), length, is_empty);
    }

    /// Writes a head; `content` follows as the client's windows allow.
    pub(in super::super) fn send(
        &mut self,
        status: Status,
        content_type: &ContentType,
        content: Content,
    ) {
        let length = content.length();
        self.open_content(status, content_type, length);
        if !self.outlet.ended {
            self.sending.begin(Bytes::new(), content, false);
        }
    }

    /// Writes a head without content.
    pub(in super::super) fn empty(&mut self, status: Status) {
        let length = (!status.forbids_content()).then_some(0);
        self.head(status, None, length, true);
    }

    #[inline]
    fn data_header(&self, len: usize, flags: u8) -> [u8; HEADER_BYTES] {
        let header = Header {
            len,
            kind: kind::DATA,
            flags,
            stream: self.outlet.stream,
        };
        header.bytes()
    }

    /// Writes a head.
    #[inline]
    fn head(
        &mut self,
        status: Status,
        content_type: Option<&ContentType>,
        length: Option<u64>,
        ends_stream: bool,
    ) {
        self.outlet.ended = ends_stream;
        if self.fields.is_touched() || self.reply.remaining() < HEAD_BYTES_MAX {
            return (self.again()).unusual_head(status, content_type, length, ends_stream);
        }
        let mut len = HEADER_BYTES + self.block(status, content_type);
        if let Some(length) = length {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(length).as_bytes();
            len += put_length(&mut self.reply.spare()[len..], digits);
        }
        self.end_head(len, ends_stream);
    }

    /// Writes the fields up to the length behind where the frame's header will be. Returns how many bytes they are.
    #[inline]
    fn block(&mut self, status: Status, content_type: Option<&ContentType>) -> usize {
        let space = &mut self.reply.spare()[HEADER_BYTES..];
        let mut len = 0;
        if std::mem::take(&mut self.outlet.table_changed) {
            space[0] = 0x20;
            len = 1;
        }
        let status = status.block();
        space[len..len + 8].copy_from_slice(status.padded());
        len += status.len();
        let indexed = &mut self.outlet.indexed;
        len += indexed.put_server_and_date(self.server_and_date, &mut space[len..]);
        if let Some(allow) = self.allow {
            len += put_allow(&mut space[len..], allow);
        }
        if let Some(content_type) = content_type {
            len += indexed.put_content_type(content_type, &mut space[len..]);
        }
        len
    }

    /// Writes the header of the HEADERS frame that is `len` bytes long with it.
    #[inline]
    fn end_head(&mut self, len: usize, ends_stream: bool) {
        let ends = if ends_stream { flag::END_STREAM } else { 0 };
        let header = Header {
            len: len - HEADER_BYTES,
            kind: kind::HEADERS,
            flags: flag::END_HEADERS | ends,
            stream: self.outlet.stream,
        };
        self.reply.spare()[..HEADER_BYTES].copy_from_slice(&header.bytes());
        self.reply.advance(len);
    }

    /// Writes a head with fields of handlers, or one for which there is no room: what does not fit goes to the
    /// overflow.
    #[cold]
    fn unusual_head(
        &mut self,
        status: Status,
        content_type: Option<&ContentType>,
        length: Option<u64>,
        ends_stream: bool,
    ) {
        let (allow, server_and_date) = (self.allow, self.server_and_date);
        let (outlet, fields) = (&mut *self.outlet, &mut *self.fields);
        let start = outlet.put_block(ends_stream, |block| {
            block.extend_from_slice(status.block().as_bytes());
            block.extend_from_slice(server_and_date.block().as_bytes());
            if let Some(allow) = allow {
                let mut space = [0; 128];
                let len = put_allow(&mut space, allow);
                block.extend_from_slice(&space[..len]);
            }
            put_lines(fields.lines(), block);
            fields.clear();
            if let Some(content_type) = content_type {
                block.extend_from_slice(content_type.block().as_bytes());
            }
            add_length(length, block);
        });
        // Nothing waits, usually: the frames fit, and the memory is kept for the next time.
        let frames = &mut outlet.overflow;
        if start == 0 && frames.len() <= self.reply.remaining() {
            put(self.reply, frames);
            frames.clear();
        }
    }
}

/// `data` in pieces of at most `len_max` bytes, each with whether it is the last one.
#[inline]
fn pieces(data: &[u8], len_max: usize) -> impl Iterator<Item = (bool, &[u8])> {
    let mut chunks = data.chunks(len_max);
    std::iter::from_fn(move || {
        let chunk = chunks.next()?;
        Some((chunks.len() == 0, chunk))
    })
}

/// Appends field lines as literals.
fn put_lines(block_of_lines: &[u8], block: &mut Vec<u8>) {
    for (name, value) in lines(block_of_lines) {
        hpack::put(name, value, block);
    }
}

/// Appends `content-length`, if it is known.
fn add_length(length: Option<u64>, block: &mut Vec<u8>) {
    if let Some(length) = length {
        let (mut digits, mut space) = (itoa::Buffer::new(), [0; 32]);
        let len = put_length(&mut space, digits.format(length).as_bytes());
        block.extend_from_slice(&space[..len]);
    }
}

/// Writes `content-length` to the front of `space`. Returns how many bytes it takes.
#[inline]
fn put_length(space: &mut [u8], digits: &[u8]) -> usize {
    // Without indexing, the name at 28.
    space[..3].copy_from_slice(&[0x0f, 0x0d, digits.len() as u8]);
    space[3..3 + digits.len()].copy_from_slice(digits);
    3 + digits.len()
}

/// Writes `allow` to the front of `space`. Returns how many bytes it takes.
#[cold]
fn put_allow(space: &mut [u8], allow: &Piece<64>) -> usize {
    let line = allow.as_bytes();
    let value = &line["Allow: ".len()..line.len() - 2];
    // Without indexing, the name at 22.
    space[..3].copy_from_slice(&[0x0f, 0x07, value.len() as u8]);
    space[3..3 + value.len()].copy_from_slice(value);
    3 + value.len()
}
