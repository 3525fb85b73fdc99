//! One blocking `GET`, for the requests before and after a run.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::error::FetchError;
use super::request::Request;
use super::response::{Heads, Response};
use barewire_service::service::Reply;
use barewire_tls::ClientIdentity;

/// Longest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// How to ask.
pub struct Fetching {
    /// Where.
    pub address: SocketAddr,
    /// In TLS, if there is an identity for it.
    pub secure: Option<ClientIdentity>,
    /// How long anything may take.
    pub timeout: Duration,
}

impl Fetching {
    /// Status and body of the answer to `request`, by HTTP/1.1.
    ///
    /// # Errors
    ///
    /// If there is no whole answer in time, or what comes is no HTTP.
    pub fn fetch(&self, request: &Request) -> Result<(u16, Vec<u8>), FetchError> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        match &self.secure {
            None => converse(stream, request),
            Some(identity) => converse(identity.around(stream)?, request),
        }
    }
}

fn converse(
    mut stream: impl Read + Write,
    request: &Request,
) -> Result<(u16, Vec<u8>), FetchError> {
    let mut space = vec![0; super::request::REQUEST_BYTES_MAX];
    let mut written = Reply::new(&mut space);
    let fits = request.write(0, &mut written);
    debug_assert!(fits, "a request is never longer than REQUEST_BYTES_MAX");
    stream.write_all(written.written()).map_err(explain)?;

    let (mut response, mut heads, mut body) = (Response::default(), Heads::default(), Vec::new());
    let mut held = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = match stream.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(explain)?,
        };
        held.extend_from_slice(&piece[..count]);
        let sink = |bytes: &[u8]| body.extend_from_slice(bytes);
        let read = response.read(&held, count == 0, request.is_head(), &mut heads, sink)?;
        held.drain(..read.consumed);
        if body.len() > BODY_BYTES_MAX {
            return Err(FetchError::TooLong(BODY_BYTES_MAX));
        }
        match read.complete {
            Some(complete) => return Ok((complete.status, body)),
            None if count == 0 => return Err(FetchError::Closed),
            None => {}
        }
    }
}

fn explain(error: io::Error) -> FetchError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => FetchError::NoAnswer,
        _ => error.into(),
    }
}
