//! The `barewire` binary from the outside: real processes, real sockets, real network namespaces.
//!
//! What needs the lab needs root; without it those tests say so and do nothing. `scripts/test` runs all.
#![allow(clippy::unwrap_used)]

mod http;
mod kernel_stacks;
mod server;
mod wrong_use;
