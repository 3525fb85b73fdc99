//! A proxy for the length of a test, which also unpacks teleport, and origins that do what a test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use barewire_http::{Http2Limits, Limits};
use barewire_kernel::KernelConfig;
use barewire_kernel::epoll::Epoll;
use barewire_kernel::uring::Uring;
use barewire_proxy::{OriginCounters, Proxy, ProxyConfig, ProxyCounters, Table};
use barewire_service::counters::Samples;
use barewire_service::stack::{Running, Stack};
use barewire_service::{Lifecycle, Phase};
use barewire_teleport::{
    CallId, Endpoint, Event, Limits as TeleportLimits, ServiceLimits, Side, Teleport,
    TeleportCounters,
};

pub type Start = fn(&str) -> Edge;

/// A running proxy; it stops when it is dropped.
pub struct Edge {
    running: Option<Running>,
    lifecycle: Lifecycle,
    pub address: SocketAddr,
    /// Where others reach it by teleport.
    pub teleport_address: SocketAddr,
    counters: Arc<ProxyCounters>,
    of_origins: Vec<Arc<OriginCounters>>,
    /// What it unpacked, and what it sent.
    pub unpacked: Arc<TeleportCounters>,
    pub packed: Arc<TeleportCounters>,
    /// The one that it reaches by teleport, if it was started with one.
    _behind: Option<Box<Edge>>,
}

pub fn epoll(config: &str) -> Edge {
    start(config, |config| Epoll { config })
}

pub fn uring(config: &str) -> Edge {
    start(config, Uring::new)
}

/// Two of them: what `config` says is behind the second one, which the first one reaches by teleport.
pub fn epoll_by_teleport(config: &str) -> Edge {
    by_teleport(epoll, config)
}

pub fn uring_by_teleport(config: &str) -> Edge {
    by_teleport(uring, config)
}

fn by_teleport(start: Start, config: &str) -> Edge {
    let behind = start(config);
    let config = pool_of(&[behind.teleport_address], "protocol = \"teleport\"");
    let mut front = start(&config);
    front._behind = Some(Box::new(behind));
    front
}

fn start<S: Stack>(text: &str, stack: impl FnOnce(KernelConfig) -> S) -> Edge {
    let config: ProxyConfig = toml::from_str(text).unwrap();
    let table = Table::new(config).unwrap();
    let kernel = KernelConfig {
        cores: vec![rustix::thread::sched_getcpu()],
        pin: false,
        connections: 64,
        outbound: 64,
        listen_also: vec![([127, 0, 0, 1], 0).into()],
        tell_peers: true,
        ..KernelConfig::new(([127, 0, 0, 1], 0).into())
    };
    let counters = Arc::new(ProxyCounters::default());
    let of_origins = table.counters();
    let lifecycle = Lifecycle::new();
    let [unpacked, packed] = [(); 2].map(|()| Arc::<TeleportCounters>::default());
    let make = {
        let (counters, of_origins) = (Arc::clone(&counters), of_origins.clone());
        let (unpacked, packed) = (Arc::clone(&unpacked), Arc::clone(&packed));
        move |_core| {
            let (counters, of_origins) = (Arc::clone(&counters), of_origins.clone());
            let http2 = Some(Http2Limits::default());
            let proxy = Proxy::new(&table, Limits::default(), http2, counters, of_origins, 7);
            let proxy = proxy.with_teleport_counters(Arc::clone(&packed));
            let limits = ServiceLimits::default();
            Teleport::new(proxy, 1, limits, Arc::clone(&unpacked))
        }
    };
    let running = stack(kernel).start(make, &lifecycle).unwrap();
    Edge {
        address: running.addresses[0],
        teleport_address: running.addresses[1],
        running: Some(running),
        lifecycle,
        counters,
        of_origins,
        unpacked,
        packed,
        _behind: None,
    }
}

impl Edge {
    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    /// What the proxy, or its origins together, have counted under this name.
    pub fn count(&self, name: &str) -> u64 {
        let origins = self.of_origins.iter().flat_map(|origin| origin.samples());
        let all = self.counters.samples().into_iter().chain(origins);
        all.filter(|sample| sample.name == name)
            .map(|sample| sample.value)
            .sum()
    }

    /// Waits until so many were counted, however long that takes.
    pub fn wait_for(&self, name: &str, value: u64) {
        while self.count(name) != value {
            thread::yield_now();
        }
    }

    pub fn drain(&self) {
        self.lifecycle.advance(Phase::Drain);
    }

    pub fn join(&mut self) {
        if let Some(running) = self.running.take() {
            running.wait().unwrap();
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stop);
        if let Some(running) = self.running.take() {
            let ended = running.wait();
            if !thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// A message: its first line, its fields, its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub first_line: String,
    pub fields: Vec<(String, String)>,
    pub content: Vec<u8>,
}

impl Message {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &**value)
    }

