//! The media type of a response's content.

use super::piece::Piece;
use super::scan::is_text_byte;

/// A media type, ready to be sent as `Content-Type` (RFC 9110, section 8.3).
///
/// ```
/// # use barewire_http::ContentType;
/// const PNG: &ContentType = &ContentType::from_static("image/png");
/// assert_eq!(PNG.as_str(), "image/png");
/// assert!(ContentType::new("text/html\r\nSet-Cookie: a=b").is_err());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ContentType {
    /// The field line, and the next one up to its value.
    line: Piece<LINE_BYTES_MAX>,
    /// The field as HTTP/2 has it: without indexing, the name at 31, the length of the value, the value.
    block: Piece<BLOCK_BYTES_MAX>,
}

/// Why a text cannot be sent as a media type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no media type: one has 1 to {max} visible characters and spaces, and a slash",
    max = ContentType::BYTES_MAX
)]
pub struct InvalidContentType(String);

const NAME: &str = "Content-Type: ";
/// Begins the line behind the media type.
pub(super) const CONTENT_LENGTH: &str = "Content-Length: ";
const BLOCK_BYTES_MAX: usize = 96;
const LINE_BYTES_MAX: usize = NAME.len() + ContentType::BYTES_MAX + 2 + CONTENT_LENGTH.len();

impl ContentType {
    /// The longest media type, with its parameters.
    pub const BYTES_MAX: usize = 80;

    /// `text/plain`, as `Content-Type` of ASCII texts.
    pub const TEXT: &ContentType = &ContentType::from_static("text/plain");
    /// `text/html` in UTF-8.
    pub const HTML: &ContentType = &ContentType::from_static("text/html; charset=utf-8");
    /// `application/json`
    pub const JSON: &ContentType = &ContentType::from_static("application/json");
    /// `application/octet-stream`
    pub const BYTES: &ContentType = &ContentType::from_static("application/octet-stream");

    /// `text/plain` of a refusal, with `X-Content-Type-Options: nosniff`: its text may quote the request, so no client
    /// shall take it for something else.
    pub(super) const REFUSAL: &ContentType = &ContentType {
        line: Piece::joined(&[
            NAME,
            "text/plain\r\nX-Content-Type-Options: nosniff\r\n",
            CONTENT_LENGTH,
        ]),
        block: Piece::of_bytes(b"\x0f\x10\x0atext/plain\x00\x16x-content-type-options\x07nosniff"),
    };

    /// A media type that is known when the program is compiled.
    ///
    /// # Panics
    ///
    /// If [`ContentType::new`] refuses it; at compile time where it is a constant.
    pub const fn from_static(media_type: &str) -> Self {
        assert!(is_valid(media_type.as_bytes()), "that is no media type");
        ContentType {
            line: Piece::joined(&[NAME, media_type, "\r\n", CONTENT_LENGTH]),
            block: block(media_type.as_bytes()),
        }
    }

    /// A media type, perhaps with parameters.
    ///
    /// # Errors
    ///
    /// If it is longer than [`ContentType::BYTES_MAX`], has no slash, or contains what may not be in a
    /// field's value.
    pub fn new(media_type: &str) -> Result<Self, InvalidContentType> {
        if is_valid(media_type.as_bytes()) {
            Ok(Self::from_static(media_type))
        } else {
            Err(InvalidContentType(media_type.to_owned()))
        }
    }

    /// The media type.
    pub fn as_str(&self) -> &str {
        let line = self.line.as_bytes();
        let value = &line[NAME.len()..line.len() - CONTENT_LENGTH.len() - 2];
        std::str::from_utf8(value).unwrap_or_default()
    }

    /// The field line, and the next one up to the value of Content-Length.
    #[inline]
    pub(super) const fn line_and_content_length(&self) -> &Piece<LINE_BYTES_MAX> {
        &self.line
    }

    /// The field of HTTP/2.
    #[inline]
    pub(super) const fn block(&self) -> &Piece<BLOCK_BYTES_MAX> {
        &self.block
    }
}

const fn block(media_type: &[u8]) -> Piece<BLOCK_BYTES_MAX> {
    let mut bytes = [0; BLOCK_BYTES_MAX];
    bytes[0] = 0x0f;
    bytes[1] = 0x10;
    bytes[2] = media_type.len() as u8;
    let mut at = 0;
    while at < media_type.len() {
        bytes[3 + at] = media_type[at];
        at += 1;
    }
    Piece::of_bytes(bytes.split_at(3 + media_type.len()).0)
}

const fn is_valid(media_type: &[u8]) -> bool {
    let mut slashes = 0;
    let mut at = 0;
    while at < media_type.len() {
        let byte = media_type[at];
        if !is_text_byte(byte) || !byte.is_ascii() {
            return false;
        }
        if byte == b'/' {
            slashes += 1;
        }
        at += 1;
    }
    let ends_well = match media_type {
        [] => false,
        [first, .., last] => *first != b' ' && *last != b' ' && *first != b'/' && *last != b'/',
        [_] => false,
    };
    ends_well && slashes > 0 && media_type.len() <= ContentType::BYTES_MAX
}
