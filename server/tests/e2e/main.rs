//! The `barewire` binary from the outside: real processes, real sockets, real network namespaces.
//!
//! What needs the lab needs root; without it those tests say so and do nothing. `scripts/test` runs all.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "xdp")]
mod bad_wire;
mod bulkhead;
#[cfg(feature = "xdp")]
mod bypass;
#[cfg(feature = "xdp")]
mod capture;
#[cfg(feature = "xdp")]
mod check;
mod clients;
mod config;
#[cfg(feature = "xdp")]
mod deploy;
mod files;
#[cfg(feature = "xdp")]
mod first_contact;
#[cfg(feature = "xdp")]
mod flood;
#[cfg(feature = "xdp")]
mod hostile;
mod http;
#[cfg(feature = "xdp")]
mod kernel_silence;
mod kernel_stacks;
#[cfg(feature = "xdp")]
mod kinds;
#[cfg(feature = "xdp")]
mod load;
#[cfg(feature = "xdp")]
mod load_tls;
mod nginx;
mod operate;
#[cfg(feature = "xdp")]
mod outlive;
mod output;
#[cfg(feature = "xdp")]
mod paths;
mod privileges;
mod proxy;
mod proxy_tls;
#[cfg(feature = "xdp")]
mod queues;
#[cfg(feature = "xdp")]
mod raw;
#[cfg(feature = "xdp")]
mod room;
mod server;
mod service_manager;
mod signals;
mod slow_handshakes;
#[cfg(feature = "xdp")]
mod soak;
mod state;
#[cfg(feature = "xdp")]
mod surroundings;
mod teleport;
mod through_proxy;
mod tls;
mod tls_clients;
mod unheard;
mod wrong_use;
