//! Tables that are taken at once and provided page by page.
//!
//! A table that is sized for peak load is mostly empty. [`Zeroed`] takes its whole
//! address space at start, so that the size is known and never grows, but no memory: the kernel
//! provides a page, filled with zeroes, when it is first written to. Unlike an [`crate::Arena`] it does not
//! guarantee that nothing waits for memory after the start: the first use of each huge page costs its zeroing
//! (2 MiB, some 100 us), and a machine that is out of memory fails only then.
//! On other systems than Linux the allocator decides when the pages are provided.

use std::mem::needs_drop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use zerocopy::FromZeros;

use crate::arena::OutOfMemory;

/// A slice of fixed length that begins as zeroes, of which untouched pages cost nothing.
///
/// On transparent huge pages where the kernel grants them and the slice is large enough.
#[derive(Debug)]
pub struct Zeroed<T> {
    start: NonNull<T>,
    len: usize,
}

impl<T: FromZeros> Zeroed<T> {
    /// Takes address space for `len` elements; more than none.
    ///
    /// # Errors
    ///
    /// If the kernel does not grant that much.
    pub fn new(len: usize) -> Result<Self, OutOfMemory> {
        const { assert!(!needs_drop::<T>() && size_of::<T>() > 0 && align_of::<T>() <= ALIGNMENT) }
        let bytes = len.checked_mul(size_of::<T>());
        let start = bytes.and_then(pages::take).ok_or(OutOfMemory {
            bytes: bytes.unwrap_or(usize::MAX),
        })?;
        Ok(Zeroed {
            start: start.cast(),
            len,
        })
    }
}

/// Of the smallest page of any processor that this runs on.
const ALIGNMENT: usize = 4096;

#[cfg(target_os = "linux")]
mod pages {
    use std::ptr::{NonNull, null_mut};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    /// Zeroed pages of at least `bytes`.
    pub fn take(bytes: usize) -> Option<NonNull<u8>> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody else's memory.
        let start = unsafe { mmap_anonymous(null_mut(), bytes, access, MapFlags::PRIVATE) }.ok()?;
        // SAFETY: the range is the mapping just made; the advice changes only how it is backed. A
        // kernel without huge pages refuses it, and that is fine.
        let _ = unsafe { madvise(start, bytes, Advice::LinuxHugepage) };
        NonNull::new(start.cast())
    }

    /// # Safety
    ///
    /// `start` is what [`take`] returned for `bytes`, and is not used after this.
    pub unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller says so. Unmapping a whole mapping does not fail.
        let _ = unsafe { munmap(start.as_ptr().cast(), bytes) };
    }
}

#[cfg(not(target_os = "linux"))]
mod pages {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    /// Zeroed pages of at least `bytes`.
    pub fn take(bytes: usize) -> Option<NonNull<u8>> {
        let layout = layout(bytes)?;
        // SAFETY: the size of the layout is not zero.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    ///
    /// `start` is what [`take`] returned for `bytes`, and is not used after this.
    pub unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
        if let Some(layout) = layout(bytes) {
            // SAFETY: the caller says so, and the layout is the same as then.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes.max(1), super::ALIGNMENT).ok()
    }
}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `len` elements on whole pages, which were zeroes, a valid value of
        // `T`, and then only written through references. They belong to this value until it drops.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Zeroed<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and the exclusive borrow of `self` makes the slice the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        // SAFETY: the pages were taken by `new` with this length and are not used after this; `T` has
        // nothing to drop.
        unsafe { pages::give_back(self.start.cast(), self.len * size_of::<T>()) };
    }
}

// SAFETY: a `Zeroed` owns its elements like a `Box<[T]>` does.
unsafe impl<T: Send> Send for Zeroed<T> {}
// SAFETY: as above; a shared reference gives out shared references only.
unsafe impl<T: Sync> Sync for Zeroed<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_as_zeroes_and_holds_what_is_written() {
        let mut table = Zeroed::<u64>::new(1_000_000).unwrap();
        assert!(table.iter().all(|&word| word == 0));
        table[999_999] = 7;
        assert_eq!(table.iter().sum::<u64>(), 7);
        assert_eq!(table.len(), 1_000_000);
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Zeroed::<u64>::new(usize::MAX / 8).is_err());
        assert!(Zeroed::<u64>::new(usize::MAX).is_err());
    }
}
