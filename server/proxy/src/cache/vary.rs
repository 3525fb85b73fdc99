//! Which stored response was made for a request like this one (RFC 9111, section 4.1).
//!
//! A stored response keeps the names that its `Vary` has, and of the request that it answers the values of these fields.
//! A later request has the same values, or another response is needed. Values are compared byte by byte, the lines of a
//! field as one list.

use super::directives::members;

/// Whether `Vary` names something by which no later request can be compared: `*`, or what this proxy makes for each
/// client.
pub fn is_by_all(value: &[u8]) -> bool {
    const OURS: [&[u8]; 4] = [b"*", b"forwarded", b"x-forwarded-for", b"via"];
    let mut names = members(value);
    names.any(|name| OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)))
}

/// The names in the `Vary` of a response, in lower case, each with a comma behind it. Those that are in every key are
/// left out.
pub fn names<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Box<[u8]> {
    const IN_KEYS: [&[u8]; 3] = [b"host", b"x-forwarded-host", b"x-forwarded-proto"];
    let mut names = Vec::new();
    for (_, value) in fields.filter(|(name, _)| name.eq_ignore_ascii_case(b"vary")) {
        for name in members(value).map(<[u8]>::to_ascii_lowercase) {
            if !IN_KEYS.contains(&&*name) {
                names.extend(name);
                names.push(b',');
            }
        }
    }
    names.into()
}

/// Writes what the fields of a request say that are named in `names`, as [`names`] made it.
pub fn put_selecting<'a, I>(names: &[u8], fields: impl Fn() -> I, out: &mut Vec<u8>)
where
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    for name in names
        .split(|byte| *byte == b',')
        .filter(|name| !name.is_empty())
    {
        for (_, value) in fields().filter(|(each, _)| each.eq_ignore_ascii_case(name)) {
            out.push(b',');
            out.extend_from_slice(value);
        }
        out.push(b'\n');
    }
}
