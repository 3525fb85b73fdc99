//! `--state FILE`: what was acknowledged stays counted, however often the server stops and starts.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::Signal;

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Ended, PATIENCE, Server, wait_until};

const CLIENTS: u64 = 8;

/// What a server said at its end.
fn last_stats(ended: &Ended) -> String {
    let (_, rest) = ended.stderr.rsplit_once("ending with ").unwrap();
    rest.lines().next().unwrap().to_owned()
}

/// Clients that send events for as long as they may, to whichever server there is.
#[derive(Default)]
struct Load {
    server: Mutex<Option<SocketAddr>>,
    ended: AtomicBool,
    acknowledged: AtomicU64,
}

impl Load {
    /// One client: each of its events has the value one, and is sent until a server acknowledges it.
    fn client(&self, client: u64) {
        let mut connection = None;
        let mut sent = 0;
        while !self.ended.load(Ordering::Relaxed) {
            let Some(mut stream) = connection.take().or_else(|| self.connect()) else {
                thread::yield_now();
                continue;
            };
            // New users all the time, and old ones.
            let user = client + CLIENTS * (sent % 1_000);
            if let Ok(is_last) = post(&mut stream, user) {
                sent += 1;
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                connection = (!is_last).then_some(stream);
            }
        }
    }

    fn connect(&self) -> Option<TcpStream> {
        let server = *self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = TcpStream::connect_timeout(&server?, PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(stream)
    }
}

/// Sends an event; whether the connection ends after its answer. An error: it was not answered.
fn post(stream: &mut TcpStream, user: u64) -> io::Result<bool> {
    let body = format!(r#"{{"userId":"user_{user}","value":1}}"#);
    let length = body.len();
    let request =
        format!("POST /event HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 512];
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => response.extend_from_slice(&piece[..count]),
        }
    }
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    Ok(response.contains("Connection: close"))
}

/// Starts and stops a server under load, `cycles` times.
fn cycle(
    cycles: u32,
    state: &Path,
    start: impl Fn(&str) -> Server,
    run: impl Fn(&Load, u64) + Sync,
) {
    let load = Load::default();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (load, run) = (&load, &run);
            scope.spawn(move || run(load, client));
        }
        let _end = OnDrop(|| load.ended.store(true, Ordering::Relaxed));
        for number in 0..cycles {
            let before = load.acknowledged.load(Ordering::Relaxed);
            let server = start(state.to_str().unwrap());
            let set = |address| {
                *load.server.lock().unwrap_or_else(PoisonError::into_inner) = address;
            };
            set(Some(server.addresses[0]));
            // Not only between the events of a burst, but in the middle of it.
            wait_until("50 events are acknowledged", || {
                load.acknowledged.load(Ordering::Relaxed) >= before + 50
            });
            let ended = server.terminate();
            set(None);
            assert_eq!(ended.code, Some(0), "cycle {number}: {}", ended.stderr);
        }
    });
    let acknowledged = load.acknowledged.load(Ordering::Relaxed);
    let last = start(state.to_str().unwrap());
    let stats = last_stats(&last.terminate());
    let found: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(found["totalRequests"], acknowledged, "{stats}");
    assert_eq!(found["sum"], acknowledged as f64, "{stats}");
    let users = found["uniqueUsers"].as_u64().unwrap();
    assert!((CLIENTS..=CLIENTS * 1_000).contains(&users), "{stats}");
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_hundred_stops_and_starts_lose_nothing_and_count_nothing_twice() {
    for (stack, cycles) in STACKS.iter().zip([100, 10]) {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("counts");
        let start = |state: &str| Server::on_loopback(stack, &["--state", state]);
        cycle(cycles, &state, start, Load::client);

        let mode = fs::metadata(&state).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{stack}");
        let files = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 1, "{stack}: something was left behind");
    }
}

#[cfg(feature = "xdp")]
#[test]
fn the_bypass_loses_nothing_either() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("counts");
    let start =
        |state: &str| crate::bypass::serve(&lab, &["--state", state, "--connections", "256"]);
    cycle(5, &state, start, |load, client| {
        lab.client(|| load.client(client));
    });
}

/// A state with three events.
fn write_state(path: &str) {
    let server = Server::on_loopback(STACKS[0], &["--state", path]);
    let mut stream = TcpStream::connect(server.addresses[0]).unwrap();
    for user in 0..3 {
        post(&mut stream, user).unwrap();
    }
    drop(stream);
    assert_eq!(server.terminate().code, Some(0));
}

fn serve_in_vain(arguments: &[&str]) -> Ended {
    let mut command = Command::new(BAREWIRE);
    command.args(["serve", "--listen", "127.0.0.1:0", "--cores", "0"]);
    Server::fail(command.args(arguments))
}

