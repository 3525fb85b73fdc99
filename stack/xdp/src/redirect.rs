//! Redirects the served traffic from the kernel's stack to AF_XDP sockets, and undoes that.
//!
//! Loads the embedded XDP program (see `xdp-prog/`), tells it through maps what is served, attaches
//! it, and points it at the AF_XDP socket of each receive queue:
//!
//! ```text
//!   load(targets) ─▶ attach(interface, mode) ─▶ set_socket(queue, fd)… ─▶ frames arrive
//!                        bpf_link: removed when the process ends
//! ```
//!
//! Until a queue has its socket, its frames go on to the kernel; so everything can be prepared
//! before the first frame is taken. The kernel knows the served ports as in use, and is silent on them
//! (see [`Redirect::reserve`]). The program is attached through a `bpf_link` only: the kernel
//! detaches it when the last descriptor is closed, after `kill -9` as well. An attachment through
//! netlink or a pin would outlive the process, and the traffic of a server that has ended would be lost.

use std::borrow::Cow;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::sleep;
use std::time::Duration;
use std::{fmt, io, iter};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramFd, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use ipnet::IpNet;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use thiserror::Error;

use crate::interface::Interface;
use barewire_service::counters::{Kind, Sample, Samples};

#[allow(unsafe_code)]
mod attachment;
#[allow(unsafe_code)]
mod reservation;

pub mod contract;
pub use reservation::Holder;

use reservation::Reservation;

use contract::{
    ADDRESSES_MAX, ALLOW_IPV4_MAP, ALLOW_IPV6_MAP, DENY_IPV4_MAP, DENY_IPV6_MAP, PORT_WORDS,
    PORTS_MAP, PROGRAM, SERVED_MAP, SOCKETS_MAP, Served, VERDICTS_MAP, Verdict,
};

#[cfg(target_endian = "big")]
compile_error!("the embedded XDP program is little-endian");

/// The XDP program, as scripts/build-xdp builds it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../barewire-xdp.o");

/// The oldest kernel that has all that is needed: `bpf_link` for XDP (5.9), BPF memory that does
/// not count against RLIMIT_MEMLOCK, and preferred busy polling (5.11).
const KERNEL_MIN: (u8, u8) = (5, 11);

/// The first kernel that takes programs with fragments.
const KERNEL_WITH_FRAGMENTS: (u8, u8) = (5, 18);

/// How long a program may still run that began before a socket was taken from it: it does so in the driver's receive
/// loop, which takes a batch at a time. To be certain takes an RCU grace period, of 10 ms and more, in which nobody is
/// answered; what arrives later is lost instead, and sent again.
const PROGRAM_MAX: Duration = Duration::from_millis(1);

/// What is redirected: TCP to any of the addresses on any of the ports.
#[derive(Debug, Clone)]
pub struct Targets {
    /// At least one, and at most [`ADDRESSES_MAX`] of each family.
    pub addresses: Vec<IpAddr>,
    /// Ranges of ports, at least one, without port 0.
    pub ports: Vec<RangeInclusive<u16>>,
    /// From whom it is.
    pub sources: Sources,
}

/// Who may connect. Segments of others are dropped by the program, counted, and not answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Prefixes that may connect, at most [`Sources::PREFIXES_MAX`]; if there are none, all may.
    pub allow: Vec<IpNet>,
    /// Prefixes that may not, allowed or not, at most [`Sources::PREFIXES_MAX`].
    pub deny: Vec<IpNet>,
}

impl Sources {
    /// How many prefixes each list has room for. Each takes about 100 bytes of the kernel's memory.
    pub const PREFIXES_MAX: usize = 16_384;

    fn check(&self) -> Result<(), RedirectError> {
        for (list, prefixes) in [("allowed", &self.allow), ("denied", &self.deny)] {
            if prefixes.len() > Self::PREFIXES_MAX {
                let count = prefixes.len();
                return Err(RedirectError::TooManyPrefixes { list, count });
            }
        }
        Ok(())
    }

