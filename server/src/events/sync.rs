//! The atomics of this module, under one name.
//!
//! The model check (`tests/events_model.rs`) compiles the files that share memory between cores once
//! more, with loom's atomics in place of these.

use barewire_memory::Zeroed;

pub use std::hint::spin_loop;
pub use std::sync::atomic::{AtomicU64, Ordering, fence};
pub use std::sync::{Mutex, PoisonError};
pub use std::thread::yield_now;

/// A table of pairs of words, all zero at first.
pub type PairTable = Zeroed<[AtomicU64; 2]>;

/// What the only writer of `word`, who calls this, last wrote to it.
///
/// A function of its own because loom takes a writer's load for the last access to the word, and
/// then misses the orders in which another thread's earlier load matters.
#[inline]
pub fn load_own(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}