#[test]
fn a_state_that_cannot_be_used_is_refused_and_left_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts");
    let name = path.to_str().unwrap();
    write_state(name);
    let whole = fs::read(&path).unwrap();

    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    let mut newer = whole[..whole.len() - 4].to_vec();
    newer[8] = 3;
    newer.extend(crc32fast::hash(&newer).to_le_bytes());
    for (content, reason) in [
        (&damaged[..], "damaged"),
        (&whole[..whole.len() - 1], "cut off"),
        (&whole[..0], "no state of event counts"),
        (b"[server]\nport = 80\n", "no state of event counts"),
        (&newer, "version 3"),
    ] {
        fs::write(&path, content).unwrap();
        let ended = serve_in_vain(&["--state", name]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let message = ended.stderr;
        let cure = format!("mv {name} {name}.bad");
        assert!(
            message.contains(reason) && message.contains(&cure),
            "{message}"
        );
        assert_eq!(fs::read(&path).unwrap(), content);
    }

    fs::write(&path, &whole).unwrap();
    let ended = serve_in_vain(&["--state", name, "--max-users", "2"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("3 users") && ended.stderr.contains("--users-max 2"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_state_that_could_not_be_written_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("nowhere/counts");
    let ended = serve_in_vain(&["--state", name.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("cannot write the state") && ended.stderr.contains("directory"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_second_signal_and_the_drain_deadline_keep_the_counts_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts");
    let name = path.to_str().unwrap();
    for (round, (timeout_ms, second)) in [("3600000", Some(Signal::INT)), ("50", None)]
        .into_iter()
        .enumerate()
    {
        let server = Server::on_loopback(
            STACKS[0],
            &["--state", name, "--drain-timeout-ms", timeout_ms],
        );
        let mut stream = TcpStream::connect(server.addresses[0]).unwrap();
        post(&mut stream, 1).unwrap();
        stream.write_all(b"POST /event HTTP/1.1\r\n").unwrap();
        let mut idle = Client::connect(server.addresses[0]);
        idle.get("/health");
        server.signal(Signal::TERM);
        assert_eq!(idle.rest(), b"");
        second.into_iter().for_each(|signal| server.signal(signal));
        let ended = server.wait();
        let expected = format!(r#"{{"totalRequests":{},"#, round + 1);
        let stats = last_stats(&ended);
        assert!(stats.starts_with(&expected), "{stats}");
    }
    let last = Server::on_loopback(STACKS[0], &["--state", name]);
    let mut client = Client::connect(last.addresses[0]);
    let stats = String::from_utf8(client.get("/stats").body).unwrap();
    assert!(stats.starts_with(r#"{"totalRequests":2,"#), "{stats}");
}

#[test]
fn a_state_belongs_to_one_server_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts");
    let name = path.to_str().unwrap();
    write_state(name);

    let first = Server::on_loopback(STACKS[0], &["--state", name]);
    expect_in_use(name);
    assert!(last_stats(&first.terminate()).starts_with(r#"{"totalRequests":3,"#));
}

#[track_caller]
fn expect_in_use(name: &str) {
    let ended = serve_in_vain(&["--state", name]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("in use"), "{}", ended.stderr);
}

/// The lock is there from the start, whether the file was or not, and whatever it is called.
#[test]
fn a_new_state_belongs_to_one_server_too_and_links_lead_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let [counts, link, link_to_link] = ["counts", "link", "link-to-link"].map(at);
    symlink("counts", &link).unwrap();
    symlink(&link, &link_to_link).unwrap();

    let first = Server::on_loopback(STACKS[0], &["--state", &link_to_link]);
    for name in [&counts, &link, &link_to_link] {
        expect_in_use(name);
    }
    let mut stream = TcpStream::connect(first.addresses[0]).unwrap();
    post(&mut stream, 1).unwrap();
    drop(stream);
    assert!(last_stats(&first.terminate()).starts_with(r#"{"totalRequests":1,"#));

    for link in [&link, &link_to_link] {
        assert!(fs::symlink_metadata(link).unwrap().is_symlink(), "{link}");
    }
    for name in [&counts, &link, &link_to_link] {
        let again = Server::on_loopback(STACKS[0], &["--state", name]);
        assert!(last_stats(&again.terminate()).starts_with(r#"{"totalRequests":1,"#));
    }
}

/// A server that is killed leaves a state that can be gone on with.
#[test]
fn a_server_that_is_killed_leaves_what_it_began_with() {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("counts");
    let name = name.to_str().unwrap();
    Server::on_loopback(STACKS[0], &["--state", name]).kill();
    let next = Server::on_loopback(STACKS[0], &["--state", name]);
    assert!(last_stats(&next.terminate()).starts_with(r#"{"totalRequests":0,"#));
}

/// Each reason has a cure of its own.
#[test]
fn a_full_disk_is_not_called_a_missing_directory() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: mounting needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().to_str().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=4k none {name} && dd if=/dev/zero of={name}/full bs=4k count=1 status=none && \
         exec {BAREWIRE} serve --listen 127.0.0.1:0 --cores 0 --state {name}/counts"
    );
    let ended = Server::fail(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let message = ended.stderr;
    let cure = format!("make room: `df {name}`");
    assert!(
        message.contains("No space left on device") && message.contains(&cure),
        "{message}"
    );
    assert!(!message.contains("mkdir"), "{message}");
}
