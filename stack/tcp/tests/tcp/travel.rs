//! Connections that go on in another process, on a shard of their own there.

use barewire_service::time::Duration;
use barewire_tcp::config::DirectPath;
use barewire_tcp::shard::Departure;
use barewire_tcp::travel::Malformed;

use crate::trace::Trace;

fn echo() -> Trace {
    Trace::echo_with(|config| config.direct_path = DirectPath::Always)
}

fn lines() -> Trace {
    Trace::lines_with(|config| config.direct_path = DirectPath::Always)
}

#[test]
fn a_connection_goes_on_where_it_was() {
    for make in [|trace: Trace| trace, Trace::over_ipv6] {
        let mut before = make(echo()).established();
        before.run(
            "> [P.] seq 1 ack 1 win 500 \"hello\"
             < [P.] seq 1 ack 6 \"hello\"
             > [.] seq 6 ack 6 win 500",
        );
        let mut after = before.taken_over_by(make(echo()));
        after.run(
            "? taken_over 1
             ? established 1
             > [P.] seq 6 ack 6 win 500 \"again\"
             < [P.] seq 6 ack 11 \"again\"",
        );
    }
}

#[test]
fn a_tagged_connection_stays_in_its_vlan() {
    let mut before = echo();
    before.vlan = Some(7);
    let mut before = before.established();
    let mut after = before.taken_over_by(echo());
    after.vlan = Some(7);
    after.run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn a_reply_that_was_lost_is_repeated() {
    let mut before = echo().established();
    before.run(
        "> [P.] seq 1 ack 1 win 500 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
    let mut after = before.taken_over_by(echo());
    after.run(
        "+1100ms
         < [P.] seq 1 ack 6 \"hello\"
         > [.] seq 6 ack 6 win 500
         +60s",
    );
}

#[test]
fn a_reply_that_is_acknowledged_later_is_not_repeated() {
    let mut before = echo().established();
    before.run(
        "> [P.] seq 1 ack 1 win 500 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
    let mut after = before.taken_over_by(echo());
    after.run(
        "> [P.] seq 6 ack 6 win 500 \"again\"
         < [P.] seq 6 ack 11 \"again\"
         > [.] seq 11 ack 11 win 500
         +60s",
    );
}

#[test]
fn what_waits_for_the_peers_window_leaves_when_it_opens() {
    let mut before = echo();
    before.run(
        "> [S] seq 0 win 600 <mss 1460>
         < [S.] seq 0 ack 1
         > [.] seq 1 ack 1 win 600
         > [P.] seq 1 ack 1 win 600 len 1000
         < [.] seq 1 ack 1001 len 600",
    );
    let mut after = before.taken_over_by(echo());
    after.run(
        "> [.] seq 1001 ack 601 win 5000
         < [P.] seq 601 ack 1001 len 400
         > [.] seq 1001 ack 1001 win 5000
         +60s",
    );
}

#[test]
fn a_handshake_is_completed() {
    let mut before = echo();
    before.run(
        "> [S] seq 0 win 64000 <mss 1460>
         < [S.] seq 0 ack 1",
    );
    let mut after = before.taken_over_by(echo());
    after.run(
        "? syn_received 1
         > [.] seq 1 ack 1
         ? established 1
         > [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
}

#[test]
fn a_syn_ack_that_was_lost_is_repeated() {
    let mut before = echo();
    before.run(
        "> [S] seq 0 win 64000 <mss 1460>
         < [S.] seq 0 ack 1",
    );
    let mut after = before.taken_over_by(echo());
    after.run(
        "+2s
         < [S.] seq 0 ack 1
         > [.] seq 1 ack 1
         ? established 1",
    );
}

#[test]
fn a_cookie_is_redeemed() {
    let cookies_only = |config: &mut barewire_tcp::StackConfig| config.half_open = 0;
    let mut before = Trace::echo_with(cookies_only);
    before.run(
        "> [S] seq 0 win 64000 <mss 1460>
         < [S.] seq 0 ack 1
         ? syncookies_sent 1",
    );
    let mut after = before.taken_over_by(echo());
    after.run(
        "> [P.] seq 1 ack 1 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         ? syncookies_recv 1",
    );
}

#[test]
fn a_message_that_has_begun_is_completed() {
    let mut before = lines().established();
    before.run(
        "> [P.] seq 1 ack 1 win 500 \"hel\"
         < [.] seq 1 ack 4",
    );
    assert_eq!(before.shard().stays(), 0);
    before.taken_over_by(lines()).run(
        "+1ms
         > [P.] seq 4 ack 1 win 500 \"lo\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"",
    );
}

#[test]
fn what_its_service_has_taken_a_part_of_stays() {
    let mut before = lines().established();
    before.run(
        "> [P.] seq 1 ack 1 win 500 \"body 9\\n12345\"
         < [.] seq 1 ack 13",
    );
    assert_eq!(before.shard().stays(), 1);
    let Departure { connections, .. } = before.shard().depart();
    assert_eq!(connections, 0);
    // Nothing has happened to it.
    before.run(
        "> [P.] seq 13 ack 1 win 500 \"6789\"
         < [P.] seq 1 ack 17 \"ok\\n\"",
    );
}

#[test]
fn what_stays_is_drained_and_what_travels_is_not() {
    let mut before = lines().established();
    before.run(
        "> [P.] seq 1 ack 1 win 500 \"body 9\\n12345\"
         < [.] seq 1 ack 13
         2> [S] seq 0 win 64000 <mss 1460>
         2< [S.] seq 0 ack 1
         2> [.] seq 1 ack 1",
    );
    let now = before.now;
    before.shard().leave(now);
    before.run(
        "3> [S] seq 0 win 64000 <mss 1460>
         ? listen_drops_draining 1
         > [P.] seq 13 ack 1 win 500 \"6789\"
         < [P.] seq 1 ack 17 \"ok\\n\"
         < [F.] seq 4 ack 17
         > [F.] seq 17 ack 5
         < [.] seq 5 ack 18",
    );
    assert_eq!(before.shard().stays(), 0);
    let mut after = before.taken_over_by(lines());
    after.run(
        "? established 1
         ? time_wait 1
         2> [P.] seq 1 ack 1 \"hello\\n\"
         2< [P.] seq 1 ack 7 \"hello\\n\"",
    );
}

#[test]
fn a_drain_that_is_called_off_changes_nothing() {
    let mut trace = echo().established();
    let now = trace.now;
    trace.shard().leave(now);
    trace.shard().stay();
    trace.run(
        "2> [S] seq 0 win 64000 <mss 1460>
         2< [S.] seq 0 ack 1
         2> [.] seq 1 ack 1
         > [P.] seq 1 ack 1 win 500 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"
         ? established 2",
    );
}

#[test]
fn what_ends_is_remembered() {
    let mut before = lines().established();
    before.run(
        "> [P.] seq 1 ack 1 win 500 \"close\\n\"
         < [F.] seq 1 ack 7 \"bye\\n\"",
    );
    let mut after = before.taken_over_by(lines());
    after.run(
        "? time_wait 1
         > [.] seq 7 ack 6 win 500
         > [F.] seq 7 ack 6 win 500
         < [.] seq 6 ack 8
         ? out_rsts 0",
    );
    // Once more, from TIME-WAIT to TIME-WAIT.
    after.taken_over_by(lines()).run(
        "? time_wait 1
         > [F.] seq 7 ack 6 win 500
         < [.] seq 6 ack 8
         ? out_rsts 0",
    );
}

#[test]
fn timestamps_go_on() {
    let with = || {
        Trace::echo_with(|config| {
            config.direct_path = DirectPath::Always;
            config.timestamps = true;
        })
    };
    let mut before = with();
    before.run(
        "> [S] seq 0 win 64000 <mss 1460,sackOK,ts 100>
         < [S.] seq 0 ack 1
         > [.] seq 1 ack 1 win 64000 <ts 101>
         +5ms
         > [P.] seq 1 ack 1 win 64000 <ts 106:0> \"hello\"
         < [P.] seq 1 ack 6 <ts 5:106> \"hello\"",
    );
    let mut after = before.taken_over_by(with());
    after.run(
        "+2ms
         > [P.] seq 6 ack 6 win 64000 <ts 108:5> \"again\"
         < [P.] seq 6 ack 11 <ts 7:108> \"again\"
         > [P.] seq 11 ack 11 win 64000 <ts 90:5> \"stray\"
         < [.] seq 11 ack 11 <ts 7:108>
         ? paws_estab 1",
    );
}

#[test]
fn a_spent_cookie_stays_spent() {
    let cookies_only = |config: &mut barewire_tcp::StackConfig| {
        config.half_open = 0;
        config.direct_path = DirectPath::Always;
    };
    let mut before = Trace::lines_with(cookies_only);
    before.run(
        "> [S] seq 0
         < [S.] seq 0 ack 1
         > [P.] seq 1 ack 1 \"abort\\n\"
         < [R.] seq 1 ack 1",
    );
    before.taken_over_by(Trace::lines_with(cookies_only)).run(
        "> [P.] seq 1 ack 1 \"abort\\n\"
         < [R] seq 1
         ? syncookies_spent 1",
    );
}

#[test]
fn how_long_it_was_idle_counts_on() {
    let mut before = echo().established();
    before.ignore(Duration::from_secs(70));
    let mut after = before.taken_over_by(echo());
    after.run(
        "+4s
         ? idle_timeouts 0
         +2s
         < [F.] seq 1 ack 1
         ? idle_timeouts 1",
    );
}

#[test]
fn what_is_known_already_is_not_taken_twice() {
    let mut before = echo().established();
    let Departure { bytes, connections } = before.shard().depart();
    assert_eq!(connections, 1);
    let now = before.now;
    let mut after = before.taken_over_by(echo());
    assert_eq!(after.shard().arrive(&bytes, now), Ok(0));
    after.run("? established 1\n? taken_over 1");
}

#[test]
fn a_shard_without_a_direct_path_goes_on_with_sockets() {
    let mut before = echo().established();
    before.run(
        "> [P.] seq 1 ack 1 win 500 \"hello\"
         < [P.] seq 1 ack 6 \"hello\"",
    );
    let never = Trace::echo_with(|config| config.direct_path = DirectPath::Never);
    let mut after = before.taken_over_by(never);
    after.run(
        "? sockets 1
         > [P.] seq 6 ack 6 win 500 \"again\"
         < [P.] seq 6 ack 11 \"again\"",
    );
}

#[test]
fn bytes_of_another_version_are_refused() {
    let mut before = echo().established();
    let mut bytes = before.shard().depart().bytes;
    let now = before.now;
    bytes.pop();
    assert_eq!(echo().shard().arrive(&bytes, now), Err(Malformed));
    assert_eq!(echo().shard().arrive(&[], now), Err(Malformed));
}
