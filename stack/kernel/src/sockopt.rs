//! The socket options and controls that rustix does not have; all of the kernel stacks' raw calls.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Completes a handshake only once data has arrived, or `seconds` have passed (tcp(7)).
pub fn set_tcp_defer_accept(socket: impl AsFd, seconds: u32) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// Lets a blocking receive poll the NIC's queue for `us` microseconds (socket(7)).
pub fn set_busy_poll(socket: impl AsFd, us: u32) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, us)
}

/// Keeps the NIC's interrupts masked as long as the application polls (Documentation/networking/napi.rst).
pub fn set_prefer_busy_poll(socket: impl AsFd, prefer: bool) -> io::Result<()> {
    set_int(
        socket,
        libc::SOL_SOCKET,
        libc::SO_PREFER_BUSY_POLL,
        u32::from(prefer),
    )
}

/// Chooses the socket of a SO_REUSEPORT group for a new connection: `program` returns its index in
/// the order in which the sockets began to listen (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
pub fn attach_reuseport_program(
    socket: impl AsFd,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    set(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &program,
    )
}

/// Lets `epoll` poll the NIC's queues of its sockets for `us` microseconds before it sleeps
/// (`EPIOCSPARAMS`, Linux 6.9).
pub fn set_epoll_busy_poll(epoll: impl AsFd, us: u32, prefer: bool) -> io::Result<()> {
    /// Packets per poll; more than 64 needs CAP_NET_ADMIN.
    const BUDGET: u16 = 64;
    let parameters = libc::epoll_params {
        busy_poll_usecs: us,
        busy_poll_budget: BUDGET,
        prefer_busy_poll: u8::from(prefer),
        __pad: 0,
    };
    // SAFETY: the request reads one `struct epoll_params` from a reference that outlives the call.
    let result = unsafe {
        libc::ioctl(
            epoll.as_fd().as_raw_fd(),
            libc::EPIOCSPARAMS,
            std::ptr::from_ref(&parameters),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_int(socket: impl AsFd, level: c_int, name: c_int, value: u32) -> io::Result<()> {
    let value = c_int::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
    set(socket, level, name, &value)
}

fn set<T>(socket: impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads at most `size_of::<T>()` bytes from `value`, which outlives the call.
    // The only pointer inside a value is `sock_fprog::filter`, of which `len` elements are read
    // during the call; its one caller takes both from the same slice.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
