//! What the kernel knows about a network interface.
//!
//! Everything is asked of the network namespace this process is in (through a socket, not through
//! `/sys`, which shows the namespace it was mounted in).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rustix::net::netdevice::name_to_index;
use thiserror::Error;

use crate::netlink;

#[allow(unsafe_code)]
mod device;
mod presence;
mod xdp;

use device::Device;
pub use presence::{AddressChange, Link, Presence, Sighting};
pub use xdp::{XdpFeatures, XdpState};

pub use device::{Rings, Settings};

/// A network interface as it was when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name, such as `eth0`.
    pub name: String,
    /// Index in this network namespace.
    pub index: u32,
    /// What its frames begin with.
    pub framing: Framing,
    /// Hardware address; zeros where there is none (loopback).
    pub mac: [u8; 6],
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// Addresses the kernel has for it, link-local ones included.
    pub addresses: Vec<IpAddr>,
    /// Receive queues in use, at least one. Queues are numbered from zero.
    pub rx_queues: u32,
    /// Receive queues that it could have (`ethtool -L`), at least as many as are in use.
    pub rx_queues_max: u32,
    /// The kernel's name for its driver, empty if it has none.
    pub driver: String,
}

/// What the frames of an interface begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// It is the loopback interface. Its frames have an Ethernet header, of zeros.
    Loopback,
    /// The IP header, or a header of another kind (`ARPHRD_*` of `linux/if_arp.h`).
    Other(u16),
}

impl Framing {
    fn of(hardware_type: u16) -> Self {
        match hardware_type {
            libc::ARPHRD_ETHER => Framing::Ethernet,
            libc::ARPHRD_LOOPBACK => Framing::Loopback,
            other => Framing::Other(other),
        }
    }
}

/// Why an interface cannot be described.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// There is none of that name in this network namespace.
    #[error("no interface named {name:?}; this network namespace has: {existing}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// What there is, separated by commas.
        existing: String,
    },
    /// The kernel refused to tell.
    #[error("cannot read {what} of interface {name}: {source}")]
    Unreadable {
        /// The interface.
        name: String,
        /// What was being read.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Interface {
    /// Looks up the interface called `name`, or with this alternative name (`ip link property add`).
    ///
    /// # Errors
    ///
    /// If there is none, or the kernel does not tell.
    pub fn named(name: &str) -> Result<Self, InterfaceError> {
        let primary = primary_name(name);
        let name = primary.as_deref().unwrap_or(name);
        let unreadable = |what| {
            move |source: io::Error| InterfaceError::Unreadable {
                name: name.to_owned(),
                what,
                source,
            }
        };
        let (mut mac, mut is_up, mut framing) = ([0; 6], false, Framing::Other(0));
        let (mut addresses, mut existing) = (Vec::new(), Vec::new());
        for entry in getifaddrs().map_err(|errno| unreadable("the addresses")(errno.into()))? {
            if !existing.contains(&entry.interface_name) {
                existing.push(entry.interface_name.clone());
            }
            let Some(address) = entry.address.filter(|_| entry.interface_name == name) else {
                continue;
            };
            is_up = entry.flags.contains(InterfaceFlags::IFF_UP);
            if let Some(link) = address.as_link_addr() {
                mac = link.addr().unwrap_or_default();
                framing = Framing::of(link.hatype());
            } else if let Some(v4) = address.as_sockaddr_in() {
                addresses.push(IpAddr::V4(v4.ip()));
            } else if let Some(v6) = address.as_sockaddr_in6() {
                addresses.push(IpAddr::V6(v6.ip()));
            }
        }
        if !existing.iter().any(|candidate| candidate == name) {
            return Err(InterfaceError::NotFound {
                name: name.to_owned(),
                existing: existing.join(", "),
            });
        }

        let device = Device::open(name).map_err(unreadable("the device"))?;
        // Drivers without this operation (loopback, tun) have one queue.
        let channels = device.channels().unwrap_or_default();
        Ok(Interface {
            index: name_to_index(&device.socket, name)
                .map_err(|errno| unreadable("the index")(errno.into()))?,
            mtu: device.mtu().map_err(unreadable("the MTU"))?,
            rx_queues: channels.rx_queues(),
            rx_queues_max: channels.rx_queues_max(),
            // Nor have they a driver.
            driver: device.driver().unwrap_or_default(),
            name: name.to_owned(),
            framing,
            mac,
            is_up,
            addresses,
        })
    }

    /// What ethtool can set that matters to a server; asks the kernel now.
    ///
    /// # Errors
    ///
    /// If the interface is gone.
    pub fn settings(&self) -> Result<Settings, InterfaceError> {
        let device = Device::open(&self.name).map_err(|source| InterfaceError::Unreadable {
            name: self.name.clone(),
            what: "the device",
            source,
        })?;
        Ok(device.settings())
    }

    /// What the kernel says of XDP on it; asks the kernel now.
    ///
    /// # Errors
    ///
    /// If the interface is gone.
    pub fn xdp(&self) -> Result<XdpState, InterfaceError> {
        xdp::state(self.index).map_err(|source| InterfaceError::Unreadable {
            name: self.name.clone(),
            what: "the state of XDP",
            source,
        })
    }

    /// Subscribes to what becomes of it.
    ///
    /// # Errors
    ///
    /// If the process is out of descriptors.
    pub fn presence(&self) -> Result<Presence, InterfaceError> {
        Presence::of(&self.name, self.index).map_err(|source| InterfaceError::Unreadable {
            name: self.name.clone(),
            what: "changes",
            source,
        })
    }

    /// The VLAN interfaces on top of it (`ip link add link IFACE type vlan`).
    pub fn vlans(&self) -> Vec<String> {
        // Without the kernel's 802.1Q module there is no such file, and no VLAN.
        let config = std::fs::read_to_string("/proc/thread-self/net/vlan/config");
        vlans_on(&self.name, &config.unwrap_or_default())
    }

    /// The interfaces that receive for it, where GRO merges: the ports of a bridge or bond, the one below a VLAN or
    /// macvlan, or itself.
    pub fn receivers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(format!("/sys/class/net/{}", self.name));
        let names = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        let mut lower: Vec<_> = names
            .filter_map(|name| Some(name.to_str()?.strip_prefix("lower_")?.to_owned()))
            .collect();
        if lower.is_empty() {
            lower.push(self.name.clone());
        }
        lower.sort();
        lower
    }

    /// Whether frames may come from this machine that never are on a wire: from another container or guest, say. Their
    /// senders leave checksums to a device that does not complete them.
    pub fn is_virtual(&self) -> bool {
        const VIRTUAL: &[&str] = &[
            "veth",
            "tun",
            "bridge",
            "openvswitch",
            "macvlan",
            "ipvlan",
            "802.1Q VLAN Support",
            "vxlan",
            "geneve",
            "dummy",
            // What another guest of the host sends.
            "virtio_net",
            "vif",
        ];
        VIRTUAL.contains(&self.driver.as_str())
    }

    /// The addresses that can be used from beyond this machine and link, in the kernel's order.
    pub fn routable_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(is_routable)
    }
}

