//! What lies below TCP: addresses, headers, tags, sizes.

use barewire_tcp::packet::Flags;
use barewire_tcp_testing::frame::TcpFrame;

use crate::trace::Trace;

const CONVERSATION: &str = "
    > [P.] seq 1 ack 1 \"hello\"
    < [P.] seq 1 ack 6 \"hello\"
    > [F.] seq 6 ack 6
    < [F.] seq 6 ack 7
    > [.] seq 7 ack 7
    ? connections 0";

#[test]
fn ipv6() {
    Trace::echo().over_ipv6().established().run(CONVERSATION);
}

#[test]
fn ipv6_leaves_20_bytes_less_for_a_segment() {
    Trace::lines().over_ipv6().run(
        "> [S] seq 0 <mss 8000>
         < [S.] seq 0 ack 1 <mss 1440>
         > [P.] seq 1 ack 1 \"send 1500\\n\"
         < [.] seq 1 ack 11 len 1440
         < [P.] seq 1441 ack 11 len 60",
    );
}

#[test]
fn ipv6_with_guards_and_cookies() {
    Trace::lines_with(|config| config.half_open = 0)
        .over_ipv6()
        .run(
            "> [.] seq 5 ack 77
         < [R] seq 77
         > [S] seq 0 <mss 1440,wscale 7,sackOK>
         < [S.] seq 0 ack 1 <mss 1440,wscale 0,sackOK>
         > [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [R] seq 8
         < [.] seq 6 ack 7
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8",
        );
}

#[test]
fn a_vlan_tag_is_kept() {
    let mut trace = Trace::echo();
    trace.vlan = Some(0x2007);
    let mut trace = trace.established();
    trace.run(
        "> [R] seq 5
         < [.] seq 1 ack 1",
    );
    trace.run(CONVERSATION);
}

#[test]
fn what_the_timer_sends_is_tagged_too() {
    let mut trace = Trace::echo();
    trace.vlan = Some(7);
    trace.established().run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         +1010ms
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn ipv4_options_are_skipped() {
    let mut trace = Trace::echo();
    // router alert, and padding
    trace.ip_options = &[0x94, 4, 0, 0, 1, 1, 1, 0];
    trace.established().run(CONVERSATION);
}

#[test]
fn the_segment_size_follows_the_mtu() {
    let mut trace = Trace::lines_with(|config| config.mtu = 1_280);
    trace.run(
        "> [S] seq 0 <mss 1460>
         < [S.] seq 0 ack 1 <mss 1240>
         > [P.] seq 1 ack 1 \"send 1500\\n\"
         < [.] seq 1 ack 11 len 1240
         < [P.] seq 1241 ack 11 len 260",
    );
}

#[test]
fn the_segment_size_follows_the_peer() {
    Trace::lines().run(
        "> [S] seq 0 <mss 700>
         < [S.] seq 0 ack 1 <mss 1460>
         > [P.] seq 1 ack 1 \"send 1500\\n\"
         < [.] seq 1 ack 11 len 700
         < [.] seq 701 ack 11 len 700
         < [P.] seq 1401 ack 11 len 100",
    );
}

#[test]
fn a_tiny_segment_size_is_not_obeyed_to_the_letter() {
    Trace::lines().run(
        "> [S] seq 0 <mss 1>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"send 300\\n\"
         < [.] seq 1 ack 10 len 216
         < [P.] seq 217 ack 10 len 84",
    );
}

#[test]
fn a_segment_size_of_zero_is_none() {
    Trace::lines().run(
        "> [S] seq 0 <mss 0>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"send 600\\n\"
         < [.] seq 1 ack 10 len 536
         < [P.] seq 537 ack 10 len 64",
    );
}

#[test]
fn padding_behind_a_short_packet_is_not_data() {
    let mut trace = Trace::echo().established();
    let mut frame = trace.segment(1, 1, 1, b"hi");
    frame.resize(60, 0xaa);
    trace.push([&frame[..]]);
    trace.run("< [P.] seq 1 ack 3 \"hi\"");
}

#[test]
fn a_wrong_checksum_is_dropped() {
    let mut trace = Trace::echo().established();
    let mut frame = trace.segment(1, 1, 1, b"hi");
    let last = frame.len() - 1;
    frame[last] ^= 1;
    trace.push([&frame[..]]);
    trace.run("? discard_tcp_checksum 1");
}

#[test]
fn the_answer_follows_the_peer_to_another_router() {
    let mut trace = Trace::echo().established();
    let mut frame = trace.segment(1, 1, 1, b"hi");
    let router = [0x02, 0, 0, 0, 0, 0x77];
    frame[6..12].copy_from_slice(&router);
    trace.push([&frame[..]]);
    let answer = trace.shard().links_mut()[0].take(<[u8]>::to_vec).unwrap();
    assert_eq!(answer[..6], router);
}

#[test]
fn a_segment_outside_the_window_does_not_move_the_peer() {
    // RFC 5961's answer holds both sequence numbers: it goes where the connection is, not to who asks.
    let stranger = [0x02, 0, 0, 0, 0, 0x66];
    let mut trace = Trace::echo().established();
    let isn = trace.isn();
    let outside = TcpFrame {
        seq: trace.peer_isn.wrapping_add(100_000),
        ack: isn.wrapping_add(1),
        payload: b"x",
        source_mac: stranger,
        ..trace.frame(1)
    };
    let in_window = TcpFrame {
        seq: trace.peer_isn.wrapping_add(100),
        flags: Flags::RST,
        payload: b"",
        ..outside
    };
    let syn = TcpFrame {
        flags: Flags::SYN,
        ..in_window
    };
    trace.push([&outside.to_vec()[..]]);
    trace.push([&syn.to_vec()[..]]);
    // `read` compares the hardware addresses of every frame that is expected.
    trace.run("< [.] seq 1 ack 1");
    trace.run("+600ms");
    trace.push([&in_window.to_vec()[..]]);
    trace.run(
        "< [.] seq 1 ack 1
         > [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         ? challenge_acks 2",
    );
}

#[test]
fn an_old_duplicate_from_elsewhere_is_acknowledged_to_the_peer() {
    let mut trace = Trace::echo().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         > [.] seq 6 ack 6",
    );
    // Not one that repeats what is in flight: its acknowledgment is as old as its data.
    let mut old = trace.segment(1, 1, 1, b"hello");
    old[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x66]);
    trace.push([&old[..]]);
    trace.run("< [.] seq 6 ack 6");
}

#[test]
fn frames_to_another_host_are_not_answered() {
    // A switch floods them, and an interface in promiscuous mode takes them.
    let mut trace = Trace::echo();
    let mut frame = TcpFrame {
        flags: Flags::SYN,
        ..trace.frame(1)
    };
    frame.destination_mac[5] ^= 1;
    trace.push([&frame.to_vec()[..]]);
    trace.run(
        "? discard_foreign_mac 1
         > [S] seq 0
         < [S.] seq 0 ack 1",
    );
}

#[test]
fn acknowledgments_are_taken_when_there_is_no_slot_to_answer() {
    // Two slots. What fills them is never taken from the wire, and what was acknowledged is free all the same.
    let mut trace = Trace::lines_over(2);
    trace.run(
        "> [S] seq 0 win 64000 <mss 1460>
         < [S.] seq 0 ack 1
         > [.] seq 1 ack 1 win 64000",
    );
    trace.send(1, "[P.] seq 1 ack 1 \"send 1900\\n\"");
    trace.send(1, "[.] seq 11 ack 1901");
    trace.run(
        "< [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 440
         ? rx_dropped_no_slot 0
         +60s
         ? retrans_segs 0",
    );
}
