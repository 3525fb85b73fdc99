//! The table.

use super::{
    ACK, CONTINUATION, Case, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, cancel, data, frame, get, headers, request, settings, window_update,
};

const HELLO: &str = "DATA 1 END Hello, World!";

struct Table(Vec<Case>);

impl Table {
    /// `frames` get exactly `expected`.
    fn case(&mut self, section: &'static str, name: &'static str, frames: &[&[u8]], expected: &[&str]) {
        self.0.push(Case {
            name,
            section,
            frames: frames.concat(),
            expected: expected.iter().map(|text| text.to_string()).collect(),
        });
    }

    /// A request with these fields is malformed.
    fn malformed(&mut self, section: &'static str, name: &'static str, fields: &[(&str, &str)]) {
        self.case(section, name, &[&headers(1, END_STREAM, fields), &get(3, "/plaintext")],
            &["RST_STREAM 1 PROTOCOL_ERROR", "HEADERS 3 200", "DATA 3 END Hello, World!"]);
    }

    /// The connection ends with an error.
    fn fatal(&mut self, section: &'static str, name: &'static str, frames: &[&[u8]], goaway: &str) {
        self.case(section, name, frames, &[goaway]);
    }
}

/// Every case for a server with the site's and the test's routes and the default limits.
pub fn cases() -> Vec<Case> {
    let mut table = Table(Vec::new());
    requests(&mut table);
    frames(&mut table);
    field_blocks(&mut table);
    states(&mut table);
    flow_control(&mut table);
    malformed(&mut table);
    bodies(&mut table);
    table.0
}

