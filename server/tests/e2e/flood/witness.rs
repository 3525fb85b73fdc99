//! A client that asks for one page after the other and writes down how long each took.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Target;

/// What the witness saw.
#[derive(Debug, Default)]
pub struct Testimony {
    /// Of each request that was answered; that of a connection's first holds its handshake.
    pub latencies: Vec<Duration>,
    /// Why the others were not.
    pub failed: Vec<io::Error>,
}

impl Testimony {
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted
            .get(at)
            .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Requests on one connection.
const KEPT_ALIVE: usize = 8;
/// How long an answer may take: as long as a few losses, which a flood brings with it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for as long as it `goes_on`, on a new connection now and then, at each address in turn.
pub fn asks(target: &Target, mut goes_on: impl FnMut() -> bool) -> Testimony {
    let mut testimony = Testimony::default();
    for address in target.addresses.iter().cycle() {
        let mut connection = None;
        for _ in 0..KEPT_ALIVE {
            if !goes_on() {
                return testimony;
            }
            let started = Instant::now();
            let outcome = (|| {
                let stream = match connection.take() {
                    Some(stream) => stream,
                    None => TcpStream::connect_timeout(address, TIMEOUT)?,
                };
                let port = stream.local_addr()?.port();
                target.witness_port.store(port, Ordering::Relaxed);
                ask(&stream)?;
                connection = Some(stream);
                Ok(())
            })();
            match outcome {
                Ok(()) => testimony.latencies.push(started.elapsed()),
                Err(error) => testimony.failed.push(error),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    testimony
}

fn ask(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /plaintext HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\nHello, World!") {
        let mut buffer = [0; 512];
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            received => reply.extend_from_slice(&buffer[..received]),
        }
    }
    Ok(())
}
