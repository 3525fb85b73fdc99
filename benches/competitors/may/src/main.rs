//! may_minihttp, as a competitor: `competitor-may ADDR:PORT WORKERS`.

use std::env::args;
use std::io;

use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Plaintext;

impl HttpService for Plaintext {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        if request.path() == "/plaintext" {
            response
                .header("Content-Type: text/plain")
                .body("Hello, World!");
        } else {
            response.status_code(404, "Not Found");
        }
        Ok(())
    }
}

fn main() {
    let address = args().nth(1).expect("an address");
    let workers = args().nth(2).and_then(|workers| workers.parse().ok());
    may::config()
        .set_pool_capacity(1000)
        .set_stack_size(0x1000)
        .set_workers(workers.expect("a number of workers"));
    let server = HttpServer(Plaintext)
        .start(address)
        .expect("a free address");
    server.join().expect("a server that does not end");
}
