//! The static table of HPACK (RFC 7541, appendix A).

use super::{Class, Field};

macro_rules! entry {
    ($name:literal, $value:literal, $class:ident) => {
        Field {
            class: Class::$class,
            line: concat!($name, ": ", $value, "\r\n").as_bytes(),
            name_len: $name.len() as u32,
        }
    };
}

/// Its entries; the first one has the index 1.
#[rustfmt::skip]
pub(super) static ENTRIES: [Field<'static>; 61] = [
    entry!(":authority", "", OtherAuthority),
    entry!(":method", "GET", Method),
    entry!(":method", "POST", Method),
    entry!(":path", "/", Path),
    entry!(":path", "/index.html", Path),
    entry!(":scheme", "http", Scheme),
    entry!(":scheme", "https", Scheme),
    entry!(":status", "200", Malformed),
    entry!(":status", "204", Malformed),
    entry!(":status", "206", Malformed),
    entry!(":status", "304", Malformed),
    entry!(":status", "400", Malformed),
    entry!(":status", "404", Malformed),
    entry!(":status", "500", Malformed),
    entry!("accept-charset", "", Ordinary),
    entry!("accept-encoding", "gzip, deflate", Ordinary),
    entry!("accept-language", "", Ordinary),
    entry!("accept-ranges", "", Ordinary),
    entry!("accept", "", Ordinary),
    entry!("access-control-allow-origin", "", Ordinary),
    entry!("age", "", Ordinary),
    entry!("allow", "", Ordinary),
    entry!("authorization", "", Ordinary),
    entry!("cache-control", "", Ordinary),
    entry!("content-disposition", "", Ordinary),
    entry!("content-encoding", "", ContentEncoding),
    entry!("content-language", "", Ordinary),
    entry!("content-length", "", ContentLength),
    entry!("content-location", "", Ordinary),
    entry!("content-range", "", Ordinary),
    entry!("content-type", "", Ordinary),
    entry!("cookie", "", Cookie),
    entry!("date", "", Ordinary),
    entry!("etag", "", Ordinary),
    entry!("expect", "", Expect),
    entry!("expires", "", Ordinary),
    entry!("from", "", Ordinary),
    entry!("host", "", Host),
    entry!("if-match", "", Ordinary),
    entry!("if-modified-since", "", Ordinary),
    entry!("if-none-match", "", Ordinary),
    entry!("if-range", "", Ordinary),
    entry!("if-unmodified-since", "", Ordinary),
    entry!("last-modified", "", Ordinary),
    entry!("link", "", Ordinary),
    entry!("location", "", Ordinary),
    entry!("max-forwards", "", Ordinary),
    entry!("proxy-authenticate", "", Ordinary),
    entry!("proxy-authorization", "", Ordinary),
    entry!("range", "", Ordinary),
    entry!("referer", "", Ordinary),
    entry!("refresh", "", Ordinary),
    entry!("retry-after", "", Ordinary),
    entry!("server", "", Ordinary),
    entry!("set-cookie", "", Ordinary),
    entry!("strict-transport-security", "", Ordinary),
    entry!("transfer-encoding", "", Malformed),
    entry!("user-agent", "", Ordinary),
    entry!("vary", "", Ordinary),
    entry!("via", "", Ordinary),
    entry!("www-authenticate", "", Ordinary),
];
