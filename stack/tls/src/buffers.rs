//! Buffers that a core lends to its connections.
//!
//! A connection borrows one while half a record waits for its rest, or half a message for its own; one at rest has
//! none. They come back last in, first out, so that a core works in the same few of them, and memory that was never
//! needed is never touched.

use std::cell::RefCell;
use std::rc::Rc;

/// Buffers of the same length, as many as connections may need at once.
#[derive(Debug)]
pub struct Pool {
    memory: Vec<u8>,
    buffer_bytes: usize,
    free: Rc<RefCell<Vec<u32>>>,
}

/// A borrowed buffer of one pool, which goes back when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    index: u32,
    free: Rc<RefCell<Vec<u32>>>,
}

impl Pool {
    /// `count` buffers, whose pages are taken when they are touched.
    pub fn new(count: u32, buffer_bytes: usize) -> Self {
        Pool {
            memory: vec![0; count as usize * buffer_bytes],
            buffer_bytes,
            free: Rc::new(RefCell::new((0..count).rev().collect())),
        }
    }

    /// Borrows the buffer that came back last; `None` if all are lent.
    #[inline]
    pub fn take(&mut self) -> Option<Buffer> {
        let index = self.free.borrow_mut().pop()?;
        let free = Rc::clone(&self.free);
        Some(Buffer { index, free })
    }

    /// The whole of `buffer`.
    #[inline]
    pub fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        let start = buffer.index as usize * self.buffer_bytes;
        &mut self.memory[start..start + self.buffer_bytes]
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        // As long as it was before: nothing is allocated.
        self.free.borrow_mut().push(self.index);
    }
}
