//! One connection: a hot line that decides what happens to a segment, and a cold part that does it.
//!
//! ```text
//!   hot   ┌ flow key ┬ sequence numbers, windows ┬ timer, link, flags ┐  64 bytes, one per connection
//!         └──────────┴───────────────────────────┴────────────────────┘
//!   cold  ┌ neighbour ┬ deadlines ┬ which sender or which socket it has ┬ state ┐  96 bytes
//!         └───────────┴───────────┴───────────────────┬─────────────────┴───────┘
//!                                                     ▼
//!   pool  ┌ smoltcp socket in a set of its own, with receive and send buffer from the arena ┐
//!         └──────────────────────── lent while the direct path does not do ─────────────────┘
//! ```
//!
//! The flow table and the guards touch only the hot line, so that a flood of segments which go
//! nowhere does not pull sockets through the cache. An established connection with nothing in flight
//! is described by its hot line alone; nothing outside this module needs the socket to be there.
//!
//! smoltcp polls whole sets of sockets, so a set with one socket makes its cost independent of the
//! number of connections.

use std::marker::PhantomData;
use std::ptr::NonNull;

use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};

use crate::control::SynOptions;
use crate::guard::segment::Tcb;
use crate::guard::timestamps::{TimestampClock, Timestamps};
use crate::neighbours::NO_NEIGHBOUR;
use crate::packet::FlowKey;
use crate::path::Path;
use crate::sender::Remembered;
use crate::sender::lent::{NO_SENDER, Senders};
use crate::states::{StateHandle, States};
use barewire_memory::prefetch;
use barewire_service::deadline::{Deadlines, Watch};
use barewire_service::time::Instant;

/// The part of a connection that every segment needs.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Hot {
    pub flow: FlowKey,
    pub tcb: Tcb,
    /// When the peer last acknowledged something, or something was sent that it has to acknowledge.
    pub progress_at_ms: u32,
    /// When the last challenge ACK was sent.
    pub challenge_at_ms: u32,
    /// The link that the last valid segment came from.
    pub link: u8,
    pub flags: HotFlags,
}

/// Work that is left for later.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HotFlags {
    /// On the list of those that have more to send than they were given slots for.
    pub is_waiting_to_send: bool,
    /// On the list of those that wait for a message that their service may want to ask for.
    pub is_listed_idle: bool,
    /// A challenge ACK was sent at [`Hot::challenge_at_ms`].
    pub was_challenged: bool,
}

impl HotFlags {
    /// The flags that stay when the connection is replaced by another one: its places on the lists.
    pub fn of_next_connection(self) -> HotFlags {
        HotFlags {
            was_challenged: false,
            ..self
        }
    }
}

/// The rest of a connection: one and a half cache lines, the ones that every segment needs first.
#[derive(Debug)]
#[repr(C, align(32))]
pub(crate) struct Cold {
    /// Which sender of [`Senders`] the connection has; [`NO_SENDER`] while it is quiet or has a socket.
    pub sender: u32,
    /// Which of [`Neighbours`](crate::neighbours::Neighbours) its packets go to; [`NO_NEIGHBOUR`] if it is over.
    pub neighbour: u32,
    /// What the service keeps.
    pub state: StateHandle,
    /// The end of the highest byte that has arrived from the peer, in whatever order.
    pub highest: u32,
    /// RCV.NXT as it was last sent to the peer: Last.ACK.sent of RFC 7323.
    pub told: u32,
    /// TS.Recent, if the connection has timestamps.
    pub ts_recent: u32,
    /// How large packets to the peer may be.
    pub path: Path,
    pub watch: Watch,
    /// The timer wheel expires at this time at the latest.
    pub timer_at: Instant,
    /// The connection is served directly and has no socket.
    pub is_direct: bool,
    /// The service knows that the peer has ended its stream. On the direct path, once we have closed: the peer did so
    /// first, and our FIN is the last (LAST-ACK).
    pub end_seen: bool,
    /// The service asked for more space to send.
    pub wants_room: bool,
    /// Our FIN waits until the peer has room for all that is before it, in the socket.
    pub close_pending: bool,
    /// Which socket of [`Sockets`] the connection has; [`NO_SOCKET`] while it is served directly.
    pub socket: u32,
    /// What the peer's SYN has offered.
    pub options: SynOptions,
    /// What the last [`Sender`] has learnt.
    pub remembered: Remembered,
}

/// Of a connection that has no socket.
pub(crate) const NO_SOCKET: u32 = u32::MAX;

