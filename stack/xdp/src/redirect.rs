//! Takes the served traffic out of the kernel's hands, and gives it back.
//!
//! Loads the embedded XDP program (see `xdp-prog/`), tells it through maps what is served, attaches
//! it, and points it at the AF_XDP socket of each receive queue:
//!
//! ```text
//!   load(targets) ─▶ attach(interface, mode) ─▶ set_socket(queue, fd)… ─▶ frames arrive
//!                        bpf_link: dies with the process
//! ```
//!
//! Until a queue has its socket, its frames go on to the kernel; so everything can be prepared
//! before the first frame is taken. The program is attached through a `bpf_link` only: the kernel
//! detaches it when the last descriptor is closed, after `kill -9` as well. An attachment through
//! netlink or a pin would outlive the process and send the traffic of a dead server nowhere.

use std::borrow::Cow;
use std::error::Error;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io, iter};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::Xdp;
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use thiserror::Error;

use crate::interface::Interface;
use barewire_service::counters::{Kind, Sample, Samples};

#[allow(unsafe_code)]
mod attachment;

pub mod contract;

use contract::{
    ADDRESSES_MAX, PORT_WORDS, PORTS_MAP, PROGRAM, SERVED_MAP, SOCKETS_MAP, Served, VERDICTS_MAP,
    Verdict,
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

/// What is redirected: TCP to any of the addresses on any of the ports.
#[derive(Debug, Clone)]
pub struct Targets {
    /// At least one, and at most [`ADDRESSES_MAX`] of each family.
    pub addresses: Vec<IpAddr>,
    /// Ranges of ports, at least one, without port 0.
    pub ports: Vec<RangeInclusive<u16>>,
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
         or give the program file what it needs: sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep FILE"
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
    #[error("{count} {family} addresses to serve; at most {ADDRESSES_MAX} fit")]
    TooManyAddresses {
        /// IPv4 or IPv6.
        family: &'static str,
        /// How many were asked for.
        count: usize,
    },
    /// Port 0 was to be served.
    #[error("port 0 cannot be served; choose one from 1 to 65535")]
    PortZero,
    /// Someone else has the interface.
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
        "driver {driver:?} of {interface} has no native XDP; choose mode generic (slower) or another NIC"
    )]
    NoNative {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
    },
    /// The driver runs XDP only with frames that fit into a page, or its buffers.
    #[error(
        "MTU {mtu} of {interface} (or, on a veth, of its peer) is too large for this driver's native XDP: \
         `ip link set dev {interface} mtu 1500` at both ends, or choose mode generic (slower)"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: usize,
    },
    /// The driver or kernel refused for a reason of its own.
    #[error("cannot attach the XDP program to {interface} in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode that was tried.
        mode: Mode,
        /// What the kernel says.
        reason: String,
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

/// The loaded program, attached or not. Dropping it detaches it.
pub struct Redirect {
    // Dropped first: no frame is redirected while the rest goes.
    attached: Mutex<Option<Attached>>,
    ebpf: Ebpf,
    sockets: Mutex<XskMap<MapData>>,
    verdicts: Arc<Verdicts>,
}