fn requests(table: &mut Table) {
    table.case("8.1", "a request", &[&get(1, "/plaintext")], &["HEADERS 1 200", HELLO]);
    table.case("5.1.1", "streams need not follow each other", &[&get(1, "/plaintext"), &get(99, "/json")],
        &["HEADERS 1 200", HELLO, "HEADERS 99 200", r#"DATA 99 END {\"message\":\"Hello, World!\"}"#]);
    table.case("8.3.1", "HEAD", &[&headers(1, END_STREAM, &request("HEAD", "/plaintext"))], &["HEADERS 1 200 END"]);
    table.case("8.3.1", "OPTIONS of the server", &[&headers(1, END_STREAM, &request("OPTIONS", "*"))], &["HEADERS 1 200 END"]);
    table.case("8.3.1", "OPTIONS of a path", &[&headers(1, END_STREAM, &request("OPTIONS", "/plaintext"))], &["HEADERS 1 200 END"]);
    table.case("RFC 9110, 15.5.5", "no such path", &[&get(1, "/nothing")],
        &["HEADERS 1 404", r"DATA 1 END There is nothing at this path.\n"]);
    table.case("RFC 9110, 15.5.6", "no such method here", &[&headers(1, END_STREAM, &request("DELETE", "/plaintext"))],
        &["HEADERS 1 405", r"DATA 1 END This path does not have this method; see Allow.\n"]);
    table.case("RFC 9110, 15.6.2", "no such method at all", &[&headers(1, END_STREAM, &request("BREW", "/plaintext"))],
        &["HEADERS 1 501", r"DATA 1 END This method is not implemented.\n"]);
    table.case("8.5", "CONNECT", &[&headers(1, END_STREAM, &[(":method", "CONNECT"), (":authority", "a:80")])],
        &["HEADERS 1 501", r"DATA 1 END This method is not implemented.\n"]);
    table.case("8.3.1", "a path that is no path", &[&get(1, "nothing")],
        &["HEADERS 1 400", r"DATA 1 END The request target is malformed.\n"]);
    table.case("8.3.1", "a path with a fragment", &[&get(1, "/plaintext#a")],
        &["HEADERS 1 400", r"DATA 1 END The request target is malformed.\n"]);
    table.case("8.3.1", "a scheme that is not served",
        &[&headers(1, END_STREAM, &[(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")])],
        &["HEADERS 1 421", r"DATA 1 END Only http targets are served here.\n"]);
    table.case("8.3.1", "Host instead of an authority",
        &[&headers(1, END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":path", "/plaintext"), ("host", "a")])],
        &["HEADERS 1 200", HELLO]);
    table.case("8.3.1", "neither an authority nor Host",
        &[&headers(1, END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":path", "/plaintext")])],
        &["HEADERS 1 400", r"DATA 1 END The Host header field is missing.\n"]);
    table.case("RFC 9110, 10.1.1", "an expectation that cannot be met",
        &[&headers(1, END_STREAM, &[&request("GET", "/plaintext")[..], &[("expect", "miracles")]].concat())],
        &["HEADERS 1 417", r"DATA 1 END Only the expectation 100-continue can be met.\n"]);
    table.case("RFC 9110, 15.5.15", "a target that is too long", &[&get(1, &format!("/{}", "x".repeat(8000)))],
        &["HEADERS 1 414", r"DATA 1 END The request target is too long.\n"]);
    table.case("10.5.1", "too many fields",
        &[&headers(1, END_STREAM, &[&request("GET", "/plaintext")[..], &[("a", "b"); 101]].concat()), &get(3, "/plaintext")],
        &["HEADERS 1 431", r"DATA 1 END The header section has too many fields.\n", "HEADERS 3 200", "DATA 3 END Hello, World!"]);
}

fn frames(table: &mut Table) {
    let get = get(1, "/plaintext");
    table.case("6.7", "PING", &[&frame(PING, 0, 0, b"12345678")], &["PING ACK 12345678"]);
    table.case("6.7", "an answer to no PING", &[&frame(PING, ACK, 0, b"12345678"), &get], &["HEADERS 1 200", HELLO]);
    table.fatal("6.7", "PING on a stream", &[&frame(PING, 0, 1, b"12345678")], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.7", "PING of another length", &[&frame(PING, 0, 0, b"1234567")], "GOAWAY 0 FRAME_SIZE_ERROR");
    table.fatal("4.2", "a frame that is too long", &[&frame(0xee, 0, 0, &[0; 16_385])], "GOAWAY 0 FRAME_SIZE_ERROR");
    table.case("5.5", "a frame of an unknown type", &[&frame(0xee, 0xff, 0, &[0; 16_384]), &get], &["HEADERS 1 200", HELLO]);
    table.case("6.3", "PRIORITY", &[&frame(2, 0, 3, &[0; 5]), &get], &["HEADERS 1 200", HELLO]);
    table.case("6.3", "PRIORITY of another length", &[&get, &frame(2, 0, 1, &[0; 4])],
        &["HEADERS 1 200", HELLO, "RST_STREAM 1 FRAME_SIZE_ERROR"]);
    table.fatal("6.3", "PRIORITY without a stream", &[&frame(2, 0, 0, &[0; 5])], "GOAWAY 0 PROTOCOL_ERROR");
    table.case("6.5", "SETTINGS are acknowledged", &[&settings(&[(4, 100), (0xff, 7)])], &["SETTINGS ACK"]);
    table.fatal("6.5", "SETTINGS on a stream", &[&frame(SETTINGS, 0, 1, &[])], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.5", "SETTINGS of a length that no parameters have", &[&frame(SETTINGS, 0, 0, &[0; 5])], "GOAWAY 0 FRAME_SIZE_ERROR");
    table.fatal("6.5", "an acknowledgement that says something", &[&frame(SETTINGS, ACK, 0, &[0; 6])], "GOAWAY 0 FRAME_SIZE_ERROR");
    table.fatal("6.5.2", "ENABLE_PUSH is neither 0 nor 1", &[&settings(&[(2, 2)])], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.5.2", "INITIAL_WINDOW_SIZE is too large", &[&settings(&[(4, 1 << 31)])], "GOAWAY 0 FLOW_CONTROL_ERROR");
    table.fatal("6.5.2", "MAX_FRAME_SIZE is too small", &[&settings(&[(5, 16_383)])], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.5.2", "MAX_FRAME_SIZE is too large", &[&settings(&[(5, 1 << 24)])], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.4", "RST_STREAM of an idle stream", &[&cancel(1)], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.4", "RST_STREAM without a stream", &[&cancel(0)], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.4", "RST_STREAM of another length", &[&frame(RST_STREAM, 0, 1, &[0; 3])], "GOAWAY 0 FRAME_SIZE_ERROR");
    table.fatal("6.6", "PUSH_PROMISE from a client", &[&frame(PUSH_PROMISE, 0, 1, &[0; 4])], "GOAWAY 0 PROTOCOL_ERROR");
    table.case("6.8", "GOAWAY from a client", &[&frame(GOAWAY, 0, 0, &[0; 8]), &get], &["HEADERS 1 200", HELLO]);
    table.fatal("6.8", "GOAWAY on a stream", &[&frame(GOAWAY, 0, 1, &[0; 8])], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.10", "CONTINUATION of nothing", &[&frame(CONTINUATION, END_HEADERS, 1, &[])], "GOAWAY 0 PROTOCOL_ERROR");
}

fn field_blocks(table: &mut Table) {
    let whole = block(&request("GET", "/plaintext"));
    let (first, rest) = whole.split_at(10);
    let (second, third) = rest.split_at(10);
    let begun = frame(HEADERS, END_STREAM, 1, first);
    table.case("4.3", "a block in three frames",
        &[&begun, &frame(CONTINUATION, 0, 1, second), &frame(CONTINUATION, END_HEADERS, 1, third)], &["HEADERS 1 200", HELLO]);
    table.fatal("4.3", "another frame within a block", &[&begun, &frame(PING, 0, 0, &[0; 8])], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.10", "CONTINUATION of another stream", &[&begun, &frame(CONTINUATION, END_HEADERS, 3, rest)], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("10.5.1", "CONTINUATION without end", &[&begun, &frame(CONTINUATION, 0, 1, &[]).repeat(17)], "GOAWAY 0 ENHANCE_YOUR_CALM");
    let long = frame(CONTINUATION, 0, 1, &[0; 16_384]);
    table.fatal("10.5.1", "a block that is longer than a head may be", &[&begun, &long], "GOAWAY 0 ENHANCE_YOUR_CALM");
    table.fatal("4.3", "a block that cannot be decoded", &[&frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff])], "GOAWAY 1 COMPRESSION_ERROR");
    table.fatal("4.3", "an entry of the table that is not there", &[&frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xbe])], "GOAWAY 1 COMPRESSION_ERROR");
    let padded = [&[3][..], &whole, &[0; 3]].concat();
    table.case("6.2", "padding", &[&frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &padded)], &["HEADERS 1 200", HELLO]);
    let padded = [&[whole.len() as u8 + 1][..], &whole].concat();
    table.fatal("6.2", "more padding than there is", &[&frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &padded)], "GOAWAY 0 PROTOCOL_ERROR");
    let with_priority = [&[0, 0, 0, 0, 16][..], &whole].concat();
    table.case("6.2", "a priority of RFC 7540", &[&frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY, 1, &with_priority)], &["HEADERS 1 200", HELLO]);
    table.fatal("6.2", "a priority that is not there", &[&frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY, 1, &[0; 4])], "GOAWAY 0 FRAME_SIZE_ERROR");
}

