//! The AF_XDP link and the redirect on a real kernel, against the kernel's own TCP as the client.
//!
//! Needs root; without it every test says that it is skipped.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use barewire_lab::{CLIENT_DEVICE, Lab, SERVER_DEVICE};
use barewire_service::counters::Samples;
use barewire_service::time;
use barewire_tcp::link::{Link, Received, Transmit};
use barewire_tcp::packet::{ChecksumPolicy, Flags, Local, parse};
use barewire_tcp_testing::frame::TcpFrame;
use barewire_xdp::interface::Interface;
use barewire_xdp::redirect::{Mode, ModeChoice, Redirect, RedirectError, Sources, Targets};
use barewire_xdp::xsk::{BusyPoll, XskConfig, XskError, XskLink, ZeroCopy};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

const PORT: u16 = 8080;
const SERVER: [&str; 2] = ["10.77.0.2", "fd77::2"];
const NOW: time::Instant = time::Instant::ZERO;

/// Long enough for any machine; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn addresses() -> Vec<IpAddr> {
    SERVER
        .iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

fn targets() -> Targets {
    Targets {
        addresses: addresses(),
        ports: vec![PORT..=PORT],
        sources: Sources::default(),
    }
}

/// Rings as small as they get.
fn small() -> XskConfig {
    XskConfig {
        rx_ring_frames: 64,
        tx_ring_frames: 64,
        ..XskConfig::default()
    }
}

fn server_interface() -> Interface {
    Interface::named(SERVER_DEVICE).unwrap()
}

/// An attached program and a socket on each of `queues`.
struct Receiver {
    links: Vec<XskLink>,
    redirect: Redirect,
}

impl Receiver {
    fn on(queues: std::ops::Range<u32>, choice: ModeChoice, config: &XskConfig) -> Receiver {
        let interface = server_interface();
        let mut redirect = Redirect::load(&targets(), interface.rx_queues).unwrap();
        let (mode, _) = redirect.attach(&interface, choice).unwrap();
        let links: Vec<_> = queues
            .clone()
            .map(|queue| XskLink::open(&interface, queue, mode, config).unwrap())
            .collect();
        for (queue, link) in queues.zip(&links) {
            redirect.set_socket(queue, link.socket().unwrap()).unwrap();
        }
        Receiver { links, redirect }
    }

    /// Answers each SYN with a SYN-ACK until `done`; returns how many each link answered.
    fn shake_hands(&mut self, mut done: impl FnMut() -> bool) -> Vec<usize> {
        let local = Local::new(&addresses(), &[PORT]).unwrap();
        let start = Instant::now();
        let mut answered = vec![0; self.links.len()];
        while !done() {
            assert!(
                start.elapsed() < PATIENCE,
                "no end of waiting; answered {answered:?}"
            );
            for (link, answered) in self.links.iter_mut().zip(&mut answered) {
                let (received, transmit) = link.receive(NOW);
                for index in 0..received.len() {
                    *answered += usize::from(shake_hand(received.frame(index), &local, transmit));
                }
                link.flush(NOW);
            }
        }
        answered
    }

    fn verdict(&self, name: &str) -> u64 {
        let verdicts = self.redirect.verdicts().samples();
        verdicts
            .iter()
            .find(|sample| sample.name == name)
            .unwrap()
            .value
    }
}

fn shake_hand(frame: &[u8], local: &Local, transmit: &mut impl Transmit) -> bool {
    let segment = parse(frame, local, ChecksumPolicy::Verify).unwrap();
    if segment.flags != Flags::SYN {
        return false;
    }
    let source = SocketAddr::new(
        local.address(segment.flow.local_index()),
        segment.flow.local_port(),
    );
    let destination = SocketAddr::new(segment.flow.remote_address(), segment.flow.remote_port());
    let answer = TcpFrame {
        source_mac: frame[..6].try_into().unwrap(),
        destination_mac: frame[6..12].try_into().unwrap(),
        vlan: (segment.ip_offset() == 18).then(|| u16::from_be_bytes([frame[14], frame[15]])),
        flags: Flags::SYN | Flags::ACK,
        seq: 1,
        ack: segment.seq.wrapping_add(1),
        ..TcpFrame::new(source, destination)
    };
    let len = answer.write(transmit.slot().unwrap());
    transmit.commit(len);
    true
}

