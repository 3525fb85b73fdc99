//! One pass over a received frame.
//!
//! Everything that arrives is hostile until [`parse`] has looked at it, and [`parse`] looks once:
//! lengths, addresses and checksums are checked here and nowhere else. What passes is a
//! [`Segment`]: a flow key for the table, the numbers a guard wants to see, and offsets into the
//! frame, which stays where the link put it.
//!
//! ```text
//!   0            ip               tcp              payload              end
//!   ┌────────────┬────────────────┬────────────────┬────────────────────┬─────────┐
//!   │ Ethernet   │ IPv4 + options │ TCP + options  │ payload            │ padding │
//!   │ (802.1Q)   │ or IPv6        │                │                    │         │
//!   └────────────┴────────────────┴────────────────┴────────────────────┴─────────┘
//! ```
//!
//! A frame that does not pass has exactly one reason, a [`Discard`], and each reason has its own counter.
//! The XDP program passes most of what is not ours to the kernel before it gets here; the checks
//! are complete all the same, because a link need not have such a program in front of it.
//!
//! | file | what it has |
//! |---|---|
//! | `parse` | the pass itself, layer by layer |
//! | `segment` | what passes, with its control bits |
//! | `options` | TCP options, in the order of the wire |
//! | `flow_key` | what tells one flow from every other, and addresses as words |
//! | `local` | which addresses and ports are ours |
//! | `discard` | why a frame does not pass |
//! | [`icmp`] | "packet too big" |

mod discard;
mod flow_key;
pub mod icmp;
mod local;
mod options;
mod parse;
mod segment;

pub use discard::{Discard, DiscardCounters};
pub use flow_key::FlowKey;
pub use local::{Local, LocalError};
pub use options::{MalformedOption, TcpOption, TcpOptions};
pub use parse::{ChecksumPolicy, parse};
pub use segment::{Flags, Segment};
