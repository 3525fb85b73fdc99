//! One call on an HTTP/2 connection: reads frames, serves requests, sends what waits.

use barewire_service::service::{Expect, Input, Next, Progress, Reply};

use crate::connection::{Connection, Speaks};
use crate::counters::HttpCounters;
use crate::encode::ROOM_MIN;
use crate::middleware::Middleware;
use crate::origin::Origin;
use crate::responder::Responder;
use crate::routes::Routes;

use super::Http2;
use super::connection::{Block, Http2Connection, Reading};
use super::encode::RESERVE;
use super::frame::{
    ErrorCode, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, PREFACE, WINDOW_BYTES, WINDOW_BYTES_MAX,
    flag, kind, number, of_number, setting,
};
use super::hpack;
use super::priority::Priority;
use super::relay;
use super::stream::Body;

/// A call on a connection.
pub(super) struct Turn<'t, 's, S: 'static, M> {
    pub(super) routes: &'t Routes<S>,
    pub(super) origin: &'t mut Origin<S, M>,
    /// Where a path is decoded.
    pub(super) scratch: &'t mut Vec<u8>,
    pub(super) core: &'t mut Http2,
    pub(super) connection: &'t mut Http2Connection,
    pub(super) reply: &'t mut Reply<'s>,
    /// Requests whose last byte was consumed.
    pub(super) messages: u32,
    /// The client has accepted enough of a response for its deadline to begin anew.
    pub(super) moved: bool,
    pub(super) now_ns: u64,
}

/// The effect of reading the next bytes.
enum Step {
    /// So many were consumed.
    Consumed(usize),
    /// More bytes are needed.
    Wait,
}

/// How often the deadlines of streams are checked, in nanoseconds.
const LOOK_NS: u64 = 250_000_000;
/// Longest SETTINGS frame that is accepted, in bytes: the parameters that exist take less.
const SETTINGS_BYTES_MAX: usize = 6 * 64;
/// Longest PRIORITY_UPDATE frame that is read, in bytes.
const PRIORITY_BYTES_MAX: usize = 64;

impl<S, M: Middleware<S>> Responder<S, M> {
    /// Goes on with an HTTP/2 connection, or begins one.
    #[inline(never)]
    pub(crate) fn http2(
        &mut self,
        connection: &mut Connection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        let Some(core) = &mut self.http2 else {
            unreachable!("a connection becomes one of HTTP/2 only if that is on");
        };
        if let Speaks::Http1(http1) = &mut connection.0 {
            let Some(lease) = core.pool.lend() else {
                http1.close();
                put_greeting(core, reply);
                put_go_away(0, ErrorCode::EnhanceYourCalm, reply);
                self.origin
                    .counters
                    .http2
                    .http2_connections_refused
                    .increment();
                return Progress {
                    consumed: input.bytes.len(),
                    messages: 0,
                    next: Next::Close,
                };
            };
            self.origin.counters.http2.http2_connections.increment();
            connection.0 = Speaks::Http2(lease);
        }
        let Speaks::Http2(lease) = &mut connection.0 else {
            unreachable!("it was made one just now");
        };
        let now_ns = self.origin.stopwatch.now_ns();
        Turn {
            routes: &self.routes,
            origin: &mut self.origin,
            scratch: &mut self.scratch,
            core,
            connection: lease,
            reply,
            messages: 0,
            moved: false,
            now_ns,
        }
        .take(input)
    }
}

/// The deadline of the connection has passed.
pub(in super::super) fn time_out(
    connection: &mut Http2Connection,
    counters: &HttpCounters,
    reply: &mut Reply<'_>,
) {
    let waiting = connection.streams.len() as u64;
    counters.http2.http2_streams_timed_out.add(waiting);
    counters.http2.http2_connections_idle.increment();
    dismiss(connection, counters, reply);
}

/// The connection ends after this.
pub(in super::super) fn dismiss(
    connection: &mut Http2Connection,
    counters: &HttpCounters,
    reply: &mut Reply<'_>,
) {
    // Behind a frame that was sent in part, GOAWAY would be read as its rest.
    if connection.outlet.overflow.is_empty() && !connection.closed && !connection.said_go_away {
        put_go_away(connection.served_stream, ErrorCode::No, reply);
        counters.http2.http2_goaways.increment();
    }
    connection.closed = true;
}

