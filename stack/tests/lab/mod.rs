//! Two network namespaces for one test, made and removed by `scripts/lab`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server's end of the cable.
pub const SERVER_DEVICE: &str = "bw-s0";
/// The client's end of the cable.
pub const CLIENT_DEVICE: &str = "bw-c0";

/// A private lab. Dropping it removes it.
pub struct Lab {
    name: String,
}

impl Lab {
    /// Makes the lab `name` with these options of `scripts/lab up`; without root, says that the test
    /// is skipped and returns `None`.
    pub fn up(name: &str, options: &[&str]) -> Option<Lab> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        let lab = Lab {
            name: format!("test-{name}-{}", std::process::id()),
        };
        let output = lab.script(&[&["up"], options].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(lab)
    }

    /// Runs `work` on a thread that lives in the server's namespace.
    pub fn server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside("server", work)
    }

    /// Runs `work` on a thread that lives in the client's namespace.
    pub fn client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside("client", work)
    }

    /// Runs a command in the server's namespace and returns what it printed.
    pub fn server_runs(&self, command: &[&str]) -> String {
        self.runs("server", command)
    }

    /// Runs a command in the client's namespace and returns what it printed.
    pub fn client_runs(&self, command: &[&str]) -> String {
        self.runs("client", command)
    }

    fn runs(&self, side: &str, command: &[&str]) -> String {
        let output = self.script(&[&[side], command].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn script(&self, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab");
        Command::new(script)
            .env("LAB", &self.name)
            .args(arguments)
            .output()
            .unwrap()
    }

    fn inside<T: Send>(&self, side: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = format!("/run/netns/bw-{side}-{}", self.name);
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let file = File::open(namespace).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.script(&["down"]);
    }
}
