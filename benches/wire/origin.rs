//! Answers that differ as those of a server do.

use std::net::SocketAddr;
use std::sync::Arc;

use barewire_benches::traffic::{Random, Traffic, message};
use barewire_http::{Answer, ContentType, Request, Responder, Response, Route, Routes};
use barewire_kernel::KernelConfig;
use barewire_kernel::epoll::Epoll;
use barewire_service::{Lifecycle, Stack};
use barewire_teleport::{ServiceLimits, Teleport, TeleportCounters};

const ROUTES: &[Route<Random>] = &[
    Route::new("/event").post(event),
    Route::new("/openrtb2/bid").post(bid),
    Route::new("/api/v1/items/{id}").get(item),
];

/// Serves until it is killed.
pub fn serve(http: SocketAddr, teleport: SocketAddr) -> anyhow::Result<()> {
    let routes = Routes::new(ROUTES)?;
    let service = move |_core| {
        let counters = Arc::<TeleportCounters>::default();
        let responder = Responder::new(&routes, Random::default());
        Teleport::new(responder, 1, ServiceLimits::default(), counters)
    };
    let config = KernelConfig {
        listen_also: vec![teleport],
        ..KernelConfig::new(http)
    };
    let running = Epoll::new(config).start(service, &Lifecycle::new())?;
    println!("ready {:?}", running.addresses);
    Ok(running.wait()?)
}

fn event(_: &mut Random, _: &Request<'_>, _: &[u8], response: Response<'_, '_>) -> Answer {
    response.empty()
}

fn bid(random: &mut Random, _: &Request<'_>, _: &[u8], response: Response<'_, '_>) -> Answer {
    response.body(ContentType::JSON, &content(Traffic::Bid, random))
}

fn item(random: &mut Random, _: &Request<'_>, response: Response<'_, '_>) -> Answer {
    response.body(ContentType::JSON, &content(Traffic::Browser, random))
}

/// What the next response has behind its head.
fn content(traffic: Traffic, random: &mut Random) -> Vec<u8> {
    let (_, response) = message(traffic, random);
    let head = response.windows(4).position(|end| end == b"\r\n\r\n");
    response[head.map_or(0, |head| head + 4)..].to_vec()
}