impl<S, M: Middleware<S>> Turn<'_, '_, S, M> {
    #[inline]
    fn take(mut self, input: Input<'_>) -> Progress {
        let mut consumed = 0;
        self.look_at_deadlines();
        let mut is_full = !self.flush();
        while !is_full && !self.connection.closed {
            if self.reply.remaining() < ROOM_MIN {
                is_full = true;
                break;
            }
            let bytes = &input.bytes[consumed..];
            match self.step(bytes, input.full && consumed == 0) {
                Step::Consumed(count) => consumed += count,
                Step::Wait => break,
            }
            self.give_credit();
            is_full = !self.flush();
        }
        if self.connection.closed {
            return Progress {
                consumed: input.bytes.len(),
                messages: self.messages,
                next: match self.flush() {
                    true => Next::Close,
                    false => Next::Send,
                },
            };
        }
        if !is_full && !self.connection.streams.is_empty() {
            is_full = self.ask_relays() || self.send_waiting();
        }
        let next = self.next(is_full, consumed < input.bytes.len());
        Progress {
            consumed,
            messages: self.messages,
            next,
        }
    }

    /// What the connection waits for.
    #[inline]
    fn next(&mut self, is_full: bool, is_within_frame: bool) -> Next {
        if is_full {
            return Next::Send;
        }
        if (self.origin.draining || self.connection.outlet.closes) && !self.say_go_away() {
            return Next::Send;
        }
        if !self.connection.streams.is_empty() {
            return Next::Receive(match self.moved {
                _ if self.waits_for_relays() => Expect::Anything,
                true => Expect::MoreBody,
                false => Expect::Body,
            });
        }
        if self.connection.said_go_away && !is_within_frame {
            return Next::Close;
        }
        let is_between = matches!(self.connection.reading, Reading::Frame) && !is_within_frame;
        Next::Receive(match is_between {
            true => Expect::Message,
            false => Expect::Head,
        })
    }

    /// Sends GOAWAY. Returns false if there is no room for it.
    #[cold]
    fn say_go_away(&mut self) -> bool {
        if self.connection.said_go_away {
            return true;
        }
        self.connection.said_go_away = true;
        let last = self.connection.served_stream;
        self.go_away(last, ErrorCode::No);
        self.flush()
    }

    /// Ends the connection because of an error of the client.
    #[cold]
    pub(super) fn fail(&mut self, code: ErrorCode) {
        self.origin
            .counters
            .http2
            .http2_connections_failed
            .increment();
        let last = self.connection.served_stream;
        self.go_away(last, code);
        self.connection.closed = true;
    }

    fn go_away(&mut self, last_stream: u32, code: ErrorCode) {
        let mut space = [0; HEADER_BYTES + 8];
        let mut frame = Reply::new(&mut space);
        put_go_away(last_stream, code, &mut frame);
        self.control(frame.written());
        self.origin.counters.http2.http2_goaways.increment();
    }

    /// Writes a control frame, or keeps it until there is room.
    pub(super) fn control(&mut self, frame: &[u8]) {
        let overflow = &mut self.connection.outlet.overflow;
        if !overflow.is_empty() || !self.reply.put(frame) {
            overflow.extend_from_slice(frame);
        }
    }

    /// Writes the frames that were kept. Returns whether all are written.
    #[inline]
    pub(super) fn flush(&mut self) -> bool {
        self.connection.outlet.overflow.is_empty() || self.flush_overflow()
    }

    #[cold]
    fn flush_overflow(&mut self) -> bool {
        let overflow = &mut self.connection.outlet.overflow;
        let len = overflow.len().min(self.reply.remaining());
        if self.reply.put(&overflow[..len]) {
            overflow.drain(..len);
        }
        overflow.is_empty()
    }

    /// Resets a stream. Resets that the client provokes have a budget (MadeYouReset).
    #[cold]
    pub(super) fn reset(&mut self, stream: u32, code: ErrorCode) {
        self.forget(stream);
        self.connection.remember_reset(stream);
        self.control(&of_number(kind::RST_STREAM, stream, code as u32));
        if !matches!(
            code,
            ErrorCode::No | ErrorCode::RefusedStream | ErrorCode::Cancel
        ) {
            self.origin.counters.http2.http2_streams_failed.increment();
        }
        self.pay_reset();
    }

