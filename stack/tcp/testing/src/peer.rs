//! A client that is a smoltcp socket: windows that close, reassembly, congestion control.
//!
//! Without the guards of a shard smoltcp 0.14 hangs now and then by its own fault: after it has sent
//! beyond a small window, when it has forgotten that its FIN was sent, when a FIN lies behind the edge
//! of its window. Such a peer gives up in the end ([`Peer::has_given_up`]); wrong bytes are nobody's
//! fault but the server's.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::client::Offence;
use super::frame::strip_l2;
use barewire_service::time::{Duration, Instant};

/// One connection of a smoltcp client.
pub struct Peer {
    config: PeerConfig,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    wire: PeerWire,
    sent: usize,
    received: usize,
    has_closed: bool,
    has_given_up: bool,
    /// Reads nothing before this time, so that its window closes.
    reads_at: Instant,
}

/// What a [`Peer`] does.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Its address and port.
    pub source: SocketAddr,
    /// The server's.
    pub destination: SocketAddr,
    /// Seed of its sequence numbers.
    pub seed: u64,
    /// Size of its receive buffer, which is its largest window.
    pub receive_bytes: usize,
    /// Size of its send buffer.
    pub send_bytes: usize,
    /// How long it rests whenever it has read something.
    pub rest: Duration,
    /// What it sends, before it ends its stream.
    pub send: Vec<u8>,
    /// What it expects to receive, before the server ends its stream.
    pub expect: Vec<u8>,
}

impl Peer {
    /// A peer whose SYN goes out with the next [`Peer::poll`].
    pub fn new(config: PeerConfig, now: Instant) -> Peer {
        let mut wire = PeerWire::default();
        let mut interface_config = Config::new(HardwareAddress::Ip);
        interface_config.random_seed = config.seed;
        let mut interface = Interface::new(interface_config, &mut wire, at(now));
        let (source, destination) = (config.source, config.destination);
        interface.update_ip_addrs(|addresses| {
            let added = addresses.push(IpCidr::new(source.ip().into(), 16));
            debug_assert!(added.is_ok(), "room for one address");
        });
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; config.receive_bytes]),
            SocketBuffer::new(vec![0; config.send_bytes]),
        );
        socket.set_congestion_control(CongestionControl::Reno);
        socket.set_nagle_enabled(false);
        socket.set_tsval_generator(Some(|| TS_VALUE.get()));
        // smoltcp stalls for ever where the guards of a shard do not; hearing from the other side
        // now and then gets it going again.
        socket.set_keep_alive(Some(smoltcp::time::Duration::from_secs(2)));
        let connecting = socket.connect(interface.context(), destination, source);
        debug_assert!(connecting.is_ok(), "a new socket can connect");
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        Peer {
            interface,
            sockets,
            handle,
            wire,
            sent: 0,
            received: 0,
            has_closed: false,
            has_given_up: false,
            reads_at: now,
            config,
        }
    }

    /// Takes a frame that is addressed to this peer.
    pub fn receive(&mut self, frame: &[u8]) {
        if let Some(packet) = strip_l2(frame) {
            self.wire.received.push_back(packet.to_vec());
        }
    }

    /// Whether everything was sent, acknowledged and received, and both streams have ended.
    pub fn is_done(&self) -> bool {
        let state = self.sockets.get::<Socket<'_>>(self.handle).state();
        self.received == self.config.expect.len()
            && self.has_closed
            && matches!(state, State::TimeWait | State::Closed)
    }

    /// Whether the connection came to an end before everything had arrived.
    pub fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// Does all there is to do and hands each IP packet to `transmit`.
    ///
    /// # Errors
    ///
    /// If what the server sent is not what was expected.
    pub fn poll(&mut self, now: Instant, mut transmit: impl FnMut(&[u8])) -> Result<(), Offence> {
        TS_VALUE.set(now.total_millis() as u32);
        self.interface
            .poll(at(now), &mut self.wire, &mut self.sockets);
        self.use_socket(now)?;
        self.interface
            .poll(at(now), &mut self.wire, &mut self.sockets);
        while let Some(packet) = self.wire.sent.pop_front() {
            transmit(&packet);
        }
        Ok(())
    }

    /// When [`Peer::poll`] has something to do, if nothing arrives.
    pub fn next_at(&mut self, now: Instant) -> Option<Instant> {
        let socket = self.sockets.get::<Socket<'_>>(self.handle);
        let reads_at = (socket.can_recv() && self.reads_at > now).then_some(self.reads_at);
        let polls_at = (self.interface.poll_at(at(now), &self.sockets))
            .map(|at| Instant::from_micros(at.total_micros()));
        reads_at.into_iter().chain(polls_at).min()
    }

    fn use_socket(&mut self, now: Instant) -> Result<(), Offence> {
        let PeerConfig { send, expect, .. } = &self.config;
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        if now >= self.reads_at && socket.can_recv() {
            let rest = &expect[self.received..];
            let taken = socket.recv(|bytes| match rest.starts_with(bytes) {
                true => (bytes.len(), Some(bytes.len())),
                false => (0, None),
            });
            let Ok(Some(taken)) = taken else {
                return Err(self.offence("sent bytes that are not the expected ones"));
            };
            self.received += taken;
            self.reads_at = now + self.config.rest;
        }
        if self.sent < send.len() {
            self.sent += socket.send_slice(&send[self.sent..]).unwrap_or(0);
        } else if !self.has_closed && socket.state() != State::SynSent {
            socket.close();
            self.has_closed = true;
        }
        // A connection that the server has forgotten may be reset, but not before all has arrived.
        let is_complete = self.received == self.config.expect.len() && self.has_closed;
        let is_at_end = match socket.state() {
            State::Closed => true,
            State::CloseWait | State::LastAck | State::TimeWait => {
                self.received < self.config.expect.len()
            }
            _ => false,
        };
        self.has_given_up = is_at_end && !socket.can_recv() && !is_complete;
        Ok(())
    }

    fn offence(&self, what: &str) -> Offence {
        Offence {
            client: self.config.source,
            at: self.received,
            what: what.into(),
        }
    }
}

thread_local! {
    /// TSval of what is sent now: smoltcp asks a function without arguments.
    static TS_VALUE: Cell<u32> = const { Cell::new(0) };
}

/// Packets without a link layer, in and out.
#[derive(Debug, Default)]
struct PeerWire {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Arrival(Vec<u8>);

struct Departure<'w>(&'w mut VecDeque<Vec<u8>>);

impl Device for PeerWire {
    type RxToken<'w> = Arrival;
    type TxToken<'w> = Departure<'w>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Arrival, Departure<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Arrival(packet), Departure(&mut self.sent)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Departure<'_>> {
        Some(Departure(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

impl RxToken for Arrival {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, process: F) -> R {
        process(&self.0)
    }
}

impl TxToken for Departure<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

/// `at`, as smoltcp counts it.
fn at(at: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros_const(at.total_micros())
}
