//! Calls an echo server over ten connections, past the kernel: `client_xdp INTERFACE ADDRESS:PORT`.

use barewire_service::{Lifecycle, Phase, Stack, service::*, time::Instant};
use barewire_xdp::{Calls, XdpConfig};
use std::{env::args, error::Error};

const CALLS: u64 = 10;

#[derive(Clone, Default)]
struct Client {
    lifecycle: Lifecycle,
    opened: u64,
    ended: u64,
}

impl Service for Client {
    type Connection = ();
    const REPLY_BYTES_MIN: usize = 6;

    fn wants(&mut self, _: Instant) -> Want {
        if self.opened == CALLS {
            return Want::Nothing { until: None };
        }
        self.opened += 1;
        Want::Open(self.opened)
    }

    fn on_input(&mut self, _: &mut (), input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        // Without input, the connection is established: the client speaks first.
        let _ = input.bytes.is_empty() && reply.put(b"Hello!");
        let next = match input.bytes {
            b"Hello!" => Next::Close,
            _ => Next::Receive(Expect::Message),
        };
        Progress {
            consumed: 0,
            messages: 0,
            next,
        }
    }

    fn on_end(&mut self, _: &mut (), end: End) {
        self.ended += 1;
        println!("call {} of {CALLS}: {end:?}", self.ended);
        if self.ended == CALLS {
            self.lifecycle.advance(Phase::Stop);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args().nth(1).zip(args().nth(2));
    let (interface, server) = arguments.ok_or("usage: client_xdp INTERFACE ADDRESS:PORT")?;
    let stack = XdpConfig::calling(interface, Calls::to(server.parse()?));
    let client = Client::default();
    let lifecycle = client.lifecycle.clone();
    let running = stack.start(move |_core| client.clone(), &lifecycle)?;
    Ok(running.wait()?)
}
