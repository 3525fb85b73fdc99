//! Connections that are served in place, and how they change hands.

use barewire_tcp::config::{DirectPath, StackConfig};

use crate::trace::Trace;

fn directly(config: &mut StackConfig) {
    config.direct_path = DirectPath::Always;
}

fn lines() -> Trace {
    Trace::lines_with(directly).established()
}

#[test]
fn requests_in_order_need_no_socket() {
    lines().run(
        "? direct_takes 1
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         > [P.] seq 7 ack 7 \"again\\n\"
         < [P.] seq 7 ack 13 \"again\\n\"
         > [.] seq 13 ack 13
         +10s
         ? direct_hand_overs 0
         ? retrans_segs 0",
    );
}

#[test]
fn the_first_window_has_ten_segments() {
    // RFC 6928, section 2.
    lines().run(
        "> [P.] seq 1 ack 1 \"send 9000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [.] seq 1461 ack 11 len 1460
         < [.] seq 2921 ack 11 len 1460
         < [.] seq 4381 ack 11 len 1460
         < [.] seq 5841 ack 11 len 1460
         < [.] seq 7301 ack 11 len 1460
         < [P.] seq 8761 ack 11 len 240
         > [.] seq 11 ack 9001
         ? direct_hand_overs 0",
    );
}

#[test]
fn many_requests_of_one_segment_are_answered_in_whole_segments() {
    let requests = "send 100\\n".repeat(30);
    lines().run(&format!(
        "> [P.] seq 1 ack 1 \"{requests}\"
         < [.] seq 1 ack 271 len 1460
         < [.] seq 1461 ack 271 len 1460
         < [P.] seq 2921 ack 271 len 80
         > [.] seq 271 ack 3001
         ? direct_hand_overs 0",
    ));
}

#[test]
fn what_the_window_does_not_hold_of_many_replies_waits() {
    let requests = "send 100\\n".repeat(30);
    lines().run(&format!(
        "> [P.] seq 1 ack 1 win 15 \"{requests}\"
         < [.] seq 1 ack 271 len 1460
         > [.] seq 271 ack 1461 win 15
         < [.] seq 1461 ack 271 len 1460
         < [P.] seq 2921 ack 271 len 80
         > [.] seq 271 ack 3001 win 15
         ? direct_hand_overs 0",
    ));
}

#[test]
fn a_lost_reply_is_repaired_by_a_probe() {
    // RFC 8985, section 7.2: two round trips, and the time for which an ACK may be delayed.
    lines().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         +1ms
         > [P.] seq 7 ack 7 \"again\\n\"
         < [P.] seq 7 ack 13 \"again\\n\"
         +40ms
         +10ms
         < [P.] seq 7 ack 13 \"again\\n\"
         > [.] seq 13 ack 13
         +10s
         ? retrans_segs 1
         ? direct_hand_overs 0",
    );
}

#[test]
fn without_a_probe_the_timer_takes_200_ms() {
    // As on Linux; the first probe is lost as well.
    lines().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         +1ms
         > [P.] seq 7 ack 7 \"again\\n\"
         < [P.] seq 7 ack 13 \"again\\n\"
         +50ms
         < [P.] seq 7 ack 13 \"again\\n\"
         +150ms
         +60ms
         < [P.] seq 7 ack 13 \"again\\n\"
         > [.] seq 13 ack 13
         ? retrans_segs 2",
    );
}

#[test]
fn a_request_that_comes_again_is_acknowledged_and_not_answered_twice() {
    lines().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [.] seq 7 ack 7
         > [.] seq 7 ack 7
         ? direct_hand_overs 0",
    );
}

#[test]
fn a_keep_alive_is_answered_and_an_overtaken_ack_is_not() {
    lines().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         > [.] seq 7 ack 7
         > [.] seq 1 ack 1
         > [.] seq 6 ack 7
         < [.] seq 7 ack 7
         ? direct_hand_overs 0",
    );
}

