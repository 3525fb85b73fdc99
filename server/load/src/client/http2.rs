//! One connection of HTTP/2 (RFC 9113), as a client that only asks sees it.
//!
//! Frames are read one at a time; what has to be said to one is written at once, so that nothing waits in a queue. Two
//! windows are opened as far as they go, so that flow control never measures the client.
//!
//! ```text
//!   preface, SETTINGS, WINDOW_UPDATE │ HEADERS [DATA] │ HEADERS [DATA] …   ──▶
//!                                    ◀──  SETTINGS │ HEADERS │ DATA …   ──▶ Event::Answer
//! ```
//!
//! Fields that are the same in every request are sent as literals until the server has said how many it remembers;
//! then once more, to be remembered; then each is one byte ([`Knowledge`]).

use barewire_http::http2::frame::{
    HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, PREFACE, WINDOW_BYTES, WINDOW_BYTES_MAX, flag, kind,
    number, of_number, setting,
};
use barewire_http::http2::hpack::{self, Table};
use barewire_service::service::Reply;
use thiserror::Error;

use super::exchange::{Asked, BodyPlace};
use crate::request::{Knowledge, Opening, REQUEST_BYTES_MAX, Request};

/// The table that a server may have us remember, and the largest that we have it remember, in bytes.
const TABLE_BYTES: usize = 4_096;
/// A window is opened again when so many bytes of it are used.
const CREDIT_BYTES: u32 = 1 << 30;
/// Longest field block, in bytes.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Room for decoded fields, in bytes.
pub const LITERAL_BYTES: usize = 2 * BLOCK_BYTES_MAX;
/// Room for all that is said to one frame, and for the preface and what follows it.
const ROOM_BYTES: usize = 128;
/// The last stream of a connection.
const STREAM_MAX: u32 = (1 << 31) - 1;

/// What a server must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not HTTP/2: {0}")]
pub struct Fault(&'static str);

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    reading: Reading,
    table: Table,
    /// A field block that comes in pieces.
    block: Vec<u8>,
    streams: Vec<Stream>,
    next_stream: u32,
    /// The preface was written; the server's SETTINGS have come.
    is_begun: bool,
    is_greeted: bool,
    /// What the server remembers, and the size that its table shall have if that was changed.
    knowledge: Knowledge,
    table_bytes: usize,
    table_changed: bool,
    /// Bytes of DATA that the server has room for: on the connection, and on a new stream.
    send_window: i64,
    stream_window: i64,
    /// Streams that the server serves at once.
    streams_max: usize,
    /// Bytes of DATA that were received and not given back.
    received: u32,
    /// GOAWAY: the last stream that is answered.
    last_stream: Option<u32>,
}

/// A request and as much of its answer as there is.
#[derive(Debug)]
struct Stream {
    id: u32,
    asked: Asked,
    /// 0 before its head has come.
    status: u16,
    body: BodyPlace,
    received: u32,
}

#[derive(Debug, Clone, Copy)]
enum Reading {
    Frame,
    /// The rest of a DATA frame: content, then padding.
    Data {
        stream: u32,
        left: usize,
        padding: usize,
        ends_stream: bool,
    },
    /// The next frame is a CONTINUATION.
    Block {
        stream: u32,
        ends_stream: bool,
    },
}

/// What a piece of input led to.
#[derive(Debug)]
pub enum Event {
    /// More input is needed.
    More,
    /// There is no room to say what may have to be said.
    Full,
    /// Nothing that matters outside.
    Nothing,
    /// A whole answer.
    Answer {
        asked: Asked,
        status: u16,
        body: BodyPlace,
    },
    /// A request will not be answered, because of the error with this code.
    Lost(Asked, u32),
}

impl Default for Http2 {
    fn default() -> Self {
        Http2 {
            reading: Reading::Frame,
            table: Table::new(TABLE_BYTES),
            block: Vec::new(),
            streams: Vec::new(),
            next_stream: 1,
            is_begun: false,
            is_greeted: false,
            knowledge: Knowledge::Nothing,
            table_bytes: TABLE_BYTES,
            table_changed: false,
            send_window: WINDOW_BYTES,
            stream_window: WINDOW_BYTES,
            streams_max: usize::MAX,
            received: 0,
            last_stream: None,
        }
    }
}

impl Http2 {
    /// Requests that wait for their answers.
    pub fn is_answered(&self) -> bool {
        self.streams.is_empty()
    }

    /// Nothing may be asked on this connection any more.
    pub fn is_over(&self) -> bool {
        self.last_stream.is_some() || self.next_stream > STREAM_MAX
    }