fn states(table: &mut Table) {
    let get = get(1, "/plaintext");
    let post = headers(1, 0, &request("POST", "/test/body"));
    table.fatal("5.1.1", "a request without a stream", &[&frame(HEADERS, END_STREAM | END_HEADERS, 0, &block(&request("GET", "/")))], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("5.1.1", "a stream of the server's", &[&frame(HEADERS, END_STREAM | END_HEADERS, 2, &block(&request("GET", "/")))], "GOAWAY 0 PROTOCOL_ERROR");
    table.case("5.1.1", "a stream that is over", &[&get, &get], &["HEADERS 1 200", HELLO, "GOAWAY 1 STREAM_CLOSED"]);
    table.fatal("5.1", "DATA on an idle stream", &[&data(1, 0, b"a")], "GOAWAY 0 PROTOCOL_ERROR");
    table.fatal("6.1", "DATA without a stream", &[&data(0, 0, b"a")], "GOAWAY 0 PROTOCOL_ERROR");
    table.case("5.1", "DATA on a stream that is over", &[&get, &data(1, 0, b"a")], &["HEADERS 1 200", HELLO, "RST_STREAM 1 STREAM_CLOSED"]);
    table.fatal("5.1", "WINDOW_UPDATE of an idle stream", &[&window_update(1, 1)], "GOAWAY 0 PROTOCOL_ERROR");
    table.case("5.1", "WINDOW_UPDATE of a stream that is over", &[&get, &window_update(1, 1)], &["HEADERS 1 200", HELLO]);
    table.case("5.1", "RST_STREAM of a stream that is over", &[&get, &cancel(1)], &["HEADERS 1 200", HELLO]);
    table.case("5.4.2", "a request that is cancelled", &[&post, &data(1, 0, b"a"), &cancel(1)], &[]);
    table.case("8.1", "trailers", &[&post, &data(1, 0, b"abc"), &headers(1, END_STREAM, &[("a", "b")])], &["HEADERS 1 200", "DATA 1 END abc"]);
    table.case("8.1", "trailers that are not the end", &[&post, &headers(1, 0, &[("a", "b")])], &["RST_STREAM 1 PROTOCOL_ERROR"]);
    table.case("8.1", "trailers with a pseudo-header field", &[&post, &headers(1, END_STREAM, &[(":path", "/")])], &["RST_STREAM 1 PROTOCOL_ERROR"]);
    table.case("5.1", "what is still on its way to a stream that was reset", &[&headers(1, 0, &[]), &data(1, 0, b"a"), &headers(1, END_STREAM, &[])],
        &["RST_STREAM 1 PROTOCOL_ERROR"]);
}

fn flow_control(table: &mut Table) {
    let get = get(1, "/plaintext");
    let narrow = settings(&[(4, 5)]);
    table.case("6.9.2", "a response waits for the window of its stream", &[&narrow, &get, &window_update(1, 8)],
        &["SETTINGS ACK", "HEADERS 1 200", "DATA 1 Hello", "DATA 1 END , World!"]);
    table.case("6.9.2", "a window that is made smaller and larger", &[&settings(&[(4, 0)]), &get, &settings(&[(4, 100)])],
        &["SETTINGS ACK", "HEADERS 1 200", "SETTINGS ACK", HELLO]);
    table.case("6.9.1", "a response that waits is cancelled", &[&narrow, &get, &cancel(1), &window_update(1, 100)],
        &["SETTINGS ACK", "HEADERS 1 200", "DATA 1 Hello"]);
    table.fatal("6.9", "WINDOW_UPDATE by nothing", &[&window_update(0, 0)], "GOAWAY 0 PROTOCOL_ERROR");
    table.case("6.9", "WINDOW_UPDATE of a stream by nothing", &[&narrow, &get, &window_update(1, 0)],
        &["SETTINGS ACK", "HEADERS 1 200", "DATA 1 Hello", "RST_STREAM 1 PROTOCOL_ERROR"]);
    table.fatal("6.9.1", "a window that is too large", &[&window_update(0, (1 << 31) - 1)], "GOAWAY 0 FLOW_CONTROL_ERROR");
    table.case("6.9.1", "a window of a stream that is too large", &[&narrow, &headers(1, 0, &request("POST", "/test/body")), &window_update(1, (1 << 31) - 1)],
        &["SETTINGS ACK", "RST_STREAM 1 FLOW_CONTROL_ERROR"]);
    table.fatal("6.9", "WINDOW_UPDATE of another length", &[&frame(WINDOW_UPDATE, 0, 0, &[0; 3])], "GOAWAY 0 FRAME_SIZE_ERROR");
}

fn malformed(table: &mut Table) {
    let with = |name, value| [&request("GET", "/plaintext")[..], &[(name, value)]].concat();
    table.malformed("8.2.1", "a name with an upper-case letter", &with("A", "b"));
    table.malformed("8.2.1", "a name with a space", &with("a b", "c"));
    table.malformed("8.2.1", "a name with a colon", &with("a:", "b"));
    table.malformed("8.2.1", "an empty name", &with("", "b"));
    table.malformed("8.2.1", "a value with a line end", &with("a", "b\r\nc: d"));
    table.malformed("8.2.1", "a value with NUL", &with("a", "b\0"));
    table.malformed("8.2.1", "a value that begins with a space", &with("a", " b"));
    table.malformed("8.2.1", "a value that ends with a tab", &with("a", "b\t"));
    table.malformed("8.2.2", "Connection", &with("connection", "close"));
    table.malformed("8.2.2", "Transfer-Encoding", &with("transfer-encoding", "chunked"));
    table.malformed("8.2.2", "Keep-Alive", &with("keep-alive", "5"));
    table.malformed("8.2.2", "Upgrade", &with("upgrade", "h2c"));
    table.malformed("8.2.2", "TE that asks for more than trailers", &with("te", "gzip"));
    table.malformed("8.3", "a pseudo-header field of responses", &with(":status", "200"));
    table.malformed("8.3", "a pseudo-header field that nobody knows", &with(":color", "red"));
    table.malformed("8.3", "a pseudo-header field twice", &with(":path", "/"));
    table.malformed("8.3", "a pseudo-header field behind others",
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), ("a", "b"), (":path", "/plaintext")]);
    table.malformed("8.3", "an authority between cookies",
        &[(":method", "GET"), (":scheme", "http"), (":path", "/plaintext"), ("cookie", "a=0123456789"), (":authority", "a"), ("cookie", "b=1")]);
    table.malformed("8.3.1", "no method", &request("GET", "/plaintext")[1..]);
    table.malformed("8.3.1", "no scheme", &[(":method", "GET"), (":path", "/plaintext"), (":authority", "a")]);
    table.malformed("8.3.1", "no path", &[(":method", "GET"), (":scheme", "http"), (":authority", "a")]);
    table.malformed("8.3.1", "an empty path", &request("GET", ""));
    table.malformed("8.3.1", "Host that is not the authority", &with("host", "b"));
    table.malformed("8.1.1", "a length of a request that is over", &with("content-length", "1"));
    table.malformed("8.1.1", "two lengths", &[&with("content-length", "0")[..], &[("content-length", "1")]].concat());
    table.malformed("8.1.1", "a length that is no number", &with("content-length", "+0"));
    table.case("8.2.2", "TE that asks for trailers", &[&headers(1, END_STREAM, &with("te", "trailers"))], &["HEADERS 1 200", HELLO]);
    table.case("8.3.1", "Host that is the authority", &[&headers(1, END_STREAM, &with("host", "a"))], &["HEADERS 1 200", HELLO]);
}

