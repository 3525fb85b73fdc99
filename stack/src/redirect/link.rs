//! Attaches an XDP program in the one way that ends with its process: a `bpf_link` (bpf(2)).
//!
//! aya falls back to netlink where the kernel answers EINVAL, and what is attached by netlink stays when the
//! process is gone. So the call is made here, and a refusal is a refusal.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::Mode;

/// `BPF_LINK_CREATE` of `enum bpf_cmd`.
const LINK_CREATE: libc::c_long = 28;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` takes for a network interface.
#[repr(C)]
struct Attributes {
    program: u32,
    interface_index: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches `program` to the interface with this index, until what is returned is closed.
///
/// # Errors
///
/// The kernel's, or the driver's.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    interface_index: u32,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        program: program.as_raw_fd() as u32,
        interface_index,
        attach_type: ATTACH_XDP,
        // `XDP_FLAGS_DRV_MODE` and `XDP_FLAGS_SKB_MODE` of linux/if_link.h.
        flags: match mode {
            Mode::Native => 1 << 2,
            Mode::Generic => 1 << 1,
        },
    };
    let size = size_of::<Attributes>();
    // SAFETY: bpf(2) reads `size` bytes of `attributes`, which outlive the call, takes the rest of its union
    // as zero, and writes nothing. A descriptor that it returns is new, close-on-exec, and nobody else's.
    unsafe {
        match libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw const attributes, size) {
            link @ 0.. => Ok(OwnedFd::from_raw_fd(link as i32)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
