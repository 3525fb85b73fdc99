//! Two ends in memory: what one says, the other hears, however the bytes are cut.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use barewire_teleport::{
    CallId, Compression, Endpoint, Event, Fault, Limits, Reason, Side, TeleportCounters,
};
use proptest::prelude::*;

/// What an end heard, by the numbers of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Ready,
    Data(u32, Vec<u8>, bool),
    Credit(u32),
    Reset(u32, Reason),
    GoAway(u32),
    Pong,
}

fn end(side: Side, limits: Limits) -> Endpoint {
    Endpoint::new(side, limits, Arc::<TeleportCounters>::default())
}

fn pair(limits: Limits) -> (Endpoint, Endpoint) {
    let (mut client, mut server) = (end(Side::Client, limits), end(Side::Server, limits));
    assert_eq!(carry(&mut client, &mut server), Ok(vec![Heard::Ready]));
    assert_eq!(carry(&mut server, &mut client), Ok(vec![Heard::Ready]));
    (client, server)
}

/// All that an end has to write.
fn written(from: &mut Endpoint) -> Vec<u8> {
    let mut bytes = Vec::new();
    while from.has_output() {
        let mut space = [0; 1000];
        let len = from.write(&mut space).unwrap();
        bytes.extend_from_slice(&space[..len]);
    }
    bytes
}

fn hear(to: &mut Endpoint, mut bytes: &[u8]) -> Result<Vec<Heard>, Fault> {
    let mut heard = Vec::new();
    while !bytes.is_empty() {
        let taken = to.receive(bytes)?;
        bytes = &bytes[taken..];
        while let Some(event) = to.next_event()? {
            heard.push(match event {
                Event::Ready => Heard::Ready,
                Event::Data {
                    call,
                    bytes,
                    is_last,
                } => Heard::Data(call.number, bytes.to_vec(), is_last),
                Event::Credit(call) => Heard::Credit(call.number),
                Event::Reset(call, reason) => Heard::Reset(call.number, reason),
                Event::GoAway(last) => Heard::GoAway(last),
                Event::Pong => Heard::Pong,
            });
        }
    }
    Ok(heard)
}

fn carry(from: &mut Endpoint, to: &mut Endpoint) -> Result<Vec<Heard>, Fault> {
    let bytes = written(from);
    hear(to, &bytes)
}

fn ask(client: &mut Endpoint, text: &[u8]) -> CallId {
    let (id, count) = client.open_call(text, true).unwrap();
    assert_eq!(count, text.len());
    id
}

fn data(call: u32, text: &[u8]) -> Heard {
    Heard::Data(call, text.to_vec(), true)
}

#[test]
fn responses_come_in_any_order() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let limits = Limits {
            compression,
            ..Limits::default()
        };
        let (mut client, mut server) = pair(limits);
        assert_eq!(client.compression(), Some(compression));
        let one = ask(&mut client, b"one");
        let two = ask(&mut client, b"two");
        let heard = carry(&mut client, &mut server);
        assert_eq!(heard, Ok(vec![data(1, b"one"), data(2, b"two")]));
        server.send(two, b"second", false, true);
        server.send(one, b"first", false, true);
        let heard = carry(&mut server, &mut client);
        assert_eq!(heard, Ok(vec![data(2, b"second"), data(1, b"first")]));
        assert!(client.is_idle() && server.is_idle());
    }
}

#[test]
fn the_denser_compression_is_used_that_both_offer() {
    let offers = |compression| Limits {
        compression,
        ..Limits::default()
    };
    let mut client = end(Side::Client, offers(Compression::Lz4));
    let mut server = end(Side::Server, offers(Compression::Zstd));
    carry(&mut client, &mut server).unwrap();
    carry(&mut server, &mut client).unwrap();
    assert_eq!(client.compression(), Some(Compression::Lz4));
    assert_eq!(server.compression(), Some(Compression::Lz4));
}

#[test]
fn a_call_sends_as_much_as_the_other_end_grants_and_the_others_go_on() {
    let limits = Limits {
        call_credit_bytes: 1_000,
        ..Limits::default()
    };
    let (mut client, mut server) = pair(limits);
    let (slow, count) = client.open_call(&[7; 1_500], true).unwrap();
    assert_eq!(count, 1_000);
    assert_eq!(client.send(slow, &[7; 500], false, true), None);
    let fast = ask(&mut client, b"fast");
    let heard = carry(&mut client, &mut server).unwrap();
    assert_eq!(heard[1], data(fast.number, b"fast"));

    server.grant(slow, 400);
    assert!(!server.has_output(), "less than half is not worth a frame");
    server.grant(slow, 200);
    assert_eq!(carry(&mut server, &mut client), Ok(vec![Heard::Credit(1)]));
    assert_eq!(client.send(slow, &[7; 500], false, true), Some(500));
}

