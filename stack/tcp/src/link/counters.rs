//! What a link counts.

barewire_service::counters! {
    /// What one link moved and dropped. Names follow `struct xdp_statistics` where it has one.
    pub struct LinkCounters {
        /// Frames received.
        rx_frames: Counter,
        /// Bytes received, without FCS.
        rx_bytes: Counter,
        /// Frames sent.
        tx_frames: Counter,
        /// Bytes sent, without FCS.
        tx_bytes: Counter,
        /// Batches received that held at least one frame.
        rx_batches: Counter,
        /// System calls made to start transmission.
        tx_wakeups: Counter,
        /// System calls to start transmission that failed.
        tx_wakeup_errors: Counter,
        /// System calls made to start reception.
        rx_wakeups: Counter,
        /// Times a frame could not be sent because no transmit slot was free.
        tx_no_slot: Loss,
        /// Times the fill ring could not take all free frames at once.
        fill_ring_full: Counter,
        /// Receive frames that wait for room in the fill ring.
        rx_frames_held: Gauge,
        /// Receive frames there are.
        rx_frames_held_max: Limit,
        /// Transmit frames that are being written, or are on their way.
        tx_frames_used: Gauge,
        /// Transmit frames there are.
        tx_frames_used_max: Limit,
    }
}
