//! HPACK (RFC 7541): decodes field blocks into field lines of HTTP/1.
//!
//! ```text
//!   82 86 84 41 0f …  ──▶  decode  ──▶  Field { class, "content-type: text/plain\r\n" }
//!                            │ ▲
//!                            ▼ │  static table, dynamic table: lines, too
//! ```
//!
//! A field is validated and classified once, when it arrives as a literal. An entry of a table is valid, and costs a
//! copy. Nothing is allocated: literals are decoded into memory that the connections of a core share.

mod dynamic;
mod fixed;
mod huffman;

pub use dynamic::Table;

use crate::scan::{is_token_byte, text_end};
use crate::target::is_authority;

/// The meaning of a field for the responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "they are the names of fields")]
pub enum Class {
    /// A field for handlers.
    Ordinary,
    Method,
    Path,
    /// `http` or `https`, in any case.
    Scheme,
    OtherScheme,
    /// A host and perhaps a port.
    Authority,
    OtherAuthority,
    Host,
    ContentLength,
    ContentEncoding,
    Cookie,
    Expect,
    Priority,
    /// A field that makes a request malformed (RFC 9113, sections 8.2 and 8.3): its name is no token in lower case, its
    /// value has a line end, it is a pseudo-header field that requests do not have, or a field of the connection.
    Malformed,
}

/// A field: its name, `: `, its value and a line end.
///
/// It is handed on for each field of a request, and has no padding: a copy of bytes in between would be made of
/// overlapping moves, and whoever reads it at once would wait for them.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Its meaning.
    pub class: Class,
    /// The whole line.
    pub line: &'a [u8],
    /// Length of the name.
    pub name_len: u32,
}

impl<'a> Field<'a> {
    /// Its name; that of a pseudo-header field begins with a colon.
    pub fn name(&self) -> &'a [u8] {
        &self.line[..self.name_len as usize]
    }

    /// Its value.
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        &self.line[self.name_len as usize + 2..self.line.len() - 2]
    }
}

/// Why a block cannot be decoded. Later blocks of the connection cannot be either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// It violates RFC 7541.
    Malformed,
    /// A field is longer than the memory for one.
    TooLong,
}

/// Size updates that a block may begin with: the smallest size and the last one (RFC 7541, section 4.2).
const SIZE_CHANGES_MAX: usize = 2;

/// Calls `each` with the fields of a block, in order. Literals are decoded into `literal`.
///
/// # Errors
///
/// If the block is malformed or a field too long; `table` differs from that of the peer then.
#[inline]
pub fn decode(
    mut block: &[u8],
    table: &mut Table,
    literal: &mut [u8],
    mut each: impl FnMut(Field<'_>),
) -> Result<(), DecodeError> {
    for _ in 0..SIZE_CHANGES_MAX {
        if let [0x20..=0x3f, ..] = block
            && !table.change_size(integer(&mut block, 5)?)
        {
            return Err(DecodeError::Malformed);
        }
    }
    // Each is called, and put together, in one place, where both are compiled into this loop.
    while let Some(&first) = block.first() {
        let field = match first {
            0x80.. => {
                let index = integer(&mut block, 7)?;
                indexed(index, table)?
            }
            // Without indexing, or never indexed, which matters only to intermediaries; or with it.
            0x00..0x20 | 0x40..0x80 => {
                let is_remembered = first >= 0x40;
                let bits = if is_remembered { 6 } else { 4 };
                let field = put_together(&mut block, bits, table, literal)?;
                if is_remembered {
                    table.insert(field);
                }
                field
            }
            0x20..0x40 => return Err(DecodeError::Malformed),
        };
        each(field);
    }
    Ok(())
}

#[inline(always)]
fn indexed(index: usize, table: &Table) -> Result<Field<'_>, DecodeError> {
    let Some(at) = index.checked_sub(1) else {
        return Err(DecodeError::Malformed);
    };
    match fixed::ENTRIES.get(at) {
        Some(field) => Ok(*field),
        None => table
            .get(at - fixed::ENTRIES.len())
            .ok_or(DecodeError::Malformed),
    }
}

/// A field of which at least the value is given, the index of its name in the lower `bits`.
#[inline(always)]
fn put_together<'l>(
    block: &mut &[u8],
    bits: u32,
    table: &Table,
    literal: &'l mut [u8],
) -> Result<Field<'l>, DecodeError> {
    let (name_len, class) = match integer(block, bits)? {
        0 => {
            let len = string(block, literal)?;
            (len, classify(&literal[..len]))
        }
        index => {
            let field = indexed(index, table)?;
            let name = field.name();
            literal
                .get_mut(..name.len())
                .ok_or(DecodeError::TooLong)?
                .copy_from_slice(name);
            let class = match field.class {
                // Perhaps only because of the value.
                Class::Malformed | Class::OtherScheme | Class::OtherAuthority => classify(name),
                class => class,
            };
            (name.len(), class)
        }
    };
    let value_at = name_len + 2;
    let space = literal.get_mut(value_at..).ok_or(DecodeError::TooLong)?;
    let value_len = string(block, space)?;
    let len = value_at + value_len + 2;
    let line = literal.get_mut(..len).ok_or(DecodeError::TooLong)?;
    line[name_len..value_at].copy_from_slice(b": ");
    line[len - 2..].copy_from_slice(b"\r\n");
    let value = &line[value_at..len - 2];
    let class = match class {
        _ if !is_valid_value(class, name_len, value) => Class::Malformed,
        Class::Scheme if !is_web(value) => Class::OtherScheme,
        Class::Authority if value.is_empty() || !is_authority(value, 0..value.len()) => {
            Class::OtherAuthority
        }
        class => class,
    };
    Ok(Field {
        class,
        line,
        name_len: name_len as u32,
    })
}

