//! Whatever arrives at either end of a teleport connection, it gives a fault or goes on, within its limits.

#![no_main]

use std::sync::Arc;

use barewire_teleport::{Compression, Endpoint, Event, Limits, Reason, Side, TeleportCounters};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    let compression = [Compression::None, Compression::Lz4, Compression::Zstd][usize::from(choice % 3)];
    let limits = Limits {
        calls_max: 8,
        call_credit_bytes: 4096,
        compression,
        ..Limits::default()
    };
    let side = if choice & 0x80 == 0 { Side::Server } else { Side::Client };
    let other = if side == Side::Server { Side::Client } else { Side::Server };
    let end = |side| Endpoint::new(side, limits, Arc::<TeleportCounters>::default());
    let (mut one, mut two) = (end(side), end(other));
    let mut space = vec![0; 256 * 1024];
    // The hellos are whole: behind them are the frames.
    for _ in 0..2 {
        let len = one.write(&mut space).expect("a hello needs no compressor");
        hear(&mut two, &space[..len]);
        let len = two.write(&mut space).expect("a hello needs no compressor");
        hear(&mut one, &space[..len]);
    }
    assert!(one.is_ready());
    for _ in 0..4 {
        one.open_call(b"request", false);
    }
    let mut bytes = Vec::new();
    if choice & 0x40 == 0 {
        // As one block.
        let len = rest.len().min(32 * 1024) as u32;
        bytes.extend_from_slice(&len.to_be_bytes());
    }
    bytes.extend_from_slice(rest);
    hear(&mut one, &bytes);
    assert!(one.calls() <= 8);
    while one.has_output() {
        one.write(&mut space).expect("what was accepted can be written");
    }
});

fn hear(end: &mut Endpoint, mut bytes: &[u8]) {
    let mut calls = Vec::new();
    while !bytes.is_empty() {
        let Ok(taken) = end.receive(bytes) else {
            return;
        };
        bytes = &bytes[taken..];
        loop {
            match end.next_event() {
                Ok(None) => break,
                Ok(Some(Event::Data { call, bytes, .. })) => calls.push((call, bytes.len())),
                Ok(Some(_)) => {}
                Err(fault) => return end.fail(fault),
            }
        }
        for (at, (call, count)) in calls.drain(..).enumerate() {
            end.grant(call, count);
            end.send(call, b"answer", at % 2 == 0, at % 3 == 0);
            if at % 5 == 0 {
                end.reset(call, Reason::Failed);
            }
        }
    }
}
