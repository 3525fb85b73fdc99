//! Least privilege: what the process gives up once it has what it needs.
//!
//! Taking a NIC's queues takes capabilities; serving on them takes none. Nor does a server ever
//! start a program. So an attacker who exploits a bug gets a user without rights and few system
//! calls:
//!
//! ```text
//!   before the first thread      Confinement::begin     no_new_privs; bounding, inheritable and ambient
//!                                                       sets empty: all threads inherit it
//!   each core, its queues open   give_up_privileges     the user's ids; permitted and effective sets empty
//!   main, all cores ready        give_up_privileges     the same; what it starts from here on inherits it
//!   main, everything started     restrict_calls         seccomp filter, on all threads at once
//!                                verify                 every thread is asked whether it is so
//! ```
//!
//! To the kernel, ids and capabilities belong to a thread, not to a process, and each core needs its own until its
//! queues are open. So each thread changes its own, without the signal by which libc changes those of all threads.
//! `verify` checks that every thread did.
//!
//! What goes on without any privilege: waking AF_XDP sockets, reading their statistics and the
//! program's counters (before Linux 5.19 those need CAP_BPF and are left out), and detaching the
//! program, which happens when its last descriptor is closed.

mod calls;
mod user;

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use procfs::process::Process;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use thiserror::Error;

pub use calls::Seccomp;
pub use user::UserError;

use user::Identity;

/// Starts a thread for `run`, which calls `enter` before, to give up its privileges. That has returned when this does: it is
/// forbidden once system calls are filtered.
///
/// # Errors
///
/// If the process is out of threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    enter: impl FnOnce() + Send + 'static,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let (entered, is_entered) = mpsc::channel();
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        enter();
        let _ = entered.send(());
        run()
    })?;
    // An error says that it has panicked instead.
    let _ = is_entered.recv();
    Ok(thread)
}

/// How far the process shall be confined.
#[derive(Debug)]
pub struct Confinement {
    /// The user to become, if it is another one.
    identity: Option<Identity>,
    seccomp: Seccomp,
}

/// Why the process cannot be confined as it shall.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// The user cannot be switched to.
    #[error(transparent)]
    User(#[from] UserError),
    /// A call that only takes rights away was refused.
    #[error("cannot give up privileges: {call}: {source}")]
    Refused {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has no seccomp filters, or does not take ours.
    #[error("cannot restrict system calls: {0}; --seccomp off does without")]
    Seccomp(String),
    /// A thread kept what it had.
    #[error("thread {thread} still has {what}; this is a bug in barewire")]
    Left {
        /// The thread's name.
        thread: String,
        /// What it has.
        what: String,
    },
}

impl Confinement {
    /// Gives up what nothing in this process will need, and looks up `user`. Call it before the first
    /// thread is started: threads inherit it.
    ///
    /// # Errors
    ///
    /// If there is no such user, or the process may not become it.
    pub fn begin(user: Option<&str>, seccomp: Seccomp) -> Result<Self, ConfineError> {
        let identity = user.map(Identity::of).transpose()?.flatten();
        set_no_new_privs(true).map_err(refused("PR_SET_NO_NEW_PRIVS"))?;
        // Kernels before 4.3 have none, and then there is nothing to clear.
        let _ = clear_ambient_capability_set();
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // Newer than the kernel, or CAP_SETPCAP is missing: no program is started anyway.
                Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                Err(errno) => return Err(refused("PR_CAPBSET_DROP")(errno)),
            }
        }
        let sets = capabilities(None).map_err(refused("capget"))?;
        let inheritable = CapabilitySet::empty();
        let sets = CapabilitySets {
            inheritable,
            ..sets
        };
        set_capabilities(None, sets).map_err(refused("capset"))?;
        Ok(Confinement { identity, seccomp })
    }

    /// Says whether [`Confinement::begin`] could become `user`; changes nothing.
    ///
    /// # Errors
    ///
    /// Why it could not.
    pub fn may_become(user: &str) -> Result<(), UserError> {
        Identity::of(user).map(drop)
    }

    /// Makes the calling thread run as the user, without any capability.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, for the same reason on every thread.
    pub fn give_up_privileges(&self) -> Result<(), ConfineError> {
        if let Some(identity) = &self.identity {
            identity.assume()?;
        }
        let none = CapabilitySet::empty();
        let nothing = CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        set_capabilities(None, nothing).map_err(refused("capset"))
    }

    /// Allows all threads, present and future, only the system calls of a server that has started. With
    /// `connects_out`, they may open connections to other machines.
    ///
    /// # Errors
    ///
    /// If the kernel has no seccomp filters.
    pub fn restrict_calls(&self, connects_out: bool) -> Result<(), ConfineError> {
        calls::restrict(self.seccomp, connects_out)
    }

    /// Asks every thread whether it is confined.
    ///
    /// # Errors
    ///
    /// If one of them is not: then the server must not serve.
    pub fn verify(&self) -> Result<(), ConfineError> {
        // The kernel's own threads of an io_uring outlive it for a moment: that of the one with which
        // we saw whether there is io_uring at all.
        for _ in 0..VERIFY_RETRIES {
            if self.verify_once().is_ok() {
                return Ok(());
            }
            sleep(VERIFY_RETRY_INTERVAL);
        }
        self.verify_once()
    }

    fn verify_once(&self) -> Result<(), ConfineError> {
        let threads = Process::myself().and_then(|process| process.tasks());
        let Ok(threads) = threads else {
            tracing::warn!(
                "without /proc nobody can see that all threads gave up their privileges"
            );
            return Ok(());
        };
        // A thread that has just ended has nothing left either.
        for status in threads.flatten().filter_map(|thread| thread.status().ok()) {
            let left = |what| {
                Err(ConfineError::Left {
                    thread: status.name.clone(),
                    what,
                })
            };
            let capabilities = status.capeff | status.capprm | status.capinh;
            if capabilities != 0 {
                return left(format!("the capabilities {capabilities:#x}"));
            }
            let ids = [status.ruid, status.euid, status.suid, status.fuid];
            if let Some(identity) = &self.identity
                && ids.iter().any(|&id| id != identity.uid())
            {
                return left(format!("the user ids {ids:?}"));
            }
        }
        Ok(())
    }
}

const VERIFY_RETRIES: u32 = 100;
const VERIFY_RETRY_INTERVAL: Duration = Duration::from_millis(10);

fn refused(call: &'static str) -> impl FnOnce(Errno) -> ConfineError {
    move |errno| ConfineError::Refused {
        call,
        source: errno.into(),
    }
}
