//! The destination and the source addresses of the connections that a shard opens.
//!
//! ```text
//!   source address : port ──▶ shard ──▶ Ethernet: our MAC ─▶ next hop's ──▶ destination address : port
//!   (SourcePorts)                       (asked of the kernel once; see `route`)
//! ```
//!
//! Only the first SYN needs a link-layer address from here. From the first answer on a connection reflects the
//! link-layer header of what it received, as those that were accepted do.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::control::L2Header;
use crate::source_ports::SourcePorts;

/// What a shard needs to open connections. It then accepts none.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Their destination.
    pub destination: SocketAddr,
    /// The hardware address of our interface.
    pub source_mac: [u8; 6],
    /// The hardware address of the destination, or of the gateway on the way to it.
    pub next_hop_mac: [u8; 6],
    /// Their sources, shared by all shards of the run. The addresses are those of the shard's
    /// [`Local`](crate::packet::Local), and in the same order.
    pub ports: Arc<SourcePorts>,
    /// The number of this shard among those, from zero.
    pub shard: usize,
}

impl Outbound {
    /// The link-layer header of a SYN.
    pub(crate) fn l2(&self) -> L2Header {
        L2Header::new(
            self.next_hop_mac,
            self.source_mac,
            self.destination.is_ipv6(),
        )
    }
}
