//! One core's calls: how their origin is chosen, when they are repeated, how they end.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use barewire_http::received::Framing;
use barewire_http::{Consumed, REQUEST_LOG, Refusal, Relay, Relayed, RelayedHead, Request, Upload};
use barewire_http::{Method, Route};
use barewire_service::service::{Id, Want};
use barewire_service::time::{Duration, Instant};
use barewire_service::timer::TimerWheel;
use barewire_teleport::{Secrets, TeleportCounters};
use barewire_tls::{ClientConnection, TlsClient};
use slab::Slab;
use tracing::Level;

use crate::balance::{self, Budget, Origin, Random};
use crate::cache::{Cache, Said};
use crate::call::{Buffers, Call, For};
use crate::config::{PoolConfig, Protocol};
use crate::counters::{CacheCounters, OriginCounters, ProxyCounters, RouteCounters};
use crate::head::{self, Asker};
use crate::origin_connection::{NO_ID, OriginConnection};
use crate::secure;
use crate::shared::{Shared, Silence};
use crate::table::Table;

pub(crate) const MS: u64 = 1_000_000;

/// Every path: the forwarder, not the responder, finds the origin.
pub const ROUTES: &[Route<Forwarder>] = &[
    Route::new("/").relay(&Forward),
    Route::new("/{*path}").relay(&Forward),
];

/// The calls of a core, and what they share.
#[derive(Debug)]
pub struct Forwarder {
    pub(crate) table: Arc<Table>,
    pub(crate) counters: Arc<ProxyCounters>,
    /// Those of one pool are next to each other.
    pub(crate) origins: Vec<Origin>,
    pub(crate) pools: Vec<Range<usize>>,
    /// By route; as many as routes, or none.
    pub(crate) of_routes: Vec<Arc<RouteCounters>>,
    pub(crate) budgets: Vec<Budget>,
    pub(crate) calls: Slab<Call>,
    pub(crate) connections: Slab<OriginConnection>,
    /// Buffers of calls that are over.
    spare: Vec<Buffers>,
    /// What is kept out of compressors, by pool.
    pub(crate) secrets: Vec<Secrets>,
    teleport: Arc<TeleportCounters>,
    /// TLS with origins, if a pool has it. Taken out while it is in use.
    pub(crate) tls: Option<Box<TlsClient>>,
    /// If a route has one.
    pub(crate) cache: Option<Box<Cache>>,
    pub(crate) cache_counters: Arc<CacheCounters>,
    wants: VecDeque<Want>,
    /// By the index of a call.
    timers: TimerWheel,
    pub(crate) random: Random,
    pub(crate) now_ns: u64,
    pub(crate) unix_s: u64,
    pub(crate) next_check_ns: u64,
    /// Teleport connections that send later, and when the first of them does.
    delayed: Vec<usize>,
    next_batch_ns: u64,
    /// When a teleport connection may have been silent for too long.
    pub(crate) next_ping_ns: u64,
    pub(crate) draining: bool,
    /// The client whose request is being handled.
    pub(crate) asking: Id,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) is_tls: bool,
}

/// Hands requests on to a [`Forwarder`].
#[derive(Debug)]
pub struct Forward;

