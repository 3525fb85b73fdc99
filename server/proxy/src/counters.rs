//! What a core of a proxy counts.

use std::sync::Arc;

use barewire_service::counters::{Kind, Sample, Samples};

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
    /// Requests of one route on one core of a proxy.
    pub struct RouteCounters {
        /// Requests.
        requests: Counter,
        /// Requests answered by the cache.
        from_cache: Counter,
        /// Responses with a status of 4xx.
        responses_4xx: Counter,
        /// Responses with a status of 5xx, of origins.
        responses_5xx: Counter,
        /// Requests answered 502, 503 or 504 by the proxy, or cut off.
        failed: Counter,
        /// Bytes of content sent to clients.
        content_bytes: Counter,
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
        /// Connections whose TLS could not be agreed on; they count as not opened, too.
        failed_tls: Loss,
        /// Connections that ended before their response did.
        failed_ended: Loss,
        /// Responses that are malformed, or whose head is too long.
        failed_malformed: Loss,
        /// Responses that did not begin, or end, in time.
        failed_late: Loss,
        /// Teleport connections whose other end did not answer a PING in time.
        failed_silent: Loss,
        /// Checks that were not answered, or not with a status below 400.
        failed_check: Loss,
        /// Times that it was ejected: it gets no requests for a while.
        ejected: Loss,
        /// 1 while it gets requests, else 0.
        usable: Gauge,
    }
}

barewire_service::counters! {
    /// The cache of one core of a proxy.
    pub struct CacheCounters {
        /// Requests answered by a stored response that was fresh.
        hits: Counter,
        /// Requests answered by one that was stale: they accept that, or it is validated behind them.
        hits_stale: Counter,
        /// Requests answered by one that was stale because its origin had failed.
        hits_on_error: Counter,
        /// Requests that were not answered by what was stored, though they might have been.
        misses: Counter,
        /// Those of them that waited for what another one had asked for.
        collapsed: Counter,
        /// Requests that only an origin can answer: other methods than GET and HEAD, ranges, conditions for origins.
        bypassed: Counter,
        /// Stored responses that their origin said were still current.
        revalidated: Counter,
        /// Responses stored, those included that were validated.
        stored: Counter,
        /// Stored responses that gave way to others.
        evicted: Counter,
        /// Stored responses that were removed because a request had changed their resource.
        invalidated: Counter,
        /// Stored responses that were removed because an operator said so.
        purged: Counter,
        /// Resources with stored responses.
        entries: Gauge,
        /// Responses that can be stored.
        entries_max: Limit,
        /// Bytes of stored responses, each counted as at least `bytes_max / entries_max`.
        bytes: Gauge,
        /// Bytes that can be stored.
        bytes_max: Limit,
        /// Responses not stored because of their status, without explicit freshness.
        unstorable_status: Counter,
        /// Responses not stored because of no-store.
        unstorable_no_store: Counter,
        /// Responses not stored because they are private.
        unstorable_private: Counter,
        /// Responses not stored because they answer a request with Authorization.
        unstorable_authorization: Counter,
        /// Responses not stored because they set a cookie.
        unstorable_set_cookie: Counter,
        /// Responses not stored because they vary by something that differs between any two requests.
        unstorable_vary: Counter,
        /// Responses not stored because they are stale at once and cannot be validated.
        unstorable_useless: Counter,
        /// Responses not stored because they are longer than `object_bytes_max`.
        unstorable_too_large: Counter,
        /// Responses not stored because their resource was changed or purged meanwhile.
        unstorable_void: Counter,
    }
}

/// What is counted for the origins of a pool, added up when it is read.
#[derive(Debug, Clone)]
pub struct PoolCounters(pub Vec<Arc<OriginCounters>>);

impl Samples for PoolCounters {
    fn samples(&self) -> Vec<Sample> {
        let mut sums = OriginCounters::default().samples();
        for origin in &self.0 {
            for (sum, sample) in sums.iter_mut().zip(origin.samples()) {
                sum.value += sample.value;
            }
        }
        for sum in &mut sums {
            if sum.kind == Kind::Loss {
                // Those of the origins are listed as such.
                sum.kind = Kind::Counter;
            }
        }
        sums.push(Sample {
            name: "origins",
            help: "Origins of the pool.",
            kind: Kind::Gauge,
            value: self.0.len() as u64,
        });
        sums
    }
}
