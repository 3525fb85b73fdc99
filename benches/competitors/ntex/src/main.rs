//! ntex, as a competitor: `competitor-ntex ADDR:PORT WORKERS`.

use std::env::args;
use std::io;

use mimalloc::MiMalloc;
use ntex::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use ntex::http::{HttpService, KeepAlive, Request, Response, StatusCode};
use ntex::time::Seconds;
use ntex::util::Ready;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[ntex::main]
async fn main() -> io::Result<()> {
    let address = args().nth(1).expect("an address");
    let workers = args().nth(2).and_then(|workers| workers.parse().ok());
    ntex::server::Server::build()
        .backlog(4096)
        .workers(workers.expect("a number of workers"))
        .bind("plaintext", address, |_| {
            HttpService::build()
                .keep_alive(KeepAlive::Os)
                .client_timeout(Seconds::ZERO)
                .headers_read_rate(Seconds::ZERO, Seconds::ZERO, 0)
                .h1(|request: Request| Ready::<_, io::Error>::Ok(respond(&request)))
        })?
        .run()
        .await
}

fn respond(request: &Request) -> Response {
    if request.path() != "/plaintext" {
        return Response::new(StatusCode::NOT_FOUND);
    }
    let mut response = Response::with_body(StatusCode::OK, "Hello, World!".into());
    let headers = response.headers_mut();
    headers.append(SERVER, HeaderValue::from_static("N"));
    headers.append(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
