//! The AF_XDP stack in a lab: what it takes, what it gives back, and that it serves with all it took.
//!
//! Needs root; without it every test says that it is skipped.
#![cfg(feature = "xdp")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use barewire_lab::{Lab, SERVER_DEVICE};
use barewire_service::cores::PinError;
use barewire_service::lifecycle::{Lifecycle, Phase};
use barewire_service::service::{Expect, Input, Next, Progress, Reply, Service};
use barewire_service::stack::{Running, Stack};
use barewire_tcp::config::StackConfig;
use barewire_xdp::interface::Interface;
use barewire_xdp::redirect::{Mode, ModeChoice, RedirectError};
use barewire_xdp::worker::Wait;
use barewire_xdp::xsk::{BusyPoll, XskConfig, XskError, XskLink};
use barewire_xdp::{PlanError, XdpConfig, XdpError};

const PORT: u16 = 8080;
const CLIENTS: usize = 64;

/// Long enough for any machine; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends back what it gets.
#[derive(Default)]
struct Echo {
    is_draining: bool,
}

impl Service for Echo {
    type Connection = ();
    const REPLY_BYTES_MIN: usize = 64;

    fn on_input(&mut self, _: &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let consumed = input.bytes.len().min(reply.remaining());
        assert!(reply.put(&input.bytes[..consumed]));
        let next = match consumed < input.bytes.len() {
            true => Next::Send,
            false if self.is_draining => Next::Close,
            false => Next::Receive(Expect::Message),
        };
        Progress {
            consumed,
            messages: u32::from(consumed > 0),
            next,
        }
    }

    fn on_drain(&mut self) {
        self.is_draining = true;
    }
}

/// A small server on as many queues as the lab has, on the cores given.
fn config(cores: &[usize]) -> XdpConfig {
    let mut config = XdpConfig::new(SERVER_DEVICE, PORT);
    config.cores = cores.to_vec();
    config.stack.connections = 256;
    config.stack.half_open = 64;
    config.stack.time_wait = 256;
    config
}

/// A server that runs in the lab. Stops when it is dropped.
struct Server<'a> {
    lab: &'a Lab,
    lifecycle: Lifecycle,
    running: Running,
}

impl<'a> Server<'a> {
    fn start(lab: &'a Lab, config: XdpConfig) -> Self {
        let lifecycle = Lifecycle::new();
        let running = lab
            .server(|| config.start(|_| Echo::default(), &lifecycle))
            .unwrap();
        Server {
            lab,
            lifecycle,
            running,
        }
    }

    /// A counter, one value for each group that has it.
    fn counters(&self, part: &str, name: &str) -> Vec<u64> {
        let groups = self
            .running
            .counters
            .iter()
            .filter(|group| group.part == part);
        let samples = groups.flat_map(|group| group.counters.samples());
        samples
            .filter(|sample| sample.name == name)
            .map(|sample| sample.value)
            .collect()
    }

    fn report(&self) -> String {
        let lines: Vec<_> = self
            .running
            .notices
            .iter()
            .map(ToString::to_string)
            .collect();
        lines.join("\n")
    }

    /// Connects, and has one message echoed, from many ports and over both address families.
    fn greet(&self) {
        self.lab.client(|| {
            for turn in 0..CLIENTS {
                let address = self.running.addresses[turn % self.running.addresses.len()];
                let mut client = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
                echo(&mut client);
            }
        });
    }

    fn join(&mut self) {
        for core in self.running.cores.drain(..) {
            core.join().unwrap().unwrap();
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stop);
        self.running
            .cores
            .drain(..)
            .for_each(|core| drop(core.join()));
    }
}

fn echo(client: &mut TcpStream) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn is_attached(lab: &Lab) -> bool {
    lab.server_runs(&["ip", "link", "show", "dev", SERVER_DEVICE])
        .contains("prog/xdp")
}

/// A process that another test starts holds copies of this one's file descriptors until it executes its program, that of
/// the attachment too.
fn wait_until_detached(lab: &Lab) {
    wait_until("the program is detached", || !is_attached(lab));
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn every_queue_is_served_by_its_core_and_given_back() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    for (cores, cpu_of_queue) in [(&[1, 0][..], [1, 0]), (&[1], [1, 1])] {
        let mut server = Server::start(&lab, config(cores));
        assert!(is_attached(&lab));
        for (queue, cpu) in cpu_of_queue.into_iter().enumerate() {
            let line = format!(
                "(CPU {cpu}): queue {queue}: native mode, copy (driver veth has no zero-copy here)"
            );
            assert!(server.report().contains(&line), "{}", server.report());
        }
        server.greet();
        let received = || server.counters("link", "rx_frames");
        wait_until("all redirected frames are received", || {
            server.counters("redirect", "redirected") == [received().iter().sum::<u64>()]
        });
        let received = received();
        assert!(
            received.len() == 2 && received.iter().all(|&frames| frames > 0),
            "{received:?}"
        );
        let opens = server.counters("tcp", "passive_opens");
        assert!(
            opens.len() == cores.len() && opens.iter().sum::<u64>() == CLIENTS as u64,
            "{opens:?}"
        );

        server.lifecycle.advance(Phase::Drain);
        server.join();
        wait_until_detached(&lab);
    }
}

#[test]
fn generic_mode_serves_where_native_is_not_wanted() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let server = Server::start(
        &lab,
        XdpConfig {
            mode: ModeChoice::Generic,
            ..config(&[0])
        },
    );
    for part in [
        "generic mode, copy (generic mode)",
        "ethtool -K bw-s0 gro off",
    ] {
        assert!(server.report().contains(part), "{}", server.report());
    }
    server.greet();
}

