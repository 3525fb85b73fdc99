//! Sends what waits for the client's windows, or for room, in the order of its priority.

use barewire_service::service::Reply;

use crate::content::Sent;
use crate::middleware::Middleware;

use super::encode::RESERVE;
use super::frame::{ErrorCode, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, flag, kind};
use super::relay;
use super::stream::{Body, Stream};
use super::turn::Turn;

/// What became of a stream that was to send a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// One was written; there is more.
    Written,
    /// The last one was written.
    Last,
    /// A window is closed.
    Blocked,
    /// Its relay has nothing to send, or a window is closed.
    Waits,
    /// There is no room.
    Full,
    /// The content ended before its time.
    Broken,
}

/// With less room, no frame is begun.
const ROOM_MIN: usize = HEADER_BYTES + 64 + RESERVE;
/// Bytes that a client has to take for the deadline of a stream to begin anew, as
/// [`SENT_BYTES_MIN`](barewire_service::deadline::SENT_BYTES_MIN) are for a connection.
const MOVED_BYTES_MIN: usize = barewire_service::deadline::SENT_BYTES_MIN;

impl<S, M: Middleware<S>> Turn<'_, '_, S, M> {
    /// Sends what waits. Returns whether there is more that only waits for room.
    #[inline(never)]
    pub(super) fn send_waiting(&mut self) -> bool {
        while self.flush() {
            let Some(at) = self.next_to_send() else {
                return false;
            };
            // The record is taken out while everything else is in use.
            let mut record = self.connection.streams.swap_remove(at);
            let id = record.id;
            self.connection.turn_of = id;
            let frame = self.send_frame(&mut record);
            self.connection.streams.push(record);
            match frame {
                Frame::Written => {
                    let at = self.connection.streams.len() - 1;
                    self.give_stream_credit(at);
                }
                Frame::Waits => {}
                Frame::Blocked => return false,
                Frame::Full => return true,
                Frame::Last | Frame::Broken => self.end_response(id, frame),
            }
            if self.connection.closed {
                return false;
            }
        }
        true
    }

    fn end_response(&mut self, id: u32, frame: Frame) {
        let Some(at) = self.connection.find(id) else {
            return;
        };
        let record = &mut self.connection.streams[at];
        record.responds = false;
        if frame == Frame::Broken {
            self.origin.counters.contents_broken.increment();
            self.reset(id, ErrorCode::Internal);
        } else if record.is_over() {
            self.forget(id);
        } else if matches!(record.body, Body::Discard { allowance: 0 } | Body::Relay) {
            self.reset(id, ErrorCode::No);
        }
    }

    /// Sends what there is room for of a response that was just begun. Returns whether the stream is over.
    pub(super) fn send_now(&mut self, record: &mut Stream) -> bool {
        while record.responds && self.connection.outlet.overflow.is_empty() {
            match self.send_frame(record) {
                Frame::Written => {}
                Frame::Last => record.responds = false,
                Frame::Waits | Frame::Blocked | Frame::Full => break,
                Frame::Broken => {
                    self.origin.counters.contents_broken.increment();
                    self.reset(record.id, ErrorCode::Internal);
                    return true;
                }
            }
        }
        record.is_over()
    }

    /// The stream whose turn it is (RFC 9218, section 10): the most urgent; among those, one after the other
    /// what is not incremental, then in turns what is.
    fn next_to_send(&self) -> Option<usize> {
        let connection = &*self.connection;
        let may_send = |stream: &Stream| {
            let is_end = !stream.sending.is_pending()
                && stream
                    .buffer
                    .as_ref()
                    .is_some_and(|buffer| stream.echoed == buffer.len());
            // Of a relay's response, only asking tells whether its end is all that is left.
            let is_end = is_end || stream.relaying.is_some();
            stream.has_data() && (is_end || stream.send_window > 0 && connection.send_window > 0)
        };
        let streams = connection.streams.iter().enumerate();
        let next = streams
            .filter(|(_, stream)| may_send(stream))
            .min_by_key(|(_, stream)| {
                let priority = stream.priority;
                let had_its_turn = priority.incremental && stream.id <= connection.turn_of;
                (
                    priority.urgency,
                    priority.incremental,
                    had_its_turn,
                    stream.id,
                )
            });
        next.map(|(at, _)| at)
    }

    /// Writes one DATA frame.
    fn send_frame(&mut self, record: &mut Stream) -> Frame {
        if self.reply.remaining() < ROOM_MIN {
            return Frame::Full;
        }
        let connection = &mut *self.connection;
        let room = self.reply.remaining() - HEADER_BYTES - RESERVE;
        let window = record.send_window.min(connection.send_window).max(0) as usize;
        let len_max = room.min(window).min(PAYLOAD_BYTES_MAX);
        let space = &mut self.reply.spare()[HEADER_BYTES..HEADER_BYTES + len_max];
        let (len, is_last) = match &mut record.buffer {
            _ if record.relaying.is_some() => {
                let routes = self.routes;
                let content = relay::take_content(routes, &mut self.origin.state, record, space);
                match content {
                    Some(taken) => taken,
                    None if record.relaying.is_some() => return Frame::Waits,
                    None => return Frame::Broken,
                }
            }
            Some(buffer) => {
                let waiting = &buffer[record.echoed..];
                let len = waiting.len().min(len_max);
                space[..len].copy_from_slice(&waiting[..len]);
                record.echoed += len;
                record.credit += len as u32;
                if record.echoed == buffer.len() {
                    buffer.clear();
                    record.echoed = 0;
                }
                (len, buffer.is_empty() && record.body == Body::Done)
            }
            None if len_max == 0 => return Frame::Blocked,
            None => {
                let mut content = Reply::new(space);
                if record.sending.fill(&mut content) == Sent::Broken {
                    return Frame::Broken;
                }
                (content.len(), !record.sending.is_pending())
            }
        };
        if len == 0 && !is_last {
            return Frame::Blocked;
        }
        let header = Header {
            len,
            kind: kind::DATA,
            flags: if is_last { flag::END_STREAM } else { 0 },
            stream: record.id,
        };
        self.reply.spare()[..HEADER_BYTES].copy_from_slice(&header.bytes());
        self.reply.advance(HEADER_BYTES + len);
        record.send_window -= len as i64;
        connection.send_window -= len as i64;
        connection.control_frames.put_back();
        record.moved_bytes += len;
        if record.moved_bytes >= MOVED_BYTES_MIN {
            record.moved_bytes = 0;
            record.moved_ns = self.now_ns;
            self.moved = true;
        }
        match is_last {
            true => Frame::Last,
            false => Frame::Written,
        }
    }
}
