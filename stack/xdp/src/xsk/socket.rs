//! Opening an AF_XDP socket: memory, rings, bind, options; and what each refusal means.

use std::error::Error;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use aya::util::KernelVersion;
use rustix::io::Errno;
use rustix::net::sockopt::xdp_options;
use rustix::net::xdp::XdpOptionsFlags;
use rustix::process::{Resource, getrlimit};
use tracing::warn;
use xsk_rs::config::{
    BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig, XDP_UMEM_MIN_CHUNK_SIZE,
};
use xsk_rs::{FrameDesc, Socket, Umem};

use super::queue::Rings;
use super::{Outcome, XskConfig, XskError, ZeroCopy};
use crate::interface::Interface;
use crate::redirect::Mode;

/// Smallest ring: one batch.
pub(super) const RING_FRAMES_MIN: u32 = super::BATCH_FRAMES as u32;
/// Largest ring: 64 MiB of small frames.
pub(super) const RING_FRAMES_MAX: u32 = 32_768;

/// What the kernel keeps free in front of each received frame (XDP_PACKET_HEADROOM).
pub(super) const HEADROOM_BYTES: usize = 256;
/// Ethernet header and one 802.1Q tag.
const L2_BYTES: usize = 18;
/// Frames are half pages or pages: larger ones the kernel does not take.
const LARGEST_FRAME_BYTES: u32 = 4096;
/// The longest IP packet that is spread over frames: a jumbo frame's.
const JUMBO_PACKET_BYTES: usize = 9216;
/// The first kernel that spreads packets over frames (XDP_USE_SG).
const KERNEL_WITH_SPREADING: (u8, u8) = (6, 6);

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// How long a closed socket may take to let go of its queue.
const RELEASE_RETRIES: u32 = 100;
const RELEASE_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The same, while frames take a detour: each millisecond counts, and what has not been let go of by then is not.
const TAKE_OVER_RETRIES: u32 = 10_000;
const TAKE_OVER_RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// A bound socket, all of its frames still in `frames`.
pub(super) struct Opened {
    pub umem: Umem,
    pub frames: Vec<FrameDesc>,
    pub bound: Bound,
    pub outcome: Outcome,
}

/// A socket that has a queue.
pub(super) struct Bound {
    pub rings: Rings,
    pub socket: Arc<OwnedFd>,
    pub zero_copy: bool,
}

pub(super) fn open(
    interface: &Interface,
    queue: u32,
    mode: Mode,
    config: &XskConfig,
) -> Result<Opened, XskError> {
    check_queue(interface, queue)?;
    match (mode, config.zero_copy) {
        (Mode::Generic, ZeroCopy::On) => {
            Err(Refused { interface, queue }.no_zero_copy("generic mode copies"))
        }
        (Mode::Generic, ZeroCopy::Auto) | (_, ZeroCopy::Off) => {
            open_when_free(interface, queue, Copying::Kernel, config)
        }
        (Mode::Native, ZeroCopy::On) => {
            if !holds_all_frames(interface) {
                return Err(XskError::MtuTooLarge {
                    interface: interface.name.clone(),
                    mtu: interface.mtu,
                    max: packet_bytes(LARGEST_FRAME_BYTES, Copying::No),
                });
            }
            open_when_free(interface, queue, Copying::No, config)
        }
        // The two need frames of different sizes, so the choice is not left to the kernel.
        (Mode::Native, ZeroCopy::Auto) => match copying(interface, ZeroCopy::Auto) {
            Copying::Kernel => open_when_free(interface, queue, Copying::Kernel, config),
            Copying::No => match open_when_free(interface, queue, Copying::No, config) {
                Err(XskError::NoZeroCopy { .. }) => {
                    open_when_free(interface, queue, Copying::Kernel, config)
                }
                outcome => outcome,
            },
        },
    }
}

fn check_queue(interface: &Interface, queue: u32) -> Result<(), XskError> {
    match queue < interface.rx_queues {
        true => Ok(()),
        false => Err(XskError::NoQueue {
            interface: interface.name.clone(),
            queue,
            queues: interface.rx_queues,
        }),
    }
}

/// Who moves the bytes of a frame between the driver's memory and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copying {
    /// The NIC, which reads and writes our memory.
    No,
    /// The kernel.
    Kernel,
}

/// The longest IP packet that can be had, whether or not the kernel copies it.
pub(super) fn packet_bytes_max(interface: &Interface, zero_copy: ZeroCopy) -> usize {
    let copying = copying(interface, zero_copy);
    match packet_frames(interface, copying) {
        1 => packet_bytes(LARGEST_FRAME_BYTES, copying),
        _ => JUMBO_PACKET_BYTES,
    }
}