/// Runs `client` in the client's namespace while `receiver` shakes hands.
fn while_shaking_hands(
    lab: &Lab,
    receiver: &mut Receiver,
    client: impl FnOnce() + Send,
) -> Vec<usize> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let _done = SetOnDrop(&done);
            lab.client(client);
        });
        let answered = receiver.shake_hands(|| done.load(Ordering::Acquire));
        client.join().unwrap();
        answered
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn connect(address: &str, port: u16) -> TcpStream {
    TcpStream::connect_timeout(&SocketAddr::new(address.parse().unwrap(), port), PATIENCE).unwrap()
}

#[test]
fn served_tcp_reaches_the_link_and_the_answer_reaches_the_client() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    lab.server(|| {
        for choice in [ModeChoice::Native, ModeChoice::Generic] {
            let mut receiver = Receiver::on(0..1, choice, &XskConfig::default());
            let answered = while_shaking_hands(&lab, &mut receiver, || {
                for address in SERVER {
                    connect(address, PORT);
                }
            });
            assert!(answered[0] >= SERVER.len(), "{choice:?}: {answered:?}");
            assert_eq!(
                receiver.links[0].counters().tx_frames.get(),
                answered[0] as u64
            );
            // The last ones may not have been read.
            let read = receiver.links[0].counters().rx_frames.get();
            assert!(receiver.verdict("redirected") >= read && read >= answered[0] as u64);
        }
    });
}

fn client_addresses() -> Vec<IpAddr> {
    vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()]
}

/// The client's end in user space as well: it redirects a range of ports, its own ephemeral ones.
fn client_link(config: &XskConfig) -> (XskLink, Redirect) {
    let interface = Interface::named(CLIENT_DEVICE).unwrap();
    let targets = Targets {
        addresses: client_addresses(),
        ports: vec![32_768..=60_999],
        sources: Sources::default(),
    };
    let mut redirect = Redirect::load(&targets, 1).unwrap();
    let (mode, _) = redirect.attach(&interface, ModeChoice::Native).unwrap();
    let link = XskLink::open(&interface, 0, mode, config).unwrap();
    redirect.set_socket(0, link.socket().unwrap()).unwrap();
    (link, redirect)
}

#[test]
fn a_vlan_tag_arrives_with_the_frame_and_leaves_with_the_answer() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    let config = XskConfig::default();
    let mut server = lab.server(|| Receiver::on(0..1, ModeChoice::Native, &config));
    let client_addresses = client_addresses();
    let (mut client, _redirect) = lab.client(|| client_link(&config));

    let destination_mac = lab.server(|| server_interface().mac);
    for (source, destination) in client_addresses.into_iter().zip(addresses()) {
        let source = SocketAddr::new(source, 40_000);
        let destination = SocketAddr::new(destination, PORT);
        let vlan = Some(0x6007);
        let syn = TcpFrame {
            destination_mac,
            vlan,
            flags: Flags::SYN,
            seq: 99,
            ..TcpFrame::new(source, destination)
        };
        let len = syn.write(client.transmit().slot().unwrap());
        client.transmit().commit(len);
        while client.flush(NOW) {}

        let mut answer = Vec::new();
        server.shake_hands(|| {
            let (received, _) = client.receive(NOW);
            if !received.is_empty() {
                answer = received.frame(0).to_vec();
            }
            !answer.is_empty()
        });
        let expected = TcpFrame {
            source_mac: destination_mac,
            destination_mac: syn.source_mac,
            vlan,
            flags: Flags::SYN | Flags::ACK,
            seq: 1,
            ack: 100,
            ..TcpFrame::new(destination, source)
        };
        assert_eq!(answer, expected.to_vec());
    }
}

