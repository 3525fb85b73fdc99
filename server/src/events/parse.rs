//! Reads `{"userId": string, "value": number}`, the string not empty, with serde_json, without allocation.
//!
//! serde_json decides what JSON is; this module decides what an event is. The fields may come in any
//! order and among others, which are ignored whatever they hold; names and strings may be spelled with
//! escapes. A field that comes twice is refused, as is everything else that an event leaves open.
//!
//! serde_json lends what stands in the body as it is meant. For the rest it has a buffer on the heap:
//! for strings with escapes, for numbers of more than 19 digits, and for containers in each other
//! that are ignored as a whole. It is never made to use it:
//!
//! * Strings of a body with escapes, and long numbers, are taken as [`RawValue`]s: serde_json checks
//!   them, says where they end and lends their text. Escapes are resolved in a buffer of fixed size,
//!   and numbers read by [`str::parse`], which rounds correctly, as does serde_json.
//! * Containers that are ignored are entered, one by one.
//!
//! For that, what a value is has to be known before serde_json is asked to read it: `Place` looks
//! ahead. So whatever is JSON is counted or refused without an allocation. For a body that is not, or that is
//! nested too deeply, serde_json makes errors of 40 bytes on the heap: two at most for the fault and
//! one for each container that is open there, at most two of them at a time. They are freed before
//! the refusal is returned.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::refusal::Refusal;
use super::unescape::{UnescapeError, unescape};

/// Containers that may be open in each other, the event itself included. serde_json goes to 127.
pub const DEPTH_MAX: u32 = 64;

/// One event, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event<'a> {
    /// Who.
    pub user_id: &'a [u8],
    /// How much; finite.
    pub value: f64,
}

/// Reads an event. `scratch` takes the user ID if it has to be unescaped; its length is the limit on
/// user IDs, escaped or not, in bytes of UTF-8.
///
/// # Errors
///
/// What is wrong with the body as JSON, if anything is; else the first thing in it that an event must
/// not have; else what it lacks.
#[inline]
pub fn parse<'a>(body: &'a [u8], scratch: &'a mut [u8]) -> Result<Event<'a>, Refusal> {
    let text = str::from_utf8(body).map_err(|_| Refusal::Utf8)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut reader = Reader::new(text);
    let read = if reader.place.look_ahead() == Some(b'{') {
        reader.place.enter();
        json.deserialize_map(&mut reader)
    } else {
        reader.refuse(Refusal::NotAnObject);
        Ignored(&mut reader.place).deserialize(&mut json)
    };
    match read {
        Ok(()) => json.end().map_err(|_| Refusal::Trailing)?,
        Err(_) if reader.place.is_too_deep() => return Err(Refusal::TooDeep),
        Err(_) => return Err(Refusal::Syntax),
    }
    reader.event(scratch)
}

/// Reads all fields of an event, also behind one that it refuses: what follows has to be JSON, too,
/// and to stop early would take an error on the heap.
struct Reader<'a> {
    place: Place<'a>,
    /// What is between the quotation marks.
    user_id: Option<&'a str>,
    value: Option<f64>,
    /// The first thing that an event must not have.
    refusal: Option<Refusal>,
}

enum Field {
    UserId,
    Value,
    Other,
}

impl<'a> Reader<'a> {
    #[inline]
    fn new(text: &'a str) -> Self {
        Reader {
            place: Place::at_start(text),
            user_id: None,
            value: None,
            refusal: None,
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    #[inline]
    fn read_user_id<A: MapAccess<'a>>(&mut self, fields: &mut A) -> Result<(), A::Error> {
        let is_string = self.place.look_ahead() == Some(b'"');
        if self.user_id.is_some() {
            self.refuse(Refusal::UserIdTwice);
        } else if is_string {
            let user_id = fields.next_value_seed(Quoted(&mut self.place))?;
            if user_id.is_empty() {
                self.refuse(Refusal::UserIdEmpty);
            }
            self.user_id = Some(user_id);
            return Ok(());
        } else {
            self.refuse(Refusal::UserIdType);
        }
        fields.next_value_seed(Ignored(&mut self.place))
    }

    #[inline]
    fn read_value<A: MapAccess<'a>>(&mut self, fields: &mut A) -> Result<(), A::Error> {
        let is_number = matches!(self.place.look_ahead(), Some(b'-' | b'0'..=b'9'));
        if self.value.is_some() {
            self.refuse(Refusal::ValueTwice);
        } else if is_number {
            let value = if self.place.is_short_number_ahead() {
                fields.next_value()?
            } else {
                // The grammar of JSON is part of what `f64` reads; beyond the range is infinity.
                let number = fields.next_value_seed(Verbatim(&mut self.place))?;
                number.parse().unwrap_or(f64::INFINITY)
            };
            if value.is_infinite() {
                self.refuse(Refusal::ValueRange);
            }
            self.value = Some(value);
            return Ok(());
        } else {
            self.refuse(Refusal::ValueType);
        }
        fields.next_value_seed(Ignored(&mut self.place))
    }

    #[inline]
    fn event(self, scratch: &'a mut [u8]) -> Result<Event<'a>, Refusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let user_id = self.user_id.ok_or(Refusal::UserIdMissing)?;
        let value = self.value.ok_or(Refusal::ValueMissing)?;
        let user_id = if self.place.has_escapes {
            unescape(user_id, scratch).map_err(|error| match error {
                UnescapeError::TooLong => Refusal::UserIdTooLong,
                UnescapeError::Surrogate => Refusal::UserIdUnicode,
            })?
        } else if user_id.len() <= scratch.len() {
            user_id.as_bytes()
        } else {
            return Err(Refusal::UserIdTooLong);
        };
        Ok(Event { user_id, value })
    }
}

