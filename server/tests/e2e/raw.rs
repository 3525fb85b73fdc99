//! Frames that no kernel would send, put on the wire through an AF_PACKET socket.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use barewire_lab::CLIENT_DEVICE;

/// The client's interface, for whole frames.
pub struct Wire(OwnedFd);

impl Wire {
    /// Opens the client's interface of the namespace that this thread is in.
    pub fn open() -> Wire {
        let name = CString::new(CLIENT_DEVICE).unwrap();
        // SAFETY: plain system calls; `name` and `address` outlive the calls that read them, and the
        // descriptor that socket(2) returned belongs to nobody else.
        unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0, "{}", io::Error::last_os_error());
            let socket = OwnedFd::from_raw_fd(socket);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            let len = size_of_val(&address) as u32;
            let bound = libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len);
            assert_eq!(bound, 0, "{}", io::Error::last_os_error());
            Wire(socket)
        }
    }

    /// Sends one frame; waits if the queue is full.
    pub fn send(&self, frame: &[u8]) {
        loop {
            match rustix::net::send(&self.0, frame, rustix::net::SendFlags::empty()) {
                Ok(sent) => return assert_eq!(sent, frame.len()),
                Err(rustix::io::Errno::NOBUFS) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A MAC address as sysfs writes it.
pub fn mac(text: &str) -> [u8; 6] {
    let octets: Vec<_> = text
        .trim()
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect();
    octets.try_into().unwrap()
}
