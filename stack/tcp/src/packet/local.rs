//! Which addresses and ports are ours, and which can be a peer's.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use thiserror::Error;

use super::flow_key::Words;

/// The addresses and ports that are served. Few, so that looking one up is a handful of compares.
#[derive(Debug, Clone)]
pub struct Local {
    addresses: [Words; Local::ADDRESSES_MAX],
    address_count: u8,
    port_count: u8,
    ports: [u16; Local::PORTS_MAX],
    /// Served besides `ports`: so many from the first one on.
    range: (u16, u16),
    /// Frames to another hardware address are not for us.
    pub(super) mac: Option<[u8; 6]>,
}

impl Local {
    /// How many addresses can be served.
    pub const ADDRESSES_MAX: usize = 128;
    /// How many ports can be served.
    pub const PORTS_MAX: usize = 16;

    /// Serves every one of `ports` on every one of `addresses`.
    ///
    /// # Errors
    ///
    /// If there are none or too many of either, if one is given twice, or if one can never be the
    /// destination of a connection.
    pub fn new(addresses: &[IpAddr], ports: &[u16]) -> Result<Local, LocalError> {
        if ports.is_empty() {
            return Err(LocalError::Nothing);
        }
        if ports.len() > Self::PORTS_MAX {
            return Err(LocalError::TooManyPorts(ports.len()));
        }
        let mut local = Self::with_addresses(addresses)?;
        for &port in ports {
            if port == 0 {
                return Err(LocalError::PortZero);
            }
            if local.has_port(port) {
                return Err(LocalError::Twice(format!("port {port}")));
            }
            local.ports[usize::from(local.port_count)] = port;
            local.port_count += 1;
        }
        Ok(local)
    }

    /// Calls from every port of `ports` on every one of `addresses`, and serves nothing.
    ///
    /// # Errors
    ///
    /// As [`Local::new`].
    pub fn calling(addresses: &[IpAddr], ports: RangeInclusive<u16>) -> Result<Local, LocalError> {
        let (&first, &last) = (ports.start(), ports.end());
        match (first, last.checked_sub(first)) {
            (0, _) => Err(LocalError::PortZero),
            (_, None) => Err(LocalError::Nothing),
            (_, Some(more)) => Ok(Local {
                range: (first, more + 1),
                ..Self::with_addresses(addresses)?
            }),
        }
    }

    fn with_addresses(addresses: &[IpAddr]) -> Result<Local, LocalError> {
        if addresses.is_empty() {
            return Err(LocalError::Nothing);
        }
        if addresses.len() > Self::ADDRESSES_MAX {
            return Err(LocalError::TooManyAddresses(addresses.len()));
        }
        let mut local = Local {
            addresses: [Words::default(); Self::ADDRESSES_MAX],
            address_count: 0,
            port_count: 0,
            ports: [0; Self::PORTS_MAX],
            range: (0, 0),
            mac: None,
        };
        for &address in addresses {
            local.add_address(address)?;
        }
        Ok(local)
    }

    /// Serves `address` as well. Those that are served keep their indices.
    ///
    /// # Errors
    ///
    /// If it is served already, can never be the destination of a connection, or there is no room for it.
    pub fn add_address(&mut self, address: IpAddr) -> Result<(), LocalError> {
        if !can_be_a_peer(address) {
            return Err(LocalError::NotUnicast(address));
        }
        if self.index_of(address).is_some() {
            return Err(LocalError::Twice(address.to_string()));
        }
        let count = usize::from(self.address_count);
        let slot = self.addresses.get_mut(count);
        *slot.ok_or(LocalError::TooManyAddresses(count + 1))? = Words::from_address(address);
        self.address_count += 1;
        Ok(())
    }

    /// Takes no frames but those to the hardware address `mac`. Without this all frames are taken: a switch
    /// floods frames to others, and an interface in promiscuous mode receives them.
    #[must_use]
    pub fn at_mac(self, mac: [u8; 6]) -> Local {
        Local {
            mac: Some(mac),
            ..self
        }
    }

