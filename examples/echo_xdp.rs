//! Sends back whatever arrives: `echo_xdp INTERFACE`.
//!
//! `echo_xdp`, `echo_epoll` and `echo_uring` differ in the line that makes the stack, and in what it imports.

use std::env::args;
use std::error::Error;

use barewire_service::{Expect, Input, Lifecycle, Next, Progress, Reply, Service, Stack};
use barewire_xdp::XdpConfig;

/// One core's service. It needs no state; a connection needs none, either.
struct Echo;

impl Service for Echo {
    type Connection = ();

    const REPLY_BYTES_MIN: usize = 1;

    fn on_input(&mut self, _: &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        let count = input.bytes.len().min(reply.remaining());
        let fits = reply.put(&input.bytes[..count]);
        debug_assert!(fits);
        Progress {
            consumed: count,
            messages: u32::from(count > 0),
            next: match count < input.bytes.len() {
                true => Next::Send,
                false => Next::Receive(Expect::Message),
            },
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let place = args().nth(1).ok_or("usage: echo_xdp INTERFACE")?;
    let stack = XdpConfig::new(place, 7);
    let running = stack.start(|_core| Echo, &Lifecycle::new())?;
    println!("ready {:?}", running.addresses);
    Ok(running.wait()?)
}
