//! Where control sockets are.
//!
//! A server's socket is `PORT.sock` in `/run/barewire` if it is root's, else in
//! `$XDG_RUNTIME_DIR/barewire`. Servers of the same port (in different network namespaces, say) do not
//! disturb each other: the second one's is `PORT-PID.sock`. Whoever starts there removes what servers
//! that were killed have left behind.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use thiserror::Error;

use super::control::{self, AskError, Connection, ControlError, ControlSocket};

/// Where root's servers are.
const SYSTEM: &str = "/run/barewire";

/// Why there is not exactly one server to ask.
#[derive(Debug, Error)]
pub enum LocateError {
    /// There is none.
    #[error(
        "no barewire server runs here (looked for sockets in {}): start one with `barewire serve`, \
         or name its socket with --control",
        names(.0)
    )]
    None(Vec<PathBuf>),
    /// There are several.
    #[error("several barewire servers run here: choose one with --control\n{}", list(.0))]
    Several(Vec<PathBuf>),
    /// There is one that cannot be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Opens the socket of a server on `port` where it belongs.
///
/// # Errors
///
/// If there is no place for it, or the file system refuses.
pub fn open_default(port: u16) -> Result<ControlSocket, ControlError> {
    let Some(directory) = own_directory() else {
        return Err(ControlError::Refused {
            path: format!("{port}.sock").into(),
            step: "its directory",
            source: std::io::Error::other("XDG_RUNTIME_DIR is not set"),
        });
    };
    // For barewire alone, unlike a directory that an option names.
    fs::create_dir_all(&directory).map_err(|source| ControlError::Refused {
        path: directory.clone(),
        step: "its directory",
        source,
    })?;
    control::remove_dead(&sockets(std::slice::from_ref(&directory), None));
    match ControlSocket::open(&directory.join(format!("{port}.sock"))) {
        Err(ControlError::Taken(_)) => {
            let pid = std::process::id();
            ControlSocket::open(&directory.join(format!("{port}-{pid}.sock")))
        }
        other => other,
    }
}

/// Connects to the server at `path`, or to the only one there is; `port` narrows the choice.
///
/// # Errors
///
/// If there is none, or more than one.
pub fn connect(
    path: Option<&Path>,
    port: Option<u16>,
) -> Result<(PathBuf, Connection), LocateError> {
    match path {
        Some(path) => Ok((path.to_owned(), Connection::open(path)?)),
        None => connect_in(&directories(), port),
    }
}

fn connect_in(
    directories: &[PathBuf],
    port: Option<u16>,
) -> Result<(PathBuf, Connection), LocateError> {
    let mut live = Vec::new();
    let mut failed = None;
    for path in sockets(directories, port) {
        match Connection::open(&path) {
            Ok(connection) => live.push((path, connection)),
            // Left behind by a server that was killed.
            Err(AskError::Nobody(_)) => {}
            Err(error) => failed = Some(error),
        }
    }
    match (live.len(), failed) {
        (0, Some(error)) => Err(error.into()),
        (0, None) => Err(LocateError::None(directories.to_vec())),
        (1, _) => Ok(live.remove(0)),
        _ => Err(LocateError::Several(
            live.into_iter().map(|(path, _)| path).collect(),
        )),
    }
}

/// Every socket in `directories`, live or not.
fn sockets(directories: &[PathBuf], port: Option<u16>) -> Vec<PathBuf> {
    let entries = directories.iter().flat_map(|directory| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    });
    let mut sockets: Vec<_> = entries
        .filter(|path| {
            let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let of_port = stem.split('-').next().unwrap_or_default();
            path.extension() == Some(OsStr::new("sock"))
                && port.is_none_or(|port| of_port == port.to_string())
        })
        .collect();
    sockets.sort();
    sockets
}

/// Where a server of this user puts its socket.
fn own_directory() -> Option<PathBuf> {
    match rustix::process::geteuid().is_root() {
        true => Some(SYSTEM.into()),
        false => user_directory(),
    }
}

fn user_directory() -> Option<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty())?;
    Some(Path::new(&runtime).join("barewire"))
}

/// Where a server may be that this user asks.
fn directories() -> Vec<PathBuf> {
    let mut directories = vec![SYSTEM.into()];
    directories.extend(user_directory());
    directories
}

fn names(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(" and ")
}

fn list(paths: &[PathBuf]) -> String {
    let lines: Vec<_> = paths
        .iter()
        .map(|path| format!("  --control {}", path.display()))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn the_only_live_socket_is_found_among_the_dead() {
        let directory = directory();
        let at = |name: &str| directory.path().join(name);
        drop(UnixListener::bind(at("80.sock")).unwrap());
        let directories = [directory.path().to_owned(), at("missing")];
        assert!(matches!(
            connect_in(&directories, None),
            Err(LocateError::None(_))
        ));

        let _first = UnixListener::bind(at("8080.sock")).unwrap();
        assert_eq!(connect_in(&directories, None).unwrap().0, at("8080.sock"));

        let _second = UnixListener::bind(at("8080-5.sock")).unwrap();
        let _third = UnixListener::bind(at("80-6.sock")).unwrap();
        let error = connect_in(&directories, Some(8080)).unwrap_err();
        assert!(
            matches!(&error, LocateError::Several(sockets) if sockets.len() == 2),
            "{error}"
        );
        assert_eq!(
            connect_in(&directories, Some(80)).unwrap().0,
            at("80-6.sock")
        );
    }
}
