//! The AF_XDP link: one receive and one transmit queue of a NIC, in user space.
//!
//! ```text
//!   open:    UMEM (huge pages, else normal) ─▶ socket ─▶ bind to queue (zero-copy, else copy)
//!   receive: give the last batch back ─▶ fill ring      rx ring ─▶ next batch
//!   flush:   completion ring ─▶ free slots              committed ─▶ tx ring ─▶ wake the kernel
//! ```
//!
//! What is particular to AF_XDP and handled here:
//!
//! * The kernel sleeps until it is told that there is something to send (`XDP_USE_NEED_WAKEUP`),
//!   and in copy mode sends only so many frames per call: [`XskLink::flush`] repeats the call for
//!   as long as that gets frames off the tx ring.
//! * Rings may look full for a moment; what does not fit waits its turn in a list.
//! * The kernel frees a closed socket's queue a moment later: binding waits for that moment.
//! * A UMEM on huge pages must be a whole number of them.

mod assembly;
#[allow(unsafe_code)]
mod bridge;
#[allow(unsafe_code)]
mod queue;
mod segments;
#[allow(unsafe_code)]
mod socket;
mod transfer;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock, Weak};

use rustix::net::RecvFlags;
use rustix::net::sockopt::xdp_statistics;
use rustix::net::xdp::XdpStatistics;
use thiserror::Error;
use xsk_rs::{FrameDesc, Umem};

use crate::interface::Interface;
use crate::redirect::Mode;
use barewire_service::counters::{Kind, Sample, Samples};
use barewire_service::tap::{Direction, Tap, TapEnd};
use barewire_service::time::Instant;
use barewire_tcp::link::LinkCounters;
use barewire_tcp::link::{Link, Received as _, Transmit as _};

pub use assembly::BATCH_FRAMES;
pub use bridge::Share;
pub use queue::{Received, Transmit};
pub use transfer::Transfer;

use bridge::Bridge;
use socket::Bound;

/// How a queue is opened. Its memory is (`rx_ring_frames` + `tx_ring_frames`) frames and 48 bytes of rings for each
/// pair of them. A frame has 2,048 bytes, or 4,096 if the MTU is beyond 1,774, in zero-copy mode 1,006.
#[derive(Debug, Clone)]
pub struct XskConfig {
    /// Frames for reception, and entries of the rx and fill rings. A power of two.
    ///
    /// What arrives while the core is busy elsewhere waits here; what finds them all in use is lost.
    pub rx_ring_frames: u32,
    /// Frames for transmission, and entries of the tx and completion rings. A power of two.
    pub tx_ring_frames: u32,
    /// Whether the NIC shall read and write the frames itself.
    pub zero_copy: ZeroCopy,
    /// Whether the core shall run the driver's receive loop itself (SO_PREFER_BUSY_POLL).
    ///
    /// Helps on NICs whose interrupts are deferred (`napi_defer_hard_irqs`, `gro_flush_timeout`).
    pub busy_poll: Option<BusyPoll>,
}

impl Default for XskConfig {
    /// 2,048 frames each way, zero-copy where there is one, no busy polling.
    fn default() -> Self {
        XskConfig {
            rx_ring_frames: 2048,
            tx_ring_frames: 2048,
            zero_copy: ZeroCopy::Auto,
            busy_poll: None,
        }
    }
}

/// Whether the NIC reads and writes the frames itself, or the kernel copies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroCopy {
    /// If the driver can.
    #[default]
    Auto,
    /// Or not at all.
    On,
    /// The kernel copies.
    Off,
}

/// How the driver's receive loop is run by the core that waits for frames.
#[derive(Debug, Clone, Copy)]
pub struct BusyPoll {
    /// How long one system call polls, in microseconds (SO_BUSY_POLL).
    pub timeout_us: u32,
    /// How many frames it handles at most (SO_BUSY_POLL_BUDGET).
    pub budget_frames: u16,
}

impl Default for BusyPoll {
    /// 20 µs and 64 frames, as the kernel's AF_XDP documentation suggests.
    fn default() -> Self {
        BusyPoll {
            timeout_us: 20,
            budget_frames: 64,
        }
    }
}

