//! Timestamps (RFC 7323, sections 3 to 5; RFC 6191).

use barewire_tcp::config::StackConfig;

use crate::trace::Trace;

fn wanted(config: &mut StackConfig) {
    config.timestamps = true;
}

/// A connection whose peer's clock was last seen at 101.
fn established() -> Trace {
    let mut trace = Trace::lines_with(wanted);
    trace.run(
        "> [S] seq 0 win 64000 <mss 1460,sackOK,ts 100,nop,wscale 7>
         < [S.] seq 0 ack 1 <mss 1460,wscale 0,sackOK,ts 0:100>
         > [.] seq 1 ack 1 win 500 <ts 101>",
    );
    trace
}

#[test]
fn every_segment_has_them_if_both_sides_do() {
    established().run(
        "+5ms
         > [P.] seq 1 ack 1 <ts 106:0> \"hello\\n\"
         < [P.] seq 1 ack 7 <ts 5:106> \"hello\\n\"
         > [P.] seq 7 ack 7 <ts 107:5> \"body 6\\n\"
         < [.] seq 7 ack 14 <ts 5:107>
         > [P.] seq 14 ack 7 <ts 108:5> \"close\\n\"
         < [P.] seq 7 ack 20 <ts 5:108> \"ok\\n\"
         > [P.] seq 20 ack 10 <ts 109:5> \"close\\n\"
         < [F.] seq 10 ack 26 <ts 5:109> \"bye\\n\"
         > [F.] seq 26 ack 15 <ts 110:5>
         < [.] seq 15 ack 27 <ts 5:110>
         # TIME-WAIT
         > [F.] seq 26 ack 15 <ts 111:5>
         < [.] seq 15 ack 27 <ts 5:110>",
    );
}

#[test]
fn none_are_given_to_peers_that_do_not_offer_them() {
    Trace::lines_with(wanted).run(
        "> [S] seq 0 <mss 1460,sackOK>
         < [S.] seq 0 ack 1 <mss 1460,sackOK>
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 <> \"hello\\n\"",
    );
}

#[test]
fn none_are_given_unless_that_is_configured() {
    Trace::lines().run(
        "> [S] seq 0 <mss 1460,ts 100>
         < [S.] seq 0 ack 1 <mss 1460>
         > [P.] seq 1 ack 1 <ts 101> \"hello\\n\"
         < [P.] seq 1 ack 7 <> \"hello\\n\"
         # Without an agreement their order means nothing.
         > [P.] seq 7 ack 7 <ts 99> \"hello\\n\"
         < [P.] seq 7 ack 13 <> \"hello\\n\"",
    );
}

#[test]
fn they_take_twelve_bytes_of_a_segment() {
    established().run(
        "> [P.] seq 1 ack 1 win 500 <ts 102> \"send 1500\\n\"
         < [.] seq 1 ack 11 <ts 0:102> len 1448
         < [P.] seq 1449 ack 11 <ts 0:102> len 52",
    );
}

#[test]
fn a_segment_from_the_past_is_answered_and_dropped() {
    // RFC 7323, section 5.3, R1. Its numbers would do.
    established().run(
        "> [P.] seq 1 ack 1 <ts 102> \"hello\\n\"
         < [P.] seq 1 ack 7 <ts 0:102> \"hello\\n\"
         > [P.] seq 7 ack 7 <ts 100> \"close\\n\"
         < [.] seq 7 ack 7 <ts 0:102>
         ? paws_estab 1
         > [P.] seq 7 ack 7 <ts 102> \"hello\\n\"
         < [P.] seq 7 ack 13 <ts 0:102> \"hello\\n\"",
    );
}

#[test]
fn an_rst_from_the_past_is_taken() {
    established().run(
        "> [R] seq 1 <ts 1>
         ? estab_resets 1
         ? connections 0",
    );
}

#[test]
fn the_clock_goes_on_where_it_wraps_around() {
    Trace::lines_with(wanted).run(
        "> [S] seq 0 <mss 1460,ts 4294967290>
         < [S.] seq 0 ack 1 <mss 1460,ts 0:4294967290>
         > [.] seq 1 ack 1 <ts 4294967295>
         > [P.] seq 1 ack 1 <ts 3> \"hello\\n\"
         < [P.] seq 1 ack 7 <ts 0:3> \"hello\\n\"
         > [P.] seq 7 ack 7 <ts 4294967295> \"close\\n\"
         < [.] seq 7 ack 7 <ts 0:3>
         ? paws_estab 1",
    );
}

