//! Streams whose requests are answered from elsewhere, later and piece by piece ([`Relay`]).
//!
//! One connection has many calls, and a wake does not say which of them it is for: in every turn, each is asked. What the
//! client sends faster than its relay takes it waits in a buffer of the stream, which the window of the stream limits: the
//! window grows by what the relay took.

use crate::method::Method;
use crate::middleware::Middleware;
use crate::origin::Origin;
use crate::relay::{Consumed, Relay, Relayed, Upload};
use crate::request::Request;
use crate::routes::Routes;
use crate::status::Status;

use super::connection::Http2Connection;
use super::frame::ErrorCode;
use super::head::Head;
use super::stream::{Body, Stream};
use super::turn::Turn;

/// A call as the stream of its client knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relaying {
    call: u32,
    head_only: bool,
    /// All of the body was handed on.
    is_uploaded: bool,
    /// The head of the response was written.
    has_begun: bool,
    /// There is more of the response than its head.
    is_ready: bool,
    /// A window of the client is closed.
    is_blocked: bool,
}

impl Relaying {
    /// Whether a frame of the response can be sent.
    pub(super) fn may_send(&self) -> bool {
        self.is_ready && !self.is_blocked
    }
}

impl Stream {
    /// Whether nothing is expected from the client.
    pub(super) fn waits_for_relay(&self) -> bool {
        let has_all_it_can_take = match &self.buffer {
            Some(buffer) => self.body == Body::Done || !buffer.is_empty(),
            None => true,
        };
        self.relaying.is_some_and(|relaying| !relaying.is_ready) && has_all_it_can_take
    }
}

impl<S, M: Middleware<S>> Turn<'_, '_, S, M> {
    /// Hands a request to its relay, if that accepts it.
    #[inline(never)]
    pub(super) fn begin_relay(
        &mut self,
        stream: u32,
        head: &Head<'_>,
        route: usize,
        relay: &'static dyn Relay<S>,
        request: &Request<'_>,
        ends_stream: bool,
    ) {
        let buffer = match ends_stream {
            true => None,
            false => match self.core.pool.lend_buffer() {
                Some(buffer) => Some(buffer),
                None => return self.refuse_stream(stream),
            },
        };
        let upload = match (ends_stream, head.content_length) {
            (true, _) => Upload::Absent,
            (false, Some(length)) => Upload::Length(length),
            (false, None) => Upload::Chunked,
        };
        let head_only = request.method == Method::Head;
        let call = match relay.begin(&mut self.origin.state, request, "2.0", upload) {
            Ok(call) => call,
            Err(refusal) => {
                if let Some(buffer) = buffer {
                    self.core.pool.take_back_buffer(buffer);
                }
                return self.refuse(stream, refusal, route, head_only, ends_stream, 0);
            }
        };
        if head.expects_continue && !ends_stream {
            self.invite_body(stream);
        }
        // Nothing of a response was written yet.
        self.connection.outlet.begin(stream, 0);
        let mut record = self.record(stream, head, route);
        record.body = match ends_stream {
            true => Body::Done,
            false => Body::Relay,
        };
        record.buffer = buffer;
        record.responds = true;
        record.relaying = Some(Relaying {
            call,
            head_only,
            is_uploaded: ends_stream,
            has_begun: false,
            is_ready: false,
            is_blocked: false,
        });
        self.connection.streams.push(record);
    }

    /// Asks every relay for what there is of its response. Returns whether there is more that only waits for room.
    pub(super) fn ask_relays(&mut self) -> bool {
        let mut at = 0;
        while let Some(record) = self.connection.streams.get(at) {
            let (id, is_relayed) = (record.id, record.relaying.is_some());
            if is_relayed {
                if !self.flush() {
                    return true;
                }
                self.upload(at);
                self.ask_relay(at);
                if self.connection.closed {
                    return false;
                }
            }
            // One that was ended has left its place to the last one.
            let is_there = self.connection.streams.get(at);
            at += usize::from(is_there.is_some_and(|record| record.id == id));
        }
        !self.flush()
    }

    /// Whether nothing is expected from the client on any stream.
    pub(super) fn waits_for_relays(&self) -> bool {
        let mut streams = self.connection.streams.iter();
        streams.all(Stream::waits_for_relay)
    }