/// Why a queue cannot be opened.
#[derive(Debug, Error)]
pub enum XskError {
    /// There is no such queue.
    #[error(
        "{interface} has no receive queue {queue}; it has {queues}, numbered from 0 \
         (`ethtool -L {interface} combined N` changes that where the driver can)"
    )]
    NoQueue {
        /// The interface.
        interface: String,
        /// What was asked for.
        queue: u32,
        /// How many there are.
        queues: u32,
    },
    /// Another process has the queue.
    #[error(
        "queue {queue} of {interface} is taken by another AF_XDP socket; end that process (`ss --xdp -p` names it)"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Zero-copy was demanded.
    #[error(
        "{interface} cannot do zero-copy on queue {queue} ({reason}); leave the choice to the driver, or use another NIC"
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Why not.
        reason: String,
    },
    /// The process may not lock that much memory.
    #[error(
        "RLIMIT_MEMLOCK ({limit}) does not allow {bytes} bytes of frames for a queue: `ulimit -l unlimited`, \
         LimitMEMLOCK=infinity in a systemd unit, or the capability CAP_IPC_LOCK; or use smaller rings"
    )]
    MemoryLimit {
        /// What was asked for.
        bytes: usize,
        /// The limit, for people.
        limit: String,
    },
    /// There is not that much memory.
    #[error("no memory for {bytes} bytes of frames; use smaller rings or fewer queues")]
    NoMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// Zero-copy was demanded, but the frames of all who use the interface do not fit into ours.
    #[error(
        "MTU {mtu} of {interface} is too large for zero-copy: a frame has room for {max}; \
         `ip link set dev {interface} mtu {max}`, or let the kernel copy"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: usize,
        /// The largest that fits.
        max: usize,
    },
    /// A ring cannot have that size.
    #[error("{ring} = {frames}: must be a power of two from {min} to {max}", min = socket::RING_FRAMES_MIN, max = socket::RING_FRAMES_MAX)]
    RingSize {
        /// Which one.
        ring: &'static str,
        /// What was asked for.
        frames: u32,
    },
    /// The interface is down.
    #[error("{interface} is down: `ip link set dev {interface} up`")]
    Down {
        /// The interface.
        interface: String,
    },
    /// The kernel has no AF_XDP.
    #[error("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS)")]
    NoKernelSupport,
    /// The process may not open AF_XDP sockets.
    #[error(
        "not allowed to open an AF_XDP socket: run as root, or with CAP_NET_RAW in the namespace's own user namespace"
    )]
    Privileges,
    /// The kernel refused for a reason of its own.
    #[error("cannot {step} for queue {queue} of {interface}: {source}")]
    Refused {
        /// What was being done.
        step: &'static str,
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

/// An open queue. Dropping it closes the socket; the queue is the kernel's again a moment later.
pub struct XskLink {
    reception: queue::Reception,
    received: Received,
    transmit: Transmit,
    /// A second descriptor of the socket, for reading its statistics meanwhile. `None` until the queue is bound.
    socket: Option<Arc<OwnedFd>>,
    /// The way that frames take until then, and a little longer.
    bridge: Option<(Bridge, Transfer)>,
    kernel_statistics: KernelStatistics,
    counters: Arc<LinkCounters>,
    tap: TapEnd,
    /// Every look at an empty ring is a system call that runs the driver's receive loop.
    busy_poll: bool,
    outcome: Outcome,
}

/// What opening a queue has yielded.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The NIC reads and writes the frames itself.
    pub zero_copy: bool,
    /// The frames are on huge pages.
    pub huge_pages: bool,
    /// Bytes of a frame, headroom included.
    pub frame_bytes: u32,
    /// Frames for reception and transmission.
    pub frames: u32,
    /// Over how many frames a packet may spread.
    pub packet_frames: u32,
}

impl Outcome {
    /// How much of a packet a frame holds.
    fn piece_bytes(&self) -> usize {
        self.frame_bytes as usize - socket::HEADROOM_BYTES
    }
}

impl XskLink {
    /// Opens receive queue `queue` of `interface`, and the transmit queue of the same number.
    ///
    /// `mode` is how the XDP program is attached to the interface: zero-copy needs native mode.
    /// Nothing arrives until the program knows the socket ([`crate::redirect::Redirect::set_socket`]).
    ///
    /// # Errors
    ///
    /// If the queue does not exist or is taken, zero-copy was demanded and is not there, or memory
    /// or privileges are missing.
    pub fn open(
        interface: &Interface,
        queue: u32,
        mode: Mode,
        config: &XskConfig,
    ) -> Result<Self, XskError> {
        let opened = socket::open(interface, queue, mode, config)?;
        Ok(Self::of(opened, config, Observers::default()))
    }

