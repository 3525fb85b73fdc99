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
//! [`Endpoint`] is either end of a connection; who calls drives it:
//!
//! ```
//! use std::sync::Arc;
//!
//! use barewire_teleport::{CallId, Endpoint, Event, Fault, Limits, Side};
//!
//! /// Carries what one end has to write to the other, and returns what that hears of messages.
//! fn carry(from: &mut Endpoint, to: &mut Endpoint) -> Result<Vec<(CallId, Vec<u8>)>, Fault> {
//!     let (mut wire, mut heard) = ([0; 4096], Vec::new());
//!     let len = from.write(&mut wire)?;
//!     let mut bytes = &wire[..len];
//!     while !bytes.is_empty() {
//!         let taken = to.receive(bytes)?;
//!         bytes = &bytes[taken..];
//!         while let Some(event) = to.next_event()? {
//!             if let Event::Data { call, bytes, .. } = event {
//!                 heard.push((call, bytes.to_vec()));
//!             }
//!         }
//!     }
//!     Ok(heard)
//! }
//!
//! let mut edge = Endpoint::new(Side::Client, Limits::default(), Arc::default());
//! let mut origin = Endpoint::new(Side::Server, Limits::default(), Arc::default());
//! carry(&mut edge, &mut origin)?;
//! carry(&mut origin, &mut edge)?;
//! let request = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
//! let (asked, _) = edge.open_call(request, true).expect("the origin takes calls");
//! for (call, request) in carry(&mut edge, &mut origin)? {
//!     assert!(request.starts_with(b"GET / "));
//!     origin.send(call, b"HTTP/1.1 204 No Content\r\n\r\n", false, true);
//! }
//! let heard = carry(&mut origin, &mut edge)?;
//! assert_eq!(heard, [(asked, b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())]);
//! # Ok::<(), Fault>(())
//! ```
//!
//! [`Client`] does that over a blocking stream. [`Teleport`] is the serving end as a
//! [`Service`](barewire_service::service::Service) around a service that answers HTTP/1.1: to that, each call is a
//! connection of its own.
//!
//! An end reads whatever arrives, at once. What it keeps is bounded by the credit of each call, what is on the way by
//! the window of the connection. Nothing is allocated for a call once a connection has had as many.

#![deny(unsafe_code)]

/// What a connection in TLS names its protocol (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"teleport";

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