#[test]
fn everything_else_stays_with_the_kernel() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    lab.server(|| {
        let mut receiver = Receiver::on(0..2, ModeChoice::Native, &XskConfig::default());
        let listener = TcpListener::bind("[::]:22").unwrap();
        while_shaking_hands(&lab, &mut receiver, || {
            for address in SERVER {
                connect(address, 22);
                // Four thousand bytes go in fragments.
                for size in ["56", "4000"] {
                    lab.client_runs(&["ping", "-c", "2", "-i", "0.2", "-s", size, address]);
                }
            }
        });
        assert!(listener.accept().is_ok() && listener.accept().is_ok());
        assert_eq!(receiver.verdict("redirected"), 0);
        assert!(receiver.verdict("passed_other_port") > 0);
        assert!(receiver.verdict("passed_fragment") > 0);
        assert!(receiver.verdict("passed_not_tcp") > 0);
        assert!(receiver.verdict("passed_not_ip") > 0, "ARP");
    });
}

#[test]
fn each_queue_has_its_socket_and_a_queue_without_one_passes() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    lab.server(|| {
        let mut both = Receiver::on(0..2, ModeChoice::Native, &XskConfig::default());
        let answered = while_shaking_hands(&lab, &mut both, || {
            for _ in 0..64 {
                connect(SERVER[0], PORT);
            }
        });
        assert!(
            answered.iter().all(|&count| count > 0),
            "both queues must be used: {answered:?}"
        );
        drop(both);

        let mut second = Receiver::on(1..2, ModeChoice::Native, &XskConfig::default());
        while_shaking_hands(&lab, &mut second, || {
            let refused = (0..64).filter(|_| {
                let address = SocketAddr::new(SERVER[0].parse().unwrap(), PORT);
                let result = TcpStream::connect_timeout(&address, PATIENCE);
                result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
            let refused = refused.count();
            assert!(
                (1..64).contains(&refused),
                "{refused} of 64 went to the kernel, which refuses"
            );
        });
        assert!(second.verdict("passed_no_socket") > 0);
    });
}

#[test]
fn more_frames_than_fit_are_counted_and_the_link_recovers() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    let config = small();
    lab.server(|| {
        let mut receiver = Receiver::on(0..1, ModeChoice::Native, &config);
        let statistics = receiver.links[0].kernel_statistics();
        let lost = || {
            statistics
                .samples()
                .iter()
                .take(3)
                .map(|sample| sample.value)
                .sum::<u64>()
        };

        // The ring is not read: SYNs beyond its size are lost, and the kernel says so.
        lab.client(|| {
            let clients: Vec<_> = (0..200).map(|_| nonblocking_connect(SERVER[0])).collect();
            drop(clients);
        });
        assert!(lost() > 0, "{:?}", statistics.samples());

        while_shaking_hands(&lab, &mut receiver, || {
            for _ in 0..200 {
                connect(SERVER[0], PORT);
            }
        });
        let lost_at_last = lost();
        drop(receiver);
        assert_eq!(lost(), lost_at_last, "they outlive the link");
    });
}

/// Starts a connection and does not wait for it.
fn nonblocking_connect(address: &str) -> rustix::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let _ = connect(&socket, &SocketAddr::new(address.parse().unwrap(), PORT));
    socket
}

#[test]
fn every_slot_can_be_sent_and_comes_back() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    let config = XskConfig {
        rx_ring_frames: 64,
        tx_ring_frames: 256,
        ..XskConfig::default()
    };
    lab.server(|| {
        let mut receiver = Receiver::on(0..1, ModeChoice::Native, &config);
        let link = &mut receiver.links[0];
        let destination_mac = lab.client(|| Interface::named(CLIENT_DEVICE).unwrap().mac);
        let source = SocketAddr::new(SERVER[0].parse().unwrap(), PORT);
        let destination = SocketAddr::new("10.77.0.1".parse().unwrap(), 9);
        let payload = [0x5a; 1460];
        let frame = TcpFrame {
            destination_mac,
            payload: &payload,
            ..TcpFrame::new(source, destination)
        };

        let before = client_received(&lab);
        let rounds = 4;
        for _ in 0..rounds {
            while link.transmit().free_slots() < 256 {
                link.flush(NOW);
            }
            for _ in 0..256 {
                let len = frame.write(link.transmit().slot().unwrap());
                link.transmit().commit(len);
            }
            assert!(link.transmit().slot().is_none());
            while link.flush(NOW) {}
        }
        assert_eq!(link.counters().tx_frames.get(), rounds * 256);
        assert_eq!(link.counters().tx_no_slot.get(), rounds);
        let start = Instant::now();
        while client_received(&lab) < before + rounds * 256 {
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {}",
                client_received(&lab) - before,
                rounds * 256
            );
        }
    });
}

