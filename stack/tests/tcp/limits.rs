//! What happens when something is full.

use crate::trace::Trace;

#[test]
fn past_the_limit_syns_are_dropped_and_connections_live_on() {
    Trace::echo_with(|config| config.connections = 2).run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         > [.] seq 1 ack 1
         2> [.] seq 1 ack 1
         3> [S] seq 0
         3> [S] seq 0
         ? listen_overflows 2
         > [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         2> [F.] seq 1 ack 1
         2< [F.] seq 1 ack 2
         2> [.] seq 2 ack 2
         3> [S] seq 0
         3< [S.] seq 0 ack 1",
    );
}

#[test]
fn more_islands_than_can_be_kept_are_sent_again_by_the_peer() {
    let mut trace = Trace::echo().established();
    // 32 islands of one byte with one byte of water between them.
    for island in 0..32 {
        trace.run(&format!(
            "> [.] seq {} ack 1 len 1
             < [.] seq 1 ack 1 <sack>",
            2 + 2 * island
        ));
    }
    trace.run(
        "> [.] seq 200 ack 1 len 1
         > [.] seq 1 ack 1 len 3
         < [.] seq 1 ack 5 <sack>
         < [P.] seq 1 ack 5 len 4",
    );
}
