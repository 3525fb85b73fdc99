//! Segments that nobody should have sent (RFC 5961).

use crate::trace::{Trace, on_sockets};

#[test]
fn a_reset_counts_only_at_the_left_edge_of_the_window() {
    Trace::echo().established().run(
        "> [R] seq 2
         < [.] seq 1 ack 1
         ? rst_challenge 1
         ? challenge_acks 1
         > [R] seq 100000
         > [R] seq 0
         ? rst_out_of_window 2
         ? established 1
         > [R] seq 1
         ? estab_resets 1
         ? connections 0",
    );
}

#[test]
fn a_reset_with_an_ack_is_a_reset() {
    Trace::echo().established().run(
        "> [R.] seq 1 ack 1
         ? estab_resets 1
         ? connections 0",
    );
}

#[test]
fn a_syn_on_a_connection_is_challenged_wherever_it_is() {
    let mut trace = Trace::echo().established();
    for seq in [1, 500, 100_000, -100_000] {
        trace.run(&format!(
            "+1s
             > [S] seq {seq}
             < [.] seq 1 ack 1"
        ));
    }
    trace.run(
        "+1s
         > [S.] seq 1 ack 1
         < [.] seq 1 ack 1
         ? syn_challenge 5
         ? established 1",
    );
}

#[test]
fn a_peer_that_restarted_gets_through() {
    Trace::echo().established().run(
        "# it has forgotten the connection and uses its port again
         > [S] seq 700000
         < [.] seq 1 ack 1
         # which it does not know
         > [R] seq 1
         ? connections 0
         > [S] seq 700000
         < [S.] seq 0 ack 700001
         > [.] seq 700001 ack 1
         ? established 1",
    );
}

#[test]
fn an_ack_of_what_was_never_sent_is_challenged() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 win 1 \"send 1000\\n\"
         < [.] seq 1 ack 11 len 128
         # 872 bytes more are waiting, but were not sent
         > [.] seq 11 ack 1001
         < [.] seq 129 ack 11
         ? ack_unsent 1
         > [.] seq 11 ack 129
         < [P.] seq 129 ack 11 len 872",
    );
}

#[test]
fn an_ack_from_long_ago_is_challenged() {
    // Older than the largest window the peer ever offered: 64,000 bytes.
    Trace::echo().established().run(
        "> [P.] seq 1 ack -70000 \"hello\"
         < [.] seq 1 ack 1
         ? ack_too_old 1
         > [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn challenge_acks_are_rate_limited_per_connection() {
    Trace::echo().established().run(
        "> [R] seq 2
         < [.] seq 1 ack 1
         > [R] seq 2
         > [S] seq 2
         > [.] seq 1 ack 500
         ? challenge_acks 1
         ? challenge_acks_skipped 3
         +500ms
         > [R] seq 2
         < [.] seq 1 ack 1",
    );
}

#[test]
fn challenge_acks_are_rate_limited_for_all_together() {
    let mut trace = Trace::echo_with(|config| config.challenge_acks_per_second = 1);
    trace.run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         > [S] seq 9
         < [.] seq 1 ack 1
         2> [S] seq 9
         ? challenge_acks 1
         ? challenge_acks_skipped 1",
    );
}

#[test]
fn what_begins_behind_the_window_is_dropped() {
    Trace::echo().established().run(
        "> [P.] seq 8193 ack 1 \"hello\"
         < [.] seq 1 ack 1
         > [F.] seq 8193 ack 1
         > [.] seq 100000 ack 1
         ? beyond_window 3
         ? challenge_acks 1
         > [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn what_reaches_over_the_window_is_trimmed() {
    let mut trace = Trace::lines_with(|config| config.receive_buffer_bytes = 512).established();
    trace.run(
        "> [P.] seq 1 ack 1 \"body 1000\\n\"
         < [.] seq 1 ack 11 win 512
         > [P.] seq 11 ack 1 len 600
         < [.] seq 1 ack 523 win 512
         > [P.] seq 523 ack 1 len 488
         < [P.] seq 1 ack 1011 \"ok\\n\"",
    );
}

#[test]
fn a_fin_behind_the_window_does_not_count() {
    // smoltcp trims the data and believes the FIN: the stream would end too early.
    let mut trace = Trace::lines_with(|config| config.receive_buffer_bytes = 512).established();
    trace.run(
        "> [P.] seq 1 ack 1 \"body 600\\n\"
         < [.] seq 1 ack 10 win 512
         > [FP.] seq 10 ack 1 len 600
         < [.] seq 1 ack 10 win 512
         ? fin_beyond_window 1
         > [P.] seq 10 ack 1 len 512
         < [.] seq 1 ack 522
         > [FP.] seq 522 ack 1 len 88
         < [F.] seq 1 ack 611 \"ok\\n\"",
    );
}

#[test]
fn a_fin_at_the_very_edge_of_the_window_counts() {
    let mut trace = Trace::lines_with(|config| config.receive_buffer_bytes = 512).established();
    trace.run(
        "> [P.] seq 1 ack 1 \"body 512\\n\"
         < [.] seq 1 ack 10 win 512
         > [FP.] seq 10 ack 1 len 512
         < [F.] seq 1 ack 523 \"ok\\n\"
         > [.] seq 523 ack 5
         ? connections 0",
    );
}

#[test]
fn data_behind_a_fin_is_dropped() {
    Trace::lines_with(on_sockets).established().run(
        "> [FP.] seq 1 ack 1 win 0 \"a\\n\"
         < [.] seq 1 ack 4 \"a\"
         < [.] seq 1 ack 4
         > [P.] seq 4 ack 1 win 0 \"b\\n\"
         > [P.] seq 3 ack 1 win 0 \"\\nb\\n\"
         ? data_after_fin 2",
    );
}

#[test]
fn an_unknown_flow_is_reset() {
    // RFC 9293, section 3.10.7.1.
    Trace::echo().run(
        "> [.] seq 5 ack 77
         < [R] seq 77
         > [P.] seq 5 ack 77 \"hello\"
         < [R] seq 77
         > [F.] seq 5 ack 77
         < [R] seq 77
         > [R] seq 5
         > [R.] seq 5 ack 77
         ? out_rsts 3
         ? connections 0",
    );
}

#[test]
fn resets_are_rate_limited() {
    Trace::echo_with(|config| config.resets_per_second = 1).run(
        "> [.] seq 5 ack 77
         < [R] seq 77
         > [.] seq 5 ack 77
         ? rsts_skipped 1
         +1s
         > [.] seq 5 ack 77
         < [R] seq 77",
    );
}

#[test]
fn with_several_shards_an_unknown_flow_is_left_alone() {
    use barewire_tcp::config::UnknownFlow;
    assert_eq!(UnknownFlow::for_shards(1), UnknownFlow::Reset);
    Trace::echo_with(|config| config.unknown_flow = UnknownFlow::for_shards(2)).run(
        "> [.] seq 5 ack 77
         > [P.] seq 5 ack 77 \"hello\"
         ? unknown_flow_ignored 2
         > [S] seq 0
         < [S.] seq 0 ack 1",
    );
}

#[test]
fn impossible_flags_are_dropped_before_anything_looks_at_them() {
    Trace::echo().established().run(
        "> [SF.] seq 1 ack 1
         > [SR] seq 1
         > [F] seq 1
         > [P] seq 1 \"hello\"
         ? discard_tcp_flags 4
         ? established 1",
    );
}
