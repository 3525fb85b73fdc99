//! The chunked transfer coding (RFC 9112, section 7.1), decoded as it arrives: of requests and of received responses.

use super::refusal::Refusal;
use super::scan::{is_text_byte, is_token_byte};

/// The place of the next byte in a chunked body. Kept between calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// Digits of this chunk's size so far.
    digits: u8,
    /// Bytes of all extensions and trailers so far.
    overhead: u16,
    /// Bytes of data that are left in this chunk; while its size is read, its value so far.
    remaining: u64,
}

/// The states of the grammar, one for each place between two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    Size,
    SizeDigits,
    /// In white space that only an extension may follow.
    BeforeSemicolon,
    /// Behind the semicolon of an extension.
    BeforeName,
    Name,
    /// In white space that a value or another extension must follow.
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    Escape,
    /// Behind a closing quote.
    AfterQuoted,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a trailer line or of the final empty one.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    FinalLf,
}

/// What a call to [`Chunked::advance`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The body continues after these bytes.
    More,
    /// The last `0` of the consumed bytes are data.
    Data(usize),
    /// The body is complete.
    End,
}

impl Default for Chunked {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunked {
    /// Most bytes of all extensions and trailers of a body together.
    pub const OVERHEAD_BYTES_MAX: u16 = 16 * 1024;

    /// As many digits as 64 bits have.
    const SIZE_DIGITS_MAX: u8 = 16;

    /// At the first byte of a body.
    pub fn new() -> Self {
        Chunked {
            state: State::Size,
            digits: 0,
            overhead: 0,
            remaining: 0,
        }
    }

    /// Reads on, to the end of `bytes`, of a piece of at most `data_max` bytes of data, or of the body.
    /// Returns how many bytes were consumed and what was found.
    ///
    /// # Errors
    ///
    /// If the body is malformed, or its extensions and trailers are too long.
    pub fn advance(&mut self, bytes: &[u8], data_max: usize) -> Result<(usize, Found), Refusal> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.state == State::Data {
                let available = (bytes.len() - at).min(data_max);
                let len = available.min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
                self.remaining -= len as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                return Ok((at + len, Found::Data(len)));
            }
            at += 1;
            if self.step(byte)? {
                return Ok((at, Found::End));
            }
        }
        Ok((at, Found::More))
    }

    /// Takes one byte that is not data. Returns true if it was the body's last.
    fn step(&mut self, byte: u8) -> Result<bool, Refusal> {
        use State::*;
        let next = match (self.state, byte) {
            (Size | SizeDigits, _) if byte.is_ascii_hexdigit() => self.digit(byte)?,
            (SizeDigits, b' ' | b'\t') => BeforeSemicolon,
            (SizeDigits, b'\r') => SizeLf,
            (SizeDigits, b';') => BeforeName,

            (BeforeSemicolon, b' ' | b'\t') => BeforeSemicolon,
            (BeforeSemicolon, b';') => BeforeName,
            (BeforeName, b' ' | b'\t') => BeforeName,
            (BeforeName | Name, _) if is_token_byte(byte) => Name,
            (Name | AfterName, b' ' | b'\t') => AfterName,
            (Name | AfterName, b'=') => BeforeValue,
            (BeforeValue, b' ' | b'\t') => BeforeValue,
            (BeforeValue, b'"') => Quoted,
            (BeforeValue | Value, _) if is_token_byte(byte) => Value,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => Escape,
            (Quoted | Escape, _) if is_text_byte(byte) => Quoted,
            (Value | AfterQuoted, b' ' | b'\t') => BeforeSemicolon,
            (Name | AfterName | Value | AfterQuoted, b';') => BeforeName,
            (Name | Value | AfterQuoted, b'\r') => SizeLf,

            (SizeLf, b'\n') if self.remaining == 0 => Trailer,
            (SizeLf, b'\n') => Data,
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => {
                self.digits = 0;
                Size
            }

            (Trailer, b'\r') => FinalLf,
            (Trailer | TrailerName, _) if is_token_byte(byte) => TrailerName,
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if is_text_byte(byte) => TrailerValue,
            (TrailerLf, b'\n') => Trailer,
            (FinalLf, b'\n') => return Ok(true),
            _ => return Err(Refusal::Chunked),
        };
        if !matches!(next, Size | SizeDigits | SizeLf | Data | DataLf | FinalLf) {
            self.overhead += 1;
            if self.overhead > Self::OVERHEAD_BYTES_MAX {
                return Err(Refusal::ChunkedOverhead);
            }
        }
        self.state = next;
        Ok(false)
    }

    fn digit(&mut self, byte: u8) -> Result<State, Refusal> {
        let value = char::from(byte).to_digit(16).unwrap_or_default();
        if self.digits == Self::SIZE_DIGITS_MAX {
            return Err(Refusal::Chunked);
        }
        self.digits += 1;
        self.remaining = self.remaining << 4 | u64::from(value);
        Ok(State::SizeDigits)
    }
}