    /// The tries of the program, each with what belongs into it.
    fn tries(&self) -> [(&'static str, Vec<IpNet>); 4] {
        let of_family = |list: &[IpNet], is_ipv6| {
            let prefixes = list.iter().map(IpNet::trunc);
            prefixes
                .filter(|prefix| prefix.addr().is_ipv6() == is_ipv6)
                .collect()
        };
        [
            (ALLOW_IPV4_MAP, of_family(&self.allow, false)),
            (ALLOW_IPV6_MAP, of_family(&self.allow, true)),
            (DENY_IPV4_MAP, of_family(&self.deny, false)),
            (DENY_IPV6_MAP, of_family(&self.deny, true)),
        ]
    }
}

/// Where the program shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModeChoice {
    /// In the driver if it can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's network stack: any driver, but slow, and on a veth all frames come by queue 0.
    Generic,
}

/// Where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel allocates anything for the frame.
    Native,
    /// In the kernel's network stack, after it has.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
    }
}

/// Why the traffic cannot be taken.
#[derive(Debug, Error)]
pub enum RedirectError {
    /// The process may not do what it must.
    #[error(
        "not enough privileges: {missing} missing; run as root, \
         or give the program file what it needs: sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock,cap_net_bind_service+ep FILE"
    )]
    Privileges {
        /// The capabilities, separated by commas.
        missing: String,
    },
    /// The process has its capabilities, but not where they count.
    #[error(
        "the kernel forbids BPF in spite of the capabilities: in a container or user namespace \
         they must be granted by the host (privileged container); `cat /sys/kernel/security/lockdown` says whether the host is locked down"
    )]
    Forbidden,
    /// The kernel is too old.
    #[error("Linux {0}.{1} or newer is needed for an XDP program that ends with its process", KERNEL_MIN.0, KERNEL_MIN.1)]
    KernelTooOld,
    /// Nothing to serve.
    #[error("no {0} to serve; name at least one")]
    Nothing(&'static str),
    /// More addresses than the program has room for.
    #[error(
        "more than {ADDRESSES_MAX} {family} addresses to serve, which is all that fit: name those to serve with --address"
    )]
    TooManyAddresses {
        /// IPv4 or IPv6.
        family: &'static str,
    },
    /// More prefixes than the program has room for.
    #[error("{count} {list} prefixes; at most {max} fit: merge some into shorter ones", max = Sources::PREFIXES_MAX)]
    TooManyPrefixes {
        /// Allowed or denied.
        list: &'static str,
        /// How many were asked for.
        count: usize,
    },
    /// Port 0 was to be served.
    #[error("port 0 cannot be served; choose one from 1 to 65535")]
    PortZero,
    /// Another program is attached to the interface.
    #[error(
        "{interface} already has an XDP program (another instance?): `bpftool net show dev {interface}` and \
         `bpftool link show` name it; end the process that holds it, or `ip link set dev {interface} xdp off`"
    )]
    Occupied {
        /// The interface.
        interface: String,
    },
    /// The driver has no native XDP, and nothing else was allowed.
    #[error(
        "driver {driver:?} of {interface} has no native XDP{}; use --mode generic (slower) or another NIC",
        host_condition(.driver)
    )]
    NoNative {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
    },
    /// A veth has fewer receive queues than its peer sends from.
    #[error(
        "{interface} has fewer receive queues ({rx_queues}) than its peer sends from, with which its driver runs no native \
         XDP: {}at the peer `ethtool -L PEER tx {rx_queues}`, or use --mode generic (slower)",
        match .rx_queues_max > .rx_queues {
            true => format!("`ethtool -L {interface} rx {rx_queues_max}`, or "),
            false => String::new(),
        }
    )]
    FewReceiveQueues {
        /// The interface.
        interface: String,
        /// How many it has.
        rx_queues: u32,
        /// How many it can have.
        rx_queues_max: u32,
    },
    /// The driver has no queues left to send from for a program.
    #[error(
        "driver {driver:?} of {interface} has no queues or memory left for native XDP ({reason}): {}use --mode generic (slower)",
        match .rx_queues / 2 {
            0 => String::new(),
            fewer => format!("`ethtool -L {interface} combined {fewer}` leaves it some, or "),
        }
    )]
    NoQueuesLeft {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
        /// What the kernel says.
        reason: String,
        /// How many receive queues it has.
        rx_queues: u32,
    },
    /// The driver runs XDP only with frames that fit into a page, or its buffers.
    #[error(
        "MTU {mtu} of {interface} (or, on a veth, of its peer) is too large for this driver's native XDP: \
         `ip link set dev {interface} mtu 1500` at both ends, or use --mode generic (slower)"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: usize,
    },
    /// The driver or kernel refused for a reason of its own.
    #[error(
        "cannot attach the XDP program to {interface} in {mode} mode: {reason}; {}",
        match .mode {
            Mode::Native => "use --mode generic (slower)",
            Mode::Generic => "serve through the kernel, with --stack epoll",
        }
    )]
    Attach {
        /// The interface.
        interface: String,
        /// The mode that was tried.
        mode: Mode,
        /// What the kernel says.
        reason: String,
    },
    /// The kernel serves the port already, or another server of ours does.
    #[error(
        "{address} is served by {holder}: end it, choose another --port, or take the port from it with --steal-port"
    )]
    PortInUse {
        /// The address and port.
        address: SocketAddr,
        /// Who has it.
        holder: Holder,
    },
    /// The process may not reserve the port.
    #[error(
        "not allowed to reserve port {port}: choose one from 1024 on, run as root, or run with CAP_NET_BIND_SERVICE as well"
    )]
    PortPrivileged {
        /// The port.
        port: u16,
    },
    /// The kernel does not reserve a port.
    #[error("cannot reserve {address} for this server: {source}")]
    Reserve {
        /// The address and port.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel rejected the program or one of its maps.
    #[error("cannot load the XDP program: {0}")]
    Load(String),
    /// A map operation failed.
    #[error("cannot access map {map} of the XDP program: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's reason.
        source: MapError,
    },
}

