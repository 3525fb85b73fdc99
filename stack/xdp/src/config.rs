//! What the AF_XDP stack is told.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::handover::HandOver;
use crate::interface::Interface;
use crate::redirect::{ModeChoice, Sources};
use crate::route::{Route, hardware_address};
use crate::worker::Wait;
use crate::xsk::{XskConfig, XskLink};
use barewire_tcp::config::StackConfig;
#[cfg(feature = "faults")]
use barewire_tcp::link::faulty::Faults;
use barewire_tcp::outbound::Outbound;
use barewire_tcp::packet::ChecksumPolicy;
use barewire_tcp::source_ports::SourcePorts;
use tracing::warn;

use crate::XdpError;

/// What a stack calls that serves nothing: its service opens connections
/// ([`Service::wants`](barewire_service::service::Service::wants)). [`XdpConfig::addresses`] are then those to
/// call from; if there are none, the one that the kernel would call from.
#[derive(Debug, Clone)]
pub struct Calls {
    /// Where connections lead to.
    pub destination: SocketAddr,
    /// The hardware address of the next hop; `None`: as the kernel knows it.
    pub next_hop_mac: Option<[u8; 6]>,
    /// The ports to call from, on each of the addresses. What arrives for them is taken from the kernel.
    pub source_ports: RangeInclusive<u16>,
    /// Ports among them that are the kernel's.
    pub reserved_ports: Vec<u16>,
}

/// The ports above those that Linux gives to its own connections by default.
const SOURCE_PORTS: RangeInclusive<u16> = 61_000..=65_535;

impl Calls {
    /// Calls to `destination`, from the ports that Linux leaves alone by default.
    pub fn to(destination: SocketAddr) -> Self {
        Calls {
            destination,
            next_hop_mac: None,
            source_ports: SOURCE_PORTS,
            reserved_ports: Vec::new(),
        }
    }

    /// The address to call from if none is named.
    pub(super) fn source(&self, interface: &Interface) -> Result<IpAddr, XdpError> {
        Ok(Route::to(self.destination.ip(), interface)?.source)
    }

    /// The ports that are taken from the kernel.
    pub(super) fn ports(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        let is_ours = |port: &u16| !self.reserved_ports.contains(port);
        let ports = self.source_ports.clone().filter(is_ours);
        ports.map(|port| port..=port)
    }

    /// What so many shards need to call from `addresses`.
    pub(super) fn outbound(
        &self,
        addresses: &[IpAddr],
        interface: &Interface,
        shards: usize,
    ) -> Result<Outbound, XdpError> {
        let destination = self.destination;
        let is_other = |address: &&IpAddr| address.is_ipv6() != destination.is_ipv6();
        if let Some(&address) = addresses.iter().find(is_other) {
            return Err(XdpError::Family {
                address,
                destination: destination.ip(),
            });
        }
        let next_hop_mac = match self.next_hop_mac {
            Some(mac) => mac,
            None => {
                let route = Route::to(destination.ip(), interface)?;
                hardware_address(route.next_hop, interface)?
            }
        };
        let ports = SourcePorts::new(addresses.len(), self.source_ports.clone(), shards);
        for &port in &self.reserved_ports {
            ports.reserve(port);
        }
        Ok(Outbound {
            destination,
            source_mac: interface.mac,
            next_hop_mac,
            ports: Arc::new(ports),
            shard: 0,
        })
    }
}

/// What a virtual machine's NIC, which has few queues, may be given more at most; 64 MiB with the default rings.
const SPARE_QUEUES: u32 = 4;

/// What is done with received checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksums {
    /// They are verified. On a virtual interface ([`Interface::is_virtual`]) those are taken as well that a sender on this
    /// machine left to its device, which there is none of: each container leaves them so.
    #[default]
    Auto,
    /// They are verified.
    Verify,
    /// They are not looked at.
    Trust,
}

impl Checksums {
    pub(super) fn policy(self, interface: &Interface) -> ChecksumPolicy {
        match self {
            Checksums::Auto if interface.is_virtual() => ChecksumPolicy::VerifyOrPartial,
            Checksums::Auto | Checksums::Verify => ChecksumPolicy::Verify,
            Checksums::Trust => ChecksumPolicy::Trust,
        }
    }
}

