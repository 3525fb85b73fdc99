//! The fields of responses that a client's dynamic table has (RFC 7541, section 2.3.2).
//!
//! Within a second, nearly all responses of a connection have the same `server`, `date` and `content-type`. The first one
//! inserts them into the client's table; the others refer to each by one byte. That makes the head of a small response
//! three times shorter, and saves the client more work than the server.
//!
//! ```text
//!   index   62 …            62 + n   63 + n
//!           content-types   date     server     older entries, which nothing refers to
//! ```
//!
//! `server` and `date` are inserted again each second, so that their indices follow from the number of content types
//! that were inserted behind them. All of it takes less than 600 bytes of the table.

use crate::content_type::ContentType;
use crate::date::ServerAndDate;

use super::hpack::STATIC_ENTRIES;

/// Most content types that are inserted within a second; further ones are literals.
const TYPES_MAX: usize = 4;
/// Longest literal of a content type that is inserted, in bytes.
const TYPE_BYTES_MAX: usize = 32;
/// The size of the client's table that the entries need, in bytes: its initial one.
const TABLE_BYTES_MIN: u32 = 4096;

/// See the documentation of the module.
#[derive(Debug)]
pub struct Indexed {
    /// The client's table was never smaller than [`TABLE_BYTES_MIN`].
    is_allowed: bool,
    /// Which `server` and `date` the table has, as [`ServerAndDate::generation`] counts them.
    generation: Option<u64>,
    /// The content types that were inserted behind them: literals, padded with zeros.
    types: [[u8; TYPE_BYTES_MAX]; TYPES_MAX],
    type_count: usize,
}

impl Indexed {
    /// Of a connection that has just begun.
    pub fn new() -> Self {
        Indexed {
            is_allowed: true,
            generation: None,
            types: [[0; TYPE_BYTES_MAX]; TYPES_MAX],
            type_count: 0,
        }
    }

    /// The client limits its table to `bytes` (SETTINGS_HEADER_TABLE_SIZE). Returns whether the next block has to begin
    /// with a size update: to 0, because the table is not used from here on.
    pub fn set_table_bytes(&mut self, bytes: u32) -> bool {
        let is_too_small = bytes < TABLE_BYTES_MIN;
        self.is_allowed &= !is_too_small;
        is_too_small
    }

    /// A block was made that is not sent: what it inserted is not in the table. The next one inserts everything again.
    pub fn forget(&mut self) {
        self.generation = None;
    }

    /// Writes `server` and `date` to the front of `space`, before any content type. Returns the length in bytes.
    #[inline]
    pub fn put_server_and_date(&mut self, fields: &ServerAndDate, space: &mut [u8]) -> usize {
        if self.is_allowed && self.generation == Some(fields.generation()) {
            // At most 68, which fits into the seven bits of an index.
            let date = 0x80 | (STATIC_ENTRIES + 1 + self.type_count) as u8;
            space[..2].copy_from_slice(&[date, date + 1]);
            return 1 + usize::from(fields.has_server());
        }
        let literals = match self.is_allowed {
            true => {
                self.generation = Some(fields.generation());
                self.type_count = 0;
                fields.block_to_index()
            }
            false => fields.block(),
        };
        space[..96].copy_from_slice(literals.padded());
        literals.len()
    }

