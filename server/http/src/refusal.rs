//! Why a request is not served: one reason each, with its status, its text and its counter.

use super::status::Status;

macro_rules! refusals {
    ($( #[doc = $doc:literal] $name:ident = $counter:literal $status:ident $detail:literal, )+) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal {
            $( #[doc = $doc] $name, )+
        }

        impl Refusal {
            /// Every reason.
            pub const ALL: &[Refusal] = &[$( Refusal::$name, )+];

            /// The status it is answered with.
            pub const fn status(self) -> Status {
                match self { $( Refusal::$name => Status::$status, )+ }
            }

            /// The text of the response, one line.
            pub const fn detail(self) -> &'static str {
                match self { $( Refusal::$name => concat!($detail, "\n"), )+ }
            }

            /// The name under which it is counted.
            pub(super) const fn counter_name(self) -> &'static str {
                match self { $( Refusal::$name => concat!("refused_", $counter), )+ }
            }

            /// What the counter counts.
            pub(super) const fn counter_help(self) -> &'static str {
                match self { $( Refusal::$name => $doc.trim_ascii(), )+ }
            }
        }
    };
}

refusals! {
    /// The request line does not follow the grammar (RFC 9112, 3).
    RequestLine = "request_line" BadRequest "The request line is malformed.",
    /// A line ends in LF without CR (RFC 9112, 2.2).
    BareLf = "bare_lf" BadRequest "A line ends in LF without CR.",
    /// The request target is not valid for its method (RFC 9112, 3.2).
    Target = "target" BadRequest "The request target is malformed.",
    /// A header field does not follow the grammar (RFC 9112, 5).
    Field = "field" BadRequest "A header field is malformed.",
    /// Host is missing from an HTTP/1.1 request (RFC 9112, 3.2).
    HostMissing = "host_missing" BadRequest "The Host header field is missing.",
    /// Host is repeated or malformed (RFC 9112, 3.2).
    Host = "host" BadRequest "The Host header field is repeated or malformed.",
    /// Content-Length is repeated or not a plain decimal number (RFC 9112, 6.3).
    ContentLength = "content_length" BadRequest "The Content-Length header field is repeated or malformed.",
    /// Transfer-Encoding is malformed, not ended by chunked, or sent with HTTP/1.0 (RFC 9112, 6.1).
    TransferEncoding = "transfer_encoding" BadRequest "The Transfer-Encoding header field does not delimit the body.",
    /// Both Content-Length and Transfer-Encoding are present (RFC 9112, 6.3).
    FramingConflict = "framing_conflict" BadRequest "Content-Length and Transfer-Encoding exclude each other.",
    /// The chunked body does not follow the grammar (RFC 9112, 7.1).
    Chunked = "chunked" BadRequest "The chunked body is malformed.",
    /// No route has this path (RFC 9110, 15.5.5).
    NotFound = "not_found" NotFound "There is nothing at this path.",
    /// The route does not have this method (RFC 9110, 15.5.6).
    MethodNotAllowed = "method_not_allowed" MethodNotAllowed "This path does not have this method; see Allow.",
    /// The rest of a request did not arrive in time (RFC 9110, 15.5.9).
    Timeout = "timeout" RequestTimeout "The request did not arrive in time.",
    /// The route needs a body and the request does not say how long it is (RFC 9110, 15.5.12).
    LengthRequired = "length_required" LengthRequired "A body with Content-Length or chunked coding is required.",
    /// The body is larger than `body_bytes_max` or the receive buffer (RFC 9110, 15.5.14).
    BodyTooLarge = "body_too_large" ContentTooLarge "The body is too large.",
    /// The request target is longer than `target_bytes_max` (RFC 9110, 15.5.15).
    TargetTooLong = "target_too_long" UriTooLong "The request target is too long.",
    /// An expectation other than 100-continue (RFC 9110, 10.1.1).
    Expectation = "expectation" ExpectationFailed "Only the expectation 100-continue can be met.",
    /// The target names a scheme that this server does not speak (RFC 9110, 7.4).
    Scheme = "scheme" MisdirectedRequest "Only http targets are served here.",
    /// The head is larger than `head_bytes_max` or the receive buffer (RFC 6585, 5).
    HeadTooLarge = "head_too_large" HeaderFieldsTooLarge "The header section is too large.",
    /// The head has more than `headers_max` fields (RFC 6585, 5).
    TooManyFields = "too_many_fields" HeaderFieldsTooLarge "The header section has too many fields.",
    /// The extensions and trailers of a chunked body are too large (RFC 6585, 5).
    ChunkedOverhead = "chunked_overhead" HeaderFieldsTooLarge "The chunk extensions and trailers are too large.",
    /// The body is in a content coding, and the route takes it as it is (RFC 9110, 15.5.16).
    ContentCoding = "content_coding" UnsupportedMediaType "The body must not be in a content coding.",
    /// The body is not of the media type that the route takes (RFC 9110, 15.5.16).
    MediaType = "media_type" UnsupportedMediaType "The body must be application/json.",
    /// The body is not the JSON that the route takes (RFC 9110, 15.5.1).
    Json = "json" BadRequest "The body is not the JSON that is expected here.",
    /// More requests than a [`RateLimit`](super::middleware::RateLimit) allows (RFC 6585, 4).
    RateLimit = "rate_limit" TooManyRequests "Too many requests; try again later.",
    /// A handler wrote more than `copied_bytes_max`, or what cannot be serialised.
    Overflow = "overflow" InternalServerError "The response is too large.",
    /// A handler added a malformed field, one that is not its own, or more than `response_fields_bytes_max`.
    ResponseField = "response_field" InternalServerError "The response is malformed.",
    /// The method is unknown or not implemented (RFC 9110, 15.6.2).
    Method = "method" NotImplemented "This method is not implemented.",
    /// A transfer coding other than chunked (RFC 9112, 6.1).
    TransferCoding = "transfer_coding" NotImplemented "Only the transfer coding chunked is implemented.",
    /// No origin of the pool can be used: all are ejected, or their checks fail (RFC 9110, 15.6.4).
    NoOrigin = "no_origin" ServiceUnavailable "No server can take this request now.",
    /// The limit of calls, or of connections to the origins, is reached (RFC 9110, 15.6.4).
    OriginsBusy = "origins_busy" ServiceUnavailable "Too many requests are in progress.",
    /// The origin could not be reached, or broke off before its response began (RFC 9110, 15.6.3).
    OriginFailed = "origin_failed" BadGateway "The server behind this one broke off.",
    /// The origin's response is malformed, or its head too long (RFC 9110, 15.6.3).
    OriginMalformed = "origin_malformed" BadGateway "The server behind this one sent no valid response.",
    /// The origin did not respond in time (RFC 9110, 15.6.5).
    OriginLate = "origin_late" GatewayTimeout "The server behind this one did not respond in time.",
    /// The request wants a stored response only, and none is stored (RFC 9111, 5.2.1.7).
    NotCached = "not_cached" GatewayTimeout "There is no stored response that can be used.",
    /// The major version of HTTP is not 1 (RFC 9110, 15.6.6).
    Version = "version" VersionNotSupported "Only HTTP/1.0 and HTTP/1.1 are supported.",
}
