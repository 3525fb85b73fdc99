//! Flow control, in both directions (RFC 9293, section 3.8.6).
//!
//! smoltcp does not count the acknowledgment on a window probe, and follows it up with an ACK.

use crate::trace::{Trace, on_sockets};

#[test]
fn the_peers_window_is_kept_to() {
    Trace::lines_with(on_sockets).run(
        "> [S] seq 0 win 1000
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 1000 \"send 1500\\n\"
         < [.] seq 1 ack 11 len 536
         < [.] seq 537 ack 11 len 464
         > [.] seq 11 ack 537 win 464
         > [.] seq 11 ack 1001 win 1000
         < [P.] seq 1001 ack 11 len 500",
    );
}

#[test]
fn a_window_is_scaled_by_what_the_peer_said() {
    Trace::lines().run(
        "> [S] seq 0 win 100 <mss 1460,wscale 4>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 50 \"send 1500\\n\"
         < [.] seq 1 ack 11 len 800
         > [.] seq 11 ack 801 win 50
         < [P.] seq 801 ack 11 len 700",
    );
}

#[test]
fn a_shift_above_14_is_14() {
    // RFC 7323, section 2.3.
    Trace::echo().run(
        "> [S] seq 0 win 1 <mss 1460,wscale 20>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 1 len 1000
         < [P.] seq 1 ack 1001 len 1000",
    );
}

#[test]
fn a_closed_window_is_probed_until_it_opens() {
    Trace::echo_with(on_sockets).run(
        "> [S] seq 0 win 0
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 0 \"hello\"
         < [.] seq 1 ack 6 \"h\"
         < [.] seq 1 ack 6
         > [.] seq 6 ack 1 win 0
         +1990ms
         +20ms
         < [.] seq 1 ack 6 \"h\"
         > [.] seq 6 ack 1 win 0
         +3980ms
         +30ms
         < [.] seq 1 ack 6 \"h\"
         > [.] seq 6 ack 1 win 100
         < [P.] seq 1 ack 6 \"hello\"
         > [.] seq 6 ack 6 win 100",
    );
}

#[test]
fn probes_are_no_further_apart_than_allowed() {
    // The ACK that opens the window is lost: only a probe finds out.
    let mut trace = Trace::echo_with(|config| {
        on_sockets(config);
        config.rto_max_ms = 3_000;
    });
    trace.run(
        "> [S] seq 0 win 0
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 0 \"hello\"
         < [.] seq 1 ack 6 \"h\"
         < [.] seq 1 ack 6
         > [.] seq 6 ack 1 win 0
         +2010ms
         < [.] seq 1 ack 6 \"h\"
         > [.] seq 6 ack 1 win 0
         +2980ms
         +60ms
         < [.] seq 1 ack 6 \"h\"
         > [.] seq 6 ack 1 win 0
         +2940ms
         +60ms
         < [.] seq 1 ack 6 \"h\"
         > [.] seq 6 ack 1 win 100
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn a_probe_that_the_peer_takes_counts() {
    Trace::echo_with(on_sockets).run(
        "> [S] seq 0 win 0
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 win 0 \"hello\"
         < [.] seq 1 ack 6 \"h\"
         < [.] seq 1 ack 6
         > [.] seq 6 ack 2 win 100
         < [P.] seq 2 ack 6 \"ello\"",
    );
}

#[test]
fn a_window_that_closes_over_data_in_flight_is_probed_too() {
    // smoltcp's retransmission timer expires, may send nothing, and is not set again. If the ACK that
    // opens the window is then lost, nobody ever speaks again.
    Trace::echo_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         > [.] seq 6 ack 1 win 0
         +1100ms
         ? probe_restarts 1
         +2100ms
         < [.] seq 1 ack 6 \"h\"
         > [.] seq 6 ack 1 win 500
         < [P.] seq 1 ack 6 \"hello\"
         > [.] seq 6 ack 6",
    );
}

#[test]
fn a_window_that_shrinks_below_what_is_in_flight_does_not_stop_the_rest() {
    Trace::lines_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 540
         # 640 bytes of window are left
         > [.] seq 11 ack 1 win 5
         +1050ms
         < [.] seq 1 ack 11 len 640
         > [.] seq 11 ack 641 win 500
         < [P.] seq 641 ack 11 len 1360",
    );
}

