//! What a run is to do.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use barewire_tls::Trust;
use barewire_tls::{ClientError, ClientIdentity};

use http::{HeaderValue, Method, header};

use super::request::{Request, TooLong};
use super::target::Target;
use super::window::Window;

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// Where.
    pub target: Target,
    /// The path asked for.
    pub path: String,
    /// In TLS, if that is wanted.
    pub secure: Option<Secure>,
    /// What to ask.
    pub request: Arc<Request>,
    /// How to ask for the body that every answer must have, if bodies are compared.
    pub probe: Option<Request>,
    /// How to ask for `/stats`, if events are sent.
    pub stats: Option<Request>,
    /// How often; `None`: until the window ends.
    pub requests: Option<u64>,
    /// How long, and which part of that is measured.
    pub window: Window,
    /// On how many connections.
    pub connections: usize,
    /// By how many threads.
    pub threads: usize,
    /// How many at once on a connection: in a pipeline, or by HTTP/2 in streams.
    pub pipeline: usize,
    /// How many per second, in an open loop.
    pub rate: Option<f64>,
    /// How many connections per second, if each asks but once.
    pub connections_per_s: Option<f64>,
    /// How long an answer, or opening a connection, may take.
    pub timeout: Duration,
    /// How many users the server must know afterwards, if that is known.
    pub unique_users: Option<u64>,
    /// How to ask past the kernel, if that is wanted.
    pub bypass: Option<BypassPlan>,
}

/// How to ask in TLS.
#[derive(Debug, Clone)]
pub struct Secure {
    /// The name that the server's certificate has to be for.
    pub name: String,
    /// Whose certificates are believed.
    pub trust: Trust,
}

impl Secure {
    /// What is needed to shake hands, for a protocol by its name of ALPN.
    ///
    /// # Errors
    ///
    /// If the name is none, or authorities cannot be read.
    pub fn identity(&self, protocol: &[u8]) -> Result<ClientIdentity, ClientError> {
        ClientIdentity::new(&self.name, &self.trust, &[protocol])
    }
}

/// How to ask past the kernel.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "xdp"), allow(dead_code, reason = "for the bypass"))]
pub struct BypassPlan {
    /// By which interface.
    pub interface: String,
    /// By which CPUs; none: the last `threads` that this process may use.
    pub cores: Vec<usize>,
    /// From which addresses; none: as the kernel would.
    pub source_addresses: Vec<IpAddr>,
    /// From which ports, if that was said.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// To which hardware address; `None`: as the kernel knows it.
    pub next_hop_mac: Option<[u8; 6]>,
    /// The longest IP packet to send; `None`: the interface's MTU.
    pub mtu: Option<u16>,
    /// Where the XDP program runs.
    pub mode: Mode,
    /// How long an idle core spins.
    pub spin_us: Option<u32>,
}

/// Where the XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver if it can, else in the kernel's stack.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack.
    Generic,
}

impl Plan {
    /// Asks the target for the path of its URL by HTTP/1.1 in plain text: on one connection, as fast as answers come, for
    /// ten seconds.
    ///
    /// # Errors
    ///
    /// If the URL is too long for a request.
    pub fn get(target: Target) -> Result<Plan, TooLong> {
        let path = target.path.clone().unwrap_or_else(|| "/".into());
        // What was an authority is a value.
        let host = HeaderValue::from_str(&target.authority).ok();
        let fields = host.map(|host| (header::HOST, host));
        let request = Request::fixed(&Method::GET, &path, fields.as_slice(), b"")?;
        Ok(Plan {
            target,
            path,
            secure: None,
            request: Arc::new(request),
            probe: None,
            stats: None,
            requests: None,
            window: Window {
                warm_up: Duration::ZERO,
                length: Some(Duration::from_secs(10)),
            },
            connections: 1,
            threads: 1,
            pipeline: 1,
            rate: None,
            connections_per_s: None,
            timeout: Duration::from_secs(10),
            unique_users: None,
            bypass: None,
        })
    }

    /// Requests or connections that fall due per second; `None` in a closed loop.
    pub fn due_per_s(&self) -> Option<f64> {
        self.rate.or(self.connections_per_s)
    }

    /// From the first request of an open loop to the turn of the one after its last.
    pub fn scheduled(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.requests? as f64 / self.due_per_s()?).ok()
    }
}
