//! The counters of HTTP/2.

use barewire_service::counters;

counters! {
    /// HTTP/2 connections, streams and limits hit. Written by one core.
    pub struct Http2Counters {
        /// Connections that began with the preface of HTTP/2.
        http2_connections: Counter,
        /// HTTP/2 connections closed at once because there were `connections_max` of them.
        http2_connections_refused: Loss,
        /// Requests by HTTP/2.
        http2_requests: Counter,
        /// Requests answered without a record of their stream.
        http2_requests_direct: Counter,
        /// Streams refused because `streams_max` were open, or no buffer was left, or the server drains.
        http2_streams_refused: Loss,
        /// Streams refused because `waiting_bytes_max` of their connection waited to be sent.
        http2_streams_refused_waiting: Loss,
        /// Streams reset because they waited longer than `stream_ms`.
        http2_streams_timed_out: Loss,
        /// Streams reset because of an error of the client, such as a malformed request.
        http2_streams_failed: Loss,
        /// Streams that the client reset.
        http2_streams_cancelled: Counter,
        /// Connections ended because of an error of the client.
        http2_connections_failed: Loss,
        /// Connections ended because more than `resets_max` streams were reset (Rapid Reset, MadeYouReset).
        http2_floods_reset: Loss,
        /// Connections ended because of more than `control_frames_max` frames without progress.
        http2_floods_control: Loss,
        /// Connections ended because of more than `continuations_max` CONTINUATION frames, or of a longer field block
        /// than a head may be.
        http2_floods_continuation: Loss,
        /// Connections ended because nothing was requested for `idle_ms`, or their deadline passed.
        http2_connections_idle: Counter,
        /// Trailer sections received, checked and ignored.
        http2_trailers: Counter,
        /// GOAWAY frames sent with NO_ERROR.
        http2_goaways: Counter,
    }
}
