//! The admin address: `GET /metrics`, and nothing else.
//!
//! It is off unless an operator asks for it, and stays on the loopback interface unless an operator
//! says otherwise. Whoever scrapes slowly, often or maliciously harms nobody: there are a few threads
//! of their own, each conversation has a deadline and a length, and what is asked for again within a
//! tenth of a second is not computed again.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::timed::Timed;
use super::{Instruments, metrics};

/// Where to answer. A port alone means the loopback interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddress(pub SocketAddr);

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.parse::<u16>();
        let on_loopback = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        port.map(on_loopback)
            .or_else(|_| text.parse())
            .map(AdminAddress)
            .map_err(|_| "write PORT, or ADDR:PORT as in 127.0.0.1:9100 or [::]:9100".to_owned())
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Conversations at the same time; whoever comes next waits.
const THREADS: usize = 2;
/// How long one of them may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8192;
/// The most fields in it.
const FIELDS_MAX: usize = 64;
/// How long an answer is as good as a new one.
const FRESH: Duration = Duration::from_millis(100);
/// How long to leave the queue alone when accepting failed, for lack of descriptors, say.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Answers on `listener` from here on, on threads that live as long as the process.
///
/// # Errors
///
/// If there are no more threads.
pub fn serve(listener: TcpListener, instruments: Instruments) -> io::Result<()> {
    let listener = Arc::new(listener);
    let board = Arc::new(Board {
        instruments,
        last: Mutex::new(None),
    });
    for _ in 0..THREADS {
        let (listener, board) = (Arc::clone(&listener), Arc::clone(&board));
        thread::Builder::new().name("admin".into()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    // Who hangs up, or takes too long, gets no answer.
                    Ok(stream) => drop(answer(stream, &board)),
                    Err(_) => thread::sleep(ACCEPT_RETRY),
                }
            }
        })?;
    }
    Ok(())
}

/// The metrics, and when they were read last.
struct Board {
    instruments: Instruments,
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Board {
    fn metrics(&self) -> Arc<str> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((read, text)) if read.elapsed() < FRESH => Arc::clone(text),
            _ => {
                let text: Arc<str> = metrics::encode(&self.instruments).into();
                *last = Some((Instant::now(), Arc::clone(&text)));
                text
            }
        }
    }
}

fn answer(stream: TcpStream, board: &Board) -> io::Result<()> {
    let mut stream = Timed::new(stream, TIMEOUT);
    let mut space = [0; HEAD_BYTES_MAX];
    let mut len = 0;
    let asked = loop {
        match asked(&space[..len]) {
            Some(asked) => break asked,
            None if len == space.len() => break Asked::TooMuch,
            None => match stream.read(&mut space[len..])? {
                0 => return Ok(()),
                count => len += count,
            },
        }
    };
    let (status, body) = match asked {
        Asked::Metrics | Asked::MetricsHead => ("200 OK", board.metrics()),
        Asked::Elsewhere => ("404 Not Found", "there is only /metrics\n".into()),
        Asked::OtherMethod => ("405 Method Not Allowed", "there is only GET\n".into()),
        Asked::TooMuch => ("431 Request Header Fields Too Large", "too long\n".into()),
        Asked::Nonsense => ("400 Bad Request", "that is not HTTP\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
        metrics::CONTENT_TYPE,
        body.len(),
        match asked {
            Asked::OtherMethod => "Allow: GET, HEAD\r\n",
            _ => "",
        }
    );
    stream.write_all(head.as_bytes())?;
    match asked {
        Asked::MetricsHead => Ok(()),
        _ => stream.write_all(body.as_bytes()),
    }
}

/// What a request is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Metrics,
    MetricsHead,
    Elsewhere,
    OtherMethod,
    TooMuch,
    Nonsense,
}

/// What the request is after whose head begins `bytes`; `None` if there is more of it to come.
fn asked(bytes: &[u8]) -> Option<Asked> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Some(Asked::TooMuch),
        Err(_) => return Some(Asked::Nonsense),
    }
    let target = request.path.unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    Some(match (path, request.method) {
        ("/metrics", Some("GET")) => Asked::Metrics,
        ("/metrics", Some("HEAD")) => Asked::MetricsHead,
        ("/metrics", _) => Asked::OtherMethod,
        _ => Asked::Elsewhere,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_stays_on_this_machine() {
        let address = |text: &str| {
            text.parse::<AdminAddress>()
                .map(|address| address.to_string())
        };
        assert_eq!(address("9100").unwrap(), "127.0.0.1:9100");
        assert_eq!(address("[::]:9100").unwrap(), "[::]:9100");
        for text in ["", "x", "localhost:9100", "70000", "127.0.0.1"] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_what_is_asked_for_in_full_is_answered() {
        for (head, expected) in [
            ("GET /metrics HTTP/1.1\r\n", None),
            ("GET /metrics HTTP/1.1\r\n\r\n", Some(Asked::Metrics)),
            (
                "GET /metrics?a=b HTTP/1.0\r\nA: b\r\n\r\n",
                Some(Asked::Metrics),
            ),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Some(Asked::MetricsHead)),
            ("POST /metrics HTTP/1.1\r\n\r\n", Some(Asked::OtherMethod)),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Some(Asked::Elsewhere)),
            ("\0", Some(Asked::Nonsense)),
        ] {
            assert_eq!(asked(head.as_bytes()), expected, "{head:?}");
        }
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(FIELDS_MAX + 1)
        );
        assert_eq!(asked(many.as_bytes()), Some(Asked::TooMuch));
    }
}