impl RedirectError {
    /// Whether the driver refused native mode; generic mode does not ask it.
    fn is_of_driver(&self) -> bool {
        matches!(
            self,
            RedirectError::NoNative { .. }
                | RedirectError::FewReceiveQueues { .. }
                | RedirectError::NoQueuesLeft { .. }
                | RedirectError::MtuTooLarge { .. }
                | RedirectError::Attach {
                    mode: Mode::Native,
                    ..
                }
        )
    }
}

/// What a driver that has native XDP asks of its host.
fn host_condition(driver: &str) -> &'static str {
    match driver {
        "virtio_net" => {
            " here: it has where the host lets it switch LRO and checksum offloads off (QEMU: \
             ctrl_guest_offloads=on, or guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_csum=off)"
        }
        _ => "",
    }
}

/// The loaded program, attached or not. Dropping it detaches it.
pub struct Redirect {
    // Dropped first: no frame is redirected while the rest goes.
    attached: Mutex<Option<Attached>>,
    ebpf: Ebpf,
    sockets: Mutex<Sockets>,
    served: Mutex<(Array<MapData, Served>, Served)>,
    verdicts: Arc<Verdicts>,
    reservation: Reservation,
}

/// The AF_XDP sockets of the queues.
struct Sockets {
    map: XskMap<MapData>,
    /// Those that are in the map, or were before [`Redirect::pause`].
    given: Vec<(u32, Weak<OwnedFd>)>,
}

/// Where the program is attached.
struct Attached {
    /// Removes it when it is dropped. `None`: attaching it again has failed.
    link: Option<OwnedFd>,
    interface: Interface,
    mode: Mode,
}

/// How many frames met which fate since the program was loaded. Does not keep it attached.
pub struct Verdicts(PerCpuArray<MapData, u64>);

impl Redirect {
    /// Loads the program for `targets`, with room for sockets on queues `0..queues`.
    ///
    /// # Errors
    ///
    /// If privileges are missing, the kernel is too old, or there is nothing, or too much, to serve.
    pub fn load(targets: &Targets, queues: u32) -> Result<Self, RedirectError> {
        let served = targets.served()?;
        let ports = targets.port_words()?;
        targets.sources.check()?;
        check_privileges()?;
        check_kernel()?;

        let tries = targets.sources.tries();
        let mut loader = EbpfLoader::new();
        loader.btf(None).map_max_entries(SOCKETS_MAP, queues.max(1));
        for (map, prefixes) in &tries {
            loader.map_max_entries(map, prefixes.len().max(1) as u32);
        }
        let mut ebpf = loader
            .load(&object(KernelVersion::current().ok()))
            .map_err(load_error)?;
        let mut served_map: Array<_, Served> = take_map(&mut ebpf, SERVED_MAP)?;
        served_map
            .set(0, served, 0)
            .map_err(map_error(SERVED_MAP))?;
        let mut port_map: Array<_, u64> = take_map(&mut ebpf, PORTS_MAP)?;
        for (index, word) in (0..).zip(ports).filter(|(_, word)| *word != 0) {
            port_map.set(index, word, 0).map_err(map_error(PORTS_MAP))?;
        }
        let mut redirect = Redirect {
            attached: Mutex::new(None),
            sockets: Mutex::new(Sockets {
                map: take_map(&mut ebpf, SOCKETS_MAP)?,
                given: Vec::new(),
            }),
            served: Mutex::new((served_map, served)),
            verdicts: Arc::new(Verdicts(take_map(&mut ebpf, VERDICTS_MAP)?)),
            reservation: Reservation::default(),
            ebpf,
        };
        redirect
            .program()?
            .load()
            .map_err(|error| load_error(error.into()))?;
        for (map, prefixes) in tries {
            redirect.fill_trie(map, &prefixes)?;
        }
        Ok(redirect)
    }

