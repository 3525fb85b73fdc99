//! A reverse proxy and load balancer to HTTP/1.1 and teleport origins, without I/O.
//!
//! ```text
//!   client ──▶ Responder (barewire-http) ──▶ Forward: a Relay ──▶ Call ──▶ origin
//!                 parses, frames anew            │ route, pool      ▲        writes the request anew,
//!                                                └─ Balance ────────┘        reads the response
//!   client ◀── Responder ◀────────── woken ◀────────── Call ◀───────────── origin
//! ```
//!
//! The configuration is that of `barewire proxy` (`docs/proxy.md` of the repository); any stack that accepts and opens
//! runs it:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use barewire_http::{Http2Limits, Limits};
//! use barewire_kernel::{KernelConfig, epoll::Epoll};
//! use barewire_proxy::{Proxy, Table};
//! use barewire_service::{Lifecycle, Stack};
//!
//! let config = r#"
//!     [pool.site]
//!     origins = ["10.0.0.5:8080", "10.0.0.6:8080"]
//!
//!     [[route]]
//!     prefix = "/"
//!     pool = "site"
//! "#;
//! let table = Table::new(toml::from_str(config)?)?;
//! let mut kernel = KernelConfig::new(([0, 0, 0, 0], 8080).into());
//! kernel.outbound = table.connections_max();
//! kernel.tell_peers = true;
//! let make_proxy = move |core| {
//!     let (seed, http2) = (core as u64, Some(Http2Limits::default()));
//!     Proxy::new(&table, Limits::default(), http2, Arc::default(), table.counters(), seed)
//! };
//! let running = Epoll::new(kernel).start(make_proxy, &Lifecycle::new())?;
//! running.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Proxy`] is the service of one core. Its clients' connections are those of a
//! [`Responder`](barewire_http::Responder), so that malformed requests are refused as by any other server of this project,
//! before an origin sees anything of them. Between a client and the connection to an origin there is a call: two
//! buffers of bounded size, one for each direction. Neither side is read from while its buffer is full; so the slower side
//! holds back the other, and a call never takes more memory than its two buffers.
//!
//! Cores share nothing but the configuration: each has its own connections to the origins, its own view of which origins
//! fail, and its own counters.

#![deny(unsafe_code)]

mod balance;
mod cache;
mod call;
mod config;
mod counters;
mod forward;
mod head;
mod orders;
mod origin_connection;
mod proxy;
mod reload;
mod response;
mod secure;
mod shared;
mod table;

pub use cache::Purge;
pub use config::{
    Balance, CacheConfig, CheckConfig, CompressionName, LimitsConfig, PoolConfig, Protocol,
    ProxyConfig, RouteConfig,
};
pub use counters::{CacheCounters, OriginCounters, PoolCounters, ProxyCounters, RouteCounters};
pub use orders::{Order, Orders};
pub use proxy::{Connection, Proxy};
pub use reload::Reload;
pub use table::{ConfigError, Table};