#[test]
fn our_window_closes_while_the_service_is_blocked_and_its_opening_is_announced() {
    let mut trace = Trace::echo_with(|config| {
        on_sockets(config);
        config.receive_buffer_bytes = 1_000;
        config.send_buffer_bytes = 512;
    });
    trace.run(
        "> [S] seq 0 win 0
         < [S.] seq 0 ack 1 win 1000
         # 512 bytes go to the send buffer, the rest stays
         > [P.] seq 1 ack 1 win 0 len 1000
         < [.] seq 1 ack 1001 win 512 len 1
         < [.] seq 1 ack 1001 win 512
         > [P.] seq 1001 ack 1 win 0 len 512
         < [.] seq 1 ack 1513 win 0
         # the peer probes a closed window
         > [P.] seq 1513 ack 1 win 0 len 1
         < [.] seq 1 ack 1513 win 0
         +500ms
         > [P.] seq 1513 ack 1 win 0 len 1
         < [.] seq 1 ack 1513 win 0
         # and begins to read
         > [.] seq 1513 ack 1 win 64000
         < [P.] seq 1 ack 1513 win 0 len 512
         > [.] seq 1513 ack 513 win 64000
         < [P.] seq 513 ack 1513 win 512 len 512
         > [.] seq 1513 ack 1025 win 64000
         < [P.] seq 1025 ack 1513 win 1000 len 488",
    );
}

#[test]
fn a_window_that_was_overtaken_does_not_count() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"send 1000\\n\"
         < [P.] seq 1 ack 11 len 1000
         > [.] seq 12 ack 1001
         # sent before that
         > [P.] seq 11 ack 1001 win 0 \"\\n\"
         < [P.] seq 1001 ack 12 \"\\n\"
         ? ack_overtaken 1
         > [P.] seq 12 ack 1002 win 0 \"x\\n\"
         < [.] seq 1002 ack 14 \"x\"
         < [.] seq 1002 ack 14",
    );
}

#[test]
fn a_half_closed_peer_that_is_out_of_room_can_say_when_it_has_some() {
    // In LAST-ACK, smoltcp would not listen.
    Trace::lines_with(on_sockets).established().run(
        "> [FP.] seq 1 ack 1 win 1 \"send 1000\\n\"
         < [.] seq 1 ack 12 len 128
         > [.] seq 12 ack 129 win 0
         +1100ms
         < [.] seq 129 ack 12 len 1
         > [.] seq 12 ack 129 win 500
         < [F.] seq 129 ack 12 len 872
         > [.] seq 12 ack 1002
         ? connections 0",
    );
}

#[test]
fn two_sides_without_room_do_not_wait_for_each_other() {
    // RFC 9293, section 3.10.7.4: the acknowledgment counts also on a segment that finds our window
    // closed. smoltcp drops both.
    let mut trace = Trace::echo_with(|config| {
        on_sockets(config);
        config.receive_buffer_bytes = 512;
        config.send_buffer_bytes = 512;
    });
    trace.run(
        "> [S] seq 0 win 512
         < [S.] seq 0 ack 1 win 512
         > [P.] seq 1 ack 1 win 512 len 512
         < [P.] seq 1 ack 513 win 512 len 512
         > [P.] seq 513 ack 1 win 512 len 512
         < [.] seq 513 ack 1025 win 0
         # the peer's probe says that it has read
         > [.] seq 1025 ack 513 win 512 len 1
         < [P.] seq 513 ack 1025 win 512 len 512
         ? ack_only 1",
    );
}

#[test]
fn duplicate_acks_of_a_peer_with_little_room_are_left_to_the_timer() {
    // smoltcp would answer the third with a whole segment, and forget what lies behind it.
    Trace::lines_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 win 10 \"send 2000\\n\"
         < [.] seq 1 ack 11 len 1280
         > [.] seq 11 ack 1 win 2
         > [.] seq 11 ack 1 win 2
         > [.] seq 11 ack 1 win 2
         > [.] seq 11 ack 1 win 2
         ? ack_nothing_new 3
         +1100ms
         < [.] seq 1 ack 11 len 256",
    );
}

#[test]
fn the_largest_receive_buffer_takes_a_full_window_out_of_order() {
    // One byte more, and smoltcp 0.14 would panic on the last segment.
    let mut trace = Trace::lines_with(|config| {
        on_sockets(config);
        config.receive_buffer_bytes = 65_535;
        config.send_buffer_bytes = 4_096;
    });
    trace.run(
        "> [S] seq 0 win 64000 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 65535
         > [P.] seq 1 ack 1 \"body 70000\\n\"
         < [.] seq 1 ack 12 win 65535",
    );
    let mut seq = 12 + 65_535;
    while seq > 12 + 1_000 {
        seq -= 1_000;
        trace.run(&format!(
            "> [.] seq {seq} ack 1 len 1000
             < [.] seq 1 ack 12 <sack>"
        ));
    }
    trace.run(
        "> [.] seq 12 ack 1 len 535
         < [.] seq 1 ack 65547
         < [.] seq 1 ack 65547 win 65535",
    );
}
