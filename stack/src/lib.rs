//! A user-space TCP/IP stack for servers that own their NIC queues.
//!
//! A [`shard`] is one core's whole world: it receives batches of Ethernet frames from its
//! [`link`]s, finds the connection each segment belongs to, lets an unmodified smoltcp socket
//! advance it behind a wall of [`guard`]s, hands the bytes to a [`service::Service`], and sends
//! what comes out. Nothing in it is shared with another core, nothing is locked, and nothing is
//! allocated after start-up.
//!
//! ```text
//!            link::Link            packet          flow            guard        connection
//!  NIC queue ──────────▶ frames ──────────▶ segment ───▶ connection ───▶ segment ───▶ smoltcp
//!      ▲                                                                                │ bytes
//!      └──────────────────────────── frames ◀──────────── smoltcp ◀──── reply ◀── service::Service
//! ```
//!
//! Arrows run one way: a `Service` does not know the stack that runs it, a shard does not know
//! which link feeds it, a link knows only frames. The crate serves any protocol; HTTP lives in
//! the `barewire` crate.

pub mod arena;
pub mod clock;
pub mod config;
mod connection;
mod control;
pub mod counters;
pub mod deadline;
pub mod flow;
pub mod guard;
mod header;
pub mod interface;
pub mod lifecycle;
pub mod link;
#[cfg(feature = "xdp")]
mod netlink;
pub mod outbound;
pub mod packet;
pub mod path;
pub mod prefetch;
pub mod random;
pub mod receiver;
#[cfg(feature = "xdp")]
pub mod redirect;
#[cfg(feature = "xdp")]
pub mod route;
pub mod sender;
pub mod service;
pub mod shard;
pub mod shared;
pub mod source_ports;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer;
pub mod worker;
pub mod zeroed;

/// Points in time and spans of it, in microseconds, as the whole crate counts them.
///
/// A shard never reads a clock: whoever drives it says what time it is, so that a simulation runs
/// as fast as it can and a test says exactly when.
pub mod time {
    pub use smoltcp::time::{Duration, Instant};
}
