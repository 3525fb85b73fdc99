//! Paths narrower than the interface's MTU (RFC 1191, RFC 8201, RFC 4821, RFC 5927).

use std::net::IpAddr;

use barewire_tcp_testing::icmp::too_big;

use crate::trace::{Trace, on_sockets};

const HANDSHAKE: &str = "
    > [S] seq 0 win 64000 <mss 1460>
    < [S.] seq 0 ack 1
    > [.] seq 1 ack 1 win 64000";

/// What RFC 792 has a router quote: the IP header and 8 bytes.
const QUOTED: usize = 28;

impl Trace {
    /// The next frame that the shard has sent, which nobody receives.
    fn lost(&mut self) -> Vec<u8> {
        let link = &mut self.shard().links_mut()[0];
        link.take(<[u8]>::to_vec).unwrap()
    }

    fn router(&self) -> IpAddr {
        match self.peer {
            IpAddr::V4(_) => [192, 0, 2, 1].into(),
            IpAddr::V6(_) => "2001:db8::1".parse().unwrap(),
        }
    }

    /// A router says that the frame `sent` is longer than `mtu`.
    fn refuse(&mut self, sent: &[u8], mtu: u16) -> &mut Trace {
        let quoted = if self.peer.is_ipv6() {
            QUOTED + 20
        } else {
            QUOTED
        };
        let message = too_big(sent, self.router(), mtu, quoted);
        self.push([&message[..]]);
        self
    }
}

#[test]
fn what_a_router_finds_too_big_is_sent_again_at_once_in_smaller_segments() {
    let mut trace = Trace::lines_with(on_sockets).established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 4000\\n\"");
    let sent = trace.lost();
    trace.lost();
    trace.refuse(&sent, 1_400).run(
        "< [.] seq 1 ack 11 len 1360
         < [.] seq 1361 ack 11 len 100
         > [.] seq 11 ack 1461
         < [.] seq 1461 ack 11 len 1360
         < [P.] seq 2821 ack 11 len 1180
         ? path_too_big 1",
    );
}

#[test]
fn ipv6_routers_are_listened_to_as_well() {
    let mut trace = Trace::lines_with(on_sockets).over_ipv6().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1900\\n\"");
    let sent = trace.lost();
    trace.lost();
    trace.refuse(&sent, 1_280).run(
        "< [.] seq 1 ack 11 len 1220
         < [.] seq 1221 ack 11 len 220
         > [.] seq 11 ack 1441
         < [P.] seq 1441 ack 11 len 460
         ? path_too_big 1",
    );
}

#[test]
fn a_tagged_message_is_read_too() {
    let mut trace = Trace::lines();
    trace.vlan = Some(7);
    let mut trace = trace.established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1500\\n\"");
    let sent = trace.lost();
    trace.lost();
    trace.refuse(&sent, 1_400).run(
        "< [.] seq 1 ack 11 len 1360
         < [.] seq 1361 ack 11 len 100",
    );
}

#[test]
fn a_new_connection_to_the_same_address_begins_with_what_is_known() {
    let mut trace = Trace::lines().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1500\\n\"");
    let sent = trace.lost();
    trace.lost();
    trace.refuse(&sent, 1_400).run(
        "< [.] seq 1 ack 11 len 1360
         < [.] seq 1361 ack 11 len 100
         # The SYN|ACK says what we receive, not what we send.
         2> [S] seq 0 <mss 1460>
         2< [S.] seq 0 ack 1 <mss 1460>
         2> [P.] seq 1 ack 1 \"send 1500\\n\"
         2< [.] seq 1 ack 11 len 1360
         2< [P.] seq 1361 ack 11 len 140",
    );
}

#[test]
fn a_larger_size_is_tried_again_after_ten_minutes() {
    let mut trace = Trace::lines_with(|config| {
        on_sockets(config);
        config.deadlines.idle_ms = 3_600_000;
    })
    .established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1500\\n\"");
    let sent = trace.lost();
    trace.lost();
    trace.refuse(&sent, 1_400).run(
        "< [.] seq 1 ack 11 len 1360
         < [.] seq 1361 ack 11 len 100
         > [.] seq 11 ack 1461
         < [P.] seq 1461 ack 11 len 40
         > [.] seq 11 ack 1501
         +590s
         > [P.] seq 11 ack 1501 \"send 1500\\n\"
         < [.] seq 1501 ack 21 len 1360
         < [P.] seq 2861 ack 21 len 140
         > [.] seq 21 ack 3001
         +11s
         > [P.] seq 21 ack 3001 \"send 1500\\n\"
         < [.] seq 3001 ack 31 len 1460
         < [P.] seq 4461 ack 31 len 40",
    );
}

