//! Encodes a decided response: as HTTP/1.1 (RFC 9112) here, as HTTP/2 in [`http2::encode`](super::http2::encode).
//!
//! The parts of a head are [`Piece`]s: constants padded to a fixed size, so that each is a few vector
//! moves without a loop, the next piece overwriting the padding of the one before. Content is written
//! where it will be sent from; its length is filled in behind it.
//!
//! ```text
//!  HTTP/1.1 200 OK␍␊ Server: …␍␊Date: …␍␊ [Connection: …␍␊] [Allow: …␍␊] [fields] Content-Type: …␍␊Content-Length: 27␍␊␍␊ content
//!  └─ Status ──────┘ └─ once a second ──┘ └─ Persistence ─┘ └─ Route ─┘ └ handler ┘└─ ContentType ────────────────┘└ table ┘
//! ```
//!
//! What does not fit in the send space, because the content is long or the handler added many fields,
//! is left to [`Sending`], which goes on whenever there is room.

use std::io;

use bytes::Bytes;
use serde::Serialize;

use barewire_service::service::Reply;

use super::content::{Content, Sending};
use super::content_type::{CONTENT_LENGTH, ContentType};
use super::date::ServerAndDate;
use super::fields::{Persistence, Version};
use super::http2::{Frames, Outlet};
use super::piece::Piece;
use super::protocol::Protocol;
use super::response_fields::ResponseFields;
use super::status::Status;

/// Room in which every head fits, but for the fields of handlers: each piece at its padded size.
pub(super) const HEAD_BYTES_MAX: usize = 48 + 112 + 32 + 64 + 128 + 32;

/// No response is begun with less space: a head and the text of any refusal, or `100 Continue`, fit.
pub(super) const ROOM_MIN: usize = 1024;

/// Writes one response.
#[derive(Debug)]
pub(super) struct Encoder<'r, 's> {
    pub(super) way: Way<'r, 's>,
    pub(super) server_and_date: &'r ServerAndDate,
    /// The `Allow` field, for 405 and OPTIONS.
    pub(super) allow: Option<&'r Piece<64>>,
    pub(super) fields: &'r mut ResponseFields,
}

/// Where a response goes, and how it is written there.
#[derive(Debug)]
pub(super) struct Way<'r, 's> {
    pub(super) wire: Wire<'r>,
    /// The request is HEAD: its response ends after the head.
    pub(super) head_only: bool,
    pub(super) reply: &'r mut Reply<'s>,
    /// Where that is kept for which there is no room.
    pub(super) sending: &'r mut Sending,
    /// When the request began that could not be answered at once; 0: just now.
    pub(super) began_ns: u64,
}

/// The protocol of a response, and what it needs to know.
#[derive(Debug)]
pub(super) enum Wire<'r> {
    Http1 {
        persistence: Persistence,
        version: Version,
    },
    Http2(&'r mut Outlet),
}

impl Wire<'_> {
    /// Ends the connection after this response.
    pub(super) fn close(&mut self) {
        match self {
            Wire::Http1 { persistence, .. } => *persistence = Persistence::Close,
            Wire::Http2(outlet) => outlet.closes = true,
        }
    }

    /// Whether the connection ends after this response.
    #[inline]
    pub(super) fn closes(&self) -> bool {
        match self {
            Wire::Http1 { persistence, .. } => *persistence == Persistence::Close,
            Wire::Http2(outlet) => outlet.closes,
        }
    }

    #[inline]
    fn persistence(&self) -> Persistence {
        match self {
            Wire::Http1 { persistence, .. } => *persistence,
            Wire::Http2(_) => Persistence::Open,
        }
    }

    fn reborrow(&mut self) -> Wire<'_> {
        match self {
            Wire::Http1 {
                persistence,
                version,
            } => Wire::Http1 {
                persistence: *persistence,
                version: *version,
            },
            Wire::Http2(outlet) => Wire::Http2(outlet),
        }
    }

    #[inline]
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Wire::Http1 {
                version: Version::Http10,
                ..
            } => Protocol::Http10,
            Wire::Http1 { .. } => Protocol::Http11,
            Wire::Http2(_) => Protocol::Http2,
        }
    }
}

