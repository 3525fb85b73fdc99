//! The parser by hand-picked bodies, and against serde_json by generated ones.

use proptest::prelude::*;
use serde::Deserialize;

use crate::events::Refusal::{self, *};
use crate::events::parse::{DEPTH_MAX, parse};

const USER_ID_BYTES_MAX: usize = 16;

fn read(body: impl AsRef<[u8]>) -> Result<(String, f64), Refusal> {
    let mut scratch = [0; USER_ID_BYTES_MAX];
    parse(body.as_ref(), &mut scratch).map(|event| {
        let user_id = std::str::from_utf8(event.user_id).unwrap();
        (user_id.to_owned(), event.value)
    })
}

fn accepts(body: &str, user_id: &str, value: f64) {
    let (found_id, found_value) = read(body).unwrap_or_else(|refusal| panic!("{body}: {refusal}"));
    assert_eq!(found_id, user_id, "{body}");
    assert_eq!(found_value.to_bits(), value.to_bits(), "{body}");
}

fn refuses(tests: &[(&str, Refusal)]) {
    for (body, refusal) in tests {
        assert_eq!(read(body), Err(*refusal), "{body}");
    }
}

#[test]
fn accepts_an_event_however_it_is_written() {
    accepts(r#"{"userId":"user_7","value":7.5}"#, "user_7", 7.5);
    accepts(r#"{"value":7,"userId":"user_7"}"#, "user_7", 7.0);
    accepts(
        " \t\r\n{ \"userId\" :\n\"a\"\t, \"value\" : 1 } \r\n",
        "a",
        1.0,
    );
    accepts(r#"{"user\u0049d":"a","\u0076alu\u0065":1}"#, "a", 1.0);
    accepts(
        r#"{"userId":"0123456789abcdef","value":1}"#,
        "0123456789abcdef",
        1.0,
    );
    accepts(r#"{"userId":"ключ","value":1}"#, "ключ", 1.0);
}

#[test]
fn ignores_other_fields_whatever_they_hold() {
    for other in [
        "null",
        "true",
        "false",
        "0",
        "-1.5e+300",
        "1e999",
        r#""""#,
        r#""\ud800""#,
        "[]",
        "{}",
        "[[],[{}]]",
        r#"{"userId":"x","value":"y"}"#,
        r#"[1, {"a": [null, {"b": "\"}"}], "c": 1} , 2]"#,
    ] {
        accepts(
            &format!(r#"{{"x":{other},"userId":"a","value":1}}"#),
            "a",
            1.0,
        );
        accepts(
            &format!(r#"{{"userId":"a","x": {other} ,"value":1}}"#),
            "a",
            1.0,
        );
        accepts(
            &format!(r#"{{"userId":"a","value":1,"x":{other}}}"#),
            "a",
            1.0,
        );
    }
    // Names that are almost ours, and one that is longer than the room for unescaping names.
    for name in [
        "userid",
        "userId ",
        "",
        "valu",
        "values",
        r"value\u0000",
        r"\ud800",
        r"long\u0020name",
    ] {
        accepts(
            &format!(r#"{{"{name}":2,"userId":"a","value":1}}"#),
            "a",
            1.0,
        );
    }
}

#[test]
fn resolves_escapes() {
    accepts(
        r#"{"userId":"\"\\\/\b\f\n\r\t","value":1}"#,
        "\"\\/\x08\x0c\n\r\t",
        1.0,
    );
    accepts(
        r#"{"userId":"\u0061\u00e9\u20AC\ud83d\ude00","value":1}"#,
        "aé€😀",
        1.0,
    );
    accepts(r#"{"userId":"\u0000","value":1}"#, "\0", 1.0);
    // Twice as long as the limit before its escapes are resolved.
    let escaped = r"\u0061".repeat(USER_ID_BYTES_MAX);
    accepts(
        &format!(r#"{{"userId":"{escaped}","value":1}}"#),
        &"a".repeat(USER_ID_BYTES_MAX),
        1.0,
    );
    refuses(&[
        (r#"{"userId":"\ud83d","value":1}"#, UserIdUnicode),
        (r#"{"userId":"\ud83dx","value":1}"#, UserIdUnicode),
        (r#"{"userId":"\ud83d\n","value":1}"#, UserIdUnicode),
        (r#"{"userId":"\ud83d\u0061","value":1}"#, UserIdUnicode),
        (r#"{"userId":"\ud83d\ud83d","value":1}"#, UserIdUnicode),
        (r#"{"userId":"\ude00","value":1}"#, UserIdUnicode),
        (r#"{"userId":"\x","value":1}"#, Syntax),
        (r#"{"userId":"\u12","value":1}"#, Syntax),
        (r#"{"userId":"\u12g4","value":1}"#, Syntax),
        (r#"{"userId":"\"#, Syntax),
        (r#"{"userId":"\u00"#, Syntax),
    ]);
}

#[test]
fn reads_numbers_as_the_nearest_float() {
    for number in [
        "0",
        "-0",
        "0.0",
        "-0.0e9",
        "1",
        "999.5",
        "-12.25",
        "9007199254740992",
        "9007199254740993",
        "0.1",
        "0.3",
        "123456789.123456789",
        "1e22",
        "1e23",
        "1E+2",
        "1e-2",
        "5e-324",
        "2e-324",
        "1e-400",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "0.000000000000000000000001",
        "10000000000000000000000000000000000000000",
        "18446744073709551616",
        "18446744073709551617",
        "2.2250738585072011e-308",
        "9007199254740992.5",
        "0.9007199254740993",
        "00e0",
    ] {
        let body = format!(r#"{{"userId":"a","value":{number}}}"#);
        if number == "00e0" {
            assert_eq!(read(&body), Err(Syntax));
        } else {
            accepts(&body, "a", number.parse().unwrap());
        }
    }
    let long = format!("0.{}1", "0".repeat(2_000));
    accepts(&format!(r#"{{"userId":"a","value":{long}}}"#), "a", 0.0);
    let halfway = format!("9007199254740993.{}1", "0".repeat(1_000));
    accepts(
        &format!(r#"{{"userId":"a","value":{halfway}}}"#),
        "a",
        9_007_199_254_740_994.0,
    );
}

#[test]
fn refuses_what_is_not_json() {
    for body in [
        "",
        " ",
        "{",
        "{}}",
        "}",
        "[",
        "{\"userId\"",
        "{\"userId\":",
        "{\"userId\":\"a",
        "nul",
        "tru",
        "x",
        r#"{"userId":"a","value":1"#,
        r#"{"userId":"a","value":1,}"#,
        r#"{,"userId":"a","value":1}"#,
        r#"{"userId":"a" "value":1}"#,
        r#"{"userId" "a","value":1}"#,
        r#"{"userId":"a",,"value":1}"#,
        r#"{userId:"a","value":1}"#,
        r#"{'userId':'a','value':1}"#,
        r#"{"userId":"a","value":1]"#,
        r#"{"userId":"a","value":1,"x":[1}}"#,
        r#"{"userId":"a","value":1,"x":{"y":1]}"#,
        r#"{"userId":"a","value":1,"x":[1,]}"#,
        r#"{"userId":"a","value":1,"x":{"y"}}"#,
        r#"{"userId":"a","value":1,"x":{1:1}}"#,
        r#"{"userId":"a","value":1,"x":}"#,
        r#"{"userId":"a","value":1,"x":truth}"#,
        r#"{"userId":"a","value":1 2}"#,
        "{\"userId\":\"a\nb\",\"value\":1}",
        "{\"userId\":\"a\0\",\"value\":1}",
        "\u{feff}{}",
        "{\"userId\":\"a\",\u{a0}\"value\":1}",
    ] {
        let expected = if body == "{}}" { Trailing } else { Syntax };
        assert_eq!(read(body), Err(expected), "{body}");
    }
    for number in [
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "-",
        "1.e5",
        "0x1",
        "1_000",
        "NaN",
        "Infinity",
        "-Infinity",
        "inf",
        "1,5",
        "١",
    ] {
        for field in ["value", "x"] {
            let body = format!(r#"{{"userId":"a","{field}":{number}}}"#);
            assert_eq!(read(&body), Err(Syntax), "{body}");
        }
    }
}

#[test]
fn refuses_what_is_not_an_event() {
    refuses(&[
        ("{}", UserIdMissing),
        (r#"{"value":1}"#, UserIdMissing),
        (r#"{"userId":"a"}"#, ValueMissing),
        (r#"{"x":{"userId":"a","value":1}}"#, UserIdMissing),
        ("null", NotAnObject),
        (r#"["a",1]"#, NotAnObject),
        (r#""userId""#, NotAnObject),
        ("17", NotAnObject),
        (r#"{"userId":1,"value":1}"#, UserIdType),
        (r#"{"userId":null,"value":1}"#, UserIdType),
        (r#"{"userId":["a"],"value":1}"#, UserIdType),
        (r#"{"userId":{},"value":1}"#, UserIdType),
        (r#"{"userId":[,"value":1}"#, Syntax),
        (r#"{"userId":"a","value":"1"}"#, ValueType),
        (r#"{"userId":"a","value":null}"#, ValueType),
        (r#"{"userId":"a","value":true}"#, ValueType),
        (r#"{"userId":"a","value":[1]}"#, ValueType),
        (r#"{"userId":"a","userId":"a","value":1}"#, UserIdTwice),
        (r#"{"userId":"a","value":1,"value":1}"#, ValueTwice),
        (r#"{"userId":"a","value":1,"\u0076alue":1}"#, ValueTwice),
        (r#"{"userId":"a","value":1e309}"#, ValueRange),
        (r#"{"userId":"a","value":-1e309}"#, ValueRange),
        (
            r#"{"userId":"a","value":1.7976931348623159e308}"#,
            ValueRange,
        ),
        (r#"{"userId":"","value":1}"#, UserIdEmpty),
        (r#"{"value":"1","userId":""}"#, ValueType),
        (r#"{"userId":"","userId":"a","value":1}"#, UserIdEmpty),
        (r#"{"userId":"","value":1,"x":"\n"}"#, UserIdEmpty),
        (r#"{"userId":"","value":1"#, Syntax),
        (r#"{"userId":"0123456789abcdefg","value":1}"#, UserIdTooLong),
        (
            r#"{"userId":"0123456789abcdef\n","value":1}"#,
            UserIdTooLong,
        ),
        (
            r#"{"userId":"0123456789abcde\u00e9","value":1}"#,
            UserIdTooLong,
        ),
        (r#"{"userId":"a","value":1}x"#, Trailing),
        (
            r#"{"userId":"a","value":1}{"userId":"a","value":1}"#,
            Trailing,
        ),
    ]);
    assert_eq!(read(b"{\"userId\":\"\xff\",\"value\":1}"), Err(Utf8));
    assert_eq!(
        read(b"{\"userId\":\"a\",\"value\":1,\"x\":\"\xc3\"}"),
        Err(Utf8)
    );
    assert_eq!(
        read(b"{\"userId\":\"\xed\xa0\x80\",\"value\":1}"),
        Err(Utf8)
    );
}

#[test]
fn bounds_the_nesting() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"x":{open}{close},"userId":"a","value":1}}"#)
    };
    let inside = DEPTH_MAX as usize - 1;
    accepts(&nested(inside), "a", 1.0);
    assert_eq!(read(nested(inside + 1)), Err(TooDeep));
    assert_eq!(read("[".repeat(100_000)), Err(TooDeep));
    assert_eq!(read(r#"{"x":"#.repeat(100_000)), Err(TooDeep));
    let mixed = r#"[{"y":"#.repeat(inside / 2) + "0" + &"}]".repeat(inside / 2);
    accepts(
        &format!(r#"{{"x":{mixed},"userId":"a","value":1}}"#),
        "a",
        1.0,
    );
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    user_id: String,
    value: f64,
}

/// Compares with what serde_json makes of the body.
fn judge(body: &[u8]) -> Result<(), TestCaseError> {
    let mut scratch = [0; 1 << 12];
    let found = parse(body, &mut scratch);
    let Ok(text) = std::str::from_utf8(body) else {
        prop_assert!(found.is_err());
        return Ok(());
    };
    // serde would also take the fields of a struct from an array.
    let is_array = text.trim_ascii_start().starts_with('[');
    match serde_json::from_str::<Expected>(text) {
        Ok(expected) if !is_array && !expected.user_id.is_empty() => {
            let found =
                found.map_err(|refusal| TestCaseError::fail(format!("{text}: {refusal}")))?;
            prop_assert_eq!(found.user_id, expected.user_id.as_bytes());
            prop_assert_eq!(found.value.to_bits(), expected.value.to_bits());
        }
        // serde_json unescapes names that it then ignores; half a surrogate pair is an error to it.
        Err(error) if error.to_string().contains("surrogate") => {}
        Err(error) if error.to_string().contains("end of hex escape") => {}
        _ => prop_assert!(found.is_err(), "{}", text),
    }
    Ok(())
}

fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ -~&&[^\"\\\\]]{0,6}",
        1 => "\\PC{0,4}".prop_map(|text| text.replace(['"', '\\'], "")),
        2 => prop::sample::select(vec![
            r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", r"\u0041", r"\u0000", r"\uFFFD",
            r"\ud83d\ude00", r"\u00e9",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| format!("{value:?}")),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| format!("{value}")),
        any::<i64>().prop_map(|value| value.to_string()),
        "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
        "[0-9.eE+-]{1,6}",
    ]
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned),
        number(),
        string(),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|all| format!("[{}]", all.join(" ,"))),
            prop::collection::vec((string(), inner), 0..4).prop_map(|fields| {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}"))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

/// Bodies that are events or nearly so.
fn body() -> impl Strategy<Value = String> {
    let user_id = (
        prop::sample::select(vec![r#""userId""#, r#""user\u0049d""#]),
        prop_oneof![4 => string(), 1 => any_json()],
    );
    let value = (
        prop::sample::select(vec![r#""value""#, r#""valu\u0065""#]),
        prop_oneof![4 => number(), 1 => any_json()],
    );
    let user_id = user_id.prop_map(|(name, value)| format!("{name}:{value}"));
    let value = value.prop_map(|(name, value)| format!("{name} : {value}"));
    let other = (string(), any_json()).prop_map(|(name, value)| format!("{name}\t: {value}"));
    (
        prop::collection::vec(user_id, 1..=2)
            .prop_filter("mostly one", |all| all.len() < 2 || all[0] < all[1]),
        prop::collection::vec(value, 1..=2)
            .prop_filter("mostly one", |all| all.len() < 2 || all[0] < all[1]),
        prop::collection::vec(other, 0..3),
    )
        .prop_map(|(user_id, value, other)| [user_id, value, other].concat())
        .prop_shuffle()
        .prop_map(|fields| format!(" {{{}}}\n", fields.join(", ")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn agrees_with_serde_json_on_events(body in body()) {
        judge(body.as_bytes())?;
    }

    #[test]
    fn agrees_with_serde_json_on_damaged_events(
        body in body(),
        damage in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                0..3_u8,
                prop::sample::select(b"{}[]\",:\\u0129.eE+-tn \n\x00\x1f\x7f\x80\xc3\xff".to_vec()),
            ),
            1..4,
        ),
    ) {
        let mut body = body.into_bytes();
        for (index, kind, byte) in damage {
            let at = index.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ if body.len() > 1 => _ = body.remove(at),
                _ => {}
            }
        }
        judge(&body)?;
    }

    #[test]
    fn agrees_with_serde_json_on_anything(body in prop_oneof![any_json(), "\\PC{0,20}"]) {
        judge(body.as_bytes())?;
    }

    #[test]
    fn takes_any_bytes(body in prop::collection::vec(any::<u8>(), 0..64)) {
        judge(&body)?;
    }
}