    /// Writes `content-type` to the front of `space`. Returns the length in bytes.
    #[inline]
    pub fn put_content_type(&mut self, content_type: &ContentType, space: &mut [u8]) -> usize {
        let literal = content_type.block();
        let (front, rest) = literal.padded().split_at(TYPE_BYTES_MAX);
        let known = self.types[..self.type_count].iter().rev();
        let is_short = literal.len() <= TYPE_BYTES_MAX;
        if self.is_allowed && is_short {
            if let Some(age) = known.enumerate().find(|(_, known)| **known == *front) {
                space[0] = 0x80 | (STATIC_ENTRIES + 1 + age.0) as u8;
                return 1;
            }
            if self.type_count < TYPES_MAX {
                self.types[self.type_count].copy_from_slice(front);
                self.type_count += 1;
                // With incremental indexing, the name at 31; behind it the literal goes on as without.
                space[0] = 0x5f;
                space[1..TYPE_BYTES_MAX - 1].copy_from_slice(&front[2..]);
                return literal.len() - 1;
            }
        }
        space[..TYPE_BYTES_MAX].copy_from_slice(front);
        if !is_short {
            space[TYPE_BYTES_MAX..96].copy_from_slice(rest);
        }
        literal.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::hpack::{Table, decode};
    use super::*;

    /// A server, and the client's end of its table.
    struct Ends {
        indexed: Indexed,
        date: ServerAndDate,
        table: Table,
    }

    impl Ends {
        fn new() -> Self {
            Ends {
                indexed: Indexed::new(),
                date: ServerAndDate::new(),
                table: Table::new(4096),
            }
        }

        /// A block of the server's, and its fields as the client decodes it.
        fn block(&mut self, content_type: &ContentType) -> (usize, String) {
            let mut space = [0; 256];
            let mut len = self.indexed.put_server_and_date(&self.date, &mut space);
            len += (self.indexed).put_content_type(content_type, &mut space[len..]);
            let mut lines = Vec::new();
            let mut literal = [0; 256];
            let each = |field: super::super::hpack::Field<'_>| lines.extend_from_slice(field.line);
            decode(&space[..len], &mut self.table, &mut literal, each).unwrap();
            (len, String::from_utf8(lines).unwrap())
        }

        /// Expects the block that inserts all of its fields.
        fn expect_all(&mut self, content_type: &ContentType) {
            let head = self.date.block_to_index().len();
            self.expect(content_type, head + literal(content_type));
        }

        fn expect(&mut self, content_type: &ContentType, len: usize) {
            let (block_len, lines) = self.block(content_type);
            let head = String::from_utf8_lossy(self.date.fields().as_bytes()).into_owned();
            let mut expected: Vec<String> = head.lines().map(lower_name).collect();
            expected.push(format!("content-type: {}", content_type.as_str()));
            let mut lines: Vec<&str> = lines.lines().collect();
            lines.sort_unstable();
            expected.sort_unstable();
            assert_eq!(lines, expected);
            assert_eq!(block_len, len, "{lines:?}");
        }
    }

    fn lower_name(line: &str) -> String {
        let (name, value) = line.split_once(": ").unwrap();
        format!("{}: {value}", name.to_lowercase())
    }

    /// Length of a content type that is inserted; a literal without indexing is one byte longer.
    fn literal(content_type: &ContentType) -> usize {
        2 + content_type.as_str().len()
    }

    #[test]
    fn what_was_sent_before_is_one_byte() {
        let mut ends = Ends::new();
        ends.expect_all(ContentType::TEXT);
        ends.expect(ContentType::TEXT, 3);
        ends.expect(ContentType::JSON, 2 + literal(ContentType::JSON));
        ends.expect(ContentType::TEXT, 3);
        ends.expect(ContentType::JSON, 3);
    }

    #[test]
    fn each_second_begins_anew() {
        let mut ends = Ends::new();
        for second in 1..200 {
            ends.date.set(second);
            ends.expect_all(ContentType::HTML);
            ends.expect(ContentType::HTML, 3);
        }
    }

    #[test]
    fn without_server_there_is_one_field_less() {
        let mut ends = Ends::new();
        ends.date.set_server("").unwrap();
        ends.expect_all(ContentType::TEXT);
        ends.expect(ContentType::TEXT, 2);
        ends.date.set_server("other").unwrap();
        ends.expect_all(ContentType::TEXT);
        ends.expect(ContentType::TEXT, 3);
    }

    #[test]
    fn many_and_long_content_types_are_literals() {
        let mut ends = Ends::new();
        ends.block(ContentType::TEXT);
        for number in 0..10 {
            let content_type = ContentType::new(&format!("a/{number}")).unwrap();
            let name_bytes = if number + 1 < TYPES_MAX { 1 } else { 2 };
            let first = 2 + name_bytes + 1 + 3;
            ends.expect(&content_type, first);
            ends.expect(&content_type, if name_bytes == 1 { 3 } else { first });
        }
        ends.expect(ContentType::TEXT, 3);
        let long = ContentType::new(&format!("a/{}", "b".repeat(70))).unwrap();
        ends.expect(&long, 2 + 3 + 72);
    }

    #[test]
    fn a_small_table_is_not_used() {
        let mut ends = Ends::new();
        ends.block(ContentType::TEXT);
        assert!(!ends.indexed.set_table_bytes(4096));
        ends.expect(ContentType::TEXT, 3);
        assert!(ends.indexed.set_table_bytes(4095));
        ends.table.reset();
        for bytes in [4095, 8192] {
            ends.indexed.set_table_bytes(bytes);
            let head = ends.date.block().len();
            ends.expect(ContentType::TEXT, head + 1 + literal(ContentType::TEXT));
        }
    }

    #[test]
    fn a_block_that_is_not_sent_has_no_effect() {
        let mut ends = Ends::new();
        ends.block(ContentType::TEXT);
        let mut space = [0; 256];
        ends.indexed.put_server_and_date(&ends.date, &mut space);
        (ends.indexed).put_content_type(ContentType::JSON, &mut space);
        ends.indexed.forget();
        ends.expect_all(ContentType::JSON);
        ends.expect(ContentType::JSON, 3);
    }
}
