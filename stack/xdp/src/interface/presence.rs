//! Notices that an interface is gone: its driver was unbound, or it was deleted or moved to another network namespace.
//!
//! An AF_XDP socket does not tell. When its interface goes, the kernel unbinds it, but poll(2) on it goes on reporting
//! nothing. So this listens to what rtnetlink tells all of its subscribers (rtnetlink(7), RTMGRP_LINK).

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;

/// Multicast group of changes to interfaces.
const RTMGRP_LINK: u32 = 1;
/// Longer than any message about one interface.
const MESSAGE_BYTES: usize = 32 << 10;

/// A subscription to the end of an interface.
#[derive(Debug)]
pub struct Presence {
    socket: Socket,
    index: u32,
}

impl Presence {
    /// Subscribes for the interface with this index in the thread's network namespace.
    pub(super) fn of(index: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, RTMGRP_LINK))?;
        Ok(Presence { socket, index })
    }

    /// Blocks until the interface is gone; returns at once if it is already. Opens nothing.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell any more.
    pub fn wait_until_gone(&self) -> io::Result<()> {
        let mut bytes = vec![0; MESSAGE_BYTES];
        self.ask()?;
        loop {
            match self.socket.recv(&mut &mut bytes[..], 0) {
                Ok(len) if self.says_gone(&bytes[..len]) => return Ok(()),
                Ok(_) => {}
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    // Messages were lost, because too many came at once.
                    Some(Errno::NOBUFS) => self.ask()?,
                    _ => return Err(error),
                },
            }
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

    fn says_gone(&self, datagram: &[u8]) -> bool {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram);
        match message.map(|message| message.payload) {
            // A bridge says with its own family that a port has left it.
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))) => {
                link.header.index == self.index
                    && link.header.interface_family == AddressFamily::Unspec
            }
            // The answer to what was asked.
            Ok(NetlinkPayload::Error(error)) => error.to_io().raw_os_error() == Some(libc::ENODEV),
            // What cannot be read is about something else.
            _ => false,
        }
    }
}
