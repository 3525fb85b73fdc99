//! One listening socket per core, and the kernel program that chooses among them.
//!
//! All listeners share one address through SO_REUSEPORT. By default the kernel picks one by the
//! connection's hash, so that most connections would be served by another core than the one whose
//! NIC queue and softirq handle their packets. A classic BPF program returns the socket of the CPU
//! that received the SYN instead: a connection stays on one core from the interrupt to the reply.
//!
//! ```text
//!   SYN on CPU 2 ──▶ program: A = cpu; if A == 2 return 0; if A == 3 return 1; return A mod 2
//!                                            │
//!   served cores 2,3:     listener 0 (core 2)┘     listener 1 (core 3)
//! ```

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, getsockname, ipproto, listen, shutdown,
    socket_with, sockopt as options,
};

use super::config::KernelConfig;
use super::error::ListenError;
use super::handover::HandOver;
use super::sockopt;

/// A listening socket; nothing accepts from it yet.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// Says whether another process has it, too.
    hand_over: Option<HandOver>,
}

impl Listener {
    /// Opens one listener on `address` for each of `cpus`, in their order.
    ///
    /// # Errors
    ///
    /// If the address is taken, foreign or privileged, or an option is refused.
    pub fn open_group(
        mut address: SocketAddr,
        config: &KernelConfig,
        cpus: &[usize],
    ) -> Result<Vec<Listener>, ListenError> {
        refuse_if_taken(address)?;
        let mut group = Vec::with_capacity(cpus.len());
        for index in 0..cpus.len() {
            let socket = open(address)?;
            if cpus.len() > 1 {
                called(
                    address,
                    "SO_REUSEPORT",
                    options::set_socket_reuseport(&socket, true),
                )?;
            }
            if index == 0 && cpus.len() > 1 {
                // Attached before the first one listens, so that every connection reaches the listener of its CPU.
                let attached = sockopt::attach_reuseport_program(&socket, &steer_by_cpu(cpus));
                called(address, "SO_ATTACH_REUSEPORT_CBPF", attached)?;
            }
            set_inherited_options(&socket, address, config)?;
            called(address, "bind", bind(&socket, &address))?;
            called(address, "listen", listen(&socket, config.backlog))?;
            let hand_over = config.hand_over.clone();
            let listener = Listener { socket, hand_over };
            // Port 0 became a real one, which the rest of the group has to share.
            address = called(address, "getsockname", listener.address())?;
            group.push(listener);
        }
        Ok(group)
    }