impl<'de> Visitor<'de> for &mut Reader<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key_seed(Quoted(&mut self.place))? {
            match Field::named(name, self.place.has_escapes) {
                Field::UserId => self.read_user_id(&mut fields)?,
                Field::Value => self.read_value(&mut fields)?,
                Field::Other => fields.next_value_seed(Ignored(&mut self.place))?,
            }
        }
        Ok(())
    }
}

impl Field {
    #[inline]
    fn named(raw: &str, has_escapes: bool) -> Field {
        match raw.as_bytes() {
            b"userId" => Field::UserId,
            b"value" => Field::Value,
            _ if has_escapes => match unescape(raw, &mut [0; 6]) {
                Ok(b"userId") => Field::UserId,
                Ok(b"value") => Field::Value,
                Ok(_) | Err(_) => Field::Other,
            },
            _ => Field::Other,
        }
    }
}

/// What is between the quotation marks of a string, with its escapes.
struct Quoted<'r, 'a>(&'r mut Place<'a>);

impl<'de> DeserializeSeed<'de> for Quoted<'_, 'de> {
    type Value = &'de str;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<&'de str, D::Error> {
        let Quoted(place) = self;
        let raw = if place.has_escapes {
            let quoted = <&RawValue>::deserialize(json)?.get();
            let open = quoted.strip_prefix('"').unwrap_or(quoted);
            open.strip_suffix('"').unwrap_or(open)
        } else {
            <&str>::deserialize(json)?
        };
        place.pass(raw);
        place.at += 1;
        Ok(raw)
    }
}

/// A value without other values in it, as it is written.
struct Verbatim<'r, 'a>(&'r mut Place<'a>);

impl<'de> DeserializeSeed<'de> for Verbatim<'_, 'de> {
    type Value = &'de str;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<&'de str, D::Error> {
        let text = <&RawValue>::deserialize(json)?.get();
        self.0.pass(text);
        Ok(text)
    }
}

/// Any value, of which only its being JSON matters.
struct Ignored<'r, 'a>(&'r mut Place<'a>);

impl<'de> DeserializeSeed<'de> for Ignored<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Ignored(place) = self;
        if !matches!(place.look_ahead(), Some(b'[' | b'{')) {
            return Verbatim(place).deserialize(json).map(drop);
        }
        place.enter();
        if place.is_too_deep() {
            return Err(D::Error::custom(""));
        }
        json.deserialize_any(Ignored(place))?;
        place.leave();
        Ok(())
    }
}

impl<'de> Visitor<'de> for Ignored<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(()) = elements.next_element_seed(Ignored(self.0))? {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(_name) = fields.next_key_seed(Quoted(self.0))? {
            fields.next_value_seed(Ignored(self.0))?;
        }
        Ok(())
    }
}

/// How far serde_json has come.
///
/// It does not say so itself. But the texts that it lends are parts of the body, and between them
/// stand nothing but white space, separators and brackets. What is seen from here only decides how
/// serde_json is asked for a value; if that were the wrong way, serde_json would refuse.
struct Place<'a> {
    text: &'a str,
    at: usize,
    /// Containers that are open.
    depth: u32,
    /// Whether any string of the body may have escapes.
    has_escapes: bool,
}

impl<'a> Place<'a> {
    #[inline]
    fn at_start(text: &'a str) -> Self {
        Place {
            text,
            at: 0,
            depth: 0,
            has_escapes: has_backslash(text.as_bytes()),
        }
    }

    /// The first byte of the next value, name or closing bracket.
    #[inline]
    fn look_ahead(&mut self) -> Option<u8> {
        let ahead = self.text.as_bytes().get(self.at..)?;
        let between = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':');
        let skipped = ahead.iter().position(|byte| !between(byte))?;
        self.at += skipped;
        Some(ahead[skipped])
    }

    /// Whether the number ahead has at most 19 digits and no exponent: neither is serde_json's buffer
    /// needed for it, nor can it be out of range.
    #[inline]
    fn is_short_number_ahead(&self) -> bool {
        let ahead = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let within = |byte: &u8| matches!(byte, b'-' | b'.' | b'0'..=b'9');
        let end = ahead.iter().take(20).find(|byte| !within(byte));
        end.is_some_and(|byte| !matches!(byte, b'e' | b'E'))
    }

    /// Goes behind a part of the text.
    #[inline]
    fn pass(&mut self, part: &str) {
        let start = part.as_ptr().addr().wrapping_sub(self.text.as_ptr().addr());
        self.at = start.wrapping_add(part.len());
    }

    /// Goes behind the opening bracket that was seen.
    #[inline]
    fn enter(&mut self) {
        self.at += 1;
        self.depth += 1;
    }

    /// Goes behind the closing bracket.
    fn leave(&mut self) {
        self.look_ahead();
        self.at += 1;
        self.depth -= 1;
    }

    fn is_too_deep(&self) -> bool {
        self.depth > DEPTH_MAX
    }
}

/// Looks at every byte, so that the compiler can look at many at once: bodies are short.
#[inline]
fn has_backslash(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .fold(false, |found, &byte| found | (byte == b'\\'))
}