    /// Whether another request may be asked beside `streams_max - 1` that wait.
    #[inline]
    pub fn may_ask(&self, request: &Request, streams_max: usize) -> bool {
        let body_bytes = request.body_bytes_max() as i64;
        self.streams.len() < streams_max.min(self.streams_max)
            && !self.is_over()
            && body_bytes <= self.send_window.min(self.stream_window)
    }

    /// What waits for an answer, of which nothing is left here.
    pub fn abandon(&mut self) -> impl Iterator<Item = Asked> {
        self.streams.drain(..).map(|stream| stream.asked)
    }

    /// Asks; there is room for [`REQUEST_BYTES_MAX`].
    #[inline]
    pub fn ask(&mut self, request: &Request, asked: Asked, reply: &mut Reply<'_>) {
        let mut change = Vec::new();
        if self.table_changed {
            self.table_changed = false;
            hpack::put_table_size(self.table_bytes, &mut change);
        }
        let opening = Opening {
            stream: self.next_stream,
            knowledge: self.knowledge,
            change: &change,
        };
        let body_bytes = request.write_frames(asked.ticket, opening, reply);
        debug_assert!(
            body_bytes.is_some(),
            "a request is never longer than REQUEST_BYTES_MAX"
        );
        self.send_window -= body_bytes.unwrap_or_default() as i64;
        if self.knowledge == Knowledge::Learning {
            self.knowledge = Knowledge::All;
        }
        self.streams.push(Stream {
            id: self.next_stream,
            asked,
            status: 0,
            body: BodyPlace::default(),
            received: 0,
        });
        self.next_stream += 2;
    }

    /// Says what a client says first, if that was not said yet.
    #[inline]
    pub fn begin(&mut self, reply: &mut Reply<'_>) {
        if !self.is_begun {
            self.is_begun = true;
            greet(reply);
        }
    }

    /// Takes what it can from the front of `bytes`. `expected` is what the body of every answer is compared with.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be HTTP/2; the connection is of no use any more then.
    #[inline]
    pub fn read(
        &mut self,
        bytes: &[u8],
        request: &Request,
        expected: Option<&[u8]>,
        literal: &mut [u8],
        reply: &mut Reply<'_>,
    ) -> Result<(usize, Event), Fault> {
        if reply.remaining() < ROOM_BYTES {
            return Ok((0, Event::Full));
        }
        if let Some(lost) = self.refused() {
            return Ok((0, lost));
        }
        if let Reading::Data { .. } = self.reading {
            return self.read_data(bytes, expected);
        }
        let Some(header) = Header::parse(bytes) else {
            return Ok((0, Event::More));
        };
        if !self.is_greeted && header.kind != kind::SETTINGS {
            return Err(Fault("it does not begin with SETTINGS"));
        }
        if header.len > PAYLOAD_BYTES_MAX {
            return Err(Fault("a frame that is too long"));
        }
        if header.kind == kind::DATA && !matches!(self.reading, Reading::Block { .. }) {
            return self.begin_data(header, bytes, expected, reply);
        }
        let whole = HEADER_BYTES + header.len;
        let Some(payload) = bytes.get(HEADER_BYTES..whole) else {
            return Ok((0, Event::More));
        };
        let event = match (self.reading, header.kind) {
            (Reading::Block { stream, .. }, kind::CONTINUATION) if stream == header.stream => {
                self.read_block(header, payload, literal)?
            }
            (Reading::Block { .. }, _) => return Err(Fault("a field block that is interrupted")),
            (_, kind::HEADERS) => {
                let fragment = unpadded(header, payload)?;
                let fragment = match header.has(flag::PRIORITY) {
                    true => fragment
                        .get(5..)
                        .ok_or(Fault("HEADERS without a priority"))?,
                    false => fragment,
                };
                self.block.clear();
                self.reading = Reading::Block {
                    stream: header.stream,
                    ends_stream: header.has(flag::END_STREAM),
                };
                self.read_block(header, fragment, literal)?
            }
            (_, kind::SETTINGS) => {
                self.read_settings(header, payload, request, reply)?;
                Event::Nothing
            }
            (_, kind::PING) => {
                if !header.has(flag::ACK) {
                    let ack = Header {
                        flags: flag::ACK,
                        ..header
                    };
                    let payload = payload.first_chunk::<8>().ok_or(Fault("a short PING"))?;
                    put(reply, &ack.bytes());
                    put(reply, payload);
                }
                Event::Nothing
            }
            (_, kind::WINDOW_UPDATE) => {
                // Bodies are shorter than the window that a stream begins with.
                if header.stream == 0 {
                    self.send_window += i64::from(number(payload));
                }
                Event::Nothing
            }
            (_, kind::RST_STREAM) => match self.find(header.stream) {
                Some(at) => Event::Lost(self.streams.remove(at).asked, number(payload)),
                None => Event::Nothing,
            },
            (_, kind::GOAWAY) => {
                self.last_stream = Some(number(payload));
                Event::Nothing
            }
            (_, kind::PUSH_PROMISE) => return Err(Fault("a push that was not asked for")),
            (_, kind::CONTINUATION) => return Err(Fault("CONTINUATION without HEADERS")),
            _ => Event::Nothing,
        };
        Ok((whole, event))
    }