#[test]
fn only_who_knows_what_is_in_flight_is_believed() {
    let mut trace = Trace::lines().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1500\\n\"");
    let (sent, seq) = (trace.lost(), 14 + 20 + 4);
    trace.lost();
    for guess in [1u32.wrapping_neg(), 1_500, 0x8000_0000] {
        let mut forged = sent.clone();
        let real = u32::from_be_bytes(sent[seq..seq + 4].try_into().unwrap());
        forged[seq..seq + 4].copy_from_slice(&real.wrapping_add(guess).to_be_bytes());
        trace.refuse(&forged, 1_400);
    }
    trace.run("? path_too_big_out_of_window 3");
    // The last byte in flight is one.
    let mut last = sent;
    let real = u32::from_be_bytes(last[seq..seq + 4].try_into().unwrap());
    last[seq..seq + 4].copy_from_slice(&(real + 1_499).to_be_bytes());
    trace.refuse(&last, 1_400).run(
        "< [.] seq 1 ack 11 len 1360
         < [.] seq 1361 ack 11 len 100
         ? path_too_big 1",
    );
}

#[test]
fn a_quiet_connection_has_sent_nothing_that_could_be_too_big() {
    let mut trace = Trace::lines().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1400\\n\"");
    let sent = trace.lost();
    trace.run("> [.] seq 11 ack 1401");
    trace
        .refuse(&sent, 1_300)
        .run("? path_too_big_out_of_window 1");
}

#[test]
fn no_path_is_believed_to_be_narrower_than_the_protocols_allow() {
    let mut trace = Trace::lines().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1400\\n\"");
    let sent = trace.lost();
    trace.refuse(&sent, 68).run(
        "< [.] seq 1 ack 11 len 512
         < [.] seq 513 ack 11 len 512
         < [P.] seq 1025 ack 11 len 376",
    );

    let mut trace = Trace::lines().over_ipv6().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1400\\n\"");
    let sent = trace.lost();
    trace.refuse(&sent, 1_279).run("? path_too_big_no_news 1");
}

#[test]
fn an_old_router_that_names_no_size_is_taken_for_the_next_known_one() {
    let mut trace = Trace::lines().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1460\\n\"");
    let sent = trace.lost();
    // RFC 1191, section 7: 1,492 is below 1,500.
    trace.refuse(&sent, 0).run(
        "< [.] seq 1 ack 11 len 1452
         < [P.] seq 1453 ack 11 len 8",
    );
}

#[test]
fn messages_that_cannot_be_meant_are_counted_and_dropped() {
    let mut trace = Trace::lines().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1400\\n\"");
    let sent = trace.lost();
    let router = trace.router();
    let good = too_big(&sent, router, 1_300, QUOTED);
    // A damaged message, one cut short, one about a packet that fits, one about another host's, one
    // about a port that is not served, one about an unknown flow, and an echo request.
    let mut damaged = good.clone();
    damaged[50] ^= 1;
    trace.push([&damaged[..], &good[..good.len() - 1]]);
    trace.refuse(&sent, 1_440).run(
        "? path_too_big_malformed 2
         ? discard_truncated 1",
    );
    for at in [14 + 12, 14 + 20] {
        let mut others = sent.clone();
        others[at] ^= 1;
        let mut message = too_big(&others, router, 1_300, QUOTED);
        // Still to us.
        message[14 + 16..14 + 20].copy_from_slice(&sent[14 + 12..14 + 16]);
        let sum = header_checksum(&message[14..34]);
        message[24..26].copy_from_slice(&sum);
        trace.push([&message[..]]);
    }
    trace.run("? path_too_big_foreign 2");
    let mut unknown = sent.clone();
    unknown[14 + 23] ^= 1;
    trace
        .refuse(&unknown, 1_300)
        .run("? path_too_big_unknown_flow 1");
    let mut echo = good;
    echo[34] = 8;
    trace.push([&echo[..]]);
    trace.run(
        "? discard_not_tcp 1
         ? path_too_big 0",
    );
}

