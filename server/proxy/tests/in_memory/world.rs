//! A proxy without sockets, threads or clocks: what its clients and origins say, and when, is up to a test.

use std::collections::BTreeMap;
use std::sync::Arc;

use barewire_http::Limits;
use barewire_proxy::{
    CacheCounters, ConfigError, Connection, Order, Orders, OriginCounters, Proxy, ProxyCounters,
    Purge, Reload, Table,
};
use barewire_service::counters::Samples;
use barewire_service::service::{Arrival, End, Id, Input, Next, Reply, Service, Want};
use barewire_service::time::Instant;

/// Sun, 06 Nov 1994 08:49:37 GMT.
pub const BEGIN_S: u64 = 784_111_777;

const ROUTES: &str = r#"
    [pool.app]
    origins = ["10.0.0.1:80"]
    connections_max = 5000
    total_timeout_ms = 60000
    eject_failures = 1000

    [[route]]
    pool = "app"
"#;

pub struct World {
    proxy: Proxy,
    table: Arc<Table>,
    orders: Orders,
    pub cache: Arc<CacheCounters>,
    pub of_origins: Vec<Arc<OriginCounters>>,
    now_ns: u64,
    connections: BTreeMap<u32, Side>,
    next_index: u32,
    space: Vec<u8>,
}

struct Side {
    state: Connection,
    input: Vec<u8>,
    output: Vec<u8>,
    is_origin: bool,
    waits: bool,
    address: String,
    is_over: bool,
}

/// A response as its client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

impl World {
    /// With this table `cache`, as TOML.
    pub fn new(cache: &str) -> Self {
        Self::with_routes(&format!(
            "[cache]\n{cache}\n[limits]\ncalls_max = 5000\nconnections_max = 5000\n{ROUTES}"
        ))
    }

    pub fn with_routes(routes: &str) -> Self {
        let table = Table::new(toml::from_str(routes).unwrap()).unwrap();
        let cache = Arc::<CacheCounters>::default();
        let of_origins = table.counters();
        let counters = Arc::<ProxyCounters>::default();
        let proxy = Proxy::new(
            &table,
            Limits::default(),
            None,
            counters,
            of_origins.clone(),
            7,
        );
        let orders = Orders::new(1);
        let mut world = World {
            table: Arc::clone(&table),
            proxy: proxy
                .with_cache_counters(Arc::clone(&cache))
                .with_orders(orders.clone(), 0),
            orders,
            cache,
            of_origins,
            now_ns: 0,
            connections: BTreeMap::new(),
            next_index: 0,
            space: vec![0; 64 * 1024],
        };
        world.tell_time();
        world
    }

    fn tell_time(&mut self) {
        self.proxy.on_clock(BEGIN_S + self.now_ns / 1_000_000_000);
        self.proxy.on_time(self.now_ns);
    }

    pub fn pass_s(&mut self, seconds: u64) {
        self.pass_us(seconds * 1_000_000);
    }

    pub fn pass_us(&mut self, microseconds: u64) {
        self.now_ns += microseconds * 1_000;
        self.tell_time();
        self.settle();
    }

