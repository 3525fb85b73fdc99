//! Writes a response into the send space: a head from parts, then a body.
//!
//! The parts of a head are [`Piece`]s: constants padded to a fixed size, so that each is a few vector
//! moves without a loop, the next piece overwriting the padding of the one before. A body is written
//! where it will be sent from; its length is filled in behind it.
//!
//! ```text
//!  HTTP/1.1 200 OK␍␊ Server: …␍␊Date: …␍␊ [Connection: …␍␊] [Allow: …␍␊] Content-Type: …␍␊Content-Length: 27␍␊␍␊ body
//!  └─ Status ──────┘ └─ once a second ──┘ └─ Persistence ─┘ └─ Route ─┘ └─ ContentType ────────────────┘└─ itoa ─┘
//! ```

use std::io;

use barewire_stack::service::Reply;
use serde::Serialize;

use super::date::ServerAndDate;
use super::refusal::Refusal;
use super::status::Status;

/// The longest body that a handler may write at once. Longer ones are for
/// [`Handler::Stream`](super::Handler::Stream).
pub const BODY_BYTES_MAX: usize = 704;

/// The longest head: every piece at its padded size, 20 digits and the empty line.
pub(super) const HEAD_BYTES_MAX: usize = 48 + 64 + 32 + 64 + 64 + 24 + 24;

/// The response to one request, to be written exactly once: a handler turns it into an [`Answer`].
#[must_use = "a request without an answer blocks the connection"]
#[derive(Debug)]
pub struct Response<'r, 's> {
    envelope: Envelope,
    server_and_date: &'r Piece<64>,
    /// The `Allow` field, for 405 and OPTIONS.
    allow: Option<&'r Piece<64>>,
    status: Status,
    reply: &'r mut Reply<'s>,
}

/// What the request says about its response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope {
    pub(super) persistence: Persistence,
    /// The request is HEAD: its response ends after the head.
    pub(super) head_only: bool,
}

/// Whether the connection is open after a response, and how it has to be said (RFC 9112, section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Persistence {
    /// HTTP/1.1: open unless somebody says otherwise.
    #[default]
    Open,
    /// HTTP/1.0 with `keep-alive`: open, and said so.
    OpenSaid,
    /// Closed after this response.
    Close,
}

/// Proof that a [`Response`] was written.
#[must_use = "the responder needs the answer"]
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub(super) status: Status,
    pub(super) refusal: Option<Refusal>,
}

/// The media type of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `text/plain`
    Text,
    /// `application/json`
    Json,
    /// `application/octet-stream`
    Bytes,
}

impl<'r, 's> Response<'r, 's> {
    #[inline]
    pub(super) fn new(
        envelope: Envelope,
        server_and_date: &'r ServerAndDate,
        reply: &'r mut Reply<'s>,
    ) -> Self {
        let server_and_date = server_and_date.fields();
        Response {
            envelope,
            server_and_date,
            allow: None,
            status: Status::Ok,
            reply,
        }
    }

    /// Answers with `status` instead of 200.
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Sends `body` as `text/plain`.
    #[inline]
    pub fn text(self, body: &str) -> Answer {
        self.body(ContentType::Text, body.as_bytes())
    }

    /// Sends `body`, at most [`BODY_BYTES_MAX`] long; a longer one becomes a 500.
    #[inline]
    pub fn body(mut self, content_type: ContentType, body: &[u8]) -> Answer {
        if body.len() > BODY_BYTES_MAX {
            return self.refuse(Refusal::Overflow);
        }
        self.open(Some(content_type));
        self.close(body.len() as u64);
        if !self.envelope.head_only {
            put(self.reply, body);
        }
        self.answer(None)
    }

    /// Serialises `value` as `application/json`, at most [`BODY_BYTES_MAX`] long; a longer one, or one
    /// that cannot be serialised, becomes a 500.
    #[inline]
    pub fn json<T: Serialize>(mut self, value: &T) -> Answer {
        /// `27␍␊␍␊`: what separates the head so far from the body, for most bodies.
        const GAP: usize = 2 + 4;

        let start = self.reply.len();
        self.open(Some(ContentType::Json));
        let space = self.reply.spare();
        let mut body = BodySpace {
            space: &mut space[GAP..GAP + BODY_BYTES_MAX],
            len: 0,
        };
        let written = serde_json::to_writer(&mut body, value);
        let len = body.len;
        if written.is_err() || len > BODY_BYTES_MAX {
            self.reply.truncate(start);
            return self.refuse(Refusal::Overflow);
        }
        let gap = itoa::Buffer::new().format(len).len() + 4;
        if gap != GAP {
            space.copy_within(GAP..GAP + len, gap);
        }
        self.close(len as u64);
        if !self.envelope.head_only {
            self.reply.advance(len);
        }
        self.answer(None)
    }