    /// The program keeps the map, which is not changed any more.
    fn fill_trie(&mut self, map: &'static str, prefixes: &[IpNet]) -> Result<(), RedirectError> {
        for prefix in prefixes {
            let bits = u32::from(prefix.prefix_len());
            match prefix.addr() {
                IpAddr::V4(v4) => {
                    let mut trie: LpmTrie<_, u32, u8> = self.map_mut(map)?;
                    trie.insert(&Key::new(bits, v4_word(v4)), 1, 0)
                }
                IpAddr::V6(v6) => {
                    let mut trie: LpmTrie<_, [u64; 2], u8> = self.map_mut(map)?;
                    trie.insert(&Key::new(bits, v6_words(v6)), 1, 0)
                }
            }
            .map_err(map_error(map))?;
        }
        Ok(())
    }

    fn map_mut<'m, M>(&'m mut self, name: &'static str) -> Result<M, RedirectError>
    where
        M: TryFrom<&'m mut Map, Error = MapError>,
    {
        let map = self.ebpf.map_mut(name).ok_or_else(|| no_map(name))?;
        map.try_into().map_err(map_error(name))
    }

    /// Attaches the program to `interface`; nothing is redirected until [`Redirect::set_socket`]. Returns where it runs,
    /// and, if [`ModeChoice::Auto`] had to fall back to generic mode, why.
    ///
    /// # Errors
    ///
    /// If the interface is taken, or the driver refuses all that is allowed.
    pub fn attach(
        &mut self,
        interface: &Interface,
        choice: ModeChoice,
    ) -> Result<(Mode, Option<RedirectError>), RedirectError> {
        let mode = match choice {
            ModeChoice::Native | ModeChoice::Auto => Mode::Native,
            ModeChoice::Generic => Mode::Generic,
        };
        match self.attach_in(interface, mode) {
            Ok(()) => Ok((mode, None)),
            Err(error) if choice == ModeChoice::Auto && error.is_of_driver() => {
                self.attach_in(interface, Mode::Generic)?;
                Ok((Mode::Generic, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    fn attach_in(&mut self, interface: &Interface, mode: Mode) -> Result<(), RedirectError> {
        let link = self.link_to(interface, mode)?;
        *self.attachment() = Some(Attached {
            link: Some(link),
            interface: interface.clone(),
            mode,
        });
        Ok(())
    }

    /// Makes each of `ports` of each of `addresses` in use for the kernel, which from here on answers nothing there.
    /// Returns those that other processes had, if `steals`.
    ///
    /// # Errors
    ///
    /// If a port is in use, unless it `steals`, or if it is below 1024 and CAP_NET_BIND_SERVICE is missing.
    pub fn reserve(
        &mut self,
        interface: &Interface,
        addresses: &[IpAddr],
        ports: &[u16],
        steals: bool,
    ) -> Result<Vec<(SocketAddr, Holder)>, RedirectError> {
        let mut stolen = Vec::new();
        for &address in addresses {
            for &port in ports {
                match self.reservation.add(address, port, interface) {
                    Err(RedirectError::PortInUse { address, holder }) if steals => {
                        stolen.push((address, holder));
                    }
                    result => result?,
                }
            }
        }
        Ok(stolen)
    }

    /// Redirects what is for `address` as well. Its ports are not reserved: a process that serves has given up the
    /// capability that ports below 1024 take, and may not open sockets that listen.
    ///
    /// # Errors
    ///
    /// If there is no room for it, or the kernel (before 5.19) asks for capabilities.
    pub fn serve_also(&self, address: IpAddr) -> Result<(), RedirectError> {
        let mut guard = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, served) = &mut *guard;
        let mut more = *served;
        more.add(address)?;
        map.set(0, more, 0).map_err(map_error(SERVED_MAP))?;
        *served = more;
        Ok(())
    }

    /// Detaches the program and attaches it again, in the same mode: that makes a driver set up again what it has lost.
    /// Sockets keep their queues.
    ///
    /// # Errors
    ///
    /// If the driver refuses, or the kernel (before 5.19 it asks for capabilities). The program is detached then.
    pub fn attach_again(&self) -> Result<(), RedirectError> {
        if let Some(attached) = &mut *self.attachment() {
            if let Some(link) = attached.link.take() {
                // Where the kernel (before 5.9) cannot, closing it is enough if nobody else has it.
                let _ = attachment::detach(link.as_fd());
            }
            attached.link = Some(self.link_to(&attached.interface, attached.mode)?);
        }
        Ok(())
    }

    fn link_to(&self, interface: &Interface, mode: Mode) -> Result<OwnedFd, RedirectError> {
        let program = self.loaded()?;
        attachment::attach(program.as_fd(), interface.index, mode)
            .map_err(|error| attach_error(interface, mode, &error))
    }

    fn loaded(&self) -> Result<&ProgramFd, RedirectError> {
        let program = self.ebpf.program(PROGRAM);
        let program: &Xdp = program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(no_program)?;
        program.fd().map_err(|error| load_error(error.into()))
    }

    /// What another process needs to go on in this one's place: the attachment, and what reserves the ports.
    ///
    /// # Errors
    ///
    /// If the program is not attached, or the process is out of descriptors.
    pub fn duplicate(&self) -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
        let attached = self.attachment();
        let link = attached
            .as_ref()
            .and_then(|attached| attached.link.as_ref());
        let link = link.ok_or_else(|| io::Error::other("the XDP program is not attached"))?;
        Ok((link.try_clone()?, self.reservation.duplicate()?))
    }

    /// Another process has the attachment: this one lets go of it.
    pub fn give_up(&self) {
        *self.attachment() = None;
    }

    /// Will go on in the place of another process: with its attachment to `interface`, in which its program is until
    /// [`Redirect::replace`], and its reservation of the ports.
    pub fn inherit(
        &mut self,
        (link, reserved): (OwnedFd, Vec<OwnedFd>),
        interface: &Interface,
        mode: Mode,
    ) {
        self.reservation = Reservation::inherited(reserved);
        *self.attachment() = Some(Attached {
            link: Some(link),
            interface: interface.clone(),
            mode,
        });
    }

    /// Puts this program in the place of the one that is attached. No frame meets neither.
    ///
    /// # Errors
    ///
    /// If the driver refuses.
    pub fn replace(&self) -> Result<(), RedirectError> {
        let attached = self.attachment();
        let Some(Attached {
            link: Some(link),
            interface,
            mode,
        }) = &*attached
        else {
            return Ok(());
        };
        let program = self.loaded()?;
        attachment::replace(link.as_fd(), program.as_fd())
            .map_err(|error| attach_error(interface, *mode, &error))
    }

    fn attachment(&self) -> MutexGuard<'_, Option<Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the redirected frames of receive queue `queue` to the AF_XDP socket `socket`, which must
    /// be bound to that very queue.
    ///
    /// # Errors
    ///
    /// If the queue is beyond those loaded for, or `socket` is not an AF_XDP socket.
    pub fn set_socket(&self, queue: u32, socket: &Arc<OwnedFd>) -> Result<(), RedirectError> {
        let mut sockets = self.sockets();
        let Sockets { map, given } = &mut *sockets;
        map.set(queue, socket.as_fd().as_raw_fd(), 0)
            .map_err(map_error(SOCKETS_MAP))?;
        given.retain(|(of, _)| *of != queue);
        given.push((queue, Arc::downgrade(socket)));
        Ok(())
    }

    /// Lets the frames of all queues go on to the kernel, until [`Redirect::go_on`]. Nothing more arrives at the sockets
    /// when this returns, unless a program that still saw one was held up for more than a millisecond.
    ///
    /// # Errors
    ///
    /// If the kernel does not let go of one; some queues may have been paused then.
    pub fn pause(&self) -> Result<(), RedirectError> {
        let mut sockets = self.sockets();
        let Sockets { map, given } = &mut *sockets;
        for (queue, _) in given.iter() {
            map.unset(*queue).map_err(map_error(SOCKETS_MAP))?;
        }
        drop(sockets);
        sleep(PROGRAM_MAX);
        Ok(())
    }

    /// Redirects to the sockets that there were, as far as they are still open.
    ///
    /// # Errors
    ///
    /// If the kernel does not take one.
    pub fn go_on(&self) -> Result<(), RedirectError> {
        let given = self.sockets().given.clone();
        for (queue, socket) in given {
            if let Some(socket) = socket.upgrade() {
                self.set_socket(queue, &socket)?;
            }
        }
        Ok(())
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many frames met which fate; shared with what reports it.
    pub fn verdicts(&self) -> &Arc<Verdicts> {
        &self.verdicts
    }

    fn program(&mut self) -> Result<&mut Xdp, RedirectError> {
        self.ebpf
            .program_mut(PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(no_program)
    }
}

fn no_program() -> RedirectError {
    RedirectError::Load(format!("the object has no XDP program {PROGRAM}"))
}

/// Summed over all CPUs; a counter that the kernel does not tell is left out.
impl Samples for Verdicts {
    fn samples(&self) -> Vec<Sample> {
        let sample = |verdict: &Verdict| {
            let per_cpu = self.0.get(&(*verdict as u32), 0).ok()?;
            Some(Sample {
                name: verdict.name(),
                help: verdict.help(),
                kind: match verdict {
                    Verdict::NoSocket | Verdict::Denied => Kind::Loss,
                    _ => Kind::Counter,
                },
                value: per_cpu.iter().sum(),
            })
        };
        Verdict::ALL.iter().filter_map(sample).collect()
    }
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.samples()).finish()
    }
}

impl Targets {
    fn served(&self) -> Result<Served, RedirectError> {
        if self.addresses.is_empty() {
            return Err(RedirectError::Nothing("address"));
        }
        let mut served = Served {
            ipv4_count: 0,
            ipv6_count: 0,
            allow: u32::from(!self.sources.allow.is_empty()),
            deny: u32::from(!self.sources.deny.is_empty()),
            ipv4: [0; ADDRESSES_MAX],
            ipv6: [[0; 2]; ADDRESSES_MAX],
        };
        for &address in &self.addresses {
            served.add(address)?;
        }
        Ok(served)
    }

    fn port_words(&self) -> Result<[u64; PORT_WORDS as usize], RedirectError> {
        let mut words = [0; PORT_WORDS as usize];
        for port in self.ports.iter().cloned().flatten() {
            if port == 0 {
                return Err(RedirectError::PortZero);
            }
            words[usize::from(port / 64)] |= 1 << (port % 64);
        }
        if words.iter().all(|&word| word == 0) {
            return Err(RedirectError::Nothing("port"));
        }
        Ok(words)
    }
}

/// As on the wire.
fn v4_word(address: Ipv4Addr) -> u32 {
    address.to_bits().to_be()
}

/// As on the wire, in two halves.
fn v6_words(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [((bits >> 64) as u64).to_be(), (bits as u64).to_be()]
}

impl Served {
    fn add(&mut self, address: IpAddr) -> Result<(), RedirectError> {
        let too_many = RedirectError::TooManyAddresses {
            family: if address.is_ipv4() { "IPv4" } else { "IPv6" },
        };
        match address {
            IpAddr::V4(v4) => {
                let slot = self.ipv4.get_mut(self.ipv4_count as usize);
                *slot.ok_or(too_many)? = v4_word(v4);
                self.ipv4_count += 1;
            }
            IpAddr::V6(v6) => {
                let slot = self.ipv6.get_mut(self.ipv6_count as usize);
                *slot.ok_or(too_many)? = v6_words(v6);
                self.ipv6_count += 1;
            }
        }
        Ok(())
    }
}

// SAFETY: `Served` is #[repr(C)], made of integers only, and has no padding: 4 × 4, 64 × 4, 64 × 16
// bytes, each part aligned where the one before it ends. Any bytes are a valid value.
#[allow(unsafe_code)]
unsafe impl aya::Pod for Served {}

/// What fits into one buffer of most drivers in native mode: a page less the headroom and the kernel's own part.
pub const ONE_BUFFER_MTU_MAX: usize = 3498;

/// The program for a kernel of this version; an unknown one is new.
fn object(kernel: Option<KernelVersion>) -> Cow<'static, [u8]> {
    let (major, minor) = KERNEL_WITH_FRAGMENTS;
    match kernel {
        Some(version) if version < KernelVersion::new(major, minor, 0) => {
            Cow::Owned(without_fragments(OBJECT))
        }
        _ => Cow::Borrowed(OBJECT),
    }
}

/// The object with its program in the section `xdp`, from which it is loaded without the flag that older kernels
/// refuse: the names of its sections end before `.frags`.
fn without_fragments(object: &[u8]) -> Vec<u8> {
    const WITH: &[u8] = b"xdp.frags\0";
    let mut object = object.to_vec();
    let found: Vec<_> = object
        .windows(WITH.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == WITH)
        .map(|(at, _)| at)
        .collect();
    for at in found {
        object[at + b"xdp".len()] = 0;
    }
    object
}

/// The capabilities that the calling thread lacks for the XDP program and the AF_XDP sockets. CAP_PERFMON, because IPv4 options put the TCP
/// header at a place that varies, which the verifier otherwise does not let a program look at.
pub fn missing_capabilities() -> Vec<&'static str> {
    // Should even this be refused, the kernel decides at the first real call.
    let Ok(sets) = rustix::thread::capabilities(None) else {
        return Vec::new();
    };
    let has = |wanted| sets.effective.intersects(wanted);
    let needed = [
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW),
        ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        (
            "CAP_PERFMON",
            CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN,
        ),
    ];
    needed
        .iter()
        .filter(|(_, wanted)| !has(*wanted))
        .map(|(name, _)| *name)
        .collect()
}

