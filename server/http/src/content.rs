//! The content of a response that is longer than the send space, and how it is sent.

use std::fmt;
use std::io;

use bytes::Bytes;

use barewire_service::service::Reply;

/// The content of a response, of any length, owned by the response.
///
/// It is sent as fast as the peer takes it; the connection keeps it until then. What is shared costs a
/// connection a reference, not a copy.
///
/// | made by | holds | allocates |
/// |---|---|---|
/// | `From<&'static [u8]>`, `From<&'static str>` | a reference | nothing |
/// | `From<Bytes>`: `Bytes::clone`, `Bytes::slice` | a shared reference | nothing |
/// | `From<Vec<u8>>`, `From<String>` | the bytes | nothing more |
/// | [`Content::generated`] | a function of the offset | nothing |
/// | [`Content::produced`] | whatever a [`Produce`] holds | a box |
#[derive(Debug)]
pub struct Content(Source);

/// Produces the content of a response piece by piece.
///
/// The core calls it when there is space to send. It has to return at once, because the same core serves other connections,
/// and has to write at least a byte until the content is complete.
pub trait Produce {
    /// Writes the next bytes to the front of `space`, which is not empty, and returns how many. 0 ends
    /// the content.
    ///
    /// # Errors
    ///
    /// If no more can be produced. The connection is reset, so that the peer does not take the part for the whole.
    fn produce(&mut self, space: &mut [u8]) -> io::Result<usize>;
}

#[derive(Default)]
enum Source {
    #[default]
    Nothing,
    Bytes(Bytes),
    Generated(Generated),
    Produced {
        producer: Box<dyn Produce>,
        /// Bytes that are still to come; `None`: as many as there are.
        remaining: Option<u64>,
    },
    /// One behind the other.
    Both(Box<(Bytes, Source)>),
}

/// Content that is a function of its offset, so that a connection keeps no bytes of it.
#[derive(Debug, Clone, Copy)]
struct Generated {
    offset: u64,
    end: u64,
    seed: u64,
    fill: fn(u64, u64, &mut [u8]),
}

impl Content {
    /// `length` bytes of which any part can be computed: `fill(seed, offset, space)` fills all of
    /// `space` with those from `offset` on.
    pub fn generated(length: u64, seed: u64, fill: fn(u64, u64, &mut [u8])) -> Self {
        Content(Source::Generated(Generated {
            offset: 0,
            end: length,
            seed,
            fill,
        }))
    }

    /// What `producer` produces: exactly `length` bytes if that is known beforehand, else as many as
    /// there are, chunked.
    pub fn produced(length: Option<u64>, producer: impl Produce + 'static) -> Self {
        Content(Source::Produced {
            producer: Box::new(producer),
            remaining: length,
        })
    }

    /// Its length in bytes, if that is known.
    pub fn length(&self) -> Option<u64> {
        self.0.length()
    }
}

impl Source {
    fn length(&self) -> Option<u64> {
        match self {
            Source::Nothing => Some(0),
            Source::Bytes(bytes) => Some(bytes.len() as u64),
            Source::Generated(generated) => Some(generated.end - generated.offset),
            Source::Produced { remaining, .. } => *remaining,
            Source::Both(both) => Some(both.0.len() as u64 + both.1.length()?),
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Content(Source::Bytes(bytes))
    }
}

impl From<&'static [u8]> for Content {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<&'static str> for Content {
    fn from(text: &'static str) -> Self {
        text.as_bytes().into()
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

/// The part of a response that did not fit. Its connection keeps it.
#[derive(Debug, Default)]
pub(super) struct Sending {
    source: Source,
    is_chunked: bool,
}

/// How far [`Sending::go_on`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// To the end.
    All,
    /// More is left than fits.
    Part,
    /// The content ended before its time.
    Broken,
}

/// No piece is written into less space than this.
const ROOM_MIN: usize = 64;
/// What surrounds a chunk: at most four digits, two line ends, and the last chunk behind it.
const CHUNK_DIGITS_MAX: usize = 4;
const CHUNK_OVERHEAD: usize = CHUNK_DIGITS_MAX + 2 + 2 + LAST_CHUNK.len();
/// Ends a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The longest chunk: more has five digits.
const CHUNK_BYTES_MAX: usize = 0xffff;

impl Sending {
    /// Begins with `content`, behind `copied` if there is something in it.
    pub(super) fn begin(&mut self, copied: Bytes, content: Content, is_chunked: bool) {
        self.is_chunked = is_chunked;
        self.source = match content.0 {
            _ if copied.is_empty() => content.0,
            Source::Nothing => Source::Bytes(copied),
            _ => Source::Both(Box::new((copied, content.0))),
        };
    }

    /// Whether there is something to send.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        !matches!(self.source, Source::Nothing)
    }

    /// Writes as much as there is room for.
    #[inline(never)]
    pub(super) fn go_on(&mut self, reply: &mut Reply<'_>) -> Sent {
        self.go_on_with(reply, ROOM_MIN)
    }

    /// Fills `space`, which is not empty, or writes all there is. Not for what is chunked.
    pub(super) fn fill(&mut self, space: &mut Reply<'_>) -> Sent {
        self.go_on_with(space, 1)
    }