#[test]
fn what_is_on_the_way_is_bounded_by_the_window_until_it_was_read() {
    let limits = Limits {
        compression: Compression::None,
        call_credit_bytes: 10_000_000,
        window_bytes: 40_000,
        ..Limits::default()
    };
    let (mut client, mut server) = pair(limits);
    let (id, _) = client.open_call(&[1; 1_000], false).unwrap();
    let mut bytes = Vec::new();
    while client.send(id, &[1; 10_000], false, false).is_some() {
        bytes.extend(written(&mut client));
    }
    assert!((40_000..60_000).contains(&bytes.len()), "{}", bytes.len());
    hear(&mut server, &bytes).unwrap();
    carry(&mut server, &mut client).unwrap();
    assert_eq!(client.send(id, &[1; 10_000], false, false), Some(10_000));
}

#[test]
fn a_call_that_is_given_up_takes_no_others_with_it() {
    let (mut client, mut server) = pair(Limits::default());
    let one = ask(&mut client, b"one");
    let two = ask(&mut client, b"two");
    carry(&mut client, &mut server).unwrap();
    client.reset(one, Reason::Cancelled);
    // On its way already.
    server.send(one, b"late", false, true);
    let late = written(&mut server);
    let heard = carry(&mut client, &mut server);
    assert_eq!(heard, Ok(vec![]), "the server is done with it");
    assert_eq!(hear(&mut client, &late), Ok(vec![]));

    server.reset(two, Reason::Refused);
    let heard = carry(&mut server, &mut client);
    assert_eq!(heard, Ok(vec![Heard::Reset(2, Reason::Refused)]));
    assert!(client.is_idle() && server.is_idle());
}

#[test]
fn calls_are_as_many_as_allowed_and_no_more() {
    let limits = Limits {
        calls_max: 2,
        ..Limits::default()
    };
    let (mut client, mut server) = pair(limits);
    let one = ask(&mut client, b"one");
    ask(&mut client, b"two");
    assert_eq!(client.open_call(b"three", true), None);
    carry(&mut client, &mut server).unwrap();
    server.send(one, b"first", false, true);
    carry(&mut server, &mut client).unwrap();
    ask(&mut client, b"three");
}

#[test]
fn a_server_that_goes_away_says_which_calls_it_answers() {
    let (mut client, mut server) = pair(Limits::default());
    let one = ask(&mut client, b"one");
    carry(&mut client, &mut server).unwrap();
    server.go_away();
    ask(&mut client, b"too late");
    let crossing = written(&mut client);
    let heard = carry(&mut server, &mut client);
    assert_eq!(heard, Ok(vec![Heard::GoAway(one.number)]));
    assert_eq!(hear(&mut server, &crossing), Ok(vec![]));
    assert_eq!(client.open_call(b"x", true), None);
    server.send(one, b"first", false, true);
    assert_eq!(carry(&mut server, &mut client), Ok(vec![data(1, b"first")]));
}

#[test]
fn a_ping_is_answered() {
    let (mut client, mut server) = pair(Limits::default());
    client.ping([1; 8]);
    client.ping([2; 8]);
    assert_eq!(carry(&mut client, &mut server), Ok(vec![]));
    assert_eq!(carry(&mut server, &mut client), Ok(vec![Heard::Pong]));
}

/// A block without compression.
fn block(frames: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend((frames.len() as u16).to_be_bytes());
    bytes.extend_from_slice(frames);
    bytes
}