fn header_checksum(header: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    let words = header.chunks(2).enumerate().filter(|&(at, _)| at != 5);
    let sum: u32 = words.map(|(_, pair)| word(pair)).sum();
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

#[test]
fn too_many_messages_at_once_are_not_looked_at() {
    let mut trace = Trace::lines().established();
    trace.send(1, "[P.] seq 1 ack 1 \"send 1400\\n\"");
    let sent = trace.lost();
    let message = too_big(&sent, trace.router(), 1_300, QUOTED);
    trace.push(std::iter::repeat_n(&message[..], 40));
    trace.run(
        "< [.] seq 1 ack 11 len 1260
         < [P.] seq 1261 ack 11 len 140
         ? path_too_big 1
         ? path_too_big_no_news 15
         ? path_too_big_skipped 24",
    );
}

#[test]
fn a_message_that_arrives_at_another_shard_reaches_the_one_it_is_for() {
    let [mut ours, mut other] = Trace::sharing(Trace::lines);
    ours.run(HANDSHAKE);
    ours.send(1, "[P.] seq 1 ack 1 \"send 1500\\n\"");
    let sent = ours.lost();
    ours.lost();
    other.refuse(&sent, 1_400).run("? path_too_big_forwarded 1");
    ours.push([]);
    ours.run(
        "< [.] seq 1 ack 11 len 1360
         < [.] seq 1361 ack 11 len 100
         ? path_too_big 1",
    );
    // What one has learnt, the other knows.
    other.run(
        "> [S] seq 0 <mss 1460>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"send 1500\\n\"
         < [.] seq 1 ack 11 len 1360
         < [P.] seq 1361 ack 11 len 140",
    );
    // Nobody's, and nobody tells it on.
    let mut unknown = sent;
    unknown[14 + 23] ^= 1;
    other
        .refuse(&unknown, 1_400)
        .run("? path_too_big_forwarded 2");
    ours.push([]);
    ours.run("? path_too_big_unknown_flow 1");
}

#[test]
fn long_segments_that_vanish_without_a_word_are_made_shorter_after_two_timeouts() {
    let mut trace = Trace::lines().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"send 1900\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 440
         +1100ms
         < [.] seq 1 ack 11 len 1460
         +2s
         < [.] seq 1 ack 11 len 1240
         < [.] seq 1241 ack 11 len 220
         ? path_black_holes 1
         > [.] seq 11 ack 1461
         < [P.] seq 1461 ack 11 len 440
         # What was confirmed holds for the next connection too.
         2> [S] seq 0 <mss 1460>
         2< [S.] seq 0 ack 1
         2> [P.] seq 1 ack 1 \"send 1500\\n\"
         2< [.] seq 1 ack 11 len 1240
         2< [P.] seq 1241 ack 11 len 260",
    );
}

#[test]
fn what_no_answer_confirmed_does_not_hold_for_the_next_connection() {
    let mut trace = Trace::lines().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"send 1400\\n\"
         < [P.] seq 1 ack 11 len 1400
         +3100ms
         < [P.] seq 1 ack 11 len 1400
         < [.] seq 1 ack 11 len 1240
         < [P.] seq 1241 ack 11 len 160
         > [R] seq 11
         2> [S] seq 0 <mss 1460>
         2< [S.] seq 0 ack 1
         2> [P.] seq 1 ack 1 \"send 1400\\n\"
         2< [P.] seq 1 ack 11 len 1400",
    );
}

#[test]
fn an_ipv4_path_may_be_as_narrow_as_576_bytes() {
    let mut trace = Trace::lines_with(on_sockets).established();
    trace.run(
        "> [P.] seq 1 ack 1 \"send 1400\\n\"
         < [P.] seq 1 ack 11 len 1400
         +7100ms
         < [P.] seq 1 ack 11 len 1400
         < [.] seq 1 ack 11 len 1240
         < [P.] seq 1241 ack 11 len 160
         < [.] seq 1 ack 11 len 536
         < [.] seq 537 ack 11 len 536
         < [P.] seq 1073 ack 11 len 328
         ? path_black_holes 2",
    );
}

#[test]
fn an_ipv6_path_is_never_narrower_than_1280_bytes() {
    let mut trace = Trace::lines_with(on_sockets).over_ipv6().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"send 1400\\n\"
         < [P.] seq 1 ack 11 len 1400
         +7100ms
         < [P.] seq 1 ack 11 len 1400
         < [.] seq 1 ack 11 len 1220
         < [P.] seq 1221 ack 11 len 180
         < [.] seq 1 ack 11 len 1220
         < [P.] seq 1221 ack 11 len 180
         ? path_black_holes 1",
    );
}
