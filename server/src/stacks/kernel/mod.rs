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

mod config;
mod listener;
pub mod pool;
pub mod sockopt;

pub use config::KernelConfig;
pub use listener::{ListenError, Listener};
