//! The configuration of a proxy: routes, pools, limits. `docs/proxy.md` shows it as TOML.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use barewire_teleport::{Compression, Limits};
use serde::Deserialize;

/// All of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// What a core may use.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// The cache of a core. If it is given, all routes have it that do not say otherwise.
    #[serde(default)]
    pub cache: Option<CacheConfig>,
    /// Pools of origins, by name.
    #[serde(default)]
    pub pool: BTreeMap<String, PoolConfig>,
    /// Which requests go to which pool.
    #[serde(default)]
    pub route: Vec<RouteConfig>,
}

/// What a core may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Calls in progress on each core; 503 beyond.
    pub calls_max: usize,
    /// Connections to origins from each core; 503 beyond.
    pub connections_max: usize,
    /// Bytes of a request, its head included, that wait for their origin.
    pub request_buffer_bytes: usize,
    /// Bytes of a response, its head included, that wait for their client.
    pub response_buffer_bytes: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            calls_max: 4096,
            connections_max: 1024,
            request_buffer_bytes: 32 * 1024,
            response_buffer_bytes: 64 * 1024,
        }
    }
}

/// What the cache of a core may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Bytes of all stored responses.
    pub bytes_max: u64,
    /// Stored responses. Each counts as at least `bytes_max / entries_max` bytes.
    pub entries_max: usize,
    /// Bytes of a response that is stored, its field lines included; at most half of `bytes_max`.
    pub object_bytes_max: usize,
    /// Stored responses of one resource, which differ by `Vary`.
    pub variants_max: usize,
    /// How long a response is fresh at most that does not say it: a tenth of the time since it was modified.
    pub heuristic_max_s: u32,
}

impl Default for CacheConfig {
    fn default() -> Self {
        CacheConfig {
            bytes_max: 16 * 1024 * 1024,
            entries_max: 1024,
            object_bytes_max: 1024 * 1024,
            variants_max: 8,
            heuristic_max_s: 24 * 60 * 60,
        }
    }
}

/// What is spoken with the origins of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1, a request at a time on each connection.
    #[default]
    Http,
    /// Many requests at once on few connections (docs/teleport.md).
    Teleport,
}

/// How teleport compresses batches, if the origin agrees: else by the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompressionName {
    /// Not at all.
    None,
    /// Each batch by itself.
    Lz4,
    /// With what was said before on the connection.
    #[default]
    Zstd,
}

impl From<CompressionName> for Compression {
    fn from(name: CompressionName) -> Self {
        match name {
            CompressionName::None => Compression::None,
            CompressionName::Lz4 => Compression::Lz4,
            CompressionName::Zstd => Compression::Zstd,
        }
    }
}