/// Where the program is attached.
struct Attached {
    /// Removes it when it is dropped. `None`: somebody tried to attach it again, in vain.
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
        check_privileges()?;
        check_kernel()?;

        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries(SOCKETS_MAP, queues.max(1))
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
            sockets: Mutex::new(take_map(&mut ebpf, SOCKETS_MAP)?),
            verdicts: Arc::new(Verdicts(take_map(&mut ebpf, VERDICTS_MAP)?)),
            ebpf,
        };
        redirect
            .program()?
            .load()
            .map_err(|error| load_error(error.into()))?;
        Ok(redirect)
    }

    /// Attaches the program to `interface`; nothing is redirected until [`Redirect::set_socket`].
    ///
    /// # Errors
    ///
    /// If the interface is taken, or the driver refuses. [`ModeChoice::Auto`] falls back to generic
    /// only where the driver has no native XDP at all, or none with this MTU: any other refusal has a cure.
    pub fn attach(
        &mut self,
        interface: &Interface,
        choice: ModeChoice,
    ) -> Result<Mode, RedirectError> {
        match choice {
            ModeChoice::Native => self.attach_in(interface, Mode::Native),
            ModeChoice::Generic => self.attach_in(interface, Mode::Generic),
            ModeChoice::Auto => match self.attach_in(interface, Mode::Native) {
                Err(RedirectError::NoNative { .. } | RedirectError::MtuTooLarge { .. }) => {
                    self.attach_in(interface, Mode::Generic)
                }
                other => other,
            },
        }
    }

    fn attach_in(&mut self, interface: &Interface, mode: Mode) -> Result<Mode, RedirectError> {
        let link = self.link_to(interface, mode)?;
        *self.attachment() = Some(Attached {
            link: Some(link),
            interface: interface.clone(),
            mode,
        });
        Ok(mode)
    }

    /// Detaches the program and attaches it again, in the same mode: that makes a driver set up again what it has lost.
    /// Sockets keep their queues.
    ///
    /// # Errors
    ///
    /// If the driver refuses, or the kernel (before 5.19 it asks for capabilities). The program is detached then.
    pub fn attach_again(&self) -> Result<(), RedirectError> {
        if let Some(attached) = &mut *self.attachment() {
            attached.link = None;
            attached.link = Some(self.link_to(&attached.interface, attached.mode)?);
        }
        Ok(())
    }

    fn link_to(&self, interface: &Interface, mode: Mode) -> Result<OwnedFd, RedirectError> {
        let program = self.ebpf.program(PROGRAM);
        let program: &Xdp = program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(no_program)?;
        let fd = program.fd().map_err(|error| load_error(error.into()))?;
        attachment::attach(fd.as_fd(), interface.index, mode)
            .map_err(|error| attach_error(interface, mode, &error))
    }

    fn attachment(&self) -> std::sync::MutexGuard<'_, Option<Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the redirected frames of receive queue `queue` to the AF_XDP socket `socket`, which must
    /// be bound to that very queue.
    ///
    /// # Errors
    ///
    /// If the queue is beyond those loaded for, or `socket` is not an AF_XDP socket.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), RedirectError> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets
            .set(queue, socket, 0)
            .map_err(map_error(SOCKETS_MAP))
    }

    /// How many frames met which fate; shared with whoever reports it.
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
                    Verdict::NoSocket => Kind::Loss,
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
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for address in &self.addresses {
            match address {
                IpAddr::V4(v4) => ipv4.push(v4.to_bits().to_be()),
                IpAddr::V6(v6) => {
                    let bits = v6.to_bits();
                    ipv6.push([((bits >> 64) as u64).to_be(), (bits as u64).to_be()]);
                }
            }
        }
        Ok(Served {
            ipv4_count: ipv4.len() as u32,
            ipv6_count: ipv6.len() as u32,
            ipv4: slots("IPv4", &ipv4)?,
            ipv6: slots("IPv6", &ipv6)?,
        })
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

fn slots<T: Copy + Default>(
    family: &'static str,
    addresses: &[T],
) -> Result<[T; ADDRESSES_MAX], RedirectError> {
    let mut slots = [T::default(); ADDRESSES_MAX];
    let count = addresses.len();
    let used = slots
        .get_mut(..count)
        .ok_or(RedirectError::TooManyAddresses { family, count })?;
    used.copy_from_slice(addresses);
    Ok(slots)
}

// SAFETY: `Served` is #[repr(C)], made of integers only, and has no padding: 2 × 4, 8 × 4, 8 × 16
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
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| RedirectError::Load(format!("the object has no map {name}")))?;
    map.try_into().map_err(map_error(name))
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
