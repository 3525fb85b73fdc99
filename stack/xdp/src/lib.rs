//! A [`Stack`](barewire_service::Stack) that bypasses the kernel: an XDP program takes the packets of the
//! served port off the interface, AF_XDP sockets carry them to pinned cores, and each core runs a TCP of its
//! own ([`barewire_tcp`]).
//!
//! ```text
//!             ┌── kernel ──────────────────┐  ┌── this process, one pinned thread per core ────────┐
//!  NIC queue ─┼─▶ XDP program ──▶ AF_XDP ──┼──┼─▶ XskLink ──▶ Shard (barewire-tcp) ──▶ your Service │
//!             │   │ redirect     rings     │  │    xsk         worker                               │
//!             │   └─▶ everything else:     │  └─────────────────────────────────────────────────────┘
//!             │       the kernel's stack   │
//!             └────────────────────────────┘
//! ```
//!
//! [`XdpConfig`] is all that a server needs: name an interface, start it with a service per core.
//!
//! ```no_run
//! # use barewire_service::{Lifecycle, Service, Stack};
//! # use barewire_xdp::XdpConfig;
//! # fn serve<S: Service + 'static>(make_service: fn(usize) -> S) -> Result<(), Box<dyn std::error::Error>> {
//! let running = XdpConfig::new("eth1", 8080).start(make_service, &Lifecycle::new())?;
//! running.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! The parts are public for programs that want only one of them: [`interface`] asks the kernel about an
//! interface, [`redirect`] loads and attaches the program, [`xsk`] is a queue as a
//! [`Link`](barewire_tcp::Link), [`worker`] runs a shard on the current thread.
//!
//! Attaching takes `CAP_NET_ADMIN`, `CAP_BPF` and `CAP_NET_RAW`; they can be given up once the stack runs.

#![deny(unsafe_code)]

mod added;
mod config;
mod cores;
mod error;
pub mod handover;
pub mod interface;
mod netlink;
mod plan;
pub mod redirect;
pub mod route;
mod stack;
mod watch;
#[allow(unsafe_code)]
pub mod worker;
pub mod xsk;

pub use config::{Calls, Checksums, XdpConfig};
pub use error::XdpError;
pub use plan::{CorePlan, Plan, PlanError};
pub use stack::{MERGED_BY_SENDERS, Prepared, Taken};