    fn of(opened: socket::Opened, config: &XskConfig, observers: Observers) -> Self {
        let parts = (opened.umem, opened.frames, opened.outcome);
        let mut link = Self::unbound(parts, config, observers);
        link.bind(opened.bound);
        link
    }

    /// A link for receive queue `queue` of `interface`, which is another process's yet. What the kernel gets of it instead
    /// is received by a packet socket, from here on; and so it is until [`Transfer::bind`].
    ///
    /// # Errors
    ///
    /// As [`XskLink::open`].
    pub fn bridge(
        interface: &Interface,
        mode: Mode,
        config: &XskConfig,
        share: &Share,
    ) -> Result<Self, XskError> {
        let queue = share.queue;
        let memory = socket::Memory::for_queue(interface, queue, mode, config)?;
        let bridge = Bridge::open(interface, share).map_err(|source| XskError::Refused {
            step: "open a packet socket",
            interface: interface.name.clone(),
            queue,
            source,
        })?;
        let outcome = memory.intended();
        let transfer = Transfer::new(&memory, interface, queue, config);
        let parts = (memory.umem, memory.frames, outcome);
        let mut link = Self::unbound(parts, config, Observers::default());
        link.bridge = Some((bridge, transfer));
        link.reception.keep_for_bridge(true);
        Ok(link)
    }

    fn unbound(
        (umem, frames, outcome): (Umem, Vec<FrameDesc>, Outcome),
        config: &XskConfig,
        observers: Observers,
    ) -> Self {
        let Observers {
            counters,
            tap,
            kernel_statistics,
        } = observers;
        let (reception, received, transmit) = queue::share_out(
            &umem,
            frames,
            (outcome.piece_bytes(), outcome.packet_frames),
            config.rx_ring_frames,
            &counters,
        );
        counters
            .rx_frames_held_max
            .set(config.rx_ring_frames.into());
        counters
            .tx_frames_used_max
            .set(config.tx_ring_frames.into());
        XskLink {
            reception,
            received,
            transmit,
            socket: None,
            bridge: None,
            kernel_statistics,
            counters,
            tap,
            busy_poll: config.busy_poll.is_some(),
            outcome,
        }
    }

    fn bind(&mut self, bound: Bound) {
        let socket = bound.socket;
        // Empty until now: a link is bound once.
        let _ = (self.kernel_statistics.socket).set(Arc::downgrade(&socket));
        self.socket = Some(socket);
        self.outcome.zero_copy = bound.zero_copy;
        queue::bind(&mut self.reception, &mut self.transmit, bound.rings);
        self.refill();
    }

    /// Prepares for another queue like this one, which is not there yet.
    ///
    /// # Errors
    ///
    /// If memory or privileges are missing.
    pub fn spare(
        &self,
        interface: &Interface,
        queue: u32,
        config: &XskConfig,
    ) -> Result<SpareLink, XskError> {
        Ok(SpareLink {
            memory: socket::Memory::like(&self.outcome, interface, queue, config)?,
            observers: Observers::default(),
        })
    }

    /// The longest IP packet that can be received and sent on `interface` with that choice, whatever its MTU is. It is
    /// what a frame holds, or a jumbo packet where kernel (6.6) and driver spread packets over frames. Nobody sends a
    /// longer one who is told a segment size that follows from this.
    pub fn packet_bytes_max(interface: &Interface, zero_copy: ZeroCopy) -> usize {
        socket::packet_bytes_max(interface, zero_copy)
    }

    /// The largest MTU for zero-copy, if that of `interface` is what forbids it to a driver that has it: frames of
    /// everybody arrive in ours then, and the driver does not spread them over several.
    pub fn zero_copy_mtu_max(interface: &Interface) -> Option<usize> {
        socket::zero_copy_mtu_max(interface)
    }

    /// What opening the queue has yielded.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The link's counters, for other threads to read.
    pub fn shared_counters(&self) -> Arc<LinkCounters> {
        Arc::clone(&self.counters)
    }