    fn pay_reset(&mut self) {
        if !self.connection.resets.take(self.now_ns) {
            self.origin.counters.http2.http2_floods_reset.increment();
            self.fail(ErrorCode::EnhanceYourCalm);
        }
    }

    /// Pays for a frame without progress.
    fn pay_control_frame(&mut self) {
        if !self.connection.control_frames.take(self.now_ns) {
            self.origin.counters.http2.http2_floods_control.increment();
            self.fail(ErrorCode::EnhanceYourCalm);
        }
    }

    /// Ends the record of a stream, if it has one.
    pub(super) fn forget(&mut self, stream: u32) {
        if let Some(at) = self.connection.find(stream) {
            let mut stream = self.connection.streams.swap_remove(at);
            relay::end_call(self.routes, &mut self.origin.state, &mut stream);
            self.connection.waiting_bytes -= stream.copied;
            stream.end(&self.core.pool);
        }
    }

    /// Sends WINDOW_UPDATE for what was consumed on the connection.
    #[inline]
    fn give_credit(&mut self) {
        let credit = self.connection.credit;
        if credit >= self.core.limits.connection_window_bytes / 2 {
            self.connection.credit = 0;
            self.connection.receive_window += i64::from(credit);
            self.control(&of_number(kind::WINDOW_UPDATE, 0, credit));
        }
    }

    /// Resets the streams that have waited too long, and ends a connection without requests.
    #[inline]
    fn look_at_deadlines(&mut self) {
        if self.now_ns >= self.connection.look_ns {
            self.look_at_deadlines_now();
        }
    }

    #[cold]
    fn look_at_deadlines_now(&mut self) {
        let now_ns = self.now_ns;
        if self.connection.look_ns == 0 {
            self.connection.requested_ns = now_ns;
        }
        self.connection.look_ns = now_ns + LOOK_NS;
        let is_late =
            |since_ns: u64, ms: u32| now_ns.saturating_sub(since_ns) > u64::from(ms) * 1_000_000;
        let stream_ms = self.core.limits.stream_ms;
        for stream in &mut self.connection.streams {
            if stream.waits_for_relay() {
                stream.moved_ns = now_ns;
            }
        }
        loop {
            let mut streams = self.connection.streams.iter();
            let Some(late) = streams.find(|stream| is_late(stream.moved_ns, stream_ms)) else {
                break;
            };
            let (id, is_unanswered) = (late.id, late.body == Body::Collect);
            self.origin
                .counters
                .http2
                .http2_streams_timed_out
                .increment();
            match is_unanswered && self.flush() && self.reply.remaining() >= ROOM_MIN {
                true => self.refuse_late(id),
                false => self.reset(id, ErrorCode::Cancel),
            }
        }
        if self.connection.streams.is_empty()
            && !self.connection.closed
            && is_late(self.connection.requested_ns, self.core.limits.idle_ms)
        {
            self.origin
                .counters
                .http2
                .http2_connections_idle
                .increment();
            let last = self.connection.served_stream;
            self.go_away(last, ErrorCode::No);
            self.connection.closed = true;
        }
    }

    /// Reads the next frame, or the next piece of one.
    #[inline]
    fn step(&mut self, bytes: &[u8], full: bool) -> Step {
        match &mut self.connection.reading {
            Reading::Frame => self.frame(bytes, full),
            Reading::Data { .. } => self.data(bytes),
            Reading::Block(_) => self.block(bytes),
            Reading::Skip(left) => {
                let count = bytes.len().min(*left);
                *left -= count;
                if *left == 0 {
                    self.connection.reading = Reading::Frame;
                } else if count == 0 {
                    return Step::Wait;
                }
                Step::Consumed(count)
            }
            Reading::Preface => {
                debug_assert!(bytes.starts_with(PREFACE), "it was looked for");
                self.connection.reading = Reading::Frame;
                put_greeting(self.core, self.reply);
                Step::Consumed(PREFACE.len())
            }
        }
    }

