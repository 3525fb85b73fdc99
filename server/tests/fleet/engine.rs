//! A redis-server, or a valkey-server where that is installed instead, in a directory of its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::server::{Server, wait_until};

pub struct Engine {
    directory: TempDir,
    options: Vec<String>,
    child: Child,
}

impl Engine {
    /// Starts one with these options beside a socket and a file for what it has.
    pub fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let child = spawn(&directory, &options);
        let engine = Engine {
            directory,
            options,
            child,
        };
        engine.wait_until_it_answers();
        engine
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("engine.sock")
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// One command, and what it answers, as it is on the wire.
    pub fn ask(&self, words: &[&str]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(command.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with what it had written, or without.
    pub fn restart(&mut self, is_emptied: bool) {
        if is_emptied {
            let _ = std::fs::remove_dir_all(self.directory.path().join("appendonlydir"));
        }
        self.child = spawn(&self.directory, &self.options);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        wait_until("the engine answers", || {
            UnixStream::connect(self.socket()).is_ok() && {
                let answer = self.ask(&["PING"]);
                answer.starts_with("+PONG") || answer.starts_with("-NOAUTH")
            }
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &TempDir, options: &[String]) -> Child {
    let start = |program: &str| {
        Command::new(program)
            .args(["--port", "0", "--unixsocket", "engine.sock", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "everysec"])
            .args(options)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
    };
    start("redis-server")
        .or_else(|_| start("valkey-server"))
        .expect("redis-server is installed: scripts/setup test")
}

/// The options of a node that publishes to `url`.
pub fn node(url: &str, options: &[&str]) -> Server {
    let fleet = [
        "--counts-through",
        url,
        "--admin-listen",
        "0",
        "--control",
        "off",
    ];
    Server::on_loopback("epoll", &[&fleet, options].concat())
}
