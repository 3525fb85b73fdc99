//! What each core of a kernel stack counts.

use barewire_service::deadline::Wait;

barewire_service::counters! {
    /// What one core of a kernel stack served, and which of its limits were hit.
    pub struct KernelCounters {
        /// Connections open now.
        open: State,
        /// Connections that can be open at once.
        open_max: Limit,
        /// Of those, connections that the service had opened.
        outbound: Gauge,
        /// Connections that the service can have opened at once.
        outbound_max: Limit,
        /// Buffers that hold input which was not consumed yet.
        receive_buffers: Gauge,
        /// Buffers for input there are.
        receive_buffers_max: Limit,
        /// Buffers that hold replies which were not sent yet.
        send_buffers: Gauge,
        /// Buffers for replies there are.
        send_buffers_max: Limit,
        /// Connections accepted.
        accepted: Counter,
        /// Connections that an earlier process had accepted, and this one went on with.
        taken_over: Counter,
        /// Connections that went on in another process.
        handed_over: Counter,
        /// Times accepting paused because every connection was in use.
        accept_paused: Loss,
        /// Times a connection could not be accepted for lack of file descriptors or memory.
        accept_failed: Loss,
        /// Connections that the service had opened, and that were established.
        connected: Counter,
        /// Connections that the service wanted opened and that could not be: no port, no room, no answer, or refused.
        connect_failed: Loss,
        /// Connections on which the service was called because it wanted to be.
        wakes: Counter,
        /// Messages served.
        messages: Counter,
        /// Bytes received.
        received_bytes: Counter,
        /// Bytes sent.
        sent_bytes: Counter,
        /// Times a reply had to wait because the peer did not read.
        send_blocked: Counter,
        /// Connections that ended in order.
        closed: Counter,
        /// Connections that the peer, or the network, broke.
        broken: Loss,
        /// Connections reset because the service asked for it.
        aborted: Loss,
        /// Connections closed because a handshake above TCP, as TLS has one, took too long.
        handshake_timeouts: Loss,
        /// Connections closed because no message began in time.
        idle_timeouts: Loss,
        /// Connections closed because a message's head took too long.
        head_timeouts: Loss,
        /// Connections closed because a message's body took too long.
        body_timeouts: Loss,
        /// Connections reset because the peer did not read in time.
        send_timeouts: Loss,
        /// Connections reset because the peer did not close in time.
        close_timeouts: Loss,
        /// Times the core asked the kernel for events, and slept if there were none.
        waits: Counter,
    }
}

impl KernelCounters {
    /// Counts a connection that waited too long for `wait`.
    pub fn timed_out(&self, wait: Wait) {
        match wait {
            Wait::UpperHandshake => self.handshake_timeouts.increment(),
            Wait::Message => self.idle_timeouts.increment(),
            Wait::Head => self.head_timeouts.increment(),
            Wait::Body => self.body_timeouts.increment(),
            Wait::Send => self.send_timeouts.increment(),
            Wait::Close => self.close_timeouts.increment(),
            // Counted where the connection ends; and what has no deadline here.
            Wait::Handshake | Wait::Service => {}
        }
    }
}
