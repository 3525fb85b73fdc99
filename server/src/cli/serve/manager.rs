//! Notifies a service manager: sd_notify(3), systemd's `Type=notify`.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a manager may take to make room for what it is told.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It serves.
    Ready,
    /// It serves in place of the process that did before.
    TookOver,
    /// It is about to end.
    Stopping,
}

impl Notice {
    fn line(self) -> String {
        match self {
            Notice::Ready => "READY=1\n".into(),
            Notice::TookOver => format!("MAINPID={}\nREADY=1\n", std::process::id()),
            Notice::Stopping => "STOPPING=1\n".into(),
        }
    }
}

/// Tells the service manager that started us, if one wants to hear of it.
pub fn tell(notice: Notice) {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&name, notice) {
        let name = name.display();
        tracing::warn!("the service manager does not hear us at NOTIFY_SOCKET={name}: {error}");
    }
}

fn send(name: &OsString, notice: Notice) -> io::Result<()> {
    // A name that begins with @ is one of no file system (unix(7): abstract).
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that is busy has a full queue: a server waits for it, but not for ever.
    socket.set_write_timeout(Some(TIMEOUT))?;
    socket
        .send_to_addr(notice.line().as_bytes(), &address)
        .map(drop)
}
