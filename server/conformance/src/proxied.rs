//! The same cases through a proxy, whose origin is a server that answers them: what a client gets then.
//!
//! A proxy refuses what is malformed itself, in the same words. What is well-formed it forwards, and frames both messages
//! anew. So the fields of a response come in another order, and with `Via`; and its client's connection ends for reasons of
//! its own, not because the origin ends the one behind it (RFC 9110, section 7.6.1).

use std::net::SocketAddr;

use crate::cases::{Case, cases};
use crate::driver::{Driver, Tcp};
use crate::expected;
use crate::{join_chunks, show};

/// How the answer to a case differs.
#[derive(Debug, Clone, Copy)]
enum Through {
    /// The origin closes its connection behind its answer: to the proxy the request is complete, and its client's
    /// connection goes on.
    StaysOpen,
    /// `Allow` has what the proxy forwards: `OPTIONS *` asks for itself (RFC 9110, section 9.3.7).
    AllowsAll,
    /// The body is invited by the proxy, which does not know what the origin will say to the head; then nothing follows,
    /// because the client ends its stream, unless the origin is faster.
    Invites,
    /// The client ends its stream before its body is complete, and with it the call, unless the origin is faster.
    EndsEarly,
    /// The origin answers the head, and the proxy refuses the body: which of them is first is a matter of time.
    Races,
    /// The proxy adds fields, and the origin refuses so many.
    TooManyFields,
}

/// The cases with another answer, by name.
const DIFFERENT: &[(&str, Through)] = &[
    ("OPTIONS of the server", Through::AllowsAll),
    ("OPTIONS of the server, through a proxy", Through::AllowsAll),
    ("no length where there must be one", Through::StaysOpen),
    ("one that is too large ends the connection", Through::EndsEarly),
    ("a body in a content coding", Through::StaysOpen),
    ("a coded body that waits to be invited", Through::Invites),
    ("a final answer instead", Through::Invites),
    ("a body that is too large is not invited", Through::Invites),
    ("after malformed ones, nothing can be understood", Through::Races),
    ("100 fields", Through::TooManyFields),
];

/// Runs every small case against the proxy at `proxy`, whole and cut in two. Returns how many there were, and how many
/// requests can have reached the origin at most. It must have the test's routes.
///
/// # Errors
///
/// Each difference, in a text of its own.
pub fn check_through_proxy(proxy: SocketAddr) -> Result<(usize, u64), Vec<String>> {
    let mut tcp = Tcp::new(proxy);
    let cases: Vec<_> = cases().into_iter().filter(Case::is_small).collect();
    let mut differences = Vec::new();
    let mut requests_max = 0;
    for case in &cases {
        let (first, second) = case.requests.split_at(case.requests.len() / 2);
        let whole: &[&[u8]] = &[&case.requests];
        for segments in [whole, &[first, second]] {
            differences.extend(case.check_through(&mut tcp, segments).err());
            requests_max += case.requests_max() as u64;
        }
    }
    for (name, _) in DIFFERENT {
        if !cases.iter().any(|case| case.name == *name) {
            differences.push(format!("there is no case {name:?}"));
        }
    }
    match differences.is_empty() {
        true => Ok((cases.len(), requests_max)),
        false => Err(differences),
    }
}

impl Case {
    /// How many requests are in it at most: each has a final response, or is the last one.
    pub fn requests_max(&self) -> usize {
        heads(&self.responses).filter(|head| !head.starts_with(b"HTTP/1.1 100 ")).count() + 1
    }

    fn check_through(&self, tcp: &mut Tcp, segments: &[&[u8]]) -> Result<(), String> {
        let answer = tcp
            .exchange(segments)
            .map_err(|error| format!("{self}: {error}"))?;
        let answer = comparable(expected::with_fixed_dates(answer));
        let expected: Vec<_> = self.through().into_iter().map(comparable).collect();
        if expected.contains(&answer) {
            return Ok(());
        }
        let expected: Vec<_> = expected.iter().map(|answer| show(answer)).collect();
        Err(format!(
            "{self}\nrequests:  \"{}\"\nexpected: {expected:?}\nanswered: \"{}\"",
            show(&self.requests),
            show(&answer)
        ))
    }

    /// The answers that a client may get through a proxy.
    fn through(&self) -> Vec<Vec<u8>> {
        let itself = self.responses.clone();
        let found = DIFFERENT.iter().find(|(name, _)| *name == self.name);
        let Some((_, through)) = found else {
            return vec![itself];
        };
        let open = || replace(&itself, "Connection: close\r\n", "");
        match through {
            Through::StaysOpen => vec![open()],
            Through::EndsEarly => vec![open(), Vec::new()],
            Through::AllowsAll => {
                let forwarded = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";
                vec![replace(&itself, "GET, HEAD, POST, PUT, OPTIONS\r\n", forwarded)]
            }
            Through::Invites => {
                let invited = expected::r#continue().0;
                vec![[&*invited, &open()].concat(), invited]
            }
            Through::Races => {
                let bad = "The chunked body is malformed.";
                let refused = expected::fatal("400 Bad Request", bad).build().0;
                vec![itself, refused]
            }
            Through::TooManyFields => {
                let many = "The header section has too many fields.";
                let status = "431 Request Header Fields Too Large";
                vec![expected::error(status, many).build().0]
            }
        }
    }
}

