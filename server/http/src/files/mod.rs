//! Files of a directory as responses.
//!
//! ```text
//!   path ─▶ name ─▶ memory ──┬─ fresh ──────────────────────▶ validators ─▶ conditions ─▶ range ─▶ Response
//!          (decoded) │       └─ a second old ─▶ open, fstat ──┘    (RFC 9110, 13)       (14)
//!                    └─ not in it ────────────▶ open, fstat ──┴─▶ small: read into memory
//!                                                             └─▶ large: pread, piece by piece
//! ```
//!
//! **Confinement.** A name is opened below the directory with `openat2` and `RESOLVE_BENEATH`: the kernel
//! itself refuses every name that leads out of it, symbolic links and races with renames included. Symbolic
//! links that stay below the directory are followed. A name with `.` or `..`, an empty or a hidden segment
//! (`.well-known` is not hidden), an encoded slash or a NUL is refused before that. Only regular files are served.
//!
//! **Memory.** Each core keeps the files that it was asked for, up to a size and a sum
//! ([`DirectoryConfig`]), and looks once a second, when it is asked for one, whether that has changed. A
//! request for a file in memory allocates nothing and calls nothing.
//!
//! **Disk.** A larger file is read as fast as its peer takes it, each piece when there is room for it,
//! and never more of it at once than the send space holds. The read is an ordinary one: where the pages
//! are not in the kernel's cache, the core waits for the disk, and all its connections with it. The
//! kernel is told that the file is read in order, so that it reads ahead. Whoever serves more data than
//! memory holds from slow disks should do that on other cores, or with another server.
//!
//! **Validators.** A strong entity tag of inode, size and time of change, as most file servers make them,
//! and Last-Modified. A file that is overwritten in place while it is sent is sent as it is read; one
//! that becomes shorter resets the connection. Replace files by renaming.
//!
//! **Ranges.** One range is served; several are if they can be joined to one without sending more than
//! another header section would take, else the whole file is: RFC 9110, section 14.2, lets a server
//! ignore Range, and responses of many parts serve attackers more than clients.

mod conditions;
mod directory;
mod name;

pub use directory::{Directory, DirectoryConfig, DirectoryError};
