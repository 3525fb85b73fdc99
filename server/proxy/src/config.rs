//! What a proxy is told: routes, pools, limits. `docs/proxy.md` shows it as TOML.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;

/// All of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// What a core may use.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Pools of origins, by name.
    #[serde(default)]
    pub pool: BTreeMap<String, PoolConfig>,
    /// Which requests go to which pool.
    #[serde(default)]
    pub route: Vec<RouteConfig>,
}

/// What a core may use.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Calls in progress, of each core; 503 beyond.
    pub calls_max: usize,
    /// Connections to origins, of each core; 503 beyond.
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

/// Origins of which each can answer every request of a route.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Their addresses.
    pub origins: Vec<SocketAddr>,
    /// Which one gets a request.
    #[serde(default)]
    pub balance: Balance,
    /// Connections to each origin, of each core; 503 beyond.
    #[serde(default = "defaults::connections_max")]
    pub connections_max: u32,
    /// For the head of a response to arrive, from the end of the request's head.
    #[serde(default = "defaults::response_timeout_ms")]
    pub response_timeout_ms: u32,
    /// For the whole call, both bodies included.
    #[serde(default = "defaults::total_timeout_ms")]
    pub total_timeout_ms: u32,
    /// For a connection to be established.
    #[serde(default = "defaults::connect_timeout_ms")]
    pub connect_timeout_ms: u32,
    /// How often a request is sent to another origin, if it was never sent or is idempotent.
    #[serde(default = "defaults::retries_max")]
    pub retries_max: u8,
    /// Retries for each hundred requests, beside ten that are always left.
    #[serde(default = "defaults::retries_percent")]
    pub retries_percent: u32,
    /// Failures in a row after which an origin gets no requests for a while.
    #[serde(default = "defaults::eject_failures")]
    pub eject_failures: u32,
    /// How long that lasts.
    #[serde(default = "defaults::eject_ms")]
    pub eject_ms: u32,
    /// For how long an origin that is back gets fewer requests than the others, and how many grows with time.
    #[serde(default = "defaults::slow_start_ms")]
    pub slow_start_ms: u32,
    /// Requests that ask an origin how it is.
    #[serde(default)]
    pub check: Option<CheckConfig>,
}

/// Requests that ask an origin how it is: `GET`, answered with a status below 400.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckConfig {
    /// The path that is asked for.
    pub path: String,
    /// `Host` of the request; the origin's address unless it is said.
    #[serde(default)]
    pub host: Option<String>,
    /// Between two of them, by each core.
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
    /// That of two at random which has fewer requests in progress.
    #[default]
    LeastOutstanding,
    /// The one that the client's address always leads to, as long as it can be used (rendezvous hashing).
    HashClient,
    /// The one that the request's path always leads to, as long as it can be used.
    HashPath,
}

/// Which requests go to which pool. Of those that fit, the one with a host goes before the others, then the one with
/// the longest prefix.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The host that is asked for, without port, in any case; every one unless it is said.
    #[serde(default)]
    pub host: Option<String>,
    /// How the path begins.
    #[serde(default = "defaults::prefix")]
    pub prefix: String,
    /// The pool's name.
    pub pool: String,
    /// Go on with the `Forwarded` and `X-Forwarded-…` that the client sent: it is a proxy of one's own.
    #[serde(default)]
    pub trust_forwarded: bool,
}

mod defaults {
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
