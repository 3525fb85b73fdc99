//! How many connections each source has.
//!
//! A source is a prefix of the peer's address: one address of IPv4, one subscriber's network of IPv6, unless
//! configured otherwise. It is looked up at the start of a connection only, so it need not be fast;
//! but it must not grow with the number of sources, which attackers choose. So it is a count-min sketch:
//!
//! ```text
//!   prefix ── keyed hash ──┬─▶ row 0: [ 0 │ 3 │ 0 │ 12 │ … ]    each connection counts once in both rows;
//!                          └─▶ row 1: [ 1 │ 0 │ 3 │  0 │ … ]    a source has at most the smaller of its two
//! ```
//!
//! A source can be taken for a larger one only if other sources share both of its counters, which cannot be arranged without
//! the key.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use siphasher::sip::SipHasher13;

use crate::config::StackConfig;
use crate::guard::Secrets;
use crate::packet::FlowKey;
use barewire_memory::{OutOfMemory, Zeroed};

/// The established connections of all sources, at all shards that share it.
#[derive(Debug)]
pub(crate) struct Sources {
    /// Two rows of the same length, a power of two.
    counts: Zeroed<AtomicU32>,
    hasher: SipHasher13,
    connections_max: u32,
    ipv4_bits: u32,
    ipv6_bits: u32,
}

/// Counters of a row: no fewer than the connections that there can be, within these bounds. 32 KiB to 8 MiB.
const ROW_MIN: usize = 1 << 12;
const ROW_MAX: usize = 1 << 20;

impl Sources {
    /// For the connections of so many shards; none if their number does not matter.
    pub fn new(
        config: &StackConfig,
        secrets: &Secrets,
        shards: usize,
    ) -> Result<Option<Sources>, OutOfMemory> {
        if config.source_connections == 0 {
            return Ok(None);
        }
        let connections = config.connections as usize * shards;
        let row = connections.next_power_of_two().clamp(ROW_MIN, ROW_MAX);
        Ok(Some(Sources {
            counts: Zeroed::new(2 * row)?,
            hasher: SipHasher13::new_with_key(&secrets.flow),
            connections_max: config.source_connections,
            ipv4_bits: config.source_prefix_ipv4_bits,
            ipv6_bits: config.source_prefix_ipv6_bits,
        }))
    }

    /// Whether the source of `flow` has as many connections as it may have.
    pub fn is_full(&self, flow: &FlowKey) -> bool {
        let counts = self.counts_of(flow);
        let least = counts.map(|count| count.load(Ordering::Relaxed));
        least.into_iter().min() >= Some(self.connections_max)
    }

    /// The source of `flow` has one more connection.
    pub fn add(&self, flow: &FlowKey) {
        for count in self.counts_of(flow) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The source of `flow` has one connection less.
    pub fn remove(&self, flow: &FlowKey) {
        for count in self.counts_of(flow) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn counts_of(&self, flow: &FlowKey) -> [&AtomicU32; 2] {
        let (prefix, family) = match flow.remote_address() {
            IpAddr::V4(address) => (u128::from(address.to_bits() >> (32 - self.ipv4_bits)), 4_u8),
            IpAddr::V6(address) => (address.to_bits() >> (128 - self.ipv6_bits), 6),
        };
        let mut message = [0; 17];
        message[..16].copy_from_slice(&prefix.to_be_bytes());
        message[16] = family;
        let hash = self.hasher.hash(&message);
        let row = self.counts.len() / 2;
        let at = [
            hash as usize & (row - 1),
            row + ((hash >> 32) as usize & (row - 1)),
        ];
        at.map(|at| &self.counts[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn sources(change: impl FnOnce(&mut StackConfig)) -> Sources {
        let mut config = StackConfig {
            source_connections: 2,
            ..StackConfig::default()
        };
        change(&mut config);
        Sources::new(&config, &Secrets::from_seed(1), 1)
            .unwrap()
            .unwrap()
    }

    fn flow(address: impl Into<IpAddr>, port: u16) -> FlowKey {
        FlowKey::new(address.into(), port, 0, 80)
    }

    #[test]
    fn a_source_is_full_with_as_many_connections_as_it_may_have() {
        let sources = sources(|_| {});
        let address = |last| [192, 0, 2, last];
        sources.add(&flow(address(1), 1));
        assert!(!sources.is_full(&flow(address(1), 2)));
        sources.add(&flow(address(1), 2));
        assert!(sources.is_full(&flow(address(1), 3)));
        assert!(!sources.is_full(&flow(address(2), 3)));
        sources.remove(&flow(address(1), 1));
        assert!(!sources.is_full(&flow(address(1), 3)));
    }

    #[test]
    fn a_source_is_a_prefix_of_one_family() {
        let sources = sources(|config| config.source_prefix_ipv4_bits = 24);
        let ipv6 = |host| Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | host);
        for host in 0..2 {
            sources.add(&flow([192, 0, 2, host], 1));
            sources.add(&flow(ipv6(host.into()), 1));
        }
        assert!(sources.is_full(&flow([192, 0, 2, 77], 1)));
        assert!(!sources.is_full(&flow([192, 0, 3, 1], 1)));
        assert!(sources.is_full(&flow(ipv6(77), 1)));
        assert!(!sources.is_full(&flow(ipv6(1 << 64), 1)));
    }

    #[test]
    fn a_whole_address_space_may_be_one_source() {
        let sources = sources(|config| config.source_prefix_ipv6_bits = 128);
        sources.add(&flow(Ipv6Addr::LOCALHOST, 1));
        sources.add(&flow(Ipv6Addr::LOCALHOST, 2));
        assert!(sources.is_full(&flow(Ipv6Addr::LOCALHOST, 3)));
        assert!(!sources.is_full(&flow(Ipv6Addr::UNSPECIFIED, 3)));
    }

    #[test]
    fn nothing_is_counted_that_nobody_limits() {
        let config = StackConfig::default();
        let sources = Sources::new(&config, &Secrets::from_seed(1), 1);
        assert!(sources.unwrap().is_none());
    }
}
