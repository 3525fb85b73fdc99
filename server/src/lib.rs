//! barewire: one HTTP server, two network stacks, one honest comparison.

#[cfg(feature = "xdp")]
pub mod check;
pub mod cli;
pub mod confine;
mod console;
pub mod events;
pub mod operate;
pub mod site;
