//! The service of one core: clients on one side, origins on the other.

use std::net::SocketAddr;
use std::sync::Arc;

use barewire_http::{Http2Limits, HttpCounters, Limits, Responder, Routes};
use barewire_service::service::{Arrival, End, Expect, Id, Input, Progress, Reply, Service, Want};
use barewire_service::time::Instant;
use barewire_teleport::TeleportCounters;

use crate::counters::{CacheCounters, OriginCounters, ProxyCounters, RouteCounters};
use crate::forward::{Forwarder, ROUTES};
use crate::orders::{Order, Orders};
use crate::secure;
use crate::table::Table;

/// One core's proxy.
#[derive(Debug)]
pub struct Proxy {
    responder: Responder<Forwarder>,
    /// What it is told, as which core.
    orders: Option<(Orders, usize)>,
}

/// The state of a connection.
#[derive(Debug)]
pub struct Connection(Side);

#[derive(Debug)]
enum Side {
    Client {
        http: barewire_http::Connection,
        id: Id,
        peer: Option<SocketAddr>,
        is_tls: bool,
    },
    /// The index of a connection to an origin.
    Origin(usize),
}

impl Default for Connection {
    fn default() -> Self {
        Connection(Side::Client {
            http: barewire_http::Connection::default(),
            id: Id::default(),
            peer: None,
            is_tls: false,
        })
    }
}

impl Proxy {
    /// A proxy for one core, which offers HTTP/2 within the limits `http2`, if there are any. `seed` is that of the random
    /// numbers by which it chooses origins.
    pub fn new(
        table: &Arc<Table>,
        limits: Limits,
        http2: Option<Http2Limits>,
        counters: Arc<ProxyCounters>,
        of_origins: Vec<Arc<OriginCounters>>,
        seed: u64,
    ) -> Self {
        let forwarder = Forwarder::new(Arc::clone(table), counters, of_origins, seed);
        let responder = Responder::new(&routes(), forwarder);
        Proxy {
            responder: responder.with_limits(limits).with_http2(http2),
            orders: None,
        }
    }

    /// Counters of what the responders of a proxy answer.
    pub fn http_counters() -> HttpCounters {
        HttpCounters::new(&routes())
    }

    /// Counts what teleport connections carry in `counters`, which another thread reads.
    #[must_use]
    pub fn with_teleport_counters(mut self, counters: Arc<TeleportCounters>) -> Self {
        self.responder.state_mut().count_teleport_in(counters);
        self
    }

    /// Counts what its cache does in `counters`, which another thread reads.
    #[must_use]
    pub fn with_cache_counters(mut self, counters: Arc<CacheCounters>) -> Self {
        self.responder.state_mut().count_cache_in(counters);
        self
    }

    /// Counts what comes by each of [`Table::routes`] in `counters`, which another thread reads.
    #[must_use]
    pub fn with_route_counters(mut self, counters: Vec<Arc<RouteCounters>>) -> Self {
        self.responder.state_mut().of_routes = counters;
        self
    }

    /// Carries out the orders for this core.
    #[must_use]
    pub fn with_orders(mut self, orders: Orders, core: usize) -> Self {
        self.orders = Some((orders, core));
        self
    }

    #[cold]
    fn carry_out(&mut self, order: Order, core: usize) -> usize {
        match order {
            Order::Reload(reload) => {
                self.responder.state_mut().reload(&reload, core);
                0
            }
            Order::Purge(purge) => self.responder.state_mut().purge(&purge),
        }
    }

    /// Counts in `counters`, which another thread reads.
    #[must_use]
    pub fn with_counters(mut self, counters: Arc<HttpCounters>) -> Self {
        self.responder = self.responder.with_counters(counters);
        self
    }
}

fn routes() -> Routes<Forwarder> {
    Routes::new(ROUTES).expect("patterns that the tests try")
}

impl Service for Proxy {
    type Connection = Connection;

    const REPLY_BYTES_MIN: usize = {
        let clients = <Responder<Forwarder> as Service>::REPLY_BYTES_MIN;
        match clients > secure::REPLY_BYTES_MIN {
            true => clients,
            false => secure::REPLY_BYTES_MIN,
        }
    };

    fn on_accept(&mut self, arrival: Arrival<'_>) -> (Connection, Expect) {
        let (http, expect) = self.responder.on_accept(arrival);
        let side = Side::Client {
            http,
            id: arrival.id,
            peer: arrival.peer,
            is_tls: arrival.tls.is_some(),
        };
        (Connection(side), expect)
    }

    fn on_input(
        &mut self,
        connection: &mut Connection,
        input: Input<'_>,
        reply: &mut Reply<'_>,
    ) -> Progress {
        match &mut connection.0 {
            Side::Client {
                http,
                id,
                peer,
                is_tls,
            } => {
                let forwarder = self.responder.state_mut();
                forwarder.asking = *id;
                forwarder.peer = *peer;
                forwarder.is_tls = *is_tls;
                self.responder.on_input(http, input, reply)
            }
            Side::Origin(at) => self.responder.state_mut().on_connection(*at, input, reply),
        }
    }

    fn on_timeout(&mut self, connection: &mut Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            Side::Client { http, .. } => self.responder.on_timeout(http, reply),
            Side::Origin(at) => self.responder.state_mut().say_close(*at, reply),
        }
    }

    fn on_dismiss(&mut self, connection: &mut Connection, reply: &mut Reply<'_>) {
        match &mut connection.0 {
            Side::Client { http, .. } => self.responder.on_dismiss(http, reply),
            Side::Origin(at) => self.responder.state_mut().say_close(*at, reply),
        }
    }

    fn on_clock(&mut self, unix_time_s: u64) {
        self.responder.on_clock(unix_time_s);
        self.responder.state_mut().unix_s = unix_time_s;
    }

    fn on_time(&mut self, now_ns: u64) {
        self.responder.on_time(now_ns);
        self.responder.state_mut().now_ns = now_ns;
        while let Some((orders, core)) = &self.orders
            && let (core, Some((order, answers))) = (*core, orders.take(*core))
        {
            let answer = self.carry_out(order, core);
            // Whoever gave it may have stopped waiting.
            let _ = answers.try_send(answer);
        }
    }

    fn on_drain(&mut self) {
        self.responder.on_drain();
        self.responder.state_mut().draining = true;
    }

    fn wants(&mut self, now: Instant) -> Want {
        self.responder.state_mut().next_want(now)
    }

    fn on_open(&mut self, token: u64, id: Id) -> Connection {
        let at = token as usize;
        self.responder.state_mut().connection_opens(at, id);
        Connection(Side::Origin(at))
    }

    fn on_end(&mut self, connection: &mut Connection, end: End) {
        match &mut connection.0 {
            Side::Client { http, .. } => self.responder.on_end(http, end),
            Side::Origin(at) => self.responder.state_mut().connection_ends(*at, end),
        }
    }
}
