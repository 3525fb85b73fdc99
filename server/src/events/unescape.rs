//! Strings of JSON as they are meant: RFC 8259, section 7, in a buffer of fixed size.

/// Why a string could not be unescaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnescapeError {
    /// It is longer than the space for it.
    TooLong,
    /// It has half of a surrogate pair, as in `\ud800`: not a character.
    Surrogate,
}

/// Writes what `raw`, the inside of a well-formed string, means to the front of `space`.
///
/// # Errors
///
/// If it does not fit, or is no Unicode.
pub fn unescape<'a>(raw: &str, space: &'a mut [u8]) -> Result<&'a [u8], UnescapeError> {
    let mut raw = raw.as_bytes();
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        let end = len + bytes.len();
        let space = space.get_mut(len..end).ok_or(UnescapeError::TooLong)?;
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
                let character = unicode(&mut raw).ok_or(UnescapeError::Surrogate)?;
                put(character.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
            itself => put(&[itself])?,
        }
    }
    Ok(&space[..len])
}

/// The character that `XXXX`, or `XXXX\uXXXX` if that is a surrogate pair, stands for.
fn unicode(raw: &mut &[u8]) -> Option<char> {
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
