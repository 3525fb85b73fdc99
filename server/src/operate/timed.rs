//! A conversation with somebody who may be slow, on purpose or not: it ends at a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A stream of which every read and write fails once a moment has passed.
#[derive(Debug)]
pub struct Timed<S> {
    stream: S,
    until: Instant,
}

/// A stream whose single reads and writes can be given a timeout.
pub trait Patience: Read + Write {
    /// Lets the next read and the next write take at most so long.
    fn limit(&self, timeout: Duration) -> io::Result<()>;
}

impl<S: Patience> Timed<S> {
    /// All that happens on `stream` has to happen within `timeout`.
    pub fn new(stream: S, timeout: Duration) -> Self {
        Timed {
            stream,
            until: Instant::now() + timeout,
        }
    }

    /// The stream.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn limit(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.limit(left)
    }
}

impl<S: Patience> Read for Timed<S> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.read(space)
    }
}

impl<S: Patience> Write for Timed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Patience for UnixStream {
    fn limit(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Patience for TcpStream {
    fn limit(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}
