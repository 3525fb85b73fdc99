//! What a core of a proxy counts.

barewire_service::counters! {
    /// Calls of one core of a proxy.
    pub struct ProxyCounters {
        /// Calls in progress.
        calls: Gauge,
        /// Calls that can be in progress at once.
        calls_max: Limit,
        /// Requests that were accepted for forwarding.
        begun: Counter,
        /// Responses that were received completely.
        completed: Counter,
        /// Requests that were sent to an origin again.
        retried: Counter,
        /// Requests that were not sent again because the pool's budget was used up.
        retry_budget_spent: Loss,
        /// Requests refused because `calls_max` calls were in progress.
        refused_calls: Loss,
        /// Requests refused because no route matches their host and path.
        refused_unrouted: Loss,
        /// Requests refused because their path has a segment . or .. in it.
        refused_dot_segments: Loss,
        /// Calls whose client went away before the response was complete.
        abandoned: Counter,
        /// Responses that broke off after they had begun.
        broken: Loss,
    }
}

barewire_service::counters! {
    /// Traffic of one core of a proxy with one origin.
    pub struct OriginCounters {
        /// Requests that were sent, completely or in part.
        requests: Counter,
        /// Requests in progress.
        outstanding: Gauge,
        /// Connections, in use or kept.
        connections: Gauge,
        /// Connections opened.
        opened: Counter,
        /// Requests that were sent on a connection that was kept.
        reused: Counter,
        /// Responses with a status of 5xx.
        responses_5xx: Counter,
        /// Connections that could not be opened.
        failed_connect: Loss,
        /// Connections that ended before their response did.
        failed_ended: Loss,
        /// Responses that are malformed, or whose head is too long.
        failed_malformed: Loss,
        /// Responses that did not begin, or end, in time.
        failed_late: Loss,
        /// Checks that were not answered, or not with a status below 400.
        failed_check: Loss,
        /// Times that it was ejected: it gets no requests for a while.
        ejected: Loss,
        /// 1 while it gets requests, else 0.
        usable: Gauge,
    }
}
