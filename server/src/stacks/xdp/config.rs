//! What the AF_XDP stack is told.

use std::net::IpAddr;

use barewire_stack::config::StackConfig;
use barewire_stack::interface::Interface;
#[cfg(feature = "faults")]
use barewire_stack::link::faulty::Faults;
use barewire_stack::link::xsk::XskConfig;
use barewire_stack::redirect::ModeChoice;
use barewire_stack::worker::Wait;
use tracing::warn;

use super::XdpError;

/// What to serve, on which queues and cores, and the limits of each.
#[derive(Debug, Clone)]
pub struct XdpConfig {
    /// The interface whose queues are taken.
    pub interface: String,
    /// Addresses to serve, at most eight. Empty: those of the interface, except link-local ones.
    ///
    /// The kernel keeps them and goes on answering ARP, neighbour discovery and pings for them.
    pub addresses: Vec<IpAddr>,
    /// TCP ports to serve on each of the addresses.
    pub ports: Vec<u16>,
    /// Receive queues to take. Empty: all; what arrives on one that is left out is refused by the kernel.
    pub queues: Vec<u32>,
    /// CPUs to serve on, one pinned thread each; queues are spread over them in turn. Empty: all that the
    /// process may use, as far as there are queues.
    pub cores: Vec<usize>,
    /// Where the XDP program runs.
    pub mode: ModeChoice,
    /// Rings, zero-copy and busy polling of each queue.
    pub xsk: XskConfig,
    /// What a core does when there is nothing to do.
    pub wait: Wait,
    /// How long connections may go on when the server drains, in milliseconds.
    pub drain_ms: u32,
    /// Limits of each core. `mtu` and `unknown_flow` are set from the interface and the number of cores.
    pub stack: StackConfig,
    /// How bad the wire to each queue is, and the seed that decides what it does to which frame.
    #[cfg(feature = "faults")]
    pub faults: Option<(Faults, u64)>,
}

impl XdpConfig {
    /// Everything at its default: all addresses, queues and cores.
    pub fn new(interface: impl Into<String>, port: u16) -> Self {
        let worker = barewire_stack::worker::WorkerConfig::default();
        XdpConfig {
            interface: interface.into(),
            addresses: Vec::new(),
            ports: vec![port],
            queues: Vec::new(),
            cores: Vec::new(),
            mode: ModeChoice::default(),
            xsk: XskConfig::default(),
            wait: worker.wait,
            drain_ms: worker.drain_ms,
            stack: StackConfig::default(),
            #[cfg(feature = "faults")]
            faults: None,
        }
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
            true => Err(XdpError::NoAddress(interface.name.clone())),
            false => Ok(addresses),
        }
    }
}
