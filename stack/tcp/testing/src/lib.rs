//! The far end of the wire, for tests, simulations, fuzz targets and benchmarks.
//!
//! Nothing here is fit to face a network: the crate is not published.

pub mod client;
pub mod frame;
pub mod fuzzing;
pub mod icmp;
pub mod peer;
pub mod service;
pub mod simulation;

use barewire_tcp::config::DirectPath;

/// What the environment variable `BAREWIRE_DIRECT_PATH` says of the direct path, for tests that hold with it and
/// without it; `None` if it is not set.
///
/// # Panics
///
/// If it says something else than [`DirectPath`] reads.
pub fn direct_path() -> Option<DirectPath> {
    let text = std::env::var("BAREWIRE_DIRECT_PATH").ok()?;
    match text.parse() {
        Ok(path) => Some(path),
        Err(error) => panic!("BAREWIRE_DIRECT_PATH: {error}"),
    }
}
