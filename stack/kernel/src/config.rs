//! What both kernel stacks are told.

use std::net::SocketAddr;

use barewire_service::deadline::Deadlines;

use super::error::StartError;
use super::handover::HandOver;

/// Where to listen, on how many cores, and the limits of each.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// Address and port; port 0 takes a free one. `[::]` serves IPv4 too.
    pub listen: SocketAddr,
    /// Further addresses and ports. A service is told where a connection came in: 0 is `listen`, 1 the first of these.
    pub listen_also: Vec<SocketAddr>,
    /// CPUs to serve on, one pinned thread and one listener each. Empty: all that the process may use.
    pub cores: Vec<usize>,
    /// Whether each thread stays on its CPU.
    pub pin: bool,
    /// Connections that each core accepts at most; more wait in the kernel's accept queue.
    pub connections: usize,
    /// Connections that the service of each core may have opened at once, beside those.
    pub outbound: usize,
    /// Whether a service is told who opened a connection. An io_uring accepts one by one then.
    pub tell_peers: bool,
    /// Longest unconsumed input of a connection, in bytes.
    pub receive_buffer_bytes: usize,
    /// Longest unsent output of a connection that the kernel has not taken yet, in bytes.
    pub send_buffer_bytes: usize,
    /// How long a connection may wait for what. The kernel keeps the one of the handshake itself
    /// (`net.ipv4.tcp_synack_retries`).
    pub deadlines: Deadlines,
    /// Connections that wait to be accepted, per core; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// Wake up for a connection only once its first data is there, or this many seconds have
    /// passed (TCP_DEFER_ACCEPT). Off: `None`.
    pub defer_accept_s: Option<u32>,
    /// Poll the NIC's queue for so long before sleeping, in microseconds (SO_BUSY_POLL). Helps with
    /// NICs whose driver has NAPI busy polling; costs a busy core. Off: `None`.
    pub busy_poll_us: Option<u32>,
    /// Keep the NIC's interrupts off as long as we poll (SO_PREFER_BUSY_POLL).
    pub prefer_busy_poll: bool,
    /// How another process takes over from this one, or this one from another. Without it: not at all.
    pub hand_over: Option<HandOver>,
}

impl KernelConfig {
    /// The smallest receive buffer, as on the bypass: what is less holds no request.
    pub const RECEIVE_BUFFER_BYTES_MIN: usize = 512;

    /// Everything at its default, on all CPUs.
    pub fn new(listen: SocketAddr) -> Self {
        KernelConfig {
            listen,
            listen_also: Vec::new(),
            cores: Vec::new(),
            pin: true,
            connections: 4096,
            outbound: 0,
            tell_peers: false,
            receive_buffer_bytes: 16 * 1024,
            send_buffer_bytes: 32 * 1024,
            deadlines: Deadlines::default(),
            backlog: 4096,
            defer_accept_s: None,
            busy_poll_us: None,
            prefer_busy_poll: false,
            hand_over: None,
        }
    }

    /// Connections of each core, whoever opens them.
    pub fn connections_max(&self) -> usize {
        self.connections.saturating_add(self.outbound)
    }

    /// Refuses limits that no connection could live with, under a service whose replies take
    /// `reply_bytes_min`.
    ///
    /// # Errors
    ///
    /// [`StartError::TooSmall`] names the first one.
    pub fn check(&self, reply_bytes_min: usize) -> Result<(), StartError> {
        for (name, value, least) in [
            ("connections", self.connections, 1),
            (
                "receive_buffer_bytes",
                self.receive_buffer_bytes,
                Self::RECEIVE_BUFFER_BYTES_MIN,
            ),
            ("send_buffer_bytes", self.send_buffer_bytes, reply_bytes_min),
        ] {
            if value < least {
                return Err(StartError::TooSmall { name, value, least });
            }
        }
        Ok(())
    }
}
