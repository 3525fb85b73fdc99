//! A request as frames of HTTP/2: HEADERS, and DATA if it has a body.

use barewire_http::http2::frame::{HEADER_BYTES, Header, flag, kind};
use barewire_http::http2::hpack;
use barewire_service::service::Reply;
use http::{HeaderName, header};

use super::{EventBuffers, Parts, Request, event_parts};

/// What an entry of a dynamic table takes beside its name and value (RFC 7541, section 4.1).
const ENTRY_BYTES: usize = 32;
/// A change of the table's size, in front of a block.
const CHANGE_BYTES_MAX: usize = 4;

/// What the server remembers of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing, and it is not to.
    Nothing,
    /// It is to remember them.
    Learning,
    /// All of them.
    All,
}

/// How a stream begins.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Its number.
    pub stream: u32,
    /// How fields are written.
    pub knowledge: Knowledge,
    /// What has to go in front of them.
    pub change: &'a [u8],
}

/// The field blocks of a request, by what the server knows.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    literal: Box<[u8]>,
    to_learn: Box<[u8]>,
    learned: Box<[u8]>,
    /// What the server's table takes for it.
    table_bytes: usize,
    body: Box<[u8]>,
}

impl Frames {
    pub(super) fn of(parts: &Parts, is_secure: bool) -> Self {
        let fields = fields(parts, is_secure);
        let (mut literal, mut to_learn, mut learned) = (Vec::new(), Vec::new(), Vec::new());
        let remembered = fields
            .iter()
            .filter(|(name, value)| known(name, value).is_none())
            .count();
        let (mut table_bytes, mut newer) = (0, remembered);
        for (name, value) in &fields {
            if let Some(index) = known(name, value) {
                for block in [&mut literal, &mut to_learn, &mut learned] {
                    hpack::put_indexed(index, block);
                }
                continue;
            }
            hpack::put(name, value, &mut literal);
            hpack::put_remembered(name, value, &mut to_learn);
            // The newest entry has the lowest index.
            newer -= 1;
            hpack::put_indexed(hpack::STATIC_ENTRIES + 1 + newer, &mut learned);
            table_bytes += ENTRY_BYTES + name.len() + value.len();
        }
        Frames {
            literal: literal.into(),
            to_learn: to_learn.into(),
            learned: learned.into(),
            table_bytes,
            body: parts.body.clone().unwrap_or_default(),
        }
    }

    /// Of the longest form, without what changes.
    pub(super) fn bytes_max(&self) -> usize {
        let block = self.literal.len().max(self.to_learn.len());
        2 * HEADER_BYTES + CHANGE_BYTES_MAX + block + self.body.len()
    }
}

/// In the order in which they are sent: pseudo-header fields first. Those of the connection are not HTTP/2's.
fn fields(parts: &Parts, is_secure: bool) -> Vec<(&[u8], Vec<u8>)> {
    let is_of_connection =
        |name: &HeaderName| [header::CONNECTION, header::TE, header::UPGRADE].contains(name);
    let host = parts.fields.iter().find(|(name, _)| name == header::HOST);
    let scheme: &[u8] = if is_secure { b"https" } else { b"http" };
    let mut fields: Vec<(&[u8], Vec<u8>)> = vec![
        (b":method", parts.method.as_str().into()),
        (b":scheme", scheme.into()),
        (b":path", parts.path.clone().into()),
    ];
    fields.extend(host.map(|(_, host)| (&b":authority"[..], host.as_bytes().into())));
    fields.extend(
        (parts.fields.iter())
            .filter(|(name, _)| name != header::HOST && !is_of_connection(name))
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes().into())),
    );
    let has_length = parts
        .fields
        .iter()
        .any(|(name, _)| name == header::CONTENT_LENGTH);
    if let Some(body) = parts.body.as_ref().filter(|_| !has_length) {
        fields.push((b"content-length", body.len().to_string().into()));
    }
    fields
}

/// The index in the static table of a field that is there as a whole.
fn known(name: &[u8], value: &[u8]) -> Option<usize> {
    Some(match (name, value) {
        (b":method", b"GET") => 2,
        (b":method", b"POST") => 3,
        (b":path", b"/") => 4,
        (b":scheme", b"http") => 6,
        (b":scheme", b"https") => 7,
        _ => return None,
    })
}

impl Request {
    /// What a server's table takes for the fields, in bytes.
    pub fn table_bytes(&self) -> usize {
        self.frames.as_ref().map_or(0, |frames| frames.table_bytes)
    }

    /// Length of the longest body, in bytes.
    #[inline]
    pub fn body_bytes_max(&self) -> usize {
        match (self.events, &self.frames) {
            (Some(_), _) => super::EVENT_BYTES_MAX,
            (None, Some(frames)) => frames.body.len(),
            (None, None) => 0,
        }
    }

