//! The io_uring of one core: what a core may ask of the kernel, and the memory the kernel may touch.
//!
//! All raw access is here. What makes it sound is ownership: a buffer that the kernel may write to
//! is [`Provided`] and cannot be reached before it comes back with bytes in it; a buffer that the
//! kernel may read from was moved into [`Ring::send`] and comes back when the kernel is done.
//!
//! ```text
//!             ┌── provided buffers ◀─ give_back ──┐
//!   kernel ───┴──▶ Completion::Received ──▶ bytes ┘
//!   kernel ◀── send(Buffer) ── Pool          Completion::Sent ──▶ take_back ──▶ Pool
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use barewire_service::service::End;
use barewire_service::time::Duration;
use io_uring::register::{Probe, Restriction};
use io_uring::types::{BufRingEntry, CancelBuilder, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use libc::{EAGAIN, EBUSY, ECANCELED, EINTR, EINVAL, ENOBUFS, ETIME};
use rustix::net::SocketAddrAny;
use rustix::thread::sched_getcpu;

use super::Uring;
use crate::{Buffer, Memory, Pool};

/// Entries of the submission queue; more are submitted in between.
const SUBMISSIONS: u32 = 1024;
/// Completions that are worked on between two submissions.
const COMPLETIONS_MAX: usize = 512;
/// The one group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// One core's io_uring, its direct descriptors (one per connection, the index is the
/// connection's) and its buffers.
pub struct Ring {
    ring: IoUring,
    provided: ProvidedBuffers,
    /// What each connection is sending.
    sending: Vec<Option<Sending>>,
    /// The memory of what is being sent, alive as long as the kernel may read it.
    replies: Arc<Memory>,
    completions: Vec<cqueue::Entry>,
    receive_mode: ReceiveMode,
    zero_copy_bytes_min: usize,
    /// Descriptors from here on are those of connections that the service has opened.
    outbound: u32,
    /// Where those lead; the kernel reads it when it begins to connect.
    destinations: Box<[SocketAddrAny]>,
    /// Sockets that are to become connections.
    adopting: VecDeque<Adopting>,
    can_install: bool,
    /// Who opened the connection that was accepted last, by listener, where that is to be told.
    peers: Option<Box<[Peer]>>,
    /// Why an entry could not be submitted; the next [`Ring::wait`] says so.
    broken: Option<io::Error>,
}

/// How a connection receives no more than it has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReceiveMode {
    /// Many times, until so many bytes have arrived or been exceeded (Linux 6.17).
    Capped,
    /// Once, into a buffer cut to the room.
    Single,
}

/// What the kernel has done.
#[derive(Debug)]
pub enum Completion {
    /// A connection was accepted under this index; or accepting failed.
    Accepted {
        /// By which listener.
        listener: u32,
        /// The index, or why there is none.
        result: io::Result<u32>,
        /// Whether more will come without asking.
        more: bool,
    },
    /// Bytes have arrived on a connection, or receiving ended.
    Received {
        /// The connection.
        index: u32,
        /// What arrived.
        result: Received,
        /// Whether more will come without asking.
        more: bool,
    },
    /// The kernel took this many bytes of what a connection sends, and left the buffer alone.
    Sent {
        /// The connection.
        index: u32,
        /// Bytes taken.
        result: io::Result<usize>,
    },
    /// A connection was opened, or could not be.
    Connected {
        /// The connection.
        index: u32,
        /// Why not.
        result: io::Result<u32>,
    },
    /// A connection that the service had opened is closed: another one may take its descriptor.
    Closed {
        /// The connection.
        index: u32,
    },
    /// Our side of a connection was ended.
    ShutDown {
        /// The connection.
        index: u32,
    },
    /// The phase may have changed.
    Phase,
    /// A connection has a descriptor of the process as well; or there is none to be had.
    Installed {
        /// The connection.
        index: u32,
        /// The descriptor.
        result: io::Result<OwnedFd>,
    },
    /// Sockets were [adopted](Ring::adopt), the longest-waiting ones: these are their indices, in that order.
    Adopted {
        /// As many as there was room for.
        indices: Vec<u32>,
    },
}

