//! The head of a request as it is sent to an origin. It is written anew: without the fields that are for one connection
//! only, and with the address of the client (RFC 9110, section 7.6; RFC 7239).

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use barewire_http::{Request, Upload};

/// The client of a request, and how it is connected.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    pub peer: Option<SocketAddr>,
    pub is_tls: bool,
    /// The version of HTTP in which it asked, for `Via`.
    pub version: &'static str,
    /// It is a trusted proxy: its `Forwarded` and `X-Forwarded-…` are kept.
    pub is_trusted: bool,
}

/// Whether a field is for one connection only (RFC 9110, section 7.6.1), even if `Connection` does not name it, or
/// frames the message, which the next hop does anew.
fn is_of_connection(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    ];
    NAMES.iter().any(|each| name.eq_ignore_ascii_case(each))
}

/// The fields that are forwarded: those for one connection are not.
pub fn forwarded<'a, I>(fields: impl Fn() -> I) -> impl Iterator<Item = (&'a [u8], &'a [u8])>
where
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    let names_any = fields().any(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
    let all = fields();
    all.filter(move |(name, _)| !(is_of_connection(name) || names_any && is_named(fields(), name)))
}

/// Whether one of the fields `Connection` among `fields` names `name`.
fn is_named<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, name: &[u8]) -> bool {
    let mut connections = fields.filter(|(each, _)| each.eq_ignore_ascii_case(b"connection"));
    connections.any(|(_, value)| {
        let mut options = value.split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(name))
    })
}

/// Whether the path has a segment `.` or `..`, in any encoding: its prefix does not say which resource it means.
pub fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        loop {
            rest = match rest {
                [] => return matches!(dots, 1 | 2),
                [b'.', tail @ ..] => tail,
                [b'%', b'2', b'e' | b'E', tail @ ..] => tail,
                _ => return false,
            };
            dots += 1;
        }
    })
}

/// Appends the head to `out`.
pub fn compose(request: &Request<'_>, upload: Upload, asker: &Asker, out: &mut Vec<u8>) {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.path());
    if let Some(query) = request.query() {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let host = request.field("host");
    // RFC 9112, section 3.2: first, and also if an HTTP/1.0 client sent none.
    line(out, "Host", host.unwrap_or_default());
    for (name, value) in forwarded(|| request.fields()) {
        let is = |lower: &str| name.eq_ignore_ascii_case(lower.as_bytes());
        let is_ours = match name.len() {
            4 => is("host"),
            6 => is("expect"),
            9 => is("forwarded"),
            15 => is("x-forwarded-for"),
            16 => is("x-forwarded-host"),
            17 => is("x-forwarded-proto"),
            _ => false,
        };
        if !is_ours {
            line(out, name, value);
        }
    }
    // A list may have several lines (RFC 9110, section 5.3).
    out.extend_from_slice(b"Via: ");
    out.extend_from_slice(asker.version.as_bytes());
    out.extend_from_slice(b" barewire\r\n");
    say_who_asked(request, asker, host, out);
    match upload {
        Upload::Absent => {}
        Upload::Length(length) => {
            line(
                out,
                "Content-Length",
                itoa::Buffer::new().format(length).as_bytes(),
            );
        }
        Upload::Chunked => line(out, "Transfer-Encoding", b"chunked"),
    }
    out.extend_from_slice(b"\r\n");
}

fn say_who_asked(request: &Request<'_>, asker: &Asker, host: Option<&[u8]>, out: &mut Vec<u8>) {
    let proto = match asker.is_tls {
        true => "https",
        false => "http",
    };
    let ip = asker.peer.map(|peer| peer.ip().to_canonical());
    let names = [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
    ];
    let mut before = [false; 4];
    if asker.is_trusted {
        for (name, value) in request.fields() {
            let at = names
                .iter()
                .position(|each| name.eq_ignore_ascii_case(each.as_bytes()));
            if let Some(at) = at {
                before[at] = true;
                line(out, names[at], value);
            }
        }
    }
    out.extend_from_slice(b"Forwarded: for=");
    let ip_text = put_ip(ip, out);
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(proto.as_bytes());
    // A host that would need escapes in a quoted string is left out.
    if let Some(host) = host.filter(|host| !host.is_empty() && !host.contains(&b'"')) {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(host);
        out.push(b'"');
    }
    out.extend_from_slice(b"\r\n");
    if ip.is_some() {
        out.extend_from_slice(b"X-Forwarded-For: ");
        out.extend_from_within(ip_text);
        out.extend_from_slice(b"\r\n");
    }
    // Of several proxies, the first one knows what the client asked for.
    if !before[2]
        && let Some(host) = host
    {
        line(out, "X-Forwarded-Host", host);
    }
    if !before[3] {
        line(out, "X-Forwarded-Proto", proto.as_bytes());
    }
}

/// Appends the address as `Forwarded` names it (RFC 7239, section 6), and returns where its text is. Octets are written by
/// `itoa`: `fmt` takes longer for them than the rest of a head does.
fn put_ip(ip: Option<IpAddr>, out: &mut Vec<u8>) -> Range<usize> {
    let from = out.len();
    match ip {
        None => out.extend_from_slice(b"unknown"),
        Some(IpAddr::V4(ip)) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        Some(IpAddr::V6(ip)) => {
            // Writing to a vector does not fail.
            let _ = write!(out, "\"[{ip}]\"");
            return from + 2..out.len() - 2;
        }
    }
    from..out.len()
}

/// Appends a field line to `out`.
pub fn line(out: &mut Vec<u8>, name: impl AsRef<[u8]>, value: &[u8]) {
    out.extend_from_slice(name.as_ref());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_mean_others_are_found_however_they_are_written() {
        for path in [
            "/a/../b",
            "/..",
            "/.",
            "/a/./b",
            "/%2e%2E/b",
            "/.%2e",
            "/a/..",
        ] {
            assert!(has_dot_segment(path.as_bytes()), "{path}");
        }
        for path in [
            "/",
            "/a//b",
            "/...",
            "/.well-known/x",
            "/a..b",
            "/%2e%2ea",
            "/a.",
        ] {
            assert!(!has_dot_segment(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_field_is_for_one_connection_if_connection_says_so() {
        let fields: [(&[u8], &[u8]); 2] =
            [(b"Connection", b"close, X-Secret"), (b"X-Secret", b"1")];
        assert!(is_named(fields.into_iter(), b"x-secret"));
        assert!(!is_named(fields.into_iter(), b"x-other"));
    }
    #[test]
    fn addresses_are_written_as_forwarded_names_them() {
        for (ip, named) in [
            ("10.0.255.1", "10.0.255.1"),
            ("0.0.0.0", "0.0.0.0"),
            ("fd77::2", "\"[fd77::2]\""),
        ] {
            let mut out = b"for=".to_vec();
            let text = put_ip(ip.parse().ok(), &mut out);
            assert_eq!(out, format!("for={named}").as_bytes());
            assert_eq!(&out[text], ip.as_bytes());
        }
        let mut out = Vec::new();
        put_ip(None, &mut out);
        assert_eq!(out, b"unknown");
    }
}
