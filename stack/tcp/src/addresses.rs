//! Addresses that a server begins to serve while it runs: one list for all of its shards.
//!
//! The thread that notices a new address adds it here first, and then lets frames to it in. A shard looks here before it
//! reads the frames that it has received, so it has every address that they can be for. Nothing is removed: an address
//! that the interface has lost receives nothing, and may come back.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::packet::Local;

/// The list, one for all shards of a server. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct NewAddresses(Arc<List>);

#[derive(Debug, Default)]
struct List {
    addresses: Mutex<Vec<IpAddr>>,
    /// How many there are: a shard compares this with what it has seen, without the lock.
    count: AtomicUsize,
}

impl NewAddresses {
    /// Makes every shard serve `address` from its next frame on.
    pub fn add(&self, address: IpAddr) {
        let mut addresses = self
            .0
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.push(address);
        self.0.count.store(addresses.len(), Ordering::Release);
    }
}

/// What one shard has seen of the list.
#[derive(Debug, Default)]
pub(crate) struct Learner {
    pub(crate) from: NewAddresses,
    seen: usize,
}

impl Learner {
    /// Adds to `local` what is new.
    #[inline]
    pub(crate) fn learn(&mut self, local: &mut Local) {
        if self.from.0.count.load(Ordering::Acquire) != self.seen {
            self.add_to(local);
        }
    }

    #[cold]
    fn add_to(&mut self, local: &mut Local) {
        let addresses = self.from.0.addresses.lock();
        let addresses = addresses.unwrap_or_else(PoisonError::into_inner);
        for &address in addresses.iter().skip(self.seen) {
            // The thread that added it has checked that it fits; an address that is there already stays.
            let _ = local.add_address(address);
        }
        self.seen = addresses.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_learns_each_address_once() {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let list = NewAddresses::default();
        let mut shards: Vec<_> = (0..2)
            .map(|_| {
                let from = list.clone();
                let learner = Learner { from, seen: 0 };
                (learner, Local::new(&[address(1)], &[80]).unwrap())
            })
            .collect();
        for new in [address(2), address(1), address(3)] {
            list.add(new);
            for (learner, local) in &mut shards {
                learner.learn(local);
                assert!(local.index_of(new).is_some());
            }
        }
        for (_, local) in &shards {
            let served: Vec<_> = local.addresses().collect();
            assert_eq!(served, [address(1), address(2), address(3)]);
        }
    }
}
