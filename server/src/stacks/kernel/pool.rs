//! Equal buffers, all taken at start, lent to whoever has bytes to keep.
//!
//! A connection at rest needs none; one that is being served borrows a buffer for the moment, and
//! keeps it only as long as something is left over: half a request, a reply that the peer does not
//! read. Buffers come back last in, first out, so that a core with thousands of connections still
//! works in the same few cache-warm ones, and memory that was never needed is never touched.

/// `count` buffers of the same length.
#[derive(Debug)]
pub struct Pool {
    memory: Vec<u8>,
    buffer_bytes: usize,
    free: Vec<u32>,
}

/// A borrowed buffer. It is moved, never copied, and has to go back with [`Pool::release`].
#[derive(Debug)]
#[must_use]
pub struct Buffer(u32);

impl Pool {
    /// Takes the memory, without touching it.
    pub fn new(count: usize, buffer_bytes: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Pool {
            memory: vec![0; count as usize * buffer_bytes],
            buffer_bytes,
            free: (0..count).rev().collect(),
        }
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

    /// The whole of `buffer`.
    #[inline]
    pub fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        let start = buffer.0 as usize * self.buffer_bytes;
        &mut self.memory[start..start + self.buffer_bytes]
    }

    /// Size of all buffers, in bytes of address space.
    pub fn size_bytes(&self) -> usize {
        self.memory.len()
    }
}