fn client_received(lab: &Lab) -> u64 {
    let counter = format!("/sys/class/net/{CLIENT_DEVICE}/statistics/rx_packets");
    lab.client_runs(&["cat", &counter]).trim().parse().unwrap()
}

#[test]
fn a_closed_queue_can_be_opened_again_at_once() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    lab.server(|| {
        for _ in 0..5 {
            drop(Receiver::on(
                0..2,
                ModeChoice::Native,
                &XskConfig::default(),
            ));
            assert!(!is_attached(&lab));
        }
    });
}

fn is_attached(lab: &Lab) -> bool {
    lab.server_runs(&["ip", "link", "show", "dev", SERVER_DEVICE])
        .contains("prog/xdp")
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    let Some(lab) = Lab::up(&["--queues", "2"]) else {
        return;
    };
    lab.server(|| {
        let interface = server_interface();
        let load = || Redirect::load(&targets(), 2).unwrap();
        let open = |queue, mode, config: XskConfig| {
            XskLink::open(&interface, queue, mode, &config)
                .err()
                .unwrap()
        };
        let defaults = XskConfig::default;

        let mut first = load();
        first.attach(&interface, ModeChoice::Auto).unwrap();
        for choice in [ModeChoice::Auto, ModeChoice::Native, ModeChoice::Generic] {
            let error = load().attach(&interface, choice).unwrap_err();
            assert!(
                matches!(error, RedirectError::Occupied { .. }),
                "{choice:?}: {error}"
            );
        }

        assert!(matches!(
            open(2, Mode::Native, defaults()),
            XskError::NoQueue { queues: 2, .. }
        ));
        for mode in [Mode::Native, Mode::Generic] {
            let error = open(
                0,
                mode,
                XskConfig {
                    zero_copy: ZeroCopy::On,
                    ..defaults()
                },
            );
            assert!(matches!(error, XskError::NoZeroCopy { .. }), "{error}");
        }
        for frames in [0, 32, 1000, 65_536] {
            let error = open(
                0,
                Mode::Native,
                XskConfig {
                    rx_ring_frames: frames,
                    ..defaults()
                },
            );
            assert!(
                matches!(
                    error,
                    XskError::RingSize {
                        ring: "rx_ring_frames",
                        ..
                    }
                ),
                "{error}"
            );
            let error = open(
                0,
                Mode::Native,
                XskConfig {
                    tx_ring_frames: frames,
                    ..defaults()
                },
            );
            assert!(
                matches!(
                    error,
                    XskError::RingSize {
                        ring: "tx_ring_frames",
                        ..
                    }
                ),
                "{error}"
            );
        }

        let holder = XskLink::open(&interface, 0, Mode::Native, &defaults()).unwrap();
        assert!(matches!(
            open(0, Mode::Native, defaults()),
            XskError::Busy { queue: 0, .. }
        ));
        drop(holder);
    });
    assert!(!is_attached(&lab));
}

