//! The control socket: how another process asks a running server, or tells it to stop.
//!
//! A stream socket in the file system that only its owner and root may open (mode 0600, set before
//! the name exists). One question and one answer per connection, each one line of JSON:
//!
//! ```text
//!   {"ask":"status"}  ──▶  {"answer":"status","content":{…a Status…}}
//!   {"ask":"capture",…}  ──▶  {"answer":"capturing","content":{…}}, then frames (see [`super::capture`])
//!   {"ask":"purge","what":"…"}  ──▶  {"answer":"purged","content":{"responses":…}}
//!   {"ask":"stop"}    ──▶  {"answer":"stopping","content":{"pid":…}}    end of file when the process ends
//! ```
//!
//! A name whose server was killed stays behind and is taken over; one whose server lives is not.
//! A process that makes or removes a name holds a lock on its directory meanwhile, so that a server that has
//! made its name but does not listen yet is not taken for a dead one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::capture::{Capture, Frames};
use super::status::Status;
use super::timed::Timed;
use crate::takeover::{Estate, Inheritance};

/// What can be asked of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    /// How it is.
    Status,
    /// To drain and end; asked again, to end at once.
    Stop,
    /// To let the asking process go on in its place.
    TakeOver {
        /// What that speaks.
        protocol: u32,
    },
    /// What it receives and sends.
    Capture {
        /// How much of each frame.
        snap_bytes: u32,
    },
    /// To remove responses from the cache of a proxy.
    Purge {
        /// Which: a resource, or how their names begin with `*` behind it.
        what: String,
    },
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "content", rename_all = "snake_case")]
pub enum Answer {
    /// How it is.
    Status(Box<Status>),
    /// It is on its way. The connection ends when the process does.
    Stopping {
        /// The process.
        pid: u32,
    },
    /// This can be taken over; messages of the hand-over follow (see [`crate::takeover`]).
    HandingOver(Box<Estate>),
    /// Frames of these queues follow.
    Capturing {
        /// The NIC queues.
        queues: Vec<u32>,
    },
    /// Responses were removed.
    Purged {
        /// How many, over all cores.
        responses: usize,
    },
    /// It does not know what that means, or cannot do it.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What a server does when it is asked.
pub trait Controlled: Send + Sync + 'static {
    /// How it is.
    fn status(&self) -> Status;
    /// Drains and ends; called again, ends at once.
    fn stop(&self);
    /// Begins to capture so many bytes of each frame, or says why not.
    fn capture(&self, snap_bytes: u32) -> Result<Capture, String>;
    /// Removes responses from the cache and returns how many there were, or says why not.
    fn purge(&self, what: &str) -> Result<usize, String>;
    /// Lets a process go on that speaks this protocol, or says why not.
    fn hand_over(&self, protocol: u32) -> Result<(Estate, Inheritance), String>;
}

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Another server has that name.
    #[error("{0} belongs to a server that runs: choose another name with --control")]
    Taken(PathBuf),
    /// There is something else of that name.
    #[error("{0} is there and is not a socket: remove it, or choose another name with --control")]
    NotASocket(PathBuf),
    /// It would be nowhere.
    #[error(
        "there is no directory {directory} for the control socket {path}: `mkdir {directory}`, or choose another \
         name with --control"
    )]
    NoDirectory {
        /// The socket.
        path: PathBuf,
        /// What is missing.
        directory: PathBuf,
    },
    /// Names of sockets are short.
    #[error("{0} is too long for a socket: at most 107 bytes")]
    TooLong(PathBuf),
    /// Anything else.
    #[error("cannot make the control socket {path}: {step}: {source}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Requests that are answered at the same time; further ones wait.
const THREADS: usize = 2;
/// How long one question and its answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for another process that holds the lock on the directory.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The longest question.
const QUESTION_BYTES_MAX: u64 = 4096;
/// Who can wait for the end at the same time.
const WAITING_MAX: usize = 64;

/// A socket that listens. Dropping it removes its name.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    name: Name,
}

/// A socket that is answered.
#[derive(Debug)]
pub struct Answered {
    listener: Arc<UnixListener>,
    /// Readable once nobody here shall answer any more.
    end: Arc<OwnedFd>,
    name: Mutex<Option<Name>>,
}

impl Answered {
    /// The socket, for another process.
    ///
    /// # Errors
    ///
    /// If the process is out of descriptors.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Where it is.
    pub fn path(&self) -> Option<PathBuf> {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        name.as_ref().map(|name| name.path.clone())
    }

    /// Removes the name, unless another process has it.
    pub fn remove_name(&self) {
        let mut name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        drop(name.take());
    }

