//! Writes the requests.
//!
//! All that does not change from request to request is rendered once; an event costs two numbers.

mod frames;

use barewire_service::service::Reply;
use http::{HeaderName, HeaderValue, Method};
use thiserror::Error;

use frames::Frames;
pub use frames::{Knowledge, Opening};

/// Longest request, in bytes, that can be asked with.
pub const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Most bytes of an event behind its `Content-Length`.
pub(crate) const EVENT_BYTES_MAX: usize = 128;

/// Users of the challenge: event `i` comes from `user_{i % USERS}`.
pub const USERS: u64 = 75_000;
/// Values of the challenge: event `i` has the value `i % VALUES`, and perhaps a half.
pub const VALUES: u64 = 1_000;

/// What the challenge's events carry as their value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// `i % 1000 + 0.5`, as the official client sends.
    Official,
    /// `i % 1000`.
    Integer,
}

impl Values {
    /// Twice the value of event `index`: an integer whichever the kind.
    #[inline]
    pub fn halves(self, index: u64) -> u64 {
        2 * (index % VALUES) + u64::from(self == Values::Official)
    }
}

/// A request that is too long to be asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the request is {bytes} bytes long, more than {REQUEST_BYTES_MAX}: shorten its headers or its body"
)]
pub struct TooLong {
    /// Its length, in bytes.
    pub bytes: usize,
}

/// How to write the request number so-and-so.
#[derive(Debug, Clone)]
pub struct Request {
    /// Everything in front of what changes.
    head: Box<[u8]>,
    events: Option<Values>,
    is_head: bool,
    parts: Parts,
    /// The same as frames of HTTP/2, if it is to be asked so.
    frames: Option<Frames>,
}

/// What a request is made of.
#[derive(Debug, Clone)]
struct Parts {
    method: Method,
    path: String,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// What does not change of it.
    body: Option<Box<[u8]>>,
}

impl Request {
    /// The same request every time.
    ///
    /// # Errors
    ///
    /// If it would be longer than [`REQUEST_BYTES_MAX`].
    pub fn fixed(
        method: &Method,
        path: &str,
        fields: &[(HeaderName, HeaderValue)],
        body: &[u8],
    ) -> Result<Self, TooLong> {
        let mut head = render_head(method, path, fields);
        let has_body = !body.is_empty() || [Method::POST, Method::PUT].contains(method);
        if has_body
            && !fields
                .iter()
                .any(|(name, _)| name == http::header::CONTENT_LENGTH)
        {
            head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(body);
        check_length(head.len())?;
        Ok(Request {
            head: head.into(),
            events: None,
            is_head: *method == Method::HEAD,
            parts: Parts {
                method: method.clone(),
                path: path.to_owned(),
                fields: fields.to_vec(),
                body: has_body.then(|| body.into()),
            },
            frames: None,
        })
    }

    /// The challenge's `POST /event`.
    ///
    /// # Errors
    ///
    /// If it would be longer than [`REQUEST_BYTES_MAX`].
    pub fn event(values: Values, fields: &[(HeaderName, HeaderValue)]) -> Result<Self, TooLong> {
        let mut head = render_head(&Method::POST, "/event", fields);
        let mut fields = fields.to_vec();
        if !fields
            .iter()
            .any(|(name, _)| name == http::header::CONTENT_TYPE)
        {
            head.extend_from_slice(b"Content-Type: application/json\r\n");
            let json = HeaderValue::from_static("application/json");
            fields.push((http::header::CONTENT_TYPE, json));
        }
        head.extend_from_slice(b"Content-Length: ");
        check_length(head.len() + EVENT_BYTES_MAX)?;
        Ok(Request {
            head: head.into(),
            events: Some(values),
            is_head: false,
            parts: Parts {
                method: Method::POST,
                path: "/event".to_owned(),
                fields,
                body: None,
            },
            frames: None,
        })
    }

    /// The same request, to be asked by HTTP/2.
    ///
    /// # Errors
    ///
    /// If it would be longer than [`REQUEST_BYTES_MAX`].
    pub fn over_http2(self, is_secure: bool) -> Result<Self, TooLong> {
        let frames = Frames::of(&self.parts, is_secure);
        let event_bytes = self.events.map_or(0, |_| EVENT_BYTES_MAX);
        check_length(frames.bytes_max() + event_bytes)?;
        Ok(Request {
            frames: Some(frames),
            ..self
        })
    }

    /// Whether it is asked by HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.frames.is_some()
    }

    /// Whether answers have no body because it is asked with `HEAD`.
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Length of the longest request, in bytes.
    #[cfg(feature = "xdp")]
    pub fn bytes_max(&self) -> usize {
        let of_frames = self.frames.as_ref().map_or(0, Frames::bytes_max);
        self.head.len().max(of_frames) + self.events.map_or(0, |_| EVENT_BYTES_MAX)
    }

