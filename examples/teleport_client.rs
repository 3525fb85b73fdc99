//! Calls an origin that serves teleport, all paths as one batch: `teleport_client ADDRESS:PORT PATH...`.
//!
//! The origin is `teleport_server`, or `barewire serve --teleport-listen ADDRESS:PORT`.

use std::error::Error;
use std::net::TcpStream;

use barewire_teleport::{Client, Limits};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .ok_or("usage: teleport_client ADDRESS:PORT PATH...")?;
    let requests: Vec<_> = arguments
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
        .collect();
    let requests: Vec<_> = requests.iter().map(String::as_bytes).collect();

    let stream = TcpStream::connect(&address)?;
    stream.set_nodelay(true)?;
    let mut client = Client::new(stream, Limits::default());
    for response in client.ask(&requests)? {
        match response {
            Ok(message) => print!("{}", String::from_utf8_lossy(&message)),
            Err(reason) => println!("no response: {reason:?}"),
        }
    }
    Ok(())
}
