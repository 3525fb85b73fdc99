//! Vectors that are taken at once and provided as they grow.

use std::mem::MaybeUninit;

use crate::arena::OutOfMemory;

/// An empty vector with room for `capacity` elements, on transparent huge pages where the kernel grants them. It
/// has its whole address space at once, and memory as it grows, so that within its capacity it never allocates.
///
/// # Errors
///
/// If the kernel does not grant that much address space.
pub fn table<T>(capacity: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut table: Vec<T> = Vec::new();
    table.try_reserve_exact(capacity).map_err(|_| OutOfMemory {
        bytes: capacity.saturating_mul(size_of::<T>()),
    })?;
    prefer_huge_pages(table.spare_capacity_mut());
    Ok(table)
}

/// Elsewhere the allocator decides.
#[cfg(not(target_os = "linux"))]
fn prefer_huge_pages<T>(_: &mut [MaybeUninit<T>]) {}

#[cfg(target_os = "linux")]
fn prefer_huge_pages<T>(unused: &mut [MaybeUninit<T>]) {
    use rustix::mm::{Advice, madvise};

    const PAGE_BYTES: usize = 4096;
    let bytes = size_of_val(unused);
    let start = unused.as_mut_ptr().cast::<u8>();
    let before_page = start.align_offset(PAGE_BYTES);
    let pages_bytes = bytes.saturating_sub(before_page) / PAGE_BYTES * PAGE_BYTES;
    if pages_bytes > 0 {
        let pages = start.wrapping_add(before_page).cast();
        // SAFETY: the range is whole pages of the borrowed memory, which holds no value yet; the advice changes only
        // how it is backed. A kernel without huge pages refuses it, and that is fine.
        let _ = unsafe { madvise(pages, pages_bytes, Advice::LinuxHugepage) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_within_its_capacity_where_it_is() {
        let mut table = table::<u64>(1_000_000).unwrap();
        let start = table.as_ptr();
        table.extend(0..1_000_000);
        assert_eq!(table.as_ptr(), start);
        assert_eq!(table[999_999], 999_999);
    }

    #[test]
    fn may_be_small_or_impossible() {
        table::<u8>(3).unwrap().push(1);
        assert!(table::<u64>(0).unwrap().is_empty());
        assert!(table::<u64>(usize::MAX / 4).is_err());
    }
}