    /// Where to watch what it receives and sends.
    pub fn tap(&self) -> &Arc<Tap> {
        self.tap.tap()
    }

    /// The kernel's side of the statistics, for other threads to read.
    pub fn kernel_statistics(&self) -> KernelStatistics {
        self.kernel_statistics.clone()
    }

    /// Its socket, once the queue is bound.
    pub fn socket(&self) -> Option<&Arc<OwnedFd>> {
        self.socket.as_ref()
    }

    /// What binds its queue, if it is another process's yet.
    pub fn transfer(&self) -> Option<Transfer> {
        self.bridge.as_ref().map(|(_, transfer)| transfer.clone())
    }

    /// Receives by the bridge, and by the socket as well once there is one. What arrived earlier comes first.
    #[cold]
    fn receive_bridged(&mut self) {
        // Takes back the last batch.
        self.refill();
        let Some((bridge, transfer)) = &mut self.bridge else {
            return;
        };
        let packet_bytes_max = self.outcome.piece_bytes();
        (self.reception).receive_from(bridge, &mut self.received, packet_bytes_max);
        if self.received.len() > 0 {
            return;
        }
        if self.socket.is_none() {
            let transfer = transfer.clone();
            if let Some(bound) = transfer.take() {
                self.bind(bound);
                transfer.note_taken();
            }
            return;
        }
        if transfer.is_over() {
            self.bridge = None;
            self.reception.keep_for_bridge(false);
        }
        self.reception.receive(&mut self.received);
    }

    fn refill(&mut self) {
        let given = self.reception.refill(&mut self.received);
        let held = self.reception.idle();
        if held > 0 {
            self.counters.fill_ring_full.increment();
        }
        self.counters.rx_frames_held.set(held as u64);
        if given > 0 && self.reception.needs_wakeup() {
            self.wake_reception();
        }
    }

    /// Runs the driver's receive loop, or makes it run soon.
    fn wake_reception(&self) {
        self.counters.rx_wakeups.increment();
        if let Some(socket) = &self.socket {
            // An empty read never yields data; EAGAIN, EBUSY and ENETDOWN are the kernel's to resolve.
            let _ = rustix::net::recv(socket, &mut [0u8; 0][..], RecvFlags::DONTWAIT);
        }
    }
}

impl Link for XskLink {
    type Received = Received;
    type Transmit = Transmit;

    #[inline]
    fn receive(&mut self, _now: Instant) -> (&Received, &mut Transmit) {
        if self.bridge.is_some() {
            self.receive_bridged();
        } else {
            self.refill();
            self.reception.receive(&mut self.received);
        }
        let frames = self.received.len();
        if self.tap.begin_batch() {
            for index in 0..frames {
                self.tap
                    .record(Direction::Received, self.received.frame(index));
            }
        }
        if frames > 0 {
            self.counters.rx_batches.increment();
            self.counters.rx_frames.add(frames as u64);
            self.counters.rx_bytes.add(self.received.bytes());
        }
        (&self.received, &mut self.transmit)
    }

    #[inline]
    fn transmit(&mut self) -> &mut Transmit {
        &mut self.transmit
    }

    #[inline]
    fn flush(&mut self, _now: Instant) -> bool {
        self.transmit.reclaim();
        let (frames, bytes) = match &self.bridge {
            Some((bridge, _)) if self.socket.is_none() => {
                self.transmit.submit_to(bridge, &mut self.tap)
            }
            _ => self.transmit.submit(&mut self.tap),
        };
        self.counters.tx_frames.add(frames as u64);
        self.counters.tx_bytes.add(bytes);

        let used = self.transmit.unsent_or_in_flight();
        self.counters.tx_frames_used.set(used as u64);

        let mut unsent = self.transmit.unsent();
        while unsent > 0 && self.transmit.needs_wakeup() {
            self.counters.tx_wakeups.increment();
            if self.transmit.wakeup().is_err() {
                self.counters.tx_wakeup_errors.increment();
                break;
            }
            let still_unsent = self.transmit.unsent();
            if still_unsent >= unsent {
                break;
            }
            unsent = still_unsent;
        }
        // With no slot left, sending waits for completions.
        unsent > 0 || self.transmit.free_slots() == 0
    }

