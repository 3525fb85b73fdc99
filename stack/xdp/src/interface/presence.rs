//! Looks at an interface again and again: whether it is still there, what it has received, how many queues it has.
//!
//! An AF_XDP socket does not tell. When its interface goes, the kernel unbinds it, but poll(2) on it goes on reporting
//! nothing. So this listens to what rtnetlink tells all of its subscribers (rtnetlink(7), RTMGRP_LINK), and asks.
//! Nothing is opened and no capability is needed once it was made.

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::device::Device;

/// Multicast group of changes to interfaces.
const RTMGRP_LINK: u32 = 1;
/// Longer than any message about one interface.
const MESSAGE_BYTES: usize = 32 << 10;

/// A subscription to what becomes of an interface.
pub struct Presence {
    socket: Socket,
    device: Device,
    index: u32,
}

/// What was seen of an interface that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Frames that the driver has received since it was loaded, if the kernel said so in time.
    pub received: Option<u64>,
    /// Receive queues in use.
    pub rx_queues: u32,
}

/// What a message says of the interface.
enum News {
    Gone,
    Received(u64),
    Nothing,
}

impl Presence {
    /// Subscribes for the interface called `name` with this index in the thread's network namespace.
    pub(super) fn of(name: &str, index: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, RTMGRP_LINK))?;
        socket.set_non_blocking(true)?;
        Ok(Presence {
            socket,
            device: Device::open(name)?,
            index,
        })
    }

    /// Looks for as long as `duration`, or until the interface is gone: then, `None`.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell any more.
    pub fn look(&self, duration: Duration) -> io::Result<Option<Sighting>> {
        let until = Instant::now() + duration;
        let mut bytes = vec![0; MESSAGE_BYTES];
        let mut received = None;
        self.ask()?;
        loop {
            match self.socket.recv(&mut &mut bytes[..], 0) {
                Ok(len) => match self.news(&bytes[..len]) {
                    News::Gone => return Ok(None),
                    News::Received(frames) => received = Some(frames),
                    News::Nothing => {}
                },
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::AGAIN) if self.wait(until)? => {}
                    Some(Errno::AGAIN) => break,
                    // Messages were lost, because too many came at once.
                    Some(Errno::NOBUFS) => self.ask()?,
                    _ => return Err(error),
                },
            }
        }
        Ok(Some(Sighting {
            received,
            rx_queues: self.device.channels().unwrap_or_default().rx_queues(),
        }))
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
    fn ask(&self) -> io::Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = self.index;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let mut message = NetlinkMessage::new(
            header,
            NetlinkPayload::from(RouteNetlinkMessage::GetLink(request)),
        );
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    fn news(&self, datagram: &[u8]) -> News {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram);
        match message.map(|message| message.payload) {
            // A bridge says with its own family that a port has left it.
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)))
                if self.is_about_us(&link)
                    && link.header.interface_family == AddressFamily::Unspec =>
            {
                News::Gone
            }
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)))
                if self.is_about_us(&link) =>
            {
                let statistics = link
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        LinkAttribute::Stats64(statistics) => Some(statistics.rx_packets),
                        _ => None,
                    });
                statistics.map_or(News::Nothing, News::Received)
            }
            // The answer to what was asked.
            Ok(NetlinkPayload::Error(error))
                if error.to_io().raw_os_error() == Some(libc::ENODEV) =>
            {
                News::Gone
            }
            // What cannot be read is about something else.
            _ => News::Nothing,
        }
    }

    fn is_about_us(&self, link: &LinkMessage) -> bool {
        link.header.index == self.index
    }
}