impl Forwarder {
    pub fn new(
        table: Arc<Table>,
        counters: Arc<ProxyCounters>,
        of_origins: Vec<Arc<OriginCounters>>,
        seed: u64,
    ) -> Self {
        let calls_max = table.limits.calls_max;
        counters.calls_max.set(calls_max as u64);
        let secrets = table.pools.iter();
        let secrets = secrets.map(|pool| Secrets::with(pool.config.secret_fields.iter().cloned()));
        let (mut origins, mut pools) = (Vec::new(), Vec::new());
        let mut of_origins = of_origins.into_iter();
        for (at, pool) in table.pools.iter().enumerate() {
            let first = origins.len();
            for &address in &pool.config.origins {
                let counters = of_origins.next().unwrap_or_default();
                origins.push(Origin::new(at, address, counters));
            }
            pools.push(first..origins.len());
        }
        let has_checks = table.pools.iter().any(|pool| pool.config.check.is_some());
        Forwarder {
            counters,
            budgets: pools.iter().map(|_| Budget::new()).collect(),
            origins,
            pools,
            calls: Slab::with_capacity(calls_max),
            connections: Slab::with_capacity(table.limits.connections_max),
            spare: Vec::with_capacity(calls_max),
            secrets: secrets.collect(),
            teleport: Arc::default(),
            tls: table
                .has_tls()
                .then(|| secure::client(table.connections_max())),
            of_routes: Vec::new(),
            cache_counters: Arc::default(),
            cache: table.cache.map(|cache| Cache::new(cache, seed)),
            wants: VecDeque::with_capacity(2 * calls_max),
            timers: TimerWheel::new(calls_max, Instant::ZERO),
            random: Random::new(seed),
            now_ns: 0,
            unix_s: 0,
            next_check_ns: if has_checks { 0 } else { u64::MAX },
            delayed: Vec::new(),
            next_batch_ns: u64::MAX,
            next_ping_ns: u64::MAX,
            draining: false,
            asking: NO_ID,
            peer: None,
            is_tls: false,
            table,
        }
    }

    /// Counts what teleport connections carry in `counters`, which somebody else reads.
    pub fn count_teleport_in(&mut self, counters: Arc<TeleportCounters>) {
        self.teleport = counters;
    }

    /// Counts what the cache does in `counters`, which somebody else reads.
    pub fn count_cache_in(&mut self, counters: Arc<CacheCounters>) {
        if let Some(cache) = &mut self.cache {
            cache.count_in(Arc::clone(&counters));
        }
        self.cache_counters = counters;
    }

    pub(crate) fn pool(&self, call: usize) -> &PoolConfig {
        &self.table.pools[self.calls[call].pool].config
    }

    /// What the stack is asked to do next.
    pub fn next_want(&mut self, now: Instant) -> Want {
        if let Some(want) = self.wants.pop_front() {
            return want;
        }
        while let Some(call) = self.pop_over() {
            self.hang_up(call);
            self.forget(call);
        }
        while let Some(call) = self.timers.pop_expired(instant(self.now_ns)) {
            self.deadline_passes(call as usize);
        }
        if self.now_ns >= self.next_check_ns {
            self.begin_checks();
        }
        if self.now_ns >= self.next_batch_ns {
            self.send_delayed();
        }
        if self.now_ns >= self.next_ping_ns {
            self.ping_silent_connections();
        }
        if let Some(want) = self.wants.pop_front() {
            return want;
        }
        let timer = self
            .timers
            .next_at()
            .map(|at| at.total_micros() as u64 * 1_000);
        let regular_ns = self.next_check_ns.min(self.next_ping_ns);
        let check = Some(regular_ns).filter(|_| !self.draining);
        let next_ns = timer
            .into_iter()
            .chain(check)
            .chain([self.next_batch_ns])
            .min()
            .filter(|&at| at != u64::MAX);
        // The two clocks may have different origins.
        let until = next_ns
            .map(|at| now + Duration::from_micros(at.saturating_sub(self.now_ns).div_ceil(1_000)));
        Want::Nothing { until }
    }

    pub(crate) fn want(&mut self, want: Want) {
        self.wants.push_back(want);
    }

    /// A new call, unless there are too many.
    fn take_call(&mut self, by: For) -> Option<usize> {
        if self.calls.len() >= self.table.limits.calls_max {
            return None;
        }
        let buffers = self.spare.pop().unwrap_or_default();
        let call = self.calls.insert(Call::new(by, buffers));
        self.counters.calls.set(self.calls.len() as u64);
        Some(call)
    }

    /// The call is over: keeps its buffers for the next one.
    fn forget(&mut self, at: usize) {
        self.forget_fetch(at);
        let call = self.calls.remove(at);
        self.timers.cancel(at as u32);
        let bytes_max = self.table.limits.response_buffer_bytes;
        self.spare.push(call.into_buffers(bytes_max));
        self.counters.calls.set(self.calls.len() as u64);
    }

