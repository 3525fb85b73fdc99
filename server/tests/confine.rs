//! A confined process asks the kernel for what it must not: from another process, since it may not survive.
#![allow(clippy::unwrap_used)]

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::thread;

use barewire::confine::{Confinement, Seccomp};

const FILTER: &str = "BAREWIRE_TEST_FILTER";

type Attempt = fn() -> io::Result<()>;

/// What a child process tries once it is confined.
const ATTEMPTS: &[(&str, Attempt)] = &[
    ("exec", || Err(Command::new("true").exec())),
    ("socket", || TcpListener::bind("127.0.0.1:0").map(drop)),
    ("exec_in_a_thread", || {
        let attempt = thread::spawn(|| Command::new("true").exec());
        Err(attempt.join().unwrap())
    }),
];

/// Runs attempt `name` in a child under `filter`.
fn attempt(name: &str, filter: &str) -> ExitStatus {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "the_child"]);
    child
        .env(FILTER, format!("{filter} {name}"))
        .output()
        .unwrap()
        .status
}

#[test]
#[ignore = "the other tests run it in a process of its own"]
fn the_child() {
    let wanted = env::var(FILTER).unwrap();
    let (filter, name) = wanted.split_once(' ').unwrap();
    let filter = match filter {
        "on" => Seccomp::On,
        "log" => Seccomp::Log,
        _ => Seccomp::Off,
    };
    let confinement = Confinement::begin(None, filter).unwrap();
    // A thread that is there already, as the cores are.
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let core = thread::spawn({
        let name = name.to_owned();
        move || {
            let _ = waits.recv();
            let (_, attempt) = ATTEMPTS.iter().find(|(known, _)| *known == name).unwrap();
            attempt()
        }
    });
    confinement.give_up_privileges().unwrap();
    confinement.restrict_calls(false).unwrap();
    drop(go);
    core.join().unwrap().unwrap();
}

#[test]
fn what_no_server_needs_ends_the_process() {
    for (name, _) in ATTEMPTS {
        let status = attempt(name, "on");
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{name}: {status}");
    }
}

#[test]
fn logged_or_off_it_goes_on() {
    for (filter, name) in ["log", "off"]
        .iter()
        .flat_map(|filter| ATTEMPTS.iter().map(move |(name, _)| (filter, name)))
    {
        let status = attempt(name, filter);
        assert_eq!(status.code(), Some(0), "{name}, {filter}: {status}");
    }
}

#[test]
fn a_thread_that_kept_its_rights_is_found() {
    let held = rustix::thread::capabilities(None).unwrap();
    if held.effective.is_empty() {
        eprintln!("SKIPPED: there is nothing to keep without root");
        return;
    }
    let confinement = Confinement::begin(None, Seccomp::Off).unwrap();
    let error = confinement.verify().unwrap_err().to_string();
    assert!(error.contains("capabilities"), "{error}");
}
