//! The attachment of the program to an interface: a `bpf_link`, which the kernel removes with its last descriptor. Another
//! process can have one, and put another program in the place of the first.
//!
//! aya attaches programs as well, but where the kernel refuses a link it falls back to netlink: what is attached so
//! outlives the process, and asks for a socket that a confined process may not open.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::Mode;

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The part of `union bpf_attr` for `BPF_LINK_CREATE`. The kernel takes what is beyond its end as zero.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface_index: u32,
    attach_type: u32,
    flags: u32,
}

/// The part of `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
}

/// The part of `union bpf_attr` for `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link: u32,
}

/// Attaches `program` to the interface with this index in the thread's network namespace.
///
/// Since Linux 5.19 this takes no capability: a process that has a loaded program may attach it.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    interface_index: u32,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: program.as_raw_fd() as u32,
        interface_index,
        attach_type: BPF_XDP,
        flags: match mode {
            Mode::Native => XDP_FLAGS_DRV_MODE,
            Mode::Generic => XDP_FLAGS_SKB_MODE,
        },
    };
    let link = bpf(BPF_LINK_CREATE, &attributes)?;
    // SAFETY: the call succeeded, so this is a descriptor that was just opened and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(link as i32) })
}

/// Puts `program` in the place of the one that `link` attaches. This takes no capability.
pub(super) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = LinkUpdate {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
    };
    bpf(BPF_LINK_UPDATE, &attributes)?;
    Ok(())
}

/// Detaches what `link` attaches, at once: to close it would not, while another process has it, such as one that was
/// forked a moment ago. This takes no capability.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = LinkDetach {
        link: link.as_raw_fd() as u32,
    };
    bpf(BPF_LINK_DETACH, &attributes)?;
    Ok(())
}

/// One of the commands above, with its part of `union bpf_attr`.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    let attributes: *const T = attributes;
    // SAFETY: the kernel reads as many bytes as it is told there are behind the pointer, which are those of a reference, and
    // writes none for these commands.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