/// Origins of which each can answer every request of a route.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Their addresses.
    pub origins: Vec<SocketAddr>,
    /// What is spoken with them.
    #[serde(default)]
    pub protocol: Protocol,
    /// Connections to them are encrypted, and they are verified by `ca`.
    #[serde(default)]
    pub tls: bool,
    /// A PEM file with the authorities of their certificates, with `tls`.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A PEM file with the certificate that they are shown, and its chain behind it, with `tls`.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the key of that.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The name that their certificates have to be for, with `tls`; by default each one's address.
    #[serde(default)]
    pub server_name: Option<String>,
    /// How that is compressed, with [`Protocol::Teleport`].
    #[serde(default)]
    pub compression: CompressionName,
    /// Connections to each origin, of each core, with [`Protocol::Teleport`].
    #[serde(default = "defaults::teleport_connections")]
    pub teleport_connections: u32,
    /// Bytes that an origin may have on their way on one of those.
    #[serde(default = "defaults::window_bytes")]
    pub window_bytes: u32,
    /// How long requests wait for others to share a batch with, on those; 0: for what the same turn brings.
    #[serde(default)]
    pub batch_delay_us: u32,
    /// How long nothing may arrive on one of those before the origin is asked whether it is there, and how long its answer
    /// may take.
    #[serde(default = "defaults::ping_interval_ms")]
    pub ping_interval_ms: u32,
    /// Fields that are kept out of the compressor, beside those with credentials.
    #[serde(default)]
    pub secret_fields: Vec<String>,
    /// How the origin for a request is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// Connections to each origin from each core, with [`Protocol::Http`]; 503 beyond.
    #[serde(default = "defaults::connections_max")]
    pub connections_max: u32,
    /// How long the head of a response may take, from the end of the request's head.
    #[serde(default = "defaults::response_timeout_ms")]
    pub response_timeout_ms: u32,
    /// How long the whole call may take, both bodies included.
    #[serde(default = "defaults::total_timeout_ms")]
    pub total_timeout_ms: u32,
    /// How long it may take to establish a connection.
    #[serde(default = "defaults::connect_timeout_ms")]
    pub connect_timeout_ms: u32,
    /// How often a request is sent to another origin, if it was never sent or is idempotent.
    #[serde(default = "defaults::retries_max")]
    pub retries_max: u8,
    /// Retries for each hundred requests, in addition to ten that are always available.
    #[serde(default = "defaults::retries_percent")]
    pub retries_percent: u32,
    /// Failures in a row after which an origin gets no requests for a while.
    #[serde(default = "defaults::eject_failures")]
    pub eject_failures: u32,
    /// How long it gets none.
    #[serde(default = "defaults::eject_ms")]
    pub eject_ms: u32,
    /// How long an origin gets fewer requests than the others after that; their number grows with time.
    #[serde(default = "defaults::slow_start_ms")]
    pub slow_start_ms: u32,
    /// Health checks of each origin; none by default.
    #[serde(default)]
    pub check: Option<CheckConfig>,
}

/// A health check: a `GET` that the origin has to answer with a status below 400.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckConfig {
    /// The path that is asked for.
    pub path: String,
    /// `Host` of the request; by default the origin's address.
    #[serde(default)]
    pub host: Option<String>,
    /// Time between two checks by the same core.
    #[serde(default = "defaults::check_interval_ms")]
    pub interval_ms: u32,
    /// How long an answer may take.
    #[serde(default = "defaults::check_timeout_ms")]
    pub timeout_ms: u32,
}

/// Which origin of a pool gets a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Of two that are drawn at random, the one with fewer requests in progress.
    #[default]
    LeastOutstanding,
    /// By the client's address: always the same one, as long as it can be used (rendezvous hashing).
    HashClient,
    /// By the request's path: always the same one, as long as it can be used.
    HashPath,
}

/// Which requests go to which pool. Of those that fit, the one with a host goes before the others, then the one with
/// the longest prefix.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The host of the request, without port; upper and lower case are the same. By default every host.
    #[serde(default)]
    pub host: Option<String>,
    /// How the path begins.
    #[serde(default = "defaults::prefix")]
    pub prefix: String,
    /// The pool's name.
    pub pool: String,
    /// Keep the client's `Forwarded` and `X-Forwarded-…`, and append to them: the client is a trusted proxy.
    #[serde(default)]
    pub trust_forwarded: bool,
    /// Store responses, and answer from them; by default if there is a table `cache`.
    #[serde(default)]
    pub cache: Option<bool>,
}

mod defaults {
    pub fn teleport_connections() -> u32 {
        2
    }
    pub fn window_bytes() -> u32 {
        super::Limits::default().window_bytes
    }
    pub fn ping_interval_ms() -> u32 {
        10_000
    }
    pub fn connections_max() -> u32 {
        256
    }
    pub fn response_timeout_ms() -> u32 {
        30_000
    }
    pub fn total_timeout_ms() -> u32 {
        600_000
    }
    pub fn connect_timeout_ms() -> u32 {
        2_000
    }
    pub fn retries_max() -> u8 {
        1
    }
    pub fn retries_percent() -> u32 {
        20
    }
    pub fn eject_failures() -> u32 {
        5
    }
    pub fn eject_ms() -> u32 {
        10_000
    }
    pub fn slow_start_ms() -> u32 {
        10_000
    }
    pub fn check_interval_ms() -> u32 {
        2_000
    }
    pub fn check_timeout_ms() -> u32 {
        1_000
    }
    pub fn prefix() -> String {
        "/".into()
    }
}
