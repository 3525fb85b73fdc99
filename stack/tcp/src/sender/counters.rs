//! The counters of the sending half of the direct path. Where Linux counts the same (`nstat`), the name
//! is that of Linux.

barewire_service::counters! {
    /// Sending, loss and repair of the connections of one shard.
    pub struct SenderCounters {
        /// Chunks of 256 bytes in use.
        small_chunks: Gauge,
        /// Chunks of 256 bytes there are.
        small_chunks_max: Limit,
        /// Chunks of 1,536 bytes in use.
        large_chunks: Gauge,
        /// Chunks of 1,536 bytes there are.
        large_chunks_max: Limit,
        /// Times no chunk was free.
        chunks_exhausted: Loss,
        /// Chunks split because the peer's window or the path had become too small for them.
        chunks_split: Counter,

        /// Times a reply had to wait because its connection kept as much as one may.
        queues_full: Counter,
        /// Times a reply had to wait because its connection had its share of the chunks.
        queues_throttled: Counter,

        /// Segments sent again.
        resent_segs: Counter,
        /// Segments taken for lost.
        lost_segs: Counter,
        /// Fast recoveries begun.
        recoveries: Counter,
        /// Retransmission timeouts.
        timeouts: Counter,
        /// Tail loss probes sent.
        loss_probes: Counter,
        /// Times a tail loss probe repaired a loss.
        loss_probe_recoveries: Counter,
        /// Probes of a closed window sent.
        window_probes: Counter,
        /// Times the congestion window was taken back after an idle time.
        idle_restarts: Counter,

        /// ACKs of data that was acknowledged before, beyond duplicate ACKs.
        old_acks: Counter,
        /// ACKs of data that was never sent.
        acks_unsent: Loss,
        /// Duplicate ACKs (RFC 5681, section 2).
        dup_acks: Counter,
        /// SACK blocks ignored because they name what was never sent, or what is acknowledged already.
        sack_discards: Loss,
        /// Reports of the peer's that it got something twice (DSACK, RFC 2883).
        dsack_recv: Counter,
    }
}
