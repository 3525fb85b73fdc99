//! Connections that the shard opens: SYN-SENT (RFC 9293, sections 3.5 and 3.10.7.3).

use std::cell::Cell;
use std::sync::Arc;

use barewire_service::service::End;
use barewire_tcp::source_ports::SourcePorts;

use crate::trace::{OUR_PORT, Trace};

/// A connection that is open, whose first message is under way.
fn called(change: impl FnOnce(&mut barewire_tcp::config::StackConfig)) -> Trace {
    let mut trace = Trace::calling_with(1, change);
    trace.call().run(
        "< [S] seq 0
         > [S.] seq 0 ack 1 win 64000 <mss 1460,wscale 7,sackOK>
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
    trace
}

#[test]
fn the_service_speaks_with_the_ack_of_the_syn_ack() {
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0 win 8192 <mss 1460,wscale 0,sackOK>
         ? syn_sent 1
         ? active_opens 1
         > [S.] seq 0 ack 1 win 64000 <mss 1460,wscale 7,sackOK>
         < [P.] seq 1 ack 1 win 8192 \"hello\\n\"
         ? syn_sent 0
         ? established 1
         > [P.] seq 1 ack 7 win 500 \"again\\n\"
         < [P.] seq 7 ack 7 \"hello\\n\"
         ? passive_opens 0
         ? retrans_segs 0",
    );
}

#[test]
fn a_call_over_ipv6_is_the_same() {
    let ports = Arc::new(SourcePorts::new(1, OUR_PORT + 1..=OUR_PORT + 1, 1));
    let mut trace = Trace::calling_from(&ports, 0, true, |_| {});
    trace.call().run(
        "< [S] seq 0 win 8192 <mss 1440,wscale 0,sackOK>
         > [S.] seq 0 ack 1 win 64000 <mss 1440,wscale 7,sackOK>
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
}

#[test]
fn the_peer_needs_no_options() {
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [S.] seq 0 ack 1 win 1000
         < [P.] seq 1 ack 1 \"hello\\n\"
         ? established 1",
    );
}

#[test]
fn both_sequence_spaces_may_wrap_around() {
    let mut trace = Trace::calling(1);
    trace.peer_isn = u32::MAX;
    trace.call().run(
        "< [S] seq 0
         > [S.] seq 0 ack 1
         < [P.] seq 1 ack 1 \"hello\\n\"
         > [P.] seq 1 ack 7 \"again\\n\"
         < [P.] seq 7 ack 7 \"hello\\n\"",
    );
}

#[test]
fn the_initial_sequence_number_advances_with_the_clock() {
    // RFC 6528: one every 4 us, for the same flow.
    let mut trace = called(|_| {});
    let first = trace.isn();
    trace.run(
        "> [R] seq 1
         +2s",
    );
    assert_eq!(trace.ends(), [End::Reset]);
    trace.call().run("< [S] seq 0");
    assert_eq!(trace.isn().wrapping_sub(first), 500_000);
}

#[test]
fn an_unanswered_syn_is_sent_again_with_back_off_and_then_given_up() {
    let mut trace = Trace::calling_with(1, |config| config.deadlines.half_open_ms = 5_000);
    trace.call().run(
        "< [S] seq 0 <mss 1460,wscale 0,sackOK>
         +990ms
         +20ms
         < [S] seq 0 <mss 1460,wscale 0,sackOK>
         +1980ms
         +30ms
         < [S] seq 0 <mss 1460,wscale 0,sackOK>
         ? retrans_segs 2
         +3s
         ? attempt_fails 1
         ? half_open_timeouts 1
         ? connections 0
         ? out_rsts 0",
    );
    assert_eq!(trace.ends(), [End::Unanswered]);
}

#[test]
fn an_answer_to_a_repeated_syn_is_as_good() {
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         +1010ms
         < [S] seq 0
         > [S.] seq 0 ack 1
         < [P.] seq 1 ack 1 \"hello\\n\"
         > [S.] seq 0 ack 1
         < [.] seq 7 ack 1
         ? syn_challenge 1
         ? established 1",
    );
}

