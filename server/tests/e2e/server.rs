//! A `barewire serve` that runs: started, waited for, ended, and everything it said.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The binary under test.
pub const BAREWIRE: &str = env!("CARGO_BIN_EXE_barewire");

/// How long anything may take that a test waits for. Generous: what is tested is that it happens.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` holds.
///
/// # Panics
///
/// If it does not within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asserts that what a server said contains `expected`.
#[track_caller]
pub fn assert_says(said: &str, expected: &str) {
    assert!(said.contains(expected), "{said}");
}

/// The next message at the socket that `NOTIFY_SOCKET` names.
pub fn hear(manager: &UnixDatagram) -> String {
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 256];
    let len = manager.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..len]).trim().to_owned()
}

pub struct Server {
    child: Child,
    /// Where it serves, as its `ready` line says.
    pub addresses: Vec<SocketAddr>,
    /// What it said before it was ready.
    pub report: Vec<String>,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

/// A server that has ended.
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it said after it was ready.
    pub stdout: Vec<String>,
    /// Its log and its error message.
    pub stderr: String,
}

impl Server {
    /// Starts `barewire serve` on a kernel stack, on a free port of the loopback interface.
    pub fn on_loopback(stack: &str, arguments: &[&str]) -> Server {
        // Tests that `nohup` started ignore SIGHUP, and a server that inherited this would, too.
        let mut command = Command::new("env");
        command.args([
            "--default-signal=HUP",
            BAREWIRE,
            "serve",
            "--stack",
            stack,
            "--listen",
            "127.0.0.1:0",
            "--cores",
            "0,1",
        ]);
        Server::start(command.args(arguments))
    }

    /// Runs `command` until it says that it is ready.
    ///
    /// # Panics
    ///
    /// If it ends before, or does not become ready.
    pub fn start(command: &mut Command) -> Server {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (line_out, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| line_out.send(message_of(line)))
        });
        let log = Arc::new(Mutex::new(String::new()));
        let log_in = Arc::clone(&log);
        let stderr_reader = thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = String::new();
            while let Ok(1..) = stderr.read_line(&mut line) {
                log_in.lock().unwrap().push_str(&line);
                line.clear();
            }
        });

        let mut server = Server {
            child,
            addresses: Vec::new(),
            report: Vec::new(),
            stdout: lines,
            stderr: log,
            stderr_reader: Some(stderr_reader),
        };
        loop {
            match server.stdout.recv_timeout(PATIENCE) {
                Ok(line) => match line.strip_prefix("ready ") {
                    Some(urls) => {
                        let authority =
                            |url: &str| url.split_once("://").unwrap().1.parse().unwrap();
                        server.addresses = urls.split(' ').map(authority).collect();
                        return server;
                    }
                    None => server.report.push(line),
                },
                Err(_) => {
                    let report = server.report.join("\n");
                    let ended = server.kill();
                    panic!(
                        "{command:?} did not become ready\n{report}\n{}",
                        ended.stderr
                    );
                }
            }
        }
    }

    /// Runs a command that is expected to end by itself.
    pub fn fail(command: &mut Command) -> Ended {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let (done_out, done) = mpsc::channel();
        thread::spawn(move || done_out.send(child.wait_with_output().unwrap()));
        let output = done.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let _ = kill_process(pid, Signal::KILL);
            panic!("{command:?} did not end");
        });
        let stdout = String::from_utf8_lossy(&output.stdout);
        Ended {
            code: output.status.code(),
            stdout: stdout.lines().map(str::to_owned).collect(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What a command says that is expected to fail.
    #[track_caller]
    pub fn refusal(command: &mut Command) -> String {
        let ended = Server::fail(command);
        assert_ne!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it says once more that it is ready.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn wait_until_ready_again(&self) {
        while !self
            .stdout
            .recv_timeout(PATIENCE)
            .unwrap()
            .starts_with("ready ")
        {}
    }

    /// Waits until its log contains `text`.
    ///
    /// # Panics
    ///
    /// If it does not say so.
    #[track_caller]
    pub fn logs(&self, text: &str) {
        wait_until(text, || self.stderr.lock().unwrap().contains(text));
    }

    /// SIGTERM, and what came of it.
    pub fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub fn wait(mut self) -> Ended {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if let Some(reader) = self.stderr_reader.take() {
            reader.join().unwrap();
        }
        Ended {
            code: status.unwrap().code(),
            stdout: self.stdout.iter().collect(),
            stderr: self.stderr.lock().unwrap().clone(),
        }
    }
}

/// What a line says, also where it is an object (`--log-format json`).
fn message_of(line: String) -> String {
    let object = serde_json::from_str::<serde_json::Value>(&line).ok();
    let message = object.and_then(|object| Some(object["fields"]["message"].as_str()?.to_owned()));
    message.unwrap_or(line)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Asserts an orderly end and returns how many requests were served.
    pub fn served(&self) -> u64 {
        assert_eq!(
            self.code,
            Some(0),
            "{}\n{}",
            self.stdout.join("\n"),
            self.stderr
        );
        let summary = self
            .stdout
            .iter()
            .find_map(|line| line.strip_prefix("served "));
        summary.unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// The counter `name` of `part`, one value for each core or queue.
    pub fn counters(&self, part: &str, name: &str) -> Vec<u64> {
        let (of_part, name) = (format!("counted by {part}: "), format!("{name}="));
        let groups = self
            .stderr
            .lines()
            .filter_map(|line| Some(line.split_once(&of_part)?.1));
        let value = |counters: &str| {
            let found = counters
                .split(' ')
                .find_map(|counter| counter.strip_prefix(&name));
            found.map_or(0, |value| value.parse().unwrap())
        };
        groups.map(value).collect()
    }
}
