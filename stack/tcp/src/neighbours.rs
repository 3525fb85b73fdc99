//! Link-layer headers, each of them once: most connections of a core have theirs in common, that of the router.
//!
//! ```text
//!   connection ─ 4 bytes ─▶ [ header │ connections that have it ]
//!                                ▲
//!   received header, reversed ─ keyed hash
//! ```

use siphasher::sip::SipHasher13;

use crate::control::L2Header;
use crate::flow::{FlowHash, FlowTable};
use barewire_memory::OutOfMemory;

/// The headers in front of the packets of a shard's connections. There is a place for each connection, whose memory
/// comes when it is used.
pub(crate) struct Neighbours {
    entries: Vec<Entry>,
    unused: Vec<u32>,
    table: FlowTable,
    hasher: SipHasher13,
    /// The one that was given out last, and probably will be next.
    newest: u32,
}

#[derive(Debug)]
struct Entry {
    header: L2Header,
    connections: u32,
}

/// Of a connection that is over.
pub(crate) const NO_NEIGHBOUR: u32 = u32::MAX;

impl Neighbours {
    /// Room for the headers of so many connections. Who is on the link can choose them, so `key` must be secret.
    pub fn new(connections: usize, key: [u64; 2]) -> Result<Neighbours, OutOfMemory> {
        let out_of_memory = |_| OutOfMemory {
            bytes: Self::memory_bytes(connections),
        };
        let (mut entries, mut unused) = (Vec::new(), Vec::new());
        entries
            .try_reserve_exact(connections)
            .map_err(out_of_memory)?;
        unused
            .try_reserve_exact(connections)
            .map_err(out_of_memory)?;
        Ok(Neighbours {
            entries,
            unused,
            table: FlowTable::new(connections, key)?,
            hasher: SipHasher13::new_with_keys(key[0], key[1]),
            newest: NO_NEIGHBOUR,
        })
    }

    /// Bytes of memory for so many connections if each has a header of its own.
    pub fn memory_bytes(connections: usize) -> usize {
        connections * (size_of::<Entry>() + size_of::<u32>()) + FlowTable::memory_bytes(connections)
    }

    /// The header of a connection.
    #[inline]
    pub fn get(&self, neighbour: u32) -> &L2Header {
        &self.entries[neighbour as usize].header
    }

    /// Gives a connection `header`.
    pub fn take(&mut self, header: &L2Header) -> u32 {
        let entries = &mut self.entries;
        if let Some(entry) = entries.get_mut(self.newest as usize)
            && entry.connections > 0
            && entry.header == *header
        {
            entry.connections += 1;
            return self.newest;
        }
        let hash = FlowHash::of_bytes(&self.hasher, &header.key());
        if let Some(neighbour) = (self.table).get(hash, |at| entries[at as usize].header == *header)
        {
            entries[neighbour as usize].connections += 1;
            self.newest = neighbour;
            return neighbour;
        }
        let entry = Entry {
            header: *header,
            connections: 1,
        };
        let neighbour = match self.unused.pop() {
            Some(neighbour) => {
                entries[neighbour as usize] = entry;
                neighbour
            }
            None => {
                entries.push(entry);
                entries.len() as u32 - 1
            }
        };
        self.newest = neighbour;
        let listed = self.table.insert(hash, neighbour);
        debug_assert!(listed.is_ok(), "there are more headers than connections");
        neighbour
    }

    /// Takes its header from a connection that has one.
    pub fn release(&mut self, neighbour: &mut u32) {
        let Some(entry) = self.entries.get_mut(*neighbour as usize) else {
            return;
        };
        entry.connections -= 1;
        if entry.connections == 0 {
            let hash = FlowHash::of_bytes(&self.hasher, &entry.header.key());
            let was_listed = self.table.remove(hash, *neighbour);
            debug_assert!(was_listed, "a header was not in its table");
            self.unused.push(*neighbour);
        }
        *neighbour = NO_NEIGHBOUR;
    }

    /// Gives a connection the header of the way back of a frame that begins with `received`, if it has another one.
    ///
    /// # Panics
    ///
    /// As [`L2Header::reflect`].
    #[inline]
    pub fn follow(&mut self, neighbour: &mut u32, received: &[u8]) {
        if !self.get(*neighbour).is_way_back_of(received) {
            self.replace(neighbour, received);
        }
    }

    #[cold]
    fn replace(&mut self, neighbour: &mut u32, received: &[u8]) {
        // The old one first: there is a place for each connection, not for one more.
        self.release(neighbour);
        *neighbour = self.take(&L2Header::reflect(received));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame's header from the peer with this number.
    fn received(peer: u8) -> [u8; 14] {
        [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, peer, 8, 0]
    }

    fn neighbours(connections: usize) -> Neighbours {
        Neighbours::new(connections, [1, 2]).unwrap()
    }

    #[test]
    fn connections_of_one_neighbour_share_its_header() {
        let mut neighbours = neighbours(3);
        let mut taken = [1, 1, 2].map(|peer| neighbours.take(&L2Header::reflect(&received(peer))));
        assert_eq!(taken, [0, 0, 1]);
        assert!(neighbours.get(1).is_way_back_of(&received(2)));
        neighbours.release(&mut taken[0]);
        assert!(neighbours.get(taken[1]).is_way_back_of(&received(1)));
        neighbours.release(&mut taken[1]);
        assert_eq!(neighbours.take(&L2Header::reflect(&received(3))), 0);
        assert_eq!(neighbours.table.len(), 2);
    }

    #[test]
    fn a_neighbour_that_moves_takes_one_connection_with_it_and_no_more_room() {
        let mut neighbours = neighbours(2);
        let mut taken = [1, 2].map(|peer| neighbours.take(&L2Header::reflect(&received(peer))));
        for peer in 3..100 {
            neighbours.follow(&mut taken[0], &received(peer));
            assert!(neighbours.get(taken[0]).is_way_back_of(&received(peer)));
        }
        assert!(neighbours.get(taken[1]).is_way_back_of(&received(2)));
        neighbours.follow(&mut taken[1], &received(99));
        assert_eq!(taken[0], taken[1]);
        assert_eq!(neighbours.entries.len(), 2);
    }

    #[test]
    fn tagged_and_untagged_are_two() {
        let mut neighbours = neighbours(2);
        let mut tagged = received(1)[..12].to_vec();
        tagged.extend([0x81, 0, 0, 7, 8, 0]);
        let untagged = neighbours.take(&L2Header::reflect(&received(1)));
        assert_ne!(neighbours.take(&L2Header::reflect(&tagged)), untagged);
    }
}