    /// As `Date`, so many seconds from now.
    pub fn date(&self, seconds: i64) -> String {
        let now_s = BEGIN_S + self.now_ns / 1_000_000_000;
        let at_s = now_s.checked_add_signed(seconds).unwrap();
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at_s))
    }

    pub fn count(&self, name: &str) -> u64 {
        let samples = self.cache.samples();
        samples
            .iter()
            .find(|sample| sample.name == name)
            .unwrap()
            .value
    }

    pub fn proxy(&mut self) -> &mut Proxy {
        &mut self.proxy
    }

    /// Another table of routes.
    pub fn reload(&mut self, routes: &str) -> Result<(), ConfigError> {
        let table = Table::new(toml::from_str(routes).unwrap()).unwrap();
        table.can_follow(&self.table)?;
        let before: Vec<_> = self.table.origins().zip(self.of_origins.clone()).collect();
        let counters = table.origins().map(|origin| {
            let same = before.iter().find(|(before, _)| *before == origin);
            same.map_or_else(Arc::default, |(_, counters)| Arc::clone(counters))
        });
        self.of_origins = counters.collect();
        let reload = Reload {
            of_origins: vec![self.of_origins.clone()],
            of_routes: vec![table.route_counters()],
            table: Arc::clone(&table),
        };
        self.table = table;
        self.orders
            .give(&Order::Reload(Arc::new(reload)), 1)
            .unwrap();
        self.tell_time();
        self.settle();
        Ok(())
    }

    pub fn is_open(&self, at: u32) -> bool {
        self.connections.contains_key(&at)
    }

    pub fn hang_up_if_open(&mut self, at: u32) {
        if self.is_open(at) {
            self.hang_up(at);
        }
    }

    /// Where a connection leads.
    pub fn address(&self, at: u32) -> &str {
        &self.connections[&at].address
    }

    /// Removes responses. Returns how many there were.
    pub fn purge(&mut self, what: &str) -> usize {
        let order = Order::Purge(Purge::parse(what).unwrap());
        let answers = self.orders.give(&order, 1).unwrap();
        self.tell_time();
        answers.try_recv().unwrap()
    }

    /// A connection that is driven by hand.
    pub fn accept(&mut self) -> Connection {
        let id = self.next_id();
        let arrival = Arrival {
            id,
            ..Arrival::default()
        };
        self.proxy.on_accept(arrival).0
    }

    /// A client that sends this.
    pub fn client(&mut self, request: &str) -> u32 {
        let id = self.next_id();
        let arrival = Arrival {
            id,
            ..Arrival::default()
        };
        let (state, _) = self.proxy.on_accept(arrival);
        self.insert(id, state, false);
        self.say(id.index, request);
        id.index
    }

    fn next_id(&mut self) -> Id {
        let index = self.next_index;
        self.next_index += 1;
        Id {
            index,
            generation: 0,
        }
    }

    fn insert(&mut self, id: Id, state: Connection, is_origin: bool) {
        let side = Side {
            state,
            input: Vec::new(),
            output: Vec::new(),
            is_origin,
            waits: false,
            address: String::new(),
            is_over: false,
        };
        self.connections.insert(id.index, side);
    }

    /// The peer of this connection sends this.
    pub fn say(&mut self, at: u32, text: &str) {
        self.say_bytes(at, text.as_bytes());
    }

    pub fn say_bytes(&mut self, at: u32, bytes: &[u8]) {
        let side = self.connections.get_mut(&at).unwrap();
        side.input.extend_from_slice(bytes);
        if !side.waits {
            self.show(at, usize::MAX);
        }
        self.settle();
    }

    /// The peer of this connection ends it.
    pub fn hang_up(&mut self, at: u32) {
        self.end(at, End::Reset);
        self.settle();
    }

    fn end(&mut self, at: u32, end: End) {
        let mut side = self.connections.remove(&at).unwrap();
        self.proxy.on_end(&mut side.state, end);
        side.is_over = true;
    }

    /// Shows what has arrived on a connection, as long as it takes some of it.
    fn show(&mut self, at: u32, rounds: usize) {
        for _ in 0..rounds {
            let Some(side) = self.connections.get_mut(&at) else {
                return;
            };
            let mut reply = Reply::new(&mut self.space);
            let input = Input {
                bytes: &side.input,
                full: side.input.len() > 32 * 1024,
                ended: false,
            };
            let progress = self.proxy.on_input(&mut side.state, input, &mut reply);
            side.output.extend_from_slice(reply.written());
            side.input.drain(..progress.consumed);
            side.waits = progress.next == Next::Wait;
            match progress.next {
                Next::Send => {}
                Next::Receive(_) if progress.consumed > 0 && !side.input.is_empty() => {}
                Next::Receive(_) | Next::Wait => return,
                Next::Close | Next::Abort => return self.end(at, End::Closed),
            }
        }
    }

    fn settle(&mut self) {
        loop {
            match self.proxy.wants(Instant::ZERO) {
                Want::Connect { token, to } => {
                    let id = self.next_id();
                    let state = self.proxy.on_open(token, id);
                    self.insert(id, state, true);
                    self.connections.get_mut(&id.index).unwrap().address = to.to_string();
                    self.show(id.index, usize::MAX);
                }
                Want::Wake(id) => self.show(id.index, usize::MAX),
                Want::Abort(id) if self.connections.contains_key(&id.index) => {
                    self.end(id.index, End::Closed);
                }
                Want::Abort(_) => {}
                _ => return,
            }
        }
    }

    /// Requests that have reached the origin and were not looked at yet, each with its connection.
    pub fn asked(&mut self) -> Vec<(u32, String)> {
        let origins = self
            .connections
            .iter_mut()
            .filter(|(_, side)| side.is_origin);
        let asked = origins.filter(|(_, side)| !side.output.is_empty());
        asked
            .map(|(&at, side)| {
                let request = std::mem::take(&mut side.output);
                (at, String::from_utf8(request).unwrap())
            })
            .collect()
    }

    /// What the origins have got, as bytes.
    pub fn written(&mut self) -> Vec<(u32, Vec<u8>)> {
        let origins = self.connections.iter_mut();
        let origins = origins.filter(|(_, side)| side.is_origin && !side.output.is_empty());
        origins
            .map(|(&at, side)| (at, std::mem::take(&mut side.output)))
            .collect()
    }

    /// The only request that has reached the origin.
    pub fn asked_once(&mut self) -> (u32, String) {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }

    /// What a client has got, if it is a whole response; the next one stays.
    pub fn got(&mut self, at: u32, to_head: bool) -> Option<Response> {
        let side = self.connections.get_mut(&at)?;
        let text = String::from_utf8(side.output.clone()).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let mut response = Response {
            status: head.get(9..12)?.parse().unwrap(),
            head: head.to_owned(),
            body: String::new(),
        };
        let is_empty = to_head || matches!(response.status, 204 | 304);
        let length = response.field("Content-Length").filter(|_| !is_empty);
        let length = length.map_or(0, |length| length.parse().unwrap());
        let is_chunked = response.field("Transfer-Encoding").is_some();
        let mut taken = length;
        match is_chunked {
            true => {
                let mut rest = rest;
                loop {
                    let (size, data) = rest.split_once("\r\n")?;
                    let size = usize::from_str_radix(size, 16).unwrap();
                    response.body += data.get(..size)?;
                    rest = data.get(size + 2..)?;
                    if size == 0 {
                        break;
                    }
                }
                taken = text.len() - head.len() - 4 - rest.len();
            }
            false => response.body = rest.get(..length)?.to_owned(),
        }
        side.output.drain(..head.len() + 4 + taken);
        Some(response)
    }

    /// A request that the store answers.
    pub fn hit(&mut self, request: &str) -> Response {
        let client = self.client(request);
        assert_eq!(self.asked(), [], "{request} was forwarded");
        let response = self.got(client, request.starts_with("HEAD"));
        response.unwrap_or_else(|| panic!("{request} was not answered"))
    }

    /// A request that is forwarded, and its answer, which is made of what is forwarded.
    pub fn forward(
        &mut self,
        request: &str,
        answer: impl Fn(&World, &str) -> String,
    ) -> (String, Response) {
        let client = self.client(request);
        let (origin, forwarded) = self.asked_once();
        let answer = answer(self, &forwarded);
        self.say(origin, &answer);
        let response = self.got(client, request.starts_with("HEAD"));
        let response = response.unwrap_or_else(|| panic!("{request} was not answered"));
        (forwarded, response)
    }
}

/// A GET with these field lines.
pub fn get(path: &str, fields: &[&str]) -> String {
    message(
        &format!("GET {path} HTTP/1.1\r\nHost: example.org"),
        fields,
        "",
    )
}

/// A response of `200` with these field lines and this body.
pub fn ok(fields: &[&str], body: &str) -> String {
    let first = format!("HTTP/1.1 200 OK\r\nContent-Length: {}", body.len());
    message(&first, fields, body)
}

pub fn message(first: &str, fields: &[&str], body: &str) -> String {
    let mut text = format!("{first}\r\n");
    for field in fields {
        text += field;
        text += "\r\n";
    }
    text + "\r\n" + body
}
