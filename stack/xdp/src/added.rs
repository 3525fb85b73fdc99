//! Queues that appear while a server runs (`ethtool -L IFACE combined N`), and get a core like the others.
//!
//! ```text
//!   start, with privileges     each core: frames and a socket for its share of the spare queues
//!   queue N appears            the watching thread: bind ─▶ AddedLinks of the core, wake it ─▶ socket into the program
//!                              the core: Shard::add_link
//! ```
//!
//! What takes privileges (a socket, locked memory) is done at the start, so there are only so many spare queues, and
//! each costs the memory of a queue. Until it appears a queue has no counters and no tap.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use barewire_service::stack::IsThere;
use thiserror::Error;

use crate::interface::Interface;
use crate::redirect::{Redirect, RedirectError};
use crate::xsk::{SpareLink, XskConfig, XskError, XskLink};

/// What waits for a queue to appear.
pub(super) struct Waiting {
    /// The queue.
    pub queue: u32,
    /// The core that will serve it.
    pub core: usize,
    /// The link that it will be.
    pub link: SpareLink,
    /// Gives the link to the core.
    pub adopt: Box<dyn FnOnce(XskLink) + Send>,
    /// Told when it is.
    pub is_there: IsThere,
}

/// Why a queue that has appeared is not served.
#[derive(Debug, Error)]
pub(super) enum NotServed {
    /// No more were prepared for.
    #[error("--spare-queues prepared for no more")]
    NoneSpare,
    /// It cannot be bound.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// The program does not take the socket.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
}

/// The spare queues of a server, in the order in which they appear.
pub(super) struct SpareQueues {
    interface: Interface,
    config: XskConfig,
    /// Locked by one thread only: what it holds may move between threads, but not be shared.
    waiting: Mutex<VecDeque<Waiting>>,
}

impl SpareQueues {
    /// Those of `waiting`, in any order.
    pub fn new(interface: Interface, config: XskConfig, mut waiting: Vec<Waiting>) -> Self {
        waiting.sort_by_key(|waiting| waiting.queue);
        SpareQueues {
            interface,
            config,
            waiting: Mutex::new(waiting.into()),
        }
    }

    /// Whether the driver runs the program on the queues only that were there when it was attached. veth does (up to
    /// Linux 6.18 at least); others give it to all.
    pub fn need_the_program_again(&self) -> bool {
        self.interface.driver == "veth"
    }

    /// Serves `queue`, the next one that has appeared; there are `queues` now. Returns the core that does.
    pub fn serve(
        &mut self,
        queue: u32,
        queues: u32,
        redirect: &Redirect,
    ) -> Result<usize, NotServed> {
        let waiting = self
            .waiting
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let is_next = waiting.front().is_some_and(|next| next.queue == queue);
        let next = waiting.pop_front().filter(|_| is_next);
        let next = next.ok_or(NotServed::NoneSpare)?;
        self.interface.rx_queues = queues;
        let link = next.link.bind(&self.interface, queue, &self.config)?;
        // The core has it before the first frame arrives.
        let socket = link.socket().cloned();
        (next.adopt)(link);
        next.is_there.appear();
        if let Some(socket) = socket {
            redirect.set_socket(queue, &socket)?;
        }
        Ok(next.core)
    }
}
