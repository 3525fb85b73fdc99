//! Reads HTTP/1.1 responses as they arrive (RFC 9112, sections 4, 6 and 7).
//!
//! A [`Response`] is one connection's place in the response it is reading. It is shown whatever
//! bytes there are and takes what it can: a body's as they come, a head only when it is whole. Nothing is copied and nothing is allocated.
//!
//! A load generator sees the same head again and again, apart from the second in `Date`. So the
//! [`Heads`] of a thread remember the last one: a head that is byte for byte the same means the
//! same, and comparing costs a tenth of parsing.

use barewire_http::received::{Fields, Found, Framing, ResponseError, ResponseHead};

/// Longest head of a response, in bytes, that is accepted.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// One connection's place in the response that it reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Response {
    place: Place,
}

/// What reading a piece of input led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Bytes taken from the front of the input.
    pub consumed: usize,
    /// The response whose last byte was taken; `None` when more input is needed.
    pub complete: Option<Complete>,
}

/// A response that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complete {
    /// Its status code, 200 to 999.
    pub status: u16,
    /// The server closes the connection after it.
    pub close: bool,
}

#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    Head,
    Content(Complete, Framing),
}

impl Response {
    /// Whether nothing of a response was taken yet, so that the stream may end here.
    pub fn is_between(&self) -> bool {
        matches!(self.place, Place::Head)
    }

    /// Whether the head was taken and the body is awaited.
    pub fn is_in_body(&self) -> bool {
        !self.is_between()
    }

    /// Takes bytes from the front of `bytes` until the end of one response.
    ///
    /// `ended`: the server will send no more than these. `to_head`: the request was `HEAD`, whose
    /// answers have no body. Content goes to `sink` piece by piece. Interim responses (1xx) are
    /// skipped.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be a response; the connection is of no use any more then.
    #[inline]
    pub fn read(
        &mut self,
        bytes: &[u8],
        ended: bool,
        to_head: bool,
        heads: &mut Heads,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Read, ResponseError> {
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let complete = match &mut self.place {
                Place::Head => {
                    let Some((head, len)) = heads.parse(rest)? else {
                        break;
                    };
                    consumed += len;
                    if !head.is_interim() {
                        let (status, close) = (head.status, head.closes(to_head));
                        let complete = Complete { status, close };
                        self.place = Place::Content(complete, head.content(to_head));
                    }
                    continue;
                }
                Place::Content(complete, content) => {
                    let (taken, found) = content.advance(rest, usize::MAX, ended)?;
                    consumed += taken;
                    match found {
                        Found::More => break,
                        Found::Data(len) => {
                            sink(&bytes[consumed - len..consumed]);
                            continue;
                        }
                        Found::End => *complete,
                    }
                }
            };
            self.place = Place::Head;
            return Ok(Read {
                consumed,
                complete: Some(complete),
            });
        }
        Ok(Read {
            consumed,
            complete: None,
        })
    }
}

/// Parses heads, and remembers the last one.
#[derive(Debug)]
pub struct Heads {
    last: Vec<u8>,
    last_means: Option<ResponseHead>,
}

impl Default for Heads {
    fn default() -> Self {
        Heads {
            last: Vec::with_capacity(HEAD_BYTES_MAX),
            last_means: None,
        }
    }
}

