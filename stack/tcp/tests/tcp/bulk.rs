//! Large bodies: windows that are scaled and grow, and more in flight than a socket holds.

use std::fmt::Write as _;

use barewire_tcp::config::{DirectPath, StackConfig};

use crate::trace::Trace;

const MSS: u32 = 1_460;

fn directly(config: &mut StackConfig) {
    config.direct_path = DirectPath::Always;
}

/// Windows of ours are told in units of 16 bytes.
fn scaled(config: &mut StackConfig) {
    directly(config);
    config.receive_window_bytes_max = 1_000_000;
}

fn lines() -> Trace {
    Trace::lines_with(directly).established()
}

/// `count` whole segments of a reply, from `seq` on, by a shard that has heard all before `ack`.
fn segments(seq: u32, ack: u32, count: u32) -> String {
    let mut trace = String::new();
    for at in 0..count {
        let seq = seq + at * MSS;
        let _ = writeln!(trace, "< [.] seq {seq} ack {ack} len {MSS}");
    }
    trace
}

/// An upload of `count` segments from `seq` on, one at a time, which is acknowledged with what ends in `told`.
fn upload(seq: u32, count: u32, told: &str) -> String {
    let mut trace = String::new();
    for at in 1..=count {
        let (seq, end) = (seq + (at - 1) * MSS, seq + at * MSS);
        let told = if at == count { told } else { "" };
        let _ = write!(
            trace,
            "> [.] seq {seq} ack 1 len {MSS}\n< [.] seq 1 ack {end} {told}\n"
        );
    }
    trace
}

#[test]
fn a_window_scale_is_told_to_a_peer_that_scales() {
    // RFC 7323, section 2.2: of the window of a SYN|ACK nothing is shifted, of all others it is.
    Trace::lines_with(scaled).run(
        "> [S] seq 0 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 8192 <mss 1460,wscale 4,sackOK>
         > [P.] seq 1 ack 1 win 500 \"hello\\n\"
         < [P.] seq 1 ack 7 win 512 \"hello\\n\"",
    );
}

