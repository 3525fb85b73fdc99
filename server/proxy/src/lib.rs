//! A reverse proxy and load balancer to HTTP/1.1 origins, without I/O.
//!
//! ```text
//!   client ──▶ Responder (barewire-http) ──▶ Forward: a Relay ──▶ Call ──▶ Line ──▶ origin
//!                 parses, frames anew            │ route, pool      ▲        writes the request anew,
//!                                                └─ Balance ────────┘        reads the response
//!   client ◀── Responder ◀────────── woken ◀────────── Call ◀───────────── origin
//! ```
//!
//! A [`Proxy`] is the service of one core. Its clients' connections are those of a
//! [`Responder`](barewire_http::Responder), so that requests are refused as any other server of this project refuses
//! them, before an origin sees anything of them. Between a client and a line there is a call: two buffers of bounded
//! size, one for each direction. Who fills one waits while it is full; so the slower side holds back the other, and a
//! call never takes more memory than its two buffers.
//!
//! Nothing is shared between cores but the configuration: each has its own connections to the origins, its own view
//! of who fails, and its own counts.

#![deny(unsafe_code)]

mod balance;
mod call;
mod config;
mod counters;
mod forward;
mod head;
mod line;
mod proxy;
mod response;
mod table;

pub use config::{Balance, CheckConfig, LimitsConfig, PoolConfig, ProxyConfig, RouteConfig};
pub use counters::{OriginCounters, ProxyCounters};
pub use proxy::{Connection, Proxy};
pub use table::{ConfigError, Table};
