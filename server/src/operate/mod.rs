//! What an operator sees of a running server, and does to it.
//!
//! ```text
//!   cores ─▶ counters ─┐
//!   lifecycle ─────────┼─▶ Instruments ─┬─▶ Status  ─▶ control socket ─▶ barewire status, top
//!   events, memory ────┘                └─▶ metrics ─▶ admin address  ─▶ Prometheus
//!
//!   taps ─▶ capture ─▶ control ─▶ barewire capture
//!   barewire stop ─▶ control ─▶ supervisor ─▶ lifecycle
//! ```
//!
//! Reading disturbs no core: each counter has one writer and any number of readers, and requests
//! are answered by threads of their own, which sleep while there is none.

pub mod admin;
pub mod capture;
pub mod control;
mod instruments;
pub mod locate;
pub mod metrics;
pub mod overview;
pub mod rates;
pub mod status;
mod timed;
pub mod watch;

pub use instruments::{Instruments, LiveGroups};
pub use status::{Rates, Status};