fn replace(answer: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8_lossy(answer).replace(from, to).into_bytes()
}

/// Where heads begin: no body of a case has a status line in it.
fn heads(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..answer.len()).map(|at| &answer[at..]).filter(|rest| rest.starts_with(b"HTTP/1.1 "))
}

/// An answer whose fields are in the order of the alphabet, without `Via`, and whose chunks are joined.
fn comparable(answer: Vec<u8>) -> Vec<u8> {
    const END: &[u8] = b"\r\n\r\n";
    let answer = join_chunks(answer);
    let mut out = Vec::with_capacity(answer.len());
    let mut rest = &*answer;
    while rest.starts_with(b"HTTP/1.1 ")
        && let Some(end) = rest.windows(END.len()).position(|window| window == END)
    {
        let (head, behind) = rest.split_at(end + END.len());
        let head = String::from_utf8_lossy(head);
        let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
        lines.retain(|line| !line.starts_with("Via: "));
        lines[1..].sort_unstable();
        out.extend_from_slice(lines.join("\r\n").as_bytes());
        out.extend_from_slice(END);
        let next = heads(behind).next().map_or(behind.len(), |next| behind.len() - next.len());
        out.extend_from_slice(&behind[..next]);
        rest = &behind[next..];
    }
    out.extend_from_slice(rest);
    out
}

/// Requests by which an attacker hides one within another, from a proxy or from the origin behind it, and how many of each
/// may reach the origin at most. The hidden ones ask for `/smuggled`.
pub fn smuggling() -> Vec<(&'static str, String, u64)> {
    const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = HIDDEN.len();
    let chunk = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    let post = |fields: &str, body: &str| {
        format!("POST /plaintext HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
    };
    let last = format!("0\r\n\r\n{HIDDEN}");
    let mut all = vec![
        ("a request as a body", post(&format!("Content-Length: {length}\r\n"), HIDDEN), 1),
        ("a request as a chunk", post("Transfer-Encoding: chunked\r\n", &chunk), 1),
        ("a request as a body that nobody wants", format!("GET /plaintext HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"), 1),
        ("a request in an extension", post("Transfer-Encoding: chunked\r\n", "5;x=\"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n\"\r\nhello\r\n0\r\n\r\n"), 1),
        ("a request in a trailer", post("Transfer-Encoding: chunked\r\n", "0\r\nX: y\r\nGET /smuggled HTTP/1.1: z\r\n\r\n"), 1),
        ("a request in a field", format!("GET /plaintext HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\r\n{HIDDEN}"), 0),
        ("a request in a target", "GET /plaintext?x HTTP/1.1\rHost: a\r\rGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 0),
        ("an incomplete body", post(&format!("Content-Length: {}\r\n", length + 1), HIDDEN), 1),
    ];
    for (name, fields) in [
        ("CL.TE", format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", last.len())),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".to_owned()),
        ("CL.CL", format!("Content-Length: 5\r\nContent-Length: {}\r\n", last.len())),
        ("CL.CL in a list", format!("Content-Length: 5, {}\r\n", last.len())),
        ("CL.CL, hidden by a space", format!("Content-Length : 5\r\nContent-Length: {}\r\n", last.len())),
        ("TE.TE, the second unknown", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n".to_owned()),
        ("TE.TE, the first unknown", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n".to_owned()),
        ("TE, hidden by a space", "Transfer-Encoding : chunked\r\n".to_owned()),
        ("TE, hidden by a tab", format!("Content-Length: {}\r\nTransfer-Encoding:\tchunked\r\n", last.len())),
        ("TE, hidden by a vertical tab", "Transfer-Encoding: \x0bchunked\r\n".to_owned()),
        ("TE, on a folded line", "Transfer-Encoding:\r\n chunked\r\n".to_owned()),
        ("TE, behind a bare LF", format!("Content-Length: {}\r\nX: y\nTransfer-Encoding: chunked\r\n", last.len())),
        ("TE, named by Connection", format!("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: {}\r\n", last.len())),
        ("TE with an underscore", format!("Content-Length: {}\r\nTransfer_Encoding: chunked\r\n", last.len())),
    ] {
        // An underscore makes it another field, which is forwarded like any other.
        let requests = u64::from(name.contains("underscore"));
        all.push((name, post(&fields, &last), requests));
    }
    // Connection must not take away what frames the body.
    let named = format!("Connection: Content-Length\r\nContent-Length: {length}\r\n");
    all.push(("CL, named by Connection", post(&named, HIDDEN), 1));
    all
}
