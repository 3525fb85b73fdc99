//! The place of a server in a fleet, as its state keeps it.
//!
//! Servers that count together publish an [`Entry`] for each *incarnation*: how many events it counted, and their sum.
//! An entry is replaced by a newer one and never added to another, so it does not matter how often one arrives.
//!
//! ```text
//!   events counted ──────────────────────────────────────────────▶
//!   incarnation 1   ├──────── saved ───┤├── saved ─┤                a server that stops in order goes on with its
//!   incarnation 2                                   ├── lost ──┤    incarnation; one that was killed begins another,
//!                                                   ▲               because what it last published is not known
//!                                                   base of 2
//! ```
//!
//! The counts of a server begin with what its state says, so an incarnation that begins with such counts publishes what
//! exceeds them: its `base`.

use super::ledger::Totals;
use super::sum::{ExactSum, LIMBS};

/// Longest name of a node, in bytes.
pub const NODE_BYTES_MAX: usize = 64;

/// Entries of earlier incarnations that a state keeps. There is one for each time that a server was killed although it
/// had counted something, while nobody took what it published.
pub const PENDING_MAX: usize = 256;

/// What one incarnation counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which; random, so that no two are the same.
    pub incarnation: u128,
    /// Rises with each publication.
    pub version: u64,
    /// Events.
    pub events: u64,
    /// The sum of their values, carried.
    pub sum: ExactSum,
}

/// The place of a server in a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The server's name.
    pub node: String,
    /// Resets of the fleet so far.
    pub epoch: u64,
    /// The incarnation that counts.
    pub incarnation: u128,
    /// The version of its last entry.
    pub version: u64,
    /// Whether the incarnation goes on counting behind what the state says. If so in a state that was just read, its
    /// server was killed.
    pub is_open: bool,
    /// The events that the incarnation began with, and their sum: they belong to others.
    pub base_events: u64,
    /// See `base_events`.
    pub base_sum: ExactSum,
    /// Entries of earlier incarnations that nobody has taken yet.
    pub pending: Vec<Entry>,
}

impl Membership {
    /// What the incarnation counted, if its server has counted `totals`.
    pub fn entry(&self, totals: &Totals) -> Entry {
        let mut sum = totals.sum.clone();
        let base = self.base_sum.limbs().map(|limb| -limb);
        sum.merge(0, &base);
        sum.carry();
        Entry {
            incarnation: self.incarnation,
            version: self.version,
            events: totals.events.saturating_sub(self.base_events),
            sum,
        }
    }

    /// Where the next process goes on that read this from a state, together with `totals`.
    pub fn go_on(mut self, totals: &Totals, incarnation: u128) -> Self {
        if self.is_open {
            let entry = self.entry(totals);
            if entry.events > 0 {
                self.pending.push(entry);
            }
            self.incarnation = incarnation;
            self.version = 0;
            self.base_events = totals.events;
            self.base_sum = totals.sum.clone();
            self.base_sum.carry();
        }
        self.is_open = true;
        self.version += 1;
        self
    }

