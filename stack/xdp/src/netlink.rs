//! One question to the kernel over netlink, and its answer.

use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Longer than any answer that is asked for here.
const ANSWER_BYTES: usize = 32 << 10;

/// The answer to `request`: a message, nothing but an acknowledgment, or an error.
///
/// `protocol` is one of [`netlink_sys::protocols`], `flags` are those beside `NLM_F_REQUEST`.
pub(crate) fn ask<T>(protocol: isize, request: T, flags: u16) -> io::Result<Option<T>>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug,
    NetlinkPayload<T>: From<T>,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answer = vec![0; ANSWER_BYTES];
    let len = socket.recv(&mut &mut answer[..], 0)?;
    let answer = NetlinkMessage::<T>::deserialize(&answer[..len])
        .map_err(|error| io::Error::other(error.to_string()))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(None),
    }
}
