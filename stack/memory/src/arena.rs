//! Memory that is taken once, at start.
//!
//! Buffers of thousands of connections on 4 KiB pages cost a TLB miss each time a connection's turn
//! comes. An [`Arena`] is one block on huge pages, zeroed, touched page by page so that the memory
//! is really there and on the caller's NUMA node, and cut into slices with
//! [`slice::split_off_mut`]; nothing is ever given back to it.
//!
//! ```text
//!   Arena ──▶ &mut [u8] ──split_off_mut──▶ [ rx 0 ][ tx 0 ][ rx 1 ][ tx 1 ] …
//! ```
//!
//! Where the system has no huge pages to give, normal ones do, with transparent huge pages asked
//! for, and a warning that names the cure. On other systems than Linux all pages are normal ones.

use std::alloc::{Layout, alloc, dealloc};
#[cfg(target_os = "linux")]
use std::fs;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use thiserror::Error;

/// A zeroed, page-aligned block of memory of fixed size; use it as the `[u8]` it derefs to.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    layout: Layout,
    len: usize,
    pages: Pages,
}

/// On what kind of pages an [`Arena`] lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages that the administrator set aside, of this many bytes each.
    Huge(usize),
    /// Normal pages, transparent huge ones where the kernel grants them.
    Normal,
}

/// The memory could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "cannot take {bytes} bytes of memory: serve fewer connections or give each smaller buffers"
)]
pub struct OutOfMemory {
    /// How much was asked for.
    pub bytes: usize,
}

/// Alignment of normal pages, so that transparent huge pages fit.
const NORMAL_ALIGNMENT_BYTES: usize = 2 << 20;

impl Arena {
    /// Takes `len` bytes, on huge pages if there are enough of them free.
    ///
    /// What is really taken is `len` rounded up to whole pages: [`Arena::memory_bytes`].
    ///
    /// # Errors
    ///
    /// If there is not even that much memory on normal pages.
    pub fn new(len: usize) -> Result<Arena, OutOfMemory> {
        #[cfg(target_os = "linux")]
        if len > 0 {
            let page_bytes = huge_page_bytes();
            if let Some(arena) = page_bytes.and_then(|bytes| Arena::on_huge_pages(len, bytes)) {
                return Ok(arena);
            }
            tracing::warn!(
                "no huge pages for {len} bytes of buffers, using normal pages: for fewer TLB misses set \
                 some aside with `sysctl vm.nr_hugepages={}` before the start",
                len.div_ceil(page_bytes.unwrap_or(NORMAL_ALIGNMENT_BYTES))
            );
        }
        Arena::on_normal_pages(len)
    }

    /// The kind of pages it lies on.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Bytes of memory it takes, a multiple of the page size.
    pub fn memory_bytes(&self) -> usize {
        self.layout.size()
    }

    #[cfg(target_os = "linux")]
    fn on_huge_pages(len: usize, page_bytes: usize) -> Option<Arena> {
        let size = len.checked_next_multiple_of(page_bytes)?;
        let layout = Layout::from_size_align(size, page_bytes).ok()?;
        // SAFETY: the size is not zero, as `len` is not. The function panics where it cannot parse
        // the huge page size, which `huge_page_bytes` has just done more strictly.
        let start = NonNull::new(unsafe { hugepage_rs::alloc(layout) })?;
        Some(Arena::touched(start, layout, len, Pages::Huge(page_bytes)))
    }

    fn on_normal_pages(len: usize) -> Result<Arena, OutOfMemory> {
        let out_of_memory = OutOfMemory { bytes: len };
        let layout = len
            .max(1)
            .checked_next_multiple_of(NORMAL_ALIGNMENT_BYTES)
            .and_then(|size| Layout::from_size_align(size, NORMAL_ALIGNMENT_BYTES).ok())
            .ok_or(out_of_memory.clone())?;
        // SAFETY: the size is at least one alignment, so not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or(out_of_memory)?;
        #[cfg(target_os = "linux")]
        // SAFETY: the block is ours alone, whole pages, and not yet read; this advice changes only
        // how it is backed. Without transparent huge pages it fails, and that is fine.
        let _ = unsafe {
            rustix::mm::madvise(
                start.as_ptr().cast(),
                layout.size(),
                rustix::mm::Advice::LinuxHugepage,
            )
        };
        Ok(Arena::touched(start, layout, len, Pages::Normal))
    }