    /// `None` while frames arrive by two ways.
    fn wake_fd(&self) -> Option<RawFd> {
        match (&self.bridge, &self.socket) {
            (Some((bridge, _)), None) => Some(bridge.wake_fd()),
            (None, Some(socket)) => Some(socket.as_raw_fd()),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    fn is_provisional(&self) -> bool {
        self.bridge.is_some()
    }

    #[inline]
    fn kick(&mut self) {
        if self.busy_poll || self.reception.needs_wakeup() {
            self.wake_reception();
        }
    }

    fn counters(&self) -> &LinkCounters {
        &self.counters
    }
}

/// What others see of a link.
#[derive(Default)]
struct Observers {
    counters: Arc<LinkCounters>,
    tap: TapEnd,
    kernel_statistics: KernelStatistics,
}

/// A link for a queue that may appear when the process has no privileges to open one any more. It has its frames, and
/// a socket that is bound to nothing.
pub struct SpareLink {
    memory: socket::Memory,
    observers: Observers,
}

impl SpareLink {
    /// Takes the queue, which is there now. No capability is needed.
    ///
    /// # Errors
    ///
    /// If the queue is taken, or the driver refuses.
    pub fn bind(
        self,
        interface: &Interface,
        queue: u32,
        config: &XskConfig,
    ) -> Result<XskLink, XskError> {
        let opened = socket::bind(self.memory, interface, queue, config)?;
        Ok(XskLink::of(opened, config, self.observers))
    }

    /// The counters of the link that it will be.
    pub fn shared_counters(&self) -> Arc<LinkCounters> {
        Arc::clone(&self.observers.counters)
    }

    /// The kernel's side of its statistics, empty until the queue is taken.
    pub fn kernel_statistics(&self) -> KernelStatistics {
        self.observers.kernel_statistics.clone()
    }

    /// Where to watch what it will receive and send.
    pub fn tap(&self) -> &Arc<Tap> {
        self.observers.tap.tap()
    }
}

/// What the kernel forgets with the socket is kept for later readers.
impl Drop for XskLink {
    fn drop(&mut self) {
        if let Some(Ok(statistics)) = self.socket.as_ref().map(xdp_statistics) {
            // Empty until now: a link is dropped once.
            let _ = self.kernel_statistics.last.set(statistics);
        }
    }
}

/// What the kernel counted on a queue, readable from any thread, also after the link was closed.
///
/// Does not keep the socket open.
#[derive(Debug, Clone, Default)]
pub struct KernelStatistics {
    /// Empty until there is one.
    socket: Arc<OnceLock<Weak<OwnedFd>>>,
    last: Arc<OnceLock<XdpStatistics>>,
}

impl KernelStatistics {
    fn read(&self) -> Option<XdpStatistics> {
        let live = || xdp_statistics(&self.socket.get()?.upgrade()?).ok();
        self.last.get().cloned().or_else(live)
    }
}

/// Empty if the kernel does not tell.
impl Samples for KernelStatistics {
    fn samples(&self) -> Vec<Sample> {
        let Some(statistics) = self.read() else {
            return Vec::new();
        };
        let sample = |kind, name, help, value: Option<u64>| Sample {
            name,
            help,
            kind,
            value: value.unwrap_or_default(),
        };
        vec![
            sample(
                Kind::Loss,
                "rx_dropped",
                "Frames lost because no frame of the UMEM was free, or none large enough.",
                Some(statistics.rx_dropped),
            ),
            sample(
                Kind::Loss,
                "rx_ring_full",
                "Frames lost because the rx ring was full.",
                statistics.rx_ring_full,
            ),
            sample(
                Kind::Counter,
                "rx_fill_ring_empty",
                "Times the kernel found the fill ring empty.",
                statistics.rx_fill_ring_empty_descs,
            ),
            sample(
                Kind::Loss,
                "rx_invalid_descs",
                "Descriptors in the fill ring that the kernel refused.",
                Some(statistics.rx_invalid_descs),
            ),
            sample(
                Kind::Loss,
                "tx_invalid_descs",
                "Descriptors in the tx ring that the kernel refused.",
                Some(statistics.tx_invalid_descs),
            ),
            sample(
                Kind::Counter,
                "tx_ring_empty",
                "Times the kernel found the tx ring empty.",
                statistics.tx_ring_empty_descs,
            ),
        ]
    }
}