#[test]
fn half_a_message_waits_for_the_rest_without_a_socket() {
    lines().run(
        "> [P.] seq 1 ack 1 \"a\\nhel\"
         < [P.] seq 1 ack 6 win 8189 \"a\\n\"
         > [P.] seq 6 ack 3 \"lo\\n\"
         < [P.] seq 3 ack 9 win 8192 \"hello\\n\"
         > [.] seq 9 ack 9
         > [P.] seq 9 ack 9 \"again\\n\"
         < [P.] seq 9 ack 15 \"again\\n\"
         ? direct_hand_overs 0
         ? sockets 0",
    );
}

#[test]
fn what_lies_behind_a_gap_is_kept_and_told_until_the_gap_is_filled() {
    lines().run(
        "> [P.] seq 7 ack 1 \"again\\n\"
         < [.] seq 1 ack 1 <sack>
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 13 \"hello\\nagain\\n\"
         > [.] seq 13 ack 13
         ? inbox_kept 1
         ? direct_hand_overs 0",
    );
}

#[test]
fn what_is_in_flight_goes_along_and_is_not_sent_twice() {
    lines().run(
        "> [P.] seq 1 ack 1 \"send 5000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [.] seq 1461 ack 11 len 1460
         < [.] seq 2921 ack 11 len 1460
         < [P.] seq 4381 ack 11 len 620
         # urgent data takes a socket
         > [P.U] seq 11 ack 1461 \"x\"
         < [.] seq 5001 ack 12
         ? direct_hand_overs 1
         ? retrans_segs 0
         > [.] seq 12 ack 5001
         +5s
         ? retrans_segs 0",
    );
}

#[test]
fn a_forged_segment_does_not_move_a_connection() {
    lines().run(
        "> [.] seq 1 ack 100000
         < [.] seq 1 ack 1
         > [R] seq 100
         > [.] seq 90000 ack 1 len 10
         ? direct_hand_overs 0
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"",
    );
}

#[test]
fn an_upload_is_acknowledged_every_second_segment_and_when_the_batch_is_over() {
    // RFC 5681, section 4.2; no ACK is held back for longer than a batch.
    lines()
        .run(
            "> [P.] seq 1 ack 1 \"body 90000\\n\"
             < [.] seq 1 ack 12",
        )
        .send_together(&[
            "[.] seq 12 ack 1 len 1460",
            "[.] seq 1472 ack 1 len 1460",
            "[.] seq 2932 ack 1 len 1460",
        ])
        .run(
            "< [.] seq 1 ack 2932
             < [.] seq 1 ack 4392
             > [.] seq 4392 ack 1 len 1460
             < [.] seq 1 ack 5852
             ? direct_hand_overs 0",
        );
}

#[test]
fn a_fin_in_the_batch_of_the_last_segment_acknowledges_both() {
    lines()
        .run(
            "> [P.] seq 1 ack 1 \"body 90000\\n\"
             < [.] seq 1 ack 12",
        )
        .send_together(&["[.] seq 12 ack 1 len 100", "[F.] seq 112 ack 1"])
        .run(
            "< [F.] seq 1 ack 113
             > [.] seq 113 ack 2",
        );
}

#[test]
fn the_window_grows_for_a_service_that_takes_what_arrives() {
    lines().run(
        "> [P.] seq 1 ack 1 \"body 90000\\n\"
         < [.] seq 1 ack 12 win 8192
         > [.] seq 12 ack 1 len 1460
         < [.] seq 1 ack 1472 win 8192
         > [.] seq 1472 ack 1 len 1460
         < [.] seq 1 ack 2932 win 8192
         > [.] seq 2932 ack 1 len 1460
         < [.] seq 1 ack 4392 win 8192
         > [.] seq 4392 ack 1 len 1460
         < [.] seq 1 ack 5852 win 8192
         > [.] seq 5852 ack 1 len 1460
         < [.] seq 1 ack 7312 win 8192
         > [.] seq 7312 ack 1 len 1460
         < [.] seq 1 ack 8772 win 16384
         > [.] seq 10232 ack 1 len 1460
         < [.] seq 1 ack 8772 <sack>
         > [.] seq 8772 ack 1 len 1460
         < [.] seq 1 ack 11692 win 16384
         ? direct_hand_overs 0",
    );
}