#[test]
fn a_forged_segment_does_not_set_the_clock() {
    // Behind the window, before it, and with an acknowledgment of what was never sent.
    established().run(
        "> [P.] seq 100001 ack 1 <ts 1000000> \"x\"
         < [.] seq 1 ack 1 <ts 0:101>
         +1s
         > [P.] seq -100000 ack 1 <ts 1000000> \"x\"
         < [.] seq 1 ack 1 <ts 1000:101>
         +1s
         > [.] seq 1 ack 100000 <ts 1000000>
         < [.] seq 1 ack 1 <ts 2000:101>
         > [P.] seq 1 ack 1 <ts 2101> \"hello\\n\"
         < [P.] seq 1 ack 7 <ts 2000:2101> \"hello\\n\"",
    );
}

#[test]
fn what_lies_behind_a_gap_does_not_set_the_clock() {
    // Section 4.3: the echo is that of the segment before the gap, so that the peer's estimate includes the loss.
    Trace::lines_with(wanted).run(
        "> [S] seq 0 <mss 1460,ts 100>
         < [S.] seq 0 ack 1 <mss 1460,ts 0:100>
         > [.] seq 1 ack 1 <ts 101>
         > [P.] seq 7 ack 1 <ts 102> \"world\\n\"
         < [.] seq 1 ack 1 <ts 0:101>",
    );
}

#[test]
fn a_segment_without_them_is_taken() {
    established().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 <ts 0:101> \"hello\\n\"",
    );
}

#[test]
fn they_survive_a_cookie() {
    let mut trace = Trace::lines_with(|config| {
        config.half_open = 0;
        config.timestamps = true;
    });
    trace.run(
        "> [S] seq 0 <mss 1460,sackOK,ts 100>
         < [S.] seq 0 ack 1 <mss 1460,sackOK,ts 0:100>
         > [.] seq 1 ack 1 <ts 101:0>
         > [P.] seq 1 ack 1 <ts 102:0> \"send 1500\\n\"
         < [.] seq 1 ack 11 <ts 0:102> len 1448
         < [P.] seq 1449 ack 11 <ts 0:102> len 52
         2> [S] seq 0 <mss 1460,sackOK>
         2< [S.] seq 0 ack 1 <mss 1460,sackOK>
         2> [P.] seq 1 ack 1 \"hello\\n\"
         2< [P.] seq 1 ack 7 <> \"hello\\n\"",
    );
}

#[test]
fn a_repeated_syn_is_answered_with_its_own_time() {
    Trace::lines_with(wanted).run(
        "> [S] seq 0 <mss 1460,ts 100>
         < [S.] seq 0 ack 1 <mss 1460,ts 0:100>
         > [S] seq 0 <mss 1460,ts 200>
         < [S.] seq 0 ack 1 <mss 1460,ts 0:200>",
    );
}

#[test]
fn a_connection_that_smoltcp_has_keeps_them() {
    // Urgent data.
    established().run(
        "> [P.U] seq 1 ack 1 <ts 102> \"hello\\n\"
         < [P.] seq 1 ack 7 <ts 0:102> \"hello\\n\"
         > [P.U] seq 7 ack 7 <ts 103> \"hello\\n\"
         < [P.] seq 7 ack 13 <ts 0:103> \"hello\\n\"
         > [P.] seq 13 ack 13 <ts 90> \"close\\n\"
         < [.] seq 13 ack 13 <ts 0:103>
         ? paws_estab 1",
    );
}

#[test]
fn a_newer_time_begins_a_new_connection_in_time_wait() {
    // RFC 6191, section 2: the sequence number is not newer.
    established().run(
        "> [P.] seq 1 ack 1 <ts 102> \"close\\n\"
         < [F.] seq 1 ack 7 <ts 0:102> \"bye\\n\"
         > [F.] seq 7 ack 6 <ts 103>
         < [.] seq 6 ack 8 <ts 0:103>
         > [S] seq 2 <mss 1460,ts 103>
         < [.] seq 6 ack 8 <ts 0:103>
         > [S] seq 2 <mss 1460,ts 104>
         < [S.] seq 0 ack 3 <mss 1460,ts 0:104>
         ? tw_recycled 1",
    );
}