    /// A request behind the last one that a server which goes away answers.
    #[inline]
    fn refused(&mut self) -> Option<Event> {
        const REFUSED_STREAM: u32 = 7;
        let last = self.last_stream?;
        let at = self.streams.iter().position(|stream| stream.id > last)?;
        Some(Event::Lost(self.streams.remove(at).asked, REFUSED_STREAM))
    }

    #[inline]
    fn begin_data(
        &mut self,
        header: Header,
        bytes: &[u8],
        expected: Option<&[u8]>,
        reply: &mut Reply<'_>,
    ) -> Result<(usize, Event), Fault> {
        let (front, padding) = match (header.has(flag::PADDED), bytes.get(HEADER_BYTES)) {
            (false, _) => (0, 0),
            (true, Some(&padding)) => (1, usize::from(padding)),
            (true, None) => return Ok((0, Event::More)),
        };
        let content = header.len.checked_sub(front + padding);
        let left = content.ok_or(Fault("more padding than there is payload"))?;
        let at = self.find(header.stream);
        let at = at.ok_or(Fault("DATA of a stream that nobody waits for"))?;
        let stream = &mut self.streams[at];
        if stream.status == 0 {
            return Err(Fault("DATA in front of its HEADERS"));
        }
        give_credit(0, &mut self.received, header.len, reply);
        give_credit(stream.id, &mut stream.received, header.len, reply);
        self.reading = Reading::Data {
            stream: header.stream,
            left,
            padding,
            ends_stream: header.has(flag::END_STREAM),
        };
        let consumed = HEADER_BYTES + front;
        let (taken, event) = self.read_data(&bytes[consumed..], expected)?;
        let event = match event {
            // What was taken is of use; whether there is more is for the next call to say.
            Event::More => Event::Nothing,
            event => event,
        };
        Ok((consumed + taken, event))
    }

    #[inline]
    fn read_data(
        &mut self,
        bytes: &[u8],
        expected: Option<&[u8]>,
    ) -> Result<(usize, Event), Fault> {
        let Reading::Data {
            stream,
            left,
            padding,
            ends_stream,
        } = self.reading
        else {
            return Ok((0, Event::Nothing));
        };
        let at = self.find(stream);
        let at = at.ok_or(Fault("DATA of a stream that nobody waits for"))?;
        let piece = &bytes[..left.min(bytes.len())];
        if let Some(expected) = expected {
            self.streams[at].body.compare(expected, piece);
        }
        let skipped = match piece.len() == left {
            true => padding.min(bytes.len() - piece.len()),
            false => 0,
        };
        let taken = piece.len() + skipped;
        if taken < left + padding {
            self.reading = Reading::Data {
                stream,
                left: left - piece.len(),
                padding: padding - skipped,
                ends_stream,
            };
            return Ok((taken, Event::More));
        }
        self.reading = Reading::Frame;
        let event = match ends_stream {
            true => self.answer(at),
            false => Event::Nothing,
        };
        Ok((taken, event))
    }

    /// A piece of a field block, and the fields if it is the last one.
    #[inline]
    fn read_block(
        &mut self,
        header: Header,
        fragment: &[u8],
        literal: &mut [u8],
    ) -> Result<Event, Fault> {
        let Reading::Block { ends_stream, .. } = self.reading else {
            return Ok(Event::Nothing);
        };
        let is_whole = header.has(flag::END_HEADERS);
        let mut status = None;
        let table = &mut self.table;
        let mut decode = |block: &[u8]| {
            hpack::decode(block, table, literal, |field| {
                if field.name() == b":status" {
                    status = Some(status_code(field.value()));
                }
            })
        };
        if self.block.is_empty() && is_whole {
            decode(fragment).map_err(|_| Fault("a field block that cannot be decoded"))?;
        } else {
            if self.block.len() + fragment.len() > BLOCK_BYTES_MAX {
                return Err(Fault("a field block that is too long"));
            }
            self.block.extend_from_slice(fragment);
            if !is_whole {
                return Ok(Event::Nothing);
            }
            decode(&self.block).map_err(|_| Fault("a field block that cannot be decoded"))?;
            self.block.clear();
        }
        self.reading = Reading::Frame;
        let at = self.find(header.stream);
        let at = at.ok_or(Fault("HEADERS of a stream that nobody waits for"))?;
        let stream = &mut self.streams[at];
        match status {
            Some(100..200) if stream.status == 0 && !ends_stream => return Ok(Event::Nothing),
            Some(code @ 200..1000) if stream.status == 0 => stream.status = code,
            // Trailers.
            None if stream.status != 0 && ends_stream => {}
            _ => return Err(Fault("HEADERS without a valid status")),
        }
        match ends_stream {
            true => Ok(self.answer(at)),
            false => Ok(Event::Nothing),
        }
    }

