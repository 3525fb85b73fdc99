//! A TCP/IP stack for one core, without I/O: frames in, frames out, a service on top.
//!
//! A [`shard`] is all that one core needs: it receives batches of Ethernet frames from its
//! [`link`]s, finds the connection each segment belongs to, advances it, hands the bytes to a
//! [`barewire_service::Service`], and sends what comes out. An established connection with nothing unusual takes the
//! direct path ([`receiver`], [`sender`]); any other has an unmodified smoltcp socket, which the [`guard`]s check the
//! segments for. Nothing is locked, and nothing is allocated after start-up.
//!
//! ```text
//!            link::Link           packet           flow             ┌─ direct ──────────────┐
//!  NIC queue ──────────▶ frames ─────────▶ segment ────▶ connection ┤                       ├─▶ bytes
//!      ▲                                                            └─ guard ─▶ smoltcp ────┘     │
//!      └──────────────────────── frames ◀──── sender or smoltcp ◀──────── reply ◀────────────── Service
//! ```
//!
//! # Two shards on a wire in memory
//!
//! One accepts connections and sends back what arrives, the other one opens a connection and sends a word. A driver is
//! a loop of [`Shard::poll`]:
//!
//! ```
//! # use barewire_service::service::{Id, Want};
//! # use barewire_service::{Expect, Input, Next, Progress, Reply, Service};
//! # struct Echo;
//! # impl Service for Echo {
//! #     type Connection = ();
//! #     const REPLY_BYTES_MIN: usize = 64;
//! #     fn on_input(&mut self, _: &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
//! #         assert!(reply.put(input.bytes));
//! #         Progress { consumed: input.bytes.len(), messages: 1, next: Next::Receive(Expect::Message) }
//! #     }
//! # }
//! # #[derive(Default)]
//! # struct Ping { has_opened: bool, has_answer: bool }
//! # impl Service for Ping {
//! #     type Connection = bool;
//! #     const REPLY_BYTES_MIN: usize = 64;
//! #     fn wants(&mut self, _: Instant) -> Want {
//! #         match std::mem::replace(&mut self.has_opened, true) {
//! #             false => Want::Open(0),
//! #             true => Want::Nothing { until: None },
//! #         }
//! #     }
//! #     fn on_input(&mut self, has_asked: &mut bool, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
//! #         self.has_answer |= input.bytes == b"ping";
//! #         if !std::mem::replace(has_asked, true) {
//! #             assert!(reply.put(b"ping"));
//! #         }
//! #         Progress { consumed: input.bytes.len(), messages: 0, next: Next::Receive(Expect::Message) }
//! #     }
//! # }
//! use std::sync::Arc;
//!
//! use barewire_service::time::{Duration, Instant};
//! use barewire_tcp::guard::Secrets;
//! use barewire_tcp::link::memory::{MemoryLink, MemoryLinkConfig};
//! use barewire_tcp::outbound::Outbound;
//! use barewire_tcp::packet::Local;
//! use barewire_tcp::source_ports::SourcePorts;
//! use barewire_tcp::{Shard, StackConfig};
//!
//! let mut now = Instant::from_secs(1);
//! let secrets = Secrets::from_seed(7);
//! let config = StackConfig { connections: 16, half_open: 16, ..StackConfig::default() };
//! let (mut server_buffers, mut client_buffers) = (vec![0; config.arena_bytes()], vec![0; config.arena_bytes()]);
//! let wire = || vec![MemoryLink::new(MemoryLinkConfig::default())];
//!
//! let local = Local::new(&[[10, 0, 0, 1].into()], &[8080])?;
//! let mut server = Shard::new(config.clone(), local, &secrets, wire(), Echo, &mut server_buffers, now)?;
//!
//! let ports = 40_000..=40_015;
//! let outbound = Outbound {
//!     destination: ([10, 0, 0, 1], 8080).into(),
//!     source_mac: [2, 0, 0, 0, 0, 2],
//!     next_hop_mac: [2, 0, 0, 0, 0, 1],
//!     ports: Arc::new(SourcePorts::new(1, ports.clone(), 1)),
//!     shard: 0,
//! };
//! let local = Local::calling(&[[10, 0, 0, 2].into()], ports)?;
//! let client = Shard::new(config, local, &secrets, wire(), Ping::default(), &mut client_buffers, now)?;
//! let mut client = client.calling(outbound, &secrets);
//!
//! while !client.service().has_answer {
//!     server.poll(now);
//!     client.poll(now);
//!     server.links_mut()[0].exchange(&mut client.links_mut()[0]);
//!     now = now + Duration::from_millis(1);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Dependencies
//!
//! Dependencies run one way: a `Service` does not know the stack that runs it, a shard does not know
//! which link feeds it, a link knows only frames. The crate opens no file descriptor, starts no
//! thread and reads no clock: the driver of a shard passes the time, so that a simulation
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
pub mod travel;

pub use config::StackConfig;
pub use link::Link;
pub use shard::Shard;
