//! What an operator sees of a running server, and does to it.
//!
//! ```text
//!   cores ─▶ counters ─┐
//!   lifecycle ─────────┼─▶ Instruments::read ─▶ Status ─┬─▶ control ─▶ barewire status, top
//!   events, memory ────┘                                └─▶ JSON
//!
//!   taps ─▶ capture ─▶ control ─▶ barewire capture
//!   barewire stop ─▶ control ─▶ supervisor ─▶ lifecycle
//! ```
//!
//! Reading disturbs no core: each counter has one writer and any number of readers, and whoever asks
//! is answered by threads of their own, which sleep while nobody does.

pub mod capture;
pub mod control;
mod instruments;
pub mod locate;
pub mod overview;
pub mod rates;
pub mod status;
mod timed;

pub use instruments::Instruments;
pub use rates::Rates;
pub use status::Status;
