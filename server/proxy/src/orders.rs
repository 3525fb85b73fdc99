//! What is told to the cores of a proxy while they run.
//!
//! A core shares nothing with others, so that each has to do what is told by itself: in its next turn, before anything
//! that arrives in it. One that sleeps has to be woken by whoever gives the order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cache::Purge;
use crate::reload::Reload;

/// Orders that a core has not seen yet, at most.
const WAITING_MAX: usize = 64;

/// What a core is told to do.
#[derive(Debug, Clone)]
pub enum Order {
    /// Remove responses from the cache. The answer is how many there were.
    Purge(Purge),
    /// Go on by another table. The answer is 0.
    Reload(Arc<Reload>),
}

/// The orders for all cores; every clone is the same.
#[derive(Debug, Clone)]
pub struct Orders(Arc<[Mailbox]>);

#[derive(Debug, Default)]
struct Mailbox {
    has_some: AtomicBool,
    waiting: Mutex<VecDeque<(Order, SyncSender<usize>)>>,
}

impl Orders {
    /// For at most so many cores.
    pub fn new(cores_max: usize) -> Self {
        Orders((0..cores_max).map(|_| Mailbox::default()).collect())
    }

    /// Gives an order to the first `cores` of them. Each sends an answer when it has carried it out. `None` if one of them
    /// has not carried out 64 others yet; it is given to none then.
    pub fn give(&self, order: &Order, cores: usize) -> Option<Receiver<usize>> {
        let (answers, answered) = sync_channel(cores);
        let mailboxes = || self.0.iter().take(cores);
        let is_full = |mailbox: &Mailbox| mailbox.lock().len() >= WAITING_MAX;
        if mailboxes().any(is_full) {
            return None;
        }
        for mailbox in mailboxes() {
            mailbox.lock().push_back((order.clone(), answers.clone()));
            mailbox.has_some.store(true, Ordering::Release);
        }
        Some(answered)
    }

    /// The next order for a core. One load if there is none.
    #[inline]
    pub(crate) fn take(&self, core: usize) -> Option<(Order, SyncSender<usize>)> {
        let mailbox = self.0.get(core)?;
        if !mailbox.has_some.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = mailbox.lock();
        let next = waiting.pop_front();
        mailbox
            .has_some
            .store(!waiting.is_empty(), Ordering::Release);
        next
    }
}

impl Mailbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Order, SyncSender<usize>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
