//! The part of every response that changes once a second.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

use super::response::Piece;

/// `Server` and `Date`, rendered when the clock moves on.
#[derive(Debug)]
pub(super) struct ServerAndDate {
    unix_time_s: u64,
    rendered: Piece<64>,
}

/// The last second of the year 9999, the end of IMF-fixdate (RFC 9110, section 5.6.7).
const UNIX_TIME_S_MAX: u64 = 253_402_300_799;

impl ServerAndDate {
    pub(super) fn new() -> Self {
        ServerAndDate {
            unix_time_s: 0,
            rendered: render(0),
        }
    }

    /// Moves the clock; does nothing within the same second.
    #[inline]
    pub(super) fn set(&mut self, unix_time_s: u64) {
        if unix_time_s != self.unix_time_s {
            self.unix_time_s = unix_time_s;
            self.rendered = render(unix_time_s);
        }
    }

    #[inline]
    pub(super) fn fields(&self) -> &Piece<64> {
        &self.rendered
    }
}

fn render(unix_time_s: u64) -> Piece<64> {
    let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(unix_time_s.min(UNIX_TIME_S_MAX)));
    let mut text = [0; 64];
    let mut space = &mut text[..];
    let fits = write!(space, "Server: barewire\r\nDate: {date}\r\n").is_ok();
    assert!(fits, "IMF-fixdate has a fixed length");
    let len = 64 - space.len();
    Piece::from_bytes(text, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date_at(unix_time_s: u64) -> String {
        let mut date = ServerAndDate::new();
        date.set(unix_time_s);
        String::from_utf8(date.fields().as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn is_an_imf_fixdate() {
        // RFC 9110, section 5.6.7 gives this example.
        assert_eq!(
            date_at(784_111_777),
            "Server: barewire\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        );
    }

    #[test]
    fn stays_within_four_digit_years() {
        let last = "Server: barewire\r\nDate: Fri, 31 Dec 9999 23:59:59 GMT\r\n";
        assert_eq!(date_at(UNIX_TIME_S_MAX), last);
        assert_eq!(date_at(u64::MAX), last);
    }
}
