//! Serves a request: from its field block, and its body, to its answer.

use crate::content::Sending;
use crate::encode::{Way, Wire};
use crate::method::Method;
use crate::middleware::Middleware;
use crate::origin::Origin;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::response::{Answer, Response};
use crate::routes::Handler;

use super::frame::{ErrorCode, HEADER_BYTES, Header, flag, kind, of_number};
use super::head::{Head, NoHead, Unfit, parse_target};
use super::hpack::{self, Class, DecodeError};
use super::repeat::{Block, recall};
use super::stream::{Body, Stream};
use super::turn::Turn;

impl<S, M: Middleware<S>> Turn<'_, '_, S, M> {
    /// Serves a field block: a request, or its trailers. `rest` is what follows its frame. Returns how many bytes of
    /// `rest` it consumed.
    #[inline]
    pub(super) fn field_block(
        &mut self,
        stream: u32,
        ends_stream: bool,
        block: &[u8],
        rest: &[u8],
    ) -> usize {
        if !self.is_idle(stream) || stream.is_multiple_of(2) {
            self.later_block(stream, ends_stream, block);
            return 0;
        }
        let connection = &mut *self.connection;
        connection.last_stream = stream;
        if !connection.said_go_away {
            connection.served_stream = stream;
        }
        // Taken out of `self`, which is borrowed as a whole while the head lives in one of them.
        let mut repeat = connection.repeat.take();
        let mut space = self.core.space.take();
        let Some(own) = space.as_deref_mut() else {
            unreachable!("it is put back below");
        };
        let repeatable = repeat.as_deref_mut().zip(Block::of(block));
        let head = recall(repeatable, block, &mut connection.table, own);
        let consumed = match &head {
            Err(NoHead::Undecoded(error)) => {
                self.block_failed(*error);
                0
            }
            _ if !self.may_begin(stream) => 0,
            Ok(head) => self.serve(stream, head, ends_stream, rest),
            Err(NoHead::Unfit(unfit)) => {
                self.unfit(stream, *unfit, ends_stream);
                0
            }
        };
        self.core.space = space;
        self.connection.repeat = repeat;
        consumed
    }

    #[cold]
    fn block_failed(&mut self, error: DecodeError) {
        self.fail(match error {
            DecodeError::Malformed => ErrorCode::Compression,
            DecodeError::TooLong => ErrorCode::EnhanceYourCalm,
        });
    }

    /// Whether a request may be served. If not, resets its stream with REFUSED_STREAM: the client may try again.
    #[inline]
    fn may_begin(&mut self, stream: u32) -> bool {
        let connection = &*self.connection;
        let limits = &self.core.limits;
        if connection.streams.len() < limits.streams_max as usize
            && connection.waiting_bytes <= limits.waiting_bytes_max
            && !connection.said_go_away
        {
            return true;
        }
        if connection.waiting_bytes > limits.waiting_bytes_max {
            self.origin
                .counters
                .http2
                .http2_streams_refused_waiting
                .increment();
            self.reset(stream, ErrorCode::RefusedStream);
        } else {
            self.refuse_stream(stream);
        }
        false
    }

    #[cold]
    pub(super) fn refuse_stream(&mut self, stream: u32) {
        self.origin.counters.http2.http2_streams_refused.increment();
        self.reset(stream, ErrorCode::RefusedStream);
    }

    /// A block on a stream that had one before: trailers, or an error.
    #[cold]
    fn later_block(&mut self, stream: u32, ends_stream: bool, block: &[u8]) {
        if stream == 0 || stream.is_multiple_of(2) {
            return self.fail(ErrorCode::Protocol);
        }
        let Some(at) = self.connection.find(stream) else {
            if self.connection.was_reset(stream) {
                self.pay_for_late_block();
                return self.ignore_block(block);
            }
            return self.fail(ErrorCode::StreamClosed);
        };
        let is_over = self.connection.streams[at].body == Body::Done;
        let mut is_malformed = !ends_stream;
        let Self {
            connection, core, ..
        } = self;
        let decoded = hpack::decode(block, &mut connection.table, core.literal(), |field| {
            is_malformed |= field.class == Class::Malformed || field.line[0] == b':';
        });
        if let Err(error) = decoded {
            return self.block_failed(error);
        }
        if is_over {
            return self.reset(stream, ErrorCode::StreamClosed);
        }
        if is_malformed {
            return self.reset(stream, ErrorCode::Protocol);
        }
        self.origin.counters.http2.http2_trailers.increment();
        self.end_body(stream);
    }

