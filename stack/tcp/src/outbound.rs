//! Where the connections go that a shard opens, and where they come from.
//!
//! ```text
//!   source address : port ──▶ shard ──▶ Ethernet: our MAC ─▶ next hop's ──▶ destination address : port
//!   (SourcePorts)                       (asked of the kernel once; see `route`)
//! ```
//!
//! Only the first SYN needs to be told its way. From the first answer on a connection reflects the
//! link-layer header of what it received, as those that were accepted do.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::control::L2Header;
use crate::source_ports::SourcePorts;

/// What a shard needs to open connections. It then accepts none.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Where they lead to.
    pub destination: SocketAddr,
    /// The hardware address of our interface.
    pub source_mac: [u8; 6],
    /// The hardware address of the destination, or of the gateway on the way to it.
    pub next_hop_mac: [u8; 6],
    /// Where they come from, shared by all shards of the run. Their addresses are those of the shard's
    /// [`Local`](crate::packet::Local), and in the same order.
    pub ports: Arc<SourcePorts>,
    /// The number of this shard among those, from zero.
    pub shard: usize,
}

impl Outbound {
    /// What is written in front of a SYN.
    pub(crate) fn l2(&self) -> L2Header {
        L2Header::new(
            self.next_hop_mac,
            self.source_mac,
            self.destination.is_ipv6(),
        )
    }
}
