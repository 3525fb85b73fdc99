//! Any field blocks on one connection: a handler sees only what it may rely on, and nothing panics.
#![no_main]

use barewire_conformance::driver::Memory;
use barewire_conformance::http2::{PREFACE, frame, settings};
use barewire_http::{Answer, Handler, Method, Request, Responder, Response, Route, Routes};
use libfuzzer_sys::fuzz_target;

const ROUTES: &[Route<()>] = &[Route::new("/{*path}")
    .get(fields)
    .on(Method::Post, Handler::Head(fields))];

/// Checks what a handler may rely on.
fn fields(_: &mut (), request: &Request<'_>, response: Response<'_, '_>) -> Answer {
    assert!(request.path().iter().all(u8::is_ascii_graphic));
    for (name, value) in request.fields() {
        assert!(!name.is_empty() && !name.iter().any(u8::is_ascii_uppercase));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0')));
    }
    assert!(request.field("host").is_some());
    response.empty()
}

fuzz_target!(|blocks: Vec<Vec<u8>>| {
    let routes = Routes::new(ROUTES).expect("the table is consistent");
    let mut memory = Memory::new(Responder::new(&routes, ()));
    let mut connection = memory.connect();
    memory.send(&mut connection, &[&PREFACE[..], &settings(&[])].concat());
    for (index, block) in blocks.iter().enumerate() {
        let block = [&b"\x82\x86\x84\x01\x01a"[..], &block[..block.len().min(8192)]].concat();
        if !memory.send(&mut connection, &frame(1, 5, 2 * index as u32 + 1, &block)) {
            break;
        }
    }
    memory.end(&mut connection);
});