    /// What its events carry, if it is an event.
    pub fn events(&self) -> Option<Values> {
        self.events
    }

    /// Appends request number `index`, or nothing and returns false if it does not fit.
    #[inline]
    #[must_use]
    pub fn write(&self, index: u64, reply: &mut Reply<'_>) -> bool {
        let before = reply.len();
        let fits = reply.put(&self.head)
            && match self.events {
                Some(values) => write_event(values, index, reply),
                None => true,
            };
        if !fits {
            reply.truncate(before);
        }
        fits
    }
}

/// Appends the length and the body of an event, from the digits of its `Content-Length` on.
#[inline]
fn write_event(values: Values, index: u64, reply: &mut Reply<'_>) -> bool {
    let (mut buffers, mut len) = (EventBuffers::default(), itoa::Buffer::new());
    let parts = event_parts(values, index, &mut buffers);
    let body_len = parts.iter().map(|part| part.len()).sum::<usize>();
    reply.put(len.format(body_len).as_bytes())
        && reply.put(b"\r\n\r\n")
        && parts.iter().all(|part| reply.put(part))
}

#[derive(Default)]
struct EventBuffers {
    user: itoa::Buffer,
    value: itoa::Buffer,
}

/// The body of an event.
#[inline]
fn event_parts(values: Values, index: u64, buffers: &mut EventBuffers) -> [&[u8]; 5] {
    [
        b"{\"userId\":\"user_",
        buffers.user.format(index % USERS).as_bytes(),
        b"\",\"value\":",
        buffers.value.format(index % VALUES).as_bytes(),
        match values {
            Values::Official => b".5}",
            Values::Integer => b"}",
        },
    ]
}

/// The request line and the fields, without the empty line.
fn render_head(method: &Method, path: &str, fields: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head
}

fn check_length(bytes: usize) -> Result<(), TooLong> {
    match bytes <= REQUEST_BYTES_MAX {
        true => Ok(()),
        false => Err(TooLong { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    }

    fn render(request: &Request, index: u64) -> String {
        let mut space = [0; REQUEST_BYTES_MAX];
        let mut reply = Reply::new(&mut space);
        assert!(request.write(index, &mut reply));
        String::from_utf8(reply.written().to_vec()).unwrap()
    }

    #[test]
    fn events_are_those_of_the_two_known_clients() {
        let host = [field("host", "h:1")];
        let official = Request::event(Values::Official, &host).unwrap();
        assert_eq!(
            render(&official, 75_123),
            "POST /event HTTP/1.1\r\nhost: h:1\r\nContent-Type: application/json\r\n\
             Content-Length: 35\r\n\r\n{\"userId\":\"user_123\",\"value\":123.5}"
        );
        let integer = Request::event(Values::Integer, &host).unwrap();
        assert!(
            render(&integer, 0)
                .ends_with("Content-Length: 29\r\n\r\n{\"userId\":\"user_0\",\"value\":0}")
        );
        assert!(render(&integer, 74_999).ends_with("{\"userId\":\"user_74999\",\"value\":999}"));
    }

    #[test]
    fn the_length_of_every_event_is_right() {
        let request = Request::event(Values::Official, &[]).unwrap();
        for index in (0..150_000).step_by(7) {
            let text = render(&request, index);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.ends_with(&format!("Content-Length: {}", body.len())),
                "{text}"
            );
        }
    }

    #[test]
    fn the_sums_of_a_million_are_the_published_ones() {
        let sum = |values: Values| {
            (0..1_000_000)
                .map(|index| values.halves(index))
                .sum::<u64>()
        };
        assert_eq!(sum(Values::Official), 2 * 500_000_000);
        assert_eq!(sum(Values::Integer), 2 * 499_500_000);
    }

    #[test]
    fn fixed_requests_carry_their_length() {
        let fields = [field("host", "h"), field("x-y", "z")];
        let get = Request::fixed(&Method::GET, "/a?b", &fields, b"").unwrap();
        assert_eq!(
            render(&get, 7),
            "GET /a?b HTTP/1.1\r\nhost: h\r\nx-y: z\r\n\r\n"
        );
        let post = Request::fixed(&Method::POST, "/", &fields[..1], b"hey").unwrap();
        assert_eq!(
            render(&post, 0),
            "POST / HTTP/1.1\r\nhost: h\r\nContent-Length: 3\r\n\r\nhey"
        );
        assert!(Request::fixed(&Method::POST, "/", &[], &[b'x'; REQUEST_BYTES_MAX]).is_err());
    }

    #[test]
    fn a_request_is_written_whole_or_not_at_all() {
        let request = Request::event(Values::Official, &[]).unwrap();
        let len = render(&request, 1).len();
        let mut space = vec![0; len - 1];
        let mut reply = Reply::new(&mut space);
        assert!(!request.write(1, &mut reply));
        assert!(reply.is_empty());
    }
}