#[test]
fn a_jumbo_mtu_takes_several_frames_and_no_zero_copy_on_a_veth() {
    let Some(lab) = Lab::up(&["--queues", "1", "--mtu", "9001"]) else {
        return;
    };
    lab.server(|| {
        for choice in [ModeChoice::Native, ModeChoice::Generic] {
            let mut receiver = Receiver::on(0..1, choice, &small());
            let outcome = receiver.links[0].outcome();
            assert_eq!((outcome.frame_bytes, outcome.packet_frames), (4096, 3));
            while_shaking_hands(&lab, &mut receiver, || {
                connect(SERVER[0], PORT);
            });
        }
        let interface = server_interface();
        assert_eq!(XskLink::packet_bytes_max(&interface, ZeroCopy::Auto), 9216);
        let zero_copy = XskConfig {
            zero_copy: ZeroCopy::On,
            ..small()
        };
        let error = XskLink::open(&interface, 0, Mode::Native, &zero_copy).err();
        let error = error.unwrap();
        assert!(
            matches!(
                error,
                XskError::MtuTooLarge {
                    mtu: 9001,
                    max: 3054,
                    ..
                }
            ),
            "{error}"
        );
    });
}

/// Packets of one, two and three frames, one after another and mixed, arrive as they were sent, both ways, and no frame
/// is lost on the way: more of them are sent than there are.
#[test]
fn jumbo_packets_arrive_as_they_were_sent() {
    let Some(lab) = Lab::up(&["--queues", "1", "--mtu", "9001"]) else {
        return;
    };
    let config = small();
    let (mut server, _server_redirect) = lab.server(|| {
        let mut receiver = Receiver::on(0..1, ModeChoice::Native, &config);
        (receiver.links.remove(0), receiver.redirect)
    });
    let (mut client, _client_redirect) = lab.client(|| client_link(&config));
    let server_mac = lab.server(|| server_interface().mac);
    let client_mac = lab.client(|| Interface::named(CLIENT_DEVICE).unwrap().mac);
    let there = SocketAddr::new(SERVER[0].parse().unwrap(), PORT);
    let here = SocketAddr::new(client_addresses()[0], 40_000);
    // Around the ends of frames, which hold 3,840 bytes, and the longest.
    let ends = [1, 3_785, 3_786, 3_787, 7_625, 7_626, 7_627, 8_961];
    for turn in 0..10 {
        for payload_len in ends.into_iter().chain([64; 24]).chain(ends) {
            let payload: Vec<u8> = (0..payload_len).map(|at| (at * 7 + turn) as u8).collect();
            let request = TcpFrame {
                source_mac: client_mac,
                destination_mac: server_mac,
                payload: &payload,
                ..TcpFrame::new(here, there)
            };
            send(&mut client, &request.to_vec());
            assert_eq!(receive(&mut server), request.to_vec());
            let response = TcpFrame {
                source_mac: server_mac,
                destination_mac: client_mac,
                payload: &payload,
                ..TcpFrame::new(there, here)
            };
            send(&mut server, &response.to_vec());
            assert_eq!(receive(&mut client), response.to_vec());
        }
    }
    // Many at once: a batch ends within a packet.
    let long = vec![7; 8_961];
    let request = TcpFrame {
        source_mac: client_mac,
        destination_mac: server_mac,
        payload: &long,
        ..TcpFrame::new(here, there)
    };
    for _ in 0..20 {
        send(&mut client, &request.to_vec());
    }
    let start = Instant::now();
    let mut received = 0;
    while received < 20 {
        assert!(start.elapsed() < PATIENCE, "{received} of 20");
        let (batch, _) = server.receive(NOW);
        for index in 0..batch.len() {
            assert_eq!(batch.frame(index), request.to_vec());
        }
        received += batch.len();
    }
    assert_eq!(server.counters().rx_frames.get(), 420);
    assert_eq!(client.counters().tx_frames.get(), 420);
}

fn send(link: &mut XskLink, frame: &[u8]) {
    let start = Instant::now();
    while link.transmit().free_slots() == 0 {
        assert!(start.elapsed() < PATIENCE, "no slot");
        link.flush(NOW);
    }
    link.transmit().slot().unwrap()[..frame.len()].copy_from_slice(frame);
    link.transmit().commit(frame.len());
    link.flush(NOW);
}

/// The next packet, which is alone.
fn receive(link: &mut XskLink) -> Vec<u8> {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "nothing arrived");
        let (batch, _) = link.receive(NOW);
        if !batch.is_empty() {
            assert_eq!(batch.len(), 1);
            return batch.frame(0).to_vec();
        }
        link.flush(NOW);
    }
}

