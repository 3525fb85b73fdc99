//! A TCP/IP stack for one core, without I/O: frames in, frames out, a service on top.
//!
//! A [`shard`] is all that one core needs: it receives batches of Ethernet frames from its
//! [`link`]s, finds the connection each segment belongs to, lets an unmodified smoltcp socket
//! advance it after the [`guard`]s have checked it, hands the bytes to a [`barewire_service::Service`], and
//! sends what comes out. Nothing in it is shared with another core, nothing is locked, and nothing
//! is allocated after start-up.
//!
//! ```text
//!            link::Link            packet          flow            guard        connection
//!  NIC queue ──────────▶ frames ──────────▶ segment ───▶ connection ───▶ segment ───▶ smoltcp
//!      ▲                                                                                │ bytes
//!      └──────────────────────────── frames ◀──────────── smoltcp ◀──── reply ◀── Service
//! ```
//!
//! Arrows run one way: a `Service` does not know the stack that runs it, a shard does not know
//! which link feeds it, a link knows only frames. The crate opens no file descriptor, starts no
//! thread and reads no clock: whoever drives a shard says what time it is, so that a simulation
//! runs as fast as it can. `barewire-xdp` drives it from AF_XDP.

#![deny(unsafe_code)]

pub mod addresses;
pub mod config;
#[allow(unsafe_code)]
mod connection;
mod control;
pub mod flow;
mod forward;
pub mod guard;
mod header;
pub mod link;
mod neighbours;
pub mod outbound;
pub mod packet;
pub mod path;
pub mod random;
pub mod receiver;
pub mod sender;
pub mod shard;
pub mod shared;
mod smoltcp_time;
pub mod source_ports;
mod sources;
mod states;

pub use config::StackConfig;
pub use link::Link;
pub use shard::Shard;