    /// Sends the call to an origin; if one has failed, to another one.
    pub(crate) fn dispatch(&mut self, at: usize, failed: Option<usize>) {
        let (pool, key) = (self.calls[at].pool, self.calls[at].key);
        let among = self.pools[pool].clone();
        let config = &self.table.pools[pool].config;
        let chosen = balance::choose(
            &self.origins[among.clone()],
            config,
            key,
            self.random.next(),
            failed
                .filter(|failed| among.contains(failed))
                .map(|failed| failed - among.start),
            self.now_ns,
        );
        match chosen {
            Some(chosen) => self.send_to(at, among.start + chosen, failed.is_some()),
            None => self.fail(at, Refusal::NoOrigin),
        }
    }

    /// Puts the call on a connection to `origin`; on a new one if it `is_retry`, since all that were kept may be stale.
    fn send_to(&mut self, at: usize, origin: usize, is_retry: bool) {
        let config = &self.table.pools[self.calls[at].pool].config;
        if config.protocol == Protocol::Teleport {
            return self.share(at, origin);
        }
        let kept = match is_retry {
            true => None,
            false => self.origins[origin].idle.pop(),
        };
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let each_max = config.connections_max;
                let all_max = self.table.limits.connections_max;
                if self.origins[origin].connections >= each_max || self.connections.len() >= all_max
                {
                    return self.fail(at, Refusal::OriginsBusy);
                }
                self.open_connection(origin, None)
            }
        };
        self.put_on(at, connection, kept.is_some());
        self.connections[connection].call = Some(at);
        if kept.is_some() {
            self.wake_connection(connection);
        }
    }

    fn open_connection(&mut self, origin: usize, shared: Option<Shared>) -> usize {
        let Origin { address, pool, .. } = self.origins[origin];
        let identity = self.table.pools[pool].identity_for(address);
        let tls = identity.map(ClientConnection::new);
        let connection = self
            .connections
            .insert(OriginConnection::new(origin, shared, tls));
        self.origins[origin].connections += 1;
        self.want(Want::Connect {
            to: address,
            token: connection as u64,
        });
        connection
    }

    /// Puts the call on the teleport connection to `origin` that has the fewest; on a new one as long as all have some
    /// and there may be more.
    fn share(&mut self, at: usize, origin: usize) {
        let config = &self.table.pools[self.calls[at].pool].config;
        let load = |connection: usize| {
            let connection = self
                .connections
                .get(connection)
                .filter(|connection| !connection.closes)?;
            connection.shared.as_ref().map(|shared| shared.load)
        };
        let connections = self.origins[origin].shared.iter();
        let usable = connections.filter_map(|&connection| Some((load(connection)?, connection)));
        let least = usable.clone().min();
        let may_open = usable.count() < config.teleport_connections as usize
            && self.connections.len() < self.table.limits.connections_max;
        let connection = match least {
            Some((0, connection)) => connection,
            Some((_, connection)) if !may_open => connection,
            None if !may_open => return self.fail(at, Refusal::OriginsBusy),
            _ => {
                let credit_bytes = self.table.limits.response_buffer_bytes;
                let shared = Shared::new(config, credit_bytes, Arc::clone(&self.teleport));
                let connection = self.open_connection(origin, Some(shared));
                self.origins[origin].shared.push(connection);
                connection
            }
        };
        self.put_on(at, connection, self.connections[connection].is_open);
        if let Some(shared) = &mut self.connections[connection].shared {
            shared.add(at);
        }
        self.publish_teleport();
        self.wake_connection(connection);
    }

    pub(crate) fn publish_teleport(&self) {
        let shared = self.origins.iter().flat_map(|origin| &origin.shared);
        let shared =
            shared.filter_map(|&connection| self.connections.get(connection)?.shared.as_ref());
        let (connections, calls) = shared.fold((0, 0), |(connections, calls), shared| {
            (connections + 1, calls + shared.load as u64)
        });
        self.teleport.connections.set(connections);
        self.teleport.calls_open.set(calls);
    }

    /// The call goes on on this connection, which was open before if it `is_kept`.
    fn put_on(&mut self, at: usize, connection: usize, is_kept: bool) {
        let origin = self.connections[connection].origin;
        let config = &self.table.pools[self.calls[at].pool].config;
        let of_origin = &mut self.origins[origin];
        of_origin.outstanding += 1;
        of_origin.counters.requests.increment();
        of_origin
            .counters
            .outstanding
            .set(of_origin.outstanding.into());
        of_origin
            .counters
            .connections
            .set(of_origin.connections.into());
        let call = &mut self.calls[at];
        call.origin = origin;
        call.connection = Some(connection);
        let timeout_ms = match is_kept {
            true => config.response_timeout_ms,
            false => config.connect_timeout_ms,
        };
        call.response_by_ns = self.now_ns + u64::from(timeout_ms) * MS;
        self.timers.schedule(at as u32, instant(call.deadline_ns()));
        if is_kept {
            self.origins[origin].counters.reused.increment();
        }
    }

    pub(crate) fn schedule_deadline(&mut self, at: usize) {
        let deadline = instant(self.calls[at].deadline_ns());
        self.timers.schedule(at as u32, deadline);
    }

    /// The call has more to send, or room to take more.
    pub(crate) fn nudge(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let Some(connection) = call.connection else {
            return;
        };
        if let Some(shared) = &mut self.connections[connection].shared {
            shared.nudge(at, call);
        }
        self.wake_connection(connection);
    }

    /// How long requests on this connection wait for others.
    pub(crate) fn batch_delay_ns(&self, connection: usize) -> u64 {
        let connection = &self.connections[connection];
        let pool = self.origins[connection.origin].pool;
        match connection.shared {
            None => 0,
            Some(_) => u64::from(self.table.pools[pool].config.batch_delay_us) * 1_000,
        }
    }

    /// Lets what is to be sent on a teleport connection wait for more.
    pub(crate) fn delay_batch(&mut self, connection: usize) {
        let delay_ns = self.batch_delay_ns(connection);
        let shared = self.connections[connection].shared.as_mut();
        if let Some(at_ns) = shared.and_then(|shared| shared.delay(self.now_ns, delay_ns)) {
            self.delayed.push(connection);
            self.next_batch_ns = self.next_batch_ns.min(at_ns);
        }
    }

    /// Lets the teleport connections send whose time has come.
    fn send_delayed(&mut self) {
        self.next_batch_ns = u64::MAX;
        let mut delayed = std::mem::take(&mut self.delayed);
        delayed.retain(|&at| {
            let shared = self
                .connections
                .get(at)
                .and_then(|connection| connection.shared.as_ref());
            let Some(at_ns) = shared.and_then(Shared::sends_at_ns) else {
                return false;
            };
            if at_ns > self.now_ns {
                self.next_batch_ns = self.next_batch_ns.min(at_ns);
                return true;
            }
            self.wake_now(at);
            false
        });
        self.delayed = delayed;
    }

    /// Asks for a call of the service on a connection to an origin, if that is open: later, if it is one of teleport whose
    /// batches are delayed.
    pub(crate) fn wake_connection(&mut self, connection: usize) {
        match self.connections[connection].is_open && self.batch_delay_ns(connection) > 0 {
            true => self.delay_batch(connection),
            false => self.wake_now(connection),
        }
    }

    fn wake_now(&mut self, connection: usize) {
        let connection = &mut self.connections[connection];
        if connection.is_open && !connection.is_woken {
            connection.is_woken = true;
            self.wants.push_back(Want::Wake(connection.id));
        }
    }

    /// Something has changed that the client of the call waits for.
    pub(crate) fn wake_client(&mut self, at: usize) {
        let call = &mut self.calls[at];
        match call.by {
            For::Client(_) if call.is_woken => {}
            For::Client(id) => {
                call.is_woken = true;
                self.wants.push_back(Want::Wake(id));
            }
            For::Check => self.check_goes_on(at),
            For::Cache => self.fetch_goes_on(at),
        }
    }

    /// Takes the call off its connection to the origin, and returns that.
    pub(crate) fn leave_connection(&mut self, at: usize) -> Option<usize> {
        let call = &mut self.calls[at];
        let connection_at = call.connection.take();
        let connection = connection_at?;
        let origin = &mut self.origins[call.origin];
        origin.outstanding -= 1;
        origin.counters.outstanding.set(origin.outstanding.into());
        let connection = &mut self.connections[connection];
        connection.call = None;
        if let Some(shared) = &mut connection.shared {
            shared.remove(at, call);
        }
        connection_at
    }

    /// The call has failed, unless a stored response answers it.
    pub(crate) fn fail(&mut self, at: usize, refusal: Refusal) {
        let is_answered = self.calls[at].stored.is_some();
        if !is_answered && !self.cache_takes_failure(at, refusal) {
            self.refuse(at, refusal);
        }
    }

    pub(crate) fn refuse(&mut self, at: usize, refusal: Refusal) {
        self.calls[at].failure = Some(refusal);
        self.wake_client(at);
    }

    /// Its origin failed: tries another one if the request cannot take effect twice.
    pub(crate) fn retry_or_fail(&mut self, at: usize, refusal: Refusal) {
        let config = self.pool(at);
        let call = &self.calls[at];
        let may_be_repeated = !call.was_sent() || call.is_idempotent;
        let can_be_repeated = call.is_whole
            && call.head.is_none()
            && call.retries < config.retries_max
            && call.by != For::Check;
        if !may_be_repeated || !can_be_repeated {
            return self.fail(at, refusal);
        }
        let (pool, failed) = (call.pool, call.origin);
        if !self.budgets[pool].spend() {
            self.counters.retry_budget_spent.increment();
            return self.fail(at, refusal);
        }
        self.counters.retried.increment();
        let call = &mut self.calls[at];
        call.retries += 1;
        call.begin_anew();
        self.dispatch(at, Some(failed));
    }

    /// Counts a failure of the origin, which may eject it.
    pub(crate) fn blame(&mut self, origin: usize) {
        let origin = &mut self.origins[origin];
        let config = &self.table.pools[origin.pool].config;
        origin.failed(config, self.now_ns);
    }

    fn deadline_passes(&mut self, at: usize) {
        let Some(call) = self.calls.get(at) else {
            return;
        };
        if call.deadline_ns() > self.now_ns {
            let next = instant(call.deadline_ns());
            return self.timers.schedule(at as u32, next);
        }
        if call.failure.is_some() || call.is_complete {
            // The client is slow; the stack's deadlines limit that.
            return;
        }
        if self.is_follower(at) {
            self.leave_flight(at);
            return self.fail(at, Refusal::OriginLate);
        }
        let origin = call.origin;
        // By teleport, one may wait for its turn on a connection that is open.
        let was_begun =
            |connection: &OriginConnection| connection.shared.is_none() || call.remote.is_some();
        let connection = call
            .connection
            .map(|connection| &self.connections[connection]);
        let was_open =
            connection.is_some_and(|connection| connection.is_open && was_begun(connection));
        let is_silent =
            connection.is_some_and(|connection| connection.is_silent_since(call.began_ns));
        self.origins[origin].counters.failed_late.increment();
        self.blame(origin);
        if let (true, Some(connection)) = (is_silent, self.calls[at].connection) {
            self.connections[connection].closes = true;
            self.abort_connection(connection);
        }
        self.hang_up(at);
        match was_open {
            true => self.fail(at, Refusal::OriginLate),
            false => self.retry_or_fail(at, Refusal::OriginLate),
        }
    }

    /// Resets the connection to the origin that the call is on; if others share it, only the call.
    fn hang_up(&mut self, at: usize) {
        if let Some(connection) = self.leave_connection(at) {
            match self.connections[connection].shared {
                Some(_) => self.wake_connection(connection),
                None => self.abort_connection(connection),
            }
        }
    }

    fn abort_connection(&mut self, connection: usize) {
        match self.connections[connection].id {
            // It is not opened yet, and will be closed at once.
            NO_ID => self.connections[connection].closes = true,
            id => self.want(Want::Abort(id)),
        }
    }

    /// Counts a call and its outcome by its route.
    fn count_by_route(&self, at: usize) {
        let call = &self.calls[at];
        let Some(counters) = self.of_routes.get(call.route) else {
            return;
        };
        counters.requests.increment();
        counters.from_cache.add(call.stored.is_some().into());
        counters.failed.add(call.failure.is_some().into());
        counters.content_bytes.add(call.content_bytes);
        match call.head.map(|head| head.status) {
            Some(400..500) => counters.responses_4xx.increment(),
            Some(500..) => counters.responses_5xx.increment(),
            _ => {}
        }
    }

    /// Logs a call and its outcome.
    fn log(&self, at: usize) {
        let call = &self.calls[at];
        let outcome = match (call.failure, call.is_complete) {
            _ if call.stored.is_some() => "stored",
            (Some(refusal), _) => refusal.detail().trim_end(),
            (None, true) => "complete",
            (None, false) => "the client went away",
        };
        let was_sent = call.stored.is_none() && !self.is_follower(at);
        let origin = was_sent.then(|| self.origins[call.origin].address);
        tracing::debug!(
            target: REQUEST_LOG,
            request = call.request_line(),
            pool = &*self.table.pools[call.pool].name,
            origin = origin.map(tracing::field::display),
            status = call.head.map(|head| head.status),
            content_bytes = call.content_bytes,
            retries = call.retries,
            us = (self.now_ns - call.began_ns) / 1_000,
            "{outcome}"
        );
    }

    /// Begins the health checks that are due.
    fn begin_checks(&mut self) {
        self.next_check_ns = u64::MAX;
        if self.draining {
            return;
        }
        for origin in 0..self.origins.len() {
            let pool = self.origins[origin].pool;
            let Some(check) = self.table.pools[pool].config.check.clone() else {
                continue;
            };
            let interval_ns = u64::from(check.interval_ms) * MS;
            if self.origins[origin].check_at_ns <= self.now_ns {
                self.origins[origin].check_at_ns = self.now_ns + interval_ns;
                if self.origins[origin].check.is_none()
                    && let Some(at) = self.take_call(For::Check)
                {
                    let address = self.origins[origin].address.to_string();
                    let host = check.host.as_deref().unwrap_or(&address);
                    let path = &check.path;
                    let text = format!(
                        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: barewire-check\r\nVia: 1.1 barewire\r\nConnection: close\r\n\r\n"
                    );
                    let total_by_ns = self.now_ns + u64::from(check.timeout_ms) * MS;
                    let call = &mut self.calls[at];
                    call.pool = pool;
                    call.is_uploaded = true;
                    call.total_by_ns = total_by_ns;
                    call.request.extend_from_slice(text.as_bytes());
                    self.origins[origin].check = Some(at);
                    // By HTTP/1.1 on a new connection: one that was kept does not show whether the origin still accepts.
                    self.calls[at].origin = origin;
                    self.send_to(at, origin, true);
                    let connection = self.calls.get(at).and_then(|call| call.connection);
                    if let Some(connection) = connection
                        && self.connections[connection].shared.is_none()
                    {
                        self.connections[connection].closes = true;
                    }
                }
            }
            self.next_check_ns = self.next_check_ns.min(self.origins[origin].check_at_ns);
        }
    }

    /// Asks on teleport connections on which nothing has arrived for a while whether their origin is there, and gives those
    /// up on which that was asked in vain: a machine that is gone does not say so.
    fn ping_silent_connections(&mut self) {
        self.next_ping_ns = u64::MAX;
        if self.draining {
            return;
        }
        let (mut asking, mut dead) = (Vec::new(), Vec::new());
        for (at, connection) in &mut self.connections {
            let Some(shared) = connection.shared.as_mut().filter(|_| connection.is_open) else {
                continue;
            };
            let pool = self.origins[connection.origin].pool;
            let interval_ns = u64::from(self.table.pools[pool].config.ping_interval_ms) * MS;
            let next_ns = match shared.silence(self.now_ns, interval_ns) {
                Silence::Until(ns) => ns,
                Silence::Asks => {
                    asking.push(at);
                    self.now_ns + interval_ns
                }
                Silence::Dead => {
                    dead.push(at);
                    continue;
                }
            };
            self.next_ping_ns = self.next_ping_ns.min(next_ns);
        }
        for at in asking {
            self.wake_connection(at);
        }
        for at in dead {
            let origin = self.connections[at].origin;
            self.origins[origin].counters.failed_silent.increment();
            self.blame(origin);
            self.connections[at].closes = true;
            self.abort_connection(at);
        }
    }

    /// A health check has made progress.
    fn check_goes_on(&mut self, at: usize) {
        let call = &mut self.calls[at];
        call.is_head_taken = true;
        call.response.clear();
        call.taken = 0;
        let is_up = match (call.failure, call.head) {
            (Some(_), _) => false,
            (None, Some(head)) if call.is_complete => head.status < 400,
            (None, _) => return,
        };
        let origin = call.origin;
        self.origins[origin].check = None;
        self.origins[origin].checked(is_up, self.now_ns);
        self.hang_up(at);
        self.forget(at);
    }
}

