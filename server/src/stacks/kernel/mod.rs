//! What the kernel-stack twins share: everything but the way to wait for events.
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
//! arrive, no allocation after start, and no system call that could be spared.
#![cfg_attr(
    not(all(feature = "epoll", feature = "uring")),
    allow(
        dead_code,
        unused_imports,
        reason = "not all of it is needed by each of them"
    )
)]

mod complaint;
mod config;
pub mod cores;
mod counters;
mod input;
mod listener;
mod memory;
mod pool;
mod session;
mod sockopt;
mod workbench;

pub use config::KernelConfig;
pub use cores::StartError;
pub use counters::KernelCounters;
pub use listener::{ListenError, Listener};

pub(super) use complaint::Complaint;
pub(super) use input::Input;
pub(super) use memory::Memory;
pub(super) use pool::{Buffer, Pool};
pub(super) use session::{Session, Turn};
pub(super) use sockopt::set_epoll_busy_poll;
pub(super) use workbench::Workbench;
