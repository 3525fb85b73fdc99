//! A directory, and what one core keeps of it in memory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{
    Advice, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fadvise, fstat, openat2,
};
use rustix::io::{Errno, pread};
use rustix::time::{ClockId, clock_gettime};

use super::conditions::{Asked, Validators, Verdict, now_unix_s};
use super::name::{self, Kind};
use crate::range::{self, Part};
use crate::{Answer, Content, ContentType, Method, Produce, Refusal, Request, Response, Status};

/// Which files of a directory are served, and how much memory they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// The file that is served for a directory; `None`: none is.
    pub index: Option<String>,
    /// The largest file that is kept in memory, in bytes. It is read at once.
    pub kept_file_bytes_max: usize,
    /// What each core keeps in memory, in bytes.
    pub kept_bytes_max: usize,
    /// Files that each core keeps in memory.
    pub kept_files_max: usize,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        DirectoryConfig {
            index: Some("index.html".to_owned()),
            kept_file_bytes_max: 256 * 1024,
            kept_bytes_max: 32 * 1024 * 1024,
            kept_files_max: 4096,
        }
    }
}

/// Why a directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be opened.
    #[error("cannot serve the directory {}: {source}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel cannot confine names to it (`openat2`).
    #[error("this kernel has no openat2: files need Linux 5.6 or later")]
    Openat2,
    /// The index is not the name of a file in a directory.
    #[error("{0:?} is no name of an index: use the name of a file, as in index.html")]
    Index(String),
}

/// A directory that one core serves. Each other core takes a clone.
///
/// ```no_run
/// # use barewire_http::files::{Directory, DirectoryConfig};
/// # use barewire_http::{Answer, Request, Response, Route};
/// const ROUTES: &[Route<Directory>] = &[
///     Route::new("/static/").get(file),
///     Route::new("/static/{*path}").get(file),
/// ];
///
/// fn file(directory: &mut Directory, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
///     directory.answer(request, request.param("path").unwrap_or(""), response)
/// }
///
/// let directory = Directory::open("/srv/www".as_ref(), DirectoryConfig::default())?;
/// # Ok::<(), barewire_http::files::DirectoryError>(())
/// ```
#[derive(Debug)]
pub struct Directory {
    root: Arc<OwnedFd>,
    config: DirectoryConfig,
    kept: HashMap<Box<[u8]>, Kept>,
    kept_bytes: usize,
    swept_at_s: i64,
    /// Where names are decoded.
    name: Vec<u8>,
}

/// A file in memory.
#[derive(Debug)]
struct Kept {
    checked_at_s: i64,
    state: State,
    content_type: ContentType,
    validators: Validators,
    content: Bytes,
}

/// What differs if a file was changed or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, u64),
    changed: (i64, u64),
}

/// How long a file in memory is used before it is compared with the disk again, in seconds of the coarse clock.
const FRESH_S: i64 = 1;
/// How long a file that is not asked for stays in memory once another one needs the space.
const IDLE_S: i64 = 10;
/// The longest name, an index included.
const NAME_BYTES_MAX: usize = 8192;
/// The longest piece that is read from disk at once.
const PIECE_BYTES_MAX: usize = 256 * 1024;
/// Attempts to open a file while renames interfere.
const ATTEMPTS_MAX: usize = 4;

