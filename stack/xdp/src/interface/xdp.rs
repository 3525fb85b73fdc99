//! What the kernel says of XDP on an interface: the program that is attached (rtnetlink), and what the
//! driver can (the netdev family, Linux 6.3). Asking changes nothing.

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use crate::netlink;

/// What is attached to an interface, and what its driver can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpState {
    /// The id of the program that is attached, if there is one.
    pub program_id: Option<u32>,
    /// What the driver can; `None` where the kernel is too old to tell (before 6.3).
    pub features: Option<XdpFeatures>,
}

/// What a driver can, as `NETDEV_XDP_ACT_*` of `linux/netdev.h` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Run a program (native mode).
    pub native: bool,
    /// Send frames to AF_XDP sockets from it.
    pub redirect: bool,
    /// Let AF_XDP sockets read and write its memory.
    pub zero_copy: bool,
    /// Over how many buffers a frame may spread in zero-copy mode, at least one.
    pub zero_copy_buffers: u32,
}

pub(super) fn state(interface_index: u32) -> io::Result<XdpState> {
    Ok(XdpState {
        program_id: program_id(interface_index)?,
        features: features(interface_index).ok().flatten(),
    })
}

fn program_id(interface_index: u32) -> io::Result<Option<u32>> {
    let mut request = LinkMessage::default();
    request.header.index = interface_index;
    let request = RouteNetlinkMessage::GetLink(request);
    let Some(RouteNetlinkMessage::NewLink(link)) = netlink::ask(NETLINK_ROUTE, request, 0)? else {
        return Ok(None);
    };
    let xdp = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => Some(xdp),
            _ => None,
        });
    let id = |attribute: &LinkXdp| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    };
    Ok(xdp.and_then(|xdp| xdp.iter().find_map(id)))
}

fn features(interface_index: u32) -> io::Result<Option<XdpFeatures>> {
    let Some(family) = family_id(Netdev::NAME)? else {
        return Ok(None);
    };
    let mut request = GenlMessage::from_payload(Netdev(vec![DefaultNla::new(
        Netdev::IFINDEX,
        interface_index.to_ne_bytes().to_vec(),
    )]));
    request.set_resolved_family_id(family);
    request.finalize();
    let Some(answer) = netlink::ask(NETLINK_GENERIC, request, 0)? else {
        return Ok(None);
    };
    Ok(answer
        .payload
        .number(Netdev::XDP_FEATURES)
        .map(|bits| XdpFeatures {
            native: bits & 1 != 0,
            redirect: bits & 2 != 0,
            zero_copy: bits & 8 != 0,
            // Linux 6.6; what does not say has one.
            zero_copy_buffers: answer.payload.number(Netdev::XDP_ZC_MAX_SEGS).unwrap_or(1) as u32,
        }))
}

/// The number that the kernel gave to a generic netlink family.
fn family_id(name: &str) -> io::Result<Option<u16>> {
    let mut request = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
    });
    request.finalize();
    let answer = netlink::ask(NETLINK_GENERIC, request, 0)?;
    let nlas = answer.map(|answer| answer.payload.nlas).unwrap_or_default();
    Ok(nlas.iter().find_map(|nla| match nla {
        GenlCtrlAttrs::FamilyId(id) => Some(*id),
        _ => None,
    }))
}

/// A message of the netdev family: NETDEV_CMD_DEV_GET, and its answer.
#[derive(Debug, Clone)]
struct Netdev(Vec<DefaultNla>);

impl Netdev {
    const NAME: &str = "netdev";
    const DEV_GET: u8 = 1;
    const IFINDEX: u16 = 1;
    const XDP_FEATURES: u16 = 3;
    const XDP_ZC_MAX_SEGS: u16 = 4;

    /// The value of an attribute that is an integer of at most eight bytes, on a little-endian machine.
    fn number(&self, kind: u16) -> Option<u64> {
        let nla = self.0.iter().find(|nla| nla.kind() == kind)?;
        let mut bytes = [0; 8];
        let value = bytes.get_mut(..nla.value_len())?;
        nla.emit_value(value);
        Some(u64::from_ne_bytes(bytes))
    }
}

impl GenlFamily for Netdev {
    fn family_name() -> &'static str {
        Self::NAME
    }

    fn command(&self) -> u8 {
        Self::DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Netdev {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Netdev {
    fn parse_with_param(buffer: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let nlas = NlasIterator::new(buffer).map(|nla| DefaultNla::parse(&nla?));
        Ok(Netdev(nlas.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_attached_to_the_loopback_interface() {
        let state = state(1).unwrap();
        assert_eq!(state.program_id, None);
        // The kernel is asked for something that this machine's may not know, but then says so.
        assert!(state.features.is_none_or(|features| !features.zero_copy));
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(state(0x7fff_ffff).is_err());
    }
}