/// How a recipient finds the end of the content (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    /// By the end of the connection.
    Close,
    /// The status says that there is none.
    Absent,
}

impl<'s> Encoder<'_, 's> {
    /// Writes a head and `content`. What does not fit is copied elsewhere.
    #[inline]
    pub(super) fn copy(&mut self, status: Status, content_type: &ContentType, content: &[u8]) {
        if let Some(mut frames) = self.frames() {
            return frames.copy(status, content_type, content);
        }
        if !self.has_room_http1(content.len()) {
            return self.copy_elsewhere(status, content_type, content);
        }
        self.open(status, Some(content_type));
        close(self.way.reply, content.len() as u64);
        if !self.way.head_only {
            put(self.way.reply, content);
        }
    }

    /// How the response is written if it is one of HTTP/2.
    #[inline]
    fn frames(&mut self) -> Option<Frames<'_, 's>> {
        match &mut self.way.wire {
            Wire::Http1 { .. } => None,
            Wire::Http2(outlet) => Some(Frames {
                outlet,
                head_only: self.way.head_only,
                reply: self.way.reply,
                sending: self.way.sending,
                server_and_date: self.server_and_date,
                allow: self.allow,
                fields: self.fields,
            }),
        }
    }

    /// Whether a head and `content_bytes` fit in the send space.
    pub(super) fn has_room(&mut self, content_bytes: usize) -> bool {
        match self.frames() {
            Some(frames) => frames.has_room(content_bytes),
            None => self.has_room_http1(content_bytes),
        }
    }

    #[inline]
    fn has_room_http1(&self, content_bytes: usize) -> bool {
        HEAD_BYTES_MAX + self.fields.lines().len() + content_bytes <= self.way.reply.remaining()
    }

    #[cold]
    fn copy_elsewhere(&mut self, status: Status, content_type: &ContentType, content: &[u8]) {
        let framing = Framing::Length(content.len() as u64);
        let content = if self.way.head_only { &[] } else { content };
        let rest = self.head(status, Some(content_type), framing, content);
        self.way
            .sending
            .begin(rest, Content::from(Bytes::new()), false);
    }

    /// Writes a head and `value` as JSON behind it. Returns false, and leaves nothing behind, if there
    /// is no room for that, or if `value` cannot be serialised.
    #[inline]
    pub(super) fn json<T: Serialize>(&mut self, status: Status, value: &T) -> bool {
        /// `27␍␊␍␊`: what separates the head so far from the content, most of the time.
        const GAP: usize = 2 + 4;
        /// As many digits as a length of 64 bits can have, and the line ends.
        const GAP_MAX: usize = 20 + 4;

        if let Some(mut frames) = self.frames() {
            return frames.json(status, value);
        }
        if !self.has_room_http1(0) {
            return false;
        }
        let start = self.way.reply.len();
        self.open(status, Some(ContentType::JSON));
        let space = self.way.reply.spare();
        let room = space.len() - GAP_MAX;
        let mut content = Counted {
            space: &mut space[GAP..GAP + room],
            len: 0,
        };
        let written = serde_json::to_writer(&mut content, value);
        let len = content.len;
        if written.is_err() || len > room {
            self.way.reply.truncate(start);
            return false;
        }
        let gap = digits(len as u64) + 4;
        if gap != GAP {
            space.copy_within(GAP..GAP + len, gap);
        }
        close_before_content(self.way.reply, len as u64);
        if !self.way.head_only {
            self.way.reply.advance(len);
        }
        self.fields.clear();
        true
    }

    /// Writes a head for content that the caller writes, of this length if that is known.
    pub(super) fn head_only(
        &mut self,
        status: Status,
        content_type: &ContentType,
        length: Option<u64>,
    ) {
        if let Some(mut frames) = self.frames() {
            return frames.open_content(status, content_type, length);
        }
        let framing = self.framing(length);
        let rest = self.head(status, Some(content_type), framing, &[]);
        self.way
            .sending
            .begin(rest, Content::from(Bytes::new()), false);
    }

    fn framing(&mut self, length: Option<u64>) -> Framing {
        match (length, self.way.wire.protocol()) {
            (Some(length), _) => Framing::Length(length),
            (None, Protocol::Http10) => {
                self.way.wire.close();
                Framing::Close
            }
            (None, _) => Framing::Chunked,
        }
    }

    /// Writes a head and, now and later, `content`.
    pub(super) fn send(&mut self, status: Status, content_type: &ContentType, content: Content) {
        if let Some(mut frames) = self.frames() {
            return frames.send(status, content_type, content);
        }
        let framing = self.framing(content.length());
        let rest = self.head(status, Some(content_type), framing, &[]);
        let content = match self.way.head_only {
            true => Content::from(Bytes::new()),
            false => content,
        };
        self.way
            .sending
            .begin(rest, content, framing == Framing::Chunked);
    }

    /// Writes a head for which there is no content.
    #[inline]
    pub(super) fn empty(&mut self, status: Status) {
        if let Some(mut frames) = self.frames() {
            return frames.empty(status);
        }
        if status.forbids_content() || !self.has_room_http1(0) {
            return self.empty_elsewhere(status);
        }
        self.open(status, None);
        close(self.way.reply, 0);
    }

    #[cold]
    fn empty_elsewhere(&mut self, status: Status) {
        let framing = match status.forbids_content() {
            true => Framing::Absent,
            false => Framing::Length(0),
        };
        let rest = self.head(status, None, framing, &[]);
        self.way
            .sending
            .begin(rest, Content::from(Bytes::new()), false);
    }

    /// Writes a head of any kind, and `content`. Returns what there was no room for.
    fn head(
        &mut self,
        status: Status,
        content_type: Option<&ContentType>,
        framing: Framing,
        content: &[u8],
    ) -> Bytes {
        if self.has_room_http1(content.len()) {
            self.open(status, content_type);
            end(self.way.reply, framing);
            put(self.way.reply, content);
            return Bytes::new();
        }
        let mut space = vec![0; HEAD_BYTES_MAX + self.fields.lines().len() + content.len()];
        let mut elsewhere = Reply::new(&mut space);
        Encoder {
            way: Way {
                wire: self.way.wire.reborrow(),
                head_only: self.way.head_only,
                reply: &mut elsewhere,
                sending: self.way.sending,
                began_ns: self.way.began_ns,
            },
            server_and_date: self.server_and_date,
            allow: self.allow,
            fields: self.fields,
        }
        .open(status, content_type);
        end(&mut elsewhere, framing);
        put(&mut elsewhere, content);
        let len = elsewhere.len();
        space.truncate(len);
        let mut rest = Bytes::from(space);
        let room = self.way.reply.remaining();
        put(self.way.reply, &rest.split_to(len.min(room)));
        rest
    }

    /// Writes the head up to the digits of its Content-Length, for which there is room.
    #[inline]
    fn open(&mut self, status: Status, content_type: Option<&ContentType>) {
        let mut head = HeadSpace {
            space: self.way.reply.spare(),
            len: 0,
        };
        head.put(status.line());
        head.put_long(self.server_and_date.fields());
        match self.way.wire.persistence() {
            Persistence::Open => {}
            Persistence::OpenSaid => {
                head.put(const { &Piece::<32>::new("Connection: keep-alive\r\n") })
            }
            Persistence::Close => head.put(const { &Piece::<32>::new("Connection: close\r\n") }),
        }
        if let Some(allow) = self.allow {
            head.put(allow);
        }
        if self.fields.is_touched() {
            head.put_slice(self.fields.lines());
            self.fields.clear();
        }
        match content_type {
            Some(content_type) => head.put_long(content_type.line_and_content_length()),
            None => head.put(const { &Piece::<16>::new(CONTENT_LENGTH) }),
        }
        let len = head.len;
        self.way.reply.advance(len);
    }
}

