//! Flags, environment and file as one configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Server, assert_says};
use crate::wrong_use::{FAILURE, USAGE, expect_refusal};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/barewire.example.toml");

fn serve(arguments: &[&str]) -> Command {
    let mut command = Command::new(BAREWIRE);
    command.env_clear().arg("serve").args(arguments);
    command
}

/// What `command` prints as the effective configuration.
fn printed(command: &mut Command) -> String {
    let output = command.arg("--print-config").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn table(text: &str) -> toml::Table {
    text.parse().unwrap()
}

/// A configuration file of this test, gone with it.
struct File(TempDir);

impl File {
    fn with(text: &str) -> File {
        let file = File(tempfile::tempdir().unwrap());
        fs::write(file.path(), text).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("barewire.toml")
    }

    fn serve(&self, arguments: &[&str]) -> Command {
        let mut command = serve(&["--config"]);
        command.arg(self.path()).args(arguments);
        command
    }
}

#[test]
fn the_example_names_every_key_with_its_default_and_can_be_used_as_it_is() {
    let defaults = printed(&mut serve(&[]));
    let example = fs::read_to_string(EXAMPLE).unwrap();
    assert!(
        defaults == example,
        "write it anew: barewire serve --print-config > server/barewire.example.toml\n{defaults}"
    );
    assert_eq!(printed(&mut serve(&["--config", EXAMPLE])), example);

    let help = serve(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"));
    let mut keys = 0;
    for flag in flags.map(|line| line.split(' ').next().unwrap()) {
        if ["config", "print-config", "test-faults"].contains(&flag) {
            continue;
        }
        let is_named = example.lines().any(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            line.split_once(" = ").is_some_and(|(key, _)| key == flag)
        });
        assert!(is_named, "{flag}");
        keys += 1;
    }
    assert!(keys > 40, "{help}");
}

#[test]
fn flags_win_over_the_environment_and_that_wins_over_the_file() {
    let file = File::with(
        "port = 81\nspin-us = 81\nbacklog = 81\naddress = ['10.0.0.1']\ninterface = 'lo'\n",
    );
    let mut command = file.serve(&["--port", "83", "--address", "10.0.0.3"]);
    command
        .env("BAREWIRE_PORT", "82")
        .env("BAREWIRE_SPIN_US", "82");
    let text = printed(&mut command);
    for line in [
        "port = 83 # from the command line".to_owned(),
        "spin-us = 82 # from BAREWIRE_SPIN_US".to_owned(),
        format!("backlog = 81 # from {}, line 3", file.path().display()),
        // A list is replaced, not added to.
        "address = [\"10.0.0.3\"] # from the command line".to_owned(),
        format!(
            "interface = \"lo\" # from {}, line 5",
            file.path().display()
        ),
    ] {
        assert!(text.contains(&line), "no {line:?} in\n{text}");
    }
}

#[test]
fn the_environment_has_every_shape() {
    let mut command = serve(&["--interface", "lo"]);
    command.env("BAREWIRE_ADDRESS", "10.0.0.1,::1");
    command.env("BAREWIRE_TEST_ROUTES", "true");
    command.env("BAREWIRE_WAIT", "spin");
    let table = table(&printed(&mut command));
    assert_eq!(table["address"].as_array().unwrap().len(), 2);
    assert_eq!(table["test-routes"].as_bool(), Some(true));
    assert_eq!(table["wait"].as_str(), Some("spin"));
    expect_refusal(
        serve(&[]).env("BAREWIRE_PORT", "0"),
        USAGE,
        &["--port", "1..=65535"],
    );
}

#[test]
fn what_is_printed_leads_to_the_same_configuration() {
    for arguments in [
        &[][..],
        &[
            "--stack",
            "uring",
            "--listen",
            "[::]:0",
            "--sqpoll-idle-ms",
            "5",
            "--cores",
            "0,2-3",
        ],
        &[
            "--interface",
            "lo",
            "--address",
            "10.0.0.1",
            "--address",
            "::1",
            "--queues",
            "0",
        ],
        &[
            "--listen",
            "127.0.0.1:80",
            "--allow-reset",
            "--log-filter",
            "a=\"b\"\\,info",
        ],
    ] {
        let first = printed(&mut serve(arguments));
        let again = printed(&mut File::with(&first).serve(&[]));
        assert_eq!(table(&first), table(&again), "{arguments:?}");
    }
}

#[test]
fn a_flag_that_excludes_what_the_file_says_wins() {
    let file = File::with("interface = 'eth77'\nport = 81\nrx-ring-frames = 64\n");
    let listening = table(&printed(&mut file.serve(&["--listen", "127.0.0.1:0"])));
    assert!(!listening.contains_key("interface"));
    // The port of a file that is for several stacks gives way as well.
    assert_eq!(listening["listen"].as_str(), Some("127.0.0.1:0"));

    let file = File::with("interface = 'eth77'\nlisten = '127.0.0.1:80'\n");
    expect_refusal(&mut file.serve(&[]), USAGE, &["--interface", "--listen"]);
}

#[test]
fn a_wrong_file_is_a_usage_error_with_key_and_line() {
    for (text, parts) in [
        (
            "\n\nprot = 80\n",
            &["barewire.toml, line 3", "'prot'", "did you mean 'port'?"][..],
        ),
        (
            "port = '80'",
            &["line 1", "'port' has to be a whole number"],
        ),
        (
            "# x\nidle-timeout-ms = 0",
            &["line 2", "--idle-timeout-ms", "1.."],
        ),
        ("port: 80", &["barewire.toml", "line 1"]),
    ] {
        expect_refusal(&mut File::with(text).serve(&[]), USAGE, parts);
    }
    let missing = Path::new("/nowhere/barewire.toml");
    let mut command = serve(&["--config"]);
    expect_refusal(
        command.arg(missing),
        USAGE,
        &["cannot read /nowhere/barewire.toml"],
    );
    let file = File::with("cores = '4000'\n");
    expect_refusal(
        &mut file.serve(&["--stack", STACKS[0]]),
        FAILURE,
        &["CPU 4000"],
    );
}

#[test]
fn a_server_does_what_its_file_says() {
    let stack = STACKS[0];
    let file = File::with(&format!(
        "stack = '{stack}'\nlisten = '127.0.0.1:0'\ntest-routes = true\nrx-ring-frames = 64\ncontrol = 'off'\n"
    ));
    let server = Server::start(&mut file.serve(&[]));
    let mut client = Client::connect(server.addresses[0]);
    assert_eq!(client.get("/test/stream?bytes=3").status, 200);
    let ended = server.terminate();
    assert!(!ended.stdout.iter().any(|line| line.starts_with("control:")));
    assert!(
        ended.stderr.contains("rx-ring-frames") && ended.stderr.contains("line 4"),
        "{}",
        ended.stderr
    );
}

/// Of all that Kubernetes sets for a Service named barewire, nothing is meant for the server.
#[test]
fn what_is_not_meant_for_the_server_does_not_end_it() {
    let mut command = serve(&[
        "--stack",
        STACKS[0],
        "--listen",
        "127.0.0.1:0",
        "--cores",
        "0",
    ]);
    command.env("BAREWIRE_PORT", "tcp://10.96.0.1:8080");
    command.env("BAREWIRE_PORT_8080_TCP_ADDR", "10.96.0.1");
    command.env("BAREWIRE_SERVICE_HOST", "10.96.0.1");
    command.env("BAREWIRE_INTERFACE", "");
    command.env("BAREWIRE_IDLE_TIMEOUT", "5");
    let ended = Server::start(&mut command).terminate();
    assert_eq!(ended.served(), 0);
    let warnings: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("WARN"))
        .collect();
    let of_settings = warnings.iter().filter(|line| line.contains("BAREWIRE_"));
    assert_eq!(of_settings.count(), 2, "{}", ended.stderr);
    for expected in [
        "BAREWIRE_PORT is ignored: tcp://10.96.0.1:8080 is what Kubernetes sets",
        "BAREWIRE_IDLE_TIMEOUT is ignored: there is no such setting; did you mean BAREWIRE_IDLE_TIMEOUT_MS?",
    ] {
        assert_says(&ended.stderr, expected);
    }
}