/// RFC 9113, section 8.2.1: no control characters, no white space around it. `te` may only say `trailers`
/// (section 8.2.2).
#[inline]
fn is_valid_value(class: Class, name_len: usize, value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_te = class == Class::Ordinary && name_len == 2;
    text_end(value, 0) == value.len()
        && !is_space(value.first())
        && !is_space(value.last())
        && (!is_te || value == b"trailers" || value.is_empty())
}

fn is_web(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
}

/// The class of a field with this name whose value is valid.
fn classify(name: &[u8]) -> Class {
    match name {
        b":method" => Class::Method,
        b":path" => Class::Path,
        b":scheme" => Class::Scheme,
        b":authority" => Class::Authority,
        b"host" => Class::Host,
        b"content-length" => Class::ContentLength,
        b"content-encoding" => Class::ContentEncoding,
        b"cookie" => Class::Cookie,
        b"expect" => Class::Expect,
        b"priority" => Class::Priority,
        b"" | b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
        | b"upgrade" => Class::Malformed,
        _ if name
            .iter()
            .all(|byte| is_token_byte(*byte) && !byte.is_ascii_uppercase()) =>
        {
            Class::Ordinary
        }
        _ => Class::Malformed,
    }
}

/// Reads an integer (RFC 7541, section 5.1) that begins in the lower `bits` of the next byte. One of more than 28 bits
/// is refused: nothing is so long.
#[inline]
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, DecodeError> {
    let (first, rest) = block.split_first().ok_or(DecodeError::Malformed)?;
    *block = rest;
    let prefix_max = (1usize << bits) - 1;
    let mut number = usize::from(*first) & prefix_max;
    if number < prefix_max {
        return Ok(number);
    }
    for shift in [0, 7, 14, 21] {
        let (byte, rest) = block.split_first().ok_or(DecodeError::Malformed)?;
        *block = rest;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError::Malformed)
}

/// Decodes a string (RFC 7541, section 5.2) into the front of `space`. Returns its length in bytes.
#[inline]
fn string(block: &mut &[u8], space: &mut [u8]) -> Result<usize, DecodeError> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(len).ok_or(DecodeError::Malformed)?;
    *block = rest;
    if is_coded {
        return huffman::decode(text, space);
    }
    space
        .get_mut(..len)
        .ok_or(DecodeError::TooLong)?
        .copy_from_slice(text);
    Ok(len)
}

/// The index of the name `date`.
pub const DATE: u8 = 33;
/// The index of the name `server`.
pub const SERVER: u8 = 54;

/// Appends a literal without indexing, its name at `index` of the static table.
pub fn put_with_name(index: u8, value: &[u8], block: &mut Vec<u8>) {
    put_integer(index.into(), 4, 0, block);
    put_string(value, block);
}

/// Appends a literal with incremental indexing, its name at `index` of the static table.
pub fn put_to_index(index: u8, value: &[u8], block: &mut Vec<u8>) {
    put_integer(index.into(), 6, 0x40, block);
    put_string(value, block);
}

/// Appends a literal without indexing. `name` is written in lower case.
pub fn put(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    put_integer(name.len(), 7, 0, block);
    block.extend(name.iter().map(u8::to_ascii_lowercase));
    put_integer(value.len(), 7, 0, block);
    block.extend_from_slice(value);
}

/// Appends a literal with incremental indexing: it becomes the newest entry of the peer's dynamic table.
pub fn put_remembered(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0x40);
    put_string(name, block);
    put_string(value, block);
}

/// Appends an indexed field; `index` counts both tables.
pub fn put_indexed(index: usize, block: &mut Vec<u8>) {
    put_integer(index, 7, 0x80, block);
}

/// Appends a size update to `bytes`, with which a block begins (RFC 7541, section 4.2).
pub fn put_table_size(bytes: usize, block: &mut Vec<u8>) {
    put_integer(bytes, 5, 0x20, block);
}

/// Number of entries of the static table; indices of the dynamic one follow.
pub const STATIC_ENTRIES: usize = fixed::ENTRIES.len();

/// Appends a string, in Huffman code where that is shorter.
fn put_string(text: &[u8], block: &mut Vec<u8>) {
    let len = huffman::encoded_len(text);
    if len < text.len() {
        put_integer(len, 7, 0x80, block);
        huffman::encode(text, block);
    } else {
        put_integer(text.len(), 7, 0, block);
        block.extend_from_slice(text);
    }
}

fn put_integer(number: usize, bits: u32, flags: u8, block: &mut Vec<u8>) {
    let prefix_max = (1usize << bits) - 1;
    if number < prefix_max {
        return block.push(flags | number as u8);
    }
    block.push(flags | prefix_max as u8);
    let mut rest = number - prefix_max;
    while rest >= 0x80 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push(rest as u8);
}

#[cfg(test)]
mod tests;
