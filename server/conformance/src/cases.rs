//! The table.

use crate::expected::{Builder, Expected, bytes, r#continue, error, fatal, json, text};

/// Requests on one connection, and all that must come back.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// The section that demands it; RFC 9112 unless another is named.
    pub section: &'static str,
    /// What the client sends before it ends its stream.
    pub requests: Vec<u8>,
    /// What the server sends before it ends its own.
    pub responses: Vec<u8>,
    /// The server may frame a body as it likes: compare what is left when chunks are joined.
    pub free_chunks: bool,
}

impl Case {
    /// Whether any stack's buffers are large enough for it.
    pub fn is_small(&self) -> bool {
        self.requests.len() <= 1024
    }
}

const BAD_LINE: &str = "The request line is malformed.";
const BAD_TARGET: &str = "The request target is malformed.";
const BAD_FIELD: &str = "A header field is malformed.";
const BARE_LF: &str = "A line ends in LF without CR.";
const BAD_HOST: &str = "The Host header field is repeated or malformed.";
const NO_HOST: &str = "The Host header field is missing.";
const BAD_LENGTH: &str = "The Content-Length header field is repeated or malformed.";
const BAD_CODING: &str = "The Transfer-Encoding header field does not delimit the body.";
const CONFLICT: &str = "Content-Length and Transfer-Encoding exclude each other.";
const BAD_CHUNKS: &str = "The chunked body is malformed.";
const NOT_FOUND: &str = "There is nothing at this path.";
const NO_METHOD: &str = "This path does not have this method; see Allow.";
const NO_LENGTH: &str = "A body with Content-Length or chunked coding is required.";
const LARGE_BODY: &str = "The body is too large.";
const LONG_TARGET: &str = "The request target is too long.";
const EXPECTATION: &str = "Only the expectation 100-continue can be met.";
const SCHEME: &str = "Only http targets are served here.";
const LARGE_HEAD: &str = "The header section is too large.";
const MANY_FIELDS: &str = "The header section has too many fields.";
const LARGE_OVERHEAD: &str = "The chunk extensions and trailers are too large.";
const CODED: &str = "The body must not be in a content coding.";
const METHOD: &str = "This method is not implemented.";
const CODING: &str = "Only the transfer coding chunked is implemented.";
const NO_RESET: &str = "resetting is not allowed: start with --allow-reset";
const VERSION: &str = "Only HTTP/1.0 and HTTP/1.1 are supported.";

const BAD_REQUEST: &str = "400 Bad Request";
const NOT_IMPLEMENTED: &str = "501 Not Implemented";

fn hello() -> Builder {
    text("Hello, World!")
}

