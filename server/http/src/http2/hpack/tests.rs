use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn decoded(block: &[u8], table: &mut Table) -> Result<Vec<String>, DecodeError> {
    let mut lines = Vec::new();
    decode(block, table, &mut [0; 4096], |field| {
        lines.push(String::from_utf8_lossy(field.line).trim_end().to_owned());
    })?;
    Ok(lines)
}

fn classes(block: &[u8]) -> Vec<Class> {
    let mut classes = Vec::new();
    decode(block, &mut Table::new(4096), &mut [0; 4096], |field| {
        classes.push(field.class);
    })
    .unwrap();
    classes
}

/// RFC 7541, appendix C.3: three requests on one connection; C.4 has them with Huffman coding.
#[test]
fn examples_of_the_rfc() {
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut table = Table::new(4096);
        let mut next = blocks.into_iter();
        let mut block = || decoded(&bytes(next.next().unwrap()), &mut table).unwrap();
        assert_eq!(
            block(),
            [
                ":method: GET",
                ":scheme: http",
                ":path: /",
                ":authority: www.example.com"
            ]
        );
        assert_eq!(
            block(),
            [
                ":method: GET",
                ":scheme: http",
                ":path: /",
                ":authority: www.example.com",
                "cache-control: no-cache"
            ]
        );
        assert_eq!(
            block(),
            [
                ":method: GET",
                ":scheme: https",
                ":path: /index.html",
                ":authority: www.example.com",
                "custom-key: custom-value"
            ]
        );
    }
}

#[test]
fn what_no_table_agrees_on_is_an_error() {
    for (name, block) in [
        ("index 0", "80"),
        ("an index beyond both tables", "be"),
        ("the name of an index beyond both tables", "7e 00"),
        ("an index that ends", "ff"),
        ("an integer without end", "ff ff ff ff ff ff 00"),
        ("a name that ends", "40 05 61"),
        ("a value that ends", "41 05 61"),
        ("no value", "41"),
        ("a table larger than agreed", "3f e2 1f"),
        ("a change of the table's size behind a field", "82 20"),
        ("three changes of the table's size", "20 20 20 82"),
        ("padding of zeros", "41 81 00"),
    ] {
        assert_eq!(
            decoded(&bytes(block), &mut Table::new(4096)),
            Err(DecodeError::Malformed),
            "{name}"
        );
    }
    let long = [b"\x00\x01a\x7f\x81\x1f".as_slice(), &[b'x'; 4096]].concat();
    assert_eq!(
        decoded(&long, &mut Table::new(4096)),
        Err(DecodeError::TooLong)
    );
}

#[test]
fn the_size_of_the_table_changes_at_the_beginning() {
    let mut table = Table::new(4096);
    decoded(&bytes("41 01 61"), &mut table).unwrap();
    assert_eq!(
        decoded(&bytes("be"), &mut table).unwrap(),
        [":authority: a"]
    );
    assert_eq!(
        decoded(&bytes("20 3f e1 1f 82"), &mut table).unwrap(),
        [":method: GET"]
    );
    assert!(decoded(&bytes("be"), &mut table).is_err(), "it was emptied");
}

#[test]
fn fields_are_classified() {
    let class = |name: &str, value: &str| {
        let mut block = vec![0x40];
        put_integer(name.len(), 7, 0, &mut block);
        block.extend_from_slice(name.as_bytes());
        put_integer(value.len(), 7, 0, &mut block);
        block.extend_from_slice(value.as_bytes());
        // Once as it is, once out of the table.
        block.push(0xbe);
        let classes = classes(&block);
        assert_eq!(classes[0], classes[1]);
        classes[0]
    };
    assert_eq!(class("a", ""), Class::Ordinary);
    assert_eq!(class("a", "b c\t\u{e9}"), Class::Ordinary);
    assert_eq!(class(":path", "/"), Class::Path);
    assert_eq!(class("te", "trailers"), Class::Ordinary);
    assert_eq!(class("cookie", "a=b"), Class::Cookie);
    for (name, value) in [
        ("A", "b"),
        ("", "b"),
        ("a b", "c"),
        ("a:", "c"),
        (":status", "200"),
        (":protocol", "websocket"),
        ("a", "b\r\nc: d"),
        ("a", "b\0"),
        ("a", " b"),
        ("a", "b\t"),
        ("te", "gzip"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
    ] {
        assert_eq!(class(name, value), Class::Malformed, "{name:?}: {value:?}");
    }
    // A name is not spoilt by the value that it came with.
    assert_eq!(
        classes(b"\x40\x01a\x01\0\x7e\x01b"),
        [Class::Malformed, Class::Ordinary]
    );
}

#[test]
fn what_is_written_can_be_read() {
    let mut block = Vec::new();
    put_with_name(33, b"Sun, 06 Nov 1994 08:49:37 GMT", &mut block);
    put(b"X-Long", &[b'x'; 500], &mut block);
    let lines = decoded(&block, &mut Table::new(0)).unwrap();
    assert_eq!(lines[0], "date: Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(lines[1], format!("x-long: {}", "x".repeat(500)));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7541), ..ProptestConfig::default() })]

    /// Whatever arrives, the table keeps its size and nothing panics.
    #[test]
    fn any_bytes(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
        let mut table = Table::new(256);
        for block in blocks {
            if decode(&block, &mut table, &mut [0; 128], |_| {}).is_err() {
                break;
            }
        }
        let size: usize = (0..)
            .map_while(|index| table.get(index))
            .map(|field| field.line.len() + 28)
            .sum();
        prop_assert!(size <= 256);
    }
}
