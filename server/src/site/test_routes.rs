//! Routes that only tests and benches want: bodies that are large, and bodies that come back.

use barewire_http::{Answer, Content, ContentType, Handler, Method, Request, Response, Route};

use super::Site;

/// `GET /test/stream?bytes=N&seed=S`, `POST /test/echo` (streamed) and `POST /test/body` (collected).
pub const TEST_ROUTES: &[Route<Site>] = &[
    Route::new("/test/stream").get(stream),
    Route::new("/test/echo")
        .on(Method::Post, Handler::Echo)
        .on(Method::Put, Handler::Echo),
    Route::new("/test/body").post(body),
];

/// `bytes` bytes, of which each is [`byte_at`] its offset.
fn stream(_: &mut Site, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
    let number = |name| {
        let digits = std::str::from_utf8(request.query_value(name)?).ok()?;
        digits.parse::<u64>().ok()
    };
    let fill = |seed, offset, space: &mut [u8]| {
        for (byte, offset) in space.iter_mut().zip(offset..) {
            *byte = byte_at(seed, offset);
        }
    };
    let (length, seed) = (number("bytes").unwrap_or(0), number("seed").unwrap_or(0));
    response.send(ContentType::BYTES, Content::generated(length, seed, fill))
}

/// The byte at `offset` of the stream with this seed: any part of it, moved, does not fit elsewhere.
pub fn byte_at(seed: u64, offset: u64) -> u8 {
    let word = (offset / 8)
        .wrapping_add(seed)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word ^ word >> 29).to_le_bytes()[(offset % 8) as usize]
}

/// The body, as the handler got it.
fn body(_: &mut Site, _: &Request<'_>, body: &[u8], response: Response<'_, '_>) -> Answer {
    response.body(ContentType::BYTES, body)
}
