//! The status codes this server sends (RFC 9110, section 15).

use super::response::Piece;

macro_rules! statuses {
    ($( $name:ident = $code:literal $reason:literal, )+) => {
        /// A status code this server sends, with the reason phrase of RFC 9110.
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
        }
    };
}

statuses! {
    Ok = 200 "OK",
    Created = 201 "Created",
    BadRequest = 400 "Bad Request",
    Forbidden = 403 "Forbidden",
    NotFound = 404 "Not Found",
    MethodNotAllowed = 405 "Method Not Allowed",
    RequestTimeout = 408 "Request Timeout",
    LengthRequired = 411 "Length Required",
    ContentTooLarge = 413 "Content Too Large",
    UriTooLong = 414 "URI Too Long",
    ExpectationFailed = 417 "Expectation Failed",
    MisdirectedRequest = 421 "Misdirected Request",
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large",
    InternalServerError = 500 "Internal Server Error",
    NotImplemented = 501 "Not Implemented",
    ServiceUnavailable = 503 "Service Unavailable",
    VersionNotSupported = 505 "HTTP Version Not Supported",
    InsufficientStorage = 507 "Insufficient Storage",
}
