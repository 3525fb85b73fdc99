//! Calls an echo server over ten connections, past the kernel: `client_xdp INTERFACE ADDRESS:PORT`.

use std::env::args;
use std::error::Error;

use barewire_service::service::{End, Want};
use barewire_service::time::Instant;
use barewire_service::{Expect, Input, Lifecycle, Next, Phase, Progress, Reply, Service, Stack};
use barewire_xdp::{Calls, XdpConfig};

const CALLS: u64 = 10;
const HELLO: &[u8] = b"Hello!";

struct Client {
    opened: u64,
    ended: u64,
    lifecycle: Lifecycle,
}

impl Service for Client {
    /// Whether it has said hello.
    type Connection = bool;

    const REPLY_BYTES_MIN: usize = HELLO.len();

    fn wants(&mut self, _: Instant) -> Want {
        if self.opened == CALLS {
            return Want::Nothing { until: None };
        }
        self.opened += 1;
        Want::Open(self.opened)
    }

    fn on_input(&mut self, said: &mut bool, input: Input<'_>, reply: &mut Reply<'_>) -> Progress {
        // Called without input once the connection is established: the client speaks first.
        *said = *said || reply.put(HELLO);
        let is_whole = input.bytes == HELLO;
        Progress {
            consumed: if is_whole { HELLO.len() } else { 0 },
            messages: u32::from(is_whole),
            next: match is_whole || input.ended {
                true => Next::Close,
                false => Next::Receive(Expect::Message),
            },
        }
    }

    fn on_end(&mut self, _: &mut bool, end: End) {
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
    let mut stack = XdpConfig::calling(interface, Calls::to(server.parse()?));
    stack.cores = vec![0];
    let lifecycle = Lifecycle::new();
    let client = {
        let lifecycle = lifecycle.clone();
        move |_core| Client { opened: 0, ended: 0, lifecycle: lifecycle.clone() }
    };
    Ok(stack.start(client, &lifecycle)?.wait()?)
}
