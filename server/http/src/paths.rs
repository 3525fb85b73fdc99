//! Finds a path among those of routes without parameters.

/// A hash table of paths, filled once. A client chooses what is looked up, but not what is in it: the
/// longest search is known when it is filled.
#[derive(Debug)]
pub(super) struct Paths {
    /// A power of two of slots, at least half of them empty; those that collide follow each other.
    slots: Box<[Slot]>,
    shift: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    index: u16,
}

/// What tells most paths apart, and all that are at most 16 bytes long: their ends and their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    first: u64,
    last: u64,
    len: usize,
}

/// The key of no path: every path has a length.
const EMPTY: Slot = Slot {
    key: Key {
        first: 0,
        last: 0,
        len: 0,
    },
    index: 0,
};

impl Key {
    #[inline]
    fn of(path: &[u8]) -> Self {
        let (first, last) = match (path.first_chunk(), path.last_chunk()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => {
                let whole = path
                    .iter()
                    .fold(0, |whole, byte| whole << 8 | u64::from(*byte));
                (whole, whole)
            }
        };
        Key {
            first,
            last,
            len: path.len(),
        }
    }

    /// Whether two paths with the same key are the same for sure.
    #[inline]
    fn is_whole(self) -> bool {
        self.len <= 16
    }

    /// The upper bits depend on all others.
    #[inline]
    fn hash(self) -> u64 {
        /// 2^64 divided by the golden ratio.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

        let ends = self.first.wrapping_mul(SPREAD).rotate_left(32) ^ self.last;
        (ends ^ self.len as u64).wrapping_mul(SPREAD)
    }
}

impl Paths {
    /// A table of `paths`, which all differ and are not empty, and their indices.
    pub(super) fn new<'p>(paths: impl ExactSizeIterator<Item = (&'p [u8], u16)>) -> Self {
        let count = (2 * paths.len()).next_power_of_two().max(2);
        let mut table = Paths {
            slots: vec![EMPTY; count].into(),
            shift: u64::BITS - count.ilog2(),
        };
        for (path, index) in paths {
            let key = Key::of(path);
            let mut at = table.home(key);
            while table.slots[at].key != EMPTY.key {
                at = table.after(at);
            }
            table.slots[at] = Slot { key, index };
        }
        table
    }

    /// The index of `path`, of which `path_of` is the inverse.
    #[inline]
    pub(super) fn find<'p>(&self, path: &[u8], path_of: impl Fn(u16) -> &'p [u8]) -> Option<u16> {
        let key = Key::of(path);
        let mut at = self.home(key);
        loop {
            let slot = &self.slots[at];
            if slot.key == key && (key.is_whole() || path_of(slot.index) == path) {
                return (key.len > 0).then_some(slot.index);
            }
            if slot.key.len == 0 {
                return None;
            }
            at = self.after(at);
        }
    }

    #[inline]
    fn home(&self, key: Key) -> usize {
        (key.hash() >> self.shift) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 64, 1000] {
            // Many that differ in the middle only, and short ones.
            let paths: Vec<_> = (0..count)
                .map(|n| match n % 3 {
                    0 => format!("/{n}"),
                    1 => format!("/items/{n:04}/description"),
                    _ => format!("/paths/{n}"),
                })
                .collect();
            let indexed = paths.iter().zip(0..).map(|(path, n)| (path.as_bytes(), n));
            let table = Paths::new(indexed.collect::<Vec<_>>().into_iter());
            let find = |path: &str| {
                table.find(path.as_bytes(), |index| {
                    paths[usize::from(index)].as_bytes()
                })
            };
            for (path, index) in paths.iter().zip(0..) {
                assert_eq!(find(path), Some(index));
                assert_eq!(find(&format!("{path}/")), None);
                assert_eq!(
                    find(&path.replace("/items/", "/atems/")),
                    (!path.starts_with("/items")).then_some(index)
                );
                assert_eq!(
                    find(&path.replace("/0", "/x")),
                    (!path.contains("/0")).then_some(index)
                );
            }
            for path in [
                "",
                "*",
                "/",
                "/items/000x/description",
                "/0000000000000000000000000000",
            ] {
                assert_eq!(find(path), None, "{path}");
            }
        }
    }
}