impl Directory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    ///
    /// If that is none, or the kernel is too old.
    pub fn open(path: &Path, config: DirectoryConfig) -> Result<Self, DirectoryError> {
        if let Some(index) = &config.index
            && (index.is_empty() || index.contains(['/', '\0']) || index.starts_with('.'))
        {
            return Err(DirectoryError::Index(index.clone()));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::empty());
        let root = root.map_err(|errno| match errno {
            Errno::NOSYS => DirectoryError::Openat2,
            errno => DirectoryError::Open {
                path: path.to_owned(),
                source: errno.into(),
            },
        })?;
        Ok(Self::new(Arc::new(root), config))
    }

    fn new(root: Arc<OwnedFd>, config: DirectoryConfig) -> Self {
        Directory {
            root,
            config,
            kept: HashMap::new(),
            kept_bytes: 0,
            swept_at_s: 0,
            name: Vec::with_capacity(NAME_BYTES_MAX),
        }
    }

    /// Answers a GET or HEAD for the file at `path` below the directory: what the request sent, still
    /// encoded, without a slash in front.
    pub fn answer(
        &mut self,
        request: &Request<'_>,
        path: &str,
        response: Response<'_, '_>,
    ) -> Answer {
        let Some(kind) = name::decode(path, &mut self.name) else {
            return response.refuse(Refusal::NotFound);
        };
        if kind == Kind::Directory {
            let Some(index) = &self.config.index else {
                return response.refuse(Refusal::NotFound);
            };
            self.name.extend_from_slice(index.as_bytes());
        }
        let now_s = clock_gettime(ClockId::MonotonicCoarse).tv_sec;
        if let Some(kept) = self.kept.get(&self.name[..])
            && now_s - kept.checked_at_s < FRESH_S
        {
            return kept.answer(request, response);
        }
        let (file, stat) = match self.open_file() {
            Ok(open) => open,
            Err(errno) => {
                self.forget();
                return refuse(errno, request, kind, response);
            }
        };
        let state = State::of(&stat);
        match self.kept.get_mut(&self.name[..]) {
            Some(kept) if kept.state == state => kept.checked_at_s = now_s,
            _ => {
                self.forget();
                self.keep(&file, &state, now_s);
            }
        }
        match self.kept.get(&self.name[..]) {
            Some(kept) => kept.answer(request, response),
            None => answer_from_disk(file, &state, content_type(&self.name), request, response),
        }
    }

    /// Opens the regular file with the name that was decoded.
    fn open_file(&self) -> Result<(OwnedFd, Stat), Errno> {
        // NONBLOCK: it may be a FIFO.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let name = OsStr::from_bytes(&self.name);
        let open = || openat2(&self.root, name, flags, Mode::empty(), resolve);
        let mut file = open();
        for _ in 1..ATTEMPTS_MAX {
            if !matches!(file, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
            file = open();
        }
        let file = file?;
        let stat = fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((file, stat)),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::NOENT),
        }
    }

    /// Reads a file into memory, if it is small and there is room for it.
    fn keep(&mut self, file: &OwnedFd, state: &State, now_s: i64) {
        let Ok(size) = usize::try_from(state.size) else {
            return;
        };
        if size > self.config.kept_file_bytes_max {
            return;
        }
        if !self.has_room(size) {
            self.sweep(now_s);
        }
        if !self.has_room(size) {
            return;
        }
        let Ok(content) = read(file, size) else {
            return;
        };
        // A file that was changed while it was read has a mixture of both contents.
        let is_whole =
            content.len() == size && fstat(file).is_ok_and(|stat| State::of(&stat) == *state);
        if is_whole {
            self.kept_bytes += size;
            let kept = Kept {
                checked_at_s: now_s,
                state: *state,
                content_type: content_type(&self.name),
                validators: state.validators(),
                content: content.into(),
            };
            self.kept.insert(self.name[..].into(), kept);
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.kept.len() < self.config.kept_files_max
            && bytes <= self.config.kept_bytes_max.saturating_sub(self.kept_bytes)
    }

    /// Forgets the files that were not asked for lately; at most once a second.
    fn sweep(&mut self, now_s: i64) {
        if now_s != self.swept_at_s {
            self.swept_at_s = now_s;
            self.kept
                .retain(|_, kept| now_s - kept.checked_at_s < IDLE_S);
            self.kept_bytes = self.kept.values().map(|kept| kept.content.len()).sum();
        }
    }

    /// Forgets the file with the name that was decoded.
    fn forget(&mut self) {
        if let Some(kept) = self.kept.remove(&self.name[..]) {
            self.kept_bytes -= kept.content.len();
        }
    }
}

/// The same directory for another core, which keeps files of its own.
impl Clone for Directory {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.root), self.config.clone())
    }
}

