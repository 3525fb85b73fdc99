//! LISTEN, SYN-RECEIVED, ESTABLISHED (RFC 9293, section 3.5).

use barewire_tcp::config::{DirectPath, StackConfig};

use crate::trace::Trace;

fn directly(config: &mut StackConfig) {
    config.direct_path = DirectPath::Always;
}

#[test]
fn all_options_are_agreed_on() {
    Trace::echo().run(
        "> [S] seq 0 win 64000 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 8192 <mss 1460,wscale 0,sackOK>
         ? syn_received 1
         > [.] seq 1 ack 1
         ? syn_received 0
         ? established 1
         ? passive_opens 1",
    );
}

#[test]
fn no_options_are_needed() {
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1 <mss 1460>
         > [.] seq 1 ack 1
         ? established 1",
    );
}

#[test]
fn options_come_in_any_order_with_unknown_ones_between() {
    Trace::echo().run(
        "> [S] seq 0 <nop,nop,sackOK,raw fd 04 01 02,ts 7,nop,wscale 3,mss 1400,eol>
         < [S.] seq 0 ack 1 <mss 1460,wscale 0,sackOK>
         > [.] seq 1 ack 1
         ? established 1",
    );
}

#[test]
fn a_malformed_option_makes_a_syn_worthless() {
    Trace::echo().run(
        "> [S] seq 0 <raw 02 03 05 b4>
         > [S] seq 0 <raw 03 09 07 00>
         ? listen_drops_malformed 2
         ? connections 0",
    );
}

#[test]
fn explicit_congestion_notification_is_not_agreed_on() {
    Trace::echo().run(
        "> [SEW] seq 0
         < [S.] seq 0 ack 1",
    );
}

#[test]
fn a_repeated_syn_is_answered_again_at_once() {
    Trace::echo().run(
        "> [S] seq 0 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 8192 <mss 1460,wscale 0,sackOK>
         +500ms
         > [S] seq 0 <mss 1460,wscale 7,sackOK>
         < [S.] seq 0 ack 1 win 8192 <mss 1460,wscale 0,sackOK>
         ? syn_retrans 1
         ? connections 1
         > [.] seq 1 ack 1
         ? established 1",
    );
}

#[test]
fn a_lost_syn_ack_is_sent_again_with_back_off() {
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         +990ms
         +20ms
         < [S.] seq 0 ack 1
         +1980ms
         +30ms
         < [S.] seq 0 ack 1
         +3960ms
         +60ms
         < [S.] seq 0 ack 1
         ? retrans_segs 3
         > [.] seq 1 ack 1
         ? established 1",
    );
}

#[test]
fn the_last_ack_may_carry_data() {
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn the_last_ack_may_be_lost_or_late() {
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [P.] seq 6 ack 1 \"world\"
         < [.] seq 1 ack 1
         > [P.] seq 1 ack 1 \"hello\"
         < [.] seq 1 ack 11
         < [P.] seq 1 ack 11 \"helloworld\"
         > [.] seq 1 ack 1
         < [.] seq 11 ack 11",
    );
}

#[test]
fn the_last_ack_may_carry_data_and_a_fin() {
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [FP.] seq 1 ack 1 \"hello\"
         < [F.] seq 1 ack 7 \"hello\"
         > [.] seq 7 ack 7
         ? connections 0
         ? time_wait 0",
    );
}

#[test]
fn data_in_a_syn_is_left_for_the_peer_to_send_again() {
    Trace::echo().run(
        "> [S] seq 0 \"hello\"
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn a_wrong_acknowledgment_of_the_syn_is_refused() {
    // RFC 9293, section 3.10.7.4, fifth: SYN-RECEIVED.
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [.] seq 1 ack 2
         < [R] seq 2
         > [.] seq 1 ack 0
         < [R] seq 0
         ? syn_received 1
         > [.] seq 1 ack 1
         ? established 1",
    );
}

#[test]
fn a_reset_ends_a_half_open_connection_only_at_the_right_number() {
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [R] seq 2
         < [.] seq 1 ack 1
         > [R] seq 100000
         ? rst_challenge 1
         ? rst_out_of_window 1
         ? connections 1
         > [R] seq 1
         ? embryonic_rsts 1
         ? connections 0",
    );
}

#[test]
fn another_syn_is_challenged_and_a_restarted_peer_gets_through() {
    // RFC 5961, section 4.2. The peer that has forgotten the first SYN resets what it began.
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [S] seq 5000
         < [.] seq 1 ack 1
         ? syn_challenge 1
         > [R] seq 1
         ? connections 0
         > [S] seq 5000
         < [S.] seq 0 ack 5001",
    );
}

#[test]
fn a_syn_ack_is_refused() {
    Trace::echo().run(
        "> [S.] seq 0 ack 77
         < [R] seq 77
         ? connections 0",
    );
}

#[test]
fn both_sequence_spaces_wrap_around() {
    let mut trace = Trace::echo_with(directly).with_isn(u32::MAX - 2);
    trace.peer_isn = u32::MAX - 3;
    trace.established().run(
        "> [P.] seq 1 ack 1 \"one\"
         < [P.] seq 1 ack 4 \"one\"
         > [P.] seq 7 ack 4 \"three\"
         < [.] seq 4 ack 4 <sack>
         > [P.] seq 4 ack 1 \"two\"
         < [P.] seq 4 ack 12 \"twothree\"
         > [F.] seq 12 ack 12
         < [F.] seq 12 ack 13
         > [.] seq 13 ack 13
         ? connections 0",
    );
}