impl Cold {
    /// A connection that is not in use.
    pub fn new() -> Self {
        Cold {
            socket: NO_SOCKET,
            neighbour: NO_NEIGHBOUR,
            state: StateHandle::NEW,
            watch: Watch::half_open(Instant::ZERO, &Deadlines::default()),
            path: Path::new(0, Instant::ZERO),
            timer_at: NEVER,
            end_seen: false,
            wants_room: false,
            close_pending: false,
            options: SynOptions::default(),
            highest: 0,
            told: 0,
            ts_recent: 0,
            sender: NO_SENDER,
            is_direct: false,
            remembered: Remembered::default(),
        }
    }

    /// Resets everything for the next connection.
    pub fn renew(&mut self, neighbour: u32, watch: Watch, path: Path) {
        self.neighbour = neighbour;
        self.watch = watch;
        self.path = path;
        self.timer_at = NEVER;
        self.end_seen = false;
        self.wants_room = false;
        self.close_pending = false;
        self.options = SynOptions::default();
        self.highest = 0;
        self.told = 0;
        self.ts_recent = 0;
        debug_assert!(
            self.sender == NO_SENDER,
            "chunks of the last connection are left"
        );
        self.remembered = Remembered::default();
    }

    /// The timestamps of a segment to the peer, if the connection has them.
    #[inline]
    pub fn timestamps(&self, clock: TimestampClock, now: Instant) -> Option<Timestamps> {
        self.options.timestamps.then(|| Timestamps {
            value: clock.value(now),
            echo: self.ts_recent,
        })
    }

    /// The timestamps of the last segment of the peer, as far as a socket needs them.
    pub fn timestamps_of_peer(&self) -> Option<Timestamps> {
        self.options.timestamps.then_some(Timestamps {
            value: self.ts_recent,
            echo: 0,
        })
    }

    /// What a segment will touch, but for what is in the memory of others.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(self);
    }

    /// The rest of what it will touch, once that is there.
    #[inline]
    pub fn prefetch_rest<C: Default>(
        &self,
        senders: &Senders,
        sockets: &Sockets<'_>,
        states: &States<C>,
    ) {
        states.prefetch(self.state);
        match self.is_direct {
            true => senders.prefetch(self.sender),
            false => sockets.prefetch(self.socket),
        }
    }
}

/// A time that never comes.
pub(crate) const NEVER: Instant = Instant::from_micros(i64::MAX);

/// All sockets of a shard. There may be fewer than connections.
pub(crate) struct Sockets<'a> {
    slots: Vec<SocketSlot<'a>>,
    unused: Vec<u32>,
}

impl<'a> Sockets<'a> {
    /// A socket for each pair of buffers, for receiving and for sending.
    pub fn new(buffers: impl Iterator<Item = (&'a mut [u8], &'a mut [u8])>) -> Sockets<'a> {
        let slots: Vec<_> = buffers
            .map(|(receive, send)| SocketSlot::new(receive, send))
            .collect();
        Sockets {
            unused: (0..slots.len() as u32).rev().collect(),
            slots,
        }
    }

    /// Takes an unused socket for a connection; it is as new.
    pub fn take(&mut self, connection: usize) -> Option<u32> {
        let socket = self.unused.pop()?;
        let slot = &mut self.slots[socket as usize];
        slot.connection = connection as u32;
        slot.renew();
        Some(socket)
    }

    /// Takes back the socket of a connection that has one.
    pub fn give_back(&mut self, socket: &mut u32) {
        if *socket != NO_SOCKET {
            self.slots[*socket as usize].connection = u32::MAX;
            self.unused.push(*socket);
            *socket = NO_SOCKET;
        }
    }

    /// Number of sockets.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Number of sockets that connections have.
    pub fn used(&self) -> usize {
        self.slots.len() - self.unused.len()
    }

    /// Whether all sockets are in use.
    pub fn are_used_up(&self) -> bool {
        self.unused.is_empty()
    }

    /// The connection that has a socket.
    pub fn connection_of(&self, socket: usize) -> Option<usize> {
        let connection = self.slots[socket].connection;
        (connection != u32::MAX).then_some(connection as usize)
    }

    /// The socket of a connection that has one.
    #[inline]
    pub fn slot(&mut self, socket: u32) -> &mut SocketSlot<'a> {
        &mut self.slots[socket as usize]
    }

    /// Asks for the memory of the socket of a connection, if it has one.
    #[inline]
    pub fn prefetch(&self, socket: u32) {
        if let Some(slot) = self.slots.get(socket as usize) {
            prefetch(slot.set.get::<Socket<'a>>(slot.handle));
        }
    }
}

