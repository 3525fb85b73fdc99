//! Log and standard output of a server, which never waits for a reader.
//!
//! A log that cannot be written must not stop the server: a full disk, a closed pipe and a stalled reader
//! affect the log alone. A line is put into a queue of fixed length, and a thread for each stream writes it:
//!
//! ```text
//!   tracing, complain ──▶ queue ──▶ thread log/stderr ──▶ write(2)
//!   say ────────────────▶ queue ──▶ thread log/stdout ──▶ write(2)
//!            │ full: lines_lost        │ refused: lines_failed
//!            └────────── ConsoleCounters ──────────────────▶ status, metrics
//! ```
//!
//! At the end, [`Console::finish`] waits for what is queued, but not for long.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use barewire_service::counters::{Kind, Sample, Samples};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Lines that wait to be written to a stream, at most.
const QUEUE_LINES_MAX: usize = 4096;
/// How long the end of the process waits for what is queued.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks for room in a queue that is full.
const FINISH_RETRY: Duration = Duration::from_millis(5);

static CONSOLE: OnceLock<Console> = OnceLock::new();

/// Where this process says something, once [`Console::install`] made it a server.
#[derive(Debug)]
pub struct Console {
    as_json: bool,
    stdout: Stream,
    stderr: Stream,
    counters: Arc<ConsoleCounters>,
}

/// One stream of the process and the queue before it.
#[derive(Debug)]
struct Stream {
    name: &'static str,
    queue: SyncSender<Item>,
    /// What the thread will take, until it is started.
    idle: Mutex<Option<(Receiver<Item>, BorrowedFd<'static>)>>,
    counters: Arc<ConsoleCounters>,
}

/// What a queue holds.
#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Everything before it was written.
    Mark(SyncSender<()>),
}

/// What could not be said. Several threads write them: what they count is rare.
#[derive(Debug, Default)]
pub struct ConsoleCounters {
    lines_lost: AtomicU64,
    lines_failed: AtomicU64,
}

impl Samples for ConsoleCounters {
    fn samples(&self) -> Vec<Sample> {
        let sample = |name, help, value: &AtomicU64| Sample {
            name,
            help,
            kind: Kind::Loss,
            value: value.load(Relaxed),
        };
        vec![
            sample(
                "lines_lost",
                "Lines of the log, or of stdout, that were lost because whoever reads them was too slow.",
                &self.lines_lost,
            ),
            sample(
                "lines_failed",
                "Lines of the log, or of stdout, that the system refused to write: a full disk, a closed pipe.",
                &self.lines_failed,
            ),
        ]
    }
}

impl Console {
    /// Makes this the console of the process, whose lines, and whose panics, are queued from here on.
    /// A second call gives the first one's. Nothing is written before [`Console::start`].
    pub fn install(as_json: bool) -> &'static Console {
        CONSOLE.get_or_init(|| {
            panic::set_hook(Box::new(complain_of_panic));
            let counters = Arc::default();
            Console {
                as_json,
                stdout: Stream::new("log/stdout", rustix::stdio::stdout(), &counters),
                stderr: Stream::new("log/stderr", rustix::stdio::stderr(), &counters),
                counters,
            }
        })
    }

    /// The console of the process, if it has one.
    pub fn of_process() -> Option<&'static Console> {
        CONSOLE.get()
    }

    /// Starts the threads that write, and returns once each has called `enter`: what that asks of the kernel may
    /// be forbidden from then on.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn start(&self, enter: impl Fn() + Clone + Send + 'static) -> io::Result<()> {
        let entering = [self.stdout.start(enter.clone())?, self.stderr.start(enter)?];
        for entered in entering.into_iter().flatten() {
            // A thread that has not entered has panicked, and said so.
            let _ = entered.recv();
        }
        Ok(())
    }

    /// What could not be said so far.
    pub fn counters(&self) -> Arc<ConsoleCounters> {
        Arc::clone(&self.counters)
    }

    /// Waits until everything said so far is written; not for a reader that has stopped to read.
    pub fn finish(&self) {
        // A process that is out of threads has lost its last lines.
        let _ = self.start(|| {});
        let deadline = Instant::now() + FINISH_TIMEOUT;
        let marks = [&self.stdout, &self.stderr].map(|stream| stream.mark(deadline));
        for mark in marks.into_iter().flatten() {
            let _ = mark.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// The line for people, or the same as an object like those of the log.
    fn line(&self, level: &str, text: &str) -> String {
        if !self.as_json {
            return format!("{text}\n");
        }
        let mut timestamp = String::new();
        // Writing to a string does not fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let line = json!({
            "timestamp": timestamp,
            "level": level,
            "fields": { "message": text },
            "target": "barewire",
        });
        format!("{line}\n")
    }
}

