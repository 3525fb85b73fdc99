//! SYN cookies (RFC 4987, section 3.6).

use barewire_tcp::config::WhenFull;

use crate::trace::Trace;

fn always() -> Trace {
    Trace::lines_with(|config| config.half_open = 0)
}

#[test]
fn a_cookie_opens_a_connection_that_was_never_half_open() {
    always().run(
        "> [S] seq 0 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 8192 <mss 1460,wscale 0,sackOK>
         ? syncookies_sent 1
         ? connections 0
         > [.] seq 1 ack 1
         ? syncookies_recv 1
         ? established 1
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"",
    );
}

#[test]
fn data_and_a_fin_may_come_with_the_cookie() {
    always().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1 <mss 1460>
         > [FP.] seq 1 ack 1 \"hello\\n\"
         < [F.] seq 1 ack 8 \"hello\\n\"
         > [.] seq 8 ack 8
         ? connections 0",
    );
}

#[test]
fn segment_size_and_scale_survive() {
    always().run(
        "> [S] seq 0 win 10 <mss 1200,wscale 5>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 100 \"send 1500\\n\"
         < [.] seq 1 ack 11 len 1200
         < [P.] seq 1201 ack 11 len 300",
    );
}

#[test]
fn a_tiny_segment_size_survives() {
    let always = Trace::lines_with(|config| {
        config.half_open = 0;
        config.mss_min = 48;
    });
    { always }.run(
        "> [S] seq 0 win 64000 <mss 50>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 64000 \"send 60\\n\"
         < [.] seq 1 ack 9 len 48
         < [P.] seq 49 ack 9 len 12",
    );
}

#[test]
fn selective_acknowledgment_survives() {
    always().run(
        "> [S] seq 0 <mss 1460,sackOK>
         < [S.] seq 0 ack 1
         > [.] seq 1 ack 1
         > [P.] seq 7 ack 1 \"world\\n\"
         < [.] seq 1 ack 1 <sack>
         2> [S] seq 0 <mss 1460>
         2< [S.] seq 0 ack 1 <mss 1460>
         2> [.] seq 1 ack 1
         2> [P.] seq 7 ack 1 \"world\\n\"
         2< [.] seq 1 ack 1 <>",
    );
}

#[test]
fn cookies_begin_where_half_open_connections_end() {
    Trace::lines_with(|config| config.half_open = 1).run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         ? syncookies_sent 0
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         ? syncookies_sent 1
         ? syn_received 1
         > [.] seq 1 ack 1
         2> [.] seq 1 ack 1
         ? established 2
         3> [S] seq 0
         3< [S.] seq 0 ack 1
         ? syncookies_sent 1",
    );
}

#[test]
fn a_made_up_cookie_is_refused() {
    always().run(
        "> [.] seq 1 ack 4711
         < [R] seq 4711
         ? syncookies_failed 1
         # off by one
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         2> [.] seq 1 ack 2
         2< [R] seq 2
         ? syncookies_failed 2
         ? connections 0",
    );
}

#[test]
fn what_overtakes_the_cookie_waits_for_it() {
    // It acknowledges the cookie as well, but does not say what the peer's first number was.
    always().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [P.] seq 7 ack 1 \"world\\n\"
         ? syncookies_early 1
         ? out_rsts 0
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         > [P.] seq 7 ack 1 \"world\\n\"
         < [P.] seq 7 ack 13 \"world\\n\"",
    );
}

#[test]
fn copies_of_a_syn_get_the_same_answer_whether_cookies_are_needed_or_not() {
    let mut trace = Trace::lines_with(|config| config.half_open = 1);
    trace.run(
        "2> [S] seq 0
         2< [S.] seq 0 ack 1
         > [S] seq 0
         < [S.] seq 0 ack 1
         ? syncookies_sent 1
         2> [.] seq 1 ack 1",
    );
    let cookie = trace.isn();
    trace.run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         ? syncookies_sent 1
         ? syn_received 1",
    );
    assert_eq!(trace.isn(), cookie);
}

#[test]
fn an_old_cookie_is_refused() {
    always().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         +128s
         > [.] seq 1 ack 1
         < [R] seq 1
         ? syncookies_failed 1",
    );
}

#[test]
fn acks_are_not_taken_for_cookies_while_none_are_in_use() {
    Trace::lines().run(
        "> [.] seq 1 ack 4711
         < [R] seq 4711
         ? syncookies_failed 0",
    );
}

#[test]
fn a_cookie_that_finds_no_connection_left_waits_for_one() {
    Trace::lines_with(|config| {
        config.half_open = 0;
        config.connections = 1;
        config.when_full = WhenFull::Refuse;
    })
    .run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         > [.] seq 1 ack 1
         2> [P.] seq 1 ack 1 \"hello\\n\"
         ? syncookies_overflows 1
         > [R] seq 1
         2> [P.] seq 1 ack 1 \"hello\\n\"
         2< [P.] seq 1 ack 7 \"hello\\n\"",
    );
}

#[test]
fn a_copy_of_the_first_segment_does_not_open_an_aborted_connection_again() {
    let mut trace = always();
    trace.run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"abort\\n\"
         < [R.] seq 1 ack 1
         ? syncookies_remembered 1
         > [P.] seq 1 ack 1 \"abort\\n\"
         < [R] seq 1
         ? syncookies_spent 1
         ? syncookies_recv 1
         ? connections 0
         ? time_wait 1
         +60s
         ? time_wait 0",
    );
}

#[test]
fn a_copy_of_the_first_segment_is_not_served_again_once_the_peer_has_closed() {
    always().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         > [F.] seq 7 ack 7
         < [F.] seq 7 ack 8
         > [.] seq 8 ack 8
         ? connections 0
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [R] seq 1
         ? syncookies_recv 1",
    );
}

#[test]
fn a_copy_of_the_first_segment_is_not_served_again_once_the_peer_has_reset() {
    always().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         > [R] seq 7
         ? connections 0
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [R] seq 1
         ? syncookies_recv 1",
    );
}

#[test]
fn the_port_of_an_aborted_connection_can_be_used_again() {
    // A newer SYN is of a new connection. An older one may be a copy: the peer that has no connection says so (RFC
    // 9293, section 3.5.1), and sends its SYN again.
    always().run(
        "> [S] seq 100
         < [S.] seq 0 ack 101
         > [P.] seq 101 ack 1 \"abort\\n\"
         < [R.] seq 1 ack 101
         > [S] seq 200
         < [S.] seq 0 ack 201
         > [P.] seq 201 ack 1 \"abort\\n\"
         < [R.] seq 1 ack 201
         > [S] seq 50
         < [.] seq 1 ack 201
         > [R] seq 201
         ? time_wait 0
         > [S] seq 50
         < [S.] seq 0 ack 51
         > [P.] seq 51 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 57 \"hello\\n\"",
    );
}

#[test]
fn no_record_is_left_while_no_cookies_are_in_use() {
    let mut trace = Trace::lines().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"abort\\n\"
         < [R.] seq 1 ack 1
         ? time_wait 0
         ? syncookies_remembered 0",
    );
}
