//! Polls an interface: whether it is still there and up, what it has received, how many queues and
//! which addresses it has.
//!
//! An AF_XDP socket does not report it. When its interface is removed, the kernel unbinds it, but poll(2) on it goes on reporting
//! nothing. So this listens to what rtnetlink tells all of its subscribers (rtnetlink(7)), and asks.
//! Nothing is opened and no capability is needed once it was made.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::device::Device;

/// Multicast groups of changes to interfaces and to their addresses.
const GROUPS: u32 =
    (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
/// Longer than any message about one interface.
const MESSAGE_BYTES: usize = 32 << 10;
/// Messages of one datagram begin at multiples of this.
const NLMSG_ALIGN: usize = 4;

/// A subscription to what becomes of an interface.
pub struct Presence {
    socket: Socket,
    device: Device,
    index: u32,
}

/// What was seen of an interface that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Frames that the driver has received since it was loaded, if the kernel said so in time.
    pub received: Option<u64>,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Whether it is administratively up and has a carrier, if the kernel said so in time.
    pub link: Option<Link>,
    /// Addresses that were added or removed since the last look, in this order; one that was there may be added again.
    pub addresses: Vec<(AddressChange, IpAddr)>,
    /// Its new name, if it was renamed.
    pub renamed: Option<String>,
}

/// Whether an interface can carry anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It can.
    Up,
    /// It is up, but nothing is at its other end.
    NoCarrier,
    /// It is administratively down.
    Down,
}

/// What became of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressChange {
    /// The interface has it.
    Added,
    /// The interface has lost it.
    Removed,
}

impl Presence {
    /// Subscribes for the interface called `name` with this index in the thread's network namespace. The first look sees
    /// all addresses that it has.
    pub(super) fn of(name: &str, index: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        let presence = Presence {
            socket,
            device: Device::open(name)?,
            index,
        };
        // What changed since the interface was looked up.
        presence.ask_for_addresses()?;
        Ok(presence)
    }

    /// Looks for as long as `duration`, or until something about the interface is heard; `None` if it is gone.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell any more.
    pub fn look(&mut self, duration: Duration) -> io::Result<Option<Sighting>> {
        let until = Instant::now() + duration;
        let mut bytes = vec![0; MESSAGE_BYTES];
        let mut sighting = Sighting::default();
        self.ask_for_link()?;
        loop {
            match self.socket.recv(&mut &mut bytes[..], 0) {
                Ok(len) => {
                    if self.hear(&bytes[..len], &mut sighting) {
                        return Ok(None);
                    }
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::AGAIN) if sighting.addresses.is_empty() && self.wait(until)? => {}
                    Some(Errno::AGAIN) => break,
                    // Messages were lost, because too many came at once.
                    Some(Errno::NOBUFS) => {
                        self.ask_for_link()?;
                        self.ask_for_addresses()?;
                    }
                    _ => return Err(error),
                },
            }
        }
        sighting.rx_queues = self.device.channels().unwrap_or_default().rx_queues();
        Ok(Some(sighting))
    }

    /// Whether a message came before `until`.
    fn wait(&self, until: Instant) -> io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(
            &mut [PollFd::new(&self.socket, PollFlags::IN)],
            Some(&timeout),
        ) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes the kernel describe the interface, or say that there is none.
    fn ask_for_link(&self) -> io::Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = self.index;
        self.ask(RouteNetlinkMessage::GetLink(request), NLM_F_REQUEST)
    }

    /// Makes the kernel name all addresses of all interfaces.
    fn ask_for_addresses(&self) -> io::Result<()> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.ask(request, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn ask(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Notes what the messages of a datagram say of the interface; true if it is gone.
    fn hear(&mut self, mut datagram: &[u8], sighting: &mut Sighting) -> bool {
        // An answer with many parts has several messages in a datagram. What cannot be read is about something else.
        while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) {
            let len = (message.header.length as usize).next_multiple_of(NLMSG_ALIGN);
            if self.hear_message(message.payload, sighting) {
                return true;
            }
            match datagram.get(len..) {
                Some(rest) if len > 0 && !rest.is_empty() => datagram = rest,
                _ => break,
            }
        }
        false
    }

    fn hear_message(
        &mut self,
        payload: NetlinkPayload<RouteNetlinkMessage>,
        sighting: &mut Sighting,
    ) -> bool {
        match payload {
            // A bridge says with its own family that a port has left it.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                self.is_about_us(&link) && link.header.interface_family == AddressFamily::Unspec
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))
                if self.is_about_us(&link) =>
            {
                self.describe(&link, sighting);
                false
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                self.change(AddressChange::Added, &address, sighting);
                false
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                self.change(AddressChange::Removed, &address, sighting);
                false
            }
            // The answer to what was asked.
            NetlinkPayload::Error(error) => error.to_io().raw_os_error() == Some(libc::ENODEV),
            _ => false,
        }
    }

    fn describe(&mut self, link: &LinkMessage, sighting: &mut Sighting) {
        // A port of a bridge is described by the bridge as well, without numbers and without its state.
        if link.header.interface_family != AddressFamily::Unspec {
            return;
        }
        let flags = link.header.flags;
        sighting.link = Some(
            match (
                flags.contains(LinkFlags::Up),
                flags.contains(LinkFlags::LowerUp),
            ) {
                (true, true) => Link::Up,
                (true, false) => Link::NoCarrier,
                (false, _) => Link::Down,
            },
        );
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Stats64(statistics) => {
                    sighting.received = Some(statistics.rx_packets)
                }
                LinkAttribute::IfName(name) if self.device.rename(name) => {
                    sighting.renamed = Some(name.clone());
                }
                _ => {}
            }
        }
    }

    fn change(&self, change: AddressChange, message: &AddressMessage, sighting: &mut Sighting) {
        if message.header.index != self.index {
            return;
        }
        // Of a point-to-point link, the address is that of the other end.
        let (mut ours, mut any) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => ours = Some(*address),
                AddressAttribute::Address(address) => any = Some(*address),
                _ => {}
            }
        }
        sighting
            .addresses
            .extend(ours.or(any).map(|address| (change, address)));
    }

    fn is_about_us(&self, link: &LinkMessage) -> bool {
        link.header.index == self.index
    }
}