    #[inline]
    fn frame(&mut self, bytes: &[u8], full: bool) -> Step {
        let Some(header) = Header::parse(bytes) else {
            return Step::Wait;
        };
        let payload = &bytes[HEADER_BYTES..];
        // The most frequent frame.
        if header.kind == kind::HEADERS
            && self.connection.is_greeted
            && header.len <= payload.len()
            && header.flags & !flag::END_STREAM == flag::END_HEADERS
        {
            let (block, rest) = payload.split_at(header.len);
            let ends_stream = header.has(flag::END_STREAM);
            let more = self.field_block(header.stream, ends_stream, block, rest);
            return Step::Consumed(HEADER_BYTES + header.len + more);
        }
        self.unusual_frame(header, payload, full)
    }

    #[inline(never)]
    fn unusual_frame(&mut self, header: Header, payload: &[u8], full: bool) -> Step {
        if header.len > PAYLOAD_BYTES_MAX {
            return self.failed(ErrorCode::FrameSize);
        }
        if !self.connection.is_greeted && (header.kind != kind::SETTINGS || header.has(flag::ACK)) {
            return self.failed(ErrorCode::Protocol);
        }
        match header.kind {
            kind::DATA => self.begin_data(header, payload),
            kind::HEADERS => self.headers(header, payload, full),
            kind::SETTINGS
            | kind::PING
            | kind::WINDOW_UPDATE
            | kind::RST_STREAM
            | kind::PRIORITY => self.short_frame(header, payload),
            kind::PRIORITY_UPDATE if header.len <= PRIORITY_BYTES_MAX => {
                self.short_frame(header, payload)
            }
            kind::GOAWAY if header.stream != 0 => self.failed(ErrorCode::Protocol),
            kind::GOAWAY if header.len < 8 => self.failed(ErrorCode::FrameSize),
            kind::PUSH_PROMISE | kind::CONTINUATION => self.failed(ErrorCode::Protocol),
            // RFC 9113, section 5.5: unknown types are ignored.
            _ => {
                self.connection.reading = Reading::Skip(header.len);
                self.pay_control_frame();
                Step::Consumed(HEADER_BYTES)
            }
        }
    }

    fn failed(&mut self, code: ErrorCode) -> Step {
        self.fail(code);
        Step::Consumed(0)
    }

    /// Reads a frame whose payload is short enough to be awaited.
    fn short_frame(&mut self, header: Header, payload: &[u8]) -> Step {
        let is_of_connection = matches!(
            header.kind,
            kind::SETTINGS | kind::PING | kind::PRIORITY_UPDATE
        );
        let is_of_stream = matches!(header.kind, kind::RST_STREAM | kind::PRIORITY);
        if is_of_connection && header.stream != 0 || is_of_stream && header.stream == 0 {
            return self.failed(ErrorCode::Protocol);
        }
        let has_right_len = match header.kind {
            kind::SETTINGS if header.has(flag::ACK) => header.len == 0,
            kind::SETTINGS => header.len.is_multiple_of(6),
            kind::PING => header.len == 8,
            kind::PRIORITY => header.len == 5,
            kind::PRIORITY_UPDATE => header.len >= 4,
            _ => header.len == 4,
        };
        if !has_right_len {
            if header.kind == kind::PRIORITY {
                self.connection.reading = Reading::Skip(header.len);
                self.reset(header.stream, ErrorCode::FrameSize);
                return Step::Consumed(HEADER_BYTES);
            }
            return self.failed(ErrorCode::FrameSize);
        }
        if header.kind == kind::SETTINGS && header.len > SETTINGS_BYTES_MAX {
            return self.failed(ErrorCode::EnhanceYourCalm);
        }
        let Some(payload) = payload.get(..header.len) else {
            return Step::Wait;
        };
        match header.kind {
            kind::SETTINGS => self.settings(header, payload),
            kind::PING => self.ping(header, payload),
            kind::WINDOW_UPDATE => self.window_update(header.stream, number(payload)),
            kind::RST_STREAM => self.rst_stream(header.stream),
            kind::PRIORITY_UPDATE => self.priority_update(payload),
            // RFC 9113, section 5.3.2: deprecated, and ignored.
            _ => self.pay_control_frame(),
        }
        Step::Consumed(HEADER_BYTES + header.len)
    }

