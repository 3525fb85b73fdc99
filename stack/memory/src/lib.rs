//! Memory that is taken once, at start, so that nothing waits for it later.
//!
//! A server that must not allocate per request takes its memory beforehand. There are two ways,
//! and the difference is when the kernel provides the pages:
//!
//! ```text
//!                    taken            provided              for
//!   Arena            at start         at start, all of it   buffers that every connection uses
//!   Zeroed<T>        at start         at the first write    tables sized for peak load, used anywhere
//!   table::<T>()     at start         as it grows           the same, used from the front
//! ```
//!
//! ```
//! use barewire_memory::{Arena, Zeroed};
//!
//! // Buffers of all connections: there from the start, cut into slices.
//! let mut buffers = Arena::new(64 * 1024)?;
//! let mut rest = &mut buffers[..];
//! let first = rest.split_off_mut(..4096).ok_or("too short")?;
//! first.fill(1);
//!
//! // A table for the peak: address space from the start, memory page by page.
//! let mut counts = Zeroed::<u64>::new(1 << 20)?;
//! counts[7] += 1;
//! assert_eq!((counts[7], counts[8]), (1, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All lie on huge pages where the system has them, so that tables of many megabytes do not cost a
//! TLB miss for each access. None ever grows beyond its size.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod arena;
#[allow(unsafe_code)]
mod prefetch;
#[allow(unsafe_code)]
mod table;
#[allow(unsafe_code)]
mod zeroed;

pub use arena::{Arena, OutOfMemory, Pages};
pub use prefetch::prefetch;
pub use table::table;
pub use zeroed::Zeroed;
