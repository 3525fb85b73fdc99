//! What systemd sees: a unit it understands, and a server that tells it when it is ready and when it stops.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::{env, fs, process};

use rustix::process::{Signal, geteuid};

use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Server, hear};

const UNIT: &str = include_str!("../../barewire@.service");
const UNIT_OF_THE_KERNEL: &str = include_str!("../../barewire.service");

/// A directory that goes with the test.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("barewire-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_manager_hears_of_the_start_and_of_the_stop() {
    let directory = Directory::new("notify");
    let address = directory.0.join("notify");
    let manager = UnixDatagram::bind(&address).unwrap();
    for stack in STACKS {
        let mut command = Command::new(BAREWIRE);
        command.args([
            "serve",
            "--stack",
            stack,
            "--listen",
            "127.0.0.1:0",
            "--cores",
            "0",
        ]);
        if geteuid().is_root() {
            // The stop is told by a process that has nothing left.
            command.args(["--user", "nobody", "--control", "off"]);
            fs::set_permissions(
                &address,
                std::os::unix::fs::PermissionsExt::from_mode(0o777),
            )
            .unwrap();
        }
        let server = Server::start(command.env("NOTIFY_SOCKET", &address));
        assert_eq!(hear(&manager), "READY=1", "{stack}");
        server.signal(Signal::TERM);
        assert_eq!(hear(&manager), "STOPPING=1", "{stack}");
        let ended = server.wait();
        assert_eq!(ended.served(), 0);
        assert!(!ended.stderr.contains("does not hear"), "{}", ended.stderr);
    }
}

/// Containers and user managers use names that are in no file system.
#[test]
fn a_manager_with_an_abstract_socket_hears_the_same() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;

    let name = format!("barewire-test-{}", process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    let mut command = Command::new(BAREWIRE);
    command.args(["serve", "--listen", "127.0.0.1:0", "--cores", "0"]);
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let server = Server::start(&mut command);
    assert_eq!(hear(&manager), "READY=1");
    server.signal(Signal::TERM);
    assert_eq!(hear(&manager), "STOPPING=1");
    let ended = server.wait();
    assert!(!ended.stderr.contains("does not hear"), "{}", ended.stderr);
}

#[cfg(feature = "xdp")]
#[test]
fn the_unit_grants_what_the_bypass_needs_and_no_more() {
    let needed = crate::privileges::in_the_lab::NEEDED;
    // Its settings may name a port below 1024.
    let needed: Vec<_> = needed
        .iter()
        .chain(&["net_bind_service"])
        .map(|name| format!("CAP_{}", name.to_uppercase()))
        .collect();
    for setting in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
        let granted = UNIT
            .lines()
            .find_map(|line| line.strip_prefix(setting))
            .unwrap();
        let granted: Vec<_> = granted.split(' ').collect();
        assert_eq!(granted, needed, "{setting}");
    }
}

#[test]
fn systemd_understands_the_unit() {
    let directory = Directory::new("unit");
    // The program has to exist where the unit says.
    let write = |name: &str, unit: &str| {
        let unit = unit.replace("/usr/local/bin/barewire", BAREWIRE);
        fs::write(directory.0.join(name), unit).unwrap();
        directory.0.join(name)
    };
    write("barewire@.service", UNIT);
    let of_the_kernel = write("barewire.service", UNIT_OF_THE_KERNEL);
    let instance = directory.0.join("barewire@eth1.service");
    std::os::unix::fs::symlink("barewire@.service", &instance).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").args([&instance, &of_the_kernel]);
    match verify.output() {
        Err(error) => eprintln!("SKIPPED: no systemd-analyze here: {error}"),
        Ok(verdict) => {
            let complaints = String::from_utf8_lossy(&verdict.stderr);
            let of_ours = complaints.lines().filter(|line| line.contains("barewire"));
            assert_eq!(of_ours.collect::<Vec<_>>(), [""; 0], "{complaints}");
        }
    }
}