#[test]
fn who_breaks_the_protocol_is_told_apart() {
    let small = Limits {
        calls_max: 1,
        call_credit_bytes: 3,
        ..Limits::default()
    };
    let data = |call: u8, text: &[u8]| {
        let mut frame = vec![1, 0, 0, text.len() as u8, 0, 0, 0, call];
        frame.extend_from_slice(text);
        frame
    };
    let ping = [4, 0, 0, 8, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    for (bytes, fault) in [
        (vec![2, 0, 0, 1, 0], Fault::Block),
        (vec![0, 0, 0, 0], Fault::Block),
        (vec![0, 0, 0x80, 1], Fault::Block),
        (vec![1, 0, 0, 4, 1, 2, 3, 4], Fault::Compressed),
        (block(&[9, 0, 0, 0, 0, 0, 0, 0]), Fault::Frame),
        (block(&data(1, b"more")), Fault::Credit),
        (
            block(&[data(1, b"a"), data(2, b"b")].concat()),
            Fault::Calls,
        ),
        (block(&[3, 0, 0, 1, 0, 0, 0, 9, 2]), Fault::Call),
        (block(&[ping, ping].concat()), Fault::Ping),
    ] {
        let (_, mut server) = pair(small);
        assert_eq!(hear(&mut server, &bytes), Err(fault), "{bytes:?}");
        server.fail(fault);
        assert!(server.has_output(), "the other end is told");
    }
    let mut server = end(Side::Server, small);
    let heard = hear(&mut server, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(heard, Err(Fault::NotTeleport));
}

#[test]
fn another_version_is_refused_with_a_hello_that_says_which() {
    let mut client = end(Side::Client, Limits::default());
    let mut hello = written(&mut client);
    (hello[5], hello[6]) = (9, 8);
    let mut server = end(Side::Server, Limits::default());
    let fault = Fault::Version {
        lowest: 8,
        highest: 9,
    };
    assert_eq!(hear(&mut server, &hello), Err(fault));
    let said = written(&mut server);
    assert_eq!((said.len(), said[5], said[6]), (20, 1, 1));
}

#[test]
fn nothing_is_allocated_for_a_call_once_a_connection_has_had_some() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let limits = Limits {
            compression,
            ..Limits::default()
        };
        let (mut client, mut server) = pair(limits);
        let (mut wire, text) = (vec![0; 100_000], vec![b'x'; 300]);
        let mut round = |calls: usize| {
            let mut ids = [None; 128];
            for id in &mut ids[..calls] {
                let (call, _) = client.open_call(&text, true).unwrap();
                *id = Some(call);
            }
            let len = client.write(&mut wire).unwrap();
            take_all(&mut server, &wire[..len]);
            for id in ids.iter().flatten() {
                server.send(*id, &text, false, true);
            }
            let len = server.write(&mut wire).unwrap();
            take_all(&mut client, &wire[..len]);
        };
        round(100);
        let counted = allocation_counter::measure(|| (0..50).for_each(|_| round(100)));
        assert_eq!(counted.count_total, 0, "{compression:?}");
    }
}

fn take_all(to: &mut Endpoint, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let taken = to.receive(bytes).unwrap();
        bytes = &bytes[taken..];
        while to.next_event().unwrap().is_some() {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Messages of any length, sent in any pieces, arrive as they are, however the wire cuts them.
    #[test]
    fn messages_arrive_whole(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9_000), 1..12),
        pieces in proptest::collection::vec((0usize..12, 1usize..4_000, any::<bool>()), 1..200),
        cuts in proptest::collection::vec(1usize..3_000, 1..20),
        which in 0usize..3,
    ) {
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd][which];
        let limits = Limits { compression, call_credit_bytes: 2_000, window_bytes: 4_000, ..Limits::default() };
        let (mut client, mut server) = pair(limits);
        let mut ids: Vec<Option<CallId>> = vec![None; messages.len()];
        let mut sent = vec![0; messages.len()];
        let mut arrived = vec![(Vec::new(), false); messages.len()];
        let mut cuts = cuts.into_iter().cycle();
        let all = (0..messages.len()).map(|at| (at, usize::MAX, false));
        let mut pieces = pieces.into_iter().chain(all.cycle());
        for _ in 0..5_000 {
            if arrived.iter().all(|(_, is_whole)| *is_whole) {
                break;
            }
            for _ in 0..3 {
                let Some((at, len, is_secret)) = pieces.next() else { break };
                let at = at % messages.len();
                let rest = &messages[at][sent[at]..];
                if rest.is_empty() {
                    continue;
                }
                let len = len.min(rest.len());
                let ends = len == rest.len();
                let count = match ids[at] {
                    Some(id) => client.send(id, &rest[..len], is_secret, ends),
                    None => client.open_call(&rest[..len], ends).map(|(id, count)| {
                        ids[at] = Some(id);
                        count
                    }),
                };
                sent[at] += count.unwrap_or(0);
            }
            let bytes = written(&mut client);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let cut = cuts.next().unwrap_or(1).min(rest.len());
                for heard in hear(&mut server, &rest[..cut]).unwrap() {
                    let Heard::Data(number, bytes, is_last) = heard else { panic!("{heard:?}") };
                    let is_it = |id: &Option<CallId>| id.is_some_and(|id| id.number == number);
                    let at = ids.iter().position(is_it).unwrap();
                    // The first call of either end has its first slot, and so on.
                    let call = CallId { slot: number - 1, number };
                    server.grant(call, bytes.len());
                    arrived[at].0.extend(bytes);
                    arrived[at].1 = is_last;
                }
                rest = &rest[cut..];
            }
            carry(&mut server, &mut client).unwrap();
        }
        for (message, (bytes, is_whole)) in messages.iter().zip(&arrived) {
            prop_assert!(*is_whole && bytes == message);
        }
    }

    /// Whatever arrives, an end gives an answer or a fault, and keeps its limits.
    #[test]
    fn garbage_ends_in_a_fault_or_in_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), as_block: bool) {
        let (_, mut server) = pair(Limits::default());
        let bytes = if as_block { block(&bytes) } else { bytes };
        if let Err(fault) = hear(&mut server, &bytes) {
            server.fail(fault);
        }
        written(&mut server);
    }
}
