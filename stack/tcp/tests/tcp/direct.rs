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
fn half_a_message_is_kept_by_a_socket_until_the_rest_comes() {
    lines().run(
        "> [P.] seq 1 ack 1 \"a\\nhel\"
         < [P.] seq 1 ack 6 win 8189 \"a\\n\"
         ? direct_hand_overs 1
         > [P.] seq 6 ack 3 \"lo\\n\"
         < [P.] seq 3 ack 9 \"hello\\n\"
         > [.] seq 9 ack 9
         ? direct_takes 2
         > [P.] seq 9 ack 9 \"again\\n\"
         < [P.] seq 9 ack 15 \"again\\n\"
         ? direct_hand_overs 1",
    );
}

#[test]
fn what_lies_behind_a_gap_is_kept_by_a_socket_until_the_gap_is_filled() {
    lines().run(
        "> [P.] seq 7 ack 1 \"again\\n\"
         < [.] seq 1 ack 1
         ? direct_hand_overs 1
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [.] seq 1 ack 13
         < [P.] seq 1 ack 13 \"hello\\nagain\\n\"
         > [.] seq 13 ack 13
         ? direct_takes 2",
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
         > [F.] seq 11 ack 1461
         < [F.] seq 5001 ack 12
         ? direct_hand_overs 1
         ? retrans_segs 0
         > [.] seq 12 ack 5002
         ? connections 0",
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