/// What came of receiving.
#[derive(Debug)]
pub enum Received {
    /// Bytes, which have to be [given back](Ring::give_back).
    Bytes(Provided),
    /// The end of the peer's stream.
    End,
    /// Nothing yet: ask again.
    Again,
    /// Nothing: it was cancelled.
    Cancelled,
    /// An error: the connection is broken.
    Error,
}

/// Received bytes in a buffer of the ring.
#[derive(Debug)]
#[must_use]
pub struct Provided {
    id: u16,
    len: usize,
}

/// A reply on its way.
struct Sending {
    buffer: Buffer,
    start: usize,
    end: usize,
    /// What the kernel took, while it still reads the buffer (zero copy).
    taken: Option<i32>,
}

/// What a submission was for; travels in the upper half of `user_data`, above the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Purpose {
    Accept,
    Receive,
    Send,
    Phase,
    ShutDown,
    Connect,
    Close,
    Install,
    Adopt,
    /// No completion is expected, unless it fails.
    Ignored,
}

impl Purpose {
    fn user_data(self, index: u32) -> u64 {
        (self as u64) << 32 | u64::from(index)
    }

    fn from_user_data(user_data: u64) -> (Purpose, u32) {
        let purpose = match user_data >> 32 {
            0 => Purpose::Accept,
            1 => Purpose::Receive,
            2 => Purpose::Send,
            3 => Purpose::Phase,
            4 => Purpose::ShutDown,
            5 => Purpose::Connect,
            6 => Purpose::Close,
            7 => Purpose::Install,
            8 => Purpose::Adopt,
            _ => Purpose::Ignored,
        };
        (purpose, user_data as u32)
    }
}