    /// RFC 9113, section 6.5.
    fn settings(&mut self, header: Header, payload: &[u8]) {
        self.connection.is_greeted = true;
        self.pay_control_frame();
        if header.has(flag::ACK) || self.connection.closed {
            return;
        }
        for parameter in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([parameter[0], parameter[1]]);
            let value =
                u32::from_be_bytes([parameter[2], parameter[3], parameter[4], parameter[5]]);
            if let Err(code) = self.setting(id, value) {
                return self.fail(code);
            }
        }
        let ack = Header {
            len: 0,
            kind: kind::SETTINGS,
            flags: flag::ACK,
            stream: 0,
        };
        self.control(&ack.bytes());
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), ErrorCode> {
        let connection = &mut *self.connection;
        match id {
            setting::HEADER_TABLE_SIZE => {
                let outlet = &mut connection.outlet;
                outlet.table_changed |= outlet.indexed.set_table_bytes(value);
            }
            setting::ENABLE_PUSH if value > 1 => return Err(ErrorCode::Protocol),
            setting::INITIAL_WINDOW_SIZE => {
                let window = i64::from(value);
                if window > WINDOW_BYTES_MAX {
                    return Err(ErrorCode::FlowControl);
                }
                let change = window - connection.stream_send_window;
                connection.stream_send_window = window;
                for stream in &mut connection.streams {
                    stream.send_window += change;
                    if stream.send_window > WINDOW_BYTES_MAX {
                        return Err(ErrorCode::FlowControl);
                    }
                }
            }
            // Every client accepts frames as long as ours; longer ones would delay other streams.
            setting::MAX_FRAME_SIZE if !(PAYLOAD_BYTES_MAX as u32..1 << 24).contains(&value) => {
                return Err(ErrorCode::Protocol);
            }
            _ => {}
        }
        Ok(())
    }

    fn ping(&mut self, header: Header, payload: &[u8]) {
        self.pay_control_frame();
        if header.has(flag::ACK) || self.connection.closed {
            return;
        }
        let mut frame = [0; HEADER_BYTES + 8];
        let ack = Header {
            flags: flag::ACK,
            ..header
        };
        frame[..HEADER_BYTES].copy_from_slice(&ack.bytes());
        frame[HEADER_BYTES..].copy_from_slice(payload);
        self.control(&frame);
    }

    /// RFC 9113, section 6.9.
    fn window_update(&mut self, stream: u32, increment: u32) {
        self.pay_control_frame();
        let added = i64::from(increment);
        if stream == 0 {
            self.connection.send_window += added;
            if increment == 0 {
                self.fail(ErrorCode::Protocol);
            } else if self.connection.send_window > WINDOW_BYTES_MAX {
                self.fail(ErrorCode::FlowControl);
            }
            return;
        }
        if self.is_idle(stream) {
            return self.fail(ErrorCode::Protocol);
        }
        if increment == 0 {
            return self.reset(stream, ErrorCode::Protocol);
        }
        if let Some(at) = self.connection.find(stream) {
            let record = &mut self.connection.streams[at];
            record.send_window += added;
            if record.send_window > WINDOW_BYTES_MAX {
                self.reset(stream, ErrorCode::FlowControl);
            }
        }
    }

    fn rst_stream(&mut self, stream: u32) {
        if self.is_idle(stream) {
            return self.fail(ErrorCode::Protocol);
        }
        self.origin
            .counters
            .http2
            .http2_streams_cancelled
            .increment();
        self.forget(stream);
        self.pay_reset();
    }

    /// RFC 9218, section 7.1. Updates for streams without a record are ignored.
    fn priority_update(&mut self, payload: &[u8]) {
        self.pay_control_frame();
        let stream = number(payload);
        if stream == 0 {
            return self.fail(ErrorCode::Protocol);
        }
        if let Some(at) = self.connection.find(stream) {
            self.connection.streams[at].priority = Priority::parse(&payload[4..]);
        }
    }

    /// Whether a stream is idle (RFC 9113, section 5.1).
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        stream > self.connection.last_stream || stream.is_multiple_of(2)
    }

    /// Reads HEADERS that are padded, have a priority, or are incomplete.
    fn headers(&mut self, header: Header, payload: &[u8], full: bool) -> Step {
        if header.stream == 0 {
            return self.failed(ErrorCode::Protocol);
        }
        let priority_bytes = if header.has(flag::PRIORITY) { 5 } else { 0 };
        let padded_bytes = usize::from(header.has(flag::PADDED));
        let before = padded_bytes + priority_bytes;
        if payload.len() < before.min(header.len) {
            return Step::Wait;
        }
        let padding = match padded_bytes {
            1 if header.len > 0 => usize::from(payload[0]),
            _ => 0,
        };
        let Some(len) = header.len.checked_sub(before + padding) else {
            return self.failed(match header.len < before {
                true => ErrorCode::FrameSize,
                false => ErrorCode::Protocol,
            });
        };
        let ends_stream = header.has(flag::END_STREAM);
        let is_last = header.has(flag::END_HEADERS);
        if is_last && payload.len() >= header.len {
            let block = &payload[before..before + len];
            let rest = &payload[header.len..];
            let more = self.field_block(header.stream, ends_stream, block, rest);
            return Step::Consumed(HEADER_BYTES + header.len + more);
        }
        // The rest of a block in one frame is awaited in the receive buffer, while that has room.
        if is_last && !full {
            return Step::Wait;
        }
        let Some(bytes) = self.core.pool.lend_buffer() else {
            // Without this block the dynamic table would be wrong for later ones.
            return self.failed(ErrorCode::EnhanceYourCalm);
        };
        self.connection.reading = Reading::Block(Block {
            stream: header.stream,
            ends_stream,
            bytes,
            left: len,
            padding,
            is_last,
            continuations: 0,
        });
        Step::Consumed(HEADER_BYTES + before)
    }

    /// Reads more of a field block in pieces (RFC 9113, sections 4.3 and 6.10).
    #[inline(never)]
    fn block(&mut self, bytes: &[u8]) -> Step {
        let head_bytes_max = self.origin.limits.head_bytes_max;
        let Reading::Block(block) = &mut self.connection.reading else {
            return Step::Wait;
        };
        if block.left > 0 || block.padding > 0 {
            let count = bytes.len().min(block.left);
            let padding = (bytes.len() - count).min(block.padding);
            if count + padding == 0 {
                return Step::Wait;
            }
            if block.bytes.len() + count > head_bytes_max {
                return self.continuation_flood();
            }
            block.bytes.extend_from_slice(&bytes[..count]);
            block.left -= count;
            block.padding -= padding;
            return Step::Consumed(count + padding);
        }
        if block.is_last {
            let Reading::Block(block) =
                std::mem::replace(&mut self.connection.reading, Reading::Frame)
            else {
                return Step::Wait;
            };
            let more = self.field_block(block.stream, block.ends_stream, &block.bytes, bytes);
            self.core.pool.take_back_buffer(block.bytes);
            return Step::Consumed(more);
        }
        let Some(header) = Header::parse(bytes) else {
            return Step::Wait;
        };
        if header.kind != kind::CONTINUATION || header.stream != block.stream {
            return self.failed(ErrorCode::Protocol);
        }
        if header.len > PAYLOAD_BYTES_MAX {
            return self.failed(ErrorCode::FrameSize);
        }
        block.continuations += 1;
        if block.continuations > self.core.limits.continuations_max {
            return self.continuation_flood();
        }
        block.left = header.len;
        block.is_last = header.has(flag::END_HEADERS);
        Step::Consumed(HEADER_BYTES)
    }

    #[cold]
    fn continuation_flood(&mut self) -> Step {
        self.origin
            .counters
            .http2
            .http2_floods_continuation
            .increment();
        self.failed(ErrorCode::EnhanceYourCalm)
    }

    /// Reads the header of a DATA frame (RFC 9113, section 6.1).
    fn begin_data(&mut self, header: Header, payload: &[u8]) -> Step {
        let Header { stream, len, .. } = header;
        if stream == 0 {
            return self.failed(ErrorCode::Protocol);
        }
        let padded_bytes = usize::from(header.has(flag::PADDED));
        if payload.len() < padded_bytes.min(len) {
            return Step::Wait;
        }
        let padding = match padded_bytes {
            1 if len > 0 => usize::from(payload[0]),
            _ => 0,
        };
        let Some(left) = len.checked_sub(padded_bytes + padding) else {
            return self.failed(ErrorCode::Protocol);
        };
        if !self.receive(len) {
            return self.failed(ErrorCode::FlowControl);
        }
        let consumed = Step::Consumed(HEADER_BYTES + padded_bytes);
        let skip = Reading::Skip(left + padding);
        let Some(at) = self.connection.find(stream) else {
            if self.is_idle(stream) {
                return self.failed(ErrorCode::Protocol);
            }
            self.connection.reading = skip;
            self.pay_control_frame();
            if !self.connection.was_reset(stream) {
                self.reset(stream, ErrorCode::StreamClosed);
            }
            return consumed;
        };
        let record = &mut self.connection.streams[at];
        record.receive_window -= len as i64;
        if record.receive_window < 0 || record.body == Body::Done {
            let code = match record.receive_window < 0 {
                true => ErrorCode::FlowControl,
                false => ErrorCode::StreamClosed,
            };
            self.connection.reading = skip;
            self.reset(stream, code);
            return consumed;
        }
        record.credit += (padding + padded_bytes) as u32;
        let ends_stream = header.has(flag::END_STREAM);
        if left == 0 && !ends_stream {
            self.pay_control_frame();
        }
        self.connection.reading = Reading::Data {
            stream,
            left,
            padding,
            ends_stream,
        };
        consumed
    }

    /// Counts `len` bytes of DATA against the window of the connection. Returns false if they exceed it.
    #[inline]
    pub(super) fn receive(&mut self, len: usize) -> bool {
        self.connection.receive_window -= len as i64;
        self.connection.credit += len as u32;
        self.connection.receive_window >= 0
    }

    /// Reads more of a DATA frame.
    fn data(&mut self, bytes: &[u8]) -> Step {
        let Reading::Data {
            stream,
            left,
            padding,
            ends_stream,
        } = &mut self.connection.reading
        else {
            return Step::Wait;
        };
        let (stream, padding, ends_stream) = (*stream, *padding, *ends_stream);
        let count = bytes.len().min(*left);
        if count == 0 && *left > 0 {
            return Step::Wait;
        }
        *left -= count;
        let is_over = *left == 0;
        if is_over {
            self.connection.reading = Reading::Skip(padding);
        }
        if count > 0 {
            self.connection.control_frames.put_back();
            self.body(stream, &bytes[..count], ends_stream && is_over);
        }
        if is_over && ends_stream && !self.connection.closed {
            self.end_body(stream);
        }
        Step::Consumed(count)
    }

    /// Decodes the block of a stream that is not served: the dynamic table has to follow it.
    pub(super) fn ignore_block(&mut self, block: &[u8]) {
        let literal = self.core.literal();
        if hpack::decode(block, &mut self.connection.table, literal, |_| {}).is_err() {
            self.fail(ErrorCode::Compression);
        }
    }
}

