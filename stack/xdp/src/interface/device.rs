//! The ioctl side of an interface: netdevice(7) and the ethtool requests of `linux/ethtool.h`.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Settings of a driver that matter to a server; `None` is what it does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Lengths of its descriptor rings.
    pub rings: Option<Rings>,
    /// Whether received segments are merged by the kernel (GRO).
    pub gro: Option<bool>,
    /// Whether received segments are merged by the NIC (LRO).
    pub lro: Option<bool>,
    /// Whether the NIC takes 802.1Q tags off received frames.
    pub takes_vlan_tags: Option<bool>,
    /// The queues to which the hash of a flow leads (RSS), one entry for each of its values.
    pub hashed_to: Option<Vec<u32>>,
}

/// Lengths of descriptor rings, in descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rings {
    /// Of each receive queue.
    pub rx: u32,
    /// The longest it could be.
    pub rx_max: u32,
    /// Of each transmit queue.
    pub tx: u32,
    /// The longest it could be.
    pub tx_max: u32,
}

/// An interface, to be asked.
pub(super) struct Device {
    pub(super) socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Device {
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let name = c_name(name).ok_or(io::ErrorKind::InvalidInput)?;
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Device { socket, name })
    }

    /// Asks about the interface of this name from now on; whether that is another name.
    pub(super) fn rename(&mut self, name: &str) -> bool {
        let name = c_name(name).unwrap_or(self.name);
        std::mem::replace(&mut self.name, name) != name
    }

    pub(super) fn mtu(&self) -> io::Result<usize> {
        let request = self.request(libc::SIOCGIFMTU, std::ptr::null_mut())?;
        // SAFETY: SIOCGIFMTU succeeded, so the kernel filled this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as usize)
    }

    pub(super) fn channels(&self) -> io::Result<Channels> {
        let mut channels = Channels {
            command: ETHTOOL_GCHANNELS,
            ..Default::default()
        };
        self.request(libc::SIOCETHTOOL, (&raw mut channels).cast())?;
        Ok(channels)
    }

    pub(super) fn driver(&self) -> io::Result<String> {
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

    /// What the driver does not have is `None`.
    pub(super) fn settings(&self) -> Settings {
        let flag = |command, mask| Some(self.value(command).ok()? & mask != 0);
        Settings {
            rings: self.rings().ok(),
            gro: flag(ETHTOOL_GGRO, u32::MAX),
            lro: flag(ETHTOOL_GFLAGS, ETH_FLAG_LRO),
            takes_vlan_tags: flag(ETHTOOL_GFLAGS, ETH_FLAG_RXVLAN),
            hashed_to: self.hashed_to().ok(),
        }
    }

    fn rings(&self) -> io::Result<Rings> {
        let mut rings = RingParameters {
            command: ETHTOOL_GRINGPARAM,
            ..Default::default()
        };
        self.request(libc::SIOCETHTOOL, (&raw mut rings).cast())?;
        Ok(Rings {
            rx: rings.rx,
            rx_max: rings.rx_max,
            tx: rings.tx,
            tx_max: rings.tx_max,
        })
    }

    fn value(&self, command: u32) -> io::Result<u32> {
        let mut value = Value { command, data: 0 };
        self.request(libc::SIOCETHTOOL, (&raw mut value).cast())?;
        Ok(value.data)
    }

    fn hashed_to(&self) -> io::Result<Vec<u32>> {
        let mut table = Box::new(Indirection {
            command: ETHTOOL_GRXFHINDIR,
            size: 0,
            queues: [0; INDIRECTION_MAX],
        });
        // Size zero asks for the size.
        self.request(libc::SIOCETHTOOL, (&raw mut *table).cast())?;
        let size = table.size as usize;
        if size > INDIRECTION_MAX {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.request(libc::SIOCETHTOOL, (&raw mut *table).cast())?;
        Ok(table.queues[..size].to_vec())
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
        // the command, promises; all are declared below after the kernel's own.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), request as _, &raw mut ifreq) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(ifreq)
        }
    }
}

/// As the kernel takes it; `None` if it is too long for any interface.
fn c_name(name: &str) -> Option<[libc::c_char; libc::IFNAMSIZ]> {
    let mut c_name = [0; libc::IFNAMSIZ];
    if name.len() >= c_name.len() {
        return None;
    }
    for (to, from) in c_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Some(c_name)
}

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GRXFHINDIR: u32 = 0x38;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// The bit of the VLAN offload among those of ETHTOOL_GFLAGS.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// The bit of LRO among those of ETHTOOL_GFLAGS.
const ETH_FLAG_LRO: u32 = 1 << 15;

/// No driver has a longer indirection table.
const INDIRECTION_MAX: usize = 4096;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
pub(super) struct Channels {
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
    pub(super) fn rx_queues(&self) -> u32 {
        self.rx.saturating_add(self.combined).max(1)
    }

    pub(super) fn rx_queues_max(&self) -> u32 {
        // Not a sum: most drivers share these among each other.
        self.max_rx.max(self.max_combined).max(self.rx_queues())
    }
}

/// `struct ethtool_drvinfo`: the driver's name, and 160 bytes that are not read here.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_ringparam`.
#[repr(C)]
#[derive(Default)]
struct RingParameters {
    command: u32,
    rx_max: u32,
    rx_mini_max: u32,
    rx_jumbo_max: u32,
    tx_max: u32,
    rx: u32,
    rx_mini: u32,
    rx_jumbo: u32,
    tx: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_rxfh_indir`, with room for the largest table.
#[repr(C)]
struct Indirection {
    command: u32,
    size: u32,
    queues: [u32; INDIRECTION_MAX],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Channels>(), 36);
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<RingParameters>(), 36);
        assert_eq!(size_of::<Value>(), 8);
        assert_eq!(size_of::<Indirection>(), 8 + 4 * INDIRECTION_MAX);
    }

    #[test]
    fn the_loopback_device_has_nothing_to_set_but_gro() {
        let settings = Device::open("lo").unwrap().settings();
        assert_eq!((settings.rings, settings.hashed_to), (None, None));
        assert!(settings.gro.is_some());
    }
}
