//! Bytes in ESTABLISHED, in order and out of it.

use crate::trace::{Trace, on_sockets};

#[test]
fn what_is_sent_comes_back_and_carries_the_acknowledgment() {
    Trace::echo().established().run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         > [P.] seq 6 ack 6 len 1000
         < [P.] seq 6 ack 1006 len 1000
         > [.] seq 1006 ack 1006",
    );
}

#[test]
fn a_message_in_pieces_is_acknowledged_and_answered_once_it_is_whole() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"he\"
         < [.] seq 1 ack 3
         > [P.] seq 3 ack 1 \"ll\"
         < [.] seq 1 ack 5
         > [P.] seq 5 ack 1 \"o\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"",
    );
}

#[test]
fn several_messages_in_one_segment_are_answered_by_one() {
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"a\\nb\\nc\\nd\"
         < [P.] seq 1 ack 8 \"a\\nb\\nc\\n\"
         > [P.] seq 8 ack 7 \"\\n\"
         < [P.] seq 7 ack 9 \"d\\n\"",
    );
}

#[test]
fn a_hole_is_reported_and_filled() {
    Trace::echo_with(on_sockets).established().run(
        "> [P.] seq 11 ack 1 len 10
         < [.] seq 1 ack 1 <sack>
         > [P.] seq 31 ack 1 len 10
         < [.] seq 1 ack 1 <sack>
         > [P.] seq 1 ack 1 len 10
         < [.] seq 1 ack 21 <sack>
         < [P.] seq 1 ack 21 len 20
         > [P.] seq 21 ack 1 len 10
         < [.] seq 21 ack 41
         < [P.] seq 21 ack 41 len 20",
    );
}

#[test]
fn overlapping_segments_are_joined_without_a_seam() {
    Trace::echo_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 len 100
         < [P.] seq 1 ack 101 len 100
         # half old, half new
         > [P.] seq 51 ack 101 len 100
         < [P.] seq 101 ack 151 len 50
         # over a hole, then over its edge
         > [P.] seq 201 ack 151 len 100
         < [.] seq 151 ack 151 <sack>
         > [P.] seq 151 ack 151 len 100
         < [.] seq 151 ack 301
         < [P.] seq 151 ack 301 len 150",
    );
}

#[test]
fn an_old_duplicate_is_acknowledged() {
    Trace::echo().established().run(
        "> [P.] seq 1 ack 1 len 100
         < [P.] seq 1 ack 101 len 100
         > [P.] seq 1 ack 1 len 100
         < [.] seq 101 ack 101
         > [P.] seq 1 ack 101 len 100
         < [.] seq 101 ack 101",
    );
}

#[test]
fn data_whose_acknowledgment_was_overtaken_is_taken() {
    // Two requests, the second sent after the reply to an earlier one had been read, arrive in the
    // wrong order: the first acknowledges less than is known already. RFC 5961, section 5.2.
    Trace::lines_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"a\\n\"
         < [P.] seq 1 ack 3 \"a\\n\"
         > [P.] seq 5 ack 3 \"c\\n\"
         < [.] seq 3 ack 3 <sack>
         > [P.] seq 3 ack 1 \"b\\n\"
         < [.] seq 3 ack 7
         < [P.] seq 3 ack 7 \"b\\nc\\n\"
         ? ack_overtaken 1",
    );
}

#[test]
fn a_duplicate_is_not_taken_for_what_is_queued() {
    // Both are six bytes long.
    Trace::lines().established().run(
        "> [P.] seq 1 ack 1 \"alpha\\n\"
         < [P.] seq 1 ack 7 \"alpha\\n\"
         > [P.] seq 7 ack 7 \"beta  \"
         < [.] seq 7 ack 13
         > [P.] seq 1 ack 7 \"alpha\\n\"
         < [.] seq 7 ack 13
         > [P.] seq 13 ack 7 \"\\n\"
         < [P.] seq 7 ack 14 \"beta  \\n\"",
    );
}

#[test]
fn an_urgent_pointer_changes_nothing() {
    Trace::echo().established().run(
        "> [PU.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn keep_alive_probes_are_answered() {
    Trace::echo().established().run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         > [.] seq 6 ack 6
         +60s
         # without and with the byte of garbage (RFC 9293, section 3.8.4)
         > [.] seq 5 ack 6
         < [.] seq 6 ack 6
         > [.] seq 5 ack 6 \"x\"
         < [.] seq 6 ack 6",
    );
}

#[test]
fn the_receive_ring_is_one_piece_to_the_service() {
    // 8,192 bytes of ring; each round leaves the reading position elsewhere.
    let mut trace = Trace::lines_with(on_sockets).established();
    let (mut seq, mut ack) = (1, 1);
    for round in 0..40 {
        let text = format!("{round:0700}\n");
        let (first, second) = text.split_at(300 + round * 7);
        let half = seq + first.len();
        let end = seq + text.len();
        let quoted = |text: &str| text.replace('\n', "\\n");
        trace.run(&format!(
            "> [.] seq {seq} ack {ack} \"{first}\"
             < [.] seq {ack} ack {half}
             > [P.] seq {half} ack {ack} \"{}\"
             < [P.] seq {ack} ack {end} \"{}\"",
            quoted(second),
            quoted(&text),
        ));
        (seq, ack) = (end, ack + text.len());
    }
}

#[test]
fn a_long_reply_leaves_in_full_segments_as_the_congestion_window_grows() {
    // RFC 5681: slow start from two segments of 1,024 bytes.
    Trace::lines_with(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"send 6000\\n\"
         < [.] seq 1 ack 11 len 1460
         < [.] seq 1461 ack 11 len 588
         > [.] seq 11 ack 1461
         < [.] seq 2049 ack 11 len 1460
         < [.] seq 3509 ack 11 len 1460
         > [.] seq 11 ack 4969
         < [P.] seq 4969 ack 11 len 1032
         > [.] seq 11 ack 6001",
    );
}

#[test]
fn messages_that_wait_for_room_are_answered_when_there_is_some() {
    let mut trace = Trace::lines_with(|config| {
        on_sockets(config);
        config.send_buffer_bytes = 512;
    })
    .established();
    trace.run(
        "> [P.] seq 1 ack 1 \"send 600\\nnext\\n\"
         # The second line waits in the receive buffer until the first is answered.
         < [P.] seq 1 ack 15 win 8187 len 512
         > [.] seq 15 ack 513
         < [P.] seq 513 ack 15 win 8192 len 88 \"next\\n\"",
    );
}

#[test]
fn what_is_left_is_not_taken_for_the_segment_of_the_same_length() {
    // 1,024 bytes arrive at once, the second half first, and the send ring has 512 in one piece: the
    // service is called twice, with as many bytes left as the last segment had.
    let trace = Trace::echo_with(|config| {
        on_sockets(config);
        config.receive_buffer_bytes = 2_048;
        config.send_buffer_bytes = 2_048;
    });
    trace.established().run(
        "> [P.] seq 1 ack 1 len 1024
         < [P.] seq 1 ack 1025 len 1024
         > [P.] seq 1025 ack 1 len 512
         < [P.] seq 1025 ack 1537 len 512
         > [.] seq 1537 ack 1025
         > [.] seq 2049 ack 1025 len 512
         < [.] seq 1537 ack 1537
         > [.] seq 1537 ack 1025 len 512
         < [.] seq 1537 ack 2561
         < [.] seq 1537 ack 2561 len 512
         < [P.] seq 2049 ack 2561 len 512",
    );
}
