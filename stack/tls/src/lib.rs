//! TLS 1.3 and 1.2 around any [`Service`](barewire_service::service::Service), on every stack.
//!
//! rustls does the handshake and hands over the keys. From then on the record layer of this crate opens what arrives
//! and seals what is sent, in buffers that exist already: a connection allocates during its handshake, and never again.
//! The stack sees a service like any other; the service inside sees plain text:
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
//! | `service` | [`Tls`]: the states of a connection, the limits of handshakes |
//! | `client` | [`TlsClient`]: the same for clients |
//! | `session` | a connection with keys: records and plain text, KeyUpdate, alerts |
//! | `record` | one record opened or sealed; the limits of a key |
//! | `handshake` | rustls, record by record |
//! | `identity` | [`Identity`]: files and their faults, names, tickets |
//! | `buffers` | for incomplete records and messages |
//!
//! There is no early data (0-RTT), which can be replayed, and no renegotiation.

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
