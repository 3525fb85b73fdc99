//! A queue in the moment between two AF_XDP sockets: frames by way of the kernel.
//!
//! A process that takes over cannot bind a queue before its predecessor has let go of it, which takes the kernel some
//! milliseconds. What arrives meanwhile is passed on by the XDP program, and a packet socket (packet(7)) sees it before
//! the kernel's TCP, which is [silent](crate::redirect::Redirect::reserve) on it. It costs a system call for each frame.
//!
//! The kernel may have changed what it shows: VLAN tags are beside the frame, checksums may be left to a device, and GRO
//! may have merged segments. [`segments`](super::segments) undoes that.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::interface::Interface;

use super::segments::TAG_BYTES;

/// Room for what arrives while nobody looks.
const RECEIVE_BUFFER_BYTES: libc::c_int = 16 << 20;
/// The longest frame that GRO makes.
const FRAME_BYTES_MAX: usize = (64 << 10) + 18;

/// Which frames a socket sees.
#[derive(Debug, Clone)]
pub struct Share {
    /// The queue whose frames it sees.
    pub queue: u32,
    /// And those of which the driver does not say by which queue they came.
    pub takes_unmarked: bool,
    /// The ports that are served.
    pub ports: Vec<u16>,
}

/// A packet socket in place of a queue.
#[derive(Debug)]
pub(super) struct Bridge {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

/// What has arrived.
pub(super) struct Seen<'b> {
    pub frame: &'b mut [u8],
    /// The sender has left the checksum to a device.
    pub is_partial: bool,
}

impl Bridge {
    /// Opens a socket that sees TCP for the ports of `share` from here on. This takes CAP_NET_RAW.
    pub fn open(interface: &Interface, share: &Share) -> io::Result<Bridge> {
        // SAFETY: socket(2) takes three numbers.
        let socket = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                0,
            )
        };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just opened, and has no other owner.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let mut filter = filter(share);
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        // Without the capability that the first one takes, it is as long as the kernel lets it be.
        let bytes = RECEIVE_BUFFER_BYTES;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes)
            .or_else(|_| set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes))?;
        let on: libc::c_int = 1;
        set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &on)?;
        // SAFETY: all zeroes are a valid value of a structure of integers.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = interface.index as i32;
        // SAFETY: the kernel reads as many bytes as it is told, which are those of `address`.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        match bound {
            0 => Ok(Bridge {
                socket,
                buffer: vec![0; TAG_BYTES + FRAME_BYTES_MAX].into_boxed_slice(),
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The next frame, with its VLAN tag where it belongs.
    pub fn receive(&mut self) -> Option<Seen<'_>> {
        let (len, seen) = self.receive_behind_tag()?;
        let Some(tag) = seen.tag else {
            return Some(Seen {
                frame: &mut self.buffer[TAG_BYTES..TAG_BYTES + len],
                is_partial: seen.is_partial,
            });
        };
        const MACS: usize = 12;
        self.buffer.copy_within(TAG_BYTES..TAG_BYTES + MACS, 0);
        self.buffer[MACS..MACS + TAG_BYTES].copy_from_slice(&tag);
        Some(Seen {
            frame: &mut self.buffer[..TAG_BYTES + len],
            is_partial: seen.is_partial,
        })
    }

    fn receive_behind_tag(&mut self) -> Option<(usize, Beside)> {
        let space = &mut self.buffer[TAG_BYTES..];
        let mut part = libc::iovec {
            iov_base: space.as_mut_ptr().cast(),
            iov_len: space.len(),
        };
        let mut control = [MaybeUninit::<libc::cmsghdr>::uninit(); 8];
        // SAFETY: all zeroes are a valid value of a structure of integers and pointers.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message points to one buffer and to control space, both of the lengths that it names, and both
        // live through the call.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let len = usize::try_from(len).ok()?;
        let mut beside = Beside::default();
        // SAFETY: the kernel has filled the message in.
        let mut at = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !at.is_null() {
            // SAFETY: it lies within the control space, as the macros see to.
            let header = unsafe { at.read_unaligned() };
            if (header.cmsg_level, header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                // SAFETY: what the kernel puts behind a header of this kind is this structure.
                let known: libc::tpacket_auxdata = unsafe {
                    libc::CMSG_DATA(at)
                        .cast::<libc::tpacket_auxdata>()
                        .read_unaligned()
                };
                beside = Beside::of(&known);
            }
            // SAFETY: as above.
            at = unsafe { libc::CMSG_NXTHDR(&raw const message, at) };
        }
        Some((len, beside))
    }

    /// What becomes readable when a frame has arrived.
    pub fn wake_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Sends a frame, or loses it: then it is repeated as any other.
    pub fn send(&self, frame: &[u8]) {
        let _ = rustix::net::send(&self.socket, frame, rustix::net::SendFlags::DONTWAIT);
    }
}

