//! Users on their way from the cores to whoever publishes them (see [`crate::fleet`]).
//!
//! Each core has a queue of fixed length for the users that it was the first to count, and never waits: a user that
//! finds it full is left out, and a flag says that the table of all users has to be read instead.
//!
//! ```text
//!   core 0 ──▶ queue ─┐                       each written by its core, read by one thread
//!   core n ──▶ queue ─┴─▶ publisher
//!      └── full ──▶ `missed` ──▶ the publisher reads the table of all users
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

use super::users::UserHash;

/// What one core writes.
#[derive(Debug)]
pub struct NewcomerSender {
    queue: Producer<(u64, UserHash)>,
    missed: Arc<AtomicBool>,
}

impl NewcomerSender {
    /// Sends a user who is new in `generation`. It is in the table of all users already.
    #[inline]
    pub fn send(&mut self, generation: u64, user: UserHash) {
        if self.queue.push((generation, user)).is_err() {
            self.missed.store(true, Ordering::Release);
        }
    }
}

/// What all cores sent.
#[derive(Debug)]
pub struct Newcomers {
    queues: Box<[Consumer<(u64, UserHash)>]>,
    missed: Arc<AtomicBool>,
}

impl Newcomers {
    /// A queue for each of `cores` cores, with place for `length` users.
    pub fn new(cores: usize, length: usize) -> (Vec<NewcomerSender>, Self) {
        let missed = Arc::new(AtomicBool::new(false));
        let queue = |_| {
            let (producer, consumer) = RingBuffer::new(length);
            let missed = Arc::clone(&missed);
            (
                NewcomerSender {
                    queue: producer,
                    missed,
                },
                consumer,
            )
        };
        let (senders, queues): (Vec<_>, Vec<_>) = (0..cores).map(queue).unzip();
        let queues = queues.into();
        (senders, Newcomers { queues, missed })
    }

    /// Takes up to `count` users of `generation`, and forgets those of earlier ones.
    pub fn take(&mut self, generation: u64, count: usize) -> Vec<UserHash> {
        let mut users = Vec::new();
        for queue in &mut self.queues {
            while users.len() < count
                && let Ok((of, user)) = queue.pop()
            {
                if of == generation {
                    users.push(user);
                }
            }
        }
        users
    }

    /// How many are waiting.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(Consumer::slots).sum()
    }

    /// Whether a user was left out since the last call.
    pub fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u64) -> UserHash {
        UserHash {
            high: number,
            low: number,
        }
    }

    #[test]
    fn a_full_queue_is_told_and_costs_nobody_else() {
        let (mut senders, mut newcomers) = Newcomers::new(2, 2);
        for number in 1..=3 {
            senders[0].send(0, user(number));
        }
        senders[1].send(0, user(4));
        assert!(newcomers.missed());
        assert!(!newcomers.missed());
        assert_eq!(newcomers.waiting(), 3);
        assert_eq!(newcomers.take(0, 2), [user(1), user(2)]);
        assert_eq!(newcomers.take(0, 2), [user(4)]);
    }

    #[test]
    fn users_from_before_a_reset_are_forgotten() {
        let (mut senders, mut newcomers) = Newcomers::new(1, 4);
        senders[0].send(0, user(1));
        senders[0].send(1, user(2));
        assert_eq!(newcomers.take(1, 4), [user(2)]);
        assert_eq!(newcomers.waiting(), 0);
    }
}
