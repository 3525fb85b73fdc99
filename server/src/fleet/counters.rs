//! What the thread that publishes counts.

use barewire_service::counters;

counters! {
    /// What became of publications, and what is known of the fleet. Written by the thread that publishes.
    pub struct FleetCounters {
        /// Publications that the engine took.
        publications: Counter,
        /// Users that the engine took; one that it had already counts as well.
        users_published: Counter,
        /// How often the counts of all nodes were read.
        readings: Counter,
        /// Connections to the engine that were made.
        connects: Counter,
        /// Calls that failed because the engine was not to be reached or closed the connection.
        failed_unreachable: Counter,
        /// Calls that failed because the engine did not answer in time.
        failed_timeout: Counter,
        /// Calls that the engine refused because it has no memory left.
        failed_full: Counter,
        /// Calls that the engine refused for another reason: the log says which.
        failed_refused: Counter,
        /// How often the table of all users was read: at the start, and when a queue of new users was full.
        user_scans: Counter,
        /// How often the engine had lost what it had taken.
        engine_losses: Counter,
        /// Publications that met another process of the same node's name.
        name_conflicts: Counter,
        /// Resets of the fleet that this server followed.
        resets: Counter,
        /// Events counted while the fleet had begun anew without this server's knowledge, and forgotten with its counts.
        events_reset_late: Counter,
        /// 1 while the engine answers.
        engine_answers: Gauge,
        /// Events that the engine does not have yet.
        events_unpublished: Gauge,
        /// New users that wait in the cores' queues; the table of all has more while it is read.
        users_waiting: Gauge,
        /// Nodes that the fleet has or had.
        nodes: Gauge,
        /// Nodes that have not published for long and did not say that they end.
        nodes_silent: Gauge,
        /// Nodes that have not followed the last reset yet.
        nodes_reset_pending: Gauge,
        /// Milliseconds since the counts of all nodes were read.
        age_ms: Gauge,
        /// Events of the fleet.
        fleet_events: Gauge,
        /// Different users of the fleet.
        fleet_users: Gauge,
    }
}
