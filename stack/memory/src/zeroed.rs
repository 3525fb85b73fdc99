//! Tables that are taken at once and provided page by page.
//!
//! A table that is sized for the worst day is mostly empty on all others. [`Zeroed`] takes its whole
//! address space at start, so that the size is known and never grows, but no memory: the kernel
//! provides a page, filled with zeroes, when it is first written to. What an [`crate::Arena`]
//! promises, that nothing waits for memory after the start, it does not: the first use of each huge
//! page costs its zeroing (2 MiB, some 100 us), and a machine without memory left notices only then.

use std::mem::needs_drop;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
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
        const { assert!(!needs_drop::<T>() && size_of::<T>() > 0 && align_of::<T>() <= 4096) }
        let bytes = len.checked_mul(size_of::<T>());
        let out_of_memory = OutOfMemory {
            bytes: bytes.unwrap_or(usize::MAX),
        };
        let bytes = bytes.ok_or(out_of_memory.clone())?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody else's memory.
        let start = unsafe { mmap_anonymous(null_mut(), bytes, access, MapFlags::PRIVATE) }
            .map_err(|_| out_of_memory.clone())?;
        // SAFETY: the range is the mapping just made; the advice changes only how it is backed. A
        // kernel without huge pages refuses it, and that is fine.
        let _ = unsafe { madvise(start, bytes, Advice::LinuxHugepage) };
        let start = NonNull::new(start.cast()).ok_or(out_of_memory)?;
        Ok(Zeroed { start, len })
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
        // SAFETY: the mapping was made by `new` with this length and is not used after this; `T` has
        // nothing to drop. Unmapping a whole mapping does not fail.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
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
