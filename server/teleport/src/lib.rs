//! Teleport: HTTP between machines, multiplexed, batched and compressed, without I/O.
//!
//! A call is one request and one response, each a message of HTTP/1.1 as RFC 9112 has it. Many calls share a connection,
//! and responses come in any order. What one turn of an end has to say is one batch: compressed as a whole, apart from
//! credentials. `docs/teleport.md` specifies what is on the wire.
//!
//! ```text
//!   messages ─▶ Endpoint::send ─▶ batch ─▶ blocks ─▶ Endpoint::write ─▶ the wire
//!   messages ◀─ Endpoint::next_event ◀─── frames ◀─ Endpoint::receive ◀─ the wire
//! ```
//!
//! [`Endpoint`] is either end of a connection; who calls drives it. [`Client`] does so over a blocking stream. [`Teleport`] is the serving end as a
//! [`Service`](barewire_service::service::Service) around a service that answers HTTP/1.1: to that, each call is a
//! connection of its own.
//!
//! An end reads whatever arrives, at once. What it keeps is bounded by the credit of each call, what is on the way by the
//! window of the connection. Nothing is allocated for a call once a connection has had as many.

#![deny(unsafe_code)]

mod batch;
mod block;
mod calls;
mod client;
mod compression;
mod counters;
mod endpoint;
mod fault;
mod frame;
mod hello;
mod limits;
mod secrets;
mod service;

pub use calls::CallId;
pub use client::{Client, ClientError, Outcome};
pub use compression::Compression;
pub use counters::TeleportCounters;
pub use endpoint::{Endpoint, Event, Side};
pub use fault::{Fault, Reason};
pub use limits::Limits;
pub use secrets::{Secrets, head_end};
pub use service::{Connection, ServiceLimits, Teleport};