impl Forwarder {
    /// Makes of a request what its origin gets.
    fn prepare(
        &mut self,
        at: usize,
        route: usize,
        request: &Request<'_>,
        upload: Upload,
        version: &'static str,
    ) {
        let route = &self.table.routes[route];
        let config = &self.table.pools[route.pool].config;
        let asker = Asker {
            peer: self.peer,
            is_tls: self.is_tls,
            version,
            is_trusted: route.trust_forwarded,
        };
        let call = &mut self.calls[at];
        call.key = balance::key(config.balance, self.peer, request.path());
        call.is_idempotent = !matches!(request.method(), Method::Post | Method::Patch);
        call.is_chunked = upload == Upload::Chunked;
        call.is_uploaded = matches!(upload, Upload::Absent | Upload::Length(0));
        call.total_by_ns = self.now_ns + u64::from(config.total_timeout_ms) * MS;
        head::compose(request, upload, &asker, &mut call.request);
        self.budgets[route.pool].earn(config.retries_percent);
        let is_by_teleport = config.protocol == Protocol::Teleport;
        self.keep_conditions(at);
        let call = &mut self.calls[at];
        if is_by_teleport {
            let secret_from = self.secrets[call.pool].move_back(&mut call.request);
            if secret_from < call.request.len() {
                call.secret = secret_from..call.request.len();
            }
        }
    }

