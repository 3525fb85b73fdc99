//! TIME-WAIT as a record (RFC 9293, section 3.6.1; RFC 1337; RFC 6191).

use crate::trace::Trace;

const CLOSE: &str = "> [P.] seq 1 ack 1 \"close\\n\"
                     < [F.] seq 1 ack 7 \"bye\\n\"
                     > [F.] seq 7 ack 6
                     < [.] seq 6 ack 8
                     ? connections 0
                     ? time_wait 1";

fn in_time_wait() -> Trace {
    let mut trace = Trace::lines().established();
    trace.run(CLOSE);
    trace
}

#[test]
fn it_lasts_two_segment_lifetimes() {
    in_time_wait().run(
        "+59990ms
         ? time_wait 1
         +20ms
         ? time_wait 0
         > [.] seq 8 ack 6
         < [R] seq 6",
    );
}

#[test]
fn a_repeated_fin_is_acknowledged_and_starts_the_wait_again() {
    in_time_wait().run(
        "+50s
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         ? tw_acks 1
         +50s
         ? time_wait 1
         +11s
         ? time_wait 0",
    );
}

#[test]
fn an_ack_that_says_nothing_new_gets_no_answer() {
    in_time_wait().run(
        "> [.] seq 8 ack 6
         ? tw_acks 0",
    );
}

#[test]
fn stray_data_is_acknowledged() {
    in_time_wait().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [.] seq 6 ack 8
         > [P.] seq 8 ack 6 \"more\"
         < [.] seq 6 ack 8
         > [.] seq 7 ack 6
         < [.] seq 6 ack 8",
    );
}

#[test]
fn acks_are_rate_limited() {
    let mut trace = Trace::lines_with(|config| config.time_wait_acks_per_second = 1).established();
    trace.run(CLOSE).run(
        "> [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         > [F.] seq 7 ack 6
         ? tw_acks_skipped 1",
    );
}

#[test]
fn a_reset_does_not_end_it() {
    // RFC 1337, section 3.
    in_time_wait().run(
        "> [R] seq 8
         ? tw_rsts_ignored 1
         ? time_wait 1",
    );
}

#[test]
fn a_newer_syn_begins_a_new_connection() {
    in_time_wait().run(
        "> [S] seq 9
         < [S.] seq 0 ack 10
         ? tw_recycled 1
         ? time_wait 0
         > [P.] seq 10 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 16 \"hello\\n\"",
    );
}

#[test]
fn the_new_connection_has_sequence_numbers_beyond_the_old() {
    // Our clock has hardly moved on, but the old connection has sent something.
    let mut trace = in_time_wait();
    let old = trace.isn();
    trace.run(
        "> [S] seq 9
         < [S.] seq 0 ack 10",
    );
    let distance = trace.isn().wrapping_sub(old.wrapping_add(6));
    assert!((1 << 16..1 << 31).contains(&distance), "{distance}");
}

#[test]
fn an_older_syn_is_acknowledged() {
    in_time_wait().run(
        "> [S] seq 5
         < [.] seq 6 ack 8
         ? time_wait 1",
    );
}

#[test]
fn a_newer_syn_may_be_answered_with_a_cookie() {
    let mut trace = Trace::lines_with(|config| config.half_open = 0).established();
    trace.run(CLOSE).run(
        "> [S] seq 9
         < [S.] seq 0 ack 10
         ? time_wait 0
         > [P.] seq 10 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 16 \"hello\\n\"",
    );
}

#[test]
fn the_oldest_gives_way_when_there_are_too_many() {
    let mut trace = Trace::lines_with(|config| config.time_wait = 1).established();
    trace.run(CLOSE).run(
        "2> [S] seq 0
         2< [S.] seq 0 ack 1
         2> [P.] seq 1 ack 1 \"close\\n\"
         2< [F.] seq 1 ack 7 \"bye\\n\"
         2> [F.] seq 7 ack 6
         2< [.] seq 6 ack 8
         ? time_wait 1
         ? time_wait_overflow 1
         > [F.] seq 7 ack 6
         < [R] seq 6
         2> [F.] seq 7 ack 6
         2< [.] seq 6 ack 8",
    );
}

#[test]
fn it_can_be_switched_off() {
    let mut trace = Trace::lines_with(|config| config.time_wait = 0).established();
    trace.run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         ? time_wait 0
         ? connections 0",
    );
}

#[test]
fn it_holds_no_connection() {
    let mut trace = Trace::lines_with(|config| config.connections = 1).established();
    trace.run(CLOSE).run(
        "2> [S] seq 0
         2< [S.] seq 0 ack 1
         2> [.] seq 1 ack 1
         ? established 1",
    );
}
