//! Several queues on one core: what is answered at once leaves where it came from, and what a connection
//! says later where it was last heard.

use crate::trace::{Trace, on_sockets};

fn two_links() -> Trace {
    Trace::lines_over_links(&[512, 512], |_| {})
}

#[test]
fn each_connection_has_its_link() {
    two_links().run(
        "1> [S] seq 0
         1< [S.] seq 0 ack 1
         1> [.] seq 1 ack 1
         @ 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         2> [.] seq 1 ack 1
         @ 0
         1> [P.] seq 1 ack 1 \"one\\n\"
         1< [P.] seq 1 ack 5 \"one\\n\"
         @ 1
         2> [P.] seq 1 ack 1 \"two\\n\"
         2< [P.] seq 1 ack 5 \"two\\n\"
         +1010ms
         2< [P.] seq 1 ack 5 \"two\\n\"
         @ 0
         1< [P.] seq 1 ack 5 \"one\\n\"",
    );
}

#[test]
fn a_flow_that_changes_its_queue_takes_its_connection_along() {
    Trace::lines_over_links(&[512, 512], on_sockets)
        .established()
        .run(
            "> [P.] seq 1 ack 1 \"here\\n\"
         < [P.] seq 1 ack 6 \"here\\n\"
         @ 1
         > [P.] seq 6 ack 6 \"there\\n\"
         < [P.] seq 6 ack 12 \"there\\n\"
         +1010ms
         < [P.] seq 6 ack 12 \"there\\n\"
         @ 0
         > [.] seq 12 ack 12
         +73s
         ? connections 1
         +2s
         < [F.] seq 12 ack 12 \"late\\n\"",
        );
}

#[test]
fn segments_that_are_not_the_peers_do_not_take_it_along() {
    two_links().established().run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         @ 1
         > [P.] seq 20000 ack 1 \"forged\\n\"
         < [.] seq 7 ack 7
         ? beyond_window 1
         > [R] seq 99
         ? rst_challenge 1
         +990ms
         @ 0
         +20ms
         < [P.] seq 1 ack 7 \"hello\\n\"",
    );
}

#[test]
fn a_handshake_may_end_on_another_link_than_it_began() {
    for half_open in [0, 32] {
        Trace::lines_over_links(&[512, 512], |config| config.half_open = half_open).run(
            "> [S] seq 0
             < [S.] seq 0 ack 1
             @ 1
             > [P.] seq 1 ack 1 \"close\\n\"
             < [F.] seq 1 ack 7 \"bye\\n\"
             @ 0
             > [F.] seq 7 ack 6
             < [.] seq 6 ack 8
             ? time_wait 1
             @ 1
             > [F.] seq 7 ack 6
             < [.] seq 6 ack 8",
        );
    }
}

#[test]
fn a_link_that_is_full_does_not_stop_the_others() {
    let mut trace = Trace::lines_over_links(&[2, 512], |_| {});
    trace.run(
        "1> [S] seq 0
         1< [S.] seq 0 ack 1
         1> [.] seq 1 ack 1
         @ 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         2> [.] seq 1 ack 1",
    );
    let frames = [
        (0, trace.segment(1, 1, 1, b"hello\n")),
        (0, trace.segment(1, 7, 1, b"send 2000\n")),
        (1, trace.segment(2, 1, 1, b"hello\n")),
    ];
    let now = trace.now;
    let shard = trace.shard();
    for (link, frame) in &frames {
        assert!(shard.links_mut()[*link].push(frame));
    }
    for _ in 0..3 {
        shard.poll(now);
    }
    let sent = shard.links().iter().map(|link| link.sent().len());
    assert_eq!(sent.collect::<Vec<_>>(), [2, 1]);
    assert!(
        shard.next_deadline(now) > Some(now),
        "nothing can be done before the link has room"
    );
    shard.links_mut()[0].clear_sent();
    assert_eq!(shard.next_deadline(now), Some(now));
    assert_eq!(trace.counter("deferred"), 1);
}
