//! What the HTTP/2 connections of a core share, and take turns in using.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::connection::Http2Connection;
use super::limits::Http2Limits;

/// A larger buffer is not kept: it was for a body of unusual length.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// Connections and buffers that are not in use. Both are made when they are needed for the first time, and
/// kept.
pub(super) struct Pool {
    limits: Http2Limits,
    #[expect(clippy::vec_box, reason = "a connection stays where it is")]
    connections: RefCell<Vec<Box<Http2Connection>>>,
    connections_lent: Cell<usize>,
    buffers: RefCell<Vec<Vec<u8>>>,
    buffers_lent: Cell<usize>,
}

impl Pool {
    pub(super) fn new(limits: Http2Limits) -> Rc<Self> {
        Rc::new(Pool {
            limits,
            connections: RefCell::new(Vec::with_capacity(limits.connections_max)),
            connections_lent: Cell::new(0),
            buffers: RefCell::new(Vec::with_capacity(limits.buffers_max)),
            buffers_lent: Cell::new(0),
        })
    }

    /// A connection that has just begun, unless all are in use.
    pub(super) fn lend(self: &Rc<Self>) -> Option<Lease> {
        if self.connections_lent.get() == self.limits.connections_max {
            return None;
        }
        self.connections_lent.set(self.connections_lent.get() + 1);
        let kept = self.connections.borrow_mut().pop();
        let connection = kept.unwrap_or_else(|| Box::new(Http2Connection::new(&self.limits)));
        Some(Lease {
            connection: Some(connection),
            pool: Rc::clone(self),
        })
    }

    /// An empty buffer, unless all are in use.
    pub(super) fn lend_buffer(&self) -> Option<Vec<u8>> {
        if self.buffers_lent.get() == self.limits.buffers_max {
            return None;
        }
        self.buffers_lent.set(self.buffers_lent.get() + 1);
        Some(self.buffers.borrow_mut().pop().unwrap_or_default())
    }

    pub(super) fn take_back_buffer(&self, mut buffer: Vec<u8>) {
        self.buffers_lent.set(self.buffers_lent.get() - 1);
        if buffer.capacity() <= KEPT_BYTES_MAX {
            buffer.clear();
            self.buffers.borrow_mut().push(buffer);
        } else {
            self.buffers.borrow_mut().push(Vec::new());
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("connections_lent", &self.connections_lent)
            .field("buffers_lent", &self.buffers_lent)
            .finish_non_exhaustive()
    }
}

/// An HTTP/2 connection in use. It goes back to the pool with whatever it borrowed when it is dropped.
pub(in super::super) struct Lease {
    /// There until it is dropped.
    connection: Option<Box<Http2Connection>>,
    pool: Rc<Pool>,
}

impl Deref for Lease {
    type Target = Http2Connection;

    #[inline]
    fn deref(&self) -> &Http2Connection {
        let Some(connection) = &self.connection else {
            unreachable!("only a dropped lease has none");
        };
        connection
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut Http2Connection {
        let Some(connection) = &mut self.connection else {
            unreachable!("only a dropped lease has none");
        };
        connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.reset(&self.pool);
            self.pool
                .connections_lent
                .set(self.pool.connections_lent.get() - 1);
            self.pool.connections.borrow_mut().push(connection);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
