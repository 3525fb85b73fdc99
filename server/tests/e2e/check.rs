//! `barewire check` says what `serve` does then, and changes nothing.

use barewire_lab::{Lab, SERVER_DEVICE};
use serde_json::Value;

use crate::bypass::{is_attached, lab, serve};
use crate::http::Client;
use crate::server::{BAREWIRE, Ended, Server};
use crate::wrong_use::{FAILURE, USAGE, expect_refusal};

/// Runs `barewire VERB` on the lab's interface, behind a command that takes something away from it.
fn run(lab: &Lab, wrapper: &[&str], verb: &str, arguments: &[&str]) -> Ended {
    let mut command = lab.server_command();
    command.args(wrapper).args([BAREWIRE, verb]);
    Server::fail(command.args(arguments))
}

fn here<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--interface", SERVER_DEVICE], more].concat()
}

/// The findings about `check`, each with its level.
fn findings(ended: &Ended, check: &str) -> Vec<(String, Value)> {
    let report: Value = serde_json::from_str(&ended.stdout.join("\n")).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let about = findings.filter(|finding| finding["check"] == check);
    about
        .map(|finding| {
            (
                finding["level"].as_str().unwrap().to_owned(),
                finding.clone(),
            )
        })
        .collect()
}

#[test]
fn what_it_finds_good_starts() {
    let Some(lab) = lab() else { return };
    let ended = run(&lab, &[], "check", &here(&[]));
    let text = ended.stdout.join("\n");
    assert_eq!(ended.code, Some(0), "{text}\n{}", ended.stderr);
    assert!(text.ends_with("serve would start"), "{text}");
    for part in [
        "Linux",
        "veth",
        "10.77.0.2",
        "CPU 0 serves 0",
        "native",
        "the kernel accepts it",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!is_attached(&lab));

    // Nothing of it is left: the queue that was tried is free at once.
    let server = serve(&lab, &[]);
    let address = server.addresses[0];
    let mut client = lab.client(|| Client::connect(address));
    client.get("/plaintext");

    // And it does not disturb who serves.
    let second = run(&lab, &[], "check", &here(&["--json"]));
    assert_eq!(second.code, Some(FAILURE));
    let (level, occupied) = &findings(&second, "other programs")[0];
    assert_eq!(level, "error");
    assert!(occupied["found"].as_str().unwrap().contains("bpftool"));
    client.get("/plaintext");
    assert_eq!(server.terminate().served(), 2);
}

#[test]
fn what_keeps_serve_from_starting_is_an_error_with_the_same_words() {
    let Some(lab) = lab() else { return };
    let unlocked = [
        "setpriv",
        "--bounding-set=-ipc_lock",
        "prlimit",
        "--memlock=65536",
    ];
    for (wrapper, arguments) in [
        (&[][..], vec!["--interface", "eth77"]),
        (&[], vec!["--interface", "lo"]),
        (&[], here(&["--queues", "0,7"])),
        (&[], here(&["--cores", "4000"])),
        (&[], here(&["--zero-copy", "on"])),
        (&[], here(&["--user", "no-such-user"])),
        (&["setpriv", "--bounding-set=-all"], here(&[])),
        (&["setpriv", "--bounding-set=-net_raw"], here(&[])),
        (&unlocked, here(&[])),
    ] {
        let served = run(&lab, wrapper, "serve", &arguments);
        let checked = run(&lab, wrapper, "check", &arguments);
        assert_eq!(
            (served.code, checked.code),
            (Some(FAILURE), Some(FAILURE)),
            "{arguments:?}"
        );
        let message = served
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("error: "))
            .unwrap();
        let text = checked.stdout.join("\n");
        assert!(text.contains(message), "{arguments:?}: {message}\n{text}");
    }
}

#[test]
fn a_warning_comes_with_the_command_that_mends_it() {
    let Some(lab) = lab() else { return };
    lab.server_runs(&["ethtool", "-K", SERVER_DEVICE, "gro", "on"]);
    let generic = here(&["--json", "--mode", "generic"]);
    let warned = findings(&run(&lab, &[], "check", &generic), "offloads");
    let (level, offloads) = &warned[0];
    assert_eq!(level, "warning");
    let mend: Vec<_> = offloads["mend"].as_str().unwrap().split(' ').collect();
    lab.server_runs(&mend);
    let mended = findings(&run(&lab, &[], "check", &generic), "offloads");
    assert_eq!(mended[0].0, "ok", "{mended:?}");

    let few = run(&lab, &[], "check", &here(&["--json", "--cores", "0"]));
    let shared = findings(&few, "queues and cores");
    let mend = shared.last().unwrap().1["mend"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(mend, format!("ethtool -L {SERVER_DEVICE} combined 1"));
}

#[test]
fn it_is_about_an_interface() {
    let mut command = std::process::Command::new(BAREWIRE);
    expect_refusal(command.arg("check"), USAGE, &["--interface"]);
}
