//! Field lines in a block of bytes that this crate has written: `Name: value`, each with CR LF.

use std::ops::Range;

/// Names and values.
pub fn fields(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(block).map(|(_, name, value)| (name, value))
}

/// Those of a request, whose first line is none of them.
pub fn of_request(request: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let from = memchr::memchr(b'\n', request).map_or(request.len(), |end| end + 1);
    fields(&request[from..])
}

/// Lines, each with where it is, its name and its value, up to an empty one.
pub fn lines(block: &[u8]) -> impl Iterator<Item = (Range<usize>, &[u8], &[u8])> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let end = from + memchr::memchr(b'\n', &block[from..])? + 1;
        let line = block[from..end].strip_suffix(b"\r\n")?;
        let colon = memchr::memchr(b':', line)?;
        let at = from..end;
        from = end;
        Some((at, &line[..colon], line[colon + 1..].trim_ascii()))
    })
}
