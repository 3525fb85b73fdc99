//! Several shards with the same addresses and ports: a flow may change from one to the other at any time,
//! because its peer has re-hashed it, or the NIC's table was changed.

use barewire_service::time::Duration;

use crate::trace::Trace;

const HANDSHAKE: &str = "
    > [S] seq 0 win 64000 <mss 1460>
    < [S.] seq 0 ack 1
    > [.] seq 1 ack 1 win 64000";

#[test]
fn a_connection_that_lives_elsewhere_is_not_reset() {
    let [mut one, mut other] = Trace::sharing(Trace::echo);
    one.run(HANDSHAKE);
    other.know_isn_of(&one);
    other.run(
        "> [P.] seq 1 ack 1 \"hello\"
         ? unknown_flow_elsewhere 1
         ? forward_drops 0
         ? out_rsts 0",
    );
    // It goes on where it is.
    one.run(
        "< [P.] seq 1 ack 6 \"hello\"
         ? forwarded 1",
    );
    other.run("> [.] seq 6 ack 6");
    one.run(
        "+60s
         ? forwarded 2
         > [P.] seq 6 ack 6 \"again\"
         < [P.] seq 6 ack 11 \"again\"",
    );
}

#[test]
fn a_reset_finds_its_connection_wherever_it_arrives() {
    let [mut one, mut other] = Trace::sharing(Trace::echo);
    one.run(HANDSHAKE);
    other.know_isn_of(&one);
    other.run("> [R] seq 1");
    one.run(
        "? connections 0
         ? estab_resets 1",
    );
}

#[test]
fn a_shard_that_takes_no_more_is_not_waited_for() {
    let [mut one, mut other] = Trace::sharing(Trace::echo);
    one.run(HANDSHAKE);
    other.know_isn_of(&one);
    let segment = other.segment(1, 1, 1, b"hello");
    for _ in 0..300 {
        other.push([&segment[..]]);
    }
    other.run(
        "? unknown_flow_elsewhere 300
         ? forward_drops 44
         ? out_rsts 0",
    );
    one.ignore(Duration::from_millis(1));
    one.run("? forwarded 256");
}

#[test]
fn a_connection_that_died_is_reset_by_whichever_shard_hears_of_it() {
    let [mut one, mut other] = Trace::sharing(Trace::echo);
    // From before a restart.
    other.run(
        "2> [P.] seq 5 ack 77 \"hello\"
         2< [R] seq 77",
    );
    // Ended a moment ago.
    one.run(HANDSHAKE);
    one.run(
        "> [R] seq 1
         ? connections 0",
    );
    other.know_isn_of(&one);
    other.run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [R] seq 1
         ? unknown_flow_elsewhere 0",
    );
}

#[test]
fn time_wait_is_known_elsewhere_until_it_is_over() {
    let [mut one, mut other] = Trace::sharing(Trace::lines);
    one.run(HANDSHAKE);
    one.run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         ? time_wait 1",
    );
    other.know_isn_of(&one);
    other.run(
        "> [F.] seq 7 ack 6
         ? unknown_flow_elsewhere 1",
    );
    one.run(
        "< [.] seq 6 ack 8
         +61s
         ? time_wait 0",
    );
    other.run(
        "> [F.] seq 7 ack 6
         < [R] seq 6",
    );
}

#[test]
fn a_cookie_is_good_at_every_shard() {
    // One is flooded and answers with a cookie; what brings it back arrives at the other, which is not.
    let [mut one, mut other] = Trace::sharing(|| Trace::lines_with(|config| config.half_open = 1));
    one.run(
        "2> [S] seq 0
         2< [S.] seq 0 ack 1
         > [S] seq 0 win 64000 <mss 1200,wscale 7,sackOK>
         < [S.] seq 0 ack 1
         ? syncookies_sent 1",
    );
    other.know_isn_of(&one);
    other.run(
        "> [P.] seq 1 ack 1 win 500 \"send 1300\\n\"
         < [.] seq 1 ack 11 len 1200
         < [P.] seq 1201 ack 11 len 100
         ? syncookies_recv 1
         ? out_rsts 0",
    );
}