#[test]
fn large_frames_are_used_when_the_mtu_needs_them() {
    let Some(lab) = Lab::up(&["--queues", "1", "--mtu", "3000"]) else {
        return;
    };
    lab.server(|| {
        let mut receiver = Receiver::on(0..1, ModeChoice::Native, &XskConfig::default());
        let link = &mut receiver.links[0];
        assert_eq!(link.outcome().frame_bytes, 4096);
        assert!(link.transmit().slot().unwrap().len() >= 3018);
        while_shaking_hands(&lab, &mut receiver, || {
            connect(SERVER[0], PORT).write_all(&[0; 2900]).unwrap();
        });
    });
}

/// As a server does that has given up its privileges, when a driver has lost the program.
#[test]
fn the_program_can_be_attached_again_without_capabilities_and_sockets_keep_their_queues() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    lab.server(|| {
        for choice in [ModeChoice::Native, ModeChoice::Generic] {
            let mut receiver = Receiver::on(0..1, choice, &small());
            // As a process has that was forked a moment ago.
            let _another = receiver.redirect.duplicate().unwrap();
            thread::scope(|scope| {
                let attach_again = || {
                    drop_capabilities(CapabilitySet::all());
                    receiver.redirect.attach_again()
                };
                scope.spawn(attach_again).join().unwrap().unwrap();
            });
            assert!(is_attached(&lab));
            while_shaking_hands(&lab, &mut receiver, || {
                connect(SERVER[0], PORT);
            });
        }
    });
    assert!(!is_attached(&lab));
}

#[test]
fn missing_privileges_are_named() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    // Capabilities belong to the thread; each `server` is a new one.
    lab.server(|| {
        drop_capabilities(
            CapabilitySet::NET_ADMIN
                | CapabilitySet::BPF
                | CapabilitySet::PERFMON
                | CapabilitySet::SYS_ADMIN,
        );
        let error = Redirect::load(&targets(), 1).err().unwrap();
        assert!(
            error
                .to_string()
                .contains("CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON missing"),
            "{error}"
        );
    });
    lab.server(|| {
        drop_capabilities(CapabilitySet::NET_RAW);
        let error = Redirect::load(&targets(), 1).err().unwrap();
        assert!(error.to_string().contains("CAP_NET_RAW missing"), "{error}");
        let error = XskLink::open(&server_interface(), 0, Mode::Native, &XskConfig::default())
            .err()
            .unwrap();
        assert!(matches!(error, XskError::Privileges), "{error}");
    });
    lab.server(|| {
        // The limit is the process's, but whoever has CAP_IPC_LOCK, as the other tests do, is exempt.
        let maximum = getrlimit(Resource::Memlock).maximum;
        setrlimit(
            Resource::Memlock,
            Rlimit {
                current: Some(65_536),
                maximum,
            },
        )
        .unwrap();
        drop_capabilities(CapabilitySet::IPC_LOCK);
        let error = XskLink::open(&server_interface(), 0, Mode::Native, &XskConfig::default())
            .err()
            .unwrap();
        assert!(matches!(error, XskError::MemoryLimit { .. }), "{error}");
    });
}

#[test]
fn the_capabilities_that_are_asked_for_are_enough() {
    let Some(lab) = Lab::up(&["--queues", "1"]) else {
        return;
    };
    lab.server(|| {
        let enough = CapabilitySet::NET_ADMIN
            | CapabilitySet::NET_RAW
            | CapabilitySet::BPF
            | CapabilitySet::PERFMON
            | CapabilitySet::IPC_LOCK;
        drop_capabilities(!enough);
        let config = XskConfig {
            busy_poll: Some(BusyPoll::default()),
            ..small()
        };
        Receiver::on(0..1, ModeChoice::Native, &config);
    });
}

fn drop_capabilities(dropped: CapabilitySet) {
    let mut sets = capabilities(None).unwrap();
    sets.effective -= dropped;
    set_capabilities(None, sets).unwrap();
}