    /// The served address with this index.
    ///
    /// # Panics
    ///
    /// If there is none; the index of a parsed [`FlowKey`](super::FlowKey) always has one.
    pub fn address(&self, index: u8) -> IpAddr {
        self.words()[usize::from(index)].to_address()
    }

    /// The served IPv4 address with this index as 32 bits; 0 if it has none.
    #[inline]
    pub(crate) fn ipv4(&self, index: u8) -> u32 {
        let words = self.addresses.get(usize::from(index));
        words.and_then(|words| words.to_ipv4()).unwrap_or(0)
    }

    /// The served addresses, in the order of their indices.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.words().iter().map(|words| words.to_address())
    }

    /// The served ports; none if only calls are made.
    pub fn ports(&self) -> &[u16] {
        &self.ports[..usize::from(self.port_count)]
    }

    /// The index of a served address.
    pub fn index_of(&self, address: IpAddr) -> Option<u8> {
        self.index_of_words(Words::from_address(address))
    }

    /// Whether `port` is served.
    #[inline]
    pub fn has_port(&self, port: u16) -> bool {
        let (first, count) = self.range;
        self.ports().contains(&port) || port.wrapping_sub(first) < count
    }

    #[inline]
    pub(super) fn index_of_words(&self, address: Words) -> Option<u8> {
        let index = self.words().iter().position(|&served| served == address)?;
        Some(index as u8)
    }

    #[inline]
    fn words(&self) -> &[Words] {
        &self.addresses[..usize::from(self.address_count)]
    }
}

/// Why a set of addresses and ports cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocalError {
    /// No address or no port.
    #[error("nothing to serve: give at least one address and one port")]
    Nothing,
    /// More addresses than [`Local::ADDRESSES_MAX`].
    #[error(
        "{0} addresses are more than the {max} that can be served: name the ones to serve",
        max = Local::ADDRESSES_MAX
    )]
    TooManyAddresses(usize),
    /// More ports than [`Local::PORTS_MAX`].
    #[error("{0} ports are more than the {max} that can be served", max = Local::PORTS_MAX)]
    TooManyPorts(usize),
    /// An address that no peer could ever connect to over a network.
    #[error("{0} cannot be served: give a unicast address of the interface")]
    NotUnicast(IpAddr),
    /// Port 0.
    #[error("port 0 cannot be served: give a port between 1 and 65535")]
    PortZero,
    /// An address or port was given more than once.
    #[error("{0} is given twice: name it once")]
    Twice(String),
}

/// Whether a packet can come from `address` over a network.
pub(super) fn can_be_a_peer(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => ipv4_can_be_a_peer(address),
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.to_ipv4_mapped().is_some())
        }
    }
}

/// Not "this network", loopback, multicast, reserved or broadcast (RFC 6890, section 2.2.2).
#[inline]
pub(super) fn ipv4_can_be_a_peer(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_served() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(Local::new(&[], &[80]).unwrap_err(), LocalError::Nothing);
        assert_eq!(
            Local::new(&[ip("10.0.0.1")], &[]).unwrap_err(),
            LocalError::Nothing
        );
        assert_eq!(
            Local::new(&[ip("10.0.0.1")], &[0]).unwrap_err(),
            LocalError::PortZero
        );
        for address in ["0.0.0.0", "224.0.0.1", "::", "ff02::1", "::ffff:10.0.0.1"] {
            let error = Local::new(&[ip(address)], &[80]).unwrap_err();
            assert_eq!(error, LocalError::NotUnicast(ip(address)));
        }
        let twice = Local::new(&[ip("10.0.0.1"), ip("10.0.0.1")], &[80]).unwrap_err();
        assert_eq!(twice.to_string(), "10.0.0.1 is given twice: name it once");
        let many: Vec<IpAddr> = (1..=129)
            .map(|n| Ipv4Addr::new(10, 0, 0, n).into())
            .collect();
        let error = Local::new(&many, &[80]).unwrap_err();
        assert_eq!(error, LocalError::TooManyAddresses(129));
        assert!(Local::new(&many[1..], &[80]).is_ok());
        let ports: Vec<u16> = (1..=17).collect();
        assert_eq!(
            Local::new(&many[..1], &ports).unwrap_err(),
            LocalError::TooManyPorts(17)
        );
    }
}
