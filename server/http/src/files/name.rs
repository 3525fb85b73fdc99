//! From the path of a request to the name of a file.

use crate::target::hex;

/// What a path asks for, below the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file, or a directory without its slash.
    File,
    /// A directory: the path is empty or ends in a slash.
    Directory,
}

/// The longest name that the kernel opens, without the NUL behind it.
const NAME_BYTES_MAX: usize = 4095;

/// Decodes `path`, as it was sent and without a slash in front, to `name`. `None` if no such file can exist or be served.
pub(super) fn decode(path: &str, name: &mut Vec<u8>) -> Option<Kind> {
    name.clear();
    if path.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        let byte = match rest {
            [b'%', high, low, tail @ ..] => {
                rest = tail;
                // An encoded slash is data, and no file name contains one.
                Some(hex(*high)? << 4 | hex(*low)?).filter(|byte| *byte != b'/')?
            }
            [b'%', ..] => return None,
            _ => {
                rest = tail;
                *byte
            }
        };
        name.push(byte);
    }
    let kind = match name.last() {
        None | Some(b'/') => Kind::Directory,
        Some(_) => Kind::File,
    };
    let segments = name.strip_suffix(b"/").unwrap_or(name);
    let is_servable = |segment: &[u8]| {
        !segment.is_empty()
            && !segment.contains(&0)
            && (segment[0] != b'.' || segment == b".well-known")
    };
    (name.is_empty() || segments.split(|byte| *byte == b'/').all(is_servable)).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_downwards_only() {
        let mut name = Vec::new();
        let mut decoded = |path: &str| {
            let kind = decode(path, &mut name)?;
            Some((String::from_utf8_lossy(&name).into_owned(), kind))
        };
        for (path, expected, kind) in [
            ("", "", Kind::Directory),
            ("a", "a", Kind::File),
            ("a/", "a/", Kind::Directory),
            ("a/b%20c.txt", "a/b c.txt", Kind::File),
            ("%61%2e%2E", "a..", Kind::File),
            ("..a/.well-known/x", "", Kind::File),
            (".well-known/x", ".well-known/x", Kind::File),
            ("a%5Cb", "a\\b", Kind::File),
            ("%c3%a9", "é", Kind::File),
        ] {
            let expected = (!path.starts_with("..a")).then(|| (expected.to_owned(), kind));
            assert_eq!(decoded(path), expected, "{path}");
        }
        for path in [
            ".",
            "..",
            "../a",
            "a/..",
            "a/../b",
            "a/./b",
            "./a",
            "%2e%2e/a",
            "%2E./a",
            "a/%2e%2e/%2e%2e/b",
            "/",
            "//",
            "/a",
            "a//b",
            "a//",
            "/etc/passwd",
            "%2Fetc/passwd",
            "a%2f..%2fb",
            "a%2Fb",
            "a%00",
            "%00",
            "a%",
            "a%2",
            "a%zz",
            ".git/config",
            "a/.env",
            "%2egit",
            ".",
        ] {
            assert_eq!(decoded(path), None, "{path}");
        }
        assert_eq!(decoded(&"a/".repeat(3000)), None);
    }
}
