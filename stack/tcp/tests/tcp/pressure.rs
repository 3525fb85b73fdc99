//! What a shard does when there is too much of everything: connections, timers, time that has passed at once.

use std::net::SocketAddr;
use std::sync::Arc;

use barewire_service::seats::Seats;
use barewire_service::time::Duration;
use barewire_tcp::config::{DirectPath, StackConfig, WhenFull};
use barewire_tcp::packet::Flags;
use barewire_tcp_testing::frame::TcpFrame;

use crate::trace::Trace;

/// Two connections, and cookies for all.
fn two(change: impl FnOnce(&mut StackConfig)) -> Trace {
    Trace::lines_with(|config| {
        config.connections = 2;
        config.half_open = 0;
        change(config);
    })
}

const BOTH: &str = "
    1> [S] seq 0
    1< [S.] seq 0 ack 1
    1> [.] seq 1 ack 1
    +1s
    2> [S] seq 0
    2< [S.] seq 0 ack 1
    2> [.] seq 1 ack 1
    +1s";

#[test]
fn the_idlest_gives_way() {
    let mut trace = two(|_| {});
    trace.run(BOTH).run(
        "1> [P.] seq 1 ack 1 \"hello\\n\"
         1< [P.] seq 1 ack 7 \"hello\\n\"
         1> [.] seq 7 ack 7
         3> [S] seq 0
         3< [S.] seq 0 ack 1
         3> [P.] seq 1 ack 1 \"hello\\n\"
         3< [P.] seq 1 ack 7 \"hello\\n\"
         2< [F.] seq 1 ack 1
         ? evictions 1
         ? connections 2
         # The other one notices nothing; this one hears that it was closed.
         1> [P.] seq 7 ack 7 \"again\\n\"
         1< [P.] seq 7 ack 13 \"again\\n\"
         2> [F.] seq 1 ack 2
         2< [R] seq 2",
    );
}

#[test]
fn who_owes_an_acknowledgment_or_a_request_is_reset() {
    two(|_| {}).run(BOTH).run(
        "1> [P.] seq 1 ack 1 \"hello\\n\"
         1< [P.] seq 1 ack 7 \"hello\\n\"
         2> [P.] seq 1 ack 1 \"drip\"
         2< [.] seq 1 ack 5
         +100ms
         3> [S] seq 0
         3< [S.] seq 0 ack 1
         3> [.] seq 1 ack 1
         1< [R.] seq 7 ack 7
         4> [S] seq 0
         4< [S.] seq 0 ack 1
         4> [.] seq 1 ack 1
         2< [R.] seq 1 ack 5
         ? evictions 2
         ? connections 2",
    );
}

#[test]
fn nobody_gives_way_for_a_syn_which_may_come_from_anywhere() {
    two(|config| config.half_open = 1).run(BOTH).run(
        "3> [S] seq 0
         3< [S.] seq 0 ack 1
         4> [S] seq 0
         4< [S.] seq 0 ack 1
         4> [.] seq 1 ack 4711
         4< [R] seq 4711
         ? evictions 0
         ? syncookies_sent 2
         ? connections 2",
    );
}

#[test]
fn nobody_gives_way_where_that_is_not_wanted() {
    two(|config| config.when_full = WhenFull::Refuse)
        .run(BOTH)
        .run(
            "3> [S] seq 0
             ? listen_overflows 1
             ? evictions 0
             ? connections 2",
        );
}

#[test]
fn a_source_has_so_many_connections_and_no_more() {
    for half_open in [0, 32] {
        Trace::lines_with(|config| {
            config.source_connections = 2;
            config.half_open = half_open;
        })
        .run(BOTH)
        .run(
            "3> [S] seq 0
             ? source_overflows 1
             1> [R] seq 1
             3> [S] seq 0
             3< [S.] seq 0 ack 1
             3> [.] seq 1 ack 1
             ? connections 2",
        );
    }
}

#[test]
fn handshakes_that_end_at_the_same_time_do_not_get_a_source_more() {
    Trace::lines_with(|config| config.source_connections = 1).run(
        "1> [S] seq 0
         1< [S.] seq 0 ack 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         1> [.] seq 1 ack 1
         2> [.] seq 1 ack 1
         2< [R.] seq 1 ack 1
         ? source_overflows 1
         ? connections 1",
    );
}

#[test]
fn there_is_no_answer_while_all_seats_are_taken() {
    let seats = Seats::new(1);
    let mut trace = Trace::lines_with(|config| {
        config.seats = Some(Arc::clone(&seats));
        config.half_open = 0;
    });
    let taken = seats.take();
    trace.run(
        "1> [S] seq 0
         ? seat_overflows 1",
    );
    drop(taken);
    trace.run(
        "1> [S] seq 0
         1< [S.] seq 0 ack 1",
    );
    // A cookie that comes back is no connection yet.
    let taken = seats.take();
    trace.run(
        "1> [.] seq 1 ack 1
         ? seat_overflows 2
         ? connections 0",
    );
    drop(taken);
    trace.run(
        "1> [.] seq 1 ack 1
         ? seat_overflows 2
         ? connections 1",
    );
}