/// What to serve, on which queues and cores, and the limits of each.
#[derive(Debug, Clone)]
pub struct XdpConfig {
    /// The interface whose queues are taken.
    pub interface: String,
    /// Addresses to serve, at most 64 of each family. Empty: those of the interface, except link-local ones.
    ///
    /// The kernel keeps them and goes on answering ARP, neighbour discovery and pings for them.
    pub addresses: Vec<IpAddr>,
    /// TCP ports to serve on each of the addresses.
    pub ports: Vec<u16>,
    /// Who may connect.
    pub sources: Sources,
    /// Whether ports are served that the kernel serves already, for another process. The kernel's listener gets no
    /// more of what arrives at the interface.
    pub steals_ports: bool,
    /// What is called instead, if nothing is to be served.
    pub calls: Option<Calls>,
    /// Receive queues to take. Empty: all; what arrives on one that is left out is refused by the kernel.
    pub queues: Vec<u32>,
    /// Queues that may appear while serving (`ethtool -L`): so many are prepared for, if `queues` is empty. Each takes
    /// the memory of a queue.
    pub spare_queues: u32,
    /// CPUs to serve on, one pinned thread each; queues are spread over them in turn. Empty: all that the
    /// process may use, as far as there are queues.
    pub cores: Vec<usize>,
    /// Where the XDP program runs.
    pub mode: ModeChoice,
    /// What is done with received checksums.
    pub checksums: Checksums,
    /// The longest IP packet to send, and what the segment size that peers are told follows from; at most
    /// the interface's MTU. `None`: that.
    pub mtu: Option<usize>,
    /// Rings, zero-copy and busy polling of each queue.
    pub xsk: XskConfig,
    /// What a core does when there is nothing to do.
    pub wait: Wait,
    /// How long connections may go on when the server drains, in milliseconds.
    pub drain_ms: u32,
    /// How the server takes over from another process, and lets another one take over.
    pub hand_over: Option<HandOver>,
    /// Limits of each core. `mtu`, `checksums` and `unknown_flow` are set from the interface and the number of cores.
    pub stack: StackConfig,
    /// The faults to inject into the frames of each queue, and the seed that decides which frames.
    #[cfg(feature = "faults")]
    pub faults: Option<(Faults, u64)>,
}

impl XdpConfig {
    /// Everything at its default: all addresses, queues and cores.
    pub fn new(interface: impl Into<String>, port: u16) -> Self {
        let worker = crate::worker::WorkerConfig::default();
        XdpConfig {
            interface: interface.into(),
            addresses: Vec::new(),
            ports: vec![port],
            sources: Sources::default(),
            steals_ports: false,
            calls: None,
            queues: Vec::new(),
            spare_queues: SPARE_QUEUES,
            cores: Vec::new(),
            mode: ModeChoice::default(),
            checksums: Checksums::default(),
            mtu: None,
            xsk: XskConfig::default(),
            wait: worker.wait,
            drain_ms: worker.drain_ms,
            hand_over: None,
            stack: StackConfig::default(),
            #[cfg(feature = "faults")]
            faults: None,
        }
    }

    /// Nothing is served; the service calls.
    pub fn calling(interface: impl Into<String>, calls: Calls) -> Self {
        XdpConfig {
            ports: Vec::new(),
            calls: Some(calls),
            ..Self::new(interface, 0)
        }
    }

    /// The longest IP packet to send.
    pub(super) fn mtu_of(&self, interface: &Interface) -> Result<usize, XdpError> {
        let mtu = match self.mtu {
            Some(asked) if asked > interface.mtu => Err(XdpError::MtuTooLarge {
                asked,
                interface: interface.name.clone(),
                mtu: interface.mtu,
            }),
            Some(asked) => Ok(asked),
            None => Ok(interface.mtu),
        }?;
        let holds = XskLink::packet_bytes_max(interface, self.xsk.zero_copy);
        Ok(mtu.min(holds).min(StackConfig::MTU_MAX))
    }

    /// The addresses to serve.
    pub(super) fn addresses_of(&self, interface: &Interface) -> Result<Vec<IpAddr>, XdpError> {
        let foreign = self
            .addresses
            .iter()
            .filter(|address| !interface.addresses.contains(address));
        for address in foreign {
            warn!(
                "{address} is not an address of {interface}: unless something else answers ARP or neighbour \
                 discovery for it, nobody will find it",
                interface = interface.name
            );
        }
        let addresses = match self.addresses.is_empty() {
            true => interface.routable_addresses().collect(),
            false => self.addresses.clone(),
        };
        match addresses.is_empty() {
            true => Err(XdpError::NoAddress {
                interface: interface.name.clone(),
                link_local: interface.addresses.first().copied(),
            }),
            false => Ok(addresses),
        }
    }
}
