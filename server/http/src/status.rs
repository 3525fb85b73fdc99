//! The status codes that a response can have (RFC 9110, section 15; RFC 6585; RFC 7725).

use super::piece::Piece;

macro_rules! statuses {
    ($( $name:ident = $code:literal $reason:literal, )+) => {
        /// A status code, with its registered reason phrase.
        ///
        /// Those that only a proxy or an upgrade sends are left out, and 205, which is not used.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Status {
            $( #[doc = concat!($code, " ", $reason)] $name, )+
        }

        impl Status {
            /// Every status, in the order of the codes.
            pub const ALL: &[Status] = &[$( Status::$name, )+];

            /// The three-digit code.
            pub const fn code(self) -> u16 {
                match self { $( Status::$name => $code, )+ }
            }

            /// The registered reason phrase.
            const fn phrase(self) -> &'static str {
                match self { $( Status::$name => $reason, )+ }
            }

            /// The name under which responses with this status are counted.
            pub(super) const fn counter_name(self) -> &'static str {
                match self { $( Status::$name => concat!("responses_", $code), )+ }
            }

            /// Code and reason phrase, as counted.
            pub(super) const fn counter_help(self) -> &'static str {
                match self { $( Status::$name => concat!("Responses with status ", $code, " ", $reason, "."), )+ }
            }

            /// The whole status line.
            pub(super) const fn line(self) -> &'static Piece<48> {
                match self { $( Status::$name => {
                    const LINE: Piece<48> = Piece::new(concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n"));
                    &LINE
                } )+ }
            }

            /// The pseudo-header field of HTTP/2 that has it.
            pub(super) const fn block(self) -> &'static Piece<8> {
                match self { $( Status::$name => {
                    const BLOCK: Piece<8> = block($code);
                    &BLOCK
                } )+ }
            }
        }
    };
}

statuses! {
    Ok = 200 "OK",
    Created = 201 "Created",
    Accepted = 202 "Accepted",
    NoContent = 204 "No Content",
    PartialContent = 206 "Partial Content",
    MultipleChoices = 300 "Multiple Choices",
    MovedPermanently = 301 "Moved Permanently",
    Found = 302 "Found",
    SeeOther = 303 "See Other",
    NotModified = 304 "Not Modified",
    TemporaryRedirect = 307 "Temporary Redirect",
    PermanentRedirect = 308 "Permanent Redirect",
    BadRequest = 400 "Bad Request",
    Unauthorized = 401 "Unauthorized",
    PaymentRequired = 402 "Payment Required",
    Forbidden = 403 "Forbidden",
    NotFound = 404 "Not Found",
    MethodNotAllowed = 405 "Method Not Allowed",
    NotAcceptable = 406 "Not Acceptable",
    RequestTimeout = 408 "Request Timeout",
    Conflict = 409 "Conflict",
    Gone = 410 "Gone",
    LengthRequired = 411 "Length Required",
    PreconditionFailed = 412 "Precondition Failed",
    ContentTooLarge = 413 "Content Too Large",
    UriTooLong = 414 "URI Too Long",
    UnsupportedMediaType = 415 "Unsupported Media Type",
    RangeNotSatisfiable = 416 "Range Not Satisfiable",
    ExpectationFailed = 417 "Expectation Failed",
    MisdirectedRequest = 421 "Misdirected Request",
    UnprocessableContent = 422 "Unprocessable Content",
    Locked = 423 "Locked",
    TooEarly = 425 "Too Early",
    PreconditionRequired = 428 "Precondition Required",
    TooManyRequests = 429 "Too Many Requests",
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large",
    UnavailableForLegalReasons = 451 "Unavailable For Legal Reasons",
    InternalServerError = 500 "Internal Server Error",
    NotImplemented = 501 "Not Implemented",
    BadGateway = 502 "Bad Gateway",
    ServiceUnavailable = 503 "Service Unavailable",
    GatewayTimeout = 504 "Gateway Timeout",
    VersionNotSupported = 505 "HTTP Version Not Supported",
    InsufficientStorage = 507 "Insufficient Storage",
}

/// `:status` as HPACK has it: from the static table, or the digits without indexing.
const fn block(code: u16) -> Piece<8> {
    let index = match code {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            return Piece::of_bytes(&[
                8,
                3,
                b'0' + (code / 100) as u8,
                b'0' + (code / 10 % 10) as u8,
                b'0' + (code % 10) as u8,
            ]);
        }
    };
    Piece::of_bytes(&[0x80 | index])
}

impl Status {
    /// The status that a relayed response with this code is counted as: the code's own, or that which stands
    /// for its class (RFC 9110, section 15).
    pub(super) fn counted_as(code: u16) -> Status {
        let own = Status::ALL.iter().find(|status| status.code() == code);
        own.copied().unwrap_or(match code / 100 {
            2 => Status::Ok,
            3 => Status::MultipleChoices,
            4 => Status::BadRequest,
            _ => Status::InternalServerError,
        })
    }

    /// The reason phrase that is registered for a code; empty if there is none.
    pub(super) fn reason(code: u16) -> &'static str {
        let own = Status::ALL.iter().find(|status| status.code() == code);
        own.map_or("", |status| status.phrase())
    }

    /// Whether a response with this status never has content (RFC 9110, sections 15.3.5 and 15.4.5).
    pub const fn forbids_content(self) -> bool {
        matches!(self, Status::NoContent | Status::NotModified)
    }
}
