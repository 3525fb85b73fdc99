//! What an HTTP/2 connection may cost.

/// What HTTP/2 connections may cost, beside what [`Limits`](crate::Limits) say of requests. Each limit that
/// is hit is counted in [`Http2Counters`](super::Http2Counters).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    /// HTTP/2 connections of a core; one beyond is told ENHANCE_YOUR_CALM and closed. Each takes twice
    /// `header_table_bytes` and about one kilobyte.
    pub connections_max: usize,
    /// Streams of a connection that are open at once (SETTINGS_MAX_CONCURRENT_STREAMS); one beyond is refused.
    pub streams_max: u32,
    /// Bytes of a request's body that a client may send ahead (SETTINGS_INITIAL_WINDOW_SIZE).
    pub stream_window_bytes: u32,
    /// The same for all streams of a connection together; at least 65,535.
    pub connection_window_bytes: u32,
    /// The table in which a client has fields remembered (SETTINGS_HEADER_TABLE_SIZE).
    pub header_table_bytes: usize,
    /// CONTINUATION frames of a field block; ENHANCE_YOUR_CALM beyond.
    pub continuations_max: u32,
    /// Bodies, and heads that come in pieces, of a core that are put together at once; a stream beyond is refused.
    pub buffers_max: usize,
    /// Copied content of a connection that waits for the client's window; a stream beyond is refused.
    pub waiting_bytes_max: usize,
    /// Streams of a connection that either side resets in 30 seconds; ENHANCE_YOUR_CALM beyond.
    pub resets_max: u32,
    /// Frames of a connection in 30 seconds that bring no request and no data forward: SETTINGS, PING,
    /// PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones. ENHANCE_YOUR_CALM beyond.
    pub control_frames_max: u32,
    /// How long a stream may wait for the rest of its request, or for the client to take 1024 bytes of its
    /// response, in milliseconds. Then it is reset, and the connection goes on.
    pub stream_ms: u32,
    /// How long a connection may stay open on which nothing is requested, whatever else is sent, in milliseconds.
    pub idle_ms: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Http2Limits {
            connections_max: 4096,
            streams_max: 100,
            stream_window_bytes: 65_535,
            connection_window_bytes: 1024 * 1024,
            header_table_bytes: 4096,
            continuations_max: 16,
            buffers_max: 256,
            waiting_bytes_max: 1024 * 1024,
            resets_max: 1000,
            control_frames_max: 10_000,
            stream_ms: 30_000,
            idle_ms: 300_000,
        }
    }
}
