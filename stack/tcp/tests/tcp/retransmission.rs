//! What happens when segments are lost (RFC 6298, RFC 5681).

use crate::trace::{Trace, on_sockets};

#[test]
fn the_timer_backs_off_until_the_peer_answers() {
    Trace::echo().established().run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         +990ms
         +20ms
         < [P.] seq 1 ack 6 \"hello\"
         +1980ms
         +30ms
         < [P.] seq 1 ack 6 \"hello\"
         +3960ms
         +60ms
         < [P.] seq 1 ack 6 \"hello\"
         ? retrans_segs 3
         > [.] seq 6 ack 6
         +60s
         ? retrans_segs 3",
    );
}

#[test]
fn the_timer_backs_off_no_further_than_allowed() {
    Trace::echo_with(|config| config.rto_max_ms = 3_000)
        .established()
        .run(
            "> [P.] seq 1 ack 1 \"hello\"
             < [P.] seq 1 ack 6 \"hello\"
             +3100ms
             < [P.] seq 1 ack 6 \"hello\"
             < [P.] seq 1 ack 6 \"hello\"
             # here 4 s would be next, and then 8 s
             +2880ms
             +60ms
             < [P.] seq 1 ack 6 \"hello\"
             +2940ms
             +60ms
             < [P.] seq 1 ack 6 \"hello\"
             > [.] seq 6 ack 6
             +60s
             ? retrans_segs 4",
        );
}

#[test]
fn a_timeout_that_was_backed_off_does_not_hold_up_the_next_loss() {
    // RFC 6298, section 5, keeps the timeout as long as it is until a segment is acknowledged that was
    // sent once, and the next one is lost again.
    Trace::echo_with(|config| {
        on_sockets(config);
        config.rto_max_ms = 2_000;
    })
    .established()
    .run(
        "> [P.] seq 1 ack 1 \"hello\"
             < [P.] seq 1 ack 6 \"hello\"
             +5200ms
             < [P.] seq 1 ack 6 \"hello\"
             < [P.] seq 1 ack 6 \"hello\"
             < [P.] seq 1 ack 6 \"hello\"
             > [.] seq 6 ack 6
             > [P.] seq 6 ack 6 \"again\"
             < [P.] seq 6 ack 11 \"again\"
             +2900ms
             +200ms
             < [P.] seq 6 ack 11 \"again\"
             > [.] seq 11 ack 11",
    );
}

#[test]
fn a_peer_that_is_gone_is_given_up() {
    Trace::echo_with(|config| {
        config.deadlines.user_timeout_ms = 5_000;
        config.deadlines.send_ms = 60_000;
    })
    .established()
    .run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         +4990ms
         < [P.] seq 1 ack 6 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         +20ms
         < [R.] seq 6 ack 6
         ? abort_on_timeout 1
         ? connections 0",
    );
}

#[test]
fn a_peer_that_answers_slowly_is_not_given_up() {
    let mut trace = Trace::lines_with(|config| {
        on_sockets(config);
        config.deadlines.user_timeout_ms = 5_000;
        config.deadlines.send_ms = 60_000;
    })
    .established();
    trace.run(
        "> [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 540
         +900ms
         > [.] seq 11 ack 1461
         +4s
         < [P.] seq 1461 ack 11 len 540
         < [P.] seq 1461 ack 11 len 540
         > [.] seq 11 ack 2001
         ? connections 1",
    );
}

#[test]
fn three_duplicate_acks_bring_the_lost_segment_at_once() {
    Trace::lines_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"send 6000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [.] seq 1461 ack 11 len 588
         > [.] seq 11 ack 1461
         < [.] seq 2049 ack 11 len 1460
         < [.] seq 3509 ack 11 len 1460
         > [.] seq 11 ack 2049
         < [P.] seq 4969 ack 11 len 1032
         # the segment at 2049 is lost
         > [.] seq 11 ack 2049 <nop,nop,sack 3509:4969>
         > [.] seq 11 ack 2049 <nop,nop,sack 3509:6001>
         > [.] seq 11 ack 2049 <nop,nop,sack 3509:6001>
         < [.] seq 2049 ack 11 len 1460
         ? retrans_segs 1
         > [.] seq 11 ack 6001
         +60s
         ? retrans_segs 1",
    );
}

#[test]
fn everything_that_was_lost_is_sent_again_after_the_timer() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 540
         +1010ms
         # one segment, as the congestion window has collapsed
         < [.] seq 1 ack 11 len 1460
         > [.] seq 11 ack 1461
         < [P.] seq 1461 ack 11 len 540
         > [.] seq 11 ack 2001",
    );
}

#[test]
fn an_ack_of_the_original_ends_the_retransmission() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 540
         +1010ms
         < [.] seq 1 ack 11 len 1460
         > [.] seq 11 ack 2001
         +60s
         ? retrans_segs 1",
    );
}

#[test]
fn a_lost_request_is_answered_when_it_comes_again() {
    Trace::echo().established().run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         +300ms
         # the answer was lost
         > [P.] seq 1 ack 1 \"hello\"
         < [.] seq 6 ack 6
         +710ms
         < [P.] seq 1 ack 6 \"hello\"
         > [.] seq 6 ack 6",
    );
}

#[test]
fn an_ack_during_a_retransmission_has_the_highest_number_that_was_sent() {
    // smoltcp would write 1461, where it is about to go on. A peer that has received everything drops
    // such an ACK, and with it the news that its own data has arrived.
    Trace::lines_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 540
         +1010ms
         < [.] seq 1 ack 11 len 1460
         > [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 2001 ack 11
         > [P.] seq 11 ack 1 \"x\"
         < [.] seq 2001 ack 12",
    );
}
