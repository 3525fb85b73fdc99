//! The state of an HTTP/2 connection between two calls.

use super::budget::Budget;
use super::encode::Outlet;
use super::frame::WINDOW_BYTES;
use super::hpack::Table;
use super::indexed::Indexed;
use super::limits::Http2Limits;
use super::pool::Pool;
use super::repeat::Repeat;
use super::stream::Stream;

/// An HTTP/2 connection. A pool has as many as may be in use at once; [`Self::reset`] prepares one for its next use.
#[derive(Debug)]
pub(in super::super) struct Http2Connection {
    pub(super) reading: Reading,
    pub(super) table: Table,
    /// There unless the head in it is being served.
    pub(super) repeat: Option<Box<Repeat>>,
    pub(super) streams: Vec<Stream>,
    /// The highest stream that the client has used, and the highest one that was served.
    pub(super) last_stream: u32,
    pub(super) served_stream: u32,
    /// Bytes of DATA that the client's window has room for.
    pub(super) send_window: i64,
    /// The same for a new stream.
    pub(super) stream_send_window: i64,
    /// Bytes of DATA that the client may still send, and those consumed for which no WINDOW_UPDATE was sent yet.
    pub(super) receive_window: i64,
    pub(super) credit: u32,
    pub(super) outlet: Outlet,
    /// The client's SETTINGS have arrived, which it sends first.
    pub(super) is_greeted: bool,
    /// GOAWAY was sent.
    pub(super) said_go_away: bool,
    /// The connection has failed: input is discarded.
    pub(super) closed: bool,
    pub(super) resets: Budget,
    pub(super) control_frames: Budget,
    /// The streams that this side has reset last: frames for them may still be in flight, and are no error.
    pub(super) reset_streams: [u32; 16],
    pub(super) reset_count: usize,
    /// Bytes that were copied for responses that wait.
    pub(super) waiting_bytes: usize,
    /// The stream that was served last among those of equal urgency.
    pub(super) turn_of: u32,
    /// When the last request arrived.
    pub(super) requested_ns: u64,
    /// When to look at the deadlines of streams again.
    pub(super) look_ns: u64,
    limits: Http2Limits,
}

/// What the next bytes are.
#[derive(Debug)]
pub(super) enum Reading {
    Preface,
    Frame,
    /// The rest of a DATA frame: content, then padding.
    Data {
        stream: u32,
        left: usize,
        padding: usize,
        ends_stream: bool,
    },
    /// A field block in pieces.
    Block(Block),
    /// The rest of a frame that is ignored.
    Skip(usize),
}

/// A field block of which a part has arrived.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ends_stream: bool,
    /// What has arrived of it.
    pub(super) bytes: Vec<u8>,
    /// What is still to come of the frame: of the block, and of padding.
    pub(super) left: usize,
    pub(super) padding: usize,
    /// The block ends with this frame (END_HEADERS).
    pub(super) is_last: bool,
    pub(super) continuations: u32,
}

impl Http2Connection {
    pub(super) fn new(limits: &Http2Limits) -> Self {
        Http2Connection {
            reading: Reading::Preface,
            table: Table::new(limits.header_table_bytes),
            repeat: Some(Box::new(Repeat::nothing())),
            streams: Vec::new(),
            last_stream: 0,
            served_stream: 0,
            send_window: WINDOW_BYTES,
            stream_send_window: WINDOW_BYTES,
            receive_window: i64::from(limits.connection_window_bytes),
            credit: 0,
            outlet: Outlet::new(),
            is_greeted: false,
            said_go_away: false,
            closed: false,
            resets: Budget::new(limits.resets_max),
            control_frames: Budget::new(limits.control_frames_max),
            reset_streams: [0; 16],
            reset_count: 0,
            waiting_bytes: 0,
            turn_of: 0,
            requested_ns: 0,
            look_ns: 0,
            limits: *limits,
        }
    }

    /// Returns what it has borrowed to the pool, and sets it to the state of a new connection.
    pub(super) fn reset(&mut self, pool: &Pool) {
        let limits = self.limits;
        if let Reading::Block(block) = std::mem::replace(&mut self.reading, Reading::Preface) {
            pool.take_back_buffer(block.bytes);
        }
        for mut stream in self.streams.drain(..) {
            stream.end(pool);
        }
        self.table.reset();
        if let Some(repeat) = &mut self.repeat {
            repeat.forget();
        }
        self.last_stream = 0;
        self.served_stream = 0;
        self.send_window = WINDOW_BYTES;
        self.stream_send_window = WINDOW_BYTES;
        self.receive_window = i64::from(limits.connection_window_bytes);
        self.credit = 0;
        self.outlet.overflow.clear();
        self.outlet.table_changed = false;
        self.outlet.indexed = Indexed::new();
        self.outlet.closes = false;
        self.is_greeted = false;
        self.said_go_away = false;
        self.closed = false;
        self.resets = Budget::new(limits.resets_max);
        self.control_frames = Budget::new(limits.control_frames_max);
        self.reset_streams = [0; 16];
        self.reset_count = 0;
        self.waiting_bytes = 0;
        self.turn_of = 0;
        self.requested_ns = 0;
        self.look_ns = 0;
    }

    /// The record of a stream.
    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.id == id)
    }

    /// Whether this side has reset a stream recently.
    pub(super) fn was_reset(&self, id: u32) -> bool {
        self.reset_streams.contains(&id)
    }

    pub(super) fn remember_reset(&mut self, id: u32) {
        self.reset_streams[self.reset_count % self.reset_streams.len()] = id;
        self.reset_count += 1;
    }
}
