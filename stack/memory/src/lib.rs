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