#[test]
fn shards_count_the_connections_of_a_source_together() {
    let limit = |config: &mut StackConfig| config.source_connections = 1;
    let [mut one, mut other] = Trace::sharing_with(limit, || Trace::lines_with(limit));
    one.run(
        "1> [S] seq 0
         1< [S.] seq 0 ack 1
         1> [.] seq 1 ack 1",
    );
    other.run(
        "2> [S] seq 0
         ? source_overflows 1",
    );
    one.run("1> [R] seq 1");
    other.run(
        "2> [S] seq 0
         2< [S.] seq 0 ack 1",
    );
}

#[test]
fn a_tiny_segment_size_is_not_taken_at_its_word() {
    for half_open in [0, 32] {
        Trace::lines_with(|config| config.half_open = half_open).run(
            "> [S] seq 0 win 64000 <mss 48>
             < [S.] seq 0 ack 1
             ? mss_raised 1
             > [P.] seq 1 ack 1 win 64000 \"send 300\\n\"
             < [.] seq 1 ack 10 len 216
             < [P.] seq 217 ack 10 len 84",
        );
    }
}

/// Served directly, with two sockets for four connections.
fn two_sockets() -> Trace {
    Trace::lines_with(|config| {
        config.direct_path = DirectPath::Always;
        config.connections = 4;
        config.sockets = 2;
        config.half_open = 2;
    })
}

#[test]
fn an_idle_connection_has_no_socket() {
    let mut trace = two_sockets();
    for peer in 1..=4 {
        trace.run(&format!(
            "{peer}> [S] seq 0
             {peer}< [S.] seq 0 ack 1
             {peer}> [.] seq 1 ack 1
             ? sockets 0"
        ));
    }
    trace.run(
        "? established 4
         4> [P.] seq 1 ack 1 \"hello\\n\"
         4< [P.] seq 1 ack 7 \"hello\\n\"
         ? sockets 0",
    );
}

#[test]
fn a_drain_needs_no_sockets() {
    let mut trace = two_sockets();
    for peer in 1..=4 {
        trace.run(&format!(
            "{peer}> [S] seq 0
             {peer}< [S.] seq 0 ack 1
             {peer}> [.] seq 1 ack 1"
        ));
    }
    trace.drain();
    trace.run(
        "1< [F.] seq 1 ack 1
         2< [F.] seq 1 ack 1
         3< [F.] seq 1 ack 1
         4< [F.] seq 1 ack 1
         ? sockets 0
         2> [F.] seq 1 ack 2
         2< [.] seq 2 ack 2
         1> [F.] seq 1 ack 2
         1< [.] seq 2 ack 2
         3> [F.] seq 1 ack 2
         3< [.] seq 2 ack 2
         4> [F.] seq 1 ack 2
         4< [.] seq 2 ack 2
         ? connections 0
         ? socket_evictions 0
         ? estab_resets 0",
    );
}

#[test]
fn who_has_kept_a_socket_longest_gives_it_up() {
    let mut trace = two_sockets();
    // A line that does not end, and came with urgent data, takes a socket.
    for peer in 1..=3 {
        trace.run(&format!(
            "{peer}> [S] seq 0
             {peer}< [S.] seq 0 ack 1
             {peer}> [.] seq 1 ack 1
             +100ms"
        ));
    }
    for peer in 1..=2 {
        trace.run(&format!(
            "{peer}> [P.U] seq 1 ack 1 \"drip\"
             {peer}< [.] seq 1 ack 5
             +100ms"
        ));
    }
    trace.run(
        "3> [P.U] seq 1 ack 1 \"drip\"
         3< [.] seq 1 ack 5
         1< [R.] seq 1 ack 5
         ? sockets 2
         ? socket_evictions 1
         1> [P.] seq 5 ack 1 \"drop\"
         1< [R] seq 1
         2> [P.] seq 5 ack 1 \" drop\\n\"
         2< [P.] seq 1 ack 11 \"drip drop\\n\"
         3> [P.] seq 5 ack 1 \" drop\\n\"
         3< [P.] seq 1 ack 11 \"drip drop\\n\"",
    );
}

#[test]
fn half_open_connections_have_no_sockets() {
    two_sockets().run(
        "1> [S] seq 0
         1< [S.] seq 0 ack 1
         2> [S] seq 0
         2< [S.] seq 0 ack 1
         3> [S] seq 0
         3< [S.] seq 0 ack 1
         ? syncookies_sent 1
         ? sockets 0
         2> [.] seq 1 ack 1
         3> [.] seq 1 ack 1
         ? established 2
         ? sockets 0",
    );
}

