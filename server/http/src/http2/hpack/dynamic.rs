//! The dynamic table of HPACK (RFC 7541, section 2.3.2): the fields that the peer has had indexed.

use super::{Class, Field};

/// Size of an entry beside its name and value, in bytes (RFC 7541, section 4.1).
const ENTRY_BYTES: usize = 32;
/// Length of a line beside name and value, in bytes: `: ` and CR LF.
const LINE_BYTES: usize = 4;

/// A dynamic table in memory of fixed size.
///
/// Entries are kept as lines of a field section, as requests have them, one behind the other in a ring that is
/// twice as long as all of them together, so that each is in one piece.
#[derive(Debug)]
pub struct Table {
    ring: Box<[u8]>,
    /// Where the next line begins.
    end: usize,
    entries: Box<[Entry]>,
    /// Entries inserted ever; the newest is the one before.
    inserted: usize,
    count: usize,
    size: usize,
    /// The size that the peer has set, in bytes; at most `bytes_max`.
    size_max: usize,
    bytes_max: usize,
    changes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: u32,
    len: u32,
    name_len: u32,
    class: Class,
}

const EMPTY: Entry = Entry {
    at: 0,
    len: 0,
    name_len: 0,
    class: Class::Malformed,
};

impl Table {
    /// An empty table of at most `bytes_max` bytes, as RFC 7541, section 4.1, counts them.
    pub fn new(bytes_max: usize) -> Self {
        let entries_max = (bytes_max / ENTRY_BYTES).next_power_of_two();
        Table {
            ring: vec![0; 2 * bytes_max].into(),
            end: 0,
            entries: vec![EMPTY; entries_max].into(),
            inserted: 0,
            count: 0,
            size: 0,
            size_max: bytes_max,
            bytes_max,
            changes: 0,
        }
    }

    /// How often it was changed: as long as this is the same, an index stands for the same field.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Removes all entries, and sets the size to the maximum.
    pub fn reset(&mut self) {
        self.resize(0);
        self.size_max = self.bytes_max;
    }

    /// The entry with this index; the newest one has the index 0.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Field<'_>> {
        if index >= self.count {
            return None;
        }
        let entry = &self.entries[self.slot(self.inserted.wrapping_sub(1 + index))];
        Some(Field {
            class: entry.class,
            line: &self.ring[entry.at as usize..][..entry.len as usize],
            name_len: entry.name_len,
        })
    }

    /// Adds a field, and evicts the oldest ones that have no room beside it.
    pub(super) fn insert(&mut self, field: Field<'_>) {
        self.changes += 1;
        let size = field.line.len() - LINE_BYTES + ENTRY_BYTES;
        self.shrink(self.size_max.saturating_sub(size));
        if size > self.size_max {
            return;
        }
        if self.end + field.line.len() > self.ring.len() {
            self.end = 0;
        }
        self.ring[self.end..][..field.line.len()].copy_from_slice(field.line);
        let slot = self.slot(self.inserted);
        self.entries[slot] = Entry {
            at: self.end as u32,
            len: field.line.len() as u32,
            name_len: field.name_len,
            class: field.class,
        };
        self.end += field.line.len();
        self.inserted = self.inserted.wrapping_add(1);
        self.count += 1;
        self.size += size;
    }

    /// Sets the size that the peer wants, in bytes. Returns false if it exceeds the maximum.
    #[must_use]
    pub(super) fn change_size(&mut self, size_max: usize) -> bool {
        let is_agreed = size_max <= self.bytes_max;
        if is_agreed {
            self.resize(size_max);
        }
        is_agreed
    }

    fn resize(&mut self, size_max: usize) {
        self.changes += 1;
        self.size_max = size_max;
        self.shrink(size_max);
    }

    /// Evicts the oldest entries until the rest takes at most `size` bytes.
    #[inline]
    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let oldest = self.slot(self.inserted.wrapping_sub(self.count));
            self.size -= self.entries[oldest].len as usize - LINE_BYTES + ENTRY_BYTES;
            self.count -= 1;
        }
    }

    #[inline]
    fn slot(&self, number: usize) -> usize {
        number & (self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(line: &str) -> Field<'_> {
        Field {
            class: Class::Ordinary,
            line: line.as_bytes(),
            name_len: line.find(':').unwrap() as u32,
        }
    }

    fn lines(table: &Table) -> Vec<String> {
        (0..)
            .map_while(|index| table.get(index))
            .map(|field| String::from_utf8(field.line.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_oldest_entries_give_way() {
        // Each entry takes 34 bytes.
        let mut table = Table::new(34 * 2 + 10);
        for (number, expected) in [
            (1, &["a: 1\r\n"][..]),
            (2, &["a: 2\r\n", "a: 1\r\n"]),
            (3, &["a: 3\r\n", "a: 2\r\n"]),
        ] {
            table.insert(field(&format!("a: {number}\r\n")));
            assert_eq!(lines(&table), expected);
        }
        assert!(table.change_size(34));
        assert_eq!(lines(&table), ["a: 3\r\n"]);
        assert!(!table.change_size(34 * 2 + 11));
        table.insert(field("a: 22\r\n"));
        assert_eq!(
            lines(&table),
            [""; 0],
            "what is too large empties the table"
        );
        table.reset();
        table.insert(field("a: 22\r\n"));
        assert_eq!(lines(&table), ["a: 22\r\n"]);
    }

    #[test]
    fn entries_stay_whole_however_often_the_ring_wraps() {
        let mut table = Table::new(200);
        let mut expected: Vec<String> = Vec::new();
        for number in 0..1000usize {
            let line = format!("name: {}\r\n", "x".repeat(number * 7 % 90));
            table.insert(field(&line));
            expected.insert(0, line);
            let mut size = 0;
            expected.retain(|line| {
                size += line.len() + 28;
                size <= 200
            });
            assert_eq!(lines(&table), expected);
        }
    }
}
