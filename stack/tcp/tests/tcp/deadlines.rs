//! Peers that take too long.

use barewire_service::time::Duration;
use barewire_tcp::config::StackConfig;

use crate::trace::{Trace, on_sockets};

fn with_deadlines() -> Trace {
    with_deadlines_and(|_| {})
}

fn with_deadlines_and(change: impl FnOnce(&mut StackConfig)) -> Trace {
    Trace::lines_with(|config| {
        change(config);
        config.deadlines.half_open_ms = 5_000;
        config.deadlines.idle_ms = 20_000;
        config.deadlines.head_ms = 3_000;
        config.deadlines.body_ms = 6_000;
        config.deadlines.send_ms = 8_000;
        config.deadlines.close_ms = 4_000;
        config.deadlines.user_timeout_ms = 30_000;
    })
}

#[test]
fn a_handshake_that_is_not_completed_is_forgotten_without_a_word() {
    with_deadlines().run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         +4990ms
         < [S.] seq 0 ack 1
         < [S.] seq 0 ack 1
         ? syn_received 1
         +20ms
         ? half_open_timeouts 1
         ? connections 0
         +60s",
    );
}

#[test]
fn an_idle_connection_is_closed_in_order() {
    with_deadlines().established().run(
        "+19990ms
         +20ms
         < [F.] seq 1 ack 1 \"late\\n\"
         ? idle_timeouts 1
         > [F.] seq 1 ack 7
         < [.] seq 7 ack 2
         ? time_wait 1",
    );
}

#[test]
fn a_message_starts_the_idle_deadline_again() {
    with_deadlines().established().run(
        "+15s
         > [P.] seq 1 ack 1 \"a\\n\"
         < [P.] seq 1 ack 3 \"a\\n\"
         > [.] seq 3 ack 3
         +15s
         > [P.] seq 3 ack 3 \"b\\n\"
         < [P.] seq 3 ack 5 \"b\\n\"
         > [.] seq 5 ack 5
         +19s
         ? idle_timeouts 0",
    );
}

#[test]
fn dripping_a_head_does_not_help() {
    with_deadlines().established().run(
        "+10s
         > [P.] seq 1 ack 1 \"a\"
         < [.] seq 1 ack 2
         +1s
         > [P.] seq 2 ack 1 \"b\"
         < [.] seq 1 ack 3
         +1s
         > [P.] seq 3 ack 1 \"c\"
         < [.] seq 1 ack 4
         +990ms
         +20ms
         < [F.] seq 1 ack 4 \"late\\n\"
         ? head_timeouts 1",
    );
}

#[test]
fn a_body_has_its_own_deadline() {
    with_deadlines().established().run(
        "> [P.] seq 1 ack 1 \"body 100\\n\"
         < [.] seq 1 ack 10
         +5s
         > [P.] seq 10 ack 1 len 99
         < [.] seq 1 ack 109
         +990ms
         +20ms
         < [F.] seq 1 ack 109 \"late\\n\"
         ? body_timeouts 1",
    );
}

#[test]
fn a_peer_that_stops_reading_is_reset() {
    // Its window stays closed; that it answers the probes does not help.
    with_deadlines_and(on_sockets).established().run(
        "> [P.] seq 1 ack 1 win 0 \"hello\\n\"
         < [.] seq 1 ack 7 \"h\"
         < [.] seq 1 ack 7
         > [.] seq 7 ack 1 win 0
         +2050ms
         < [.] seq 1 ack 7 \"h\"
         > [.] seq 7 ack 1 win 0
         +4050ms
         < [.] seq 1 ack 7 \"h\"
         > [.] seq 7 ack 1 win 0
         +1910ms
         < [R.] seq 1 ack 7
         ? send_timeouts 1
         ? connections 0",
    );
}

#[test]
fn a_loss_is_not_held_against_the_peer() {
    // It takes less than 1024 bytes in 8 s, but it answers what reaches it.
    with_deadlines_and(on_sockets).established().run(
        "> [P.] seq 1 ack 1 \"send 1900\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 440
         +7100ms
         < [.] seq 1 ack 11 len 1460
         # Perhaps it was too long.
         < [.] seq 1 ack 11 len 1240
         < [.] seq 1241 ack 11 len 220
         < [.] seq 1 ack 11 len 536
         < [.] seq 537 ack 11 len 536
         < [.] seq 1073 ack 11 len 388
         +4100ms
         < [.] seq 1 ack 11 len 536
         < [.] seq 537 ack 11 len 536
         < [.] seq 1073 ack 11 len 388
         > [.] seq 11 ack 701
         < [P.] seq 1461 ack 11 len 440
         +5100ms
         < [.] seq 701 ack 11 len 536
         < [.] seq 1237 ack 11 len 536
         < [P.] seq 1773 ack 11 len 128
         ? send_timeouts 0
         > [.] seq 11 ack 1901
         ? connections 1",
    );
}

