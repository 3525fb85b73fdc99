//! The end of a connection, from both sides (RFC 9293, section 3.6).

use crate::trace::{Trace, on_sockets};

#[test]
fn the_peer_closes_first() {
    // CLOSE-WAIT, LAST-ACK.
    Trace::echo().established().run(
        "> [F.] seq 1 ack 1
         < [F.] seq 1 ack 2
         ? closing 1
         > [.] seq 2 ack 2
         ? connections 0
         ? time_wait 0",
    );
}

#[test]
fn we_close_first() {
    // FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT.
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         ? closing 1
         > [.] seq 7 ack 6
         ? closing 1
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         ? connections 0
         ? time_wait 1
         ? tw 1",
    );
}

#[test]
fn we_close_first_and_the_peer_acknowledges_with_its_fin() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         ? time_wait 1",
    );
}

#[test]
fn both_close_at_once() {
    // FIN-WAIT-1, CLOSING, TIME-WAIT.
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [F.] seq 7 ack 1
         < [.] seq 6 ack 8
         ? closing 1
         > [.] seq 8 ack 6
         ? connections 0
         ? time_wait 1",
    );
}

#[test]
fn a_half_closed_peer_gets_all_of_its_reply() {
    Trace::lines_with(on_sockets).established().run(
        "> [FP.] seq 1 ack 1 \"send 3000\\n\"
         < [.] seq 1 ack 12 len 1460
         < [.] seq 1461 ack 12 len 588
         > [.] seq 12 ack 2049
         < [F.] seq 2049 ack 12 len 952
         > [.] seq 12 ack 3002
         ? connections 0",
    );
}

#[test]
fn a_fin_ends_a_message_that_is_not_whole() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"hel\"
         < [.] seq 1 ack 4
         > [F.] seq 4 ack 1
         < [F.] seq 1 ack 5
         > [.] seq 5 ack 2
         ? connections 0",
    );
}

#[test]
fn a_fin_that_comes_before_its_data_waits_for_it() {
    Trace::echo().established().run(
        "> [FP.] seq 11 ack 1 len 10
         < [.] seq 1 ack 1 <sack>
         > [P.] seq 1 ack 1 len 10
         < [.] seq 1 ack 21
         < [P.] seq 1 ack 21 len 20
         > [F.] seq 21 ack 21
         < [F.] seq 21 ack 22",
    );
}

#[test]
fn a_repeated_fin_is_acknowledged_again() {
    Trace::echo().established().run(
        "> [F.] seq 1 ack 1
         < [F.] seq 1 ack 2
         > [F.] seq 1 ack 1
         < [.] seq 2 ack 2
         > [.] seq 2 ack 2
         ? connections 0",
    );
}

#[test]
fn what_arrives_after_we_have_closed_is_acknowledged_and_thrown_away() {
    // So that the peer reads the reply, and not a reset.
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"close\\nmore\"
         < [F.] seq 1 ack 11 \"bye\\n\"
         > [P.] seq 11 ack 1 len 1000
         < [.] seq 6 ack 1011
         > [P.] seq 1011 ack 6 len 1000
         < [.] seq 6 ack 2011 win 8192
         > [F.] seq 2011 ack 6
         < [.] seq 6 ack 2012
         ? time_wait 1",
    );
}

#[test]
fn a_lost_fin_is_sent_again_with_back_off() {
    Trace::lines_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [.] seq 7 ack 5
         +1050ms
         < [F.] seq 5 ack 7
         +1950ms
         +100ms
         < [F.] seq 5 ack 7
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         ? time_wait 1",
    );
}

#[test]
fn three_duplicate_acks_do_not_stop_a_lost_fin() {
    // smoltcp would take them for lost data, find none, and never send the FIN again.
    Trace::lines_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [.] seq 7 ack 5
         > [.] seq 7 ack 5
         > [.] seq 7 ack 5
         > [.] seq 7 ack 5
         ? ack_nothing_new 3
         +1100ms
         < [F.] seq 5 ack 7
         > [.] seq 7 ack 6
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         ? time_wait 1",
    );
}

#[test]
fn a_reset_ends_every_state() {
    for (state, before, next) in [
        ("ESTABLISHED", "", 1),
        ("LAST-ACK", "> [F.] seq 1 ack 1\n< [F.] seq 1 ack 2", 2),
        (
            "FIN-WAIT-1",
            "> [P.] seq 1 ack 1 \"close\\n\"\n< [F.] seq 1 ack 7 \"bye\\n\"",
            7,
        ),
        (
            "FIN-WAIT-2",
            "> [P.] seq 1 ack 1 \"close\\n\"\n< [F.] seq 1 ack 7 \"bye\\n\"\n> [.] seq 7 ack 6",
            7,
        ),
        (
            "CLOSING",
            "> [P.] seq 1 ack 1 \"close\\n\"\n< [F.] seq 1 ack 7 \"bye\\n\"
             > [F.] seq 7 ack 1\n< [.] seq 6 ack 8",
            8,
        ),
    ] {
        println!("{state}");
        Trace::lines().established().run(before).run(&format!(
            "? connections 1
             > [R] seq {next}
             ? estab_resets 1
             ? connections 0
             ? time_wait 0"
        ));
    }
}

#[test]
fn a_service_can_reset() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"a\\nabort\\n\"
         < [R.] seq 1 ack 1
         ? aborts 1
         ? out_rsts 1
         ? connections 0",
    );
}

#[test]
fn draining_closes_the_idle_and_lets_the_others_finish() {
    let mut trace = Trace::lines().established();
    trace.run(
        "2> [S] seq 0
         2< [S.] seq 0 ack 1
         2> [P.] seq 1 ack 1 \"hel\"
         2< [.] seq 1 ack 4
         # a handshake that is not complete yet
         4> [S] seq 0
         4< [S.] seq 0 ack 1",
    );
    trace.drain();
    trace.run(
        "< [F.] seq 1 ack 1
         > [.] seq 1 ack 2
         > [F.] seq 1 ack 2
         < [.] seq 2 ack 2
         2> [P.] seq 4 ack 1 \"lo\\n\"
         2< [F.] seq 1 ack 7 \"hello\\n\"
         2> [F.] seq 7 ack 8
         2< [.] seq 8 ack 8
         4> [.] seq 1 ack 1
         4< [F.] seq 1 ack 1
         4> [F.] seq 1 ack 2
         4< [.] seq 2 ack 2
         3> [S] seq 0
         ? listen_drops_draining 1
         ? connections 0",
    );
    assert_eq!(trace.shard().connections(), 0);
}

#[test]
fn an_ack_behind_a_fin_without_room_lies_within_the_window() {
    // RFC 9293, section 3.10.7.4: beyond it the peer would drop the acknowledgment.
    Trace::lines().run(
        "> [S] seq 0 <mss 1460>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 4 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [P.] seq 1 ack 1 win 4 \"close\\n\"
         < [.] seq 5 ack 7",
    );
}
