//! LISTEN, SYN-RECEIVED, ESTABLISHED.

use crate::trace::Trace;

#[test]
fn a_handshake_with_all_options() {
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
fn a_handshake_without_options() {
    Trace::echo().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1 <mss 1460>
         > [.] seq 1 ack 1
         ? established 1",
    );
}