/// Completes the head that [`Encoder::open`] began. What follows in the send space is overwritten.
#[inline]
fn close(reply: &mut Reply<'_>, content_length: u64) {
    match LENGTHS.get(content_length as usize) {
        Some(line_ends) => {
            let space = reply.spare();
            space[..line_ends.len()].copy_from_slice(line_ends);
            reply.advance(digits(content_length) + 4);
        }
        None => close_before_content(reply, content_length),
    }
}

/// The same where the content stands behind it already.
#[inline]
fn close_before_content(reply: &mut Reply<'_>, content_length: u64) {
    match LENGTHS.get(content_length as usize) {
        Some(line_ends) => put(reply, &line_ends[..digits(content_length) + 4]),
        None => {
            put(reply, itoa::Buffer::new().format(content_length).as_bytes());
            put(reply, b"\r\n\r\n");
        }
    }
}

/// Completes the head, however its content is framed.
fn end(reply: &mut Reply<'_>, framing: Framing) {
    match framing {
        Framing::Length(length) => return close(reply, length),
        Framing::Chunked | Framing::Close | Framing::Absent => {
            let len = reply.len() - CONTENT_LENGTH.len();
            reply.truncate(len);
        }
    }
    if framing == Framing::Chunked {
        put(reply, b"Transfer-Encoding: chunked\r\n");
    }
    put(reply, b"\r\n");
}

