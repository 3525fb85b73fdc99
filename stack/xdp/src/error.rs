//! Why the stack cannot start.

use std::fmt;
use std::io;
use std::net::IpAddr;

use barewire_memory::OutOfMemory;
use barewire_service::cores::PinError;
use barewire_tcp::config::ConfigError;
use barewire_tcp::packet::LocalError;
use thiserror::Error;

use crate::interface::InterfaceError;
use crate::plan::PlanError;
use crate::redirect::RedirectError;
use crate::route::RouteError;
use crate::xsk::XskError;

/// Why the stack cannot start.
#[derive(Error)]
pub enum XdpError {
    /// The interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The interface has no address, and none was named.
    #[error(
        "{interface} has no address to serve: give it one (`ip address add ADDRESS/PREFIX dev {interface}`), or name \
         those to serve{}",
        .link_local.map(|address| format!(", as in --address {address}")).unwrap_or_default()
    )]
    NoAddress {
        /// The interface.
        interface: String,
        /// One that is not served unless it is named, if there is one.
        link_local: Option<IpAddr>,
    },
    /// The interface is not one that frames arrive at.
    #[error(
        "{0} is the loopback interface, whose traffic never leaves the kernel, so there is nothing to bypass: serve it \
         with `barewire serve --stack epoll --listen 127.0.0.1:8080`, or try the bypass with `scripts/demo`"
    )]
    Loopback(String),
    /// The frames of the interface are not Ethernet's.
    #[error(
        "{interface} (driver {driver}) carries packets without Ethernet headers, which the bypass does not do: name the \
         interface below the tunnel, or serve through the kernel, `barewire serve --stack epoll --listen {address}:8080`"
    )]
    NotEthernet {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
        /// One of its addresses.
        address: String,
    },
    /// Packets are to be longer than the interface can send.
    #[error(
        "packets of {asked} bytes are longer than the MTU of {interface}, which is {mtu}: ask for at most that, \
         or `ip link set dev {interface} mtu {asked}`"
    )]
    MtuTooLarge {
        /// The size that was asked for, in bytes.
        asked: usize,
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: usize,
    },
    /// The addresses and ports cannot be served.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The queues and cores do not go together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What is to be called cannot be reached.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Both ends of a connection are of the same family.
    #[error(
        "{address} cannot call {destination}: name an address of the same family, IPv4 or IPv6"
    )]
    Family {
        /// The address to call from.
        address: IpAddr,
        /// Where to.
        destination: IpAddr,
    },
    /// The traffic cannot be taken.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// A queue cannot be opened.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// A core cannot be used.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Attaching the program changed the queues.
    #[error(
        "driver {driver} of {interface} has {before} receive queues, and {after} once an XDP program is attached; the \
         added ones cannot serve. Use all that it has, then it adds none: `ethtool -L {interface} combined {max}`"
    )]
    AddedQueues {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
        /// Receive queues without the program.
        before: u32,
        /// Receive queues with it.
        after: u32,
        /// Receive queues that it can have.
        max: u32,
    },
    /// The NIC takes off the tags by which VLANs are told apart.
    #[error(
        "{interface} has VLANs on it ({vlans}), but takes their tags off received frames, so what arrives in a VLAN would be \
         answered outside of it: `ethtool -K {interface} rxvlan off`"
    )]
    VlanTags {
        /// The interface.
        interface: String,
        /// The VLAN interfaces on top of it, separated by commas.
        vlans: String,
    },
    /// The interface is gone.
    #[error(
        "{0} is gone: its driver was unbound, or it was deleted or moved to another network namespace; start again when \
         it is back, or serve with --wait-for-interface"
    )]
    Gone(String),
    /// The driver has lost the program, and it cannot be attached again.
    #[error(
        "frames that arrive at {interface} go to the kernel: its driver has lost the XDP program; start again: {source}"
    )]
    ProgramLost {
        /// The interface.
        interface: String,
        /// Why not.
        source: RedirectError,
    },
    /// The interface cannot be watched.
    #[error("cannot watch {interface}: {source}")]
    Unwatchable {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A limit is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is not enough memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// There is no source of secrets.
    #[error("the system has no random source to make keys from: {0}")]
    Random(getrandom::Error),
    /// The kernel refused something that every kernel has.
    #[error("cannot start core {core}: {source}")]
    Core {
        /// The core's index.
        core: usize,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// The same text as `Display`, with cause and cure: it is what `main` prints of an error that it returns.
impl fmt::Debug for XdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
