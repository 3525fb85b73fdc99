//! Reads `{"userId": string, "value": number}` (RFC 8259) in one pass, without allocation.
//!
//! The fields may come in any order and among others, which are ignored whatever they hold; a name or
//! a string may be spelled with escapes; white space is where JSON allows it. Everything that is not
//! JSON is refused, as is everything that the event leaves open, such as a field that comes twice.
//!
//! Why not serde_json: it allocates for a string with an escape, for containers in each other and
//! for every error, and takes 95 to 135 ns where the whole event has 120. It judges this parser in
//! the tests instead: both accept the same bodies and read the same values from them. Where
//! arithmetic is needed, the standard library does it: a number that is not exact by construction is
//! given to `str::parse`, which rounds correctly.

use std::str;

use super::refusal::Refusal;

/// Containers that may be open in each other, the event itself included.
pub const DEPTH_MAX: u32 = u64::BITS;

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
/// The first [`Refusal`] on the way through the body.
#[inline]
pub fn parse<'a>(body: &'a [u8], scratch: &'a mut [u8]) -> Result<Event<'a>, Refusal> {
    let mut cursor = Cursor { bytes: body, at: 0 };
    let mut user_id = None;
    let mut value = None;

    match cursor.token()? {
        b'{' => cursor.at += 1,
        // Is it JSON at all?
        _ => return Err(cursor.skip_value().err().unwrap_or(Refusal::NotAnObject)),
    }
    if !cursor.eat_token(b'}')? {
        loop {
            match cursor.name()? {
                Name::UserId if user_id.is_some() => return Err(Refusal::UserIdTwice),
                Name::UserId => user_id = Some(cursor.user_id(scratch.len())?),
                Name::Value if value.is_some() => return Err(Refusal::ValueTwice),
                Name::Value => value = Some(cursor.value()?),
                Name::Other => cursor.skip_value()?,
            }
            if !cursor.goes_on(b'}')? {
                break;
            }
        }
    }
    cursor.end()?;

    let text = user_id.ok_or(Refusal::UserIdMissing)?;
    let value = value.ok_or(Refusal::ValueMissing)?;
    let user_id = if text.escaped {
        let len = unescape(text.raw, scratch).map_err(|error| match error {
            Unescape::Full => Refusal::UserIdTooLong,
            Unescape::Surrogate => Refusal::UserIdUnicode,
        })?;
        &scratch[..len]
    } else {
        text.raw
    };
    Ok(Event { user_id, value })
}

/// The part of the body that was not read yet.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What is between the quotation marks of a string.
#[derive(Clone, Copy)]
struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

/// The names of the fields as they are mostly spelled.
const USER_ID: &[u8] = b"\"userId\"";
const VALUE: &[u8] = b"\"value\"";

