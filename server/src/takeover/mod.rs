//! `barewire serve --take-over`: a server goes on where another one is, without a connection being reset or an event lost.
//!
//! ```text
//!   successor                                          predecessor
//!   checks its configuration, asks at the control socket ───────▶ serves on
//!     ◀──────────────── what it has (`Estate`), its listeners or its interface, its users
//!   starts all cores, gives up its privileges
//!   "prepared" ──────────────────────────────────────────────────▶ stops all cores between two batches
//!     ◀──────────────────────────────── connections that can travel, counts
//!   "taken" ─────────────────────────────────────────────────────▶
//!     ◀────────────────────────────────────────────────── "yours"   the moment: before it, all is as it was
//!   serves, says that it is ready                                   finishes what is busy
//!     ◀──────────────────────── connections that are idle by now
//!     ◀──────────────────────── events of those that stay, one by one
//!     ◀───────────────────────────────────────────── end of file    has ended
//! ```
//!
//! Connections of a kernel stack travel as sockets, and those that are busy stay; those of the bypass as records, and what
//! cannot travel is drained before the cores stop (`stack`).
//!
//! Whatever fails before "yours", the predecessor's cores go on as if nothing had happened, and the successor ends with a
//! message. From then on the predecessor counts nothing: an event on a connection that stayed there is counted by the
//! successor before it is answered, and `GET /stats` is asked there. So each of both answers exactly at any time.
//!
//! Both ends are of one program and of one user (or root's), so they trust each other; the protocol has a version all the
//! same, since they may be of different releases.

mod predecessor;
mod stack;
mod successor;
mod wire;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use predecessor::{Inheritance, Leaving, Predecessor};
pub use stack::{Frozen, HandOver};
pub use successor::{Begun, Bypass, Endowment, Successor, TakeOverError};

/// What both ends have to speak. Another number is another protocol.
pub const PROTOCOL: u32 = 2;

/// A server's part of an interface, which it serves past the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub interface: String,
    /// The queues of each core.
    pub queues: Vec<Vec<u32>>,
    /// Whether the XDP program runs in the driver.
    pub is_native: bool,
}

/// What a server has that another one can take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estate {
    /// Its protocol.
    pub protocol: u32,
    /// Its process.
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// Its stack.
    pub stack: String,
    /// Where it serves, in the order of its options.
    pub addresses: Vec<SocketAddr>,
    /// The CPUs of its cores.
    pub cpus: Vec<usize>,
    /// Connections of each core.
    pub connections: usize,
    /// Its part of an interface, if it has one.
    pub bypass: Option<Interface>,
    /// How long it may take to end what cannot travel, in milliseconds.
    pub drain_ms: u64,
    /// Whether it keeps its counts in a file.
    pub keeps_state: bool,
    /// Where its metrics are.
    pub admin: Option<SocketAddr>,
    /// Its name in the fleet, if it counts with others.
    pub node: Option<String>,
}
