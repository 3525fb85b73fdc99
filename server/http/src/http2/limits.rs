//! The limits of HTTP/2 connections.

/// The limits of HTTP/2 connections, beside those of requests ([`Limits`](crate::Limits)). Each has a counter in
/// [`Http2Counters`](super::Http2Counters) that says how often it was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    /// HTTP/2 connections of a core; a further one is closed with ENHANCE_YOUR_CALM. Each takes twice
    /// `header_table_bytes` and about two kilobytes.
    pub connections_max: usize,
    /// Streams of a connection that are open at once (SETTINGS_MAX_CONCURRENT_STREAMS); a further one is
    /// refused.
    pub streams_max: u32,
    /// The window of a request's body, in bytes (SETTINGS_INITIAL_WINDOW_SIZE).
    pub stream_window_bytes: u32,
    /// The window of all streams of a connection together, in bytes; at least 65,535.
    pub connection_window_bytes: u32,
    /// The dynamic table of a client's fields, in bytes (SETTINGS_HEADER_TABLE_SIZE).
    pub header_table_bytes: usize,
    /// CONTINUATION frames of a field block; more end the connection with ENHANCE_YOUR_CALM.
    pub continuations_max: u32,
    /// Buffers of a core for bodies and for heads in pieces; a stream that finds none is refused.
    pub buffers_max: usize,
    /// Copied content of a connection that waits for the client's window, in bytes; beyond it, streams are refused.
    pub waiting_bytes_max: usize,
    /// Streams of a connection that either side resets in 30 seconds; more end it with ENHANCE_YOUR_CALM.
    pub resets_max: u32,
    /// Frames of a connection in 30 seconds that carry neither a request nor data: SETTINGS, PING, PRIORITY,
    /// WINDOW_UPDATE, empty DATA, unknown ones. More end it with ENHANCE_YOUR_CALM.
    pub control_frames_max: u32,
    /// How long a stream may wait for the rest of its request, or for the client to take 1024 bytes of its
    /// response, in milliseconds. Then it is reset, and the connection goes on.
    pub stream_ms: u32,
    /// How long a connection may stay open without a request, whatever else is sent, in milliseconds.
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
