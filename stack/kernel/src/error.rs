//! Why a kernel stack cannot start, with cause and cure.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use barewire_service::cores::PinError;

/// Why a kernel stack cannot start.
#[derive(thiserror::Error)]
pub enum StartError {
    /// The address cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A configured core does not exist or is forbidden.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The limit of open files is too low for the connections.
    #[error(
        "{needed} open files are needed and {limit} are allowed: \
         lower --connections, or raise the limit (`ulimit -n {needed}`, LimitNOFILE= in a unit)"
    )]
    TooFewFiles {
        /// What all connections of all cores take.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// A limit of the configuration that no connection could live with.
    #[error("{name} is {value}, but has to be at least {least}: raise it")]
    TooSmall {
        /// The limit's name.
        name: &'static str,
        /// Its value.
        value: usize,
        /// What it needs to be.
        least: usize,
    },
    /// There is no room for the buffers.
    #[error(
        "no memory for {connections} buffers of {buffer_bytes} bytes: {source}; \
         lower --connections, or make the buffers smaller"
    )]
    Memory {
        /// Connections of each core.
        connections: usize,
        /// Length of a buffer of each connection.
        buffer_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process opened listeners for other cores or addresses.
    #[error(
        "there are listeners for {inherited} and not for {wanted}: take over with the same cores and addresses"
    )]
    Inherited {
        /// Addresses times cores.
        inherited: String,
        /// What the configuration asks for.
        wanted: String,
    },
    /// The kernel refused something that every kernel has.
    #[error("core {core}: {call}: {source}")]
    Core {
        /// The core's index.
        core: usize,
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The same text as `Display`, with cause and cure: it is what `main` prints of an error that it returns.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another socket has the address.
    #[error(
        "{0} is already in use: stop the program that listens there (`ss -ltnp` names it), or choose another port"
    )]
    InUse(SocketAddr),
    /// Ports below `net.ipv4.ip_unprivileged_port_start` need a capability.
    #[error(
        "not allowed to listen on {0}: use a port from 1024 on, or run with CAP_NET_BIND_SERVICE"
    )]
    Privileged(SocketAddr),
    /// No interface has the address.
    #[error("no interface has the address {0}: `ip address` lists those that can be served")]
    NoSuchAddress(IpAddr),
    /// An option that needs a capability (longer busy polling than `net.core.busy_read`, say).
    #[error("not allowed to set {0}: run with CAP_NET_ADMIN, or leave the option out")]
    NotPermitted(&'static str),
    /// Anything else.
    #[error("cannot listen on {address}: {call}: {source}")]
    Other {
        /// What was to be served.
        address: SocketAddr,
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