    /// Refuses a head that is not a request.
    #[cold]
    fn unfit(&mut self, stream: u32, unfit: Unfit, ends_stream: bool) {
        match unfit {
            Unfit::Malformed => self.reset(stream, ErrorCode::Protocol),
            Unfit::Refused { refusal, head_only } => {
                self.refuse(
                    stream,
                    refusal,
                    self.routes.len(),
                    head_only,
                    ends_stream,
                    0,
                );
            }
        }
    }

    /// Answers the request with this head, or prepares for its body. Returns how many bytes of `rest` it consumed.
    #[inline]
    fn serve(&mut self, stream: u32, head: &Head<'_>, ends_stream: bool, rest: &[u8]) -> usize {
        self.origin.counters.http2.http2_requests.increment();
        self.connection.requested_ns = self.now_ns;
        self.connection.control_frames.put_back();
        self.messages += u32::from(ends_stream);
        if ends_stream && head.content_length.is_some_and(|length| length > 0) {
            self.reset(stream, ErrorCode::Protocol);
            return 0;
        }
        let request = &head.request;
        let head_only = request.method == Method::Head;
        let route = match self.routes.find(&request.target, self.scratch) {
            Ok(Some(route)) => route,
            Ok(None) => {
                self.serve_unrouted(stream, head, ends_stream);
                return 0;
            }
            Err(refusal) => {
                self.refuse(
                    stream,
                    refusal,
                    self.routes.len(),
                    head_only,
                    ends_stream,
                    0,
                );
                return 0;
            }
        };
        let routes = self.routes;
        let entry = routes.entry(route);
        let Some(handler) = entry.handler(request.method) else {
            self.serve_other_method(stream, head, route, ends_stream);
            return 0;
        };
        let request = &Request {
            route: entry.path(),
            ..*request
        };
        match handler {
            Handler::Head(handler) => {
                let (answer, sending) = self.respond(stream, head_only, 0, |origin, way| {
                    origin.answer(request, route, way, |state, response| {
                        handler(state, request, response)
                    })
                });
                self.after_response(stream, head, route, answer, sending, ends_stream);
                0
            }
            Handler::Body(handler) => {
                if let Some(refusal) = self.refuses_body(head) {
                    self.refuse(stream, refusal, route, head_only, ends_stream, 0);
                    return 0;
                }
                let whole = match ends_stream {
                    true => Some((&[][..], 0)),
                    false if head.expects_continue => None,
                    false => self.whole_body(stream, head, rest),
                };
                let Some((body, consumed)) = whole else {
                    self.await_body(stream, head, route, Body::Collect);
                    return 0;
                };
                self.messages += u32::from(!ends_stream);
                let (answer, sending) = self.respond(stream, head_only, 0, |origin, way| {
                    origin.answer(request, route, way, |state, response| {
                        handler(state, request, body, response)
                    })
                });
                self.after_response(stream, head, route, answer, sending, true);
                consumed
            }
            Handler::Relay(relay) => {
                self.begin_relay(stream, head, route, relay, request, ends_stream);
                0
            }
            Handler::Echo => {
                let length = match ends_stream {
                    true => Some(0),
                    false => head.content_length,
                };
                if head.expects_continue && !ends_stream {
                    self.invite_body(stream);
                }
                let (answer, sending) = self.respond(stream, head_only, 0, |origin, way| {
                    origin.answer(request, route, way, |_, response| response.echo(length))
                });
                let is_echo = !head_only && !ends_stream && answer.refusal.is_none();
                if is_echo && !self.connection.outlet.ended {
                    self.await_body(stream, head, route, Body::Echo);
                } else {
                    self.after_response(stream, head, route, answer, sending, ends_stream);
                }
                0
            }
        }
    }

