//! The atomics of this module, under one name.
//!
//! The model check (`tests/events_model.rs`) compiles the files that share memory between cores once
//! more, with loom's atomics in place of these.

pub use std::hint::spin_loop;
pub use std::sync::atomic::{AtomicU64, Ordering, fence};
pub use std::sync::{Mutex, PoisonError};
pub use std::thread::yield_now;
