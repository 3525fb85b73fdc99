//! `--detach`: a server that outlives the command that started it, for `ExecReload=` of a unit.
//!
//! ```text
//!   barewire serve --take-over --detach ──▶ child: the same command ──▶ ready: a byte on its standard input
//!     ends when the child is ready, with 0, or has ended, with its exit code
//! ```

use std::env;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use rustix::stdio;

/// Told to the child, which must not start another. Not among the variables of the configuration.
const CHILD: &str = "_BAREWIRE_DETACHED";

/// Whether this process was started by [`run`].
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Starts the same command as a child, and waits until that is ready or has ended.
///
/// # Errors
///
/// If there is no process to be had.
pub fn run() -> anyhow::Result<ExitCode> {
    let (mut ready, of_child) = UnixStream::pair().context("no socket to wait at")?;
    let mut command = Command::new("/proc/self/exe");
    command
        .args(env::args_os().skip(1))
        .env(CHILD, "1")
        .stdin(Stdio::from(OwnedFd::from(of_child)))
        .process_group(0);
    let mut child = command.spawn().context("cannot start the server")?;
    // It holds the other end of the socket.
    drop(command);
    if let Ok(1) = ready.read(&mut [0]) {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().context("cannot wait for the server")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Says that the server is ready to the command that started it, if one did.
pub fn tell() {
    if is_child() {
        let Ok(input) = stdio::stdin().try_clone_to_owned() else {
            return;
        };
        // It may have been stopped meanwhile.
        let _ = UnixStream::from(input).write_all(&[1]);
    }
}
