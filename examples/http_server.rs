//! HTTP with state of each core, path parameters and typed JSON: `http_server ADDRESS:PORT`.
//!
//! ```text
//! curl http://localhost:8080/hello/world
//! curl --json '{"numbers": [1, 2, 3]}' http://localhost:8080/sum
//! ```

use std::collections::BTreeMap;
use std::env::args;
use std::error::Error;

use barewire_http::{Answer, Request, Responder, Response, Route, Routes};
use barewire_kernel::{KernelConfig, epoll::Epoll};
use barewire_service::{Lifecycle, Stack};
use serde::Deserialize;

/// What the handlers of one core share. No other core sees it, so nothing is locked.
struct State {
    core: usize,
    greeted: u64,
}

const ROUTES: &[Route<State>] = &[
    Route::new("/hello/{name}").get(hello),
    Route::new("/sum").post(sum),
];

fn hello(state: &mut State, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
    let name = request.param("name").unwrap_or("nobody");
    let State { core, greeted } = state;
    *greeted += 1;
    response.field("X-Core", core.to_string()).text(&format!(
        "Hello, {name}. Core {core} has greeted {greeted}.\n"
    ))
}

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<f64>,
}

fn sum(_: &mut State, request: &Request<'_>, body: &[u8], response: Response<'_, '_>) -> Answer {
    match request.json::<Numbers>(body) {
        Ok(Numbers { numbers }) => {
            let sum: f64 = numbers.iter().sum();
            response.json(&BTreeMap::from([("sum", sum)]))
        }
        Err(error) => response.refuse(error),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = args().nth(1).ok_or("usage: http_server ADDRESS:PORT")?;
    let routes = Routes::new(ROUTES)?;
    let responder = move |core| Responder::new(&routes, State { core, greeted: 0 });
    let running =
        Epoll::new(KernelConfig::new(address.parse()?)).start(responder, &Lifecycle::new())?;
    println!("ready {:?}", running.addresses);
    Ok(running.wait()?)
}
