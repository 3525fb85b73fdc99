//! The last request of a connection, for a client that repeats it.
//!
//! A client that sends a request again, as load generators, proxies and clients of APIs do, sends the same octets: all of
//! its fields are in the tables, each of them an index of one byte. Such a block changes neither table (RFC 7541,
//! section 6.1). So as long as nothing else has changed the dynamic one, the same block is the same list of fields, and
//! its head need not be put together anew.
//!
//! ```text
//!   block ─▶ the last one, and the table as it was then? ── yes ──▶ its head
//!                            │ no
//!                            ▼
//!                 decode, put together, check ──▶ head, kept if its block comes a second time
//! ```
//!
//! A block with a literal in it is never kept: neither does it repeat often, nor may the time that it takes tell what a
//! secret in it is (RFC 7541, section 7.1).

use crate::method::Method;
use crate::request::Request;
use crate::target::Target;

use super::head::{Head, NoHead, Space, read};
use super::hpack::Table;
use super::priority::Priority;

/// The longest head that is kept, in bytes: its target and its field lines.
const HEAD_BYTES_MAX: usize = 512;

/// See the documentation of the module.
#[derive(Debug)]
pub(super) struct Repeat {
    /// The last block, if it was a [`Block`], and how often the dynamic table had changed then.
    block: Option<Block>,
    table_changes: u64,
    /// What it was decoded to, if it has come twice.
    head: Option<Kept>,
    /// Path, query and field lines of that.
    bytes: [u8; HEAD_BYTES_MAX],
}

/// A block of indexed fields only, 4 to 16 of them, each one byte long. Fewer make no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Its first and last eight bytes, which overlap if it is shorter than 16; of one shorter than eight, its first and
    /// last four, twice.
    first: u64,
    last: u64,
    len: usize,
}

/// A head without its bytes, which end at these places.
#[derive(Debug, Clone, Copy)]
struct Kept {
    method: Method,
    path_end: u16,
    has_query: bool,
    query_end: u16,
    lines_end: u16,
    content_length: Option<u64>,
    content_coded: bool,
    expects_continue: bool,
    priority: Priority,
}

/// The head of `block`: the last one again, or decoded. A block that may be repeated comes with what is kept for that.
#[inline]
pub(super) fn recall<'a>(
    repeatable: Option<(&'a mut Repeat, Block)>,
    block: &[u8],
    table: &mut Table,
    space: &'a mut Space,
) -> Result<Head<'a>, NoHead> {
    let Some((repeat, key)) = repeatable else {
        return read(block, table, space);
    };
    let is_last = repeat.block == Some(key) && repeat.table_changes == table.changes();
    if let Some(kept) = repeat.head.filter(|_| is_last) {
        return Ok(kept.with(&repeat.bytes));
    }
    let head = read(block, table, space);
    if let Ok(head) = &head {
        repeat.block = Some(key);
        repeat.table_changes = table.changes();
        repeat.head = is_last.then(|| repeat.keep(head)).flatten();
    }
    head
}

impl Block {
    /// `None`: it has other fields, too, or is too short or long.
    #[inline]
    pub(super) fn of(block: &[u8]) -> Option<Block> {
        /// The bit of each byte that makes it an indexed field. An index of several bytes ends with one without it.
        const INDEXED: u64 = 0x8080_8080_8080_8080;

        let (first, last) = match (block.first_chunk(), block.last_chunk()) {
            (Some(first), Some(last)) if block.len() <= 16 => {
                (u64::from_ne_bytes(*first), u64::from_ne_bytes(*last))
            }
            (Some(_), _) => return None,
            _ => {
                let (first, last) = (block.first_chunk()?, block.last_chunk()?);
                let [first, last] = [first, last].map(|half| u32::from_ne_bytes(*half));
                let both = u64::from(first) << 32 | u64::from(last);
                (both, both)
            }
        };
        (first & last & INDEXED == INDEXED).then_some(Block {
            first,
            last,
            len: block.len(),
        })
    }
}

impl Repeat {
    /// Nothing has come yet.
    pub(super) fn nothing() -> Self {
        Repeat {
            block: None,
            table_changes: 0,
            head: None,
            bytes: [0; HEAD_BYTES_MAX],
        }
    }

