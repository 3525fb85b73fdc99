//! How many connections all cores together may hold.
//!
//! The count is one atomic number that is touched when a connection begins and when it ends, never for a request. It is
//! exact: of two cores that want the last seat one gets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The seats of a server. All cores have the same.
#[derive(Debug)]
pub struct Seats {
    taken: AtomicU32,
    max: u32,
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<Seats>);

impl Seats {
    /// So many.
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Seats {
            taken: AtomicU32::new(0),
            max,
        })
    }

    /// Takes one, if one is left.
    pub fn take(self: &Arc<Self>) -> Option<Seat> {
        let more = |taken| (taken < self.max).then_some(taken + 1);
        let taken = self.taken.fetch_update(Relaxed, Relaxed, more);
        taken.ok().map(|_| Seat(Arc::clone(self)))
    }

    /// Whether none was left a moment ago.
    pub fn are_taken(&self) -> bool {
        self.taken() >= self.max
    }

    /// How many are taken.
    pub fn taken(&self) -> u32 {
        self.taken.load(Relaxed)
    }
}

/// Two are the same if it is one count.
impl PartialEq for Seats {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn threads_together_take_as_many_as_there_are() {
        let seats = Seats::new(1000);
        let kept: Vec<Vec<Seat>> = thread::scope(|scope| {
            let takes = || {
                // Some are given back in between.
                for _ in 0..1000 {
                    drop(seats.take());
                }
                (0..400).map_while(|_| seats.take()).collect()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(takes)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        // A seat that was given back in the meantime may have been missed, but none was given twice.
        let taken: usize = kept.iter().map(Vec::len).sum();
        assert!(taken <= 1000);
        assert_eq!(seats.taken() as usize, taken);
        let rest: Vec<Seat> = std::iter::from_fn(|| seats.take()).collect();
        assert_eq!(taken + rest.len(), 1000);
        assert!(seats.are_taken() && seats.take().is_none());
        drop((kept, rest));
        assert_eq!(seats.taken(), 0);
    }
}
