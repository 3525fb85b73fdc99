//! A hint to the memory system, for a batch whose connections are known before they are touched.
//!
//! A core that serves more connections than fit into its cache pays for a miss with every segment.
//! The shard looks up a whole batch first, and asks for what it will need: the misses of a batch
//! then overlap instead of queueing.

const CACHE_LINE_BYTES: usize = 64;

/// Asks for the cache lines of `value` to be loaded for reading and writing. Changes nothing else.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    // Unlike an iterator with steps, it is unrolled where the size is known.
    let mut offset = 0;
    while offset < size_of_val(value) {
        prefetch_line(start.wrapping_add(offset));
        offset += CACHE_LINE_BYTES;
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch neither faults nor changes memory, whatever the address; the instruction
    // is part of SSE, which every x86_64 processor has.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_line(_address: *const u8) {}