#[test]
fn a_window_is_not_scaled_for_a_peer_that_does_not() {
    Trace::lines_with(scaled).run(
        "> [S] seq 0 <mss 1460>
         < [S.] seq 0 ack 1 win 8192 <mss 1460>
         > [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 win 8192 \"hello\\n\"",
    );
}

#[test]
fn a_cookie_tells_the_same_window_scale() {
    let cookies = |config: &mut StackConfig| {
        scaled(config);
        config.half_open = 0;
    };
    Trace::lines_with(cookies).run(
        "> [S] seq 0 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 8192 <mss 1460,wscale 4,sackOK>
         > [P.] seq 1 ack 1 win 500 \"hello\\n\"
         < [P.] seq 1 ack 7 win 512 \"hello\\n\"",
    );
}

#[test]
fn sockets_shift_their_windows_as_was_told() {
    let on_sockets = |config: &mut StackConfig| {
        scaled(config);
        config.direct_path = DirectPath::Never;
    };
    Trace::lines_with(on_sockets).run(
        "> [S] seq 0 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 8192 <mss 1460,wscale 4,sackOK>
         > [P.] seq 1 ack 1 win 500 \"hello\\n\"
         < [P.] seq 1 ack 7 win 512 \"hello\\n\"
         > [R.] seq 8000 ack 7 win 500
         < [.] seq 7 ack 7 win 512
         > [R.] seq 9000 ack 7 win 500
         ? challenge_acks 1",
    );
}

#[test]
fn a_window_grows_beyond_64_kib() {
    let mut trace = Trace::lines_with(scaled).established();
    trace.run(
        "> [P.] seq 1 ack 1 \"body 900000\\n\"
         < [.] seq 1 ack 13 win 512",
    );
    // It doubles with each window that is taken: 8192, 16384, 32768, 65536.
    let mut seq = 13;
    for (count, window) in [(6, 1_024), (12, 2_048), (23, 4_096), (45, 8_192)] {
        trace.run(&upload(seq, count, &format!("win {window}")));
        seq += count * MSS;
    }
    // What was told is obeyed: a segment behind a gap of 120 KB is kept.
    let far = seq + 120_000;
    trace.run(&format!(
        "> [.] seq {far} ack 1 len {MSS}
         < [.] seq 1 ack {seq} win 8192 <sack>
         ? direct_hand_overs 0
         ? beyond_window 0",
    ));
}

#[test]
fn a_window_of_bytes_that_wait_is_not_taken_back() {
    // The service waits for the end of its line. What is left of a window is told rounded up to its unit, so that the
    // right edge stays where it was (RFC 7323, section 2.4).
    let part = "a".repeat(1_000);
    Trace::lines_with(scaled).established().run(&format!(
        "> [P.] seq 1 ack 1 \"{part}\"
         < [.] seq 1 ack 1001 win 450
         > [P.] seq 1001 ack 1 \"{part}\"
         < [.] seq 1 ack 2001 win 388
         > [P.] seq 2001 ack 1 \"{part}\"
         < [.] seq 1 ack 3001 win 326
         ? direct_hand_overs 0",
    ));
}

#[test]
fn more_is_in_flight_than_a_socket_holds() {
    let mut trace = lines();
    trace.send(1, "[P.] seq 1 ack 1 win 5000 \"send 200000\\n\"");
    trace.run(&segments(1, 13, 10));
    let acked = 1 + 10 * MSS;
    trace.send(1, &format!("[.] seq 13 ack {acked} win 5000"));
    trace.run(&segments(acked, 13, 20));
    trace.run(
        "? direct_hand_overs 0
         ? sockets 0",
    );
}

#[test]
fn urgent_data_has_to_come_again_while_more_is_in_flight_than_a_socket_holds() {
    let mut trace = lines();
    trace.send(1, "[P.] seq 1 ack 1 win 5000 \"send 40000\\n\"");
    trace.run(&segments(1, 12, 10));
    let mut acked = 1 + 10 * MSS;
    trace.send(1, &format!("[.] seq 12 ack {acked} win 5000"));
    let last = "< [P.] seq 39421 ack 12 len 580";
    trace.run(&(segments(acked, 12, 17) + last));
    trace.run(&format!(
        "> [P.U] seq 12 ack {acked} win 5000 \"x\"
         < [.] seq 40001 ack 12
         ? hand_overs_postponed 1
         ? direct_hand_overs 0"
    ));
    acked = 40_001;
    trace.run(&format!(
        "> [P.U] seq 12 ack {acked} win 5000 \"x\"
         < [.] seq 40001 ack 13
         ? direct_hand_overs 1"
    ));
}

#[test]
fn a_connection_is_closed_with_its_last_segment_however_much_is_in_flight() {
    let mut trace = lines();
    trace.send(1, "[P.] seq 1 ack 1 win 5000 \"send 40000\\nclose\\n\"");
    trace.run(&segments(1, 18, 10));
    let acked = 1 + 10 * MSS;
    trace.send(1, &format!("[.] seq 18 ack {acked} win 5000"));
    let last = "< [F.] seq 39421 ack 18 len 580 \"bye\\n\"";
    trace.run(&(segments(acked, 18, 17) + last));
    trace.run(
        "? closing 1
         # What comes now is acknowledged and thrown away.
         > [P.] seq 18 ack 20001 win 5000 \"hello\\n\"
         < [.] seq 40006 ack 24
         > [.] seq 24 ack 30001 win 5000
         ? direct_hand_overs 0
         > [.] seq 24 ack 40006 win 5000
         > [F.] seq 24 ack 40006 win 5000
         < [.] seq 40006 ack 25",
    );
}

#[test]
fn what_waits_for_the_windows_is_no_more_than_a_send_buffer() {
    // The peer takes 10,000 bytes. Of the rest a send buffer waits, and the service is asked for the next as it opens.
    let mut trace = Trace::lines_with(|config| {
        directly(config);
        config.send_buffer_bytes = 4_000;
    });
    trace.run(
        "> [S] seq 0 win 10000 <mss 1460>
         < [S.] seq 0 ack 1
         > [.] seq 1 ack 1 win 10000",
    );
    trace.send(1, "[P.] seq 1 ack 1 win 10000 \"send 60000\\n\"");
    trace.run(&segments(1, 12, 6));
    trace.run("? direct_hand_overs 0");
    trace.send(1, "[.] seq 12 ack 8761 win 10000");
    trace.run(&segments(8_761, 12, 6));
}

#[test]
fn a_gap_is_repaired_while_the_rest_is_kept() {
    // RFC 2018, section 4: each segment behind the gap is acknowledged at once.
    lines().run(
        "> [P.] seq 1 ack 1 \"body 9000\\n\"
         < [.] seq 1 ack 11
         > [.] seq 1471 ack 1 len 1460
         < [.] seq 1 ack 11 <sack>
         > [.] seq 2931 ack 1 len 1460
         < [.] seq 1 ack 11 <sack>
         > [.] seq 2931 ack 1 len 1460
         < [.] seq 1 ack 11 <sack>
         > [.] seq 11 ack 1 len 1460
         < [.] seq 1 ack 4391 <>
         # What overlaps with what has arrived is taken for what is new of it.
         > [.] seq 4000 ack 1 len 1460
         < [.] seq 1 ack 5460
         ? inbox_kept 3
         ? direct_hand_overs 0",
    );
}

#[test]
fn a_peer_without_sack_is_told_no_ranges() {
    let mut trace = Trace::lines_with(directly);
    trace.run(
        "> [S] seq 0 <mss 1460>
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"body 9000\\n\"
         < [.] seq 1 ack 11
         > [.] seq 1471 ack 1 len 1460
         < [.] seq 1 ack 11 <>
         > [.] seq 11 ack 1 len 1460
         < [.] seq 1 ack 2931 <>",
    );
}

#[test]
fn a_socket_that_takes_over_gets_what_is_behind_a_gap() {
    lines().run(
        "> [P.] seq 7 ack 1 \"again\\n\"
         < [.] seq 1 ack 1 <sack>
         # Only smoltcp looks at URG.
         > [P.U] seq 1 ack 1 \"hello\\n\"
         < [.] seq 1 ack 13
         < [P.] seq 1 ack 13 \"hello\\nagain\\n\"
         ? direct_hand_overs 1",
    );
}

#[test]
fn the_end_of_a_reply_waits_for_the_next_one_of_the_batch() {
    // The service sends back what comes in segments that are longer than those the peer takes.
    let mut trace = Trace::echo_with(directly);
    trace
        .run(
            "> [S] seq 0 win 64000 <mss 1000>
             < [S.] seq 0 ack 1
             > [.] seq 1 ack 1",
        )
        .send_together(&[
            "[.] seq 1 ack 1 len 1460",
            "[.] seq 1461 ack 1 len 1460",
            "[.] seq 2921 ack 1 len 1460",
        ])
        .run(
            "< [.] seq 1 ack 1461 len 1000
             < [.] seq 1001 ack 2921 len 1000
             < [.] seq 2001 ack 4381 len 1000
             < [.] seq 3001 ack 4381 len 1000
             < [P.] seq 4001 ack 4381 len 380
             > [.] seq 4381 ack 4381
             # One that comes alone is answered at once.
             > [P.] seq 4381 ack 4381 len 1460
             < [.] seq 4381 ack 5841 len 1000
             < [P.] seq 5381 ack 5841 len 460
             > [.] seq 5841 ack 5841
             ? direct_hand_overs 0",
        );
}