#[test]
fn a_peer_that_acknowledges_too_little_is_reset() {
    with_deadlines().established().run(
        "> [P.] seq 1 ack 1 \"send 1900\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 440
         +900ms
         > [.] seq 11 ack 101
         +900ms
         > [.] seq 11 ack 201
         +900ms
         > [.] seq 11 ack 301
         +900ms
         > [.] seq 11 ack 401
         +900ms
         > [.] seq 11 ack 501
         +900ms
         > [.] seq 11 ack 601
         +900ms
         > [.] seq 11 ack 701
         +900ms
         > [.] seq 11 ack 801
         +780ms
         +40ms
         < [R.] seq 1901 ack 11
         ? send_timeouts 1
         ? connections 0",
    );
}

#[test]
fn a_byte_now_and_then_does_not_help() {
    // Each time, the silence before looks like a loss; but not for ever.
    let mut trace = with_deadlines().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"send 1900\\n\"
         < [.] seq 1 ack 11 len 1460
         < [P.] seq 1461 ack 11 len 440",
    );
    let mut lived = Duration::ZERO;
    for ack in 2.. {
        trace.ignore(Duration::from_secs(7));
        if trace.counter("send_timeouts") > 0 {
            break;
        }
        lived += Duration::from_secs(7);
        let segment = trace.segment(1, 11, ack, b"");
        trace.push([&segment[..]]);
    }
    // Twice the deadline, and what a silence takes that is not yet over.
    assert!(lived <= Duration::from_secs(21), "{lived}");
    trace.run("? connections 0");
}

#[test]
fn a_peer_that_says_nothing_has_until_the_user_timeout() {
    Trace::lines_with(|config| {
        config.deadlines.send_ms = 8_000;
        config.deadlines.user_timeout_ms = 14_000;
    })
    .established()
    .run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         +13900ms
         < [P.] seq 1 ack 7 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"
         ? send_timeouts 0
         +110ms
         < [R.] seq 7 ack 7
         ? abort_on_timeout 1",
    );
}

#[test]
fn a_peer_that_does_not_close_is_forgotten() {
    // FIN-WAIT-2 has no end of its own (RFC 9293, section 3.6).
    with_deadlines().established().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         +100ms
         > [.] seq 7 ack 6
         +3950ms
         ? closing 1
         +100ms
         ? close_timeouts 1
         ? connections 0
         > [F.] seq 7 ack 6
         < [R] seq 6",
    );
}

#[test]
fn data_after_our_close_does_not_prolong_it() {
    with_deadlines().established().run(
        "> [P.] seq 1 ack 1 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"
         > [.] seq 7 ack 6
         +2s
         > [P.] seq 7 ack 6 len 100
         < [.] seq 6 ack 107
         +2s
         +10ms
         ? close_timeouts 1",
    );
}

#[test]
fn a_fin_that_is_never_acknowledged_is_given_up() {
    with_deadlines().established().run(
        "> [F.] seq 1 ack 1
         < [F.] seq 1 ack 2
         +3990ms
         < [F.] seq 1 ack 2
         < [F.] seq 1 ack 2
         +20ms
         ? close_timeouts 1
         ? connections 0",
    );
}

#[test]
fn no_timer_outlives_its_connection() {
    let mut trace = with_deadlines().established();
    trace.run(
        "> [F.] seq 1 ack 1
         < [F.] seq 1 ack 2
         > [.] seq 2 ack 2
         ? connections 0",
    );
    assert_eq!(trace.shard().timers(), 0);
    assert_eq!(trace.shard().time_waits(), 0);
    let now = trace.now;
    assert_eq!(trace.shard().next_deadline(now), None);
}

#[test]
fn the_time_before_an_answer_does_not_count_as_the_peers_silence() {
    Trace::lines_with(|config| config.deadlines.user_timeout_ms = 5_000)
        .established()
        .run(
            "+60s
             > [P.] seq 1 ack 1 \"hello\\n\"
             < [P.] seq 1 ack 7 \"hello\\n\"
             +1500ms
             < [P.] seq 1 ack 7 \"hello\\n\"
             > [.] seq 7 ack 7
             ? connections 1",
        );
}

#[test]
fn the_service_is_told_the_time_of_day_when_it_changes() {
    let mut trace = Trace::lines();
    trace.shard().set_unix_time(1_700_000_000);
    assert_eq!(trace.shard().service().unix_time_s, 1_700_000_000);
}