#[test]
fn what_arrived_in_a_pause_is_heard_before_anybody_is_found_silent() {
    let mut trace = Trace::lines().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"",
    );
    // Longer than the user timeout, and more frames than a batch before the one that matters.
    trace.pause(Duration::from_secs(40));
    let stranger = TcpFrame {
        flags: Flags::RST,
        ..trace.frame(9)
    };
    let stranger = stranger.to_vec();
    let ack = trace.segment(1, 7, 7, b"");
    let frames = std::iter::repeat_n(&stranger[..], 200).chain([&ack[..]]);
    trace.push(frames);
    trace.run(
        "? pauses 1
         ? abort_on_timeout 0
         > [P.] seq 7 ack 7 \"again\\n\"
         < [P.] seq 7 ack 13 \"again\\n\"",
    );
}

#[test]
fn a_peer_whose_segments_were_lost_in_a_pause_is_asked_once_more() {
    let mut trace = Trace::lines().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"",
    );
    trace.pause(Duration::from_secs(40)).run(
        "< [P.] seq 1 ack 7 \"hello\\n\"
         > [.] seq 7 ack 7
         +30s
         ? pauses 1
         ? abort_on_timeout 0",
    );
}

#[test]
fn a_peer_that_is_silent_after_a_pause_as_well_is_given_up() {
    let mut trace = Trace::lines().established();
    trace.run(
        "> [P.] seq 1 ack 1 \"hello\\n\"
         < [P.] seq 1 ack 7 \"hello\\n\"",
    );
    trace.pause(Duration::from_secs(40));
    trace.ignore(Duration::from_millis(3_900));
    trace.run("? abort_on_timeout 0");
    trace.ignore(Duration::from_millis(200));
    trace.run("? abort_on_timeout 1\n? connections 0");
}

/// Handshakes from so many ports, begun or completed.
fn open_many(trace: &mut Trace, count: u16, complete: bool) {
    for port in 0..count {
        let source = SocketAddr::new(trace.peer, 10_000 + port);
        let syn = TcpFrame {
            source,
            flags: Flags::SYN,
            ..trace.frame(1)
        };
        trace.push([&syn.to_vec()[..]]);
        let link = &mut trace.shard().links_mut()[0];
        let isn = link.take(|frame| u32::from_be_bytes(frame[38..42].try_into().unwrap()));
        if complete {
            let ack = TcpFrame {
                flags: Flags::ACK,
                seq: syn.seq.wrapping_add(1),
                ack: isn.unwrap().wrapping_add(1),
                ..syn
            };
            trace.push([&ack.to_vec()[..]]);
        }
    }
}

/// Polls once more, and counts what is sent.
fn sent_in_one_turn(trace: &mut Trace) -> usize {
    let now = trace.now;
    let shard = trace.shard();
    shard.poll(now);
    let link = &mut shard.links_mut()[0];
    let sent = link.sent().len();
    link.clear_sent();
    sent
}

fn many() -> Trace {
    Trace::lines_with(|config| {
        config.connections = 1_000;
        config.half_open = 999;
    })
}

#[test]
fn timers_that_expire_at_the_same_time_are_spread_over_turns() {
    let mut trace = many();
    open_many(&mut trace, 600, false);
    trace.pause(Duration::from_millis(1_100));
    let mut sent = Vec::new();
    while trace.counter("retrans_segs") < 600 {
        let now = trace.now;
        assert!(trace.shard().next_deadline(now) <= Some(now));
        sent.push(sent_in_one_turn(&mut trace));
    }
    assert_eq!(sent, [256, 256, 88]);
    assert_eq!(trace.counter("timers_deferred"), 2);
}

#[test]
fn a_drain_reaches_all_connections_a_few_at_a_time() {
    let mut trace = many();
    open_many(&mut trace, 600, true);
    assert_eq!(trace.counter("established"), 600);
    trace.drain();
    let mut closed = vec![trace.counter("closing")];
    while trace.counter("closing") < 600 {
        sent_in_one_turn(&mut trace);
        closed.push(trace.counter("closing"));
    }
    assert_eq!(closed, [256, 512, 600]);
}

#[test]
fn the_way_back_follows_a_router_that_took_over() {
    // The answer went to the router that died; the peer asks again by way of another one.
    let mut trace = Trace::lines().established();
    let request = trace.segment(1, 1, 1, b"hello\n");
    trace.push([&request[..]]);
    let mut again = request.clone();
    let router = [0x02, 0, 0, 0, 0, 0x77];
    again[6..12].copy_from_slice(&router);
    trace.pause(Duration::from_millis(300)).push([&again[..]]);
    let link = &mut trace.shard().links_mut()[0];
    link.take(<[u8]>::to_vec);
    let to: Vec<[u8; 6]> =
        std::iter::from_fn(|| link.take(|frame| frame[..6].try_into().unwrap())).collect();
    assert!(
        !to.is_empty() && to.iter().all(|to| *to == router),
        "{to:?}"
    );
    trace.pause(Duration::from_millis(1_100));
    let now = trace.now;
    trace.shard().poll(now);
    let link = &mut trace.shard().links_mut()[0];
    let last = link.take(|frame| (frame[..6].to_vec(), frame[54..].to_vec()));
    assert_eq!(last, Some((router.to_vec(), b"hello\n".to_vec())));
}
