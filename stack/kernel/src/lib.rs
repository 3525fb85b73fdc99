//! Stacks on the kernel's own TCP: [`epoll`] and [`uring`], for the same services as the bypass.
//!
//! ```text
//!             ┌───────────── one pinned thread per core ──────────────┐
//!  listener ──┼─▶ epoll or io_uring ──▶ bytes ──▶ session ──▶ Service │
//!  (SO_REUSEPORT, BPF)     ▲                         │                │
//!             │            └──────── reply ◀─────────┘   pool, timers │
//!             └───────────────────────────────────────────────────────┘
//! ```
//!
//! Both are meant to be as good as a server on the kernel's stack can be, because the bypass is
//! compared with them: nothing shared between cores, connections served where their packets
//! arrive, no allocation after start, and no system call that could be spared. They differ in the way
//! they wait for events and in nothing else; what is common to both is in this crate's other modules.
//!
//! ```no_run
//! # use barewire_kernel::{KernelConfig, epoll::Epoll};
//! # use barewire_service::{Lifecycle, Service, Stack};
//! # fn serve<S: Service + 'static>(make_service: fn(usize) -> S) -> Result<(), Box<dyn std::error::Error>> {
//! let config = KernelConfig::new(([0, 0, 0, 0], 8080).into());
//! let running = Epoll::new(config).start(make_service, &Lifecycle::new())?;
//! running.wait()?;
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]
#![cfg_attr(
    not(all(feature = "epoll", feature = "uring")),
    allow(
        dead_code,
        unused_imports,
        reason = "not all of it is needed by each of them"
    )
)]

#[cfg(feature = "epoll")]
pub mod epoll;
#[cfg(feature = "uring")]
pub mod uring;

mod acceptor;
mod complaint;
mod config;
mod connect;
mod cores;
mod counters;
mod error;
pub mod handover;
mod input;
mod listener;
#[allow(unsafe_code)]
mod memory;
#[allow(unsafe_code)]
mod pool;
mod session;
#[allow(unsafe_code)]
mod sockopt;
mod workbench;

pub use config::KernelConfig;
pub use counters::KernelCounters;
pub use error::{ListenError, StartError};
pub use listener::Listener;

pub(crate) use acceptor::Acceptor;
pub(crate) use connect::{begin_to_connect, socket_to, why_not};
pub(crate) use input::Input;
pub(crate) use memory::Memory;
pub(crate) use pool::{Buffer, Pool};
pub(crate) use session::{End, Session, Turn};
pub(crate) use sockopt::set_epoll_busy_poll;
pub(crate) use workbench::{Action, Workbench};