/// Over how many frames a packet may spread.
fn packet_frames(interface: &Interface, copying: Copying) -> u32 {
    if interface.mtu <= packet_bytes(LARGEST_FRAME_BYTES, copying) {
        return 1;
    }
    let packet = interface.mtu.min(JUMBO_PACKET_BYTES);
    let frames = packet.div_ceil(packet_bytes(LARGEST_FRAME_BYTES, copying)) as u32;
    let (major, minor) = KERNEL_WITH_SPREADING;
    let kernel = KernelVersion::current();
    let spreads = kernel.is_ok_and(|version| version >= KernelVersion::new(major, minor, 0))
        && match copying {
            Copying::Kernel => true,
            Copying::No => zero_copy_buffers(interface) >= frames,
        };
    if spreads { frames } else { 1 }
}

/// Over how many buffers the driver spreads a frame in zero-copy mode.
fn zero_copy_buffers(interface: &Interface) -> u32 {
    let features = interface.xdp().ok().and_then(|state| state.features);
    features.map_or(1, |features| features.zero_copy_buffers)
}

/// Who shall move the bytes, as far as it can be told before a queue is opened: a driver that has zero-copy may still
/// refuse a queue.
fn copying(interface: &Interface, zero_copy: ZeroCopy) -> Copying {
    // What the kernel does not tell is tried.
    let features = interface.xdp().ok().and_then(|state| state.features);
    let may_have = features.is_none_or(|features| features.zero_copy);
    match zero_copy {
        ZeroCopy::Off => Copying::Kernel,
        ZeroCopy::Auto if !may_have || !holds_all_frames(interface) => Copying::Kernel,
        ZeroCopy::Auto | ZeroCopy::On => Copying::No,
    }
}

/// The largest MTU for zero-copy, if that of `interface` is what forbids it to a driver that has it.
pub(super) fn zero_copy_mtu_max(interface: &Interface) -> Option<usize> {
    let features = interface.xdp().ok().and_then(|state| state.features);
    let has_it = features.is_none_or(|features| features.zero_copy);
    (has_it && !holds_all_frames(interface)).then(|| packet_bytes(LARGEST_FRAME_BYTES, Copying::No))
}

/// Whether a driver in zero-copy mode can take whatever the MTU allows. What is longer than our packets is for the
/// kernel, but it is our frames that it arrives in.
fn holds_all_frames(interface: &Interface) -> bool {
    interface.mtu <= packet_bytes(LARGEST_FRAME_BYTES, Copying::No)
        || zero_copy_buffers(interface) > 1
}

fn open_when_free(
    interface: &Interface,
    queue: u32,
    copying: Copying,
    config: &XskConfig,
) -> Result<Opened, XskError> {
    let try_open = || {
        let shape = Shape::of(interface, copying);
        let memory = Memory::take(interface, queue, shape, config)?;
        bind(memory, interface, queue, config)
    };
    for _ in 0..RELEASE_RETRIES {
        match try_open() {
            Err(XskError::Busy { .. }) => sleep(RELEASE_RETRY_INTERVAL),
            outcome => return outcome,
        }
    }
    try_open()
}

/// What the frames of a queue are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    copying: Copying,
    frame_bytes: u32,
    packet_frames: u32,
}

impl Shape {
    fn of(interface: &Interface, copying: Copying) -> Shape {
        Shape {
            copying,
            frame_bytes: frame_bytes(interface.mtu, copying),
            packet_frames: packet_frames(interface, copying),
        }
    }
}

/// The frames of a queue that need not be there yet, and a socket that is bound to nothing.
pub(super) struct Memory {
    pub umem: Umem,
    pub frames: Vec<FrameDesc>,
    huge_pages: bool,
    pub shape: Shape,
}

impl Memory {
    /// Takes memory for another queue like the one with this outcome.
    pub fn like(
        outcome: &Outcome,
        interface: &Interface,
        queue: u32,
        config: &XskConfig,
    ) -> Result<Self, XskError> {
        let shape = Shape {
            copying: match outcome.zero_copy {
                true => Copying::No,
                false => Copying::Kernel,
            },
            frame_bytes: outcome.frame_bytes,
            packet_frames: outcome.packet_frames,
        };
        Memory::take(interface, queue, shape, config)
    }

    /// Takes memory for a queue that is another socket's yet.
    pub fn for_queue(
        interface: &Interface,
        queue: u32,
        mode: Mode,
        config: &XskConfig,
    ) -> Result<Self, XskError> {
        check_queue(interface, queue)?;
        let copying = match mode {
            Mode::Generic => Copying::Kernel,
            Mode::Native => copying(interface, config.zero_copy),
        };
        Memory::take(interface, queue, Shape::of(interface, copying), config)
    }

