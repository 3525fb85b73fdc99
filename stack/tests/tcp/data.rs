//! Bytes in order.

use crate::trace::Trace;

#[test]
fn what_is_sent_comes_back() {
    Trace::echo().established().run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         > [P.] seq 6 ack 6 len 1000
         < [P.] seq 6 ack 1006 len 1000
         > [.] seq 1006 ack 1006",
    );
}