#[test]
fn a_refused_call_ends_at_once_and_its_port_is_free_again() {
    let mut trace = Trace::calling(1);
    for _ in 0..2 {
        trace.call().run(
            "< [S] seq 0
             > [R.] seq 0 ack 1
             ? connections 0",
        );
        assert_eq!(trace.ends(), [End::Refused]);
    }
    trace.run("? attempt_fails 2");
}

#[test]
fn a_reset_that_does_not_acknowledge_the_syn_is_ignored() {
    // RFC 9293, section 3.10.7.3, second; RFC 5961, section 3.2.
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [R] seq 0
         > [R.] seq 0 ack 0
         > [R.] seq 0 ack 2
         ? syn_sent_drops 3
         ? syn_sent 1
         > [S.] seq 0 ack 1
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
}

#[test]
fn an_acknowledgment_of_something_else_is_reset() {
    // Section 3.10.7.3, first: with SEG.ACK for its number, and nothing changes here.
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [.] seq 700 ack 5000
         < [R] seq 5000
         > [S.] seq 0 ack 2
         < [R] seq 2
         > [S.] seq 0 ack 0
         < [R] seq 0
         > [P.] seq 0 ack 77 \"data\"
         < [R] seq 77
         ? syn_sent 1
         > [S.] seq 0 ack 1
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
}

#[test]
fn a_peer_that_remembers_an_older_connection_is_talked_out_of_it() {
    // Figure 9 of RFC 9293: the challenge ACK, our RST, and the SYN again.
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [.] seq 300 ack 100
         < [R] seq 100
         +1010ms
         < [S] seq 0
         > [S.] seq 0 ack 1
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
}

#[test]
fn an_ack_without_a_syn_opens_nothing() {
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [.] seq 1 ack 1
         > [F.] seq 1 ack 1
         ? syn_sent 1
         ? syn_sent_drops 2",
    );
}

#[test]
fn a_simultaneous_open_is_refused() {
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [S] seq 0
         < [R.] ack 1
         ? syn_sent 1
         > [S.] seq 0 ack 1
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
}

#[test]
fn a_malformed_option_makes_an_answer_worthless() {
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [S.] seq 0 ack 1 <raw 02 03 05 b4>
         ? syn_sent_drops 1
         > [S.] seq 0 ack 1 <mss 1460>
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
}

#[test]
fn data_on_a_syn_ack_is_left_for_the_peer_to_send_again() {
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [S.] seq 0 ack 1 \"again\\n\"
         < [P.] seq 1 ack 1 \"hello\\n\"
         > [P.] seq 1 ack 7 \"again\\n\"
         < [P.] seq 7 ack 7 \"hello\\n\"",
    );
}