/// The short lengths as the end of a head: digits, CR LF, CR LF.
static LENGTHS: [[u8; 8]; 1000] = {
    let mut lengths = [[0; 8]; 1000];
    let mut length = 0;
    while length < lengths.len() {
        let digits = digits(length as u64);
        let mut rest = length;
        let mut at = digits;
        while at > 0 {
            at -= 1;
            lengths[length][at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        while at < 4 {
            lengths[length][digits + at] = b"\r\n\r\n"[at];
            at += 1;
        }
        length += 1;
    }
    lengths
};

/// How many decimal digits `number` has.
#[inline]
const fn digits(number: u64) -> usize {
    match number.checked_ilog10() {
        Some(log) => log as usize + 1,
        None => 1,
    }
}

const ROOM: &str =
    "a service is called with REPLY_BYTES_MIN free, and makes sure of them before each response";

/// Appends `bytes`, for which there is room.
#[inline]
pub(super) fn put(reply: &mut Reply<'_>, bytes: &[u8]) {
    assert!(reply.put(bytes), "{ROOM}");
}

/// Where a head is composed.
struct HeadSpace<'a> {
    space: &'a mut [u8],
    len: usize,
}

impl HeadSpace<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, piece: &Piece<N>) {
        self.space[self.len..self.len + N].copy_from_slice(piece.padded());
        self.len += piece.len();
    }

    /// A piece of which usually only the first part is used.
    #[inline]
    fn put_long<const N: usize>(&mut self, piece: &Piece<N>) {
        const USUAL: usize = 64;

        let space = &mut self.space[self.len..self.len + N];
        space[..USUAL].copy_from_slice(&piece.padded()[..USUAL]);
        if piece.len() > USUAL {
            space[USUAL..].copy_from_slice(&piece.padded()[USUAL..]);
        }
        self.len += piece.len();
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.space[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// Takes serialised content; what does not fit is only counted.
pub(super) struct Counted<'a> {
    pub(super) space: &'a mut [u8],
    pub(super) len: usize,
}

impl io::Write for Counted<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(space) = self.space.get_mut(self.len..self.len + bytes.len()) {
            space.copy_from_slice(bytes);
        }
        self.len += bytes.len();
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes).map(|_| ())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
