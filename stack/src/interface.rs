//! What the kernel knows about a network interface.
//!
//! Everything is asked of the network namespace this process is in (through a socket, not through
//! `/sys`, which shows the namespace it was mounted in).

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use thiserror::Error;

/// A network interface as it was when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name, such as `eth0`.
    pub name: String,
    /// Index in this network namespace.
    pub index: u32,
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
    /// The kernel's name for its driver, empty if it has none.
    pub driver: String,
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
    /// Looks up the interface called `name`.
    ///
    /// # Errors
    ///
    /// If there is none, or the kernel does not tell.
    pub fn named(name: &str) -> Result<Self, InterfaceError> {
        let unreadable = |what| {
            move |source: io::Error| InterfaceError::Unreadable {
                name: name.to_owned(),
                what,
                source,
            }
        };
        let (mut mac, mut is_up) = ([0; 6], false);
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
        Ok(Interface {
            index: name_to_index(&device.socket, name)
                .map_err(|errno| unreadable("the index")(errno.into()))?,
            mtu: device.mtu().map_err(unreadable("the MTU"))?,
            // Drivers without these operations (loopback, tun) have one queue and no driver.
            rx_queues: device.channels().map_or(1, |channels| channels.rx_queues()),
            driver: device.driver().unwrap_or_default(),
            name: name.to_owned(),
            mac,
            is_up,
            addresses,
        })
    }

    /// The addresses that somebody beyond this machine and link can use, in the kernel's order.
    pub fn routable_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses
            .iter()
            .copied()
            .filter(|address| match address {
                IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
                IpAddr::V6(v6) => !v6.is_loopback() && !is_link_local(v6),
            })
    }
}

fn is_link_local(address: &Ipv6Addr) -> bool {
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

/// The ioctl side of an interface: netdevice(7) and the ethtool requests of `linux/ethtool.h`.
struct Device {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Device {
    fn open(name: &str) -> io::Result<Self> {
        let mut c_name = [0; libc::IFNAMSIZ];
        if name.len() >= c_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in c_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Device {
            socket,
            name: c_name,
        })
    }

    fn mtu(&self) -> io::Result<usize> {
        let request = self.request(libc::SIOCGIFMTU, std::ptr::null_mut())?;
        // SAFETY: SIOCGIFMTU succeeded, so the kernel filled this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as usize)
    }

    fn channels(&self) -> io::Result<Channels> {
        let mut channels = Channels {
            command: ETHTOOL_GCHANNELS,
            ..Default::default()
        };
        self.request(libc::SIOCETHTOOL, (&raw mut channels).cast())?;
        Ok(channels)
    }

    fn driver(&self) -> io::Result<String> {
        let mut info = DriverInfo {
            command: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            rest: [0; 160],
        };
        self.request(libc::SIOCETHTOOL, (&raw mut info).cast())?;
        let len = info
            .driver
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(info.driver.len());
        Ok(String::from_utf8_lossy(&info.driver[..len]).into_owned())
    }

    /// `data` is null, or the structure that an ethtool request reads and writes.
    fn request(&self, request: libc::c_ulong, data: *mut c_void) -> io::Result<libc::ifreq> {
        let mut ifreq = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: data.cast(),
            },
        };
        // SAFETY: every request made here takes a pointer to an ifreq, which lives through the call.
        // The ethtool ones follow its data pointer to a structure of the size that its first word,
        // the command, promises; both are declared below after the kernel's own.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), request as _, &raw mut ifreq) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(ifreq)
        }
    }
}

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Channels {
    fn rx_queues(&self) -> u32 {
        self.rx.saturating_add(self.combined).max(1)
    }
}

/// `struct ethtool_drvinfo`: the driver's name, and 160 bytes that are not read here.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
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
        assert_eq!(lo.mac, [0; 6]);
        assert_eq!(lo.rx_queues, 1);
        assert!(lo.addresses.contains(&Ipv4Addr::LOCALHOST.into()));
        assert_eq!(lo.routable_addresses().next(), None);
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

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Channels>(), 36);
        assert_eq!(size_of::<DriverInfo>(), 196);
    }
}
