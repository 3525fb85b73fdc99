//! A stack that runs the [`LineService`] for the length of a test.

use std::net::{SocketAddr, TcpStream};

use barewire::stacks::{Running, Stack};
use barewire_stack::deadline::Deadlines;
use barewire_stack::lifecycle::{Lifecycle, Phase};

use crate::line_service::LineService;

/// What the tests vary; every stack has these limits.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections: usize,
    pub receive_buffer_bytes: usize,
    pub send_buffer_bytes: usize,
    pub deadlines: Deadlines,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 64,
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
}

impl Server {
    pub fn start<St: Stack>(stack: St) -> Server {
        let lifecycle = Lifecycle::new();
        let running = stack.start(|_core| LineService::default(), &lifecycle);
        Server {
            running: running.unwrap(),
            lifecycle,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.running.addresses[0]
    }

    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address()).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    /// A counter, summed over the cores.
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

    /// Waits until a counter has reached `value`, however long that takes.
    pub fn wait_for(&self, name: &str, value: u64) {
        while self.counter(name) < value {
            std::thread::yield_now();
        }
        assert_eq!(self.counter(name), value, "{name}");
    }

    /// Waits until all connections are gone.
    pub fn wait_for_nobody(&self) {
        while self.counter("open") > 0 {
            std::thread::yield_now();
        }
    }

    pub fn drain(&self) {
        self.lifecycle.advance(Phase::Drain);
    }

    /// Waits until every core has ended by itself.
    pub fn join(mut self) {
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
