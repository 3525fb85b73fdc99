//! `barewire proxy` as its operator sees it: routes that change, a cache that is emptied, what is counted.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::http::Client;
use crate::kernel_stacks::STACKS;
use crate::server::{BAREWIRE, Server, wait_until};

/// A server with a file that was changed long ago, so that it may be cached for a while.
fn origin(stack: &str, content: &str) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.txt");
    std::fs::write(&file, content).unwrap();
    let touched = Command::new("touch")
        .args(["-d", "2020-01-01"])
        .arg(&file)
        .status();
    assert!(touched.unwrap().success());
    let path = directory.path().to_str().unwrap().to_owned();
    let server = Server::on_loopback(stack, &["--directory", &path]);
    (directory, server)
}

fn write_routes(path: &Path, cache: bool, origin: SocketAddr) {
    let text = format!(
        "[pool.app]\norigins = [\"{origin}\"]\n[[route]]\npool = \"app\"\ncache = {cache}\n"
    );
    std::fs::write(path, text).unwrap();
}

fn edge(stack: &str, routes: &Path) -> Server {
    // Tests that `nohup` started ignore SIGHUP, and a server that inherited this would, too.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", BAREWIRE, "proxy", "--stack", stack]);
    command.args(["--listen", "127.0.0.1:0", "--cores", "0,1", "--control"]);
    command.arg(routes.with_file_name("control"));
    command.arg("--routes").arg(routes);
    Server::start(&mut command)
}

fn operate(routes: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(BAREWIRE);
    command.arg(arguments[0]).arg("--control");
    command
        .arg(routes.with_file_name("control"))
        .args(&arguments[1..]);
    let output = command.output().unwrap();
    let texts = [output.stdout, output.stderr].concat();
    String::from_utf8(texts).unwrap()
}

#[test]
fn routes_change_while_connections_stay_and_a_wrong_file_changes_nothing() {
    for stack in STACKS {
        let ((_a, first), (_b, second)) = (origin(stack, "first"), origin(stack, "second"));
        let directory = tempfile::tempdir().unwrap();
        let routes = directory.path().join("routes.toml");
        write_routes(&routes, false, first.addresses[0]);
        let edge = edge(stack, &routes);
        let mut clients = [(); 4].map(|()| Client::connect(edge.addresses[0]));
        for client in &mut clients {
            assert_eq!(client.get("/static/file.txt").body, b"first", "{stack}");
        }

        std::fs::write(&routes, "[[route]]\npool = \"nowhere\"\n").unwrap();
        edge.signal(Signal::HUP);
        edge.logs("the routes from before go on to be used");
        for client in &mut clients {
            assert_eq!(client.get("/static/file.txt").body, b"first", "{stack}");
        }

        // The file is looked at, without being told.
        write_routes(&routes, false, second.addresses[0]);
        edge.logs("routes were read again");
        for client in &mut clients {
            assert_eq!(client.get("/static/file.txt").body, b"second", "{stack}");
        }
        let status = operate(&routes, &["status"]);
        assert!(
            status.contains("pool of origins") && status.contains("usable"),
            "{status}"
        );
        let ended = edge.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

#[test]
fn a_cache_answers_until_it_is_purged() {
    for stack in STACKS {
        let (files, server) = origin(stack, "old");
        let directory = tempfile::tempdir().unwrap();
        let routes = directory.path().join("routes.toml");
        write_routes(&routes, true, server.addresses[0]);
        let edge = edge(stack, &routes);
        let mut client = Client::connect(edge.addresses[0]);
        let host = edge.addresses[0].to_string();
        let mut get = || {
            client.send(format!(
                "GET /static/file.txt HTTP/1.1\r\nHost: {host}\r\n\r\n"
            ));
            client.receive(false)
        };
        assert_eq!(get().body, b"old");
        std::fs::write(files.path().join("file.txt"), "new").unwrap();
        let hit = get();
        assert_eq!(hit.body, b"old", "{stack}");
        assert!(hit.field("cache-status").unwrap().contains("hit"));
        let said = operate(&routes, &["purge", "nowhere"]);
        assert!(said.contains("has no path"), "{said}");
        let said = operate(&routes, &["purge", &format!("http://{host}/*")]);
        assert!(said.starts_with("1 stored"), "{said}");
        // The origin looks at its files from time to time only.
        wait_until("the new file is served", || {
            operate(&routes, &["purge", "*"]);
            get().body == b"new"
        });
        let ended = edge.terminate();
        let hits: u64 = ended.counters("cache", "hits").iter().sum();
        assert!(hits >= 1, "{}", ended.stderr);
    }
}
