//! Buffers that the connections of a core borrow.
//!
//! A connection borrows a buffer while part of a record or part of a message has arrived; an idle one has none. The
//! buffer that was returned last is lent first: a core works in few of them, and never touches memory that it has not
//! needed yet.

use std::cell::RefCell;
use std::rc::Rc;

/// Buffers of the same length.
#[derive(Debug)]
pub struct Pool {
    memory: Vec<u8>,
    buffer_bytes: usize,
    free: Rc<RefCell<Vec<u32>>>,
}

/// A buffer borrowed from a pool; dropping it returns it.
#[derive(Debug)]
pub struct Buffer {
    index: u32,
    free: Rc<RefCell<Vec<u32>>>,
}

impl Pool {
    /// `count` buffers of `buffer_bytes`. The kernel provides their pages when they are first written.
    pub fn new(count: u32, buffer_bytes: usize) -> Self {
        Pool {
            memory: vec![0; count as usize * buffer_bytes],
            buffer_bytes,
            free: Rc::new(RefCell::new((0..count).rev().collect())),
        }
    }

    /// Borrows the buffer that was returned last; `None` if all are lent.
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
        // The list never grows beyond its first length: nothing is allocated.
        self.free.borrow_mut().push(self.index);
    }
}
