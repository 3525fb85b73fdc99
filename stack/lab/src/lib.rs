//! Two network namespaces for one test, made and removed by `scripts/lab`.
//!
//! ```no_run
//! let Some(lab) = barewire_lab::Lab::up(&["--queues", "2"]) else { return };
//! lab.client_runs(&["ping", "-c1", barewire_lab::SERVER_V4]);
//! ```

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server's end of the cable.
pub const SERVER_DEVICE: &str = "bw-s0";
/// The client's end of the cable.
pub const CLIENT_DEVICE: &str = "bw-c0";
/// The server's IPv4 address.
pub const SERVER_V4: &str = "10.77.0.2";
/// The server's IPv6 address.
pub const SERVER_V6: &str = "fd77::2";

/// A private lab; several of them do not see each other. Dropping it ends what still runs in it and removes it.
#[derive(Debug)]
pub struct Lab {
    name: String,
}

impl Lab {
    /// Makes a lab with these options of `scripts/lab up`; without root, says that the test is skipped
    /// and returns `None`.
    ///
    /// Its name begins with what `BAREWIRE_TEST_LAB` says, so that `scripts/test` finds what an
    /// interrupted test left behind.
    ///
    /// # Panics
    ///
    /// If the lab cannot be made.
    pub fn up(options: &[&str]) -> Option<Lab> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        let prefix = env::var("BAREWIRE_TEST_LAB").unwrap_or_else(|_| "test".into());
        let lab = Lab {
            name: format!(
                "{prefix}-{}-{}",
                id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
        };
        succeed(lab.script("up").args(options));
        Some(lab)
    }

    /// What no other lab is called; for what a test puts beside it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread that lives in the server's namespace. Sockets opened there stay there.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside("server", work)
    }

    /// Runs `work` on a thread that lives in the client's namespace. Sockets opened there stay there.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside("client", work)
    }

    /// Runs a command in the server's namespace and returns what it printed.
    ///
    /// # Panics
    ///
    /// If the command fails.
    pub fn server_runs(&self, command: &[&str]) -> String {
        succeed(self.server_command().args(command))
    }

    /// Runs a command in the client's namespace and returns what it printed.
    ///
    /// # Panics
    ///
    /// If the command fails.
    pub fn client_runs(&self, command: &[&str]) -> String {
        succeed(self.client_command().args(command))
    }

    /// What its arguments say, to be run in the server's namespace. The process is replaced, so that
    /// signals to it reach what runs there.
    pub fn server_command(&self) -> Command {
        self.script("server")
    }

    /// What its arguments say, to be run in the client's namespace. The process is replaced, so that
    /// signals to it reach what runs there.
    pub fn client_command(&self) -> Command {
        self.script("client")
    }

    fn script(&self, verb: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/lab");
        let mut command = Command::new(script);
        command
            .env("LAB", &self.name)
            .stdin(Stdio::null())
            .arg(verb);
        command
    }

    fn inside<T: Send>(&self, side: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = format!("/run/netns/bw-{side}-{}", self.name);
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                if let Err(error) = enter(&namespace) {
                    panic!("cannot enter {namespace}: {error}");
                }
                work()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

/// Moves this thread into a network namespace.
fn enter(namespace: &str) -> io::Result<()> {
    let file = File::open(namespace)?;
    Ok(move_into_link_name_space(
        file.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

impl Drop for Lab {
    fn drop(&mut self) {
        // No panic here: it would hide the one that a failed test unwinds with.
        let _ = self.script("down").status();
    }
}

fn succeed(command: &mut Command) -> String {
    match command.output() {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success(),
                "{command:?}: {}\n{text}{errors}",
                output.status
            );
            text
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}