fn bodies(table: &mut Table) {
    let post = |length: &'static str| [&request("POST", "/test/body")[..], &[("content-length", length)]].concat();
    table.case("8.1", "a body", &[&headers(1, 0, &post("3")), &data(1, END_STREAM, b"abc")], &["HEADERS 1 200", "DATA 1 END abc"]);
    table.case("8.1", "a body in pieces", &[&headers(1, 0, &post("3")), &data(1, 0, b"a"), &data(1, 0, b""), &data(1, END_STREAM, b"bc")],
        &["HEADERS 1 200", "DATA 1 END abc"]);
    table.case("8.1", "an empty body", &[&headers(1, 0, &request("POST", "/test/body")), &data(1, END_STREAM, b"")], &["HEADERS 1 200 END"]);
    table.case("8.1", "no body where one is taken", &[&headers(1, END_STREAM, &request("POST", "/test/body"))], &["HEADERS 1 200 END"]);
    table.case("8.1.1", "a body that is shorter than said", &[&headers(1, 0, &post("3")), &data(1, END_STREAM, b"ab")], &["RST_STREAM 1 PROTOCOL_ERROR"]);
    table.case("8.1.1", "a body that is longer than said", &[&headers(1, 0, &post("3")), &data(1, 0, b"abcd")], &["RST_STREAM 1 PROTOCOL_ERROR"]);
    table.case("6.1", "a padded body", &[&headers(1, 0, &post("3")), &data(1, END_STREAM | PADDED, b"\x02abc\0\0")], &["HEADERS 1 200", "DATA 1 END abc"]);
    table.fatal("6.1", "a body of more padding than there is", &[&headers(1, 0, &post("3")), &data(1, PADDED, b"\x04abc")], "GOAWAY 1 PROTOCOL_ERROR");
    table.case("RFC 9110, 10.1.1", "the client asks first", &[&headers(1, 0, &[&post("3")[..], &[("expect", "100-continue")]].concat()), &data(1, END_STREAM, b"abc")],
        &["HEADERS 1 100", "HEADERS 1 200", "DATA 1 END abc"]);
    table.case("RFC 9110, 15.5.14", "a body that is too large", &[&headers(1, 0, &post("65537"))],
        &["HEADERS 1 413", r"DATA 1 END The body is too large.\n", "RST_STREAM 1 NO_ERROR"]);
    table.case("RFC 9110, 15.5.16", "a body in a content coding", &[&headers(1, 0, &[&post("3")[..], &[("content-encoding", "gzip")]].concat())],
        &["HEADERS 1 415", r"DATA 1 END The body must not be in a content coding.\n", "RST_STREAM 1 NO_ERROR"]);
    table.case("8.1", "a body that nobody wants", &[&headers(1, 0, &request("GET", "/plaintext")), &data(1, END_STREAM, b"abc"), &get(3, "/plaintext")],
        &["HEADERS 1 200", HELLO, "HEADERS 3 200", "DATA 3 END Hello, World!"]);
    table.case("8.1", "two bodies at once",
        &[&headers(1, 0, &request("POST", "/test/body")), &headers(3, 0, &request("POST", "/test/body")), &data(1, 0, b"a"), &data(3, 0, b"b"), &data(3, END_STREAM, b"c"), &data(1, END_STREAM, b"d")],
        &["HEADERS 3 200", "DATA 3 END bc", "HEADERS 1 200", "DATA 1 END ad"]);
    table.case("8.1", "an echo", &[&headers(1, 0, &request("POST", "/test/echo")), &data(1, END_STREAM, b"a")], &["HEADERS 1 200", "DATA 1 END a"]);
}
