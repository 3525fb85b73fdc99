//! Keeps the served ports for this process: a kernel listener on each, which receives nothing.
//!
//! Without it the kernel would not know that the port is in use. Another program could bind it, and would never get a
//! connection; and whatever reaches the kernel all the same, on a queue that is not served or while a driver sets
//! itself up anew, would be answered with RST, which ends connections of ours. With it `bind` says that the address is
//! in use, and a socket filter that accepts nothing keeps the kernel silent.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::FDTarget;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt,
};

use super::RedirectError;
use crate::interface::{Interface, is_link_local};

/// Listeners on served addresses and ports. Dropping it frees them.
#[derive(Debug, Default)]
pub(super) struct Reservation(Vec<OwnedFd>);

impl Reservation {
    /// Listeners of another process, which this one goes on with.
    pub(super) fn inherited(listeners: Vec<OwnedFd>) -> Self {
        Reservation(listeners)
    }

    /// The listeners, for another process to go on with.
    pub(super) fn duplicate(&self) -> io::Result<Vec<OwnedFd>> {
        self.0.iter().map(OwnedFd::try_clone).collect()
    }

    /// Reserves `port` of `address`. It may be one that the interface does not have.
    pub(super) fn add(
        &mut self,
        address: IpAddr,
        port: u16,
        interface: &Interface,
    ) -> Result<(), RedirectError> {
        let opened = open(address, port, interface);
        self.0.push(opened.map_err(|errno| match errno {
            Errno::ADDRINUSE => RedirectError::PortInUse {
                address: SocketAddr::new(address, port),
                holder: Holder::of(address, port),
            },
            Errno::ACCESS => RedirectError::PortPrivileged { port },
            errno => RedirectError::Reserve {
                address: SocketAddr::new(address, port),
                source: errno.into(),
            },
        })?);
        Ok(())
    }
}

fn open(address: IpAddr, port: u16, interface: &Interface) -> Result<OwnedFd, Errno> {
    let (family, address) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, SocketAddr::new(address, port)),
        IpAddr::V6(v6) => {
            let scope = if is_link_local(&v6) {
                interface.index
            } else {
                0
            };
            let address = SocketAddrV6::new(v6, port, 0, scope).into();
            (AddressFamily::INET6, address)
        }
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Connections in TIME-WAIT of a server that used the kernel's TCP do not keep the port.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_v6only(&socket, true)?;
            sockopt::set_ipv6_freebind(&socket, true)?;
        }
    }
    accept_nothing(&socket)?;
    bind(&socket, &address)?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// Lets the kernel drop whatever is for the socket, without an answer.
fn accept_nothing(socket: impl AsFd) -> Result<(), Errno> {
    let mut keep_no_byte = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut keep_no_byte,
    };
    // SAFETY: the kernel reads a `sock_fprog` of the given size, and the one instruction it points to; both live
    // through the call, and it writes to neither.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

/// The process that has a port, as far as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder(Option<(String, i32)>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((name, pid)) => write!(f, "{name} (pid {pid})"),
            None => f.write_str("a process that /proc does not show"),
        }
    }
}

impl Holder {
    /// Who listens on `port` of `address`, or of all addresses.
    fn of(address: IpAddr, port: u16) -> Self {
        Holder(Self::find(address, port))
    }

    fn find(address: IpAddr, port: u16) -> Option<(String, i32)> {
        let has_port = |entry: &TcpNetEntry| {
            let local = entry.local_address;
            let (v4, any) = (address.is_ipv4(), IpAddr::from(Ipv6Addr::UNSPECIFIED));
            let is_address = local.ip() == address
                || local.ip().is_unspecified() && (local.is_ipv4() == v4 || local.ip() == any);
            entry.state == TcpState::Listen && local.port() == port && is_address
        };
        let entries = [procfs::net::tcp(), procfs::net::tcp6()];
        let entry = entries.into_iter().flatten().flatten().find(has_port)?;
        let socket = FDTarget::Socket(entry.inode);
        let processes = procfs::process::all_processes().ok()?;
        processes.flatten().find_map(|process| {
            let mut open = process.fd().ok()?.flatten();
            open.find(|fd| fd.target == socket)?;
            Some((process.stat().ok()?.comm, process.pid))
        })
    }
}
