//! The paths of routes: their grammar, and the values of their parameters in a path.

/// Why a text cannot be the path of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with a slash.
    #[error("it has to begin with a slash")]
    NoSlash,
    /// It contains characters that a decoded path cannot have, or that have another meaning in it.
    #[error(
        "it may consist of slashes, letters, digits, `-`, `.`, `_`, `~`, and segments {{name}}"
    )]
    Character,
    /// A parameter without a name, or with one more brace.
    #[error("a parameter is a whole segment {{name}}, or {{*name}} at the end")]
    Parameter,
    /// Two parameters have the same name.
    #[error("two of its parameters have the same name")]
    Repeated,
}

/// A segment of a route's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment<'p> {
    Literal(&'p str),
    /// `{name}`: one segment that is not empty.
    One(&'p str),
    /// `{*name}`: the rest, which is not empty.
    Rest(&'p str),
}

impl<'p> Segment<'p> {
    fn of(text: &'p str) -> Self {
        match text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
        {
            None => Segment::Literal(text),
            Some(name) => match name.strip_prefix('*') {
                Some(name) => Segment::Rest(name),
                None => Segment::One(name),
            },
        }
    }

    fn name(self) -> Option<&'p str> {
        match self {
            Segment::Literal(_) => None,
            Segment::One(name) | Segment::Rest(name) => Some(name),
        }
    }
}

fn segments(pattern: &str) -> impl Iterator<Item = Segment<'_>> {
    pattern.split('/').map(Segment::of)
}

/// Whether `pattern` has parameters.
pub(super) fn has_params(pattern: &str) -> bool {
    pattern.contains('{')
}

/// Checks the path of a route.
pub(super) fn check(pattern: &str) -> Result<(), PatternError> {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if !pattern.starts_with('/') {
        return Err(PatternError::NoSlash);
    }
    let segments: Vec<_> = segments(pattern).collect();
    for (index, segment) in segments.iter().enumerate() {
        match *segment {
            Segment::Literal(text) if text.contains(['{', '}']) => {
                return Err(PatternError::Parameter);
            }
            Segment::Literal(text) if !text.bytes().all(is_unreserved) => {
                return Err(PatternError::Character);
            }
            Segment::Literal(_) => {}
            Segment::Rest(_) if index + 1 < segments.len() => return Err(PatternError::Parameter),
            Segment::One(name) | Segment::Rest(name) => {
                if name.is_empty() || !name.bytes().all(is_unreserved) {
                    return Err(PatternError::Parameter);
                }
                if segments[..index]
                    .iter()
                    .any(|before| before.name() == Some(name))
                {
                    return Err(PatternError::Repeated);
                }
            }
        }
    }
    Ok(())
}

/// The value of the parameter `name` of `pattern` in `path`, which matches it.
pub(super) fn param<'p>(pattern: &str, path: &'p [u8], name: &str) -> Option<&'p str> {
    let (mut pattern, mut rest) = (pattern.as_bytes(), path);
    loop {
        let (segment, end) = (&pattern[..segment_end(pattern)], segment_end(rest));
        let found = match segment {
            [b'{', b'*', each @ .., b'}'] if each == name.as_bytes() => Some(rest),
            [b'{', each @ .., b'}'] if each == name.as_bytes() => Some(&rest[..end]),
            _ => None,
        };
        if let Some(text) = found {
            // A valid target is ASCII.
            return std::str::from_utf8(text).ok();
        }
        pattern = pattern.get(segment.len() + 1..)?;
        rest = rest.get(end + 1..)?;
    }
}

/// Segments are short: a loop is faster than the start of a vector search.
fn segment_end(path: &[u8]) -> usize {
    path.iter()
        .position(|byte| *byte == b'/')
        .unwrap_or(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for valid in [
            "/",
            "/a",
            "/a/",
            "/a/{b}",
            "/{a}/b/{c}",
            "/a/{*b}",
            "/{*a}",
            "/a-b/c_d.e~",
        ] {
            assert_eq!(check(valid), Ok(()), "{valid}");
        }
        for (invalid, error) in [
            ("", PatternError::NoSlash),
            ("a", PatternError::NoSlash),
            ("/a b", PatternError::Character),
            ("/é", PatternError::Character),
            ("/a%20", PatternError::Character),
            ("/a?b", PatternError::Character),
            ("/{}", PatternError::Parameter),
            ("/{*}", PatternError::Parameter),
            ("/{a", PatternError::Parameter),
            ("/a{b}", PatternError::Parameter),
            ("/{a}b", PatternError::Parameter),
            ("/{{a}}", PatternError::Parameter),
            ("/{*a}/b", PatternError::Parameter),
            ("/{a}/{a}", PatternError::Repeated),
        ] {
            assert_eq!(check(invalid), Err(error), "{invalid}");
        }
    }

    #[test]
    fn parameters() {
        let pattern = "/users/{id}/files/{*file}";
        let path = b"/users/7%2F8/files/a/b%20c/";
        assert_eq!(param(pattern, path, "id"), Some("7%2F8"));
        assert_eq!(param(pattern, path, "file"), Some("a/b%20c/"));
        assert_eq!(param(pattern, path, "users"), None);
        assert_eq!(param("/a", b"/a", "a"), None);
        assert_eq!(param("", b"/a", "a"), None);
    }
}
