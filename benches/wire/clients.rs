//! Many connections, each with one call at a time, on one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, bail};
use barewire_benches::traffic::{Random, Traffic, message};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

struct Client {
    stream: TcpStream,
    response: Vec<u8>,
}

/// Makes calls, each with other content, as fast as they are answered.
pub fn ask(
    address: SocketAddr,
    traffic: Traffic,
    calls: u64,
    connections: usize,
) -> anyhow::Result<()> {
    let mut random = Random::default();
    let ready = epoll::create(CreateFlags::CLOEXEC)?;
    let mut clients = Vec::with_capacity(connections);
    for at in 0..connections as u64 {
        let stream = TcpStream::connect(address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&ready, &stream, EventData::new_u64(at), EventFlags::IN)?;
        clients.push(Client {
            stream,
            response: Vec::with_capacity(4096),
        });
    }
    let began = Instant::now();
    let (mut begun, mut answered) = (0, 0);
    for client in &mut clients {
        begun += client.begin(traffic, &mut random, begun < calls)?;
    }
    let nothing = Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    };
    let mut events = vec![nothing; 256];
    while answered < calls {
        let count = epoll::wait(&ready, &mut events[..], None)?;
        for event in &events[..count] {
            let client = &mut clients[event.data.u64() as usize];
            if client.is_answered()? {
                answered += 1;
                begun += client.begin(traffic, &mut random, begun < calls)?;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{answered} calls in {seconds:.2} s");
    Ok(())
}

impl Client {
    /// Sends the next request if `goes_on`. Returns how many that is.
    fn begin(
        &mut self,
        traffic: Traffic,
        random: &mut Random,
        goes_on: bool,
    ) -> anyhow::Result<u64> {
        if goes_on {
            let (request, _) = message(traffic, random);
            // It is shorter than any socket buffer, of which nothing else is in use.
            self.stream.write_all(&request).context("cannot send")?;
        }
        Ok(goes_on.into())
    }

    /// Reads what has arrived; whether the response is complete now.
    fn is_answered(&mut self) -> anyhow::Result<bool> {
        let mut space = [0; 8192];
        match self.stream.read(&mut space) {
            Ok(0) => bail!("the server ended a connection"),
            Ok(count) => self.response.extend_from_slice(&space[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(len) = head.parse(&self.response)? else {
            return Ok(false);
        };
        if head.code != Some(200) {
            bail!("answered {:?}", head.code);
        }
        let mut lengths = head.headers.iter();
        let length = lengths.find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length = length.context("a response without a length")?.value;
        let length: usize = std::str::from_utf8(length)?.parse()?;
        let is_whole = self.response.len() == len + length;
        if is_whole {
            self.response.clear();
        }
        Ok(is_whole)
    }
}
