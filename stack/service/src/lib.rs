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
//!                       Progress ──▶ deadlines, timer wheel     └─ tests
//!
//!   program ── Lifecycle: serve → drain → stop ──▶ every core     counters ──▶ program
//! ```
//!
//! # A protocol
//!
//! A service says how much of the input it consumed, and what it waits for; [`mod@service`] has the contract. This one
//! answers each line with its length, and needs nothing to be tried:
//!
//! ```
//! use barewire_service::{Expect, Input, Next, Progress, Reply, Service};
//!
//! struct Lengths;
//!
//! impl Service for Lengths {
//!     /// What is kept of a connection between two calls.
//!     type Connection = ();
//!     /// The longest reply that cannot be split.
//!     const REPLY_BYTES_MIN: usize = 32;
//!
//!     fn on_input(&mut self, _: &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
//!         let (mut consumed, mut messages) = (0, 0);
//!         let next = loop {
//!             let rest = &input.bytes[consumed..];
//!             let Some(len) = rest.iter().position(|byte| *byte == b'\n') else {
//!                 break match (rest.is_empty(), input.full) {
//!                     (true, _) => Next::Receive(Expect::Message),
//!                     (false, false) => Next::Receive(Expect::Head),
//!                     // A line that is longer than the receive buffer.
//!                     (false, true) => Next::Abort,
//!                 };
//!             };
//!             if !reply.put(format!("{len}\n").as_bytes()) {
//!                 break Next::Send;
//!             }
//!             consumed += len + 1;
//!             messages += 1;
//!         };
//!         Progress { consumed, messages, next }
//!     }
//! }
//!
//! let mut space = [0; 64];
//! let mut reply = Reply::new(&mut space);
//! let input = Input { bytes: b"hello\nto y", full: false, ended: false };
//! let progress = Lengths.on_input(&mut (), input, &mut reply);
//! assert_eq!(reply.written(), b"5\n");
//! assert_eq!(progress, Progress { consumed: 6, messages: 1, next: Next::Receive(Expect::Head) });
//! ```
//!
//! # A program
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
//! that keeps them ([`deadline`], [`timer`]), the threads of a stack ([`cores`]), how they are told
//! to end ([`lifecycle`]) or to make way for another process ([`handover`]), and what they count ([`mod@counters`]).

#![deny(unsafe_code)]

pub mod clock;
pub mod cores;
pub mod counters;
pub mod deadline;
pub mod handover;
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