#[test]
fn a_peer_that_asks_at_once_when_it_is_answered_does_not_keep_its_socket() {
    lines().run(
        "> [P.U] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         ? direct_hand_overs 1
         ? direct_takes 1
         > [P.] seq 7 ack 7 \"hello, \\n\"
         < [P.] seq 7 ack 15 \"hello, \\n\"
         ? direct_takes 2
         > [.] seq 15 ack 15
         +10s
         ? direct_hand_overs 1
         ? retrans_segs 0",
    );
}

#[test]
fn a_segment_behind_a_gap_with_an_overtaken_ack_is_kept() {
    lines().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         > [.] seq 7 ack 7
         > [P.] seq 9 ack 1 \"c\\n\"
         < [.] seq 7 ack 7 <sack>
         ? direct_hand_overs 0
         > [P.] seq 7 ack 7 \"ab\"
         < [P.] seq 7 ack 11 \"abc\\n\"",
    );
}

#[test]
fn a_socket_sends_again_what_was_found_lost_before_it_took_over() {
    lines().run(
        "> [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 540
         +1010ms
         # the congestion window of one segment holds back the rest, which is lost as well
         < [.] seq 1 ack 11 len 1460
         # urgent data takes a socket
         > [P.U] seq 11 ack 1 \"x\"
         < [P.] seq 1461 ack 12 len 540
         ? direct_hand_overs 1
         > [.] seq 12 ack 2001
         +5s
         ? retrans_segs 2",
    );
}

#[test]
fn the_timer_of_a_socket_runs_from_when_the_segment_was_sent() {
    lines().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         +700ms
         > [P.U] seq 7 ack 1 \"x\"
         < [.] seq 7 ack 8
         ? direct_hand_overs 1
         +290ms
         +20ms
         < [P.] seq 1 ack 8 \"hello\\n\"
         > [.] seq 8 ack 7
         +5s
         ? retrans_segs 1",
    );
}

#[test]
fn more_connections_than_keep_a_sender_are_served_and_repaired_alike() {
    const CONNECTIONS: u16 = 1_200;
    let mut trace = Trace::lines_with(|config| {
        directly(config);
        config.connections = 2 * u32::from(CONNECTIONS);
    });
    for peer in 1..=CONNECTIONS {
        trace.run(&format!(
            "{peer}> [S] seq 0 <mss 1460,wscale 7,sackOK>
             {peer}< [S.] seq 0 ack 1
             {peer}> [.] seq 1 ack 1 win 500
             {peer}> [P.] seq 1 ack 1 \"hello\\n\"
             {peer}< [P.] seq 1 ack 7 \"hello\\n\"
             +1ms
             {peer}> [.] seq 7 ack 7 win 500"
        ));
    }
    // The first ones have given theirs up, and remember a round trip of 1 ms: the probe comes after the time for which
    // an ACK may be delayed.
    for peer in 1..=CONNECTIONS {
        trace.run(&format!(
            "{peer}> [P.] seq 7 ack 7 win 500 \"again\\n\"
             {peer}< [P.] seq 7 ack 13 \"again\\n\"
             +50ms
             {peer}< [P.] seq 7 ack 13 \"again\\n\"
             {peer}> [.] seq 13 ack 13 win 500"
        ));
    }
    trace.run(&format!(
        "? connections {CONNECTIONS}
         ? retrans_segs {CONNECTIONS}
         ? direct_hand_overs 0"
    ));
}
