//! Kinds of interfaces that a network namespace can hold: `check` says of each what `serve` does, what is served
//! answers, and what is refused comes with a cure that works as it is typed.

use std::process::Command;

use barewire_lab::Lab;
use serde_json::Value;

use crate::server::{BAREWIRE, Ended, Server, wait_until};

/// One kind, made from nothing in a lab.
struct Kind {
    name: &'static str,
    /// Commands for the server's namespace, one a line, and those for the client's afterwards.
    server: &'static str,
    client: &'static str,
    interface: &'static str,
    /// Whether there is a client at the other end.
    answers: bool,
}

/// A cable between the namespaces beside the lab's own, whose ends a kind puts to use.
const CABLE: &str = "ip link add k-s type veth peer name k-c netns CLIENT\nip link set k-s up";
const CLIENT_END: &str = "ip address add 10.88.0.1/24 dev k-c\nip link set k-c up";

const KINDS: &[Kind] = &[
    Kind {
        name: "veth as it is made",
        server: "CABLE\nip address add 10.88.0.2/24 dev k-s",
        client: CLIENT_END,
        interface: "k-s",
        answers: true,
    },
    Kind {
        name: "veth whose peer sends from more queues than it could have",
        server: "ip link add k-s numtxqueues 2 numrxqueues 1 type veth peer name k-c netns CLIENT numtxqueues 2 numrxqueues 2\n\
                 ip link set k-s up\nip address add 10.88.0.2/24 dev k-s",
        client: CLIENT_END,
        interface: "k-s",
        answers: true,
    },
    Kind {
        name: "veth whose peer sends from more queues than it has",
        server: "ip link add k-s numtxqueues 2 numrxqueues 2 type veth peer name k-c netns CLIENT numtxqueues 2 numrxqueues 2\n\
                 ethtool -L k-s rx 1\nip link set k-s up\nip address add 10.88.0.2/24 dev k-s",
        client: CLIENT_END,
        interface: "k-s",
        answers: true,
    },
    Kind {
        name: "veth with more receive queues than its peer sends from",
        server: "ip link add k-s numtxqueues 2 numrxqueues 2 type veth peer name k-c netns CLIENT numtxqueues 1 numrxqueues 2\n\
                 ip link set k-s up\nip address add 10.88.0.2/24 dev k-s",
        client: CLIENT_END,
        interface: "k-s",
        answers: true,
    },
    Kind {
        name: "veth, MTU 9000",
        server: "CABLE\nip link set k-s mtu 9000\nip address add 10.88.0.2/24 dev k-s",
        client: "ip link set k-c mtu 9000\nip address add 10.88.0.1/24 dev k-c\nip link set k-c up",
        interface: "k-s",
        answers: true,
    },
    Kind {
        name: "veth with the largest MTU",
        server: "CABLE\nip link set k-s mtu 65535\nip address add 10.88.0.2/24 dev k-s",
        client: "ip link set k-c mtu 65535\nip address add 10.88.0.1/24 dev k-c\nip link set k-c up",
        interface: "k-s",
        answers: true,
    },
    Kind {
        name: "bridge",
        server: "CABLE\nip link add k-br type bridge\nip link set k-s master k-br\nip link set k-br up\n\
                 ip address add 10.88.0.2/24 dev k-br",
        client: CLIENT_END,
        interface: "k-br",
        answers: true,
    },
    Kind {
        name: "macvlan",
        server: "CABLE\nip link add k-mv link k-s type macvlan mode bridge\nip link set k-mv up\n\
                 ip address add 10.88.0.2/24 dev k-mv",
        client: CLIENT_END,
        interface: "k-mv",
        answers: true,
    },
    Kind {
        name: "vlan",
        server: "CABLE\nip link add k-vl link k-s type vlan id 7\nip link set k-vl up\n\
                 ip address add 10.88.0.2/24 dev k-vl",
        client: "ip link set k-c up\nip link add k-vl link k-c type vlan id 7\nip link set k-vl up\n\
                 ip address add 10.88.0.1/24 dev k-vl",
        interface: "k-vl",
        answers: true,
    },
    Kind {
        name: "vxlan",
        server: "CABLE\nip address add 10.87.0.2/24 dev k-s\n\
                 ip link add k-vx type vxlan id 7 dstport 4789 local 10.87.0.2 remote 10.87.0.1\nip link set k-vx up\n\
                 ip address add 10.88.0.2/24 dev k-vx",
        client: "ip address add 10.87.0.1/24 dev k-c\nip link set k-c up\n\
                 ip link add k-vx type vxlan id 7 dstport 4789 local 10.87.0.1 remote 10.87.0.2\nip link set k-vx up\n\
                 ip address add 10.88.0.1/24 dev k-vx",
        interface: "k-vx",
        answers: true,
    },
    Kind {
        name: "tap without anybody",
        server: "ip tuntap add k-tap mode tap\nip link set k-tap up\nip address add 10.88.0.2/24 dev k-tap",
        client: "",
        interface: "k-tap",
        answers: false,
    },
    Kind {
        name: "tun",
        server: "ip tuntap add k-tun mode tun\nip link set k-tun up\nip address add 10.88.0.2/24 dev k-tun",
        client: "",
        interface: "k-tun",
        answers: false,
    },
    Kind {
        name: "wireguard",
        server: "ip link add k-wg type wireguard\nip link set k-wg up\nip address add 10.88.0.2/24 dev k-wg",
        client: "",
        interface: "k-wg",
        answers: false,
    },
    Kind {
        name: "dummy",
        server: "ip link add k-dm type dummy\nip link set k-dm up\nip address add 10.88.0.2/24 dev k-dm",
        client: "",
        interface: "k-dm",
        answers: false,
    },
    Kind {
        name: "down, without an address",
        server: "ip tuntap add k-tap mode tap",
        client: "",
        interface: "k-tap",
        answers: false,
    },
    Kind {
        name: "loopback",
        server: "",
        client: "",
        interface: "lo",
        answers: false,
    },
];

