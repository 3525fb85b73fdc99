//! Sockets that a service wants opened.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use barewire_service::service::End;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt as options,
};

use super::config::KernelConfig;

/// A socket for a connection to `to`, with the options that accepted ones have. It waits where it is used: an io_uring
/// does that in our place, and would not if the socket refused to.
///
/// # Errors
///
/// What there is none for.
pub fn socket_to(to: SocketAddr, config: &KernelConfig) -> Result<OwnedFd, End> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP));
    let socket = socket.map_err(|_| End::NoConnection)?;
    let set = options::set_tcp_nodelay(&socket, true)
        .and_then(|()| options::set_tcp_user_timeout(&socket, config.deadlines.user_timeout_ms));
    set.map_err(|_| End::NoConnection)?;
    Ok(socket)
}

/// A socket that is being connected to `to`: it is writable once it is, or failed to be.
///
/// # Errors
///
/// Why that could not even begin.
pub fn begin_to_connect(to: SocketAddr, config: &KernelConfig) -> Result<OwnedFd, End> {
    let socket = socket_to(to, config)?;
    ioctl_fionbio(&socket, true).map_err(|_| End::NoConnection)?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(why_not(error)),
    }
}

/// What it means that connecting failed with `error` (connect(2)).
pub fn why_not(error: Errno) -> End {
    match error {
        Errno::ADDRNOTAVAIL => End::NoPort,
        Errno::CONNREFUSED | Errno::CONNRESET => End::Refused,
        Errno::NETUNREACH
        | Errno::HOSTUNREACH
        | Errno::AFNOSUPPORT
        | Errno::ACCESS
        | Errno::PERM
        | Errno::INVAL => End::NoRoute,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => End::NoConnection,
        _ => End::Unanswered,
    }
}