    pub fn status(&self) -> &str {
        self.first_line.split(' ').nth(1).unwrap_or_default()
    }
}

/// Reads a message; `None` at the end of the stream. `has_content` unless it answers HEAD.
pub fn read_message(from: &mut impl BufRead, has_content: bool) -> Option<Message> {
    let mut message = read_head(from)?;
    if !has_content || message.first_line.contains(" 204 ") || message.first_line.contains(" 304 ")
    {
        return Some(message);
    }
    if message.field("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            from.read_line(&mut size).unwrap();
            let len = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let mut chunk = vec![0; len + 2];
            from.read_exact(&mut chunk).unwrap();
            assert!(chunk.ends_with(b"\r\n"));
            message.content.extend_from_slice(&chunk[..len]);
            if len == 0 {
                break;
            }
        }
    } else if let Some(len) = message.field("content-length") {
        message.content = vec![0; len.parse().unwrap()];
        from.read_exact(&mut message.content).unwrap();
    } else if message.first_line.starts_with("HTTP/") {
        from.read_to_end(&mut message.content).unwrap();
    }
    Some(message)
}

pub fn read_head(from: &mut impl BufRead) -> Option<Message> {
    let mut line = String::new();
    if from.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut message = Message {
        first_line: line.trim_end().to_owned(),
        fields: Vec::new(),
        content: Vec::new(),
    };
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => message.fields.push((name.to_owned(), value.to_owned())),
            None if line == "\r\n" => return Some(message),
            None => message
                .fields
                .push((line.trim_end().to_owned(), String::new())),
        }
    }
}

pub struct Client(pub BufReader<TcpStream>);

impl Client {
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.0.get_ref().write_all(bytes.as_ref()).unwrap();
    }

    pub fn read(&mut self) -> Message {
        read_message(&mut self.0, true).expect("a response")
    }

    pub fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: edge.test\r\n\r\n"));
        self.read()
    }
}

/// A server whose connections are each handled by `serve` on a thread of its own.
pub struct Origin {
    pub address: SocketAddr,
    /// What it was asked, as far as `serve` says so.
    pub asked: Receiver<Message>,
}

impl Origin {
    pub fn start(
        serve: impl Fn(&mut BufReader<TcpStream>, &dyn Fn(Message)) + Send + Sync + 'static,
    ) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (serve, tell) = (Arc::clone(&serve), tell.clone());
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    serve(&mut BufReader::new(stream), &|message| {
                        // The test may be over.
                        let _ = tell.send(message);
                    });
                });
            }
        });
        Origin { address, asked }
    }

    /// One that answers each request with `response`, as it is.
    pub fn answering(response: impl Into<Vec<u8>>) -> Origin {
        let response = response.into();
        Origin::start(move |stream, tell| {
            while let Some(request) = read_message(stream, true) {
                tell(request);
                if stream.get_ref().write_all(&response).is_err() {
                    return;
                }
            }
        })
    }
}

/// An origin that speaks teleport on each of its connections, and does with each request what `answer` says: it gets the
/// end, the call, and what was asked.
pub fn teleport_origin(
    answer: impl Fn(&mut Endpoint, CallId, &str) -> Then + Send + Sync + 'static,
) -> Origin {
    Origin::start(move |stream, tell| {
        let counters = Arc::<TeleportCounters>::default();
        let mut end = Endpoint::new(Side::Server, TeleportLimits::default(), counters);
        let mut space = vec![0; 1 << 16];
        loop {
            let Some(count) = stream.read(&mut space).ok().filter(|&count| count > 0) else {
                return;
            };
            let mut bytes = &space[..count];
            let mut asked = Vec::new();
            while !bytes.is_empty() {
                let taken = end.receive(bytes).unwrap();
                bytes = &bytes[taken..];
                while let Some(event) = end.next_event().unwrap() {
                    if let Event::Data { call, bytes, .. } = event {
                        asked.push((call, String::from_utf8_lossy(bytes).into_owned()));
                    }
                }
            }
            for (call, text) in asked {
                tell(read_head(&mut text.as_bytes()).unwrap());
                if answer(&mut end, call, &text) == Then::HangUp {
                    return;
                }
            }
            while end.has_output() {
                let count = end.write(&mut space).unwrap();
                if stream.get_ref().write_all(&space[..count]).is_err() {
                    return;
                }
            }
        }
    })
}

/// What such an origin does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    GoOn,
    HangUp,
}

/// One pool, one route, and `more` of the pool.
pub fn pool_of(origins: &[SocketAddr], more: &str) -> String {
    let origins: Vec<_> = origins.iter().map(|at| format!("\"{at}\"")).collect();
    let origins = origins.join(", ");
    format!("[pool.app]\norigins = [{origins}]\n{more}\n[[route]]\npool = \"app\"\n")
}
