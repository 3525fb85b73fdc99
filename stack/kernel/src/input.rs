//! What a connection has received and its service has not consumed.

use super::pool::{Buffer, Pool};

/// Unconsumed bytes, at the front of a buffer that is borrowed only while there are any.
#[derive(Debug, Default)]
pub struct Input {
    buffer: Option<Buffer>,
    len: usize,
}

impl Input {
    /// Whether nothing is kept.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of bytes kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What is kept.
    #[inline]
    pub fn bytes<'a>(&self, pool: &'a Pool) -> &'a [u8] {
        match &self.buffer {
            Some(buffer) => &pool.bytes(buffer)[..self.len],
            None => &[],
        }
    }

    /// The room behind what is kept. Call [`Input::grow`] when it was filled.
    #[inline]
    pub fn space<'a>(&mut self, pool: &'a mut Pool) -> &'a mut [u8] {
        let buffer = self.buffer.get_or_insert_with(|| pool.take());
        &mut pool.bytes_mut(buffer)[self.len..]
    }

    /// `count` bytes were written to the front of [`Input::space`].
    #[inline]
    pub fn grow(&mut self, count: usize) {
        self.len += count;
    }

    /// Keeps `bytes` behind the others; false if there is no room for them.
    #[must_use]
    pub fn append(&mut self, bytes: &[u8], pool: &mut Pool) -> bool {
        let fits = match self.space(pool).get_mut(..bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                true
            }
            None => false,
        };
        if fits {
            self.grow(bytes.len());
        }
        fits
    }

    /// Forgets the first `count` bytes, and gives the buffer back if none are left.
    #[inline]
    pub fn consume(&mut self, count: usize, pool: &mut Pool) {
        let kept = self.len;
        self.len -= count;
        match self.buffer.take() {
            Some(buffer) if self.len == 0 => pool.release(buffer),
            Some(buffer) => {
                if count > 0 {
                    pool.bytes_mut(&buffer).copy_within(count..kept, 0);
                }
                self.buffer = Some(buffer);
            }
            None => {}
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.consume(self.len, pool);
    }
}