fn check_privileges() -> Result<(), RedirectError> {
    let missing = missing_capabilities();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(RedirectError::Privileges {
            missing: missing.join(", "),
        }),
    }
}

fn check_kernel() -> Result<(), RedirectError> {
    match KernelVersion::current() {
        Ok(version) if version < KernelVersion::new(KERNEL_MIN.0, KERNEL_MIN.1, 0) => {
            Err(RedirectError::KernelTooOld)
        }
        _ => Ok(()),
    }
}

fn take_map<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, RedirectError> {
    let map = ebpf.take_map(name).ok_or_else(|| no_map(name))?;
    map.try_into().map_err(map_error(name))
}

fn no_map(name: &str) -> RedirectError {
    RedirectError::Load(format!("the object has no map {name}"))
}

fn map_error(map: &'static str) -> impl FnOnce(MapError) -> RedirectError {
    move |source| RedirectError::Map { map, source }
}

fn load_error(error: EbpfError) -> RedirectError {
    match errno(&error) {
        Some(Errno::PERM) => RedirectError::Forbidden,
        _ => RedirectError::Load(reasons(&error)),
    }
}

fn attach_error(interface: &Interface, mode: Mode, error: &io::Error) -> RedirectError {
    let (name, driver) = (interface.name.clone(), interface.driver.clone());
    match (Errno::from_io_error(error), mode) {
        // EEXIST: it is there in the other mode.
        (Some(Errno::BUSY | Errno::EXIST), _) => RedirectError::Occupied { interface: name },
        (Some(Errno::OPNOTSUPP), Mode::Native) => RedirectError::NoNative {
            interface: name,
            driver,
        },
        // Most drivers say EINVAL, as they do of other things.
        (Some(errno), Mode::Native)
            if errno == Errno::RANGE
                || errno == Errno::INVAL && interface.mtu > ONE_BUFFER_MTU_MAX =>
        {
            RedirectError::MtuTooLarge {
                interface: name,
                mtu: interface.mtu,
            }
        }
        (Some(Errno::NOSPC), Mode::Native) if driver == "veth" => RedirectError::FewReceiveQueues {
            interface: name,
            rx_queues: interface.rx_queues,
            rx_queues_max: interface.rx_queues_max,
        },
        (Some(Errno::NOMEM | Errno::NOSPC), Mode::Native) => RedirectError::NoQueuesLeft {
            interface: name,
            driver,
            reason: error.to_string(),
            rx_queues: interface.rx_queues,
        },
        (Some(Errno::PERM), _) => RedirectError::Forbidden,
        _ => RedirectError::Attach {
            interface: name,
            mode,
            reason: error.to_string(),
        },
    }
}

/// The operating system's error behind `error`, however deep.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    causes(error).find_map(|cause| Errno::from_io_error(cause.downcast_ref::<io::Error>()?))
}

/// All there is to say about `error`, from the outside in.
fn reasons(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .map(|cause| cause.to_string())
        .collect::<Vec<_>>()
        .join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&cause| cause.source())
}

#[cfg(test)]
mod tests;
