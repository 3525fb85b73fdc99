//! The boundary between transports, which carry bytes, and protocols, which interpret them.
//!
//! A [`Service`] is a protocol without I/O. A [`Stack`] owns sockets or NIC queues, threads and
//! connections, and calls the service with the bytes that arrived. Neither knows the other, so one
//! service runs on AF_XDP, on epoll, on io_uring, in a test and in a fuzz target:
//!
//! ```text
//!        protocols                     this crate                        stacks
//!   barewire-http  ─┐   Service ◀── on_input(Input, Reply) ──── ┌─ barewire-xdp (over barewire-tcp)
//!   your protocol  ─┴──▶                                        ├─ barewire-kernel: epoll, io_uring
//!                       Progress ──▶ Watch (deadlines), Wheel   └─ tests
//!
//!   program ── Lifecycle: serve → drain → stop ──▶ every core     counters ──▶ program
//! ```
//!
//! A program starts a stack with a service for each core, and ends it by a phase:
//!
//! ```no_run
//! # use barewire_service::{Lifecycle, Phase, Service, Stack};
//! # fn serve<T: Stack, S: Service + 'static>(stack: T, make_service: fn(usize) -> S) -> Result<(), Box<dyn std::error::Error>> {
//! let lifecycle = Lifecycle::new();
//! let running = stack.start(make_service, &lifecycle)?;
//! println!("ready: {:?}", running.addresses);
//! // From a thread that waits for signals, say: no new connections, then the end.
//! lifecycle.advance(Phase::Drain);
//! running.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! What else both sides share is here, too: the time ([`time`], [`clock`]), deadlines and the wheel
//! that keeps them ([`deadline`], [`timer`]), the threads of a stack ([`cores`]) and how they are told
//! to end ([`lifecycle`]), and what they count ([`mod@counters`]).

#![deny(unsafe_code)]

pub mod clock;
pub mod cores;
pub mod counters;
pub mod deadline;
pub mod lifecycle;
pub mod seats;
pub mod service;
pub mod stack;
pub mod tap;
pub mod time;
pub mod timer;

pub use lifecycle::{Lifecycle, Phase};
pub use service::{Expect, Id, Input, Next, Progress, Reply, Service};
pub use stack::{Running, Stack};
