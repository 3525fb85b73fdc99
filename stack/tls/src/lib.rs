//! TLS 1.3 and 1.2 around any [`Service`](barewire_service::service::Service), on every stack.
//!
//! rustls shakes hands, and hands over the keys; from then on a record layer of our own opens what arrives and seals
//! what is sent, in buffers that exist already: a connection allocates while it shakes hands, and never again. A stack
//! sees a service like any other, the service inside sees plain text:
//!
//! ```text
//!   stack ── bytes ──▶ Tls<S> ── plain text ──▶ S
//!                       │  ▲
//!                       │  └── Identity: certificates, keys, tickets; shared by all cores, read again while they serve
//!                       └── TlsCounters, TlsLimits
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `service` | [`Tls`]: states of a connection, who may shake hands |
//! | `client` | [`TlsClient`]: the same for the side that calls |
//! | `session` | a connection with keys: records and plain text, KeyUpdate, alerts, the end |
//! | `record` | one record opened or sealed; the limits of its key |
//! | `handshake` | rustls, record by record |
//! | `identity` | [`Identity`]: files, their faults, names, tickets |
//! | `buffers` | what half records and half messages wait in |
//!
//! What is not there: early data (0-RTT), which can be replayed, and renegotiation.

#![deny(unsafe_code)]

mod buffers;
mod client;
mod counters;
mod handshake;
mod identity;
mod record;
mod service;
mod session;

pub use client::{ClientConnection, ClientError, ClientIdentity, Shaken, TlsClient, Trust};
pub use counters::TlsCounters;
pub use identity::{Identity, IdentityConfig, IdentityError, Stamp};
pub use service::{Connection, Tls, TlsLimits};