enum Name {
    UserId,
    Value,
    Other,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The first byte of the next token, not consumed; there has to be one.
    #[inline]
    fn token(&mut self) -> Result<u8, Refusal> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(byte) => return Ok(byte),
                None => return Err(Refusal::Syntax),
            }
        }
    }

    #[inline]
    fn eat_token(&mut self, byte: u8) -> Result<bool, Refusal> {
        let found = self.token()? == byte;
        self.at += usize::from(found);
        Ok(found)
    }

    /// After an element: whether a comma follows it, rather than the container's end.
    #[inline]
    fn goes_on(&mut self, end: u8) -> Result<bool, Refusal> {
        match self.token()? {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            byte if byte == end => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(Refusal::Syntax),
        }
    }

    /// Only white space may be left.
    #[inline]
    fn end(&mut self) -> Result<(), Refusal> {
        match self.token() {
            Ok(_) => Err(Refusal::Trailing),
            Err(_) => Ok(()),
        }
    }

    /// A field's name and the colon behind it.
    #[inline]
    fn name(&mut self) -> Result<Name, Refusal> {
        if self.token()? != b'"' {
            return Err(Refusal::Syntax);
        }
        let rest = &self.bytes[self.at..];
        let name = if rest.starts_with(USER_ID) {
            self.at += USER_ID.len();
            Name::UserId
        } else if rest.starts_with(VALUE) {
            self.at += VALUE.len();
            Name::Value
        } else {
            self.string()?.name()
        };
        if !self.eat_token(b':')? {
            return Err(Refusal::Syntax);
        }
        Ok(name)
    }

    #[inline]
    fn user_id(&mut self, bytes_max: usize) -> Result<Text<'a>, Refusal> {
        if self.token()? != b'"' {
            return Err(self.wrong_type(Refusal::UserIdType));
        }
        let text = self.string()?;
        if !text.escaped && text.raw.len() > bytes_max {
            return Err(Refusal::UserIdTooLong);
        }
        Ok(text)
    }

    #[inline]
    fn value(&mut self) -> Result<f64, Refusal> {
        match self.token()? {
            b'-' | b'0'..=b'9' => {
                let value = self.number()?.to_f64();
                value
                    .is_finite()
                    .then_some(value)
                    .ok_or(Refusal::ValueRange)
            }
            _ => Err(self.wrong_type(Refusal::ValueType)),
        }
    }

    /// `refusal`, if what stands here is JSON at all.
    #[cold]
    fn wrong_type(&mut self, refusal: Refusal) -> Refusal {
        self.skip_value().err().unwrap_or(refusal)
    }

    /// A string, from its opening quotation mark.
    #[inline]
    fn string(&mut self) -> Result<Text<'a>, Refusal> {
        self.at += 1;
        let start = self.at;
        let (mut escaped, mut ascii) = (false, true);
        loop {
            self.skip_plain();
            match self.peek() {
                Some(b'"') => {
                    let raw = &self.bytes[start..self.at];
                    if !ascii && str::from_utf8(raw).is_err() {
                        return Err(Refusal::Utf8);
                    }
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x80..) => {
                    ascii = false;
                    self.at += 1;
                }
                Some(0x20..) => self.at += 1,
                // Control characters have to be escaped.
                Some(_) | None => return Err(Refusal::Syntax),
            }
        }
    }

    /// Skips eight bytes at a time as long as they are ASCII and mean only themselves, and then up
    /// to the first that does not. Stops earlier where less than eight are left.
    #[inline]
    fn skip_plain(&mut self) {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        const HIGH: u64 = ONES << 7;
        while let Some(chunk) = self.bytes[self.at..].first_chunk() {
            let word = u64::from_le_bytes(*chunk);
            // Bytes smaller than `bound` borrow into their highest bit; the lowest that is marked is
            // marked rightly, and those behind it are looked at again.
            let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
            let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
            let marked = (word | below(word, 0x20) | equal(b'"') | equal(b'\\')) & HIGH;
            if marked != 0 {
                self.at += marked.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
    }

    /// One escape sequence, from its backslash: only its form is checked here.
    fn escape(&mut self) -> Result<(), Refusal> {
        let escape = &self.bytes[self.at + 1..];
        self.at += match escape {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|hex| hex.is_ascii_hexdigit()) => 6,
            _ => return Err(Refusal::Syntax),
        };
        Ok(())
    }

    /// A number, from its first byte, `-` or a digit.
    #[inline]
    fn number(&mut self) -> Result<Number<'a>, Refusal> {
        let start = self.at;
        let negative = self.eat(b'-');
        let mut significand = 0;
        let integer_digits = self.digits(&mut significand);
        let leading_zero = integer_digits > 1 && self.bytes[self.at - integer_digits] == b'0';
        if integer_digits == 0 || leading_zero {
            return Err(Refusal::Syntax);
        }
        let mut fraction_digits = 0;
        if self.eat(b'.') {
            fraction_digits = self.digits(&mut significand);
            if fraction_digits == 0 {
                return Err(Refusal::Syntax);
            }
        }
        let has_exponent = self.eat(b'e') || self.eat(b'E');
        if has_exponent {
            let _sign = self.eat(b'+') || self.eat(b'-');
            if self.digits(&mut 0) == 0 {
                return Err(Refusal::Syntax);
            }
        }
        Ok(Number {
            text: &self.bytes[start..self.at],
            negative,
            significand,
            digits: integer_digits + fraction_digits,
            fraction_digits,
            has_exponent,
        })
    }

    /// Consumes digits, appends them to `number` (modulo 2^64) and says how many there were.
    #[inline]
    fn digits(&mut self, number: &mut u64) -> usize {
        let start = self.at;
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            *number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            self.at += 1;
        }
        self.at - start
    }

    /// Any value. Keeps the kinds of the containers it is in as the bits of a word.
    fn skip_value(&mut self) -> Result<(), Refusal> {
        let mut depth = 0;
        let mut objects = 0u64;
        loop {
            match self.token()? {
                open @ (b'{' | b'[') => {
                    // The event is a container, too.
                    if depth == DEPTH_MAX - 1 {
                        return Err(Refusal::TooDeep);
                    }
                    self.at += 1;
                    depth += 1;
                    let is_object = open == b'{';
                    objects = objects << 1 | u64::from(is_object);
                    if !self.eat_token(if is_object { b'}' } else { b']' })? {
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                    depth -= 1;
                    objects >>= 1;
                }
                b'"' => _ = self.string()?,
                b'-' | b'0'..=b'9' => _ = self.number()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return Err(Refusal::Syntax),
            }
            // Behind a value: close containers until one goes on.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = objects % 2 == 1;
                if self.goes_on(if is_object { b'}' } else { b']' })? {
                    if is_object {
                        self.name()?;
                    }
                    break;
                }
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), Refusal> {
        if !self.bytes[self.at..].starts_with(literal) {
            return Err(Refusal::Syntax);
        }
        self.at += literal.len();
        Ok(())
    }
}

impl Text<'_> {
    /// Which field has this name.
    fn name(self) -> Name {
        let mut space = [0; 8];
        let name = match unescape(self.raw, &mut space) {
            Ok(len) => &space[..len],
            Err(Unescape::Full | Unescape::Surrogate) => return Name::Other,
        };
        match name {
            b"userId" => Name::UserId,
            b"value" => Name::Value,
            _ => Name::Other,
        }
    }
}