    /// The next block is that of another connection.
    pub(super) fn forget(&mut self) {
        self.block = None;
        self.head = None;
    }

    /// Keeps a head, unless it is too long.
    fn keep(&mut self, head: &Head<'_>) -> Option<Kept> {
        let Request {
            method,
            target: Target { path, query },
            fields,
            ..
        } = head.request;
        let mut end = 0;
        let mut put = |part: &[u8]| {
            let space = self.bytes.get_mut(end..end + part.len())?;
            space.copy_from_slice(part);
            end += part.len();
            Some(end as u16)
        };
        Some(Kept {
            method,
            path_end: put(path)?,
            has_query: query.is_some(),
            query_end: put(query.unwrap_or_default())?,
            lines_end: put(fields)?,
            content_length: head.content_length,
            content_coded: head.content_coded,
            expects_continue: head.expects_continue,
            priority: head.priority,
        })
    }
}

impl Kept {
    #[inline]
    fn with(self, bytes: &[u8; HEAD_BYTES_MAX]) -> Head<'_> {
        let part = |from: u16, to: u16| &bytes[usize::from(from)..usize::from(to)];
        Head {
            request: Request {
                method: self.method,
                target: Target {
                    path: part(0, self.path_end),
                    query: (self.has_query).then(|| part(self.path_end, self.query_end)),
                },
                fields: part(self.query_end, self.lines_end),
                route: "",
            },
            content_length: self.content_length,
            content_coded: self.content_coded,
            expects_continue: self.expects_continue,
            priority: self.priority,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::{RngSeed, TestRunner};

    use super::*;
    use crate::limits::Limits;

    /// One end of a connection.
    struct End {
        table: Table,
        space: Space,
    }

    impl End {
        fn new() -> Self {
            End {
                table: Table::new(256),
                space: Space::new(&Limits::default()),
            }
        }

        fn read(&mut self, block: &[u8]) -> String {
            format!("{:?}", read(block, &mut self.table, &mut self.space))
        }

        /// The same with `repeat`, and whether that had the head already.
        fn recall(&mut self, block: &[u8], repeat: &mut Repeat) -> (String, bool) {
            let repeatable = Block::of(block).map(|key| (repeat, key));
            let memory = self.space.bytes().as_ptr_range();
            let head = recall(repeatable, block, &mut self.table, &mut self.space);
            let is_recalled = (head.as_ref())
                .is_ok_and(|head| !memory.contains(&head.request.target.path.as_ptr()));
            (format!("{head:?}"), is_recalled)
        }
    }

    /// GET `/` with `:authority: a`, which is inserted.
    const FIRST: &[u8] = b"\x82\x86\x84\x41\x01a";
    /// The same request.
    const AGAIN: &[u8] = b"\x82\x86\x84\xbe";

    #[test]
    fn only_short_blocks_of_one_byte_indices_are_kept() {
        assert_eq!(Block::of(AGAIN).map(|block| block.len), Some(4));
        assert!(Block::of(&[0x82; 4]).is_some() && Block::of(&[0x82; 16]).is_some());
        for len in 4..=16 {
            for at in 0..len {
                let mut block = vec![0xbe; len];
                block[at] = 0x7f;
                assert_eq!(Block::of(&block), None, "{at} of {len}");
                block[at] = 0xbf;
                assert_ne!(
                    Block::of(&block),
                    Block::of(&vec![0xbe; len]),
                    "{at} of {len}"
                );
            }
        }
        for block in [&[][..], &[0x82; 3], &[0x82; 17], FIRST] {
            assert_eq!(Block::of(block), None);
        }
        assert_ne!(Block::of(&[0x82; 4]), Block::of(&[0x82; 5]));
    }

    #[test]
    fn a_block_is_recalled_the_third_time_until_the_table_changes() {
        let (mut end, mut repeat) = (End::new(), Repeat::nothing());
        let mut recalls = |block: &[u8], host: &str| {
            let (head, is_recalled) = end.recall(block, &mut repeat);
            let fields = format!("{:?}", format!("host: {host}\r\n").as_bytes());
            assert!(head.contains(&fields), "{host}: {head}");
            is_recalled
        };
        assert!(!recalls(FIRST, "a"));
        assert_eq!(
            [(); 4].map(|()| recalls(AGAIN, "a")),
            [false, false, true, true]
        );
        // Another one in between.
        assert!(!recalls(b"\x83\x86\x84\xbe", "a"));
        assert_eq!([(); 3].map(|()| recalls(AGAIN, "a")), [false, false, true]);
        // A literal without indexing changes nothing.
        assert!(!recalls(b"\x82\x86\x84\x01\x01b", "b"));
        assert!(recalls(AGAIN, "a"));
        // One with indexing does: the same index is another host.
        assert!(!recalls(b"\x82\x86\x84\x41\x01c", "c"));
        assert_eq!([(); 3].map(|()| recalls(AGAIN, "c")), [false, false, true]);
        // So does a size update, even to the same size.
        assert!(!recalls(b"\x3f\xe1\x01\x82\x86\x84\x01\x01b", "b"));
        assert!(!recalls(AGAIN, "c"));
    }

    #[test]
    fn a_long_head_is_not_kept() {
        let (mut end, mut repeat) = (End::new(), Repeat::nothing());
        end.table = Table::new(4096);
        let mut block = vec![0x82, 0x86, 0x84, 0x41, 1, b'a', 0x7a, 0x7f, 0xff, 0x02];
        block.extend([b'x'; 127 + 383]);
        assert!(end.recall(&block, &mut repeat).0.starts_with("Ok"));
        for _ in 0..4 {
            let (head, is_recalled) = end.recall(b"\x82\x86\x84\xbf\xbe", &mut repeat);
            assert!(head.starts_with("Ok") && !is_recalled);
        }
    }

    /// A field of a block: an index, a literal that is inserted, one that is not, a size update.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let literal = |first: u8, indices: std::ops::Range<u8>| {
            (
                indices,
                prop::sample::select(vec!["a", "/b", "/c?d", "GET", "e f", ""]),
            )
                .prop_map(move |(name, value)| {
                    let mut field = vec![first | name, value.len() as u8];
                    field.extend(value.bytes());
                    field
                })
        };
        prop_oneof![
            2 => (1u8..70).prop_map(|index| vec![0x80 | index]),
            6 => prop::sample::select(vec![2u8, 3, 4, 6, 7, 62, 63, 64]).prop_map(|index| vec![0x80 | index]),
            2 => literal(0x40, 1..63),
            1 => literal(0x00, 1..15),
            1 => (0u8..31).prop_map(|size| vec![0x20 | size]),
        ]
    }

    /// Whatever a connection sends, its heads are those that are decoded without [`Repeat`].
    #[test]
    fn heads_are_the_same_as_without() {
        let blocks = prop::collection::vec(prop::collection::vec(field(), 0..6), 1..6);
        let order =
            prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 1..5), 1..12);
        let config = ProptestConfig {
            rng_seed: RngSeed::Fixed(7541),
            cases: 2000,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let recalled = Cell::new(0);
        let result = TestRunner::new(config).run(&(blocks, order), |(blocks, order)| {
            let (mut plain, mut end, mut repeat) = (End::new(), End::new(), Repeat::nothing());
            let blocks: Vec<Vec<u8>> = blocks.into_iter().map(|fields| fields.concat()).collect();
            prop_assert_eq!(end.recall(FIRST, &mut repeat).0, plain.read(FIRST));
            for (block, is_usual, times) in order {
                // Half of them are requests.
                let block = match is_usual {
                    true => *block.get(&[FIRST, AGAIN, AGAIN, b"\x82\x87\x84\xbe\x90"]),
                    false => block.get(&blocks),
                };
                for _ in 0..times {
                    let expected = plain.read(block);
                    let (head, is_recalled) = end.recall(block, &mut repeat);
                    prop_assert_eq!(&head, &expected);
                    recalled.set(recalled.get() + usize::from(is_recalled));
                    // The connection ends here.
                    if expected.contains("Undecoded") {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
        assert!(recalled.get() > 1000, "{recalled:?} heads were recalled");
    }
}
