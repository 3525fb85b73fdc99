//! How a queue is bound for a link that receives by a bridge meanwhile.
//!
//! ```text
//!   any thread: Transfer::bind ─▶ socket, rings ──▶ the link, with its next batch: takes them, fills the fill ring
//!                    ▲                                   │
//!                    └──────── the socket ◀──────────────┘
//!   the socket is in the XDP program: Transfer::end ──▶ the link gives up the bridge, once it is empty
//! ```

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::sleep;
use std::time::{Duration, Instant};

use xsk_rs::Umem;

use super::socket::{self, Bound, Shape};
use super::{XskConfig, XskError};
use crate::interface::Interface;

/// Binds the queue of a link. Cheap to clone.
#[derive(Clone)]
pub struct Transfer(Arc<Shared>);

struct Shared {
    umem: Umem,
    shape: Shape,
    interface: Interface,
    queue: u32,
    config: XskConfig,
    bound: Mutex<Option<Bound>>,
    is_taken: AtomicBool,
    is_over: AtomicBool,
    /// Wakes the core that has the link.
    waker: OnceLock<Waker>,
}

/// How long a core may take for a batch.
const BATCH_MAX: Duration = Duration::from_secs(2);

impl Transfer {
    pub(super) fn new(
        memory: &socket::Memory,
        interface: &Interface,
        queue: u32,
        config: &XskConfig,
    ) -> Transfer {
        Transfer(Arc::new(Shared {
            umem: memory.umem.clone(),
            shape: memory.shape,
            interface: interface.clone(),
            queue,
            config: config.clone(),
            bound: Mutex::default(),
            is_taken: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            waker: OnceLock::new(),
        }))
    }

    /// Sets how the core is woken that has the link.
    pub fn wakes(&self, waker: Waker) {
        let _ = self.0.waker.set(waker);
    }

    /// The queue.
    pub fn queue(&self) -> u32 {
        self.0.queue
    }

    /// Binds the queue as soon as the process that has it lets go, and waits until its link is ready for frames. Returns
    /// its socket, to be put into the XDP program. No capability is needed.
    ///
    /// # Errors
    ///
    /// If the queue does not become free, or the driver refuses.
    pub fn bind(&self) -> Result<Arc<OwnedFd>, XskError> {
        let Shared {
            umem,
            shape,
            interface,
            queue,
            config,
            ..
        } = &*self.0;
        let bound = socket::bind_when_free(umem, *shape, interface, *queue, config)?;
        let socket = Arc::clone(&bound.socket);
        *self.bound() = Some(bound);
        self.wake();
        let until = Instant::now() + BATCH_MAX;
        while !self.0.is_taken.load(Ordering::Acquire) && Instant::now() < until {
            sleep(Duration::from_micros(100));
        }
        Ok(socket)
    }

    /// No frame takes the bridge any more.
    pub fn end(&self) {
        self.0.is_over.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.0.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// What the link takes.
    pub(super) fn take(&self) -> Option<Bound> {
        self.bound().take()
    }

    /// The link has taken it, and the kernel has frames to receive in.
    pub(super) fn note_taken(&self) {
        self.0.is_taken.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    fn bound(&self) -> MutexGuard<'_, Option<Bound>> {
        self.0.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
