//! What happens when something is full.

use crate::trace::{Trace, on_sockets};

#[test]
fn past_the_limit_syns_are_dropped_and_connections_live_on() {
    Trace::echo_with(|config| config.connections = 2).run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         > [.] seq 1 ack 1
         2> [.] seq 1 ack 1
         3> [S] seq 0
         3> [S] seq 0
         ? listen_overflows 2
         > [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         2> [F.] seq 1 ack 1
         2< [F.] seq 1 ack 2
         2> [.] seq 2 ack 2
         3> [S] seq 0
         3< [S.] seq 0 ack 1",
    );
}

#[test]
fn more_islands_than_can_be_kept_are_sent_again_by_the_peer() {
    let mut trace = Trace::echo_with(on_sockets).established();
    // 32 islands of one byte with one byte of water between them.
    for island in 0..32 {
        trace.run(&format!(
            "> [.] seq {} ack 1 len 1
             < [.] seq 1 ack 1 <sack>",
            2 + 2 * island
        ));
    }
    trace.run(
        "> [.] seq 200 ack 1 len 1
         > [.] seq 1 ack 1 len 3
         < [.] seq 1 ack 5 <sack>
         < [P.] seq 1 ack 5 len 4",
    );
}

#[test]
fn what_finds_no_slot_waits_for_one() {
    Trace::lines_over(2).run(
        "> [S] seq 0 <mss 536>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 536
         < [.] seq 537 ack 11 len 536
         < [.] seq 1073 ack 11 len 536
         < [P.] seq 1609 ack 11 len 392
         > [.] seq 11 ack 2001
         > [P.] seq 11 ack 2001 \"close\\n\"
         < [F.] seq 2001 ack 17 \"bye\\n\"
         > [F.] seq 17 ack 2006
         < [.] seq 2006 ack 18
         ? time_wait 1",
    );
}

#[test]
fn a_segment_that_could_not_be_answered_is_dropped_and_comes_again() {
    let mut trace = Trace::lines_over(2).established();
    for (seq, line) in [(1, b"a\n"), (3, b"b\n"), (5, b"c\n")] {
        let segment = trace.segment(1, seq, 1, line);
        trace.push([&segment[..]]);
    }
    trace.run(
        "< [P.] seq 1 ack 3 \"a\\n\"
         < [P.] seq 3 ack 5 \"b\\n\"
         ? rx_dropped_no_slot 1
         > [P.] seq 5 ack 5 \"c\\n\"
         < [P.] seq 5 ack 7 \"c\\n\"",
    );
}

#[test]
fn one_connection_does_not_hold_up_the_batch() {
    let mut trace = Trace::lines_with(|config| config.mss_min = 48);
    trace.run(
        "> [S] seq 0 <mss 48>
         < [S.] seq 0 ack 1
         > [.] seq 1 ack 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         2> [.] seq 1 ack 1",
    );
    let greedy = trace.segment(1, 1, 1, b"send 2000\n");
    let modest = trace.segment(2, 1, 1, b"hello\n");
    trace.push([&greedy[..], &modest[..]]);
    let segments = |range: std::ops::Range<u32>| {
        let line = |segment| format!("< [.] seq {} ack 11 len 48\n", 1 + 48 * segment);
        range.map(line).collect::<String>()
    };
    trace.run(&format!(
        "{}2< [P.] seq 1 ack 7 \"hello\\n\"\n{}< [P.] seq 1969 ack 11 len 32",
        segments(0..16),
        segments(16..41),
    ));
}