impl Ring {
    /// Sets up the calling thread's ring, with room for so many `descriptors`.
    ///
    /// What is sent through it has to lie in `replies`.
    ///
    /// # Errors
    ///
    /// What the kernel said; see [`super::Unsupported`].
    pub fn new(config: &Uring, descriptors: usize, replies: &Pool) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(SUBMISSIONS * 8);
        match config.sqpoll_idle_ms {
            Some(idle_ms) => builder.setup_sqpoll(idle_ms),
            None => builder.setup_coop_taskrun().setup_defer_taskrun(),
        };
        let ring = builder.build(SUBMISSIONS)?;
        let outbound = u32::try_from(descriptors).map_err(|_| io::ErrorKind::InvalidInput)?;
        let count = descriptors.saturating_add(config.config.outbound);
        let count = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
        ring.submitter().register_files_sparse(count)?;
        if config.config.outbound > 0 {
            accept_below(&ring, outbound)?;
        }
        let nowhere = SocketAddrAny::from(SocketAddr::from(([0, 0, 0, 0], 0)));
        let listeners = 1 + config.config.listen_also.len();
        if let Some(us) = config.config.busy_poll_us {
            let mut napi = types::Napi::new()
                .set_busy_poll_timeout(us)
                .set_prefer_busy_poll(config.config.prefer_busy_poll);
            ring.submitter().register_napi(&mut napi)?;
        }
        // The kernel hands only shutdowns to a worker thread. It shall not run on another core.
        ring.submitter().register_iowq_max_workers(&mut [1, 1])?;
        ring.submitter().register_iowq_aff(&only(sched_getcpu()))?;
        let provided = ProvidedBuffers::new(config.ring_buffers, config.ring_buffer_bytes)?;
        provided.register(&ring)?;
        let hands_over = config.config.hand_over.is_some();
        let can_install = hands_over && knows(&ring, opcode::FixedFdInstall::CODE);
        restrict(&ring, config.config.outbound > 0, hands_over, can_install)?;
        Ok(Ring {
            ring,
            provided,
            sending: Vec::with_capacity(descriptors),
            replies: Arc::clone(replies.memory()),
            completions: Vec::with_capacity(COMPLETIONS_MAX),
            receive_mode: ReceiveMode::Capped,
            zero_copy_bytes_min: config.zero_copy_bytes_min.unwrap_or(usize::MAX),
            outbound,
            destinations: vec![nowhere; config.config.outbound].into(),
            adopting: VecDeque::new(),
            can_install,
            peers: (config.config.tell_peers)
                .then(|| (0..listeners).map(|_| Peer::nobody()).collect()),
            broken: None,
        })
    }

    /// How it is set up, for the operator.
    pub fn report(&self) -> String {
        let submission = match self.ring.params().is_setup_sqpoll() {
            true => "a kernel thread submits",
            false => "submits with each wait",
        };
        let zero_copy = match self.zero_copy_bytes_min {
            usize::MAX => "replies copied".to_owned(),
            min => format!("replies from {min} bytes sent without a copy"),
        };
        format!("io_uring {submission}, {zero_copy}")
    }

    /// Submits what was asked for, and waits for completions, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// If the kernel does not take submissions any more.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let timeout = timeout.map(|timeout| {
            let nanos = timeout.total_micros() % 1_000_000 * 1_000;
            Timespec::new().sec(timeout.secs()).nsec(nanos as u32)
        });
        let mut args = SubmitArgs::new();
        if let Some(timeout) = &timeout {
            args = args.timespec(timeout);
        }
        match self.ring.submitter().submit_with_args(1, &args) {
            // Completions that did not fit into their queue come first.
            Err(error) if matches!(error.raw_os_error(), Some(ETIME | EINTR | EBUSY)) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Takes a batch of completions; [`Ring::next_completion`] yields them one by one.
    pub fn take_batch(&mut self) {
        self.completions.clear();
        let batch = self.ring.completion().take(COMPLETIONS_MAX);
        self.completions.extend(batch);
        self.completions.reverse();
    }

    /// The next completion of the batch.
    #[inline]
    pub fn next_completion(&mut self) -> Option<Completion> {
        while let Some(entry) = self.completions.pop() {
            if let Some(completion) = self.interpret(&entry) {
                return Some(completion);
            }
        }
        None
    }

    #[inline]
    fn interpret(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (purpose, index) = Purpose::from_user_data(entry.user_data());
        let more = cqueue::more(entry.flags());
        let result = entry.result();
        Some(match purpose {
            Purpose::Receive => Completion::Received {
                index,
                result: match result {
                    0 => Received::End,
                    1.. => match cqueue::buffer_select(entry.flags()) {
                        Some(id) => Received::Bytes(Provided {
                            id,
                            len: result as usize,
                        }),
                        None => Received::Error,
                    },
                    ..0 => self.not_received(-result),
                },
                more,
            },
            Purpose::Send => {
                let sending = self.sending.get_mut(index as usize)?.as_mut()?;
                if more {
                    sending.taken = Some(result);
                    return None;
                }
                let result = match sending.taken.take() {
                    Some(taken) if cqueue::notif(entry.flags()) => taken,
                    _ => result,
                };
                Completion::Sent {
                    index,
                    result: checked(result)
                        .inspect(|&taken| sending.start += taken as usize)
                        .map(|taken| taken as usize),
                }
            }
            Purpose::Accept => Completion::Accepted {
                listener: index,
                result: checked(result),
                more,
            },
            Purpose::Phase => Completion::Phase,
            Purpose::ShutDown => Completion::ShutDown { index },
            Purpose::Connect => Completion::Connected {
                index,
                result: checked(result),
            },
            Purpose::Close => Completion::Closed { index },
            Purpose::Install => Completion::Installed {
                index,
                result: checked(result).map(|fd| installed(fd as RawFd)),
            },
            Purpose::Adopt => {
                let adopting = self.adopting.pop_front()?;
                let count = usize::try_from(result).unwrap_or(0);
                let indices = adopting.places.iter().take(count);
                Completion::Adopted {
                    indices: indices.map(|&index| index as u32).collect(),
                }
            }
            Purpose::Ignored => return None,
        })
    }

    #[cold]
    fn not_received(&mut self, errno: i32) -> Received {
        match errno {
            // All buffers of the ring were in use; they are back when this batch is done.
            ENOBUFS | EAGAIN | EINTR => Received::Again,
            EINVAL if self.receive_mode == ReceiveMode::Capped => {
                self.receive_mode = ReceiveMode::Single;
                Received::Again
            }
            // A connection that was armed before the mode changed.
            EINVAL => Received::Again,
            ECANCELED => Received::Cancelled,
            _ => Received::Error,
        }
    }

    /// Accepts all connections that come to the listener with this index.
    pub fn accept(&mut self, index: u32, listener: impl AsFd) {
        let listener = types::Fd(listener.as_fd().as_raw_fd());
        let entry = match self
            .peers
            .as_mut()
            .and_then(|peers| peers.get_mut(index as usize))
        {
            None => opcode::AcceptMulti::new(listener)
                .allocate_file_index(true)
                .build(),
            Some(peer) => {
                // Only one at a time has a place for the address.
                peer.len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
                let storage = (&raw mut peer.storage).cast::<libc::sockaddr>();
                opcode::Accept::new(listener, storage, &raw mut peer.len)
                    .file_index(Some(types::DestinationSlot::auto_target()))
                    .build()
            }
        };
        self.push(entry, Purpose::Accept, index);
    }

    /// After [`Completion::Accepted`], before accepting is asked for again: who opened the connection, if that is to be told.
    pub fn peer(&self, listener: u32) -> Option<SocketAddr> {
        self.peers.as_ref()?.get(listener as usize)?.read()
    }

    /// Connects `socket` as the connection at `index`, and reports [`Completion::Connected`].
    ///
    /// # Errors
    ///
    /// If the kernel has no room for it.
    pub fn connect(&mut self, index: u32, socket: OwnedFd, to: SocketAddr) -> Result<(), End> {
        let place = index.checked_sub(self.outbound);
        let place = place.and_then(|place| self.destinations.get_mut(place as usize));
        let address = place.ok_or(End::NoConnection)?;
        // From here on the ring has the socket.
        let registered = self
            .ring
            .submitter()
            .register_files_update(index, &[socket.as_raw_fd()]);
        registered.map_err(|_| End::NoConnection)?;
        *address = to.into();
        let (storage, len) = (address.as_ptr().cast(), address.addr_len());
        let entry = opcode::Connect::new(Fixed(index), storage, len).build();
        self.push(entry, Purpose::Connect, index);
        Ok(())
    }

    /// Stops accepting from the listener with this index; a last [`Completion::Accepted`] follows.
    pub fn cancel_accept(&mut self, index: u32) {
        let accept = CancelBuilder::user_data(Purpose::Accept.user_data(index));
        self.push(
            opcode::AsyncCancel2::new(accept).build(),
            Purpose::Ignored,
            0,
        );
    }

    /// Reports [`Completion::Phase`] once `waker` is readable.
    pub fn watch_phase(&mut self, waker: impl AsFd) {
        let waker = types::Fd(waker.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(waker, libc::POLLIN as u32).build();
        self.push(entry, Purpose::Phase, 0);
    }

    /// Receives from a connection until `bytes_max` (more than none) have arrived, and less than one
    /// buffer of the ring beyond that; then it has to be asked again.
    pub fn receive(&mut self, index: u32, bytes_max: usize) {
        let bytes_max = bytes_max as u32;
        let entry = match self.receive_mode {
            ReceiveMode::Capped => {
                let entry = opcode::RecvMulti::new(Fixed(index), BUFFER_GROUP).build();
                cap_multishot_receive(entry, bytes_max)
            }
            ReceiveMode::Single => opcode::Recv::new(Fixed(index), std::ptr::null_mut(), bytes_max)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
        };
        self.push(entry, Purpose::Receive, index);
    }

    /// What was received.
    #[inline]
    pub fn bytes(&self, provided: &Provided) -> &[u8] {
        self.provided.bytes(provided)
    }

    /// Lends the buffer to the kernel again.
    #[inline]
    pub fn give_back(&mut self, provided: Provided) {
        self.provided.lend(provided.id);
    }

    /// Sends the first `len` bytes of `buffer`, which belongs to the pool that the ring was made
    /// with. `more` says that more bytes, or the end, follow at once.
    ///
    /// # Panics
    ///
    /// If the connection is sending already.
    #[inline]
    pub fn send(&mut self, index: u32, buffer: Buffer, len: usize, pool: &Pool, more: bool) {
        assert!(
            Arc::ptr_eq(pool.memory(), &self.replies),
            "buffer of another pool"
        );
        while self.sending.len() <= index as usize {
            self.sending.push(None);
        }
        let sending = &mut self.sending[index as usize];
        assert!(sending.is_none(), "one reply at a time");
        *sending = Some(Sending {
            buffer,
            start: 0,
            end: len,
            taken: None,
        });
        self.send_rest(index, pool, more);
    }

    /// Sends what the kernel has not taken yet.
    pub fn send_rest(&mut self, index: u32, pool: &Pool, more: bool) {
        let Some(Some(sending)) = self.sending.get(index as usize) else {
            return;
        };
        let bytes = &pool.bytes(&sending.buffer)[sending.start..sending.end];
        let (start, len) = (bytes.as_ptr(), bytes.len());
        let flags = libc::MSG_NOSIGNAL;
        let entry = if len >= self.zero_copy_bytes_min {
            // Never held back for more to come, which would wait for these to be acknowledged.
            opcode::SendZc::new(Fixed(index), start, len as u32)
                .flags(flags)
                .build()
        } else {
            let held_back = if more { libc::MSG_MORE } else { 0 };
            opcode::Send::new(Fixed(index), start, len as u32)
                .flags(flags | held_back)
                .build()
        };
        self.push(entry, Purpose::Send, index);
    }

    /// Whether the kernel has a reply of the connection.
    #[inline]
    pub fn is_sending(&self, index: u32) -> bool {
        self.sending
            .get(index as usize)
            .is_some_and(Option::is_some)
    }

    /// After [`Completion::Sent`]: how many bytes the kernel has not taken yet.
    #[inline]
    pub fn unsent(&self, index: u32) -> usize {
        match self.sending.get(index as usize) {
            Some(Some(sending)) => sending.end - sending.start,
            _ => 0,
        }
    }

    /// After [`Completion::Sent`]: the buffer, whether or not all of it was sent.
    #[inline]
    pub fn take_back(&mut self, index: u32) -> Option<Buffer> {
        let sending = self.sending.get_mut(index as usize)?.take()?;
        Some(sending.buffer)
    }

    /// Whether connections can have descriptors that other processes understand (Linux 6.8).
    pub fn can_install(&self) -> bool {
        self.can_install
    }

    /// Gives a connection a descriptor of the process, and reports [`Completion::Installed`].
    pub fn install(&mut self, index: u32) {
        let entry = opcode::FixedFdInstall::new(Fixed(index), 0).build();
        self.push(entry, Purpose::Install, index);
    }

    /// Makes connections of sockets, and reports [`Completion::Adopted`].
    pub fn adopt(&mut self, sockets: Vec<OwnedFd>) {
        /// IORING_FILE_INDEX_ALLOC: the kernel chooses, and says what it chose.
        const ANY: i32 = -1;
        let mut places: Box<[RawFd]> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let (start, len) = (places.as_mut_ptr(), places.len() as u32);
        self.adopting.push_back(Adopting {
            places,
            _sockets: sockets,
        });
        let entry = opcode::FilesUpdate::new(start, len).offset(ANY).build();
        self.push(entry, Purpose::Adopt, 0);
    }

    /// Stops receiving from a connection; a last [`Completion::Received`] follows.
    pub fn cancel_receive(&mut self, index: u32) {
        let receive = CancelBuilder::user_data(Purpose::Receive.user_data(index));
        let entry = opcode::AsyncCancel2::new(receive).build();
        self.push(entry, Purpose::Ignored, index);
    }

    /// Ends our side of a connection, and reports [`Completion::ShutDown`].
    ///
    /// Until then it must not be closed: a worker thread of the kernel looks the descriptor up when it
    /// gets to it, and would find the next connection there.
    pub fn shut_down(&mut self, index: u32) {
        let entry = opcode::Shutdown::new(Fixed(index), libc::SHUT_WR).build();
        self.push(entry, Purpose::ShutDown, index);
    }

    /// Stops all that the kernel does for a connection; what was begun completes.
    pub fn cancel(&mut self, index: u32) {
        let all = CancelBuilder::fd(Fixed(index)).all();
        self.push(
            opcode::AsyncCancel2::new(all).build(),
            Purpose::Ignored,
            index,
        );
    }

    /// Resets a connection: what the kernel was sending is forgotten, and its buffer comes back.
    pub fn reset(&mut self, index: u32) {
        /// Connecting to AF_UNSPEC disconnects (connect(2)), which an unfinished stream takes as abort.
        static NO_ADDRESS: libc::sockaddr = libc::sockaddr {
            sa_family: libc::AF_UNSPEC as libc::sa_family_t,
            sa_data: [0; 14],
        };
        let len = size_of::<libc::sockaddr>() as libc::socklen_t;
        let entry = opcode::Connect::new(Fixed(index), &raw const NO_ADDRESS, len).build();
        self.push(
            entry.flags(squeue::Flags::SKIP_SUCCESS),
            Purpose::Ignored,
            index,
        );
    }

    /// Closes a connection for which nothing is under way, and reports [`Completion::Closed`] if the service had it
    /// opened: before that, its descriptor would be closed under the next one.
    pub fn close(&mut self, index: u32) {
        let entry = opcode::Close::new(Fixed(index)).build();
        if index >= self.outbound {
            return self.push(entry, Purpose::Close, index);
        }
        self.push(
            entry.flags(squeue::Flags::SKIP_SUCCESS),
            Purpose::Ignored,
            index,
        );
    }

    fn push(&mut self, entry: squeue::Entry, purpose: Purpose, index: u32) {
        let entry = entry.user_data(purpose.user_data(index));
        loop {
            // SAFETY: whatever an entry points to outlives its operation: provided buffers and
            // replies are kept by this ring, which stops all operations before it lets go of them;
            // the address of a reset is static, and all others are in boxes of this ring that it keeps as long,
            // each of which is written only while no operation has it.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            if let Err(error) = self.make_room() {
                self.broken = Some(error);
                return;
            }
        }
    }

    #[cold]
    fn make_room(&mut self) -> io::Result<()> {
        match self.ring.submitter().submit() {
            Err(error) if error.raw_os_error() == Some(EINTR) => Ok(()),
            Err(error) => Err(error),
            Ok(_) if self.ring.params().is_setup_sqpoll() => {
                self.ring.submitter().squeue_wait().map(drop)
            }
            Ok(_) => Ok(()),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let stopped = self
            .ring
            .submitter()
            .register_sync_cancel(None, CancelBuilder::any());
        let nothing_to_stop = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        if stopped.is_err_and(|error| !nothing_to_stop(&error)) {
            // The kernel may go on for a moment; its memory stays.
            std::mem::forget(Arc::clone(&self.replies));
            std::mem::forget(Arc::clone(&self.provided.memory));
            std::mem::forget(std::mem::take(&mut self.destinations));
            std::mem::forget(self.peers.take());
            std::mem::forget(std::mem::take(&mut self.adopting));
        }
    }
}

/// Buffers of one size that the kernel takes as data arrives, from a ring that both sides see.
struct ProvidedBuffers {
    /// The ring's entries, then the buffers.
    memory: Arc<Memory>,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

impl ProvidedBuffers {
    /// `count` is a power of two, at most 32,768.
    fn new(count: u16, buffer_bytes: usize) -> io::Result<Self> {
        let entries_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let memory = Memory::new(entries_bytes + usize::from(count) * buffer_bytes)?;
        let mut buffers = ProvidedBuffers {
            memory: Arc::new(memory),
            count,
            buffer_bytes,
            tail: 0,
        };
        (0..count).for_each(|id| buffers.lend(id));
        Ok(buffers)
    }

    fn register(&self, ring: &IoUring) -> io::Result<()> {
        let start = self.entries() as u64;
        // SAFETY: the entries lie at the page-aligned start of memory that outlives the ring, and
        // there are `count` of them.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(start, self.count, BUFFER_GROUP, 0)
        }
    }

    fn entries(&self) -> *mut BufRingEntry {
        let len = usize::from(self.count) * size_of::<BufRingEntry>();
        self.memory.part(0..len).cast()
    }

    fn buffer(&self, id: u16, len: usize) -> *mut [u8] {
        assert!(
            id < self.count && len <= self.buffer_bytes,
            "no such buffer"
        );
        let start = usize::from(self.count) * size_of::<BufRingEntry>()
            + usize::from(id) * self.buffer_bytes;
        self.memory.part(start..start + len)
    }

    #[inline]
    fn bytes(&self, provided: &Provided) -> &[u8] {
        // SAFETY: the part is initialised and within memory that lives as long as `self`. The kernel
        // has handed the buffer over and does not touch it before it is lent again, which takes the
        // `Provided` away.
        unsafe { &*self.buffer(provided.id, provided.len) }
    }

    #[inline]
    fn lend(&mut self, id: u16) {
        let start = self.buffer(id, self.buffer_bytes).cast::<u8>() as u64;
        let slot = usize::from(self.tail & (self.count - 1));
        let entries = self.entries();
        // SAFETY: the slot is one of the `count` entries. The kernel does not read it before the
        // tail says so, as at most `count` buffers are ever in the ring. Setting the three fields
        // leaves the fourth alone, which in the first entry is the tail.
        let entry = unsafe { &mut *entries.add(slot) };
        entry.set_addr(start);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is an aligned `u16` within the first entry, which the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Lets the kernel take descriptors below `end` only for connections that it accepts
/// (IORING_REGISTER_FILE_ALLOC_RANGE, Linux 6.0), which the crate has no name for.
fn accept_below(ring: &IoUring, end: u32) -> io::Result<()> {
    const FILE_ALLOC_RANGE: libc::c_uint = 25;
    #[repr(C)]
    struct FileIndexRange {
        offset: u32,
        len: u32,
        reserved: u64,
    }
    let range = FileIndexRange {
        offset: 0,
        len: end,
        reserved: 0,
    };
    // SAFETY: the call reads one `struct io_uring_file_index_range`, which outlives it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            FILE_ALLOC_RANGE,
            &raw const range,
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sockets on their way into the ring.
struct Adopting {
    /// Their descriptors, which the kernel replaces by the indices it chose.
    places: Box<[RawFd]>,
    /// Open for as long as the kernel may look them up.
    _sockets: Vec<OwnedFd>,
}

/// Where the kernel writes who opened a connection.
struct Peer {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Peer {
    fn nobody() -> Peer {
        Peer {
            // SAFETY: the structure is made of integers, of which all zeroes is a value.
            storage: unsafe { std::mem::zeroed() },
            len: 0,
        }
    }

    fn read(&self) -> Option<SocketAddr> {
        let len = self
            .len
            .min(size_of::<libc::sockaddr_storage>() as libc::socklen_t);
        // SAFETY: there are `len` initialised bytes, and the kernel wrote an address of its own there.
        let any = unsafe { SocketAddrAny::read((&raw const self.storage).cast(), len) };
        any.try_into().ok()
    }
}

/// Ends a multishot receive after `bytes_max` (`optlen`, Linux 6.17), which the crate has no name for.
fn cap_multishot_receive(mut entry: squeue::Entry, bytes_max: u32) -> squeue::Entry {
    /// Where `struct io_uring_sqe` has the union of `file_index` and `optlen`.
    const OPTLEN_OFFSET: usize = 44;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is a transparent `struct io_uring_sqe` of 64 bytes, in which the four bytes at
    // this offset are an integer of their own, aligned, and any value of it is valid.
    unsafe {
        (&raw mut entry)
            .cast::<u32>()
            .byte_add(OPTLEN_OFFSET)
            .write(bytes_max);
    }
    entry
}

/// Allows the ring only what is asked of it here, and enables it. A seccomp filter does not see what a
/// ring is asked for: without this it would be a way to open files and sockets around it.
fn restrict(ring: &IoUring, opens: bool, hands_over: bool, can_install: bool) -> io::Result<()> {
    /// IORING_REGISTER_FILES_UPDATE, for connections that the service opens.
    const FILES_UPDATE: u8 = 6;
    /// IORING_REGISTER_SYNC_CANCEL, for the end.
    const SYNC_CANCEL: u8 = 24;
    let operations = [
        opcode::Accept::CODE,
        opcode::AsyncCancel2::CODE,
        opcode::Close::CODE,
        opcode::Connect::CODE,
        opcode::PollAdd::CODE,
        opcode::Recv::CODE,
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::SendZc::CODE,
        opcode::Shutdown::CODE,
    ];
    let flags = [
        squeue::Flags::FIXED_FILE,
        squeue::Flags::BUFFER_SELECT,
        squeue::Flags::SKIP_SUCCESS,
    ];
    let flags: squeue::Flags = flags.into_iter().collect();
    let mut restrictions: Vec<_> = operations.map(Restriction::sqe_op).into();
    if hands_over {
        restrictions.push(Restriction::sqe_op(opcode::FilesUpdate::CODE));
    }
    if can_install {
        restrictions.push(Restriction::sqe_op(opcode::FixedFdInstall::CODE));
    }
    restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
    restrictions.push(Restriction::register_op(SYNC_CANCEL));
    if opens {
        restrictions.push(Restriction::register_op(FILES_UPDATE));
    }
    ring.submitter().register_restrictions(&mut restrictions)?;
    ring.submitter().register_enable_rings()
}

/// Whether the kernel has an operation.
fn knows(ring: &IoUring, operation: u8) -> bool {
    let mut probe = Probe::new();
    let is_probed = ring.submitter().register_probe(&mut probe);
    is_probed.is_ok() && probe.is_supported(operation)
}

/// A descriptor that the kernel has just opened for us.
fn installed(fd: RawFd) -> OwnedFd {
    // SAFETY: the completion says that this descriptor was opened, once, and nobody else has seen it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn only(cpu: usize) -> libc::cpu_set_t {
    // SAFETY: the set is an array of integers, of which all zeroes is a value; CPU_SET only sets a
    // bit of it, and ignores a number that is too large.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    }
}

fn checked(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelConfig;

    #[test]
    fn a_ring_does_nothing_that_is_not_asked_of_it_here() {
        let config = Uring::new(KernelConfig::new("127.0.0.1:0".parse().unwrap()));
        if let Err(unsupported) = super::super::supported(&config) {
            eprintln!("SKIPPED: {unsupported}");
            return;
        }
        let mut ring = Ring::new(&config, 1, &Pool::new(1, 1).unwrap()).unwrap();
        let root = c"/";
        for forbidden in [
            opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), root.as_ptr()).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
        ] {
            // SAFETY: the path is static, and the other operation has no pointer.
            unsafe { ring.ring.submission().push(&forbidden) }.unwrap();
            ring.ring.submit_and_wait(1).unwrap();
            let completion = ring.ring.completion().next().unwrap();
            assert_eq!(completion.result(), -libc::EACCES);
        }
    }
}