fn greeting() -> Builder {
    json(r#"{"message":"Hello, World!"}"#)
}

fn bad(reason: &str) -> Builder {
    fatal(BAD_REQUEST, reason)
}

fn not_found() -> Builder {
    error("404 Not Found", NOT_FOUND)
}

/// Every case for a server with the site's and the test's routes and the default limits.
pub fn cases() -> Vec<Case> {
    let mut table = Table(Vec::new());
    request_lines(&mut table);
    targets(&mut table);
    methods(&mut table);
    fields(&mut table);
    hosts(&mut table);
    connections(&mut table);
    content_lengths(&mut table);
    transfer_encodings(&mut table);
    chunks(&mut table);
    content_codings(&mut table);
    expectations(&mut table);
    limits(&mut table);
    pipelines(&mut table);
    table.0
}

struct Table(Vec<Case>);

impl Table {
    /// `requests` get exactly `responses`.
    fn case(
        &mut self,
        section: &'static str,
        name: &'static str,
        requests: impl AsRef<[u8]>,
        responses: impl IntoExpected,
    ) {
        self.0.push(Case {
            name,
            section,
            requests: requests.as_ref().to_vec(),
            responses: responses.into_expected(),
            free_chunks: false,
        });
    }

    /// The same, whichever way the response is cut into chunks.
    fn chunked(
        &mut self,
        section: &'static str,
        name: &'static str,
        requests: impl AsRef<[u8]>,
        responses: impl IntoExpected,
    ) {
        self.case(section, name, requests, responses);
        if let Some(case) = self.0.last_mut() {
            case.free_chunks = true;
        }
    }
}

/// One response or several.
trait IntoExpected {
    fn into_expected(self) -> Vec<u8>;
}

impl IntoExpected for Builder {
    fn into_expected(self) -> Vec<u8> {
        self.build().0
    }
}

impl IntoExpected for Vec<u8> {
    fn into_expected(self) -> Vec<u8> {
        self
    }
}

impl<const N: usize> IntoExpected for [Builder; N] {
    fn into_expected(self) -> Vec<u8> {
        self.iter().flat_map(|builder| builder.build().0).collect()
    }
}

impl<const N: usize> IntoExpected for [Expected; N] {
    fn into_expected(self) -> Vec<u8> {
        self.into_iter().flat_map(|expected| expected.0).collect()
    }
}

/// A GET with these field lines, each with its line end.
fn get(fields: &str) -> String {
    format!("GET /plaintext HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// A POST to the route that answers with the body it got.
fn post(fields: &str, body: &str) -> String {
    format!("POST /test/body HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

/// The same with a chunked body.
fn post_chunks(chunks: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", chunks)
}

fn request_lines(table: &mut Table) {
    table.case("3", "a minimal request", "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", hello());
    table.case("3", "a minimal request for JSON", "GET /json HTTP/1.1\r\nHost: a\r\n\r\n", greeting());
    table.case("2.2", "one empty line before a request is ignored", "\r\nGET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", hello());
    table.case("2.2", "two empty lines are not", "\r\n\r\nGET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("2.2", "an empty line that ends in LF", "\nGET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("2.2", "CR alone before a request", "\rGET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("2.2", "LF at the end of the request line", "GET /plaintext HTTP/1.1\nHost: a\r\n\r\n", bad(BARE_LF));
    table.case("2.2", "CR in the request line", "GET /plain\rtext HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_TARGET));
    table.case("2.2", "CR instead of CRLF", "GET /plaintext HTTP/1.1\rHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("2.2", "white space before the request line", " GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("3", "two spaces before the target", "GET  /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("3", "two spaces before the version", "GET /plaintext  HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("3", "a space at the end of the line", "GET /plaintext HTTP/1.1 \r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("3", "a tab instead of a space", "GET\t/plaintext HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("3", "a tab before the version", "GET /plaintext\tHTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("3", "a form feed in the line", "GET /plaintext\x0c HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_TARGET));
    table.case("3", "a space in the target", "GET /plain text HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("3", "no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("3", "an HTTP/0.9 request", "GET /plaintext\r\n", bad(BAD_LINE));
    table.case("3", "a line of one word", "GET\r\n", bad(BAD_LINE));
    table.case("3", "NUL in the target", "GET /plain\0text HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_TARGET));
    table.case("3", "the first byte of a TLS handshake", "\x16\x03\x01\x02\0\x01\0", bad(BAD_LINE));
    table.case("3.1", "a method in lower case is another one", "get /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", fatal(NOT_IMPLEMENTED, METHOD));
    table.case("3.1", "a method that is not a token", "G@T /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("RFC 9110, 9.1", "an unknown method", "BREW /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", fatal(NOT_IMPLEMENTED, METHOD));
    table.case("RFC 9110, 9.3.6", "CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", fatal(NOT_IMPLEMENTED, METHOD));
    table.case("RFC 9110, 9.3.8", "TRACE", "TRACE /plaintext HTTP/1.1\r\nHost: a\r\n\r\n", fatal(NOT_IMPLEMENTED, METHOD));
    table.case("2.3", "a version in lower case", "GET /plaintext http/1.1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("2.3", "a version without a minor part", "GET /plaintext HTTP/1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("2.3", "a version of three digits", "GET /plaintext HTTP/1.10\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("2.3", "a version with a comma", "GET /plaintext HTTP/1,1\r\nHost: a\r\n\r\n", bad(BAD_LINE));
    table.case("RFC 9110, 2.5", "a later minor version is understood as 1.1", "GET /plaintext HTTP/1.2\r\nHost: a\r\n\r\n", hello());
    table.case("RFC 9110, 15.6.6", "what only begins as the preface of HTTP/2 does", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", fatal("505 HTTP Version Not Supported", VERSION));
    table.case("RFC 9110, 15.6.6", "a later major version", "GET /plaintext HTTP/3.0\r\nHost: a\r\n\r\n", fatal("505 HTTP Version Not Supported", VERSION));
    table.case("RFC 9110, 15.6.6", "an earlier major version", "GET /plaintext HTTP/0.9\r\nHost: a\r\n\r\n", fatal("505 HTTP Version Not Supported", VERSION));
}

fn targets(table: &mut Table) {
    let mut get = |section, name, target: &str, response: Builder| {
        table.case(section, name, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), response);
    };
    get("3.2.1", "the query does not select the route", "/plaintext?a=b&c=/json?", hello());
    get("3.2.1", "an empty query", "/plaintext?", hello());
    get("3.2.1", "brackets and braces in a query, as browsers send them", "/plaintext?a[]={1|2}^`\\", hello());
    get("RFC 3986, 6.2.2.2", "an unreserved character encoded", "/%70laintext", hello());
    get("RFC 3986, 6.2.2.1", "hexadecimal digits in either case", "/%6a%73%6F%6E", greeting());
    get("RFC 3986, 2.2", "an encoded slash is no slash", "/test%2fstream", not_found());
    get("RFC 3986, 2.1", "an encoded percent sign is not decoded twice", "/%2570laintext", not_found());
    get("RFC 3986, 2.1", "NUL, encoded", "/plaintext%00", not_found());
    get("RFC 3986, 2.1", "a percent sign without digits", "/%zzlaintext", bad(BAD_TARGET));
    get("RFC 3986, 2.1", "a percent sign with one digit", "/plaintex%7", bad(BAD_TARGET));
    get("RFC 3986, 3.3", "paths are case-sensitive", "/Plaintext", not_found());
    get("RFC 3986, 3.3", "an empty segment counts", "//plaintext", not_found());
    get("RFC 3986, 3.3", "so does one at the end", "/plaintext/", not_found());
    get("RFC 3986, 3.3", "a brace in a path", "/plain{text", bad(BAD_TARGET));
    get("RFC 3986, 3.3", "a backslash in a path", "/..\\plaintext", bad(BAD_TARGET));
    get("3.2.1", "a path that nothing is at", "/nothing", not_found());
    get("3.2.1", "the root", "/", not_found());
    get("3.2", "a fragment", "/plaintext#top", bad(BAD_TARGET));
    get("3.2", "a quote", "/plaintext?\"", bad(BAD_TARGET));
    get("3.2", "a byte that is not ASCII", "/pläintext", bad(BAD_TARGET));
    get("3.2", "DEL", "/plaintext\x7f", bad(BAD_TARGET));
    get("3.2", "a relative path", "plaintext", bad(BAD_TARGET));
    get("3.2.2", "an absolute target", "http://example.org/plaintext", hello());
    get("3.2.2", "an absolute target with a port and a query", "http://example.org:8080/json?x", greeting());
    get("3.2.2", "an absolute target with an IPv6 address", "http://[::1]:8080/json", greeting());
    get("RFC 9110, 4.2.3", "the scheme is case-insensitive", "HTTP://example.org/plaintext", hello());
    get("RFC 9110, 4.2.3", "an empty path is the root", "http://example.org", not_found());
    get("RFC 9110, 4.2.3", "an empty path with a query", "http://example.org?x", not_found());
    get("RFC 9110, 4.2.1", "a URI without a host", "http:///plaintext", bad(BAD_TARGET));
    get("RFC 9110, 4.2.1", "a URI with a port and no host", "http://:80/plaintext", bad(BAD_TARGET));
    get("RFC 9110, 4.2.4", "user information", "http://user@example.org/plaintext", bad(BAD_TARGET));
    get("RFC 9110, 7.4", "a scheme that needs TLS", "https://example.org/plaintext", fatal("421 Misdirected Request", SCHEME));
    get("3.2.2", "something else than a scheme", "1http://example.org/plaintext", bad(BAD_TARGET));
    get("3.2.3", "authority-form is for CONNECT", "example.org:80", bad(BAD_TARGET));
    get("3.2.4", "asterisk-form is for OPTIONS", "*", bad(BAD_TARGET));
    table.case("3.2.2", "absolute-form does without Host in HTTP/1.0", "GET http://a/plaintext HTTP/1.0\r\n\r\n", hello().connection("close"));
    table.case("3.2.2", "but not in HTTP/1.1", "GET http://a/plaintext HTTP/1.1\r\n\r\n", bad(NO_HOST));
}

fn methods(table: &mut Table) {
    const ALL: &str = "GET, HEAD, POST, PUT, OPTIONS";
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
    table.case("RFC 9110, 9.3.2", "HEAD has the head of GET", request("HEAD /plaintext"), hello().head_only());
    table.case("RFC 9110, 9.3.2", "of JSON, too", request("HEAD /json"), greeting().head_only());
    table.case("RFC 9110, 9.3.2", "HEAD of nothing", request("HEAD /nothing"), not_found().head_only());
    table.case("RFC 9110, 9.3.2", "HEAD of a stream", request("HEAD /test/stream?bytes=9"), bytes("123456789").head_only());
    table.case("RFC 9110, 9.3.2", "a HEAD that is refused has no body, either", "HEAD /plaintext HTTP/1.1\r\n\r\n", bad(NO_HOST).head_only());
    table.case("RFC 9110, 9.3.2", "nor one with a malformed field", "HEAD /plaintext HTTP/1.1\r\nHost : a\r\n\r\n", bad(BAD_FIELD).head_only());
    table.case("RFC 9110, 15.5.6", "a method that the path does not have", request("DELETE /plaintext"), error("405 Method Not Allowed", NO_METHOD).allow("GET, HEAD, OPTIONS"));
    table.case("RFC 9110, 15.5.6", "GET where there is only POST", request("GET /event"), error("405 Method Not Allowed", NO_METHOD).allow("POST, OPTIONS"));
    table.case("RFC 9110, 15.5.6", "HEAD where there is only POST", request("HEAD /event"), error("405 Method Not Allowed", NO_METHOD).allow("POST, OPTIONS").head_only());
    table.case("RFC 9110, 9.3.7", "OPTIONS of a path", request("OPTIONS /plaintext"), Builder::new("200 OK").allow("GET, HEAD, OPTIONS"));
    table.case("RFC 9110, 9.3.7", "OPTIONS of the server", request("OPTIONS *"), Builder::new("200 OK").allow(ALL));
    table.case("3.2.4", "OPTIONS of the server, through a proxy", request("OPTIONS http://a"), Builder::new("200 OK").allow(ALL));
    table.case("RFC 9110, 9.3.7", "OPTIONS of nothing", request("OPTIONS /nothing"), not_found());
}

fn fields(table: &mut Table) {
    table.case("5.1", "names in any case", "GET /plaintext HTTP/1.1\r\nhOST: a\r\ncONNECTION: CLOSE\r\n\r\n", hello().connection("close"));
    table.case("5", "no white space after the colon", "GET /plaintext HTTP/1.1\r\nHost:a\r\n\r\n", hello());
    table.case("5", "white space around a value", "GET /plaintext HTTP/1.1\r\nHost: \t a \t \r\n\r\n", hello());
    table.case("5", "an empty value", get("X:\r\n"), hello());
    table.case("5", "a value of white space", get("X: \t \r\n"), hello());
    table.case("RFC 9110, 5.5", "obs-text in a value", get("X: \u{e9}\r\n"), hello());
    table.case("5.1", "a space before the colon", get("X : y\r\n"), bad(BAD_FIELD));
    table.case("5.1", "a space before the colon of Host", "GET /plaintext HTTP/1.1\r\nHost : a\r\n\r\n", bad(BAD_FIELD));
    table.case("5.1", "a tab before the colon", get("Content-Length\t: 5\r\n"), bad(BAD_FIELD));
    table.case("5.1", "a name with a space", get("X Y: z\r\n"), bad(BAD_FIELD));
    table.case("5.1", "an empty name", get(": x\r\n"), bad(BAD_FIELD));
    table.case("5.1", "a name that is not ASCII", get("\u{e9}: x\r\n"), bad(BAD_FIELD));
    table.case("5", "a line without a colon", get("X\r\n"), bad(BAD_FIELD));
    table.case("5.2", "a folded line", get("X: y\r\n z\r\n"), bad(BAD_FIELD));
    table.case("5.2", "a folded line, with a tab", get("X: y\r\n\tz\r\n"), bad(BAD_FIELD));
    table.case("2.2", "white space before the first field", "GET /plaintext HTTP/1.1\r\n Host: a\r\n\r\n", bad(BAD_FIELD));
    table.case("2.2", "LF at the end of a field", get("X: y\n"), bad(BARE_LF));
    table.case("2.2", "LF at the end of an empty field", get("X:\n"), bad(BARE_LF));
    table.case("2.2", "LF between two fields", get("X: y\nZ: z\r\n"), bad(BARE_LF));
    table.case("2.2", "LF as the empty line", "GET /plaintext HTTP/1.1\r\nHost: a\r\n\n", bad(BARE_LF));
    table.case("2.2", "LF for all lines but the first", "GET /plaintext HTTP/1.1\r\nHost: a\n\n", bad(BARE_LF));
    table.case("2.2", "LF, then CRLF", "GET /plaintext HTTP/1.1\r\nHost: a\n\r\n", bad(BARE_LF));
    table.case("2.2", "CR in a value", get("X: y\rz\r\n"), bad(BAD_FIELD));
    table.case("2.2", "CR CR LF", get("X: y\r\r\n"), bad(BAD_FIELD));
    table.case("2.2", "CR in a name", get("X\rY: z\r\n"), bad(BAD_FIELD));
    table.case("RFC 9110, 5.5", "NUL in a value", get("X: y\0z\r\n"), bad(BAD_FIELD));
    table.case("RFC 9110, 5.5", "NUL in a name", get("X\0: z\r\n"), bad(BAD_FIELD));
    table.case("RFC 9110, 5.5", "a control character in a value", get("X: \x1b[31m\r\n"), bad(BAD_FIELD));
    table.case("RFC 9110, 5.5", "DEL in a value", get("X: \x7f\r\n"), bad(BAD_FIELD));
    table.case("RFC 9110, 7.8", "an upgrade is ignored", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), hello());
}

fn hosts(table: &mut Table) {
    let host = |lines: &str| format!("GET /plaintext HTTP/1.1\r\n{lines}\r\n");
    table.case("3.2", "none", host(""), bad(NO_HOST));
    table.case("3.2", "none, among other fields", host("Accept: */*\r\n"), bad(NO_HOST));
    table.case("3.2", "none in HTTP/1.0", "GET /plaintext HTTP/1.0\r\n\r\n", hello().connection("close"));
    table.case("3.2", "an empty one", host("Host:\r\n"), hello());
    table.case("3.2", "a name and a port", host("Host: example.org:8080\r\n"), hello());
    table.case("3.2", "an IPv4 address", host("Host: 10.77.0.2:8080\r\n"), hello());
    table.case("3.2", "an IPv6 address", host("Host: [fd77::2]:8080\r\n"), hello());
    table.case("3.2", "percent-encoded", host("Host: ex%61mple.org\r\n"), hello());
    table.case("3.2", "twice", host("Host: a\r\nHost: a\r\n"), bad(BAD_HOST));
    table.case("3.2", "twice, different", host("Host: a\r\nAccept: */*\r\nhost: b\r\n"), bad(BAD_HOST));
    table.case("3.2", "twice in HTTP/1.0", "GET /plaintext HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", bad(BAD_HOST));
    table.case("3.2", "a list", host("Host: a, b c\r\n"), bad(BAD_HOST));
    table.case("3.2", "a path", host("Host: a/b\r\n"), bad(BAD_HOST));
    table.case("3.2", "user information", host("Host: user@a\r\n"), bad(BAD_HOST));
    table.case("3.2", "a port that is no number", host("Host: a:http\r\n"), bad(BAD_HOST));
    table.case("3.2", "an IPv6 address without brackets", host("Host: fd77::2\r\n"), bad(BAD_HOST));
    table.case("3.2", "obs-text", host("Host: \u{e9}\r\n"), bad(BAD_HOST));
}

fn connections(table: &mut Table) {
    let close = || hello().connection("close");
    let http_10 = |fields: &str| format!("GET /plaintext HTTP/1.0\r\n{fields}\r\n");
    table.case("9.6", "close", get("Connection: close\r\n"), close());
    table.case("9.6", "nothing is answered after close", get("Connection: close\r\n") + &get(""), close());
    table.case("9.3", "keep-alive is the default of HTTP/1.1", get("Connection: keep-alive\r\n") + &get(""), [hello(), hello()]);
    table.case("9.3", "close is the default of HTTP/1.0", http_10("") + &http_10(""), close());
    table.case("9.3", "keep-alive is said to HTTP/1.0", http_10("Connection: Keep-Alive\r\n") + &http_10(""), [hello().connection("keep-alive"), close()]);
    table.case("9.3", "close wins over keep-alive", get("Connection: keep-alive, close\r\n"), close());
    table.case("9.3", "on two lines, too", get("Connection: close\r\nConnection: keep-alive\r\n"), close());
    table.case("RFC 9110, 5.6.1", "empty members of the list", get("Connection: , ,close,\r\n"), close());
    table.case("RFC 9110, 7.6.1", "options that are not ours", get("Connection: x-closed, upgrade\r\n"), hello());
    table.case("9.3", "an error keeps the connection if it can", "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + &get(""), [not_found(), hello()]);
    table.case("9.6", "close with an error", "GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", not_found().connection("close"));
    table.case("8", "an incomplete head is not answered", "GET /plaintext HTTP/1.1\r\nHost: a\r\n", [] as [Builder; 0]);
    table.case("8", "an incomplete body is not answered", post("Content-Length: 5\r\n", "1234"), [] as [Builder; 0]);
}

fn content_lengths(table: &mut Table) {
    let length = |value: &str, body: &str| post(&format!("Content-Length: {value}\r\n"), body);
    table.case("6.2", "a body", length("5", "hello"), bytes("hello"));
    table.case("6.2", "the next request begins behind it", length("5", "hello") + &get(""), [bytes("hello"), hello()]);
    table.case("6.2", "an empty body", length("0", ""), bytes(""));
    table.case("RFC 9110, 8.6", "leading zeros", length("0000000000000000000000005", "hello"), bytes("hello"));
    table.case("RFC 9110, 15.5.12", "no length where there must be one", post("", ""), fatal("411 Length Required", NO_LENGTH));
    table.case("6.3", "no length where none is needed", "POST /reset HTTP/1.1\r\nHost: a\r\n\r\n", Builder::new("403 Forbidden").body("text/plain", NO_RESET));
    table.case("6.3", "repeated", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), bad(BAD_LENGTH));
    table.case("6.3", "repeated and different", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), bad(BAD_LENGTH));
    for (name, value) in [
        ("a list", "5, 5"),
        ("a plus sign", "+5"),
        ("a minus sign", "-5"),
        ("nothing", ""),
        ("a hexadecimal number", "0x5"),
        ("a fraction", "5.0"),
        ("two numbers", "5 5"),
        ("digits that are not ASCII", "\u{665}"),
        ("a number and a semicolon", "5;"),
    ] {
        table.case("RFC 9110, 8.6", name, length(value, "hello"), bad(BAD_LENGTH));
    }
    table.case("RFC 9110, 15.5.14", "more than 64 bits", length("18446744073709551621", "hello"), fatal("413 Content Too Large", LARGE_BODY));
    table.case("RFC 9110, 15.5.14", "64 bits", length("18446744073709551615", "hello"), fatal("413 Content Too Large", LARGE_BODY));
    table.case("6.3", "a body that nobody wants is skipped", "GET /plaintext HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned() + &get(""), [hello(), hello()]);
    table.case("6.3", "one with an error, too", "POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned() + &get(""), [not_found(), hello()]);
    table.case("9.6", "one before the end, too", "GET /plaintext HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello".to_owned() + &get(""), hello().connection("close"));
    table.case("9.3", "one that is too large ends the connection", "GET /plaintext HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\nhello", hello().connection("close"));
    table.case("6.2", "echoed", "POST /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned() + &get(""), [bytes("hello"), hello()]);
    table.case("6.2", "an echo of nothing", "POST /test/echo HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + &get(""), [bytes(""), hello()]);
}

fn transfer_encodings(table: &mut Table) {
    let coded = |fields: &str| post(fields, "5\r\nhello\r\n0\r\n\r\n");
    table.case("6.1", "chunked", coded("Transfer-Encoding: chunked\r\n"), bytes("hello"));
    table.case("7", "codings are case-insensitive", coded("Transfer-Encoding: Chunked\r\n"), bytes("hello"));
    table.case("RFC 9110, 5.6.1", "empty members of the list", coded("Transfer-Encoding: ,chunked,\r\n"), bytes("hello"));
    table.case("6.1", "with Content-Length", coded("Transfer-Encoding: chunked\r\nContent-Length: 15\r\n"), bad(CONFLICT));
    table.case("6.1", "after Content-Length", coded("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n"), bad(CONFLICT));
    table.case("6.1", "in HTTP/1.0", "POST /test/body HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", bad(BAD_CODING));
    table.case("6.1", "chunked twice", coded("Transfer-Encoding: chunked, chunked\r\n"), bad(BAD_CODING));
    table.case("6.1", "chunked on two lines", coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), bad(BAD_CODING));
    table.case("6.3", "chunked is not the last", coded("Transfer-Encoding: chunked, gzip\r\n"), bad(BAD_CODING));
    table.case("6.3", "no chunked", coded("Transfer-Encoding: gzip\r\n"), bad(BAD_CODING));
    table.case("6.1", "a coding before chunked", coded("Transfer-Encoding: gzip, chunked\r\n"), fatal(NOT_IMPLEMENTED, CODING));
    table.case("6.1", "a coding on a line before chunked", coded("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), fatal(NOT_IMPLEMENTED, CODING));
    for (name, value) in [
        ("nearly chunked", "xchunked"),
        ("identity, which is no longer one", "identity"),
        ("empty", ""),
        ("a parameter", "chunked;a=b"),
        ("quoted", "\"chunked\""),
        ("followed by a vertical tab's escape", "chunked\\x0b"),
    ] {
        table.case("6.3", name, coded(&format!("Transfer-Encoding: {value}\r\n")), bad(BAD_CODING));
    }
}

fn chunks(table: &mut Table) {
    let mut good = |section, name, chunks: &str, body: &str| {
        table.case(section, name, post_chunks(chunks) + &get(""), [bytes(body), hello()]);
    };
    good("7.1", "no data", "0\r\n\r\n", "");
    good("7.1", "several chunks", "5\r\nhello\r\n1\r\n,\r\n7\r\n world!\r\n0\r\n\r\n", "hello, world!");
    good("7.1", "sizes in either case", "A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a");
    good("7.1", "leading zeros", "0000000000000005\r\nhello\r\n0000\r\n\r\n", "hello");
    good("7.1", "leading zeros", "000005\r\nhello\r\n0000\r\n\r\n", "hello");
    good("7.1", "line ends in the data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n");
    good("7.1.1", "an extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n", "hello");
    good("7.1.1", "extensions with white space", "5 ; a = b\t; c\r\nhello\r\n0\r\n\r\n", "hello");
    good("7.1.1", "a quoted extension", "5;a=\"b;\\\"c\\\\ \"\r\nhello\r\n0\r\n\r\n", "hello");
    good("7.1.2", "trailers", "5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 7\r\nZ:\r\n\r\n", "hello");
    let overhead = |len| format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(len));
    good("7.1.1", "long extensions", &overhead(16_000), "hello");
    table.case("RFC 6585, 5", "extensions that are too long", post_chunks(&overhead(17_000)), fatal("431 Request Header Fields Too Large", LARGE_OVERHEAD));
    table.case("RFC 6585, 5", "trailers that are too long", post_chunks(&format!("0\r\nX: {}\r\n\r\n", "y".repeat(17_000))), fatal("431 Request Header Fields Too Large", LARGE_OVERHEAD));
    for (name, chunks) in [
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("a size that is no number", "x\r\nhello\r\n0\r\n\r\n"),
        ("a signed size", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("a space after the size", "5 \r\nhello\r\n0\r\n\r\n"),
        ("an underscore in the size", "5_0\r\nhello\r\n0\r\n\r\n"),
        (
            "more than 64 bits",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        ("data longer than the size", "4\r\nhello\r\n0\r\n\r\n"),
        ("LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("CR alone after the size", "5\rhello\r\n0\r\n\r\n"),
        ("LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("CR CR LF after the data", "5\r\nhello\r\r\n0\r\n\r\n"),
        ("nothing after the data", "5\r\nhello0\r\n\r\n"),
        ("LF after the last chunk", "5\r\nhello\r\n0\n\n"),
        ("LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("an extension without a name", "5;\r\nhello\r\n0\r\n\r\n"),
        ("an extension without a value", "5;a=\r\nhello\r\n0\r\n\r\n"),
        ("LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
        (
            "LF in a quoted extension",
            "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        ),
        ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("a space before a trailer's colon", "0\r\nX : y\r\n\r\n"),
        ("a trailer without a colon", "0\r\nX\r\n\r\n"),
        ("a folded trailer", "0\r\nX: y\r\n z\r\n\r\n"),
        ("LF after a trailer", "0\r\nX: y\n\r\n"),
        ("NUL in a trailer", "0\r\nX: \0\r\n\r\n"),
    ] {
        table.case("7.1", name, post_chunks(chunks), bad(BAD_CHUNKS));
    }
    table.case("RFC 9110, 15.5.14", "a chunk that does not fit the receive buffer", post_chunks(&format!("10001\r\n{}\r\n0\r\n\r\n", "x".repeat(25_000))), fatal("413 Content Too Large", LARGE_BODY));
    let unwanted = |chunks: &str| {
        format!(
            "GET /plaintext HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{}",
            get("")
        )
    };
    table.case("7.1", "chunks that nobody wants are skipped", unwanted("5\r\nhello\r\n0\r\nX: y\r\n\r\n"), [hello(), hello()]);
    table.case("7.1", "after malformed ones, nothing can be understood", unwanted("5\r\nhello!\r\n0\r\n\r\n"), hello());
    let echo = |chunks: &str| {
        format!(
            "POST /test/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{}",
            get("")
        )
    };
    table.chunked("7.1", "chunks are echoed", echo("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), [bytes("").chunked("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), hello()]);
}

fn content_codings(table: &mut Table) {
    let coded = |value: &str| post(&format!("Content-Length: 5\r\nContent-Encoding: {value}\r\n"), "hello");
    let refused = || fatal("415 Unsupported Media Type", CODED).accept_encoding("identity");
    for value in ["gzip", "GZip", "identity, br", "x"] {
        table.case("RFC 9110, 15.5.16", "a body in a content coding", coded(value), refused());
    }
    for value in ["", "identity", "Identity,"] {
        table.case("RFC 9110, 8.4", "a body in none", coded(value), bytes("hello"));
    }
    table.case("RFC 9110, 15.5.16", "a coded body that waits to be invited", post("Content-Length: 5\r\nContent-Encoding: gzip\r\nExpect: 100-continue\r\n", ""), refused());
    table.case("RFC 9110, 8.4", "a coded body that nobody reads", get("Content-Length: 0\r\nContent-Encoding: gzip\r\n"), hello());
    table.case("RFC 9110, 8.4", "an echo is as coded as the request", "POST /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello", bytes("hello"));
}

fn expectations(table: &mut Table) {
    let expect =
        |value: &str, body: &str| post(&format!("Content-Length: 5\r\nExpect: {value}\r\n"), body);
    table.case("RFC 9110, 10.1.1", "100-continue", expect("100-continue", "hello"), [r#continue(), bytes("hello").into()]);
    table.case("RFC 9110, 10.1.1", "expectations are case-insensitive", expect("100-Continue", "hello"), [r#continue(), bytes("hello").into()]);
    table.case("RFC 9110, 10.1.1", "without a body there is nothing to wait for", get("Expect: 100-continue\r\n"), hello());
    table.case("RFC 9110, 10.1.1", "HTTP/1.0 does not know it", "POST /test/body HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", bytes("hello").connection("close"));
    table.case("RFC 9110, 10.1.1", "a final answer instead", "POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", not_found().connection("close"));
    table.case("RFC 9110, 10.1.1", "a body that is too large is not invited", post("Content-Length: 65537\r\nExpect: 100-continue\r\n", ""), fatal("413 Content Too Large", LARGE_BODY));
    table.case("RFC 9110, 10.1.1", "for an echo", "PUT /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", [r#continue(), bytes("hello").into()]);
    table.case("RFC 9110, 15.5.18", "another expectation", expect("200-ok", "hello"), fatal("417 Expectation Failed", EXPECTATION));
    table.case("RFC 9110, 15.5.18", "one that can be met and one that cannot", expect("100-continue, x=y", "hello"), fatal("417 Expectation Failed", EXPECTATION));
}

fn limits(table: &mut Table) {
    let target = |len: usize| {
        format!(
            "GET /plaintext?{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "x".repeat(len - "/plaintext?".len())
        )
    };
    table.case("3", "a target of 8,000 bytes", target(8000), hello());
    table.case("RFC 9110, 15.5.15", "one byte more", target(8001), fatal("414 URI Too Long", LONG_TARGET));
    table.case("RFC 9110, 15.5.15", "a line that does not end", "GET /".to_owned() + &"x".repeat(10_000), fatal("414 URI Too Long", LONG_TARGET));
    let line = |method: &str, version: &str| format!("{method} / {version}\r\nHost: a\r\n\r\n");
    for len in [100, 8055, 8064, 10_000] {
        let long = "x".repeat(len);
        table.case("RFC 9112, 3", "a method longer than any", line(&long, "HTTP/1.1"), fatal(NOT_IMPLEMENTED, METHOD));
        table.case("RFC 9112, 3", "one that does not end", long.as_str(), if len < 8064 { Vec::new() } else { fatal(NOT_IMPLEMENTED, METHOD).build().0 });
        table.case("RFC 9112, 3", "a long one that is no token", line(&format!("G@{long}"), "HTTP/1.1"), bad(BAD_LINE));
        table.case("RFC 9112, 2.3", "a long version", line("GET", &format!("HTTP/1.1{long}")), bad(BAD_LINE));
    }
    let fields = |count: usize| get(&"X: y\r\n".repeat(count - 1));
    table.case("5.4", "16 fields", fields(16), hello());
    table.case("5.4", "17 fields", fields(17), hello());
    table.case("5.4", "100 fields", fields(100), hello());
    table.case("RFC 6585, 5", "101 fields", fields(101), fatal("431 Request Header Fields Too Large", MANY_FIELDS));
    table.case("RFC 6585, 5", "129 fields", fields(129), fatal("431 Request Header Fields Too Large", MANY_FIELDS));
    let head = |len: usize| {
        get(&format!(
            "X: {}\r\n",
            "y".repeat(len - get("X: \r\n").len())
        ))
    };
    table.case("5.4", "a head of 16 KiB", head(16 * 1024), hello());
    table.case("RFC 6585, 5", "one byte more", head(16 * 1024 + 1), fatal("431 Request Header Fields Too Large", LARGE_HEAD));
    table.case("RFC 6585, 5", "a head that does not end", get("").trim_end().to_owned() + &"\r\nX: y".repeat(3000), fatal("431 Request Header Fields Too Large", LARGE_HEAD));
    table.case("RFC 9110, 15.5.14", "a body that does not fit the receive buffer", post("Content-Length: 25000\r\n", &"x".repeat(25_000)), fatal("413 Content Too Large", LARGE_BODY));
}

fn pipelines(table: &mut Table) {
    let one = "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n";
    table.case("9.3.2", "three requests", [one; 3].concat(), [hello(), hello(), hello()]);
    table.case("9.3.2", "different ones, in order", format!("{one}HEAD /json HTTP/1.1\r\nHost: a\r\n\r\n{}{one}", post("Content-Length: 2\r\n", "ab")), [hello(), greeting().head_only(), bytes("ab"), hello()]);
    table.case("9.3.2", "an error ends them", format!("{one}GET /plaintext HTTP/1.1\r\n\r\n{one}"), [hello(), bad(NO_HOST)]);
    table.case("9.3.2", "an empty line after a body, as some old clients send it", format!("{}\r\n{one}", post("Content-Length: 2\r\n", "ab")), [bytes("ab"), hello()]);
    let many: String = one.repeat(200);
    table.0.push(Case {
        name: "two hundred requests",
        section: "9.3.2",
        requests: many.into_bytes(),
        responses: hello().build().0.repeat(200),
        free_chunks: false,
    });
}
