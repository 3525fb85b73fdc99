//! A stack that runs the [`LineService`] for the length of a test.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use barewire_lab::Lab;
use barewire_service::deadline::Deadlines;
use barewire_service::lifecycle::{Lifecycle, Phase};
use barewire_service::stack::{Running, Stack};

use crate::line_service::LineService;

/// What the tests vary; every stack has these limits.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections: usize,
    pub outbound: usize,
    pub receive_buffer_bytes: usize,
    pub send_buffer_bytes: usize,
    pub deadlines: Deadlines,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 64,
            outbound: 4,
            receive_buffer_bytes: 4096,
            send_buffer_bytes: 4096,
            deadlines: Deadlines::default(),
        }
    }
}

/// A running server; stops when it is dropped.
pub struct Server {
    running: Running,
    lifecycle: Lifecycle,
    /// Where it serves, if that is not the loopback interface.
    lab: Option<Lab>,
}

impl Server {
    /// On the loopback interface.
    #[cfg(any(feature = "epoll", feature = "uring"))]
    pub fn start<St: Stack>(stack: St) -> Server {
        let lifecycle = Lifecycle::new();
        let running = stack.start(|_core| LineService::default(), &lifecycle);
        Server {
            running: running.unwrap(),
            lifecycle,
            lab: None,
        }
    }

    /// In a lab.
    #[cfg(feature = "xdp")]
    pub fn start_in<St: Stack + Send>(lab: Lab, stack: St) -> Server {
        let lifecycle = Lifecycle::new();
        let running = lab.server(|| {
            stack
                .start(|_core| LineService::default(), &lifecycle)
                .unwrap()
        });
        Server {
            running,
            lifecycle,
            lab: Some(lab),
        }
    }

    pub fn try_connect(&self) -> io::Result<TcpStream> {
        let connect = || TcpStream::connect(self.running.addresses[0]);
        match &self.lab {
            Some(lab) => lab.client(connect),
            None => connect(),
        }
    }

    pub fn connect(&self) -> TcpStream {
        let client = self.try_connect().unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    /// A counter, summed over the cores. `None` if our stack has none for it.
    fn count(&self, name: &str) -> Option<u64> {
        match (&self.lab, name) {
            (None, _) => Some(self.counter(name)),
            (Some(_), "open") => Some(self.counter("connections")),
            (Some(_), "accepted") => Some(self.counter("passive_opens")),
            (Some(_), "broken") => Some(self.counter("estab_resets")),
            (Some(_), "aborted") => Some(self.counter("aborts")),
            (Some(_), "waits") => Some(self.counter("sleeps")),
            (Some(_), "messages" | "closed") => None,
            (Some(_), _) => Some(self.counter(name)),
        }
    }

    pub fn counter(&self, name: &str) -> u64 {
        let groups = self.running.counters.iter();
        let samples = groups.flat_map(|group| group.counters.samples());
        let values: Vec<u64> = samples
            .filter(|sample| sample.name == name)
            .map(|sample| sample.value)
            .collect();
        assert!(!values.is_empty(), "no counter {name}");
        values.iter().sum()
    }

    /// Waits until a counter has reached `value`, however long that takes, and asserts that it goes no
    /// further. Names are those of the kernel stacks.
    pub fn wait_for(&self, name: &str, value: u64) {
        while self.count(name).is_some_and(|count| count < value) {
            std::thread::yield_now();
        }
        assert_eq!(self.count(name).unwrap_or(value), value, "{name}");
    }

    /// Waits until all connections are gone.
    pub fn wait_for_nobody(&self) {
        while self.count("open") > Some(0) {
            std::thread::yield_now();
        }
    }

    /// Waits until all that `client` and the other clients sent, `total` bytes, has arrived.
    pub fn wait_for_bytes(&self, client: &TcpStream, total: u64) {
        match &self.lab {
            None => self.wait_for("received_bytes", total),
            // Only the stack itself acknowledges what it has got.
            Some(_) => {
                while unacknowledged_bytes(client) > 0 {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Waits until every core rests: it has asked for nothing for a while.
    pub fn wait_for_rest(&self) {
        let mut waits = self.count("waits");
        loop {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let since = std::mem::replace(&mut waits, self.count("waits"));
            if since == waits {
                break;
            }
        }
    }

    pub fn drain(&self) {
        self.lifecycle.advance(Phase::Drain);
    }

    /// Waits until every core has ended by itself.
    pub fn join(&mut self) {
        for core in std::mem::take(&mut self.running.cores) {
            core.join().unwrap().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stop);
        for core in std::mem::take(&mut self.running.cores) {
            let ended = core.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// Bytes that were sent and that the peer has not acknowledged.
fn unacknowledged_bytes(client: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and this request writes one `int` where it is told to.
    let result = unsafe { libc::ioctl(client.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    bytes
}