    /// What a socket with this memory is meant to yield.
    pub fn intended(&self) -> Outcome {
        self.outcome(self.shape.copying == Copying::No)
    }

    /// What a socket with this memory has yielded.
    fn outcome(&self, zero_copy: bool) -> Outcome {
        Outcome {
            zero_copy,
            huge_pages: self.huge_pages,
            frame_bytes: self.shape.frame_bytes,
            frames: self.frames.len() as u32,
            packet_frames: self.shape.packet_frames,
        }
    }

    fn take(
        interface: &Interface,
        queue: u32,
        shape: Shape,
        config: &XskConfig,
    ) -> Result<Self, XskError> {
        let refused = Refused { interface, queue };
        let (umem, frames, huge_pages) = create_umem(&refused, shape.frame_bytes, config)?;
        widen_sockets(config, shape.frame_bytes);
        Ok(Memory {
            umem,
            frames,
            huge_pages,
            shape,
        })
    }
}

/// Binds the socket of `memory` to the queue. Opens no other AF_XDP socket, and takes no capability.
pub(super) fn bind(
    memory: Memory,
    interface: &Interface,
    queue: u32,
    config: &XskConfig,
) -> Result<Opened, XskError> {
    let bound = bind_to(&memory.umem, memory.shape, interface, queue, config)?;
    let outcome = memory.outcome(bound.zero_copy);
    Ok(Opened {
        umem: memory.umem,
        frames: memory.frames,
        bound,
        outcome,
    })
}

/// Binds the socket of `umem` to a queue that another process is letting go of. Where the driver has no zero-copy after
/// all, the kernel copies.
pub(super) fn bind_when_free(
    umem: &Umem,
    shape: Shape,
    interface: &Interface,
    queue: u32,
    config: &XskConfig,
) -> Result<Bound, XskError> {
    let mut shape = shape;
    let mut left = TAKE_OVER_RETRIES;
    loop {
        match bind_to(umem, shape, interface, queue, config) {
            Err(XskError::Busy { .. }) if left > 0 => {
                left -= 1;
                sleep(TAKE_OVER_RETRY_INTERVAL);
            }
            Err(XskError::NoZeroCopy { .. }) if config.zero_copy == ZeroCopy::Auto => {
                shape.copying = Copying::Kernel;
            }
            outcome => return outcome,
        }
    }
}

fn bind_to(
    umem: &Umem,
    shape: Shape,
    interface: &Interface,
    queue: u32,
    config: &XskConfig,
) -> Result<Bound, XskError> {
    let refused = Refused { interface, queue };
    let Shape {
        copying,
        frame_bytes,
        packet_frames,
    } = shape;
    let bind_flags = BindFlags::XDP_USE_NEED_WAKEUP
        | match copying {
            Copying::No => BindFlags::XDP_ZEROCOPY,
            Copying::Kernel => BindFlags::XDP_COPY,
        }
        | match packet_frames {
            1 => BindFlags::empty(),
            _ => BindFlags::XDP_USE_SG,
        };

    let socket_config = SocketConfig::builder()
        .rx_queue_size(ring_size("rx_ring_frames", config.rx_ring_frames)?)
        .tx_queue_size(ring_size("tx_ring_frames", config.tx_ring_frames)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(bind_flags)
        .build();
    let name = interface
        .name
        .parse()
        .map_err(|_| refused.by("name the interface", io::ErrorKind::InvalidInput.into()))?;
    // SAFETY: the one precondition is about sharing a UMEM; this one was just made and is not shared.
    let (tx, rx, rings) = unsafe { Socket::new(socket_config, umem, &name, queue) }
        .map_err(|error| refused.bind(os_error(&error), copying))?;
    let (fill, completion) =
        rings.ok_or_else(|| refused.by("find the fill ring", io::ErrorKind::NotFound.into()))?;

    // SAFETY: `rx` keeps the descriptor open for as long as this borrow lives.
    let borrowed = unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) };
    let socket = borrowed
        .try_clone_to_owned()
        .map_err(|source| refused.by("duplicate the socket", source))?;
    let options =
        xdp_options(&socket).map_err(|errno| refused.by("read XDP_OPTIONS", errno.into()))?;
    // Without privileges it stays as `widen_sockets` has made it.
    widen_copy_mode(socket.as_raw_fd(), config, frame_bytes);
    match set_busy_poll(socket.as_raw_fd(), config) {
        Err(source) if source.kind() != io::ErrorKind::PermissionDenied => {
            return Err(refused.by("set up busy polling", source));
        }
        _ => {}
    }

    Ok(Bound {
        rings: (tx, rx, fill, completion),
        socket: Arc::new(socket),
        zero_copy: options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY),
    })
}