#[test]
fn a_copy_of_the_syn_ack_is_challenged_because_our_ack_may_be_lost() {
    let mut trace = called(|_| {});
    trace.run(
        "> [S.] seq 0 ack 1
         < [.] seq 7 ack 1
         > [S.] seq 0 ack 1
         ? challenge_acks 1
         ? challenge_acks_skipped 1
         +1010ms
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
}

#[test]
fn the_window_of_a_syn_ack_is_not_scaled() {
    // 8 bytes of window: hello fits, the second one has to wait for a later window, which is scaled.
    let mut trace = Trace::calling(1);
    trace.call().run(
        "< [S] seq 0
         > [S.] seq 0 ack 1 win 4 <mss 1460,wscale 7>
         < [.] seq 1 ack 1 \"hell\"
         > [.] seq 1 ack 5 win 1
         < [P.] seq 5 ack 1 \"o\\n\"",
    );
}

#[test]
fn what_the_peer_closes_ends_in_order_and_frees_the_port_at_once() {
    let mut trace = called(|_| {});
    trace.run(
        "> [F.] seq 1 ack 7
         < [F.] seq 7 ack 2
         > [.] seq 2 ack 8
         ? connections 0
         ? time_wait 0",
    );
    assert_eq!(trace.ends(), [End::Closed]);
    trace.call().run("< [S] seq 0");
}

#[test]
fn what_we_close_first_keeps_its_port_for_as_long_as_time_wait_lasts() {
    let mut trace = called(|config| config.time_wait_ms = 5_000);
    trace.run(
        "> [P.] seq 1 ack 7 \"bye\\n\"
         < [F.] seq 7 ack 5
         > [F.] seq 5 ack 8
         < [.] seq 8 ack 6
         ? connections 0
         ? time_wait 1",
    );
    assert_eq!(trace.ends(), [End::Closed]);
    trace.call().run("? active_opens 1");
    assert_eq!(trace.ends(), [End::NoPort]);
    trace.run("+5s\n? time_wait 0");
    trace.call().run("< [S] seq 0\n? active_opens 2");
}

#[test]
fn without_time_wait_a_port_is_free_at_once() {
    let mut trace = called(|config| config.time_wait = 0);
    trace.run(
        "> [P.] seq 1 ack 7 \"bye\\n\"
         < [F.] seq 7 ack 5
         > [F.] seq 5 ack 8
         < [.] seq 8 ack 6",
    );
    assert_eq!(trace.ends(), [End::Closed]);
    trace.call().run("< [S] seq 0");
}

#[test]
fn a_shard_that_calls_accepts_nobody() {
    let mut trace = called(|_| {});
    trace.run(
        "2> [S] seq 0
         2< [R.] seq 0 ack 1
         ? connections 1",
    );
    // Nor on a port in TIME-WAIT.
    trace.run(
        "> [P.] seq 1 ack 7 \"bye\\n\"
         < [F.] seq 7 ack 5
         > [F.] seq 5 ack 8
         < [.] seq 8 ack 6
         > [S] seq 90000
         < [R.] ack 90001
         ? time_wait 1
         ? connections 0",
    );
}

#[test]
fn an_answer_that_takes_too_long_resets_the_connection() {
    let mut trace = called(|config| config.deadlines.head_ms = 3_000);
    trace.run(
        "> [.] seq 1 ack 7
         +2990ms
         +20ms
         < [R.] seq 7 ack 1
         ? head_timeouts 1
         ? connections 0",
    );
    assert_eq!(trace.ends(), [End::Closed]);
}

#[test]
fn a_peer_that_acknowledges_nothing_any_more_is_given_up() {
    let mut trace = called(|config| {
        config.deadlines.user_timeout_ms = 2_500;
        config.deadlines.head_ms = 60_000;
    });
    trace.run(
        "+1010ms
         < [P.] seq 1 ack 1 \"hello\\n\"
         +1510ms
         < [R.] seq 7 ack 1
         ? abort_on_timeout 1",
    );
    assert_eq!(trace.ends(), [End::Silent]);
}

#[test]
fn an_idle_connection_is_called_on_when_the_service_wants() {
    let mut trace = called(|_| {});
    trace.run(
        "> [P.] seq 1 ack 7 \"wait\\n\"
         < [.] seq 7 ack 6",
    );
    trace.call_idle().run(
        "< [P.] seq 7 ack 6 \"ping\\n\"
         > [.] seq 6 ack 12",
    );
    // It waits for an answer now, and nobody else is idle.
    trace.call_idle().run("? established 1");
}

#[test]
fn there_are_no_more_connections_than_ports() {
    let mut trace = Trace::calling(2);
    trace.call().run("1< [S] seq 0");
    trace.call().run("2< [S] seq 0");
    trace.call().run("? syn_sent 2");
    assert_eq!(trace.ends(), [End::NoPort]);
}

#[test]
fn there_are_no_more_connections_than_the_shard_has() {
    let mut trace = Trace::calling_with(2, |config| config.connections = 1);
    trace.call().run("< [S] seq 0");
    trace.call().run("? syn_sent 1");
    assert_eq!(trace.ends(), [End::NoConnection]);
}

#[test]
fn draining_hangs_up_on_calls_and_closes_what_is_idle() {
    let mut trace = called(|_| {});
    trace.run(
        "> [P.] seq 1 ack 7 \"wait\\n\"
         < [.] seq 7 ack 6",
    );
    trace.drain();
    trace.run("< [F.] seq 7 ack 6\n? closing 1");
    trace.call().run("? active_opens 1");

    let mut trace = Trace::calling(1);
    trace.call().run("< [S] seq 0");
    trace.drain();
    trace.run("? connections 0\n? out_rsts 0");
    assert_eq!(trace.ends(), [End::Closed]);
}

/// Two shards that call from the same ports; the first one calls.
fn two_shards() -> [Trace; 2] {
    let ports = Arc::new(SourcePorts::new(1, OUR_PORT + 1..=OUR_PORT + 1, 2));
    let made = Cell::new(0);
    let [mut first, second] = Trace::sharing(|| {
        let shard = made.replace(made.get() + 1);
        Trace::calling_from(&ports, shard, false, |config| {
            config.unknown_flow = barewire_tcp::config::UnknownFlow::for_shards(2);
        })
    });
    first.call().run("< [S] seq 0");
    [first, second]
}

#[test]
fn the_shard_that_gets_the_answer_goes_on_with_the_connection() {
    let [mut first, mut second] = two_shards();
    second.know_isn_of(&first);
    second.run(
        "> [S.] seq 0 ack 1 win 64000 <mss 1460,wscale 7,sackOK>
         < [P.] seq 1 ack 1 \"hello\\n\"
         ? handovers 1
         ? established 1
         ? active_opens 0
         > [P.] seq 1 ack 7 win 500 \"again\\n\"
         < [P.] seq 7 ack 7 \"hello\\n\"
         ? retrans_segs 0",
    );
    first.run("+1ms\n? connections 0\n? attempt_fails 0\n+10s\n? retrans_segs 0");
    assert_eq!(first.ends(), [End::HandedOver]);
    second.run(
        "> [F.] seq 7 ack 13
         < [F.] seq 13 ack 8
         > [.] seq 8 ack 14",
    );
    assert_eq!(second.ends(), [End::Closed]);
    first.call().run("< [S] seq 0");
}

#[test]
fn a_refusal_at_another_shard_ends_the_call() {
    let [mut first, mut second] = two_shards();
    second.know_isn_of(&first);
    second.run("> [R.] seq 0 ack 2\n? syn_sent_drops 1\n> [R.] seq 0 ack 1");
    first.run("+1ms\n? attempt_fails 1\n? connections 0");
    assert_eq!((first.ends(), second.ends()), (vec![End::Refused], vec![]));
    first.call().run("< [S] seq 0");
}

#[test]
fn another_shard_judges_answers_as_the_caller_does() {
    let [mut first, mut second] = two_shards();
    second.know_isn_of(&first);
    second.run(
        "> [S.] seq 0 ack 2
         < [R] seq 2
         > [.] seq 500 ack 900
         < [R] seq 900
         > [.] seq 1 ack 1
         ? connections 0",
    );
    first.run(
        "> [S.] seq 0 ack 1
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
    // A copy of what is taken is the caller's business.
    second.run(
        "> [S.] seq 0 ack 1
         ? unknown_flow_elsewhere 1
         ? handovers 0",
    );
}

#[test]
fn a_response_that_arrives_at_another_shard_finds_its_connection() {
    let [mut first, mut second] = two_shards();
    first.run(
        "> [S.] seq 0 ack 1 win 64000 <mss 1460,wscale 7,sackOK>
         < [P.] seq 1 ack 1 \"hello\\n\"",
    );
    second.know_isn_of(&first);
    // The kernel chooses another hash for what it repeats (sk_rethink_txhash), and a veth pair another queue by it.
    second.run("> [P.] seq 1 ack 7 win 500 \"again\\n\"\n? unknown_flow_elsewhere 1");
    first.run(
        "< [P.] seq 7 ack 7 \"hello\\n\"
         ? forwarded 1",
    );
}
