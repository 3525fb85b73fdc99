//! The part of every response that changes once a second.

use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

use super::http2::hpack;
use super::piece::Piece;
use super::scan::is_text_byte;

/// `Server` and `Date`, rendered when the clock moves on.
#[derive(Debug)]
pub(super) struct ServerAndDate {
    server: Box<str>,
    unix_time_s: u64,
    rendered: Piece<BYTES_MAX>,
    /// How often it was rendered.
    generation: u64,
    /// The same for HTTP/2: literals without indexing, and literals that the client inserts into its table.
    block: Piece<BLOCK_BYTES_MAX>,
    block_to_index: Piece<BLOCK_BYTES_MAX>,
    /// Where these are put together.
    scratch: Vec<u8>,
}

/// The text is no value for `Server`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the value of Server: it has to consist of at most {SERVER_BYTES_MAX} visible \
     characters and spaces"
)]
pub struct InvalidServer(String);

/// The longest value of `Server`.
pub(super) const SERVER_BYTES_MAX: usize = 57;
/// Two literals, each with the index of its name and the length of its value before it.
const BLOCK_BYTES_MAX: usize = 96;
/// `Server: …␍␊Date: Sun, 06 Nov 1994 08:49:37 GMT␍␊`
const BYTES_MAX: usize = 8 + SERVER_BYTES_MAX + 2 + 37;

/// The last second of the year 9999, the end of IMF-fixdate (RFC 9110, section 5.6.7).
const UNIX_TIME_S_MAX: u64 = 253_402_300_799;

impl ServerAndDate {
    pub(super) fn new() -> Self {
        let mut date = ServerAndDate {
            server: "Server: barewire\r\n".into(),
            unix_time_s: 0,
            rendered: Piece::new(""),
            generation: 0,
            block: Piece::new(""),
            block_to_index: Piece::new(""),
            scratch: Vec::with_capacity(BLOCK_BYTES_MAX),
        };
        date.render();
        date
    }

    /// Sets the value of `Server`; an empty text leaves the field out.
    pub(super) fn set_server(&mut self, server: &str) -> Result<(), InvalidServer> {
        let is_value = |byte: u8| byte.is_ascii() && is_text_byte(byte);
        if server.len() > SERVER_BYTES_MAX
            || server.trim() != server
            || !server.bytes().all(is_value)
        {
            return Err(InvalidServer(server.to_owned()));
        }
        self.server = match server {
            "" => "".into(),
            _ => format!("Server: {server}\r\n").into(),
        };
        self.render();
        Ok(())
    }

    /// Moves the clock; does nothing within the same second.
    #[inline]
    pub(super) fn set(&mut self, unix_time_s: u64) {
        if unix_time_s != self.unix_time_s {
            self.unix_time_s = unix_time_s;
            self.render();
        }
    }

    fn render(&mut self) {
        self.rendered = render(&self.server, self.unix_time_s);
        self.generation += 1;
        self.block = self.render_block(hpack::put_with_name);
        self.block_to_index = self.render_block(hpack::put_to_index);
    }

    fn render_block(&mut self, put: impl Fn(u8, &[u8], &mut Vec<u8>)) -> Piece<BLOCK_BYTES_MAX> {
        let block = &mut self.scratch;
        block.clear();
        if let Some(server) = self.server.strip_prefix("Server: ") {
            put(hpack::SERVER, server.trim_end().as_bytes(), block);
        }
        let mut space = [0; 29];
        let date = imf_fixdate(self.unix_time_s, &mut space);
        put(hpack::DATE, date.as_bytes(), block);
        Piece::of_bytes(block)
    }

    #[inline]
    pub(super) fn fields(&self) -> &Piece<BYTES_MAX> {
        &self.rendered
    }

    /// The value of `Date`.
    pub(super) fn date<'s>(&self, space: &'s mut [u8; 29]) -> &'s str {
        imf_fixdate(self.unix_time_s, space)
    }

    /// The fields of HTTP/2, as literals without indexing.
    #[inline]
    pub(super) fn block(&self) -> &Piece<BLOCK_BYTES_MAX> {
        &self.block
    }

    /// The fields of HTTP/2, as literals that the client inserts into its table, `date` last.
    #[inline]
    pub(super) fn block_to_index(&self) -> &Piece<BLOCK_BYTES_MAX> {
        &self.block_to_index
    }

    /// Changes whenever the fields do.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether there is a `server` beside `date`.
    #[inline]
    pub(super) fn has_server(&self) -> bool {
        !self.server.is_empty()
    }
}

fn render(server: &str, unix_time_s: u64) -> Piece<BYTES_MAX> {
    let mut space = [0; 29];
    Piece::joined(&[
        server,
        "Date: ",
        imf_fixdate(unix_time_s, &mut space),
        "\r\n",
    ])
}

/// Writes the time as RFC 9110, section 5.6.7, defines it.
pub(super) fn imf_fixdate(unix_time_s: u64, space: &mut [u8; 29]) -> &str {
    use std::io::Write;

    let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(unix_time_s.min(UNIX_TIME_S_MAX)));
    let fits = write!(&mut space[..], "{date}").is_ok();
    assert!(fits, "IMF-fixdate has a fixed length");
    std::str::from_utf8(space).unwrap_or_default()
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
    fn servers_have_names_of_their_own_or_none() {
        let named = |server: &str| {
            let mut date = ServerAndDate::new();
            date.set_server(server)
                .map(|()| date.fields().as_bytes().len())
        };
        assert_eq!(named(""), Ok(37));
        assert_eq!(named("a"), Ok(10 + 1 + 37));
        assert_eq!(named(&"x".repeat(SERVER_BYTES_MAX)), Ok(BYTES_MAX));
        for server in [
            &"x".repeat(SERVER_BYTES_MAX + 1),
            "a\r\nb: c",
            " a",
            "a\0",
            "é",
        ] {
            assert_eq!(named(server), Err(InvalidServer(server.to_owned())));
        }
    }

    #[test]
    fn stays_within_four_digit_years() {
        let last = "Server: barewire\r\nDate: Fri, 31 Dec 9999 23:59:59 GMT\r\n";
        assert_eq!(date_at(UNIX_TIME_S_MAX), last);
        assert_eq!(date_at(u64::MAX), last);
    }
}
