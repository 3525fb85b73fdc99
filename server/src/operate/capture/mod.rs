//! `barewire capture`: what the bypass receives and sends, for tcpdump and Wireshark to read.
//!
//! ```text
//!   cores ─▶ taps ─▶ Capture::stream (a thread of the server) ══ control socket ══▶ Frames ─▶ Filter ─▶ File
//!                     rings, emptied in the order of time                            (barewire capture)
//! ```
//!
//! A core never waits for any of it: what does not fit into its ring is counted as lost. Whoever reads
//! slowly loses frames, not the server.
//!
//! On the socket, behind the answer, each frame is a header and its bytes. A reader that has enough shuts its
//! side down, and gets one more header with the number of frames that were lost.

mod file;
mod filter;

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use barewire_service::tap::{Direction, Record, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use file::File;
pub use filter::{Filter, FilterError};

use barewire_service::stack::QueueTap;

/// The longest frame that a link can have.
pub const SNAP_BYTES_MAX: u32 = 65_535;

/// What a core can be ahead of the reader, per queue: a burst of 1,300 full frames.
const RING_BYTES: usize = 2 << 20;
/// How long frames may wait to be read.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};
/// How long the other end may read nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be captured of a server.
#[derive(Debug)]
pub struct Captures {
    taps: Vec<QueueTap>,
}

/// A capture that has begun. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    watches: Vec<(u32, Watch)>,
}

impl Captures {
    /// Everything that passes through `taps`.
    pub fn new(taps: Vec<QueueTap>) -> Self {
        Captures { taps }
    }

    /// Begins to record the first `snap_bytes` of each frame.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub fn begin(&self, snap_bytes: u32) -> Result<Capture, String> {
        if self.taps.is_empty() {
            return Err("the kernel has this server's frames: tcpdump sees them".into());
        }
        let watch =
            |tap: &QueueTap| Some((tap.queue, tap.tap.watch(RING_BYTES, snap_bytes as usize)?));
        let taps = self.taps.iter().filter(|tap| tap.is_there.get());
        let watches = taps.map(watch).collect::<Option<_>>();
        let watches = watches.ok_or("another capture is running: end that one first")?;
        Ok(Capture { watches })
    }
}

impl Capture {
    /// The queues that are captured.
    pub fn queues(&self) -> Vec<u32> {
        self.watches.iter().map(|(queue, _)| *queue).collect()
    }

    /// Sends what is captured until the other end has enough, is gone, or reads too slowly.
    ///
    /// # Errors
    ///
    /// If it did not end in order.
    pub fn stream(mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut out = BufWriter::with_capacity(1 << 16, &stream);
        let (mut headers, mut bytes) = (Vec::new(), Vec::new());
        loop {
            // Before the rings are emptied: what was recorded until then is sent in any case.
            let has_enough = is_readable(&stream)?;
            for (queue, watch) in &mut self.watches {
                let mut start = bytes.len();
                let end = start + RING_BYTES;
                while let Some(record) = watch.next(&mut bytes) {
                    headers.push((Header::of(record, *queue, bytes.len() - start), start));
                    start = bytes.len();
                    if bytes.len() >= end {
                        break;
                    }
                }
            }
            headers.sort_by_key(|(header, _)| header.unix_time_ns);
            for (header, start) in headers.drain(..) {
                out.write_all(&header.encode())?;
                out.write_all(&bytes[start..start + header.kept_bytes as usize])?;
            }
            bytes.clear();
            out.flush()?;
            if has_enough {
                let lost = self.watches.iter().map(|(_, watch)| watch.lost()).sum();
                out.write_all(&Header::end(lost).encode())?;
                return out.flush();
            }
        }
    }
}

/// Waits for a moment, or until the other end says something, which it does only by hanging up.
fn is_readable(stream: &UnixStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&PAUSE))? > 0)
}

/// What precedes the bytes of a frame on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// Of the frame; at the end, how many frames were lost.
    unix_time_ns: u64,
    frame_bytes: u32,
    kept_bytes: u32,
    queue: u32,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Received,
    Sent,
    End,
}

impl Header {
    const BYTES: usize = 8 + 4 + 4 + 4 + 1;

    fn of(record: Record, queue: u32, kept_bytes: usize) -> Self {
        Header {
            unix_time_ns: record.unix_time_ns,
            frame_bytes: record.frame_bytes,
            kept_bytes: kept_bytes as u32,
            queue,
            kind: match record.direction {
                Direction::Received => Kind::Received,
                Direction::Sent => Kind::Sent,
            },
        }
    }

    fn end(lost: u64) -> Self {
        Header {
            unix_time_ns: lost,
            frame_bytes: 0,
            kept_bytes: 0,
            queue: 0,
            kind: Kind::End,
        }
    }

    fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.unix_time_ns.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.frame_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.kept_bytes.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.queue.to_le_bytes());
        bytes[20] = self.kind as u8;
        bytes
    }

    fn decode(bytes: [u8; Self::BYTES]) -> io::Result<Self> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let header = Header {
            unix_time_ns: u64::from_le_bytes(std::array::from_fn(|i| bytes[i])),
            frame_bytes: word(8),
            kept_bytes: word(12),
            queue: word(16),
            kind: match bytes[20] {
                0 => Kind::Received,
                1 => Kind::Sent,
                2 => Kind::End,
                _ => return Err(ErrorKind::InvalidData.into()),
            },
        };
        match header.kept_bytes <= SNAP_BYTES_MAX {
            true => Ok(header),
            false => Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// A captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When its batch passed, in nanoseconds since 1970.
    pub unix_time_ns: u64,
    /// The queue it passed through.
    pub queue: u32,
    /// Which way it went.
    pub direction: Direction,
    /// How long it was, in bytes.
    pub frame_bytes: u32,
    /// What was kept of it, from its beginning.
    pub bytes: &'a [u8],
}

