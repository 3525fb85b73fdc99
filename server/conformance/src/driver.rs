//! Carries the bytes of a case to a server, and its answer back.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use barewire_service::service::{Input, Next, Reply, Service};

/// A way to a server.
pub trait Driver {
    /// Sends `segments` one after the other on a new connection, then ends the stream, and returns all
    /// that came back until the server ended it, too.
    ///
    /// # Errors
    ///
    /// If the way to the server is broken. A server that answers nothing is no error.
    fn exchange(&mut self, segments: &[&[u8]]) -> io::Result<Vec<u8>>;
}

/// Runs a [`Service`] by its contract, with receive and send space of fixed sizes.
#[derive(Debug)]
pub struct Memory<S> {
    /// The service; on one core there is one for all connections.
    pub service: S,
    /// Size of the receive buffer.
    pub receive_bytes: usize,
    /// Room for a reply at each call, at least [`Service::REPLY_BYTES_MIN`].
    pub reply_bytes: usize,
    /// Where replies are written.
    space: Vec<u8>,
}

/// A connection to the service in a [`Memory`].
#[derive(Debug)]
pub struct Connection<S: Service> {
    state: S::Connection,
    received: Vec<u8>,
    /// All that the service wrote so far.
    pub sent: Vec<u8>,
    /// What the service said last.
    pub next: Option<Next>,
    /// Requests that the service completed.
    pub messages: u32,
}

impl<S: Service> Memory<S> {
    /// With buffers as large as those of a usual stack.
    pub fn new(service: S) -> Self {
        Memory {
            service,
            receive_bytes: 24 * 1024,
            reply_bytes: 32 * 1024,
            space: Vec::new(),
        }
    }

    /// Opens a connection.
    pub fn connect(&self) -> Connection<S> {
        Connection {
            state: S::Connection::default(),
            received: Vec::new(),
            sent: Vec::new(),
            next: None,
            messages: 0,
        }
    }

    /// Brings `segment` to the service and takes what it sends. Returns false once it has closed.
    pub fn send(&mut self, connection: &mut Connection<S>, mut segment: &[u8]) -> bool {
        while !segment.is_empty() && !connection.is_closed() {
            let room = self.receive_bytes - connection.received.len();
            assert!(
                room > 0,
                "the service neither consumes nor refuses a full buffer"
            );
            let (now, later) = segment.split_at(room.min(segment.len()));
            connection.received.extend_from_slice(now);
            segment = later;
            self.turn(connection, false);
        }
        !connection.is_closed()
    }

    /// Ends the peer's stream.
    pub fn end(&mut self, connection: &mut Connection<S>) {
        if !connection.is_closed() {
            self.turn(connection, true);
        }
    }

    /// Lets the deadline of `connection` pass.
    pub fn time_out(&mut self, connection: &mut Connection<S>) {
        self.space.resize(self.reply_bytes, 0);
        let mut reply = Reply::new(&mut self.space);
        self.service.on_timeout(&mut connection.state, &mut reply);
        connection.sent.extend_from_slice(reply.written());
        connection.next = Some(Next::Close);
    }

    fn turn(&mut self, connection: &mut Connection<S>, ended: bool) {
        self.space.resize(self.reply_bytes, 0);
        loop {
            let input = Input {
                bytes: &connection.received,
                full: connection.received.len() == self.receive_bytes,
                ended,
            };
            let mut reply = Reply::new(&mut self.space);
            let progress = self
                .service
                .on_input(&mut connection.state, input, &mut reply);
            assert!(
                progress.next != Next::Send || progress.consumed > 0 || !reply.is_empty(),
                "the service wants room and has {} bytes of it",
                reply.remaining()
            );
            connection.sent.extend_from_slice(reply.written());
            connection.received.drain(..progress.consumed);
            connection.messages += progress.messages;
            connection.next = Some(progress.next);
            if progress.next != Next::Send {
                return;
            }
        }
    }
}

impl<S: Service> Connection<S> {
    /// Whether the service ended the connection.
    pub fn is_closed(&self) -> bool {
        matches!(self.next, Some(Next::Close | Next::Abort))
    }

    /// Bytes that the service has not consumed.
    pub fn pending(&self) -> usize {
        self.received.len()
    }
}

impl<S: Service> Driver for Memory<S> {
    fn exchange(&mut self, segments: &[&[u8]]) -> io::Result<Vec<u8>> {
        let mut connection = self.connect();
        for segment in segments {
            if !self.send(&mut connection, segment) {
                break;
            }
        }
        self.end(&mut connection);
        Ok(connection.sent)
    }
}

/// Talks to a server over the kernel's sockets.
#[derive(Debug)]
pub struct Tcp {
    /// Where the server listens.
    pub server: SocketAddr,
    /// Between two segments, so that they arrive one by one.
    pub pause: Duration,
}

impl Tcp {
    /// Long enough for any answer; its end means that the server hangs.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Talks to `server`, a millisecond between two segments.
    pub fn new(server: SocketAddr) -> Self {
        Tcp {
            server,
            pause: Duration::from_millis(1),
        }
    }
}

impl Driver for Tcp {
    fn exchange(&mut self, segments: &[&[u8]]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.server, Self::PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Self::PATIENCE))?;
        stream.set_write_timeout(Some(Self::PATIENCE))?;
        // A server may have closed before it has seen everything: what it said until then counts.
        let mut sent = Ok(());
        for (index, segment) in segments.iter().enumerate() {
            if index > 0 {
                std::thread::sleep(self.pause);
            }
            sent = sent.and_then(|()| stream.write_all(segment));
        }
        let _ = sent.and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(answer),
        }
    }
}
