//! The committed program, loaded into the running kernel and shown one frame at a time.
//!
//! These need root; without it they say that they are skipped.

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::programs::{TestRun, TestRunOptions};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use barewire_tcp::packet::{self, ChecksumPolicy, Discard, Local};
use barewire_tcp_testing::icmp;

const OUR_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const OUR_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const PORT: u16 = 8080;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

fn targets() -> Targets {
    Targets {
        addresses: vec![OUR_V4.into(), OUR_V6.into()],
        ports: vec![PORT..=PORT],
        sources: Sources::default(),
    }
}

/// The program in the kernel, or `None` and a word about it where it may not be loaded.
fn load(targets: &Targets) -> Option<Redirect> {
    match Redirect::load(targets, 1) {
        Ok(redirect) => Some(redirect),
        Err(error @ RedirectError::Privileges { .. }) => {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

impl Redirect {
    /// Runs the program on `frame` and returns which counter it moved.
    fn verdict_on(&mut self, frame: &[u8]) -> Verdict {
        let before = self.verdicts().samples();
        let options = TestRunOptions {
            data_in: Some(frame),
            ..Default::default()
        };
        let action = self
            .program()
            .unwrap()
            .test_run(options)
            .unwrap()
            .return_value;
        let after = self.verdicts().samples();
        let moved: Vec<_> = (0..)
            .zip(before.iter().zip(&after))
            .filter(|(_, (b, a))| a.value != b.value)
            .collect();
        assert_eq!(moved.len(), 1, "one frame, one verdict");
        assert_eq!(moved[0].1.1.value, moved[0].1.0.value + 1);
        let verdict = Verdict::ALL[moved[0].0];
        let expected = match verdict {
            Verdict::Denied => XDP_DROP,
            _ => XDP_PASS,
        };
        assert_eq!(action, expected, "no queue has a socket here");
        verdict
    }
}

/// A frame to us on the served port, of which a test changes one thing.
#[derive(Debug, Clone)]
struct Frame {
    destination_mac: [u8; 6],
    tags: Vec<[u8; 4]>,
    ethertype: u16,
    ip: Vec<u8>,
    rest: Vec<u8>,
}

impl Frame {
    fn ipv4() -> Self {
        let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 77, 0, 1];
        ip.extend(OUR_V4.octets());
        Frame {
            destination_mac: [2, 0, 0, 0, 0, 2],
            tags: vec![],
            ethertype: 0x0800,
            ip,
            rest: tcp(PORT),
        }
    }

    fn ipv6() -> Self {
        let mut ip = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        ip.extend(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).octets());
        ip.extend(OUR_V6.octets());
        Frame {
            ip,
            ethertype: 0x86dd,
            ..Frame::ipv4()
        }
    }

    fn both() -> [Self; 2] {
        [Self::ipv4(), Self::ipv6()]
    }

    fn tag(mut self, tag: [u8; 4]) -> Self {
        self.tags.push(tag);
        self
    }

    /// Overwrites bytes of the IP header.
    fn ip(mut self, at: usize, bytes: &[u8]) -> Self {
        self.ip[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Appends `words` of IPv4 options.
    fn options(mut self, words: u8) -> Self {
        self.ip[0] += words;
        self.ip[3] += words * 4;
        self.ip.extend(vec![1; usize::from(words) * 4]);
        self
    }

    fn port(mut self, port: u16) -> Self {
        self.rest = tcp(port);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut frame = self.destination_mac.to_vec();
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(self.tags.concat());
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(&self.ip);
        frame.extend(&self.rest);
        frame
    }
}

/// A SYN to `port`.
fn tcp(port: u16) -> Vec<u8> {
    let mut tcp = vec![0x9c, 0x40];
    tcp.extend(port.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    tcp
}

const VLAN_7: [u8; 4] = [0x81, 0, 0, 7];

#[test]
fn served_tcp_is_taken_whatever_its_headers_look_like() {
    let Some(mut redirect) = load(&targets()) else {
        return;
    };
    for frame in Frame::both() {
        assert_eq!(redirect.verdict_on(&frame.bytes()), Verdict::NoSocket);
        assert_eq!(
            redirect.verdict_on(&frame.clone().tag(VLAN_7).bytes()),
            Verdict::NoSocket
        );
    }
    for words in 1..=10 {
        let frame = Frame::ipv4().options(words);
        assert_eq!(
            redirect.verdict_on(&frame.bytes()),
            Verdict::NoSocket,
            "{words} words of options"
        );
        assert_eq!(
            redirect.verdict_on(&frame.tag(VLAN_7).bytes()),
            Verdict::NoSocket
        );
    }
}

#[test]
fn everything_else_is_passed_for_a_reason() {
    let Some(mut redirect) = load(&targets()) else {
        return;
    };
    let mut expect = |verdict: Verdict, frame: Frame| {
        assert_eq!(redirect.verdict_on(&frame.bytes()), verdict, "{frame:?}");
        if frame.tags.is_empty() && frame.ethertype != 0x0806 {
            let tagged = frame.tag(VLAN_7);
            assert_eq!(redirect.verdict_on(&tagged.bytes()), verdict, "{tagged:?}");
        }
    };
    expect(
        Verdict::NotIp,
        Frame {
            ethertype: 0x0806,
            ..Frame::ipv4()
        },
    );
    for frame in Frame::both() {
        expect(Verdict::NotIp, frame.clone().tag(VLAN_7).tag(VLAN_7));
        expect(Verdict::NotIp, frame.clone().tag([0x88, 0xa8, 0, 7]));
        expect(Verdict::OtherPort, frame.clone().port(22));
        expect(Verdict::OtherPort, frame.clone().port(PORT ^ 1));
        expect(Verdict::OtherPort, frame.clone().port(PORT ^ 64));
        expect(
            Verdict::GroupAddressed,
            Frame {
                destination_mac: [0xff; 6],
                ..frame.clone()
            },
        );
        expect(
            Verdict::GroupAddressed,
            Frame {
                destination_mac: [1, 0, 0x5e, 0, 0, 1],
                ..frame
            },
        );
    }

    for udp_or_icmp in [17, 1] {
        expect(Verdict::NotTcp, Frame::ipv4().ip(9, &[udp_or_icmp]));
    }
    for fragment in [[0x20, 0], [0x20, 1], [0, 1], [0x1f, 0xff]] {
        expect(Verdict::Fragment, Frame::ipv4().ip(6, &fragment));
    }
    expect(Verdict::OtherAddress, Frame::ipv4().ip(16, &[10, 77, 0, 3]));
    // An unused slot of the address table is not an address.
    expect(Verdict::OtherAddress, Frame::ipv4().ip(16, &[0; 4]));
    expect(Verdict::Malformed, Frame::ipv4().ip(0, &[0x44]));
    expect(Verdict::Malformed, Frame::ipv4().ip(0, &[0x65]));

    for udp_or_icmp in [17, 58, 59] {
        expect(Verdict::NotTcp, Frame::ipv6().ip(6, &[udp_or_icmp]));
    }
    for extension in [0, 43, 50, 51, 60, 135, 139, 140] {
        expect(Verdict::ExtensionHeader, Frame::ipv6().ip(6, &[extension]));
    }
    expect(Verdict::Fragment, Frame::ipv6().ip(6, &[44]));
    expect(Verdict::OtherAddress, Frame::ipv6().ip(39, &[3]));
    expect(Verdict::OtherAddress, Frame::ipv6().ip(24, &[0; 16]));
    expect(Verdict::Malformed, Frame::ipv6().ip(0, &[0x40]));
}

/// The message of a router about a packet that [`Frame`]'s server sent to its client.
fn too_big(frame: &Frame, source_port: u16) -> Vec<u8> {
    let mut sent = frame.clone();
    let (source, destination) = match frame.ethertype {
        0x0800 => (12..16, 16..20),
        _ => (8..24, 24..40),
    };
    sent.ip[source.clone()].copy_from_slice(&frame.ip[destination.clone()]);
    sent.ip[destination].copy_from_slice(&frame.ip[source]);
    sent.rest = tcp(40_000);
    sent.rest[..2].copy_from_slice(&source_port.to_be_bytes());
    let router = match frame.ethertype {
        0x0800 => IpAddr::from([192, 0, 2, 1]),
        _ => "2001:db8::1".parse().unwrap(),
    };
    icmp::too_big(&sent.bytes(), router, 1_300, sent.ip.len() + 8)
}

#[test]
fn routers_are_heard_about_what_the_server_sent_and_nothing_else() {
    let Some(mut redirect) = load(&targets()) else {
        return;
    };
    for frame in Frame::both() {
        for frame in [frame.clone(), frame.clone().tag(VLAN_7)] {
            let good = too_big(&frame, PORT);
            assert_eq!(redirect.verdict_on(&good), Verdict::NoSocket, "{frame:?}");
            let ip = 14 + 4 * frame.tags.len();
            let icmp = ip + frame.ip.len();
            // Another port's, that is another program's.
            let other = too_big(&frame, PORT ^ 1);
            assert_eq!(redirect.verdict_on(&other), Verdict::NotTcp, "{frame:?}");
            // Any other type or code, another protocol quoted, to or about another address, and a
            // quote with options or of another version.
            let about = if frame.ip.len() == 20 { 12 } else { 8 };
            let protocol = if frame.ip.len() == 20 { 9 } else { 6 };
            let to = if frame.ip.len() == 20 { 16 } else { 24 };
            for at in [
                icmp,
                icmp + 8,
                icmp + 8 + protocol,
                icmp + 8 + about,
                ip + to,
            ] {
                let mut changed = good.clone();
                changed[at] ^= 0x10;
                assert_eq!(
                    redirect.verdict_on(&changed),
                    Verdict::NotTcp,
                    "{at} of {frame:?}"
                );
            }
            // The port is the last that is looked at.
            for len in 14..icmp + 8 + frame.ip.len() + 4 {
                assert_eq!(
                    redirect.verdict_on(&good[..len]),
                    Verdict::Malformed,
                    "{len}"
                );
            }
        }
    }
    let unreachable = {
        let mut message = too_big(&Frame::ipv4(), PORT);
        message[14 + 20 + 1] = 3;
        message
    };
    assert_eq!(redirect.verdict_on(&unreachable), Verdict::NotTcp);
}

#[test]
fn a_frame_cut_anywhere_before_its_destination_port_is_passed() {
    let Some(mut redirect) = load(&targets()) else {
        return;
    };
    for frame in [
        Frame::ipv4(),
        Frame::ipv6(),
        Frame::ipv4().options(3).tag(VLAN_7),
        Frame::ipv6().tag(VLAN_7),
    ] {
        let bytes = frame.bytes();
        let port_end = bytes.len() - frame.rest.len() + 4;
        // The kernel hands a test run at least an Ethernet header.
        for len in 14..port_end {
            assert_eq!(
                redirect.verdict_on(&bytes[..len]),
                Verdict::Malformed,
                "{len} bytes of {frame:?}"
            );
        }
        assert_eq!(redirect.verdict_on(&bytes[..port_end]), Verdict::NoSocket);
    }
}

#[test]
fn ports_and_addresses_are_served_to_the_last_of_them() {
    let count = ADDRESSES_MAX as u8;
    let addresses: Vec<IpAddr> = (1..=count)
        .flat_map(|n| {
            [
                Ipv4Addr::new(10, 77, 0, n).into(),
                Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, n.into()).into(),
            ]
        })
        .collect();
    let ports = vec![1..=1, 63..=64, 32_768..=60_999, 65_535..=65_535];
    let Some(mut redirect) = load(&Targets {
        addresses,
        ports: ports.clone(),
        ..targets()
    }) else {
        return;
    };
    for n in 0..=count + 1 {
        for frame in [Frame::ipv4().ip(19, &[n]), Frame::ipv6().ip(39, &[n])] {
            for port in [
                0, 1, 2, 62, 63, 64, 65, 32_767, 32_768, 50_000, 60_999, 61_000, 65_534, 65_535,
            ] {
                let expected = match (
                    (1..=count).contains(&n),
                    ports.iter().any(|range| range.contains(&port)),
                ) {
                    (false, _) => Verdict::OtherAddress,
                    (true, false) => Verdict::OtherPort,
                    (true, true) => Verdict::NoSocket,
                };
                assert_eq!(
                    redirect.verdict_on(&frame.clone().port(port).bytes()),
                    expected,
                    "{n} {port}"
                );
            }
        }
    }
}

/// The program and the stack's parser read the same frames the same way: what the stack would serve
/// is redirected, and what is redirected the stack would at most find broken, never another's.
#[test]
fn the_program_agrees_with_the_parser_on_any_frame() {
    let Some(mut redirect) = load(&targets()) else {
        return;
    };
    let local = Local::new(&targets().addresses, &[PORT]).unwrap();
    let original = prop_oneof![
        Just(Frame::ipv4().bytes()),
        Just(Frame::ipv6().bytes()),
        (1..=10u8).prop_map(|words| Frame::ipv4().options(words).tag(VLAN_7).bytes()),
        Just(Frame::ipv6().tag(VLAN_7).bytes()),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let strategy = (
        original,
        changes,
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    );
    let mut runner = TestRunner::deterministic();
    let (mut taken, mut passed) = (0, 0);
    for _ in 0..20_000 {
        let (mut frame, changes, cut) = strategy.new_tree(&mut runner).unwrap().current();
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(14 + cut.index(frame.len() - 14));
        }
        let parsed = packet::parse(&frame, &local, ChecksumPolicy::Trust);
        if redirect.verdict_on(&frame) == Verdict::NoSocket {
            taken += 1;
            let foreign = [
                Discard::NotIp,
                Discard::NotTcp,
                Discard::Fragment,
                Discard::NotLocalAddress,
                Discard::NotLocalPort,
            ];
            assert!(
                !foreign
                    .iter()
                    .any(|&reason| parsed.as_ref().err() == Some(&reason)),
                "{parsed:?} {frame:02x?}"
            );
        } else {
            passed += 1;
            assert!(parsed.is_err(), "the stack would have served {frame:02x?}");
        }
    }
    assert!(
        taken > 1_000 && passed > 1_000,
        "{taken} taken, {passed} passed: too much alike to prove anything"
    );
}

#[test]
fn targets_that_cannot_be_served_are_refused_before_anything_is_touched() {
    let refusal = |targets: Targets| Redirect::load(&targets, 1).err().unwrap();
    let none = Targets {
        addresses: vec![],
        ..targets()
    };
    assert!(matches!(refusal(none), RedirectError::Nothing("address")));
    let none = Targets {
        ports: vec![],
        ..targets()
    };
    assert!(matches!(refusal(none), RedirectError::Nothing("port")));
    let zero = Targets {
        ports: vec![0..=10],
        ..targets()
    };
    assert!(matches!(refusal(zero), RedirectError::PortZero));
    let many = Targets {
        addresses: vec![OUR_V6.into(); ADDRESSES_MAX + 1],
        ..targets()
    };
    assert!(matches!(
        refusal(many),
        RedirectError::TooManyAddresses { family: "IPv6" }
    ));
    let prefixes = vec!["192.0.2.0/24".parse().unwrap(); Sources::PREFIXES_MAX + 1];
    let many = Targets {
        sources: Sources {
            deny: prefixes,
            ..Sources::default()
        },
        ..targets()
    };
    assert!(matches!(
        refusal(many),
        RedirectError::TooManyPrefixes {
            list: "denied",
            count: 16_385
        }
    ));
}

fn prefixes(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

/// The frame as if it came from `source`.
fn from(source: &str) -> Frame {
    match source.parse().unwrap() {
        IpAddr::V4(v4) => Frame::ipv4().ip(12, &v4.octets()),
        IpAddr::V6(v6) => Frame::ipv6().ip(8, &v6.octets()),
    }
}

/// What becomes of what each of the sources sends, where `sources` may connect.
fn fates(sources: Sources, from_whom: &[&str]) -> Option<Vec<Verdict>> {
    let mut redirect = load(&Targets {
        sources,
        ..targets()
    })?;
    let fate = |source: &&str| {
        let frame = from(source);
        let verdict = redirect.verdict_on(&frame.bytes());
        assert_eq!(
            redirect.verdict_on(&frame.clone().tag(VLAN_7).bytes()),
            verdict
        );
        // The lists do not apply to what is for the kernel.
        let elsewhere = frame.port(22).bytes();
        assert_eq!(redirect.verdict_on(&elsewhere), Verdict::OtherPort);
        verdict
    };
    Some(from_whom.iter().map(fate).collect())
}

#[test]
fn who_is_denied_is_dropped_and_nobody_else() {
    let sources = Sources {
        deny: prefixes(&[
            "192.0.2.0/25",
            "198.51.100.7/32",
            "2001:db8:1::/48",
            "2001:db8:2::9/128",
        ]),
        ..Sources::default()
    };
    let from_whom = [
        "192.0.2.0",
        "192.0.2.127",
        "192.0.2.128",
        "198.51.100.6",
        "198.51.100.7",
        "2001:db8:1::",
        "2001:db8:1:ffff::1",
        "2001:db8:2::",
        "2001:db8:2::9",
    ];
    let Some(fates) = fates(sources, &from_whom) else {
        return;
    };
    let (taken, denied) = (Verdict::NoSocket, Verdict::Denied);
    assert_eq!(
        fates,
        [
            denied, denied, taken, taken, denied, denied, denied, taken, denied
        ]
    );
}

#[test]
fn where_some_are_allowed_all_others_are_dropped() {
    let sources = Sources {
        allow: prefixes(&["192.0.2.77/24"]),
        deny: prefixes(&["192.0.2.1/32", "2001:db8::/32"]),
    };
    // A prefix counts whatever the bits behind it are; a list of one family lets in none of the other.
    let from_whom = [
        "192.0.2.2",
        "192.0.2.1",
        "192.0.3.2",
        "2001:db8::1",
        "2001:db9::1",
    ];
    let Some(verdicts) = fates(sources, &from_whom) else {
        return;
    };
    let (taken, denied) = (Verdict::NoSocket, Verdict::Denied);
    assert_eq!(verdicts, [taken, denied, denied, denied, denied]);

    let all = Sources {
        allow: prefixes(&["0.0.0.0/0", "::/0"]),
        ..Sources::default()
    };
    assert_eq!(fates(all, &from_whom).unwrap(), [taken; 5]);
}

#[test]
fn a_router_is_heard_even_if_it_may_not_connect() {
    let sources = Sources {
        deny: prefixes(&["0.0.0.0/0", "::/0"]),
        ..Sources::default()
    };
    let Some(mut redirect) = load(&Targets {
        sources,
        ..targets()
    }) else {
        return;
    };
    for frame in Frame::both() {
        assert_eq!(redirect.verdict_on(&frame.bytes()), Verdict::Denied);
        assert_eq!(
            redirect.verdict_on(&too_big(&frame, PORT)),
            Verdict::NoSocket
        );
    }
}

#[test]
fn an_address_can_be_added_while_there_is_room() {
    let Some(mut redirect) = load(&targets()) else {
        return;
    };
    let count = ADDRESSES_MAX as u8;
    for n in 0..=count {
        let frames = [Frame::ipv4().ip(19, &[n]), Frame::ipv6().ip(39, &[n])];
        let addresses = [
            Ipv4Addr::new(10, 77, 0, n).into(),
            Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, n.into()).into(),
        ];
        if n == 2 {
            // It is there from the start.
            continue;
        }
        for (frame, address) in frames.iter().zip(addresses) {
            assert_eq!(redirect.verdict_on(&frame.bytes()), Verdict::OtherAddress);
            let added = redirect.serve_also(address);
            if n == count {
                assert!(matches!(added, Err(RedirectError::TooManyAddresses { .. })));
                continue;
            }
            added.unwrap();
            assert_eq!(redirect.verdict_on(&frame.bytes()), Verdict::NoSocket);
        }
    }
}

#[test]
fn kernels_without_fragments_get_the_program_without_them() {
    const WITH: &[u8] = b"xdp.frags";
    let has_fragments = |kernel| {
        let object = object(kernel);
        object.windows(WITH.len()).any(|bytes| bytes == WITH)
    };
    assert!(has_fragments(None));
    assert!(has_fragments(Some(KernelVersion::new(5, 18, 0))));
    assert!(!has_fragments(Some(KernelVersion::new(5, 17, 9))));
    // Any kernel takes that one, so a program is still found in it.
    if load(&targets()).is_some() {
        let mut ebpf = EbpfLoader::new()
            .load(&object(Some(KernelVersion::new(5, 11, 0))))
            .unwrap();
        let program: &mut Xdp = ebpf.program_mut(PROGRAM).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
}

/// What drivers answer, what is said of it, and whether generic mode may be tried instead.
#[test]
fn every_refusal_of_a_driver_has_a_cure_and_lets_generic_mode_be_tried() {
    let interface = |driver: &str, rx_queues, rx_queues_max, mtu| Interface {
        driver: driver.into(),
        rx_queues,
        rx_queues_max,
        mtu,
        ..Interface::named("lo").unwrap()
    };
    for (interface, errno, cure) in [
        (
            interface("tg3", 4, 4, 1500),
            Errno::OPNOTSUPP,
            "--mode generic",
        ),
        (
            interface("virtio_net", 4, 4, 1500),
            Errno::OPNOTSUPP,
            "ctrl_guest_offloads=on",
        ),
        (
            interface("veth", 1, 2, 1500),
            Errno::NOSPC,
            "`ethtool -L lo rx 2`",
        ),
        (
            interface("veth", 2, 2, 1500),
            Errno::NOSPC,
            "`ethtool -L PEER tx 2`",
        ),
        (
            interface("ixgbe", 64, 64, 1500),
            Errno::NOMEM,
            "`ethtool -L lo combined 32`",
        ),
        (
            interface("ena", 1, 1, 1500),
            Errno::NOSPC,
            ": use --mode generic",
        ),
        (
            interface("ena", 8, 8, 9001),
            Errno::INVAL,
            "`ip link set dev lo mtu 1500`",
        ),
        (
            interface("veth", 8, 8, 1500),
            Errno::RANGE,
            "`ip link set dev lo mtu 1500`",
        ),
        (
            interface("mlx5_core", 8, 8, 1500),
            Errno::INVAL,
            "--mode generic",
        ),
    ] {
        let refusal = attach_error(&interface, Mode::Native, &errno.into());
        let text = refusal.to_string();
        assert!(text.contains(cure), "{cure}: {text}");
        assert!(text.contains("lo"), "{text}");
        assert!(refusal.is_of_driver(), "{text}");
        assert!(text.contains("mode generic"), "{text}");
    }
    let interface = interface("veth", 1, 1, 1500);
    for (errno, mode) in [
        (Errno::BUSY, Mode::Native),
        (Errno::EXIST, Mode::Generic),
        (Errno::PERM, Mode::Native),
        (Errno::INVAL, Mode::Generic),
    ] {
        assert!(!attach_error(&interface, mode, &errno.into()).is_of_driver());
    }
}