impl Heads {
    /// The head at the front of `bytes` and its length; `None` while its end is missing.
    #[inline]
    fn parse(&mut self, bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, ResponseError> {
        match self.last_means {
            Some(head) if bytes.starts_with(&self.last) => Ok(Some((head, self.last.len()))),
            _ => self.parse_new(bytes),
        }
    }

    #[cold]
    fn parse_new(&mut self, bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, ResponseError> {
        let parsed = ResponseHead::parse(bytes, &mut Fields::default())?;
        match parsed {
            Some((head, len)) if len <= HEAD_BYTES_MAX => {
                self.last.clear();
                self.last.extend_from_slice(&bytes[..len]);
                self.last_means = Some(head);
                Ok(parsed)
            }
            None if bytes.len() < HEAD_BYTES_MAX => Ok(None),
            _ => Err(ResponseError::HeadTooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that a stream of responses amounts to, however it is cut.
    #[derive(Debug, PartialEq, Default)]
    struct Story {
        statuses: Vec<(u16, bool)>,
        body: Vec<u8>,
        error: Option<ResponseError>,
        between: bool,
    }

    /// Reads `pieces` as a transport shows them: what was not taken comes again, in front.
    fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, to_head: bool) -> Story {
        let (mut heads, mut response, mut story) =
            (Heads::default(), Response::default(), Story::default());
        let mut held = Vec::new();
        let mut pieces = pieces.into_iter().peekable();
        'pieces: while let Some(piece) = pieces.next() {
            held.extend_from_slice(piece);
            let ended = pieces.peek().is_none();
            loop {
                let sink = |bytes: &[u8]| story.body.extend_from_slice(bytes);
                match response.read(&held, ended, to_head, &mut heads, sink) {
                    Ok(read) => {
                        held.drain(..read.consumed);
                        match read.complete {
                            Some(complete) => {
                                story.statuses.push((complete.status, complete.close));
                            }
                            None => break,
                        }
                    }
                    Err(error) => {
                        story.error = Some(error);
                        break 'pieces;
                    }
                }
            }
        }
        story.between = response.is_between() && held.is_empty();
        story
    }

    fn read_whole(stream: &[u8]) -> Story {
        read_pieces([stream, b""], false)
    }

    /// A stream, the responses in it (status, close), and their content.
    type Case = (&'static str, &'static [(u16, bool)], &'static str);

    #[test]
    fn framing_is_read_as_the_rfc_says() {
        let cases: &[Case] = &[
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                &[(200, false)],
                "hello",
            ),
            (
                "HTTP/1.1 200\r\ncontent-length:0\r\n\r\n",
                &[(200, false)],
                "",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", &[(204, false)], ""),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                &[(304, false)],
                "",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
                &[(200, false)],
                "x",
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
                &[(200, true)],
                "x",
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n",
                &[(200, true)],
                "",
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
                &[(200, true)],
                "x",
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
                &[(200, false)],
                "x",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nuntil the end",
                &[(200, true)],
                "until the end",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\nall of it",
                &[(200, true)],
                "all of it",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n",
                &[(200, false)],
                "abc0123456789",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, CHUNKED\r\n\r\n0\r\n\r\n",
                &[(200, false)],
                "",
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
                &[(201, false)],
                "ok",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nbc",
                &[(200, false), (503, false)],
                "abc",
            ),
        ];
        for (stream, statuses, body) in cases {
            let story = read_whole(stream.as_bytes());
            assert_eq!(story.error, None, "{stream}");
            assert_eq!(story.statuses, *statuses, "{stream}");
            assert_eq!(story.body, body.as_bytes(), "{stream}");
            assert!(story.between, "{stream}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        use ResponseError::*;
        let cases: &[(&str, ResponseError)] = &[
            ("SSH-2.0-OpenSSH_9.2\r\n", StatusLine),
            ("HTTP/1.1 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 099 Low\r\n\r\n", Status),
            (
                "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                SwitchedProtocols,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n",
                ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                ContentLength,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", ContentLength),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
                ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                Chunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
                Chunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx\n\r\n",
                Chunk,
            ),
        ];
        for (stream, error) in cases {
            assert_eq!(
                read_whole(stream.as_bytes()).error,
                Some(*error),
                "{stream}"
            );
        }
    }

    #[test]
    fn endless_heads_and_trailers_are_refused() {
        let endless_field = [
            b"HTTP/1.1 200 OK\r\nX: ".as_slice(),
            &[b'a'; HEAD_BYTES_MAX],
        ]
        .concat();
        assert_eq!(
            read_whole(&endless_field).error,
            Some(ResponseError::HeadTooLong)
        );

        const OVERHEAD_BYTES: usize = 64 << 10;
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
        let endless_line = [chunked, b"0\r\n", &[b'a'; OVERHEAD_BYTES]].concat();
        assert_eq!(read_whole(&endless_line).error, Some(ResponseError::Chunk));
        let many_fields = [chunked, b"0\r\n", &b"X: y\r\n".repeat(1 << 15)].concat();
        assert_eq!(read_whole(&many_fields).error, Some(ResponseError::Chunk));
        let endless_extension = [chunked, b"1;", &[b'a'; OVERHEAD_BYTES]].concat();
        assert_eq!(
            read_whole(&endless_extension).error,
            Some(ResponseError::Chunk)
        );
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let story = read_pieces([stream.as_slice(), stream, b""], true);
        assert_eq!(story.statuses, [(200, false), (200, false)]);
        assert!(story.between && story.body.is_empty());
    }

    #[test]
    fn a_stream_that_ends_too_early_is_not_between_responses() {
        for cut in [
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        ] {
            let story = read_whole(cut.as_bytes());
            assert!(
                !story.between && story.statuses.is_empty() && story.error.is_none(),
                "{cut}"
            );
        }
    }

    fn response() -> impl Strategy<Value = Vec<u8>> {
        let sized = ("[a-z]{0,40}", 200u16..600).prop_map(|(body, status)| {
            format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        });
        let chunked = prop::collection::vec("[a-z]{1,20}", 0..4).prop_map(|chunks| {
            let chunks = chunks
                .iter()
                .map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
            let chunks: String = chunks.collect();
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\nA: b\r\n\r\n"
            )
        });
        let same = Just("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned());
        let empty = Just("HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n".to_owned());
        prop_oneof![sized, chunked, same, empty].prop_map(String::into_bytes)
    }

    proptest! {
        #[test]
        fn a_stream_means_the_same_however_it_is_split(
            responses in prop::collection::vec(response(), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            // 204 and 304 have no body, so a drawn body behind such a status is garbage: the same
            // garbage must come of every split.
            let stream = responses.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).chain([b"".as_slice()]);
            let (split, whole) = (read_pieces(pieces, false), read_whole(&stream));
            prop_assert_eq!(split, whole);

            let bytewise = stream.chunks(1).chain([b"".as_slice()]);
            prop_assert_eq!(read_pieces(bytewise, false), read_whole(&stream));
        }

        #[test]
        fn no_input_makes_it_panic(stream in prop::collection::vec(any::<u8>(), 0..400)) {
            read_whole(&stream);
            read_whole(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", stream.as_slice()].concat());
        }
    }
}
