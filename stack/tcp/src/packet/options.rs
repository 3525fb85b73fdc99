//! TCP options, in the order of the wire (RFC 9293, section 3.1).

use thiserror::Error;

/// The TCP options of one segment; see [`Segment::tcp_options`](super::Segment::tcp_options).
///
/// A malformed option is reported once and ends the iteration: nothing behind it can be trusted.
#[derive(Debug, Clone)]
pub struct TcpOptions<'f> {
    pub(super) rest: &'f [u8],
}

/// One TCP option that a server has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpOption {
    /// Maximum segment size, in bytes (RFC 9293, section 3.7.1).
    MaximumSegmentSize(u16),
    /// Window scale, as a shift count that is not clamped (RFC 7323, section 2).
    WindowScale(u8),
    /// Selective acknowledgments are understood (RFC 2018, section 2).
    SackPermitted,
    /// Timestamps (RFC 7323, section 3).
    Timestamps {
        /// TSval.
        value: u32,
        /// TSecr.
        echo: u32,
    },
    /// Anything else, skipped by its length.
    Other(u8),
}

/// An option whose length is impossible for its kind, or reaches beyond the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("TCP option of kind {kind} has an impossible length")]
pub struct MalformedOption {
    /// The option's kind byte.
    pub kind: u8,
}

impl Iterator for TcpOptions<'_> {
    type Item = Result<TcpOption, MalformedOption>;

    fn next(&mut self) -> Option<Self::Item> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;

        while let [NO_OPERATION, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let (&kind, _) = self.rest.split_first()?;
        if kind == END {
            self.rest = &[];
            return None;
        }
        let option = self
            .rest
            .get(1)
            .filter(|&&len| len >= 2)
            .and_then(|&len| self.rest.split_at_checked(usize::from(len)));
        let Some((option, rest)) = option else {
            self.rest = &[];
            return Some(Err(MalformedOption { kind }));
        };
        self.rest = rest;
        let parsed = match (kind, &option[2..]) {
            (2, &[a, b]) => TcpOption::MaximumSegmentSize(u16::from_be_bytes([a, b])),
            (3, &[shift]) => TcpOption::WindowScale(shift),
            (4, []) => TcpOption::SackPermitted,
            (8, &[a, b, c, d, e, f, g, h]) => TcpOption::Timestamps {
                value: u32::from_be_bytes([a, b, c, d]),
                echo: u32::from_be_bytes([e, f, g, h]),
            },
            (2 | 3 | 4 | 8, _) => {
                self.rest = &[];
                return Some(Err(MalformedOption { kind }));
            }
            _ => TcpOption::Other(kind),
        };
        Some(Ok(parsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tcp_options_in_any_order() {
        let options = |bytes: &[u8]| -> Vec<_> { TcpOptions { rest: bytes }.collect() };
        assert_eq!(
            options(&[
                4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 3, 3, 7, 2, 4, 5, 0xb4, 254, 2, 1, 0, 2
            ]),
            [
                Ok(TcpOption::SackPermitted),
                Ok(TcpOption::Timestamps { value: 9, echo: 0 }),
                Ok(TcpOption::WindowScale(7)),
                Ok(TcpOption::MaximumSegmentSize(1460)),
                Ok(TcpOption::Other(254)),
            ]
        );
        assert_eq!(options(&[]), []);
        for (kind, malformed) in [
            (2, &[2, 0, 0, 0][..]),
            (2, &[2, 1, 0, 0]),
            (2, &[2, 3, 0, 4, 2]),
            (3, &[3]),
            (3, &[3, 4, 0, 0]),
            (8, &[8, 10, 0, 0]),
            (99, &[99, 3]),
        ] {
            assert_eq!(options(malformed), [Err(MalformedOption { kind })]);
        }
    }
}