    /// The body of a request and the length of its frame, if the next frame is the whole body, as most are.
    fn whole_body<'b>(
        &mut self,
        stream: u32,
        head: &Head<'_>,
        rest: &'b [u8],
    ) -> Option<(&'b [u8], usize)> {
        let header = Header::parse(rest)?;
        let is_whole = header.kind == kind::DATA
            && header.stream == stream
            && header.flags == flag::END_STREAM
            && header.len
                <= self
                    .origin
                    .limits
                    .body_bytes_max
                    .min(self.core.limits.stream_window_bytes as usize)
            && head
                .content_length
                .is_none_or(|length| length == header.len as u64);
        let len = HEADER_BYTES + header.len;
        let body = rest.get(HEADER_BYTES..len).filter(|_| is_whole)?;
        // Beyond the window it is an error, which the general path for frames reports.
        if header.len as i64 > self.connection.receive_window || !self.receive(header.len) {
            return None;
        }
        Some((body, len))
    }

    /// Why a body is refused that a handler wants.
    fn refuses_body(&self, head: &Head<'_>) -> Option<Refusal> {
        let body_bytes_max = self.origin.limits.body_bytes_max as u64;
        if head.content_coded {
            Some(Refusal::ContentCoding)
        } else if head
            .content_length
            .is_some_and(|length| length > body_bytes_max)
        {
            Some(Refusal::BodyTooLarge)
        } else {
            None
        }
    }

    /// Makes a record of a stream, and waits for its body.
    fn await_body(&mut self, stream: u32, head: &Head<'_>, route: usize, body: Body) {
        let Some(mut buffer) = self.core.pool.lend_buffer() else {
            return self.refuse_stream(stream);
        };
        let request = &head.request;
        if body == Body::Collect {
            // Nothing of a response was written yet.
            self.connection.outlet.begin(stream, 0);
        }
        let mut record = self.record(stream, head, route);
        record.body = body;
        if body == Body::Collect {
            // The target again, as path, `?`, query.
            buffer.extend_from_slice(request.target.path);
            if let Some(query) = request.target.query {
                buffer.push(b'?');
                buffer.extend_from_slice(query);
            }
            record.target_len = buffer.len();
            buffer.extend_from_slice(request.fields);
            record.lines_len = request.fields.len();
            if head.expects_continue {
                self.invite_body(stream);
            }
        } else {
            record.responds = true;
        }
        record.buffer = Some(buffer);
        self.connection.streams.push(record);
    }

    pub(super) fn record(&self, stream: u32, head: &Head<'_>, route: usize) -> Stream {
        let mut record = Stream::new(stream, route, head.request.method, self.now_ns);
        record.content_length = head.content_length;
        record.priority = head.priority;
        record.receive_window = i64::from(self.core.limits.stream_window_bytes);
        record.send_window =
            self.connection.stream_send_window - self.connection.outlet.written as i64;
        record.copied = self.connection.outlet.copied;
        record
    }

    /// Sends `100 Continue` (RFC 9110, section 10.1.1).
    #[cold]
    pub(super) fn invite_body(&mut self, stream: u32) {
        let header = Header {
            len: 5,
            kind: kind::HEADERS,
            flags: flag::END_HEADERS,
            stream,
        };
        let mut frame = [0; HEADER_BYTES + 5];
        frame[..HEADER_BYTES].copy_from_slice(&header.bytes());
        frame[HEADER_BYTES..].copy_from_slice(b"\x08\x03100");
        self.control(&frame);
        self.origin.counters.continues.increment();
    }

    /// No route has the path: `OPTIONS *`, or 404.
    #[cold]
    fn serve_unrouted(&mut self, stream: u32, head: &Head<'_>, ends_stream: bool) {
        let request = &head.request;
        let (route, head_only) = (self.routes.len(), request.method == Method::Head);
        let is_server = request.target.path == b"*";
        if !is_server && !request.target.has_valid_path() {
            return self.refuse(stream, Refusal::Target, route, head_only, ends_stream, 0);
        }
        let allow = self.routes.allow();
        let answer = |response: Response<'_, '_>| match is_server {
            true => response.empty(),
            false => response.refuse(Refusal::NotFound),
        };
        let (answer, sending) = self.respond(stream, head_only, 0, |origin, way| {
            origin.answer_without_handler(request, route, way, |response| match is_server {
                true => answer(response.allow(allow)),
                false => answer(response),
            })
        });
        self.after_response(stream, head, route, answer, sending, ends_stream);
    }

    /// The route has no handler for the method: OPTIONS, or 405.
    #[cold]
    fn serve_other_method(
        &mut self,
        stream: u32,
        head: &Head<'_>,
        route: usize,
        ends_stream: bool,
    ) {
        let request = &head.request;
        let allow = &self.routes.entry(route).allow;
        let head_only = request.method == Method::Head;
        let (answer, sending) = self.respond(stream, head_only, 0, |origin, way| {
            origin.answer_without_handler(request, route, way, |response| {
                let response = response.allow(allow);
                match request.method {
                    Method::Options => response.empty(),
                    _ => response.refuse(Refusal::MethodNotAllowed),
                }
            })
        });
        self.after_response(stream, head, route, answer, sending, ends_stream);
    }

    /// Writes a response. Returns with it the content for which there was no room.
    #[inline]
    fn respond(
        &mut self,
        stream: u32,
        head_only: bool,
        began_ns: u64,
        answer: impl FnOnce(&mut Origin<S, M>, Way<'_, '_>) -> Answer,
    ) -> (Answer, Sending) {
        let connection = &mut *self.connection;
        let stream_window = match connection.find(stream) {
            Some(at) => connection.streams[at].send_window,
            None => connection.stream_send_window,
        };
        let window = connection.send_window.min(stream_window).max(0) as usize;
        connection.outlet.begin(stream, window);
        let mut sending = Sending::default();
        let way = Way {
            wire: Wire::Http2(&mut connection.outlet),
            head_only,
            reply: self.reply,
            sending: &mut sending,
            began_ns,
        };
        let answer = answer(self.origin, way);
        connection.send_window -= connection.outlet.written as i64;
        (answer, sending)
    }

    /// Makes a record of a stream if its response or its body is not over.
    #[inline]
    fn after_response(
        &mut self,
        stream: u32,
        head: &Head<'_>,
        route: usize,
        answer: Answer,
        sending: Sending,
        ends_stream: bool,
    ) {
        if self.connection.outlet.ended && ends_stream {
            self.origin.counters.http2.http2_requests_direct.increment();
            return;
        }
        self.record_response(stream, head, route, answer, sending, ends_stream);
    }

    #[inline(never)]
    fn record_response(
        &mut self,
        stream: u32,
        head: &Head<'_>,
        route: usize,
        answer: Answer,
        sending: Sending,
        ends_stream: bool,
    ) {
        let body_bytes_max = self.origin.limits.body_bytes_max as u64;
        let mut record = self.record(stream, head, route);
        record.sending = sending;
        record.responds = !self.connection.outlet.ended;
        record.body = match ends_stream {
            true => Body::Done,
            false => Body::Discard {
                allowance: body_bytes_max,
            },
        };
        // A body that no handler wants is read only if it is short and the client has not asked with `Expect`.
        let leaves_body = !ends_stream
            && (answer.refusal.is_some()
                || head.expects_continue
                || head
                    .content_length
                    .is_some_and(|length| length > body_bytes_max));
        if leaves_body && !record.responds {
            return self.reset(stream, ErrorCode::No);
        }
        if self.send_now(&mut record) {
            return;
        }
        self.connection.waiting_bytes += record.copied;
        self.connection.streams.push(record);
    }

    /// Answers with an error; the rest of the request is not wanted.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        stream: u32,
        refusal: Refusal,
        route: usize,
        head_only: bool,
        ends_stream: bool,
        began_ns: u64,
    ) {
        let (_, sending) = self.respond(stream, head_only, began_ns, |origin, way| {
            origin.refuse(refusal, route, way)
        });
        let is_ended = self.connection.outlet.ended;
        let window = match self.connection.find(stream) {
            Some(at) => self.connection.streams[at].send_window,
            None => self.connection.stream_send_window,
        };
        if is_ended && !ends_stream {
            // RFC 9113, section 8.1: RST_STREAM with NO_ERROR asks the client to stop sending.
            return self.reset(stream, ErrorCode::No);
        }
        if !is_ended {
            self.forget(stream);
            let mut record = Stream::new(stream, route, Method::Get, self.now_ns);
            record.sending = sending;
            record.responds = true;
            record.copied = self.connection.outlet.copied;
            record.send_window = window;
            record.receive_window = i64::from(self.core.limits.stream_window_bytes);
            record.body = match ends_stream {
                true => Body::Done,
                false => Body::Discard { allowance: 0 },
            };
            self.connection.waiting_bytes += record.copied;
            self.connection.streams.push(record);
        }
    }

    /// Ends a request whose rest has not arrived in time.
    pub(super) fn refuse_late(&mut self, stream: u32) {
        let Some(at) = self.connection.find(stream) else {
            return;
        };
        let record = &self.connection.streams[at];
        let (route, began_ns) = (usize::from(record.route), record.began_ns);
        self.refuse(stream, Refusal::Timeout, route, false, false, began_ns);
    }

    /// Adds bytes to the body of a stream; `is_last` says that no more follow.
    pub(super) fn body(&mut self, stream: u32, data: &[u8], is_last: bool) {
        let body_bytes_max = self.origin.limits.body_bytes_max;
        // The stream may have been reset since the frame began.
        let Some(at) = self.connection.find(stream) else {
            return;
        };
        let record = &mut self.connection.streams[at];
        record.received += data.len() as u64;
        if record
            .content_length
            .is_some_and(|length| record.received > length)
        {
            return self.reset(stream, ErrorCode::Protocol);
        }
        match &mut record.body {
            Body::Collect if record.received > body_bytes_max as u64 => {
                let (route, began_ns) = (usize::from(record.route), record.began_ns);
                return self.refuse(stream, Refusal::BodyTooLarge, route, false, false, began_ns);
            }
            Body::Collect => {
                if let Some(buffer) = &mut record.buffer {
                    buffer.extend_from_slice(data);
                }
                record.credit += data.len() as u32;
            }
            Body::Echo => {
                if let Some(buffer) = &mut record.buffer {
                    buffer.extend_from_slice(data);
                }
            }
            Body::Relay => {
                if let Some(buffer) = &mut record.buffer {
                    buffer.extend_from_slice(data);
                }
                self.upload(at);
            }
            Body::Discard { allowance } => match allowance.checked_sub(data.len() as u64) {
                Some(left) => {
                    *allowance = left;
                    record.credit += data.len() as u32;
                }
                None if record.responds => {}
                None => {
                    self.origin.counters.bodies_abandoned.increment();
                    return self.reset(stream, ErrorCode::No);
                }
            },
            Body::Done => {}
        }
        if !is_last {
            self.give_stream_credit(at);
        }
    }

    /// Sends WINDOW_UPDATE for what was consumed of a stream.
    pub(super) fn give_stream_credit(&mut self, at: usize) {
        let record = &mut self.connection.streams[at];
        let credit = record.credit;
        if credit > 0 && credit >= self.core.limits.stream_window_bytes / 2 {
            record.credit = 0;
            record.receive_window += i64::from(credit);
            let frame = of_number(kind::WINDOW_UPDATE, record.id, credit);
            self.control(&frame);
        }
    }

    /// Ends the body of a stream.
    pub(super) fn end_body(&mut self, stream: u32) {
        let Some(at) = self.connection.find(stream) else {
            return;
        };
        self.messages += 1;
        let record = &mut self.connection.streams[at];
        if record
            .content_length
            .is_some_and(|length| length != record.received)
        {
            return self.reset(stream, ErrorCode::Protocol);
        }
        let body = std::mem::replace(&mut record.body, Body::Done);
        if body == Body::Collect {
            self.serve_collected(at);
        } else if body == Body::Relay {
            self.upload(at);
        } else if self.connection.streams[at].is_over() {
            self.forget(stream);
        }
    }

    /// Calls the handler of a stream whose body is complete.
    fn serve_collected(&mut self, at: usize) {
        let mut record = self.connection.streams.swap_remove(at);
        let route = usize::from(record.route);
        let routes = self.routes;
        let entry = routes.entry(route);
        let buffer = record.buffer.take().unwrap_or_default();
        let (target, rest) = buffer.split_at(record.target_len);
        let (fields, body) = rest.split_at(record.lines_len);
        let Some(target) = parse_target(target, record.method) else {
            unreachable!("only a valid target is kept");
        };
        let Some(Handler::Body(handler)) = entry.handler(record.method) else {
            unreachable!("only a handler of bodies is collected for");
        };
        let request = &Request {
            method: record.method,
            target,
            fields,
            route: entry.path(),
        };
        let head_only = record.method == Method::Head;
        // The window of the stream may have changed since its record was made.
        let stream = record.id;
        let window = record.send_window;
        let began_ns = record.began_ns;
        let connection_window = self.connection.stream_send_window;
        self.connection.stream_send_window = window;
        let (_, sending) = self.respond(stream, head_only, began_ns, |origin, way| {
            origin.answer(request, route, way, |state, response| {
                handler(state, request, body, response)
            })
        });
        self.connection.stream_send_window = connection_window;
        self.core.pool.take_back_buffer(buffer);
        if self.connection.outlet.ended {
            return;
        }
        record.sending = sending;
        record.responds = true;
        record.send_window = window - self.connection.outlet.written as i64;
        record.copied = self.connection.outlet.copied;
        record.moved_ns = self.now_ns;
        if !self.send_now(&mut record) {
            self.connection.waiting_bytes += record.copied;
            self.connection.streams.push(record);
        }
    }

    fn pay_for_late_block(&mut self) {
        if !self.connection.control_frames.take(self.now_ns) {
            self.origin.counters.http2.http2_floods_control.increment();
            self.fail(ErrorCode::EnhanceYourCalm);
        }
    }
}
