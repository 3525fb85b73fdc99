//! Decides a response: its status, its fields, its content. [`encode`](super::encode) writes it.

use serde::Serialize;

use super::content::Content;
use super::content_type::ContentType;
use super::encode::Encoder;
use super::json::JsonError;
use super::piece::Piece;
use super::protocol::Protocol;
use super::refusal::Refusal;
use super::status::Status;

/// The response to one request, to be written exactly once: a handler turns it into an [`Answer`].
///
/// Content can be lent or given away. What is lent, as a slice or to be serialised, is written where it
/// is sent from; only what does not fit there is copied. [`Content`] is given away, and never copied as
/// a whole.
///
/// The methods that add something never fail. What cannot be sent as it is, because a field would
/// break the message's grammar or a limit is exceeded, turns the response into a 500, which is counted.
#[must_use = "a request without an answer blocks the connection"]
#[derive(Debug)]
pub struct Response<'r, 's> {
    status: Status,
    copied_bytes_max: usize,
    encoder: Encoder<'r, 's>,
}

/// Proof that a [`Response`] was written, and what it said.
#[must_use = "the responder needs the answer"]
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub(super) status: Status,
    pub(super) refusal: Option<Refusal>,
    /// The response says that the connection ends after it.
    pub(super) closes: bool,
    pub(super) protocol: Protocol,
}

impl Answer {
    /// The status that was sent.
    pub fn status(&self) -> Status {
        self.status
    }
}

/// A reason to refuse a request, and what the client is told about it.
#[derive(Debug)]
pub struct Rejection {
    reason: Refusal,
    detail: Option<String>,
}

impl From<Refusal> for Rejection {
    fn from(reason: Refusal) -> Self {
        Rejection {
            reason,
            detail: None,
        }
    }
}

impl From<JsonError> for Rejection {
    fn from(error: JsonError) -> Self {
        Rejection {
            reason: error.refusal(),
            detail: Some(format!("{error}\n")),
        }
    }
}

impl<'r, 's> Response<'r, 's> {
    #[inline]
    pub(super) fn new(copied_bytes_max: usize, encoder: Encoder<'r, 's>) -> Self {
        Response {
            status: Status::Ok,
            copied_bytes_max,
            encoder,
        }
    }

    /// Answers with `status` instead of 200.
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Adds a field line. Names may be repeated.
    ///
    /// An invalid name or value (RFC 9110, section 5), one with a line end, say, turns the
    /// response into a 500. So do fields that the responder itself sends: Connection, Content-Length,
    /// Content-Type, Date, Keep-Alive, Server, Transfer-Encoding and Upgrade.
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.encoder.fields.push(name, value.as_ref());
        self
    }

    /// Ends the connection after this response.
    pub fn close(mut self) -> Self {
        self.encoder.way.wire.close();
        self
    }

    /// Sends `content` as `text/plain`.
    #[inline]
    pub fn text(self, content: &str) -> Answer {
        self.body(ContentType::TEXT, content.as_bytes())
    }

    /// Sends `content`, which is copied.
    #[inline]
    pub fn body(mut self, content_type: &ContentType, content: &[u8]) -> Answer {
        if self.is_unusual() {
            return self.unusual();
        }
        if content.len() > self.copied_bytes_max && !self.encoder.has_room(content.len()) {
            return self.refuse(Refusal::Overflow);
        }
        self.encoder.copy(self.status, content_type, content);
        self.answer(None)
    }

    /// Serialises `value` as `application/json`.
    #[inline]
    pub fn json<T: Serialize>(mut self, value: &T) -> Answer {
        if self.is_unusual() {
            return self.unusual();
        }
        if self.encoder.json(self.status, value) {
            self.answer(None)
        } else {
            self.long_json(value)
        }
    }

    /// There is no room for the value, or it cannot be serialised.
    #[cold]
    fn long_json<T: Serialize>(self, value: &T) -> Answer {
        match serde_json::to_vec(value) {
            Ok(content) if content.len() <= self.copied_bytes_max => {
                self.send(ContentType::JSON, content)
            }
            _ => self.refuse(Refusal::Overflow),
        }
    }

    /// Sends `content` of any length as fast as the peer takes it.
    pub fn send(mut self, content_type: &ContentType, content: impl Into<Content>) -> Answer {
        if self.is_unusual() {
            return self.unusual();
        }
        self.encoder.send(self.status, content_type, content.into());
        self.answer(None)
    }

    /// Sends no content.
    #[inline]
    pub fn empty(mut self) -> Answer {
        if self.encoder.fields.is_spoilt() {
            return self.refuse(Refusal::ResponseField);
        }
        self.encoder.empty(self.status);
        self.answer(None)
    }

    /// Sends no content, whatever was to be sent.
    #[cold]
    fn unusual(self) -> Answer {
        self.empty()
    }

    /// Redirects the client to `location`, with 303 unless another status was chosen: it sends a GET there.
    pub fn redirect(mut self, location: &str) -> Answer {
        if self.status == Status::Ok {
            self.status = Status::SeeOther;
        }
        self.field("Location", location).empty()
    }

    /// Answers with the status and the text of a [`Refusal`], which is counted.
    #[cold]
    pub fn refuse(self, rejection: impl Into<Rejection>) -> Answer {
        let Rejection { reason, detail } = rejection.into();
        self.refuse_saying(reason, detail.as_deref().unwrap_or(reason.detail()))
    }

    /// Refuses with the text of a reason, or another one.
    #[inline]
    pub(super) fn refuse_saying(mut self, reason: Refusal, detail: &str) -> Answer {
        let fields = &self.encoder.fields;
        if fields.is_touched() && (fields.is_spoilt() || !self.encoder.has_room(detail.len())) {
            self.encoder.fields.clear();
        }
        self.status = reason.status();
        self.encoder
            .copy(self.status, ContentType::REFUSAL, detail.as_bytes());
        self.answer(Some(reason))
    }

    /// Begins a response whose content the caller sends; of this length, if that is known.
    pub(super) fn echo(mut self, length: Option<u64>) -> Answer {
        if self.is_unusual() {
            return self.unusual();
        }
        self.encoder
            .head_only(self.status, ContentType::BYTES, length);
        self.answer(None)
    }

    /// Names the methods that the resource has.
    pub(super) fn allow(mut self, allow: &'r Piece<64>) -> Self {
        self.encoder.allow = Some(allow);
        self
    }

    /// Whether the content does not matter after all.
    #[inline]
    fn is_unusual(&self) -> bool {
        self.status.forbids_content() || self.encoder.fields.is_spoilt()
    }

    #[inline]
    fn answer(&self, refusal: Option<Refusal>) -> Answer {
        Answer {
            status: self.status,
            refusal,
            closes: self.encoder.way.wire.closes(),
            protocol: self.encoder.way.wire.protocol(),
        }
    }
}
