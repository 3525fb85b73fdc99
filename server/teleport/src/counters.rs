//! What the connections of a core count.

barewire_service::counters! {
    /// What the teleport connections of one core carried.
    pub struct TeleportCounters {
        /// Connections on which both ends have said hello.
        connections: Gauge,
        /// Calls in progress.
        calls_open: Gauge,
        /// Calls begun.
        calls: Counter,
        /// Batches sent: what one turn had to say, in one to three blocks.
        batches_sent: Counter,
        /// Blocks received.
        blocks_received: Counter,
        /// Bytes of frames sent, before compression.
        content_bytes_sent: Counter,
        /// Bytes of blocks sent, after compression.
        wire_bytes_sent: Counter,
        /// Bytes of frames received, after decompression.
        content_bytes_received: Counter,
        /// Bytes of blocks received, before decompression.
        wire_bytes_received: Counter,
        /// Calls that the other end gave up.
        resets_received: Counter,
        /// Calls that this end gave up.
        resets_sent: Counter,
        /// Connections that ended because the other end does not speak teleport, or no version that this end speaks.
        failed_hello: Loss,
        /// Connections that ended because the other end broke the protocol or its limits.
        failed_protocol: Loss,
        /// Connections that were refused because there were as many as may be.
        refused_connections: Loss,
        /// Calls that were given up because they had not moved for too long.
        timed_out_calls: Loss,
        /// Calls that did not bring one request.
        malformed_calls: Loss,
    }
}