/// A number that follows the grammar.
struct Number<'a> {
    text: &'a [u8],
    negative: bool,
    /// All its digits as one integer, if there are no more than 19 of them.
    significand: u64,
    digits: usize,
    fraction_digits: usize,
    has_exponent: bool,
}

impl Number<'_> {
    /// The nearest `f64`, ties to even; infinite beyond the range.
    #[inline]
    fn to_f64(&self) -> f64 {
        /// The powers of ten that an `f64` holds exactly.
        const POWERS: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
            1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
        ];
        // Both operands are exact, so the division rounds once: correctly (Clinger 1990).
        let exact = self.digits <= 19 && self.significand <= 1 << f64::MANTISSA_DIGITS;
        if exact && !self.has_exponent {
            let magnitude = self.significand as f64 / POWERS[self.fraction_digits];
            return if self.negative { -magnitude } else { magnitude };
        }
        // The grammar is part of what `f64` reads, and digits are UTF-8.
        str::from_utf8(self.text)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(f64::NAN)
    }
}

/// Why a string could not be unescaped.
enum Unescape {
    /// It is longer than the space for it.
    Full,
    /// It has half of a surrogate pair.
    Surrogate,
}

/// Writes the characters of a string whose escapes are well-formed; returns their length in UTF-8.
fn unescape(mut raw: &[u8], space: &mut [u8]) -> Result<usize, Unescape> {
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        let end = len + bytes.len();
        let space = space.get_mut(len..end).ok_or(Unescape::Full)?;
        space.copy_from_slice(bytes);
        len = end;
        Ok(())
    };
    while let Some((&byte, rest)) = raw.split_first() {
        raw = rest;
        if byte != b'\\' {
            put(&[byte])?;
            continue;
        }
        let Some((&kind, rest)) = raw.split_first() else {
            break;
        };
        raw = rest;
        match kind {
            b'b' => put(b"\x08")?,
            b'f' => put(b"\x0c")?,
            b'n' => put(b"\n")?,
            b'r' => put(b"\r")?,
            b't' => put(b"\t")?,
            b'u' => {
                let character = unescape_unicode(&mut raw).ok_or(Unescape::Surrogate)?;
                put(character.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
            itself => put(&[itself])?,
        }
    }
    Ok(len)
}

/// The character that `XXXX`, or `XXXX\uXXXX` if that is a surrogate pair, stands for.
fn unescape_unicode(raw: &mut &[u8]) -> Option<char> {
    let first = code_unit(raw)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    *raw = raw.strip_prefix(b"\\u")?;
    let second = code_unit(raw)?;
    let low = second.checked_sub(0xdc00).filter(|&low| low < 0x400)?;
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10 | low))
}

fn code_unit(raw: &mut &[u8]) -> Option<u32> {
    let (digits, rest) = raw.split_at_checked(4)?;
    *raw = rest;
    digits.iter().try_fold(0, |unit, &digit| {
        Some(unit << 4 | char::from(digit).to_digit(16)?)
    })
}
