//! The counters of a shard. Where Linux counts the same (`nstat`), the name is that of Linux.

use crate::guard::segment::Reason;

barewire_service::counters! {
    /// Connections and guards of one shard.
    pub struct TcpCounters {
        /// Connections in any state but TIME-WAIT.
        connections: Gauge,
        /// Connections in SYN-SENT.
        syn_sent: State,
        /// Connections that can exist at once.
        connections_max: Limit,
        /// smoltcp sockets that connections have.
        sockets: Gauge,
        /// smoltcp sockets that there are.
        sockets_max: Limit,
        /// Connections in SYN-RECEIVED.
        syn_received: State,
        /// Connections in ESTABLISHED or CLOSE-WAIT.
        established: State,
        /// Connections that we have closed and that have not ended: FIN-WAIT-1, FIN-WAIT-2, CLOSING, LAST-ACK.
        closing: State,
        /// Records of connections in TIME-WAIT, and of those that left one for their SYN cookie.
        time_wait: Record,
        /// Records of connections in TIME-WAIT that can exist at once.
        time_wait_max: Limit,
        /// Entries of the flow table: one for each connection and each record in TIME-WAIT.
        flows: Gauge,
        /// Entries that the flow table has room for.
        flows_max: Limit,
        /// Connections that wait for a transmit slot, or for the others' turn.
        deferred: Gauge,
        /// Connections with a timer.
        timers: Gauge,

        /// Segments that were well-formed and for us.
        in_segs: Counter,
        /// Segments among them whose sender, on this machine, left the checksum to a device.
        in_csum_partial: Counter,
        /// Segments sent again.
        retrans_segs: Counter,
        /// Handshakes completed that a peer had begun.
        passive_opens: Counter,
        /// Connections that an earlier process had, and this one went on with.
        taken_over: Counter,
        /// Connections that went on in another process.
        handed_over: Counter,
        /// Connections that we began to open.
        active_opens: Counter,
        /// Connections that we did not get open: refused, or not answered in time.
        attempt_fails: Counter,
        /// Connections that another core began to open and whose answer arrived here.
        handovers: Counter,
        /// Answers to another core's SYN dropped because all connections were in use, or the shard drains.
        handover_overflows: Loss,
        /// Segments dropped because they did not answer our SYN.
        syn_sent_drops: Loss,

        /// Connections ended for new ones because all were in use; those that had waited longest for their peers.
        evictions: Loss,
        /// Connections forgotten because others needed their sockets; those that had waited longest for their peers.
        socket_evictions: Loss,
        /// SYNs dropped, and connections reset at the end of their handshake, because their source had as many as it
        /// may have.
        source_overflows: Loss,
        /// SYNs, and ACKs that bring a cookie back, dropped because all seats of the server were taken.
        seat_overflows: Loss,
        /// SYNs of peers that announced a segment size below the least, which was taken instead.
        mss_raised: Counter,
        /// SYNs dropped because all connections were in use.
        listen_overflows: Loss,
        /// SYNs dropped because the shard drains.
        listen_drops_draining: Loss,
        /// SYNs dropped for a malformed option.
        listen_drops_malformed: Loss,
        /// First SYNs that came again, and were answered again.
        syn_retrans: Counter,
        /// SYN cookies sent.
        syncookies_sent: Counter,
        /// Connections opened by a SYN cookie.
        syncookies_recv: Counter,
        /// Segments dropped because they had overtaken the one that brings a SYN cookie back.
        syncookies_early: Loss,
        /// ACKs for no connection that held no valid SYN cookie while cookies were in use.
        syncookies_failed: Loss,
        /// Valid SYN cookies dropped because all connections were in use.
        syncookies_overflows: Loss,
        /// Connections that ended without TIME-WAIT while SYN cookies were in use, and left a record so that no copy of
        /// their first segment opens them again.
        syncookies_remembered: Counter,
        /// Segments of such connections, refused.
        syncookies_spent: Counter,

        /// Connections ended by the peer's RST.
        estab_resets: Counter,
        /// Half-open connections ended by the peer's RST.
        embryonic_rsts: Counter,
        /// RSTs sent, for any reason.
        out_rsts: Counter,
        /// RSTs not sent because there had been too many in the same second.
        rsts_skipped: Loss,
        /// Segments for no connection, dropped without an RST by configuration.
        unknown_flow_ignored: Loss,
        /// Segments for no connection of this shard, given to the one that seems to have it: the NIC has changed its
        /// queue.
        unknown_flow_elsewhere: Counter,
        /// Segments of this shard's connections that arrived at another one, and were taken from it.
        forwarded: Counter,
        /// Segments for no connection of this shard, dropped because the one that seems to have it could take no more.
        forward_drops: Loss,

        /// Challenge ACKs sent (RFC 5961).
        challenge_acks: Counter,
        /// Challenge ACKs not sent because there had been too many.
        challenge_acks_skipped: Loss,
        /// RSTs dropped because they lay outside the window.
        rst_out_of_window: Loss,
        /// RSTs challenged because they lay in the window, but not at its left edge.
        rst_challenge: Counter,
        /// SYNs challenged because their flow had a connection.
        syn_challenge: Counter,
        /// Segments challenged because they acknowledged what was never sent.
        ack_unsent: Loss,
        /// Segments challenged because they acknowledged what had been acknowledged long ago.
        ack_too_old: Loss,
        /// Segments dropped because their timestamp was older than that of another which had arrived.
        paws_estab: Loss,
        /// Segments whose acknowledgment or window a newer one had overtaken; only their data was taken.
        ack_overtaken: Counter,
        /// Segments of which only the acknowledgment was taken, because our window was closed.
        ack_only: Counter,
        /// Segments dropped because they began behind the receive window.
        beyond_window: Loss,
        /// Segments dropped because their FIN lay behind the receive window.
        fin_beyond_window: Loss,
        /// Segments dropped because they carried data behind the peer's FIN.
        data_after_fin: Loss,
        /// ACKs dropped because they repeated what was known, while only a FIN was unacknowledged or the peer had little room.
        ack_nothing_new: Counter,

        /// Connections that send smaller packets because a router said that theirs were too big.
        path_too_big: Counter,
        /// Messages of routers that were for another shard.
        path_too_big_forwarded: Counter,
        /// Messages of routers about packets that were not on their way: their sequence number was not in flight.
        path_too_big_out_of_window: Loss,
        /// Messages of routers about flows that have no connection.
        path_too_big_unknown_flow: Loss,
        /// Messages of routers that named no smaller size than is in use, or one that no path may have.
        path_too_big_no_news: Counter,
        /// Messages of routers that were cut short, damaged or impossible.
        path_too_big_malformed: Loss,
        /// Messages of routers about packets of others.
        path_too_big_foreign: Loss,
        /// Messages of routers dropped because there had been too many.
        path_too_big_skipped: Loss,
        /// Connections that send smaller packets because long ones seemed to vanish (RFC 4821).
        path_black_holes: Counter,

        /// Times a connection began to be served directly.
        direct_takes: Counter,
        /// Times smoltcp took a connection over that was served directly.
        direct_hand_overs: Counter,
        /// Segments for smoltcp on connections that kept more than its sockets hold: taken was only what they
        /// acknowledge, the rest has to come again.
        hand_overs_postponed: Counter,
        /// Segments kept by the direct path that arrived behind a gap.
        inbox_kept: Counter,
        /// Segments dropped because the chunks of the core were too few to keep them.
        inbox_drops: Loss,
        /// Connections aborted because no chunk was left for what their service had not taken.
        inbox_aborts: Loss,

        /// Connections that went to TIME-WAIT.
        tw: Counter,
        /// TIME-WAITs that a new connection of the same flow ended.
        tw_recycled: Counter,
        /// TIME-WAITs ended early because there were too many.
        time_wait_overflow: Loss,
        /// ACKs sent in TIME-WAIT.
        tw_acks: Counter,
        /// ACKs not sent in TIME-WAIT because there had been too many.
        tw_acks_skipped: Loss,
        /// RSTs ignored in TIME-WAIT (RFC 1337).
        tw_rsts_ignored: Counter,

        /// Half-open connections given up at their deadline.
        half_open_timeouts: Loss,
        /// Connections closed because a handshake above TCP, as TLS has one, took too long.
        handshake_timeouts: Loss,
        /// Connections closed because no message came in time.
        idle_timeouts: Loss,
        /// Connections closed because a message's head took too long.
        head_timeouts: Loss,
        /// Connections closed because a message's body took too long.
        body_timeouts: Loss,
        /// Connections reset because the peer stopped reading.
        send_timeouts: Loss,
        /// Connections reset because the peer acknowledged nothing any more.
        abort_on_timeout: Loss,
        /// Connections forgotten because the peer did not end its side after we had.
        close_timeouts: Loss,
        /// Connections reset because their service said so.
        aborts: Loss,

        /// Times the shard was called much later than it had asked for: the machine was paused, or the core busy elsewhere.
        pauses: Counter,
        /// Turns that left timers that had expired to the next turn.
        timers_deferred: Counter,

        /// Received segments dropped because there was no slot to answer them.
        rx_dropped_no_slot: Loss,
        /// Times a connection had to wait for a transmit slot, or for the others' turn.
        tx_deferred: Counter,
        /// Times a zero-window probe had to be started because smoltcp had stopped its timer.
        probe_restarts: Counter,
    }
}

impl TcpCounters {
    /// Counts a segment that a guard kept from smoltcp.
    #[cold]
    pub(crate) fn count(&self, reason: Reason) {
        let counter = match reason {
            Reason::RstOutOfWindow => &self.rst_out_of_window,
            Reason::RstInWindow => &self.rst_challenge,
            Reason::Syn => &self.syn_challenge,
            Reason::AckAboveSndNxt => &self.ack_unsent,
            Reason::AckTooOld => &self.ack_too_old,
            Reason::BeyondWindow => &self.beyond_window,
            Reason::FinBeyondWindow => &self.fin_beyond_window,
            Reason::DataAfterFin => &self.data_after_fin,
            Reason::NothingNew => &self.ack_nothing_new,
            Reason::NoAnswer => &self.syn_sent_drops,
        };
        counter.increment();
    }
}
