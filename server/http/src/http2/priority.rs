//! Extensible priorities (RFC 9218): which of the responses that wait goes first.

/// The priority of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Priority {
    /// 0 to 7, the most urgent first.
    pub(super) urgency: u8,
    /// Responses of the same urgency take turns.
    pub(super) incremental: bool,
}

impl Default for Priority {
    /// Of a client that says nothing: RFC 9218 would have its responses go one after the other, which lets a
    /// long one hold up all others; they take turns.
    fn default() -> Self {
        Priority {
            urgency: 3,
            incremental: true,
        }
    }
}

impl Priority {
    /// Reads the value of a `Priority` field, or of a PRIORITY_UPDATE frame: a dictionary of RFC 9651, of which
    /// only `u` and `i` matter. What is malformed is ignored.
    pub(super) fn parse(value: &[u8]) -> Self {
        let mut priority = Priority {
            urgency: 3,
            incremental: false,
        };
        for member in value.split(|byte| *byte == b',') {
            match member.trim_ascii() {
                [b'u', b'=', urgency @ b'0'..=b'7'] => priority.urgency = urgency - b'0',
                b"i" | b"i=?1" => priority.incremental = true,
                b"i=?0" => priority.incremental = false,
                _ => {}
            }
        }
        priority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_ignored() {
        for (value, urgency, incremental) in [
            ("", 3, false),
            ("u=0", 0, false),
            ("u=5, i", 5, true),
            ("i=?1,u=7", 7, true),
            ("i, i=?0", 3, false),
            ("u=8, i=1, x=2", 3, false),
            ("u=-1", 3, false),
        ] {
            let expected = Priority {
                urgency,
                incremental,
            };
            assert_eq!(Priority::parse(value.as_bytes()), expected, "{value}");
        }
    }
}