/// The size of frames that hold what an interface of this MTU receives, or the largest there is: longer segments are
/// not asked for (see [`packet_bytes_max`]).
fn frame_bytes(mtu: usize, copying: Copying) -> u32 {
    match mtu <= packet_bytes(XDP_UMEM_MIN_CHUNK_SIZE, copying) {
        true => XDP_UMEM_MIN_CHUNK_SIZE,
        false => LARGEST_FRAME_BYTES,
    }
}

/// How many bytes the longest received IP packet may have that fits into one of our frames.
///
/// In zero-copy mode the NIC is told how long its buffers are, and igb, igc and ixgbe's 82599 count that in units of
/// 1 KiB, rounded down: of the 1,792 bytes behind the headroom of a 2,048-byte frame they use 1,024, and
/// what is longer arrives in pieces.
fn packet_bytes(frame_bytes: u32, copying: Copying) -> usize {
    const BUFFER_UNIT_BYTES: usize = 1024;
    let behind_headroom = frame_bytes as usize - HEADROOM_BYTES;
    let received = match copying {
        Copying::No => behind_headroom / BUFFER_UNIT_BYTES * BUFFER_UNIT_BYTES,
        Copying::Kernel => behind_headroom,
    };
    received - L2_BYTES
}

fn ring_size(ring: &'static str, frames: u32) -> Result<QueueSize, XskError> {
    let in_range = (RING_FRAMES_MIN..=RING_FRAMES_MAX).contains(&frames);
    QueueSize::new(frames)
        .ok()
        .filter(|_| in_range)
        .ok_or(XskError::RingSize { ring, frames })
}

/// Huge pages first: one TLB entry instead of 512.
fn create_umem(
    refused: &Refused,
    frame_bytes: u32,
    config: &XskConfig,
) -> Result<(Umem, Vec<FrameDesc>, bool), XskError> {
    let invalid = |_| refused.by("configure the frames", io::ErrorKind::InvalidInput.into());
    let umem_config = UmemConfig::builder()
        .frame_size(FrameSize::new(frame_bytes).map_err(|_| invalid(()))?)
        .fill_queue_size(ring_size("rx_ring_frames", config.rx_ring_frames)?)
        .comp_queue_size(ring_size("tx_ring_frames", config.tx_ring_frames)?)
        .build()
        .map_err(|_| invalid(()))?;
    let count = NonZeroU32::new(config.rx_ring_frames + config.tx_ring_frames)
        .ok_or_else(|| invalid(()))?;
    let bytes = count.get() as usize * frame_bytes as usize;

    // Part of a huge page could not be unmapped again.
    if bytes.is_multiple_of(HUGE_PAGE_BYTES) {
        match Umem::new(umem_config, count, true) {
            Ok((umem, frames)) => return Ok((umem, frames, true)),
            Err(error) if os_error(&error).raw_os_error() == Some(libc::ENOMEM) => warn!(
                "no huge pages for {bytes} bytes of frames: normal ones cost more TLB misses; \
                 `sysctl vm.nr_hugepages` makes some"
            ),
            Err(error) => return Err(refused.umem(os_error(&error), bytes)),
        }
    }
    let (umem, frames) = Umem::new(umem_config, count, false)
        .map_err(|error| refused.umem(os_error(&error), bytes))?;
    Ok((umem, frames, false))
}

/// Sets what takes privileges on all AF_XDP sockets of the process that have no queue yet: those of a UMEM are libxdp's,
/// and some are bound when the process has no privileges any more.
fn widen_sockets(config: &XskConfig, frame_bytes: u32) {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let open = open
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for socket in open.filter(|&fd| domain(fd) == Some(libc::AF_XDP)) {
        widen_copy_mode(socket, config, frame_bytes);
        // What is wrong with it is said when the queue is bound.
        let _ = set_busy_poll(socket, config);
    }
}

/// The address family of a socket; `None` if it is none.
fn domain(fd: RawFd) -> Option<libc::c_int> {
    let mut domain: libc::c_int = 0;
    let mut len = size_of_val(&domain) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `domain`. A descriptor that is none, or was just closed, is an error.
    let result = unsafe {
        let value = (&raw mut domain).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, value, &raw mut len)
    };
    (result == 0).then_some(domain)
}

