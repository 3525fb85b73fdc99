//! Middleware, composed when it is compiled: `middleware ADDRESS:PORT USER:PASSWORD-IN-BASE64`.
//!
//! Then `curl --include --user user:password http://localhost:8080/`, if `echo -n user:password | base64`
//! was given.

use std::env::args;
use std::error::Error;
use std::ops::ControlFlow;

use barewire_http::middleware::{RateLimit, RequestId};
use barewire_http::{Answer, Middleware, Request, Responder, Response, Route, Routes, Status};
use barewire_kernel::{KernelConfig, epoll::Epoll};
use barewire_service::{Lifecycle, Stack};

const CHALLENGE: &str = "Basic realm=\"barewire\"";

/// Lets in who has the password (RFC 7617).
#[derive(Clone)]
struct BasicAuth {
    credentials: Vec<u8>,
}

impl<S> Middleware<S> for BasicAuth {
    fn before<'r, 's>(
        &mut self,
        _: &mut S,
        request: &Request<'_>,
        response: Response<'r, 's>,
    ) -> ControlFlow<Answer, Response<'r, 's>> {
        let given = request.field("Authorization").unwrap_or_default();
        let pairs = given.iter().zip(&self.credentials);
        // How long it takes does not tell how much of it was right.
        let difference = pairs.fold(0, |bits, (given, wanted)| bits | given ^ wanted);
        if difference == 0 && given.len() == self.credentials.len() {
            return ControlFlow::Continue(response);
        }
        let response = response.status(Status::Unauthorized);
        ControlFlow::Break(response.field("WWW-Authenticate", CHALLENGE).empty())
    }
}

const ROUTES: &[Route<()>] = &[Route::new("/").get(|_, _, response| response.text("Welcome.\n"))];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args().nth(1).zip(args().nth(2));
    let (address, secret) =
        arguments.ok_or("usage: middleware ADDRESS:PORT USER:PASSWORD-IN-BASE64")?;
    let credentials = format!("Basic {secret}").into_bytes();
    let (auth, routes) = (BasicAuth { credentials }, Routes::new(ROUTES)?);
    let responder = move |core: usize| {
        let ids = RequestId::new((core as u64) << 48);
        Responder::new(&routes, ())
            .with_middleware((RateLimit::new(10_000, 100), (ids, auth.clone())))
    };
    let running =
        Epoll::new(KernelConfig::new(address.parse()?)).start(responder, &Lifecycle::new())?;
    println!("ready {:?}", running.addresses);
    Ok(running.wait()?)
}
