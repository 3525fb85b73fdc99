//! What commands print: into a pipe that is closed, onto a disk that is full, as objects where that was asked for.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Server};

/// Runs `barewire` with these arguments and this stdout.
fn run(arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(BAREWIRE);
    let command = command.args(arguments).stdin(Stdio::null()).stdout(stdout);
    command.stderr(Stdio::piped()).output().unwrap()
}

/// A disk without room.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reading end is closed, as that of `barewire ... | head` after ten lines.
fn closed() -> io::PipeWriter {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn a_full_disk_is_an_error_and_a_reader_that_has_seen_enough_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let socket = socket.to_str().unwrap();
    let server = Server::on_loopback(STACKS[0], &["--control", socket]);
    let target = format!("http://{}", server.addresses[0]);
    for arguments in [
        &["status", "--control", socket, "--interval-ms", "0"][..],
        &[
            "status",
            "--json",
            "--control",
            socket,
            "--interval-ms",
            "0",
        ],
        &[
            "top",
            "--control",
            socket,
            "--interval-ms",
            "50",
            "--count",
            "2",
        ],
        &["load", "--target", &target, "--requests", "100"],
        &["load", "--target", &target, "--requests", "100", "--json"],
        &["serve", "--print-config"],
    ] {
        let output = run(arguments, full());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("No space left on device") && !said.contains("panicked"),
            "{arguments:?}: {said}"
        );

        let output = run(arguments, closed());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(
            !said.contains("error") && !said.contains("panicked"),
            "{said}"
        );
    }
    server.terminate();
}

fn objects(text: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(text);
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    text.lines().map(object).collect()
}

/// Log collectors read both streams of a container.
#[test]
fn with_a_json_log_every_line_of_both_streams_is_an_object() {
    let mut command = Command::new(BAREWIRE);
    command.args(["serve", "--listen", "127.0.0.1:0", "--cores", "0"]);
    command.args(["--control", "off", "--log-format", "json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("ready http://") {
        assert_ne!(stdout.read_line(&mut said).unwrap(), 0, "{said}");
    }
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    stdout.read_to_string(&mut said).unwrap();
    let output = server.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    for line in [objects(said.as_bytes()), objects(&output.stderr)].concat() {
        assert_eq!(line["level"], "INFO", "{line}");
        assert!(
            line["timestamp"].is_string() && line["target"].is_string(),
            "{line}"
        );
    }

    let output = run(
        &["serve", "--listen", "192.0.2.1:80", "--log-format", "json"],
        Stdio::null(),
    );
    assert_eq!(output.status.code(), Some(1));
    let last = objects(&output.stderr).pop().unwrap();
    let message = last["fields"]["message"].as_str().unwrap();
    assert!(message.starts_with("error: "), "{last}");
    assert_eq!(last["level"], "ERROR");
}