    /// Validates what a request was answered with, unless somebody does already.
    fn validate_behind(&mut self, route: usize, request: &Request<'_>, version: &'static str) {
        if !self.is_unasked(request) {
            return;
        }
        let Some(at) = self.take_call(For::Cache) else {
            return;
        };
        let call = &mut self.calls[at];
        call.pool = self.table.routes[route].pool;
        call.began_ns = self.now_ns;
        call.is_head_taken = true;
        self.begin_validation(at, request);
        self.prepare(at, route, request, Upload::Absent, version);
        self.set_out(at);
    }
}

impl Relay<Forwarder> for Forward {
    fn begin(
        &self,
        state: &mut Forwarder,
        request: &Request<'_>,
        version: &'static str,
        upload: Upload,
    ) -> Result<u32, Refusal> {
        let path = request.path();
        if head::has_dot_segment(path) {
            state.counters.refused_dot_segments.increment();
            return Err(Refusal::Target);
        }
        let host = request.field("host").unwrap_or_default();
        let Some(route) = state.table.route(host, path) else {
            state.counters.refused_unrouted.increment();
            return Err(Refusal::NotFound);
        };
        let Some(at) = state.take_call(For::Client(state.asking)) else {
            state.counters.refused_calls.increment();
            return Err(Refusal::OriginsBusy);
        };
        let call = &mut state.calls[at];
        call.route = route;
        call.pool = state.table.routes[route].pool;
        call.to_head = request.method() == Method::Head;
        call.began_ns = state.now_ns;
        if state.table.routes[route].cache {
            match state.ask_cache(at, route, host, request, upload) {
                Said::Ask => {}
                Said::Answered => return Ok(at as u32),
                Said::AnsweredStale => {
                    state.validate_behind(route, request, version);
                    return Ok(at as u32);
                }
                Said::Refused(refusal) => {
                    state.forget(at);
                    return Err(refusal);
                }
            }
        }
        state.counters.begun.increment();
        state.prepare(at, route, request, upload, version);
        state.set_out(at);
        if let Some(refusal) = state.calls[at].failure {
            state.count_by_route(at);
            state.hang_up(at);
            state.forget(at);
            return Err(refusal);
        }
        Ok(at as u32)
    }