/// Writes a line to stdout. A missing or slow reader does not stop the server.
pub fn say(text: &str) {
    match Console::of_process() {
        Some(console) => console.stdout.put(console.line("INFO", text).into_bytes()),
        None => drop(writeln!(io::stdout(), "{text}")),
    }
}

/// Says a line on stderr that is no part of the log: why the process ends.
pub fn complain(text: &str) {
    match Console::of_process() {
        Some(console) => console.stderr.put(console.line("ERROR", text).into_bytes()),
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Says everything that was said, before the process ends.
pub fn finish() {
    if let Some(console) = Console::of_process() {
        console.finish();
    }
}

/// What the standard library says of a panic, through the queue. In a release build the process is aborted
/// right after.
fn complain_of_panic(panic: &panic::PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let mut text = format!("thread '{name}' {panic}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text += &format!("\n{backtrace}");
    }
    complain(&text);
    finish();
}

impl Stream {
    fn new(
        name: &'static str,
        descriptor: BorrowedFd<'static>,
        counters: &Arc<ConsoleCounters>,
    ) -> Self {
        let (queue, lines) = mpsc::sync_channel(QUEUE_LINES_MAX);
        Stream {
            name,
            queue,
            idle: Mutex::new(Some((lines, descriptor))),
            counters: Arc::clone(counters),
        }
    }

    /// Starts the thread that writes, unless it runs. What is returned receives once it has called `enter`.
    fn start(&self, enter: impl FnOnce() + Send + 'static) -> io::Result<Option<Receiver<()>>> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((lines, descriptor)) = idle else {
            return Ok(None);
        };
        let counters = Arc::clone(&self.counters);
        let (entered_out, entered) = mpsc::sync_channel(1);
        let write = move || {
            enter();
            let _ = entered_out.send(());
            write_lines(&lines, descriptor, &counters);
        };
        thread::Builder::new().name(self.name.into()).spawn(write)?;
        Ok(Some(entered))
    }

    /// Queues a line, or loses it.
    fn put(&self, line: Vec<u8>) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.counters.lines_lost.fetch_add(1, Relaxed);
        }
    }

    /// Is told when everything before it was written; `None` if there was no room until `deadline`.
    fn mark(&self, deadline: Instant) -> Option<Receiver<()>> {
        let (reached, mark) = mpsc::sync_channel(1);
        let mut item = Item::Mark(reached);
        loop {
            match self.queue.try_send(item) {
                Ok(()) => return Some(mark),
                Err(TrySendError::Full(again)) if Instant::now() < deadline => item = again,
                Err(_) => return None,
            }
            thread::sleep(FINISH_RETRY);
        }
    }
}

/// What a thread of a stream does, for as long as the process lives.
fn write_lines(lines: &Receiver<Item>, descriptor: BorrowedFd<'_>, counters: &ConsoleCounters) {
    let mut is_cut = false;
    for item in lines {
        match item {
            Item::Line(line) => {
                let ended = if is_cut {
                    write_all(descriptor, b"\n")
                } else {
                    Ok(())
                };
                let written = ended.and_then(|()| write_all(descriptor, &line));
                match written {
                    Ok(()) => is_cut = false,
                    Err(Unwritten { some }) => {
                        is_cut |= some;
                        counters.lines_failed.fetch_add(1, Relaxed);
                    }
                }
            }
            // The waiting thread may have given up.
            Item::Mark(reached) => drop(reached.try_send(())),
        }
    }
}