impl State {
    fn of(stat: &Stat) -> Self {
        State {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    fn validators(&self) -> Validators {
        let (s, ns) = self.modified;
        Validators::new(self.inode, self.size, s, ns)
    }
}

impl Kept {
    fn answer(&self, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
        let length = self.content.len() as u64;
        send(
            &self.validators,
            &self.content_type,
            length,
            request,
            response,
            |part| {
                // It is within the length, which is a usize.
                self.content
                    .slice(part.start as usize..part.end as usize)
                    .into()
            },
        )
    }
}

fn answer_from_disk(
    file: OwnedFd,
    state: &State,
    content_type: ContentType,
    request: &Request<'_>,
    response: Response<'_, '_>,
) -> Answer {
    send(
        &state.validators(),
        &content_type,
        state.size,
        request,
        response,
        |part| {
            let length = part.end - part.start;
            // Only advice: if it fails, the kernel reads ahead less.
            let _ = fadvise(
                file.as_fd(),
                part.start,
                length.try_into().ok(),
                Advice::Sequential,
            );
            let pieces = Pieces {
                file,
                offset: part.start,
            };
            Content::produced(Some(length), pieces)
        },
    )
}

/// Answers with a file of `length` bytes, or a part of it, or why not.
fn send(
    validators: &Validators,
    content_type: &ContentType,
    length: u64,
    request: &Request<'_>,
    response: Response<'_, '_>,
    content: impl FnOnce(Range<u64>) -> Content,
) -> Answer {
    let asked = Asked::by(request);
    let part = match validators.weigh(&asked, request, now_unix_s) {
        Verdict::PreconditionFailed => return response.status(Status::PreconditionFailed).empty(),
        Verdict::NotModified => {
            let response = response.status(Status::NotModified);
            return response.field("ETag", validators.etag()).empty();
        }
        // RFC 9110, section 14.2: Range means something for GET only.
        Verdict::Send if request.method() == Method::Get => match asked.range {
            Some(range) => range::parse(range, length),
            None => Part::Whole,
        },
        Verdict::Send | Verdict::SendWhole => Part::Whole,
    };
    let mut space = [0; 80];
    match part {
        Part::Unsatisfiable => {
            let unsatisfied = text(&mut space, format_args!("bytes */{length}"));
            let response = response.status(Status::RangeNotSatisfiable);
            response.field("Content-Range", unsatisfied).empty()
        }
        Part::Whole => response
            .field("ETag", validators.etag())
            .field("Last-Modified", validators.last_modified())
            .field("Accept-Ranges", "bytes")
            .send(content_type, content(0..length)),
        Part::Some(part) => {
            let (first, last) = (part.start, part.end - 1);
            let range = text(&mut space, format_args!("bytes {first}-{last}/{length}"));
            response
                .status(Status::PartialContent)
                .field("ETag", validators.etag())
                .field("Last-Modified", validators.last_modified())
                .field("Content-Range", range)
                .send(content_type, content(part))
        }
    }
}

/// The answer where a file cannot be opened.
fn refuse(errno: Errno, request: &Request<'_>, kind: Kind, response: Response<'_, '_>) -> Answer {
    match errno {
        // Without the slash, relative links would lead to another directory.
        Errno::ISDIR if kind == Kind::File => {
            let path = String::from_utf8_lossy(request.path());
            let query = request.query().map(String::from_utf8_lossy);
            let location = match query {
                Some(query) => format!("{path}/?{query}"),
                None => format!("{path}/"),
            };
            response
                .status(Status::MovedPermanently)
                .redirect(&location)
        }
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::INTR => response
            .status(Status::ServiceUnavailable)
            .field("Retry-After", "1")
            .text("The file cannot be opened right now.\n"),
        Errno::IO => response
            .status(Status::InternalServerError)
            .text("The file cannot be read.\n"),
        // Files that may not be read, and names that lead out of the directory, are reported as missing.
        _ => response.refuse(Refusal::NotFound),
    }
}

/// The media type that the ending of a name stands for. Texts are taken for UTF-8.
fn content_type(name: &[u8]) -> ContentType {
    let guess = mime_guess::from_path(Path::new(OsStr::from_bytes(name))).first_raw();
    match guess {
        Some("text/html") => *ContentType::HTML,
        Some(text) if text.starts_with("text/") => {
            ContentType::new(&format!("{text}; charset=utf-8")).unwrap_or(*ContentType::TEXT)
        }
        Some(other) => ContentType::new(other).unwrap_or(*ContentType::BYTES),
        None => *ContentType::BYTES,
    }
}

fn text<'s>(space: &'s mut [u8; 80], arguments: std::fmt::Arguments<'_>) -> &'s [u8] {
    let mut rest = &mut space[..];
    // Three numbers of 20 digits fit.
    let _ = rest.write_fmt(arguments);
    let unused = rest.len();
    &space[..space.len() - unused]
}

/// Reads `size` bytes, or fewer if there are not as many.
fn read(file: &OwnedFd, size: usize) -> Result<Vec<u8>, Errno> {
    let mut content = vec![0; size];
    let mut len = 0;
    while len < size {
        match pread(file, &mut content[len..], len as u64) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    content.truncate(len);
    Ok(content)
}

/// A file that is read as it is sent.
struct Pieces {
    file: OwnedFd,
    offset: u64,
}

impl Produce for Pieces {
    fn produce(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let len = space.len().min(PIECE_BYTES_MAX);
        loop {
            match pread(&self.file, &mut space[..len], self.offset) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