    /// One that another process has opened.
    pub(crate) fn inherited(socket: OwnedFd, config: &KernelConfig) -> Listener {
        let hand_over = config.hand_over.clone();
        Listener { socket, hand_over }
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// If the kernel reports an address of another family than it was given.
    pub fn address(&self) -> io::Result<SocketAddr> {
        Ok(getsockname(&self.socket)?.try_into()?)
    }

    /// Makes accepting wait: an io_uring waits in our place, and would not if the socket refused to.
    ///
    /// # Errors
    ///
    /// None that is documented.
    pub fn set_blocking(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.socket, false)?)
    }

    /// Takes a connection from the queue, non-blocking, and who opened it; `None` when there is none.
    ///
    /// # Errors
    ///
    /// If the process or the kernel is out of file descriptors or memory.
    pub fn accept(&self) -> io::Result<Option<(OwnedFd, Option<SocketAddr>)>> {
        const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
        loop {
            match rustix::net::acceptfrom_with(&self.socket, FLAGS) {
                Ok((connection, peer)) => {
                    let peer = peer.and_then(|peer| peer.try_into().ok());
                    return Ok(Some((connection, peer)));
                }
                Err(Errno::AGAIN) => return Ok(None),
                // The errors of the connection that was to be taken (accept(2)): take the next one.
                Err(
                    Errno::CONNABORTED
                    | Errno::INTR
                    | Errno::PERM
                    | Errno::PROTO
                    | Errno::NETDOWN
                    | Errno::NOPROTOOPT
                    | Errno::HOSTDOWN
                    | Errno::NONET
                    | Errno::HOSTUNREACH
                    | Errno::OPNOTSUPP
                    | Errno::NETUNREACH,
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// No client can connect from here on, even while something else (an io_uring, say) still holds the socket; unless
/// another process goes on with it.
impl Drop for Listener {
    fn drop(&mut self) {
        if self
            .hand_over
            .as_ref()
            .is_some_and(HandOver::shares_listeners)
        {
            return;
        }
        // Fails only if it does not listen yet.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// SO_REUSEPORT would silently share the address with another server of the same user.
fn refuse_if_taken(address: SocketAddr) -> Result<(), ListenError> {
    let probe = open(address)?;
    called(address, "bind", bind(&probe, &address))?;
    called(address, "listen", listen(&probe, 1))
}

fn open(address: SocketAddr) -> Result<OwnedFd, ListenError> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP));
    let socket = called(address, "socket", socket)?;
    // Connections in TIME-WAIT of an earlier run do not keep the address.
    let reuse = options::set_socket_reuseaddr(&socket, true);
    called(address, "SO_REUSEADDR", reuse)?;
    if address.is_ipv6() {
        // `[::]` serves IPv4 as well, whatever net.ipv6.bindv6only says.
        let dual = options::set_ipv6_v6only(&socket, false);
        called(address, "IPV6_V6ONLY", dual)?;
    }
    Ok(socket)
}

/// Connections get these from their listener, which saves the calls for each of them.
fn set_inherited_options(
    socket: &OwnedFd,
    address: SocketAddr,
    config: &KernelConfig,
) -> Result<(), ListenError> {
    called(
        address,
        "TCP_NODELAY",
        options::set_tcp_nodelay(socket, true),
    )?;
    let user_timeout = options::set_tcp_user_timeout(socket, config.deadlines.user_timeout_ms);
    called(address, "TCP_USER_TIMEOUT", user_timeout)?;
    if let Some(seconds) = config.defer_accept_s {
        let deferred = sockopt::set_tcp_defer_accept(socket, seconds);
        called(address, "TCP_DEFER_ACCEPT", deferred)?;
    }
    if let Some(us) = config.busy_poll_us {
        called(address, "SO_BUSY_POLL", sockopt::set_busy_poll(socket, us))?;
    }
    if config.prefer_busy_poll {
        let preferred = sockopt::set_prefer_busy_poll(socket, true);
        called(address, "SO_PREFER_BUSY_POLL", preferred)?;
    }
    Ok(())
}

fn called<T>(
    address: SocketAddr,
    call: &'static str,
    result: Result<T, impl Into<io::Error>>,
) -> Result<T, ListenError> {
    result.map_err(|error| {
        let source = error.into();
        match Errno::from_io_error(&source) {
            Some(Errno::ADDRINUSE) => ListenError::InUse(address),
            Some(Errno::ACCESS) => ListenError::Privileged(address),
            Some(Errno::ADDRNOTAVAIL) => ListenError::NoSuchAddress(address.ip()),
            Some(Errno::PERM) => ListenError::NotPermitted(call),
            _ => ListenError::Other {
                address,
                call,
                source,
            },
        }
    })
}

/// Returns the position in `cpus` of the CPU that runs it; other CPUs are spread over all positions.
fn steer_by_cpu(cpus: &[usize]) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jump_false: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_false,
        k,
    };
    let cpu_number = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    let mut program = vec![instruction(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        0,
        cpu_number,
    )];
    for (position, &cpu) in cpus.iter().enumerate() {
        program.push(instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            cpu as u32,
        ));
        program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, position as u32));
    }
    program.push(instruction(
        libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
        0,
        cpus.len() as u32,
    ));
    program.push(instruction(libc::BPF_RET | libc::BPF_A, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;

    fn usable_cpus() -> Vec<usize> {
        let set = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect()
    }

    fn open_group(address: &str, cpus: &[usize]) -> Result<Vec<Listener>, ListenError> {
        let address = address.parse().unwrap();
        Listener::open_group(address, &KernelConfig::new(address), cpus)
    }

    /// Connects from `cpu`, where the loopback device receives the SYN as well.
    fn connect_from(cpu: usize, to: SocketAddr) -> TcpStream {
        std::thread::spawn(move || {
            let mut only = CpuSet::new();
            only.set(cpu);
            sched_setaffinity(None, &only).unwrap();
            TcpStream::connect(to).unwrap()
        })
        .join()
        .unwrap()
    }

    fn index_that_accepts(group: &[Listener]) -> Option<usize> {
        group
            .iter()
            .position(|listener| listener.accept().unwrap().is_some())
    }

    #[test]
    fn a_connection_goes_to_the_listener_of_the_cpu_that_received_it() {
        let mut cpus = usable_cpus();
        cpus.reverse();
        let group = open_group("127.0.0.1:0", &cpus).unwrap();
        let address = group[0].address().unwrap();
        for (index, &cpu) in cpus.iter().enumerate() {
            let _client = connect_from(cpu, address);
            assert_eq!(index_that_accepts(&group), Some(index), "CPU {cpu}");
        }
    }

    #[test]
    fn a_cpu_that_serves_nothing_is_spread_over_those_that_do() {
        let cpus = usable_cpus();
        let others = [4001, 4002];
        let group = open_group("127.0.0.1:0", &others).unwrap();
        let address = group[0].address().unwrap();
        for cpu in cpus {
            let _client = connect_from(cpu, address);
            assert_eq!(index_that_accepts(&group), Some(cpu % 2), "CPU {cpu}");
        }
    }

    #[test]
    fn an_address_in_use_is_refused_although_reuseport_would_share_it() {
        let first = open_group("127.0.0.1:0", &[0, 1]).unwrap();
        let taken = first[0].address().unwrap();
        let error = open_group(&taken.to_string(), &[0, 1]).unwrap_err();
        assert!(matches!(error, ListenError::InUse(address) if address == taken));
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = open_group("192.0.2.1:8080", &[0]).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }

    #[test]
    fn the_unspecified_ipv6_address_serves_ipv4_too() {
        let group = open_group("[::]:0", &[0]).unwrap();
        let port = group[0].address().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(index_that_accepts(&group), Some(0));
    }
}
