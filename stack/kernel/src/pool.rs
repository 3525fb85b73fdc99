//! Buffers of equal size, allocated at start and lent to connections that have bytes to keep.
//!
//! An idle connection has none. A connection that is being served borrows a buffer, and keeps it only while
//! something is left in it: half a request, or a reply that the peer does not read. Buffers come back last in, first out, so that a core with thousands of connections still
//! works in the same few cache-warm ones, and memory that was never needed is never touched.

use std::io;
use std::sync::Arc;

use super::memory::Memory;

/// `count` buffers of the same length.
#[derive(Debug)]
pub struct Pool {
    memory: Arc<Memory>,
    buffer_bytes: usize,
    count: u32,
    free: Vec<u32>,
}

/// A borrowed buffer of one pool. It is moved, never copied, and has to go back with
/// [`Pool::release`].
#[derive(Debug)]
#[must_use]
pub struct Buffer(u32);

impl Pool {
    /// Takes the memory, without touching it.
    ///
    /// # Errors
    ///
    /// If the kernel does not grant that much.
    pub fn new(count: usize, buffer_bytes: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = count.checked_mul(buffer_bytes).ok_or_else(too_large)?;
        let count = u32::try_from(count).map_err(|_| too_large())?;
        Ok(Pool {
            memory: Arc::new(Memory::new(len)?),
            buffer_bytes,
            count,
            free: (0..count).rev().collect(),
        })
    }

    /// Borrows the buffer that came back last.
    ///
    /// # Panics
    ///
    /// If all are lent; a connection never borrows a second one, so there are always enough.
    #[inline]
    pub fn take(&mut self) -> Buffer {
        match self.free.pop() {
            Some(index) => Buffer(index),
            None => panic!("more buffers borrowed than there are connections"),
        }
    }

    /// Gives `buffer` back.
    #[inline]
    pub fn release(&mut self, buffer: Buffer) {
        self.free.push(buffer.0);
    }

    /// The whole of `buffer`, to write to.
    #[inline]
    pub fn bytes_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        // SAFETY: the part is initialised and within memory that lives as long as `self`. A buffer's
        // index is either free or in the one `Buffer` that stands for it, whose holder reaches it
        // only through the pool, which is borrowed exclusively here.
        unsafe { &mut *self.part(buffer) }
    }

    /// The whole of `buffer`, to read from.
    #[inline]
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        // SAFETY: as in `bytes_mut`; the pool is borrowed, so nobody writes to it.
        unsafe { &*self.part(buffer) }
    }

    /// Number of buffers that are lent.
    #[inline]
    pub fn lent(&self) -> usize {
        self.count as usize - self.free.len()
    }

    /// The memory of all buffers, for a kernel that reads from them on its own time.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    #[inline]
    fn part(&self, buffer: &Buffer) -> *mut [u8] {
        let start = buffer.0 as usize * self.buffer_bytes;
        self.memory.part(start..start + self.buffer_bytes)
    }
}
