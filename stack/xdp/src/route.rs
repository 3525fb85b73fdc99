//! The way to a destination, as the kernel knows it: source address, next hop, hardware address.
//!
//! A stack that opens connections needs what `ip route get` and `ip neigh` tell. It asks the kernel,
//! which goes on doing ARP and neighbour discovery, instead of doing them once more:
//!
//! ```text
//!   destination ─▶ RTM_GETROUTE ─▶ interface, gateway, source address
//!                       next hop ─▶ RTM_GETNEIGH ─▶ hardware address
//!                                     └ none yet ─▶ RTM_NEWNEIGH with NTF_USE: the kernel asks for it
//! ```

use std::io;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use thiserror::Error;

use crate::interface::Interface;
use crate::netlink;

/// How to get to a destination by one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The address that the kernel would call from.
    pub source: IpAddr,
    /// The destination itself, or the gateway on the way to it.
    pub next_hop: IpAddr,
}

/// Why there is no way.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The kernel has no route.
    #[error(
        "there is no route to {destination}: check the address and `ip route get {destination}`"
    )]
    NoRoute {
        /// Where to.
        destination: IpAddr,
    },
    /// The route leads elsewhere.
    #[error(
        "the way to {destination} does not lead through {interface}: `ip route get {destination}` says through which \
         interface; name that one, or add a route"
    )]
    OtherInterface {
        /// Where to.
        destination: IpAddr,
        /// Where it should have led through.
        interface: String,
    },
    /// No host on the link has that address.
    #[error(
        "{next_hop} does not answer on {interface} (ARP or neighbour discovery): is it up, and on this link? \
         `ip neigh show dev {interface}`; or give its hardware address yourself"
    )]
    NoNeighbor {
        /// The next hop.
        next_hop: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The kernel does not tell.
    #[error("cannot ask the kernel for {what}: {source}")]
    Kernel {
        /// What was asked for.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
}

/// How long a neighbour has to answer; the kernel asks it three times, a second apart.
const NEIGHBOR_PATIENCE: Duration = Duration::from_millis(3_500);
const NEIGHBOR_POLL: Duration = Duration::from_millis(5);

impl Route {
    /// The way to `destination`, which must lead through `interface`.
    ///
    /// # Errors
    ///
    /// If there is none, or another one.
    pub fn to(destination: IpAddr, interface: &Interface) -> Result<Route, RouteError> {
        let mut request = RouteMessage::default();
        request.header.address_family = destination.into();
        request.header.destination_prefix_length = if destination.is_ipv6() { 128 } else { 32 };
        request.attributes = vec![RouteAttribute::Destination(destination.into())];
        let request = RouteNetlinkMessage::GetRoute(request);
        let found = match netlink::ask(NETLINK_ROUTE, request, 0) {
            Ok(Some(RouteNetlinkMessage::NewRoute(found))) => found,
            Ok(_) => return Err(RouteError::NoRoute { destination }),
            Err(error) => {
                return Err(match Errno::from_io_error(&error) {
                    Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::INVAL) => {
                        RouteError::NoRoute { destination }
                    }
                    _ => kernel("the route")(error),
                });
            }
        };
        let (mut out, mut gateway, mut source) = (None, None, None);
        for attribute in found.attributes {
            match attribute {
                RouteAttribute::Oif(index) => out = Some(index),
                RouteAttribute::Gateway(address) => gateway = ip(address),
                RouteAttribute::PrefSource(address) => source = ip(address),
                _ => {}
            }
        }
        match source {
            Some(source) if out == Some(interface.index) => Ok(Route {
                source,
                next_hop: gateway.unwrap_or(destination),
            }),
            _ => Err(RouteError::OtherInterface {
                destination,
                interface: interface.name.clone(),
            }),
        }
    }
}

/// The hardware address of `next_hop` on the link of `interface`. If the kernel does not know it, it is
/// made to ask.
///
/// # Errors
///
/// If no host has that address.
pub fn hardware_address(next_hop: IpAddr, interface: &Interface) -> Result<[u8; 6], RouteError> {
    let started = Instant::now();
    let mut was_provoked = false;
    loop {
        if let Some(address) = look_up(next_hop, interface)? {
            return Ok(address);
        }
        if !was_provoked {
            provoke(next_hop, interface)?;
            was_provoked = true;
        }
        if started.elapsed() > NEIGHBOR_PATIENCE {
            return Err(RouteError::NoNeighbor {
                next_hop,
                interface: interface.name.clone(),
            });
        }
        sleep(NEIGHBOR_POLL);
    }
}

/// What the kernel has in its neighbour table, if that is of use.
fn look_up(next_hop: IpAddr, interface: &Interface) -> Result<Option<[u8; 6]>, RouteError> {
    let request = RouteNetlinkMessage::GetNeighbour(neighbor(next_hop, interface));
    let found = match netlink::ask(NETLINK_ROUTE, request, 0) {
        Ok(Some(RouteNetlinkMessage::NewNeighbour(found))) => found,
        Ok(_) => return Ok(None),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(kernel("the neighbour")(error)),
    };
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    if !matches!(
        found.header.state,
        Reachable | Stale | Delay | Probe | Permanent | Noarp
    ) {
        return Ok(None);
    }
    Ok(found
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        }))
}

/// Makes the kernel ask for a neighbour, as if it had something to send to it.
fn provoke(next_hop: IpAddr, interface: &Interface) -> Result<(), RouteError> {
    let mut message = neighbor(next_hop, interface);
    message.header.flags = NeighbourFlags::Use;
    let request = RouteNetlinkMessage::NewNeighbour(message);
    netlink::ask(NETLINK_ROUTE, request, NLM_F_CREATE | NLM_F_ACK)
        .map(drop)
        .map_err(kernel("the neighbour"))
}

fn neighbor(address: IpAddr, interface: &Interface) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address.into();
    message.header.ifindex = interface.index;
    message.attributes = vec![NeighbourAttribute::Destination(match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    })];
    message
}

fn ip(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(v4.into()),
        RouteAddress::Inet6(v6) => Some(v6.into()),
        _ => None,
    }
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> RouteError {
    move |source| RouteError::Kernel { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_reached_by_its_loopback() {
        let lo = Interface::named("lo").unwrap();
        let route = Route::to([127, 0, 0, 1].into(), &lo).unwrap();
        assert_eq!(route.source, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(route.next_hop, IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn a_way_through_another_interface_is_refused() {
        let mut lo = Interface::named("lo").unwrap();
        lo.index += 1000;
        let error = Route::to([127, 0, 0, 1].into(), &lo)
            .unwrap_err()
            .to_string();
        assert!(error.contains("does not lead through lo"), "{error}");
    }
}
