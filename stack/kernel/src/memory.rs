//! Anonymous memory that is taken at once and provided page by page.

use std::io;
use std::ops::Range;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A zeroed, page-aligned block of fixed size, of which untouched pages cost nothing.
///
/// Unlike a `Vec<u8>`, it may be cut into parts of which each has an owner of its own; one of them
/// can be the kernel.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// Takes `len` bytes of address space; more than none.
    ///
    /// # Errors
    ///
    /// If the kernel does not grant that much.
    pub fn new(len: usize) -> io::Result<Memory> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody else's memory.
        let start = unsafe { mmap_anonymous(null_mut(), len, access, MapFlags::PRIVATE)? };
        // SAFETY: the range is the mapping just made. The advice keeps one touched byte from costing
        // a whole huge page; a kernel without huge pages refuses it, and that is fine.
        let _ = unsafe { madvise(start, len, Advice::LinuxNoHugepage) };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Memory { start, len })
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where `range` lies, of which every byte is initialised.
    ///
    /// # Panics
    ///
    /// If it is not within the block.
    #[inline]
    pub fn part(&self, range: Range<usize>) -> *mut [u8] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "outside of the block"
        );
        // SAFETY: the start of the range was found to be within the block or one past its end.
        let start = unsafe { self.start.as_ptr().add(range.start) };
        std::ptr::slice_from_raw_parts_mut(start, range.len())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and is not used after this.
        // Unmapping a whole mapping does not fail.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// SAFETY: the block belongs to this value alone, and bytes may be used on any thread.
unsafe impl Send for Memory {}
// SAFETY: a shared reference gives out only raw pointers; whoever dereferences one must justify it.
unsafe impl Sync for Memory {}
