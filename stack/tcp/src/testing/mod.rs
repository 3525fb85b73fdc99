//! The far end of the wire, for tests, simulations, fuzz targets and benchmarks.
//!
//! Only built with the `testing` feature: nothing here is fit to face a network.

pub mod client;
pub mod frame;
pub mod fuzzing;
pub mod icmp;
pub mod peer;
pub mod service;
pub mod simulation;
