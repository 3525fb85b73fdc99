//! The system calls of a server that has started.
//!
//! A list of what is allowed, by what it is for. Everything else ends the process (SIGSYS), and with
//! it the `bpf_link`: the kernel takes the interface back. Arguments are looked at where a call can
//! do much more than what it is needed for.
//!
//! A filter sees calls, not what an io_uring is asked to do; so the rings of the io_uring stack are
//! restricted by the kernel itself when they are made, and none can be made later.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::ConfineError;

/// What happens to a system call that a server does not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Seccomp {
    /// It ends the process
    #[default]
    On,
    /// It is done, and the kernel's audit log says so
    Log,
    /// It is done
    Off,
}

/// Puts all threads under the filter.
pub(super) fn restrict(seccomp: Seccomp, connects_out: bool) -> Result<(), ConfineError> {
    let action = match seccomp {
        Seccomp::On => SeccompAction::KillProcess,
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Off => return Ok(()),
    };
    let program =
        filter(action, connects_out).map_err(|error| ConfineError::Seccomp(error.to_string()))?;
    apply_filter_all_threads(&program).map_err(|error| ConfineError::Seccomp(error.to_string()))
}

fn filter(
    action: SeccompAction,
    connects_out: bool,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let any = ALLOWED.iter().map(|&call| (call, Vec::new()));
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = any.collect();
    let out = OUT.iter().filter(|_| connects_out);
    let out = out.map(|&family| (libc::SYS_socket, (0, Width::Dword, Op::Eq, family as u64)));
    for (call, condition) in restricted().into_iter().chain(out) {
        let (argument, width, operator, value) = condition;
        let condition = SeccompCondition::new(argument, width, operator, value)?;
        let rule = SeccompRule::new(vec![condition])?;
        rules.entry(call).or_default().push(rule);
    }
    let target: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, action, SeccompAction::Allow, target)?.try_into()
}

/// Allowed whatever the arguments are.
const ALLOWED: &[c_long] = &[
    // Sockets that are open, and those accepted from them.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // The service manager is told of the end, through a new socket (see `restricted`).
    libc::SYS_connect,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    // Files: the state, the control socket's name, what is read of /proc. Who may open which is the
    // user's matter.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fadvise64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fchmod,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_getcwd,
    // Memory that is not executable (see `restricted` for mmap and mprotect).
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    // Threads.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Who and when.
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Older names for some of the above.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
];

/// An argument's number and width, how it is compared, and with what.
type Condition = (u8, Width, Op, u64);

/// The families of sockets to an engine elsewhere (`--counts-through`). Whoever listens still cannot.
const OUT: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Allowed if the condition holds, or one of several for the same call.
fn restricted() -> [(c_long, Condition); 19] {
    const BPF_MAP_LOOKUP_ELEM: u64 = 1;
    const BPF_MAP_UPDATE_ELEM: u64 = 2;
    const BPF_MAP_DELETE_ELEM: u64 = 3;
    const BPF_LINK_CREATE: u64 = 28;
    const BPF_LINK_UPDATE: u64 = 29;
    const BPF_LINK_DETACH: u64 = 34;
    const SIOCGIFINDEX: u64 = 0x8933;
    const SIOCETHTOOL: u64 = 0x8946;
    let is = |argument, value| (argument, Width::Dword, Op::Eq, value);
    let is_null = |argument| (argument, Width::Qword, Op::Eq, 0);
    let not_executable = || (2, Width::Dword, Op::MaskedEq(libc::PROT_EXEC as u64), 0);
    [
        (libc::SYS_mmap, not_executable()),
        (libc::SYS_mprotect, not_executable()),
        // Nothing that leads off this machine, unless `OUT` is allowed, too.
        (libc::SYS_socket, is(0, libc::AF_UNIX as u64)),
        // The XDP program's counters are read.
        (libc::SYS_bpf, is(0, BPF_MAP_LOOKUP_ELEM)),
        // New addresses and the sockets of queues that appear go into the XDP program; the process has no other maps.
        (libc::SYS_bpf, is(0, BPF_MAP_UPDATE_ELEM)),
        // The sockets of queues that another process takes over leave it.
        (libc::SYS_bpf, is(0, BPF_MAP_DELETE_ELEM)),
        // They are bound then, by the length of such an address. The process cannot listen, nor open a socket that
        // leads off this machine.
        (
            libc::SYS_bind,
            is(2, size_of::<libc::sockaddr_xdp>() as u64),
        ),
        (libc::SYS_ioctl, is(1, SIOCGIFINDEX)),
        // A driver that lost the program gets it again; the process has no other to attach.
        (libc::SYS_bpf, is(0, BPF_LINK_DETACH)),
        (libc::SYS_bpf, is(0, BPF_LINK_CREATE)),
        // Or it takes the place of another process's.
        (libc::SYS_bpf, is(0, BPF_LINK_UPDATE)),
        // How many queues the interface has. To set anything takes CAP_NET_ADMIN.
        (libc::SYS_ioctl, is(1, SIOCETHTOOL)),
        // Threads have names, and so has memory.
        (libc::SYS_prctl, is(0, libc::PR_SET_NAME as u64)),
        (libc::SYS_prctl, is(0, libc::PR_SET_VMA as u64)),
        // Limits are read, not set.
        (libc::SYS_prlimit64, is_null(2)),
        // abort() signals its own process.
        (libc::SYS_tgkill, is(0, std::process::id().into())),
        (libc::SYS_ioctl, is(1, libc::FIONBIO)),
        (libc::SYS_ioctl, is(1, libc::FIOCLEX)),
        (libc::SYS_ioctl, is(1, libc::TCGETS)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_for_this_machine() {
        for connects_out in [false, true] {
            let filter = filter(SeccompAction::KillProcess, connects_out);
            assert!(!filter.unwrap().is_empty());
        }
    }

    #[test]
    fn what_attackers_need_is_not_in_the_list() {
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_listen,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_memfd_create,
            libc::SYS_io_uring_setup,
        ] {
            assert!(!ALLOWED.contains(&call));
            assert!(restricted().iter().all(|rule| rule.0 != call));
        }
    }
}
