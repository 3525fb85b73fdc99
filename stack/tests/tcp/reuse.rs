//! Nothing of one connection is seen by the next.

use crate::trace::{Trace, on_sockets};

/// What a connection does when it is the first of its slot: initial congestion window, duplicate ACKs
/// counted from zero, initial retransmission timeout, no scale, no selective acknowledgments.
const AS_NEW: &str = "
    2> [S] seq 0 win 64000 <mss 1460>
    2< [S.] seq 0 ack 1 win 8192 <mss 1460>
    2> [.] seq 1 ack 1 win 64000
    2> [P.] seq 11 ack 1 \"x\"
    2< [.] seq 1 ack 1 <>
    2> [P.] seq 1 ack 1 \"send 9000\\n\"
    2< [.] seq 1 ack 12 <>
    2< [.] seq 1 ack 12 len 1460
    2< [.] seq 1461 ack 12 len 588
    2> [.] seq 12 ack 1
    2> [.] seq 12 ack 1
    +990ms
    +20ms
    2< [.] seq 1 ack 12 len 1460
    2> [F.] seq 12 ack 2049
    2< [.] seq 2049 ack 13 len 1460
    2< [.] seq 3509 ack 13 len 1460
    2> [R] seq 13
    ? connections 0";

/// Runs [`AS_NEW`] on the only slot there is, after `before` was run on it.
fn after(before: &str) {
    let mut trace = Trace::lines_with(|config| {
        on_sockets(config);
        config.connections = 1;
    });
    trace.run(before).run(AS_NEW);
}

const HANDSHAKE: &str = "
    > [S] seq 0 win 64000 <mss 536,wscale 7,sackOK>
    < [S.] seq 0 ack 1
    > [.] seq 1 ack 1 win 500
";

#[test]
fn the_first_connection_is_as_new() {
    after("");
}

#[test]
fn after_a_handshake_that_was_reset() {
    after(
        "> [S] seq 0 <mss 100,wscale 14,sackOK>
           < [S.] seq 0 ack 1
           > [R] seq 1",
    );
}

#[test]
fn after_a_reset_with_unread_input_and_islands() {
    after(&format!(
        "{HANDSHAKE}
         > [.] seq 1 ack 1 \"not a whole line\"
         < [.] seq 1 ack 17
         > [.] seq 100 ack 1 len 50
         < [.] seq 1 ack 17 <sack>
         > [R] seq 17"
    ));
}

#[test]
fn after_a_reset_with_unsent_output() {
    after(&format!(
        "{HANDSHAKE}
         > [.] seq 1 ack 1 win 1 \"send 9000\\n\"
         < [.] seq 1 ack 11 len 128
         > [R] seq 11"
    ));
}

#[test]
fn after_a_large_congestion_window() {
    let mut before = format!(
        "{HANDSHAKE}
         > [P.] seq 1 ack 1 \"send 4000\\n\"
         < [.] seq 1 ack 11 len 536
         < [.] seq 537 ack 11 len 536
         < [.] seq 1073 ack 11 len 536
         < [.] seq 1609 ack 11 len 440
        "
    );
    before.push_str(
        "> [.] seq 11 ack 2049
         < [.] seq 2049 ack 11 len 536
         < [.] seq 2585 ack 11 len 536
         < [.] seq 3121 ack 11 len 536
         < [P.] seq 3657 ack 11 len 344
         > [R] seq 11",
    );
    after(&before);
}

#[test]
fn after_a_collapsed_congestion_window_and_a_long_timeout() {
    after(&format!(
        "{HANDSHAKE}
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         +10s
         < [P.] seq 1 ack 7 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         > [R] seq 7"
    ));
}

#[test]
fn after_duplicate_acks_and_a_fast_retransmit() {
    after(&format!(
        "{HANDSHAKE}
         > [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 536
         < [.] seq 537 ack 11 len 536
         < [.] seq 1073 ack 11 len 536
         < [P.] seq 1609 ack 11 len 392
         > [.] seq 11 ack 1
         > [.] seq 11 ack 1
         > [.] seq 11 ack 1
         < [.] seq 1 ack 11 len 536
         > [R] seq 11"
    ));
}

#[test]
fn after_a_long_round_trip() {
    after(&format!(
        "{HANDSHAKE}
         > [P.] seq 1 ack 1 \"a\\n\"
         < [P.] seq 1 ack 3 \"a\\n\"
         +950ms
         > [P.] seq 3 ack 3 \"b\\n\"
         < [P.] seq 3 ack 5 \"b\\n\"
         +950ms
         > [.] seq 5 ack 5
         > [R] seq 5"
    ));
}

#[test]
fn after_a_closed_window() {
    after(&format!(
        "{HANDSHAKE}
         > [P.] seq 1 ack 1 win 0 \"hello\\n\"
         < [.] seq 1 ack 7 \"h\"
         < [.] seq 1 ack 7
         > [R] seq 7"
    ));
}

#[test]
fn after_a_message_under_way() {
    after(&format!(
        "{HANDSHAKE}
         > [P.] seq 1 ack 1 \"body 500\\n\"
         < [.] seq 1 ack 10
         > [P.] seq 10 ack 1 len 100
         < [.] seq 1 ack 110
         > [R] seq 110"
    ));
}

#[test]
fn after_a_close_in_order() {
    after(&format!(
        "{HANDSHAKE}
         > [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8"
    ));
}

#[test]
fn after_a_challenge() {
    let mut trace = Trace::lines_with(|config| config.connections = 1);
    trace.run(HANDSHAKE).run(
        "> [S] seq 9
         < [.] seq 1 ack 1
         > [R] seq 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         2> [S] seq 9
         2< [.] seq 1 ack 1",
    );
}