/// What the kernel tells beside a frame.
#[derive(Debug, Default)]
struct Beside {
    tag: Option<[u8; TAG_BYTES]>,
    is_partial: bool,
}

impl Beside {
    fn of(known: &libc::tpacket_auxdata) -> Beside {
        let has = |flag| known.tp_status & flag != 0;
        let tag = has(libc::TP_STATUS_VLAN_VALID).then(|| {
            let kind = match has(libc::TP_STATUS_VLAN_TPID_VALID) {
                true => known.tp_vlan_tpid,
                false => 0x8100,
            };
            let ([a, b], [c, d]) = (kind.to_be_bytes(), known.tp_vlan_tci.to_be_bytes());
            [a, b, c, d]
        });
        Beside {
            tag,
            is_partial: has(libc::TP_STATUS_CSUMNOTREADY),
        }
    }
}

/// TCP to one of the ports, to this host, by the queue. Fragments are the kernel's, as for the XDP program.
fn filter(share: &Share) -> Vec<libc::sock_filter> {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_AT_X: u16 = 0x48;
    const LOAD_IP_HEADER_LEN: u16 = 0xb1;
    const IF_EQUAL: u16 = 0x15;
    const IF_ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF`, behind which there is what the kernel knows of a packet.
    const KNOWN: u32 = -0x1000_i32 as u32;
    const KNOWN_KIND: u32 = KNOWN + 4;
    const KNOWN_QUEUE: u32 = KNOWN + 24;

    let one = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let when = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    // The kernel counts from one: zero says that it does not know.
    let queues = [Some(share.queue + 1), share.takes_unmarked.then_some(0)];
    let queues: Vec<u32> = queues.into_iter().flatten().collect();

    let mut program = vec![
        one(LOAD_WORD, KNOWN_KIND),
        when(IF_EQUAL, 0, 1, 0),
        one(RETURN, 0),
    ];
    program.push(one(LOAD_WORD, KNOWN_QUEUE));
    one_of(&mut program, &queues);
    let ipv4 = [
        one(LOAD_BYTE, 14 + 9),
        when(IF_EQUAL, 6, 1, 0),
        one(RETURN, 0),
        one(LOAD_HALF, 14 + 6),
        when(IF_ANY_BIT, 0x3fff, 0, 1),
        one(RETURN, 0),
        one(LOAD_IP_HEADER_LEN, 14),
        one(LOAD_HALF_AT_X, 14 + 2),
    ];
    let ipv6 = [
        one(LOAD_BYTE, 14 + 6),
        when(IF_EQUAL, 6, 1, 0),
        one(RETURN, 0),
        one(LOAD_HALF, 14 + 40 + 2),
    ];
    for (kind, instructions) in [(0x0800, &ipv4[..]), (0x86dd, &ipv6[..])] {
        let mut branch = instructions.to_vec();
        let ports: Vec<u32> = share.ports.iter().map(|&port| port.into()).collect();
        one_of(&mut branch, &ports);
        branch.push(one(RETURN, u32::MAX));
        program.push(one(LOAD_HALF, 12));
        program.push(when(IF_EQUAL, kind, 0, branch.len() as u8));
        program.extend(branch);
    }
    program.push(one(RETURN, 0));
    return program;

    /// Ends with nothing unless the accumulator is one of `values`.
    fn one_of(program: &mut Vec<libc::sock_filter>, values: &[u32]) {
        for (at, &k) in values.iter().enumerate() {
            let jt = (values.len() - at) as u8;
            program.push(libc::sock_filter {
                code: IF_EQUAL,
                jt,
                jf: 0,
                k,
            });
        }
        program.push(libc::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: 0,
        });
    }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes at the pointer as a `T` has, and what an instruction list points to, which
    // the caller keeps.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