    /// Another process answers from here on.
    pub fn give_away(&self) {
        let _ = rustix::io::write(&self.end, &1u64.to_ne_bytes());
        let mut name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut name) = name.take() {
            name.identity = None;
        }
    }
}

/// A name in the file system that is removed as long as it is still ours.
#[derive(Debug)]
pub struct Name {
    path: PathBuf,
    /// Device and inode; `None` once it is not ours to remove.
    identity: Option<(u64, u64)>,
}

impl ControlSocket {
    /// Makes the socket in a directory that is there.
    ///
    /// # Errors
    ///
    /// If a live server has the name, or the file system refuses.
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let refused = |step| {
            move |source: io::Error| ControlError::Refused {
                path: path.to_owned(),
                step,
                source,
            }
        };
        let address =
            SocketAddrUnix::new(path).map_err(|_| ControlError::TooLong(path.to_owned()))?;
        let directory = directory_of(path);
        if !directory.is_dir() {
            return Err(ControlError::NoDirectory {
                path: path.to_owned(),
                directory: directory.to_owned(),
            });
        }
        let _lock = lock(directory).map_err(refused("lock on its directory"))?;
        match UnixStream::connect(path) {
            Ok(_) => return Err(ControlError::Taken(path.to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let is_socket = fs::symlink_metadata(path).is_ok_and(|found| is_socket(&found));
                if !is_socket {
                    return Err(ControlError::NotASocket(path.to_owned()));
                }
                fs::remove_file(path).map_err(refused("unlink"))?;
            }
            Err(error) => return Err(refused("connect")(error)),
        }

        let call = |step| move |errno: Errno| refused(step)(errno.into());
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let socket = socket.map_err(call("socket"))?;
        // The name gets the mode of the socket: there is no moment at which others could connect.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(call("fchmod"))?;
        bind(&socket, &address).map_err(call("bind"))?;
        listen(&socket, 16).map_err(call("listen"))?;
        let found = fs::symlink_metadata(path).map_err(refused("stat"))?;
        Ok(ControlSocket {
            listener: UnixListener::from(socket),
            name: Name {
                path: path.to_owned(),
                identity: Some((found.dev(), found.ino())),
            },
        })
    }

    /// The socket of the server before, which is at `path`.
    pub fn inherited(listener: UnixListener, path: &Path) -> Self {
        let found = fs::symlink_metadata(path).ok();
        ControlSocket {
            listener,
            name: Name {
                path: path.to_owned(),
                identity: found.map(|found| (found.dev(), found.ino())),
            },
        }
    }

    /// Answers from here on, on threads of its own.
    ///
    /// # Errors
    ///
    /// If there are no more threads.
    pub fn serve(self, server: Arc<dyn Controlled>) -> io::Result<Answered> {
        let waiting = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::new(self.listener);
        // Several threads, and for a moment two processes, wait for the same connection.
        listener.set_nonblocking(true)?;
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        for _ in 0..THREADS {
            let (listener, server) = (Arc::clone(&listener), Arc::clone(&server));
            let end = Arc::clone(&end);
            let waiting = Arc::clone(&waiting);
            thread::Builder::new()
                .name("control".into())
                .spawn(move || {
                    while may_accept(&listener, &end) {
                        if let Ok((stream, _)) = listener.accept() {
                            // Who hangs up, or takes too long, gets no answer.
                            let _ = answer(stream, &*server, &waiting);
                        }
                    }
                })?;
        }
        Ok(Answered {
            listener,
            end,
            name: Mutex::new(Some(self.name)),
        })
    }
}

/// Waits for a connection; false once nobody here shall answer.
fn may_accept(listener: &UnixListener, end: &OwnedFd) -> bool {
    let mut fds = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(end, PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => fds[1].revents().is_empty(),
        Err(_) => false,
    }
}