/// The system refused to write all.
struct Unwritten {
    /// Whether it wrote a part.
    some: bool,
}

/// Writes `bytes`, and waits for a reader that is slow.
fn write_all(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Unwritten> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(descriptor, rest) {
            Ok(written @ 1..) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            // Another process made it non-blocking.
            Err(Errno::AGAIN) => {
                let mut room = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
                // Interrupted or not, it is tried again.
                let _ = poll(&mut room, None);
            }
            Ok(0) | Err(_) => {
                let some = rest.len() < bytes.len();
                return Err(Unwritten { some });
            }
        }
    }
    Ok(())
}

/// The log's end of stderr: each write is a line.
#[derive(Debug, Clone, Copy)]
pub struct LogWriter(&'static Console);

impl LogWriter {
    /// That of this console.
    pub fn of(console: &'static Console) -> Self {
        LogWriter(console)
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stderr.put(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&self) -> LogWriter {
        *self
    }
}

/// Prints what a command was asked for. A reader that has seen enough is no error.
///
/// # Errors
///
/// If the system refuses to write it.
pub fn print(text: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("cannot write to stdout: {error}"),
        )),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn stream(descriptor: BorrowedFd<'_>, lines: &[&[u8]]) -> ConsoleCounters {
        let (queue, queued) = mpsc::sync_channel(16);
        for line in lines {
            queue.try_send(Item::Line(line.to_vec())).unwrap();
        }
        drop(queue);
        let counters = ConsoleCounters::default();
        write_lines(&queued, descriptor, &counters);
        counters
    }

    /// Else what it asks of the kernel may come after the filter that forbids it, and end the process.
    #[test]
    fn whoever_starts_it_goes_on_when_the_thread_has_entered() {
        let stream = Stream::new("test", rustix::stdio::stderr(), &Arc::default());
        let entered = Arc::new(AtomicU64::new(0));
        let enter = {
            let entered = Arc::clone(&entered);
            move || {
                thread::sleep(std::time::Duration::from_millis(20));
                entered.fetch_add(1, Relaxed);
            }
        };
        stream.start(enter).unwrap().unwrap().recv().unwrap();
        assert_eq!(entered.load(Relaxed), 1);
    }

    #[test]
    fn a_full_disk_and_a_closed_pipe_are_counted() {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let counters = stream(full.as_fd(), &[b"a\n", b"b\n"]);
        assert_eq!(counters.lines_failed.load(Relaxed), 2);

        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let counters = stream(writer.as_fd(), &[b"a\n"]);
        assert_eq!(counters.lines_failed.load(Relaxed), 1);
    }

    #[test]
    fn a_reader_that_makes_the_pipe_non_blocking_gets_every_line() {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let long = [b'x'; 100_000];
        let received = thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut received = 0;
                while received < 3 * long.len() {
                    match rustix::io::read(&reader, &mut [0; 4096]) {
                        Ok(0) => break,
                        Ok(count) => received += count,
                        Err(Errno::AGAIN) => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
                received
            });
            let counters = stream(writer.as_fd(), &[&long, &long, &long]);
            assert_eq!(counters.lines_failed.load(Relaxed), 0);
            reading.join().unwrap()
        });
        assert_eq!(received, 3 * long.len());
    }

    #[test]
    fn a_queue_that_is_full_loses_lines_and_does_not_wait() {
        let counters = Arc::default();
        let stream = Stream::new("log/test", rustix::stdio::stderr(), &counters);
        for _ in 0..QUEUE_LINES_MAX + 3 {
            stream.put(b"a\n".to_vec());
        }
        assert_eq!(counters.lines_lost.load(Relaxed), 3);
        assert!(stream.mark(Instant::now()).is_none());
    }
}
