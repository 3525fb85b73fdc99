//! Servers whose log is not taken: a full disk, a closed pipe, a reader that has stopped reading.
//!
//! They serve as others do, end when they are told to, and keep what they counted.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use barewire::operate::Status;
use rustix::process::{Pid, Signal, kill_process};

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, PATIENCE};

const EVENT: &str = "POST /event HTTP/1.1\r\nHost: test\r\nContent-Length: 26\r\n\r\n{\"userId\":\"a\",\"value\":1.5}";
/// More lines of the log than a pipe and the queue before it hold.
const EVENTS: u64 = 10_000;

/// Where a server's lines go.
#[derive(Debug, Clone, Copy)]
enum Listener {
    /// A disk without room.
    Full,
    /// A pipe whose reading end is closed.
    Closed,
    /// A pipe whose reader sleeps.
    Stalled,
}

const LISTENERS: [Listener; 3] = [Listener::Full, Listener::Closed, Listener::Stalled];

/// A server of which nothing is known but what it was told. It ends with the test.
struct Unheard(Child);

impl Unheard {
    fn start(command: &mut Command, listener: Listener, state: &Path, control: &Path) -> Unheard {
        command.args(["--log-requests", "--state"]).arg(state);
        command.arg("--control").arg(control).stdin(Stdio::null());
        match listener {
            Listener::Full => {
                let full = || fs::File::options().write(true).open("/dev/full").unwrap();
                command.stdout(full()).stderr(full());
            }
            Listener::Closed | Listener::Stalled => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let mut child = command.spawn().unwrap();
        if let Listener::Closed = listener {
            drop((child.stdout.take(), child.stderr.take()));
        }
        Unheard(child)
    }

    /// Waits until it accepts connections: it cannot say that it is ready.
    fn connect(&mut self, address: SocketAddr) -> Client {
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert_eq!(self.0.try_wait().unwrap(), None, "it has ended");
            assert!(started.elapsed() < PATIENCE, "it does not serve");
            sleep(Duration::from_millis(5));
        }
        Client::connect(address)
    }

    /// Its exit code after SIGTERM.
    fn terminate(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "it does not end");
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ended = self.0.try_wait();
            eprintln!("{:?} has ended with {ended:?}", self.0);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts events, looks at the status, and ends the server.
fn serves_and_ends_in_order(
    mut server: Unheard,
    listener: Listener,
    address: SocketAddr,
    state: &Path,
    control: &Path,
) {
    let mut client = server.connect(address);
    for _ in 0..EVENTS / 100 {
        client.send(EVENT.repeat(100));
        for _ in 0..100 {
            assert_eq!(client.receive(false).status, 200, "{listener:?}");
        }
    }
    drop(client);
    let status = status(control);
    let lost = |name: &str| {
        let of_log = status.drops.iter().filter(|drop| drop.part == "log");
        let named = of_log.filter(|drop| drop.name == name);
        named.map(|drop| drop.count).sum::<u64>()
    };
    match listener {
        Listener::Full | Listener::Closed => assert!(lost("lines_failed") > 0, "{listener:?}"),
        Listener::Stalled => assert!(lost("lines_lost") > 0, "{listener:?}"),
    }
    assert_eq!(server.terminate(), Some(0), "{listener:?}");
    let events = &fs::read(state).unwrap()[36..44];
    assert_eq!(events, EVENTS.to_le_bytes(), "{listener:?}");
}

/// What `barewire status --json` says.
fn status(control: &Path) -> Status {
    let mut command = Command::new(BAREWIRE);
    command.args(["status", "--json", "--interval-ms", "0", "--control"]);
    let output = command.arg(control).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An address of the loopback interface that nobody else uses: a port that was free a moment ago may be another test's.
fn own_address() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, 100u8.wrapping_add(high % 100), low, count], 8080))
}

#[test]
fn the_kernel_stacks_do_not_need_a_listener() {
    for (stack, listener) in STACKS
        .iter()
        .flat_map(|stack| LISTENERS.map(|listener| (stack, listener)))
    {
        let directory = tempfile::tempdir().unwrap();
        let [state, control] = ["counts", "socket"].map(|name| directory.path().join(name));
        let address = own_address();
        let mut command = Command::new(BAREWIRE);
        command.args(["serve", "--stack", stack, "--cores", "0"]);
        command.args(["--listen", &address.to_string()]);
        let server = Unheard::start(&mut command, listener, &state, &control);
        serves_and_ends_in_order(server, listener, address, &state, &control);
    }
}

#[cfg(feature = "xdp")]
#[test]
fn the_bypass_does_not_need_a_listener() {
    use barewire_lab::{Lab, SERVER_DEVICE};

    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    for listener in LISTENERS {
        let directory = tempfile::tempdir().unwrap();
        let [state, control] = ["counts", "socket"].map(|name| directory.path().join(name));
        let mut command = lab.server_command();
        command.args([BAREWIRE, "serve", "--interface", SERVER_DEVICE]);
        let server = Unheard::start(&mut command, listener, &state, &control);
        let address = "10.77.0.2:8080".parse().unwrap();
        lab.client(|| serves_and_ends_in_order(server, listener, address, &state, &control));
    }
}

/// A disk that is full only for a while: what comes later is in the log, on lines of its own.
#[test]
fn the_log_goes_on_when_there_is_room_again() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: mounting needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().to_str().unwrap();
    let address = own_address();
    // What the shell keeps open is how the test reaches the file system of the other namespace.
    let script = format!(
        "mount -t tmpfs -o size=16k none {name} && head -c 8192 /dev/zero >{name}/other && \
         exec {BAREWIRE} serve --stack {} --listen {address} --cores 0 --log-requests --control off 2>{name}/log",
        STACKS[0]
    );
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", &script])
        .stdout(Stdio::null());
    let mut server = Unheard(command.spawn().unwrap());
    let mut client = server.connect(address);
    for _ in 0..300 {
        assert_eq!(client.get("/plaintext").status, 200);
    }
    let inside = format!("/proc/{}/root{name}", server.0.id());
    let log = || fs::read_to_string(format!("{inside}/log")).unwrap();
    let full = log();
    assert!(full.len() <= 8192, "{}", full.len());
    fs::remove_file(format!("{inside}/other")).unwrap();
    assert_eq!(client.get("/health").status, 200);
    let started = Instant::now();
    while !log().contains("route=\"/health\"") {
        assert!(started.elapsed() < PATIENCE, "{}", log());
        sleep(Duration::from_millis(5));
    }
    let lines = log();
    let last = lines.lines().last().unwrap();
    assert!(
        last.starts_with("20") && last.contains("/health"),
        "{lines}"
    );
    drop(client);
    assert_eq!(server.terminate(), Some(0));
}

/// The last lines do not wait for a reader either.
#[test]
fn a_start_that_fails_ends_whoever_reads() {
    for listener in LISTENERS {
        let directory = tempfile::tempdir().unwrap();
        let [state, control] = ["counts", "socket"].map(|name| directory.path().join(name));
        fs::write(&state, "no state").unwrap();
        let mut command = Command::new(BAREWIRE);
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        let mut server = Unheard::start(&mut command, listener, &state, &control);
        assert_eq!(server.0.wait().unwrap().code(), Some(1), "{listener:?}");
        if let Some(mut stderr) = server.0.stderr.take() {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            assert!(said.contains("no state of event counts"), "{said}");
        }
    }
}
