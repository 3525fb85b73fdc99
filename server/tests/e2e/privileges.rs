//! What a server keeps of the rights it was started with: none, on every stack and every thread.

use std::process::Command;

use procfs::process::{Process, Status};
use rustix::process::{Signal, geteuid};

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Server};
use crate::wrong_use::{FAILURE, expect_refusal};

/// The user that every Unix has.
const USER: (&str, u32) = ("nobody", 65534);

/// The status of each of the server's threads, those that the kernel made for it included.
fn threads(server: &Server) -> Vec<Status> {
    let process = Process::new(server.pid().as_raw_nonzero().get()).unwrap();
    let threads = process.tasks().unwrap();
    threads
        .map(|thread| thread.unwrap().status().unwrap())
        .collect()
}

#[track_caller]
fn assert_confined(server: &Server, uid: u32) {
    let threads = threads(server);
    // Main, signals, and at least one core and who waits for its end.
    assert!(threads.len() >= 4, "{}", threads.len());
    for thread in threads {
        let name = &thread.name;
        let ids = [thread.ruid, thread.euid, thread.suid, thread.fuid];
        assert_eq!(ids, [uid; 4], "{name}");
        let bounding = thread.capbnd.unwrap();
        let capabilities = [thread.capinh, thread.capprm, thread.capeff, bounding];
        assert_eq!(capabilities, [0; 4], "{name}");
        assert_eq!(thread.capamb.unwrap(), 0, "{name}");
        assert_eq!(
            (thread.nonewprivs, thread.seccomp),
            (Some(1), Some(2)),
            "{name}"
        );
        if uid != 0 {
            assert!(thread.groups.iter().all(|&group| group != 0), "{name}");
        }
    }
}

/// A request in flight is finished, everything else ends.
#[track_caller]
fn assert_drains(server: Server, mut idle: Client, mut busy: Client) {
    idle.get("/plaintext");
    busy.get("/json");
    busy.send("GET /plaintext HTTP/1.1\r\nHost: te");
    busy.is_read();
    server.signal(Signal::TERM);
    assert_eq!(idle.rest(), b"");
    busy.send("st\r\n\r\n");
    assert_eq!(busy.receive(false).field("connection"), Some("close"));
    drop(busy);
    assert_eq!(server.wait().served(), 3);
}

#[test]
fn the_kernel_stacks_serve_and_drain_without_any_right() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: who is not root has no rights to give up");
        return;
    }
    let (name, uid) = USER;
    let mut variants: Vec<(&str, Vec<&str>, u32)> = Vec::new();
    for stack in STACKS {
        variants.push((stack, vec![], 0));
        variants.push((stack, vec!["--user", name, "--control", "off"], uid));
    }
    if STACKS.contains(&"uring") {
        variants.push((
            "uring",
            vec!["--user", name, "--sqpoll-idle-ms", "50", "--control", "off"],
            uid,
        ));
    }
    for (stack, arguments, uid) in variants {
        let server = Server::on_loopback(stack, &arguments);
        assert_confined(&server, uid);
        let connect = || Client::connect(server.addresses[0]);
        let (idle, busy) = (connect(), connect());
        assert_drains(server, idle, busy);
    }
}

/// What is written at the end is written by the user, through the filter.
#[test]
fn the_state_is_kept_without_any_right() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: who is not root has no rights to give up");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(USER.1), None).unwrap();
    let state = directory.path().join("events");
    let event = "POST /event HTTP/1.1\r\nHost: test\r\nContent-Length: 26\r\n\r\n{\"userId\":\"a\",\"value\":1.5}";
    for (round, stack) in STACKS.iter().cycle().take(2 * STACKS.len()).enumerate() {
        let state = state.to_str().unwrap();
        let server = Server::on_loopback(
            stack,
            &["--user", USER.0, "--state", state, "--control", "off"],
        );
        let mut client = Client::connect(server.addresses[0]);
        client.send(event);
        assert_eq!(client.receive(false).status, 200, "{stack}");
        let stats = String::from_utf8(client.get("/stats").body).unwrap();
        let expected = format!("\"totalRequests\":{}", round + 1);
        assert!(stats.contains(&expected), "{stack}: {stats}");
        drop(client);
        server.terminate().served();
    }
}

