//! What systemd sees of `ExecReload=`.

use std::os::unix::net::UnixDatagram;

use rustix::process::{Pid, Signal, kill_process};

use crate::clients::Client;
use crate::server::{Server, hear};
use crate::{Place, STACKS};

#[test]
fn a_reload_ends_when_another_main_process_serves() {
    for stack in STACKS {
        let mut place = Place::new(stack, "127.0.0.1", &[]);
        let address = place.directory.path().join("notify");
        let manager = UnixDatagram::bind(&address).unwrap();
        let mut command = place.command(&[]);
        let first = Server::start(command.env("NOTIFY_SOCKET", &address));
        assert_eq!(hear(&manager), "READY=1");
        place.address = first.addresses[0].to_string();
        let mut client = Client::connect(first.addresses[0]).unwrap();
        assert_eq!(client.event("a", 1).unwrap().status, 200);

        let reload = ["--take-over", "--detach"];
        let mut command = place.command(&reload);
        let log = std::fs::File::create(place.directory.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let reloaded = command.env("NOTIFY_SOCKET", &address).status().unwrap();
        assert!(reloaded.success(), "{stack}");
        let heard = hear(&manager);
        let (main, ready) = heard.split_once('\n').unwrap();
        assert_eq!(ready, "READY=1");
        let pid: i32 = main.strip_prefix("MAINPID=").unwrap().parse().unwrap();
        // The one before tells of no stop: the service goes on.
        assert_eq!(first.wait().code, Some(0));
        assert_eq!(client.event("a", 1).unwrap().status, 200);

        let mut command = place.command(&reload);
        let failed = Server::fail(command.args(["--directory", "/nowhere/at/all"]));
        assert_eq!(failed.code, Some(1), "{}", failed.stderr);
        assert_eq!(client.event("a", 1).unwrap().status, 200);
        drop(client);
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        assert_eq!(hear(&manager), "STOPPING=1", "{stack}");
    }
}