    /// Writes every byte, which initialises the block and makes the kernel provide every page.
    fn touched(start: NonNull<u8>, layout: Layout, len: usize, pages: Pages) -> Arena {
        // SAFETY: the block was just allocated with this layout and nobody else knows of it.
        unsafe { start.write_bytes(0, layout.size()) };
        Arena {
            start,
            layout,
            len,
            pages,
        }
    }
}

impl Deref for Arena {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to at least `len` bytes, all initialised by `touched`, owned by
        // this value and freed only when it drops; the borrow of `self` guards against writers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the exclusive borrow of `self` makes the slice the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        match self.pages {
            #[cfg(target_os = "linux")]
            // SAFETY: allocated by `hugepage_rs::alloc` with this very layout.
            Pages::Huge(_) => unsafe { hugepage_rs::dealloc(self.start.as_ptr(), self.layout) },
            #[cfg(not(target_os = "linux"))]
            Pages::Huge(_) => unreachable!("only Linux sets huge pages aside"),
            // SAFETY: allocated by `alloc` with this very layout.
            Pages::Normal => unsafe { dealloc(self.start.as_ptr(), self.layout) },
        }
    }
}

// SAFETY: an arena owns its memory like a `Box<[u8]>` does, and bytes may be used on any thread.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Arena {}

/// The default huge page size, if the kernel says one.
#[cfg(target_os = "linux")]
fn huge_page_bytes() -> Option<usize> {
    parse_huge_page_bytes(&fs::read_to_string("/proc/meminfo").ok()?)
}

#[cfg(target_os = "linux")]
fn parse_huge_page_bytes(meminfo: &str) -> Option<usize> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
        .filter(|bytes| bytes.is_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds_what_was_written(mut arena: Arena) {
        assert!(arena.iter().all(|&byte| byte == 0));
        let mut rest = &mut *arena;
        let first = rest.split_off_mut(..1000).unwrap();
        let second = rest.split_off_mut(..1000).unwrap();
        first.fill(1);
        second.fill(2);
        assert_eq!(rest.len(), 1000);
        assert_eq!(arena.iter().map(|&byte| u32::from(byte)).sum::<u32>(), 3000);
    }

    #[test]
    fn is_zeroed_and_can_be_cut_to_slices() {
        holds_what_was_written(Arena::new(3000).unwrap());
    }

    #[test]
    fn normal_pages_are_as_good() {
        let arena = Arena::on_normal_pages(3000).unwrap();
        assert_eq!(arena.pages(), Pages::Normal);
        assert_eq!(arena.memory_bytes() % 4096, 0);
        holds_what_was_written(arena);
    }

    #[test]
    fn may_be_empty() {
        assert_eq!(Arena::new(0).unwrap().len(), 0);
    }

    #[test]
    fn too_much_is_an_error() {
        let bytes = usize::MAX / 4;
        assert_eq!(Arena::new(bytes).unwrap_err(), OutOfMemory { bytes });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn reads_the_huge_page_size() {
        let meminfo = "MemTotal: 16 kB\nHugepagesize:       2048 kB\nHugetlb: 0 kB\n";
        assert_eq!(parse_huge_page_bytes(meminfo), Some(2 << 20));
        assert_eq!(parse_huge_page_bytes("Hugepagesize: 3 kB"), None);
        assert_eq!(parse_huge_page_bytes("Hugepagesize: 2048"), None);
        assert_eq!(parse_huge_page_bytes("MemTotal: 16 kB"), None);
    }
}