impl Kind {
    /// Makes it in a new lab; `None` if this kernel, or this user, cannot.
    fn make(&self) -> Option<Lab> {
        let lab = Lab::up(&["--queues", "2"])?;
        let client = format!("bw-client-{}", lab.name());
        let commands = self
            .server
            .replace("CABLE", CABLE)
            .replace("CLIENT", &client);
        let made = run(lab.server_command(), &commands)
            .and_then(|()| run(lab.client_command(), self.client));
        match made {
            Ok(()) => {
                // The carrier of what lies on top of another interface comes a moment later.
                let ping = || {
                    let mut ping = lab.client_command();
                    ping.args(["ping", "-q", "-c1", "-W1", "10.88.0.2"]);
                    ping.output().unwrap().status.success()
                };
                wait_until("the kernel answers", || !self.answers || ping());
                Some(lab)
            }
            Err(error) if error.contains("Unknown device type") => {
                eprintln!("SKIPPED: {}: this kernel has none", self.name);
                None
            }
            Err(error) => panic!("{}: {error}", self.name),
        }
    }
}

/// Runs the lines of a script in a namespace.
fn run(mut namespace: Command, script: &str) -> Result<(), String> {
    let output = namespace.args(["sh", "-ec", script]).output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn barewire(lab: &Lab, verb: &str, interface: &str, arguments: &[&str]) -> Command {
    let mut command = lab.server_command();
    command.args([BAREWIRE, verb, "--interface", interface]);
    command.args(arguments);
    command
}

/// Whether `check` thinks that `serve` would start, and the errors that it has found.
fn check(lab: &Lab, interface: &str, arguments: &[&str]) -> (bool, Vec<String>) {
    let Ended { stdout, stderr, .. } =
        Server::fail(barewire(lab, "check", interface, &["--json"]).args(arguments));
    let report: Value = serde_json::from_str(&stdout.join("\n")).expect(&stderr);
    let findings = report["findings"].as_array().unwrap().iter();
    let errors = findings.filter(|finding| finding["level"] == "error");
    let errors = errors.map(|finding| finding["found"].as_str().unwrap().to_owned());
    (report["would_start"].as_bool().unwrap(), errors.collect())
}

/// A download and an upload, each of several segments.
fn assert_answers(lab: &Lab, kind: &str, server: &Server) {
    // In generic mode a server says what its clients are to do.
    let merged = "`ethtool -K IFACE tso off gso off`";
    if server.report.iter().any(|line| line.contains(merged)) {
        let every = "for at in /sys/class/net/k-*; do ethtool -K ${at##*/} tso off gso off; done";
        run(lab.client_command(), every).unwrap();
    }
    let script = "curl -sf --max-time 20 10.88.0.2:8080/test/stream?bytes=100000 | wc -c; \
         head -c 30000 /dev/zero | tr '\\0' x | \
         curl -sf --max-time 20 --data-binary @- 10.88.0.2:8080/test/echo | wc -c";
    let counted = lab.client_runs(&["sh", "-c", script]);
    let counted: Vec<_> = counted.split_whitespace().collect();
    assert_eq!(counted, ["100000", "30000"], "{kind}");
}

/// Commands in backquotes, in the order of the text.
fn commands(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Whether `check` and `serve` agree, and what is served answers. Returns the error if it is refused.
fn compare(lab: &Lab, kind: &Kind, arguments: &[&str]) -> Option<String> {
    let what = format!("{} with {arguments:?}", kind.name);
    let (would_start, errors) = check(lab, kind.interface, arguments);
    let mut serve = barewire(lab, "serve", kind.interface, arguments);
    serve.args(["--test-routes", "--body-bytes-max", "40000"]);
    if would_start {
        let server = Server::start(&mut serve);
        if kind.answers {
            assert_answers(lab, &what, &server);
        }
        assert_eq!(server.terminate().code, Some(0), "{what}");
        return None;
    }
    let ended = Server::fail(&mut serve);
    assert_eq!(ended.code, Some(1), "{what}: {errors:?}");
    let said = ended
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("error: "));
    let said = said.unwrap_or_else(|| panic!("{what}: {}", ended.stderr));
    assert!(
        errors.iter().any(|error| error == said),
        "{what}: {errors:?} {said}"
    );
    Some(said.to_owned())
}

#[test]
fn check_says_of_every_kind_what_serve_does() {
    for kind in KINDS {
        let Some(lab) = kind.make() else { continue };
        for mode in ["auto", "native", "generic"] {
            let Some(refused) = compare(&lab, kind, &["--mode", mode]) else {
                continue;
            };
            println!("{}, {mode}: {refused}", kind.name);
            let cure = commands(&refused).into_iter().find(|cure| {
                // A place to fill in is for who knows the peer.
                !cure.contains(|letter: char| letter.is_ascii_uppercase())
            });
            match cure {
                Some(serve) if serve.starts_with("barewire serve") => {
                    let mut command = lab.server_command();
                    let arguments = serve.split(' ').skip(1);
                    let server = Server::start(command.arg(BAREWIRE).args(arguments));
                    assert_eq!(server.terminate().code, Some(0), "{serve}");
                }
                Some(command) => {
                    run(lab.server_command(), command).unwrap();
                    assert_eq!(compare(&lab, kind, &["--mode", mode]), None, "{command}");
                }
                None if refused.contains("--mode generic") => {
                    assert_eq!(compare(&lab, kind, &["--mode", "generic"]), None);
                }
                None => assert!(refused.contains("address"), "no cure: {refused}"),
            }
        }
    }
}

/// Offloads change how frames look that never were on a wire.
#[test]
fn a_veth_serves_with_any_offload_of_either_end() {
    let kind = &KINDS[0];
    let Some(lab) = kind.make() else { return };
    for mode in ["native", "generic"] {
        for (end, offload) in [
            ("k-c", "tx"),
            ("k-c", "sg"),
            ("k-c", "gso"),
            ("k-c", "txvlan"),
            ("k-s", "rx"),
            ("k-s", "gro"),
            ("k-s", "rxvlan"),
        ] {
            let switch = |to: &str| {
                let namespace = match end {
                    "k-s" => lab.server_command(),
                    _ => lab.client_command(),
                };
                run(namespace, &format!("ethtool -K {end} {offload} {to}")).unwrap();
            };
            switch("off");
            assert_eq!(compare(&lab, kind, &["--mode", mode]), None, "{offload}");
            switch("on");
        }
    }
}
