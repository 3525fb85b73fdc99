//! The senders of a shard. A connection has one while it has something in flight, and keeps it until another connection
//! needs it.
//!
//! ```text
//!   idle connection ─── segment arrives ──▶ has a sender ── all is acknowledged ──▶ keeps it
//!          ▲                                                                          │
//!          └────────────── another one needs it: what was learnt is remembered ───────┘
//! ```
//!
//! Up to one for each [`CONNECTIONS_PER_SENDER`] connections they stay where they are, so that a connection which is
//! often busy does not get a new one each time. Beyond that, they are taken from idle connections. There is one for every
//! connection if all of them have something in flight.

use super::Sender;
use crate::receiver::inbox::Inbox;
use crate::receiver::window::GrowingWindow;
use barewire_memory::{OutOfMemory, prefetch};

/// What a connection has while it is busy.
pub(crate) struct Busy {
    pub sender: Sender,
    /// How much the peer may send.
    pub window: GrowingWindow,
    /// What has arrived and the service has not taken.
    pub inbox: Inbox,
    connection: u32,
}

/// All senders of a shard.
pub(crate) struct Senders {
    slots: Vec<Option<Busy>>,
    unused: Vec<u32>,
    /// So many are kept by idle connections.
    kept_max: usize,
    /// The one that is looked at next when one has to be given back.
    hand: usize,
}

/// Of a connection that has no sender.
pub(crate) const NO_SENDER: u32 = u32::MAX;

const CONNECTIONS_PER_SENDER: usize = 16;
const KEPT_MIN: usize = 1_024;

impl Senders {
    /// Room for so many connections; the memory comes as it is used, in small pages.
    pub fn new(connections: usize) -> Result<Senders, OutOfMemory> {
        let out_of_memory = |_| OutOfMemory {
            bytes: Self::memory_bytes(connections),
        };
        let (mut slots, mut unused) = (Vec::new(), Vec::new());
        slots
            .try_reserve_exact(connections)
            .map_err(out_of_memory)?;
        unused
            .try_reserve_exact(connections)
            .map_err(out_of_memory)?;
        Ok(Senders {
            slots,
            unused,
            kept_max: Self::kept(connections),
            hand: 0,
        })
    }

    /// Bytes that senders for so many connections take at most.
    pub fn memory_bytes(connections: usize) -> usize {
        connections * (size_of::<Option<Busy>>() + size_of::<u32>())
    }

    /// Bytes of them that so many connections keep when all of them are idle.
    pub fn quiet_bytes(connections: usize) -> usize {
        Self::memory_bytes(Self::kept(connections).min(connections))
    }

    fn kept(connections: usize) -> usize {
        (connections / CONNECTIONS_PER_SENDER).max(KEPT_MIN)
    }

    /// Whether one can be taken without taking it from an idle connection.
    #[inline]
    pub fn has_spare(&self) -> bool {
        !self.unused.is_empty() || self.slots.len() < self.kept_max
    }

    /// Gives `connection` a sender.
    pub fn take(&mut self, connection: usize, sender: Sender, window: GrowingWindow) -> u32 {
        let busy = Some(Busy {
            sender,
            window,
            inbox: Inbox::new(),
            connection: connection as u32,
        });
        match self.unused.pop() {
            Some(handle) => {
                self.slots[handle as usize] = busy;
                handle
            }
            None => {
                self.slots.push(busy);
                self.slots.len() as u32 - 1
            }
        }
    }

    /// Takes back what a connection has, if it has something.
    pub fn give_back(&mut self, handle: &mut u32) -> Option<Busy> {
        let busy = self.slots.get_mut(*handle as usize)?.take();
        if busy.is_some() {
            self.unused.push(*handle);
        }
        *handle = NO_SENDER;
        busy
    }

    /// The same, of what is not needed any more.
    #[inline]
    pub fn release(&mut self, handle: &mut u32) {
        if let Some(slot) = self.slots.get_mut(*handle as usize)
            && slot.is_some()
        {
            *slot = None;
            self.unused.push(*handle);
        }
        *handle = NO_SENDER;
    }

    /// What a connection has, if it has something.
    #[inline]
    pub fn get(&self, handle: u32) -> Option<&Busy> {
        self.slots.get(handle as usize)?.as_ref()
    }

    /// See [`Senders::get`].
    #[inline]
    pub fn get_mut(&mut self, handle: u32) -> Option<&mut Busy> {
        self.slots.get_mut(handle as usize)?.as_mut()
    }

    /// A connection that has one; each in its turn.
    pub fn next_user(&mut self) -> Option<usize> {
        self.hand = if self.hand + 1 < self.slots.len() {
            self.hand + 1
        } else {
            0
        };
        let busy = self.slots.get(self.hand)?.as_ref()?;
        Some(busy.connection as usize)
    }

    /// Asks for the memory of what a connection has.
    #[inline]
    pub fn prefetch(&self, handle: u32) {
        if let Some(slot) = self.slots.get(handle as usize) {
            prefetch(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::{Remembered, Start};
    use barewire_service::time::Instant;

    fn lend(senders: &mut Senders, connection: usize) -> u32 {
        let start = Start {
            nxt: connection as u32,
            window: 1_000,
            window_seq: 1,
            mss: 1_000,
            has_sack: true,
            remembered: Remembered::default(),
        };
        let sender = Sender::new(&start, Instant::ZERO);
        senders.take(connection, sender, GrowingWindow::new(1_000, Instant::ZERO))
    }

    #[test]
    fn each_is_lent_once_and_again_when_it_is_back() {
        let mut senders = Senders::new(3).unwrap();
        let mut handles = [0, 1, 2].map(|connection| lend(&mut senders, connection));
        for (connection, &handle) in handles.iter().enumerate() {
            let busy = senders.get(handle).unwrap();
            assert_eq!(busy.sender.nxt(), connection as u32);
        }
        let freed = handles[1];
        assert!(senders.give_back(&mut handles[1]).is_some());
        assert_eq!(handles[1], NO_SENDER);
        assert!(senders.give_back(&mut handles[1]).is_none() && senders.get(NO_SENDER).is_none());
        assert_eq!(lend(&mut senders, 7), freed);
        let mut users: Vec<_> = (0..3).filter_map(|_| senders.next_user()).collect();
        users.sort_unstable();
        assert_eq!(users, [0, 2, 7]);
    }

    #[test]
    fn some_are_spare_before_a_quiet_connection_gives_its_own() {
        let mut senders = Senders::new(2 * KEPT_MIN).unwrap();
        let mut handles: Vec<_> = (0..KEPT_MIN)
            .map(|connection| {
                assert!(senders.has_spare());
                lend(&mut senders, connection)
            })
            .collect();
        assert!(!senders.has_spare());
        senders.give_back(&mut handles[5]);
        assert!(senders.has_spare());
        assert_eq!(
            Senders::quiet_bytes(10_000_000) / 10_000_000,
            Senders::memory_bytes(1) / 16
        );
    }
}
