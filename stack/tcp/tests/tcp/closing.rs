//! The beginning and the end of connections that never have a socket (RFC 9293, sections 3.5 and 3.6).

use barewire_tcp::config::{DirectPath, StackConfig};

use crate::trace::Trace;

fn directly(config: &mut StackConfig) {
    config.direct_path = DirectPath::Always;
}

fn lines() -> Trace {
    Trace::lines_with(directly).established()
}

fn echo() -> Trace {
    Trace::echo_with(directly).established()
}

#[test]
fn a_connection_comes_and_goes_without_a_socket() {
    Trace::echo_with(directly).run(
        "> [S] seq 0 win 64000 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 8192 <mss 1460,wscale 0,sackOK>
         ? sockets 0
         > [P.] seq 1 ack 1 win 500 \"hello\"
         < [P.] seq 1 ack 6 win 8192 \"hello\"
         ? established 1
         > [F.] seq 6 ack 6 win 500
         < [F.] seq 6 ack 7
         ? closing 1
         ? sockets 0
         > [.] seq 7 ack 7 win 500
         ? connections 0
         ? time_wait 0
         ? direct_hand_overs 0",
    );
}

#[test]
fn a_syn_ack_is_repeated_without_a_socket_until_the_deadline() {
    Trace::echo_with(directly).run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         +1010ms
         < [S.] seq 0 ack 1
         +2010ms
         < [S.] seq 0 ack 1
         +4010ms
         < [S.] seq 0 ack 1
         ? sockets 0
         ? retrans_segs 3
         +3s
         ? half_open_timeouts 1
         ? connections 0",
    );
}

#[test]
fn what_comes_instead_of_the_last_ack_takes_a_socket() {
    Trace::echo_with(directly).run(
        "> [S] seq 0 <mss 1460,sackOK>
         < [S.] seq 0 ack 1
         > [P.] seq 6 ack 1 \"world\"
         < [.] seq 1 ack 1
         ? sockets 1
         > [P.] seq 1 ack 1 \"hello\"
         < [.] seq 1 ack 11
         < [P.] seq 1 ack 11 \"helloworld\"
         > [.] seq 11 ack 11
         ? sockets 0",
    );
}

#[test]
fn a_peer_that_wants_small_segments_takes_a_socket() {
    let small = |config: &mut StackConfig| {
        directly(config);
        config.mss_min = 100;
    };
    Trace::echo_with(small).run(
        "> [S] seq 0 <mss 100>
         < [S.] seq 0 ack 1
         ? sockets 0
         > [.] seq 1 ack 1
         ? sockets 1
         > [P.] seq 1 ack 1 len 150
         < [.] seq 1 ack 151 len 100
         < [P.] seq 101 ack 151 len 50",
    );
}

#[test]
fn a_fin_leaves_with_the_last_of_the_reply() {
    lines().run(
        "> [FP.] seq 1 ack 1 \"send 3000\\n\"
         < [.] seq 1 ack 12 len 1460
         < [.] seq 1461 ack 12 len 1460
         < [F.] seq 2921 ack 12 len 80
         > [.] seq 12 ack 3002
         ? connections 0
         ? direct_hand_overs 0",
    );
}

#[test]
fn a_half_closed_peer_gets_what_its_window_had_no_room_for() {
    lines().run(
        "> [.] seq 1 ack 1 win 8
         > [FP.] seq 1 ack 1 win 8 \"send 3000\\n\"
         < [.] seq 1 ack 12 len 1024
         > [.] seq 12 ack 1025 win 500
         < [.] seq 1025 ack 12 len 1460
         < [F.] seq 2485 ack 12 len 516
         > [.] seq 12 ack 3002 win 500
         ? connections 0
         ? sockets 0",
    );
}

#[test]
fn a_lost_fin_is_sent_again_by_itself() {
    lines().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         +1ms
         > [.] seq 7 ack 5
         > [.] seq 7 ack 5
         > [.] seq 7 ack 5
         > [.] seq 7 ack 5
         +190ms
         +20ms
         < [F.] seq 5 ack 7
         +390ms
         +20ms
         < [F.] seq 5 ack 7
         ? retrans_segs 2
         > [.] seq 7 ack 6
         +1s
         > [F.] seq 7 ack 6
         < [.] seq 6 ack 8
         ? time_wait 1
         ? sockets 0",
    );
}