#[test]
fn every_refusal_names_the_variable_or_the_file_that_it_is_about() {
    let mut one = serve(&[]);
    one.env("BAREWIRE_PORT", "http");
    expect_refusal(&mut one, USAGE, &["BAREWIRE_PORT: invalid value 'http'"]);

    let mut two = serve(&[]);
    two.env("BAREWIRE_LISTEN", "127.0.0.1:0")
        .env("BAREWIRE_INTERFACE", "eth77");
    let both = [
        "--listen is set by BAREWIRE_LISTEN",
        "--interface is set by BAREWIRE_INTERFACE",
    ];
    expect_refusal(&mut two, USAGE, &both);

    let file = File::with("interface = 'eth77'\n\nlisten = '127.0.0.1:80'\n");
    let from = format!("--listen is set by {}, line 3", file.path().display());
    expect_refusal(&mut file.serve(&[]), USAGE, &[&from]);

    let mut foreign = serve(&["--stack", STACKS[0]]);
    foreign.env("BAREWIRE_QUEUES", "0");
    expect_refusal(&mut foreign, USAGE, &["--queues is set by BAREWIRE_QUEUES"]);

    // A flag wins, also over what it excludes.
    let mut flag = serve(&["--listen", "127.0.0.1:0"]);
    let text = printed(flag.env("BAREWIRE_INTERFACE", "eth77"));
    assert!(!table(&text).contains_key("interface"), "{text}");
}
