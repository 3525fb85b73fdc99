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
//! The service of each core is put into a [`Tls`]; connections that come in by the listeners before `first_listener` stay
//! plain text:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use barewire_service::{Lifecycle, Service, Stack};
//! # use barewire_tls::{Identity, IdentityConfig, Tls, TlsLimits};
//! # fn serve<T: Stack, S: Service + 'static>(stack: T, make_service: fn(usize) -> S) -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::load(IdentityConfig {
//!     pairs: vec![("chain.pem".into(), "key.pem".into())],
//!     protocols: vec![b"http/1.1".to_vec()],
//!     client_authorities: None,
//! })?;
//! let make_secure = move |core| {
//!     let first_listener = 0;
//!     Tls::new(make_service(core), first_listener, &identity, TlsLimits::default(), Arc::default())
//! };
//! let running = stack.start(make_secure, &Lifecycle::new())?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `service` | [`Tls`]: the states of a connection, the limits of handshakes |
//! | `client` | [`TlsClient`]: the same for clients |
//! | `tickets` | keys of tickets, which another process can go on with |
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
mod tickets;

pub use client::{ClientConnection, ClientError, ClientIdentity, Shaken, TlsClient, Trust};
pub use counters::TlsCounters;
pub use identity::{Identity, IdentityConfig, IdentityError, Stamp};
pub use service::{Connection, Tls, TlsLimits};
