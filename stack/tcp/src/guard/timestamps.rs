//! Timestamps (RFC 7323, sections 3 to 5): the round-trip time of what was sent more than once, and protection against
//! wrapped sequence numbers (PAWS).
//!
//! TSval is a clock of milliseconds with a secret offset, the same for all connections of a server: peers see neither how
//! long it runs nor, when it is started again, a clock that goes on where the last one was. What a connection keeps is
//! TS.Recent, four bytes.
//!
//! A SYN cookie needs no room for them: only a peer that has agreed on timestamps sends any in the ACK that brings the
//! cookie back (RFC 7323, section 3.2), and TS.Recent begins with that one.

use siphasher::sip::SipHasher24;

use crate::guard::Secrets;
use crate::packet::{Segment, TcpOption};
use barewire_service::time::{Duration, Instant};

/// The option of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timestamps {
    /// TSval.
    pub value: u32,
    /// TSecr.
    pub echo: u32,
}

impl Timestamps {
    /// Bytes that the option takes, with two of padding in front (RFC 7323, appendix A).
    pub const BYTES: usize = 12;
    const BEGINNING: [u8; 4] = [1, 1, 8, 10];

    /// The option of a received segment, if it has one.
    #[inline]
    pub fn of_segment(segment: &Segment, frame: &[u8]) -> Option<Timestamps> {
        let options = &frame[segment.tcp_offset() + 20..segment.payload_offset()];
        if let Some(&[a, b, c, d, rest @ ..]) = options.first_chunk::<{ Self::BYTES }>()
            && [a, b, c, d] == Self::BEGINNING
        {
            let [e, f, g, h, i, j, k, l] = rest;
            return Some(Timestamps {
                value: u32::from_be_bytes([e, f, g, h]),
                echo: u32::from_be_bytes([i, j, k, l]),
            });
        }
        segment.tcp_options(frame).find_map(|option| match option {
            Ok(TcpOption::Timestamps { value, echo }) => Some(Timestamps { value, echo }),
            _ => None,
        })
    }

    /// The option as it is written.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&Self::BEGINNING);
        bytes[4..8].copy_from_slice(&self.value.to_be_bytes());
        bytes[8..].copy_from_slice(&self.echo.to_be_bytes());
        bytes
    }
}

/// Our clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimestampClock {
    offset: u32,
}

/// An echo that is older is none of ours. The clock wraps around after 49 days.
const AGE_MAX_MS: u32 = 1 << 30;

impl TimestampClock {
    /// The clock of a server with these secrets.
    pub fn new(secrets: &Secrets) -> TimestampClock {
        let hash = SipHasher24::new_with_key(&secrets.isn).hash(b"timestamps");
        TimestampClock {
            offset: hash as u32,
        }
    }

    /// TSval of a segment that is sent `now`.
    #[inline]
    pub fn value(self, now: Instant) -> u32 {
        self.offset.wrapping_add(now.total_millis() as u32)
    }

    /// The time since a segment was sent whose TSval is echoed, at most: what is less than a tick counts as one.
    #[inline]
    pub fn since(self, echo: u32, now: Instant) -> Option<Duration> {
        let age_ms = self.value(now).wrapping_sub(echo);
        (age_ms < AGE_MAX_MS).then(|| Duration::from_millis(u64::from(age_ms) + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_says_how_long_ago_it_was_sent_at_most() {
        let clock = TimestampClock::new(&Secrets::from_seed(1));
        let sent_at = Instant::from_micros(1_000_999);
        let echo = clock.value(sent_at);
        let since = |us| clock.since(echo, sent_at + Duration::from_micros(us));
        assert_eq!(since(0), Some(Duration::from_millis(1)));
        assert_eq!(since(1), Some(Duration::from_millis(2)));
        assert_eq!(since(200_000), Some(Duration::from_millis(201)));
        // It is from the future, or a peer's invention.
        assert_eq!(clock.since(echo.wrapping_add(1), sent_at), None);
    }

    #[test]
    fn servers_have_clocks_of_their_own() {
        let [one, two] = [1, 2].map(|seed| TimestampClock::new(&Secrets::from_seed(seed)));
        assert_ne!(one.value(Instant::ZERO), two.value(Instant::ZERO));
    }
}