    fn go_on_with(&mut self, reply: &mut Reply<'_>, room_min: usize) -> Sent {
        loop {
            if !self.is_pending() {
                return Sent::All;
            }
            if reply.remaining() < room_min {
                return Sent::Part;
            }
            let result = match &mut self.source {
                Source::Nothing => return Sent::All,
                Source::Bytes(bytes) => Ok(move_bytes(bytes, reply)),
                Source::Both(both) if both.0.is_empty() => {
                    let (_, source) = std::mem::take(&mut **both);
                    self.source = source;
                    continue;
                }
                Source::Both(both) => {
                    move_bytes(&mut both.0, reply);
                    continue;
                }
                Source::Generated(generated) => Ok(generated.go_on(reply)),
                Source::Produced {
                    producer,
                    remaining: None,
                } if self.is_chunked => produce_chunk(&mut **producer, reply),
                Source::Produced {
                    producer,
                    remaining,
                } => produce(&mut **producer, remaining, reply),
            };
            match result {
                Ok(true) => self.source = Source::Nothing,
                Ok(false) => {}
                Err(_) => {
                    self.source = Source::Nothing;
                    return Sent::Broken;
                }
            }
        }
    }
}

// Each of these writes a piece, and returns whether it was the last one.

fn move_bytes(bytes: &mut Bytes, reply: &mut Reply<'_>) -> bool {
    let piece = bytes.split_to(bytes.len().min(reply.remaining()));
    let fits = reply.put(&piece);
    debug_assert!(fits);
    bytes.is_empty()
}

impl Generated {
    fn go_on(&mut self, reply: &mut Reply<'_>) -> bool {
        let len = at_most(self.end - self.offset, reply.remaining());
        (self.fill)(self.seed, self.offset, &mut reply.spare()[..len]);
        reply.advance(len);
        self.offset += len as u64;
        self.offset == self.end
    }
}

fn produce(
    producer: &mut dyn Produce,
    remaining: &mut Option<u64>,
    reply: &mut Reply<'_>,
) -> io::Result<bool> {
    let room = at_most(remaining.unwrap_or(u64::MAX), reply.remaining());
    if room == 0 {
        return Ok(true);
    }
    let len = checked(producer.produce(&mut reply.spare()[..room])?, room)?;
    reply.advance(len);
    match remaining {
        Some(remaining) if len == 0 && *remaining > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(remaining) => {
            *remaining -= len as u64;
            Ok(*remaining == 0)
        }
        None => Ok(len == 0),
    }
}

/// Writes one chunk (RFC 9112, section 7.1), for which there is room: `data` and [`CHUNK_OVERHEAD`].
pub(super) fn put_chunk(reply: &mut Reply<'_>, data: &[u8]) {
    for data in data.chunks(CHUNK_BYTES_MAX) {
        let (size, digits) = hex(data.len());
        for part in [&size[CHUNK_DIGITS_MAX - digits..], b"\r\n", data, b"\r\n"] {
            let fits = reply.put(part);
            debug_assert!(fits);
        }
    }
}

/// One chunk, and the last one behind it if the content is over.
fn produce_chunk(producer: &mut dyn Produce, reply: &mut Reply<'_>) -> io::Result<bool> {
    const DATA: usize = CHUNK_DIGITS_MAX + 2;

    let room = (reply.remaining() - CHUNK_OVERHEAD).min(CHUNK_BYTES_MAX);
    let space = reply.spare();
    let len = checked(producer.produce(&mut space[DATA..DATA + room])?, room)?;
    if len == 0 {
        let fits = reply.put(LAST_CHUNK);
        debug_assert!(fits);
        return Ok(true);
    }
    let (size, digits) = hex(len);
    space[..digits].copy_from_slice(&size[CHUNK_DIGITS_MAX - digits..]);
    space[digits..digits + 2].copy_from_slice(b"\r\n");
    space.copy_within(DATA..DATA + len, digits + 2);
    space[digits + 2 + len..][..2].copy_from_slice(b"\r\n");
    reply.advance(digits + 2 + len + 2);
    Ok(false)
}

/// The digits of `number`, at most [`CHUNK_BYTES_MAX`], to the right, and how many they are.
fn hex(number: usize) -> ([u8; CHUNK_DIGITS_MAX], usize) {
    let digit = |at: usize| b"0123456789abcdef"[number >> (4 * (CHUNK_DIGITS_MAX - 1 - at)) & 15];
    let digits = (1..=CHUNK_DIGITS_MAX).find(|digits| number >> (4 * digits) == 0);
    (
        std::array::from_fn(digit),
        digits.unwrap_or(CHUNK_DIGITS_MAX),
    )
}

fn at_most(count: u64, room: usize) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).min(room)
}

/// The output of a producer that claims more bytes than it was given space for cannot be trusted.
fn checked(len: usize, room: usize) -> io::Result<usize> {
    if len <= room {
        Ok(len)
    } else {
        Err(io::Error::other(
            "more was produced than there was room for",
        ))
    }
}