#[test]
fn the_last_segment_is_sent_again_with_its_fin() {
    lines().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         +1ms
         > [P.] seq 7 ack 7 \"close\\n\"
         < [F.] seq 7 ack 13 \"bye\\n\"
         +40ms
         +10ms
         < [F.] seq 7 ack 13 \"bye\\n\"
         > [F.] seq 13 ack 12
         < [.] seq 12 ack 14
         ? time_wait 1",
    );
}

#[test]
fn a_segment_that_is_missing_before_the_fin_is_found_by_the_sack_of_the_fin() {
    lines().run(
        "> [P.] seq 1 ack 1 \"send 5000\\nclose\\n\"
         < [.] seq 1 ack 17 len 1460
         < [.] seq 1461 ack 17 len 1460
         < [.] seq 2921 ack 17 len 1460
         < [F.] seq 4381 ack 17 len 620 \"bye\\n\"
         +5ms
         > [.] seq 17 ack 1 <sack 1461:5006>
         < [.] seq 1 ack 17 len 1460
         > [F.] seq 17 ack 5006
         < [.] seq 5006 ack 18
         ? retrans_segs 1
         ? time_wait 1",
    );
}

#[test]
fn a_fin_behind_what_the_service_has_not_taken_is_seen_after_it() {
    lines().run(
        "> [P.] seq 1 ack 1 \"hel\"
         < [.] seq 1 ack 4
         > [FP.] seq 4 ack 1 \"lo\\n\"
         < [F.] seq 1 ack 8 \"hello\\n\"
         > [.] seq 8 ack 8
         ? connections 0
         ? sockets 0",
    );
}

#[test]
fn an_ack_of_more_than_the_fin_is_not_believed() {
    lines().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [.] seq 7 ack 7
         < [.] seq 6 ack 7
         ? ack_unsent 1
         > [.] seq 7 ack 6
         ? closing 1",
    );
}

#[test]
fn data_behind_the_peers_fin_is_dropped() {
    lines().run(
        "> [.] seq 1 ack 1 win 0
         > [FP.] seq 1 ack 1 win 0 \"hello\\n\"
         < [.] seq 1 ack 8
         > [P.] seq 8 ack 1 win 0 \"more\"
         ? data_after_fin 1
         > [.] seq 8 ack 1 win 500
         < [F.] seq 1 ack 8 \"hello\\n\"
         > [.] seq 8 ack 8
         ? connections 0",
    );
}

#[test]
fn out_of_order_data_is_not_kept_once_we_have_closed() {
    lines().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [P.] seq 17 ack 6 len 10
         < [.] seq 6 ack 7
         > [P.] seq 7 ack 6 len 10
         < [.] seq 6 ack 17
         > [FP.] seq 17 ack 6 len 10
         < [.] seq 6 ack 28
         ? time_wait 1
         ? inbox_kept 0",
    );
}

#[test]
fn who_does_not_answer_our_fin_is_forgotten() {
    lines().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [.] seq 7 ack 6
         +9s
         ? closing 1
         +2s
         ? close_timeouts 1
         ? connections 0",
    );
}

#[test]
fn urgent_data_after_we_have_closed_takes_no_socket() {
    lines().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [P.U] seq 7 ack 6 \"x\"
         < [.] seq 6 ack 7
         > [FP.] seq 7 ack 6 \"x\"
         < [.] seq 6 ack 9
         ? time_wait 1
         ? sockets 0",
    );
}

#[test]
fn connections_end_as_fast_as_they_begin() {
    // More at once than there are sockets.
    let mut trace = Trace::echo_with(|config| {
        directly(config);
        config.sockets = 2;
    });
    for peer in 1..=60 {
        trace.run(&format!(
            "{peer}> [S] seq 0
             {peer}< [S.] seq 0 ack 1
             {peer}> [.] seq 1 ack 1"
        ));
    }
    for peer in 1..=60 {
        trace.run(&format!(
            "{peer}> [F.] seq 1 ack 1
             {peer}< [F.] seq 1 ack 2"
        ));
    }
    trace.run("? closing 60\n? sockets 0");
    for peer in 1..=60 {
        trace.run(&format!("{peer}> [.] seq 2 ack 2"));
    }
    trace.run("? connections 0\n? socket_evictions 0");
}

#[test]
fn a_connection_that_waits_for_its_reply_ends_when_that_is_acknowledged() {
    echo().run(
        "> [P.] seq 1 ack 1 len 100
         < [P.] seq 1 ack 101 len 100
         > [F.] seq 101 ack 1
         < [F.] seq 101 ack 102
         > [.] seq 102 ack 101
         ? closing 1
         > [.] seq 102 ack 102
         ? connections 0",
    );
}