    /// Appends request number `index` as frames, and returns the length of its body; or nothing if it does not fit, or
    /// if it is none of HTTP/2.
    #[inline]
    #[must_use]
    pub fn write_frames(
        &self,
        index: u64,
        opening: Opening<'_>,
        reply: &mut Reply<'_>,
    ) -> Option<usize> {
        let frames = self.frames.as_ref()?;
        let mut buffers = EventBuffers::default();
        let parts: [&[u8]; 5] = match self.events {
            Some(values) => event_parts(values, index, &mut buffers),
            None => [&frames.body, b"", b"", b"", b""],
        };
        let body_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let has_body = body_bytes > 0;
        let block = match opening.knowledge {
            Knowledge::Nothing => &frames.literal,
            Knowledge::Learning => &frames.to_learn,
            Knowledge::All => &frames.learned,
        };
        let end = |ends: bool| if ends { flag::END_STREAM } else { 0 };
        let head = Header {
            len: opening.change.len() + block.len(),
            kind: kind::HEADERS,
            flags: flag::END_HEADERS | end(!has_body),
            stream: opening.stream,
        };
        let data = Header {
            len: body_bytes,
            kind: kind::DATA,
            flags: end(true),
            stream: opening.stream,
        };
        let before = reply.len();
        let mut fits = reply.put(&head.bytes()) && reply.put(opening.change) && reply.put(block);
        if has_body {
            fits = fits && reply.put(&data.bytes()) && parts.iter().all(|part| reply.put(part));
        }
        if !fits {
            reply.truncate(before);
        }
        fits.then_some(body_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{REQUEST_BYTES_MAX, Values};
    use barewire_http::http2::hpack::Table;
    use http::{HeaderValue, Method};

    /// The fields and the body that a server reads.
    fn read(bytes: &[u8], table: &mut Table) -> (Vec<String>, String) {
        let head = Header::parse(bytes).unwrap();
        assert_eq!((head.kind, head.stream), (kind::HEADERS, 1));
        let (block, rest) = bytes[HEADER_BYTES..].split_at(head.len);
        let mut fields = Vec::new();
        let mut literal = [0; 4096];
        hpack::decode(block, table, &mut literal, |field| {
            let line = String::from_utf8(field.line.to_vec()).unwrap();
            fields.push(line.trim_end().to_owned());
        })
        .unwrap();
        let body = match Header::parse(rest) {
            None => {
                assert!(head.has(flag::END_STREAM) && rest.is_empty());
                ""
            }
            Some(data) => {
                assert!(!head.has(flag::END_STREAM) && data.has(flag::END_STREAM));
                assert_eq!(
                    (data.kind, data.len),
                    (kind::DATA, rest.len() - HEADER_BYTES)
                );
                std::str::from_utf8(&rest[HEADER_BYTES..]).unwrap()
            }
        };
        (fields, body.to_owned())
    }

    /// All three forms, in the order in which a connection sends them, mean `fields` and `body`.
    fn expect(request: &Request, fields: &[&str], body: &str) -> [usize; 3] {
        let mut table = Table::new(4096);
        [Knowledge::Nothing, Knowledge::Learning, Knowledge::All].map(|knowledge| {
            let mut space = [0; REQUEST_BYTES_MAX];
            let mut reply = Reply::new(&mut space);
            let opening = Opening {
                stream: 1,
                knowledge,
                change: b"",
            };
            let written = request.write_frames(123, opening, &mut reply);
            assert_eq!(written, Some(body.len()));
            let (seen_fields, seen_body) = read(reply.written(), &mut table);
            assert_eq!(seen_fields, fields, "{knowledge:?}");
            assert_eq!(seen_body, body);
            reply.len()
        })
    }

    fn host() -> (HeaderName, HeaderValue) {
        (header::HOST, HeaderValue::from_static("h:1"))
    }

    #[test]
    fn a_server_reads_the_same_whatever_it_remembers() {
        let fields = [
            host(),
            (header::ACCEPT, HeaderValue::from_static("*/*")),
            (header::CONNECTION, HeaderValue::from_static("close")),
        ];
        let get = Request::fixed(&Method::GET, "/a?b", &fields, b"").unwrap();
        let get = get.over_http2(true).unwrap();
        let expected = [
            ":method: GET",
            ":scheme: https",
            ":path: /a?b",
            ":authority: h:1",
            "accept: */*",
        ];
        let [_, _, learned] = expect(&get, &expected, "");
        assert_eq!(learned, HEADER_BYTES + expected.len());

        let post = Request::fixed(&Method::POST, "/", &fields[..1], b"hey").unwrap();
        let expected = [
            ":method: POST",
            ":scheme: http",
            ":path: /",
            ":authority: h:1",
            "content-length: 3",
        ];
        expect(&post.over_http2(false).unwrap(), &expected, "hey");
    }

    #[test]
    fn events_are_the_same_as_over_http1() {
        let event = Request::event(Values::Official, &[host()]).unwrap();
        let expected = [
            ":method: POST",
            ":scheme: http",
            ":path: /event",
            ":authority: h:1",
            "content-type: application/json",
        ];
        let body = "{\"userId\":\"user_123\",\"value\":123.5}";
        expect(&event.over_http2(false).unwrap(), &expected, body);
    }

    #[test]
    fn a_request_is_written_whole_or_not_at_all() {
        let event = Request::event(Values::Integer, &[]).unwrap();
        let event = event.over_http2(false).unwrap();
        let opening = Opening {
            stream: 1,
            knowledge: Knowledge::Nothing,
            change: b"",
        };
        let mut space = [0; 60];
        let mut reply = Reply::new(&mut space);
        assert_eq!(event.write_frames(1, opening, &mut reply), None);
        assert!(reply.is_empty());
    }
}