    /// Answers with the status and the text of `refusal`, which is counted.
    #[cold]
    pub fn refuse(mut self, refusal: Refusal) -> Answer {
        self.status = refusal.status();
        self.open(Some(ContentType::Text));
        self.close(refusal.detail().len() as u64);
        if !self.envelope.head_only {
            put(self.reply, refusal.detail().as_bytes());
        }
        self.answer(Some(refusal))
    }

    /// Names the methods that the resource has.
    pub(super) fn allow(mut self, allow: &'r Piece<64>) -> Self {
        self.allow = Some(allow);
        self
    }

    /// Sends no body.
    pub(super) fn empty(mut self) -> Answer {
        self.open(None);
        self.close(0);
        self.answer(None)
    }

    /// Sends the head for a body that somebody else writes.
    pub(super) fn head(mut self, content_type: ContentType, content_length: u64) {
        self.open(Some(content_type));
        self.close(content_length);
    }

    /// Sends the head for a chunked body that somebody else writes.
    pub(super) fn chunked_head(mut self, content_type: ContentType) {
        // The length that follows is overwritten: chunked bodies are rare, and their head's fields the same.
        self.open(Some(content_type));
        let len = self.reply.len() - CONTENT_LENGTH.len();
        self.reply.truncate(len);
        put(self.reply, b"Transfer-Encoding: chunked\r\n\r\n");
    }

    /// Writes the head up to the digits of its Content-Length.
    #[inline]
    fn open(&mut self, content_type: Option<ContentType>) {
        let space = self.reply.spare().first_chunk_mut().expect(ROOM);
        let mut head = HeadSpace { space, len: 0 };
        head.put(self.status.line());
        head.put(self.server_and_date);
        match self.envelope.persistence {
            Persistence::Open => {}
            Persistence::OpenSaid => {
                head.put(const { &Piece::<32>::new("Connection: keep-alive\r\n") })
            }
            Persistence::Close => head.put(const { &Piece::<32>::new("Connection: close\r\n") }),
        }
        if let Some(allow) = self.allow {
            head.put(allow);
        }
        head.put(match content_type {
            Some(content_type) => content_type.field(),
            None => const { &Piece::new(CONTENT_LENGTH) },
        });
        let len = head.len;
        self.reply.advance(len);
    }

    /// Completes the head that [`Response::open`] began.
    #[inline]
    fn close(&mut self, content_length: u64) {
        put(
            self.reply,
            itoa::Buffer::new().format(content_length).as_bytes(),
        );
        put(self.reply, b"\r\n\r\n");
    }

    #[inline]
    fn answer(&self, refusal: Option<Refusal>) -> Answer {
        Answer {
            status: self.status,
            refusal,
        }
    }
}

const CONTENT_LENGTH: &str = "Content-Length: ";

const ROOM: &str =
    "a service is called with REPLY_BYTES_MIN free, and makes sure of them before each response";

/// Appends `bytes`, for which there is room.
#[inline]
pub(super) fn put(reply: &mut Reply<'_>, bytes: &[u8]) {
    assert!(reply.put(bytes), "{ROOM}");
}

impl ContentType {
    /// The field, and the next one up to its value.
    #[inline]
    const fn field(self) -> &'static Piece<64> {
        const TEXT: Piece<64> = Piece::new("Content-Type: text/plain\r\nContent-Length: ");
        const JSON: Piece<64> = Piece::new("Content-Type: application/json\r\nContent-Length: ");
        const BYTES: Piece<64> =
            Piece::new("Content-Type: application/octet-stream\r\nContent-Length: ");
        match self {
            ContentType::Text => &TEXT,
            ContentType::Json => &JSON,
            ContentType::Bytes => &BYTES,
        }
    }
}

/// Where a head is composed.
struct HeadSpace<'a> {
    space: &'a mut [u8; HEAD_BYTES_MAX],
    len: usize,
}

impl HeadSpace<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, piece: &Piece<N>) {
        self.space[self.len..self.len + N].copy_from_slice(&piece.bytes);
        self.len += piece.len;
    }
}

/// A short text in a space of fixed size, so that copying it needs no loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Piece<N> {
    /// # Panics
    ///
    /// If `text` is longer than `N`; at compile time where it is a constant.
    pub(super) const fn new(text: &str) -> Self {
        let text = text.as_bytes();
        assert!(text.len() <= N);
        let mut bytes = [0; N];
        let mut at = 0;
        while at < text.len() {
            bytes[at] = text[at];
            at += 1;
        }
        Piece {
            bytes,
            len: text.len(),
        }
    }

    /// The first `len` of `bytes`; the rest is padding.
    pub(super) fn from_bytes(bytes: [u8; N], len: usize) -> Self {
        assert!(len <= N);
        Piece { bytes, len }
    }

    /// The text without its padding.
    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Takes a serialised body; what does not fit is only counted.
struct BodySpace<'a> {
    space: &'a mut [u8],
    len: usize,
}

impl io::Write for BodySpace<'_> {
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
