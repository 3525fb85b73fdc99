//! Routes that answer HTTP on one port and teleport on the next: `teleport_server ADDRESS:PORT`.
//!
//! ```text
//! teleport_client 127.0.0.1:8081 /hello/one /hello/two
//! ```

use std::env::args;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use barewire_http::{Answer, Request, Responder, Response, Route, Routes};
use barewire_kernel::{KernelConfig, epoll::Epoll};
use barewire_service::{Lifecycle, Stack};
use barewire_teleport::{ServiceLimits, Teleport, TeleportCounters};

const ROUTES: &[Route<()>] = &[Route::new("/hello/{name}").get(hello)];
/// The place of the second port among those that the stack listens on.
const TELEPORT: usize = 1;

fn hello((): &mut (), request: &Request<'_>, response: Response<'_, '_>) -> Answer {
    let name = request.param("name").unwrap_or("nobody");
    response.text(&format!("Hello, {name}.\n"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = args().nth(1).ok_or("usage: teleport_server ADDRESS:PORT")?;
    let address: SocketAddr = address.parse()?;
    let next_port = match address.port() {
        0 => 0,
        port => port + 1,
    };
    let routes = Routes::new(ROUTES)?;
    let service = move |_core| {
        let counters = Arc::<TeleportCounters>::default();
        let responder = Responder::new(&routes, ());
        Teleport::new(responder, TELEPORT, ServiceLimits::default(), counters)
    };
    let config = KernelConfig {
        listen_also: vec![SocketAddr::new(address.ip(), next_port)],
        ..KernelConfig::new(address)
    };
    let running = Epoll::new(config).start(service, &Lifecycle::new())?;
    println!("ready {:?}", running.addresses);
    Ok(running.wait()?)
}
