//! What does not work is said in a sentence that names the cure.

use std::process::Command;

use crate::engine::{Engine, node};
use crate::server::{BAREWIRE, Server, assert_says};

/// What `barewire serve` says with these options.
fn refusal(options: &[&str]) -> String {
    let mut command = Command::new(BAREWIRE);
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--control",
        "off",
        "--cores",
        "0",
    ]);
    Server::refusal(command.args(options))
}

#[test]
fn an_engine_that_is_not_there() {
    let url = ["--counts-through", "unix:///nowhere/engine.sock"];
    let said = refusal(&url);
    assert_says(&said, "cannot reach the engine at /nowhere/engine.sock");
    assert_says(&said, "--counts-at-start serve");
    let said = refusal(&[&url[..], &["--counts-at-start", "serve"]].concat());
    assert_says(&said, "nobody here knows the key");
    assert_says(
        &refusal(&["--counts-through", "http://a"]),
        "is no address of an engine",
    );
    assert_says(
        &refusal(&["--stats-scope", "fleet"]),
        "needs --counts-through",
    );
    assert_says(
        &refusal(&["--counts-through", "unix:///x", "--node", "a b"]),
        "letters, digits",
    );
}

#[test]
fn a_server_with_a_state_serves_although_the_engine_is_away() {
    let mut engine = Engine::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let options = [
        "--state",
        state.to_str().unwrap(),
        "--counts-at-start",
        "serve",
    ];
    let first = node(&engine.url(), &options);
    assert_eq!(first.terminate().code, Some(0));
    engine.kill();
    let second = node(&engine.url(), &options);
    second.logs("serving without it for now");
    let counted = [(1, 2), (3, 4)];
    crate::client::send(second.addresses[0], &counted);
    engine.restart(false);
    let mut expected = crate::client::Expected::default();
    expected.add(&counted);
    expected.wait_at(second.addresses[0]);
}

#[test]
fn a_wrong_password() {
    let engine = Engine::start(&["--requirepass", "secret"]);
    let said = refusal(&["--counts-through", &engine.url()]);
    assert_says(&said, "refuses user or password");
    let said = refusal(&["--counts-through", &format!("{}?pass=wrong", engine.url())]);
    assert_says(&said, "refuses user or password");
    let right = node(&format!("{}?pass=secret", engine.url()), &[]);
    assert_eq!(right.terminate().code, Some(0));
}

#[test]
fn a_key_of_another_type() {
    let engine = Engine::start(&[]);
    engine.ask(&["LPUSH", "{barewire}:users:0", "mine"]);
    let said = refusal(&["--counts-through", &engine.url()]);
    assert_says(
        &said,
        "{barewire}:users:0 is a list instead of a set: choose another --counts-prefix",
    );
}

#[test]
fn two_nodes_of_one_name() {
    let engine = Engine::start(&[]);
    let first = node(&engine.url(), &["--node", "a"]);
    let said = refusal(&["--counts-through", &engine.url(), "--node", "a"]);
    assert_says(
        &said,
        "another server publishes as node a: give this one another --node",
    );
    // Its name is free once it has ended.
    assert_eq!(first.terminate().code, Some(0));
    let second = node(&engine.url(), &["--node", "a"]);
    assert_eq!(second.terminate().code, Some(0));
}

#[test]
fn a_state_of_another_fleet() {
    let (one, other) = (Engine::start(&[]), Engine::start(&[]));
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let options = ["--state", state.to_str().unwrap()];
    let first = node(&one.url(), &options);
    crate::client::send(first.addresses[0], &[(1, 1)]);
    assert_eq!(first.terminate().code, Some(0));
    let second = node(&other.url(), &[]);
    let said = refusal(&[&["--counts-through", &other.url()], &options[..]].concat());
    assert_says(&said, "hashed with another key than the fleet's");
    assert_eq!(second.terminate().code, Some(0));
}
