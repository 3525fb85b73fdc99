//! The file in which event counts outlive the process (`--state`).
//!
//! It is written after the last core has ended, so that what was acknowledged is in it. It is
//! replaced as a whole: whenever the machine fails, either the old or the new file is there.
//!
//! ```text
//!   temporary file beside it, mode 0600 ─▶ lock ─▶ write ─▶ fsync ─▶ rename over FILE ─▶ fsync directory
//! ```
//!
//! The same is done at the start, with what was read or with counts of zero: what prevents it is known before
//! anything was counted. A file that cannot be used is never touched: the server does not start then, and so does
//! not replace it either.
//!
//! From its start to its end a server holds a lock on the file (flock), so that no other goes on with it: what one
//! of them counted would be lost. Each file that takes the place of another is locked before it has the name.
//! A symbolic link is followed: it is its target that is read, locked and replaced.

use std::fs::TryLockError;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::events::state::{State, StateError};

/// Where the counts are kept.
#[derive(Debug)]
pub struct StateFile {
    /// Where it is, behind all symbolic links.
    path: PathBuf,
    /// The file of that name, locked; `None` as long as there is none.
    held: Option<File>,
}

/// As many symbolic links as the kernel follows.
const LINKS_MAX: u32 = 40;

/// Why counts cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file is there, but cannot be read.
    #[error("cannot read the state {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there, but is not what it should be.
    #[error(
        "cannot go on with the state {path}: {source}; put a copy in its place, or move it away to count \
         from zero: `mv {path} {path}.bad`",
        path = path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: StateError,
    },
    /// Another process has it.
    #[error(
        "the state {} is in use: stop the barewire that goes on with it, or name another file",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A server is taken over from that keeps its counts elsewhere, or not.
    #[error(
        "the state {} is not that of the server to take over from: name the same --state, or move this one away",
        path.display()
    )]
    Another {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be replaced.
    #[error("cannot write the state {}: {source}{}", path.display(), cure(.source, .path))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateFile {
    /// The file at `path`, whether it is there or not.
    pub fn new(path: &Path) -> Self {
        StateFile {
            path: resolve(path),
            held: None,
        }
    }

    /// Reads what the last process left, and keeps others from doing so; `None` if there is nothing yet.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not whole, or is in use.
    pub fn load(&mut self) -> Result<Option<State>, StateFileError> {
        let path = || self.path.clone();
        let failed = |source| StateFileError::Read {
            path: path(),
            source,
        };
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateFileError::InUse { path: path() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|metadata| metadata.ino());
        let (locked, named) = (inode(file.metadata()), inode(fs::metadata(&self.path)));
        if locked.map_err(failed)? != named.map_err(failed)? {
            // Its last user replaced it since it was opened.
            return Err(StateFileError::InUse { path: path() });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let state = State::read(&bytes).map_err(|source| StateFileError::Content {
            path: path(),
            source,
        })?;
        self.held = Some(file);
        Ok(Some(state))
    }

    /// Goes on with the file of the server before, which has it `locked`.
    ///
    /// # Errors
    ///
    /// If that is another file, or this one has counts of its own.
    pub fn inherit(&mut self, locked: Option<File>) -> Result<(), StateFileError> {
        let path = self.path.clone();
        let another = || StateFileError::Another { path };
        let Some(locked) = locked else {
            return match self.load()? {
                None => Ok(()),
                Some(_) => Err(another()),
            };
        };
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(inode).ok();
        if locked.metadata().map(inode).ok() != named {
            return Err(another());
        }
        self.held = Some(locked);
        Ok(())
    }

    /// The file, locked, for another process.
    pub fn locked(&self) -> Option<io::Result<File>> {
        self.held.as_ref().map(File::try_clone)
    }

    /// Replaces the file.
    ///
    /// # Errors
    ///
    /// If the system does not let us; the file is the old one then.
    pub fn save(&mut self, state: &State) -> Result<(), StateFileError> {
        let replace = || -> io::Result<File> {
            let file = self.temporary()?;
            file.as_file().lock()?;
            let mut writer = BufWriter::new(&file);
            state.write_to(&mut writer)?;
            writer.flush()?;
            drop(writer);
            file.as_file().sync_all()?;
            let file = match self.held {
                Some(_) => file.persist(&self.path)?,
                // If there is one by now, it is another server's.
                None => file.persist_noclobber(&self.path)?,
            };
            File::open(self.directory())?.sync_all()?;
            Ok(file)
        };
        match replace() {
            Ok(file) => {
                self.held = Some(file);
                Ok(())
            }
            Err(error) if self.held.is_none() && error.kind() == io::ErrorKind::AlreadyExists => {
                Err(StateFileError::InUse {
                    path: self.path.clone(),
                })
            }
            Err(error) => Err(self.write_error(error)),
        }
    }

    /// A new file in the same directory, which only its owner may read. Gone when it is dropped.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".barewire-state-")
            .tempfile_in(self.directory())
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    fn write_error(&self, source: io::Error) -> StateFileError {
        StateFileError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// Where `path` leads to, whether there is something or not.
fn resolve(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        // An absolute target takes the place of all.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// What to do about it.
fn cure(error: &io::Error, path: &Path) -> String {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let directory = directory.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("; make its directory: `mkdir -p {directory}`"),
        io::ErrorKind::PermissionDenied => {
            format!("; the user that serves has to be allowed to write in {directory}")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("; make room: `df {directory}`, or name a file elsewhere")
        }
        _ => String::new(),
    }
}
