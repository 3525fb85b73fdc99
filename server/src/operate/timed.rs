//! A conversation with a peer that may be slow, on purpose or not: it ends at a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A stream of which every read and write fails once a moment has passed.
#[derive(Debug)]
pub struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Timed {
    /// All that happens on `stream` has to happen within `timeout`.
    pub fn new(stream: UnixStream, timeout: Duration) -> Self {
        Timed {
            stream,
            until: Instant::now() + timeout,
        }
    }

    /// The stream.
    pub fn into_inner(self) -> UnixStream {
        self.stream
    }

    fn limit(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.read(space)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