    fn upload_room(&self, state: &mut Forwarder, call: u32) -> usize {
        let bytes_max = state.table.limits.request_buffer_bytes;
        state.calls[call as usize].upload_room(bytes_max)
    }

    fn upload(&self, state: &mut Forwarder, call: u32, data: &[u8], is_last: bool) {
        let at = call as usize;
        let call = &mut state.calls[at];
        call.upload(data);
        if is_last {
            call.is_uploaded = true;
            if call.is_chunked {
                call.request.extend_from_slice(b"0\r\n\r\n");
            }
        }
        state.nudge(at);
    }

    fn reply<'s>(&self, state: &'s mut Forwarder, call: u32) -> Relayed<'s> {
        let call = &mut state.calls[call as usize];
        call.is_woken = false;
        if let (Some(stored), Some(head)) = (&call.stored, call.head) {
            return match call.is_head_taken {
                false => Relayed::Head(RelayedHead {
                    status: head.status,
                    lines: &call.response[..call.lines_bytes],
                    has_date: true,
                    length: head.content_length,
                    has_content: !call.to_head
                        && head.content_length.is_some_and(|length| length > 0),
                }),
                true if call.to_head || head.content_length.is_none() => Relayed::Content {
                    bytes: &[],
                    is_last: true,
                },
                true => Relayed::Content {
                    bytes: &stored.body[call.part.clone()][call.taken..],
                    is_last: true,
                },
            };
        }
        match (call.failure, call.head) {
            (Some(refusal), _) if !call.is_head_taken => Relayed::Refused(refusal),
            (Some(_), _) => Relayed::Broken,
            (None, None) => Relayed::Pending,
            (None, Some(head)) if !call.is_head_taken => Relayed::Head(RelayedHead {
                status: head.status,
                lines: &call.response[..call.lines_bytes],
                has_date: head.has_date,
                length: head.content_length,
                has_content: head.content(call.to_head) != Framing::Length(0),
            }),
            (None, Some(_)) if call.untaken() == 0 && !call.is_complete => Relayed::Pending,
            (None, Some(_)) => Relayed::Content {
                bytes: &call.response[call.taken..],
                is_last: call.is_complete,
            },
        }
    }

    fn consume(&self, state: &mut Forwarder, at: u32, what: Consumed) {
        let call = &mut state.calls[at as usize];
        match what {
            Consumed::Head => {
                call.is_head_taken = true;
                call.taken = match call.stored {
                    Some(_) => 0,
                    None => call.lines_bytes,
                };
            }
            Consumed::Content(count) => {
                call.taken += count;
                call.content_bytes += count as u64;
            }
        }
        if call.is_filling || call.stored.is_some() {
            return;
        }
        if call.untaken() == 0 {
            call.response.clear();
            call.taken = 0;
        }
        let is_roomy = call.untaken() <= state.table.limits.response_buffer_bytes / 2;
        if call.is_connection_held && is_roomy {
            call.is_connection_held = false;
            state.nudge(at as usize);
        }
    }

    fn end(&self, state: &mut Forwarder, call: u32) {
        let at = call as usize;
        let call = &state.calls[at];
        if call.stored.is_some() {
            // The cache has counted it.
        } else if call.is_complete {
            state.counters.completed.increment();
        } else if call.failure.is_none() {
            state.counters.abandoned.increment();
        } else if call.is_head_taken {
            state.counters.broken.increment();
        }
        state.count_by_route(at);
        if tracing::enabled!(target: REQUEST_LOG, Level::DEBUG) {
            state.log(at);
        }
        if state.goes_on_alone(at) {
            return;
        }
        state.leave_flight(at);
        state.hang_up(at);
        state.forget(at);
    }
}

/// The time for the timing wheel, which counts in microseconds.
fn instant(ns: u64) -> Instant {
    Instant::from_micros((ns / 1_000).min(i64::MAX as u64) as i64)
}