fn set_busy_poll(socket: RawFd, config: &XskConfig) -> io::Result<()> {
    let Some(busy_poll) = config.busy_poll else {
        return Ok(());
    };
    let timeout_us =
        libc::c_int::try_from(busy_poll.timeout_us).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, timeout_us)?;
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_BUSY_POLL_BUDGET,
        busy_poll.budget_frames.into(),
    )
}

/// Lets copy mode send the whole tx ring in one go, as far as the kernel can be told.
fn widen_copy_mode(socket: RawFd, config: &XskConfig, frame_bytes: u32) {
    /// Frames sent for one wake-up, 32 by default (since Linux 6.17). Older kernels are woken more often.
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
    /// What the kernel counts for a frame beside its bytes: its descriptor, and rounding up.
    const SKB_BYTES: u32 = 2048;
    let frames = config.tx_ring_frames;
    let send_buffer_bytes = frames * (frame_bytes + SKB_BYTES);
    for (level, name, value) in [
        (libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames),
        (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, send_buffer_bytes),
    ] {
        if let Ok(value) = value.try_into() {
            let _ = set_option(socket, level, name, value);
        }
    }
}

fn set_option(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at the pointer, which are those of `value`.
    let result = unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), len) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What the kernel's refusals mean for this queue.
struct Refused<'a> {
    interface: &'a Interface,
    queue: u32,
}

impl Refused<'_> {
    fn umem(&self, source: io::Error, bytes: usize) -> XskError {
        match Errno::from_io_error(&source) {
            Some(Errno::NOBUFS) => XskError::MemoryLimit {
                bytes,
                limit: memory_limit(),
            },
            Some(Errno::NOMEM) => XskError::NoMemory { bytes },
            Some(Errno::PERM | Errno::ACCESS) => XskError::Privileges,
            Some(Errno::AFNOSUPPORT) => XskError::NoKernelSupport,
            _ => self.by("set up the frames", source),
        }
    }

    fn bind(&self, source: io::Error, copying: Copying) -> XskError {
        let (interface, queue) = (self.interface.name.clone(), self.queue);
        match Errno::from_io_error(&source) {
            Some(Errno::BUSY) => XskError::Busy { interface, queue },
            Some(Errno::NETDOWN) => XskError::Down { interface },
            Some(_) if copying == Copying::No => self.no_zero_copy(&source.to_string()),
            _ => self.by("bind an AF_XDP socket", source),
        }
    }

    fn no_zero_copy(&self, reason: &str) -> XskError {
        XskError::NoZeroCopy {
            interface: self.interface.name.clone(),
            queue: self.queue,
            reason: reason.to_owned(),
        }
    }

    fn by(&self, step: &'static str, source: io::Error) -> XskError {
        XskError::Refused {
            step,
            interface: self.interface.name.clone(),
            queue: self.queue,
            source,
        }
    }
}

fn memory_limit() -> String {
    getrlimit(Resource::Memlock)
        .current
        .map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
}

/// xsk-rs keeps the operating system's error as the source of its own.
fn os_error(error: &(dyn Error + 'static)) -> io::Error {
    let code = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    code.map_or_else(
        || io::Error::other(error.to_string()),
        io::Error::from_raw_os_error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_mtu_allows_fits_into_a_frame() {
        for (mtu, expected) in [(1500, 2048), (1774, 2048), (1775, 4096), (9001, 4096)] {
            assert_eq!(frame_bytes(mtu, Copying::Kernel), expected, "{mtu}");
        }
        assert_eq!(packet_bytes(4096, Copying::Kernel), 3822);
    }

    #[test]
    fn zero_copy_counts_on_whole_kibibytes_only() {
        assert_eq!(frame_bytes(1006, Copying::No), 2048);
        for mtu in [1007, 1500, 3054] {
            assert_eq!(frame_bytes(mtu, Copying::No), 4096, "{mtu}");
        }
        assert_eq!(packet_bytes(4096, Copying::No), 3054);
    }

    #[test]
    fn zero_copy_is_not_tried_where_frames_of_others_would_not_fit() {
        // The loopback interface spreads no frame over several buffers.
        let with_mtu = |mtu| Interface {
            mtu,
            ..Interface::named("lo").unwrap()
        };
        assert!(holds_all_frames(&with_mtu(3054)));
        assert!(!holds_all_frames(&with_mtu(3055)));
        assert_eq!(copying(&with_mtu(9001), ZeroCopy::Auto), Copying::Kernel);
        // No smaller one would help it.
        assert_eq!(zero_copy_mtu_max(&with_mtu(9001)), None);
    }
}
