//! The program `barewire`: an HTTP server on three network stacks, a load generator, and what operates them.
//!
//! ```text
//!   main ─▶ cli ─┬─▶ serve ─▶ site (routes) ─▶ events           ┌─▶ barewire-xdp
//!                │     ├────▶ barewire_http::Responder ─ a Stack ┼─▶ barewire-kernel: epoll
//!                │     ├────▶ fleet: counts of several servers, through a Redis
//!                │     ├────▶ operate: status, metrics, capture  └─▶ barewire-kernel: io_uring
//!                │     └────▶ confine: user, capabilities, system calls
//!                ├─▶ check: whether the bypass would start
//!                └─▶ load: barewire-load
//! ```
//!
//! It is a library only for its own tests and benches: other servers use `barewire-http` with
//! `barewire-xdp` or `barewire-kernel`.

#[cfg(feature = "xdp")]
pub mod check;
pub mod cli;
pub mod confine;
mod console;
pub mod events;
pub mod fleet;
pub mod operate;
pub mod site;
pub mod takeover;
