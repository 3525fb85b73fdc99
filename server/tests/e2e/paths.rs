//! Paths that are narrower in the middle than at the server's end.
//!
//! The lab's client becomes a router, and what asks lives behind it:
//!
//! ```text
//!   far namespace                lab's client: forwards              lab's server
//!     far0 ──────── narrow ──────── near0     bw-c0 ──────── 1500 ──────── bw-s0
//! ```
//!
//! The far end tells the server that it takes whole segments, so only the router knows.

use std::process::Command;

use barewire_lab::{Lab, SERVER_V4, SERVER_V6};

use crate::bypass::serve;

/// The namespace behind the router. Dropping it removes it.
struct Far {
    name: String,
}

impl Far {
    /// A path that is `narrow` bytes wide. The router says so, or is silent: then only the far end of its
    /// link is narrow, and what is too long is lost on the way into it.
    fn behind(lab: &Lab, narrow: u32, router_says_so: bool) -> Far {
        let far = Far {
            name: format!("bw-far-{}", lab.name()),
        };
        far.ip(&["netns", "add", &far.name]);
        let router_mtu = if router_says_so { narrow } else { 1_500 };
        lab.client_runs(&[
            "ip",
            "link",
            "add",
            "near0",
            "mtu",
            &router_mtu.to_string(),
            "type",
            "veth",
            "peer",
            "name",
            "far0",
            "netns",
            &far.name,
        ]);
        lab.client_runs(&[
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
        ]);
        for address in ["10.78.0.1/24", "fd78::1/64"] {
            lab.client_runs(&["ip", "address", "add", address, "dev", "near0", "nodad"]);
        }
        lab.client_runs(&["ip", "link", "set", "near0", "up"]);
        far.inside(&[
            "ip",
            "link",
            "set",
            "far0",
            "mtu",
            &narrow.to_string(),
            "up",
        ]);
        for (address, router, mss) in [
            ("10.78.0.2/24", "10.78.0.1", "1460"),
            ("fd78::2/64", "fd78::1", "1440"),
        ] {
            far.inside(&["ip", "address", "add", address, "dev", "far0", "nodad"]);
            far.inside(&[
                "ip", "route", "add", "default", "via", router, "advmss", mss,
            ]);
        }
        // What the router forwards was received from a veth, and may have no checksum yet.
        for (side, device) in [(None, "near0"), (Some(&far), "far0")] {
            let command = ["ethtool", "-K", device, "tx", "off", "gro", "off"];
            match side {
                None => lab.client_runs(&command),
                Some(far) => far.inside(&command),
            };
        }
        // The server's kernel tells the router's address of its neighbour; to others its answers need a route.
        lab.server_runs(&["ip", "route", "add", "10.78.0.0/24", "via", "10.77.0.1"]);
        lab.server_runs(&["ip", "route", "add", "fd78::/64", "via", "fd77::1"]);
        far
    }

    fn inside(&self, command: &[&str]) -> String {
        let mut arguments = vec!["netns", "exec", &self.name];
        arguments.extend(command);
        self.ip(&arguments)
    }

    fn ip(&self, arguments: &[&str]) -> String {
        let output = Command::new("ip").args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Fetches so many bytes, and returns how many there were.
    fn fetch(&self, host: &str, bytes: u32) -> u32 {
        let url = format!("http://{host}:8080/test/stream?bytes={bytes}");
        let counted = self.inside(&[
            "curl",
            "--silent",
            "--show-error",
            "--globoff",
            "--fail",
            "--max-time",
            "60",
            "--output",
            "/dev/null",
            "--write-out",
            "%{size_download}",
            &url,
        ]);
        counted.trim().parse().unwrap()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

const BODY: u32 = 200_000;

fn hosts() -> [String; 2] {
    [SERVER_V4.to_owned(), format!("[{SERVER_V6}]")]
}

#[test]
fn replies_get_through_a_path_whose_router_says_that_it_is_narrow() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let far = Far::behind(&lab, 1_400, true);
    let server = serve(&lab, &["--test-routes"]);
    for host in hosts() {
        assert_eq!(far.fetch(&host, BODY), BODY, "{host}");
        // The kernel goes on answering pings.
        far.inside(&["ping", "-c1", "-W10", host.trim_matches(['[', ']'])]);
    }
    let ended = server.terminate();
    ended.served();
    let count = |part, name| ended.counters(part, name).iter().sum::<u64>();
    assert_eq!(count("tcp", "path_too_big"), 2, "{}", ended.stderr);
    assert_eq!(count("tcp", "path_black_holes"), 0, "{}", ended.stderr);
    assert!(
        count("redirect", "redirected_too_big") >= 2,
        "{}",
        ended.stderr
    );
}

#[test]
fn replies_get_through_a_narrow_path_that_nobody_speaks_of() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let far = Far::behind(&lab, 1_300, false);
    let server = serve(&lab, &["--test-routes"]);
    for host in hosts() {
        assert_eq!(far.fetch(&host, BODY), BODY, "{host}");
    }
    let ended = server.terminate();
    ended.served();
    let count = |part, name| ended.counters(part, name).iter().sum::<u64>();
    assert_eq!(count("tcp", "path_black_holes"), 2, "{}", ended.stderr);
    assert_eq!(count("tcp", "path_too_big"), 0, "{}", ended.stderr);
}

#[test]
fn nothing_longer_than_asked_for_is_sent() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    // No ICMP message reports it, and none is needed.
    let far = Far::behind(&lab, 1_300, false);
    let server = serve(&lab, &["--test-routes", "--mtu", "1300"]);
    for host in hosts() {
        assert_eq!(far.fetch(&host, BODY), BODY, "{host}");
    }
    let ended = server.terminate();
    ended.served();
    let black_holes = ended.counters("tcp", "path_black_holes");
    assert_eq!(black_holes.iter().sum::<u64>(), 0, "{}", ended.stderr);
}