/// What happened at the receiving end of a capture.
#[derive(Debug)]
pub enum Event<'a> {
    /// A frame came.
    Frame(Frame<'a>),
    /// Nothing came for a while.
    Nothing,
    /// The capture has ended, and the server lost so many frames; `None` if it did not say so itself.
    End {
        /// Frames that the rings had no room for.
        lost: Option<u64>,
    },
}

/// The receiving end of a capture.
#[derive(Debug)]
pub struct Frames {
    stream: BufReader<UnixStream>,
    bytes: Vec<u8>,
}

impl Frames {
    /// What follows the answer on the control socket.
    pub(super) fn new(stream: BufReader<UnixStream>) -> Self {
        Frames {
            stream,
            bytes: Vec::new(),
        }
    }

    /// The next event, after 100 ms at the latest.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or what comes makes no sense.
    pub fn next_event(&mut self) -> io::Result<Event<'_>> {
        let soon = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        if self.stream.buffer().is_empty() {
            let mut fds = [PollFd::new(self.stream.get_ref(), PollFlags::IN)];
            match poll(&mut fds, Some(&soon)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Event::Nothing),
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.stream.fill_buf()?.is_empty() {
            return Ok(Event::End { lost: None });
        }
        let mut header = [0; Header::BYTES];
        self.stream.read_exact(&mut header)?;
        let header = Header::decode(header)?;
        self.bytes.resize(header.kept_bytes as usize, 0);
        self.stream.read_exact(&mut self.bytes)?;
        let direction = match header.kind {
            Kind::Received => Direction::Received,
            Kind::Sent => Direction::Sent,
            Kind::End => {
                let lost = Some(header.unix_time_ns);
                return Ok(Event::End { lost });
            }
        };
        Ok(Event::Frame(Frame {
            unix_time_ns: header.unix_time_ns,
            queue: header.queue,
            direction,
            frame_bytes: header.frame_bytes,
            bytes: &self.bytes,
        }))
    }

    /// Says that it is enough; what was captured until then still comes, and then the end.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub fn enough(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use barewire_service::tap::TapEnd;

    use super::*;
    use barewire_service::stack::IsThere;

    /// A server with so many queues, and the cores' ends of their taps.
    fn server(queues: u32) -> (Captures, Vec<TapEnd>) {
        let ends: Vec<_> = (0..queues).map(|_| TapEnd::new()).collect();
        let tap = |(queue, end): (u32, &TapEnd)| QueueTap {
            queue,
            tap: Arc::clone(end.tap()),
            is_there: IsThere::from_the_start(),
        };
        (Captures::new((0..).zip(&ends).map(tap).collect()), ends)
    }

    #[test]
    fn frames_of_all_queues_arrive_in_order_and_then_the_end() {
        let (captures, mut ends) = server(2);
        let capture = captures.begin(5).unwrap();
        assert_eq!(capture.queues(), [0, 1]);
        assert!(captures.begin(5).unwrap_err().contains("another capture"));
        let (ours, theirs) = UnixStream::pair().unwrap();
        for (round, queue) in [0, 1, 1, 0].into_iter().enumerate() {
            ends[queue].begin_batch();
            ends[queue].record(Direction::Sent, format!("{round}-{queue}-frame").as_bytes());
        }
        let stream = thread::spawn(move || capture.stream(theirs));

        let mut frames = Frames::new(BufReader::new(ours));
        let mut seen = Vec::new();
        let lost = loop {
            match frames.next_event().unwrap() {
                Event::Frame(frame) => {
                    let text = String::from_utf8(frame.bytes.to_vec()).unwrap();
                    seen.push((frame.queue, text, frame.frame_bytes));
                }
                Event::Nothing => {}
                Event::End { lost } => break lost,
            }
            if seen.len() == 4 {
                frames.enough().unwrap();
            }
        };
        let expected = [(0, "0-0-f"), (1, "1-1-f"), (1, "2-1-f"), (0, "3-0-f")];
        let expected = expected.map(|(queue, text)| (queue, text.to_owned(), 9));
        assert_eq!(seen, expected);
        assert_eq!(lost, Some(0));
        stream.join().unwrap().unwrap();
        assert!(captures.begin(5).is_ok());
    }

    #[test]
    fn whoever_is_gone_ends_the_capture() {
        let (captures, _ends) = server(1);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let capture = captures.begin(100).unwrap();
        drop(ours);
        // In order or not, depending on what it notices first; but at once.
        let _ = capture.stream(theirs);
        assert!(captures.begin(100).is_ok());
    }

    #[test]
    fn without_queues_of_its_own_a_server_names_tcpdump() {
        assert!(
            Captures::new(Vec::new())
                .begin(1)
                .unwrap_err()
                .contains("tcpdump")
        );
    }

    #[test]
    fn headers_survive_the_socket_and_nonsense_is_refused() {
        let header = Header {
            unix_time_ns: 1,
            frame_bytes: 1514,
            kept_bytes: 96,
            queue: 7,
            kind: Kind::Sent,
        };
        assert_eq!(Header::decode(header.encode()).unwrap(), header);
        assert!(Header::decode([0xff; Header::BYTES]).is_err());
    }
}
