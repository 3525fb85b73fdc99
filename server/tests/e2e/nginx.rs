//! An nginx of a test's own, with a directory of its own.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running nginx; it ends with this.
pub struct Nginx {
    child: Child,
    directory: TempDir,
}

impl Nginx {
    /// Runs `command`, which ends with the name of nginx, with these lines of its `http` block. It may not listen yet.
    ///
    /// # Errors
    ///
    /// If nginx is not installed and `command` runs nothing else.
    pub fn start(mut command: Command, http: &str) -> io::Result<Nginx> {
        let directory = tempfile::tempdir()?;
        let config = format!(
            "worker_processes 2; pid nginx.pid; error_log stderr;
            events {{ worker_connections 4096; }}
            http {{
                client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
                {http}
            }}"
        );
        fs::write(directory.path().join("nginx.conf"), config)?;
        command.args(["-c", "nginx.conf", "-g", "daemon off;", "-e", "stderr"]);
        command.arg("-p").arg(directory.path());
        let child = command.stderr(Stdio::null()).spawn()?;
        Ok(Nginx { child, directory })
    }

    /// Where it writes the files that its configuration names.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Lets it finish its requests.
    pub fn end(&mut self) {
        self.stop(Signal::QUIT);
    }

    /// In order, so that its workers end as well.
    fn stop(&mut self, signal: Signal) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop(Signal::TERM);
    }
}
