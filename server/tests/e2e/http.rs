//! A client that speaks raw HTTP, as slowly as a test wants.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use crate::server::{PATIENCE, wait_until};

/// A connection that speaks raw HTTP.
pub struct Client(TcpStream);

/// A response as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Field lines without the status line.
    pub fields: Vec<String>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    /// The address and port that it comes from.
    pub fn source(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The same connection, for another thread.
    pub fn same(&self) -> Client {
        Client(self.0.try_clone().unwrap())
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Waits until the server has read all that was sent.
    ///
    /// On AF_XDP what it acknowledges is what it has read. On a kernel stack the kernel acknowledges, and the
    /// server has read what no longer waits in its socket, which is in our namespace.
    pub fn is_read(&self) {
        wait_until("everything is acknowledged", || {
            let mut unacknowledged_bytes = 0;
            let fd = self.0.as_raw_fd();
            // SAFETY: the descriptor is open, and this request writes one `int` where it is told to.
            let done = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut unacknowledged_bytes) };
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
            unacknowledged_bytes == 0
        });
        let ends = (self.0.peer_addr().unwrap(), self.0.local_addr().unwrap());
        wait_until("the server has read everything", || {
            let sockets = procfs::net::tcp().unwrap();
            let mut sockets = sockets.iter();
            let socket =
                sockets.find(|socket| (socket.local_address, socket.remote_address) == ends);
            socket.is_none_or(|socket| socket.rx_queue == 0)
        });
    }

    /// Tells the server that nothing more will come.
    pub fn finish(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// The next response. Those to HEAD have no body, whatever their fields say.
    pub fn receive(&mut self, is_head: bool) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n").map(str::to_owned);
        let status_line = lines.next().unwrap();
        assert!(status_line.starts_with("HTTP/1.1 "), "{status_line}");
        let mut response = Response {
            status: status_line[9..12].parse().unwrap(),
            fields: lines.collect(),
            body: Vec::new(),
        };
        if !is_head {
            let length: usize = response.field("content-length").unwrap().parse().unwrap();
            response.body.resize(length, 0);
            self.0.read_exact(&mut response.body).unwrap();
        }
        response
    }

    /// Fills `space` with what comes next.
    pub fn receive_into(&mut self, space: &mut [u8]) {
        self.0.read_exact(space).unwrap();
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.receive(false)
    }

    /// Everything until the server ends the connection.
    pub fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error}"),
        }
        rest
    }
}