/// A socket in a set of its own, and the buffers it works on.
///
/// smoltcp's `listen` resets most of a used socket, but not its congestion window, its count of
/// duplicate ACKs, a pending fast retransmission and some more. A new socket is clean by construction,
/// but cannot be had without its buffers, which the old one does not give back. So the slot keeps the
/// pointers and lends the buffers anew.
pub(crate) struct SocketSlot<'a> {
    /// Holds nothing but the socket.
    pub set: SocketSet<'a>,
    handle: SocketHandle,
    /// When smoltcp wants to send again, if we want it sooner.
    pub late_at: Instant,
    /// Received bytes that the service has seen and not consumed.
    pub seen: usize,
    /// The connection that has it; `u32::MAX` if none does.
    connection: u32,
    receive: NonNull<[u8]>,
    send: NonNull<[u8]>,
    buffers: PhantomData<&'a mut [u8]>,
}

impl<'a> SocketSlot<'a> {
    fn new(receive: &'a mut [u8], send: &'a mut [u8]) -> Self {
        let mut set = SocketSet::new(vec![SocketStorage::EMPTY]);
        let (receive, send) = (NonNull::from(receive), NonNull::from(send));
        // SAFETY: both pointers come from `&'a mut` references that this function has consumed, so
        // for `'a` nobody else can reach the bytes.
        let socket = unsafe { new_socket(receive, send) };
        let handle = set.add(socket);
        SocketSlot {
            set,
            handle,
            late_at: NEVER,
            seen: 0,
            connection: u32::MAX,
            receive,
            send,
            buffers: PhantomData,
        }
    }

    #[inline]
    pub fn socket(&mut self) -> &mut Socket<'a> {
        self.set.get_mut(self.handle)
    }

    /// The socket, and how many of the bytes in it the service has seen.
    #[inline]
    pub fn socket_and_seen(&mut self) -> (&mut Socket<'a>, &mut usize) {
        (self.set.get_mut(self.handle), &mut self.seen)
    }

    /// Replaces the socket by a new one on the same buffers.
    pub fn renew(&mut self) {
        self.late_at = NEVER;
        self.seen = 0;
        drop(self.set.remove(self.handle));
        // SAFETY: the pointers come from `&'a mut` references that `new` has consumed; the only
        // references made from them since went into the socket that was dropped above, which lends
        // its buffers only for as long as it is borrowed itself.
        let socket = unsafe { new_socket(self.receive, self.send) };
        self.handle = self.set.add(socket);
    }
}

/// The largest receive buffer. From one byte more on, window fields are scaled, and smoltcp 0.14 panics when a peer
/// fills a window whose size is not a multiple of the scale.
pub(crate) const RECEIVE_BUFFER_BYTES_MAX: usize = 65_535;

/// # Safety
///
/// Both pointers must be valid for reads and writes for all of `'a`, and nothing else may access what
/// they point to while the socket lives.
unsafe fn new_socket<'a>(receive: NonNull<[u8]>, send: NonNull<[u8]>) -> Socket<'a> {
    // SAFETY: see the function's own contract.
    let (receive, send) = unsafe { (&mut *receive.as_ptr(), &mut *send.as_ptr()) };
    assert!(receive.len() <= RECEIVE_BUFFER_BYTES_MAX);
    let mut socket = Socket::new(SocketBuffer::new(receive), SocketBuffer::new(send));
    // It begins with a window of 2 KiB, where RFC 6928 allows ten segments; smoltcp has no way to set it.
    socket.set_congestion_control(CongestionControl::Reno);
    // Replies leave at once and carry the ACK; without a reply the ACK is due at once as well.
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    // The shard keeps all deadlines. smoltcp's own timeout would count from the peer's last segment,
    // and so take the first byte sent after a long silence for one that is overdue.
    socket.set_timeout(None);
    socket
}

/// Bytes of memory that a connection takes besides its service's state and what it has borrowed.
pub(crate) const CONNECTION_BYTES: usize = size_of::<Hot>() + size_of::<Cold>();

/// Bytes of memory that a socket takes besides its buffers.
pub(crate) const SOCKET_BYTES: usize =
    size_of::<SocketSlot<'static>>() + size_of::<SocketStorage<'static>>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_two_cache_lines_and_a_half() {
        assert_eq!(size_of::<Hot>(), 64);
        assert_eq!(size_of::<Cold>(), 96);
    }
}
