//! How a process tells its cores to drain and to stop.
//!
//! The phase is one atomic that every core reads once per batch. A core that sleeps is woken
//! through an eventfd of its own, so that no core polls for a phase that hardly ever changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};

/// What the cores shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Accept and serve.
    Serve = 0,
    /// Accept nothing new, finish what is in flight, then leave.
    Drain = 1,
    /// Leave at once.
    Stop = 2,
}

/// The phase of a running server; a handle that can be cloned into every thread.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    wakers: Mutex<Vec<Arc<OwnedFd>>>,
}

/// One core's view of the [`Lifecycle`].
#[derive(Debug)]
pub struct Member {
    lifecycle: Lifecycle,
    waker: Arc<OwnedFd>,
}

impl Lifecycle {
    /// A lifecycle that begins in [`Phase::Serve`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The phase now.
    #[inline]
    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Acquire) {
            0 => Phase::Serve,
            1 => Phase::Drain,
            _ => Phase::Stop,
        }
    }

    /// Moves on to `phase` and wakes every member. A phase never goes back: an earlier one is ignored.
    pub fn advance(&self, phase: Phase) {
        self.0.phase.fetch_max(phase as u8, Ordering::AcqRel);
        let wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in wakers.iter() {
            make_readable(waker);
        }
    }

    /// Enrols a thread that wants to be woken when the phase changes.
    ///
    /// # Errors
    ///
    /// If the process is out of file descriptors.
    pub fn enrol(&self) -> io::Result<Member> {
        let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.push(Arc::clone(&waker));
        Ok(Member {
            lifecycle: self.clone(),
            waker,
        })
    }
}

impl Member {
    /// The phase now; one load.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// What ends this member's sleep, from any thread.
    pub fn waker(&self) -> Waker {
        Arc::new(Alarm(Arc::clone(&self.waker))).into()
    }

    /// Makes the waker unreadable again. Call it after waking up, before looking at the phase.
    pub fn acknowledge(&self) {
        let mut count = [0; 8];
        // EAGAIN: it was woken by something else, nothing to clear.
        let _ = rustix::io::read(&self.waker, &mut count);
    }
}

/// Makes a member's descriptor readable.
struct Alarm(Arc<OwnedFd>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        make_readable(&self.0);
    }
}

fn make_readable(waker: &OwnedFd) {
    // EAGAIN: the counter is full, so the descriptor is readable already.
    let _ = rustix::io::write(waker, &1u64.to_ne_bytes());
}

/// Readable once the phase has changed, or another thread has woken it.
impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(member: &Member) -> bool {
        let mut fds = [PollFd::new(member, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn a_change_of_phase_wakes_each_member_once() {
        let lifecycle = Lifecycle::new();
        let (first, second) = (lifecycle.enrol().unwrap(), lifecycle.enrol().unwrap());
        assert!(!is_readable(&first));

        lifecycle.advance(Phase::Drain);
        assert!(is_readable(&first) && is_readable(&second));
        first.acknowledge();
        assert!(!is_readable(&first) && is_readable(&second));
        assert_eq!(first.phase(), Phase::Drain);
    }

    #[test]
    fn a_member_is_woken_from_any_thread() {
        let lifecycle = Lifecycle::new();
        let member = lifecycle.enrol().unwrap();
        let waker = member.waker();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        assert!(is_readable(&member));
        member.acknowledge();
        assert!(!is_readable(&member));
        assert_eq!(member.phase(), Phase::Serve);
    }

    #[test]
    fn a_phase_never_goes_back() {
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Stop);
        lifecycle.advance(Phase::Drain);
        assert_eq!(lifecycle.phase(), Phase::Stop);
    }
}