    /// The same in the state of a server that has ended in order.
    pub fn closed(self) -> Self {
        Membership {
            is_open: false,
            ..self
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.push(self.node.len() as u8);
        out.extend(self.node.as_bytes());
        out.push(self.is_open.into());
        out.extend(self.epoch.to_le_bytes());
        let base = Entry {
            incarnation: self.incarnation,
            version: self.version,
            events: self.base_events,
            sum: self.base_sum.clone(),
        };
        for entry in std::iter::once(&base).chain(&self.pending) {
            out.extend(entry.incarnation.to_le_bytes());
            out.extend(entry.version.to_le_bytes());
            out.extend(entry.events.to_le_bytes());
            out.extend(entry.sum.limbs().iter().flat_map(|limb| limb.to_le_bytes()));
        }
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&length, rest) = bytes.split_first()?;
        let (node, rest) = rest.split_at_checked(length.into())?;
        let (&is_open, rest) = rest.split_first()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        const ENTRY_BYTES: usize = 16 + 8 + 8 + LIMBS * 8;
        let (entries, &[]) = rest.as_chunks::<ENTRY_BYTES>() else {
            return None;
        };
        let mut entries = entries.iter().map(|bytes| entry(bytes));
        let base = entries.next()??;
        let pending = entries.collect::<Option<Vec<_>>>()?;
        let node = String::from_utf8(node.to_vec()).ok()?;
        (is_node_name(&node) && is_open <= 1 && pending.len() <= PENDING_MAX).then_some(
            Membership {
                node,
                epoch: u64::from_le_bytes(*epoch),
                incarnation: base.incarnation,
                version: base.version,
                is_open: is_open == 1,
                base_events: base.events,
                base_sum: base.sum,
                pending,
            },
        )
    }
}

/// Whether `name` can be a node's: letters, digits, `.`, `_` and `-`.
pub fn is_node_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NODE_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let (incarnation, rest) = bytes.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (events, rest) = rest.split_first_chunk()?;
    let mut limbs = [0; LIMBS];
    for (limb, bytes) in limbs.iter_mut().zip(rest.as_chunks::<8>().0) {
        *limb = i64::from_le_bytes(*bytes);
        // Carried.
        i32::try_from(*limb).ok()?;
    }
    Some(Entry {
        incarnation: u128::from_le_bytes(*incarnation),
        version: u64::from_le_bytes(*version),
        events: u64::from_le_bytes(*events),
        sum: ExactSum::from_limbs(limbs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(values: &[f64]) -> Totals {
        let mut totals = Totals::ZERO;
        for &value in values {
            totals.events += 1;
            totals.sum.add(value);
        }
        totals
    }

    fn first() -> Membership {
        Membership {
            node: "a".into(),
            epoch: 3,
            incarnation: 1,
            version: 7,
            is_open: false,
            base_events: 0,
            base_sum: ExactSum::ZERO,
            pending: Vec::new(),
        }
    }

    #[test]
    fn a_server_that_stopped_goes_on_with_its_incarnation() {
        let member = first().go_on(&totals(&[0.1, 0.2]), 2);
        assert_eq!((member.incarnation, member.version), (1, 8));
        let entry = member.entry(&totals(&[0.1, 0.2, 0.3]));
        assert_eq!(entry.events, 3);
        assert!(member.is_open && member.pending.is_empty());
    }

    #[test]
    fn a_server_that_was_killed_begins_another_and_counts_nothing_twice() {
        let killed = Membership {
            is_open: true,
            ..first()
        };
        let member = killed.go_on(&totals(&[0.1, -0.2]), 2);
        assert_eq!((member.incarnation, member.version), (2, 1));
        let [pending] = &member.pending[..] else {
            panic!("one entry of incarnation 1: {:?}", member.pending);
        };
        assert_eq!((pending.incarnation, pending.events), (1, 2));
        let own = member.entry(&totals(&[0.1, -0.2, 0.3]));
        assert_eq!((own.events, own.sum.to_f64()), (1, 0.3));
        // It counted nothing of its own when it was saved: nothing is left of it if it is killed, too.
        let again = member.go_on(&totals(&[0.1, -0.2]), 3);
        assert_eq!(again.pending.len(), 1);
    }

    #[test]
    fn bytes_are_read_as_they_were_written() {
        let member = Membership {
            is_open: true,
            ..first()
        };
        let member = member.go_on(&totals(&[1e300, -1e-300]), u128::MAX);
        let bytes = member.to_bytes();
        assert_eq!(Membership::from_bytes(&bytes), Some(member));
        for length in 0..bytes.len() {
            let cut = Membership::from_bytes(&bytes[..length]);
            assert!(cut.is_none() || length == bytes.len() - 608, "{length}");
        }
    }
}