/// Writes the preface of a server, which is its SETTINGS (RFC 9113, section 3.4).
fn put_greeting(core: &Http2, reply: &mut Reply<'_>) {
    let limits = &core.limits;
    let settings = [
        (setting::MAX_CONCURRENT_STREAMS, limits.streams_max),
        (setting::INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
        (setting::HEADER_TABLE_SIZE, limits.header_table_bytes as u32),
        (setting::MAX_HEADER_LIST_SIZE, core.head_bytes_max as u32),
        (setting::NO_RFC7540_PRIORITIES, 1),
    ];
    let header = Header {
        len: 6 * settings.len(),
        kind: kind::SETTINGS,
        flags: 0,
        stream: 0,
    };
    let mut fits = reply.put(&header.bytes());
    for (id, value) in settings {
        fits &= reply.put(&id.to_be_bytes()) && reply.put(&value.to_be_bytes());
    }
    let more = limits
        .connection_window_bytes
        .saturating_sub(WINDOW_BYTES as u32);
    if more > 0 {
        fits &= reply.put(&of_number(kind::WINDOW_UPDATE, 0, more));
    }
    debug_assert!(fits && RESERVE < ROOM_MIN);
}

fn put_go_away(last_stream: u32, code: ErrorCode, reply: &mut Reply<'_>) {
    let header = Header {
        len: 8,
        kind: kind::GOAWAY,
        flags: 0,
        stream: 0,
    };
    let mut frame = [0; HEADER_BYTES + 8];
    frame[..HEADER_BYTES].copy_from_slice(&header.bytes());
    frame[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&last_stream.to_be_bytes());
    frame[HEADER_BYTES + 4..].copy_from_slice(&(code as u32).to_be_bytes());
    let fits = reply.put(&frame);
    debug_assert!(fits, "a service is called with room for more");
}