/// The name of the interface with the alternative name `alternative`, if there is one.
fn primary_name(alternative: &str) -> Option<String> {
    const IFLA_ALT_IFNAME: u16 = 53;

    let mut request = LinkMessage::default();
    let name = DefaultNla::new(IFLA_ALT_IFNAME, alternative.as_bytes().to_vec());
    request.attributes.push(LinkAttribute::Other(name));
    let answer = netlink::ask(NETLINK_ROUTE, RouteNetlinkMessage::GetLink(request), 0);
    let Ok(Some(RouteNetlinkMessage::NewLink(link))) = answer else {
        return None;
    };
    link.attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        })
}

/// Lines of the kernel's table are `NAME | ID | INTERFACE`.
fn vlans_on(interface: &str, config: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut columns = line.split('|').map(str::trim);
        let (name, _id) = (columns.next()?, columns.next()?);
        (columns.next()? == interface).then(|| name.to_owned())
    };
    config.lines().filter_map(name).collect()
}

/// Whether it can be used from beyond this machine and link.
pub(crate) fn is_routable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !is_link_local(v6),
    }
}

pub(crate) fn is_link_local(address: &Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = if self.driver.is_empty() {
            "no driver"
        } else {
            &self.driver
        };
        let (mtu, queues) = (self.mtu, self.rx_queues);
        write!(f, "{} ({driver}, MTU {mtu}, {queues} rx queues)", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_loopback_interface_is_what_everybody_knows() {
        let lo = Interface::named("lo").unwrap();
        assert_eq!(lo.index, 1);
        assert!(lo.is_up);
        assert_eq!((lo.mac, lo.framing), ([0; 6], Framing::Loopback));
        assert_eq!(lo.rx_queues, 1);
        assert!(lo.addresses.contains(&Ipv4Addr::LOCALHOST.into()));
        assert_eq!(lo.routable_addresses().next(), None);
    }

    #[test]
    fn vlans_are_those_on_top_of_the_interface() {
        let config = "VLAN Dev name    | VLAN ID\n\
                      Name-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                      eth0.7         | 7  | eth0\n\
                      guests         | 9  | eth0\n\
                      eth01.7        | 7  | eth01\n";
        assert_eq!(vlans_on("eth0", config), ["eth0.7", "guests"]);
        assert!(vlans_on("eth1", config).is_empty());
        assert!(vlans_on("eth0", "").is_empty());
    }

    #[test]
    fn an_interface_that_is_gone_is_noticed_at_once() {
        let never = std::time::Duration::from_secs(3600);
        let mut presence = Presence::of("nowhere0", 0x7fff_ffff).unwrap();
        assert_eq!(presence.look(never).unwrap(), None);
    }

    #[test]
    fn an_interface_that_is_there_says_what_it_received() {
        let mut presence = Presence::of("lo", 1).unwrap();
        let sighting = presence.look(std::time::Duration::from_millis(100));
        let sighting = sighting.unwrap().unwrap();
        assert_eq!((sighting.rx_queues, sighting.link), (1, Some(Link::Up)));
        assert!(sighting.received.is_some());
    }

    #[test]
    fn an_unknown_interface_names_the_known_ones() {
        for name in ["nowhere0", "", "a-name-longer-than-any-interface"] {
            let error = Interface::named(name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{name:?}")) && error.contains("lo"),
                "{error}"
            );
        }
    }
}
