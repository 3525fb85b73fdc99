//! `Cache-Status` (RFC 9211): what this cache did for a response.

/// Why a request went to an origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Why {
    /// Only an origin can answer it: a range, a condition for the origin.
    #[default]
    Bypass,
    Method,
    UriMiss,
    VaryMiss,
    Stale,
    /// What is stored is fresh, but not for this request.
    Request,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Why::Bypass => "bypass",
            Why::Method => "method",
            Why::UriMiss => "uri-miss",
            Why::VaryMiss => "vary-miss",
            Why::Stale => "stale",
            Why::Request => "request",
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy)]
pub enum Done {
    /// Answered from the store.
    Hit,
    /// Answered by an origin, and stored or not.
    Fetched { why: Why, is_stored: bool },
    /// Answered by what another request had fetched.
    Collapsed(Why),
    /// Answered from the store, after an origin had said this.
    Forwarded { why: Why, status: u16 },
}

/// Appends the line. `ttl_s` is that of what is stored.
pub fn put(done: Done, ttl_s: Option<i64>, out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(b"Cache-Status: barewire; ");
    match done {
        Done::Hit => out.extend_from_slice(b"hit"),
        Done::Fetched { why, .. } | Done::Collapsed(why) | Done::Forwarded { why, .. } => {
            out.extend_from_slice(b"fwd=");
            out.extend_from_slice(why.name().as_bytes());
        }
    }
    match done {
        Done::Fetched {
            is_stored: true, ..
        } => out.extend_from_slice(b"; stored"),
        Done::Collapsed(_) => out.extend_from_slice(b"; collapsed"),
        Done::Forwarded { status, .. } => {
            out.extend_from_slice(b"; fwd-status=");
            out.extend_from_slice(number.format(status).as_bytes());
        }
        Done::Hit | Done::Fetched { .. } => {}
    }
    if let Some(ttl_s) = ttl_s {
        out.extend_from_slice(b"; ttl=");
        out.extend_from_slice(number.format(ttl_s).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
