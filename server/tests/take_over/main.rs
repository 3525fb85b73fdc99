//! `barewire serve --take-over`: what clients, operators and a successor that fails notice of it.
#![allow(clippy::unwrap_used)]

mod bypass;
mod clients;
mod failures;
mod load;
#[path = "../e2e/server.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod server;
mod service_manager;
mod tls;
mod wrong_use;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use barewire_lab::{Lab, SERVER_DEVICE};
use server::{BAREWIRE, Server};

/// The stacks that hand over sockets.
const STACKS: [&str; 2] = ["epoll", "uring"];

/// What several servers have in common, one after the other.
struct Place {
    directory: tempfile::TempDir,
    stack: &'static str,
    address: String,
    cores: &'static str,
    interface: &'static str,
    control: PathBuf,
    options: Vec<String>,
    /// Where there is an interface to serve; `None` on the loopback interface.
    lab: Option<Arc<Lab>>,
}

impl Place {
    /// At a free port of `ip`, with these options.
    fn new(stack: &'static str, ip: &str, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned());
        let directory = tempfile::tempdir().unwrap();
        Place {
            control: directory.path().join("control"),
            directory,
            stack,
            address: format!("{ip}:0"),
            cores: "0,1",
            interface: SERVER_DEVICE,
            options: options.collect(),
            lab: None,
        }
    }

    /// On the server's interface of a lab, past the kernel.
    fn on_interface(lab: &Arc<Lab>, options: &[&str]) -> Self {
        Place {
            lab: Some(Arc::clone(lab)),
            ..Place::new("xdp", "", options)
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The command of a server here, with further options.
    fn command(&self, more: &[&str]) -> Command {
        let (mut command, place) = match &self.lab {
            None => (Command::new(BAREWIRE), ["--listen", &self.address]),
            Some(lab) => {
                let mut command = lab.server_command();
                command.arg(BAREWIRE);
                (command, ["--interface", self.interface])
            }
        };
        command
            .args(["serve", "--stack", self.stack])
            .args(place)
            .args(["--cores", self.cores, "--control"])
            .arg(&self.control)
            .args(&self.options)
            .args(more);
        command
    }

    fn start(&mut self) -> Server {
        let server = Server::start(&mut self.command(&[]));
        self.address = server.addresses[0].to_string();
        server
    }

    /// What a successor with further options says before it ends.
    #[track_caller]
    fn refusal(&self, more: &[&str]) -> String {
        Server::refusal(self.command(more).arg("--take-over"))
    }

    fn take_over(&self) -> Server {
        Server::start(&mut self.command(&["--take-over"]))
    }
}

/// The file of a state as an option.
fn state_option(path: &Path) -> [String; 2] {
    ["--state".into(), path.display().to_string()]
}
