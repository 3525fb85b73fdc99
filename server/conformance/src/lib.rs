//! What an HTTP/1.1 origin server must answer, byte for byte.
//!
//! [`cases`] is a table of requests and their responses, each naming the section of the RFC that
//! demands it. It knows no server: a [`driver::Driver`] carries bytes to one and back, either a
//! [`driver::Memory`], which runs a [`Service`](barewire_service::service::Service) by its contract, or
//! a [`driver::Tcp`], which talks to whatever listens on an address, on any stack.

// A table reads best with a line for each row.
#[rustfmt::skip]
mod cases;
pub mod driver;
pub mod expected;
pub mod http2;
pub mod property;
// Here, too.
#[rustfmt::skip]
pub mod proxied;

use std::net::SocketAddr;

pub use cases::{Case, cases};
use driver::{Driver, Tcp};

impl Case {
    /// Sends the requests in `segments` through `driver`. Fails with what was expected and what came.
    ///
    /// # Errors
    ///
    /// If the answer differs, or the server cannot be reached.
    pub fn check(&self, driver: &mut impl Driver, segments: &[&[u8]]) -> Result<(), String> {
        let answer = driver
            .exchange(segments)
            .map_err(|error| format!("{self}: {error}"))?;
        let answer = self.normalised(expected::with_fixed_dates(answer));
        let expected = self.normalised(self.responses.clone());
        if answer == expected {
            return Ok(());
        }
        let lengths: Vec<_> = segments
            .iter()
            .take(8)
            .map(|segment| segment.len())
            .collect();
        Err(format!(
            "{self}\nrequests:  \"{}\"\nsegments:  {} of {lengths:?}… bytes\nexpected: \"{}\"\nanswered: \"{}\"",
            show(&self.requests),
            segments.len(),
            show(&expected),
            show(&answer)
        ))
    }

    /// Checks the case whole, cut in two at every place, and byte by byte.
    ///
    /// # Errors
    ///
    /// At the first difference.
    pub fn check_all_splits(&self, driver: &mut impl Driver) -> Result<(), String> {
        self.check(driver, &[&self.requests])?;
        for at in 1..self.requests.len() {
            let (first, second) = self.requests.split_at(at);
            self.check(driver, &[first, second])?;
        }
        let bytes: Vec<_> = self.requests.chunks(1).collect();
        self.check(driver, &bytes)
    }

    fn normalised(&self, answer: Vec<u8>) -> Vec<u8> {
        if self.free_chunks {
            join_chunks(answer)
        } else {
            answer
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rfc = if self.section.starts_with("RFC") {
            ""
        } else {
            "RFC 9112, "
        };
        write!(f, "{rfc}{}: {}", self.section, self.name)
    }
}

/// Runs every small case against the server at `server`, whole and cut in two, and returns how many
/// there were. The server must have the test's routes.
///
/// # Errors
///
/// Each difference, in a text of its own.
pub fn check_over_tcp(server: SocketAddr) -> Result<usize, Vec<String>> {
    let mut tcp = Tcp::new(server);
    let cases: Vec<_> = cases().into_iter().filter(Case::is_small).collect();
    let mut differences = Vec::new();
    for case in &cases {
        let (first, second) = case.requests.split_at(case.requests.len() / 2);
        let checked = case
            .check(&mut tcp, &[&case.requests])
            .and_then(|()| case.check(&mut tcp, &[first, second]));
        differences.extend(checked.err());
    }
    if differences.is_empty() {
        Ok(cases.len())
    } else {
        Err(differences)
    }
}

/// The start of `bytes`, readable.
fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 400;
    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    format!("{shown}{more}")
}

/// The first chunked body in `answer` as one chunk. What is malformed stays as it is.
fn join_chunks(answer: Vec<u8>) -> Vec<u8> {
    const END_OF_HEAD: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";
    let find = |bytes: &[u8], pattern: &[u8]| {
        bytes
            .windows(pattern.len())
            .position(|window| window == pattern)
    };
    let Some(head) = find(&answer, END_OF_HEAD) else {
        return answer;
    };
    let (head, mut rest) = answer.split_at(head + END_OF_HEAD.len());
    let mut data = Vec::new();
    loop {
        let Some(line) = find(rest, b"\r\n") else {
            return answer;
        };
        let size = std::str::from_utf8(&rest[..line])
            .ok()
            .and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(chunk) = size.and_then(|size| rest.get(line + 2..line + 2 + size)) else {
            return answer;
        };
        let Some(tail) = rest[line + 2 + chunk.len()..].strip_prefix(b"\r\n") else {
            return answer;
        };
        data.extend_from_slice(chunk);
        rest = tail;
        if chunk.is_empty() {
            return [
                head,
                format!("{:x}\r\n", data.len()).as_bytes(),
                &data,
                b"\r\n0\r\n\r\n",
                rest,
            ]
            .concat();
        }
    }
}