#[test]
fn a_user_that_cannot_be_had_is_a_failure() {
    let mut unknown = Command::new(BAREWIRE);
    unknown.args(["serve", "--user", "no-such-user"]);
    expect_refusal(&mut unknown, FAILURE, &["no-such-user", "useradd"]);
    if geteuid().is_root() {
        let mut bounded = Command::new("setpriv");
        bounded.args([
            "--bounding-set=-setuid",
            BAREWIRE,
            "serve",
            "--user",
            USER.0,
        ]);
        expect_refusal(
            &mut bounded,
            FAILURE,
            &["CAP_SETUID missing", "start as root"],
        );
    }
}

#[cfg(feature = "xdp")]
pub mod in_the_lab {
    use super::*;

    use barewire_lab::{Lab, SERVER_DEVICE};

    use crate::bypass::{is_attached, lab};

    /// Exactly what the bypass needs to start; the table in the README and the systemd unit have it from here.
    pub const NEEDED: &[&str] = &["net_admin", "net_raw", "bpf", "perfmon", "ipc_lock"];

    fn serve(lab: &Lab, wrapper: &[&str], arguments: &[&str]) -> Command {
        let mut command = lab.server_command();
        command.args(wrapper);
        command.args([BAREWIRE, "serve", "--interface", SERVER_DEVICE]);
        command.args(arguments);
        command
    }

    /// A process of `nobody` with exactly these capabilities, as a systemd unit makes it.
    fn as_nobody(capabilities: &[&str]) -> Vec<String> {
        let list: String = capabilities
            .iter()
            .map(|name| format!(",+{name}"))
            .collect();
        let mut wrapper: Vec<_> = [
            "setpriv",
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
        ]
        .map(String::from)
        .into();
        for set in ["inh-caps", "ambient-caps", "bounding-set"] {
            wrapper.push(format!("--{set}=-all{list}"));
        }
        // As little as a kernel allows: what is locked beyond takes the capability.
        wrapper.extend(["prlimit", "--memlock=65536"].map(String::from));
        wrapper
    }

    #[test]
    fn the_bypass_serves_drains_and_lets_go_without_any_right() {
        let Some(lab) = lab() else { return };
        let as_unit = as_nobody(NEEDED);
        let as_unit: Vec<_> = as_unit.iter().map(String::as_str).collect();
        let (name, uid) = USER;
        for (wrapper, arguments, uid) in [
            (&[][..], &["--user", name][..], uid),
            (
                &[],
                &["--user", name, "--wait", "spin", "--busy-poll-us", "20"],
                uid,
            ),
            (&[], &[], 0),
        ] {
            let server = Server::start(&mut serve(&lab, wrapper, arguments));
            assert_confined(&server, uid);
            assert!(is_attached(&lab));
            let address = server.addresses[0];
            let (idle, busy) = lab.client(|| (Client::connect(address), Client::connect(address)));
            assert_drains(server, idle, busy);
            assert!(!is_attached(&lab));
        }
        // Without CAP_SETPCAP the bounding set stays, which without a program to start means nothing.
        let server = Server::start(&mut serve(&lab, &as_unit, &["--user", name]));
        for thread in threads(&server) {
            assert_eq!(
                (thread.euid, thread.capeff | thread.capprm | thread.capinh),
                (uid, 0)
            );
            assert_eq!((thread.nonewprivs, thread.seccomp), (Some(1), Some(2)));
        }
        let address = server.addresses[0];
        lab.client(|| Client::connect(address)).get("/plaintext");
        let ended = server.terminate();
        // The program's counters are read after the end, long without CAP_BPF.
        assert!(
            ended.counters("redirect", "redirected")[0] > 3,
            "{}",
            ended.stderr
        );
        assert_eq!(ended.served(), 1);
        assert!(!is_attached(&lab));
    }

    #[test]
    fn each_capability_that_is_missing_is_named() {
        let Some(lab) = Lab::up(&["--queues", "1"]) else {
            return;
        };
        for missing in NEEDED {
            let others: Vec<_> = NEEDED
                .iter()
                .filter(|name| *name != missing)
                .copied()
                .collect();
            let wrapper = as_nobody(&others);
            let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
            let named = format!("CAP_{}", missing.to_uppercase());
            expect_refusal(&mut serve(&lab, &wrapper, &[]), FAILURE, &[&named]);
        }
    }
}