    #[inline]
    fn answer(&mut self, at: usize) -> Event {
        let stream = self.streams.swap_remove(at);
        Event::Answer {
            asked: stream.asked,
            status: stream.status,
            body: stream.body,
        }
    }

    fn read_settings(
        &mut self,
        header: Header,
        payload: &[u8],
        request: &Request,
        reply: &mut Reply<'_>,
    ) -> Result<(), Fault> {
        if header.has(flag::ACK) {
            return Ok(());
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Fault("SETTINGS that end in the middle of one"));
        }
        for &[name_high, name_low, a, b, c, d] in settings {
            let value = u32::from_be_bytes([a, b, c, d]);
            match u16::from_be_bytes([name_high, name_low]) {
                setting::HEADER_TABLE_SIZE => {
                    self.table_bytes = TABLE_BYTES.min(value as usize);
                    self.table_changed = self.table_bytes < TABLE_BYTES;
                    self.knowledge = Knowledge::Nothing;
                }
                setting::MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                setting::INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
                _ => {}
            }
        }
        if self.knowledge == Knowledge::Nothing && request.table_bytes() <= self.table_bytes {
            self.knowledge = Knowledge::Learning;
        }
        self.is_greeted = true;
        let ack = Header {
            len: 0,
            kind: kind::SETTINGS,
            flags: flag::ACK,
            stream: 0,
        };
        put(reply, &ack.bytes());
        Ok(())
    }

    #[inline]
    fn find(&self, id: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.id == id)
    }
}

/// The preface, our SETTINGS, and a window as wide as it goes.
fn greet(reply: &mut Reply<'_>) {
    const SETTINGS: [(u16, u32); 2] = [
        (setting::ENABLE_PUSH, 0),
        (setting::INITIAL_WINDOW_SIZE, WINDOW_BYTES_MAX as u32),
    ];
    put(reply, PREFACE);
    let header = Header {
        len: 6 * SETTINGS.len(),
        kind: kind::SETTINGS,
        flags: 0,
        stream: 0,
    };
    put(reply, &header.bytes());
    for (name, value) in SETTINGS {
        put(reply, &name.to_be_bytes());
        put(reply, &value.to_be_bytes());
    }
    let more = (WINDOW_BYTES_MAX - WINDOW_BYTES) as u32;
    put(reply, &of_number(kind::WINDOW_UPDATE, 0, more));
}

/// Books that `bytes` were received, and gives them back when they are many.
#[inline]
fn give_credit(stream: u32, received: &mut u32, bytes: usize, reply: &mut Reply<'_>) {
    *received += bytes as u32;
    if *received >= CREDIT_BYTES {
        put(reply, &of_number(kind::WINDOW_UPDATE, stream, *received));
        *received = 0;
    }
}

/// There is room for it: [`ROOM_BYTES`] or more.
#[inline]
fn put(reply: &mut Reply<'_>, bytes: &[u8]) {
    const { assert!(ROOM_BYTES <= REQUEST_BYTES_MAX) };
    let fits = reply.put(bytes);
    debug_assert!(fits, "there is room for what is said to a frame");
}

/// The payload without its padding.
fn unpadded(header: Header, payload: &[u8]) -> Result<&[u8], Fault> {
    if !header.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Fault("an empty frame"))?;
    let end = rest.len().checked_sub(usize::from(padding));
    Ok(&rest[..end.ok_or(Fault("more padding than there is payload"))?])
}

/// Three digits, or 0.
fn status_code(value: &[u8]) -> u16 {
    match *value {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => [a, b, c]
            .iter()
            .fold(0, |code, digit| code * 10 + u16::from(digit - b'0')),
        _ => 0,
    }
}