    /// Hands on what has arrived of a body, as far as there is room.
    pub(super) fn upload(&mut self, at: usize) {
        let routes = self.routes;
        let state = &mut self.origin.state;
        let record = &mut self.connection.streams[at];
        let (Some(relaying), Some(buffer)) = (&mut record.relaying, &mut record.buffer) else {
            return;
        };
        let relay = routes.entry(record.route.into()).relay();
        let mut taken = 0;
        while taken < buffer.len() {
            let room = relay.upload_room(state, relaying.call);
            let data = &buffer[taken..];
            let data = &data[..data.len().min(room)];
            if data.is_empty() {
                break;
            }
            relay.upload(state, relaying.call, data, false);
            taken += data.len();
        }
        buffer.drain(..taken);
        if buffer.is_empty() && record.body == Body::Done && !relaying.is_uploaded {
            relaying.is_uploaded = true;
            relay.upload(state, relaying.call, &[], true);
        }
        if taken > 0 {
            record.credit += taken as u32;
            record.moved_ns = self.now_ns;
            self.moved = true;
        }
        if record.body == Body::Relay {
            self.give_stream_credit(at);
        }
    }

    /// Writes the head of a response when it is there, and notes whether there is more.
    fn ask_relay(&mut self, at: usize) {
        let record = &mut self.connection.streams[at];
        let Some(relaying) = &mut record.relaying else {
            return;
        };
        let (id, call) = (record.id, relaying.call);
        let relay = self.routes.entry(record.route.into()).relay();
        let Origin {
            state,
            server_and_date,
            ..
        } = &mut *self.origin;
        if !relaying.has_begun {
            match relay.reply(state, call) {
                Relayed::Pending => return,
                Relayed::Head(head) => {
                    let mut space = [0; 29];
                    let date = match head.has_date {
                        true => "",
                        false => server_and_date.date(&mut space),
                    };
                    self.connection.outlet.put_relayed_head(id, &head, date);
                    let status = Status::counted_as(head.status);
                    relay.consume(state, call, Consumed::Head);
                    relaying.has_begun = true;
                    let began_ns = std::mem::take(&mut record.began_ns);
                    let route = record.route.into();
                    self.origin.count_relayed(status, route, began_ns);
                }
                Relayed::Refused(refusal) => {
                    let (route, began_ns) = (record.route.into(), record.began_ns);
                    let is_whole = record.body == Body::Done;
                    let head_only = relaying.head_only;
                    self.forget(id);
                    return self.refuse(id, refusal, route, head_only, is_whole, began_ns);
                }
                Relayed::Content { .. } | Relayed::Broken => {
                    return self.reset(id, ErrorCode::Internal);
                }
            }
        }
        let state = &mut self.origin.state;
        relaying.is_ready = !matches!(relay.reply(state, call), Relayed::Pending);
        relaying.is_blocked = false;
    }
}

/// Moves content of a response to `space`. Returns its length, and whether it is the last; `None` if there is none to be
/// moved, or, if the call is over with that, if the rest will never come.
pub(super) fn take_content<S>(
    routes: &Routes<S>,
    state: &mut S,
    record: &mut Stream,
    space: &mut [u8],
) -> Option<(usize, bool)> {
    let relaying = record.relaying.as_mut()?;
    let relay = routes.entry(record.route.into()).relay();
    let call = relaying.call;
    let (len, is_last) = match relay.reply(state, call) {
        Relayed::Content { bytes, is_last } => {
            let len = match relaying.head_only {
                true => bytes.len(),
                false => bytes.len().min(space.len()),
            };
            let is_last = is_last && len == bytes.len();
            if !relaying.head_only {
                space[..len].copy_from_slice(&bytes[..len]);
            }
            (len, is_last)
        }
        Relayed::Pending => {
            relaying.is_ready = false;
            return None;
        }
        Relayed::Head(_) | Relayed::Refused(_) | Relayed::Broken => {
            end_call(routes, state, record);
            return None;
        }
    };
    if len == 0 && !is_last {
        relaying.is_blocked = true;
        return None;
    }
    relay.consume(state, call, Consumed::Content(len));
    let sent = if relaying.head_only { 0 } else { len };
    if is_last {
        end_call(routes, state, record);
    }
    Some((sent, is_last))
}

/// Ends the call of a stream, if it has one.
pub(super) fn end_call<S>(routes: &Routes<S>, state: &mut S, stream: &mut Stream) {
    if let Some(relaying) = stream.relaying.take() {
        routes
            .entry(stream.route.into())
            .relay()
            .end(state, relaying.call);
    }
}

/// The connection is over: ends its calls.
pub(in super::super) fn end_calls<S>(
    connection: &mut Http2Connection,
    routes: &Routes<S>,
    state: &mut S,
) {
    for stream in &mut connection.streams {
        end_call(routes, state, stream);
    }
}