/// Answers one question. Who waits for the end is put into `waiting`, whose connections the end of
/// the process closes.
fn answer(
    stream: UnixStream,
    server: &dyn Controlled,
    waiting: &Mutex<Vec<UnixStream>>,
) -> io::Result<()> {
    let mut stream = Timed::new(stream, TIMEOUT);
    let mut line = String::new();
    BufReader::new(&mut stream)
        .take(QUESTION_BYTES_MAX)
        .read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(Question::Status) => Answer::Status(Box::new(server.status())),
        Ok(Question::Stop) => Answer::Stopping {
            pid: std::process::id(),
        },
        Ok(Question::Capture { snap_bytes }) => match server.capture(snap_bytes) {
            Ok(capture) => {
                let queues = capture.queues();
                write_line(&mut stream, &Answer::Capturing { queues })?;
                let stream = stream.into_inner();
                // One at a time, which the taps see to; others are answered meanwhile.
                thread::Builder::new()
                    .name("capture".into())
                    .spawn(move || capture.stream(stream))?;
                return Ok(());
            }
            Err(reason) => Answer::Refused { reason },
        },
        Ok(Question::Purge { what }) => match server.purge(&what) {
            Ok(responses) => Answer::Purged { responses },
            Err(reason) => Answer::Refused { reason },
        },
        Ok(Question::TakeOver { protocol }) => match server.hand_over(protocol) {
            Ok((estate, inheritance)) => {
                write_line(&mut stream, &Answer::HandingOver(Box::new(estate)))?;
                let stream = stream.into_inner();
                thread::Builder::new()
                    .name("take-over".into())
                    .spawn(move || inheritance(stream))?;
                return Ok(());
            }
            Err(reason) => Answer::Refused { reason },
        },
        Err(error) => Answer::Refused {
            reason: error.to_string(),
        },
    };
    let written = write_line(&mut stream, &answer);
    if matches!(answer, Answer::Stopping { .. }) {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push(stream.into_inner());
        }
        // Last of all: from here on the process may end at any moment.
        server.stop();
    }
    written
}

impl Name {
    /// The name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if self.identity.is_none() {
            return;
        }
        let _lock = lock(directory_of(&self.path));
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| Some((found.dev(), found.ino())) == self.identity) {
            // Without the right to remove it, it stays behind, as after a kill.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes those of `paths` whose server is gone.
pub fn remove_dead(paths: &[PathBuf]) {
    for path in paths {
        // Without the lock another process may be about to listen.
        let Ok(_lock) = lock(directory_of(path)) else {
            continue;
        };
        let is_socket = fs::symlink_metadata(path).is_ok_and(|found| is_socket(&found));
        let is_dead = || {
            let connected = UnixStream::connect(path);
            connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        if is_socket && is_dead() {
            // It can stay: it is not in the way.
            let _ = fs::remove_file(path);
        }
    }
}

/// Why a server cannot be asked.
#[derive(Debug, Error)]
pub enum AskError {
    /// No process listens.
    #[error("no server listens at {0}")]
    Nobody(PathBuf),
    /// It belongs to another user.
    #[error("not allowed to open {0}: only its owner and root are (sudo barewire ...)")]
    Forbidden(PathBuf),
    /// It answers in ways that are not ours.
    #[error("{path} does not answer as this version of barewire does: {reason}")]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot do what it was asked for.
    #[error("the server at {path} refuses: {reason}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It said nothing, or not all.
    #[error("{path} does not answer: {source}")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A connection to a server's control socket.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    path: PathBuf,
}

impl Connection {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    ///
    /// If there is none, or it belongs to another user.
    pub fn open(path: &Path) -> Result<Self, AskError> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Connection {
                stream,
                path: path.to_owned(),
            }),
            Err(error) => Err(match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::Nobody(path.into()),
                ErrorKind::PermissionDenied => AskError::Forbidden(path.into()),
                _ => AskError::Silent {
                    path: path.into(),
                    source: error,
                },
            }),
        }
    }

    /// Asks for the status.
    ///
    /// # Errors
    ///
    /// If there is no answer, or one that this version does not understand.
    pub fn status(self) -> Result<Status, AskError> {
        match self.ask(Question::Status)? {
            (Answer::Status(status), _) => Ok(*status),
            (other, path) => Err(foreign(path, &other)),
        }
    }

    /// Tells the server to stop, and returns its process and what to wait for its end with.
    ///
    /// # Errors
    ///
    /// If there is no answer, or one that this version does not understand.
    pub fn stop(self) -> Result<(u32, Ending), AskError> {
        let stream = self.stream.try_clone().map_err(silent(&self.path))?;
        match self.ask(Question::Stop)? {
            (Answer::Stopping { pid }, _) => Ok((pid, Ending(stream))),
            (other, path) => Err(foreign(path, &other)),
        }
    }

    /// Has responses removed from the cache, and returns how many.
    ///
    /// # Errors
    ///
    /// If it has no cache, or does not understand what is to be removed, or there is no answer that this version
    /// understands.
    pub fn purge(self, what: String) -> Result<usize, AskError> {
        match self.ask(Question::Purge { what })? {
            (Answer::Purged { responses }, _) => Ok(responses),
            (Answer::Refused { reason }, path) => Err(AskError::Refused { path, reason }),
            (other, path) => Err(foreign(path, &other)),
        }
    }

    /// Asks to go on in the server's place; returns what it has, and the connection to get it by.
    ///
    /// # Errors
    ///
    /// If it does not hand over, or there is no answer that this version understands.
    pub fn take_over(self, protocol: u32) -> Result<(Estate, UnixStream), AskError> {
        let stream = self.stream.try_clone().map_err(silent(&self.path))?;
        match self.ask(Question::TakeOver { protocol })? {
            (Answer::HandingOver(estate), _) => Ok((*estate, stream)),
            (Answer::Refused { reason }, path) => Err(AskError::Refused { path, reason }),
            (other, path) => Err(foreign(path, &other)),
        }
    }

    /// Has the first `snap_bytes` of each frame sent; returns the queues and what comes of them.
    ///
    /// # Errors
    ///
    /// If it cannot, or there is no answer that this version understands.
    pub fn capture(self, snap_bytes: u32) -> Result<(Vec<u32>, Frames), AskError> {
        let Connection { stream, path } = self;
        let again = stream.try_clone().map_err(silent(&path))?;
        let mut stream = Timed::new(stream, TIMEOUT * 2);
        write_line(&mut stream, &Question::Capture { snap_bytes }).map_err(silent(&path))?;
        // The frames behind the line may be read with it.
        let mut reader = BufReader::new(again);
        let mut line = String::new();
        reader.read_line(&mut line).map_err(silent(&path))?;
        reader
            .get_ref()
            .set_read_timeout(None)
            .map_err(silent(&path))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Capturing { queues }) => Ok((queues, Frames::new(reader))),
            Ok(Answer::Refused { reason }) => Err(AskError::Refused { path, reason }),
            Ok(other) => Err(foreign(path, &other)),
            Err(error) => Err(AskError::Foreign {
                path,
                reason: error.to_string(),
            }),
        }
    }

    fn ask(self, question: Question) -> Result<(Answer, PathBuf), AskError> {
        let Connection { stream, path } = self;
        let mut stream = Timed::new(stream, TIMEOUT * 2);
        let mut line = String::new();
        write_line(&mut stream, &question)
            .and_then(|()| BufReader::new(&mut stream).read_line(&mut line))
            .map_err(silent(&path))?;
        match serde_json::from_str(&line) {
            Ok(answer) => Ok((answer, path)),
            Err(error) => Err(AskError::Foreign {
                path,
                reason: error.to_string(),
            }),
        }
    }
}