#[test]
fn a_core_that_may_sleep_does_and_one_that_may_not_does_not() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    for (wait, busy_poll) in [
        (Wait::Spin, None),
        (Wait::Spin, Some(BusyPoll::default())),
        (Wait::Adaptive { spin_us: 0 }, None),
        (Wait::Adaptive { spin_us: 100 }, Some(BusyPoll::default())),
    ] {
        let xsk = XskConfig {
            busy_poll,
            ..XskConfig::default()
        };
        let server = Server::start(
            &lab,
            XdpConfig {
                wait,
                xsk,
                ..config(&[0])
            },
        );
        server.greet();
        let sleeps = || server.counters("worker", "sleeps")[0];
        match wait {
            Wait::Spin => assert_eq!(sleeps(), 0),
            Wait::Adaptive { .. } => wait_until("the core sleeps", || sleeps() > 0),
        }
    }
}

#[test]
fn drain_lets_connections_end_and_stop_does_not_wait_for_them() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    let mut server = Server::start(&lab, config(&[0]));
    let address = server.running.addresses[0];
    let connect = || lab.client(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap());

    let mut idle = connect();
    echo(&mut idle);
    server.lifecycle.advance(Phase::Drain);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    drop(idle);
    server.join();
    drop(server);

    let mut server = Server::start(&lab, config(&[0]));
    let mut busy = connect();
    echo(&mut busy);
    server.lifecycle.advance(Phase::Stop);
    server.join();
    wait_until_detached(&lab);
    let refused = lab
        .client(|| TcpStream::connect_timeout(&address, PATIENCE))
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_queue_that_is_left_out_is_not_answered_and_comes_with_a_warning() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let server = Server::start(
        &lab,
        XdpConfig {
            queues: vec![1],
            ..config(&[0, 1])
        },
    );
    for part in [
        "queue 0 is not served",
        "ethtool -X bw-s0 weight 0 1",
        "no queue is left for core 1",
    ] {
        assert!(server.report().contains(part), "{}", server.report());
    }
    let wait = Duration::from_millis(500);
    let connect = |address: SocketAddr| lab.client(|| TcpStream::connect_timeout(&address, wait));
    let mut outcomes = (0..CLIENTS).map(|_| connect(server.running.addresses[0]));
    assert!(
        outcomes.any(|outcome| outcome.is_err_and(|error| error.kind() == ErrorKind::TimedOut))
    );
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    let fail = |config: XdpConfig| {
        let error = lab
            .server(|| config.start(|_| Echo::default(), &Lifecycle::new()))
            .err()
            .unwrap();
        wait_until_detached(&lab);
        // A thread that was joined is still listed for a moment.
        wait_until("no thread is left", || our_threads() == 0);
        error
    };
    let open = |queue| {
        let interface = Interface::named(SERVER_DEVICE).unwrap();
        XskLink::open(&interface, queue, Mode::Native, &XskConfig::default()).unwrap()
    };

    // The second of two cores cannot have its queue; the first one gives its own back.
    let holder = lab.server(|| open(1));
    let error = fail(config(&[0, 1]));
    assert!(
        matches!(error, XdpError::Xsk(XskError::Busy { queue: 1, .. })),
        "{error}"
    );
    drop((holder, lab.server(|| open(0))));

    let small_send_buffer = {
        let mut config = config(&[0]);
        config.stack.send_buffer_bytes = 1;
        config
    };
    assert!(matches!(fail(small_send_buffer), XdpError::Config(_)));
    let huge = {
        let mut config = config(&[0]);
        config.stack.connections = (StackConfig::FLOWS_MAX / 2) as u32;
        config.stack.sockets = config.stack.connections;
        config.stack.send_buffer_bytes = 1 << 24;
        config
    };
    assert!(matches!(fail(huge), XdpError::Memory(_)));
    let nowhere = XdpConfig::new("nowhere0", PORT);
    assert!(matches!(fail(nowhere), XdpError::Interface(_)));
    let queue = fail(XdpConfig {
        queues: vec![2],
        ..config(&[0])
    });
    assert!(matches!(
        queue,
        XdpError::Plan(PlanError::NoQueue { queue: 2, .. })
    ));
    let core = fail(config(&[4000]));
    assert!(matches!(core, XdpError::Pin(PinError { cpu: 4000, .. })));
    assert!(matches!(
        fail(XdpConfig {
            ports: vec![0],
            ..config(&[0])
        }),
        XdpError::Local(_)
    ));

    let first = Server::start(&lab, config(&[0]));
    let second = lab
        .server(|| config(&[0]).start(|_| Echo::default(), &Lifecycle::new()))
        .err()
        .unwrap();
    assert!(
        matches!(second, XdpError::Redirect(RedirectError::Occupied { .. })),
        "{second}"
    );
    first.greet();
}

/// Threads of this process that are cores of the stack.
fn our_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|name| name.starts_with("xdp/")).count()
}

#[test]
fn a_server_on_an_interface_that_is_down_says_so_and_serves_once_it_is_up() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    // Without its link the interface has lost its IPv6 address.
    lab.server_runs(&["ip", "link", "set", SERVER_DEVICE, "down"]);
    let server = Server::start(&lab, config(&[0]));
    assert!(
        server.report().contains("ip link set dev bw-s0 up"),
        "{}",
        server.report()
    );
    lab.server_runs(&["ip", "link", "set", SERVER_DEVICE, "up"]);
    server.greet();
}