/// A server that is about to end.
#[derive(Debug)]
pub struct Ending(UnixStream);

impl Ending {
    /// Waits for the end of the process, at most so long. Returns whether it has ended.
    pub fn wait(mut self, timeout: Option<Duration>) -> bool {
        if self.0.set_read_timeout(timeout).is_err() {
            return false;
        }
        match self.0.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

fn silent(path: &Path) -> impl FnOnce(io::Error) -> AskError {
    let path = path.to_owned();
    move |source| AskError::Silent { path, source }
}

fn foreign(path: PathBuf, answer: &Answer) -> AskError {
    let reason = match answer {
        Answer::Refused { reason } => reason.clone(),
        _ => "it answered another question".to_owned(),
    };
    AskError::Foreign { path, reason }
}

fn write_line(stream: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn is_socket(found: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

/// A lock on `directory`, released when it is dropped.
fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    let mut tries = 0;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if tries < LOCK_TRIES => {
                tries += 1;
                thread::sleep(LOCK_PAUSE);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_owner_may_open_it_and_nothing_stays_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("80.sock");
        let socket = ControlSocket::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            ControlSocket::open(&path),
            Err(ControlError::Taken(_))
        ));
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_is_missing_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let error = ControlSocket::open(&missing.join("80.sock")).unwrap_err();
        assert!(error.to_string().contains("mkdir"), "{error}");
        assert!(!missing.exists());
    }

    #[test]
    fn a_dead_servers_name_is_taken_over_and_a_successors_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("80.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = ControlSocket::open(&path).unwrap();

        fs::remove_file(&path).unwrap();
        let second = ControlSocket::open(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn only_the_dead_are_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let [dead, live, file] =
            ["1.sock", "2.sock", "3.sock"].map(|name| directory.path().join(name));
        drop(UnixListener::bind(&dead).unwrap());
        let _live = ControlSocket::open(&live).unwrap();
        fs::write(&file, "precious").unwrap();
        remove_dead(&[dead.clone(), live.clone(), file.clone()]);
        assert_eq!(
            [dead, live, file].map(|path| path.exists()),
            [false, true, true]
        );
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("80.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            ControlSocket::open(&path),
            Err(ControlError::NotASocket(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let long = directory.path().join("x".repeat(200));
        assert!(matches!(
            ControlSocket::open(&long),
            Err(ControlError::TooLong(_))
        ));
    }
}
